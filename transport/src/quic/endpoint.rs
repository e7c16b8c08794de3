//! The running network: its start and end, and the state that its tasks share.

use super::{
    Quic, acceptor,
    backoff::{LogThrottle, PeerBackoff},
    hello::same_cluster,
    incarnations::Incarnations,
    lanes::Carrier,
    peer_link::{PeerLink, QuicLink, Stop},
    settings::{self, Pace},
};
use crate::{
    codec::{Encoder, Hello, Limits, Versions},
    network::{Inbox, Introduction, Lane, Link, Links, LocalFuture, NetworkContext, NetworkError, NetworkObserver},
};
use actix::Addr;
use quinn::{Endpoint, EndpointConfig, Runtime, TokioRuntime, VarInt};
use quorate_raft::NodeId;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::{self, Arc},
    time::Duration,
};
use tokio::time::Instant;

/// Binds the socket and begins to accept.
pub(super) fn start(mut quic: Quic, context: NetworkContext) -> Result<QuicLinks, NetworkError> {
    let pace = Pace::of(context.election_timeout);
    quic.client.transport_config(settings::transport(pace));
    quic.server.transport_config(settings::transport(pace));
    quic.check(&context.cluster, context.node)?;
    let address = quic.options.listen;
    let unusable = |source: std::io::Error| NetworkError::Address { address, problem: source.to_string(), source };
    let socket = TokioRuntime.wrap_udp_socket(settings::socket(address)?).map_err(unusable)?;
    let held = Arc::downgrade(&socket);
    let config = quic.endpoint.clone();
    let endpoint = Endpoint::new_with_abstract_socket(quic.endpoint, Some(quic.server), socket, Arc::new(TokioRuntime))
        .map_err(unusable)?;
    let local_address = endpoint.local_addr().ok();
    context.observer.certificate_expires(quic.credentials.expires_unix_seconds);
    let hello = Hello {
        cluster: context.cluster,
        node: context.node,
        protocol_min: quic.options.speaks.oldest().number(),
        protocol_max: quic.options.speaks.newest().number(),
        introduction: context.introduction,
    };
    let shared = Rc::new(Shared {
        endpoint: RefCell::new(Some(endpoint.clone())),
        spares: RefCell::default(),
        config,
        listen: quic.options.listen,
        pace,
        is_closed: Cell::new(false),
        client: quic.client,
        cluster: hello.cluster.clone(),
        node: hello.node,
        hello: RefCell::new(hello),
        speaks: quic.options.speaks,
        // The same on all nodes: a frame that one sends every other must read.
        limits: Limits::default(),
        frame_timeout: quic.options.frame_timeout,
        inbox: context.inbox,
        observer: context.observer,
        accepted: RefCell::default(),
        links: RefCell::default(),
        carriers: RefCell::default(),
        backoff: RefCell::default(),
        incarnations: RefCell::default(),
        log_throttle: RefCell::default(),
        handshakes: Cell::new(0),
    });
    tokio::task::spawn_local(acceptor::accept(Rc::clone(&shared), endpoint));
    Ok(QuicLinks { shared, local_address, socket: held })
}

/// Why this side closes a connection: the application error code that the peer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Close {
    /// The node stops, or the link is no longer wanted.
    Goodbye = 0,
    /// A newer connection of the same peer took its place.
    Replaced = 1,
    /// The certificate or the hello names a node or a cluster that is not accepted here.
    Identity = 2,
    /// No hello in time, or one of another protocol.
    Protocol = 3,
    /// Bytes that are not frames.
    Malformed = 4,
    /// A frame was begun and not ended in time.
    Stalled = 5,
    /// It sent malformed bytes a moment ago.
    BackOff = 6,
    /// Another live process uses its id.
    Twin = 7,
}

