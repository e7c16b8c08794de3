//! The last 15 minutes: spans of roles and troubles of each node, the rate of writes, and their 99th
//! percentile. Of times without a stream it has what this node knows by itself (`record`): the leader
//! and its own lane; those of others have a hole.

use super::{
    page::{Node, Page},
    record::Own,
};
use quorate::{NodeId, Term};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// The time that is kept, in milliseconds.
const KEPT_MS: u64 = 15 * 60 * 1000;
/// The most spans that are kept.
const SPANS_MAX: usize = 2_000;
/// The interval of points, in milliseconds.
const POINT_EVERY_MS: u64 = 1_000;
/// A page that comes later than this after the one before leaves a hole.
const HOLE_MS: u64 = 2_000;

/// The spans and points of the last 15 minutes. Times are milliseconds on the clock of `now_ms`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct History {
    spans: VecDeque<Span>,
    series: VecDeque<Point>,
    /// For each node, the span that is open.
    #[serde(skip)]
    open: BTreeMap<NodeId, Span>,
    #[serde(skip)]
    last_ms: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Span {
    node: NodeId,
    from_ms: u64,
    to_ms: u64,
    /// `leader`, `election`, `follower`, `learner`, `down`, `cut` or `slow`.
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<Term>,
}

#[derive(Clone, PartialEq, Debug, Serialize)]
struct Point {
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes_per_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
}

impl History {
    /// Takes a page of this time.
    pub(super) fn record(&mut self, now_ms: u64, page: &Page) {
        let lanes = page.nodes.iter().map(|(id, node)| (*id, doing(page, *id, node))).collect();
        self.take(&lanes, Point { at_ms: now_ms, writes_per_s: page.writes_per_s, p99_ms: page.p99_ms });
    }

    /// Takes the facts of this node alone.
    pub(super) fn record_own(&mut self, now_ms: u64, own: &Own) {
        let mut lanes = BTreeMap::from([(own.node, (own.lane, None))]);
        if own.lane == "election" {
            lanes.insert(own.node, (own.lane, Some(own.term)));
        }
        lanes.extend(own.leader.map(|leader| (leader, ("leader", Some(own.term)))));
        self.take(&lanes, Point { at_ms: now_ms, writes_per_s: own.writes_per_s, p99_ms: None });
    }

