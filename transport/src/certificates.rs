//! A private certificate authority, and what it issues: certificates and keys of nodes, clients and
//! operators, each with one role ([`crate::identity`]).
//!
//! The authority's key signs. A holder of that key can be any node, so it belongs on none of them.
//! Certificates are ECDSA P-256, which every TLS client speaks. The authority's own lasts 10 years,
//! the others 1 year unless the caller says otherwise, each from an hour before it was made,
//! because clocks differ. None outlasts its authority.
//!
//! A key need not be made where the authority is: [`Requested`] makes it on its own machine, and
//! [`Authority::sign`] certifies the request.
//!
//! Each certificate has a random serial number, by which [`Authority::revoke`] ends it before its
//! date.
//!
//! Files: `ca.pem`, `ca.key`, `ca.crl.pem`, and `NAME.pem`, `NAME.key` for each certificate issued.
//! Nothing is overwritten but by [`Issued::replace`] and [`Authority::revoke`], and keys can be read
//! by their owner alone.

mod contents;
mod dates;
mod failures;
mod files;
mod request;
mod revocation;
mod trust;

pub use contents::Contents;
pub use dates::{RefusedBy, explain_dates};
pub(crate) use dates::{apart, date};
pub use failures::Failures;
pub use files::{CERTIFICATE_MODE, KEY_MODE, check_private, read_private, replace, write_new};
pub use request::{Request, Requested, Subject, is_host};
pub use revocation::{LIST_FILE, LIST_LASTS, Reason, RevocationList, Revoked, Serial};
pub use trust::{ListDates, Standing, Trust};
pub(crate) use trust::{certificates, failed, failed_by};

use crate::identity::{Identity, Role, check_cluster};
use files::{is_of_key, read};
use quorate_raft::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData,
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use x509_parser::{prelude::FromDer, time::ASN1Time};
use zeroize::{Zeroize, Zeroizing};

/// How long an authority's certificate lasts: 10 years.
pub const AUTHORITY_LASTS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a node's, client's or operator's certificate lasts by default: 1 year.
pub const ISSUED_LASTS: Duration = Duration::from_secs(365 * 24 * 3600);

/// Signs certificates for one cluster.
#[derive(Debug)]
pub struct Authority {
    cluster: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// The end of its own certificate.
    ends: SystemTime,
    /// How long what it issues lasts.
    issued_last: Duration,
}

