//! Revocation lists (CRL): the certificates of an authority that count no more, though they have
//! not ended.
//!
//! `ca.crl.pem` beside `ca.key` is the record itself. [`Authority::revoke`] reads it, extends it,
//! and replaces it by a list with the next number; no entry is ever removed. Verifiers get copies.
//! A list counts up to its `nextUpdate`, so that a verifier that gets no newer list is noticed.

use super::{Authority, CERTIFICATE_MODE, CLOCKS_DIFFER, CertificateError, files::replace, time_of};
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber,
};
use std::{
    fmt, fs, io,
    path::Path,
    str::FromStr,
    time::{Duration, SystemTime},
};
use x509_parser::{
    prelude::FromDer,
    revocation_list::{CertificateRevocationList, RevokedCertificate},
};

/// The file of the list, in the directory of the authority.
pub const LIST_FILE: &str = "ca.crl.pem";
/// How long a list counts by default: 30 days. A list that is renewed every week lapses only after
/// the fourth failure in a row.
pub const LIST_LASTS: Duration = Duration::from_secs(30 * 24 * 3600);

/// The number by which an authority tells its certificates apart. Shown as hexadecimal digits, an
/// even number of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(
    /// Big-endian, without leading zeros.
    Vec<u8>,
);

/// The reason of a revocation, for people: each reason has the same effect. The reasons of RFC 5280
/// that concern other lists, or an authority, are absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// None was given.
    #[default]
    Unspecified,
    /// The private key is, or may be, in other hands.
    KeyCompromise,
    /// The holder's name or role is another now.
    AffiliationChanged,
    /// Another certificate replaces it.
    Superseded,
    /// The node, client or operator is no more.
    CessationOfOperation,
    /// The holder may no longer do what its role may.
    PrivilegeWithdrawn,
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The certificate's number.
    pub serial: Serial,
    /// The time at which it was added to the list.
    pub at: SystemTime,
    /// The reason of this entry. A later revocation does not change it.
    pub reason: Reason,
}

/// An authority's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// 1 for the first list, and one more for each that replaces another.
    pub number: u64,
    /// The time from which on it counts no more.
    pub next_update: SystemTime,
    /// In the order in which they were added.
    pub revoked: Vec<Revoked>,
}

impl RevocationList {
    /// The entry of a certificate, if it is revoked.
    #[must_use]
    pub fn entry(&self, serial: &Serial) -> Option<&Revoked> {
        self.revoked.iter().find(|entry| entry.serial == *serial)
    }
}

impl Authority {
    /// The list in `dir`; `None` if there is none yet.
    ///
    /// # Errors
    /// If it can't be read; [`CertificateError::List`] if it is not one list of this authority.
    pub fn revocation_list(&self, dir: &Path) -> Result<Option<RevocationList>, CertificateError> {
        let path = dir.join(LIST_FILE);
        let pem = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            pem => pem.map_err(|source| CertificateError::Io { path: path.clone(), source })?,
        };
        self.list_of(&pem).map(Some).map_err(|problem| CertificateError::List { path, problem })
    }

    /// Revokes certificates: replaces the list in `dir` by one that has these too, and counts from
    /// now on for `lasts`, but not beyond the authority's own end. Without serials it renews the
    /// list, or makes the first. A certificate that is revoked already keeps its entry. The caller
    /// excludes other writers of `dir`.
    ///
    /// # Errors
    /// [`CertificateError::NoListSigner`]; [`CertificateError::Ended`]; [`CertificateError::List`]; or
    /// a file can't be read or written. The list in `dir` stays as it is.
    pub fn revoke(
        &self,
        dir: &Path,
        serials: &[Serial],
        reason: Reason,
        lasts: Duration,
    ) -> Result<RevocationList, CertificateError> {
        if !self.issuer.key_usages().contains(&KeyUsagePurpose::CrlSign) {
            return Err(CertificateError::NoListSigner { path: dir.join("ca.pem") });
        }
        let now = SystemTime::now();
        if self.ends <= now {
            return Err(CertificateError::Ended { path: dir.join("ca.pem") });
        }
        let (last, mut revoked) = match self.revocation_list(dir)? {
            Some(list) => (list.number, list.revoked),
            None => (0, Vec::new()),
        };
        for serial in serials {
            if revoked.iter().all(|entry| entry.serial != *serial) {
                revoked.push(Revoked { serial: serial.clone(), at: now, reason });
            }
        }
        let list = RevocationList { number: last + 1, next_update: self.ends.min(now + lasts), revoked };
        let pem = self.sign_list(&list, now)?;
        // Read back before it replaces the record. Times have whole seconds there.
        let (path, problem) = (dir.join(LIST_FILE), "can't be made");
        let list = self.list_of(&pem).map_err(|_| CertificateError::List { path: path.clone(), problem })?;
        replace(&path, &pem, CERTIFICATE_MODE)?;
        Ok(list)
    }

    fn sign_list(&self, list: &RevocationList, now: SystemTime) -> Result<String, CertificateError> {
        let entry = |entry: &Revoked| RevokedCertParams {
            serial_number: entry.serial.for_rcgen(),
            revocation_time: entry.at.into(),
            reason_code: Some(entry.reason.code()),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: (now - CLOCKS_DIFFER).into(),
            next_update: list.next_update.into(),
            crl_number: SerialNumber::from(list.number),
            issuing_distribution_point: None,
            revoked_certs: list.revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }

    fn list_of(&self, pem: &str) -> Result<RevocationList, &'static str> {
        if pem.matches("-----BEGIN X509 CRL-----").count() != 1 {
            return Err("does not hold one revocation list in PEM");
        }
        let malformed = "holds a malformed revocation list";
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| malformed)?;
        let (_, list) = CertificateRevocationList::from_der(&pem.contents).map_err(|_| malformed)?;
        let (_, own) =
            x509_parser::pem::parse_x509_pem(self.certificate_pem.as_bytes()).map_err(|_| "can't be compared")?;
        let own = own.parse_x509().map_err(|_| "can't be compared")?;
        if list.verify_signature(own.public_key()).is_err() {
            return Err("is not by the authority beside it");
        }
        let number = list.crl_number().and_then(|number| u64::try_from(number).ok()).ok_or(malformed)?;
        let next_update = list.next_update().and_then(time_of).ok_or(malformed)?;
        let entry = |entry: &RevokedCertificate<'_>| {
            Some(Revoked {
                serial: Serial::of(entry.raw_serial()),
                at: time_of(entry.revocation_date)?,
                reason: entry.reason_code().map_or(Reason::Unspecified, |(_, code)| Reason::of_code(code.0)),
            })
        };
        let revoked = list.iter_revoked_certificates().map(entry).collect::<Option<_>>().ok_or(malformed)?;
        Ok(RevocationList { number, next_update, revoked })
    }
}

