//! Trackers: they turn what is looked at now and then (lag, refusals, leases) into facts, each with a
//! delay, so that a value at a bound makes no flood of events.
//!
//! Pure: the caller gives the time.

use super::what::{LeaseEnd, What};
use quorate_raft::{Denial, NodeId, Phase};
use std::{
    collections::BTreeMap,
    mem::{Discriminant, discriminant},
};

/// A member that lacks more entries than this is behind.
const BEHIND_MIN: u64 = 10_000;
/// A member that was behind and lacks at most this many entries is up to date.
const CAUGHT_UP_MAX: u64 = 1_000;

/// The lag of the other members, as a leader sees it.
#[derive(Default, Debug)]
pub(crate) struct Lags {
    of: BTreeMap<NodeId, Lag>,
}

#[derive(Default, Debug)]
struct Lag {
    is_silent: bool,
    /// Since when it lags, if that was told.
    behind_since_ms: Option<u64>,
    /// Since when it is silent or lags, before that is told.
    doubtful_since_ms: Option<u64>,
}

impl Lags {
    /// A leadership begins or ends.
    pub(crate) fn reset(&mut self) {
        self.of.clear();
    }

    /// Forgets all but these members.
    pub(crate) fn members_are(&mut self, members: &[NodeId]) {
        self.of.retain(|member, _| members.contains(member));
    }

    /// Looks at a member that lacks this many entries; `None` if it was not heard lately. A doubt
    /// that lasts for `patience_ms` is told.
    pub(crate) fn look(&mut self, peer: NodeId, lacks: Option<u64>, patience_ms: u64, now_ms: u64) -> Option<What> {
        let lag = self.of.entry(peer).or_default();
        let is_doubtful = match lacks {
            None => !lag.is_silent,
            Some(lacks) => !lag.is_silent && lag.behind_since_ms.is_none() && lacks > BEHIND_MIN,
        };
        let lasts = match (is_doubtful, lag.doubtful_since_ms) {
            (true, Some(since)) => now_ms.saturating_sub(since) >= patience_ms,
            (true, None) => {
                lag.doubtful_since_ms = Some(now_ms);
                false
            }
            (false, _) => {
                lag.doubtful_since_ms = None;
                false
            }
        };
        if lasts {
            lag.doubtful_since_ms = None;
        }
        match lacks {
            None if lasts => {
                (lag.is_silent, lag.behind_since_ms) = (true, None);
                Some(What::FollowerSilent { peer })
            }
            Some(lacks) if lasts => {
                lag.behind_since_ms = Some(now_ms);
                Some(What::FollowerBehind { peer, lacks })
            }
            Some(lacks) if lag.is_silent => {
                (lag.is_silent, lag.behind_since_ms) = (false, Some(now_ms));
                Some(What::FollowerHeard { peer, lacks })
            }
            Some(lacks) if lacks <= CAUGHT_UP_MAX => {
                let since = lag.behind_since_ms.take()?;
                Some(What::FollowerCaughtUp { peer, after_ms: now_ms.saturating_sub(since) })
            }
            _ => None,
        }
    }
}

/// Denials that repeat one another are told once in this time.
const DENIED_EVERY_MS: u64 = 10_000;
/// The most kinds of denials that are remembered. A cluster has far fewer; of further ones, which
/// invented ids of candidates make, none is told.
const DENIED_MAX: usize = 256;

/// The votes that this node denies: a candidate that can't win asks again at each timeout.
#[derive(Default, Debug)]
pub(crate) struct Denials {
    /// In the order in which they were first told.
    told: Vec<Denied>,
}

#[derive(Debug)]
struct Denied {
    kind: (NodeId, Phase, Discriminant<Denial>),
    told_ms: u64,
    /// The last one that was not told, and the number of those before it.
    held: Option<(What, u64)>,
}

impl Denials {
    /// A candidate was answered: returns the event if it is told now. Votes that are granted always
    /// are.
    pub(crate) fn answered(&mut self, what: What, now_ms: u64) -> Option<What> {
        let What::VoteCast { candidate, phase, denial: Some(denial), .. } = &what else { return Some(what) };
        let kind = (*candidate, *phase, discriminant(denial));
        if let Some(denied) = self.told.iter_mut().find(|denied| denied.kind == kind) {
            let before = denied.held.take().map_or(0, |(_, before)| before + 1);
            denied.held = Some((what, before));
            return None;
        }
        if self.told.len() >= DENIED_MAX {
            return None;
        }
        self.told.push(Denied { kind, told_ms: now_ms, held: None });
        Some(what)
    }

