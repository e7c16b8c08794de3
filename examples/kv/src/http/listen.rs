//! The listener under the routes: plain or TLS, bounded in connections and in patience, stopped gracefully.

use crate::config::{ConfigError, HttpTls};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use quorate::transport::certificates::check_private;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// How many connections there may be; more wait in the kernel's backlog, which is bounded.
const CONNECTIONS_MAX: usize = 4096;
/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a request's head may take, and how long a connection may idle between requests.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait after the system had no socket left to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener.
pub struct HttpListener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl HttpListener {
    /// Binds `address`.
    ///
    /// # Errors
    /// If it is taken or not of this machine, by the key `http`.
    pub async fn bind(address: SocketAddr, tls: Option<TlsAcceptor>) -> Result<Self, ConfigError> {
        let tcp = TcpListener::bind(address).await.map_err(|error| unbindable("http", address, &error))?;
        Ok(Self { tcp, tls })
    }

    /// The URL that it answers at, with the port that the system chose if it was to choose.
    ///
    /// # Errors
    /// If the system does not know the address.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.tcp.local_addr()?))
    }

    /// Serves `router` until `stop` resolves, then lets requests under way finish for up to `patience`.
    pub async fn serve(self, router: Router, stop: impl Future<Output = ()>, patience: Duration) {
        let graceful = GracefulShutdown::new();
        tokio::select! {
            biased;
            () = stop => {}
            () = self.accept(&router, &graceful) => {}
        }
        drop(self.tcp);
        if tokio::time::timeout(patience, graceful.shutdown()).await.is_err() {
            tracing::warn!("HTTP requests were still under way after {patience:?} and are cut off");
        }
    }

    async fn accept(&self, router: &Router, graceful: &GracefulShutdown) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match self.tcp.accept().await {
                Ok((stream, _)) => {
                    let connection = Connection { router: router.clone(), watcher: graceful.watcher(), _slot: slot };
                    tokio::spawn(connection.begin(stream, self.tls.clone()));
                }
                // A client that left before it was accepted is nobody's trouble; a lack of descriptors passes.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!("can't accept an HTTP connection: {error}; trying again in {ACCEPT_PAUSE:?}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

struct Connection {
    router: Router,
    watcher: Watcher,
    _slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn begin(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are small and complete: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        match tls {
            None => self.run(stream).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.run(stream).await,
                Ok(Err(error)) => tracing::debug!("an HTTPS handshake failed: {error}"),
                Err(_) => tracing::debug!("an HTTPS handshake took longer than {HANDSHAKE_LIMIT:?}"),
            },
        }
    }

    async fn run(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router));
        if let Err(error) = self.watcher.watch(served).await {
            tracing::debug!("an HTTP connection ended: {error}");
        }
    }
}

/// Reads the certificate and key of the HTTP server.
///
/// # Errors
/// If they can't be read or don't belong together, or others can read the key; by the keys under `http_tls`.
pub fn tls_acceptor(tls: &HttpTls) -> Result<TlsAcceptor, ConfigError> {
    let (cert, key) = (tls.cert.display(), tls.key.display());
    let chain =
        CertificateDer::pem_file_iter(&tls.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| {
            ConfigError::new("http_tls.cert", format_args!("{cert}: {error}"), "name a PEM certificate")
        })?;
    let unusable = |error: &dyn std::fmt::Display| {
        ConfigError::new("http_tls.key", format_args!("{key}: {error}"), "name a PEM private key")
    };
    check_private(&tls.key).map_err(|problem| unusable(&problem))?;
    let private = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| unusable(&error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| {
            let problem = format!("{cert} and {key} don't fit: {error}");
            ConfigError::new("http_tls", problem, "name a certificate and the key that it was made for")
        })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Why nothing can listen at `address`.
pub(crate) fn unbindable(key: &str, address: SocketAddr, error: &io::Error) -> ConfigError {
    let problem = format!("can't listen at {address}: {error}");
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
        io::ErrorKind::AddrNotAvailable => "use an address of this machine",
        io::ErrorKind::PermissionDenied => "choose a port of 1024 or more",
        _ => "choose another address",
    };
    ConfigError::new(key, problem, remedy)
}
