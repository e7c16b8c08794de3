//! Entries, term and vote: appended, truncated, read back, and acknowledged in order.

use super::{
    Harness,
    model::{Log, append, members, then, truncate},
    probe::{Probe, reply},
};
use quorate_raft::{HardState, Index, NodeId, Outgoing, Persist, Promise, Term};

pub(super) async fn run<H: Harness>(fresh: &impl Fn() -> H) {
    a_new_store_holds_nothing(&fresh()).await;
    persisted_state_is_found_after_a_restart(&fresh()).await;
    persists_are_told_in_order_and_each_once(&fresh()).await;
    an_empty_persist_is_told_after_the_ones_before_it(&fresh()).await;
    truncation_removes_entries_for_good(&fresh()).await;
    truncation_reaches_back_across_batches_and_terms(&fresh()).await;
    term_vote_and_promise_survive_and_the_last_ones_count(&fresh()).await;
    a_range_is_read_as_far_as_it_fits(&fresh()).await;
    a_range_that_is_not_there_is_empty(&fresh()).await;
    reads_see_the_persists_before_them(&fresh()).await;
    an_entry_of_any_size_comes_back(&fresh()).await;
    stubs_of_a_witness_come_back(&fresh()).await;
    an_append_that_does_not_follow_fails_the_store(&fresh()).await;
    another_members_data_is_refused(&fresh()).await;
}

async fn a_new_store_holds_nothing(place: &impl Harness) {
    for round in ["the first time", "again"] {
        let (store, recovered) = Probe::open(place).await;
        assert_eq!(recovered.hard_state, HardState::default(), "a new store has no term and no vote, {round}");
        assert_eq!((recovered.base, recovered.last), Default::default(), "a new log is empty, {round}");
        assert_eq!((recovered.last_checksum, recovered.terms.len()), (0, 0), "a new log is empty, {round}");
        assert_eq!((recovered.faulty.len(), recovered.snapshot), (0, None), "nothing is lost or saved, {round}");
        assert_eq!(
            (recovered.has_voted, recovered.holdings.len()),
            (false, 0),
            "it never voted, and knows no member, {round}"
        );
        store.close().await;
    }
}

async fn persisted_state_is_found_after_a_restart(place: &impl Harness) {
    let mut log = Log::default();
    for restart in 1..=4 {
        let (mut store, recovered) = Probe::open(place).await;
        log.assert_is(&recovered);
        store.persist(append(log.batch(Term(restart), 3, 100)));
        store.persist(append(log.batch(Term(restart), 2, 0)));
        store.await_persisted(2).await;
        store.assert_holds(&log).await;
        store.close().await;
    }
    let (mut store, recovered) = Probe::open(place).await;
    log.assert_is(&recovered);
    assert_eq!(recovered.terms, (1..=4).map(|term| (Index(term * 5 - 4), Term(term))).collect::<Vec<_>>());
    store.assert_holds(&log).await;
    store.close().await;
}

async fn persists_are_told_in_order_and_each_once(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::default();
    for number in 0..100 {
        store.persist(then(number, append(log.batch(Term(1), 1, 20))));
    }
    let told = store.await_persisted(100).await;
    assert!(told.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "sequences are told in order");
    let left: Vec<Outgoing> = told.into_iter().flat_map(|persisted| persisted.then).collect();
    assert_eq!(left, (0..100).map(reply).collect::<Vec<_>>(), "every reply leaves once, in order");
    store.assert_holds(&log).await;
    store.close().await;
}

async fn an_empty_persist_is_told_after_the_ones_before_it(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::default();
    store.persist(then(1, append(log.batch(Term(1), 10, 1000))));
    store.persist(then(2, Persist::default()));
    let told = store.await_persisted(2).await;
    let left: Vec<Outgoing> = told.into_iter().flat_map(|persisted| persisted.then).collect();
    assert_eq!(left, [reply(1), reply(2)]);
    store.persist(then(3, Persist::default()));
    let told = store.await_persisted(3).await;
    assert!(
        matches!(&told[..], [only] if only.then == [reply(3)]),
        "it is told although nothing was written: {told:?}"
    );
    store.close().await;
}

async fn truncation_removes_entries_for_good(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::default();
    store.persist(append(log.batch(Term(1), 10, 50)));
    log.truncate(Index(4));
    let persist = Persist { truncate_from: Some(Index(4)), ..append(log.batch(Term(2), 2, 50)) };
    store.persist(persist);
    store.await_persisted(2).await;
    store.assert_holds(&log).await;
    let mut store = store.restarted(place, &log).await;
    log.truncate(Index(5));
    store.persist(truncate(Index(5)));
    log.truncate(Index(1));
    store.persist(truncate(Index(1)));
    store.await_persisted(2).await;
    let mut store = store.restarted(place, &log).await;
    store.persist(append(log.batch(Term(3), 1, 50)));
    store.await_persisted(1).await;
    store.assert_holds(&log).await;
    store.close().await;
}

