//! How a replicator sends a snapshot: reading ahead, on a thread that may block, and no faster than it may.
//!
//! What may be under way, and where to go on after a loss, the [`Transfer`] decides.

use super::Replicator;
use crate::actors::{
    blocking::{Aside, Blocking},
    messages::{GivenUp, PieceAnswered, SnapshotOpened, SnapshotWanted},
};
use actix::prelude::*;
use bytes::Bytes;
use quorate_metrics::{Direction, SnapshotPhase};
use quorate_raft::{
    Body, Index, Moment, ProgressState, Snapshot, SnapshotChunk, SnapshotOutcome, SnapshotReply, Transfer,
    TransferSettings,
};
use quorate_storage::{SnapshotSource, StorageError};
use std::time::Duration;
use tokio::time::Instant;

/// A snapshot on its way to the peer.
pub(super) struct Sending {
    transfer: Transfer,
    /// `None` while it is being read from, and for good once it was given up.
    source: Option<Aside<Box<dyn SnapshotSource>>>,
    is_reading: bool,
    /// What was read and not sent yet, and where it stands in the state.
    ready_at: u64,
    ready: Bytes,
    pace: Pace,
    began: Instant,
    /// The peer took nothing for so long that the source was closed and the log is kept no longer. It is still asked, now and
    /// then; once it answers all begins anew.
    is_given_up: bool,
}

/// So much is read at once: a few chunks.
const READ_BYTES: u64 = 1 << 20;
/// A peer that takes nothing for so long holds the log back no longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The smallest chunk that a low rate makes.
const CHUNK_BYTES_MIN: u64 = 16 << 10;

impl Sending {
    fn new(now: Moment, source: Box<dyn SnapshotSource>, bytes_per_second: u64, blocking: &Blocking) -> Self {
        let mut settings = TransferSettings::default();
        if bytes_per_second > 0 {
            // Several a second, so that the pace is even.
            let chunk_bytes = (bytes_per_second / 4).clamp(CHUNK_BYTES_MIN, settings.chunk_bytes as u64);
            settings.chunk_bytes = usize::try_from(chunk_bytes).unwrap_or(settings.chunk_bytes);
            // Half a second's worth: what is under way when a connection breaks silently is sent twice.
            settings.window_bytes = (bytes_per_second / 2).clamp(chunk_bytes * 2, settings.window_bytes);
        }
        Self {
            transfer: Transfer::new(now, source.snapshot().clone(), settings),
            source: Some(Aside::new(source, blocking)),
            is_reading: false,
            ready_at: 0,
            ready: Bytes::new(),
            pace: Pace { bytes_per_second, next: Instant::now(), is_waking: false },
            began: Instant::now(),
            is_given_up: false,
        }
    }

    /// So many bytes from `offset` on, if they were read already.
    fn at_hand(&self, offset: u64, length: usize) -> Option<Bytes> {
        let from = usize::try_from(offset.checked_sub(self.ready_at)?).ok()?;
        let to = from.checked_add(length)?;
        (to <= self.ready.len()).then(|| self.ready.slice(from..to))
    }

    fn chunk(&self, epoch: u64, offset: u64, bytes: Bytes) -> Body {
        Body::SnapshotChunk(SnapshotChunk { epoch, snapshot: self.transfer.snapshot().clone().into(), offset, bytes })
    }
}

impl Replicator {
    /// Sends whatever of the snapshot may go; asks for one that is to be sent, if there is none.
    pub(super) fn pump_snapshot(&mut self, ctx: &mut Context<Self>) {
        if self.progress.state() != ProgressState::Snapshot || !self.fate.is_sound() {
            self.sending = None;
            return;
        }
        let (now, epoch) = (self.clock.now(), self.progress.epoch());
        let Some(sending) = &mut self.sending else { return self.want_snapshot() };
        if sending.transfer.tick(now) {
            let asks = sending.chunk(epoch, sending.transfer.received_bytes(), Bytes::new());
            self.say(asks);
        }
        while let Some(sending) = &mut self.sending {
            let Some((offset, length)) = sending.transfer.want() else { return };
            if let Some(pause) = sending.pace.pause() {
                return self.wake_in(pause, ctx);
            }
            let Some(bytes) = sending.at_hand(offset, length) else { return self.read(offset, ctx) };
            if sending.transfer.sent(now, offset, length) {
                sending.pace.sent(length);
                let chunk = sending.chunk(epoch, offset, bytes);
                self.say(chunk);
                self.node_metrics.snapshot_bytes(Direction::Sent, length as u64);
            }
        }
    }

