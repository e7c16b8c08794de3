//! One peer's replicator: [`Replication`] with a queue on either side, and a check that answers of
//! earlier epochs have no effect.

use super::{
    fixtures,
    node::{Actor, Ask, Context, Running, Tell},
};
use quorate_raft::{
    Checksum, Index, NodeId, Outgoing, ProgressState, Replication, ReplicationOutput, ReplicationStart,
    SnapshotTransfer,
};

/// The parts of a replication that an answer may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Position {
    epoch: u64,
    matched: Index,
    next: Index,
    state: ProgressState,
    /// Bytes of a snapshot.
    received: Option<u64>,
}

impl Position {
    fn of(replication: &Replication) -> Self {
        let progress = replication.progress();
        let (epoch, matched, next) = (progress.epoch(), progress.matched(), progress.next());
        let received = replication.transfer().map(SnapshotTransfer::received_bytes);
        Self { epoch, matched, next, state: progress.state(), received }
    }

    /// An answer of an epoch other than the present one moves nothing.
    fn allows(self, after: Self, answer: u64, peer: NodeId) -> Result<(), String> {
        if answer == self.epoch || after == self {
            return Ok(());
        }
        Err(format!("epochs: an answer of {peer} to epoch {answer} turned {self:?} into {after:?}"))
    }
}

/// The epoch that an answer names.
fn epoch_of(ask: &Ask) -> Option<u64> {
    match ask {
        Ask::Acknowledged { epoch, .. } | Ask::Rejected { epoch, .. } | Ask::Needs { epoch, .. } => Some(*epoch),
        Ask::Answered(reply) => Some(reply.epoch),
        _ => None,
    }
}

impl Running {
    /// A replicator handles the next thing that it was asked.
    pub(super) fn replicate(&mut self, context: &mut Context<'_>, peer: NodeId, ask: Ask) {
        let mut out = std::mem::take(&mut context.outputs);
        match ask {
            Ask::Start { term, epoch, log_last, commit, round, outlines } => {
                let (credit, transfer) = (self.rules.credit, self.rules.transfer);
                let stub_checksum = outlines.then_some(fixtures::crc as Checksum);
                let start = ReplicationStart { term, epoch, log_last, commit, round, stub_checksum, credit, transfer };
                let mut replication = Replication::new(context.now, start);
                if self.rules.explores {
                    replication.tick(context.now, &mut out);
                }
                // Reads that wait for the round may need this peer.
                if !self.rules.explores || round > 0 {
                    replication.heartbeat(&mut out);
                }
                self.replicators.insert(peer, replication);
            }
            Ask::Stop => {
                self.replicators.remove(&peer);
            }
            ask => {
                if let Some(replication) = self.replicators.get_mut(&peer) {
                    let (epoch, before) = (epoch_of(&ask), Position::of(replication));
                    handle(replication, context, ask, &mut out);
                    let allowed = epoch.map_or(Ok(()), |epoch| before.allows(Position::of(replication), epoch, peer));
                    context.broken = std::mem::replace(&mut context.broken, Ok(())).and(allowed);
                }
            }
        }
        if let Some(replication) = self.replicators.get_mut(&peer) {
            while let Some((offset, length)) = replication.chunk() {
                replication.send_chunk(context.now, offset, vec![0; length].into(), &mut out);
            }
            let term = replication.term();
            for output in out.drain(..) {
                let tell = match output {
                    ReplicationOutput::Send(message) => {
                        context.sent.push(Outgoing { to: peer, message });
                        continue;
                    }
                    ReplicationOutput::Matched(index) => Tell::Matched { term, index },
                    ReplicationOutput::Fetch(want) => Tell::Fetch { term, want },
                    // Snapshots of these disks can be read as long as their node is up.
                    ReplicationOutput::WantSnapshot { at_least, .. } => Tell::WantSnapshot { term, at_least },
                    ReplicationOutput::GiveUpSnapshot => Tell::GivenUp { term },
                    ReplicationOutput::SnapshotRefused | ReplicationOutput::SnapshotInstalled(_) => continue,
                };
                self.tell(Actor::Replicator(peer), tell);
            }
        }
        context.outputs = out;
    }
}

fn handle(it: &mut Replication, context: &Context<'_>, ask: Ask, out: &mut Vec<ReplicationOutput>) {
    let now = context.now;
    match ask {
        Ask::Replicate { previous, batch } => it.appended(now, previous, batch, out),
        Ask::ReplicateTo(index) => it.log_grew(now, index, out),
        Ask::Committed(index) => it.committed(index),
        Ask::Round(round) => it.round_opened(round, out),
        Ask::Beat => {
            it.heartbeat_due(now, out);
            it.tick(now, out);
        }
        Ask::LinkChanged => it.link_changed(now, out),
        Ask::Heard => it.heard(now, out),
        Ask::Acknowledged { epoch, matched } => it.acknowledged(now, epoch, matched, out),
        Ask::Rejected { epoch, previous, next, last } => {
            it.rejected(now, epoch, previous, next, last, out);
        }
        Ask::Found { previous, checksum, batch } => it.fetched(now, previous, checksum, batch, out),
        Ask::Overtaken => it.overtaken(),
        Ask::Gone => it.compacted(now, out),
        Ask::Needs { epoch, from } => it.needs_snapshot(now, epoch, from, out),
        Ask::Offer(snapshot) => {
            it.snapshot_opened(now, &snapshot, out);
        }
        Ask::Answered(reply) => it.snapshot_answered(now, reply, out),
        other => unreachable!("{other:?} for a replicator"),
    }
}
