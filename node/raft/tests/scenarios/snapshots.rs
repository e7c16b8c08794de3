//! Snapshots, as far as the rules decide.

use quorate_raft::{
    AppendOutcome, Effect, Index, Kind, Message, MessageRefusal, NodeId, ProgressState, Replica, SnapshotOutcome,
    SnapshotTransfer, SnapshotTransferSettings, Term, Violation,
};
use quorate_world::{
    events::Event,
    fixtures::{
        append, append_reply, at, disk_of, halted, hear, id, lead, log_of, persist_all, persists, promised, replica,
        sent, settings, snapshot_chunk, snapshot_of, snapshot_reply, terms, voters,
    },
    node::Note,
    world::World,
};

fn carries_chunks(_: NodeId, _: NodeId, message: &Message) -> bool {
    message.is_bulk()
}

/// A leader that cut its log up to entry 4, and node 3, which has only one.
fn behind_a_cut() -> World {
    let mut compacted = disk_of(1, None, &[1, 1, 1, 1, 1]);
    compacted.compact(Index(4), voters(3));
    World::with(vec![compacted, disk_of(1, None, &[1, 1, 1, 1, 1]), disk_of(1, None, &[1])], settings())
}

/// A snapshot counts as installed when it durably is, and not when it was sent.
#[test]
fn a_snapshot_counts_when_it_is_installed_and_not_when_it_was_sent() {
    let mut world = behind_a_cut();
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    world.settle_but(carries_chunks);
    world.stuck.insert(NodeId(3));
    world.pass(5_000);
    world.beat(1);
    let transfer = world.replicator(1, 3).transfer().cloned().expect("a transfer");
    assert_eq!(
        (transfer.want(), transfer.in_flight_bytes()),
        (None, 1),
        "all of it was sent, and all but the end said to be there"
    );
    assert_eq!(world.replicator(1, 3).progress().state(), ProgressState::Snapshot);
    assert_eq!((world.replica(3).log().base(), world.replica(3).commit()), (id(0, 0), Index(0)));
    world.stuck.clear();
    world.settle();
    assert_eq!(world.replicator(1, 3).progress().state(), ProgressState::Replicate);
    assert_eq!((world.replica(3).log().base(), world.log(3)), (id(4, 1), vec![1, 2]));
    assert_eq!(world.up(3).state, world.up(1).state, "and applied");
}

/// On the receiving side: the reply waits for the cut, which waits for the snapshot.
#[test]
fn an_installed_snapshot_is_told_of_only_when_log_and_state_follow_it() {
    let mut follower = replica(2, 3, 5, None, &[1, 1]);
    let base = snapshot_of(7, 4);
    hear(&mut follower, at(0), 1, 5, snapshot_chunk(8, &base, 0, b"abc"));
    let effects = hear(&mut follower, at(0), 1, 5, snapshot_chunk(9, &base, 0, b"abc"));
    assert!(matches!(effects.last(), Some(Effect::SnapshotChunk { .. })));
    assert_eq!(terms(&follower), [1, 1], "nothing has happened yet");
    let mut out = Vec::new();
    follower.snapshot_received(at(0), NodeId(1), 9, &base.base, &mut out);
    assert!(sent(&out).is_empty());
    assert_eq!(
        persists(&out)[0].cut.map(|cut| (cut.to, cut.checksum)),
        Some((id(7, 4), Some(base.base.last_checksum)))
    );
    let installed = SnapshotOutcome::Installed { index: Index(7) };
    assert_eq!(snapshot_reply(&promised(&out)), Some(installed), "it leaves when the cut is durable");
    assert!(out.contains(&Effect::Restore(base.base.clone())));
    assert_eq!((follower.commit(), follower.dispatched(), follower.applied_index()), (Index(7), Index(7), Index(0)));
    follower.applied(Index(7), &mut out);
    assert_eq!(follower.applied_index(), Index(7));
}

/// Two at once: in either order of arrival, the log ends up after the later one, and the state
/// never goes back.
#[test]
fn of_two_snapshots_at_once_the_later_one_wins() {
    for order in [[5, 8], [8, 5]] {
        let mut follower = replica(2, 3, 5, None, &[1]);
        let mut restored = Vec::new();
        for index in order {
            let mut out = Vec::new();
            follower.snapshot_received(at(0), NodeId(1), 1, &snapshot_of(index, 4).base, &mut out);
            restored.extend(out.into_iter().filter_map(|effect| match effect {
                Effect::Restore(base) => Some(base.last.index.0),
                _ => None,
            }));
        }
        assert_eq!((follower.log().base(), follower.dispatched()), (id(8, 4), Index(8)), "{order:?}");
        assert!(restored.is_sorted() && restored.last() == Some(&8), "{order:?}: {restored:?}");
        follower.applied(Index(5), &mut Vec::new());
        follower.applied(Index(8), &mut Vec::new());
        assert_eq!(follower.applied_index(), Index(8));
    }
}

