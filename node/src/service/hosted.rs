//! The state machine that hosts a service: it joins the author's code with the replicated tables.
//!
//! Each entry is applied whole or not at all. The author's code runs under `catch_unwind`; if it
//! panics, the tables are as before the entry, and the machine halts: the author's state may be
//! spoilt, so nothing more is applied to it, and no snapshot is taken. It also halts where the
//! cluster reaches a version that this release does not read: from there on behaviour may differ,
//! not only the form of commands. The version is the machine's own: entries of the log raise it.

use super::{
    comparing::Comparing,
    context::{Cause, Context},
    encoding::whole,
    envelope::{self, Opened, Versions},
    errors::Refused,
    history::Topics,
    hub::{Cursor, Publisher},
    interface::Service,
    internal::{Claimed, Done, Internal},
    layout::Reader,
    outbox::Outbox,
    tables::{Clock, Entry, Tables},
    timers::Firing,
    windows::Claim,
};
use crate::{
    comparison::Comparison,
    error::Failure,
    machine::{self, At, Halt, HaltCause, StateMachine, WriteState, message_of},
    views::View,
};
use bytes::Bytes;
use quorate_raft::{
    Index, NodeId,
    session::{LogTime, SessionKey},
    tick::Tick,
};
use std::{
    cell::Cell,
    collections::BTreeSet,
    fmt,
    io::{self, BufWriter, Error, Write},
    mem,
    panic::{self, AssertUnwindSafe},
};
use tokio::sync::watch;

/// A longer command is not copied out of the buffer in which it was encoded, but takes it along.
const SCRATCH_BYTES_MAX: usize = 1 << 16;

