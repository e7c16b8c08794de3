//! The nodes that look at this one: for how long, and when each is due a report.

use super::{REPORT_EVERY, WANTED_MAX};
use quorate_raft::{Moment, NodeId, Observe, Wanted};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The requests for reports that count now, at most one for each member.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(BTreeMap<NodeId, Subscription>);

#[derive(Debug)]
struct Subscription {
    every: Duration,
    until: Moment,
    /// When the next report is due; `None` if this node's own are not wanted.
    due: Option<Moment>,
    /// The last event of this node that the subscriber has, or that was sent to it since it asked.
    events_after: u64,
    /// The nodes whose reports this one passes on.
    relayed: BTreeMap<NodeId, Wanted>,
}

/// The bounds of a request's times.
const EVERY_MAX: Duration = Duration::from_secs(10);
const FOR_MAX: Duration = Duration::from_secs(10);

impl Subscribers {
    /// Member `from` asks; its request replaces its earlier one. `members` are the other members.
    pub(crate) fn asked(
        &mut self,
        now: Moment,
        (this, incarnation): (NodeId, u64),
        from: NodeId,
        asked: &Observe,
        members: &BTreeSet<NodeId>,
    ) {
        let ms = |ms: u32| Duration::from_millis(u64::from(ms));
        let wanted = || asked.wanted.iter().take(WANTED_MAX).copied();
        let own = wanted().find(|wanted| wanted.node == this);
        // A renewal must not bring the next report forward.
        let due = own.map(|_| self.0.get(&from).and_then(|known| known.due).unwrap_or(now));
        let events_after = own.filter(|own| own.incarnation == incarnation).map_or(0, |own| own.events_after);
        let relayed = wanted().filter(|wanted| wanted.node != from && members.contains(&wanted.node));
        let relayed = relayed.map(|wanted| (wanted.node, wanted)).collect();
        let every = ms(asked.every_ms).clamp(REPORT_EVERY, EVERY_MAX);
        let until = now.plus(ms(asked.for_ms).min(FOR_MAX));
        self.0.insert(from, Subscription { every, until, due, events_after, relayed });
    }

    /// Drops the requests whose time is over, and those of nodes that are no members any more.
    pub(crate) fn expire(&mut self, now: Moment, members: &BTreeSet<NodeId>) {
        self.0.retain(|from, subscription| subscription.until > now && members.contains(from));
    }

    /// The nodes that are due a report of this node, with the last event that each has; each is due
    /// again later.
    pub(crate) fn due(&mut self, now: Moment) -> Vec<(NodeId, u64)> {
        let mut due = Vec::new();
        for (from, subscription) in &mut self.0 {
            if subscription.due.is_some_and(|at| at <= now) {
                subscription.due = Some(now.plus(subscription.every));
                due.push((*from, subscription.events_after));
            }
        }
        due
    }

    /// Events up to this one were sent to a subscriber.
    pub(crate) fn sent(&mut self, to: NodeId, last: u64) {
        if let Some(subscription) = self.0.get_mut(&to) {
            subscription.events_after = subscription.events_after.max(last);
        }
    }

    /// The nodes to which reports of `of` are passed on.
    pub(crate) fn relays_of(&self, of: NodeId) -> impl Iterator<Item = NodeId> {
        self.0.iter().filter(move |(_, subscription)| subscription.relayed.contains_key(&of)).map(|(from, _)| *from)
    }

    /// The nodes that this one asks on behalf of others.
    pub(crate) fn relayed(&self) -> BTreeSet<NodeId> {
        self.0.values().flat_map(|subscription| subscription.relayed.keys()).copied().collect()
    }

    /// The request for a node's reports that serves all for which they are passed on, and one of
    /// this node's own: from the event after which all of them need more.
    pub(crate) fn wanted(&self, node: NodeId, own: Option<Wanted>) -> Option<Wanted> {
        let others = self.0.values().filter_map(|subscription| subscription.relayed.get(&node)).copied();
        others.chain(own).reduce(|one, other| {
            let events_after =
                if one.incarnation == other.incarnation { one.events_after.min(other.events_after) } else { 0 };
            Wanted { events_after, ..one }
        })
    }

    /// Whether no request counts.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIS: (NodeId, u64) = (NodeId(1), 77);

    #[test]
    fn a_subscriber_is_due_at_once_then_at_its_interval_until_its_time_is_over() {
        let mut subscribers = Subscribers::default();
        subscribers.asked(at(0), THIS, NodeId(2), &observe(200, 1_000, &[1]), &members());
        assert_eq!(subscribers.due(at(0)), [(NodeId(2), 0)]);
        assert_eq!(subscribers.due(at(199)), []);
        assert_eq!(subscribers.due(at(200)), [(NodeId(2), 0)]);
        subscribers.expire(at(999), &members());
        assert!(!subscribers.is_empty());
        subscribers.expire(at(1_000), &members());
        assert!(subscribers.is_empty());
    }

