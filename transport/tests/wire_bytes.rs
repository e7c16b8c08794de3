//! The bytes of every message and hello on the wire: version 6 of the frames.
//!
//! Every table has a line for each field: its bytes in hexadecimal, and its name. A table covers
//! the metadata of a frame; integers above a byte are varints (LEB128). Each enum ends with the
//! first number that has no meaning, so a new variant fails here until its bytes are stated.
//!
//! A test that fails here means that nodes of this release can't talk to nodes of the last one:
//! restore the order, or raise `Version::CURRENT`.

use bytes::Bytes;
use quorate_raft::{
    Administer, AdministerOutcome, Administered, Administration, Append, AppendOutcome, AppendReply, BatchBuilder,
    Body, Change, ChangeRefused, ClusterId, Denial, Emptied, EntryId, ForwardedCommand, ForwardedOutcome, Heartbeat,
    HeartbeatReply, Holdings, Index, Kind, Member, MemberDescription, MemberKind, MemberMetadata, Membership, Message,
    MetadataFlaw, MetadataUpdate, NodeId, Observe, Phase, Promise, Propose, ProposeOutcome, ProposeReply, ReadIndex,
    ReadIndexReply, Removed, Repair, RepairOutcome, RepairReply, Report, RequestVote, Skip, Snapshot, SnapshotBase,
    SnapshotChunk, SnapshotOutcome, SnapshotReply, Term, TimeoutNow, TransferRefused, Vote, Wanted,
};
use quorate_transport::{
    codec::{Decoder, Encoded, Encoder, Frame, FrameError, HEADER_BYTES, Hello, Limits, Version},
    network::Introduction,
};

// Frames.

#[test]
fn a_frame_without_a_body() {
    let message = Message { term: Term(3), body: Body::Heartbeat(Heartbeat { round: 1, commit: Index(2) }) };
    is_frame(
        &Frame::Message(message),
        "51 52 54 45 | magic: QRTE
         06          | version
         02          | kind: message
         00 00       | flags
         00 00 00 00 | group
         04 00 00 00 | metadata length
         00 00 00 00 | body length
         d4 27 ca 80 | checksum of bytes 0..20 and the metadata
         03          | term
         04          | Heartbeat
         01          | round
         02          | commit",
    );
}

#[test]
fn a_frame_whose_body_is_log_records_leaves_the_body_to_their_checksums() {
    let append =
        Append { epoch: 5, previous: at(2, 6), previous_checksum: None, commit: Index(1), batch: Some(records()) };
    is_frame(
        &Frame::Message(Message { term: Term(3), body: Body::Append(append) }),
        "51 52 54 45 | magic: QRTE
         06          | version
         02          | kind: message
         00 00       | flags
         00 00 00 00 | group
         07 00 00 00 | metadata length
         2a 00 00 00 | body length
         35 74 b6 51 | checksum of bytes 0..20 and the metadata
         03          | term
         02          | Append
         05          | epoch
         02 06       | previous: term and index
         00          | previous_checksum: None
         01          | commit
         02 00 00 00 | the record's payload length
         00 00 00 00 | its group
         03 00 00 00 00 00 00 00 | its term
         07 00 00 00 00 00 00 00 | its index
         01          | its kind: command
         00 00 00    | zero
         09 00 00 00 | checksum of the previous record
         3e de 21 8d | checksum of the record's header
         61 62       | its payload
         92 7a 9c 29 | the record's checksum",
    );
}

#[test]
fn a_frame_with_another_body_covers_it_with_its_own_checksum() {
    let chunk = SnapshotChunk { epoch: 9, snapshot: Box::default(), offset: 4, bytes: Bytes::from_static(b"ab") };
    is_frame(
        &Frame::Message(Message { term: Term(3), body: Body::SnapshotChunk(chunk) }),
        "51 52 54 45 | magic: QRTE
         06          | version
         02          | kind: message
         01 00       | flags: the checksum covers the body
         00 00 00 00 | group
         12 00 00 00 | metadata length
         02 00 00 00 | body length
         60 9b af 8f | checksum of bytes 0..20, the metadata and the body
         03          | term
         0a          | SnapshotChunk
         09          | epoch
         00 00       | base.last
         00          | base.last_checksum
         00 00 00 00 00 00 00 00 | base.membership
         00          | base.membership_index
         00          | bytes
         00          | checksum
         04          | offset
         61 62       | the bytes",
    );
}

