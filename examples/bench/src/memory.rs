//! Three nodes in one process, with logs and network in memory: everything except disk and wire.
//!
//! All actors of all nodes share one thread; the clients have another.

use crate::{
    leadership::until_led_by,
    workload::{Failed, Load, PATIENCE, Sink, keep_the_log, measure, within},
};
use quorate::{Limits, Node, NodeId, Timing, storage::Memory, transport::MemoryNetwork};
use std::{sync::mpsc, time::Duration};
use tokio::{runtime, sync::oneshot, task::LocalSet};

const NODES: u64 = 3;
/// The servers have their own processor here; with one proposal in flight, their wake-ups would
/// dominate the time.
const BUSY_POLL: Duration = Duration::from_micros(100);

/// Runs the measurement and prints its lines.
pub(crate) fn run(load: &Load) -> Result<(), Failed> {
    let limits = load.limits()?;
    let (started, starting) = mpsc::channel();
    let (finish, finished) = oneshot::channel::<()>();
    let servers = std::thread::spawn(move || -> Result<(), Failed> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async move {
            let mut nodes = Vec::new();
            let network = MemoryNetwork::by_value();
            for id in 1..=NODES {
                nodes.push(start(id, &network, limits).await?);
            }
            started.send(leader_of(&nodes).await?)?;
            // Ends with the measurement, whatever its result.
            let _ = finished.await;
            let shut_down = async {
                for node in &nodes {
                    node.shutdown().await;
                }
            };
            within(PATIENCE, "the nodes' shutdown", shut_down).await
        })
    });
    let outcome = match starting.recv() {
        Ok(leader) => {
            let clients = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            clients.block_on(measure(&leader, load, NODES, || Ok(())))
        }
        Err(_) => Ok(()), // the servers report the error
    };
    drop(finish);
    servers.join().map_err(|_| "the servers' thread panicked")??;
    outcome
}

async fn start(id: u64, network: &MemoryNetwork, limits: Limits) -> Result<Node<Sink>, Failed> {
    let node = Node::builder(NodeId(id), "bench")
        .voters((1..=NODES).map(|id| (NodeId(id), String::new())))
        .network(network.endpoint(NodeId(id)))
        .storage(Memory::new())
        .timing(Timing::default().with_busy_poll(BUSY_POLL))
        .limits(limits)
        .snapshots(keep_the_log())
        .start_local(Sink::default())
        .await?;
    Ok(node)
}

/// Waits until a node leads, and returns it.
async fn leader_of(nodes: &[Node<Sink>]) -> Result<Node<Sink>, Failed> {
    let mut status = nodes[0].status();
    let known = |status: &quorate::Status| status.leader.is_some();
    let leader = within(PATIENCE, "the election", status.wait_for(known)).await??.leader;
    let leader = nodes.iter().find(|node| Some(node.id()) == leader).ok_or("no node leads")?;
    until_led_by(leader, leader.id()).await?;
    Ok(leader.clone())
}
