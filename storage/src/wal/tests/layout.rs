//! The number of syncs per request, and the order of bytes in files.

use super::{
    super::{group::Mark, next_segment::PARTS},
    *,
};
use quorate_raft::Membership;
use quorate_storage_testing::Operation;

#[test]
fn a_group_of_persists_costs_one_sync() {
    let disk = SimulatedDisk::new();
    let mut log = roomy(&disk);
    log.next_segment.prepare(2, PARTS);
    let mut model = Model::default();
    persist(&mut log, &[model.vote(1, 1)]).expect("it is persisted");
    for _ in 0..5 {
        let (syncs, dirs) = (disk.count(Operation::Sync), disk.count(Operation::SyncDir));
        let writes = disk.count(Operation::Write);
        let group: Vec<Persist> = (0..10).map(|_| model.append(1, 2, 10)).collect();
        persist_idly(&mut log, &group).expect("it is persisted");
        assert_eq!(disk.count(Operation::Sync) - syncs, 1);
        assert_eq!(disk.count(Operation::SyncDir) - dirs, 0);
        assert_eq!(disk.count(Operation::Write) - writes, 2, "a group, and when there is time its slots in the table");
    }
}

#[test]
fn nothing_to_persist_costs_no_sync_and_a_vote_costs_one() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let syncs = disk.count(Operation::Sync);
    persist(&mut log, &[Persist::default(), Persist::default()]).expect("nothing is persisted");
    assert_eq!(disk.count(Operation::Sync), syncs);
    persist(&mut log, &[Model::default().vote(1, 1)]).expect("it is persisted");
    assert_eq!(disk.count(Operation::Sync), syncs + 1);
}

/// The next one was synced and named ahead, with its directory and the hard state.
#[test]
fn a_rollover_costs_one_sync_more_than_the_segment_that_it_leaves() {
    let disk = SimulatedDisk::new();
    let mut log = roomy(&disk);
    let mut model = Model::default();
    // Enough for the next segment to be made ahead.
    persist(&mut log, &[model.append(1, 3, 70_000)]).expect("it is persisted");
    assert_eq!(named_segments(&disk).len(), 2);
    let count = |operation| disk.count(operation);
    let (syncs, dirs, renames) = (count(Operation::Sync), count(Operation::SyncDir), count(Operation::Rename));
    // The first batch fits into the segment, the second does not.
    persist(&mut log, &[model.append(1, 1, 10_000), model.append(1, 1, 13_000)]).expect("it is persisted");
    assert_eq!((count(Operation::Sync) - syncs, count(Operation::SyncDir) - dirs), (2, 0));
    assert_eq!(count(Operation::Rename) - renames, 0);
    assert_eq!(log.sealed.len(), 1);
    disk.crash(quorate_storage_testing::Crash::Lose);
    assert_eq!(Model::on(&disk), model);
}

#[test]
fn a_batch_goes_to_disk_as_it_came() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    let group = [model.append(1, 3, 100), model.append(1, 1, 7)];
    persist(&mut log, &group).expect("it is persisted");
    let file = disk.contents(&newest(&disk)).expect("it is there");
    let bytes: Vec<u8> =
        group.iter().flat_map(|persist| &persist.batch).flat_map(|batch| batch.bytes().to_vec()).collect();
    let mark = Mark { segment: 1, number: 0, count: 4, bytes: bytes.len() as u32 }.encode();
    assert_eq!(file[RECORDS_AT..RECORDS_AT + 32], mark);
    assert_eq!(file[RECORDS_AT + 32..RECORDS_AT + 32 + bytes.len()], bytes);
    assert_eq!(file.len() as u64, FILE_BYTES);
}

#[test]
fn sealed_segments_give_back_what_they_did_not_use() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    persist(&mut log, &[model.append(1, 2, 1000)]).expect("it is persisted");
    persist_idly(&mut log, &[model.truncate(2), model.append(2, 1, 10)]).expect("it is persisted");
    let sealed = disk.contents(&log.sealed[0].path).expect("it is there");
    assert_eq!(sealed.len(), RECORDS_AT + 32 + 1040);
    assert_eq!(log.bytes(), sealed.len() as u64 + FILE_BYTES);
}

