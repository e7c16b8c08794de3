//! The state of the product's decisions beside the rules, of one node in one life.

use quorate::{
    Consistency, Timing,
    decisions::{
        automatic::Automation,
        freshness::Granted,
        operators::Operators,
        proposals::{Proposals, Settings},
        reads::Reads,
        snapshot_policy::SnapshotPolicy,
        stopping::Stopping,
    },
};
use quorate_raft::{Index, Moment, NodeId, ReadToken, Term};
use quorate_world::node::Running;
use std::time::Duration;

/// A caller of a node: the number of its command, which is used for no other.
pub(super) type Waiter = u64;
/// Other nodes' commands have no bound of their own here.
pub(super) type Place = ();

/// The decisions of one node in one life.
pub(super) struct Decisions {
    pub(super) commands: Proposals<Waiter, Place>,
    /// The commands of its callers that have no outcome yet.
    pub(super) callers: u64,
    pub(super) reads: Reads<ReadToken>,
    /// The reads of its clients that have no answer yet.
    pub(super) waiting: Vec<Waiting>,
    pub(super) operators: Operators<u64>,
    pub(super) automation: Automation,
    pub(super) stopping: Stopping,
    /// The latest end of a shutdown that was asked for.
    pub(super) stops_by: Option<Moment>,
    pub(super) snapshots: SnapshotPolicy,
    /// An operator asked for a snapshot.
    pub(super) is_asked_for_snapshot: bool,
    /// A snapshot is being written.
    pub(super) builds: bool,
    /// The leader and the term that the commands were last told of.
    pub(super) leader: (Option<NodeId>, Term),
    /// The commit index up to which stranded commands were decided.
    pub(super) commit: Index,
    /// The time by which deadlines are looked at again, by the node's clock.
    pub(super) expire_at: Moment,
    pub(super) timing: Timing,
}

/// A read that a client waits for.
pub(super) struct Waiting {
    pub(super) token: ReadToken,
    pub(super) consistency: Consistency,
    /// The least index that it must see.
    pub(super) floor: Index,
    pub(super) asked: Moment,
    /// Its own deadline.
    pub(super) until: Option<Moment>,
    /// The permission to serve it, once the state machine has applied enough.
    pub(super) granted: Option<Granted>,
}

impl Waiting {
    /// Whether it must have an answer by now: by its own deadline, else once it was tried for
    /// the longest time and has waited for a leader after that.
    pub(super) fn is_overdue(&self, now: Moment, timing: &Timing) -> bool {
        let wait = timing.proposal_timeout + timing.leader_wait;
        let deadline = self.until.unwrap_or(self.asked.plus(wait));
        let deadline = match self.consistency {
            Consistency::Bounded { max_age: Some(age), .. } if self.granted.is_none() => {
                deadline.min(self.asked.plus(age))
            }
            _ => deadline,
        };
        deadline <= now
    }
}

/// A caller gives up after this time, or as soon as no leader was known for half of it.
const PROPOSAL_TIMEOUT: Duration = Duration::from_millis(600);

/// The longest wait of a change for its new members to catch up.
const CATCH_UP_WAIT: Duration = Duration::from_secs(2);

impl Decisions {
    /// Of a node that starts. No earlier life of any node has the number `life`.
    pub(super) fn new(life: u32, running: &Running, snapshot_every: u64, automation: Automation, now: Moment) -> Self {
        let mut timing = quorate::Timing::default();
        let settings = &running.rules.settings;
        timing.election_timeout = (settings.election_timeout_min, settings.election_timeout_max);
        (timing.proposal_timeout, timing.leader_wait) = (PROPOSAL_TIMEOUT, PROPOSAL_TIMEOUT / 2);
        timing.catch_up_wait = CATCH_UP_WAIT;
        let settings = Settings { timing, limits: quorate::Limits::default(), sessions: quorate::Sessions::default() };
        let mut snapshots = quorate::Snapshots::default();
        (snapshots.every_entries, snapshots.every_bytes) = (snapshot_every, 0);
        let term = running.replica.term();
        Self {
            commands: Proposals::new(life, term, settings),
            callers: 0,
            reads: Reads::new(life, timing),
            waiting: Vec::new(),
            operators: Operators::new(life, term, timing),
            automation,
            stopping: Stopping::default(),
            stops_by: None,
            snapshots: SnapshotPolicy::new(snapshots),
            is_asked_for_snapshot: false,
            builds: false,
            leader: (None, term),
            commit: Index(0),
            expire_at: now,
            timing,
        }
    }
}
