//! The handle of a node in all places of user code: other threads, other runtimes, none.

mod support;

use quorate::{
    Consistency, Index, Limits, Node, NodeId, Term, Timing, metrics::Metrics, storage::Memory, transport::MemoryNetwork,
};
use quorate_raft::{Body, Heartbeat};
use quorate_transport_testing::FaultNetwork;
use support::{CLUSTER, Journal, Puppet, simulate, soon};

#[test]
fn a_handle_is_send_sync_and_clone() {
    fn goes_anywhere<T: Send + Sync + Clone + 'static>() {}
    goes_anywhere::<Node<Journal>>();
    fn can_be_awaited_anywhere<F: Future + Send>(_: &F) {}
    let _never_called = |node: Node<Journal>| {
        can_be_awaited_anywhere(&node.propose("command"));
        can_be_awaited_anywhere(&node.read(Consistency::Linearizable, |_| ()));
        can_be_awaited_anywhere(&node.shutdown());
        can_be_awaited_anywhere(&node.failed());
    };
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_plain_main() -> Vec<u64> {
    let (network, ids) = (MemoryNetwork::new(), [1, 2, 3].map(NodeId));
    let mut nodes = Vec::new();
    for id in ids {
        let builder = Node::builder(id, CLUSTER).voters(ids.map(|id| (id, "")));
        let builder = builder.network(network.endpoint(id)).storage(Memory::new()).timing(support::relaxed());
        nodes.push(builder.start(Journal::default()).await.expect("a node"));
    }
    let callers = nodes.iter().cloned().map(|node| {
        tokio::spawn(async move {
            let applied = node.propose(format!("from {}", node.id())).await.expect("an acknowledgement");
            let read = node.read(Consistency::Linearizable, |journal| journal.entries().len()).await;
            assert!(read.expect("a read").index >= applied.index);
            applied.index.0
        })
    });
    let mut indexes = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        indexes.push(soon("an answer", caller).await.expect("a caller"));
    }
    for node in nodes {
        soon("the end", node.shutdown()).await;
    }
    indexes
}

#[test]
fn nodes_run_under_a_plain_tokio_main() {
    let mut indexes = in_a_plain_main();
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), 3, "each command has an index of its own");
}

/// A handle needs no runtime of a certain kind: this one has no timers or sockets.
#[test]
fn a_handle_works_where_no_tokio_runtime_is() {
    let network = MemoryNetwork::new();
    let builder = Node::builder(NodeId(1), CLUSTER).voters([(NodeId(1), "")]);
    let starting = builder.network(network.endpoint(NodeId(1))).storage(Memory::new()).start(Journal::default());
    let node = block_on(starting).expect("a node");
    let applied = block_on(node.propose("command")).expect("an acknowledgement");
    assert_eq!(applied.reply, "1");
    block_on(node.shutdown());
}

/// A minimal executor of futures.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::yield_now(),
        }
    }
}

/// A heartbeat with a high term from a node that holds a certificate of the cluster and is
/// not a member.
#[test]
fn messages_of_a_stranger_count_for_nothing() {
    simulate(async {
        let network = FaultNetwork::new(0);
        let metrics = Metrics::new();
        let builder = Node::builder(NodeId(1), CLUSTER).voters([(NodeId(1), "")]).metrics(&metrics);
        let node = builder.network(network.endpoint(NodeId(1))).storage(Memory::new());
        let node = node.start_local(Journal::default()).await.expect("a node");
        let mut status = node.status();
        let led =
            soon("a leader", status.wait_for(|status| status.leader.is_some())).await.expect("a live node").clone();

        let stranger = Puppet::start(&network, NodeId(9), NodeId(1)).await;
        let heartbeat = Heartbeat { round: 1, commit: Index(0) };
        stranger.say(Term(led.term.0 + 100), Body::Heartbeat(heartbeat));
        soon("a count", async {
            while !metrics.render().contains(r#"reason="stranger"} 1"#) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        })
        .await;
        assert_eq!(node.status().borrow().term, led.term);
        assert_eq!(node.status().borrow().leader, Some(NodeId(1)));
    });
}

#[test]
fn limits_that_can_not_work_are_refused_by_name() {
    simulate(async {
        let refused = |limits| async move {
            let network = MemoryNetwork::new();
            let builder = Node::builder(NodeId(1), CLUSTER).voters([(NodeId(1), "")]).limits(limits);
            let builder = builder.network(network.endpoint(NodeId(1))).storage(Memory::new());
            builder.start_local(Journal::default()).await.expect_err("a refusal").to_string()
        };
        let larger_than_a_frame = Limits::default().with_max_command_bytes(1 << 30);
        assert!(refused(larger_than_a_frame).await.contains("max_command_bytes"));
        let nothing_at_all = Limits::default().with_max_in_flight_proposals(0);
        assert!(refused(nothing_at_all).await.contains("max_in_flight_proposals"));
    });
}

#[test]
fn a_node_that_polls_busily_serves_and_comes_to_rest() {
    simulate(async {
        let network = MemoryNetwork::new();
        let timing = Timing::default().with_busy_poll(std::time::Duration::from_millis(1));
        let builder = Node::builder(NodeId(1), CLUSTER).voters([(NodeId(1), "")]).timing(timing);
        let builder = builder.network(network.endpoint(NodeId(1))).storage(Memory::new());
        let node = builder.start_local(Journal::default()).await.expect("a node");
        for _ in 0..3 {
            soon("an answer", node.propose("command")).await.expect("an acknowledgement");
            // Simulated time passes only while no task is busy.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    });
}