    fn want_snapshot(&mut self) {
        if !self.is_wanting {
            self.is_wanting = true;
            let (term, peer, at_least) = (self.term, self.peer, self.snapshot_at_least);
            let anew = std::mem::take(&mut self.is_unreadable);
            self.consensus.do_send(SnapshotWanted { term, peer, at_least, anew });
        }
    }

    fn read(&mut self, offset: u64, ctx: &mut Context<Self>) {
        let Some(sending) = &mut self.sending else { return };
        let Some(mut source) = sending.source.take().and_then(Aside::take) else { return };
        let length = (sending.transfer.snapshot().bytes - offset).min(READ_BYTES);
        sending.is_reading = true;
        let job = move || {
            let mut buffer = vec![0; usize::try_from(length).unwrap_or(0)];
            let mut filled = 0;
            while filled < buffer.len() {
                let read = source.read_at(&mut buffer[filled..], offset + filled as u64);
                match read.map_err(|error| error.to_string())? {
                    0 => return Err("it ends before its length".to_owned()),
                    read => filled += read,
                }
            }
            Ok((source, Bytes::from(buffer)))
        };
        let reading = self.blocking.run(job).into_actor(self).map(move |read, this, ctx| {
            let blocking = &this.blocking;
            let read = read.and_then(|read| read).map(|(source, bytes)| (Aside::new(source, blocking), bytes));
            let Some(sending) = this.sending.as_mut().filter(|sending| sending.is_reading) else { return };
            sending.is_reading = false;
            match read {
                Ok(_) if sending.is_given_up => {}
                Ok((source, bytes)) => {
                    sending.source = Some(source);
                    (sending.ready_at, sending.ready) = (offset, bytes);
                }
                Err(error) => return this.unreadable(&error),
            }
            this.pump_snapshot(ctx);
        });
        ctx.spawn(reading);
    }

    /// It can't be read to its end: another is to be taken and sent, after a pause.
    fn unreadable(&mut self, error: &str) {
        if let Some(sending) = self.sending.take() {
            let last = sending.transfer.snapshot().base.last;
            tracing::warn!("can't send the snapshot that ends at {last} to {}: {error}", self.peer);
            self.node_metrics.snapshot_failed(SnapshotPhase::Send);
            self.is_unreadable = true;
        }
    }

    fn wake_in(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        if let Some(sending) = self.sending.as_mut().filter(|sending| !sending.pace.is_waking) {
            sending.pace.is_waking = true;
            ctx.run_later(pause, |this, ctx| {
                if let Some(sending) = &mut this.sending {
                    sending.pace.is_waking = false;
                }
                this.pump_snapshot(ctx);
            });
        }
    }

    /// Looks whether the peer still takes anything: if not, the log is kept for it no longer.
    pub(super) fn give_up_if_idle(&mut self) {
        if !self.is_pinned || self.progressed_at.elapsed() < PATIENCE {
            return;
        }
        self.is_pinned = false;
        self.consensus.do_send(GivenUp { term: self.term, peer: self.peer });
        if let Some(sending) = &mut self.sending {
            tracing::warn!("{} takes nothing of the snapshot that is sent to it: given up for now", self.peer);
            self.node_metrics.snapshot_failed(SnapshotPhase::Send);
            (sending.source, sending.ready, sending.is_given_up) = (None, Bytes::new(), true);
        }
    }

