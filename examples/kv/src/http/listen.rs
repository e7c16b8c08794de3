//! The HTTP listener: plain or TLS, limited in connections and in time, with graceful stop.
//!
//! **Bounded:** [`ConnectionLimit`] limits the connections; when all are in use, an idle one is
//! closed for a new one (`connections`). Time limits apply to a handshake, to a request's head,
//! and, in `body`, to its body. Data that arrives after an answer that ends a connection is dropped
//! within a limit, so that the client can read the answer (`linger`).

use super::{
    access::{Access, Subject, cut, outlived},
    clients::{Shown, refusal},
    connections::{Activity, Client, Connection, Connections, Registration},
    credentials::Credentials,
    guard::protect,
    linger::Lingering,
    plaintext,
    refusal::{Code, Refusal},
    standing::{Endless, Proof, Standing},
    throttle::Throttle,
};
use crate::{config::ConfigError, descriptors::ConnectionLimit};
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
    service::TowerToHyperService,
};
use quorate::{
    metrics::{HttpRefusal, Label as _, NodeMetrics, Shortage},
    storage::disk::is_shortage,
};
use std::{
    convert::Infallible,
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The time limit of a TLS handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// The time limit for a request's head, and for an idle connection between requests.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// The maximum memory per connection for a head, or for body bytes that were not requested yet.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// The pause after the system had no socket left to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The time for which requests are answered on a connection whose certificate counts no more, before
/// it is closed: a client that is just sending one must not be left without an answer.
const FAREWELL: Duration = Duration::from_secs(1);
/// The interval of log lines about sockets.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// The interval of log lines about requests that a web page may have sent, of each reason.
const SAY_FOREIGN_AGAIN: Duration = Duration::from_secs(10);
/// The interval of log lines about clients' certificates.
const SAY_CERTIFICATE_AGAIN: Duration = Duration::from_secs(1);
/// The maximum length of a refusal in such a line: it quotes the request.
const FOREIGN_BYTES_MAX: usize = 512;

/// A bound listener.
pub struct HttpListener {
    tcp: TcpListener,
}

/// The environment of a listener.
pub struct ListenerOptions {
    /// The maximum number of connections.
    pub connections: ConnectionLimit,
    /// The permissions of callers, and the credentials in force.
    pub access: Access,
    /// The metrics for connections and shortages.
    pub metrics: NodeMetrics,
    /// The number of open connections, of all listeners together.
    pub open: Arc<AtomicU64>,
}

impl HttpListener {
    /// Binds `address`.
    ///
    /// # Errors
    /// If the address is in use or not local; the error names the key `key`.
    pub async fn bind(key: &str, address: SocketAddr) -> Result<Self, ConfigError> {
        let tcp = TcpListener::bind(address).await.map_err(|error| unbindable(key, address, &error))?;
        Ok(Self { tcp })
    }

    /// The URL of this listener, with the actual port if the configuration has port 0.
    ///
    /// # Errors
    /// If the system does not report the address.
    pub fn url(&self, access: &Access) -> io::Result<String> {
        let scheme = if access.credentials().tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.tcp.local_addr()?))
    }

    /// Serves `router` until `stop` resolves, then lets requests under way finish for
    /// up to `patience`.
    pub async fn serve(
        self,
        router: Router,
        options: ListenerOptions,
        stop: impl Future<Output = ()>,
        patience: Duration,
    ) {
        let stopping = watch::Sender::new(());
        tokio::select! {
            biased;
            () = stop => {}
            () = self.accept(&router, &options, &stopping) => {}
        }
        drop(self.tcp);
        stopping.send_replace(());
        // Each connection holds a receiver until it ends.
        if tokio::time::timeout(patience, stopping.closed()).await.is_err() {
            tracing::warn!("HTTP requests were still under way after {patience:?} and are cut off");
        }
    }

    async fn accept(&self, router: &Router, options: &ListenerOptions, stopping: &watch::Sender<()>) {
        let connections = Connections::up_to(options.connections.connections_max());
        let refusals = CertificateLines::default();
        let mut said_at: Option<Instant> = None;
        let foreign = Foreign(Arc::new(Mutex::new(Throttle::new(1, SAY_FOREIGN_AGAIN))));
        loop {
            match self.tcp.accept().await {
                Ok((stream, from)) => {
                    let Ok(local) = stream.local_addr() else { continue };
                    let client = Client::from(from.ip());
                    let registration = connections.register(client).await;
                    options.metrics.http_connections(options.open.fetch_add(1, Relaxed) + 1);
                    let service = Served {
                        router: TowerToHyperService::new(router.clone()),
                        local: local.ip(),
                        from: from.ip(),
                        caller: options.access.connected(from.ip(), None),
                        access: options.access.clone(),
                        standing: Standing::default(),
                        metrics: options.metrics.clone(),
                        foreign: foreign.clone(),
                        connection: Arc::clone(&registration.connection),
                    };
                    let (stopping, refusals) = (stopping.subscribe(), refusals.clone());
                    let serving = Serving { service, registration, stopping, refusals };
                    let (metrics, open) = (options.metrics.clone(), Arc::clone(&options.open));
                    tokio::spawn(async move {
                        serving.begin(stream).await;
                        metrics.http_connections(open.fetch_sub(1, Relaxed).saturating_sub(1));
                    });
                }
                // The client closed the connection before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if is_shortage(&error) {
                        options.metrics.ran_short(Shortage::Connection);
                        connections.make_room();
                    }
                    if said_at.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
                        said_at = Some(Instant::now());
                        let remedy = "raise the limit of open files (ulimit -n, LimitNOFILE)";
                        tracing::warn!(
                            "cannot accept HTTP connections: {error}; retrying every {ACCEPT_PAUSE:?}; {remedy}"
                        );
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A connection and the services for it.
struct Serving {
    service: Served,
    registration: Registration,
    /// Changes when the listener stops.
    stopping: watch::Receiver<()>,
    /// Limits the log lines about clients that TLS refuses.
    refusals: CertificateLines,
}

impl Serving {
    async fn begin(mut self, stream: TcpStream) {
        // Answers are small and complete: waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        let connection = Arc::clone(&self.registration.connection);
        let credentials = self.service.access.credentials();
        let (from, refusals, metrics) = (self.service.from, self.refusals.clone(), self.service.metrics.clone());
        let serve = async {
            match self.service.access.acceptor(&credentials) {
                None => self.run(stream, None, credentials).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_LIMIT, secured(stream, &tls)).await {
                    Ok(Ok(Some(stream))) => {
                        let shown = Shown::by(stream.get_ref().1.peer_certificates());
                        self.service.identify(shown.as_ref().and_then(Shown::certificate));
                        self.run(stream, shown, credentials).await;
                    }
                    Ok(Ok(None)) => metrics.http_refused(HttpRefusal::Handshake),
                    Ok(Err(error)) => {
                        metrics.http_refused(HttpRefusal::Handshake);
                        match refusal(&error).map(|why| (why, refusals.may_say())) {
                            Some((why, Some(left_out))) => {
                                tracing::info!(%from, left_out, "refused a client by its certificate: {why}");
                            }
                            _ => tracing::debug!("an HTTPS handshake failed: {error}"),
                        }
                    }
                    Err(_) => {
                        metrics.http_refused(HttpRefusal::Handshake);
                        tracing::debug!("an HTTPS handshake took longer than {HANDSHAKE_LIMIT:?}");
                    }
                },
            }
        };
        tokio::select! {
            biased;
            () = connection.closed() => {
                metrics.http_refused(HttpRefusal::Replaced);
                tracing::debug!("an HTTP connection was closed for a new one");
            }
            () = serve => {}
        }
    }

    async fn run(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        shown: Option<Shown>,
        accepted: Arc<Credentials>,
    ) {
        let Self { service, registration, mut stopping, refusals } = self;
        let (connection, metrics) = (Arc::clone(&registration.connection), service.metrics.clone());
        let (standing, caller) = (service.standing.clone(), service.caller.clone());
        let lost = service.access.certificate_lost(shown, accepted);
        let stream = Lingering::new(stream, Arc::clone(&connection));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut served = pin!(served);
        let leaving = async {
            let why = lost.await;
            standing.lose(why);
            if let Some(left_out) = refusals.may_say() {
                tracing::info!(%caller, left_out, "closing a connection: {why}");
            }
            sleep(FAREWELL).await;
        };
        let ended = tokio::select! {
            // So no request is begun after credentials have changed without a look at them.
            biased;
            () = leaving => None,
            _ = stopping.changed() => None,
            ended = served.as_mut() => Some(ended),
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                served.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = served.as_mut() => ended,
                    () = stalled(&connection, &standing) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            if let Some(reason) = broken(&error, &connection) {
                metrics.http_refused(reason);
            }
            tracing::debug!("an HTTP connection ended: {error}");
        }
        drop((stopping, registration));
    }
}

/// Resolves once the client of a connection without standing takes no bytes of its last answer.
async fn stalled(connection: &Connection, standing: &Standing) {
    if standing.lost_for().is_none() {
        return pending().await;
    }
    while !connection.is_stalled() {
        sleep(FAREWELL).await;
    }
}

/// The reason by which the end of a connection counts as a refusal, if it does: a head that is no
/// HTTP, too long, or did not arrive in time.
fn broken(error: &hyper::Error, connection: &Connection) -> Option<HttpRefusal> {
    if error.is_parse_too_large() {
        Some(HttpRefusal::TooLarge)
    } else if error.is_parse() {
        Some(HttpRefusal::BadRequest)
    } else {
        // Without bytes of a head, the connection was merely idle.
        (error.is_timeout() && connection.has_unread()).then_some(HttpRefusal::Slow)
    }
}

/// The log lines about clients whose certificates do not count, or count no more: a handshake costs
/// its sender little.
#[derive(Clone)]
struct CertificateLines(Arc<Mutex<Throttle<()>>>);

impl Default for CertificateLines {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Throttle::new(1, SAY_CERTIFICATE_AGAIN))))
    }
}

