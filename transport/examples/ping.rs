//! Measures QUIC on this machine: two nodes on threads of their own, one round trip at a time, then
//! appends as fast as they go. `cargo run --release -p quorate-transport --example ping`

use quorate_raft::{Body, NodeId};
use quorate_transport::{Network, Quic, QuicOptions, certificates::Authority};
use quorate_transport_testing::conformance::{TestNode, append, heartbeat_reply, proposal};
use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

const CLUSTER: &str = "ping";
const ROUNDS: usize = 20_000;
const BATCHES: u64 = 2000;

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::create(CLUSTER).expect("an authority");
    authority.write(dir.path()).expect("files");
    for node in [1, 2] {
        let issued = authority.issue_node(NodeId(node), &[]).expect("a certificate");
        issued.write(dir.path(), &format!("node-{node}")).expect("files");
    }
    let network = quic(dir.path(), 2);
    let (ready, is_ready) = mpsc::channel();
    let (hello, greeted) = oneshot::channel::<String>();
    let echo = std::thread::spawn(move || {
        run(async move {
            let mut two = TestNode::on(network, CLUSTER, NodeId(2)).await;
            ready.send(two.links.local_address().expect("it is bound")).expect("main waits");
            let link = two.links.link(NodeId(1), &greeted.await.expect("main tells"));
            let mut round = 0;
            loop {
                match two.received().await.1.body {
                    Body::Heartbeat(_) => return,
                    _ => link.send(heartbeat_reply(round)),
                }
                round += 1;
            }
        });
    });
    let two = is_ready.recv().expect("node 2 starts");
    run(async {
        let mut one = TestNode::on(quic(dir.path(), 1), CLUSTER, NodeId(1)).await;
        let link = one.links.link(NodeId(2), &two.to_string());
        let _ = hello.send(one.links.local_address().expect("it is bound").to_string());
        one.until_up(NodeId(2)).await;
        // The reply needs node 2's link as well, at first.
        let mut took: Vec<Duration> = Vec::new();
        for round in 0..ROUNDS {
            let sent = Instant::now();
            link.send(proposal(round as u64, 128));
            one.received().await;
            took.push(sent.elapsed());
        }
        took.sort_unstable();
        println!(
            "round trip: p50 {:?}, p99 {:?}, p99.9 {:?}",
            took[ROUNDS / 2],
            took[ROUNDS * 99 / 100],
            took[ROUNDS * 999 / 1000]
        );
        for bytes in [16 << 10, 128 << 10, 1 << 20] {
            let (batch, began) = (append(1, 1, bytes), Instant::now());
            let (mut sent, mut answered) = (0, 0);
            while answered < BATCHES {
                while sent < BATCHES && (sent - answered) * (bytes as u64) < 8 << 20 {
                    link.send(batch.clone());
                    sent += 1;
                }
                one.received().await;
                answered += 1;
            }
            let seconds = began.elapsed().as_secs_f64();
            let megabytes = (BATCHES * bytes as u64) as f64 / 1e6;
            println!("appends of {} KiB: {:.0} MB/s", bytes >> 10, megabytes / seconds);
        }
        link.send(quorate_transport_testing::conformance::heartbeat(0));
        // Waited for elsewhere: this thread still has to send it.
        tokio::task::spawn_blocking(|| echo.join().expect("node 2 ends well")).await.expect("it ends");
    });
}

fn quic(dir: &Path, node: u64) -> Box<dyn Network> {
    let file = |name: String| dir.join(name);
    let listen = "127.0.0.1:0".parse().expect("an address");
    let (cert, key) = (file(format!("node-{node}.pem")), file(format!("node-{node}.key")));
    Box::new(Quic::new(QuicOptions::new(listen, file("ca.pem".into()), cert, key)).expect("a network"))
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
