//! `Applier`: owns the state machine, the client sessions and the applied index, for the life
//! of the node.
//!
//! It receives committed entries, applies them in order, and answers the callers itself, from its
//! own thread: an answer is one hop from the client. It takes the state for snapshots and restores
//! it from them, but never writes one itself, since no entry is applied meanwhile. It never decides
//! which entries are committed.
//!
//! If the machine panics in an entry, it *halts* there: its state may be spoilt, so it is dropped,
//! and nothing is applied, read, snapshotted or restored until the node is started again. A snapshot
//! that arrives meanwhile is on disk, and that start restores it: the applier has one machine, not
//! the means to make another.

use super::{
    load::Load,
    messages::{Applied, Caller, Committed, Group, Restore, StateTaken, Stop, TakeState},
    stages::{Applying, Measured},
    state,
};
use crate::{
    decisions::{
        callers::{Answer, Outcome},
        ticks::Reached,
    },
    error::{Failure, ProposeError, RestoreError},
    events::{Events, What},
    lifecycle::{Lifecycle, PanicGuard},
    machine::{HaltCause, StateMachine, Timers, WriteState, cause_of},
    results,
    sessions::{Refusal, Table, Verdict},
    status::Halted,
    views::StateViews,
};
use actix::prelude::*;
use quorate_metrics::{ActorName, NodeMetrics, ProposalResult, SnapshotPhase};
use quorate_raft::{
    EntryId, Index, Kind, Membership, NodeId, Skip,
    session::{self, Request},
    tick::Tick,
};
use quorate_storage::{SnapshotSource, StorageError, StorageOp, contract::Probe};
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// The actor that applies committed entries.
pub(crate) struct Applier<M> {
    id: NodeId,
    /// Boxed, so that actix may move the actor even if the machine may not move. `None` on a
    /// witness, which only counts entries.
    machine: Option<Box<M>>,
    /// Asked once, so that a machine without time pays nothing.
    uses_time: bool,
    sessions: Table,
    /// The entries that the node was told to skip.
    skips: BTreeMap<Index, Skip>,
    /// The entry at which the machine halted, which is `None` from then on.
    halted: Option<Arc<Halted>>,
    /// The last entry that was applied, and the checksum of its record.
    last: EntryId,
    last_checksum: u32,
    answers: Vec<Answer>,
    /// The stages of batches of which these are the last answers.
    measured: Vec<Measured>,
    telling: bool,
    /// When `Consensus` was last told the applied index, and whether the machine is so slow that
    /// the time is checked after each entry.
    told_at: Instant,
    is_slow: bool,
    waiting: BTreeMap<Index, Vec<Waiting<M>>>,
    /// The view that callers share, and the last entry in it.
    views: Arc<StateViews<M>>,
    viewed: Option<Index>,
    /// The next check for reads that have waited too long.
    looks_at: Option<Instant>,
    patience: Duration,
    applied: Recipient<Applied>,
    state_taken: Recipient<StateTaken>,
    metrics: NodeMetrics,
    load: Load,
    events: Events,
    lifecycle: Lifecycle,
    _panic_guard: PanicGuard,
}

/// The most characters of a panic's message that are kept.
const MESSAGE_MAX: usize = 1_000;

/// The entries of a batch after which the applier checks the time since its last report to
/// `Consensus`. It reports within the batch once `TELL_EVERY` has passed.
const LOOK_EVERY: u64 = 16;
const TELL_EVERY: Duration = Duration::from_millis(200);

/// A read of the machine at the given applied index.
pub(crate) type Run<M> = Box<dyn FnOnce(Result<&M, Unreadable>, Index) + Send>;

/// The reason for which a read gets no machine.
pub(crate) enum Unreadable {
    /// It waited too long for its index, or the node is a witness.
    Late,
    /// The machine halted at this entry.
    Halted(Index),
}

/// A read that waits for its index to be applied, until `until`.
struct Waiting<M> {
    until: Instant,
    run: Run<M>,
}

/// A handle → `Applier`: run this as soon as `index` is applied, or without the machine if that has
/// not happened by `until`.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Query<M> {
    pub(crate) index: Index,
    pub(crate) until: Option<Instant>,
    /// Whether a view could serve the next read of this kind.
    pub(crate) wants_view: bool,
    pub(crate) run: Run<M>,
}

