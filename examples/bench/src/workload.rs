//! The clients, and their measurements.

use crate::leadership::while_led;
use bytes::Bytes;
use quorate::{At, Limits, Node, NodeId, Snapshots, StageTime, StageTimes, StateMachine, WriteState};
use serde_json::{Value, json};
use std::{
    error::Error,
    io::{self, Write},
    str::FromStr,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// An error that ends a measurement, in one line.
pub(crate) type Failed = Box<dyn Error + Send + Sync>;

/// The time limit of every step, in addition to a measurement's own length.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The time of proposals before a measurement.
const WARM_UP: Duration = Duration::from_millis(200);

/// For each length of a value and number of requests in flight, a measurement of this time.
#[derive(Clone, clap::Args)]
pub(crate) struct Load {
    /// Numbers of requests in flight, each of 1 or more
    #[arg(value_name = "IN_FLIGHT,...", default_value = "1,64,1024", value_parser = in_flight)]
    pub(crate) in_flight: Numbers,
    /// The duration of each measurement
    #[arg(default_value = "5", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// Lengths of a value
    #[arg(value_name = "VALUE_BYTES,...", default_value = "256")]
    pub(crate) value_bytes: Numbers,
}

/// The length of each stage of a measurement, and that of a value.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Stage {
    /// The duration of each stage
    #[arg(value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// The length of a value
    pub(crate) value_bytes: usize,
}

/// Numbers with commas between them, at least one.
#[derive(Clone)]
pub(crate) struct Numbers(pub(crate) Vec<usize>);

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number"));
        Ok(Self(text.split(',').map(number).collect::<Result<_, _>>()?))
    }
}

impl Numbers {
    fn max(&self) -> usize {
        self.0.iter().copied().max().unwrap_or(0)
    }
}

fn in_flight(text: &str) -> Result<Numbers, String> {
    match text.parse::<Numbers>()? {
        numbers if numbers.0.contains(&0) => Err("at least one request must be in flight".into()),
        numbers => Ok(numbers),
    }
}

/// A duration of a measurement: seconds, or a part of one.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 0.01..=86_400.0) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number of seconds from 0.01 to 86400".into()),
    }
}

