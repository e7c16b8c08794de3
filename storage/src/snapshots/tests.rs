//! A snapshot exists as a whole or not at all; and reading it returns the written bytes.

mod formats;

use super::*;
use crate::{StorageOp, Unobserved, disk::RealDisk};
use proptest::prelude::*;
use quorate_raft::Membership;
use quorate_storage_testing::{Crash, Operation, SimulatedDisk};

const DIR: &str = "log";
/// Small, so that a small state has many.
const CHUNK: usize = 64;

#[test]
fn synced_bytes_are_read_after_a_power_cut() {
    let disk = SimulatedDisk::new();
    for bytes in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK, 1000] {
        let (store, _) = open(&disk);
        let saved = save(&store, 10 + bytes as u64, bytes).expect("saved");
        assert_eq!((saved.bytes, saved.checksum), (bytes as u64, crate::checksum(0, &state(bytes))));
        drop(store);
        disk.crash(Crash::Lose);
        let (store, found) = open(&disk);
        assert_eq!(found.snapshots.first(), Some(&saved));
        assert_eq!(read(&store), (saved, state(bytes)));
    }
}

#[test]
fn chunks_of_the_real_size_go_over_a_real_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let bytes = 5 * format::CHUNK_BYTES + 12_345;
    {
        let (store, _) =
            SnapshotStore::open(disk.clone(), dir.path(), "c", NodeId(1), Arc::new(Unobserved)).expect("open");
        save(&store, 7, bytes).expect("saved");
    }
    let (store, found) = SnapshotStore::open(disk, dir.path(), "c", NodeId(1), Arc::new(Unobserved)).expect("open");
    let (snapshot, read) = read(&store);
    assert_eq!(found.snapshots, [snapshot]);
    assert!(read == state(bytes));
}

proptest! {
    #[test]
    fn any_writes_make_the_same_file_and_any_piece_can_be_read(
        pieces in prop::collection::vec(0..3 * CHUNK, 0..8),
        reads in prop::collection::vec((0..30 * CHUNK, 0..4 * CHUNK), 1..20),
    ) {
        let disk = SimulatedDisk::new();
        let (store, _) = open(&disk);
        let whole = state(pieces.iter().sum());
        let (mut sink, mut at) = (store.begin(base(1), None).expect("begun"), 0);
        for piece in pieces {
            sink.write_all(&whole[at..at + piece]).expect("written");
            sink.flush().expect("flushed");
            at += piece;
        }
        sink.finish().expect("finished");
        let mut source = store.open_newest().expect("there");
        for (from, count) in reads {
            let mut buffer = vec![0; count];
            let filled = source.read_at(&mut buffer, from as u64).expect("readable");
            let wanted = &whole[from.min(whole.len())..(from + count).min(whole.len())];
            prop_assert_eq!(&buffer[..filled], wanted);
        }
    }
}

#[test]
fn a_flip_of_any_byte_is_found_and_the_older_snapshot_takes_the_place() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let older = save(&store, 5, 3 * CHUNK).expect("saved");
    let newer = save(&store, 9, 5 * CHUNK + 7).expect("saved");
    drop(store);
    let path = Path::new(DIR).join(name_of(newer.base.last));
    let length = disk.contents(&path).expect("a file").len();
    for at in 0..length {
        let disk = disk.fork();
        assert!(disk.flip(&path, at, 1 << (at % 8)));
        let (store, found) = open(&disk);
        assert_eq!(found.snapshots, std::slice::from_ref(&older), "a flip at byte {at} is found");
        let [line] = &found.repairs[..] else { panic!("one line about byte {at}: {:?}", found.repairs) };
        assert!(
            line.contains(&*path.display().to_string()) && line.contains("at byte") && !line.contains('\n'),
            "{line}"
        );
        assert_eq!(read(&store), (older.clone(), state(3 * CHUNK)), "the older one is used");
    }
}

