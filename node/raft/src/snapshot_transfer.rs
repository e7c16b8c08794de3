//! The transfer of one snapshot's bytes to one peer: the bytes under way, losses, and where to
//! resume.
//!
//! Bytes are sent in order, a chunk at a time; a window bounds those that the follower has not
//! acknowledged. The follower answers every chunk with the number of bytes that it has, counted
//! from the beginning. A loss (of a connection, in a full queue, by a restart of the follower)
//! shows as silence; then the follower is *asked*, with an empty chunk, and the transfer resumes
//! where the follower is. A transfer never restarts unless the follower lost its bytes.
//!
//! It does not read, send, or limit a rate: its `Replicator` does.

use crate::{ids::Moment, snapshot::Snapshot};
use alloc::{format, string::String};
use core::time::Duration;

/// One snapshot on its way to one peer, in
/// [`ProgressState::Snapshot`](crate::ProgressState::Snapshot).
///
/// **Invariant:** `received <= sent <= snapshot.bytes`, and `sent - received` is at most the
/// window.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotTransfer {
    snapshot: Snapshot,
    settings: SnapshotTransferSettings,
    /// The bytes before this offset were sent; the next chunk begins here.
    sent: u64,
    /// The bytes before this offset have arrived.
    received: u64,
    asking: Asking,
    waiting_since: Moment,
    retry_after: Duration,
}

/// Sizes of chunks, bounds of those under way, and timeouts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotTransferSettings {
    /// Most bytes in one chunk; default 256 KiB.
    pub chunk_bytes: usize,
    /// Most bytes under way, unacknowledged; a single chunk may always go. Default 4 MiB.
    pub window_bytes: u64,
    /// After this long without an answer the follower is asked where to go on. Doubles each time,
    /// up to `retry_max`, and is reset by an answer. Too short a time costs an empty message, and
    /// no byte is sent twice. Default 1 s.
    pub retry_after: Duration,
    /// The longest that `retry_after` grows to, and the pause after a refusal; default 10 s.
    pub retry_max: Duration,
    /// After this long without a byte that is new to the follower, the leader keeps its log for it
    /// no longer; default 60 s.
    pub patience: Duration,
}

impl Default for SnapshotTransferSettings {
    fn default() -> Self {
        Self {
            chunk_bytes: 256 << 10,
            window_bytes: 4 << 20,
            retry_after: Duration::from_secs(1),
            retry_max: Duration::from_secs(10),
            patience: Duration::from_secs(60),
        }
    }
}

/// Whether the follower must say which bytes it has before another chunk is sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Asking {
    /// No: chunks flow.
    No,
    /// Yes, and it must still be asked.
    Due,
    /// Yes; it was asked.
    Asked,
    /// It refused: it is asked after a pause.
    Paused,
}

impl SnapshotTransfer {
    /// A transfer that begins by asking, because the follower may have a part of this snapshot from
    /// before: the first [`SnapshotTransfer::tick`] returns true.
    #[must_use]
    pub fn new(now: Moment, snapshot: Snapshot, settings: SnapshotTransferSettings) -> Self {
        Self {
            snapshot,
            settings,
            sent: 0,
            received: 0,
            asking: Asking::Due,
            waiting_since: now,
            retry_after: settings.retry_after,
        }
    }