#[test]
fn a_second_opener_is_told_to_stay_away_until_the_first_is_gone() {
    let disk = SimulatedDisk::new();
    let (log, _) = opened(&disk);
    let line = open(&disk).expect_err("it is in use").error.to_string();
    assert!(line.contains("log is in use by another process"), "{line}");
    drop(log);
    opened(&disk);

    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = Wal::at(dir.path()).segment_bytes(16 << 10);
    let first = Log::open(&wal, "test", NodeId(1), Arc::new(Unobserved)).expect("it opens");
    assert!(Log::open(&wal, "test", NodeId(1), Arc::new(Unobserved)).is_err());
    drop(first);
    assert!(Log::open(&wal, "test", NodeId(1), Arc::new(Unobserved)).is_ok());
}

#[test]
fn a_segment_whose_slots_are_used_up_is_followed_by_another_and_so_are_more_entries_at_once_than_it_has_slots() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    for count in [50, 1, 1, 200, 51] {
        persist_idly(&mut log, &[model.append(1, count, 0)]).expect("it is persisted");
    }
    let firsts: Vec<u64> = log.sealed.iter().map(|segment| segment.header.first().0).collect();
    assert_eq!((firsts, log.active.header.first()), (vec![1, 51, 53], Index(253)));
    drop(log);
    assert_eq!(Model::on(&disk), model);
}

#[test]
fn which_members_had_a_log_is_kept_and_so_is_whether_this_one_ever_voted() {
    let disk = SimulatedDisk::new();
    let (mut log, recovered) = opened(&disk);
    assert_eq!((recovered.holdings, recovered.has_voted), (vec![], false));
    for (member, index) in [(3, 8), (1, 5), (3, 4)] {
        log.remember(&[(NodeId(member), Index(index))]).expect("it is kept");
    }
    drop(log);
    disk.crash(quorate_storage_testing::Crash::Lose);
    let (mut log, recovered) = opened(&disk);
    assert_eq!((recovered.holdings, recovered.has_voted), (vec![(NodeId(1), Index(5)), (NodeId(3), Index(8))], false));
    let mut model = Model::default();
    let forgets = Persist { hard_state: Some(HardState::new(Term(3), None)), ..Persist::default() };
    persist(&mut log, &[model.vote(2, 2)]).expect("it is persisted");
    persist(&mut log, &[forgets]).expect("it is persisted");
    drop(log);
    assert!(opened(&disk).1.has_voted);

    assert!(disk.flip(&in_log("known-members"), 520, 1));
    let (_, recovered) = opened(&disk);
    assert_eq!(recovered.holdings, []);
    assert!(recovered.repairs.iter().any(|line| line.contains("known-members")), "{:?}", recovered.repairs);
}

#[test]
fn configurations_in_the_log_are_told_and_a_lost_one_is_left_out_until_it_is_repaired() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    persist(&mut log, &[model.append(1, 2, 30)]).expect("it is persisted");
    let members = [1, 2].map(|count| Membership::of_voters((1..=count).map(NodeId)));
    for membership in &members {
        let (last, checksum) = model.last();
        let mut builder = BatchBuilder::new(crate::checksum, Term(1), last.index.next(), checksum, 0);
        builder.push(Kind::Membership, &membership.encode());
        let batch = builder.finish().expect("something was pushed");
        model.take(&batch);
        persist_idly(&mut log, &[Persist { batch: Some(batch), ..Persist::default() }]).expect("it is persisted");
    }
    drop(log);
    let told = vec![(Index(3), members[0].clone()), (Index(4), members[1].clone())];
    assert_eq!(opened(&disk).1.memberships, told);

    let (path, record) = (newest(&disk), &model.entries[2].bytes);
    let bytes = disk.contents(&path).expect("it is there");
    let at = bytes.windows(record.len()).position(|window| window == record).expect("it is there");
    assert!(disk.flip(&path, at + 40, 1));
    let (mut log, recovered) = opened(&disk);
    assert_eq!(recovered.memberships, told[1..]);
    persist(&mut log, &model.repairs(&recovered)).expect("it is repaired");
    drop(log);
    assert_eq!(opened(&disk).1.memberships, told);
}

/// A log with segments so large that none has to be made ahead for a while.
fn roomy(disk: &SimulatedDisk) -> Log {
    let sizes = Sizes { segment: 16 * SIZES.segment, ..SIZES };
    open_with(Wal { sizes, ..wal(disk) }).expect("it opens").0
}