#[test]
fn a_cut_at_any_byte_is_found() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let saved = save(&store, 9, 5 * CHUNK + 7).expect("saved");
    drop(store);
    let path = Path::new(DIR).join(name_of(saved.base.last));
    let whole = disk.contents(&path).expect("a file");
    for length in 0..whole.len() {
        let mut zeroed = whole.clone();
        zeroed[length..].fill(0);
        for damaged in [whole[..length].to_vec(), zeroed] {
            disk.put(&path, damaged);
            let (_, found) = open(&disk);
            assert_eq!((found.snapshots.len(), found.repairs.len()), (0, 1), "a cut at byte {length}");
        }
    }
    disk.put(&path, [&whole[..], &[0]].concat());
    assert_eq!(open(&disk).1.repairs.len(), 1, "a byte too many");
}

#[test]
fn damage_that_comes_after_the_start_is_never_given_out_as_state() {
    let bytes = 6 * CHUNK + 5;
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let saved = save(&store, 9, bytes).expect("saved");
    let path = Path::new(DIR).join(name_of(saved.base.last));
    let length = disk.contents(&path).expect("a file").len();
    for at in 0..length {
        disk.flip(&path, at, 0x10);
        let error = match store.open_newest() {
            Ok(mut source) => read_all(&mut *source).expect_err("damaged"),
            Err(error) => error,
        };
        let error = error.to_string();
        assert!(error.contains(&*path.display().to_string()) && error.contains("at byte"), "{error}");
        disk.flip(&path, at, 0x10);
    }
    assert_eq!(read(&store), (saved, state(bytes)));
}

#[test]
fn a_chunk_in_the_place_of_another_is_found() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    // All chunks have the same bytes, and differ in their places alone.
    let mut sink = store.begin(base(9), None).expect("begun");
    sink.write_all(&[7; 6 * CHUNK]).expect("written");
    let saved = sink.finish().expect("finished");
    drop(store);
    let path = Path::new(DIR).join(name_of(saved.base.last));
    let whole = disk.contents(&path).expect("a file");
    let place = |number: usize| 4096 + number * (CHUNK + 4)..4096 + (number + 1) * (CHUNK + 4);
    for (from, to) in [(1, 2), (0, 5), (4, 3), (5, 0)] {
        let mut misdirected = whole.clone();
        misdirected.copy_within(place(from), place(to).start);
        disk.put(&path, misdirected);
        assert!(open(&disk).1.snapshots.is_empty(), "chunk {from} in the place of chunk {to}");
    }
}

#[test]
fn an_error_of_any_operation_leaves_the_old_one_or_the_new_one_whatever_a_crash_keeps() {
    let all =
        [Operation::Open, Operation::Read, Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Rename];
    let mut failed = 0;
    for same in [true, false] {
        for (operation, nth) in all.into_iter().flat_map(|operation| (1..=20).map(move |nth| (operation, nth))) {
            let disk = SimulatedDisk::new();
            let (store, _) = open(&disk);
            let old = save(&store, 5, 3 * CHUNK).expect("saved");
            let index = if same { 5 } else { 9 };
            disk.fail(operation, nth);
            let outcome = save(&store, index, 7 * CHUNK);
            failed += usize::from(outcome.is_err());
            for crash in crashes() {
                let disk = disk.fork();
                disk.crash(crash);
                let (store, found) = open(&disk);
                let (snapshot, bytes) = read(&store);
                assert_eq!(found.snapshots.first(), Some(&snapshot));
                assert!(
                    (&snapshot, &bytes) == (&old, &state(3 * CHUNK))
                        || snapshot.bytes == 7 * CHUNK as u64 && bytes == state(7 * CHUNK),
                    "{operation:?} {nth}, {crash:?}: {snapshot:?}"
                );
                if let Ok(new) = &outcome {
                    assert_eq!(snapshot, *new, "{operation:?} {nth}, {crash:?}: what was finished stays");
                }
                let leftovers = disk.paths().iter().filter(|path| path.to_string_lossy().ends_with(".new")).count();
                assert_eq!(leftovers, 0);
            }
            if outcome.is_err() {
                let next = save(&store, 12, 100).expect("the disk works again, and nothing is in the way");
                assert_eq!(read(&store), (next, state(100)));
            }
        }
    }
    assert!(failed >= 10, "the errors were met: {failed}");
}