async fn truncation_reaches_back_across_batches_and_terms(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::default();
    for term in 1..=6 {
        store.persist(append(log.batch(Term(term), 7, 3000)));
    }
    for from in [40, 22, 11, 2] {
        log.truncate(Index(from));
        store.persist(truncate(Index(from)));
        store.persist(append(log.batch(Term(50 - from), 3, 40)));
    }
    store.await_persisted(14).await;
    store.assert_holds(&log).await;
    store.restarted(place, &log).await.close().await;
}

async fn term_vote_and_promise_survive_and_the_last_ones_count(place: &impl Harness) {
    let mut last = HardState::default();
    for restart in 0..3u64 {
        let (mut store, recovered) = Probe::open(place).await;
        assert_eq!(recovered.hard_state, last);
        for number in 1..=5 {
            let vote = (number != 3).then_some(NodeId(number));
            // A promise may grow or shrink without another term or vote.
            let promise = Promise([150_000, 0, 1_000_000, u32::MAX, 300_000][(number + restart) as usize % 5]);
            last = HardState { term: Term(10 * restart + number / 2), vote, promise };
            store.persist(Persist { hard_state: Some(last), ..Default::default() });
        }
        store.await_persisted(5).await;
        store.close().await;
    }
}

async fn a_range_is_read_as_far_as_it_fits(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::default();
    for term in [1, 1, 2, 3, 3, 3] {
        store.persist(append(log.batch(Term(term), 4, 100)));
    }
    store.await_persisted(6).await;
    let record_bytes = 140;
    for from in 1..=24 {
        for to in from..=25 {
            for entries_max in [0, 1, 2, 7, 100] {
                let batches = store.read(Index(from), Index(to), entries_max * record_bytes + 139).await;
                let count = (to.min(24) - from + 1).min(entries_max.max(1) as u64);
                log.assert_equal(&batches, Index(from), count);
            }
        }
    }
    store.close().await;
}

async fn a_range_that_is_not_there_is_empty(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::default();
    assert!(store.read(Index(1), Index(9), 1000).await.is_empty());
    store.persist(append(log.batch(Term(1), 3, 10)));
    for (from, to) in [(0, 0), (4, 4), (4, 9), (3, 2)] {
        assert!(store.read(Index(from), Index(to), 1000).await.is_empty(), "nothing is between {from} and {to}");
    }
    store.close().await;
}

async fn reads_see_the_persists_before_them(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::default();
    for _ in 0..20 {
        store.persist(append(log.batch(Term(1), 2, 300)));
        let last = log.last().0.index;
        let batches = store.read(last, last, usize::MAX).await;
        log.assert_equal(&batches, last, 1);
    }
    store.close().await;
}

async fn an_entry_of_any_size_comes_back(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::default();
    for bytes in [0, 1, 511, 512, 4096, 20_000, 100_000, 3 << 20, 5] {
        store.persist(append(log.batch(Term(1), 1, bytes)));
    }
    store.await_persisted(9).await;
    store.assert_holds(&log).await;
    store.restarted(place, &log).await.close().await;
}

async fn stubs_of_a_witness_come_back(place: &impl Harness) {
    let mut log = Log::default();
    for restart in 1..=2 {
        let (mut store, recovered) = Probe::open(place).await;
        log.assert_is(&recovered);
        for bytes in [100, 0, 5000] {
            store.persist(append(log.stubs(Term(restart), 3, bytes)));
        }
        store.persist(append(log.membership(Term(restart), &members(Index(restart)))));
        store.persist(append(log.stubs(Term(restart), 2, 70)));
        store.await_persisted(5).await;
        store.assert_holds(&log).await;
        store.close().await;
    }
    let (store, recovered) = Probe::open(place).await;
    log.assert_is(&recovered);
    assert_eq!(recovered.memberships.len(), 2, "configurations are kept whole");
    store.close().await;
}

async fn an_append_that_does_not_follow_fails_the_store(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::default();
    store.persist(append(log.batch(Term(1), 3, 10)));
    store.await_persisted(1).await;
    let mut other = Log::default();
    other.batch(Term(2), 3, 10);
    store.persist(append(other.batch(Term(2), 1, 10)));
    store.persist(append(log.batch(Term(1), 1, 10)));
    store.await_failed().await;
    store.persist(append(log.batch(Term(1), 1, 10)));
    store.close_failed().await;
}

async fn another_members_data_is_refused(place: &impl Harness) {
    let (store, _) = Probe::open(place).await;
    store.close().await;
    for (cluster, member) in [("conformance", NodeId(2)), ("another", NodeId(1))] {
        let (store, outcome) = Probe::try_open(place.open(), cluster, member).await;
        let error = outcome.expect_err("data of another member or cluster is refused").to_string();
        assert!(!error.contains('\n') && error.contains("belongs to"), "one line that says whose it is: {error}");
        store.close().await;
    }
    let (store, _) = Probe::open(place).await;
    store.close().await;
}
