//! Small builders of test data: ids, messages, batches and logs.

use super::disk::{Disk, Fault};
use quorate_raft::{
    Append, AppendOutcome, AppendReply, Ballot, Batch, BatchBuilder, Body, Denial, Effect, EntryId, HardState,
    Heartbeat, HeartbeatReply, Index, Kind, Membership, Message, Moment, NodeId, Outgoing, Phase, Promise, Repair,
    RepairOutcome, Replica, RequestVote, Settings, Snapshot, SnapshotBase, SnapshotChunk, SnapshotOutcome, Term,
    Violation, Vote,
};
use std::time::Duration;

/// The checksum function of nodes: CRC-32C, continued from `seed`.
pub fn crc(seed: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(seed, bytes)
}

/// The node with this id.
pub fn node(id: u64) -> NodeId {
    NodeId(id)
}

/// The entry with this index and term.
pub fn id(index: u64, term: u64) -> EntryId {
    EntryId::new(Term(term), Index(index))
}

/// The moment `milliseconds` after a node started.
pub fn at(milliseconds: u64) -> Moment {
    Moment(Duration::from_millis(milliseconds))
}

/// The default settings, with `crc` as checksum.
pub fn settings() -> Settings {
    Settings::new(crc)
}

/// A cluster of nodes 1 to `nodes`.
pub fn voters(nodes: u64) -> Membership {
    Membership::of_voters((1..=nodes).map(NodeId))
}

/// A batch of `count` commands of `term` from `first` on, after a record with checksum `previous`.
pub fn batch(term: u64, first: u64, count: u64, previous: u32) -> Batch {
    let mut builder = BatchBuilder::new(crc, Term(term), Index(first), previous, 0);
    for index in first..first + count {
        builder.push(Kind::Command, format!("{term}:{index}").as_bytes());
    }
    builder.finish().expect("at least one entry")
}

/// A log with one entry for each of these terms, and one batch for each run of equal terms. Logs
/// that begin with the same terms begin with the same bytes.
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

/// A disk with the log of these terms, and the promise of the default settings.
pub fn disk_of(term: u64, vote: Option<u64>, terms: &[u64]) -> Disk {
    let hard_state = HardState { term: Term(term), vote: vote.map(NodeId), promise: settings().promise() };
    let mut disk = Disk::with(hard_state);
    log_of(terms).iter().for_each(|batch| disk.append(batch));
    disk
}

/// A replica that recovered such a log, in a cluster of `nodes`.
pub fn replica(id: u64, nodes: u64, term: u64, vote: Option<u64>, terms: &[u64]) -> Replica {
    Replica::new(NodeId(id), voters(nodes), disk_of(term, vote, terms).recover(), settings())
}

/// Node 1 of three in term 5, with such a log. It lost the entries `lost`, which are proven
/// to have been durable.
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

/// A request for lost entries, from `from` up to index `to`.
pub fn repair(from: EntryId, to: u64) -> Body {
    Body::Repair(Repair { from, to: Index(to) })
}

/// The first answer about a lost entry in `said`.
pub fn repair_reply(said: &[&Outgoing]) -> Option<RepairOutcome> {
    said.iter().find_map(|outgoing| match &outgoing.message.body {
        Body::RepairReply(reply) => Some(reply.outcome),
        _ => None,
    })
}

/// The effects of `body` from node `from` in `term` on `replica`.
pub fn hear(replica: &mut Replica, now: Moment, from: u64, term: u64, body: Body) -> Vec<Effect> {
    let mut out = Vec::new();
    replica.receive(now, NodeId(from), Message { term: Term(term), body }, &mut out);
    out
}

/// A request for a vote, without leadership transfer, by a candidate of machine version 0.
pub fn request_vote(phase: Phase, campaign: u64, last: EntryId) -> Body {
    Body::RequestVote(RequestVote { phase, campaign, last, by_transfer: false, machine_version: 0 })
}

/// The answer to a request for a vote.
pub fn vote(phase: Phase, campaign: u64, granted: bool) -> Body {
    Body::Vote(Vote { phase, campaign, denial: (!granted).then_some(Denial::CanLeadInstead) })
}

