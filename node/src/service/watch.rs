//! Watches: the events of a service, at the handle of a node.

use super::{
    call::Boxed,
    errors::QueryError,
    history::{Changes, Topics},
    hosted::Hosted,
    hub::{Cursor, End},
    interface::Service,
};
use crate::{
    actors::applier::{Query, Unreadable},
    node::Node,
    results::{Consistency, Read},
};
use quorate_metrics::NodeMetrics;
use quorate_raft::Index;
use std::{
    fmt,
    future::{IntoFuture, poll_fn},
    time::Duration,
};
use tokio::sync::oneshot;

impl<S: Service> Node<Hosted<S>> {
    /// Watches the events under one topic (a string), or under [`Topics`]. Awaited as it is, the
    /// watch begins after what this node has applied by then; [`Watching::after`] begins at an
    /// index, and [`Watching::seeing`] at the state that a query has seen.
    ///
    /// A watch gets each event once, in the order of the log, without a gap, on any node; after a
    /// failure it goes on at another node, from its [position](Watch::position). It keeps no events
    /// of its own, but reads the history, which is replicated and bounded: a watch that is too slow
    /// ends by name.
    ///
    /// ```
    /// # use quorate::{At, Context, Node, NodeId, Service, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// impl Service for Counter {
    ///     quorate::types!(u64 => u64, () => u64, event u64);
    ///
    ///     fn apply(&mut self, add: u64, cx: &mut Context<'_, Self>) -> u64 {
    ///         self.0 += add;
    ///         cx.publish("total", self.0);
    ///         self.0
    ///     }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// }
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// let mut watch = node.watch("total").await?;
    /// let applied = node.call(3).await?;
    /// let changes = watch.next().await?;
    /// assert_eq!(changes.index, applied.index);
    /// assert_eq!(*changes.events[0].1, 3);
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If too much is in flight, this node is a witness or stops, or its service has halted.
    pub fn watch(&self, topics: impl Into<Topics>) -> Watching<'_, S> {
        Watching { node: self, topics: topics.into(), after: None }
    }

    /// Opens a watch between two batches.
    async fn open(&self, topics: Topics, after: Option<Index>) -> Result<Watch<S>, WatchError> {
        let shared = &*self.shared;
        if !shared.lifecycle.is_running() {
            return Err(WatchError::Stopped);
        }
        if shared.is_witness {
            return Err(WatchError::Witness);
        }
        let permit = self.enter(0).map_err(|retry_after| WatchError::Overloaded { retry_after })?;
        let (answer, answered) = oneshot::channel();
        let run = Box::new(move |hosted: Result<&Hosted<S>, Unreadable>, _| {
            drop(permit);
            let outcome = match hosted {
                Ok(hosted) => Ok(hosted.watch(topics, after)),
                Err(Unreadable::Halted(at)) => Err(WatchError::Halted { at }),
                Err(Unreadable::Late) => Err(WatchError::Witness),
            };
            // The caller may have left; then the cursor is dropped here.
            let _ = answer.send(outcome);
        });
        shared.applier.do_send(Query { index: Index(0), until: None, wants_view: false, run });
        let cursor = answered.await.unwrap_or(Err(WatchError::Stopped))?;
        Ok(Watch { cursor, counted: CountedWatch::new(&shared.metrics) })
    }
}

/// A watch that is opened once this is awaited, and its beginning: see [`Node::watch`].
///
/// ```
/// use quorate::{Index, Service, ServiceNode, Watch, WatchError};
///
/// async fn go_on<S: Service>(node: &ServiceNode<S>, position: Option<Index>) -> Result<Watch<S>, WatchError> {
///     let watching = node.watch("total");
///     match position {
///         Some(position) => watching.after(position).await,
///         None => watching.await,
///     }
/// }
/// ```
#[must_use = "a watch is opened once this is awaited"]
pub struct Watching<'a, S: Service> {
    node: &'a Node<Hosted<S>>,
    topics: Topics,
    after: Option<Index>,
}

