//! The running network: its start and end.

use super::{
    Quic, acceptor,
    close::Close,
    hello::same_cluster,
    peer_link::QuicLink,
    reactor::NodeThread,
    reload::{self, InUse, Watched},
    settings::{self, Pace},
    shared::{Shared, Stop},
};
use crate::{
    codec::{Encoder, Hello, Limits},
    network::{Introduction, Lane, Link, Links, LocalFuture, NetworkContext, NetworkError},
};
use quinn::{Endpoint, Runtime};
use quorate_raft::NodeId;
use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::{self, Arc},
    time::Duration,
};
use tokio::task::AbortHandle;

/// Binds the socket and begins to accept.
pub(super) fn start(quic: Quic, context: NetworkContext) -> Result<QuicLinks, NetworkError> {
    let pace = Pace::of(context.election_timeout);
    quic.check(&context.cluster, context.node)?;
    let address = quic.options.listen;
    let unusable = |source: std::io::Error| NetworkError::Address { address, problem: source.to_string(), source };
    let socket = NodeThread.wrap_udp_socket(settings::socket(address)?).map_err(unusable)?;
    let held = Arc::downgrade(&socket);
    let config = quic.endpoint.clone();
    let credentials = InUse::of(&quic.loaded, None, pace);
    let server = quinn::ServerConfig::clone(&credentials.server);
    let watched = Watched::new(&quic.loaded, quic.files, quic.options.reload_every, quic.reloader);
    let endpoint = Endpoint::new_with_abstract_socket(quic.endpoint, Some(server), socket, Arc::new(NodeThread))
        .map_err(unusable)?;
    let local_address = endpoint.local_addr().ok();
    let loaded = &quic.loaded.credentials;
    context.observer.certificate_expires(loaded.expires_unix_seconds);
    if let Some(list) = loaded.trust.list() {
        context.observer.crl_expires(list.ends);
    }
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
        began: tokio::time::Instant::now(),
        is_closed: Cell::new(false),
        credentials: RefCell::new(Rc::new(credentials)),
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
        handshakes: RefCell::default(),
        members: RefCell::default(),
        introducing: RefCell::default(),
    });
    tokio::task::spawn_local(acceptor::accept(Rc::clone(&shared), endpoint));
    let watching = tokio::task::spawn_local(reload::watch(Rc::clone(&shared), watched)).abort_handle();
    Ok(QuicLinks { shared, local_address, socket: held, watching })
}

/// The running network, as its node holds it. Dropping it ends it, without waiting for the
/// goodbyes to leave.
pub(super) struct QuicLinks {
    pub(super) shared: Rc<Shared>,
    local_address: Option<SocketAddr>,
    socket: sync::Weak<dyn quinn::AsyncUdpSocket>,
    /// The task that reloads the credentials.
    watching: AbortHandle,
}

impl QuicLinks {
    /// For goodbyes to leave, and for the socket to be let go.
    const CLOSE_WITHIN: Duration = Duration::from_millis(900);
}

impl Links for QuicLinks {
    fn introduce(&self, introduction: Introduction) {
        self.shared.hello.borrow_mut().introduction = introduction;
        introduce_again(&self.shared);
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
        self.watching.abort();
        shut(&self.shared);
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
        self.watching.abort();
        shut(&self.shared);
        self.shared.endpoint.borrow_mut().take();
    }
}

/// Sends a further hello with the changed facts on every connection that is up; closes those to
/// nodes of another cluster.
fn introduce_again(shared: &Shared) {
    let hello = shared.hello.borrow();
    let frame = Encoder::new(shared.limits).hello(&hello);
    shared.carriers.borrow_mut().retain(|carrier| {
        let Some(carrier) = carrier.upgrade() else { return false };
        let judged = same_cluster(&hello.introduction, &carrier.introduction.borrow(), &shared.cluster, carrier.peer);
        match (judged, &frame) {
            (Err(refusal), _) => {
                shared.refused(Some(carrier.peer), refusal.result, carrier.connection.remote_address(), &refusal.why);
                carrier.connection.close(refusal.close.code(), refusal.why.as_bytes());
            }
            // A queue that is full loses it; the peer hears it on the next connection.
            (Ok(()), Ok(frame)) => {
                let _ = carrier.send(Lane::Control, frame.clone());
            }
            (Ok(()), Err(_)) => {}
        }
        true
    });
}

fn shut(shared: &Shared) {
    shared.is_closed.set(true);
    for (_, link) in std::mem::take(&mut *shared.links.borrow_mut()) {
        link.stop.do_send(Stop);
    }
    for endpoint in shared.endpoint.borrow().iter().chain(&*shared.spares.borrow()) {
        endpoint.close(Close::Goodbye.code(), b"goodbye");
    }
}
