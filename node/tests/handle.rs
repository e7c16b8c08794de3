//! The handle goes wherever a user's code goes.

mod support;

use quorate::{Consistency, Node, NodeId, storage::Memory, transport::MemoryNetwork};
use support::{CLUSTER, Journal, soon};

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
    let (network, ids) = (MemoryNetwork::new(0), [1, 2, 3].map(NodeId));
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

/// A handle needs no runtime of its own kind: here, none is there that could run timers or sockets.
#[test]
fn a_handle_works_where_no_tokio_runtime_is() {
    let network = MemoryNetwork::new(0);
    let builder = Node::builder(NodeId(1), CLUSTER).voters([(NodeId(1), "")]);
    let starting = builder.network(network.endpoint(NodeId(1))).storage(Memory::new()).start(Journal::default());
    let node = block_on(starting).expect("a node");
    let applied = block_on(node.propose("command")).expect("an acknowledgement");
    assert_eq!(applied.reply, "1");
    block_on(node.shutdown());
}

/// The least that can run a future.
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
