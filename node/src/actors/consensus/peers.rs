//! The links to the other nodes: one to each member, dialled; and one back to whoever else speaks to this node.
//!
//! Members come and go with the configuration. Who is not in this node's may well be in a newer one, and lead it; or it was removed
//! and asks why nobody answers. Both hold a certificate of the cluster, or the network had not let them in; so both are heard, and
//! answered on the connection that they opened.

use quorate_raft::{Membership, NodeId};
use quorate_transport::network::{Link, Links};
use std::{collections::BTreeMap, rc::Rc, time::Duration};
use tokio::time::Instant;

/// For so long a link to one who left stays: what it is told at last must reach it.
const LINGER: Duration = Duration::from_secs(2);
/// Most links back to nodes that are no members; beyond it the one with the lowest id is forgotten.
const STRANGERS_MAX: usize = 64;

/// The links of a node.
pub(crate) struct Peers {
    links: Rc<dyn Links>,
    /// Where this node dials others, whatever the configuration says: a proxy may stand between.
    own_addresses: BTreeMap<NodeId, String>,
    members: BTreeMap<NodeId, Member>,
    strangers: BTreeMap<NodeId, Rc<dyn Link>>,
}

struct Member {
    link: Rc<dyn Link>,
    address: String,
    left_at: Option<Instant>,
}

impl Peers {
    pub(crate) fn new(links: Rc<dyn Links>, own_addresses: BTreeMap<NodeId, String>) -> Self {
        Self { links, own_addresses, members: BTreeMap::new(), strangers: BTreeMap::new() }
    }

    /// From now on these are the peers; where to dial them, `membership` says, unless this node was told otherwise.
    pub(crate) fn are(&mut self, peers: &[NodeId], membership: &Membership) {
        for peer in peers {
            let known = self.own_addresses.get(peer).map(String::as_str).or(membership.address(*peer));
            let address = known.unwrap_or_default();
            match self.members.get_mut(peer) {
                Some(member) if known.is_none() || member.address == address => member.left_at = None,
                _ => {
                    self.strangers.remove(peer);
                    let (link, address) = (self.links.link(*peer, address), address.to_owned());
                    self.members.insert(*peer, Member { link, address, left_at: None });
                }
            }
        }
        for (peer, member) in &mut self.members {
            if !peers.contains(peer) {
                member.left_at.get_or_insert(Instant::now());
            }
        }
    }

    /// Lets go of links to those who left a while ago.
    pub(crate) fn let_go(&mut self) {
        self.members.retain(|_, member| member.left_at.is_none_or(|since| since.elapsed() < LINGER));
    }

    /// The link to a node: for one that is no member, a way to answer it.
    pub(crate) fn get(&mut self, peer: NodeId) -> &Rc<dyn Link> {
        if let Some(member) = self.members.get(&peer) {
            return &member.link;
        }
        if self.strangers.len() >= STRANGERS_MAX && !self.strangers.contains_key(&peer) {
            self.strangers.pop_first();
        }
        self.strangers.entry(peer).or_insert_with(|| self.links.answering(peer))
    }

    /// Whether there is nobody else.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.values().all(|member| member.left_at.is_some())
    }

    /// Whether whatever drives the links still lives.
    pub(crate) fn are_alive(&self) -> bool {
        self.members.values().all(|member| member.link.is_alive())
    }
}
