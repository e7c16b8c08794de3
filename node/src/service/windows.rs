//! The comparison of replicas: hashes of outcomes and states by window of the log, the claims of
//! the full copies, and the verdict on them.
//!
//! Each node hashes the outcome of every entry (reply, refusal, timers, events, effects) into the
//! hash of its window of [`WINDOW`] indexes. A new window begins from nothing, so a difference that
//! an upgrade removed heals. When a window is over, each full copy appends what it found as a
//! [`Claim`], and every node has the claims of all. Claims are compared and not the leader's word
//! taken, because the leader may be the one that is wrong. Claims made at different versions of the
//! cluster are not compared.
//!
//! **Bound:** claims of the latest [`KEPT`] windows, one a node and window.

use super::layout::Reader;
use quorate_raft::{Index, NodeId};
use rapidhash::v3::{RapidSecrets, rapidhash_v3_inline};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

/// The indexes of a window: those of window `w` begin at `w * WINDOW`.
pub const WINDOW: u64 = 1_024;
/// Number of the latest windows with claims that are remembered.
pub const KEPT: usize = 16;

/// The hashes are compared between nodes, so they never change.
const SECRETS: RapidSecrets = RapidSecrets::seed(0x7175_6f72_6174_65f1);

/// The window of an index.
#[must_use]
pub fn window_of(index: Index) -> u64 {
    index.0 / WINDOW
}

/// The hash of the outcomes in the current window.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Outcomes {
    window: u64,
    hash: u64,
    /// Whether an outcome was added in the window.
    any: bool,
}

impl Outcomes {
    /// Goes on to the window of the entry at `index`, before it is applied. Returns the window that
    /// is over with this, and its hash, if it had an outcome. Indexes never fall.
    pub fn begin(&mut self, index: Index) -> Option<(u64, u64)> {
        let window = window_of(index);
        if window <= self.window {
            return None;
        }
        let over = self.any.then_some((self.window, self.hash));
        *self = Self { window, ..Self::default() };
        over
    }

    /// Adds the outcome of an entry of this window, as bytes: the hash of the outcomes before it, with
    /// the index, is the seed of rapidhash (V3) over these.
    #[inline]
    pub fn add(&mut self, index: Index, outcome: &[u8]) {
        let seed = self.hash ^ index.0.wrapping_mul(SECRETS.seed | 1);
        let secrets = RapidSecrets { seed, ..SECRETS };
        self.hash = rapidhash_v3_inline::<true, false, false>(outcome, &secrets);
        self.any = true;
    }
}

/// One full copy's statement of what it has in a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claim {
    /// The version of the cluster at the end of the window.
    pub version: u32,
    /// The hash of the outcomes.
    pub outcomes: u64,
    /// The digest of the state at the end of the window, if the node took one.
    pub state: Option<u64>,
}

/// The claims of the latest windows.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Claims(BTreeMap<u64, BTreeMap<NodeId, Claim>>);

/// The verdict on a window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Too few have claimed, and none differ.
    Open,
    /// A majority of the full copies agrees, and no claim differs from theirs.
    Agreed,
    /// Claims differ and no majority agrees, as with two full copies: an alarm. No node stops, and
    /// no snapshot is sent.
    Disputed,
    /// A majority agrees. These nodes differ from it: each of them stops.
    Diverged(BTreeSet<NodeId>),
}

impl Claims {
    /// Adds a node's claim of a window that ended before the entry at `at`. The first claim of a
    /// node counts. A window that is not over, or no longer remembered, takes none.
    pub fn add(&mut self, at: Index, window: u64, node: NodeId, claim: Claim) {
        if window >= window_of(at) {
            return;
        }
        self.0.entry(window).or_default().entry(node).or_insert(claim);
        while self.0.len() > KEPT {
            self.0.pop_first();
        }
    }

    /// The windows with claims, in order.
    pub(super) fn windows(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.0.keys().copied()
    }