impl<M: StateMachine> Applier<M> {
    /// `patience` bounds, roughly, the wait of reads without a deadline.
    pub(crate) fn new(
        id: NodeId,
        (machine, views): (Option<M>, Arc<StateViews<M>>),
        skips: BTreeMap<Index, Skip>,
        (applied, state_taken): (Recipient<Applied>, Recipient<StateTaken>),
        patience: Duration,
        (metrics, load, events): (NodeMetrics, Load, Events),
        lifecycle: Lifecycle,
    ) -> Self {
        Self {
            id,
            uses_time: machine.as_ref().is_some_and(StateMachine::uses_time),
            machine: machine.map(Box::new),
            sessions: Table::default(),
            skips,
            halted: None,
            last: EntryId::default(),
            last_checksum: 0,
            answers: Vec::new(),
            measured: Vec::new(),
            telling: false,
            told_at: Instant::now(),
            is_slow: false,
            waiting: BTreeMap::new(),
            views,
            viewed: None,
            looks_at: None,
            patience,
            applied,
            state_taken,
            metrics,
            load,
            events,
            _panic_guard: lifecycle.panic_guard("Applier"),
            lifecycle,
        }
    }

    fn apply(&mut self, Committed { batch, groups }: Committed) {
        let began = Instant::now();
        let mut applying: Vec<_> = groups.iter().map(|group| group.applying(began)).collect();
        let with_indexes =
            |(nth, group): (usize, Group)| group.with_indexes().map(move |(of, caller)| (of, nth, caller));
        let mut callers = groups.into_iter().enumerate().flat_map(with_indexes).peekable();
        let (mut answered, mut applied_of_batch) = (0, 0u64);
        if self.halted.is_some() {
            return callers.for_each(|(.., caller)| self.tell_unknown(caller));
        }
        self.views.begin(batch.last());
        for record in batch.records() {
            let index = record.id.index;
            debug_assert_eq!(index, self.last.index.next(), "committed entries arrive in order");
            let entry = Skip { index, term: record.id.term, checksum: record.checksum };
            let skips = !self.skips.is_empty() && self.skips(entry, record.kind);
            let nothing = || Ok(results::Applied { index, reply: bytes::Bytes::new() });
            // After a panic nothing is applied to the machine or the sessions again.
            let applied = catch_unwind(AssertUnwindSafe(|| {
                Ok(match (record.kind, &mut self.machine) {
                    (Kind::Noop, _) | (_, None) => nothing(),
                    (Kind::Membership, Some(machine)) => {
                        let membership = Membership::decode(record.payload)
                            .map_err(|source| Failure::Unreadable { entry: index, source })?;
                        machine.configured(self.id, full_copies(&membership));
                        if let Some(diverged) = machine.diverged() {
                            return Err(diverged);
                        }
                        nothing()
                    }
                    (Kind::Command, Some(_)) if skips => Err(Refusal::Skipped),
                    (Kind::Command, Some(machine)) => {
                        let at = self.sessions.at(record.id);
                        Ok(results::Applied { index, reply: machine.apply(&at, record.payload) })
                    }
                    (Kind::Stub, Some(_)) => return Err(stub_found(index)),
                    (Kind::Session, Some(_)) => self.apply_in_session(record.id, record.payload, skips)?,
                    (Kind::Tick, Some(machine)) => {
                        let tick = Tick::decode(record.payload)
                            .map_err(|source| Failure::Unreadable { entry: index, source })?;
                        self.sessions.apply_tick(record.id, tick, |at| {
                            machine.ticked(at, &tick);
                            machine.next_due()
                        });
                        nothing()
                    }
                    (Kind::Internal, Some(machine)) => {
                        machine.internal(&self.sessions.at(record.id), record.payload);
                        if let Some(diverged) = machine.diverged() {
                            return Err(diverged);
                        }
                        nothing()
                    }
                })
            }));
            let outcome = match applied {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(failure)) => return self.lifecycle.fail(failure),
                Err(panic) => {
                    self.halt(entry, record.kind, record.payload.len(), &*panic);
                    callers.for_each(|(.., caller)| self.tell_unknown(caller));
                    break;
                }
            };
            (self.last, self.last_checksum) = (record.id, record.checksum);
            if let Some((_, nth, caller)) = callers.next_if(|(of, ..)| *of == index) {
                answered += u64::from(self.answer(caller, outcome, applying.get_mut(nth).and_then(Option::as_mut)));
            }
            applied_of_batch += 1;
            if applied_of_batch.is_multiple_of(LOOK_EVERY) || self.is_slow {
                self.tell_if_late();
            }
        }
        if answered > 0 {
            self.metrics.proposals(ProposalResult::Applied, answered);
        }
    }

    /// Halts at an entry in which the machine panicked.
    fn halt(&mut self, entry: Skip, kind: Kind, bytes: usize, panic: &(dyn Any + Send)) {
        let mut cause = cause_of(panic);
        if let HaltCause::Panicked { message } = &mut cause {
            *message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_MAX).collect();
        }
        let is_command = matches!(kind, Kind::Command | Kind::Session);
        let can_be_skipped = is_command && matches!(cause, HaltCause::Panicked { .. });
        let halted = Arc::new(Halted { entry, bytes, cause, can_be_skipped });
        self.events.tell(What::Halted { entry, why: halted.to_string() });
        let at = entry.index;
        self.halted = Some(halted);
        self.views.end();
        let machine = self.machine.take();
        // Its state may be spoilt: a second panic is no news.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(machine)));
        for waiting in std::mem::take(&mut self.waiting).into_values().flatten() {
            (waiting.run)(Err(Unreadable::Halted(at)), self.last.index);
        }
    }

    /// The command of this caller is committed and not applied here: a release that can apply it
    /// will, or an operator has it skipped.
    fn tell_unknown(&mut self, caller: Caller) {
        match caller {
            Caller::Here { waiter, .. } => waiter.tell(Err(ProposeError::OutcomeUnknown)),
            Caller::There { node, request, .. } => self.answers.push(Answer { node, request, outcome: None }),
        }
    }

    /// Whether the entry is skipped. All nodes skip the same entries, so that their states agree.
    fn skips(&mut self, entry: Skip, kind: Kind) -> bool {
        let Some(named) = self.skips.get(&entry.index) else { return false };
        if *named != entry {
            self.events.tell(What::SkipIgnored { named: *named, found: Some(entry) });
            return false;
        }
        if !matches!(kind, Kind::Command | Kind::Session) {
            self.events.tell(What::SkipIgnored { named: *named, found: None });
            return false;
        }
        self.events.tell(What::EntrySkipped { entry });
        self.sessions.skip(entry);
        true
    }

    /// Reports the applied index to `Consensus` within a long batch: a slow machine is then not
    /// taken for a stuck one, which would cost the leader its leadership.
    fn tell_if_late(&mut self) {
        let since = self.told_at.elapsed();
        self.is_slow = since >= TELL_EVERY / 2;
        if since >= TELL_EVERY {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.told_at = Instant::now();
        let answers = std::mem::take(&mut self.answers);
        let comparison = self.machine.as_mut().and_then(|machine| machine.comparison()).map(Box::new);
        let asked = self.machine.as_ref().filter(|_| self.uses_time);
        let reached = Reached {
            log_time: self.sessions.now(),
            next_due: asked.and_then(|machine| machine.next_due()),
            is_pending: asked.is_some_and(|machine| machine.is_pending()),
            schema_version: self.machine.as_ref().and_then(|machine| machine.schema_version()),
        };
        let (measured, halted) = (std::mem::take(&mut self.measured), self.halted.clone());
        self.applied.do_send(Applied { index: self.last.index, reached, answers, measured, comparison, halted });
    }

    /// Applies a session entry: the table decides whether the machine is called.
    fn apply_in_session(&mut self, id: EntryId, payload: &[u8], skips: bool) -> Result<Outcome, Failure> {
        let (stamp, request) =
            session::decode(payload).map_err(|source| Failure::Unreadable { entry: id.index, source })?;
        let at = self.sessions.at(id);
        let session = match &request {
            Request::Command { key, .. } => Some(key),
            Request::Open => None,
        };
        let machine = self.machine.as_mut().filter(|_| !skips).zip(session);
        let apply = |command: &[u8]| machine.map(|(machine, session)| machine.apply_in(&at, session, command));
        Ok(match self.sessions.apply(id.index, stamp, &request, apply) {
            Verdict::Applied { index, reply } => Ok(results::Applied { index, reply }),
            Verdict::Refused(refusal) => Err(refusal),
        })
    }

    /// Whether a caller of this node is told that its command was applied.
    fn answer(&mut self, caller: Caller, outcome: Outcome, applying: Option<&mut Applying>) -> bool {
        // The node may have failed since this was committed; then no caller may be answered.
        if !self.lifecycle.is_running() {
            return false;
        }
        let measured = applying.and_then(|applying| applying.answers(matches!(caller, Caller::Here { .. })));
        match caller {
            Caller::Here { waiter, .. } => {
                let is_applied = outcome.is_ok();
                match measured {
                    Some(measured) => waiter.tell_last(outcome, measured),
                    None => waiter.tell(Ok(outcome)),
                }
                is_applied
            }
            Caller::There { node, request, permit, .. } => {
                drop(permit);
                self.answers.push(Answer { node, request, outcome: Some(outcome) });
                self.measured.extend(measured);
                false
            }
        }
    }

    /// Tells the machine that no more entries follow for now.
    fn flush(&mut self) {
        if let Some(machine) = &mut self.machine {
            machine.flush(self.last.index);
        }
        if self.views.take_used() {
            self.publish_view();
        } else if self.viewed.is_some() && self.views.withdraw() {
            self.viewed = None;
        }
    }

    /// Publishes a view of the state, if the machine offers one.
    fn publish_view(&mut self) {
        if self.viewed == Some(self.last.index) {
            return;
        }
        if let Some(view) = self.machine.as_ref().and_then(|machine| machine.view())
            && self.views.publish(self.last.index, view)
        {
            self.viewed = Some(self.last.index);
        }
    }

    fn serve_waiting(&mut self) {
        let applied = self.last.index;
        while let Some(first) = self.waiting.first_entry().filter(|first| *first.key() <= applied) {
            for waiting in first.remove() {
                (waiting.run)(self.machine.as_deref().ok_or(Unreadable::Late), applied);
            }
        }
    }

    /// `is_received` if another node sent the snapshot.
    fn restore(&mut self, source: Box<dyn SnapshotSource>, is_received: bool) -> Result<(), RestoreError> {
        let (began, ends) = (Instant::now(), source.snapshot().base.last);
        self.views.begin_restore(ends.index);
        self.viewed = None;
        let restored = match &mut self.machine {
            Some(machine) => state::restore(&mut **machine, source).inspect(|(base, _)| {
                if is_received {
                    machine.received();
                }
                machine.configured(self.id, full_copies(&base.membership));
            }),
            None => Ok((source.snapshot().base.clone(), Table::default())),
        };
        match restored {
            Ok((base, sessions)) => {
                let contained = |skip: &&Skip| skip.index <= base.last.index && !sessions.skipped().contains(*skip);
                if let Some(skip) = self.skips.values().find(contained).filter(|_| self.machine.is_some()) {
                    return Err(RestoreError::Applied { entry: *skip, ends });
                }
                self.sessions = sessions;
                (self.last, self.last_checksum) = (base.last, base.last_checksum);
                self.flush();
                self.metrics.snapshot_took(SnapshotPhase::Restore, began.elapsed());
                self.events.tell(What::SnapshotInstalled { last: ends });
                Ok(())
            }
            Err(error) => {
                self.metrics.snapshot_failed(SnapshotPhase::Restore);
                Err(RestoreError::Unreadable { ends, source: StorageError::within(error, StorageOp::Read) })
            }
        }
    }

    /// Reports the applied index to `Consensus` once the mailbox is empty.
    fn tell_later(&mut self, ctx: &mut Context<Self>) {
        if !self.telling {
            self.telling = true;
            ctx.notify(Tell);
        }
    }

    /// Gives up the reads that have waited too long, for as long as any wait: the node may have
    /// lost its leader for good.
    fn give_up_later(&mut self, ctx: &mut Context<Self>) {
        let Some(first) = self.waiting.values().flatten().map(|waiting| waiting.until).min() else { return };
        if self.looks_at.is_none_or(|at| first < at) {
            self.looks_at = Some(first);
            let now = Instant::now();
            ctx.run_later(first.saturating_duration_since(now), move |this, ctx| {
                // An earlier check may have been scheduled since.
                this.looks_at.take_if(|at| *at == first);
                let now = Instant::now();
                for waiting in this.waiting.values_mut() {
                    for late in waiting.extract_if(.., |waiting| waiting.until <= now) {
                        (late.run)(Err(Unreadable::Late), this.last.index);
                    }
                }
                this.waiting.retain(|_, waiting| !waiting.is_empty());
                this.give_up_later(ctx);
            });
        }
    }
}

