//! Deadlines of proposals and reads: a request with a deadline that has passed is not begun, here
//! or at the leader, and its caller is told so.

mod support;

use bytes::Bytes;
use quorate::{Index, NodeId, ProposeError, SessionKey, Term};
use quorate_raft::{Body, ForwardedCommand, ForwardedOutcome, Heartbeat, Kind, Propose, ProposeOutcome, ProposeReply};
use std::time::Duration;
use support::{Cluster, Plan, Puppet, simulate};
use tokio::time::Instant;

const HEARTBEAT: Duration = Duration::from_millis(50);

#[test]
fn a_command_whose_deadline_passes_without_a_leader_is_never_applied() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        cluster.start(NodeId(1)).await;
        let node = cluster.node(NodeId(1)).clone();
        let began = Instant::now();
        // The patient caller is first in the queue.
        let patient = tokio::task::spawn_local(async move { node.propose("patient").within(HEARTBEAT * 200).await });
        let node = cluster.node(NodeId(1)).clone();
        let within = Duration::from_millis(230);
        assert_eq!(node.propose("late").within(within).await, Err(ProposeError::DeadlinePassed));
        let took = began.elapsed();
        assert!(within <= took && took <= within + HEARTBEAT * 2, "{took:?}");
        cluster.start(NodeId(2)).await;
        cluster.start(NodeId(3)).await;
        patient.await.expect("a caller").expect("an acknowledgement");
        cluster.settled().await;
        for id in cluster.ids() {
            assert_eq!((cluster.journal(id).count("late"), cluster.journal(id).count("patient")), (0, 1));
        }
    });
}

#[test]
fn an_expired_command_is_started_by_no_node() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        cluster.settled().await;
        for id in cluster.ids() {
            let node = cluster.node(id);
            let (late, in_time) = tokio::join!(
                node.propose("late").within(Duration::ZERO),
                node.propose("in time").within(HEARTBEAT * 20)
            );
            assert_eq!(late, Err(ProposeError::DeadlinePassed));
            in_time.expect("an acknowledgement");
            let endless = node.propose("in time").within(Duration::MAX).await;
            endless.expect("a caller waits no longer than time can be told");
        }
        cluster.settled().await;
        for id in cluster.ids() {
            assert_eq!((cluster.journal(id).count("late"), cluster.journal(id).count("in time")), (0, 6));
        }
    });
}

#[test]
fn an_expired_command_of_a_session_is_started_by_no_node() {
    simulate(async {
        let cluster = Cluster::of_three(1).await;
        cluster.settled().await;
        let key = SessionKey::named(b"client").expect("a name");
        for (serial, id) in (1..).zip(cluster.ids()) {
            let node = cluster.node(id);
            let late = node.propose("late").by_session(&key, serial).within(Duration::ZERO).await;
            assert_eq!(late, Err(ProposeError::DeadlinePassed.into()));
            let in_time = node.propose("in time").by_session(&key, serial).within(HEARTBEAT * 20).await;
            let again = node.propose("late").by_session(&key, serial).within(HEARTBEAT * 20).await;
            assert_eq!(in_time.expect("it is applied"), again.expect("the first answer"));
        }
        cluster.settled().await;
        for id in cluster.ids() {
            assert_eq!((cluster.journal(id).count("late"), cluster.journal(id).count("in time")), (0, 3));
        }
    });
}

