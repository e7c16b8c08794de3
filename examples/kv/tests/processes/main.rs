//! The real binary, as its users meet it: processes, files, ports, signals. One test binary, for linking takes longer
//! than most of these tests.

mod commands;
mod config;
mod dashboards;
mod demo;
mod disks;
mod failures;
mod handovers;
mod hostile;
mod http;
mod kills;
mod leases;
mod lost_data;
mod members;
mod permissions;
mod readme;
mod recovery;
mod sessions;
mod shortages;
mod snapshots;
mod strace;
mod support;
mod voters;
mod witness;
