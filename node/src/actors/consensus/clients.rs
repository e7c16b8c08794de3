//! The requests of clients that have no answer yet, and the admission of commands.

use crate::{
    actors::{
        messages::{ReadAnswer, Waiter},
        stages::Stages,
    },
    admission::{Admission, Permit},
    config::Limits,
    decisions::{
        proposals::{self, Proposals},
        reads::{self, Reads},
    },
};
use std::sync::Arc;

/// The commands and reads without an answer, and the places that commands hold.
pub(super) struct Clients {
    pub(super) proposals: Proposals<Waiter, Permit>,
    pub(super) reads: Reads<ReadAnswer>,
    /// Effects of the decision that runs. Kept between decisions, so that none allocates.
    pub(super) proposal_effects: Vec<proposals::Effect<Waiter, Permit>>,
    pub(super) read_effects: Vec<reads::Effect<ReadAnswer>>,
    /// Admission of this node's own callers.
    pub(super) admission: Arc<Admission>,
    /// Admission of commands that other nodes forward, until they are answered.
    pub(super) admission_for_others: Arc<Admission>,
    /// Batches on their way to the state machine, for the metrics of their stages.
    pub(super) stages: Stages,
}

impl Clients {
    pub(super) fn new(
        proposals: Proposals<Waiter, Permit>,
        reads: Reads<ReadAnswer>,
        admission: Arc<Admission>,
        limits: &Limits,
    ) -> Self {
        Self {
            proposals,
            reads,
            proposal_effects: Vec::new(),
            read_effects: Vec::new(),
            admission,
            admission_for_others: Admission::new(limits.max_in_flight_proposals, limits.max_in_flight_bytes),
            stages: Stages::default(),
        }
    }
}
