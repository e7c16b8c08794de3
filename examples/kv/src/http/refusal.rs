//! The errors of the HTTP interface: each has a status, a code and a one-line message.

use super::messages::ErrorAnswer;
use axum::{
    Json,
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use quorate::{CallError, Index, QueryError, ReadError, Refused, SnapshotError, metrics::HttpRefusal};
use std::time::Duration;

/// The retry hint of a full disk: the node checks for space about every second.
const LOOKS_FOR_SPACE: Duration = Duration::from_secs(1);

/// An error answer. For a mutation, all except [`Refusal::OutcomeUnknown`] and
/// [`Refusal::Undecided`] mean that it did not and will not take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request cannot be parsed.
    BadRequest(String),
    /// The key, path or member does not exist.
    NotFound(String),
    /// The state of an earlier page is not kept any more: begin the listing again.
    Gone(String),
    /// The changes after the position of a watch were evicted from the history: read the state
    /// anew.
    ChangesGone {
        /// Index of the last entry that was evicted.
        floor: Index,
        /// The position of the watch.
        position: Index,
    },
    /// The current members or leader do not permit this.
    Conflict(String),
    /// The path exists, but not for this method.
    MethodNotAllowed,
    /// The `Host` is not one of this server's names.
    UnknownHost(String),
    /// The caller has not the role for the request.
    Forbidden(String),
    /// The request comes from a web page of another origin.
    ForeignPage(String),
    /// The request proves no identity, and needs one.
    Unauthenticated(String),
    /// The body's `content-type` is not the required one.
    MediaType(String),
    /// A thread of this node does not respond.
    Stuck(String),
    /// No leader is known: retry soon, or on another node.
    NoLeader,
    /// No leader is known, and data lost on this node may be the reason: an operator must act.
    DataLost(String),
    /// This node cannot prove that it is within the read's bounds: try another node.
    TooStale(String),
    /// This node did not apply in time the index that a leader confirmed: try another
    /// node, or retry.
    Behind(String),
    /// This node is a witness and has no state: ask another node.
    Witness(String),
    /// Too many requests wait: retry after this time.
    Overloaded(Duration),
    /// The client's deadline passed before the write was started.
    DeadlinePassed,
    /// This node's disk is full: try another node, or retry once there is space.
    StorageFull,
    /// The snapshot failed.
    SnapshotFailed(String),
    /// This node is stopping: try another node.
    Stopping,
    /// The key or value exceeds the limit.
    TooLarge(String),
    /// The write may or may not take effect.
    OutcomeUnknown,
    /// The state machine halted at an entry that it can't apply; the text names it.
    Halted(String),
    /// An operator excluded the write's entry from being applied.
    Skipped,
    /// An operator's change may or may not have taken effect, possibly in part; the text says
    /// how to check.
    Undecided(String),
    /// The write's session is unknown or expired.
    SessionExpired,
    /// The write's serial is older than those that its session remembers.
    StaleSerial,
}

/// The code of an error answer, for those that pass the answer on, and the reason by which it is
/// counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code {
    pub(super) code: &'static str,
    pub(super) reason: Option<HttpRefusal>,
}

