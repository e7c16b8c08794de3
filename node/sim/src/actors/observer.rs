//! The external observer of a simulated cluster, and the properties that it checks.
//!
//! The observer outlives every node, and trusts none. It compares messages with the durable data of
//! their senders, the entries that a node applies with those that others applied, and the answers
//! to callers with the applied commands. The first violation ends the run.
//!
//! The safety properties are those of [`quorate_world::oracle`], which is told here what leaves the
//! nodes, what they write and what their state machines apply. Of the callers, this module checks:
//!
//! - **Durable promises.** All data reported durable is recovered after every crash.
//! - **At most once.** A caller that retries gets the index and the reply of the first application.

use super::{
    frames,
    promised::Promised,
    registers::{Command, State},
    releases::Releases,
    service, timers,
};
use crate::{plan::Plan, report::Report, trace::Trace};
use quorate::{Index, LogTime, NodeId, service::internal::Internal};
use quorate_raft::{Batch, Body, EntryId, HardState, Kind, Message, Term, record::Record, session};
use quorate_storage::Recovered;
use quorate_storage_testing::SimulatedDisk;
use quorate_world::oracle::{Cluster, Content, Durable, Oracle, witness};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The observer, shared by all parts of a run that report to it.
#[derive(Clone)]
pub(super) struct SharedObserver(Arc<Mutex<Observer>>);