#[test]
fn a_power_cut_at_any_moment_leaves_the_old_one_or_the_new_one() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let old = save(&store, 5, 3 * CHUNK).expect("saved");
    let whole = state(20 * CHUNK);
    let mut sink = store.begin(base(9), None).expect("begun");
    let old_is_there = |disk: &SimulatedDisk| {
        for crash in crashes() {
            let disk = disk.fork();
            disk.crash(crash);
            assert_eq!(read(&open(&disk).0).0, old);
        }
    };
    for piece in whole.chunks(50) {
        sink.write_all(piece).expect("written");
        old_is_there(&disk);
    }
    let new = sink.finish().expect("finished");
    for crash in crashes() {
        let disk = disk.fork();
        disk.crash(crash);
        assert_eq!(read(&open(&disk).0), (new.clone(), whole.clone()));
    }
}

#[test]
fn every_error_while_it_is_read_at_the_start_refuses_or_passes_over_and_a_later_start_finds_it() {
    let disk = SimulatedDisk::new();
    let saved = {
        let (store, _) = open(&disk);
        save(&store, 5, 5 * CHUNK).expect("saved")
    };
    for operation in [Operation::Open, Operation::Read] {
        for nth in 1..=10 {
            let disk = disk.fork();
            disk.fail(operation, nth);
            let outcome = SnapshotStore::open(Arc::new(disk.clone()), DIR, "c", NodeId(1), Arc::new(Unobserved));
            if let Ok((_, found)) = outcome {
                assert_eq!(found.snapshots.len() + found.repairs.len(), 1);
            }
            disk.crash(Crash::Lose);
            assert_eq!(open(&disk).1.snapshots, std::slice::from_ref(&saved));
        }
    }
}

#[test]
fn a_full_disk_fails_the_save_alone_and_gets_its_space_back() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let old = save(&store, 5, CHUNK).expect("saved");
    let before = disk.paths();
    for free in [0, 100, 4096, 5000, 6000] {
        disk.fill_after(free);
        let error = save(&store, 9, 100 * CHUNK).expect_err("there is no room").to_string();
        assert!(error.contains("free space") && !error.contains('\n'), "{error}");
        assert_eq!(disk.paths(), before, "nothing is left behind");
        assert_eq!(read(&store).0, old);
    }
    disk.fill_after(1 << 20);
    save(&store, 9, 100 * CHUNK).expect("there is room again");
}

#[test]
fn a_shortage_fails_one_save_or_one_read_and_the_next_one_works() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let saved = save(&store, 5, 100).expect("saved");
    disk.run_short(Operation::Open, 1);
    let line = save(&store, 6, 100).expect_err("no descriptor").to_string();
    assert!(line.contains("Too many open files") && line.contains("ulimit -n"), "{line}");
    disk.run_short(Operation::Open, 1);
    store.open_newest().map(drop).expect_err("no descriptor");
    assert_eq!(read(&store), (saved, state(100)), "it was not taken for damaged");

    for index in 7..12 {
        disk.run_short(Operation::Thread, 1);
        save(&store, index, 100).expect("saved, also if the older ones can't be removed yet");
    }
    assert!(indexes(&disk).len() > 2, "no thread removed them");
    disk.forget_plans();
    save(&store, 12, 100).expect("saved");
    assert_eq!(indexes(&disk), [11, 12], "they went with the next one");
}

