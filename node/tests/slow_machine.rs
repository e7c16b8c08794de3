//! Slow state machines: a slow one is waited for, and a stuck one costs its node the leadership.

mod support;

use bytes::Bytes;
use futures_util::future::join_all;
use quorate::{At, Node, NodeId, NodeRole, StateMachine, Timing, storage::Memory, transport::MemoryNetwork};
use std::time::Duration;
use support::{CLUSTER, run, soon};

/// A state machine that takes the milliseconds that a command says.
struct Slow;

impl StateMachine for Slow {
    fn apply(&mut self, _: &At, command: &[u8]) -> Bytes {
        let takes = std::str::from_utf8(command).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        std::thread::sleep(Duration::from_millis(takes));
        Bytes::new()
    }
}

/// A single voter on threads of its own: no other node can take its leadership.
async fn alone() -> Node<Slow> {
    let network = MemoryNetwork::new();
    let timing = Timing::default().with_stall_limit(Duration::from_millis(600));
    let builder = Node::builder(NodeId(1), CLUSTER).voters([(NodeId(1), "")]).timing(timing);
    let node = builder.network(network.endpoint(NodeId(1))).storage(Memory::new()).start(Slow).await.expect("a node");
    let mut status = node.status();
    soon("a leader", status.wait_for(|status| status.role == NodeRole::Leader)).await.expect("a live node");
    node
}

#[test]
fn a_slow_state_machine_is_no_stuck_one_however_much_it_has_to_do() {
    run(async {
        let node = alone().await;
        let term = node.status().borrow().term;
        // One batch, which takes longer than the limit to apply.
        let answers = soon("all answers", join_all((0..400).map(|_| node.propose("3")))).await;
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(node.status().borrow().term, term, "it led all the time");
        node.shutdown().await;
    });
}

#[test]
fn a_leader_whose_state_machine_is_stuck_steps_down() {
    run(async {
        let node = alone().await;
        let term = node.status().borrow().term;
        let mut status = node.status();
        let stuck = node.propose("2500");
        let steps_down = soon("it to step down", status.wait_for(|status| status.role != NodeRole::Leader));
        let (answer, stepped_down) = tokio::join!(stuck, steps_down);
        stepped_down.expect("a live node");
        assert!(answer.is_ok(), "what is applied is applied: {answer:?}");
        let mut status = node.status();
        let leads_again = status.wait_for(|status| status.role == NodeRole::Leader && status.term > term);
        soon("it to lead again", leads_again).await.expect("a live node");
        node.shutdown().await;
    });
}
