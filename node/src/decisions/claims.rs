//! Claims of the windows of the log: how each full copy's claim gets into the log, and which
//! snapshots may be sent while claims differ or are missing.
//!
//! A follower states what it owes to the leader, which appends it with its own. Nothing is answered:
//! the claim in the log is the answer. A claim that is not there a second later is stated again, so
//! a lost message or leader delays claims and loses none. Claims pass admission control by, because
//! they are few: the leader appends one a node and window in its term, a window has many entries,
//! and a node owes no more windows than are remembered. Nothing is owed without entries, so an idle
//! log stays idle.
//!
//! **A snapshot is sent** only if a majority agreed on the last window before its end, or a later
//! one. Two exceptions keep a cluster from waiting for ever:
//! - While claims are missing, they are waited for so long as a copy that keeps up may still make
//!   one, and ten seconds at most. A last copy has none to wait for.
//! - While claims differ without a majority, a copy that takes part in the dispute and has no state
//!   any more gets one: its operator discarded it, so as to end the dispute.
//!
//! A copy that a majority differed from gets a snapshot that ends after the entry that showed it:
//! an earlier one would bring the copy's own old claim back to it.

use crate::comparison::{Comparison, Open};
use bytes::Bytes;
use quorate_raft::{Index, Moment, NodeId, Term};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The time after which a claim that is not in the log is stated again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The longest wait for missing claims of a peer that needs a snapshot.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The claims of a node, and of its followers while it leads.
#[derive(Default, Debug)]
pub struct Claims {
    comparison: Comparison,
    /// The claims that were appended in this term: nodes and windows, but those that are forgotten.
    appended: (Term, BTreeSet<(NodeId, u64)>),
    stated: Option<Stated>,
    /// The peers that said that they have no state.
    lost: BTreeSet<NodeId>,
    /// The peers that wait for claims in one leadership, or have waited for them, since when.
    waiting: BTreeMap<NodeId, (Term, Moment)>,
}

/// What was last stated to a leader.
#[derive(Clone, Copy, Debug)]
struct Stated {
    term: Term,
    window: u64,
    at: Moment,
}

/// The node's part in the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    pub this: NodeId,
    pub term: Term,
    pub is_leader: bool,
    /// Another node that leads, if a message can reach it.
    pub leader: Option<NodeId>,
}

/// The next step of the claims that this node owes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    None,
    /// The payloads of internal entries to append.
    Append(Vec<Bytes>),
    /// State these payloads to the leader.
    State {
        to: NodeId,
        payloads: Vec<Bytes>,
    },
}

impl Claims {
    /// The state machine made another comparison.
    pub fn compared(&mut self, comparison: Comparison) {
        self.comparison = comparison;
    }

    /// The state machine halted: it claims nothing more.
    pub fn machine_halted(&mut self) {
        self.comparison.owed.clear();
    }

    /// The step that is due. The clock is read only while something is owed to another node.
    pub fn next(&mut self, clock: impl FnOnce() -> Moment, view: &View) -> Step {
        if self.comparison.owed.is_empty() {
            return Step::None;
        }
        if view.is_leader {
            self.leads(view.term);
            let appended = &mut self.appended.1;
            let owed = self.comparison.owed.iter().filter(|owed| appended.insert((view.this, owed.window)));
            let payloads: Vec<_> = owed.map(|owed| owed.payload.clone()).collect();
            return if payloads.is_empty() { Step::None } else { Step::Append(payloads) };
        }
        let (Some(to), Some(last)) = (view.leader, self.comparison.owed.last()) else { return Step::None };
        let now = clock();
        let stated = self.stated.filter(|stated| stated.term == view.term && now.since(stated.at) < AGAIN_AFTER);
        if stated.is_some_and(|stated| stated.window >= last.window) {
            return Step::None;
        }
        let is_new = |window| stated.is_none_or(|stated| window > stated.window);
        let owed = self.comparison.owed.iter().filter(|owed| is_new(owed.window));
        let payloads = owed.map(|owed| owed.payload.clone()).collect();
        // The time of those before counts, so that a steady flow of new ones delays none of them.
        let at = stated.map_or(now, |stated| stated.at);
        self.stated = Some(Stated { term: view.term, window: last.window, at });
        Step::State { to, payloads }
    }

    /// A follower stated its claim of a window. Whether it is appended now. `current` is the window of
    /// the last entry in the log: a claim is of an earlier one, as its copy has applied a later entry.
    pub fn heard(&mut self, from: NodeId, window: u64, current: u64, view: &View) -> bool {
        let Comparison { oldest, claimed, .. } = &self.comparison;
        let is_applied = claimed.get(&from).is_some_and(|windows| windows.contains(&window));
        if !view.is_leader || window < *oldest || window >= current || is_applied {
            return false;
        }
        self.leads(view.term);
        self.appended.1.insert((from, window))
    }

    /// Forgets what was appended in an earlier term, or is too old to be stated again.
    fn leads(&mut self, term: Term) {
        if self.appended.0 != term {
            self.appended = (term, BTreeSet::new());
        }
        self.appended.1.retain(|(_, window)| *window >= self.comparison.oldest);
    }

    /// A peer has no state: entries of the log do not help it.
    pub fn state_lost(&mut self, peer: NodeId) {
        self.lost.insert(peer);
    }

    /// A peer acknowledged entries, so it has a state again.
    pub fn acknowledged(&mut self, peer: NodeId) {
        self.lost.remove(&peer);
    }

    /// The first entry at which a snapshot for this peer may end.
    pub fn ends_at_least(&self, peer: NodeId) -> Index {
        self.comparison.found.get(&peer).copied().unwrap_or_default()
    }

    /// Whether a snapshot that ends at this entry may be sent to a peer. `claimants` are the full
    /// copies that keep up, so that each claims what it has not claimed yet.
    ///
    /// A peer waits once until it is sent a snapshot, even if newer ones are taken meanwhile: a
    /// leader that takes them faster than claims arrive would send none.
    pub fn may_send(
        &mut self,
        now: Moment,
        (term, this, peer): (Term, NodeId, NodeId),
        ends: Index,
        claimants: impl Iterator<Item = NodeId>,
    ) -> bool {
        let open = self.comparison.open.as_ref().filter(|open| ends > open.sound_up_to);
        let Some(Open { disputing, claimed, .. }) = open else {
            self.waiting.remove(&peer);
            return true;
        };
        if !disputing.is_empty() {
            return disputing.contains(&peer) && self.lost.contains(&peer);
        }
        let others: Vec<_> = claimants.filter(|node| ![this, peer].contains(node)).collect();
        // Its own claim counts once it is in the log, as those that it is compared with.
        let is_missing = |node: &NodeId| !claimed.contains(node);
        let awaits = !others.is_empty() && (is_missing(&this) || others.iter().any(is_missing));
        if !awaits {
            self.waiting.remove(&peer);
            return true;
        }
        let (of, since) = self.waiting.entry(peer).or_insert((term, now));
        if *of != term {
            (*of, *since) = (term, now);
        }
        now.since(*since) >= WAIT_MAX
    }

    /// A peer is sent a snapshot: its wait is over, and the next snapshot waits anew.
    pub fn snapshot_sent(&mut self, peer: NodeId) {
        self.waiting.remove(&peer);
    }
}

#[cfg(test)]
mod tests;
