//! Facts about the node and its peers that a store keeps: configurations, whether it ever
//! voted, and holdings.

use super::{
    Harness,
    model::{Log, append, cut, members, truncate},
    probe::Probe,
};
use quorate_raft::{HardState, Index, NodeId, Persist, Term};

pub(super) async fn run<H: Harness>(fresh: &impl Fn() -> H) {
    configurations_are_told_with_their_entries(&fresh()).await;
    a_vote_is_never_forgotten(&fresh()).await;
    remembered_holdings_are_known_after_a_restart(&fresh()).await;
}

async fn configurations_are_told_with_their_entries(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    let mut log = Log::of(&[(1, 3)], 20);
    store.persist_all(&log).await;
    for number in [4, 5, 6] {
        store.persist(append(log.membership(Term(2), &members(Index(number)))));
        store.await_all().await;
    }
    store.close().await;
    let configuration = |number: u64| (Index(number), members(Index(number)));

    let (mut store, recovered) = Probe::open(place).await;
    assert_eq!(recovered.memberships, [4, 5, 6].map(configuration));
    log.truncate(Index(6));
    store.persist(truncate(Index(6)));
    store.persist(append(log.batch(Term(3), 2, 20)));
    store.await_all().await;
    store.save(log.snapshot_base(Index(4)), b"state").await;
    store.persist(cut(log.cut(Index(4))));
    store.await_all().await;
    store.close().await;

    let (store, recovered) = Probe::open(place).await;
    log.assert_is(&recovered);
    let after: Vec<_> = recovered.memberships.into_iter().filter(|(index, _)| *index > Index(4)).collect();
    assert_eq!(after, [configuration(5)], "those of entries that are gone are gone");
    store.close().await;
}

async fn a_vote_is_never_forgotten(place: &impl Harness) {
    let states = [
        (HardState::new(Term(1), None), false),
        (HardState::new(Term(2), Some(NodeId(3))), true),
        (HardState::new(Term(3), None), true),
    ];
    for (state, has_voted) in states {
        let (mut store, _) = Probe::open(place).await;
        store.persist(Persist { hard_state: Some(state), ..Default::default() });
        store.await_all().await;
        store.close().await;
        let (store, recovered) = Probe::open(place).await;
        assert_eq!((recovered.hard_state, recovered.has_voted), (state, has_voted));
        store.close().await;
    }
}

async fn remembered_holdings_are_known_after_a_restart(place: &impl Harness) {
    let (mut store, _) = Probe::open(place).await;
    for (member, index) in [(3, 9), (2, 7), (2, 12), (5, 1)] {
        store.remember(NodeId(member), Index(index));
    }
    store.persist(append(Log::default().batch(Term(1), 1, 10)));
    store.await_all().await;
    store.close().await;
    for _ in 0..2 {
        let (store, recovered) = Probe::open(place).await;
        assert_eq!(recovered.holdings, [(NodeId(2), Index(12)), (NodeId(3), Index(9)), (NodeId(5), Index(1))]);
        store.close().await;
    }
}
