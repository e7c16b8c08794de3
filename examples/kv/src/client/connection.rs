//! One endpoint and its connection: opened when needed, kept while it works.

use super::ClientError;
use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::{
    HeaderMap, Request, StatusCode, Uri,
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use quorate::transport::certificates::read_private;
use std::{error::Error, fmt, io, net::IpAddr, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, AlertDescription, ClientConfig, ConfigBuilder, RootCertStore,
        client::WantsClientCert,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

/// The maximum length of an answer in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The time limit for opening a connection; another endpoint may be faster.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The time limit for a connection to end that takes no request.
const END_LIMIT: Duration = Duration::from_millis(500);

/// The certificate authority that a client trusts for HTTPS, and the certificate that it shows.
#[derive(Clone, Default)]
pub struct Trust(Option<Tls>);

#[derive(Clone)]
struct Tls {
    roots: Arc<RootCertStore>,
    connector: TlsConnector,
    has_certificate: bool,
}

impl Trust {
    /// No authority: for plain HTTP.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Trust in servers whose certificates are signed by the authority with the PEM
    /// certificate in `file`.
    ///
    /// # Errors
    /// In one line, if the file has no certificate.
    pub fn authority(file: &Path) -> Result<Self, String> {
        let refuse = |error: &dyn fmt::Display| format!("{}: {error}; name a PEM certificate", file.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| refuse(&error))? {
            roots.add(certificate.map_err(|error| refuse(&error))?).map_err(|error| refuse(&error))?;
        }
        if roots.is_empty() {
            return Err(refuse(&"it has no certificate"));
        }
        let roots = Arc::new(roots);
        let builder = trusting(&roots).map_err(|error| refuse(&error))?;
        let connector = TlsConnector::from(Arc::new(builder.with_no_client_auth()));
        Ok(Self(Some(Tls { roots, connector, has_certificate: false })))
    }

    /// The same trust, and the certificate in `cert`, which a server may ask for, with its private
    /// key in `key`; both PEM.
    ///
    /// # Errors
    /// In one line, if there is no authority, the files cannot be read or do not match, or other
    /// users can read the key.
    pub fn with_certificate(self, cert: &Path, key: &Path) -> Result<Self, String> {
        let Some(Tls { roots, .. }) = self.0 else {
            return Err("a certificate is for https, which needs an authority: add --ca FILE, or QUORATE_CA".to_owned());
        };
        let of_cert = |error: &dyn fmt::Display| format!("{}: {error}; name a PEM certificate", cert.display());
        let of_key = |error: &dyn fmt::Display| format!("{}: {error}; name a PEM private key", key.display());
        let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| of_cert(&error))?;
        let pem = read_private(key).map_err(|problem| of_key(&problem))?;
        let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| of_key(&error))?;
        let builder = trusting(&roots).map_err(|error| error.to_string())?;
        let config = builder.with_client_auth_cert(chain, private).map_err(|error| {
            let (cert, key) = (cert.display(), key.display());
            format!("{cert} and {key} do not match: {error}; name a certificate and its private key")
        })?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self(Some(Tls { roots, connector, has_certificate: true })))
    }

    fn has_certificate(&self) -> bool {
        self.0.as_ref().is_some_and(|tls| tls.has_certificate)
    }
}

fn trusting(roots: &Arc<RootCertStore>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(Arc::clone(roots)))
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trust").field(&self.0.is_some()).finish()
    }
}

/// The address of a server.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: String,
    authority: String,
    address: String,
    /// Whether other machines can read its requests: without TLS, and not at a loopback address.
    is_exposed: bool,
    tls: Option<(Trust, ServerName<'static>)>,
    sender: Option<Sender>,
}

/// A server's complete answer.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) endpoint: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether the request was a change.
    pub(super) is_change: bool,
}

/// A server's answer, with a body that is still arriving.
#[derive(Debug)]
pub struct Download {
    endpoint: String,
    status: StatusCode,
    body: Incoming,
    limit: Duration,
    /// Dropping the sender would close the connection.
    _sender: Sender,
}

