//! Log compaction: after a power failure at any point the log is the old or the new one, and no
//! needed file is removed.

use super::*;
use quorate_raft::{Membership, SnapshotBase};
use quorate_storage_testing::{Crash, Operation};
use std::io::Write;

#[test]
fn a_cut_removes_whole_segments_and_entries_after_it_stay() {
    let (disk, mut log, mut model) = long_log();
    let before = segments(&disk).len();
    for to in [1, 7, 30, 41, 60] {
        persist_idly(&mut log, &[model.cut(to)]).expect("it is persisted");
        assert_eq!(log.read(Index(to), Index(60), 1 << 20).expect("it is asked for"), [], "what was cut is not there");
        let read = log.read(Index(to + 1), Index(99), 1 << 20).expect("the rest is");
        assert_eq!(read.iter().map(|batch| u64::from(batch.count())).sum::<u64>(), 60 - to);
    }
    assert_eq!((segments(&disk).len(), log.sealed.len()), (1, 0), "of {before} one is left");
    persist_idly(&mut log, &[model.append(3, 2, 100)]).expect("it is persisted");
    drop(log);
    let (log, recovered) = opened(&disk);
    assert!(recovered.base.index <= Index(60), "a start finds what the files still hold");
    let found = Model::of(&log, &recovered);
    assert!(found.entries.ends_with(&model.entries), "{found:?}");
}

#[test]
fn a_log_that_does_not_hold_the_last_entry_of_a_cut_starts_over_after_it() {
    for to in [EntryId::new(Term(2), Index(100)), EntryId::new(Term(9), Index(30))] {
        let (disk, mut log, mut model) = long_log();
        let persists = [model.vote(9, 2), model.start_over(to, 77), model.append(9, 2, 30)];
        persist_idly(&mut log, &persists).expect("it is persisted");
        assert_eq!(segments(&disk).len(), 1, "the old ones are gone");
        drop(log);
        disk.crash(Crash::Lose);
        assert_eq!(Model::on(&disk), model);
        let (mut log, _) = opened(&disk);
        persist_idly(&mut log, &[model.truncate(to.index.0 + 1), model.append(10, 1, 3)]).expect("it is persisted");
        drop(log);
        assert_eq!(Model::on(&disk), model);
    }
}

/// A truncation keeps the effects of cuts before it.
#[test]
fn truncations_and_cuts_in_any_order_start_again_well_wherever_the_power_was_cut() {
    let mut crashes = 0;
    for operation in [Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Rename, Operation::Open] {
        for nth in 1.. {
            let (disk, mut log, mut model) = long_log();
            let mut asked = vec![model.clone()];
            disk.fail(operation, nth);
            let steps: [fn(&mut Model) -> Persist; 6] = [
                |model| model.cut(30),
                |model| model.truncate(45),
                |model| model.append(4, 20, 300),
                |model| model.start_over(EntryId::new(Term(4), Index(90)), 9),
                |model| model.append(4, 20, 300),
                |model| model.cut(100),
            ];
            let outcome = steps.into_iter().try_for_each(|step| {
                let step = step(&mut model);
                asked.push(model.clone());
                persist(&mut log, &[step])?;
                asked = vec![model.clone()];
                log.settle()
            });
            drop(log);
            for crash in [Crash::Lose, Crash::Keep, Crash::Torn { bytes: 900 }]
                .into_iter()
                .chain((0..6).map(|seed| Crash::Scatter { seed }))
            {
                let disk = disk.fork();
                disk.crash(crash);
                let (log, recovered) = opened(&disk);
                let found = Model::of(&log, &recovered);
                let context = format!("{operation:?} {nth} {crash:?}: {:?}", recovered.repairs);
                // Entries before the cut may still be there; those after it are the requested ones.
                let is_one = |asked: &Model| {
                    let after = |model: &Model| {
                        let entries = model.entries.iter().filter(|entry| entry.id.index > asked.base.0.index);
                        entries.cloned().collect::<Vec<_>>()
                    };
                    found.last().0.index >= asked.base.0.index && after(asked).starts_with(&after(&found))
                };
                assert!(asked.iter().any(is_one), "{context}: {found:?} is none of {asked:?}");
                let told = asked.first().map_or(Index(0), |asked| asked.last().0.index);
                assert!(
                    recovered.faulty.iter().all(|faulty| !faulty.was_durable && faulty.id.index > told.min(Index(44))),
                    "{context}"
                );
                crashes += 1;
            }
            if outcome.is_ok() {
                break;
            }
        }
    }
    assert!(crashes > 150, "{crashes}");
}

