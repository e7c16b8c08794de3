//! The events of nodes in reports: each node's own, numbered without gaps, from where the receiver
//! has them; and the events of all nodes, merged.
//!
//! A lost report loses no event: the watching node states the last one that it has of each node
//! whenever it asks again, and takes only those that follow it. Events that the node itself no longer
//! has are told as lost.

use crate::events::{Event, Told, What};
use quorate_raft::{NodeId, Phase};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// The most events in a report.
const EVENTS_MAX: usize = 32;
/// The most bytes of text in a report's events, about; one event may exceed it by its own.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// The most bytes of one event's sentence; a longer one is cut.
const SENTENCE_BYTES_MAX: usize = 2 << 10;
/// The last events that a view has.
const MERGED_MAX: usize = 256;

/// Events of the node that reports, consecutive.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct EventsReport {
    /// The oldest event that the node still has; 0 if it has none.
    pub(crate) oldest: u64,
    pub(crate) events: Vec<ReportedEvent>,
}

/// An event, as its node reported it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReportedEvent {
    /// The event in words.
    pub told: Told,
    /// The message of an election that it is about.
    pub ballot: Option<BallotMessage>,
}

/// A message of an election.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BallotMessage {
    /// The candidate.
    pub candidate: NodeId,
    /// The voter whose answer arrived; `None` for the candidate's requests to all voters.
    pub voter: Option<NodeId>,
    /// Whether it is about a pre-vote, which changes no term.
    pub is_pre_vote: bool,
    /// The answer; `None` in a request.
    pub granted: Option<bool>,
    /// The time between the request and its answer, in milliseconds, on the candidate's clock; `None`
    /// in a request.
    pub took_ms: Option<u64>,
}

impl ReportedEvent {
    /// An event, as its node reports it.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let mut told = event.told();
        if told.text.len() > SENTENCE_BYTES_MAX {
            let end = (0..=SENTENCE_BYTES_MAX).rev().find(|end| told.text.is_char_boundary(*end)).unwrap_or(0);
            told.text.truncate(end);
        }
        let ballot = match &event.what {
            What::CampaignStarted { phase, .. } => Some((None, *phase, None, None)),
            What::VoteReceived { phase, voter, denial, took_ms, .. } => {
                Some((Some(*voter), *phase, Some(denial.is_none()), Some(*took_ms)))
            }
            _ => None,
        };
        let ballot = ballot.map(|(voter, phase, granted, took_ms)| BallotMessage {
            candidate: event.node,
            voter,
            is_pre_vote: phase == Phase::PreVote,
            granted,
            took_ms,
        });
        Self { told, ballot }
    }
}

impl EventsReport {
    /// The events after this one, as many as a report carries. `recent` are the last ones of the
    /// node, consecutive, oldest first.
    pub(crate) fn after(last: u64, recent: &[Arc<Event>]) -> Self {
        let mut bytes = 0;
        let news = recent.iter().filter(|event| event.id > last).take(EVENTS_MAX).map(|event| ReportedEvent::of(event));
        let events = news.take_while(|event| {
            let fits = bytes < TEXT_BYTES_MAX;
            bytes += event.told.text.len() + event.told.why.as_ref().map_or(0, String::len);
            fits
        });
        Self { events: events.collect(), oldest: recent.first().map_or(0, |event| event.id) }
    }

    /// Whether it is within the bounds of a report.
    pub(crate) fn is_bounded(&self) -> bool {
        let is_short = |told: &Told| {
            let texts = [&told.kind, &told.text].into_iter().chain(&told.why).chain(&told.reference);
            texts.map(String::len).all(|bytes| bytes <= SENTENCE_BYTES_MAX)
        };
        self.events.len() <= EVENTS_MAX && self.events.iter().all(|event| is_short(&event.told))
    }

    /// The last event that it has.
    pub(crate) fn last(&self) -> Option<u64> {
        self.events.last().map(|event| event.told.id)
    }
}

