//! The replica: one node's term and vote, its view of the log, its role, and every rule
//! that changes them.
//!
//! This file has the state that all rules share, the entry for every message
//! ([`Replica::receive`]), and the order of durability. The rules are in the modules below; each
//! takes facts and pushes [`Effect`]s.
//!
//! | module | rules |
//! | --- | --- |
//! | `follower`, `candidate`, `leader` | the roles, as in Figure 2 of the paper |
//! | `members`, `leadership_transfer` | membership changes; leadership transfer |
//! | `reads`, `promises` | read index and lease; the promises that leases rest on |
//! | `snapshots` | log compaction and installed snapshots |
//! | `witness` | replication to a witness |
//! | `outside` | messages from nodes outside the configuration |
//! | `lost_data` | lost-data guard: members that lost their data directory |
//! | `faults`, `divergence` | entries that the disk lost; logs that differ under the same ids |
//! | `start`, `writes`, `effect`, `view` | recovered state and settings; pending writes; effects; getters |
//!
//! # Durability
//!
//! A rule never waits. It pushes state that must be durable as [`Effect::Persist`], and the
//! messages that must wait for it travel inside. Sequences number the requests.
//! [`Replica::persisted`] moves `durable` forward, and a truncation moves it back at once, so that
//! no completion from before the truncation counts an entry that is no longer there.
//!
//! **Invariant:** no message that promises a term or a vote leaves before that term and vote
//! are durable (`Replica::say`), and no message that promises an entry leaves before the entry
//! is durable (`Replica::say_when_durable`).
//!
//! **Invariant:** `applied <= dispatched <= commit <= log.last()`; a follower dispatches only
//! entries that are durable here.

mod candidate;
mod divergence;
mod effect;
mod faults;
mod follower;
mod leader;
mod leadership_transfer;
mod lost_data;
mod members;
mod outside;
mod promises;
mod reads;
mod snapshots;
mod start;
mod view;
mod witness;
mod writes;

use crate::{
    batch::Batch,
    ids::{EntryId, Index, Moment, NodeId, Term},
    lease::Promise,
    log::{Log, Lookup},
    membership::{self, Membership},
    message::{AppendOutcome, AppendReply, Body, HeartbeatReply, Message, Outgoing, TimeoutNow},
    progress::Progress,
    reads::Reads,
    snapshot::SnapshotBase,
};
use alloc::vec::Vec;
use core::time::Duration;

pub use effect::{Cut, Effect, MessageRefusal, Persist, Violation};
use faults::Faults;
pub use leader::{Entries, Leadership};
use leadership_transfer::LeadershipTransfer;
pub use leadership_transfer::TransferRefused;
pub use lost_data::HOLDINGS_EVERY;
use lost_data::LostDataGuard;
use promises::Promises;
pub use start::{Faulty, HardState, Recovered, Settings};
use writes::Writes;

/// One member of one Raft group: the pure piece of a `Consensus` actor.
#[derive(Clone, Hash, Debug)]
pub struct Replica {
    id: NodeId,
    settings: Settings,
    memberships: membership::History,
    hard_state: HardState,
    log: Log,
    role: Role,
    leader: Option<NodeId>,
    /// Whether that leader was a member, by this node's configuration, when it was last heard.
    leader_is_member: bool,
    /// The highest term above this node's that a member has shown without raising this node's (see
    /// `outside`); otherwise 0.
    shown_term: Term,
    /// When a leader, of any term, was last heard: the promise of this run, on which leases rest,
    /// counts from then.
    leader_contact: Option<Moment>,
    promises: Promises,
    campaign: u64,
    commit: Index,
    dispatched: Index,
    applied: Index,
    applying: Applying,
    loading: bool,
    /// The last entry that the newest snapshot covers.
    snapshot: Index,
    writes: Writes,
    faults: Faults,
    guard: LostDataGuard,
    /// The entry at which the log differs from that of the present term's leader.
    diverged: Option<EntryId>,
    /// Whether the storage is about to run out of room for entries.
    is_full: bool,
}