#[test]
fn a_cut_that_contradicts_the_log_is_refused_and_nothing_is_removed() {
    let (disk, mut log, model) = long_log();
    let cut = Cut { to: model.entries[29].id, checksum: Some(1) };
    let failure = log.stage(&Persist { cut: Some(cut), ..Persist::default() }).expect_err("another checksum");
    assert!(failure.error.to_string().contains("diverged"), "{}", failure.error);
    drop(log);
    assert_eq!(Model::on(&disk), model);
}

#[test]
fn a_truncation_whose_entries_do_not_follow_what_stays_touches_nothing() {
    let (disk, mut log, model) = long_log();
    let mut other = Model { entries: model.entries[..9].to_vec(), ..model.clone() };
    other.entries[8].checksum ^= 1;
    let diverging = Persist { truncate_from: Some(Index(10)), ..other.append(5, 1, 10) };
    let failure = log.stage(&diverging).expect_err("the logs have diverged");
    assert!(failure.error.to_string().contains("diverged"), "{}", failure.error);
    drop(log);
    assert_eq!(Model::on(&disk), model);
}

#[test]
fn a_snapshot_ahead_of_the_log_begins_it_anew_and_one_that_the_log_holds_does_not() {
    for (last, checksum) in [(EntryId::new(Term(3), Index(80)), 5), (EntryId::new(Term(3), Index(40)), 5)] {
        let (disk, mut log, mut model) = long_log();
        persist(&mut log, &[model.vote(3, 1)]).expect("it is persisted");
        save(&log, last, checksum);
        drop(log);
        for restart in 0..2 {
            let (log, recovered) = opened(&disk);
            assert_eq!((recovered.base, recovered.last, recovered.last_checksum), (last, last, checksum));
            assert_eq!(recovered.snapshot.map(|snapshot| snapshot.base.last), Some(last));
            assert_eq!(recovered.repairs.len(), 1 - restart, "{:?}", recovered.repairs);
            drop(log);
            disk.crash(Crash::Scatter { seed: 3 });
        }
    }
    let (disk, log, model) = long_log();
    save(&log, model.entries[39].id, model.entries[39].checksum);
    drop(log);
    assert_eq!(Model::on(&disk), model);
}

#[test]
fn entries_that_a_snapshot_covers_may_be_damaged_beyond_repair() {
    let (disk, log, model) = long_log();
    save(&log, model.entries[39].id, model.entries[39].checksum);
    drop(log);
    let oldest = segments(&disk)[0].clone();
    // Slots and records of it: all bytes are gone.
    assert!(disk.zero(&oldest, 8192..8192 + 16_000));
    let (log, recovered) = opened(&disk);
    assert!(recovered.repairs.iter().any(|line| line.contains("which a snapshot covers")), "{:?}", recovered.repairs);
    let found = Model::of(&log, &recovered);
    assert!(recovered.base.index < Index(40) && model.entries.ends_with(&found.entries));
    drop(log);
    // Once removed, it stays removed.
    let again = Model::on(&disk);
    assert_eq!(again, found);
}

