//! The configuration of `serve`: a TOML file, overridden by environment variables,
//! overridden by flags.
//!
//! This module owns the keys, their defaults, and all checks that need no socket, certificate or
//! data directory. Loading returns a consistent [`Config`] or a one-line [`ConfigError`] with the
//! key or file, the problem and the remedy. Unknown keys are refused, because a misspelt limit
//! would silently not apply.

mod error;
mod node;
mod overrides;
mod source;

pub use error::ConfigError;
pub use overrides::{KEYS, Key, Overrides};
pub use source::Sources;

use crate::object::{list, object, optional};
use quorate::{Change, MemberMetadata, MetadataFlaw, NodeId, Snapshots, address, storage::Wal};
use serde::{Deserialize, Deserializer};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// The configuration of one node. Paths are relative to the working directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's id: 1 or more, and listed in `peers`.
    #[serde(deserialize_with = "node_id")]
    pub node_id: NodeId,
    /// The cluster's name. It is part of every certificate's identity, so it must be a DNS label: 1
    /// to 63 characters of a-z, 0-9 and `-`.
    pub cluster: String,
    /// The directory of log and snapshots. Created if missing; belongs to this node permanently.
    pub data_dir: PathBuf,
    /// UDP address for the other nodes (QUIC).
    pub raft: SocketAddr,
    /// TCP address for clients, operators and metrics. Port 0 lets the system choose. If other
    /// machines can reach it, it needs `http_tls` with `client_ca`, or with `http_auth.tokens`,
    /// unless `allow_plaintext_http` or `http_auth` says that callers need no identity.
    pub http: SocketAddr,
    /// The URL at which clients and other nodes' pages reach `http`, `http://HOST:PORT` or
    /// `https://HOST:PORT`; `member list` shows it. The node publishes it at its start, if it was
    /// changed since the last one. Default: the address of `http`, unless it is `0.0.0.0` or `[::]`;
    /// then none.
    #[serde(default)]
    pub advertise_http: Option<String>,
    /// Labels of this node, which `member list` shows: at most 16; keys of 1 to 63 of a-z, 0-9, `-`,
    /// `_` and `.`; values of at most 255 bytes without control characters. Published like
    /// `advertise_http`. Default: none.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether `http` may use plain text on an address that other machines can reach. Every caller
    /// there counts as an operator if no key of `http_auth` is written. Default: false.
    #[serde(default)]
    pub allow_plaintext_http: bool,
    /// The host names by which clients may address this node, in addition to its address,
    /// `localhost`, its own name in `peers` and the names in its `http_tls` certificate.
    /// `*.example` matches all names one level below, `*` matches any name. Requests for other
    /// hosts are refused, because a web page could let its own name resolve to this node's
    /// address. Default: none.
    #[serde(default)]
    pub http_hosts: Vec<String>,
    /// The node's certificate, and the authority that it trusts, for connections between nodes.
    #[serde(deserialize_with = "object")]
    pub tls: Tls,
    /// The certificate for HTTPS on `http`. Default: plain text.
    #[serde(default, deserialize_with = "optional")]
    pub http_tls: Option<HttpTls>,
    /// The identity of callers of `http`, and the permissions of those without one.
    #[serde(default, deserialize_with = "object")]
    pub http_auth: HttpAuth,
    /// A listener of its own for operators, metrics and probes. `http` then serves the requests of
    /// clients, and probes. Default: `http` serves all.
    #[serde(default, deserialize_with = "optional")]
    pub http_admin: Option<HttpAdmin>,
    /// Whether this node is one of the initial voters (`member`, the default) or waits to be added
    /// (`join`). Ignored once the node has data.
    #[serde(default)]
    pub state: State,
    /// The initial voters, including this node. Once the cluster has data, its own
    /// membership counts. A joining node needs none; entries that it has say at which
    /// address it dials those peers.
    #[serde(default, deserialize_with = "list")]
    pub peers: Vec<Peer>,
    /// Preferred leaders, best first; must be identical on all nodes. A leader hands leadership to
    /// a better one that is up and has kept up with the log, after some seconds. Default: none.
    #[serde(default, deserialize_with = "node_ids")]
    pub prefers: Vec<NodeId>,
    /// Heartbeat and election timing.
    #[serde(default, deserialize_with = "object")]
    pub timing: Timing,
    /// When snapshots are taken, and how many entries stay in the log.
    #[serde(default, deserialize_with = "object")]
    pub snapshot: Snapshot,
    /// The layout of the log on disk.
    #[serde(default, deserialize_with = "object")]
    pub storage: Storage,
    /// Limits beyond which requests are refused instead of queued.
    #[serde(default, deserialize_with = "object")]
    pub limits: Limits,
    /// Entries whose commands are not applied, for a command on which the state machine fails; the
    /// node's failure message names the entry. Must be identical on all nodes. Default: none.
    #[serde(default)]
    pub skip: Vec<SkippedEntry>,
}

