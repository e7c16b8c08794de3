//! Names of a certificate's holder, and signing requests for them (PKCS #10).
//!
//! A request carries the public half of a key that never leaves its machine. It proves that its
//! author has the key, and nothing about its author: compare the key's fingerprint on both sides.

use super::CertificateError;
use crate::identity::{Identity, Role, is_reserved, reserved_name};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType,
};
use x509_parser::extensions::GeneralName;

/// The names in a certificate: its holder's identity, and hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The holder, from the one reserved name.
    pub identity: Identity,
    /// Names or addresses at which TLS clients reach a node. Empty for other roles.
    pub hosts: Vec<String>,
}

impl Subject {
    /// Whether these names can stand in a certificate together.
    ///
    /// # Errors
    /// [`CertificateError::Name`]: a name is malformed, a host lies in the reserved zone, or the
    /// role is not a node's and has hosts.
    pub fn check(&self) -> Result<(), CertificateError> {
        self.identity.check().map_err(CertificateError::Name)?;
        if let Some(host) = self.hosts.iter().find(|host| is_reserved(host)) {
            return Err(CertificateError::Name(format!(
                "host {host:?} would name a node, client or operator: give a host's own name"
            )));
        }
        if let Some(host) = self.hosts.iter().find(|host| !is_host(host)) {
            return Err(CertificateError::Name(format!(
                "host {host:?} can't stand in a certificate: use a DNS name, *.NAME or an address"
            )));
        }
        if !matches!(self.identity.role, Role::Node(_)) && !self.hosts.is_empty() {
            return Err(CertificateError::Name(format!("{} has hosts, which only a node has", self.identity)));
        }
        Ok(())
    }

    /// Splits all alternative names into the one reserved name and hosts.
    pub(super) fn of_names<'a>(names: impl Iterator<Item = &'a GeneralName<'a>>) -> Result<Self, String> {
        let (mut reserved, mut hosts) = (Vec::new(), Vec::new());
        for name in names {
            match name {
                GeneralName::DNSName(name) if is_reserved(name) => reserved.push(*name),
                GeneralName::DNSName(name) => hosts.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => hosts.push(address(octets).ok_or("it has a malformed address")?),
                _ => return Err("it has names that are neither DNS names nor addresses".to_owned()),
            }
        }
        let identity = reserved_name(reserved.into_iter())?;
        Ok(Self { identity, hosts })
    }

    /// The parameters that a certificate and a request have in common.
    pub(super) fn params(&self) -> Result<CertificateParams, CertificateError> {
        self.check()?;
        let names: Vec<String> = std::iter::once(self.identity.dns_name()).chain(self.hosts.iter().cloned()).collect();
        let mut params = CertificateParams::new(names)
            .map_err(|_| CertificateError::Name(format!("hosts {:?} can't stand in a certificate", self.hosts)))?;
        // For people; X.509 allows 64 characters, and the name that counts may be longer.
        let common_name = match &self.identity.role {
            Role::Client(name) | Role::Operator(name) => name.clone(),
            Role::Node(_) => self.identity.to_string(),
        };
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        Ok(params)
    }
}

/// A key, and a request that an authority certify it.
#[derive(Clone)]
pub struct Requested {
    /// The request, PEM.
    pub request_pem: String,
    /// The private key, PEM (PKCS #8). A secret, zeroed when this is dropped.
    pub key_pem: String,
    /// The key's fingerprint, as [`Request::fingerprint`].
    pub fingerprint: String,
}

impl Requested {
    /// A new key, and a request for a certificate of `subject`.
    ///
    /// # Errors
    /// [`CertificateError::Name`], as [`Subject::check`].
    pub fn make(subject: &Subject) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let request_pem = subject.params()?.serialize_request(&key)?.pem()?;
        Ok(Self { request_pem, fingerprint: fingerprint(&key), key_pem: key.serialize_pem() })
    }
}

impl Drop for Requested {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key_pem);
    }
}

/// Shows no key.
impl std::fmt::Debug for Requested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requested").field("request_pem", &self.request_pem).finish_non_exhaustive()
    }
}

/// A request whose signature and names are in order. Not yet known: whether the names are due to
/// its author.
#[derive(Debug)]
pub struct Request {
    subject: Subject,
    pub(super) key: rcgen::PublicKey,
}

impl Request {
    /// Reads and checks a request, PEM. Of the request only its names and its key reach the
    /// certificate.
    ///
    /// # Errors
    /// [`CertificateError::Request`]: it is no request, its signature is not by its key, the key is
    /// not ECDSA P-256, or it asks for anything but one reserved name and, for a node, hosts.
    pub fn parse(pem: &str) -> Result<Self, CertificateError> {
        let refused = |why: &str| CertificateError::Request(why.to_owned());
        let parsed = CertificateSigningRequestParams::from_pem(pem).map_err(|error| match error {
            rcgen::Error::InvalidCertificationRequestSignature => refused("its signature is not by its key"),
            rcgen::Error::UnsupportedExtension | rcgen::Error::InvalidNameType => refused(MORE),
            _ => refused("it is no request in PEM"),
        })?;
        let (params, key) = (parsed.params, parsed.public_key);
        let is_p256 = key.algorithm() == &PKCS_ECDSA_P256_SHA256 && key.der_bytes().len() == P256_POINT_BYTES;
        if !is_p256 {
            return Err(refused("its key is not ECDSA P-256"));
        }
        if params.is_ca != IsCa::NoCa || !params.key_usages.is_empty() || !params.extended_key_usages.is_empty() {
            return Err(refused(MORE));
        }
        let (mut reserved, mut hosts) = (Vec::new(), Vec::new());
        for name in &params.subject_alt_names {
            match name {
                SanType::DnsName(name) if is_reserved(name.as_str()) => reserved.push(name.as_str()),
                SanType::DnsName(name) => hosts.push(name.as_str().to_owned()),
                SanType::IpAddress(address) => hosts.push(address.to_string()),
                _ => return Err(refused(MORE)),
            }
        }
        let identity = reserved_name(reserved.into_iter()).map_err(|why| CertificateError::Request(why.to_owned()))?;
        let subject = Subject { identity, hosts };
        subject.check().map_err(|error| CertificateError::Request(error.to_string()))?;
        Ok(Self { subject, key })
    }

    /// The names that it asks for.
    #[must_use]
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// SHA-256 of its public key (`SubjectPublicKeyInfo`, DER) in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.key)
    }
}

const MORE: &str = "it asks for more than a node's, client's or operator's name and hosts";
/// An uncompressed point of the curve.
const P256_POINT_BYTES: usize = 65;

fn fingerprint(key: &impl PublicKeyData) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a host in a certificate is an address, or of the characters of DNS names, perhaps after
/// the wildcard of one label (`*.NAME`); `*` would be every host. A request is read by people before it is signed, so it must not hide anything from
/// them.
#[must_use]
pub fn is_host(host: &str) -> bool {
    let is_of_dns = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let name = host.strip_prefix("*.").unwrap_or(host);
    let is_name = !name.starts_with('.') && !name.is_empty() && host.len() <= 253 && name.bytes().all(is_of_dns);
    host.parse::<std::net::IpAddr>().is_ok() || is_name
}

fn address(octets: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(octets).map(std::net::IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(octets).map(std::net::IpAddr::from));
    address.ok().map(|address| address.to_string())
}
