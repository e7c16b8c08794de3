//! Disk errors: each is final, and none loses an acknowledged entry.

use super::*;
use crate::{contract::StorageObserver, wal::next_segment::PARTS};
use quorate_storage_testing::{Crash, Operation};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[test]
fn an_error_of_any_operation_loses_nothing_that_was_acknowledged() {
    use Operation::{Open, Read, Rename, Sync, SyncDir, Write};
    for operation in [Open, Read, Write, Sync, SyncDir, Rename] {
        let mut failures = 0;
        for nth in 1.. {
            let disk = SimulatedDisk::new();
            disk.fail(operation, nth);
            let (asked, outcome) = work(&disk);
            let Err(failure) = outcome else { break };
            failures += 1;
            let line = failure.error.to_string();
            assert!(line.starts_with("can't ") && line.contains("log") && !line.contains('\n'), "{line}");
            for crash in [None, Some(Crash::Lose), Some(Crash::Keep), Some(Crash::Torn { bytes: 300 })] {
                let disk = disk.fork();
                crash.inspect(|crash| disk.crash(*crash));
                let found = Model::on(&disk);
                assert_was_asked_for(&found, &asked, &format!("{operation:?} {nth} {crash:?}"));
            }
        }
        assert!(failures > 0, "{operation:?} is part of the work");
    }
}

#[test]
fn a_full_disk_is_named_and_loses_nothing_that_was_acknowledged() {
    let mut failures = 0;
    for bytes in (0..160_000).step_by(997) {
        let disk = SimulatedDisk::new();
        disk.fill_after(bytes);
        let (asked, outcome) = work(&disk);
        let Err(failure) = outcome else { continue };
        failures += 1;
        let line = failure.error.to_string();
        assert!(line.contains("No space left on device") && line.contains("free space"), "{line}");
        disk.fill_after(1 << 30);
        disk.crash(Crash::Lose);
        let found = Model::on(&disk);
        assert_was_asked_for(&found, &asked, &format!("full after {bytes} bytes"));
    }
    assert!(failures > 20);
}

/// A slow thread makes the next segment, and a fast log uses up the current one before the full
/// disk is noticed.
#[test]
fn a_write_without_space_says_that_the_disk_is_full_and_waits_until_there_is_space() {
    let mut waited = 0;
    for bytes in (30_000..130_000).step_by(1009) {
        let disk = SimulatedDisk::new();
        disk.fill_after(bytes);
        let Some((mut log, _)) = open(&disk).ok().filter(|(log, _)| !log.is_full()) else { continue };
        let (told, asked) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
        let (tell, freed) = (told.clone(), disk.clone());
        log.wait_for_space(move || {
            tell.fetch_add(1, Relaxed);
        });
        // The space comes while the write waits.
        log.wait_for_the_system_while(move || {
            if asked.fetch_add(1, Relaxed) == 3 {
                freed.fill_after(1 << 30);
            }
            true
        });
        let mut model = Model::default();
        for _ in 0..60 {
            persist(&mut log, &[model.append(1, 1, 1400)]).expect("it waits for space");
        }
        assert!(told.load(Relaxed) <= 1, "full after {bytes} bytes: it is said once");
        assert_eq!(log.is_full(), told.load(Relaxed) == 1, "full after {bytes} bytes");
        waited += told.load(Relaxed);
        drop(log);
        disk.crash(Crash::Lose);
        assert_eq!(Model::on(&disk), model, "full after {bytes} bytes");
    }
    assert!(waited > 20, "{waited}");
}

#[test]
fn a_write_without_space_fails_once_the_log_is_no_longer_wanted() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    log.wait_for_space(|| ());
    log.wait_for_the_system_while(|| false);
    disk.fill_after(0);
    let mut model = Model::default();
    let failure = (0..100).find_map(|_| persist(&mut log, &[model.append(1, 1, 1400)]).err());
    let line = failure.expect("the next segment can't be made").error.to_string();
    assert!(line.contains("No space left on device") && line.contains("free space"), "{line}");
}

