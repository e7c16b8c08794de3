//! Request headers: the client's timeout, and the session of a mutation.

use super::Refusal;
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, request::Parts},
};
use quorate::SessionKey;
use std::time::Duration;
use tokio::time::Instant;

/// The client's session: 1 to 64 characters of `A-Z a-z 0-9 _ . : -`. Its first use creates it.
pub const SESSION: &str = "quorate-session";
/// The number of a mutation within its session: a whole number, the same when the
/// mutation is repeated.
pub const SERIAL: &str = "quorate-serial";

/// The client's timeout, such as `500ms`: a mutation that was not started by then never is, and a
/// read is refused.
pub const TIMEOUT: &str = "quorate-timeout";

/// The headers of a mutation.
pub(super) struct MutationHeaders {
    /// The session and serial of the mutation; `None` if the client uses no session.
    pub(super) session: Option<(SessionKey, u64)>,
    /// The client's deadline; `None` if the client sent no timeout.
    pub(super) until: Option<Instant>,
}

impl<S: Send + Sync> FromRequestParts<S> for MutationHeaders {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        // A timeout beyond the range of `Instant` counts as none.
        let until = timeout(&parts.headers)?.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(Self { session: in_session(&parts.headers)?, until })
    }
}

/// The timeout in a read's headers; `None` if the client sent none.
pub(super) struct ReadTimeout(pub(super) Option<Duration>);

impl<S: Send + Sync> FromRequestParts<S> for ReadTimeout {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        timeout(&parts.headers).map(Self)
    }
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = one(headers, TIMEOUT)? else { return Ok(None) };
    let duration = value.to_str().ok().and_then(|text| humantime::parse_duration(text).ok());
    duration.map(Some).ok_or_else(|| Refusal::BadRequest(format!("{TIMEOUT} is not a duration such as 500ms")))
}

fn in_session(headers: &HeaderMap) -> Result<Option<(SessionKey, u64)>, Refusal> {
    let refuse = |what: &str| Err(Refusal::BadRequest(what.to_owned()));
    let (session, serial) = match (one(headers, SESSION)?, one(headers, SERIAL)?) {
        (None, None) => return Ok(None),
        (Some(session), Some(serial)) => (session.as_bytes(), serial.as_bytes()),
        _ => return refuse("quorate-session and quorate-serial belong together: send both or none"),
    };
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(byte);
    let Some(key) = SessionKey::named(session).filter(|_| session.iter().all(is_allowed)) else {
        return refuse("quorate-session must be 1 to 64 characters of A-Z a-z 0-9 _ . : -");
    };
    let digits = std::str::from_utf8(serial).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(serial) => Ok(Some((key, serial))),
        None => refuse("quorate-serial is not a whole number of 64 bits"),
    }
}

pub(super) fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Refusal::BadRequest(format!("{name} is given more than once"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_headers_make_a_session_and_none_makes_none() {
        let longest = "aZ09_.:-".repeat(8);
        assert_eq!(read(&[]), Ok(None));
        for (session, serial) in [("a", 0), (&longest, u64::MAX)] {
            let expected = SessionKey::named(session.as_bytes()).map(|key| (key, serial));
            assert_eq!(read(&[(SESSION, session), (SERIAL, &serial.to_string())]), Ok(expected));
        }
    }

    #[test]
    fn a_timeout_is_a_duration() {
        let read = |headers: &[_]| timeout(&map(headers));
        assert_eq!(read(&[]), Ok(None));
        for (text, ms) in [("0ms", 0), ("500ms", 500), ("1m 2s", 62_000)] {
            assert_eq!(read(&[(TIMEOUT, text)]), Ok(Some(Duration::from_millis(ms))));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let too_long = "a".repeat(65);
        let cases: &[&[(&'static str, &str)]] = &[
            &[(SESSION, "a")],
            &[(SERIAL, "1")],
            &[(SESSION, ""), (SERIAL, "1")],
            &[(SESSION, &too_long), (SERIAL, "1")],
            &[(SESSION, "a b"), (SERIAL, "1")],
            &[(SESSION, "a"), (SERIAL, "")],
            &[(SESSION, "a"), (SERIAL, "-1")],
            &[(SESSION, "a"), (SERIAL, "+1")],
            &[(SESSION, "a"), (SERIAL, "1.0")],
            &[(SESSION, "a"), (SERIAL, "18446744073709551616")],
            &[(SESSION, "a"), (SERIAL, "1"), (SERIAL, "1")],
            &[(SESSION, "a"), (SESSION, "a"), (SERIAL, "1")],
        ];
        for case in cases {
            assert!(matches!(read(case), Err(Refusal::BadRequest(_))), "{case:?}");
        }
        for timeout in ["", "500", "-1s", "soon", "1s, 2s"] {
            assert!(matches!(super::timeout(&map(&[(TIMEOUT, timeout)])), Err(Refusal::BadRequest(_))), "{timeout}");
        }
        assert!(super::timeout(&map(&[(TIMEOUT, "1s"), (TIMEOUT, "1s")])).is_err(), "twice");
        let mut opaque = HeaderMap::new();
        opaque.insert(SESSION, HeaderValue::from_bytes(b"\xff").expect("a value"));
        opaque.insert(SERIAL, HeaderValue::from_static("1"));
        assert!(matches!(in_session(&opaque), Err(Refusal::BadRequest(_))));
    }

    fn read(headers: &[(&'static str, &str)]) -> Result<Option<(SessionKey, u64)>, Refusal> {
        in_session(&map(headers))
    }

    fn map(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        map
    }
}
