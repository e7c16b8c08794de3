//! The expressions of the Grafana dashboard and of the alert rules, run in a real Prometheus
//! that scrapes a live cluster. Skipped with a message where `prometheus` is not installed;
//! CI installs it.

use crate::support::{PATIENCE, Running, laid_out, published, raw, run};
use quorate::transport::certificates::LIST_FILE;
use quorate_kv::client::{Client, ReadMode, Trust};
use quorate_metrics_testing::{alert_expressions, dashboard_expressions};
use serde_json::Value;
use std::{fmt::Write, process::Stdio};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};

/// The polling interval; Prometheus cannot signal that it has scraped.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_of_dashboard_and_alerts_answers_on_a_live_cluster() {
    let mut cluster = with_revocation_list().await;
    let Some(prometheus) = Prometheus::scrape(&cluster).await else {
        eprintln!("skipped: no prometheus in PATH (Debian package prometheus)");
        return;
    };
    // A rise is visible only if a scrape came before it.
    prometheus.until_answered(r#"sum(up{job="quorate"}) == 3"#).await;
    // Load for all metrics: writes before and after the loss of a leader, and a restart.
    write(&cluster, "before").await;
    let (leader, _) = cluster.roles().await;
    cluster.kill(leader).await.expect("it ran");
    cluster.leader(PATIENCE).await.expect("another leader");
    cluster.start_node(leader).await.expect("it starts again");
    write(&cluster, "after").await;

    // An interval long enough to include the whole test on a slow machine.
    let has_pressure = std::path::Path::new("/proc/pressure/cpu").exists();
    for expression in dashboard_expressions(".+", "5m") {
        if !has_pressure && expression.promql.contains("quorate_pressure_ratio") {
            continue; // a kernel without it
        }
        let series = prometheus.until_answered(&expression.promql).await;
        assert!(!series.is_empty(), "{}: no data for {}", expression.title, expression.promql);
    }
    for expression in alert_expressions() {
        prometheus.query(&expression.promql).await; // panics if it is an error; firing is what it should not do
    }
    // One node leads, and all have reached its term.
    for expression in [r#"sum(quorate_role{role="leader"}) == 1"#, "max(quorate_term) == min(quorate_term)"] {
        assert_eq!(prometheus.until_answered(expression).await.len(), 1, "{expression}");
    }
    let elections = r#"sum(quorate_elections_finished_total{phase="vote",result="won"})"#;
    assert!(value(&prometheus.query(elections).await[0]) >= 1.0, "the survivors elected one of themselves");
}

/// A cluster of three nodes with a revocation list, so that its end is shown.
async fn with_revocation_list() -> Running {
    let mut cluster = laid_out("demo", 3);
    let certs = cluster.path("certs");
    run(&["certs", "crl", "--dir", &certs]).await.succeeded();
    for id in cluster.ids() {
        let file = cluster.layout().config_file(id);
        let text = std::fs::read_to_string(&file).expect("readable");
        let text = text.replace("[tls]\n", &format!("[tls]\ncrl = {:?}\n", format!("{certs}/{LIST_FILE}")));
        std::fs::write(&file, text).expect("written");
    }
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    published(&cluster).await;
    cluster
}

/// A Prometheus process that scrapes four times a second.
struct Prometheus {
    address: String,
    _process: Child,
    _dir: TempDir,
}

impl Prometheus {
    async fn scrape(cluster: &Running) -> Option<Self> {
        let dir = TempDir::new().expect("temporary directory");
        let mut config = "global: {scrape_interval: 250ms, evaluation_interval: 250ms}\n\
                          scrape_configs:\n- job_name: quorate\n  static_configs:\n"
            .to_owned();
        for id in cluster.ids() {
            let endpoint = cluster.endpoint(id);
            let _ = writeln!(config, "  - targets: ['{}']", endpoint.trim_start_matches("http://"));
        }
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("written");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("tsdb").display()));
        command.arg("--web.listen-address=127.0.0.1:0").arg("--log.format=json");
        command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("prometheus does not run: {error}"),
        };
        // The system chose the port; the log contains it.
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let address = loop {
            let line = lines.next_line().await.expect("text").expect("prometheus ended");
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            match line["address"].as_str() {
                Some(address) if address.starts_with("127.0.0.1:") && !address.ends_with(":0") => {
                    break address.to_owned();
                }
                _ => {}
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        while raw(&address, "GET /-/ready", "", b"").await.status != 200 {
            sleep(ASK_AGAIN).await;
        }
        Some(Self { address, _process: process, _dir: dir })
    }

    /// The series of an expression now.
    async fn query(&self, promql: &str) -> Vec<Value> {
        let encoded: String = promql.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut client = Client::new(&[format!("http://{}", self.address)], &Trust::none()).expect("a client");
        let answer = client.text(&format!("/api/v1/query?query={encoded}")).await.expect("an answer");
        let json: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(json["status"], "success", "{promql}: {json}");
        json["data"]["result"].as_array().expect("series").clone()
    }

    /// The series of an expression, as soon as there are any.
    async fn until_answered(&self, promql: &str) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let series = self.query(promql).await;
            if !series.is_empty() || Instant::now() > deadline {
                return series;
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

fn value(series: &Value) -> f64 {
    series["value"][1].as_str().and_then(|number| number.parse().ok()).expect("a number")
}

async fn write(cluster: &Running, prefix: &str) {
    let mut client = cluster.client(&cluster.running()).expect("a client");
    for n in 0..20 {
        client.put(&format!("{prefix}-{n}"), "value").await.expect("written");
        client.get(&format!("{prefix}-{n}"), ReadMode::Linearizable).await.expect("read");
    }
}
