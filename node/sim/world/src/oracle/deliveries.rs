//! Checks of a node's reactions, from outside: they compare the messages delivered to the node, and
//! their times, with its answers and effects. Only messages about votes, leadership and lost
//! entries are examined, and only as they arrive.
//!
//! - **Up-to-date votes.** A node that grants a vote or a pre-vote has no log that is more
//!   up-to-date than the candidate's (paper §5.4.1). Nor does a node refuse a pre-vote to a
//!   candidate with a log at least as up-to-date as its own, unless it has another reason:
//!   otherwise no election might ever succeed.
//! - **Protected leaders.** A node that heard a leader within its own shortest election timeout, by
//!   its own clock, grants no vote and asks for none, whatever term it has learned of since. The
//!   same holds of a node within the promise that was on its disk when it started, and within any
//!   promise that it ever stated, whatever its present settings are (thesis §4.2.3, §6.4.1).
//! - **Read index.** A read may be served only when a quorum, the leader included, heard and
//!   answered a heartbeat of a round that first left after the read was asked for (thesis
//!   §6.4). A node answers a heartbeat with that heartbeat's round in that heartbeat's term,
//!   or with no round.
//! - **Lease.** A read that may be served by lease needs no such round. While a leader has a lease,
//!   a quorum, itself included, protects leaders by its own clocks and its own promises, and no
//!   node leads in a later term (§6.4.1).
//! - **Covered.** An answer to an append reports entries as matching only up to the last one that
//!   the append covered, or up to the base of the follower's log: that entry is known to be
//!   committed, because log compaction removed it (Figure 2: "index of last new entry").
//! - **Outsiders.** A message from outside a node's configuration ends no node, moves no commit
//!   index, and raises the term by at most 1,000 unless a member has shown that term; while a
//!   leader is heard it changes nothing at all ([`outside`](super::outside)).
//! - **Epochs.** Within a term, the epochs of a leader's messages to one peer never go back, even
//!   if the peer was removed and added again meanwhile: answers to earlier messages must not count.
//! - **Discards.** A node forgets lost entries of its own accord only in a later term than the one
//!   on its disk when it started: in the term on its disk, the node itself may have acknowledged
//!   entries after the other nodes gave their answers.

#[cfg(test)]
mod tests;

use super::{outside::Outside, per_node::PerNode};
use crate::quorum;
use quorate_raft::{
    Append, AppendOutcome, AppendReply, Batch, Body, Effect, EntryId, HardState, HeartbeatReply, Index, Membership,
    Message, Moment, NodeId, Outgoing, Phase, Progress, Promise, ReadToken, Reads, Replica, RequestVote, SnapshotChunk,
    Term,
};
use std::time::Duration;

/// The memory of the checks. Its size is bounded by the waiting reads plus a few words per node. It
/// tells no two worlds apart.
#[derive(Clone, Default, Debug)]
pub(crate) struct DeliveryChecks {
    nodes: PerNode<NodeRecord>,
    /// A logical clock, advanced by every read asked for and every heartbeat that leaves.
    moments: u64,
    /// Nodes that were told to campaign, with the term of the leader that told them.
    told_to_campaign: Vec<(NodeId, Term)>,
}

/// The other nodes, as far as a lease depends on them.
pub(crate) trait Others {
    /// The leader of a later term, if there is one.
    fn successor(&self) -> Option<(NodeId, Term)>;

    /// The clock of `voter`; `None` while it is down.
    fn clock(&self, voter: NodeId) -> Option<Moment>;

    /// Whether a node could not vote for any candidate that may win, whatever it heard: it was
    /// emptied, or it is down and will start either with its promise renewed or as a new node.
    fn is_bound(&self, voter: NodeId) -> bool;
}

/// The memory of one node's present life.
#[derive(Clone, Default, Debug)]
struct NodeRecord {
    memory: Memory,
    rounds: Rounds,
    epochs: Epochs,
    /// The highest term that a member has shown it, or any node while it had no configuration.
    shown: Term,
}

