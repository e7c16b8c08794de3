//! Power failures: every acknowledged entry is there; an unacknowledged one may be; no other is.

use super::*;
use quorate_storage_testing::{Crash, Operation};

#[test]
fn a_write_that_was_cut_at_any_byte_loses_nothing_that_was_acknowledged() {
    let (disk, mut log, mut model) = with_some_entries();
    let acknowledged = model.clone();
    let unacknowledged = [model.append(2, 3, 200), model.append(2, 1, 0), model.append(3, 2, 31)];
    let bytes: usize = unacknowledged.iter().flat_map(|persist| &persist.batch).map(|batch| batch.bytes().len()).sum();
    disk.fail(Operation::Sync, 1);
    assert_eq!(persist(&mut log, &unacknowledged).expect_err("the sync fails").op, crate::StorageOp::Sync);

    let (records, slots) = (bytes as u64 + 32, 512 + 7 + 6 * 40);
    let mut discarded = 0;
    for bytes in 0..=records + slots {
        let disk = disk.fork();
        disk.crash(Crash::Torn { bytes });
        let (log, recovered) = opened(&disk);
        assert_eq!(recovered.faulty, [], "slots follow their records: cut at byte {bytes}");
        let found = Model::of(&log, &recovered);
        assert!(found.entries.starts_with(&acknowledged.entries), "cut at byte {bytes}");
        assert!(model.entries.starts_with(&found.entries), "cut at byte {bytes}");
        discarded += usize::from(recovered.repairs.iter().any(|line| line.starts_with("discarded a torn write")));
        assert_eq!(found == model, bytes + 4 > records, "all of it is there if all but a part of a checksum is");
        drop(log);
        disk.crash(Crash::Lose);
        assert_eq!(Model::on(&disk), found, "what recovery found is durable");
    }
    assert!(discarded > bytes / 2, "most cuts leave something to discard");
}

#[test]
fn stubs_that_were_cut_at_any_byte_lose_nothing_that_was_acknowledged() {
    let (disk, mut log, mut model) = with_some_entries();
    persist(&mut log, &[model.append_stubs(9, 3, 200)]).expect("it is persisted");
    let acknowledged = model.clone();
    let unacknowledged = [model.append_stubs(9, 3, 200), model.append_stubs(9, 2, 31)];
    let bytes: usize = unacknowledged.iter().flat_map(|persist| &persist.batch).map(|batch| batch.bytes().len()).sum();
    assert_eq!(bytes, 5 * 48);
    disk.fail(Operation::Sync, 1);
    persist(&mut log, &unacknowledged).expect_err("the sync fails");
    for bytes in 0..=bytes as u64 + 32 + 512 + 7 + 5 * 40 {
        let disk = disk.fork();
        disk.crash(Crash::Torn { bytes });
        let (log, recovered) = opened(&disk);
        let found = Model::of(&log, &recovered);
        assert_eq!(recovered.faulty, [], "cut at byte {bytes}");
        assert!(found.entries.starts_with(&acknowledged.entries), "cut at byte {bytes}");
        assert!(model.entries.starts_with(&found.entries), "cut at byte {bytes}");
    }
    let (mut faulty, mut whole) = (0, 0);
    for seed in 0..1000 {
        let disk = disk.fork();
        disk.crash(Crash::Scatter { seed });
        let (log, recovered) = opened(&disk);
        let found = Model::of(&log, &recovered);
        assert!(found.entries.starts_with(&acknowledged.entries), "seed {seed}: {:?}", recovered.repairs);
        assert!(model.entries.starts_with(&found.entries), "seed {seed}: {:?}", recovered.repairs);
        faulty += usize::from(!recovered.faulty.is_empty());
        whole += usize::from(found == model && recovered.faulty.is_empty());
    }
    assert!(faulty > 0 && whole > 0, "{faulty} with faulty entries, {whole} whole");
}

#[test]
fn sectors_of_a_write_that_arrived_in_any_order_lose_nothing_that_was_acknowledged() {
    let (mut faulty, mut whole) = (0, 0);
    for seed in 0..2000 {
        let (disk, mut log, mut model) = with_some_entries();
        if seed % 2 == 0 {
            log.settle().expect("there is time");
        }
        let acknowledged = model.clone();
        let unacknowledged = [model.append(2, 6, 100 + seed as usize % 900), model.append(3, 3, 300)];
        disk.fail(Operation::Sync, 1);
        persist(&mut log, &unacknowledged).expect_err("the sync fails");
        disk.crash(Crash::Scatter { seed });
        let (log, recovered) = opened(&disk);
        let found = Model::of(&log, &recovered);
        assert_unacknowledged(&recovered, &acknowledged, &format!("seed {seed}"));
        assert!(found.entries.starts_with(&acknowledged.entries), "seed {seed}: {:?}", recovered.repairs);
        assert!(model.entries.starts_with(&found.entries), "seed {seed}: {:?}", recovered.repairs);
        faulty += usize::from(!recovered.faulty.is_empty());
        whole += usize::from(found == model && recovered.faulty.is_empty());
    }
    assert!(faulty > 100 && whole > 0, "{faulty} with faulty entries, {whole} whole");
}

