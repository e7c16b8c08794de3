//! `strace` on a node: injects failures into system calls, and counts them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// An `strace` attached to a process. It detaches when this is dropped; the
/// process continues untraced.
pub(crate) struct Strace {
    child: Child,
    output: PathBuf,
}

impl Strace {
    /// Makes the `when`-th `fdatasync` of each thread from now on fail, and no later one. `None`,
    /// with a message, if no strace may attach.
    pub(crate) async fn fail_fdatasync(pid: u32, when: u32, output: &Path) -> Option<Self> {
        let inject = format!("inject=fdatasync:error=EIO:when={when}");
        Self::attach(pid, &["-e", "trace=fdatasync", "-e", &inject], output).await
    }

    /// Delays every `fdatasync` from now on by this time. `None`, with a message, if no strace may
    /// attach.
    pub(crate) async fn delay_fdatasync(pid: u32, by: Duration, output: &Path) -> Option<Self> {
        let inject = format!("inject=fdatasync:delay_enter={}us", by.as_micros());
        Self::attach(pid, &["-e", "trace=fdatasync", "-e", &inject], output).await
    }

    /// Records all calls that make data durable. `None`, with a message, if no strace may attach.
    pub(crate) async fn watch_syncs(pid: u32, output: &Path) -> Option<Self> {
        Self::attach(pid, &["-e", "trace=fdatasync,fsync,sync_file_range,msync,syncfs,sync"], output).await
    }

    async fn attach(pid: u32, what: &[&str], output: &Path) -> Option<Self> {
        let attached = Self::try_attach(pid, what, output).await;
        if attached.is_none() {
            eprintln!("skipped: no strace that may attach (Debian package strace)");
        }
        attached
    }

    async fn try_attach(pid: u32, what: &[&str], output: &Path) -> Option<Self> {
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-o"]).arg(output).args(what);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().ok()?;
        let mut lines = BufReader::new(child.stderr.take()?).lines();
        while let Some(line) = lines.next_line().await.ok()? {
            if line.contains("attached") {
                // The pipe must be read, or strace would block when it is full.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Some(Self { child, output: output.to_owned() });
            }
        }
        None
    }

    /// Detaches from the process, and returns the number of calls per thread.
    pub(crate) async fn counts(mut self) -> BTreeMap<u32, usize> {
        // When interrupted, strace detaches and writes its records.
        let id = self.child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        rustix::process::kill_process(id.expect("it runs"), rustix::process::Signal::INT).expect("interrupted");
        self.child.wait().await.expect("ended");
        let text = std::fs::read_to_string(&self.output).expect("what it noted");
        let mut counts = BTreeMap::new();
        // A call interrupted by another thread's line is recorded as unfinished, and
        // later as resumed.
        for line in text.lines().filter(|line| line.contains("sync") && !line.contains("resumed>")) {
            let thread = line.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a thread");
            *counts.entry(thread).or_default() += 1;
        }
        counts
    }
}
