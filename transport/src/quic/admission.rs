//! The rule by which connection attempts are admitted: pure, over counts of handshakes under way.
//!
//! Each handshake costs memory and computation before the peer has proved anything, so there is a
//! bound for all, and a lower one for each source. A source address may be forged until a retry
//! has proved it, so each attempt without that proof is answered by a retry, which is shorter than
//! the packet that it answers. This costs a member one round trip when it connects. Without it, the
//! first answers of a handshake would exceed three times the bytes received: quinn sends a whole
//! datagram so long as any of that budget is left.
//!
//! The last places are reserved for the addresses of members: with enough addresses of its own
//! an attacker fills the others, and members must still come back. The address of a member has no
//! larger share than any other.

use quorate_raft::NodeId;
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// The origin of attempts that share one bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// An address of a member: hosts of its network do not take its share.
    Member(IpAddr),
    /// Any other IPv4 address, or the /64 of an IPv6 address, of which one host may use all.
    Other(IpAddr),
}

impl Source {
    pub(super) fn of(address: SocketAddr, is_member: impl Fn(IpAddr) -> bool) -> Self {
        match address.ip().to_canonical() {
            ip if is_member(ip) => Self::Member(ip),
            IpAddr::V6(ip) => Self::Other(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)))),
            v4 @ IpAddr::V4(_) => Self::Other(v4),
        }
    }

    fn is_member(self) -> bool {
        matches!(self, Self::Member(_))
    }
}

/// The addresses of members: those that the dialled name stands for, and those from which the
/// member itself has connected, which may differ.
///
/// **Bounded:** by [`Members::RESOLVED_MAX`] and [`Members::SEEN_MAX`] a node, and by the
/// certificates of nodes that were issued.
#[derive(Debug, Default)]
pub(super) struct Members {
    resolved: BTreeMap<NodeId, Vec<IpAddr>>,
    /// Of all nodes that proved their id, the latest last.
    seen: BTreeMap<NodeId, VecDeque<IpAddr>>,
}

impl Members {
    const RESOLVED_MAX: usize = 16;
    /// The usual address and that of a second network; or the one before a move.
    const SEEN_MAX: usize = 2;

    /// The address of this node's link to a member stands for these.
    pub(super) fn resolved(&mut self, node: NodeId, addresses: impl Iterator<Item = IpAddr>) {
        let addresses = addresses.take(Self::RESOLVED_MAX).map(|ip| ip.to_canonical()).collect();
        self.resolved.insert(node, addresses);
    }

    /// A node that proved its id connected from this address.
    pub(super) fn seen(&mut self, node: NodeId, from: IpAddr) {
        let (from, seen) = (from.to_canonical(), self.seen.entry(node).or_default());
        seen.retain(|earlier| *earlier != from);
        seen.push_back(from);
        if seen.len() > Self::SEEN_MAX {
            seen.pop_front();
        }
    }

    /// This node has no link to that node any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.resolved.remove(&node);
        self.seen.remove(&node);
    }

    /// Whether a member has this address; a node counts as one while this node has a link to it.
    pub(super) fn have(&self, ip: IpAddr, is_linked: impl Fn(NodeId) -> bool) -> bool {
        self.resolved.values().any(|addresses| addresses.contains(&ip))
            || self.seen.iter().any(|(node, addresses)| addresses.contains(&ip) && is_linked(*node))
    }
}

/// Whether no retry can prove an address: its token would not hold the interface of a link-local
/// IPv6 address. Such an address is forged by hosts of the same link alone.
pub(super) fn is_beyond_proof(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local())
}

/// The facts about an attempt before anything is computed for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) source: Source,
    /// Whether a retry proved that the peer receives at its address.
    pub(super) is_proved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Admit,
    /// The peer has to prove its address and come back.
    Retry,
    /// Too many handshakes of its source are under way.
    RefuseSource,
    /// Too many are under way in all.
    RefuseBusy,
}

/// Handshakes under way on accepted connections, from the first packet to the last hello.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    all: usize,
    by_source: BTreeMap<Source, usize>,
}

impl Handshakes {
    pub(super) const MAX: usize = 64;
    /// The places of these that only addresses of members have.
    pub(super) const RESERVED: usize = 16;
    /// A cluster on one machine or behind one router starts with fewer nodes than this.
    pub(super) const MAX_PER_SOURCE: usize = 16;

    pub(super) fn judge(&self, attempt: Attempt) -> Verdict {
        let of_source = self.by_source.get(&attempt.source).copied().unwrap_or(0);
        let places = if attempt.source.is_member() { Self::MAX } else { Self::MAX - Self::RESERVED };
        if of_source >= Self::MAX_PER_SOURCE {
            Verdict::RefuseSource
        } else if self.all >= places {
            Verdict::RefuseBusy
        } else if attempt.is_proved {
            Verdict::Admit
        } else {
            Verdict::Retry
        }
    }

    pub(super) fn begun(&mut self, source: Source) {
        self.all += 1;
        *self.by_source.entry(source).or_default() += 1;
        debug_assert!(self.all <= Self::MAX, "more handshakes than the bound");
    }