/// An entry that is not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkippedEntry {
    /// The log index of the entry.
    pub index: u64,
    /// The term of the leader that created the entry.
    pub term: u64,
    /// The checksum of the entry's record: `0x` and eight hexadecimal digits, in quotes.
    #[serde(deserialize_with = "checksum")]
    pub checksum: u32,
}

/// The membership with which a new node starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// One of the initial voters.
    #[default]
    Member,
    /// No membership: the node waits to be added.
    Join,
}

/// Certificates for the connections between nodes. The files are read again when their contents
/// change, and on SIGHUP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate of the authority that signed all nodes' certificates, PEM. Several
    /// certificates count as several authorities, as while one replaces another.
    pub ca: PathBuf,
    /// This node's certificate, PEM.
    pub cert: PathBuf,
    /// The private key of this node's certificate, PEM, readable by its owner only.
    pub key: PathBuf,
    /// Certificate revocation lists, PEM: one by each authority in `ca`. New connections with nodes
    /// are refused once a list is out of date. Default: no certificate is revoked.
    #[serde(default)]
    pub crl: Option<PathBuf>,
}

/// The certificate of the HTTP server. The files are read again when their contents change, and on
/// SIGHUP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTls {
    /// The certificate, followed by intermediate certificates, PEM.
    pub cert: PathBuf,
    /// The private key of the certificate, PEM, readable by its owner only.
    pub key: PathBuf,
    /// The authority that signed the clients' certificates, PEM. Clients are then asked for a
    /// certificate, and must have one unless `http_auth` permits callers without one: by `tokens`,
    /// `allow_anonymous_reads` or `allow_anonymous`. Several certificates count as several
    /// authorities. Default: no certificate is asked for.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Certificate revocation lists, PEM: one by each authority in `client_ca`, which it needs. New
    /// connections with a certificate are refused once a list is out of date. Default: no
    /// certificate is revoked.
    #[serde(default)]
    pub client_crl: Option<PathBuf>,
}

/// The listener of operators, metrics and probes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpAdmin {
    /// Its TCP address. `http_tls`, `http_auth` and `allow_plaintext_http` hold for it as for `http`,
    /// but that TLS never requires a certificate here, because probes have none.
    pub listen: SocketAddr,
}

/// The identity of callers of `http`. Probes need none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpAuth {
    /// A file of bearer tokens, readable by its owner only. Each line is `ROLE NAME TOKEN`: the role
    /// is `monitor` (status and metrics), `client` or `operator`, the token has 32 characters or
    /// more. It is read again when its contents change, and on SIGHUP. Default: no tokens.
    pub tokens: Option<PathBuf>,
    /// Whether callers without an identity may read keys, status and metrics. Default: false.
    pub allow_anonymous_reads: Option<bool>,
    /// Whether callers without an identity count as operators, also on an address that other
    /// machines can reach. Default: false.
    pub allow_anonymous: Option<bool>,
    /// Callers without an identity at a loopback address count as operators (`operator`), or as any
    /// other caller without one (`anonymous`). With TLS and `client_ca` or `tokens`, `operator` has
    /// no effect; with `allow_anonymous`, neither has. Default: `anonymous` with `client_ca` or `tokens`, otherwise `operator`.
    pub loopback: Option<Loopback>,
}

