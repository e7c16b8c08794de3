//! Safety properties, checked from outside after every step, with a memory that no crash erases.
//!
//! Beside the paper's properties ([`Replicas`]):
//! - **Durable promises.** The term, the vote and the matching entries that a message promises are
//!   on its sender's disk when it leaves.
//! - **One vote.** The votes that ever left a node name one candidate a term.
//! - **Durable commits.** Every entry that was ever seen committed is on the disks of a
//!   quorum: whole, or at least not forgotten; and it is whole on the disk of at least one
//!   node that keeps commands.
//! - **A tie-break, no more.** The member that is started as a witness never leads, and is sent no
//!   entry that no other node holds.
//! - **Whole transfers.** A node that is told to campaign at once holds all entries of its leader.
//! - **Linearizable reads.** A read is served at or above everything that was committed when
//!   it was asked for.

pub(crate) mod deliveries;
mod outside;
mod replicas;

use super::{disk::Disk, node::is_pre_vote, quorum, world::Node};
use quorate_raft::{
    AppendOutcome, Batch, Body, EntryId, Index, Membership, Message, NodeId, Outgoing, Phase, ReadToken, RepairOutcome,
    Replica, SnapshotOutcome, Term,
};
use std::{collections::BTreeMap, sync::Arc};

pub use replicas::{Replicas, Seen};

/// The observer of one cluster.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Oracle {
    replicas: Replicas,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// For every read asked for, the last index committed at that time.
    reads: BTreeMap<ReadToken, Index>,
    /// The configurations that were ever seen committed, by the index of their entry.
    members: BTreeMap<Index, Membership>,
}

/// The last index up to which a disk is known to match the log of a term's leader.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Vouched {
    term: Term,
    to: Index,
}

impl Vouched {
    /// The disk may hold less from `index` on.
    pub(super) fn ends_before(&mut self, index: Index) {
        self.to = self.to.min(index.previous());
    }
}

