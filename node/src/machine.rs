//! The state machine that a user implements, and the form of its snapshots.

use crate::{comparison::Comparison, error::Failure, views::View};
use bytes::Bytes;
use quorate_raft::{
    Index, NodeId, Term,
    session::{LogTime, SessionKey},
    tick::Tick,
};
use std::{any::Any, collections::BTreeSet, io};

/// Writes a state as it was when this was made. Runs on a thread of its own, while commands go
/// on being applied.
///
/// An error or a panic costs only this snapshot: it is logged and counted, the log is not
/// compacted, and another snapshot is tried later. When the node shuts down, the next write fails;
/// the shutdown waits for that.
pub type WriteState = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// The position in the log of the command or tick that is applied, and the time there. The same on
/// every node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct At {
    /// Index of the entry.
    pub index: Index,
    /// Term in which a leader appended the entry.
    pub term: Term,
    /// Log time, which never goes back: 0 before the first tick, and always 0 unless the machine
    /// [uses time](StateMachine::uses_time).
    pub time: LogTime,
    /// The leader's wall clock at the last tick, in milliseconds since 1970. For display and
    /// calendars only: it may jump in both directions. 0 before the first tick.
    pub unix_ms: u64,
    /// The schema version of commands that the cluster has reached; 0 at first.
    pub version: u32,
}

/// The timers of a hosted service, in numbers.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Timers {
    /// Those that are set.
    pub pending: u64,
    /// Those that fired since this was last asked.
    pub fired: u64,
}

/// The service that is replicated: the one trait that a user implements.
///
/// Every node applies the same commands in the same order to its own copy. All copies stay equal so
/// long as `apply` is deterministic: no clock, no randomness, no I/O that affects the result, no
/// iteration order of a hash map.
///
/// It lives on a thread of its own, where it may take its time; consensus goes on meanwhile.
pub trait StateMachine: Send + 'static {
    /// Applies the committed command `at` its position and returns the reply for its caller.
    ///
    /// Indexes rise, with gaps: the log has entries of Raft's own. After a restart commands are
    /// applied again, from after the newest snapshot or from the beginning of the log, to the
    /// machine that the node was started with.
    ///
    /// A command of a session that is in the log again, because its client
    /// did not know the outcome, is not applied again: the client gets the
    /// first reply ([`Node::session`](crate::Node::session)).
    ///
    /// Copy the parts that are kept: `command` is a slice of a much larger buffer. A panic
    /// here [halts](crate::Status::halted) the node at the entry, and does so again after every
    /// restart, until an operator has the entry skipped ([`Builder::skip`](crate::Builder::skip)).
    /// The machine is dropped then: nothing of it is called any more. The panic's message is logged
    /// and stands in the node's status: leave values and keys of callers out of it.
    fn apply(&mut self, at: &At, command: &[u8]) -> Bytes;

    /// Applies a command of a session, as [`StateMachine::apply`] does: for the layer of services,
    /// which tells its author the session.
    #[doc(hidden)]
    fn apply_in(&mut self, at: &At, _session: &SessionKey, command: &[u8]) -> Bytes {
        self.apply(at, command)
    }

    /// Log time has reached `at.time`: everything that is due by then is due now, at this entry on
    /// every node. Log time never goes back.
    ///
    /// A machine may leave a part for the next tick, which follows at once so long as
    /// [`StateMachine::next_due`] is not after `at.time`: so other entries are applied in between.
    /// Never called unless a leader's machine [uses time](StateMachine::uses_time).
    fn tick(&mut self, _at: &At) {}

    /// The log time by which the machine wants a [tick](StateMachine::tick), if it waits for one.
    /// Asked after every batch of entries and every tick.
    ///
    /// A value that stays in the past makes the leader append ticks as fast as they commit. A panic
    /// here stops the node.
    fn next_due(&self) -> Option<LogTime> {
        None
    }

    /// Whether the leader appends ticks. Without them log time stands still, and costs nothing.
    /// Must be the same on all nodes and as long as the node runs.
    fn uses_time(&self) -> bool {
        false
    }

    /// The same as [`StateMachine::tick`], with the content of the tick: for the layer of services.
    #[doc(hidden)]
    fn ticked(&mut self, at: &At, _tick: &Tick) {
        self.tick(at);
    }

    /// Applies an internal entry: for the layer of services, which alone appends them.
    #[doc(hidden)]
    fn internal(&mut self, _at: &At, _payload: &[u8]) {}

    /// Whether the machine waits for something else than a time, so that log time goes on: the
    /// result of an effect. A panic here stops the node.
    #[doc(hidden)]
    fn is_pending(&self) -> bool {
        false
    }

    /// Names this node, and the full copies among the voters of the configuration that was applied:
    /// for the layer of services, which compares them. Called after each restore, and at each entry
    /// with a configuration.
    #[doc(hidden)]
    fn configured(&mut self, _this: NodeId, _full_copies: BTreeSet<NodeId>) {}

    /// The state that was restored last came from another node.
    #[doc(hidden)]
    fn received(&mut self) {}

    /// The comparison of replicas, if it has changed since this was last asked: after every batch of
    /// entries.
    #[doc(hidden)]
    fn comparison(&mut self) -> Option<Comparison> {
        None
    }

    /// The failure with which this node has to stop at the entry that was just applied, an internal
    /// one or one with a configuration: a majority of the full copies differs from it.
    #[doc(hidden)]
    fn diverged(&self) -> Option<Failure> {
        None
    }

    /// The schema version of commands that the cluster has reached; `None` for a machine that hosts
    /// no service.
    #[doc(hidden)]
    fn schema_version(&self) -> Option<u32> {
        None
    }

    /// The timers of a hosted service: after every batch of entries.
    #[doc(hidden)]
    fn timers(&mut self) -> Timers {
        Timers::default()
    }

    /// The generation of the fences of this node's leaderships: for the layer of services.
    #[doc(hidden)]
    fn generation(&self) -> u32 {
        0
    }

    /// The end of a batch, or of a restore: everything up to `applied` was applied, and the reads
    /// that wait for it run next. Batches end at other entries on each node, so nothing replicated
    /// may depend on it: for what is kept beside the state, such as a view that readers share. A
    /// panic here stops the node.
    fn flush(&mut self, _applied: Index) {}

    /// A copy of the state as of now, for callers that read on their own threads. Asked after a batch
    /// of entries or a restore, while readers use it; nothing is applied until this returns. Offer one
    /// only if it costs no more than a few entries do, and if its parts are shared, such as `Arc`s or
    /// persistent maps: a part that changes while a view has it, too, is copied then.
    ///
    /// With a view, a [`Local`](crate::Consistency::Local) read of this node, and a
    /// [`Lease`](crate::Consistency::Lease) read of a leader that has one, send no message: the query
    /// runs on its caller's thread. `None`, the default: every query runs on the machine's thread. A
    /// panic here stops the node.
    fn view(&self) -> Option<View<Self>>
    where
        Self: Sized,
    {
        None
    }

    /// A consistent view of the state as of now, to be written later. Nothing is applied until this
    /// returns, so it must be quick: clone a persistent map, or state in an `Arc` that is copied on
    /// write. A panic here stops the node.
    ///
    /// `None`, the default, means a machine without snapshots: its log is kept in full, and applied
    /// again on every start.
    fn snapshot(&self) -> Option<WriteState> {
        None
    }

    /// Replaces the state by that of a snapshot: exactly the bytes that a [`WriteState`] wrote, on
    /// this node or another.
    ///
    /// # Errors
    /// If the bytes are no such snapshot. Then the node stops.
    fn restore(&mut self, _state: &mut dyn io::Read) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this state machine makes no snapshots and restores none"))
    }
}