    /// The nodes with a claim of a window.
    pub(super) fn nodes(&self, window: u64) -> impl Iterator<Item = NodeId> + '_ {
        self.0.get(&window).into_iter().flat_map(|claims| claims.keys().copied())
    }

    /// The oldest window that takes claims.
    pub(super) fn oldest(&self) -> u64 {
        self.0.first_key_value().filter(|_| self.0.len() == KEPT).map_or(0, |(window, _)| *window)
    }

    /// The nodes with claims, each with the windows that it claimed.
    pub(super) fn of_each(&self) -> BTreeMap<NodeId, BTreeSet<u64>> {
        let mut of_each = BTreeMap::<_, BTreeSet<_>>::new();
        for (window, claims) in &self.0 {
            claims.keys().for_each(|node| {
                of_each.entry(*node).or_default().insert(*window);
            });
        }
        of_each
    }

    /// A node's claim of a window.
    #[must_use]
    pub fn of(&self, window: u64, node: NodeId) -> Option<Claim> {
        self.0.get(&window)?.get(&node).copied()
    }

    /// The latest window that any node has claimed.
    #[must_use]
    pub fn latest(&self) -> Option<u64> {
        self.0.last_key_value().map(|(window, _)| *window)
    }

    /// The verdict on a window by the claims of the full copies of the configuration.
    #[must_use]
    pub fn verdict(&self, window: u64, full_copies: &BTreeSet<NodeId>) -> Verdict {
        let of = |value| compare(&self.values(window, full_copies, value), full_copies.len());
        match (of(OUTCOMES), of(STATE)) {
            (Verdict::Diverged(some), Verdict::Diverged(others)) => Verdict::Diverged(&some | &others),
            (Verdict::Diverged(nodes), _) | (_, Verdict::Diverged(nodes)) => Verdict::Diverged(nodes),
            (Verdict::Disputed, _) | (_, Verdict::Disputed) => Verdict::Disputed,
            (outcomes, _) => outcomes,
        }
    }

    /// The full copies that claim different values of a window where no majority agrees on one:
    /// outcomes or states, each by itself. One may be disputed where a majority agrees on the other.
    pub(super) fn disputing(&self, window: u64, full_copies: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let mut disputing = BTreeSet::new();
        for values in [OUTCOMES, STATE].map(|value| self.values(window, full_copies, value)) {
            if compare(&values, full_copies.len()) == Verdict::Disputed {
                let differs = |version| values.keys().filter(|(other, _)| *other == version).count() > 1;
                let differing = values.iter().filter(|((version, _), _)| differs(*version));
                disputing.extend(differing.flat_map(|(_, nodes)| nodes));
            }
        }
        disputing
    }

    /// The values of a window that a majority of the full copies has claimed.
    pub(super) fn majority(&self, window: u64, full_copies: &BTreeSet<NodeId>) -> Majority {
        let of = |value| majority(&self.values(window, full_copies, value), full_copies.len());
        Majority { outcomes: of(OUTCOMES), state: of(STATE) }
    }

    /// The values that differ in a window with the verdict [`Verdict::Disputed`] or
    /// [`Verdict::Diverged`]: whether they are those of states, that of each node, and that of a
    /// majority.
    pub(super) fn differing(
        &self,
        window: u64,
        full_copies: &BTreeSet<NodeId>,
    ) -> Option<(bool, BTreeMap<NodeId, u64>, Option<u64>)> {
        [(false, OUTCOMES), (true, STATE)].into_iter().find_map(|(is_of_state, value)| {
            let values = self.values(window, full_copies, value);
            if matches!(compare(&values, full_copies.len()), Verdict::Open | Verdict::Agreed) {
                return None;
            }
            let majority = majority(&values, full_copies.len());
            let is_compared = |version: u32| match majority {
                Some((compared, _)) => version == compared,
                None => values.keys().filter(|(other, _)| *other == version).count() > 1,
            };
            let compared = values.iter().filter(|((version, _), _)| is_compared(*version));
            let of_each = compared.flat_map(|((_, value), nodes)| nodes.iter().map(|node| (*node, *value)));
            Some((is_of_state, of_each.collect(), majority.map(|(_, value)| value)))
        })
    }

    /// The nodes among the full copies that claim each value of a window, by version and value.
    fn values(&self, window: u64, full_copies: &BTreeSet<NodeId>, value: Value) -> Values {
        let mut values = Values::new();
        for (node, claim) in self.0.get(&window).into_iter().flatten().filter(|(node, _)| full_copies.contains(node)) {
            if let Some(value) = value(claim) {
                values.entry((claim.version, value)).or_default().insert(*node);
            }
        }
        values
    }

    /// Writes the claims, equal ones as equal bytes: the count of windows (4), and of each, in
    /// order, its number (8), the count of its claims (4), and of each the node (8), the version
    /// (4), the hash of the outcomes (8), 1 if there is a digest of the state (1), and that (8).
    ///
    /// # Errors
    /// If `to` fails.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&(self.0.len() as u32).to_le_bytes())?;
        for (window, claims) in &self.0 {
            to.write_all(&window.to_le_bytes())?;
            to.write_all(&(claims.len() as u32).to_le_bytes())?;
            for (node, claim) in claims {
                to.write_all(&node.0.to_le_bytes())?;
                to.write_all(&claim.version.to_le_bytes())?;
                to.write_all(&claim.outcomes.to_le_bytes())?;
                to.write_all(&[claim.state.is_some().into()])?;
                to.write_all(&claim.state.unwrap_or_default().to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Reads claims that [`Claims::write`] wrote.
    ///
    /// # Errors
    /// If the source fails, or there are no such claims.
    pub fn read(from: &mut Reader<'_>) -> io::Result<Self> {
        let mut windows = BTreeMap::new();
        for _ in 0..from.u32()? {
            let (window, mut claims) = (from.u64()?, BTreeMap::new());
            for _ in 0..from.u32()? {
                let (node, version, outcomes) = (NodeId(from.u64()?), from.u32()?, from.u64()?);
                let state = match (from.array()?, from.u64()?) {
                    ([0], 0) => None,
                    ([1], state) => Some(state),
                    _ => return Err(from.invalid("that is no digest")),
                };
                if claims.last_key_value().is_some_and(|(last, _)| *last >= node) {
                    return Err(from.invalid("the claims are not in order"));
                }
                claims.insert(node, Claim { version, outcomes, state });
            }
            if windows.last_key_value().is_some_and(|(last, _)| *last >= window) || claims.is_empty() {
                return Err(from.invalid("the claims are not in order"));
            }
            windows.insert(window, claims);
        }
        if windows.len() > KEPT {
            return Err(from.invalid("there are claims of more windows than are remembered"));
        }
        Ok(Self(windows))
    }
}

impl Outcomes {
    /// Writes the window (8), its hash (8), and whether it has an outcome (1).
    ///
    /// # Errors
    /// If `to` fails.
    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.window.to_le_bytes())?;
        to.write_all(&self.hash.to_le_bytes())?;
        to.write_all(&[self.any.into()])
    }

    /// Reads what [`Outcomes::write`] wrote.
    ///
    /// # Errors
    /// If the source fails, or ends.
    pub fn read(from: &mut Reader<'_>) -> io::Result<Self> {
        let (window, hash) = (from.u64()?, from.u64()?);
        match from.array()? {
            [any @ (0 | 1)] => Ok(Self { window, hash, any: any == 1 }),
            _ => Err(from.invalid("that is no hash of outcomes")),
        }
    }
}