    fn snapshot_answered(&mut self, reply: SnapshotReply, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        if reply.epoch != self.progress.epoch() || self.progress.state() != ProgressState::Snapshot {
            return;
        }
        if let SnapshotOutcome::Installed { index } = reply.outcome {
            return self.snapshot_installed(index, ctx);
        }
        let Some(sending) = &mut self.sending else { return };
        if reply.last != sending.transfer.snapshot().base.last {
            return;
        }
        if sending.is_given_up {
            // It is back: the log may have been cut since, so another may be needed.
            self.sending = None;
            return self.pump_snapshot(ctx);
        }
        match reply.outcome {
            SnapshotOutcome::Received { bytes } => {
                if bytes > sending.transfer.received_bytes() {
                    self.progressed_at = Instant::now();
                }
                sending.transfer.received(now, bytes);
            }
            SnapshotOutcome::Refused => {
                tracing::warn!("{} could not keep the snapshot that was sent to it: again, later", self.peer);
                self.node_metrics.snapshot_failed(SnapshotPhase::Send);
                sending.transfer.refused(now);
            }
            SnapshotOutcome::Installed { .. } => {}
        }
        self.pump_snapshot(ctx);
    }

    fn snapshot_installed(&mut self, index: Index, ctx: &mut Context<Self>) {
        if let Some(sending) = self.sending.take() {
            self.node_metrics.snapshot_took(SnapshotPhase::Send, sending.began.elapsed());
            tracing::info!("{} has installed a snapshot that ends at entry {index}", self.peer);
        }
        (self.progressed_at, self.is_wanting) = (Instant::now(), false);
        self.progress.installed(self.clock.now(), index);
        self.pump(ctx);
    }

    /// Something may have been lost on the way.
    pub(super) fn snapshot_link_changed(&mut self) {
        if let Some(sending) = &mut self.sending {
            sending.transfer.link_changed(self.clock.now());
        }
    }
}

impl Replicator {
    /// The peer answers again after a silence.
    pub(super) fn snapshot_peer_heard(&mut self) {
        if let Some(sending) = &mut self.sending {
            sending.transfer.heard(self.clock.now());
        }
    }
}

impl Handler<SnapshotOpened> for Replicator {
    type Result = ();

    fn handle(&mut self, SnapshotOpened { source }: SnapshotOpened, ctx: &mut Self::Context) {
        let source = if self.outlines { Box::new(Stateless::of(&*source)) } else { source };
        (self.is_wanting, self.is_pinned, self.progressed_at) = (false, true, Instant::now());
        if self.progress.state() == ProgressState::Snapshot && self.sending.is_none() {
            let (last, bytes) = (source.snapshot().base.last, source.snapshot().bytes);
            tracing::info!("sending {} the snapshot that ends at {last}, {bytes} bytes", self.peer);
            self.sending = Some(Sending::new(self.clock.now(), source, self.bytes_per_second, &self.blocking));
        }
        self.pump_snapshot(ctx);
    }
}

impl Handler<PieceAnswered> for Replicator {
    type Result = ();

    fn handle(&mut self, PieceAnswered { reply }: PieceAnswered, ctx: &mut Self::Context) {
        self.snapshot_answered(reply, ctx);
        self.heartbeat_if_due();
    }
}

/// A snapshot as a witness gets it: what it stands for, and nothing of the state.
struct Stateless(Snapshot);

impl Stateless {
    fn of(source: &dyn SnapshotSource) -> Self {
        let base = source.snapshot().base.clone();
        Self(Snapshot { base, bytes: 0, checksum: quorate_storage::checksum(0, &[]) })
    }
}

impl SnapshotSource for Stateless {
    fn snapshot(&self) -> &Snapshot {
        &self.0
    }

    fn read_at(&mut self, _: &mut [u8], _: u64) -> Result<usize, StorageError> {
        Ok(0)
    }
}

/// How fast chunks may leave.
struct Pace {
    /// 0 for no limit.
    bytes_per_second: u64,
    /// When the next chunk may.
    next: Instant,
    is_waking: bool,
}

impl Pace {
    /// How long to wait before the next chunk.
    fn pause(&self) -> Option<Duration> {
        let pause = self.next.saturating_duration_since(Instant::now());
        (self.bytes_per_second > 0 && !pause.is_zero()).then_some(pause)
    }

    fn sent(&mut self, bytes: usize) {
        if self.bytes_per_second > 0 {
            // Time that passed unused is not made up for.
            let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            self.next = self.next.max(Instant::now()) + takes;
        }
    }
}
