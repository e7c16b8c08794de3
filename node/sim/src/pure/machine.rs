//! A machine that a node runs on, as far as the node's world does not keep it.

use super::decisions::Decisions;
use crate::{Report, plan::Power};
use quorate_raft::{MachineVersions, Moment, NodeId};
use quorate_world::disk::Disk;
use std::time::Duration;

/// State of a node's machine that its world does not keep.
pub(super) struct Machine {
    /// The lanes of the network that end here, as bits.
    pub(super) lanes_to: u32,
    /// The node does nothing before this time.
    pub(super) idle_until: Duration,
    /// Added to the time that each task takes.
    pub(super) slow_by: Duration,
    /// Added to the time that each write takes.
    pub(super) disk_slow_by: Duration,
    pub(super) disk_ready: Option<Duration>,
    /// The time of its next start, if it is down.
    pub(super) back_at: Option<Duration>,
    /// The node was removed, or was told that it was emptied; it is not started by itself.
    pub(super) out: bool,
    pub(super) full: bool,
    /// The next sync fails; then the fate of unsynced writes, and the time until the next start.
    pub(super) sync_fails: Option<(Power, Duration)>,
    /// The node dies with the n-th effect from now; the rest as in `sync_fails`.
    pub(super) dies_after: Option<(u16, Power, Duration)>,
    /// Kinds of faults that its disk suffers before the next start.
    pub(super) harm: Vec<&'static str>,
    /// The operator empties its directory as soon as it is down and the cluster can survive that.
    pub(super) empties: bool,
    /// A copy of its disk: an earlier state of the directory.
    pub(super) copy: Option<Disk>,
    /// The directory is put back to `copy` as soon as the node is down and the cluster
    /// can survive that.
    pub(super) puts_back: bool,
    /// The node was asked to shut down; the changes until its next start.
    pub(super) stops: Option<Afterwards>,
    pub(super) beat_at: Moment,
    /// The decisions beside the rules; none while the node is down.
    pub(super) decisions: Option<Decisions>,
}

/// The changes to a node between a planned shutdown and its next start.
#[derive(Clone, Copy, Default)]
pub(super) struct Afterwards {
    /// The time until it starts again.
    pub(super) down_for: Duration,
    /// The state machine of another release.
    pub(super) machine: Option<MachineVersions>,
    /// Another election timeout.
    pub(super) shortest: Option<Duration>,
}

impl Afterwards {
    /// Adds the changes of a later request.
    pub(super) fn changes_to(&mut self, later: Self) {
        self.machine = later.machine.or(self.machine);
        self.shortest = later.shortest.or(self.shortest);
    }
}

impl Machine {
    pub(super) fn new(lanes_to: u32) -> Self {
        Self {
            lanes_to,
            idle_until: Duration::ZERO,
            slow_by: Duration::ZERO,
            disk_slow_by: Duration::ZERO,
            disk_ready: None,
            back_at: None,
            out: false,
            full: false,
            sync_fails: None,
            dies_after: None,
            harm: Vec::new(),
            empties: false,
            copy: None,
            puts_back: false,
            stops: None,
            beat_at: Moment::default(),
            decisions: None,
        }
    }

    /// Whether the disk has work that it can't finish yet.
    pub(super) fn disk_is_slow(&mut self, now: Duration, report: &mut Report) -> bool {
        if self.disk_slow_by.is_zero() {
            return false;
        }
        let ready = *self.disk_ready.get_or_insert_with(|| {
            report.fired("slow-disk");
            now + self.disk_slow_by
        });
        now < ready
    }

    /// Ends all faults of the machine; lost data stays lost.
    pub(super) fn heal(&mut self) {
        *self = Self {
            lanes_to: self.lanes_to,
            out: self.out,
            full: self.full,
            back_at: self.back_at.map(|_| Duration::ZERO),
            stops: self.stops,
            beat_at: self.beat_at,
            decisions: self.decisions.take(),
            ..Self::new(0)
        };
    }
}

pub(super) fn id_of(at: usize) -> NodeId {
    NodeId(at as u64 + 1)
}

pub(super) fn slot(id: NodeId) -> usize {
    id.0 as usize - 1
}
