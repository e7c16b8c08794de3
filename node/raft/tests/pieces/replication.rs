//! One peer's replication: what it sends and asks for, from the first probe to a snapshot that is
//! given up.

use quorate_raft::{
    Append, Batch, Body, Credit, Heartbeat, Index, Message, ProgressState, Replication, ReplicationOutput,
    ReplicationStart, Snapshot, SnapshotChunk, SnapshotOutcome, SnapshotReply, SnapshotTransferSettings, Term, Want,
};
use quorate_world::fixtures::{at, batch, crc, id};
use std::time::Duration;

/// The leader's term, the first epoch of the replication, and the last entry of the leader's log.
const TERM: u64 = 3;
const EPOCH: u64 = 7;
const LAST: u64 = 5;
/// The last entry of the snapshot.
const COVERED: u64 = 4;

#[test]
fn it_begins_with_a_probe_of_the_logs_end_and_asks_once_for_what_it_sends() {
    let mut peer = Peer::new();
    assert_eq!(fetches(&peer.at(0, |it, now, out| it.tick(now, out))), [Index(LAST + 1)]);
    assert!(peer.at(50, |it, now, out| it.tick(now, out)).is_empty(), "the fetch is under way");
    let sent = peer.at(50, |it, now, out| it.fetched(now, id(LAST, TERM), Some(9), None, out));
    let probe =
        Append { epoch: EPOCH, previous: id(LAST, TERM), previous_checksum: Some(9), commit: Index(2), batch: None };
    assert_eq!(sent, [says(Body::Append(probe))]);
}

#[test]
fn entries_are_sent_as_they_are_appended_but_not_beside_a_fetch() {
    let mut peer = Peer::new();
    peer.at(0, |it, now, out| it.tick(now, out));
    assert!(peer.append(6).is_empty(), "the fetch comes first");
    let sent = peer.at(0, |it, now, out| it.fetched(now, id(LAST, TERM), None, Some(entry(6)), out));
    assert_eq!(appended(&sent), [6]);
    let out = peer.acknowledge(EPOCH, 6);
    assert_eq!(out, [ReplicationOutput::Matched(Index(6))], "nothing else is missing");
    assert_eq!(appended(&peer.append(7)), [7]);
    assert_eq!(appended(&peer.append(8)), [8], "without waiting for an answer");
    assert_eq!(fetches(&peer.append(10)), [Index(9)], "of a gap it asks for the beginning");
    assert!(peer.append(11).is_empty());
}

#[test]
fn a_fetch_that_was_overtaken_is_asked_for_again_by_the_next_tick_and_not_before() {
    let mut peer = Peer::new();
    peer.at(0, |it, now, out| it.tick(now, out));
    assert!(peer.at(0, |it, _, _| it.overtaken()).is_empty());
    assert_eq!(fetches(&peer.at(50, |it, now, out| it.tick(now, out))), [Index(LAST + 1)]);
}

#[test]
fn a_heartbeat_commits_no_more_than_the_peer_is_known_to_have() {
    let mut peer = Peer::replicating();
    peer.append(6);
    peer.at(0, |it, _, _| it.committed(Index(6)));
    let beat = |round, commit| [says(Body::Heartbeat(Heartbeat { round, commit: Index(commit) }))];
    assert_eq!(peer.at(0, |it, now, out| it.heartbeat_due(now, out)), beat(1, LAST));
    peer.acknowledge(EPOCH, 6);
    assert_eq!(peer.at(0, |it, _, out| it.round_opened(2, out)), beat(2, 6));
    assert_eq!(peer.at(0, |it, _, out| it.heartbeat(out)), beat(2, 6), "the round stays");
    let ReplicationOutput::Send(Message { term, body: Body::Append(append) }) = &peer.append(7)[0] else {
        panic!("an append")
    };
    assert_eq!((*term, append.commit), (Term(TERM), Index(6)), "an append names the whole commit index");
}

#[test]
fn unanswered_appends_count_as_lost_with_a_heartbeat_and_are_fetched_again() {
    let mut peer = Peer::replicating();
    peer.append(6);
    peer.at(199, |it, now, out| it.heartbeat_due(now, out));
    assert!(peer.at(199, |it, now, out| it.tick(now, out)).is_empty());
    peer.at(200, |it, now, out| it.heartbeat_due(now, out));
    assert_eq!(fetches(&peer.at(200, |it, now, out| it.tick(now, out))), [Index(6)]);
    assert!(peer.acknowledge(EPOCH, 6).is_empty(), "an answer of the earlier epoch counts for nothing");
}