#[test]
fn the_time_left_travels_with_a_forwarded_command() {
    simulate(async {
        let (mut cluster, subject, leader) = (Cluster::vacant(Plan::default()), NodeId(1), NodeId(2));
        let mut puppet = Puppet::start(&cluster.network, leader, subject).await;
        cluster.start(subject).await;
        follow(&mut puppet).await;
        let within = Duration::from_millis(120);
        // A command that is late by the leader's clock alone goes there again with the time left. The
        // caller learns of its deadline once it has passed; after silence the outcome is unknown.
        for (is_answered, told) in [(true, ProposeError::DeadlinePassed), (false, ProposeError::OutcomeUnknown)] {
            let (node, began) = (cluster.node(subject).clone(), Instant::now());
            let proposing = tokio::task::spawn_local(async move { node.propose("command").within(within).await });
            let (request, waits_ms) = forwarded(&mut puppet).await;
            assert!((100..=120).contains(&waits_ms), "{waits_ms} ms");
            if is_answered {
                tokio::time::advance(Duration::from_millis(50)).await;
                puppet.say(Term(1), late(request));
                let (request, waits_ms) = forwarded(&mut puppet).await;
                assert!((50..=70).contains(&waits_ms), "{waits_ms} ms");
                tokio::time::sleep_until(began + within).await;
                puppet.say(Term(1), late(request));
            }
            assert_eq!(proposing.await.expect("a caller"), Err(told));
            let took = began.elapsed();
            assert!(took <= within + HEARTBEAT * 2, "{took:?}");
            follow(&mut puppet).await;
        }
        let node = cluster.node(subject).clone();
        let proposing = tokio::task::spawn_local(async move { node.propose("without a deadline").await });
        let (_, waits_ms) = forwarded(&mut puppet).await;
        assert!((4900..=5000).contains(&waits_ms), "{waits_ms} ms: it waits for its outcome no longer either");
        proposing.abort();
    });
}

#[test]
fn a_leader_does_not_begin_with_what_another_node_does_not_wait_for() {
    simulate(async {
        let mut cluster = Cluster::vacant(Plan::default());
        cluster.start(NodeId(1)).await;
        cluster.start(NodeId(3)).await;
        let leader = cluster.leader().await;
        let term = cluster.status(leader).term;
        let mut forwarder = Puppet::start(&cluster.network, NodeId(2), leader).await;
        let command = |request, length, waits_ms| ForwardedCommand { request, length, kind: Kind::Command, waits_ms };
        let commands = vec![command(1, 4, 0), command(2, 7, 5000)];
        forwarder.say(term, Body::Propose(Propose { commands, payloads: Bytes::from_static(b"latein time") }));
        let mut outcomes = Vec::new();
        while outcomes.len() < 2 {
            let more = forwarder.hear("an outcome", |message| match &message.body {
                Body::ProposeReply(reply) => Some(reply.outcomes.clone()),
                _ => None,
            });
            outcomes.extend(more.await);
        }
        outcomes.sort_by_key(|answered| answered.request);
        assert_eq!(outcomes[0], ForwardedOutcome { request: 1, outcome: ProposeOutcome::DeadlinePassed });
        let [_, ForwardedOutcome { request: 2, outcome: ProposeOutcome::Applied { .. } }] = outcomes[..] else {
            panic!("{outcomes:?}")
        };
        assert_eq!((cluster.journal(leader).count("late"), cluster.journal(leader).count("in time")), (0, 1));
    });
}

/// Makes the puppet lead, and the subject know it.
async fn follow(puppet: &mut Puppet) {
    puppet.say(Term(1), Body::Heartbeat(Heartbeat { round: 1, commit: Index(0) }));
    puppet.hear("a reply", |message| matches!(message.body, Body::HeartbeatReply(_)).then_some(())).await;
}

/// The leader's answer that the deadline of a command has passed.
fn late(request: u64) -> Body {
    let outcomes = vec![ForwardedOutcome { request, outcome: ProposeOutcome::DeadlinePassed }];
    Body::ProposeReply(ProposeReply { outcomes, replies: Bytes::new() })
}

/// The number of a forwarded command, and the milliseconds that its caller waits.
async fn forwarded(puppet: &mut Puppet) -> (u64, u32) {
    let first = |message: &quorate_raft::Message| match &message.body {
        Body::Propose(propose) => propose.commands.first().map(|command| (command.request, command.waits_ms)),
        _ => None,
    };
    puppet.hear("a forwarded command", first).await
}
