//! Wire form of a hello. It has a version of its own, `Version::OF_HELLO`: it is read before a
//! version is agreed on.

use super::wire_struct;
use crate::{codec::Hello, network::Introduction};
use quorate_raft::{ClusterId, Index, NodeId, Skip, Term};
use std::collections::BTreeMap;

wire_struct!(Hello { cluster: String, node: NodeId, protocol_min: u8, protocol_max: u8, introduction: Introduction });

wire_struct!(Introduction {
    machine_version: u32,
    incarnation: u64,
    cluster_id: Option<ClusterId>,
    skips: Vec<Skip>,
    settings: BTreeMap<String, String>,
});

wire_struct!(Skip { index: Index, term: Term, checksum: u32 });
