//! The responsiveness of a node's threads: each is asked to do nothing, and its delay is measured.

use actix::ArbiterHandle;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// The time for which each thread of a node has left a question unanswered:
/// [`Node::turns`](crate::Node::turns). Zero if it answered the one before; `None` if the
/// thread has ended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Turns {
    /// The thread of consensus, elections, replication and the network.
    pub consensus: Option<Duration>,
    /// The thread of the storage, which waits for the disk.
    pub log_writer: Option<Duration>,
    /// The thread of the state machine, which a command, a query or a snapshot may occupy
    /// for any time.
    pub applier: Option<Duration>,
}

/// Asks the threads of a node. An actor on its caller's thread has none of its own, and
/// answers at once.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    pub(crate) consensus: Probe,
    pub(crate) log_writer: Probe,
    pub(crate) applier: Probe,
}

impl Pulse {
    pub(crate) fn turns(&self) -> Turns {
        let Self { consensus, log_writer, applier } = self;
        Turns { consensus: consensus.silence(), log_writer: log_writer.silence(), applier: applier.silence() }
    }
}

/// Asks one thread; at most one question is in flight.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    thread: Option<ArbiterHandle>,
    asked: Mutex<Option<Asked>>,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    is_answered: Arc<AtomicBool>,
}

impl Probe {
    pub(crate) fn of(thread: Option<ArbiterHandle>) -> Self {
        Self { thread, asked: Mutex::default() }
    }

    fn silence(&self) -> Option<Duration> {
        let Some(thread) = &self.thread else { return Some(Duration::ZERO) };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = asked.as_ref().filter(|asked| !asked.is_answered.load(Ordering::Relaxed)) {
            return thread.alive().then(|| asked.at.elapsed());
        }
        let is_answered = Arc::new(AtomicBool::new(false));
        let answer = Arc::clone(&is_answered);
        let is_there = thread.spawn_fn(move || answer.store(true, Ordering::Relaxed));
        *asked = Some(Asked { at: Instant::now(), is_answered });
        is_there.then_some(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::Arbiter;
    use std::sync::mpsc;

    #[actix::test]
    async fn a_blocked_thread_is_silent_until_it_goes_on_and_one_that_ended_is_gone() {
        let thread = Arbiter::new();
        let probe = Probe::of(Some(thread.handle()));
        assert_eq!(probe.silence(), Some(Duration::ZERO));
        let (go_on, blocked) = mpsc::channel::<()>();
        let (tell, stands) = mpsc::channel();
        thread.spawn_fn(move || {
            let _ = tell.send(());
            let _ = blocked.recv();
        });
        stands.recv().expect("it is blocked, behind the first question");
        assert_eq!(probe.silence(), Some(Duration::ZERO), "asked anew");
        let first = probe.silence().expect("it is there");
        let later = probe.silence().expect("it is there");
        assert!(first > Duration::ZERO && later > first, "{first:?} {later:?}");
        drop(go_on);
        while probe.silence() != Some(Duration::ZERO) {
            std::thread::yield_now();
        }
        thread.stop();
        thread.join().expect("it ended well");
        while probe.silence().is_some() {
            std::thread::yield_now();
        }
    }
}
