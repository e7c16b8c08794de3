//! Consensus' part in snapshots: when one is taken, who gets it, and that the state machine follows one that arrived.
//!
//! It writes and reads none: the state machine's view is written on a thread that may block, a [`Replicator`] sends, and the
//! [`SnapshotReceiver`] takes in. What a snapshot does to the log is the rules' business.
//!
//! [`Replicator`]: crate::actors::replicator::Replicator
//! [`SnapshotReceiver`]: crate::actors::snapshot_receiver::SnapshotReceiver

use super::Consensus;
use crate::{
    actors::{
        blocking::Blocking,
        messages::{
            Committed, GivenUp, PieceArrived, Restore, SnapshotArrived, SnapshotCaller, SnapshotOpened,
            SnapshotProgress, SnapshotWanted, SourceCaller, StateTaken, Stop, TakeState,
        },
        snapshot_receiver::SnapshotReceiver,
        state,
    },
    config::Snapshots,
    error::{Failure, SnapshotError},
};
use actix::prelude::*;
use quorate_metrics::SnapshotPhase;
use quorate_raft::{Body, Index, NodeId, Snapshot, SnapshotBase, SnapshotChunk, Term};
use quorate_storage::{OpenSnapshot, SaveSnapshot, SnapshotSink};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// What waits for a snapshot, and what of one is under way.
pub(crate) struct Snapshotting {
    config: Snapshots,
    take_state: Recipient<TakeState>,
    restore: Recipient<Restore>,
    applier: Recipient<Committed>,
    receiver: Addr<SnapshotReceiver>,
    pub(super) blocking: Blocking,
    /// Bytes of entries that went to the state machine since the last snapshot was begun.
    bytes: u64,
    build: Option<Build>,
    /// Callers whose snapshot is not begun yet.
    callers: Vec<SnapshotCaller>,
    /// Callers whose snapshot is durable, and the write that cuts the log behind it.
    cutting: Vec<(u64, Index, Vec<SnapshotCaller>)>,
    /// The last write that cuts the log.
    last_cut: u64,
    /// The highest write that is durable.
    durable: u64,
    /// Peers for which no snapshot reaches far enough yet.
    needs: BTreeMap<NodeId, Need>,
    /// The state machine makes none.
    unsupported: bool,
    /// So many builds in a row failed, and until when none is tried again.
    failures: u32,
    not_before: Option<Instant>,
    /// An arrived snapshot on its way to the state machine, and what was committed behind it meanwhile.
    restoring: Option<Restoring>,
}

/// A snapshot that is being taken and written.
struct Build {
    began: Instant,
    /// What [`Snapshotting::bytes`] were when it began: they count again if it fails.
    bytes: u64,
    callers: Vec<SnapshotCaller>,
    /// Also if nothing was applied since the last one: that can't be read.
    anew: bool,
}

#[derive(Clone, Copy)]
struct Need {
    term: Term,
    at_least: Index,
    /// The newest one reaches, and can't be read.
    anew: bool,
}

struct Restoring {
    index: Index,
    is_open: bool,
    held: Vec<Committed>,
}

/// The pause after a build failed; it doubles with every further one.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl Snapshotting {
    pub(crate) fn new(
        config: Snapshots,
        (take_state, restore, applier): (Recipient<TakeState>, Recipient<Restore>, Recipient<Committed>),
        receiver: Addr<SnapshotReceiver>,
        blocking: Blocking,
    ) -> Self {
        Self {
            config,
            take_state,
            restore,
            applier,
            receiver,
            blocking,
            bytes: 0,
            build: None,
            callers: Vec::new(),
            cutting: Vec::new(),
            last_cut: 0,
            durable: 0,
            needs: BTreeMap::new(),
            unsupported: false,
            failures: 0,
            not_before: None,
            restoring: None,
        }
    }

    /// How fast they may be sent.
    pub(super) fn bytes_per_second(&self) -> u64 {
        self.config.bytes_per_second
    }

    /// This write cuts the log.
    pub(super) fn cuts(&mut self, sequence: u64) {
        self.last_cut = sequence;
    }

    /// Everything up to this write is durable.
    pub(super) fn persisted(&mut self, sequence: u64) {
        self.durable = sequence;
        for (_, index, callers) in self.cutting.extract_if(.., |(cut, ..)| *cut <= sequence) {
            callers.into_iter().for_each(|caller| caller.tell(Ok(index)));
        }
    }

    /// Nothing more will come of those that wait.
    pub(super) fn stop(&mut self) {
        self.receiver.do_send(Stop);
    }

    fn wants_one(&self, applied: Index, newest: Index) -> bool {
        let Snapshots { every_entries, every_bytes, .. } = self.config;
        let grown = applied.since(newest);
        let by_size =
            grown > 0 && (every_entries > 0 && grown >= every_entries || every_bytes > 0 && self.bytes >= every_bytes);
        let reaches = |need: &Need| need.anew || (newest < need.at_least && need.at_least <= applied);
        let may_retry = self.not_before.is_none_or(|at| at <= Instant::now());
        !self.callers.is_empty() || ((by_size || self.needs.values().any(reaches)) && may_retry)
    }
}

