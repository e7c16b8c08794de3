//! Network events: messages that arrived, and links that changed.

use super::Consensus;
use crate::{
    actors::messages::{LinkChanged, PeerHeard},
    events::What,
};
use actix::Context;
use quorate_metrics::DropReason;
use quorate_raft::{Body, Message, NodeId};
use quorate_transport::network::Delivered;

impl Consensus {
    pub(super) fn delivered(&mut self, Delivered { from, message, credit }: Delivered, ctx: &mut Context<Self>) {
        if self.connections.skips_of_others.contains_key(&from) {
            return self.dropped(from, DropReason::SkipList);
        }
        if message.is_report() {
            return self.report_arrived(from, message.body, credit);
        }
        if message.is_forwarded() {
            self.forwarded(from, message, ctx);
        } else {
            let answers_heartbeat = matches!(message.body, Body::HeartbeatReply(_));
            if answers_heartbeat {
                // Before a round may end: the next one is opened at once, for those who have asked.
                self.let_readers_in(ctx);
            }
            let (now, term) = (self.node.clock.now(), message.term);
            self.rule(ctx, |replica, out| replica.receive(now, from, message, out));
            if answers_heartbeat && term == self.replica.term() {
                self.roles.tell_replicator(from, PeerHeard);
            }
        }
        drop(credit);
    }

    /// A forwarded request, or an answer to one: the rules see its term first.
    fn forwarded(&mut self, from: NodeId, message: Message, ctx: &mut Context<Self>) {
        let (now, term) = (self.node.clock.now(), message.term);
        let is_outside = self.replica.is_outside(from);
        // An answer counts if this node asked its sender, even if the sender has left since; its
        // term does not.
        if !is_outside || !message.is_reply() {
            self.rule(ctx, |replica, out| replica.receive_term(now, from, &message, out));
        }
        if !self.node.lifecycle.is_running() {
            return;
        }
        match message.body {
            Body::Propose(propose) if propose.has_claims() => self.claims_stated(from, term, &propose, ctx),
            Body::Propose(propose) => self.proposals_forwarded((from, term, is_outside), propose, ctx),
            Body::ProposeReply(reply) => {
                let retry_after = self.clients.admission.retry_after();
                self.decide_commands(ctx, |commands, now, view, out| {
                    commands.answered((from, term), reply, retry_after, now, view, out);
                });
            }
            Body::Administer(administer) => self.decide_operators(ctx, |operators, now, view, out| {
                operators.arrived((from, term, is_outside), administer, now, view, out);
            }),
            Body::Administered(administered) => self.decide_operators(ctx, |operators, _, view, out| {
                operators.answered(from, administered, view, out);
            }),
            Body::ReadIndex(asks) => self.decide_reads(ctx, |reads, now, view, out| {
                reads.arrived((from, is_outside), asks, now, view, out);
            }),
            Body::ReadIndexReply(reply) => {
                self.decide_reads(ctx, |reads, now, view, out| {
                    reads.answered((from, term), reply, now, view, out);
                });
                self.let_readers_in(ctx);
            }
            _ => {}
        }
    }

    pub(super) fn link_changed(&mut self, peer: NodeId, up: bool, ctx: &mut Context<Self>) {
        self.tell(if up { What::LinkUp { peer } } else { What::LinkDown { peer } });
        if up {
            self.connections.reachable.insert(peer);
        } else {
            self.connections.reachable.remove(&peer);
            self.decide_commands(ctx, |commands, _, _, out| commands.peer_lost(peer, out));
            self.decide_operators(ctx, |operators, _, view, out| operators.peer_lost(peer, view, out));
            self.decide_reads(ctx, |reads, now, view, out| reads.peer_lost(peer, now, view, out));
            self.let_readers_in(ctx);
        }
        self.roles.tell_replicator(peer, LinkChanged);
        if up && self.replica.leader() == Some(peer) {
            self.retry_deferred(ctx);
        }
    }
}