#[test]
fn a_frame_with_a_hello() {
    let introduction = Introduction { incarnation: 1, ..Introduction::default() };
    let hello = Hello { cluster: "demo".into(), node: NodeId(1), protocol_min: 2, protocol_max: 2, introduction };
    is_frame(
        &Frame::Hello(hello),
        "51 52 54 45 | magic: QRTE
         02          | version, the one of hellos
         01          | kind: hello
         00 00       | flags
         00 00 00 00 | group
         0d 00 00 00 | metadata length
         00 00 00 00 | body length
         0e 04 be 55 | checksum of bytes 0..20 and the metadata
         04 64 65 6d 6f | cluster: its length, then UTF-8
         01          | node
         02          | protocol_min
         02          | protocol_max
         00          | introduction.machine_version
         01          | introduction.incarnation
         00          | introduction.cluster_id: None
         00          | introduction.skips: none
         00          | introduction.settings: none",
    );
}

#[test]
fn a_hello_with_everything_in_it() {
    let introduction = Introduction {
        machine_version: 300,
        incarnation: u64::MAX,
        cluster_id: Some(ClusterId(u128::MAX)),
        skips: vec![Skip { index: Index(7), term: Term(3), checksum: u32::MAX }],
        settings: [("b".into(), "2".into()), ("a".into(), "1s".into())].into(),
    };
    let hello = Hello { cluster: "c".into(), node: NodeId(300), protocol_min: 1, protocol_max: 255, introduction };
    is_metadata(
        &Frame::Hello(hello),
        "01 63 | cluster
         ac 02 | node
         01    | protocol_min: a byte
         ff    | protocol_max: a byte
         ac 02 | introduction.machine_version
         ff ff ff ff ff ff ff ff ff 01 | introduction.incarnation
         01    | introduction.cluster_id: Some
         ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff 03 | the id
         01    | introduction.skips: one
         07    | its index
         03    | its term
         ff ff ff ff 0f | its checksum
         02    | introduction.settings: two, by name
         01 61 | the name
         02 31 73 | its value
         01 62 | the name
         01 32 | its value",
    );
}

#[test]
fn a_message_of_a_number_without_meaning_is_refused() {
    is_message(
        Body::Report(Report { of: NodeId(1), age_ms: 0, bytes: Bytes::new() }),
        "15 | Report, the last one
         01 | of
         00 | age_ms",
    );
    is_refused("16 | no message");
}

// Elections.

#[test]
fn request_vote() {
    is_message(
        Body::RequestVote(RequestVote {
            phase: Phase::PreVote,
            campaign: 300,
            last: at(2, 70_000),
            by_transfer: false,
            machine_version: 4,
        }),
        "00       | RequestVote
         00       | phase: PreVote
         ac 02    | campaign
         02       | last.term
         f0 a2 04 | last.index
         00       | by_transfer
         04       | machine_version",
    );
    is_message(
        Body::RequestVote(RequestVote {
            phase: Phase::Vote,
            campaign: 7,
            last: at(2, 6),
            by_transfer: true,
            machine_version: u32::MAX,
        }),
        "00    | RequestVote
         01    | phase: Vote
         07    | campaign
         02 06 | last
         01    | by_transfer
         ff ff ff ff 0f | machine_version",
    );
    is_refused("00 02 | no phase");
}