/// A node that is past a snapshot says so at once, and is not sent it.
#[test]
fn a_follower_that_is_past_a_snapshot_says_so_and_restores_nothing() {
    let mut follower = replica(2, 3, 5, None, &[1, 1, 1]);
    let log = log_of(&[1, 1, 1]);
    hear(&mut follower, at(0), 1, 5, append(1, id(3, 1), 3, None));
    assert_eq!(follower.commit(), Index(3));
    let mut past = snapshot_of(2, 1);
    past.base.last_checksum = log[0].up_to(Index(2)).expect("two entries").checksum();
    let effects = hear(&mut follower, at(0), 1, 5, snapshot_chunk(3, &past, 0, b"abc"));
    assert_eq!(snapshot_reply(&sent(&effects)), Some(SnapshotOutcome::Installed { index: Index(2) }));
    let mut out = Vec::new();
    follower.snapshot_received(at(0), NodeId(1), 3, &past.base, &mut out);
    assert_eq!(snapshot_reply(&sent(&out)), Some(SnapshotOutcome::Installed { index: Index(2) }));
    assert!(persists(&out).is_empty() && !out.iter().any(|effect| matches!(effect, Effect::Restore(_))));
    assert_eq!(terms(&follower), [1, 1, 1]);
}

/// A snapshot that contradicts a committed entry is not installed.
#[test]
fn a_snapshot_that_contradicts_a_committed_entry_stops_the_node() {
    let conflict = Some(Violation::CommittedConflict { index: Index(2), leader: NodeId(1) });
    let mut follower = replica(2, 3, 5, None, &[1, 1, 1]);
    hear(&mut follower, at(0), 1, 5, append(1, id(3, 1), 3, None));
    assert_eq!(halted(&hear(&mut follower, at(0), 1, 5, snapshot_chunk(3, &snapshot_of(2, 4), 0, b"abc"))), conflict);
    let mut out = Vec::new();
    follower.snapshot_received(at(0), NodeId(1), 3, &snapshot_of(2, 4).base, &mut out);
    assert_eq!(halted(&out), conflict);
    assert_eq!(terms(&follower), [1, 1, 1], "nothing was overwritten");
}

/// A snapshot whose last entry differs under the same id is noticed, and not installed.
#[test]
fn a_snapshot_of_another_content_under_the_same_id_is_not_installed() {
    let mut follower = replica(2, 3, 5, None, &[1, 1, 1]);
    let stranger = snapshot_of(3, 1);
    let effects = hear(&mut follower, at(0), 1, 5, snapshot_chunk(3, &stranger, 0, b"abc"));
    assert!(effects.contains(&Effect::Diverged { at: id(3, 1), with: NodeId(1) }));
    assert_eq!(snapshot_reply(&sent(&effects)), Some(SnapshotOutcome::Refused));
    assert_eq!(terms(&follower), [1, 1, 1]);
}

/// While a follower receives a snapshot, the log that it needs next is not cut, even if more
/// snapshots are taken meanwhile. Once it has caught up, or the transfer is given up, the log
/// is cut again.
#[test]
fn a_log_is_not_cut_so_that_a_receiving_follower_must_start_over() {
    let mut world = behind_a_cut();
    world.pass(400);
    world.must(Event::Timeout(NodeId(1)));
    world.settle_but(carries_chunks);
    assert_eq!(world.replicator(1, 3).progress().state(), ProgressState::Snapshot);
    for _ in 0..3 {
        world.must(Event::Propose(NodeId(1), 5));
        world.settle_but(carries_chunks);
        world.must(Event::Snapshot(NodeId(1)));
        world.settle_but(carries_chunks);
    }
    assert_eq!(world.replica(1).snapshot_index(), world.replica(1).commit());
    assert_eq!(world.replica(1).log().base().index, Index(4), "what follows the snapshot that is being sent");
    let restored = |world: &mut World| world.notes.iter().filter(|(_, note)| matches!(note, Note::Restored(_))).count();
    world.pass(5_000);
    world.beat(1);
    world.pass(5_000);
    world.beat(1);
    assert_eq!(restored(&mut world), 1, "one snapshot was enough");
    assert_eq!(world.replica(3).log().last(), world.replica(1).log().last());
    world.propose(1, 1);
    world.snapshot(1);
    assert_eq!(world.replica(1).log().base(), world.replica(1).log().last(), "it has caught up");
}

