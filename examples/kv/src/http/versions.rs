//! The states that listings in progress are read from, so that all pages of a listing are of the
//! same state.
//!
//! A state is kept when the first page of a listing is not the last one. Later pages name it by its
//! log index. Any listing may use a state that is kept here: at equal indexes, states are equal.
//!
//! **Bounded:** at most [`FRESH_MAX`] states that no second page was read from and
//! [`CONTINUED_MAX`] others, so that clients that read only first pages displace no listing
//! in progress. The one that was unused for longest is dropped first, and each after [`IDLE_LIMIT`]
//! without use or [`AGE_LIMIT`] altogether. A kept state takes the keys and values that were
//! changed since, and about a kilobyte for each node of its tree in or below which one was: there
//! are 8 to 16 keys in a node.

use crate::machine::Listing;
use quorate::Index;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{task::spawn_blocking, time::Instant};

/// The maximum number of states of which only first pages were read.
const FRESH_MAX: usize = 8;
/// The maximum number of states of which later pages were read.
const CONTINUED_MAX: usize = 8;
/// The time after which an unused state is dropped; a client asks for the next page at once.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// The time after which a state is dropped even if it is used: since it was last the current one
/// at a first page.
const AGE_LIMIT: Duration = Duration::from_secs(300);
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A state, and the log index that it is of.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) index: Index,
    pub(super) listing: Listing,
}

/// The states kept by this node. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions(Arc<Mutex<Kept>>);

impl Versions {
    /// Keeps a state for later pages.
    pub(super) fn keep(&self, version: Arc<Version>) {
        let (dropped, is_swept) = {
            let mut kept = self.lock();
            (kept.keep(version, Instant::now()), std::mem::replace(&mut kept.is_swept, true))
        };
        discard(dropped);
        if !is_swept {
            tokio::spawn(self.clone().sweep());
        }
    }

    /// The state at `index`, for a later page; `None` if it is not kept any more.
    pub(super) fn at(&self, index: Index) -> Option<Arc<Version>> {
        let (found, dropped) = self.lock().at(index, Instant::now());
        discard(dropped);
        found
    }

    /// Drops what is too old, until nothing is left.
    async fn sweep(self) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let (dropped, goes_on) = {
                let mut kept = self.lock();
                let dropped = kept.expire(Instant::now());
                kept.is_swept = !kept.states.is_empty();
                (dropped, kept.is_swept)
            };
            discard(dropped);
            if !goes_on {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops states elsewhere: freeing millions of keys takes a while.
fn discard(states: Vec<State>) {
    if !states.is_empty() {
        spawn_blocking(move || drop(states));
    }
}

#[derive(Debug, Default)]
struct Kept {
    states: Vec<State>,
    /// Whether a task runs that drops old states.
    is_swept: bool,
}

#[derive(Debug)]
struct State {
    version: Arc<Version>,
    is_continued: bool,
    since: Instant,
    used: Instant,
}

impl Kept {
    /// Keeps a state; returns those that it displaces.
    fn keep(&mut self, version: Arc<Version>, now: Instant) -> Vec<State> {
        let mut dropped = self.expire(now);
        match self.states.iter_mut().find(|state| state.version.index == version.index) {
            // It is current, so it begins anew; else a listing that begins now would lose it early.
            Some(state) => (state.since, state.used) = (now, now),
            None => self.states.push(State { version, is_continued: false, since: now, used: now }),
        }
        dropped.extend(self.displace(false, FRESH_MAX));
        dropped
    }

    /// The state at `index`, and those that are dropped.
    fn at(&mut self, index: Index, now: Instant) -> (Option<Arc<Version>>, Vec<State>) {
        let mut dropped = self.expire(now);
        let found = self.states.iter_mut().find(|state| state.version.index == index).map(|state| {
            (state.is_continued, state.used) = (true, now);
            Arc::clone(&state.version)
        });
        dropped.extend(self.displace(true, CONTINUED_MAX));
        (found, dropped)
    }

    /// The state of this kind that was unused for longest, if there are more than `max`.
    fn displace(&mut self, is_continued: bool, max: usize) -> Option<State> {
        let of_kind = || (0..self.states.len()).filter(|at| self.states[*at].is_continued == is_continued);
        if of_kind().count() <= max {
            return None;
        }
        let at = of_kind().min_by_key(|at| self.states[*at].used)?;
        Some(self.states.swap_remove(at))
    }

    fn expire(&mut self, now: Instant) -> Vec<State> {
        let is_old = |state: &mut State| now - state.used > IDLE_LIMIT || now - state.since > AGE_LIMIT;
        self.states.extract_if(.., is_old).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Kv;

    #[test]
    fn first_pages_displace_no_listing_in_progress() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        for index in 0..CONTINUED_MAX as u64 {
            kept.keep(version(index), now);
            assert!(kept.at(Index(index), now).0.is_some());
        }
        for index in 100..200 {
            kept.keep(version(index), now + Duration::from_millis(index));
        }
        let later = now + Duration::from_secs(1);
        assert_eq!(kept.states.len(), CONTINUED_MAX + FRESH_MAX);
        assert!((0..CONTINUED_MAX as u64).all(|index| kept.at(Index(index), later).0.is_some()));
        assert!(kept.at(Index(191), later).0.is_none(), "the oldest first page was displaced");
        let (found, dropped) = kept.at(Index(199), later + Duration::from_millis(1));
        assert_eq!((found.map(|version| version.index), dropped.len()), (Some(Index(199)), 1));
        assert_eq!(kept.states.len(), CONTINUED_MAX + FRESH_MAX - 1);
    }

    #[test]
    fn a_state_is_dropped_when_it_is_idle_and_when_it_is_old() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        kept.keep(version(1), now);
        kept.keep(version(1), now + IDLE_LIMIT);
        assert!(kept.at(Index(1), now + IDLE_LIMIT * 2).0.is_some(), "it was used in between");
        assert!(kept.at(Index(1), now + IDLE_LIMIT * 3 + Duration::from_nanos(1)).0.is_none());
        kept.keep(version(2), now);
        let mut at = now;
        while at < now + AGE_LIMIT {
            at += IDLE_LIMIT;
            assert!(kept.at(Index(2), at).0.is_some());
        }
        assert_eq!(kept.expire(at + Duration::from_nanos(1)).len(), 1);
    }

    #[test]
    fn a_state_that_is_still_current_lasts_for_a_listing_that_begins_later() {
        let (mut kept, begun) = (Kept::default(), Instant::now());
        let mut now = begun;
        while now < begun + AGE_LIMIT {
            kept.keep(version(1), now);
            now += IDLE_LIMIT;
        }
        let last = now - IDLE_LIMIT;
        while now <= last + AGE_LIMIT {
            assert!(kept.at(Index(1), now).0.is_some(), "{:?} after its first page", now - last);
            now += IDLE_LIMIT;
        }
        assert!(kept.at(Index(1), now).0.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn states_that_are_not_asked_for_go_by_themselves_and_so_does_the_sweeper() {
        let versions = Versions::default();
        for round in 0..2 {
            versions.keep(version(round));
            assert!(versions.lock().is_swept);
            tokio::time::sleep(IDLE_LIMIT + SWEEP_INTERVAL * 2).await;
            assert!(versions.lock().states.is_empty() && !versions.lock().is_swept);
        }
    }

    fn version(index: u64) -> Arc<Version> {
        Arc::new(Version { index: Index(index), listing: Kv::default().listing() })
    }
}
