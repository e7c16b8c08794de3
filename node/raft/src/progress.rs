//! The leader's view of one follower's log, and the bounds of the appends under way to it.
//!
//! ```text
//!            appends matched
//!   Probe ───────────────────▶ Replicate      (pipelined, within the credit)
//!     ▲ │◀────────────────────────┘
//!     │ │   rejected, timed out, link lost
//!     │ └──────────▶ Snapshot                 (the next entry was compacted away)
//!     └─────────────────┘ installed
//! ```
//!
//! In `Probe` one append is under way at a time, and its answer moves `next` to where the logs
//! agree. Once an append has matched, appends are pipelined: `next` moves when they are *sent*, and
//! credit bounds the entries, bytes and messages that are not acknowledged yet. When something may
//! have been lost, probing starts again in a new epoch. Answers of an earlier epoch are ignored:
//! neither an acknowledgement from before the follower's log went back nor a stale rejection has an
//! effect.

use crate::{
    batch::Batch,
    ids::{EntryId, Index, Moment},
};
use alloc::{collections::VecDeque, format, string::String};
use core::time::Duration;

/// The log of one peer during one leadership, as its leader knows it.
///
/// **Invariant:** `matched < next`; entries in flight lie before `next`; in `Probe` at most one
/// append is in flight.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Progress {
    state: ProgressState,
    epoch: u64,
    next: Index,
    matched: Index,
    log_last: Index,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: usize,
    waiting_since: Moment,
    /// When the follower last answered a heartbeat.
    heard_at: Moment,
    retry_after: Duration,
    credit: Credit,
}

/// The way in which a follower is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProgressState {
    /// Looking for the entry up to which the logs agree, one append at a time.
    Probe,
    /// Pipelining appends.
    Replicate,
    /// The next entry was compacted away: the follower needs a snapshot first.
    Snapshot,
}

/// Bounds of the unacknowledged appends to one peer, and the time after which they count as lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Credit {
    /// Most appends.
    pub messages: usize,
    /// Most entries.
    pub entries: u64,
    /// Most bytes; a single larger batch may still go alone.
    pub bytes: usize,
    /// Most bytes in one append.
    pub append_bytes: usize,
    /// Most bytes in a probe.
    pub probe_bytes: usize,
    /// After this long without an answer, appends under way count as lost. Doubles each time, up to
    /// `retry_max`.
    pub retry_after: Duration,
    /// The longest that `retry_after` grows to.
    pub retry_max: Duration,
}

impl Default for Credit {
    /// Enough for 10 Gbit/s over 10 ms; 4 heartbeats of 50 ms before the first retry.
    fn default() -> Self {
        Self {
            messages: 512,
            entries: 65_536,
            bytes: 16 << 20,
            append_bytes: 1 << 20,
            probe_bytes: 64 << 10,
            retry_after: Duration::from_millis(200),
            retry_max: Duration::from_secs(3),
        }
    }
}

/// An append to send, without the commit index, which its sender adds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NextAppend {
    /// The epoch to be echoed.
    pub epoch: u64,
    /// The entry before the batch.
    pub previous: EntryId,
    /// The entries; `None` for a bare probe.
    pub batch: Option<Batch>,
}

/// Entries to be looked up, for [`Progress::send`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Want {
    /// The first entry wanted. One after the log's last entry asks for a bare probe of that last
    /// entry.
    pub from: Index,
    /// About the most bytes.
    pub bytes_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct InFlight {
    last: Index,
    bytes: usize,
}

impl Progress {
    /// An epoch of no replication: in the answer to a heartbeat that names more than the log has,
    /// and in a proof that logs diverged.
    pub const NO_EPOCH: u64 = 0;

    /// A follower of which nothing is known yet. The first append probes for `log_last`, the
    /// leader's last entry.
    #[must_use]
    pub fn new(now: Moment, log_last: Index, credit: Credit) -> Self {
        Self {
            state: ProgressState::Probe,
            epoch: Self::NO_EPOCH + 1,
            next: log_last.next(),
            matched: Index(0),
            log_last,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            waiting_since: now,
            heard_at: now,
            retry_after: credit.retry_after,
            credit,
        }
    }

    /// The same, in this epoch. It must be higher than any epoch of the same follower in this term.
    #[must_use]
    pub fn in_epoch(self, epoch: u64) -> Self {
        Self { epoch, ..self }
    }

