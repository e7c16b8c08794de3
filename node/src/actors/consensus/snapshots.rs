//! The part of `Consensus` in snapshots: it carries out what the
//! [`SnapshotPolicy`](crate::decisions::snapshot_policy::SnapshotPolicy) decides, opens snapshots for peers,
//! and has the state machine restored from one that arrived.
//!
//! It neither writes nor reads snapshots: a thread that may block writes the state machine's view,
//! a [`Replicator`] sends, and the [`SnapshotReceiver`] receives. The rules decide what a snapshot
//! does to the log.
//!
//! [`Replicator`]: crate::actors::replicator::Replicator
//! [`SnapshotReceiver`]: crate::actors::snapshot_receiver::SnapshotReceiver

use super::{
    Consensus,
    snapshots_under_way::{Build, Restoring},
};
use crate::{
    actors::{
        messages::{
            ChunkArrived, Committed, GivenUp, Restore, SnapshotArrived, SnapshotCaller, SnapshotOpened,
            SnapshotProgress, SnapshotWanted, SourceCaller, StateTaken, TakeState,
        },
        state,
    },
    decisions::snapshot_policy::{Decision, Need, Taken, View},
    error::{Failure, SnapshotError},
    events::{SnapshotStep, What, millis},
};
use actix::prelude::*;
use quorate_metrics::{DropReason, SnapshotPhase};
use quorate_raft::{Body, Index, NodeId, Snapshot, SnapshotBase, SnapshotChunk};
use quorate_storage::{OpenSnapshot, SaveSnapshot, SnapshotSink, SnapshotSource, StorageError};
use tokio::time::Instant;

impl Consensus {
    /// A caller wants a snapshot of what is applied by now.
    pub(super) fn take_snapshot(&mut self, caller: SnapshotCaller) {
        if self.stopping.is_stopping() {
            caller.tell(Err(SnapshotError::Stopped));
        } else if let Some(at) = self.halted_at() {
            caller.tell(Err(SnapshotError::Halted { at }));
        } else if self.replica.membership_at(self.replica.applied_index()).is_empty() {
            let why = "this node has not joined a cluster yet; wait until it is listed among the members";
            caller.tell(Err(SnapshotError::Failed(StorageError::new(why))));
        } else {
            self.snapshots.callers.push(caller);
        }
    }

    /// A caller wants to read the newest snapshot.
    pub(super) fn open_newest(&mut self, SourceCaller { answer }: SourceCaller, ctx: &mut Context<Self>) {
        let opening = self.roles.storage.open_snapshot.send(OpenSnapshot).into_actor(self);
        ctx.spawn(opening.map(move |source, _, _| {
            // A storage that died ends the node: dropping the answer says so. The caller
            // may have left.
            if let Ok(source) = source {
                let _ = answer.send(source);
            }
        }));
    }

    /// Begins to take a snapshot, if one is due. Reasons that come up during a build count
    /// when it ends.
    pub(super) fn take_snapshot_if_due(&mut self) {
        if self.halted.is_some() {
            return;
        }
        let applied = self.replica.applied_index();
        let view = View {
            applied,
            newest: self.replica.snapshot_index(),
            knows_members: !self.replica.membership_at(applied).is_empty(),
            is_restoring: self.snapshots.restoring.is_some(),
            has_callers: !self.snapshots.callers.is_empty(),
        };
        let decision = self.snapshots.policy.decide(|| self.node.clock.now(), &view);
        if decision == Decision::Wait {
            return;
        }
        let callers = std::mem::take(&mut self.snapshots.callers);
        if decision == Decision::Refuse {
            return callers.into_iter().for_each(|caller| caller.tell(Err(SnapshotError::Unsupported)));
        }
        self.snapshots.build = Some(Build { began: Instant::now(), callers });
        // It reaches the state machine after all that was committed before.
        self.snapshots.take_state.do_send(TakeState);
    }

    /// The state machine gave a view of its state: it is to be written.
    pub(super) fn state_taken(&mut self, taken: StateTaken, ctx: &mut Context<Self>) {
        let StateTaken { last, last_checksum, write } = taken;
        let newest = self.replica.snapshot_index();
        let Some(taken) = self.snapshots.policy.state_taken(last.index, newest) else { return };
        let Some(write) = write else {
            self.tell(What::SnapshotsUnsupported { peer: None });
            self.snapshots.policy.unsupported();
            return self.build_ended(Err(SnapshotError::Unsupported), ctx);
        };
        if taken == Taken::Covered {
            return self.build_ended(Ok(newest), ctx);
        }
        let save = SaveSnapshot { base: self.replica.base_at(last, last_checksum), expected: None };
        let opening =
            self.roles.storage.save_snapshot.send(save).into_actor(self).map(move |sink, this, ctx| match sink {
                Ok(Ok(sink)) => this.write_state(write, sink, ctx),
                Ok(Err(error)) => this.build_ended(Err(SnapshotError::Failed(error)), ctx),
                Err(_) => {} // the storage has died, and the node with it
            });
        ctx.spawn(opening);
    }

