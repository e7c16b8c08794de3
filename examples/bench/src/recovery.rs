//! The time that a node needs to recover: a write-ahead log of the given size is filled through the
//! storage actor, closed and opened again; then the same with a snapshot of the given size.
//!
//! Every opening is from a cold cache, as far as the kernel drops files on request, and is compared
//! with sequential reads of the same files.

use crate::{
    PROGRAM,
    machine_speed::{files_in, forget, noise, read_sequentially, round, speed},
    workload::{Failed, PATIENCE, say, within},
};
use actix::prelude::*;
use quorate::{
    Index, Membership, NodeId, State, Term,
    storage::{
        Completions, EntriesRead, OpenSnapshot, Persist, Persisted, Recover, Recovered, SaveSnapshot, SnapshotSource,
        Storage, StorageFailed, StorageFull, Unobserved, Wal, checksum,
    },
};
use quorate_kv::machine::{Kv, Value};
use quorate_progress::{Progress, Unit};
use quorate_raft::{BatchBuilder, Cut, EntryId, HardState, Kind, SnapshotBase};
use serde_json::json;
use std::{
    io::{self, Read},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

const CLUSTER: &str = "bench";
const ONE: NodeId = NodeId(1);
const TERM: Term = Term(1);
/// The length of a command, and of a value in the state.
const ENTRY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;
/// The size of one persist request, and the maximum number of waiting requests.
const BATCH_BYTES: usize = 1 << 20;
const WAITING_MAX: u64 = 8;
/// The size of a node's reads of a snapshot.
const READ_BYTES: usize = 256 << 10;

/// Runs the measurement and prints two lines.
pub(crate) fn run(bytes: u64) -> Result<(), Failed> {
    let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
    let data = dir.path().join("data");
    System::new().block_on(async {
        let last = fill(&data, bytes).await?;
        let (read, read_bytes) = read_sequentially(&files_in(&data)?)?;
        let (cold, recovered) = reopen(&data).await?;
        if recovered.last != last.id {
            return Err(format!("the log ended at {} and was recovered up to {}", last.id, recovered.last).into());
        }
        let line = json!({
            "system": "quorate", "what": "log", "bytes": bytes, "entries": last.id.index, "entry_bytes": ENTRY_BYTES,
            "recovery_s": round(cold.as_secs_f64()), "recovery_mb_per_s": round(speed(bytes, cold)),
            "files_bytes": read_bytes, "sequential_read_s": round(read.as_secs_f64()),
            "ratio_to_sequential_read": round(cold.as_secs_f64() / read.as_secs_f64()),
        });
        say(&line)?;
        snapshot(&data, &last, bytes).await
    })
}

/// The last entry of a log.
struct Last {
    id: EntryId,
    checksum: u32,
}

/// Fills the log with this many bytes of commands.
async fn fill(data: &Path, bytes: u64) -> Result<Last, Failed> {
    let mut open = Open::at(data).await?;
    let payload = noise(ENTRY_BYTES);
    let (mut next, mut chained, mut filled, mut sequence) = (Index(1), 0, 0, 0);
    let mut hard_state = Some(HardState::new(TERM, Some(ONE)));
    let (progress, written) = Progress::start(PROGRAM, "a log is written", Unit::Bytes, Some(bytes));
    while filled < bytes {
        let mut builder = BatchBuilder::new(checksum, TERM, next, chained, BATCH_BYTES);
        while builder.len() < BATCH_BYTES && filled < bytes {
            builder.push(Kind::Command, &payload);
            filled += payload.len() as u64;
        }
        let batch = builder.finish().ok_or("an empty batch")?;
        (next, chained) = (batch.last().next(), batch.checksum());
        sequence += 1;
        let batch = Some(batch);
        let persist = quorate_raft::Persist { sequence, batch, hard_state: hard_state.take(), ..Default::default() };
        open.storage.persist.do_send(Persist(persist));
        open.until_durable(sequence.saturating_sub(WAITING_MAX)).await?;
        written.set(filled);
    }
    open.until_durable(sequence).await?;
    drop(progress);
    open.close().await?;
    Ok(Last { id: EntryId::new(TERM, Index(next.0 - 1)), checksum: chained })
}

/// Opens the log from a cold cache; returns the time taken and the recovered state.
async fn reopen(data: &Path) -> Result<(Duration, Recovered), Failed> {
    forget(&files_in(data)?)?;
    let begun = Instant::now();
    let open = Open::at(data).await?;
    let (took, recovered) = (begun.elapsed(), open.recovered.clone());
    open.close().await?;
    Ok((took, recovered))
}

/// Writes a snapshot, cuts the log, and measures the time until a node has its state back.
async fn snapshot(data: &Path, last: &Last, bytes: u64) -> Result<(), Failed> {
    let mut kv = Kv::default();
    let value = Value::from(noise(VALUE_BYTES));
    // Its keys are made, written and read again, each in one go.
    let (_progress, _) = Progress::start(PROGRAM, "a snapshot is written and restored", Unit::Bytes, None);
    for number in 0..bytes / VALUE_BYTES as u64 {
        kv.insert(format!("key-{number:016}").into(), value.clone(), None);
    }
    let (hash, write) = (kv.state_hash(), kv.save());
    drop(kv);

    let mut open = Open::at(data).await?;
    let membership = Membership::of_voters([ONE]);
    let base = SnapshotBase { last: last.id, last_checksum: last.checksum, membership, membership_index: Index(0) };
    let mut sink = open.storage.save_snapshot.send(SaveSnapshot { base, expected: None }).await??;
    let begun = Instant::now();
    write(&mut sink)?;
    let saved = sink.finish()?;
    let saving = begun.elapsed();
    let cut = Some(Cut { to: last.id, checksum: None });
    open.storage.persist.do_send(Persist(quorate_raft::Persist { sequence: 1, cut, ..Default::default() }));
    open.until_durable(1).await?;
    open.close().await?;

    let files = files_in(data)?;
    let (read, read_bytes) = read_sequentially(&files)?;
    forget(&files)?;
    let begun = Instant::now();
    let open = Open::at(data).await?;
    let recovering = begun.elapsed();
    let source = open.storage.open_snapshot.send(OpenSnapshot).await??;
    let mut restored = Kv::default();
    restored.load(&mut FromStart { source, at: 0, buffer: vec![0; READ_BYTES], filled: 0, used: 0 })?;
    let restoring = begun.elapsed();
    open.close().await?;
    if restored.state_hash() != hash {
        return Err("the restored state differs".into());
    }
    let line = json!({
        "system": "quorate", "what": "snapshot", "bytes": saved.bytes, "keys": restored.len(), "value_bytes": VALUE_BYTES,
        "save_s": round(saving.as_secs_f64()), "save_mb_per_s": round(speed(saved.bytes, saving)),
        "recovery_s": round(recovering.as_secs_f64()),
        "restore_s": round(restoring.as_secs_f64()), "restore_mb_per_s": round(speed(saved.bytes, restoring)),
        "files_bytes": read_bytes, "sequential_read_s": round(read.as_secs_f64()),
        "ratio_to_sequential_read": round(restoring.as_secs_f64() / read.as_secs_f64()),
    });
    say(&line)
}

/// A storage actor that has recovered, and its messages.
struct Open {
    storage: Storage,
    recovered: Recovered,
    heard: mpsc::UnboundedReceiver<Result<u64, Failed>>,
    durable: u64,
}

impl Open {
    async fn at(data: &Path) -> Result<Self, Failed> {
        let storage = Wal::at(data).storage().start()?;
        let (say, heard) = mpsc::unbounded_channel();
        let completions = Completions::to(&Listener { say }.start());
        let recover = Recover { cluster: CLUSTER.into(), member: ONE, completions, observer: Arc::new(Unobserved) };
        let recovered = storage.recover.send(recover).await??;
        Ok(Self { storage, recovered, heard, durable: 0 })
    }

    async fn until_durable(&mut self, sequence: u64) -> Result<(), Failed> {
        while self.durable < sequence {
            let heard = within(PATIENCE, "a write of the storage actor", self.heard.recv()).await?;
            self.durable = heard.ok_or("the storage actor died")??;
        }
        Ok(())
    }

    async fn close(mut self) -> Result<(), Failed> {
        let thread = self.storage.take_thread();
        drop(self.storage);
        if let Some(thread) = thread {
            tokio::task::spawn_blocking(move || thread.end()).await?;
        }
        Ok(())
    }
}

/// Receives the messages of the storage actor.
struct Listener {
    say: mpsc::UnboundedSender<Result<u64, Failed>>,
}

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Persisted> for Listener {
    type Result = ();

    fn handle(&mut self, persisted: Persisted, _: &mut Context<Self>) {
        let _ = self.say.send(Ok(persisted.sequence));
    }
}

impl Handler<EntriesRead> for Listener {
    type Result = ();

    fn handle(&mut self, _: EntriesRead, _: &mut Context<Self>) {}
}

impl Handler<StorageFull> for Listener {
    type Result = ();

    fn handle(&mut self, full: StorageFull, _: &mut Context<Self>) {
        if full.is_full {
            let _ = self.say.send(Err("the disk is full; free space, or measure fewer bytes".into()));
        }
    }
}

impl Handler<StorageFailed> for Listener {
    type Result = ();

    fn handle(&mut self, failed: StorageFailed, _: &mut Context<Self>) {
        let _ = self.say.send(Err(failed.error.into()));
    }
}

/// A snapshot as a stream.
struct FromStart {
    source: Box<dyn SnapshotSource>,
    at: u64,
    buffer: Vec<u8>,
    filled: usize,
    used: usize,
}

impl Read for FromStart {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.used == self.filled {
            self.filled = self.source.read_at(&mut self.buffer, self.at).map_err(io::Error::other)?;
            self.at += self.filled as u64;
            self.used = 0;
        }
        let count = into.len().min(self.filled - self.used);
        into[..count].copy_from_slice(&self.buffer[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}
