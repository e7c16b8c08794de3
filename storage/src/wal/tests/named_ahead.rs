//! A segment is made and named ahead of its use: a crash, an error or damage at any step loses
//! nothing that was acknowledged, and an unused segment never counts.

use super::{
    super::{header::COPY_AT, next_segment::PARTS},
    *,
};
use quorate_storage_testing::{Crash, Operation};

/// Crashes of every kind, some of them in many ways.
fn crashes() -> impl Iterator<Item = Crash> {
    let torn = [0, 1, 300, 512, 4200, 5000].map(|bytes| Crash::Torn { bytes });
    let scattered = (0..24).map(|seed| Crash::Scatter { seed });
    [Crash::Lose, Crash::Keep].into_iter().chain(torn).chain(scattered)
}

#[test]
fn a_machine_that_dies_at_any_step_of_preparing_or_rolling_loses_nothing_that_was_acknowledged() {
    let mut steps = 0;
    for nth in 1.. {
        let disk = SimulatedDisk::new();
        let (mut log, _) = opened(&disk);
        disk.halt_at(nth);
        // Rolls when it is full, to a larger one, for a truncation and for a cut.
        let mut asked = vec![Model::default()];
        let mut run = |group: &mut dyn FnMut(&mut Model) -> Vec<Persist>| {
            let mut model = asked.last().cloned().unwrap_or_default();
            let before = model.clone();
            let group = group(&mut model);
            asked = vec![before, model.clone()];
            persist_idly(&mut log, &group)?;
            asked = vec![model];
            Ok(())
        };
        let outcome: Outcome<()> = (|| {
            for _ in 0..8 {
                run(&mut |model| vec![model.append(1, 1, 1900), model.append(1, 2, 700)])?;
            }
            run(&mut |model| vec![model.append(1, 1, 20_000)])?;
            for _ in 0..3 {
                run(&mut |model| vec![model.append(1, 2, 1900)])?;
            }
            run(&mut |model| vec![model.truncate(20)])?;
            run(&mut |model| vec![model.append(2, 2, 1900)])?;
            run(&mut |model| vec![model.cut(15)])?;
            run(&mut |model| vec![model.append(2, 5, 1900)])
        })();
        drop(log);
        if outcome.is_ok() {
            break;
        }
        steps += 1;
        for crash in crashes() {
            let disk = disk.fork();
            disk.crash(crash);
            let context = format!("step {nth}, {crash:?}");
            let (mut log, recovered) = open(&disk).unwrap_or_else(|failure| panic!("{context}: {}", failure.error));
            let found = Model::of(&log, &recovered);
            assert_unacknowledged(&recovered, &asked[0], &context);
            assert_was_asked_for(&without_base(&found), &asked.iter().map(without_base).collect::<Vec<_>>(), &context);
            assert!(named_segments(&disk).iter().all(|path| !is_unwritten(&disk, path)) || log.used() > PARTS / 16);
            // The log goes on, and rolls again.
            if recovered.faulty.is_empty() {
                let mut model = found;
                for _ in 0..4 {
                    persist(&mut log, &[model.append(3, 3, 1900)]).expect("it is persisted");
                }
                drop(log);
                disk.crash(Crash::Lose);
                assert_eq!(Model::on(&disk), model, "{context}");
            }
        }
    }
    assert!(steps > 80, "{steps}");
}

/// A cut may have happened: the entries before its end are not compared.
fn without_base(model: &Model) -> Model {
    let entries = model.entries.iter().filter(|entry| entry.id.index > Index(15)).cloned().collect();
    Model { base: Model::default().base, entries, ..model.clone() }
}

#[test]
fn the_first_write_to_a_segment_that_was_cut_at_any_byte_loses_nothing_that_was_acknowledged() {
    let (disk, mut log, mut model) = about_to_roll();
    let acknowledged = model.clone();
    let group = [model.append(1, 1, 1150), model.append(1, 2, 31)];
    disk.fail(Operation::Sync, 1);
    persist(&mut log, &group).expect_err("the sync fails");
    assert_eq!((log.sealed.len(), log.is_named), (1, true), "it is the first write to a segment");
    let mut found_some = 0;
    // The table of the segment before, the header, the records, and their slots.
    for bytes in 0..=80 + COPY_AT as u64 + 512 + 32 + 1190 + 2 * 71 + 519 + 3 * 40 {
        let disk = disk.fork();
        disk.crash(Crash::Torn { bytes });
        let (log, recovered) = opened(&disk);
        assert_eq!(recovered.faulty, [], "cut at byte {bytes}");
        let found = Model::of(&log, &recovered);
        assert!(found.entries.starts_with(&acknowledged.entries), "cut at byte {bytes}");
        assert!(model.entries.starts_with(&found.entries), "cut at byte {bytes}");
        found_some += usize::from(found.entries.len() > acknowledged.entries.len());
    }
    assert!(found_some > 100, "{found_some}");
    let (mut none, mut whole) = (0, 0);
    for seed in 0..2000 {
        let disk = disk.fork();
        disk.crash(Crash::Scatter { seed });
        let (log, recovered) = opened(&disk);
        let found = Model::of(&log, &recovered);
        let context = format!("seed {seed}");
        assert_unacknowledged(&recovered, &acknowledged, &context);
        assert!(found.entries.starts_with(&acknowledged.entries), "{context}");
        assert!(model.entries.starts_with(&found.entries), "{context}");
        none += usize::from(found.entries.len() == acknowledged.entries.len());
        whole += usize::from(found.entries.len() == model.entries.len());
    }
    assert!(none > 100 && whole > 100, "{none} have nothing of it, {whole} all");
}

