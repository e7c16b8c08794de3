//! What is done offline when a quorum is lost for good: a cluster of one is made from what survived.
//!
//! 1. [`Survey`] reads a member's directory and leaves it as it is.
//! 2. [`Choice`] says of several which one is the most advanced, and what helps it: what is lost in one may be whole in another.
//! 3. [`transplant`] writes a new directory from that, and [`restore`] from a [`Backup`](crate::snapshots::Backup) alone.
//!
//! A new directory is that of another cluster: a name is part of every file and of every certificate, so nobody of the old cluster
//! can open it, or reach a node that runs on it, by accident. Whoever kept the name would have two clusters that believe to be the
//! same one; so it is refused.
//!
//! It owns no policy but that: who asks says which directories there are, and has been told what may be lost. It never changes or
//! removes anything of an old directory. Nothing of a running node uses it.
//!
//! # What is kept, and what is not
//!
//! The new log ends with what the most advanced log ended with: entries that were acknowledged are among them as far as any of the
//! surveyed members had them (an entry that was committed is in every log that ends with a later term, and in one of the same term
//! that is as long); and **entries that nobody was told of become committed**. What was committed by members that are all not among
//! them is lost, and nobody can say what it was.
//!
//! No configuration of the old cluster is kept, not even in the log: in place of such entries stand ones that do nothing, so that
//! none is in force again while the log is applied. Behind the last entry stands the new one, in a term above every one that was seen.

mod choice;
mod survey;
#[cfg(test)]
mod tests;
mod transplant;

mod doubt;
pub use choice::{Choice, Healed};
pub use doubt::discard_unproven;
pub use survey::{Survey, SurveyError};
pub use transplant::{NewMember, Transplanted, check_target, restore, transplant};
