//! Frames: what goes in comes out, in whatever pieces it travels, and nothing else does.

use bytes::Bytes;
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};
use quorate_raft::{
    Administer, AdministerOutcome, Administered, Administration, Append, AppendOutcome, AppendReply, Batch,
    BatchBuilder, Body, Change, ClusterId, Denial, Emptied, EntryId, ForwardedCommand, ForwardedOutcome, Heartbeat,
    HeartbeatReply, Holdings, Index, Kind, MemberDescription, MemberMetadata, Membership, Message, NodeId, Observe,
    Phase, Promise, Propose, ProposeOutcome, ProposeReply, ReadIndex, ReadIndexReply, Removed, Repair, RepairOutcome,
    RepairReply, Report, RequestVote, Snapshot, SnapshotBase, SnapshotChunk, SnapshotOutcome, SnapshotReply, Term,
    TimeoutNow, Vote, Wanted,
    session::{Request, SessionKey},
};
use quorate_transport::codec::{Decoder, Encoded, Encoder, Frame, FrameError, HEADER_BYTES, Hello, Limits, Version};
use quorate_transport::network::Introduction;
use std::collections::BTreeMap;

/// The version in the headers of this release's frames; a hello's header has that of its form.
const SPOKEN: u8 = Version::CURRENT.number();

