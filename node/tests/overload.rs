//! Overload of whole nodes: it leads to answers, never to a growing queue or an election.

mod support;

use futures_util::future::{join, join_all};
use quorate::{Consistency, Limits, NodeId, NodeRole, ProposeError, ReadError};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use support::{Cluster, Ledger, Plan, run, simulate, soon};
use tokio::sync::Semaphore;

#[test]
fn more_proposals_than_allowed_are_refused_at_once() {
    simulate(async {
        let limits = Limits::default().with_max_in_flight_proposals(3);
        let mut cluster = Cluster::vacant(Plan { limits, ..Plan::default() });
        // Alone, the node has no leader: admitted callers wait.
        cluster.start(NodeId(1)).await;
        let node = cluster.node(NodeId(1)).clone();
        let mut waiting: Vec<_> = (0..3).map(|nth| Box::pin(node.propose(format!("{nth}")))).collect();
        for proposal in &mut waiting {
            assert!(support::poll_once(proposal).await.is_pending());
        }
        let began = tokio::time::Instant::now();
        for _ in 0..1000 {
            assert!(matches!(node.propose("one more").await, Err(ProposeError::Overloaded { .. })));
            let read = node.read(Consistency::Local, |_| ()).await;
            assert!(matches!(read, Err(ReadError::Overloaded { .. })));
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "it was an answer, not a wait");
        for outcome in join_all(waiting).await {
            assert_eq!(outcome, Err(ProposeError::NoLeader));
        }
        assert!(node.read(Consistency::Local, |_| ()).await.is_ok(), "places are given back");
    });
}

#[test]
fn more_bytes_than_allowed_are_refused_at_once_and_a_larger_command_goes_alone() {
    simulate(async {
        let limits = Limits::default().with_max_in_flight_bytes(1000);
        let mut cluster = Cluster::vacant(Plan { limits, ..Plan::default() });
        cluster.start(NodeId(1)).await;
        let node = cluster.node(NodeId(1)).clone();
        let mut waiting: Vec<_> = [400, 600].map(|bytes| Box::pin(node.propose("x".repeat(bytes)))).into();
        for proposal in &mut waiting {
            assert!(support::poll_once(proposal).await.is_pending());
        }
        assert!(matches!(node.propose("x").await, Err(ProposeError::Overloaded { .. })));
        assert!(node.read(Consistency::Local, |_| ()).await.is_ok(), "a read has no bytes");
        join_all(waiting).await;
        let mut larger = Box::pin(node.propose("x".repeat(5000)));
        assert!(support::poll_once(&mut larger).await.is_pending(), "alone, it is let in");
        assert!(matches!(node.propose("x").await, Err(ProposeError::Overloaded { .. })));
        assert_eq!(larger.await, Err(ProposeError::NoLeader));
        assert_eq!(node.propose("x").await, Err(ProposeError::NoLeader), "the room was given back");
    });
}

#[test]
fn one_client_leaves_places_and_bytes_to_others() {
    simulate(async {
        let limits = Limits::default().with_max_in_flight_proposals(8).with_max_in_flight_bytes(1000);
        let mut cluster = Cluster::vacant(Plan { limits, ..Plan::default() });
        cluster.start(NodeId(1)).await;
        let (greedy, other) = (cluster.node(NodeId(1)).client(), cluster.node(NodeId(1)).client());
        let is_full = |outcome| matches!(outcome, Err(ProposeError::Overloaded { .. }));
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(greedy.propose("x"))).collect();
        for proposal in &mut waiting {
            assert!(support::poll_once(proposal).await.is_pending());
        }
        assert!(is_full(greedy.clone().propose("x").await), "half of the places, and a clone is the same client");
        let read = greedy.read(Consistency::Local, |_| ()).await;
        assert!(matches!(read, Err(ReadError::Overloaded { .. })));
        assert_eq!(other.propose("x").await, Err(ProposeError::NoLeader), "others find a place");
        join_all(waiting).await;
        let mut large = Box::pin(greedy.propose("x".repeat(500)));
        assert!(support::poll_once(&mut large).await.is_pending());
        assert!(is_full(greedy.propose("x").await), "half of the bytes");
        assert_eq!(other.propose("x".repeat(500)).await, Err(ProposeError::NoLeader), "others find room");
        drop(large);
        assert_eq!(greedy.propose("x").await, Err(ProposeError::NoLeader), "places are given back");
    });
}

