//! Cluster configurations: the members, their capacities, addresses and metadata.

mod history;

pub(crate) use history::History;

use crate::{
    entry::Malformed,
    ids::{ClusterId, NodeId},
    metadata::{MemberDescription, MemberMetadata},
};
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The members of the cluster (paper §6).
///
/// A joint configuration has two sets of voters, and every decision needs a majority of each. With
/// `outgoing` empty it is an ordinary one.
///
/// One of the members may be a *witness*, which keeps no commands (see `replica::witness`).
///
/// A configuration also holds the cluster's id, which never changes once a leader's first entry has
/// stated it. So the id is in the log, in snapshots and on the wire, wherever a configuration is.
///
/// **Invariant:** the three lists are sorted and free of duplicates, and no learner is a voter. The
/// witness is a member. Every id in `given` has an address. Only members have a description, and
/// none of them is empty.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Membership {
    incoming: Vec<NodeId>,
    outgoing: Vec<NodeId>,
    learners: Vec<NodeId>,
    addresses: BTreeMap<NodeId, String>,
    given: Vec<NodeId>,
    witness: Option<NodeId>,
    cluster_id: Option<ClusterId>,
    descriptions: BTreeMap<NodeId, MemberDescription>,
}

/// Most members of a configuration, voters and learners together.
pub(crate) const MEMBERS_MAX: usize = 64;

