//! A node's part in the comparison of replicas: its own claims, and the conclusions that it draws
//! from the claims in the log. It keeps nothing that is replicated: [`Claims`] do.
//!
//! A copy stops when a majority of the full copies is found to differ from it, at the entry that
//! shows this. It goes on in two cases:
//! - it applied the window anew since, and has the majority's value now: its claim in the log is
//!   that of an earlier run;
//! - its state came from another node after that window, since the last start: a restart forgets it.
//!
//! Its own snapshot cures nothing: that may have been taken between the difference and the claims.

use super::{
    internal::{Claimed, Internal},
    windows::{Claim, Claims, KEPT, Verdict, WINDOW, window_of},
};
use crate::{
    comparison::{Comparison, Disagreement, Open, Owed},
    error::Failure,
};
use quorate_raft::{Index, NodeId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The claims of one node, and its conclusions.
#[derive(Default, Debug)]
pub(super) struct Comparing {
    /// This node, and the full copies of the configuration that was applied last.
    this: NodeId,
    full_copies: BTreeSet<NodeId>,
    /// The claims of the windows that were over since the state is this one: the latest [`KEPT`].
    ended: BTreeMap<u64, Claim>,
    /// The window of the entry with which a snapshot ends, if the state is one: its hash began
    /// elsewhere, or in an earlier run. A claim of it would make two claims of one copy's outcomes.
    begun: Option<u64>,
    /// Whether that snapshot came from another node.
    is_received: bool,
    /// The copies that a majority was found to differ from, with the window.
    judged: BTreeSet<(u64, NodeId)>,
    /// The same, with the entry that showed it last.
    found: BTreeMap<NodeId, Index>,
    /// Whether the verdicts of the claims in a snapshot are still to be taken over.
    is_restored: bool,
    has_changed: bool,
}

impl Comparing {
    /// A window is over: this node's claim of it.
    pub(super) fn ended(&mut self, window: u64, claim: Claim) {
        // Without a claim too: a snapshot after this window waits for the claims of it.
        self.has_changed = true;
        if self.is_received && self.begun == Some(window) {
            return;
        }
        self.ended.insert(window, claim);
        if self.ended.len() > KEPT {
            self.ended.pop_first();
        }
    }

    /// The last window that was over, with this node's claim.
    pub(super) fn last(&self) -> Option<(u64, Claim)> {
        self.ended.last_key_value().map(|(window, claim)| (*window, *claim))
    }

    /// The state is that of a snapshot that ends at this entry.
    pub(super) fn restored(&mut self, ends: Index) {
        let (this, full_copies) = (self.this, std::mem::take(&mut self.full_copies));
        let begun = Some(window_of(ends));
        *self = Self { this, full_copies, begun, is_restored: true, has_changed: true, ..Self::default() };
    }

    /// That snapshot came from another node.
    pub(super) fn received(&mut self) {
        self.is_received = true;
    }

    /// The full copies are these; `at` is the last entry that was applied. Fewer of them may make a
    /// majority of claims that are in the log. Returns the failure of this node, if it has to stop.
    pub(super) fn configured(
        &mut self,
        this: NodeId,
        full_copies: BTreeSet<NodeId>,
        at: Index,
        claims: &Claims,
    ) -> Option<Failure> {
        (self.this, self.full_copies, self.has_changed) = (this, full_copies, true);
        // The snapshot has the state after these verdicts.
        let is_restored = std::mem::take(&mut self.is_restored);
        let judged: Vec<_> = claims.windows().filter(|window| self.judge(at, *window, claims)).collect();
        // A difference before a window that a majority agrees on is an old one, and the alarm about it is over.
        let agreed = self.agreed(claims);
        let mut counted = judged.into_iter().filter(|window| !is_restored && agreed.is_none_or(|of| *window > of));
        counted.find_map(|window| self.failure(window, claims))
    }

    /// A claim of `window` was added at the entry `at`. Returns the failure of this node, if it has
    /// to stop here.
    pub(super) fn claimed(&mut self, at: Index, window: u64, claims: &Claims) -> Option<Failure> {
        self.has_changed = true;
        self.judge(at, window, claims).then(|| self.failure(window, claims)).flatten()
    }

    /// The failure of this node, from which a majority differs in a window; `None` if the claim that
    /// shows it is not of this node's present state.
    fn failure(&self, window: u64, claims: &Claims) -> Option<Failure> {
        let mine = match (self.ended.get(&window), self.is_received) {
            (Some(again), _) => *again,
            (None, true) => return None,
            (None, false) => claims.of(window, self.this)?,
        };
        let (mine, theirs) = claims.majority(window, &self.full_copies).against(&mine)?;
        Some(Failure::Diverged { after: before(window), up_to: last_of(window), mine, theirs })
    }

    /// Notes the copies that differ from a majority. Whether this node is one of them by now.
    fn judge(&mut self, at: Index, window: u64, claims: &Claims) -> bool {
        let Verdict::Diverged(nodes) = claims.verdict(window, &self.full_copies) else { return false };
        let mut is_new = false;
        for node in nodes {
            if self.judged.insert((window, node)) {
                self.found.insert(node, at);
                is_new |= node == self.this;
            }
        }
        let oldest = claims.windows().next().unwrap_or_default();
        self.judged.retain(|(window, _)| *window >= oldest);
        is_new
    }

    /// The comparison after the entry `at`, if it has changed since this was last called.
    pub(super) fn changed(&mut self, at: Index, claims: &Claims) -> Option<Comparison> {
        if !std::mem::take(&mut self.has_changed) {
            return None;
        }
        let disputing = |window| claims.disputing(window, &self.full_copies);
        let first = self.agreed(claims).map_or(0, |agreed| agreed + 1);
        let last = window_of(at).checked_sub(1).filter(|last| *last >= first);
        let open = last.map(|last| Open {
            sound_up_to: last_of(first),
            disputing: claims.windows().filter(|window| *window >= first).flat_map(disputing).collect(),
            claimed: claims.nodes(last).collect(),
        });
        let is_owed = |window: &u64| {
            let is_new = claims.of(*window, self.this).is_none() && *window >= claims.oldest();
            is_new && self.begun.is_none_or(|begun| *window > begun) && self.full_copies.contains(&self.this)
        };
        let owes = self.ended.iter().filter(|(window, _)| is_owed(window));
        Some(Comparison {
            owed: owes.filter_map(|(window, claim)| owed(self.this, *window, *claim)).collect(),
            oldest: claims.oldest(),
            claimed: claims.of_each(),
            open,
            found: self.found.clone(),
            disagreement: self.disagreement(claims).map(Arc::new),
        })
    }

    /// The last window of which a majority of the full copies has one value, and this state too.
    fn agreed(&self, claims: &Claims) -> Option<u64> {
        let is_majority = |window: u64| {
            matches!(claims.verdict(window, &self.full_copies), Verdict::Agreed | Verdict::Diverged(_))
                && claims.disputing(window, &self.full_copies).is_empty()
        };
        claims.windows().rev().find(|window| is_majority(*window) && self.is_of_majority(*window, claims))
    }

    /// Whether the state has the majority's value of a window. A state of another node had it, if it
    /// was over by then: none else is sent.
    fn is_of_majority(&self, window: u64, claims: &Claims) -> bool {
        match self.ended.get(&window).copied().or_else(|| claims.of(window, self.this)) {
            Some(mine) => claims.majority(window, &self.full_copies).against(&mine).is_none(),
            None => self.is_received && self.begun.is_some_and(|begun| window < begun),
        }
    }

    /// The difference in the latest window that has one, if no later one agreed.
    fn disagreement(&self, claims: &Claims) -> Option<Disagreement> {
        for window in claims.windows().rev() {
            match claims.verdict(window, &self.full_copies) {
                Verdict::Open => {}
                Verdict::Agreed => return None,
                Verdict::Disputed | Verdict::Diverged(_) => {
                    let (is_of_state, digests, majority) = claims.differing(window, &self.full_copies)?;
                    let (after, up_to) = (before(window), last_of(window));
                    return Some(Disagreement { after, up_to, is_of_state, digests, majority });
                }
            }
        }
        None
    }
}

/// The index before a window.
fn before(window: u64) -> Index {
    Index((window * WINDOW).saturating_sub(1))
}

/// The last index of a window.
fn last_of(window: u64) -> Index {
    Index(window * WINDOW + (WINDOW - 1))
}

fn owed(node: NodeId, window: u64, claim: Claim) -> Option<Owed> {
    debug_assert_eq!(window_of(last_of(window)), window);
    let payload = Internal::Claim(Claimed { node, window, claim }).encode().ok()?;
    Some(Owed { window, payload: payload.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: NodeId = NodeId(3);

    #[test]
    fn a_copy_that_differs_from_a_majority_stops_at_the_entry_that_shows_it() {
        let (mut comparing, mut claims) = (of_three(), Claims::default());
        comparing.ended(2, claim(8));
        assert_eq!(add(&mut comparing, &mut claims, (4_000, 2, 1, 7)), None);
        assert_eq!(add(&mut comparing, &mut claims, (4_001, 2, 3, 8)), None, "two differ, and none is a majority");
        let diverged = Failure::Diverged { after: Index(2_047), up_to: Index(3_071), mine: 8, theirs: 7 };
        assert_eq!(add(&mut comparing, &mut claims, (4_002, 2, 2, 7)), Some(diverged));
        let comparison = comparing.changed(Index(6_000), &claims).expect("it changed");
        assert_eq!(comparison.found, [(MINE, Index(4_002))].into());
        assert_eq!(comparing.changed(Index(6_000), &claims), None, "it did not change since");
    }

    #[test]
    fn another_copy_that_differs_is_noted_and_stops_none_but_itself() {
        let (mut comparing, mut claims) = (of_three(), Claims::default());
        comparing.ended(2, claim(7));
        for claimed in [(4_000, 2, 1, 7), (4_001, 2, 3, 7), (4_002, 2, 2, 8)] {
            assert_eq!(add(&mut comparing, &mut claims, claimed), None);
        }
        let comparison = comparing.changed(Index(6_000), &claims).expect("it changed");
        assert_eq!(comparison.found, [(NodeId(2), Index(4_002))].into());
        let disagreement = comparison.disagreement.expect("node 2 differs");
        assert_eq!((disagreement.majority, disagreement.differing().collect()), (Some(7), vec![NodeId(2)]));
        for claimed in [(5_000, 3, 1, 5), (5_001, 3, 3, 5)] {
            assert_eq!(add(&mut comparing, &mut claims, claimed), None);
        }
        assert_eq!(
            comparing.changed(Index(6_000), &claims).and_then(|comparison| comparison.disagreement),
            None,
            "a later one agreed"
        );
    }

    #[test]
    fn a_copy_whose_claim_is_of_an_earlier_run_stops_only_if_its_state_is_of_then() {
        let stops = |prepare: fn(&mut Comparing)| {
            let (mut comparing, mut claims) = (of_three(), Claims::default());
            prepare(&mut comparing);
            let claimed = [(4_000, 2, 3, 8), (4_001, 2, 1, 7), (4_002, 2, 2, 7)];
            claimed.into_iter().any(|claimed| add(&mut comparing, &mut claims, claimed).is_some())
        };
        assert!(stops(|comparing| comparing.ended(2, claim(8))), "it was wrong again");
        assert!(!stops(|comparing| comparing.ended(2, claim(7))), "it applied the window anew");
        assert!(stops(|_| {}), "its own snapshot has the state after the window");
        assert!(!stops(Comparing::received), "that of another node has it");
    }

    #[test]
    fn the_verdicts_of_a_snapshot_stop_no_copy() {
        let (mut comparing, mut claims) = (of_three(), Claims::default());
        for (at, window, node, hash) in [(4_000, 2, 3, 8), (4_001, 2, 1, 7), (4_002, 2, 2, 7)] {
            claims.add(Index(at), window, NodeId(node), claim(hash));
        }
        comparing.restored(Index(4_500));
        comparing.configured(MINE, [1, 2, 3, 4, 5].map(NodeId).into(), Index(4_500), &claims);
        assert_eq!(
            comparing.changed(Index(6_000), &claims).expect("it changed").found,
            [].into(),
            "two of five are no majority"
        );

        comparing.restored(Index(4_500));
        comparing.configured(MINE, [1, 2, 3].map(NodeId).into(), Index(4_500), &claims);
        assert_eq!(add(&mut comparing, &mut claims, (4_600, 2, 4, 7)), None, "a late claim shows nothing new");
        assert_eq!(comparing.changed(Index(6_000), &claims).expect("it changed").found, [(MINE, Index(4_500))].into());
    }

    #[test]
    fn a_copy_owes_its_claims_until_they_are_in_the_log() {
        let (mut comparing, mut claims) = (of_three(), Claims::default());
        (1..=3).for_each(|window| comparing.ended(window, claim(window)));
        let owed = |comparing: &mut Comparing, claims: &Claims| {
            comparing.has_changed = true;
            let owed = comparing.changed(Index(6_000), claims).expect("it changed").owed;
            owed.iter().map(|owed| owed.window).collect::<Vec<_>>()
        };
        assert_eq!(owed(&mut comparing, &claims), [1, 2, 3]);
        claims.add(Index(1 << 40), 2, MINE, claim(2));
        assert_eq!(owed(&mut comparing, &claims), [1, 3]);
        for window in 50..50 + KEPT as u64 {
            claims.add(Index(1 << 40), window, NodeId(1), claim(1));
        }
        assert_eq!(owed(&mut comparing, &claims), [0u64; 0], "they are forgotten");
        let claims = Claims::default();
        (4..=40).for_each(|window| comparing.ended(window, claim(window)));
        assert_eq!(owed(&mut comparing, &claims), (25..=40).collect::<Vec<_>>(), "no more than are remembered");
        comparing.configured(MINE, [1, 2].map(NodeId).into(), Index(1 << 40), &claims);
        assert_eq!(owed(&mut comparing, &claims), [0u64; 0], "a learner owes none");
    }

    #[test]
    fn no_window_is_claimed_that_began_before_the_state() {
        let owed = |is_received: bool| {
            let (mut comparing, claims) = (of_three(), Claims::default());
            comparing.restored(Index(2_500));
            if is_received {
                comparing.received();
            }
            comparing.configured(MINE, [1, 2, 3].map(NodeId).into(), Index(2_500), &claims);
            (2..=3).for_each(|window| comparing.ended(window, claim(window)));
            let owed = comparing.changed(Index(6_000), &claims).expect("it changed").owed;
            (owed.iter().map(|owed| owed.window).collect::<Vec<_>>(), comparing.ended.len())
        };
        assert_eq!(owed(true), (vec![3], 1), "another copy began it");
        assert_eq!(owed(false), (vec![3], 2), "an earlier run began it");
    }

    #[test]
    fn a_window_is_open_until_a_majority_agrees_on_it_or_a_later_one() {
        let (mut comparing, mut claims) = (of_three(), Claims::default());
        let open = |comparing: &mut Comparing, claims: &Claims, at: u64| {
            comparing.has_changed = true;
            comparing.changed(Index(at), claims).expect("it changed").open
        };
        assert_eq!(open(&mut comparing, &claims, 1_023), None, "no window is over");
        let none = Open { sound_up_to: Index(1_023), disputing: [].into(), claimed: [].into() };
        assert_eq!(open(&mut comparing, &claims, 1_024), Some(none.clone()));
        add(&mut comparing, &mut claims, (1_025, 0, 1, 8));
        add(&mut comparing, &mut claims, (1_026, 0, 3, 2));
        let both: BTreeSet<_> = [NodeId(1), MINE].into();
        let disputed = Open { disputing: both.clone(), claimed: both.clone(), ..none.clone() };
        assert_eq!(open(&mut comparing, &claims, 1_026), Some(disputed.clone()));
        let of_none = Open { claimed: [].into(), ..disputed };
        assert_eq!(open(&mut comparing, &claims, 2_048), Some(of_none), "no claim of the last window is there");
        add(&mut comparing, &mut claims, (2_049, 1, 1, 3));
        add(&mut comparing, &mut claims, (2_050, 1, 3, 3));
        assert_eq!(open(&mut comparing, &claims, 3_071), None, "the later one agreed");
        let later = Open { sound_up_to: Index(3_071), ..none };
        assert_eq!(open(&mut comparing, &claims, 3_072), Some(later));
    }

    #[test]
    fn the_end_of_a_window_is_told_though_this_node_has_no_claim_of_it() {
        let (mut comparing, claims) = (of_three(), Claims::default());
        comparing.restored(Index(2_500));
        comparing.received();
        comparing.changed(Index(2_500), &claims).expect("the state is another one");
        comparing.ended(2, claim(7));
        let comparison = comparing.changed(Index(3_100), &claims).expect("a window is over");
        assert!(comparison.owed.is_empty(), "its hash began at another node");
        assert!(comparison.open.is_some(), "a snapshot at the last entry waits for the claims of the others");
    }

    #[test]
    fn a_majority_on_the_outcomes_settles_no_dispute_about_states() {
        let (mut comparing, mut claims) = (of_three(), Claims::default());
        for (node, outcomes, state) in [(1, 7, Some(5)), (2, 7, Some(6)), (3, 8, None)] {
            claims.add(Index(4_000), 2, NodeId(node), Claim { state, ..claim(outcomes) });
            comparing.claimed(Index(4_000), 2, &claims);
        }
        let open = comparing.changed(Index(6_000), &claims).and_then(|comparison| comparison.open);
        assert_eq!(open.expect("it is not decided").disputing, [1, 2].map(NodeId).into());
    }

    #[test]
    fn a_majority_that_a_smaller_configuration_makes_stops_the_copy_that_differs() {
        let (mut comparing, mut claims) = (Comparing::default(), Claims::default());
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        assert_eq!(comparing.configured(MINE, ids(&[1, 2, 3, 4]), Index(0), &claims), None);
        comparing.ended(2, claim(8));
        for (node, hash) in [(1, 7), (2, 7), (3, 8)] {
            assert_eq!(add(&mut comparing, &mut claims, (4_000, 2, node, hash)), None, "two of four are no majority");
        }
        let diverged = Failure::Diverged { after: Index(2_047), up_to: Index(3_071), mine: 8, theirs: 7 };
        assert_eq!(comparing.configured(MINE, ids(&[1, 2, 3]), Index(4_100), &claims), Some(diverged));
    }

    #[test]
    fn a_smaller_configuration_stops_no_copy_for_a_difference_before_a_window_that_is_agreed_on() {
        let (mut comparing, mut claims) = (Comparing::default(), Claims::default());
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        comparing.configured(MINE, ids(&[1, 2, 3, 4]), Index(0), &claims);
        comparing.ended(2, claim(8));
        comparing.ended(3, claim(9));
        for (window, node, hash) in [(2, 1, 7), (2, 2, 7), (2, 3, 8), (3, 1, 9), (3, 2, 9), (3, 3, 9)] {
            assert_eq!(add(&mut comparing, &mut claims, (5_000, window, node, hash)), None);
        }
        assert_eq!(comparing.configured(MINE, ids(&[1, 2, 3]), Index(5_100), &claims), None);
    }

    fn of_three() -> Comparing {
        let mut comparing = Comparing::default();
        comparing.configured(MINE, [1, 2, 3].map(NodeId).into(), Index(0), &Claims::default());
        comparing
    }

    fn add(
        comparing: &mut Comparing,
        claims: &mut Claims,
        (at, window, node, hash): (u64, u64, u64, u64),
    ) -> Option<Failure> {
        claims.add(Index(at), window, NodeId(node), claim(hash));
        comparing.claimed(Index(at), window, claims)
    }

    fn claim(outcomes: u64) -> Claim {
        Claim { version: 0, outcomes, state: None }
    }
}
