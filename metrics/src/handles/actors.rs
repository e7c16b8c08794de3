//! How busy the actors are, and how late their thread runs.

use super::{Each, NodeMetrics, Scope, TimeCounter, float};
use crate::{catalogue, labels::ActorName};
use metrics::{Counter, Gauge, Histogram};
use std::time::Duration;

pub(super) struct Actors {
    mailbox_depth: Each<ActorName, Gauge>,
    busy: Each<ActorName, TimeCounter>,
    event_loop_delay: Histogram,
    late_wakeups: Counter,
}

impl Actors {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            mailbox_depth: scope.each("actor", |scope| scope.gauge(&catalogue::MAILBOX_DEPTH)),
            busy: scope.each("actor", |scope| scope.time_counter(&catalogue::ACTOR_BUSY)),
            event_loop_delay: scope.histogram(&catalogue::EVENT_LOOP_DELAY),
            late_wakeups: scope.counter(&catalogue::LATE_WAKEUPS),
        }
    }
}

impl NodeMetrics {
    /// So many messages wait for the actor, or for all actors of that name.
    pub fn mailbox_depth(&self, actor: ActorName, messages: u64) {
        self.inner.actors.mailbox_depth.of(actor).set(float(messages));
    }

    /// A timer of the node's own thread fired so long after it was due; counted if that is `late`.
    pub fn woke(&self, after: Duration, late: bool) {
        self.inner.actors.event_loop_delay.record(after);
        self.inner.actors.late_wakeups.increment(late.into());
    }

    /// The actor spent this long handling messages.
    pub fn actor_busy(&self, actor: ActorName, took: Duration) {
        self.inner.actors.busy.of(actor).add(took);
    }
}
