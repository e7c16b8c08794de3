//! The external observer of a simulated cluster, and the properties that it checks.
//!
//! The observer outlives every node, and trusts none. It compares messages with the durable data of
//! their senders, the entries that a node applies with those that others applied, and the answers
//! to callers with the applied commands. The first violation ends the run.
//!
//! - **One vote.** All votes of a node in a term name one candidate.
//! - **Election safety.** Only one node ever sends entries, heartbeats or snapshots in a term.
//! - **Durable promises.** A term, a vote, an entry or a snapshot that a message promises was
//!   reported durable before the message left; and all data reported durable is recovered
//!   after every crash.
//! - **Log matching.** Entries of one id have one checksum, in every append and every answer
//!   to a repair.
//! - **Leader completeness.** No leader of a later term sends another entry in the place of
//!   an applied one.
//! - **State machine safety.** The command applied at an index, and the state after it, is the same
//!   on every node in every life.
//! - **At most once.** A command is applied at one index at most, however often it was proposed;
//!   one that definitely failed, at none. A caller that retries gets the index and the reply of
//!   the first application.
//! - **A tie-break, no more.** The witness member stores no commands, writes no state, never leads,
//!   and is sent only entries that a member with commands holds.
//! - **Sessions.** All snapshots of the state after one entry are equal to the last byte, sessions
//!   included, and hold no more sessions than the bound.

use super::{
    observed_storage::Promised,
    registers::{Command, State},
};
use crate::{report::Report, trace::Trace};
use quorate::{Index, NodeId};
use quorate_raft::{
    AppendOutcome, Batch, Body, Kind, Message, Phase, RepairOutcome, SnapshotOutcome, Term, record::Record, session,
};
use quorate_storage::Recovered;
use quorate_storage_testing::SimulatedDisk;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The observer, shared by all parts of a run that report to it.
#[derive(Clone)]
pub(super) struct SharedObserver(Arc<Mutex<Observer>>);