#[test]
fn a_group_whose_slots_arrived_without_its_records_is_known_not_to_be_proven_until_something_proves_it() {
    for is_proven in [false, true] {
        let (disk, mut log, mut model) = with_some_entries();
        persist(&mut log, &[model.append(3, 2, 100)]).expect("it is persisted");
        let last = model.last().0.index;
        if is_proven {
            log.settle().expect("there is time");
            disk.crash(Crash::Keep);
        }
        drop(log);
        let path = newest(&disk);
        let bytes = disk.contents(&path).expect("it is there");
        let record = model.entries.last().expect("there is one").bytes.to_vec();
        let at = bytes.windows(record.len()).position(|window| window == record).expect("it is there");
        assert!(disk.zero(&path, at..at + record.len()));
        for restart in ["the first time", "again"] {
            let (log, recovered) = opened(&disk);
            let [faulty] = recovered.faulty[..] else { panic!("one is faulty: {:?}", recovered.faulty) };
            assert_eq!((faulty.id.index, faulty.was_durable), (last, is_proven), "{restart}");
            assert_eq!(Model::of(&log, &recovered), model);
            drop(log);
        }
        let wal = Wal { discards_unproven: true, ..wal(&disk) };
        let (log, recovered) = open_with(wal).expect("it opens");
        assert_eq!(recovered.faulty.is_empty(), !is_proven);
        if !is_proven {
            model.entries.pop();
        }
        assert_eq!(Model::of(&log, &recovered), model);
    }
}

#[test]
fn a_vote_that_was_cut_at_any_byte_is_the_old_one_or_the_new_one() {
    let (disk, mut log, mut model) = with_some_entries();
    let old = model.clone();
    let vote = model.vote(10, 3);
    disk.fail(Operation::Sync, 1);
    persist(&mut log, &[vote]).expect_err("the sync fails");
    let mut outcomes = [0; 2];
    for bytes in 0..=8192 {
        let disk = disk.fork();
        disk.crash(Crash::Torn { bytes });
        let found = Model::on(&disk);
        assert!(found == old || found == model, "cut at byte {bytes}");
        outcomes[usize::from(found == model)] += 1;
    }
    assert!(outcomes.iter().all(|count| *count > 100), "both happen: {outcomes:?}");
}

#[test]
fn truncated_entries_never_come_back() {
    let (disk, mut log, mut model) = with_some_entries();
    for (from, term) in [(30, 4), (12, 5), (12, 6), (3, 7)] {
        let persists = [model.truncate(from), model.append(term, 1, 60)];
        persist(&mut log, &persists).expect("it is persisted");
        for crash in [Crash::Lose, Crash::Keep, Crash::Torn { bytes: 100 }, Crash::Scatter { seed: from }] {
            let disk = disk.fork();
            disk.crash(crash);
            assert_eq!(Model::on(&disk), model, "{crash:?}");
            let (mut log, _) = opened(&disk.fork());
            let mut model = model.clone();
            let more = model.append(term, 40, 60);
            persist(&mut log, &[more]).expect("it is persisted");
        }
    }
}

#[test]
fn a_truncation_that_was_cut_short_happened_or_did_not() {
    for seed in 0..300 {
        let (disk, mut log, mut model) = with_some_entries();
        let (old, from) = (model.clone(), 1 + seed % 40);
        let mut persists = vec![model.truncate(from)];
        let truncated = model.clone();
        persists.push(model.append(4, 5, 80));
        let operation = [Operation::Sync, Operation::SyncDir, Operation::Rename, Operation::Write][seed as usize % 4];
        disk.fail(operation, 1 + seed / 4 % 2);
        let is_done = persist(&mut log, &persists).is_ok();
        disk.crash(Crash::Scatter { seed });
        let (log, recovered) = opened(&disk);
        let found = Model::of(&log, &recovered);
        assert_unacknowledged(&recovered, if is_done { &model } else { &truncated }, &format!("seed {seed}"));
        assert!(!is_done || found == model, "seed {seed}");
        let is_new = found.entries.starts_with(&truncated.entries) && model.entries.starts_with(&found.entries);
        assert!(found == old || is_new, "seed {seed}: {found:?}");
    }
}