impl Refusal {
    fn parts(&self) -> (StatusCode, &'static str, String) {
        let say = str::to_owned;
        match self {
            Self::BadRequest(why) => (StatusCode::BAD_REQUEST, "bad_request", why.clone()),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, "not_found", what.clone()),
            Self::Gone(what) => (StatusCode::GONE, "gone", what.clone()),
            Self::ChangesGone { floor, position } => (
                StatusCode::GONE,
                "gone",
                format!(
                    "the watch stands at index {position}, and the changes up to index {floor} are gone: list the keys \
                     anew, and watch after the index of the listing"
                ),
            ),
            Self::Conflict(why) => (StatusCode::CONFLICT, "conflict", why.clone()),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", say("this path does not support this method"))
            }
            Self::UnknownHost(why) => (StatusCode::MISDIRECTED_REQUEST, "unknown_host", why.clone()),
            Self::Forbidden(why) | Self::ForeignPage(why) => (StatusCode::FORBIDDEN, "forbidden", why.clone()),
            Self::Unauthenticated(why) => (StatusCode::UNAUTHORIZED, "unauthenticated", why.clone()),
            Self::MediaType(why) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", why.clone()),
            Self::Stuck(why) => (StatusCode::SERVICE_UNAVAILABLE, "stuck", why.clone()),
            Self::NoLeader => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_leader",
                say("no leader is known; retry soon, or on another node"),
            ),
            Self::DataLost(what) => (StatusCode::SERVICE_UNAVAILABLE, "data_lost", what.clone()),
            Self::TooStale(how) => (StatusCode::SERVICE_UNAVAILABLE, "too_stale", how.clone()),
            Self::Behind(how) => (StatusCode::SERVICE_UNAVAILABLE, "behind", how.clone()),
            Self::Halted(why) => (StatusCode::SERVICE_UNAVAILABLE, "halted", why.clone()),
            Self::Witness(why) => (StatusCode::SERVICE_UNAVAILABLE, "witness", why.clone()),
            Self::Overloaded(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                say("too much is in progress; retry after the time in `retry-after`, or else after a second"),
            ),
            Self::DeadlinePassed => (
                StatusCode::SERVICE_UNAVAILABLE,
                "deadline_passed",
                say("the deadline passed before the write was started; retry with a longer timeout"),
            ),
            Self::StorageFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "storage_full",
                say(
                    "the disk of this node is full; use another node, or free space: the node then continues by itself",
                ),
            ),
            Self::SnapshotFailed(why) => (StatusCode::INTERNAL_SERVER_ERROR, "snapshot_failed", why.clone()),
            Self::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "stopping", say("this node is stopping; use another one"))
            }
            Self::TooLarge(what) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", what.clone()),
            Self::OutcomeUnknown => (
                StatusCode::GATEWAY_TIMEOUT,
                "outcome_unknown",
                say(
                    "the write may or may not take effect; read before a retry, or retry with the same quorate-session and quorate-serial",
                ),
            ),
            Self::Skipped => (StatusCode::UNPROCESSABLE_ENTITY, "skipped", Refused::Skipped.to_string()),
            Self::Undecided(why) => (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", why.clone()),
            Self::SessionExpired => (StatusCode::CONFLICT, "session_expired", Refused::Expired.to_string()),
            Self::StaleSerial => (StatusCode::CONFLICT, "stale_serial", Refused::Stale.to_string()),
        }
    }

    /// The reason by which it is counted, if it is the fault of the caller or a limit.
    pub(super) fn reason(&self) -> Option<HttpRefusal> {
        Some(match self {
            Self::Unauthenticated(_) => HttpRefusal::Unauthenticated,
            Self::Forbidden(_) => HttpRefusal::Forbidden,
            Self::UnknownHost(_) => HttpRefusal::Host,
            Self::ForeignPage(_) => HttpRefusal::Origin,
            Self::MediaType(_) => HttpRefusal::ContentType,
            Self::BadRequest(_) | Self::MethodNotAllowed => HttpRefusal::BadRequest,
            Self::TooLarge(_) => HttpRefusal::TooLarge,
            Self::Overloaded(_) => HttpRefusal::Overloaded,
            _ => return None,
        })
    }

    /// The body of the answer.
    pub(super) fn answer(&self) -> ErrorAnswer {
        let (_, code, message) = self.parts();
        let index = match self {
            Self::ChangesGone { floor, .. } => Some(*floor),
            _ => None,
        };
        ErrorAnswer { error: code.to_owned(), message: one_line(&message), index }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, _) = self.parts();
        let mut response = (status, Json(self.answer())).into_response();
        response.extensions_mut().insert(Code { code, reason: self.reason() });
        let retry_after = match &self {
            Self::Overloaded(after) => Some(*after),
            Self::StorageFull => Some(LOOKS_FOR_SPACE),
            _ => None,
        };
        if matches!(self, Self::Unauthenticated(_)) {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self == Self::Stopping {
            // The client closes the connection after this answer, so it sends no request that
            // would be lost.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(after) = retry_after {
            // The header allows only whole seconds.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

/// Escapes control characters: some messages quote bytes from the client, including line feeds.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NoLeader => Self::NoLeader,
            CallError::Overloaded { retry_after } => Self::Overloaded(retry_after),
            CallError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            CallError::DeadlinePassed => Self::DeadlinePassed,
            CallError::StorageFull => Self::StorageFull,
            CallError::Halted { .. } => Self::Halted(error.to_string()),
            CallError::Stopped => Self::Stopping,
            CallError::Refused(Refused::Skipped) => Self::Skipped,
            CallError::Refused(Refused::Expired) => Self::SessionExpired,
            CallError::Refused(Refused::Stale) => Self::StaleSerial,
            CallError::Refused(_) => Self::BadRequest(error.to_string()),
            // Of an error that is not known here only this is certain.
            CallError::OutcomeUnknown | CallError::ReplyUnreadable { .. } | _ => Self::OutcomeUnknown,
        }
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Read(error) => error.into(),
            error => Self::Stuck(error.to_string()),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoLeader => Self::NoLeader,
            ReadError::TooStale { .. } => Self::TooStale(error.to_string()),
            ReadError::Behind { .. } => Self::Behind(error.to_string()),
            ReadError::StorageFull => Self::StorageFull,
            ReadError::Halted { .. } => Self::Halted(error.to_string()),
            ReadError::Witness => Self::Witness(error.to_string()),
            ReadError::Overloaded { retry_after } => Self::Overloaded(retry_after),
            ReadError::Stopped => Self::Stopping,
            _ => Self::Behind(error.to_string()),
        }
    }
}