/// A pin follows the peer, holds no more than it must, and ends when the transfer is given up.
#[test]
fn a_pin_follows_its_peer_and_ends() {
    let mut leader = replica(1, 3, 1, None, &[1; 20]);
    let led = lead(&mut leader, at(0));
    persist_all(&mut leader, &led);
    leader.matched(at(0), NodeId(2), Index(21), &mut Vec::new());
    leader.applied(Index(21), &mut Vec::new());
    let loaded: Vec<_> = log_of(&[1; 20]);
    let mut out = Vec::new();
    leader.loaded(loaded, &mut out);
    leader.applied(Index(21), &mut out);
    assert_eq!(leader.dispatched(), Index(21));
    let saved = |leader: &mut Replica, index: u64, keep: u64| {
        let mut base = snapshot_of(index, if index == 21 { 2 } else { 1 }).base;
        base.membership = voters(3);
        let mut out = Vec::new();
        leader.snapshot_saved(at(0), &base, keep, &mut out);
        leader.log().base().index.0
    };
    leader.pin(NodeId(3), Some(Index(5)));
    assert_eq!(saved(&mut leader, 10, 0), 5, "as far as the peer's snapshot reaches");
    leader.matched(at(0), NodeId(3), Index(8), &mut out);
    assert_eq!(saved(&mut leader, 12, 0), 8, "as far as the peer has come");
    leader.matched(at(0), NodeId(3), Index(3), &mut out);
    assert_eq!(saved(&mut leader, 13, 0), 8, "what is cut does not come back");
    assert_eq!(saved(&mut leader, 21, 13), 8, "it is within the part kept for all peers, and needs no pin any more");
    assert_eq!(saved(&mut leader, 21, 5), 16);
    leader.pin(NodeId(3), Some(Index(16)));
    leader.pin(NodeId(3), None);
    assert_eq!(saved(&mut leader, 21, 0), 21, "it was given up");
}

/// A node that was removed while it received a snapshot pins no log.
#[test]
fn a_removed_peer_pins_no_log() {
    let mut leader = replica(1, 3, 1, None, &[1; 20]);
    let led = lead(&mut leader, at(0));
    persist_all(&mut leader, &led);
    let mut out = Vec::new();
    leader.matched(at(0), NodeId(2), Index(21), &mut out);
    leader.loaded(log_of(&[1; 20]), &mut out);
    leader.applied(Index(21), &mut out);
    leader.pin(NodeId(3), Some(Index(5)));
    let saved = |leader: &mut Replica, index: u64| {
        let mut base = snapshot_of(index, 1).base;
        base.membership = voters(3);
        leader.snapshot_saved(at(0), &base, 0, &mut Vec::new());
        leader.log().base().index.0
    };
    let mut batch = leader.next_batch(0).expect("it leads");
    batch.push(Kind::Membership, &voters(2).encode());
    out.clear();
    leader.propose(at(1), batch.finish().expect("an entry"), &mut out);
    assert_eq!(saved(&mut leader, 10), 5, "the removal may still be discarded");
    persist_all(&mut leader, &out);
    leader.matched(at(1), NodeId(2), Index(22), &mut out);
    assert_eq!((leader.commit(), leader.peers()), (Index(22), vec![NodeId(2)]));
    leader.pin(NodeId(3), Some(Index(5)));
    assert_eq!(saved(&mut leader, 20), 20);
}

/// A slow answer is no lost chunk. A chunk is sent again only when the follower says that
/// it is missing.
#[test]
fn a_chunk_that_takes_longer_than_its_timeout_is_not_sent_again() {
    let patience =
        SnapshotTransferSettings { chunk_bytes: 10, window_bytes: 30, ..SnapshotTransferSettings::default() };
    let mut snapshot = snapshot_of(5, 1);
    snapshot.bytes = 100;
    let mut transfer = SnapshotTransfer::new(at(0), snapshot, patience);
    assert!(transfer.tick(at(0)), "it asks what is there");
    transfer.received(at(0), 0);
    while let Some((offset, length)) = transfer.want() {
        assert!(transfer.sent(at(0), offset, length));
    }
    assert_eq!(transfer.in_flight_bytes(), 30);
    assert!(!transfer.tick(at(900)) && transfer.tick(at(1_000)), "it asks");
    transfer.received(at(4_000), 10);
    assert_eq!(transfer.want(), Some((30, 10)), "that was a slow answer: it goes on where it was");
    transfer.sent(at(4_000), 30, 10);
    assert!(transfer.tick(at(5_000)));
    transfer.received(at(5_001), 10);
    assert_eq!(transfer.want(), Some((10, 10)), "nothing more has arrived: that is lost");
}

