//! Observations take no memory. Alone in its file, and so in its process, because it measures the
//! process's memory.
#![cfg(target_os = "linux")]

use quorate_metrics::{Metrics, ProposalStage};
use std::time::Duration;

#[test]
fn a_node_that_is_never_scraped_stays_small() {
    let metrics = Metrics::new();
    let node = metrics.node(1);
    let before = resident_kib();
    for _ in 0..4_000_000 {
        node.proposal_stage_n(ProposalStage::Commit, Duration::from_millis(1), 64);
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 1024, "grew by {grown} KiB");
    assert!(metrics.render().contains(r#"_count{node="1",stage="commit"} 4000000"#));
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
