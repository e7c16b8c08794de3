//! Membership changes as an operator asks for them, and the configuration that each leads
//! to (paper §6).
//!
//! A [`Change`] is any number of steps, taken together. If it changes the voters, the cluster goes
//! through a joint configuration, in which every decision needs a majority of the old voters and
//! one of the new; otherwise one entry is enough. A change that names the configuration it was made
//! for is safe against concurrent changes ([`Change::expecting`]).

use crate::{
    address::{self, are_same, is_dialable},
    ids::{ClusterId, Index, NodeId},
    membership::{self, Membership},
    metadata::{MemberDescription, MemberMetadata, MetadataFlaw, MetadataUpdate},
    refused::{ChangeRefused, MemberKind},
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

/// A membership change: one or more steps, applied together.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Change {
    steps: Vec<ChangeStep>,
    expected: ExpectedConfiguration,
}

/// The configurations to which a change may be applied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum ExpectedConfiguration {
    /// Any configuration in force.
    #[default]
    Any,
    /// Only the configuration of the entry at this index.
    Exactly(Index),
    /// A configuration to which some of the change's steps may have led already: the leader
    /// accepted the change before. Never sent.
    Partial,
}

/// One step of a [`Change`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ChangeStep {
    /// Exactly these members vote: see [`Change::set_voters`].
    SetVoters(Vec<Member>),
    /// A node joins as a learner: see [`Change::add`].
    Add(Member),
    /// A node joins as the witness: see [`Change::add_witness`].
    AddWitness(Member),
    /// A learner becomes a voter: see [`Change::promote`].
    Promote(NodeId),
    /// A member leaves: see [`Change::remove`].
    Remove(NodeId),
    /// A member gets another address: see [`Change::move_to`].
    Move(NodeId, String),
    /// An operator changes a member's metadata: see [`Change::describe`].
    Describe(NodeId, MetadataUpdate),
    /// A member states its own metadata: see [`Change::publish`].
    Publish(NodeId, MemberMetadata),
}

