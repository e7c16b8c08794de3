//! Restarts: a node recovers all that it knew before.

mod support;

use quorate::{Index, NodeId, NodeRole, Term};
use quorate_raft::{Body, EntryId, ForwardedOutcome, Heartbeat, ProposeOutcome, ProposeReply, ReadIndexReply};
use support::{Cluster, Ledger, Plan, Puppet, simulate, soon};

#[test]
fn a_restarted_node_resumes_its_term_vote_and_log() {
    simulate(async {
        let (mut cluster, ledger) = (Cluster::of_three(1).await, Ledger::default());
        let leader = cluster.leader().await;
        for nth in 0..5 {
            ledger.propose(cluster.node(leader), format!("command {nth}")).await.expect("an acknowledgement");
        }
        cluster.settled().await;
        let before: Vec<_> = cluster.ids().into_iter().map(|id| cluster.status(id)).collect();
        cluster.stop_all().await;
        for status in before {
            cluster.start(status.node).await;
            let now = cluster.status(status.node);
            assert_eq!((now.term, now.vote, now.last_log), (status.term, status.vote, status.last_log));
            assert_eq!(now.durable, status.last_log, "what is in the log is on the disk");
            assert_eq!((now.role, now.commit), (NodeRole::Follower, Index(0)), "what is committed it must learn again");
            cluster.stop(status.node).await;
        }
    });
}

#[test]
fn a_restarted_node_applies_the_same_state() {
    simulate(async {
        let (mut cluster, ledger) = (Cluster::of_three(2).await, Ledger::default());
        for round in 0..3 {
            let leader = cluster.leader().await;
            ledger.propose(cluster.node(leader), format!("{round}: all up")).await.expect("an acknowledgement");
            // First a follower, then the leader.
            for id in [cluster.others(leader)[0], leader] {
                cluster.stop(id).await;
                for up in cluster.ids() {
                    let command = format!("{round}: without {id} at {up}");
                    ledger.propose(cluster.node(up), command).await.expect("an acknowledgement");
                }
                cluster.start(id).await;
                cluster.settled().await;
                ledger.check(&cluster.journals());
            }
        }
        assert_eq!(ledger.acknowledged(), 15);
    });
}

#[test]
fn all_three_may_restart_at_once() {
    simulate(async {
        let (mut cluster, ledger) = (Cluster::of_three(3).await, Ledger::default());
        for round in 0..5 {
            let leader = cluster.leader().await;
            for nth in 0..10 {
                let command = format!("{round}: {nth}");
                ledger.propose(cluster.node(leader), command).await.expect("an acknowledgement");
            }
            cluster.stop_all().await;
            for id in cluster.members() {
                cluster.start(id).await;
            }
        }
        cluster.settled().await;
        assert_eq!(ledger.acknowledged(), 50);
        ledger.check(&cluster.journals());
    });
}

#[test]
fn an_answer_to_a_command_from_before_a_restart_answers_no_command_after_it() {
    simulate(async {
        let (mut cluster, ledger, term) = (Cluster::vacant(Plan::default()), Ledger::default(), Term(1));
        let (subject, leader) = (NodeId(1), NodeId(2));
        let mut puppet = Puppet::start(&cluster.network, leader, subject).await;
        let mut requests = Vec::new();
        for command in ["before", "after"] {
            cluster.start(subject).await;
            let node = cluster.node(subject).clone();
            follow(&cluster, &puppet, term).await;
            let asked = ledger.clone();
            let proposing = tokio::task::spawn_local(async move { asked.propose(&node, command).await });
            let request = puppet
                .hear("a forwarded command", |message| match &message.body {
                    Body::Propose(propose) => Some(propose.commands[0].request),
                    _ => None,
                })
                .await;
            requests.push(request);
            if command == "before" {
                cluster.stop(subject).await;
                drop(proposing);
                continue;
            }
            // The leader applied the old command, and answers it now.
            puppet.say(term, applied(requests[0], Index(7)));
            follow(&cluster, &puppet, term).await;
            assert!(!proposing.is_finished(), "the new command was answered with the old one's outcome");
            puppet.say(term, applied(requests[1], Index(8)));
            let outcome = soon("the answer", proposing).await.expect("a caller").expect("an acknowledgement");
            assert_eq!(outcome.index, Index(8));
        }
    });
}

#[test]
fn a_read_index_from_before_a_restart_serves_no_read_after_it() {
    simulate(async {
        let (mut cluster, term) = (Cluster::vacant(Plan::default()), Term(1));
        let (subject, leader) = (NodeId(1), NodeId(2));
        let mut puppet = Puppet::start(&cluster.network, leader, subject).await;
        let mut requests = Vec::new();
        for round in ["before", "after"] {
            cluster.start(subject).await;
            let node = cluster.node(subject).clone();
            follow(&cluster, &puppet, term).await;
            let reading =
                tokio::task::spawn_local(async move { node.read(quorate::Consistency::Linearizable, |_| ()).await });
            let request = puppet
                .hear("a read index", |message| match &message.body {
                    Body::ReadIndex(read) => Some(read.request),
                    _ => None,
                })
                .await;
            requests.push(request);
            if round == "before" {
                cluster.stop(subject).await;
                drop(reading);
                continue;
            }
            let answer = |request| Body::ReadIndexReply(ReadIndexReply { request, index: Some(Index(0)) });
            puppet.say(term, answer(requests[0]));
            follow(&cluster, &puppet, term).await;
            assert!(!reading.is_finished(), "the new read was served at the old one's index");
            puppet.say(term, answer(requests[1]));
            soon("the read", reading).await.expect("a caller").expect("a value");
        }
    });
}

