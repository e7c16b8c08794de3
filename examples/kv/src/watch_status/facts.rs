//! The facts that a stream of the live page has told: the page, the story, and the connection. Pure:
//! time is an argument.

use super::page::{Event, Page, Verdict};
use crate::{
    client::{LiveMessage, LiveNews},
    live::patch,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The events that are kept; a snapshot has no more.
const STORY_MAX: usize = 200;

/// The last second of the year 9999.
const WALL_MAX: Duration = Duration::from_secs(253_402_300_799);

/// The last known facts. Times are those since the command began.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The page with all its members, to which patches apply; `None` before the first snapshot.
    whole: Option<Value>,
    pub(super) page: Page,
    /// Newest first.
    pub(super) story: VecDeque<Told>,
    pub(super) connection: Connection,
    /// The time of the last message.
    pub(super) heard: Duration,
}

/// An event, and its time by the wall clock of the node that serves: those of machines differ.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Told {
    pub(super) at: SystemTime,
    pub(super) event: Event,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Connection {
    /// A node serves, or will once its snapshot has come.
    Up { endpoint: String },
    /// The facts are as old as this.
    Lost { since: Duration, endpoint: String, cause: String, next: String },
}

/// A change that a reader of lines is told.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Change {
    /// Another verdict, leaving out times and counts that go on.
    Verdict,
    Event(Event),
    /// Events of a node, or messages of the stream, did not arrive.
    Missed {
        what: &'static str,
        count: u64,
        node: Option<u64>,
    },
    /// The node that served is lost.
    Lost,
    /// Another node serves, after the first.
    Moved,
}

impl Facts {
    /// None yet, of this endpoint.
    pub(super) fn of(endpoint: String) -> Self {
        Self {
            whole: None,
            page: Page::default(),
            story: VecDeque::new(),
            connection: Connection::Up { endpoint },
            heard: Duration::ZERO,
        }
    }

    /// Whether there are any.
    pub(super) fn are_known(&self) -> bool {
        self.whole.is_some()
    }

    /// The time since which these facts are not renewed; `None` while a node serves.
    pub(super) fn stale(&self, now: Duration) -> Option<Duration> {
        match self.connection {
            Connection::Up { .. } => None,
            Connection::Lost { since, .. } => Some(now.saturating_sub(since)),
        }
    }

    /// The client addresses of the members that are known, those that answer first.
    pub(super) fn addresses(&self) -> Vec<&str> {
        let mut nodes: Vec<_> = self.page.nodes.values().collect();
        nodes.sort_by_key(|node| !node.up);
        nodes.into_iter().filter_map(|node| node.http.as_deref()).collect()
    }

    /// Takes a step of the stream, and returns the changes.
    ///
    /// # Errors
    /// If a message has no page or no event, in words.
    pub(super) fn take(&mut self, news: LiveNews, now: Duration) -> Result<Vec<Change>, String> {
        let message = match news {
            LiveNews::Connected { .. } => return Ok(Vec::new()),
            LiveNews::Lost { endpoint, cause, next } => return Ok(self.lost(endpoint, cause, next, now)),
            LiveNews::Message(message) => message,
        };
        self.heard = now;
        match message {
            LiveMessage::Snapshot(mut whole) => {
                let events = whole.as_object_mut().and_then(|members| members.remove("events"));
                // Of the past the terminal shows the events alone.
                if let Some(members) = whole.as_object_mut() {
                    members.remove("history");
                }
                self.snapshot(whole, events.map(read).transpose()?.unwrap_or_default())
            }
            LiveMessage::Delta(patch) => {
                let Some(whole) = &mut self.whole else { return Ok(Vec::new()) };
                patch::apply(whole, &patch);
                self.renewed()
            }
            LiveMessage::Event(event) => Ok(self.told(read(event)?).into_iter().collect()),
            LiveMessage::Lost(lost) => {
                let Missed { count, node, .. } = read(lost)?;
                Ok(vec![Change::Missed { what: "events", count, node }])
            }
            LiveMessage::Gap(gap) => {
                let Missed { lost, .. } = read(gap)?;
                Ok(vec![Change::Missed { what: "messages", count: lost, node: None }])
            }
        }
    }