    fn write_state(&mut self, write: crate::machine::WriteState, sink: Box<dyn SnapshotSink>, ctx: &mut Context<Self>) {
        let lifecycle = self.node.lifecycle.clone();
        let writing = self.snapshots.blocking.run(move || state::write(write, sink, &lifecycle));
        let writing = writing.into_actor(self).map(|written, this, ctx| {
            match written.unwrap_or_else(|panicked| Err(StorageError::new(panicked))) {
                Ok(snapshot) => this.snapshot_built(&snapshot, ctx),
                Err(error) => this.build_ended(Err(SnapshotError::Failed(error)), ctx),
            }
        });
        ctx.spawn(writing);
    }

    fn snapshot_built(&mut self, snapshot: &Snapshot, ctx: &mut Context<Self>) {
        if !self.node.lifecycle.is_running() {
            return;
        }
        if let Some(build) = &self.snapshots.build {
            let took = build.began.elapsed();
            self.node.metrics.snapshot_took(SnapshotPhase::Build, took);
            let (last, bytes) = (snapshot.base.last, snapshot.bytes);
            self.tell(What::SnapshotBuilt { last, bytes, took_ms: millis(took) });
        }
        let now = self.node.clock.now();
        let (base, keep) = (&snapshot.base, self.snapshots.config.keep_entries);
        self.rule(ctx, |replica, out| replica.snapshot_saved(now, base, keep, out));
        self.build_ended(Ok(base.last.index), ctx);
    }

    /// The build is over: answers its callers, and serves the peers that need a snapshot.
    fn build_ended(&mut self, outcome: Result<Index, SnapshotError>, ctx: &mut Context<Self>) {
        let snapshots = &mut self.snapshots;
        let Some(Build { callers, .. }) = snapshots.build.take() else { return };
        match outcome {
            Ok(index) => {
                snapshots.policy.built();
                snapshots.cutting.push((snapshots.last_cut, index, callers));
                if snapshots.durable >= snapshots.last_cut {
                    snapshots.persisted(snapshots.durable);
                }
            }
            Err(error) => {
                if let SnapshotError::Failed(error) = &error {
                    let (step, why) = (SnapshotStep::Build, error.to_string());
                    self.node.events.tell(What::SnapshotFailed { step, last: None, peer: None, why });
                    self.node.metrics.snapshot_failed(SnapshotPhase::Build);
                }
                snapshots.policy.failed(self.node.clock.now());
                callers.into_iter().for_each(|caller| caller.tell(Err(error.clone())));
            }
        }
        self.after_rule(ctx);
    }

    /// A peer's replicator wants the newest snapshot; if that does not reach far enough, another
    /// is taken first.
    pub(super) fn snapshot_wanted(&mut self, wanted: SnapshotWanted, ctx: &mut Context<Self>) {
        let SnapshotWanted { term, peer, at_least, anew } = wanted;
        if term == self.replica.term() && self.replica.is_leader() {
            if self.snapshots.policy.is_unsupported() {
                self.tell(What::SnapshotsUnsupported { peer: Some(peer) });
            }
            let at_least = at_least.max(self.claims.ends_at_least(peer));
            self.snapshots.policy.needed(peer, Need { term, at_least, anew });
            self.after_rule(ctx);
        }
    }

    /// Opens the newest snapshot for each peer that it helps.
    pub(super) fn serve_needs(&mut self, ctx: &mut Context<Self>) {
        let (term, newest) = (self.replica.term(), self.replica.snapshot_index());
        for (peer, need) in self.snapshots.policy.helped(term, newest, || self.replica.peers()) {
            if !self.may_send_snapshot(peer, newest) {
                self.snapshots.policy.needed(peer, need);
                continue;
            }
            let opening = self.roles.storage.open_snapshot.send(OpenSnapshot).into_actor(self);
            ctx.spawn(opening.map(move |source, this, ctx| {
                let Ok(source) = source else { return };
                // The peer may have been removed meanwhile.
                let is_sent = this.replica.is_leader() && this.replica.peers().contains(&peer);
                if need.term == this.replica.term() && is_sent {
                    this.snapshot_opened(peer, need, newest, source);
                    this.after_rule(ctx);
                }
            }));
        }
    }

