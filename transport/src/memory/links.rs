//! Links of the in-memory network: the sending side of a node.

use super::hub::{Content, Hub, Parcel, Seat};
use crate::{
    codec::Encoder,
    network::{Direction, DropReason, Introduction, Lane, Link, Links, LocalFuture, NetworkObserver},
};
use bytes::BytesMut;
use quorate_raft::{Message, NodeId};
use std::{
    cell::{Ref, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};
use tokio::task::AbortHandle;

/// State that a node's links share.
pub(super) struct Here {
    pub(super) hub: Arc<Hub>,
    pub(super) node: NodeId,
    pub(super) seat: Seat,
    pub(super) observer: Arc<dyn NetworkObserver>,
    pub(super) linked: Rc<RefCell<BTreeMap<NodeId, Linked>>>,
}

/// Links to one peer, usually one.
#[derive(Default)]
pub(super) struct Linked {
    count: usize,
    pub(super) up: bool,
}

pub(super) struct MemoryLinks {
    pub(super) here: Rc<Here>,
    pub(super) tasks: Vec<AbortHandle>,
}

impl MemoryLinks {
    fn end(&self) {
        self.here.hub.leave(self.here.node, &self.here.seat);
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Links for MemoryLinks {
    fn introduce(&self, introduction: Introduction) {
        self.here.hub.introduce(self.here.node, &self.here.seat, introduction);
    }

    fn link(&self, peer: NodeId, _address: &str) -> Rc<dyn Link> {
        self.here.linked.borrow_mut().entry(peer).or_default().count += 1;
        if let Some(seat) = self.here.hub.find(peer, &self.here.seat) {
            seat.tell(Parcel::Up(self.here.node, self.here.seat.clone()));
            self.here.seat.tell(Parcel::Up(peer, seat));
        }
        Rc::new(MemoryLink { here: Rc::clone(&self.here), peer, route: RefCell::new(None), counts: true })
    }

    fn reply_link(&self, peer: NodeId) -> Rc<dyn Link> {
        Rc::new(MemoryLink { here: Rc::clone(&self.here), peer, route: RefCell::new(None), counts: false })
    }

    fn local_address(&self) -> Option<SocketAddr> {
        None
    }

    fn close(&self) -> LocalFuture<()> {
        self.end();
        Box::pin(std::future::ready(()))
    }
}

impl Drop for MemoryLinks {
    fn drop(&mut self) {
        self.end();
    }
}

struct MemoryLink {
    here: Rc<Here>,
    peer: NodeId,
    /// Where the peer was found last; looked up again once it is gone.
    route: RefCell<Option<Seat>>,
    /// Whether the node is told when the peer comes or goes. Not so for a reply link.
    counts: bool,
}

impl MemoryLink {
    fn route(&self) -> Option<Ref<'_, Seat>> {
        if self.route.borrow().as_ref().is_none_or(Seat::is_gone) {
            self.route.replace(self.here.hub.find(self.peer, &self.here.seat));
        }
        Ref::filter_map(self.route.borrow(), Option::as_ref).ok()
    }

    fn put(&self, to: &Seat, lane: Lane, bytes: usize, content: Content) {
        assert_eq!(to.node, self.peer, "a message for one node is put into the queue of another");
        let pipe = to.pipe(lane);
        if !pipe.load.add(bytes) {
            return self.dropped(DropReason::QueueFull);
        }
        let parcel = Parcel::Message { from: self.here.node, bytes, content };
        if pipe.sender.send(parcel).is_err() {
            pipe.load.remove(bytes);
            self.dropped(DropReason::Unconnected);
        }
    }

    fn dropped(&self, reason: DropReason) {
        self.here.observer.dropped(Some(self.peer), reason);
    }
}

impl Link for MemoryLink {
    fn send(&self, message: Message) {
        let Here { hub, observer, .. } = &*self.here;
        let Some(to) = self.route() else {
            return self.dropped(DropReason::Unconnected);
        };
        let lane = Lane::of(&message);
        let (content, bytes) = if hub.encoded {
            let Ok(frame) = Encoder::default().message(&message) else {
                return self.dropped(DropReason::TooLong);
            };
            let mut joined = BytesMut::with_capacity(frame.len());
            joined.extend_from_slice(&frame.head);
            joined.extend_from_slice(&frame.body);
            (Content::Frame(joined.freeze()), frame.len())
        } else {
            let bytes = message.bulk().len() + size_of::<Message>();
            (Content::Value(message), bytes)
        };
        observer.bytes(self.peer, Direction::Sent, lane, bytes as u64);
        self.put(&to, lane, bytes, content);
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        let mut linked = self.here.linked.borrow_mut();
        if let Some(links) = linked.get_mut(&self.peer).filter(|_| self.counts) {
            debug_assert!(links.count > 0, "a link to node {} is dropped that was not counted", self.peer);
            links.count = links.count.saturating_sub(1);
            if links.count == 0 {
                linked.remove(&self.peer);
            }
        }
    }
}
