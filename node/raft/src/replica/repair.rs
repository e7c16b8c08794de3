//! Faulty entries, whose payload the disk lost, and their repair: protocol-aware recovery
//! (Alagappan et al., FAST 2018).
//!
//! The storage still knows such an entry's identity and checksum, so this node's votes and log
//! checks stay truthful. But it can't apply the entry, serve it, or acknowledge it; and it must not
//! lead. Until its log is whole again it
//! - **does not campaign**, and applies nothing at or above the first faulty entry;
//! - **rejects** every append that begins after that entry, so that its leader goes back and
//!   sends it again;
//! - **asks** every member for it while it hears no leader, as no leader may be
//!   possible without it;
//! - **forgets** it, if it is the remains of a write that was never
//!   acknowledged (see [`Replica::discard`]).
//!
//! A node that lost its state (its log begins after entries of which it has no snapshot) is like
//! one whose entries up to there are all faulty, but only a snapshot heals it.
//!
//! **Invariant:** no entry at or above the first faulty one is dispatched, or promised before its
//! repair is durable.
//!
//! **Invariant:** the entries under repair are a prefix of the faulty entries.

use super::{
    effect::{Effect, MessageRefusal, Persist},
    start::{Faulty, HardState},
    state::Replica,
};
use crate::{
    batch::Batch,
    ids::{EntryId, Index, Moment, NodeId, Term},
    message::{Body, Outgoing, Repair, RepairOutcome, RepairReply},
    quorum,
};
use alloc::{collections::BTreeSet, vec::Vec};

impl Replica {
    /// The first entry whose payload is lost; `None` if this node's log is whole.
    #[must_use]
    pub fn first_faulty(&self) -> Option<Index> {
        self.faults.first()
    }

    /// Number of entries whose payload is lost.
    #[must_use]
    pub fn faulty_count(&self) -> usize {
        self.faults.faulty.len()
    }

    /// If the state is lost: the last entry that a snapshot must cover at least to bring it back.
    /// The log begins after this entry.
    #[must_use]
    pub fn lost_up_to(&self) -> Option<Index> {
        self.faults.lost()
    }

    /// The checksum of the entry at `index`, if it is known without reading the disk; that of a
    /// faulty entry is.
    pub(super) fn checksum_of(&self, index: Index) -> Option<u32> {
        let faulty = || self.faults.get(index).map(|faulty| faulty.checksum);
        self.log.checksum_of(index).or_else(faulty)
    }

    /// The part of a batch that repairs faulty entries, if any; this log holds all entries of the
    /// batch up to `held`.
    pub(super) fn repair_in(&self, batch: &Batch, held: Index) -> Option<Batch> {
        let last = self.faults.last_open_up_to(held)?;
        let first = self.faults.first_open()?.id.index;
        batch.from(first).and_then(|batch| batch.up_to(last))
    }

    /// Asks every member for the first run of faulty entries, as no leader is heard.
    pub(super) fn ask_for_repair(&mut self, now: Moment, out: &mut Vec<Effect>) {
        let Some(first) = self.faults.first_open() else { return };
        let before = first.id.index.previous();
        if self.is_doubtful(first) && self.checksum_before(first).is_none() && !self.loading {
            // The faulty entry may have to be forgotten; then the log ends with the
            // entry before it.
            self.loading = true;
            out.push(Effect::Load { from: before, to: before });
        }
        for Outgoing { to, message } in self.repair_requests() {
            self.say(now, to, message.body, out);
        }
    }

    fn repair_requests(&self) -> Vec<Outgoing> {
        let Some(repair) = self.faults.first_open().and_then(|first| self.faults.run_from(first.id.index)) else {
            return Vec::new();
        };
        let peers = self.membership().peers_of(self.id);
        peers.into_iter().map(|to| self.outgoing(to, Body::Repair(repair))).collect()
    }

