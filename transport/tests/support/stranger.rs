//! A peer that does as it likes: a bare QUIC client or server with whatever certificate
//! and whatever bytes.

use super::{CLUSTER, Pki};
use bytes::Bytes;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quorate_raft::NodeId;
use quorate_transport::{
    certificates::Issued,
    codec::{Encoder, Hello, Version},
    identity::node_name,
    network::Introduction,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

pub const ALPN: &[u8] = b"quorate/1";

/// A client with `issued` as its certificate, or none, that trusts the cluster's authority.
pub fn client(pki: &Pki, issued: Option<&Issued>, alpn: &[u8]) -> Endpoint {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pki.authority.certificate_pem().as_bytes()).expect("PEM"))
        .expect("a root");
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots);
    let mut tls = match issued {
        Some(issued) => {
            let (chain, key) = parts(issued);
            builder.with_client_auth_cert(chain, key).expect("a certificate")
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a socket");
    let config = QuicClientConfig::try_from(tls).expect("a suite for QUIC");
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(config)));
    endpoint
}

/// A server with `issued` as its certificate that demands no certificate of clients.
pub fn server(issued: &Issued) -> Endpoint {
    let (chain, key) = parts(issued);
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("a suite for QUIC")));
    Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a socket")
}

fn parts(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM")];
    (chain, PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("PEM"))
}

/// Connects to node 1 with a client whose certificate TLS accepts.
pub async fn connect(endpoint: &Endpoint, address: SocketAddr) -> Result<Connection, ConnectionError> {
    endpoint.connect(address, &node_name(NodeId(1), CLUSTER)).expect("a valid name").await
}

/// Both lanes of a connection after the hellos.
pub struct Lanes {
    pub control: (SendStream, RecvStream),
    pub append: (SendStream, RecvStream),
}

/// Opens both lanes in good order.
pub async fn introduce(connection: &Connection, node: NodeId) -> Lanes {
    try_introduce(connection, node).await.expect("a hello is answered with one")
}

/// The same; `None` if the other side closes the connection instead.
pub async fn try_introduce(connection: &Connection, node: NodeId) -> Option<Lanes> {
    let mut control = connection.open_bi().await.ok()?;
    let mut append = connection.open_bi().await.ok()?;
    for (send, recv) in [&mut control, &mut append] {
        send.write_chunk(hello_bytes(&hello(node))).await.ok()?;
        recv.read_chunk(usize::MAX, true).await.ok()??;
    }
    Some(Lanes { control, append })
}

pub fn hello(node: NodeId) -> Hello {
    let (protocol_min, protocol_max) = (Version::OLDEST.number(), Version::CURRENT.number());
    let introduction = Introduction { incarnation: 1, ..Introduction::default() };
    Hello { cluster: CLUSTER.into(), node, protocol_min, protocol_max, introduction }
}

pub fn hello_bytes(hello: &Hello) -> Bytes {
    Encoder::default().hello(hello).expect("a short one").head
}

/// The application error code with which the other side closed; `None` if it ended otherwise.
pub async fn closed_with(connection: &Connection) -> Option<u64> {
    let closed = tokio::time::timeout(quorate_transport_testing::conformance::PATIENCE, connection.closed()).await;
    match closed.expect("it is closed in time") {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}
