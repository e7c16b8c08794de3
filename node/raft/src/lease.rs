//! Leases: for how long a leader may answer reads without asking its peers
//! (Ongaro's thesis, §6.4.1).
//!
//! **The promise.** A voter that hears a leader denies every vote and pre-vote, and does not
//! campaign itself, until its own shortest election timeout has passed since
//! (`Replica::refuses_elections`). Neither a later term nor a restart ends the promise. The
//! answer to a heartbeat states it, as a duration ([`Promise`]). Settings may differ between
//! nodes, for a while or for good: a leader relies on the promises that were stated, and never on
//! its own setting.
//!
//! **On disk first.** A promise is on the voter's disk before it is stated (`HardState::promise`);
//! until then the answers state the promise that is on the disk already, or none. A node that
//! starts can't know when it last heard a leader. So it denies votes for the duration on its disk,
//! counted from its start, even if its setting is shorter now. After that time no promise of an
//! earlier run is in force any more, and the next write of the hard state may replace the longer
//! promise by that of the present run.
//!
//! **The lease.** A round is opened at a moment of the leader's clock, and no heartbeat that names
//! it can have left before. When a quorum has answered the round, each of that quorum heard the
//! leader after that moment. The lease counts from that moment, never from the answers, and lasts
//! as the longest promise that a quorum has reached, in each half of the configuration: then every
//! other quorum has a member whose promise is not over. The leader counts as one of them, with its
//! own promise. The lease is shorter than that promise by the difference that [`ClockDrift`] allows
//! between two clocks in the meantime. A voter that states no promise confirms a round for the
//! reads that wait for it, and backs no lease.
//!
//! **The argument.** While the lease holds, no other node leads in a later term, so no other node
//! commits. A leader that committed an entry of its own term knows of everything that was committed
//! before (thesis §6.4, step 1). So its commit index at such a moment covers all that is committed,
//! and a read at that index returns a state of that moment. If the leader read its clock after the
//! read was requested, the moment lies between request and answer, however late the answer arrives.
//!
//! Three cases are exempt from the promise, and each is safe:
//! - A node that stated no promise keeps none at its start; otherwise a new cluster would elect
//!   no leader for a while. No lease rests on such a node. An answer that states a promise leaves
//!   after the write that made the promise durable, so a node without one on its disk stated
//!   none. The exception is a node whose data directory was emptied: it votes only for a
//!   candidate with an empty log, and no such candidate wins any more once an entry was
//!   committed, which a lease requires.
//! - An appended configuration ends the lease and every round that was opened before: another
//!   quorum counts from then on.
//! - The target of a leadership transfer is elected in spite of the promise. The leader gives its
//!   lease up ([`Lease::give_up`]) before it tells the target to campaign.
//!
//! The margin is the leader's own setting: it is a statement about clocks, and not about the
//! behaviour of another node.
//!
//! The clock must be monotonic, and include the time for which the machine was suspended. A
//! machine whose clock stands still while it is suspended, unknown to its kernel, must not serve
//! from a lease.

use crate::ids::Moment;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// For how long a voter grants no vote after it heard a leader, in microseconds: at most 71
/// minutes. 0 is no promise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Promise(pub u32);

impl Promise {
    /// Backs no lease.
    pub const NONE: Self = Self(0);

    /// The longest promise that is not longer than `kept`.
    #[must_use]
    pub fn of(kept: Duration) -> Self {
        Self(u32::try_from(kept.as_micros()).unwrap_or(u32::MAX))
    }

    /// Its duration, counted from when a leader was heard.
    #[must_use]
    pub fn lasts(self) -> Duration {
        Duration::from_micros(self.0.into())
    }
}

/// The most that the clocks of two nodes may drift apart.
///
/// While the slower of the two shows an interval, the faster one shows at most `per_mille`
/// thousandths more, plus `fixed`. The kernel steers a monotonic clock by 500 millionths, an
/// operator by a tenth at most; crystals are off by 100 millionths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ClockDrift {
    /// Thousandths of the interval; default 100.
    pub per_mille: u16,
    /// Added to that, for rounding; default 1 ms.
    pub fixed: Duration,
}

impl Default for ClockDrift {
    fn default() -> Self {
        Self { per_mille: 100, fixed: Duration::from_millis(1) }
    }
}

impl ClockDrift {
    /// A drift of `per_mille` thousandths of the interval, plus `fixed`.
    #[must_use]
    pub fn new(per_mille: u16, fixed: Duration) -> Self {
        Self { per_mille, fixed }
    }

    /// The part of a promise that has certainly not passed by any other clock; zero if
    /// nothing is certain.
    #[must_use]
    pub fn surely_within(&self, promise: Duration) -> Duration {
        let spared = promise * u32::from(self.per_mille.min(1000)) / 1000;
        promise.saturating_sub(spared).saturating_sub(self.fixed)
    }
}

/// A leader's lease, if it has one.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Lease {
    held: Option<Held>,
    is_given_up: bool,
}

/// The time of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Held {
    /// The moment of the leader's clock from which it counts: its round was opened then.
    pub since: Moment,
    /// Its whole duration.
    pub lasts: Duration,
}

impl Held {
    /// The moment at which it is over.
    #[must_use]
    pub fn ends(self) -> Moment {
        self.since.plus(self.lasts)
    }

    /// The time left; `None` if it is over. `now` must be read from the clock after the read was
    /// requested.
    #[must_use]
    pub fn left(self, now: Moment) -> Option<Duration> {
        self.lasts.checked_sub(now.since(self.since)).filter(|left| !left.is_zero())
    }
}

impl Lease {
    /// A quorum answered a round that was opened at `opened`, with promises that certainly last for
    /// `lasts` by this node's clock.
    pub(crate) fn confirmed(&mut self, opened: Moment, lasts: Duration) {
        let held = Held { since: opened, lasts };
        if !self.is_given_up && self.held.is_none_or(|before| held.ends() > before.ends()) {
            self.held = Some(held);
        }
    }

    /// Its time, which may be over; `None` without a lease.
    #[must_use]
    pub(crate) fn held(&self) -> Option<Held> {
        self.held
    }

    /// Ends the lease; the next round that is opened may begin another.
    pub(crate) fn end(&mut self) {
        self.held = None;
    }

    /// Ends the lease, and no round of this leadership begins another.
    pub(crate) fn give_up(&mut self) {
        self.end();
        self.is_given_up = true;
    }
}
