//! `SnapshotReceiver`: receives the snapshot that the leader sends, for the life of the node.
//!
//! It receives one snapshot at a time. Chunks in order go to a [`SnapshotSink`], on a thread that
//! may block; every other chunk is answered with the number of bytes received, so that the leader
//! goes on from there. The received bytes stay when the connection is lost. A snapshot does not
//! count until its last byte is there, its checksum is right, and the storage has made it durable;
//! then `Consensus` is told. This actor never decides whether a snapshot is wanted: the rules do,
//! before a chunk comes here.

use super::{
    blocking::{Aside, Blocking},
    messages::{ChunkArrived, SnapshotArrived, SnapshotProgress, Stop},
};
use crate::{
    events::{Events, SnapshotStep, What, millis},
    lifecycle::{Lifecycle, PanicGuard},
};
use actix::prelude::*;
use bytes::Bytes;
use quorate_metrics::{Direction, NodeMetrics, SnapshotPhase};
use quorate_raft::{Index, NodeId, Snapshot, SnapshotChunk, SnapshotOutcome, SnapshotReply, Term};
use quorate_storage::{SaveSnapshot, SnapshotSink};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// The actor that receives snapshots.
pub(crate) struct SnapshotReceiver {
    arriving: Option<Arriving>,
    /// The last entry of the latest snapshot that arrived whole: late chunks of it begin
    /// no new transfer.
    whole: Index,
    /// Counts transfers, to tell the results of the disk for an earlier transfer from those
    /// for this one.
    number: u64,
    save: Recipient<SaveSnapshot>,
    arrived: Recipient<SnapshotArrived>,
    progressed: Recipient<SnapshotProgress>,
    blocking: Blocking,
    metrics: NodeMetrics,
    events: Events,
    lifecycle: Lifecycle,
    _panic_guard: PanicGuard,
}

/// A snapshot that is on its way here.
struct Arriving {
    number: u64,
    leader: Leader,
    snapshot: Snapshot,
    /// Chunks in order that are not yet written.
    waiting: VecDeque<Bytes>,
    waiting_bytes: u64,
    /// The bytes that have arrived, that are written, and that the leader was told.
    arrived: u64,
    written: u64,
    told: u64,
    began: Instant,
    heard: Instant,
    disk: Disk,
}

/// The sender, its term and its epoch of replication: the address of the answers. A greater one
/// replaces a lesser one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Leader {
    term: Term,
    epoch: u64,
    node: NodeId,
}

/// The place of the sink.
enum Disk {
    /// Held here, between two jobs.
    Idle(Aside<Box<dyn SnapshotSink>>),
    /// It is being opened, written to, or finished.
    Busy,
}

/// The most bytes that wait for the disk, far above the window of a correct leader; chunks beyond
/// it are dropped, and asked for again.
const WAITING_BYTES_MAX: u64 = 32 << 20;
/// The silence of the sender after which an incomplete snapshot is removed.
const PATIENCE: Duration = Duration::from_secs(600);

impl SnapshotReceiver {
    pub(crate) fn new(
        save: Recipient<SaveSnapshot>,
        arrived: Recipient<SnapshotArrived>,
        progressed: Recipient<SnapshotProgress>,
        blocking: Blocking,
        metrics: NodeMetrics,
        events: Events,
        lifecycle: Lifecycle,
    ) -> Self {
        let _panic_guard = lifecycle.panic_guard("SnapshotReceiver");
        Self {
            arriving: None,
            whole: Index(0),
            number: 0,
            save,
            arrived,
            progressed,
            blocking,
            metrics,
            events,
            lifecycle,
            _panic_guard,
        }
    }

