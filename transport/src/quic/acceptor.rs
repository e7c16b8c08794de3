//! The acceptor: admits peers after their identity is proved.
//!
//! In order: TLS demands a certificate of the cluster's authority; the certificate must name a node
//! of this cluster, other than this one; the hellos must claim that same node and a version spoken
//! here. A peer that fails is told an error code, counted, and logged now and then.
//!
//! The handshakes under way are bounded, in all and by source address (`admission`); each has a time
//! limit from its first packet to its last hello. Beyond [`INCOMING_MAX`] attempts that arrive at
//! once, quinn ignores further ones before it derives keys for them, and counts none; so a flood
//! costs little, and here each such time counts once. One node has few connections that it has not
//! introduced, and one that it has.

use super::{
    admission::{Attempt, Source, Verdict, is_beyond_proof},
    close::Close,
    hello::{Opened, Refusal, agree, hear, say},
    lanes::{Carrier, Introduced, Side},
    reload::chain_of,
    settings::{CONTROL_PRIORITY, INCOMING_MAX},
    shared::{PeerSeen, Shared},
};
use crate::{
    codec::Hello,
    identity::{Role, identity_of},
    network::{ConnectionResult, Lane},
};
use quinn::{Connection, Endpoint, Incoming};
use quorate_raft::NodeId;
use std::{future::poll_fn, pin::pin, rc::Rc, sync::Arc};
use tokio::{task::spawn_local, time::Instant};

/// The most connections of one node that await its hellos; a further one replaces the oldest. Each
/// may fill its streams' windows. A node in good order has two: from its usual port and a fresh one.
const INTRODUCING_MAX: usize = 4;

/// Accepts until the endpoint closes.
pub(super) async fn accept(shared: Rc<Shared>, endpoint: Endpoint) {
    // Attempts that were taken without a wait: all of these awaited a decision together.
    let mut at_once = 0;
    loop {
        let (mut next, mut has_waited) = (pin!(endpoint.accept()), false);
        let next = poll_fn(|cx| {
            let next = next.as_mut().poll(cx);
            has_waited |= next.is_pending();
            next
        });
        let Some(incoming) = next.await else { return };
        let remote = incoming.remote_address();
        at_once = if has_waited { 1 } else { at_once + 1 };
        if at_once == INCOMING_MAX {
            at_once = 0;
            let why = format!("{INCOMING_MAX} attempts arrived at once, and any further ones were ignored");
            shared.refused(None, ConnectionResult::RefusedBurst, remote, &why);
        }
        let source = Source::of(remote, |ip| shared.is_of_member(ip));
        let is_proved = incoming.remote_address_validated() || is_beyond_proof(remote);
        let verdict = shared.handshakes.borrow().judge(Attempt { source, is_proved });
        match verdict {
            Verdict::Admit => {
                let place = Place::take(&shared, source);
                spawn_local(admit(Rc::clone(&shared), incoming, place));
            }
            Verdict::Retry => {
                // A peer at that address comes back with a token.
                let _ = incoming.retry();
            }
            Verdict::RefuseSource => {
                incoming.refuse();
                let why = "too many handshakes of this address are under way";
                shared.refused(None, ConnectionResult::RefusedAddress, remote, why);
            }
            Verdict::RefuseBusy => {
                incoming.refuse();
                shared.refused(None, ConnectionResult::RefusedBusy, remote, "too many handshakes are under way");
            }
        }
    }
}

/// A handshake's place among those under way, given back when dropped.
struct Place {
    shared: Rc<Shared>,
    source: Source,
}

impl Place {
    fn take(shared: &Rc<Shared>, source: Source) -> Self {
        shared.handshakes.borrow_mut().begun(source);
        Self { shared: Rc::clone(shared), source }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.handshakes.borrow_mut().ended(self.source);
    }
}

async fn admit(shared: Rc<Shared>, incoming: Incoming, place: Place) {
    let remote = incoming.remote_address();
    let begun_with = shared.credentials();
    let handshake = async {
        // Not with the set that was in use as its first packet arrived: it may have waited since.
        let accepting = incoming.accept_with(Arc::clone(&begun_with.server));
        let connection = accepting.map_err(Refusal::from)?.await.map_err(Refusal::from)?;
        let mut proved = None;
        let introduced = introduce(&shared, &connection, &mut proved).await;
        // First, for a set that came into use meanwhile may be the reason for which it was closed.
        let judged =
            proved.map_or(Ok(()), |peer| judge_since(&shared, begun_with.number, &connection, Side::Acceptor, peer));
        match judged.and(introduced) {
            Ok((hello, lanes)) => Ok((hello, lanes, connection)),
            Err(refusal) => {
                connection.close(refusal.close.code(), refusal.why.as_bytes());
                Err((proved, refusal))
            }
        }
    };
    let late = || (None, Refusal::protocol("the handshake took too long"));
    let admitted = tokio::time::timeout(shared.pace.handshake, handshake).await.unwrap_or_else(|_| Err(late()));
    drop(place);
    match admitted {
        Ok((hello, lanes, connection)) => match refuse_twin(&shared, &hello, &connection) {
            Ok(()) => {
                let (peer, introduction, own_since) = (hello.node, hello.introduction, begun_with.own_since);
                welcome(&shared, Introduced { peer, connection, lanes, introduction, own_since });
            }
            Err(refusal) => shared.refused(Some(hello.node), refusal.result, remote, &refusal.why),
        },
        Err((proved, refusal)) => shared.refused(proved, refusal.result, remote, &refusal.why),
    }
}

