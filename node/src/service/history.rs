//! The latest events of a service, by entry: a part of the replicated state.
//!
//! A watch is a cursor into the history, so a watcher costs a position, and a live one and one that
//! catches up take the same path. After the floor the history is complete; a restart, a snapshot
//! and another node all have the same one, so a watch resumes anywhere.
//!
//! Events are appended with the whole of their entry, once it was applied, and evicted with the
//! whole of their entry: no reader sees half of one. The history is a persistent queue, because
//! indexes rise: a copy is O(1), and so are an append and an eviction; a position is found by binary
//! search.
//!
//! **Bound:** the events and their bytes, as the last tick says. The newest entry stays even if it
//! exceeds them alone. One command or signal publishes at most [`PUBLISHED_BYTES_MAX`], and an entry
//! that fires timers less than twice as much.

use super::{
    encoding::whole,
    layout::{Reader, write_bytes},
};
use imbl::Vector;
use quorate_raft::{Index, session::LogTime};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, Error, ErrorKind, Write},
    iter, str,
    sync::Arc,
};

/// The most entries that one read looks at.
pub const READ_MAX: usize = 1_024;
/// The most that one command or signal publishes: bytes of topics and encoded events, and
/// [`EVENT_BYTES`] for each event. It fits the events of the largest command.
pub const PUBLISHED_BYTES_MAX: u64 = 32 << 20;
/// The bytes that an event is taken to cost beside its topic and encoded form.
pub const EVENT_BYTES: u64 = 64;

/// The most that a history holds. The defaults stand here; a tick carries the cluster's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The most events.
    pub events: u32,
    /// The most bytes of topics and encoded events.
    pub bytes: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { events: 16_384, bytes: 8 << 20 }
    }
}

/// The topics that a watch selects.
///
/// ```
/// use quorate::Topics;
///
/// assert!(Topics::All.select("lock/a"));
/// assert!(Topics::Prefix("lock/".into()).select("lock/a"));
/// assert!(!Topics::from("lock").select("lock/a"), "a string is one topic");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Topics {
    /// Every topic, those to come too.
    All,
    /// Exactly this one.
    One(String),
    /// Each that begins with this.
    Prefix(String),
}

impl Topics {
    /// Whether the watch selects this topic.
    ///
    /// ```
    /// use quorate::Topics;
    ///
    /// assert!(Topics::from("a").select("a") && !Topics::from("a").select("ab"));
    /// assert!(Topics::Prefix("a".into()).select("ab"));
    /// ```
    #[must_use]
    pub fn select(&self, topic: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == topic,
            Self::Prefix(prefix) => topic.starts_with(prefix),
        }
    }
}

impl From<&str> for Topics {
    fn from(topic: &str) -> Self {
        Self::One(topic.into())
    }
}

impl From<String> for Topics {
    fn from(topic: String) -> Self {
        Self::One(topic)
    }
}

/// An event and its topic.
pub type Published<E> = (Arc<str>, Arc<E>);

/// The events of one entry that a watch selects, in the order of their publication. Each was decoded
/// once for all watches of the node, which share it.
///
/// ```
/// # use quorate::Changes;
/// fn print(changes: &Changes<u64>) {
///     for (topic, event) in &changes.events {
///         println!("entry {}, {topic}: {event}", changes.index);
///     }
/// }
/// # print(&Changes { index: quorate::Index(7), time: quorate::LogTime(0), events: vec![("a".into(), 3.into())] });
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes<E> {
    /// Index of the entry.
    pub index: Index,
    /// Log time at the entry.
    pub time: LogTime,
    /// Each event with its topic; at least one.
    pub events: Vec<(Arc<str>, Arc<E>)>,
}

/// The next of a cursor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next<E> {
    /// The first entry after the position that has selected events.
    Changes(Changes<E>),
    /// No entry up to this position has any; the cursor moves to it.
    Nothing(Index),
}

/// The position is below the floor: events after it are gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone {
    /// Index of the last entry that was evicted.
    pub floor: Index,
}

/// The entries that published events, in the order of their indexes. A clone is O(1).
#[derive(PartialEq, Eq, Debug)]
pub struct History<E> {
    entries: Vector<Arc<Entry<E>>>,
    events: u64,
    bytes: u64,
    floor: Index,
}

#[derive(PartialEq, Eq, Debug)]
struct Entry<E> {
    index: Index,
    time: LogTime,
    first: Published<E>,
    /// The events after the first: most entries have none, and an empty box is no allocation.
    more: Box<[Published<E>]>,
    bytes: u64,
}

impl<E> Entry<E> {
    fn events(&self) -> impl Iterator<Item = &Published<E>> {
        iter::once(&self.first).chain(&self.more)
    }

    fn len(&self) -> usize {
        1 + self.more.len()
    }
}

impl<E> History<E> {
    /// Appends the events of an entry that was applied whole, and evicts as [`History::evict`] does.
    /// `bytes` counts topics and encoded events. Indexes rise. Without events it changes nothing.
    pub fn append(
        &mut self,
        index: Index,
        time: LogTime,
        events: impl IntoIterator<Item = Published<E>>,
        bytes: u64,
        bounds: Bounds,
        evicted: impl FnMut(Index, &str),
    ) {
        let mut events = events.into_iter();
        let Some(first) = events.next() else { return };
        debug_assert!(self.entries.last().is_none_or(|last| last.index < index), "indexes rise");
        self.insert(Entry { index, time, first, more: events.collect(), bytes });
        self.evict(bounds, evicted);
    }

