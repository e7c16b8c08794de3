//! A typed service beside the registers, in the runs that use time, and the properties that must
//! hold of it. It uses all that needs no leader: timers, events, tokens, snapshots.
//!
//! - **Same calls.** On every node, each entry makes the calls of the service that a dumb [`Twin`]
//!   expects, each at its own time, and leaves the same number of timers and events.
//! - **Tokens** rise from call to call.
//! - **Watches.** A watcher gets every selected event of an entry at once, once, in order and without
//!   a gap, at whichever node reads for it, unless the history has evicted what it missed.
//! - **Whole entries.** A command that panics changes no table, and a restored copy is equal.

use quorate::{
    At, Context, Hosted, Index, LogTime, NodeId, Service, StateMachine, Topics,
    service::{
        history::{Gone, Next},
        timers::{FIRES_MAX, due},
    },
};
use quorate_raft::tick::Tick;
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
    panic,
    time::Duration,
};

/// The most events in the history: few, so that most of them are evicted.
const EVENTS_MAX: u32 = 24;
/// The timers of commands have fewer than this many keys, so that they replace each other.
const SLOTS: u64 = 7;
/// The timers that a few commands set at once: more than two ticks fire, of which the second is late.
const BURST: u64 = 2 * FIRES_MAX as u64 + 50;
/// The command that panics. It stands in no log.
const POISON: u64 = u64::MAX;
/// Entries between two checks with a copy of the service.
const COPIED_EVERY: u64 = 16;
/// The topics by which the watchers select: all, one topic, and those with a prefix.
const WATCHERS: u64 = 6;

/// The change of the timers that an operation's command makes.
enum Ask {
    Set { slot: u64, delay: Duration },
    Burst { delay: Duration },
    Cancel { slot: u64 },
    Nothing,
}

fn ask_of(operation: u64) -> Ask {
    let slot = operation % SLOTS;
    match operation {
        _ if operation % 61 == 3 => Ask::Burst { delay: Duration::from_millis(20) },
        _ if operation.is_multiple_of(2) => Ask::Set { slot, delay: Duration::from_millis(1 + operation * 53 % 700) },
        _ if operation % 5 == 1 => Ask::Cancel { slot },
        _ => Ask::Nothing,
    }
}

/// The events that an operation's command publishes.
fn events_of(operation: u64) -> [(&'static str, u64); 2] {
    [(if operation.is_multiple_of(2) { "set/even" } else { "set/odd" }, operation), ("last", operation)]
}

/// A call of the service: of a command, or of the timer in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Call {
    is_timer: bool,
    number: u64,
    now: LogTime,
}

