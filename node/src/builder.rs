//! How a node comes to be.

use crate::{
    actors::{self, Plan},
    config::{Limits, Sessions, Snapshots, Timing},
    error::StartError,
    fate::Fate,
    machine::StateMachine,
    node::Node,
};
use quorate_metrics::Metrics;
use quorate_raft::{
    Change, Index, MachineVersions, Membership, NodeId, Skip, Term,
    address::{are_same, is_dialable},
};
use quorate_storage::contract::StorageHandle;
use quorate_transport::network::Network;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
};
use tokio::sync::oneshot;

/// A node, described but not started. [`Builder::voters`], [`Builder::network`] and [`Builder::storage`] are needed; the
/// rest has defaults.
pub struct Builder {
    id: NodeId,
    cluster: String,
    voters: Vec<(NodeId, String)>,
    joins: bool,
    witness: Option<NodeId>,
    prefers: Vec<NodeId>,
    network: Option<Box<dyn Network>>,
    storage: Option<StorageHandle>,
    timing: Timing,
    limits: Limits,
    snapshots: Snapshots,
    sessions: Sessions,
    machine_version: u32,
    machine_versions: Option<RangeInclusive<u32>>,
    skips: Vec<Skip>,
    metrics: Metrics,
    seed: Option<u64>,
}

impl Builder {
    /// How many entries may be skipped.
    pub const SKIPS_MAX: usize = 256;

    pub(crate) fn new(id: NodeId, cluster: String) -> Self {
        Self {
            id,
            cluster,
            voters: Vec::new(),
            joins: false,
            witness: None,
            prefers: Vec::new(),
            network: None,
            storage: None,
            timing: Timing::default(),
            limits: Limits::default(),
            snapshots: Snapshots::default(),
            sessions: Sessions::default(),
            machine_version: 0,
            machine_versions: None,
            skips: Vec::new(),
            metrics: Metrics::new(),
            seed: None,
        }
    }

    /// The initial members, this node among them, each with the address at which *this* node dials it.
    #[must_use]
    pub fn voters<A: Into<String>>(mut self, voters: impl IntoIterator<Item = (NodeId, A)>) -> Self {
        self.voters = voters.into_iter().map(|(id, address)| (id, address.into())).collect();
        self
    }

    /// It belongs to no cluster yet: it waits until a leader of one adds it ([`Change::add`](crate::Change::add)) and sends it
    /// the log. [`Builder::voters`] are not needed then; those that are given say at which address this node dials them. A node
    /// that has a log goes by that, whatever this says.
    #[must_use]
    pub fn joins(mut self) -> Self {
        self.joins = true;
        self
    }

    /// The member that is a witness, to be told all nodes alike; for one that [joins](Builder::joins) itself, if it is to be added as
    /// one ([`Change::add_witness`](crate::Change::add_witness)).
    ///
    /// A witness keeps terms, votes and the identity of entries, and nothing of what they say; it needs no state machine, and the one
    /// that it is started with is dropped. It votes, and never leads: with two full copies it breaks the tie when one is gone. What is
    /// committed while one is gone has only the other copy: if that is lost too, so is what nobody else has.
    #[must_use]
    pub fn witness(mut self, id: NodeId) -> Self {
        self.witness = Some(id);
        self
    }

    /// Who should lead rather than others, the best first; to be told all nodes alike. A leader that is not the first of those who
    /// are there and have kept up hands over to that one, once it has led for some seconds. Elections don't ask for it: if nobody
    /// preferred is there, anybody leads.
    #[must_use]
    pub fn prefers(mut self, leaders: impl IntoIterator<Item = NodeId>) -> Self {
        self.prefers = leaders.into_iter().collect();
        self
    }

    /// How it talks to the others: for example [`transport::Quic`](quorate_transport::Quic).
    #[must_use]
    pub fn network(mut self, network: impl Network) -> Self {
        self.network = Some(Box::new(network));
        self
    }

    /// Where it keeps its log: for example [`storage::Wal`](quorate_storage::Wal), or an actor of your own in a
    /// [`StorageHandle`].
    #[must_use]
    pub fn storage(mut self, storage: impl Into<StorageHandle>) -> Self {
        self.storage = Some(storage.into());
        self
    }

    /// When things happen.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// How much it takes on.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// When it takes snapshots, and how it sends them.
    #[must_use]
    pub fn snapshots(mut self, snapshots: Snapshots) -> Self {
        self.snapshots = snapshots;
        self
    }

    /// How many client sessions the cluster remembers, and for how long.
    #[must_use]
    pub fn sessions(mut self, sessions: Sessions) -> Self {
        self.sessions = sessions;
        self
    }

