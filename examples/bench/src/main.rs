//! Benchmarks of Quorate. Each setting prints one line of JSON, in the format of
//! the comparison scripts:
//!
//! ```text
//! quorate-bench durable [IN_FLIGHT,... [SECONDS [VALUE_BYTES]]]   three processes, QUIC, write-ahead logs
//! quorate-bench memory  [IN_FLIGHT,... [SECONDS [VALUE_BYTES]]]   three nodes in one process, in memory
//! quorate-bench reads   [IN_FLIGHT,... [SECONDS [VALUE_BYTES]]]   the same as durable, reads of every kind
//! quorate-bench failover ROUNDS                    as durable, the leader killed ROUNDS times
//! quorate-bench overload SECONDS VALUE_BYTES       as durable, under ten times its peak load
//! quorate-bench steady SECONDS VALUE_BYTES         as durable, full load, elections counted
//! quorate-bench recovery BYTES                     a log, then a snapshot, of this size is opened again
//! quorate-bench snapshot BYTES [BYTES_PER_SECOND]  a follower gets a state of this size during writes
//! quorate-bench watch [WATCHES [SECONDS]]          one node in memory, with this many watches
//! ```
//!
//! Standard error shows how far a measurement is: a bar on a terminal, else a line every five seconds.
//!
//! Proposals are closed-loop (each client waits for its answer before the next proposal) through
//! `Node::propose`, in the leader's process. Reads are closed-loop through `Node::read`, in the
//! leader's process and in a follower's.
//!
//! - [`workload`]: the clients and their figures.
//! - [`durable`], [`memory`] and [`reads`]: the measured clusters; [`processes`]: a
//!   cluster of processes.
//! - [`failover`], [`overload`], [`recovery`], [`snapshot`] and [`watch`]: further measurements;
//!   [`proxy`]: a wire that can be cut; [`machine_speed`]: the speed of the machine itself.

mod durable;
mod failover;
mod machine_speed;
mod memory;
mod overload;
mod processes;
mod proxy;
mod reads;
mod recovery;
mod snapshot;
mod watch;
mod workload;

use quorate::Snapshots;
use quorate_progress::Progress;
use std::{process::ExitCode, time::Duration};
use workload::Settings;

/// The name with which lines on standard error begin.
const PROGRAM: &str = "quorate-bench";

const USAGE: &str = "usage: quorate-bench durable|memory|reads [IN_FLIGHT,... [SECONDS [VALUE_BYTES]]] | failover ROUNDS | \
                     overload SECONDS VALUE_BYTES | steady SECONDS VALUE_BYTES | recovery BYTES | \
                     snapshot BYTES [BYTES_PER_SECOND] | watch [WATCHES [SECONDS]]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["durable", ref settings @ ..] => Settings::parse(settings).and_then(|settings| durable::run(&settings)),
        ["memory", ref settings @ ..] => Settings::parse(settings).and_then(|settings| memory::run(&settings)),
        ["reads", ref settings @ ..] => Settings::parse(settings).and_then(|settings| reads::run(&settings)),
        ["failover", rounds] => match rounds.parse() {
            Ok(rounds @ 1..) => failover::run(rounds),
            _ => Err(format!("{rounds} is not a number of rounds of 1 or more").into()),
        },
        ["overload", seconds, value_bytes] => {
            Settings::parse(&["1", seconds, value_bytes]).and_then(|of| overload::run(of.seconds, of.value_bytes))
        }
        ["steady", seconds, value_bytes] => Settings::parse(&["1", seconds, value_bytes])
            .and_then(|of| overload::run_steady(of.seconds, of.value_bytes)),
        ["recovery", bytes] => size(bytes).and_then(recovery::run),
        ["snapshot", bytes] => {
            size(bytes).and_then(|bytes| snapshot::run(bytes, Snapshots::default().bytes_per_second))
        }
        ["snapshot", bytes, speed] => size(bytes).and_then(|bytes| snapshot::run(bytes, size(speed)?)),
        ["watch"] => watch::run(10_000, 20),
        ["watch", watches] => number(watches).and_then(|watches| watch::run(watches, 20)),
        ["watch", watches, seconds] => number(watches).and_then(|watches| watch::run(watches, number(seconds)?.into())),
        // Started by `durable`, `failover`, `overload`, `reads` and `snapshot` to run
        // their other members.
        [durable::MEMBER, ref place @ ..] => durable::run_member(place),
        [processes::EQUAL_MEMBER, ref place @ ..] => processes::run_equal_member(place),
        [reads::MEMBER, ref place @ ..] => reads::run_member(place),
        [snapshot::MEMBER, ref place @ ..] => snapshot::run_member(place),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{PROGRAM}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Shows a part of a measurement that takes this time.
fn timed(what: impl Into<String>, length: Duration) -> Progress {
    Progress::timed(PROGRAM, what, length)
}

fn number(text: &str) -> Result<u32, workload::Failed> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err(format!("{text} is not a number of 1 or more").into()),
    }
}

fn size(text: &str) -> Result<u64, workload::Failed> {
    match text.parse() {
        Ok(bytes) if bytes >= 1 << 20 => Ok(bytes),
        _ => Err(format!("{text} is not a number of bytes of {} or more", 1 << 20).into()),
    }
}
