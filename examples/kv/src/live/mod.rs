//! The live page: its document, `GET /`, and its data, `GET /live`, the state of the whole cluster as
//! server-sent events.
//!
//! The node that serves a stream collects the states of the others
//! ([`Node::watch_cluster`](quorate::Node::watch_cluster)), makes one page of them ten times a
//! second for all streams, and sends what changed.
//!
//! | event | when | content |
//! | --- | --- | --- |
//! | `snapshot` | first, and after a gap | the page, with the history of the last 15 minutes |
//! | `delta` | up to ten times a second | a merge patch (RFC 7396) of the page; nothing changed, nothing sent |
//! | `event` | a node states an event | its sentence, the reason, and the section of the paper |
//! | `ballot` | a candidate asks or has an answer | `{"from", "to", "kind": "pre_vote" or "vote", "answer", "reason", "sent_ms", "took_ms"}`; the times are the request's and, in an answer, the one until it came |
//! | `lost` | events were lost on the way here | `{"count"}`, and the node if it no longer had them |
//! | `gap` | the reader was too slow | `{"lost": N}`, the number of messages; a snapshot follows |
//! | `error` | token or certificate count no more; the stream ends | the answer that a request gets then |
//!
//! A fact that is unknown or does not apply is left out of the page: a merge patch says absence by
//! `null`, so no member of the page is. The history does not travel in patches.
//!
//! **The history** of the last 15 minutes begins with the process of the serving node. While a stream
//! is open it has the lanes of all nodes, writes and their 99th percentile. At other times no node is
//! asked for anything, and it has what the serving node knows by itself: the leader that it follows,
//! its own lane, and the entries that it learns to be committed.
//!
//! **Bounds.** Messages are shared by all streams, and at most 128 of them wait for the slowest. A
//! snapshot has the last 200 events, 15 minutes of points and 2,000 spans, which take about 160 KB of
//! memory. Without a stream no report is asked for.
//!
//! - `document`: HTML, style and script of the page.
//! - `page`: the page out of a view of the cluster.
//! - `verdict`: its sentences: how the cluster is, and what needs attention.
//! - [`patch`]: merge patches.
//! - `stages`: the stages of a write.
//! - `history`: roles, leaders and throughput of the last 15 minutes.
//! - `record`: the same from this node's own facts, while there is no stream.
//! - `simulated`: the same messages for a cluster in simulated time, which can be rewound.
//! - `hub`: one page for all streams. Their endpoint is `http/live.rs`.

mod campaigns;
pub(crate) mod document;
mod history;
mod hub;
mod page;
pub mod patch;
mod record;
pub(crate) mod simulated;
mod stages;
mod verdict;

#[cfg(test)]
pub(crate) use hub::MESSAGES_MAX;
pub(crate) use hub::{Hub, Joined, message};
