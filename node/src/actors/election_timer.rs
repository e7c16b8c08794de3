//! `ElectionTimer`: owns the election deadline and its randomness, for the life of the node.
//!
//! It never decides what a timeout means: `Consensus` does. The deadline is an absolute instant; the timer that wakes it
//! only looks whether the deadline has passed, so a wake that comes late or early changes nothing.

use super::{
    consensus::Consensus,
    messages::{Arm, ElectionTimeout, LeaderHeard, Stop},
};
use crate::fate::Sentinel;
use actix::prelude::*;
use quorate_raft::Term;
use rand::{Rng, rngs::SmallRng};
use std::time::Duration;
use tokio::time::Instant;

/// The actor.
pub(crate) struct ElectionTimer {
    consensus: Addr<Consensus>,
    timeout: (Duration, Duration),
    random: SmallRng,
    armed: Option<Armed>,
    waking: bool,
    _sentinel: Sentinel,
}

#[derive(Clone, Copy)]
struct Armed {
    term: Term,
    deadline: Instant,
}

impl ElectionTimer {
    pub(crate) fn new(
        consensus: Addr<Consensus>,
        timeout: (Duration, Duration),
        random: SmallRng,
        sentinel: Sentinel,
    ) -> Self {
        Self { consensus, timeout, random, armed: None, waking: false, _sentinel: sentinel }
    }

    fn arm(&mut self, term: Term, ctx: &mut Context<Self>) {
        // Never the same for long: nodes whose timers are in phase must fall out of it (paper §5.2).
        let timeout = self.random.random_range(self.timeout.0..self.timeout.1);
        self.armed = Some(Armed { term, deadline: Instant::now() + timeout });
        self.wake_at_deadline(ctx);
    }

    fn wake_at_deadline(&mut self, ctx: &mut Context<Self>) {
        let Some(armed) = self.armed.filter(|_| !self.waking) else { return };
        self.waking = true;
        ctx.run_later(armed.deadline.saturating_duration_since(Instant::now()), Self::woken);
    }

    fn woken(&mut self, ctx: &mut Context<Self>) {
        self.waking = false;
        if let Some(Armed { term, .. }) = self.armed.take_if(|armed| armed.deadline <= Instant::now()) {
            self.consensus.do_send(ElectionTimeout { term });
        }
        self.wake_at_deadline(ctx);
    }
}

impl Actor for ElectionTimer {
    type Context = Context<Self>;
}

impl Handler<Arm> for ElectionTimer {
    type Result = ();

    fn handle(&mut self, Arm { term }: Arm, ctx: &mut Self::Context) {
        self.arm(term, ctx);
    }
}

impl Handler<LeaderHeard> for ElectionTimer {
    type Result = ();

    fn handle(&mut self, LeaderHeard { term }: LeaderHeard, ctx: &mut Self::Context) {
        self.arm(term, ctx);
    }
}

/// The node has ended. Losing every address would not end this actor before its timer went off.
impl Handler<Stop> for ElectionTimer {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
