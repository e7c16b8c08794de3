//! The certificate of the HTTP server, its names and dates, and the acceptors of its listeners.

use super::clients::{Clients, Shown, at};
use crate::config::{Config, ConfigError, HttpTls};
use humantime::format_rfc3339_seconds;
use quorate::transport::certificates::{ListDates, is_host, read_private};
use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, InconsistentKeys, ServerConfig,
        crypto::{
            CryptoProvider,
            ring::{self, sign::any_supported_type},
        },
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{NoServerSessionStorage, WebPkiClientVerifier},
        sign::{CertifiedKey, SingleCertAndKey},
    },
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};
use zeroize::Zeroizing;

/// The certificate and key of the HTTP server, and the verification of its clients, as loaded from
/// their files at one time.
pub struct Secured {
    /// Of the listener `http`.
    pub(super) clients: TlsAcceptor,
    /// Of the listener `http_admin`, which never requires a certificate.
    pub(super) admin: TlsAcceptor,
    callers: Option<Clients>,
    /// The host names and addresses in the certificate.
    pub(crate) names: Vec<String>,
    begins: SystemTime,
    ends: SystemTime,
}

impl Secured {
    /// Loads the certificate and key of the HTTP server, and the authorities and revocation lists of
    /// its clients, if there are any.
    ///
    /// # Errors
    /// If they cannot be read, do not match, or other users can read the key; the error names the
    /// key under `http_tls`.
    pub fn load(config: &Config, tls: &HttpTls) -> Result<Self, ConfigError> {
        let cert = tls.cert.display();
        let of_cert = |error: &dyn fmt::Display| {
            ConfigError::new("http_tls.cert", format_args!("{cert}: {error}"), "name a PEM certificate")
        };
        let chain = CertificateDer::pem_file_iter(&tls.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| of_cert(&error))?;
        let first = chain.first().ok_or_else(|| of_cert(&"it has no certificate"))?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|error| of_cert(&error))?;
        let names = names_in(&parsed).map_err(|error| of_cert(&error))?;
        let [begins, ends] =
            [parsed.validity().not_before, parsed.validity().not_after].map(|time| at(time.timestamp()));

        let provider = Arc::new(ring::default_provider());
        let certified = certified(tls, chain)?;
        let crl = tls.client_crl.as_deref();
        let callers = tls.client_ca.as_deref().map(|ca| Clients::load(ca, crl, Arc::clone(&provider))).transpose()?;
        let acceptor =
            |may_lack| acceptor(&provider, &certified, callers.as_ref(), may_lack).map_err(|e| unfit(tls, &e));
        let (clients, admin) = (acceptor(config.may_lack_certificate())?, acceptor(true)?);
        Ok(Self { clients, admin, callers, names, begins, ends })
    }

    /// Checks that a connection with this certificate may stay open.
    ///
    /// # Errors
    /// The reason, as a sentence without its end.
    pub(super) fn check(&self, shown: &Shown) -> Result<(), &'static str> {
        self.callers.as_ref().map_or(Ok(()), |callers| callers.check(shown))
    }

    /// The last second of the server's certificate.
    #[must_use]
    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    /// The dates of that of the clients' revocation lists which ends first.
    #[must_use]
    pub fn list(&self) -> Option<ListDates> {
        self.callers.as_ref().and_then(Clients::list)
    }

    /// Checks the dates of the certificate and of the revocation lists by the clock of this machine.
    ///
    /// # Errors
    /// The first that is not in its time, with its key.
    pub fn check_dates(&self, tls: &HttpTls, now: SystemTime) -> Result<(), ConfigError> {
        let show = format_rfc3339_seconds;
        let cert = tls.cert.display();
        if now > self.ends {
            let problem = format!("{cert}: it expired at {}", show(self.ends));
            return Err(ConfigError::new("http_tls.cert", problem, "renew it, or correct the clock of this machine"));
        }
        if now < self.begins {
            let problem = format!("{cert}: it begins only at {}", show(self.begins));
            return Err(ConfigError::new("http_tls.cert", problem, "correct the clock of this machine"));
        }
        let list = self.list().map(|list| SystemTime::UNIX_EPOCH + Duration::from_secs(list.ends));
        match (list, &tls.client_crl) {
            (Some(end), Some(crl)) if now >= end => Err(ConfigError::new(
                "http_tls.client_crl",
                format_args!("{}: a list ended at {}, and no client can connect anew", crl.display(), show(end)),
                "put a newer list into its place, or correct the clock of this machine",
            )),
            _ => Ok(()),
        }
    }
}

