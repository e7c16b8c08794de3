//! Events: the facts of a node's life that an operator, a page or an alert wants to know, as one
//! typed stream.
//!
//! An [`Event`] has a place and a time (node, term, index, two clocks), a fact ([`What`]) and
//! sentences made from it: [`Event::text`] states it, [`Event::why`] explains it, and
//! [`Event::reference`] names the section of the Raft paper or thesis. The node's log lines are the
//! same sentences, with a bound on repetition.
//!
//! ```no_run
//! use quorate::{Node, StateMachine, events::Received};
//!
//! async fn follow<M: StateMachine>(node: &Node<M>) {
//!     let mut events = node.events();
//!     for event in events.recent() {
//!         println!("{:>8} ms  {}", event.at_ms, event.text());
//!     }
//!     while let Some(received) = events.next().await {
//!         match received {
//!             Received::Event(event) => println!("{:>8} ms  {}", event.at_ms, event.text()),
//!             Received::Lost(count) => println!("too slow: {count} events are lost"),
//!         }
//!     }
//! }
//! ```
//!
//! - **Bounded, and lossy for a slow reader alone.** Each reader may lag by [`WAITING_MAX`] events;
//!   beyond that it loses the oldest and is told how many. The last [`RECENT_MAX`] events are kept
//!   for readers that come later. Without a reader an event costs a few allocations.
//! - **One source of truth.** Metrics of the same facts are counted here (`counted`).
//! - **Never per entry.** Events are made where something changes: no write makes one by itself.
//! - **Deterministic.** [`Event::at_ms`] is of the node's clock. In simulated time and from a seed,
//!   two runs give the same events, but for [`Event::wall_ms`].
//! - **Pure rules.** The rules of Raft return their reasons as observations, and the decisions beside
//!   them return outcomes; the actors make events of both. No rule knows this module.
//!
//! Between nodes of different releases send [`Told`], which is text: another release may have other
//! facts.

mod counted;
mod lessons;
mod limit;
mod stream;
pub(crate) mod trackers;
mod what;
mod words;

pub(crate) use stream::Events;
pub use stream::{EventReader, RECENT_MAX, Received, WAITING_MAX};
pub use what::{CampaignResult, LeaseEnd, Severity, SnapshotStep, TransferFailure, What};

pub use quorate_raft::{Denial, Phase, StepDown};

use quorate_raft::{Index, NodeId, Term};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A fact of a node's life.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Number of the event within this run of the node, from 1, without gaps.
    pub id: u64,
    /// The node that states it.
    pub node: NodeId,
    /// The node's term at that time.
    pub term: Term,
    /// Milliseconds since the node's start, on its monotonic clock.
    pub at_ms: u64,
    /// Milliseconds since 1970 by the machine's wall clock. Clocks of machines differ.
    pub wall_ms: u64,
    /// The fact.
    pub what: What,
}

impl Event {
    /// The stable name of the fact, such as `leader_elected`. It is the tag of [`What`] in JSON, too.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.what.traits().0
    }

    /// Its weight for an operator, and the level of its line in the log.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.what.traits().1
    }

    /// The other node that it is about, if it is about one.
    #[must_use]
    pub fn peer(&self) -> Option<NodeId> {
        self.what.traits().2
    }

    /// The log entry that it is about, if it is about one.
    #[must_use]
    pub fn index(&self) -> Option<Index> {
        self.what.index()
    }

    /// The fact in one sentence.
    #[must_use]
    pub fn text(&self) -> String {
        words::Sentence { node: self.node, term: self.term, what: &self.what }.to_string()
    }

    /// The rule behind it, in a sentence or two, for readers that learn Raft.
    #[must_use]
    pub fn why(&self) -> Option<&'static str> {
        lessons::of_fact(&self.what).0
    }

    /// The sections of the Raft paper and of Ongaro's thesis that it rests on, such as
    /// `paper §5.2; thesis §9.6`.
    #[must_use]
    pub fn reference(&self) -> Option<&'static str> {
        lessons::of_fact(&self.what).1
    }

    /// The event in words.
    #[must_use]
    pub fn told(&self) -> Told {
        Told {
            id: self.id,
            at_ms: self.at_ms,
            wall_ms: self.wall_ms,
            node: self.node,
            term: self.term,
            index: self.index(),
            peer: self.peer(),
            kind: self.kind().to_owned(),
            severity: self.severity(),
            text: self.text(),
            why: self.why().map(str::to_owned),
            reference: self.reference().map(str::to_owned),
        }
    }
}

/// A time in whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An event in words: the form for pages, and for nodes of other releases.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// [`Event::id`].
    pub id: u64,
    /// [`Event::at_ms`].
    pub at_ms: u64,
    /// [`Event::wall_ms`].
    pub wall_ms: u64,
    /// [`Event::node`].
    pub node: NodeId,
    /// [`Event::term`].
    pub term: Term,
    /// [`Event::index`].
    pub index: Option<Index>,
    /// [`Event::peer`].
    pub peer: Option<NodeId>,
    /// [`Event::kind`].
    pub kind: String,
    /// [`Event::severity`].
    pub severity: Severity,
    /// [`Event::text`].
    pub text: String,
    /// [`Event::why`].
    pub why: Option<String>,
    /// [`Event::reference`].
    #[serde(rename = "ref")]
    pub reference: Option<String>,
}

#[cfg(test)]
mod tests;