#[test]
fn a_start_without_descriptors_is_refused_and_passes_over_no_snapshot() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let saved = save(&store, 5, 100).expect("saved");
    drop(store);
    disk.run_short(Operation::Open, 1);
    let refused = SnapshotStore::open(Arc::new(disk.clone()), DIR, "c", NodeId(1), Arc::new(Unobserved));
    refused.map(drop).expect_err("a file that can't be opened for now is not damaged");
    assert_eq!(open(&disk).1.snapshots, [saved]);
}

#[test]
fn a_snapshot_that_is_not_as_announced_is_refused_and_leaves_nothing() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let before = disk.paths();
    let whole = state(200);
    let checksum = crate::checksum(0, &whole);
    for expected in [(200, checksum ^ 1), (201, checksum), (199, checksum), (0, 0)] {
        let mut sink = store.begin(base(3), Some(expected)).expect("begun");
        let error = match sink.write_all(&whole) {
            Ok(()) => sink.finish().expect_err("it is something else").to_string(),
            Err(error) => {
                let finished = sink.finish().expect_err("it failed before").to_string();
                assert_eq!(error.to_string(), finished);
                finished
            }
        };
        assert!(error.contains("announced") && !error.contains('\n'), "{error}");
        assert_eq!(disk.paths(), before);
    }
    let mut sink = store.begin(base(3), Some((200, checksum))).expect("begun");
    sink.write_all(&whole).expect("written");
    sink.finish().expect("as announced");
}

#[test]
fn a_dropped_sink_leaves_nothing() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let mut sink = store.begin(base(3), None).expect("begun");
    sink.write_all(&state(1000)).expect("written");
    drop(sink);
    assert!(disk.paths().is_empty());
    assert!(store.open_newest().is_err());
}

#[test]
fn a_reader_reads_on_when_the_snapshot_was_replaced_or_removed() {
    let real = tempfile::tempdir().expect("a temporary directory");
    let simulated = SimulatedDisk::new();
    let disks: [(Arc<dyn Disk>, &Path); 2] = [(Arc::new(simulated), Path::new(DIR)), (Arc::new(RealDisk), real.path())];
    for (disk, dir) in disks {
        let (store, _) = SnapshotStore::open(disk, dir, "c", NodeId(1), Arc::new(Unobserved)).expect("open");
        let old = save(&store, 5, 700_000).expect("saved");
        let mut readers = vec![store.open_newest().expect("there")];
        save(&store, 5, 10).expect("saved in its place");
        readers.push(store.open_newest().expect("there"));
        for index in [6, 7, 8] {
            save(&store, index, 300).expect("saved");
        }
        store.remove_older_than(Index(8));
        drop(store);
        assert_eq!(readers[0].snapshot(), &old);
        assert_eq!(read_all(&mut *readers[0]).expect("readable"), state(700_000));
        assert_eq!(read_all(&mut *readers[1]).expect("readable"), state(10));
    }
}

#[test]
fn two_are_kept_and_after_a_cut_those_that_reach_it() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    for index in [10, 20, 30] {
        save(&store, index, 100).expect("saved");
    }
    assert_eq!(indexes(&disk), [20, 30]);
    let (store, found) = {
        drop(store);
        open(&disk)
    };
    assert_eq!(found.snapshots.iter().map(|found| found.base.last.index.0).collect::<Vec<_>>(), [30, 20]);
    for (to, left) in [(20, &[20, 30][..]), (21, &[30]), (99, &[30])] {
        store.remove_older_than(Index(to));
        assert_eq!(indexes(&disk), left, "the log begins after {to}");
    }
    // A slow save may finish after that of a newer snapshot.
    save(&store, 25, 100).expect("saved");
    assert_eq!(read(&store).0.base, base(30));
    assert_eq!(
        store.bytes(),
        disk.paths().iter().map(|path| disk.contents(path).unwrap_or_default().len() as u64).sum()
    );
    disk.crash(Crash::Lose);
    assert_eq!(indexes(&disk), [25, 30], "the removals were durable");
}

