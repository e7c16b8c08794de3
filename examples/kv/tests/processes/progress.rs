//! Progress of a command that takes long, on a terminal and into a pipe: a backup of a server that
//! stops in the middle.

use crate::{
    support::{PATIENCE, command_alone},
    terminal::Terminal,
};
use std::process::Stdio;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::Command,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

const HALF: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_shows_a_backup_on_a_terminal_and_is_gone_after_the_error() {
    let dir = TempDir::new().expect("temporary directory");
    let server = Server::start().await;
    let terminal = Terminal::open();
    let mut backup = terminal.run(command(&server, &dir).env("TERM", "xterm-256color"));
    let is_half = |screen: &str| screen.contains("backup [====") && screen.contains("] 1.0 MiB of 2.0 MiB (50 %), ");
    terminal.until("half of the backup", is_half).await;
    server.stop().await;
    assert!(!timeout(PATIENCE, backup.wait()).await.expect("in time").expect("it ends").success());
    let is_error = |screen: &str| screen.contains("quorate-kv: http://") && !screen.contains("MiB");
    terminal.until("the error alone", is_error).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_every_five_seconds_shows_a_backup_into_a_pipe() {
    let dir = TempDir::new().expect("temporary directory");
    let server = Server::start().await;
    let mut command = command(&server, &dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut backup = command.spawn().expect("the binary runs");
    let mut lines = BufReader::new(backup.stderr.take().expect("piped")).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("text").expect("a line");
    assert!(line.starts_with("quorate-kv: backup: 1.0 MiB of 2.0 MiB (50 %), "), "{line}");
    assert!(line.contains("KiB/s, ") && line.ends_with(" s left"), "{line}");
    server.stop().await;
    let output = timeout(PATIENCE, backup.wait_with_output()).await.expect("in time").expect("it ends");
    assert_eq!((output.status.code(), &*output.stdout), (Some(5), &b""[..]));
    // Progress ended before the error was said.
    let mut rest = Vec::new();
    while let Some(line) = lines.next_line().await.expect("text") {
        rest.push(line);
    }
    assert!(rest.last().is_some_and(|line| line.contains("cannot be reached")), "{rest:?}");
}

fn command(server: &Server, dir: &TempDir) -> Command {
    let mut command = command_alone();
    command.args(["backup", "--endpoint", &server.url, "--out"]).arg(dir.path().join("backup"));
    command
}

/// A server that sends half of a backup, and closes the connection when it is told.
struct Server {
    url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * HALF);
            let _ = stream.read(&mut [0; 4096]).await.expect("a request");
            stream.write_all(head.as_bytes()).await.expect("sent");
            stream.write_all(&vec![7; HALF]).await.expect("sent");
            let _ = stopped.await;
        });
        Self { url, stop, serving }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.serving.await.expect("it served");
    }
}