impl Consensus {
    /// A caller wants one.
    pub(super) fn take_snapshot(&mut self, caller: SnapshotCaller) {
        if self.stopping.is_stopping() {
            caller.tell(Err(SnapshotError::Stopped));
        } else if self.replica.membership_at(self.replica.applied_index()).is_empty() {
            let why = "this node has not joined a cluster yet; wait until it is listed among the members";
            caller.tell(Err(SnapshotError::Failed(why.into())));
        } else {
            self.snapshots.callers.push(caller);
        }
    }

    /// A caller wants to read the newest one.
    pub(super) fn open_newest(&mut self, SourceCaller { answer }: SourceCaller, ctx: &mut Context<Self>) {
        let opening = self.roles.storage.open_snapshot.send(OpenSnapshot).into_actor(self);
        ctx.spawn(opening.map(move |source, _, _| {
            // If the storage has died the node has, and dropping the answer says so. Whoever asked may have lost patience.
            if let Ok(source) = source {
                drop(answer.send(source));
            }
        }));
    }

    /// Begins to take a snapshot, if one is due. What becomes due during a build is looked at again behind it.
    pub(super) fn take_snapshot_if_due(&mut self) {
        let snapshots = &mut self.snapshots;
        // A snapshot says who the members are: who joined hears that from an entry behind those that it applies first.
        let knows_members = !self.replica.membership_at(self.replica.applied_index()).is_empty();
        if snapshots.build.is_some() || snapshots.restoring.is_some() || !knows_members {
            return;
        }
        if !snapshots.wants_one(self.replica.applied_index(), self.replica.snapshot_index()) {
            return;
        }
        let callers = std::mem::take(&mut snapshots.callers);
        if snapshots.unsupported {
            snapshots.needs.clear();
            return callers.into_iter().for_each(|caller| caller.tell(Err(SnapshotError::Unsupported)));
        }
        let anew = snapshots.needs.values().any(|need| need.anew);
        let bytes = std::mem::take(&mut snapshots.bytes);
        snapshots.build = Some(Build { began: Instant::now(), bytes, callers, anew });
        // Behind everything that was committed so far, in the mailbox too.
        snapshots.take_state.do_send(TakeState);
    }

    /// The state machine gave a view of its state: it is to be written.
    pub(super) fn state_taken(&mut self, taken: StateTaken, ctx: &mut Context<Self>) {
        let StateTaken { last, last_checksum, write } = taken;
        let Some(build) = &self.snapshots.build else { return };
        let Some(write) = write else {
            tracing::info!("the state machine makes no snapshots: the log is kept in full");
            self.snapshots.unsupported = true;
            return self.build_ended(Err(SnapshotError::Unsupported), ctx);
        };
        let newest = self.replica.snapshot_index();
        if last.index < newest || last.index == newest && !build.anew || last.index == Index(0) {
            return self.build_ended(Ok(newest), ctx);
        }
        let save = SaveSnapshot { base: self.replica.base_at(last, last_checksum), expected: None };
        let opening =
            self.roles.storage.save_snapshot.send(save).into_actor(self).map(move |sink, this, ctx| match sink {
                Ok(Ok(sink)) => this.write_state(write, sink, ctx),
                Ok(Err(error)) => this.build_ended(Err(SnapshotError::Failed(error.to_string())), ctx),
                Err(_) => {} // the storage has died, and the node with it
            });
        ctx.spawn(opening);
    }

