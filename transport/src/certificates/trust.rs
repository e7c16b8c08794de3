//! Trust: the authorities whose certificates are accepted, and their lists of revoked ones.
//!
//! TLS's own verifier finds the list of an authority by the authority's name. Two authorities of one
//! cluster have the same name, and during a rotation both are trusted. So each authority has a
//! verifier of its own with its own list, which is found by its signature, and a certificate is
//! accepted if one of them accepts it.
//!
//! An authority here is a certificate in the bundle. With lists, an intermediate authority must be
//! in the bundle, too, and have a list.

use super::dates::{apart, date};
use crate::network::{Cause, NetworkError};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::{fs, path::Path, sync::Arc};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, revocation_list::CertificateRevocationList};

/// Authorities and, if there are any, the revocation list of each.
#[derive(Clone, Debug)]
pub struct Trust {
    authorities: Vec<Authority>,
    provider: Arc<CryptoProvider>,
    /// The list that ends first.
    list: Option<ListDates>,
}

/// When a revocation list was made, and when it must be replaced: seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListDates {
    /// Its `thisUpdate`.
    pub begins: u64,
    /// Its `nextUpdate`. From then on no certificate of its authority is accepted in a handshake.
    pub ends: u64,
}

#[derive(Clone, Debug)]
struct Authority {
    roots: Arc<RootCertStore>,
    list: Option<CertificateRevocationListDer<'static>>,
}

/// Whether a revocation list that has ended still counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Refuses,
    Counts,
}

impl Trust {
    /// Reads the authorities in `ca` and the revocation lists in `crl`, both PEM. With `crl`, each
    /// authority must have exactly one list.
    ///
    /// # Errors
    /// In one line that names the file and the remedy: it can't be read or used; an authority has no
    /// list or several; a list is of no authority, is not signed by it, or has ended.
    pub fn load(ca: &Path, crl: Option<&Path>, provider: Arc<CryptoProvider>) -> Result<Self, NetworkError> {
        let ders = certificates(ca)?;
        let mut authorities = Vec::with_capacity(ders.len());
        for der in &ders {
            let mut roots = RootCertStore::empty();
            roots.add(der.clone()).map_err(|error| {
                let problem = format!("not a usable authority ({error}): give the cluster's ca.pem");
                failed_by(ca, problem, error)
            })?;
            authorities.push(Authority { roots: Arc::new(roots), list: None });
        }
        let mut trust = Self { authorities, provider, list: None };
        if let Some(crl) = crl {
            trust.take_lists(ca, &ders, crl)?;
        }
        // The library's own checks of authorities and lists.
        trust
            .build(Ended::Refuses)
            .map_err(|error| failed(crl.unwrap_or(ca), format_args!("can't be used: {error}")))?;
        Ok(trust)
    }

    /// The list that ends first; `None` without lists.
    #[must_use]
    pub fn list(&self) -> Option<ListDates> {
        self.list
    }

    /// Checks certificates of peers that dial this machine. `may_lack_certificate`: lets those in
    /// that show none.
    ///
    /// # Panics
    /// Never: [`Self::load`] has built the same verifier.
    #[must_use]
    pub fn client_verifier(&self, may_lack_certificate: bool) -> Arc<dyn ClientCertVerifier> {
        let subjects = self.authorities.iter().flat_map(|authority| authority.roots.subjects()).collect();
        Arc::new(AnyClient { of: self.verifiers(Ended::Refuses), subjects, may_lack_certificate })
    }

    /// Checks certificates of peers that this machine dials.
    ///
    /// # Panics
    /// Never: [`Self::load`] has built the same verifier.
    #[must_use]
    pub fn server_verifier(&self) -> Arc<dyn ServerCertVerifier> {
        Arc::new(AnyServer { of: self.verifiers(Ended::Refuses) })
    }

    /// Judges certificates of connections that are open: they count on after their authority's list
    /// has ended. See the section *Reload* of [`crate::quic`] for the reason.
    ///
    /// # Panics
    /// Never: [`Self::load`] has built the same verifiers.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing { of: self.verifiers(Ended::Counts) }
    }

    fn take_lists(&mut self, ca: &Path, ders: &[CertificateDer<'static>], crl: &Path) -> Result<(), NetworkError> {
        let pem = read(crl)?;
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
        let lists = lists.ok().filter(|lists| !lists.is_empty());
        let lists = lists.ok_or_else(|| failed(crl, "holds no revocation list in PEM: give one of each authority"))?;
        let parsed: Option<Vec<_>> = ders.iter().map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
        let parsed = parsed.ok_or_else(|| failed(ca, "can't be parsed: give the cluster's ca.pem"))?;
        for (number, der) in lists.into_iter().enumerate() {
            let number = number + 1;
            let (_, list) = CertificateRevocationList::from_der(&der)
                .map_err(|_| failed(crl, format_args!("list {number} can't be parsed: make a new one")))?;
            let dates = dates_of(&list).ok_or_else(|| {
                failed(crl, format_args!("list {number} does not say when it ends: make one that does"))
            })?;
            let mut is_known = false;
            for (authority, certificate) in self.authorities.iter_mut().zip(&parsed) {
                if certificate.subject().as_raw() != list.issuer().as_raw()
                    || list.verify_signature(certificate.public_key()).is_err()
                {
                    continue;
                }
                is_known = true;
                if authority.list.replace(der.clone()).is_some() {
                    let of = named(certificate);
                    return Err(failed(crl, format_args!("has several lists of {of}: keep the newest")));
                }
            }
            if !is_known {
                let (issuer, ca) = (list.issuer(), ca.display());
                return Err(failed(
                    crl,
                    format_args!(
                        "list {number}, of {issuer}, is by no authority in {ca}: remove it, or add the authority"
                    ),
                ));
            }
            let now = UnixTime::now().as_secs();
            if now >= dates.ends {
                let (ended, now, late) = (date(dates.ends), date(now), apart(now - dates.ends));
                return Err(failed(
                    crl,
                    format_args!(
                        "list {number} expired at {ended}, and this machine's clock says {now}, {late} later: make a new one, or check \
                         the clock"
                    ),
                ));
            }
            self.list = Some(self.list.map_or(dates, |first| if first.ends <= dates.ends { first } else { dates }));
        }
        for (authority, certificate) in self.authorities.iter().zip(&parsed) {
            if authority.list.is_none() {
                let (of, ca) = (named(certificate), ca.display());
                let problem =
                    format_args!("has no list of {of}, which is in {ca}: add its list, or remove the authority");
                return Err(failed(crl, problem));
            }
        }
        Ok(())
    }

    fn verifiers(&self, ended: Ended) -> Vec<One> {
        self.build(ended).expect("the same authorities and lists were accepted when they were loaded")
    }

    fn build(&self, ended: Ended) -> Result<Vec<One>, rustls::server::VerifierBuilderError> {
        let one = |authority: &Authority| {
            let (roots, provider) = (&authority.roots, &self.provider);
            let mut client = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
                .with_crls(authority.list.clone());
            let mut server = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
                .with_crls(authority.list.clone());
            if ended == Ended::Refuses {
                client = client.enforce_revocation_expiration();
                server = server.enforce_revocation_expiration();
            }
            Ok(One { client: client.build()?, server: server.build()? })
        };
        self.authorities.iter().map(one).collect()
    }
}

