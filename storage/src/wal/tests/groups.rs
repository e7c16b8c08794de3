//! The last group, whose slots are not in the table yet: its entries have record and slot in it alone.

use super::{
    super::slot::{self, Slot},
    *,
};
use quorate_storage_testing::Operation;

/// An acknowledged entry is never dropped for a sector of it that the disk lost.
#[test]
fn no_lost_sector_of_the_last_group_drops_an_entry() {
    let (mut faulty, mut whole) = (0, 0);
    for (count, payload_bytes) in [(1, 0), (1, 300), (3, 100), (2, 3000), (1, 9000)] {
        let (disk, mut log, mut model) = with_a_group();
        persist(&mut log, &[model.append(2, count, payload_bytes)]).expect("it is persisted");
        let (path, end) = (newest(&disk), log.active.end as usize);
        drop(log);
        for sector in (RECORDS_AT / 512..).map(|sector| sector * 512).take_while(|sector| *sector < end) {
            for is_replaced in [false, true] {
                let disk = disk.fork();
                match is_replaced {
                    true => assert!((0..512).step_by(5).all(|at| disk.flip(&path, sector + at, 0x55))),
                    false => drop(disk.zero(&path, sector..sector + 512)),
                }
                let (mut log, recovered) = opened(&disk);
                let context = format!("{count} of {payload_bytes} bytes, sector at {sector}: {recovered:?}");
                assert_eq!(Model::of(&log, &recovered), model, "{context}");
                (faulty, whole) = (faulty + recovered.faulty.len(), whole + usize::from(recovered.faulty.is_empty()));
                persist(&mut log, &model.repairs(&recovered)).expect("it is repaired");
                drop(log);
                assert_eq!(Model::on(&disk), model, "{context}");
            }
        }
    }
    assert!(faulty > 20 && whole > 5, "{faulty} faulty entries, {whole} whole logs");
}

/// It has no slots in the table, so nothing else says that it was there.
#[test]
fn no_cut_of_the_last_group_drops_an_entry() {
    let (mut refused, mut opened) = (0, 0);
    for (count, payload_bytes) in [(1, 0), (3, 100), (2, 700)] {
        let (disk, mut log, mut model) = with_a_group();
        persist(&mut log, &[model.append(2, count, payload_bytes)]).expect("it is persisted");
        let (path, end) = (newest(&disk), log.active.end as usize);
        drop(log);
        for at in RECORDS_AT..end + 100 {
            let disk = disk.fork();
            disk.cut(&path, at);
            match open(&disk) {
                Ok((log, recovered)) => {
                    assert_eq!(Model::of(&log, &recovered), model, "{count} of {payload_bytes} bytes, cut at {at}");
                    opened += 1;
                }
                Err(failure) => {
                    let line = failure.error.to_string();
                    assert!(line.contains("damaged at byte"), "{line}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 1000 && opened > 100, "{refused} refused, {opened} opened");
}

/// Marks, records and slots of whole groups are gone together: the table identifies all their entries.
#[test]
fn a_lost_stretch_of_groups_that_are_in_the_table_drops_no_entry() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    for (count, payload_bytes) in [(3, 60), (1, 0), (4, 20), (2, 300), (5, 7)] {
        persist_idly(&mut log, &[model.append(1, count, payload_bytes)]).expect("it is persisted");
    }
    let (path, end) = (newest(&disk), log.active.end as usize);
    drop(log);
    let mut faulty = 0;
    for (from, bytes) in (RECORDS_AT..end).step_by(40).flat_map(|from| [600, 1024, 2048].map(|bytes| (from, bytes))) {
        let disk = disk.fork();
        assert!(disk.zero(&path, from..from + bytes));
        let (log, recovered) = opened(&disk);
        assert_eq!(Model::of(&log, &recovered), model, "{bytes} bytes from byte {from} on");
        faulty += recovered.faulty.len();
    }
    assert!(faulty > 200, "{faulty}");
}

/// A slot in the table proves that its record was synced.
#[test]
fn a_slot_goes_to_the_table_only_after_the_sync_of_its_group() {
    let (disk, mut log, mut model) = with_a_group();
    let table = |disk: &SimulatedDisk, log: &Log| {
        let bytes = disk.contents(&newest(disk)).expect("it is there");
        let table = slot::Table::of(&bytes, &log.active.header);
        (1..=5).filter(|index| table.get(Index(*index)).is_some()).count()
    };
    assert_eq!(table(&disk, &log), 2);
    let failing = model.append(1, 1, 20);
    disk.fail(Operation::Sync, 1);
    let before = disk.count(Operation::Write);
    persist(&mut log, &[failing]).expect_err("the sync fails");
    assert_eq!((table(&disk, &log), disk.count(Operation::Write) - before), (2, 1), "the group is one write");
}

/// Its slot is found, though its mark is lost.
#[test]
fn a_value_that_looks_like_a_slot_is_never_taken_for_one() {
    let (disk, mut log, mut model) = with_a_group();
    let (last, checksum) = model.last();
    let index = last.index.next();
    let offset = log.active.end + 32;
    let forged = Slot {
        id: EntryId::new(Term(1), index),
        checksum: 0x0bad_0bad,
        offset: offset as u32,
        payload_bytes: 20,
        kind: Kind::Command as u8,
        is_unproven: false,
    };
    // With every start of its checksum that a client can know, at every place that it can choose.
    let sequence = log.active.header.sequence;
    let seeds = [slot::seed(sequence), slot::group_seed(sequence, 0)];
    let mut payload = vec![7; 600 - (36 + 32) % 8];
    seeds.iter().for_each(|seed| payload.extend((0..8).flat_map(|_| [&forged.encode(*seed)[..], &[0; 1]].concat())));
    let mut builder = BatchBuilder::new(crate::checksum, Term(1), index, checksum, 0);
    builder.push(Kind::Command, &payload);
    let batch = builder.finish().expect("something was pushed");
    model.take(&batch);
    persist(&mut log, &[Persist { batch: Some(batch), ..Persist::default() }]).expect("it is persisted");
    let (path, end) = (newest(&disk), log.active.end as usize);
    drop(log);
    let mark = offset as usize - 32;
    assert!(disk.zero(&path, mark..mark + 100), "its mark and its record's header");
    let lost = disk.fork();
    let (log, recovered) = opened(&disk);
    assert_eq!((recovered.faulty.len(), Model::of(&log, &recovered)), (1, model.clone()), "its own slot is found");
    // Without its own slot nothing identifies it.
    assert!(lost.flip(&path, end - 20, 1));
    if let Ok((_, recovered)) = open(&lost) {
        assert!(recovered.faulty.is_empty() && recovered.last.index < index, "{recovered:?}");
    }
}

/// A log of one group, which is in the table.
fn with_a_group() -> (SimulatedDisk, Log, Model) {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    persist_idly(&mut log, &[model.append(1, 2, 60)]).expect("it is persisted");
    (disk, log, model)
}
