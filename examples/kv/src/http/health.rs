//! The probes: `/livez` tells whether a restart would help, `/readyz` whether the node
//! can serve requests.
//!
//! `/livez` fails when the thread of consensus and network has not responded for [`SILENCE_LIMIT`],
//! or when the log's or the state machine's thread has ended. A slow, hanging or full disk, or a
//! slow command, blocks those two threads, and no restart helps. So this fails `/readyz` only:
//! otherwise an orchestrator would kill all nodes that share a slow disk.

use super::{Api, Refusal};
use axum::extract::State;
use quorate::{Status, Turns};
use std::time::Duration;

/// The time without a response after which a thread counts as stuck.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// Succeeds if all threads exist and the consensus thread responds. A failed node is not checked
/// for, because its process ends.
pub(super) async fn livez(State(api): State<Api>) -> Result<&'static str, Refusal> {
    is_alive(api.node.turns()).map(|()| "alive\n")
}

/// Succeeds if the node is not stopping, knows a leader, has responsive threads and a state machine
/// that has not halted, and has space on its disk.
pub(super) async fn readyz(State(api): State<Api>) -> Result<&'static str, Refusal> {
    api.open()?;
    is_ready(api.node.turns())?;
    let status = api.node.status();
    let status = status.borrow();
    if let Some(halted) = &status.halted {
        return Err(Refusal::Halted(halted.to_string()));
    }
    if status.leader.is_none() {
        return Err(why_no_leader(&status));
    }
    if status.storage_full {
        return Err(Refusal::StorageFull);
    }
    Ok("ready\n")
}

/// The reason for the lack of a leader, as far as this node knows it.
fn why_no_leader(status: &Status) -> Refusal {
    let remedy = "start the members that still have it, or restore a backup if none has";
    match (status.lost_up_to, status.faulty) {
        (Some(lost), _) => Refusal::DataLost(format!(
            "no leader is known, and this node has lost the state up to entry {lost}; {remedy}"
        )),
        (None, 1..) => {
            Refusal::DataLost(format!("no leader is known, and this node has lost {} entries; {remedy}", status.faulty))
        }
        (None, 0) => Refusal::NoLeader,
    }
}

fn is_alive(turns: Turns) -> Result<(), Refusal> {
    match turns {
        Turns { consensus, .. } if !takes_turns(consensus) => Err(stuck("the consensus thread", consensus)),
        Turns { log_writer: None, .. } => Err(stuck("the log's thread", None)),
        Turns { applier: None, .. } => Err(stuck("the state machine's thread", None)),
        _ => Ok(()),
    }
}

fn is_ready(turns: Turns) -> Result<(), Refusal> {
    is_alive(turns)?;
    match turns {
        Turns { log_writer, .. } if !takes_turns(log_writer) => {
            Err(stuck("the log's thread, which waits for the disk,", log_writer))
        }
        Turns { applier, .. } if !takes_turns(applier) => Err(stuck("the state machine's thread", applier)),
        _ => Ok(()),
    }
}

fn takes_turns(silence: Option<Duration>) -> bool {
    silence.is_some_and(|silence| silence < SILENCE_LIMIT)
}

fn stuck(thread: &str, silence: Option<Duration>) -> Refusal {
    Refusal::Stuck(match silence {
        Some(silence) => format!("{thread} has not responded for {} s", silence.as_secs()),
        None => format!("{thread} has ended"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_or_command_is_not_ready_and_alive_and_a_stuck_consensus_is_neither() {
        let (well, ill) = (Some(Duration::from_secs(9)), Some(Duration::from_secs(10)));
        let cases = [
            ([well, well, well], true, true),
            ([well, ill, well], true, false),
            ([well, well, ill], true, false),
            ([ill, well, well], false, false),
            ([None, well, well], false, false),
            ([well, None, well], false, false),
            ([well, well, None], false, false),
        ];
        for ([consensus, log_writer, applier], alive, ready) in cases {
            let mut turns = Turns::default();
            (turns.consensus, turns.log_writer, turns.applier) = (consensus, log_writer, applier);
            assert_eq!((is_alive(turns).is_ok(), is_ready(turns).is_ok()), (alive, ready), "{turns:?}");
        }
    }
}