    /// The snapshot that is sent.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Bytes that have arrived, counted from the beginning.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// Bytes sent and not acknowledged.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.sent - self.received
    }

    /// Checks the invariants of chunks under way, for tests and simulations to ask after every
    /// step: they fit into the window, or are a single chunk, and count as lost within the longest
    /// pause.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn accounts(&self) -> Result<(), String> {
        let Self { snapshot, settings, sent, received, retry_after, .. } = self;
        if received > sent || *sent > snapshot.bytes {
            return Err(format!("begins at byte {received} and ends at {sent} of {}", snapshot.bytes));
        }
        let most = settings.window_bytes.max(settings.chunk_bytes as u64);
        if self.in_flight_bytes() > most {
            return Err(format!("has {} bytes, more than the window's {most}", self.in_flight_bytes()));
        }
        let pause_max = settings.retry_max.max(settings.retry_after);
        if *retry_after > pause_max {
            return Err(format!("counts as lost only after {retry_after:?}, more than {pause_max:?}"));
        }
        Ok(())
    }

    /// The next chunk to read and send, as its offset and length; `None` while the window is full,
    /// all bytes were sent, or the follower has yet to say where to resume.
    #[must_use]
    pub fn want(&self) -> Option<(u64, usize)> {
        let left = self.snapshot.bytes - self.sent;
        let length = left.min(self.settings.chunk_bytes as u64);
        let fits = self.in_flight_bytes() == 0 || self.in_flight_bytes() + length <= self.settings.window_bytes;
        (self.asking == Asking::No && left > 0 && fits).then_some((self.sent, usize::try_from(length).ok()?))
    }

    /// The chunk of `length` bytes at `offset` leaves. False if it is not the next chunk any more:
    /// then it must not leave.
    pub fn sent(&mut self, now: Moment, offset: u64, length: usize) -> bool {
        let wanted = self.want().filter(|(wanted, at_most)| *wanted == offset && length <= *at_most && length > 0);
        if wanted.is_none() {
            return false;
        }
        if self.in_flight_bytes() == 0 {
            self.waiting_since = now;
        }
        self.sent += length as u64;
        true
    }

    /// The follower has the first `bytes` bytes.
    pub fn received(&mut self, now: Moment, bytes: u64) {
        if self.asking == Asking::Paused {
            return; // an answer from before it refused
        }
        let bytes = bytes.min(self.snapshot.bytes);
        let progressed = bytes > self.received;
        // Fewer than before: the follower lost bytes. No more than before although it was asked:
        // chunks under way never arrived. More than before: that was a slow answer, and nothing is
        // lost.
        if bytes < self.received || (self.asking != Asking::No && !progressed) {
            self.sent = bytes;
        }
        self.received = bytes;
        self.sent = self.sent.max(bytes);
        self.asking = Asking::No;
        self.waiting_since = now;
        self.retry_after = self.settings.retry_after;
    }

    /// The follower could not keep the snapshot: it is asked again after a pause.
    pub fn refused(&mut self, now: Moment) {
        (self.sent, self.received) = (0, 0);
        self.asking = Asking::Paused;
        self.waiting_since = now;
    }

    /// The link was lost, or is new: chunks under way are lost.
    pub fn link_changed(&mut self, now: Moment) {
        if self.asking != Asking::Paused {
            self.sent = self.received;
            self.asking = Asking::Due;
            self.waiting_since = now;
            self.retry_after = self.settings.retry_after;
        }
    }

    /// The follower answers again after a silence: pauses that have grown meanwhile are short
    /// again.
    pub fn heard(&mut self, now: Moment) {
        if self.retry_after > self.settings.retry_after {
            self.link_changed(now);
        }
    }

    /// Time passed. True if the follower must be asked now which bytes it has, with an empty chunk:
    /// also when all were sent, to learn whether the snapshot is installed.
    pub fn tick(&mut self, now: Moment) -> bool {
        let waited = now.since(self.waiting_since);
        let awaits = self.in_flight_bytes() > 0 || self.sent == self.snapshot.bytes;
        match self.asking {
            Asking::Due => {}
            Asking::Paused if waited < self.settings.retry_max => return false,
            Asking::Paused => self.retry_after = self.settings.retry_after,
            Asking::Asked if waited < self.retry_after => return false,
            Asking::No if !awaits || waited < self.retry_after => return false,
            Asking::Asked | Asking::No => {
                self.retry_after = self.retry_after.saturating_mul(2).min(self.settings.retry_max);
            }
        }
        self.asking = Asking::Asked;
        self.waiting_since = now;
        true
    }
}