/// The entry at which a service halted, and the cause: the payload with which its machine unwinds to
/// the node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the service halted at entry {at}: {cause}")]
pub struct Halt {
    /// Index of the entry, which was not applied.
    pub at: Index,
    /// The reason for which it was not applied.
    pub cause: HaltCause,
}

/// Why a machine halted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HaltCause {
    /// The author's code panicked.
    #[error("it panicked: {message}; run a release of the service that applies this entry")]
    Panicked {
        /// The message of the panic.
        message: String,
    },
    /// The entry needs a newer release of the service.
    #[error("it needs version {needs} of the service, and this release reads up to {release}: run a newer one")]
    TooOld {
        /// The version that is needed.
        needs: u32,
        /// [`Service::VERSION`](crate::Service::VERSION) of this release.
        release: u32,
    },
    /// The entry is for a timer or an effect with a signal that another release encoded.
    #[error(
        "this release does not read the signal of a timer or an effect: run the release that set it, or a newer one"
    )]
    SignalUnreadable,
    /// The entry is none that this release knows.
    #[error("this release does not know such an entry: run a newer one")]
    Unknown,
}

/// The cause of a halt, from the payload of the panic that ended an entry.
pub(crate) fn cause_of(panic: &(dyn Any + Send)) -> HaltCause {
    match panic.downcast_ref::<Halt>() {
        Some(halt) => halt.cause.clone(),
        None => HaltCause::Panicked { message: message_of(panic) },
    }
}

/// The message of a panic.
pub(crate) fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}
