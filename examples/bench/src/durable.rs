//! Three processes on loopback: QUIC with mutual TLS, write-ahead logs with `fdatasync`.
//!
//! This process runs node 1 and the clients; two children run the others. The children's election
//! timeouts are so long that node 1 leads.

use crate::{
    processes::{self, LEADER, Member, builder, make_certificates, reserve},
    workload::{Failed, Settings, Sink, keep_the_log, measure, until_leading},
};
use quorate::{Limits, Node};
use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

/// The command with which a child runs a member.
pub(crate) const MEMBER: &str = "member";
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the measurement and prints its lines.
pub(crate) fn run(settings: &Settings) -> Result<(), Failed> {
    let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
    let (_reserved, addresses) = reserve(3)?;
    make_certificates(dir.path(), addresses.len())?;
    let members: Result<Vec<Member>, Failed> = (2..=addresses.len() as u64)
        .map(|id| Member::start(MEMBER, id, dir.path(), &addresses, Stdio::null()))
        .collect();
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

/// Runs one of the other members.
pub(crate) fn run_member(place: &[&str]) -> Result<(), Failed> {
    processes::run_member(
        place,
        async |id, dir, addresses| start(id, dir, addresses, 1).await,
        async |_| std::future::pending().await,
    )
}

async fn start(id: u64, dir: &Path, addresses: &[SocketAddr], in_flight_max: usize) -> Result<Node<Sink>, Failed> {
    let limits = Limits::default().with_max_in_flight_proposals(in_flight_max);
    Ok(builder(id, dir, addresses)?.limits(limits).snapshots(keep_the_log()).start(Sink::default()).await?)
}