/// Judges a peer at the end of a handshake that began with credentials that are no longer in use.
pub(super) fn judge_since(
    shared: &Shared,
    begun_with: u64,
    connection: &Connection,
    side: Side,
    peer: NodeId,
) -> Result<(), Refusal> {
    let credentials = shared.credentials();
    if credentials.number == begun_with {
        return Ok(());
    }
    credentials.judge(connection, side, peer, &shared.cluster)
}

impl From<Refusal> for (Option<NodeId>, Refusal) {
    fn from(refusal: Refusal) -> Self {
        (None, refusal)
    }
}

/// Proves the peer's identity and exchanges the hellos. `proved` is the peer as soon as it is
/// known, so that a later refusal can be counted for it.
async fn introduce(
    shared: &Shared,
    connection: &Connection,
    proved: &mut Option<NodeId>,
) -> Result<(Hello, [Opened; 2]), Refusal> {
    let peer = identify(shared, connection)?;
    *proved = Some(peer);
    let _introducing = Introducing::begin(shared, peer, connection);
    if shared.backoff.borrow().is_refused(peer, Instant::now()) {
        let why = "it sent malformed bytes a moment ago".to_owned();
        return Err(Refusal { result: ConnectionResult::RefusedBackOff, close: Close::BackOff, why });
    }
    // Streams are accepted in the order of their numbers: 0 is the control lane, 1 the append lane.
    let (control, hello) = lane(shared, connection, Lane::Control, peer).await?;
    let (append, _) = lane(shared, connection, Lane::Append, peer).await?;
    agree(control.version, append.version)?;
    // The node in the hello is the sender of all that is delivered from here on.
    assert_eq!(hello.node, peer, "a hello is accepted for another node than the certificate proves");
    Ok((hello, [control, append]))
}

/// A connection among those of its node that await hellos, until dropped.
struct Introducing<'a> {
    shared: &'a Shared,
    peer: NodeId,
    id: usize,
}

impl<'a> Introducing<'a> {
    fn begin(shared: &'a Shared, peer: NodeId, connection: &Connection) -> Self {
        let mut introducing = shared.introducing.borrow_mut();
        let of_peer = introducing.entry(peer).or_default();
        of_peer.push_back(connection.clone());
        if of_peer.len() > INTRODUCING_MAX
            && let Some(oldest) = of_peer.pop_front()
        {
            oldest.close(Close::Replaced.code(), b"newer connections of this node await its hellos");
        }
        debug_assert!(of_peer.len() <= INTRODUCING_MAX, "more connections of a node than the bound");
        Self { shared, peer, id: connection.stable_id() }
    }
}

impl Drop for Introducing<'_> {
    fn drop(&mut self) {
        let mut introducing = self.shared.introducing.borrow_mut();
        if let Some(of_peer) = introducing.get_mut(&self.peer) {
            of_peer.retain(|connection| connection.stable_id() != self.id);
            if of_peer.is_empty() {
                introducing.remove(&self.peer);
            }
        }
    }
}

/// The node of this cluster, other than this one, that the peer's certificate proves.
pub(super) fn identify(shared: &Shared, connection: &Connection) -> Result<NodeId, Refusal> {
    let certificates = chain_of(connection);
    let identity = identity_of(certificates.first().ok_or_else(|| Refusal::identity("it shows no certificate"))?)
        .map_err(Refusal::identity)?;
    if identity.cluster != shared.cluster {
        let (theirs, ours) = (identity.cluster, &shared.cluster);
        return Err(Refusal::identity(format!("its certificate is of cluster {theirs:?}, this is {ours:?}")));
    }
    match identity.role {
        Role::Node(node) if node == shared.node => {
            Err(Refusal::identity(format!("its certificate is of node {node}, which is this node")))
        }
        Role::Node(node) => Ok(node),
        Role::Client(_) | Role::Operator(_) => {
            Err(Refusal::identity(format!("its certificate is of {identity}, and this port is for nodes alone")))
        }
    }
}