    fn chunk(&mut self, leader: Leader, chunk: SnapshotChunk, ctx: &mut Context<Self>) {
        let now = Instant::now();
        match &mut self.arriving {
            Some(arriving) if leader < arriving.leader => return, // overtaken
            Some(arriving) if arriving.snapshot == *chunk.snapshot => arriving.leader = leader,
            _ if chunk.snapshot.base.last.index <= self.whole => return, // `Consensus` is about to hear of it
            _ => return self.begin(leader, chunk, ctx),
        }
        let Some(arriving) = &mut self.arriving else { return };
        arriving.heard = now;
        if chunk.bytes.is_empty() {
            // An empty chunk asks for the progress: the leader goes on after all bytes that have
            // arrived, though some still wait for the disk.
            arriving.told = arriving.arrived;
            return self.tell_progress();
        }
        let room = arriving.waiting_bytes + chunk.bytes.len() as u64 <= WAITING_BYTES_MAX;
        match arriving.news_of(chunk.offset, chunk.bytes) {
            Some(bytes) if room => {
                self.take(bytes);
                self.write(ctx);
            }
            _ => self.tell_progress(),
        }
    }

    /// Begins another snapshot. It replaces the one that was arriving.
    fn begin(&mut self, leader: Leader, chunk: SnapshotChunk, ctx: &mut Context<Self>) {
        let SnapshotChunk { snapshot, offset, bytes, .. } = chunk;
        let now = Instant::now();
        self.number += 1;
        let number = self.number;
        let (from, last, bytes_in_all) = (leader.node, snapshot.base.last, snapshot.bytes);
        self.events.tell(What::SnapshotReceiving { from, last, bytes: bytes_in_all });
        let save = SaveSnapshot { base: snapshot.base.clone(), expected: Some((snapshot.bytes, snapshot.checksum)) };
        self.arriving = Some(Arriving {
            number,
            leader,
            snapshot: *snapshot,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            arrived: 0,
            written: 0,
            told: 0,
            began: now,
            heard: now,
            disk: Disk::Busy,
        });
        if offset == 0 {
            self.take(bytes);
        }
        let opened = self.save.send(save).into_actor(self).map(move |sink, this, ctx| {
            let sink = match sink {
                Ok(Ok(sink)) => Ok(sink),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => return, // the storage has died, and the node with it
            };
            this.disk_did(number, 0, sink, ctx);
        });
        ctx.spawn(opened);
    }

    fn take(&mut self, bytes: Bytes) {
        let Some(arriving) = self.arriving.as_mut().filter(|_| !bytes.is_empty()) else { return };
        self.metrics.snapshot_bytes(Direction::Received, bytes.len() as u64);
        arriving.arrived += bytes.len() as u64;
        arriving.waiting_bytes += bytes.len() as u64;
        arriving.waiting.push_back(bytes);
    }

    /// The disk has opened the sink, has written this many bytes, or has failed.
    fn disk_did(
        &mut self,
        number: u64,
        bytes: u64,
        sink: Result<Box<dyn SnapshotSink>, String>,
        ctx: &mut Context<Self>,
    ) {
        let sink = sink.map(|sink| Aside::new(sink, &self.blocking));
        let Some(arriving) = self.arriving.as_mut().filter(|arriving| arriving.number == number) else { return };
        match sink {
            Ok(sink) => {
                arriving.disk = Disk::Idle(sink);
                arriving.written += bytes;
                arriving.waiting_bytes -= bytes;
                self.tell_progress();
                self.write(ctx);
            }
            Err(error) => self.refuse(&error),
        }
    }

    /// Writes the waiting chunks; when all bytes are written, finishes the snapshot.
    fn write(&mut self, ctx: &mut Context<Self>) {
        let Some(arriving) = &mut self.arriving else { return };
        let is_whole = arriving.written >= arriving.snapshot.bytes;
        let Disk::Idle(sink) = std::mem::replace(&mut arriving.disk, Disk::Busy) else { return };
        if arriving.waiting.is_empty() && !is_whole {
            arriving.disk = Disk::Idle(sink);
            return;
        }
        let Some(sink) = sink.take() else { return };
        if is_whole {
            return self.finish(sink, ctx);
        }
        let (number, chunks) = (arriving.number, std::mem::take(&mut arriving.waiting));
        let job = move || {
            let mut sink = sink;
            let mut written = 0;
            for chunk in chunks {
                sink.write_all(&chunk).map_err(|error| error.to_string())?;
                written += chunk.len() as u64;
            }
            Ok((written, sink))
        };
        let written = self.blocking.run(job).into_actor(self).map(move |result, this, ctx| {
            let (bytes, sink) = match result.and_then(|written| written) {
                Ok((bytes, sink)) => (bytes, Ok(sink)),
                Err(error) => (0, Err(error)),
            };
            this.disk_did(number, bytes, sink, ctx);
        });
        ctx.spawn(written);
    }

