//! Proposals, as the node's handle makes them: options, admission, and the wait for the answer.

use crate::{
    actors::messages::{Offer, Request, Told, Waiter},
    decisions::callers::Outcome,
    error::{ProposeError, SessionError},
    machine::StateMachine,
    node::Node,
    reports::stage_times::StageRecord,
    results::Applied,
    sessions::Refusal,
};
use bytes::Bytes;
use quorate_metrics::{NodeMetrics, ProposalResult};
use quorate_raft::{
    Kind,
    session::{self, SessionKey},
};
use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};

impl<M: StateMachine> Node<M> {
    /// Replicates a command and applies it on every node; any node takes it and forwards it
    /// to the leader.
    ///
    /// Resolves once the command is committed (durable on a majority) and applied on the leader. To
    /// drop the future cancels nothing: the command may still be applied.
    ///
    /// ```no_run
    /// # use quorate::{Node, ProposeError};
    /// # use std::time::Duration;
    /// # async fn run(node: Node<()>) -> Result<(), Box<dyn std::error::Error>> {
    /// let applied = node.propose("increment").await?;
    /// println!("entry {} returned {:?}", applied.index, applied.reply);
    ///
    /// match node.propose("increment").within(Duration::from_secs(1)).await {
    ///     Ok(applied) => println!("entry {}", applied.index),
    ///     Err(ProposeError::OutcomeUnknown) => println!("it may or may not take effect"),
    ///     Err(definite) => println!("it did not and will not take effect: {definite}"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Only [`ProposeError::OutcomeUnknown`] may take effect after all; every other error means
    /// that it did not and will not.
    pub fn propose(&self, command: impl Into<Bytes>) -> Proposing<'_, M> {
        Proposing::new(self, command.into(), without_session)
    }

    /// Proposes a command of `command_bytes`, at once; `payload` has it with the fields of its
    /// session around it.
    pub(crate) fn offer(
        &self,
        kind: Kind,
        command_bytes: usize,
        payload: Bytes,
        until: Option<Instant>,
    ) -> Offered<'_> {
        let shared = &*self.shared;
        let answered = self.send_proposal(kind, command_bytes, payload, until);
        let end = until.and_then(|until| until.checked_add(shared.says_late_within));
        Offered {
            answered,
            end: end.map(|end| Box::pin(sleep_until(end))),
            metrics: &shared.metrics,
            stages: &shared.stages,
        }
    }

    fn send_proposal(
        &self,
        kind: Kind,
        bytes: usize,
        payload: Bytes,
        until: Option<Instant>,
    ) -> Result<oneshot::Receiver<Told>, ProposeError> {
        let shared = &*self.shared;
        let max = shared.limits.max_command_bytes;
        if bytes > max {
            return Err(ProposeError::TooLarge { bytes, max });
        }
        if !shared.lifecycle.is_running() {
            return Err(ProposeError::Stopped);
        }
        let permit = self.enter(payload.len()).map_err(|retry_after| ProposeError::Overloaded { retry_after })?;
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter { answer, asked: Instant::now(), permit };
        let request = Request::Propose(Offer { kind, payload, waiter, until });
        shared.requests.send(request).map_err(|_| ProposeError::Stopped)?;
        Ok(answered)
    }
}

/// A command that is proposed once this is awaited, and its options: see [`Node::propose`].
#[must_use = "a command is proposed once this is awaited"]
pub struct Proposing<'a, M: StateMachine, E = ProposeError> {
    pub(crate) node: &'a Node<M>,
    pub(crate) command: Bytes,
    pub(crate) until: Option<Instant>,
    pub(crate) session: Option<(SessionKey, u64)>,
    /// The proposal, once it is made.
    pub(crate) offered: Option<Offered<'a>>,
    pub(crate) convert: fn(Result<Outcome, ProposeError>) -> Result<Applied, E>,
}

/// The result of a command without a session.
pub(crate) fn without_session(outcome: Result<Outcome, ProposeError>) -> Result<Applied, ProposeError> {
    outcome?.map_err(|refusal| match refusal {
        Refusal::Skipped => ProposeError::Skipped,
        // Commands without a session are never refused like this.
        Refusal::Expired | Refusal::StaleSerial => ProposeError::OutcomeUnknown,
    })
}

/// The result of a command in a session.
pub(crate) fn in_session(outcome: Result<Outcome, ProposeError>) -> Result<Applied, SessionError> {
    Ok(outcome??)
}

impl<'a, M: StateMachine, E> Proposing<'a, M, E> {
    /// A command without a session and without a deadline.
    pub(crate) fn new(
        node: &'a Node<M>,
        command: Bytes,
        convert: fn(Result<Outcome, ProposeError>) -> Result<Applied, E>,
    ) -> Self {
        Self { node, command, until: None, session: None, offered: None, convert }
    }

    /// Sets a deadline, this long from now; `None` for none, which is the default.
    ///
    /// A command that neither this node nor the leader has accepted by then is never started, and is
    /// refused with [`ProposeError::DeadlinePassed`]. If it was accepted and is not applied, the
    /// outcome is unknown. The answer comes at most two heartbeat intervals after the deadline.
    pub fn within(self, within: impl Into<Option<Duration>>) -> Self {
        // A deadline beyond the range of the clock is none.
        let until = within.into().and_then(|within| Instant::now().checked_add(within));
        Self { until, ..self }
    }