async fn lane(shared: &Shared, connection: &Connection, lane: Lane, peer: NodeId) -> Result<(Opened, Hello), Refusal> {
    let (send, recv) = connection.accept_bi().await?;
    let (hello, mut opened) = hear(lane, send, recv, shared, peer).await?;
    if lane == Lane::Control {
        let _ = opened.send.set_priority(CONTROL_PRIORITY);
    }
    say(&mut opened.send, shared).await?;
    Ok((opened, hello))
}

/// Refuses a second live process of one id while the first is connected. A restart is no such case.
fn refuse_twin(shared: &Shared, hello: &Hello, connection: &Connection) -> Result<(), Refusal> {
    let (peer, incarnation) = (hello.node, hello.introduction.incarnation);
    if shared.has_twin(peer, incarnation, connection.remote_address())
        && let Some(other) = shared.others_of(peer, incarnation).first()
    {
        let other = other.connection.remote_address();
        let why =
            format!("another live process uses the id {peer}, and is connected from {other}; stop one of the two");
        connection.close(Close::Twin.code(), why.as_bytes());
        return Err(Refusal { result: ConnectionResult::RefusedTwin, close: Close::Twin, why });
    }
    shared.incarnations.borrow_mut().connected(peer, incarnation, connection.remote_address());
    Ok(())
}

