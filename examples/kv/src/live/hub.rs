//! One page for all streams: it is made of each view of the cluster, and what changed goes to the
//! streams as one message that they share.
//!
//! It runs while there is a stream. A stream that falls too far back gets the number of messages
//! that it missed, and the whole page again.

use super::{
    history::History,
    page::{Local, Page, page},
    patch::diff,
    record::Own,
    stages::Renewed,
};
use axum::body::Bytes;
use quorate::{
    BallotMessage, ClusterView, ClusterWatch, Happened, MemberMetadata, NodeId, ReportedEvent, events::Told,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::broadcast, time::Instant};

/// The most messages that wait for the slowest stream; it misses what exceeds them.
pub(crate) const MESSAGES_MAX: usize = 128;
/// The most events in a snapshot.
pub(super) const EVENTS_MAX: usize = 200;
/// The last moment of the year 9999.
const WALL_MS_MAX: u64 = 253_402_300_799_999;
/// The time in which the other members answer, if they do: the first page waits for them.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// The time over which the rate of writes is a mean.
const RATE_OVER: Duration = Duration::from_secs(1);

/// The metadata of the members.
type Metadata = Arc<BTreeMap<NodeId, MemberMetadata>>;

/// The page that all streams of a node share.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Mutex<State>>);

pub(super) struct State {
    cluster: String,
    /// `None` while there is no stream.
    messages: Option<broadcast::Sender<Bytes>>,
    /// The page as the streams have it; `None` before the first view.
    page: Option<Value>,
    history: History,
    /// The last events, with their time on the page's clock.
    events: VecDeque<(i64, Arc<ReportedEvent>)>,
    clock: Instant,
    tracking: Tracking,
}

/// A place in the messages, and the page up to it.
pub(crate) struct Joined {
    pub(crate) messages: broadcast::Receiver<Bytes>,
    /// `None` if the first message will be the page.
    pub(crate) snapshot: Option<Bytes>,
    /// Whether this stream is the first one: it must run the hub.
    pub(crate) is_first: bool,
}

impl Hub {
    pub(crate) fn new(cluster: String) -> Self {
        Self(Arc::new(Mutex::new(State {
            cluster,
            messages: None,
            page: None,
            history: History::default(),
            events: VecDeque::new(),
            clock: Instant::now(),
            tracking: Tracking::default(),
        })))
    }

    /// Joins the streams. If this is the first one, the caller starts [`Hub::run`].
    pub(crate) fn join(&self) -> Joined {
        let mut state = self.state();
        let snapshot = state.snapshot();
        let is_first = state.messages.is_none();
        let messages = state.messages.get_or_insert_with(|| broadcast::channel(MESSAGES_MAX).0).subscribe();
        Joined { messages, snapshot, is_first }
    }

    /// The whole page again, for a stream that missed messages; `None` once the node has ended.
    pub(crate) fn join_again(&self) -> Option<Joined> {
        let state = self.state();
        let messages = state.messages.as_ref()?.subscribe();
        Some(Joined { messages, snapshot: state.snapshot(), is_first: false })
    }

    /// Makes pages until no stream is left, or the node ends: then all streams end. `metadata` is that
    /// of the members by the configuration that this node has.
    pub(crate) async fn run(self, mut watch: ClusterWatch, metadata: impl Fn() -> Metadata) {
        let mut ending = Ending(Some(self.clone()));
        while let Some(view) = watch.next().await {
            let mut state = self.state();
            let Some(messages) = state.messages.clone() else { break };
            if messages.receiver_count() == 0 {
                // Once the lock is released, another stream may begin another run.
                ending.0 = None;
                return state.end();
            }
            if !state.is_known(&view) {
                continue;
            }
            for message in state.viewed(&view, metadata()) {
                // Streams may leave at any time.
                let _ = messages.send(message);
            }
        }
    }

    pub(super) fn downgrade(&self) -> Weak<Mutex<State>> {
        Arc::downgrade(&self.0)
    }

    /// The points that were recorded.
    #[cfg(test)]
    pub(crate) fn points(&self) -> usize {
        self.state().history.points()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the streams, also those of a run that panics: without a run they would wait for ever, and
/// so would those that come later.
struct Ending(Option<Hub>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(hub) = self.0.take() {
            hub.state().end();
        }
    }
}

impl State {
    /// No stream is left, or those that are left end now. The history stays; the nodes state their
    /// last events to the next watch again.
    fn end(&mut self) {
        (self.messages, self.page) = (None, None);
        self.events.clear();
        self.tracking = Tracking::default();
    }

    /// This node looked at itself. While there is a stream, its pages have more.
    pub(super) fn looked(&mut self, own: &Own) {
        if self.messages.is_none() {
            let now_ms = millis(self.clock.elapsed());
            self.history.record_own(now_ms, own);
        }
    }