#[test]
fn bytes_that_a_failed_sync_left_in_memory_are_made_durable_before_they_are_believed() {
    let (disk, mut log, mut model) = with_some_entries();
    let persists = [model.vote(10, 2), model.append(10, 3, 100)];
    disk.fail(Operation::Sync, 2);
    persist(&mut log, &persists).expect_err("the sync fails");
    // The process restarts without a power failure, so the page cache is intact.
    drop(log);
    assert_eq!(Model::on(&disk), model);
    disk.crash(Crash::Lose);
    assert_eq!(Model::on(&disk), model);
}

#[test]
fn after_any_writes_and_any_power_cut_the_log_is_one_that_was_asked_for() {
    let mut faulty = 0;
    for seed in 0..150 {
        let mut random = Random(seed);
        let disk = SimulatedDisk::new();
        let mut acknowledged = Model::default();
        let (mut log, _) = opened(&disk);
        for round in 0..4 {
            let operations =
                [Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Rename, Operation::Open];
            disk.fail(operations[random.below(5)], 1 + random.below(12) as u64);
            let mut asked = vec![acknowledged.clone()];
            for _ in 0..random.below(12) {
                let mut model = asked.last().cloned().unwrap_or_default();
                let group: Vec<Persist> = (0..=random.below(4))
                    .map(|_| {
                        let persist = random.persist(&mut model, &mut asked);
                        asked.push(model.clone());
                        persist
                    })
                    .collect();
                if persist(&mut log, &group).is_err() {
                    break;
                }
                acknowledged = model;
                asked = vec![acknowledged.clone()];
                if random.below(2) == 0 && log.settle().is_err() {
                    break;
                }
            }
            drop(log);
            let fate = random.below(4);
            disk.crash([Crash::Lose, Crash::Keep, Crash::Torn { bytes: 777 }, Crash::Scatter { seed }][fate]);
            let (reopened, recovered) = opened(&disk);
            let context = format!("seed {seed}, round {round}, {:?}", recovered.repairs);
            let found = Model::of(&reopened, &recovered);
            assert_was_asked_for(&found, &asked, &context);
            // A requested truncation may have happened: only the acknowledged entries before it
            // must be there.
            let kept =
                acknowledged.entries.iter().zip(&found.entries).take_while(|(told, found)| told == found).count();
            let told = Model { entries: acknowledged.entries[..kept].to_vec(), ..acknowledged.clone() };
            assert_unacknowledged(&recovered, &told, &context);
            log = reopened;
            acknowledged = found;
            if let Some(first) = recovered.faulty.first() {
                faulty += 1;
                let discard = acknowledged.truncate(first.id.index.0);
                if persist(&mut log, &[discard]).is_err() {
                    break;
                }
            }
        }
    }
    assert!(faulty > 0, "some writes arrive without their records");
}

/// 55 entries of terms 1 and 2 in three segments, and a vote.
fn with_some_entries() -> (SimulatedDisk, Log, Model) {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    for term in [1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2] {
        let group = [model.vote(term, 1), model.append(term, 4, 600), model.append(term, 1, 33)];
        persist(&mut log, &group).expect("it is persisted");
    }
    persist(&mut log, &[model.vote(9, 1)]).expect("it is persisted");
    assert_eq!(log.sealed.len(), 2);
    log.close().expect("it is synced");
    (disk, log, model)
}

/// A linear congruential generator (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    /// Stages a random request; the model halfway through it goes to `asked`.
    fn persist(&mut self, model: &mut Model, asked: &mut Vec<Model>) -> Persist {
        let term = model.last().0.term.0 + self.below(2) as u64;
        let mut persist = Persist::default();
        if self.below(6) == 0 && !model.entries.is_empty() {
            let from = 1 + self.below(model.entries.len()) as u64;
            persist.truncate_from = model.truncate(from).truncate_from;
            asked.push(model.clone());
        }
        if self.below(4) > 0 {
            let bytes = [0, 20, 300, 2000, 20_000][self.below(5)];
            persist.batch = model.append(term.max(1), 1 + self.below(4), bytes).batch;
            asked.push(model.clone());
        }
        if self.below(4) == 0 {
            // Terms never decrease, even where the log is truncated.
            let later = model.hard_state.term.0.max(term) + 1;
            persist.hard_state = model.vote(later, 1 + self.below(3) as u64).hard_state;
        }
        persist
    }
}
