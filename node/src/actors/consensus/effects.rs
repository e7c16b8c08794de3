//! The effects of rules, performed: messages to peers and to the other actors.

use super::{Consensus, roles::LoadFor};
use crate::{
    actors::{
        messages::{
            Acknowledged, Arm, Callers, ChunkAnswered, CommitAdvanced, Committed, Fetch, Fetched, Group, HeartbeatNow,
            LeaderHeard, NeedsSnapshot, Rejected, Replicate, ReplicateTo, Stop, VoteDenied, VoteGranted,
        },
        replicator::{Assignment, Replicator, Reports},
        stages::Stages,
        vote_collector::VoteCollector,
    },
    error::Failure,
    events::What,
};
use actix::prelude::*;
use quorate_metrics::{ActorName, DropReason};
use quorate_raft::{
    Body, Credit, Denial, Effect, Entries, Index, MachineVersions, Message, MessageRefusal, NodeId, Outgoing, Violation,
};
use quorate_storage::contract::{EntriesRead, Persist, ReadEntries, Remember};
use tokio::time::Instant;

impl Consensus {
    pub(super) fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        if !self.node.lifecycle.is_running() {
            return;
        }
        assert_eq!(self.lease.now, self.lease_to_publish(), "a lease is published before the rule's effects");
        match effect {
            Effect::Send(outgoing) => self.send(outgoing),
            Effect::Persist(persist) => {
                self.status.votes_cast(&persist.then);
                if let Some(from) = persist.truncate_from {
                    self.tell_removed_entries(from, persist.batch.is_some());
                }
                if self.ticking.ticks.are_used() {
                    let view = self.ticks_view();
                    self.ticking.ticks.written(persist.truncate_from, persist.batch.as_ref(), &view);
                }
                if persist.cut.is_some() {
                    self.snapshots.cuts(persist.sequence);
                }
                self.roles.storage.persist.do_send(Persist(persist));
            }
            Effect::ArmTimer => self.roles.timer.do_send(Arm { term: self.replica.term() }),
            Effect::LeaderHeard => {
                self.roles.timer.do_send(LeaderHeard { term: self.replica.term() });
                if self.ticking.ticks.are_used() {
                    self.ticking.ticks.leader_heard(self.replica.term(), self.node.clock.now());
                }
            }
            Effect::OpenBallot(ballot) => {
                self.node.events.term_is(self.replica.term());
                self.status.ballot_opened(&ballot, self.replica.log().last());
                self.noted.ballot_opened(ballot.campaign, ballot.phase);
                let panic_guard = self.node.lifecycle.panic_guard("VoteCollector");
                let collector =
                    VoteCollector::new(ballot, ctx.address().recipient(), ctx.address().recipient(), panic_guard);
                self.roles.collector = Some(self.node.load.start(ActorName::VoteCollector, collector));
            }
            Effect::CountVote { campaign, voter, denial } => self.count_vote(campaign, voter, denial),
            Effect::CloseBallot => {
                self.status.ballot_closed();
                self.noted.ballot_closed();
                self.roles.collector = None;
            }
            Effect::StartReplicators { log_last, .. } => {
                self.tell_elected();
                let peers = self.replica.peers();
                self.replicate_to(&peers, log_last, ctx);
            }
            Effect::StopReplicators => {
                self.stop_replicators();
                self.clients.stages = Stages::default();
            }
            Effect::Replicate { previous, batch } => {
                let witness = self.replica.witness();
                for (_, replicator) in self.roles.replicators.iter().filter(|(peer, _)| witness != Some(**peer)) {
                    replicator.do_send(Replicate { previous, batch: batch.clone() });
                }
            }
            Effect::ReplicateTo { peer, to } => self.roles.tell_replicator(peer, ReplicateTo { index: to }),
            Effect::Committed(commit) => {
                self.clients.stages.committed(commit);
                self.tell_first_commit(commit);
                self.roles.tell_replicators(CommitAdvanced { commit });
            }
            Effect::HeartbeatNow { round } => self.roles.tell_replicators(HeartbeatNow { round }),
            Effect::Acknowledged { peer, epoch, matched } => {
                self.claims.acknowledged(peer);
                self.roles.tell_replicator(peer, Acknowledged { epoch, matched });
            }
            Effect::Rejected { peer, epoch, previous, next, last } => {
                self.roles.tell_replicator(peer, Rejected { epoch, previous, next, last });
            }
            Effect::Apply(batch) => {
                let mut callers = Vec::new();
                self.decide_commands(ctx, |commands, _, _, out| callers = commands.committed(&batch, out));
                let (now, stages) = (Instant::now(), &mut self.clients.stages);
                let way_of = |callers: Callers| Group { way: stages.way_of(callers.first, now), callers };
                let groups = callers.into_iter().map(way_of).collect();
                stages.dispatched(batch.last());
                self.apply(Committed { batch, groups });
            }
            Effect::Load { from, to } => self.load(LoadFor::Applier, from, to, self.node.limits.max_batch_bytes * 4),
            Effect::ReadsReady { index, tokens } => {
                self.decide_reads(ctx, |reads, now, view, out| reads.ready(index, &tokens, now, view, out));
            }
            Effect::ReadsFailed { tokens } => {
                self.decide_reads(ctx, |reads, now, view, out| reads.failed(&tokens, now, view, out));
            }
            Effect::MembersChanged => self.members_changed(ctx),
            // Deferred proposals are taken again once the other effects of this rule are performed.
            Effect::LeadershipTransferEnded { to } => {
                self.tell_transfer_failed(to);
                self.operators.transfer_ended(to);
            }
            Effect::Removed { at } => self.removed(at, ctx),
            Effect::MachineUnknown { candidate, version } => self.machine_unknown(candidate, version),
            Effect::Refused { from, reason } => self.dropped(from, label_of(reason)),
            Effect::Restore(base) => {
                self.ticking.ticks.restores(base.last.index, self.replica.log().last().index);
                self.restore(&base, ctx);
            }
            Effect::SnapshotChunk { from, chunk } => self.chunk_arrived(from, chunk),
            Effect::SnapshotAnswered { peer, reply } => self.roles.tell_replicator(peer, ChunkAnswered { reply }),
            Effect::NeedsSnapshot { peer, epoch, from } => {
                self.claims.state_lost(peer);
                self.roles.tell_replicator(peer, NeedsSnapshot { epoch, at_least: from });
            }
            Effect::ServeRepair { to, repair } => self.serve_repair(to, repair),
            Effect::Remember { members } => self.roles.storage.remember.do_send(Remember { members }),
            Effect::DataLost { member, last, held, is_last_copy } => self.data_lost(member, last, held, is_last_copy),
            Effect::Diverged { at, with } => self.diverged(at, with),
            Effect::Observed(observation) => self.observed(observation),
            Effect::Halt(violation @ (Violation::DataLost { .. } | Violation::RolledBack { .. })) => {
                self.node.lifecycle.fail(Failure::DataLost(violation));
            }
            Effect::Halt(violation) => self.node.lifecycle.fail(Failure::Violation(violation)),
        }
    }

    /// Counts a message that was not taken. Only members have a series of their own: the ids of
    /// nodes outside have no bound, and a node without members can't tell which those are.
    pub(super) fn dropped(&self, from: NodeId, reason: DropReason) {
        let is_member = !self.replica.membership().is_empty() && !self.replica.is_outside(from);
        self.node.metrics.dropped(is_member.then_some(from.0), reason);
    }

    /// Counts every vote that was not granted, and tells the reason once for each
    /// candidate and version.
    fn machine_unknown(&mut self, candidate: NodeId, version: u32) {
        self.dropped(candidate, DropReason::MachineVersion);
        if self.warnings.machines_unknown.insert(candidate, version) != Some(version) {
            let MachineVersions { oldest, newest, .. } = self.replica.machine();
            self.tell(What::MachineVersionUnknown { candidate, version, oldest, newest });
        }
    }

    pub(super) fn send(&mut self, outgoing: Outgoing) {
        self.status.votes_cast(std::slice::from_ref(&outgoing));
        self.send_uncounted(outgoing);
    }

    fn send_uncounted(&mut self, Outgoing { to, message }: Outgoing) {
        if self.node.lifecycle.is_running() {
            self.connections.peers.get(to).send(message);
        }
    }

    /// Sends a message that waited for a write. Votes were counted when the write was sent
    /// to the storage.
    pub(super) fn send_persisted(&mut self, outgoing: Outgoing) {
        if matches!(outgoing.message.body, Body::RequestVote(_)) {
            self.status.votes_asked();
        }
        self.send_uncounted(outgoing);
    }

    pub(super) fn say(&mut self, to: NodeId, body: Body) {
        self.send(Outgoing { to, message: Message { term: self.replica.term(), body } });
    }

    fn count_vote(&mut self, campaign: u64, voter: NodeId, denial: Option<Denial>) {
        let granted = denial.is_none();
        self.status.vote_received(voter, denial, voter == self.replica.id());
        self.noted.voted(campaign, voter, granted);
        if let Some(collector) = &self.roles.collector {
            if granted {
                collector.do_send(VoteGranted { campaign, voter });
            } else {
                collector.do_send(VoteDenied { campaign, voter });
            }
        }
    }

    /// Starts a replicator for each of these peers that has none, and stops all others. The first
    /// probe of a new one looks for `log_last`.
    pub(super) fn replicate_to(&mut self, peers: &[NodeId], log_last: Index, ctx: &mut Context<Self>) {
        for (_, replicator) in self.roles.replicators.extract_if(.., |peer, _| !peers.contains(peer)) {
            replicator.do_send(Stop);
        }
        for peer in peers.iter().copied() {
            if self.roles.replicators.contains_key(&peer) {
                continue;
            }
            let sends_stubs = self.replica.witness() == Some(peer);
            let replicator = Replicator::new(Assignment {
                peer,
                sends_stubs,
                term: self.replica.term(),
                epoch: self.replica.first_epoch(),
                log_last: if sends_stubs { self.replica.goes_to(peer) } else { log_last },
                commit: self.replica.commit(),
                round: self.replica.read_round(),
                link: self.connections.peers.get(peer),
                reports: Reports {
                    matched: ctx.address().recipient(),
                    fetch: ctx.address().recipient(),
                    snapshot_wanted: ctx.address().recipient(),
                    given_up: ctx.address().recipient(),
                },
                clock: self.node.clock,
                heartbeat_interval: self.node.timing.heartbeat_interval,
                credit: Credit { retry_after: self.node.timing.heartbeat_interval * 4, ..Credit::default() },
                bytes_per_second: self.snapshots.bytes_per_second(),
                blocking: self.snapshots.blocking.clone(),
                metrics: self.node.metrics.clone(),
                events: self.node.events.clone(),
                lifecycle: self.node.lifecycle.clone(),
            });
            let replicator = self.node.load.start(ActorName::Replicator, replicator);
            self.roles.replicators.insert(peer, replicator);
        }
    }

    pub(super) fn stop_replicators(&mut self) {
        for replicator in std::mem::take(&mut self.roles.replicators).into_values() {
            replicator.do_send(Stop);
        }
    }

    pub(super) fn load(&mut self, whom: LoadFor, from: Index, to: Index, bytes_max: usize) {
        self.roles.last_load += 1;
        self.roles.loads.insert(self.roles.last_load, whom);
        self.roles.storage.read_entries.do_send(ReadEntries { request: self.roles.last_load, from, to, bytes_max });
    }

    pub(super) fn fetch(&mut self, Fetch { term, peer, from, bytes_max }: Fetch) {
        if term != self.replica.term() || !self.replica.is_leader() {
            return;
        }
        match self.replica.entries(peer, from, bytes_max) {
            Entries::Here { previous, checksum, batch } => {
                self.roles.tell_replicator(peer, Fetched::Entries { previous, checksum, batch });
            }
            Entries::OnDisk { previous, to } => self.load(LoadFor::Peer { peer, term, previous }, from, to, bytes_max),
            Entries::Compacted => self.roles.tell_replicator(peer, Fetched::Compacted),
        }
    }

    pub(super) fn entries_read(&mut self, EntriesRead { request, batches }: EntriesRead, ctx: &mut Context<Self>) {
        match self.roles.loads.remove(&request) {
            Some(LoadFor::Applier) => self.rule(ctx, |replica, out| replica.loaded(batches, out)),
            Some(LoadFor::Peer { peer, term, previous }) if term == self.replica.term() => {
                // One append carries one batch; the replicator asks for the entries after it.
                let fetched = match batches.into_iter().next() {
                    Some(batch) => {
                        Fetched::Entries { previous, checksum: Some(batch.previous_checksum()), batch: Some(batch) }
                    }
                    None => Fetched::Overtaken,
                };
                self.roles.tell_replicator(peer, fetched);
            }
            Some(LoadFor::Repair { to, repair }) => self.answer_repair(to, repair, batches),
            Some(LoadFor::Peer { .. }) | None => {}
        }
    }
}

/// The label under which a message that the rules refused is counted.
fn label_of(reason: MessageRefusal) -> DropReason {
    match reason {
        MessageRefusal::Malformed => DropReason::Malformed,
        MessageRefusal::Stranger => DropReason::Stranger,
        MessageRefusal::Unpersisted => DropReason::Unpersisted,
        MessageRefusal::StorageFull => DropReason::StorageFull,
    }
}
