//! The view of the cluster: the latest report of each node, merged as reports arrive.

use super::{
    ASK_EVERY, DOUBTED_AFTER, RELAYS_MAX, SILENT_AFTER, UNHEARD_AFTER,
    events::{Happened, MergedEvents},
    report::{Members, NodeReport},
};
use quorate_raft::{Moment, NodeId};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

/// The cluster, as one node sees it at one moment.
#[derive(Clone, PartialEq, Default, Debug)]
#[non_exhaustive]
pub struct ClusterView {
    /// The node that made the view.
    pub node: NodeId,
    /// The members, by the configuration in force at the node that made the view.
    pub members: Members,
    /// The latest report of each node that was heard and is a member, or is the one that made the
    /// view. A member without one has not answered since the watch began.
    pub nodes: BTreeMap<NodeId, Seen>,
    /// The last events of all nodes; [`ClusterView::after`] gives those that are new to a caller.
    pub happened: Vec<Happened>,
    /// The number of everything that happened since the watch began.
    pub happened_count: u64,
}

/// The latest report of a node.
#[derive(Clone, PartialEq, Default, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// The report.
    pub report: Arc<NodeReport>,
    /// Its age, without the time that it was on its way.
    pub age: Duration,
    /// The member that passed it on, if the node itself is not heard.
    pub via: Option<NodeId>,
}

impl ClusterView {
    /// Everything that happened after the first `known`, as [`ClusterView::happened_count`] of an
    /// earlier view counts it; and how many in between are left out, because the caller was slow.
    #[must_use]
    pub fn after(&self, known: u64) -> (u64, &[Happened]) {
        let news = self.happened_count.saturating_sub(known);
        let here = usize::try_from(news).unwrap_or(usize::MAX).min(self.happened.len());
        (news - here as u64, &self.happened[self.happened.len() - here..])
    }

    /// Whether a node answers: its newest report is less than a second old, and less than 0.3 s, three
    /// intervals, if the nodes that answer know that it failed. They do if none of them has a
    /// connection to it; or if it led, none of them follows it, and one campaigns or has a later term.
    #[must_use]
    pub fn answers(&self, node: NodeId) -> bool {
        let Some(seen) = self.nodes.get(&node) else { return false };
        seen.age < DOUBTED_AFTER || (seen.age < SILENT_AFTER && !self.has_failed(&seen.report))
    }

    fn has_failed(&self, of: &NodeReport) -> bool {
        let is_other = |seen: &&Seen| seen.report.node != of.node && seen.age < DOUBTED_AFTER;
        let others = || self.nodes.values().filter(is_other).map(|seen| &*seen.report);
        let links = || others().flat_map(|other| &other.links).filter(|link| link.peer == of.node);
        let is_deposed = of.leader == Some(of.node)
            && others().all(|other| other.leader != Some(of.node))
            && others().any(|other| other.campaign.is_some() || other.term > of.term);
        is_deposed || (links().next().is_some() && links().all(|link| !link.is_up))
    }

    /// The leader of the highest term among the nodes that answer.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let answering = self.nodes.iter().filter(|(node, _)| self.answers(**node)).map(|(_, seen)| &seen.report);
        let leading = answering.filter(|report| report.leader == Some(report.node));
        leading.max_by_key(|report| report.term).map(|report| report.node)
    }
}

/// The reports that a watching node has, merged.
///
/// Of two reports of one incarnation the later one counts, by its sequence. Of two incarnations the
/// one that started later counts: a report of the earlier process may still be on its way.
///
/// **The node itself is believed before others.** A report that another member passed on counts only
/// for a node that was not heard directly for [`UNHEARD_AFTER`], and a direct one replaces it,
/// whatever its incarnation and sequence: those of the relayed one may be invented.
///
/// **The members are those of this node's own configuration**, with their addresses and metadata.
/// Another node's may have a higher index and be uncommitted: a leader that was cut off states one
/// that is discarded later, and a hostile member any. This node asks and hears its own peers alone.
/// While it is behind it shows the members up to its own log.
#[derive(Debug)]
pub(crate) struct Merge {
    this: NodeId,
    /// The begin of the watch: members have the time of [`UNHEARD_AFTER`] to report.
    since: Moment,
    known: BTreeMap<NodeId, Known>,
    events: MergedEvents,
}