/// Callers without an identity at a loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loopback {
    /// They count as operators.
    Operator,
    /// They count as callers at any other address.
    Anonymous,
}

/// An initial voter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The peer's node id, 1 or more.
    #[serde(deserialize_with = "node_id")]
    pub id: NodeId,
    /// `HOST:PORT` at which this node dials the peer; may differ from node to node.
    pub addr: String,
    /// Whether the peer is the witness: a voter that stores no commands, never leads, and breaks
    /// ties between two full copies. At most one; must be set identically on all nodes. A node that
    /// joins as the witness also lists itself. Default: false.
    #[serde(default)]
    pub witness: bool,
}

/// Heartbeats and elections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// The interval between a leader's heartbeats. Default 50 ms: several per election timeout, so
    /// that one lost packet starts no election.
    #[serde(deserialize_with = "duration")]
    pub heartbeat_interval: Duration,
    /// The range of the election timeout, chosen anew each time. Default 150 ms to 300 ms. A
    /// shorter timeout replaces a dead leader sooner, and a merely slow one too.
    #[serde(deserialize_with = "durations")]
    pub election_timeout: [Duration; 2],
    /// How long a request waits for a leader before it is answered `no_leader`. Default 0s: four
    /// times the longest election timeout.
    #[serde(deserialize_with = "duration")]
    pub leader_wait: Duration,
    /// The time after which a learner that keeps up becomes a voter by itself. Default 0s: never.
    #[serde(deserialize_with = "duration")]
    pub promote_after: Duration,
}

/// When snapshots are taken, and how many entries stay in the log. The first of `every_entries` and
/// `every_bytes` to be reached counts; `POST /v1/snapshot` takes a snapshot at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Snapshot {
    /// The number of entries between snapshots. Default 10000: applying them again after a restart
    /// takes a fraction of a second.
    pub every_entries: u64,
    /// The number of bytes of entries between snapshots. Default 64 MiB: the log then uses a few
    /// times as much disk space.
    pub every_bytes: u64,
    /// The number of entries up to a snapshot that stay in the log for lagging followers, which
    /// would otherwise need the whole state. Default 1000.
    pub keep_entries: u64,
    /// The maximum rate at which a snapshot is sent to a peer, in bytes per second; 0: no limit.
    /// Default 32 MiB.
    pub max_bytes_per_second: u64,
}

/// The layout of the log on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// The size of a segment file in bytes, 16 KiB to 1 GiB. Default 64 MiB. Two or three segments
    /// exist at any time.
    pub segment_bytes: u64,
}

/// Limits beyond which requests are refused instead of queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The maximum length of a value in bytes, up to [`Limits::VALUE_BYTES_MAX`] (almost 8 MiB).
    /// Default 1 MiB.
    pub max_value_bytes: usize,
    /// The maximum number of writes that wait on this node; further ones are answered
    /// `overloaded`. Default 4096.
    pub max_in_flight_proposals: usize,
    /// The maximum number of bytes of writes that wait on this node; further writes are answered
    /// `overloaded`. A single larger write is accepted alone. Default 64 MiB.
    pub max_in_flight_bytes: usize,
    /// The maximum number of HTTP connections of clients, if the limit of open files allows as many
    /// beside the log, snapshots and other nodes. At the maximum, a new connection replaces an idle
    /// one. Default 4096.
    pub max_http_connections: usize,
}

impl Config {
    /// The peer that is the witness.
    #[must_use]
    pub fn witness(&self) -> Option<NodeId> {
        self.peers.iter().find(|peer| peer.witness).map(|peer| peer.id)
    }

