//! The messages of the live page for a cluster in simulated time. They are made by the code that makes
//! those of real nodes; the time is given, and can go back.

use super::{
    history::History,
    hub::{EVENTS_MAX, Story, ballots, json_of, message},
    page::{Local, Page, page},
    patch::diff,
};
use axum::body::Bytes;
use quorate::{ClusterView, ReportedEvent};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    time::{Duration, UNIX_EPOCH},
};

/// The page of a simulated cluster, as its streams have it.
#[derive(Default)]
pub(crate) struct Simulated {
    now_ms: u64,
    page: Option<Value>,
    history: History,
    /// The last events, each with the number of the move that led to it.
    events: VecDeque<(u64, ReportedEvent)>,
    leaderless_since_ms: Option<u64>,
}

impl Simulated {
    /// The messages for a view at a time, with the events since the one before, each with the number of
    /// the move that led to it, and members that the page has beside those of a real cluster.
    pub(crate) fn viewed(
        &mut self,
        now_ms: u64,
        view: &ClusterView,
        news: Vec<(u64, ReportedEvent)>,
        more: Value,
    ) -> Vec<Bytes> {
        self.now_ms = now_ms;
        let page = self.page_of(view);
        self.history.record(now_ms, &page);
        let stories: Vec<_> = news.into_iter().flat_map(|event| self.told(event, &page)).collect();
        let mut new = json_of(&page);
        if let (Value::Object(members), Value::Object(more)) = (&mut new, more) {
            members.extend(more);
        }
        let mut messages = Vec::new();
        if let Some(old) = self.page.replace(new.clone()) {
            // The time alone changes, too.
            let patch = diff(&old, &new).unwrap_or_else(|| json!({}));
            messages.push(message("delta", &self.clocked(patch)));
        }
        messages.extend(stories);
        messages
    }

    /// The page with its history; `None` before the first view.
    pub(crate) fn snapshot(&self) -> Option<Bytes> {
        let mut page = self.clocked(self.page.clone()?);
        if let Value::Object(members) = &mut page {
            members.insert("history".into(), json_of(&self.history.whole()));
            let events: Vec<_> = self.events.iter().map(|(_, event)| Story::of(at_ms(event), &event.told)).collect();
            members.insert("events".into(), json_of(&events));
        }
        Some(message("snapshot", &page))
    }

    /// Goes back to a time, and forgets the events after this move.
    pub(crate) fn rewind(&mut self, to_ms: u64, last_move: u64) {
        (self.page, self.leaderless_since_ms) = (None, None);
        self.history.rewind(to_ms);
        self.events.retain(|(at, _)| *at <= last_move);
    }

    fn page_of(&mut self, view: &ClusterView) -> Page {
        let now_ms = self.now_ms;
        self.leaderless_since_ms = match view.leader() {
            Some(_) => None,
            None => self.leaderless_since_ms.or(Some(now_ms)),
        };
        let leaderless = self.leaderless_since_ms.map(|since| Duration::from_millis(now_ms.saturating_sub(since)));
        let mut page = page(view, &Local { cluster: "playground".to_owned(), leaderless, ..Local::default() });
        // No command helps a simulated node.
        page.needs.iter_mut().for_each(|need| need.next = "");
        page
    }

    fn told(&mut self, (by_move, event): (u64, ReportedEvent), page: &Page) -> Vec<Bytes> {
        let at_ms = at_ms(&event);
        let mut messages = Vec::new();
        if let Some(ballot) = &event.ballot {
            let ballots = ballots(ballot, &event.told.text, at_ms, page);
            messages.extend(ballots.iter().map(|ballot| message("ballot", ballot)));
        }
        messages.push(message("event", &Story::of(at_ms, &event.told)));
        self.events.push_back((by_move, event));
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
        messages
    }

    /// A page or a patch with the simulated time: the wall clock began with it.
    fn clocked(&self, mut value: Value) -> Value {
        if let Value::Object(members) = &mut value {
            members.insert("now_ms".into(), self.now_ms.into());
            let wall = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(self.now_ms));
            members.insert("wall".into(), wall.to_string().into());
        }
        value
    }
}

fn at_ms(event: &ReportedEvent) -> i64 {
    i64::try_from(event.told.at_ms).unwrap_or(i64::MAX)
}
