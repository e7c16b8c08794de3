//! Dates of certificates in words, beside this machine's clock: most certificates that are refused
//! for their dates are refused because a clock is wrong.

use x509_parser::time::ASN1Time;

/// The machine whose clock and files refused a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusedBy {
    /// This one: the certificate is the peer's.
    ThisMachine,
    /// The peer: the certificate is this machine's own.
    Peer,
}

/// The error text of a handshake, with the dates in words if a date is the reason: the certificate's
/// or the list's, the clock's that refused it, the time between them, and the remedy. Any other text
/// is returned as it is.
///
/// A text and no error, because QUIC passes on nothing else.
#[must_use]
pub fn explain_dates(error: &str, by: RefusedBy) -> String {
    in_words(error, by).unwrap_or_else(|| error.to_owned())
}

fn in_words(error: &str, by: RefusedBy) -> Option<String> {
    let (_, dates) = error.split_once("verification time ")?;
    let clock = leading_number(dates)?;
    let limit = |what: &str| leading_number(dates.split_once(what)?.1);
    let (whose, whose_clock, whose_list) = match by {
        RefusedBy::ThisMachine => ("its certificate", "this machine's clock", "this machine's"),
        RefusedBy::Peer => ("the peer says that this machine's certificate", "its clock", "the peer's"),
    };
    let now = date(clock);
    if let Some(begins) = limit("certificate is not valid before ") {
        let (early, begins) = (apart(begins.saturating_sub(clock)), date(begins));
        return Some(format!(
            "{whose} is not valid before {begins}, and {whose_clock} says {now}, {early} earlier: check the clocks of both machines"
        ));
    }
    if let Some(ended) = limit("certificate is not valid after ") {
        let (late, ended) = (apart(clock.saturating_sub(ended)), date(ended));
        return Some(format!(
            "{whose} expired at {ended}, and {whose_clock} says {now}, {late} later: renew it, and check the clocks of both machines"
        ));
    }
    let ended = limit("CRL is not valid after ")?;
    let (late, ended) = (apart(clock.saturating_sub(ended)), date(ended));
    Some(format!(
        "{whose_list} revocation list expired at {ended}, {late} before {now}: no certificate is accepted until there is a new one"
    ))
}

fn leading_number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// A point in time, for people.
pub(crate) fn date(unix_seconds: u64) -> String {
    let date = i64::try_from(unix_seconds).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    date.map_or_else(|| format!("{unix_seconds} s after 1970"), |date| date.to_string())
}

/// A time between two clocks, for people: in the largest unit of which it has two.
pub(crate) fn apart(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{CertificateError, Error, pki_types::UnixTime};
    use std::time::Duration;

    const HOUR: u64 = 3600;

    fn at(unix_seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds))
    }

    /// As the TLS library words it today: another wording must not pass unnoticed.
    fn worded(error: CertificateError, by: RefusedBy) -> String {
        explain_dates(&format!("handshake failed: {}", Error::InvalidCertificate(error)), by)
    }

    #[test]
    fn a_certificate_of_another_time_is_refused_with_both_dates_and_the_time_between_them() {
        let (time, not_before) = (at(1_000_000_000), at(1_000_000_000 + 3 * HOUR));
        let early = CertificateError::NotValidYetContext { time, not_before };
        assert_eq!(
            worded(early.clone(), RefusedBy::ThisMachine),
            "its certificate is not valid before Sep  9 04:46:40 2001 +00:00, and this machine's clock says \
             Sep  9 01:46:40 2001 +00:00, 3 h earlier: check the clocks of both machines"
        );
        let theirs = worded(early, RefusedBy::Peer);
        assert!(theirs.starts_with("the peer says that this machine's certificate is not valid before"), "{theirs}");
        let not_after = at(1_000_000_000 - 40 * 24 * HOUR);
        let late = worded(CertificateError::ExpiredContext { time, not_after }, RefusedBy::ThisMachine);
        assert!(late.starts_with("its certificate expired at Jul 31 01:46:40 2001") && late.contains("40 days later"));
        let next_update = at(1_000_000_000 - 100);
        let list = worded(CertificateError::ExpiredRevocationListContext { time, next_update }, RefusedBy::ThisMachine);
        assert!(list.starts_with("this machine's revocation list expired at") && list.contains("100 s before"));
        for words in [theirs, late, list] {
            assert!(words.chars().count() <= 200, "a log line has room for it: {words}");
        }
    }

    #[test]
    fn a_text_without_dates_stays_as_it_is() {
        for text in ["", "Revoked", "verification time", "verification time 5", "verification time x, after 9"] {
            assert_eq!(explain_dates(text, RefusedBy::Peer), text);
        }
    }
}