/// One of the two values in a claim.
type Value = fn(&Claim) -> Option<u64>;

const OUTCOMES: Value = |claim| Some(claim.outcomes);
const STATE: Value = |claim| claim.state;

/// Nodes by version and value.
type Values = BTreeMap<(u32, u64), BTreeSet<NodeId>>;

/// The values that a majority has claimed, each with its version.
pub(super) struct Majority {
    outcomes: Option<(u32, u64)>,
    state: Option<(u32, u64)>,
}

impl Majority {
    /// The value of a claim that differs, and that of the majority.
    pub(super) fn against(&self, claim: &Claim) -> Option<(u64, u64)> {
        let against = |majority: Option<(u32, u64)>, mine: Option<u64>| {
            let ((version, theirs), mine) = (majority?, mine?);
            (version == claim.version && theirs != mine).then_some((mine, theirs))
        };
        against(self.outcomes, Some(claim.outcomes)).or_else(|| against(self.state, claim.state))
    }
}

/// The version and the value of a majority of the full copies.
fn majority(values: &Values, full_copies: usize) -> Option<(u32, u64)> {
    values.iter().find(|(_, nodes)| nodes.len() > full_copies / 2).map(|(claimed, _)| *claimed)
}

/// The verdict on one value, by the number of the full copies.
fn compare(values: &Values, full_copies: usize) -> Verdict {
    let Some((version, value)) = majority(values, full_copies) else {
        let differ = |((one, _), (other, _)): (&(u32, u64), &(u32, u64))| one == other;
        let is_disputed = values.keys().zip(values.keys().skip(1)).any(differ);
        return if is_disputed { Verdict::Disputed } else { Verdict::Open };
    };
    let others = values.iter().filter(|((at, other), _)| *at == version && *other != value);
    let differ: BTreeSet<_> = others.flat_map(|(_, nodes)| nodes).copied().collect();
    if differ.is_empty() { Verdict::Agreed } else { Verdict::Diverged(differ) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_outcomes_hash_equally_and_each_difference_shows() {
        let outcomes = [(1_024, &b"a"[..]), (1_025, b""), (1_030, b"bc")];
        let hash = hashed(&outcomes);
        assert_eq!(hash, hashed(&outcomes));
        assert_eq!(hash, (1, 0x144c_914c_3ba5_0ba8), "nodes of two builds are compared: this never changes");
        for other in [
            &[(1_024, &b"a"[..]), (1_025, b""), (1_030, b"bd")][..],
            &[(1_024, b"a"), (1_025, b""), (1_031, b"bc")],
            &[(1_024, b"a"), (1_030, b"bc")],
            &[(1_024, b"a"), (1_026, b""), (1_030, b"bc")],
            &[(1_024, b"ab"), (1_025, b""), (1_030, b"c")],
        ] {
            assert_ne!(hash, hashed(other));
        }
    }

    #[test]
    fn a_window_begins_from_nothing_so_a_difference_heals() {
        let (mut one, mut other) = (Outcomes::default(), Outcomes::default());
        one.add(Index(5), b"right");
        other.add(Index(5), b"wrong");
        for outcomes in [&mut one, &mut other] {
            assert_eq!(outcomes.begin(Index(1_023)), None, "of the same window");
            outcomes.add(Index(1_023), b"x");
        }
        let (over, other_over) = (one.begin(Index(1_024)), other.begin(Index(1_024)));
        assert_eq!((over.map(|(window, _)| window), other_over.map(|(window, _)| window)), (Some(0), Some(0)));
        assert_ne!(over, other_over);
        assert_eq!(one, other);
    }

    #[test]
    fn a_window_without_an_outcome_is_not_claimed() {
        let mut outcomes = Outcomes::default();
        assert_eq!(outcomes.begin(Index(5_000)), None);
        assert_eq!(outcomes.begin(Index(9_000)), None);
        outcomes.add(Index(9_000), b"");
        assert_eq!(outcomes.begin(Index(90_000)).map(|(window, _)| window), Some(8));
    }

    #[test]
    fn a_minority_that_differs_from_a_majority_stops() {
        let three = nodes(&[1, 2, 3]);
        assert_eq!(verdict(&[(1, 0, 7)], &three), Verdict::Open);
        assert_eq!(verdict(&[(1, 0, 7), (2, 0, 7)], &three), Verdict::Agreed);
        assert_eq!(verdict(&[(1, 0, 7), (2, 0, 7), (3, 0, 8)], &three), Verdict::Diverged(nodes(&[3])));
        assert_eq!(
            verdict(&[(1, 0, 8), (2, 0, 7), (3, 0, 7)], &three),
            Verdict::Diverged(nodes(&[1])),
            "or the leader"
        );
        assert_eq!(verdict(&[(1, 0, 7), (2, 0, 8)], &three), Verdict::Disputed, "the third decides");
        assert_eq!(verdict(&[(1, 0, 7), (2, 0, 8), (3, 0, 9)], &three), Verdict::Disputed);
        let five = nodes(&[1, 2, 3, 4, 5]);
        let split = [(1, 0, 7), (2, 0, 8), (3, 0, 7), (4, 0, 9), (5, 0, 7)];
        assert_eq!(verdict(&split, &five), Verdict::Diverged(nodes(&[2, 4])));
        assert_eq!(verdict(&split[..4], &five), Verdict::Disputed, "two of five are no majority");
    }

    #[test]
    fn two_copies_that_differ_alarm_and_neither_stops() {
        let two = nodes(&[1, 2]);
        assert_eq!(verdict(&[(1, 0, 7), (2, 0, 8)], &two), Verdict::Disputed);
        assert_eq!(verdict(&[(1, 0, 7), (2, 0, 7)], &two), Verdict::Agreed);
        assert_eq!(verdict(&[(1, 0, 7)], &two), Verdict::Open, "one of two is no majority");
        assert_eq!(verdict(&[(1, 0, 7)], &nodes(&[1])), Verdict::Agreed, "one of one is");
    }

    #[test]
    fn claims_of_different_versions_are_not_compared() {
        let three = nodes(&[1, 2, 3]);
        assert_eq!(verdict(&[(1, 1, 7), (2, 2, 8)], &three), Verdict::Open);
        assert_eq!(verdict(&[(1, 1, 7), (2, 2, 8), (3, 2, 8)], &three), Verdict::Agreed);
        assert_eq!(verdict(&[(1, 1, 7), (2, 2, 7)], &three), Verdict::Open, "no majority at one version");
    }

    #[test]
    fn only_full_copies_of_the_configuration_count() {
        assert_eq!(verdict(&[(1, 0, 7), (2, 0, 7), (9, 0, 8)], &nodes(&[1, 2, 3])), Verdict::Agreed);
        assert_eq!(verdict(&[(1, 0, 7), (8, 0, 7), (9, 0, 7)], &nodes(&[1, 2, 3])), Verdict::Open);
    }

    #[test]
    fn digests_of_states_are_compared_among_the_nodes_that_took_one() {
        let three = nodes(&[1, 2, 3]);
        let with = |states: [Option<u64>; 3]| {
            let mut claims = Claims::default();
            for (node, state) in (1..).zip(states) {
                claims.add(Index(2_000), 0, NodeId(node), Claim { version: 0, outcomes: 7, state });
            }
            claims.verdict(0, &three)
        };
        assert_eq!(with([None, None, None]), Verdict::Agreed);
        assert_eq!(with([Some(1), None, None]), Verdict::Agreed, "a node whose copy took too long skips it");
        assert_eq!(with([Some(1), Some(1), Some(2)]), Verdict::Diverged(nodes(&[3])), "outcomes alone are equal");
        assert_eq!(with([Some(1), Some(2), None]), Verdict::Disputed);
    }

    /// All claims of up to four nodes with two values and two versions: a node stops only if more
    /// than half of all copies claim another value at its version, and no two such groups exist.
    #[test]
    fn no_node_stops_without_a_majority_against_it() {
        for copies in 1..=4u64 {
            let full = (1..=copies).map(NodeId).collect();
            for code in 0..5u64.pow(copies as u32) {
                let digit = |node: u64| code / 5u64.pow(node as u32 - 1) % 5;
                let claims: Vec<_> = (1..=copies)
                    .filter(|node| digit(*node) > 0)
                    .map(|node| (node, (digit(node) - 1) as u32 / 2, (digit(node) - 1) % 2))
                    .collect();
                let against = |node: u64, version: u32, value: u64| {
                    let others = claims
                        .iter()
                        .filter(|(other, at, theirs)| *other != node && *at == version && *theirs != value);
                    others.count() as u64 * 2 > copies
                };
                let stops: BTreeSet<_> = claims
                    .iter()
                    .filter(|(node, at, value)| against(*node, *at, *value))
                    .map(|(node, ..)| NodeId(*node))
                    .collect();
                match verdict(&claims, &full) {
                    Verdict::Diverged(nodes) => assert_eq!(nodes, stops),
                    _ => assert_eq!(stops, BTreeSet::new(), "{claims:?}"),
                }
            }
        }
    }

    #[test]
    fn a_claim_counts_once_and_only_after_its_window() {
        let mut claims = Claims::default();
        let claim = |outcomes| Claim { version: 0, outcomes, state: None };
        claims.add(Index(1_023), 0, NodeId(1), claim(7));
        assert_eq!(claims, Claims::default(), "the window is not over");
        claims.add(Index(1_024), 0, NodeId(1), claim(7));
        claims.add(Index(1_025), 0, NodeId(1), claim(8));
        assert_eq!(claims.of(0, NodeId(1)), Some(claim(7)));
        for window in 1..=KEPT as u64 {
            claims.add(Index(1 << 40), window, NodeId(1), claim(window));
        }
        assert_eq!((claims.of(0, NodeId(1)), claims.latest()), (None, Some(KEPT as u64)), "forgotten");
        claims.add(Index(1 << 40), 0, NodeId(2), claim(7));
        assert_eq!(claims.of(0, NodeId(2)), None, "and not begun again");
    }

    #[test]
    fn claims_and_hashes_are_read_as_they_were_written() {
        let mut claims = Claims::default();
        for (window, node, state) in [(3, 1, None), (3, 9, Some(5)), (70, 1, Some(0))] {
            claims.add(Index(1 << 40), window, NodeId(node), Claim { version: 2, outcomes: window ^ node, state });
        }
        let mut outcomes = Outcomes::default();
        outcomes.add(Index(77), b"x");
        let mut bytes = Vec::new();
        outcomes.write(&mut bytes).expect("memory takes everything");
        claims.write(&mut bytes).expect("memory takes everything");
        let read = |bytes: &[u8]| {
            let mut bytes = bytes;
            let mut from = Reader::new(&mut bytes);
            Ok::<_, io::Error>((Outcomes::read(&mut from)?, Claims::read(&mut from)?))
        };
        assert_eq!(read(&bytes).expect("they are there"), (outcomes, claims));
        (0..bytes.len()).for_each(|end| assert!(read(&bytes[..end]).is_err(), "cut at {end}"));
    }

    fn hashed(outcomes: &[(u64, &[u8])]) -> (u64, u64) {
        let mut hash = Outcomes::default();
        for (index, bytes) in outcomes {
            assert_eq!(hash.begin(Index(*index)), None);
            hash.add(Index(*index), bytes);
        }
        hash.begin(Index(1 << 40)).expect("the window had outcomes")
    }

    fn verdict(claimed: &[(u64, u32, u64)], full_copies: &BTreeSet<NodeId>) -> Verdict {
        let mut claims = Claims::default();
        for (node, version, outcomes) in claimed {
            let claim = Claim { version: *version, outcomes: *outcomes, state: None };
            claims.add(Index(2_000), 0, NodeId(*node), claim);
        }
        claims.verdict(0, full_copies)
    }

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }
}
