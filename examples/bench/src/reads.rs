//! All kinds of reads, on a leader and on a follower: three processes on loopback, QUIC with mutual
//! TLS, write-ahead logs.
//!
//! This process runs node 1 and the clients, twice: first with node 1 as the leader, then with a
//! child as the leader. There are no writes during the measurement. An output line has the mode,
//! the role of the node, whether its state machine offers views, and the figures.

use crate::{
    leadership::until_led_by,
    processes::{self, LEADER, Member, Place, builder, make_certificates, reserve, shut_down},
    workload::{Failed, Load, PATIENCE, Request, measured, say, within},
};
use bytes::Bytes;
use quorate::{At, Consistency, Limits, Node, NodeId, StateMachine, View};
use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

/// The command with which a child runs a member.
pub(crate) const MEMBER: &str = "reads-member";
/// The child that leads while this process's node follows.
const OTHER: u64 = 2;
const MODES: [(&str, Consistency); 4] = [
    ("linearizable", Consistency::Linearizable),
    ("lease", Consistency::Lease),
    ("bounded", Consistency::Bounded { max_age: Some(Duration::from_millis(100)), max_entries: None }),
    ("local", Consistency::Local),
];

/// Runs the measurement and prints its lines.
pub(crate) fn run(with_views: bool, load: &Load) -> Result<(), Failed> {
    let limits = load.limits()?;
    for (on, leader) in [("leader", NodeId(LEADER)), ("follower", NodeId(OTHER))] {
        let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
        let (_reserved, addresses) = reserve(3)?;
        make_certificates(dir.path(), addresses.len())?;
        let start_member = |id| Member::start(MEMBER, id, dir.path(), &addresses, Stdio::null());
        let mut members = [start_member(OTHER)?, start_member(3)?];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let node = start(LEADER, dir.path(), &addresses, limits, with_views).await?;
            let outcome = measure((&node, with_views), load, on, leader, &mut members).await;
            shut_down(&node).await?;
            outcome
        })?;
    }
    Ok(())
}

/// Runs one of the other members.
pub(crate) fn run_member(place: &Place) -> Result<(), Failed> {
    processes::run_member(
        place,
        async |id, dir, addresses| start(id, dir, addresses, Limits::default(), false).await,
        async |_| std::future::pending().await,
    )
}

pub(crate) async fn start(
    id: u64,
    dir: &Path,
    addresses: &[SocketAddr],
    limits: Limits,
    offers_views: bool,
) -> Result<Node<Holder>, Failed> {
    Ok(builder(id, dir, addresses)?.limits(limits).start(Holder { value: Bytes::new(), offers_views }).await?)
}

/// A state machine that holds the last written value.
#[derive(Clone)]
pub(crate) struct Holder {
    pub(crate) value: Bytes,
    offers_views: bool,
}

impl StateMachine for Holder {
    fn apply(&mut self, _: &At, command: &[u8]) -> Bytes {
        self.value = Bytes::copy_from_slice(command);
        Bytes::new()
    }

    fn view(&self) -> Option<View<Self>> {
        self.offers_views.then(|| View::of(self.clone()))
    }
}

async fn measure(
    (node, with_views): (&Node<Holder>, bool),
    load: &Load,
    on: &str,
    leader: NodeId,
    members: &mut [Member],
) -> Result<(), Failed> {
    for &bytes in &load.value_bytes.0 {
        until_led_by(node, leader).await?;
        let index = within(PATIENCE, "a proposal", node.propose(vec![7; bytes])).await??.index;
        let mut status = node.status();
        within(PATIENCE, "its apply", status.wait_for(|status| status.applied >= index)).await??;
        for &in_flight in &load.in_flight.0 {
            for (mode, consistency) in MODES {
                let read = ReadAll { node: node.clone(), consistency, bytes };
                let what = format!("{mode} reads of {bytes} bytes on the {on}, {in_flight} in flight");
                let mut line = measured(node, leader, &what, &read, in_flight, load.seconds).await?;
                processes::check(&mut *members)?;
                (line["mode"], line["on"], line["views"]) = (mode.into(), on.into(), with_views.into());
                (line["nodes"], line["value_bytes"]) = (3.into(), bytes.into());
                say(&line)?;
            }
        }
    }
    Ok(())
}

/// A read of the value, which has this length.
#[derive(Clone)]
pub(crate) struct ReadAll {
    pub(crate) node: Node<Holder>,
    pub(crate) consistency: Consistency,
    pub(crate) bytes: usize,
}

impl Request for ReadAll {
    async fn send(&self) -> Result<(), Failed> {
        let read = self.node.read(self.consistency, |holder| holder.value.clone()).await?;
        match read.value.len() {
            bytes if bytes == self.bytes => Ok(()),
            bytes => Err(format!("a {:?} read returned {bytes} of {} bytes", self.consistency, self.bytes).into()),
        }
    }
}
