//! A log's bounds and terms, compared with a plain list of entries.

use proptest::prelude::*;
use quorate_raft::{Batch, EntryId, Index, Log, Lookup, Term};
use quorate_world::fixtures::{batch, id};

/// The brute-force twin: every entry, one by one.
#[derive(Default)]
struct Twin {
    base: EntryId,
    entries: Vec<(Term, u32)>,
}

#[derive(Clone, Debug)]
enum Change {
    /// Replace from this fraction of the log on, with this many entries, of a term this much later.
    Replace { at: u8, count: u64, later: u64 },
    /// Compact this fraction of the log.
    Compact { at: u8 },
    /// A snapshot from beyond the log.
    Leap { by: u64 },
    /// Evict cached batches down to this size in bytes.
    Evict { bytes_max: usize },
}

proptest! {
    #[test]
    fn a_log_agrees_with_a_list_of_its_entries(changes in proptest::collection::vec(change(), 1..25)) {
        let (mut log, mut twin) = (Log::new(EntryId::default(), Vec::new(), EntryId::default(), 0), Twin::default());
        for change in changes {
            apply(&change, &mut log, &mut twin);
            compare(&log, &twin)?;
        }
    }
}

proptest! {
    /// A probe finds the entry where two logs part in at most one rejection per term of
    /// either (paper §5.3).
    #[test]
    fn repair_takes_a_round_trip_a_term(common in terms_list(), ours in terms_list(), theirs in terms_list()) {
        let log = |rest: &[u64]| log_of(&common.iter().chain(rest).copied().collect::<Vec<_>>());
        let (shared, start) = (common.len() as u64, common.last().copied().unwrap_or(0));
        // Two leaders of one term are impossible: after the common part, the two logs
        // share no term.
        let (leader, follower) = (log(&ours.iter().map(|term| start + term * 2).collect::<Vec<_>>()), log(&theirs.iter().map(|term| start + term * 2 - 1).collect::<Vec<_>>()));
        let (mut previous, mut rejections) = (leader.last().index, 0);
        while !follower.contains(leader.id_of(previous).expect("in the leader's log")) {
            let next = leader.next_after_conflict(follower.conflict_at(previous)).min(previous).min(follower.last().index.next());
            prop_assert!(next <= previous, "each probe is before the last");
            previous = next.previous();
            rejections += 1;
        }
        prop_assert!(previous.0 >= shared.min(leader.last().index.0).min(follower.last().index.0) || previous.0 == shared, "nothing that they share is sent again");
        let mut terms: Vec<u64> = theirs.clone();
        terms.dedup();
        prop_assert!(rejections <= terms.len() + 1, "{rejections} rejections");
    }
}

#[test]
fn a_snapshot_that_contradicts_the_log_replaces_it() {
    let mut log = log_of(&[1, 1, 2]);
    log.compact(id(2, 9), Some(77));
    assert_eq!((log.base(), log.last(), log.last_checksum()), (id(2, 9), id(2, 9), 77));
    assert_eq!(log.term_of(Index(3)), None);
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (any::<u8>(), 1u64..5, 0u64..3).prop_map(|(at, count, later)| Change::Replace { at, count, later }),
        2 => any::<u8>().prop_map(|at| Change::Compact { at }),
        1 => (1u64..4).prop_map(|by| Change::Leap { by }),
        2 => (0usize..300).prop_map(|bytes_max| Change::Evict { bytes_max }),
    ]
}

/// Terms that never go back, each at least 1.
fn terms_list() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(0u64..3, 0..12).prop_map(|steps| {
        steps
            .into_iter()
            .scan(1, |term, step| {
                *term += step;
                Some(*term)
            })
            .collect()
    })
}

fn log_of(terms: &[u64]) -> Log {
    let mut log = Log::new(EntryId::default(), Vec::new(), EntryId::default(), 0);
    for (at, term) in terms.iter().enumerate() {
        log.replace_from(batch(*term, at as u64 + 1, 1, log.last_checksum()));
    }
    log
}

fn apply(change: &Change, log: &mut Log, twin: &mut Twin) {
    let somewhere = |at: u8| u64::from(at) * (twin.entries.len() as u64) / 256;
    match *change {
        Change::Replace { at, count, later } => {
            // Mostly at the end, as logs grow.
            let keep = if at < 128 { twin.entries.len() } else { somewhere(at) as usize };
            twin.entries.truncate(keep);
            let previous = twin
                .entries
                .last()
                .map_or((twin.base.term, log.checksum_of(twin.base.index).unwrap_or(0)), |last| *last);
            let batch = batch(previous.0.0.max(1) + later, twin.base.index.0 + keep as u64 + 1, count, previous.1);
            twin.entries.extend(batch.records().map(|record| (record.id.term, record.checksum)));
            log.replace_from(batch);
        }
        Change::Compact { at } => {
            let cut = somewhere(at) as usize;
            if cut > 0 {
                let (term, checksum) = twin.entries[cut - 1];
                let to = EntryId::new(term, twin.base.index.plus(cut as u64));
                log.compact(to, Some(checksum));
                (twin.base, _) = (to, twin.entries.drain(..cut));
            }
        }
        Change::Leap { by } => {
            let to = EntryId::new(log.last().term.next(), log.last().index.plus(by));
            log.compact(to, Some(0));
            *twin = Twin { base: to, entries: Vec::new() };
        }
        Change::Evict { bytes_max } => log.evict(log.last().index, bytes_max),
    }
}

fn compare(log: &Log, twin: &Twin) -> Result<(), TestCaseError> {
    let last = twin.base.index.plus(twin.entries.len() as u64);
    prop_assert_eq!((log.base(), log.last().index), (twin.base, last));
    let entry = |index: u64| index.checked_sub(twin.base.index.0 + 1).and_then(|at| twin.entries.get(at as usize));
    for index in 0..last.0 + 3 {
        let term = if index == twin.base.index.0 { Some(twin.base.term) } else { entry(index).map(|entry| entry.0) };
        prop_assert_eq!(log.term_of(Index(index)), term, "index {}", index);
        if let Some(known) = log.checksum_of(Index(index)).filter(|_| index > twin.base.index.0) {
            prop_assert_eq!(Some(known), entry(index).map(|entry| entry.1));
        }
        match log.lookup(Index(index), last, usize::MAX) {
            Lookup::Cached(batch) => {
                prop_assert_eq!(batch.first(), Index(index));
                let held = |batch: &Batch| {
                    batch.records().all(|record| entry(record.id.index.0) == Some(&(record.id.term, record.checksum)))
                };
                prop_assert!(held(&batch));
            }
            Lookup::OnDisk(to) => prop_assert!(Index(index) <= to && to <= last && index > twin.base.index.0),
            Lookup::Compacted => prop_assert!(index <= twin.base.index.0),
            Lookup::Beyond => prop_assert!(index > last.0),
        }
        let conflict = log.conflict_at(Index(index));
        if index > twin.base.index.0 && !twin.entries.is_empty() {
            let at = index.min(last.0);
            let term = entry(at).map(|entry| entry.0).expect("inside");
            let first = (twin.base.index.0 + 1..=at).find(|index| entry(*index).is_some_and(|entry| entry.0 == term));
            prop_assert_eq!(Some((conflict.term, conflict.index.0)), first.map(|first| (term, first)));
        }
    }
    Ok(())
}