proptest! {
    #[test]
    fn encoded_frames_are_decoded_in_pieces_of_any_size(
        messages in vec(message(), 1..6),
        version in prop_oneof![Just(Version::CURRENT), Just(Version::NEXT)],
        cuts in vec(1usize..300, 1..40),
    ) {
        let mut wire = Vec::new();
        for message in &messages {
            let Encoded { head, body } = Encoder::default().speaking(version).message(message).unwrap();
            prop_assert_eq!(head[4], version.number());
            wire.extend_from_slice(&head);
            wire.extend_from_slice(&body);
        }
        let (decoded, decoder) = decode_in(version, &wire, &cuts);
        let expected: Vec<_> = messages.into_iter().map(Frame::Message).collect();
        prop_assert_eq!(decoded.unwrap(), expected);
        prop_assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn arbitrary_bytes_never_panic(wire in vec(any::<u8>(), 0..600), cuts in vec(1usize..100, 1..10)) {
        let _ = decode(&wire, &cuts);
    }

    #[test]
    fn arbitrary_metadata_and_bodies_behind_a_valid_header_never_panic(
        kind in 1u8..3,
        flags in 0u8..2,
        metadata in vec(any::<u8>(), 0..200),
        body in vec(any::<u8>(), 0..300),
        cuts in vec(1usize..100, 1..10),
    ) {
        let wire = sealed(kind, flags, &metadata, &body);
        let _ = decode(&wire, &cuts);
    }

    #[test]
    fn no_single_damaged_bit_gets_through(message in message(), bit in any::<prop::sample::Index>()) {
        let Encoded { head, body } = Encoder::default().message(&message).unwrap();
        let mut wire = [head, body].concat();
        let bit = bit.index(wire.len() * 8);
        wire[bit / 8] ^= 1 << (bit % 8);
        let (decoded, decoder) = decode(&wire, &[usize::MAX]);
        // A longer length leaves the frame unfinished; anything else is an error.
        prop_assert!(decoded.is_err() || decoder.finish() == Err(FrameError::Truncated));
    }

    #[test]
    fn a_hello_survives(
        cluster in "[a-z0-9-]{1,63}",
        node: u64,
        incarnation: u64,
        machine_version: u32,
        id: Option<u128>,
        value in ".{0,40}",
    ) {
        let (cluster_id, settings) = (id.map(ClusterId), [("name".to_owned(), value)].into());
        let introduction = Introduction { machine_version, incarnation, cluster_id, settings, ..Introduction::default() };
        let hello = Hello { cluster, node: NodeId(node), protocol_min: 1, protocol_max: 3, introduction };
        let frame = Encoder::default().hello(&hello).unwrap();
        prop_assert_eq!(decode(&frame.head, &[7]).0.unwrap(), vec![Frame::Hello(hello)]);
    }
}

#[test]
fn a_bulk_is_sent_without_a_copy() {
    let message = batch(1, vec![vec![7; 5000]]);
    let bulk = message.bulk();
    assert_eq!(Encoder::default().message(&message).unwrap().body.as_ptr(), bulk.as_ptr());
}

#[test]
fn bytes_of_a_snapshot_and_a_repair_are_sent_without_a_copy() {
    let chunk = SnapshotChunk { epoch: 1, snapshot: Box::default(), offset: 9, bytes: vec![7; 5000].into() };
    let (from, outcome) = (EntryId::new(Term(3), Index(1)), RepairOutcome::Here);
    let repaired = RepairReply { from, outcome, batch: records(1, &[vec![7; 5000]]) };
    for body in [Body::SnapshotChunk(chunk), Body::RepairReply(repaired)] {
        let message = Message { term: Term(3), body };
        let bulk = message.bulk();
        assert!(bulk.len() >= 5000);
        assert_eq!(Encoder::default().message(&message).unwrap().body.as_ptr(), bulk.as_ptr());
    }
}

#[test]
fn a_repair_with_a_body_that_is_no_batch_is_refused() {
    let (from, outcome) = (EntryId::new(Term(3), Index(1)), RepairOutcome::Here);
    let reply = RepairReply { from, outcome, batch: None };
    let message = Message { term: Term(3), body: Body::RepairReply(reply) };
    let metadata = Encoder::default().message(&message).unwrap().head[HEADER_BYTES..].to_vec();
    let (decoded, _) = decode(&sealed(2, 1, &metadata, &[7; 100]), &[usize::MAX]);
    assert!(matches!(decoded, Err(FrameError::Body(_))), "{decoded:?}");
}

#[test]
fn a_report_above_its_bound_is_refused() {
    let of_bytes = |bytes| Message {
        term: Term(0),
        body: Body::Report(Report { of: NodeId(1), age_ms: 0, bytes: vec![7; bytes].into() }),
    };
    let sent = |message| {
        let frame = Encoder::default().message(&message).expect("within the frame's limits");
        decode(&[frame.head, frame.body].concat(), &[usize::MAX]).0
    };
    let longest = of_bytes(Report::BYTES_MAX);
    assert_eq!(sent(longest.clone()).expect("within its bound"), [Frame::Message(longest)]);
    assert!(matches!(sent(of_bytes(Report::BYTES_MAX + 1)), Err(FrameError::Body(_))));
}

#[test]
fn a_command_that_no_client_may_propose_is_refused() {
    let of = |kind, payloads| {
        let command = ForwardedCommand { request: 1, length: 10, kind, waits_ms: 5000 };
        let propose = Propose { commands: vec![command], payloads };
        let message = Message { term: Term(1), body: Body::Propose(propose) };
        let encoded = Encoder::default().message(&message).expect("it fits");
        let wire: Vec<u8> = [encoded.head, encoded.body].concat();
        decode(&wire, &[usize::MAX]).0.map(|frames| frames.len())
    };
    let (opens, garbage) = (Request::Open.encode(), Bytes::from_static(b"ten bytes."));
    assert_eq!((of(Kind::Command, garbage.clone()), of(Kind::Session, opens)), (Ok(1), Ok(1)));
    let claim = Bytes::from_static(&[2, 3, 4, 1, 5, 1, 5, 0, 0, 0]);
    assert_eq!(of(Kind::Internal, claim), Ok(1), "a node's own");
    for kind in [Kind::Session, Kind::Noop, Kind::Membership, Kind::Tick, Kind::Internal] {
        assert!(matches!(of(kind, garbage.clone()), Err(FrameError::Body(_))), "{kind:?}");
    }
}

#[test]
fn a_membership_from_the_wire_is_in_order_whatever_order_it_came_in() {
    let base = SnapshotBase { membership: Membership::joint([NodeId(1), NodeId(5)], []), ..SnapshotBase::default() };
    let snapshot = Snapshot { base, ..Snapshot::default() };
    let chunk = SnapshotChunk { epoch: 1, snapshot: snapshot.into(), offset: 0, bytes: Bytes::new() };
    let message = Message { term: Term(3), body: Body::SnapshotChunk(chunk) };
    let metadata = Encoder::default().message(&message).unwrap().head[HEADER_BYTES..].to_vec();
    // Of two voters without addresses: their count, the voters, and three counts of nothing.
    let at = metadata.windows(6).position(|lists| lists == [2, 1, 5, 0, 0, 0]).expect("the membership");
    for (voters, learners, wanted) in [
        (vec![2, 5, 1], vec![0], Membership::of_voters([NodeId(1), NodeId(5)])),
        (vec![2, 5, 5], vec![0], Membership::of_voters([NodeId(5)])),
        (vec![2, 1, 5], vec![2, 5, 2], Membership::of_voters([NodeId(1), NodeId(5)]).with_learners([NodeId(2)])),
    ] {
        let lists = [voters, vec![0], learners, vec![0]].concat();
        let mut metadata = metadata.clone();
        metadata.splice(at..at + 6, lists);
        let (decoded, _) = decode(&sealed(2, 0, &metadata, &[]), &[usize::MAX]);
        let Some(Frame::Message(Message { body: Body::SnapshotChunk(chunk), .. })) = decoded.unwrap().pop() else {
            panic!("it was a piece of a snapshot")
        };
        assert_eq!(chunk.snapshot.base.membership, wanted);
    }
}

#[test]
fn a_membership_from_the_wire_has_addresses_of_members_alone() {
    let membership = Membership::of_addresses([(NodeId(1), "a".into()), (NodeId(5), "b".into())]);
    let base = SnapshotBase { membership, ..SnapshotBase::default() };
    let snapshot = Snapshot { base, ..Snapshot::default() };
    let chunk = SnapshotChunk { epoch: 1, snapshot: snapshot.into(), offset: 0, bytes: Bytes::new() };
    let message = Message { term: Term(3), body: Body::SnapshotChunk(chunk) };
    let mut metadata = Encoder::default().message(&message).unwrap().head[HEADER_BYTES..].to_vec();
    let at = metadata.windows(7).position(|map| map == [2, 1, 1, b'a', 5, 1, b'b']).expect("the addresses");
    // Node 6 instead of node 5, and its address as one that an operator gave.
    metadata[at + 4] = 6;
    metadata.splice(at + 7..at + 8, [1, 6]);
    let (decoded, _) = decode(&sealed(2, 0, &metadata, &[]), &[usize::MAX]);
    let Some(Frame::Message(Message { body: Body::SnapshotChunk(chunk), .. })) = decoded.unwrap().pop() else {
        panic!("it was a piece of a snapshot")
    };
    let members = Membership::of_voters([NodeId(1), NodeId(5)]);
    assert_eq!(chunk.snapshot.base.membership, members.with_addresses([(NodeId(1), "a".into())].into()));
}

#[test]
fn metadata_from_the_wire_is_of_members_alone_and_within_its_bounds() {
    let metadata = MemberMetadata::new(Some("http://b".into()), [("a".into(), "1".into())].into()).unwrap();
    let described = MemberDescription { metadata, ..MemberDescription::default() };
    let membership = Membership::of_voters([NodeId(1), NodeId(5)]).with_descriptions([(NodeId(5), described)].into());
    let base = SnapshotBase { membership, ..SnapshotBase::default() };
    let snapshot = Snapshot { base, ..Snapshot::default() };
    let chunk = SnapshotChunk { epoch: 1, snapshot: snapshot.into(), offset: 0, bytes: Bytes::new() };
    let message = Message { term: Term(3), body: Body::SnapshotChunk(chunk) };
    let metadata = Encoder::default().message(&message).unwrap().head[HEADER_BYTES..].to_vec();
    let at = metadata.windows(5).position(|map| map == [1, 5, 1, 8, b'h']).expect("the description");
    let with = |from: usize, byte: u8| {
        let mut metadata = metadata.clone();
        metadata[at + from] = byte;
        decode(&sealed(2, 0, &metadata, &[]), &[usize::MAX]).0
    };
    let Some(Frame::Message(Message { body: Body::SnapshotChunk(chunk), .. })) = with(1, 6).unwrap().pop() else {
        panic!("it was a piece of a snapshot")
    };
    assert_eq!(chunk.snapshot.base.membership, Membership::of_voters([NodeId(1), NodeId(5)]));
    for (from, byte) in [(4, b'f'), (11, b'/'), (14, b'A'), (16, b'\n')] {
        assert_eq!(with(from, byte), Err(FrameError::Metadata), "byte {from}");
    }
}

#[test]
fn a_body_that_lies_whole_in_a_piece_is_sliced_out_of_it() {
    let frame = Encoder::default().message(&batch(1, vec![vec![7; 5000]])).unwrap();
    let wire = Bytes::from([frame.head.clone(), frame.body.clone()].concat());
    let body_at = wire[frame.head.len()..].as_ptr();
    let decoded = Decoder::new(Limits::default()).feed(&mut wire.clone()).unwrap().unwrap();
    let Frame::Message(message) = decoded.frame else { panic!("it was a message") };
    assert_eq!(message.bulk().as_ptr(), body_at);
    assert_eq!(decoded.bytes, wire.len());
}

#[test]
fn a_small_body_does_not_keep_a_large_piece_alive() {
    let frame = Encoder::default().message(&batch(1, vec![vec![7; 10]])).unwrap();
    let wire = Bytes::from([&frame.head[..], &frame.body[..], &[0; 10_000]].concat());
    let body_at = wire[frame.head.len()..].as_ptr();
    let decoded = Decoder::new(Limits::default()).feed(&mut wire.clone()).unwrap().unwrap();
    let Frame::Message(message) = decoded.frame else { panic!("it was a message") };
    assert_ne!(message.bulk().as_ptr(), body_at);
}

#[test]
fn refusals_name_what_is_refused() {
    let header = |at: usize, value: u8| {
        let mut wire = sealed(2, 0, &[1, 2, 3], &[]);
        wire[at] = value;
        decode(&wire, &[usize::MAX]).0.unwrap_err()
    };
    assert!(matches!(header(0, 0), FrameError::Magic(_)));
    assert_eq!(header(4, 9), FrameError::Version { found: 9, spoken: SPOKEN });
    assert_eq!(header(5, 77), FrameError::Kind(77));
    assert_eq!(header(6, 2), FrameError::Flags(2));
    assert_eq!(header(8, 5), FrameError::Group(5));
    assert_eq!(header(15, 255), FrameError::TooLong { part: "metadata", bytes: 0xff00_0003, bytes_max: 1 << 20 });
    assert_eq!(header(19, 255), FrameError::TooLong { part: "body", bytes: 0xff00_0000, bytes_max: 32 << 20 });
    assert_eq!(header(20, header_checksum_other()), FrameError::Checksum);
    assert!(header(4, 9).to_string().contains("version 9") && header(5, 77).to_string().contains("kind 77"));
}

#[test]
fn a_message_of_another_version_than_was_agreed_upon_is_refused() {
    let heartbeat = || Message { term: Term(3), body: Body::Heartbeat(Heartbeat { round: 1, commit: Index(2) }) };
    for (spoken, other) in [(Version::CURRENT, Version::NEXT), (Version::NEXT, Version::CURRENT)] {
        let mut head = Encoder::default().speaking(other).message(&heartbeat()).unwrap().head.to_vec();
        let refused = FrameError::Version { found: other.number(), spoken: spoken.number() };
        assert_eq!(decode_in(spoken, &head, &[7]).0, Err(refused));
        // Even with the right number in its header, for the form differs.
        head[4] = spoken.number();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[..20]), &head[HEADER_BYTES..]);
        head[20..24].copy_from_slice(&checksum.to_le_bytes());
        let error = decode_in(spoken, &head, &[usize::MAX]).0.expect_err("it is of another form");
        assert!(matches!(error, FrameError::Metadata | FrameError::Trailing(2, "metadata")), "{error:?}");
    }
    for version in [0, 1, 7, 128, 255] {
        let mut wire = sealed(2, 0, &[1, 2, 3], &[]);
        wire[4] = version;
        assert_eq!(decode(&wire, &[5]).0, Err(FrameError::Version { found: version, spoken: SPOKEN }));
        wire[5] = 1;
        let refused = FrameError::HelloForm { found: version, spoken: Version::OF_HELLO.number() };
        assert_eq!(decode(&wire, &[5]).0, Err(refused), "nor a hello");
    }
}

