//! A replicated counter: three nodes in one process, one increment, one read.
use quorate::{At, Consistency, Node, NodeId, StateMachine, storage::Memory, transport::MemoryNetwork};

struct Counter(u64);

impl StateMachine for Counter {
    fn apply(&mut self, _: &At, _command: &[u8]) -> bytes::Bytes {
        self.0 += 1;
        self.0.to_string().into()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (network, ids) = (MemoryNetwork::new(), [NodeId(1), NodeId(2), NodeId(3)]);
    let mut nodes = Vec::new();
    for id in ids {
        let node = Node::builder(id, "counter")
            .voters(ids.map(|id| (id, "")))
            .network(network.endpoint(id))
            .storage(Memory::new());
        nodes.push(node.start(Counter(0)).await?);
    }
    let applied = nodes[0].propose("increment").await?;
    let read = nodes[2].read(Consistency::Linearizable, |counter| counter.0).await?;
    println!("entry {} made the counter {}", applied.index, read.value);
    Ok(())
}