/// The state of a machine that halted after a snapshot of it was asked for: an error.
fn no_state() -> WriteState {
    Box::new(|_| Err(io::Error::other("the state machine has halted")))
}

/// The voters that have a state machine.
fn full_copies(membership: &Membership) -> BTreeSet<NodeId> {
    membership.voters().into_iter().filter(|id| membership.witness() != Some(*id)).collect()
}

/// The failure of a full node that finds a stub: only a witness writes stubs.
fn stub_found(index: Index) -> Failure {
    Failure::Storage(StorageError::new(format!(
        "the log has only a stub of entry {index}, so it belongs to a witness; start this node as the witness, or on a data \
         directory of its own"
    )))
}

impl Group {
    fn applying(&self, began: Instant) -> Option<Applying> {
        self.way.map(|way| Applying::new(&self.callers, way, began))
    }

    fn with_indexes(self) -> impl Iterator<Item = (Index, Caller)> {
        let first = self.callers.first;
        self.callers.callers.into_iter().enumerate().map(move |(offset, caller)| (first.plus(offset as u64), caller))
    }
}

/// To itself, once its mailbox is empty: report to `Consensus`. One hop between threads covers all
/// batches until then.
#[derive(Message)]
#[rtype(result = "()")]
struct Tell;

impl<M> Drop for Applier<M> {
    fn drop(&mut self) {
        self.views.end();
    }
}

