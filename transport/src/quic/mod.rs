//! QUIC with mutual TLS: the network between machines.
//!
//! Owns one UDP socket, the connections on it and the peers' identities. Knows nothing of Raft
//! beyond the form of a message. The node calls it through [`Network`], [`Links`] and
//! [`Link`](crate::Link); it reports through the inbox.
//!
//! # Connections
//!
//! Every node dials every peer (`peer_link`) and accepts every peer (`acceptor`), so two nodes have
//! two connections. Requests go out on the connection that the sender dialled. Replies go back on
//! the connection that the asker dialled, where they share packets with the acknowledgements; on
//! the sender's own if that one is missing.
//!
//! # Lanes
//!
//! A connection has two long-lived bidirectional streams, opened by the dialler: stream 0 is the
//! control lane, which goes first whenever several have something to send; stream 1 is the append
//! lane. The snapshot lane is a one-way stream that the dialler opens when it has the first chunk
//! to send, and goes last; its answers are small and go back on the control lane. Each direction of
//! each begins with a [`Hello`](crate::codec::Hello). Messages wait in a bounded queue for each
//! lane (`lanes`, `outbox`), beside their connection: the mailbox of an actor has no bound, so
//! messages do not pass through one.
//!
//! # Identity
//!
//! A certificate of the cluster's authority is the condition, its name
//! `n<id>.<cluster>.quorate.internal` is the identity. The dialler's TLS checks that name as any
//! client does; the acceptor reads it from the verified certificate. A hello that claims something
//! else is refused.
//!
//! Two live processes may hold one certificate: a cloned machine. Their incarnations alternate
//! (`incarnations`). Once that is seen, this node keeps the process that it reaches at the
//! member's address, or else the one that is connected, and refuses the other while the kept
//! one is connected.
//!
//! # Paths that break and change
//!
//! A peer that is seen at another address, because a router gave it one, is followed there once
//! QUIC has proved the new path. A connection on which nothing arrives for about an election
//! timeout is dialled anew beside the old one, in turns from the usual port and from a fresh one.
//! Timeouts follow the election timeout (`settings::Pace`) and the measured round trip; each failed
//! dial gives the next one more time.
//!
//! # Reload
//!
//! The files are compared with what was loaded every [`QuicOptions::reload_every`], by content, and
//! read at once when [`Reloader::reload`] asks for it (`reload`). All of that happens on a thread of
//! its own. Certificate, key, authorities and revocation lists are one set: it is loaded and checked
//! as at the start, and used as a whole, or the former one stays. Files are replaced one after
//! another, so a failure is reported once the next look confirms it, and each distinct one once.
//!
//! A new set judges every connection, and closes it if the peer's certificate does not count by
//! it: dialled or accepted, introduced or not. A handshake that is under way is judged at its end.
//! A connection also ends with the peer's certificate; its keeper looks once a second. All of
//! these are closed with the code `Close::Certificate`, counted and logged, and dialled anew.
//!
//! After a change of this node's certificate or the peer's, a link dials beside its connection and
//! lets the newer one succeed the older: what is queued and on its way still arrives, in order,
//! and the link stays up. If that does not complete, messages may be lost, and the dialler reports
//! the link down and up. The acceptor keeps the older one for as long as that takes, about an
//! election timeout at most, if both are of the same process and the older one is not silent. So
//! once every node has a certificate of the next authority, the removal of the former one cuts
//! nothing.
//!
//! A revocation list that has ended (`nextUpdate`) refuses every new handshake at both ends, and is
//! not loaded. Connections that are open stay. A list that is not renewed would otherwise end every
//! connection of the cluster at one moment, and with it all writes. The price: a thief that is
//! connected stays until there is a new list, which judges every connection as it is loaded. A
//! warning comes when a quarter of its time is left.
//!
//! Not reloaded: the key of stateless resets, which is derived from the private key at the start
//! and belongs to the endpoint. If the private key changed since, a node that crashes and comes
//! back sends resets that its peers don't know. They learn of the new process from its own dials
//! instead, or by the silence of the old connection.
//!
//! Nothing of this is on the path of a message.
//!
//! # Versions
//!
//! A hello also states the versions of the frames that its sender speaks. A connection uses the
//! newest one that both speak; if there is none, it is refused by name. Each connection has its own
//! version, so a node may come back with another release.

