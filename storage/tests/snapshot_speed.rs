//! The cost of saving a snapshot, for itself and for the log: throughput, and the duration of a
//! small file's `fdatasync` meanwhile.
//!
//! ```text
//! SNAPSHOT_SPEED=DIR:MEBIBYTES cargo test --release -p quorate-storage --test snapshot_speed -- --ignored --nocapture
//! ```
//!
//! One JSON line per way of writing. `idle` writes nothing. The `file` lines write as the snapshot
//! store does, without its checksums, and sync after this number of MiB; 0 is a sync at the end
//! alone. `store` is the snapshot store; the last line is reading it back. The small file is
//! written and synced every 2 ms, in place, like a log.

use quorate_raft::{EntryId, Index, NodeId, SnapshotBase, Term};
use quorate_storage::{
    SnapshotStore, Unobserved,
    disk::{Disk, Pace, RealDisk},
};
use std::{
    env,
    error::Error,
    io::{IoSlice, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of one write to a sink or file.
const PIECE_BYTES: usize = 256 << 10;

#[test]
#[ignore = "it measures a disk for minutes"]
fn saving_a_snapshot_leaves_the_log_its_syncs() -> Outcome<()> {
    let wanted = env::var("SNAPSHOT_SPEED").unwrap_or_else(|_| ".:1024".into());
    let (dir, mebibytes) = wanted.split_once(':').ok_or("SNAPSHOT_SPEED is DIR:MEBIBYTES")?;
    let (dir, bytes) = (PathBuf::from(dir).join("snapshot-speed"), mebibytes.parse::<u64>()? << 20);
    RealDisk.create_dir(&dir)?;
    let (store, _) = SnapshotStore::open(Arc::new(RealDisk), &dir, "speed", NodeId(1), Arc::new(Unobserved))?;

    beside(&dir, "idle", 0, || {
        thread::sleep(Duration::from_secs(3));
        Ok(())
    })?;
    for sync_mebibytes in [0, 1, 2, 4, 8, 16, 64] {
        let what = format!("file, a sync every {sync_mebibytes} MiB");
        beside(&dir, &what, bytes, || write_file(&dir.join("file"), bytes, sync_mebibytes << 20))?;
    }
    beside(&dir, "store", bytes, || {
        let last = EntryId::new(Term(1), Index(1));
        let mut sink = store.begin(SnapshotBase { last, ..SnapshotBase::default() }, None)?;
        let piece = vec![0x5a; PIECE_BYTES];
        for _ in 0..bytes / PIECE_BYTES as u64 {
            sink.write_all(&piece)?;
        }
        sink.finish()?;
        Ok(())
    })?;
    let (mut source, began, mut at) = (store.open_newest()?, Instant::now(), 0);
    let mut piece = vec![0; PIECE_BYTES];
    while at < bytes {
        at += source.read_at(&mut piece, at)? as u64;
    }
    println!("{{\"what\":\"read\",\"mib_per_s\":{:.0}}}", mebibytes_per_s(bytes, began.elapsed()));
    drop((source, store));
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Runs `work` while another thread writes and syncs a small file, and prints the
/// durations of both.
fn beside(dir: &Path, what: &str, bytes: u64, work: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    let is_done = Arc::new(AtomicBool::new(false));
    let small = thread::spawn({
        let (path, is_done) = (dir.join("small"), Arc::clone(&is_done));
        move || sync_small(&path, &is_done)
    });
    let began = Instant::now();
    let outcome = work();
    let took = began.elapsed();
    is_done.store(true, Ordering::Relaxed);
    let mut syncs = small.join().map_err(|_| "the small file's thread panicked")??;
    outcome?;
    syncs.sort_unstable();
    let at = |share: f64| syncs[((syncs.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "{{\"what\":\"{what}\",\"mib_per_s\":{:.0},\"small_syncs\":{},\"p50_ms\":{:.2},\"p99_ms\":{:.2},\"max_ms\":{:.2}}}",
        mebibytes_per_s(bytes, took),
        syncs.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

fn write_file(path: &Path, bytes: u64, sync_bytes: u64) -> Outcome<()> {
    let (file, piece) = (RealDisk.create(path)?, vec![0x5a; PIECE_BYTES]);
    for at in (0..bytes).step_by(PIECE_BYTES) {
        file.write_at(&mut [IoSlice::new(&piece)], at)?;
        if sync_bytes > 0 && (at + PIECE_BYTES as u64).is_multiple_of(sync_bytes) {
            file.sync_data()?;
        }
    }
    file.sync_data()?;
    RealDisk.remove(path)?;
    Ok(())
}

fn sync_small(path: &Path, is_done: &AtomicBool) -> Outcome<Vec<Duration>> {
    const BYTES: u64 = 1 << 20;
    let file = RealDisk.create(path)?;
    file.allocate(BYTES, Pace::AtOnce)?;
    file.sync_data()?;
    let (mut syncs, record) = (Vec::new(), [7; 512]);
    while !is_done.load(Ordering::Relaxed) || syncs.is_empty() {
        file.write_at(&mut [IoSlice::new(&record)], syncs.len() as u64 * 512 % BYTES)?;
        let began = Instant::now();
        file.sync_data()?;
        syncs.push(began.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    RealDisk.remove(path)?;
    Ok(syncs)
}

fn mebibytes_per_s(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64() / f64::from(1 << 20)
}
