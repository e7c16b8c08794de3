//! The replica: one node's term and vote, its view of the log, its role, and every rule that
//! changes them.
//!
//! This file has the events that concern all rules: a message ([`Replica::receive`]), the election
//! timeout, and what the storage and the clock report. The events of one rule are functions of the
//! module with that rule. Each takes facts and pushes [`Effect`]s.
//!
//! | module | content |
//! | --- | --- |
//! | `state`, with `leadership`, `faults`, `writes` | [`Replica`] and its parts: plain state, no rules |
//! | `start`, `effect`, `view` | recovered state and settings; effects and violations; getters |
//! | `observation` | decisions with their reasons, for observers |
//! | `follower`, `voter`, `candidate`, `leader` | the roles, as in Figure 2 of the paper |
//! | `durability`, `applying` | writes before messages; committed entries for the state machine |
//! | `members`, `leadership_transfer` | membership changes; leadership transfer |
//! | `reads`, `promises` | read index and lease; the promises that leases rest on |
//! | `snapshots` | log compaction and installed snapshots |
//! | `witness` | replication to a witness |
//! | `outside` | messages from nodes outside the configuration |
//! | `lost_data` | lost-data guard: members that lost their data directory |
//! | `repair`, `divergence` | entries that the disk lost; logs that differ under the same ids |
//!
//! A module with rules imports state and effects, and no other module with rules: it reaches those
//! as methods of [`Replica`].

mod applying;
mod candidate;
mod divergence;
mod durability;
mod effect;
mod faults;
mod follower;
mod leader;
mod leadership;
mod leadership_transfer;
mod lost_data;
mod members;
mod observation;
mod outside;
mod promises;
mod reads;
mod repair;
mod snapshots;
mod start;
mod state;
mod view;
mod voter;
mod witness;
mod writes;

pub use effect::{Cut, Effect, MessageRefusal, Persist, Violation};
pub use leader::Entries;
pub use leadership::Leadership;
pub use observation::{Denial, Observation, StepDown};
pub use start::{Faulty, HardState, Recovered, Settings};
pub use state::{Replica, Role};

use crate::{
    ids::{Moment, NodeId, Term},
    lease::Promise,
    message::{Body, HeartbeatReply, Message, TimeoutNow},
    reads::Reads,
};
use alloc::vec::Vec;
use core::time::Duration;

/// Terms at or above this are refused: no cluster gets there, and sums with it can't overflow.
const TERM_LIMIT: Term = Term(u64::MAX / 2);

impl Replica {
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
            Body::Observe(_) | Body::Report(_) => return,
            _ => {}
        }
        if term < self.term() {
            return self.answer_stale(now, from, &body, out);
        }
        if term > self.term() {
            self.adopt(now, from, term, out);
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
            // For operators: the runtime handles them, and their term means nothing.
            Body::Observe(_) | Body::Report(_) => {}
        }
    }

    /// Handles the term of a forwarded request, or of an answer to one, as [`Replica::receive`]
    /// does for other messages. The runtime serves the rest of it.
    pub fn receive_term(&mut self, now: Moment, from: NodeId, message: &Message, out: &mut Vec<Effect>) {
        if self.accepts(now, from, message, out) && message.term > self.term() {
            self.adopt(now, from, message.term, out);
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
            Role::Leader(_) if self.is_stalled(now) => self.step_down(self.stall(now), out),
            Role::Leader(_) => {
                self.watch_commits(out);
                self.check_quorum(now, out);
            }
            _ if self.refuses_elections(now) || self.is_stalled(now) => {}
            _ => self.campaign(now, out),
        }
    }

    /// Lets time pass: gives up a transfer that takes too long, tells holdings, observes the state
    /// machine. Call it about once per heartbeat interval.
    pub fn tick(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.watch_applying(now);
        self.tell_holdings(now, out);
        self.watch_transfer(now, out);
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

    /// The storage is about to run out of room (`full`), or has room again. A node without room
    /// votes and follows, and does not lead.
    pub fn storage_full(&mut self, full: bool, out: &mut Vec<Effect>) {
        self.is_full = full;
        if full && !matches!(self.role, Role::Follower) {
            self.step_down(StepDown::StorageFull, out);
        }
    }

    /// Answers a request of an old term, so that its sender learns of the new one.
    ///
    /// The answer carries the new term, and the sender may lead in that by now. So the answer names
    /// no round of the old leadership, which a new one could take for its own. Nor does it name the
    /// end of the log, which may be far behind once the new leadership hears of it.
    fn answer_stale(&mut self, now: Moment, to: NodeId, body: &Body, out: &mut Vec<Effect>) {
        if matches!(body, Body::Append(_) | Body::Heartbeat(_)) {
            let reply = HeartbeatReply { round: Reads::NO_ROUND, promise: Promise::NONE };
            self.say(now, to, Body::HeartbeatReply(reply), out);
        }
    }
}
