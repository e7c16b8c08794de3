//! Power failures and errors: persisted data stays, and after an error no completion follows.

use super::{
    Fault, Harness,
    model::{Log, append, cut, truncate},
    probe::{Probe, Told, elsewhere},
};
use quorate_raft::{HardState, Index, NodeId, Persist, Promise, Term};
use quorate_storage::contract::{Recovered, StorageError, StorageOp};
use std::io::Write;

/// Returns whether the harness can cut the power.
pub(super) async fn run<H: Harness>(fresh: &impl Fn() -> H) -> bool {
    if !fresh().crash(0) {
        return false;
    }
    for seed in 0..40 {
        acknowledged_state_survives_a_power_cut_at_any_moment(&fresh(), seed).await;
    }
    for seed in 0..10 {
        a_power_cut_leaves_snapshots_whole_or_not_there(&fresh(), seed).await;
        a_power_cut_amid_a_cut_leaves_the_log_before_or_after_it(&fresh(), seed).await;
    }
    true
}

/// Returns whether the harness can make operations fail.
pub(super) async fn run_failing<H: Harness>(fresh: &impl Fn() -> H) -> bool {
    for fault in [Fault::Write, Fault::Sync] {
        let place = fresh();
        let (store, _) = Probe::open(&place).await;
        let can_fail = place.fail_next(fault);
        store.last_words().await;
        if !can_fail {
            return false;
        }
        an_error_is_the_last_word(&fresh(), fault).await;
        an_error_of_a_snapshot_fails_that_snapshot_alone(&fresh(), fault).await;
    }
    true
}

async fn acknowledged_state_survives_a_power_cut_at_any_moment(place: &impl Harness, seed: u64) {
    let mut random = Random(seed);
    let (mut store, _) = Probe::open(place).await;
    let mut steps = vec![Step::default()];
    let mut told = 0;
    for _ in 0..1 + random.below(15) {
        let (step, persist) = steps[steps.len() - 1].next(&mut random);
        steps.push(step);
        let sequence = store.persist(persist);
        if random.below(2) == 0 {
            store.await_persisted(sequence).await;
            told = sequence;
        }
    }
    assert!(place.crash(seed), "the harness can cut the power");
    for word in store.last_words().await {
        if let Told::Persisted(persisted) = word {
            told = persisted.sequence;
        }
    }

    let (mut store, recovered) = Probe::open(place).await;
    let states = (told as usize..steps.len()).map(|step| steps[step].hard_state);
    assert!(
        states.into_iter().any(|state| state == recovered.hard_state),
        "a term, vote or promise was lost, seed {seed}"
    );
    let found = (told as usize..steps.len()).find_map(|step| {
        let before = (step > told as usize).then(|| &steps[step - 1]);
        steps[step].log_as_of(&recovered, before)
    });
    let mut log = found.unwrap_or_else(|| {
        panic!("of {} requests {told} were told, found {recovered:?}, seed {seed}", steps.len() - 1)
    });
    let lost: Vec<_> = recovered.faulty.iter().map(|faulty| faulty.id).collect();
    let acknowledged = &steps[told as usize].log;
    assert!(lost.iter().all(|id| acknowledged.entry(id.index).0 != *id), "an acknowledged entry is lost, seed {seed}");
    if lost.is_empty() {
        store.assert_holds(&log).await;
        store.persist(append(log.batch(Term(100), 2, 100)));
        store.await_all().await;
        store.close().await;
        let (next, recovered) = Probe::open(place).await;
        store = next;
        log.assert_is(&recovered);
        store.assert_holds(&log).await;
    }
    store.close().await;
}

/// The expected content of a store after a request.
#[derive(Clone, Default)]
struct Step {
    log: Log,
    hard_state: HardState,
    /// The first index that the request truncated, if it did.
    truncated_from: Option<Index>,
}

impl Step {
    fn next(&self, random: &mut Random) -> (Self, Persist) {
        let mut step = Self { truncated_from: None, ..self.clone() };
        let (last, mut persist) = (self.log.last().0, Persist::default());
        let mut term = Term(last.term.0.max(1));
        if last.index > Index(1) && random.below(4) == 0 {
            let from = Index(last.index.0 - random.below(last.index.0.min(8)));
            step.log.truncate(from);
            (step.truncated_from, persist) = (Some(from), truncate(from));
            term = Term(last.term.0 + 1);
        }
        if random.below(4) > 0 {
            let bytes = [0, 20, 700, 9000][random.below(4) as usize];
            persist.batch = Some(step.log.batch(term, 1 + random.below(5) as usize, bytes));
        }
        if random.below(3) == 0 {
            let next = self.hard_state.term.0 + 1;
            let promise = Promise(random.below(1_000_000) as u32);
            step.hard_state = HardState { term: Term(next), vote: Some(NodeId(next % 3 + 1)), promise };
            persist.hard_state = Some(step.hard_state);
        }
        if step.hard_state.term < step.log.last().0.term {
            // No node has an entry of a term that it has not stored; a store may treat one as
            // a lost vote.
            step.hard_state = HardState { term: step.log.last().0.term, vote: None, ..step.hard_state };
            persist.hard_state = Some(step.hard_state);
        }
        (step, persist)
    }

    /// Returns the recovered log if it is the one of this step, or a prefix of it if the step
    /// was not acknowledged.
    fn log_as_of(&self, recovered: &Recovered, before: Option<&Self>) -> Option<Log> {
        let (last, end) = (recovered.last, self.log.last());
        let least = match before {
            None => end.0.index,
            Some(before) => {
                let kept = self.truncated_from.map_or(before.log.last().0.index, Index::previous);
                kept.min(end.0.index)
            }
        };
        let is_part = (least..=end.0.index).contains(&last.index)
            && self.log.entry(last.index) == (last, recovered.last_checksum);
        is_part.then(|| {
            let mut log = self.log.clone();
            log.truncate(last.index.next());
            log
        })
    }
}