    /// The version of what its state machine writes: of the commands that this release proposes, and of its snapshots. Default 0.
    /// Raise it when older releases could not apply them; by itself, the node does nothing differently.
    ///
    /// A voter whose machine can't apply it votes for another: so nobody leads whose entries a quorum could not apply.
    #[must_use]
    pub fn machine_version(mut self, writes: u32) -> Self {
        self.machine_version = writes;
        self
    }

    /// The versions that its state machine can apply, and restore snapshots of. Default: all up to what it writes. More than
    /// that lets a release learn to read what the next one will write: [`Status::machine_versions`](crate::Status) says when all
    /// members can.
    #[must_use]
    pub fn machine_versions(mut self, applies: RangeInclusive<u32>) -> Self {
        self.machine_versions = Some(applies);
        self
    }

    /// An entry whose command is not applied: its caller, if there still is one, is told [`ProposeError::Skipped`](crate::ProposeError).
    /// May be called for several. This is the way out when a state machine panics at an entry, after each restart again:
    /// [`Failure::ApplyPanicked`](crate::Failure) names the entry.
    ///
    /// **To be told all nodes alike**: whose lists differ do not hear each other, and say so, for one would apply what another does
    /// not. Skip nothing that any node has applied: a node whose snapshot has what the entry did refuses to start. Keep an entry on
    /// the list until the snapshots of all nodes cover it; those remember it.
    #[must_use]
    pub fn skip(mut self, index: Index, term: Term, checksum: u32) -> Self {
        self.skips.push(Skip { index, term, checksum });
        self
    }

