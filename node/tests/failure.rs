//! Failures of single parts of a node: any of them ends the whole node, and no other.

mod support;

use futures_util::future::join_all;
use quorate::{
    Consistency, Failure, NodeId, NodeRole, ProposeError, ReadError, Term, Timing,
    storage::{Memory, StorageError, Wal},
};
use quorate_raft::{
    Append, AppendOutcome, BatchBuilder, Body, EntryId, Heartbeat, Index, Kind, Message, Phase, RequestVote,
};
use quorate_storage_testing::{Operation, SimulatedDisk};
use std::time::Duration;
use support::{
    Cluster, Interposed, Journal, Ledger, Plan, Puppet, Record, Recorder, Seen, Verdict, run, simulate, soon,
};

/// A request for the first vote of a cluster.
const REQUEST: RequestVote = RequestVote {
    phase: Phase::Vote,
    campaign: 1,
    last: EntryId { term: Term(0), index: Index(0) },
    by_transfer: false,
    machine_version: 0,
};

#[test]
fn a_storage_actor_that_panics_ends_its_node_and_no_other() {
    for nth in [1, 4, 10] {
        simulate(async {
            let (mut cluster, ledger) = (Cluster::vacant(Plan::default()), Ledger::default());
            let (broken, record) = (NodeId(1), Record::default());
            let mut persists = 0;
            let storage = Interposed::around(Memory::new(), move |seen| {
                persists += u64::from(matches!(seen, Seen::Asked(_)));
                if persists == nth { Verdict::Panic } else { Verdict::GoOn }
            });
            let network = Recorder::around(cluster.network.endpoint(broken), &record);
            cluster.start_as(broken, Journal::default(), |builder| builder.storage(storage).network(network)).await;
            cluster.start(NodeId(2)).await;
            cluster.start(NodeId(3)).await;
            let node = cluster.node(broken).clone();
            let (failure, ()) = tokio::join!(soon("the failure", node.failed()), async {
                for id in [1, 2, 3].into_iter().cycle().take(12) {
                    let _ = ledger.propose(cluster.node(NodeId(id)), format!("{}", ledger.told())).await;
                }
            });
            assert_eq!(failure, Failure::ActorDied { actor: "storage" });
            ends_silently(&node, &record).await;
            the_others_go_on(&mut cluster, &ledger, broken).await;
        });
    }
}

#[test]
fn a_link_that_panics_ends_its_node_and_no_other() {
    let fatal: [fn(&Body) -> bool; 4] = [
        |body| matches!(body, Body::RequestVote(request) if request.phase == Phase::PreVote),
        |body| matches!(body, Body::RequestVote(request) if request.phase == Phase::Vote),
        |body| matches!(body, Body::Append(_)),
        |body| matches!(body, Body::Heartbeat(_)),
    ];
    for such in fatal {
        simulate(async {
            let (mut cluster, ledger) = (Cluster::vacant(patient()), Ledger::default());
            let (broken, record) = (NodeId(1), Record::default());
            record.panic_at(such);
            let network = Recorder::around(cluster.network.endpoint(broken), &record);
            // Its election timeout is far shorter than those of the others, so it
            // campaigns, and leads.
            let hasty = Timing::default();
            cluster.start_as(broken, Journal::default(), |builder| builder.network(network).timing(hasty)).await;
            cluster.start(NodeId(2)).await;
            cluster.start(NodeId(3)).await;
            let node = cluster.node(broken).clone();
            let failure = soon("the failure", node.failed()).await;
            assert!(
                matches!(failure, Failure::ActorDied { actor: "Consensus" | "Replicator" }),
                "the caller of the link died: {failure}"
            );
            ends_silently(&node, &record).await;
            the_others_go_on(&mut cluster, &ledger, broken).await;
        });
    }
}

#[test]
fn a_failed_sync_ends_the_node_and_no_other() {
    for nth in [1, 2, 5, 9] {
        simulate(async {
            let (mut cluster, ledger) = (Cluster::vacant(Plan::default()), Ledger::default());
            let (broken, record, disk) = (NodeId(1), Record::default(), SimulatedDisk::new());
            let network = Recorder::around(cluster.network.endpoint(broken), &record);
            let wal = Wal::at("data").segment_bytes(32 << 10).on(disk.clone());
            cluster.start_as(broken, Journal::default(), |builder| builder.storage(wal).network(network)).await;
            disk.fail(Operation::Sync, nth);
            cluster.start(NodeId(2)).await;
            cluster.start(NodeId(3)).await;
            let node = cluster.node(broken).clone();
            let (failure, ()) = tokio::join!(soon("the failure", node.failed()), async {
                for id in [1, 2, 3].into_iter().cycle().take(30) {
                    let _ = ledger.propose(cluster.node(NodeId(id)), format!("{}", ledger.told())).await;
                }
            });
            assert!(matches!(&failure, Failure::Storage(why) if why.to_string().contains("data")), "{failure}");
            ends_silently(&node, &record).await;
            the_others_go_on(&mut cluster, &ledger, broken).await;
        });
    }
}