#[test]
fn vote() {
    is_message(
        Body::Vote(Vote { phase: Phase::PreVote, campaign: 7, denial: None }),
        "01 | Vote
         00 | phase: PreVote
         07 | campaign
         00 | granted",
    );
    is_message(
        Body::Vote(Vote { phase: Phase::Vote, campaign: 8, denial: Some(Denial::LostData) }),
        "01 | Vote
         01 | phase: Vote
         08 | campaign
         01 | denied
         05 | LostData",
    );
    let (leader, candidate) = (Some(NodeId(7)), NodeId(300));
    for (denial, bytes) in [
        (Denial::HearsLeader { leader }, "00 01 07 | leader"),
        (Denial::HearsLeader { leader: None }, "00 00 | leader"),
        (Denial::LogBehind { last: at(2, 6) }, "01 02 06 | last"),
        (Denial::VotedFor { candidate }, "02 ac 02 | candidate"),
        (Denial::OldTerm { term: Term(9) }, "03 09 | term"),
        (Denial::MachineVersion { version: 3 }, "04 03 | version"),
        (Denial::LostData, "05 |"),
        (Denial::MayHaveLostData, "06 |"),
        (Denial::Removed, "07 |"),
        (Denial::CanLeadInstead, "08 |"),
    ] {
        let vote = Vote { phase: Phase::PreVote, campaign: 7, denial: Some(denial) };
        is_message(Body::Vote(vote), &format!("01 00 07 01 | Vote\n{bytes}"));
    }
    is_refused("01 00 07 02 | neither granted nor denied");
    is_refused("01 00 07 01 09 | no denial");
}

#[test]
fn timeout_now() {
    is_message(
        Body::TimeoutNow(TimeoutNow { last: at(2, 6) }),
        "0f | TimeoutNow
         02 | last.term
         06 | last.index",
    );
}

// Replication.

#[test]
fn append() {
    is_message(
        Body::Append(Append {
            epoch: 5,
            previous: at(2, 6),
            previous_checksum: Some(300),
            commit: Index(4),
            batch: None,
        }),
        "02    | Append
         05    | epoch
         02    | previous.term
         06    | previous.index
         01    | previous_checksum: Some
         ac 02 | the checksum
         04    | commit",
    );
}

#[test]
fn append_reply() {
    is_message(
        Body::AppendReply(AppendReply { epoch: 5, outcome: AppendOutcome::Matched { matched: Index(9) } }),
        "03 | AppendReply
         05 | epoch
         00 | Matched
         09 | matched",
    );
    let rejected =
        AppendOutcome::Rejected { previous: Index(6), conflict: at(1, 2), last: Index(4), log_last: Index(5) };
    is_message(
        Body::AppendReply(AppendReply { epoch: 5, outcome: rejected }),
        "03 | AppendReply
         05 | epoch
         01 | Rejected
         06 | previous
         01 | conflict.term
         02 | conflict.index
         04 | last
         05 | log_last",
    );
    is_message(
        Body::AppendReply(AppendReply { epoch: 5, outcome: AppendOutcome::Diverged { at: at(1, 8) } }),
        "03 | AppendReply
         05 | epoch
         02 | Diverged
         01 | at.term
         08 | at.index",
    );
    is_message(
        Body::AppendReply(AppendReply { epoch: 5, outcome: AppendOutcome::NeedsSnapshot { from: Index(1) } }),
        "03 | AppendReply
         05 | epoch
         03 | NeedsSnapshot
         01 | from",
    );
    is_refused("03 05 04 | no outcome of an append");
}

#[test]
fn heartbeat() {
    is_message(
        Body::Heartbeat(Heartbeat { round: 300, commit: Index(4) }),
        "04    | Heartbeat
         ac 02 | round
         04    | commit",
    );
}

#[test]
fn heartbeat_reply() {
    is_message(
        Body::HeartbeatReply(HeartbeatReply { round: 1, promise: Promise(300) }),
        "05    | HeartbeatReply
         01    | round
         ac 02 | promise, in microseconds",
    );
}

// Clients' commands and reads.

#[test]
fn propose() {
    let command = |request, length, kind, waits_ms| ForwardedCommand { request, length, kind, waits_ms };
    let commands = vec![command(300, 1, Kind::Command, 5000), command(2, 10, Kind::Session, 0)];
    is_message(
        Body::Propose(Propose { commands, payloads: Bytes::from_static(b"a\0\0\0\0\0\0\0\0\0\0") }),
        "06    | Propose
         02    | two commands
         ac 02 | request
         01    | length
         01    | kind: Command
         88 27 | waits_ms
         02    | request
         0a    | length
         03    | kind: Session
         00    | waits_ms",
    );
    is_refused("06 01 01 00 07 00 | no kind");
}