/// A member and the address at which it is dialled; the address of a known member may be left out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// Id of the member.
    pub id: NodeId,
    /// The address at which other members dial it, of at most [`Change::ADDRESS_BYTES_MAX`] bytes.
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
    /// Most members, voters and learners together: it bounds every broadcast.
    pub const MEMBERS_MAX: usize = membership::MEMBERS_MAX;
    /// Longest address, in bytes.
    pub const ADDRESS_BYTES_MAX: usize = address::BYTES_MAX;

    /// Makes exactly these nodes the voters. A voter that is not listed is removed; other learners
    /// stay. An address given for a member must be the known one ([`Change::move_to`] changes it).
    #[must_use]
    pub fn set_voters<M: Into<Member>>(voters: impl IntoIterator<Item = M>) -> Self {
        Self::of(ChangeStep::SetVoters(voters.into_iter().map(Into::into).collect()))
    }

    /// Adds a node as a learner, which receives the log. Refused if the node is a member already.
    #[must_use]
    pub fn add(id: NodeId, address: impl Into<String>) -> Self {
        Self::of(ChangeStep::Add(Member::from((id, address))))
    }

    /// Adds a witness as a learner. It keeps no commands and never leads; once promoted, it breaks
    /// ties between two full copies. A cluster has one at most, a member can't turn into one or
    /// cease to be one, and the node must have been started as a witness.
    #[must_use]
    pub fn add_witness(id: NodeId, address: impl Into<String>) -> Self {
        Self::of(ChangeStep::AddWitness(Member::from((id, address))))
    }

    /// Turns a learner into a voter.
    #[must_use]
    pub fn promote(id: NodeId) -> Self {
        Self::of(ChangeStep::Promote(id))
    }

    /// Removes a member.
    #[must_use]
    pub fn remove(id: NodeId) -> Self {
        Self::of(ChangeStep::Remove(id))
    }

    /// Changes the address of a member. It precedes any address that a node was started with
    /// for that member.
    #[must_use]
    pub fn move_to(id: NodeId, address: impl Into<String>) -> Self {
        Self::of(ChangeStep::Move(id, address.into()))
    }

    /// Changes the metadata of a member. It is as safe as the change of an address: it is a
    /// configuration of its own, accepted when no other one is pending, and has the same voters, so
    /// every quorum before it is one after it, and it needs no joint configuration.
    #[must_use]
    pub fn describe(id: NodeId, update: MetadataUpdate) -> Self {
        Self::of(ChangeStep::Describe(id, update))
    }

    /// States a member's own metadata, from its settings: only the fields in which it differs from
    /// what the member published last are changed. So the last change of a field counts, the
    /// member's or an operator's. A node does this by itself ([`Change::describe`] is for others).
    #[must_use]
    pub fn publish(id: NodeId, metadata: MemberMetadata) -> Self {
        Self::of(ChangeStep::Publish(id, metadata))
    }

    /// Replaces a voter by a node that is not a member yet.
    #[must_use]
    pub fn replace(leaves: NodeId, joins: impl Into<Member>) -> Self {
        let member = joins.into();
        let id = member.id;
        let mut change = Self::remove(leaves);
        change.steps.extend([ChangeStep::Add(member), ChangeStep::Promote(id)]);
        change
    }

    /// Both changes as one: the steps of `self`, then those of `then`.
    #[must_use]
    pub fn and(mut self, mut then: Self) -> Self {
        self.steps.append(&mut then.steps);
        if then.expected != ExpectedConfiguration::Any {
            self.expected = then.expected;
        }
        self
    }

    /// Refuses the change unless the configuration in force is still the one of the entry at
    /// `index`: safe against concurrent changes.
    ///
    /// A node that publishes its own metadata ([`Change::publish`]) makes a configuration, too, and
    /// does so when it starts or joins: a change that expects the one before is refused then, as
    /// after any other change, although the members are the same. Read the configuration again.
    #[must_use]
    pub fn expecting(mut self, index: Index) -> Self {
        self.expected = ExpectedConfiguration::Exactly(index);
        self
    }

    /// The same change, for the leader that accepted it and carries it out in several steps: it
    /// applies to any configuration, and the members that it adds may belong to it already.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        self.expected = ExpectedConfiguration::Partial;
        self
    }

    /// The configuration that the change leads to from `current`, whose entry is at `index`: never
    /// a joint one.
    ///
    /// # Errors
    /// If the change does not apply to `current`.
    pub fn target(&self, current: &Membership, index: Index) -> Result<Membership, ChangeRefused> {
        if let ExpectedConfiguration::Exactly(expected) = self.expected
            && expected != index
        {
            return Err(ChangeRefused::Moved { expected, found: index });
        }
        let is_bad = |member: &&Member| match &member.address {
            Some(address) => !is_dialable(address),
            None => !current.contains(member.id),
        };
        if let Some(member) = self.members().find(is_bad) {
            return Err(ChangeRefused::BadAddress { id: member.id });
        }
        let mut target = Target { resumes: self.expected == ExpectedConfiguration::Partial, ..Target::from(current) };
        self.steps.iter().try_for_each(|step| target.take(step))?;
        if let Some(id) = target.learners.iter().find(|id| current.incoming().binary_search(id).is_ok()) {
            return Err(ChangeRefused::Demotes { id: *id });
        }
        target.finish()
    }

    /// The members that the change adds and `current` does not have, with their addresses: they
    /// have to catch up before they may vote.
    #[must_use]
    pub fn newcomers(&self, current: &Membership) -> Vec<Member> {
        self.members().filter(|member| !current.contains(member.id)).cloned().collect()
    }

    /// The members that the steps name together with an address.
    fn members(&self) -> impl Iterator<Item = &Member> {
        self.steps.iter().flat_map(|step| match step {
            ChangeStep::SetVoters(voters) => voters.as_slice(),
            ChangeStep::Add(member) | ChangeStep::AddWitness(member) => core::slice::from_ref(member),
            ChangeStep::Promote(_)
            | ChangeStep::Remove(_)
            | ChangeStep::Move(..)
            | ChangeStep::Describe(..)
            | ChangeStep::Publish(..) => &[],
        })
    }

    /// Whether it changes nothing but metadata: it then takes one commit.
    #[must_use]
    pub fn is_of_metadata(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, ChangeStep::Describe(..) | ChangeStep::Publish(..)))
    }

    /// A change of these steps, in order: the inverse of
    /// [`Change::steps`] and [`Change::expected`].
    #[must_use]
    pub fn from_parts(steps: Vec<ChangeStep>, expected: ExpectedConfiguration) -> Self {
        Self { steps, expected }
    }

    /// The steps, in the order in which they are taken.
    #[must_use]
    pub fn steps(&self) -> &[ChangeStep] {
        &self.steps
    }

    /// The configurations to which the change may be applied.
    #[must_use]
    pub fn expected(&self) -> ExpectedConfiguration {
        self.expected
    }

    fn of(step: ChangeStep) -> Self {
        Self { steps: alloc::vec![step], ..Self::default() }
    }
}

/// Fewest full voters beside a voting witness: with only one, the witness would be needed for every
/// commit and add nothing.
const FULL_VOTERS_MIN: usize = 2;

/// The configuration after the steps already taken.
struct Target {
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    addresses: BTreeMap<NodeId, String>,
    /// Members whose address an operator gave.
    given: BTreeSet<NodeId>,
    witness: Option<NodeId>,
    resumes: bool,
    cluster_id: Option<ClusterId>,
    descriptions: BTreeMap<NodeId, MemberDescription>,
}

impl From<&Membership> for Target {
    fn from(current: &Membership) -> Self {
        Self {
            voters: current.incoming().iter().copied().collect(),
            learners: current.learners().iter().copied().collect(),
            addresses: current.addresses().clone(),
            given: current.given_addresses().iter().copied().collect(),
            witness: current.witness(),
            resumes: false,
            cluster_id: current.cluster_id(),
            descriptions: current.descriptions().clone(),
        }
    }
}

