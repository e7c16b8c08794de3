//! Regressions of other Raft systems: a test for each bug that rules alone decide, named after the
//! property that must hold here. Quotes are the bugs.

mod changes;
mod disk;
mod elections;
mod faults;
mod leadership_transfer;
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
