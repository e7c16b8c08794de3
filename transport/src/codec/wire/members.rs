//! Wire forms of memberships, of their changes, and of messages about members.

use super::{Reader, Wire, Writer, wire_enum, wire_struct, write_list};
use postcard::{Error, Result};
use quorate_raft::{
    Administer, AdministerOutcome, Administered, Administration, Change, ChangeRefused, ChangeStep, ClusterId, Emptied,
    ExpectedConfiguration, Holdings, Index, Member, MemberDescription, MemberKind, MemberMetadata, Membership,
    MetadataFlaw, MetadataUpdate, NodeId, Removed, TransferRefused,
};
use std::collections::BTreeMap;

wire_struct!(Emptied { known_at: Index });

wire_struct!(Holdings { members: Vec<(NodeId, Index)> });

wire_struct!(Removed { at: Index });

wire_struct!(Administer { request: u64, what: Administration });

wire_enum!(Administration {
    0 => Change(change: Change),
    1 => TransferLeadership(to: Option<NodeId>),
});

wire_struct!(Administered { request: u64, outcome: AdministerOutcome });

wire_enum!(AdministerOutcome {
    0 => Changed(at: Index),
    1 => ChangeRefused(refused: ChangeRefused),
    2 => Transferred(to: NodeId),
    3 => TransferRefused(refused: TransferRefused),
    4 => Unknown,
});

wire_enum!(ChangeStep {
    0 => SetVoters(voters: Vec<Member>),
    1 => Add(member: Member),
    2 => AddWitness(member: Member),
    3 => Promote(id: NodeId),
    4 => Remove(id: NodeId),
    5 => Move(id: NodeId, address: String),
    6 => Describe(id: NodeId, update: MetadataUpdate),
    7 => Publish(id: NodeId, metadata: MemberMetadata),
});

wire_struct!(Member { id: NodeId, address: Option<String> });

wire_struct!(MetadataUpdate { client_address: Option<Option<String>>, labels: BTreeMap<String, Option<String>> });

wire_struct!(MemberDescription { metadata: MemberMetadata, published: MemberMetadata });

wire_enum!(ChangeRefused {
    0 => NotLeader,
    1 => NotReady,
    2 => Pending { index: Index },
    3 => Moved { expected: Index, found: Index },
    4 => TransferInProgress,
    5 => Unknown { id: NodeId },
    6 => BadAddress { id: NodeId },
    7 => Member { id: NodeId, kind: MemberKind, address: Option<String> },
    8 => AddressTaken { id: NodeId, by: NodeId },
    9 => Twice { id: NodeId },
    10 => Demotes { id: NodeId },
    11 => NoVoters,
    12 => TooMany,
    13 => WitnessTaken { id: NodeId },
    14 => NotWitness { id: NodeId },
    15 => TooFewFull,
    16 => Behind { id: NodeId, entries: u64 },
    17 => BadMetadata { id: NodeId, flaw: MetadataFlaw },
});

wire_enum!(MetadataFlaw {
    0 => ClientAddress { address: String },
    1 => Key { key: String },
    2 => Value { key: String },
    3 => TooManyLabels,
    4 => Total,
});

wire_enum!(MemberKind {
    0 => Voter,
    1 => Learner,
    2 => WitnessVoter,
    3 => WitnessLearner,
});

wire_enum!(TransferRefused {
    0 => NotLeader,
    1 => Pending { to: NodeId },
    2 => NotVoter { id: NodeId },
    3 => Witness { id: NodeId },
    4 => Unreachable,
    5 => GivenUp { to: NodeId },
});

/// The client address and the labels; out of bounds they are refused.
impl Wire for MemberMetadata {
    fn write(&self, to: &mut Writer) -> Result<()> {
        self.client_address().map(ToOwned::to_owned).write(to)?;
        self.labels().write(to)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let (address, labels) = (Option::read(from)?, BTreeMap::read(from)?);
        Self::new(address, labels).map_err(|_| Error::DeserializeBadEncoding)
    }
}

/// Its steps, and the configurations to which it may be applied.
impl Wire for Change {
    fn write(&self, to: &mut Writer) -> Result<()> {
        write_list(self.steps(), to)?;
        self.expected().write(to)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok(Self::from_parts(Vec::read(from)?, ExpectedConfiguration::read(from)?))
    }
}

/// 0 any; 1 exactly one, and its index.
impl Wire for ExpectedConfiguration {
    fn write(&self, to: &mut Writer) -> Result<()> {
        match self {
            Self::Any => u32::write(&0, to),
            Self::Exactly(index) => {
                u32::write(&1, to)?;
                index.write(to)
            }
            // The leader's own, for a change that it has accepted.
            Self::Partial => Err(Error::SerdeSerCustom),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        match u32::read(from)? {
            0 => Ok(Self::Any),
            1 => Index::read(from).map(Self::Exactly),
            _ => Err(Error::DeserializeBadEnum),
        }
    }
}

/// Three lists of ids (incoming voters, outgoing voters, learners), the addresses by id, the ids
/// with an address given by an operator, the witness, the cluster's id, and the descriptions by id.
/// Lists from a peer are put in order; addresses and descriptions of no member are dropped.
impl Wire for Membership {
    fn write(&self, to: &mut Writer) -> Result<()> {
        write_list(self.incoming(), to)?;
        write_list(self.outgoing(), to)?;
        write_list(self.learners(), to)?;
        self.addresses().write(to)?;
        write_list(self.given_addresses(), to)?;
        self.witness().write(to)?;
        self.cluster_id().write(to)?;
        self.descriptions().write(to)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let (incoming, outgoing) = (Vec::<NodeId>::read(from)?, Vec::<NodeId>::read(from)?);
        let learners = Vec::<NodeId>::read(from)?;
        let addresses = BTreeMap::<NodeId, String>::read(from)?;
        let given = Vec::<NodeId>::read(from)?;
        let (witness, cluster_id) = (Option::<NodeId>::read(from)?, Option::<ClusterId>::read(from)?);
        let descriptions = BTreeMap::<NodeId, MemberDescription>::read(from)?;
        let members = Self::joint(incoming, outgoing).with_learners(learners).with_addresses(addresses);
        let members = members.with_given_addresses(given).with_witness(witness).with_cluster_id(cluster_id);
        Ok(members.with_descriptions(descriptions))
    }
}
