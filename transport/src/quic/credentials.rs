//! Credentials of a node: authority, certificate and key, read once from their files and checked
//! before a socket is opened.

use crate::{
    certificates::read_private,
    identity::{Role, check_cluster, identity_of, node_name},
    network::{Cause, NetworkError},
};
use quorate_raft::NodeId;
use ring::{hkdf, hmac};
use rustls::{
    InconsistentKeys, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// The credentials with which a node proves its identity.
pub(super) struct Credentials {
    pub(super) roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    /// The certificate and its key, for both sides of a handshake. The key's bytes are kept nowhere
    /// else.
    pub(super) certified: Arc<SingleCertAndKey>,
    /// The key of stateless resets, which is derived from the private key.
    pub(super) reset_key: hmac::Key,
    /// The node that the certificate names.
    node: NodeId,
    /// The cluster that it names.
    cluster: String,
    /// The certificate's end, in seconds since 1970.
    pub(super) expires_unix_seconds: u64,
    provider: Arc<CryptoProvider>,
    certificate_path: PathBuf,
    authority_path: PathBuf,
}

impl Credentials {
    /// Reads and checks the files, down to whether certificate and key belong together.
    pub(super) fn load(
        authority: &Path,
        certificate: &Path,
        key: &Path,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, NetworkError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(authority)? {
            roots.add(root).map_err(|error| {
                let problem = format!("not a usable authority ({error}): give the cluster's ca.pem");
                failed_by(authority, problem, error)
            })?;
        }
        let chain = certificates(certificate)?;
        // Zeroed when they are dropped. TLS gets its own form of the key, and no copy of these bytes.
        let key_pem = read_private(key).map_err(|problem| failed(key, problem))?;
        let key_der = PrivateKeyDer::from_pem_slice(&key_pem)
            .map(Zeroizing::new)
            .map_err(|_| failed(key, "holds no private key in PEM: give the key made with the certificate"))?;
        let certified = certified(chain.clone(), &key_der).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let of = certificate.display();
                failed(key, format_args!("is not the key of {of}: give the one made with it, or complete its renewal"))
            }
            other => {
                let problem = format!("can't be used ({other}): make a new certificate and key");
                failed_by(key, problem, other)
            }
        })?;
        let identity = identity_of(&chain[0]).map_err(|what| {
            failed(certificate, format_args!("{what}: give a node's certificate, made by `quorate-kv certs`"))
        })?;
        let Role::Node(node) = identity.role else {
            let problem = format_args!("is of {identity}, which is no node: give a node's certificate");
            return Err(failed(certificate, problem));
        };
        let expires_unix_seconds = check_validity(certificate, &chain[0])?;
        let (certificate_path, authority_path) = (certificate.to_owned(), authority.to_owned());
        let roots = Arc::new(roots);
        Ok(Self {
            roots,
            chain,
            certified: Arc::new(certified.into()),
            reset_key: reset_key(key_der.secret_der())?,
            node,
            cluster: identity.cluster,
            expires_unix_seconds,
            provider,
            certificate_path,
            authority_path,
        })
    }

    /// Checks that they are those of `node` in `cluster`, and that peers which trust the same
    /// authority will accept them.
    pub(super) fn check(&self, cluster: &str, node: NodeId) -> Result<(), NetworkError> {
        check_cluster(cluster).map_err(NetworkError::Identity)?;
        let (certified, of) = (self.node, self.cluster.as_str());
        if (certified, of) != (node, cluster) {
            return Err(failed(
                &self.certificate_path,
                format_args!(
                    "is of node {certified} in cluster {of:?}, but this is node {node} in {cluster:?}: give its own"
                ),
            ));
        }
        // With the verifier that peers use: a certificate that this node would refuse is of no use.
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| failed(&self.authority_path, format_args!("not a usable authority: {error}")))?;
        let name = ServerName::try_from(node_name(node, cluster))
            .map_err(|error| NetworkError::Identity(error.to_string()))?;
        verifier.verify_server_cert(&self.chain[0], &self.chain[1..], &name, &[], UnixTime::now()).map_err(
            |error| {
                let authority = self.authority_path.display();
                let problem = format!("peers that trust {authority} will refuse it ({error}): give one that it issued");
                failed_by(&self.certificate_path, problem, error)
            },
        )?;
        Ok(())
    }
}

/// As [`CertifiedKey::from_der`], which takes the key by value and does not zero it.
fn certified(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Result<CertifiedKey, rustls::Error> {
    let certified = CertifiedKey::new(chain, any_supported_type(key)?);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(error) => Err(error),
    }
}

/// The key of stateless resets: derived from the private key, so that the node that comes up again
/// after a crash can still tell its peers that their connections are gone.
fn reset_key(private_key: &[u8]) -> Result<hmac::Key, NetworkError> {
    let mut reset_key = Zeroizing::new([0u8; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"quorate")
        .extract(private_key)
        .expand(&[b"stateless reset"], hkdf::HKDF_SHA256)
        .and_then(|key| key.fill(&mut *reset_key))
        .map_err(|_| NetworkError::Tls { source: "no key for stateless resets can be derived".into() })?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &*reset_key))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetworkError> {
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(failed(path, "holds no certificate in PEM: give one made by `quorate-kv certs`")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, NetworkError> {
    fs::read(path)
        .map_err(|error| failed_by(path, format!("can't be read ({error}): check the path and its permissions"), error))
}

fn check_validity(path: &Path, certificate: &[u8]) -> Result<u64, NetworkError> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|_| failed(path, "can't be parsed: make a new one"))?;
    let validity = parsed.validity();
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    if now > validity.not_after.timestamp() {
        return Err(failed(path, format_args!("expired at {}: issue a new one", validity.not_after)));
    }
    if now < validity.not_before.timestamp() {
        return Err(failed(path, format_args!("begins only at {}: check this machine's clock", validity.not_before)));
    }
    Ok(u64::try_from(validity.not_after.timestamp()).unwrap_or(0))
}

fn failed(path: &Path, what: impl std::fmt::Display) -> NetworkError {
    NetworkError::File { path: path.to_owned(), problem: what.to_string(), source: None }
}

fn failed_by(path: &Path, what: impl std::fmt::Display, cause: impl Into<Cause>) -> NetworkError {
    NetworkError::File { path: path.to_owned(), problem: what.to_string(), source: Some(cause.into()) }
}
