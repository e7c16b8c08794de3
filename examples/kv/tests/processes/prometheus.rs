//! A real Prometheus that scrapes a cluster and evaluates the alert rules.

use crate::{prometheus_process, support::Running};
use quorate_kv::client::{Client, Trust};
use quorate_metrics_testing::ALERTS;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use tokio::process::Child;

/// The polling interval; Prometheus cannot signal that it has scraped.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The jobs of the targets: two clusters, as far as Prometheus can tell.
pub(crate) const JOBS: [&str; 2] = ["quorate", "quorate.2"];

/// A Prometheus process that scrapes four times a second.
pub(crate) struct Prometheus {
    address: String,
    _process: Child,
    _dir: TempDir,
}

/// A series of an answer, and its value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Prometheus {
    /// Starts one that scrapes all nodes of the cluster as each of [`JOBS`]; `None` where it is not
    /// installed.
    pub(crate) async fn scrape(cluster: &Running) -> Option<Self> {
        let dir = TempDir::new().expect("temporary directory");
        let mut config = "global: {scrape_interval: 250ms, evaluation_interval: 250ms}\n\
                          rule_files: [alerts.yml]\nscrape_configs:\n"
            .to_owned();
        for job in JOBS {
            let _ = write!(config, "- job_name: {job}\n  static_configs:\n");
            for id in cluster.ids() {
                let endpoint = cluster.endpoint(id);
                let _ = writeln!(config, "  - targets: ['{}']", endpoint.trim_start_matches("http://"));
            }
        }
        std::fs::write(dir.path().join("alerts.yml"), ALERTS).expect("written");
        std::fs::write(dir.path().join("prometheus.yml"), config).expect("written");
        let (address, process) = prometheus_process::start(dir.path()).await?;
        Some(Self { address, _process: process, _dir: dir })
    }

    /// The series of several expressions, all as of one moment: now.
    pub(crate) async fn query(&self, expressions: &[&str]) -> Vec<Vec<Series>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let mut client = Client::new(&[format!("http://{}", self.address)], &Trust::none()).expect("a client");
        let mut answers = Vec::new();
        for promql in expressions {
            let encoded: String = promql.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let answer = client.text(&format!("/api/v1/query?time={now:.3}&query={encoded}")).await.expect("an answer");
            let json: Value = serde_json::from_str(&answer).expect("JSON");
            assert_eq!(json["status"], "success", "{promql}: {json}");
            answers.push(json["data"]["result"].as_array().expect("series").iter().map(Series::read).collect());
        }
        answers
    }
}

impl Series {
    fn read(json: &Value) -> Self {
        let labels = json["metric"].as_object().expect("labels").iter();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let value = text(&json["value"][1]).replace("Inf", "inf").parse().expect("a number");
        Self { labels: labels.map(|(name, value)| (name.clone(), text(value))).collect(), value }
    }

    /// The value of a label; empty without it.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", |value| value)
    }
}