impl Close {
    pub(super) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// State that the acceptor, the links and the lanes' tasks share on the node's thread.
pub(super) struct Shared {
    /// Gone once the network is closed.
    endpoint: RefCell<Option<Endpoint>>,
    /// Endpoints on ports of their own, for dials that the first port may have failed: at most one
    /// a link that is up or dials.
    spares: RefCell<Vec<Endpoint>>,
    config: EndpointConfig,
    listen: SocketAddr,
    pub(super) pace: Pace,
    /// Whether the network was closed on purpose: links that end then are no failure.
    pub(super) is_closed: Cell<bool>,
    pub(super) client: quinn::ClientConfig,
    pub(super) cluster: String,
    pub(super) node: NodeId,
    /// The first frame on each lane of a new connection.
    pub(super) hello: RefCell<Hello>,
    pub(super) speaks: Versions,
    pub(super) limits: Limits,
    pub(super) frame_timeout: Duration,
    pub(super) inbox: Inbox,
    pub(super) observer: Arc<dyn NetworkObserver>,
    /// The connection that each peer dialled: at most one a peer, so bounded by the certificates
    /// that were issued.
    pub(super) accepted: RefCell<BTreeMap<NodeId, Rc<Carrier>>>,
    pub(super) links: RefCell<BTreeMap<NodeId, Addr<PeerLink>>>,
    /// All connections that are up; those that ended are dropped when the next one begins.
    pub(super) carriers: RefCell<Vec<Weak<Carrier>>>,
    pub(super) backoff: RefCell<PeerBackoff>,
    pub(super) incarnations: RefCell<Incarnations>,
    log_throttle: RefCell<LogThrottle>,
    /// Handshakes under way on accepted connections.
    pub(super) handshakes: Cell<usize>,
}

impl Shared {
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint.borrow().clone()
    }

    /// An endpoint on a fresh port: a router may hold on to a translation of the usual port
    /// that leads nowhere.
    pub(super) fn spare_endpoint(&self) -> Option<Endpoint> {
        if self.is_closed.get() {
            return None;
        }
        let mut spares = self.spares.borrow_mut();
        spares.retain(|spare| spare.open_connections() > 0);
        let socket = settings::socket(SocketAddr::new(self.listen.ip(), 0)).ok()?;
        let spare = Endpoint::new(self.config.clone(), None, socket, Arc::new(TokioRuntime)).ok()?;
        spares.push(spare.clone());
        Some(spare)
    }

    /// Counts a connection that was refused, and logs the reason in one line, now and then.
    pub(super) fn refused(&self, peer: Option<NodeId>, result: &'static str, remote: SocketAddr, why: &str) {
        self.observer.connection(peer, result);
        if let Some(kept_out) = self.log_throttle.borrow_mut().may_log(result, peer, Instant::now()) {
            tracing::warn!(%remote, peer = peer.map(|peer| peer.0), kept_out, "{result}: {}", one_line(why));
        }
    }

    /// `peer` sent malformed bytes: counts and logs it, and refuses the peer for a while.
    pub(super) fn offended(&self, peer: NodeId, why: &str) {
        self.observer.dropped(Some(peer), "malformed");
        let now = Instant::now();
        self.backoff.borrow_mut().extend(peer, now);
        if let Some(kept_out) = self.log_throttle.borrow_mut().may_log("malformed", Some(peer), now) {
            tracing::warn!(peer = peer.0, kept_out, "disconnected for malformed bytes: {}", one_line(why));
        }
    }

    /// Whether a connection of this process of `peer` proves that another one lives, too; logs it,
    /// now and then.
    pub(super) fn has_twin(&self, peer: NodeId, incarnation: u64, remote: SocketAddr) -> bool {
        let Some(other) = self.incarnations.borrow().twin_of(peer, incarnation) else { return false };
        if let Some(kept_out) = self.log_throttle.borrow_mut().may_log("twin", Some(peer), Instant::now()) {
            tracing::error!(
                peer = peer.0, %remote, %other, kept_out,
                "two live processes use the id {peer}, one at {remote} and one at {other}: a cloned machine or a copied data directory; stop \
                 the copy and remove its data directory"
            );
        }
        true
    }