#[test]
fn a_read_that_waits_for_entries_which_never_come_is_given_up() {
    simulate(async {
        let (mut cluster, term, subject) = (Cluster::vacant(Plan::default()), Term(1), NodeId(1));
        let mut leader = Puppet::start(&cluster.network, NodeId(2), subject).await;
        cluster.start(subject).await;
        follow(&cluster, &leader, term).await;
        let node = cluster.node(subject).clone();
        let reading =
            tokio::task::spawn_local(async move { node.read(quorate::Consistency::Linearizable, |_| ()).await });
        let request = leader
            .hear("a read index", |message| match &message.body {
                Body::ReadIndex(read) => Some(read.request),
                _ => None,
            })
            .await;
        // The leader answers, and dies before its entries arrive.
        leader.say(term, Body::ReadIndexReply(ReadIndexReply { request, index: Some(Index(5)) }));
        let began = tokio::time::Instant::now();
        let outcome = soon("an answer", reading).await.expect("a caller");
        assert_eq!(outcome, Err(quorate::ReadError::Behind { entries: 5 }), "what it waits for has an index");
        assert!(began.elapsed() < std::time::Duration::from_secs(4), "took {:?}", began.elapsed());
        assert!(cluster.node(subject).read(quorate::Consistency::Local, |_| ()).await.is_ok());
    });
}

#[test]
fn no_caller_waits_for_ever_for_leaders_that_come_and_go() {
    simulate(async {
        let (mut cluster, ledger, subject) = (Cluster::vacant(Plan::default()), Ledger::default(), NodeId(1));
        let mut leaders = [
            Puppet::start(&cluster.network, NodeId(2), subject).await,
            Puppet::start(&cluster.network, NodeId(3), subject).await,
        ];
        cluster.start(subject).await;
        follow(&cluster, &leaders[0], Term(1)).await;
        let (writing, reading) = (cluster.node(subject).clone(), cluster.node(subject).clone());
        let asked = ledger.clone();
        let mut writing = tokio::task::spawn_local(async move { asked.propose(&writing, "command").await });
        let mut reading =
            tokio::task::spawn_local(async move { reading.read(quorate::Consistency::Linearizable, |_| ()).await });
        let began = tokio::time::Instant::now();
        let mut term = Term(1);
        while !(writing.is_finished() && reading.is_finished()) {
            assert!(began.elapsed() < std::time::Duration::from_secs(15), "they still wait");
            // The leader that is asked has just lost its leadership to the other one.
            let asked = leaders[0].hear_for_a_second().await;
            for message in asked {
                match message.body {
                    Body::Propose(propose) => {
                        let outcome = ProposeOutcome::NotLeader;
                        let requests = propose.commands.iter().map(|command| command.request);
                        let outcomes = requests.map(|request| ForwardedOutcome { request, outcome }).collect();
                        let replies = bytes::Bytes::new();
                        leaders[0].say(term, Body::ProposeReply(ProposeReply { outcomes, replies }));
                    }
                    Body::ReadIndex(read) => {
                        let refusal = ReadIndexReply { request: read.request, index: None };
                        leaders[0].say(term, Body::ReadIndexReply(refusal));
                    }
                    _ => {}
                }
            }
            leaders.swap(0, 1);
            term = term.next();
            leaders[0].say(term, Body::Heartbeat(Heartbeat { round: 0, commit: Index(0) }));
        }
        let written = soon("an outcome", &mut writing).await.expect("a caller");
        assert!(matches!(written, Err(quorate::ProposeError::NoLeader | quorate::ProposeError::OutcomeUnknown)));
        assert_eq!(soon("an outcome", &mut reading).await.expect("a caller"), Err(quorate::ReadError::NoLeader));
    });
}

/// Lets the node hear its leader, and waits until it has handled that message and all earlier ones.
async fn follow(cluster: &Cluster, puppet: &Puppet, term: Term) {
    puppet.say(term, Body::Heartbeat(Heartbeat { round: 0, commit: EntryId::default().index }));
    cluster.until("the node to follow", |view| view[&NodeId(1)].leader).await;
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}

fn applied(request: u64, index: Index) -> Body {
    let outcome = ProposeOutcome::Applied { index, reply_bytes: 0 };
    let outcomes = vec![ForwardedOutcome { request, outcome }];
    Body::ProposeReply(ProposeReply { outcomes, replies: bytes::Bytes::new() })
}
