//! The trait that a service implements, and the types of its messages.

use super::{context::Context, state::State};
use crate::{machine::At, views::View};
use quorate_raft::Index;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;

/// A message of a service: a command, a reply, a query, an answer, an event, a signal or an effect.
/// Every type with these traits is one.
///
/// Messages are encoded in postcard, and its format is the order of fields and variants: a
/// released message changes only by new variants at the end of an enum. Postcard has no form for
/// `#[serde(flatten)]`, `#[serde(untagged)]` and `#[serde(skip_serializing_if)]`. Equal messages
/// must encode equally, so prefer `BTreeMap` to `HashMap`. A recursive type must bound its depth: a
/// command that is nested deeper than the stack ends every node. Nor may a list have elements
/// without bytes, such as `Vec<()>`: its length is not bounded by the bytes of a command.
///
/// ```
/// fn is_message<M: quorate::Message>() {}
///
/// #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
/// enum Command {
///     Put { key: String, value: Vec<u8> },
///     Delete(String),
/// }
///
/// is_message::<Command>();
/// is_message::<Option<u64>>();
/// ```
pub trait Message: Serialize + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + fmt::Debug + Send + Sync + 'static> Message for T {}

/// A message that does not exist: the type of the messages that a service does not use.
///
/// ```
/// # use quorate::{At, Context, Never, Service};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Counter(u64);
/// # impl Service for Counter {
/// #     quorate::types!(u64 => u64, () => u64);
/// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
/// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
/// # }
/// fn has_no_events<S: Service<Event = Never>>(_: &S) {}
///
/// has_no_events(&Counter::default()); // `types!` named none
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Never {}

/// A replicated service: its state, its messages, and what they do.
///
/// Every node applies the same commands and signals in the same order to its own copy. All copies
/// stay equal so long as [`Service::apply`] and [`Service::signal`] depend on nothing but the state,
/// the message and the [`Context`]: no clock, no randomness of one's own, no I/O, no iteration order
/// of a hash map. [`Context`] has a time and random numbers that are equal everywhere.
///
/// **The copies are compared**, so that a service that breaks this rule is found out before it has
/// spoilt all of them. Each copy hashes the outcome of every entry: the reply, the timers, events and
/// effects. For each 1,024 entries it puts that hash into the log, with the
/// [digest](State::digest) of its state, if the service keeps one. Every node compares what stands
/// there:
/// - A copy that a majority differs from stops with
///   [`Failure::Diverged`](crate::Failure::Diverged), which names the entries and both digests; the
///   leader, too. Remove the cause, and start it with
///   [`Builder::discard_state`](crate::Builder::discard_state): it takes the state of another node.
/// - Without a majority, as with two copies, none stops, and none sends its state to another node:
///   [`Status::disagreement`](crate::Status::disagreement) and the metric
///   `quorate_differing_copies` raise an alarm until later entries agree, which
///   `quorate_copies_differed_total` outlasts. An operator decides which copy is wrong, and discards
///   its state.
///
/// Only what differs in an outcome shows without a digest, and only at the end of its 1,024 entries.
/// Hashes that stand at different versions of the cluster are not compared. A copy of a joining
/// node, and the witness, take no part.
///
/// ```
/// use quorate::{At, Context, Service};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Counter(u64);
///
/// impl Service for Counter {
///     quorate::types!(u64 => u64, () => u64);
///
///     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 {
///         self.0 += add;
///         self.0
///     }
///
///     fn query(&self, (): (), _: At) -> u64 {
///         self.0
///     }
/// }
/// ```
pub trait Service: State + Sized {
    /// A request from outside that may change the state.
    type Command: Message;
    /// The caller's answer to a command.
    type Reply: Message;
    /// A request that only reads.
    type Query: Message;
    /// The answer to a query.
    type Answer: Message;
    /// A change that watchers are told.
    type Event: Message;
    /// An input from inside: a timer, or the result of an effect.
    type Signal: Message;
    /// An action outside that the leader performs.
    type Effect: Message;

    /// The newest version of the command schema that this release reads. It rises by one with each
    /// release that adds a kind of command, changes behaviour, or adds a signal, an event or an
    /// effect. 0 at first.
    const VERSION: u32 = 0;

    /// The version that introduced this kind of command; at most [`Service::VERSION`]. A command
    /// newer than the cluster's version is refused by every node. Wrong numbers let replicas of two
    /// releases take different decisions.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Refused, Service, StateMachine};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Default, Serialize, Deserialize)]
    /// # struct Counter(u64);
    /// #[derive(Clone, Debug, Serialize, Deserialize)]
    /// enum Command {
    ///     Add(u64),
    ///     Reset, // the second release added it
    /// }
    ///
    /// impl Service for Counter {
    ///     quorate::types!(Command => (), () => u64);
    ///     const VERSION: u32 = 1;
    ///
    ///     fn since(command: &Command) -> u32 {
    ///         match command {
    ///             Command::Add(_) => 0,
    ///             Command::Reset => 1,
    ///         }
    ///     }
    /// #     fn apply(&mut self, _: Command, _: &mut Context<'_, Self>) {}
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// }
    /// # let outcome = Hosted::new(Counter::default).apply(&At::default(), &Hosted::<Counter>::encode(&Command::Reset));
    /// # let refused = Refused::TooNew { needs: 1, cluster: 0 };
    /// # assert_eq!(Hosted::<Counter>::decode(&outcome), Some(Err(refused)));
    /// ```
    fn since(_command: &Self::Command) -> u32 {
        0
    }

