//! The state of one member that outlives its processes.

use super::{
    observed_storage::ObservedStorage,
    observer::SharedObserver,
    process::Process,
    promised::{Promised, SEGMENT_BYTES},
    wire::Wire,
};
use crate::plan::{Plan, Power, Told};
use quorate::{
    ClockDrift, Limits, NodeId, Status, Term, Timing,
    storage::{StorageHandle, Wal},
};
use quorate_storage_testing::{Crash, SimulatedDisk};
use std::time::Duration;

/// A member, and the faults in effect on it.
pub(super) struct Member {
    pub(super) id: NodeId,
    pub(super) state: State,
    /// The fate of unsynced writes and the downtime, for a death by itself.
    pub(super) dies_with: (Power, Duration),
    /// As `dies_with`, for when the node has noticed the planned failure of a disk operation.
    pub(super) fails_with: Option<(Power, Duration)>,
    pub(super) is_paused: bool,
    pub(super) is_full: bool,
    /// Whether the node has noticed that its disk is full.
    pub(super) knows_full: bool,
    /// The kind of fault by which its directory was emptied or put back.
    pub(super) lost_by: Option<&'static str>,
    pub(super) copy: Option<Copied>,
    /// Whether it learned of its removal and stopped.
    pub(super) was_removed: bool,
    /// The settings for its next start.
    pub(super) told: Told,
    /// The shortest election timeout that the current life runs with.
    runs_with: Duration,
    /// The release from its next start on, which is the version that its state machine writes.
    pub(super) release: u32,
    /// The release of the typed service that its present life runs.
    pub(super) running: u32,
    /// Whether its present life runs the release before, of the typed service.
    pub(super) is_rolled_back: bool,
    /// The time at which the operator mends its halt.
    pub(super) mended_at: Option<Duration>,
    /// The version of the service for which it halted.
    pub(super) needs: u32,
    /// Its running time with calls outside that are not of its leadership.
    pub(super) outlived: Duration,
    /// Whether its operator lets it discard unproven entries after a power cut: for the only voter.
    pub(super) discards: bool,
    pub(super) slow_by: Duration,
    pub(super) drift_per_mille: i64,
    /// Time that its clock has yet to advance, in thousandths of a millisecond.
    owed: i64,
    /// The time for which it stood still.
    stood: Duration,
    lives: u64,
    /// Its running time since it last heard a quorum, itself included.
    pub(super) unheard: Duration,
    /// Its running time since its disk last finished a pending write.
    pub(super) stuck: Duration,
    /// The number of writes that its disk had finished at the last look.
    finished: u64,
}

/// The bound on leading without a quorum. A leader checks for one whenever its election timer
/// expires, after twice the shortest timeout at the latest; clocks run up to 15 % slow.
fn unheard_max(shortest: Duration) -> Duration {
    Duration::from_millis(300) + shortest.mul_f64(4.7)
}

/// The bound on leading with a stuck disk. The default stall limit is 3 s, and at least twice the
/// longest timeout; it is checked when the election timer expires, too.
fn stuck_max(shortest: Duration) -> Duration {
    let limit = Duration::from_secs(3).max(4 * shortest);
    limit.mul_f64(1.2) + shortest.mul_f64(2.4) + Duration::from_millis(240)
}

/// The bound on the calls of effects after the end of a leadership: they end within a few turns.
const CALLS_END_WITHIN: Duration = Duration::from_millis(5);

/// A copy of a member's directory, and the facts of that moment.
pub(super) struct Copied {
    pub(super) disk: SimulatedDisk,
    pub(super) promised: Promised,
    /// The leader and its term.
    pub(super) led: (NodeId, Term),
}

/// The state of its process.
pub(super) enum State {
    Up(Box<Process>),
    Down {
        until: Duration,
    },
    /// It must not take part any more, or can't.
    Out,
}

impl State {
    pub(super) fn in_a_word(&self) -> &'static str {
        match self {
            Self::Up(_) => "up",
            Self::Down { .. } => "down",
            Self::Out => "out for good",
        }
    }
}

