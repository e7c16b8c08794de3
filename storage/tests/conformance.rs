//! Both stores hold what every store must.

use quorate_storage::{Memory, MemoryLog, Wal, conformance, disk::SimulatedDisk};

#[actix::test]
async fn the_memory_store_conforms() {
    conformance::run(|| {
        let log = MemoryLog::new();
        move || Memory::shared(&log).storage()
    })
    .await;
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
async fn the_write_ahead_log_conforms_with_segments_that_roll_over_all_the_time() {
    conformance::run(|| {
        let disk = SimulatedDisk::new();
        move || Wal::at("log").on(disk.clone()).segment_bytes(16 << 10).storage()
    })
    .await;
}