#[test]
fn a_peer_that_answers_a_heartbeat_after_a_silence_is_probed_at_once() {
    let mut peer = Peer::replicating();
    peer.append(6);
    assert!(peer.at(100, |it, now, out| it.heard(now, out)).is_empty());
    assert_eq!(fetches(&peer.at(900, |it, now, out| it.heard(now, out))), [Index(6)]);
}

#[test]
fn a_log_that_went_back_is_told_of_and_probed_where_it_ends() {
    let mut peer = Peer::replicating();
    peer.append(6);
    let out = peer.rejects(Index(5), Index(5), Index(3)).1;
    assert_eq!(out[0], ReplicationOutput::Matched(Index(3)));
    assert_eq!(fetches(&out), [Index(4)]);
}

#[test]
fn of_the_appends_that_were_on_their_way_the_first_rejection_alone_counts() {
    let mut peer = Peer::replicating();
    let counted: Vec<bool> = (6..12)
        .map(|index| {
            peer.append(index);
            peer.rejects(Index(index - 1), Index(5), Index(4)).0
        })
        .collect();
    assert_eq!(counted, [true, false, false, false, false, false]);
}

#[test]
fn a_snapshot_is_asked_for_once_and_sent_as_far_as_the_window_reaches() {
    let mut peer = Peer::new();
    peer.at(0, |it, now, out| it.tick(now, out));
    let out = peer.at(0, |it, now, out| it.compacted(now, out));
    assert_eq!(out, [ReplicationOutput::WantSnapshot { at_least: Index(0), anew: false }]);
    assert!(peer.at(50, |it, now, out| it.tick(now, out)).is_empty(), "there may be none for long");
    assert_eq!(chunks(&peer.open(50)), [(0, 0)], "it asks how much the peer has");
    assert_eq!(peer.replication.chunk(), None);
    peer.answer(60, received(10));
    assert_eq!(chunks(&peer.send_chunks(60)), [(10, 10), (20, 10)]);
    peer.answer(70, received(20));
    assert_eq!(chunks(&peer.send_chunks(70)), [(30, 10)]);
    let out = peer.answer(80, SnapshotOutcome::Installed { index: Index(COVERED) });
    assert_eq!(out[0], ReplicationOutput::SnapshotInstalled(Index(COVERED)));
    assert_eq!(fetches(&out), [Index(COVERED + 1)], "and goes on with the log");
    assert!(peer.replication.transfer().is_none());
}

#[test]
fn a_peer_that_asks_for_a_snapshot_gets_one_that_reaches_far_enough_and_never_one_of_less() {
    let mut peer = Peer::new();
    assert!(peer.at(0, |it, now, out| it.needs_snapshot(now, EPOCH - 1, Index(9), out)).is_empty(), "a late answer");
    let out = peer.at(0, |it, now, out| it.needs_snapshot(now, EPOCH, Index(4), out));
    assert_eq!(out, [ReplicationOutput::WantSnapshot { at_least: Index(4), anew: false }]);
    assert!(peer.at(0, |it, now, out| it.needs_snapshot(now, EPOCH, Index(4), out)).is_empty());
}

#[test]
fn a_snapshot_that_is_not_wanted_is_not_sent() {
    let mut peer = Peer::replicating();
    assert!(!peer.replication.snapshot_opened(at(0), &snapshot(), &mut peer.out));
    assert!(peer.out.is_empty() && peer.replication.transfer().is_none());
    let mut peer = Peer::sending();
    peer.answer(0, received(10));
    assert!(!peer.replication.snapshot_opened(at(0), &snapshot(), &mut peer.out), "one is under way");
    assert_eq!(peer.replication.chunk(), Some((10, 10)));
}

#[test]
fn answers_of_an_earlier_epoch_or_to_another_snapshot_move_nothing() {
    let mut peer = Peer::sending();
    let reply = SnapshotReply { epoch: EPOCH - 1, last: id(COVERED, 1), outcome: received(10) };
    assert!(peer.at(0, |it, now, out| it.snapshot_answered(now, reply, out)).is_empty());
    let reply = SnapshotReply { epoch: EPOCH, last: id(COVERED - 1, 1), outcome: SnapshotOutcome::Refused };
    assert!(peer.at(0, |it, now, out| it.snapshot_answered(now, reply, out)).is_empty());
    assert_eq!(peer.replication.chunk(), None, "the peer has yet to say how much it has");
}