    /// Where it is measured. Several nodes of a process may share one.
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// Fixes the randomness of election timeouts, for tests that must run the same way each time. By default it comes
    /// from the operating system. A node that is started again needs another seed: from it also come the names by which
    /// nodes tell what they ask of each other from what they asked before a restart.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the node on threads of its own: one for consensus and network, one for the storage, one for the state
    /// machine; while a snapshot is written, sent or received, one or two more. Returns as soon as its log is recovered, its
    /// state machine restored from the newest snapshot, and its network up; it need not have a leader yet.
    ///
    /// # Errors
    /// If the configuration makes no sense, the storage can't be recovered, the state machine refuses the snapshot, or the
    /// network can't be opened. Then nothing is left running.
    pub async fn start<M: StateMachine>(self, machine: M) -> Result<Node<M>, StartError> {
        let name = format!("quorate-{}", self.id);
        let plan = self.plan()?;
        let (started, starting) = oneshot::channel();
        // Made here, for actix would panic if it can't be.
        let cannot = |what: &str, error: std::io::Error| {
            let remedy = "raise the limits of open files (ulimit -n) and processes (ulimit -u), or free memory";
            StartError::Config(format!("can't start the node's {what}: {error}; {remedy}, then start it again"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| cannot("event loop", error))?;
        let run = move || {
            let runtime = std::cell::Cell::new(Some(runtime));
            let made = || runtime.take().unwrap_or_else(|| unreachable!("it is asked for once"));
            actix::System::with_tokio_rt(made).block_on(async move {
                let running = actors::launch(plan, machine, true).await;
                let (node, running) = match running {
                    Ok((node, running)) => (Ok(node), Some(running)),
                    Err(error) => (Err(error), None),
                };
                // If nobody waits for the node any more, its handle is dropped here, and it shuts down.
                let _ = started.send(node);
                if let Some(running) = running {
                    running.until_ended().await;
                }
            });
        };
        std::thread::Builder::new().name(name).spawn(run).map_err(|error| cannot("thread", error))?;
        starting.await.unwrap_or_else(|_| Err(StartError::Config("the node's thread panicked while starting".into())))
    }

    /// Starts the node on the current thread, all actors of it, within a [`tokio::task::LocalSet`]. So several nodes can
    /// share a thread, and with paused time, a seed, and a network and storage in memory, a whole cluster is
    /// deterministic.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start_local<M: StateMachine>(self, machine: M) -> Result<Node<M>, StartError> {
        let (node, running) = actors::launch(self.plan()?, machine, false).await?;
        tokio::task::spawn_local(running.until_ended());
        Ok(node)
    }

    fn machine(&self) -> Result<MachineVersions, StartError> {
        let writes = self.machine_version;
        let (oldest, newest) = self.machine_versions.clone().unwrap_or(0..=writes).into_inner();
        let machine = MachineVersions { writes, oldest, newest };
        if machine.apply(writes) {
            return Ok(machine);
        }
        Err(StartError::Config(format!(
            "the state machine writes version {writes} and applies only {oldest} to {newest}: let it apply what it writes \
             (Builder::machine_versions)"
        )))
    }

    /// Checks every setting as [`Builder::start`] does before anything else, and starts nothing. Network and storage may still be
    /// missing.
    ///
    /// # Errors
    /// [`StartError::Config`], if a setting is out of bounds or contradicts another one.
    pub fn check(&self) -> Result<(), StartError> {
        self.machine()?;
        self.timing.check()?;
        self.limits.check()?;
        self.snapshots.check()?;
        self.sessions.check()?;
        let addresses = addresses(&self.voters)?;
        if !addresses.contains_key(&self.id) && !self.joins {
            return Err(StartError::Config(format!(
                "node {} is not among the voters: list it too, or let it join (Builder::joins)",
                self.id
            )));
        }
        let skips: BTreeSet<_> = self.skips.iter().map(|skip| skip.index).collect();
        if skips.len() < self.skips.len() || skips.len() > Self::SKIPS_MAX {
            return Err(StartError::Config(format!(
                "{} entries are to be skipped, at {} indexes: name each once, and {} at most",
                self.skips.len(),
                skips.len(),
                Self::SKIPS_MAX
            )));
        }
        match self.witness.filter(|_| !self.joins) {
            Some(witness) => check_witness(witness, &addresses),
            None => Ok(()),
        }
    }

    pub(crate) fn plan(self) -> Result<Plan, StartError> {
        self.check()?;
        let machine = self.machine()?;
        let addresses = addresses(&self.voters)?;
        let Self { id, cluster, joins, prefers, network, storage, timing, limits, snapshots, sessions, .. } = self;
        let (metrics, seed) = (self.metrics, self.seed);
        let missing = |what| StartError::Config(format!("the node has no {what}: call Builder::{what}"));
        let skips = self.skips.iter().map(|skip| (skip.index, *skip)).collect();
        let is_witness = self.witness == Some(id);
        let of_addresses = || Membership::of_addresses(addresses.clone()).with_witness(self.witness);
        Ok(Plan {
            id,
            cluster,
            membership: if joins { Membership::default() } else { of_addresses() },
            is_witness,
            addresses,
            prefers,
            network: network.ok_or(missing("network"))?,
            storage: storage.ok_or(missing("storage"))?,
            timing: timing.resolved(),
            limits,
            snapshots,
            sessions,
            machine,
            skips,
            metrics: metrics.node(id.0),
            seed,
            fate: Fate::new(),
        })
    }
}

/// Networks within a process need no addresses: an empty one is none.
fn check_addresses(addresses: &BTreeMap<NodeId, String>) -> Result<(), StartError> {
    for (id, address) in addresses.iter().filter(|(_, address)| !address.is_empty()) {
        if !is_dialable(address) {
            return Err(StartError::Config(format!(
                "{address:?} of node {id} is no address at which others can dial it: give the address of its machine, and a port"
            )));
        }
        let mut others = addresses.range(..id);
        if let Some((other, _)) = others.find(|(_, other)| are_same(other, address)) {
            return Err(StartError::Config(format!(
                "nodes {other} and {id} have one address, {address}: give each its own"
            )));
        }
    }
    Ok(())
}

/// The voters' addresses, within the bounds that a change of the members is held to.
fn addresses(voters: &[(NodeId, String)]) -> Result<BTreeMap<NodeId, String>, StartError> {
    let mut addresses = BTreeMap::new();
    for (voter, address) in voters {
        if addresses.insert(*voter, address.clone()).is_some() {
            return Err(StartError::Config(format!(
                "node {voter} is listed twice among the voters: give each its own id"
            )));
        }
    }
    if addresses.len() > Change::MEMBERS_MAX {
        let (count, max) = (addresses.len(), Change::MEMBERS_MAX);
        return Err(StartError::Config(format!("there are {count} voters: list {max} at most")));
    }
    check_addresses(&addresses)?;
    Ok(addresses)
}

fn check_witness(witness: NodeId, voters: &BTreeMap<NodeId, String>) -> Result<(), StartError> {
    if !voters.contains_key(&witness) {
        return Err(StartError::Config(format!(
            "node {witness} is to be the witness and not among the voters: list it too"
        )));
    }
    if voters.len() < 3 {
        return Err(StartError::Config(format!(
            "beside the witness {witness} there is only {} voter: it takes two full copies, or do without",
            voters.len() - 1
        )));
    }
    Ok(())
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("id", &self.id).field("voters", &self.voters).finish_non_exhaustive()
    }
}
