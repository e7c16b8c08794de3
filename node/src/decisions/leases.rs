//! The lease that callers read by without asking `Consensus`: what of it is published, and what a
//! caller may take from it.
//!
//! After each rule, and before any effect of that rule is performed, `Consensus` publishes the pair
//! of the lease's end and the commit index ([`Published::of`]). Two things follow.
//! - No caller is answered for an entry that the published pair does not cover: the answer comes
//!   from an effect. So a read that begins after the answer takes that pair or a later one.
//! - A lease that a rule ended is withdrawn before the message leaves that lets another node lead
//!   (`TimeoutNow`), and before a new configuration is sent or written.
//!
//! **The argument.** A caller takes the pair first and reads the clock then. If the lease is not over
//! at that time, it held when the pair was taken, which lies between the call and the answer. All
//! that was acknowledged by then was committed by this leader, or by an earlier one, and the commit
//! index covers it. What comes after that moment, the end of the lease included, does no harm: the
//! state is read at that index or a later one.

use quorate_raft::{Held, Index, Moment};

/// The pair that is published: both of one term, as they were after one rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// The lease is over at this moment.
    pub until: Moment,
    /// A read after this moment renews the lease: less than half of it is left.
    pub renew_after: Moment,
    /// The leader's commit index.
    pub commit: Index,
}

/// The permission to read by a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByLease {
    /// The read may run when this index is applied.
    pub index: Index,
    pub is_to_renew: bool,
}

impl Published {
    /// The pair to publish after a rule: of the lease as it is then, and the commit index.
    #[must_use]
    pub fn of(lease: Option<Held>, commit: Index) -> Option<Self> {
        let lease = lease?;
        Some(Self { until: lease.ends(), renew_after: lease.since.plus(lease.lasts - lease.lasts / 2), commit })
    }

    /// The permission to read at `now`, which the caller read from the clock after it took this pair.
    #[must_use]
    pub fn grant(&self, now: Moment) -> Option<ByLease> {
        (now < self.until).then_some(ByLease { index: self.commit, is_to_renew: now > self.renew_after })
    }
}

#[cfg(test)]
mod tests {
    use super::{ByLease, Published};
    use quorate_raft::{Held, Index, Moment};
    use std::time::Duration;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const AT: fn(u64) -> Moment = |ms| Moment(MS(ms));

    #[test]
    fn a_lease_grants_the_commit_index_until_it_is_over() {
        let published = Published::of(Some(Held { since: AT(100), lasts: MS(134) }), Index(7)).expect("a lease");
        let grant = |now| published.grant(AT(now));
        assert_eq!(grant(100), Some(ByLease { index: Index(7), is_to_renew: false }));
        assert_eq!(grant(233).map(|granted| granted.index), Some(Index(7)));
        assert_eq!(grant(234), None);
        assert_eq!(Published::of(None, Index(7)), None);
    }

    #[test]
    fn a_read_in_the_second_half_renews_the_lease() {
        let published = Published::of(Some(Held { since: AT(100), lasts: MS(134) }), Index(7)).expect("a lease");
        let renews = |now| published.grant(AT(now)).is_some_and(|granted| granted.is_to_renew);
        assert!(!renews(167) && renews(168));
    }

    #[test]
    fn a_lease_without_a_duration_grants_nothing() {
        let published = Published::of(Some(Held { since: AT(100), lasts: MS(0) }), Index(7)).expect("a lease");
        assert_eq!(published.grant(AT(100)), None);
    }
}
