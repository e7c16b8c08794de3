//! Attacks on the HTTP port of the leader of three real nodes, while other clients write. Each
//! prints the memory of the attacked process, the longest write, and the longest delay on the node's
//! own thread, which sends the heartbeats. None may cause an election.

use crate::support::{MachineDelay, PATIENCE, Running, cluster, raw};
use quorate::NodeId;
use quorate_kv::descriptors::ConnectionLimit;
use std::{fs, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// The duration of an attack.
const ATTACK: Duration = Duration::from_secs(3);
/// The budgets of bodies and answers have 256 MiB each, of which one address gets half at most; the
/// rest is buffers of connections.
const MEMORY_MAX: u64 = 512 << 20;
/// A write of another client during an attack, at most, on a machine that is not busy.
const WRITE_MAX: Duration = Duration::from_secs(2);
/// Half of the shortest election timeout of these nodes.
const STANDSTILL: Duration = Duration::from_millis(300);
const VALUE_BYTES: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn slow_oversized_and_endless_requests_cost_no_election_and_little_memory() {
    // The test process holds the other end of each connection.
    let _ = ConnectionLimit::claim(8192);
    let cluster = cluster(3).await;
    let (leader, others) = cluster.roles().await;
    let address = cluster.endpoint(leader).trim_start_matches("http://").to_owned();
    let mut client = cluster.client(&others).expect("a client");
    client.put("large", "v".repeat(VALUE_BYTES)).await.expect("written");
    let attacks: [(&str, usize, Attacker); 7] = [
        ("heads that come byte by byte", 500, |to| Box::pin(slowly(to, "GET /v1/status HTTP/1.1\r\nhost: x\r\nx: "))),
        ("bodies that come byte by byte", 500, |to| {
            Box::pin(slowly(to, "PUT /v1/kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"))
        }),
        ("heads of 1 MiB", 16, |to| {
            Box::pin(again_and_again(to, "GET /v1/status HTTP/1.1\r\nx: ".to_owned() + &"x".repeat(1 << 20)))
        }),
        ("bodies of 16 MiB in chunks", 16, |to| {
            let chunk = format!("100000\r\n{}\r\n", "v".repeat(1 << 20)).repeat(16);
            let head = "PUT /v1/kv/k HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
            Box::pin(again_and_again(to, format!("{head}{chunk}0\r\n\r\n")))
        }),
        ("connections opened and held", 64, |to| Box::pin(connect(to, 40))),
        ("values that are not read", 200, |to| {
            Box::pin(unread(to, "GET /v1/kv/large?read=local HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(8)))
        }),
        ("watches that are not read", 700, |to| {
            Box::pin(unread(to, "GET /v1/watch?prefix= HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned()))
        }),
    ];
    for (attack, attackers, attacker) in attacks {
        let (before, elections, delays) =
            (memory(&cluster, leader), elections(&cluster).await, delays(&cluster, leader).await);
        let delay = MachineDelay::watch();
        let running: Vec<_> = (0..attackers).map(|_| tokio::spawn(attacker(address.clone()))).collect();
        let (began, mut most, mut longest, mut writes) = (Instant::now(), before, Duration::ZERO, 0);
        while began.elapsed() < ATTACK {
            let write = Instant::now();
            client.put("k", format!("{writes}")).await.unwrap_or_else(|error| panic!("{attack}: {error}"));
            writes += 1;
            longest = longest.max(write.elapsed());
            most = most.max(memory(&cluster, leader));
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(raw(&cluster.endpoint(leader), "GET /readyz", "", b"").await.status, 200, "{attack}");
        let open = value(&page(&cluster, leader).await, "quorate_http_connections{");
        running.iter().for_each(tokio::task::JoinHandle::abort);
        let deadline = Instant::now() + PATIENCE;
        while value(&page(&cluster, leader).await, "quorate_http_connections{") > 4 {
            assert!(Instant::now() < deadline, "{attack}: its connections stay");
            sleep(Duration::from_millis(20)).await;
        }
        let (after, late) = (memory(&cluster, leader), longest_since(&delays, &self::delays(&cluster, leader).await));
        println!(
            "{attack}: {open} connections; memory {} MiB before, {} at most, {} after; {writes} writes, the longest \
             {longest:?}; the node's thread was late by {late} s at most; the machine by {:?}",
            before >> 20,
            most >> 20,
            after >> 20,
            delay.longest()
        );
        assert!(most.saturating_sub(before) <= MEMORY_MAX, "{attack}: {before} grew to {most}");
        if delay.busy().is_none() {
            assert!(longest <= WRITE_MAX, "{attack}: a write took {longest:?}");
        }
        // A machine that stands still for so long causes elections by itself.
        if delay.longest() < STANDSTILL {
            assert_eq!(self::elections(&cluster).await, elections, "{attack}: there was an election");
        }
    }
    assert_eq!(cluster.running(), cluster.ids());
    cluster.converge(PATIENCE).await.expect("all nodes run and have all");
    let page = page(&cluster, leader).await;
    let refused =
        |reason: &str| value(&page, &format!("quorate_http_refused_total{{node=\"{leader}\",reason=\"{reason}\""));
    assert!(refused("too_large") > 0 && refused("overloaded") > 0, "{page}");
}

type Attacker = fn(String) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sends a beginning, and then a byte now and then.
async fn slowly(to: String, beginning: &str) {
    loop {
        let Ok(mut stream) = TcpStream::connect(&to).await else { continue };
        let mut sent = stream.write_all(beginning.as_bytes()).await;
        while sent.is_ok() {
            sleep(Duration::from_millis(100)).await;
            sent = stream.write_all(b"x").await;
        }
    }
}

/// Sends a request, reads until the connection ends, and begins again.
async fn again_and_again(to: String, request: String) {
    loop {
        let Ok(mut stream) = TcpStream::connect(&to).await else { continue };
        // The node may close before all is sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = timeout(Duration::from_millis(200), stream.read(&mut [0; 4096])).await;
    }
}

/// Opens connections; holds the latest ones.
async fn connect(to: String, held: usize) {
    let mut open = std::collections::VecDeque::new();
    loop {
        open.extend(TcpStream::connect(&to).await.ok());
        if open.len() > held {
            open.pop_front();
        }
        tokio::task::yield_now().await;
    }
}

/// Sends requests, and reads nothing until the connection ends.
async fn unread(to: String, requests: String) {
    let Ok(mut stream) = TcpStream::connect(&to).await else { return };
    let _ = stream.write_all(requests.as_bytes()).await;
    std::future::pending::<()>().await;
}

async fn page(cluster: &Running, id: NodeId) -> String {
    raw(&cluster.endpoint(id), "GET /metrics", "", b"").await.text().to_owned()
}

async fn elections(cluster: &Running) -> u64 {
    let mut started = 0;
    for id in cluster.ids() {
        started += value(&page(cluster, id).await, "quorate_elections_started_total{");
    }
    started
}

/// The buckets of the delays of a timer on the node's own thread: bounds and counts.
async fn delays(cluster: &Running, id: NodeId) -> Vec<(String, u64)> {
    let page = page(cluster, id).await;
    let buckets = page.lines().filter(|line| line.starts_with("quorate_event_loop_delay_seconds_bucket{"));
    let parsed = buckets.filter_map(|line| {
        let (series, count) = line.rsplit_once(' ')?;
        let bound = series.split_once("le=\"")?.1.split('"').next()?;
        Some((bound.to_owned(), count.parse().ok()?))
    });
    parsed.collect()
}

/// The upper bound of the longest delay between two looks.
fn longest_since(before: &[(String, u64)], after: &[(String, u64)]) -> String {
    let new: Vec<_> = before.iter().zip(after).map(|((bound, before), (_, after))| (bound, after - before)).collect();
    let all = new.last().map_or(0, |(_, count)| *count);
    new.iter().find(|(_, count)| *count == all).map_or_else(String::new, |(bound, _)| (*bound).clone())
}

/// The sum of the values of all series whose lines start with `series`.
fn value(page: &str, series: &str) -> u64 {
    let values = page.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit_once(' '));
    values.map(|(_, value)| value.parse::<u64>().expect("a whole number")).sum()
}

/// The resident memory of a node's process in bytes: the second number of statm, in pages.
fn memory(cluster: &Running, id: NodeId) -> u64 {
    let pid = cluster.pid(id).expect("it runs");
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}