/// An event of the cluster, or a gap in them. The watching node has them in the order in which it
/// learnt of them; those of one node are in the order in which they happened there.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Happened {
    /// An event of a node.
    Event(Arc<ReportedEvent>),
    /// Events that a node no longer had when it was asked.
    Lost {
        /// The node.
        node: NodeId,
        /// Their number.
        count: u64,
    },
}

/// The events of all nodes, merged.
#[derive(Clone, Default, Debug)]
pub(crate) struct MergedEvents {
    /// The next event of each node, and the incarnation that numbers it.
    next: BTreeMap<NodeId, (u64, u64)>,
    last: VecDeque<Happened>,
    /// The number of everything that happened since the watch began.
    count: u64,
}

impl MergedEvents {
    /// The incarnation of a node whose events are known, and the last one of them.
    pub(crate) fn known(&self, node: NodeId) -> (u64, u64) {
        self.next.get(&node).map_or((0, 0), |(incarnation, next)| (*incarnation, next.saturating_sub(1)))
    }

    /// Takes the events that follow those that are known. `incarnation` is the present one of the
    /// node.
    pub(crate) fn heard(&mut self, node: NodeId, incarnation: u64, report: EventsReport) {
        let known = self.next.get(&node).filter(|(known, _)| *known == incarnation).map(|(_, next)| *next);
        // Events from before the watch are no loss.
        let mut next = known.unwrap_or(report.oldest).max(1);
        if report.oldest > next {
            self.push(Happened::Lost { node, count: report.oldest - next });
            next = report.oldest;
        }
        for event in report.events {
            if event.told.id == next && event.told.node == node {
                next = next.saturating_add(1);
                self.push(Happened::Event(Arc::new(event)));
            }
        }
        self.next.insert(node, (incarnation, next));
    }

