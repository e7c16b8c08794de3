//! Replication to one peer during one leadership: every decision of a `Replicator`, without its
//! I/O.
//!
//! It joins [`Progress`] (which entries the peer has and may be sent), [`SnapshotTransfer`] (the
//! snapshot that takes the place of compacted entries) and what messages to the peer carry: term,
//! epoch, commit index and read round. A method takes one fact and pushes [`ReplicationOutput`]s,
//! which its caller performs in order.
//!
//! It holds no log and no snapshot bytes, and has no timer. Entries are handed in by
//! [`Replication::appended`] while the peer keeps up, and asked for by [`ReplicationOutput::Fetch`]
//! when it does not. The bytes of a snapshot are pulled: the caller asks for the next
//! [`Replication::chunk`] when its pace allows, reads it, and hands it to
//! [`Replication::send_chunk`].

use crate::{
    batch::Batch,
    entry::Checksum,
    ids::{EntryId, Index, Moment, Term},
    message::{Append, Body, Heartbeat, Message},
    progress::{Credit, NextAppend, Progress, ProgressState, Want},
    snapshot::{Snapshot, SnapshotChunk, SnapshotOutcome, SnapshotReply},
    snapshot_transfer::{SnapshotTransfer, SnapshotTransferSettings},
};
use alloc::vec::Vec;
use bytes::Bytes;

/// Replication to one peer during one leadership.
///
/// **Invariants:** at most one fetch is under way, and nothing but its result is sent meanwhile. At
/// most one snapshot is asked for or sent. A transfer exists only in [`ProgressState::Snapshot`].
#[derive(Clone, Hash, Debug)]
pub struct Replication {
    term: Term,
    stub_checksum: Option<Checksum>,
    progress: Progress,
    commit: Index,
    round: u64,
    is_fetching: bool,
    settings: SnapshotTransferSettings,
    transfer: Option<SnapshotTransfer>,
    /// The peer took nothing for [`SnapshotTransferSettings::patience`]. The transfer sends no more
    /// chunks, but goes on asking the peer; an answer begins another.
    is_given_up: bool,
    /// A snapshot was asked for and has not come yet.
    awaits_snapshot: bool,
    /// The last entry that a snapshot must cover to be of use, as far as the peer said so.
    at_least: Index,
    /// The last snapshot could not be read to its end.
    is_unreadable: bool,
    /// The leader's log is not compacted past the snapshot, for this peer.
    is_pinned: bool,
    /// When the peer was last seen to have more than before.
    progressed_at: Moment,
}

/// The state in which a leader begins to replicate to one peer.
#[derive(Clone, Copy, Debug)]
pub struct ReplicationStart {
    /// The term of the leadership.
    pub term: Term,
    /// The first epoch; above that of any earlier replication to the same peer in this term.
    pub epoch: u64,
    /// The last entry that may be sent; the first probe looks for the peer's log to match up to
    /// there.
    pub log_last: Index,
    /// The leader's commit index.
    pub commit: Index,
    /// The latest read round.
    pub round: u64,
    /// For the witness, which is sent stubs instead of commands: the checksum of log records.
    pub stub_checksum: Option<Checksum>,
    /// Bounds of appends under way.
    pub credit: Credit,
    /// Bounds of a snapshot under way.
    pub transfer: SnapshotTransferSettings,
}

/// An effect, for the caller to perform.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicationOutput {
    /// Send this to the peer.
    Send(Message),
    /// Tell the replica: the peer's durable log matches up to here. Lower than before if the peer's
    /// log went back.
    Matched(Index),
    /// Look these entries up. The result goes to [`Replication::fetched`],
    /// [`Replication::overtaken`] or [`Replication::compacted`]; no other fetch is asked for until
    /// then.
    Fetch(Want),
    /// Find a snapshot, and keep the log from its end on. It goes to
    /// [`Replication::snapshot_opened`], once there is one.
    WantSnapshot {
        /// The last entry that it must cover.
        at_least: Index,
        /// The one that was sent could not be read: another must be taken.
        anew: bool,
    },
    /// Close the snapshot and keep the log for this peer no longer.
    GiveUpSnapshot,
    /// The peer refused the snapshot, and is asked again later. To be reported.
    SnapshotRefused,
    /// The peer installed a snapshot that ends at this index: the caller can close its own.
    SnapshotInstalled(Index),
}

