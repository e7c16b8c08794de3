//! How effects are performed: who is told what.

use super::{Consensus, stages::Stages};
use crate::{
    actors::{
        messages::{
            Acknowledged, Arm, CommitAdvanced, Committed, Fetch, Fetched, HeartbeatNow, LeaderHeard, NeedsSnapshot,
            PieceAnswered, Rejected, Replicate, ReplicateTo, Stop, VoteDenied, VoteGranted,
        },
        replicator::{Assignment, Replicator},
        vote_collector::VoteCollector,
    },
    error::Failure,
};
use actix::prelude::*;
use quorate_raft::{
    Body, Credit, Effect, Entries, EntryId, Index, MachineVersions, Message, NodeId, Outgoing, Repair, Term, Violation,
    mutants::{Mutant, live},
};
use quorate_storage::contract::{EntriesRead, Persist, ReadEntries, Remember};
use tokio::time::Instant;

/// For whom entries are being read from the storage.
pub(super) enum LoadFor {
    Applier,
    Peer { peer: NodeId, term: Term, previous: EntryId },
    Repair { to: NodeId, repair: Repair },
}

impl Consensus {
    pub(super) fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        if !self.fate.is_sound() {
            return;
        }
        match effect {
            Effect::Send(outgoing) => self.send(outgoing),
            Effect::Persist(mut persist) => {
                self.status.votes_cast(&persist.then);
                if live(Mutant::ThenLeavesAtOnce) {
                    std::mem::take(&mut persist.then).into_iter().for_each(|outgoing| self.send_persisted(outgoing));
                }
                if persist.cut.is_some() {
                    self.snapshots.cuts(persist.sequence);
                }
                self.storage.persist.do_send(Persist(persist));
            }
            Effect::ArmTimer => self.timer.do_send(Arm { term: self.replica.term() }),
            Effect::LeaderHeard => self.timer.do_send(LeaderHeard { term: self.replica.term() }),
            Effect::OpenBallot(ballot) => {
                self.status.ballot_opened(ballot.phase);
                let sentinel = self.fate.sentinel("VoteCollector");
                self.collector = Some(VoteCollector::new(ballot, ctx.address(), sentinel).start());
            }
            Effect::CountVote { campaign, voter, granted } => self.count_vote(campaign, voter, granted),
            Effect::CloseBallot => {
                self.status.ballot_closed();
                self.collector = None;
            }
            Effect::StartReplicators { .. } => {
                let peers = self.replica.peers();
                self.replicate_to(&peers, ctx);
            }
            Effect::StopReplicators => {
                self.stop_replicators();
                self.stages = Stages::default();
            }
            Effect::Replicate { previous, batch } => {
                let witness = self.replica.witness();
                for (_, replicator) in self.replicators.iter().filter(|(peer, _)| witness != Some(**peer)) {
                    replicator.do_send(Replicate { previous, batch: batch.clone() });
                }
            }
            Effect::ReplicateTo { peer, to } => self.tell_replicator(peer, ReplicateTo { index: to }),
            Effect::Committed(commit) => {
                self.stages.committed(commit, &self.metrics);
                self.tell_replicators(CommitAdvanced { commit });
            }
            Effect::HeartbeatNow { round } => self.tell_replicators(HeartbeatNow { round }),
            Effect::Acknowledged { peer, epoch, matched } => {
                self.tell_replicator(peer, Acknowledged { epoch, matched });
            }
            Effect::Rejected { peer, epoch, previous, next, last } => {
                self.tell_replicator(peer, Rejected { epoch, previous, next, last });
            }
            Effect::Apply(batch) => {
                let callers = self.proposals.committed(&batch);
                self.apply(Committed { batch, callers, at: Instant::now() });
            }
            Effect::Load { from, to } => self.load(LoadFor::Applier, from, to, self.limits.max_batch_bytes * 4),
            Effect::ReadsReady { index, tokens } => {
                for (asked, callers) in self.reads.answered_here(tokens) {
                    self.index_known(asked, index, callers);
                }
            }
            Effect::ReadsFailed { tokens } => {
                let there = self.reads.failed(tokens);
                self.refuse_reads(there);
            }
            Effect::MembersChanged => self.members_changed(ctx),
            // What waited for it is proposed once the effects beside this one are performed.
            Effect::HandoverEnded { to } => self.ended_transfer = Some(to),
            Effect::Removed { at } => self.removed(at),
            Effect::MachineUnknown { candidate, version } => self.machine_unknown(candidate, version),
            Effect::Refused { from, reason } => self.metrics.dropped(Some(from.0), reason),
            Effect::Restore(base) => self.restore(&base, ctx),
            Effect::SnapshotChunk { from, chunk } => self.piece_arrived(from, chunk),
            Effect::SnapshotAnswered { peer, reply } => self.tell_replicator(peer, PieceAnswered { reply }),
            Effect::NeedsSnapshot { peer, epoch, from } => {
                self.tell_replicator(peer, NeedsSnapshot { epoch, at_least: from });
            }
            Effect::ServeRepair { to, repair } => self.serve_repair(to, repair),
            Effect::Remember { members } => self.storage.remember.do_send(Remember { members }),
            Effect::DataLost { member, last, held, is_last_copy } => self.data_lost(member, last, held, is_last_copy),
            Effect::Diverged { at, with } => self.diverged(at, with),
            Effect::Halt(violation @ (Violation::DataLost { .. } | Violation::RolledBack { .. })) => {
                self.fate.fail(Failure::DataLost(violation.to_string()));
            }
            Effect::Halt(violation) => self.fate.fail(Failure::Violation(violation.to_string())),
        }
    }

    /// Counts every vote that was not given, and says why once a candidate and version.
    fn machine_unknown(&mut self, candidate: NodeId, version: u32) {
        self.metrics.dropped(Some(candidate.0), "machine_version");
        if self.machines_unknown.insert(candidate, version) != Some(version) {
            let MachineVersions { oldest, newest, .. } = self.replica.machine();
            tracing::warn!(
                node = %self.replica.id(),
                "no vote for {candidate}: its state machine writes version {version}, the one here applies {oldest} to {newest}; run a \
                 release here that applies it"
            );
        }
    }

    pub(super) fn send(&mut self, outgoing: Outgoing) {
        self.status.votes_cast(std::slice::from_ref(&outgoing));
        self.send_uncounted(outgoing);
    }

    fn send_uncounted(&mut self, Outgoing { to, message }: Outgoing) {
        if self.fate.is_sound() {
            self.peers.get(to).send(message);
        }
    }

    /// What waited for durability leaves. Votes in it were counted when they were handed to the storage.
    pub(super) fn send_persisted(&mut self, outgoing: Outgoing) {
        self.send_uncounted(outgoing);
    }

    pub(super) fn say(&mut self, to: NodeId, body: Body) {
        self.send(Outgoing { to, message: Message { term: self.replica.term(), body } });
    }

    pub(super) fn count_vote(&mut self, campaign: u64, voter: NodeId, granted: bool) {
        if voter != self.replica.id() {
            self.status.vote_received(granted);
        }
        if let Some(collector) = &self.collector {
            if granted {
                collector.do_send(VoteGranted { campaign, voter });
            } else {
                collector.do_send(VoteDenied { campaign, voter });
            }
        }
    }

    /// From now on there is a replicator for each of these, and for nobody else.
    pub(super) fn replicate_to(&mut self, peers: &[NodeId], ctx: &mut Context<Self>) {
        for (_, replicator) in self.replicators.extract_if(.., |peer, _| !peers.contains(peer)) {
            replicator.do_send(Stop);
        }
        for peer in peers.iter().copied() {
            if self.replicators.contains_key(&peer) {
                continue;
            }
            let replicator = Replicator::new(Assignment {
                peer,
                outlines: self.replica.witness() == Some(peer),
                term: self.replica.term(),
                epoch: self.replica.first_epoch(),
                log_last: self.replica.goes_to(peer),
                commit: self.replica.commit(),
                round: self.replica.read_round(),
                link: self.peers.get(peer),
                consensus: ctx.address(),
                clock: self.clock,
                heartbeat_interval: self.timing.heartbeat_interval,
                credit: Credit { retry_after: self.timing.heartbeat_interval * 4, ..Credit::default() },
                bytes_per_second: self.snapshots.bytes_per_second(),
                blocking: self.snapshots.blocking.clone(),
                metrics: self.metrics.clone(),
                fate: self.fate.clone(),
            });
            self.replicators.insert(peer, replicator.start());
        }
    }

    pub(super) fn stop_replicators(&mut self) {
        for replicator in std::mem::take(&mut self.replicators).into_values() {
            replicator.do_send(Stop);
        }
    }

    pub(super) fn tell_replicator<T>(&self, peer: NodeId, message: T)
    where
        T: actix::Message<Result = ()> + Send + 'static,
        Replicator: Handler<T>,
    {
        if let Some(replicator) = self.replicators.get(&peer) {
            replicator.do_send(message);
        }
    }

    pub(super) fn tell_replicators<T>(&self, message: T)
    where
        T: actix::Message<Result = ()> + Send + Copy + 'static,
        Replicator: Handler<T>,
    {
        for replicator in self.replicators.values() {
            replicator.do_send(message);
        }
    }

    pub(super) fn load(&mut self, whom: LoadFor, from: Index, to: Index, bytes_max: usize) {
        self.next_load += 1;
        self.loads.insert(self.next_load, whom);
        self.storage.read_entries.do_send(ReadEntries { request: self.next_load, from, to, bytes_max });
    }

    pub(super) fn fetch(&mut self, Fetch { term, peer, from, bytes_max }: Fetch) {
        if term != self.replica.term() || !self.replica.is_leader() {
            return;
        }
        match self.replica.entries(peer, from, bytes_max) {
            Entries::Here { previous, checksum, batch } => {
                self.tell_replicator(peer, Fetched::Entries { previous, checksum, batch });
            }
            Entries::OnDisk { previous, to } => self.load(LoadFor::Peer { peer, term, previous }, from, to, bytes_max),
            Entries::Compacted => self.tell_replicator(peer, Fetched::Compacted),
        }
    }

    pub(super) fn entries_read(&mut self, EntriesRead { request, batches }: EntriesRead, ctx: &mut Context<Self>) {
        match self.loads.remove(&request) {
            Some(LoadFor::Applier) => self.rule(ctx, |replica, out| replica.loaded(batches, out)),
            Some(LoadFor::Peer { peer, term, previous }) if term == self.replica.term() => {
                // One append carries one batch; the replicator asks for what follows it.
                let fetched = match batches.into_iter().next() {
                    Some(batch) => {
                        Fetched::Entries { previous, checksum: Some(batch.previous_checksum()), batch: Some(batch) }
                    }
                    None => Fetched::Overtaken,
                };
                self.tell_replicator(peer, fetched);
            }
            Some(LoadFor::Repair { to, repair }) => self.answer_repair(to, repair, batches),
            Some(LoadFor::Peer { .. }) | None => {}
        }
    }
}