    pub(super) fn ended(&mut self, source: Source) {
        debug_assert!(self.by_source.contains_key(&source), "a handshake ends that was not counted");
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            self.all -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(SocketAddr::new(ip(text), 7400), |_| false)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn numbered(number: usize) -> Source {
        source(&format!("10.0.0.{number}"))
    }

    fn member(number: usize) -> Source {
        Source::of(SocketAddr::new(ip(&format!("10.0.0.{number}")), 7400), |_| true)
    }

    fn forged(source: Source) -> Attempt {
        Attempt { source, is_proved: false }
    }

    fn proved(source: Source) -> Attempt {
        Attempt { source, is_proved: true }
    }

    /// Begins handshakes until one is not admitted; gives their number and the verdict that ended it.
    fn fill(handshakes: &mut Handshakes, attempts: impl Iterator<Item = Attempt>) -> (usize, Verdict) {
        let mut admitted = 0;
        for attempt in attempts {
            match handshakes.judge(attempt) {
                Verdict::Admit => handshakes.begun(attempt.source),
                other => return (admitted, other),
            }
            admitted += 1;
        }
        (admitted, Verdict::Admit)
    }

    #[test]
    fn one_source_has_its_share_and_proves_its_address() {
        let (mut handshakes, one) = (Handshakes::default(), member(1));
        assert_eq!(handshakes.judge(forged(numbered(1))), Verdict::Retry);
        assert_eq!(handshakes.judge(forged(one)), Verdict::Retry, "an address of a member may be forged, too");
        assert_eq!(fill(&mut handshakes, std::iter::repeat(proved(one))), (16, Verdict::RefuseSource));
        assert_eq!(handshakes.judge(forged(one)), Verdict::RefuseSource, "no retry is spent on it");
        assert_eq!(handshakes.judge(proved(numbered(2))), Verdict::Admit);
        handshakes.ended(one);
        assert_eq!(handshakes.judge(proved(one)), Verdict::Admit);
    }

    #[test]
    fn many_sources_leave_the_reserve_to_addresses_of_members() {
        let mut handshakes = Handshakes::default();
        let many = (1..=250).map(|number| proved(numbered(number)));
        assert_eq!(fill(&mut handshakes, many), (48, Verdict::RefuseBusy));
        assert_eq!(
            handshakes.judge(forged(member(251))),
            Verdict::Retry,
            "it is no address of a member until it is proved"
        );
        let members = (201..=250).map(|number| proved(member(number)));
        assert_eq!(fill(&mut handshakes, members), (16, Verdict::RefuseBusy));
    }

    #[test]
    fn what_ended_is_forgotten() {
        let mut handshakes = Handshakes::default();
        for number in 1..=250 {
            handshakes.begun(numbered(number));
            handshakes.ended(numbered(number));
        }
        assert!(handshakes.by_source.is_empty() && handshakes.all == 0);
    }

    #[test]
    fn a_64_is_one_source_and_an_ipv4_address_is_one_in_either_form() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("::ffff:10.0.0.1"), source("::ffff:10.0.0.2"));
    }

    #[test]
    fn hosts_of_the_network_of_a_member_do_not_take_its_share() {
        let (member, other) = (ip("2001:db8:1:2::1"), ip("2001:db8:1:2::bad"));
        let of = |ip| Source::of(SocketAddr::new(ip, 7400), |ip| ip == member);
        let mut handshakes = Handshakes::default();
        assert_eq!(fill(&mut handshakes, std::iter::repeat(proved(of(other)))), (16, Verdict::RefuseSource));
        assert_eq!(handshakes.judge(proved(of(member))), Verdict::Admit);
    }

    #[test]
    fn members_have_the_addresses_of_their_names_and_those_that_they_last_connected_from() {
        let (mut members, [one, other]) = (Members::default(), [1, 2].map(NodeId));
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let have = |members: &Members, linked: &[NodeId]| {
            let of = |last: &u8| members.have(address(*last), |node| linked.contains(&node));
            (1..=250).filter(of).collect::<Vec<_>>()
        };
        members.resolved(one, [ip("::ffff:10.0.0.1"), address(2)].into_iter());
        assert_eq!(have(&members, &[one]), [1, 2]);
        members.resolved(one, (1..=250).map(address));
        assert_eq!(have(&members, &[one]).len(), Members::RESOLVED_MAX);
        members.resolved(one, std::iter::once(address(1)));
        for last in [20, 21, 20, 22] {
            members.seen(one, address(last));
            members.seen(other, address(last + 10));
        }
        assert_eq!(have(&members, &[one]), [1, 20, 22], "the other is no member");
        assert_eq!(have(&members, &[one, other]), [1, 20, 22, 30, 32]);
        members.forget(one);
        assert_eq!(have(&members, &[one, other]), [30, 32]);
    }

    #[test]
    fn only_link_local_addresses_are_beyond_the_proof_of_a_retry() {
        let is_beyond = |text: &str| is_beyond_proof(text.parse().expect("an address with a port"));
        assert!(is_beyond("[fe80::1%2]:7") && is_beyond("[febf::1%2]:7"));
        assert!(!is_beyond("[fec0::1]:7") && !is_beyond("[2001:db8::1]:7") && !is_beyond("169.254.0.1:7"));
    }
}
