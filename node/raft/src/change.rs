//! What an operator wants the members to be, and what the cluster must go through to get there (paper §6).
//!
//! A [`Change`] is any number of steps, taken together. If it changes who votes, the cluster goes through a joint configuration,
//! in which every decision needs a majority of the old voters and one of the new; otherwise one entry does. It is safe against
//! races when it names the configuration that it was made for ([`Change::expecting`]).

use crate::{
    ids::{Index, NodeId},
    membership::Membership,
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::fmt;
use serde::{Deserialize, Serialize};

/// A change of the members, in one step however much it changes.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Change {
    steps: Vec<Step>,
    expected: Option<Index>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
enum Step {
    To(Vec<Member>),
    Add(Member),
    AddWitness(Member),
    Promote(NodeId),
    Remove(NodeId),
}

/// A member and where it is dialled; for one whose address is known already it may be left out.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// At what address the other members dial it.
    pub address: Option<String>,
}

impl From<NodeId> for Member {
    fn from(id: NodeId) -> Self {
        Self { id, address: None }
    }
}

impl<A: Into<String>> From<(NodeId, A)> for Member {
    fn from((id, address): (NodeId, A)) -> Self {
        Self { id, address: Some(address.into()) }
    }
}

impl Change {
    /// Most members, voters and learners together: messages to everybody stay bounded.
    pub const MEMBERS_MAX: usize = 64;
    /// Longest address, in bytes.
    pub const ADDRESS_BYTES_MAX: usize = 255;

    /// Exactly these vote. Who voted and is not among them leaves; other learners stay.
    #[must_use]
    pub fn to<M: Into<Member>>(voters: impl IntoIterator<Item = M>) -> Self {
        Self::of(Step::To(voters.into_iter().map(Into::into).collect()))
    }

    /// A new member receives the log, as a learner. An address that differs from the one that is known replaces it.
    #[must_use]
    pub fn add(id: NodeId, address: impl Into<String>) -> Self {
        Self::of(Step::Add(Member::from((id, address))))
    }

    /// The same for one that keeps no commands, and never leads: once promoted, it breaks ties between two full copies. There is one
    /// at most, and whoever is one stays one. It must have been started as one.
    #[must_use]
    pub fn add_witness(id: NodeId, address: impl Into<String>) -> Self {
        Self::of(Step::AddWitness(Member::from((id, address))))
    }

    /// A learner votes from now on.
    #[must_use]
    pub fn promote(id: NodeId) -> Self {
        Self::of(Step::Promote(id))
    }

    /// A member leaves.
    #[must_use]
    pub fn remove(id: NodeId) -> Self {
        Self::of(Step::Remove(id))
    }

    /// A voter leaves, and another takes its place.
    #[must_use]
    pub fn replace(leaves: NodeId, joins: impl Into<Member>) -> Self {
        let member = joins.into();
        let id = member.id;
        let mut change = Self::remove(leaves);
        change.steps.extend([Step::Add(member), Step::Promote(id)]);
        change
    }

    /// The same, and then another, as one change.
    #[must_use]
    pub fn and(mut self, mut then: Self) -> Self {
        self.steps.append(&mut then.steps);
        self.expected = then.expected.or(self.expected);
        self
    }

    /// Only if the configuration in force is still the one of the entry at `index`: safe against others who change it, too.
    #[must_use]
    pub fn expecting(mut self, index: Index) -> Self {
        self.expected = Some(index);
        self
    }

    /// The same, whatever configuration is in force.
    #[must_use]
    pub fn anyhow(mut self) -> Self {
        self.expected = None;
        self
    }

