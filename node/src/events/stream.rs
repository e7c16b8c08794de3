//! The stream: numbers events, keeps the last ones, passes them to readers, and makes the lines of
//! the log. It never waits: not for a reader, and not for the log longer than a line takes.

use super::{
    Event,
    counted::Counted,
    limit::{Held, Limiter},
    millis,
    what::{Severity, What},
};
use crate::actors::clock::Clock;
use quorate_metrics::NodeMetrics;
use quorate_raft::{NodeId, Term};
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

/// Events that a reader may have waiting. A slower one loses the oldest, and is told.
pub const WAITING_MAX: usize = 512;
/// The last events that are kept for readers that come later.
pub const RECENT_MAX: usize = 200;

/// The node's end of the stream. Cheap to clone, and usable from each of its threads.
#[derive(Clone)]
pub(crate) struct Events(Arc<Inner>);

struct Inner {
    node: NodeId,
    clock: Clock,
    /// The term, as `Consensus` last stated it: for events of other threads.
    term: AtomicU64,
    state: Mutex<State>,
}

struct State {
    next_id: u64,
    recent: VecDeque<Arc<Event>>,
    lines: Limiter<Arc<Event>>,
    counted: Counted,
    /// `None` once the node has ended.
    readers: Option<broadcast::Sender<Arc<Event>>>,
}

impl Events {
    pub(crate) fn new(node: NodeId, clock: Clock, metrics: NodeMetrics) -> Self {
        let (readers, _) = broadcast::channel(WAITING_MAX);
        let state = State {
            next_id: 1,
            recent: VecDeque::with_capacity(RECENT_MAX),
            lines: Limiter::default(),
            counted: Counted::new(metrics),
            readers: Some(readers),
        };
        Self(Arc::new(Inner { node, clock, term: AtomicU64::new(0), state: Mutex::new(state) }))
    }

    /// The term of later events.
    pub(crate) fn term_is(&self, term: Term) {
        self.0.term.store(term.0, Ordering::Relaxed);
    }

    /// Tells a fact to all readers and to the log.
    pub(crate) fn tell(&self, what: What) {
        let Inner { node, clock, term, .. } = &*self.0;
        let at = clock.now().0;
        let at_ms = millis(at);
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        let (kind, _, peer) = what.traits();
        let mut state = self.state();
        state.counted.told(&what, at);
        let event = Arc::new(Event {
            id: state.next_id,
            node: *node,
            term: Term(term.load(Ordering::Relaxed)),
            at_ms,
            wall_ms,
            what,
        });
        state.next_id += 1;
        if state.recent.len() == RECENT_MAX {
            state.recent.pop_front();
        }
        state.recent.push_back(Arc::clone(&event));
        if let Some(readers) = &state.readers {
            // Without a reader nothing is kept for one.
            let _ = readers.send(Arc::clone(&event));
        }
        let held = state.lines.overdue(at_ms);
        let is_logged = state.lines.admits((kind, peer), at_ms, || Arc::clone(&event));
        drop(state);
        log_held(&held);
        if is_logged {
            log(&event, 0);
        }
    }

    /// Logs what repeated lines held back, once their period is over. To be called now and then.
    pub(crate) fn time_passed(&self) {
        let now_ms = millis(self.0.clock.now().0);
        let held = self.state().lines.overdue(now_ms);
        log_held(&held);
    }

    /// Ends the stream: its readers get what they have waiting, and then the end.
    pub(crate) fn end(&self) {
        let (held, readers) = {
            let mut state = self.state();
            (state.lines.all(), state.readers.take())
        };
        drop(readers);
        log_held(&held);
    }

    /// A reader of the events from now on.
    pub(crate) fn reader(&self) -> EventReader {
        let state = self.state();
        let receiver = state.readers.as_ref().map(broadcast::Sender::subscribe);
        EventReader { recent: state.recent.iter().cloned().collect(), receiver }
    }

    /// The last events, oldest first, without a reader.
    pub(crate) fn recent(&self) -> Vec<Arc<Event>> {
        self.state().recent.iter().cloned().collect()
    }

    /// The present on the clock of the events.
    pub(crate) fn now_ms(&self) -> u64 {
        millis(self.0.clock.now().0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The data are whole after each statement, so a poisoned lock is still usable.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("node", &self.0.node).finish_non_exhaustive()
    }
}

/// A reader of the events of one node: [`Node::events`](crate::Node::events). It costs the node
/// nothing to drop it, and it does not keep the node running.
#[derive(Debug)]
pub struct EventReader {
    recent: Vec<Arc<Event>>,
    receiver: Option<broadcast::Receiver<Arc<Event>>>,
}

/// The answer of a reader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// The next event.
    Event(Arc<Event>),
    /// The reader was too slow, and this many events are lost to it. The next ones follow.
    Lost(u64),
}