#[test]
fn a_disk_that_is_nearly_full_is_said_to_be_full_while_there_is_room_and_then_to_have_space_again() {
    let mut told = 0;
    for bytes in (30_000..130_000).step_by(1009) {
        let disk = SimulatedDisk::new();
        disk.fill_after(bytes);
        let Ok((mut log, _)) = open(&disk) else { continue };
        let mut model = Model::default();
        let mut was_full = log.is_full();
        while !was_full {
            // A tenth of a segment at a time: the disk is reported full long before the room ends.
            persist(&mut log, &[model.append(1, 1, 1400)]).expect("there is room until it is said that there is none");
            was_full = log.check_space().expect("it is no error") == Some(true);
        }
        assert!(disk.contents(&in_log("headroom")).is_none(), "the headroom is given back");
        persist(&mut log, &[model.vote(7, 2), model.vote(8, 3)]).expect("a vote needs no space");
        log.remember(&[(NodeId(3), Index(9))]).expect("nor does it fail the log if that can't be kept");
        let reopens = disk.fork();
        log.retry_space();
        assert_eq!(log.check_space().expect("it is no error"), None, "it is full as before");

        disk.fill_after(1 << 20);
        log.retry_space();
        assert_eq!(log.check_space().expect("it is no error"), Some(false), "there is space again");
        assert!(disk.contents(&in_log("headroom")).is_some());
        for _ in 0..30 {
            persist(&mut log, &[model.append(8, 1, 1400)]).expect("there is space");
            assert_eq!(log.check_space().expect("it is no error"), None);
        }
        assert!(log.sealed.len() >= 2);
        drop(log);
        disk.crash(Crash::Lose);
        assert_eq!(Model::on(&disk), model);

        reopens.fill_after(1 << 20);
        reopens.crash(Crash::Lose);
        let found = Model::on(&reopens);
        assert!(model.entries.starts_with(&found.entries) && found.hard_state.term == Term(8));
        told += 1;
    }
    assert!(told > 50, "{told}");
}

#[test]
fn a_file_that_did_not_fit_and_cannot_be_removed_is_an_error_at_once_and_not_when_it_is_made_again() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    disk.fill_after(20_000);
    disk.fail(Operation::Rename, 1);
    log.next_segment.prepare(2, PARTS);
    let line = log.check_space().expect_err("the disk is broken, too").error.to_string();
    assert!(line.starts_with("can't remove") && line.contains("spare") && line.contains("error 5"), "{line}");
}

#[test]
fn a_shortage_of_descriptors_or_threads_is_waited_out_and_loses_nothing() {
    use Operation::{Open, SyncDir, Thread};
    for operation in [Open, SyncDir, Thread] {
        for (round, times) in (0..12).flat_map(|round| [(round, 1), (round, 7)]) {
            let disk = SimulatedDisk::new();
            let watch = Arc::new(Shortages::default());
            let (mut log, _) = Log::open(&wal(&disk), "test", NodeId(1), watch.clone()).expect("the log opens");
            log.wait_for_the_system_while(|| true);
            let mut model = Model::default();
            for number in 0..24 {
                if number == round {
                    disk.run_short(operation, times);
                }
                persist(&mut log, &[model.append(1, 1, 1400)]).expect("it waits for the system");
                assert_eq!(log.check_space().expect("it is no error"), None, "there is space");
                log.retry_space();
                if number == 20 {
                    persist(&mut log, &[model.vote(2, 3), model.truncate(18)]).expect("it waits for the system");
                    let cut = model.cut(14);
                    persist(&mut log, &[cut]).expect("it waits for the system");
                }
            }
            assert!(watch.0.load(Relaxed) >= 1, "{operation:?} {round}: every failed attempt is counted");
            drop(log);
            disk.crash(Crash::Lose);
            assert_eq!(Model::on(&disk), model, "{operation:?} {round} {times}");
        }
    }
}

#[test]
fn a_shortage_ends_a_log_that_is_no_longer_wanted_and_is_named() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    log.wait_for_the_system_while(|| false);
    disk.run_short(Operation::Open, 1000);
    let mut model = Model::default();
    let failure = (0..100).find_map(|_| persist(&mut log, &[model.append(1, 1, 1400)]).err());
    let line = failure.expect("the next segment can't be made").error.to_string();
    assert!(line.contains("Too many open files") && line.contains("ulimit -n") && !line.contains('\n'), "{line}");
}

#[test]
fn a_failed_write_or_sync_is_final_whatever_its_error() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = SimulatedDisk::new();
        let (mut log, _) = opened(&disk);
        log.wait_for_the_system_while(|| true);
        disk.run_short(operation, 1);
        let mut model = Model::default();
        persist(&mut log, &[model.append(1, 1, 100)]).expect_err("it may have been done in part");
    }
}

