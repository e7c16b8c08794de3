//! A cluster of processes on loopback: this one runs node 1, which leads, and children
//! run the others.

use crate::workload::{Failed, Sink};
use quorate::{
    Builder, Node, NodeId, StateMachine, Timing,
    metrics::Metrics,
    storage::Wal,
    transport::{Quic, QuicOptions, certificates::Authority},
};
use quorate_ports::Port;
use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// The command with which a child runs a member with the same election timeouts as all others.
pub(crate) const EQUAL_MEMBER: &str = "equal-member";
/// The node in this process.
pub(crate) const LEADER: u64 = 1;
const CLUSTER: &str = "bench";
/// The interval at which members check for new reports.
pub(crate) const TOLD_EVERY: Duration = Duration::from_millis(200);
/// The time limit of every step.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node that listens at its own address of the list, and dials the others. Its log is in `dir`.
/// The children's election timeouts are so long that node 1 leads.
pub(crate) fn builder(id: u64, dir: &Path, addresses: &[SocketAddr]) -> Result<Builder, Failed> {
    let listen = addresses[usize::try_from(id)? - 1];
    let file = |name: String| dir.join(name);
    let quic =
        QuicOptions::new(listen, file("ca.pem".into()), file(format!("node-{id}.pem")), file(format!("node-{id}.key")));
    let mut timing = Timing::default();
    if id != LEADER {
        timing.election_timeout = (Duration::from_secs(5), Duration::from_secs(10));
        // The default depends on the election timeout, and a node that stops as the last leader
        // waits this long.
        timing.leader_wait = Duration::from_secs(1);
    }
    Ok(Node::builder(NodeId(id), CLUSTER)
        .voters((1..).zip(addresses).map(|(id, address)| (NodeId(id), address.to_string())))
        .network(Quic::new(quic)?)
        .storage(Wal::at(file(format!("data-{id}"))))
        .timing(timing))
}

/// Starts a node with default timing, so that leadership can move, and with default snapshots, so
/// that its log does not fill the disk.
pub(crate) async fn start_equal(
    id: u64,
    dir: &Path,
    addresses: &[SocketAddr],
    metrics: &Metrics,
) -> Result<Node<Sink>, Failed> {
    Ok(builder(id, dir, addresses)?.timing(Timing::default()).metrics(metrics).start(Sink::default()).await?)
}

/// Makes `id` the leader, whichever node was elected, and waits until this node knows it.
pub(crate) async fn until_led_by(node: &Node<Sink>, id: NodeId) -> Result<(), Failed> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if node.status().borrow().leader == Some(id) && node.propose("first").await.is_ok() {
            return Ok(());
        }
        // Refused while no leader is known, or while `id` lags; then retried.
        let _ = node.transfer(Some(id)).await;
        sleep(Duration::from_millis(100)).await;
    }
    Err(format!("node {id} did not become the leader within {PATIENCE:?}").into())
}

/// A child process that runs a node. It ends when its standard input closes, so it also ends when
/// this process dies.
pub(crate) struct Member(Child);

impl Member {
    /// Starts this binary with the arguments `command ID DIR ADDRESS...`.
    pub(crate) fn start(
        command: &str,
        id: u64,
        dir: &Path,
        addresses: &[SocketAddr],
        out: Stdio,
    ) -> Result<Self, Failed> {
        let child = Command::new(std::env::current_exe()?)
            .args([command, &id.to_string()])
            .arg(dir)
            .args(addresses.iter().map(SocketAddr::to_string))
            .stdin(Stdio::piped())
            .stdout(out)
            .spawn()?;
        Ok(Self(child))
    }

    /// The child's standard output, if it is a pipe; only once.
    pub(crate) fn take_output(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Kills the child with SIGKILL, and waits until it has ended.
    pub(crate) fn kill(mut self) -> Result<(), Failed> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // The child may have died before, which the measurement has noticed.
        let _ = self.0.wait();
    }
}

/// Runs a member until the pipe from the parent closes: `ID DIR ADDRESS...`. `tell` runs at the
/// same time and reports.
pub(crate) fn run_member<M: StateMachine>(
    place: &[&str],
    start: impl AsyncFnOnce(u64, &Path, &[SocketAddr]) -> Result<Node<M>, Failed>,
    tell: impl AsyncFnOnce(&Node<M>) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let [id, dir, addresses @ ..] = place else { return Err(crate::USAGE.into()) };
    let addresses: Result<Vec<SocketAddr>, _> = addresses.iter().map(|address| address.parse()).collect();
    let (id, addresses) = (id.parse()?, addresses?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = start(id, Path::new(dir), &addresses).await?;
        tokio::select! {
            failure = node.failed() => Err(failure.into()),
            () = until_parent_leaves() => {
                node.shutdown().await;
                Ok(())
            }
            told = tell(&node) => told,
        }
    })
}

/// Runs a member as [`start_equal`] does. It prints the number of elections it has begun
/// after each change.
pub(crate) fn run_equal_member(place: &[&str]) -> Result<(), Failed> {
    let metrics = Metrics::new();
    let tell = async |_: &Node<Sink>| {
        let mut told = 0;
        loop {
            let began = elections_begun(&metrics);
            if began != told {
                println!("{began}");
                told = began;
            }
            sleep(TOLD_EVERY).await;
        }
    };
    run_member(place, async |id, dir, addresses| start_equal(id, dir, addresses, &metrics).await, tell)
}

/// The number of elections that the nodes of this process have begun, pre-votes included.
pub(crate) fn elections_begun(metrics: &Metrics) -> u64 {
    let page = metrics.render();
    let lines = page.lines().filter(|line| line.starts_with("quorate_elections_started_total{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// In a child: waits until the parent closes the pipe.
async fn until_parent_leaves() {
    let (mut parent, mut nowhere) = (tokio::io::stdin(), tokio::io::sink());
    let _ = tokio::io::copy(&mut parent, &mut nowhere).await;
}

pub(crate) fn make_certificates(dir: &Path, nodes: usize) -> Result<(), Failed> {
    let authority = Authority::create(CLUSTER)?;
    authority.write(dir)?;
    for id in 1..=nodes as u64 {
        authority.issue_node(NodeId(id), &[])?.write(dir, &format!("node-{id}"))?;
    }
    Ok(())
}

/// Ports, reserved until they are dropped, and their addresses: all members must know all addresses
/// before the first one starts.
pub(crate) fn reserve(count: usize) -> Result<(Vec<Port>, Vec<SocketAddr>), Failed> {
    let ports = quorate_ports::reserve(count)?;
    let addresses = ports.iter().map(Port::address).collect();
    Ok((ports, addresses))
}
