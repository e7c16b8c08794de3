//! The state of a replica: the fields that all rules share, and the start from recovered state.
//!
//! The rules that change the state are in the other modules of [`replica`](super), which see its
//! fields. Three parts with invariants of their own have files beside this one: `leadership`,
//! `faults` and `writes`.

use super::{
    faults::Faults,
    leadership::Leadership,
    start::{Faulty, HardState, Recovered, Settings},
    writes::Writes,
};
use crate::{
    ids::{EntryId, Index, Moment, NodeId, Term},
    lease::Promise,
    log::Log,
    membership::{self, Membership},
    snapshot::SnapshotBase,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::hash::{Hash, Hasher};

/// One member of one Raft group: the pure piece of a `Consensus` actor.
#[derive(Clone, Hash, Debug)]
pub struct Replica {
    pub(super) id: NodeId,
    pub(super) settings: Settings,
    pub(super) memberships: membership::History,
    pub(super) hard_state: HardState,
    pub(super) log: Log,
    pub(super) role: Role,
    pub(super) leader: Option<NodeId>,
    /// Whether that leader was a member, by this node's configuration, when it was last heard.
    pub(super) leader_is_member: bool,
    /// The highest term above this node's that a member has shown without raising this node's (see
    /// `outside`); otherwise 0.
    pub(super) shown_term: Term,
    /// When a leader, of any term, was last heard: the promise of this run, on which leases rest,
    /// counts from then.
    pub(super) leader_contact: Option<Moment>,
    pub(super) promises: Promises,
    pub(super) campaign: u64,
    pub(super) commit: Index,
    pub(super) dispatched: Index,
    pub(super) applied: Index,
    pub(super) applying: Applying,
    pub(super) loading: bool,
    /// The last entry that the newest snapshot covers.
    pub(super) snapshot: Index,
    pub(super) writes: Writes,
    pub(super) faults: Faults,
    pub(super) guard: LostDataGuard,
    /// The entry at which the log differs from that of the present term's leader.
    pub(super) diverged: Option<EntryId>,
    /// Whether the storage is about to run out of room for entries.
    pub(super) is_full: bool,
}

/// A node's role (paper §5.1, and pre-vote of the thesis §9.6).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one a replica")]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks to be elected.
    Candidate,
    /// Leads in the current term.
    Leader(Leadership),
}

impl Replica {
    /// A follower that resumes from `recovered`. The caller performs
    /// [`Effect::ArmTimer`](super::Effect::ArmTimer) first. If the node ran before, call
    /// [`Replica::started`].
    #[must_use]
    pub fn new(id: NodeId, membership: Membership, recovered: Recovered, settings: Settings) -> Self {
        let Recovered { hard_state, mut log, faulty, snapshot, memberships, has_voted, holdings } = recovered;
        let SnapshotBase { last, last_checksum, membership, membership_index } =
            snapshot.unwrap_or_else(|| SnapshotBase { membership, ..SnapshotBase::default() });
        let base = last.index;
        let lost = Some(log.base().index).filter(|begins| *begins > base);
        // Entries that the snapshot covers are kept for peers only: a faulty one among them
        // is no loss.
        let (covered, faulty): (Vec<_>, Vec<_>) = faulty.into_iter().partition(|faulty| faulty.id.index <= base);
        if let Some(Faulty { id, checksum, .. }) = covered.last() {
            log.compact(*id, Some(*checksum));
        }
        if log.base() == last {
            log.know_base(last_checksum);
        }
        let is_new = !has_voted && log.last().index == Index(0);
        Self {
            id,
            settings,
            memberships: membership::History::new((membership_index, membership), base, memberships),
            faults: Faults::new(faulty, lost, hard_state.term),
            guard: LostDataGuard::new(is_new, holdings),
            diverged: None,
            is_full: false,
            promises: Promises::new(hard_state.promise),
            writes: Writes::new(log.last().index, &hard_state),
            hard_state,
            leader: None,
            leader_is_member: false,
            shown_term: Term(0),
            leader_contact: None,
            role: Role::Follower,
            campaign: 0,
            commit: base,
            dispatched: base,
            applied: base,
            applying: Applying::default(),
            loading: false,
            snapshot: base,
            log,
        }
    }
}

/// Since when the state machine has been at its present entry, as far as observed.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Applying {
    pub(super) seen: Index,
    pub(super) since: Option<Moment>,
    /// Whether it applies nothing more until the node is started again.
    pub(super) is_halted: bool,
}

impl Hash for Applying {
    /// A halted state machine is dispatched to without a bound. The rest only measures time; in
    /// models where time stands still it tells no two states apart.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_halted.hash(state);
    }
}

/// The state of a replica's promises.
#[derive(Clone, Hash, Debug)]
pub(super) struct Promises {
    /// The time until which a promise of an earlier run may be in force; `None` if the node was not
    /// told that it started.
    pub(super) earlier: Option<Moment>,
    /// The promise on the disk.
    pub(super) durable: Promise,
    /// The sequence of the write that stores a longer one.
    pub(super) writing: Option<u64>,
}

impl Promises {
    fn new(durable: Promise) -> Self {
        Self { earlier: None, durable, writing: None }
    }
}

/// A replica's knowledge of its own past and of the other members'.
#[derive(Clone, Debug)]
pub(super) struct LostDataGuard {
    /// This member never held an entry and never voted: it is new, or it was emptied.
    pub(super) is_new: bool,
    /// The members that had a log, this node among them, and their holdings; index 0 if no entry of
    /// it is known to be committed.
    pub(super) holdings: BTreeMap<NodeId, Index>,
    /// Members that came with less than their holding, and the last entries of their logs.
    pub(super) lost: BTreeMap<NodeId, Index>,
    /// The latest epoch in which each of this leader's peers acknowledged an append, with its term.
    pub(super) acknowledged: BTreeMap<NodeId, (Term, u64)>,
    /// When this leader last told the holdings, and in which term.
    pub(super) told: Option<(Term, Moment)>,
    /// The leader that was told where this member's log ends, after it sent a snapshot or the log
    /// from its first entry on; with term and epoch.
    pub(super) introduced: Option<(Term, NodeId, u64)>,
    /// If this member is new: the voters that answered its first pre-vote, and so remember no
    /// log of it.
    pub(super) answered: BTreeSet<NodeId>,
    /// If this member is new: the campaign of its first pre-vote, once that was won
    /// with answers missing.
    pub(super) waits_in: Option<u64>,
}

impl Hash for LostDataGuard {
    /// Losses, and the epochs that prove them, are for operators; when holdings were told decides
    /// only when they are told again.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.is_new, self.introduced, &self.holdings, &self.answered, self.waits_in).hash(state);
    }
}

impl LostDataGuard {
    fn new(is_new: bool, holdings: impl IntoIterator<Item = (NodeId, Index)>) -> Self {
        Self {
            is_new,
            holdings: holdings.into_iter().collect(),
            lost: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            told: None,
            introduced: None,
            answered: BTreeSet::new(),
            waits_in: None,
        }
    }
}
