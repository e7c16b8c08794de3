//! Reading and pacing of the snapshot that a replicator sends.
//!
//! [`Replication`](quorate_raft::Replication) decides which chunk is next and when one counts as
//! lost. Here chunks are read ahead, on a thread that may block, and leave no faster than
//! `Snapshots::bytes_per_second` allows.

use super::Replicator;
use crate::{
    actors::{
        blocking::{Aside, Blocking},
        messages::{ChunkAnswered, SnapshotOpened},
    },
    events::{SnapshotStep, What, millis},
};
use actix::prelude::*;
use bytes::Bytes;
use quorate_metrics::{Direction, SnapshotPhase};
use quorate_raft::{EntryId, Index, Moment, Replication, SnapshotTransferSettings};
use quorate_storage::SnapshotSource;
use std::time::Duration;
use tokio::time::Instant;

/// A snapshot that is being sent to the peer.
pub(super) struct Sending {
    /// The number of this transfer: a read for an earlier one may still be under way.
    number: u64,
    last: EntryId,
    /// Bytes to send; 0 for the witness, which keeps none of the state.
    bytes: u64,
    /// `None` while it is being read from.
    source: Option<Aside<Box<dyn SnapshotSource>>>,
    /// Bytes that were read and are not yet sent, and their offset in the state.
    ready_at: u64,
    ready: Bytes,
    pace: Pace,
    began: Instant,
}

/// The bytes of one read, which is a few chunks.
const READ_BYTES: u64 = 1 << 20;
/// The smallest chunk that a low rate makes.
const CHUNK_BYTES_MIN: u64 = 16 << 10;

/// The chunk and window sizes for a rate; 0 for no limit.
pub(super) fn settings(bytes_per_second: u64) -> SnapshotTransferSettings {
    let mut settings = SnapshotTransferSettings::default();
    if bytes_per_second > 0 {
        // Four chunks a second, so that the pace is even.
        let chunk_bytes = (bytes_per_second / 4).clamp(CHUNK_BYTES_MIN, settings.chunk_bytes as u64);
        settings.chunk_bytes = usize::try_from(chunk_bytes).unwrap_or(settings.chunk_bytes);
        // The bytes of half a second: those under way when a connection breaks silently
        // are sent twice.
        settings.window_bytes = (bytes_per_second / 2).clamp(chunk_bytes * 2, settings.window_bytes);
    }
    settings
}

impl Sending {
    fn new(
        number: u64,
        source: Box<dyn SnapshotSource>,
        bytes: u64,
        bytes_per_second: u64,
        blocking: &Blocking,
    ) -> Self {
        let in_each_chunk = source.snapshot().base.membership.encode().len();
        Self {
            number,
            last: source.snapshot().base.last,
            bytes,
            // The witness is sent no bytes, so that its source can be closed at once.
            source: Some(Aside::new(source, blocking)).filter(|_| bytes > 0),
            ready_at: 0,
            ready: Bytes::new(),
            pace: Pace { bytes_per_second, in_each_chunk, next: Instant::now(), is_waking: false },
            began: Instant::now(),
        }
    }

    /// The bytes of a chunk, if they were read already.
    fn at_hand(&self, offset: u64, length: usize) -> Option<Bytes> {
        let from = usize::try_from(offset.checked_sub(self.ready_at)?).ok()?;
        let to = from.checked_add(length)?;
        (to <= self.ready.len()).then(|| self.ready.slice(from..to))
    }
}

impl Replicator {
    /// Sends the chunks that are due and at hand, and reads the next.
    pub(super) fn send_chunks(&mut self, now: Moment, ctx: &mut Context<Self>) {
        while let Some((offset, length)) = self.replication.chunk() {
            if !self.lifecycle.is_running() {
                self.sending = None;
            }
            let Some(sending) = &mut self.sending else { return };
            if let Some(pause) = sending.pace.pause() {
                return self.wake_in(pause, ctx);
            }
            let Some(bytes) = sending.at_hand(offset, length) else { return self.read(offset, ctx) };
            sending.pace.sent(length);
            self.rule(|replication, out| replication.send_chunk(now, offset, bytes, out));
            self.node_metrics.snapshot_bytes(Direction::Sent, length as u64);
        }
    }