/// A node's role (paper §5.1, and pre-vote of the thesis §9.6).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one a replica")]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks to be elected.
    Candidate,
    /// Leads in the current term.
    Leader(Leadership),
}

/// Since when the state machine has been at its present entry, as far as observed.
#[derive(Clone, Copy, Default, Debug)]
struct Applying {
    seen: Index,
    since: Option<Moment>,
}

impl core::hash::Hash for Applying {
    /// It only measures time; in models where time stands still it tells no two states apart.
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}

/// Terms at or above this are refused: no cluster gets there, and sums with it can't overflow.
const TERM_LIMIT: Term = Term(u64::MAX / 2);

impl Replica {
    /// A follower that resumes from `recovered`. The caller performs [`Effect::ArmTimer`] first. If
    /// the node ran before, call [`Replica::started`].
    #[must_use]
    pub fn new(id: NodeId, membership: Membership, recovered: Recovered, settings: Settings) -> Self {
        let Recovered { hard_state, mut log, faulty, snapshot, memberships, has_voted, holdings } = recovered;
        let SnapshotBase { last, last_checksum, membership, membership_index } =
            snapshot.unwrap_or_else(|| SnapshotBase { membership, ..SnapshotBase::default() });
        let base = last.index;
        let lost = Some(log.base().index).filter(|begins| *begins > base);
        // Entries that the snapshot covers are kept for peers only: a faulty one among them
        // is no loss.
        let (covered, faulty): (Vec<_>, Vec<_>) = faulty.into_iter().partition(|faulty| faulty.id.index <= base);
        if let Some(Faulty { id, checksum, .. }) = covered.last() {
            log.compact(*id, Some(*checksum));
        }
        if log.base() == last {
            log.know_base(last_checksum);
        }
        let is_new = !has_voted && log.last().index == Index(0);
        Self {
            id,
            settings,
            memberships: membership::History::new((membership_index, membership), base, memberships),
            faults: Faults::new(faulty, lost, hard_state.term),
            guard: LostDataGuard::new(is_new, holdings),
            diverged: None,
            is_full: false,
            promises: Promises::new(hard_state.promise),
            writes: Writes::new(log.last().index, &hard_state),
            hard_state,
            leader: None,
            leader_is_member: false,
            shown_term: Term(0),
            leader_contact: None,
            role: Role::Follower,
            campaign: 0,
            commit: base,
            dispatched: base,
            applied: base,
            applying: Applying::default(),
            loading: false,
            snapshot: base,
            log,
        }
    }

    /// Handles a message from `from`, which the network has authenticated. The only entry for
    /// messages of the rules: terms are bounded and compared here (paper §5.1). Messages that are
    /// valid in any term go to their rules before the comparison.
    pub fn receive(&mut self, now: Moment, from: NodeId, message: Message, out: &mut Vec<Effect>) {
        if !self.accepts(now, from, &message, out) {
            return;
        }
        let Message { term, body } = message;
        match body {
            Body::RequestVote(request) => return self.vote_requested(now, from, term, request, out),
            Body::Removed(removed) => return self.told_removed(now, from, removed, out),
            Body::Repair(repair) => return self.repair_asked(now, from, term, repair, out),
            Body::Emptied(emptied) => return self.told_data_lost(from, emptied, out),
            Body::Holdings(holdings) => return self.holdings_told(from, holdings, out),
            _ => {}
        }
        if term < self.term() {
            return self.answer_stale(now, from, body, out);
        }
        if term > self.term() {
            self.adopt(now, term, out);
        }
        match body {
            Body::Append(append) => self.append_received(now, from, append, out),
            Body::Heartbeat(heartbeat) => self.heartbeat_received(now, from, heartbeat, out),
            Body::Vote(vote) => self.vote_received(now, from, vote, out),
            Body::AppendReply(reply) => self.append_answered(now, from, reply, out),
            Body::HeartbeatReply(reply) => self.heartbeat_answered(now, from, reply, out),
            Body::SnapshotChunk(chunk) => self.snapshot_chunk_received(now, from, chunk, out),
            Body::SnapshotReply(reply) => self.snapshot_answered(now, from, reply, out),
            Body::RepairReply(reply) => self.repair_answered(now, from, reply, out),
            Body::TimeoutNow(TimeoutNow { last }) => self.told_to_campaign(now, from, last, out),
            // Valid in any term, and handled above.
            Body::RequestVote(_) | Body::Repair(_) | Body::Emptied(_) | Body::Holdings(_) | Body::Removed(_) => {}
            // Forwarded: the runtime serves them after [`Replica::receive_term`].
            Body::Propose(_) | Body::ProposeReply(_) => {}
            Body::ReadIndex(_) | Body::ReadIndexReply(_) => {}
            Body::Administer(_) | Body::Administered(_) => {}
        }
    }

