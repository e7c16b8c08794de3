//! Measures Quorate. Every setting prints one JSON line, in the form that comparisons read:
//!
//! ```text
//! quorate-bench durable [IN_FLIGHT,... [SECONDS [VALUE_BYTES]]]   three processes, QUIC, write-ahead logs
//! quorate-bench memory  [IN_FLIGHT,... [SECONDS [VALUE_BYTES]]]   three nodes in one process, in memory
//! ```
//!
//! Proposals are closed-loop (each client waits for its answer before the next one) through `Node::propose`, in the
//! leader's process.
//!
//! - [`workload`]: the clients and their figures.
//! - [`durable`] and [`memory`]: the clusters that they run against.

mod durable;
mod memory;
mod workload;

use std::process::ExitCode;
use workload::Settings;

const USAGE: &str = "usage: quorate-bench durable|memory [IN_FLIGHT,... [SECONDS [VALUE_BYTES]]]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["durable", ref settings @ ..] => Settings::parse(settings).and_then(|settings| durable::run(&settings)),
        ["memory", ref settings @ ..] => Settings::parse(settings).and_then(|settings| memory::run(&settings)),
        // How `durable` starts its followers.
        [durable::MEMBER, ref place @ ..] => durable::run_member(place),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quorate-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