/// No entry is cut before a snapshot is durable, beyond the snapshot, or before the entry
/// itself is durable.
#[test]
fn nothing_is_cut_that_no_durable_snapshot_covers() {
    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 5);
    world.stuck.insert(NodeId(1));
    world.snapshot(1);
    assert_eq!(world.replica(1).log().base().index, Index(0), "it is not durable");
    world.must(Event::Propose(NodeId(1), 5));
    world.settle();
    world.crash(1);
    world.stuck.clear();
    world.restart(1);
    assert_eq!(world.replica(1).log().base().index, Index(0), "nor ever was: the log is as it was");

    let mut world = World::new(3);
    world.elect(1);
    world.propose(1, 5);
    world.must(Event::Snapshot(NodeId(1)));
    world.must(Event::Act(NodeId(1), quorate_world::node::Actor::Keeper));
    world.crash(1);
    world.restart(1);
    let replica = world.replica(1);
    assert_eq!((replica.snapshot_index(), replica.log().base().index), (Index(6), Index(0)), "durable, and not cut");
    assert_eq!((replica.applied_index(), world.up(1).applied), (Index(6), Index(6)), "and restored from");
}

/// In the rules: a snapshot of entries that were not dispatched is no reason to cut.
#[test]
fn a_snapshot_of_entries_that_were_not_applied_cuts_nothing() {
    let mut follower = replica(2, 3, 5, None, &[1, 1, 1]);
    hear(&mut follower, at(0), 1, 5, append(1, id(3, 1), 2, None));
    for (index, term) in [(3, 1), (2, 4), (9, 5)] {
        let mut out = Vec::new();
        follower.snapshot_saved(at(0), &snapshot_of(index, term).base, 0, &mut out);
        assert!(out.is_empty() && follower.log().base().index == Index(0), "{index}@{term}");
    }
}

/// Callers whose entries an installed snapshot covers: the runtime learns of it before any later
/// entry is applied.
#[test]
fn a_restore_comes_before_the_entries_after_it_are_applied() {
    let mut follower = replica(2, 3, 5, None, &[1]);
    let log = log_of(&[1, 1, 1, 1]);
    hear(&mut follower, at(0), 1, 5, append(1, id(1, 1), 1, log[0].from(Index(2))));
    let mut base = snapshot_of(3, 1).base;
    base.last_checksum = log[0].up_to(Index(3)).expect("three").checksum();
    let mut out = Vec::new();
    follower.snapshot_received(at(0), NodeId(1), 1, &base, &mut out);
    assert_eq!(terms(&follower), [1], "4 is kept: the log holds 3");
    follower.applied(Index(3), &mut out);
    let written = persists(&out).last().expect("the cut").sequence;
    follower.persisted(at(0), written, &mut out);
    follower.loaded(vec![], &mut out);
    let effects = hear(&mut follower, at(0), 1, 5, append(1, id(4, 1), 4, None));
    let applied = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Apply(_)));
    assert!(!applied(&out) && applied(&effects));
}

/// A snapshot from the last leader arrives while this node campaigns: the campaign claimed the log
/// before it, and ends.
#[test]
fn a_candidate_whose_log_a_snapshot_replaces_campaigns_no_longer() {
    let mut node = replica(2, 3, 5, None, &[1, 3, 3]);
    let campaign = quorate_world::fixtures::stand(&mut node, at(0));
    let mut out = Vec::new();
    node.snapshot_received(at(0), NodeId(1), 1, &snapshot_of(2, 2).base, &mut out);
    assert_eq!(node.log().last(), id(2, 2), "its entries conflicted with what is committed");
    out.clear();
    node.election_won(at(0), campaign.term, campaign.campaign, &mut out);
    assert!(!node.is_leader() && out.is_empty());
}