/// The latest epoch of the messages to each peer, as the leader of `term`.
#[derive(Clone, Default, Debug)]
struct Epochs {
    term: Term,
    of: Vec<(NodeId, u64)>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Memory {
    /// The last leader that was heard in this life, and the time by the node's own clock.
    heard: Option<(NodeId, Moment)>,
    /// The time for which a leader that was heard is protected.
    protection: Duration,
    /// The end of the promise that was on its disk when it started.
    starts_until: Moment,
    /// The latest end of all promises that it stated, in any life.
    stated_until: Moment,
    /// The term that its disk had when it started.
    recovered_in: Term,
}

/// The read rounds of a leader.
#[derive(Clone, Default, Debug)]
struct Rounds {
    term: Term,
    newest: u64,
    /// The moment at which each round first left; only rounds that a read may wait for.
    left: Vec<(u64, u64)>,
    /// For each peer, the moment at which the latest round that it answered first left.
    answered: Vec<(NodeId, u64)>,
    /// For each waiting read, the moment at which it was asked for, and whether a lease suffices.
    reads: Vec<(ReadToken, u64, bool)>,
}

/// A message that is about to arrive.
pub(crate) struct Arrival {
    from: NodeId,
    to: NodeId,
    term: Term,
    what: What,
    /// Whether the leader of the term before told the sender to campaign.
    was_told_to_campaign: bool,
    /// The terms of the leaders that told the receiver to campaign.
    receiver_was_told_in: Vec<Term>,
    memory: Memory,
    /// Whether it came from the leader that the node follows now.
    leads: bool,
    /// Whether the heartbeat was answered with its own round and term.
    is_answered: bool,
    /// The longest promise stated in an answer.
    stated: Promise,
    /// The highest term that a member has shown its receiver.
    shown: Term,
    /// The outcome of the checks.
    verdict: Result<(), String>,
}

#[derive(Clone, Copy)]
enum What {
    Beat {
        round: u64,
    },
    /// An append of entries up to this one, or a probe of it.
    Append {
        covers: Index,
    },
    Chunk,
    Request(RequestVote),
    Repair,
    Other,
}

impl DeliveryChecks {
    /// A message is about to arrive.
    pub(crate) fn arrival(&mut self, from: NodeId, to: NodeId, message: &Message) -> Arrival {
        let what = match &message.body {
            Body::Heartbeat(heartbeat) => What::Beat { round: heartbeat.round },
            Body::Append(append) => {
                What::Append { covers: append.batch.as_ref().map_or(append.previous.index, Batch::last) }
            }
            Body::SnapshotChunk(_) => What::Chunk,
            Body::RequestVote(request) => What::Request(*request),
            Body::RepairReply(_) => What::Repair,
            _ => What::Other,
        };
        let told = &self.told_to_campaign;
        let was_told_to_campaign = told.iter().any(|(id, term)| *id == from && term.next() == message.term);
        let receiver_was_told_in = told.iter().filter(|(id, _)| *id == to).map(|(_, term)| *term).collect();
        let NodeRecord { memory, shown, .. } = *self.of(to);
        Arrival {
            from,
            to,
            term: message.term,
            what,
            was_told_to_campaign,
            receiver_was_told_in,
            memory,
            leads: false,
            is_answered: false,
            stated: Promise::NONE,
            shown,
            verdict: Ok(()),
        }
    }

    /// Records the outcome of an arrival.
    ///
    /// # Errors
    /// The property that the node's reaction violates.
    pub(crate) fn arrived(&mut self, arrival: Arrival, now: Moment) -> Result<(), String> {
        let Arrival { from, to, term, what, leads, is_answered, stated, shown, verdict, .. } = arrival;
        self.of(to).shown = shown;
        let memory = &mut self.of(to).memory;
        if leads {
            memory.heard = Some((from, now));
        }
        if stated > Promise::NONE {
            memory.stated_until = memory.stated_until.max(now.plus(stated.lasts()));
        }
        if let (What::Beat { round }, true) = (what, is_answered) {
            self.of(from).rounds.answered(to, term, round);
        }
        verdict
    }

    /// Records a message that leaves a node while its clock shows `now`.
    ///
    /// # Errors
    /// If the node asks for a pre-vote too early, or the message has an epoch that is over.
    /// Requests for votes are not checked: they follow a won pre-vote or the leader's request.
    pub(crate) fn leaves(
        &mut self,
        from: NodeId,
        Outgoing { to, message }: &Outgoing,
        now: Moment,
    ) -> Result<(), String> {
        match &message.body {
            Body::TimeoutNow(_) => {
                self.told_to_campaign.push((*to, message.term));
                Ok(())
            }
            Body::Heartbeat(heartbeat) => {
                self.moments += 1;
                let now = self.moments;
                self.of(from).rounds.leaves(message.term, heartbeat.round, now);
                Ok(())
            }
            Body::RequestVote(request) if request.phase == Phase::PreVote => {
                let protected = self.of(from).memory.protects(now);
                protected.map_or(Ok(()), |words| Err(format!("protected leaders: {from} campaigns, and {words}")))
            }
            Body::Append(Append { epoch, .. }) | Body::SnapshotChunk(SnapshotChunk { epoch, .. }) => {
                let leaves = self.of(from).epochs.leaves(*to, message.term, *epoch);
                leaves.map_err(|why| format!("epochs: {from} sends {to} {why}"))
            }
            _ => Ok(()),
        }
    }