impl<M: StateMachine> Actor for Applier<M> {
    type Context = Context<Self>;
}

impl<M: StateMachine> Handler<Committed> for Applier<M> {
    type Result = ();

    fn handle(&mut self, committed: Committed, ctx: &mut Self::Context) {
        self.load.took(ActorName::Applier);
        if !self.lifecycle.is_running() {
            return;
        }
        self.apply(committed);
        if !self.lifecycle.is_running() {
            return;
        }
        self.flush();
        self.serve_waiting();
        self.tell_later(ctx);
    }
}

impl<M: StateMachine> Handler<TakeState> for Applier<M> {
    type Result = ();

    fn handle(&mut self, _: TakeState, _: &mut Self::Context) {
        self.load.took(ActorName::Applier);
        if self.lifecycle.is_running() {
            let (last, last_checksum) = (self.last, self.last_checksum);
            let sessions = &self.sessions;
            let write = match &self.machine {
                None if self.halted.is_some() => Some(no_state()),
                Some(machine) => machine.snapshot().map(|write| state::behind(sessions.clone(), write)),
                None => Some(state::nothing()),
            };
            self.state_taken.do_send(StateTaken { last, last_checksum, write });
        }
    }
}

impl<M: StateMachine> Handler<Restore> for Applier<M> {
    type Result = ();

