//! The faults that tests of other packages inject: a lost entry is reported, and a lost
//! snapshot is gone.

use super::*;
use quorate_raft::{Batch, BatchBuilder, EntryId, Faulty, Kind, SnapshotBase, Term};

#[test]
fn a_lost_entry_is_faulty_until_it_is_repaired() {
    let (log, batch) = log_of(5);
    assert!(!log.lose(Index(6), true) && !log.lose(Index(0), true), "there is no such entry");
    assert!(log.lose(Index(3), true) && log.lose(Index(5), false));
    let recovered = log.contents().recover();
    let checksums: Vec<u32> = batch.records().map(|record| record.checksum).collect();
    let faulty = |index: u64, was_durable| {
        let id = EntryId::new(Term(1), Index(index));
        Faulty { id, checksum: checksums[index as usize - 1], was_durable }
    };
    assert_eq!(recovered.faulty, [faulty(3, true), faulty(5, false)]);
    assert_eq!((recovered.last, recovered.last_checksum), (batch.last_id(), batch.checksum()));
    assert_eq!(read(&log, 1), 2);
    assert_eq!(read(&log, 3), 0);
    assert_eq!(read(&log, 4), 1);

    let repair = quorate_raft::Persist { repair: batch.up_to(Index(4)), ..Default::default() };
    log.contents().persist(&repair).expect("it is the same log");
    assert_eq!(log.contents().recover().faulty, [faulty(5, false)]);
    assert_eq!(read(&log, 1), 4);
}

#[test]
fn a_lost_snapshot_is_gone() {
    let (log, _) = log_of(5);
    assert!(!log.lose_snapshot());
    let base = SnapshotBase { last: EntryId::new(Term(1), Index(4)), ..Default::default() };
    log.contents().save(Snapshot { base, ..Default::default() }, Bytes::new());
    assert!(log.lose_snapshot());
    assert_eq!(log.contents().recover().snapshot, None);
}

fn log_of(entries: u64) -> (MemoryLog, Batch) {
    let mut builder = BatchBuilder::new(crate::checksum, Term(1), Index(1), 0, 0);
    (0..entries).for_each(|number| builder.push(Kind::Command, &number.to_le_bytes()));
    let (log, batch) = (MemoryLog::new(), builder.finish().expect("entries"));
    let persist = quorate_raft::Persist { batch: Some(batch.clone()), ..Default::default() };
    log.contents().persist(&persist).expect("it follows");
    (log, batch)
}

fn read(log: &MemoryLog, from: u64) -> u32 {
    log.contents().read(Index(from), Index(99), usize::MAX).iter().map(Batch::count).sum()
}