#[test]
fn a_segment_that_was_named_ahead_and_not_used_does_not_count_and_is_removed_at_the_next_start() {
    for crash in [None].into_iter().chain(crashes().map(Some)) {
        let (disk, log, model) = about_to_roll();
        assert_eq!(log.hard_state.segment(), 2);
        drop(log);
        crash.inspect(|crash| disk.crash(*crash));
        let (log, recovered) = opened(&disk);
        assert_eq!(Model::of(&log, &recovered), model);
        assert_eq!(log.active.header.sequence, 2, "its name is free again");
        assert!(recovered.repairs.is_empty(), "{:?}", recovered.repairs);
        drop(log);
        assert_eq!(Model::on(&disk), model);
    }
}

/// Before it is used, the file with the preceding sequence is the newest that counts.
#[test]
fn a_missing_segment_is_noticed_though_an_unused_one_follows_it() {
    let (disk, mut log, mut model) = about_to_roll();
    persist(&mut log, &[model.append(1, 6, 1900)]).expect("it is persisted");
    assert_eq!(named_segments(&disk).len(), 3);
    drop(log);
    for lost in [0, 1] {
        let disk = disk.fork();
        disk.lose(&named_segments(&disk)[lost]);
        match open(&disk) {
            // It looks like a compacted log.
            Ok((_, recovered)) => assert!(lost == 0 && recovered.base.index > Index(0)),
            Err(failure) => {
                let line = failure.error.to_string();
                assert!(
                    lost == 1 && line.contains("00000000000000000002.segment") && line.contains("missing"),
                    "{line}"
                );
            }
        }
    }
    disk.lose(&named_segments(&disk)[2]);
    let line = open(&disk).expect_err("the hard state knows its name").error.to_string();
    assert!(line.contains("00000000000000000003.segment") && line.contains("missing"), "{line}");
}

/// One damaged place never hides a segment, nor lets an unused one count.
#[test]
fn a_segment_counts_if_any_place_says_that_it_was_used() {
    let zeroed = |disk: &SimulatedDisk, path: &Path, at: usize| assert!(disk.zero(path, at..at + 512));
    let flipped = |disk: &SimulatedDisk, path: &Path, at: usize| assert!(disk.flip(path, at + 20, 4));
    for (groups, is_proven) in [(1, false), (1, true), (2, false)] {
        let (disk, mut log, mut model) = about_to_roll();
        for _ in 0..groups {
            persist(&mut log, &[model.append(2, 2, 700)]).expect("it is persisted");
        }
        if is_proven {
            log.settle().expect("there is time");
        }
        assert_eq!(log.sealed.len(), 1);
        drop(log);
        let path = newest(&disk);
        for damage in [zeroed, flipped] {
            for at in [0, COPY_AT] {
                let disk = disk.fork();
                damage(&disk, &path, at);
                assert_eq!(Model::on(&disk), model);
            }
            let disk = disk.fork();
            damage(&disk, &path, 0);
            damage(&disk, &path, COPY_AT);
            match open(&disk) {
                Err(failure) => assert!(failure.error.to_string().contains("header is damaged"), "{}", failure.error),
                // The limit that FORMAT.md states: nothing else says that the only write arrived.
                Ok((_, recovered)) => {
                    assert!(groups == 1 && !is_proven && recovered.last.index < model.last().0.index);
                    assert!(disk.contents(&path).is_some_and(|bytes| bytes[20] != 4), "zeros alone look like that");
                }
            }
        }
    }
    let (disk, log, model) = about_to_roll();
    drop(log);
    let unused = named_segments(&disk).pop().expect("it was made");
    assert!(is_unwritten(&disk, &unused));
    for at in (0..FILE_BYTES as usize).step_by(37) {
        let disk = disk.fork();
        assert!(disk.flip(&unused, at, 1));
        assert_eq!(Model::on(&disk), model, "byte {at}");
    }
}

