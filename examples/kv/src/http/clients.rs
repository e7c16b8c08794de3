//! The clients that TLS accepts: by the authorities of their certificates, by dates and by
//! revocation; and the reasons for which it accepts others no more.

use crate::config::ConfigError;
use quorate::transport::{
    NetworkError,
    certificates::{ListDates, RefusedBy, Standing, Trust, explain_dates},
};
use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio_rustls::rustls::{
    self,
    CertificateError::{
        Expired, ExpiredContext, ExpiredRevocationListContext, NotValidYetContext, Revoked, UnknownRevocationStatus,
    },
    crypto::CryptoProvider,
    pki_types::CertificateDer,
    server::danger::ClientCertVerifier,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// The reason for which a connection ends whose certificate has expired.
pub(super) const EXPIRED: &str = "the certificate of the connection has expired";

/// The verification of clients' certificates.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    trust: Trust,
    standing: Arc<Standing>,
}

impl Clients {
    /// Loads the authorities in `ca`, and their revocation lists in `crl`.
    ///
    /// # Errors
    /// With the key under `http_tls`, if a file cannot be read or used.
    pub(super) fn load(ca: &Path, crl: Option<&Path>, provider: Arc<CryptoProvider>) -> Result<Self, ConfigError> {
        let trust = Trust::load(ca, crl, provider).map_err(|error| match &error {
            NetworkError::File { path, .. } if Some(&**path) == crl => {
                let remedy = "name the PEM revocation lists of all authorities in http_tls.client_ca";
                ConfigError::new("http_tls.client_crl", error, remedy)
            }
            _ => ConfigError::new("http_tls.client_ca", error, "name the PEM certificate of the clients' authority"),
        })?;
        let standing = Arc::new(trust.standing());
        Ok(Self { trust, standing })
    }

    /// The verifier of handshakes.
    pub(super) fn of_handshakes(&self, may_lack_certificate: bool) -> Arc<dyn ClientCertVerifier> {
        self.trust.client_verifier(may_lack_certificate)
    }

    /// The dates of the revocation list that ends first.
    pub(super) fn list(&self) -> Option<ListDates> {
        self.trust.list()
    }

    /// Checks that a connection with this certificate may stay open. A revocation list that is out
    /// of date refuses new connections only.
    ///
    /// # Errors
    /// The reason, as a sentence without its end.
    pub(super) fn check(&self, shown: &Shown) -> Result<(), &'static str> {
        self.standing.client(&shown.chain).map_err(|error| match error {
            rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => EXPIRED,
            rustls::Error::InvalidCertificate(Revoked) => "the certificate of the connection was revoked",
            _ => "the certificate of the connection is of an authority that counts no more",
        })
    }
}

/// A certificate that a client has shown, verified by TLS, with those between it and the authority.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    /// The end of the certificate itself: a client may send others that prove nothing, and those
    /// between it and the authority are verified again when credentials are reloaded.
    ends: SystemTime,
}

impl Shown {
    /// The chain of a connection; `None` without a certificate.
    pub(super) fn by(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let chain: Vec<_> = chain?.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let parsed = X509Certificate::from_der(chain.first()?).ok();
        // TLS has verified it, so it can be parsed.
        let ends = parsed.map(|(_, parsed)| at(parsed.validity().not_after.timestamp()));
        let ends = ends.unwrap_or(SystemTime::UNIX_EPOCH);
        Some(Self { chain, ends })
    }

    /// The certificate itself, DER.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        self.chain.first().map(|certificate| &certificate[..])
    }

    /// The last second in which it counts.
    pub(super) fn ends(&self) -> SystemTime {
        self.ends
    }
}

/// The time at a number of seconds since 1970; 1970 for one before.
pub(super) fn at(unix_seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds.try_into().unwrap_or_default())
}

/// Why a handshake was refused, if dates or revocation are the reason: the client sees no more than
/// an alert, and with a wrong clock the cause may be on either machine.
pub(super) fn refusal(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(why) = error else { return None };
    match why {
        ExpiredContext { .. } | NotValidYetContext { .. } | ExpiredRevocationListContext { .. } => {
            Some(explain_dates(&error.to_string(), RefusedBy::ThisMachine))
        }
        Revoked => Some("its certificate is revoked".to_owned()),
        UnknownRevocationStatus => Some("http_tls.client_crl has no list of the authority that signed it".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate::transport::certificates::Authority;
    use tokio_rustls::rustls::{
        CertificateError,
        pki_types::{UnixTime, pem::PemObject},
    };

    #[test]
    fn a_connection_ends_with_the_certificate_itself_and_not_with_others_that_its_client_sends() {
        let lasting = |days: u64| {
            let authority = Authority::create("demo").expect("made").issuing_for(Duration::from_secs(days * 24 * 3600));
            let issued = authority.issue_client("billing").expect("issued");
            CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("a certificate")
        };
        let [own, other] = [lasting(30), lasting(1)];
        let ends = |chain: &[CertificateDer<'_>]| Shown::by(Some(chain)).expect("a certificate").ends();
        let both = [own.clone(), other.clone()];
        assert_eq!(ends(&both), ends(&[own]));
        assert!(ends(&[other]) < ends(&both));
        assert!(Shown::by(Some(&[])).is_none());
    }

    #[test]
    fn a_refusal_for_a_date_names_it_the_clock_and_the_time_between_them() {
        let at = |unix_seconds| UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds));
        let said = |why: CertificateError| refusal(&io::Error::other(rustls::Error::InvalidCertificate(why)));
        let (time, later) = (at(1_000_000_000), at(1_000_000_000 + 3 * 3600));
        let early = said(NotValidYetContext { time, not_before: later }).expect("a reason");
        let late = said(ExpiredContext { time: later, not_after: time }).expect("a reason");
        for (text, says) in [(early, "3 h earlier"), (late, "3 h later")] {
            assert!(text.contains("this machine's clock") && text.contains(says) && text.contains("2001"), "{text}");
        }
        assert_eq!(said(Revoked).as_deref(), Some("its certificate is revoked"));
        assert_eq!(said(CertificateError::UnknownIssuer), None);
    }
}
