//! Properties of the codec that hold for any bytes.
//!
//! The tests of this package and the fuzz targets in `node/sim/fuzz` run the same functions.

use bytes::Bytes;
use quorate_raft::{
    Append, AppendOutcome, AppendReply, Batch, BatchBuilder, Body, ClusterId, Denial, Emptied, EntryId,
    ForwardedCommand, ForwardedOutcome, Heartbeat, HeartbeatReply, Holdings, Index, Kind, MemberDescription,
    MemberMetadata, Membership, Message, NodeId, Observe, Phase, Promise, Propose, ProposeOutcome, ProposeReply,
    ReadIndex, ReadIndexReply, Repair, RepairOutcome, RepairReply, Report, RequestVote, Snapshot, SnapshotBase,
    SnapshotChunk, SnapshotOutcome, SnapshotReply, Term, Vote, Wanted,
};
use quorate_transport::{
    codec::{Decoder, Encoded, Encoder, Frame, FrameError, HEADER_BYTES, Hello, Limits, Version},
    network::Introduction,
};

/// Small limits: a length that is not compared with them shows in memory use.
const LIMITS: Limits = Limits { metadata_bytes_max: 64 << 10, body_bytes_max: 1 << 20 };

/// Decodes frames from a stream that comes in pieces.
///
/// An input is a byte, as many lengths of pieces as its bits 2 to 5 say, and the wire. Bits 0 and 1
/// of the byte: 0, the wire is taken as it is; 1, the checksums of its frames are put right first;
/// else it is a kind, two bytes that say how long the metadata is, metadata and body, of one frame
/// that is well-formed around them.
///
/// # Panics
/// If one of these does not hold: no piece makes a difference; frames take exactly their bytes;
/// none exceeds the limits; and what was decoded encodes to a frame that decodes to an equal one,
/// and encodes to the same bytes again.
pub fn frames(input: &[u8]) {
    let Some((control, rest)) = input.split_first() else { return };
    let (cuts, wire) = rest.split_at((usize::from(control >> 2) % 16).min(rest.len()));
    let wire = match control % 4 {
        0 => wire.to_vec(),
        1 => sealed(wire.to_vec()),
        _ => framed(wire),
    };
    let whole = Decoding::of(&wire, &[]);
    assert_eq!(whole, Decoding::of(&wire, cuts), "it makes no difference in which pieces the bytes come");
    assert!(whole.taken <= wire.len());
    if whole.error.is_none() {
        assert_eq!(whole.is_within_frame, whole.taken < wire.len(), "what is no frame yet is waited for");
    }
    whole.frames.iter().for_each(keeps_its_value);
}

/// The result of decoding a stream.
#[derive(Debug, PartialEq)]
struct Decoding {
    frames: Vec<Frame>,
    /// The bytes that they took.
    taken: usize,
    error: Option<FrameError>,
    is_within_frame: bool,
}

impl Decoding {
    /// Decodes `wire` in pieces as long as `cuts` say and a byte more, over and over; in one if
    /// there are none.
    fn of(wire: &[u8], cuts: &[u8]) -> Self {
        let (mut decoder, mut wire) = (Decoder::new(LIMITS), Bytes::copy_from_slice(wire));
        let mut this = Self { frames: Vec::new(), taken: 0, error: None, is_within_frame: false };
        let mut lengths = cuts.iter().map(|cut| usize::from(*cut) + 1).cycle();
        while !wire.is_empty() && this.error.is_none() {
            let mut piece = wire.split_to(lengths.next().unwrap_or(usize::MAX).min(wire.len()));
            loop {
                match decoder.feed(&mut piece) {
                    Ok(Some(decoded)) => {
                        assert!(decoded.bytes <= HEADER_BYTES + LIMITS.metadata_bytes_max + LIMITS.body_bytes_max);
                        this.taken += decoded.bytes;
                        this.frames.push(decoded.frame);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        assert!(decoder.feed(&mut Bytes::from_static(b"Q")).is_err(), "there is no way on");
                        this.error = Some(error);
                        break;
                    }
                }
            }
            assert!(piece.is_empty() || this.error.is_some(), "a piece is used up");
        }
        this.is_within_frame = decoder.is_within_frame();
        assert_eq!(decoder.finish().is_err(), this.is_within_frame);
        this
    }
}

