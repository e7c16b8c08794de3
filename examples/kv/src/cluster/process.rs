//! A node as a child process.

use crate::{http::messages::ErrorAnswer, serve::Ready};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::{fs, io, path::Path, process::ExitStatus, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
};

/// The time limit for a node to start, including recovery of a large log.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running node. Dropping it kills the process, unless it was released.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// The child stops when this closes, so that it ends with its parent even if the
    /// parent is killed.
    leash: ChildStdin,
    released: bool,
}

impl Process {
    /// Starts `binary` with `config`, and waits until it serves. Its output is appended to `log`.
    pub(super) async fn start(binary: &Path, config: &Path, log: &Path) -> Result<Self, String> {
        let said = fs::OpenOptions::new().append(true).create(true).open(log).map_err(|error| error.to_string())?;
        let before = said.metadata().map_or(0, |metadata| metadata.len());
        let mut command = Command::new(binary);
        command.args(["serve", "--attached", "--json", "--config"]).arg(config);
        // The environment must not override the configuration, and Ctrl-C on the terminal is
        // handled by the parent.
        for (variable, _) in std::env::vars_os().filter(|(variable, _)| is_override(variable)) {
            command.env_remove(variable);
        }
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", binary.display()))?;
        let (Some(leash), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("it has no standard input or output".to_owned());
        };
        let mut line = String::new();
        let read = tokio::time::timeout(START_LIMIT, BufReader::new(out).read_line(&mut line)).await;
        if read.is_ok() && serde_json::from_str::<Ready>(&line).is_ok() {
            return Ok(Self { child, leash, released: false });
        }
        // Kills the process if it still runs.
        let _ = child.kill().await;
        let text = fs::read(log).unwrap_or_default();
        let new = text.get(usize::try_from(before).unwrap_or(0)..).unwrap_or_default();
        let text = String::from_utf8_lossy(new);
        let last = text.lines().last().unwrap_or("no output");
        let error = serde_json::from_str::<ErrorAnswer>(last).map(|error| error.message);
        let last = error.unwrap_or_else(|_| last.to_owned());
        Err(if read.is_ok() {
            last
        } else {
            format!("it did not serve within {START_LIMIT:?}; its last output: {last}")
        })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal. After `STOP` it returns once all threads are stopped: on a busy machine
    /// others run on until the one that gets the signal has run.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process has ended"))?;
        kill_process(id, signal)?;
        if signal == Signal::STOP {
            // The state is only looked at: the end of the process is still to be collected.
            let either = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(id), either)?;
        }
        Ok(())
    }

    /// Sends SIGKILL, and waits for the end of the process.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Waits until the process ends.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Lets the process outlive this one; returns its process id.
    pub(super) async fn release(mut self) -> io::Result<Option<u32>> {
        self.leash.write_all(b"stay\n").await?;
        self.released = true;
        Ok(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.released {
            // A process that has already ended cannot be killed.
            let _ = self.child.start_kill();
        }
    }
}

fn is_override(variable: &std::ffi::OsStr) -> bool {
    variable.to_str().is_some_and(|variable| variable.starts_with("QUORATE_"))
}