thread_local! {
    /// The calls of the entry that is applied, with their tokens. All nodes share one thread.
    static CALLS: RefCell<Vec<(Call, u128)>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Probe {
    calls: u64,
}

impl Probe {
    fn called(&mut self, is_timer: bool, number: u64, cx: &Context<'_, Self>) {
        self.calls += 1;
        let call = (Call { is_timer, number, now: cx.now() }, cx.token().as_u128());
        CALLS.with_borrow_mut(|calls| calls.push(call));
    }
}

impl Service for Probe {
    quorate::types!(u64 => u64, () => (), event u64, signal u64);

    fn apply(&mut self, operation: u64, cx: &mut Context<'_, Self>) -> u64 {
        self.called(false, operation, cx);
        match ask_of(operation) {
            Ask::Set { slot, delay } => cx.after(delay, slot),
            Ask::Burst { delay } => (0..BURST).for_each(|nth| cx.after(delay, SLOTS + nth)),
            Ask::Cancel { slot } => drop(cx.cancel(&slot)),
            Ask::Nothing => {}
        }
        for (topic, event) in events_of(operation) {
            cx.publish(topic, event);
        }
        if operation == POISON {
            // All slots change before the end; the panic hook is for panics of the product.
            (0..SLOTS).for_each(|slot| cx.after(Duration::from_millis(5), slot));
            panic::resume_unwind(Box::new("poison"));
        }
        self.calls
    }

    fn signal(&mut self, slot: u64, cx: &mut Context<'_, Self>) {
        self.called(true, slot, cx);
        cx.publish("fired", slot);
    }

    fn query(&self, (): (), _: At) {}
}

/// The service of one node.
pub(super) struct Typed(Hosted<Probe>);

impl Default for Typed {
    fn default() -> Self {
        Self(Hosted::new(Probe::default))
    }
}

impl Typed {
    /// Applies an operation's command.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn applied(&mut self, twin: &mut Twin, at: &At, operation: u64) -> Result<(), String> {
        if at.index.0.is_multiple_of(COPIED_EVERY) {
            self.check_copy(at)?;
        }
        let (_, calls) = called(|| self.0.apply(at, &Hosted::<Probe>::encode(&operation)));
        twin.step(at.index, |twin| twin.command(at.index, operation))?;
        self.compare(twin, at, &calls)
    }

    /// Applies a tick.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn ticked(&mut self, twin: &mut Twin, at: &At, tick: &Tick) -> Result<(), String> {
        let mut tick = *tick;
        tick.bounds.history_events = EVENTS_MAX;
        let ((), calls) = called(|| self.0.ticked(at, &tick));
        twin.step(at.index, |twin| twin.tick(at.index, tick.time))?;
        self.compare(twin, at, &calls)
    }

    pub(super) fn next_due(&self) -> Option<LogTime> {
        self.0.next_due()
    }

    /// Reads for some of the watchers, which read at another node the next time.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn flushed(&mut self, twin: &mut Twin, node: NodeId, applied: Index) -> Result<(), String> {
        self.0.flush(applied);
        let history = &self.0.tables().history;
        for watcher in (0..WATCHERS).filter(|nth| (nth + applied.0 / 32 + node.0).is_multiple_of(3)) {
            let topics = topics_of(watcher);
            loop {
                let position = twin.positions[watcher as usize];
                let read = history.read(position, applied, &topics);
                let to = twin.check_read(position, applied, &topics, &read);
                let to = to.map_err(|what| format!("watches: after {position}, {topics:?}: {what}: {read:?}"))?;
                twin.positions[watcher as usize] = to;
                if to <= position {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The bytes of a snapshot.
    pub(super) fn written(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.0.snapshot() {
            Some(write) => write(&mut bytes)?,
            None => return Err(io::Error::other("the service has no snapshot")),
        }
        Ok(bytes)
    }

    pub(super) fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.0.restore(from)
    }

    /// A restored copy has the same bytes, and a command that panics changes no table of it.
    fn check_copy(&self, at: &At) -> Result<(), String> {
        let in_words = |error: io::Error| format!("whole entries: {error}");
        let (bytes, mut copy) = (self.written().map_err(in_words)?, Self::default());
        copy.restore(&mut &bytes[..]).map_err(in_words)?;
        if copy.written().map_err(in_words)? != bytes {
            return Err(format!("whole entries: a restored copy differs before {}", at.index));
        }
        let poison = Hosted::<Probe>::encode(&POISON);
        let (halted, _) = called(|| copy.0.command(at, None, &poison));
        let (before, after) = (self.0.tables(), copy.0.tables());
        let is_equal = halted.is_err()
            && (before.at, &before.timers, &before.history) == (after.at, &after.timers, &after.history)
            && before.outcomes == after.outcomes;
        is_equal.then_some(()).ok_or_else(|| format!("whole entries: a command that panics counts at {}", at.index))
    }

    fn compare(&self, twin: &mut Twin, at: &At, calls: &[(Call, u128)]) -> Result<(), String> {
        let tables = self.0.tables();
        let after = After {
            time: tables.at.time,
            timers: tables.timers.len(),
            next_due: tables.timers.next_due(),
            events: tables.history.len(),
            floor: tables.history.floor(),
        };
        let Some((expected, wanted)) = twin.outcomes.get_mut(&at.index) else {
            return Err(format!("typed service: {} is applied first by nobody", at.index));
        };
        if !calls.iter().map(|(call, _)| call).eq(expected.iter().map(|(call, _)| call)) {
            let differ = calls.iter().zip(&*expected).find(|(call, expected)| call.0 != expected.0);
            let (had, wanted) = (calls.len(), expected.len());
            return Err(format!("typed service: {} makes {had} calls, not {wanted}: {differ:?}", at.index));
        }
        if after != *wanted {
            return Err(format!("typed service: {} leaves {after:?}, not {wanted:?}", at.index));
        }
        for ((_, token), (_, seen)) in calls.iter().zip(&mut *expected) {
            match seen {
                Some(seen) if seen != token => return Err(format!("tokens: {} has {token} and {seen}", at.index)),
                Some(_) => {}
                None if *token <= twin.token => {
                    return Err(format!("tokens: {token} follows {} at {}", twin.token, at.index));
                }
                None => (*seen, twin.token) = (Some(*token), *token),
            }
        }
        Ok(())
    }
}

/// The calls that a piece of work makes.
fn called<T>(work: impl FnOnce() -> T) -> (T, Vec<(Call, u128)>) {
    CALLS.take();
    (work(), CALLS.take())
}

fn topics_of(watcher: u64) -> Topics {
    match watcher % 3 {
        0 => Topics::All,
        1 => Topics::from("set/even"),
        _ => Topics::Prefix("set/".into()),
    }
}

/// The tables after an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct After {
    time: LogTime,
    timers: usize,
    next_due: Option<LogTime>,
    events: u64,
    floor: Index,
}

/// An entry's calls, each with its token at the first node, and the tables after the entry.
type Outcome = (Vec<(Call, Option<u128>)>, After);