#[test]
fn an_error_of_a_write_or_sync_beside_the_log_is_final() {
    // The reserved space, the directory, the hard state, and the zeros.
    for (operation, nth) in [
        (Operation::Write, 1),
        (Operation::Sync, 1),
        (Operation::SyncDir, 1),
        (Operation::Write, 2),
        (Operation::Sync, 2),
        (Operation::Write, 3),
    ] {
        let disk = SimulatedDisk::new();
        let (mut log, _) = opened(&disk);
        let mut model = Model::default();
        persist(&mut log, &[model.vote(1, 1)]).expect("it is persisted");
        disk.fail(operation, nth);
        log.next_segment.prepare(2, PARTS);
        let told = log.check_space().expect_err("it is told");
        assert!(told.error.to_string().starts_with("can't "), "{}", told.error);
        log.next_segment.retry(2, PARTS);
        // The log is not used again; if it were, it would not get over a segment's end.
        if (operation, nth) == (Operation::Sync, 2) {
            let again = persist(&mut log, &[model.vote(2, 1)]).expect_err("no vote is written after it");
            assert_eq!(again, told);
        }
        drop(log);
        disk.crash(Crash::Lose);
        assert_eq!(Model::on(&disk).hard_state.term, Term(1), "{operation:?} {nth}");
    }
    // Without a look at it in between, the roll finds it.
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    disk.fail(Operation::Sync, 1);
    log.next_segment.prepare(2, PARTS);
    let mut model = Model::default();
    let failure = (0..20).find_map(|_| persist(&mut log, &[model.append(1, 1, 1900)]).err()).expect("it is final");
    assert!(failure.op == crate::StorageOp::Sync && failure.error.to_string().contains("spare"), "{}", failure.error);
}

#[test]
fn a_full_disk_starts_again_because_the_unused_segment_goes_first() {
    let (disk, log, model) = about_to_roll();
    drop(log);
    disk.fill_after(0);
    assert_eq!(Model::on(&disk), model);
}

#[test]
fn a_larger_segment_replaces_the_one_that_was_made_ahead() {
    let (disk, mut log, mut model) = about_to_roll();
    persist(&mut log, &[model.append(1, 1, 40_000)]).expect("it is persisted");
    assert_eq!((log.active.header.sequence, log.sealed.len()), (2, 1));
    assert!(log.active.header.layout.capacity > FILE_BYTES && log.active.header.published_bytes > 40_000);
    persist(&mut log, &[model.append(1, 2, 1900)]).expect("it is persisted");
    assert_eq!(log.active.header.sequence, 3);
    drop(log);
    disk.crash(Crash::Lose);
    assert_eq!(Model::on(&disk), model);
}

/// Its table is not durable when the next segment counts: the slots in its groups are.
#[test]
fn a_segment_is_closed_beside_the_next_one_or_at_the_next_start() {
    let (disk, mut log, mut model) = about_to_roll();
    persist(&mut log, &[model.append(1, 1, 1000)]).expect("it is persisted");
    let full = newest(&disk);
    let length = |disk: &SimulatedDisk| disk.contents(&full).map_or(0, |bytes| bytes.len() as u64);
    persist(&mut log, &[model.append(1, 3, 900)]).expect("it is persisted");
    assert_eq!((log.closing, log.is_unsettled(), length(&disk)), (Some(1), true, FILE_BYTES));
    for crash in crashes() {
        let disk = disk.fork();
        disk.crash(crash);
        assert_eq!(Model::on(&disk), model, "{crash:?}");
        assert!(length(&disk) < FILE_BYTES, "{crash:?}");
        has_a_durable_table(&disk, &full, &model);
    }
    let syncs = disk.count(Operation::Sync);
    log.settle().expect("there is time");
    assert_eq!((log.closing, disk.count(Operation::Sync) - syncs), (None, 1));
    assert!(length(&disk) < FILE_BYTES);
    drop(log);
    has_a_durable_table(&disk, &full, &model);
}

/// All entries of the first segment are identified without its groups.
fn has_a_durable_table(disk: &SimulatedDisk, path: &Path, model: &Model) {
    let disk = disk.fork();
    disk.crash(Crash::Lose);
    assert!(disk.zero(path, RECORDS_AT..FILE_BYTES as usize));
    let (log, recovered) = opened(&disk);
    assert_eq!((Model::of(&log, &recovered), recovered.faulty.len()), (model.clone(), 6));
    assert!(recovered.faulty.iter().all(|faulty| faulty.was_durable));
}

/// An error at any step of closing is final, and loses nothing.
#[test]
fn an_error_while_a_segment_is_closed_loses_nothing() {
    for operation in [Operation::Write, Operation::Sync] {
        for nth in 1..=4 {
            let (disk, mut log, mut model) = about_to_roll();
            let before = model.clone();
            disk.fail(operation, nth);
            let done = persist(&mut log, &[model.append(1, 3, 1900)]).and_then(|()| log.settle());
            drop(log);
            disk.crash(Crash::Lose);
            let found = Model::on(&disk);
            assert!(found == model || (done.is_err() && found == before), "{operation:?} {nth}");
        }
    }
}

/// A log of one segment that is nearly full, and the next one made and named.
fn about_to_roll() -> (SimulatedDisk, Log, Model) {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    for _ in 0..5 {
        persist_idly(&mut log, &[model.append(1, 1, 1900)]).expect("it is persisted");
    }
    assert_eq!((log.sealed.len(), named_segments(&disk).len()), (0, 2));
    (disk, log, model)
}
