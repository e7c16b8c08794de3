//! The content of a report, and its bytes.
//!
//! The bytes are the version of this layout and the fields in postcard's encoding. A report of
//! another version is refused: its node then shows as one that does not answer.

use super::{
    events::EventsReport,
    stage_times::{StageTime, StageTimes},
};
use quorate_metrics::NodeRole;
use quorate_raft::{Change, Index, MemberMetadata, NodeId, Phase, Report, Term};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The version of the layout.
const VERSION: u8 = 2;
/// The most members, votes and links in a report. A configuration has half as many members; while
/// it changes, the links and the voters are those of two.
const MEMBERS_MAX: usize = 2 * Change::MEMBERS_MAX;

/// The state of a node, as it reported it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// Random, drawn at each start of the node.
    pub incarnation: u64,
    /// Counts the reports of this incarnation.
    pub sequence: u64,
    /// The time since the start of the node.
    pub up: Duration,
    /// Role in the current term.
    #[serde(with = "role")]
    pub role: NodeRole,
    /// Current term.
    pub term: Term,
    /// Candidate that it voted for in that term.
    pub vote: Option<NodeId>,
    /// Leader that it knows of.
    pub leader: Option<NodeId>,
    /// The election timer; `None` while it is not armed.
    pub timer: Option<ElectionDeadline>,
    /// The first entry that its log still has.
    pub first: Index,
    /// The last entry that the newest snapshot covers; 0 without one.
    pub snapshot: Index,
    /// The last entry that its state machine has applied.
    pub applied: Index,
    /// The last entry that it knows to be committed.
    pub commit: Index,
    /// The last entry that is durable on it.
    pub durable: Index,
    /// The last entry of its log.
    pub last: Index,
    /// The last terms of its log, oldest first: eight at most.
    #[serde(deserialize_with = "bounded::list")]
    pub terms: Vec<TermStart>,
    /// Number of entries whose payload its disk lost.
    pub faulty: u64,
    /// Whether its disk is full.
    pub storage_full: bool,
    /// The entry at which its state machine halted.
    pub halted_at: Option<Index>,
    /// Work that keeps it from serving all that the cluster has.
    pub doing: Option<Doing>,
    /// The campaign that it runs.
    pub campaign: Option<Campaign>,
    /// How long its disk takes to make writes durable; `None` before the first.
    pub sync: Option<SyncTimes>,
    /// The stages of a write, if it leads and answered one in the last ten seconds.
    pub stages: Option<StageTimes>,
    /// Requests of its own callers that are in progress or wait.
    pub waiting: u64,
    /// Its links to the other members.
    #[serde(deserialize_with = "bounded::list")]
    pub links: Vec<LinkReport>,
    /// The members, by the configuration in force at this node.
    pub members: Members,
    /// Its settings of time.
    pub timing: ReportedTiming,
    /// Events that its receiver does not have yet.
    pub(crate) events: EventsReport,
}

/// The beginning of a term in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TermStart {
    /// The term.
    pub term: Term,
    /// The first entry of it that the log has.
    pub first: Index,
}

/// An election timer that is armed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ElectionDeadline {
    /// The time until it fires.
    pub left: Duration,
    /// The random timeout that was drawn.
    pub of: Duration,
}

/// Work of a node that is not up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Doing {
    /// It applies entries that its log had when it started.
    Recovery,
    /// It fetches entries whose payload its disk lost.
    Repair,
    /// It receives or restores a snapshot.
    Snapshot {
        /// The part that has arrived, in thousandths; `None` while it is restored.
        part: Option<u16>,
    },
}

/// The votes of a campaign.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Campaign {
    /// Whether pre-votes are asked for, or votes.
    #[serde(with = "phase")]
    pub(crate) phase: Phase,
    /// The voters that granted, itself included.
    #[serde(deserialize_with = "bounded::list")]
    pub granted: Vec<NodeId>,
    /// The voters that denied.
    #[serde(deserialize_with = "bounded::list")]
    pub denied: Vec<NodeId>,
}

impl Campaign {
    /// Whether it asks for pre-votes, which change no term.
    #[must_use]
    pub fn is_pre_vote(&self) -> bool {
        self.phase == Phase::PreVote
    }