    /// Forgets nodes that are no members any more.
    pub(crate) fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.next.retain(|node, _| is_member(*node));
    }

    fn push(&mut self, happened: Happened) {
        self.count += 1;
        self.last.push_back(happened);
        if self.last.len() > MERGED_MAX {
            self.last.pop_front();
        }
    }

    /// The last events and gaps, and the number of all.
    pub(crate) fn view(&self) -> (Vec<Happened>, u64) {
        (self.last.iter().cloned().collect(), self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Severity;
    use quorate_raft::{Denial, EntryId, Index, Term};

    const TWO: NodeId = NodeId(2);

    #[test]
    fn a_report_carries_the_events_after_those_that_are_known_within_its_bounds() {
        let recent: Vec<_> = (5..205).map(|id| event(id, What::LeaseHeld)).collect();
        let report = EventsReport::after(0, &recent);
        assert_eq!((report.oldest, ids(&report)), (5, (5..37).collect()));
        assert_eq!(ids(&EventsReport::after(203, &recent)), [204]);
        assert_eq!(EventsReport::after(204, &recent), EventsReport { oldest: 5, events: Vec::new() });
        assert_eq!(EventsReport::after(7, &[]), EventsReport::default());
        let long = |id| event(id, What::ChangeRefused { why: "ä".repeat(5_000) });
        let report = EventsReport::after(0, &(1..100).map(long).collect::<Vec<_>>());
        assert!(
            report.is_bounded()
                && report.events.len() < 12
                && report.events.iter().all(|event| event.told.text.len() <= SENTENCE_BYTES_MAX)
        );
    }

    #[test]
    fn events_are_taken_once_and_in_order_although_reports_repeat_or_are_lost() {
        let recent: Vec<_> = (1..10).map(|id| event(id, What::LeaseHeld)).collect();
        let mut merged = MergedEvents::default();
        merged.heard(TWO, 7, EventsReport::after(0, &recent[..3]));
        assert_eq!(merged.known(TWO), (7, 3));
        merged.heard(TWO, 7, EventsReport::after(1, &recent[..4]));
        // The report with event 5 was lost.
        merged.heard(TWO, 7, EventsReport::after(5, &recent));
        assert_eq!(merged.known(TWO), (7, 4), "6 does not follow 4");
        merged.heard(TWO, 7, EventsReport::after(4, &recent));
        let (last, count) = merged.view();
        let told = last.iter().map(|happened| match happened {
            Happened::Event(event) => event.told.id,
            Happened::Lost { .. } => panic!("nothing was lost: {happened:?}"),
        });
        assert_eq!((told.collect::<Vec<_>>(), count), ((1..10).collect(), 9));
    }

    #[test]
    fn events_that_the_node_no_longer_has_are_told_as_lost_but_not_those_before_the_watch() {
        let mut merged = MergedEvents::default();
        merged.heard(TWO, 7, EventsReport::after(0, &[event(300, What::LeaseHeld)]));
        merged.heard(TWO, 7, EventsReport::after(300, &[event(311, What::LeaseHeld)]));
        let (last, _) = merged.view();
        assert!(matches!(last[..], [Happened::Event(_), Happened::Lost { node: TWO, count: 10 }, Happened::Event(_)]));
        // Another process numbers anew.
        merged.heard(TWO, 8, EventsReport::after(0, &[event(1, What::LeaseHeld)]));
        assert_eq!((merged.known(TWO), merged.view().1), ((8, 1), 4));
        merged.retain(|node| node != TWO);
        assert_eq!(merged.known(TWO), (0, 0));
    }

    #[test]
    fn a_view_has_the_last_events_and_counts_all() {
        let mut merged = MergedEvents::default();
        for id in 1..1_000 {
            merged.heard(TWO, 7, EventsReport::after(id - 1, &[event(id, What::LeaseHeld)]));
        }
        let (last, count) = merged.view();
        assert_eq!((last.len(), count), (MERGED_MAX, 999));
    }

    #[test]
    fn an_event_of_another_node_than_its_reporter_is_not_taken() {
        let mut merged = MergedEvents::default();
        let mut report = EventsReport::after(0, &[event(1, What::LeaseHeld)]);
        report.events[0].told.node = NodeId(3);
        merged.heard(TWO, 7, report);
        assert_eq!(merged.view().1, 0);
    }

    #[test]
    fn messages_of_elections_are_the_requests_and_the_answers_that_arrived() {
        let (last, for_term) = (EntryId::new(Term(1), Index(2)), Term(9));
        let asks = What::CampaignStarted { phase: Phase::PreVote, for_term, last, silence_ms: None };
        let ballot = ReportedEvent::of(&event(1, asks)).ballot.expect("a request");
        let (voter, granted, took_ms) = (None, None, None);
        let expected = BallotMessage { candidate: TWO, voter, is_pre_vote: true, granted, took_ms };
        assert_eq!(ballot, expected);
        let answers = |denial| What::VoteReceived { phase: Phase::Vote, voter: NodeId(1), last, denial, took_ms: 4 };
        let ballot = ReportedEvent::of(&event(1, answers(Some(Denial::LostData)))).ballot.expect("an answer");
        let (voter, granted, took_ms) = (Some(NodeId(1)), Some(false), Some(4));
        let expected = BallotMessage { candidate: TWO, voter, is_pre_vote: false, granted, took_ms };
        assert_eq!(ballot, expected);
        assert_eq!(ReportedEvent::of(&event(1, answers(None))).ballot.and_then(|ballot| ballot.granted), Some(true));
        // One that was cast may be lost on its way.
        let cast = What::VoteCast { phase: Phase::Vote, candidate: NodeId(1), for_term, last, denial: None, more: 0 };
        assert_eq!(ReportedEvent::of(&event(1, cast)).ballot, None);
    }

    #[test]
    fn an_event_survives_its_bytes() {
        let reported = ReportedEvent::of(&event(1, What::ChangeRefused { why: "no".into() }));
        assert_eq!(reported.told.severity, Severity::Info);
        let bytes = postcard::to_allocvec(&reported).expect("bytes");
        assert_eq!(postcard::from_bytes::<ReportedEvent>(&bytes), Ok(reported));
    }

    fn ids(report: &EventsReport) -> Vec<u64> {
        report.events.iter().map(|event| event.told.id).collect()
    }

    fn event(id: u64, what: What) -> Arc<Event> {
        Arc::new(Event { id, node: TWO, term: Term(1), at_ms: id, wall_ms: id, what })
    }
}