    /// Looks for denials whose time is over: the last one of each kind, with the number of others.
    pub(crate) fn look(&mut self, now_ms: u64) -> Vec<What> {
        let mut found = Vec::new();
        self.told.retain_mut(|denied| {
            if now_ms.saturating_sub(denied.told_ms) < DENIED_EVERY_MS {
                return true;
            }
            let Some((mut what, before)) = denied.held.take() else { return false };
            if let What::VoteCast { more, .. } = &mut what {
                *more = before;
            }
            found.push(what);
            denied.told_ms = now_ms;
            true
        });
        found
    }
}

/// Without a refusal for this time, overload is over.
const CALM_MS: u64 = 2_000;

/// The refusals of admission control.
#[derive(Default, Debug)]
pub(crate) struct Overload {
    /// Since when callers are refused, and when the last one was.
    refuses: Option<(u64, u64)>,
}

impl Overload {
    /// Looks at admission control, which refused a caller since the last look, or did not.
    pub(crate) fn look(&mut self, has_refused: bool, inside: u64, now_ms: u64) -> Option<What> {
        match &mut self.refuses {
            None if has_refused => {
                self.refuses = Some((now_ms, now_ms));
                Some(What::OverloadBegan { inside })
            }
            Some((_, last)) if has_refused => {
                *last = now_ms;
                None
            }
            Some((since, last)) if now_ms.saturating_sub(*last) >= CALM_MS => {
                let after_ms = last.saturating_sub(*since);
                self.refuses = None;
                Some(What::OverloadEnded { after_ms })
            }
            _ => None,
        }
    }
}

/// A lease that no read renewed for this time is told to be lost. Reads that are rarer than leases
/// last would otherwise make two events each.
const UNRENEWED_MS: u64 = 10_000;

/// The lease of a leader.
#[derive(Default, Debug)]
pub(crate) struct Leases {
    /// When the lease was last seen to be held, if its loss was not told since.
    held_ms: Option<u64>,
}

/// A leader and its lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseView {
    pub(crate) leads: bool,
    pub(crate) transfers: bool,
    pub(crate) is_held: bool,
}

