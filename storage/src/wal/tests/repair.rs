//! Faulty entries: skipped by reads, repaired in place, with nothing but the records that
//! their slots identify.

use super::{super::next_segment::PARTS, *};
use quorate_storage_testing::{Crash, Operation};

#[test]
fn a_repair_costs_one_sync_and_survives_a_power_cut() {
    let Broken { disk, mut log, recovered, mut model } = broken();
    let indexes: Vec<u64> = recovered.faulty.iter().map(|faulty| faulty.id.index.0).collect();
    assert_eq!(indexes, [2, 3, 9, 12], "two sealed ones and two at the end");
    for repair in model.repairs(&recovered) {
        let syncs = disk.count(Operation::Sync);
        persist(&mut log, &[repair]).expect("it is repaired");
        assert_eq!(disk.count(Operation::Sync) - syncs, 1);
    }
    let syncs = disk.count(Operation::Sync);
    persist(&mut log, &[model.append(2, 2, 10)]).expect("it is persisted");
    assert_eq!(disk.count(Operation::Sync) - syncs, 1);
    let read = log.read(Index(1), model.last().0.index, 1 << 20).expect("all can be read");
    assert_eq!(read.iter().map(|batch| u64::from(batch.count())).sum::<u64>(), 14);
    drop(log);
    disk.crash(Crash::Lose);
    assert_eq!(Model::on(&disk), model);
}

#[test]
fn entries_and_their_repair_in_one_request_cost_one_sync() {
    let Broken { disk, mut log, recovered, mut model } = broken();
    let [.., last] = &model.repairs(&recovered)[..] else { panic!("there are faulty ones") };
    let both = Persist { repair: last.repair.clone(), ..model.append(2, 1, 10) };
    let syncs = disk.count(Operation::Sync);
    persist(&mut log, &[both]).expect("it is persisted");
    assert_eq!(disk.count(Operation::Sync) - syncs, 1);
}

#[test]
fn reads_stop_before_a_faulty_entry_and_go_on_after_it() {
    let Broken { log, model, .. } = broken();
    let faulty = [2, 3, 9, 12];
    for from in 1..=12 {
        let read = log.read(Index(from), Index(12), 1 << 20).expect("a faulty entry is no error");
        let found: Vec<u64> = read.iter().flat_map(Batch::records).map(|record| record.id.index.0).collect();
        let expected: Vec<u64> = (from..=12).take_while(|index| !faulty.contains(index)).collect();
        assert_eq!(found, expected);
        let checksums = read.iter().flat_map(Batch::records).map(|record| record.checksum);
        assert!(checksums.zip(&model.entries[from as usize - 1..]).all(|(checksum, entry)| checksum == entry.checksum));
    }
}

#[test]
fn a_repair_with_another_content_is_refused_and_nothing_is_written() {
    let Broken { disk, mut log, model, .. } = broken();
    let before: Vec<_> = disk.paths().iter().map(|path| disk.contents(path)).collect();
    let mut other = Model { entries: model.entries[..1].to_vec(), ..Model::default() };
    let batch = other.append(1, 2, 201).batch;
    let failure = log.stage(&Persist { repair: batch, ..Persist::default() }).expect_err("it is another content");
    assert!(failure.error.to_string().contains("diverged"), "{}", failure.error);
    assert_eq!(disk.paths().iter().map(|path| disk.contents(path)).collect::<Vec<_>>(), before);
}

#[test]
fn a_repair_of_what_is_whole_changes_nothing() {
    let Broken { disk, mut log, recovered, model } = broken();
    let (writes, syncs) = (disk.count(Operation::Write), disk.count(Operation::Sync));
    let repair = Persist { repair: Some(model.records(4, 5)), ..Persist::default() };
    persist(&mut log, &[repair]).expect("there is nothing to do");
    assert_eq!((disk.count(Operation::Write), disk.count(Operation::Sync)), (writes, syncs));
    // A batch with faulty and whole entries repairs the faulty ones.
    persist(&mut log, &[Persist { repair: Some(model.records(1, 5)), ..Persist::default() }]).expect("it is repaired");
    drop(log);
    let (_, after) = opened(&disk);
    assert_eq!(after.faulty, recovered.faulty[2..]);
}