#[derive(Debug)]
struct Known {
    report: Arc<NodeReport>,
    made_at: Moment,
    /// When a report came from the node itself.
    direct_at: Option<Moment>,
    via: Option<NodeId>,
}

impl Merge {
    pub(crate) fn new(this: NodeId, since: Moment) -> Self {
        Self { this, since, known: BTreeMap::new(), events: MergedEvents::default() }
    }

    /// Takes a report that is `age` old, from its node or from one that passed it on.
    pub(crate) fn heard(&mut self, now: Moment, via: Option<NodeId>, age: Duration, mut report: NodeReport) {
        let (node, made_at) = (report.node, Moment(now.0.saturating_sub(age)));
        if via.is_some() && self.is_heard(now, node) {
            return;
        }
        let (incarnation, events) = (report.incarnation, std::mem::take(&mut report.events));
        self.state_heard(now, via, made_at, report);
        // One that is late, or was passed on too, may have events that are missing.
        if self.known.get(&node).is_some_and(|known| known.report.incarnation == incarnation) {
            self.events.heard(node, incarnation, events);
        }
    }

    fn state_heard(&mut self, now: Moment, via: Option<NodeId>, made_at: Moment, report: NodeReport) {
        let node = report.node;
        if node != self.this && !self.members().contains(node) {
            return;
        }
        let known = self.known.get(&node);
        let is_known = |known: &&Known| {
            let replaces_relayed = via.is_none() && known.via.is_some();
            !replaces_relayed && !is_later((made_at, &report), (known.made_at, &known.report))
        };
        if let Some(known) = known.filter(is_known) {
            if via.is_none() && known.report.incarnation == report.incarnation {
                let direct_at = Some(now);
                self.known.entry(node).and_modify(|known| known.direct_at = direct_at);
            }
            return;
        }
        let direct_at = if via.is_none() { Some(now) } else { known.and_then(|known| known.direct_at) };
        let report = Arc::new(report);
        self.known.insert(node, Known { report: Arc::clone(&report), made_at, direct_at, via });
        if node == self.this {
            let stays = |id: NodeId| id == node || report.members.contains(id);
            self.known.retain(|node, _| stays(*node));
            self.events.retain(stays);
        }
    }

    /// Whether no report was taken yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The incarnation of a node whose events are known, and the last one of them.
    pub(crate) fn events_of(&self, node: NodeId) -> (u64, u64) {
        self.events.known(node)
    }

    /// The members of which no report has come directly for a while.
    pub(crate) fn unheard(&self, now: Moment) -> Vec<NodeId> {
        if now.since(self.since) < UNHEARD_AFTER {
            return Vec::new();
        }
        self.members().iter().filter(|node| *node != self.this && !self.is_heard(now, *node)).collect()
    }

    /// The members through which an unheard one is asked for: of those that are heard, the one that
    /// passed its last report on, and others in turn, as not each of them may hear it.
    pub(crate) fn relays_to(&self, now: Moment, node: NodeId) -> Vec<NodeId> {
        let is_relay = |id: &NodeId| *id != self.this && *id != node && self.is_heard(now, *id);
        let mut relays: Vec<_> = self.members().iter().filter(is_relay).collect();
        let turns = usize::try_from(now.0.as_millis() / ASK_EVERY.as_millis()).unwrap_or(0);
        let count = relays.len().max(1);
        relays.rotate_left(turns % count);
        let known = self.known.get(&node).filter(|known| now.since(known.made_at) < UNHEARD_AFTER + ASK_EVERY);
        let last = known.and_then(|known| known.via);
        relays.sort_by_key(|id| Some(*id) != last);
        relays.truncate(RELAYS_MAX);
        relays
    }

    /// Whether a report of the node came directly a moment ago.
    fn is_heard(&self, now: Moment, node: NodeId) -> bool {
        let at = self.known.get(&node).and_then(|known| known.direct_at);
        at.is_some_and(|at| now.since(at) < UNHEARD_AFTER)
    }

    /// The configuration in force at this node; empty before its own first report.
    fn members(&self) -> &Members {
        static NONE: LazyLock<Members> = LazyLock::new(Members::default);
        self.known.get(&self.this).map_or(&*NONE, |known| &known.report.members)
    }

