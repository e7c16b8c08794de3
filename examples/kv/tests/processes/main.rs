//! Tests of the real binary: processes, files, ports, signals. One test binary, because linking
//! takes longer than most of these tests.

mod attacks;
mod certs;
mod commands;
mod config;
mod cost;
mod dashboards;
mod demo;
mod disks;
mod failures;
mod fuzz;
mod hostile;
mod http;
mod kills;
mod leases;
mod list;
mod lost_data;
mod members;
mod permissions;
mod procedures;
mod readme;
mod recovery;
mod reload;
mod roles;
mod rotation;
mod secrets;
mod sessions;
mod shortages;
mod snapshots;
mod strace;
mod support;
mod transfers;
mod txn;
mod voters;
mod watch;
mod witness;