/// The sending side of a connection.
type Sender = http1::SendRequest<Full<Bytes>>;

/// A new connection.
struct Opened {
    sender: Sender,
    /// The alert with which the server has ended the connection.
    ended: JoinHandle<Option<AlertDescription>>,
}

impl Download {
    /// The URL of the endpoint that answers.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The bytes that are still to come, if the server announced the length.
    #[must_use]
    pub fn bytes_left(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece; `None` after the last one. An answer that is shorter than announced
    /// is an error.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], if the connection breaks, or no piece arrives in time.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let lost = |cause| ClientError::Unreachable { endpoint: self.endpoint.clone(), cause };
        loop {
            let frame = timeout_at(Instant::now() + self.limit, self.body.frame()).await;
            let frame = frame.map_err(|_| lost(format!("no data arrived for {:?}", self.limit)))?;
            let Some(frame) =
                frame.transpose().map_err(|error| lost(format!("the answer broke off: {}", whole(&error))))?
            else {
                return Ok(None);
            };
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
    }

    /// A refusal as a complete answer; otherwise the download itself.
    pub(super) async fn refusal(self) -> Result<Self, Exchange> {
        if self.status.is_success() {
            return Ok(self);
        }
        let Self { endpoint, status, body, limit, .. } = self;
        let read = timeout_at(Instant::now() + limit, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        // Without a body, the refusal is known only by its status.
        let body = read.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
        Err(Exchange { endpoint, status, headers: HeaderMap::new(), body, is_change: false })
    }
}

/// The failure of a request without an answer.
#[derive(Debug)]
pub(super) struct NoAnswer {
    delivery: Delivery,
    /// The cause as text.
    cause: String,
    /// The alert of TLS that is the cause.
    alert: Option<AlertDescription>,
}

/// The progress of a request without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Delivery {
    /// The server may have received the request.
    Sent,
    /// The server has not received it.
    NotSent,
    /// The server has not received it, and a retry at this endpoint cannot succeed.
    Mismatch,
}

impl NoAnswer {
    /// The failure as an error of a change or of a read.
    pub(super) fn into_error(self, endpoint: String, is_change: bool) -> ClientError {
        let cause = self.cause;
        match self.delivery {
            Delivery::Sent if is_change => ClientError::OutcomeUnknown { endpoint, cause },
            Delivery::Sent | Delivery::NotSent => ClientError::Unreachable { endpoint, cause },
            Delivery::Mismatch => ClientError::Mismatch { endpoint, cause },
        }
    }

    fn sent(cause: String) -> Self {
        Self { delivery: Delivery::Sent, cause, alert: None }
    }

    fn not_sent(cause: String) -> Self {
        Self { delivery: Delivery::NotSent, cause, alert: None }
    }

    /// A connection that ended before the request was sent.
    fn unsent(error: &hyper::Error) -> Self {
        Self { alert: alert_in(error), ..Self::not_sent(whole(error)) }
    }

    /// A connection that ended after the request was sent.
    fn broken(error: &hyper::Error) -> Self {
        Self { alert: alert_in(error), ..Self::sent(broken(error)) }
    }