    /// The view at this moment.
    pub(crate) fn view(&self, now: Moment) -> ClusterView {
        let seen =
            |known: &Known| Seen { report: Arc::clone(&known.report), age: now.since(known.made_at), via: known.via };
        let nodes = self.known.iter().map(|(node, known)| (*node, seen(known))).collect();
        let (happened, happened_count) = self.events.view();
        ClusterView { node: self.this, members: self.members().clone(), nodes, happened, happened_count }
    }
}

/// Whether a report replaces another one of its node.
fn is_later((made_at, report): (Moment, &NodeReport), (known_at, known): (Moment, &NodeReport)) -> bool {
    if report.incarnation == known.incarnation {
        return report.sequence > known.sequence;
    }
    // started = made - up, compared without going below zero.
    made_at.0.saturating_add(known.up) > known_at.0.saturating_add(report.up)
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::{Campaign, LinkReport, tests::full},
        *,
    };
    use quorate_raft::{Index, Phase, Term};

    const THIS: NodeId = NodeId(1);

    #[test]
    fn the_newest_report_of_an_incarnation_wins_however_it_came() {
        let mut merge = watching();
        merge.heard(at(1_000), None, ms(0), report(2, 5, 10, 900));
        merge.heard(at(1_001), Some(NodeId(3)), ms(50), report(2, 5, 9, 800));
        assert_eq!(sequence(&merge, 2), 10);
        merge.heard(at(1_500), Some(NodeId(3)), ms(50), report(2, 5, 14, 1_300));
        let view = merge.view(at(1_600));
        let seen = &view.nodes[&NodeId(2)];
        assert_eq!((seen.report.sequence, seen.via, seen.age), (14, Some(NodeId(3)), ms(150)));
        merge.heard(at(1_700), None, ms(0), report(2, 5, 15, 1_600));
        assert_eq!(merge.view(at(1_700)).nodes[&NodeId(2)].via, None, "it is heard again");
    }

    #[test]
    fn of_two_incarnations_the_one_that_started_later_wins_in_either_order() {
        let old = || report(2, 5, 900, 60_000);
        let new = || report(2, 6, 1, 20);
        let mut merge = watching();
        merge.heard(at(1_000), None, ms(0), old());
        merge.heard(at(1_500), None, ms(0), new());
        merge.heard(at(1_501), Some(NodeId(3)), ms(0), old());
        assert_eq!(sequence(&merge, 2), 1);
        let mut merge = watching();
        merge.heard(at(1_500), None, ms(0), new());
        merge.heard(at(1_501), Some(NodeId(3)), ms(0), old());
        assert_eq!(sequence(&merge, 2), 1, "the report of the dead process was on its way");
    }

    #[test]
    fn no_relayed_report_replaces_one_of_a_node_that_is_heard() {
        let mut merge = watching();
        merge.heard(at(1_000), None, ms(0), report(2, 5, 10, 900));
        for forged in [report(2, 5, u64::MAX, 900), report(2, 6, 1, 0)] {
            merge.heard(at(1_399), Some(NodeId(3)), ms(0), forged);
            assert_eq!(sequence(&merge, 2), 10);
        }
        merge.heard(at(1_400), Some(NodeId(3)), ms(0), report(2, 5, 12, 1_300));
        assert_eq!(sequence(&merge, 2), 12, "it is not heard any more");
    }

    #[test]
    fn a_direct_report_replaces_any_relayed_one() {
        for forged in [report(2, 5, u64::MAX, 0), report(2, 77, u64::MAX, 0)] {
            let mut merge = watching();
            merge.heard(at(1_000), Some(NodeId(3)), ms(0), forged);
            merge.heard(at(1_100), None, ms(0), report(2, 5, 10, 900));
            let view = merge.view(at(1_100));
            let seen = &view.nodes[&NodeId(2)];
            assert_eq!((seen.report.incarnation, seen.report.sequence, seen.via), (5, 10, None));
        }
    }

    #[test]
    fn a_report_grows_old_until_another_comes() {
        let mut merge = watching();
        merge.heard(at(1_000), None, ms(40), report(2, 5, 1, 0));
        assert_eq!(merge.view(at(3_000)).nodes[&NodeId(2)].age, ms(2_040));
    }

    #[test]
    fn a_member_is_unheard_until_it_reports_itself() {
        let mut merge = watching();
        merge.heard(at(0), None, ms(0), report(1, 5, 1, 0));
        assert_eq!(merge.unheard(at(399)), [], "the watch has just begun");
        assert_eq!(merge.unheard(at(400)), [NodeId(2), NodeId(3), NodeId(4)], "not this node");
        merge.heard(at(410), None, ms(0), report(2, 5, 1, 0));
        merge.heard(at(410), Some(NodeId(2)), ms(0), report(3, 5, 1, 0));
        assert_eq!(merge.unheard(at(420)), [NodeId(3), NodeId(4)], "3 is heard through 2 alone");
        assert_eq!(merge.unheard(at(810)), [NodeId(2), NodeId(3), NodeId(4)]);
        // A report that came through another node first proves that it is heard, too.
        merge.heard(at(900), Some(NodeId(2)), ms(0), report(3, 5, 2, 0));
        merge.heard(at(901), None, ms(0), report(3, 5, 2, 0));
        assert_eq!(merge.unheard(at(902)), [NodeId(2), NodeId(4)]);
    }

    #[test]
    fn an_unheard_member_is_asked_for_through_two_others_each_in_turn_and_the_one_that_hears_it() {
        let mut merge = Merge::new(THIS, at(0));
        let mut own = report(1, 5, 0, 0);
        own.members.voters = (1..=7).map(NodeId).collect();
        own.members.learners.clear();
        merge.heard(at(0), None, ms(0), own);
        let mut asked = std::collections::BTreeSet::new();
        for turn in 1..=5 {
            let now = turn * 500;
            for node in 2..=6 {
                merge.heard(at(now), None, ms(0), report(node, 5, turn, 0));
            }
            let relays = merge.relays_to(at(now), NodeId(7));
            assert_eq!(relays.len(), RELAYS_MAX);
            asked.extend(relays);
        }
        assert_eq!(asked, (2..=6).map(NodeId).collect(), "each was tried");
        merge.heard(at(2_600), Some(NodeId(4)), ms(0), report(7, 5, 1, 0));
        for now in [2_600, 2_700, 2_800] {
            assert_eq!(merge.relays_to(at(now), NodeId(7))[0], NodeId(4), "it passes reports on");
        }
        assert_eq!(merge.relays_to(at(9_000), NodeId(7)), [], "none is heard");
    }

    #[test]
    fn a_node_that_left_this_nodes_own_configuration_goes() {
        let mut merge = watching();
        for node in [2, 3] {
            merge.heard(at(0), None, ms(0), report(node, 5, 1, 0));
        }
        let mut removed = report(1, 5, 2, 100);
        removed.members.index = Index(90);
        removed.members.voters.retain(|node| *node != NodeId(3));
        merge.heard(at(100), None, ms(0), removed);
        let view = merge.view(at(100));
        assert_eq!(view.nodes.keys().copied().collect::<Vec<_>>(), [NodeId(1), NodeId(2)]);
        assert_eq!(view.members.index, Index(90));
        merge.heard(at(110), None, ms(0), report(3, 5, 2, 100));
        assert!(!merge.view(at(110)).nodes.contains_key(&NodeId(3)), "its late report counts for nothing");
    }

    #[test]
    fn a_configuration_that_another_node_states_changes_no_member() {
        let mut merge = watching();
        let before = merge.view(at(0)).members;
        let mut uncommitted = report(2, 5, 1, 0);
        uncommitted.members.index = Index(1 << 40);
        uncommitted.members.is_settled = false;
        uncommitted.members.voters = vec![NodeId(2), NodeId(9)];
        uncommitted.members.addresses.insert(NodeId(1), "elsewhere:1".into());
        merge.heard(at(10), None, ms(0), uncommitted);
        let view = merge.view(at(10));
        assert_eq!((view.members, view.nodes.len()), (before, 2));
    }

    #[test]
    fn reports_of_nodes_that_are_no_members_are_not_kept_however_many_come() {
        let mut merge = watching();
        for id in 100..10_000 {
            merge.heard(at(10), Some(NodeId(2)), ms(0), report(id, 5, 1, 0));
            assert_eq!(merge.events_of(NodeId(id)), (0, 0));
        }
        assert_eq!(merge.view(at(10)).nodes.len(), 1);
    }

    #[test]
    fn the_leader_is_that_of_the_highest_term_that_was_heard_lately() {
        let mut merge = watching();
        let leads = |node, term, leader: Option<u64>| {
            let mut report = report(node, 5, term, 0);
            (report.term, report.leader) = (Term(term), leader.map(NodeId));
            report
        };
        merge.heard(at(0), None, ms(0), leads(1, 9, None));
        merge.heard(at(0), None, ms(0), leads(2, 7, Some(2)));
        assert_eq!(merge.view(at(10)).leader(), Some(NodeId(2)));
        merge.heard(at(500), None, ms(0), leads(3, 9, Some(3)));
        assert_eq!(merge.view(at(510)).leader(), Some(NodeId(3)));
        assert_eq!(merge.view(at(1_500)).leader(), None);
    }

    #[test]
    fn a_leader_without_a_report_is_gone_as_soon_as_the_others_know_it_and_not_before() {
        let reports = |at_ms: u64, node: u64, change: fn(&mut NodeReport)| {
            let mut report = report(node, 5, at_ms, 0);
            (report.leader, report.campaign) = (Some(NodeId(3)), None);
            report.links = (1..=3).filter(|peer| *peer != node).map(|peer| link(peer, true)).collect();
            change(&mut report);
            report
        };
        let is_cut: fn(&mut NodeReport) = |report| report.links.iter_mut().for_each(|link| link.is_up = false);
        let campaigns: fn(&mut NodeReport) =
            |report| (report.leader, report.campaign) = (None, Some(Campaign::opened(Phase::PreVote)));
        let has_none: fn(&mut NodeReport) = |report| report.leader = None;
        let looks = |now, one: fn(&mut NodeReport), two: fn(&mut NodeReport)| {
            let mut merge = Merge::new(THIS, at(0));
            merge.heard(at(0), None, ms(0), report(1, 5, 0, 0));
            merge.heard(at(1_000), None, ms(0), reports(1_000, 3, |_| {}));
            merge.heard(at(now), None, ms(0), reports(now, 1, one));
            merge.heard(at(now), None, ms(0), reports(now, 2, two));
            let view = merge.view(at(now));
            assert_eq!(view.answers(NodeId(3)), view.leader() == Some(NodeId(3)));
            view.answers(NodeId(3))
        };
        assert!(looks(1_299, campaigns, campaigns), "its last report is of this moment");
        assert!(!looks(1_300, campaigns, has_none));
        assert!(looks(1_300, campaigns, |_| {}), "the other one still follows it");
        assert!(looks(1_300, has_none, has_none), "none was elected since, as far as they know");
        assert!(!looks(1_300, has_none, |report| (report.leader, report.term) = (None, Term(9))));
        assert!(!looks(1_300, is_cut, is_cut));
        assert!(looks(1_300, is_cut, |_| {}), "one is connected to it");
        assert!(looks(1_999, |_| {}, |_| {}));
        assert!(!looks(2_000, |_| {}, |_| {}));
    }

    #[test]
    fn a_caller_gets_what_is_new_to_it_and_is_told_what_it_missed() {
        let view = |happened: usize, count| ClusterView {
            happened: vec![Happened::Lost { node: THIS, count: 1 }; happened],
            happened_count: count,
            ..Merge::new(THIS, at(0)).view(at(0))
        };
        let after = |view: &ClusterView, known| {
            let (missed, news) = view.after(known);
            (missed, news.len())
        };
        assert_eq!(after(&view(0, 0), 0), (0, 0));
        assert_eq!(after(&view(5, 5), 0), (0, 5));
        assert_eq!(after(&view(5, 5), 3), (0, 2));
        assert_eq!(after(&view(5, 5), 5), (0, 0));
        assert_eq!(after(&view(5, 20), 3), (12, 5));
        assert_eq!(after(&view(5, 5), 9), (0, 0), "a watch that began anew counts anew");
    }

    /// A node that has composed its own first report.
    fn watching() -> Merge {
        let mut merge = Merge::new(THIS, at(0));
        merge.heard(at(0), None, ms(0), report(1, 5, 0, 0));
        merge
    }

    fn link(peer: u64, is_up: bool) -> LinkReport {
        LinkReport { peer: NodeId(peer), is_up, round_trip: None, replication: None }
    }

    fn sequence(merge: &Merge, node: u64) -> u64 {
        merge.view(at(10_000)).nodes[&NodeId(node)].report.sequence
    }

    fn report(node: u64, incarnation: u64, sequence: u64, up_ms: u64) -> NodeReport {
        NodeReport { node: NodeId(node), incarnation, sequence, up: ms(up_ms), ..full() }
    }

    fn at(at: u64) -> Moment {
        Moment(ms(at))
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}
