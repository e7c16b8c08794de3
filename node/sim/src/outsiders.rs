//! Messages from outside a node's configuration: from a node that was removed, or from an id that
//! never was a member. Each makes the claims that would do the most harm if they were believed.
//!
//! One kind is left out, because no rule can tell it from a message of a member that was added
//! while the receiver was away: forged entries and snapshots, sent while the receiver hears no
//! leader. They are sent while it hears one. Answers to the claims made here must not count
//! where they arrive, for a node of that id may exist: so campaigns, epochs and rounds are such
//! as no node has.

use quorate_raft::{
    Append, AppendOutcome, AppendReply, Batch, BatchBuilder, Body, Checksum, Emptied, EntryId, ForwardedCommand,
    Heartbeat, HeartbeatReply, Index, Kind, Membership, Message, NodeId, Phase, Promise, Propose, Reads, Removed,
    Repair, RequestVote, Snapshot, SnapshotBase, SnapshotChunk, Term, TimeoutNow, Vote,
};
use rand::{Rng, rngs::SmallRng};

/// The last term that is not refused as malformed.
const LAST_TERM: Term = Term(u64::MAX / 2 - 1);
const FAR: Index = Index(1 << 40);

/// State of the node that will receive the message.
pub(crate) struct Receiver {
    pub(crate) term: Term,
    pub(crate) last: EntryId,
    /// Whether it certainly hears a leader.
    pub(crate) is_led: bool,
}

/// Draws a message that a node outside may send.
pub(crate) fn message(random: &mut SmallRng, receiver: &Receiver, checksum: Checksum) -> Message {
    let Receiver { term, last, is_led } = *receiver;
    let far = |rise: u64| Term(term.0.saturating_add(rise).min(LAST_TERM.0));
    let claimed = [
        Term(term.0.saturating_sub(1)),
        term,
        term,
        term.next(),
        term.next(),
        far(2),
        far(1_000),
        far(1_001),
        far(1 << 40),
        LAST_TERM,
    ];
    let claimed = claimed[random.random_range(0..claimed.len())];
    let request = |phase, by_transfer| {
        let last = EntryId::new(LAST_TERM, FAR);
        Body::RequestVote(RequestVote { phase, campaign: u64::MAX, last, by_transfer, machine_version: 0 })
    };
    let append = |batch: Option<Batch>| {
        let commit = Index(u64::MAX);
        Body::Append(Append { epoch: u64::MAX, previous: last, previous_checksum: None, commit, batch })
    };
    let body = match random.random_range(0..if is_led { 15 } else { 13 }) {
        0 | 1 => request(Phase::Vote, true),
        2 => request(Phase::Vote, false),
        3 => request(Phase::PreVote, true),
        4 | 5 => Body::Heartbeat(Heartbeat { round: Reads::NO_ROUND, commit: Index(u64::MAX) }),
        6 => append(None),
        7 => Body::TimeoutNow(TimeoutNow { last }),
        8 => Body::Removed(Removed { at: FAR }),
        9 => Body::Emptied(Emptied { known_at: FAR }),
        10 => Body::Vote(Vote { phase: Phase::Vote, campaign: random.random_range(0..50), denial: None }),
        11 => {
            let outcomes = [AppendOutcome::Matched { matched: last.index }, AppendOutcome::Diverged { at: last }];
            Body::AppendReply(AppendReply { epoch: 1, outcome: outcomes[random.random_range(0..2)] })
        }
        12 if random.random_bool(0.5) => Body::Repair(Repair { from: last, to: last.index }),
        12 => Body::HeartbeatReply(HeartbeatReply { round: random.random_range(0..1_000), promise: Promise::NONE }),
        13 => {
            let mut forged = BatchBuilder::new(checksum, last.term, last.index.next(), 0xbad, 64);
            forged.push(Kind::Command, b"forged");
            append(forged.finish())
        }
        _ => {
            let membership = Membership::of_voters([NodeId(u64::MAX)]);
            let base =
                SnapshotBase { last: EntryId::new(term, FAR), last_checksum: 1, membership, membership_index: FAR };
            let snapshot = Snapshot { base, bytes: 6, checksum: 1 };
            Body::SnapshotChunk(SnapshotChunk {
                epoch: u64::MAX,
                snapshot: snapshot.into(),
                offset: 0,
                bytes: "forged".into(),
            })
        }
    };
    // An answer to a pre-vote repeats the term that was asked about, and may reach a real node with
    // the sender's id.
    let is_pre_vote = matches!(&body, Body::RequestVote(request) if request.phase == Phase::PreVote);
    Message { term: if is_pre_vote { claimed.min(far(1_000)) } else { claimed }, body }
}

/// A forwarded command that no client proposed: it must not be applied.
pub(crate) fn command(random: &mut SmallRng, term: Term) -> Message {
    let (request, payload) = (random.random(), bytes::Bytes::from_static(b"forged"));
    let (length, kind, waits_ms) = (payload.len() as u32, Kind::Command, 1_000);
    let commands = vec![ForwardedCommand { request, length, kind, waits_ms }];
    Message { term, body: Body::Propose(Propose { commands, payloads: payload }) }
}
