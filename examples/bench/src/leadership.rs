//! The leader that a measurement needs. All nodes have equal election timeouts, so another may be
//! elected; leadership is then transferred, and what was measured meanwhile does not count.

use crate::{
    PROGRAM,
    workload::{Failed, PATIENCE},
};
use quorate::{Consistency, Node, NodeId, StateMachine, Term};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The number of times that a setting is measured at most until one leader leads all the time.
const ATTEMPTS: u32 = 3;
/// Requests may fail this long before the status says that the leader was lost.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// Makes `leader` lead, whichever node was elected, and waits until this node can read through it.
/// Returns the term, in which it leads no longer if an election follows.
pub(crate) async fn until_led_by<M: StateMachine>(node: &Node<M>, leader: NodeId) -> Result<Term, Failed> {
    let led = async {
        loop {
            let (now, term) = leadership(node);
            if now == Some(leader) && node.read(Consistency::Linearizable, |_| ()).await.is_ok() {
                return term;
            }
            // Refused while no leader is known, or while `leader` lags; then retried.
            let _ = node.transfer(Some(leader)).await;
            sleep(ASKED_EVERY).await;
        }
    };
    let late = |_| format!("node {leader} did not become the leader within {PATIENCE:?}");
    Ok(timeout(PATIENCE, led).await.map_err(late)?)
}

/// Measures while `leader` leads in one term, and again if leadership moved. It fails if that takes
/// longer than `length` and [`PATIENCE`].
pub(crate) async fn while_led<M: StateMachine, T>(
    node: &Node<M>,
    leader: NodeId,
    length: Duration,
    measure: impl AsyncFn() -> Result<T, Failed>,
) -> Result<T, Failed> {
    for _ in 0..ATTEMPTS {
        let term = until_led_by(node, leader).await?;
        let late = || format!("not all callers had an answer {PATIENCE:?} after the end");
        let measured = async { timeout(length + PATIENCE, measure()).await.map_err(|_| late())? };
        if let Some(outcome) = in_term(node, leader, term, measured).await {
            return outcome;
        }
        eprintln!("{PROGRAM}: leadership moved; measuring again");
    }
    Err(format!("leadership moved during each of {ATTEMPTS} attempts; run it with less load on this machine").into())
}

/// The outcome of a step during which `leader` leads in this term; `None` as soon as it does not.
pub(crate) async fn in_term<M: StateMachine, T>(
    node: &Node<M>,
    leader: NodeId,
    term: Term,
    step: impl Future<Output = Result<T, Failed>>,
) -> Option<Result<T, Failed>> {
    // Looked at now and then: the status changes with each batch of entries, and to be woken by each
    // change costs what is measured. A leader that steps down leads no more in this term.
    let is_led = || leadership(node) == (Some(leader), term);
    let moved = async {
        while is_led() {
            sleep(ASKED_EVERY).await;
        }
    };
    tokio::pin!(moved);
    let outcome = tokio::select! {
        biased;
        () = &mut moved => return None,
        outcome = step => outcome,
    };
    let is_settled = if outcome.is_err() { timeout(SETTLED_AFTER, moved).await.is_err() } else { is_led() };
    is_settled.then_some(outcome)
}

fn leadership<M: StateMachine>(node: &Node<M>) -> (Option<NodeId>, Term) {
    let status = node.status();
    let status = status.borrow();
    (status.leader, status.term)
}
