//! Timers of the replicated service, which some commands set and ticks fire, and the properties that
//! must hold of them:
//!
//! - **Log time** never goes back, in ticks and at commands, and passes no timer by.
//! - **Same entry.** A timer fires once, at the same entry on every node.
//! - **No lease ends early.** From the append of a command until its timer fires, its delay passes
//!   in real time, less the drift of clocks and a bounded step for each leap.
//! - **None is forgotten.** The run is not over before every timer has fired.

use crate::plan::{Fault, Plan};
use quorate::{At, Index, LogTime, NodeId};
use quorate_raft::tick::Tick;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Timers that one tick fires: more get another tick. More than are ever due at once in a run.
const FIRES_MAX: usize = 1_000;

/// Whether the service of this plan uses time: in three of eight runs, one of them with sessions.
pub(super) fn are_used(plan: &Plan) -> bool {
    matches!(plan.seed % 8, 1 | 5 | 6)
}

/// The delay of the timer that an operation's command sets, if it sets one: a few are longer than
/// the step that a leap of a clock may count.
fn delay_of(operation: u64) -> Option<Duration> {
    let max_ms = if operation.is_multiple_of(9) { 4_000 } else { 400 };
    operation.is_multiple_of(3).then(|| Duration::from_millis(1 + operation * 37 % max_ms))
}

/// The timers of one node that wait: due times, and the operations that set them.
#[derive(Clone, Default)]
pub(super) struct Timers {
    pub(super) waiting: BTreeSet<(LogTime, u64)>,
    /// The time of the last tick, and of the last entry.
    pub(super) ticked: LogTime,
    pub(super) now: LogTime,
}

impl Timers {
    /// A command is applied: gives the due time of the timer that it sets.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn applied(&mut self, at: &At, operation: u64) -> Result<Option<LogTime>, String> {
        self.reached(at.time)?;
        if let Some((due, of)) = self.waiting.first().filter(|(due, _)| *due < at.time) {
            return Err(format!("timers: that of {of}, due at {due:?}, waits at {}, {:?}", at.index, at.time));
        }
        // Log time is late where a tick has left a part: a timer that is set there fires early.
        let Some(delay) = delay_of(operation).filter(|_| at.time == self.ticked) else { return Ok(None) };
        self.waiting.insert((at.time + delay, operation));
        Ok(Some(at.time + delay))
    }

    /// A tick is applied: gives the operations with the timers that fire.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn ticked(&mut self, at: &At, tick: &Tick) -> Result<Vec<u64>, String> {
        if tick.time < self.ticked {
            return Err(format!("log time: tick {} says {:?} after {:?}", at.index, tick.time, self.ticked));
        }
        self.ticked = tick.time;
        self.reached(at.time)?;
        let mut fired = Vec::new();
        while fired.len() < FIRES_MAX
            && let Some((due, operation)) = self.waiting.first().copied()
            && due <= at.time
        {
            self.waiting.remove(&(due, operation));
            fired.push(operation);
        }
        if let Some((due, _)) = self.waiting.first() {
            self.now = self.now.min(*due);
        }
        Ok(fired)
    }

    /// Log time stops where the typed service has left a part of what is due.
    pub(super) fn stops_at(&mut self, due: Option<LogTime>) {
        self.now = due.map_or(self.now, |due| due.min(self.now));
    }

    fn reached(&mut self, time: LogTime) -> Result<(), String> {
        if time < self.now {
            return Err(format!("log time: {time:?} after {:?}", self.now));
        }
        self.now = time;
        Ok(())
    }
}

/// The record of all timers of a run.
#[derive(Default)]
pub(super) struct Seen {
    /// When an operation's command was first written by any node.
    written: BTreeMap<u64, Duration>,
    waiting: BTreeSet<u64>,
    /// The entry at which a timer fired.
    fired: BTreeMap<u64, Index>,
    leaps: Vec<Duration>,
    step_max: Duration,
    fastest_per_mille: i16,
}

/// The time after a leap within which its step may be counted: a node that hears no leader counts
/// it later.
const LEAP_COUNTS_WITHIN: Duration = Duration::from_secs(30);

impl Seen {
    pub(super) fn new(plan: &Plan) -> Self {
        let retimed = plan.faults.iter().filter_map(|planned| match planned.fault {
            Fault::Retime { shortest, .. } => Some(shortest),
            _ => None,
        });
        let told = (1..=plan.nodes).map(|id| plan.told(NodeId(id)).shortest);
        let leaps = plan.faults.iter().filter(|planned| matches!(planned.fault, Fault::Jump { .. }));
        Self {
            leaps: leaps.map(|planned| planned.at).collect(),
            step_max: retimed.chain(told).max().unwrap_or_default() * 2,
            fastest_per_mille: plan.drifts().1,
            ..Self::default()
        }
    }

    /// A node writes an operation's command.
    pub(super) fn written(&mut self, operation: u64, now: Duration) {
        self.written.entry(operation).or_insert(now);
    }

    /// An operation's command set a timer.
    pub(super) fn set(&mut self, operation: u64) {
        if !self.fired.contains_key(&operation) {
            self.waiting.insert(operation);
        }
    }

    /// Whether all timers have fired.
    pub(super) fn have_all_fired(&self) -> bool {
        self.waiting.is_empty()
    }

    /// An operation's timer fires at `index` on a node. Gives whether it is the first there.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn fired(&mut self, operation: u64, index: Index, now: Duration) -> Result<bool, String> {
        if let Some(first) = self.fired.get(&operation) {
            return match *first == index {
                true => Ok(false),
                false => Err(format!("timers: that of {operation} fired at {first} and at {index}")),
            };
        }
        self.fired.insert(operation, index);
        self.waiting.remove(&operation);
        let written = self.written.get(&operation).copied().unwrap_or_default();
        let delay = delay_of(operation).unwrap_or_default();
        let lasts = delay * 1000 / u32::from(1000 + self.fastest_per_mille.max(0).unsigned_abs());
        let began = written.saturating_sub(LEAP_COUNTS_WITHIN);
        let leaps = self.leaps.iter().filter(|leap| (began..=now).contains(*leap)).count();
        // Both ends are seen in turns of a millisecond, and log time has whole milliseconds.
        let spared = self.step_max * u32::try_from(leaps).unwrap_or(u32::MAX) + Duration::from_millis(3);
        match now + spared < written + lasts {
            true => Err(format!("timers: that of {operation}, {delay:?}, written at {written:?}, fires at {now:?}")),
            false => Ok(true),
        }
    }
}
