//! The in-memory network: nodes of one process, on one thread or several.
//!
//! Owns the hub that the nodes of a process share, and three queues a node, one a lane. Opens no
//! socket, reads no clock and has no bandwidth limit: a message arrives at once.
//! `quorate-transport-testing` adds faults.
//!
//! By default messages travel as encoded frames, so that what tests send is what the wire would
//! carry; [`MemoryNetwork::by_value`] hands them over as they are.
//!
//! **Determinism:** with all nodes on one current-thread runtime, the same sends give the same
//! deliveries: no random number, hash map or clock decides anything.

mod hub;
mod links;
mod receiving;

use crate::network::{Links, LocalFuture, Network, NetworkContext, NetworkError};
use hub::{Hub, LANES, Seat};
use links::{Here, MemoryLinks};
use quorate_raft::NodeId;
use receiving::Receiving;
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};
use tokio::task::spawn_local;

/// The hub that nodes of a process share. Cloning it shares it.
#[derive(Clone, Debug)]
pub struct MemoryNetwork {
    hub: Arc<Hub>,
}

impl MemoryNetwork {
    /// The most messages that wait at a node on a lane; more are dropped.
    pub const MESSAGES_MAX: usize = hub::MESSAGES_MAX;
    /// The most bytes of messages that wait at a node on the control lane, and on the append lane;
    /// more are dropped.
    pub const BYTES_MAX: usize = hub::BYTES_MAX;
    /// The same on the snapshot lane.
    pub const SNAPSHOT_BYTES_MAX: usize = hub::SNAPSHOT_BYTES_MAX;

    /// A hub on which messages travel encoded.
    #[must_use]
    pub fn new() -> Self {
        Self { hub: Arc::new(Hub::new(true)) }
    }

    /// A hub on which messages travel as they are: fast.
    #[must_use]
    pub fn by_value() -> Self {
        Self { hub: Arc::new(Hub::new(false)) }
    }

    /// The network as `node` sees it. Addresses mean nothing on it.
    #[must_use]
    pub fn endpoint(&self, node: NodeId) -> MemoryEndpoint {
        MemoryEndpoint { hub: Arc::clone(&self.hub), node }
    }
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::new()
    }
}

/// The in-memory network of one node.
#[derive(Debug)]
pub struct MemoryEndpoint {
    hub: Arc<Hub>,
    node: NodeId,
}

impl Network for MemoryEndpoint {
    fn start(self: Box<Self>, context: NetworkContext) -> LocalFuture<Result<Box<dyn Links>, NetworkError>> {
        Box::pin(async move {
            if context.node != self.node {
                let (node, endpoint) = (context.node, self.node);
                return Err(NetworkError::Identity(format!(
                    "node {node} was given the endpoint of node {endpoint}: give it its own"
                )));
            }
            let (seat, receivers) = Seat::new(self.node, context.cluster, context.introduction);
            self.hub.seat(self.node, seat.clone())?;
            let linked = Rc::new(RefCell::new(BTreeMap::new()));
            let receive = |(lane, receiver)| {
                let (inbox, observer) = (context.inbox.clone(), Arc::clone(&context.observer));
                let receiving = Receiving::new(Arc::clone(&seat.pipe(lane).load), inbox, observer, Rc::clone(&linked));
                spawn_local(receiving.run(receiver)).abort_handle()
            };
            let tasks = LANES.into_iter().zip(receivers).map(receive).collect();
            let here = Here { hub: self.hub, node: self.node, seat, observer: context.observer, linked };
            Ok(Box::new(MemoryLinks { here: Rc::new(here), tasks }) as Box<dyn Links>)
        })
    }
}