#[test]
fn a_damaged_snapshot_goes_when_a_newer_one_is_there() {
    let disk = SimulatedDisk::new();
    let saved = save(&open(&disk).0, 9, 100).expect("saved");
    disk.flip(&Path::new(DIR).join(name_of(saved.base.last)), 4100, 1);
    let (store, found) = open(&disk);
    assert_eq!((found.snapshots.len(), found.repairs.len()), (0, 1));
    assert!(store.open_newest().is_err());
    save(&store, 8, 50).expect("saved");
    assert_eq!(read(&store).0.base, base(8));
    save(&store, 9, 50).expect("saved in its place");
    assert_eq!(indexes(&disk), [8, 9]);
    assert_eq!(read(&store), (open(&disk).1.snapshots[0].clone(), state(50)));
}

#[test]
fn a_sink_that_outlives_its_store_disturbs_no_other() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let mut late = store.begin(base(3), None).expect("begun");
    let dropped = store.begin(base(3), None).expect("begun");
    late.write_all(&state(500)).expect("written");
    drop(store);
    let (store, found) = open(&disk);
    assert_eq!(found.repairs.len(), 2, "{:?}", found.repairs);
    // They get the names of the earlier ones.
    let mut first = store.begin(base(4), None).expect("begun");
    let second = store.begin(base(5), None).expect("begun");
    first.write_all(&state(300)).expect("written");
    drop(dropped);
    late.write_all(&state(500)).expect("written");
    let error = late.finish().expect_err("its store is closed").to_string();
    assert!(error.contains("closed"), "{error}");
    drop(second);
    first.finish().expect("finished");
    assert_eq!(indexes(&disk), [4]);
    assert_eq!(read(&store).1, state(300));
}

#[test]
fn snapshots_are_written_side_by_side() {
    let disk = SimulatedDisk::new();
    let (store, _) = open(&disk);
    let mut sinks: Vec<_> = (1..=3).map(|index| (index, store.begin(base(index), None).expect("begun"))).collect();
    let whole = state(1000);
    for piece in whole.chunks(70) {
        sinks.iter_mut().for_each(|(_, sink)| sink.write_all(piece).expect("written"));
    }
    for (index, sink) in sinks {
        sink.finish().expect("finished");
        assert_eq!(
            read(&store),
            (Snapshot { base: base(index), bytes: 1000, checksum: crate::checksum(0, &whole) }, state(1000))
        );
    }
}

#[test]
fn snapshots_of_another_member_or_of_another_program_are_refused() {
    let disk = SimulatedDisk::new();
    save(&open(&disk).0, 9, 100).expect("saved");
    for (cluster, member, wanted) in [("c", 2, "member 2"), ("d", 1, "\"d\"")] {
        let opened = SnapshotStore::open(Arc::new(disk.clone()), DIR, cluster, NodeId(member), Arc::new(Unobserved));
        let error = opened.expect_err("another's").to_string();
        assert!(error.contains("belongs to member 1 of cluster \"c\"") && error.contains(wanted), "{error}");
    }
    let path = Path::new(DIR).join(name_of(base(9).last));
    for (at, value) in [(8, 1), (8, 3), (12, 1)] {
        let mut other = disk.contents(&path).expect("a file");
        other[at] = value;
        let sum = crate::checksum(0, &other[..508]);
        other[508..512].copy_from_slice(&sum.to_le_bytes());
        let disk = disk.fork();
        disk.put(&path, other);
        let opened = SnapshotStore::open(Arc::new(disk), DIR, "c", NodeId(1), Arc::new(Unobserved));
        let error = opened.expect_err("another program's").to_string();
        assert!(error.contains("start it with the program that wrote it"), "{error}");
    }
}

