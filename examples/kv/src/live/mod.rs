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
//! `null`, so no member of the page is. The history is recorded while there is a stream, and does not
//! travel in patches.
//!
//! **Bounds.** Messages are shared by all streams, and at most 128 of them wait for the slowest. A
//! snapshot has the last 200 events, 15 minutes of points and 2,000 spans. Without a stream nothing
//! is collected.
//!
//! - `document`: HTML, style and script of the page.
//! - `page`: the page out of a view of the cluster.
//! - `verdict`: its sentences: how the cluster is, and what needs attention.
//! - [`patch`]: merge patches.
//! - `stages`: the stages of a write.
//! - `history`: roles, leaders and throughput of the last 15 minutes.
//! - `hub`: one page for all streams. Their endpoint is `http/live.rs`.

mod campaigns;
pub(crate) mod document;
mod history;
mod hub;
mod page;
pub mod patch;
mod stages;
mod verdict;

#[cfg(test)]
pub(crate) use hub::MESSAGES_MAX;
pub(crate) use hub::{Hub, Joined, message};