    /// Handles the term of a forwarded request, or of an answer to one, as [`Replica::receive`]
    /// does for other messages. The runtime serves the rest of it.
    pub fn receive_term(&mut self, now: Moment, from: NodeId, message: &Message, out: &mut Vec<Effect>) {
        if self.accepts(now, from, message, out) && message.term > self.term() {
            self.adopt(now, message.term, out);
        }
    }

    /// Bounds the term of a message and admits its sender; otherwise counts the refusal.
    fn accepts(&mut self, now: Moment, from: NodeId, message: &Message, out: &mut Vec<Effect>) -> bool {
        let term = message.term;
        let is_malformed = term >= TERM_LIMIT || self.is_out_of_reach(term) || from == self.id;
        let admitted =
            if is_malformed { Err(MessageRefusal::Malformed) } else { self.admit(now, from, term, &message.body, out) };
        if let Err(reason) = admitted {
            out.push(Effect::Refused { from, reason });
        }
        admitted.is_ok()
    }

    /// Handles an election timeout. `term` is the one in which the timer was armed; a later term
    /// has armed it anew.
    pub fn election_timeout(&mut self, now: Moment, term: Term, out: &mut Vec<Effect>) {
        if term != self.term() {
            return;
        }
        // The timer never stays disarmed.
        out.push(Effect::ArmTimer);
        match self.role {
            // Heartbeats need no disk: they would hide for ever that no write completes
            // here any more.
            Role::Leader(_) if self.is_stalled(now) => self.step_down(out),
            Role::Leader(_) => {
                self.watch_commits(out);
                self.check_quorum(now, out);
            }
            _ if self.refuses_elections(now) || self.is_stalled(now) => {}
            _ => self.campaign(now, out),
        }
    }

    /// The node's thread did not run for `by`, until `now`. Messages that arrived meanwhile
    /// were not handled, so that time is not their senders' silence: it does not count as time
    /// since a contact.
    ///
    /// Promises to leaders become longer by it, never shorter. A lease does not move: it counts by
    /// the clock alone.
    pub fn stalled(&mut self, now: Moment, by: Duration) {
        let excuse = |contact: &mut Moment| *contact = contact.plus(by).min(now).max(*contact);
        self.leader_contact.iter_mut().for_each(excuse);
        if let Role::Leader(leadership) = &mut self.role {
            leadership.contacts().for_each(excuse);
        }
    }

    /// Everything up to `sequence` is durable. Completions may arrive in any order; a lower
    /// one is redundant.
    pub fn persisted(&mut self, now: Moment, sequence: u64, out: &mut Vec<Effect>) {
        let vote_for_self = self.writes.completed(sequence).filter(|campaign| *campaign == self.campaign);
        self.faults.persisted(sequence);
        self.promise_persisted();
        if let (Some(campaign), Role::Candidate) = (vote_for_self, &self.role) {
            out.push(Effect::CountVote { campaign, voter: self.id, granted: true });
        }
        self.advance_commit(now, out);
        self.dispatch(out);
    }

    /// The storage is about to run out of room (`full`), or has room again. A node without room
    /// votes and follows, and does not lead.
    pub fn storage_full(&mut self, full: bool, out: &mut Vec<Effect>) {
        self.is_full = full;
        if full && !matches!(self.role, Role::Follower) {
            self.step_down(out);
        }
    }

    /// Whether the storage is about to run out of room for entries.
    #[must_use]
    pub fn is_storage_full(&self) -> bool {
        self.is_full
    }

