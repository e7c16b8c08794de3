//! Properties of messages, checked as they leave a node.
//!
//! They compare a message with the durable state of its sender and of the other nodes, which an
//! observer knows from the disks themselves or from the reports of their logs.

use super::{
    cluster::{Cluster, Durable, is_over},
    per_node::PerNode,
    replicas::Replicas,
    witness::tie_break,
};
use quorate_raft::{AppendOutcome, Body, Index, Log, Message, NodeId, Phase, RepairOutcome, SnapshotOutcome, Term};
use std::collections::BTreeMap;

/// The memory of all messages that left.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(super) struct Messages {
    votes: BTreeMap<(NodeId, Term), NodeId>,
    vouched: PerNode<Vouched>,
}

/// The last index up to which a disk is known to match the log of a term's leader.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Vouched {
    term: Term,
    to: Index,
}

impl Messages {
    /// Checks a message as it leaves `from` for `to`. The sender of a leader's message is one more
    /// that `replicas` knows to have led.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn leaves(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &Message,
        cluster: &impl Cluster,
        replicas: &mut Replicas,
    ) -> Result<(), String> {
        if let Some(witness) = cluster.witness() {
            tie_break(witness, from, to, message, cluster)?;
        }
        transfers_to_a_whole_log(from, to, message, cluster)?;
        if matches!(message.body, Body::Append(_) | Body::Heartbeat(_) | Body::SnapshotChunk(_)) {
            replicas.leads(from, message.term)?;
        }
        if promises_nothing(message) {
            return Ok(());
        }
        let broken = |what| format!("durable promises: {from} says {message:?} to {to}, but {what}");
        self.durable_promises(from, to, message, cluster).map_err(broken)?;
        self.one_vote(from, to, message)
    }

    /// From `less` on, the disk of a node may hold less than before.
    pub(super) fn holds_less(&mut self, node: NodeId, less: Index) {
        let vouched = self.vouched.of(node);
        vouched.to = vouched.to.min(less.previous());
    }

    fn one_vote(&mut self, from: NodeId, to: NodeId, message: &Message) -> Result<(), String> {
        let Some(candidate) = vote_in(from, to, message) else { return Ok(()) };
        let voted = *self.votes.entry((from, message.term)).or_insert(candidate);
        if voted != candidate {
            return Err(format!("one vote: {from} voted for {voted} and {candidate} in term {}", message.term));
        }
        Ok(())
    }

    fn durable_promises(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &Message,
        cluster: &impl Cluster,
    ) -> Result<(), String> {
        let Some(disk) = cluster.disk(from) else { return Err("nothing is durable".into()) };
        let (state, term) = (disk.hard_state(), message.term);
        if state.term < term {
            return Err(format!("only term {} is durable", state.term));
        }
        if let Body::HeartbeatReply(reply) = &message.body
            && reply.promise > state.promise
        {
            return Err("the promise that a lease may rest on is not durable".into());
        }
        // What was promised in an earlier term than the disk's may have been superseded since.
        let is_current = state.term == term;
        if let Some(candidate) = vote_in(from, to, message).filter(|_| is_current)
            && state.vote != Some(candidate)
        {
            return Err(format!("only a vote for {:?} is durable", state.vote));
        }
        if let Some(matched) = matched_in(message).filter(|_| is_current) {
            match cluster.log_of_leader(to, term) {
                Some(log) => self.matches(from, term, matched, log, disk, cluster.trusts_earlier_checks())?,
                // A node that only pretends to lead is promised nothing: the leader of the term may
                // have replaced the entry before the answer left.
                None if matched > disk.reaches() && !cluster.sees_logs() => {
                    return Err(format!("only entries up to {} are durable", disk.reaches()));
                }
                None => {}
            }
        }
        match installed_in(message) {
            Some(installed) if installed > disk.reaches() => {
                Err(format!("its snapshot and its log reach only up to {}", disk.reaches()))
            }
            _ => Ok(()),
        }
    }

    /// Checks that a disk holds all entries of its leader's log up to `matched`.
    fn matches(
        &mut self,
        from: NodeId,
        term: Term,
        matched: Index,
        log: &Log,
        disk: &impl Durable,
        trusts: bool,
    ) -> Result<(), String> {
        let vouched = self.vouched.of(from);
        let sure = match trusts && vouched.term == term {
            // A leader only appends: entries found equal stay equal unless this disk lost them.
            true => disk.less_from().map_or(vouched.to, |less| vouched.to.min(less.previous())),
            false => Index(0),
        };
        let mut index = matched.min(log.last().index);
        while index >= log.first() && index > sure {
            if !disk.holds(log.id_of(index).unwrap_or_default()) {
                return Err(format!("{index} is not durable as its leader has it"));
            }
            index = index.previous();
        }
        if matched > log.last().index {
            return Err("its leader's log ends before".into());
        }
        if trusts {
            *vouched = Vouched { term, to: sure.max(matched) };
        }
        Ok(())
    }
}

/// A node told to campaign at once holds all entries that it is to lead with, or once held them.
fn transfers_to_a_whole_log(from: NodeId, to: NodeId, message: &Message, cluster: &impl Cluster) -> Result<(), String> {
    let Body::TimeoutNow(told) = &message.body else { return Ok(()) };
    // A disk that lost the entry since still remembers it; its node does not campaign.
    let holds = cluster.disk(to).is_some_and(|disk| disk.remembers(told.last));
    if holds || cluster.was_emptied(to) || is_over(message.term, cluster) {
        return Ok(());
    }
    Err(format!("leadership transfer: {from} tells {to} to campaign, which does not hold {}", told.last))
}

/// Whether a message may leave before anything is durable: a pre-vote, a count of bytes received or
/// a refusal of them, an entry that may help another node, or a client's request or its answer.
fn promises_nothing(message: &Message) -> bool {
    match &message.body {
        Body::RequestVote(request) => request.phase == Phase::PreVote,
        Body::Vote(vote) => vote.phase == Phase::PreVote,
        Body::SnapshotReply(reply) => !matches!(reply.outcome, SnapshotOutcome::Installed { .. }),
        Body::RepairReply(reply) => reply.outcome != RepairOutcome::Absent,
        Body::Propose(_) | Body::ProposeReply(_) | Body::ReadIndex(_) | Body::ReadIndexReply(_) => true,
        Body::Administer(_) | Body::Administered(_) => true,
        _ => false,
    }
}

/// The candidate that a message votes for: a candidate's request is a vote for itself.
fn vote_in(from: NodeId, to: NodeId, message: &Message) -> Option<NodeId> {
    match &message.body {
        Body::Vote(vote) if vote.granted() => Some(to),
        Body::RequestVote(_) => Some(from),
        _ => None,
    }
}

fn installed_in(message: &Message) -> Option<Index> {
    match &message.body {
        Body::SnapshotReply(reply) => match reply.outcome {
            SnapshotOutcome::Installed { index } => Some(index),
            _ => None,
        },
        _ => None,
    }
}

fn matched_in(message: &Message) -> Option<Index> {
    match &message.body {
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Matched { matched } => Some(matched),
            _ => None,
        },
        _ => None,
    }
}