    fn take(&mut self, lanes: &BTreeMap<NodeId, (&'static str, Option<Term>)>, point: Point) {
        let now_ms = point.at_ms;
        if self.last_ms.is_some_and(|last| now_ms.saturating_sub(last) > HOLE_MS) {
            self.close_all();
        }
        self.last_ms = Some(now_ms);
        for (id, (what, term)) in lanes {
            let (what, term) = (*what, *term);
            match self.open.get_mut(id) {
                Some(span) if (span.what, span.term) == (what, term) => span.to_ms = now_ms,
                open => {
                    if let Some(mut over) = open.cloned() {
                        over.to_ms = now_ms;
                        self.spans.push_back(over);
                    }
                    self.open.insert(*id, Span { node: *id, from_ms: now_ms, to_ms: now_ms, what, term });
                }
            }
        }
        let gone = self.open.extract_if(.., |id, _| !lanes.contains_key(id));
        self.spans.extend(gone.map(|(_, span)| span));
        if self.series.back().is_none_or(|last| now_ms.saturating_sub(last.at_ms) >= POINT_EVERY_MS) {
            self.series.push_back(point);
        }
        let since = now_ms.saturating_sub(KEPT_MS);
        while self.series.front().is_some_and(|point| point.at_ms < since) {
            self.series.pop_front();
        }
        while self.spans.len() > SPANS_MAX || self.spans.front().is_some_and(|span| span.to_ms < since) {
            self.spans.pop_front();
        }
    }

    /// Forgets all that came after this time.
    pub(super) fn rewind(&mut self, to_ms: u64) {
        self.close_all();
        self.spans.retain(|span| span.from_ms <= to_ms);
        self.spans.iter_mut().for_each(|span| span.to_ms = span.to_ms.min(to_ms));
        self.series.retain(|point| point.at_ms <= to_ms);
        self.last_ms = Some(to_ms);
    }

    /// The history with the spans that are open.
    pub(super) fn whole(&self) -> Self {
        let mut whole = self.clone();
        whole.close_all();
        whole
    }

    #[cfg(test)]
    pub(super) fn points(&self) -> usize {
        self.series.len()
    }

    fn close_all(&mut self) {
        self.spans.extend(std::mem::take(&mut self.open).into_values());
    }
}

/// The content of a node's lane at this moment, the most important first.
fn doing(page: &Page, id: NodeId, node: &Node) -> (&'static str, Option<Term>) {
    let Some(state) = node.state.as_ref().filter(|_| node.up) else { return ("down", None) };
    if page.leader == Some(id) {
        return ("leader", Some(state.term));
    }
    if state.votes.is_some() {
        return ("election", Some(state.term));
    }
    let is_cut = page.leader.is_some_and(|leader| super::verdict::is_cut_off(page, leader, id));
    match state.role {
        _ if is_cut => ("cut", None),
        _ if state.disk_slow => ("slow", None),
        "learner" => ("learner", None),
        _ => ("follower", None),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::verdict::tests::Cluster, *};

    #[test]
    fn a_lane_has_a_span_for_each_thing_that_its_node_did() {
        let mut history = History::default();
        let at = |history: &mut History, now_ms, cluster: Cluster| history.record(now_ms, &cluster.page());
        at(&mut history, 0, Cluster::of_three());
        at(&mut history, 100, Cluster::of_three());
        at(&mut history, 200, Cluster::of_three().without_answer(1));
        at(&mut history, 300, Cluster::of_three().without_answer(1));
        at(&mut history, 400, Cluster::of_three());
        let whole = history.whole();
        let lane = |node| -> Vec<_> {
            let spans = whole.spans.iter().filter(|span| span.node == NodeId(node));
            spans.map(|span| (span.what, span.from_ms, span.to_ms)).collect()
        };
        assert_eq!(lane(1), [("follower", 0, 200), ("down", 200, 400), ("follower", 400, 400)]);
        assert_eq!(lane(3), [("leader", 0, 400)]);
        assert_eq!(whole.series.len(), 1, "a point a second");
    }

    #[test]
    fn a_time_without_streams_has_the_leader_and_this_node_alone() {
        let mut history = History::default();
        let own = |lane, leader: Option<u64>, writes_per_s| {
            let leader = leader.map(NodeId);
            Own { node: NodeId(1), term: Term(8), leader, lane, writes_per_s }
        };
        history.record_own(0, &own("follower", Some(3), None));
        history.record_own(1_000, &own("follower", Some(3), Some(40)));
        history.record_own(1_200, &own("election", None, None));
        history.record_own(2_000, &own("follower", Some(1), Some(7)));
        history.record(2_100, &Cluster::of_three().page());
        let whole = history.whole();
        let lane = |node| -> Vec<_> {
            let spans = whole.spans.iter().filter(|span| span.node == NodeId(node));
            spans.map(|span| (span.what, span.from_ms, span.to_ms)).collect()
        };
        assert_eq!(lane(2), [("follower", 2_100, 2_100)]);
        assert_eq!(lane(3), [("leader", 0, 1_000), ("leader", 2_100, 2_100)]);
        let own = [("follower", 0, 1_200), ("election", 1_200, 2_000), ("leader", 2_000, 2_100)];
        assert_eq!(lane(1), [&own[..], &[("follower", 2_100, 2_100)]].concat());
        let points: Vec<_> = whole.series.iter().map(|point| (point.at_ms, point.writes_per_s)).collect();
        assert_eq!(points, [(0, None), (1_000, Some(40)), (2_000, Some(7))]);
    }

    #[test]
    fn a_history_that_is_rewound_ends_there() {
        let mut history = History::default();
        for now_ms in (0..=5_000).step_by(500) {
            let cluster = Cluster::of_three();
            let cluster = if now_ms < 2_000 { cluster } else { cluster.without_answer(1) };
            history.record(now_ms, &cluster.page());
        }
        history.rewind(1_500);
        let whole = history.whole();
        assert!(whole.spans.iter().all(|span| span.to_ms <= 1_500 && span.what != "down"), "{:?}", whole.spans);
        assert_eq!(whole.series.len(), 2);
        history.record(2_000, &Cluster::of_three().page());
        assert_eq!(history.whole().spans.len(), 6, "it goes on with other spans");
    }

    #[test]
    fn a_time_without_records_is_a_hole_and_old_times_go() {
        let mut history = History::default();
        let page = Cluster::of_three().page();
        history.record(0, &page);
        history.record(60_000, &page);
        let spans = history.whole().spans;
        assert!(spans.iter().all(|span| span.from_ms == span.to_ms), "{spans:?}");
        for now_ms in (60_000..KEPT_MS * 2).step_by(100) {
            let cluster = Cluster::of_three();
            let page = if now_ms % 1_000 == 0 { cluster.without_answer(1).page() } else { page.clone() };
            history.record(now_ms, &page);
        }
        let whole = history.whole();
        assert!(whole.spans.len() <= SPANS_MAX + 3, "{} spans", whole.spans.len());
        assert!(whole.spans.iter().all(|span| span.to_ms >= KEPT_MS - 100));
        assert!((895..=905).contains(&whole.series.len()), "{} points", whole.series.len());
    }
}