impl Member {
    /// A member that starts at once.
    pub(super) fn new(id: NodeId, told: Told) -> Self {
        Self {
            id,
            told,
            state: State::Down { until: Duration::ZERO },
            dies_with: (Power::Kept, Duration::ZERO),
            fails_with: None,
            is_paused: false,
            is_full: false,
            knows_full: false,
            lost_by: None,
            copy: None,
            was_removed: false,
            runs_with: told.shortest,
            release: 0,
            running: 0,
            is_rolled_back: false,
            mended_at: None,
            needs: 0,
            outlived: Duration::ZERO,
            discards: false,
            slow_by: Duration::ZERO,
            drift_per_mille: 0,
            owed: 0,
            stood: Duration::ZERO,
            lives: 0,
            unheard: Duration::ZERO,
            stuck: Duration::ZERO,
            finished: 0,
        }
    }

    pub(super) fn process_mut(&mut self) -> Option<&mut Process> {
        match &mut self.state {
            State::Up(process) => Some(process),
            State::Down { .. } | State::Out => None,
        }
    }

    pub(super) fn status(&self) -> Option<Status> {
        match &self.state {
            State::Up(process) => Some(process.status()),
            State::Down { .. } | State::Out => None,
        }
    }

    /// The operator shuts the node down in order, to start it again after `down`.
    pub(super) fn shut_down(&mut self, down: Duration) {
        self.dies_with = (Power::Kept, down);
        if let Some(process) = self.process_mut() {
            process.shut_down();
        }
    }

    /// Marks the member as down until then.
    pub(super) fn died(&mut self, until: Duration) {
        self.state = State::Down { until };
        (self.is_paused, self.owed, self.stood) = (false, 0, Duration::ZERO);
        (self.unheard, self.stuck, self.outlived) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        (self.fails_with, self.mended_at) = (None, None);
    }

    /// Runs the node for `turn` of the cluster's time, as its clock shows it.
    pub(super) fn run_for(&mut self, turn: Duration) {
        self.stood += turn;
        if self.is_paused || self.stood <= self.slow_by {
            return;
        }
        let (late, drift) = (std::mem::take(&mut self.stood) - turn, self.drift_per_mille);
        self.owed += turn.as_millis() as i64 * (1000 + drift);
        let (due, rest) = (self.owed.div_euclid(1000), self.owed.rem_euclid(1000));
        self.owed = rest;
        let Some(process) = self.process_mut() else { return };
        if !late.is_zero() {
            process.leap(late);
        }
        if due > 0 {
            process.run_for(Duration::from_millis(due.unsigned_abs()));
            self.unheard += turn;
            self.stuck += turn;
            self.outlived += turn;
        }
    }

    /// Its clock leaps. A paused node notices that when it continues.
    pub(super) fn leap(&mut self, by: Duration) {
        self.stood += by;
        if self.is_paused {
            return;
        }
        let late = std::mem::take(&mut self.stood);
        if let Some(process) = self.process_mut() {
            process.leap(late);
        }
    }

    /// A leader that hears no quorum, or has a stuck disk, must not lead for long (thesis §6.2).
    pub(super) fn look_alive(
        &mut self,
        plan: &Plan,
        now: Duration,
        leads: bool,
        wire: &Wire,
        observer: &SharedObserver,
    ) -> Result<(), String> {
        let (unheard_max, stuck_max) = (unheard_max(self.runs_with), stuck_max(self.runs_with));
        let heard = wire.heard_since(self.id, now.saturating_sub(unheard_max)) as u64;
        // When the members change, fewer nodes may be a quorum.
        if !leads || heard >= plan.nodes / 2 || plan.changes_members() {
            self.unheard = Duration::ZERO;
        }
        let mut observer = observer.lock();
        let disk = observer.disk(self.id);
        if !leads || disk.waiting == 0 || std::mem::replace(&mut self.finished, disk.finished) != disk.finished {
            self.stuck = Duration::ZERO;
        }
        if self.unheard > unheard_max {
            return Err(format!(
                "check-quorum: {} still leads, and has heard no quorum for {:?}",
                self.id, self.unheard
            ));
        }
        if self.stuck > stuck_max {
            return Err(format!(
                "stuck disk: {} still leads, and its disk has done nothing for {:?}",
                self.id, self.stuck
            ));
        }
        Ok(())
    }

