//! Entries with lost payloads: reported with their identities, never returned, repaired in place.

use super::{
    Harness,
    model::{Log, append, cut, repair, truncate},
    probe::Probe,
};
use quorate_raft::{EntryId, Index, Term};
use quorate_storage::contract::Recovered;

/// Returns whether the harness can lose entries.
pub(super) async fn run<H: Harness>(fresh: &impl Fn() -> H) -> bool {
    {
        let place = fresh();
        persist(&place, &Log::of(&[(1, 1)], 50)).await;
        if !place.lose(Index(1)) {
            return false;
        }
    }
    lost_entries_are_told_and_never_read(fresh).await;
    a_repaired_entry_is_whole_for_good(fresh).await;
    a_repair_with_something_else_fails_the_store_and_changes_nothing(&fresh()).await;
    a_log_with_a_lost_entry_goes_on(&fresh()).await;
    a_lost_entry_that_is_removed_is_forgotten(&fresh()).await;
    true
}

async fn lost_entries_are_told_and_never_read<H: Harness>(fresh: &impl Fn() -> H) {
    for lost in [&[1][..], &[5], &[10], &[3, 4], &[2, 9, 10]] {
        let (place, log) = (fresh(), log());
        persist(&place, &log).await;
        lose(&place, lost);
        for _ in 0..2 {
            let (mut store, recovered) = Probe::open(&place).await;
            log.assert_is(&recovered);
            assert_faulty(&log, &recovered, lost);
            for from in 1..=10 {
                let batches = store.read(Index(from), Index(10), usize::MAX).await;
                let end = lost.iter().copied().filter(|lost| *lost >= from).min().unwrap_or(11);
                log.assert_equal(&batches, Index(from), end - from);
            }
            store.close().await;
        }
    }
}

async fn a_repaired_entry_is_whole_for_good<H: Harness>(fresh: &impl Fn() -> H) {
    for (lost, first, last) in [(4, 4, 4), (4, 1, 5), (10, 6, 10), (1, 1, 2), (6, 6, 8)] {
        let (place, log) = (fresh(), log());
        persist(&place, &log).await;
        lose(&place, &[lost]);
        let (mut store, _) = Probe::open(&place).await;
        // Whole entries among them stay unchanged.
        store.persist(repair(log.slice(Index(first), Index(last))));
        store.await_all().await;
        store.assert_holds(&log).await;
        store.close().await;
        let (mut store, recovered) = Probe::open(&place).await;
        log.assert_is(&recovered);
        assert_faulty(&log, &recovered, &[]);
        store.assert_holds(&log).await;
        store.close().await;
    }
}

async fn a_repair_with_something_else_fails_the_store_and_changes_nothing(place: &impl Harness) {
    let log = log();
    persist(place, &log).await;
    lose(place, &[4]);
    let others = [Log::of(&[(1, 5), (2, 5)], 51), Log::of(&[(2, 10)], 50)];
    for other in others {
        let (mut store, _) = Probe::open(place).await;
        store.persist(repair(other.slice(Index(4), Index(4))));
        store.await_failed().await;
        store.close_failed().await;
        let (store, recovered) = Probe::open(place).await;
        assert_faulty(&log, &recovered, &[4]);
        store.close().await;
    }
    let (mut store, _) = Probe::open(place).await;
    store.persist(repair(log.slice(Index(4), Index(4))));
    store.await_all().await;
    store.assert_holds(&log).await;
    store.close().await;
}

async fn a_log_with_a_lost_entry_goes_on(place: &impl Harness) {
    let mut log = log();
    persist(place, &log).await;
    lose(place, &[4, 10]);
    for _ in 0..2 {
        let (mut store, recovered) = Probe::open(place).await;
        log.assert_is(&recovered);
        assert_faulty(&log, &recovered, &[4, 10]);
        let first = log.last().0.index.next();
        store.persist(append(log.batch(Term(3), 2, 50)));
        store.await_all().await;
        log.assert_equal(&store.read(first, first.next(), usize::MAX).await, first, 2);
        store.close().await;
    }
    let (mut store, _) = Probe::open(place).await;
    store.persist(repair(log.slice(Index(4), Index(5))));
    store.persist(repair(log.slice(Index(10), Index(10))));
    store.await_all().await;
    store.assert_holds(&log).await;
    store.close().await;
    let (store, recovered) = Probe::open(place).await;
    assert_faulty(&log, &recovered, &[]);
    store.close().await;
}

async fn a_lost_entry_that_is_removed_is_forgotten(place: &impl Harness) {
    let mut log = log();
    persist(place, &log).await;
    lose(place, &[2, 9]);
    let (mut store, _) = Probe::open(place).await;
    log.truncate(Index(8));
    store.persist(truncate(Index(8)));
    store.persist(append(log.batch(Term(5), 3, 50)));
    store.await_all().await;
    store.close().await;
    let (mut store, recovered) = Probe::open(place).await;
    log.assert_is(&recovered);
    assert_faulty(&log, &recovered, &[2]);
    store.save(log.snapshot_base(Index(5)), b"state").await;
    store.persist(cut(log.cut(Index(5))));
    store.await_all().await;
    store.assert_holds(&log).await;
    store.close().await;
    let (store, recovered) = Probe::open(place).await;
    log.assert_is(&recovered);
    // A store that keeps data in larger pieces may still report entries before the cut.
    assert!(recovered.faulty.iter().all(|faulty| faulty.id.index <= Index(5)), "{:?}", recovered.faulty);
    store.close().await;
}

fn log() -> Log {
    Log::of(&[(1, 5), (2, 5)], 50)
}

async fn persist(place: &impl Harness, log: &Log) {
    let (mut store, _) = Probe::open(place).await;
    store.persist_all(log).await;
    store.close().await;
}

fn lose(place: &impl Harness, entries: &[u64]) {
    for entry in entries {
        assert!(place.lose(Index(*entry)), "the harness can lose entry {entry}");
    }
}

fn assert_faulty(log: &Log, recovered: &Recovered, indexes: &[u64]) {
    let told: Vec<(EntryId, u32)> = recovered.faulty.iter().map(|faulty| (faulty.id, faulty.checksum)).collect();
    let wanted: Vec<_> = indexes.iter().map(|index| log.entry(Index(*index))).collect();
    assert_eq!(told, wanted, "the entries that were lost are told, with their checksums, and no others");
}