#[test]
fn a_file_under_a_wrong_name_and_foreign_files_count_for_nothing() {
    let disk = SimulatedDisk::new();
    let saved = save(&open(&disk).0, 9, 100).expect("saved");
    let whole = disk.contents(&Path::new(DIR).join(name_of(saved.base.last))).expect("a file");
    let wrong = Path::new(DIR).join(name_of(base(10).last));
    disk.put(&wrong, whole);
    for name in ["9-2.snapshot", "notes.txt", "00000000000000000001.segment", "x-1.snapshot"] {
        disk.put(&Path::new(DIR).join(name), b"letters".to_vec());
    }
    let (_, found) = open(&disk);
    assert_eq!(found.snapshots, [saved]);
    assert_eq!(found.repairs.len(), 1, "{:?}", found.repairs);
}

#[test]
fn no_write_waits_for_more_than_a_few_mebibytes_to_be_synced() {
    let disk = SimulatedDisk::new();
    let store = SnapshotStore::open(Arc::new(disk.clone()), DIR, "c", NodeId(1), Arc::new(Unobserved)).expect("open").0;
    let mut sink = store.begin(base(1), None).expect("begun");
    let (mut syncs, mut unsynced) = (disk.count(Operation::Sync), 0);
    let piece = vec![1; 1 << 20];
    for _ in 0..20 {
        sink.write_all(&piece).expect("written");
        unsynced += piece.len();
        if disk.count(Operation::Sync) > syncs {
            (syncs, unsynced) = (disk.count(Operation::Sync), 0);
        }
        assert!(unsynced <= 8 << 20);
    }
    let writes = disk.count(Operation::Write);
    assert!(writes <= 81, "in pieces of 256 KiB: {writes} writes");
}

fn open(disk: &SimulatedDisk) -> (SnapshotStore, Found) {
    let opened = SnapshotStore::open(Arc::new(disk.clone()), DIR, "c", NodeId(1), Arc::new(Unobserved));
    let (mut store, found) = opened.expect("the store opens");
    Arc::get_mut(&mut store.shared).expect("nothing is being written").chunk_bytes = CHUNK;
    (store, found)
}

fn base(index: u64) -> SnapshotBase {
    let members = (1..=3).map(|id| (NodeId(id), format!("node-{id}.example:70{index:02}")));
    let last = EntryId::new(Term(2), Index(index));
    let membership = Membership::of_addresses(members);
    SnapshotBase { last, last_checksum: 0xabcd, membership, membership_index: Index(index / 2) }
}

fn state(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn save(store: &SnapshotStore, index: u64, bytes: usize) -> Result<Snapshot, StorageError> {
    let mut sink = store.begin(base(index), None)?;
    sink.write_all(&state(bytes)).map_err(|error| StorageError::within(error, StorageOp::Write))?;
    sink.finish()
}

fn read(store: &SnapshotStore) -> (Snapshot, Vec<u8>) {
    let mut source = store.open_newest().expect("there is a snapshot");
    let bytes = read_all(&mut *source).expect("it is readable");
    (source.snapshot().clone(), bytes)
}

fn read_all(source: &mut dyn SnapshotSource) -> Result<Vec<u8>, StorageError> {
    let (mut all, mut buffer) = (Vec::new(), [0; 100]);
    loop {
        let count = source.read_at(&mut buffer, all.len() as u64)?;
        if count == 0 {
            return Ok(all);
        }
        all.extend_from_slice(&buffer[..count]);
    }
}

fn indexes(disk: &SimulatedDisk) -> Vec<u64> {
    let names = disk.paths();
    names.iter().filter_map(|path| last_of(path.file_name()?.to_str()?)).map(|last| last.index.0).collect()
}

fn crashes() -> impl Iterator<Item = Crash> {
    [Crash::Lose, Crash::Keep, Crash::Torn { bytes: 600 }].into_iter().chain((0..6).map(|seed| Crash::Scatter { seed }))
}