#[test]
fn the_kinds_that_no_client_proposes_have_numbers_too() {
    for (number, kind) in
        [(0, Kind::Noop), (2, Kind::Membership), (4, Kind::Stub), (5, Kind::Tick), (6, Kind::Internal)]
    {
        let commands = vec![ForwardedCommand { request: 1, length: 0, kind, waits_ms: 0 }];
        let body = Body::Propose(Propose { commands, payloads: Bytes::new() });
        let encoded = Encoder::default().message(&Message { term: Term(3), body }).expect("it fits");
        assert_eq!(encoded.head[HEADER_BYTES..], [3, 6, 1, 1, 0, number, 0], "{kind:?}");
        assert!(matches!(decode(&joined(&encoded)), Err(FrameError::Body(_))), "{kind:?}");
    }
}

#[test]
fn propose_reply() {
    let outcomes = [
        ProposeOutcome::Applied { index: Index(300), reply_bytes: 2 },
        ProposeOutcome::NotLeader,
        ProposeOutcome::Overloaded,
        ProposeOutcome::Unknown,
        ProposeOutcome::SessionExpired,
        ProposeOutcome::StaleSerial,
        ProposeOutcome::DeadlinePassed,
        ProposeOutcome::TooLarge { max: 70_000 },
        ProposeOutcome::Skipped,
    ];
    let outcomes = (20..).zip(outcomes).map(|(request, outcome)| ForwardedOutcome { request, outcome }).collect();
    is_message(
        Body::ProposeReply(ProposeReply { outcomes, replies: Bytes::from_static(b"ok") }),
        "07             | ProposeReply
         09             | nine outcomes, each after its request
         14 00 ac 02 02 | Applied: index, reply_bytes
         15 01          | NotLeader
         16 02          | Overloaded
         17 03          | Unknown
         18 04          | SessionExpired
         19 05          | StaleSerial
         1a 06          | DeadlinePassed
         1b 07 f0 a2 04 | TooLarge: max
         1c 08          | Skipped",
    );
    is_refused("07 01 14 09 | no outcome of a proposal");
}

#[test]
fn read_index() {
    is_message(
        Body::ReadIndex(ReadIndex { request: 300, by_lease: true }),
        "08    | ReadIndex
         ac 02 | request
         01    | by_lease",
    );
}

#[test]
fn read_index_reply() {
    is_message(
        Body::ReadIndexReply(ReadIndexReply { request: 300, index: Some(Index(4)) }),
        "09    | ReadIndexReply
         ac 02 | request
         01    | index: Some
         04    | the index",
    );
    is_message(
        Body::ReadIndexReply(ReadIndexReply { request: 1, index: None }),
        "09 | ReadIndexReply
         01 | request
         00 | index: None",
    );
}

// Snapshots and repairs.

#[test]
fn snapshot_chunk() {
    let addresses = [(NodeId(1), "a:1".into()), (NodeId(2), "b".into()), (NodeId(4), String::new())];
    let membership = Membership::joint([NodeId(2), NodeId(1)], [NodeId(1), NodeId(5)])
        .with_learners([NodeId(4)])
        .with_addresses(addresses.into())
        .with_given_addresses([NodeId(2)])
        .with_witness(Some(NodeId(5)))
        .with_cluster_id(Some(ClusterId(300)))
        .with_descriptions([(NodeId(4), described())].into());
    let base = SnapshotBase { last: at(2, 6), last_checksum: 9, membership, membership_index: Index(3) };
    let snapshot = Snapshot { base, bytes: 70_000, checksum: 8 };
    is_message(
        Body::SnapshotChunk(SnapshotChunk {
            epoch: 5,
            snapshot: snapshot.into(),
            offset: 300,
            bytes: Bytes::from_static(b"state"),
        }),
        "0a       | SnapshotChunk
         05       | epoch
         02       | base.last.term
         06       | base.last.index
         09       | base.last_checksum
         02 01 02 | membership: two voters of the new half
         02 01 05 | two voters of the old half
         01 04    | one learner
         03       | three addresses
         01       | a node
         03 61 3a 31 | its address
         02       | a node
         01 62    | its address
         04       | a node
         00       | its address
         01 02    | one address was given by an operator
         01 05    | witness: Some
         01 ac 02 | cluster_id: Some
         01       | one description
         04       | of node
         01 08 68 74 74 70 3a 2f 2f 63 | client address: Some
         02       | two labels
         01 64    | key
         02 65 66 | value
         01 67    | key
         00       | value
         00       | published client address: None
         00       | no published label
         03       | base.membership_index
         f0 a2 04 | bytes of the whole snapshot
         08       | their checksum
         ac 02    | offset",
    );
}