async fn a_power_cut_leaves_snapshots_whole_or_not_there(place: &impl Harness, seed: u64) {
    let log = Log::of(&[(1, 20)], 100);
    let (mut store, _) = Probe::open(place).await;
    store.persist_all(&log).await;
    let mut saved = None;
    for index in [5, 10] {
        let state = vec![index as u8; 500_000];
        let mut sink = store.begin(log.snapshot_base(Index(index)), None).await;
        let sink = elsewhere(move || sink.write_all(&state).map(|()| sink)).expect("it can be written");
        place.crash(seed);
        elsewhere(move || drop(sink));
        store.last_words().await;
        let (next, recovered) = Probe::open(place).await;
        assert_eq!(recovered.snapshot, saved, "what was not finished does not count, seed {seed}");
        log.assert_is(&recovered);

        let snapshot = next.save(log.snapshot_base(Index(index)), &vec![index as u8; 400_000]).await;
        place.crash(seed + 1);
        next.last_words().await;
        let (next, recovered) = Probe::open(place).await;
        assert_eq!(recovered.snapshot.as_ref(), Some(&snapshot), "what was finished counts, seed {seed}");
        next.assert_holds_snapshot(&snapshot, &vec![index as u8; 400_000]).await;
        (store, saved) = (next, Some(snapshot));
    }
    store.close().await;
}

async fn a_power_cut_amid_a_cut_leaves_the_log_before_or_after_it(place: &impl Harness, seed: u64) {
    let mut log = Log::of(&[(1, 20)], 1000);
    let (mut store, _) = Probe::open(place).await;
    store.persist_all(&log).await;
    let saved = store.save(log.snapshot_base(Index(10)), b"state").await;
    let asked = log.cut(Index(10));
    store.persist(cut(asked));
    if seed.is_multiple_of(2) {
        store.await_all().await;
    }
    place.crash(seed);
    store.last_words().await;
    let (mut store, recovered) = Probe::open(place).await;
    log.assert_is(&recovered);
    assert_eq!(recovered.snapshot, Some(saved));
    store.assert_holds(&log).await;

    // And a cut to an entry that it does not hold: the snapshot exists, so the log begins after it
    // in either case.
    let mut base = log.snapshot_base(Index(20));
    (base.last.index, base.last.term) = (Index(30), Term(2));
    let log = Log::after(base.last, base.last_checksum);
    store.save(base.clone(), b"state").await;
    store.persist(cut(quorate_raft::Cut { to: base.last, checksum: Some(base.last_checksum) }));
    if seed.is_multiple_of(3) {
        store.await_all().await;
    }
    place.crash(seed);
    store.last_words().await;
    let (store, recovered) = Probe::open(place).await;
    log.assert_is_exactly(&recovered);
    assert_eq!(recovered.snapshot.map(|found| found.base), Some(base));
    store.close().await;
}

async fn an_error_is_the_last_word(place: &impl Harness, fault: Fault) {
    let mut log = Log::default();
    let (mut store, _) = Probe::open(place).await;
    store.persist(append(log.batch(Term(1), 3, 100)));
    store.await_all().await;
    let mut steps = vec![log.clone()];
    place.fail_next(fault);
    // A store may prepare files ahead, or read from memory; but soon it must write.
    let mut told = 0;
    for sequence in 1..=50 {
        store.persist(append(log.batch(Term(1), 1, 100)));
        steps.push(log.clone());
        match store.next().await {
            Some(Told::Persisted(_)) => told = sequence,
            Some(Told::Failed(error)) => {
                assert!(!error.to_string().contains('\n'), "an error is one line: {error}");
                break;
            }
            other => panic!("waited for a failure, was told {other:?}"),
        }
        assert!(sequence < 50, "{fault:?} failed, and the store did not report it");
    }
    store.persist(append(log.batch(Term(1), 1, 100)));
    store.persist(Persist::default());
    store.close_failed().await;
    let (mut store, recovered) = Probe::open(place).await;
    let found = steps.iter().skip(told).find(|step| step.last() == (recovered.last, recovered.last_checksum));
    let found = found.unwrap_or_else(|| panic!("{told} appends were told, found {recovered:?}"));
    if recovered.faulty.is_empty() {
        store.assert_holds(found).await;
    }
    store.close().await;
}

async fn an_error_of_a_snapshot_fails_that_snapshot_alone(place: &impl Harness, fault: Fault) {
    let mut log = Log::of(&[(1, 9)], 100);
    let (mut store, _) = Probe::open(place).await;
    store.persist_all(&log).await;
    let older = store.save(log.snapshot_base(Index(3)), b"older").await;
    let mut sink = store.begin(log.snapshot_base(Index(6)), None).await;
    place.fail_next(fault);
    let outcome = elsewhere(move || {
        sink.write_all(&vec![7; 600_000])
            .map_err(|error| StorageError::within(error, StorageOp::Write))
            .and_then(|()| sink.finish())
    });
    let error = outcome.expect_err("the error is told").to_string();
    assert!(!error.contains('\n'), "an error is one line: {error}");
    store.assert_holds_snapshot(&older, b"older").await;
    store.persist(append(log.batch(Term(1), 2, 100)));
    store.await_all().await;
    let newer = store.save(log.snapshot_base(Index(6)), b"newer").await;
    store.close().await;
    let (mut store, recovered) = Probe::open(place).await;
    log.assert_is(&recovered);
    assert_eq!(recovered.snapshot, Some(newer));
    store.assert_holds(&log).await;
    store.close().await;
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