impl Target {
    fn take(&mut self, step: &ChangeStep) -> Result<(), ChangeRefused> {
        match step {
            ChangeStep::SetVoters(members) => {
                let mut seen = BTreeSet::new();
                if let Some(twice) = members.iter().find(|member| !seen.insert(member.id)) {
                    return Err(ChangeRefused::Twice { id: twice.id });
                }
                for Member { id, address } in members {
                    if let Some(address) = address {
                        self.know(*id, address)?;
                    }
                    self.learners.remove(id);
                }
                self.voters = members.iter().map(|member| member.id).collect();
            }
            ChangeStep::Add(Member { id, address }) => self.add(*id, address.as_ref())?,
            ChangeStep::AddWitness(Member { id, address }) => {
                // Two witnesses at once, even in different halves, could each hold entries that the
                // other lacks. So a new one is refused while the old one leaves, too.
                if let Some(other) = self.witness.filter(|other| other != id) {
                    return Err(ChangeRefused::WitnessTaken { id: other });
                }
                if self.contains(*id) && self.witness.is_none() {
                    return Err(ChangeRefused::NotWitness { id: *id });
                }
                self.add(*id, address.as_ref())?;
                self.witness = Some(*id);
            }
            ChangeStep::Promote(id) if self.contains(*id) => {
                self.learners.remove(id);
                self.voters.insert(*id);
            }
            ChangeStep::Remove(id) if self.contains(*id) => {
                self.voters.remove(id);
                self.learners.remove(id);
            }
            ChangeStep::Move(id, address) if self.contains(*id) => {
                if !is_dialable(address) {
                    return Err(ChangeRefused::BadAddress { id: *id });
                }
                self.addresses.remove(id);
                self.know(*id, address)?;
            }
            ChangeStep::Describe(id, update) if self.contains(*id) => {
                self.describe(*id, |description| description.updated(update))?;
            }
            ChangeStep::Publish(id, metadata) if self.contains(*id) => {
                self.describe(*id, |description| description.republished(metadata))?;
            }
            ChangeStep::Promote(id)
            | ChangeStep::Remove(id)
            | ChangeStep::Move(id, _)
            | ChangeStep::Describe(id, _)
            | ChangeStep::Publish(id, _) => return Err(ChangeRefused::Unknown { id: *id }),
        }
        Ok(())
    }

    fn add(&mut self, id: NodeId, address: Option<&String>) -> Result<(), ChangeRefused> {
        if self.contains(id) && !self.resumes {
            return Err(self.is_member(id));
        }
        if let Some(address) = address {
            self.know(id, address)?;
        }
        if !self.voters.contains(&id) {
            self.learners.insert(id);
        }
        Ok(())
    }

    /// Takes `address` for `id`. It must not belong to another member, not even to one that leaves
    /// in the same change, and must not differ from the address that is known for `id`.
    fn know(&mut self, id: NodeId, address: &str) -> Result<(), ChangeRefused> {
        if let Some((by, _)) = self.addresses.iter().find(|(other, taken)| **other != id && are_same(taken, address)) {
            return Err(ChangeRefused::AddressTaken { id, by: *by });
        }
        match self.addresses.get(&id) {
            Some(known) if !known.is_empty() && known != address && self.contains(id) => return Err(self.is_member(id)),
            Some(known) if known == address => {}
            _ => {
                self.addresses.insert(id, address.into());
                self.given.insert(id);
            }
        }
        Ok(())
    }

    fn describe(
        &mut self,
        id: NodeId,
        change: impl FnOnce(&MemberDescription) -> Result<MemberDescription, MetadataFlaw>,
    ) -> Result<(), ChangeRefused> {
        let description = self.descriptions.entry(id).or_default();
        *description = change(description).map_err(|flaw| ChangeRefused::BadMetadata { id, flaw })?;
        let total: usize = self.descriptions.values().map(MemberDescription::bytes).sum();
        if total > MemberMetadata::TOTAL_BYTES_MAX {
            return Err(ChangeRefused::BadMetadata { id, flaw: MetadataFlaw::Total });
        }
        Ok(())
    }

    fn contains(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    fn is_member(&self, id: NodeId) -> ChangeRefused {
        let kind = match (self.witness == Some(id), self.voters.contains(&id)) {
            (true, true) => MemberKind::WitnessVoter,
            (true, false) => MemberKind::WitnessLearner,
            (false, true) => MemberKind::Voter,
            (false, false) => MemberKind::Learner,
        };
        ChangeRefused::Member { id, kind, address: self.addresses.get(&id).cloned() }
    }

    fn finish(self) -> Result<Membership, ChangeRefused> {
        let Self { voters, learners, mut addresses, given, witness, cluster_id, descriptions, .. } = self;
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
        let membership = membership.with_given_addresses(given).with_witness(witness).with_cluster_id(cluster_id);
        Ok(membership.with_descriptions(descriptions))
    }
}
