//! Commands, and the callers that wait for their outcomes.
//!
//! `W` is the way to answer a caller of this node, and `C` the place that admission control gave to
//! a command of another node. Decisions see into neither: they hand a `W` back with its answer, and
//! a `C` is free once it is dropped.

use crate::{results::Applied, sessions::Refusal};
use bytes::Bytes;
use quorate_raft::{Index, Kind, Moment, NodeId, Term};
use std::time::Duration;

/// The result of a committed entry. Only the command of a session, or a skipped entry, is refused.
pub type Outcome = Result<Applied, Refusal>;

/// A command, or the payload of a session's entry without the leader's stamp, and its caller.
pub struct Proposal<W, C> {
    pub kind: Kind,
    pub payload: Bytes,
    pub caller: Caller<W, C>,
    /// The deadline: if the command was not appended or forwarded by then, it never is.
    pub until: Option<Moment>,
}

impl<W: std::fmt::Debug, C: std::fmt::Debug> std::fmt::Debug for Proposal<W, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proposal")
            .field("kind", &self.kind)
            .field("payload", &format_args!("{} B", self.payload.len()))
            .field("caller", &self.caller)
            .field("until", &self.until)
            .finish()
    }
}

impl<W, C> Proposal<W, C> {
    /// The time after which it is not forwarded: its deadline, or `patience` after it was proposed
    /// here, if that is earlier.
    pub fn ends(&self, patience: Duration) -> Option<Moment> {
        let given_up = match &self.caller {
            Caller::Here { asked, .. } => Some(asked.plus(patience)),
            Caller::There { .. } => None,
        };
        self.until.into_iter().chain(given_up).min()
    }

    /// Whether its deadline has passed.
    pub fn is_late(&self, now: Moment) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The caller that waits for the outcome of a command.
#[derive(Debug)]
pub enum Caller<W, C> {
    /// A caller of this node's handle.
    Here { asked: Moment, waiter: W },
    /// Another node, which forwarded it in this term.
    There { node: NodeId, request: u64, term: Term, permit: C },
}

impl<W, C> Caller<W, C> {
    /// Whether another node forwarded it in another term. It must not be appended then: once
    /// an entry of a later term is committed, that node takes each command that its log lacks
    /// for never appended.
    pub fn is_of_another_term(&self, now: Term) -> bool {
        matches!(self, Self::There { term, .. } if *term != now)
    }

    /// Whether it is a caller of this node that has waited for at least `patience`.
    pub fn has_waited(&self, patience: Duration, now: Moment) -> bool {
        matches!(self, Self::Here { asked, .. } if now.since(*asked) >= patience)
    }
}

/// The callers of consecutive entries, from `first` on.
#[derive(Debug)]
pub struct Callers<W, C> {
    pub first: Index,
    pub callers: Vec<Caller<W, C>>,
}

/// The outcome of a committed command that another node forwarded.
#[derive(Debug)]
pub struct Answer {
    pub node: NodeId,
    pub request: u64,
    /// `None` if the state machine halted before it applied the command: the outcome is unknown.
    pub outcome: Option<Outcome>,
}
