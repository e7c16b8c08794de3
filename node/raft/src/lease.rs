//! The leader's lease: for how long it may answer reads without asking anybody (Ongaro's thesis, §6.4.1).
//!
//! **The promise.** A voter that hears a leader refuses every vote and pre-vote, and stands for nothing itself, until its own shortest
//! election timeout has passed since (`Replica::refuses_elections`). A later term does not end the promise, nor does a restart. The
//! answer to a heartbeat states the promise, as a duration ([`Promise`]). Settings may differ between nodes, for a while or for good:
//! a leader relies on what was stated, and never on its own setting.
//!
//! **On disk first.** A promise is on the voter's disk before it is stated (`HardState::promise`); until then the answers state what
//! is on the disk already, or none. A node that starts can't know when it heard a leader last: it refuses for as long as the promise
//! on its disk from its start on, also if its setting is shorter now. When that time is over, no promise of an earlier run is in force
//! any more, and the next write of the hard state may replace the longer promise by that of the present run.
//!
//! **The lease.** A round is opened at a moment, by the leader's clock; no heartbeat that names it can have left before. When a
//! quorum has answered the round, each of that quorum heard the leader after that moment. The lease counts from that moment, never
//! from the answers, and lasts as the longest promise that a quorum has reached, in each half of the configuration: then every other
//! quorum has a member whose promise is not over. The leader counts as one of them, with its own promise. The lease ends earlier than
//! that promise by what [`ClockDrift`] allows two clocks to differ in the meantime. A voter that states no promise confirms a round for
//! reads that wait for it, and backs no lease.
//!
//! **The argument.** While the lease holds, nobody else leads in a later term, so nobody else commits. A leader that committed
//! something in its own term knows of everything that was committed before (thesis §6.4, step 1). So what it takes for
//! committed at such a moment is all that is committed. Who reads at that index gets a state of that moment; and if the
//! clock was looked at after the read was asked for, the moment lies between the question and the answer, however late that comes.
//!
//! Three things are exempt from the promise, and each is no danger:
//! - A node that stated no promise keeps none at its start, or a new cluster would elect nobody for a while. No lease rests on it. An
//!   answer that states one leaves after the write that made the promise durable, so that a node without one on its disk stated
//!   none; but for one whose directory was emptied, which votes only for a candidate with an empty log, and none of those wins any
//!   more once something was committed, as the lease requires.
//! - A configuration that is appended ends the lease and every round that was opened before: another quorum counts from then on.
//! - Who is asked by its leader to take over at once is elected in spite of the promise. Before it asks, the leader gives its lease
//!   up ([`Lease::give_up`]).
//!
//! The margin is the leader's own setting: it is a statement about clocks, and not about what another node does.
//!
//! The clock must be monotonic, and count the time for which the machine was suspended. A machine whose clock stands still while it
//! does, and whose kernel is not told, must not serve from a lease.

use crate::{
    ids::Moment,
    mutants::{Mutant, live},
};
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// For how long a voter votes for nobody after it heard a leader, in microseconds: at most 71 minutes. 0 is no promise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Promise(pub u32);

impl Promise {
    /// No promise.
    pub const NONE: Self = Self(0);

    /// The longest promise that `kept` fulfils: never longer than that.
    #[must_use]
    pub fn of(kept: Duration) -> Self {
        Self(u32::try_from(kept.as_micros()).unwrap_or(u32::MAX))
    }

    /// For how long it lasts after a leader was heard.
    #[must_use]
    pub fn lasts(self) -> Duration {
        Duration::from_micros(self.0.into())
    }
}

/// How far the clocks of two nodes may drift apart.
///
/// While the slower of the two shows an interval, the faster one shows at most `per_mille` thousandths of it more, and `fixed` on top.
/// The kernel steers a monotonic clock by 500 millionths, an operator by a tenth at most; crystals are off by 100 millionths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockDrift {
    /// Thousandths of the interval; default 100.
    pub per_mille: u16,
    /// On top of that, for what is rounded; default 1 ms.
    pub fixed: Duration,
}

impl Default for ClockDrift {
    fn default() -> Self {
        Self { per_mille: 100, fixed: Duration::from_millis(1) }
    }
}

impl ClockDrift {
    /// For how long a promise of so long surely lasts, by any other clock; zero if that can't be said of any time.
    #[must_use]
    pub fn surely_within(&self, promise: Duration) -> Duration {
        if live(Mutant::LeaseWithoutMargin) {
            return promise;
        }
        let spared = promise * u32::from(self.per_mille.min(1000)) / 1000;
        promise.saturating_sub(spared).saturating_sub(self.fixed)
    }
}

/// What a leader knows of its lease.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct Lease {
    held: Option<Held>,
    is_given_up: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Held {
    since: Moment,
    lasts: Duration,
}

impl Held {
    fn ends(self) -> Moment {
        self.since.plus(self.lasts)
    }
}

impl Lease {
    /// A quorum answered a round that was opened at `opened`, with promises that surely last so long by this node's clock.
    pub(crate) fn confirmed(&mut self, opened: Moment, lasts: Duration) {
        let held = Held { since: opened, lasts };
        if !self.is_given_up && self.held.is_none_or(|before| held.ends() > before.ends()) {
            self.held = Some(held);
        }
    }

    /// How much is left of the lease; `None` if it does not hold. `now` is a look at the clock after the read was asked for.
    #[must_use]
    pub(crate) fn left(&self, now: Moment) -> Option<Duration> {
        let Held { since, lasts } = self.held?;
        lasts.checked_sub(now.since(since)).filter(|left| !left.is_zero())
    }

    /// For how long it lasts in all; zero if there is none.
    #[must_use]
    pub(crate) fn lasts(&self) -> Duration {
        self.held.map_or(Duration::ZERO, |held| held.lasts)
    }

    /// The lease is over; the next round that is opened may begin another.
    pub(crate) fn end(&mut self) {
        self.held = None;
    }

    /// The lease is over, and no round begins another until [`Lease::take_up`].
    pub(crate) fn give_up(&mut self) {
        self.end();
        self.is_given_up = true;
    }

    /// Rounds may begin a lease again.
    pub(crate) fn take_up(&mut self) {
        self.is_given_up = false;
    }
}