impl SharedObserver {
    pub(super) fn new(trace: Trace, plan: &Plan) -> Self {
        Self(Arc::new(Mutex::new(Observer::new(trace, plan))))
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
    oracle: Oracle,
    disks: Disks,
    pub(super) timers: timers::Seen,
    pub(super) twin: service::Twin,
    pub(super) releases: Releases,
    /// The state after each command.
    states: BTreeMap<Index, State>,
    /// The first reply of the state machine to each operation's command.
    replies: BTreeMap<u64, bool>,
}

/// The disks of all nodes.
struct Disks {
    of: BTreeMap<NodeId, Disk>,
    /// The witness member, which stores no commands.
    witness: Option<NodeId>,
    /// Nodes with directories that were emptied or put back.
    emptied: BTreeSet<NodeId>,
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
    fn new(trace: Trace, plan: &Plan) -> Self {
        let mut oracle = Oracle::default();
        // Nothing has another state to compare this one with.
        let _ = oracle.state_machines.state_after(NodeId(0), Index(0), digest(&State::default()));
        Self {
            now: Duration::ZERO,
            trace,
            report: Report::default(),
            violation: None,
            oracle,
            disks: Disks { of: BTreeMap::new(), witness: plan.witness, emptied: BTreeSet::new() },
            timers: timers::Seen::new(plan),
            twin: service::Twin::new(plan.seed),
            releases: Releases::new(plan),
            states: BTreeMap::from([(Index(0), State::default())]),
            replies: BTreeMap::new(),
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
        self.disks.of.entry(node).or_default()
    }

    pub(super) fn promised(&mut self, node: NodeId) -> &mut Promised {
        &mut self.disk(node).promised
    }

    /// A node's directory was emptied: its earlier promises count no more.
    pub(super) fn wiped(&mut self, node: NodeId) {
        self.disks.of.insert(node, Disk::default());
        self.disks.emptied.insert(node);
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

    /// Records the outcome of a check.
    fn must(&mut self, checked: Result<(), String>) {
        if let Err(violation) = checked {
            self.fail(violation);
        }
    }

    /// Checks a message as it leaves its sender.
    pub(super) fn sent(&mut self, from: NodeId, to: NodeId, message: &Message) {
        self.report.steps += 1;
        self.disk(from);
        let checked = self.oracle.leaves(from, to, message, &self.disks);
        self.must(checked);
        let (batch, term) = match &message.body {
            Body::Append(append) => (append.batch.as_ref(), message.term),
            Body::RepairReply(reply) => (reply.batch.as_ref(), Term(0)),
            _ => return,
        };
        for record in batch.into_iter().flat_map(Batch::records) {
            let checked =
                self.oracle.state_machines.entry_sent(from, term, record.id, record.checksum, content_of(&record));
            self.must(checked);
        }
    }

    /// Checks a write that a node requests.
    pub(super) fn writes(&mut self, node: NodeId, persist: &quorate_raft::Persist) {
        for record in persist.batch.iter().flat_map(Batch::records) {
            if let Some(command) = command_of(&record) {
                self.timers.written(command.operation, self.now);
            }
            if let (Kind::Internal, Some(Internal::Version(version))) = (record.kind, Internal::decode(record.payload))
            {
                let checked = self.releases.written(version);
                self.must(checked);
            }
        }
        self.must(witness::writes(node, persist, self.disks.witness));
    }

    /// Compares a command that a node applied, and the state after it, with those of other nodes.
    pub(super) fn applied(&mut self, node: NodeId, index: Index, command: &Command, changed: bool, state: &State) {
        match self.oracle.command_applied(node, index, digest(command)) {
            Err(violation) => return self.fail(format!("{violation}: {command:?}")),
            Ok(true) => self.first_applied(node, index, command, changed, state),
            Ok(false) => {}
        }
        let checked = self.oracle.state_machines.state_after(node, index, digest(state));
        self.must(checked);
    }

    /// A command was applied, and set a timer or none.
    pub(super) fn timer_set(&mut self, node: NodeId, operation: u64, set: Result<Option<LogTime>, String>) {
        match set {
            Ok(due) => due.into_iter().for_each(|_| self.timers.set(operation)),
            Err(violation) => self.fail(format!("{violation}, on {node}")),
        }
    }

    /// A typed service did what the twin checks.
    pub(super) fn served(&mut self, node: NodeId, checked: Result<(), String>) {
        for (what, more) in self.twin.take_counts() {
            self.report.count(what, more);
        }
        if let Err(violation) = checked {
            self.fail(format!("{violation}, on {node}"));
        }
    }

    /// Requests and answers of effects arrive that are due.
    pub(super) fn outside_advances(&mut self) {
        match self.twin.outside.advance(self.now) {
            Ok(counted) => counted.into_iter().for_each(|what| self.report.count(what, 1)),
            Err(violation) => self.fail(violation),
        }
    }

    /// The tick at `index` fired the timers of these operations.
    pub(super) fn timers_fired(&mut self, node: NodeId, index: Index, fired: Result<Vec<u64>, String>) {
        match fired.and_then(|fired| {
            fired
                .into_iter()
                .try_fold(0, |first, operation| Ok(first + u64::from(self.timers.fired(operation, index, self.now)?)))
        }) {
            Ok(first) => self.report.count("timers fired", first),
            Err(violation) => self.fail(format!("{violation}, on {node}")),
        }
    }

    fn first_applied(&mut self, node: NodeId, index: Index, command: &Command, changed: bool, state: &State) {
        self.report.count("commits", 1);
        self.trace.hash(&(index, command));
        self.say(format_args!("{node} is the first to apply {index}: {command:?}"));
        let checked = self.oracle.operations.applied(command.operation, index);
        self.must(checked);
        self.replies.entry(command.operation).or_insert(changed);
        self.states.insert(index, state.clone());
    }

    /// Compares the state that a node restored from a snapshot with the observed one.
    pub(super) fn restored(&mut self, node: NodeId, index: Index, state: &State) {
        self.report.count("restored", 1);
        self.say(format_args!("{node} is restored up to {index}"));
        // The state is that after the last command: entries between commands do not change it.
        let last = self.states.range(..=index).next_back().map_or(Index(0), |(last, _)| *last);
        let checked = self.oracle.state_machines.state_after(node, last, digest(state));
        self.must(checked);
    }

    /// A caller was told that its command did not and will not take effect.
    pub(super) fn refused(&mut self, operation: u64) {
        let checked = self.oracle.operations.refused(operation);
        self.must(checked);
    }

    /// The index at which an operation's command was first applied.
    pub(super) fn index_of(&self, operation: u64) -> Option<Index> {
        self.oracle.operations.applied_at(operation)
    }

    /// The reply to an operation's command when it was first applied.
    pub(super) fn reply_of(&self, operation: u64) -> Option<bool> {
        self.replies.get(&operation).copied()
    }

    /// Compares the checksum of a snapshot, state and sessions, with that of other nodes' snapshots
    /// of the same entry.
    pub(super) fn written(&mut self, node: NodeId, index: Index, checksum: u32) {
        let checked = self.oracle.state_machines.snapshot_written(node, index, checksum, self.disks.witness);
        self.must(checked);
    }

    /// The state after the last command applied at or before `index`.
    pub(super) fn state_at(&self, index: Index) -> State {
        self.states.range(..=index).next_back().map_or_else(State::default, |(_, state)| state.clone())
    }

    /// Adds a frame to the trace on its arrival.
    pub(super) fn arrived(&mut self, from: NodeId, to: NodeId, frame: &bytes::Bytes) {
        self.report.steps += 1;
        self.trace.hash(&(self.now, from, to, quorate_storage::checksum(0, frame)));
        if self.trace.has_text() {
            let message = frames::decode(frame.clone());
            let words = message.as_ref().map_or_else(|| "a damaged frame".into(), brief);
            self.say(format_args!("{from} → {to}  {words}"));
        }
    }
}

impl Cluster for Disks {
    type Disk = Disk;

    fn disks(&self) -> impl Iterator<Item = (NodeId, &Disk)> {
        self.of.iter().map(|(node, disk)| (*node, disk))
    }

    fn disk(&self, node: NodeId) -> Option<&Disk> {
        self.of.get(&node)
    }

    fn witness(&self) -> Option<NodeId> {
        self.witness
    }

    fn was_emptied(&self, node: NodeId) -> bool {
        self.emptied.contains(&node)
    }
}

impl Durable for Disk {
    fn hard_state(&self) -> HardState {
        self.promised.hard_state
    }

    fn holds(&self, entry: EntryId) -> bool {
        self.promised.holds(entry)
    }

    fn remembers(&self, entry: EntryId) -> bool {
        // Entries that lost their payload are still listed.
        self.promised.holds(entry)
    }

    fn reaches(&self) -> Index {
        self.promised.last().max(self.promised.snapshot)
    }
}

/// The command of an entry, also of one within a session.
fn content_of(record: &Record<'_>) -> Content {
    match record.kind {
        Kind::Stub => Content::Stub,
        _ => command_of(record).map_or(Content::Other, |command| Content::Command(digest(&command))),
    }
}

fn command_of(record: &Record<'_>) -> Option<Command> {
    match record.kind {
        Kind::Command => Command::decode(record.payload),
        Kind::Session => match session::decode(record.payload) {
            Ok((_, session::Request::Command { command, .. })) => Command::decode(command),
            _ => None,
        },
        _ => None,
    }
}

fn digest(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A short form of a message, for the trace.
fn brief(message: &Message) -> String {
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