/// The service as its documents describe it, without thought for speed: one for all nodes of a run,
/// which follows the first node that applies an entry.
#[derive(Default)]
pub(super) struct Twin {
    last: Index,
    now: LogTime,
    /// The due, and the number of the setting, of the timer of each key.
    timers: BTreeMap<u64, (LogTime, u64)>,
    settings: u64,
    /// All events ever published.
    events: BTreeMap<Index, Vec<(&'static str, u64)>>,
    /// The entries in the history, and how many events each has.
    kept: VecDeque<(Index, u64)>,
    events_max: Option<u64>,
    floor: Index,
    outcomes: BTreeMap<Index, Outcome>,
    token: u128,
    positions: [Index; WATCHERS as usize],
}

impl Twin {
    fn step(&mut self, index: Index, run: impl FnOnce(&mut Self) -> Vec<Call>) -> Result<(), String> {
        if index <= self.last {
            return Ok(());
        }
        self.last = index;
        let calls = run(self).into_iter().map(|call| (call, None)).collect();
        let after = After {
            time: self.now,
            timers: self.timers.len(),
            next_due: self.timers.values().map(|(due, _)| *due).min(),
            events: self.kept.iter().map(|(_, events)| events).sum(),
            floor: self.floor,
        };
        self.outcomes.insert(index, (calls, after));
        Ok(())
    }

    fn command(&mut self, index: Index, operation: u64) -> Vec<Call> {
        match ask_of(operation) {
            Ask::Set { slot, delay } => self.set(slot, delay),
            Ask::Burst { delay } => (0..BURST).for_each(|nth| self.set(SLOTS + nth, delay)),
            Ask::Cancel { slot } => drop(self.timers.remove(&slot)),
            Ask::Nothing => {}
        }
        self.publish(index, events_of(operation).to_vec());
        vec![Call { is_timer: false, number: operation, now: self.now }]
    }

    fn set(&mut self, slot: u64, delay: Duration) {
        self.timers.insert(slot, (due(self.now, delay), self.settings));
        self.settings += 1;
    }

    fn tick(&mut self, index: Index, time: LogTime) -> Vec<Call> {
        self.events_max = Some(EVENTS_MAX.into());
        let until = self.now.max(time);
        let mut due: Vec<_> = self.timers.iter().map(|(slot, (due, setting))| (*due, *setting, *slot)).collect();
        due.retain(|(due, ..)| *due <= until);
        due.sort_unstable();
        due.truncate(FIRES_MAX as usize);
        for (_, _, slot) in &due {
            self.timers.remove(slot);
        }
        self.now = self.timers.values().map(|(due, _)| *due).fold(until, LogTime::min);
        self.publish(index, due.iter().map(|(_, _, slot)| ("fired", *slot)).collect());
        due.into_iter().map(|(due, _, slot)| Call { is_timer: true, number: slot, now: due }).collect()
    }

    fn publish(&mut self, index: Index, events: Vec<(&'static str, u64)>) {
        if !events.is_empty() {
            self.kept.push_back((index, events.len() as u64));
            self.events.insert(index, events);
        }
        let count = |kept: &VecDeque<(Index, u64)>| kept.iter().map(|(_, events)| events).sum::<u64>();
        while self.kept.len() > 1 && self.events_max.is_some_and(|max| count(&self.kept) > max) {
            self.floor = self.kept.pop_front().map_or(self.floor, |(index, _)| index);
        }
    }

    /// Gives the next position of a watcher that has read this at a node.
    fn check_read(
        &self,
        position: Index,
        applied: Index,
        topics: &Topics,
        read: &Result<Next<u64>, Gone>,
    ) -> Result<Index, &'static str> {
        let of = |index: Index| self.events.get(&index).into_iter().flatten().filter(|(topic, _)| topics.select(topic));
        let mut after = self.events.range(position.next()..).map(|(index, _)| *index);
        match read {
            Ok(Next::Changes(changes)) => {
                let got = changes.events.iter().map(|(topic, event)| (&**topic, **event));
                match after.find(|index| of(*index).next().is_some()) {
                    Some(index) if index == changes.index && got.eq(of(index).copied()) => Ok(index),
                    _ => Err("it gets other events"),
                }
            }
            Ok(Next::Nothing(to)) if *to < position || *to > applied.max(position) => Err("it is moved"),
            Ok(Next::Nothing(to)) => {
                match after.take_while(|index| index <= to).any(|index| of(index).next().is_some()) {
                    true => Err("it misses events"),
                    false => Ok(*to),
                }
            }
            Err(Gone { floor }) if *floor > self.floor || after.next().is_none_or(|index| index > *floor) => {
                Err("nothing that it misses is gone")
            }
            Err(Gone { floor }) => Ok(*floor),
        }
    }
}
