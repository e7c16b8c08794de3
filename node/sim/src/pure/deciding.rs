//! The product's decisions beside the rules, driven for every node of a walk: they follow messages,
//! steps of their node, and time.
//!
//! The walk carries the decisions out, as the actors do. Their state is volatile: it ends with its
//! node.

use super::{
    machine::{id_of, slot},
    walk::Walk,
};
use quorate::decisions::{operators::Operators, proposals::Proposals, reads::Reads, routing};
use quorate_raft::{Body, NodeId, Role};
use quorate_world::{node::Running, world::Envelope};
use std::{sync::Arc, time::Duration};

/// Interval between two looks at deadlines.
const EXPIRE_EVERY: Duration = Duration::from_millis(50);

impl Walk<'_> {
    /// Serves a forwarded request, or an answer to one. The rules see its term first.
    pub(super) fn forwarded_arrives(&mut self, envelope: Arc<Envelope>) -> Result<(), String> {
        let (from, to, term) = (envelope.from, envelope.to, envelope.message.term);
        let Some(running) = self.world.running(to) else { return Ok(()) };
        let is_outside = running.replica.is_outside(from);
        // An answer counts if this node asked its sender, even if the sender has left since; its
        // term does not.
        if !is_outside || !envelope.message.is_reply() {
            let stepped = self.world.deliver(Arc::clone(&envelope));
            self.after(to, stepped)?;
        }
        match Arc::unwrap_or_clone(envelope).message.body {
            Body::Propose(propose) => self.decide(to, |commands, now, view, out| {
                commands.arrived((from, term, is_outside), propose, |_| Some(()), now, view, out);
            }),
            Body::ProposeReply(reply) => self.decide(to, |commands, now, view, out| {
                commands.answered((from, term), reply, Duration::from_millis(50), now, view, out);
            }),
            Body::ReadIndex(asks) => self.decide_reads(to, |reads, now, view, out| {
                reads.arrived((from, is_outside), asks, now, view, out);
            }),
            Body::ReadIndexReply(reply) => self.decide_reads(to, |reads, now, view, out| {
                reads.answered((from, term), reply, now, view, out);
            }),
            Body::Administer(administer) => self.decide_operators(to, |operators, now, view, out| {
                operators.arrived((from, term, is_outside), administer, now, view, out);
            }),
            Body::Administered(administered) => self.decide_operators(to, |operators, _, view, out| {
                operators.answered(from, administered, view, out);
            }),
            _ => Ok(()),
        }
    }

    /// A leader can be reached, or takes commands again: requests that waited for it are taken.
    pub(super) fn leader_reachable(&mut self, id: NodeId) -> Result<(), String> {
        self.decide(id, Proposals::leader_reachable)?;
        self.decide_reads(id, Reads::leader_reachable)
    }

    /// The link from a node to a peer was lost, and with it answers on their way.
    pub(super) fn peer_lost(&mut self, id: NodeId, peer: NodeId) -> Result<(), String> {
        self.decide(id, |commands, _, _, out| commands.peer_lost(peer, out))?;
        self.decide_operators(id, |operators, _, view, out| operators.peer_lost(peer, view, out))?;
        self.decide_reads(id, |reads, now, view, out| reads.peer_lost(peer, now, view, out))
    }

    /// Lets the decisions of a node follow a step of it.
    pub(super) fn decide_after(&mut self, id: NodeId) -> Result<(), String> {
        let (now, Some(running)) = (self.world.now_of(id), self.world.running(id)) else { return Ok(()) };
        let (replica, Some(decisions)) = (&running.replica, &mut self.machines[slot(id)].decisions) else {
            return Ok(());
        };
        let (leader, commit) = ((replica.leader(), replica.term()), replica.commit());
        let (is_new, changes) = (leader != decisions.leader, decisions.operators.has_change());
        let advanced = commit > decisions.commit;
        (decisions.leader, decisions.commit) = (leader, commit);
        let stops = decisions.stopping.is_stopping();
        if is_new {
            decisions.stopping.leader_changed(leader.0, id, now);
            self.decide(id, |commands, now, view, _| commands.leader_changed(now, view))?;
            self.decide_reads(id, Reads::leader_changed)?;
            self.decide_operators(id, Operators::leader_changed)?;
            if leader.0.is_some() {
                self.leader_reachable(id)?;
            }
        }
        if changes {
            self.decide_operators(id, Operators::end_change_if_done)?;
        }
        if advanced {
            self.past.told(self.now(), commit);
            self.decide_stranded(id)?;
            if self.commands_of(id).is_some_and(|commands| commands.is_large_due(commit)) {
                self.decide(id, Proposals::large_due)?;
            }
        }
        if stops { self.end_if_done(id) } else { Ok(()) }
    }

    /// Lets the decisions of a node see that time passes.
    pub(super) fn decide_in_time(&mut self, at: usize) -> Result<(), String> {
        let (id, now) = (id_of(at), self.world.now_of(id_of(at)));
        let Some(decisions) = self.machines[at].decisions.as_mut().filter(|decisions| decisions.expire_at <= now)
        else {
            return Ok(());
        };
        decisions.expire_at = now.plus(EXPIRE_EVERY);
        if !decisions.commands.is_empty() {
            self.decide(id, |commands, now, view, out| commands.expire(EXPIRE_EVERY, now, view, out))?;
        }
        self.decide_reads(id, Reads::expire)?;
        self.expire_reads(id, now)?;
        self.expire_operators(id, now)?;
        self.take_automatic_step(id)?;
        if self.machines[at].stops.is_some() { self.end_if_done(id) } else { Ok(()) }
    }
}

/// The node's part in the cluster, for the route of a request.
pub(super) fn routing_of(running: &Running, is_stopping: bool) -> routing::View {
    let replica = &running.replica;
    let is_leader = matches!(replica.role(), Role::Leader(_));
    routing::View {
        is_leader,
        term: replica.term(),
        known_leader: replica.leader(),
        leader: replica.leader().filter(|_| !is_leader),
        is_stopping,
        holds_proposals: replica.holds_proposals(),
        is_storage_full: replica.is_storage_full(),
        halted_at: None,
        // It matters only where the storage is full.
        is_alone: replica.is_storage_full() && replica.peers().is_empty(),
    }
}