impl SharedObserver {
    /// `stateless` is the witness member, which stores no commands.
    pub(super) fn new(trace: Trace, stateless: Option<NodeId>) -> Self {
        Self(Arc::new(Mutex::new(Observer::new(trace, stateless))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Observer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The record of all facts that the checks compare.
pub(super) struct Observer {
    pub(super) now: Duration,
    pub(super) trace: Trace,
    pub(super) report: Report,
    violation: Option<String>,
    /// The witness member, which stores no commands.
    stateless: Option<NodeId>,
    disks: BTreeMap<NodeId, Disk>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    leaders: BTreeMap<Term, NodeId>,
    /// The checksum of every entry that was ever sent.
    entries: BTreeMap<(Index, Term), u32>,
    applied: BTreeMap<Index, Applied>,
    /// The index at which each operation's command was applied.
    indexes: BTreeMap<u64, Index>,
    /// The first reply of the state machine to each operation's command.
    replies: BTreeMap<u64, bool>,
    /// The checksum of every state written in a snapshot, with the first node that wrote it.
    written: BTreeMap<Index, (NodeId, u32)>,
    /// The operations that did not and will not take effect, as their callers were told.
    failed: BTreeSet<u64>,
}

/// An entry, as it was applied for the first time.
struct Applied {
    command: Command,
    /// The state after the entry.
    state: State,
    /// The latest term with a leader by then: the entry was committed in that term or
    /// an earlier one.
    during: Term,
}

/// One node's disk: survives the node, and is damaged and emptied by the plan.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) disk: SimulatedDisk,
    /// The additional time of each write.
    pub(super) syncs_take: Duration,
    /// Whether the disk has damage that may not have healed yet.
    pub(super) is_damaged: bool,
    /// Whether the disk holds data that belongs elsewhere.
    pub(super) is_misplaced: bool,
    /// The number of pending writes; `finished` counts those ever finished.
    pub(super) waiting: usize,
    pub(super) finished: u64,
    pub(super) promised: Promised,
}

impl Observer {
    fn new(trace: Trace, stateless: Option<NodeId>) -> Self {
        Self {
            now: Duration::ZERO,
            trace,
            report: Report::default(),
            violation: None,
            stateless,
            disks: BTreeMap::new(),
            votes: BTreeMap::new(),
            leaders: BTreeMap::new(),
            entries: BTreeMap::new(),
            applied: BTreeMap::new(),
            indexes: BTreeMap::new(),
            replies: BTreeMap::new(),
            written: BTreeMap::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Records a violation. The first one stands.
    pub(super) fn fail(&mut self, violation: String) {
        self.trace.say(self.now, &format_args!("VIOLATED  {violation}"));
        self.violation.get_or_insert(violation);
    }

    /// The first violation, if there is one.
    pub(super) fn violation(&self) -> Option<String> {
        self.violation.clone()
    }

    /// Adds a line to the trace.
    pub(super) fn say(&mut self, what: fmt::Arguments<'_>) {
        self.trace.say(self.now, &what);
    }

    pub(super) fn disk(&mut self, node: NodeId) -> &mut Disk {
        self.disks.entry(node).or_default()
    }

    pub(super) fn promised(&mut self, node: NodeId) -> &mut Promised {
        &mut self.disk(node).promised
    }

    /// A node's directory was emptied: its earlier promises count no more.
    pub(super) fn wiped(&mut self, node: NodeId) {
        self.disks.insert(node, Disk::default());
    }

    /// Checks a recovered log against the promises, then takes it as the new promise.
    pub(super) fn recovered(
        &mut self,
        node: NodeId,
        recovered: &Recovered,
        check: impl FnOnce(&Promised, bool) -> Result<(), String>,
    ) {
        let disk = self.disk(node);
        let checked = check(&disk.promised, disk.is_damaged);
        disk.promised = Promised::from(recovered);
        disk.waiting = 0;
        self.report.count("recoveries", 1);
        self.report.count("faulty entries", recovered.faulty.len() as u64);
        let (state, last, faulty) = (recovered.hard_state, recovered.last, recovered.faulty.len());
        self.trace.hash(&(node, state.term, state.vote, last));
        self.say(format_args!("{node} recovers {state:?}, log up to {last}, {faulty} faulty {:?}", recovered.repairs));
        if let Err(what) = checked {
            self.fail(format!("durable promises: of node {node}, {what}"));
        }
    }

    /// Checks a message as it leaves its sender.
    pub(super) fn sent(&mut self, from: NodeId, to: NodeId, message: &Message) {
        self.report.steps += 1;
        let term = message.term;
        if let Err(what) = self.promises(from, to, message) {
            self.fail(format!("durable promises: {from} says {} to {to}, but {what}", brief(message)));
        }
        if let Err(what) = self.spares(from, to, message) {
            self.fail(format!("tie-break: {from} says {} to {to}, {what}", brief(message)));
        }
        let vote = match &message.body {
            Body::Vote(vote) if vote.phase == Phase::Vote && vote.granted => Some(to),
            Body::RequestVote(request) if request.phase == Phase::Vote => Some(from),
            _ => None,
        };
        if let Some(candidate) = vote {
            let voted = *self.votes.entry((from, term)).or_insert(candidate);
            if voted != candidate {
                self.fail(format!("one vote: {from} voted for {voted} and {candidate} in term {term}"));
            }
        }
        if matches!(message.body, Body::Append(_) | Body::Heartbeat(_) | Body::SnapshotChunk(_)) {
            let leader = *self.leaders.entry(term).or_insert(from);
            if leader != from {
                self.fail(format!("election safety: {leader} and {from} both lead term {term}"));
            }
        }
        match &message.body {
            Body::Append(append) => {
                append.batch.iter().for_each(|batch| self.entries_sent(from, term, batch));
            }
            Body::RepairReply(reply) => reply.batch.iter().for_each(|batch| self.entries_sent(from, Term(0), batch)),
            _ => {}
        }
    }

    /// Checks that the witness member serves as a tie-break only.
    fn spares(&mut self, from: NodeId, to: NodeId, message: &Message) -> Result<(), String> {
        let leads = match &message.body {
            Body::RequestVote(request) => request.phase == Phase::Vote,
            body => matches!(body, Body::Append(_) | Body::Heartbeat(_) | Body::SnapshotChunk(_)),
        };
        if Some(from) == self.stateless && leads {
            return Err("and keeps no commands".into());
        }
        let Body::Append(append) = &message.body else { return Ok(()) };
        let Some(last) = append.batch.as_ref().filter(|_| Some(to) == self.stateless).map(Batch::last_id) else {
            return Ok(());
        };
        // A deposed leader does not know what other nodes have truncated since.
        let is_over = self.disks.values().any(|disk| disk.promised.hard_state.term > message.term);
        let is_kept = is_over || self.disks.iter().any(|(id, disk)| *id != to && disk.promised.holds(last));
        if is_kept { Ok(()) } else { Err("and nobody who keeps commands holds that".into()) }
    }

    /// Checks a write that a node requests: the witness member writes no commands.
    pub(super) fn writes(&mut self, node: NodeId, persist: &quorate_raft::Persist) {
        let batches = [&persist.batch, &persist.repair].into_iter().flatten();
        let mut records = batches.flat_map(Batch::records);
        let keeps = records.any(|record| matches!(record.kind, Kind::Command | Kind::Session));
        if Some(node) == self.stateless && keeps {
            self.fail(format!("tie-break: {node} writes commands"));
        }
    }

    /// Checks that all data which a message promises was reported durable.
    fn promises(&mut self, from: NodeId, to: NodeId, message: &Message) -> Result<(), String> {
        let promised = &self.disks.entry(from).or_default().promised;
        let (state, term) = (promised.hard_state, message.term);
        let is_pre_vote = match &message.body {
            Body::RequestVote(request) => request.phase == Phase::PreVote,
            Body::Vote(vote) => vote.phase == Phase::PreVote,
            // Snapshot progress, a refusal and repair data promise nothing durable.
            Body::SnapshotReply(reply) => !matches!(reply.outcome, SnapshotOutcome::Installed { .. }),
            Body::RepairReply(reply) => reply.outcome != RepairOutcome::Absent,
            Body::Propose(_) | Body::ProposeReply(_) | Body::ReadIndex(_) | Body::ReadIndexReply(_) => true,
            Body::Administer(_) | Body::Administered(_) => true,
            _ => false,
        };
        if is_pre_vote {
            return Ok(());
        }
        if state.term < term {
            return Err(format!("only term {} is durable", state.term));
        }
        let voted = match &message.body {
            Body::Vote(vote) if vote.granted => Some(to),
            Body::RequestVote(_) => Some(from),
            _ => None,
        };
        if let Some(candidate) = voted.filter(|_| state.term == term)
            && state.vote != Some(candidate)
        {
            return Err(format!("only a vote for {:?} is durable", state.vote));
        }
        let reaches = match &message.body {
            Body::AppendReply(reply) => match reply.outcome {
                AppendOutcome::Matched { matched } if state.term == term => matched,
                _ => Index(0),
            },
            Body::SnapshotReply(reply) => match reply.outcome {
                SnapshotOutcome::Installed { index } => index,
                _ => Index(0),
            },
            _ => Index(0),
        };
        let durable = promised.last().max(promised.snapshot);
        if durable < reaches { Err(format!("only entries up to {durable} are durable")) } else { Ok(()) }
    }

    fn entries_sent(&mut self, from: NodeId, term: Term, batch: &Batch) {
        for record in batch.records() {
            let (index, of) = (record.id.index, record.id.term);
            let known = *self.entries.entry((index, of)).or_insert(record.checksum);
            if known != record.checksum {
                self.fail(format!("log matching: {from} sends another entry {}", record.id));
            }
            if let Some(applied) = self.applied.get(&index)
                && term > applied.during
                && record.kind != Kind::Stub
                && command_in(&record) != Some(applied.command)
            {
                let id = record.id;
                self.fail(format!(
                    "leader completeness: {from} leads term {term} and sends {id}, where another was applied"
                ));
            }
        }
    }

    /// Compares a command that a node applied, and the state after it, with those of other nodes.
    pub(super) fn applied(&mut self, node: NodeId, index: Index, command: &Command, changed: bool, state: &State) {
        let during = self.leaders.last_key_value().map_or(Term(0), |(term, _)| *term);
        let last = self.applied.last_key_value().map_or(Index(0), |(last, _)| *last);
        match self.applied.get(&index) {
            Some(before) if before.command != *command => {
                let first = before.command;
                self.fail(format!("state machine safety: {node} applies {command:?} at {index}, others {first:?}"));
            }
            Some(before) if before.state != *state => {
                self.fail(format!("state machine safety: {node} is in another state than others behind {index}"));
            }
            Some(_) => {}
            None if index < last => {
                self.fail(format!("state machine safety: {node} applies {command:?} at {index}, others nothing there"));
            }
            None => {
                self.report.count("commits", 1);
                self.trace.hash(&(index, command));
                self.say(format_args!("{node} is the first to apply {index}: {command:?}"));
                let before = *self.indexes.entry(command.operation).or_insert(index);
                if before != index {
                    self.fail(format!("at most once: {command:?} is applied at {before} and again at {index}"));
                }
                if self.failed.contains(&command.operation) {
                    self.fail(format!(
                        "definite failures: {command:?} took effect at {index}, and its caller was told not"
                    ));
                }
                self.replies.entry(command.operation).or_insert(changed);
                self.applied.insert(index, Applied { command: *command, state: state.clone(), during });
            }
        }
    }

    /// Compares the state that a node restored from a snapshot with the observed one.
    pub(super) fn restored(&mut self, node: NodeId, index: Index, state: &State) {
        self.report.count("restored", 1);
        self.say(format_args!("{node} is restored up to {index}"));
        if self.state_at(index) != *state {
            self.fail(format!(
                "state machine safety: {node} was restored up to {index} into another state than others have"
            ));
        }
    }

    /// A caller was told that its command did not and will not take effect.
    pub(super) fn refused(&mut self, operation: u64) {
        self.failed.insert(operation);
        if let Some(index) = self.indexes.get(&operation) {
            let what = format!("definite failures: {operation} took effect at {index}, and its caller is told not");
            self.fail(what);
        }
    }

    /// The index at which an operation's command was first applied.
    pub(super) fn index_of(&self, operation: u64) -> Option<Index> {
        self.indexes.get(&operation).copied()
    }

    /// The reply to an operation's command when it was first applied.
    pub(super) fn reply_of(&self, operation: u64) -> Option<bool> {
        self.replies.get(&operation).copied()
    }

    /// Compares the checksum of a snapshot, state and sessions, with that of other nodes' snapshots
    /// of the same entry.
    pub(super) fn written(&mut self, node: NodeId, index: Index, checksum: u32) {
        if Some(node) == self.stateless {
            // The checksum of no bytes is 0.
            if checksum != 0 {
                self.fail(format!("tie-break: {node} writes a state"));
            }
            return;
        }
        let (first, other) = *self.written.entry(index).or_insert((node, checksum));
        if checksum != other {
            self.fail(format!("state machine safety: {node} writes another snapshot of entry {index} than {first}"));
        }
    }

    /// The state after the last command applied at or before `index`.
    pub(super) fn state_at(&self, index: Index) -> State {
        self.applied.range(..=index).next_back().map_or_else(State::default, |(_, applied)| applied.state.clone())
    }

    /// Adds a frame to the trace on its arrival.
    pub(super) fn arrived(&mut self, from: NodeId, to: NodeId, frame: &bytes::Bytes) {
        self.report.steps += 1;
        self.trace.hash(&(self.now, from, to, quorate_storage::checksum(0, frame)));
        if self.trace.has_text() {
            let message = super::wire::decode(frame.clone());
            let words = message.as_ref().map_or_else(|| "a damaged frame".into(), brief);
            self.say(format_args!("{from} → {to}  {words}"));
        }
    }
}

/// The command of an entry, also of one within a session.
fn command_in(record: &Record<'_>) -> Option<Command> {
    match record.kind {
        Kind::Session => match session::decode(record.payload) {
            Ok((_, session::Request::Command { command, .. })) => Command::decode(command),
            _ => None,
        },
        _ => Command::decode(record.payload),
    }
}

/// A short form of a message, for the trace.
pub(super) fn brief(message: &Message) -> String {
    let Message { term, body } = message;
    let what = match body {
        Body::Append(append) => {
            let entries = append.batch.as_ref().map(|batch| format!("{}..{}", batch.first(), batch.last()));
            let entries = entries.unwrap_or_else(|| "nothing".into());
            format!("append {entries} behind {}, commit {}, epoch {}", append.previous, append.commit, append.epoch)
        }
        Body::SnapshotChunk(chunk) => {
            format!("snapshot {} from byte {}, {} bytes", chunk.snapshot.base.last, chunk.offset, chunk.bytes.len())
        }
        Body::Propose(propose) => format!("propose {} commands", propose.commands.len()),
        Body::RepairReply(reply) => format!("repair of {}: {:?}", reply.from, reply.outcome),
        other => format!("{other:?}"),
    };
    format!("[term {term}] {what}")
}
