//! Messages of a cluster of three, for tests.

use super::facts::Facts;
use crate::client::{LiveMessage, LiveNews};
use serde_json::{Value, json};
use std::time::Duration;

/// The facts of [`page`], heard after a second.
pub(super) fn steady() -> Facts {
    let mut facts = Facts::of("http://10.0.0.3:8080".into());
    facts.take(LiveNews::Message(LiveMessage::Snapshot(page())), at(1)).expect("a page");
    facts
}

/// Node 3 leads term 8, and all are up to date.
pub(super) fn page() -> Value {
    let node = |id: u64, role: &str| {
        let mut node = json!({
            "up": true, "seen": {"age_ms": 0}, "address": format!("10.0.0.{id}:7001"),
            "http": format!("http://10.0.0.{id}:8080"), "labels": {"zone": "a"},
            "role": role, "term": 8, "vote": 3, "follows": 3, "first": 47_020_000, "snapshot": 47_019_999,
            "applied": 48_444_836 - 6 * id, "commit": 48_444_836, "durable": 48_444_850, "last": 48_444_850 + 17 * (id / 3),
            "sync_ms": 0.6, "sync_usual_ms": 0.6, "storage_full": false,
        });
        if role == "follower" {
            node["timer"] = json!({"left_ms": 3_200 - 40 * id, "of_ms": 3_700});
        }
        node
    };
    json!({
        "cluster": "demo", "served_by": 3, "demo": false, "now_ms": 61_200, "wall": "2026-11-29T03:12:00.250Z",
        "leader": 3, "config": {"voters": [1, 2, 3], "learners": [], "index": 1, "settled": true},
        "timing": {"heartbeat_ms": 500, "election_ms": [2_000, 4_000]}, "writes_per_s": 12_430, "waiting": 0,
        "nodes": {"1": node(1, "follower"), "2": node(2, "follower"), "3": node(3, "leader")},
        "links": {"3>1": {"state": "up", "rtt_ms": 0.4, "in_flight": 17}, "3>2": {"state": "up", "rtt_ms": 0.4}},
        "verdict": {"level": "ok", "word": "Healthy", "says": "Node 3 leads term 8. All 3 nodes are up to date.",
            "facts": "12,430 entries/s. The cluster survives the loss of 1 more node."},
        "needs": [],
        "history": {"spans": [], "series": []},
        "events": [
            event("3-1-1", 1_000, "campaign", "Node 3 asks for votes in term 8: it heard no leader for 3.1 s."),
            event("3-1-2", 1_100, "leader_elected", "Node 3 leads term 8 with the votes of nodes 2 and 3."),
        ],
    })
}

pub(super) fn event(id: &str, at_ms: i64, kind: &str, text: &str) -> Value {
    json!({
        "id": id, "at_ms": at_ms, "wall": "2026-11-29T03:11:00.150Z", "node": 3, "term": 8, "kind": kind,
        "severity": "info", "text": text, "why": "A majority of the voters granted it.", "ref": "paper §5.2",
    })
}

pub(super) fn delta(patch: Value) -> LiveNews {
    LiveNews::Message(LiveMessage::Delta(patch))
}

pub(super) fn lost_to(next: &str) -> LiveNews {
    let (endpoint, cause) = ("http://10.0.0.3:8080".to_owned(), "the answer ended".to_owned());
    LiveNews::Lost { endpoint, cause, next: next.to_owned() }
}

pub(super) fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