impl CertificateLines {
    /// The number of lines that were left out since the last one, if a line may be logged.
    fn may_say(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).may_say((), Instant::now())
    }
}

/// The log lines about requests that a web page may have sent.
#[derive(Clone)]
struct Foreign(Arc<Mutex<Throttle<HttpRefusal>>>);

impl Foreign {
    /// Logs such a refusal, now and then.
    fn refused(&self, caller: &Subject, reason: HttpRefusal, refusal: &Refusal) {
        let left_out = self.0.lock().unwrap_or_else(PoisonError::into_inner).may_say(reason, Instant::now());
        if let Some(left_out) = left_out {
            let why = cut(&refusal.answer().message, FOREIGN_BYTES_MAX);
            tracing::warn!(%caller, reason = reason.as_str(), left_out, why, "request refused");
        }
    }
}

/// The stream with TLS; `None` for a client that sent plain HTTP and got an answer.
async fn secured(stream: TcpStream, tls: &TlsAcceptor) -> io::Result<Option<TlsStream<TcpStream>>> {
    if plaintext::begins(&stream).await {
        plaintext::turn_away(stream).await;
        return Ok(None);
    }
    match tls.accept(stream).into_fallible().await {
        Ok(stream) => Ok(Some(stream)),
        Err((error, stream)) => {
            // A client may have sent its request before it knows that its certificate is refused.
            plaintext::drain(stream).await;
            Err(error)
        }
    }
}

