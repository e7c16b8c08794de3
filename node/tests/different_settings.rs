//! Nodes with different settings: for a while, as in every rolling change, or by mistake.

mod support;

use bytes::Bytes;
use quorate::{Limits, NodeId, ProposeError};
use support::{Cluster, Journal, Plan, simulate, soon};

const KIB: usize = 1 << 10;

/// The limit applies at the node that a client asks, and nowhere else. A leader with a lower limit
/// must not answer "overloaded" forever.
#[test]
fn a_command_that_a_node_takes_from_its_caller_is_carried_out_by_a_leader_with_a_lower_limit() {
    simulate(async {
        let (cluster, lower) = cluster_with_a_lower_limit().await;
        lead(&cluster, lower).await;
        let asked = cluster.others(lower)[0];
        let written = soon("a write", cluster.node(asked).propose(large())).await;
        let index = written.expect("it is within the limit of the node that was asked").index;
        cluster.settled().await;
        assert!(cluster.ids().into_iter().all(|id| cluster.status(id).applied >= index));
        let refused = cluster.node(lower).propose(large()).await;
        assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "its own callers learn its limit: {refused:?}");
    });
}

/// Such an entry does not stop a follower: its limits are for its own callers, and its batch limits
/// for its own leadership.
#[test]
fn a_follower_with_a_lower_limit_takes_what_its_leader_took() {
    simulate(async {
        let (mut cluster, lower) = cluster_with_a_lower_limit().await;
        let leader = cluster.others(lower)[0];
        lead(&cluster, leader).await;
        for _ in 0..20 {
            soon("a write", cluster.node(leader).propose(large())).await.expect("it is within the leader's limit");
        }
        cluster.settled().await;
        cluster.stop(lower).await;
        start(&mut cluster, lower, lower).await;
        cluster.settled().await;
        assert_eq!(cluster.journal(lower).entries().len(), 20, "also from its own log");
    });
}

/// The difference is counted for each peer and logged once, with both values and the remedy.
#[test]
fn nodes_count_the_settings_that_a_peer_has_differently_until_they_are_the_same() {
    simulate(async {
        let (mut cluster, other) = cluster_with_a_lower_limit().await;
        let differing = |cluster: &Cluster, node: u64, peer: u64| {
            let labels = [format!("node=\"{node}\""), format!("peer=\"{peer}\"")];
            cluster.metric("quorate_peer_settings_differing", &[&labels[0], &labels[1]])
        };
        for (node, peer, count) in [(1, 3, 1.0), (2, 3, 1.0), (3, 1, 1.0), (3, 2, 1.0), (1, 2, 0.0), (2, 1, 0.0)] {
            assert_eq!(differing(&cluster, node, peer), count, "of node {peer} at node {node}");
        }
        cluster.stop(other).await;
        cluster.start(other).await;
        cluster.settled().await;
        for (node, peer) in [(1, 3), (2, 3), (3, 1), (3, 2)] {
            assert_eq!(differing(&cluster, node, peer), 0.0, "of node {peer} at node {node}");
        }
    });
}

/// Three nodes; the last has lower limits than the others.
async fn cluster_with_a_lower_limit() -> (Cluster, NodeId) {
    let (mut cluster, lower) = (Cluster::vacant(Plan::default()), NodeId(3));
    for id in cluster.members() {
        start(&mut cluster, id, lower).await;
    }
    cluster.settled().await;
    (cluster, lower)
}

async fn start(cluster: &mut Cluster, id: NodeId, lower: NodeId) {
    let low = Limits::default()
        .with_max_command_bytes(16 * KIB)
        .with_max_batch_bytes(4 * KIB)
        .with_max_in_flight_bytes(64 * KIB)
        .with_max_in_flight_proposals(8);
    let limits = if id == lower { low } else { Limits::default() };
    cluster.start_as(id, Journal::default(), |builder| builder.limits(limits)).await;
}

async fn lead(cluster: &Cluster, wanted: NodeId) {
    let leader = cluster.settled().await;
    if leader != wanted {
        soon("a leadership transfer", cluster.node(leader).transfer(Some(wanted))).await.expect("it can lead");
    }
    assert_eq!(cluster.settled().await, wanted);
}

fn large() -> Bytes {
    Bytes::from(vec![b'x'; 200 * KIB])
}