#[test]
fn a_caller_that_leaves_keeps_its_place_until_its_command_has_an_outcome() {
    simulate(async {
        let limits = Limits::default().with_max_in_flight_proposals(1);
        let mut cluster = Cluster::vacant(Plan { limits, ..Plan::default() });
        cluster.start(NodeId(1)).await;
        let node = cluster.node(NodeId(1)).clone();
        let mut left = Box::pin(node.propose("left"));
        assert!(support::poll_once(&mut left).await.is_pending());
        drop(left);
        assert!(matches!(node.propose("next").await, Err(ProposeError::Overloaded { .. })));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(node.propose("next").await, Err(ProposeError::NoLeader), "the place was given back");
    });
}

#[test]
fn a_leader_bounds_what_others_forward() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        for id in cluster.members() {
            // Every node admits more callers than any node admits forwarded commands.
            let max_in_flight_proposals = if id == NodeId(3) { 64 } else { 4 };
            let limits = Limits::default().with_max_in_flight_proposals(max_in_flight_proposals);
            cluster.start_as(id, support::Journal::default(), |builder| builder.limits(limits)).await;
        }
        until_another_leads(&mut cluster).await;
        let (node, ledger) = (cluster.node(NodeId(3)).clone(), Ledger::default());
        let outcomes = join_all((0..64).map(|nth| ledger.propose(&node, format!("{nth}")))).await;
        let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(ProposeError::Overloaded { .. })));
        assert_eq!(refused.count(), 60);
        assert_eq!(ledger.acknowledged(), 4);
        for nth in 0..200 {
            ledger.propose(&node, format!("again {nth}")).await.expect("places are given back");
        }
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_leader_bounds_the_bytes_that_others_forward() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        for id in cluster.members() {
            let max_in_flight_bytes = if id == NodeId(3) { 64 << 10 } else { 4000 };
            let limits = Limits::default().with_max_in_flight_bytes(max_in_flight_bytes);
            cluster.start_as(id, support::Journal::default(), |builder| builder.limits(limits)).await;
        }
        until_another_leads(&mut cluster).await;
        let (node, ledger) = (cluster.node(NodeId(3)).clone(), Ledger::default());
        let command = |nth: usize| format!("{nth:04}").repeat(250);
        let outcomes = join_all((0..64).map(|nth| ledger.propose(&node, command(nth)))).await;
        let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(ProposeError::Overloaded { .. })));
        assert_eq!(refused.count(), 60);
        assert_eq!(ledger.acknowledged(), 4);
        for nth in 100..300 {
            ledger.propose(&node, command(nth)).await.expect("room is given back");
        }
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_command_that_is_too_large_is_refused() {
    simulate(async {
        let limits = Limits::default().with_max_command_bytes(1000);
        let (cluster, ledger) = (Cluster::start_all(Plan { limits, ..Plan::default() }).await, Ledger::default());
        for id in cluster.ids() {
            let large = format!("{id}").repeat(1001);
            let refused = Err(ProposeError::TooLarge { bytes: 1001, max: 1000 });
            assert_eq!(ledger.propose(cluster.node(id), large).await, refused);
            let allowed = format!("{id}").repeat(1000);
            ledger.propose(cluster.node(id), allowed).await.expect("an acknowledgement");
        }
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn commands_of_any_size_up_to_the_limit_get_through() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(2).await, Ledger::default());
        let largest = Limits::default().max_command_bytes;
        let sizes = [1, largest - 1, largest, 2, largest / 2, 3, largest];
        for id in cluster.ids() {
            let node = cluster.node(id);
            let commands = sizes.iter().enumerate().map(|(nth, size)| format!("{id}{nth:02}").repeat(size.div_ceil(3)));
            let proposals = commands.zip(sizes).map(|(command, size)| ledger.propose(node, command[..size].to_owned()));
            // The shortest commands are the same from every node; it is enough that
            // they were accepted.
            for outcome in join_all(proposals).await {
                outcome.expect("an acknowledgement");
            }
        }
        cluster.settled().await;
    });
}