    /// Whether the other members had the time to answer: a first page without them would say that
    /// they don't.
    fn is_known(&mut self, view: &ClusterView) -> bool {
        let since = *self.tracking.since.get_or_insert_with(Instant::now);
        self.page.is_some()
            || since.elapsed() >= FIRST_WITHIN
            || view.members.iter().all(|member| view.nodes.contains_key(&member))
    }

    /// The messages for a view: what changed, then what happened.
    fn viewed(&mut self, view: &ClusterView, metadata: Metadata) -> Vec<Bytes> {
        let now = Instant::now();
        let now_ms = millis(now.saturating_duration_since(self.clock));
        let local = self.tracking.local(self.cluster.clone(), metadata, now, view);
        let page = page(view, &local);
        self.history.record(now_ms, &page);
        let (missed, news) = view.after(self.tracking.happened);
        self.tracking.happened = view.happened_count;
        let mut stories = Vec::new();
        if missed > 0 && self.page.is_some() {
            stories.push(message("lost", &json!({"count": missed})));
        }
        for happened in news {
            match happened {
                Happened::Event(event) => self.told((event, time_of(event, view, now_ms)), &page, &mut stories),
                Happened::Lost { node, count } => {
                    stories.push(message("lost", &json!({"node": node, "count": count})));
                }
                _ => {}
            }
        }
        let new = json_of(&page);
        let mut messages = Vec::new();
        match self.page.replace(new.clone()) {
            None => messages.extend(self.snapshot()),
            Some(old) => {
                messages.extend(diff(&old, &new).map(|patch| message("delta", &clocked(patch, now_ms))));
                messages.extend(stories);
            }
        }
        messages
    }

    fn told(&mut self, (event, at_ms): (&Arc<ReportedEvent>, i64), page: &Page, stories: &mut Vec<Bytes>) {
        if let Some(ballot) = &event.ballot {
            let ballots = ballots(ballot, &event.told.text, at_ms, page);
            stories.extend(ballots.iter().map(|ballot| message("ballot", ballot)));
        }
        stories.push(message("event", &Story::of(at_ms, &event.told)));
        self.events.push_back((at_ms, Arc::clone(event)));
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    fn snapshot(&self) -> Option<Bytes> {
        let page = self.page.clone()?;
        let mut page = clocked(page, millis(self.clock.elapsed()));
        if let Value::Object(members) = &mut page {
            members.insert("history".into(), json_of(&self.history.whole()));
            let mut events: Vec<_> = self.events.iter().map(|(at_ms, event)| Story::of(*at_ms, &event.told)).collect();
            // Those from before the first stream came node by node.
            events.sort_by_key(|event| event.at_ms);
            members.insert("events".into(), json_of(&events));
        }
        Some(message("snapshot", &page))
    }
}

/// Facts that follow from several views.
#[derive(Debug, Default)]
struct Tracking {
    /// The time of the first view.
    since: Option<Instant>,
    /// The leader's commit index at recent times, oldest first.
    commits: VecDeque<(Instant, NodeId, u64)>,
    stages: Renewed,
    leaderless_since: Option<Instant>,
    /// [`ClusterView::happened_count`] of the last view.
    happened: u64,
}

impl Tracking {
    fn local(&mut self, cluster: String, metadata: Metadata, now: Instant, view: &ClusterView) -> Local {
        let leader = view.leader();
        self.leaderless_since = match leader {
            Some(_) => None,
            None => self.leaderless_since.or(Some(now)),
        };
        let commit = leader.and_then(|leader| Some((leader, view.nodes.get(&leader)?)));
        match commit {
            Some((leader, seen)) => {
                // The time at which the leader stated it.
                let at = now.checked_sub(seen.age).unwrap_or(now);
                self.commits.push_back((at, leader, seen.report.commit.0));
            }
            None => self.commits.clear(),
        }
        if self.commits.front().is_some_and(|(_, of, _)| Some(*of) != leader) {
            self.commits.retain(|(_, of, _)| Some(*of) == leader);
        }
        while self.commits.get(1).is_some_and(|(at, ..)| now.saturating_duration_since(*at) > RATE_OVER) {
            self.commits.pop_front();
        }
        Local {
            cluster,
            writes_per_s: rate(&self.commits),
            figures: self.stages.at(now, view, leader),
            leaderless: self.leaderless_since.map(|since| now.saturating_duration_since(since)),
            metadata,
        }
    }
}

/// Entries per second, once enough time was seen.
fn rate(commits: &VecDeque<(Instant, NodeId, u64)>) -> Option<f64> {
    let ((from, _, first), (to, _, last)) = (commits.front()?, commits.back()?);
    let time = to.saturating_duration_since(*from);
    (time >= RATE_OVER / 2).then(|| last.saturating_sub(*first) as f64 / time.as_secs_f64())
}

/// An event, as the page shows it.
#[derive(Debug, Serialize)]
pub(super) struct Story<'a> {
    /// Unique in the cluster: the node, the start of its process by the wall clock, and its number.
    id: String,
    /// On the clock of `now_ms`: below zero if it is from before the first stream.
    at_ms: i64,
    /// By the clock of the machine of its node.
    wall: String,
    node: NodeId,
    term: quorate::Term,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<quorate::Index>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<NodeId>,
    kind: &'a str,
    severity: quorate::events::Severity,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
}

impl<'a> Story<'a> {
    pub(super) fn of(at_ms: i64, told: &'a Told) -> Self {
        // A year that can be written, whatever a node claims.
        let wall = Duration::from_millis(told.wall_ms.min(WALL_MS_MAX));
        Self {
            id: format!("{}-{}-{}", told.node, told.wall_ms.saturating_sub(told.at_ms) / 1000, told.id),
            at_ms,
            wall: humantime::format_rfc3339_millis(UNIX_EPOCH + wall).to_string(),
            node: told.node,
            term: told.term,
            index: told.index,
            peer: told.peer,
            kind: &told.kind,
            severity: told.severity,
            text: &told.text,
            why: told.why.as_deref(),
            reference: told.reference.as_deref(),
        }
    }
}

/// A message of an election, as the page draws it.
#[derive(PartialEq, Debug, Serialize)]
pub(super) struct Ballot<'a> {
    from: NodeId,
    to: NodeId,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'static str>,
    /// The candidate's sentence, with the voter's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// When the request was sent, on the clock of `now_ms`.
    sent_ms: i64,
    /// The time from the request to the answer, on the candidate's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<u64>,
}

