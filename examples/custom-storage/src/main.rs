//! The key-value server of `examples/kv`, three nodes in one process, with [`FileLog`], then with
//! [`RedbLog`], instead of the write-ahead log: writes through HTTP, ends every node, starts them
//! again on the same files, and reads all values back.

use quorate::{Limits, Node, NodeId, ServiceNode, metrics::Metrics, storage::StorageHandle, transport::MemoryNetwork};
use quorate_custom_storage::{FileLog, RedbLog};
use quorate_kv::{
    client::{Client, ReadMode, Trust},
    config,
    descriptors::ConnectionLimit,
    http::{
        Api,
        access::Access,
        listen::{HttpListener, ListenerOptions},
    },
    machine::Kv,
};
use std::{error::Error, path::Path, time::Duration};
use tokio::{sync::oneshot, task::JoinHandle};

type Outcome<T> = Result<T, Box<dyn Error>>;

const WRITES: usize = 100;
const MEMBERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// Makes the storage of a node in a directory.
type Storage = fn(&Path, NodeId) -> StorageHandle;

#[tokio::main]
async fn main() -> Outcome<()> {
    run("FileLog", |dir, id| FileLog::at(dir.join(id.to_string()))).await?;
    run("RedbLog", |dir, id| RedbLog::at(dir.join(format!("{id}.redb")))).await
}

async fn run(name: &str, storage: Storage) -> Outcome<()> {
    let dir = tempfile::tempdir()?;

    let servers = start_all(dir.path(), storage).await?;
    let mut client = client(&servers)?;
    for number in 0..WRITES {
        client.put(&format!("key-{number}"), format!("value {number}")).await?;
    }
    println!("{name}: {WRITES} writes are on {} nodes", servers.len());
    stop_all(servers).await;

    let servers = start_all(dir.path(), storage).await?;
    let mut client = self::client(&servers)?;
    for number in 0..WRITES {
        let read = client.get(&format!("key-{number}"), ReadMode::Linearizable).await?;
        if read.value.as_deref() != Some(format!("value {number}").as_bytes()) {
            return Err(format!("key-{number} was acknowledged and is {:?} after the restart", read.value).into());
        }
    }
    println!("{name}: after a restart of every node all {WRITES} are there");
    stop_all(servers).await;
    Ok(())
}

/// A node and its HTTP interface.
struct Server {
    node: ServiceNode<Kv>,
    url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start(id: NodeId, network: &MemoryNetwork, storage: StorageHandle) -> Outcome<Self> {
        let (limits, metrics) = (config::Limits::default(), Metrics::new());
        let node = Node::builder(id, "custom-storage")
            .voters(MEMBERS.map(|member| (member, "")))
            .network(network.endpoint(id))
            .storage(storage)
            .limits(Limits::default().with_max_command_bytes(limits.command_bytes_max()))
            .metrics(&metrics)
            .serve(Kv::default)
            .start()
            .await?;
        let http = HttpListener::bind("http", ([127, 0, 0, 1], 0).into()).await?;
        let access = Access::unrestricted("custom-storage");
        let url = http.url(&access)?;
        let connections = ConnectionLimit::claim(limits.max_http_connections);
        let options = ListenerOptions { connections, access, metrics: metrics.node(id.0), open: Default::default() };
        let router = Api::new(node.clone(), metrics, &limits).for_connections(connections).router();
        let (stop, stopped) = oneshot::channel();
        let stopped = async { stopped.await.unwrap_or_default() };
        let serving = tokio::spawn(http.serve(router, options, stopped, Duration::from_secs(3)));
        Ok(Self { node, url, stop, serving })
    }
}

async fn start_all(dir: &Path, storage: Storage) -> Outcome<Vec<Server>> {
    let (network, mut servers) = (MemoryNetwork::new(), Vec::new());
    for id in MEMBERS {
        servers.push(Server::start(id, &network, storage(dir, id)).await?);
    }
    Ok(servers)
}

/// Ends the nodes: when it returns, their files are unlocked.
async fn stop_all(servers: Vec<Server>) {
    for Server { node, stop, serving, .. } in servers {
        drop(stop);
        // A panic of the server was reported; its node is ended all the same.
        let _ = serving.await;
        node.shutdown().await;
    }
}

fn client(servers: &[Server]) -> Outcome<Client> {
    let urls: Vec<String> = servers.iter().map(|server| server.url.clone()).collect();
    Ok(Client::new(&urls, &Trust::none())?)
}
