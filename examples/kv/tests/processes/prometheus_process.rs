//! The process of a real Prometheus.

use crate::support::raw;
use serde_json::Value;
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::sleep,
};

/// The polling interval; Prometheus cannot signal that it is ready.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Starts one with the `prometheus.yml` of a directory, and waits until it is ready: its address, and
/// the process; `None` where it is not installed.
pub(crate) async fn start(directory: &Path) -> Option<(String, Child)> {
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", directory.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()));
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
    Some((address, process))
}