    /// A campaign without votes.
    #[must_use]
    pub fn opened(phase: Phase) -> Self {
        Self { phase, granted: Vec::new(), denied: Vec::new() }
    }

    /// Takes note of a vote; the first of each voter counts.
    pub(crate) fn voted(&mut self, voter: NodeId, granted: bool) {
        if self.granted.contains(&voter) || self.denied.contains(&voter) {
            return;
        }
        let side = if granted { &mut self.granted } else { &mut self.denied };
        side.push(voter);
    }
}

/// The time that a node's disk takes to make a write durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SyncTimes {
    /// The mean of the last second or two with writes.
    pub recent: Duration,
    /// A mean of such means over about ten minutes.
    pub usual: Duration,
    /// Whether the disk is slow, as the events `disk_slow` and `disk_fast` say: the recent mean is at
    /// least [`SyncTimes::SLOW_MIN`] and [`SyncTimes::SLOW_TIMES`] times the usual one. It is fast
    /// again once the mean is below half of one of these bounds.
    pub is_slow: bool,
}

impl SyncTimes {
    /// A disk whose syncs take less on average is never slow.
    pub const SLOW_MIN: Duration = Duration::from_millis(50);
    /// A sync of a slow disk takes at least this many times as long as usual.
    pub const SLOW_TIMES: u32 = 8;
}

/// The link of a node to another.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LinkReport {
    /// The node at its other end.
    pub peer: NodeId,
    /// Whether the connection is up, as far as the network knows.
    pub is_up: bool,
    /// The latest measured round trip.
    pub round_trip: Option<Duration>,
    /// The replication to that node, if the reporting one leads.
    pub replication: Option<ReplicationReport>,
}

/// The replication of a leader to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplicationReport {
    /// The last entry known to be durable on the peer.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// The time since the peer last answered a heartbeat, or since the leadership began.
    pub silent: Duration,
    /// Whether a snapshot is sent; the part that the peer has, in thousandths.
    pub snapshot_part: Option<u16>,
    /// The time from an append until the peer has acknowledged it as durable, of the last ten seconds.
    pub acknowledged: Option<StageTime>,
}

impl ReplicationReport {
    /// The number of entries that were sent and not acknowledged.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.next.0.saturating_sub(1).saturating_sub(self.matched.0)
    }
}

/// The members of the cluster.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Members {
    /// Members that vote.
    #[serde(deserialize_with = "bounded::list")]
    pub voters: Vec<NodeId>,
    /// Members that receive the log and do not vote.
    #[serde(deserialize_with = "bounded::list")]
    pub learners: Vec<NodeId>,
    /// Voter that keeps no commands, if there is one.
    pub witness: Option<NodeId>,
    /// Addresses, as far as the configuration has them.
    #[serde(deserialize_with = "bounded::map")]
    pub addresses: BTreeMap<NodeId, String>,
    /// Client addresses and labels of the members that have any.
    #[serde(with = "metadata")]
    pub metadata: Arc<BTreeMap<NodeId, MemberMetadata>>,
    /// Index of the entry with this configuration.
    pub index: Index,
    /// Whether it is committed and not a joint one.
    pub is_settled: bool,
}

impl Members {
    /// Whether a node is a member.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    /// All members: voters, then learners.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.voters.iter().chain(&self.learners).copied()
    }
}

/// The settings of time that a report states.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReportedTiming {
    /// The interval of heartbeats.
    pub heartbeat: Duration,
    /// The shortest and the longest election timeout.
    pub election: (Duration, Duration),
}

impl NodeReport {
    /// The bytes of the report, without addresses and metadata if it would be longer than a message
    /// may carry; `None` if it is too long still.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        self.bytes().or_else(|| {
            let members = Members { addresses: BTreeMap::new(), metadata: Arc::default(), ..self.members.clone() };
            Self { members, ..self.clone() }.bytes()
        })
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        let bytes = postcard::to_extend(self, vec![VERSION]).ok()?;
        (bytes.len() <= Report::BYTES_MAX).then_some(bytes)
    }

    /// Reads the bytes of a report of `of`.
    ///
    /// # Errors
    /// If they are no report of that node, in the version of this release.
    pub(crate) fn decode(of: NodeId, bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > Report::BYTES_MAX {
            return Err("longer than a report may be");
        }
        let (version, fields) = bytes.split_first().ok_or("empty")?;
        if *version != VERSION {
            return Err("of another version");
        }
        let (report, rest) = postcard::take_from_bytes::<Self>(fields).map_err(|_| "malformed")?;
        if !rest.is_empty() {
            return Err("longer than its content");
        }
        if !report.events.is_bounded() {
            return Err("with more or longer events than a report may have");
        }
        if report.node != of {
            return Err("of another node than its sender says");
        }
        Ok(report)
    }
}

