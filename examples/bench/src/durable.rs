//! Processes on loopback: QUIC with mutual TLS, write-ahead logs with `fdatasync`.
//!
//! This process runs node 1, which leads, and the clients; children run the others.

use crate::{
    leadership::until_led_by,
    processes::{self, LEADER, Member, Place, builder, make_certificates, reserve, shut_down},
    workload::{Failed, Load, Sink, keep_the_log, measure},
};
use quorate::{Limits, Node, NodeId};
use std::{net::SocketAddr, path::Path, process::Stdio};

/// The command with which a child runs a member.
pub(crate) const MEMBER: &str = "member";

/// Runs the measurement and prints its lines.
pub(crate) fn run(nodes: u64, load: &Load) -> Result<(), Failed> {
    let limits = load.limits()?;
    let dir = tempfile::Builder::new().prefix("quorate-bench-").tempdir()?;
    let (_reserved, addresses) = reserve(usize::try_from(nodes)?)?;
    make_certificates(dir.path(), addresses.len())?;
    let members: Result<Vec<Member>, Failed> =
        (2..=nodes).map(|id| Member::start(MEMBER, id, dir.path(), &addresses, Stdio::null())).collect();
    let mut members = members?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let node = start(LEADER, dir.path(), &addresses, limits).await?;
        until_led_by(&node, NodeId(LEADER)).await?;
        let outcome = measure(&node, load, nodes, || processes::check(&mut members)).await;
        shut_down(&node).await?;
        outcome
    })
}

/// Runs one of the other members.
pub(crate) fn run_member(place: &Place) -> Result<(), Failed> {
    processes::run_member(
        place,
        async |id, dir, addresses| start(id, dir, addresses, Limits::default()).await,
        async |_| std::future::pending().await,
    )
}

async fn start(id: u64, dir: &Path, addresses: &[SocketAddr], limits: Limits) -> Result<Node<Sink>, Failed> {
    Ok(builder(id, dir, addresses)?.limits(limits).snapshots(keep_the_log()).start(Sink::default()).await?)
}