impl Oracle {
    /// Checks all nodes as they are now. `members` is the configuration until a later
    /// one is seen committed.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn check<'a>(
        &mut self,
        replicas: impl Iterator<Item = &'a Replica> + Clone,
        nodes: &[Arc<Node>],
        members: &Membership,
    ) -> Result<(), String> {
        replicas.clone().for_each(|replica| self.learn_members(replica));
        self.replicas.check(replicas)?;
        let members = self.members().unwrap_or(members);
        self.replicas.committed().try_for_each(|entry| durable_commit(entry, nodes, members))
    }

    /// The same, if only `changed` did anything since the last check of either kind, and its disk
    /// holds no less than then, except from `less_from` on.
    pub(super) fn check_changed<'a>(
        &mut self,
        changed: NodeId,
        seen: &mut Seen,
        replicas: impl Iterator<Item = &'a Replica> + Clone,
        nodes: &[Arc<Node>],
        members: &Membership,
        less_from: Option<Index>,
    ) -> Result<(), String> {
        replicas.clone().filter(|replica| replica.id() == changed).for_each(|replica| self.learn_members(replica));
        let news = self.replicas.check_changed(changed, seen, replicas)?;
        let members = self.members.last_key_value().map_or(members, |(_, members)| members);
        // A disk can hold too little only where it holds less than before, or
        // where more was committed.
        for entry in news.into_iter().flat_map(|(from, to)| self.replicas.committed_in(from, to)) {
            durable_commit(entry, nodes, members)?;
        }
        for entry in less_from.into_iter().flat_map(|from| self.replicas.committed_in(from, Index(u64::MAX))) {
            durable_commit(entry, nodes, members)?;
        }
        Ok(())
    }

    /// Checks a message as it leaves `from`, the owner of `disk`. `leader` is the leader of the
    /// message's term, if there is one. Entries up to `vouched` were found durable before and
    /// are not examined again.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn leaves<'a>(
        &mut self,
        from: NodeId,
        disk: &Disk,
        leader: impl FnOnce() -> Option<&'a Replica>,
        outgoing: &Outgoing,
        vouched: Option<&mut Vouched>,
    ) -> Result<(), String> {
        let Outgoing { to, message } = outgoing;
        let fail = |what: &str| Err(format!("durable promises: {from} says {message:?} to {to}, but {what}"));
        if is_pre_vote(message) || promises_nothing(message) {
            return Ok(());
        }
        if disk.hard_state.term < message.term {
            return fail("its term is not durable");
        }
        if let Body::HeartbeatReply(reply) = &message.body
            && reply.promise > disk.hard_state.promise
        {
            return fail("the promise that a lease may rest on is not durable");
        }
        let superseded = disk.hard_state.term > message.term;
        if let Some(candidate) = vote_in(from, outgoing) {
            if !superseded && disk.hard_state.vote != Some(candidate) {
                return fail("its vote is not durable");
            }
            let voted = *self.votes.entry((from, message.term)).or_insert(candidate);
            if voted != candidate {
                return Err(format!("one vote: {from} voted for {voted} and {candidate} in term {}", message.term));
            }
        }
        if let (Some(matched), false) = (matched_in(message), superseded)
            // A node that only pretends to lead is promised nothing.
            && let Some(leader) = leader().filter(|leader| leader.id() == *to)
        {
            let log = leader.log();
            let sure = vouched.as_ref().filter(|vouched| vouched.term == message.term).map_or(Index(0), |vouched| {
                // A leader only appends: entries found equal stay equal unless this disk lost them.
                disk.less_from().map_or(vouched.to, |less| vouched.to.min(less.previous()))
            });
            let mut index = matched.min(log.last().index);
            while index >= log.first() && index > sure {
                if !disk.holds(log.id_of(index).unwrap_or_default()) {
                    return fail(&format!("{index} is not durable as its leader has it"));
                }
                index = index.previous();
            }
            if matched > log.last().index {
                return fail("its leader's log ends before");
            }
            if let Some(vouched) = vouched {
                *vouched = Vouched { term: message.term, to: sure.max(matched) };
            }
        }
        if let Some(installed) = installed_in(message)
            && !(disk.snapshot.as_ref().is_some_and(|snapshot| snapshot.last.index >= installed)
                || disk.last().index >= installed)
        {
            return fail("neither its snapshot nor its log reach that far");
        }
        Ok(())
    }

    /// The newest configuration that was ever seen committed; `None` while the cluster still
    /// has its first one.
    #[must_use]
    pub fn members(&self) -> Option<&Membership> {
        self.members.last_key_value().map(|(_, members)| members)
    }

    fn learn_members(&mut self, replica: &Replica) {
        let known = self.members.last_key_value().map_or(Index(0), |(known, _)| *known);
        let news = replica.configurations().rev().take_while(|(index, _)| *index > known);
        for (index, membership) in news.filter(|(index, _)| *index <= replica.commit()) {
            self.members.insert(*index, membership.clone());
        }
    }

    /// Records a read as it is asked for.
    pub fn read_asked(&mut self, token: ReadToken) {
        let committed = self.last_committed().index;
        self.reads.insert(token, committed);
    }

    /// Records that a read may be served at `index`.
    ///
    /// # Errors
    /// The property that does not hold.
    pub fn read_ready(&mut self, token: ReadToken, index: Index) -> Result<(), String> {
        match self.reads.remove(&token) {
            Some(committed) if committed <= index => Ok(()),
            Some(committed) => Err(format!(
                "linearizable reads: {committed} was committed when read {token} was asked, served at {index}"
            )),
            None => Err(format!("linearizable reads: read {token} was never asked for, or is answered twice")),
        }
    }

    /// Records that a read can't be served.
    pub fn read_failed(&mut self, token: ReadToken) {
        self.reads.remove(&token);
    }

    /// Whether this read no longer waits: it was answered, or failed.
    #[must_use]
    pub fn was_answered(&self, token: ReadToken) -> bool {
        !self.reads.contains_key(&token)
    }

    /// The entries that were ever seen committed, in order.
    pub fn committed(&self) -> impl Iterator<Item = EntryId> {
        self.replicas.committed()
    }

    /// The last entry that was ever seen committed.
    pub fn last_committed(&self) -> EntryId {
        self.replicas.committed().next_back().unwrap_or_default()
    }
}

