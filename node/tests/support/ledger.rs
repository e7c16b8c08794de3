use super::{Journal, soon};
use quorate::{Applied, Index, Node, NodeId, ProposeError};
use std::sync::{Arc, Mutex, PoisonError};

/// The outcomes that callers were told, by command. Each command is proposed once and differs
/// from all others.
#[derive(Clone, Default, Debug)]
pub struct Ledger(Arc<Mutex<Vec<Told>>>);

/// A command, and the outcome that its caller was told.
type Told = (String, Result<Applied, ProposeError>);

impl Ledger {
    /// Proposes, and records the outcome. Fails the test if there is none.
    pub async fn propose(&self, node: &Node<Journal>, command: impl Into<String>) -> Result<Applied, ProposeError> {
        let command = command.into();
        let outcome = soon("the outcome of a proposal", node.propose(command.clone())).await;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((command, outcome.clone()));
        outcome
    }

    /// The number of callers that were told an outcome.
    pub fn told(&self) -> usize {
        self.outcomes().len()
    }

    /// The number of commands that were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.outcomes().iter().filter(|(_, outcome)| outcome.is_ok()).count()
    }

    /// Checks that all journals are equal and that every outcome is true: an acknowledged command
    /// was applied exactly once, at the index and with the reply that were told; a command that
    /// failed definitely was never applied; one with an unknown outcome was applied at most once.
    pub fn check(&self, journals: &[(NodeId, Vec<(Index, String)>)]) {
        let [(_, first), others @ ..] = journals else { panic!("no journals") };
        for (node, journal) in others {
            assert_eq!(journal, first, "the state of node {node} differs");
        }
        assert!(first.is_sorted_by(|one, other| one.0 < other.0), "applied out of order: {first:?}");
        for (command, outcome) in self.outcomes() {
            let mut places = first.iter().enumerate().filter(|(_, (_, applied))| *applied == command);
            let (place, again) = (places.next(), places.next());
            assert_eq!(again, None, "{command} ({outcome:?}) was applied more than once");
            match (&outcome, place) {
                (Ok(told), Some((nth, (index, _)))) => {
                    assert_eq!(told.index, *index, "{command} was applied elsewhere than was told");
                    assert_eq!(told.reply, (nth + 1).to_string(), "{command} got another's reply");
                }
                (Ok(told), None) => panic!("{command} was acknowledged at {} and is lost", told.index),
                (Err(ProposeError::OutcomeUnknown), _) | (Err(_), None) => {}
                (Err(error), Some(_)) => panic!("{command} was applied, though its caller was told: {error}"),
            }
        }
    }

    fn outcomes(&self) -> Vec<Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