impl From<SnapshotError> for Refusal {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Overloaded { retry_after } => Self::Overloaded(retry_after),
            SnapshotError::Halted { .. } => Self::Halted(error.to_string()),
            SnapshotError::Stopped => Self::Stopping,
            _ => Self::SnapshotFailed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_refusal_has_the_documented_status_code_and_shape() {
        let text = String::new;
        let cases = [
            (Refusal::BadRequest(text()), 400, "bad_request"),
            (Refusal::NotFound(text()), 404, "not_found"),
            (Refusal::Gone(text()), 410, "gone"),
            (Refusal::ChangesGone { floor: Index(2), position: Index(1) }, 410, "gone"),
            (Refusal::Conflict(text()), 409, "conflict"),
            (Refusal::MethodNotAllowed, 405, "method_not_allowed"),
            (Refusal::UnknownHost(text()), 421, "unknown_host"),
            (Refusal::Forbidden(text()), 403, "forbidden"),
            (Refusal::ForeignPage(text()), 403, "forbidden"),
            (Refusal::Unauthenticated(text()), 401, "unauthenticated"),
            (Refusal::MediaType(text()), 415, "unsupported_media_type"),
            (Refusal::Stuck(text()), 503, "stuck"),
            (Refusal::NoLeader, 503, "no_leader"),
            (Refusal::DataLost(text()), 503, "data_lost"),
            (Refusal::TooStale(text()), 503, "too_stale"),
            (Refusal::Behind(text()), 503, "behind"),
            (Refusal::Witness(text()), 503, "witness"),
            (Refusal::Overloaded(Duration::ZERO), 503, "overloaded"),
            (Refusal::DeadlinePassed, 503, "deadline_passed"),
            (Refusal::StorageFull, 503, "storage_full"),
            (Refusal::SnapshotFailed(text()), 500, "snapshot_failed"),
            (Refusal::Stopping, 503, "stopping"),
            (Refusal::TooLarge(text()), 413, "too_large"),
            (Refusal::OutcomeUnknown, 504, "outcome_unknown"),
            (Refusal::Halted(text()), 503, "halted"),
            (Refusal::Skipped, 422, "skipped"),
            (Refusal::SessionExpired, 409, "session_expired"),
            (Refusal::StaleSerial, 409, "stale_serial"),
        ];
        for (refusal, status, code) in cases {
            let response = refusal.into_response();
            assert_eq!(response.status(), status);
            let body = axum::body::to_bytes(response.into_body(), 4096).await.expect("short");
            let answer: ErrorAnswer = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(answer.error, code);
        }
    }