    /// Begins a life of a node, with its hard state `has`, that protects leaders for `protection`.
    /// A new or emptied node can't know of promises that it stated before.
    pub(crate) fn starts(&mut self, id: NodeId, has: HardState, is_new: bool, protection: Duration, now: Moment) {
        let before = if is_new { Memory::default() } else { self.of(id).memory };
        let memory = Memory {
            heard: None,
            protection,
            starts_until: now.plus(has.promise.lasts()),
            recovered_in: has.term,
            ..before
        };
        *self.of(id) = NodeRecord { memory, ..NodeRecord::default() };
    }

    /// Records a read asked for at a running node; `by_lease` if a lease suffices.
    pub(crate) fn read_asked(&mut self, id: NodeId, token: ReadToken, by_lease: bool) {
        self.moments += 1;
        let now = self.moments;
        self.of(id).rounds.reads.push((token, now, by_lease));
    }

    /// Records that a node reports a read as ready to be served.
    ///
    /// # Errors
    /// If no quorum confirmed its leadership after the read was asked for, and it has no
    /// right to a lease.
    pub(crate) fn read_ready(
        &mut self,
        id: NodeId,
        token: ReadToken,
        membership: &Membership,
        others: &impl Others,
    ) -> Result<(), String> {
        let rounds = &mut self.of(id).rounds;
        let Some((asked, by_lease)) = rounds.asked(token) else { return Ok(()) };
        let heard_since = |peer| rounds.answered.iter().any(|(voter, left)| *voter == peer && *left > asked);
        let is_confirmed = quorum::reached(membership, |peer| peer == id || heard_since(peer));
        rounds.forget(token);
        if is_confirmed {
            return Ok(());
        }
        if by_lease {
            return self.lease(id, membership, others);
        }
        Err(format!(
            "read index: {id} serves read {token}, and no quorum answered a round that left after it was asked"
        ))
    }

    /// Checks a lease that a node has, or reports.
    ///
    /// # Errors
    /// If a later term has a leader, or no quorum keeps its promises.
    pub(crate) fn lease(&self, id: NodeId, membership: &Membership, others: &impl Others) -> Result<(), String> {
        if let Some((other, term)) = others.successor() {
            return Err(format!("lease: {id} has one, and {other} leads term {term}"));
        }
        let protects = |voter: NodeId| {
            others.is_bound(voter) || others.clock(voter).is_some_and(|now| now < self.memory(voter).keeps_word_until())
        };
        if quorum::reached(membership, |voter| voter == id || protects(voter)) {
            return Ok(());
        }
        Err(format!("lease: {id} has one, and no quorum keeps the promise that it rests on"))
    }

    /// Records that a node can't serve a read.
    pub(crate) fn read_failed(&mut self, id: NodeId, token: ReadToken) {
        self.of(id).rounds.forget(token);
    }

    /// Whether a node protects a leader that it heard, or that it made a promise to.
    pub(crate) fn protects(&self, id: NodeId, now: Moment) -> bool {
        self.memory(id).protects(now).is_some()
    }

    fn memory(&self, id: NodeId) -> Memory {
        self.nodes.get(id).map_or(Memory::default(), |node| node.memory)
    }

    fn of(&mut self, id: NodeId) -> &mut NodeRecord {
        self.nodes.of(id)
    }
}

impl Memory {
    /// The time until which it votes for no candidate because of a promise. A leader that it heard
    /// is protected too, but no lease may rest on a protection that was not stated.
    fn keeps_word_until(&self) -> Moment {
        self.starts_until.max(self.stated_until)
    }

