//! `ElectionTimer`: owns the election timeout and its randomness, and measures the stalls of the
//! node's thread and the mailbox of `Consensus`, for the life of the node.
//!
//! It never decides what a timeout means: `Consensus` does. The deadline is an absolute instant; a
//! wake-up only checks whether the deadline has passed.
//!
//! **Time in which the thread did not run does not count as silence of the leader** ([`Stalls`]).
//! Twice in a heartbeat interval the timer wakes and measures how late it is. A stall moves the
//! deadline, and `Consensus` is told of it first ([`Stalled`]). After a late wake-up the deadline
//! of a follower is at least one such wake-up away, once for each deadline: messages of the leader
//! may have arrived during the stall, and are handled first.

use super::{
    clock::Clock,
    load::Load,
    messages::{Arm, Describe, ElectionTimeout, LeaderHeard, Stalled, Stop, TimerDescribed},
    stalls::{LATE_MIN, Stalls},
};
use crate::{
    config::Timing,
    events::{Events, What, millis},
    lifecycle::PanicGuard,
    reports::report::ElectionDeadline,
};
use actix::prelude::*;
use quorate_metrics::{ActorName, NodeMetrics};
use quorate_raft::Term;
use quorate_storage::contract::Probe;
use rand::{Rng, rngs::SmallRng};
use std::time::Duration;
use tokio::time::Instant;

/// The actor that owns the election timeout.
pub(crate) struct ElectionTimer {
    timed_out: Recipient<ElectionTimeout>,
    stalled: Recipient<Stalled>,
    probed: Recipient<Probe>,
    clock: Clock,
    timeout: (Duration, Duration),
    random: SmallRng,
    armed: Option<Armed>,
    /// Measurements of the thread so far. It wraps.
    looks: u8,
    /// When a leader was last heard; the start of the node before the first one.
    heard: Instant,
    /// The interval between two measurements of the thread.
    look_every: Duration,
    due: Instant,
    stalls: Stalls,
    metrics: NodeMetrics,
    load: Load,
    events: Events,
    _panic_guard: PanicGuard,
}

#[derive(Clone, Copy)]
struct Armed {
    term: Term,
    at: Instant,
    deadline: Instant,
    /// Whether the deadline was already moved for the messages that arrived before a late wake-up.
    has_waited: bool,
}

impl Armed {
    /// Moves the deadline after a late wake-up. Of the stall, only the part since the timer was
    /// armed is excused.
    fn stalled(&mut self, now: Instant, excused: Duration, look_every: Duration) {
        self.deadline += excused.min(now.saturating_duration_since(self.at));
        if !std::mem::replace(&mut self.has_waited, true) {
            self.deadline = self.deadline.max(now + look_every);
        }
    }
}

impl ElectionTimer {
    /// The allowance for excused stalls, in longest election timeouts. Once it is used up, only
    /// half of a further stall is excused.
    const EXCUSED_TIMEOUTS: u32 = 2;
    /// The measurements of the thread in a heartbeat interval.
    const LOOKS: u8 = 2;

    pub(crate) fn new(
        (timed_out, stalled, probed): (Recipient<ElectionTimeout>, Recipient<Stalled>, Recipient<Probe>),
        (clock, timing): (Clock, &Timing),
        random: SmallRng,
        metrics: NodeMetrics,
        load: Load,
        events: Events,
        panic_guard: PanicGuard,
    ) -> Self {
        let (now, timeout) = (Instant::now(), timing.election_timeout);
        Self {
            timed_out,
            stalled,
            probed,
            clock,
            timeout,
            random,
            armed: None,
            looks: 0,
            heard: now,
            look_every: timing.heartbeat_interval / u32::from(Self::LOOKS),
            due: now,
            stalls: Stalls::new(timeout.1 * Self::EXCUSED_TIMEOUTS, timing.heartbeat_interval, now),
            metrics,
            load,
            events,
            _panic_guard: panic_guard,
        }
    }

    /// Draws a new deadline. Without a leader a stall grants no extra wait: it would only bring
    /// candidates into phase.
    fn arm(&mut self, term: Term, heard_leader: bool) {
        // A new random timeout each time, so that nodes with timers in phase fall out of
        // phase (paper §5.2).
        let timeout = self.random.random_range(self.timeout.0..self.timeout.1);
        let at = Instant::now();
        self.armed = Some(Armed { term, at, deadline: at + timeout, has_waited: !heard_leader });
    }

    fn wake_later(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let look = now + self.clock.left_of(self.look_every);
        self.due = self.armed.map_or(look, |armed| armed.deadline.min(look));
        ctx.run_later(self.due.saturating_duration_since(now), Self::woken);
    }

    fn woken(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let woke = self.stalls.woke(self.due, now);
        self.metrics.woke(woke.late, woke.late >= LATE_MIN);
        if woke.late >= LATE_MIN {
            self.stalled.do_send(Stalled { by: woke.excused });
            if let Some(armed) = &mut self.armed {
                armed.stalled(now, woke.excused, self.look_every);
            }
        }
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(Self::LOOKS)
            && let Some(probe) = self.load.probe(ActorName::Consensus)
        {
            self.probed.do_send(probe);
        }
        if let Some(report) = self.stalls.report(now) {
            self.events.tell(What::ThreadStalled { count: report.count, longest_ms: millis(report.longest) });
        }
        if let Some(Armed { term, .. }) = self.armed.take_if(|armed| armed.deadline <= now) {
            self.timed_out.do_send(ElectionTimeout { term, silence: now.saturating_duration_since(self.heard) });
        }
        self.wake_later(ctx);
    }
}

impl Actor for ElectionTimer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.wake_later(ctx);
    }
}

impl Handler<Arm> for ElectionTimer {
    type Result = ();

    fn handle(&mut self, Arm { term }: Arm, _: &mut Self::Context) {
        self.arm(term, false);
    }
}

impl Handler<LeaderHeard> for ElectionTimer {
    type Result = ();

    fn handle(&mut self, LeaderHeard { term }: LeaderHeard, _: &mut Self::Context) {
        self.heard = Instant::now();
        self.arm(term, true);
    }
}

impl Handler<Describe> for ElectionTimer {
    type Result = ();

    fn handle(&mut self, Describe { to }: Describe, _: &mut Self::Context) {
        let now = Instant::now();
        to.do_send(TimerDescribed(self.armed.map(|armed| ElectionDeadline {
            left: armed.deadline.saturating_duration_since(now),
            of: armed.deadline.saturating_duration_since(armed.at),
        })));
    }
}

/// The node has ended. Without this message the actor would live until its timer fires, even with
/// every address dropped.
impl Handler<Stop> for ElectionTimer {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