    /// The configuration that it leads to from `current`, whose entry is at `index`: never a joint one.
    ///
    /// # Errors
    /// If it makes no sense there.
    pub fn target(&self, current: &Membership, index: Index) -> Result<Membership, ChangeRefused> {
        if let Some(expected) = self.expected.filter(|expected| *expected != index) {
            return Err(ChangeRefused::Moved { expected, found: index });
        }
        let is_bad = |member: &&Member| match &member.address {
            Some(address) => address.is_empty() || address.len() > Self::ADDRESS_BYTES_MAX,
            None => !current.contains(member.id),
        };
        if let Some(member) = self.members().find(is_bad) {
            return Err(ChangeRefused::BadAddress { id: member.id });
        }
        let mut target = Target::from(current);
        self.steps.iter().try_for_each(|step| target.take(step))?;
        if let Some(id) = target.learners.iter().find(|id| current.incoming().binary_search(id).is_ok()) {
            return Err(ChangeRefused::Demotes { id: *id });
        }
        target.finish()
    }

    /// Members that it brings in and that `current` does not know, with their addresses: they have to be brought up to date
    /// before they may vote.
    #[must_use]
    pub fn newcomers(&self, current: &Membership) -> Vec<Member> {
        self.members().filter(|member| !current.contains(member.id)).cloned().collect()
    }

    /// Those whom it names with what is known of them.
    fn members(&self) -> impl Iterator<Item = &Member> {
        self.steps.iter().flat_map(|step| match step {
            Step::To(voters) => voters.as_slice(),
            Step::Add(member) | Step::AddWitness(member) => core::slice::from_ref(member),
            Step::Promote(_) | Step::Remove(_) => &[],
        })
    }

    fn of(step: Step) -> Self {
        Self { steps: alloc::vec![step], expected: None }
    }
}

/// Beside a witness that votes, so many full voters there are at least: with one alone it would be needed for every commit, and
/// add nothing.
const FULL_VOTERS_MIN: usize = 2;

/// Where the steps taken so far lead.
struct Target {
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    addresses: BTreeMap<NodeId, String>,
    witness: Option<NodeId>,
}

impl From<&Membership> for Target {
    fn from(current: &Membership) -> Self {
        Self {
            voters: current.incoming().iter().copied().collect(),
            learners: current.learners().iter().copied().collect(),
            addresses: current.addresses().clone(),
            witness: current.witness(),
        }
    }
}

impl Target {
    fn take(&mut self, step: &Step) -> Result<(), ChangeRefused> {
        match step {
            Step::To(members) => {
                for Member { id, address } in members {
                    self.learners.remove(id);
                    self.know(*id, address.as_ref());
                }
                self.voters = members.iter().map(|member| member.id).collect();
            }
            Step::Add(Member { id, address }) => {
                if !self.voters.contains(id) {
                    self.learners.insert(*id);
                }
                self.know(*id, address.as_ref());
            }
            Step::AddWitness(Member { id, address }) => {
                let is_new = !self.voters.contains(id) && self.learners.insert(*id);
                // Two at a time, though in different halves, could each hold what the other lacks: nor in place of one that leaves.
                if let Some(other) = self.witness.filter(|other| other != id) {
                    return Err(ChangeRefused::WitnessTaken { id: other });
                }
                if !is_new && self.witness.is_none() {
                    return Err(ChangeRefused::NotWitness { id: *id });
                }
                self.witness = Some(*id);
                self.know(*id, address.as_ref());
            }
            Step::Promote(id) if self.voters.contains(id) => {}
            Step::Promote(id) if self.learners.remove(id) => drop(self.voters.insert(*id)),
            Step::Remove(id) if self.voters.remove(id) || self.learners.remove(id) => {}
            Step::Promote(id) | Step::Remove(id) => return Err(ChangeRefused::Unknown { id: *id }),
        }
        Ok(())
    }

    fn know(&mut self, id: NodeId, address: Option<&String>) {
        if let Some(address) = address {
            self.addresses.insert(id, address.clone());
        }
    }