    /// Whether callers of `http` can prove an identity.
    #[must_use]
    pub fn asks_for_identity(&self) -> bool {
        self.http_auth.tokens.is_some() || self.http_tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// Whether callers of `http` may lack a certificate although there is an authority for them.
    #[must_use]
    pub fn may_lack_certificate(&self) -> bool {
        let HttpAuth { tokens, allow_anonymous_reads, allow_anonymous, loopback: _ } = &self.http_auth;
        tokens.is_some() || [allow_anonymous_reads, allow_anonymous].contains(&&Some(true))
    }

    /// Reads `file`, applies `environment` over it and `flags` over both, and checks the result: a
    /// start refuses nothing that passes here. The files it names are checked when they are opened;
    /// [`Sources`] adds the place to those errors.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML, has an unknown key, lacks a key, or contains
    /// an invalid value.
    pub fn load(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Overrides,
    ) -> Result<(Self, Sources), ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let problem = format!("cannot be read: {error}");
            ConfigError::new(file.display(), problem, "name a readable configuration file with --config")
        })?;
        Self::read(file, &text, environment, flags)
    }

    /// As [`Config::load`], for a file with the contents `text`: for a service that has it
    /// elsewhere than on a disk.
    ///
    /// # Errors
    /// As [`Config::load`], but for a file that cannot be read.
    pub fn read(
        file: &Path,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Overrides,
    ) -> Result<(Self, Sources), ConfigError> {
        let mut table = parse(file, text)?;
        let environment = Overrides::from_environment(environment);
        let sources = Sources::of(file, text, &environment, flags);
        environment.apply(&mut table)?;
        flags.apply(&mut table)?;
        let config: Self =
            serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| unfit(&sources, &error))?;
        config.check().map_err(|error| sources.locate(error))?;
        Ok((config, sources))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let name = &self.cluster;
        if !is_cluster_name(name) {
            let problem = format!("`{}` cannot be part of a host name", name.escape_debug());
            return Err(ConfigError::new("cluster", problem, "use 1 to 63 of a-z, 0-9 and, inside, `-`"));
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::new("data_dir", "is empty", "name a directory that only this node uses"));
        }
        self.check_http("http", self.http)?;
        if let Some(HttpAdmin { listen }) = &self.http_admin {
            self.check_http("http_admin.listen", *listen)?;
        }
        for host in &self.http_hosts {
            let name = host.strip_prefix("*.").unwrap_or(host);
            if host != "*" && (name.contains(['*', ':', '/']) || !is_host_and_port(&format!("{name}:1"))) {
                let problem = format!("`{}` is not a host name", host.escape_debug());
                return Err(ConfigError::new(
                    "http_hosts",
                    problem,
                    "write names without ports, for example kv.example",
                ));
            }
        }
        if let Some(HttpTls { client_ca: None, client_crl: Some(_), .. }) = &self.http_tls {
            let problem = "there is no http_tls.client_ca, whose certificates it could revoke";
            let remedy = "set http_tls.client_ca, or remove this key";
            return Err(ConfigError::new("http_tls.client_crl", problem, remedy));
        }
        self.check_metadata()?;
        self.check_peers()?;
        self.check_numbers()?;
        // The bounds above name keys, and equal the library's. The builder checks everything else
        // that a start would refuse.
        self.builder()
            .check()
            .map_err(|error| ConfigError::new("the configuration", error, "correct the key of this setting"))
    }

    /// An address that other machines can reach needs TLS and the identity of its callers.
    fn check_http(&self, key: &str, address: SocketAddr) -> Result<(), ConfigError> {
        if address.ip().is_loopback() {
            return Ok(());
        }
        if self.http_tls.is_none() && !self.allow_plaintext_http {
            let problem = format!("{address} is reachable by other machines and would use plain text");
            let remedy = "add [http_tls] with client_ca, or set allow_plaintext_http = true";
            return Err(ConfigError::new(key, problem, remedy));
        }
        if self.http_tls.is_some() && !self.asks_for_identity() && !self.may_lack_certificate() {
            let problem = format!("{address} is reachable by other machines, and any caller could be an operator");
            let remedy = "set http_tls.client_ca or http_auth.tokens, so that callers prove an identity, or \
                          http_auth.allow_anonymous = true";
            return Err(ConfigError::new(key, problem, remedy));
        }
        Ok(())
    }

    fn check_metadata(&self) -> Result<(), ConfigError> {
        let Err(flaw) = MemberMetadata::new(self.advertise_http.clone(), self.labels.clone()) else { return Ok(()) };
        let (key, remedy) = match &flaw {
            MetadataFlaw::ClientAddress { .. } => {
                ("advertise_http".to_owned(), "write a URL that clients can reach, for example https://10.0.0.1:8001")
            }
            MetadataFlaw::Value { key } => (format!("labels.{key}"), "write a shorter text on one line"),
            _ => ("labels".to_owned(), "correct or remove labels"),
        };
        Err(ConfigError::new(key, flaw, remedy))
    }

    fn check_peers(&self) -> Result<(), ConfigError> {
        let mut seen = BTreeSet::new();
        for (at, Peer { id, addr, .. }) in self.peers.iter().enumerate() {
            if !seen.insert(*id) {
                return Err(ConfigError::new(
                    "peers",
                    format!("two entries have id {id}"),
                    "give every peer its own id",
                ));
            }
            if !is_host_and_port(addr) {
                let problem = format!("`{}` of peer {id} is not an address", addr.escape_debug());
                return Err(ConfigError::new(
                    format_args!("peers[{at}].addr"),
                    problem,
                    "write HOST:PORT, for example 10.0.0.1:7001",
                ));
            }
            if !address::is_dialable(addr) {
                let problem = format!("`{}` of peer {id} cannot be dialled", addr.escape_debug());
                let remedy = "write an address that other machines can dial, for example 10.0.0.1:7001; only `raft` may be 0.0.0.0";
                return Err(ConfigError::new(format_args!("peers[{at}].addr"), problem, remedy));
            }
            if let Some(other) = self.peers[..at].iter().find(|other| address::are_same(&other.addr, addr)) {
                let problem = format!("peers {} and {id} have the same address, {addr}", other.id);
                let remedy = "give every peer its own address";
                return Err(ConfigError::new(format_args!("peers[{at}].addr"), problem, remedy));
            }
        }
        if self.peers.len() > Change::MEMBERS_MAX {
            let (problem, max) = (format!("{} entries are too many", self.peers.len()), Change::MEMBERS_MAX);
            return Err(ConfigError::new("peers", problem, format_args!("list at most {max}")));
        }
        let mut preferred = BTreeSet::new();
        if let Some(twice) = self.prefers.iter().find(|id| !preferred.insert(**id)) {
            return Err(ConfigError::new("prefers", format!("names node {twice} twice"), "name every node once"));
        }
        let witnesses = self.peers.iter().filter(|peer| peer.witness).count();
        if witnesses > 1 {
            return Err(ConfigError::new(
                "peers.witness",
                format!("{witnesses} entries are witnesses"),
                "mark at most one",
            ));
        }
        if witnesses == 1 && self.state == State::Member && self.peers.len() < 3 {
            let problem = "a witness needs two peers that are not witnesses";
            return Err(ConfigError::new("peers.witness", problem, "add another peer, or remove the witness"));
        }
        if !seen.contains(&self.node_id) && self.state == State::Member {
            let remedy = "add this node to [[peers]], correct node_id, or set state = \"join\"";
            let this = ConfigError::new("peers", format!("node_id {} is not among them", self.node_id), remedy);
            return Err(this.or(ConfigError::new("node_id", format!("{} is not among peers", self.node_id), remedy)));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let Timing { heartbeat_interval: heartbeat, election_timeout: [shortest, longest], .. } = self.timing;
        let show = humantime::format_duration;
        if heartbeat < Duration::from_millis(1) {
            let problem = format!("{} is too short", show(heartbeat));
            return Err(ConfigError::new("timing.heartbeat_interval", problem, "use 1ms or more"));
        }
        // Doubling the heartbeat interval could overflow.
        if heartbeat > shortest / 2 {
            let problem =
                format!("{} is more than half of timing.election_timeout, {}", show(heartbeat), show(shortest));
            let this = ConfigError::new("timing.heartbeat_interval", problem, "use a third of it or less");
            let problem =
                format!("{} is less than twice timing.heartbeat_interval, {}", show(shortest), show(heartbeat));
            return Err(this.or(ConfigError::new("timing.election_timeout", problem, "use three times that or more")));
        }
        if shortest >= longest {
            let problem = format!("{} is not below {}", show(shortest), show(longest));
            let remedy =
                "write two different values, the shorter one first: equal timeouts make elections split repeatedly";
            return Err(ConfigError::new("timing.election_timeout", problem, remedy));
        }
        if longest > Duration::from_secs(60) {
            let problem = format!("{} is too long", show(longest));
            return Err(ConfigError::new("timing.election_timeout", problem, "use 1m or less"));
        }
        let positive = [
            ("limits.max_in_flight_proposals", self.limits.max_in_flight_proposals as u64),
            ("limits.max_in_flight_bytes", self.limits.max_in_flight_bytes as u64),
            ("limits.max_value_bytes", self.limits.max_value_bytes as u64),
            ("limits.max_http_connections", self.limits.max_http_connections as u64),
            ("snapshot.every_entries", self.snapshot.every_entries),
            ("snapshot.every_bytes", self.snapshot.every_bytes),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::new(key, "is 0", "use 1 or more"));
        }
        if self.http_admin.is_some() && self.limits.max_http_connections < 2 {
            let remedy = "use 2 or more, or leave http_admin out: each of the two listeners needs a place";
            return Err(ConfigError::new("limits.max_http_connections", "is 1 for two listeners", remedy));
        }
        let speed = self.snapshot.max_bytes_per_second;
        if speed > 0 && speed < Snapshots::BYTES_PER_SECOND_MIN {
            let remedy = format!("use {} or more, or 0 for no limit", Snapshots::BYTES_PER_SECOND_MIN);
            return Err(ConfigError::new("snapshot.max_bytes_per_second", format!("{speed} is too slow"), remedy));
        }
        let segment_bytes = Wal::SEGMENT_BYTES;
        if !segment_bytes.contains(&self.storage.segment_bytes) {
            let (given, least, most) = (self.storage.segment_bytes, segment_bytes.start(), segment_bytes.end());
            let problem = format!("{given} is not between {least} and {most}");
            return Err(ConfigError::new("storage.segment_bytes", problem, "use a number between them"));
        }
        let (bytes, most) = (self.limits.max_value_bytes, Limits::VALUE_BYTES_MAX);
        if bytes > most {
            let remedy = "use that or less, and store large objects elsewhere";
            return Err(ConfigError::new("limits.max_value_bytes", format!("{bytes} is more than {most}"), remedy));
        }
        Ok(())
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(50),
            election_timeout: [Duration::from_millis(150), Duration::from_millis(300)],
            leader_wait: Duration::ZERO,
            promote_after: Duration::ZERO,
        }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        let Snapshots { every_entries, every_bytes, keep_entries, bytes_per_second, .. } = Snapshots::default();
        Self { every_entries, every_bytes, keep_entries, max_bytes_per_second: bytes_per_second }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_value_bytes: 1 << 20,
            max_in_flight_proposals: 4096,
            max_in_flight_bytes: 64 << 20,
            max_http_connections: 4096,
        }
    }
}