    /// No call outside goes on for long after the leadership in which it began.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn look_for_calls(&mut self, leads: Option<Term>, observer: &SharedObserver) -> Result<(), String> {
        if !observer.lock().twin.outside.outlives(self.id, leads) {
            self.outlived = Duration::ZERO;
        }
        match self.outlived > CALLS_END_WITHIN {
            true => Err(format!("dropped calls: {} goes on performing, and leads {leads:?}", self.id)),
            false => Ok(()),
        }
    }

    /// The number of the next life, so that no two lives have the same seed.
    pub(super) fn next_life(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    /// The node's own timing. Callers give up earlier than by default, so that more timeouts fit
    /// into a short run. The assumed clock drift is at least the actual one; its fixed part is
    /// there because a node reads its clock once a turn, in whole milliseconds.
    pub(super) fn timing(&mut self, plan: &Plan) -> Timing {
        self.runs_with = self.told.shortest;
        let per_mille = plan.clock_drift().unwrap_or_default() + self.told.spared;
        let clock_drift_max = ClockDrift::new(per_mille, Duration::from_millis(4));
        let election_timeout = (self.told.shortest, 2 * self.told.shortest);
        Timing::default()
            .with_proposal_timeout(Duration::from_millis(2_000 - self.told.draws % 500))
            .with_election_timeout(election_timeout)
            .with_clock_drift_max(clock_drift_max)
    }

    /// The node's own limits, all of them far above the need of one client.
    pub(super) fn limits(&self) -> Limits {
        let draws = self.told.draws;
        Limits::default()
            .with_max_batch_bytes([1 << 20, 64 << 10, 4 << 10][(draws % 3) as usize])
            .with_max_command_bytes([1 << 20, 256 << 10][(draws / 3 % 2) as usize])
            .with_max_in_flight_proposals([4096, 256][(draws / 6 % 2) as usize])
    }

    /// The log on its disk, watched.
    pub(super) fn storage(&self, plan: &Plan, observer: &SharedObserver) -> StorageHandle {
        let disk = observer.lock().disk(self.id).disk.clone();
        let segment_bytes = if plan.seed.is_multiple_of(3) { 16 * SEGMENT_BYTES } else { SEGMENT_BYTES };
        let wal = Wal::at("data").segment_bytes(segment_bytes as u64).discard_unproven(self.discards).on(disk);
        ObservedStorage::around(wal, self.id, observer.clone())
    }
}

/// The address of a node in every configuration of a simulated cluster.
pub(super) fn address_of(id: NodeId) -> String {
    format!("node-{id}")
}

/// The fate of unsynced writes, in the disk's terms.
pub(super) fn fate(power: Power, seed: u64, torn_bytes: u64) -> Crash {
    match power {
        Power::Kept => Crash::Keep,
        Power::Lost => Crash::Lose,
        Power::Torn => Crash::Torn { bytes: torn_bytes },
        Power::Scattered => Crash::Scatter { seed },
    }
}

/// The name of the fate in reports.
pub(super) fn what_is_left(power: Power) -> &'static str {
    match power {
        Power::Kept => "deaths, unsynced writes kept",
        Power::Lost => "deaths, unsynced writes lost",
        Power::Torn => "deaths, unsynced writes torn",
        Power::Scattered => "deaths, unsynced writes scattered",
    }
}

/// The bytes of padding in a snapshot: in some runs a snapshot takes several pieces.
pub(super) fn ballast(plan: &Plan) -> usize {
    if plan.seed.is_multiple_of(5) { 700 << 10 } else { 100 }
}
