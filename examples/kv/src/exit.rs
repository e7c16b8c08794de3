//! Exit codes: one enum for all commands, and the only place where an error is mapped to a code.
//!
//! Scripts rely on the codes. A code tells what to do next: look elsewhere, correct the call,
//! retry, or first find out whether a write took effect.

use crate::{
    backup::BackupError, certs::CertsError, client::ClientError, cluster::ClusterError, config::ConfigError,
    demo::DemoError, discard::DiscardError, output, recover::RecoverError, restore::RestoreError, serve::ServeError,
};
use quorate::{StartError, storage::salvage::SurveyError, transport::certificates::CertificateError};
use serde_json::json;
use std::{error::Error, fmt, io, process::ExitCode};

/// The reason of a failure; success is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// A failure without a code of its own.
    Failed = 1,
    /// The command line or the configuration is wrong: correct it.
    Usage = 2,
    /// The key or the member does not exist.
    NotFound = 3,
    /// A comparison failed, or existing data is in the way: read it and decide again.
    Conflict = 4,
    /// Nothing happened, because no leader was known, the node was overloaded or stopping, or no
    /// endpoint could be reached: retry.
    TryAgain = 5,
    /// The change may or may not have taken effect: read before the next attempt.
    OutcomeUnknown = 6,
    /// The request was refused, and will always be: it is too large, not allowed or not understood.
    Refused = 7,
}

impl Exit {
    /// The code for a server's refusal. Most follow from the HTTP status; exceptions are
    /// listed by code.
    #[must_use]
    pub fn of_refusal(code: &str, status: u16) -> Self {
        match (code, status) {
            // The answer is not a quorate-kv server's, or its internal failure: a retry may or
            // may not succeed.
            ("unexpected", _) => Self::Failed,
            ("needs_https", _) => Self::Usage,
            // A witness never has values, so a retry at the same endpoints cannot succeed.
            ("witness", _) => Self::Refused,
            (_, 404) => Self::NotFound,
            (_, 409 | 410 | 412) => Self::Conflict,
            (_, 503 | 429) => Self::TryAgain,
            (_, 504) => Self::OutcomeUnknown,
            (_, 400..=499) => Self::Refused,
            _ => Self::Failed,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TryAgain => "try_again",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Refused => "refused",
        }
    }
}

/// A failed command: its exit code, a code for programs, and one line for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    /// The code for programs: the server's code, if there is one.
    pub code: String,
    /// The message: problem and remedy.
    pub message: String,
}

impl Failure {
    /// A failure with the code of its kind.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self::coded(exit, exit.name(), message)
    }

    /// A failure with a specific code.
    pub fn coded(exit: Exit, code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self { exit, code: code.into(), message: one_line(&message.to_string()) }
    }

    /// Combines several failures of one command: the codes of the first, the messages of all.
    pub fn all(failures: Vec<Self>) -> Result<(), Self> {
        let message = failures.iter().map(|failure| &*failure.message).collect::<Vec<_>>().join("; ");
        match failures.into_iter().next() {
            Some(first) => Err(Self { message, ..first }),
            None => Ok(()),
        }
    }

    /// Prints the failure, and returns the process's exit code.
    #[must_use]
    pub fn report(&self, as_json: bool) -> ExitCode {
        if as_json {
            output::complain_json(&json!({ "error": self.code, "message": self.message }));
        } else {
            output::complain(&self.message);
        }
        ExitCode::from(self.exit as u8)
    }
}

impl<E: Exits> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::coded(error.exit(), error.code(), error)
    }
}

/// An error that ends a command.
pub trait Exits: Error {
    /// The process's exit code for this error.
    fn exit(&self) -> Exit;

    /// The code for programs.
    fn code(&self) -> String {
        self.exit().name().to_owned()
    }
}

impl Exits for ClientError {
    fn exit(&self) -> Exit {
        match self {
            Self::Setup(_) | Self::Mismatch { .. } => Exit::Usage,
            Self::Unreachable { .. } => Exit::TryAgain,
            Self::Refused { code, status, .. } => Exit::of_refusal(code, *status),
            Self::OutcomeUnknown { .. } => Exit::OutcomeUnknown,
            Self::Unreadable { .. } => Exit::Failed,
        }
    }

    fn code(&self) -> String {
        match self {
            Self::Unreachable { .. } => "unreachable".to_owned(),
            Self::Refused { code, .. } => code.clone(),
            Self::Unreadable { .. } => "unexpected".to_owned(),
            _ => self.exit().name().to_owned(),
        }
    }
}

impl Exits for BackupError {
    fn exit(&self) -> Exit {
        match self {
            Self::Exists(_) => Exit::Conflict,
            Self::Client(error) => error.exit(),
            Self::Write { .. } | Self::Damaged(_) | Self::Interrupted | Self::Io(_) => Exit::Failed,
        }
    }