impl Load {
    /// Default limits, except that all proposals may be in flight.
    pub(crate) fn limits(&self) -> Result<Limits, Failed> {
        let in_flight = self.in_flight.max();
        let limits = Limits::default().with_max_in_flight_proposals(in_flight);
        if self.value_bytes.max() > limits.max_command_bytes {
            let (bytes, max) = (self.value_bytes.max(), limits.max_command_bytes);
            return Err(
                format!("a value of {bytes} bytes is longer than a command may be; at most {max} are allowed").into()
            );
        }
        match in_flight.checked_mul(self.value_bytes.max()) {
            Some(bytes) if bytes <= limits.max_in_flight_bytes => Ok(limits),
            _ => Err(format!(
                "{in_flight} values of {} bytes are more than the {} bytes that a node takes at once; ask for fewer",
                self.value_bytes.max(),
                limits.max_in_flight_bytes
            )
            .into()),
        }
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

/// Runs a step that may take this long.
pub(crate) async fn within<T>(limit: Duration, what: &str, step: impl Future<Output = T>) -> Result<T, Failed> {
    Ok(tokio::time::timeout(limit, step).await.map_err(|_| format!("{what} took longer than {limit:?}"))?)
}

/// Prints a line of figures.
pub(crate) fn say(line: &Value) -> Result<(), Failed> {
    Ok(writeln!(io::stdout(), "{line}").map_err(|error| format!("standard output: {error}"))?)
}

/// What a client does again and again.
pub(crate) trait Request: Clone + Send + Sync + 'static {
    fn send(&self) -> impl Future<Output = Result<(), Failed>> + Send;
}

#[derive(Clone)]
struct Propose {
    node: Node<Sink>,
    value: Bytes,
}

impl Request for Propose {
    async fn send(&self) -> Result<(), Failed> {
        self.node.propose(self.value.clone()).await?;
        Ok(())
    }
}

/// Runs all settings and prints a line for each, on a node that leads a cluster of `nodes`, unless
/// `check` finds that the cluster was no longer whole. Within a tokio runtime.
pub(crate) async fn measure(
    node: &Node<Sink>,
    load: &Load,
    nodes: u64,
    mut check: impl FnMut() -> Result<(), Failed>,
) -> Result<(), Failed> {
    for &bytes in &load.value_bytes.0 {
        let request = Propose { node: node.clone(), value: vec![7; bytes].into() };
        // The first answer arrives only when all nodes have created their logs.
        while_led(node, node.id(), WARM_UP, async || closed_loop(&request, 1, WARM_UP).await).await?;
        for &in_flight in &load.in_flight.0 {
            let what = format!("proposals of {bytes} bytes, {in_flight} in flight");
            let mut line = measured(node, node.id(), &what, &request, in_flight, load.seconds).await?;
            check()?;
            (line["nodes"], line["value_bytes"]) = (nodes.into(), bytes.into());
            line["stages"] = within(PATIENCE, "the view of the stages", stages(node)).await??;
            say(&line)?;
        }
    }
    Ok(())
}

/// The stages of a write on the leader: mean and 99th percentile of those of the last ten seconds,
/// in microseconds.
async fn stages(node: &Node<Sink>) -> Result<Value, Failed> {
    let mut watch = node.watch_cluster();
    loop {
        let view = watch.next().await.ok_or("the node has ended")?;
        let Some(times) = view.nodes.get(&node.id()).and_then(|seen| seen.report.stages) else { continue };
        let us = |time: Duration| (time.as_nanos() as f64 / 100.0).round() / 10.0;
        let StageTimes { queue, encode, quorum, commit, apply, reply, total, persist, .. } = times;
        let of = |time: StageTime| json!({ "mean_us": us(time.mean), "p99_us": us(time.p99) });
        return Ok(json!({
            "queue": of(queue),
            "encode": of(encode),
            "quorum": of(quorum),
            "commit": of(commit),
            "apply": of(apply),
            "reply": of(reply),
            "total": of(total),
            "persist": persist.map(of),
        }));
    }
}

/// Measures a setting while `leader` leads, and returns its line.
pub(crate) async fn measured<M: StateMachine>(
    node: &Node<M>,
    leader: NodeId,
    what: &str,
    request: &impl Request,
    in_flight: usize,
    length: Duration,
) -> Result<Value, Failed> {
    let measure = async || {
        let _progress = crate::timed(what, length);
        closed_loop(request, in_flight, length).await
    };
    let (latencies_us, elapsed) = while_led(node, leader, length, measure).await?;
    Ok(line(in_flight, latencies_us, elapsed))
}

/// Clients that each wait for an answer before the next request. Returns all latencies in
/// microseconds, at least one for each client, and the time until the last answer.
async fn closed_loop(
    request: &impl Request,
    in_flight: usize,
    length: Duration,
) -> Result<(Vec<u32>, Duration), Failed> {
    let start = Instant::now();
    let mut clients: JoinSet<_> = (0..in_flight).map(|_| send_until(request.clone(), start + length)).collect();
    let mut latencies_us = Vec::new();
    while let Some(client) = clients.join_next().await {
        latencies_us.append(&mut client??);
    }
    Ok((latencies_us, start.elapsed()))
}

/// One client. Returns its latencies in microseconds.
async fn send_until(request: impl Request, end: Instant) -> Result<Vec<u32>, Failed> {
    let mut latencies_us = Vec::new();
    loop {
        let sent = Instant::now();
        if sent > end && !latencies_us.is_empty() {
            return Ok(latencies_us);
        }
        request.send().await?;
        latencies_us.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}

/// The output line of one setting, which has at least one latency.
pub(crate) fn line(in_flight: usize, mut latencies_us: Vec<u32>, elapsed: Duration) -> Value {
    latencies_us.sort_unstable();
    let at = |per_mille: usize| latencies_us.get(latencies_us.len().saturating_sub(1) * per_mille / 1000);
    json!({
        "system": "quorate",
        "in_flight": in_flight,
        "ops_per_s": (latencies_us.len() as f64 / elapsed.as_secs_f64()).round(),
        "p50_us": at(500),
        "p99_us": at(990),
        "p999_us": at(999),
    })
}
