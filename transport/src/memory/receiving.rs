//! The receiving side of a node on the in-memory network.

use super::{
    hub::{Content, Load, Parcel},
    links::Linked,
};
use crate::{
    codec::{Decoder, Frame, Limits},
    network::{Direction, Inbox, Lane, NetworkObserver},
};
use bytes::Bytes;
use quorate_raft::{Message, NodeId};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep_until},
};

/// The receiving end of one lane of a node: a task, so that what waits for the inbox's credit holds
/// up its own lane alone.
pub(super) struct Receiving {
    load: Arc<Load>,
    inbox: Inbox,
    observer: Arc<dyn NetworkObserver>,
    linked: Rc<RefCell<BTreeMap<NodeId, Linked>>>,
    /// Messages that arrived and are not due yet, in the order in which they will be; equal
    /// instants in the order of arrival.
    held: BTreeMap<(Instant, u64), (NodeId, usize, Content)>,
    arrived: u64,
}

impl Receiving {
    pub(super) fn new(
        load: Arc<Load>,
        inbox: Inbox,
        observer: Arc<dyn NetworkObserver>,
        linked: Rc<RefCell<BTreeMap<NodeId, Linked>>>,
    ) -> Self {
        Self { load, inbox, observer, linked, held: BTreeMap::new(), arrived: 0 }
    }

    pub(super) async fn run(mut self, mut receiver: UnboundedReceiver<Parcel>) {
        loop {
            let parcel = match self.held.first_key_value() {
                None => receiver.recv().await,
                Some((&(due, _), _)) => tokio::select! {
                    biased;
                    () = sleep_until(due) => {
                        self.deliver_due().await;
                        continue;
                    }
                    parcel = receiver.recv() => parcel,
                },
            };
            match parcel {
                None => return,
                Some(Parcel::Up(peer, seat)) => {
                    // Introduced even without a link to it: it may have one to this node.
                    self.inbox.introduced(peer, seat.introduction());
                    if self.changes(peer, true) {
                        self.inbox.link_up(peer);
                    }
                }
                Some(Parcel::Introduced(peer, introduction)) => {
                    if self.linked.borrow().get(&peer).is_some_and(|links| links.up) {
                        self.inbox.introduced(peer, introduction);
                    }
                }
                Some(Parcel::Down(peer)) => {
                    if self.changes(peer, false) {
                        self.inbox.link_down(peer);
                    }
                }
                Some(Parcel::Message { from, due: None, bytes, content }) if self.held.is_empty() => {
                    self.deliver(from, bytes, content).await;
                }
                Some(Parcel::Message { from, due, bytes, content }) => {
                    // One that is due at once waits its turn too: timers are coarse, and it
                    // must not overtake.
                    self.arrived += 1;
                    let due = due.unwrap_or_else(Instant::now);
                    self.held.insert((due, self.arrived), (from, bytes, content));
                }
            }
        }
    }

    async fn deliver_due(&mut self) {
        let now = Instant::now();
        while let Some(next) = self.held.first_entry() {
            if next.key().0 > now {
                return;
            }
            let (from, bytes, content) = next.remove();
            self.deliver(from, bytes, content).await;
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
            None => self.observer.dropped(Some(from), "malformed"),
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
