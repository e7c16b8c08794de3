//! A Prometheus process that scrapes a cluster and evaluates the scaled alert rules, and its own record
//! of both: the times in it are those of its evaluations, not of the test's clock.

use crate::prometheus_process;
use quorate::NodeId;
use quorate_kv::{
    client::{Client, Trust},
    cluster::Cluster,
};
use quorate_metrics_testing::{ALERTS, Scale};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path, time::Duration};
use tempfile::TempDir;
use tokio::{
    process::Child,
    time::{Instant, sleep},
};

/// The factor of the whole matrix. Scrapes and evaluations are 250 ms apart, which stand for the five
/// seconds of `metrics/README.md`; the shortest `for` of the rules, 15 s, becomes three of them.
pub(crate) const SCALE: Scale = Scale { factor: 20, interval: Duration::from_millis(250) };

/// The polling interval; Prometheus cannot signal that it has evaluated.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A series with a sample of each evaluation.
const EVALUATIONS: &str = "evaluation";

/// Milliseconds since 1970.
pub(crate) type Millis = i64;

pub(crate) struct Prometheus {
    address: String,
    _process: Child,
    dir: TempDir,
}

/// A period in which an alert had the same labels and state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Alerting {
    pub(crate) labels: BTreeMap<String, String>,
    /// The times of the evaluations that found it so.
    pub(crate) at: Vec<Millis>,
}

impl Alerting {
    pub(crate) fn name(&self) -> &str {
        &self.labels["alertname"]
    }

    /// The labels that are the same while it is pending and while it fires.
    pub(crate) fn without_state(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.remove("alertstate");
        labels
    }

    pub(crate) fn is_firing(&self) -> bool {
        self.labels["alertstate"] == "firing"
    }
}

impl Prometheus {
    /// `None` if it is not installed.
    pub(crate) async fn start(cluster: &Cluster) -> Option<Self> {
        let dir = TempDir::new().expect("temporary directory");
        let interval = format!("{}ms", SCALE.interval.as_millis());
        let path = |name: &str| dir.path().join(name);
        // In the group of the rules, whose evaluations it records.
        let rules = format!("{}      - record: {EVALUATIONS}\n        expr: vector(1)\n", ALERTS);
        fs::write(path("alerts.yml"), SCALE.rules(&rules).expect("rules that can be scaled")).expect("written");
        let config = json!({
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "kv", "file_sd_configs": [{"files": ["targets.json"]}]}],
        });
        fs::write(path("prometheus.yml"), config.to_string()).expect("written");
        targets(dir.path(), cluster, &cluster.ids());
        let (address, process) = prometheus_process::start(dir.path()).await?;
        Some(Self { address, _process: process, dir })
    }

    /// Makes these nodes the targets, as an operator changes a file of targets.
    pub(crate) fn scrape(&self, cluster: &Cluster, ids: &[NodeId]) {
        targets(self.dir.path(), cluster, ids);
    }

    /// The series of an expression.
    pub(crate) async fn query(&self, promql: &str) -> Vec<Value> {
        let encoded: String = promql.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut client = Client::new(&[format!("http://{}", self.address)], &Trust::none()).expect("a client");
        let answer = client.text(&format!("/api/v1/query?query={encoded}")).await.expect("an answer");
        let json: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(json["status"], "success", "{promql}: {json}");
        json["data"]["result"].as_array().expect("series").clone()
    }

    /// All alerts since a time, pending or firing.
    pub(crate) async fn alerts_since(&self, since: Millis) -> Vec<Alerting> {
        let series = self.query(&format!("ALERTS[{}]", window(since))).await;
        let found = series.iter().map(|series| {
            let labels = series["metric"].as_object().expect("labels").iter();
            let labels = labels.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect();
            Alerting { labels, at: times(series, since) }
        });
        found.filter(|alert: &Alerting| !alert.at.is_empty()).collect()
    }

    /// The times of all evaluations since a time.
    pub(crate) async fn evaluations_since(&self, since: Millis) -> Vec<Millis> {
        let series = self.query(&format!("{EVALUATIONS}[{}]", window(since))).await;
        series.first().map(|series| times(series, since)).unwrap_or_default()
    }

    /// Waits until no alert was pending or firing in this number of consecutive evaluations, while
    /// all `nodes` targets answered. The alerts that stay, after the time limit; some may be `ignored`.
    pub(crate) async fn quiet(
        &self,
        nodes: usize,
        evaluations: usize,
        ignored: impl Fn(&str) -> bool,
        within: Duration,
    ) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let mut since = now();
        loop {
            let up = self.query(&format!("sum(up) == {nodes} and count(up) == {nodes}")).await;
            let mut alerts = self.alerts_since(since).await;
            alerts.retain(|alert| !ignored(alert.name()));
            let seen = self.evaluations_since(since).await;
            if up.is_empty() || !alerts.is_empty() {
                since = seen.last().map_or(since, |last| last + 1);
            } else if seen.len() >= evaluations {
                return Ok(());
            }
            if Instant::now() > deadline {
                let up = self.query("up").await;
                return Err(format!("not quiet within {within:?}: {alerts:?}; targets: {up:?}"));
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

fn targets(dir: &Path, cluster: &Cluster, ids: &[NodeId]) {
    let addresses: Vec<_> = ids.iter().map(|id| cluster.endpoint(*id).replace("http://", "")).collect();
    let new = dir.join("targets.new");
    fs::write(&new, json!([{"targets": addresses}]).to_string()).expect("written");
    fs::rename(new, dir.join("targets.json")).expect("renamed");
}

/// A range that includes all samples since a time.
fn window(since: Millis) -> String {
    format!("{}ms", (now() - since).max(0) + 1000)
}

fn times(series: &Value, since: Millis) -> Vec<Millis> {
    let samples = series["values"].as_array().expect("samples").iter();
    let times = samples.map(|sample| (sample[0].as_f64().expect("a time") * 1000.0).round() as Millis);
    times.filter(|at| *at >= since).collect()
}

/// The clock that Prometheus on this machine uses too.
pub(crate) fn now() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_millis().try_into().expect("not far in the future")
}
