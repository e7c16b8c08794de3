//! The completions of a store, as a queue for a test to wait at.

use actix::prelude::*;
use quorate_storage::contract::{Completions, EntriesRead, Persisted, StorageError, StorageFailed, StorageFull};
use tokio::sync::mpsc;

/// One completion.
#[derive(Debug)]
pub enum Completion {
    /// Everything up to a sequence is durable.
    Persisted(Persisted),
    /// The answer to a request for entries.
    Read(EntriesRead),
    /// Whether the store is about to run out of room.
    Full(bool),
    /// The store failed, for good.
    Failed(StorageError),
}

/// The receiver of completions to name in [`Recover`](quorate_storage::contract::Recover), and the
/// queue of those for which `pick` returns something, in order. The queue is unbounded: a store
/// completes no more than a test asks of it. It runs on this thread's actix `System`.
pub fn listen<T: Send + 'static>(
    pick: impl Fn(Completion) -> Option<T> + Unpin + 'static,
) -> (Completions, mpsc::UnboundedReceiver<T>) {
    let (tell, told) = mpsc::unbounded_channel();
    let hear = move |completion| {
        if let Some(picked) = pick(completion) {
            // The test may be over.
            let _ = tell.send(picked);
        }
    };
    (Completions::to(&Listener(Box::new(hear)).start()), told)
}

struct Listener(Box<dyn Fn(Completion)>);

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Persisted> for Listener {
    type Result = ();

    fn handle(&mut self, persisted: Persisted, _: &mut Self::Context) {
        self.0(Completion::Persisted(persisted));
    }
}

impl Handler<EntriesRead> for Listener {
    type Result = ();

    fn handle(&mut self, read: EntriesRead, _: &mut Self::Context) {
        self.0(Completion::Read(read));
    }
}

impl Handler<StorageFull> for Listener {
    type Result = ();

    fn handle(&mut self, full: StorageFull, _: &mut Self::Context) {
        self.0(Completion::Full(full.is_full));
    }
}

impl Handler<StorageFailed> for Listener {
    type Result = ();

    fn handle(&mut self, failed: StorageFailed, _: &mut Self::Context) {
        self.0(Completion::Failed(failed.error));
    }
}