    /// Applies a committed command and returns the reply for its caller.
    ///
    /// A panic here recurs on every node and after every restart. All that the command had set,
    /// published or asked for by then is dropped. The panic's message is the author's own text: it is
    /// logged and stands in the node's status, so leave values and keys of callers out of it.
    fn apply(&mut self, command: Self::Command, cx: &mut Context<'_, Self>) -> Self::Reply;

    /// Applies a signal: a timer that is due, at its own time, or the result of an effect.
    fn signal(&mut self, signal: Self::Signal, cx: &mut Context<'_, Self>);

    /// Answers a query of the state as it was after the entry `at`. It runs between two entries: keep
    /// it short. If the service offers a [view](Service::view), it runs on the caller's thread.
    fn query(&self, query: Self::Query, at: At) -> Self::Answer;

    /// A copy of the state, for callers that query on their own threads, as
    /// [`StateMachine::view`](crate::StateMachine::view) says: `Some(View::of(self.clone()))` where a
    /// clone costs no more than a few commands do, because the parts are shared. `None`, the default:
    /// every query runs on the service's thread.
    ///
    /// ```
    /// # use quorate::{At, Context, Service, View};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// impl Service for Counter {
    ///     # quorate::types!(u64 => u64, () => u64);
    ///     # fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    ///     # fn query(&self, (): (), _: At) -> u64 { self.0 }
    ///     fn view(&self) -> Option<View<Self>> {
    ///         Some(View::of(self.clone()))
    ///     }
    /// }
    /// # assert!(Counter(7).view().is_some());
    /// ```
    fn view(&self) -> Option<View<Self>> {
        None
    }

    /// The end of a batch, or of a restore: everything up to `applied` was applied, and the queries
    /// that wait for it are answered next. Batches end at other entries on each node, so it must not
    /// change anything that an entry, a query or a snapshot depends on: it is for what stands beside
    /// the state, such as a view that readers on other threads share. A panic here stops the node.
    ///
    /// ```
    /// # use quorate::{At, Context, Hosted, Index, Service, State, StateMachine, WriteState};
    /// # use std::io;
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
    ///
    /// struct Counter {
    ///     total: u64,
    ///     /// Not a part of the state: [`State::load`] leaves it as it is.
    ///     shown: Arc<AtomicU64>,
    /// }
    ///
    /// # impl State for Counter {
    /// #     fn save(&self) -> WriteState {
    /// #         let total = self.total;
    /// #         Box::new(move |to| to.write_all(&total.to_le_bytes()))
    /// #     }
    /// #     fn load(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
    /// #         let mut total = [0; 8];
    /// #         from.read_exact(&mut total)?;
    /// #         self.total = u64::from_le_bytes(total);
    /// #         Ok(())
    /// #     }
    /// # }
    /// #
    /// impl Service for Counter {
    ///     quorate::types!(u64 => (), () => u64);
    ///
    ///     fn flush(&mut self, _applied: Index) {
    ///         self.shown.store(self.total, Ordering::Relaxed);
    ///     }
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) { self.total += add; }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.total }
    /// }
    /// # let shown = Arc::new(AtomicU64::new(0));
    /// # let mut counter = Hosted::new({ let shown = Arc::clone(&shown); move || Counter { total: 0, shown: Arc::clone(&shown) } });
    /// # counter.apply(&At { index: Index(1), ..At::default() }, &Hosted::<Counter>::encode(&3));
    /// # assert_eq!(shown.load(Ordering::Relaxed), 0, "the batch goes on");
    /// # counter.flush(Index(1));
    /// # assert_eq!(shown.load(Ordering::Relaxed), 3);
    /// ```
    fn flush(&mut self, _applied: Index) {}
}

/// Writes the seven message types of a [`Service`]: `Command => Reply, Query => Answer`, then, where
/// the service has them, `event E`, `signal S` and `effect F`, in this order. A type that is left
/// out is [`Never`](crate::Never), and without a signal [`Service::signal`] is written, too.
///
/// ```
/// # use quorate::{At, Context, Service};
/// # use std::time::Duration;
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Reminders;
/// impl Service for Reminders {
///     quorate::types!(String => (), () => (), event String, signal String);
///
///     fn apply(&mut self, text: String, cx: &mut Context<'_, Self>) {
///         cx.after(Duration::from_secs(60), text);
///     }
///
///     fn signal(&mut self, text: String, cx: &mut Context<'_, Self>) {
///         cx.publish("reminders", text);
///     }
///
///     fn query(&self, (): (), _: At) {}
/// }
/// ```
#[macro_export]
macro_rules! types {
    (
        $command:ty => $reply:ty, $query:ty => $answer:ty
        $(, event $event:ty)? $(, signal $signal:ty)? $(, effect $effect:ty)? $(,)?
    ) => {
        type Command = $command;
        type Reply = $reply;
        type Query = $query;
        type Answer = $answer;
        type Event = $crate::types!(@or_never $($event)?);
        type Effect = $crate::types!(@or_never $($effect)?);
        $crate::types!(@signal $($signal)?);
    };
    (@or_never) => { $crate::Never };
    (@or_never $type:ty) => { $type };
    (@signal) => {
        type Signal = $crate::Never;

        fn signal(&mut self, never: $crate::Never, _: &mut $crate::Context<'_, Self>) {
            match never {}
        }
    };
    (@signal $signal:ty) => { type Signal = $signal; };
}