    fn handle(&mut self, Restore { source, done }: Restore, ctx: &mut Self::Context) {
        self.load.took(ActorName::Applier);
        if !self.lifecycle.is_running() {
            return;
        }
        if self.halted.is_some() {
            let ends = source.snapshot().base.last;
            return self.events.tell(What::SnapshotPostponed { last: ends });
        }
        let restored = self.restore(source, done.is_none());
        match (done, restored) {
            // The receiver of the result also decides what an error means.
            (Some(done), restored) => {
                if self.uses_time {
                    self.tell_later(ctx);
                }
                // A start that was given up waits for no result.
                let _ = done.send(restored.map(|()| self.sessions.skipped().clone()));
            }
            (None, Ok(())) => {
                self.serve_waiting();
                self.tell_later(ctx);
            }
            (None, Err(error)) => self.lifecycle.fail(Failure::Restore(error)),
        }
    }
}

impl<M: StateMachine> Handler<Tell> for Applier<M> {
    type Result = ();

    fn handle(&mut self, _: Tell, _: &mut Self::Context) {
        self.telling = false;
        self.is_slow = false;
        self.metrics.sessions(self.sessions.len() as u64);
        self.metrics.sessions_expired(self.sessions.take_expired());
        let Timers { pending, fired } = self.machine.as_mut().map(|machine| machine.timers()).unwrap_or_default();
        self.metrics.timers_pending(pending);
        self.metrics.timers_fired(fired);
        self.tell();
    }
}

impl<M: StateMachine> Handler<Query<M>> for Applier<M> {
    type Result = ();

    fn handle(&mut self, Query { index, until, wants_view, run }: Query<M>, ctx: &mut Self::Context) {
        self.load.took(ActorName::Applier);
        if !self.lifecycle.is_running() {
            return; // dropping the query tells the caller that the node has ended
        }
        if let Some(halted) = &self.halted {
            run(Err(Unreadable::Halted(halted.entry.index)), self.last.index);
        } else if index <= self.last.index {
            run(self.machine.as_deref().ok_or(Unreadable::Late), self.last.index);
            if wants_view {
                self.publish_view();
            }
        } else {
            if wants_view {
                self.views.is_wanted();
            }
            let until = until.unwrap_or_else(|| Instant::now() + self.patience);
            self.waiting.entry(index).or_default().push(Waiting { until, run });
            self.give_up_later(ctx);
        }
    }
}

impl<M: StateMachine> Handler<Probe> for Applier<M> {
    type Result = ();

    fn handle(&mut self, probe: Probe, _: &mut Self::Context) {
        probe.arrived();
    }
}

impl<M: StateMachine> Handler<Stop> for Applier<M> {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
