//! State that the acceptor, the links and the lanes' tasks share on the node's thread.

use super::{
    admission::{Handshakes, Members},
    backoff::{LogThrottle, PeerBackoff},
    hello::Refusal,
    incarnations::Incarnations,
    lanes::{Carrier, Side},
    reactor::NodeThread,
    reload::InUse,
    settings::{self, Pace},
};
use crate::{
    codec::{Hello, Limits, Versions},
    network::{ConnectionResult, DropReason, Inbox, NetworkObserver},
};
use actix::Recipient;
use quinn::{Connection, Endpoint, EndpointConfig};
use quorate_raft::NodeId;
use rustls::pki_types::CertificateDer;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// State that the acceptor, the links and the lanes' tasks share on the node's thread.
pub(super) struct Shared {
    /// Gone once the network is closed.
    pub(super) endpoint: RefCell<Option<Endpoint>>,
    /// Endpoints on ports of their own, for dials that the first port may have failed: at most one
    /// a link that is up or dials.
    pub(super) spares: RefCell<Vec<Endpoint>>,
    pub(super) config: EndpointConfig,
    pub(super) listen: SocketAddr,
    pub(super) pace: Pace,
    /// The time from which the looks at connections are counted.
    pub(super) began: Instant,
    /// Whether the network was closed on purpose: links that end then are no failure.
    pub(super) is_closed: Cell<bool>,
    /// Replaced as a whole by a reload.
    pub(super) credentials: RefCell<Rc<InUse>>,
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
    pub(super) links: RefCell<BTreeMap<NodeId, LinkActor>>,
    /// All connections that are up; those that ended are dropped when the next one begins.
    pub(super) carriers: RefCell<Vec<Weak<Carrier>>>,
    pub(super) backoff: RefCell<PeerBackoff>,
    pub(super) incarnations: RefCell<Incarnations>,
    pub(super) log_throttle: RefCell<LogThrottle>,
    /// Handshakes under way on accepted connections.
    pub(super) handshakes: RefCell<Handshakes>,
    /// The addresses from which members are admitted to the reserve of handshakes.
    pub(super) members: RefCell<Members>,
    /// Accepted connections that proved their node and await its hellos, oldest first: few a node.
    pub(super) introducing: RefCell<BTreeMap<NodeId, VecDeque<Connection>>>,
}

impl Shared {
    pub(super) fn credentials(&self) -> Rc<InUse> {
        Rc::clone(&self.credentials.borrow())
    }

    /// Closes each connection to a peer that the credentials in use do not accept. A handshake
    /// that is under way is judged at its end.
    pub(super) fn judge_again(&self) {
        let credentials = self.credentials();
        let introduced = self.carriers.borrow().iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        for carrier in introduced {
            let judged = credentials.judge(&carrier.connection, carrier.side, carrier.peer, &self.cluster);
            self.close_if_refused(&carrier.connection, carrier.peer, judged);
        }
        for (peer, connections) in &*self.introducing.borrow() {
            for connection in connections {
                // Its handshake ends with that, and counts the refusal.
                if let Err(refusal) = credentials.judge(connection, Side::Acceptor, *peer, &self.cluster) {
                    connection.close(refusal.close.code(), refusal.why.as_bytes());
                }
            }
        }
    }

    /// Closes a connection that is open to a peer that is no longer accepted; counts and logs it.
    pub(super) fn close_if_refused(&self, connection: &Connection, peer: NodeId, judged: Result<(), Refusal>) {
        if let Err(refusal) = judged
            && connection.close_reason().is_none()
        {
            self.refused(Some(peer), refusal.result, connection.remote_address(), &refusal.why);
            connection.close(refusal.close.code(), refusal.why.as_bytes());
        }
    }

    /// The next time of a look at connections. All are looked at together: each look alone would wake
    /// an idle thread.
    pub(super) fn next_look(&self) -> Instant {
        let (now, every) = (Instant::now(), self.pace.look.as_nanos().max(1));
        let since = now.saturating_duration_since(self.began).as_nanos();
        let left = u64::try_from(every - since % every).unwrap_or(u64::MAX);
        now + Duration::from_nanos(left)
    }

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
        let spare = Endpoint::new(self.config.clone(), None, socket, Arc::new(NodeThread)).ok()?;
        spares.push(spare.clone());
        Some(spare)
    }

    /// Whether a member has this address.
    pub(super) fn is_of_member(&self, ip: IpAddr) -> bool {
        let links = self.links.borrow();
        self.members.borrow().have(ip, |node| links.contains_key(&node))
    }

    /// Counts a connection that was refused, and logs the reason in one line, now and then.
    pub(super) fn refused(&self, peer: Option<NodeId>, result: ConnectionResult, remote: SocketAddr, why: &str) {
        self.observer.connection(peer, result);
        let result = result.as_str();
        if let Some(kept_out) = self.log_throttle.borrow_mut().may_log(result, peer, Instant::now()) {
            tracing::warn!(%remote, peer = peer.map(|peer| peer.0), kept_out, "{result}: {}", one_line(why));
        }
    }

    /// `peer` sent malformed bytes: counts and logs it, and refuses the peer for a while.
    pub(super) fn offended(&self, peer: NodeId, why: &str) {
        self.observer.dropped(Some(peer), DropReason::Malformed);
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
}

/// The actor that keeps a link.
#[derive(Clone, PartialEq)]
pub(super) struct LinkActor {
    pub(super) seen: Recipient<PeerSeen>,
    pub(super) stop: Recipient<Stop>,
}

/// The acceptor let this peer in, so it is alive.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct PeerSeen {
    /// The incarnation of the peer's process.
    pub(super) incarnation: u64,
    /// The certificate that it showed.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// The round trip measured on the connection that the peer dialled.
    pub(super) round_trip: Duration,
}

/// The link is no longer wanted.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct Stop;
/// A peer's text made fit for a log: one line of bounded length, without control characters.
pub(super) fn one_line(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
