//! How a snapshot's bytes travel to one peer: how much is under way, what was lost, where to go on.
//!
//! Bytes are sent in order, a chunk at a time, as long as what the follower has not acknowledged yet fits into a window. The
//! follower answers every chunk with how many bytes it has from the beginning on. What is lost (a connection, a full queue, a
//! restart of the follower) shows as silence; then the follower is *asked*, with an empty chunk, and the transfer goes on
//! from where it is. Nothing starts over that need not.
//!
//! It does not read, send, or limit a rate: its `Replicator` does.

use crate::{
    ids::Moment,
    mutants::{Mutant, live},
    snapshot::Snapshot,
};
use alloc::{format, string::String};
use core::time::Duration;

/// The pure piece of a `Replicator` in [`ProgressState::Snapshot`](crate::ProgressState::Snapshot): one snapshot, one peer.
///
/// **Invariant:** `received <= sent <= snapshot.bytes`, and `sent - received` is at most the window.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Transfer {
    snapshot: Snapshot,
    settings: TransferSettings,
    /// Everything before this was sent; the next chunk begins here.
    sent: u64,
    /// Everything before this has arrived.
    received: u64,
    asking: Asking,
    waiting_since: Moment,
    retry_after: Duration,
    progressed_at: Moment,
}

/// How chunks are cut and when they count as lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TransferSettings {
    /// Most bytes in one chunk; default 256 KiB.
    pub chunk_bytes: usize,
    /// Most bytes under way, unacknowledged; a single chunk may always go. Default 4 MiB.
    pub window_bytes: u64,
    /// After this long without an answer the follower is asked where to go on. Doubles each time, up to `retry_max`, and is
    /// short again after an answer. It costs an empty message to be too short: nothing is sent twice because of it. Default 1 s.
    pub retry_after: Duration,
    /// The longest that `retry_after` grows to, and how long a follower that refused is left alone; default 10 s.
    pub retry_max: Duration,
}

impl Default for TransferSettings {
    fn default() -> Self {
        Self {
            chunk_bytes: 256 << 10,
            window_bytes: 4 << 20,
            retry_after: Duration::from_secs(1),
            retry_max: Duration::from_secs(10),
        }
    }
}

/// Whether the follower must say how much it has before anything more is sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Asking {
    /// No: chunks flow.
    No,
    /// Yes, and it must still be asked.
    Due,
    /// Yes; it was asked.
    Asked,
    /// It refused: it is asked when it was left alone for long enough.
    Paused,
}

impl Transfer {
    /// A transfer that begins by asking: the follower may have a part of this snapshot from before. [`Transfer::tick`] says so
    /// at once.
    #[must_use]
    pub fn new(now: Moment, snapshot: Snapshot, settings: TransferSettings) -> Self {
        Self {
            snapshot,
            settings,
            sent: 0,
            received: 0,
            asking: Asking::Due,
            waiting_since: now,
            retry_after: settings.retry_after,
            progressed_at: now,
        }
    }

    /// Which snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How many bytes have arrived.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received
    }

    /// How many bytes are under way.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.sent - self.received
    }

    /// What must hold of what is under way, for tests and simulations to ask after every step: it fits into the window, or is a
    /// single chunk, and counts as lost within the longest pause.
    ///
    /// # Errors
    /// Says what does not hold, of what is under way.
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

    /// How long no byte has arrived that had not arrived before: what a pin on the log is given up by.
    #[must_use]
    pub fn idle_for(&self, now: Moment) -> Duration {
        now.since(self.progressed_at)
    }

    /// The next chunk to read and send, as its offset and length; `None` while the window is full, everything was sent, or the
    /// follower has yet to say where to go on.
    #[must_use]
    pub fn want(&self) -> Option<(u64, usize)> {
        let left = self.snapshot.bytes - self.sent;
        let length = left.min(self.settings.chunk_bytes as u64);
        let fits = self.in_flight_bytes() == 0 || self.in_flight_bytes() + length <= self.settings.window_bytes;
        let fits = fits || live(Mutant::WindowIgnored);
        (self.asking == Asking::No && left > 0 && fits).then_some((self.sent, usize::try_from(length).ok()?))
    }

    /// The chunk of `length` bytes at `offset` leaves. False if it is not what comes next any more: then it must not.
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
        // Less than before: it lost them. No more than before although it was asked: what was under way never arrived. More
        // than before: that was a slow answer, and nothing is lost.
        if bytes < self.received || (self.asking != Asking::No && !progressed) {
            self.sent = bytes;
        }
        if progressed {
            self.progressed_at = now;
        }
        self.received = bytes;
        self.sent = self.sent.max(bytes);
        self.asking = Asking::No;
        self.waiting_since = now;
        self.retry_after = self.settings.retry_after;
    }

    /// The follower could not keep it: it is left alone for a while, and then asked anew.
    pub fn refused(&mut self, now: Moment) {
        (self.sent, self.received) = (0, 0);
        self.asking = Asking::Paused;
        self.waiting_since = now;
    }

    /// The link was lost, or is new: what was under way is lost.
    pub fn link_changed(&mut self, now: Moment) {
        if self.asking != Asking::Paused {
            self.sent = self.received;
            self.asking = Asking::Due;
            self.waiting_since = now;
            self.retry_after = self.settings.retry_after;
        }
    }

    /// The follower answers again after a silence: pauses that have grown meanwhile begin anew.
    pub fn heard(&mut self, now: Moment) {
        if self.retry_after > self.settings.retry_after {
            self.link_changed(now);
        }
    }

    /// Time passed. True if the follower must be asked now how much it has, with an empty chunk: also when all was sent, to
    /// learn whether it is installed.
    pub fn tick(&mut self, now: Moment) -> bool {
        let waited = now.since(self.waiting_since);
        let awaits = self.in_flight_bytes() > 0 || self.sent == self.snapshot.bytes;
        match self.asking {
            Asking::Due => {}
            Asking::Paused if waited < self.settings.retry_max => return false,
            Asking::Paused => self.retry_after = self.settings.retry_after,
            Asking::Asked if waited < self.retry_after => return false,
            Asking::No if !awaits || waited < self.retry_after || live(Mutant::LostPieceNeverMissed) => return false,
            Asking::Asked | Asking::No => {
                self.retry_after = self.retry_after.saturating_mul(2).min(self.settings.retry_max);
            }
        }
        self.asking = Asking::Asked;
        self.waiting_since = now;
        true
    }
}
