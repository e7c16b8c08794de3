use bytes::Bytes;
use quorate::{At, Index, LogTime, StateMachine, View, WriteState};
use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Read, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A state machine that remembers every command, visible to its test. The reply to the nth
/// command is `n`.
///
/// Clones share their content; a node that is started again gets a new one, which is restored or
/// applies everything again.
#[derive(Clone, Default)]
pub struct Journal {
    entries: Arc<Mutex<Vec<(Index, String)>>>,
    /// The number of commands applied, and of restores.
    applied: Arc<AtomicUsize>,
    restored: Arc<AtomicUsize>,
    fatal: Option<&'static str>,
    before_writing: Option<BeforeWriting>,
    makes_none: bool,
    refuses: bool,
    timers: Option<Arc<Mutex<Timers>>>,
    offers_views: bool,
}

/// The due times and names of timers.
type Timers = BTreeSet<(u64, String)>;

type BeforeWriting = Arc<dyn Fn() -> io::Result<()> + Send + Sync>;

impl Journal {
    /// A journal that panics when it is to apply this command.
    pub fn panicking_at(command: &'static str) -> Self {
        Self { fatal: Some(command), ..Self::default() }
    }

    /// A journal that calls this before its snapshot is written, on the thread that writes it.
    pub fn calling(before_writing: impl Fn() -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { before_writing: Some(Arc::new(before_writing)), ..Self::default() }
    }

    /// A journal that makes no snapshots.
    pub fn without_snapshots() -> Self {
        Self { makes_none: true, ..Self::default() }
    }

    /// A journal that can't be restored from any snapshot.
    pub fn refusing() -> Self {
        Self { refuses: true, ..Self::default() }
    }

    /// A journal that offers views of itself.
    pub fn with_views() -> Self {
        Self { offers_views: true, ..Self::default() }
    }

    /// A journal that uses time. To each command it adds the log time; `after 400 x` sets a timer,
    /// and `x due D` follows when it fires, at most [`Journal::FIRES_MAX`] in one tick.
    pub fn with_time() -> Self {
        Self { timers: Some(Arc::default()), ..Self::default() }
    }

    /// Timers that one tick fires.
    pub const FIRES_MAX: usize = 3;

    /// The log times of a journal with time, in order.
    pub fn times(&self) -> Vec<u64> {
        let entries = self.entries();
        let time = |text: &str| text.rsplit_once('@').and_then(|(_, time)| time.parse().ok()).expect("a time");
        entries.iter().map(|(_, text)| time(text)).collect()
    }

    /// The entries in which timers fired.
    pub fn fired(&self) -> Vec<(Index, String)> {
        self.entries().into_iter().filter(|(_, text)| text.contains(" due ")).collect()
    }

    /// Adds a line, and sets or removes the timer that it tells of.
    fn add(&self, index: Index, line: String) {
        if let Some(timers) = &self.timers {
            let mut timers = timers.lock().unwrap_or_else(PoisonError::into_inner);
            let words: Vec<_> = line.split([' ', '@']).filter(|word| !word.is_empty()).collect();
            let number = |word: &str| word.parse::<u64>().expect("a number");
            match words[..] {
                ["after", delay, name, at] => drop(timers.insert((number(at) + number(delay), name.to_owned()))),
                [name, "due", due, _] => assert!(timers.remove(&(number(due), name.to_owned())), "{line}"),
                _ => {}
            }
        }
        self.lock().push((index, line));
    }

    /// The applied commands, in order.
    pub fn entries(&self) -> Vec<(Index, String)> {
        self.lock().clone()
    }

    /// The number of times that a command was applied.
    pub fn count(&self, command: &str) -> usize {
        self.lock().iter().filter(|(_, applied)| applied == command).count()
    }

    /// The number of commands that this machine applied itself, not those restored from a snapshot.
    pub fn applied(&self) -> usize {
        self.applied.load(Ordering::Relaxed)
    }

    /// The number of restores from a snapshot.
    pub fn restored(&self) -> usize {
        self.restored.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Index, String)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateMachine for Journal {
    fn apply(&mut self, &At { index, time: LogTime(now), .. }: &At, command: &[u8]) -> Bytes {
        let command = String::from_utf8_lossy(command).into_owned();
        assert!(self.fatal != Some(command.as_str()), "told to panic at {command:?}");
        self.applied.fetch_add(1, Ordering::Relaxed);
        let line = if self.timers.is_some() { format!("{command} @{now}") } else { command };
        self.add(index, line);
        self.lock().len().to_string().into()
    }

    fn tick(&mut self, &At { index, time: LogTime(now), .. }: &At) {
        for _ in 0..Self::FIRES_MAX {
            let timers = self.timers.as_ref().map(|timers| timers.lock().unwrap_or_else(PoisonError::into_inner));
            let first = timers.and_then(|timers| timers.first().cloned());
            let Some((due, name)) = first.filter(|(due, _)| *due <= now) else { return };
            self.add(index, format!("{name} due {due} @{due}"));
        }
    }

    fn next_due(&self) -> Option<LogTime> {
        let timers = self.timers.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        timers.first().map(|(due, _)| LogTime(*due))
    }

    fn uses_time(&self) -> bool {
        self.timers.is_some()
    }

    fn view(&self) -> Option<View<Self>> {
        self.offers_views.then(|| View::of(Self { entries: Arc::new(Mutex::new(self.entries())), ..self.clone() }))
    }

    fn snapshot(&self) -> Option<WriteState> {
        let (entries, before_writing) = (self.entries(), self.before_writing.clone());
        let write = move |writer: &mut dyn Write| {
            before_writing.map_or(Ok(()), |before| before())?;
            for (index, command) in entries {
                writer.write_all(&index.0.to_le_bytes())?;
                writer.write_all(&(command.len() as u64).to_le_bytes())?;
                writer.write_all(command.as_bytes())?;
            }
            Ok(())
        };
        (!self.makes_none).then(|| Box::new(write) as WriteState)
    }

    fn restore(&mut self, state: &mut dyn Read) -> io::Result<()> {
        if self.refuses {
            return Err(io::Error::other("told to refuse"));
        }
        let (mut entries, mut number) = (Vec::new(), [0; 8]);
        while state.read(&mut number[..1])? > 0 {
            state.read_exact(&mut number[1..])?;
            let index = Index(u64::from_le_bytes(number));
            state.read_exact(&mut number)?;
            let mut command = vec![0; usize::try_from(u64::from_le_bytes(number)).map_err(io::Error::other)?];
            state.read_exact(&mut command)?;
            entries.push((index, String::from_utf8(command).map_err(io::Error::other)?));
        }
        self.lock().clear();
        if let Some(timers) = &self.timers {
            timers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        entries.into_iter().for_each(|(index, line)| self.add(index, line));
        self.restored.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("entries", &self.entries).finish_non_exhaustive()
    }
}
