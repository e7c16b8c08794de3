//! How many callers, with how many bytes, may be inside a node at once. Overload is an answer, never a growing queue.
//!
//! Nobody waits here. It also knows how long what is inside takes to leave, and so when it is worth coming again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Counts what waits for an answer, and what it weighs: the proposals and reads of a node's own callers, or the commands that
/// other nodes forwarded.
#[derive(Debug)]
pub(crate) struct Gate {
    room: Room,
    pace: Mutex<Pace>,
    seen: Seen,
}

impl Gate {
    pub(crate) fn new(places: usize, bytes: usize) -> Arc<Self> {
        let now = Instant::now();
        let seen = Seen { since: now, moved_ns: AtomicU64::new(0), each_ns: AtomicU64::new(u64::MAX) };
        Arc::new(Self { room: Room::new(places, bytes), pace: Mutex::new(Pace::new(now)), seen })
    }

    /// What one client may take of it.
    pub(crate) fn share(places: usize, bytes: usize) -> Share {
        Share(Arc::new(Room::new(places, bytes)))
    }

    /// Lets one caller in with so many bytes, until its credit is dropped; `None` if too much is inside, or inside of its share.
    pub(crate) fn enter(self: &Arc<Self>, bytes: usize, share: Option<&Share>) -> Option<Credit> {
        let share = match share {
            Some(Share(room)) => Some(Arc::clone(room.take(bytes).then_some(room)?)),
            None => None,
        };
        if self.room.take(bytes) {
            if self.inside() == 1 {
                self.move_on(Pace::begins);
            }
            return Some(Credit { gate: Arc::clone(self), share, bytes });
        }
        if let Some(room) = share {
            room.give_back(bytes);
        }
        None
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> usize {
        self.room.places.load(Ordering::Relaxed)
    }

    /// When whoever was not let in may come again: about when what is inside now will have left.
    pub(crate) fn retry_after(&self) -> Duration {
        self.seen.pace().until_gone(self.inside(), Instant::now())
    }

    fn move_on(&self, rule: fn(&mut Pace, Instant)) {
        let now = Instant::now();
        // Whatever a panic left of it is numbers.
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        rule(&mut pace, now);
        self.seen.show(&pace);
    }
}

/// What of the pace is looked at by those who are refused: they may be very many, and must not get in the way of those who
/// leave.
#[derive(Debug)]
struct Seen {
    since: Instant,
    moved_ns: AtomicU64,
    each_ns: AtomicU64,
}

impl Seen {
    fn show(&self, pace: &Pace) {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.moved_ns.store(ns(pace.moved.saturating_duration_since(self.since)), Ordering::Relaxed);
        self.each_ns.store(pace.each.map_or(u64::MAX, ns), Ordering::Relaxed);
    }

    fn pace(&self) -> Pace {
        let ns = |time: &AtomicU64| Duration::from_nanos(time.load(Ordering::Relaxed));
        let each = (self.each_ns.load(Ordering::Relaxed) != u64::MAX).then(|| ns(&self.each_ns));
        Pace { each, ..Pace::new(self.since + ns(&self.moved_ns)) }
    }
}

/// What one client may take of a gate.
#[derive(Clone, Debug)]
pub(crate) struct Share(Arc<Room>);

/// A caller's place inside. It travels with the request and is given back when that was answered, not when the caller
/// loses patience: a dropped caller cancels nothing.
#[derive(Debug)]
pub(crate) struct Credit {
    gate: Arc<Gate>,
    share: Option<Arc<Room>>,
    bytes: usize,
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.give_back(self.bytes);
        }
        self.gate.room.give_back(self.bytes);
        self.gate.move_on(Pace::left);
    }
}

/// Places and bytes, of which there are so many. While two ask at once, one may be refused who would have found room.
#[derive(Debug)]
struct Room {
    places: AtomicUsize,
    bytes: AtomicUsize,
    max: (usize, usize),
}

impl Room {
    fn new(places: usize, bytes: usize) -> Self {
        Self { places: AtomicUsize::new(0), bytes: AtomicUsize::new(0), max: (places, bytes) }
    }

    /// Whether there was a place, and room for the bytes: a single one that is larger may go alone.
    fn take(&self, bytes: usize) -> bool {
        let (places_max, bytes_max) = self.max;
        // Whoever finds it full only looks: under overload these are most.
        if self.places.load(Ordering::Relaxed) >= places_max {
            return false;
        }
        if self.places.fetch_add(1, Ordering::Relaxed) < places_max {
            let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
            if bytes == 0 || before == 0 || before.saturating_add(bytes) <= bytes_max {
                return true;
            }
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.places.fetch_sub(1, Ordering::Relaxed);
        false
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.places.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How fast places become free, while there is somebody inside.
#[derive(Debug)]
struct Pace {
    /// When one left last, or the first one entered.
    moved: Instant,
    /// For how long there was somebody inside, and how many left meanwhile: since it was measured last, and half of what was
    /// counted before, so that neither a pause nor a burst is all that is known.
    busy: Duration,
    left: u32,
    /// How long it takes until the next one leaves, by the last measurement.
    each: Option<Duration>,
}

/// Whoever is told to come again does so no sooner, and no later.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));
/// For how long places are counted. It is also what is said before anything was measured.
const MEASURED_FOR: Duration = Duration::from_millis(100);

impl Pace {
    fn new(now: Instant) -> Self {
        Self { moved: now, busy: Duration::ZERO, left: 0, each: None }
    }

    /// The first one entered: until now there was nothing to wait for.
    fn begins(&mut self, now: Instant) {
        self.moved = now;
    }

    fn left(&mut self, now: Instant) {
        self.busy += now.saturating_duration_since(self.moved);
        self.moved = now;
        self.left += 1;
        if self.busy >= MEASURED_FOR {
            self.each = Some(self.busy / self.left);
            (self.busy, self.left) = (self.busy / 2, self.left / 2);
        }
    }

    /// How long so many take to leave: at the pace of late, and for as much longer as nobody has left. More of them never
    /// take less.
    fn until_gone(&self, inside: usize, now: Instant) -> Duration {
        let stuck = now.saturating_duration_since(self.moved);
        let inside = u32::try_from(inside).unwrap_or(u32::MAX);
        let leaving = self.each.map_or(MEASURED_FOR, |each| each.saturating_mul(inside));
        leaving.saturating_add(stuck).clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }
}

#[cfg(test)]
mod tests;
