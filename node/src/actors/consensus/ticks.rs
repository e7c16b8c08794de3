//! Log time: [`Ticks`] decides; here its ticks reach the rules, and its alarm is set.

use super::Consensus;
use crate::decisions::{
    internal_entries::InternalEntries,
    ticks::{Next, Reached, Ticks, View},
    versions::Versions,
};
use actix::prelude::*;
use quorate_raft::{
    Index, Kind, Moment,
    record::OVERHEAD_BYTES,
    session::LogTime,
    tick::{TICK_BYTES, Tick},
};
use rand::{Rng, rngs::StdRng};
use std::time::{SystemTime, UNIX_EPOCH};

/// The entries that a leader appends of its own: the ticks, with the parts of them that no decision
/// knows, randomness and the wall clock; and the internal ones.
pub(crate) struct Ticking {
    pub(super) ticks: Ticks,
    pub(super) internal: InternalEntries,
    pub(super) versions: Versions,
    /// The next time to ask for a tick.
    alarm: Option<(Moment, SpawnHandle)>,
    random: StdRng,
    /// The wall clock counts from the start of the node, for tests that must run the same way each
    /// time.
    is_simulated: bool,
}

impl Ticking {
    pub(crate) fn new(ticks: Ticks, random: StdRng, is_simulated: bool) -> Self {
        Self {
            ticks,
            internal: InternalEntries::default(),
            versions: Versions::default(),
            alarm: None,
            random,
            is_simulated,
        }
    }

    /// The tick in front of a batch that is appended now, and the time of the stamps in it.
    pub(super) fn before_batch(&mut self, view: &View, now: Moment) -> (Option<Tick>, LogTime) {
        let tick = self.ticks.in_front(view, now).map(|time| self.tick(time, now));
        (tick, self.ticks.stamp(view, now))
    }

    fn tick(&mut self, time: LogTime, now: Moment) -> Tick {
        let wall = match self.is_simulated {
            true => now.0,
            // A wall clock before 1970 is shown as 1970.
            false => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
        let unix_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        self.ticks.tick(time, unix_ms, self.random.random())
    }
}

impl Consensus {
    pub(super) fn ticks_view(&self) -> View {
        View {
            is_leader: self.replica.is_leader(),
            term: self.replica.term(),
            holds_proposals: self.replica.holds_proposals() || self.stopping.is_stopping(),
        }
    }

    /// The state machine has reached these times, with the entries up to `index`.
    pub(super) fn time_reached(&mut self, index: Index, reached: Reached, ctx: &mut Context<Self>) {
        let (view, held) = (self.ticks_view(), self.ticking.ticks.hold_commands());
        self.ticking.ticks.applied(index, reached, &view);
        self.schema_version_reached(reached.schema_version);
        if held && !self.ticking.ticks.hold_commands() {
            self.retry_deferred(ctx);
        }
    }

    /// Appends a tick, or sets the alarm for the next one.
    pub(super) fn tick_if_due(&mut self, ctx: &mut Context<Self>) {
        if !self.ticking.ticks.are_used() || !self.node.lifecycle.is_running() {
            return;
        }
        let view = self.ticks_view();
        if !self.ticking.ticks.is_next_wanted(&view) {
            return;
        }
        let now = self.node.clock.now();
        match self.ticking.ticks.next(&view, now) {
            Next::None => {}
            Next::At(at) => self.ask_for_tick_at(at, now, ctx),
            Next::Now(time) => {
                let Some(mut batch) = self.replica.next_batch(OVERHEAD_BYTES + TICK_BYTES) else { return };
                batch.push(Kind::Tick, &self.ticking.tick(time, now).encode());
                if let Some(batch) = batch.finish() {
                    self.rule(ctx, |replica, out| replica.propose(now, batch, out));
                }
            }
        }
    }

    /// One alarm is set at a time: the earliest.
    fn ask_for_tick_at(&mut self, at: Moment, now: Moment, ctx: &mut Context<Self>) {
        if let Some((set, alarm)) = self.ticking.alarm {
            if set <= at {
                return;
            }
            ctx.cancel_future(alarm);
        }
        let alarm = ctx.run_later(at.since(now), |this, ctx| {
            this.ticking.alarm = None;
            this.tick_if_due(ctx);
        });
        self.ticking.alarm = Some((at, alarm));
    }
}