    fn read(&mut self, offset: u64, ctx: &mut Context<Self>) {
        let Some(sending) = &mut self.sending else { return };
        let Some(mut source) = sending.source.take().and_then(Aside::take) else { return };
        let (number, length) = (sending.number, (sending.bytes - offset).min(READ_BYTES));
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
            // Wrapped in any case, so that it is closed on a thread that may block.
            let read = read.and_then(|read| read).map(|(source, bytes)| (Aside::new(source, blocking), bytes));
            let Some(sending) = this.sending.as_mut().filter(|sending| sending.number == number) else { return };
            match read {
                Ok((source, bytes)) => {
                    sending.source = Some(source);
                    (sending.ready_at, sending.ready) = (offset, bytes);
                }
                Err(error) => return this.unreadable(&error),
            }
            this.rule_now(ctx, Replication::tick);
        });
        ctx.spawn(reading);
    }

    /// Gives up a snapshot that can't be read to its end: another is to be taken and sent,
    /// after a pause.
    fn unreadable(&mut self, error: &str) {
        if let Some(Sending { last, .. }) = self.sending.take() {
            self.sending_failed(Some(last), error);
            self.replication.snapshot_unreadable();
        }
    }

    fn wake_in(&mut self, pause: Duration, ctx: &mut Context<Self>) {
        if let Some(sending) = self.sending.as_mut().filter(|sending| !sending.pace.is_waking) {
            sending.pace.is_waking = true;
            ctx.run_later(pause, |this, ctx| {
                if let Some(sending) = &mut this.sending {
                    sending.pace.is_waking = false;
                }
                this.rule_now(ctx, Replication::tick);
            });
        }
    }

    /// Closes the snapshot. The log is no longer kept for the peer.
    pub(super) fn snapshot_given_up(&mut self) {
        if let Some(Sending { last, .. }) = self.sending.take() {
            self.sending_failed(Some(last), "it takes nothing of it, so this is given up for now");
        }
    }

    pub(super) fn snapshot_refused(&mut self) {
        let last = self.sending.as_ref().map(|sending| sending.last);
        self.sending_failed(last, "it could not keep it, so it is sent again later");
    }

    fn sending_failed(&self, last: Option<EntryId>, why: &str) {
        let (peer, why) = (Some(self.peer), why.to_owned());
        self.events.tell(What::SnapshotFailed { step: SnapshotStep::Send, last, peer, why });
        self.node_metrics.snapshot_failed(SnapshotPhase::Send);
    }

    pub(super) fn snapshot_installed(&mut self, index: Index) {
        if let Some(sending) = self.sending.take() {
            let took = sending.began.elapsed();
            self.node_metrics.snapshot_took(SnapshotPhase::Send, took);
            self.events.tell(What::SnapshotSent { peer: self.peer, last: index, took_ms: millis(took) });
        }
    }
}

impl Handler<SnapshotOpened> for Replicator {
    type Result = ();

    fn handle(&mut self, SnapshotOpened { source }: SnapshotOpened, ctx: &mut Self::Context) {
        let mut is_wanted = false;
        self.rule_now(ctx, |replication, now, out| {
            is_wanted = replication.snapshot_opened(now, source.snapshot(), out);
        });
        if let Some(transfer) = self.replication.transfer().filter(|_| is_wanted) {
            let (last, bytes) = (transfer.snapshot().base.last, transfer.snapshot().bytes);
            self.events.tell(What::SnapshotSending { peer: self.peer, last, bytes });
            self.opened += 1;
            self.sending = Some(Sending::new(self.opened, source, bytes, self.bytes_per_second, &self.blocking));
        }
    }
}

impl Handler<ChunkAnswered> for Replicator {
    type Result = ();

    fn handle(&mut self, ChunkAnswered { reply }: ChunkAnswered, ctx: &mut Self::Context) {
        self.rule_now(ctx, |replication, now, out| replication.snapshot_answered(now, reply, out));
        self.heartbeat_if_due();
    }
}

/// The pace at which chunks may leave.
struct Pace {
    /// The rate limit; 0 for none.
    bytes_per_second: u64,
    /// The bytes of the configuration, which each chunk carries.
    in_each_chunk: usize,
    /// The time at which the next chunk may leave.
    next: Instant,
    is_waking: bool,
}

impl Pace {
    /// The time to wait before the next chunk may leave; `None` if it may leave now.
    fn pause(&self) -> Option<Duration> {
        let pause = self.next.saturating_duration_since(Instant::now());
        (self.bytes_per_second > 0 && !pause.is_zero()).then_some(pause)
    }

    fn sent(&mut self, bytes: usize) {
        if self.bytes_per_second > 0 {
            // Unused time is not made up for.
            let bytes = bytes + self.in_each_chunk;
            let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            self.next = self.next.max(Instant::now()) + takes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pace_counts_the_configuration_that_each_chunk_carries() {
        let mut pace = Pace { bytes_per_second: 100, in_each_chunk: 150, next: Instant::now(), is_waking: false };
        assert_eq!(pace.pause(), None);
        pace.sent(50);
        assert_eq!(pace.pause(), Some(Duration::from_secs(2)));
    }
}
