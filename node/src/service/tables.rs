//! The replicated tables of a hosted service beside the author's state, and their part of a
//! snapshot.
//!
//! The layout, a stream before the bytes of the author's state, little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | magic: the bytes `QSERVICE` |
//! | 4 | version of this layout: 2 |
//! | 4 | version of the cluster |
//! | 8, 8, 8, 8 | the last entry: index, term, log time, wall clock of the leader |
//! | 8 | of the last tick: random bytes |
//! | 4 | generation of the cluster |
//! | 4, 4, 4, 4 | of the last tick, the bounds: events, their bytes, rows of the outbox, their bytes |
//! | 17 | the hash of the outcomes in this window ([`Outcomes::write`]) |
//! | … | [timers](Timers::write), [outbox](Outbox::write), [history](History::write), [claims](Claims::write) |
//!
//! Equal tables give equal bytes. The layout has no checksum of its own: the snapshot has one.

use super::{
    history::{self, History, Published},
    layout::Reader,
    outbox::{self, Outbox},
    timers::{self, Timers},
    trace::Trace,
    windows::{Claims, Outcomes},
};
use crate::machine::At;
use quorate_raft::{
    Index, Term,
    session::LogTime,
    tick::{Bounds, Tick},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{self, Write},
    sync::Arc,
};

const MAGIC: [u8; 8] = *b"QSERVICE";
const LAYOUT: u32 = 2;

/// All replicated tables. A clone is O(1), but for the few claims.
#[derive(Debug)]
pub struct Tables<E> {
    /// The last entry that was applied, and the time after it.
    pub at: At,
    /// The last tick's values beside the time.
    pub clock: Clock,
    /// 0, or the Unix time in seconds of the last recovery or restore: indexes and terms may have
    /// gone back then. Never falls.
    pub generation: u32,
    /// The pending timers.
    pub timers: Timers,
    /// The effects that are not completed.
    pub outbox: Outbox,
    /// The latest events.
    pub history: History<E>,
    /// The hash of the outcomes in this window.
    pub outcomes: Outcomes,
    /// The claims of the full copies.
    pub claims: Claims,
}

/// The values in a tick beside the time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Clock {
    /// Random bytes, not known before the tick is appended.
    pub random: u64,
    /// Bounds of the history.
    pub history: history::Bounds,
    /// Bounds of the outbox.
    pub outbox: outbox::Bounds,
}

impl Clock {
    /// The values of a tick.
    #[must_use]
    pub fn of(tick: &Tick) -> Self {
        let Bounds { history_events, history_bytes, outbox_effects, outbox_bytes } = tick.bounds;
        Self {
            random: u64::from_le_bytes(tick.random),
            history: history::Bounds { events: history_events, bytes: history_bytes },
            outbox: outbox::Bounds { rows: outbox_effects, bytes: outbox_bytes },
        }
    }
}

/// The output of the entry that is being applied. Its buffers are kept from entry to entry.
#[derive(Debug)]
pub struct Entry<E> {
    /// The encoded outcome.
    pub trace: Trace,
    /// The undo of each change of the timers, in order.
    pub timers: Vec<timers::Undo>,
    /// The undo of each change of the outbox, in order.
    pub effects: Vec<outbox::Undo>,
    /// Number of the next effect.
    pub next_effect: u32,
    events: Vec<Published<E>>,
    event_bytes: u64,
    /// The most that [`Entry::published`] may be at the end of this command or signal.
    published_max: u64,
}

impl<E: Serialize> Entry<E> {
    /// Takes an event, which waits for the end of the entry.
    ///
    /// # Panics
    /// If its type has no form in postcard, or the command or signal exceeds
    /// [`history::PUBLISHED_BYTES_MAX`].
    pub fn publish(&mut self, topic: &str, event: E) {
        let encoded = self.trace.event(topic, &event);
        self.event_bytes += (topic.len() + self.trace.since(encoded).len()) as u64;
        self.events.push((topic.into(), Arc::new(event)));
        let max = history::PUBLISHED_BYTES_MAX;
        assert!(self.published() <= self.published_max, "one command or signal published more than {max} bytes");
    }
}

impl<E> Entry<E> {
    /// Begins the next command or signal of the entry.
    pub fn begin(&mut self) {
        self.published_max = self.published() + history::PUBLISHED_BYTES_MAX;
    }

    /// Whether no further timer fires in this entry, because of the events of those before it.
    pub fn is_full(&self) -> bool {
        self.published() >= history::PUBLISHED_BYTES_MAX
    }

    /// The cost in bytes of the events until now.
    fn published(&self) -> u64 {
        self.event_bytes + self.events.len() as u64 * history::EVENT_BYTES
    }
}

