//! What went wrong in other Raft systems, one test each, named after what must hold here. The numbers are those of the
//! project's list of scenarios. Not here are those that no rule decides alone.

mod changes;
mod disk;
mod elections;
mod faults;
mod handover;
mod leases;
mod lost_data;
mod membership;
mod outside;
mod promises;
mod reads;
mod replication;
mod runtime;
mod snapshots;
mod versions;
mod witness;
