//! Commands that make the state machine panic: nodes halt at the entry by name, and it is skipped
//! by every node or by none.

mod support;

use quorate::{
    BackupError, Builder, Consistency, HaltCause, Index, Node, NodeId, NodeRole, ProposeError, ReadError, SessionError,
    SessionKey, Skip, SnapshotError, Snapshots, StartError, Term, Timing, storage::Memory,
};
use std::time::Duration;
use support::{Cluster, Journal, Ledger, Plan, simulate, soon};

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
        assert_eq!(all_halted(&cluster).await, entry);
        cluster.stop_all().await;

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
fn where_all_nodes_halt_the_leader_stays_and_refuses_before_it_appends() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        for id in cluster.members() {
            start(&mut cluster, id, |builder| builder).await;
        }
        let first = cluster.leader().await;
        assert_eq!(cluster.node(first).propose(POISON).await, Err(ProposeError::OutcomeUnknown));
        let at = all_halted(&cluster).await.index;
        let status = cluster.status(first);
        // Far longer than a stuck machine may lead, and than a transfer waits.
        tokio::time::sleep(Duration::from_secs(60)).await;
        for id in cluster.ids() {
            let node = cluster.node(id);
            let refused = soon("an answer", node.propose("refused")).await;
            assert_eq!(refused, Err(ProposeError::Halted { at }), "asked at {id}");
            for consistency in [Consistency::Linearizable, Consistency::Lease, Consistency::Local] {
                let read = soon("an answer", node.read(consistency, Journal::entries)).await;
                assert_eq!(read.map(|read| read.index), Err(ReadError::Halted { at }), "asked at {id}");
            }
            let snapshot = soon("an answer", node.snapshot()).await;
            assert!(matches!(snapshot, Err(SnapshotError::Halted { at: halted }) if halted == at), "{snapshot:?}");
            let backup = soon("an answer", node.backup()).await;
            assert!(matches!(backup, Err(BackupError::Refused(ReadError::Halted { .. }))), "{:?}", backup.err());
            assert_eq!(cluster.metric("quorate_halted", &[&format!("node=\"{id}\"")]), 1.0);
        }
        let later = cluster.status(first);
        assert_eq!((later.role, later.term), (NodeRole::Leader, status.term), "it leads without a break");
        assert_eq!(later.last_log, status.last_log, "nothing was appended");
        cluster.stop_all().await;
    });
}

#[test]
fn a_leader_that_halts_alone_transfers_leadership_and_stays_a_voter() {
    simulate(async {
        let (mut cluster, ledger) =
            (Cluster::vacant(Plan { timing: support::relaxed(), ..Plan::default() }), Ledger::default());
        let [odd, sound, other] = [1, 2, 3].map(NodeId);
        // Its election timeout is far shorter than those of the others, so it campaigns, and leads.
        start(&mut cluster, odd, |builder| builder.timing(Timing::default())).await;
        cluster.start(sound).await;
        cluster.start(other).await;
        assert_eq!(cluster.leader().await, odd);
        let node = cluster.node(odd).clone();
        // Commands of the same batch as the entry, on both sides of it, and one of another node.
        let (.., told, _, _) = tokio::join!(
            ledger.propose(&node, "before"),
            ledger.propose(&node, POISON),
            ledger.propose(&node, "behind"),
            ledger.propose(cluster.node(sound), "from another node"),
        );
        assert_eq!(told, Err(ProposeError::OutcomeUnknown));
        let leader = cluster.leader_among(&[sound, other]).await;
        let halted = cluster.status(odd).halted.expect("it halted");
        assert_eq!(cluster.status(leader).halted, None);
        ledger.propose(&node, "forwarded by it").await.expect("an acknowledgement");
        let read = node.read(Consistency::Linearizable, Journal::entries).await;
        assert_eq!(read.map(|read| read.index), Err(ReadError::Halted { at: halted.entry.index }));

        // It and one other are a quorum: it persists and acknowledges entries.
        cluster.stop(other).await;
        // It may win the election, and transfers leadership again.
        let _ = ledger.propose(cluster.node(sound), "by two of three").await;
        cluster.leader_among(&[sound]).await;
        ledger.propose(cluster.node(sound), "by two of three again").await.expect("an acknowledgement");

        // A release that applies the entry resumes.
        cluster.stop(odd).await;
        cluster.start(odd).await;
        cluster.start(other).await;
        cluster.settled().await;
        ledger.check(&cluster.journals());
        assert_eq!(cluster.journal(odd).count(POISON), 1);
        cluster.stop_all().await;
    });
}

#[test]
fn a_transfer_without_a_named_target_and_a_planned_stop_pass_a_halted_node_over() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan { timing: support::relaxed(), ..Plan::default() });
        // By the log alone the rules would choose this one: it has the lowest id.
        let [odd, sound, first] = [1, 2, 3].map(NodeId);
        start(&mut cluster, odd, |builder| builder).await;
        cluster.start(sound).await;
        // Its election timeout is far shorter than those of the others, so it campaigns, and leads.
        cluster.start_as(first, Journal::default(), |builder| builder.timing(Timing::default())).await;
        assert_eq!(cluster.leader().await, first);
        let term = cluster.status(first).term;
        cluster.node(first).propose(POISON).await.expect("two apply it");
        cluster.until("a halt", |view| view[&odd].halted.clone()).await;
        // Until the others know of the halt, and of all entries that each has.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(cluster.node(first).transfer(None).await, Ok(sound));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((cluster.leader().await, cluster.status(sound).term), (sound, Term(term.0 + 1)));
        cluster.stop(sound).await;
        assert_eq!(cluster.leader_among(&[odd, first]).await, first);
        assert_eq!(cluster.status(first).term, Term(term.0 + 2), "no other led in between");
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
    let entry = all_halted(&cluster).await;
    cluster.stop_all().await;
    (cluster, entry)
}

/// Waits for all nodes to halt, and gives the entry that all of them name.
async fn all_halted(cluster: &Cluster) -> Skip {
    let find = |view: &support::View| view.values().map(|status| status.halted.clone()).collect::<Option<Vec<_>>>();
    let halted = cluster.until("a halt of all nodes", find).await;
    let entry = halted[0].entry;
    for halted in halted {
        let line = halted.to_string();
        let named = format!("index = {}, term = {}, checksum = \"0x{:08x}\"", entry.index, entry.term, entry.checksum);
        assert!(line.contains(&named) && line.contains(POISON) && line.lines().count() == 1, "{line}");
        assert!(halted.bytes >= POISON.len() && matches!(halted.cause, HaltCause::Panicked { .. }), "{line}");
    }
    entry
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