fn parse(file: &Path, text: &str) -> Result<toml::Table, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = source::line_at(text, error.span().map_or(0, |span| span.start));
        ConfigError::new(format_args!("{}:{line}", file.display()), error.message(), "correct the TOML")
    })
}

/// Converts serde's error: adds the full path of the key and removes hints about internals.
fn unfit(sources: &Sources, error: &serde_path_to_error::Error<toml::de::Error>) -> ConfigError {
    let problem = error.inner().message();
    let path = error.path().to_string();
    let path = if path == "." { String::new() } else { path };
    let place = |key: &str| {
        let inner = path.strip_suffix(key).map_or(&*path, |outer| outer.trim_end_matches('.'));
        if inner.is_empty() { key.to_owned() } else { format!("{inner}.{key}") }
    };
    if let Some((key, known)) = backticked(problem, "unknown field ") {
        let known = known.trim_start_matches(", ").replace("expected one of ", "").replace("expected ", "");
        return ConfigError::new(sources.of_value(&place(key)), "unknown key", format_args!("known keys: {known}"));
    }
    if let Some((key, _)) = backticked(problem, "missing field ") {
        return ConfigError::new(sources.of_missing(&place(key)), "missing", "add it");
    }
    ConfigError::new(sources.of_value(&path), problem, "correct the value")
}