    fn lost(&mut self, endpoint: String, cause: String, next: String, now: Duration) -> Vec<Change> {
        match &mut self.connection {
            // The first node was lost, those after it did not answer.
            Connection::Lost { next: tried, .. } => {
                *tried = next;
                Vec::new()
            }
            Connection::Up { .. } => {
                self.connection = Connection::Lost { since: now, endpoint, cause, next };
                vec![Change::Lost]
            }
        }
    }

    fn snapshot(&mut self, whole: Value, events: Vec<Event>) -> Result<Vec<Change>, String> {
        let is_first = self.whole.replace(whole).is_none();
        let mut changes = Vec::new();
        if let Connection::Lost { next, .. } = &self.connection {
            self.connection = Connection::Up { endpoint: next.clone() };
            changes.push(Change::Moved);
        }
        changes.extend(self.renewed()?);
        let news: Vec<_> = events.into_iter().filter_map(|event| self.told(event)).collect();
        // Those from before the command are the story, and no changes.
        if !is_first {
            changes.extend(news);
        }
        Ok(changes)
    }

    fn renewed(&mut self) -> Result<Vec<Change>, String> {
        let Some(whole) = &self.whole else { return Ok(Vec::new()) };
        let page: Page = Page::deserialize(whole).map_err(|error| format!("a page is not understood: {error}"))?;
        let before = std::mem::replace(&mut self.page, page);
        Ok(if gist(&before) == gist(&self.page) { Vec::new() } else { vec![Change::Verdict] })
    }

    /// Adds an event to the story, unless it is known.
    fn told(&mut self, event: Event) -> Option<Change> {
        if self.story.iter().any(|told| told.event.id == event.id) {
            return None;
        }
        let at = self.time_of(event.at_ms);
        let place = self.story.iter().position(|told| told.at <= at).unwrap_or(self.story.len());
        self.story.insert(place, Told { at, event: event.clone() });
        self.story.truncate(STORY_MAX);
        Some(Change::Event(event))
    }

    fn time_of(&self, at_ms: i64) -> SystemTime {
        let wall = humantime::parse_rfc3339(&self.page.wall).unwrap_or(UNIX_EPOCH);
        let ago = i64::try_from(self.page.now_ms).unwrap_or(i64::MAX).saturating_sub(at_ms);
        let by = Duration::from_millis(ago.unsigned_abs());
        let at = if ago < 0 { wall.checked_add(by) } else { wall.checked_sub(by) };
        // A time that can be written, whatever a node claims.
        at.filter(|at| (UNIX_EPOCH..=UNIX_EPOCH + WALL_MAX).contains(at)).unwrap_or(wall)
    }
}

/// Of `lost` and of `gap`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Missed {
    count: u64,
    node: Option<u64>,
    lost: u64,
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("a message is not understood: {error}"))
}

/// The part of a verdict that another verdict differs in: its words and the matters for an operator,
/// without the times and counts that go on.
fn gist(page: &Page) -> (&str, &str, String, Vec<(u64, &str)>) {
    let Verdict { level, word, says, .. } = &page.verdict;
    let needs = page.needs.iter().map(|need| (need.node, &*need.runbook)).collect();
    (level, word, without_measures(says), needs)
}