impl Membership {
    /// An ordinary configuration of these voters, without addresses.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { incoming: sorted(voters), ..Self::default() }
    }

    /// An ordinary configuration of these voters, each with the address at which it is dialled.
    #[must_use]
    pub fn of_addresses(voters: impl IntoIterator<Item = (NodeId, String)>) -> Self {
        let addresses: BTreeMap<_, _> = voters.into_iter().collect();
        Self { incoming: addresses.keys().copied().collect(), addresses, ..Self::default() }
    }

    /// A joint configuration: decisions need a majority of `incoming` and a majority of `outgoing`.
    #[must_use]
    pub fn joint(incoming: impl IntoIterator<Item = NodeId>, outgoing: impl IntoIterator<Item = NodeId>) -> Self {
        Self { incoming: sorted(incoming), outgoing: sorted(outgoing), ..Self::default() }
    }

    /// The same with these learners, which receive the log and neither vote nor count. Voters among
    /// them are left out.
    #[must_use]
    pub fn with_learners(mut self, learners: impl IntoIterator<Item = NodeId>) -> Self {
        self.learners = sorted(learners);
        let (incoming, outgoing) = (&self.incoming, &self.outgoing);
        self.learners.retain(|id| incoming.binary_search(id).is_err() && outgoing.binary_search(id).is_err());
        self
    }

    /// The same with these addresses; those of non-members are left out.
    #[must_use]
    pub fn with_addresses(mut self, addresses: BTreeMap<NodeId, String>) -> Self {
        self.addresses = addresses;
        let (incoming, outgoing, learners) = (&self.incoming, &self.outgoing, &self.learners);
        self.addresses.retain(|id, _| is_in([incoming, outgoing, learners], *id));
        self
    }

    /// The same, with the addresses of these members marked as given by an operator in a change.
    #[must_use]
    pub fn with_given_addresses(mut self, members: impl IntoIterator<Item = NodeId>) -> Self {
        self.given = sorted(members);
        self.given.retain(|id| self.addresses.contains_key(id));
        self
    }

    /// The same with this witness, if it is a member.
    #[must_use]
    pub fn with_witness(mut self, witness: Option<NodeId>) -> Self {
        self.witness = witness.filter(|id| self.contains(*id));
        self
    }

    /// The same with this cluster id.
    #[must_use]
    pub fn with_cluster_id(self, cluster_id: Option<ClusterId>) -> Self {
        Self { cluster_id, ..self }
    }

    /// The same with this metadata; that of non-members and empty descriptions are left out.
    #[must_use]
    pub fn with_descriptions(mut self, descriptions: BTreeMap<NodeId, MemberDescription>) -> Self {
        self.descriptions = descriptions;
        let (incoming, outgoing, learners) = (&self.incoming, &self.outgoing, &self.learners);
        let is_kept = |id, description: &MemberDescription| {
            is_in([incoming, outgoing, learners], id) && *description != MemberDescription::default()
        };
        self.descriptions.retain(|id, description| is_kept(*id, description));
        self
    }

    /// The joint configuration that leads from `self` to `target`, neither of which is joint (paper
    /// §6, C-old,new). Its learners are the target's.
    #[must_use]
    pub fn toward(&self, target: &Self) -> Self {
        let mut addresses = self.addresses.clone();
        addresses.extend(target.addresses.clone());
        let mut descriptions = self.descriptions.clone();
        descriptions.extend(target.descriptions.clone());
        Self::joint(target.incoming.iter().copied(), self.incoming.iter().copied())
            .with_learners(target.learners.iter().copied())
            .with_addresses(addresses)
            .with_given_addresses(self.given.iter().chain(&target.given).copied())
            .with_witness(self.witness.or(target.witness))
            .with_cluster_id(self.cluster_id)
            .with_descriptions(descriptions)
    }

    /// The configuration that a joint one leads to: its new half alone (paper §6, C-new). An
    /// ordinary one is returned unchanged.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self::of_voters(self.incoming.iter().copied())
            .with_learners(self.learners.iter().copied())
            .with_addresses(self.addresses.clone())
            .with_given_addresses(self.given.iter().copied())
            .with_witness(self.witness)
            .with_cluster_id(self.cluster_id)
            .with_descriptions(self.descriptions.clone())
    }

    /// Whether decisions need two majorities.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The voters of the configuration, or of its new half while it is joint.
    #[must_use]
    pub fn incoming(&self) -> &[NodeId] {
        &self.incoming
    }

    /// The voters of the old half of a joint configuration; empty otherwise.
    #[must_use]
    pub fn outgoing(&self) -> &[NodeId] {
        &self.outgoing
    }

    /// The members that receive the log and do not vote.
    #[must_use]
    pub fn learners(&self) -> &[NodeId] {
        &self.learners
    }

    /// The member that keeps no commands, if there is one.
    #[must_use]
    pub fn witness(&self) -> Option<NodeId> {
        self.witness
    }

    /// The cluster's id, if a leader has stated one.
    #[must_use]
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id
    }

    /// The address at which to dial a member, if known.
    #[must_use]
    pub fn address(&self, id: NodeId) -> Option<&str> {
        self.addresses.get(&id).map(String::as_str)
    }

    /// All known addresses.
    #[must_use]
    pub fn addresses(&self) -> &BTreeMap<NodeId, String> {
        &self.addresses
    }

    /// The members whose address an operator gave in a change. Such an address precedes one that a
    /// node was started with, which the member may have left.
    #[must_use]
    pub fn given_addresses(&self) -> &[NodeId] {
        &self.given
    }

    /// The address at which to dial a member, for a node that was started with `own` address for
    /// it: the one that an operator gave last.
    #[must_use]
    pub fn address_over<'a>(&'a self, id: NodeId, own: Option<&'a str>) -> Option<&'a str> {
        let given = self.given.binary_search(&id).is_ok();
        own.filter(|_| !given).or(self.address(id))
    }

    /// The metadata of a member, if it has any.
    #[must_use]
    pub fn metadata(&self, id: NodeId) -> Option<&MemberMetadata> {
        self.descriptions.get(&id).map(|description| &description.metadata).filter(|metadata| !metadata.is_empty())
    }

    /// The metadata of all members that have any, with what each has published itself.
    #[must_use]
    pub fn descriptions(&self) -> &BTreeMap<NodeId, MemberDescription> {
        &self.descriptions
    }

    /// Whether it has no voters: all that a node knows while it waits to be added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.incoming.is_empty()
    }

    /// Whether `id` votes, in either half.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.incoming.binary_search(&id).is_ok() || self.outgoing.binary_search(&id).is_ok()
    }

    /// Whether `id` is a voter or a learner.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.is_voter(id) || self.learners.binary_search(&id).is_ok()
    }

    /// Every voter of either half once, in order.
    #[must_use]
    pub fn voters(&self) -> Vec<NodeId> {
        sorted(self.incoming.iter().chain(&self.outgoing).copied())
    }

    /// Every member but `this` once, in order: the peers of `this`.
    #[must_use]
    pub fn peers_of(&self, this: NodeId) -> Vec<NodeId> {
        let all = self.incoming.iter().chain(&self.outgoing).chain(&self.learners);
        sorted(all.copied().filter(|id| *id != this))
    }
}

