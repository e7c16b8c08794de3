//! Claims on their way into the log: [`Claims`] decides; here they are stated to the leader,
//! appended, and the difference that they show is published.
//!
//! [`Claims`]: crate::decisions::claims::Claims

use super::Consensus;
use crate::{
    comparison::Comparison,
    decisions::{
        claims::{Step, View},
        internal_entries::InternalEntry,
    },
    service::{
        internal::{Claimed, Internal},
        windows::window_of,
    },
};
use actix::Context;
use bytes::{Bytes, BytesMut};
use quorate_raft::{Body, ForwardedCommand, Index, Kind, NodeId, Propose, Term};

impl Consensus {
    /// The state machine made another comparison.
    pub(super) fn compared(&mut self, comparison: Comparison) {
        self.status.disagrees(comparison.disagreement.clone());
        self.claims.compared(comparison);
    }

    /// Appends the claims that this node owes, or states them to the leader.
    pub(super) fn claim_if_owed(&mut self) {
        let view = self.claims_view();
        match self.claims.next(|| self.node.clock.now(), &view) {
            Step::None => {}
            Step::Append(payloads) => {
                payloads.into_iter().for_each(|payload| self.append_claim(view.term, payload));
            }
            Step::State { to, payloads } => self.say(to, Body::Propose(forwarded(&payloads))),
        }
    }

    /// A follower states claims. There is no answer: it sees them in the log.
    pub(super) fn claims_stated(&mut self, from: NodeId, term: Term, propose: &Propose, ctx: &mut Context<Self>) {
        let view = self.claims_view();
        if term != view.term || !self.replica.membership().is_voter(from) {
            return;
        }
        let (mut rest, current) = (propose.payloads.clone(), window_of(self.replica.log().last().index));
        for command in &propose.commands {
            let payload = rest.split_to(rest.len().min(command.length as usize));
            match Internal::decode(&payload) {
                Some(Internal::Claim(Claimed { node, window, .. })) if node == from => {
                    if self.claims.heard(from, window, current, &view) {
                        // The log keeps it longer than the message.
                        self.append_claim(view.term, Bytes::copy_from_slice(&payload));
                    }
                }
                _ => tracing::debug!(%from, "no claim of that node"),
            }
        }
        self.append_internal(ctx);
    }

    fn append_claim(&mut self, term: Term, payload: Bytes) {
        self.ticking.internal.offered(InternalEntry { term, payload });
    }

    /// Whether a snapshot that ends there may be sent to a peer.
    pub(super) fn may_send_snapshot(&mut self, peer: NodeId, ends: Index) -> bool {
        let (now, this, replica, status) = (self.node.clock.now(), self.replica.id(), &self.replica, &self.status);
        let witness = replica.witness();
        let voters = replica.membership().voters();
        let keeps_up = |id: &NodeId| replica.keeps_up(now, *id) && !status.may_be_halted(*id);
        let claimants = voters.into_iter().filter(|id| *id != this && Some(*id) != witness && keeps_up(id));
        self.claims.may_send(now, (replica.term(), this, peer), ends, claimants)
    }

    fn claims_view(&self) -> View {
        let is_leader = self.replica.is_leader();
        View {
            this: self.replica.id(),
            term: self.replica.term(),
            is_leader,
            leader: if is_leader { None } else { self.reachable_leader() },
        }
    }
}

/// Claims in the form of commands. Nothing waits for them.
fn forwarded(payloads: &[Bytes]) -> Propose {
    let mut all = BytesMut::new();
    let mut commands = Vec::with_capacity(payloads.len());
    for payload in payloads {
        all.extend_from_slice(payload);
        commands.push(ForwardedCommand { request: 0, length: payload.len() as u32, kind: Kind::Internal, waits_ms: 0 });
    }
    Propose { commands, payloads: all.freeze() }
}