impl Leases {
    pub(crate) fn look(&mut self, view: LeaseView, now_ms: u64) -> Option<What> {
        if view.is_held {
            let is_new = self.held_ms.replace(now_ms).is_none();
            return is_new.then_some(What::LeaseHeld);
        }
        let held_ms = self.held_ms?;
        let cause = match view {
            LeaseView { leads: false, .. } => LeaseEnd::NotLeading,
            LeaseView { transfers: true, .. } => LeaseEnd::Transfer,
            _ if now_ms.saturating_sub(held_ms) >= UNRENEWED_MS => LeaseEnd::NotRenewed,
            _ => return None,
        };
        self.held_ms = None;
        Some(What::LeaseLost { cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_raft::{EntryId, Term};

    const PEER: NodeId = NodeId(2);

    #[test]
    fn a_member_is_silent_once_it_was_not_heard_for_the_patience_and_then_catches_up() {
        let mut lags = Lags::default();
        let mut look = |lacks, now_ms| lags.look(PEER, lacks, 300, now_ms);
        assert_eq!(look(None, 0), None, "a leader that was just elected has heard no answer yet");
        assert_eq!(look(Some(5), 50), None);
        assert_eq!(look(None, 100), None);
        assert_eq!(look(None, 399), None);
        assert_eq!(look(None, 400), Some(What::FollowerSilent { peer: PEER }));
        assert_eq!(look(None, 900), None, "told once");
        assert_eq!(look(Some(40_000), 1_000), Some(What::FollowerHeard { peer: PEER, lacks: 40_000 }));
        assert_eq!(look(Some(30_000), 1_500), None, "that it lags was told");
        assert_eq!(look(Some(1_000), 2_000), Some(What::FollowerCaughtUp { peer: PEER, after_ms: 1_000 }));
        assert_eq!(look(Some(0), 2_100), None);
    }

    #[test]
    fn a_member_is_behind_once_it_lacked_many_entries_for_the_patience() {
        let mut lags = Lags::default();
        let mut look = |lacks, now_ms| lags.look(PEER, Some(lacks), 300, now_ms);
        assert_eq!(look(10_001, 0), None);
        assert_eq!(look(10_000, 200), None, "a burst");
        assert_eq!(look(10_001, 300), None);
        assert_eq!(look(20_000, 600), Some(What::FollowerBehind { peer: PEER, lacks: 20_000 }));
        assert_eq!(look(5_000, 700), None);
        assert_eq!(look(20_000, 5_000), None, "it is behind all along");
        assert_eq!(look(900, 9_600), Some(What::FollowerCaughtUp { peer: PEER, after_ms: 9_000 }));
    }

    #[test]
    fn denials_alike_are_told_once_in_ten_seconds_with_their_number() {
        let cast = |candidate, for_term, denial, more| {
            let (candidate, last) = (NodeId(candidate), EntryId::default());
            What::VoteCast { phase: Phase::PreVote, candidate, for_term: Term(for_term), last, denial, more }
        };
        let old = |term| Some(Denial::OldTerm { term: Term(term) });
        let mut denials = Denials::default();
        assert_eq!(denials.answered(cast(2, 5, old(6), 0), 0), Some(cast(2, 5, old(6), 0)));
        for nth in 1..=3 {
            assert_eq!(denials.answered(cast(2, 5 + nth, old(6 + nth), 0), nth * 100), None, "the terms alone differ");
        }
        let other = cast(2, 5, Some(Denial::LostData), 0);
        assert_eq!(denials.answered(other.clone(), 400), Some(other), "another reason");
        assert_eq!(denials.answered(cast(3, 5, old(6), 0), 400), Some(cast(3, 5, old(6), 0)), "another candidate");
        let granted = cast(2, 5, None, 0);
        assert_eq!([1, 2].map(|ms| denials.answered(granted.clone(), ms)), [Some(granted.clone()), Some(granted)]);
        assert_eq!(denials.look(9_999), []);
        assert_eq!(denials.look(10_000), [cast(2, 8, old(9), 2)], "the last one, and two before it");
        assert_eq!(denials.answered(cast(2, 9, old(9), 0), 10_100), None, "its time began anew");
        assert_eq!(denials.look(20_000), [cast(2, 9, old(9), 0)]);
        assert_eq!(denials.look(30_000), []);
        assert!(denials.told.is_empty(), "nothing is left of it");
    }

    #[test]
    fn denials_to_invented_candidates_are_bounded() {
        let mut denials = Denials::default();
        let cast = |candidate| What::VoteCast {
            phase: Phase::Vote,
            candidate: NodeId(candidate),
            for_term: Term(1),
            last: EntryId::default(),
            denial: Some(Denial::Removed),
            more: 0,
        };
        let told = (0..10_000).filter_map(|id| denials.answered(cast(id), 0)).count();
        assert_eq!((told, denials.told.len()), (DENIED_MAX, DENIED_MAX));
    }

    #[test]
    fn overload_is_over_two_seconds_after_the_last_refusal() {
        let mut overload = Overload::default();
        assert_eq!(overload.look(false, 0, 0), None);
        assert_eq!(overload.look(true, 4_096, 100), Some(What::OverloadBegan { inside: 4_096 }));
        assert_eq!(overload.look(true, 4_096, 1_100), None);
        assert_eq!(overload.look(false, 10, 3_099), None);
        assert_eq!(overload.look(false, 10, 3_100), Some(What::OverloadEnded { after_ms: 1_000 }));
        assert_eq!(overload.look(false, 10, 9_000), None);
    }

    #[test]
    fn a_lease_is_lost_at_once_with_the_leadership_and_later_without_reads() {
        let held = LeaseView { leads: true, transfers: false, is_held: true };
        let gone = LeaseView { is_held: false, ..held };
        let lost = |cause| Some(What::LeaseLost { cause });
        let mut leases = Leases::default();
        assert_eq!(leases.look(gone, 0), None);
        assert_eq!(leases.look(held, 100), Some(What::LeaseHeld));
        assert_eq!(leases.look(gone, 5_000), None, "a pause between two reads");
        assert_eq!(leases.look(held, 6_000), None);
        assert_eq!(leases.look(gone, 16_000), lost(LeaseEnd::NotRenewed));
        assert_eq!(leases.look(held, 16_100), Some(What::LeaseHeld));
        assert_eq!(leases.look(LeaseView { transfers: true, ..gone }, 16_200), lost(LeaseEnd::Transfer));
        assert_eq!(leases.look(held, 16_300), Some(What::LeaseHeld));
        assert_eq!(leases.look(LeaseView { leads: false, ..gone }, 16_400), lost(LeaseEnd::NotLeading));
        assert_eq!(leases.look(LeaseView { leads: false, ..gone }, 16_500), None);
    }
}
