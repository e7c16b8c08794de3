//! Networks with faults: they lose, repeat, delay and reorder messages, or carry them in
//! one direction only.

mod support;

use bytes::Bytes;
use quorate::{Consistency, Index, NodeId, NodeRole, Term};
use quorate_raft::{Body, ForwardedCommand, ForwardedOutcome, Heartbeat, Kind, Propose, ProposeOutcome};
use quorate_transport_testing::{Faults, LinkFaults};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::time::Duration;
use support::{Cluster, Journal, Ledger, Plan, Puppet, seeds, simulate, soon};

#[test]
fn every_caller_is_told_the_truth_over_a_bad_network() {
    for seed in seeds(8) {
        simulate(async {
            let (cluster, ledger) = (Cluster::of_three(seed).await, Ledger::default());
            cluster.faults.everywhere(bad());
            join_all(clients(&cluster, &ledger, 40)).await;
            cluster.faults.clear();
            cluster.settled().await;
            assert!(ledger.acknowledged() > 60, "seed {seed}: only {} of 120", ledger.acknowledged());
            ledger.check(&cluster.journals());
        });
    }
}

/// A leader takes a command, dies, and is up again when the network repeats the command. Its
/// answer that it does not lead must not make the forwarder try elsewhere: the command would
/// be applied twice.
#[test]
fn of_a_command_that_may_have_been_taken_before_a_restart_the_outcome_is_unknown() {
    simulate(async {
        let (mut cluster, subject) = (Cluster::vacant(Plan::default()), NodeId(1));
        let mut forwarder = Puppet::start(&cluster.network, NodeId(2), subject).await;
        cluster.start(subject).await;
        forwarder.say(Term(3), Body::Heartbeat(Heartbeat { round: 1, commit: Index(0) }));
        forwarder.hear("a reply", |message| matches!(message.body, Body::HeartbeatReply(_)).then_some(())).await;
        cluster.stop(subject).await;
        cluster.start(subject).await;
        for (request, term, told) in [(1, 2, ProposeOutcome::Unknown), (2, 3, ProposeOutcome::Unknown)]
            .into_iter()
            .chain([(3, 4, ProposeOutcome::NotLeader)])
        {
            let command = ForwardedCommand { request, length: 7, kind: Kind::Command, waits_ms: 5000 };
            let propose = Propose { commands: vec![command], payloads: Bytes::from_static(b"command") };
            forwarder.say(Term(term), Body::Propose(propose));
            let outcome = forwarder.hear("an outcome", |message| match &message.body {
                Body::ProposeReply(reply) => {
                    reply.outcomes.iter().find(|answered| answered.request == request).copied()
                }
                _ => None,
            });
            assert_eq!(outcome.await, ForwardedOutcome { request, outcome: told }, "sent in term {term}");
        }
    });
}

