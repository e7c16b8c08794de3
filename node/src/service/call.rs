//! Commands and queries of a service at the handle of its node, with their options.

use super::{
    errors::{CallError, QueryError, Refused},
    hosted::{Hosted, ServiceView},
    interface::Service,
};
use crate::{
    decisions::{callers::Outcome, versions},
    error::{ProposeError, ReadError},
    node::Node,
    propose::{self, Proposing},
    reading::{Terms, Ways, deadline},
    results::{Applied, Consistency, Read},
    session::Session,
};
use quorate_raft::session::SessionKey;
use std::{
    fmt,
    future::IntoFuture,
    mem,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{task::consume_budget, time::Instant};

/// The handle of a node that hosts a service.
///
/// ```
/// # use quorate::{At, Context, Node, NodeId, Service, ServiceNode, storage::Memory, transport::MemoryNetwork};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Counter(u64);
/// # impl Service for Counter {
/// #     quorate::types!(u64 => u64, () => u64);
/// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
/// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
/// # }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
/// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
/// let node: ServiceNode<Counter> = node.serve(Counter::default).start().await?;
/// let other = node.clone(); // a handle: both are of one node
/// assert_eq!(other.call(3).await?.reply, 3);
/// # node.shutdown().await;
/// # Ok(()) }
/// ```
pub type ServiceNode<S> = Node<Hosted<S>>;

/// The future that an option builder becomes once it is awaited.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl<S: Service> Node<Hosted<S>> {
    /// Calls the service: replicates a command, applies it on every node, and returns the leader's
    /// reply; any node takes it. Awaiting sends it; to drop the future cancels nothing.
    ///
    /// ```
    /// # use quorate::{At, Context, Node, NodeId, Service, ServiceNode, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// let applied = node.call(3).await?;
    /// let again = node.call(4).within(std::time::Duration::from_secs(5)).await?;
    /// assert_eq!((applied.reply, again.reply), (3, 7));
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`CallError`]: only one of its variants leaves the outcome unknown.
    ///
    /// # Panics
    /// If the command's type has no form in postcard: see [`Message`](crate::Message).
    pub fn call(&self, command: S::Command) -> Call<'_, S> {
        let needs = S::since(&command);
        Call { proposing: Proposing::new(self, Hosted::<S>::encode(&command), alone), needs, within: None }
    }

    /// Asks the service without changing it: answered by this node, under a promise of freshness,
    /// linearizable unless another one is asked for.
    ///
    /// ```
    /// # use quorate::{At, Consistency, Context, Node, NodeId, Service, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// assert_eq!(node.query(()).await?.value, 0);
    /// let old = node.query(()).consistency(Consistency::Local).await?;
    /// # let _ = old;
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the read is not served, or the service panics while it answers.
    pub fn query(&self, query: S::Query) -> Ask<'_, S> {
        Ask { node: self, query, consistency: Consistency::Linearizable, within: None }
    }
}

impl<S: Service> Session<Hosted<S>> {
    /// Calls the service as [`Node::call`] does. The command is sent again until its outcome is
    /// known or the session's patience ends, and takes effect at most once.
    ///
    /// ```no_run
    /// # use quorate::{CallError, Service, Session, Hosted};
    /// # async fn run<S: Service<Command = u64>>(session: Session<Hosted<S>>) -> Result<(), CallError> {
    /// let applied = session.call(3).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Node::call`].
    ///
    /// # Panics
    /// As [`Node::call`].
    pub async fn call(&self, command: S::Command) -> Result<Applied<S::Reply>, CallError> {
        let command = Hosted::<S>::encode(&command);
        replied::<S>(self.propose(command).await.map_err(CallError::from))
    }
}

/// A command that is sent once this is awaited, and its options: see [`Node::call`].
///
/// ```
/// # use quorate::{At, Context, Node, NodeId, Service, storage::Memory, transport::MemoryNetwork};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Counter(u64);
/// # impl Service for Counter {
/// #     quorate::types!(u64 => u64, () => u64);
/// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
/// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
/// # }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
/// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
/// # let node = node.serve(Counter::default).start().await?;
/// let call = node.call(3).within(std::time::Duration::from_secs(5));
/// assert_eq!(call.await?.reply, 3);
/// # node.shutdown().await;
/// # Ok(()) }
/// ```
#[must_use = "a command is sent once this is awaited"]
pub struct Call<'a, S: Service> {
    proposing: Proposing<'a, Hosted<S>, CallError>,
    /// The version that introduced the command.
    needs: u32,
    within: Option<Duration>,
}