/// A certificate of an authority, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Its names.
    pub subject: Subject,
    /// Its number, by which it is revoked.
    pub serial: Serial,
    /// Its end.
    pub ends: SystemTime,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PEM (PKCS #8). A secret, zeroed when this is dropped.
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
        params.serial_number = Some(Serial::random().for_rcgen());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        let ends = params.not_after.into();
        let (cluster, issuer) = (cluster.to_owned(), Issuer::new(params, key));
        Ok(Self { cluster, certificate_pem, issuer, ends, issued_last: ISSUED_LASTS })
    }

    /// Loads the authority from `ca.pem` and `ca.key` in `dir`.
    ///
    /// # Errors
    /// If they can't be read, or are not an authority's, or other users have access to the key;
    /// [`CertificateError::SeveralAuthorities`]; [`CertificateError::OtherKey`].
    pub fn load(dir: &Path) -> Result<Self, CertificateError> {
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let key_pem = read_private(&key).map_err(|problem| CertificateError::Open { path: key.clone(), problem })?;
        let certificate_pem = read(&certificate)?;
        let (cluster, ends) = cluster_of(&certificate_pem)
            .zip(end_of(&certificate_pem))
            .ok_or(CertificateError::NotAnAuthority { path: certificate.clone() })?;
        // Which of them signs would depend on their order.
        if certificate_pem.matches("-----BEGIN CERTIFICATE-----").count() > 1 {
            return Err(CertificateError::SeveralAuthorities { path: certificate });
        }
        let pair = std::str::from_utf8(&key_pem).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        let pair = pair.ok_or_else(|| CertificateError::NotAnAuthority { path: key.clone() })?;
        if !is_of_key(&certificate_pem, &pair) {
            return Err(CertificateError::OtherKey { key, certificate });
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, pair)
            .map_err(|_| CertificateError::NotAnAuthority { path: certificate })?;
        Ok(Self { cluster, certificate_pem, issuer, ends, issued_last: ISSUED_LASTS })
    }

    /// Issues certificates that last as long as this from now on. Issuing fails if they would
    /// outlast the authority.
    #[must_use]
    pub const fn issuing_for(mut self, lasts: Duration) -> Self {
        self.issued_last = lasts;
        self
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
        let key_pem = Zeroizing::new(self.issuer.key().serialize_pem());
        write_new(&dir.join("ca.key"), &key_pem, KEY_MODE)?;
        write_new(&dir.join("ca.pem"), &self.certificate_pem, CERTIFICATE_MODE)
    }

    /// A certificate for a node, as server and as client. `hosts` are names or addresses at which
    /// other TLS clients may reach it, such as over HTTPS; nodes among themselves need none.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_node(&self, node: NodeId, hosts: &[String]) -> Result<Issued, CertificateError> {
        self.issue(&self.subject(Role::Node(node), hosts))
    }

    /// A certificate for a client of the nodes' HTTPS endpoints.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_client(&self, name: &str) -> Result<Issued, CertificateError> {
        self.issue(&self.subject(Role::Client(name.to_owned()), &[]))
    }

    /// A certificate for an operator: for administration over the nodes' HTTPS endpoints.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_operator(&self, name: &str) -> Result<Issued, CertificateError> {
        self.issue(&self.subject(Role::Operator(name.to_owned()), &[]))
    }

    fn subject(&self, role: Role, hosts: &[String]) -> Subject {
        Subject { identity: Identity { cluster: self.cluster.clone(), role }, hosts: hosts.to_vec() }
    }

    /// A certificate and a new key for these names.
    ///
    /// # Errors
    /// [`CertificateError::Name`] if a name can't stand in a certificate, a host lies in the
    /// reserved zone, or the cluster is another; [`CertificateError::Outlasts`].
    pub fn issue(&self, subject: &Subject) -> Result<Issued, CertificateError> {
        let key = KeyPair::generate()?;
        Ok(Issued { certificate_pem: self.certify(subject, &key)?, key_pem: key.serialize_pem() })
    }

    /// The certificate for which `request` asks, PEM.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn sign(&self, request: &Request) -> Result<String, CertificateError> {
        self.certify(request.subject(), &request.key)
    }

    fn certify(&self, subject: &Subject, key: &impl PublicKeyData) -> Result<String, CertificateError> {
        if subject.identity.cluster != self.cluster {
            let (theirs, ours) = (&subject.identity.cluster, &self.cluster);
            return Err(CertificateError::Name(format!(
                "{} is of cluster {theirs:?}, and the authority of {ours:?}: use the cluster's own",
                subject.identity
            )));
        }
        let left = self.ends.duration_since(SystemTime::now()).unwrap_or_default();
        if self.issued_last > left {
            return Err(CertificateError::Outlasts { asked: self.issued_last, left });
        }
        let mut params = lasting(subject.params()?, self.issued_last);
        params.serial_number = Some(Serial::random().for_rcgen());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match subject.identity.role {
            Role::Node(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Client(_) | Role::Operator(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }

    /// The names in a certificate that this authority issued, PEM, expired or not.
    ///
    /// # Errors
    /// As [`Authority::examine`].
    pub fn names_in(&self, certificate_pem: &str) -> Result<Subject, String> {
        self.examine(certificate_pem).map(|certified| certified.subject)
    }

    /// A certificate that this authority issued, PEM, expired or not, revoked or not.
    ///
    /// # Errors
    /// In words without the path: it is no certificate, or of another authority, or without a role.
    pub fn examine(&self, certificate_pem: &str) -> Result<Certified, String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes())
            .map_err(|_| "holds no certificate in PEM".to_owned())?;
        let certificate = pem.parse_x509().map_err(|_| "holds no certificate".to_owned())?;
        let (_, own) = x509_parser::pem::parse_x509_pem(self.certificate_pem.as_bytes())
            .map_err(|_| "can't be compared with its authority".to_owned())?;
        let own = own.parse_x509().map_err(|_| "can't be compared with its authority".to_owned())?;
        if certificate.verify_signature(Some(own.public_key())).is_err() {
            return Err(format!("is not by this authority of {:?}", self.cluster));
        }
        let names = certificate.subject_alternative_name().map_err(|_| "has malformed names".to_owned())?;
        Ok(Certified {
            subject: Subject::of_names(names.iter().flat_map(|names| &names.value.general_names))
                .map_err(|why| format!("has other names than those of a holder ({why})"))?,
            serial: Serial::of(certificate.raw_serial()),
            ends: time_of(certificate.validity().not_after).ok_or("has a malformed end")?,
        })
    }
}

