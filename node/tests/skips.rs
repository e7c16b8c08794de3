//! Commands that make the state machine panic: the entry is named, and skipped by every node
//! or by none.

mod support;

use quorate::{
    Builder, Failure, Index, Node, NodeId, NodeRole, ProposeError, SessionError, SessionKey, Skip, Snapshots,
    StartError, Term, storage::Memory,
};
use std::time::Duration;
use support::{Cluster, Journal, Plan, simulate, soon};

const POISON: &str = "poison";

#[test]
fn a_command_that_no_machine_can_apply_is_named_and_can_be_skipped_by_all() {
    simulate(async {
        let (mut cluster, entry) = poisoned().await;
        // A restart applies the entry again once a leader says that it is committed, and the same
        // entry is named.
        for id in cluster.members() {
            start(&mut cluster, id, |builder| builder).await;
        }
        assert_eq!(all_failed(&mut cluster).await, [entry; 2]);

        for id in cluster.members() {
            start(&mut cluster, id, skipping(entry)).await;
        }
        cluster.settled().await;
        for id in cluster.ids() {
            assert_eq!(cluster.journal(id).count(POISON), 0);
            let again = cluster.node(id).propose(POISON).by_session(&session(), 1).await;
            assert_eq!(again, Err(SessionError::Proposal(ProposeError::Skipped)), "the session remembers it");
            cluster.node(id).propose(format!("at {id}")).await.expect("an acknowledgement");
        }
        cluster.settled().await;
        let journals = cluster.journals();
        assert!(journals.iter().all(|(_, journal)| *journal == journals[0].1 && journal.len() == 4), "{journals:?}");

        // Once snapshots cover the entry, the list is no longer needed: nodes with and
        // without it agree.
        for id in cluster.ids() {
            cluster.node(id).snapshot().await.expect("a snapshot");
        }
        for id in cluster.members() {
            cluster.stop(id).await;
            start(&mut cluster, id, |builder| builder).await;
            cluster.settled().await;
            let again = cluster.node(id).propose(POISON).by_session(&session(), 1).await;
            assert_eq!(again, Err(SessionError::Proposal(ProposeError::Skipped)), "snapshots remember it");
        }
        cluster.stop_all().await;
    });
}

#[test]
fn a_node_that_skips_other_entries_is_not_heard_until_it_skips_the_same() {
    simulate(async {
        let (mut cluster, entry) = poisoned().await;
        let odd = NodeId(3);
        for id in [NodeId(1), NodeId(2)] {
            start(&mut cluster, id, skipping(entry)).await;
        }
        // The machine of this node could apply the entry: it must not get to that point.
        cluster.start(odd).await;
        let leader = cluster.leader_among(&[NodeId(1), NodeId(2)]).await;
        cluster.node(leader).propose("after").await.expect("two are a quorum");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.journal(odd).entries(), [], "it applied nothing, and diverged from no other");
        assert!(matches!(cluster.status(odd).role, NodeRole::Follower | NodeRole::PreCandidate));
        assert!(cluster.metric("quorate_net_dropped_total", &["reason=\"skip_list\""]) > 0.0);

        cluster.stop(odd).await;
        start(&mut cluster, odd, skipping(entry)).await;
        cluster.settled().await;
        let journals = cluster.journals();
        assert!(journals.iter().all(|(_, journal)| *journal == journals[0].1), "{journals:?}");
        cluster.stop_all().await;
    });
}

