//! Three processes on loopback: QUIC with mutual TLS, write-ahead logs with `fdatasync`.
//!
//! This process runs node 1 and the clients; two children run the others. The children's election timeouts are so long that
//! node 1 leads.

use crate::workload::{Failed, Settings, Sink, measure, until_leading};
use quorate::{
    Limits, Node, NodeId, Timing,
    storage::Wal,
    transport::{Quic, QuicOptions, certificates::Authority},
};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The command under which a child runs a member.
pub(crate) const MEMBER: &str = "member";
const CLUSTER: &str = "bench";
const LEADER: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures and prints.
pub(crate) fn run(settings: &Settings) -> Result<(), Failed> {
    let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
    let addresses = free_addresses(3)?;
    make_certificates(dir.path(), addresses.len())?;
    let members: Result<Vec<Member>, Failed> =
        (2..=addresses.len() as u64).map(|id| Member::start(id, dir.path(), &addresses)).collect();
    let _members = members?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let node = start(LEADER, dir.path(), &addresses, settings.in_flight_max()).await?;
        until_leading(&node, PATIENCE).await?;
        let outcome = measure(&node, settings).await;
        node.shutdown().await;
        outcome
    })
}

/// Runs one of the other members until the pipe from the parent closes: `ID DIR ADDRESS...`.
pub(crate) fn run_member(place: &[&str]) -> Result<(), Failed> {
    let [id, dir, addresses @ ..] = place else { return Err(crate::USAGE.into()) };
    let addresses: Result<Vec<SocketAddr>, _> = addresses.iter().map(|address| address.parse()).collect();
    let (id, addresses) = (id.parse()?, addresses?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = start(id, Path::new(dir), &addresses, 1).await?;
        let (mut parent, mut nowhere) = (tokio::io::stdin(), tokio::io::sink());
        tokio::select! {
            failure = node.failed() => Err(failure.into()),
            _ = tokio::io::copy(&mut parent, &mut nowhere) => {
                node.shutdown().await;
                Ok(())
            }
        }
    })
}

async fn start(id: u64, dir: &Path, addresses: &[SocketAddr], in_flight_max: usize) -> Result<Node<Sink>, Failed> {
    let listen = addresses[usize::try_from(id)? - 1];
    let file = |name: String| dir.join(name);
    let quic =
        QuicOptions::new(listen, file("ca.pem".into()), file(format!("node-{id}.pem")), file(format!("node-{id}.key")));
    let mut timing = Timing::default();
    if id != LEADER {
        timing.election_timeout = (Duration::from_secs(5), Duration::from_secs(10));
    }
    let node = Node::builder(NodeId(id), CLUSTER)
        .voters((1..).zip(addresses).map(|(id, address)| (NodeId(id), address.to_string())))
        .network(Quic::new(quic)?)
        .storage(Wal::at(file(format!("data-{id}"))))
        .timing(timing)
        .limits(Limits { max_in_flight_proposals: in_flight_max, ..Limits::default() })
        .start(Sink::default())
        .await?;
    Ok(node)
}

/// A child process. It ends when its standard input closes, so also when this process dies.
struct Member(Child);

impl Member {
    fn start(id: u64, dir: &Path, addresses: &[SocketAddr]) -> Result<Self, Failed> {
        let child = Command::new(std::env::current_exe()?)
            .args([MEMBER, &id.to_string()])
            .arg(dir)
            .args(addresses.iter().map(SocketAddr::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It may have died before, which the measurement has noticed.
        let _ = self.0.wait();
    }
}

fn make_certificates(dir: &Path, nodes: usize) -> Result<(), Failed> {
    let authority = Authority::create(CLUSTER)?;
    authority.write(dir)?;
    for id in 1..=nodes as u64 {
        authority.issue_node(NodeId(id), &[])?.write(dir, &format!("node-{id}"))?;
    }
    Ok(())
}

/// Ports that were free a moment ago: the members must know each other's before any of them is started.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, Failed> {
    let sockets: Result<Vec<_>, _> = (0..count).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    Ok(sockets?.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>()?)
}
