//! Runs a runbook as it stands in `RUNBOOKS.md`: each block of commands by `sh`, in the directory that has
//! the configurations, certificates and data of all nodes.
//!
//! Two things differ from an operator's shell. `systemctl` is a script that asks this process, which is the
//! parent of all nodes. A line `# by hand: …` stands for work outside of the cluster, such as a cable: it
//! removes the injected fault, or changes the targets of Prometheus.

use crate::{
    episode::{Fault, World},
    support::{BINARY, PATIENCE},
};
use quorate::NodeId;
use quorate_kv::cluster::{ClusterError, Signal};
use quorate_metrics_testing::{blocks, runbook};
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    process::Command,
    time::{Instant, sleep},
};

/// Asks the test, and ends with 0 if it did what it was asked for.
const SYSTEMCTL: &str = "#!/bin/sh\nset -eu\nhere=$(dirname \"$0\")\nmkfifo \"$here/$$\"\n\
                         echo \"$$ $*\" > \"$here/requests\"\nread -r answer < \"$here/$$\"\nrm \"$here/$$\"\n\
                         [ \"$answer\" = done ] || { echo \"$answer\" >&2; exit 1; }\n";
/// A line of a block that the test does.
const BY_HAND: &str = "# by hand: ";
/// The pause between two looks whether the trouble is over.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Runs the runbook of a fault's alert, which fires with these labels. All blocks but the last are steps,
/// each once; the last one says when it is over, and is repeated until it succeeds.
pub(crate) async fn run(world: &mut World, fault: &Fault, labels: &BTreeMap<String, String>) -> Result<(), String> {
    let blocks = blocks(runbook(fault.alert).ok_or("there is none")?);
    let (over, steps) = blocks.split_last().ok_or("it has no commands")?;
    let shell = Shell::new(world, labels)?;
    for step in steps {
        shell.step(world, fault, step).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    while let Err(problem) = shell.run(world, over).await {
        if Instant::now() > deadline {
            return Err(format!("it does not end: {problem}"));
        }
        sleep(ASK_AGAIN).await;
    }
    Ok(())
}

/// The environment of the commands.
struct Shell {
    variables: Vec<(&'static str, String)>,
    tools: tempfile::TempDir,
    requests: std::sync::Mutex<Option<pipe::Receiver>>,
}

impl Shell {
    fn new(world: &World, labels: &BTreeMap<String, String>) -> Result<Self, String> {
        let tools = tempfile::TempDir::new().map_err(|error| error.to_string())?;
        let path = |name: &str| tools.path().join(name);
        std::os::unix::fs::symlink(BINARY, path("quorate-kv")).map_err(|error| error.to_string())?;
        fs::write(path("systemctl"), SYSTEMCTL).map_err(|error| error.to_string())?;
        fs::set_permissions(path("systemctl"), fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        rustix::fs::mknodat(rustix::fs::CWD, path("requests"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .map_err(|error| error.to_string())?;
        let requests = pipe::OpenOptions::new().read_write(true).open_receiver(path("requests"));
        let requests = requests.map_err(|error| error.to_string())?;
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let ids = world.cluster.ids();
        let down = ids.iter().filter(|id| world.is_down(**id)).map(|id| id.to_string()).collect::<Vec<_>>();
        let new = world.cluster.joiners().first().copied().unwrap_or_default();
        let variables = [
            ("NODE", label("node")),
            ("PEER", label("peer")),
            ("DOWN", down.join(" ")),
            ("MEMBERS", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
            ("NEW", new.to_string()),
            ("ADDRESS", world.cluster.layout().address(new)),
            ("XDG_CONFIG_HOME", "/nowhere/at/all".to_owned()),
            ("PATH", format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap_or_default())),
        ];
        Ok(Self { variables: variables.to_vec(), tools, requests: std::sync::Mutex::new(Some(requests)) })
    }

    /// A block, interrupted by what is to be done by hand.
    async fn step(&self, world: &mut World, fault: &Fault, block: &str) -> Result<(), String> {
        let mut commands = String::new();
        for line in block.lines() {
            let Some(work) = line.strip_prefix(BY_HAND) else {
                commands += &format!("{line}\n");
                continue;
            };
            self.run(world, &std::mem::take(&mut commands)).await?;
            if work.contains("targets of Prometheus") {
                let running = world.cluster.running();
                world.prometheus.scrape(&world.cluster, &running);
            } else {
                (fault.repair)(world).await.ok_or_else(|| format!("{work}: not possible"))?;
            }
        }
        self.run(world, &commands).await
    }

    async fn run(&self, world: &mut World, commands: &str) -> Result<(), String> {
        if commands.trim().is_empty() {
            return Ok(());
        }
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", commands]).current_dir(world.cluster.layout().dir());
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"QUORATE_")) {
            command.env_remove(variable);
        }
        let up = world.cluster.running().into_iter().filter(|id| !world.is_down(*id));
        let endpoints = up.map(|id| world.cluster.endpoint(id)).collect::<Vec<_>>().join(",");
        command
            .envs(self.variables.iter().cloned())
            .env("QUORATE_ENDPOINTS", endpoints)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn().map_err(|error| error.to_string())?;
        let taken = self.requests.lock().ok().and_then(|mut requests| requests.take());
        let mut requests = BufReader::new(taken.ok_or("a step runs already")?);
        let ended = {
            let mut ended = std::pin::pin!(tokio::time::timeout(PATIENCE * 2, child.wait_with_output()));
            loop {
                let mut request = String::new();
                tokio::select! {
                    output = &mut ended => break output,
                    _ = requests.read_line(&mut request) => self.answer(world, &request).await,
                }
            }
        };
        if let Ok(mut slot) = self.requests.lock() {
            *slot = Some(requests.into_inner());
        }
        let output = ended.map_err(|_| format!("{commands:?} does not end"))?.map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{commands:?}: {}: {} {}", output.status, text(&output.stdout), text(&output.stderr))),
        }
    }

    /// Does what `systemctl` was called for, and answers it.
    async fn answer(&self, world: &mut World, request: &str) {
        let (asker, request) = request.trim().split_once(' ').unwrap_or_default();
        let answer = world.systemctl(request).await.map_or_else(|problem| problem, |()| "done".to_owned());
        // Opening it for reading too does not wait for the one that asks, which may have been killed.
        let pipe = fs::OpenOptions::new().read(true).write(true).open(self.tools.path().join(asker));
        if let Ok(mut pipe) = pipe {
            let _ = std::io::Write::write_all(&mut pipe, format!("{answer}\n").as_bytes());
            // The answer stays in the pipe while it is open.
            tokio::spawn(async move {
                sleep(PATIENCE).await;
                drop(pipe);
            });
        }
    }
}

impl World {
    /// Whether a node's process has ended.
    pub(crate) fn is_down(&self, id: NodeId) -> bool {
        let Ok(pid) = self.cluster.pid(id) else { return true };
        // The process of a node that ended by itself stays until it is waited for.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with('Z'))
    }

    /// `start quorate-kv@1` and so on.
    async fn systemctl(&mut self, request: &str) -> Result<(), String> {
        let (verb, unit) = request.rsplit_once(" quorate-kv@").ok_or_else(|| format!("what is {request:?}?"))?;
        let id = NodeId(unit.parse().map_err(|_| format!("{unit:?} is no id of a node"))?);
        let done = match verb {
            "start" => self.start(id).await,
            "stop" => self.stop(id).await,
            "restart" => match self.stop(id).await {
                Ok(()) => self.start(id).await,
                error => error,
            },
            "reload" => self.cluster.signal(id, Signal::HUP),
            "kill --signal=SIGKILL" if self.is_down(id) => Ok(()),
            "kill --signal=SIGKILL" => self.cluster.kill(id).await,
            _ => return Err(format!("what is {request:?}?")),
        };
        done.map_err(|error| error.to_string())
    }

    async fn start(&mut self, id: NodeId) -> Result<(), ClusterError> {
        if self.is_down(id) && self.cluster.running().contains(&id) {
            self.cluster.ended(id, PATIENCE).await?;
        }
        self.cluster.start_node(id).await
    }

    async fn stop(&mut self, id: NodeId) -> Result<(), ClusterError> {
        if !self.is_down(id) {
            return self.cluster.stop(id).await.map(drop);
        }
        if self.cluster.running().contains(&id) {
            self.cluster.ended(id, PATIENCE).await?;
        }
        Ok(())
    }
}