/// A follower that lacks what a snapshot covers rejects its first chunk as it rejects an append,
/// and takes a chunk of a later epoch only.
#[test]
fn a_rejection_during_a_snapshot_begins_an_epoch_in_which_the_peer_is_asked_again() {
    let mut peer = Peer::sending();
    let (counts, out) = peer.rejects(Index(5), Index(1), Index(0));
    assert!(!counts, "it is no news of the log");
    let [ReplicationOutput::Send(Message { body: Body::SnapshotChunk(asks), .. })] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((asks.epoch, asks.offset, asks.bytes.len()), (EPOCH + 1, 0, 0));
}

#[test]
fn a_refusal_is_reported_and_the_peer_left_alone_for_a_while() {
    let mut peer = Peer::sending();
    assert_eq!(peer.answer(0, SnapshotOutcome::Refused), [ReplicationOutput::SnapshotRefused]);
    assert!(peer.at(9_999, |it, now, out| it.tick(now, out)).is_empty());
    assert_eq!(chunks(&peer.at(10_000, |it, now, out| it.tick(now, out))), [(0, 0)]);
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_once_and_gets_another_snapshot_when_it_answers() {
    let mut peer = Peer::sending();
    peer.answer(50_000, received(10));
    assert_eq!(given_up(&peer.at(109_999, |it, now, out| it.tick(now, out))), 0, "it took something since");
    let out = peer.at(110_000, |it, now, out| it.tick(now, out));
    assert_eq!(given_up(&out), 1);
    assert_eq!(peer.replication.chunk(), None, "the snapshot is closed");
    let out = peer.at(200_000, |it, now, out| it.tick(now, out));
    assert_eq!((given_up(&out), chunks(&out)), (0, vec![]));
    let out = peer.at(200_000, |it, now, out| it.link_changed(now, out));
    assert_eq!(chunks(&out), [(10, 0)], "it is still asked");
    let out = peer.answer(200_100, received(10));
    assert_eq!(out, [ReplicationOutput::WantSnapshot { at_least: Index(0), anew: false }]);
    assert_eq!(chunks(&peer.open(200_100)), [(0, 0)]);
    peer.answer(200_200, received(10));
    assert_eq!(chunks(&peer.send_chunks(200_200)), [(10, 10), (20, 10)]);
}

#[test]
fn a_snapshot_that_cannot_be_read_is_replaced_by_one_that_is_taken_anew() {
    let mut peer = Peer::sending();
    assert!(peer.at(0, |it, _, _| it.snapshot_unreadable()).is_empty(), "not at once: it could be for ever");
    let out = peer.at(50, |it, now, out| it.tick(now, out));
    assert_eq!(out, [ReplicationOutput::WantSnapshot { at_least: Index(0), anew: true }]);
}

#[test]
fn the_witness_is_sent_stubs_and_of_a_snapshot_no_bytes() {
    let mut peer = Peer::started(ReplicationStart { stub_checksum: Some(crc), ..start() });
    let probe = peer.at(0, |it, now, out| {
        it.tick(now, out);
        it.fetched(now, id(LAST, TERM), None, Some(entry(6)), out);
    });
    let Some(ReplicationOutput::Send(Message { body: Body::Append(append), .. })) = probe.last() else {
        panic!("{probe:?}")
    };
    assert_eq!(append.batch, Some(entry(6).to_stubs(crc)));
    peer.at(0, |it, now, out| it.needs_snapshot(now, EPOCH, Index(1), out));
    peer.open(0);
    let sent = peer.replication.transfer().expect("a transfer").snapshot().clone();
    assert_eq!(sent, Snapshot { bytes: 0, checksum: 0, ..snapshot() });
    peer.answer(0, received(0));
    assert_eq!(peer.replication.chunk(), None);
}

/// A replication, and the vector that it pushes to.
struct Peer {
    replication: Replication,
    out: Vec<ReplicationOutput>,
}

impl Peer {
    fn new() -> Self {
        Self::started(start())
    }

    fn started(start: ReplicationStart) -> Self {
        Self { replication: Replication::new(at(0), start), out: Vec::new() }
    }

    /// A peer that has the whole log.
    fn replicating() -> Self {
        let mut peer = Self::new();
        peer.at(0, |it, now, out| {
            it.tick(now, out);
            it.fetched(now, id(LAST, TERM), None, None, out);
            it.acknowledged(now, EPOCH, Index(LAST), out);
        });
        assert_eq!(peer.replication.progress().state(), ProgressState::Replicate);
        peer
    }

    /// A peer that was asked how much of a snapshot it has.
    fn sending() -> Self {
        let mut peer = Self::new();
        peer.at(0, |it, now, out| it.compacted(now, out));
        assert_eq!(chunks(&peer.open(0)), [(0, 0)]);
        peer
    }

    fn at(
        &mut self,
        now: u64,
        rule: impl FnOnce(&mut Replication, quorate_raft::Moment, &mut Vec<ReplicationOutput>),
    ) -> Vec<ReplicationOutput> {
        rule(&mut self.replication, at(now), &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// It rejects an append of the first epoch. Returns whether that counts, too.
    fn rejects(&mut self, previous: Index, next: Index, last: Index) -> (bool, Vec<ReplicationOutput>) {
        let mut counts = false;
        let out = self.at(0, |it, now, out| counts = it.rejected(now, EPOCH, previous, next, last, out));
        (counts, out)
    }

    fn append(&mut self, index: u64) -> Vec<ReplicationOutput> {
        self.at(0, |it, now, out| it.appended(now, id(index - 1, TERM), entry(index), out))
    }

    fn acknowledge(&mut self, epoch: u64, matched: u64) -> Vec<ReplicationOutput> {
        self.at(0, |it, now, out| it.acknowledged(now, epoch, Index(matched), out))
    }

    fn open(&mut self, now: u64) -> Vec<ReplicationOutput> {
        self.at(now, |it, now, out| assert!(it.snapshot_opened(now, &snapshot(), out)))
    }

    fn answer(&mut self, now: u64, outcome: SnapshotOutcome) -> Vec<ReplicationOutput> {
        let reply = SnapshotReply { epoch: self.replication.progress().epoch(), last: id(COVERED, 1), outcome };
        self.at(now, |it, now, out| it.snapshot_answered(now, reply, out))
    }

    fn send_chunks(&mut self, now: u64) -> Vec<ReplicationOutput> {
        self.at(now, |it, now, out| {
            while let Some((offset, length)) = it.chunk() {
                it.send_chunk(now, offset, vec![0; length].into(), out);
            }
        })
    }
}

fn start() -> ReplicationStart {
    ReplicationStart {
        term: Term(TERM),
        epoch: EPOCH,
        log_last: Index(LAST),
        commit: Index(2),
        round: 1,
        stub_checksum: None,
        credit: Credit::default(),
        transfer: SnapshotTransferSettings {
            chunk_bytes: 10,
            window_bytes: 20,
            patience: Duration::from_secs(60),
            ..SnapshotTransferSettings::default()
        },
    }
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot { bytes: 100, checksum: 5, ..Snapshot::default() };
    snapshot.base.last = id(COVERED, 1);
    snapshot
}

fn entry(index: u64) -> Batch {
    batch(TERM, index, 1, 0)
}

fn received(bytes: u64) -> SnapshotOutcome {
    SnapshotOutcome::Received { bytes }
}

fn says(body: Body) -> ReplicationOutput {
    ReplicationOutput::Send(Message { term: Term(TERM), body })
}

/// The entries that are asked for.
fn fetches(out: &[ReplicationOutput]) -> Vec<Index> {
    let from = |output: &ReplicationOutput| match output {
        ReplicationOutput::Fetch(Want { from, .. }) => Some(*from),
        _ => None,
    };
    out.iter().filter_map(from).collect()
}

/// The first entries of the appends that are sent.
fn appended(out: &[ReplicationOutput]) -> Vec<u64> {
    let first = |output: &ReplicationOutput| match output {
        ReplicationOutput::Send(Message { body: Body::Append(Append { batch: Some(batch), .. }), .. }) => {
            Some(batch.first().0)
        }
        _ => None,
    };
    out.iter().filter_map(first).collect()
}

/// The chunks that are sent, as their offsets and lengths; one without bytes asks how much has
/// arrived.
fn chunks(out: &[ReplicationOutput]) -> Vec<(u64, usize)> {
    let chunk = |output: &ReplicationOutput| match output {
        ReplicationOutput::Send(Message { body: Body::SnapshotChunk(SnapshotChunk { offset, bytes, .. }), .. }) => {
            Some((*offset, bytes.len()))
        }
        _ => None,
    };
    out.iter().filter_map(chunk).collect()
}

fn given_up(out: &[ReplicationOutput]) -> usize {
    out.iter().filter(|output| **output == ReplicationOutput::GiveUpSnapshot).count()
}
