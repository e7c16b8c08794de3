//! The way of a read through `Consensus`: the index that it needs is asked for here or at the
//! leader, and its caller is answered.
//!
//! **The clock is read here**, after a read was taken from its queue: a lease that holds then holds
//! at a moment between the question and the answer. A process that stood still before or after that
//! does no harm.

use super::Consensus;
use crate::{
    actors::messages::ReadCaller,
    decisions::{
        freshness::Granted,
        reads::{self, Answer, Group},
        routing::Route,
    },
    error::ReadError,
};
use actix::Context;
use quorate_raft::{Body, Index, Moment, NodeId, ReadIndex, ReadIndexReply};
use tokio::time::Instant;

impl Consensus {
    /// Answers bounded reads from what is proven, and asks for an index for the others.
    pub(super) fn take_reads(&mut self, mut callers: Vec<ReadCaller>, ctx: &mut Context<Self>) {
        let (now, view) = (self.node.clock.now(), self.reads_view());
        let by_proof: Vec<_> =
            callers.extract_if(.., |caller| self.reads.grant(caller, now, &view).is_some()).collect();
        for caller in by_proof {
            if let Some(granted) = self.reads.grant(&caller, now, &view) {
                self.answer_read(caller, Ok(granted));
            }
        }
        let (by_lease, rest): (Vec<_>, Vec<_>) = callers.into_iter().partition(ReadCaller::is_by_lease);
        self.ask_for_index(by_lease, true, ctx);
        self.ask_for_index(rest, false, ctx);
    }

    fn ask_for_index(&mut self, mut callers: Vec<ReadCaller>, by_lease: bool, ctx: &mut Context<Self>) {
        if callers.is_empty() {
            return;
        }
        let (asked, deadline) = (self.node.clock.now(), Instant::now() + self.node.timing.leader_wait);
        let view = self.routing_view();
        let is_refused =
            |caller: &mut ReadCaller| view.route(matches!(caller, ReadCaller::There { .. })) == Route::Refuse;
        let refused = callers.extract_if(.., is_refused).collect();
        self.refuse_reads(refused);
        if callers.is_empty() {
            return;
        }
        let group = Group { callers, asked, committed: self.replica.known_committed(), deadline };
        match view.route(false) {
            Route::Here => {
                let token = self.reads.asked_here(group);
                self.rule(ctx, |replica, out| match by_lease {
                    true => replica.read_by_lease(asked, token, out),
                    false => replica.read(asked, token, out),
                });
            }
            Route::Forward(leader) => {
                let request = self.reads.asked_leader(leader, group);
                self.say(leader, Body::ReadIndex(ReadIndex { request, by_lease }));
            }
            Route::Defer | Route::Refuse => self.reads.defer(group.callers, deadline),
        }
    }

    fn reads_view(&self) -> reads::View {
        reads::View {
            applied: self.replica.applied_index(),
            last_log: self.replica.log().last().index,
            has_leader: self.replica.leader().is_some(),
            is_storage_full: self.replica.is_storage_full(),
        }
    }

    /// The leader answered a request. The index of a sound leader covers all that was known to be
    /// committed here when the request was made; if it does not, nothing is read from that leader.
    pub(super) fn leader_answered(&mut self, from: NodeId, request: u64, index: Index) {
        match self.reads.leader_answered(from, request, index) {
            None => {}
            Some(Answer::Index(group)) => self.index_known(group.asked, index, group.callers),
            Some(Answer::DataLost(group)) => {
                let committed = group.committed;
                tracing::error!(
                    node = %self.replica.id(),
                    "leader {from} has committed nothing after entry {index}, and entry {committed} is committed here: the \
                     members that elected it lost data, and this may be the last good copy; keep this data directory, stop \
                     the other members, and recover the cluster from it (quorate-kv recover)"
                );
                self.refuse_reads(group.callers);
            }
        }
    }

    /// All that was committed at `asked`, when these callers asked, is covered by `index`.
    pub(super) fn index_known(&mut self, asked: Moment, index: Index, callers: Vec<ReadCaller>) {
        if callers.is_empty() {
            return;
        }
        let (now, view) = (self.node.clock.now(), self.reads_view());
        self.reads.proven(asked, index, &callers, now);
        for caller in callers {
            let answer = self.reads.answer(&caller, index, now, &view);
            self.answer_read(caller, answer);
        }
    }

    /// No node can tell these callers the index that they need.
    pub(super) fn refuse_reads(&mut self, callers: Vec<ReadCaller>) {
        if callers.is_empty() {
            return;
        }
        let (now, view) = (self.node.clock.now(), self.reads_view());
        for caller in callers {
            let refusal = self.reads.refusal(&caller, now, &view);
            self.answer_read(caller, Err(refusal));
        }
    }

    fn answer_read(&mut self, caller: ReadCaller, outcome: Result<Granted, ReadError>) {
        match caller {
            // The caller may have left.
            ReadCaller::Here { answer, .. } => drop(answer.send(outcome)),
            ReadCaller::There { node, request, .. } => {
                let index = outcome.ok().map(|granted| granted.index);
                self.say(node, Body::ReadIndexReply(ReadIndexReply { request, index }));
            }
        }
    }

    /// Asks again for reads that were lost on their way. However often leaders change, a caller
    /// waits no longer than `proposal_timeout`, or until its own deadline.
    pub(super) fn retry_reads(&mut self, callers: Vec<ReadCaller>, ctx: &mut Context<Self>) {
        if callers.is_empty() {
            return;
        }
        let (now, patience) = (Instant::now(), self.node.timing.proposal_timeout);
        let is_late = |caller: &ReadCaller| matches!(caller, ReadCaller::Here { asked, .. } if caller.deadline(*asked + patience) <= now);
        let (late, rest): (Vec<_>, Vec<_>) = callers.into_iter().partition(is_late);
        self.refuse_reads(late);
        self.take_reads(rest, ctx);
    }
}