    fn write_state(&mut self, write: crate::machine::WriteState, sink: Box<dyn SnapshotSink>, ctx: &mut Context<Self>) {
        let fate = self.node.fate.clone();
        let writing = self.snapshots.blocking.run(move || state::write(write, sink, &fate));
        let writing = writing.into_actor(self).map(|written, this, ctx| match written.and_then(|written| written) {
            Ok(snapshot) => this.snapshot_built(&snapshot, ctx),
            Err(error) => this.build_ended(Err(SnapshotError::Failed(error)), ctx),
        });
        ctx.spawn(writing);
    }

    fn snapshot_built(&mut self, snapshot: &Snapshot, ctx: &mut Context<Self>) {
        if !self.node.fate.is_sound() {
            return;
        }
        if let Some(build) = &self.snapshots.build {
            let took = build.began.elapsed();
            self.node.metrics.snapshot_took(SnapshotPhase::Build, took);
            let last = snapshot.base.last;
            tracing::info!(node = %self.replica.id(), "took a snapshot that ends at {last}: {} bytes in {took:?}", snapshot.bytes);
        }
        let now = self.node.clock.now();
        let (base, keep) = (&snapshot.base, self.snapshots.config.keep_entries);
        self.rule(ctx, |replica, out| replica.snapshot_saved(now, base, keep, out));
        self.build_ended(Ok(base.last.index), ctx);
    }

    /// The build is over: tells who waited for it, and lets those go on who need a snapshot.
    fn build_ended(&mut self, outcome: Result<Index, SnapshotError>, ctx: &mut Context<Self>) {
        let snapshots = &mut self.snapshots;
        let Some(Build { bytes, callers, .. }) = snapshots.build.take() else { return };
        match &outcome {
            Ok(index) => {
                (snapshots.failures, snapshots.not_before) = (0, None);
                snapshots.needs.values_mut().for_each(|need| need.anew = false);
                snapshots.cutting.push((snapshots.last_cut, *index, callers));
                if snapshots.durable >= snapshots.last_cut {
                    snapshots.persisted(snapshots.durable);
                }
            }
            Err(error) => {
                if let SnapshotError::Failed(error) = error {
                    tracing::warn!("no snapshot was taken: {error}");
                    self.node.metrics.snapshot_failed(SnapshotPhase::Build);
                }
                snapshots.bytes += bytes;
                let pause = (RETRY_MIN * 2u32.saturating_pow(snapshots.failures.min(16))).min(RETRY_MAX);
                snapshots.failures += 1;
                snapshots.not_before = Some(Instant::now() + pause);
                callers.into_iter().for_each(|caller| caller.tell(Err(error.clone())));
            }
        }
        self.after_rule(ctx);
    }

    /// The newest snapshot, for a peer's replicator; one that reaches far enough is taken first, if there is none.
    pub(super) fn snapshot_wanted(&mut self, wanted: SnapshotWanted, ctx: &mut Context<Self>) {
        let SnapshotWanted { term, peer, at_least, anew } = wanted;
        if term == self.replica.term() && self.replica.is_leader() {
            if self.snapshots.unsupported {
                tracing::warn!(
                    "{peer} needs a snapshot, and the state machine makes none: remove it and add a new member"
                );
            }
            self.snapshots.needs.insert(peer, Need { term, at_least, anew });
            self.after_rule(ctx);
        }
    }

