//! A private certificate authority, and what it issues: certificates and keys of nodes, clients and
//! operators, each with one role ([`crate::identity`]).
//!
//! The authority's key signs. A holder of that key can be any node, so it belongs on none of them.
//! Certificates are ECDSA P-256, which every TLS client speaks. The authority's own lasts 10 years,
//! the others 1 year, each from an hour before it was made, because clocks differ.
//!
//! Files: `ca.pem`, `ca.key`, and `NAME.pem`, `NAME.key` for each certificate issued. Nothing is
//! ever overwritten, and keys can be read by their owner alone.

mod files;

pub use files::{CERTIFICATE_MODE, KEY_MODE, check_private, write_new};

use crate::identity::{Identity, Role, check_cluster, is_reserved};
use quorate_raft::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use x509_parser::prelude::FromDer;

/// How long an authority's certificate lasts: 10 years.
pub const AUTHORITY_LASTS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a node's, client's or operator's certificate lasts: 1 year.
pub const ISSUED_LASTS: Duration = Duration::from_secs(365 * 24 * 3600);

/// Signs certificates for one cluster.
#[derive(Debug)]
pub struct Authority {
    cluster: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM (PKCS #8). A secret.
    pub key_pem: String,
}

impl Authority {
    /// A new authority for `cluster`, with a new key.
    ///
    /// # Errors
    /// [`CertificateError::Name`] if the cluster's name does not fit a DNS label.
    pub fn create(cluster: &str) -> Result<Self, CertificateError> {
        check_cluster(cluster).map_err(CertificateError::Name)?;
        let mut params = lasting(CertificateParams::default(), AUTHORITY_LASTS);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{COMMON_NAME}{cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { cluster: cluster.to_owned(), certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Loads the authority from `ca.pem` and `ca.key` in `dir`.
    ///
    /// # Errors
    /// If they can't be read, or are not an authority's, or other users have access to the key.
    pub fn load(dir: &Path) -> Result<Self, CertificateError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| CertificateError::Io { path: path.to_owned(), source })
        };
        check_private(&key).map_err(|problem| CertificateError::Open { path: key.clone(), problem })?;
        let (certificate_pem, key_pem) = (read(&certificate)?, read(&key)?);
        let cluster =
            cluster_of(&certificate_pem).ok_or(CertificateError::NotAnAuthority { path: certificate.clone() })?;
        let key = KeyPair::from_pem(&key_pem).map_err(|_| CertificateError::NotAnAuthority { path: key })?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key)
            .map_err(|_| CertificateError::NotAnAuthority { path: certificate })?;
        Ok(Self { cluster, certificate_pem, issuer })
    }

    /// The cluster that it signs for.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its own certificate, PEM: what every node and client must have.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Writes `ca.pem` and `ca.key` to `dir`.
    ///
    /// # Errors
    /// If either exists, or can't be written.
    pub fn write(&self, dir: &Path) -> Result<(), CertificateError> {
        write_new(&dir.join("ca.key"), &self.issuer.key().serialize_pem(), KEY_MODE)?;
        write_new(&dir.join("ca.pem"), &self.certificate_pem, CERTIFICATE_MODE)
    }

    /// A certificate for a node, as server and as client. `hosts` are names or addresses at which
    /// other TLS clients may reach it, such as over HTTPS; nodes among themselves need none.
    ///
    /// # Errors
    /// [`CertificateError::Name`] if a host can't stand in a certificate, or lies in the reserved
    /// zone and so would name a node, client or operator.
    pub fn issue_node(&self, node: NodeId, hosts: &[String]) -> Result<Issued, CertificateError> {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(Role::Node(node), hosts, usages)
    }

    /// A certificate for a client of the nodes' HTTPS endpoints.
    ///
    /// # Errors
    /// [`CertificateError::Name`] if `name` is not one DNS label.
    pub fn issue_client(&self, name: &str) -> Result<Issued, CertificateError> {
        self.issue(Role::Client(name.to_owned()), &[], vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    /// A certificate for an operator: for administration over the nodes' HTTPS endpoints.
    ///
    /// # Errors
    /// [`CertificateError::Name`] if `name` is not one DNS label.
    pub fn issue_operator(&self, name: &str) -> Result<Issued, CertificateError> {
        self.issue(Role::Operator(name.to_owned()), &[], vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn issue(
        &self,
        role: Role,
        hosts: &[String],
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<Issued, CertificateError> {
        let identity = Identity { cluster: self.cluster.clone(), role };
        identity.check().map_err(CertificateError::Name)?;
        if let Some(host) = hosts.iter().find(|host| is_reserved(host)) {
            return Err(CertificateError::Name(format!(
                "host {host:?} would name a node, client or operator: give a host's own name"
            )));
        }
        let names: Vec<String> = std::iter::once(identity.dns_name()).chain(hosts.iter().cloned()).collect();
        let params = CertificateParams::new(names)
            .map_err(|_| CertificateError::Name(format!("hosts {hosts:?} can't stand in a certificate")))?;
        let mut params = lasting(params, ISSUED_LASTS);
        params.distinguished_name = rcgen::DistinguishedName::new();
        // For people; X.509 allows 64 characters, and the name that counts may be longer.
        let common_name = match &identity.role {
            Role::Client(name) | Role::Operator(name) => name.clone(),
            Role::Node(_) => identity.to_string(),
        };
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }
}

/// Shows no key.
impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// Why there is no certificate, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A name that can't stand in a certificate.
    #[error("{0}")]
    Name(String),
    /// A file of that name exists.
    #[error("{} exists and is not overwritten: choose another directory, or move it away", path.display())]
    Exists {
        /// The file that exists already.
        path: PathBuf,
    },
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that can't be read or written.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A key is not private.
    #[error("{}: {problem}", path.display())]
    Open {
        /// The file with the key.
        path: PathBuf,
        /// The users that have access to it, and the remedy.
        problem: String,
    },
    /// `ca.pem` or `ca.key` is not an authority's.
    #[error("{} is not of a Quorate certificate authority: give the directory in which one was created", path.display())]
    NotAnAuthority {
        /// The file that is none.
        path: PathBuf,
    },
    /// The library that makes certificates failed.
    #[error("making a certificate failed: {0}")]
    Made(#[from] rcgen::Error),
}

/// Prefix of the authority's common name; the cluster's name follows.
const COMMON_NAME: &str = "Quorate CA of ";
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);

fn lasting(mut params: CertificateParams, lasts: Duration) -> CertificateParams {
    let now = SystemTime::now();
    params.not_before = (now - CLOCKS_DIFFER).into();
    params.not_after = (now + lasts).into();
    params
}

fn cluster_of(certificate_pem: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).ok()?;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&pem.contents).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let cluster = name.strip_prefix(COMMON_NAME)?;
    check_cluster(cluster).is_ok().then(|| cluster.to_owned())
}