    /// The state machine has applied everything up to `index`.
    pub fn applied(&mut self, index: Index, out: &mut Vec<Effect>) {
        // A restored snapshot may be newer than the one that [`Effect::Restore`] named.
        let before = self.applied;
        self.applied = before.max(index.min(self.dispatched));
        // Progress: the time for the next entry is measured anew.
        self.applying.since.take_if(|_| self.applied > before);
        self.dispatch(out);
    }

    /// Answers [`Effect::Load`]: consecutive batches from its first entry on, or none if the
    /// storage no longer has it.
    pub fn loaded(&mut self, batches: Vec<Batch>, out: &mut Vec<Effect>) {
        self.loading = false;
        self.note_entry_before_fault(&batches);
        for batch in batches {
            let wanted = batch.from(self.dispatched.next()).and_then(|batch| batch.up_to(self.dispatchable()));
            if let Some(batch) = wanted.filter(|batch| batch.first() == self.dispatched.next()) {
                self.dispatched = batch.last();
                out.push(Effect::Apply(batch));
            }
        }
        self.dispatch(out);
    }

    /// Dispatches committed entries to the state machine, up to `dispatchable`.
    fn dispatch(&mut self, out: &mut Vec<Effect>) {
        while !self.loading && self.dispatched < self.dispatchable() {
            match self.log.lookup(self.dispatched.next(), self.dispatchable(), usize::MAX) {
                Lookup::Cached(batch) => {
                    self.dispatched = batch.last();
                    out.push(Effect::Apply(batch));
                }
                Lookup::OnDisk(to) => {
                    self.loading = true;
                    out.push(Effect::Load { from: self.dispatched.next(), to: to.min(self.dispatchable()) });
                }
                Lookup::Compacted | Lookup::Beyond => break,
            }
        }
        self.log.evict(self.dispatched.min(self.writes.durable()), self.settings.cache_bytes_max);
    }

    fn dispatchable(&self) -> Index {
        let room = self.applied.plus(self.settings.unapplied_entries_max);
        let here = if self.is_leader() { self.commit } else { self.commit.min(self.writes.durable()) };
        let whole = self.faults.first().map_or(Index(u64::MAX), Index::previous);
        here.min(room).min(whole)
    }

    /// Follows in a later term: all that belonged to the old one is over (paper §5.1).
    fn adopt(&mut self, now: Moment, term: Term, out: &mut Vec<Effect>) {
        debug_assert!(term > self.term());
        self.step_down(out);
        self.hard_state = HardState { term, vote: None, ..self.hard_state };
        self.forget_shown_term();
        self.diverged = None;
        self.faults.term_changed();
        self.persist(now, Persist { hard_state: Some(self.hard_state), ..Persist::default() }, out);
        out.push(Effect::ArmTimer);
    }

    /// Becomes a follower. The term stays, and with it the vote: forgetting it would allow
    /// a second one.
    fn step_down(&mut self, out: &mut Vec<Effect>) {
        if self.is_leader() {
            // A later leadership of this node knows only the holdings that are remembered.
            self.remember_holdings(out);
        }
        self.leader = None;
        self.leader_is_member = false;
        match core::mem::replace(&mut self.role, Role::Follower) {
            Role::Follower => {}
            Role::PreCandidate | Role::Candidate => out.push(Effect::CloseBallot),
            Role::Leader(mut leadership) => {
                out.push(Effect::StopReplicators);
                if self.has_left() && !self.membership().contains(self.id) {
                    out.push(Effect::Removed { at: self.membership_index() });
                }
                let tokens = leadership.reads.abandon();
                if !tokens.is_empty() {
                    out.push(Effect::ReadsFailed { tokens });
                }
            }
        }
    }

    /// Whether this node grants no vote and does not campaign: it leads, or it promised so to a
    /// leader that it heard lately. A later term does not end the promise, for that leader may not
    /// know of it (thesis §4.2.3, §6.4.1).
    fn refuses_elections(&self, now: Moment) -> bool {
        self.hears_leader(now) || (!self.is_leader() && self.is_promised(now))
    }

