//! The settings of a walk for automatic steps of leaders.

use crate::Plan;
use quorate::decisions::automatic::Automation;
use quorate_raft::NodeId;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use std::time::Duration;

/// The settings of all nodes for automatic steps.
pub(super) struct Automatic {
    /// Preferred leaders, best first; none in most walks.
    pub(super) preferred: Vec<NodeId>,
    /// A learner that keeps up for this time votes; zero where only the operator promotes.
    pub(super) promote_after: Duration,
}

/// Automation sees time pass this many times as fast: its pauses are longer than walks.
pub(super) const FASTER: u32 = 20;

impl Automatic {
    pub(super) fn of(plan: &Plan) -> Self {
        let mut random = SmallRng::seed_from_u64(plan.seed ^ 0xa070_3a7e);
        let mut preferred: Vec<_> = (1..=plan.nodes).map(NodeId).collect();
        preferred.shuffle(&mut random);
        preferred.truncate(random.random_range(1..=preferred.len()));
        if !random.random_bool(0.2) {
            preferred.clear();
        }
        let promotes = random.random_bool(0.5);
        let promote_after = if promotes { Duration::from_millis(random.random_range(20..200)) } else { Duration::ZERO };
        Self { preferred, promote_after: promote_after * FASTER }
    }

    /// The automation of a node that starts.
    pub(super) fn begun(&self) -> Automation {
        Automation::new(self.preferred.clone())
    }

    /// Whether learners are promoted without a request.
    pub(super) fn promotes(&self) -> bool {
        !self.promote_after.is_zero()
    }
}
