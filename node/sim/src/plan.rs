//! What goes wrong with one cluster, and when: the same plan for both layers.
//!
//! A plan is a function of its seed, and can be read, shortened and run again. It says *what* happens; each layer does it in its
//! own way, and what it leaves open (which message is lost, which byte flips) comes from the seed too. Which kinds of faults a
//! plan has, and how hard each is, is drawn anew for every seed (swarm testing, Groce et al., ISSTA 2012): a plan with
//! everything in it hides what only shows without some of it.

mod draw;
mod fault;
mod nanos;

pub use fault::{Fault, KINDS, Power, Way};

use quorate_raft::NodeId;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// What happens to one cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Decides everything that the rest leaves open.
    pub seed: u64,
    /// How many members there are, all of them voters: 1, 3 or 5.
    pub nodes: u64,
    /// The member that is a witness, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<NodeId>,
    /// How long faults go on. Afterwards the cluster must heal.
    #[serde(rename = "length_ns", with = "nanos")]
    pub length: Duration,
    /// How many clients write and read, each one thing at a time.
    pub clients: u64,
    /// How many keys they share.
    pub keys: u64,
    /// How long a client rests between two things, at most.
    #[serde(rename = "rest_ns", with = "nanos")]
    pub rest: Duration,
    /// After so many entries a node takes a snapshot by itself; 0 never.
    pub snapshot_every: u64,
    /// So many entries stay in front of a snapshot.
    pub keep_entries: u64,
    /// What goes wrong, in order of time.
    pub faults: Vec<Planned>,
}

/// One thing that goes wrong.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    /// When it begins, after the start.
    #[serde(rename = "at_ns", with = "nanos")]
    pub at: Duration,
    /// How long it lasts. What happens at once has none: then it is how long it takes until it is made good (a node that
    /// crashed starts again, say).
    #[serde(rename = "lasts_ns", with = "nanos")]
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

/// What one node is told, and others may not be: by default settings differ between nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// The shortest election timeout, until a [`Fault::Retime`]; the longest is twice as long.
    pub shortest: Duration,
    /// By so many thousandths it takes clocks to drift apart more than they do.
    pub spared: u16,
    /// Its limits are drawn from this.
    pub draws: u64,
}

impl Plan {
    /// What a node is told at its first start.
    #[must_use]
    pub fn told(&self, node: NodeId) -> Told {
        draw::told(self.seed, node)
    }

    /// Whether disks lose nothing that was durable. Where the members change, what a quorum of some has others may come to decide
    /// about; and what a witness acknowledged there may be one copy of alone.
    #[must_use]
    pub fn spares_disks(&self) -> bool {
        self.changes_members() || self.witness.is_some()
    }

    /// Whether the members change.
    #[must_use]
    pub fn changes_members(&self) -> bool {
        self.faults.iter().any(|planned| matches!(planned.fault, Fault::Change { .. }))
    }

    /// The release that a node runs after its next upgrade, if these are what all run now: one ahead of the oldest at most.
    #[must_use]
    pub fn next_release(of: u32, all: impl Iterator<Item = u32>) -> u32 {
        let oldest = all.min().unwrap_or(of);
        (of + 1).min(oldest + 1)
    }

    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        draw::plan(seed)
    }

    /// By how many thousandths of an interval a fast clock shows more than a slow one, rounded up; `None` if clocks leap, which no
    /// lease survives: nobody reads by lease then.
    #[must_use]
    pub fn clock_drift(&self) -> Option<u16> {
        if self.faults.iter().any(|planned| matches!(planned.fault, Fault::Jump { .. })) {
            return None;
        }
        let (slowest, fastest) = self.drifts();
        let (apart, fast) = (i32::from(fastest) - i32::from(slowest), 1000 + i32::from(fastest));
        u16::try_from((apart.unsigned_abs() * 1000).div_ceil(fast.unsigned_abs().max(1))).ok()
    }

    /// By how many thousandths the slowest and the fastest clock differ from one that is right.
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
