//! The leaderships of a node, for all that a leader does beside consensus: effects and the author's
//! own tasks.

use super::{context::Token, hosted::Hosted, interface::Service};
use crate::{
    actors::applier::{Applier, Query, Unreadable},
    decisions::internal_entries::Leading,
    events::What,
    machine::StateMachine,
    node::Node,
};
use actix::Addr;
use futures_util::FutureExt;
use quorate_raft::Index;
use std::{fmt, future::Future, panic::AssertUnwindSafe};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

/// The leaderships of this node, each from the moment at which its first entry is applied here: all
/// that earlier leaders did is known then.
pub(super) struct Leaderships<M: StateMachine> {
    leading: watch::Receiver<Option<Leading>>,
    applier: Addr<Applier<M>>,
}

/// A leadership, and what is known at its first entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leadership {
    pub(super) leading: Leading,
    /// The entries up to here are applied.
    pub(super) applied: Index,
    generation: u32,
}

impl Leadership {
    /// Its fence: higher than that of every earlier leadership, also of the cluster whose data an
    /// operator recovered or restored.
    pub(super) fn fence(&self) -> Token {
        Token::new(self.generation, self.leading.term.0, 0)
    }
}

impl<M: StateMachine> Leaderships<M> {
    pub(super) fn of(node: &Node<M>) -> Self {
        Self { leading: node.shared.leading.clone(), applier: node.shared.applier.clone() }
    }

    /// Waits for the next leadership, or the one that goes on. `None` once there will be none: the
    /// node has ended, or its machine has halted.
    pub(super) async fn next(&mut self) -> Option<Leadership> {
        loop {
            // The last value stays after the sender has gone with the node.
            self.leading.has_changed().ok()?;
            let Some(leading) = *self.leading.borrow_and_update() else {
                self.leading.changed().await.ok()?;
                continue;
            };
            tokio::select! {
                biased;
                changed = self.leading.changed() => changed.ok()?,
                looked = look(&self.applier, leading.first) => match looked {
                    Looked::Applied { applied, generation } => return Some(Leadership { leading, applied, generation }),
                    Looked::Late => {}
                    Looked::Over => return None,
                },
            }
        }
    }

    /// Waits until this leadership is over.
    pub(super) async fn over(&mut self, leadership: &Leadership) {
        // The sender goes with the node.
        let _ = self.leading.wait_for(|leading| *leading != Some(leadership.leading)).await;
    }
}

enum Looked {
    Applied { applied: Index, generation: u32 },
    Late,
    Over,
}

/// Waits until the entries up to `first` are applied.
async fn look<M: StateMachine>(applier: &Addr<Applier<M>>, first: Index) -> Looked {
    let (answer, answered) = oneshot::channel();
    let run = Box::new(move |machine: Result<&M, Unreadable>, applied| {
        // The leadership may be over.
        let _ = answer.send(match machine {
            Ok(machine) => Looked::Applied { applied, generation: machine.generation() },
            Err(Unreadable::Late) => Looked::Late,
            Err(Unreadable::Halted(_)) => Looked::Over,
        });
    });
    applier.do_send(Query { index: first, until: None, wants_view: false, run });
    answered.await.unwrap_or(Looked::Over)
}

impl<S: Service> Node<Hosted<S>> {
    /// Runs `task` while this node leads: it is started with each leadership, once this node has
    /// applied everything that earlier leaders committed, and dropped when the leadership ends. A
    /// task that returns, or panics, is not started again before the next leadership. It gets the
    /// fence of its leadership, which rises from one to the next, also where the cluster is recovered
    /// or restored. It is not comparable with the token of a command or signal: see [`Token`].
    ///
    /// **For a while two nodes may both run theirs**: a leader learns with a delay that it was
    /// deposed. Pass the fence to all that the task acts on, and have lower ones refused there.
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
    /// let (led, mut leads) = tokio::sync::mpsc::channel(1);
    /// let task = node.while_leading(move |fence| {
    ///     let led = led.clone();
    ///     async move {
    ///         let _ = led.send(fence).await;
    ///         std::future::pending().await
    ///     }
    /// });
    /// assert!(leads.recv().await.is_some());
    /// drop(task); // no leadership starts it any more
    /// # node.shutdown().await;
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime, on which the task runs.
    pub fn while_leading<F: Future<Output = ()> + Send + 'static>(
        &self,
        task: impl Fn(Token) -> F + Send + Sync + 'static,
    ) -> LeaderTask {
        let mut leaderships = Leaderships::of(self);
        let events = self.shared.events.clone();
        LeaderTask(tokio::spawn(async move {
            while let Some(leadership) = leaderships.next().await {
                let run = AssertUnwindSafe(async { task(leadership.fence()).await }).catch_unwind();
                tokio::select! {
                    biased;
                    () = leaderships.over(&leadership) => continue,
                    Err(_) = run => events.tell(What::LeaderTaskPanicked),
                }
                leaderships.over(&leadership).await;
            }
        }))
    }
}

/// A task that runs while its node leads: see [`Node::while_leading`]. To drop this ends it for good.
/// It does not keep the node running.
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
/// let task = node.while_leading(|fence| async move { println!("leads with {fence}") });
/// drop(task);
/// # node.shutdown().await;
/// # Ok(()) }
/// ```
#[must_use = "the task ends when this is dropped"]
pub struct LeaderTask(JoinHandle<()>);

impl Drop for LeaderTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for LeaderTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderTask").finish_non_exhaustive()
    }
}