/// Metadata in a report: client addresses and labels, which are checked when they are read.
mod metadata {
    use quorate_raft::{MemberMetadata, NodeId};
    use serde::{Deserializer, Serialize, Serializer, de};
    use std::{collections::BTreeMap, sync::Arc};

    type Form = BTreeMap<NodeId, (Option<String>, BTreeMap<String, String>)>;

    pub(super) fn serialize<S: Serializer>(of: &BTreeMap<NodeId, MemberMetadata>, to: S) -> Result<S::Ok, S::Error> {
        let form = of.iter().map(|(id, of)| (*id, (of.client_address().map(ToOwned::to_owned), of.labels().clone())));
        form.collect::<Form>().serialize(to)
    }

    pub(super) fn deserialize<'de, D>(from: D) -> Result<Arc<BTreeMap<NodeId, MemberMetadata>>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let form: Form = super::bounded::map(from)?;
        let form = form.into_iter();
        let checked = form.map(|(id, (address, labels))| Ok((id, MemberMetadata::new(address, labels)?)));
        let checked: Result<_, quorate_raft::MetadataFlaw> = checked.collect();
        checked.map(Arc::new).map_err(|_| de::Error::custom("metadata out of its bounds"))
    }
}

/// Lists and maps of members: one of more than [`MEMBERS_MAX`] is refused by the length that the
/// bytes state, or at the first element that is too many, and never allocated.
mod bounded {
    use super::MEMBERS_MAX;
    use serde::{
        Deserialize, Deserializer,
        de::{Error, MapAccess, SeqAccess, Visitor},
    };
    use std::{collections::BTreeMap, fmt, marker::PhantomData};

    struct Bounded<T>(PhantomData<T>);

    pub(super) fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
        from.deserialize_seq(Bounded::<Vec<T>>(PhantomData))
    }

    pub(super) fn map<'de, K, V, D>(from: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        from.deserialize_map(Bounded::<BTreeMap<K, V>>(PhantomData))
    }

    fn check<E: Error>(length: usize) -> Result<(), E> {
        if length > MEMBERS_MAX { Err(E::invalid_length(length, &"fewer members")) } else { Ok(()) }
    }

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<Vec<T>> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MEMBERS_MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            check(from.size_hint().unwrap_or(0))?;
            let mut list = Vec::new();
            while let Some(one) = from.next_element()? {
                list.push(one);
                check(list.len())?;
            }
            Ok(list)
        }
    }

    impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Bounded<BTreeMap<K, V>> {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a map of at most {MEMBERS_MAX}")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            check(from.size_hint().unwrap_or(0))?;
            let mut map = BTreeMap::new();
            while let Some((key, value)) = from.next_entry()? {
                map.insert(key, value);
                check(map.len())?;
            }
            Ok(map)
        }
    }
}

/// The number of a role in a report.
mod role {
    use quorate_metrics::NodeRole;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::Error as _};

    pub(super) fn serialize<S: Serializer>(role: &NodeRole, to: S) -> Result<S::Ok, S::Error> {
        let number: u8 = match role {
            NodeRole::Follower => 0,
            NodeRole::PreCandidate => 1,
            NodeRole::Candidate => 2,
            NodeRole::Leader => 3,
            NodeRole::Learner => 4,
            _ => return Err(S::Error::custom("a role without a number")),
        };
        number.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NodeRole, D::Error> {
        Ok(match u8::deserialize(from)? {
            0 => NodeRole::Follower,
            1 => NodeRole::PreCandidate,
            2 => NodeRole::Candidate,
            3 => NodeRole::Leader,
            4 => NodeRole::Learner,
            _ => return Err(de::Error::custom("no role")),
        })
    }
}