    /// Evicts the oldest entries until the bounds hold or only the newest is left. Calls `evicted`
    /// for each event, with the index of its entry and its topic.
    pub fn evict(&mut self, bounds: Bounds, mut evicted: impl FnMut(Index, &str)) {
        while (self.events > u64::from(bounds.events) || self.bytes > u64::from(bounds.bytes)) && self.entries.len() > 1
        {
            let Some(entry) = self.entries.pop_front() else { return };
            self.events -= entry.len() as u64;
            self.bytes -= entry.bytes;
            entry.events().for_each(|(topic, _)| evicted(entry.index, topic));
            self.floor = entry.index;
        }
    }

    /// Index of the last entry that was evicted; 0 if there was none.
    #[must_use]
    pub fn floor(&self) -> Index {
        self.floor
    }

    /// The number of events.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.events
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Moves a cursor that stands at `position`: to the first entry after it with selected events,
    /// or past entries without. `applied` is the last index that was applied, at least that of the
    /// newest entry here; a cursor ahead of it stays where it is. A call looks at [`READ_MAX`]
    /// entries at most.
    ///
    /// # Errors
    /// If events after the position were evicted, selected or not.
    pub fn read(&self, position: Index, applied: Index, topics: &Topics) -> Result<Next<E>, Gone> {
        if position < self.floor {
            return Err(Gone { floor: self.floor });
        }
        let (mut reached, mut looked) = (position, 0);
        for entry in self.after(position) {
            if looked == READ_MAX {
                return Ok(Next::Nothing(reached));
            }
            let selected = || entry.events().filter(|(topic, _)| topics.select(topic));
            if selected().next().is_some() {
                let events = selected().cloned().collect();
                return Ok(Next::Changes(Changes { index: entry.index, time: entry.time, events }));
            }
            (reached, looked) = (entry.index, looked + 1);
        }
        Ok(Next::Nothing(reached.max(applied)))
    }

    /// The topic of each event after `position`, in order, with the index of its entry.
    pub fn topics_after(&self, position: Index) -> impl Iterator<Item = (Index, &str)> {
        self.after(position).flat_map(|entry| entry.events().map(|(topic, _)| (entry.index, &**topic)))
    }

    /// The entries after `position`, in order.
    fn after(&self, position: Index) -> impl Iterator<Item = &Entry<E>> {
        let first = match self.entries.last() {
            // Most readers are at the end.
            Some(last) if last.index > position => {
                let found = self.entries.binary_search_by_key(&position.next(), |entry| entry.index);
                found.unwrap_or_else(|first| first)
            }
            _ => self.entries.len(),
        };
        self.entries.focus().narrow(first..).into_iter().map(|entry| &**entry)
    }

    fn insert(&mut self, entry: Entry<E>) {
        self.events += entry.len() as u64;
        self.bytes += entry.bytes;
        self.entries.push_back(Arc::new(entry));
    }

    /// Writes the history, equal ones as equal bytes: the floor (8), the count of entries (8), and
    /// of each, in order, index (8), log time (8), the count of its events (4), and the topic and
    /// the event in postcard, each with its length (4).
    ///
    /// # Errors
    /// If `to` fails, or an event has no form in postcard.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()>
    where
        E: Serialize,
    {
        to.write_all(&self.floor.0.to_le_bytes())?;
        to.write_all(&(self.entries.len() as u64).to_le_bytes())?;
        let mut encoded = Vec::new();
        for entry in &self.entries {
            to.write_all(&entry.index.0.to_le_bytes())?;
            to.write_all(&entry.time.0.to_le_bytes())?;
            to.write_all(&(entry.len() as u32).to_le_bytes())?;
            for (topic, event) in entry.events() {
                write_bytes(to, topic.as_bytes())?;
                encoded.clear();
                encoded = postcard::to_extend(&**event, encoded).map_err(|error| {
                    Error::new(ErrorKind::InvalidInput, format!("an event has no form in postcard: {error}"))
                })?;
                write_bytes(to, &encoded)?;
            }
        }
        Ok(())
    }

    /// Reads a history that [`History::write`] wrote.
    ///
    /// # Errors
    /// If the source fails, there is no such history, or this release does not read an event.
    pub fn read_from(from: &mut Reader<'_>) -> io::Result<Self>
    where
        E: DeserializeOwned,
    {
        let mut history = Self { floor: Index(from.u64()?), ..Self::default() };
        for _ in 0..from.u64()? {
            let (index, time) = (Index(from.u64()?), LogTime(from.u64()?));
            let last = history.entries.last().map_or(history.floor, |last| last.index);
            let (mut events, mut bytes) = (Vec::new(), 0);
            for _ in 0..from.u32()? {
                let (topic, event) = (from.bytes()?, from.bytes()?);
                bytes += (topic.len() + event.len()) as u64;
                let topic = str::from_utf8(&topic).map_err(|_| from.invalid("a topic is not UTF-8"))?;
                let event = whole(&event).ok_or_else(|| from.invalid("this release does not read an event"))?;
                events.push((topic.into(), Arc::new(event)));
            }
            let mut events = events.into_iter();
            let Some(first) = events.next().filter(|_| index > last) else {
                return Err(from.invalid("the history is not in order"));
            };
            history.insert(Entry { index, time, first, more: events.collect(), bytes });
        }
        Ok(history)
    }
}

impl<E> Default for History<E> {
    fn default() -> Self {
        Self { entries: Vector::new(), events: 0, bytes: 0, floor: Index(0) }
    }
}

impl<E> Clone for History<E> {
    fn clone(&self) -> Self {
        let Self { entries, events, bytes, floor } = self;
        Self { entries: entries.clone(), events: *events, bytes: *bytes, floor: *floor }
    }
}

#[cfg(test)]
mod tests;