#[test]
fn after_a_failed_sync_no_vote_leaves() {
    simulate(async {
        let (mut cluster, disk) = (Cluster::vacant(Plan::default()), SimulatedDisk::new());
        let mut candidate = Puppet::start(&cluster.network, NodeId(2), NodeId(1)).await;
        let wal = Wal::at("data").segment_bytes(32 << 10).on(disk.clone());
        cluster.start_as(NodeId(1), Journal::default(), |builder| builder.storage(wal)).await;
        disk.fail(Operation::Sync, 1);
        // The second request asks for the same promise again: a failed sync is not tried again.
        for _ in 0..2 {
            candidate.say(Term(5), Body::RequestVote(REQUEST));
            let said = candidate.hear_for_a_second().await;
            let votes = |message: &&Message| matches!(message.body, Body::Vote(vote) if vote.granted());
            assert_eq!(said.iter().find(votes), None);
        }
        assert!(matches!(soon("the failure", cluster.node(NodeId(1)).failed()).await, Failure::Storage(_)));
    });
}

#[test]
fn a_write_that_becomes_durable_after_the_failure_is_not_reported() {
    simulate(async {
        let (mut cluster, record) = (Cluster::vacant(Plan::default()), Record::default());
        let mut candidate = Puppet::start(&cluster.network, NodeId(2), NodeId(1)).await;
        let storage = Interposed::around(Memory::new(), |seen| match seen {
            Seen::Durable(_) => Verdict::Fail,
            Seen::Asked(_) => Verdict::GoOn,
        });
        let network = Recorder::around(cluster.network.endpoint(NodeId(1)), &record);
        cluster.start_as(NodeId(1), Journal::default(), |builder| builder.storage(storage).network(network)).await;
        candidate.say(Term(5), Body::RequestVote(REQUEST));
        assert_eq!(candidate.hear_for_a_second().await, []);
        let failure = soon("the failure", cluster.node(NodeId(1)).failed()).await;
        assert_eq!(failure, Failure::Storage(StorageError::new("told to fail")));
        assert_eq!(record.sent(), []);
    });
}

#[test]
fn after_a_failed_sync_no_append_is_acknowledged() {
    simulate(async {
        let (mut cluster, disk) = (Cluster::vacant(Plan::default()), SimulatedDisk::new());
        let mut leader = Puppet::start(&cluster.network, NodeId(2), NodeId(1)).await;
        let wal = Wal::at("data").segment_bytes(32 << 10).on(disk.clone());
        cluster.start_as(NodeId(1), Journal::default(), |builder| builder.storage(wal)).await;
        leader.say(Term(5), Body::Heartbeat(Heartbeat { round: 1, commit: Index(0) }));
        leader.hear("a reply", |message| matches!(message.body, Body::HeartbeatReply(_)).then_some(())).await;
        disk.fail(Operation::Sync, 1);
        for epoch in 1..=2 {
            let mut batch = BatchBuilder::new(quorate::storage::checksum, Term(5), Index(1), 0, 64);
            batch.push(Kind::Command, b"command");
            let append = Append {
                epoch,
                previous: EntryId::default(),
                previous_checksum: None,
                commit: Index(1),
                batch: batch.finish(),
            };
            leader.say(Term(5), Body::Append(append));
            let said = leader.hear_for_a_second().await;
            let acknowledges = |message: &&Message| match &message.body {
                Body::AppendReply(reply) => matches!(reply.outcome, AppendOutcome::Matched { .. }),
                _ => false,
            };
            assert_eq!(said.iter().find(acknowledges), None);
        }
        assert!(matches!(soon("the failure", cluster.node(NodeId(1)).failed()).await, Failure::Storage(_)));
        assert_eq!(cluster.journal(NodeId(1)).entries(), [], "what is not durable is not applied");
    });
}

#[test]
fn an_entry_of_a_session_that_cant_be_read_ends_the_node_before_what_is_behind_it_is_applied() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        let leader = Puppet::start(&cluster.network, NodeId(2), NodeId(1)).await;
        cluster.start(NodeId(1)).await;
        let mut batch = BatchBuilder::new(quorate::storage::checksum, Term(5), Index(1), 0, 64);
        batch.push(Kind::Command, b"before");
        batch.push(Kind::Session, b"no stamp, no key");
        batch.push(Kind::Command, b"behind");
        let (previous, batch) = (EntryId::default(), batch.finish());
        leader.say(
            Term(5),
            Body::Append(Append { epoch: 1, previous, previous_checksum: None, commit: Index(3), batch }),
        );
        let failure = soon("the failure", cluster.node(NodeId(1)).failed()).await;
        assert!(matches!(&failure, Failure::Unreadable { entry: Index(2), .. }), "{failure}");
        assert_eq!(failure.to_string().lines().count(), 1);
        assert_eq!(cluster.journal(NodeId(1)).entries(), [(Index(1), "before".to_owned())]);
    });
}

