//! One peer's replicator, and how a node's replicators are told what to do.

use super::{
    make,
    node::{Actor, Ask, Context, Running, Tell},
};
use quorate_raft::{
    Append, Batch, Body, EntryId, Heartbeat, Index, Message, Moment, NodeId, Outgoing, Progress, ProgressState,
    SnapshotChunk, SnapshotOutcome, SnapshotReply, Term, Transfer, progress::Send,
};

/// One peer's replicator.
#[derive(Clone, Hash, Debug)]
pub struct Replicator {
    /// What the leader knows of the peer.
    pub progress: Progress,
    term: Term,
    /// Whether the peer keeps no commands.
    outlines: bool,
    commit: Index,
    round: u64,
    fetching: bool,
    /// A snapshot must reach this far to be of use.
    at_least: Index,
    /// The snapshot that it is being sent.
    pub transfer: Option<Transfer>,
}

impl Replicator {
    fn send(&mut self, context: &mut Context<'_>, to: NodeId, previous: EntryId, batch: Option<Batch>) {
        let outlined = |batch: Batch| if self.outlines { batch.outline(make::crc) } else { batch };
        let batch = batch.map(outlined);
        if let Some(send) = self.progress.send(context.now, previous, batch) {
            let Send { epoch, previous, batch } = send;
            let previous_checksum = batch.as_ref().map(Batch::previous_checksum);
            let append = Append { epoch, previous, previous_checksum, commit: self.commit, batch };
            let message = Message { term: self.term, body: Body::Append(append) };
            context.sent.push(Outgoing { to, message });
        }
    }

    /// Sends what fits of a snapshot, or asks how much has arrived.
    fn transfer(&mut self, context: &mut Context<'_>, to: NodeId) {
        let (now, term, epoch) = (context.now, self.term, self.progress.epoch());
        let Some(transfer) = &mut self.transfer else { return };
        let snapshot = transfer.snapshot().clone();
        let mut chunk = |offset: u64, length: usize| {
            let chunk =
                SnapshotChunk { epoch, snapshot: snapshot.clone().into(), offset, bytes: vec![0; length].into() };
            context.sent.push(Outgoing { to, message: Message { term, body: Body::SnapshotChunk(chunk) } });
        };
        if transfer.tick(now) {
            chunk(transfer.received_bytes(), 0);
        }
        while let Some((offset, length)) = transfer.want() {
            assert!(transfer.sent(now, offset, length));
            chunk(offset, length);
        }
    }

    fn answered(&mut self, now: Moment, reply: SnapshotReply) {
        let Some(transfer) = &mut self.transfer else { return };
        if reply.epoch != self.progress.epoch() || reply.last != transfer.snapshot().base.last {
            return;
        }
        match reply.outcome {
            SnapshotOutcome::Received { bytes } => transfer.received(now, bytes),
            // With the next heartbeat it looks for a newer one.
            SnapshotOutcome::Refused => self.transfer = None,
            SnapshotOutcome::Installed { index } => {
                self.transfer = None;
                self.at_least = Index(0);
                self.progress.installed(now, index);
            }
        }
    }

    /// An answer of an epoch other than the present one moves nothing.
    fn is_still(&self, before: Outline, epoch: u64, peer: NodeId) -> Result<(), String> {
        match self.outline() {
            now if now == before => Ok(()),
            now => Err(format!("epochs: an answer of {peer} to epoch {epoch} turned {before:?} into {now:?}")),
        }
    }

    fn outline(&self) -> Outline {
        let progress = &self.progress;
        let (epoch, matched, next) = (progress.epoch(), progress.matched(), progress.next());
        let received = self.transfer.as_ref().map(Transfer::received_bytes);
        Outline { epoch, matched, next, state: progress.state(), received }
    }

    fn beat(&self, context: &mut Context<'_>, to: NodeId) {
        let commit = self.commit.min(self.progress.matched());
        let body = Body::Heartbeat(Heartbeat { round: self.round, commit });
        context.sent.push(Outgoing { to, message: Message { term: self.term, body } });
    }
}