/// A sentence without the numbers that a unit follows.
fn without_measures(says: &str) -> String {
    let words: Vec<_> = says.split(' ').collect();
    let is_unit = |word: &str| ["s", "ms", "%", "entries"].contains(&word.trim_end_matches(['.', ',']));
    let is_measure = |at: usize| {
        let is_number = words[at].starts_with(|digit: char| digit.is_ascii_digit());
        is_number && words.get(at + 1).is_some_and(|next| is_unit(next))
    };
    let kept = words.iter().enumerate().filter(|(at, _)| !is_measure(*at));
    kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures::*, *};
    use serde_json::json;

    #[test]
    fn a_patch_changes_the_facts_and_a_verdict_is_told_once() {
        let mut facts = steady();
        let wait = |text: &str| json!({"leader": null, "verdict": {"level": "bad", "word": "No leader", "says": text}});
        let told = facts.take(delta(wait("No leader for 0.1 s. Election timers run.")), at(1)).expect("a patch");
        assert_eq!(told, [Change::Verdict]);
        assert_eq!((facts.page.leader, facts.page.verdict.word.as_str()), (None, "No leader"));
        let told = facts.take(delta(wait("No leader for 0.2 s. Election timers run.")), at(1)).expect("a patch");
        assert_eq!(told, [], "only its time went on");
        let asks = "No leader for 0.3 s. Node 1 asks for votes in term 9.";
        assert_eq!(facts.take(delta(wait(asks)), at(1)).expect("a patch"), [Change::Verdict]);
    }

    #[test]
    fn the_story_has_each_event_once_the_newest_first() {
        let mut facts = steady();
        let known = facts.story.len();
        let event = event("2-1-9", 61_500, "leader_elected", "Node 2 leads term 9.");
        let told = facts.take(LiveNews::Message(LiveMessage::Event(event.clone())), at(1)).expect("an event");
        assert!(matches!(&told[..], [Change::Event(Event { term: 8, .. })]), "{told:?}");
        assert_eq!(facts.story[0].event.text, "Node 2 leads term 9.");
        // Another node's snapshot has it, and one more.
        let lost = facts.take(lost_to("http://10.0.0.2:8080"), at(2)).expect("lost");
        assert_eq!((lost, facts.stale(at(5))), (vec![Change::Lost], Some(at(3))));
        assert_eq!(facts.take(lost_to("http://10.0.0.3:8080"), at(3)).expect("lost"), [], "still");
        let mut page = page();
        page["events"] = json!([event, self::event("2-1-10", 61_600, "restarted", "Node 1 is back.")]);
        let moved = facts.take(LiveNews::Message(LiveMessage::Snapshot(page)), at(4)).expect("a page");
        assert!(matches!(&moved[..], [Change::Moved, Change::Event(event)] if event.id == "2-1-10"), "{moved:?}");
        assert_eq!((facts.story.len(), facts.stale(at(5))), (known + 2, None));
        assert_eq!(facts.connection, Connection::Up { endpoint: "http://10.0.0.3:8080".into() });
    }

    #[test]
    fn the_story_is_bounded_and_a_message_of_another_form_is_an_error() {
        let mut facts = steady();
        for id in 0..2 * STORY_MAX {
            let event = event(&format!("1-2-{id}"), 70_000, "tick", "It ticks.");
            facts.take(LiveNews::Message(LiveMessage::Event(event)), at(1)).expect("an event");
        }
        assert_eq!(facts.story.len(), STORY_MAX);
        let error = facts.take(delta(json!({"nodes": 7})), at(1)).expect_err("no nodes");
        assert!(error.starts_with("a page is not understood: ") && error.lines().count() == 1, "{error}");
        for at_ms in [i64::MIN, i64::MAX, 1 << 52] {
            let event = json!({"id": at_ms.to_string(), "at_ms": at_ms});
            facts.take(LiveNews::Message(LiveMessage::Event(event)), at(1)).expect("any time is a time");
        }
        assert!(facts.story.iter().all(|told| super::super::words::clock(told.at).len() == 10));
    }

    #[test]
    fn members_that_answer_are_tried_first() {
        let mut facts = steady();
        assert_eq!(facts.addresses(), ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|host| format!("http://{host}:8080")));
        facts.take(delta(json!({"nodes": {"1": {"up": false}, "3": {"http": null}}})), at(1)).expect("a patch");
        assert_eq!(facts.addresses(), ["http://10.0.0.2:8080", "http://10.0.0.1:8080"]);
    }

    #[test]
    fn measures_that_go_on_are_no_part_of_a_sentence() {
        for (says, gist) in [
            ("No leader for 2.1 s. Election timers run.", "No leader for s. Election timers run."),
            ("Node 1 catches up, 74,580 entries to go.", "Node 1 catches up, entries to go."),
            ("Node 3 leads term 8. All 3 nodes are up to date.", "Node 3 leads term 8. All 3 nodes are up to date."),
        ] {
            assert_eq!(without_measures(says), gist);
        }
    }
}