thread_local! {
    /// The buffer in which this thread encodes commands.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A service as a state machine. [`Builder::serve`](crate::Builder::serve) makes one; tests may
/// make one without a node.
///
/// ```
/// # use quorate::{At, Context, Hosted, Index, Service, StateMachine};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Counter(u64);
/// # impl Service for Counter {
/// #     quorate::types!(u64 => u64, () => u64);
/// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
/// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
/// # }
/// let mut counter = Hosted::new(Counter::default);
/// let command = Hosted::<Counter>::encode(&3);
/// let outcome = counter.apply(&At { index: Index(1), ..At::default() }, &command);
/// assert_eq!(Hosted::<Counter>::decode(&outcome), Some(Ok(3)));
/// assert_eq!(counter.query(()), 3);
/// ```
pub struct Hosted<S: Service> {
    service: S,
    tables: Tables<S::Event>,
    entry: Entry<S::Event>,
    /// The timers that fired since the node last asked.
    fired: u64,
    /// The history for the watches of this node.
    publisher: Publisher<S::Event>,
    /// The outbox for the performer of this node, as the last batch left it.
    performs: watch::Sender<Outbox>,
    /// This node's claims, and its conclusions from those in the log.
    comparing: Comparing,
    /// The failure of a copy that a majority differs from.
    diverged: Option<Failure>,
    halt: Option<Halt>,
}

impl<S: Service> Hosted<S> {
    /// The machine of the service that `new` makes: its state before the first entry.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Index, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// let counter = Hosted::new(|| Counter(7));
    /// assert_eq!(counter.query(()), 7);
    /// ```
    pub fn new(new: impl Fn() -> S) -> Self {
        Self {
            service: new(),
            tables: Tables::default(),
            entry: Entry::default(),
            fired: 0,
            publisher: Publisher::default(),
            performs: watch::Sender::default(),
            comparing: Comparing::default(),
            diverged: None,
            halt: None,
        }
    }

    /// The bytes of a command, as its entry has them.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Index, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// let bytes = Hosted::<Counter>::encode(&3);
    /// assert_eq!(bytes[..], [0xf1, 0, 3], "a tag, the version of the kind of command, the command");
    /// ```
    ///
    /// # Panics
    /// If the command's type has no form in postcard: see [`Message`](crate::Message).
    #[must_use]
    pub fn encode(command: &S::Command) -> Bytes {
        let mut bytes = SCRATCH.try_with(Cell::take).unwrap_or_default();
        bytes.clear();
        envelope::seal(command, S::since(command), &mut bytes);
        if bytes.len() > SCRATCH_BYTES_MAX {
            return bytes.into();
        }
        let sealed = Bytes::copy_from_slice(&bytes);
        // A thread that ends keeps no buffer.
        let _ = SCRATCH.try_with(|scratch| scratch.set(bytes));
        sealed
    }

    /// The outcome in the bytes that [`StateMachine::apply`] returned; `None` if this release does
    /// not read them.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Index, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// let mut counter = Hosted::new(Counter::default);
    /// let outcome = counter.apply(&At { index: Index(1), ..At::default() }, b"no command");
    /// assert_eq!(Hosted::<Counter>::decode(&outcome), Some(Err(quorate::Refused::Unreadable)));
    /// ```
    #[must_use]
    pub fn decode(outcome: &[u8]) -> Option<Result<S::Reply, Refused>> {
        envelope::read_outcome(outcome).map(|outcome| outcome.map_err(Refused::from))
    }

    /// Answers a query of the state after the last entry.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Index, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// let mut counter = Hosted::new(Counter::default);
    /// counter.apply(&At { index: Index(1), ..At::default() }, &Hosted::<Counter>::encode(&3));
    /// assert_eq!(counter.query(()), 3);
    /// ```
    #[must_use]
    pub fn query(&self, query: S::Query) -> S::Answer {
        self.service.query(query, self.tables.at)
    }

    /// The same; the error is the message of a panic. The state is only lent to the query, so it is
    /// as it was.
    pub(crate) fn ask(&self, query: S::Query) -> Result<S::Answer, String> {
        caught(|| self.query(query))
    }

    /// A cursor into the history, after this index or after all that was applied.
    pub(super) fn watch(&self, topics: Topics, after: Option<Index>) -> Cursor<S::Event> {
        self.publisher.watch(&self.tables.history, topics, after)
    }

    /// The outbox after each batch that changed it. Ends when the machine halts, or with the node.
    #[doc(hidden)]
    #[must_use]
    pub fn outbox(&self) -> watch::Receiver<Outbox> {
        self.performs.subscribe()
    }

    /// The author's state.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Index, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// let counter = Hosted::new(|| Counter(7));
    /// assert_eq!(counter.service().0, 7);
    /// ```
    #[must_use]
    pub fn service(&self) -> &S {
        &self.service
    }

    /// The replicated tables.
    #[doc(hidden)]
    #[must_use]
    pub fn tables(&self) -> &Tables<S::Event> {
        &self.tables
    }

    /// The entry at which the machine halted, if it did.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Index, Service, StateMachine};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// let counter = Hosted::new(Counter::default);
    /// assert!(counter.halted().is_none());
    /// ```
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        self.halt.as_ref()
    }

    /// The last window that is over, with what this node has there.
    #[doc(hidden)]
    #[must_use]
    pub fn claim(&self) -> Option<(u64, Claim)> {
        self.comparing.last()
    }

    /// Applies a command, of the caller with this session.
    ///
    /// # Errors
    /// If the machine halts here, or has halted before.
    #[doc(hidden)]
    pub fn command(&mut self, at: &At, session: Option<&SessionKey>, bytes: &[u8]) -> Result<Bytes, Halt> {
        self.enter(at, |at, service, tables, entry| {
            let versions = Versions { cluster: at.version, release: S::VERSION };
            let written = match envelope::open(bytes, versions, S::since) {
                Opened::Command(command) => {
                    let mut cx = Context::new(*at, Cause::Call, 0, tables, entry).with(session);
                    let reply = service.apply(command, &mut cx);
                    entry.trace.outcome(|to| envelope::write_reply(&reply, to))
                }
                Opened::Refused(refusal) => entry.trace.outcome(|to| envelope::write_refusal(refusal, to)),
                Opened::TooOld { needs } => return Err(HaltCause::TooOld { needs, release: S::VERSION }),
            };
            Ok(Bytes::copy_from_slice(entry.trace.since(written)))
        })
    }

    /// Applies a tick, which carries log time to `at.time`: fires what is due by then, each timer at
    /// its own time. If more is due than one entry may fire, log time stops before the rest.
    ///
    /// # Errors
    /// If the machine halts here, or has halted before.
    #[doc(hidden)]
    pub fn fire(&mut self, at: &At, clock: Clock) -> Result<(), Halt> {
        let before = self.tables.clock;
        self.tables.clock = clock;
        let fired = self.enter(at, |at, service, tables, entry| {
            let (until, mut nth) = (at.time, 0);
            let mut firing = Firing::new(until);
            while !entry.is_full()
                && let Some((due, undo)) = tables.timers.fire(&mut firing)
            {
                entry.trace.fired(undo.key());
                let signal = signal_of::<S>(undo.key());
                entry.timers.push(undo);
                let signal = signal?;
                let at = At { time: due, ..*at };
                service.signal(signal, &mut Context::new(at, Cause::Timer, nth, tables, entry));
                nth += 1;
            }
            at.time = tables.timers.time_after(until);
            Ok(nth)
        });
        match fired {
            Ok(nth) => {
                self.fired += u64::from(nth);
                let Self { tables, publisher, .. } = self;
                tables.history.evict(clock.history, |index, topic| publisher.evicted(index, topic));
            }
            Err(_) => self.tables.clock = before,
        }
        fired.map(|_| ())
    }

    /// Applies an internal entry.
    ///
    /// # Errors
    /// If the machine halts here, or has halted before.
    #[doc(hidden)]
    pub fn inside(&mut self, at: &At, payload: &[u8]) -> Result<(), Halt> {
        let mut claimed = None;
        self.enter(at, |at, service, tables, entry| {
            match Internal::decode(payload).ok_or(HaltCause::Unknown)? {
                Internal::Version(needs) if needs > S::VERSION => {
                    return Err(HaltCause::TooOld { needs, release: S::VERSION });
                }
                Internal::Version(version) => at.version = at.version.max(version),
                Internal::Generation(generation) => tables.generation = tables.generation.max(generation),
                Internal::Claim(Claimed { node, window, claim }) => {
                    tables.claims.add(at.index, window, node, claim);
                    claimed = Some(window);
                }
                Internal::Done(Done { id, term, signal }) => {
                    let undo = tables.outbox.complete(id, term, at.term);
                    entry.trace.completed(undo.is_some());
                    if let Some(undo) = undo {
                        entry.effects.push(undo);
                        let cause = Cause::Effect(id);
                        let signal = signal_of::<S>(signal)?;
                        service.signal(signal, &mut Context::new(*at, cause, 0, tables, entry));
                    }
                }
            }
            Ok(())
        })?;
        if let Some(window) = claimed {
            self.diverged = self.comparing.claimed(at.index, window, &self.tables.claims);
        }
        Ok(())
    }

    /// Runs one entry at its position, at the cluster's version: all of its output is taken over,
    /// with time and version as `run` leaves them, or all of it is dropped.
    #[inline]
    fn enter<T>(
        &mut self,
        at: &At,
        run: impl FnOnce(&mut At, &mut S, &mut Tables<S::Event>, &mut Entry<S::Event>) -> Result<T, HaltCause>,
    ) -> Result<T, Halt> {
        if let Some(halt) = &self.halt {
            return Err(halt.clone());
        }
        let Self { service, tables, entry, comparing, publisher, .. } = self;
        debug_assert!(tables.timers.next_due().is_none_or(|due| due >= tables.at.time), "nothing overdue is pending");
        let mut at = At { version: tables.at.version, ..*at };
        let before = tables.outcomes;
        let over = tables.outcomes.begin(at.index);
        // After a panic the service is not used again.
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            if let Some((window, outcomes)) = over {
                // The digest is that of the state at the end of the window: before this entry.
                comparing.ended(window, Claim { version: at.version, outcomes, state: service.digest() });
            }
            run(&mut at, service, tables, entry)
        }));
        let cause = match outcome {
            Ok(Ok(value)) => {
                tables.commit(at, entry, |index, topic| publisher.evicted(index, topic));
                return Ok(value);
            }
            Ok(Err(cause)) => cause,
            Err(panic) => HaltCause::Panicked { message: message_of(&*panic) },
        };
        tables.undo(entry);
        tables.outcomes = before;
        // The applier drops a machine that has halted: no flush follows.
        publisher.publish(&tables.history, at.index, Some(at.index));
        Err(self.halt.insert(Halt { at: at.index, cause }).clone())
    }
}