impl<S: Service> Call<'_, S> {
    /// Sets a deadline, this long from the await. A command that no leader has accepted by then
    /// never takes effect.
    ///
    /// ```
    /// # use quorate::{At, Context, Node, NodeId, Service, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// let applied = node.call(3).within(std::time::Duration::from_secs(5)).await?;
    /// assert_eq!(applied.reply, 3);
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn within(self, limit: Duration) -> Self {
        Self { within: Some(limit), ..self }
    }

    /// Sends the command as `serial` of a session, once: for callers that number and repeat their
    /// commands themselves. A serial that was applied before gets its first reply again, and the
    /// command itself is ignored. See [`Proposing::by_session`](crate::Proposing::by_session).
    ///
    /// ```
    /// # use quorate::{At, Context, Node, NodeId, Service, SessionKey, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// let key = SessionKey::named(b"client 7").expect("1 to 64 bytes");
    /// let first = node.call(3).numbered(&key, 1).await?;
    /// let again = node.call(3).numbered(&key, 1).await?; // its caller had no answer
    /// assert_eq!((again.index, again.reply), (first.index, 3));
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn numbered(mut self, session: &SessionKey, serial: u64) -> Self {
        self.proposing.session = Some((session.clone(), serial));
        self.proposing.convert = in_session;
        self
    }
}

/// Not boxed: the box would cost as much as an entry costs on a node.
impl<S: Service> Future for Call<'_, S> {
    type Output = Result<Applied<S::Reply>, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { proposing, needs, within } = &mut *self;
        if proposing.offered.is_none() {
            // Of a numbered command the log has the answer to every attempt.
            if proposing.session.is_none() {
                refuse_if_too_new(proposing.node, *needs)?;
            }
            // A deadline beyond the range of the clock is none.
            proposing.until = within.and_then(|within| Instant::now().checked_add(within));
        }
        Pin::new(proposing).poll(cx).map(replied::<S>)
    }
}

fn alone(outcome: Result<Outcome, ProposeError>) -> Result<Applied, CallError> {
    propose::without_session(outcome).map_err(CallError::from)
}

fn in_session(outcome: Result<Outcome, ProposeError>) -> Result<Applied, CallError> {
    propose::in_session(outcome).map_err(CallError::from)
}

/// A query that is asked once this is awaited, and its options: see [`Node::query`].
///
/// ```
/// # use quorate::{At, Context, Node, NodeId, Service, Consistency, storage::Memory, transport::MemoryNetwork};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Counter(u64);
/// # impl Service for Counter {
/// #     quorate::types!(u64 => u64, () => u64);
/// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
/// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
/// # }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
/// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
/// # let node = node.serve(Counter::default).start().await?;
/// let ask = node.query(()).consistency(Consistency::Local);
/// assert_eq!(ask.await?.value, 0);
/// # node.shutdown().await;
/// # Ok(()) }
/// ```
#[must_use = "a query is asked once this is awaited"]
pub struct Ask<'a, S: Service> {
    node: &'a Node<Hosted<S>>,
    query: S::Query,
    consistency: Consistency,
    within: Option<Duration>,
}

impl<S: Service> Ask<'_, S> {
    /// Sets the promise of the read; linearizable by default.
    ///
    /// ```
    /// # use quorate::{At, Context, Node, NodeId, Service, Consistency, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// node.call(3).await?;
    /// let read = node.query(()).consistency(Consistency::Linearizable).await?;
    /// assert_eq!(read.value, 3);
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn consistency(self, consistency: Consistency) -> Self {
        Self { consistency, ..self }
    }

    /// Sets a deadline, this long from the await, in place of the waits of the settings.
    ///
    /// ```
    /// # use quorate::{At, Context, Node, NodeId, Service, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64);
    /// #     fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 { self.0 += add; self.0 }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// let read = node.query(()).within(std::time::Duration::from_secs(1)).await?;
    /// assert_eq!(read.value, 0);
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn within(self, limit: Duration) -> Self {
        Self { within: Some(limit), ..self }
    }
}

