//! `demo`: a cluster of processes on this machine, a killed leader, and a check that no
//! acknowledged write was lost.
//!
//! The demo is a client like any other: it checks over HTTP, against a ledger of the answers it
//! got. It succeeds only if all checks pass. With `--page` it shows the cluster instead (`page`).

mod page;

pub(crate) use page::open;

use crate::{
    cluster::{Cluster, ClusterError, Options},
    load::{Ledger, LoadOptions, MachineDelay, Verdict, Writers, check_counted, first_write},
    output::{self, PROGRAM},
};
use quorate::NodeId;
use quorate_progress::{Progress, Unit};
use serde_json::json;
use std::{cell::OnceCell, fmt, io, path::PathBuf, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

/// The time limit for the first write after the leader's death, on an idle machine.
const UNAVAILABLE_MAX: Duration = Duration::from_secs(1);
/// The number of thread wake-ups from the leader's death to the answer to a write, with one lost
/// election; a busy machine may delay each of them.
const HOPS: u32 = 20;
/// The time limit of all other steps; long, because an overloaded machine is not a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// The interval at which acknowledged writes are counted for those that wait.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The number of acknowledged writes before the next step.
const WRITES: usize = 1000;

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The directory for certificates, data and logs; default: a temporary directory
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// The number of nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    pub nodes: u64,
    /// Leave the cluster running and print its endpoints
    #[arg(long)]
    pub keep: bool,
    /// Show the cluster in a browser, at a pace that an eye can follow and with faults to try, until Ctrl-C
    #[arg(long, conflicts_with = "keep")]
    pub page: bool,
}

/// Runs the demo, and prints its progress.
///
/// # Errors
/// If a check fails, or on a signal. No node keeps running then.
pub async fn run(args: Args, json: bool) -> Result<(), DemoError> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let story = Story { began: Instant::now(), json, delay: MachineDelay::watch(), page: OnceCell::new() };
    let interrupted = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        // A page is shown until then.
        if story.page.get().is_some() { Ok(()) } else { Err(DemoError::Interrupted) }
    };
    tokio::select! {
        biased;
        result = interrupted => result,
        result = perform(args, &story) => result,
    }
}

