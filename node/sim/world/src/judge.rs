//! What must hold of how a node takes what it hears, judged from outside: by what was delivered to it and when, and by what it says
//! then. It looks only at letters that speak of votes, leadership and lost entries, and only as they arrive.
//!
//! - **Up-to-date votes.** Whoever grants a vote, or says that it would, has no log that is more up-to-date than the asker's
//!   (paper §5.4.1). And who is asked for a pre-vote by one whose log is no less up-to-date does not refuse without another reason:
//!   or nobody may ever be elected.
//! - **Protected leaders.** A node that heard a leader within its own shortest election timeout, by its own clock, grants no vote and
//!   asks for none, whatever term it learnt of since; nor does one within the promise that was on its disk when it started, nor within
//!   any promise that it ever stated, whatever it is told now (thesis §4.2.3, §6.4.1).
//! - **Read index.** A read may be served only when a quorum, the leader included, heard and answered a heartbeat of a round that
//!   first left after the read was asked for (thesis §6.4). And whoever hears a heartbeat answers with that heartbeat's
//!   round in that heartbeat's term, or with none.
//! - **Lease.** A read that may be served by lease needs no such round; but as long as anybody has a lease, a quorum, itself
//!   included, protects leaders by its own clocks and its own promises, and nobody leads in a later term (§6.4.1).
//! - **Covered.** Whoever answers an append says of no entry that it matches but of those that the append covered, and of those that it
//!   knows to be committed because it cut its log behind them (Figure 2: "index of last new entry").
//! - **Outsiders.** A message from outside a node's configuration ends no node, moves no commit index, and raises the term by 1,000 at
//!   most unless a member has shown that term; while a leader is heard it changes nothing at all ([`outside`](super::outside)).
//! - **Epochs.** What a leader sends a peer is of no earlier epoch than what it sent it before in that term, though the peer may have been
//!   removed and added again meanwhile: answers to what was said before must not count.
//! - **Discards.** A node forgets lost entries of its own accord only in a later term than the one that its disk had when it started:
//!   what others say in that one may be overtaken by what it said itself.

#[cfg(test)]
mod tests;

use super::{
    outside::{self, Outside},
    quorum,
};
use quorate_raft::{
    Append, AppendOutcome, AppendReply, Batch, Body, Effect, EntryId, HardState, HeartbeatReply, Index, Membership,
    Message, Moment, NodeId, Outgoing, Phase, Progress, Promise, ReadToken, Reads, Replica, RequestVote, SnapshotChunk,
    Term,
};
use std::time::Duration;

/// What it remembers of a cluster: as much as reads that wait, and a few words a node. It tells no two worlds apart.
#[derive(Clone, Default, Debug)]
pub(super) struct Judge {
    nodes: Vec<Judged>,
    /// Reads that were asked for and rounds that left so far: what comes later has a higher number.
    moments: u64,
    /// Who was told to campaign, and by the leader of which term.
    told_to_campaign: Vec<(NodeId, Term)>,
}

/// What a lease depends on, beside the leader that has it.
pub(super) trait Others {
    /// Who leads in a later term, if anyone does.
    fn successor(&self) -> Option<(NodeId, Term)>;

    /// What the clock of a node that runs shows.
    fn clock(&self, voter: NodeId) -> Option<Moment>;

    /// Whether a node could vote for nobody who may win, whatever it heard: it is down, and will begin with its promise anew or new;
    /// or it was emptied.
    fn is_bound(&self, voter: NodeId) -> bool;
}

/// Of one node, in its present life.
#[derive(Clone, Default, Debug)]
struct Judged {
    memory: Memory,
    rounds: Rounds,
    epochs: Epochs,
    /// The highest term that a member has shown it.
    shown: Term,
}