/// An append of `batch`, or a probe if it is `None`.
pub fn append(epoch: u64, previous: EntryId, commit: u64, batch: Option<Batch>) -> Body {
    let previous_checksum = batch.as_ref().map(Batch::previous_checksum);
    Body::Append(Append { epoch, previous, previous_checksum, commit: Index(commit), batch })
}

/// The answer to an append that matches up to `matched`.
pub fn matched(epoch: u64, matched: u64) -> Body {
    Body::AppendReply(AppendReply { epoch, outcome: AppendOutcome::Matched { matched: Index(matched) } })
}

/// A snapshot of 3 bytes that ends at this entry, in a cluster of three.
pub fn snapshot_of(index: u64, term: u64) -> Snapshot {
    let (last, membership) = (id(index, term), voters(3));
    let base = SnapshotBase { last, last_checksum: 0xabcd, membership, membership_index: Index(0) };
    Snapshot { base, bytes: 3, checksum: 7 }
}

/// A chunk of a snapshot, from byte `offset` on.
pub fn snapshot_chunk(epoch: u64, snapshot: &Snapshot, offset: u64, bytes: &'static [u8]) -> Body {
    let chunk = SnapshotChunk { epoch, snapshot: snapshot.clone().into(), offset, bytes: bytes.into() };
    Body::SnapshotChunk(chunk)
}

/// The first answer about a snapshot in `said`.
pub fn snapshot_reply(said: &[&Outgoing]) -> Option<SnapshotOutcome> {
    said.iter().find_map(|outgoing| match &outgoing.message.body {
        Body::SnapshotReply(reply) => Some(reply.outcome),
        _ => None,
    })
}

/// A heartbeat of a leader with this read round and commit index.
pub fn heartbeat(round: u64, commit: u64) -> Body {
    Body::Heartbeat(Heartbeat { round, commit: Index(commit) })
}

/// The answer to a heartbeat, with the promise of the default settings.
pub fn heartbeat_reply(round: u64) -> Body {
    promising(round, settings().promise())
}

/// The answer to a heartbeat, with this promise.
pub fn promising(round: u64, promise: Promise) -> Body {
    Body::HeartbeatReply(HeartbeatReply { round, promise })
}

/// The messages that leave at once.
pub fn sent(effects: &[Effect]) -> Vec<&Outgoing> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Send(outgoing) = effect { Some(outgoing) } else { None })
        .collect()
}

/// The messages that leave once a write is durable.
pub fn promised(effects: &[Effect]) -> Vec<&Outgoing> {
    persists(effects).into_iter().flat_map(|persist| &persist.then).collect()
}

/// The writes among the effects, in order.
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

/// `replica` times out and wins its pre-vote, the second one if it is new; its vote for itself is
/// durable. Returns the ballot of its campaign.
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

/// `replica` campaigns and wins. Returns the effects of its victory.
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

/// Makes all writes among `effects` durable, and returns the effects of that.
pub fn persist_all(replica: &mut Replica, effects: &[Effect]) -> Vec<Effect> {
    let mut out = Vec::new();
    if let Some(last) = persists(effects).last() {
        replica.persisted(at(0), last.sequence, &mut out);
    }
    out
}

/// The first answer to an append, whether it waits for the disk or not.
pub fn append_reply(effects: &[Effect]) -> Option<AppendOutcome> {
    sent(effects).into_iter().chain(promised(effects)).find_map(|outgoing| match &outgoing.message.body {
        Body::AppendReply(reply) => Some(reply.outcome),
        _ => None,
    })
}

/// The first answer to a request for a vote, with its term.
pub fn vote_reply(effects: &[Effect]) -> Option<(Term, bool)> {
    sent(effects).into_iter().chain(promised(effects)).find_map(|outgoing| match &outgoing.message.body {
        Body::Vote(vote) => Some((outgoing.message.term, vote.granted())),
        _ => None,
    })
}

/// The violation for which the node stops, if it does.
pub fn halted(effects: &[Effect]) -> Option<Violation> {
    effects.iter().find_map(|effect| if let Effect::Halt(violation) = effect { Some(*violation) } else { None })
}
