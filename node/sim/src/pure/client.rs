//! The clients of a walk: what each of them waits for.

use crate::Plan;
use quorate_raft::{NodeId, ReadToken};
use std::time::Duration;

/// A client gives up a request after this time.
pub(super) const PATIENCE: Duration = Duration::from_millis(800);

pub(super) struct Clients {
    pub(super) clients: Vec<Client>,
    /// No command is used twice.
    next_command: u64,
    next_token: ReadToken,
    /// The read that recovery waits for, and the answer to it.
    awaited: (ReadToken, Answer),
}

pub(super) struct Client {
    pub(super) doing: Doing,
    pub(super) leader: Option<NodeId>,
}

#[derive(Clone, Copy)]
pub(super) enum Doing {
    Resting {
        until: Duration,
    },
    /// The number of commands without an outcome is `left`, of those from `first` on.
    Writing {
        since: Duration,
        first: u64,
        left: u64,
    },
    Reading {
        since: Duration,
        token: ReadToken,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    None,
    Refused,
    Served,
}

impl Clients {
    pub(super) fn new(plan: &Plan) -> Self {
        let client = || Client { doing: Doing::Resting { until: Duration::ZERO }, leader: None };
        Self {
            clients: (0..plan.clients).map(|_| client()).collect(),
            next_command: 0,
            next_token: 0,
            awaited: (0, Answer::None),
        }
    }

    /// Returns a token that no earlier read has.
    pub(super) fn token(&mut self) -> ReadToken {
        self.next_token += 1;
        self.next_token
    }

    /// Returns a token that no earlier read has, of a read that must be served in the end.
    pub(super) fn awaited_token(&mut self) -> ReadToken {
        let token = self.token();
        self.awaited = (token, Answer::None);
        token
    }

    /// Whether the read that had to be served in the end is.
    pub(super) fn is_served(&self) -> bool {
        self.awaited.1 == Answer::Served
    }

    /// Whether it was refused: there may have been no room for the entries that it had to see.
    pub(super) fn is_refused(&self) -> bool {
        self.awaited.1 == Answer::Refused
    }

    /// A read was served.
    pub(super) fn served(&mut self, token: ReadToken) {
        self.has_answer(token, Answer::Served);
    }

    fn has_answer(&mut self, token: ReadToken, answer: Answer) {
        if self.awaited.0 == token {
            self.awaited.1 = answer;
        }
    }

    /// Reserves `count` commands that were never used before.
    pub(super) fn commands(&mut self, count: u64) -> std::ops::Range<u64> {
        self.next_command += count;
        self.next_command - count..self.next_command
    }

    /// Ends the read with this token, whether it was answered or failed.
    pub(super) fn answered(&mut self, answered: ReadToken) {
        self.has_answer(answered, Answer::Refused);
        for client in &mut self.clients {
            if matches!(client.doing, Doing::Reading { token, .. } if token == answered) {
                client.doing = Doing::Resting { until: Duration::ZERO };
            }
        }
    }

    pub(super) fn next_wake(&self) -> Duration {
        let wakes = self.clients.iter().map(|client| match client.doing {
            Doing::Resting { until } => until,
            Doing::Writing { since, .. } | Doing::Reading { since, .. } => since + PATIENCE,
        });
        wakes.min().unwrap_or(Duration::MAX)
    }
}
