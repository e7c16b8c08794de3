//! Log output to standard error that never blocks the threads that log.
//!
//! **Bounded and lossy:** lines wait in a queue, and a separate thread writes them. While standard
//! error is a full pipe that is not read, this thread blocks, the queue fills, and further lines
//! are dropped and counted; once the pipe is read again, a line reports the number. If the node's
//! threads wrote by themselves, they would block on the pipe.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// The maximum number of waiting lines and the maximum length of each: 32 MiB together; usually a
/// hundredth of that.
const LINES_MAX: usize = 4096;
const LINE_BYTES_MAX: usize = 8 << 10;
/// The time limit at the end of the process for writing the waiting lines.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<SyncSender<Message>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    /// A barrier: answered when all earlier lines are written.
    Flush(SyncSender<()>),
}

/// Starts logging to standard error: through the queue for a node, directly for other commands.
pub(crate) fn start(is_node: bool) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let parsed = EnvFilter::try_new(if asked.is_empty() { "info" } else { &asked });
    let problem = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new("info"));
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(io::stderr().is_terminal()).with_target(false);
    if is_node && start_queue() {
        lines.with_writer(Queued).init();
        std::panic::set_hook(Box::new(|panic| tracing::error!("{}", one_line(&panic.to_string()))));
    } else {
        lines.with_writer(io::stderr).init();
    }
    if let Some(problem) = problem {
        tracing::warn!("{}={asked:?} is not understood and is ignored: {problem}", EnvFilter::DEFAULT_ENV);
    }
}

/// The number of lines dropped since the process started.
pub(crate) fn lines_lost() -> u64 {
    LOST.load(Relaxed)
}

/// Writes a last line after the queued ones, within a second; returns whether there is a queue.
pub(crate) fn last_line(text: impl fmt::Display) -> bool {
    let Some(queue) = QUEUE.get() else { return false };
    let deadline = Instant::now() + LAST_WORDS_LIMIT;
    let (tell, flushed) = sync_channel(1);
    let mut messages = vec![Message::Flush(tell), Message::Line(format!("{text}\n").into_bytes())];
    while let Some(message) = messages.pop() {
        match queue.try_send(message) {
            Ok(()) => continue,
            Err(TrySendError::Full(message)) if Instant::now() < deadline => {
                messages.push(message);
                thread::sleep(Duration::from_millis(10));
            }
            Err(_) => return true,
        }
    }
    let _ = flushed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    true
}

/// Waits for at most a second until the queued lines are written.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        let (tell, flushed) = sync_channel(1);
        if queue.try_send(Message::Flush(tell)).is_ok() {
            let _ = flushed.recv_timeout(LAST_WORDS_LIMIT);
        }
    }
}

/// Starts the writing thread; without it, each thread writes its own lines.
fn start_queue() -> bool {
    let (queue, lines) = sync_channel(LINES_MAX);
    let writing = move || write(&lines, &mut io::stderr(), &LOST);
    let started = thread::Builder::new().name("quorate-log".into()).spawn(writing);
    started.is_ok() && QUEUE.set(queue).is_ok()
}

/// Writes the queued lines in order, and reports the number of dropped lines after each loss.
fn write(messages: &Receiver<Message>, to: &mut impl Write, lost: &AtomicU64) {
    let mut told = 0;
    for message in messages {
        match message {
            // A failure to write to standard error cannot be reported anywhere.
            Message::Line(line) => {
                let _ = to.write_all(&line).and_then(|()| to.flush());
            }
            Message::Flush(tell) => {
                let _ = tell.try_send(());
            }
        }
        let now = lost.load(Relaxed);
        if now > told {
            let _ = writeln!(to, " WARN {} log lines were dropped because standard error was blocked", now - told);
            told = now;
        }
    }
}

/// Queues lines, or drops them when the queue is full.
struct Queued;

impl<'a> MakeWriter<'a> for Queued {
    type Writer = Line<'static>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { queue: QUEUE.get(), lost: &LOST }
    }
}

/// One log line; the formatter writes it in a single call.
struct Line<'a> {
    queue: Option<&'a SyncSender<Message>>,
    lost: &'a AtomicU64,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = bytes[..bytes.len().min(LINE_BYTES_MAX)].to_vec();
        if line.len() < bytes.len() {
            line.extend_from_slice("…\n".as_bytes());
        }
        if self.queue.is_none_or(|queue| queue.try_send(Message::Line(line)).is_err()) {
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_find_no_room_are_counted_and_reported_once_there_is_room_again() {
        let lost = AtomicU64::new(0);
        let (queue, lines) = sync_channel(2);
        let say = |text: &str| {
            let mut line = Line { queue: Some(&queue), lost: &lost };
            line.write_all(text.as_bytes()).expect("it never fails");
        };
        ["one\n", "two\n", "three\n", "four\n"].into_iter().for_each(say);
        say(&"x".repeat(2 * LINE_BYTES_MAX));
        assert_eq!(lost.load(Relaxed), 3, "a full queue does not block");
        drop(queue);
        let mut written = Vec::new();
        write(&lines, &mut written, &lost);
        let text = String::from_utf8(written).expect("text");
        assert_eq!(text, "one\n WARN 3 log lines were dropped because standard error was blocked\ntwo\n");
    }

    #[test]
    fn a_long_line_is_cut() {
        let (queue, lines) = sync_channel(1);
        let lost = AtomicU64::new(0);
        let text = "x".repeat(2 * LINE_BYTES_MAX);
        Line { queue: Some(&queue), lost: &lost }.write_all(text.as_bytes()).expect("it never fails");
        drop(queue);
        let mut written = Vec::new();
        write(&lines, &mut written, &lost);
        assert_eq!(written.len(), LINE_BYTES_MAX + "…\n".len());
    }
}
