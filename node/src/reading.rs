//! Reads through the handle of a node.
//!
//! A read needs an index that the state must have applied, and then the state. Both come from the
//! caller's own thread if they can: the index of a `Local` read is any, that of a `Lease` read stands
//! in the [published lease](crate::lease_cell), and the state is a [view](crate::views), if the
//! machine offers one and the view has applied the index. Otherwise `Consensus` is asked for the
//! index, and the query runs on the applier's thread, once the index is applied there.

use crate::{
    actors::{
        applier::{Query, Unreadable},
        messages::{ReadCaller, Request},
    },
    admission::Permit,
    decisions::{
        freshness::{Bounds, Granted},
        reads::Wants,
    },
    error::ReadError,
    machine::StateMachine,
    node::Node,
    results::{Consistency, Read},
    views::View,
};
use quorate_metrics::{ReadMode, ReadResult};
use quorate_raft::Index;
use std::time::Duration;
use tokio::{sync::oneshot, time::Instant};

/// The two ways of a query: the machine answers it, or a view. A query that this view can't answer
/// comes back.
pub(crate) struct Ways<M, Q, T> {
    pub(crate) by_machine: fn(Q, &M) -> T,
    pub(crate) by_view: fn(Q, &View<M>) -> Result<T, Q>,
}

impl<M, Q, T> Clone for Ways<M, Q, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, Q, T> Copy for Ways<M, Q, T> {}

/// When a read is answered, and what it promises.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) consistency: Consistency,
    /// Its deadline; without one, the node's settings decide.
    pub(crate) until: Option<Instant>,
}

/// A read that has to wait for the state, or for an index to read at.
pub(crate) struct Waits<Q> {
    query: Q,
    asked: Instant,
    /// The index to read at, if it is known.
    known: Option<Index>,
}

/// The result of one attempt to read.
enum Once<T, Q> {
    Read(Read<T>),
    /// The proof had become too old when the query was to run: the query and the permit
    /// for another attempt.
    TooLate((Q, Permit)),
}

