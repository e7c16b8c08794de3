//! The stores keep the duties of every store.

use quorate_raft::Index;
use quorate_storage::{Memory, MemoryLog, StorageHandle, Wal, checksum};
use quorate_storage_testing::{
    LossyLog, SimulatedDisk,
    conformance::{self, Fault, Harness, OnSimulatedDisk},
};
use std::path::PathBuf;

#[actix::test]
async fn the_memory_store_conforms() {
    let report = conformance::run(|| {
        let log = MemoryLog::new();
        move || Memory::shared(&log).storage()
    })
    .await;
    assert_eq!(report.skipped.len(), 4, "it has no disk: {report:?}");
}

#[actix::test]
async fn the_memory_store_that_loses_entries_conforms() {
    let report = conformance::run(LossyPlace::default).await;
    assert_eq!(report.skipped, ["power cuts", "failing writes and syncs", "damage"], "it has no disk");
}

#[actix::test]
async fn the_write_ahead_log_conforms_on_a_real_disk() {
    conformance::run(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        move || Wal::at(dir.path().join("log")).segment_bytes(1 << 20).storage()
    })
    .await;
}

#[actix::test]
async fn the_write_ahead_log_conforms_with_every_fault_of_a_disk() {
    let report = conformance::run(|| wal_of_segments(1 << 20)).await;
    assert!(report.skipped.is_empty(), "{report:?}");
}

#[actix::test]
async fn the_write_ahead_log_conforms_with_segments_that_roll_over_all_the_time() {
    let report = conformance::run(|| wal_of_segments(16 << 10)).await;
    assert!(report.skipped.is_empty(), "{report:?}");
}

#[derive(Default)]
struct LossyPlace(LossyLog);

impl Harness for LossyPlace {
    fn open(&self) -> StorageHandle {
        self.0.storage()
    }

    fn lose(&self, entry: Index) -> bool {
        self.0.lose(entry, true)
    }
}

struct WalPlace<Open>(OnSimulatedDisk<Open>);

fn wal_of_segments(bytes: u64) -> WalPlace<impl Fn(SimulatedDisk) -> StorageHandle> {
    WalPlace(OnSimulatedDisk::new(move |disk| Wal::at("log").on(disk).segment_bytes(bytes).storage()))
}

impl<Open: Fn(SimulatedDisk) -> StorageHandle> Harness for WalPlace<Open> {
    fn open(&self) -> StorageHandle {
        self.0.open()
    }

    fn crash(&self, seed: u64) -> bool {
        self.0.crash(seed)
    }

    fn fail_next(&self, fault: Fault) -> bool {
        self.0.fail_next(fault)
    }

    fn lose(&self, entry: Index) -> bool {
        let segments =
            self.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|name| name == "segment"));
        // The newest one that has it.
        let mut places = segments.filter_map(|(path, bytes)| Some((path, payload_of(&bytes, entry)?)));
        places.next_back().is_some_and(|(path, at)| self.0.disk.flip(&path, at, 0x20))
    }

    fn damage(&self, seed: u64) -> bool {
        let files = self.files();
        let (path, bytes) = &files[seed as usize % files.len()];
        // Most of a segment is unused zeros; one seed in eight may hit them.
        let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0 || seed % 8 == 7).collect();
        let at = written[seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % written.len()];
        self.0.disk.flip(path, at, 1 << (seed % 8))
    }
}

impl<Open> WalPlace<Open> {
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let all = self.0.disk.paths().into_iter().filter_map(|path| Some((path.clone(), self.0.disk.contents(&path)?)));
        // Only the headroom and the next segment are all zeros.
        all.filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)).collect()
    }
}

/// Offset of an entry's payload: after a header (see `quorate_raft::record`) with this index and
/// a good checksum.
fn payload_of(bytes: &[u8], entry: Index) -> Option<usize> {
    let is_header = |at: usize| {
        let header = &bytes[at..at + 36];
        header[16..24] == entry.0.to_le_bytes() && header[32..] == checksum(0, &header[..32]).to_le_bytes()
    };
    let found = (0..bytes.len().saturating_sub(36)).find(|at| is_header(*at));
    found.map(|at| at + 36)
}
