//! One endpoint and its connection: opened when needed, kept while it works.

use super::ClientError;
use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::{HeaderMap, Request, StatusCode, Uri, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{error::Error, fmt, io, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// The maximum length of an answer in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The time limit for opening a connection; another endpoint may be faster.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// The certificate authority that a client trusts for HTTPS.
#[derive(Clone, Default)]
pub struct Trust(Option<TlsConnector>);

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
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Some(TlsConnector::from(Arc::new(config)))))
    }
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
    tls: Option<(Trust, ServerName<'static>)>,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
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
    _sender: http1::SendRequest<Full<Bytes>>,
}

impl Download {
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
        Self { delivery: Delivery::Sent, cause }
    }

    fn not_sent(cause: String) -> Self {
        Self { delivery: Delivery::NotSent, cause }
    }
}

impl Endpoint {
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
        let (port, tls) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") if trust.0.is_none() => {
                let remedy = "give the certificate of the authority to trust with --ca FILE, or QUORATE_CA";
                return Err(refuse(&format!("is https; {remedy}")));
            }
            Some("https") => {
                let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
                (
                    443,
                    Some((
                        trust.clone(),
                        ServerName::try_from(host).map_err(|_| refuse("has no host name; correct it"))?,
                    )),
                )
            }
            _ => return Err(refuse("is neither http nor https; write http://HOST:PORT or https://HOST:PORT")),
        };
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(port));
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { url, authority: authority.to_string(), address, tls, sender: None })
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
        let sender = self.connect(deadline).await?;
        match self.send(sender, request, deadline).await? {
            Sent::Answered(exchange) => Ok(exchange),
            Sent::NotAtAll(_, cause) => Err(NoAnswer::not_sent(cause)),
        }
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
        let mut sender = self.connect(deadline).await?;
        let answered = timeout_at(deadline, sender.send_request(request)).await;
        let answered = answered.map_err(|_| NoAnswer::sent("it did not answer in time".to_owned()))?;
        let (head, body) = answered.map_err(|error| NoAnswer::sent(broken(&error)))?.into_parts();
        Ok(Download { endpoint: self.url.clone(), status: head.status, body, limit, _sender: sender })
    }

    async fn send(
        &mut self,
        mut sender: http1::SendRequest<Full<Bytes>>,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Sent, NoAnswer> {
        let late = |_| NoAnswer::sent("it did not answer in time".to_owned());
        match timeout_at(deadline, sender.ready()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ok(Sent::NotAtAll(request, whole(&error))),
            Err(_) => return Err(NoAnswer::not_sent("the connection was busy for too long".to_owned())),
        }
        let response = match timeout_at(deadline, sender.try_send_request(request)).await.map_err(late)? {
            Ok(response) => response,
            Err(mut error) => match error.take_message() {
                Some(request) => return Ok(Sent::NotAtAll(request, whole(error.error()))),
                None => return Err(NoAnswer::sent(broken(error.error()))),
            },
        };
        let (head, body) = response.into_parts();
        let body = timeout_at(deadline, Limited::new(body, ANSWER_BYTES_MAX).collect()).await.map_err(late)?;
        let body = body.map_err(|error| NoAnswer::sent(format!("the answer broke off: {error}")))?.to_bytes();
        self.sender = Some(sender);
        let (endpoint, status, headers) = (self.url.clone(), head.status, head.headers);
        Ok(Sent::Answered(Exchange { endpoint, status, headers, body, is_change: false }))
    }

    async fn connect(&self, deadline: Instant) -> Result<http1::SendRequest<Full<Bytes>>, NoAnswer> {
        let deadline = deadline.min(Instant::now() + CONNECT_LIMIT);
        let late = |_| NoAnswer::not_sent(format!("no connection within {CONNECT_LIMIT:?}"));
        let opened = async {
            let refused = |error: io::Error| NoAnswer::not_sent(error.to_string());
            let stream = TcpStream::connect(&self.address).await.map_err(refused)?;
            let _ = stream.set_nodelay(true);
            match &self.tls {
                Some((Trust(Some(tls)), name)) => {
                    begin(tls.connect(name.clone(), stream).await.map_err(insecure)?).await
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

enum Sent {
    Answered(Exchange),
    NotAtAll(Request<Full<Bytes>>, String),
}

async fn begin(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<http1::SendRequest<Full<Bytes>>, NoAnswer> {
    let begun = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = begun.map_err(|error| NoAnswer::not_sent(whole(&error)))?;
    // The task ends when its sender is dropped; its error reaches the caller that waits
    // for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

/// The error of a TLS handshake: a wrong kind of endpoint, an untrusted one, or
/// a broken connection.
fn insecure(error: io::Error) -> NoAnswer {
    let mismatch = |cause: String| NoAnswer { delivery: Delivery::Mismatch, cause };
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