    /// The way in which the follower is brought up to date.
    #[must_use]
    pub fn state(&self) -> ProgressState {
        self.state
    }

    /// The last entry known to be durable on the follower; it counts towards the quorum.
    #[must_use]
    pub fn matched(&self) -> Index {
        self.matched
    }

    /// The next entry to send.
    #[must_use]
    pub fn next(&self) -> Index {
        self.next
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number of entries of the leader's log that the follower is not known to have.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.log_last.since(self.matched)
    }

    /// When the follower last answered a heartbeat; until the first, when the replication began.
    #[must_use]
    pub fn heard_at(&self) -> Moment {
        self.heard_at
    }

    /// Bytes sent and not acknowledged.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// Checks the invariants of appends in flight, for tests and simulations to ask after every
    /// step: their bytes add up, they were within the credit before the newest was added, and they
    /// count as lost within the longest pause.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn accounts(&self) -> Result<(), String> {
        let bytes: usize = self.in_flight.iter().map(|append| append.bytes).sum();
        if bytes != self.in_flight_bytes {
            return Err(format!("has {bytes} bytes, {} are counted", self.in_flight_bytes));
        }
        if self.matched >= self.next {
            return Err(format!("begins at {}, behind which {} is known to match", self.next, self.matched));
        }
        let pause_max = self.credit.retry_max.max(self.credit.retry_after);
        if self.retry_after > pause_max {
            return Err(format!("counts as lost only after {:?}, more than {pause_max:?}", self.retry_after));
        }
        let Some(newest) = self.in_flight.back() else { return Ok(()) };
        let (count, before) = (self.in_flight.len(), bytes - newest.bytes);
        let messages_max = match self.state {
            ProgressState::Probe => 1,
            ProgressState::Replicate => self.credit.messages.max(1),
            ProgressState::Snapshot => 0,
        };
        let entries = self.in_flight.iter().nth_back(1).map_or(0, |last| last.last.since(self.matched));
        let within = count == 1 || (before < self.credit.bytes && entries < self.credit.entries);
        if count > messages_max || !within {
            return Err(format!(
                "exceeds its credit: {count} appends in {:?}, before the newest {before} bytes and {entries} entries",
                self.state
            ));
        }
        Ok(())
    }

    /// The leader's log ends here now.
    pub fn log_grew(&mut self, last: Index) {
        self.log_last = self.log_last.max(last);
    }

    /// The entries to look up and send next; `None` if nothing is missing, or the credit is used
    /// up.
    #[must_use]
    pub fn want(&self) -> Option<Want> {
        match self.state {
            ProgressState::Snapshot => None,
            ProgressState::Probe => {
                self.in_flight.is_empty().then_some(Want { from: self.next, bytes_max: self.credit.probe_bytes })
            }
            ProgressState::Replicate => (self.next <= self.log_last && self.has_credit())
                .then_some(Want { from: self.next, bytes_max: self.credit.append_bytes }),
        }
    }

    /// Counts entries that follow `previous` as sent now. `None` if they are not the next ones, or
    /// the credit is used up.
    pub fn send(&mut self, now: Moment, previous: EntryId, batch: Option<Batch>) -> Option<NextAppend> {
        let wanted = self.want()?;
        let fits = previous.index.next() == wanted.from
            && batch.as_ref().map_or(self.state == ProgressState::Probe, |batch| batch.first() == wanted.from);
        if !fits {
            return None;
        }
        let last = batch.as_ref().map_or(previous.index, Batch::last);
        let bytes = batch.as_ref().map_or(0, |batch| batch.bytes().len());
        if self.in_flight.is_empty() {
            self.waiting_since = now;
        }
        self.in_flight.push_back(InFlight { last, bytes });
        self.in_flight_bytes += bytes;
        if self.state == ProgressState::Replicate {
            self.next = last.next();
        }
        Some(NextAppend { epoch: self.epoch, previous, batch })
    }

    /// The follower's log equals the leader's up to `matched`, durably. Returns the new match index
    /// if it moved.
    pub fn acknowledged(&mut self, now: Moment, epoch: u64, matched: Index) -> Option<Index> {
        // No follower has more than was sent: an index after that is a lie or a bug, and must not
        // move `next`.
        if epoch != self.epoch || self.state == ProgressState::Snapshot || matched > self.log_last {
            return None;
        }
        while let Some(first) = self.in_flight.front().filter(|first| first.last <= matched) {
            self.in_flight_bytes -= first.bytes;
            self.in_flight.pop_front();
        }
        self.waiting_since = now;
        self.retry_after = self.credit.retry_after;
        if self.state == ProgressState::Probe {
            self.in_flight.clear();
            self.in_flight_bytes = 0;
            self.state = ProgressState::Replicate;
            self.next = matched.next().max(self.matched.next());
        }
        self.next = self.next.max(matched.next());
        (matched > self.matched).then(|| {
            self.matched = matched;
            matched
        })
    }

    /// The follower lacks `previous`, its log ends at `last`, and by the leader's log both may
    /// agree just before `next`: the logs do not agree after any of the three. Returns the new
    /// match index if the follower's log now ends before it.
    ///
    /// A follower that lacks entries that a snapshot covers also answers its first chunk so, and
    /// takes chunks only of a later epoch than that of its answer.
    pub fn rejected(&mut self, now: Moment, epoch: u64, previous: Index, next: Index, last: Index) -> Option<Index> {
        if self.state == ProgressState::Snapshot && epoch == self.epoch {
            self.epoch += 1;
        }
        let expected = self.state == ProgressState::Replicate || previous.next() == self.next;
        if epoch != self.epoch || self.state == ProgressState::Snapshot || !expected {
            return None;
        }
        let went_back = last < self.matched;
        if went_back {
            self.matched = last;
        }
        self.retry_after = self.credit.retry_after;
        self.probe_from(now, next.min(previous).min(last.next()).max(self.matched.next()));
        went_back.then_some(self.matched)
    }

    /// The follower answered a heartbeat. After a silence the pauses between retries are short
    /// again: they had grown because nothing got through, and not because the follower is slow.
    /// Returns whether there was a silence.
    pub fn heard(&mut self, now: Moment) -> bool {
        let was_silent = now.since(self.heard_at) >= self.credit.retry_after;
        self.heard_at = now;
        if was_silent && self.state != ProgressState::Snapshot {
            self.retry_after = self.credit.retry_after;
            self.tick(now);
        }
        was_silent
    }

    /// The link was lost, or is new: appends under way may be lost.
    pub fn link_changed(&mut self, now: Moment) {
        if self.state != ProgressState::Snapshot {
            self.retry_after = self.credit.retry_after;
            self.probe_from(now, self.matched.next().max(self.next.min(self.probe_floor())));
        }
    }

    /// Time passed. If appends have been under way for too long they count as lost, and it probes
    /// again.
    pub fn tick(&mut self, now: Moment) {
        if !self.in_flight.is_empty() && now.since(self.waiting_since) >= self.retry_after {
            let longer = self.retry_after.saturating_mul(2).min(self.credit.retry_max);
            self.probe_from(now, self.matched.next().max(self.next.min(self.probe_floor())));
            self.retry_after = longer;
        }
    }

    /// The next entry was compacted away.
    pub fn compacted(&mut self) {
        self.state = ProgressState::Snapshot;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    /// The follower said that it needs a snapshot, though the leader has the log. False if it
    /// answered an earlier epoch, or a snapshot is on its way already.
    pub fn needs_snapshot(&mut self, epoch: u64) -> bool {
        let news = epoch == self.epoch && self.state != ProgressState::Snapshot;
        if news {
            self.compacted();
        }
        news
    }

    /// The follower has installed a snapshot that ends at `index`. A snapshot that was merely sent
    /// does not count.
    pub fn installed(&mut self, now: Moment, index: Index) {
        if self.state == ProgressState::Snapshot {
            self.retry_after = self.credit.retry_after;
            self.probe_from(now, index.min(self.log_last).next().max(self.matched.next()));
        }
    }

    /// The place to probe after a loss. If nothing has matched yet, that of the last probe is still
    /// the best guess.
    fn probe_floor(&self) -> Index {
        if self.matched == Index(0) && self.state == ProgressState::Probe { self.next } else { self.matched.next() }
    }

    fn probe_from(&mut self, now: Moment, next: Index) {
        self.state = ProgressState::Probe;
        self.epoch += 1;
        self.next = next.max(Index(1));
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.waiting_since = now;
    }

    fn has_credit(&self) -> bool {
        let in_flight_entries = self.next.since(self.matched.next());
        self.in_flight.is_empty()
            || (self.in_flight.len() < self.credit.messages
                && in_flight_entries < self.credit.entries
                && self.in_flight_bytes < self.credit.bytes)
    }
}