#[test]
fn no_caller_hangs_on_a_node_that_halted_with_threads_of_its_own() {
    run(async {
        let (mut cluster, ledger) = (Cluster::vacant(threaded()), Ledger::default());
        let broken = NodeId(1);
        cluster.start_as(broken, Journal::panicking_at("poison"), |builder| builder).await;
        cluster.start(NodeId(2)).await;
        cluster.start(NodeId(3)).await;
        cluster.leader().await;
        let node = cluster.node(broken).clone();
        let callers = (0..200).map(|nth| {
            let (node, ledger) = (node.clone(), ledger.clone());
            let command = if nth == 100 { "poison".to_owned() } else { format!("command {nth}") };
            tokio::spawn(async move {
                let read = node.clone();
                let _ = tokio::join!(
                    ledger.propose(&node, command),
                    soon("a read", read.read(Consistency::Linearizable, |_| ()))
                );
            })
        });
        for caller in join_all(callers).await {
            caller.expect("a caller that does not hang");
        }
        cluster.until("a halt", |view| view[&broken].halted.clone()).await;
        the_others_go_on(&mut cluster, &ledger, broken).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_storage_thread_that_dies_ends_its_node() {
    run(async {
        let mut cluster = Cluster::vacant(threaded());
        let mut persists = 0;
        let storage = Interposed::around(Memory::new(), move |seen| {
            persists += u64::from(matches!(seen, Seen::Asked(_)));
            if persists == 4 { Verdict::Panic } else { Verdict::GoOn }
        });
        cluster.start_as(NodeId(1), Journal::default(), |builder| builder.storage(storage)).await;
        cluster.start(NodeId(2)).await;
        cluster.start(NodeId(3)).await;
        let node = cluster.node(NodeId(1)).clone();
        let failure = soon("the failure", async {
            tokio::select! {
                failure = node.failed() => failure,
                () = async {
                    loop {
                        let _ = cluster.node(NodeId(2)).propose("more").await;
                    }
                } => unreachable!("it proposes for ever"),
            }
        })
        .await;
        assert_eq!(failure, Failure::ActorDied { actor: "storage" });
        soon("the end", node.shutdown()).await;
    });
}

#[test]
fn a_caller_that_leaves_cancels_nothing() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        let leader = cluster.leader().await;
        for id in cluster.ids() {
            let node = cluster.node(id).clone();
            let mut proposing = Box::pin(node.propose(format!("left at {id}")));
            assert!(support::poll_once(&mut proposing).await.is_pending());
            drop(proposing);
            let mut reading = Box::pin(node.read(Consistency::Linearizable, |_| ()));
            assert!(support::poll_once(&mut reading).await.is_pending());
        }
        cluster.until("all of it applied", |view| (view.values().all(|s| s.applied >= Index(4))).then_some(())).await;
        assert_eq!(cluster.settled().await, leader);
        for id in cluster.ids() {
            assert_eq!(cluster.journal(leader).count(&format!("left at {id}")), 1);
        }
    });
}

/// Checks that the failed node answers every caller, and has sent nothing since its failure.
async fn ends_silently(node: &quorate::Node<Journal>, record: &Record) {
    let sent = record.sent().len();
    let outcome = soon("the outcome of a proposal", node.propose("too late")).await;
    assert!(matches!(outcome, Err(ProposeError::Stopped | ProposeError::OutcomeUnknown)), "{outcome:?}");
    for consistency in [Consistency::Linearizable, Consistency::Local] {
        let read = soon("the outcome of a read", node.read(consistency, |_| ())).await;
        assert!(matches!(read, Err(ReadError::Stopped)), "{read:?}");
    }
    soon("the end", node.shutdown()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(record.sent()[sent..], [], "a failed node says nothing");
}

async fn the_others_go_on(cluster: &mut Cluster, ledger: &Ledger, broken: NodeId) {
    cluster.stop(broken).await;
    let leader = cluster.leader().await;
    assert_ne!(cluster.status(leader).role, NodeRole::Follower);
    for id in cluster.ids() {
        ledger.propose(cluster.node(id), format!("afterwards at {id}")).await.expect("an acknowledgement");
    }
    cluster.settled().await;
    ledger.check(&cluster.journals());
}

/// A plan for nodes with threads, which share the processors with other programs: elections
/// may take longer.
fn threaded() -> Plan {
    Plan { threads: true, timing: support::relaxed(), ..Plan::default() }
}

fn patient() -> Plan {
    Plan { timing: support::relaxed(), ..Plan::default() }
}
