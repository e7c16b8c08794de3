//! Benchmarks of Quorate; `quorate-bench --help` lists them, and README.md says what they measure.
//! Each setting prints one line of JSON, in the format of the comparison scripts.
//!
//! Standard error shows how far a measurement is: a bar on a terminal, else a line every five seconds.
//! A failed measurement ends with one line there, and with a failure as exit status.
//!
//! Nodes have the default settings, except that `durable`, `memory`, `watch` and `snapshot` take no
//! snapshot unless asked, the number of proposals in flight may be as large as the benchmark's, and
//! nodes poll busily in `memory`.
//!
//! Proposals are closed-loop (each client waits for its answer before the next proposal) through
//! `Node::propose`, in the leader's process. Reads are closed-loop through `Node::read`, in the
//! leader's process and in a follower's.
//!
//! - [`workload`]: the clients and their figures; [`leadership`]: the leader that a measurement needs.
//! - [`durable`], [`memory`] and [`reads`]: the measured clusters; [`processes`]: a
//!   cluster of processes.
//! - [`failover`], [`mixed`], [`overload`], [`recovery`], [`snapshot`] and [`watch`]: further measurements;
//!   [`proxy`]: a wire that can be cut; [`machine_speed`]: the speed of the machine itself.
//! - [`plot`]: draws what they print.

mod durable;
mod failover;
mod leadership;
mod machine_speed;
mod memory;
mod mixed;
mod overload;
mod plot;
mod processes;
mod proxy;
mod reads;
mod recovery;
mod snapshot;
mod watch;
mod workload;

use clap::{Parser, error::ErrorKind};
use quorate::Snapshots;
use quorate_progress::Progress;
use std::{process::ExitCode, time::Duration};
use workload::{Failed, Load, Stage};

/// The name with which lines on standard error begin.
const PROGRAM: &str = "quorate-bench";

/// Benchmarks of Quorate, and a plot of their figures.
#[derive(Parser)]
#[command(name = PROGRAM)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Proposals to a cluster of processes: QUIC, write-ahead logs
    Durable {
        /// The number of nodes
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
        nodes: u64,
        #[command(flatten)]
        load: Load,
    },
    /// Proposals to three nodes in one process, in memory
    Memory(Load),
    /// Reads of every kind, on the leader and on a follower; else as durable
    Reads {
        /// Of a state machine that offers no views: queries run on its own thread
        #[arg(long)]
        no_views: bool,
        #[command(flatten)]
        load: Load,
    },
    /// Half of the peak of writes beside 100,000 reads by lease a second, on the leader; else as durable
    Mixed(Stage),
    /// The time without writes after the leader was killed; else as durable
    Failover {
        /// The number of leaders to kill
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// Ten times the peak load; else as durable
    Overload(Stage),
    /// Full load, elections counted; else as durable
    Steady(Stage),
    /// A log, then a snapshot, that is opened again
    Recovery {
        /// The size of each
        #[arg(value_parser = clap::value_parser!(u64).range(1 << 20..))]
        bytes: u64,
    },
    /// A follower that gets a state during writes
    Snapshot {
        /// The size of the state
        #[arg(value_parser = clap::value_parser!(u64).range(1 << 20..))]
        bytes: u64,
        /// The limit of the transfer; 0 for none
        #[arg(default_value_t = Snapshots::default().bytes_per_second)]
        bytes_per_second: u64,
    },
    /// Many watches of one node in memory
    Watch {
        #[arg(default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        watches: u32,
        /// The duration of each of the two measurements
        #[arg(default_value = "20", value_parser = workload::seconds)]
        seconds: Duration,
    },
    /// Draws latency against throughput, from lines that the benchmarks printed
    Plot(plot::Options),
    // The other members, which benchmarks start.
    #[command(name = durable::MEMBER, hide = true)]
    Member(processes::Place),
    #[command(name = processes::EQUAL_MEMBER, hide = true)]
    EqualMember(processes::Place),
    #[command(name = reads::MEMBER, hide = true)]
    ReadsMember(processes::Place),
    #[command(name = snapshot::MEMBER, hide = true)]
    SnapshotMember(processes::Place),
}

fn main() -> ExitCode {
    let outcome = match Cli::try_parse() {
        Ok(cli) => run(cli.command),
        Err(error) if !error.use_stderr() => error.print().map_err(Failed::from),
        Err(error) => Err(mistake(&error).into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failed> {
    match command {
        Command::Durable { nodes, load } => durable::run(nodes, &load),
        Command::Memory(load) => memory::run(&load),
        Command::Reads { no_views, load } => reads::run(!no_views, &load),
        Command::Mixed(stage) => mixed::run(&stage),
        Command::Failover { rounds } => failover::run(rounds),
        Command::Overload(stage) => overload::run(&stage),
        Command::Steady(stage) => overload::run_steady(&stage),
        Command::Recovery { bytes } => recovery::run(bytes),
        Command::Snapshot { bytes, bytes_per_second } => snapshot::run(bytes, bytes_per_second),
        Command::Watch { watches, seconds } => watch::run(watches, seconds),
        Command::Plot(options) => plot::run(&options),
        Command::Member(place) => durable::run_member(&place),
        Command::EqualMember(place) => processes::run_equal_member(&place),
        Command::ReadsMember(place) => reads::run_member(&place),
        Command::SnapshotMember(place) => snapshot::run_member(&place),
    }
}

/// A mistake in the command line, in one line.
fn mistake(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return format!("a command is missing; see `{PROGRAM} --help`");
    }
    let text = error.render().to_string();
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    let text = text.split("\n\nFor more information").next().unwrap_or_default();
    let words: Vec<&str> = text.trim_start_matches("error: ").split_whitespace().collect();
    format!("{}; see `{PROGRAM} --help`", words.join(" "))
}

/// Shows a part of a measurement that takes this time.
fn timed(what: impl Into<String>, length: Duration) -> Progress {
    Progress::timed(PROGRAM, what, length)
}
