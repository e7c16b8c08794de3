//! Load of the actors, delays of their threads, and shortages of the process.

use super::{NodeMetrics, float};
use crate::labels::{ActorName, CountedMailbox, HttpRefusal, NodeThread, Shortage};
use std::time::Duration;

impl NodeMetrics {
    /// Sets the number of messages that waited in the actor's mailbox when it was measured.
    pub fn mailbox_depth(&self, actor: CountedMailbox, messages: u64) {
        self.inner.actors.mailbox_depth.of(actor).set(float(messages));
    }

    /// Records the time that a message waited in the mailbox of the actor, or of one of that name.
    pub fn mailbox_waited(&self, actor: ActorName, took: Duration) {
        self.inner.actors.mailbox_wait.of(actor).record(took);
    }

    /// Records the delay `after` with which a timer on the node's own thread fired; counted as
    /// late if `late`.
    pub fn woke(&self, after: Duration, late: bool) {
        self.inner.actors.event_loop_delay.record(after);
        self.inner.actors.late_wakeups.increment(late.into());
    }

    /// Adds the time of a turn of the actor, or of one of that name.
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

    /// Counts a request or connection of a client that was refused or cut off.
    pub fn http_refused(&self, reason: HttpRefusal) {
        self.inner.actors.http_refused.of(reason).increment(1);
    }
}
