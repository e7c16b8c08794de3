//! Decisions of `Consensus` beside the rules of Raft: an event, the time and a view of the node go
//! in, effects or one decision come out, and the actor carries them out.
//!
//! - Commands of clients: `batches`, `proposals`, with `routing`, `request_ids` and `large_commands`.
//! - Reads: `reads`, with `freshness`; `leases`, for those that ask nobody.
//! - Members and leadership: `operators`, with `membership_change`; `automatic`.
//! - The comparison of replicas: `claims`.
//! - Entries of the leader's own: `ticks`, for log time; `internal_entries`, for services;
//!   `versions`, which raises the version of a service.
//! - The rest of a node's life: `snapshot_policy`, `stopping`.
//!
//! No module here knows an actor, a channel, a task or a clock: times are moments of the node's
//! clock, and the way to answer a caller is an opaque value that an effect hands back. So tests,
//! and the pure layer of the simulator, drive them without a runtime: for the simulator alone they
//! are visible, none of them is part of the API.

pub mod automatic;
pub(crate) mod batches;
pub mod callers;
pub mod claims;
pub mod freshness;
pub mod internal_entries;
pub(crate) mod large_commands;
pub mod leases;
pub mod membership_change;
pub mod operators;
pub mod proposals;
pub mod reads;
pub(crate) mod request_ids;
pub mod routing;
pub mod snapshot_policy;
pub mod stopping;
pub mod ticks;
pub mod versions;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn no_decision_knows_an_actor_a_channel_or_a_clock() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/decisions")];
        let mut sources = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the sources").map(|entry| entry.expect("a source").path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else if !entry.ends_with("decisions/mod.rs") {
                    sources += 1;
                    let source = fs::read_to_string(&entry).expect("text");
                    for foreign in
                        ["actix", "tokio", "crate::actors", "crate::admission", "Instant", "SystemTime", "rand::"]
                    {
                        assert!(!source.contains(foreign), "{} knows {foreign}", entry.display());
                    }
                }
            }
        }
        assert!(sources > 10, "only {sources} were read");
    }
}
