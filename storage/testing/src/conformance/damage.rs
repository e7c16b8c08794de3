//! Silent damage at rest: refused, reported, or without effect; never returned as stored data.

use super::{
    Harness,
    model::{Log, append, cut},
    probe::{Probe, read_snapshot},
};
use quorate_raft::{HardState, Index, NodeId, Persist, Promise, Term};

/// Number of single-bit flips, each in a new place.
const FLIPS: u64 = 100;

/// Returns whether the harness can damage data.
pub(super) async fn run<H: Harness>(fresh: &impl Fn() -> H) -> bool {
    for seed in 0..FLIPS {
        if !a_flipped_bit_is_never_believed(&fresh(), seed).await {
            return false;
        }
    }
    true
}

async fn a_flipped_bit_is_never_believed(place: &impl Harness, seed: u64) -> bool {
    let state: Vec<u8> = (0..5000).map(|at| (at * 13) as u8).collect();
    let hard_state = HardState { term: Term(7), vote: Some(NodeId(2)), promise: Promise(150_000) };
    let mut log = Log::of(&[(1, 10), (2, 10)], 200);
    let (mut store, _) = Probe::open(place).await;
    store.persist_all(&log).await;
    store.persist(Persist { hard_state: Some(hard_state), ..Default::default() });
    let saved = store.save(log.snapshot_base(Index(8)), &state).await;
    if seed.is_multiple_of(2) {
        store.persist(cut(log.cut(Index(8))));
    }
    store.persist(append(log.batch(Term(3), 4, 200)));
    store.await_all().await;
    store.close().await;
    if !place.damage(seed) {
        return false;
    }

    let (mut store, outcome) = Probe::try_open(place.open(), "conformance", NodeId(1)).await;
    let Ok(recovered) = outcome else {
        store.close().await;
        return true;
    };
    assert_eq!((recovered.hard_state, recovered.has_voted), (hard_state, true), "seed {seed}");
    assert_eq!((recovered.last, recovered.last_checksum), log.last(), "an acknowledged entry is missing, seed {seed}");
    assert!(recovered.snapshot.as_ref().is_none_or(|found| *found == saved), "seed {seed}");
    if recovered.snapshot.is_some() {
        let read = store.source().await.and_then(read_snapshot);
        assert!(read.is_err() || read == Ok(state), "seed {seed}");
    }
    let lost: Vec<Index> = recovered.faulty.iter().map(|faulty| faulty.id.index).collect();
    let mut is_failed = false;
    // Entries that a snapshot covers need not be there.
    let base = log.base.0.index.max(recovered.base.index.min(saved.base.last.index));
    let held = (base.0 + 1..=log.last().0.index.0).map(Index).filter(|index| !lost.contains(index));
    for index in held {
        // An error is as good as a refusal: no completion follows it.
        let Ok(batches) = store.try_read(index, index, usize::MAX).await else {
            is_failed = true;
            break;
        };
        log.assert_equal(&batches, index, 1);
    }
    if is_failed {
        store.close_failed().await
    } else {
        store.close().await
    }
    true
}