impl Replication {
    /// Replication that has sent nothing yet.
    #[must_use]
    pub fn new(now: Moment, start: ReplicationStart) -> Self {
        let ReplicationStart { term, epoch, log_last, commit, round, stub_checksum, credit, transfer: settings } =
            start;
        Self {
            term,
            stub_checksum,
            progress: Progress::new(now, log_last, credit).in_epoch(epoch),
            commit,
            round,
            is_fetching: false,
            settings,
            transfer: None,
            is_given_up: false,
            awaits_snapshot: false,
            at_least: Index(0),
            is_unreadable: false,
            is_pinned: false,
            progressed_at: now,
        }
    }

    /// The term of the leadership.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The peer's log, as far as it is known, and the appends under way.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The snapshot under way.
    #[must_use]
    pub fn transfer(&self) -> Option<&SnapshotTransfer> {
        self.transfer.as_ref()
    }

    /// A heartbeat leaves now, whatever the time.
    pub fn heartbeat(&self, out: &mut Vec<ReplicationOutput>) {
        // A heartbeat checks no log, so it may commit only entries that the peer is known to share.
        let heartbeat = Heartbeat { round: self.round, commit: self.commit.min(self.progress.matched()) };
        self.send(Body::Heartbeat(heartbeat), out);
    }

    /// A read round was opened, and needs a heartbeat at once.
    pub fn round_opened(&mut self, round: u64, out: &mut Vec<ReplicationOutput>) {
        self.round = round;
        self.heartbeat(out);
    }

    /// The heartbeat interval has passed. Appends that were under way for too long count as lost.
    pub fn heartbeat_due(&mut self, now: Moment, out: &mut Vec<ReplicationOutput>) {
        self.heartbeat(out);
        self.progress.tick(now);
    }

    /// Time has passed. Sends or asks for whatever is due.
    pub fn tick(&mut self, now: Moment, out: &mut Vec<ReplicationOutput>) {
        self.give_up_if_idle(now, out);
        self.pump(now, out);
    }

    /// The leader appended a batch, which follows `previous`.
    pub fn appended(&mut self, now: Moment, previous: EntryId, batch: Batch, out: &mut Vec<ReplicationOutput>) {
        self.progress.log_grew(batch.last());
        if !self.is_fetching {
            let checksum = Some(batch.previous_checksum());
            self.offer(now, previous, checksum, Some(batch), out);
        }
        self.pump(now, out);
    }

    /// Entries up to `last` may be sent.
    pub fn log_grew(&mut self, now: Moment, last: Index, out: &mut Vec<ReplicationOutput>) {
        self.progress.log_grew(last);
        self.pump(now, out);
    }

    /// The leader's commit index; messages carry it from now on.
    pub fn committed(&mut self, commit: Index) {
        self.commit = commit;
    }

    /// A fetch found entries, or none where only a probe was wanted. `checksum` is that of the
    /// record of `previous`, if it is at hand.
    pub fn fetched(
        &mut self,
        now: Moment,
        previous: EntryId,
        checksum: Option<u32>,
        batch: Option<Batch>,
        out: &mut Vec<ReplicationOutput>,
    ) {
        self.is_fetching = false;
        self.offer(now, previous, checksum, batch, out);
        self.pump(now, out);
    }

    /// A fetch found the log changed meanwhile. The next tick asks again: asking at once might
    /// never end.
    pub fn overtaken(&mut self) {
        self.is_fetching = false;
    }

    /// A fetch found its entries compacted away.
    pub fn compacted(&mut self, now: Moment, out: &mut Vec<ReplicationOutput>) {
        self.is_fetching = false;
        self.progress.compacted();
        self.pump(now, out);
    }