/// A phase in a report: whether it is the pre-vote.
mod phase {
    use quorate_raft::Phase;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(phase: &Phase, to: S) -> Result<S::Ok, S::Error> {
        (*phase == Phase::PreVote).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Phase, D::Error> {
        Ok(if bool::deserialize(from)? { Phase::PreVote } else { Phase::Vote })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{super::events::ReportedEvent, *};
    use crate::events::{Event, What};
    use rand::{Rng, SeedableRng, rngs::SmallRng};

    #[test]
    fn a_report_survives_its_bytes() {
        let report = full();
        let bytes = report.encode().expect("short");
        assert!(bytes.len() < 600, "{} bytes for a cluster of three", bytes.len());
        assert_eq!(NodeReport::decode(report.node, &bytes), Ok(report));
    }

    #[test]
    fn a_report_that_is_damaged_foreign_or_too_long_is_refused_and_never_panics() {
        let (report, mut random) = (full(), SmallRng::seed_from_u64(1));
        let bytes = report.encode().expect("short");
        assert_eq!(NodeReport::decode(NodeId(9), &bytes), Err("of another node than its sender says"));
        assert_eq!(NodeReport::decode(report.node, &[]), Err("empty"));
        assert_eq!(NodeReport::decode(report.node, &[&[VERSION - 1], &bytes[1..]].concat()), Err("of another version"));
        assert_eq!(NodeReport::decode(report.node, &[&bytes[..], &[0]].concat()), Err("longer than its content"));
        let long = vec![VERSION; Report::BYTES_MAX + 1];
        assert_eq!(NodeReport::decode(report.node, &long), Err("longer than a report may be"));
        for cut in 0..bytes.len() {
            assert!(NodeReport::decode(report.node, &bytes[..cut]).is_err(), "cut after {cut} bytes");
        }
        for _ in 0..20_000 {
            let mut damaged = bytes.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(1..damaged.len());
                damaged[at] = random.random();
            }
            // A value or a refusal; lengths that the bytes only claim allocate nothing.
            let _ = NodeReport::decode(report.node, &damaged);
        }
    }

    #[test]
    fn a_report_with_events_beyond_its_bounds_is_refused() {
        let event = |text: String| {
            let what = What::ChangeRefused { why: String::new() };
            let event = Event { id: 1, node: NodeId(1), term: Term(1), at_ms: 0, wall_ms: 0, what };
            let mut event = ReportedEvent::of(&event);
            event.told.text = text;
            event
        };
        let with =
            |events| NodeReport { events: EventsReport { oldest: 1, events }, ..full() }.encode().expect("short");
        let refused = Err("with more or longer events than a report may have");
        assert!(NodeReport::decode(NodeId(1), &with(vec![event("x".repeat(2_048)); 2])).is_ok());
        assert_eq!(NodeReport::decode(NodeId(1), &with(vec![event("x".repeat(2_049))])), refused);
        assert_eq!(NodeReport::decode(NodeId(1), &with(vec![event(String::new()); 33])), refused);
    }

    #[test]
    fn a_report_too_long_for_a_message_lacks_addresses_and_one_longer_still_has_no_bytes() {
        let mut report = full();
        report.members.addresses = (0..64).map(|id| (NodeId(id), "x".repeat(1_100))).collect();
        let bytes = report.encode().expect("without addresses it is short");
        let members = Members { addresses: BTreeMap::new(), metadata: Arc::default(), ..report.members.clone() };
        assert_eq!(NodeReport::decode(NodeId(1), &bytes), Ok(NodeReport { members, ..report.clone() }));
        report.members.learners = (0..40_000).map(NodeId).collect();
        assert_eq!(report.encode(), None);
    }

    #[test]
    fn a_report_with_more_members_links_or_votes_than_a_cluster_can_have_is_refused() {
        type Grow = fn(&mut NodeReport, usize);
        fn ids(count: usize) -> Vec<NodeId> {
            (0..count as u64).map(NodeId).collect()
        }
        let with = |change: Grow, count| {
            let mut report = full();
            change(&mut report, count);
            NodeReport::decode(report.node, &report.encode().expect("short")).map(|read| assert_eq!(read, report))
        };
        let changes: [Grow; 8] = [
            |report, count| report.members.voters = ids(count),
            |report, count| report.members.learners = ids(count),
            |report, count| report.members.addresses = ids(count).into_iter().map(|id| (id, "a".into())).collect(),
            |report, count| {
                report.members.metadata = Arc::new(ids(count).into_iter().map(|id| (id, metadata())).collect());
            },
            |report, count| report.links = vec![report.links[0]; count],
            |report, count| report.terms = vec![report.terms[0]; count],
            |report, count| report.campaign.as_mut().expect("one").granted = ids(count),
            |report, count| report.campaign.as_mut().expect("one").denied = ids(count),
        ];
        for (nth, change) in changes.into_iter().enumerate() {
            assert_eq!(with(change, MEMBERS_MAX), Ok(()), "{nth}");
            assert_eq!(with(change, MEMBERS_MAX + 1), Err("malformed"), "{nth}");
        }
    }

    #[test]
    fn the_first_vote_of_each_voter_counts() {
        let mut campaign = Campaign::opened(Phase::Vote);
        for (voter, granted) in [(1, true), (2, false), (2, true), (1, false)] {
            campaign.voted(NodeId(voter), granted);
        }
        assert_eq!((campaign.granted, campaign.denied), (vec![NodeId(1)], vec![NodeId(2)]));
    }

    fn metadata() -> MemberMetadata {
        let labels = [("zone".to_owned(), "a".to_owned())].into();
        MemberMetadata::new(Some("http://10.0.0.1:8080".into()), labels).expect("within its bounds")
    }

    fn stages() -> StageTimes {
        let of = |us| StageTime { mean: Duration::from_micros(us), p99: Duration::from_micros(us * 2) };
        let [queue, encode, quorum] = [of(80), of(30), of(960)];
        let [commit, apply, reply, total] = [of(20), of(50), of(100), of(1_240)];
        let (lately, persist) = (Some(of(1_300)), Some(of(630)));
        StageTimes { queue, encode, quorum, commit, apply, reply, total, lately, persist }
    }

    /// A report of node 1 of three, with every field in use.
    pub(crate) fn full() -> NodeReport {
        let ms = Duration::from_millis;
        NodeReport {
            node: NodeId(1),
            incarnation: u64::MAX / 3,
            sequence: 7,
            up: ms(61_200),
            role: NodeRole::Leader,
            term: Term(8),
            vote: Some(NodeId(1)),
            leader: Some(NodeId(1)),
            timer: Some(ElectionDeadline { left: ms(3_200), of: ms(3_700) }),
            first: Index(47_020_000),
            snapshot: Index(47_019_999),
            applied: Index(48_444_830),
            commit: Index(48_444_836),
            durable: Index(48_444_850),
            last: Index(48_444_867),
            terms: vec![
                TermStart { term: Term(7), first: Index(47_020_000) },
                TermStart { term: Term(8), first: Index(48_000_000) },
            ],
            faulty: 2,
            storage_full: false,
            halted_at: Some(Index(48_444_831)),
            doing: Some(Doing::Snapshot { part: Some(250) }),
            campaign: Some(Campaign {
                phase: Phase::PreVote,
                granted: vec![NodeId(1)],
                denied: vec![NodeId(2), NodeId(3)],
            }),
            sync: Some(SyncTimes {
                recent: Duration::from_micros(612),
                usual: Duration::from_micros(600),
                is_slow: true,
            }),
            stages: Some(stages()),
            waiting: 12,
            links: [2, 3]
                .map(|peer| LinkReport {
                    peer: NodeId(peer),
                    is_up: peer == 2,
                    round_trip: Some(Duration::from_micros(400)),
                    replication: Some(ReplicationReport {
                        matched: Index(48_444_850),
                        next: Index(48_444_868),
                        silent: ms(40),
                        snapshot_part: (peer == 3).then_some(999),
                        acknowledged: Some(stages().total),
                    }),
                })
                .to_vec(),
            members: Members {
                voters: vec![NodeId(1), NodeId(2), NodeId(3)],
                learners: vec![NodeId(4)],
                witness: Some(NodeId(3)),
                addresses: (1..=4).map(|id| (NodeId(id), format!("10.0.0.{id}:7001"))).collect(),
                metadata: Arc::new([(NodeId(1), metadata())].into()),
                index: Index(1),
                is_settled: true,
            },
            timing: ReportedTiming { heartbeat: ms(500), election: (ms(2_000), ms(4_000)) },
            events: EventsReport::default(),
        }
    }
}
