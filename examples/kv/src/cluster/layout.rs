//! The directory of a cluster: certificates, configurations, data and logs.

use super::{ClusterError, paths::PathEnds};
use crate::certs;
use quorate::NodeId;
use quorate_ports::Port;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The properties of a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The path of the `quorate-kv` binary.
    pub binary: PathBuf,
    /// The directory of all files; created if missing.
    pub dir: PathBuf,
    /// The cluster's name.
    pub name: String,
    /// The number of initial nodes, with ids from 1.
    pub nodes: u64,
    /// The number of further nodes that may join later, with the following ids. They wait to be
    /// added, and no configuration names them.
    pub joiners: u64,
    /// The id of the witness, if there is one.
    pub witness: Option<NodeId>,
    /// Whether nodes reach each other over proxies, so that paths between them can be cut.
    pub paths: bool,
    /// Further configuration for every node, TOML that begins with a section: `[timing]`,
    /// `[snapshot]`, `[storage]` or `[limits]`.
    pub sections: String,
}

impl Options {
    /// A cluster named "demo" of three nodes with the default configuration.
    pub fn new(binary: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        let (binary, dir) = (binary.into(), dir.into());
        let (name, sections) = ("demo".to_owned(), String::new());
        Self { binary, dir, name, nodes: 3, joiners: 0, witness: None, paths: false, sections }
    }

    fn all(&self) -> u64 {
        self.nodes.saturating_add(self.joiners)
    }
}

/// The paths and addresses of a cluster. Its ports are reserved until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Layout {
    options: Options,
    nodes: BTreeMap<NodeId, Arc<Ports>>,
}

#[derive(Debug)]
struct Ports {
    raft: Port,
    http: Port,
    /// The port at which other nodes dial it, if that is not its own.
    dialled: Option<Port>,
}

impl Ports {
    fn dialled(&self) -> SocketAddr {
        self.dialled.as_ref().unwrap_or(&self.raft).address()
    }
}

impl Layout {
    /// Creates certificates and configurations.
    pub(super) fn make(options: Options) -> Result<Self, ClusterError> {
        let hosts = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        certs::make(&certs::Args {
            nodes: (1..=options.all()).map(|id| (NodeId(id), hosts.clone())).collect(),
            ..certs::Args::new(options.dir.join("certs"), &options.name)
        })?;
        let mut layout = Self { options, nodes: BTreeMap::new() };
        layout.choose_ports()?;
        Ok(layout)
    }

    /// Writes configurations with new ports, and removes all data, which may contain
    /// the old addresses.
    pub(super) fn choose_ports(&mut self) -> Result<(), ClusterError> {
        match fs::remove_dir_all(self.options.dir.join("data")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let count = usize::try_from(self.options.all()).unwrap_or(usize::MAX);
        let (raft, http) = (quorate_ports::reserve(count)?, quorate_ports::reserve(count)?);
        let mut dialled = quorate_ports::reserve(if self.options.paths { count } else { 0 })?.into_iter();
        let ports = raft.into_iter().zip(http).map(|(raft, http)| Ports { raft, http, dialled: dialled.next() });
        self.nodes = (1..=self.options.all()).map(NodeId).zip(ports.map(Arc::new)).collect();
        for (id, ports) in &self.nodes {
            fs::write(self.config_file(*id), self.configuration(*id, ports))?;
        }
        Ok(())
    }

    /// The binary that runs the nodes.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.options.binary
    }

    /// The directory of all files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The ids of the initial nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        (1..=self.options.nodes).map(NodeId).collect()
    }

    /// The ids of the nodes that may join.
    #[must_use]
    pub fn joiners(&self) -> Vec<NodeId> {
        (self.options.nodes + 1..=self.options.all()).map(NodeId).collect()
    }

    /// The address at which other nodes dial a node. Empty for an unknown id.
    #[must_use]
    pub fn address(&self, id: NodeId) -> String {
        self.nodes.get(&id).map(|node| node.dialled().to_string()).unwrap_or_default()
    }

    /// The ways to all nodes; none if nodes dial each other directly.
    pub(super) fn paths(&self) -> Vec<PathEnds> {
        let ends = |(node, ports): (&NodeId, &Arc<Ports>)| {
            let (dialled, own) = (ports.dialled.as_ref()?.address(), ports.raft.address());
            Some(PathEnds { node: *node, dialled, own })
        };
        self.nodes.iter().filter_map(ends).collect()
    }

    /// The URL at which a node serves clients. Empty for an unknown id.
    #[must_use]
    pub fn endpoint(&self, id: NodeId) -> String {
        self.nodes.get(&id).map(|node| format!("http://{}", node.http.address())).unwrap_or_default()
    }

    /// The path of a node's configuration.
    #[must_use]
    pub fn config_file(&self, id: NodeId) -> PathBuf {
        self.options.dir.join(format!("node-{id}.toml"))
    }

    /// The path of a node's data directory.
    #[must_use]
    pub fn data_dir(&self, id: NodeId) -> PathBuf {
        self.options.dir.join("data").join(id.to_string())
    }

    /// The path of the file with a node's standard error, of all its runs.
    #[must_use]
    pub fn log_file(&self, id: NodeId) -> PathBuf {
        self.options.dir.join(format!("node-{id}.log"))
    }

    fn configuration(&self, id: NodeId, own: &Ports) -> String {
        let certs = self.options.dir.join("certs");
        let quoted = |path: PathBuf| toml::Value::String(path.display().to_string()).to_string();
        let (members, joiners) = (self.ids(), self.joiners());
        let state = if joiners.contains(&id) { "state = \"join\"\n" } else { "" };
        let mut text = format!(
            "node_id = {id}\ncluster = {:?}\ndata_dir = {}\nraft = \"{}\"\nhttp = \"{}\"\n{state}\n\
             [tls]\nca = {}\ncert = {}\nkey = {}\n",
            self.options.name,
            quoted(self.data_dir(id)),
            own.raft.address(),
            own.http.address(),
            quoted(certs.join("ca.pem")),
            quoted(certs.join(format!("node-{id}.pem"))),
            quoted(certs.join(format!("node-{id}.key"))),
        );
        // A joining node is dialled by the leader that adds it and learns all addresses from it; a
        // joining witness must list itself.
        let is_witness = self.options.witness == Some(id);
        let peers = match joiners.contains(&id) {
            true => joiners.iter().copied().filter(|joiner| *joiner == id && is_witness).collect(),
            false => members,
        };
        for (id, peer) in self.nodes.iter().filter(|(id, _)| peers.contains(id)) {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[[peers]]\nid = {id}\naddr = \"{}\"\n", peer.dialled());
            if self.options.witness == Some(*id) {
                text += "witness = true\n";
            }
        }
        text + "\n" + &self.options.sections
    }
}
