//! A backup is a snapshot's file, byte for byte, or it is refused.

use super::*;
use crate::snapshots::{Export, SnapshotStore};
use proptest::prelude::*;
use quorate_raft::{EntryId, Index, Membership, SnapshotBase, Term};
use quorate_storage_testing::SimulatedDisk;
use std::{io::Write, sync::Arc};

#[test]
fn a_backup_is_the_very_file_of_the_snapshot_and_says_whose_it_is() {
    for bytes in [0, 1, 262_144, 700_000] {
        let (disk, store) = with_snapshot(bytes);
        let file = exported(&store);
        let path = disk.paths().pop().expect("a snapshot's file");
        assert!(disk.contents(&path) == Some(file.clone()), "{bytes} bytes of state");
        let backup = opened(&disk, file).expect("it is whole");
        assert_eq!((backup.cluster(), backup.member()), ("test", NodeId(1)));
        assert_eq!(backup.snapshot(), store.open_newest().expect("there").snapshot());
        let mut read = vec![0; bytes + 1];
        assert_eq!(backup.into_source().read_at(&mut read, 0), Ok(bytes));
        assert!(read[..bytes] == state(bytes));
    }
}

#[test]
fn a_cut_or_flipped_backup_is_refused_in_one_line() {
    let (disk, store) = with_snapshot(700);
    let whole = exported(&store);
    assert!(opened(&disk, whole.clone()).is_ok());
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        let line = refused(opened(&disk, flipped));
        assert!(line.contains("backup") && !line.contains("newer snapshot"), "byte {at}: {line}");
        refused(opened(&disk, whole[..at].to_vec()));
        let mut zeroed = whole.clone();
        zeroed[at..].fill(0);
        refused(opened(&disk, zeroed));
    }
    refused(opened(&disk, [&whole[..], &[0]].concat()));
    assert!(refused(Backup::open_on(&disk, "nowhere")).contains("there is no nowhere"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn damage_to_a_large_backup_is_found_wherever_it_is(at in any::<prop::sample::Index>(), flip in 1..=u8::MAX) {
        let (disk, store) = with_snapshot(600_000);
        let mut bytes = exported(&store);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(opened(&disk, bytes).is_err());
    }
}

#[test]
fn a_source_that_gives_other_bytes_than_it_says_makes_no_whole_backup() {
    struct Lying(Box<dyn SnapshotSource>);
    impl SnapshotSource for Lying {
        fn snapshot(&self) -> &Snapshot {
            self.0.snapshot()
        }
        fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> Result<usize, StorageError> {
            let count = self.0.read_at(buffer, offset)?;
            buffer[0] ^= 1;
            Ok(count)
        }
    }
    let (_, store) = with_snapshot(700);
    let source = Box::new(Lying(store.open_newest().expect("there")));
    let mut export = Export::new(source, "test", NodeId(1)).expect("a name that fits");
    assert!(export.next().is_some_and(|head| head.is_ok()));
    assert!(export.next().is_some_and(|chunk| chunk.is_err()));
    assert!(export.next().is_none());
}

fn with_snapshot(bytes: usize) -> (SimulatedDisk, SnapshotStore) {
    let disk = SimulatedDisk::new();
    let observer = Arc::new(crate::Unobserved);
    let (store, _) = SnapshotStore::open(Arc::new(disk.clone()), "log", "test", NodeId(1), observer).expect("open");
    let base = SnapshotBase {
        last: EntryId::new(Term(3), Index(70)),
        last_checksum: 7,
        membership: Membership::of_voters([1, 2, 3].map(NodeId)),
        membership_index: Index(9),
    };
    let mut sink = store.begin(base, None).expect("begun");
    sink.write_all(&state(bytes)).expect("written");
    sink.finish().expect("finished");
    (disk, store)
}

fn exported(store: &SnapshotStore) -> Vec<u8> {
    let export = Export::new(store.open_newest().expect("there"), "test", NodeId(1)).expect("a name that fits");
    let announced = export.file_bytes();
    let pieces: Result<Vec<_>, _> = export.collect();
    let bytes = pieces.expect("it can be read").concat();
    assert_eq!(bytes.len() as u64, announced);
    bytes
}

fn opened(disk: &SimulatedDisk, bytes: Vec<u8>) -> Result<Backup, StorageError> {
    disk.put(Path::new("backups/one"), bytes);
    Backup::open_on(disk, "backups/one")
}

fn state(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 256) as u8).collect()
}

fn refused(result: Result<Backup, StorageError>) -> String {
    let line = result.map(drop).expect_err("it is refused").to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}