/// The view of a hosted service: the author's, and the last entry in it.
pub(super) struct ServiceView<S> {
    service: View<S>,
    at: At,
}

impl<S: Service> ServiceView<S> {
    /// Answers a query as [`Hosted::ask`] does, or gives it back.
    pub(super) fn ask(&self, query: S::Query) -> Result<Result<S::Answer, String>, S::Query> {
        let Some(service) = self.service.holds::<S>() else { return Err(query) };
        Ok(caught(|| service.query(query, self.at)))
    }
}

/// The answer of the author's code, or the message of its panic.
fn caught<T>(ask: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(ask)).map_err(|panic| message_of(&*panic))
}

/// Unwinds to the applier, as a panic of any machine does, with the halt as the payload: it was
/// reported, so the panic hook is not called again.
fn or_end<T>(result: Result<T, Halt>) -> T {
    result.unwrap_or_else(|halt| panic::resume_unwind(Box::new(halt)))
}

impl<S: Service> StateMachine for Hosted<S> {
    fn apply(&mut self, at: &At, command: &[u8]) -> Bytes {
        or_end(self.command(at, None, command))
    }

    fn apply_in(&mut self, at: &At, session: &SessionKey, command: &[u8]) -> Bytes {
        or_end(self.command(at, Some(session), command))
    }

