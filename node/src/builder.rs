//! The builder of a node: its settings, the checks of them, and the start.

use crate::{
    actors::{self, Plan},
    config::{Limits, Sessions, Snapshots, Timing},
    error::StartError,
    lifecycle::Lifecycle,
    machine::StateMachine,
    node::Node,
};
use quorate_metrics::Metrics;
use quorate_raft::{
    Change, Index, MachineVersions, MemberMetadata, Membership, NodeId, Skip, Term,
    address::{are_same, is_dialable},
    tick::Bounds,
};
use quorate_storage::contract::StorageHandle;
use quorate_transport::network::Network;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::RangeInclusive,
};
use tokio::sync::oneshot;

/// The description of a node that is not started yet. [`Builder::voters`], [`Builder::network`] and
/// [`Builder::storage`] are required; the rest has defaults.
pub struct Builder {
    id: NodeId,
    cluster: String,
    voters: Vec<(NodeId, String)>,
    join: bool,
    witness: Option<NodeId>,
    preferred_leaders: Vec<NodeId>,
    network: Option<Box<dyn Network>>,
    storage: Option<StorageHandle>,
    timing: Timing,
    limits: Limits,
    snapshots: Snapshots,
    sessions: Sessions,
    writes_version: u32,
    applies_versions: Option<RangeInclusive<u32>>,
    pub(crate) bounds: Bounds,
    skips: Vec<Skip>,
    discards_state: bool,
    metadata: Option<MemberMetadata>,
    metrics: Metrics,
    seed: Option<u64>,
}

impl Builder {
    /// The most entries that may be skipped.
    pub const SKIPS_MAX: usize = 256;

    pub(crate) fn new(id: NodeId, cluster: String) -> Self {
        Self {
            id,
            cluster,
            voters: Vec::new(),
            join: false,
            witness: None,
            preferred_leaders: Vec::new(),
            network: None,
            storage: None,
            timing: Timing::default(),
            limits: Limits::default(),
            snapshots: Snapshots::default(),
            sessions: Sessions::default(),
            writes_version: 0,
            applies_versions: None,
            bounds: Bounds::default(),
            skips: Vec::new(),
            discards_state: false,
            metadata: None,
            metrics: Metrics::new(),
            seed: None,
        }
    }

    /// The initial members, this node among them, each with the address at which *this*
    /// node dials it.
    #[must_use]
    pub fn voters<A: Into<String>>(mut self, voters: impl IntoIterator<Item = (NodeId, A)>) -> Self {
        self.voters = voters.into_iter().map(|(id, address)| (id, address.into())).collect();
        self
    }

    /// Declares that the node belongs to no cluster yet: it waits until a leader of one adds it
    /// ([`Change::add`](crate::Change::add)) and sends it the log. [`Builder::voters`] are not
    /// needed then; any that are given only say at which address this node dials them. A node that
    /// has a log goes by the log and ignores this.
    #[must_use]
    pub fn join(mut self, join: bool) -> Self {
        self.join = join;
        self
    }

    /// The member that is a witness; must be the same on all nodes. A node
    /// that [joins](Builder::join) names itself here if it is to be added
    /// as one ([`Change::add_witness`](crate::Change::add_witness)).
    ///
    /// A witness keeps terms, votes and the identity of entries, but not their payloads; it needs
    /// no state machine, and the one that it is started with is dropped. It votes and never leads:
    /// with two full copies, it breaks the tie when one is gone. Entries committed while one copy
    /// is gone exist only in the other; if that is lost too, so are they.
    #[must_use]
    pub fn witness(mut self, id: NodeId) -> Self {
        self.witness = Some(id);
        self
    }

    /// The members that should lead in preference to others, the best first; must be the same on
    /// all nodes. A leader transfers leadership, once it has led for some seconds, to the first of
    /// them that is up and has kept up, unless it comes earlier in the list itself. Elections
    /// ignore the list: if no preferred member is up, any other may lead.
    #[must_use]
    pub fn preferred_leaders(mut self, leaders: impl IntoIterator<Item = NodeId>) -> Self {
        self.preferred_leaders = leaders.into_iter().collect();
        self
    }

