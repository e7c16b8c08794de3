//! Snapshots: durable once finished, absent before, and never in the way of the log.

use super::{
    Harness,
    model::{Log, append, cut, members},
    probe::{Probe, elsewhere, read_snapshot},
};
use quorate_raft::{EntryId, Index, SnapshotBase, Term};
use std::io::Write;

pub(super) async fn run<H: Harness>(fresh: &impl Fn() -> H) {
    a_store_without_a_snapshot_says_so(&fresh()).await;
    a_finished_snapshot_is_found_after_a_restart(&fresh()).await;
    an_unfinished_snapshot_is_nowhere(&fresh()).await;
    a_snapshot_that_is_not_as_announced_is_refused(&fresh()).await;
    the_snapshot_that_covers_most_counts(&fresh()).await;
    a_snapshot_is_read_on_when_others_take_its_place(&fresh()).await;
    a_snapshot_in_the_making_holds_up_nothing(&fresh()).await;
    any_piece_of_a_snapshot_can_be_read(&fresh()).await;
}

async fn a_store_without_a_snapshot_says_so(place: &impl Harness) {
    let (store, recovered) = Probe::open(place).await;
    assert_eq!(recovered.snapshot, None);
    let error = store.source().await.err().expect("there is none to open").to_string();
    assert!(!error.contains('\n'), "an error is one line: {error}");
    store.close().await;
}

async fn a_finished_snapshot_is_found_after_a_restart(place: &impl Harness) {
    let log = Log::of(&[(1, 5), (2, 5)], 30);
    let (mut store, _) = Probe::open(place).await;
    store.persist_all(&log).await;
    for (index, bytes) in [(2, 0), (4, 1), (6, 70_000), (8, 3 << 20)] {
        let saved = store.save(log.snapshot_base(Index(index)), &state(bytes)).await;
        store.assert_holds_snapshot(&saved, &state(bytes)).await;
        store.close().await;
        let (next, recovered) = Probe::open(place).await;
        store = next;
        assert_eq!(recovered.snapshot.as_ref(), Some(&saved), "it is found");
        log.assert_is(&recovered);
        store.assert_holds_snapshot(&saved, &state(bytes)).await;
        store.assert_holds(&log).await;
    }
    store.close().await;
}

async fn an_unfinished_snapshot_is_nowhere(place: &impl Harness) {
    let (store, _) = Probe::open(place).await;
    for round in 0..2 {
        let mut sink = store.begin(base(5), None).await;
        let sink = elsewhere(move || sink.write_all(&state(700_000)).map(|()| sink)).expect("it can be written");
        assert!(store.source().await.is_err(), "it does not count before it is finished, round {round}");
        elsewhere(move || drop(sink));
        assert!(store.source().await.is_err(), "nothing of it is left, round {round}");
    }
    store.close().await;
    let (store, recovered) = Probe::open(place).await;
    assert_eq!(recovered.snapshot, None);
    store.close().await;
}

async fn a_snapshot_that_is_not_as_announced_is_refused(place: &impl Harness) {
    let (store, _) = Probe::open(place).await;
    let older = store.save(base(3), &state(10)).await;
    let (bytes, checksum) = (1000, quorate_storage::checksum(0, &state(1000)));
    for expected in [(bytes, !checksum), (bytes + 1, checksum), (bytes - 1, checksum)] {
        let mut sink = store.begin(base(5), Some(expected)).await;
        // A sink may refuse excess bytes at once.
        let outcome = elsewhere(move || sink.write_all(&state(1000)).map(|()| sink.finish()));
        assert!(!matches!(outcome, Ok(Ok(_))), "announced as {expected:?}, it is {:?}", (bytes, checksum));
        store.assert_holds_snapshot(&older, &state(10)).await;
    }
    let mut sink = store.begin(base(5), Some((bytes, checksum))).await;
    let saved = elsewhere(move || sink.write_all(&state(1000)).map(|()| sink.finish()));
    let saved = saved.expect("it can be written").expect("it is as announced");
    store.close().await;
    let (store, recovered) = Probe::open(place).await;
    assert_eq!(recovered.snapshot, Some(saved));
    store.close().await;
}

async fn the_snapshot_that_covers_most_counts(place: &impl Harness) {
    let (store, _) = Probe::open(place).await;
    store.save(base(5), &state(100)).await;
    let most = store.save(base(9), &state(200)).await;
    store.save(base(7), &state(300)).await;
    store.assert_holds_snapshot(&most, &state(200)).await;
    // The same prefix again: a machine may encode the same state differently.
    let again = store.save(base(9), &state(400)).await;
    store.assert_holds_snapshot(&again, &state(400)).await;
    store.close().await;
    let (store, recovered) = Probe::open(place).await;
    assert_eq!(recovered.snapshot, Some(again));
    store.close().await;
}

async fn a_snapshot_is_read_on_when_others_take_its_place(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::of(&[(1, 20)], 30);
    store.persist_all(&log).await;
    store.save(log.snapshot_base(Index(4)), &state(800_000)).await;
    let source = store.source().await.expect("there is one");
    for index in [4, 8, 12, 16] {
        store.save(log.snapshot_base(Index(index)), &state(100)).await;
        store.persist(cut(log.cut(Index(index))));
        store.await_all().await;
    }
    assert!(read_snapshot(source).expect("it can be read") == state(800_000), "the first one, to its end");
    store.close().await;
}

async fn a_snapshot_in_the_making_holds_up_nothing(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::of(&[(1, 2)], 100);
    store.persist_all(&log).await;
    let mut sinks = Vec::new();
    for index in [1, 2] {
        sinks.push(store.begin(log.snapshot_base(Index(index)), None).await);
    }
    for _ in 0..5 {
        for sink in &mut sinks {
            sink.write_all(&state(300_000)).expect("it can be written");
        }
        store.persist(append(log.batch(Term(1), 2, 100)));
        store.await_all().await;
        store.assert_holds(&log).await;
    }
    for sink in sinks {
        let saved = elsewhere(move || sink.finish()).expect("each can be finished");
        assert_eq!(saved.bytes, 1_500_000);
    }
    store.close().await;
    let (mut store, recovered) = Probe::open(place).await;
    log.assert_is(&recovered);
    assert_eq!(recovered.snapshot.map(|found| found.base), Some(log.snapshot_base(Index(2))));
    store.assert_holds(&log).await;
    store.close().await;
}

async fn any_piece_of_a_snapshot_can_be_read(place: &impl Harness) {
    let (store, _) = Probe::open(place).await;
    let state = state(600_000);
    store.save(base(1), &state).await;
    let mut source = store.source().await.expect("there is one");
    elsewhere(move || {
        for (offset, bytes) in
            [(0, 1), (599_999, 1), (599_999, 10), (600_000, 1), (700_000, 5), (1, 599_000), (262_000, 300), (5, 0)]
        {
            let mut buffer = vec![0; bytes];
            let filled = source.read_at(&mut buffer, offset as u64).expect("it can be read");
            let wanted = &state[offset.min(state.len())..(offset + bytes).min(state.len())];
            assert!(&buffer[..filled] == wanted, "{bytes} bytes from {offset} on");
        }
        assert_eq!(source.read_at(&mut [0; 8], u64::MAX).expect("there is nothing"), 0);
    });
    store.close().await;
}

/// The base of a snapshot of a log that the store never saw, like one from another node.
fn base(index: u64) -> SnapshotBase {
    let (last, membership) = (EntryId::new(Term(1), Index(index)), members(Index(index)));
    SnapshotBase { last, last_checksum: 77, membership, membership_index: Index(index / 2) }
}

fn state(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 1000) as u8).collect()
}