fn backticked<'a>(message: &'a str, lead: &str) -> Option<(&'a str, &'a str)> {
    message.strip_prefix(lead)?.strip_prefix('`')?.split_once('`')
}

/// Whether a certificate can contain the name: it becomes part of a host name.
pub(crate) fn is_cluster_name(name: &str) -> bool {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(label) && !name.starts_with('-') && !name.ends_with('-')
}

pub(crate) fn is_host_and_port(addr: &str) -> bool {
    let Some((host, port)) = addr.rsplit_once(':') else { return false };
    let host_fits = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    let port_fits = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    host_fits && port_fits && addr.len() <= Change::ADDRESS_BYTES_MAX
}

fn checksum<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let text = String::deserialize(from)?;
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 8 && !digits.contains('+'));
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(|| {
        let problem = format!(
            "`{}` is not a checksum; write it as in the failure message, such as 0x0123abcd",
            text.escape_debug()
        );
        serde::de::Error::custom(problem)
    })
}

fn node_id<'de, D: Deserializer<'de>>(from: D) -> Result<NodeId, D::Error> {
    match u64::deserialize(from)? {
        0 => Err(serde::de::Error::custom("0 is not a node id; ids start at 1")),
        id => Ok(NodeId(id)),
    }
}

fn node_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<NodeId>, D::Error> {
    let ids = Vec::<NodeId>::deserialize(from)?;
    if ids.contains(&NodeId(0)) {
        return Err(serde::de::Error::custom("node ids start at 1"));
    }
    Ok(ids)
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

fn durations<'de, D: Deserializer<'de>>(from: D) -> Result<[Duration; 2], D::Error> {
    let [shortest, longest] = <[String; 2]>::deserialize(from)?;
    let parse = |text: &str| parse_duration(text).map_err(serde::de::Error::custom);
    Ok([parse(&shortest)?, parse(&longest)?])
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("`{}` is not a duration such as \"50ms\"", text.escape_debug()))
}

/// A valid configuration of a single node at loopback addresses.
#[cfg(test)]
pub(crate) fn example() -> Config {
    let text = "node_id = 1\ncluster = \"demo\"\ndata_dir = \"d\"\nraft = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:2\"\n\
                [tls]\nca = \"a\"\ncert = \"c\"\nkey = \"k\"\n[[peers]]\nid = 1\naddr = \"h:1\"\n";
    let read = Config::read(Path::new("example.toml"), text, [], &Overrides::default());
    read.map(|(config, _)| config).expect("valid")
}

#[cfg(test)]
mod tests;