/// The latest epoch in which it sent each peer something, as the leader of this term.
#[derive(Clone, Default, Debug)]
struct Epochs {
    term: Term,
    of: Vec<(NodeId, u64)>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Memory {
    /// The leader that it heard last in this life, and when by its own clock.
    heard: Option<(NodeId, Moment)>,
    /// For so long it protects a leader that it heard.
    protection: Duration,
    /// Up to when it keeps the promise that was on its disk when it started.
    starts_until: Moment,
    /// Up to when it keeps what it stated, in whatever life.
    stated_until: Moment,
    /// The term that its disk had when it started.
    recovered_in: Term,
}

/// What it asks as a leader whether it still leads.
#[derive(Clone, Default, Debug)]
struct Rounds {
    term: Term,
    newest: u64,
    /// When each round first left; only those that a read may wait for.
    left: Vec<(u64, u64)>,
    /// For each peer, when the latest round that it heard and answered first left.
    answered: Vec<(NodeId, u64)>,
    /// When each read that waits was asked for, and whether a lease will do.
    reads: Vec<(ReadToken, u64, bool)>,
}

/// A letter that is about to arrive.
pub(super) struct Arrival {
    from: NodeId,
    to: NodeId,
    term: Term,
    what: What,
    /// Whether the leader of the term before told the sender to campaign.
    is_handed_over: bool,
    memory: Memory,
    /// Whether it came from the leader that the node follows now.
    leads: bool,
    /// Whether it was answered as what it is.
    is_answered: bool,
    /// The promise that was stated.
    stated: Promise,
    /// The highest term that a member has shown its receiver.
    shown: Term,
    /// Whether all that was said and done about it may be.
    verdict: Result<(), String>,
}

#[derive(Clone, Copy)]
enum What {
    Beat {
        round: u64,
    },
    /// Entries up to this one, or a probe of it.
    Append {
        covers: Index,
    },
    Chunk,
    Request(RequestVote),
    Repair,
    Other,
}

impl Judge {
    /// A letter is about to arrive.
    pub(super) fn arrival(&mut self, from: NodeId, to: NodeId, message: &Message) -> Arrival {
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
        let is_handed_over = told.iter().any(|(who, term)| *who == from && term.next() == message.term);
        let Judged { memory, shown, .. } = *self.of(to);
        Arrival {
            from,
            to,
            term: message.term,
            what,
            is_handed_over,
            memory,
            leads: false,
            is_answered: false,
            stated: Promise::NONE,
            shown,
            verdict: Ok(()),
        }
    }

