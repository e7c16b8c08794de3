//! Log compaction: a cut to an entry that the store holds, and to one that it does not.

use super::{
    Harness,
    model::{Log, append, cut, members, then, truncate},
    probe::{Probe, reply},
};
use quorate_raft::{Cut, EntryId, Index, Outgoing, Persist, SnapshotBase, Term};

pub(super) async fn run<H: Harness>(fresh: &impl Fn() -> H) {
    a_cut_drops_the_beginning_and_keeps_the_rest(fresh).await;
    a_cut_after_the_last_entry_leaves_its_checksum(&fresh()).await;
    a_cut_is_done_before_the_rest_of_its_request_and_told_in_order(&fresh()).await;
    a_cut_to_what_is_gone_already_changes_nothing(&fresh()).await;
    a_cut_to_what_the_log_does_not_hold_starts_it_over(fresh).await;
    a_log_that_holds_another_entry_there_starts_over_too(fresh).await;
    a_snapshot_ahead_of_the_log_begins_it(fresh).await;
    a_snapshot_within_the_log_leaves_it_alone(&fresh()).await;
}

async fn a_cut_drops_the_beginning_and_keeps_the_rest<H: Harness>(fresh: &impl Fn() -> H) {
    // Before, at and after the ends of batches and terms; and across small segments.
    for (to, payload_bytes) in [1, 2, 3, 9, 10, 11, 23].into_iter().flat_map(|to| [(to, 30), (to, 3000)]) {
        let (place, mut log) = (fresh(), Log::of(&[(1, 10), (3, 10), (4, 4)], payload_bytes));
        let (mut store, _) = Probe::open(&place).await;
        store.persist_all(&log).await;
        let saved = store.save(log.snapshot_base(Index(to)), b"state").await;
        let before = log.clone();
        // The store may know the checksum itself.
        let asked = log.cut(Index(to));
        store.persist(cut(Cut { checksum: asked.checksum.filter(|_| to % 2 == 0), ..asked }));
        store.await_all().await;
        store.assert_holds(&log).await;
        let gone = store.read(Index(to), Index(24), 100).await;
        if !gone.is_empty() {
            before.assert_equal(&gone, Index(to), gone.iter().map(|batch| u64::from(batch.count())).sum());
        }
        store.persist(append(log.batch(Term(4), 2, payload_bytes)));
        store.await_all().await;
        store.assert_holds(&log).await;
        store.close().await;

        for _ in 0..2 {
            let (mut store, recovered) = Probe::open(&place).await;
            log.assert_is(&recovered);
            assert_eq!(recovered.snapshot.as_ref(), Some(&saved));
            store.assert_holds(&log).await;
            store.persist(append(log.batch(Term(5), 1, payload_bytes)));
            store.await_all().await;
            store.close().await;
        }
    }
}

async fn a_cut_after_the_last_entry_leaves_its_checksum(place: &impl Harness) {
    let mut log = Log::of(&[(2, 7)], 100);
    let (mut store, _) = Probe::open(place).await;
    store.persist_all(&log).await;
    store.save(log.snapshot_base(Index(7)), b"state").await;
    store.persist(cut(log.cut(Index(7))));
    store.await_all().await;
    let mut store = store.restarted(place, &log).await;
    store.persist(append(log.batch(Term(3), 2, 100)));
    store.await_all().await;
    store.assert_holds(&log).await;
    store.restarted(place, &log).await.close().await;
}

async fn a_cut_is_done_before_the_rest_of_its_request_and_told_in_order(place: &impl Harness) {
    let mut log = Log::of(&[(1, 12)], 50);
    let (mut store, _) = Probe::open(place).await;
    store.persist_all(&log).await;
    store.save(log.snapshot_base(Index(5)), b"state").await;
    let first = store.persist(then(1, append(log.batch(Term(1), 1, 50))));
    let asked = log.cut(Index(5));
    log.truncate(Index(8));
    let all = Persist { cut: Some(asked), truncate_from: Some(Index(8)), ..append(log.batch(Term(2), 2, 50)) };
    store.persist(then(2, all));
    store.persist(then(3, Persist::default()));
    let told = store.await_all().await;
    assert!(told.iter().all(|persisted| persisted.sequence >= first));
    let left: Vec<Outgoing> = told.into_iter().flat_map(|persisted| persisted.then).collect();
    assert_eq!(left, [1, 2, 3].map(reply));
    store.assert_holds(&log).await;
    store.restarted(place, &log).await.close().await;
}