/// The routes of one connection: tracks its activity, refuses requests from foreign origins, and
/// tells the caller of each request.
struct Served {
    router: TowerToHyperService<Router>,
    local: IpAddr,
    from: IpAddr,
    access: Access,
    /// The caller of requests without a token.
    caller: Subject,
    /// Of the certificate of that caller.
    standing: Standing,
    metrics: NodeMetrics,
    foreign: Foreign,
    connection: Arc<Connection>,
}

impl Served {
    /// The client has this certificate, verified by TLS.
    fn identify(&mut self, certificate: Option<&[u8]>) {
        self.caller = self.access.connected(self.from, certificate);
        self.connection.called_by(self.caller.share);
    }
}

impl Service<Request<Incoming>> for Served {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let has_arrived = Arc::new(AtomicBool::new(false));
        let connection = Arc::clone(&self.connection);
        connection.set_activity(Activity::Arriving);
        let caller = self.access.called(&self.caller, &self.standing, self.from, request.headers());
        connection.called_by(caller.share);
        let scraper = self.access.is_scraper(&caller, self.local);
        let hosts = &self.access.credentials().hosts;
        let allowed = hosts.check(self.local, scraper, request.method(), request.uri(), request.headers());
        let mut request = request.map(|body| Asked {
            body,
            has_arrived: Arc::clone(&has_arrived),
            connection: Arc::clone(&connection),
        });
        request.body().look();
        let proof = self.access.proof(&caller, &self.standing);
        if let Err(refusal) = &allowed
            && let Some(reason @ (HttpRefusal::Host | HttpRefusal::Origin)) = refusal.reason()
        {
            self.foreign.refused(&caller, reason, refusal);
        }
        let metrics = self.metrics.clone();
        request.extensions_mut().insert(caller.share);
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(self.access.serves());
        let answering = allowed.map(|()| self.router.call(request));
        Box::pin(async move {
            let response = match answering {
                Ok(answering) => tokio::select! {
                    biased;
                    response = answering => response?,
                    why = unexecuted(&proof, &connection) => outlived(why).into_response(),
                },
                Err(refusal) => refusal.into_response(),
            };
            if let Some(Code { reason: Some(reason), .. }) = response.extensions().get() {
                metrics.http_refused(*reason);
            }
            connection.set_activity(Activity::Answering);
            let (mut head, body) = response.into_parts();
            protect(&mut head.headers);
            if !has_arrived.load(Relaxed) || proof.connection.lost_for().is_some() {
                // The rest of the body occupies the place of the next request, or no further request
                // would be served.
                head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let ends = head.extensions.remove::<Endless>().map(|endless| (endless, Box::pin(proof.lost()) as Lost));
            Ok(Response::from_parts(head, Answer { body, connection, ends }))
        })
    }
}

