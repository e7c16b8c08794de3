//! The keys that can be overridden, by `QUORATE_<KEY>` and by flag: one table for both.

use super::ConfigError;
use crate::environment::{self, PREFIX};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use toml::{Table, Value};

/// A key of the configuration that can be overridden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The path of the key, for example `timing.heartbeat_interval`.
    pub path: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Flag,
    /// `A,B`
    List,
    /// `ID,ID`
    Ids,
    /// `ID=ADDR,ID=ADDR/witness`
    Peers,
    /// `KEY=VALUE,KEY=VALUE`
    Labels,
}

/// All keys, in the order of the file.
pub const KEYS: &[Key] = &[
    Key { path: "node_id", kind: Kind::Number },
    Key { path: "cluster", kind: Kind::Text },
    Key { path: "data_dir", kind: Kind::Text },
    Key { path: "raft", kind: Kind::Text },
    Key { path: "http", kind: Kind::Text },
    Key { path: "advertise_http", kind: Kind::Text },
    Key { path: "labels", kind: Kind::Labels },
    Key { path: "allow_plaintext_http", kind: Kind::Flag },
    Key { path: "http_hosts", kind: Kind::List },
    Key { path: "tls.ca", kind: Kind::Text },
    Key { path: "tls.cert", kind: Kind::Text },
    Key { path: "tls.key", kind: Kind::Text },
    Key { path: "tls.crl", kind: Kind::Text },
    Key { path: "http_tls.cert", kind: Kind::Text },
    Key { path: "http_tls.key", kind: Kind::Text },
    Key { path: "http_tls.client_ca", kind: Kind::Text },
    Key { path: "http_tls.client_crl", kind: Kind::Text },
    Key { path: "http_admin.listen", kind: Kind::Text },
    Key { path: "http_auth.tokens", kind: Kind::Text },
    Key { path: "http_auth.allow_anonymous_reads", kind: Kind::Flag },
    Key { path: "http_auth.allow_anonymous", kind: Kind::Flag },
    Key { path: "http_auth.loopback", kind: Kind::Text },
    Key { path: "state", kind: Kind::Text },
    Key { path: "peers", kind: Kind::Peers },
    Key { path: "prefers", kind: Kind::Ids },
    Key { path: "timing.heartbeat_interval", kind: Kind::Text },
    Key { path: "timing.election_timeout", kind: Kind::List },
    Key { path: "timing.leader_wait", kind: Kind::Text },
    Key { path: "timing.promote_after", kind: Kind::Text },
    Key { path: "snapshot.every_entries", kind: Kind::Number },
    Key { path: "snapshot.every_bytes", kind: Kind::Number },
    Key { path: "snapshot.keep_entries", kind: Kind::Number },
    Key { path: "snapshot.max_bytes_per_second", kind: Kind::Number },
    Key { path: "storage.segment_bytes", kind: Kind::Number },
    Key { path: "limits.max_value_bytes", kind: Kind::Number },
    Key { path: "limits.max_in_flight_proposals", kind: Kind::Number },
    Key { path: "limits.max_in_flight_bytes", kind: Kind::Number },
    Key { path: "limits.max_http_connections", kind: Kind::Number },
];

impl Key {
    /// The environment variable, for example `QUORATE_TIMING_HEARTBEAT_INTERVAL`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.replace('.', "_").to_uppercase())
    }

    /// The flag, for example `--timing-heartbeat-interval`.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}", self.path.replace(['.', '_'], "-"))
    }

    fn value(&self, text: &str) -> Result<Value, &'static str> {
        match self.kind {
            Kind::Text => Ok(Value::String(text.to_owned())),
            Kind::Number => text.parse().map(Value::Integer).map_err(|_| "give a whole number"),
            Kind::Flag => text.parse().map(Value::Boolean).map_err(|_| "give true or false"),
            Kind::List => {
                Ok(text.split(',').map(|part| Value::String(part.trim().to_owned())).collect::<Vec<_>>().into())
            }
            Kind::Ids => {
                let ids = text.split(',').map(|id| id.trim().parse().map(Value::Integer));
                ids.collect::<Result<Vec<_>, _>>().map(Value::from).map_err(|_| "give ID,ID")
            }
            Kind::Peers => {
                let peers = text.split(',').map(peer).collect::<Option<Vec<_>>>();
                peers.map(Value::from).ok_or("give ID=ADDR,ID=ADDR, and append /witness to the address of a witness")
            }
            Kind::Labels => {
                let labels =
                    text.split(',').filter(|label| !label.trim().is_empty()).map(|label| label.split_once('='));
                let labels = labels.map(|label| label.map(|(key, value)| (key.trim().to_owned(), Value::from(value))));
                labels.collect::<Option<Table>>().map(Value::Table).ok_or("give KEY=VALUE,KEY=VALUE")
            }
        }
    }
}

fn peer(text: &str) -> Option<Value> {
    let (id, addr) = text.trim().split_once('=')?;
    let id = id.parse().ok()?;
    let (addr, is_witness) = match addr.strip_suffix("/witness") {
        Some(addr) => (addr, true),
        None => (addr, false),
    };
    Some(Value::Table(Table::from_iter([
        ("id".to_owned(), Value::Integer(id)),
        ("addr".to_owned(), Value::String(addr.to_owned())),
        ("witness".to_owned(), Value::Boolean(is_witness)),
    ])))
}

/// Values that take precedence over those of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Vec<Override>);

#[derive(Clone, Debug)]
struct Override {
    key: Key,
    /// The variable or flag, named in errors.
    source: String,
    text: String,
}

impl Overrides {
    /// The overrides among `environment`. Other variables with the prefix are logged and ignored: a
    /// platform may set some, for example for a service named "quorate".
    pub fn from_environment(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let environment: Vec<_> = environment.into_iter().collect();
        environment::warn_of_unknown(environment.iter().map(|(variable, _)| &**variable));
        let of_keys = environment.into_iter().filter_map(|(variable, text)| {
            let key = KEYS.iter().find(|key| key.variable() == variable)?;
            Some(Override { key: *key, source: variable, text })
        });
        Self(of_keys.collect())
    }

    /// The overridden keys, and the variable or flag of each.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.0.iter().map(|given| (given.key.path, given.source.clone()))
    }

    pub(super) fn apply(&self, table: &mut Table) -> Result<(), ConfigError> {
        for Override { key, source, text } in &self.0 {
            let problem = || format!("`{}` does not fit {}", text.escape_debug(), key.path);
            let value = key.value(text).map_err(|remedy| ConfigError::new(source, problem(), remedy))?;
            let (section, name) = key.path.split_once('.').unwrap_or(("", key.path));
            let target = if section.is_empty() {
                &mut *table
            } else {
                let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
                inner
                    .as_table_mut()
                    .ok_or_else(|| ConfigError::new(section, "is not a table", "write it as [section]"))?
            };
            target.insert(name.to_owned(), value);
        }
        Ok(())
    }
}

impl Args for Overrides {
    fn augment_args(command: Command) -> Command {
        let args = KEYS.iter().map(|key| {
            let help = format!("Overrides `{}` and {}", key.path, key.variable());
            Arg::new(key.path).long(key.flag()[2..].to_owned()).value_name("VALUE").help(help)
        });
        command.next_help_heading("Configuration overrides").args(args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = KEYS.iter().filter_map(|key| {
            let text = matches.get_one::<String>(key.path)?;
            Some(Override { key: *key, source: key.flag(), text: text.clone() })
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
