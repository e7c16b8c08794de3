//! A network with faults, around another network.
//!
//! The faults strike where a message arrives: the network below delivers it, and the receiver's end
//! loses, holds back, repeats or damages it. So a message on its way outlives its sender, and is
//! lost with its receiver. Links stay up whatever becomes of their messages, as they would on a
//! real network for a while.
//!
//! **Determinism:** with all nodes on one current-thread runtime with paused time, the same seed
//! and the same sends give the same deliveries: each direction of each pair of nodes has its own
//! random numbers, and no hash map or wall clock decides anything.
//!
//! **Bound:** messages that are held back keep the credit of an inbox of this network, so they are
//! at most as many bytes as that has ([`Inbox::CREDIT_BYTES`]), and as many again for second
//! copies.

use crate::{
    fate::read_damaged,
    faults::{Decided, Faults},
};
use quorate_raft::NodeId;
use quorate_transport::{
    MemoryNetwork,
    codec::Frame,
    network::{
        Delivered, DropReason, Event, Inbox, Introduction, Lane, Link, Links, LocalFuture, Network, NetworkContext,
        NetworkError, NetworkObserver,
    },
};
use std::{cell::RefCell, collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc};
use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local},
    time::{Instant, sleep_until},
};

/// An in-memory network with faults. Cloning it shares it.
#[derive(Clone, Debug)]
pub struct FaultNetwork {
    network: MemoryNetwork,
    faults: Faults,
}

impl FaultNetwork {
    /// A network on which messages travel encoded. `seed` decides every fault.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { network: MemoryNetwork::new(), faults: Faults::new(seed) }
    }

    /// A network on which messages travel as they are: fast.
    #[must_use]
    pub fn by_value(seed: u64) -> Self {
        Self { network: MemoryNetwork::by_value(), faults: Faults::new(seed) }
    }

    /// The network as `node` sees it. Addresses mean nothing on it.
    #[must_use]
    pub fn endpoint(&self, node: NodeId) -> FaultyEndpoint {
        FaultyEndpoint::around(self.network.endpoint(node), &self.faults)
    }

    /// The faults, adjustable at any time from any thread.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }
}

/// The end of a network at one node, with faults for the messages that arrive there.
pub struct FaultyEndpoint {
    inner: Box<dyn Network>,
    faults: Faults,
}

impl FaultyEndpoint {
    /// An endpoint of any network, with faults. All nodes should share them.
    #[must_use]
    pub fn around(inner: impl Network, faults: &Faults) -> Self {
        Self { inner: Box::new(inner), faults: faults.clone() }
    }
}

impl Network for FaultyEndpoint {
    fn start(self: Box<Self>, context: NetworkContext) -> LocalFuture<Result<Box<dyn Links>, NetworkError>> {
        let Self { inner, faults } = *self;
        let arriving = Rc::new(Arriving {
            faults,
            node: context.node,
            inbox: context.inbox.clone(),
            observer: Arc::clone(&context.observer),
            held: RefCell::default(),
            is_earlier: Notify::new(),
        });
        let sink = Rc::clone(&arriving);
        let inbox = Inbox::new(move |event| sink.take(event));
        Box::pin(async move {
            let inner = inner.start(NetworkContext { inbox, ..context }).await?;
            let task = spawn_local(arriving.release()).abort_handle();
            Ok(Box::new(FaultyLinks { inner, task }) as Box<dyn Links>)
        })
    }
}

struct FaultyLinks {
    inner: Box<dyn Links>,
    /// Delivers the messages that are held back.
    task: AbortHandle,
}

impl Links for FaultyLinks {
    fn introduce(&self, introduction: Introduction) {
        self.inner.introduce(introduction);
    }

    fn link(&self, peer: NodeId, address: &str) -> Rc<dyn Link> {
        self.inner.link(peer, address)
    }

    fn reply_link(&self, peer: NodeId) -> Rc<dyn Link> {
        self.inner.reply_link(peer)
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.inner.local_address()
    }

    fn close(&self) -> LocalFuture<()> {
        self.task.abort();
        self.inner.close()
    }
}

impl Drop for FaultyLinks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The receiving end of a node.
struct Arriving {
    faults: Faults,
    node: NodeId,
    inbox: Inbox,
    observer: Arc<dyn NetworkObserver>,
    held: RefCell<Held>,
    /// Notified when a message is held that is due before all others.
    is_earlier: Notify,
}

/// Messages that are not due yet, in the order in which they will be; equal instants in the order
/// of arrival.
#[derive(Default)]
struct Held {
    messages: BTreeMap<(Instant, u64), Delivered>,
    arrived: u64,
}

impl Arriving {
    fn take(&self, event: Event) {
        let Event::Delivered(mut delivered) = event else { return self.inbox.put(event) };
        if !self.faults.are_on() {
            return self.inbox.put(Event::Delivered(delivered));
        }
        let (from, lane) = (delivered.from, Lane::of(&delivered.message));
        match self.faults.decide(from, self.node, lane, Instant::now()) {
            Decided::Lost(reason) => self.observer.dropped(Some(from), reason),
            Decided::Arrives { first, second, flipped_bit } => {
                if let Some(bit) = flipped_bit {
                    match read_damaged(&delivered.message, bit) {
                        Ok(Some(Frame::Message(damaged))) => delivered.message = damaged,
                        _ => return self.observer.dropped(Some(from), DropReason::Malformed),
                    }
                }
                let copy = second.map(|due| (due, delivered.message.clone()));
                self.hold(first, delivered);
                if let Some((due, message)) = copy {
                    self.hold(due, Delivered { from, message, credit: None });
                }
            }
        }
    }

    /// Delivers a message at `due`. One that is due at once waits its turn too: timers are coarse,
    /// and it must not overtake.
    fn hold(&self, due: Instant, delivered: Delivered) {
        let mut held = self.held.borrow_mut();
        if held.messages.is_empty() && due <= Instant::now() {
            drop(held);
            return self.inbox.put(Event::Delivered(delivered));
        }
        held.arrived += 1;
        let arrived = held.arrived;
        if held.messages.first_key_value().is_none_or(|(first, _)| due < first.0) {
            self.is_earlier.notify_one();
        }
        held.messages.insert((due, arrived), delivered);
    }

    /// Delivers the messages that are held back when they are due. Never ends by itself.
    async fn release(self: Rc<Self>) {
        loop {
            let next = self.held.borrow().messages.first_key_value().map(|(key, _)| key.0);
            let Some(due) = next else {
                self.is_earlier.notified().await;
                continue;
            };
            tokio::select! {
                biased;
                () = sleep_until(due) => self.deliver_due(),
                () = self.is_earlier.notified() => {}
            }
        }
    }

    fn deliver_due(&self) {
        let now = Instant::now();
        loop {
            let mut held = self.held.borrow_mut();
            let Some(next) = held.messages.first_entry().filter(|next| next.key().0 <= now) else { return };
            let delivered = next.remove();
            drop(held);
            self.inbox.put(Event::Delivered(delivered));
        }
    }
}
