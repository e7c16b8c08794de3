//! Detection of two live processes of one id, as opposed to restarts.
//!
//! A process draws its incarnation at random when it starts. After a restart of a node its peers
//! see another incarnation, and never the former one again. So an incarnation that comes back
//! after another was seen proves that both processes live: a cloned machine, or a data directory
//! that was copied.
//!
//! Owns the incarnations seen. The acceptor and the links decide the consequences.

use quorate_raft::NodeId;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

/// The incarnations of each peer that were connected, the latest first.
///
/// **Bound:** [`Incarnations::KEPT`] a peer, and a peer a certificate that was issued.
#[derive(Debug, Default)]
pub(super) struct Incarnations {
    of: BTreeMap<NodeId, VecDeque<Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    incarnation: u64,
    remote: SocketAddr,
}

impl Incarnations {
    /// Incarnations kept of a peer: more than the processes that run under one id by mistake.
    const KEPT: usize = 4;

    /// The address of the other live process of `peer`, if this incarnation comes back
    /// after that one.
    pub(super) fn twin_of(&self, peer: NodeId, incarnation: u64) -> Option<SocketAddr> {
        let seen = self.of.get(&peer)?;
        let latest = seen.front().filter(|latest| latest.incarnation != incarnation)?;
        seen.iter().any(|seen| seen.incarnation == incarnation).then_some(latest.remote)
    }

    /// A process of `peer` is connected.
    pub(super) fn connected(&mut self, peer: NodeId, incarnation: u64, remote: SocketAddr) {
        let seen = self.of.entry(peer).or_default();
        seen.retain(|seen| seen.incarnation != incarnation);
        seen.push_front(Seen { incarnation, remote });
        seen.truncate(Self::KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn restarts_are_no_twins_however_many_there_are() {
        let mut incarnations = Incarnations::default();
        for incarnation in 0..100 {
            for _ in 0..3 {
                assert_eq!(incarnations.twin_of(PEER, incarnation), None);
                incarnations.connected(PEER, incarnation, at(1));
            }
        }
        assert_eq!(incarnations.of[&PEER].len(), Incarnations::KEPT);
    }

    #[test]
    fn an_incarnation_that_comes_back_after_another_proves_that_both_run() {
        let mut incarnations = Incarnations::default();
        incarnations.connected(PEER, 7, at(1));
        incarnations.connected(PEER, 8, at(2));
        assert_eq!(incarnations.twin_of(PEER, 7), Some(at(2)));
        assert_eq!(incarnations.twin_of(PEER, 8), None, "the latest one goes on");
        assert_eq!(incarnations.twin_of(NodeId(3), 7), None, "of another peer");
        incarnations.connected(PEER, 7, at(1));
        assert_eq!((incarnations.twin_of(PEER, 8), incarnations.twin_of(PEER, 9)), (Some(at(1)), None));
    }
}
