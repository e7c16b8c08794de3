//! QUIC with mutual TLS: how nodes talk across machines.
//!
//! Owns one UDP socket, the connections on it and the peers' identities. Knows nothing of Raft beyond the shape of a
//! message. The node talks to it through [`Network`], [`Links`] and [`Link`](crate::Link); it talks back through the inbox.
//!
//! # Who dials whom
//!
//! Every node dials every peer (`peer_link`) and accepts every peer (`acceptor`), so two nodes have two connections.
//! Requests go out on the connection that the sender dialled. Replies go back on the connection that the asker dialled,
//! where they share packets with the acknowledgements; on the sender's own if that one is missing.
//!
//! # Lanes
//!
//! A connection has two long-lived bidirectional streams, opened by the dialler: stream 0 is the control lane, which
//! goes first whenever several have something to send; stream 1 is the append lane. The snapshot lane is a one-way stream
//! that the dialler opens when it has the first piece to send, and goes last; its answers are small and go back on the control
//! lane. Each direction of each begins with a [`Hello`](crate::codec::Hello). What is sent waits in a bounded queue a lane
//! (`lanes`, `outbox`), next to the connection that it belongs to: the mailbox of an actor has no bound, so messages do not
//! pass through one.
//!
//! # Identity
//!
//! A certificate of the cluster's authority is the condition, its name `n<id>.<cluster>.quorate.internal` is the
//! identity. The dialler's TLS checks that name as any client does; the acceptor reads it from the verified certificate.
//! A hello that claims something else is refused.
//!
//! Two live processes may hold one certificate: a cloned machine. Their incarnations alternate (`incarnations`). Once that is seen, one
//! of them is kept, and the other refused for as long as that one is connected: the one that this node reaches at the member's
//! address, or else the one that is connected.
//!
//! # Paths that break and change
//!
//! A peer that is seen at another address, because a router gave it one, is followed there once QUIC has proved the new path. A
//! connection on which nothing arrives for about an election timeout is dialled anew beside the old one, by turns from the
//! usual port and from a fresh one. How long to wait, for what, follows the election timeout (`settings::Pace`) and the measured
//! round trip; attempts to dial that fail have more time each.
//!
//! # Versions
//!
//! A hello also says which versions of the frames its sender speaks. The newest that both speak is spoken on the
//! connection; if there is none, it is refused, by name. Each connection has its own, so a node that comes back with
//! another release is spoken to accordingly.

mod acceptor;
mod backoff;
mod credentials;
mod endpoint;
mod hello;
mod incarnations;
mod lanes;
mod outbox;
mod peer_link;
mod settings;

use crate::{
    codec::Versions,
    network::{Links, LocalFuture, Network, NetworkContext, NetworkError},
};
use credentials::Credentials;
use quorate_raft::NodeId;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// The control lane's streams go before the append lane's, whose priority is 0.
const CONTROL_PRIORITY: i32 = 1;
/// The snapshot lane's go behind both.
const SNAPSHOT_PRIORITY: i32 = -1;

/// Where to listen and what to prove oneself with.
#[derive(Clone, Debug)]
pub struct QuicOptions {
    /// The UDP address on which this node accepts, and from which it dials. Port 0: the system chooses.
    pub listen: SocketAddr,
    /// The certificate of the cluster's authority, PEM.
    pub ca: PathBuf,
    /// This node's certificate, PEM, the node's own first if it is a chain.
    pub cert: PathBuf,
    /// Its key, PEM; must be readable by its owner alone.
    pub key: PathBuf,
    /// How long a frame may take from its first byte to its last. Default: 10 s, which a frame of the greatest length
    /// makes at 3.4 MB/s; a peer that begins frames and does not end them is disconnected.
    pub frame_timeout: Duration,
    /// Which versions of the frames it speaks.
    speaks: Versions,
}

impl QuicOptions {
    /// These files and this address, and defaults for the rest.
    pub fn new(listen: SocketAddr, ca: impl Into<PathBuf>, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let (ca, cert, key) = (ca.into(), cert.into(), key.into());
        Self { listen, ca, cert, key, frame_timeout: Duration::from_secs(10), speaks: Versions::SPOKEN }
    }

    /// Speaks these versions of the frames instead of all that this release has: for tests of clusters of several releases.
    #[cfg(feature = "next-wire")]
    #[must_use]
    pub fn speaking(mut self, speaks: Versions) -> Self {
        self.speaks = speaks;
        self
    }
}

/// The network of QUIC.
pub struct Quic {
    options: QuicOptions,
    credentials: Credentials,
    client: quinn::ClientConfig,
    server: quinn::ServerConfig,
    endpoint: quinn::EndpointConfig,
}

impl Quic {
    /// Loads and checks the files. Opens no socket.
    ///
    /// # Errors
    /// In one line, naming the file and the remedy: it is missing or unreadable, is not what it should be, the key is
    /// readable by others or belongs to another certificate, the certificate names no node or has expired.
    pub fn new(options: QuicOptions) -> Result<Self, NetworkError> {
        let provider = settings::provider();
        let credentials = Credentials::load(&options.ca, &options.cert, &options.key, provider.clone())?;
        let client = settings::client(&credentials, provider.clone())?;
        let server = settings::server(&credentials, provider)?;
        let endpoint = settings::endpoint(&credentials)?;
        Ok(Self { options, credentials, client, server, endpoint })
    }

    /// Whether the certificate is the one of `node` in `cluster`, and one that peers will accept. Starting checks it too.
    ///
    /// # Errors
    /// In one line that names the file: it is of another node or cluster, or of another authority.
    pub fn check(&self, cluster: &str, node: NodeId) -> Result<(), NetworkError> {
        self.credentials.check(cluster, node)
    }
}

impl Network for Quic {
    fn start(self: Box<Self>, context: NetworkContext) -> LocalFuture<Result<Box<dyn Links>, NetworkError>> {
        Box::pin(async move { endpoint::start(*self, context).map(|links| Box::new(links) as Box<dyn Links>) })
    }
}

/// Shows no key.
impl std::fmt::Debug for Quic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quic").field("options", &self.options).finish_non_exhaustive()
    }
}