    /// Proposes the command as `serial` of a session, once: for callers that number and repeat their
    /// commands themselves. With a serial that was applied before, the first answer is given again,
    /// and the command itself is ignored.
    ///
    /// A session that is *opened* ([`Session::key`](crate::Session::key)) takes no command once it
    /// is forgotten. One that is *named* by its client comes into being when it is first used, and
    /// again when it is used after its end: **a command that is repeated then is applied again.** So
    /// repeat soon: within [`Sessions::idle_limit`](crate::Sessions::idle_limit), and while fewer
    /// than [`Sessions::max_sessions`](crate::Sessions::max_sessions) others were used since.
    ///
    /// ```no_run
    /// # use quorate::{Node, SessionKey};
    /// # async fn run(node: Node<()>, key: SessionKey) -> Result<(), quorate::SessionError> {
    /// let first = node.propose("increment").by_session(&key, 1).await?;
    /// let again = node.propose("increment").by_session(&key, 1).await?;
    /// assert_eq!(first, again, "it was applied once");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Each error concerns this attempt only. After [`ProposeError::OutcomeUnknown`], propose the
    /// same serial again. After [`ProposeError::DeadlinePassed`] this attempt did nothing and will
    /// not; an earlier one may have been applied.
    pub fn by_session(self, key: &SessionKey, serial: u64) -> Proposing<'a, M, SessionError> {
        let Self { node, command, until, .. } = self;
        Proposing { node, command, until, session: Some((key.clone(), serial)), offered: None, convert: in_session }
    }
}

impl<M: StateMachine, E> Future for Proposing<'_, M, E> {
    type Output = Result<Applied, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { node, command, until, session, offered, convert } = &mut *self;
        let offered = offered.get_or_insert_with(|| {
            let (bytes, command) = (command.len(), mem::take(command));
            match session.take() {
                None => node.offer(Kind::Command, bytes, command, *until),
                Some((key, serial)) => {
                    let payload = session::Request::Command { key, serial, command: &command }.encode();
                    node.offer(Kind::Session, bytes, payload, *until)
                }
            }
        });
        let outcome = ready!(Pin::new(offered).poll(context));
        Poll::Ready(convert(outcome))
    }
}

impl<M: StateMachine, E> fmt::Debug for Proposing<'_, M, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, session, until, .. } = self;
        let bytes = command.len();
        f.debug_struct("Proposing").field("bytes", &bytes).field("session", session).field("until", until).finish()
    }
}

/// The outcome of a proposal, to be waited for.
pub(crate) struct Offered<'a> {
    answered: Result<oneshot::Receiver<Told>, ProposeError>,
    /// The end of the wait.
    end: Option<Pin<Box<Sleep>>>,
    metrics: &'a NodeMetrics,
    stages: &'a StageRecord,
}

impl Future for Offered<'_> {
    type Output = Result<Outcome, ProposeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { answered, end, metrics, stages } = &mut *self;
        let outcome = match answered {
            Err(error) => Err(*error),
            Ok(answered) => match (Pin::new(answered).poll(context), end) {
                (Poll::Ready(Ok(Told { outcome, measured })), _) => {
                    if let Some(measured) = measured {
                        measured.arrived(metrics, stages);
                    }
                    outcome
                }
                // An answer that never comes was lost with the node.
                (Poll::Ready(Err(_)), _) => Err(ProposeError::OutcomeUnknown),
                (Poll::Pending, None) => return Poll::Pending,
                (Poll::Pending, Some(end)) => {
                    ready!(end.as_mut().poll(context));
                    // It is in the log, or the node is too busy to answer.
                    Err(ProposeError::OutcomeUnknown)
                }
            },
        };
        let result = match &outcome {
            // Counted where it was applied, or where its answer arrived.
            Ok(Ok(_)) => return Poll::Ready(outcome),
            Ok(Err(Refusal::Expired)) => ProposalResult::SessionExpired,
            Ok(Err(Refusal::StaleSerial)) => ProposalResult::StaleSerial,
            Ok(Err(Refusal::Skipped)) => ProposalResult::Skipped,
            Err(error) => label_of(*error),
        };
        metrics.proposals(result, 1);
        Poll::Ready(outcome)
    }
}

fn label_of(error: ProposeError) -> ProposalResult {
    match error {
        ProposeError::NoLeader => ProposalResult::NoLeader,
        ProposeError::Overloaded { .. } => ProposalResult::Overloaded,
        ProposeError::DeadlinePassed => ProposalResult::DeadlinePassed,
        ProposeError::TooLarge { .. } => ProposalResult::TooLarge,
        ProposeError::StorageFull => ProposalResult::StorageFull,
        ProposeError::Halted { .. } => ProposalResult::Halted,
        ProposeError::Stopped => ProposalResult::Stopping,
        ProposeError::Skipped => ProposalResult::Skipped,
        ProposeError::OutcomeUnknown => ProposalResult::OutcomeUnknown,
    }
}
