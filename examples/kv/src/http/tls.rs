//! The certificate of the HTTP server, its names, and the verification of clients' certificates.

use crate::config::{ConfigError, HttpTls};
use quorate::transport::certificates::{is_host, read_private};
use std::{net::IpAddr, path::Path, sync::Arc};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, InconsistentKeys, RootCertStore, ServerConfig,
        crypto::{
            CryptoProvider,
            ring::{self, sign::any_supported_type},
        },
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
        sign::{CertifiedKey, SingleCertAndKey},
    },
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};
use zeroize::Zeroizing;

/// Loads the certificate and key of the HTTP server, and the authority of its clients, if there is
/// one. A client without a certificate is refused by TLS itself, unless `may_lack_certificate`.
///
/// # Errors
/// If they cannot be read, do not match, or other users can read the key; the error names the
/// key under `http_tls`.
pub fn tls_acceptor(tls: &HttpTls, may_lack_certificate: bool) -> Result<TlsAcceptor, ConfigError> {
    let (cert, key) = (tls.cert.display(), tls.key.display());
    let chain =
        CertificateDer::pem_file_iter(&tls.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| {
            ConfigError::new("http_tls.cert", format_args!("{cert}: {error}"), "name a PEM certificate")
        })?;
    let unusable = |error: &dyn std::fmt::Display| {
        ConfigError::new("http_tls.key", format_args!("{key}: {error}"), "name a PEM private key")
    };
    // Zeroed when they are dropped. TLS gets its own form of the key, and no copy of these bytes.
    let pem = read_private(&tls.key).map_err(|problem| unusable(&problem))?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map(Zeroizing::new).map_err(|error| unusable(&error))?;
    let unfit = |error: rustls::Error| {
        let problem = format!("{cert} and {key} do not match: {error}");
        ConfigError::new("http_tls", problem, "name a certificate and its private key")
    };
    let certified = any_supported_type(&private).map(|private| CertifiedKey::new(chain, private)).map_err(unfit)?;
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(error) => return Err(unfit(error)),
    }
    let provider = Arc::new(ring::default_provider());
    let clients = match &tls.client_ca {
        Some(ca) => verifier(ca, &provider, may_lack_certificate)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    // A resumed session would keep the certificate of its first connection, without a check of its
    // dates or of the authority.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn verifier(
    ca: &Path,
    provider: &Arc<CryptoProvider>,
    may_lack_certificate: bool,
) -> Result<Arc<dyn ClientCertVerifier>, ConfigError> {
    let refuse = |error: &dyn std::fmt::Display| {
        let problem = format!("{}: {error}", ca.display());
        ConfigError::new("http_tls.client_ca", problem, "name the PEM certificate of the clients' authority")
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| refuse(&error))? {
        roots.add(certificate.map_err(|error| refuse(&error))?).map_err(|error| refuse(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = if may_lack_certificate { verifier.allow_unauthenticated() } else { verifier };
    verifier.build().map_err(|error| refuse(&error))
}

/// The host names and addresses in the certificate of the HTTP server. A name such as `*`, which the
/// check of `Host` would take for every name, is left out.
///
/// # Errors
/// If it cannot be read; the error names the key `http_tls.cert`.
pub fn names_in(tls: &HttpTls) -> Result<Vec<String>, ConfigError> {
    let cert = tls.cert.display();
    let refuse = |error: &dyn std::fmt::Display| {
        ConfigError::new("http_tls.cert", format_args!("{cert}: {error}"), "name a PEM certificate")
    };
    let first = CertificateDer::from_pem_file(&tls.cert).map_err(|error| refuse(&error))?;
    let (_, parsed) = X509Certificate::from_der(&first).map_err(|error| refuse(&error))?;
    let names = parsed.subject_alternative_name().map_err(|error| refuse(&error))?;
    let names = names.map(|names| &names.value.general_names[..]).unwrap_or_default();
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => is_host(name).then(|| (*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            },
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate::transport::certificates::{Authority, Issued};
    use std::{fs, os::unix::fs::PermissionsExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::{
        TlsConnector,
        rustls::{ClientConfig, HandshakeKind, pki_types::ServerName},
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
        let acceptor = tls_acceptor(&HttpTls { cert, key, client_ca: Some(ca.clone()) }, false).expect("valid");

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