    fn finish(self) -> Result<Membership, ChangeRefused> {
        let Self { voters, learners, mut addresses, witness } = self;
        if voters.is_empty() {
            return Err(ChangeRefused::NoVoters);
        }
        if voters.len() + learners.len() > Change::MEMBERS_MAX {
            return Err(ChangeRefused::TooMany);
        }
        if witness.is_some_and(|witness| voters.contains(&witness)) && voters.len() < 1 + FULL_VOTERS_MIN {
            return Err(ChangeRefused::TooFewFull);
        }
        addresses.retain(|id, _| voters.contains(id) || learners.contains(id));
        let membership = Membership::of_voters(voters).with_learners(learners).with_addresses(addresses);
        Ok(membership.with_witness(witness))
    }
}

/// Why the members are not changed. Nothing has happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ChangeRefused {
    /// This node does not lead: ask the leader.
    NotLeader,
    /// The leader has yet to commit an entry of its own term: until then it does not know which configuration is in force
    /// (the flaw in single-server changes that Ongaro announced in 2015, and no less a condition here). Try again.
    NotReady,
    /// Another change is under way, whose configuration stands at `index`. Try again when it is through.
    Pending {
        /// Its entry.
        index: Index,
    },
    /// The configuration is no longer the one that the change was made for: look at it again.
    Moved {
        /// The one that was expected.
        expected: Index,
        /// The one that is in force.
        found: Index,
    },
    /// Leadership is being handed over. Try again.
    HandingOver,
    /// Nobody of this id belongs to the cluster.
    Unknown {
        /// Who.
        id: NodeId,
    },
    /// A new member has no address, or one that is none.
    BadAddress {
        /// Who.
        id: NodeId,
    },
    /// A voter would become a learner, which takes two changes.
    Demotes {
        /// Who.
        id: NodeId,
    },
    /// Nobody would vote.
    NoVoters,
    /// There would be more than [`Change::MEMBERS_MAX`] members.
    TooMany,
    /// There is a witness already, or one that only just leaves.
    WitnessTaken {
        /// Who.
        id: NodeId,
    },
    /// A member that is no witness can't become one.
    NotWitness {
        /// Who.
        id: NodeId,
    },
    /// Beside a witness fewer than two full copies would vote.
    TooFewFull,
    /// A new voter is too far behind, or one without which there would be no quorum: it would hold up every commit.
    Behind {
        /// Who.
        id: NodeId,
        /// How many entries it lacks; all of them, if nothing was heard of it lately.
        entries: u64,
    },
}

impl fmt::Display for ChangeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader => write!(f, "this node does not lead; ask the leader"),
            Self::NotReady => {
                write!(f, "the leader is new and has committed nothing of its term yet; try again")
            }
            Self::Pending { index } => {
                write!(f, "another change, at entry {index}, is under way; try again when it is through")
            }
            Self::Moved { expected, found } => {
                write!(f, "the configuration is the one of entry {found}, not of {expected}; look at it again")
            }
            Self::HandingOver => write!(f, "leadership is being handed over; try again"),
            Self::Unknown { id } => write!(f, "node {id} is no member; see the members' list"),
            Self::BadAddress { id } => {
                write!(
                    f,
                    "node {id} needs an address of 1 to {} bytes, at which it is dialled",
                    Change::ADDRESS_BYTES_MAX
                )
            }
            Self::Demotes { id } => write!(f, "node {id} votes; remove it first, and add it then"),
            Self::NoVoters => write!(f, "no voter would be left; add and promote another first"),
            Self::TooMany => write!(f, "there would be more than {} members", Change::MEMBERS_MAX),
            Self::WitnessTaken { id } => {
                write!(f, "node {id} is the witness, and there is one at most; remove it first")
            }
            Self::NotWitness { id } => {
                write!(f, "node {id} is a member and no witness; remove it, and add a witness under a new id")
            }
            Self::TooFewFull => {
                write!(f, "beside a witness two others must vote; add and promote another first, or remove the witness")
            }
            Self::Behind { id, entries } => {
                write!(
                    f,
                    "node {id} lacks {entries} entries and would hold up the cluster as a voter; see that it runs and is \
                     reachable, and try again"
                )
            }
        }
    }
}