/// Judges certificates that were accepted before.
#[derive(Debug)]
pub struct Standing {
    of: Vec<One>,
}

impl Standing {
    /// Whether the certificate of a peer that dialled this machine still counts.
    ///
    /// # Errors
    /// The reason for which it does not.
    pub fn client(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let (first, rest) = split(chain)?;
        let now = UnixTime::now();
        any(&self.of, |one| one.client.verify_client_cert(first, rest, now)).map(drop)
    }

    /// Whether the certificate of a peer that this machine dialled as `name` still counts.
    ///
    /// # Errors
    /// The reason for which it does not.
    pub fn server(&self, chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> Result<(), Error> {
        let (first, rest) = split(chain)?;
        let now = UnixTime::now();
        any(&self.of, |one| one.server.verify_server_cert(first, rest, name, &[], now)).map(drop)
    }
}

fn split<'a, 'b>(chain: &'a [CertificateDer<'b>]) -> Result<(&'a CertificateDer<'b>, &'a [CertificateDer<'b>]), Error> {
    chain.split_first().ok_or(Error::NoCertificatesPresented)
}

/// The verifiers of one authority.
#[derive(Debug)]
struct One {
    client: Arc<dyn ClientCertVerifier>,
    server: Arc<WebPkiServerVerifier>,
}

/// The verdict of the authority that accepts the certificate, or else of that which knows it best.
fn any<T>(of: &[One], verify: impl Fn(&One) -> Result<T, Error>) -> Result<T, Error> {
    let mut refused = Error::InvalidCertificate(CertificateError::UnknownIssuer);
    for one in of {
        match verify(one) {
            Ok(accepted) => return Ok(accepted),
            Err(error) if knows(&error) >= knows(&refused) => refused = error,
            Err(_) => {}
        }
    }
    Err(refused)
}

/// The part of a certificate that an authority recognizes although it refuses it: nothing, the name
/// of its issuer, or the signature.
fn knows(error: &Error) -> u8 {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => 0,
        Error::InvalidCertificate(CertificateError::BadSignature) => 1,
        _ => 2,
    }
}

#[derive(Debug)]
struct AnyClient {
    of: Vec<One>,
    subjects: Vec<DistinguishedName>,
    may_lack_certificate: bool,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        !self.may_lack_certificate
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        any(&self.of, |one| one.client.verify_client_cert(end_entity, intermediates, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        any(&self.of, |one| one.client.verify_tls12_signature(message, cert, dss))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        any(&self.of, |one| one.client.verify_tls13_signature(message, cert, dss))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.of.first().map(|one| one.client.supported_verify_schemes()).unwrap_or_default()
    }
}

#[derive(Debug)]
struct AnyServer {
    of: Vec<One>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        any(&self.of, |one| one.server.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        any(&self.of, |one| one.server.verify_tls12_signature(message, cert, dss))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        any(&self.of, |one| one.server.verify_tls13_signature(message, cert, dss))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.of.first().map(|one| one.server.supported_verify_schemes()).unwrap_or_default()
    }
}

/// An authority by its name and, because the next one has the same name, its first day.
fn named(certificate: &X509Certificate<'_>) -> String {
    format!("{} of {}", certificate.subject(), certificate.validity().not_before)
}

fn dates_of(list: &CertificateRevocationList<'_>) -> Option<ListDates> {
    let ends = u64::try_from(list.next_update()?.timestamp()).unwrap_or(0);
    Some(ListDates { begins: u64::try_from(list.last_update().timestamp()).unwrap_or(0), ends })
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetworkError> {
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

pub(crate) fn failed(path: &Path, what: impl std::fmt::Display) -> NetworkError {
    NetworkError::File { path: path.to_owned(), problem: what.to_string(), source: None }
}

pub(crate) fn failed_by(path: &Path, what: impl std::fmt::Display, cause: impl Into<Cause>) -> NetworkError {
    NetworkError::File { path: path.to_owned(), problem: what.to_string(), source: Some(cause.into()) }
}