    /// The reason why it may not vote yet, if there is one.
    fn protects(&self, now: Moment) -> Option<String> {
        if let Some((leader, at)) = self.heard.filter(|(_, at)| now.since(*at) < self.protection) {
            return Some(format!("heard {leader} {:?} ago", now.since(at)));
        }
        let until = self.keeps_word_until();
        (now < until).then(|| format!("keeps what it promised for another {:?}", until.since(now)))
    }
}

impl Epochs {
    fn leaves(&mut self, to: NodeId, term: Term, epoch: u64) -> Result<(), String> {
        if term > self.term {
            *self = Self { term, of: Vec::new() };
        }
        if term < self.term || epoch == Progress::NO_EPOCH {
            return Ok(());
        }
        match self.of.iter_mut().find(|(peer, _)| *peer == to) {
            Some((_, latest)) if epoch < *latest => return Err(format!("epoch {epoch} behind epoch {latest}")),
            Some((_, latest)) => *latest = epoch,
            None => self.of.push((to, epoch)),
        }
        Ok(())
    }
}

impl Rounds {
    fn leaves(&mut self, term: Term, round: u64, now: u64) {
        if term > self.term {
            *self = Self { term, reads: std::mem::take(&mut self.reads), ..Self::default() };
        }
        if term == self.term && round > self.newest {
            self.newest = round;
            if !self.reads.is_empty() {
                self.left.push((round, now));
            }
        }
    }

    fn answered(&mut self, by: NodeId, term: Term, round: u64) {
        let Some((_, left)) = self.left.iter().find(|(one, _)| term == self.term && *one == round) else { return };
        match self.answered.iter_mut().find(|(peer, _)| *peer == by) {
            Some((_, latest)) => *latest = (*latest).max(*left),
            None => self.answered.push((by, *left)),
        }
    }

    fn asked(&self, token: ReadToken) -> Option<(u64, bool)> {
        self.reads.iter().find(|(read, ..)| *read == token).map(|(_, asked, by_lease)| (*asked, *by_lease))
    }

    /// Forgets a read, and the rounds that left before all remaining reads were asked for.
    fn forget(&mut self, token: ReadToken) {
        self.reads.retain(|(read, ..)| *read != token);
        let oldest = self.reads.iter().map(|(_, asked, _)| *asked).min().unwrap_or(u64::MAX);
        self.left.retain(|(_, left)| *left > oldest);
    }
}

/// A replica just before it heard a message.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    last: EntryId,
    /// The term that it led.
    leads: Option<Term>,
    /// Set if the message came from outside its configuration.
    outside: Option<Outside>,
}

impl Before {
    /// The state of a replica that is about to hear a message from `from`.
    pub(crate) fn of(replica: &Replica, from: NodeId, now: Moment) -> Self {
        let leads = replica.is_leader().then(|| replica.term());
        Self { last: replica.log().last(), leads, outside: Outside::of(replica, from, now) }
    }
}

impl Arrival {
    /// Checks the reaction of a replica to the message.
    pub(crate) fn heard(&mut self, now: Moment, before: Before, replica: &Replica, effects: &[Effect]) {
        // A node without a configuration knows no member, and believes every node.
        if replica.membership().is_empty() || replica.membership().contains(self.from) {
            self.shown = self.shown.max(self.term);
        }
        if let Some(outside) = before.outside {
            self.verdict = outside.check(self.from, self.shown, replica, effects);
            if self.verdict.is_err() {
                return;
            }
        }
        self.verdict = match self.what {
            What::Request(request) => {
                let granted = self.granted(now, before, request, effects);
                granted.and_then(|()| self.denied(now, before, request, replica, effects))
            }
            What::Beat { round } => self.beat(round, effects),
            What::Repair => self.repair(replica, effects),
            What::Append { covers } => self.matched(covers, replica, effects),
            What::Chunk | What::Other => Ok(()),
        };
        let from_a_leader = matches!(self.what, What::Beat { .. } | What::Append { .. } | What::Chunk);
        self.leads = from_a_leader && (replica.leader(), replica.term()) == (Some(self.from), self.term);
    }

    fn granted(&self, now: Moment, before: Before, request: RequestVote, effects: &[Effect]) -> Result<(), String> {
        let granted = |body: &Body| matches!(body, Body::Vote(vote) if vote.granted());
        if !said(effects).any(|outgoing| outgoing.to == self.from && granted(&outgoing.message.body)) {
            return Ok(());
        }
        let (from, to, phase) = (self.from, self.to, request.phase);
        let (theirs, ours) = (request.last, before.last);
        if is_behind(theirs, ours) {
            return Err(format!(
                "up-to-date votes: {to}, whose log ends at {ours}, grants {from} a {phase:?}, whose log ends at {theirs}"
            ));
        }
        // The leader that the promise was made to gave its lease up before it told a node to
        // campaign: the candidate, or this node, which leads since.
        let leads_by_transfer =
            before.leads.is_some_and(|led| self.receiver_was_told_in.iter().any(|told| told.next() == led));
        let is_released = leads_by_transfer || (request.by_transfer && self.was_told_to_campaign);
        match self.memory.protects(now).filter(|_| !is_released) {
            Some(words) => Err(format!("protected leaders: {to} grants {from} a {phase:?}, and {words}")),
            None => Ok(()),
        }
    }