    #[tokio::test]
    async fn a_refusal_is_one_line_whatever_it_quotes() {
        let response = Refusal::BadRequest("unknown field `a\r\nb\u{1b}[31m é`".to_owned()).into_response();
        let body = axum::body::to_bytes(response.into_body(), 4096).await.expect("short");
        let answer: ErrorAnswer = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(answer.message, "unknown field `a\\r\\nb\\u{1b}[31m é`");
    }

    #[test]
    fn overloaded_says_when_to_retry_in_whole_seconds_and_never_at_once() {
        for (after, header) in [(0, "1"), (20, "1"), (1000, "1"), (1001, "2")] {
            let response = Refusal::Overloaded(Duration::from_millis(after)).into_response();
            assert_eq!(response.headers()[RETRY_AFTER], header);
        }
    }

    /// A request sent on a connection that is about to close would have an unknown outcome.
    #[test]
    fn a_client_of_a_stopping_node_is_told_to_close_the_connection() {
        assert_eq!(Refusal::Stopping.into_response().headers()[CONNECTION], "close");
    }

    #[test]
    fn a_full_disk_says_when_to_retry() {
        assert_eq!(Refusal::StorageFull.into_response().headers()[RETRY_AFTER], "1");
    }

    /// A client that retries on 503 and 504 retries only requests that may succeed or whose
    /// outcome is unknown.
    #[test]
    fn every_error_of_the_node_keeps_its_meaning_as_a_status_and_a_code() {
        let retry_after = Duration::from_secs(1);
        let at = quorate::Index(7);
        let calls = [
            (CallError::NoLeader, 503, "no_leader"),
            (CallError::Overloaded { retry_after }, 503, "overloaded"),
            (CallError::DeadlinePassed, 503, "deadline_passed"),
            (CallError::TooLarge { bytes: 2, max: 1 }, 413, "too_large"),
            (CallError::StorageFull, 503, "storage_full"),
            (CallError::Halted { at }, 503, "halted"),
            (CallError::Stopped, 503, "stopping"),
            (CallError::Refused(Refused::Skipped), 422, "skipped"),
            (CallError::Refused(Refused::Expired), 409, "session_expired"),
            (CallError::Refused(Refused::Stale), 409, "stale_serial"),
            (CallError::Refused(Refused::TooNew { needs: 1, cluster: 0 }), 400, "bad_request"),
            (CallError::Refused(Refused::Unreadable), 400, "bad_request"),
            (CallError::ReplyUnreadable { index: at }, 504, "outcome_unknown"),
            (CallError::OutcomeUnknown, 504, "outcome_unknown"),
        ];
        for (error, status, code) in calls {
            let (said_status, said_code, _) = Refusal::from(error).parts();
            assert_eq!((said_status.as_u16(), said_code), (status, code), "{error}");
        }
        let reads = [
            (ReadError::NoLeader, 503, "no_leader"),
            (ReadError::Behind { entries: 3 }, 503, "behind"),
            (ReadError::TooStale { age: None, entries: None }, 503, "too_stale"),
            (ReadError::StorageFull, 503, "storage_full"),
            (ReadError::Halted { at: quorate::Index(7) }, 503, "halted"),
            (ReadError::Witness, 503, "witness"),
            (ReadError::Overloaded { retry_after }, 503, "overloaded"),
            (ReadError::Stopped, 503, "stopping"),
        ];
        for (error, status, code) in reads {
            for refusal in [Refusal::from(error), Refusal::from(QueryError::Read(error))] {
                let (said_status, said_code, _) = refusal.parts();
                assert_eq!((said_status.as_u16(), said_code), (status, code), "{error}");
            }
        }
    }
}