#[test]
fn snapshot_reply() {
    is_message(
        Body::SnapshotReply(SnapshotReply {
            epoch: 5,
            last: at(2, 6),
            outcome: SnapshotOutcome::Received { bytes: 300 },
        }),
        "0b    | SnapshotReply
         05    | epoch
         02    | last.term
         06    | last.index
         00    | Received
         ac 02 | bytes",
    );
    is_message(
        Body::SnapshotReply(SnapshotReply {
            epoch: 5,
            last: at(2, 6),
            outcome: SnapshotOutcome::Installed { index: Index(7) },
        }),
        "0b    | SnapshotReply
         05    | epoch
         02 06 | last
         01    | Installed
         07    | index",
    );
    is_message(
        Body::SnapshotReply(SnapshotReply { epoch: 5, last: at(2, 6), outcome: SnapshotOutcome::Refused }),
        "0b    | SnapshotReply
         05    | epoch
         02 06 | last
         02    | Refused",
    );
    is_refused("0b 05 02 06 03 | no outcome of a snapshot");
}

#[test]
fn repair() {
    is_message(
        Body::Repair(Repair { from: at(3, 7), to: Index(9) }),
        "0c | Repair
         03 | from.term
         07 | from.index
         09 | to",
    );
}

#[test]
fn repair_reply() {
    is_message(
        Body::RepairReply(RepairReply { from: at(3, 7), outcome: RepairOutcome::Here, batch: Some(records()) }),
        "0d | RepairReply
         03 | from.term
         07 | from.index
         00 | Here",
    );
    for (number, outcome) in [(1, RepairOutcome::Absent), (2, RepairOutcome::Lost)] {
        is_message(
            Body::RepairReply(RepairReply { from: at(3, 7), outcome, batch: None }),
            &format!("0d 03 07 {number:02x} | {outcome:?}"),
        );
    }
    is_refused("0d 03 07 03 | no outcome of a repair");
}

// Members.

#[test]
fn emptied() {
    is_message(
        Body::Emptied(Emptied { known_at: Index(300) }),
        "0e    | Emptied
         ac 02 | known_at",
    );
}

#[test]
fn holdings() {
    is_message(
        Body::Holdings(Holdings { members: vec![(NodeId(1), Index(300)), (NodeId(2), Index(0))] }),
        "13    | Holdings
         02    | two members
         01    | the first
         ac 02 | its holding
         02    | the second
         00    | its holding",
    );
}

#[test]
fn observe() {
    let wanted = |node, incarnation, events_after| Wanted { node: NodeId(node), incarnation, events_after };
    is_message(
        Body::Observe(Observe {
            every_ms: 100,
            for_ms: 2000,
            wanted: vec![wanted(1, u64::MAX, 300), wanted(300, 0, 0)],
        }),
        "14    | Observe
         64    | every_ms
         d0 0f | for_ms
         02    | two nodes
         01    | node
         ff ff ff ff ff ff ff ff ff 01 | incarnation
         ac 02 | events_after
         ac 02 | node
         00    | incarnation
         00    | events_after",
    );
}