#[test]
fn a_hello_has_one_form_whatever_is_spoken() {
    let hello = sealed(1, 0, &hello_metadata(), &[]);
    for version in [Version::CURRENT, Version::NEXT] {
        let frames = decode_in(version, &hello, &[3]).0.expect("it is read");
        let [Frame::Hello(read)] = &frames[..] else { panic!("it was a hello: {frames:?}") };
        assert_eq!(Encoder::default().speaking(version).hello(read).unwrap().head, hello);
    }
}

#[test]
fn a_hello_is_bounded_whatever_messages_may_be() {
    let long = Hello {
        cluster: "c".repeat(Hello::BYTES_MAX),
        node: NodeId(1),
        protocol_min: SPOKEN,
        protocol_max: SPOKEN,
        introduction: Introduction::default(),
    };
    assert!(matches!(Encoder::default().hello(&long), Err(FrameError::TooLong { part: "metadata", .. })));
    let wire = sealed(1, 0, &vec![0; Hello::BYTES_MAX + 1], &[]);
    let refused = FrameError::TooLong { part: "metadata", bytes: Hello::BYTES_MAX + 1, bytes_max: Hello::BYTES_MAX };
    assert_eq!(decode(&wire[..HEADER_BYTES], &[7]).0, Err(refused), "by its header alone");
}

