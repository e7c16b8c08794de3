//! The interleavings of the threads at the published lease, found by loom: the same source with loom's
//! atomics.

#[path = "lease_cell.rs"]
#[allow(clippy::duplicate_mod, reason = "here it has the atomics of loom")]
mod lease_cell;

mod atomics {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

mod decisions {
    pub(super) use crate::decisions::leases;
}

use atomics::{AtomicU64, Ordering};
use decisions::leases::Published;
use lease_cell::LeaseCell;
use loom::{sync::Arc, thread};
use quorate_raft::{Held, Index, Moment};
use std::time::Duration;

const NS: fn(u64) -> Moment = |ns| Moment(Duration::from_nanos(ns));

/// A lease that lasts for 100 ns.
fn lease(since: u64, commit: u64) -> Option<Published> {
    Published::of(Some(Held { since: NS(since), lasts: Duration::from_nanos(100) }), Index(commit))
}

/// The index that is granted at this time.
fn granted(cell: &LeaseCell, now: u64) -> Option<u64> {
    cell.grant(|| NS(now)).map(|(index, _)| index.0)
}

/// Runs this in all interleavings with at most three preemptions: without a bound, some take minutes.
fn interleave(threads: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(threads);
}

#[test]
fn a_reader_never_takes_parts_of_two_pairs() {
    interleave(|| {
        let cell = Arc::new(LeaseCell::new());
        cell.publish(lease(100, 1));
        let writer = thread::spawn({
            let cell = Arc::clone(&cell);
            move || cell.publish(lease(200, 2))
        });
        // The first lease is over at 200, the second one at 300.
        assert!(matches!(granted(&cell, 250), None | Some(2)));
        writer.join().expect("it ends");
        assert_eq!(granted(&cell, 250), Some(2));
    });
}

#[test]
fn a_read_that_begins_after_an_answer_sees_the_index_of_the_answer() {
    interleave(|| {
        let (cell, answered) = (Arc::new(LeaseCell::new()), Arc::new(AtomicU64::new(1)));
        cell.publish(lease(100, 1));
        let leader = thread::spawn({
            let (cell, answered) = (Arc::clone(&cell), Arc::clone(&answered));
            move || {
                cell.publish(lease(100, 2));
                answered.store(2, Ordering::Release);
            }
        });
        let sees = answered.load(Ordering::Acquire);
        let index = granted(&cell, 150);
        assert!(index.is_none_or(|index| index >= sees), "{index:?} after an answer at {sees}");
        leader.join().expect("it ends");
    });
}

#[test]
fn a_read_that_begins_after_another_node_was_told_to_lead_gets_no_lease() {
    interleave(|| {
        let (cell, told) = (Arc::new(LeaseCell::new()), Arc::new(AtomicU64::new(0)));
        cell.publish(lease(100, 1));
        let leader = thread::spawn({
            let (cell, told) = (Arc::clone(&cell), Arc::clone(&told));
            move || {
                cell.publish(None);
                told.store(1, Ordering::Release);
            }
        });
        let is_told = told.load(Ordering::Acquire) == 1;
        let index = granted(&cell, 150);
        assert!(!is_told || index.is_none(), "another node may have written");
        leader.join().expect("it ends");
    });
}

/// The next leader writes once the lease is over, and the clock shows that time by then.
#[test]
fn a_read_that_begins_after_a_write_of_the_next_leader_gets_no_lease() {
    interleave(|| {
        let clock = Arc::new(AtomicU64::new(150));
        let (cell, written) = (Arc::new(LeaseCell::new()), Arc::new(AtomicU64::new(0)));
        cell.publish(lease(100, 1));
        let next = thread::spawn({
            let (clock, written) = (Arc::clone(&clock), Arc::clone(&written));
            move || {
                clock.store(200, Ordering::Release);
                written.store(1, Ordering::Release);
            }
        });
        let is_written = written.load(Ordering::Acquire) == 1;
        let index = cell.grant(|| NS(clock.load(Ordering::Acquire))).map(|(index, _)| index);
        assert!(!is_written || index.is_none(), "a read by a lease that is over");
        next.join().expect("it ends");
    });
}

#[test]
fn the_clock_is_read_after_the_pair_was_taken() {
    interleave(|| {
        let cell = LeaseCell::new();
        cell.publish(lease(100, 1));
        let grant = cell.grant(|| {
            cell.publish(None);
            NS(150)
        });
        assert_eq!(grant, Some((Index(1), false)), "the pair was taken by then");
    });
}

#[test]
fn one_reader_of_each_lease_asks_for_its_renewal() {
    interleave(|| {
        let cell = Arc::new(LeaseCell::new());
        cell.publish(lease(100, 1));
        let asks = |cell: &LeaseCell| cell.grant(|| NS(170)).is_some_and(|(_, asks)| asks);
        let other = thread::spawn({
            let cell = Arc::clone(&cell);
            move || asks(&cell)
        });
        let this = asks(&cell);
        assert!(this != other.join().expect("it ends"), "one of the two");
        cell.publish(lease(200, 1));
        assert!(!cell.grant(|| NS(210)).expect("a lease").1, "it is young");
        assert!(cell.grant(|| NS(270)).expect("a lease").1);
    });
}
