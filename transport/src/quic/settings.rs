//! Settings of QUIC and TLS. Each parameter that matters is set here with its reason, instead of a
//! default made for the open internet.

use super::credentials::Credentials;
use crate::network::{Cause, NetworkError};
use quinn::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    ServerConfig, TransportConfig, congestion::CubicConfig, crypto::rustls::QuicClientConfig,
    crypto::rustls::QuicServerConfig,
};
use rand::RngCore;
use rustls::{CipherSuite, client::Resumption, crypto::CryptoProvider, server::NoServerSessionStorage, version::TLS13};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

/// Priority of the control lane's streams: above the append lane's, which is 0.
pub(super) const CONTROL_PRIORITY: i32 = 1;
/// Priority of the snapshot lane's streams: below both.
pub(super) const SNAPSHOT_PRIORITY: i32 = -1;

/// The application protocol that both sides must name in the TLS handshake.
pub(super) const ALPN: &[u8] = b"quorate/1";

/// Durations derived from the election timeout, because networks differ in what is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// The silence after which a connection is given up. Raft detects a dead leader long before;
    /// this only bounds the time until a link is reported down where not even a reset comes back.
    /// Ten election timeouts, 3 s to 60 s.
    pub(super) idle_timeout: Duration,
    /// The interval of keep-alives: how long a path may be broken that nobody uses before anything asks.
    /// Three election timeouts, 60 ms to 1 s; each one costs an idle node a packet each way.
    pub(super) keep_alive: Duration,
    /// Time limit of an accepted handshake, from the first packet to the last hello. Ten election
    /// timeouts, 3 s to 10 s.
    pub(super) handshake: Duration,
    /// The interval at which a connection is checked for silence: a quarter of the election
    /// timeout, 20 ms to 1 s.
    pub(super) look: Duration,
}

impl Pace {
    /// The looks that fit into an election timeout.
    pub(super) const LOOKS: u32 = 4;

    /// The looks in a row that find a connection silent if its path is broken: those of an election
    /// timeout, and of two round trips.
    pub(super) fn looks(self, round_trip: Duration) -> u32 {
        let on_the_way = (round_trip * 2).as_nanos().div_ceil(self.look.as_nanos().max(1));
        Self::LOOKS.saturating_add(u32::try_from(on_the_way).unwrap_or(u32::MAX))
    }

    /// The longest time for which a connection that another one succeeds may still deliver: about an
    /// election timeout, for which the newer one's lanes wait.
    pub(super) fn succession(self) -> Duration {
        self.look * Self::LOOKS
    }

    pub(super) fn of(election_timeout: Duration) -> Self {
        let ten = election_timeout.saturating_mul(10);
        Self {
            idle_timeout: ten.clamp(Duration::from_secs(3), Duration::from_secs(60)),
            keep_alive: election_timeout.saturating_mul(3).clamp(Duration::from_millis(60), Duration::from_secs(1)),
            handshake: ten.clamp(Duration::from_secs(3), Duration::from_secs(10)),
            look: (election_timeout / Self::LOOKS).clamp(Duration::from_millis(20), Duration::from_secs(1)),
        }
    }
}

/// The round trip assumed before the first measurement. With the default, 333 ms, the first loss
/// would cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(5);
/// The longest delay of an acknowledgement. With the default, 25 ms, every probe for a lost
/// packet would wait for it. Replies usually carry the acknowledgement anyway, so this rarely
/// costs a packet.
const MAX_ACK_DELAY: Duration = Duration::from_millis(2);
/// An acknowledgement is sent after this many packets at the latest: more packets than by default,
/// to send fewer back.
const ACK_EVERY_PACKETS: u32 = 64;
/// The initial congestion window: large, because nodes share a network and the first append
/// should be fast.
const INITIAL_WINDOW_BYTES: u64 = 256 << 10;
/// Unread bytes that a peer may have on their way on one lane. Must exceed bandwidth x delay: 8 MiB
/// carries 8 GB/s at 1 ms.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same on all lanes together: every lane's window fits, so a lane that is not read never
/// holds another back.
const CONNECTION_WINDOW_BYTES: u32 = (TWO_WAY_LANES + ONE_WAY_LANES) * STREAM_WINDOW_BYTES;
/// Bytes written and not yet acknowledged, on all lanes of a connection. A lane has at most its
/// window of them, so none takes another's share; beyond that the lane's own bounded queue fills.
const SEND_WINDOW_BYTES: u64 = CONNECTION_WINDOW_BYTES as u64;
/// A control and an append lane: the most two-way streams that a peer may open.
const TWO_WAY_LANES: u32 = 2;
/// A snapshot lane.
const ONE_WAY_LANES: u32 = 1;
/// The longest datagram tried for. Path discovery finds what fits: jumbo frames where
/// there are some.
const DATAGRAM_BYTES_MAX: u16 = 8952;
/// The requested size of the socket's buffers, each way. The kernel grants up to its
/// own limit (`net.core.rmem_max`).
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Connection attempts that may wait for the acceptor. A cluster has a handful of nodes; further
/// attempts are ignored.
pub(super) const INCOMING_MAX: usize = 64;
/// Bytes buffered for an attempt that waits: there is no early data, so few arrive.
const INCOMING_BYTES: u64 = 64 << 10;
/// The shortest interval between stateless resets, which tell peers of a restart at once.
const RESET_INTERVAL: Duration = Duration::from_millis(2);