#[test]
fn small_commands_pass_large_ones_and_none_is_left_behind() {
    simulate(async {
        let limits = Limits::default().with_max_batch_bytes(300 << 10);
        let (cluster, ledger) = (Cluster::start_all(Plan { limits, ..Plan::default() }).await, Ledger::default());
        let leader = cluster.settled().await;
        for id in cluster.ids() {
            let node = cluster.node(id);
            // A turn holds two of the large commands; so there are ten turns.
            let large = join_all((0..20).map(|nth| ledger.propose(node, format!("{id}{nth:03}").repeat(30 << 10))));
            let small = join_all((0..20).map(|nth| ledger.propose(node, format!("{id} small {nth}"))));
            let (large, small) = futures_util::future::join(large, small).await;
            let index = |outcome: &Result<quorate::Applied, _>| outcome.as_ref().expect("an acknowledgement").index;
            let last_small = small.iter().map(index).max();
            let before = large.iter().filter(|outcome| Some(index(outcome)) < last_small).count();
            // Forwarded commands come in batches, and the first of them may be large.
            assert!(
                before <= if id == leader { 2 } else { 20 },
                "{before} large ones went before the small ones of {id}"
            );
        }
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_caller_of_a_deferred_command_hears_the_truth_when_the_leader_is_lost() {
    for seed in support::seeds(4) {
        simulate(async {
            let limits = Limits::default().with_max_batch_bytes(300 << 10);
            let plan = Plan { limits, seed, ..Plan::default() };
            let (cluster, ledger) = (Cluster::start_all(plan).await, Ledger::default());
            let leader = cluster.settled().await;
            let node = cluster.node(leader).clone();
            let proposing = join_all((0..20).map(|nth| ledger.propose(&node, format!("{nth:04}").repeat(30 << 10))));
            let losing = async {
                // Early enough that none of it can be committed yet.
                tokio::time::sleep(Duration::from_micros(seed)).await;
                cluster.faults.isolate(leader);
                cluster.leader_among(&cluster.others(leader)).await;
                cluster.faults.heal();
            };
            let (outcomes, ()) = soon("every outcome", futures_util::future::join(proposing, losing)).await;
            let is_unknown = |outcome: &&Result<_, _>| matches!(outcome, Err(ProposeError::OutcomeUnknown));
            let unknown = outcomes.iter().filter(is_unknown).count();
            assert!(unknown <= 2, "seed {seed}: of {unknown} the outcome is unknown, but only two were in the log");
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn large_replies_to_forwarded_commands_get_through_together() {
    simulate(async {
        let (network, ids) = (quorate::transport::MemoryNetwork::new(), [1, 2, 3].map(NodeId));
        let mut nodes = Vec::new();
        for id in ids {
            let builder = quorate::Node::builder(id, support::CLUSTER).voters(ids.map(|id| (id, "")));
            let builder = builder.network(network.endpoint(id)).storage(quorate::storage::Memory::new()).seed(id.0);
            nodes.push(builder.start_local(Verbose).await.expect("a node"));
        }
        for node in &nodes {
            // Together the replies are more than a frame may carry.
            let outcomes = join_all((0..40).map(|_| node.propose("1000000"))).await;
            for outcome in outcomes {
                assert_eq!(outcome.expect("an acknowledgement").reply.len(), 1_000_000);
            }
        }
    });
}

/// A state machine that replies with as many bytes as the command says.
struct Verbose;

impl quorate::StateMachine for Verbose {
    fn apply(&mut self, _: &quorate::At, command: &[u8]) -> bytes::Bytes {
        let bytes = String::from_utf8_lossy(command).parse().expect("a number of bytes");
        vec![b'x'; bytes].into()
    }
}

#[test]
fn a_flood_of_proposals_starves_no_heartbeat() {
    run(async {
        let timing = support::relaxed();
        let plan = Plan { threads: true, by_value: true, timing, ..Plan::default() };
        let mut cluster = Cluster::start_all(plan).await;
        let leader = cluster.leader().await;
        let term = cluster.status(leader).term;
        let (over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
        let clients = cluster.ids().into_iter().flat_map(|id| {
            let (cluster, over, acknowledged) = (&cluster, &over, &acknowledged);
            (0..1500).map(move |_| {
                let (node, over, acknowledged) = (cluster.node(id).clone(), Arc::clone(over), Arc::clone(acknowledged));
                tokio::spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        match node.propose("x".repeat(100)).await {
                            Ok(_) => acknowledged.add_permits(1),
                            Err(_) => tokio::task::yield_now().await,
                        }
                    }
                })
            })
        });
        let clients: Vec<_> = clients.collect();
        // The flood outlasts several election timeouts.
        let (flood, lasts) = (acknowledged.acquire_many(10_000), tokio::time::sleep(timing.election_timeout.1 * 2));
        soon("10,000 acknowledgements", async { join(flood, lasts).await.0.map(drop) }).await.expect("it is open");
        let status = cluster.status(leader);
        over.store(true, Ordering::Relaxed);
        soon("every caller's answer", join_all(clients)).await;
        assert_eq!((status.role, status.term), (NodeRole::Leader, term), "heartbeats went through the flood");
        cluster.stop_all().await;
    });
}

/// Waits until node 3, which admits more callers than the others, does not lead.
async fn until_another_leads(cluster: &mut Cluster) {
    while cluster.leader().await == NodeId(3) {
        cluster.faults.isolate(NodeId(3));
        cluster.leader_among(&[NodeId(1), NodeId(2)]).await;
        cluster.faults.heal();
    }
}
