//! The page as the server sends it, as far as the terminal shows it. A fact that is absent is
//! unknown or does not apply.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The state of the cluster.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Page {
    pub(super) cluster: String,
    pub(super) served_by: u64,
    pub(super) leader: Option<u64>,
    pub(super) config: Config,
    pub(super) writes_per_s: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) waiting: u64,
    pub(super) nodes: BTreeMap<u64, Node>,
    /// By "FROM>TO".
    pub(super) links: BTreeMap<String, Link>,
    stages_ms: Option<Value>,
    pub(super) verdict: Verdict,
    pub(super) needs: Vec<Need>,
    /// Milliseconds on the clock of the events' times, and the same moment by the wall clock of the
    /// node that serves.
    pub(super) now_ms: u64,
    pub(super) wall: String,
}

#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) learners: Vec<u64>,
    pub(super) witness: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) up: bool,
    pub(super) seen: Option<Seen>,
    pub(super) http: Option<String>,
    pub(super) role: Option<String>,
    pub(super) term: Option<u64>,
    pub(super) vote: Option<u64>,
    pub(super) timer: Option<Timer>,
    pub(super) applied: Option<u64>,
    pub(super) commit: Option<u64>,
    pub(super) durable: Option<u64>,
    pub(super) last: Option<u64>,
    conflict: Option<Value>,
    pub(super) doing: Option<Work>,
    pub(super) votes: Option<Votes>,
    pub(super) sync_ms: Option<f64>,
    pub(super) storage_full: bool,
    pub(super) halted_at: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Seen {
    pub(super) age_ms: u64,
    pub(super) via: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Timer {
    pub(super) left_ms: f64,
}

#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Work {
    pub(super) what: String,
    pub(super) part: Option<f64>,
    pub(super) entries: Option<u64>,
}

#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Votes {
    pub(super) kind: String,
    pub(super) yes: Vec<u64>,
    pub(super) no: Vec<u64>,
}

#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Link {
    pub(super) state: String,
    pub(super) rtt_ms: Option<f64>,
}

/// How the cluster is, in the server's words.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Verdict {
    /// `ok`, `warn` or `bad`.
    pub(super) level: String,
    pub(super) word: String,
    pub(super) says: String,
    pub(super) facts: String,
}

/// A matter for an operator, in the server's words.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Need {
    pub(super) node: u64,
    pub(super) text: String,
    pub(super) next: String,
    pub(super) runbook: String,
}

/// An event of a node, as it is sent.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) at_ms: i64,
    pub(super) wall: String,
    pub(super) node: u64,
    pub(super) term: u64,
    pub(super) index: Option<u64>,
    pub(super) peer: Option<u64>,
    pub(super) kind: String,
    pub(super) severity: String,
    pub(super) text: String,
    pub(super) why: Option<String>,
    #[serde(rename = "ref")]
    pub(super) reference: Option<String>,
}

/// The stages of a write, in their order.
const STAGES: [&str; 6] = ["queue", "encode", "quorum", "commit", "apply", "reply"];

impl Page {
    /// The mean time of each stage of a write that is known, in milliseconds.
    pub(super) fn stages_ms(&self) -> Vec<(&'static str, f64)> {
        let mean = |name| self.stages_ms.as_ref()?.get(name)?.get(0)?.as_f64();
        STAGES.into_iter().filter_map(|name| Some((name, mean(name)?))).collect()
    }

    /// The entries that a node lacks of the newest log.
    pub(super) fn lag(&self, node: &Node) -> Option<u64> {
        let newest = self.nodes.values().filter_map(|node| node.last).max()?;
        Some(newest.saturating_sub(node.last?))
    }
}

impl Node {
    /// Whether its log has entries of another term than the leader's, and from which index on, if
    /// that is known.
    pub(super) fn conflict(&self) -> Option<Option<u64>> {
        self.conflict.as_ref().filter(|conflict| !conflict.is_null()).map(Value::as_u64)
    }
}