/// A decoded frame can be encoded again, to an equal one.
fn keeps_its_value(frame: &Frame) {
    let encoded = bytes_of(frame);
    let again = Decoding::of(&encoded, &[]);
    assert_eq!(again.frames, std::slice::from_ref(frame), "{:?}", again.error);
    assert_eq!(bytes_of(&again.frames[0]), encoded);
    let Frame::Message(message) = frame else { return };
    match &message.body {
        Body::SnapshotChunk(SnapshotChunk { snapshot, .. }) => {
            let membership = &snapshot.base.membership;
            assert_eq!(Membership::decode(&membership.encode()).as_ref(), Ok(membership), "its lists are in order");
        }
        Body::Append(Append { batch: Some(batch), .. }) | Body::RepairReply(RepairReply { batch: Some(batch), .. }) => {
            assert_eq!(Batch::parse(batch.bytes().clone(), crc32c::crc32c_append).as_ref(), Ok(batch));
        }
        _ => {}
    }
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let encoder = Encoder::new(LIMITS);
    let encoded = match frame {
        Frame::Hello(hello) => encoder.hello(hello),
        Frame::Message(message) => encoder.message(message),
    };
    let Encoded { head, body } = encoded.expect("what came within the limits goes within them");
    [head, body].concat()
}

/// Puts the checksums of whole frames right.
fn sealed(mut wire: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(header) = wire.get(at..at + HEADER_BYTES) {
        let u32_at =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (metadata, body, is_body_checked) = (u32_at(12), u32_at(16), header[6] & 1 == 1);
        let covered = HEADER_BYTES + metadata + if is_body_checked { body } else { 0 };
        let Some(frame) = wire.get_mut(at..at + covered) else { break };
        let sum = crc32c::crc32c_append(crc32c::crc32c(&frame[..20]), &frame[HEADER_BYTES..]);
        frame[20..24].copy_from_slice(&sum.to_le_bytes());
        at += HEADER_BYTES + metadata + body;
    }
    wire
}

/// A frame around metadata and a body.
fn framed(parts: &[u8]) -> Vec<u8> {
    let Some(([kind, low, high], rest)) = parts.split_first_chunk::<3>() else { return Vec::new() };
    let (metadata, body) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
    let mut wire = b"QRTE".to_vec();
    wire.push(Version::CURRENT.number());
    wire.extend([*kind, u8::from(!body.is_empty()), 0, 0, 0, 0, 0]);
    wire.extend((metadata.len() as u32).to_le_bytes());
    wire.extend((body.len() as u32).to_le_bytes());
    wire.extend([0; 4]);
    wire.extend([metadata, body].concat());
    sealed(wire)
}

