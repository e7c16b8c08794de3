//! Reports: the state of every node, brought together at a node through which operators look at
//! the cluster ([`Node::watch_cluster`](crate::Node::watch_cluster)).
//!
//! No rule of Raft reads a report, and no report changes a term, a vote or a log: the rules ignore
//! both messages, and a lost one costs nothing but freshness.
//!
//! ```text
//!   watching node ──Observe { every, for, wanted }──▶ member      every 500 ms, valid for 2 s
//!   watching node ◀──Report { of, age, bytes }─────── member      every 100 ms
//!
//!   a member that is not heard: another one asks it, and passes its reports on
//!   watching node ──Observe { wanted: [relay, lost] }──▶ relay ──Observe { wanted: [lost] }──▶ lost
//!   watching node ◀──Report { of: lost }──────────────── relay ◀──Report { of: lost }───────── lost
//! ```
//!
//! **Cost.** Without a watch nothing is sent, gathered or timed. A subscription ends by itself, so
//! a watching node that dies leaves nothing behind. A report has a few hundred bytes, the events
//! that are new to its receiver, and at most [`quorate_raft::Report::BYTES_MAX`]: a longer one
//! leaves out addresses and metadata, and is not sent if it is too long still. On QUIC the two messages use the control lane, and only
//! while hardly anything else waits there.
//!
//! **Bounds.** A node reports to members alone, at most ten times a second to each. A request
//! counts for ten seconds at most and names at most [`WANTED_MAX`] nodes. A member that is not heard
//! is asked for through at most [`RELAYS_MAX`] others. Reports of nodes that are no members of the
//! receiver's own configuration are dropped before they are decoded. A relayed report is never
//! relayed again.
//!
//! - [`report`]: the content of a report, and its bytes.
//! - [`compose`]: a report out of the facts of this node's actors.
//! - [`conflict`]: the entries of a log that contradict the leader's.
//! - [`events`]: the events of nodes in reports, and merged.
//! - [`subscribers`]: the nodes that look at this one, and when each is due a report.
//! - [`view`]: the latest report of each node, merged.
//! - [`sync_times`]: how long the disk takes, now and usually.
//! - [`stage_times`]: how long the stages of a write take.
//! - [`watch`]: the handle.
//!
//! The actor `Reporter` (`actors/reporter.rs`) carries these decisions out.

pub(crate) mod compose;
pub(crate) mod conflict;
pub(crate) mod events;
pub(crate) mod report;
pub(crate) mod stage_times;
pub(crate) mod subscribers;
pub(crate) mod sync_times;
pub(crate) mod view;
pub(crate) mod watch;

use std::time::Duration;

/// The interval between two reports of a node, to a watching node and of its own.
pub(crate) const REPORT_EVERY: Duration = Duration::from_millis(100);
/// The interval at which a watching node asks again.
pub(crate) const ASK_EVERY: Duration = Duration::from_millis(500);
/// The time for which a request counts: several may be lost before reports end.
pub(crate) const REPORT_FOR: Duration = Duration::from_secs(2);
/// A member without a direct report for this long is asked for through others.
pub(crate) const UNHEARD_AFTER: Duration = Duration::from_millis(400);
/// The members through which one that is not heard is asked for. Each of them sends all of its
/// reports, so that a cut-off member costs no more in a large cluster.
pub(crate) const RELAYS_MAX: usize = 2;
/// The age of its newest report after which a node counts as one that does not answer.
pub(crate) const SILENT_AFTER: Duration = REPORT_EVERY.saturating_mul(10);
/// The same for a node of which another one knows that it failed.
pub(crate) const DOUBTED_AFTER: Duration = REPORT_EVERY.saturating_mul(3);
/// The most nodes that a request may name; further ones are ignored.
pub(crate) const WANTED_MAX: usize = 64;
