//! The leader's lease: for how long it may answer reads without asking anybody (Ongaro's thesis, §6.4.1).
//!
//! **The promise.** A voter that hears a leader refuses every vote and pre-vote, and stands for nothing itself, until the shortest
//! election timeout has passed since (`Replica::refuses_elections`). A later term does not end the promise, nor does a restart:
//! who starts again can't know whom it heard last, and refuses for as long as if it had heard somebody just now.
//!
//! **The lease.** A round is opened at a moment, by the leader's clock; no heartbeat that names it can have left before. When a
//! quorum has answered the round, each of that quorum heard the leader after that moment, so nobody can be elected before
//! the promise of one of them is over. The lease counts from that moment, never from the answers, and ends earlier than the
//! promise by what [`ClockDrift`] allows two clocks to differ in the meantime.
//!
//! **The argument.** While the lease holds, nobody else leads in a later term, so nobody else commits. A leader that committed
//! something in its own term knows of everything that was committed before (thesis §6.4, step 1). So what it takes for
//! committed at such a moment is all that is committed. Who reads at that index gets a state of that moment; and if the
//! clock was looked at after the read was asked for, the moment lies between the question and the answer, however late that comes.
//!
//! Three things are exempt from the promise, and each is no danger:
//! - A member that never held or promised anything, as far as it knows, keeps none at its start, or a new cluster would elect
//!   nobody for a while. It votes only for a candidate with an empty log, and none of those wins any more once something was
//!   committed, as the lease requires.
//! - A configuration that is appended ends the lease and every round that was opened before: another quorum counts from then on.
//! - Who is asked by its leader to take over at once is elected in spite of the promise. Before it asks, the leader gives its lease
//!   up ([`Lease::give_up`]).
//!
//! The clock must be monotonic, and count the time for which the machine was suspended. A machine whose clock stands still while it
//! does, and whose kernel is not told, must not serve from a lease.

use crate::{
    ids::Moment,
    mutants::{Mutant, live},
};
use core::time::Duration;

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
pub struct Lease {
    since: Option<Moment>,
    is_given_up: bool,
}

impl Lease {
    /// A quorum answered a round that was opened at `opened`.
    pub fn confirmed(&mut self, opened: Moment) {
        if !self.is_given_up {
            self.since = self.since.max(Some(opened));
        }
    }

    /// How much is left of the lease, which lasts for `lasts` after a round was opened; `None` if it does not hold. `now` is a look
    /// at the clock after the read was asked for.
    #[must_use]
    pub fn left(&self, now: Moment, lasts: Duration) -> Option<Duration> {
        let passed = now.since(self.since?);
        lasts.checked_sub(passed).filter(|left| !left.is_zero())
    }

    /// The lease is over; the next round that is opened may begin another.
    pub fn end(&mut self) {
        self.since = None;
    }

    /// The lease is over, and no round begins another until [`Lease::take_up`].
    pub fn give_up(&mut self) {
        self.end();
        self.is_given_up = true;
    }

    /// Rounds may begin a lease again.
    pub fn take_up(&mut self) {
        self.is_given_up = false;
    }
}
