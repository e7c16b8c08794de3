//! Sessions on the client's side: commands that may be sent again and are applied once
//! (Ongaro's thesis, §6.3).
//!
//! This module numbers commands and sends them again. The cluster's memory of them, for duplicate
//! detection, is in [`sessions`](crate::sessions).

use crate::{
    error::{ProposeError, SessionError},
    machine::StateMachine,
    node::Node,
    results::Applied,
    sessions::{Refusal, WINDOW},
};
use bytes::Bytes;
use quorate_raft::{
    Kind,
    session::{Request, SessionKey},
};
use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

/// A session that was opened with [`Node::session`]. A command proposed through it is sent again
/// until its outcome is known, and takes effect at most once.
///
/// Cheap to clone; clones are the same session. Any number of callers may propose at once: at most
/// 64 commands are in flight, the others wait for their turn. The session ends when it was not
/// used for [`Sessions::idle_limit`](crate::Sessions::idle_limit).
pub struct Session<M: StateMachine> {
    node: Node<M>,
    key: SessionKey,
    patience: Duration,
    serials: Arc<watch::Sender<Serials>>,
}

/// The default time after which a command is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause before a command is sent again; it doubles with every further attempt.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl<M: StateMachine> Node<M> {
    /// Opens a session: through it commands are sent again until their outcome is known, and take
    /// effect at most once.
    ///
    /// Tries for up to 30 s. If a retry puts the opening into the log twice, the other session is
    /// forgotten after its idle limit.
    ///
    /// # Errors
    /// As [`Node::propose`].
    pub async fn session(&self) -> Result<Session<M>, ProposeError> {
        let request = Request::Open.encode();
        let opened = until_known(Instant::now() + PATIENCE, || async {
            self.offer(Kind::Session, 0, request.clone(), None).await?.map_err(SessionError::from)
        });
        match opened.await {
            Ok(Applied { index, .. }) => Ok(Session {
                node: self.clone(),
                key: SessionKey::opened(index),
                patience: PATIENCE,
                serials: Arc::new(watch::Sender::new(Serials::default())),
            }),
            Err(SessionError::Proposal(error)) => Err(error),
            // Opening is never refused.
            Err(SessionError::SessionExpired | SessionError::StaleSerial) => Err(ProposeError::OutcomeUnknown),
        }
    }
}

impl<M: StateMachine> Session<M> {
    /// The same session, with another time after which a command is given up. Default 30 s.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The session's key, for [`Proposing::by_session`](crate::Proposing::by_session) at any node.
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Replicates a command and applies it on every node, once. It is sent again by itself after
    /// [`ProposeError::NoLeader`], [`ProposeError::Halted`], [`ProposeError::Overloaded`] and
    /// [`ProposeError::OutcomeUnknown`], with growing pauses, until its outcome is known or the
    /// session's patience ends.
    ///
    /// Dropping the future does not cancel an attempt that is in flight.
    ///
    /// # Errors
    /// Only a command with [`ProposeError::OutcomeUnknown`] may have taken effect, at most once;
    /// after every other error it did not and will not.
    pub async fn propose(&self, command: impl Into<Bytes>) -> Result<Applied, SessionError> {
        let (command, deadline) = (command.into(), Instant::now() + self.patience);
        let turn = self.turn(deadline).await?;
        let request = Request::Command { key: self.key.clone(), serial: turn.serial, command: &command }.encode();
        let bytes = command.len();
        let attempt = || async { Ok(self.node.offer(Kind::Session, bytes, request.clone(), Some(deadline)).await??) };
        until_known(deadline, attempt).await
    }

    /// Takes the next serial, once there is room: all serials in flight stay within the window that
    /// the cluster remembers.
    async fn turn(&self, deadline: Instant) -> Result<Turn, SessionError> {
        let mut watched = self.serials.subscribe();
        loop {
            let mut taken = None;
            self.serials.send_if_modified(|serials| {
                taken = serials.take();
                false
            });
            if let Some(serial) = taken {
                return Ok(Turn { serial, serials: Arc::clone(&self.serials) });
            }
            let room = timeout_at(deadline, watched.wait_for(Serials::has_room)).await;
            room.map_err(|_| ProposeError::Overloaded { retry_after: self.node.retry_after() })?
                .map_err(|_| ProposeError::Stopped)?;
        }
    }
}