    /// The failure of the first request on a connection. With TLS 1.3 the server checks the client's
    /// certificate while the request is on its way: if it refuses the certificate, it has not read
    /// the request.
    async fn of_first(self, ended: JoinHandle<Option<AlertDescription>>) -> Self {
        let alert = match self.alert {
            None if self.delivery == Delivery::NotSent => {
                timeout(END_LIMIT, ended).await.ok().and_then(Result::ok).flatten()
            }
            alert => alert,
        };
        alert.and_then(refused_certificate).unwrap_or(self)
    }
}

impl Endpoint {
    /// HOST:PORT, at which it is dialled.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn parse(url: &str, trust: &Trust) -> Result<Self, String> {
        let refuse = |why: &str| format!("endpoint {}: {why}", url.escape_debug());
        let uri: Uri = url.parse().map_err(|_| refuse("is not a URL; write http://HOST:PORT or https://HOST:PORT"))?;
        let authority =
            uri.authority().ok_or_else(|| refuse("has no host; write http://HOST:PORT or https://HOST:PORT"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refuse("has a path or a query; leave it out"));
        }
        if authority.as_str().contains('@') {
            return Err(refuse("has a user name, which is not supported; leave it out"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_local = is_loopback(&host);
        let (port, tls) = match uri.scheme_str() {
            // Without this, the caller would be anonymous, or an operator on loopback, unnoticed.
            Some("http") if trust.has_certificate() => {
                let remedy = "write https://HOST:PORT, or leave out --cert and --key, or QUORATE_CERT and QUORATE_KEY";
                return Err(refuse(&format!("is http, where a certificate is never shown; {remedy}")));
            }
            Some("http") => (80, None),
            Some("https") if trust.0.is_none() => {
                let remedy = "give the certificate of the authority to trust with --ca FILE, or QUORATE_CA";
                return Err(refuse(&format!("is https; {remedy}")));
            }
            Some("https") => (
                443,
                Some((trust.clone(), ServerName::try_from(host).map_err(|_| refuse("has no host name; correct it"))?)),
            ),
            _ => return Err(refuse("is neither http nor https; write http://HOST:PORT or https://HOST:PORT")),
        };
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(port));
        let url = url.trim_end_matches('/').to_owned();
        let is_exposed = tls.is_none() && !is_local;
        Ok(Self { url, authority: authority.to_string(), address, is_exposed, tls, sender: None })
    }

    pub(super) fn is_exposed(&self) -> bool {
        self.is_exposed
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends `request` and reads the complete answer, within `limit`.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Exchange, NoAnswer> {
        let deadline = Instant::now() + limit;
        let mut request = request;
        if let Some(sender) = self.sender.take() {
            match self.send(sender, request, deadline).await? {
                Sent::Answered(exchange) => return Ok(exchange),
                // The server closed the kept connection before the request was sent.
                Sent::NotAtAll(unsent, _) => request = unsent,
            }
        }
        let Opened { sender, ended } = self.connect(deadline).await?;
        let failed = match self.send(sender, request, deadline).await {
            Ok(Sent::Answered(exchange)) => return Ok(exchange),
            Ok(Sent::NotAtAll(_, failed)) => failed,
            Err(failed) => failed,
        };
        Err(failed.of_first(ended).await)
    }

    /// Sends `request` on a new connection, and returns the answer's body as it arrives. The head
    /// may take up to `head_limit`, because the server prepares the data first, each piece of the
    /// body up to `limit`.
    pub(super) async fn download(
        &self,
        request: Request<Full<Bytes>>,
        head_limit: Duration,
        limit: Duration,
    ) -> Result<Download, NoAnswer> {
        let deadline = Instant::now() + head_limit;
        let Opened { mut sender, ended } = self.connect(deadline).await?;
        let answered = timeout_at(deadline, sender.send_request(request)).await;
        let answered = answered.map_err(|_| NoAnswer::sent("it did not answer in time".to_owned()))?;
        let (head, body) = match answered {
            Ok(answered) => answered.into_parts(),
            Err(error) => {
                let failed = if error.is_canceled() { NoAnswer::unsent(&error) } else { NoAnswer::broken(&error) };
                return Err(failed.of_first(ended).await);
            }
        };
        Ok(Download { endpoint: self.url.clone(), status: head.status, body, limit, _sender: sender })
    }

    async fn send(
        &mut self,
        mut sender: Sender,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Sent, NoAnswer> {
        let late = |_| NoAnswer::sent("it did not answer in time".to_owned());
        match timeout_at(deadline, sender.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ok(Sent::NotAtAll(request, NoAnswer::unsent(&error))),
            Err(_) => return Err(NoAnswer::not_sent("the connection was busy for too long".to_owned())),
        }
        let response = match timeout_at(deadline, sender.try_send_request(request)).await.map_err(late)? {
            Ok(response) => response,
            Err(mut error) => match error.take_message() {
                Some(request) => return Ok(Sent::NotAtAll(request, NoAnswer::unsent(error.error()))),
                None => return Err(NoAnswer::broken(error.error())),
            },
        };
        let (head, body) = response.into_parts();
        let body = timeout_at(deadline, Limited::new(body, ANSWER_BYTES_MAX).collect()).await.map_err(late)?;
        let body = body.map_err(|error| NoAnswer::sent(format!("the answer broke off: {error}")))?.to_bytes();
        self.sender = Some(sender);
        let (endpoint, status, headers) = (self.url.clone(), head.status, head.headers);
        Ok(Sent::Answered(Exchange { endpoint, status, headers, body, is_change: false }))
    }

    async fn connect(&self, deadline: Instant) -> Result<Opened, NoAnswer> {
        let deadline = deadline.min(Instant::now() + CONNECT_LIMIT);
        let late = |_| NoAnswer::not_sent(format!("no connection within {CONNECT_LIMIT:?}"));
        let opened = async {
            let refused = |error: io::Error| NoAnswer::not_sent(error.to_string());
            let stream = TcpStream::connect(&self.address).await.map_err(refused)?;
            let _ = stream.set_nodelay(true);
            match &self.tls {
                Some((Trust(Some(tls)), name)) => {
                    begin(tls.connector.connect(name.clone(), stream).await.map_err(insecure)?).await
                }
                _ => begin(stream).await,
            }
        };
        timeout_at(deadline, opened).await.map_err(late)?
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Whether a host is certainly this machine. Of all names only `localhost` is, by RFC 6761.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

enum Sent {
    Answered(Exchange),
    NotAtAll(Request<Full<Bytes>>, NoAnswer),
}

async fn begin(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Opened, NoAnswer> {
    let begun = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = begun.map_err(|error| NoAnswer::not_sent(whole(&error)))?;
    // The task ends when its sender is dropped; its error reaches the caller that waits
    // for an answer.
    let ended = tokio::spawn(async move { connection.await.err().and_then(|error| alert_in(&error)) });
    Ok(Opened { sender, ended })
}

/// The alert of TLS that is among the causes of an error.
fn alert_in(error: &(dyn Error + 'static)) -> Option<AlertDescription> {
    let mut causes = std::iter::successors(Some(error), |cause| (*cause).source());
    causes.find_map(|cause| {
        // The cause of an I/O error leaves out the error inside it.
        let inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
        match inner.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
            _ => None,
        }
    })
}

/// The failure that an alert stands for, if it is about the client's certificate.
fn refused_certificate(alert: AlertDescription) -> Option<NoAnswer> {
    let problem = match alert {
        AlertDescription::CertificateRequired => "needs a client certificate",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::DecryptError => "does not accept this client certificate",
        _ => return None,
    };
    let cause = format!("the node {problem} ({alert:?}); give one of this cluster with --cert and --key");
    Some(NoAnswer { delivery: Delivery::Mismatch, cause, alert: Some(alert) })
}

/// The error of a TLS handshake: a wrong kind of endpoint, an untrusted one, or
/// a broken connection.
fn insecure(error: io::Error) -> NoAnswer {
    let mismatch = |cause: String| NoAnswer { delivery: Delivery::Mismatch, cause, alert: None };
    if let Some(refused) = alert_in(&error).and_then(refused_certificate) {
        return refused;
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => {
            mismatch("this port does not speak https; use http:// if it is a quorate-kv server".to_owned())
        }
        Some(rustls::Error::InvalidCertificate(_)) => mismatch(format!(
            "{error}; give this cluster's authority with --ca, and a host name from the node's certificate"
        )),
        _ => NoAnswer::not_sent(error.to_string()),
    }
}

fn broken(error: &hyper::Error) -> String {
    let remedy = if error.is_parse() { "; if this port speaks https, use https:// and --ca" } else { "" };
    format!("the connection broke: {}{remedy}", whole(error))
}

/// An error and its causes, in one line.
fn whole(error: &dyn Error) -> String {
    std::iter::successors(error.source(), |cause| (*cause).source())
        .fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