impl<M: StateMachine> Node<M> {
    /// Reads this node's copy of the state machine with `query`, under a promise of freshness. The
    /// query runs on its caller's thread, if the machine offers a [view](StateMachine::view) that is
    /// fresh enough, and otherwise on the machine's thread, between two applies: keep it short.
    ///
    /// It waits for a leader, and for this node to apply what the leader confirms, for
    /// [`Timing::leader_wait`](crate::Timing::leader_wait) each; [`Node::read_within`] waits for as
    /// long as its caller says.
    ///
    /// # Errors
    /// If there is no leader, this node lags, its disk is full or its state machine halted, too much
    /// is in flight, or the node stops.
    pub async fn read<T: Send + 'static>(
        &self,
        consistency: Consistency,
        query: impl FnOnce(&M) -> T + Send + 'static,
    ) -> Result<Read<T>, ReadError> {
        self.read_by(Terms { consistency, until: None }, query, ways()).await
    }

    /// The same with a deadline, `within` from now, in place of the waits of the settings. A
    /// refusal comes at most a heartbeat interval after the deadline.
    ///
    /// # Errors
    /// As [`Node::read`]. The error at the deadline names the cause of the delay: there is no
    /// leader, or this node lags.
    pub async fn read_within<T: Send + 'static>(
        &self,
        consistency: Consistency,
        within: Duration,
        query: impl FnOnce(&M) -> T + Send + 'static,
    ) -> Result<Read<T>, ReadError> {
        self.read_by(Terms { consistency, until: deadline(within) }, query, ways()).await
    }

    async fn read_by<T, Q>(&self, terms: Terms, query: Q, ways: Ways<M, Q, T>) -> Result<Read<T>, ReadError>
    where
        T: Send + 'static,
        Q: Send + 'static,
    {
        match self.read_now(terms, query, ways) {
            Ok(outcome) => {
                // Reads that never wait must not keep a thread from its other tasks.
                tokio::task::consume_budget().await;
                outcome
            }
            Err(waits) => self.read_later(terms, waits, ways).await,
        }
    }

    /// Answers a read that waits for nothing, so it takes no place of admission control.
    pub(crate) fn read_now<T, Q>(
        &self,
        terms: Terms,
        query: Q,
        ways: Ways<M, Q, T>,
    ) -> Result<Result<Read<T>, ReadError>, Waits<Q>> {
        let shared = &*self.shared;
        let (asked, known) = self.known_index(terms.consistency);
        // After the lease was taken: the node had not ended then.
        let outcome = match known {
            _ if !shared.lifecycle.is_running() => Err(ReadError::Stopped),
            _ if shared.is_witness => Err(ReadError::Witness),
            None => return Err(Waits { query, asked, known }),
            Some(index) => match self.by_view(index, query, ways) {
                Ok(read) => Ok(read),
                Err(query) => return Err(Waits { query, asked, known }),
            },
        };
        Ok(self.counted(terms, asked, outcome))
    }

    /// Answers a read that [`Node::read_now`] did not answer.
    pub(crate) async fn read_later<T, Q>(
        &self,
        terms: Terms,
        Waits { query, asked, known }: Waits<Q>,
        ways: Ways<M, Q, T>,
    ) -> Result<Read<T>, ReadError>
    where
        T: Send + 'static,
        Q: Send + 'static,
    {
        let outcome = self.read_at((terms, known), query, ways).await;
        self.counted(terms, asked, outcome)
    }

    /// Counts a read that was asked for at this time.
    fn counted<T>(
        &self,
        terms: Terms,
        asked: Instant,
        outcome: Result<Read<T>, ReadError>,
    ) -> Result<Read<T>, ReadError> {
        let mode = match terms.consistency {
            Consistency::Linearizable => ReadMode::Linearizable,
            Consistency::Lease => ReadMode::Lease,
            Consistency::Local => ReadMode::Local,
            Consistency::Bounded { .. } => ReadMode::Bounded,
        };
        let result = match &outcome {
            Ok(_) => ReadResult::Served,
            Err(ReadError::NoLeader) => ReadResult::NoLeader,
            Err(ReadError::TooStale { .. }) => ReadResult::TooStale,
            Err(ReadError::Behind { .. }) => ReadResult::Behind,
            Err(ReadError::StorageFull) => ReadResult::StorageFull,
            Err(ReadError::Overloaded { .. }) => ReadResult::Overloaded,
            Err(ReadError::Halted { .. }) => ReadResult::Halted,
            Err(ReadError::Witness) => ReadResult::Witness,
            Err(ReadError::Stopped) => ReadResult::Stopping,
        };
        self.shared.metrics.reads(mode, result, 1);
        if outcome.is_ok() {
            self.shared.metrics.read_took(mode, asked.elapsed());
        }
        outcome
    }

    async fn read_at<T, Q>(
        &self,
        (terms, known): (Terms, Option<Index>),
        mut query: Q,
        ways: Ways<M, Q, T>,
    ) -> Result<Read<T>, ReadError>
    where
        T: Send + 'static,
        Q: Send + 'static,
    {
        let mut permit = self.enter(0).map_err(|retry_after| ReadError::Overloaded { retry_after })?;
        // A proof that is young enough now may be too old when the query runs; then the leader
        // is asked, once.
        for is_last in [false, true] {
            match self.read_once((terms, known), (query, ways), permit, is_last).await? {
                Once::Read(read) => return Ok(read),
                Once::TooLate(again) => (query, permit) = again,
            }
        }
        Err(ReadError::NoLeader)
    }

    /// The time of the call, and the index to read at, if it is known without a question.
    fn known_index(&self, consistency: Consistency) -> (Instant, Option<Index>) {
        let shared = &*self.shared;
        match consistency {
            Consistency::Local | Consistency::Bounded { max_age: None, max_entries: None } => {
                (Instant::now(), Some(Index(0)))
            }
            Consistency::Lease => {
                let mut asked = None;
                let granted = shared.lease.grant(|| shared.clock.at(*asked.insert(Instant::now())));
                if let Some((_, true)) = granted {
                    // A node that stops renews nothing.
                    let _ = shared.requests.send(Request::RenewLease);
                }
                (asked.unwrap_or_else(Instant::now), granted.map(|(index, _)| index))
            }
            Consistency::Linearizable | Consistency::Bounded { .. } => (Instant::now(), None),
        }
    }

    /// Answers a query on this thread, or gives it back.
    fn by_view<T, Q>(&self, index: Index, query: Q, ways: Ways<M, Q, T>) -> Result<Read<T>, Q> {
        let Some((index, view)) = self.shared.shared_views.at_least(index) else { return Err(query) };
        (ways.by_view)(query, &view).map(|value| Read { index, value })
    }

    async fn read_once<T, Q>(
        &self,
        (terms, known): (Terms, Option<Index>),
        (query, ways): (Q, Ways<M, Q, T>),
        permit: Permit,
        is_last: bool,
    ) -> Result<Once<T, Q>, ReadError>
    where
        T: Send + 'static,
        Q: Send + 'static,
    {
        let (shared, clock, until) = (&*self.shared, self.shared.clock, terms.until);
        let (query, index, bounded) = match known {
            Some(index) => (query, index, None),
            None => {
                let Granted { index, bounded } = self.ask(terms).await?;
                // As below: a bound that holds now holds at a moment between call and answer.
                let holds = bounded.is_none_or(|bounded| bounded.holds(clock.now()));
                match if holds { self.by_view(index, query, ways) } else { Err(query) } {
                    Ok(read) => return Ok(Once::Read(read)),
                    Err(query) => (query, index, bounded),
                }
            }
        };
        let (answer, answered) = oneshot::channel();
        let (status, wanted) = (shared.status.clone(), index);
        let run = Box::new(move |machine: Result<&M, Unreadable>, index| {
            // The read may have waited for entries. A bound that holds now holds at a moment
            // between the call and its answer: nothing is applied before the query has run, and a
            // process that stands still meanwhile only answers late.
            let holds = bounded.is_none_or(|bounded| bounded.holds(clock.now()));
            let refusal = || match bounded {
                Some(bounded) => bounded.too_stale(clock.now(), index),
                None if status.borrow().storage_full => ReadError::StorageFull,
                None => ReadError::Behind { entries: wanted.since(index) },
            };
            let outcome = match machine {
                Ok(machine) if holds => {
                    let read = Read { index, value: (ways.by_machine)(query, machine) };
                    drop(permit);
                    Ok(Once::Read(read))
                }
                Err(Unreadable::Halted(at)) => Err(ReadError::Halted { at }),
                Ok(_) if !is_last => Ok(Once::TooLate((query, permit))),
                _ => Err(refusal()),
            };
            // The caller may have left.
            let _ = answer.send(outcome);
        });
        shared.applier.do_send(Query { index, until, wants_view: true, run });
        answered.await.unwrap_or(Err(ReadError::Stopped))
    }

    /// Asks `Consensus` for a confirmed index, together with all readers that wait at the gate.
    async fn ask_together(&self) -> Result<Granted, ReadError> {
        let (joined, is_first) = self.shared.gate.join().ok_or(ReadError::Stopped)?;
        if is_first {
            self.shared.requests.send(Request::ReadersWait).map_err(|_| ReadError::Stopped)?;
        }
        joined.await.unwrap_or(Err(ReadError::Stopped))
    }

    /// Asks `Consensus` for an index to read at.
    async fn ask(&self, Terms { consistency, until }: Terms) -> Result<Granted, ReadError> {
        if let (Consistency::Linearizable, None) = (consistency, until) {
            return self.ask_together().await;
        }
        let wants = match consistency {
            Consistency::Linearizable => Wants::Confirmed,
            Consistency::Lease => Wants::ByLease,
            Consistency::Local => return Ok(Granted { index: Index(0), bounded: None }),
            Consistency::Bounded { max_age, max_entries } => {
                Wants::Within { bounds: Bounds { max_age, max_entries }, called: self.shared.clock.now() }
            }
        };
        let (answer, answered) = oneshot::channel();
        let request = Request::ReadIndex(ReadCaller { answer, asked: Instant::now(), wants, until });
        self.shared.requests.send(request).map_err(|_| ReadError::Stopped)?;
        answered.await.unwrap_or(Err(ReadError::Stopped))
    }
}

/// The time `within` from now. A deadline beyond the range of the clock is none.
pub(crate) fn deadline(within: Duration) -> Option<Instant> {
    Instant::now().checked_add(within)
}

/// The ways of a query that reads the machine itself: a view is a copy of it.
fn ways<M: 'static, T, Q: FnOnce(&M) -> T>() -> Ways<M, Q, T> {
    Ways {
        by_machine: |query, machine| query(machine),
        by_view: |query, view| match view.holds::<M>() {
            Some(machine) => Ok(query(machine)),
            None => Err(query),
        },
    }
}