/// Tries until the outcome is known, with growing pauses. Once the outcome of one attempt is
/// unknown, a later attempt's error that says nothing about it is no answer.
async fn until_known<F>(deadline: Instant, mut attempt: impl FnMut() -> F) -> Result<Applied, SessionError>
where
    F: Future<Output = Result<Applied, SessionError>>,
{
    let (mut is_unknown, mut pause) = (false, PAUSE_MIN);
    loop {
        // An attempt has a bound of its own; the part of it beyond the deadline is not waited for.
        let outcome = timeout_at(deadline, attempt()).await;
        let error = match outcome {
            Ok(Ok(applied)) => return Ok(applied),
            Ok(Err(error)) => error,
            Err(_) => SessionError::Proposal(ProposeError::OutcomeUnknown),
        };
        is_unknown |= error == SessionError::Proposal(ProposeError::OutcomeUnknown);
        let rest = match error {
            // A leader that halted transfers leadership soon, if a voter is sound.
            SessionError::Proposal(
                ProposeError::NoLeader | ProposeError::Halted { .. } | ProposeError::OutcomeUnknown,
            ) => pause,
            SessionError::Proposal(ProposeError::Overloaded { retry_after }) => pause.max(retry_after),
            // The session states this of the serial, so it holds for every attempt.
            SessionError::Proposal(ProposeError::Skipped) => return Err(error),
            _ if is_unknown => return Err(ProposeError::OutcomeUnknown.into()),
            _ => return Err(error),
        };
        if Instant::now() + rest >= deadline {
            return Err(if is_unknown { ProposeError::OutcomeUnknown.into() } else { error });
        }
        sleep(rest).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[derive(Default, Debug)]
struct Serials {
    last: u64,
    under_way: BTreeSet<u64>,
}

impl Serials {
    fn has_room(&self) -> bool {
        self.under_way.first().is_none_or(|lowest| self.last - lowest + 1 < WINDOW)
    }

    fn take(&mut self) -> Option<u64> {
        self.has_room().then(|| {
            self.last += 1;
            self.under_way.insert(self.last);
            self.last
        })
    }
}

/// A serial in flight, until it is dropped.
struct Turn {
    serial: u64,
    serials: Arc<watch::Sender<Serials>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.serials.send_modify(|serials| {
            serials.under_way.remove(&self.serial);
        });
    }
}

impl From<Refusal> for SessionError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Expired => Self::SessionExpired,
            Refusal::StaleSerial => Self::StaleSerial,
            Refusal::Skipped => Self::Proposal(ProposeError::Skipped),
        }
    }
}

impl<M: StateMachine> Clone for Session<M> {
    fn clone(&self) -> Self {
        let Self { node, key, patience, serials } = self;
        Self { node: node.clone(), key: key.clone(), patience: *patience, serials: Arc::clone(serials) }
    }
}

impl<M: StateMachine> fmt::Debug for Session<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::Index;

    #[test]
    fn no_serial_is_so_far_behind_that_it_is_forgotten() {
        let mut serials = Serials::default();
        let taken: Vec<_> = std::iter::from_fn(|| serials.take()).collect();
        assert_eq!(taken, (1..=WINDOW).collect::<Vec<_>>());
        serials.under_way.retain(|serial| *serial == 1);
        assert_eq!(serials.take(), None, "the first is still under way");
        serials.under_way.remove(&1);
        assert_eq!(serials.take(), Some(WINDOW + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_outcome_is_not_forgotten_for_a_later_attempt_that_did_nothing() {
        use ProposeError::{Halted, NoLeader, OutcomeUnknown, Stopped};
        let halted = Halted { at: Index(7) };
        let definite = SessionError::Proposal(Stopped);
        assert_eq!(tried(&[NoLeader.into(), definite]).await, Err(definite));
        assert_eq!(tried(&[OutcomeUnknown.into(), definite]).await, Err(OutcomeUnknown.into()));
        let expired = SessionError::SessionExpired;
        assert_eq!(tried(&[NoLeader.into(), expired]).await, Err(expired));
        assert_eq!(tried(&[OutcomeUnknown.into(), NoLeader.into(), expired]).await, Err(OutcomeUnknown.into()));
        assert_eq!(tried(&[OutcomeUnknown.into(), NoLeader.into()]).await, Err(OutcomeUnknown.into()));
        assert_eq!(tried(&[NoLeader.into()]).await, Err(NoLeader.into()));
        assert_eq!(tried(&[halted.into(), definite]).await, Err(definite), "another node may lead by then");
        assert_eq!(tried(&[OutcomeUnknown.into(), halted.into(), expired]).await, Err(OutcomeUnknown.into()));
        assert_eq!(tried(&[halted.into()]).await, Err(halted.into()));
    }

    /// The outcome of these attempts, with the last of them repeated.
    async fn tried(attempts: &[SessionError]) -> Result<Applied, SessionError> {
        let mut nth = 0;
        until_known(Instant::now() + Duration::from_secs(5), || {
            let outcome = attempts[nth.min(attempts.len() - 1)];
            nth += 1;
            async move { Err(outcome) }
        })
        .await
    }
}
