//! Admission control: the bounds on the callers, and on their bytes, that may be inside a node at
//! once. An overloaded node answers instead of letting a queue grow.
//!
//! No caller waits here. Admission also measures the rate at which places become free, and derives
//! from it when a refused caller may come again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The requests that wait for an answer, with their bytes: the proposals and reads of the callers
/// of this node, or the commands that other nodes forwarded.
#[derive(Debug)]
pub(crate) struct Admission {
    capacity: Capacity,
    /// Whether a request was refused since the last look.
    has_refused: AtomicBool,
    rate: Mutex<DrainRate>,
    published: PublishedRate,
}

impl Admission {
    pub(crate) fn new(places: usize, bytes: usize) -> Arc<Self> {
        let now = Instant::now();
        let published = PublishedRate { since: now, moved_ns: AtomicU64::new(0), each_ns: AtomicU64::new(u64::MAX) };
        Arc::new(Self {
            capacity: Capacity::new(places, bytes),
            has_refused: AtomicBool::new(false),
            rate: Mutex::new(DrainRate::new(now)),
            published,
        })
    }

    /// The bounds on the places and bytes that one client may take.
    pub(crate) fn client_quota(places: usize, bytes: usize) -> ClientQuota {
        ClientQuota(Arc::new(Capacity::new(places, bytes)))
    }

    /// Admits one request of this many bytes until its permit is dropped; `None` if the node or the
    /// quota has no room.
    pub(crate) fn enter(self: &Arc<Self>, bytes: usize, quota: Option<&ClientQuota>) -> Option<Permit> {
        let quota = match quota {
            Some(ClientQuota(capacity)) => Some(Arc::clone(capacity.take(bytes).then_some(capacity)?)),
            None => None,
        };
        if self.capacity.take(bytes) {
            if self.inside() == 1 {
                self.move_on(DrainRate::begins);
            }
            return Some(Permit { admission: Arc::clone(self), quota, bytes });
        }
        if let Some(capacity) = quota {
            capacity.give_back(bytes);
        }
        // Mostly only read: under overload most requests end here.
        if !self.has_refused.load(Ordering::Relaxed) {
            self.has_refused.store(true, Ordering::Relaxed);
        }
        None
    }

    /// Whether a request was refused for lack of room since the last look. A client's own quota does
    /// not count.
    pub(crate) fn take_refused(&self) -> bool {
        self.has_refused.load(Ordering::Relaxed) && self.has_refused.swap(false, Ordering::Relaxed)
    }

    /// The number of requests that are inside.
    pub(crate) fn inside(&self) -> usize {
        self.capacity.inside()
    }

    /// The time until a refused caller may come again: an estimate of when the requests that are
    /// inside now will have left.
    pub(crate) fn retry_after(&self) -> Duration {
        self.published.drain_rate().until_gone(self.inside(), Instant::now())
    }

    /// One request has left. While many leave in a short time, one departure of [`SAMPLED`] looks
    /// at the clock.
    fn one_left(&self, Left { departures, inside }: Left) {
        if inside == 0 || departures.is_multiple_of(SAMPLED) || !self.published.is_fast() {
            self.move_on(|rate, now| rate.left(departures, now));
        }
    }

    fn move_on(&self, rule: impl FnOnce(&mut DrainRate, Instant)) {
        let now = Instant::now();
        // The data are plain numbers, so a poisoned lock is still usable.
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rule(&mut rate, now);
        self.published.publish(&rate);
    }
}

/// A copy of the rate for refused callers, which may be very many: they read it without taking the
/// lock that departing requests need.
#[derive(Debug)]
struct PublishedRate {
    since: Instant,
    moved_ns: AtomicU64,
    each_ns: AtomicU64,
}

impl PublishedRate {
    fn publish(&self, rate: &DrainRate) {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.moved_ns.store(ns(rate.moved.saturating_duration_since(self.since)), Ordering::Relaxed);
        self.each_ns.store(rate.each.map_or(u64::MAX, ns), Ordering::Relaxed);
    }

    fn is_fast(&self) -> bool {
        u128::from(self.each_ns.load(Ordering::Relaxed)) < FAST.as_nanos()
    }

    fn drain_rate(&self) -> DrainRate {
        let ns = |time: &AtomicU64| Duration::from_nanos(time.load(Ordering::Relaxed));
        let each = (self.each_ns.load(Ordering::Relaxed) != u64::MAX).then(|| ns(&self.each_ns));
        DrainRate { each, ..DrainRate::new(self.since + ns(&self.moved_ns)) }
    }
}

/// The part of the places and bytes that one client may take. Clones share the same capacity.
#[derive(Clone, Debug)]
pub(crate) struct ClientQuota(Arc<Capacity>);