    /// A leader that hears a quorum may refuse. Every leader is taken for such a leader, because
    /// the checks do not know the answers that it heard.
    fn denied(
        &self,
        now: Moment,
        before: Before,
        request: RequestVote,
        replica: &Replica,
        effects: &[Effect],
    ) -> Result<(), String> {
        let denied = |body: &Body| matches!(body, Body::Vote(vote) if vote.phase == Phase::PreVote && !vote.granted());
        if !said(effects).any(|outgoing| outgoing.to == self.from && denied(&outgoing.message.body)) {
            return Ok(());
        }
        let (from, to, theirs, ours) = (self.from, self.to, request.last, before.last);
        // A candidate with an empty log may have been emptied, and a new node knows too little to
        // grant it.
        let knows_too_little = theirs.index == Index(0) || replica.is_new();
        let is_late = self.term.next() <= replica.term();
        let can_apply = replica.machine().apply(request.machine_version);
        let is_protected = replica.is_leader() || self.memory.protects(now).is_some();
        // A voter that lacks nothing of a candidate that has left leads in its place.
        let has_left = theirs == ours && before.outside.is_some();
        if is_behind(theirs, ours) || knows_too_little || is_late || !can_apply || is_protected || has_left {
            return Ok(());
        }
        Err(format!(
            "up-to-date votes: {to}, whose log ends at {ours}, refuses {from} a pre-vote, whose log ends at {theirs}"
        ))
    }

    fn beat(&mut self, heard: u64, effects: &[Effect]) -> Result<(), String> {
        for outgoing in said(effects) {
            let Body::HeartbeatReply(HeartbeatReply { round, promise }) = outgoing.message.body else { continue };
            self.stated = self.stated.max(promise);
            let (from, to, term) = (self.from, self.to, outgoing.message.term);
            let is_its_own = (outgoing.to, term, round) == (from, self.term, heard);
            if !is_its_own && round != Reads::NO_ROUND {
                return Err(format!(
                    "read index: {to} answers round {heard} of term {} with round {round} of term {term}",
                    self.term
                ));
            }
            self.is_answered |= is_its_own;
        }
        Ok(())
    }

    fn matched(&self, covers: Index, replica: &Replica, effects: &[Effect]) -> Result<(), String> {
        let known = covers.max(replica.log().base().index);
        let says_more = said(effects).find_map(|outgoing| match &outgoing.message.body {
            Body::AppendReply(AppendReply { outcome: AppendOutcome::Matched { matched }, .. }) => {
                Some(*matched).filter(|matched| *matched > known)
            }
            _ => None,
        });
        says_more.map_or(Ok(()), |matched| {
            Err(format!("covered: {} says that it matches up to {matched}, of an append up to {covers}", self.to))
        })
    }

    fn repair(&self, replica: &Replica, effects: &[Effect]) -> Result<(), String> {
        let discards = effects.iter().find_map(|effect| match effect {
            Effect::Persist(persist) if persist.batch.is_none() => persist.truncate_from,
            _ => None,
        });
        match discards {
            Some(index) if replica.term() <= self.memory.recovered_in => Err(format!(
                "discards: {} forgets what it has from {index} on in term {}, in which it may have acknowledged it",
                self.to,
                replica.term()
            )),
            _ => Ok(()),
        }
    }
}

/// Whether `ours` is more up-to-date (paper §5.4.1).
fn is_behind(theirs: EntryId, ours: EntryId) -> bool {
    theirs.term < ours.term || (theirs.term == ours.term && theirs.index < ours.index)
}

/// All messages among the effects, sent at once or after a write.
fn said(effects: &[Effect]) -> impl Iterator<Item = &Outgoing> {
    effects.iter().flat_map(|effect| match effect {
        Effect::Send(outgoing) => std::slice::from_ref(outgoing),
        Effect::Persist(persist) => persist.then.as_slice(),
        _ => &[],
    })
}