/// The reason for which the proof of a request counts no more, once there is one.
type Lost = Pin<Box<dyn Future<Output = &'static str> + Send>>;

/// Resolves if the proof of a request counts no more before its body has arrived, and so before its
/// execution has started. Later it is executed to its end: the caller must learn its outcome.
async fn unexecuted(proof: &Proof, connection: &Connection) -> &'static str {
    if connection.is_arriving() {
        let why = proof.clone().lost().await;
        if connection.is_arriving() {
            return why;
        }
    }
    pending().await
}

/// A request's body; records its complete arrival.
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
    /// The handler does not read the rest.
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

/// An answer's body; records its progress to the client. One without an end of its own ends when the
/// proof of its caller counts no more.
struct Answer {
    body: Body,
    connection: Arc<Connection>,
    ends: Option<(Endless, Lost)>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some((Endless(last), lost)) = &mut self.ends
            && let Poll::Ready(why) = lost.as_mut().poll(cx)
        {
            let refusal = outlived(why);
            let last = last(&refusal).ok_or_else(|| axum::Error::new(BrokenOff(refusal)));
            (self.ends, self.body) = (None, Body::empty());
            return Poll::Ready(Some(last.map(Frame::data)));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The cause with which an answer breaks off that has no last piece.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0:?}")]
struct BrokenOff(Refusal);

impl Drop for Answer {
    fn drop(&mut self) {
        // hyper drops a body once its last frame is queued, however long that is.
        self.connection.queued();
    }
}

/// The error of a listener that cannot bind `address`.
pub(crate) fn unbindable(key: &str, address: SocketAddr, error: &io::Error) -> ConfigError {
    let problem = format!("cannot listen at {address}: {error}");
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "stop the other listener, or choose another port",
        io::ErrorKind::AddrNotAvailable => "use an address of this machine",
        io::ErrorKind::PermissionDenied => "choose a port of 1024 or more",
        _ => "choose another address",
    };
    ConfigError::new(key, problem, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use quorate::metrics::Metrics;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_long_answer_of_one_frame_is_being_sent_until_its_last_byte_has_left() {
        const BYTES: usize = 1 << 20;
        let answer = async || vec![b'v'; BYTES];
        let all = Connections::up_to(1);
        let from = IpAddr::from([127, 0, 0, 1]);
        let registration = all.register(Client::from(from)).await;
        let connection = Arc::clone(&registration.connection);
        let access = Access::unrestricted("demo");
        let service = Served {
            router: TowerToHyperService::new(Router::new().route("/", axum::routing::get(answer))),
            local: from,
            from,
            caller: access.connected(from, None),
            access: access.clone(),
            standing: Standing::default(),
            metrics: Metrics::new().node(1),
            foreign: Foreign(Arc::new(Mutex::new(Throttle::new(1, SAY_FOREIGN_AGAIN)))),
            connection: Arc::clone(&connection),
        };
        let (stop, stopping) = watch::channel(());
        let serving = Serving { service, registration, stopping, refusals: CertificateLines::default() };
        let (mut client, server) = tokio::io::duplex(1024);
        let serving = tokio::spawn(serving.run(server, None, access.credentials()));
        let can_go = || {
            all.make_room();
            connection.closed().now_or_never().is_some()
        };
        for _ in 0..2 {
            client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.expect("a head"));
            }
            let mut body = vec![0; BYTES];
            for piece in body.chunks_mut(BYTES / 64) {
                assert!(!can_go(), "its client is taking it");
                client.read_exact(piece).await.expect("whole");
            }
            assert!(body.iter().all(|byte| *byte == b'v'));
            while !can_go() {
                tokio::task::yield_now().await;
            }
        }
        drop((client, stop));
        serving.await.expect("it ends");
    }

    #[tokio::test(start_paused = true)]
    async fn heads_that_are_slow_long_or_no_http_are_cut_off_and_counted() {
        let (metrics, open) = (Metrics::new(), Arc::new(AtomicU64::new(0)));
        let listener = HttpListener::bind("http", ([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = listener.tcp.local_addr().expect("bound");
        let options = ListenerOptions {
            connections: ConnectionLimit::claim(8),
            access: Access::unrestricted("demo"),
            metrics: metrics.node(1),
            open: Arc::clone(&open),
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let serving = tokio::spawn(listener.serve(Router::new(), options, stopped, Duration::ZERO));
        let long = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'x'; 2 * BUFFER_BYTES_MAX]].concat();
        for (bytes, status) in [
            (&b""[..], ""),
            (b"GET / HTTP/1.1\r\nhost: localhost\r\n", ""),
            (b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", "HTTP/1.1 404 "),
            (&long, "HTTP/1.1 431 "),
            (b"what is this?\r\n\r\n", "HTTP/1.1 400 "),
        ] {
            let (mut client, began) = (TcpStream::connect(address).await.expect("connected"), Instant::now());
            client.write_all(bytes).await.expect("sent");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("the end");
            let shown = answer.escape_ascii();
            assert!(answer.starts_with(status.as_bytes()) && answer.is_empty() == status.is_empty(), "{shown}");
            assert!(began.elapsed() <= HEAD_LIMIT + Duration::from_secs(1), "{:?}: {shown}", began.elapsed());
        }
        while open.load(Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        drop(stop);
        serving.await.expect("it stops");
        let page = metrics.render();
        for (reason, count) in [("slow", 1), ("too_large", 1), ("bad_request", 1), ("replaced", 0), ("handshake", 0)] {
            let counted = format!("quorate_http_refused_total{{node=\"1\",reason=\"{reason}\"}} {count}\n");
            assert!(page.contains(&counted), "{reason}: {page}");
        }
    }
}
