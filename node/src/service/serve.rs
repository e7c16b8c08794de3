//! The start of a node that hosts a service.

use super::{call::ServiceNode, hosted::Hosted, interface::Service};
use crate::{builder::Builder, error::StartError};
use std::fmt;

/// A node that is to host a service: see [`Builder::serve`].
#[must_use = "a node runs once it is started"]
pub struct Serve<S: Service> {
    builder: Builder,
    new: Box<dyn Fn() -> S + Send>,
}

impl Builder {
    /// Hosts the service that `new` makes: its state before the first entry, equal on every node.
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
        Serve { builder: self, new: Box::new(new) }
    }
}

impl<S: Service> Serve<S> {
    /// Starts the node, as [`Builder::start`] does.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start(self) -> Result<ServiceNode<S>, StartError> {
        self.builder.start(Hosted::new(self.new)).await
    }

    /// Starts the node on the current thread, as [`Builder::start_local`] does.
    ///
    /// # Errors
    /// As [`Builder::start_local`].
    pub async fn start_local(self) -> Result<ServiceNode<S>, StartError> {
        self.builder.start_local(Hosted::new(self.new)).await
    }
}

impl<S: Service> fmt::Debug for Serve<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("builder", &self.builder).finish_non_exhaustive()
    }
}