#[test]
fn a_report_is_the_body_of_its_frame() {
    let report = Report { of: NodeId(300), age_ms: 40, bytes: Bytes::from_static(b"ab") };
    is_frame(
        &Frame::Message(Message { term: Term(3), body: Body::Report(report) }),
        "51 52 54 45 | magic: QRTE
         06          | version
         02          | kind: message
         01 00       | flags: the checksum covers the body
         00 00 00 00 | group
         05 00 00 00 | metadata length
         02 00 00 00 | body length
         40 ca 8b a3 | checksum of bytes 0..20, the metadata and the body
         03          | term
         15          | Report
         ac 02       | of
         28          | age_ms
         61 62       | the bytes",
    );
}

#[test]
fn removed() {
    is_message(
        Body::Removed(Removed { at: Index(300) }),
        "10    | Removed
         ac 02 | at",
    );
}

#[test]
fn administer_with_a_leadership_transfer() {
    is_message(
        Body::Administer(Administer { request: 300, what: Administration::TransferLeadership(Some(NodeId(2))) }),
        "11    | Administer
         ac 02 | request
         01    | TransferLeadership
         01    | Some
         02    | the node",
    );
    is_message(
        Body::Administer(Administer { request: 1, what: Administration::TransferLeadership(None) }),
        "11 | Administer
         01 | request
         01 | TransferLeadership
         00 | None: the best",
    );
    is_refused("11 01 02 | nothing an operator wants");
}

#[test]
fn administer_with_a_change() {
    let voters = [Member::from((NodeId(1), "a:1")), Member::from(NodeId(2))];
    is_change(
        Change::set_voters(voters),
        "01    | one step
         00    | To
         02    | two members
         01    | id
         01    | address: Some
         03 61 3a 31 | the address
         02    | id
         00    | address: None
         00    | expected: Any",
    );
    is_change(
        Change::add(NodeId(4), "b").and(Change::add_witness(NodeId(5), "c")),
        "02    | two steps
         01    | Add
         04    | id
         01 01 62 | address
         02    | AddWitness
         05    | id
         01 01 63 | address
         00    | expected: Any",
    );
    let moved = Change::move_to(NodeId(2), "d");
    is_change(
        Change::promote(NodeId(4)).and(Change::remove(NodeId(1))).and(moved).expecting(Index(300)),
        "03    | three steps
         03    | Promote
         04    | id
         04    | Remove
         01    | id
         05    | Move
         02    | id
         01 64 | address
         01    | expected: Exactly
         ac 02 | the index",
    );
    is_change(
        Change::replace(NodeId(3), NodeId(4)),
        "03    | three steps
         04 03 | Remove
         01 04 | Add
         00    | address: None
         03 04 | Promote
         00    | expected: Any",
    );
    let update = MetadataUpdate::default().with_client_address(None).with_label("d", "ef").without_label("g");
    is_change(
        Change::describe(NodeId(4), update),
        "01    | one step
         06    | Describe
         04    | id
         01 00 | client address: Some(None)
         02    | two labels
         01 64 | key
         01 02 65 66 | value: Some
         01 67 | key
         00    | value: None
         00    | expected: Any",
    );
    is_change(
        Change::publish(NodeId(4), described().metadata),
        "01    | one step
         07    | Publish
         04    | id
         01 08 68 74 74 70 3a 2f 2f 63 | client address: Some
         02    | two labels
         01 64 02 65 66 | key, value
         01 67 00       | key, value
         00    | expected: Any",
    );
    is_refused("11 01 00 01 08 | no step");
    is_refused("11 01 00 01 07 04 01 01 63 00 | no client address");
    is_refused("11 01 00 01 07 04 00 01 01 44 00 | no key of a label");
    is_refused("11 01 00 01 07 04 00 01 01 64 01 0a | no value of a label");
    is_refused("11 01 00 00 02 | no expectation");
}

/// A client address, two labels, and nothing published.
fn described() -> MemberDescription {
    let labels = [("d".into(), "ef".into()), ("g".into(), String::new())].into();
    let metadata = MemberMetadata::new(Some("http://c".into()), labels).expect("within bounds");
    MemberDescription { metadata, ..MemberDescription::default() }
}