    fn finish(&mut self, sink: Box<dyn SnapshotSink>, ctx: &mut Context<Self>) {
        let number = self.number;
        let job = move || sink.finish().map_err(|error| error.to_string());
        let finished = self.blocking.run(job).into_actor(self).map(move |result, this, _| {
            let Some(arriving) = this.arriving.take_if(|arriving| arriving.number == number) else { return };
            match result.and_then(|finished| finished) {
                Ok(_) if !this.lifecycle.is_running() => {}
                Ok(snapshot) => {
                    let took = arriving.began.elapsed();
                    this.metrics.snapshot_took(SnapshotPhase::Receive, took);
                    this.whole = snapshot.base.last.index;
                    let Leader { node: from, epoch, .. } = arriving.leader;
                    let (last, took_ms) = (snapshot.base.last, millis(took));
                    this.events.tell(What::SnapshotReceived { from, last, took_ms });
                    this.arrived.do_send(SnapshotArrived { from, epoch, base: snapshot.base });
                }
                Err(error) => {
                    this.arriving = Some(arriving);
                    this.refuse(&error);
                }
            }
        });
        ctx.spawn(finished);
    }

    fn refuse(&mut self, error: &str) {
        self.metrics.snapshot_failed(SnapshotPhase::Receive);
        if let Some(arriving) = self.arriving.take() {
            self.failed(&arriving, error.to_owned());
            self.tell(&arriving, SnapshotOutcome::Refused);
        }
    }

    fn failed(&self, arriving: &Arriving, why: String) {
        let (last, peer) = (Some(arriving.snapshot.base.last), Some(arriving.leader.node));
        self.events.tell(What::SnapshotFailed { step: SnapshotStep::Receive, last, peer, why });
    }

    fn tell_progress(&mut self) {
        if let Some(arriving) = &mut self.arriving {
            // Only written bytes are acknowledged, so that the window of the leader bounds the
            // bytes that wait here. A lower value than before would mean that bytes were lost.
            arriving.told = arriving.told.max(arriving.written);
        }
        if let Some(arriving) = &self.arriving {
            self.tell(arriving, SnapshotOutcome::Received { bytes: arriving.told });
        }
    }

    fn tell(&self, arriving: &Arriving, outcome: SnapshotOutcome) {
        let reply = SnapshotReply { epoch: arriving.leader.epoch, last: arriving.snapshot.base.last, outcome };
        self.progressed.do_send(SnapshotProgress { to: arriving.leader.node, reply });
    }
}

impl Arriving {
    /// The part of a chunk that comes next; `None` if all of it has arrived before, or if an
    /// earlier chunk is missing.
    fn news_of(&self, offset: u64, bytes: Bytes) -> Option<Bytes> {
        let known = usize::try_from(self.arrived.checked_sub(offset)?).ok()?;
        (known < bytes.len()).then(|| bytes.slice(known..))
    }
}

impl Actor for SnapshotReceiver {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(PATIENCE / 10, |this, _| {
            let forgotten = this.arriving.take_if(|arriving| arriving.heard.elapsed() >= PATIENCE);
            if let Some(arriving) = forgotten {
                this.failed(&arriving, "the rest of it does not arrive".to_owned());
            }
        });
    }
}

impl Handler<ChunkArrived> for SnapshotReceiver {
    type Result = ();

    fn handle(&mut self, ChunkArrived { term, from, chunk }: ChunkArrived, ctx: &mut Self::Context) {
        if self.lifecycle.is_running() {
            self.chunk(Leader { term, epoch: chunk.epoch, node: from }, chunk, ctx);
        }
    }
}

impl Handler<Stop> for SnapshotReceiver {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
