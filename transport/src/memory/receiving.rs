//! The receiving side of a node on the in-memory network.

use super::{
    hub::{Content, Load, Parcel},
    links::Linked,
};
use crate::{
    codec::{Decoder, Frame, Limits},
    network::{Direction, DropReason, Inbox, Lane, NetworkObserver},
};
use bytes::Bytes;
use quorate_raft::{Message, NodeId};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};
use tokio::sync::mpsc::UnboundedReceiver;

/// The receiving end of one lane of a node: a task, so that what waits for the inbox's credit holds
/// up its own lane alone.
pub(super) struct Receiving {
    load: Arc<Load>,
    inbox: Inbox,
    observer: Arc<dyn NetworkObserver>,
    linked: Rc<RefCell<BTreeMap<NodeId, Linked>>>,
}

impl Receiving {
    pub(super) fn new(
        load: Arc<Load>,
        inbox: Inbox,
        observer: Arc<dyn NetworkObserver>,
        linked: Rc<RefCell<BTreeMap<NodeId, Linked>>>,
    ) -> Self {
        Self { load, inbox, observer, linked }
    }

    pub(super) async fn run(self, mut receiver: UnboundedReceiver<Parcel>) {
        while let Some(parcel) = receiver.recv().await {
            match parcel {
                Parcel::Up(peer, seat) => {
                    // Introduced even without a link to it: it may have one to this node.
                    self.inbox.introduced(peer, seat.introduction());
                    if self.changes(peer, true) {
                        self.inbox.link_up(peer);
                    }
                }
                Parcel::Introduced(peer, introduction) => {
                    if self.linked.borrow().get(&peer).is_some_and(|links| links.up) {
                        self.inbox.introduced(peer, introduction);
                    }
                }
                Parcel::Down(peer) => {
                    if self.changes(peer, false) {
                        self.inbox.link_down(peer);
                    }
                }
                Parcel::Message { from, bytes, content } => self.deliver(from, bytes, content).await,
            }
        }
    }

    async fn deliver(&self, from: NodeId, bytes: usize, content: Content) {
        let message = match content {
            Content::Value(message) => Some(message),
            Content::Frame(frame) => decode(frame),
        };
        match message {
            Some(message) => {
                let lane = Lane::of(&message);
                self.observer.bytes(from, Direction::Received, lane, bytes as u64);
                self.inbox.deliver(from, message, bytes).await;
            }
            None => self.observer.dropped(Some(from), DropReason::Malformed),
        }
        self.load.remove(bytes);
    }

    /// Takes note that a peer came or went, and says whether links to it come or go with that.
    fn changes(&self, peer: NodeId, up: bool) -> bool {
        match self.linked.borrow_mut().get_mut(&peer) {
            Some(links) => std::mem::replace(&mut links.up, up) != up,
            None => false,
        }
    }
}

/// The message of a buffer that should hold exactly one frame.
fn decode(mut frame: Bytes) -> Option<Message> {
    match Decoder::new(Limits::default()).feed(&mut frame) {
        Ok(Some(decoded)) if frame.is_empty() => match decoded.frame {
            Frame::Message(message) => Some(message),
            Frame::Hello(_) => None,
        },
        _ => None,
    }
}
