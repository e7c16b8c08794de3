//! The handle of a storage actor: from its description to its end.

use super::{OpenSnapshot, Persist, Probe, ReadEntries, Recover, Remember, SaveSnapshot, StorageError, StorageOp};
use actix::{dev::channel, prelude::*};
use std::{fmt, pin::Pin};

/// The thread of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A thread of its own: it may block.
    OwnThread,
    /// The caller's thread, with the node's other actors: for stores that never block,
    /// and for simulation.
    Here,
}

/// actix' own default: `do_send` passes it.
const MAILBOX_CAPACITY: usize = 16;

/// A storage actor, not yet started: the argument of [a node's builder](https://docs.rs/quorate).
pub struct StorageHandle {
    start: Box<dyn FnOnce(Place, Spawn) -> Result<Storage, StorageError> + Send>,
    place: Place,
    spawn: Spawn,
}

/// A running actor, to be spawned on the thread that has it.
pub type ActorTask = Pin<Box<dyn Future<Output = ()>>>;

type Spawn = Box<dyn FnOnce(ActorTask) + Send>;

impl StorageHandle {
    /// A storage with this actor, which is made on its thread. It gets a thread of its own.
    pub fn actor<A>(make: impl FnOnce() -> A + Send + 'static) -> Self
    where
        A: Actor<Context = Context<A>>
            + Handler<Recover>
            + Handler<Persist>
            + Handler<ReadEntries>
            + Handler<SaveSnapshot>
            + Handler<OpenSnapshot>
            + Handler<Remember>
            + Handler<Probe>,
    {
        let start = move |place, spawn: Spawn| {
            let (sender, receiver) = channel::channel(MAILBOX_CAPACITY);
            let addr = Addr::new(sender);
            let begin = move || spawn(Box::pin(Context::with_receiver(receiver).into_future(make())));
            let thread = match place {
                Place::Here => {
                    begin();
                    None
                }
                Place::OwnThread => {
                    let thread = thread()?;
                    thread.spawn_fn(begin);
                    Some(thread)
                }
            };
            Ok(Storage {
                recover: addr.clone().recipient(),
                persist: addr.clone().recipient(),
                read_entries: addr.clone().recipient(),
                save_snapshot: addr.clone().recipient(),
                open_snapshot: addr.clone().recipient(),
                remember: addr.clone().recipient(),
                probe: addr.recipient(),
                thread,
            })
        };
        let spawn = |task| drop(actix::spawn(task));
        Self { start: Box::new(start), place: Place::OwnThread, spawn: Box::new(spawn) }
    }

    /// Lets the actor run on the node's own thread: for stores that never block.
    #[must_use]
    pub fn unblocking(self) -> Self {
        Self { place: Place::Here, ..self }
    }

    /// Spawns the actor by `spawn`, on its thread, in place of [`actix::spawn`]: so that its time
    /// can be measured.
    #[must_use]
    pub fn spawned_by(self, spawn: impl FnOnce(ActorTask) + Send + 'static) -> Self {
        Self { spawn: Box::new(spawn), ..self }
    }

    /// Starts the actor. Requires an actix `System`, or for [`Place::Here`] at least a `LocalSet`.
    ///
    /// # Errors
    /// If no thread can be started for it.
    pub fn start(self) -> Result<Storage, StorageError> {
        (self.start)(self.place, self.spawn)
    }

    /// Starts the actor on this thread, wherever it would rather be: for simulation.
    ///
    /// # Panics
    /// Never: it needs no thread.
    #[must_use]
    pub fn start_here(self) -> Storage {
        (self.start)(Place::Here, self.spawn).unwrap_or_else(|error| unreachable!("{error}"))
    }
}

impl fmt::Debug for StorageHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageHandle").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A running storage actor, as the recipients of its seven messages.
pub struct Storage {
    /// Recipient of [`Recover`], once.
    pub recover: Recipient<Recover>,
    /// Recipient of [`Persist`].
    pub persist: Recipient<Persist>,
    /// Recipient of [`ReadEntries`].
    pub read_entries: Recipient<ReadEntries>,
    /// Recipient of [`SaveSnapshot`].
    pub save_snapshot: Recipient<SaveSnapshot>,
    /// Recipient of [`OpenSnapshot`].
    pub open_snapshot: Recipient<OpenSnapshot>,
    /// Recipient of [`Remember`].
    pub remember: Recipient<Remember>,
    /// Recipient of [`Probe`].
    pub probe: Recipient<Probe>,
    thread: Option<Arbiter>,
}

impl Storage {
    /// Whether the actor lives. If not, it has panicked or stopped, and its node must stop too.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.persist.connected()
    }

    /// The actor's thread, so that the node can wait for its end. `None` if the actor has no thread
    /// of its own, or it was taken before.
    pub fn take_thread(&mut self) -> Option<StorageThread> {
        self.thread.take().map(StorageThread)
    }
}

/// The thread of a storage actor.
#[derive(Debug)]
pub struct StorageThread(Arbiter);

impl StorageThread {
    /// A handle to probe whether the thread makes progress.
    #[must_use]
    pub fn handle(&self) -> ArbiterHandle {
        self.0.handle()
    }

    /// Lets the actor finish its current message, drops it with its files and locks, and waits for
    /// that. Blocks at most for the writes and syncs of one group, and of the second places of entries.
    pub fn end(self) {
        self.0.stop();
        // A panic of the thread was reported when the actor's death was noticed.
        let _ = self.0.join();
    }
}

/// A thread for an actor that may block. Requires an actix `System`.
///
/// # Errors
/// If it can't be started, or its event loop can't be opened.
pub fn thread() -> Result<Arbiter, StorageError> {
    Arbiter::try_new().map_err(|error| {
        let remedy = crate::wal::SHORTAGE_REMEDY;
        let line = format!("can't start an actor's thread: {error}; {remedy}, then start the node again");
        StorageError::caused(line, StorageOp::StartThread, None, error)
    })
}
