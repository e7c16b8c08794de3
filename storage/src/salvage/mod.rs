//! Offline recovery after the permanent loss of a quorum: makes a cluster of one from
//! the surviving directories.
//!
//! 1. [`Survey`] reads a member's directory without a change.
//! 2. [`Choice`] finds the most advanced one of several, and whole copies in others of entries
//!    that it lost.
//! 3. [`transplant`] writes a new directory from that, and [`restore`] from
//!    a [`Backup`](crate::snapshots::Backup) alone.
//!
//! The new directory belongs to another cluster: the cluster's name is part of every file and of
//! every certificate, so no node of the old cluster can open it, or reach a node that runs on it,
//! by accident. With the old name there could be two clusters that both take themselves for the
//! same one; so it is refused.
//!
//! It owns no other policy: the caller names the directories, and has been told what may be lost.
//! It never changes or removes anything in an old directory. A running node never uses it.
//!
//! # The content of the new log
//!
//! The new log ends with the last entry of the most advanced log. It has every acknowledged entry
//! that any surveyed member had (a committed entry is in every log that ends with a later term, and
//! in every one of the same term that is as long); and **unacknowledged entries become committed**.
//! Entries that were committed by other members alone are lost, and unknown.
//!
//! No configuration of the old cluster is kept, not even in the log: no-ops replace such entries,
//! so that none is in force again while the log is applied. The new configuration follows the last
//! entry, in a term above every one that was seen.
//!
//! Indexes and terms may go back, but no token of a service may: in front of the new configuration
//! stands an internal entry that raises the generation, which every token begins with. Such entries
//! of earlier recoveries are copied like all others, so that the log is applied as it was.

mod choice;
mod doubt;
mod overlay;
mod survey;
#[cfg(test)]
mod tests;
mod transplant;

pub use choice::{Choice, Healed};
pub use doubt::discard_unproven;
pub use survey::{Survey, SurveyError};
pub use transplant::{NewMember, Transplanted, check_target, restore, transplant};