/// A leader hears of no other in its term, and its log holds all entries that a snapshot covers.
#[test]
fn a_leader_takes_no_snapshot_that_its_log_does_not_hold() {
    let mut leader = replica(1, 3, 5, None, &[1, 1]);
    lead(&mut leader, at(0));
    let effects = hear(&mut leader, at(0), 2, 6, snapshot_chunk(1, &snapshot_of(9, 4), 0, b""));
    assert_eq!(halted(&effects), Some(Violation::TwoLeaders { term: Term(6), one: NodeId(1), other: NodeId(2) }));
    let mut out = Vec::new();
    leader.snapshot_received(at(0), NodeId(2), 1, &snapshot_of(9, 4).base, &mut out);
    assert_eq!(halted(&out), Some(Violation::CommittedConflict { index: Index(9), leader: NodeId(2) }));
    out.clear();
    let mut base = snapshot_of(2, 1).base;
    base.last_checksum = log_of(&[1, 1])[0].checksum();
    leader.snapshot_received(at(0), NodeId(2), 1, &base, &mut out);
    assert!(leader.is_leader() && out.contains(&Effect::Committed(Index(2))), "what it covers is committed");
}

/// Malformed pieces are refused.
#[test]
fn a_malformed_piece_of_a_snapshot_is_refused() {
    let mut follower = replica(2, 3, 5, None, &[1]);
    let refused = |follower: &mut Replica, chunk| {
        matches!(
            hear(follower, at(0), 1, 5, chunk).last(),
            Some(Effect::Refused { reason: MessageRefusal::Malformed, .. })
        )
    };
    let mut voterless = snapshot_of(4, 2);
    voterless.base.membership = voters(0);
    assert!(refused(&mut follower, snapshot_chunk(1, &voterless, 0, b"a")), "no node votes");
    assert!(refused(&mut follower, snapshot_chunk(1, &snapshot_of(0, 0), 0, b"a")), "of nothing");
    assert!(refused(&mut follower, snapshot_chunk(1, &snapshot_of(4, 6), 0, b"a")), "of a later term");
    assert!(refused(&mut follower, snapshot_chunk(1, &snapshot_of(4, 2), 1, b"abc")), "more than there is");
    assert!(refused(&mut follower, snapshot_chunk(1, &snapshot_of(4, 2), u64::MAX, b"a")), "an overflow");
}

/// A log that begins after lost state asks for a snapshot that reaches far enough, and only such a
/// snapshot brings the state back.
#[test]
fn a_node_that_lost_its_state_is_healed_by_a_snapshot_that_reaches_it() {
    let mut disk = disk_of(1, None, &[1; 6]);
    disk.compact(Index(4), voters(3));
    disk.snapshot = None;
    let mut node = Replica::new(NodeId(3), voters(3), disk.recover(), settings());
    assert_eq!((node.lost_up_to(), node.commit(), node.log().last()), (Some(Index(4)), Index(0), id(6, 1)));
    let effects = hear(&mut node, at(0), 1, 1, append(7, id(6, 1), 6, None));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::NeedsSnapshot { from: Index(4) }));
    let mut out = Vec::new();
    node.election_timeout(at(1_000), Term(1), &mut out);
    assert!(quorate_world::fixtures::opened(&out).is_none(), "it does not campaign");
    let effects = hear(&mut node, at(1_000), 1, 1, snapshot_chunk(7, &snapshot_of(3, 1), 0, b"abc"));
    assert_eq!(snapshot_reply(&sent(&effects)), Some(SnapshotOutcome::Refused), "too old");
    let mut base = snapshot_of(4, 1).base;
    base.last_checksum = disk.base_checksum;
    out.clear();
    node.snapshot_received(at(1_000), NodeId(1), 7, &base, &mut out);
    assert_eq!((node.lost_up_to(), node.dispatched(), terms(&node)), (None, Index(4), vec![1, 1]), "5 and 6 are kept");
    let effects = hear(&mut node, at(1_000), 1, 1, append(7, id(6, 1), 6, None));
    assert_eq!(append_reply(&effects), Some(AppendOutcome::Matched { matched: Index(6) }));

    let mut world = behind_a_cut();
    let lost = world.node(NodeId(1)).disk.clone();
    world.crash(3);
    world.node_mut(NodeId(3)).disk = lost;
    world.must(Event::LoseSnapshot(NodeId(3)));
    world.restart(3);
    world.elect(2);
    world.beat(2);
    world.beat(2);
    assert_eq!(world.replica(3).lost_up_to(), None, "the leader took a snapshot for it");
    assert_eq!(world.up(3).state, world.up(2).state);
}