#[test]
fn a_change_that_the_leader_resumes_is_its_own_and_is_not_sent() {
    let what = Administration::Change(Change::promote(NodeId(4)).resumed());
    let message = Message { term: Term(3), body: Body::Administer(Administer { request: 1, what }) };
    assert_eq!(Encoder::default().message(&message).expect_err("it has no form"), FrameError::Metadata);
}

#[test]
fn administered() {
    is_administered(
        AdministerOutcome::Changed(Index(300)),
        "00    | Changed
         ac 02 | the index",
    );
    is_administered(
        AdministerOutcome::Transferred(NodeId(2)),
        "02 | Transferred
         02 | the node",
    );
    is_administered(AdministerOutcome::Unknown, "04 | Unknown");
    is_refused("12 01 05 | no outcome of an operator's request");
}

#[test]
fn refusals_of_a_change() {
    let id = NodeId(2);
    let bad_metadata = |flaw| ChangeRefused::BadMetadata { id, flaw };
    let member = |kind, address: Option<&str>| ChangeRefused::Member { id, kind, address: address.map(Into::into) };
    for (refused, bytes) in [
        (ChangeRefused::NotLeader, "00 |"),
        (ChangeRefused::NotReady, "01 |"),
        (ChangeRefused::Pending { index: Index(7) }, "02 07 | index"),
        (ChangeRefused::Moved { expected: Index(7), found: Index(8) }, "03 07 08 | expected, found"),
        (ChangeRefused::TransferInProgress, "04 |"),
        (ChangeRefused::Unknown { id }, "05 02 | id"),
        (ChangeRefused::BadAddress { id }, "06 02 | id"),
        (member(MemberKind::Voter, None), "07 02 00 00 | id, kind, address"),
        (member(MemberKind::Learner, Some("a")), "07 02 01 01 01 61 | id, kind, address"),
        (member(MemberKind::WitnessVoter, None), "07 02 02 00 | id, kind, address"),
        (member(MemberKind::WitnessLearner, None), "07 02 03 00 | id, kind, address"),
        (ChangeRefused::AddressTaken { id, by: NodeId(3) }, "08 02 03 | id, by"),
        (ChangeRefused::Twice { id }, "09 02 | id"),
        (ChangeRefused::Demotes { id }, "0a 02 | id"),
        (ChangeRefused::NoVoters, "0b |"),
        (ChangeRefused::TooMany, "0c |"),
        (ChangeRefused::WitnessTaken { id }, "0d 02 | id"),
        (ChangeRefused::NotWitness { id }, "0e 02 | id"),
        (ChangeRefused::TooFewFull, "0f |"),
        (ChangeRefused::Behind { id, entries: 300 }, "10 02 ac 02 | id, entries"),
        (bad_metadata(MetadataFlaw::ClientAddress { address: "a".into() }), "11 02 00 01 61 | id, flaw, address"),
        (bad_metadata(MetadataFlaw::Key { key: "a".into() }), "11 02 01 01 61 | id, flaw, key"),
        (bad_metadata(MetadataFlaw::Value { key: "a".into() }), "11 02 02 01 61 | id, flaw, key"),
        (bad_metadata(MetadataFlaw::TooManyLabels), "11 02 03 | id, flaw"),
        (bad_metadata(MetadataFlaw::Total), "11 02 04 | id, flaw"),
    ] {
        is_administered(AdministerOutcome::ChangeRefused(refused), &format!("01 | ChangeRefused\n{bytes}"));
    }
    is_refused("12 01 01 12 | no refusal of a change");
    is_refused("12 01 01 11 02 05 | no bound of metadata");
    is_refused("12 01 01 07 02 04 | no kind");
}