    /// The connections that are up to another process of `peer` than this one.
    pub(super) fn others_of(&self, peer: NodeId, incarnation: u64) -> Vec<Rc<Carrier>> {
        let carriers = self.carriers.borrow();
        let of_others = carriers.iter().filter_map(Weak::upgrade).filter(|carrier| {
            carrier.peer == peer
                && carrier.introduction.borrow().incarnation != incarnation
                && carrier.connection.close_reason().is_none()
        });
        of_others.collect()
    }

    /// Sends a further hello with the changed facts on every connection that is up; closes those to
    /// nodes of another cluster.
    fn introduce_again(&self) {
        let hello = self.hello.borrow();
        let frame = Encoder::new(self.limits).hello(&hello);
        self.carriers.borrow_mut().retain(|carrier| {
            let Some(carrier) = carrier.upgrade() else { return false };
            let judged = same_cluster(&hello.introduction, &carrier.introduction.borrow(), &self.cluster, carrier.peer);
            match (judged, &frame) {
                (Err(refusal), _) => {
                    self.refused(Some(carrier.peer), refusal.result, carrier.connection.remote_address(), &refusal.why);
                    carrier.connection.close(refusal.close.code(), refusal.why.as_bytes());
                }
                // A queue that is full loses it; the peer hears it on the next connection.
                (Ok(()), Ok(frame)) => drop(carrier.send(Lane::Control, frame.clone())),
                (Ok(()), Err(_)) => {}
            }
            true
        });
    }

    fn shut(&self) {
        self.is_closed.set(true);
        for (_, link) in std::mem::take(&mut *self.links.borrow_mut()) {
            link.do_send(Stop);
        }
        for endpoint in self.endpoint.borrow().iter().chain(&*self.spares.borrow()) {
            endpoint.close(Close::Goodbye.code(), b"goodbye");
        }
    }
}

/// The running network, as its node holds it. Dropping it ends it, without waiting for the
/// goodbyes to leave.
pub(super) struct QuicLinks {
    shared: Rc<Shared>,
    local_address: Option<SocketAddr>,
    socket: sync::Weak<dyn quinn::AsyncUdpSocket>,
}

impl QuicLinks {
    /// For goodbyes to leave, and for the socket to be let go.
    const CLOSE_WITHIN: Duration = Duration::from_millis(900);
}

impl Links for QuicLinks {
    fn introduce(&self, introduction: Introduction) {
        self.shared.hello.borrow_mut().introduction = introduction;
        self.shared.introduce_again();
    }

    fn link(&self, peer: NodeId, address: &str) -> Rc<dyn Link> {
        Rc::new(QuicLink::start(Rc::clone(&self.shared), peer, address))
    }

    fn reply_link(&self, peer: NodeId) -> Rc<dyn Link> {
        Rc::new(QuicLink::reply_link(Rc::clone(&self.shared), peer))
    }

    fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    fn close(&self) -> LocalFuture<()> {
        self.shared.shut();
        let (shared, socket) = (Rc::clone(&self.shared), sync::Weak::clone(&self.socket));
        Box::pin(async move {
            let ended = async {
                let endpoint = shared.endpoint.borrow_mut().take();
                if let Some(endpoint) = endpoint {
                    endpoint.wait_idle().await;
                }
                let spares = shared.spares.take();
                for spare in spares {
                    spare.wait_idle().await;
                }
                // The endpoint's driver drops the socket a few turns later, without notice. A node
                // that starts next on the same port should find it free.
                while socket.strong_count() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            let _ = tokio::time::timeout(Self::CLOSE_WITHIN, ended).await;
        })
    }
}

impl Drop for QuicLinks {
    fn drop(&mut self) {
        self.shared.shut();
        self.shared.endpoint.borrow_mut().take();
    }
}

/// A peer's text made fit for a log: one line of bounded length, without control characters.
pub(super) fn one_line(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