impl<'a, S: Service> Watching<'a, S> {
    /// Begins with the first entry after `index`: the [position](Watch::position) of an earlier
    /// watch, on this node or another. If this node has not applied that index yet, the watch waits;
    /// it gets nothing of an entry up to `index`, and `Index(u64::MAX)` waits for the node's end.
    ///
    /// ```
    /// # use quorate::{At, Context, Node, NodeId, Service, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64, event u64);
    /// #     fn apply(&mut self, add: u64, cx: &mut Context<'_, Self>) -> u64 {
    /// #         self.0 += add;
    /// #         cx.publish("total", self.0);
    /// #         self.0
    /// #     }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// let first = node.call(3).await?;
    /// node.call(4).await?;
    /// let mut watch = node.watch("total").after(first.index).await?;
    /// assert_eq!(*watch.next().await?.events[0].1, 7);
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn after(self, index: Index) -> Self {
        Self { after: Some(index), ..self }
    }

    /// Asks a query, linearizable, and begins with the first entry after the state that it saw: so
    /// the answer, brought up to date by each event, stays equal to the state. Takes the place of
    /// [`Watching::after`].
    ///
    /// ```
    /// # use quorate::{At, Context, Node, NodeId, Service, storage::Memory, transport::MemoryNetwork};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64, event u64);
    /// #     fn apply(&mut self, add: u64, cx: &mut Context<'_, Self>) -> u64 {
    /// #         self.0 += add;
    /// #         cx.publish("total", self.0);
    /// #         self.0
    /// #     }
    /// #     fn query(&self, (): (), _: At) -> u64 { self.0 }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// node.call(3).await?;
    /// let (read, mut watch) = node.watch("total").seeing(()).await?;
    /// assert_eq!((read.value, read.index), (3, watch.position()));
    /// node.call(4).await?;
    /// assert_eq!(*watch.next().await?.events[0].1, 7);
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Node::query`].
    pub async fn seeing(self, query: S::Query) -> Result<(Read<S::Answer>, Watch<S>), QueryError> {
        let Self { node, topics, .. } = self;
        let ask = move |hosted: &Hosted<S>| hosted.ask(query).map(|answer| (answer, hosted.watch(topics, None)));
        let Read { index, value } = node.read(Consistency::Linearizable, ask).await?;
        let (value, cursor) = value.map_err(|message| QueryError::Panicked { message })?;
        Ok((Read { index, value }, Watch { cursor, counted: CountedWatch::new(&node.shared.metrics) }))
    }
}

impl<'a, S: Service> IntoFuture for Watching<'a, S> {
    type Output = Result<Watch<S>, WatchError>;
    type IntoFuture = Boxed<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { node, topics, after } = self;
        Box::pin(node.open(topics, after))
    }
}

/// A position in the history of a node: see [`Node::watch`]. It does not keep the node running, and
/// costs the node nothing once it is dropped. A watch that waits in [`Watch::next`] keeps up with the
/// history even if its topics are quiet; one that is not asked keeps its position, and ends once the
/// history has evicted events after that.
///
/// ```
/// use quorate::{Service, ServiceNode, Topics, WatchError};
///
/// async fn follow<S: Service>(node: &ServiceNode<S>) -> Result<(), WatchError> {
///     let mut watch = node.watch(Topics::All).await?;
///     tokio::spawn(async move {
///         while let Ok(changes) = watch.next().await {
///             println!("{changes:?}");
///         }
///     });
///     Ok(())
/// }
/// ```
pub struct Watch<S: Service> {
    cursor: Cursor<S::Event>,
    counted: CountedWatch,
}

/// A watch in the metrics of its node, as long as it is open.
struct CountedWatch(NodeMetrics);

impl CountedWatch {
    fn new(metrics: &NodeMetrics) -> Self {
        metrics.watch_opened();
        Self(metrics.clone())
    }
}

impl Drop for CountedWatch {
    fn drop(&mut self) {
        self.0.watch_closed();
    }
}

impl<S: Service> Watch<S> {
    /// Waits for the next entry that published selected events, and returns all of them. To drop the
    /// future loses nothing. After an error the watch is over: each further call gives one, too.
    ///
    /// # Errors
    /// If the next events were evicted, or the node has stopped or halted. Events that the node
    /// published before that come first.
    ///
    /// ```
    /// use quorate::{Service, Watch, WatchError};
    ///
    /// async fn follow<S: Service<Event = u64>>(watch: &mut Watch<S>) {
    ///     loop {
    ///         match watch.next().await {
    ///             Ok(changes) => println!("{}: {:?}", changes.index, changes.events),
    ///             Err(WatchError::Gone { floor, .. }) => return println!("events up to {floor} are gone"),
    ///             Err(error) => return println!("{error}: go on after {}, at another node", watch.position()),
    ///         }
    ///     }
    /// }
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64, event u64);
    /// #     fn apply(&mut self, add: u64, cx: &mut quorate::Context<'_, Self>) -> u64 {
    /// #         cx.publish("total", add);
    /// #         add
    /// #     }
    /// #     fn query(&self, (): (), _: quorate::At) -> u64 { self.0 }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use quorate::{Node, NodeId, storage::Memory, transport::MemoryNetwork};
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// # let mut watch = node.watch("total").await?;
    /// # node.call(1).await?;
    /// # node.shutdown().await;
    /// # follow(&mut watch).await;
    /// # assert_eq!(watch.next().await.map(|_| ()), Err(WatchError::Stopped));
    /// # Ok(()) }
    /// ```
    pub async fn next(&mut self) -> Result<Changes<S::Event>, WatchError> {
        // A watch with much to read lets other tasks have their turn.
        tokio::task::coop::consume_budget().await;
        let changes = poll_fn(|cx| self.cursor.poll_next(cx)).await.map_err(WatchError::from)?;
        self.counted.0.watch_events(changes.events.len() as u64);
        Ok(changes)
    }