impl EventReader {
    /// The last events before this reader began, at most [`RECENT_MAX`], oldest first. None is
    /// missing between them and [`EventReader::next`].
    #[must_use]
    pub fn recent(&self) -> &[Arc<Event>] {
        &self.recent
    }

    /// Waits for the next event; `None` once the node has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Received> {
        match self.receiver.as_mut()?.recv().await {
            Ok(event) => Some(Received::Event(event)),
            Err(RecvError::Lagged(lost)) => Some(Received::Lost(lost)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next event if it is there already. `None` may also mean that the node has ended.
    pub fn try_next(&mut self) -> Option<Received> {
        match self.receiver.as_mut()?.try_recv() {
            Ok(event) => Some(Received::Event(event)),
            Err(TryRecvError::Lagged(lost)) => Some(Received::Lost(lost)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

fn log_held(held: &[Held<Arc<Event>>]) {
    held.iter().for_each(|Held { last, more }| log(last, *more));
}

/// Logs the sentence of an event, and how many of the same kind and peer were held back with it.
fn log(event: &Event, more: u32) {
    macro_rules! line {
        ($level:ident) => {{
            let (node, term, kind) = (event.node.0, event.term.0, event.kind());
            let index = event.index().map(|index| index.0);
            let peer = event.peer().map(|peer| peer.0);
            match more {
                0 => tracing::$level!(node, term, index, peer, kind, "{}", event.text()),
                _ => {
                    tracing::$level!(node, term, index, peer, kind, more, "{} (and {more} more like it)", event.text())
                }
            }
        }};
    }
    match event.severity() {
        Severity::Debug => line!(debug),
        Severity::Info => line!(info),
        Severity::Warn => line!(warn),
        Severity::Error => line!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_metrics::Metrics;
    use std::time::Duration;

    fn events() -> Events {
        Events::new(NodeId(3), Clock::start(), Metrics::new().node(3))
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_gets_the_events_in_order_with_the_time_of_the_nodes_clock() {
        let events = events();
        events.term_is(Term(7));
        let mut reader = events.reader();
        events.tell(What::LeaseHeld);
        tokio::time::advance(Duration::from_millis(1_500)).await;
        events.tell(What::ShuttingDown);
        events.end();
        let mut got = Vec::new();
        while let Some(received) = reader.next().await {
            let Received::Event(event) = received else { panic!("{received:?}") };
            got.push((event.id, event.node, event.term, event.at_ms, event.kind()));
        }
        assert_eq!(got, [(1, NodeId(3), Term(7), 0, "lease_held"), (2, NodeId(3), Term(7), 1_500, "shutting_down")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_told_how_many_events_it_lost_and_others_lose_none() {
        let events = events();
        let (mut slow, mut quick) = (events.reader(), events.reader());
        for nth in 0..WAITING_MAX as u64 + 7 {
            events.tell(What::VersionRaised { version: nth as u32 });
            assert!(matches!(quick.next().await, Some(Received::Event(event)) if event.id == nth + 1));
        }
        assert_eq!(slow.next().await, Some(Received::Lost(7)));
        assert!(matches!(slow.next().await, Some(Received::Event(event)) if event.id == 8), "the oldest that is left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_reader_has_the_last_events_and_none_is_missing_after_them() {
        let events = events();
        for version in 0..RECENT_MAX as u32 + 3 {
            events.tell(What::VersionRaised { version });
        }
        let mut reader = events.reader();
        let recent: Vec<_> = reader.recent().iter().map(|event| event.id).collect();
        assert_eq!(recent, (4..=RECENT_MAX as u64 + 3).collect::<Vec<_>>());
        events.tell(What::LeaseHeld);
        assert!(matches!(reader.next().await, Some(Received::Event(event)) if event.id == RECENT_MAX as u64 + 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_of_a_node_that_has_ended_gets_the_last_events_and_the_end() {
        let events = events();
        events.tell(What::ShuttingDown);
        events.end();
        let mut reader = events.reader();
        assert_eq!(reader.recent().len(), 1);
        assert_eq!(reader.next().await, None);
    }
}
