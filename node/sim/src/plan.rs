//! The fault plan of one simulated cluster: faults and their times, the same plan for both layers.
//!
//! A plan is a function of its seed, and can be read, shortened and run again. It names the faults;
//! each layer injects them in its own way, and the choices that it leaves open (the message that is
//! lost, the byte that flips) come from the seed too. The kinds of faults in a plan, and their
//! strength, are drawn anew for every seed (swarm testing, Groce et al., ISSTA 2012): a plan with
//! all kinds hides the bugs that only show without some of them.

mod draw;
mod fault;
pub(crate) mod links;
mod nanos;

pub use fault::{Fault, KINDS, Power, Way};

use quorate_raft::NodeId;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// One cluster, its workload and its faults.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Decides everything that the other fields leave open.
    pub seed: u64,
    /// The number of members, all of them voters: 1, 3 or 5.
    pub nodes: u64,
    /// The member that is a witness, if the cluster has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<NodeId>,
    /// The time during which faults occur. The cluster must heal after it.
    #[serde(rename = "length_ns", with = "nanos")]
    pub length: Duration,
    /// The number of clients. Each has one operation under way at a time.
    pub clients: u64,
    /// The number of keys that all clients share.
    pub keys: u64,
    /// The longest pause of a client between two operations.
    #[serde(rename = "rest_ns", with = "nanos")]
    pub rest: Duration,
    /// The number of entries after which a node takes a snapshot by itself; 0 for never.
    pub snapshot_every: u64,
    /// The number of entries up to a snapshot's last that log compaction keeps.
    pub keep_entries: u64,
    /// The faults, in order of their start.
    pub faults: Vec<Planned>,
}

/// One fault, with its time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// The start, counted from the start of the run.
    #[serde(rename = "at_ns", with = "nanos")]
    pub at: Duration,
    /// The duration. For a fault that happens at once, the time until its repair, such as the
    /// restart of a node that crashed.
    #[serde(rename = "lasts_ns", with = "nanos")]
    pub lasts: Duration,
    /// The fault that begins then.
    pub fault: Fault,
}

/// The settings of one node: by default they differ between nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// The shortest election timeout, until a [`Fault::Retime`]; the longest is twice as long.
    pub shortest: Duration,
    /// Thousandths that the node adds to the clock drift that it must assume.
    pub spared: u16,
    /// The random number that the node's limits are derived from.
    pub draws: u64,
}

impl Plan {
    /// The settings of a node at its first start.
    #[must_use]
    pub fn told(&self, node: NodeId) -> Told {
        draw::told(self.seed, node)
    }

    /// Whether durable data on disks must survive. When the members change, a quorum may come to
    /// consist of nodes that lack what an earlier quorum held; and an entry that a witness
    /// acknowledged may have a single copy.
    #[must_use]
    pub fn spares_disks(&self) -> bool {
        self.changes_members() || self.witness.is_some()
    }

    /// Whether the plan has a [`Fault::Change`].
    #[must_use]
    pub fn changes_members(&self) -> bool {
        self.faults.iter().any(|planned| matches!(planned.fault, Fault::Change { .. }))
    }

    /// The release of a node after its next upgrade, given the releases `all` that run now: at most
    /// one later than the oldest.
    #[must_use]
    pub fn next_release(of: u32, all: impl Iterator<Item = u32>) -> u32 {
        let oldest = all.min().unwrap_or(of);
        (of + 1).min(oldest + 1)
    }

    /// The plan that a seed determines.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        draw::plan(seed)
    }

    /// The thousandths of an interval by which the fastest clock runs ahead of the slowest, rounded
    /// up. `None` if clocks leap: no lease survives that, and no client reads by lease then.
    #[must_use]
    pub fn clock_drift(&self) -> Option<u16> {
        if self.faults.iter().any(|planned| matches!(planned.fault, Fault::Jump { .. })) {
            return None;
        }
        let (slowest, fastest) = self.drifts();
        let (apart, fast) = (i32::from(fastest) - i32::from(slowest), 1000 + i32::from(fastest));
        u16::try_from((apart.unsigned_abs() * 1000).div_ceil(fast.unsigned_abs().max(1))).ok()
    }

    /// The deviation of the slowest and of the fastest clock from a correct one, in thousandths.
    #[must_use]
    pub fn drifts(&self) -> (i16, i16) {
        let drifts = self.faults.iter().filter_map(|planned| match planned.fault {
            Fault::Drift { per_mille, .. } => Some(per_mille),
            _ => None,
        });
        drifts.fold((0, 0), |(slowest, fastest), drift| (slowest.min(drift), fastest.max(drift)))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, nodes, length, clients, keys, snapshot_every, keep_entries, .. } = self;
        writeln!(
            f,
            "seed {seed}: {nodes} nodes, {clients} clients, {keys} keys, faults for {length:?}, a snapshot every {snapshot_every} \
             entries, {keep_entries} kept"
        )?;
        if let Some(witness) = self.witness {
            writeln!(f, "  {witness} is a witness")?;
        }
        for Planned { at, lasts, fault } in &self.faults {
            writeln!(f, "  at {at:?} for {lasts:?}: {fault:?}")?;
        }
        Ok(())
    }
}
