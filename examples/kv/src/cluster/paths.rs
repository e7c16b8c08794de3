//! The paths between the nodes of a cluster on this machine, with faults: UDP proxies that lose or
//! delay datagrams between two nodes, in one direction or both.
//!
//! All nodes dial a node at its proxy. The proxy knows the sender by the port from which a node
//! dials, its own. A node whose dials fail also tries fresh ports. The sender of such a datagram is
//! unknown, so it is lost while any fault concerns the node at the other end; the next dial from the
//! usual port passes if no fault concerns it.

use quorate::NodeId;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

/// Longer than any datagram of UDP.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Senders that a proxy remembers; the one that was silent for longest is forgotten for a new one.
const SENDERS_MAX: usize = 64;

/// What happens to datagrams from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// All are lost.
    Cut,
    /// Each arrives later by this time.
    Slow(Duration),
}

/// The proxies of all nodes. Dropping it ends them.
#[derive(Debug)]
pub struct Paths {
    faults: Arc<Faults>,
    _proxies: JoinSet<()>,
}

impl Paths {
    /// Opens a proxy for each node: from the address that other nodes dial, to its own.
    ///
    /// # Errors
    /// If an address is taken.
    pub(super) async fn open(nodes: impl IntoIterator<Item = PathEnds>) -> io::Result<Self> {
        let nodes: Vec<_> = nodes.into_iter().collect();
        let faults = Arc::new(Faults {
            nodes: nodes.iter().map(|ends| (ends.own, ends.node)).collect(),
            active: Mutex::default(),
        });
        let mut proxies = JoinSet::new();
        for PathEnds { node, dialled, own } in nodes {
            let front = Arc::new(UdpSocket::bind(dialled).await?);
            proxies.spawn(Proxy { node, own, front, faults: Arc::clone(&faults), senders: BTreeMap::new() }.carry());
        }
        Ok(Self { faults, _proxies: proxies })
    }

    /// Puts a fault on datagrams from a node to another, in place of the one before; `None` heals.
    pub fn set(&self, from: NodeId, to: NodeId, fault: Option<PathFault>) {
        let mut active = self.faults.active();
        match fault {
            Some(fault) => active.insert((from, to), fault),
            None => active.remove(&(from, to)),
        };
    }
}

/// The ends of the way to a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathEnds {
    pub(super) node: NodeId,
    /// The address at which other nodes dial it.
    pub(super) dialled: SocketAddr,
    /// The address at which it listens, and from which it dials.
    pub(super) own: SocketAddr,
}

#[derive(Debug)]
struct Faults {
    nodes: BTreeMap<SocketAddr, NodeId>,
    active: Mutex<BTreeMap<(NodeId, NodeId), PathFault>>,
}

impl Faults {
    fn active(&self) -> std::sync::MutexGuard<'_, BTreeMap<(NodeId, NodeId), PathFault>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn between(&self, from: Option<NodeId>, to: Option<NodeId>) -> Option<PathFault> {
        fault_between(&self.active(), from, to)
    }
}

/// The fault on a datagram. An unknown end may be any node.
fn fault_between(
    active: &BTreeMap<(NodeId, NodeId), PathFault>,
    from: Option<NodeId>,
    to: Option<NodeId>,
) -> Option<PathFault> {
    if let (Some(from), Some(to)) = (from, to) {
        return active.get(&(from, to)).copied();
    }
    let may_be = |(a, b): &(NodeId, NodeId)| from.is_none_or(|from| from == *a) && to.is_none_or(|to| to == *b);
    active.keys().any(may_be).then_some(PathFault::Cut)
}

/// The way to one node.
struct Proxy {
    node: NodeId,
    own: SocketAddr,
    front: Arc<UdpSocket>,
    faults: Arc<Faults>,
    senders: BTreeMap<SocketAddr, Sender>,
}

/// The socket by which the datagrams of one sender go on, and by which answers find back.
struct Sender {
    socket: Arc<UdpSocket>,
    heard_at: Instant,
    answers: AbortHandle,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

impl Proxy {
    async fn carry(mut self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            // An error is of an earlier datagram, which its receiver refused: it runs no more.
            let Ok((length, from)) = self.front.recv_from(&mut buffer).await else { continue };
            let Ok(socket) = self.socket_of(from).await else { continue };
            let fault = self.faults.between(self.faults.nodes.get(&from).copied(), Some(self.node));
            pass(fault, socket, &buffer[..length], self.own).await;
        }
    }

