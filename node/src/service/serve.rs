//! The start of a node that hosts a service.

use super::{
    call::ServiceNode,
    effects::{self, Handler, Perform},
    hosted::Hosted,
    interface::{Never, Service},
    leaderships::Leaderships,
    outbox::Outbox,
    performing::Performance,
};
use crate::{builder::Builder, error::StartError};
use std::{
    any::{TypeId, type_name},
    fmt,
};
use tokio::{runtime::Handle, sync::watch};

/// A node that is to host a service: see [`Builder::serve`].
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
/// let serve = node.serve(Counter::default); // does not run yet
/// let node = serve.start().await?;
/// # node.shutdown().await;
/// # Ok(()) }
/// ```
#[must_use = "a node runs once it is started"]
pub struct Serve<S: Service> {
    builder: Builder,
    new: Box<dyn Fn() -> S + Send>,
    handler: Option<Handler<S>>,
}

impl Builder {
    /// Hosts the service that `new` makes: its state before the first entry, equal on every node.
    ///
    /// The node applies the versions up to [`Service::VERSION`], in place of those of
    /// [`Builder::applies_versions`]. Once every member does, the leader raises the version of the
    /// cluster to it, and commands that it introduced are taken
    /// ([`Status::schema_version`](crate::Status::schema_version)).
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
    /// let node = Node::builder(NodeId(1), "demo")
    ///     .voters([(NodeId(1), "")])
    ///     .network(MemoryNetwork::new().endpoint(NodeId(1)))
    ///     .storage(Memory::new())
    ///     .serve(Counter::default)
    ///     .start()
    ///     .await?;
    /// assert_eq!(node.call(3).await?.reply, 3);
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn serve<S: Service>(self, new: impl Fn() -> S + Send + 'static) -> Serve<S> {
        let builder = self.writes_version(0).applies_versions(0..=S::VERSION);
        Serve { builder, new: Box::new(new), handler: None }
    }
}

impl<S: Service> Serve<S> {
    /// Sets the handler that performs the effects of the service while this node leads. It runs on
    /// the tokio runtime in which the node is started.
    ///
    /// ```
    /// # use quorate::{At, Context, Node, NodeId, Retry, Service, Ticket, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Mails(Vec<String>);
    /// # impl Service for Mails {
    /// #     quorate::types!(String => (), () => Vec<String>, signal String, effect String);
    /// #     fn apply(&mut self, mail: String, cx: &mut Context<'_, Self>) { let _ = cx.perform("mails", mail); }
    /// #     fn signal(&mut self, sent: String, _: &mut Context<'_, Self>) { self.0.push(sent); }
    /// #     fn query(&self, (): (), _: At) -> Vec<String> { self.0.clone() }
    /// # }
    /// # async fn send(mail: &str, id: &str) -> Result<(), std::io::Error> { Ok(()) }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// let node = node
    ///     .serve(Mails::default)
    ///     .effects(async |mail: String, ticket: Ticket| {
    ///         send(&mail, &ticket.id.to_string()).await.map_err(Retry::because)?;
    ///         Ok(mail) // the signal that completes the effect
    ///     })
    ///     .start()
    ///     .await?;
    /// node.call("hello".into()).await?;
    /// while node.query(()).await?.value.is_empty() {
    ///     tokio::task::yield_now().await;
    /// }
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn effects(self, handler: impl Perform<S>) -> Self {
        Self { handler: Some(effects::boxed(handler)), ..self }
    }

    /// Sets the most events that the cluster keeps for watches, and the most bytes of them, while
    /// this node leads: 16,384 and 8 MiB by default. The newest entry that published is always kept
    /// whole.
    ///
    /// ```
    /// # use quorate::{Serve, Service};
    /// # fn small<S: Service>(node: Serve<S>) -> Serve<S> {
    /// node.history(1_000, 1 << 20)
    /// # }
    /// ```
    pub fn history(mut self, events: u32, bytes: u32) -> Self {
        (self.builder.bounds.history_events, self.builder.bounds.history_bytes) = (events, bytes);
        self
    }

    /// Sets the most effects that may wait for their completion, and the most bytes of their keys
    /// and encoded forms, while this node leads: 65,536 and 64 MiB by default. More are refused
    /// ([`OutboxFull`](crate::OutboxFull)).
    ///
    /// ```
    /// # use quorate::{Serve, Service};
    /// # fn small<S: Service>(node: Serve<S>) -> Serve<S> {
    /// node.outbox(1_000, 1 << 20)
    /// # }
    /// ```
    pub fn outbox(mut self, effects: u32, bytes: u32) -> Self {
        (self.builder.bounds.outbox_effects, self.builder.bounds.outbox_bytes) = (effects, bytes);
        self
    }

    /// Starts the node, as [`Builder::start`] does.
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
    /// let node = node.serve(Counter::default).start().await?; // on a thread of its own
    /// assert_eq!(node.call(3).await?.reply, 3);
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Builder::start`]; and if the service has effects, but no handler, or the future is not
    /// awaited in a tokio runtime, where a handler could run.
    pub async fn start(self) -> Result<ServiceNode<S>, StartError> {
        let (builder, machine, performs) = self.parts()?;
        let node = builder.start(machine).await?;
        if let Some(performs) = performs {
            performs.begin(&node);
        }
        Ok(node)
    }

    /// Starts the node on the current thread, as [`Builder::start_local`] does.
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
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// let tasks = tokio::task::LocalSet::new();
    /// tasks.run_until(async {
    ///     let node = node.serve(Counter::default).start_local().await?;
    ///     assert_eq!(node.call(3).await?.reply, 3);
    ///     node.shutdown().await;
    ///     Ok(())
    /// }).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Builder::start_local`] and [`Serve::start`].
    pub async fn start_local(self) -> Result<ServiceNode<S>, StartError> {
        let (builder, machine, performs) = self.parts()?;
        let node = builder.start_local(machine).await?;
        if let Some(performs) = performs {
            performs.begin(&node);
        }
        Ok(node)
    }

    fn parts(self) -> Result<Parts<S>, StartError> {
        let Self { builder, new, handler } = self;
        let name = type_name::<S>();
        if handler.is_none() && TypeId::of::<S::Effect>() != TypeId::of::<Never>() {
            return Err(StartError::Config(format!(
                "the service {name} has effects and no handler that performs them: set one (Serve::effects)"
            )));
        }
        let machine = Hosted::new(new);
        let Some(handler) = handler else { return Ok((builder, machine, None)) };
        let runtime = Handle::try_current().map_err(|error| {
            StartError::Config(format!(
                "the handler of {name}'s effects has no runtime: start the node in a tokio runtime ({error})"
            ))
        })?;
        let performs = Performs { handler, outbox: machine.outbox(), runtime };
        Ok((builder, machine, Some(performs)))
    }
}

/// A node that is not started, its machine, and the means to perform effects.
type Parts<S> = (Builder, Hosted<S>, Option<Performs<S>>);

/// The means to perform effects, before there is a node.
struct Performs<S: Service> {
    handler: Handler<S>,
    outbox: watch::Receiver<Outbox>,
    runtime: Handle,
}

impl<S: Service> Performs<S> {
    fn begin(self, node: &ServiceNode<S>) {
        let performance = Performance::<S>::new(node, self.handler, self.outbox);
        self.runtime.spawn(performance.run(Leaderships::of(node)));
    }
}

impl<S: Service> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("builder", &self.builder).finish_non_exhaustive()
    }
}
