//! Errors of the disk: each is final, none loses what was acknowledged.

use super::*;
use crate::disk::{Crash, Operation};

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
    for bytes in (0..120_000).step_by(997) {
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

#[test]
fn a_read_of_damaged_entries_fails_and_names_the_file() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    persist(&mut log, &[model.append(1, 3, 100)]).expect("it is persisted");
    let path = newest(&disk);
    for offset in 4096 + 32..4096 + 32 + 3 * 140 {
        disk.flip(&path, offset, 4);
        let failure = log.read(Index(1), Index(3), 1000).expect_err("damage is found");
        assert!(failure.op == "read" && failure.error.to_string().contains("segment is damaged at byte"));
        disk.flip(&path, offset, 4);
    }
    assert!(log.read(Index(1), Index(3), 1000).is_ok());
}

/// Opens a log and does some of everything. Returns what was acknowledged last and every state asked for since, and how
/// it ended.
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
