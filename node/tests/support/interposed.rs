use actix::prelude::*;
use quorate::storage::{
    Completions, EntriesRead, Persist, Persisted, ReadEntries, Recover, Recovered, Storage, StorageError,
    StorageFailed, StorageHandle,
};

/// A storage actor of a user's own: it passes everything on to another, and lets a hook decide at two moments.
pub struct Interposed<H> {
    inner: Option<StorageHandle>,
    storage: Option<Storage>,
    told: Option<Completions>,
    hook: H,
}

/// A moment at which the hook decides.
pub enum Seen<'a> {
    /// Before anything of it is written.
    Asked(&'a quorate_raft::Persist),
    /// It is on the disk, and nobody knows yet.
    Durable(&'a Persisted),
}

/// What the hook decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    GoOn,
    /// As after SIGKILL: this storage neither does nor says anything any more.
    Kill,
    /// The actor panics.
    Panic,
}

impl<H: FnMut(Seen<'_>) -> Verdict + Send + Unpin + 'static> Interposed<H> {
    /// The storage to start a node with.
    pub fn around(inner: impl Into<StorageHandle>, hook: H) -> StorageHandle {
        let inner = Some(inner.into());
        StorageHandle::actor(move || Self { inner, storage: None, told: None, hook })
    }

    /// Whether to go on.
    fn ask(&mut self, seen: Seen<'_>) -> bool {
        match (self.hook)(seen) {
            Verdict::GoOn => true,
            Verdict::Panic => panic!("told to panic"),
            Verdict::Kill => {
                (self.storage, self.told) = (None, None);
                false
            }
        }
    }
}

impl<H: FnMut(Seen<'_>) -> Verdict + Send + Unpin + 'static> Actor for Interposed<H> {
    type Context = Context<Self>;
}

impl<H: FnMut(Seen<'_>) -> Verdict + Send + Unpin + 'static> Handler<Recover> for Interposed<H> {
    type Result = ResponseFuture<Result<Recovered, StorageError>>;

    fn handle(&mut self, mut recover: Recover, ctx: &mut Self::Context) -> Self::Result {
        let told = std::mem::replace(&mut recover.completions, Completions::to(&ctx.address()));
        self.told = Some(told);
        let storage = self.inner.take().expect("one recovery").start_here();
        let answer = storage.recover.send(recover);
        self.storage = Some(storage);
        Box::pin(async move { answer.await.expect("a live storage") })
    }
}

impl<H: FnMut(Seen<'_>) -> Verdict + Send + Unpin + 'static> Handler<Persist> for Interposed<H> {
    type Result = ();

    fn handle(&mut self, persist: Persist, _: &mut Self::Context) {
        if self.storage.is_some() && self.ask(Seen::Asked(&persist.0)) {
            self.storage.iter().for_each(|storage| storage.persist.do_send(Persist(persist.0.clone())));
        }
    }
}

impl<H: FnMut(Seen<'_>) -> Verdict + Send + Unpin + 'static> Handler<Persisted> for Interposed<H> {
    type Result = ();

    fn handle(&mut self, persisted: Persisted, _: &mut Self::Context) {
        if self.told.is_some() && self.ask(Seen::Durable(&persisted)) {
            self.told.iter().for_each(|told| told.persisted(Persisted { then: persisted.then.clone(), ..persisted }));
        }
    }
}

impl<H: FnMut(Seen<'_>) -> Verdict + Send + Unpin + 'static> Handler<ReadEntries> for Interposed<H> {
    type Result = ();

    fn handle(&mut self, read: ReadEntries, _: &mut Self::Context) {
        if let Some(storage) = &self.storage {
            storage.read_entries.do_send(read);
        }
    }
}

impl<H: FnMut(Seen<'_>) -> Verdict + Send + Unpin + 'static> Handler<EntriesRead> for Interposed<H> {
    type Result = ();

    fn handle(&mut self, read: EntriesRead, _: &mut Self::Context) {
        if let Some(told) = &self.told {
            told.entries_read(read);
        }
    }
}

impl<H: FnMut(Seen<'_>) -> Verdict + Send + Unpin + 'static> Handler<StorageFailed> for Interposed<H> {
    type Result = ();

    fn handle(&mut self, StorageFailed { error }: StorageFailed, _: &mut Self::Context) {
        if let Some(told) = &self.told {
            told.failed(error);
        }
    }
}
