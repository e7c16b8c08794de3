//! Small builders: ids, messages, batches and logs.

use super::disk::{Disk, Fault};
use quorate_raft::{
    Append, AppendOutcome, AppendReply, Ballot, Batch, BatchBuilder, Body, Effect, EntryId, HardState, Heartbeat,
    HeartbeatReply, Index, Kind, Membership, Message, Moment, NodeId, Outgoing, Phase, Promise, Repair, RepairOutcome,
    Replica, RequestVote, Settings, Snapshot, SnapshotBase, SnapshotChunk, SnapshotOutcome, Term, Violation, Vote,
};
use std::time::Duration;

/// CRC-32C, continued: what nodes use.
pub fn crc(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}

/// A node.
pub fn node(id: u64) -> NodeId {
    NodeId(id)
}

/// An entry.
pub fn id(index: u64, term: u64) -> EntryId {
    EntryId::new(Term(term), Index(index))
}

/// So many milliseconds after a node started.
pub fn at(milliseconds: u64) -> Moment {
    Moment(Duration::from_millis(milliseconds))
}

/// The default settings.
pub fn settings() -> Settings {
    Settings::new(crc)
}

/// A cluster of nodes 1 to `nodes`.
pub fn voters(nodes: u64) -> Membership {
    Membership::of_voters((1..=nodes).map(NodeId))
}

/// A batch of `count` commands of `term` from `first` on, behind a record with checksum `previous`.
pub fn batch(term: u64, first: u64, count: u64, previous: u32) -> Batch {
    let mut builder = BatchBuilder::new(crc, Term(term), Index(first), previous, 0);
    for index in first..first + count {
        builder.push(Kind::Command, format!("{term}:{index}").as_bytes());
    }
    builder.finish().expect("at least one entry")
}

/// A log with an entry of each of these terms, as one batch a run of equal terms. Logs that begin with the same terms
/// begin with the same bytes.
pub fn log_of(terms: &[u64]) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let (mut first, mut rest) = (1, terms);
    while let Some(term) = rest.first() {
        let count = rest.iter().take_while(|other| *other == term).count();
        let previous = batches.last().map_or(0, Batch::checksum);
        batches.push(batch(*term, first, count as u64, previous));
        (first, rest) = (first + count as u64, &rest[count..]);
    }
    batches
}

/// A disk with such a log, and the promise of the default settings on it.
pub fn disk_of(term: u64, vote: Option<u64>, terms: &[u64]) -> Disk {
    let hard_state = HardState { term: Term(term), vote: vote.map(NodeId), promise: settings().promise() };
    let mut disk = Disk::with(hard_state);
    log_of(terms).iter().for_each(|batch| disk.append(batch));
    disk
}

/// A replica that recovered such a log, of a cluster of `nodes`.
pub fn replica(id: u64, nodes: u64, term: u64, vote: Option<u64>, terms: &[u64]) -> Replica {
    Replica::new(NodeId(id), voters(nodes), disk_of(term, vote, terms).recover(), settings())
}

/// Node 1 of three in term 5, with such a log, of which it lost these entries, provably durable once.
pub fn faulty_replica(terms: &[u64], lost: &[u64]) -> Replica {
    let mut disk = disk_of(5, None, terms);
    lost.iter().for_each(|index| disk.lose(Index(*index), Fault::Proven));
    Replica::new(NodeId(1), voters(3), disk.recover(), settings())
}

/// A batch of one entry that changes the membership.
pub fn changing(term: u64, index: u64, previous: u32, membership: &Membership) -> Batch {
    let mut builder = BatchBuilder::new(crc, Term(term), Index(index), previous, 0);
    builder.push(Kind::Membership, &membership.encode());
    builder.finish().expect("an entry")
}

/// Asks for lost entries.
pub fn repair(from: EntryId, to: u64) -> Body {
    Body::Repair(Repair { from, to: Index(to) })
}

/// What is said of a lost entry.
pub fn repair_reply(said: &[&Outgoing]) -> Option<RepairOutcome> {
    said.iter().find_map(|outgoing| match &outgoing.message.body {
        Body::RepairReply(reply) => Some(reply.outcome),
        _ => None,
    })
}

/// What `replica` does when it hears `body` from `from` in `term`.
pub fn hear(replica: &mut Replica, now: Moment, from: u64, term: u64, body: Body) -> Vec<Effect> {
    let mut out = Vec::new();
    replica.receive(now, NodeId(from), Message { term: Term(term), body }, &mut out);
    out
}

/// Asks for a vote.
pub fn request_vote(phase: Phase, campaign: u64, last: EntryId) -> Body {
    Body::RequestVote(RequestVote { phase, campaign, last, handed_over: false, machine_version: 0 })
}

/// Answers that.
pub fn vote(phase: Phase, campaign: u64, granted: bool) -> Body {
    Body::Vote(Vote { phase, campaign, granted })
}

/// Entries, or a probe.
pub fn append(epoch: u64, previous: EntryId, commit: u64, batch: Option<Batch>) -> Body {
    let previous_checksum = batch.as_ref().map(Batch::previous_checksum);
    Body::Append(Append { epoch, previous, previous_checksum, commit: Index(commit), batch })
}

