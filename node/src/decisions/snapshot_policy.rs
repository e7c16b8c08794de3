//! Snapshot policy: when a snapshot is due, when a failed one is tried again, and which peers the
//! newest one helps.

use crate::config::Snapshots;
use quorate_raft::{Index, Moment, NodeId, Term};
use std::{collections::BTreeMap, time::Duration};

/// The reasons for a snapshot that have come up since the last one. At most one is built at a time.
pub struct SnapshotPolicy {
    config: Snapshots,
    /// Bytes of entries that went to the state machine since the last build began.
    bytes: u64,
    build: Option<Build>,
    /// Peers that the newest snapshot does not help.
    needs: BTreeMap<NodeId, Need>,
    /// The state machine makes no snapshots.
    is_unsupported: bool,
    /// Builds that failed in a row.
    failures: u32,
    /// After a failure, no build begins by itself before this time.
    not_before: Option<Moment>,
}

struct Build {
    /// [`SnapshotPolicy::bytes`] at its begin: they count again if it fails.
    bytes: u64,
    /// A snapshot of the same state as the newest one is wanted: that one can't be read.
    anew: bool,
}

/// A peer's need of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    /// The leadership in which it is sent.
    pub term: Term,
    pub at_least: Index,
    /// The newest snapshot reaches, and can't be read.
    pub anew: bool,
}

/// The node's part in the decision.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub applied: Index,
    /// The end of the newest snapshot.
    pub newest: Index,
    /// The members are known at the applied index: a snapshot names them. They are not yet on a
    /// node that just joined.
    pub knows_members: bool,
    /// A received snapshot is on its way to the state machine.
    pub is_restoring: bool,
    pub has_callers: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    Wait,
    Build,
    /// A snapshot is wanted and the state machine makes none: its callers are told.
    Refuse,
}

/// The use of a view of the state that the state machine gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    Write,
    /// The newest snapshot has this state already.
    Covered,
}