    /// A member asks for entries that it lost. An entry is the same in every term; but the answer
    /// that it is absent is a promise to a term (see [`Replica::discard`]), so a later term is
    /// adopted, unless a leader is heard.
    pub(super) fn repair_asked(
        &mut self,
        now: Moment,
        from: NodeId,
        term: Term,
        repair: Repair,
        out: &mut Vec<Effect>,
    ) {
        let id = repair.from;
        if id.index == Index(0) || repair.to < id.index {
            return out.push(Effect::Refused { from, reason: MessageRefusal::Malformed });
        }
        let hears_leader = self.hears_leader(now);
        if term > self.term() && !hears_leader {
            self.adopt(now, from, term, out);
        }
        let base = self.log.base();
        let outcome = match self.faults.get(id.index).filter(|faulty| faulty.id == id) {
            Some(_) if self.faults.first_open().is_none_or(|open| open.id.index > id.index) => return, // its repair is in progress
            Some(faulty) if faulty.was_durable => RepairOutcome::Lost,
            Some(_) => RepairOutcome::Absent,
            // A witness had the entry, and can't help.
            None if id.index > base.index && self.log.contains(id) && self.is_witness() => RepairOutcome::Lost,
            None if id.index > base.index && self.log.contains(id) => {
                let repair = Repair { to: self.whole_run(id, repair.to), ..repair };
                return out.push(Effect::ServeRepair { to: from, repair });
            }
            None if id.index < base.index || id == base => RepairOutcome::Lost,
            None => RepairOutcome::Absent,
        };
        // A node that may have been emptied does not know its past. And if a leader is heard, the
        // asker will hear it too.
        let speaks = !self.guard.is_new && !hears_leader;
        match outcome {
            RepairOutcome::Absent if !speaks => {}
            outcome => {
                let reply = RepairReply { from: id, outcome, batch: None };
                self.say(now, from, Body::RepairReply(reply), out);
            }
        }
    }

    /// The last of the entries from `from` up to `to` that this log holds whole and of one term.
    fn whole_run(&self, from: EntryId, to: Index) -> Index {
        let faulty = self.faults.faulty.partition_point(|faulty| faulty.id.index <= from.index);
        let whole = self.faults.faulty.get(faulty).map_or(Index(u64::MAX), |faulty| faulty.id.index.previous());
        let run = self.log.run_end(from.index);
        to.min(whole).min(run)
    }

    /// Answers [`Effect::ServeRepair`] with the batches that were found, which may be fewer than
    /// asked for, or none.
    #[must_use]
    pub fn repair_reply(&self, repair: Repair, batches: Vec<Batch>) -> Body {
        let fits = |batch: &Batch| EntryId::new(batch.term(), batch.first()) == repair.from;
        let found = batches.into_iter().next().and_then(|batch| batch.from(repair.from.index)).filter(fits);
        let batch = found.and_then(|batch| batch.up_to(repair.to));
        // Nothing was found: a truncation or a cut overtook the request. That says nothing
        // about the entry.
        let outcome = if batch.is_some() { RepairOutcome::Here } else { RepairOutcome::Lost };
        Body::RepairReply(RepairReply { from: repair.from, outcome, batch })
    }

    /// A member answered a request for faulty entries.
    pub(super) fn repair_answered(&mut self, now: Moment, from: NodeId, reply: RepairReply, out: &mut Vec<Effect>) {
        let Some(first) = self.faults.first_open().filter(|first| first.id == reply.from) else { return };
        match (reply.outcome, reply.batch.and_then(|batch| self.in_local_form(batch))) {
            (RepairOutcome::Here, Some(batch)) => self.repair_with(now, from, batch, out),
            (RepairOutcome::Here, None) => out.push(Effect::Refused { from, reason: MessageRefusal::Malformed }),
            (RepairOutcome::Absent, _) => self.absent_at(now, from, first, out),
            (RepairOutcome::Lost, _) => {}
        }
    }

