//! What was written and what the clients were told: a client's side of the promise.

use crate::client::ClientError;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// One write of a key that nobody else writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What became of it.
    pub told: Told,
}

/// What its client was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It is in the log for good: it must be on every node.
    Acknowledged,
    /// It did not and will not take effect: it must be on none.
    Refused,
    /// It may be on every node or on none.
    Unknown,
}

impl Told {
    /// What an outcome tells.
    pub fn of<T>(outcome: &Result<T, ClientError>) -> Self {
        match outcome {
            Ok(_) => Self::Acknowledged,
            Err(ClientError::OutcomeUnknown { .. } | ClientError::Unreadable { .. }) => Self::Unknown,
            Err(ClientError::Setup(_) | ClientError::Unreachable { .. } | ClientError::Refused { .. }) => Self::Refused,
        }
    }
}

/// Every write, noted as of unknown outcome before it is sent, and corrected when its answer comes: a writer that is
/// cut off in between leaves the right note behind.
#[derive(Clone, Debug)]
pub struct Ledger {
    writes: Arc<Mutex<Vec<Write>>>,
    acknowledged: watch::Sender<usize>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// One without entries.
    #[must_use]
    pub fn new() -> Self {
        Self { writes: Arc::default(), acknowledged: watch::Sender::new(0) }
    }

    /// Notes a write that is about to be sent, and returns its place.
    pub fn begin(&self, key: String, value: String) -> usize {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.push(Write { key, value, told: Told::Unknown });
        writes.len() - 1
    }

    /// Notes what its client was told.
    pub fn end(&self, place: usize, told: Told) {
        if let Some(write) = self.writes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
            write.told = told;
        }
        if told == Told::Acknowledged {
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }

    /// How many were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        *self.acknowledged.borrow()
    }

    /// Waits until so many are.
    pub async fn reaches(&self, count: usize) {
        // It ends only with the sender, which lives as long as this.
        let _ = self.acknowledged.subscribe().wait_for(|acknowledged| *acknowledged >= count).await;
    }

    /// Everything noted.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