/// The pause after a failed build; it doubles with every further one.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl SnapshotPolicy {
    pub fn new(config: Snapshots) -> Self {
        Self {
            config,
            bytes: 0,
            build: None,
            needs: BTreeMap::new(),
            is_unsupported: false,
            failures: 0,
            not_before: None,
        }
    }

    /// Entries of this size went to the state machine.
    pub fn applying(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// A received snapshot takes the place of the state.
    pub fn restoring(&mut self) {
        self.bytes = 0;
    }

    /// A peer needs a snapshot.
    pub fn needed(&mut self, peer: NodeId, need: Need) {
        self.needs.insert(peer, need);
    }

    pub fn is_unsupported(&self) -> bool {
        self.is_unsupported
    }

    /// Whether a build begins now; it has begun if so. The clock is read only after a failure.
    pub fn decide(&mut self, clock: impl FnOnce() -> Moment, view: &View) -> Decision {
        if self.build.is_some() || view.is_restoring || !view.knows_members || !self.is_due(clock, view) {
            return Decision::Wait;
        }
        if self.is_unsupported {
            self.needs.clear();
            return Decision::Refuse;
        }
        let anew = self.needs.values().any(|need| need.anew);
        self.build = Some(Build { bytes: std::mem::take(&mut self.bytes), anew });
        Decision::Build
    }

    fn is_due(&self, clock: impl FnOnce() -> Moment, view: &View) -> bool {
        let Snapshots { every_entries, every_bytes, .. } = self.config;
        let grown = view.applied.since(view.newest);
        let by_size =
            grown > 0 && (every_entries > 0 && grown >= every_entries || every_bytes > 0 && self.bytes >= every_bytes);
        let reaches = |need: &Need| need.anew || (view.newest < need.at_least && need.at_least <= view.applied);
        view.has_callers
            || ((by_size || self.needs.values().any(reaches)) && self.not_before.is_none_or(|at| at <= clock()))
    }

    /// The state machine gave a view of its state after entry `last`; `None` if no build
    /// is under way.
    pub fn state_taken(&self, last: Index, newest: Index) -> Option<Taken> {
        let build = self.build.as_ref()?;
        let is_covered = last < newest || last == newest && !build.anew || last == Index(0);
        Some(if is_covered { Taken::Covered } else { Taken::Write })
    }

    /// The state machine makes no snapshots.
    pub fn unsupported(&mut self) {
        self.is_unsupported = true;
    }

    /// The build ended well: the newest snapshot has the state that was wanted.
    pub fn built(&mut self) {
        self.build = None;
        (self.failures, self.not_before) = (0, None);
        self.needs.values_mut().for_each(|need| need.anew = false);
    }

    /// The build failed: its reasons stay, and it is tried again after a pause.
    pub fn failed(&mut self, now: Moment) {
        self.bytes += self.build.take().map_or(0, |build| build.bytes);
        let pause = (RETRY_MIN * 2u32.saturating_pow(self.failures.min(16))).min(RETRY_MAX);
        self.failures += 1;
        self.not_before = Some(now.plus(pause));
    }

    /// The peers that the newest snapshot helps, taken out. During a build too: builds may follow
    /// each other without a gap. Needs of earlier leaderships and of removed peers are forgotten.
    pub fn helped(&mut self, term: Term, newest: Index, peers: impl FnOnce() -> Vec<NodeId>) -> Vec<(NodeId, Need)> {
        if self.needs.is_empty() {
            return Vec::new();
        }
        let peers = peers();
        self.needs.retain(|peer, need| need.term == term && peers.contains(peer));
        let is_helped = |_: &NodeId, need: &mut Need| newest > Index(0) && need.at_least <= newest && !need.anew;
        self.needs.extract_if(.., is_helped).collect()
    }

    /// The newest snapshot was opened for a peer, and ends at `found`; `None` if it can't be read.
    /// It ended at `newest` when that began, and the log begins after `log_base` by now. Whether it
    /// helps the peer; if not, another one is built, unless the log was only cut meanwhile: a later
    /// snapshot is there then.
    pub fn opened(&mut self, peer: NodeId, need: Need, newest: Index, found: Option<Index>, log_base: Index) -> bool {
        // The log may have been cut since the peer said what it needs.
        let at_least = need.at_least.max(log_base);
        let helps = found.is_some_and(|found| found >= at_least);
        if !helps {
            self.needs.insert(peer, Need { at_least, anew: found != Some(newest), ..need });
        }
        helps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);
    const IDLE: View =
        View { applied: Index(0), newest: Index(0), knows_members: true, is_restoring: false, has_callers: false };

    #[test]
    fn a_snapshot_is_due_after_so_many_entries_or_bytes() {
        let mut policy = policy(10, 100);
        assert_eq!(decide(&mut policy, View { applied: Index(19), newest: Index(10), ..IDLE }), Decision::Wait);
        assert_eq!(decide(&mut policy, View { applied: Index(20), newest: Index(10), ..IDLE }), Decision::Build);
        policy.built();
        policy.applying(100);
        assert_eq!(decide(&mut policy, View { applied: Index(20), newest: Index(20), ..IDLE }), Decision::Wait);
        assert_eq!(decide(&mut policy, View { applied: Index(21), newest: Index(20), ..IDLE }), Decision::Build);
    }

    #[test]
    fn zero_is_never() {
        let mut policy = policy(0, 0);
        policy.applying(u64::MAX);
        assert_eq!(decide(&mut policy, View { applied: Index(u64::MAX), ..IDLE }), Decision::Wait);
        assert_eq!(decide(&mut policy, View { has_callers: true, ..IDLE }), Decision::Build, "but for a caller");
    }

    #[test]
    fn one_is_built_at_a_time_and_none_before_the_state_can_be_taken() {
        let mut policy = policy(10, 0);
        let due = View { applied: Index(10), has_callers: true, ..IDLE };
        assert_eq!(decide(&mut policy, View { is_restoring: true, ..due }), Decision::Wait);
        assert_eq!(decide(&mut policy, View { knows_members: false, ..due }), Decision::Wait);
        assert_eq!(decide(&mut policy, due), Decision::Build);
        assert_eq!(decide(&mut policy, due), Decision::Wait);
        policy.built();
        assert_eq!(decide(&mut policy, due), Decision::Build);
    }

    #[test]
    fn a_failed_build_is_tried_again_after_growing_pauses_and_what_was_due_stays_due() {
        let mut policy = policy(0, 100);
        policy.applying(100);
        let due = View { applied: Index(10), ..IDLE };
        let (mut now, mut pauses) = (Moment::default(), Vec::new());
        for _ in 0..8 {
            assert_eq!(policy.decide(|| now, &due), Decision::Build);
            policy.failed(now);
            let again = policy.not_before.expect("a pause");
            assert_eq!(policy.decide(|| Moment(again.0 - Duration::from_millis(1)), &due), Decision::Wait);
            pauses.push(again.since(now).as_secs());
            now = again;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(policy.decide(|| now, &due), Decision::Build);
        policy.built();
        assert_eq!((policy.failures, policy.not_before), (0, None));
        policy.applying(100);
        assert_eq!(policy.decide(|| unreachable!("no failure, no clock"), &due), Decision::Build);
    }

    #[test]
    fn a_caller_waits_for_no_pause() {
        let mut policy = policy(0, 0);
        assert_eq!(decide(&mut policy, View { has_callers: true, ..IDLE }), Decision::Build);
        policy.failed(Moment::default());
        assert_eq!(decide(&mut policy, View { has_callers: true, ..IDLE }), Decision::Build);
    }

    #[test]
    fn a_peers_need_is_a_reason_once_it_is_applied() {
        let mut policy = policy(0, 0);
        policy.needed(PEER, need(15));
        assert_eq!(decide(&mut policy, View { applied: Index(14), newest: Index(9), ..IDLE }), Decision::Wait);
        assert_eq!(helped(&mut policy, 3, 9), []);
        assert_eq!(decide(&mut policy, View { applied: Index(15), newest: Index(9), ..IDLE }), Decision::Build);
        assert_eq!(helped(&mut policy, 3, 9), [], "the build is under way");
        policy.built();
        assert_eq!(helped(&mut policy, 3, 15), [(PEER, need(15))]);
        assert_eq!(helped(&mut policy, 3, 15), [], "it was taken");
    }

    #[test]
    fn a_peer_is_helped_however_builds_follow_each_other() {
        let mut policy = policy(10, 0);
        assert_eq!(decide(&mut policy, View { applied: Index(20), newest: Index(10), ..IDLE }), Decision::Build);
        policy.needed(PEER, need(7));
        assert_eq!(helped(&mut policy, 3, 10), [(PEER, need(7))], "the snapshot before helps");
        policy.needed(PEER, need(15));
        assert_eq!(helped(&mut policy, 3, 10), []);
        policy.built();
        assert_eq!(decide(&mut policy, View { applied: Index(30), newest: Index(20), ..IDLE }), Decision::Build);
        assert_eq!(helped(&mut policy, 3, 20), [(PEER, need(15))], "the next build has begun");
    }

    #[test]
    fn needs_of_an_earlier_leadership_are_forgotten() {
        let mut policy = policy(0, 0);
        policy.needed(PEER, need(15));
        assert_eq!(helped(&mut policy, 4, 20), []);
        assert!(policy.needs.is_empty());
    }

    #[test]
    fn a_snapshot_that_cannot_be_read_or_is_an_old_one_is_taken_anew() {
        let mut policy = policy(0, 0);
        assert!(policy.opened(PEER, need(15), Index(15), Some(Index(15)), Index(15)));
        let view = View { applied: Index(15), newest: Index(15), ..IDLE };
        assert_eq!(decide(&mut policy, view), Decision::Wait);
        assert!(!policy.opened(PEER, need(15), Index(15), None, Index(15)));
        assert_eq!(helped(&mut policy, 3, 15), [], "that one can't be read");
        assert_eq!(decide(&mut policy, view), Decision::Build);
        assert_eq!(policy.state_taken(Index(15), Index(15)), Some(Taken::Write), "of the same state again");
        policy.built();
        assert_eq!(helped(&mut policy, 3, 15), [(PEER, need(15))]);
        assert!(!policy.opened(PEER, need(15), Index(17), Some(Index(15)), Index(18)), "an old file");
        assert_eq!(policy.needs[&PEER], Need { anew: true, ..need(18) });
    }

    #[test]
    fn a_log_that_was_cut_while_a_snapshot_was_opened_asks_for_no_other_than_the_one_that_cut_it() {
        let mut policy = policy(0, 0);
        assert!(!policy.opened(PEER, need(15), Index(15), Some(Index(15)), Index(18)));
        let view = View { applied: Index(20), newest: Index(18), ..IDLE };
        assert_eq!(decide(&mut policy, view), Decision::Wait, "none is built");
        assert_eq!(helped(&mut policy, 3, 18), [(PEER, need(18))]);
    }

    #[test]
    fn a_state_that_the_newest_snapshot_has_is_not_written() {
        let mut policy = policy(0, 0);
        assert_eq!(policy.state_taken(Index(9), Index(7)), None, "no build is under way");
        decide(&mut policy, View { has_callers: true, ..IDLE });
        assert_eq!(policy.state_taken(Index(9), Index(7)), Some(Taken::Write));
        assert_eq!(policy.state_taken(Index(7), Index(7)), Some(Taken::Covered));
        assert_eq!(policy.state_taken(Index(6), Index(7)), Some(Taken::Covered));
        assert_eq!(policy.state_taken(Index(0), Index(0)), Some(Taken::Covered), "nothing was applied");
    }

    #[test]
    fn where_the_state_machine_makes_none_callers_are_refused() {
        let mut policy = policy(10, 0);
        policy.unsupported();
        policy.needed(PEER, need(5));
        assert_eq!(decide(&mut policy, View { applied: Index(10), ..IDLE }), Decision::Refuse);
        assert!(policy.needs.is_empty());
    }

    #[test]
    fn a_removed_peer_is_helped_no_more_and_no_reason_for_a_snapshot() {
        let mut policy = policy(0, 0);
        policy.needed(PEER, need(15));
        assert_eq!(policy.helped(Term(3), Index(20), || vec![NodeId(3)]), []);
        assert_eq!(decide(&mut policy, View { applied: Index(15), newest: Index(9), ..IDLE }), Decision::Wait);
    }

    fn helped(policy: &mut SnapshotPolicy, term: u64, newest: u64) -> Vec<(NodeId, Need)> {
        policy.helped(Term(term), Index(newest), || vec![PEER])
    }

    fn policy(every_entries: u64, every_bytes: u64) -> SnapshotPolicy {
        SnapshotPolicy::new(Snapshots { every_entries, every_bytes, ..Snapshots::default() })
    }

    fn need(at_least: u64) -> Need {
        Need { term: Term(3), at_least: Index(at_least), anew: false }
    }

    fn decide(policy: &mut SnapshotPolicy, view: View) -> Decision {
        policy.decide(Moment::default, &view)
    }
}
