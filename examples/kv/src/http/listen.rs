//! The listener under the routes: plain or TLS, bounded in connections and in patience, stopped gracefully.
//!
//! **Bounded:** in connections, by [`Places`]; when all are taken, an idle one makes room (`connections`). In patience: of a
//! handshake, of a request's head, and, in `body`, of its body. What arrives after an answer that ends a connection is dropped
//! within a bound, so that the answer is read (`linger`).

use super::{
    connections::{Client, Connection, Connections, Doing, Entered},
    guard::Hosts,
    linger::Lingering,
    plaintext,
};
use crate::{config::ConfigError, descriptors::Places};
use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Request, Response, header},
    response::IntoResponse,
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::Service,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use quorate::{
    metrics::{NodeMetrics, Shortage},
    storage::disk::is_shortage,
};
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a request's head may take, and how long a connection may idle between requests.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// What one connection may have in memory of a head, or of a body that was not asked for yet.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long to wait after the system had no socket left to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is logged that it has none.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// A bound listener.
pub struct HttpListener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
}

/// What a listener is told of the world around it.
pub struct Terms {
    /// How many connections there may be.
    pub places: Places,
    /// The names that clients may call this server by.
    pub hosts: Hosts,
    /// Where connections and shortages are counted.
    pub metrics: NodeMetrics,
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
    pub async fn serve(self, router: Router, terms: Terms, stop: impl Future<Output = ()>, patience: Duration) {
        let graceful = GracefulShutdown::new();
        tokio::select! {
            biased;
            () = stop => {}
            () = self.accept(&router, &terms, &graceful) => {}
        }
        drop(self.tcp);
        if tokio::time::timeout(patience, graceful.shutdown()).await.is_err() {
            tracing::warn!("HTTP requests were still under way after {patience:?} and are cut off");
        }
    }

    async fn accept(&self, router: &Router, terms: &Terms, graceful: &GracefulShutdown) {
        let connections = Connections::up_to(terms.places.connections_max());
        let mut said_at: Option<Instant> = None;
        loop {
            match self.tcp.accept().await {
                Ok((stream, from)) => {
                    let Ok(local) = stream.local_addr() else { continue };
                    let client = Client::from(from.ip());
                    let entered = connections.enter(client).await;
                    terms.metrics.http_connections(connections.count() as u64);
                    let service = Served {
                        router: TowerToHyperService::new(router.clone()),
                        hosts: terms.hosts.clone(),
                        local: local.ip(),
                        client,
                        connection: Arc::clone(&entered.connection),
                    };
                    let serving = Serving { service, entered, watcher: graceful.watcher() };
                    let (metrics, connections) = (terms.metrics.clone(), connections.clone());
                    let tls = self.tls.clone();
                    tokio::spawn(async move {
                        serving.begin(stream, tls).await;
                        metrics.http_connections(connections.count() as u64);
                    });
                }
                // A client that left before it was accepted is nobody's trouble.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if is_shortage(&error) {
                        terms.metrics.ran_short(Shortage::Connection);
                        connections.make_room();
                    }
                    if said_at.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                        said_at = Some(Instant::now());
                        let remedy = "raise the limit of open files (ulimit -n, LimitNOFILE)";
                        tracing::warn!(
                            "can't accept HTTP connections: {error}; tried again every {ACCEPT_PAUSE:?}; {remedy}"
                        );
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A connection that is being served.
struct Serving {
    service: Served,
    entered: Entered,
    watcher: Watcher,
}

impl Serving {
    async fn begin(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are small and complete: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let connection = Arc::clone(&self.entered.connection);
        let serve = async {
            match tls {
                None => self.run(stream).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_LIMIT, secured(stream, &tls)).await {
                    Ok(Ok(Some(stream))) => self.run(stream).await,
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) => tracing::debug!("an HTTPS handshake failed: {error}"),
                    Err(_) => tracing::debug!("an HTTPS handshake took longer than {HANDSHAKE_LIMIT:?}"),
                },
            }
        };
        tokio::select! {
            biased;
            () = connection.closed() => tracing::debug!("an HTTP connection made room for another"),
            () = serve => {}
        }
    }

    async fn run(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Self { service, entered, watcher } = self;
        let stream = Lingering::new(stream, Arc::clone(&entered.connection));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(served).await {
            tracing::debug!("an HTTP connection ended: {error}");
        }
        drop(entered);
    }
}

/// The stream with TLS; `None` for a client that speaks plain HTTP and was turned away.
async fn secured(stream: TcpStream, tls: &TlsAcceptor) -> io::Result<Option<TlsStream<TcpStream>>> {
    if plaintext::begins(&stream).await {
        plaintext::turn_away(stream).await;
        return Ok(None);
    }
    tls.accept(stream).await.map(Some)
}

/// The routes, for one connection: says what happens on it, and refuses what must not come from there.
struct Served {
    router: TowerToHyperService<Router>,
    hosts: Hosts,
    local: IpAddr,
    client: Client,
    connection: Arc<Connection>,
}

impl Service<Request<Incoming>> for Served {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let has_arrived = Arc::new(AtomicBool::new(false));
        let connection = Arc::clone(&self.connection);
        connection.does(Doing::Arriving);
        let allowed = self.hosts.check(self.local, request.method(), request.uri(), request.headers());
        let mut request = request.map(|body| Asked {
            body,
            has_arrived: Arc::clone(&has_arrived),
            connection: Arc::clone(&connection),
        });
        request.body().look();
        request.extensions_mut().insert(self.client);
        let answering = allowed.map(|()| self.router.call(request));
        Box::pin(async move {
            let response = match answering {
                Ok(answering) => answering.await?,
                Err(refusal) => refusal.into_response(),
            };
            connection.does(Doing::Answering);
            let (mut head, body) = response.into_parts();
            if !has_arrived.load(Relaxed) {
                // The rest of the body stands where the next request would: there is none.
                head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(Response::from_parts(head, Answer { body, connection }))
        })
    }
}

/// A request's body, which says when it has arrived.
struct Asked {
    body: Incoming,
    has_arrived: Arc<AtomicBool>,
    connection: Arc<Connection>,
}

impl Asked {
    fn look(&self) {
        if self.body.is_end_stream() {
            self.arrived();
        }
    }

    fn arrived(&self) {
        self.has_arrived.store(true, Relaxed);
        self.connection.set_unread(false);
        self.connection.arrived();
    }
}

impl Drop for Asked {
    /// Nobody waits for the rest of it.
    fn drop(&mut self) {
        self.connection.arrived();
    }
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.arrived(),
            Some(Ok(_)) => self.look(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, which says when it has left.
struct Answer {
    body: Body,
    connection: Arc<Connection>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.does(Doing::Waiting);
    }
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
