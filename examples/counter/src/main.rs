//! A replicated counter: three nodes in one process, one call, one query.
use quorate::{At, Context, Node, NodeId, Service, ServiceNode, storage::Memory, transport::MemoryNetwork};
use serde::{Deserialize, Serialize};

#[derive(Clone, Default, Serialize, Deserialize)]
struct Counter(u64);

impl Service for Counter {
    quorate::types!(u64 => u64, () => u64);

    fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 {
        self.0 += add;
        self.0
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.0
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let nodes = three().await?;
    let applied = nodes[0].call(3).await?;
    println!("entry {} made the counter {}", applied.index, nodes[2].query(()).await?.value);
    Ok(())
}

async fn three() -> Result<Vec<ServiceNode<Counter>>, quorate::StartError> {
    let (network, ids, mut nodes) = (MemoryNetwork::new(), [1, 2, 3].map(NodeId), Vec::new());
    for id in ids {
        let node = Node::builder(id, "counter").voters(ids.map(|id| (id, "")));
        let node = node.network(network.endpoint(id)).storage(Memory::new()).serve(Counter::default);
        nodes.push(node.start().await?);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_trial::Trial;

    #[test]
    fn the_counter_keeps_its_promises_under_faults() {
        let counts = |sum: &mut u64, add: &u64, reply: &u64, _: &At| {
            *sum += add;
            if reply == sum { Ok(()) } else { Err(format!("{reply} instead of {sum}")) }
        };
        Trial::new(Counter::default).commands(|rng, _| rng.below(10)).queries(|_| ()).model(|| 0, counts).run();
    }

    #[tokio::test]
    async fn every_node_counts_what_any_node_was_told() -> Result<(), Box<dyn std::error::Error>> {
        let nodes = three().await?;
        for (node, add) in nodes.iter().zip([3, 4, 5]) {
            node.call(add).await?;
        }
        for node in &nodes {
            assert_eq!(node.query(()).await?.value, 12);
        }
        Ok(())
    }
}