    async fn socket_of(&mut self, from: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        if let Some(sender) = self.senders.get_mut(&from) {
            sender.heard_at = Instant::now();
            return Ok(Arc::clone(&sender.socket));
        }
        if self.senders.len() >= SENDERS_MAX {
            let silent = self.senders.iter().min_by_key(|(_, sender)| sender.heard_at).map(|(address, _)| *address);
            silent.and_then(|silent| self.senders.remove(&silent));
        }
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let answers = Answers {
            node: self.node,
            to: from,
            socket: Arc::clone(&socket),
            front: Arc::clone(&self.front),
            faults: Arc::clone(&self.faults),
        };
        let answers = tokio::spawn(answers.carry()).abort_handle();
        self.senders.insert(from, Sender { socket: Arc::clone(&socket), heard_at: Instant::now(), answers });
        Ok(socket)
    }
}

/// The way back to one sender.
struct Answers {
    node: NodeId,
    to: SocketAddr,
    socket: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    faults: Arc<Faults>,
}

impl Answers {
    async fn carry(self) {
        let Self { node, to, socket, front, faults } = self;
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let Ok(length) = socket.recv(&mut buffer).await else { continue };
            let fault = faults.between(Some(node), faults.nodes.get(&to).copied());
            pass(fault, Arc::clone(&front), &buffer[..length], to).await;
        }
    }
}

/// Sends a datagram, now or later or not at all. One that can't be sent is lost, as on any path.
async fn pass(fault: Option<PathFault>, by: Arc<UdpSocket>, datagram: &[u8], to: SocketAddr) {
    match fault {
        None => drop(by.send_to(datagram, to).await),
        Some(PathFault::Cut) => {}
        Some(PathFault::Slow(delay)) => {
            let datagram = datagram.to_vec();
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                drop(by.send_to(&datagram, to).await);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_concerns_its_direction_and_all_datagrams_whose_sender_may_be_its_node() {
        let [a, b, c] = [1, 2, 3].map(NodeId);
        let slow = PathFault::Slow(Duration::from_millis(100));
        let active = BTreeMap::from([((a, b), PathFault::Cut), ((c, a), slow)]);
        for (from, to, fault) in [
            (Some(a), Some(b), Some(PathFault::Cut)),
            (Some(b), Some(a), None),
            (Some(c), Some(a), Some(slow)),
            (Some(b), Some(c), None),
            // From a fresh port.
            (None, Some(b), Some(PathFault::Cut)),
            (None, Some(a), Some(PathFault::Cut)),
            (None, Some(c), None),
            (Some(a), None, Some(PathFault::Cut)),
            (Some(b), None, None),
        ] {
            assert_eq!(fault_between(&active, from, to), fault, "{from:?} to {to:?}");
        }
    }

    #[tokio::test]
    async fn a_proxy_carries_both_ways_and_loses_what_a_fault_concerns() {
        let bind = || async { UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port") };
        let (one, two, free) = (bind().await, bind().await, bind().await);
        let dialled = free.local_addr().expect("bound");
        drop(free);
        let own = |socket: &UdpSocket| socket.local_addr().expect("bound");
        let unused = bind().await;
        let unused_at = own(&unused);
        drop(unused);
        let paths = Paths::open([
            PathEnds { node: NodeId(1), dialled: unused_at, own: own(&one) },
            PathEnds { node: NodeId(2), dialled, own: own(&two) },
        ])
        .await
        .expect("free ports");

        let mut buffer = [0; 16];
        one.send_to(b"hello", dialled).await.expect("sent");
        let (length, back) = two.recv_from(&mut buffer).await.expect("received");
        assert_eq!(&buffer[..length], b"hello");
        two.send_to(b"hi", back).await.expect("sent");
        let (length, from) = one.recv_from(&mut buffer).await.expect("received");
        assert_eq!((&buffer[..length], from), (&b"hi"[..], dialled));

        // One way: a question is lost, and the next one passes once the path is healed.
        paths.set(NodeId(1), NodeId(2), Some(PathFault::Cut));
        one.send_to(b"lost", dialled).await.expect("sent");
        two.send_to(b"passes", back).await.expect("sent");
        let (length, _) = one.recv_from(&mut buffer).await.expect("received");
        assert_eq!(&buffer[..length], b"passes");
        paths.set(NodeId(1), NodeId(2), None);
        one.send_to(b"again", dialled).await.expect("sent");
        let (length, _) = two.recv_from(&mut buffer).await.expect("received");
        assert_eq!(&buffer[..length], b"again");
    }
}