impl Membership {
    /// The payload of a membership entry: for each of the three lists a count (4 bytes) and ids (8
    /// bytes each); a count of addresses, each an id, a length (4 bytes) and text; a count of ids
    /// whose address was given, and those ids; the witness (8 bytes; 0 for none); a 1 (1 byte) and
    /// the cluster's id (16 bytes), or a 0; a count of descriptions, each an id and
    /// `MemberDescription::encode`. Little-endian.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let count = |length| u32::try_from(length).unwrap_or(u32::MAX);
        let put_ids = |bytes: &mut BytesMut, ids: &[NodeId]| {
            bytes.put_u32_le(count(ids.len()));
            ids.iter().for_each(|id| bytes.put_u64_le(id.0));
        };
        let mut bytes = BytesMut::new();
        [&self.incoming, &self.outgoing, &self.learners].into_iter().for_each(|list| put_ids(&mut bytes, list));
        bytes.put_u32_le(count(self.addresses.len()));
        for (id, address) in &self.addresses {
            bytes.put_u64_le(id.0);
            bytes.put_u32_le(count(address.len()));
            bytes.put_slice(address.as_bytes());
        }
        put_ids(&mut bytes, &self.given);
        bytes.put_u64_le(self.witness.map_or(0, |witness| witness.0));
        bytes.put_u8(u8::from(self.cluster_id.is_some()));
        if let Some(id) = self.cluster_id {
            bytes.put_u128_le(id.0);
        }
        bytes.put_u32_le(count(self.descriptions.len()));
        for (id, description) in &self.descriptions {
            bytes.put_u64_le(id.0);
            description.encode(&mut bytes);
        }
        bytes.freeze()
    }

    /// Decodes the output of [`Membership::encode`].
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut rest = bytes;
        Self::take(&mut rest).map_err(|what| Malformed { offset: bytes.len() - rest.len(), what })
    }

    /// Decodes all of `rest`, and leaves the bytes from the fault on.
    fn take(rest: &mut &[u8]) -> Result<Self, &'static str> {
        let [mut incoming, mut outgoing, mut learners] = <[Vec<NodeId>; 3]>::default();
        for list in [&mut incoming, &mut outgoing, &mut learners] {
            *list = take_ids(rest).ok_or("list of members")?;
        }
        let mut addresses = BTreeMap::new();
        for _ in 0..rest.try_get_u32_le().map_err(|_| "count of addresses")? {
            let id = NodeId(rest.try_get_u64_le().map_err(|_| "member with an address")?);
            let length = rest.try_get_u32_le().map_err(|_| "length of an address")? as usize;
            let (text, after) = rest.split_at_checked(length).ok_or("address")?;
            addresses.insert(id, core::str::from_utf8(text).map_err(|_| "address")?.into());
            *rest = after;
        }
        let given = take_ids(rest).ok_or("list of given addresses")?;
        if !given.is_sorted_by(|one, other| one < other) || given.iter().any(|id| !addresses.contains_key(id)) {
            return Err("list of given addresses");
        }
        let witness = rest.try_get_u64_le().map_err(|_| "witness")?;
        let cluster_id = match rest.try_get_u8() {
            Ok(0) => None,
            Ok(1) => Some(ClusterId(rest.try_get_u128_le().map_err(|_| "cluster id")?)),
            _ => return Err("cluster id"),
        };
        let membership = Self { incoming: sorted(incoming), outgoing: sorted(outgoing), ..Self::default() }
            .with_learners(learners)
            .with_addresses(addresses)
            .with_given_addresses(given)
            .with_cluster_id(cluster_id);
        let witness = (witness != 0).then_some(NodeId(witness));
        if witness.is_some_and(|id| !membership.contains(id)) {
            return Err("witness");
        }
        let mut descriptions = BTreeMap::new();
        for _ in 0..rest.try_get_u32_le().map_err(|_| "count of descriptions")? {
            let id = NodeId(rest.try_get_u64_le().map_err(|_| "member with a description")?);
            if !membership.contains(id) || descriptions.last_key_value().is_some_and(|(before, _)| *before >= id) {
                return Err("member with a description");
            }
            descriptions.insert(id, MemberDescription::decode(rest)?);
        }
        match rest.is_empty() {
            true => Ok(membership.with_witness(witness).with_descriptions(descriptions)),
            false => Err("trailing bytes"),
        }
    }
}

/// Takes a count and so many ids off the front; `None` if they are not there.
fn take_ids(from: &mut &[u8]) -> Option<Vec<NodeId>> {
    let count = from.try_get_u32_le().ok()? as usize;
    let (ids, rest) = from.split_at_checked(count.checked_mul(8)?)?;
    *from = rest;
    let (ids, _) = ids.as_chunks();
    Some(ids.iter().map(|id| NodeId(u64::from_le_bytes(*id))).collect())
}

fn is_in(lists: [&Vec<NodeId>; 3], id: NodeId) -> bool {
    lists.iter().any(|list| list.binary_search(&id).is_ok())
}

fn sorted(ids: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