/// Inputs from which a search for others starts: every kind of message, in some form or other.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let (phase, campaign, epoch, round, request) = (Phase::Vote, 7, 9, 11, 300);
    let at = |term, index| EntryId::new(Term(term), Index(index));
    let append = |batch| Append { epoch, previous: at(2, 6), previous_checksum: Some(1), commit: Index(5), batch };
    let applied = ProposeOutcome::Applied { index: Index(8), reply_bytes: 3 };
    let outcomes = [applied, ProposeOutcome::Overloaded, ProposeOutcome::StaleSerial];
    let outcomes = (1..).zip(outcomes).map(|(request, outcome)| ForwardedOutcome { request, outcome }).collect();
    let command = |request, length, kind, waits_ms| ForwardedCommand { request, length, kind, waits_ms };
    let rejected =
        AppendOutcome::Rejected { previous: Index(6), conflict: at(1, 2), last: Index(4), log_last: Index(5) };
    let repaired = RepairReply { from: at(3, 7), outcome: RepairOutcome::Here, batch: batch() };
    let absent = RepairReply { from: at(3, 7), outcome: RepairOutcome::Absent, batch: None };
    let streams = [
        vec![
            Body::RequestVote(RequestVote {
                phase: Phase::PreVote,
                campaign,
                last: at(2, 300),
                by_transfer: false,
                machine_version: 0,
            }),
            Body::Vote(Vote { phase, campaign, denial: None }),
            Body::Vote(Vote { phase, campaign, denial: Some(Denial::LogBehind { last: at(2, 300) }) }),
            Body::Heartbeat(Heartbeat { round, commit: Index(70_000) }),
            Body::HeartbeatReply(HeartbeatReply { round, promise: Promise(150_000) }),
            Body::Emptied(Emptied { known_at: Index(4) }),
            Body::Holdings(Holdings { members: vec![(NodeId(1), Index(70_000)), (NodeId(2), Index(0))] }),
        ],
        vec![
            Body::Append(append(batch())),
            Body::Append(append(None)),
            Body::AppendReply(AppendReply { epoch, outcome: AppendOutcome::Matched { matched: Index(9) } }),
            Body::AppendReply(AppendReply { epoch, outcome: rejected }),
            Body::AppendReply(AppendReply { epoch, outcome: AppendOutcome::Diverged { at: at(1, 1) } }),
            Body::AppendReply(AppendReply { epoch, outcome: AppendOutcome::NeedsSnapshot { from: Index(1) } }),
        ],
        vec![
            Body::Propose(Propose {
                commands: vec![
                    command(1, 2, Kind::Command, 5000),
                    command(9, 0, Kind::Command, 0),
                    command(3, 16, Kind::Session, 1),
                ],
                payloads: Bytes::from_static(b"ab\x02\x03\x07\0\0\0\0\0\0\0keyxyz"),
            }),
            Body::ProposeReply(ProposeReply { outcomes, replies: Bytes::from_static(b"abc") }),
            Body::ReadIndex(ReadIndex { request, by_lease: true }),
            Body::ReadIndexReply(ReadIndexReply { request, index: Some(Index(4)) }),
        ],
        vec![
            Body::SnapshotChunk(SnapshotChunk {
                epoch,
                snapshot: snapshot().into(),
                offset: 4096,
                bytes: Bytes::from_static(b"a piece of state"),
            }),
            Body::SnapshotReply(SnapshotReply {
                epoch,
                last: at(2, 6),
                outcome: SnapshotOutcome::Received { bytes: 9 },
            }),
            Body::SnapshotReply(SnapshotReply { epoch, last: at(2, 6), outcome: SnapshotOutcome::Refused }),
        ],
        vec![
            Body::Observe(Observe {
                every_ms: 100,
                for_ms: 2000,
                wanted: vec![Wanted { node: NodeId(1), incarnation: 300, events_after: 7 }],
            }),
            Body::Report(Report { of: NodeId(1), age_ms: 40, bytes: Bytes::from_static(b"a report") }),
        ],
        vec![
            Body::Repair(Repair { from: at(3, 7), to: Index(9) }),
            Body::RepairReply(repaired),
            Body::RepairReply(absent),
        ],
    ];
    let mut seeds = Vec::new();
    for stream in streams {
        let frames: Vec<Frame> =
            stream.into_iter().map(|body| Frame::Message(Message { term: Term(3), body })).collect();
        // The first one by its parts, all of them as they come.
        let first = bytes_of(&frames[0]);
        let metadata = u16::from_le_bytes([first[12], first[13]]).to_le_bytes();
        seeds.push([&[2, first[5]], &metadata[..], &first[HEADER_BYTES..]].concat());
        let (cuts, wire) = ([9, 0, 40], frames.iter().flat_map(bytes_of));
        seeds.push([1 | 3 << 2].into_iter().chain(cuts).chain(wire).collect());
    }
    let hello = Hello {
        cluster: "demo".into(),
        node: NodeId(1),
        protocol_min: 1,
        protocol_max: 1,
        introduction: Introduction {
            machine_version: 3,
            incarnation: u64::MAX,
            cluster_id: Some(ClusterId(u128::MAX / 3)),
            settings: [("election_timeout".into(), "150ms to 300ms".into())].into(),
            skips: Vec::new(),
        },
    };
    seeds.push([vec![0], bytes_of(&Frame::Hello(hello))].concat());
    seeds
}

fn batch() -> Option<Batch> {
    let mut builder = BatchBuilder::new(crc32c::crc32c_append, Term(3), Index(7), 1, 0);
    builder.push(Kind::Noop, &[]);
    builder.push(Kind::Command, b"a command");
    builder.push(Kind::Membership, &membership().encode());
    builder.finish()
}

fn snapshot() -> Snapshot {
    let last = EntryId::new(Term(2), Index(6));
    Snapshot {
        base: SnapshotBase { last, last_checksum: 1, membership: membership(), membership_index: Index(3) },
        bytes: 70_000,
        checksum: 5,
    }
}

fn membership() -> Membership {
    let addressed = Membership::of_addresses([(NodeId(1), "127.0.0.1:7001".into()), (NodeId(2), "[::1]:7002".into())]);
    let metadata = MemberMetadata::new(Some("https://[::1]:8001".into()), [("zone".into(), "a".into())].into());
    let metadata = metadata.expect("within bounds");
    let described = MemberDescription { published: metadata.clone(), metadata };
    addressed.with_learners([NodeId(4)]).with_descriptions([(NodeId(4), described)].into())
}
