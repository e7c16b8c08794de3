//! Certificates and networks for tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod path;
pub mod stranger;

use quorate_ports::Port;
use quorate_raft::NodeId;
use quorate_transport::{
    Network, Quic, QuicOptions,
    certificates::{Authority, Issued},
    codec::Versions,
};
use quorate_transport_testing::conformance::Harness;
use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;

pub const CLUSTER: &str = "testing";

/// Runs a test where actors can be started.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Runs a test with paused time, which advances when every task waits.
pub fn run_paused<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// An authority and what it issued, in a directory of its own.
pub struct Pki {
    pub authority: Authority,
    pub dir: TempDir,
    /// The versions spoken by nodes that are started from now on.
    pub speaks: Versions,
    /// How long their peers may take for a frame: short, for tests of peers that never end one.
    pub frame_timeout: Duration,
    /// The ports of all nodes, reserved for those that are started again.
    pub ports: Mutex<Vec<Port>>,
}

impl Pki {
    pub fn new() -> Self {
        let authority = Authority::create(CLUSTER).expect("an authority");
        let dir = tempfile::tempdir().expect("a directory");
        authority.write(dir.path()).expect("files");
        Self {
            authority,
            dir,
            speaks: Versions::SPOKEN,
            frame_timeout: Duration::from_millis(500),
            ports: Mutex::default(),
        }
    }

    /// For tests of large frames: a busy machine takes its time for one of 4 MiB.
    pub fn patient() -> Self {
        Self { frame_timeout: Duration::from_secs(20), ..Self::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn issue(&self, node: NodeId) -> Issued {
        self.authority.issue_node(node, &[]).expect("a certificate")
    }

    /// A node's options, its files issued at the first call.
    pub fn options(&self, node: NodeId, listen: Option<SocketAddr>) -> QuicOptions {
        let name = format!("node-{node}");
        if !self.path(&format!("{name}.pem")).exists() {
            self.issue(node).write(self.dir.path(), &name).expect("files");
        }
        let listen = listen.unwrap_or_else(|| self.reserve());
        let (cert, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        let mut options = QuicOptions::new(listen, self.path("ca.pem"), cert, key);
        options.frame_timeout = self.frame_timeout;
        options.speaking(self.speaks)
    }

    fn reserve(&self) -> SocketAddr {
        let port = quorate_ports::reserve_one().expect("a free port");
        let address = port.address();
        self.ports.lock().expect("no test panicked").push(port);
        address
    }
}

impl Harness for Pki {
    fn network(&mut self, node: NodeId, address: Option<SocketAddr>) -> Box<dyn Network> {
        Box::new(Quic::new(self.options(node, address)).expect("a network"))
    }

    fn cluster(&self) -> String {
        CLUSTER.into()
    }
}

/// Writes an issued pair under another directory.
pub fn write(issued: &Issued, dir: &Path, name: &str) {
    issued.write(dir, name).expect("files");
}

/// Catches what is logged.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