impl Serial {
    /// 126 random bits, in 16 bytes. By default rcgen would derive it from the key: then two
    /// certificates of one request could only be revoked together.
    pub(super) fn random() -> Self {
        let mut bytes: [u8; 16] = rand::random();
        // Positive, and of the same length always.
        bytes[0] = (bytes[0] & 0x7f) | 0x40;
        Self(bytes.to_vec())
    }

    /// From the bytes of an ASN.1 integer.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Self(bytes[zeros..].to_vec())
    }

    pub(super) fn for_rcgen(&self) -> SerialNumber {
        SerialNumber::from_slice(&self.0)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Of hexadecimal digits, at most 20 bytes (RFC 5280), perhaps with colons between them.
impl FromStr for Serial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits: Vec<_> = text.chars().filter(|char| *char != ':').map(|char| char.to_digit(16)).collect();
        let digits = digits.into_iter().collect::<Option<Vec<u32>>>().filter(|digits| (1..=40).contains(&digits.len()));
        let digits = digits.ok_or("give up to 40 hexadecimal digits, as `certs list` shows them")?;
        let bytes: Vec<u8> = digits.rchunks(2).rev().filter_map(byte).collect();
        let serial = Self::of(&bytes);
        if serial.0.is_empty() { Err("0 is no certificate's serial".to_owned()) } else { Ok(serial) }
    }
}

fn byte(digits: &[u32]) -> Option<u8> {
    u8::try_from(digits.iter().fold(0, |byte, digit| byte * 16 + digit)).ok()
}

impl Reason {
    /// In the order of their codes in RFC 5280.
    pub const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// Its name, as in RFC 5280, in small letters with hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }

    const fn code(self) -> RevocationReason {
        match self {
            Self::Unspecified => RevocationReason::Unspecified,
            Self::KeyCompromise => RevocationReason::KeyCompromise,
            Self::AffiliationChanged => RevocationReason::AffiliationChanged,
            Self::Superseded => RevocationReason::Superseded,
            Self::CessationOfOperation => RevocationReason::CessationOfOperation,
            Self::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }
    }

    /// One that this module does not write counts as none.
    fn of_code(code: u8) -> Self {
        Self::ALL.into_iter().find(|reason| reason.code() as u8 == code).unwrap_or_default()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|reason| reason.name() == text);
        found.ok_or_else(|| format!("give one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_positive_random_and_read_as_it_is_shown() {
        let serials: std::collections::BTreeSet<_> = (0..1000).map(|_| Serial::random()).collect();
        assert_eq!(serials.len(), 1000);
        for serial in &serials {
            let shown = serial.to_string();
            assert!(shown.len() == 32 && ('4'..='7').contains(&shown.chars().next().expect("a digit")), "{shown}");
            assert_eq!(shown.parse().as_ref(), Ok(serial));
            assert_eq!(Serial::of(&[&[0, 0], &*serial.0].concat()), *serial, "leading zeros are no part of it");
        }
        for (text, shown) in [("A1:0b", "a10b"), ("00001f", "1f"), ("abc", "0abc"), (&"f".repeat(40), &"f".repeat(40))]
        {
            assert_eq!(text.parse::<Serial>().expect(text).to_string(), shown);
        }
        for text in ["", ":", "0", "00", "g1", "-1", " 1", "0x1f", &"f".repeat(41)] {
            text.parse::<Serial>().expect_err(text);
        }
    }

    #[test]
    fn a_reason_is_read_as_it_is_named_and_as_it_is_signed() {
        for reason in Reason::ALL {
            assert_eq!(reason.name().parse(), Ok(reason));
            assert_eq!(Reason::of_code(reason.code() as u8), reason);
        }
        "none".parse::<Reason>().expect_err("no reason");
        assert_eq!(Reason::of_code(6), Reason::Unspecified);
    }
}