    /// Opens the newest snapshot for whoever it helps.
    pub(super) fn serve_needs(&mut self, ctx: &mut Context<Self>) {
        if self.snapshots.needs.is_empty() || self.snapshots.build.is_some() {
            return;
        }
        let (term, newest) = (self.replica.term(), self.replica.snapshot_index());
        self.snapshots.needs.retain(|_, need| need.term == term);
        let helped = |_: &NodeId, need: &mut Need| newest > Index(0) && need.at_least <= newest && !need.anew;
        let helped: Vec<_> = self.snapshots.needs.extract_if(.., helped).collect();
        for (peer, need) in helped {
            let opening = self.roles.storage.open_snapshot.send(OpenSnapshot).into_actor(self);
            ctx.spawn(opening.map(move |source, this, ctx| {
                let Ok(source) = source else { return };
                if need.term != this.replica.term() || !this.replica.is_leader() {
                    return;
                }
                // The log may have been cut since.
                let at_least = need.at_least.max(this.replica.log().base().index);
                match source {
                    Ok(source) if source.snapshot().base.last.index >= at_least => {
                        this.replica.pin(peer, Some(source.snapshot().base.last.index));
                        this.roles.tell_replicator(peer, SnapshotOpened { source });
                    }
                    Ok(_) => drop(this.snapshots.needs.insert(peer, Need { at_least, anew: true, ..need })),
                    Err(error) => {
                        tracing::warn!("can't read the newest snapshot, taking another: {error}");
                        this.node.metrics.snapshot_failed(SnapshotPhase::Send);
                        this.snapshots.needs.insert(peer, Need { at_least, anew: true, ..need });
                    }
                }
                this.after_rule(ctx);
            }));
        }
    }

    pub(super) fn given_up(&mut self, GivenUp { term, peer }: GivenUp) {
        if term == self.replica.term() {
            self.replica.pin(peer, None);
        }
    }

    /// A piece of a snapshot that this node needs. One at a time: nothing arrives before the last one is restored.
    pub(super) fn piece_arrived(&self, from: NodeId, chunk: SnapshotChunk) {
        if self.snapshots.restoring.is_some() {
            return self.node.metrics.dropped(Some(from.0), "snapshot_busy");
        }
        self.snapshots.receiver.do_send(PieceArrived { term: self.replica.term(), from, chunk });
    }

    pub(super) fn snapshot_progressed(&mut self, SnapshotProgress { to, reply }: SnapshotProgress) {
        self.say(to, Body::SnapshotReply(reply));
    }

    pub(super) fn snapshot_arrived(&mut self, arrived: SnapshotArrived, ctx: &mut Context<Self>) {
        let (now, SnapshotArrived { from, epoch, base }) = (self.node.clock.now(), arrived);
        self.rule(ctx, |replica, out| replica.snapshot_received(now, from, epoch, &base, out));
    }

    /// The state machine must become what the newest snapshot holds. What is committed behind it waits meanwhile.
    pub(super) fn restore(&mut self, base: &SnapshotBase, ctx: &mut Context<Self>) {
        let index = base.last.index;
        let outcomes = self.proposals.covered(index);
        self.answer_forwarded(outcomes);
        self.snapshots.bytes = 0;
        self.snapshots.restoring = Some(Restoring { index, is_open: false, held: Vec::new() });
        let opening = self.roles.storage.open_snapshot.send(OpenSnapshot).into_actor(self);
        ctx.spawn(opening.map(move |source, this, _| match source {
            Ok(Ok(source)) if source.snapshot().base.last.index == index => {
                this.snapshots.restore.do_send(Restore { source, done: None });
                if let Some(restoring) = &mut this.snapshots.restoring {
                    restoring.is_open = true;
                    let held = std::mem::take(&mut restoring.held);
                    held.into_iter().for_each(|committed| this.snapshots.applier.do_send(committed));
                }
            }
            Ok(Ok(other)) => {
                let found = other.snapshot().base.last.index;
                this.node.fate.fail(Failure::Storage(format!(
                    "the newest snapshot ends at entry {found}, not at {index}, which was installed a moment ago; this is a \
                     bug of the storage: report it"
                )));
            }
            Ok(Err(error)) => this.node.fate.fail(Failure::Storage(error.to_string())),
            Err(_) => {} // the storage has died, and the node with it
        }));
    }

    /// Hands entries to the state machine, behind whatever it must become first.
    pub(super) fn apply(&mut self, committed: Committed) {
        self.snapshots.bytes += committed.batch.bytes().len() as u64;
        match &mut self.snapshots.restoring {
            // Few: entries wait here only until the snapshot's file is open.
            Some(restoring) if !restoring.is_open => restoring.held.push(committed),
            _ => self.snapshots.applier.do_send(committed),
        }
    }

    /// The state machine has applied or restored everything up to `index`.
    pub(super) fn restored_up_to(&mut self, index: Index) {
        self.snapshots.restoring.take_if(|restoring| restoring.index <= index);
    }
}