/// The place of a request inside. It travels with the request and is given back once that is
/// answered, not when the caller stops waiting: a dropped caller cancels nothing.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    quota: Option<Arc<Capacity>>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(quota) = &self.quota {
            quota.give_back(self.bytes);
        }
        let left = self.admission.capacity.give_back(self.bytes);
        self.admission.one_left(left);
    }
}

/// A bounded number of places and bytes. When two requests ask at once, one of them may be refused
/// although there was room for it.
#[derive(Debug)]
struct Capacity {
    /// The lower half counts the places that are taken, the upper one the departures, which wrap.
    moves: AtomicU64,
    bytes: AtomicUsize,
    max: (usize, usize),
}

/// Both counts of `Capacity::moves` after a departure.
struct Left {
    departures: u32,
    inside: u32,
}

impl Capacity {
    const ENTRY: u64 = 1;
    const DEPARTURE: u64 = (1 << 32) - Self::ENTRY;

    fn new(places: usize, bytes: usize) -> Self {
        // Half of the range, so that refused requests, which are counted for a moment, fit too.
        let places = places.min(i32::MAX as usize);
        Self { moves: AtomicU64::new(0), bytes: AtomicUsize::new(0), max: (places, bytes) }
    }

    fn inside(&self) -> usize {
        places_of(self.moves.load(Ordering::Relaxed)) as usize
    }

    /// Takes a place and the bytes, if there is room. A request that exceeds the bound of bytes is
    /// admitted alone, when no other bytes are inside.
    fn take(&self, bytes: usize) -> bool {
        let (places_max, bytes_max) = self.max;
        // A full capacity is only read, not written: under overload most requests end here.
        if self.inside() >= places_max {
            return false;
        }
        if (places_of(self.moves.fetch_add(Self::ENTRY, Ordering::Relaxed)) as usize) < places_max {
            let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
            if bytes == 0 || before == 0 || before.saturating_add(bytes) <= bytes_max {
                return true;
            }
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.moves.fetch_sub(Self::ENTRY, Ordering::Relaxed);
        false
    }

    fn give_back(&self, bytes: usize) -> Left {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let moves = self.moves.fetch_add(Self::DEPARTURE, Ordering::Relaxed).wrapping_add(Self::DEPARTURE);
        Left { departures: (moves >> 32) as u32, inside: places_of(moves) }
    }
}

fn places_of(moves: u64) -> u32 {
    moves as u32
}

/// The rate at which places become free while at least one is taken.
#[derive(Debug)]
struct DrainRate {
    /// The time of the last departure, or of the first entry into an empty node.
    moved: Instant,
    /// The time during which requests were inside, and the number that left in it: since the
    /// last measurement, plus half of the earlier counts, so that one pause or burst does
    /// not decide alone.
    busy: Duration,
    left: u32,
    /// The count of departures at the last one that was measured.
    departures: u32,
    /// The time between departures, as last measured.
    each: Option<Duration>,
}

/// The least and the greatest wait that a refused caller is told.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));
/// The busy time that a measurement takes. It is also the wait told before the first measurement.
const MEASURED_FOR: Duration = Duration::from_millis(100);
/// If less time than this passes between departures, one of [`SAMPLED`] is measured.
const FAST: Duration = Duration::from_micros(50);
const SAMPLED: u32 = 16;

impl DrainRate {
    fn new(now: Instant) -> Self {
        Self { moved: now, busy: Duration::ZERO, left: 0, departures: 0, each: None }
    }

    /// The first request entered an empty node: the time before does not count as waiting.
    fn begins(&mut self, now: Instant) {
        self.moved = now;
    }

    /// `departures` have left by now, in all.
    fn left(&mut self, departures: u32, now: Instant) {
        self.busy += now.saturating_duration_since(self.moved);
        self.moved = now;
        // Of two threads the later departure may be measured first.
        let since = departures.wrapping_sub(self.departures);
        if since <= u32::MAX / 2 {
            self.left += since;
            self.departures = departures;
        }
        if self.busy >= MEASURED_FOR && self.left > 0 {
            self.each = Some(self.busy / self.left);
            (self.busy, self.left) = (self.busy / 2, self.left / 2);
        }
    }

    /// The time until `inside` requests have left: at the measured rate, plus the time since the
    /// last departure. It never decreases as `inside` grows.
    fn until_gone(&self, inside: usize, now: Instant) -> Duration {
        let stuck = now.saturating_duration_since(self.moved);
        let inside = u32::try_from(inside).unwrap_or(u32::MAX);
        let leaving = self.each.map_or(MEASURED_FOR, |each| each.saturating_mul(inside));
        leaving.saturating_add(stuck).clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }
}

#[cfg(test)]
mod tests;