#[test]
fn bytes_that_trail_are_refused() {
    let head = Encoder::default().message(&batch(1, vec![])).unwrap().head;
    let metadata = [&head[HEADER_BYTES..], &[0]].concat();
    assert_eq!(decode(&sealed(2, 0, &metadata, &[]), &[usize::MAX]).0, Err(FrameError::Trailing(1, "metadata")));
    let hello = hello_metadata();
    assert_eq!(decode(&sealed(1, 0, &hello, &[1, 2]), &[usize::MAX]).0, Err(FrameError::Trailing(2, "hello")));
}

#[test]
fn a_decoder_that_failed_stays_failed() {
    let mut decoder = Decoder::new(Limits::default());
    assert!(decoder.feed(&mut Bytes::from_static(&[7; 24])).is_err());
    let good = Encoder::default().message(&batch(1, vec![])).unwrap().head;
    assert!(decoder.feed(&mut good.clone()).is_err());
}

#[test]
fn a_message_that_exceeds_the_limits_is_not_even_sent() {
    let limits = Limits { metadata_bytes_max: 100, body_bytes_max: 100 };
    let error = Encoder::new(limits).message(&batch(1, vec![vec![0; 100]])).unwrap_err();
    assert_eq!(error, FrameError::TooLong { part: "body", bytes: 140, bytes_max: 100 });
}