    fn repair_with(&mut self, now: Moment, from: NodeId, batch: Batch, out: &mut Vec<Effect>) {
        let Some(wanted) = self.faults.first_open().and_then(|first| self.faults.run_from(first.id.index)) else {
            return;
        };
        let fits = EntryId::new(batch.term(), batch.first()) == wanted.from;
        let Some(batch) = batch.up_to(wanted.to).filter(|_| fits) else {
            return out.push(Effect::Refused { from, reason: MessageRefusal::Malformed });
        };
        let Ok(changes) = batch.memberships() else {
            return out.push(Effect::Refused { from, reason: MessageRefusal::Malformed });
        };
        if let Some(at) = self.difference_in(&batch, batch.last()) {
            return out.push(Effect::Diverged { at, with: from });
        }
        // The same member is asked for the next ones, as soon as these are durable.
        let next = self.faults.run_from(batch.last().next());
        let then = next.map(|repair| self.outgoing(from, Body::Repair(repair))).into_iter().collect();
        let version = self.memberships.version();
        for (index, membership) in changes {
            self.memberships.repaired(index, membership);
        }
        if self.memberships.version() != version {
            out.push(Effect::MembersChanged);
        }
        self.persist(now, Persist { repair: Some(batch), then, ..Persist::default() }, out);
    }

    /// A member does not have the `first` faulty entry.
    fn absent_at(&mut self, now: Moment, from: NodeId, first: Faulty, out: &mut Vec<Effect>) {
        // A leader holds the entry, or another one in its place, and will send it.
        if !self.is_doubtful(first) || self.leader.is_some() || !self.membership().is_voter(from) {
            return;
        }
        if self.faults.absent.0 != first.id {
            self.faults.absent = (first.id, BTreeSet::new());
        }
        self.faults.absent.1.insert(from);
        let absent = |id| id != self.id && self.faults.absent.1.contains(&id);
        if !quorum::reached(self.membership(), absent) {
            return;
        }
        if self.term() == self.faults.recovered_in {
            self.ask_in_a_later_term(now, out);
        } else {
            self.discard(now, first, out);
        }
    }

    /// Asks again in a later term. A quorum says that the entry is absent; but said in a term in
    /// which this node may have acknowledged it, the answers leave its members free to accept it a
    /// moment later. In the new term they do not.
    fn ask_in_a_later_term(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.hard_state = HardState { term: self.term().next(), vote: None, ..self.hard_state };
        self.forget_shown_term();
        self.faults.term_changed();
        let then = self.repair_requests();
        self.persist(now, Persist { hard_state: Some(self.hard_state), then, ..Persist::default() }, out);
        out.push(Effect::ArmTimer);
    }

    /// Forgets the `first` faulty entry and all after it: it is the remains of a torn write.
    ///
    /// The entry is not proven to have ever been durable here, and a quorum of the others answered
    /// that they do not have it. Had it been committed, a quorum would have held it durably, and so
    /// would one of those that answered: on *its* disk it would have been lost without a trace,
    /// too. And this node's acknowledgement, which may still be in flight, can't commit it: all of
    /// them answered in a later term than any in which this node was up before its crash, and from
    /// then on they take the entry from no leader that could have had that acknowledgement.
    ///
    /// This node does not count itself among them: one damaged disk alone must never be enough.
    fn discard(&mut self, now: Moment, first: Faulty, out: &mut Vec<Effect>) {
        let Some(checksum) = self.checksum_before(first) else { return }; // being read; the next answer finds it
        let from = first.id.index;
        self.log.truncate_from(from, checksum);
        let version = self.memberships.version();
        self.memberships.truncate_from(from);
        if self.memberships.version() != version {
            out.push(Effect::MembersChanged);
        }
        self.faults.truncated_from(from);
        self.persist(now, Persist { truncate_from: Some(from), ..Persist::default() }, out);
    }

    /// Whether the entry may never have been acknowledged.
    fn is_doubtful(&self, faulty: Faulty) -> bool {
        !faulty.was_durable && faulty.id.index > self.commit
    }

    fn checksum_before(&self, faulty: Faulty) -> Option<u32> {
        let before = faulty.id.index.previous();
        let read = || self.faults.read.filter(|(index, _)| *index == before).map(|(_, checksum)| checksum);
        self.checksum_of(before).or_else(read)
    }

    /// Entries were read: the one before a doubtful entry may be among them.
    pub(super) fn note_entry_before_fault(&mut self, batches: &[Batch]) {
        let Some(before) = self.faults.first_open().map(|first| first.id.index.previous()) else { return };
        let last = batches.last().filter(|batch| batch.last() == before && self.log.contains(batch.last_id()));
        if let Some(batch) = last {
            self.faults.read = Some((before, batch.checksum()));
        }
    }
}