    #[test]
    fn a_renewal_prolongs_and_sends_nothing_earlier() {
        let mut subscribers = Subscribers::default();
        for ms in [0, 50] {
            subscribers.asked(at(ms), THIS, NodeId(2), &observe(200, 1_000, &[1]), &members());
            let due = subscribers.due(at(ms));
            assert_eq!(due.len(), usize::from(ms == 0), "asked at {ms} ms");
        }
        subscribers.expire(at(1_049), &members());
        assert!(!subscribers.is_empty());
    }

    #[test]
    fn the_times_of_a_hostile_request_are_bounded() {
        let mut subscribers = Subscribers::default();
        subscribers.asked(at(0), THIS, NodeId(2), &observe(0, u32::MAX, &[1]), &members());
        assert_eq!(subscribers.due(at(0)).len(), 1);
        assert_eq!(subscribers.due(at(99)).len(), 0, "ten a second at most");
        subscribers.expire(at(10_000), &members());
        assert!(subscribers.is_empty(), "ten seconds at most");
    }

    #[test]
    fn other_members_are_relayed_to_the_askers_and_strangers_are_not() {
        let mut subscribers = Subscribers::default();
        subscribers.asked(at(0), THIS, NodeId(2), &observe(100, 1_000, &[3, 9, 2]), &members());
        assert_eq!(subscribers.due(at(0)), [], "its own state was not asked for");
        assert_eq!(subscribers.relayed(), [NodeId(3)].into());
        assert_eq!(subscribers.relays_of(NodeId(3)).collect::<Vec<_>>(), [NodeId(2)]);
        assert_eq!(subscribers.relays_of(NodeId(9)).count(), 0);
        let many: Vec<u64> = (10..10 + WANTED_MAX as u64).chain([1]).collect();
        subscribers.asked(at(0), THIS, NodeId(2), &observe(100, 1_000, &many), &members());
        assert_eq!(subscribers.due(at(0)), [], "named after the most that count");
    }

    #[test]
    fn events_go_on_after_the_last_one_that_was_sent_until_the_subscriber_says_what_it_has() {
        let mut subscribers = Subscribers::default();
        let asks = |subscribers: &mut Subscribers, ms, incarnation, events_after| {
            let wanted = vec![Wanted { node: THIS.0, incarnation, events_after }];
            let observe = Observe { wanted, ..observe(100, 1_000, &[]) };
            subscribers.asked(at(ms), THIS, NodeId(2), &observe, &members());
        };
        asks(&mut subscribers, 0, 77, 5);
        assert_eq!(subscribers.due(at(0)), [(NodeId(2), 5)]);
        subscribers.sent(NodeId(2), 9);
        assert_eq!(subscribers.due(at(100)), [(NodeId(2), 9)]);
        asks(&mut subscribers, 150, 77, 7);
        assert_eq!(subscribers.due(at(200)), [(NodeId(2), 7)], "a report was lost");
        asks(&mut subscribers, 250, 76, 7);
        assert_eq!(subscribers.due(at(300)), [(NodeId(2), 0)], "it knows events of an earlier process");
    }

    #[test]
    fn one_request_serves_all_that_want_a_node() {
        let mut subscribers = Subscribers::default();
        let wanted = |incarnation, events_after| Wanted { node: NodeId(3), incarnation, events_after };
        assert_eq!(subscribers.wanted(NodeId(3), None), None);
        assert_eq!(subscribers.wanted(NodeId(3), Some(wanted(5, 9))), Some(wanted(5, 9)));
        let observe = Observe { wanted: vec![wanted(5, 4)], ..observe(100, 1_000, &[]) };
        subscribers.asked(at(0), THIS, NodeId(2), &observe, &members());
        assert_eq!(subscribers.wanted(NodeId(3), None), Some(wanted(5, 4)));
        assert_eq!(subscribers.wanted(NodeId(3), Some(wanted(5, 9))), Some(wanted(5, 4)));
        assert_eq!(subscribers.wanted(NodeId(3), Some(wanted(6, 9))).expect("one").events_after, 0);
        assert_eq!(subscribers.wanted(NodeId(2), None), None);
    }

    #[test]
    fn a_node_that_left_is_told_no_more() {
        let mut subscribers = Subscribers::default();
        subscribers.asked(at(0), THIS, NodeId(2), &observe(100, 1_000, &[1]), &members());
        subscribers.expire(at(1), &[NodeId(3)].into());
        assert!(subscribers.is_empty());
    }

    fn members() -> BTreeSet<NodeId> {
        [NodeId(2), NodeId(3)].into()
    }

    fn observe(every_ms: u32, for_ms: u32, wanted: &[u64]) -> Observe {
        let wanted = wanted.iter().map(|node| Wanted { node: NodeId(*node), incarnation: 0, events_after: 0 });
        Observe { every_ms, for_ms, wanted: wanted.collect() }
    }

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }
}