async fn a_cut_to_what_is_gone_already_changes_nothing(place: &impl Harness) {
    let mut log = Log::of(&[(1, 12)], 50);
    let (mut store, _) = Probe::open(place).await;
    store.persist_all(&log).await;
    store.save(log.snapshot_base(Index(9)), b"state").await;
    let earlier = log.clone().cut(Index(4));
    let asked = log.cut(Index(9));
    for asked in [asked, earlier, asked] {
        store.persist(cut(asked));
        store.await_all().await;
        store.assert_holds(&log).await;
    }
    store.restarted(place, &log).await.close().await;
}

async fn a_cut_to_what_the_log_does_not_hold_starts_it_over<H: Harness>(fresh: &impl Fn() -> H) {
    for held in [Log::default(), Log::of(&[(1, 10)], 50), Log::of(&[(1, 40)], 3000)] {
        let place = fresh();
        let (mut store, _) = Probe::open(&place).await;
        store.persist_all(&held).await;
        install(&mut store, 50).await;
        store.close().await;
        goes_on_after(&place, 50).await;
    }
}

async fn a_log_that_holds_another_entry_there_starts_over_too<H: Harness>(fresh: &impl Fn() -> H) {
    for payload_bytes in [20, 3000] {
        let place = fresh();
        let (mut store, _) = Probe::open(&place).await;
        store.persist_all(&Log::of(&[(1, 10), (2, 10)], payload_bytes)).await;
        install(&mut store, 12).await;
        assert!(store.read(Index(13), Index(20), 1000).await.is_empty(), "what stood after it is gone");
        store.close().await;
        goes_on_after(&place, 12).await;
    }
}

async fn a_snapshot_ahead_of_the_log_begins_it<H: Harness>(fresh: &impl Fn() -> H) {
    // The state after a crash between snapshot and cut. The last snapshot ends within the log, but
    // is of another log.
    for (held, last) in [(Log::default(), 7), (Log::of(&[(1, 5), (2, 5)], 50), 50), (Log::of(&[(1, 5), (2, 5)], 50), 7)]
    {
        let place = fresh();
        let (mut store, _) = Probe::open(&place).await;
        store.persist_all(&held).await;
        store.save(foreign(last), b"state").await;
        store.close().await;
        goes_on_after(&place, last).await;
    }
}

async fn a_snapshot_within_the_log_leaves_it_alone(place: &impl Harness) {
    let log = Log::of(&[(1, 5), (2, 5)], 50);
    let (mut store, _) = Probe::open(place).await;
    store.persist_all(&log).await;
    store.save(log.snapshot_base(Index(7)), b"state").await;
    store.close().await;
    for _ in 0..2 {
        let (mut store, recovered) = Probe::open(place).await;
        log.assert_is_exactly(&recovered);
        store.assert_holds(&log).await;
        store.close().await;
    }
}

/// Installs a snapshot of another log.
async fn install(store: &mut Probe, last: u64) {
    let base = foreign(last);
    store.save(base.clone(), b"state").await;
    store.persist(cut(Cut { to: base.last, checksum: Some(base.last_checksum) }));
    store.await_all().await;
    assert!(store.read(Index(1), Index(last), 1000).await.is_empty(), "nothing is left of the log");
}

/// The log durably begins right after the snapshot, and continues there.
async fn goes_on_after(place: &impl Harness, last: u64) {
    let base = foreign(last);
    let mut log = Log::after(base.last, base.last_checksum);
    for _ in 0..3 {
        let (mut store, recovered) = Probe::open(place).await;
        log.assert_is_exactly(&recovered);
        assert_eq!(recovered.snapshot.map(|found| found.base), Some(base.clone()));
        assert!(recovered.memberships.is_empty());
        store.persist(append(log.batch(Term(9), 3, 400)));
        store.await_all().await;
        store.assert_holds(&log).await;
        store.close().await;
    }
    let (mut store, _) = Probe::open(place).await;
    log.truncate(Index(last).next().next());
    store.persist(truncate(Index(last).next().next()));
    store.await_all().await;
    store.close().await;
    let (mut store, recovered) = Probe::open(place).await;
    log.assert_is_exactly(&recovered);
    store.assert_holds(&log).await;
    store.close().await;
}

fn foreign(last: u64) -> SnapshotBase {
    SnapshotBase {
        last: EntryId::new(Term(8), Index(last)),
        last_checksum: 0x00c0_ffee,
        membership: members(Index(last)),
        membership_index: Index(1),
    }
}
