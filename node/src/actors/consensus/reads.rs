//! Who waits for an index to read at: where reads go, and how their callers, here and on other nodes, are answered. Reading twice is
//! harmless, so whatever is lost on the way is simply asked again, until its deadline.
//!
//! **The clock is looked at here**, after a read was taken from its queue: a lease that holds then holds at a moment between the
//! question and the answer, for how long the process stood still before does not matter, and after does not either.

use super::{Consensus, Granted, freshness::Freshness, request_ids::RequestIds};
use crate::{
    actors::messages::{ReadCaller, Wants},
    error::ReadError,
};
use actix::Context;
use quorate_raft::{Body, Index, Moment, NodeId, ReadIndex, ReadIndexReply, ReadToken};
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;

impl Consensus {
    /// Asks for an index: this node's rules if it leads, the leader if it knows one that it reaches; otherwise they wait for one. Bounded
    /// reads ask only if nothing that is proven already will do.
    pub(super) fn take_reads(&mut self, mut callers: Vec<ReadCaller>, ctx: &mut Context<Self>) {
        let now = self.node.clock.now();
        let by_proof: Vec<_> = callers.extract_if(.., |caller| self.grant(caller, now).is_some()).collect();
        for caller in by_proof {
            if let Some(granted) = self.grant(&caller, now) {
                self.answer_read(caller, Ok(granted));
            }
        }
        let (by_lease, rest): (Vec<_>, Vec<_>) = callers.into_iter().partition(ReadCaller::is_by_lease);
        self.ask_for_index(by_lease, true, ctx);
        self.ask_for_index(rest, false, ctx);
    }

    /// What a bounded read may be served at by what is proven.
    fn grant(&self, caller: &ReadCaller, now: Moment) -> Option<Granted> {
        match caller {
            ReadCaller::Here { wants: Wants::Within { bounds, called }, .. } => {
                self.reads.freshness.grant(*bounds, *called, now, self.replica.applied_index())
            }
            _ => None,
        }
    }

    fn ask_for_index(&mut self, callers: Vec<ReadCaller>, by_lease: bool, ctx: &mut Context<Self>) {
        if callers.is_empty() {
            return;
        }
        let (asked, deadline) = (self.node.clock.now(), Instant::now() + self.node.timing.leader_wait);
        if self.replica.is_leader() {
            let token = self.reads.asked_here(callers, asked, deadline);
            return self.rule(ctx, |replica, out| match by_lease {
                true => replica.read_by_lease(asked, token, out),
                false => replica.read(asked, token, out),
            });
        }
        let (here, there): (Vec<_>, Vec<_>) =
            callers.into_iter().partition(|caller| matches!(caller, ReadCaller::Here { .. }));
        self.refuse_reads(there);
        match self.reachable_leader() {
            Some(leader) if !here.is_empty() => {
                let group = Group { callers: here, asked, committed: self.replica.known_committed(), deadline };
                let request = self.reads.asked_leader(leader, group);
                self.say(leader, Body::ReadIndex(ReadIndex { request, by_lease }));
            }
            _ => self.reads.defer(here, deadline),
        }
    }

    /// The leader answered a request. A sound leader's index covers all that was known to be committed here when this node asked: one
    /// that answers with less lost data, with the majority that elected it, and nothing is read from here.
    pub(super) fn leader_answered(&mut self, from: NodeId, request: u64, index: Index) {
        let Some(Group { callers, asked, committed, .. }) = self.reads.leader_answered(from, request) else { return };
        if index >= committed {
            return self.index_known(asked, index, callers);
        }
        tracing::error!(
            node = %self.replica.id(),
            "leader {from} has committed nothing after entry {index}, and entry {committed} is committed here: the members that elected it \
             lost data, and this may be the last good copy; keep this data directory, stop the other members, and recover the cluster \
             from it (quorate-kv recover)"
        );
        self.refuse_reads(callers);
    }

    /// Everything that was committed when these asked, at `asked`, is covered by `index`.
    pub(super) fn index_known(&mut self, asked: Moment, index: Index, callers: Vec<ReadCaller>) {
        if callers.is_empty() {
            return;
        }
        let now = self.node.clock.now();
        // Bounded reads rest on no lease: what one answered proves nothing to them.
        if !callers.iter().any(ReadCaller::is_by_lease) {
            self.reads.freshness.proven(asked, index, now);
        }
        for caller in callers {
            let granted = match &caller {
                ReadCaller::Here { wants: Wants::Within { .. }, .. } => {
                    self.grant(&caller, now).ok_or_else(|| self.refusal_of(&caller, now))
                }
                // No entry is taken here any more: it would wait in vain.
                ReadCaller::Here { .. }
                    if self.replica.is_storage_full() && index > self.replica.log().last().index =>
                {
                    Err(ReadError::StorageFull)
                }
                _ => Ok(Granted { index, bounded: None }),
            };
            self.answer_read(caller, granted);
        }
    }

    /// Nobody can tell these what they need to know.
    pub(super) fn refuse_reads(&mut self, callers: Vec<ReadCaller>) {
        let now = self.node.clock.now();
        for caller in callers {
            let refusal = self.refusal_of(&caller, now);
            self.answer_read(caller, Err(refusal));
        }
    }

    fn refusal_of(&self, caller: &ReadCaller, now: Moment) -> ReadError {
        match caller {
            ReadCaller::Here { wants: Wants::Within { .. }, .. } => {
                self.reads.freshness.too_stale(now, self.replica.applied_index())
            }
            _ if self.replica.is_storage_full() && self.replica.leader().is_none() => ReadError::StorageFull,
            _ => ReadError::NoLeader,
        }
    }

