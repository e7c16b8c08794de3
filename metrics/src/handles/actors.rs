//! Load of the actors, delays of their threads, and shortages of the process.

use super::{Each, NodeMetrics, Scope, TimeCounter, float};
use crate::{
    catalogue,
    labels::{ActorName, NodeThread, Shortage},
};
use metrics::{Counter, Gauge, Histogram};
use std::time::Duration;

pub(super) struct Actors {
    mailbox_depth: Each<ActorName, Gauge>,
    busy: Each<ActorName, TimeCounter>,
    event_loop_delay: Histogram,
    late_wakeups: Counter,
    shortages: Each<Shortage, Counter>,
    silence: Each<NodeThread, Gauge>,
    lines_lost: Counter,
    http_connections: Gauge,
}

impl Actors {
    pub(super) fn register(scope: &Scope) -> Self {
        Self {
            mailbox_depth: scope.each("actor", |scope| scope.gauge(&catalogue::MAILBOX_DEPTH)),
            busy: scope.each("actor", |scope| scope.time_counter(&catalogue::ACTOR_BUSY)),
            event_loop_delay: scope.histogram(&catalogue::EVENT_LOOP_DELAY),
            late_wakeups: scope.counter(&catalogue::LATE_WAKEUPS),
            shortages: scope.each("what", |scope| scope.counter(&catalogue::SHORTAGES)),
            silence: scope.each("thread", |scope| scope.gauge(&catalogue::THREAD_SILENCE)),
            lines_lost: scope.counter(&catalogue::LOG_LINES_LOST),
            http_connections: scope.gauge(&catalogue::HTTP_CONNECTIONS),
        }
    }
}

impl NodeMetrics {
    /// Sets the number of waiting messages of the actor, or of all actors of that name together.
    pub fn mailbox_depth(&self, actor: ActorName, messages: u64) {
        self.inner.actors.mailbox_depth.of(actor).set(float(messages));
    }

    /// Records the delay `after` with which a timer on the node's own thread fired; counted as
    /// late if `late`.
    pub fn woke(&self, after: Duration, late: bool) {
        self.inner.actors.event_loop_delay.record(after);
        self.inner.actors.late_wakeups.increment(late.into());
    }

    /// Adds time that the actor spent on handling messages.
    pub fn actor_busy(&self, actor: ActorName, took: Duration) {
        self.inner.actors.busy.of(actor).add(took);
    }

    /// Counts one failure to open or start something for lack of descriptors, threads or memory.
    pub fn ran_short(&self, of: Shortage) {
        self.inner.actors.shortages.of(of).increment(1);
    }

    /// Sets the time since the thread last responded.
    pub fn thread_silent(&self, thread: NodeThread, silence: Duration) {
        self.inner.actors.silence.of(thread).set(silence.as_secs_f64());
    }

    /// Sets the total of log lines that the process has lost.
    pub fn log_lines_lost(&self, lines: u64) {
        self.inner.actors.lines_lost.absolute(lines);
    }

    /// Sets the number of open client connections.
    pub fn http_connections(&self, count: u64) {
        self.inner.actors.http_connections.set(float(count));
    }
}
