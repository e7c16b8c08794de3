use actix::prelude::*;
use quorate::storage::{
    Completions, EntriesRead, OpenSnapshot, Persist, Persisted, Probe, ReadEntries, Recover, Recovered, Remember,
    SaveSnapshot, SnapshotSink, SnapshotSource, Storage, StorageError, StorageFailed, StorageFull, StorageHandle,
};
use std::sync::{Arc, Mutex, PoisonError};

/// A storage actor as a user could write one: it passes all requests on to another, and lets a hook
/// decide at two moments.
pub struct Interposed<H> {
    inner: Option<StorageHandle>,
    storage: Option<Storage>,
    judge: Judge<H>,
    tap: Tap,
}

/// Reports for a running storage a state that only a real disk has: that it is full, or
/// has room again.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Option<Completions>>>);

impl Tap {
    pub fn full(&self, is_full: bool) {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.as_ref().expect("a recovered storage").full(is_full);
    }
}

/// A moment at which the hook decides.
pub enum Seen<'a> {
    /// A request that is not written yet.
    Asked(&'a quorate_raft::Persist),
    /// A write that is durable, and not reported yet.
    Durable(&'a Persisted),
}

/// The decision of the hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    GoOn,
    /// As after SIGKILL: this storage does and reports nothing any more.
    Kill,
    /// The actor panics. Only on a request: a storage that panics on the way back would live on.
    Panic,
    /// On the way back: reports that the storage has failed, and goes on all the same, which
    /// no storage should.
    Fail,
}

/// A function that decides at each moment that it sees.
pub trait Hook: FnMut(Seen<'_>) -> Verdict + Send + Unpin + 'static {}

impl<H: FnMut(Seen<'_>) -> Verdict + Send + Unpin + 'static> Hook for H {}

impl<H: Hook> Interposed<H> {
    /// The storage to start a node with, without a tap.
    pub fn around(inner: impl Into<StorageHandle>, hook: H) -> StorageHandle {
        Self::tapped(inner, hook, &Tap::default())
    }

    /// The storage to start a node with, and a tap that reports for it.
    pub fn tapped(inner: impl Into<StorageHandle>, hook: H, tap: &Tap) -> StorageHandle {
        let (inner, judge, tap) = (Some(inner.into()), Judge(Arc::new(Mutex::new(Some(hook)))), tap.clone());
        StorageHandle::actor(move || Self { inner, storage: None, judge, tap })
    }
}

/// The hook, until it has decided to kill.
struct Judge<H>(Arc<Mutex<Option<H>>>);

impl<H: Hook> Judge<H> {
    fn judge(&self, seen: Seen<'_>) -> Verdict {
        let mut alive = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(hook) = &mut *alive else { return Verdict::Kill };
        let verdict = hook(seen);
        assert!(verdict != Verdict::Panic, "told to panic");
        if verdict == Verdict::Kill {
            *alive = None;
        }
        verdict
    }

    fn is_running(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl<H: Hook> Actor for Interposed<H> {
    type Context = Context<Self>;
}

impl<H: Hook> Handler<Recover> for Interposed<H> {
    type Result = ResponseFuture<Result<Recovered, StorageError>>;

    fn handle(&mut self, mut recover: Recover, _: &mut Self::Context) -> Self::Result {
        *self.tap.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(recover.completions.clone());
        let returning = Returning { told: recover.completions, judge: Judge(Arc::clone(&self.judge.0)) };
        recover.completions = Completions::to(&returning.start());
        let storage = self.inner.take().expect("one recovery").start_here();
        let answer = storage.recover.send(recover);
        self.storage = Some(storage);
        Box::pin(async move { answer.await.expect("a live storage") })
    }
}

impl<H: Hook> Handler<Persist> for Interposed<H> {
    type Result = ();

    fn handle(&mut self, persist: Persist, _: &mut Self::Context) {
        if self.judge.judge(Seen::Asked(&persist.0)) == Verdict::GoOn {
            self.storage.as_ref().expect("a recovered storage").persist.do_send(persist);
        }
    }
}

impl<H: Hook> Handler<ReadEntries> for Interposed<H> {
    type Result = ();

    fn handle(&mut self, read: ReadEntries, _: &mut Self::Context) {
        if self.judge.is_running() {
            self.storage.as_ref().expect("a recovered storage").read_entries.do_send(read);
        }
    }
}

impl<H: Hook> Handler<SaveSnapshot> for Interposed<H> {
    type Result = ResponseFuture<Result<Box<dyn SnapshotSink>, StorageError>>;

    fn handle(&mut self, save: SaveSnapshot, _: &mut Self::Context) -> Self::Result {
        let answer = self.storage.as_ref().expect("a recovered storage").save_snapshot.send(save);
        let judge = Judge(Arc::clone(&self.judge.0));
        Box::pin(async move {
            let sink = answer.await.expect("a live storage")?;
            if judge.is_running() { Ok(sink) } else { Err(StorageError::new("killed")) }
        })
    }
}

impl<H: Hook> Handler<OpenSnapshot> for Interposed<H> {
    type Result = ResponseFuture<Result<Box<dyn SnapshotSource>, StorageError>>;

    fn handle(&mut self, open: OpenSnapshot, _: &mut Self::Context) -> Self::Result {
        let answer = self.storage.as_ref().expect("a recovered storage").open_snapshot.send(open);
        Box::pin(async move { answer.await.expect("a live storage") })
    }
}

impl<H: Hook> Handler<Probe> for Interposed<H> {
    type Result = ();

    fn handle(&mut self, probe: Probe, _: &mut Self::Context) {
        probe.arrived();
    }
}

impl<H: Hook> Handler<Remember> for Interposed<H> {
    type Result = ();

    fn handle(&mut self, remember: Remember, _: &mut Self::Context) {
        if self.judge.is_running() {
            self.storage.as_ref().expect("a recovered storage").remember.do_send(remember);
        }
    }
}

/// The way back: an actor of its own. Otherwise two actors would hold the address of each other,
/// and neither would ever end.
struct Returning<H> {
    told: Completions,
    judge: Judge<H>,
}

impl<H: Hook> Actor for Returning<H> {
    type Context = Context<Self>;
}

impl<H: Hook> Handler<Persisted> for Returning<H> {
    type Result = ();

    fn handle(&mut self, persisted: Persisted, _: &mut Self::Context) {
        let verdict = self.judge.judge(Seen::Durable(&persisted));
        if verdict == Verdict::Fail {
            self.told.failed(StorageError::new("told to fail"));
        }
        if verdict != Verdict::Kill {
            self.told.persisted(persisted);
        }
    }
}

impl<H: Hook> Handler<EntriesRead> for Returning<H> {
    type Result = ();

    fn handle(&mut self, read: EntriesRead, _: &mut Self::Context) {
        if self.judge.is_running() {
            self.told.entries_read(read);
        }
    }
}

impl<H: Hook> Handler<StorageFull> for Returning<H> {
    type Result = ();

    fn handle(&mut self, StorageFull { is_full }: StorageFull, _: &mut Self::Context) {
        if self.judge.is_running() {
            self.told.full(is_full);
        }
    }
}

impl<H: Hook> Handler<StorageFailed> for Returning<H> {
    type Result = ();

    fn handle(&mut self, StorageFailed { error }: StorageFailed, _: &mut Self::Context) {
        if self.judge.is_running() {
            self.told.failed(error);
        }
    }
}
