//! The service on three nodes in one process: no disk, no sockets, simulated time.

use quorate::{Node, NodeId, ServiceNode, storage::Memory, transport::MemoryNetwork};
use reminders::{Command, Pager, Reminders, Reply};
use std::time::Duration;
use tokio::{task::LocalSet, time::sleep};

#[tokio::test(start_paused = true)]
async fn a_reminder_comes_back_once_on_each_node_although_its_leader_is_lost() {
    LocalSet::new().run_until(test()).await;
}

async fn test() {
    let nodes = three().await;
    let mut watches = Vec::new();
    for node in &nodes {
        watches.push(node.watch("reminders").await.expect("a watch"));
    }
    for (seconds, text) in [(60, "tea"), (20, "eggs"), (90, "never")] {
        let text = text.to_owned();
        nodes[0].call(Command::Add { seconds, text }).await.expect("it is applied");
    }
    assert_eq!(nodes[1].call(Command::Cancel(3)).await.expect("it is applied").reply, Reply::Cancelled);
    assert_eq!(nodes[2].query(()).await.expect("it is served").value.len(), 2);

    // Lose the leader while both timers are pending.
    let leader = nodes[0].status().borrow().leader.expect("a leader");
    let lost = nodes.iter().position(|node| node.status().borrow().node == leader).expect("one of the three");
    nodes[lost].shutdown().await;

    let mut pager = Pager::default();
    for nth in (0..3).filter(|nth| *nth != lost) {
        let mut texts = Vec::new();
        for _ in 0..2 {
            let changes = watches[nth].next().await.expect("an event");
            let (_, reminded) = &changes.events[0];
            texts.push((reminded.text.clone(), pager.show(reminded)));
        }
        let is_first = (0..nth).all(|other| other == lost);
        assert_eq!(texts, [("eggs".to_owned(), is_first), ("tea".to_owned(), is_first)], "the pager shows each once");
    }
    sleep(Duration::from_secs(120)).await;
    let left = nodes[(lost + 1) % 3].query(()).await.expect("it is served");
    assert_eq!(left.value, [], "a cancelled one does not fire");
}

async fn three() -> Vec<ServiceNode<Reminders>> {
    let (network, ids, mut nodes) = (MemoryNetwork::new(), [1, 2, 3].map(NodeId), Vec::new());
    for id in ids {
        let node = Node::builder(id, "reminders").voters(ids.map(|id| (id, "")));
        let node = node.network(network.endpoint(id)).storage(Memory::new()).serve(Reminders::default);
        nodes.push(node.start_local().await.expect("a node"));
    }
    nodes
}