impl<E> Tables<E> {
    /// Takes over the output of an entry that was applied whole. `at` has the time after it; see
    /// [`History::evict`] for `evicted`.
    pub fn commit(&mut self, at: At, entry: &mut Entry<E>, evicted: impl FnMut(Index, &str)) {
        self.at = at;
        self.outcomes.add(at.index, entry.trace.bytes());
        if !entry.events.is_empty() {
            let events = entry.events.drain(..);
            self.history.append(at.index, at.time, events, entry.event_bytes, self.clock.history, evicted);
        }
        entry.clear();
    }

    /// Drops the output of an entry: the tables are as before it.
    pub fn undo(&mut self, entry: &mut Entry<E>) {
        entry.timers.drain(..).rev().for_each(|undo| self.timers.undo(undo));
        entry.effects.drain(..).rev().for_each(|undo| self.outbox.undo(undo));
        entry.clear();
    }

    /// Writes the tables in the layout above.
    ///
    /// # Errors
    /// If `to` fails.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()>
    where
        E: Serialize,
    {
        let Self { at, clock, generation, timers, outbox, history, outcomes, claims } = self;
        to.write_all(&MAGIC)?;
        to.write_all(&LAYOUT.to_le_bytes())?;
        to.write_all(&at.version.to_le_bytes())?;
        for number in [at.index.0, at.term.0, at.time.0, at.unix_ms, clock.random] {
            to.write_all(&number.to_le_bytes())?;
        }
        let (events, rows) = (clock.history, clock.outbox);
        for number in [*generation, events.events, events.bytes, rows.rows, rows.bytes] {
            to.write_all(&number.to_le_bytes())?;
        }
        outcomes.write(to)?;
        timers.write(to)?;
        outbox.write(to)?;
        history.write(to)?;
        claims.write(to)
    }

    /// Reads tables that [`Tables::write`] wrote, for a release that reads versions up to `release`.
    /// The source stands at the author's state then.
    ///
    /// # Errors
    /// If the source fails, there are no such tables, or the cluster has reached a version that the
    /// release does not read.
    pub fn read(from: &mut Reader<'_>, release: u32) -> io::Result<Self>
    where
        E: DeserializeOwned,
    {
        if from.array()? != MAGIC {
            return Err(from.invalid("no service stands there: another program wrote it"));
        }
        match from.u32()? {
            LAYOUT => {}
            layout => return Err(from.invalid(format_args!("layout {layout} is not known here, only {LAYOUT}"))),
        }
        let version = from.u32()?;
        if version > release {
            return Err(from.invalid(format_args!(
                "the cluster is at version {version} of the service, and this release reads up to {release}: run a newer one"
            )));
        }
        let (index, term, time) = (Index(from.u64()?), Term(from.u64()?), LogTime(from.u64()?));
        let at = At { index, term, time, unix_ms: from.u64()?, version };
        let (random, generation) = (from.u64()?, from.u32()?);
        let clock = Clock {
            random,
            history: history::Bounds { events: from.u32()?, bytes: from.u32()? },
            outbox: outbox::Bounds { rows: from.u32()?, bytes: from.u32()? },
        };
        let outcomes = Outcomes::read(from)?;
        let (timers, outbox) = (Timers::read(from)?, Outbox::read(from)?);
        if timers.next_due().is_some_and(|due| due < time) {
            return Err(from.invalid("a timer is due before the time of the snapshot"));
        }
        let (history, claims) = (History::read_from(from)?, Claims::read(from)?);
        Ok(Self { at, clock, generation, timers, outbox, history, outcomes, claims })
    }
}

impl<E> Entry<E> {
    #[inline]
    fn clear(&mut self) {
        let Self { trace, timers, effects, next_effect, events, event_bytes, published_max } = self;
        trace.clear();
        // Most entries put out nothing but a reply, and to clear an empty vector is a call.
        if !timers.is_empty() {
            timers.clear();
        }
        if !effects.is_empty() {
            effects.clear();
        }
        if !events.is_empty() {
            events.clear();
        }
        (*next_effect, *event_bytes, *published_max) = (0, 0, 0);
    }
}

impl<E> Default for Tables<E> {
    fn default() -> Self {
        Self {
            at: At::default(),
            clock: Clock::default(),
            generation: 0,
            timers: Timers::default(),
            outbox: Outbox::default(),
            history: History::default(),
            outcomes: Outcomes::default(),
            claims: Claims::default(),
        }
    }
}

impl<E> Clone for Tables<E> {
    fn clone(&self) -> Self {
        let Self { at, clock, generation, timers, outbox, history, outcomes, claims } = self;
        Self {
            at: *at,
            clock: *clock,
            generation: *generation,
            timers: timers.clone(),
            outbox: outbox.clone(),
            history: history.clone(),
            outcomes: *outcomes,
            claims: claims.clone(),
        }
    }
}

impl<E> Default for Entry<E> {
    fn default() -> Self {
        Self {
            trace: Trace::default(),
            timers: Vec::new(),
            effects: Vec::new(),
            next_effect: 0,
            events: Vec::new(),
            event_bytes: 0,
            published_max: 0,
        }
    }
}