    /// It has arrived.
    ///
    /// # Errors
    /// What must hold of what was said and done about it, and does not.
    pub(super) fn arrived(&mut self, arrival: Arrival, now: Moment) -> Result<(), String> {
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

    /// A message leaves a node, whose clock shows `now`.
    ///
    /// # Errors
    /// If it asks for a pre-vote too early, or sends something in an epoch that is over. Votes are asked for only behind a won
    /// pre-vote, or when its leader said so.
    pub(super) fn leaves(
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

    /// A node starts with what its disk has, and protects leaders for so long from now on. One that is new, or was emptied, stated
    /// nothing, as far as it can know.
    pub(super) fn starts(&mut self, id: NodeId, has: HardState, is_new: bool, protection: Duration, now: Moment) {
        let before = if is_new { Memory::default() } else { self.of(id).memory };
        let memory = Memory {
            heard: None,
            protection,
            starts_until: now.plus(has.promise.lasts()),
            recovered_in: has.term,
            ..before
        };
        *self.of(id) = Judged { memory, ..Judged::default() };
    }

    /// Somebody asks a node that runs for a read; whether the lease will do.
    pub(super) fn read_asked(&mut self, id: NodeId, token: ReadToken, by_lease: bool) {
        self.moments += 1;
        let now = self.moments;
        self.of(id).rounds.reads.push((token, now, by_lease));
    }

    /// A node says that a read may be served.
    ///
    /// # Errors
    /// If no quorum confirmed that it still led when the read was asked for, and it has no right to a lease.
    pub(super) fn read_ready(
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

    /// A node has a lease, or says so.
    ///
    /// # Errors
    /// If it can't have one.
    pub(super) fn lease(&self, id: NodeId, membership: &Membership, others: &impl Others) -> Result<(), String> {
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

    /// A node says that a read can't be served.
    pub(super) fn read_failed(&mut self, id: NodeId, token: ReadToken) {
        self.of(id).rounds.forget(token);
    }

    fn memory(&self, id: NodeId) -> Memory {
        let at = usize::try_from(id.0).unwrap_or(usize::MAX) - 1;
        self.nodes.get(at).map_or(Memory::default(), |node| node.memory)
    }

    fn of(&mut self, id: NodeId) -> &mut Judged {
        let at = usize::try_from(id.0).unwrap_or(usize::MAX) - 1;
        if at >= self.nodes.len() {
            self.nodes.resize_with(at + 1, Judged::default);
        }
        &mut self.nodes[at]
    }
}

impl Memory {
    /// Up to when it votes for nobody because it stated as much. That it heard a leader protects that leader, too; but no lease may rest
    /// on what was not stated.
    fn keeps_word_until(&self) -> Moment {
        self.starts_until.max(self.stated_until)
    }

    /// Why it may vote for nobody yet, if so.
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

    /// Nobody waits for a read any more, nor for rounds that left before all that still wait were asked for.
    fn forget(&mut self, token: ReadToken) {
        self.reads.retain(|(read, ..)| *read != token);
        let oldest = self.reads.iter().map(|(_, asked, _)| *asked).min().unwrap_or(u64::MAX);
        self.left.retain(|(_, left)| *left > oldest);
    }
}

/// What a replica was just before it heard something.
#[derive(Clone, Copy)]
pub(super) struct Before {
    last: EntryId,
    /// If what it heard came from outside its configuration.
    outside: Option<Outside>,
}

impl Before {
    /// Of a replica that hears something from `from` now.
    pub(super) fn of(replica: &Replica, from: NodeId, now: Moment) -> Self {
        Self { last: replica.log().last(), outside: Outside::of(replica, from, now) }
    }
}

impl Arrival {
    /// Judges what a replica says and does about what arrived.
    pub(super) fn heard(&mut self, now: Moment, before: Before, replica: &Replica, effects: &[Effect]) {
        if replica.membership().contains(self.from) {
            self.shown = self.shown.max(self.term);
        }
        if let Some(outside) = before.outside {
            self.verdict = outside.judge(self.from, self.shown, replica, effects);
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
        let granted = |body: &Body| matches!(body, Body::Vote(vote) if vote.granted);
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
        let is_handed_over = request.handed_over && self.is_handed_over;
        match self.memory.protects(now).filter(|_| !is_handed_over) {
            Some(words) => Err(format!("protected leaders: {to} grants {from} a {phase:?}, and {words}")),
            None => Ok(()),
        }
    }

    /// A leader that hears a quorum may refuse, but whether it does is not known here.
    fn denied(
        &self,
        now: Moment,
        before: Before,
        request: RequestVote,
        replica: &Replica,
        effects: &[Effect],
    ) -> Result<(), String> {
        let denied = |body: &Body| matches!(body, Body::Vote(vote) if vote.phase == Phase::PreVote && !vote.granted);
        if !said(effects).any(|outgoing| outgoing.to == self.from && denied(&outgoing.message.body)) {
            return Ok(());
        }
        let (from, to, theirs, ours) = (self.from, self.to, request.last, before.last);
        // One that comes with nothing may have been emptied, and one that has nothing may not judge.
        let knows_too_little = theirs.index == Index(0) || replica.is_new();
        let is_late = self.term.next() <= replica.term();
        let can_apply = replica.machine().apply(request.machine_version);
        let is_protected = replica.is_leader() || self.memory.protects(now).is_some();
        // In a term that it would not believe it votes for nobody either.
        let is_unproven = outside::is_unproven(replica.term(), self.term.next(), self.shown);
        if is_behind(theirs, ours) || knows_too_little || is_late || !can_apply || is_protected || is_unproven {
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

/// Whether ours is more up-to-date (paper §5.4.1).
fn is_behind(theirs: EntryId, ours: EntryId) -> bool {
    theirs.term < ours.term || (theirs.term == ours.term && theirs.index < ours.index)
}

/// All that is said, now or once it is durable.
fn said(effects: &[Effect]) -> impl Iterator<Item = &Outgoing> {
    effects.iter().flat_map(|effect| match effect {
        Effect::Send(outgoing) => std::slice::from_ref(outgoing),
        Effect::Persist(persist) => persist.then.as_slice(),
        _ => &[],
    })
}