    /// This node's own metadata, for clients and operators ([`Status::metadata`](crate::Status::metadata)).
    /// The node publishes it once it is a member, at each start. Fields that differ from those that
    /// it published last are changed in the configuration, so an operator's later
    /// [`Change::describe`](crate::Change::describe) stays until these settings are changed. Default: it publishes nothing.
    #[must_use]
    pub fn metadata(mut self, metadata: MemberMetadata) -> Self {
        self.metadata = Some(metadata);
        self
    }

    /// The network to the other nodes: for example [`transport::Quic`](quorate_transport::Quic).
    #[must_use]
    pub fn network(mut self, network: impl Network) -> Self {
        self.network = Some(Box::new(network));
        self
    }

    /// The storage of the node's log: for example [`storage::Wal`](quorate_storage::Wal), or an
    /// actor of your own in a [`StorageHandle`].
    #[must_use]
    pub fn storage(mut self, storage: impl Into<StorageHandle>) -> Self {
        self.storage = Some(storage.into());
        self
    }

    /// Intervals and time limits of the node.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Limits on the work that the node accepts.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Rules for taking and sending snapshots.
    #[must_use]
    pub fn snapshots(mut self, snapshots: Snapshots) -> Self {
        self.snapshots = snapshots;
        self
    }

    /// The number of client sessions that the cluster remembers, and the time for which it does.
    #[must_use]
    pub fn sessions(mut self, sessions: Sessions) -> Self {
        self.sessions = sessions;
        self
    }

    /// The version that the node's state machine writes: of the commands that this release
    /// proposes, and of its snapshots. Default 0. Raise it when older releases could not apply
    /// them; the node itself does nothing differently.
    ///
    /// A voter with a state machine that can't apply this version votes for another candidate, so
    /// no leader is elected while a quorum could not apply its entries.
    #[must_use]
    pub fn writes_version(mut self, writes: u32) -> Self {
        self.writes_version = writes;
        self
    }

    /// The versions that the node's state machine can apply, and restore snapshots of.
    /// Default: all up to the version that it writes. A wider range lets a release read the
    /// version that the next release will write: [`Status::machine_versions`](crate::Status)
    /// says when all members can.
    #[must_use]
    pub fn applies_versions(mut self, applies: RangeInclusive<u32>) -> Self {
        self.applies_versions = Some(applies);
        self
    }

    /// Adds an entry to the list of those that the state machine never applies: the entry's caller,
    /// if it still waits, gets [`ProposeError::Skipped`](crate::ProposeError). May be called for
    /// several. This is the way out when a state machine panics at an entry again after each
    /// restart: [`Status::halted`](crate::Status::halted) names the entry.
    ///
    /// **The list must be the same on all nodes**: nodes with different lists ignore each other's
    /// messages, and report it, because one would apply an entry that the other skips. Skip
    /// nothing that any node has applied: a node refuses to start if its snapshot has the effect
    /// of a skipped entry. Keep an entry on the list until the snapshots of all nodes cover it;
    /// those remember it.
    #[must_use]
    pub fn skip(mut self, index: Index, term: Term, checksum: u32) -> Self {
        self.skips.push(Skip { index, term, checksum });
        self
    }

    /// Starts without the state of the node's own snapshot, for a copy that
    /// [diverged](crate::Failure::Diverged) or is the wrong one of two that
    /// [disagree](crate::Status::disagreement): the node follows, and takes the state from the
    /// leader's snapshot. Its log stays, and counts for elections and commits as before. Where no
    /// snapshot was taken yet, all entries are applied anew.
    ///
    /// For one start: give it again only if that one was interrupted before the snapshot had
    /// arrived, or if the node stops once more for the same entries: after a restart it takes its
    /// claim of them in the log for its own again. The only voter has no other copy to take it from, and does not start.
    #[must_use]
    pub fn discard_state(mut self) -> Self {
        self.discards_state = true;
        self
    }

