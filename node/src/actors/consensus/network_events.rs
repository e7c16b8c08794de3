//! Network events: messages that arrived, and links that changed.

use super::Consensus;
use crate::actors::messages::{LinkChanged, PeerHeard};
use actix::Context;
use quorate_raft::{Body, Message, NodeId, ReadIndex, Term};
use quorate_transport::network::Delivered;

impl Consensus {
    pub(super) fn delivered(&mut self, Delivered { from, message, credit }: Delivered, ctx: &mut Context<Self>) {
        if self.connections.skips_of_others.contains_key(&from) {
            return self.node.metrics.dropped(Some(from.0), "skip_list");
        }
        let (now, term) = (self.node.clock.now(), message.term);
        let answers_heartbeat = matches!(message.body, Body::HeartbeatReply(_));
        // Forwarded requests and their answers are served here; the rules see their term first.
        let (message, rest) = match message.body {
            Body::Propose(propose) => (empty(message.term), Some(Body::Propose(propose))),
            Body::ProposeReply(reply) => (empty(message.term), Some(Body::ProposeReply(reply))),
            Body::ReadIndex(_) | Body::ReadIndexReply(_) | Body::Administer(_) | Body::Administered(_) => {
                (empty(message.term), Some(message.body))
            }
            _ => (message, None),
        };
        let is_outside = self.replica.is_outside(from);
        // An answer counts if this node asked its sender, even if the sender has left since; its
        // term does not.
        let is_answer = matches!(&rest, Some(Body::ProposeReply(_) | Body::ReadIndexReply(_) | Body::Administered(_)));
        if !is_outside || !is_answer {
            self.rule(ctx, |replica, out| replica.receive(now, from, message, out));
        }
        if answers_heartbeat && term == self.replica.term() {
            self.roles.tell_replicator(from, PeerHeard);
        }
        match rest.filter(|_| self.node.lifecycle.is_running()) {
            Some(Body::Propose(propose)) => self.proposals_forwarded((from, term, is_outside), propose, ctx),
            Some(Body::ProposeReply(reply)) => {
                let retry_after = self.clients.admission.retry_after();
                self.decide_commands(ctx, |commands, now, view, out| {
                    commands.answered((from, term), reply, retry_after, now, view, out);
                });
            }
            Some(Body::Administer(administer)) => self.decide_operators(ctx, |operators, now, view, out| {
                operators.arrived((from, is_outside), administer, now, view, out);
            }),
            Some(Body::Administered(administered)) => self.decide_operators(ctx, |operators, _, view, out| {
                operators.answered(from, administered, view, out);
            }),
            Some(Body::ReadIndex(asks)) => self.decide_reads(ctx, |reads, now, view, out| {
                reads.arrived((from, is_outside), asks, now, view, out);
            }),
            Some(Body::ReadIndexReply(reply)) => self.decide_reads(ctx, |reads, now, view, out| {
                reads.answered((from, term), reply, now, view, out);
            }),
            _ => {}
        }
        drop(credit);
    }

    pub(super) fn link_changed(&mut self, peer: NodeId, up: bool, ctx: &mut Context<Self>) {
        if up {
            self.connections.reachable.insert(peer);
        } else {
            self.connections.reachable.remove(&peer);
            self.decide_commands(ctx, |commands, _, _, out| commands.peer_lost(peer, out));
            self.decide_operators(ctx, |operators, _, view, out| operators.peer_lost(peer, view, out));
            self.decide_reads(ctx, |reads, now, view, out| reads.peer_lost(peer, now, view, out));
        }
        self.roles.tell_replicator(peer, LinkChanged);
        if up && self.replica.leader() == Some(peer) {
            self.retry_deferred(ctx);
        }
    }
}

/// A message that carries nothing but its sender's term.
fn empty(term: Term) -> Message {
    Message { term, body: Body::ReadIndex(ReadIndex { request: 0, by_lease: false }) }
}
