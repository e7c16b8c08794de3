//! Links to other nodes: one to each member, dialled; and one back to any other node that sends
//! to this one.
//!
//! Members come and go with the configuration. A node that is not in this node's configuration may
//! be in a newer one, and lead; or it was removed and asks why it hears no leader. Both hold a
//! certificate of the cluster, or the network had refused them; so both are heard, and answered on
//! the connection that they opened. For a while after its start a node also dials the nodes that
//! its settings list and its configuration does not name, so that nodes of another cluster with the
//! same name are noticed.

use crate::events::{Events, What};
use quorate_raft::{Membership, Message, NodeId};
use quorate_transport::network::{Introduction, Link, Links};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};
use tokio::time::Instant;

/// The link to a member that left stays for this time: the last messages to it must arrive.
const LINGER: Duration = Duration::from_secs(2);
/// For this time after its start a node dials listed nodes that are no members: long enough for
/// nodes that are started one after the other.
const MEETS_FOR: Duration = Duration::from_secs(60);
/// The most links back to nodes that are no members; above it the one with the lowest
/// id is dropped.
const STRANGERS_MAX: usize = 64;

/// The links of a node.
pub(crate) struct Peers {
    links: Rc<dyn Links>,
    /// The addresses in this node's settings, which may be a proxy's. An address that an operator
    /// gave counts first.
    own_addresses: BTreeMap<NodeId, String>,
    members: BTreeMap<NodeId, Member>,
    strangers: BTreeMap<NodeId, Rc<dyn Link>>,
    /// Links that carry nothing but an introduction.
    met: BTreeMap<NodeId, Rc<dyn Link>>,
    meets_until: Instant,
    events: Events,
}

struct Member {
    way: Rc<Way>,
    address: String,
    left_at: Option<Instant>,
}

/// The way to a member at its current address. [`Peers`] alone owns the link and replaces it
/// when the address changes; replicators hold the way, so none sends to an address that the
/// member has left.
struct Way(RefCell<Rc<dyn Link>>);

impl Link for Way {
    fn send(&self, message: Message) {
        self.0.borrow().send(message);
    }

    fn is_running(&self) -> bool {
        self.0.borrow().is_running()
    }

    fn probe(&self, arrived: Box<dyn FnOnce() + Send>) {
        self.0.borrow().probe(arrived);
    }
}

impl Peers {
    pub(crate) fn new(links: Rc<dyn Links>, own_addresses: BTreeMap<NodeId, String>, events: Events) -> Self {
        Self {
            links,
            own_addresses,
            members: BTreeMap::new(),
            strangers: BTreeMap::new(),
            met: BTreeMap::new(),
            meets_until: Instant::now() + MEETS_FOR,
            events,
        }
    }

    /// The links to members.
    pub(super) fn links(&self) -> impl Iterator<Item = &dyn Link> {
        self.members.values().map(|member| &*member.way as &dyn Link)
    }

    /// Sets the peers. A peer is dialled at the address that an operator gave it, else at the one
    /// that this node was started with, else at the one in `membership`.
    pub(crate) fn set_members(&mut self, peers: &[NodeId], membership: &Membership) {
        for peer in peers {
            let own = self.own_addresses.get(peer).map(String::as_str);
            let known = membership.address_over(*peer, own);
            let address = known.unwrap_or_default();
            if let Some(member) = self.members.get_mut(peer) {
                member.left_at = None;
                if known.is_none() || member.address == address {
                    continue;
                }
            }
            if let Some(own) = own.filter(|own| *own != address) {
                let (address, configured) = (address.to_owned(), own.to_owned());
                self.events.tell(What::AddressOverridden { peer: *peer, address, configured });
            }
            let link = self.links.link(*peer, address);
            match self.members.get_mut(peer) {
                Some(member) => {
                    member.way.0.replace(link);
                    address.clone_into(&mut member.address);
                }
                None => {
                    self.strangers.remove(peer);
                    let (way, address) = (Rc::new(Way(RefCell::new(link))), address.to_owned());
                    self.members.insert(*peer, Member { way, address, left_at: None });
                    self.met.remove(peer);
                }
            }
        }
        for (peer, member) in &mut self.members {
            if !peers.contains(peer) {
                member.left_at.get_or_insert(Instant::now());
            }
        }
    }

    /// Dials, for a while, the listed nodes that the configuration does not name. If they belong to
    /// another cluster with the same name, both sides log it: after a restore on several nodes,
    /// each of them is a cluster of its own.
    pub(crate) fn meet(&mut self, this: NodeId, membership: &Membership) {
        if membership.is_empty() {
            return;
        }
        // A member that left in an entry that may be truncated still has its link.
        let is_linked = |id: &NodeId| membership.contains(*id) || self.members.contains_key(id);
        let listed = self.own_addresses.iter().filter(|(id, _)| **id != this && !is_linked(id));
        self.met = listed.map(|(id, address)| (*id, self.links.link(*id, address))).collect();
        if membership.voters() == [this] && !self.met.is_empty() {
            self.events.tell(What::OnlyVoter { listed: self.met.keys().copied().collect() });
        }
    }

    /// Sets the facts that this node states about itself.
    pub(crate) fn introduce(&self, introduction: Introduction) {
        self.links.introduce(introduction);
    }

    /// Drops the links to nodes that left a while ago.
    pub(crate) fn let_go(&mut self) {
        if !self.met.is_empty() && Instant::now() >= self.meets_until {
            self.met.clear();
        }
        self.members.retain(|_, member| member.left_at.is_none_or(|since| since.elapsed() < LINGER));
    }

    /// The link to a member, or the way to answer another node.
    pub(crate) fn get(&mut self, peer: NodeId) -> Rc<dyn Link> {
        if let Some(member) = self.members.get(&peer) {
            return Rc::clone(&member.way) as Rc<dyn Link>;
        }
        if self.strangers.len() >= STRANGERS_MAX && !self.strangers.contains_key(&peer) {
            self.strangers.pop_first();
        }
        Rc::clone(self.strangers.entry(peer).or_insert_with(|| self.links.reply_link(peer)))
    }

    /// Whether this node is the only member.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.values().all(|member| member.left_at.is_some())
    }

    /// Whether the actors that drive the links are alive.
    pub(crate) fn are_running(&self) -> bool {
        self.members.values().all(|member| member.way.is_running())
    }
}