/// Checks that the disks of a quorum remember a committed entry, and that at least
/// one holds it whole.
fn durable_commit(entry: EntryId, nodes: &[Arc<Node>], members: &Membership) -> Result<(), String> {
    let disk = |id: NodeId| nodes.iter().find(|node| node.id == id).map(|node| &node.disk);
    let remembers = |id| disk(id).is_some_and(|disk| disk.remembers(entry));
    // A leader commits by the newest configuration of its log, which a later leader may remove:
    // by the settled one that follows a joint one, or by a joint one that no other node has. A
    // leader elected by the previous configuration has the entry all the same: the two quorums
    // have a voter in common.
    let leading = nodes.iter().filter_map(|node| node.running.as_ref()).filter(|running| running.leads());
    let by_leader =
        || leading.map(|running| running.replica.membership()).any(|members| quorum::reached(members, remembers));
    let by_half = || members.is_joint() && quorum::reached(&members.settled(), remembers);
    let remembered = quorum::reached(members, remembers) || by_half() || by_leader();
    let keeps = |node: &Node| members.witness() != Some(node.id) && node.disk.holds(entry);
    if remembered && nodes.iter().any(|node| keeps(node)) {
        return Ok(());
    }
    let count = |counts: fn(&Disk, EntryId) -> bool| nodes.iter().filter(|node| counts(&node.disk, entry)).count();
    let (remember, hold) = (count(Disk::remembers), count(Disk::holds));
    Err(format!("durable commits: {entry} was committed, {remember} disks remember it and {hold} hold it"))
}

/// Checks that the witness does not act as a leader or a candidate, and that the entries sent to it
/// are durable at a node that keeps commands.
///
/// # Errors
/// The property that does not hold.
pub(super) fn spared(witness: NodeId, from: NodeId, nodes: &[Arc<Node>], outgoing: &Outgoing) -> Result<(), String> {
    let Outgoing { to, message } = outgoing;
    let leads = match &message.body {
        Body::RequestVote(request) => request.phase == Phase::Vote,
        body => matches!(body, Body::Append(_) | Body::Heartbeat(_) | Body::SnapshotChunk(_)),
    };
    if from == witness && leads {
        return Err(format!("tie-break: {from} keeps no commands, and says {message:?} to {to}"));
    }
    // A deposed leader does not know which entries the other nodes have removed since.
    let is_over = nodes.iter().any(|node| node.disk.hard_state.term > message.term);
    let is_kept = |entry| is_over || nodes.iter().any(|node| node.id != witness && node.disk.holds(entry));
    match &message.body {
        Body::Append(append) if *to == witness => match append.batch.as_ref().map(Batch::last_id) {
            Some(last) if !is_kept(last) => {
                Err(format!("tie-break: {from} sends {to} entry {last}, which nobody else holds"))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Checks that a node told to campaign at once holds all entries that it is to lead with,
/// or once held them.
///
/// # Errors
/// The property that does not hold.
pub(super) fn hands_over_whole(nodes: &[Arc<Node>], from: NodeId, outgoing: &Outgoing) -> Result<(), String> {
    let Outgoing { to, message } = outgoing;
    let Body::TimeoutNow(told) = &message.body else { return Ok(()) };
    // A disk that lost the entry since still remembers it; its node does not campaign.
    let holds = |node: &Arc<Node>| node.id == *to && node.disk.remembers(told.last);
    // A deposed leader does not know which entries the other nodes have removed since.
    let is_over = nodes.iter().any(|node| node.disk.hard_state.term > message.term);
    if is_over || nodes.iter().any(holds) {
        return Ok(());
    }
    Err(format!("handover: {from} tells {to} to campaign, which does not hold {}", told.last))
}

/// The candidate that a message votes for: a candidate's request is a vote for itself.
fn vote_in(from: NodeId, outgoing: &Outgoing) -> Option<NodeId> {
    match &outgoing.message.body {
        Body::Vote(vote) if vote.phase == Phase::Vote && vote.granted => Some(outgoing.to),
        Body::RequestVote(_) => Some(from),
        _ => None,
    }
}

/// Whether a message may leave before anything is durable: a count of bytes received, or an entry
/// that may help another node.
fn promises_nothing(message: &Message) -> bool {
    match &message.body {
        Body::SnapshotReply(reply) => matches!(reply.outcome, SnapshotOutcome::Received { .. }),
        Body::RepairReply(reply) => reply.outcome != RepairOutcome::Absent,
        _ => false,
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