    /// The peer acknowledged an append of this epoch.
    pub fn acknowledged(&mut self, now: Moment, epoch: u64, matched: Index, out: &mut Vec<ReplicationOutput>) {
        let moved = self.progress.acknowledged(now, epoch, matched);
        self.matched(now, moved, out);
        self.pump(now, out);
    }

    /// The peer rejected an append of this epoch; see [`Progress::rejected`]. Whether probing began
    /// anew for it: of the appends that were on their way, the first rejection alone counts.
    pub fn rejected(
        &mut self,
        now: Moment,
        epoch: u64,
        previous: Index,
        next: Index,
        last: Index,
        out: &mut Vec<ReplicationOutput>,
    ) -> bool {
        let before = self.progress.epoch();
        let moved = self.progress.rejected(now, epoch, previous, next, last);
        let (is_new_epoch, is_snapshot) =
            (self.progress.epoch() > before, self.progress.state() == ProgressState::Snapshot);
        if is_new_epoch
            && is_snapshot
            && let Some(transfer) = &mut self.transfer
        {
            // The peer takes chunks of the new epoch only.
            transfer.link_changed(now);
        }
        self.matched(now, moved, out);
        self.pump(now, out);
        is_new_epoch && !is_snapshot
    }

    /// The peer answered a heartbeat.
    pub fn heard(&mut self, now: Moment, out: &mut Vec<ReplicationOutput>) {
        if self.progress.heard(now) {
            if let Some(transfer) = &mut self.transfer {
                transfer.heard(now);
            }
            self.pump(now, out);
        }
    }

    /// The link to the peer was lost, or is new: messages under way may be lost.
    pub fn link_changed(&mut self, now: Moment, out: &mut Vec<ReplicationOutput>) {
        self.progress.link_changed(now);
        if let Some(transfer) = &mut self.transfer {
            transfer.link_changed(now);
        }
        self.pump(now, out);
    }

    /// The peer said, in answer to an append of this epoch, that it needs a snapshot that covers
    /// `at_least`.
    pub fn needs_snapshot(&mut self, now: Moment, epoch: u64, at_least: Index, out: &mut Vec<ReplicationOutput>) {
        if self.progress.needs_snapshot(epoch) {
            self.at_least = self.at_least.max(at_least);
            self.pump(now, out);
        }
    }

    /// A snapshot that was asked for is there, and the log is kept from its end on. Says whether it
    /// is sent: if not, it can be closed.
    pub fn snapshot_opened(&mut self, now: Moment, snapshot: &Snapshot, out: &mut Vec<ReplicationOutput>) -> bool {
        (self.awaits_snapshot, self.is_pinned, self.progressed_at) = (false, true, now);
        let is_wanted = self.progress.state() == ProgressState::Snapshot && self.transfer.is_none();
        if is_wanted {
            let snapshot = match self.stub_checksum {
                // The witness keeps none of the state.
                Some(checksum) => Snapshot { base: snapshot.base.clone(), bytes: 0, checksum: checksum(0, &[]) },
                None => snapshot.clone(),
            };
            self.transfer = Some(SnapshotTransfer::new(now, snapshot, self.settings));
        }
        self.pump(now, out);
        is_wanted
    }

    /// The snapshot under way can't be read to its end. The next tick asks for another.
    pub fn snapshot_unreadable(&mut self) {
        self.is_unreadable |= self.transfer.take().is_some();
        self.is_given_up = false;
    }

    /// The peer answered a chunk, or was asked and said how much it has.
    pub fn snapshot_answered(&mut self, now: Moment, reply: SnapshotReply, out: &mut Vec<ReplicationOutput>) {
        if reply.epoch != self.progress.epoch() || self.progress.state() != ProgressState::Snapshot {
            return;
        }
        if let SnapshotOutcome::Installed { index } = reply.outcome {
            (self.transfer, self.is_given_up) = (None, false);
            (self.awaits_snapshot, self.progressed_at) = (false, now);
            self.progress.installed(now, index);
            out.push(ReplicationOutput::SnapshotInstalled(index));
            return self.pump(now, out);
        }
        let Some(transfer) = self.transfer.as_mut().filter(|it| it.snapshot().base.last == reply.last) else { return };
        match reply.outcome {
            // The log may have been compacted since, so that this snapshot is of no use any more.
            _ if self.is_given_up => (self.transfer, self.is_given_up) = (None, false),
            SnapshotOutcome::Refused => {
                transfer.refused(now);
                out.push(ReplicationOutput::SnapshotRefused);
            }
            SnapshotOutcome::Received { bytes } => {
                if bytes > transfer.received_bytes() {
                    self.progressed_at = now;
                }
                transfer.received(now, bytes);
            }
            SnapshotOutcome::Installed { .. } => {}
        }
        self.pump(now, out);
    }