impl<'a, S: Service> IntoFuture for Ask<'a, S> {
    type Output = Result<Read<S::Answer>, QueryError>;
    type IntoFuture = Asking<'a, S>;

    fn into_future(self) -> Self::IntoFuture {
        Asking(Stage::Asks(self))
    }
}

/// The future of a query. A query that a view answers allocates nothing.
pub struct Asking<'a, S: Service>(Stage<'a, S>);

enum Stage<'a, S: Service> {
    Asks(Ask<'a, S>),
    Waits(Boxed<'a, Result<Read<S::Answer>, QueryError>>),
    Answered,
}

/// Nothing in it is pinned but the box.
impl<S: Service> Unpin for Asking<'_, S> {}

impl<S: Service> Future for Asking<'_, S> {
    type Output = Result<Read<S::Answer>, QueryError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let stage = &mut self.get_mut().0;
        // Queries that never wait must not keep a thread from its other tasks.
        if matches!(stage, Stage::Asks(_)) && pin!(consume_budget()).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let mut waits = match mem::replace(stage, Stage::Answered) {
            Stage::Asks(Ask { node, query, consistency, within }) => {
                let terms = Terms { consistency, until: within.and_then(deadline) };
                let ways = Ways {
                    by_machine: |query, hosted: &Hosted<S>| hosted.ask(query),
                    by_view: |query, view| match view.holds::<ServiceView<S>>() {
                        Some(view) => view.ask(query),
                        None => Err(query),
                    },
                };
                match node.read_now(terms, query, ways) {
                    Ok(outcome) => return Poll::Ready(answered(outcome)),
                    Err(waits) => {
                        let later: Boxed<'_, _> =
                            Box::pin(async move { answered(node.read_later(terms, waits, ways).await) });
                        later
                    }
                }
            }
            Stage::Waits(waits) => waits,
            Stage::Answered => panic!("a query is polled after its answer"),
        };
        let outcome = waits.as_mut().poll(cx);
        if outcome.is_pending() {
            *stage = Stage::Waits(waits);
        }
        outcome
    }
}

/// The answer of the author's code, or the error of the read or of that code.
fn answered<T>(outcome: Result<Read<Result<T, String>>, ReadError>) -> Result<Read<T>, QueryError> {
    let Read { index, value } = outcome?;
    value.map(|value| Read { index, value }).map_err(|message| QueryError::Panicked { message })
}

/// Refuses a command that a member is known not to apply: so no entry is made for it.
fn refuse_if_too_new<S: Service>(node: &Node<Hosted<S>>, needs: u32) -> Result<(), CallError> {
    if needs == 0 {
        return Ok(()); // before a look at the status: no cluster is at an older version
    }
    let status = node.shared.status.borrow();
    let (cluster, of_all) = (status.schema_version, status.machine_versions.as_ref().map(|versions| *versions.start()));
    match versions::is_too_new(needs, cluster, of_all) {
        true => Err(CallError::Refused(Refused::TooNew { needs, cluster })),
        false => Ok(()),
    }
}

/// The reply in the outcome of an applied entry.
fn replied<S: Service>(outcome: Result<Applied, CallError>) -> Result<Applied<S::Reply>, CallError> {
    let Applied { index, reply } = outcome?;
    match Hosted::<S>::decode(&reply) {
        Some(Ok(reply)) => Ok(Applied { index, reply }),
        Some(Err(refused)) => Err(CallError::Refused(refused)),
        None => Err(CallError::ReplyUnreadable { index }),
    }
}

impl<S: Service> fmt::Debug for Call<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proposing: Proposing { command, session, .. }, within, .. } = self;
        let bytes = command.len();
        f.debug_struct("Call").field("bytes", &bytes).field("within", within).field("session", session).finish()
    }
}

impl<S: Service> fmt::Debug for Ask<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { consistency, within, .. } = self;
        f.debug_struct("Ask").field("consistency", consistency).field("within", within).finish_non_exhaustive()
    }
}
