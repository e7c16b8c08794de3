//! The service of a node, in a world of its own. It records each entry that it applies; two nodes
//! must apply the same entries, with the same outcomes.

use super::broken;
use crate::{
    failed::{Fault, Property, shown},
    side::{self, Entry},
    spec::Spec,
    world::World,
};
use bytes::Bytes;
use quorate::{At, Hosted, Index, LogTime, NodeId, Service, SessionKey, StateMachine, WriteState};
use quorate_raft::tick::Tick;
use std::{
    collections::BTreeMap,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The entries that any node applied, with their positions and the encoded outcomes of commands.
pub(crate) type Log = BTreeMap<Index, Applied>;

/// An entry as the first node applied it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Applied {
    pub(crate) at: At,
    pub(crate) entry: Entry,
    pub(crate) outcome: Bytes,
}

/// The record of all nodes.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    log: Log,
    fault: Option<Fault>,
}

impl Shared {
    /// The first fault, if there was one.
    pub(super) fn fault(&self) -> Result<(), Fault> {
        self.lock().fault.clone().map_or(Ok(()), Err)
    }

    pub(super) fn take(&self) -> Log {
        std::mem::take(&mut self.lock().log)
    }

    fn applied(&self, node: NodeId, applied: Applied) {
        let record = &mut *self.lock();
        let index = applied.at.index;
        let Some(first) = record.log.get(&index) else {
            record.log.insert(index, applied);
            return;
        };
        if *first == applied {
            return;
        }
        let fault = match first.entry == applied.entry {
            true => Fault::new(Property::Outcomes, format!("node {node} has another outcome of entry {index}")),
            false => broken(format!("node {node} applied another entry at {index}: {applied:?}, not {first:?}")),
        };
        record.fault.get_or_insert(fault);
    }

    fn threads(&self, refused: u32) {
        if refused > 0 {
            let fault = Fault::new(Property::Threads, "it asked for a thread");
            self.lock().fault.get_or_insert(fault);
        }
    }

    fn panics(&self, details: String) {
        self.lock().fault.get_or_insert(Fault::new(Property::Panics, details));
    }

    /// The result of a call in which a node does not survive a panic.
    fn or_end<T>(&self, what: &str, called: Result<T, String>) -> T {
        called.unwrap_or_else(|panic| {
            self.panics(format!("{what} panics {panic}"));
            panic::resume_unwind(Box::new(panic))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state machine of a node.
pub(crate) struct Recorded<S: Service> {
    node: NodeId,
    hosted: Hosted<S>,
    world: Mutex<World>,
    shared: Shared,
}

impl<S: Service> Recorded<S> {
    pub(super) fn new(node: NodeId, spec: &Spec<S>, mut world: World, shared: &Shared) -> Self {
        let hosted = side::fresh(&mut world, &spec.new);
        Self { node, hosted, world: Mutex::new(world), shared: shared.clone() }
    }

    /// `None` if the service panics: that costs a node the query alone.
    pub(super) fn query(&self, query: &S::Query) -> Option<S::Answer> {
        let answer = self.world().catch(|| self.hosted.query(query.clone()));
        answer.map_err(|panic| self.shared.panics(format!("the query {} panics {panic}", shown(query)))).ok()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&mut self, at: &At, entry: Entry, apply: impl FnOnce(&mut Hosted<S>) -> Bytes) -> Bytes {
        let Self { node, hosted, world, shared } = self;
        let world = world.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (applied, refused) = world.enter_alone(|| panic::catch_unwind(AssertUnwindSafe(|| apply(hosted))));
        shared.threads(refused);
        // The entry at which the service panics belongs to the log, too.
        let outcome = applied.as_ref().map_or(Bytes::new(), Bytes::clone);
        shared.applied(*node, Applied { at: *at, entry, outcome });
        applied.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

impl<S: Service> StateMachine for Recorded<S> {
    fn apply(&mut self, at: &At, command: &[u8]) -> Bytes {
        let entry = Entry::Command { session: None, bytes: command.to_vec() };
        self.record(at, entry, |hosted| hosted.apply(at, command))
    }

    fn apply_in(&mut self, at: &At, session: &SessionKey, command: &[u8]) -> Bytes {
        let entry = Entry::Command { session: Some(session.clone()), bytes: command.to_vec() };
        self.record(at, entry, |hosted| hosted.apply_in(at, session, command))
    }

    fn ticked(&mut self, at: &At, tick: &Tick) {
        self.record(at, Entry::Tick(*tick), |hosted| {
            hosted.ticked(at, tick);
            Bytes::new()
        });
    }

    fn internal(&mut self, at: &At, payload: &[u8]) {
        self.record(at, Entry::Internal(payload.to_vec()), |hosted| {
            hosted.internal(at, payload);
            Bytes::new()
        });
    }

    fn is_pending(&self) -> bool {
        self.hosted.is_pending()
    }

    fn next_due(&self) -> Option<LogTime> {
        self.hosted.next_due()
    }

    fn uses_time(&self) -> bool {
        self.hosted.uses_time()
    }

    fn schema_version(&self) -> Option<u32> {
        self.hosted.schema_version()
    }

    fn flush(&mut self, applied: Index) {
        let Self { hosted, world, shared, .. } = self;
        let world = world.get_mut().unwrap_or_else(PoisonError::into_inner);
        shared.or_end("flush", world.catch(|| hosted.flush(applied)));
    }

    fn snapshot(&self) -> Option<WriteState> {
        self.shared.or_end("save", self.world().catch(|| self.hosted.snapshot()))
    }

    fn restore(&mut self, state: &mut dyn io::Read) -> io::Result<()> {
        let Self { hosted, world, shared, .. } = self;
        let world = world.get_mut().unwrap_or_else(PoisonError::into_inner);
        shared.or_end("load", world.catch(|| hosted.restore(state)))
    }
}