    fn code(&self) -> String {
        if let Self::Client(error) = self { error.code() } else { self.exit().name().to_owned() }
    }
}

impl Exits for CertsError {
    fn exit(&self) -> Exit {
        match self {
            Self::Certificate(CertificateError::Exists { .. }) => Exit::Conflict,
            Self::Certificate(CertificateError::Request(_)) | Self::OtherKey { .. } => Exit::Refused,
            Self::Busy(_) => Exit::TryAgain,
            Self::Certificate(CertificateError::Name(_) | CertificateError::Outlasts { .. })
            | Self::Nothing
            | Self::Both
            | Self::Twice(_)
            | Self::OtherCluster { .. }
            | Self::NotRenewable { .. }
            | Self::Foreign { .. }
            | Self::Revoked(_)
            | Self::NotRevocable { .. }
            | Self::UnknownSerial { .. }
            | Self::KeyElsewhere(_) => Exit::Usage,
            Self::Certificate(_) | Self::Unverified { .. } | Self::NotARecord { .. } => Exit::Failed,
        }
    }
}

impl Exits for ConfigError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl Exits for ServeError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::Network(_) | Self::Start(StartError::Config(_) | StartError::Thread(_)) => Exit::Usage,
            Self::Start(_) | Self::InDoubt { .. } | Self::Failed(_) | Self::Impatient(_) | Self::Io(_) => Exit::Failed,
        }
    }
}

impl Exits for ClusterError {
    fn exit(&self) -> Exit {
        match self {
            Self::Certs(error) => error.exit(),
            Self::Client(error) => error.exit(),
            Self::Io(_) | Self::DidNotStart { .. } | Self::NotRunning { .. } | Self::Late { .. } => Exit::Failed,
        }
    }
}

impl Exits for DemoError {
    fn exit(&self) -> Exit {
        match self {
            // All other errors mean that the cluster broke a promise, regardless of
            // a client's code.
            Self::Cluster(ClusterError::Certs(error)) => error.exit(),
            Self::InDirectory(error, _) => error.exit(),
            _ => Exit::Failed,
        }
    }
}

impl Exits for RecoverError {
    fn exit(&self) -> Exit {
        match self {
            Self::NotTold | Self::Twice(_) | Self::Within { .. } | Self::SameCluster(_) => Exit::Usage,
            Self::InUse(_) | Self::Occupied(_) => Exit::Conflict,
            Self::Storage(_) => Exit::Failed,
        }
    }
}

impl Exits for DiscardError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(error) => error.exit(),
            Self::NotTold => Exit::Usage,
            Self::Survey(SurveyError::InUse(_)) => Exit::Conflict,
            Self::NotAlone(_) | Self::Acknowledged(_) => Exit::Refused,
            Self::Survey(_) | Self::Storage(_) => Exit::Failed,
        }
    }
}

impl Exits for RestoreError {
    fn exit(&self) -> Exit {
        match self {
            Self::SameCluster(_) => Exit::Usage,
            Self::Occupied(_) => Exit::Conflict,
            Self::Storage(_) => Exit::Failed,
        }
    }
}

impl Exits for io::Error {
    fn exit(&self) -> Exit {
        Exit::Failed
    }
}

/// Joins lines: some messages quote a file or another program.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_documented_exit_code() {
        for (code, status, exit) in [
            ("bad_request", 400, 7),
            ("not_found", 404, 3),
            ("method_not_allowed", 405, 7),
            ("conflict", 409, 4),
            ("session_expired", 409, 4),
            ("stale_serial", 409, 4),
            ("gone", 410, 4),
            ("too_large", 413, 7),
            ("unsupported_media_type", 415, 7),
            ("forbidden", 403, 7),
            ("snapshot_failed", 500, 1),
            ("no_leader", 503, 5),
            ("overloaded", 503, 5),
            ("storage_full", 503, 5),
            ("deadline_passed", 503, 5),
            ("too_stale", 503, 5),
            ("behind", 503, 5),
            ("skipped", 422, 7),
            ("halted", 503, 5),
            ("stopping", 503, 5),
            ("witness", 503, 7),
            ("outcome_unknown", 504, 6),
            ("needs_https", 400, 2),
            ("unexpected", 404, 1),
            ("unexpected", 502, 1),
        ] {
            assert_eq!(Exit::of_refusal(code, status) as u8, exit, "{code} {status}");
        }
    }

    #[test]
    fn several_failures_are_one_with_the_codes_of_the_first() {
        assert_eq!(Failure::all(vec![]), Ok(()));
        let [one, two] = [(Exit::TryAgain, "no_leader"), (Exit::Refused, "witness")]
            .map(|(exit, code)| Failure::coded(exit, code, format_args!("{code}\n said")));
        let both = Failure::coded(Exit::TryAgain, "no_leader", "no_leader said; witness said");
        assert_eq!(Failure::all(vec![one, two]), Err(both));
    }
}
