//! All kinds of reads, on a leader and on a follower: three processes on loopback, QUIC with mutual
//! TLS, write-ahead logs.
//!
//! This process runs node 1 and the clients, twice: first with node 1 as the leader, then with a
//! child as the leader. There are no writes during the measurement. An output line has the mode,
//! the role of the node, and the figures.

use crate::{
    durable,
    processes::{self, LEADER, Member, builder, make_certificates, reserve},
    workload::{Failed, Settings, line},
};
use bytes::Bytes;
use quorate::{At, Consistency, Limits, Node, StateMachine, Timing};
use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

/// The command with which a child runs a member that becomes the leader.
pub(crate) const MEMBER: &str = "member-that-leads";
const PATIENCE: Duration = Duration::from_secs(20);
const MODES: [(&str, Consistency); 4] = [
    ("linearizable", Consistency::Linearizable),
    ("lease", Consistency::Lease),
    ("bounded", Consistency::Bounded { max_age: Some(Duration::from_millis(100)), max_entries: None }),
    ("local", Consistency::Local),
];

/// Runs the measurement and prints its lines.
pub(crate) fn run(settings: &Settings) -> Result<(), Failed> {
    for (on, child) in [("leader", durable::MEMBER), ("follower", MEMBER)] {
        let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
        let (_reserved, addresses) = reserve(3)?;
        make_certificates(dir.path(), addresses.len())?;
        let _leads = Member::start(child, 2, dir.path(), &addresses, Stdio::null())?;
        let _follows = Member::start(durable::MEMBER, 3, dir.path(), &addresses, Stdio::null())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let node = start(LEADER, dir.path(), &addresses, on == "leader", settings.in_flight_max()).await?;
            let mut status = node.status();
            tokio::time::timeout(PATIENCE, status.wait_for(|status| status.leader.is_some())).await??;
            let index = node.propose(vec![7; settings.value_bytes]).await?.index;
            tokio::time::timeout(PATIENCE, status.wait_for(|status| status.applied >= index)).await??;
            let outcome = measure(&node, settings, on).await;
            node.shutdown().await;
            outcome
        })?;
    }
    Ok(())
}

/// Runs a member that becomes the leader.
pub(crate) fn run_member(place: &[&str]) -> Result<(), Failed> {
    processes::run_member(
        place,
        async |id, dir, addresses| start(id, dir, addresses, true, 1).await,
        async |_| std::future::pending().await,
    )
}

async fn start(
    id: u64,
    dir: &Path,
    addresses: &[SocketAddr],
    leads: bool,
    in_flight_max: usize,
) -> Result<Node<Holder>, Failed> {
    let limits = Limits::default().with_max_in_flight_proposals(in_flight_max);
    let mut timing = Timing::default();
    if !leads {
        timing.election_timeout = (Duration::from_secs(5), Duration::from_secs(10));
    }
    Ok(builder(id, dir, addresses)?.limits(limits).timing(timing).start(Holder::default()).await?)
}

/// A state machine that holds the last written value.
#[derive(Default)]
struct Holder {
    value: Bytes,
}

impl StateMachine for Holder {
    fn apply(&mut self, _: &At, command: &[u8]) -> Bytes {
        self.value = Bytes::copy_from_slice(command);
        Bytes::new()
    }
}

async fn measure(node: &Node<Holder>, settings: &Settings, on: &str) -> Result<(), Failed> {
    for &in_flight in &settings.in_flight {
        for (mode, consistency) in MODES {
            let length = Duration::from_secs(settings.seconds);
            let progress = crate::timed(format!("{mode} reads on the {on}, {in_flight} in flight"), length);
            let start = Instant::now();
            let end = start + length;
            let clients: Vec<_> = (0..in_flight)
                .map(|_| {
                    let (node, bytes) = (node.clone(), settings.value_bytes);
                    tokio::spawn(async move { read_until(&node, consistency, bytes, end).await })
                })
                .collect();
            let mut latencies_us = Vec::new();
            for client in clients {
                latencies_us.append(&mut client.await??);
            }
            let mut line = line(in_flight, latencies_us, start.elapsed());
            drop(progress);
            (line["mode"], line["on"]) = (mode.into(), on.into());
            println!("{line}");
        }
    }
    Ok(())
}

/// One client: reads sequentially until `end`. Returns all latencies in microseconds.
async fn read_until(
    node: &Node<Holder>,
    consistency: Consistency,
    bytes: usize,
    end: Instant,
) -> Result<Vec<u32>, Failed> {
    let mut latencies_us = Vec::new();
    loop {
        let sent = Instant::now();
        if sent > end && !latencies_us.is_empty() {
            return Ok(latencies_us);
        }
        let read = node.read(consistency, |holder| holder.value.clone()).await?;
        if read.value.len() != bytes {
            return Err(format!("a {consistency:?} read returned {} of {bytes} bytes", read.value.len()).into());
        }
        latencies_us.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}