    /// The next chunk that may be read and sent, as its offset and length. `None` while nothing
    /// more may be under way.
    #[must_use]
    pub fn chunk(&self) -> Option<(u64, usize)> {
        self.transfer.as_ref().filter(|_| !self.is_given_up)?.want()
    }

    /// The bytes of the next chunk, which begins at `offset`, were read. Others are ignored.
    pub fn send_chunk(&mut self, now: Moment, offset: u64, bytes: Bytes, out: &mut Vec<ReplicationOutput>) {
        if let Some(transfer) = &mut self.transfer
            && transfer.sent(now, offset, bytes.len())
        {
            let chunk = chunk_of(self.progress.epoch(), transfer, offset, bytes);
            self.send(chunk, out);
        }
    }

    /// Sends these entries if they are what comes next.
    fn offer(
        &mut self,
        now: Moment,
        previous: EntryId,
        previous_checksum: Option<u32>,
        batch: Option<Batch>,
        out: &mut Vec<ReplicationOutput>,
    ) {
        let batch = match self.stub_checksum {
            Some(checksum) => batch.map(|batch| batch.to_stubs(checksum)),
            None => batch,
        };
        if let Some(NextAppend { epoch, previous, batch }) = self.progress.send(now, previous, batch) {
            let append = Append { epoch, previous, previous_checksum, commit: self.commit, batch };
            self.send(Body::Append(append), out);
        }
    }

    /// Asks for what comes next: entries, a snapshot, or how much of a snapshot has arrived.
    fn pump(&mut self, now: Moment, out: &mut Vec<ReplicationOutput>) {
        if self.progress.state() != ProgressState::Snapshot {
            if let Some(want) = self.progress.want().filter(|_| !self.is_fetching) {
                self.is_fetching = true;
                out.push(ReplicationOutput::Fetch(want));
            }
            return;
        }
        if let Some(transfer) = &mut self.transfer {
            if transfer.tick(now) {
                let asks = chunk_of(self.progress.epoch(), transfer, transfer.received_bytes(), Bytes::new());
                self.send(asks, out);
            }
        } else if !self.awaits_snapshot {
            self.awaits_snapshot = true;
            let anew = core::mem::take(&mut self.is_unreadable);
            out.push(ReplicationOutput::WantSnapshot { at_least: self.at_least, anew });
        }
    }

    fn give_up_if_idle(&mut self, now: Moment, out: &mut Vec<ReplicationOutput>) {
        if self.is_pinned && now.since(self.progressed_at) >= self.settings.patience {
            self.is_pinned = false;
            self.is_given_up = self.transfer.is_some();
            out.push(ReplicationOutput::GiveUpSnapshot);
        }
    }

    fn matched(&mut self, now: Moment, moved: Option<Index>, out: &mut Vec<ReplicationOutput>) {
        if let Some(index) = moved {
            self.progressed_at = now;
            out.push(ReplicationOutput::Matched(index));
        }
    }

    fn send(&self, body: Body, out: &mut Vec<ReplicationOutput>) {
        out.push(ReplicationOutput::Send(Message { term: self.term, body }));
    }
}

fn chunk_of(epoch: u64, transfer: &SnapshotTransfer, offset: u64, bytes: Bytes) -> Body {
    Body::SnapshotChunk(SnapshotChunk { epoch, snapshot: transfer.snapshot().clone().into(), offset, bytes })
}