mod acceptor;
mod admission;
mod backoff;
mod close;
mod credentials;
mod endpoint;
mod hello;
mod incarnations;
mod lanes;
mod outbox;
mod peer_link;
mod reactor;
mod reload;
mod settings;
mod shared;
#[cfg(test)]
mod testing;
mod turns;

use crate::{
    codec::Versions,
    network::{Links, LocalFuture, Network, NetworkContext, NetworkError},
};
use credentials::Files;
use quorate_raft::NodeId;
use reload::Loaded;
pub use reload::Reloader;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Options of the QUIC network: address, files, and the time limit of a frame.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QuicOptions {
    /// The UDP address on which this node accepts, and from which it dials. Port 0:
    /// the system chooses.
    pub listen: SocketAddr,
    /// The certificate of the cluster's authority, PEM.
    pub ca: PathBuf,
    /// This node's certificate, PEM, the node's own first if it is a chain.
    pub cert: PathBuf,
    /// Its key, PEM; must be readable by its owner alone.
    pub key: PathBuf,
    /// Certificate revocation lists, PEM: one of each authority in `ca`. Default: none, and no
    /// certificate is revoked.
    pub crl: Option<PathBuf>,
    /// The interval at which the files are compared with what was loaded. Default: 5 s. Zero: they
    /// are read only when [`Reloader::reload`] asks for it.
    pub reload_every: Duration,
    /// The longest time from a frame's first byte to its last. Default: 10 s, enough for the
    /// longest frame at 3.4 MB/s. A peer that begins frames and does not end them is disconnected.
    pub frame_timeout: Duration,
    /// The versions of the frames that the node speaks.
    speaks: Versions,
}

impl QuicOptions {
    /// Options with this address and these files, and defaults for the rest.
    pub fn new(listen: SocketAddr, ca: impl Into<PathBuf>, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let (ca, cert, key) = (ca.into(), cert.into(), key.into());
        let (reload_every, frame_timeout) = (Duration::from_secs(5), Duration::from_secs(10));
        Self { listen, ca, cert, key, crl: None, reload_every, frame_timeout, speaks: Versions::SPOKEN }
    }

    /// Speaks these versions of the frames instead of this release's: for tests of clusters
    /// of several releases.
    #[cfg(feature = "next-wire")]
    #[must_use]
    pub fn speaking(mut self, speaks: Versions) -> Self {
        self.speaks = speaks;
        self
    }
}

/// A QUIC network, not yet started.
pub struct Quic {
    options: QuicOptions,
    files: Files,
    loaded: Loaded,
    endpoint: quinn::EndpointConfig,
    reloader: Reloader,
}

impl Quic {
    /// Loads and checks the files. Opens no socket.
    ///
    /// # Errors
    /// In one line, naming the file and the remedy: it is missing or unreadable, is not what it
    /// should be, the key is readable by others or belongs to another certificate, the certificate
    /// names no node or has expired.
    pub fn new(options: QuicOptions) -> Result<Self, NetworkError> {
        let QuicOptions { ca, cert, key, crl, .. } = options.clone();
        let files = Files { ca, cert, key, crl };
        let loaded = Loaded::load(&files)?;
        let endpoint = settings::endpoint(&loaded.credentials)?;
        Ok(Self { options, files, loaded, endpoint, reloader: Reloader::default() })
    }

    /// Checks that the certificate is that of `node` in `cluster`, and that peers will accept it.
    /// Starting checks it, too.
    ///
    /// # Errors
    /// In one line that names the file: it is of another node or cluster, or of another authority.
    pub fn check(&self, cluster: &str, node: NodeId) -> Result<(), NetworkError> {
        self.loaded.credentials.check(cluster, node)
    }

    /// A handle that asks the network for a reload once it runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
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