#[test]
fn refusals_of_a_leadership_transfer() {
    let (to, id) = (NodeId(2), NodeId(2));
    for (refused, bytes) in [
        (TransferRefused::NotLeader, "00 |"),
        (TransferRefused::Pending { to }, "01 02 | to"),
        (TransferRefused::NotVoter { id }, "02 02 | id"),
        (TransferRefused::Witness { id }, "03 02 | id"),
        (TransferRefused::Unreachable, "04 |"),
        (TransferRefused::GivenUp { to }, "05 02 | to"),
    ] {
        is_administered(AdministerOutcome::TransferRefused(refused), &format!("03 | TransferRefused\n{bytes}"));
    }
    is_refused("12 01 03 06 | no refusal of a transfer");
}

/// The change, asked for in request 1, has these bytes.
fn is_change(change: Change, table: &str) {
    let what = Administration::Change(change);
    is_message(
        Body::Administer(Administer { request: 1, what }),
        &format!("11 | Administer\n01 | request\n00 | Change\n{table}"),
    );
}

/// The outcome, of request 1, has these bytes.
fn is_administered(outcome: AdministerOutcome, table: &str) {
    is_message(
        Body::Administered(Administered { request: 1, outcome }),
        &format!("12 | Administered\n01 | request\n{table}"),
    );
}

/// The body, in a message of term 3, has these bytes in a frame's metadata.
fn is_message(body: Body, table: &str) {
    is_metadata(&Frame::Message(Message { term: Term(3), body }), &format!("03 | term\n{table}"));
}

/// The frame's metadata has these bytes, and is read from them.
fn is_metadata(frame: &Frame, table: &str) {
    let encoded = encode(frame);
    assert_eq!(hex(&encoded.head[HEADER_BYTES..]), hex(&bytes(table)), "{frame:?}, expected:\n{table}");
    assert_eq!(decode(&joined(&encoded)).as_ref(), Ok(frame));
}

/// The whole frame has these bytes, and is read from them.
fn is_frame(frame: &Frame, table: &str) {
    let wire = joined(&encode(frame));
    assert_eq!(hex(&wire), hex(&bytes(table)), "{frame:?}, expected:\n{table}");
    assert_eq!(decode(&bytes(table)).as_ref(), Ok(frame));
}

/// A message of term 3 that begins with these bytes can't be read. Zeros follow them: a number that
/// has a meaning would be read, and leave some.
fn is_refused(table: &str) {
    let metadata = [&[3], &bytes(table)[..], &[0; 60]].concat();
    let mut wire = [b"QRTE".as_slice(), &[Version::CURRENT.number(), 2, 0, 0, 0, 0, 0, 0]].concat();
    wire.extend(u32::to_le_bytes(metadata.len() as u32));
    wire.extend([0; 4]);
    wire.extend(crc32c::crc32c_append(crc32c::crc32c(&wire), &metadata).to_le_bytes());
    wire.extend(metadata);
    assert_eq!(decode(&wire), Err(FrameError::Metadata), "{table}");
}

fn encode(frame: &Frame) -> Encoded {
    let encoded = match frame {
        Frame::Hello(hello) => Encoder::default().hello(hello),
        Frame::Message(message) => Encoder::default().message(message),
    };
    encoded.expect("it fits")
}

fn decode(wire: &[u8]) -> Result<Frame, FrameError> {
    let decoded = Decoder::new(Limits::default()).feed(&mut Bytes::copy_from_slice(wire))?;
    Ok(decoded.expect("it is whole").frame)
}

fn joined(encoded: &Encoded) -> Vec<u8> {
    [&encoded.head[..], &encoded.body].concat()
}

/// The bytes of a table: those before the bar of each line.
fn bytes(table: &str) -> Vec<u8> {
    let digits = table.lines().flat_map(|line| line.split_once('|').expect("a bar").0.split_whitespace());
    digits.map(|byte| u8::from_str_radix(byte, 16).expect("two digits")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

fn at(term: u64, index: u64) -> EntryId {
    EntryId::new(Term(term), Index(index))
}

/// A batch of one command, "ab", at 7@3.
fn records() -> quorate_raft::Batch {
    let mut builder = BatchBuilder::new(crc32c::crc32c_append, Term(3), Index(7), 9, 0);
    builder.push(Kind::Command, b"ab");
    builder.finish().expect("an entry")
}