/// What an answer may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Outline {
    epoch: u64,
    matched: Index,
    next: Index,
    state: ProgressState,
    /// So much of a snapshot.
    received: Option<u64>,
}

/// The epoch that an answer names, if this is one.
fn epoch_of(ask: &Ask) -> Option<u64> {
    match ask {
        Ask::Acknowledged { epoch, .. } | Ask::Rejected { epoch, .. } | Ask::Needs { epoch, .. } => Some(*epoch),
        Ask::Answered(reply) => Some(reply.epoch),
        _ => None,
    }
}

impl Running {
    /// A replicator handles what it was asked.
    pub fn replicate(&mut self, context: &mut Context<'_>, peer: NodeId, ask: Ask) {
        let (now, actor) = (context.now, Actor::Replicator(peer));
        if let Ask::Start { term, epoch, log_last, outlines } = ask {
            let progress = Progress::new(now, log_last, self.rules.credit).in_epoch(epoch);
            let (at_least, transfer) = (Index(0), None);
            let (commit, round, fetching) = (Index(0), 0, false);
            let replicator = Replicator { progress, term, outlines, commit, round, fetching, at_least, transfer };
            self.replicators.insert(peer, replicator);
        }
        if let Ask::Stop = ask {
            self.replicators.remove(&peer);
        }
        let Some(this) = self.replicators.get_mut(&peer) else { return };
        let term = this.term;
        let (mut moved, mut looks) = (None, false);
        let (epoch, before) = (epoch_of(&ask), this.outline());
        match ask {
            Ask::Replicate { previous, batch } => {
                this.progress.log_grew(batch.last());
                this.send(context, peer, previous, Some(batch));
            }
            Ask::ReplicateTo(index) => this.progress.log_grew(index),
            Ask::Committed(index) => this.commit = index,
            Ask::Beat { round } => {
                this.round = round.unwrap_or(this.round);
                this.beat(context, peer);
                if round.is_none() {
                    this.progress.tick(now);
                    looks = this.progress.state() == ProgressState::Snapshot && this.transfer.is_none();
                }
            }
            Ask::LinkChanged => {
                this.progress.link_changed(now);
                this.transfer.iter_mut().for_each(|transfer| transfer.link_changed(now));
            }
            Ask::Acknowledged { epoch, matched } => moved = this.progress.acknowledged(now, epoch, matched),
            Ask::Rejected { epoch, previous, next, last } => {
                let before = this.progress.epoch();
                moved = this.progress.rejected(now, epoch, previous, next, last);
                if this.progress.state() == ProgressState::Snapshot && this.progress.epoch() > before {
                    this.transfer.iter_mut().for_each(|transfer| transfer.link_changed(now));
                }
            }
            Ask::Found { previous, batch } => {
                this.fetching = false;
                this.send(context, peer, previous, batch);
            }
            Ask::Gone => {
                this.fetching = false;
                this.progress.compacted();
                looks = true;
            }
            Ask::Needs { epoch, from } if this.progress.needs_snapshot(epoch) => {
                this.at_least = from;
                looks = true;
            }
            Ask::Offer(snapshot) if this.progress.state() == ProgressState::Snapshot => {
                this.transfer = Some(Transfer::new(now, snapshot, self.rules.transfer));
            }
            Ask::Answered(reply) => this.answered(now, reply),
            _ => {}
        }
        if let Some(epoch) = epoch.filter(|epoch| *epoch != before.epoch)
            && let Err(broken) = this.is_still(before, epoch, peer)
        {
            context.broken = Err(broken);
        }
        this.transfer(context, peer);
        if looks {
            let at_least = this.at_least;
            self.tell(actor, Tell::Look { term, at_least });
        }
        let Some(this) = self.replicators.get_mut(&peer) else { return };
        let want = if this.fetching { None } else { this.progress.want() };
        this.fetching |= want.is_some();
        if let Some(index) = moved {
            self.tell(actor, Tell::Matched { term, index });
        }
        if let Some(want) = want {
            self.tell(actor, Tell::Fetch { term, want });
        }
    }
}
