//! `strace` on a node: it makes system calls fail, and counts them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// An `strace` attached to a process. It ends when this is dropped, and the process goes on untraced.
pub(crate) struct Strace {
    child: Child,
    output: PathBuf,
}

impl Strace {
    /// Makes the `when`-th `fdatasync` of each thread fail from now on, and no later one. `None`, with a word, where there is no
    /// strace that may attach.
    pub(crate) async fn fail_fdatasync(pid: u32, when: u32, output: &Path) -> Option<Self> {
        let inject = format!("inject=fdatasync:error=EIO:when={when}");
        Self::attach(pid, &["-e", "trace=fdatasync", "-e", &inject], output).await
    }

    /// Lets every `fdatasync` from now on take so many seconds longer. `None`, with a word, where there is no strace that may attach.
    pub(crate) async fn delay_fdatasync(pid: u32, seconds: u32, output: &Path) -> Option<Self> {
        let inject = format!("inject=fdatasync:delay_enter={seconds}s");
        Self::attach(pid, &["-e", "trace=fdatasync", "-e", &inject], output).await
    }

    /// Notes every call that makes something durable. `None`, with a word, where there is no strace that may attach.
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
                // Read on, or it would block on a full pipe.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Some(Self { child, output: output.to_owned() });
            }
        }
        None
    }

    /// Lets go of the process, and says how many calls each of its threads made.
    pub(crate) async fn counts(mut self) -> BTreeMap<u32, usize> {
        // Interrupted, it detaches and writes out what it has noted.
        let id = self.child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        rustix::process::kill_process(id.expect("it runs"), rustix::process::Signal::INT).expect("interrupted");
        self.child.wait().await.expect("ended");
        let text = std::fs::read_to_string(&self.output).expect("what it noted");
        let mut counts = BTreeMap::new();
        // A call that another thread's line cuts in two is noted as unfinished and, later, as resumed.
        for line in text.lines().filter(|line| line.contains("sync") && !line.contains("resumed>")) {
            let thread = line.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a thread");
            *counts.entry(thread).or_default() += 1;
        }
        counts
    }
}