    /// Whether the leader of the current term, a member, was heard lately. A leader counts as heard
    /// while it hears a quorum.
    fn hears_leader(&self, now: Moment) -> bool {
        let recently = |contact: Moment| now.since(contact) < self.settings.election_timeout_min;
        match &self.role {
            Role::Leader(leadership) => self.hears_quorum(now, leadership),
            _ => self.leader_is_member && self.leader_contact.is_some_and(recently),
        }
    }

    /// Whether the disk has been at one write, or the state machine at one entry, for too
    /// long to lead.
    fn is_stalled(&self, now: Moment) -> bool {
        let too_long = |since: Moment| now.since(since) >= self.settings.stall_limit;
        self.writes.waiting_since().is_some_and(too_long) || self.applying.since.is_some_and(too_long)
    }

    /// Observes whether the state machine makes progress.
    fn watch_applying(&mut self, now: Moment) {
        let is_idle = self.applied >= self.dispatched;
        let moved = self.applying.seen != self.applied;
        if is_idle {
            self.applying.since = None;
        } else if moved || self.applying.since.is_none() {
            self.applying.since = Some(now);
        }
        self.applying.seen = self.applied;
    }

    /// Answers a request of an old term, so that its sender learns of the new one.
    ///
    /// The answer carries the new term, and the sender may lead in that by now. So the answer names
    /// no epoch and no round of the old leadership, which a new one could take for its own.
    fn answer_stale(&mut self, now: Moment, to: NodeId, body: Body, out: &mut Vec<Effect>) {
        match body {
            Body::Append(append) => {
                let previous = append.previous.index;
                let (conflict, last) = (self.log.conflict_at(previous), self.log.last().index);
                let outcome = AppendOutcome::Rejected { previous, conflict, last, log_last: last };
                self.say(now, to, Body::AppendReply(AppendReply { epoch: Progress::NO_EPOCH, outcome }), out);
            }
            Body::Heartbeat(_) => {
                let reply = HeartbeatReply { round: Reads::NO_ROUND, promise: Promise::NONE };
                self.say(now, to, Body::HeartbeatReply(reply), out);
            }
            _ => {}
        }
    }

    /// Sends a message that promises at most the current term and vote: at once if they are
    /// durable, otherwise as soon as they are.
    fn say(&mut self, now: Moment, to: NodeId, body: Body, out: &mut Vec<Effect>) {
        if self.writes.hard_state_is_durable() {
            out.push(Effect::Send(self.outgoing(to, body)));
        } else {
            self.say_when_durable(now, to, body, out);
        }
    }

    /// Sends a message that promises entries: as soon as every write so far is durable.
    fn say_when_durable(&mut self, now: Moment, to: NodeId, body: Body, out: &mut Vec<Effect>) {
        let message = self.outgoing(to, body);
        if self.writes.is_idle() {
            out.push(Effect::Send(message));
        } else {
            self.persist(now, Persist { then: alloc::vec![message], ..Persist::default() }, out);
        }
    }

    fn outgoing(&self, to: NodeId, body: Body) -> Outgoing {
        Outgoing { to, message: Message { term: self.term(), body } }
    }

    fn persist(&mut self, now: Moment, persist: Persist, out: &mut Vec<Effect>) {
        self.write(now, persist, None, out);
    }

    /// The same as `persist`, for a write that may hold a candidate's own vote.
    fn write(&mut self, now: Moment, mut persist: Persist, campaign: Option<u64>, out: &mut Vec<Effect>) {
        if let Some(state) = &mut persist.hard_state {
            self.forget_earlier_promise(now);
            state.promise = self.hard_state.promise;
        }
        let promises = persist.batch.is_some() || persist.cut.is_some();
        self.guard.is_new &= !promises && persist.hard_state.is_none_or(|state| state.vote.is_none());
        let repairs_to = persist.repair.as_ref().map(Batch::last);
        let persist = self.writes.start(now, persist, self.log.last().index, campaign);
        if let Some(to) = repairs_to {
            self.faults.repair_started(persist.sequence, to);
        }
        out.push(Effect::Persist(persist));
    }
}