    fn snapshot_opened(
        &mut self,
        peer: NodeId,
        need: Need,
        newest: Index,
        source: Result<Box<dyn SnapshotSource>, StorageError>,
    ) {
        if let Err(error) = &source {
            let why = format!("the newest one can't be read, and another is taken: {error}");
            self.tell(What::SnapshotFailed { step: SnapshotStep::Send, last: None, peer: Some(peer), why });
            self.node.metrics.snapshot_failed(SnapshotPhase::Send);
        }
        let source = source.ok();
        let found = source.as_ref().map(|source| source.snapshot().base.last.index);
        if found.is_some_and(|found| !self.may_send_snapshot(peer, found)) {
            // A newer one was taken meanwhile.
            return self.snapshots.policy.needed(peer, need);
        }
        let helps = self.snapshots.policy.opened(peer, need, newest, found, self.replica.log().base().index);
        if let Some(source) = source.filter(|_| helps) {
            self.replica.pin(peer, found);
            self.claims.snapshot_sent(peer);
            self.roles.tell_replicator(peer, SnapshotOpened { source });
        }
    }

    pub(super) fn given_up(&mut self, GivenUp { term, peer }: GivenUp) {
        if term == self.replica.term() {
            self.replica.pin(peer, None);
        }
    }

    /// A chunk of a snapshot that this node needs. None is taken before the last
    /// snapshot is restored; a machine that halted restores none.
    pub(super) fn chunk_arrived(&mut self, from: NodeId, chunk: SnapshotChunk) {
        if self.snapshots.restoring.is_some() && self.halted.is_none() {
            return self.dropped(from, DropReason::SnapshotBusy);
        }
        self.noted.chunk_arrived(chunk.snapshot.bytes);
        self.snapshots.receiver.do_send(ChunkArrived { term: self.replica.term(), from, chunk });
    }

    pub(super) fn snapshot_progressed(&mut self, SnapshotProgress { to, reply }: SnapshotProgress) {
        self.noted.chunk_answered(&reply);
        self.say(to, Body::SnapshotReply(reply));
    }

    pub(super) fn snapshot_arrived(&mut self, arrived: SnapshotArrived, ctx: &mut Context<Self>) {
        self.noted.snapshot_arrived();
        let (now, SnapshotArrived { from, epoch, base }) = (self.node.clock.now(), arrived);
        self.rule(ctx, |replica, out| replica.snapshot_received(now, from, epoch, &base, out));
    }

    /// The state machine must take over the state of the newest snapshot. Entries committed after
    /// it wait until its file is open.
    pub(super) fn restore(&mut self, base: &SnapshotBase, ctx: &mut Context<Self>) {
        let index = base.last.index;
        self.decide_commands(ctx, |commands, _, view, out| commands.covered(index, view, out));
        self.snapshots.policy.restoring();
        self.snapshots.restoring = Some(Restoring { index, is_open: false, held: Vec::new() });
        let opening = self.roles.storage.open_snapshot.send(OpenSnapshot).into_actor(self);
        ctx.spawn(opening.map(move |source, this, _| match source {
            Ok(Ok(source)) if source.snapshot().base.last.index == index => {
                this.snapshots.restore.do_send(Restore { source, done: None });
                if let Some(restoring) = &mut this.snapshots.restoring {
                    restoring.is_open = true;
                    let held = std::mem::take(&mut restoring.held);
                    held.into_iter().for_each(|of| this.snapshots.applier.do_send(of));
                }
            }
            Ok(Ok(other)) => {
                let found = other.snapshot().base.last.index;
                this.node.lifecycle.fail(Failure::Storage(StorageError::new(format!(
                    "the newest snapshot ends at entry {found}, not at {index}, which was installed a moment ago; this is a \
                     bug of the storage: report it"
                ))));
            }
            Ok(Err(error)) => this.node.lifecycle.fail(Failure::Storage(error)),
            Err(_) => {} // the storage has died, and the node with it
        }));
    }

    /// Sends committed entries to the state machine, after a snapshot that it must restore first.
    pub(super) fn apply(&mut self, committed: Committed) {
        self.snapshots.policy.applying(committed.batch.bytes().len() as u64);
        match &mut self.snapshots.restoring {
            // Few wait: opening a file takes no longer than a read.
            Some(restoring) if !restoring.is_open => restoring.held.push(committed),
            _ => self.snapshots.applier.do_send(committed),
        }
    }

    /// The state machine has applied or restored everything up to `index`.
    pub(super) fn restored_up_to(&mut self, index: Index) {
        self.snapshots.restoring.take_if(|restoring| restoring.index <= index);
    }
}
