//! The gate of linearizable reads: readers on any thread that wait for one answer together.
//!
//! The first reader of a group tells `Consensus` that a group waits; those that come until
//! `Consensus` takes the group only join it. So a round of heartbeats, or a round trip to the leader,
//! costs `Consensus` one message, however many readers wait for it.
//!
//! `Consensus` reads the clock after it took a group: every reader of the group has called by then.

use crate::{
    actors::messages::{ReadAnswer, ReadCaller},
    decisions::{freshness::Granted, reads::Wants},
    error::ReadError,
};
use futures_util::{FutureExt, future::Shared};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::{sync::oneshot, time::Instant};

/// The answer of a group, for each of its readers. An error means that the node has ended.
pub(crate) type Joined = Shared<oneshot::Receiver<Result<Granted, ReadError>>>;

/// The group that readers join now.
#[derive(Default)]
pub(crate) struct Gate(Mutex<Group>);

#[derive(Default)]
enum Group {
    #[default]
    None,
    Waits {
        answer: ReadAnswer,
        joined: Joined,
    },
    /// The node has ended.
    Closed,
}

impl Gate {
    /// Joins the group. `is_first` is whether this reader has to tell `Consensus` of it. `None` once
    /// the node has ended.
    pub(crate) fn join(&self) -> Option<(Joined, bool)> {
        let mut group = self.lock();
        match &*group {
            Group::Waits { joined, .. } => Some((joined.clone(), false)),
            Group::Closed => None,
            Group::None => {
                let (answer, told) = oneshot::channel();
                let joined = told.shared();
                *group = Group::Waits { answer, joined: joined.clone() };
                Some((joined, true))
            }
        }
    }

    /// Takes the group, as a caller that asks now; later readers form another.
    pub(crate) fn take(&self) -> Option<ReadCaller> {
        let mut group = self.lock();
        match std::mem::take(&mut *group) {
            Group::Waits { answer, .. } => {
                Some(ReadCaller { answer, asked: Instant::now(), wants: Wants::Confirmed, until: None })
            }
            other => {
                *group = other;
                None
            }
        }
    }

    /// Lets nobody wait any more.
    pub(crate) fn close(&self) {
        *self.lock() = Group::Closed;
    }

    fn lock(&self) -> MutexGuard<'_, Group> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Gate;
    use crate::decisions::freshness::Granted;
    use quorate_raft::Index;

    #[tokio::test]
    async fn readers_that_come_before_the_group_is_taken_get_its_answer_and_later_ones_form_another() {
        let gate = Gate::default();
        let (first, is_first) = gate.join().expect("open");
        let (second, is_second_first) = gate.join().expect("open");
        assert!(is_first && !is_second_first);
        let group = gate.take().expect("a group");
        let (later, is_later_first) = gate.join().expect("open");
        assert!(is_later_first);
        let granted = Ok(Granted { index: Index(7), bounded: None });
        group.answer.send(granted).expect("readers");
        assert_eq!((first.await, second.await), (Ok(granted), Ok(granted)));
        drop(gate.take());
        assert!(later.await.is_err(), "a group that is dropped has no answer");
        assert!(gate.take().is_none());
    }

    #[tokio::test]
    async fn no_reader_waits_at_a_closed_gate() {
        let gate = Gate::default();
        let (joined, _) = gate.join().expect("open");
        gate.close();
        assert!(joined.await.is_err() && gate.join().is_none() && gate.take().is_none());
    }
}