/// Decodes `wire` in pieces as long as `cuts` say, over and over.
fn decode(wire: &[u8], cuts: &[usize]) -> (Result<Vec<Frame>, FrameError>, Decoder) {
    decode_in(Version::CURRENT, wire, cuts)
}

fn decode_in(version: Version, wire: &[u8], cuts: &[usize]) -> (Result<Vec<Frame>, FrameError>, Decoder) {
    let (mut decoder, mut frames, mut wire) =
        (Decoder::new(Limits::default()), Vec::new(), Bytes::copy_from_slice(wire));
    decoder.expect(version);
    for cut in cuts.iter().cycle() {
        if wire.is_empty() {
            break;
        }
        let mut piece = wire.split_to((*cut).min(wire.len()));
        loop {
            match decoder.feed(&mut piece) {
                Ok(Some(decoded)) => frames.push(decoded.frame),
                Ok(None) => break,
                Err(error) => return (Err(error), decoder),
            }
        }
        assert!(piece.is_empty(), "a piece is used up");
    }
    (Ok(frames), decoder)
}

/// A frame with a valid header and checksum around any content.
fn sealed(kind: u8, flags: u8, metadata: &[u8], body: &[u8]) -> Vec<u8> {
    let mut wire = Vec::from(*b"QRTE");
    let version = if kind == 1 { Version::OF_HELLO.number() } else { SPOKEN };
    wire.extend([version, kind, flags, 0, 0, 0, 0, 0]);
    wire.extend(u32::to_le_bytes(metadata.len() as u32));
    wire.extend(u32::to_le_bytes(body.len() as u32));
    let mut checksum = crc32c::crc32c_append(crc32c::crc32c(&wire), metadata);
    if flags & 1 != 0 {
        checksum = crc32c::crc32c_append(checksum, body);
    }
    wire.extend(checksum.to_le_bytes());
    wire.extend_from_slice(metadata);
    wire.extend_from_slice(body);
    wire
}

