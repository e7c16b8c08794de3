//! The pending timers of a service: a part of the replicated state.
//!
//! A timer's key is its encoded signal: one that is set again with an equal signal replaces the
//! earlier one. Timers fire in the order of (due, number of the setting), each at its own time, in
//! the entry that carries log time to or past it; to fire is to be removed. So every node fires a
//! timer at the same entry, and a second tick of the same time fires nothing.
//!
//! Both maps are persistent: a copy of the table is O(1), and shares all that neither side changes.
//! Each change returns the [`Undo`] that takes it back, in case the output of its entry is dropped.
//!
//! **Bound:** an entry fires at most [`FIRES_MAX`] timers, and no more once their events have
//! [`PUBLISHED_BYTES_MAX`](super::history::PUBLISHED_BYTES_MAX). If more are due, log time stops at
//! the next one's due, and a further tick goes on.

use super::layout::{Reader, write_bytes};
use equivalent::{Comparable, Equivalent};
use imbl::OrdMap;
use quorate_raft::session::LogTime;
use rapidhash::v3::rapidhash_v3;
use std::{
    cmp::Ordering,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

/// The most timers that one entry fires.
pub const FIRES_MAX: u32 = 1_024;

/// The pending timers. A clone is O(1).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Timers {
    by_due: OrdMap<Place, Arc<[u8]>>,
    by_key: OrdMap<Key, Place>,
    /// The number of the next setting.
    next: u64,
}

impl std::fmt::Debug for Timers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timers").field("count", &self.by_key.len()).field("next", &self.next).finish_non_exhaustive()
    }
}

/// The place of a timer in the order of firing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    due: LogTime,
    number: u64,
}

/// A key under its hash, which alone is compared unless two are equal: the bytes are elsewhere in
/// memory, and a lookup among a million would wait for them at every step.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    hash: u64,
    bytes: Arc<[u8]>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("hash", &self.hash).field("bytes", &format_args!("{} B", self.bytes.len())).finish()
    }
}

/// A [`Key`] that is looked up, with bytes of any owner.
struct Sought<'a> {
    hash: u64,
    bytes: &'a [u8],
}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.compare(key).is_eq()
    }
}

impl Comparable<Key> for Sought<'_> {
    fn compare(&self, key: &Key) -> Ordering {
        self.hash.cmp(&key.hash).then_with(|| self.bytes.cmp(&key.bytes))
    }
}

fn sought(bytes: &[u8]) -> Sought<'_> {
    Sought { hash: rapidhash_v3(bytes), bytes }
}

/// The state of one key, and of the count of settings, before a change.
pub struct Undo {
    key: Arc<[u8]>,
    was: Option<Place>,
    next: u64,
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Undo")
            .field("key", &format_args!("{} B", self.key.len()))
            .field("was", &self.was)
            .field("next", &self.next)
            .finish()
    }
}

/// The timers that one tick fires: up to a time, and up to a count.
#[derive(Debug)]
pub struct Firing {
    until: LogTime,
    left: u32,
}

impl Firing {
    /// The firing of a tick of the time `until`.
    #[must_use]
    pub fn new(until: LogTime) -> Self {
        Self { until, left: FIRES_MAX }
    }
}

/// The due of a timer that is set at `now`. A part of a millisecond counts as a whole one, and no
/// delay is below one, so an entry fires no timer that it sets at its own time.
#[must_use]
pub fn due(now: LogTime, delay: Duration) -> LogTime {
    let delay_ms = u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
    LogTime(now.0.saturating_add(delay_ms))
}

impl Timers {
    /// Sets the timer of `key` to `due`, in place of the one that the key had.
    pub fn set(&mut self, due: LogTime, key: &[u8]) -> Undo {
        let place = Place { due, number: self.next };
        let undo = self.remove(key).unwrap_or_else(|| Undo { key: key.into(), was: None, next: self.next });
        self.next += 1;
        self.insert(Arc::clone(&undo.key), place);
        undo
    }

    /// Removes the timer of `key`; `None` if it has none.
    pub fn cancel(&mut self, key: &[u8]) -> Option<Undo> {
        self.remove(key)
    }

    /// Removes the first timer that is due by the time of the tick, and returns its due, its key and
    /// the undo; `None` if there is none, or the tick has fired as many as it may.
    pub fn fire(&mut self, firing: &mut Firing) -> Option<(LogTime, Undo)> {
        let (place, key) = self.by_due.get_min().filter(|(place, _)| place.due <= firing.until)?;
        firing.left = firing.left.checked_sub(1)?;
        let (place, key) = (*place, Arc::clone(key));
        self.by_due.remove(&place);
        self.by_key.remove(&sought(&key));
        Some((place.due, Undo { key, was: Some(place), next: self.next }))
    }

    /// Log time after a tick of time `until` has fired what it may: `until`, or the due of the first
    /// timer that the bound left.
    #[must_use]
    pub fn time_after(&self, until: LogTime) -> LogTime {
        self.next_due().map_or(until, |due| due.min(until))
    }

    /// The due of the timer that fires next.
    #[must_use]
    pub fn next_due(&self) -> Option<LogTime> {
        self.by_due.get_min().map(|(place, _)| place.due)
    }

    /// The number of pending timers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_due.len()
    }

    /// Whether no timer is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_due.is_empty()
    }

    /// Takes a change back. The changes of an entry are taken back last first.
    pub fn undo(&mut self, Undo { key, was, next }: Undo) {
        self.remove(&key);
        if let Some(place) = was {
            self.insert(key, place);
        }
        self.next = next;
    }

    fn insert(&mut self, key: Arc<[u8]>, place: Place) {
        self.by_due.insert(place, Arc::clone(&key));
        self.by_key.insert(Key { hash: sought(&key).hash, bytes: key }, place);
    }

    fn remove(&mut self, key: &[u8]) -> Option<Undo> {
        let place = self.by_key.remove(&sought(key))?;
        let key = self.by_due.remove(&place)?;
        Some(Undo { key, was: Some(place), next: self.next })
    }

    /// Writes the table, equal tables as equal bytes: the number of the next setting (8), the count
    /// of timers (8), and of each, in the order of firing, its due (8), its number (8) and its key
    /// with its length (4).
    ///
    /// # Errors
    /// If `to` fails.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.next.to_le_bytes())?;
        to.write_all(&(self.len() as u64).to_le_bytes())?;
        for (place, key) in &self.by_due {
            to.write_all(&place.due.0.to_le_bytes())?;
            to.write_all(&place.number.to_le_bytes())?;
            write_bytes(to, key)?;
        }
        Ok(())
    }

    /// Reads a table that [`Timers::write`] wrote.
    ///
    /// # Errors
    /// If the source fails, or there is no such table.
    pub fn read(from: &mut Reader<'_>) -> io::Result<Self> {
        let mut timers = Self { next: from.u64()?, ..Self::default() };
        for _ in 0..from.u64()? {
            let place = Place { due: LogTime(from.u64()?), number: from.u64()? };
            if place.number >= timers.next || timers.by_due.get_max().is_some_and(|(last, _)| *last >= place) {
                return Err(from.invalid("the timers are not in order"));
            }
            let key: Arc<[u8]> = from.bytes()?.into();
            if timers.by_key.contains_key(&sought(&key)) {
                return Err(from.invalid("two timers have one key"));
            }
            timers.insert(key, place);
        }
        Ok(timers)
    }
}

impl Undo {
    /// The encoded signal of the timer.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether the key had a timer before the change.
    #[must_use]
    pub fn is_replacing(&self) -> bool {
        self.was.is_some()
    }
}

#[cfg(test)]
mod tests;
