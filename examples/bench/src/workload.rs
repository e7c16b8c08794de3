//! The clients, and their measurements.

use bytes::Bytes;
use quorate::{At, Node, Snapshots, StateMachine, Status, WriteState};
use serde_json::{Value, json};
use std::{
    error::Error,
    io,
    time::{Duration, Instant},
};

/// An error that ends a measurement, in one line.
pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// The settings: for each number of proposals in flight, the duration in seconds and the length of
/// a value in bytes.
pub(crate) struct Settings {
    pub(crate) in_flight: Vec<usize>,
    pub(crate) seconds: u64,
    pub(crate) value_bytes: usize,
}

impl Settings {
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self, Failed> {
        let (in_flight, seconds, value_bytes) = match *arguments {
            [] => ("1,64,1024", "5", "256"),
            [in_flight] => (in_flight, "5", "256"),
            [in_flight, seconds] => (in_flight, seconds, "256"),
            [in_flight, seconds, value_bytes] => (in_flight, seconds, value_bytes),
            _ => return Err(crate::USAGE.into()),
        };
        let number = |what: &str, text: &str| text.parse().map_err(|_| format!("{what} is not a number: {text}"));
        let in_flight: Result<Vec<usize>, _> = in_flight.split(',').map(|n| number("IN_FLIGHT", n)).collect();
        let settings = Self {
            in_flight: in_flight?,
            seconds: number("SECONDS", seconds)? as u64,
            value_bytes: number("VALUE_BYTES", value_bytes)?,
        };
        if settings.seconds == 0 || settings.in_flight.contains(&0) {
            return Err("IN_FLIGHT and SECONDS must be at least 1".into());
        }
        Ok(settings)
    }

    /// The maximum number of proposals in flight.
    pub(crate) fn in_flight_max(&self) -> usize {
        self.in_flight.iter().copied().max().unwrap_or(1)
    }
}

/// A state machine that does almost nothing, so that the measurement is of replication.
#[derive(Default)]
pub(crate) struct Sink {
    applied_bytes: u64,
}

impl StateMachine for Sink {
    fn apply(&mut self, _: &At, command: &[u8]) -> Bytes {
        self.applied_bytes += command.len() as u64;
        Bytes::new()
    }

    fn snapshot(&self) -> Option<WriteState> {
        let state = self.applied_bytes.to_le_bytes();
        Some(Box::new(move |out| out.write_all(&state)))
    }

    fn restore(&mut self, state: &mut dyn io::Read) -> io::Result<()> {
        let mut bytes = [0; 8];
        state.read_exact(&mut bytes)?;
        self.applied_bytes = u64::from_le_bytes(bytes);
        Ok(())
    }
}

/// No snapshots: the log is never cut.
pub(crate) fn keep_the_log() -> Snapshots {
    Snapshots::default().with_every_entries(0).with_every_bytes(0)
}

/// Waits until `node` leads and has committed an entry in its own term.
pub(crate) async fn until_leading<M: StateMachine>(node: &Node<M>, patience: Duration) -> Result<(), Failed> {
    let leading = |status: &Status| status.leader == Some(status.node) && status.commit.0 > 0;
    let mut status = node.status();
    match tokio::time::timeout(patience, status.wait_for(leading)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err("the node ended before it became the leader".into()),
        Err(_) => Err(format!("the node did not become the leader within {patience:?}").into()),
    }
}

/// Runs all settings and prints a line for each. Within a tokio runtime.
pub(crate) async fn measure(node: &Node<Sink>, settings: &Settings) -> Result<(), Failed> {
    // The first answer arrives only when all nodes have created their logs.
    propose_until(node, Bytes::from(vec![7; settings.value_bytes]), Instant::now() + Duration::from_millis(200))
        .await?;
    for &in_flight in &settings.in_flight {
        let length = Duration::from_secs(settings.seconds);
        let progress = crate::timed(format!("proposals, {in_flight} in flight"), length);
        let start = Instant::now();
        let end = start + length;
        let clients: Vec<_> = (0..in_flight)
            .map(|_| {
                let (node, value) = (node.clone(), Bytes::from(vec![7; settings.value_bytes]));
                tokio::spawn(async move { propose_until(&node, value, end).await })
            })
            .collect();
        let mut latencies_us = Vec::new();
        for client in clients {
            latencies_us.append(&mut client.await??);
        }
        let elapsed = start.elapsed();
        drop(progress);
        println!("{}", line(in_flight, latencies_us, elapsed));
    }
    Ok(())
}

/// The output line of one setting. Every client has measured at least one latency.
pub(crate) fn line(in_flight: usize, mut latencies_us: Vec<u32>, elapsed: Duration) -> Value {
    latencies_us.sort_unstable();
    let at = |per_mille: usize| latencies_us[(latencies_us.len() - 1) * per_mille / 1000];
    json!({
        "system": "quorate",
        "in_flight": in_flight,
        "ops_per_s": (latencies_us.len() as f64 / elapsed.as_secs_f64()).round(),
        "p50_us": at(500),
        "p99_us": at(990),
        "p999_us": at(999),
    })
}

/// One client: proposes sequentially until `end`. Returns all latencies in microseconds.
async fn propose_until(node: &Node<Sink>, value: Bytes, end: Instant) -> Result<Vec<u32>, Failed> {
    let mut latencies_us = Vec::new();
    loop {
        let sent = Instant::now();
        if sent > end && !latencies_us.is_empty() {
            return Ok(latencies_us);
        }
        node.propose(value.clone()).await?;
        latencies_us.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}