async fn perform(args: Args, story: &Story) -> Result<(), DemoError> {
    let (dir, temporary) = match &args.dir {
        Some(dir) => (std::path::absolute(dir)?, None),
        None => {
            let temporary = tempfile::Builder::new().prefix("quorate-").tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let result = perform_in(dir.clone(), &args, story).await;
    // A kept cluster needs its directory; after a failure it holds the logs.
    if let Some(temporary) = temporary.filter(|_| args.keep || result.is_err()) {
        let _ = temporary.keep();
    }
    result.map_err(|error| error.on_a_machine(story.delay.busy()).with_logs(dir))
}

async fn perform_in(dir: PathBuf, args: &Args, story: &Story) -> Result<(), DemoError> {
    let Args { nodes, keep, page, .. } = *args;
    story.tell("directory", dir.display())?;
    let sections = if page { page::PACE.to_owned() } else { String::new() };
    let options = Options { nodes, paths: page, sections, ..Options::new(std::env::current_exe()?, dir) };
    let mut cluster = Cluster::start(options).await?;
    story.tell(
        "started",
        format_args!("{nodes} nodes, each a process: certificates, QUIC with mutual TLS, a log on disk"),
    )?;
    for id in cluster.ids() {
        story.tell("", format_args!("node {id}, process {}, {}", cluster.pid(id)?, cluster.endpoint(id)))?;
    }
    let leader = cluster.leader(PATIENCE).await?;
    story.tell("elected", format_args!("node {} leads term {}", leader.node_id, leader.term))?;
    if page {
        return page::show(cluster, story).await;
    }

    let ledger = Ledger::new();
    let writers = Writers::start(&cluster, &ledger, LoadOptions::default())?;
    more_writes(&ledger).await?;
    story.tell(
        "writing",
        format_args!("{} writers to all nodes, {} writes acknowledged", writers.count(), ledger.acknowledged()),
    )?;

    let (killed, unavailable) = kill_leader(&mut cluster, &ledger, story).await?;
    more_writes(&ledger).await?;
    story.tell("writing", format_args!("on {} nodes, {} writes acknowledged", nodes - 1, ledger.acknowledged()))?;

    cluster.start_node(killed).await?;
    let leader = cluster.leader(PATIENCE).await?;
    story.tell(
        "restarted",
        format_args!("node {killed}, which follows node {} in term {}", leader.node_id, leader.term),
    )?;
    more_writes(&ledger).await?;
    writers.stop().await;
    story.tell("stopped", format_args!("the writers, {} writes acknowledged", ledger.acknowledged()))?;

    let verdict = compare(&cluster, &ledger, story).await?;
    if keep {
        release(cluster, &verdict, unavailable, story).await
    } else {
        stop_all(cluster, story).await?;
        story.end(&verdict, unavailable, &json!(null))
    }
}

async fn more_writes(ledger: &Ledger) -> Result<(), DemoError> {
    let (before, count) = (ledger.acknowledged(), ledger.acknowledged() + WRITES);
    let (_progress, done) = Progress::start(PROGRAM, "load", Unit::Items("writes"), Some(WRITES as u64));
    let looking = async {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            done.set((ledger.acknowledged() - before) as u64);
        }
    };
    let reached = async {
        tokio::select! {
            () = ledger.reaches(count) => {}
            () = looking => {}
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.map_err(|_| DemoError::Starved)
}

/// Kills the leader, and measures the time until the first successful write.
async fn kill_leader(cluster: &mut Cluster, ledger: &Ledger, story: &Story) -> Result<(NodeId, Duration), DemoError> {
    let leader = cluster.leader(PATIENCE).await?;
    let (since, delay) = (Instant::now(), MachineDelay::watch());
    cluster.kill(leader.node_id).await?;
    story.tell("killed", format_args!("node {}, the leader, with SIGKILL", leader.node_id))?;
    let first = first_write(cluster, &cluster.running(), ledger, since, PATIENCE).await?;
    let unavailable = first.ok_or(DemoError::NeverAgain)?;
    let next = cluster.leader(PATIENCE).await?;
    let ms = unavailable.as_millis();
    story.tell(
        "elected",
        format_args!("node {} leads term {}; a write succeeded {ms} ms after the kill", next.node_id, next.term),
    )?;
    let bound = UNAVAILABLE_MAX + delay.longest() * HOPS;
    if unavailable >= bound {
        return Err(DemoError::Slow(unavailable, bound));
    }
    if let Some(late) = delay.busy().filter(|_| unavailable >= UNAVAILABLE_MAX) {
        story.tell(
            "",
            format_args!("slow, because {}: {bound:.1?} were allowed instead of {UNAVAILABLE_MAX:?}", busy(late)),
        )?;
    }
    Ok((leader.node_id, unavailable))
}

/// Waits until all nodes have applied the same log, and compares their contents with the ledger.
async fn compare(cluster: &Cluster, ledger: &Ledger, story: &Story) -> Result<Verdict, DemoError> {
    let statuses = cluster.converge(PATIENCE).await?;
    let hashes: Vec<_> = statuses.iter().map(|status| (status.node_id, status.state_hash.clone())).collect();
    let Some((_, hash)) = hashes.first().filter(|(_, first)| hashes.iter().all(|(_, hash)| hash == first)) else {
        return Err(DemoError::Diverged(hashes));
    };
    story
        .tell("level", format_args!("index {} applied on every node, state hash {hash}", statuses[0].applied_index))?;
    let (writes, ids) = (ledger.writes(), cluster.ids());
    let total = (writes.len() * ids.len()) as u64;
    let (progress, read) = Progress::start(PROGRAM, "check", Unit::Items("reads"), Some(total));
    let verdict = check_counted(cluster, &ids, writes, &read).await?;
    drop(progress);
    story.tell(
        "checked",
        format_args!("{} acknowledged writes, each read back from every node", verdict.acknowledged),
    )?;
    let Verdict { unknown_present, unknown_absent, refused, .. } = &verdict;
    let unknown = unknown_present + unknown_absent;
    story.tell(
        "",
        format_args!("{unknown} of unknown outcome: {unknown_present} took effect, {unknown_absent} did not"),
    )?;
    story.tell("", format_args!("{refused} refused: none took effect"))?;
    if !verdict.broken.is_empty() {
        return Err(DemoError::Broken(verdict.broken));
    }
    Ok(verdict)
}

/// The delay as text.
fn busy(late: Duration) -> String {
    let (nap, late) = (MachineDelay::NAP.as_millis(), late.as_millis());
    format!("this machine is too busy (a thread that slept {nap} ms ran up to {late} ms late)")
}

async fn stop_all(mut cluster: Cluster, story: &Story) -> Result<(), DemoError> {
    for id in cluster.ids() {
        let status = cluster.stop(id).await?;
        if !status.success() {
            return Err(DemoError::BadEnd(id, status.to_string()));
        }
    }
    story.tell("stopped", "all nodes with SIGTERM; each drained and exited with 0")
}

async fn release(cluster: Cluster, verdict: &Verdict, unavailable: Duration, story: &Story) -> Result<(), DemoError> {
    let endpoints: Vec<_> = cluster.ids().into_iter().map(|id| cluster.endpoint(id)).collect();
    let pids = cluster.release().await?;
    let listed: Vec<_> = pids.iter().map(ToString::to_string).collect();
    story.tell("kept", format_args!("the cluster runs on: {}", endpoints.join(" ")))?;
    story.tell("", format_args!("stop it with: kill {}", listed.join(" ")))?;
    story.end(verdict, unavailable, &json!({ "endpoints": endpoints, "pids": pids }))
}

/// The output: one line per step, or one JSON object at the end.
struct Story {
    began: Instant,
    json: bool,
    delay: MachineDelay,
    /// The address of the page, once it is served.
    page: OnceCell<String>,
}

impl Story {
    /// Says where the page is; as JSON, too.
    fn page(&self, url: &str) -> Result<(), DemoError> {
        let _ = self.page.set(url.to_owned());
        if self.json { Ok(output::line(json!({ "page": url }))?) } else { Ok(()) }
    }

    fn tell(&self, step: &str, what: impl fmt::Display) -> Result<(), DemoError> {
        if self.json {
            return Ok(());
        }
        let time = if step.is_empty() { String::new() } else { format!("{:.2} s", self.began.elapsed().as_secs_f64()) };
        Ok(output::line(format_args!("{time:>8}  {step:<9}  {what}"))?)
    }

    fn end(&self, verdict: &Verdict, unavailable: Duration, kept: &serde_json::Value) -> Result<(), DemoError> {
        if !self.json {
            return self.tell("ok", "every node has all acknowledged writes");
        }
        Ok(output::line(json!({
            "acknowledged": verdict.acknowledged,
            "unknown_present": verdict.unknown_present,
            "unknown_absent": verdict.unknown_absent,
            "refused": verdict.refused,
            "missing": verdict.broken.len(),
            "unavailable_ms": u64::try_from(unavailable.as_millis()).unwrap_or(u64::MAX),
            "kept": kept,
        }))?)
    }
}

/// A failure of the demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The cluster could not be run.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A file, a signal or standard output could not be used.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// SIGINT or SIGTERM arrived.
    #[error("interrupted; every node was killed")]
    Interrupted,
    /// Too few writes were acknowledged in time.
    #[error("fewer than {WRITES} writes were acknowledged within {PATIENCE:?}")]
    Starved,
    /// No write succeeded after the kill.
    #[error("no write succeeded within {PATIENCE:?} of the leader's death")]
    NeverAgain,
    /// The first write after the kill succeeded too late.
    #[error("a write succeeded only {0:.1?} after the leader's death; it must be less than {1:.1?}")]
    Slow(Duration, Duration),
    /// Nodes that applied the same log have different states.
    #[error("nodes that applied the same log have different state: {0:?}")]
    Diverged(Vec<(NodeId, String)>),
    /// Acknowledged writes are missing, or refused ones are present.
    #[error("{} writes violate the promises, the first: {}", .0.len(), .0.first().map_or("", String::as_str))]
    Broken(Vec<String>),
    /// A node did not exit with 0.
    #[error("node {0} did not exit with 0 when told to stop: {1}")]
    BadEnd(NodeId, String),
    /// A time limit was exceeded on a machine that delayed threads by this time.
    #[error("{why}: stop other programs and try again; {0}", why = busy(*.1))]
    Busy(Box<DemoError>, Duration),
    /// One of these failures, and the directory with the logs.
    #[error("{0}; logs and data are in {path}", path = .1.display())]
    InDirectory(Box<DemoError>, PathBuf),
}

impl DemoError {
    /// Adds the machine's load as the reason of an exceeded time limit, if threads ran late.
    fn on_a_machine(self, busy: Option<Duration>) -> Self {
        match (busy, self) {
            (Some(late), error @ (Self::Slow(..) | Self::Starved | Self::NeverAgain | Self::Cluster(_))) => {
                Self::Busy(Box::new(error), late)
            }
            (_, error) => error,
        }
    }

    fn with_logs(self, dir: PathBuf) -> Self {
        Self::InDirectory(Box::new(self), dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_fails_on_a_busy_machine_names_the_machine_in_the_same_line() {
        let ms = Duration::from_millis;
        let slow = || DemoError::Slow(ms(9_000), ms(4_000));
        let line = slow().on_a_machine(Some(ms(740))).with_logs("logs".into()).to_string();
        assert!(line.contains("this machine is too busy (a thread that slept 10 ms ran up to 740 ms late)"), "{line}");
        assert!(line.contains("9.0s") && line.contains("logs") && line.lines().count() == 1, "{line}");
        assert!(!slow().on_a_machine(None).to_string().contains("busy"));
        let lost = DemoError::Broken(vec!["a".to_owned()]).on_a_machine(Some(ms(740))).to_string();
        assert!(!lost.contains("busy"), "no machine loses a write: {lost}");
    }
}
