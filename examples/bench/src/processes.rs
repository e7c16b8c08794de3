//! A cluster of processes on loopback: this one runs node 1, which leads, and children
//! run the others.

use crate::workload::{Failed, PATIENCE, Sink, within};
use quorate::{
    Builder, Node, NodeId, StateMachine,
    metrics::Metrics,
    storage::Wal,
    transport::{Quic, QuicOptions, certificates::Authority},
};
use quorate_ports::Port;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// The command with which a child runs a member with default snapshots.
pub(crate) const EQUAL_MEMBER: &str = "equal-member";
/// The node in this process.
pub(crate) const LEADER: u64 = 1;
const CLUSTER: &str = "bench";
/// The interval at which members check for new reports.
pub(crate) const TOLD_EVERY: Duration = Duration::from_millis(200);
/// The interval at which a child that should end is looked at.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(5);

/// The member that a child runs.
#[derive(clap::Args)]
pub(crate) struct Place {
    id: u64,
    dir: PathBuf,
    /// The addresses of all members, in the order of their ids.
    addresses: Vec<SocketAddr>,
}

/// A node that listens at its own address of the list, and dials the others. Its log is in `dir`.
pub(crate) fn builder(id: u64, dir: &Path, addresses: &[SocketAddr]) -> Result<Builder, Failed> {
    let place = usize::try_from(id)?.checked_sub(1);
    let listen = *place.and_then(|place| addresses.get(place)).ok_or("a member has no address")?;
    let file = |name: String| dir.join(name);
    let quic =
        QuicOptions::new(listen, file("ca.pem".into()), file(format!("node-{id}.pem")), file(format!("node-{id}.key")));
    Ok(Node::builder(NodeId(id), CLUSTER)
        .voters((1..).zip(addresses).map(|(id, address)| (NodeId(id), address.to_string())))
        .network(Quic::new(quic)?)
        .storage(Wal::at(file(format!("data-{id}")))))
}

/// Starts a node with default snapshots, so that its log does not fill the disk.
pub(crate) async fn start_equal(
    id: u64,
    dir: &Path,
    addresses: &[SocketAddr],
    metrics: &Metrics,
) -> Result<Node<Sink>, Failed> {
    Ok(builder(id, dir, addresses)?.metrics(metrics).start(Sink::default()).await?)
}

/// Stops this process's node.
pub(crate) async fn shut_down<M: StateMachine>(node: &Node<M>) -> Result<(), Failed> {
    within(PATIENCE, "the node's shutdown", node.shutdown()).await
}

/// A child process that runs a node. It ends when its standard input closes, so it also ends when
/// this process dies.
pub(crate) struct Member {
    id: u64,
    child: Child,
}

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
        Ok(Self { id, child })
    }

    /// The child's standard output, if it is a pipe; only once.
    pub(crate) fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the child with SIGKILL, and waits until it has ended.
    pub(crate) fn kill(mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// An error if the child has ended by itself: the figures would be of a smaller cluster.
    fn check(&mut self) -> Result<(), Failed> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("node {} ended during the measurement: {status}", self.id).into()),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            // The child may have died before, which the measurement has noticed.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(LOOKED_AT_EVERY);
        }
        eprintln!("{}: node {} did not end within {PATIENCE:?} and is killed", crate::PROGRAM, self.id);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An error if a member has ended.
pub(crate) fn check<'a>(members: impl IntoIterator<Item = &'a mut Member>) -> Result<(), Failed> {
    members.into_iter().try_for_each(Member::check)
}

/// Runs a member until the pipe from the parent closes. `tell` runs at the same time and reports.
pub(crate) fn run_member<M: StateMachine>(
    place: &Place,
    start: impl AsyncFnOnce(u64, &Path, &[SocketAddr]) -> Result<Node<M>, Failed>,
    tell: impl AsyncFnOnce(&Node<M>) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = start(place.id, &place.dir, &place.addresses).await?;
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
pub(crate) fn run_equal_member(place: &Place) -> Result<(), Failed> {
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