/// The provider of all cryptography here: ring, with the cheapest suite first.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    // AES-128 is as good as any here and a fifth cheaper a byte than AES-256.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// TLS of dialled connections. The verifier of each authority compares the peer's certificate with
/// the name that is dialled.
pub(super) fn client(
    credentials: &Credentials,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<QuicClientConfig>, NetworkError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .dangerous() // the name of any verifier but the library's one; this one is several of it
        .with_custom_certificate_verifier(credentials.trust.server_verifier())
        .with_client_cert_resolver(Arc::clone(&credentials.certified) as _);
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // No early data, which could be replayed; no resumption, so that every connection
    // shows a certificate.
    tls.enable_early_data = false;
    tls.resumption = Resumption::disabled();
    Ok(Arc::new(QuicClientConfig::try_from(tls).map_err(unusable)?))
}

/// TLS of accepted connections: a peer needs a certificate of the cluster's authority.
pub(super) fn server(
    credentials: &Credentials,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<QuicServerConfig>, NetworkError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(credentials.trust.client_verifier(false))
        .with_cert_resolver(Arc::clone(&credentials.certified) as _);
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(QuicServerConfig::try_from(tls).map_err(unusable)?))
}

/// The settings of accepted connections.
pub(super) fn accepting(tls: Arc<QuicServerConfig>, pace: Pace) -> ServerConfig {
    let mut server = ServerConfig::with_crypto(tls);
    server
        .transport_config(transport(pace))
        .migration(true) // a router may give a node another address at any time; QUIC proves the new one before it is used
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES * INCOMING_MAX as u64);
    server
}

/// The endpoint's own settings.
pub(super) fn endpoint(credentials: &Credentials) -> Result<EndpointConfig, NetworkError> {
    let mut endpoint = EndpointConfig::new(Arc::new(credentials.reset_key.clone()));
    endpoint
        .cid_generator(|| Box::new(RandomIds))
        .min_reset_interval(RESET_INTERVAL)
        .max_udp_payload_size(DATAGRAM_BYTES_MAX)
        .map_err(unusable)?;
    Ok(endpoint)
}

/// The one UDP socket.
pub(super) fn socket(listen: SocketAddr) -> Result<UdpSocket, NetworkError> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        if listen.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // More is better and less works: the kernel's limit is the operator's business.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&listen.into())?;
        Ok(UdpSocket::from(socket))
    };
    bind().map_err(|source: std::io::Error| {
        let problem = match source.kind() {
            std::io::ErrorKind::AddrInUse => "the port is taken: stop what uses it or listen on another".to_owned(),
            _ => format!("can't listen ({source}): listen on an address of this machine"),
        };
        NetworkError::Address { address: listen, problem, source }
    })
}

/// The parameters of connections, dialled and accepted.
pub(super) fn transport(pace: Pace) -> Arc<TransportConfig> {
    let mut acks = AckFrequencyConfig::default();
    acks.max_ack_delay(Some(MAX_ACK_DELAY)).ack_eliciting_threshold(ACK_EVERY_PACKETS.into());
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW_BYTES);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_BYTES_MAX);
    let mut transport = TransportConfig::default();
    transport
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(cubic))
        .mtu_discovery_config(Some(discovery))
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(Some(pace.keep_alive))
        .max_idle_timeout(IdleTimeout::try_from(pace.idle_timeout).ok())
        .max_concurrent_bidi_streams(TWO_WAY_LANES.into())
        .max_concurrent_uni_streams(ONE_WAY_LANES.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None) // not used
        .allow_spin(false); // no passive observer measures round trips
    Arc::new(transport)
}

/// Connection ids of 8 random bytes. quinn's own kind refuses ids from before a restart, so no
/// reset would answer them.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0u8; 8];
        rand::rng().fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn unusable(error: impl Into<Cause>) -> NetworkError {
    NetworkError::Tls { source: error.into() }
}