/// Some value of the checksum's first byte that is not the right one.
fn header_checksum_other() -> u8 {
    !sealed(2, 0, &[1, 2, 3], &[])[20]
}

fn hello_metadata() -> Vec<u8> {
    let (protocol_min, protocol_max) = (1, 1);
    let introduction = Introduction { incarnation: 1, ..Introduction::default() };
    let hello = Hello { cluster: "c".into(), node: NodeId(1), protocol_min, protocol_max, introduction };
    Encoder::default().hello(&hello).unwrap().head[HEADER_BYTES..].to_vec()
}

fn batch(first: u64, payloads: Vec<Vec<u8>>) -> Message {
    let previous = EntryId::new(Term(2), Index(first - 1));
    let batch = records(first, &payloads);
    let append = Append { epoch: 5, previous, previous_checksum: None, commit: Index(1), batch };
    Message { term: Term(3), body: Body::Append(append) }
}

fn records(first: u64, payloads: &[Vec<u8>]) -> Option<Batch> {
    let mut builder = BatchBuilder::new(crc32c::crc32c_append, Term(3), Index(first), 9, 0);
    for payload in payloads {
        builder.push(Kind::Command, payload);
    }
    builder.finish()
}

fn message() -> impl Strategy<Value = Message> {
    let id = || (any::<u64>(), any::<u64>()).prop_map(|(term, index)| EntryId::new(Term(term), Index(index)));
    let phase = || prop_oneof![Just(Phase::PreVote), Just(Phase::Vote)];
    let denial = || {
        prop_oneof![
            any::<Option<u64>>().prop_map(|leader| Denial::HearsLeader { leader: leader.map(NodeId) }),
            id().prop_map(|last| Denial::LogBehind { last }),
            any::<u64>().prop_map(|candidate| Denial::VotedFor { candidate: NodeId(candidate) }),
            any::<u64>().prop_map(|term| Denial::OldTerm { term: Term(term) }),
            any::<u32>().prop_map(|version| Denial::MachineVersion { version }),
            Just(Denial::CanLeadInstead),
        ]
    };
    let bytes = |longest| vec(any::<u8>(), 0..longest);
    let outcome = prop_oneof![
        any::<u64>().prop_map(|matched| AppendOutcome::Matched { matched: Index(matched) }),
        (any::<u64>(), id(), any::<u64>()).prop_map(|(previous, conflict, last)| AppendOutcome::Rejected {
            previous: Index(previous),
            conflict,
            last: Index(last),
            log_last: Index(last ^ 0xff)
        }),
        id().prop_map(|at| AppendOutcome::Diverged { at }),
        any::<u64>().prop_map(|from| AppendOutcome::NeedsSnapshot { from: Index(from) }),
    ];
    let received = prop_oneof![
        any::<u64>().prop_map(|bytes| SnapshotOutcome::Received { bytes }),
        any::<u64>().prop_map(|index| SnapshotOutcome::Installed { index: Index(index) }),
        Just(SnapshotOutcome::Refused),
    ];
    let ids = || vec(any::<u64>().prop_map(NodeId), 0..6);
    let metadata = || {
        let labels = btree_map("[a-z0-9._-]{1,63}", "[ -~]{0,255}", 0..=16);
        (option::of("https?://[a-z0-9-]{1,40}(:[1-9][0-9]{0,3})?"), labels)
            .prop_map(|(address, labels)| MemberMetadata::new(address, labels).expect("within bounds"))
    };
    let membership = prop_oneof![
        (ids(), ids(), ids())
            .prop_map(|(incoming, outgoing, learners)| Membership::joint(incoming, outgoing).with_learners(learners)),
        vec((any::<u64>().prop_map(NodeId), "[a-z0-9.:-]{0,40}"), 0..6).prop_map(Membership::of_addresses),
        vec((any::<u64>().prop_map(NodeId), metadata(), metadata()), 0..6).prop_map(|members| {
            let described = |(id, metadata, published)| (id, MemberDescription { metadata, published });
            let descriptions: BTreeMap<_, _> = members.into_iter().map(described).collect();
            Membership::of_voters(descriptions.keys().copied()).with_descriptions(descriptions)
        }),
    ];
    let snapshot = (id(), any::<u32>(), membership, any::<u64>(), any::<u32>()).prop_map(
        |(last, last_checksum, membership, bytes, checksum)| Snapshot {
            base: SnapshotBase { last, last_checksum, membership, membership_index: last.index },
            bytes,
            checksum,
        },
    );
    let body = prop_oneof![
        (phase(), any::<u64>(), id()).prop_map(|(phase, campaign, last)| Body::RequestVote(RequestVote {
            phase,
            campaign,
            last,
            by_transfer: campaign % 2 == 1,
            machine_version: campaign as u32,
        })),
        (phase(), any::<u64>(), proptest::option::of(denial()))
            .prop_map(|(phase, campaign, denial)| Body::Vote(Vote { phase, campaign, denial })),
        (1..u64::MAX / 2, vec(bytes(400), 0..5)).prop_map(|(first, payloads)| batch(first, payloads).body),
        (any::<u64>(), outcome).prop_map(|(epoch, outcome)| Body::AppendReply(AppendReply { epoch, outcome })),
        (any::<u64>(), any::<u64>())
            .prop_map(|(round, commit)| Body::Heartbeat(Heartbeat { round, commit: Index(commit) })),
        (any::<u64>(), any::<u32>()).prop_map(|(round, promise)| {
            let promise = Promise(promise);
            Body::HeartbeatReply(HeartbeatReply { round, promise })
        }),
        vec((any::<u64>(), bytes(300), any::<Option<u64>>()), 0..5).prop_map(|commands| {
            let of = |(name, command, serial): (u64, Vec<u8>, Option<u64>)| match serial {
                None => (name, Kind::Command, command.into()),
                Some(serial) => {
                    let key = SessionKey::opened(Index(7));
                    (name, Kind::Session, Request::Command { key, serial, command: &command }.encode())
                }
            };
            let commands: Vec<(u64, Kind, Bytes)> = commands.into_iter().map(of).collect();
            Body::Propose(Propose {
                commands: commands
                    .iter()
                    .map(|(request, kind, command)| ForwardedCommand {
                        request: *request,
                        length: command.len() as u32,
                        kind: *kind,
                        waits_ms: *request as u32,
                    })
                    .collect(),
                payloads: commands.into_iter().flat_map(|(.., command)| command).collect(),
            })
        }),
        vec((any::<u64>(), any::<u64>(), bytes(300)), 0..5).prop_map(|outcomes| {
            let applied = |index: u64, reply: &[u8]| ProposeOutcome::Applied {
                index: Index(index),
                reply_bytes: reply.len() as u32,
            };
            Body::ProposeReply(ProposeReply {
                outcomes: outcomes
                    .iter()
                    .map(|(request, index, reply)| ForwardedOutcome {
                        request: *request,
                        outcome: applied(*index, reply),
                    })
                    .collect(),
                replies: outcomes.into_iter().flat_map(|(_, _, reply)| reply).collect(),
            })
        }),
        (any::<u64>(), any::<bool>()).prop_map(|(request, by_lease)| Body::ReadIndex(ReadIndex { request, by_lease })),
        (any::<u64>(), any::<Option<u64>>())
            .prop_map(|(request, index)| { Body::ReadIndexReply(ReadIndexReply { request, index: index.map(Index) }) }),
        (any::<u64>(), snapshot, any::<u64>(), bytes(2000)).prop_map(|(epoch, snapshot, offset, bytes)| {
            Body::SnapshotChunk(SnapshotChunk { epoch, snapshot: snapshot.into(), offset, bytes: bytes.into() })
        }),
        (any::<u64>(), id(), received).prop_map(|(epoch, last, outcome)| Body::SnapshotReply(SnapshotReply {
            epoch,
            last,
            outcome
        })),
        (id(), any::<u64>()).prop_map(|(from, to)| Body::Repair(Repair { from, to: Index(to) })),
        (id(), prop_oneof![Just(RepairOutcome::Absent), Just(RepairOutcome::Lost)])
            .prop_map(|(from, outcome)| Body::RepairReply(RepairReply { from, outcome, batch: None })),
        (1..u64::MAX / 2, vec(bytes(400), 1..5)).prop_map(|(first, payloads)| {
            let (from, outcome) = (EntryId::new(Term(3), Index(first)), RepairOutcome::Here);
            Body::RepairReply(RepairReply { from, outcome, batch: records(first, &payloads) })
        }),
        any::<u64>().prop_map(|known_at| Body::Emptied(Emptied { known_at: Index(known_at) })),
        vec(any::<(u64, u64)>(), 0..9).prop_map(|members| {
            let members = members.into_iter().map(|(member, index)| (NodeId(member), Index(index))).collect();
            Body::Holdings(Holdings { members })
        }),
        (any::<(u32, u32)>(), vec(any::<(u64, u64, u64)>(), 0..9)).prop_map(|((every_ms, for_ms), wanted)| {
            let wanted = wanted.into_iter();
            let wanted = wanted.map(|(node, incarnation, events_after)| Wanted {
                node: NodeId(node),
                incarnation,
                events_after,
            });
            Body::Observe(Observe { every_ms, for_ms, wanted: wanted.collect() })
        }),
        (any::<u64>(), any::<u32>(), bytes(2000)).prop_map(|(of, age_ms, bytes)| Body::Report(Report {
            of: NodeId(of),
            age_ms,
            bytes: bytes.into()
        })),
        id().prop_map(|last| Body::TimeoutNow(TimeoutNow { last })),
        any::<u64>().prop_map(|at| Body::Removed(Removed { at: Index(at) })),
        (any::<u64>(), any::<Option<u64>>()).prop_map(|(request, to)| {
            let change = Administration::Change(Change::add(NodeId(request), "[::1]:7001").expecting(Index(7)));
            let what = to.map_or(change, |to| Administration::TransferLeadership(Some(NodeId(to))));
            Body::Administer(Administer { request, what })
        }),
        (any::<u64>(), any::<u64>()).prop_map(|(request, index)| {
            let outcome = AdministerOutcome::Changed(Index(index));
            Body::Administered(Administered { request, outcome })
        }),
    ];
    (any::<u64>(), body).prop_map(|(term, body)| Message { term: Term(term), body })
}