/// The messages that an event of this time is about: a candidate asks all other voters, or has an
/// answer.
pub(super) fn ballots<'a>(ballot: &BallotMessage, sentence: &'a str, at_ms: i64, page: &Page) -> Vec<Ballot<'a>> {
    let kind = if ballot.is_pre_vote { "pre_vote" } else { "vote" };
    match ballot.voter {
        Some(voter) => {
            let answer = ballot.granted.map(|granted| if granted { "yes" } else { "no" });
            let (reason, took_ms) = (Some(sentence), ballot.took_ms);
            let sent_ms = at_ms.saturating_sub(i64::try_from(took_ms.unwrap_or(0)).unwrap_or(i64::MAX));
            vec![Ballot { from: voter, to: ballot.candidate, kind, answer, reason, sent_ms, took_ms }]
        }
        None => {
            let others = page.config.voters.iter().filter(|voter| **voter != ballot.candidate);
            let asks = |to: &NodeId| Ballot {
                from: ballot.candidate,
                to: *to,
                kind,
                answer: None,
                reason: None,
                sent_ms: at_ms,
                took_ms: None,
            };
            others.map(asks).collect()
        }
    }
}

/// The time of an event on the page's clock: machines' wall clocks differ, but a node's report says
/// how long its process ran when it was made.
fn time_of(event: &ReportedEvent, view: &ClusterView, now_ms: u64) -> i64 {
    let age_ms = view.nodes.get(&event.told.node).map_or(0, |seen| {
        let since = millis(seen.report.up).saturating_sub(event.told.at_ms);
        since.saturating_add(millis(seen.age))
    });
    i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX))
}

/// A page or a patch with the time. The clocks are not compared, so that they cause no patch.
fn clocked(mut value: Value, now_ms: u64) -> Value {
    if let Value::Object(members) = &mut value {
        members.insert("now_ms".into(), now_ms.into());
        let wall = SystemTime::now();
        members.insert("wall".into(), humantime::format_rfc3339_millis(wall).to_string().into());
    }
    value
}

/// A server-sent event.
pub(crate) fn message(event: &str, content: &impl Serialize) -> Bytes {
    let mut message = format!("event: {event}\ndata: ").into_bytes();
    serde_json::to_writer(&mut message, content).unwrap_or_else(|error| unreachable!("into memory: {error}"));
    message.extend_from_slice(b"\n\n");
    message.into()
}

pub(super) fn json_of(content: &impl Serialize) -> Value {
    serde_json::to_value(content).unwrap_or_else(|error| unreachable!("into memory: {error}"))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_second_of_one_leader() {
        let (start, ms, one) = (Instant::now(), Duration::from_millis, NodeId(1));
        let commits = |points: &[(u64, u64)]| -> VecDeque<_> {
            points.iter().map(|(at, commit)| (start + ms(*at), one, *commit)).collect()
        };
        assert_eq!(rate(&commits(&[])), None);
        assert_eq!(rate(&commits(&[(0, 7), (400, 9)])), None, "too short");
        assert_eq!(rate(&commits(&[(0, 7), (1_000, 107)])), Some(100.0));
        assert_eq!(rate(&commits(&[(0, 7), (500, 7)])), Some(0.0));
        assert_eq!(rate(&commits(&[(0, 7), (1_000, 3)])), Some(0.0), "never less than none");
    }
}