    /// The registry that the node's metrics go to. Several nodes of a process may share one.
    #[must_use]
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// Fixes the randomness of election timeouts, for tests that must run the same way each time.
    /// By default it comes from the operating system. A node that is started again needs another
    /// seed: the names by which nodes tell their present requests from those before a restart also
    /// come from it. The wall clock that a state machine is shown then counts from the start of the
    /// node.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the node on threads of its own: one for consensus and network, one for the storage,
    /// one for the state machine; while a snapshot is written, sent or received, one or two more.
    /// Returns as soon as its log is recovered, its state machine restored from the newest
    /// snapshot, and its network up; a leader need not be known yet.
    ///
    /// # Errors
    /// If the configuration makes no sense, the storage can't be recovered, the state machine
    /// refuses the snapshot, or the network can't be opened. Then nothing is left running.
    pub async fn start<M: StateMachine>(self, machine: M) -> Result<Node<M>, StartError> {
        let name = format!("quorate-{}", self.id);
        let plan = self.plan()?;
        let (started, starting) = oneshot::channel();
        // Created here because actix panics if it can't create one.
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
                // If the caller has dropped its future, the handle is dropped here, and the
                // node shuts down.
                let _ = started.send(node);
                if let Some(running) = running {
                    running.until_ended().await;
                }
            });
        };
        std::thread::Builder::new().name(name).spawn(run).map_err(|error| cannot("thread", error))?;
        starting.await.unwrap_or_else(|_| Err(StartError::Config("the node's thread panicked while starting".into())))
    }

    /// Starts the node, with all its actors, on the current thread, within a
    /// [`tokio::task::LocalSet`]. Several nodes can then share a thread. With paused time, a seed,
    /// and a network and storage in memory, a whole cluster is deterministic.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start_local<M: StateMachine>(self, machine: M) -> Result<Node<M>, StartError> {
        let (node, running) = actors::launch(self.plan()?, machine, false).await?;
        tokio::task::spawn_local(running.until_ended());
        Ok(node)
    }

    fn machine(&self) -> Result<MachineVersions, StartError> {
        let writes = self.writes_version;
        let (oldest, newest) = self.applies_versions.clone().unwrap_or(0..=writes).into_inner();
        let machine = MachineVersions { writes, oldest, newest };
        if machine.apply(writes) {
            return Ok(machine);
        }
        Err(StartError::Config(format!(
            "the state machine writes version {writes} and applies only {oldest} to {newest}: let it apply what it writes \
             (Builder::applies_versions)"
        )))
    }

    /// Checks every setting as [`Builder::start`] does first, and starts nothing. Network and
    /// storage may still be missing.
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
        if !addresses.contains_key(&self.id) && !self.join {
            return Err(StartError::Config(format!(
                "node {} is not among the voters: list it too, or let it join (Builder::join)",
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
        match self.witness.filter(|_| !self.join) {
            Some(witness) => check_witness(witness, &addresses),
            None => Ok(()),
        }
    }

    pub(crate) fn plan(self) -> Result<Plan, StartError> {
        self.check()?;
        let machine = self.machine()?;
        let addresses = addresses(&self.voters)?;
        let Self {
            id, cluster, join, preferred_leaders, network, storage, timing, limits, snapshots, sessions, ..
        } = self;
        let (metrics, seed, bounds) = (self.metrics, self.seed, self.bounds);
        let missing = |what| StartError::Config(format!("the node has no {what}: call Builder::{what}"));
        let skips = self.skips.iter().map(|skip| (skip.index, *skip)).collect();
        let is_witness = self.witness == Some(id);
        let of_addresses = || Membership::of_addresses(addresses.clone()).with_witness(self.witness);
        Ok(Plan {
            id,
            cluster,
            membership: if join { Membership::default() } else { of_addresses() },
            is_witness,
            addresses,
            preferred_leaders,
            network: network.ok_or(missing("network"))?,
            storage: storage.ok_or(missing("storage"))?,
            timing: timing.resolved(),
            limits,
            snapshots,
            sessions,
            machine,
            bounds,
            skips,
            discards_state: self.discards_state,
            metadata: self.metadata,
            metrics: metrics.node(id.0),
            seed,
            lifecycle: Lifecycle::new(),
        })
    }
}

/// Checks each address but empty ones: networks within a process need none.
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

/// The voters' addresses, checked against the same bounds as a change of the members.
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