#[test]
fn an_entry_that_a_snapshot_has_applied_is_not_skipped_afterwards() {
    simulate(async {
        let mut cluster = Cluster::start_all(Plan { members: 1, ..Plan::default() }).await;
        let id = NodeId(1);
        cluster.leader().await;
        let applied = cluster.node(id).propose("applied").await.expect("an acknowledgement");
        cluster.node(id).snapshot().await.expect("a snapshot");
        cluster.stop(id).await;
        let entry = Skip { index: applied.index, term: Term(1), checksum: 7 };
        let refused = cluster.try_start_as(id, Journal::default(), skipping(entry)).await;
        let Err(StartError::Restore(error)) = refused else { panic!("{refused:?}") };
        let line = error.to_string();
        assert!(line.contains("entry 2 of term 1 with checksum 0x00000007 is to be skipped"), "{line}");
        assert_eq!(line.lines().count(), 1);
    });
}

#[test]
fn an_entry_is_skipped_only_by_its_whole_name() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan { members: 1, ..Plan::default() });
        let wrong = Skip { index: Index(2), term: Term(1), checksum: 7 };
        start(&mut cluster, NodeId(1), skipping(wrong)).await;
        cluster.leader().await;
        let applied = cluster.node(NodeId(1)).propose("another").await.expect("an acknowledgement");
        assert_eq!((applied.index, cluster.journal(NodeId(1)).count("another")), (Index(2), 1));
        cluster.stop_all().await;
    });
}

#[test]
fn one_index_is_skipped_under_one_name() {
    simulate(async {
        let builder = Node::builder(NodeId(1), support::CLUSTER).voters([(NodeId(1), "")]).storage(Memory::new());
        let builder = builder.skip(Index(2), Term(1), 1).skip(Index(2), Term(1), 2);
        let error = builder.start_local(Journal::default()).await.expect_err("refused").to_string();
        assert!(error.contains("name each once"), "{error}");
    });
}

/// A stopped cluster. Its log holds two commands, and one that no machine can apply.
async fn poisoned() -> (Cluster, Skip) {
    let snapshots = Snapshots::default().with_every_entries(0).with_every_bytes(0);
    let mut cluster = Cluster::vacant(Plan { snapshots, ..Plan::default() });
    for id in cluster.members() {
        start(&mut cluster, id, |builder| builder).await;
    }
    let leader = cluster.leader().await;
    cluster.node(leader).propose("before").await.expect("an acknowledgement");
    cluster.settled().await;
    let node = cluster.node(leader).clone();
    let told = node.propose(POISON).by_session(&session(), 1).await;
    assert_eq!(told, Err(SessionError::Proposal(ProposeError::OutcomeUnknown)));
    let entries = all_failed(&mut cluster).await;
    let [one, other] = entries[..] else { panic!("{entries:?}") };
    assert_eq!(one, other, "both name the same");
    (cluster, one)
}

/// Waits for two of three nodes to fail at an entry, stops the third, and gives the entries
/// that they named.
async fn all_failed(cluster: &mut Cluster) -> Vec<Skip> {
    let mut entries = Vec::new();
    while entries.len() < 2 {
        let failures = cluster.ids().into_iter().map(|id| {
            let node = cluster.node(id).clone();
            Box::pin(async move { (id, node.failed().await) })
        });
        let ((id, failure), ..) =
            soon("a failure", futures_util::future::select_all(failures.collect::<Vec<_>>())).await;
        let line = failure.to_string();
        let Failure::ApplyPanicked { entry } = failure else { panic!("{line}") };
        let named = format!("index = {}, term = {}, checksum = \"0x{:08x}\"", entry.index, entry.term, entry.checksum);
        assert!(line.contains(&named) && line.lines().count() == 1, "{line}");
        entries.push(entry);
        cluster.node(id).shutdown().await;
        cluster.ended(id);
    }
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
    entries
}

async fn start(cluster: &mut Cluster, id: NodeId, change: impl FnOnce(Builder) -> Builder) {
    cluster.start_as(id, Journal::panicking_at(POISON), change).await;
}

fn skipping(entry: Skip) -> impl FnOnce(Builder) -> Builder {
    move |builder| builder.skip(entry.index, entry.term, entry.checksum)
}

fn session() -> SessionKey {
    SessionKey::named(b"client").expect("a name")
}