/// Answers those.
pub fn matched(epoch: u64, matched: u64) -> Body {
    Body::AppendReply(AppendReply { epoch, outcome: AppendOutcome::Matched { matched: Index(matched) } })
}

/// A snapshot of 3 bytes that ends at this entry, in a cluster of three.
pub fn snapshot_of(index: u64, term: u64) -> Snapshot {
    let (last, membership) = (id(index, term), voters(3));
    let base = SnapshotBase { last, last_checksum: 0xabcd, membership, membership_index: Index(0) };
    Snapshot { base, bytes: 3, checksum: 7 }
}

/// A piece of a snapshot.
pub fn snapshot_chunk(epoch: u64, snapshot: &Snapshot, offset: u64, bytes: &'static [u8]) -> Body {
    let chunk = SnapshotChunk { epoch, snapshot: snapshot.clone().into(), offset, bytes: bytes.into() };
    Body::SnapshotChunk(chunk)
}

/// What is said of a snapshot.
pub fn snapshot_reply(said: &[&Outgoing]) -> Option<SnapshotOutcome> {
    said.iter().find_map(|outgoing| match &outgoing.message.body {
        Body::SnapshotReply(reply) => Some(reply.outcome),
        _ => None,
    })
}

/// A heartbeat.
pub fn heartbeat(round: u64, commit: u64) -> Body {
    Body::Heartbeat(Heartbeat { round, commit: Index(commit) })
}

/// Answers it, with the promise of the default settings.
pub fn heartbeat_reply(round: u64) -> Body {
    promising(round, settings().promise())
}

/// Answers it, with this promise.
pub fn promising(round: u64, promise: Promise) -> Body {
    Body::HeartbeatReply(HeartbeatReply { round, promise })
}

/// What leaves at once.
pub fn sent(effects: &[Effect]) -> Vec<&Outgoing> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Send(outgoing) = effect { Some(outgoing) } else { None })
        .collect()
}

/// What leaves once it is durable.
pub fn promised(effects: &[Effect]) -> Vec<&Outgoing> {
    persists(effects).into_iter().flat_map(|persist| &persist.then).collect()
}

/// What is to be made durable.
pub fn persists(effects: &[Effect]) -> Vec<&quorate_raft::Persist> {
    let mut persists = Vec::new();
    for effect in effects {
        if let Effect::Persist(persist) = effect {
            persists.push(persist);
        }
    }
    persists
}

/// The terms of a replica's log from its first entry on.
pub fn terms(replica: &Replica) -> Vec<u64> {
    let log = replica.log();
    let indexes = log.first().0..=log.last().index.0;
    indexes.map(|index| log.term_of(Index(index)).expect("inside the log").0).collect()
}

/// `replica` times out and wins its pre-vote, the second one if it is new; its vote for itself is durable. Gives the ballot of its
/// campaign.
pub fn stand(replica: &mut Replica, now: Moment) -> Ballot {
    let mut out = Vec::new();
    for _ in 0..=u8::from(replica.is_new()) {
        replica.election_timeout(now, replica.term(), &mut out);
        if let Some(Ballot { phase: Phase::PreVote, term, campaign, .. }) = opened(&out) {
            replica.election_won(now, term, campaign, &mut out);
        }
    }
    let campaign = opened(&out).expect("a campaign");
    let written = persists(&out).last().expect("a vote for itself").sequence;
    replica.persisted(at(0), written, &mut Vec::new());
    campaign
}

/// `replica` campaigns and wins. Gives what it does then.
pub fn lead(replica: &mut Replica, now: Moment) -> Vec<Effect> {
    let campaign = stand(replica, now);
    let mut out = Vec::new();
    replica.election_won(now, campaign.term, campaign.campaign, &mut out);
    out
}

/// The ballot that was opened last.
pub fn opened(effects: &[Effect]) -> Option<Ballot> {
    let mut opened = None;
    for effect in effects {
        if let Effect::OpenBallot(ballot) = effect {
            opened = Some(ballot.clone());
        }
    }
    opened
}

/// Everything that `effects` asks to be made durable is.
pub fn persist_all(replica: &mut Replica, effects: &[Effect]) -> Vec<Effect> {
    let mut out = Vec::new();
    if let Some(last) = persists(effects).last() {
        replica.persisted(at(0), last.sequence, &mut out);
    }
    out
}

/// The answer to an append, and whether it waits for the disk.
pub fn append_reply(effects: &[Effect]) -> Option<AppendOutcome> {
    sent(effects).into_iter().chain(promised(effects)).find_map(|outgoing| match &outgoing.message.body {
        Body::AppendReply(reply) => Some(reply.outcome),
        _ => None,
    })
}

/// The answer to a request for a vote, and the term that it carries.
pub fn vote_reply(effects: &[Effect]) -> Option<(Term, bool)> {
    sent(effects).into_iter().chain(promised(effects)).find_map(|outgoing| match &outgoing.message.body {
        Body::Vote(vote) => Some((outgoing.message.term, vote.granted)),
        _ => None,
    })
}

/// Why the node stops, if it does.
pub fn halted(effects: &[Effect]) -> Option<Violation> {
    effects.iter().find_map(|effect| if let Effect::Halt(violation) = effect { Some(*violation) } else { None })
}
