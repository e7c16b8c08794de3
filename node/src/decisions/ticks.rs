//! Ticks: when a leader moves log time on, for a state machine that uses time.
//!
//! - One tick stands in front of a batch if the millisecond changed, and in front of the first batch
//!   of a leadership: each command is applied at the time at which it was appended.
//! - One is appended by itself as soon as the machine has something due, and again at once so long
//!   as it left a part of that.
//! - One follows each second while the machine waits for something: so a full stop of the cluster
//!   forgets a second of log time at most.
//! - None otherwise: an idle log stays idle.
//!
//! No tick is forwarded, so admission control does not count them, and none is appended while a
//! leadership transfer holds proposals. A tick by itself waits until the one before is applied, so
//! that a log without commits does not fill up with ticks. While the leader does not know the
//! highest time in its log, which takes until it has applied the part that it found at its start,
//! its commands wait too.

use crate::sessions::LogClock;
use quorate_raft::{
    Batch, Index, Moment, Term,
    session::LogTime,
    tick::{Bounds, Tick},
};
use std::time::Duration;

/// Interval between two ticks while the machine waits for something.
const EVERY: Duration = Duration::from_secs(1);

/// The clock of a node, and the ticks that it appends while it leads.
#[derive(Debug)]
pub struct Ticks {
    clock: LogClock,
    uses_time: bool,
    bounds: Bounds,
    /// The last tick of this node, with the term of its leadership.
    last: Option<(Term, Index)>,
    applied: Index,
    next_due: Option<LogTime>,
    is_pending: bool,
}

/// The node's part in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    pub is_leader: bool,
    pub term: Term,
    /// No proposal may be appended now.
    pub holds_proposals: bool,
}

/// The times that the state machine has reached, and those that it waits for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reached {
    /// The highest time that an applied entry states.
    pub log_time: LogTime,
    /// The time by which the machine wants a tick.
    pub next_due: Option<LogTime>,
    /// Something else than a time is waited for: the result of an effect.
    pub is_pending: bool,
    /// The schema version that the machine has reached, if it hosts a service.
    pub schema_version: Option<u32>,
}

/// The next tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Append it now, with this time.
    Now(LogTime),
    /// Ask again at this moment, if nothing happens before.
    At(Moment),
    /// There is none until something happens.
    None,
}

impl Ticks {
    /// Of a node that starts with a log that ends at `last`. `step_max` is the longest election
    /// timeout.
    pub fn new(uses_time: bool, last: Index, step_max: Duration) -> Self {
        Self {
            clock: LogClock::new(last, step_max),
            uses_time,
            bounds: Bounds::default(),
            last: None,
            applied: Index(0),
            next_due: None,
            is_pending: false,
        }
    }

    /// The bounds in the ticks of this node.
    #[must_use]
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Whether a machine that uses time runs here. Without, nothing but [`Ticks::stamp`] and
    /// [`Ticks::looked`] matters.
    pub fn are_used(&self) -> bool {
        self.uses_time
    }

    /// The leader of `term` was heard.
    pub fn leader_heard(&mut self, term: Term, now: Moment) {
        if self.uses_time {
            self.clock.contact(term, now);
        }
    }

    /// The leader looks at its clock: with each batch, and once each heartbeat interval.
    pub fn looked(&mut self, view: &View, now: Moment) {
        if view.is_leader {
            // Without ticks this clock is shown no stamps: other leaders may have stated its highest
            // time since it last led.
            if !self.uses_time && !self.clock.is_of(view.term) {
                self.clock.count_anew();
            }
            self.clock.contact(view.term, now);
        }
    }

    /// The log changes: entries leave its end, and then these are appended.
    pub fn written(&mut self, truncate_from: Option<Index>, batch: Option<&Batch>, view: &View) {
        if !self.uses_time {
            return;
        }
        self.clock.written(truncate_from, batch, view.is_leader);
        if view.is_leader
            && let Some((index, _)) = batch.and_then(|batch| batch.ticks().last())
        {
            self.last = Some((view.term, index));
        }
    }

    /// The entries up to `index` are applied.
    pub fn applied(&mut self, index: Index, reached: Reached, view: &View) {
        let Reached { log_time, next_due, is_pending, schema_version: _ } = reached;
        self.clock.applied(index, log_time, view.is_leader);
        (self.applied, self.next_due, self.is_pending) = (index, next_due, is_pending);
    }

    /// A snapshot took the place of the entries up to `base`; the log ends at `last` now.
    pub fn restores(&mut self, base: Index, last: Index) {
        self.clock.restores(base, last);
    }

    /// The state machine halted: this node appends no command and no tick any more, and needs no
    /// log time.
    pub fn machine_halted(&mut self) {
        self.uses_time = false;
        self.clock.forget_ticks();
    }

    /// Whether commands wait, because the highest time in the log is not known here yet.
    pub fn hold_commands(&self) -> bool {
        self.uses_time && !self.clock.is_known()
    }

    /// The time for the stamp of a session entry that is appended now.
    pub fn stamp(&mut self, view: &View, now: Moment) -> LogTime {
        self.looked(view, now);
        self.clock.now()
    }

    /// The time of the tick that stands first in a batch that is appended now, if there is one.
    pub fn in_front(&mut self, view: &View, now: Moment) -> Option<LogTime> {
        if !self.may_append(view) {
            return None;
        }
        self.looked(view, now);
        let time = self.clock.now();
        let is_first = self.last.is_none_or(|(term, _)| term != view.term);
        (is_first || time > self.clock.highest()).then_some(time)
    }

    /// Whether [`Ticks::next`] depends on the time, which costs more to read than all else here.
    pub fn is_next_wanted(&self, view: &View) -> bool {
        self.next_at(view).is_some()
    }

    /// The next tick by itself.
    pub fn next(&mut self, view: &View, now: Moment) -> Next {
        let Some(at) = self.next_at(view) else { return Next::None };
        self.looked(view, now);
        match self.clock.until(at) {
            Duration::ZERO => Next::Now(self.clock.now()),
            until => Next::At(now.plus(until)),
        }
    }

    /// The log time of the next tick by itself, if there is to be one.
    fn next_at(&self, view: &View) -> Option<LogTime> {
        // What the machine waits for is known once it has applied the last tick.
        let awaits = self.last.is_some_and(|(term, index)| term == view.term && index > self.applied);
        if awaits || !self.may_append(view) {
            return None;
        }
        let waits = self.is_pending || self.next_due.is_some();
        waits.then(|| self.clock.highest() + EVERY).into_iter().chain(self.next_due).min()
    }

    /// The content of a tick.
    pub fn tick(&self, time: LogTime, unix_ms: u64, random: [u8; 8]) -> Tick {
        Tick { time, unix_ms, random, bounds: self.bounds }
    }

    fn may_append(&self, view: &View) -> bool {
        self.uses_time && view.is_leader && !view.holds_proposals && self.clock.is_known()
    }
}

#[cfg(test)]
mod tests;
