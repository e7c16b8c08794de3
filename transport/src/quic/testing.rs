//! Nodes for tests that look into a running network.

use super::{Quic, QuicOptions, endpoint, endpoint::QuicLinks, reload::Loaded};
use crate::{
    certificates::{Authority, LIST_FILE, Reason},
    network::{ConnectionResult, Inbox, Introduction, NetworkContext, NetworkObserver},
};
use quorate_raft::NodeId;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;

pub(super) const CLUSTER: &str = "testing";
const HOUR: Duration = Duration::from_secs(3600);

/// An authority with a revocation list, and the files of nodes.
pub(super) struct Pki {
    authority: Authority,
    dir: TempDir,
}

impl Pki {
    pub(super) fn new() -> Self {
        let authority = Authority::create(CLUSTER).expect("an authority");
        let dir = tempfile::tempdir().expect("a directory");
        authority.write(dir.path()).expect("files");
        authority.revoke(dir.path(), &[], Reason::default(), HOUR).expect("a list");
        Self { authority, dir }
    }

    /// A network that takes further sets from nothing but [`Self::load`].
    pub(super) fn start(&self, node: NodeId, incarnation: u64, election_timeout: Duration) -> Running {
        let (counts, inbox) = (Arc::new(Counts::default()), Inbox::new(|_| {}));
        let introduction = Introduction { incarnation, ..Introduction::default() };
        let observer = counts.clone();
        let context = NetworkContext { cluster: CLUSTER.into(), node, introduction, election_timeout, inbox, observer };
        let links = endpoint::start(self.quic(node), context).expect("a network");
        Running { links, counts }
    }

    /// The present files of a node.
    pub(super) fn load(&self, node: NodeId) -> Loaded {
        self.quic(node).loaded
    }

    /// Gives a node another certificate and key.
    pub(super) fn renew(&self, node: NodeId) {
        let issued = self.authority.issue_node(node, &[]).expect("issued");
        issued.replace(self.dir.path(), &format!("node-{node}")).expect("files");
    }

    /// Puts the certificate of `node` on the list.
    pub(super) fn revoke(&self, node: NodeId) {
        let pem = std::fs::read_to_string(self.dir.path().join(format!("node-{node}.pem"))).expect("a file");
        let certified = self.authority.examine(&pem).expect("a certificate");
        self.authority.revoke(self.dir.path(), &[certified.serial], Reason::default(), HOUR).expect("a list");
    }

    fn quic(&self, node: NodeId) -> Quic {
        let file = |name: &str| self.dir.path().join(name);
        let name = format!("node-{node}");
        let (cert, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
        if !cert.exists() {
            self.authority.issue_node(node, &[]).expect("issued").write(self.dir.path(), &name).expect("files");
        }
        let mut options = QuicOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), file("ca.pem"), cert, key);
        options.crl = Some(file(LIST_FILE));
        options.reload_every = Duration::ZERO;
        Quic::new(options).expect("a network")
    }
}

/// A node that consists of its end of a network alone.
pub(super) struct Running {
    pub(super) links: QuicLinks,
    pub(super) counts: Arc<Counts>,
}

/// The results of its connections.
#[derive(Default)]
pub(super) struct Counts(Mutex<Vec<(Option<NodeId>, ConnectionResult)>>);

impl Counts {
    pub(super) fn connections(&self) -> Vec<(Option<NodeId>, ConnectionResult)> {
        self.0.lock().expect("no test panicked").clone()
    }
}

impl NetworkObserver for Counts {
    fn connection(&self, peer: Option<NodeId>, result: ConnectionResult) {
        self.0.lock().expect("no test panicked").push((peer, result));
    }
}

/// Runs a test where actors can be started.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}