    /// The index to go on after, here or at another node: up to it, every selected event was
    /// returned. It also advances over entries without one, at the latest in [`Watch::next`]: keep
    /// it up to date, so that it stays in the history though the topics are quiet.
    ///
    /// ```
    /// # use quorate::{Service, Watch};
    /// async fn positions<S: Service>(watch: &mut Watch<S>) -> Result<(), quorate::WatchError> {
    ///     let changes = watch.next().await?;
    ///     assert_eq!(watch.position(), changes.index);
    ///     Ok(())
    /// }
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Counter(u64);
    /// # impl Service for Counter {
    /// #     quorate::types!(u64 => u64, () => u64, event u64);
    /// #     fn apply(&mut self, add: u64, cx: &mut quorate::Context<'_, Self>) -> u64 {
    /// #         cx.publish("total", add);
    /// #         add
    /// #     }
    /// #     fn query(&self, (): (), _: quorate::At) -> u64 { self.0 }
    /// # }
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use quorate::{Node, NodeId, storage::Memory, transport::MemoryNetwork};
    /// # let node = Node::builder(NodeId(1), "demo").voters([(NodeId(1), "")]);
    /// # let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::new());
    /// # let node = node.serve(Counter::default).start().await?;
    /// # let mut watch = node.watch("total").await?;
    /// # node.call(1).await?;
    /// # positions(&mut watch).await?;
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn position(&self) -> Index {
        self.cursor.position()
    }
}

/// Why a watch was not opened, or ended.
///
/// ```
/// use quorate::{Index, WatchError};
///
/// let gone = WatchError::Gone { floor: Index(9), position: Index(4) };
/// assert!(gone.to_string().contains("up to entry 9"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// Events after the position were evicted, and perhaps selected ones among them. Begin anew with
    /// the state: [`Watching::seeing`].
    #[error("the events up to entry {floor} are gone, and the watch stands at {position}: read the state anew")]
    Gone {
        /// Index of the last entry that was evicted; the history after it is complete.
        floor: Index,
        /// The position of the watch.
        position: Index,
    },
    /// Too much is in flight: the watch was not opened. Try again later.
    #[error("overloaded: try again after {retry_after:?}")]
    Overloaded {
        /// The time after which another attempt may succeed.
        retry_after: Duration,
    },
    /// This node is a witness and applies nothing. Ask another node.
    #[error("this node is a witness and has no events; ask another node")]
    Witness,
    /// The service has halted on this node, and every event before that was returned. Go on at
    /// another node.
    #[error("the service halted at entry {at} on this node; go on at another node")]
    Halted {
        /// The entry that was not applied.
        at: Index,
    },
    /// The node is stopping or has stopped. Go on at another node.
    #[error("the node is stopping; go on at another node")]
    Stopped,
}

impl From<End> for WatchError {
    fn from(end: End) -> Self {
        match end {
            End::Gone { floor, position } => Self::Gone { floor, position },
            End::Halted { at } => Self::Halted { at },
            End::Stopped => Self::Stopped,
        }
    }
}

impl<S: Service> fmt::Debug for Watching<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching").field("topics", &self.topics).field("after", &self.after).finish_non_exhaustive()
    }
}

impl<S: Service> fmt::Debug for Watch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("cursor", &self.cursor).finish()
    }
}