/// Shows no key.
impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("names", &self.names).finish_non_exhaustive()
    }
}

fn certified(tls: &HttpTls, chain: Vec<CertificateDer<'static>>) -> Result<Arc<SingleCertAndKey>, ConfigError> {
    let key = tls.key.display();
    let unusable = |error: &dyn fmt::Display| {
        ConfigError::new("http_tls.key", format_args!("{key}: {error}"), "name a PEM private key")
    };
    // Zeroed when they are dropped. TLS gets its own form of the key, and no copy of these bytes.
    let pem = read_private(&tls.key).map_err(|problem| unusable(&problem))?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map(Zeroizing::new).map_err(|error| unusable(&error))?;
    let certified = any_supported_type(&private).map(|private| CertifiedKey::new(chain, private));
    let certified = certified.map_err(|error| unfit(tls, &error))?;
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(error) => return Err(unfit(tls, &error)),
    }
    Ok(Arc::new(certified.into()))
}

fn unfit(tls: &HttpTls, error: &rustls::Error) -> ConfigError {
    let problem = format!("{} and {} do not match: {error}", tls.cert.display(), tls.key.display());
    ConfigError::new("http_tls", problem, "name a certificate and its private key")
}

/// The acceptor of a listener. A client without a certificate is refused by TLS itself, unless
/// `may_lack_certificate`.
fn acceptor(
    provider: &Arc<CryptoProvider>,
    certified: &Arc<SingleCertAndKey>,
    callers: Option<&Clients>,
    may_lack_certificate: bool,
) -> Result<TlsAcceptor, rustls::Error> {
    let clients = match callers {
        Some(callers) => callers.of_handshakes(may_lack_certificate),
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::clone(certified) as _);
    // A resumed session would keep the certificate of its first connection, without a check of its
    // dates or of the authority.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The host names and addresses in the certificate of the HTTP server. A name such as `*`, which the
/// check of `Host` would take for every name, is left out.
fn names_in(certificate: &X509Certificate<'_>) -> Result<Vec<String>, impl fmt::Display> {
    let names = certificate.subject_alternative_name()?;
    let names = names.map(|names| &names.value.general_names[..]).unwrap_or_default();
    Ok::<_, x509_parser::error::X509Error>(
        names
            .iter()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => is_host(name).then(|| (*name).to_owned()),
                GeneralName::IPAddress(bytes) => match bytes.len() {
                    4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                    _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                },
                _ => None,
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate::transport::certificates::{Authority, Issued};
    use std::{fs, os::unix::fs::PermissionsExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{
        TlsConnector,
        rustls::{ClientConfig, HandshakeKind, RootCertStore, pki_types::ServerName},
    };

    /// The verifier sees the certificate of each connection, as between nodes.
    #[tokio::test]
    async fn a_client_s_certificate_is_verified_on_each_of_its_connections() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::write(&file, text).expect("written");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("changed");
            file
        };
        let authority = Authority::create("demo").expect("made");
        let node = authority.issue_node(quorate::NodeId(1), &["127.0.0.1".to_owned()]).expect("made");
        let (cert, key) = (write("cert", &node.certificate_pem), write("key", &node.key_pem));
        let ca = write("ca", authority.certificate_pem());
        let tls = HttpTls { cert, key, client_ca: Some(ca.clone()), client_crl: None };
        let acceptor = Secured::load(&crate::config::example(), &tls).expect("valid").clients;

        let Issued { certificate_pem, key_pem, .. } = &authority.issue_client("billing").expect("made");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&ca).expect("PEM")).expect("an authority");
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate_pem.as_bytes()).expect("PEM")],
                PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).expect("PEM"),
            )
            .expect("a pair");
        // It keeps the sessions that the server offers.
        let connector = TlsConnector::from(Arc::new(client));
        for connection in 0..3 {
            let (near, far) = tokio::io::duplex(64 << 10);
            let name = ServerName::try_from("127.0.0.1").expect("a name");
            let (asking, answering) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
            let (mut asking, mut answering) = (asking.expect("secured"), answering.expect("secured"));
            // An offer to resume comes before the first answer.
            answering.write_all(b"x").await.expect("sent");
            answering.flush().await.expect("sent");
            asking.read_u8().await.expect("an answer");
            let (_, session) = answering.get_ref();
            assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full), "{connection}");
        }
    }
}