#[test]
fn faulty_entries_that_a_snapshot_covers_need_no_repair() {
    let (disk, log, model) = long_log();
    save(&log, model.entries[39].id, model.entries[39].checksum);
    drop(log);
    for path in segments(&disk) {
        let bytes = disk.contents(&path).expect("it is there");
        for lost in [5, 38, 42] {
            let record = &model.entries[lost - 1].bytes;
            if let Some(at) = bytes.windows(record.len()).position(|window| window == record) {
                assert!(disk.zero(&path, at..at + record.len()));
            }
        }
    }
    let (log, recovered) = opened(&disk);
    assert_eq!(recovered.base, model.entries[37].id);
    assert_eq!(recovered.faulty.iter().map(|faulty| faulty.id.index.0).collect::<Vec<_>>(), [42]);
    assert!(model.entries.ends_with(&Model::of(&log, &recovered).entries));
}

/// A snapshot that can't be written, because the disk is full, leaves the log as it was.
#[test]
fn a_snapshot_that_could_not_be_saved_cuts_nothing() {
    let mut failures = 0;
    for bytes in (0..18_000).step_by(300) {
        let (disk, log, model) = long_log();
        disk.fill_after(bytes);
        let base = SnapshotBase { last: model.entries[39].id, last_checksum: 1, ..SnapshotBase::default() };
        let saved = log.snapshots().begin(base, None).and_then(|mut sink| {
            sink.write_all(&[1; 2000]).map_err(|error| crate::StorageError::within(error, crate::StorageOp::Write))?;
            sink.finish()
        });
        failures += usize::from(saved.is_err());
        drop(log);
        disk.fill_after(1 << 30);
        let (log, recovered) = opened(&disk);
        assert_eq!(recovered.snapshot.is_some(), saved.is_ok());
        assert_eq!(Model::of(&log, &recovered), model);
    }
    assert!((10..60).contains(&failures), "{failures}");
}

#[test]
fn snapshots_before_a_durable_cut_are_removed_and_the_newest_stays() {
    let (disk, mut log, mut model) = long_log();
    for last in [10, 20, 30] {
        save(&log, model.entries[last - 1].id, model.entries[last - 1].checksum);
    }
    persist(&mut log, &[model.cut(25)]).expect("it is persisted");
    let names: Vec<_> =
        disk.paths().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "snapshot")).collect();
    assert_eq!(names, [in_log("00000000000000000030-1.snapshot")]);
}

#[test]
#[should_panic(expected = "the log after entry 0@0 stays")]
fn a_segment_that_the_log_still_needs_is_never_removed() {
    let (_disk, mut log, mut model) = long_log();
    log.stage(&model.cut(50)).expect("staged");
    assert!(!log.cut_off.is_empty());
    (log.base, log.base_checksum) = (EntryId::default(), 0);
    drop(log.sync());
}

#[test]
#[should_panic(expected = "sealed once it is synced")]
fn a_segment_with_staged_records_is_never_sealed() {
    let (_disk, mut log, mut model) = long_log();
    log.stage(&model.append(4, 1, 10)).expect("staged");
    let (last, checksum) = (log.last, log.last_checksum);
    drop(log.roll(last, checksum, false, 0, 0));
}

/// Sixty entries of terms 1 and 2 in several segments, and a vote in term 4.
fn long_log() -> (SimulatedDisk, Log, Model) {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    persist(&mut log, &[model.vote(4, 1)]).expect("it is persisted");
    for term in [1, 1, 1, 2, 2, 2] {
        persist_idly(&mut log, &[model.append(term, 10, 550)]).expect("it is persisted");
    }
    assert_eq!(log.sealed.len(), 2);
    (disk, log, model)
}

fn save(log: &Log, last: EntryId, last_checksum: u32) {
    let membership = Membership::of_voters([NodeId(1)]);
    let base = SnapshotBase { last, last_checksum, membership, membership_index: Index(0) };
    let mut sink = log.snapshots().begin(base, None).expect("it begins");
    sink.write_all(b"the state").expect("it is written");
    sink.finish().expect("it is saved");
}