/// The end of a certificate, PEM; `None` if it is none.
#[must_use]
pub fn end_of(certificate_pem: &str) -> Option<SystemTime> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).ok()?;
    time_of(pem.parse_x509().ok()?.validity().not_after)
}

fn time_of(time: ASN1Time) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(time.timestamp()).ok()?))
}

impl Drop for Issued {
    fn drop(&mut self) {
        self.key_pem.zeroize();
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
    /// `ca.pem` has more than one certificate.
    #[error("{} has several certificates, and only one authority signs: keep that of ca.key in it", path.display())]
    SeveralAuthorities {
        /// The file `ca.pem`.
        path: PathBuf,
    },
    /// `ca.key` is not the key of `ca.pem`: what it signs would not verify.
    #[error("{} is not the key of {}: restore the one that was made with it", key.display(), certificate.display())]
    OtherKey {
        /// The file `ca.key`.
        key: PathBuf,
        /// The file `ca.pem`.
        certificate: PathBuf,
    },
    /// A certificate would outlast its authority.
    #[error("{} days would outlast the authority, which has {} left: ask for at most that", days(asked), days(left))]
    Outlasts {
        /// How long it was to last.
        asked: Duration,
        /// How long the authority's own certificate lasts from now on.
        left: Duration,
    },
    /// An authority whose certificate does not permit it to sign revocation lists: verifiers would
    /// refuse its list.
    #[error("{} may not sign revocation lists (key usage cRLSign): make another authority with `certs`", path.display())]
    NoListSigner {
        /// The file `ca.pem`.
        path: PathBuf,
    },
    /// An authority whose certificate has ended.
    #[error("{} has ended, and what it signs counts no more: make another authority with `certs`", path.display())]
    Ended {
        /// The file `ca.pem`.
        path: PathBuf,
    },
    /// `ca.crl.pem` is not one list of the authority.
    #[error("{} {problem}: restore the authority's newest list, from a node if need be", path.display())]
    List {
        /// The file `ca.crl.pem`.
        path: PathBuf,
        /// The reason, as a predicate.
        problem: &'static str,
    },
    /// A request that no authority signs.
    #[error("the request is refused: {0}; make one with `quorate-kv certs request`")]
    Request(String),
    /// A certificate that is left over from a replacement, and of no use.
    #[error("{} is left over and is no certificate of {}: remove it", path.display(), key.display())]
    LeftOver {
        /// The file `NAME.pem.new`.
        path: PathBuf,
        /// The file `NAME.key`, of another certificate.
        key: PathBuf,
    },
    /// A replaced file's owner and group, which the new file can't be given.
    #[error("{} belongs to {uid}:{gid}, which a new file can't be given ({source}): run as root or as that user", path.display())]
    Owner {
        /// The file to be replaced.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// The operating system's error.
        source: std::io::Error,
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

const fn days(lasts: &Duration) -> u64 {
    lasts.as_secs() / (24 * 3600)
}

fn cluster_of(certificate_pem: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).ok()?;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&pem.contents).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let cluster = name.strip_prefix(COMMON_NAME)?;
    check_cluster(cluster).is_ok().then(|| cluster.to_owned())
}