#[test]
fn a_repair_that_was_cut_short_leaves_the_entry_faulty_or_whole() {
    let Broken { disk, mut log, recovered, model } = broken();
    let repairs = model.repairs(&recovered);
    disk.fail(Operation::Sync, 1);
    persist(&mut log, &repairs).expect_err("the sync fails");
    let bytes: usize =
        recovered.faulty.iter().map(|faulty| model.entries[faulty.id.index.0 as usize - 1].bytes.len()).sum();
    let crashes = (0..=bytes as u64).map(|bytes| Crash::Torn { bytes });
    let (mut whole, mut faulty) = (0, 0);
    for crash in crashes.chain((0..100).map(|seed| Crash::Scatter { seed })) {
        let disk = disk.fork();
        disk.crash(crash);
        let (mut log, recovered) = opened(&disk);
        assert_eq!(Model::of(&log, &recovered), model, "{crash:?}");
        (whole, faulty) = (whole + 4 - recovered.faulty.len(), faulty + recovered.faulty.len());
        persist(&mut log, &model.repairs(&recovered)).expect("it is repaired after all");
        drop(log);
        assert_eq!(Model::on(&disk), model, "{crash:?}");
    }
    assert!(whole > 100 && faulty > 100, "{whole} whole, {faulty} faulty");
}

#[test]
fn a_repaired_entry_is_proven_from_then_on() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    persist(&mut log, &[model.append(1, 2, 100)]).expect("it is persisted");
    drop(log);
    let lose_last = |disk: &SimulatedDisk| {
        let (path, record) = (newest(disk), model.entries[1].bytes.to_vec());
        let bytes = disk.contents(&path).expect("it is there");
        let at = bytes.windows(record.len()).position(|window| window == record).expect("it is there");
        assert!(disk.zero(&path, at..at + record.len()));
    };
    lose_last(&disk);
    let (mut log, recovered) = opened(&disk);
    assert!(!recovered.faulty[0].was_durable, "nothing says that it ever was");
    persist_idly(&mut log, &model.repairs(&recovered)).expect("it is repaired");
    drop(log);
    lose_last(&disk);
    let (_, recovered) = opened(&disk);
    assert!(recovered.faulty[0].was_durable, "it was acknowledged since");
}

#[test]
fn a_truncation_after_or_at_a_faulty_entry_keeps_what_is_before() {
    for from in [3, 4, 9, 10, 12] {
        let Broken { disk, mut log, recovered, mut model } = broken();
        let persists = [model.truncate(from), model.append(5, 3, 30)];
        persist_idly(&mut log, &persists).expect("it is persisted");
        drop(log);
        let (log, after) = opened(&disk);
        assert_eq!(Model::of(&log, &after), model, "from {from}");
        let kept: Vec<_> = recovered.faulty.into_iter().filter(|faulty| faulty.id.index.0 < from).collect();
        assert_eq!(after.faulty, kept);
    }
}

struct Broken {
    disk: SimulatedDisk,
    log: Log,
    recovered: Recovered,
    model: Model,
}

/// Twelve entries in two segments; 2, 3, 9 and 12 lost their records.
fn broken() -> Broken {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    persist_idly(&mut log, &[model.append(1, 3, 200), model.append(1, 2, 200), model.append(1, 2, 5000)])
        .expect("it is persisted");
    persist_idly(&mut log, &[model.append(1, 2, 2000), model.append(2, 3, 100)]).expect("it is persisted");
    assert_eq!(log.sealed.len(), 1);
    drop(log);
    for path in segments(&disk) {
        let bytes = disk.contents(&path).expect("it is there");
        for lost in [2, 3, 9, 12] {
            let record = &model.entries[lost - 1].bytes;
            if let Some(at) = bytes.windows(record.len()).position(|window| window == record) {
                assert!(disk.zero(&path, at..at + record.len()));
            }
        }
    }
    let (mut log, recovered) = opened(&disk);
    assert_eq!(Model::of(&log, &recovered), model);
    // Done before, so that its sync is not counted.
    log.next_segment.prepare(log.active.header.sequence + 1, PARTS);
    Broken { disk, log, recovered, model }
}