/// Starts the lanes: replies to the peer go out here, and its messages are delivered. Replaces
/// an older connection.
fn welcome(shared: &Rc<Shared>, introduced: Introduced) {
    let (peer, incarnation) = (introduced.peer, introduced.introduction.incarnation);
    shared.members.borrow_mut().seen(peer, introduced.connection.remote_address().ip());
    shared.inbox.introduced(peer, introduced.introduction.clone());
    shared.observer.connection(Some(peer), ConnectionResult::Accepted);
    let round_trip = introduced.connection.rtt();
    let certificate = chain_of(&introduced.connection).into_iter().next();
    let older = shared.accepted.borrow().get(&peer).cloned();
    let succeeded = older
        .as_ref()
        .filter(|older| older.may_be_succeeded(&introduced.connection, incarnation, introduced.own_since))
        .filter(|older| !older.is_silent(shared.pace));
    let carrier = Carrier::start(shared, Side::Acceptor, introduced, succeeded);
    shared.accepted.borrow_mut().insert(peer, Rc::clone(&carrier));
    match (succeeded, &older) {
        (Some(succeeded), _) => drop(spawn_local(succeeded.retire(shared.pace.succession()))),
        (None, Some(older)) => older.close(Close::Replaced),
        (None, None) => {}
    }
    if let Some(link) = shared.links.borrow().get(&peer) {
        link.seen.do_send(PeerSeen { incarnation, certificate, round_trip });
    }
    let shared = Rc::clone(shared);
    spawn_local(async move {
        carrier.connection.closed().await;
        let mut accepted = shared.accepted.borrow_mut();
        if accepted.get(&peer).is_some_and(|current| Rc::ptr_eq(current, &carrier)) {
            accepted.remove(&peer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::node_name,
        network::Links,
        quic::{
            peer_link::introduce as introduce_to,
            reload::install,
            testing::{CLUSTER, Pki, Running, run},
        },
    };
    use std::{net::SocketAddr, time::Duration};

    const ONE: NodeId = NodeId(1);
    const TWO: NodeId = NodeId(2);

    #[test]
    fn a_peer_that_waits_to_be_accepted_as_a_set_is_replaced_is_verified_by_the_newer_one() {
        run(async {
            let pki = Pki::new();
            let [one, two] = [ONE, TWO].map(|node| pki.start(node, node.0, Duration::from_millis(300)));
            let (shared, client) = (&one.links.shared, two.links.shared.credentials().client.clone());
            // An endpoint of the test's own in place of the node's, so that the peer can be made to
            // wait.
            let server = quinn::ServerConfig::clone(&shared.credentials().server);
            let endpoint = Endpoint::server(server, ([127, 0, 0, 1], 0).into()).expect("a socket");
            let address = endpoint.local_addr().expect("it is bound");
            let dialling = two.links.shared.endpoint().expect("it runs");
            let dialling = dialling.connect_with(client, address, &node_name(ONE, CLUSTER)).expect("a name");
            let incoming = endpoint.accept().await.expect("the peer's first packet");

            pki.revoke(TWO);
            install(shared, &pki.load(ONE));
            let place = Place::take(shared, Source::of(address, |_| true));
            let admitting = spawn_local(admit(Rc::clone(shared), incoming, place));
            // A dialler considers itself connected before the acceptor has judged its certificate.
            if let Ok(connection) = dialling.await {
                connection.closed().await;
            }
            admitting.await.expect("no panic");
            assert_eq!(one.counts.connections(), [(None, ConnectionResult::RefusedCertificate)], "TLS refuses it");
        });
    }

    #[test]
    fn a_connection_that_awaits_hellos_is_counted_once_when_its_certificate_counts_no_more() {
        run(async {
            let pki = Pki::new();
            let [one, two] = [ONE, TWO].map(|node| pki.start(node, node.0, Duration::from_secs(60)));
            let (shared, client) = (&one.links.shared, two.links.shared.credentials().client.clone());
            let (endpoint, address) = (two.links.shared.endpoint(), one.links.local_address().expect("bound"));
            let dialling = endpoint.expect("it runs").connect_with(client, address, &node_name(ONE, CLUSTER));
            let connection = dialling.expect("a name").await.expect("it is accepted");
            while shared.introducing.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            pki.revoke(TWO);
            install(shared, &pki.load(ONE));
            connection.closed().await;
            // Counted as it ends.
            while !shared.introducing.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(one.counts.connections(), [(Some(TWO), ConnectionResult::RefusedCertificate)]);
        });
    }

    #[test]
    fn a_connection_on_which_nothing_arrives_is_replaced_at_once_though_a_certificate_changed() {
        let pki = Pki::new();
        let (tell_address, address) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let pki = &pki;
            // A process that stops, but for its kernel: nothing answers on its connection.
            scope.spawn(move || {
                run(async {
                    let two = pki.start(TWO, 2, Duration::from_secs(1));
                    let address = address.recv().expect("the other's address");
                    let _connected = dial(&two, address).await;
                    let _ = released.recv();
                });
            });
            run(async {
                let one = pki.start(ONE, 1, Duration::from_secs(1));
                let shared = &one.links.shared;
                let address = one.links.local_address().expect("it is bound");
                tell_address.send(address).expect("the other waits");
                let older = loop {
                    tokio::time::sleep(shared.pace.look).await;
                    if let Some(older) = shared.accepted.borrow().get(&TWO) {
                        break Rc::clone(older);
                    }
                };
                while !older.is_silent(shared.pace) {
                    tokio::time::sleep(shared.pace.look).await;
                }
                assert!(older.connection.close_reason().is_none());
                pki.renew(TWO);
                let renewed = pki.start(TWO, 2, Duration::from_secs(1));
                let _connected = dial(&renewed, address).await;
                while shared.accepted.borrow().get(&TWO).is_some_and(|current| Rc::ptr_eq(current, &older)) {
                    tokio::task::yield_now().await;
                }
                assert!(older.connection.close_reason().is_some(), "no lane waits for it");
                drop(release);
            });
        });
    }

    async fn dial(from: &Running, address: SocketAddr) -> (Connection, [Opened; 2]) {
        let shared = &from.links.shared;
        let (endpoint, client) = (shared.endpoint().expect("it runs"), shared.credentials().client.clone());
        let connecting = endpoint.connect_with(client, address, &node_name(ONE, CLUSTER)).expect("a name");
        let connection = connecting.await.expect("it is accepted");
        let (lanes, _) = introduce_to(shared, ONE, &connection).await.expect("hellos");
        (connection, lanes)
    }

    #[test]
    fn a_connection_that_is_being_succeeded_ends_at_once_when_its_successor_is_replaced() {
        run(async {
            let pki = Pki::new();
            // A succession may take 8 s here.
            let [one, two] = [ONE, TWO].map(|node| pki.start(node, node.0, Duration::from_secs(60)));
            let shared = &two.links.shared;
            let (former, address) = (shared.credentials().client.clone(), one.links.local_address().expect("bound"));
            pki.renew(TWO);
            let next = quinn::ClientConfig::new(Arc::clone(&pki.load(TWO).client) as _);
            let dial = async |client: &quinn::ClientConfig| {
                let endpoint = shared.endpoint().expect("it runs");
                let connecting = endpoint.connect_with(client.clone(), address, &node_name(ONE, CLUSTER));
                let connection = connecting.expect("a name").await.expect("it is accepted");
                let lanes = introduce_to(shared, ONE, &connection).await.expect("hellos");
                (connection, lanes)
            };
            let first = dial(&former).await;
            let second = dial(&next).await;
            assert!(first.0.close_reason().is_none(), "it may still deliver");
            let _third = dial(&next).await;
            second.0.closed().await;
            let soon = tokio::time::timeout(shared.pace.succession(), first.0.closed()).await;
            soon.expect("before its succession's time is over");
        });
    }
}