#[test]
fn a_command_that_the_network_repeats_is_applied_once() {
    for seed in seeds(4) {
        simulate(async {
            let (cluster, ledger) = (Cluster::of_three(seed).await, Ledger::default());
            let ms = Duration::from_millis;
            cluster.faults.everywhere(LinkFaults {
                duplicate: 1.0,
                reorder: 1.0,
                reorder_within: ms(100),
                ..LinkFaults::default()
            });
            join_all(clients(&cluster, &ledger, 20)).await;
            cluster.faults.clear();
            cluster.settled().await;
            assert!(ledger.acknowledged() > 30, "seed {seed}: only {} of 60", ledger.acknowledged());
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn every_caller_is_told_the_truth_while_links_fail_one_way() {
    for seed in seeds(8) {
        simulate(async {
            let (cluster, ledger) = (Cluster::of_three(seed).await, Ledger::default());
            cluster.faults.everywhere(bad());
            let clients = clients(&cluster, &ledger, 60);
            let mut random = SmallRng::seed_from_u64(seed);
            for _ in 0..10 {
                cut_some(&cluster.faults, &mut random);
                tokio::time::sleep(Duration::from_millis(random.random_range(100..800))).await;
                cluster.faults.heal();
                tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
            }
            join_all(clients).await;
            cluster.faults.clear();
            cluster.settled().await;
            assert!(ledger.acknowledged() > 30, "seed {seed}: only {} of 180", ledger.acknowledged());
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn a_linearizable_read_sees_every_acknowledged_write_from_any_node() {
    for seed in seeds(4) {
        simulate(async {
            let (cluster, ledger) = (Cluster::of_three(seed).await, Ledger::default());
            cluster.leader().await;
            cluster.faults.everywhere(bad());
            let mut random = SmallRng::seed_from_u64(seed);
            let mut served = 0;
            for nth in 0..60 {
                if nth % 10 == 5 {
                    cut_some(&cluster.faults, &mut random);
                } else if nth % 10 == 8 {
                    cluster.faults.heal();
                }
                let [writer, reader] = std::array::from_fn(|_| cluster.node(NodeId(random.random_range(1..=3))));
                let command = format!("write {nth}");
                let Ok(written) = ledger.propose(writer, command.clone()).await else { continue };
                let read = reader.read(Consistency::Linearizable, move |journal| journal.count(&command));
                let Ok(read) = soon("a read", read).await else { continue };
                served += 1;
                assert_eq!(
                    read.value, 1,
                    "seed {seed}: a read at {} missed write {nth} at {}",
                    read.index, written.index
                );
                assert!(read.index >= written.index);
            }
            assert!(served > 20, "seed {seed}: only {served} reads were served");
            cluster.faults.clear();
            cluster.settled().await;
            ledger.check(&cluster.journals());
        });
    }
}

#[test]
fn a_leader_that_is_heard_but_hears_no_node_is_replaced() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(1).await, Ledger::default());
        let deaf = cluster.leader().await;
        let others = cluster.others(deaf);
        for id in &others {
            cluster.faults.cut(*id, deaf);
        }
        cluster.leader_among(&others).await;
        for id in &others {
            ledger.propose(cluster.node(*id), format!("at {id}")).await.expect("an acknowledgement");
        }
        assert_ne!(cluster.status(deaf).role, NodeRole::Leader);
        cluster.faults.heal();
        cluster.settled().await;
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_node_that_hears_no_other_but_is_heard_disrupts_nothing() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(2).await, Ledger::default());
        let leader = cluster.leader().await;
        let (term, deaf) = (cluster.status(leader).term, cluster.others(leader)[0]);
        for id in cluster.others(deaf) {
            cluster.faults.cut(id, deaf);
        }
        for nth in 0..20 {
            ledger.propose(cluster.node(leader), format!("command {nth}")).await.expect("an acknowledgement");
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!((cluster.status(leader).role, cluster.status(leader).term), (NodeRole::Leader, term));
        }
        cluster.faults.heal();
        assert_eq!(cluster.settled().await, leader);
        assert_eq!(cluster.status(leader).term, term);
        ledger.check(&cluster.journals());
    });
}

#[test]
fn a_cut_between_two_nodes_that_a_third_reaches_both_changes_no_leader() {
    simulate(async {
        let (cluster, ledger) = (Cluster::of_three(3).await, Ledger::default());
        let leader = cluster.leader().await;
        let term = cluster.status(leader).term;
        let [blind, seeing] = cluster.others(leader)[..] else { panic!("three nodes") };
        cluster.faults.partition(&[leader], &[blind]);
        for nth in 0..20 {
            for id in [leader, seeing] {
                ledger.propose(cluster.node(id), format!("{nth} at {id}")).await.expect("an acknowledgement");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            for id in cluster.ids() {
                assert_eq!(cluster.status(id).term, term, "terms are bounded");
            }
            assert_eq!(cluster.status(leader).role, NodeRole::Leader);
        }
        cluster.faults.heal();
        assert_eq!(cluster.settled().await, leader);
        ledger.check(&cluster.journals());
    });
}

/// Faults of a link that loses, repeats, reorders and delays.
fn bad() -> LinkFaults {
    LinkFaults {
        drop: 0.05,
        duplicate: 0.1,
        reorder: 0.2,
        reorder_within: Duration::from_millis(30),
        corrupt: 0.01,
        delay: Duration::ZERO..=Duration::from_millis(8),
        ..LinkFaults::default()
    }
}

/// Cuts off one node, or one direction between two nodes.
fn cut_some(faults: &Faults, random: &mut SmallRng) {
    let [one, other] = std::array::from_fn(|_| NodeId(random.random_range(1..=3)));
    if one == other {
        faults.isolate(one);
    } else {
        faults.cut(one, other);
    }
}

/// Starts one client for each node.
fn clients(cluster: &Cluster, ledger: &Ledger, commands: u64) -> Vec<tokio::task::JoinHandle<()>> {
    let client = |id: NodeId| {
        let (node, ledger): (quorate::Node<Journal>, _) = (cluster.node(id).clone(), ledger.clone());
        tokio::task::spawn_local(async move {
            for nth in 0..commands {
                let _ = ledger.propose(&node, format!("{id}: {nth}")).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    cluster.ids().into_iter().map(client).collect()
}

async fn join_all(clients: Vec<tokio::task::JoinHandle<()>>) {
    for client in clients {
        client.await.expect("a client");
    }
}
