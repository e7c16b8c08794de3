//! The command line: parses it, runs the command, prints the result, and turns any failure into one
//! line and an exit code.

mod connection;
mod context;
mod list;
#[cfg(test)]
mod operating;
mod txn;
mod usage;
mod value;
mod watch;

use crate::{
    backup, certs,
    client::{ReadBounds, ReadMode},
    demo, discard, environment,
    exit::{Exit, Failure},
    http::messages::{AddRequest, MemberAnswer, MembersAnswer, MetadataRequest, StatusAnswer, VoterRequest},
    logging, output, playground, recover, restore, serve, watch_status,
};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use connection::Connection;
use quorate::NodeId;
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::PathBuf, process::ExitCode, time::Duration};

/// A replicated key-value server on Quorate, its client, and the demo.
///
/// Exit codes: 0 success; 1 other failure; 2 usage or configuration; 3 the key does not exist;
/// 4 a comparison failed, or a conflict; 5 nothing happened, retry; 6 the outcome is unknown;
/// 7 refused permanently.
#[derive(Debug, Parser)]
#[command(name = "quorate-kv", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print JSON, for programs; errors too, on standard error
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster on this machine, kill its leader, and check that no acknowledged write is lost
    Demo(demo::Args),
    /// Show a simulated cluster in a browser: step, rewind, lose messages and crash nodes, with the scenes of the
    /// Raft paper, until Ctrl-C
    Playground(playground::Args),
    /// Make a private certificate authority, and certificates for nodes, clients and operators
    Certs(certs::Command),
    /// Run one node in the foreground
    Serve(Box<serve::Args>),
    /// Set a key
    Put {
        /// The key to set
        key: String,
        /// The new value; `-` reads standard input, `@FILE` reads a file
        value: String,
        /// Use VALUE literally, even if it is `-` or starts with `@`
        #[arg(long)]
        literal: bool,
        /// Let the key expire after this time, such as 30s, in which some node leads; without it
        /// the key stays, also if it had a time to live before
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Print a key's value: its exact bytes, and a newline only on a terminal
    Get {
        /// The key to read
        key: String,
        /// The consistency of the read
        #[arg(long, default_value_t, value_enum)]
        read: ReadMode,
        #[command(flatten)]
        bounds: ReadBounds,
        /// End with a newline, also into a pipe or a file
        #[arg(long)]
        newline: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Print the keys of a range and their values, ordered by key, all of one state: a line for
    /// each pair, with a tab between key and value, and control characters escaped
    List(list::Args),
    /// Remove a key
    Delete {
        /// The key to remove
        key: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Set a key if its value is the expected one; otherwise fail
    #[command(group = clap::ArgGroup::new("expectation").required(true))]
    Cas {
        /// The key to compare and set
        key: String,
        /// The new value
        value: String,
        /// The value that the key must have
        #[arg(long, value_name = "V", group = "expectation")]
        expect: Option<String>,
        /// The key must not exist
        #[arg(long, group = "expectation")]
        absent: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Compare several keys, and then set, remove and print several, all or none at one log index;
    /// fails if a comparison does
    Txn(txn::Args),
    /// Print the changes of a key, or of all keys with a prefix, as they happen: a line for each,
    /// with its index, `put`, `delete` or `expire`, the key and the value; `put-long` if the value
    /// is too long for that
    Watch(watch::Args),
    /// Show the status of the node at each endpoint
    Status {
        /// Show the whole cluster until `q` or Ctrl-C, as one of the endpoints sees it, and go on at
        /// another member when that one dies; lines of what changes if the output is no terminal
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        connection: Connection,
    },
    /// Show or change the members
    Member {
        #[command(subcommand)]
        what: MemberCommand,
    },
    /// Transfer leadership to another voter
    Transfer {
        /// The new leader; default: the voter with the longest log
        #[arg(long, value_name = "ID")]
        to: Option<u64>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Take a snapshot on the node at each endpoint now, and cut its log up to it
    Snapshot {
        #[command(flatten)]
        connection: Connection,
    },
    /// Save a consistent copy of the state in a file, while the cluster runs
    Backup {
        /// The backup file; it must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Save connections under names, and choose the one that client commands use
    Context {
        #[command(subcommand)]
        what: context::ContextCommand,
    },
    /// Start a new cluster from a backup: create the data directory of its first node
    Restore(restore::Args),
    /// Show the entries in doubt at the end of a single voter's log after a power cut,
    /// or discard them
    DiscardUnproven(Box<discard::Args>),
    /// After the permanent loss of a quorum: start a new cluster from surviving data directories
    Recover(recover::Args),
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Add a node that receives the log and does not vote yet
    Add {
        /// The new node's id, never used before
        id: u64,
        /// The address at which the other nodes dial it: HOST:PORT of its `raft` address
        addr: String,
        /// Add it as the witness: it stores no commands, never leads, and breaks ties between
        /// two full copies
        #[arg(long)]
        witness: bool,
        /// The URL at which it serves clients, until it publishes one itself
        #[arg(long, value_name = "URL")]
        http: Option<String>,
        /// A label of the node; repeatable
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Change the URL at which a member serves clients, or its labels. The change lasts until the
    /// same field is changed in the member's own configuration
    #[command(group = clap::ArgGroup::new("update").required(true).multiple(true))]
    Update {
        /// The member's id
        id: u64,
        /// The URL, such as https://10.0.0.1:8001
        #[arg(long, value_name = "URL", group = "update")]
        http: Option<String>,
        /// Remove the URL
        #[arg(long, group = "update", conflicts_with = "http")]
        no_http: bool,
        /// Set a label; repeatable
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, group = "update")]
        labels: Vec<(String, String)>,
        /// Remove a label; repeatable
        #[arg(long = "no-label", value_name = "KEY", group = "update")]
        no_labels: Vec<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Make a member a voter, once it has caught up
    Promote {
        /// The member's id
        id: u64,
        #[command(flatten)]
        connection: Connection,
    },
    /// Remove a member
    Remove {
        /// The member's id
        id: u64,
        #[command(flatten)]
        connection: Connection,
    },
    /// Change a member's address, after its machine or port changed
    Move {
        /// The member's id
        id: u64,
        /// The address at which the other nodes dial it: HOST:PORT of its `raft` address
        addr: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Replace the set of voters in one step; new voters first receive the log
    Set {
        /// The voters: ID, or ID=HOST:PORT for a node that is not a member yet
        #[arg(required = true, value_name = "ID[=HOST:PORT]", value_parser = voter)]
        voters: Vec<VoterRequest>,
        #[command(flatten)]
        connection: Connection,
    },
    /// List the members
    List {
        #[command(flatten)]
        connection: Connection,
    },
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn voter(text: &str) -> Result<VoterRequest, String> {
    let (id, addr) = text.split_once('=').map_or((text, None), |(id, addr)| (id, Some(addr.to_owned())));
    let number = id.parse().map_err(|_| format!("{id:?} is not a node id"))?;
    Ok(VoterRequest { id: NodeId(number), addr })
}

/// The list is the complete set of voters, so a repeated id is probably a typing error for a node
/// that would be removed.
fn distinct(voters: &[VoterRequest]) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    match voters.iter().find(|voter| !seen.insert(voter.id)) {
        Some(VoterRequest { id, .. }) => {
            Err(Failure::new(Exit::Usage, format_args!("member set names node {id} twice; name every voter once")))
        }
        None => Ok(()),
    }
}

/// Runs the command given on the process's command line.
#[must_use]
pub fn run() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let parsed = Cli::command().try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error, &args, Cli::command()),
    };
    let json = cli.json;
    logging::start(matches!(cli.command, Command::Serve(_)));
    let ended =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::from).and_then(|runtime| {
            let ended = runtime.block_on(cli.run());
            // Tasks that remain after a second signal or a failure must not delay the exit.
            runtime.shutdown_background();
            ended
        });
    logging::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

impl Cli {
    async fn run(self) -> Result<(), Failure> {
        let show = |human: String, machine: Value| output::line(if self.json { machine.to_string() } else { human });
        if !matches!(self.command, Command::Serve(_)) {
            environment::warn_of_misspelt();
        }
        match self.command {
            Command::Demo(args) => demo::run(args, self.json).await?,
            Command::Playground(args) => playground::run(args, self.json).await?,
            Command::Certs(command) => {
                let (human, machine) = certs::run(&command)?;
                show(human, machine)?;
            }
            Command::Serve(args) => serve::run(*args, self.json).await?,
            Command::Put { key, value, literal, ttl, connection } => {
                let mut client = connection.client()?;
                let answer = client.put_for(&key, value::read(value, literal)?, ttl).await?;
                show(format!("written, index {}", answer.index), json!(answer))?;
            }
            Command::Get { key, read, bounds, newline, connection } => {
                let shown = OutputFormat { json: self.json, newline };
                get(&connection, &key, (read, bounds), shown).await?;
            }
            Command::List(args) => list::run(args, self.json).await?,
            Command::Delete { key, connection } => {
                let answer = connection.client()?.delete(&key).await?;
                let what = if answer.existed { "deleted" } else { "was not there" };
                show(format!("{what}, index {}", answer.index), json!(answer))?;
            }
            Command::Cas { key, value, expect, absent: _, connection } => {
                let answer = connection.client()?.cas(&key, expect.as_deref(), &value).await?;
                if answer.swapped || self.json {
                    show(format!("swapped, index {}", answer.index), json!(answer))?;
                }
                if !answer.swapped {
                    let expected = if expect.is_some() { "has another value" } else { "exists" };
                    let problem = format_args!("not swapped: {key:?} {expected}; read it and decide again");
                    return Err(Failure::coded(Exit::Conflict, "not_swapped", problem));
                }
            }
            Command::Txn(args) => txn::run(args, self.json).await?,
            Command::Watch(args) => watch::run(args, self.json).await?,
            Command::Status { watch: true, connection } => watch_status::run(connection.client()?, self.json).await?,
            Command::Status { watch: false, connection } => status(&connection, self.json).await?,
            Command::Member { what } => {
                let (answer, what) = match what {
                    MemberCommand::List { connection } => {
                        let answer = connection.client()?.members().await?;
                        return Ok(show(members_table(&answer), json!(answer))?);
                    }
                    MemberCommand::Add { id, addr, witness, http, labels, connection } => {
                        let labels = labels.into_iter().collect();
                        let request = AddRequest { id: NodeId(id), addr, witness, client_addr: http, labels };
                        let what = if witness { ", and a witness" } else { "" };
                        (connection.client()?.add(&request).await?, format!("node {id} is a learner{what}"))
                    }
                    MemberCommand::Update { id, http, no_http, labels, no_labels, connection } => {
                        let client_addr = if no_http { Some(None) } else { http.map(Some) };
                        let set = labels.into_iter().map(|(key, value)| (key, Some(value)));
                        let labels = no_labels.into_iter().map(|key| (key, None)).chain(set).collect();
                        let request = MetadataRequest { client_addr, labels };
                        let answer = connection.client()?.describe_member(NodeId(id), &request).await?;
                        (answer, format!("node {id} is updated"))
                    }
                    MemberCommand::Promote { id, connection } => {
                        (connection.client()?.promote_member(NodeId(id)).await?, format!("node {id} is a voter"))
                    }
                    MemberCommand::Remove { id, connection } => {
                        (connection.client()?.remove_member(NodeId(id)).await?, format!("node {id} is removed"))
                    }
                    MemberCommand::Move { id, addr, connection } => (
                        connection.client()?.move_member(NodeId(id), &addr).await?,
                        format!("node {id} is dialled at {addr}"),
                    ),
                    MemberCommand::Set { voters, connection } => {
                        distinct(&voters)?;
                        (connection.client()?.set_voters(voters).await?, "the voters are set".to_owned())
                    }
                };
                show(format!("{what}, configuration {}", answer.index), json!(answer))?;
            }
            Command::Transfer { to, connection } => {
                let answer = connection.client()?.transfer(to.map(NodeId)).await?;
                show(format!("node {} leads", answer.leader_id), json!(answer))?;
            }
            Command::Snapshot { connection } => snapshot(&connection, self.json).await?,
            Command::Backup { out, connection } => {
                let saved = backup::save(&mut connection.client()?, &out).await?;
                show(format!("{saved}"), json!(saved))?;
            }
            Command::Context { what } => context::run(what, self.json)?,
            Command::Restore(args) => {
                let (human, machine) = restore::run(&args)?;
                show(human, machine)?;
            }
            Command::DiscardUnproven(args) => {
                let (human, machine, refused) = discard::run(&args)?;
                show(human, machine)?;
                refused.map_or(Ok(()), Err)?;
            }
            Command::Recover(args) => {
                let recover::Recovered { report, refused } = recover::run(&args)?;
                show(report.to_string(), json!(report))?;
                refused.map_or(Ok(()), Err)?;
            }
        }
        Ok(())
    }
}

/// The output format of a value.
struct OutputFormat {
    json: bool,
    newline: bool,
}

async fn get(
    connection: &Connection,
    key: &str,
    (read, bounds): (ReadMode, ReadBounds),
    shown: OutputFormat,
) -> Result<(), Failure> {
    let got = connection.client()?.get_within(key, read, bounds).await?;
    let Some(value) = got.value else {
        return Err(Failure::new(Exit::NotFound, format_args!("not_found: no key {key:?}")));
    };
    if shown.json {
        let index = got.index;
        // JSON cannot represent bytes: a value that is not UTF-8 is printed as hexadecimal digits,
        // under another name.
        let object = match std::str::from_utf8(&value) {
            Ok(text) => json!({ "key": key, "value": text, "index": index }),
            Err(_) => {
                let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                json!({ "key": key, "value_hex": digits, "index": index })
            }
        };
        return Ok(output::line(object)?);
    }
    Ok(value::print(&value, shown.newline)?)
}

/// Prints one line per endpoint; fails after all were asked if one did not answer.
async fn status(connection: &Connection, json: bool) -> Result<(), Failure> {
    let mut failures = Vec::new();
    let mut lines = Vec::new();
    for (_, mut client) in connection.each()? {
        match client.status().await {
            Ok(answer) if json => lines.push(json!(answer).to_string()),
            Ok(answer) => lines.push(status_line(&answer)),
            Err(error) => failures.push(error.into()),
        }
    }
    if !json && !lines.is_empty() {
        output::line(STATUS_HEAD)?;
    }
    lines.into_iter().try_for_each(output::line)?;
    Failure::all(failures)
}

/// Prints one line per endpoint; fails after all were asked if one took no snapshot.
async fn snapshot(connection: &Connection, json: bool) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for (url, mut client) in connection.each()? {
        match client.snapshot().await {
            Ok(answer) if json => output::line(json!({ "endpoint": url, "index": answer.index }))?,
            Ok(answer) => output::line(format_args!("{url}: snapshot taken, index {}", answer.index))?,
            Err(error) => failures.push(error.into()),
        }
    }
    Failure::all(failures)
}

fn members_table(answer: &MembersAnswer) -> String {
    let addr = |member: &MemberAnswer| member.addr.clone().unwrap_or_else(|| "as configured".to_owned());
    let http = |member: &MemberAnswer| member.client_addr.clone().unwrap_or_else(|| "-".to_owned());
    let wide = |column: &dyn Fn(&MemberAnswer) -> String, title: &str| {
        answer.members.iter().map(|member| column(member).len()).max().unwrap_or(0).max(title.len()) + 2
    };
    let (addr_width, http_width) = (wide(&addr, "addr"), wide(&http, "http"));
    let line = |[node, role, addr, http, labels]: [&str; 5]| {
        format!("{node:<6}{role:<18}{addr:<addr_width$}{http:<http_width$}{labels}").trim_end().to_owned()
    };
    let mut lines = vec![line(["node", "role", "addr", "http", "labels"])];
    lines.extend(answer.members.iter().map(|member| {
        let role = if member.witness { format!("{}, witness", member.role) } else { member.role.clone() };
        let labels: Vec<_> = member.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        line([&member.id.to_string(), &role, &addr(member), &http(member), &labels.join(",")])
    }));
    let settled = if answer.settled { "" } else { ", a change is in progress" };
    lines.push(format!("configuration {}{settled}", answer.index));
    lines.join("\n")
}

const STATUS_HEAD: &str =
    "node  role           term  leader    commit   applied       log            voters  state hash        cluster id";

fn status_line(status: &StatusAnswer) -> String {
    let leader = status.leader_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let voters = status.voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let log = format!("{}..{}", status.first_log_index, status.last_log_index);
    format!(
        "{:<4}  {:<13} {:>5}  {leader:>6}  {:>8}  {:>8}  {log:<14} {voters:<7} {:<16}  {}",
        status.node_id,
        status.role,
        status.term,
        status.commit_index,
        status.applied_index,
        status.state_hash,
        status.cluster_id.as_deref().unwrap_or("-"),
    )
}