    fn answer_read(&mut self, caller: ReadCaller, outcome: Result<Granted, ReadError>) {
        match caller {
            // Whoever asked may have lost patience.
            ReadCaller::Here { answer, .. } => drop(answer.send(outcome)),
            ReadCaller::There { node, request, .. } => {
                let index = outcome.ok().map(|granted| granted.index);
                self.say(node, Body::ReadIndexReply(ReadIndexReply { request, index }));
            }
        }
    }

    /// Asks again for what was lost on its way. Leaders may come and go for ever, but nobody waits for as long.
    pub(super) fn retry_reads(&mut self, callers: Vec<ReadCaller>, ctx: &mut Context<Self>) {
        let (now, patience) = (Instant::now(), self.node.timing.proposal_timeout);
        let is_late = |caller: &ReadCaller| matches!(caller, ReadCaller::Here { asked, .. } if caller.deadline(*asked + patience) <= now);
        let (late, rest): (Vec<_>, Vec<_>) = callers.into_iter().partition(is_late);
        self.refuse_reads(late);
        self.take_reads(rest, ctx);
    }
}

/// The readers that wait. Those who ask together wait together, under one token or one request.
pub(super) struct Reads {
    deferred: VecDeque<Group>,
    here: BTreeMap<ReadToken, Group>,
    at_leader: BTreeMap<u64, (NodeId, Group)>,
    freshness: Freshness,
    ids: RequestIds,
}

struct Group {
    callers: Vec<ReadCaller>,
    /// When they asked: an answer proves something of that moment. Meaningless of those who have yet to.
    asked: Moment,
    /// How far the log was known to be committed here then.
    committed: Index,
    deadline: Instant,
}

impl Reads {
    pub(super) fn new(life: u32) -> Self {
        Self {
            deferred: VecDeque::new(),
            here: BTreeMap::new(),
            at_leader: BTreeMap::new(),
            freshness: Freshness::default(),
            ids: RequestIds::new(life),
        }
    }

    /// Nobody leads that could be reached: these wait for somebody who does.
    pub(super) fn defer(&mut self, callers: Vec<ReadCaller>, deadline: Instant) {
        if !callers.is_empty() {
            self.deferred.push_back(Group { callers, asked: Moment::default(), committed: Index(0), deadline });
        }
    }

    /// Everything that is deferred, taken out.
    pub(super) fn take_deferred(&mut self) -> Vec<ReadCaller> {
        self.deferred.drain(..).flat_map(|group| group.callers).collect()
    }

    /// These are asked of this node's own leadership, under this token.
    fn asked_here(&mut self, callers: Vec<ReadCaller>, asked: Moment, deadline: Instant) -> ReadToken {
        let token = self.ids.next();
        self.here.insert(token, Group { callers, asked, committed: Index(0), deadline });
        token
    }

    /// These are asked of the leader, under this request.
    fn asked_leader(&mut self, leader: NodeId, group: Group) -> u64 {
        let request = self.ids.next();
        self.at_leader.insert(request, (leader, group));
        request
    }

    /// The rules confirmed these: gives who asked, and when.
    pub(super) fn answered_here(&mut self, tokens: Vec<ReadToken>) -> Vec<(Moment, Vec<ReadCaller>)> {
        let groups = tokens.into_iter().filter_map(|token| self.here.remove(&token));
        groups.map(|group| (group.asked, group.callers)).collect()
    }

    /// The rules could not confirm these: this node leads no more. Its own readers ask the next leader; gives the others.
    pub(super) fn failed(&mut self, tokens: Vec<ReadToken>) -> Vec<ReadCaller> {
        let mut others = Vec::new();
        for token in tokens {
            let Some(Group { callers, deadline, .. }) = self.here.remove(&token) else { continue };
            let (here, there): (Vec<_>, Vec<_>) =
                callers.into_iter().partition(|caller| matches!(caller, ReadCaller::Here { .. }));
            self.defer(here, deadline);
            others.extend(there);
        }
        others
    }

    /// The leader answered a request: gives those that asked; `None` if it was answered, or given up on, before.
    fn leader_answered(&mut self, from: NodeId, request: u64) -> Option<Group> {
        self.at_leader.get(&request).filter(|(leader, _)| *leader == from)?;
        self.at_leader.remove(&request).map(|(_, group)| group)
    }

    /// The leader could not answer a request: gives the readers that asked.
    pub(super) fn leader_refused(&mut self, from: NodeId, request: u64) -> Vec<ReadCaller> {
        self.leader_answered(from, request).map_or_else(Vec::new, |group| group.callers)
    }

    /// Another leads: gives those who asked the one before.
    pub(super) fn leader_changed(&mut self) -> Vec<ReadCaller> {
        std::mem::take(&mut self.at_leader).into_values().flat_map(|(_, group)| group.callers).collect()
    }

    /// The link to `peer` was lost: gives those who asked it.
    pub(super) fn peer_lost(&mut self, peer: NodeId) -> Vec<ReadCaller> {
        let lost = self.at_leader.extract_if(.., |_, (leader, _)| *leader == peer);
        lost.flat_map(|(_, (_, group))| group.callers).collect()
    }

    /// Those that are past their deadline, given up on.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<ReadCaller> {
        let mut late = Vec::new();
        let deferred = self.deferred.iter_mut();
        let asked = self.here.values_mut().chain(self.at_leader.values_mut().map(|(_, group)| group));
        for group in deferred.chain(asked) {
            let deadline = group.deadline;
            late.extend(group.callers.extract_if(.., |caller| caller.deadline(deadline) <= now));
        }
        self.deferred.retain(|group| !group.callers.is_empty());
        self.here.retain(|_, group| !group.callers.is_empty());
        self.at_leader.retain(|_, (_, group)| !group.callers.is_empty());
        late
    }
}
