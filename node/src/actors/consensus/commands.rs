//! The commands of a node that have no outcome yet, and the admission of them.

use super::stages::Stages;
use crate::{
    actors::messages::Waiter,
    admission::{Admission, Permit},
    config::Limits,
    decisions::proposals::{Effect, Proposals},
};
use std::sync::Arc;

/// The commands without an outcome, and the places that they hold.
pub(super) struct Commands {
    pub(super) proposals: Proposals<Waiter, Permit>,
    /// Effects of the decision that runs. Kept between decisions, so that none allocates.
    pub(super) effects: Vec<Effect<Waiter, Permit>>,
    /// Admission of this node's own callers.
    pub(super) admission: Arc<Admission>,
    /// Admission of commands that other nodes forward, until they are answered.
    pub(super) gate_for_others: Arc<Admission>,
    /// Batches that the leader is persisting or committing, for the metrics of those stages.
    pub(super) stages: Stages,
}

impl Commands {
    pub(super) fn new(proposals: Proposals<Waiter, Permit>, admission: Arc<Admission>, limits: &Limits) -> Self {
        Self {
            proposals,
            effects: Vec::new(),
            admission,
            gate_for_others: Admission::new(limits.max_in_flight_proposals, limits.max_in_flight_bytes),
            stages: Stages::default(),
        }
    }
}