#[test]
fn a_member_that_could_not_be_remembered_for_want_of_a_descriptor_is_remembered_when_it_is_told_again() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    for operation in [Operation::Open, Operation::SyncDir] {
        disk.run_short(operation, 1);
        log.remember(&[(NodeId(3), Index(9))]).expect("nothing rests on it");
    }
    log.remember(&[(NodeId(3), Index(9))]).expect("written");
    drop(log);
    disk.crash(Crash::Lose);
    assert_eq!(opened(&disk).1.holdings, [(NodeId(3), Index(9))]);
}

#[derive(Default)]
struct Shortages(AtomicU64);

impl StorageObserver for Shortages {
    fn ran_short(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_sync_that_lies_is_made_up_for_by_the_next_honest_one_and_loses_no_more_than_it_lied_about() {
    for lies_until in 1..6 {
        let disk = SimulatedDisk::new();
        let (mut log, _) = opened(&disk);
        log.next_segment.prepare(2, PARTS);
        let mut model = Model::default();
        persist(&mut log, &[model.vote(1, 1), model.append(1, 3, 100)]).expect("it is persisted");
        let honest = model.clone();
        (1..=lies_until).for_each(|nth| disk.lie(nth));
        for _ in 0..lies_until {
            persist_idly(&mut log, &[model.append(1, 1, 100)]).expect("so it seems");
        }
        let lied = disk.fork();
        lied.crash(Crash::Lose);
        assert_eq!(Model::on(&lied), honest, "a disk that lies loses what it lied about, and nothing else");
        persist(&mut log, &[model.append(1, 1, 100)]).expect("it is persisted");
        disk.crash(Crash::Lose);
        assert_eq!(Model::on(&disk), model);
    }
}

#[test]
fn sectors_that_cannot_be_read_fail_the_start_and_name_the_file() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    persist(&mut log, &[Model::default().append(1, 3, 100)]).expect("it is persisted");
    drop(log);
    let path = newest(&disk);
    disk.wear_out(&path, RECORDS_AT as u64..RECORDS_AT as u64 + 512);
    let line = open(&disk).expect_err("a sector is gone").error.to_string();
    assert!(line.starts_with("can't read") && line.contains(path.to_str().expect("a plain name")), "{line}");
}

#[test]
fn a_read_of_damaged_entries_fails_and_names_the_file() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    persist(&mut log, &[model.append(1, 3, 100)]).expect("it is persisted");
    let path = newest(&disk);
    for offset in RECORDS_AT + 32..RECORDS_AT + 32 + 3 * 140 {
        disk.flip(&path, offset, 4);
        let failure = log.read(Index(1), Index(3), 1000).expect_err("damage is found");
        assert!(
            failure.op == crate::StorageOp::Read && failure.error.to_string().contains("segment is damaged at byte")
        );
        disk.flip(&path, offset, 4);
    }
    assert!(log.read(Index(1), Index(3), 1000).is_ok());
}

/// Opens a log and does every kind of request. Returns the last acknowledged state with every
/// requested state since, and the outcome.
fn work(disk: &SimulatedDisk) -> (Vec<Model>, Outcome<()>) {
    let mut asked = vec![Model::default()];
    let mut run = || {
        let (mut log, _) = open(disk)?;
        for term in 1..=6 {
            let mut model = asked.last().cloned().unwrap_or_default();
            let mut group = Vec::new();
            let mut ask = |persist: Persist, model: &Model| {
                group.push(persist);
                asked.push(model.clone());
            };
            ask(model.vote(term, 1), &model);
            ask(model.append(term, 3, 1500), &model);
            ask(model.append(term, 1, 0), &model);
            if term % 3 == 0 {
                ask(model.truncate(model.entries.len() as u64 - 5), &model);
            }
            persist(&mut log, &group)?;
            asked = vec![model];
        }
        drop(log);
        let (mut log, recovered) = open(disk)?;
        let read = log.read(Index(1), recovered.last.index, 1 << 20)?;
        let mut model = asked.last().cloned().unwrap_or_default();
        assert_eq!(read.iter().map(|batch| batch.count() as usize).sum::<usize>(), model.entries.len());
        let last = model.append(7, 1, 10);
        asked.push(model.clone());
        persist(&mut log, &[last])?;
        asked = vec![model];
        Ok(())
    };
    let outcome = run();
    (asked, outcome)
}
