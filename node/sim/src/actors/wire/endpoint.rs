//! The network as one node sees it.

use super::{Incoming, LATENCY, Parcel, Seat, Wire};
use crate::actors::frames::decode;
use quorate::NodeId;
use quorate_raft::Message;
use quorate_transport::{
    Link, Links, Network, NetworkContext, NetworkError,
    network::{Inbox, Introduction, LocalFuture},
};
use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    task::spawn_local,
};

/// The network that a node is started with.
pub(crate) struct Endpoint(pub(crate) Wire);

impl Network for Endpoint {
    fn start(self: Box<Self>, context: NetworkContext) -> LocalFuture<Result<Box<dyn Links>, NetworkError>> {
        let (wire, node, waiting) = (self.0, context.node, Arc::new(AtomicUsize::new(0)));
        let lanes = [(); 3].map(|()| {
            let (sender, receiver) = mpsc::unbounded_channel();
            spawn_local(receive(receiver, context.inbox.clone(), wire.clone(), node, Arc::clone(&waiting)));
            sender
        });
        let state = &mut *wire.lock();
        state.seats_taken += 1;
        let number = state.seats_taken;
        let others: Vec<_> =
            state.seats.iter().map(|(id, seat)| (*id, seat.number, seat.introduction.clone())).collect();
        let introduction = context.introduction;
        state.seats.insert(node, Seat { number, lanes, waiting, introduction: introduction.clone() });
        let soon = state.now + LATENCY;
        // Peers that had not noticed the node's absence notice it now, before its return.
        state.flying.retain(|_, parcel| !matches!(parcel.incoming, Incoming::Down(gone) if gone == node));
        for (other, seat, theirs) in others {
            state.put(soon, Parcel { to: other, seat: Some(seat), lane: 0, incoming: Incoming::Down(node) });
            let (up, theirs) = (Incoming::Up(node, introduction.clone()), Incoming::Up(other, theirs));
            state.put(soon, Parcel { to: other, seat: Some(seat), lane: 0, incoming: up });
            state.put(soon, Parcel { to: node, seat: Some(number), lane: 0, incoming: theirs });
        }
        let links = Ends { wire: wire.clone(), node };
        Box::pin(async move { Ok(Box::new(links) as Box<dyn Links>) })
    }
}

/// The receiving end of one lane: a message that waits for the inbox's credit blocks only
/// its own lane.
async fn receive(
    mut incoming: UnboundedReceiver<Incoming>,
    inbox: Inbox,
    wire: Wire,
    node: NodeId,
    waiting: Arc<AtomicUsize>,
) {
    while let Some(next) = incoming.recv().await {
        match next {
            Incoming::Up(peer, introduction) => {
                inbox.introduced(peer, introduction);
                inbox.link_up(peer);
            }
            Incoming::Down(peer) => inbox.link_down(peer),
            Incoming::Frame { from, frame, is_corrupt } => {
                let bytes = frame.len();
                match decode(frame) {
                    Some(message) if is_corrupt => {
                        let observer = wire.lock().observer.clone();
                        observer.lock().fail(format!("codec: a damaged frame to {node} was read as {message:?}"));
                    }
                    Some(message) => inbox.deliver(from, message, bytes).await,
                    None => {}
                }
                waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

struct Ends {
    wire: Wire,
    node: NodeId,
}

impl Links for Ends {
    fn introduce(&self, introduction: Introduction) {
        if let Some(seat) = self.wire.lock().seats.get_mut(&self.node) {
            seat.introduction = introduction;
        }
    }

    fn link(&self, peer: NodeId, _address: &str) -> Rc<dyn Link> {
        Rc::new(End { wire: self.wire.clone(), node: self.node, peer })
    }

    fn reply_link(&self, peer: NodeId) -> Rc<dyn Link> {
        self.link(peer, "")
    }

    fn local_address(&self) -> Option<SocketAddr> {
        None
    }

    fn close(&self) -> LocalFuture<()> {
        self.wire.remove(self.node);
        Box::pin(std::future::ready(()))
    }
}

struct End {
    wire: Wire,
    node: NodeId,
    peer: NodeId,
}

impl Link for End {
    fn send(&self, message: Message) {
        self.wire.lock().send(self.node, self.peer, &message);
    }
}