    fn ticked(&mut self, at: &At, tick: &Tick) {
        or_end(self.fire(at, Clock::of(tick)));
    }

    fn internal(&mut self, at: &At, payload: &[u8]) {
        or_end(self.inside(at, payload));
    }

    fn configured(&mut self, this: NodeId, full_copies: BTreeSet<NodeId>) {
        let failure = self.comparing.configured(this, full_copies, self.tables.at.index, &self.tables.claims);
        self.diverged = self.diverged.take().or(failure);
    }

    fn received(&mut self) {
        self.comparing.received();
    }

    fn comparison(&mut self) -> Option<Comparison> {
        self.comparing.changed(self.tables.at.index, &self.tables.claims)
    }

    fn diverged(&self) -> Option<Failure> {
        self.diverged.clone()
    }

    fn is_pending(&self) -> bool {
        !self.tables.outbox.is_empty()
    }

    fn next_due(&self) -> Option<LogTime> {
        self.tables.timers.next_due()
    }

    fn uses_time(&self) -> bool {
        true
    }

    fn schema_version(&self) -> Option<u32> {
        Some(self.tables.at.version)
    }

    fn timers(&mut self) -> machine::Timers {
        machine::Timers { pending: self.tables.timers.len() as u64, fired: mem::take(&mut self.fired) }
    }

    fn generation(&self) -> u32 {
        self.tables.generation
    }

    fn flush(&mut self, applied: Index) {
        self.service.flush(applied);
        self.publisher.publish(&self.tables.history, applied, self.halt.as_ref().map(|halt| halt.at));
        if self.performs.receiver_count() > 0 {
            let outbox = &self.tables.outbox;
            self.performs.send_if_modified(|seen| {
                let is_new = !seen.is_same(outbox);
                if is_new {
                    seen.clone_from(outbox);
                }
                is_new
            });
        }
    }

    fn view(&self) -> Option<View<Self>> {
        self.service.view().map(|service| View::with(ServiceView { service, at: self.tables.at }))
    }

    fn snapshot(&self) -> Option<WriteState> {
        if let Some(halt) = self.halt.clone() {
            return Some(Box::new(move |_| Err(Error::other(halt))));
        }
        let (tables, state) = (self.tables.clone(), self.service.save());
        Some(Box::new(move |to| {
            let mut buffered = BufWriter::new(&mut *to);
            tables.write(&mut buffered)?;
            buffered.flush()?;
            drop(buffered);
            state(to)
        }))
    }

    fn restore(&mut self, state: &mut dyn io::Read) -> io::Result<()> {
        let mut from = Reader::new(state);
        let tables = Tables::read(&mut from, S::VERSION)?;
        self.service.load(from.rest())?;
        (self.tables, self.halt) = (tables, None);
        self.comparing.restored(self.tables.at.index);
        self.publisher.restored();
        Ok(())
    }
}

/// Decodes a signal that an earlier entry or another leader encoded.
fn signal_of<S: Service>(bytes: &[u8]) -> Result<S::Signal, HaltCause> {
    whole(bytes).ok_or(HaltCause::SignalUnreadable)
}

impl<S: Service> fmt::Debug for Hosted<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tables { at, timers, outbox, history, .. } = &self.tables;
        let (timers, effects, events) = (timers.len(), outbox.len(), history.len());
        f.debug_struct("Hosted")
            .field("at", at)
            .field("timers", &timers)
            .field("effects", &effects)
            .field("events", &events)
            .field("halt", &self.halt)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
