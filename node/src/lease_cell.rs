//! The cell in which `Consensus` publishes its lease, and callers on any thread read it: a sequence
//! lock of atomics.
//!
//! The sequence number is odd while the pair is being written. A reader that finds it odd, or
//! changed, takes nothing, and asks `Consensus`: so neither side ever waits for the other.
//! `decisions/leases.rs` says what is published when, and why that suffices.

use super::{
    atomics::{AtomicU64, Ordering, fence},
    decisions::leases::Published,
};
use quorate_raft::{Index, Moment};
use std::time::Duration;

/// A published lease. One thread writes it.
#[derive(Debug)]
pub(crate) struct LeaseCell {
    sequence: AtomicU64,
    /// 0 while nothing is published.
    until_ns: AtomicU64,
    renew_after_ns: AtomicU64,
    commit: AtomicU64,
    /// The end of the lease for the renewal of which a reader has asked.
    renewal_asked_ns: AtomicU64,
}

/// A reader tries this often while the pair is written: a write takes a few nanoseconds.
const TRIES: usize = 2;

impl LeaseCell {
    pub(crate) fn new() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            until_ns: AtomicU64::new(0),
            renew_after_ns: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            renewal_asked_ns: AtomicU64::new(0),
        }
    }

    /// Publishes a pair, or withdraws the one there is. For the one thread that writes.
    pub(crate) fn publish(&self, published: Option<Published>) {
        let (until, renew_after, commit) = published
            .map_or((0, 0, 0), |Published { until, renew_after, commit }| (nanos(until), nanos(renew_after), commit.0));
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before + 1, Ordering::Relaxed);
        // A reader that finds a value from below also finds the odd number, or a later one.
        fence(Ordering::Release);
        self.until_ns.store(until, Ordering::Relaxed);
        self.renew_after_ns.store(renew_after, Ordering::Relaxed);
        self.commit.store(commit, Ordering::Relaxed);
        self.sequence.store(before + 2, Ordering::Release);
    }

    /// The index to read at by the lease, and whether this reader has to ask for its renewal: one
    /// reader of each lease has. `now` is read from the clock after the pair was taken.
    pub(crate) fn grant(&self, now: impl FnOnce() -> Moment) -> Option<(Index, bool)> {
        let published = (0..TRIES).find_map(|_| self.take())?;
        let granted = published.grant(now())?;
        Some((granted.index, granted.is_to_renew && self.takes_renewal(nanos(published.until))))
    }

    fn takes_renewal(&self, until: u64) -> bool {
        // Mostly only read: many readers find that one has asked.
        self.renewal_asked_ns.load(Ordering::Relaxed) != until
            && self.renewal_asked_ns.swap(until, Ordering::Relaxed) != until
    }

    fn take(&self) -> Option<Published> {
        let before = self.sequence.load(Ordering::Acquire);
        let until = self.until_ns.load(Ordering::Relaxed);
        let renew_after = self.renew_after_ns.load(Ordering::Relaxed);
        let commit = self.commit.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let is_one = before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before;
        (is_one && until > 0).then_some(Published {
            until: moment(until),
            renew_after: moment(renew_after),
            commit: Index(commit),
        })
    }
}

/// A lease that ends after 584 years ends then.
fn nanos(moment: Moment) -> u64 {
    u64::try_from(moment.0.as_nanos()).unwrap_or(u64::MAX)
}

fn moment(nanos: u64) -> Moment {
    Moment(Duration::from_nanos(nanos))
}
