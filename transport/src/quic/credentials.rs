//! Credentials of a node: authorities, revocation lists, certificate and key, read from their files
//! and checked as a whole before any of them is used.

use crate::{
    certificates::{RefusedBy, Trust, apart, certificates, date, explain_dates, failed, failed_by, read_private},
    identity::{Role, check_cluster, identity_of, node_name},
    network::NetworkError,
};
use quorate_raft::NodeId;
use ring::{hkdf, hmac};
use rustls::{
    CertificateError, Error, InconsistentKeys,
    crypto::CryptoProvider,
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// The files of a node's credentials.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) ca: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    pub(super) crl: Option<PathBuf>,
}

impl Files {
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.ca), Some(&self.cert), Some(&self.key), self.crl.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }
}

/// The credentials with which a node proves its identity, and by which it judges that of others.
pub(super) struct Credentials {
    pub(super) trust: Trust,
    pub(super) chain: Vec<CertificateDer<'static>>,
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
    files: Files,
}

impl Credentials {
    /// Reads and checks the files, down to whether certificate and key belong together.
    pub(super) fn load(files: &Files, provider: Arc<CryptoProvider>) -> Result<Self, NetworkError> {
        let Files { ca, cert: certificate, key, crl } = files;
        let trust = Trust::load(ca, crl.as_deref(), provider)?;
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
        Ok(Self {
            trust,
            chain,
            certified: Arc::new(certified.into()),
            reset_key: reset_key(key_der.secret_der())?,
            node,
            cluster: identity.cluster,
            expires_unix_seconds,
            files: files.clone(),
        })
    }

    /// Checks that they are those of `node` in `cluster`, and that peers which trust the same
    /// authorities and have the same revocation lists will accept them.
    pub(super) fn check(&self, cluster: &str, node: NodeId) -> Result<(), NetworkError> {
        check_cluster(cluster).map_err(NetworkError::Identity)?;
        let (certified, of) = (self.node, self.cluster.as_str());
        if (certified, of) != (node, cluster) {
            return Err(failed(
                &self.files.cert,
                format_args!(
                    "is of node {certified} in cluster {of:?}, but this is node {node} in {cluster:?}: give its own"
                ),
            ));
        }
        // With the verifier that peers use: a certificate that this node would refuse is of no use.
        let verifier = self.trust.server_verifier();
        let name = ServerName::try_from(node_name(node, cluster))
            .map_err(|error| NetworkError::Identity(error.to_string()))?;
        verifier.verify_server_cert(&self.chain[0], &self.chain[1..], &name, &[], UnixTime::now()).map_err(
            |error| {
                let problem = match &error {
                    Error::InvalidCertificate(CertificateError::Revoked) => {
                        "is revoked, and peers will refuse it: give one that is not".to_owned()
                    }
                    error => {
                        let (ca, why) = (self.files.ca.display(), error.to_string());
                        let why = explain_dates(&why, RefusedBy::ThisMachine);
                        format!("peers that trust {ca} will refuse it ({why}): give one that it issued")
                    }
                };
                failed_by(&self.files.cert, problem, error)
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

fn check_validity(path: &Path, certificate: &[u8]) -> Result<u64, NetworkError> {
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate)
        .map_err(|_| failed(path, "can't be parsed: make a new one"))?;
    let validity = parsed.validity();
    let now = UnixTime::now().as_secs();
    let [begins, ends] =
        [validity.not_before, validity.not_after].map(|date| u64::try_from(date.timestamp()).unwrap_or(0));
    let clock = date(now);
    if now > ends {
        let (ended, late) = (date(ends), apart(now - ends));
        let problem =
            format!("expired at {ended}, and this machine's clock says {clock}, {late} later: issue a new one");
        return Err(failed(path, problem));
    }
    if now < begins {
        let (begins, early) = (date(begins), apart(begins - now));
        return Err(failed(
            path,
            format_args!(
                "is not valid before {begins}, and this machine's clock says {clock}, {early} earlier: check the clocks of this \
                 machine and of the one that issued it"
            ),
        ));
    }
    Ok(ends)
}
