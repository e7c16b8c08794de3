//! The link to one peer: [`PeerLink`] keeps a connection up, [`QuicLink`] is the sending end that
//! the node holds.

use super::{
    acceptor::{identify, judge_since},
    backoff::{DialBackoff, Doubt},
    close::Close,
    hello::{Opened, Refusal, agree, hear, say},
    lanes::{Carrier, Introduced, Side},
    reload::chain_of,
    settings::{CONTROL_PRIORITY, Pace},
    shared::{LinkActor, PeerSeen, Shared, Stop, one_line},
    turns::Measured,
};
use crate::{
    codec::{Encoder, Hello},
    identity::node_name,
    network::{ConnectionResult, DropReason, Lane, Link},
};
use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};
use quinn::Connection;
use quorate_raft::{Append, Body, Message, NodeId};
use rustls::pki_types::CertificateDer;
use std::{
    cell::RefCell,
    net::{SocketAddr, ToSocketAddrs},
    rc::Rc,
    time::Duration,
};
use tokio::{sync::oneshot, task::spawn_local, time::Instant};

/// Dials a peer until a connection is up, and again after a loss.
///
/// Owns the dialled connection. Hears [`PeerSeen`] from the acceptor and [`Stop`] from its link or
/// the network; tells the inbox when the link comes up and goes down. Messages do not pass through
/// it: [`QuicLink`] puts them straight into the bounded queues of the connection, because a mailbox
/// has no bound.
///
/// Between attempts it waits, longer each time, up to [`DialBackoff::LONGEST`]. The pauses begin
/// anew only after a connection that lasted; a peer that dials this node is dialled at once. Each
/// failed attempt gives the next one more time, because the path may be slow, and every other one
/// leaves from a fresh port, because a router may misdirect packets to the usual one.
///
/// A connection on which nothing is answered for about an election timeout is dialled anew beside the
/// old one, which probes ever more rarely: the first of the two that works is the link. On an idle
/// connection keep-alives ask.
///
/// After a change of this node's certificate or the peer's, the connection is dialled anew beside the
/// old one, too. The newer one succeeds the older without the loss of a message, and the link stays
/// up. A succession that does not complete may lose messages: the link goes down, and up again.
pub(super) struct PeerLink {
    peer: NodeId,
    address: String,
    shared: Rc<Shared>,
    /// Shared with the [`QuicLink`]; set while the link is up.
    dialled: Rc<RefCell<Option<Rc<Carrier>>>>,
    state: State,
    backoff: DialBackoff,
    attempts: usize,
    dialled_at: Instant,
    /// Attempts that failed since the last success.
    failures: u32,
    doubt: Doubt,
    looked_at: Instant,
    /// The attempt to replace a connection that is up.
    renewing: Option<Renewing>,
    renewed: Renewed,
    /// When a certificate's change may be followed by another attempt.
    succeed_after: Instant,
    /// The result that was last logged: changes are logged, attempts are not.
    told: Option<Told>,
}

/// Another certificate of the peer than on the connection that is up.
#[derive(Debug, Default)]
struct Renewed {
    /// The one that the peer showed since the latest attempt began.
    shown: Option<CertificateDer<'static>>,
    /// The one that it had shown before: the attempt may find it, or fail.
    sought: Option<CertificateDer<'static>>,
}

impl Renewed {
    fn attempt_begins(&mut self) {
        self.sought = self.shown.take().or(self.sought.take());
    }

    fn attempt_fails(&mut self) {
        self.shown = self.shown.take().or(self.sought.take());
    }

    /// A connection came up, on which the peer showed `found`.
    fn attempt_succeeds(&mut self, found: Option<&CertificateDer<'static>>) {
        self.sought = None;
        self.shown = self.shown.take().filter(|shown| Some(shown) != found);
    }
}

/// An attempt to replace a connection that is up.
struct Renewing {
    attempt: SpawnHandle,
    why: Why,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// Nothing arrives on it.
    Silent,
    /// A certificate changed.
    Outdated,
}

/// A state of the link that is logged when it begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Up,
    Lost,
    Failed(ConnectionResult),
}

enum State {
    Dialling(SpawnHandle),
    Waiting(SpawnHandle),
    Up { incarnation: u64, since: Instant },
}

impl PeerLink {
    /// Time limit of an attempt: to resolve, connect and exchange hellos. While a peer is not there
    /// yet, short attempts find it sooner than a long one, within which QUIC probes ever more
    /// rarely. The limit doubles with each failed attempt.
    const DIAL_WITHIN: Duration = Duration::from_secs(1);
    /// The most doublings: 8 s are enough for a round trip of more than 2 s.
    const DOUBLED_MAX: u32 = 3;
    /// Round trips allowed for an attempt: a handshake and the hellos take two, and lost packets
    /// are sent again.
    const ROUND_TRIPS: u32 = 4;
    /// This many attempts leave from the usual port before any leaves from a fresh one: most peers
    /// are merely down.
    const FRESH_AFTER: u32 = 3;
    /// A connection that lasts this long resets the backoff.
    const STABLE_AFTER: Duration = Duration::from_secs(1);
    /// The pause after an attempt to succeed a connection failed, which itself works.
    const SUCCEED_AGAIN: Duration = Duration::from_secs(5);
    /// The shortest interval between dials that a peer's own connections cause.
    const AT_MOST_EVERY: Duration = Duration::from_millis(20);

    fn dial(&mut self, ctx: &mut Context<Self>) {
        let within = Self::DIAL_WITHIN * (1 << self.failures.min(Self::DOUBLED_MAX));
        let is_fresh = self.failures >= Self::FRESH_AFTER && self.failures % 2 == 1;
        self.state = State::Dialling(self.attempt(within, is_fresh, None, ctx));
    }

    fn attempt(
        &mut self,
        within: Duration,
        is_fresh: bool,
        doubted: Option<Connection>,
        ctx: &mut Context<Self>,
    ) -> SpawnHandle {
        let dialling = dial(Rc::clone(&self.shared), self.peer, self.address.clone(), self.attempts, is_fresh, doubted);
        self.attempts = self.attempts.wrapping_add(1);
        self.dialled_at = Instant::now();
        self.renewed.attempt_begins();
        let dialling = async move {
            let late =
                || Refusal { result: ConnectionResult::Unreachable, close: Close::Protocol, why: "no answer".into() };
            tokio::time::timeout(within, dialling).await.unwrap_or_else(|_| Err(late()))
        };
        ctx.spawn(dialling.into_actor(self).map(|dialled, link, ctx| match dialled {
            Ok(dialled) => link.connected(dialled, ctx),
            Err(refusal) => link.failed(&refusal, ctx),
        }))
    }

    fn look_later(&self, ctx: &mut Context<Self>) {
        let left = self.shared.next_look().saturating_duration_since(Instant::now());
        ctx.run_later(left, |this, ctx| {
            this.look(ctx);
            this.look_later(ctx);
        });
    }

    /// Looks whether the connection that is up still receives anything, and is of the present
    /// certificates.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let Some(carrier) = self.dialled.borrow().clone() else { return };
        let connection = &carrier.connection;
        let (look, round_trip) = (self.shared.pace.look, connection.rtt());
        let looks = self.shared.pace.looks(round_trip);
        let is_late = self.looked_at.elapsed() > look * 3 / 2;
        self.looked_at = Instant::now();
        if !self.doubt.look(carrier.traffic(), round_trip, looks, is_late) {
            if let Some(renewing) = self.renewing.take_if(|renewing| renewing.why == Why::Silent) {
                ctx.cancel_future(renewing.attempt);
                self.renewed.attempt_fails();
            }
            let is_outdated = self.renewed.shown.is_some() || carrier.own_since != self.shared.credentials().own_since;
            if is_outdated && self.renewing.is_none() && Instant::now() >= self.succeed_after {
                let within = Self::DIAL_WITHIN.max(round_trip * Self::ROUND_TRIPS);
                let attempt = self.attempt(within, false, None, ctx);
                self.renewing = Some(Renewing { attempt, why: Why::Outdated });
            }
        } else if self.renewing.is_none() {
            self.renew(round_trip, ctx);
        }
    }

    fn renew(&mut self, round_trip: Duration, ctx: &mut Context<Self>) {
        let within = (self.shared.pace.look * Pace::LOOKS).max(round_trip * Self::ROUND_TRIPS);
        let is_fresh = self.attempts % 2 == 1;
        let doubted = self.dialled.borrow().as_ref().map(|carrier| carrier.connection.clone());
        let attempt = self.attempt(within, is_fresh, doubted, ctx);
        self.renewing = Some(Renewing { attempt, why: Why::Silent });
    }

    fn connected(&mut self, dialled: Dialled, ctx: &mut Context<Self>) {
        let Dialled { connection, lanes, hello, own_since } = dialled;
        let (incarnation, remote) = (hello.introduction.incarnation, connection.remote_address());
        // TLS compared the certificate with the dialled name, and the hello was compared with that.
        assert_eq!(hello.node, self.peer, "the link to one node dialled another");
        if self.shared.has_twin(self.peer, incarnation, remote) {
            // The process at the member's address is the member.
            for other in self.shared.others_of(self.peer, incarnation) {
                other.close(Close::Twin);
            }
        }
        self.shared.incarnations.borrow_mut().connected(self.peer, incarnation, remote);
        self.failures = 0;
        let why = self.renewing.take().map(|renewing| renewing.why);
        self.renewed.attempt_succeeds(chain_of(&connection).first());
        self.doubt.reset();
        let older = self.dialled.take();
        let succeeded = older
            .as_ref()
            .filter(|older| why == Some(Why::Outdated) && older.may_be_succeeded(&connection, incarnation, own_since));
        if let Some(replaced) = older.as_ref().filter(|_| succeeded.is_none()) {
            replaced.close(Close::Replaced);
            self.shared.inbox.link_down(self.peer);
        }
        self.shared.observer.connection(Some(self.peer), ConnectionResult::Connected);
        if self.told.replace(Told::Up) != Some(Told::Up) {
            let [control, _] = &lanes;
            tracing::info!(peer = self.peer.0, address = %self.address, version = %control.version, "link up");
        }
        let (peer, introduction) = (self.peer, hello.introduction.clone());
        let introduced = Introduced { peer, connection: connection.clone(), lanes, introduction, own_since };
        let carrier = Carrier::start(&self.shared, Side::Dialler, introduced, succeeded);
        let twice = self.dialled.replace(Some(carrier));
        debug_assert!(twice.is_none(), "the link to node {} comes up twice", self.peer);
        self.state = State::Up { incarnation, since: Instant::now() };
        let which = connection.stable_id();
        let closed = async move { connection.closed().await };
        ctx.spawn(closed.into_actor(self).map(move |ended, link, ctx| {
            // One that was replaced is no loss.
            let is_current = |carrier: &Rc<Carrier>| carrier.connection.stable_id() == which;
            if link.dialled.borrow().as_ref().is_some_and(is_current) {
                link.lost(&ended.to_string(), ctx);
            }
        }));
        self.shared.inbox.introduced(self.peer, hello.introduction);
        match succeeded {
            Some(succeeded) => {
                tracing::debug!(peer = self.peer.0, "connection renewed after a change of certificates");
                let retired = succeeded.retire(self.shared.pace.succession());
                ctx.spawn(retired.into_actor(self).map(|is_whole, link, _| {
                    if !is_whole {
                        link.lost_some();
                    }
                }));
            }
            None => self.shared.inbox.link_up(self.peer),
        }
    }

    /// The older of two connections ended before all of it had arrived. Reports a loss, though the
    /// newer one is up: else requests that were lost, or their answers, are waited for until their
    /// deadlines.
    fn lost_some(&self) {
        // A link that is down was lost since.
        if self.dialled.borrow().is_some() {
            tracing::info!(peer = self.peer.0, "messages may be lost on the connection that was renewed");
            self.shared.inbox.link_down(self.peer);
            self.shared.inbox.link_up(self.peer);
        }
    }

    fn lost(&mut self, why: &str, ctx: &mut Context<Self>) {
        if let State::Up { since, .. } = self.state
            && since.elapsed() >= Self::STABLE_AFTER
        {
            self.backoff.reset();
            if self.told.replace(Told::Lost) != Some(Told::Lost) {
                tracing::warn!(peer = self.peer.0, address = %self.address, "link lost: {}", one_line(why));
            }
        }
        let carrier = self.dialled.take();
        debug_assert!(carrier.is_some(), "the link to node {} goes down twice", self.peer);
        match self.renewing.take() {
            Some(renewing) => self.state = State::Dialling(renewing.attempt),
            None => self.wait(ctx),
        }
        self.shared.inbox.link_down(self.peer);
    }

    fn failed(&mut self, refusal: &Refusal, ctx: &mut Context<Self>) {
        self.renewed.attempt_fails();
        if refusal.is_not_needed() {
            self.renewing = None;
            return;
        }
        self.shared.observer.connection(Some(self.peer), refusal.result);
        if matches!(self.state, State::Up { .. }) {
            if self.renewing.take().is_some_and(|renewing| renewing.why == Why::Outdated) {
                self.succeed_after = Instant::now() + Self::SUCCEED_AGAIN;
                let (why, result) = (one_line(&refusal.why), refusal.result.as_str());
                let kept_out =
                    self.shared.log_throttle.borrow_mut().may_log("renewal", Some(self.peer), Instant::now());
                if let Some(kept_out) = kept_out {
                    tracing::warn!(
                        peer = self.peer.0, address = %self.address, kept_out,
                        "a certificate changed, and the connection with the former one can't be renewed: {result}: {why}; trying on"
                    );
                }
                return;
            }
            self.failures = self.failures.saturating_add(1);
            return; // the next look tries again, if the connection is silent still
        }
        self.failures = self.failures.saturating_add(1);
        if self.told.replace(Told::Failed(refusal.result)) != Some(Told::Failed(refusal.result)) {
            let (why, result) = (one_line(&refusal.why), refusal.result.as_str());
            tracing::warn!(peer = self.peer.0, address = %self.address, "{result}: {why}; trying on");
        }
        self.wait(ctx);
    }

    fn wait(&mut self, ctx: &mut Context<Self>) {
        let pause = self.backoff.next(rand::random());
        self.state = State::Waiting(ctx.run_later(pause, Self::dial));
    }
}

impl Actor for PeerLink {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.dial(ctx);
        self.look_later(ctx);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        if let Some(carrier) = self.dialled.take() {
            carrier.close(Close::Goodbye);
            // Messages on their way may be lost, and a link that replaces this one has yet
            // to come up.
            if !self.shared.is_closed.get() {
                self.shared.inbox.link_down(self.peer);
            }
        }
    }
}

impl Handler<PeerSeen> for PeerLink {
    type Result = ();

    fn handle(&mut self, seen: PeerSeen, ctx: &mut Context<Self>) {
        // An attempt that its own packets may still complete is not begun anew.
        if let Some(carrier) = &*self.dialled.borrow()
            && seen.certificate.as_ref() != chain_of(&carrier.connection).first()
        {
            self.renewed.shown = seen.certificate; // the next look renews the connection
        }
        let recent = self.dialled_at.elapsed() < Self::AT_MOST_EVERY.max(seen.round_trip * Self::ROUND_TRIPS);
        match self.state {
            // The peer was restarted: its former process is at the other end of this connection.
            State::Up { incarnation, .. } if incarnation != seen.incarnation => {
                if let Some(carrier) = &*self.dialled.borrow() {
                    carrier.close(Close::Replaced);
                }
            }
            State::Dialling(pending) if !recent => {
                ctx.cancel_future(pending);
                self.dial(ctx);
            }
            State::Waiting(pending) if self.dialled_at.elapsed() >= Self::AT_MOST_EVERY => {
                ctx.cancel_future(pending);
                self.dial(ctx);
            }
            // The path carries again, at least from there to here.
            State::Up { .. } if !recent => {
                if let Some(renewing) = self.renewing.take_if(|renewing| renewing.why == Why::Silent) {
                    ctx.cancel_future(renewing.attempt);
                    self.renew(seen.round_trip, ctx);
                }
            }
            _ => {}
        }
    }
}

/// The node → `PeerLink`: a message of no effect, whose wait in the mailbox is measured.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Probe(Box<dyn FnOnce() + Send>);

impl Handler<Probe> for PeerLink {
    type Result = ();

    fn handle(&mut self, Probe(arrived): Probe, _: &mut Context<Self>) {
        arrived();
    }
}

impl Handler<Stop> for PeerLink {
    type Result = ();

    fn handle(&mut self, Stop: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// The sending end of a link.
pub(super) struct QuicLink {
    peer: NodeId,
    shared: Rc<Shared>,
    dialled: Rc<RefCell<Option<Rc<Carrier>>>>,
    /// The actor that keeps the connection up. `None` for a reply link.
    keeper: Option<Addr<PeerLink>>,
}

impl QuicLink {
    /// Starts to dial. Takes the place of another link to the same peer, if there is one.
    pub(super) fn start(shared: Rc<Shared>, peer: NodeId, address: &str) -> Self {
        let dialled = Rc::new(RefCell::new(None));
        let keeper = PeerLink {
            peer,
            address: address.to_owned(),
            shared: Rc::clone(&shared),
            dialled: Rc::clone(&dialled),
            // Replaced before anything looks at it: starting dials.
            state: State::Waiting(SpawnHandle::default()),
            backoff: DialBackoff::default(),
            attempts: 0,
            dialled_at: Instant::now(),
            failures: 0,
            doubt: Doubt::default(),
            looked_at: Instant::now(),
            renewing: None,
            renewed: Renewed::default(),
            succeed_after: Instant::now(),
            told: None,
        };
        let future = Context::new().into_future(keeper);
        let keeper = future.address();
        spawn_local(Measured::new(&shared, future));
        if let Some(older) = shared.links.borrow_mut().insert(peer, link_actor(&keeper)) {
            older.stop.do_send(Stop);
        }
        Self { peer, shared, dialled, keeper: Some(keeper) }
    }

    /// A link that does not dial and sends on the connection that the peer opened.
    pub(super) fn reply_link(shared: Rc<Shared>, peer: NodeId) -> Self {
        Self { peer, shared, dialled: Rc::default(), keeper: None }
    }
}

impl Link for QuicLink {
    fn send(&self, message: Message) {
        let lane = Lane::of(&message);
        let answers = message.is_reply() || self.keeper.is_none();
        let accepted = if answers { self.shared.accepted.borrow().get(&self.peer).cloned() } else { None };
        let dropped = |reason| self.shared.observer.dropped(Some(self.peer), reason);
        let Some(carrier) = accepted.or_else(|| self.dialled.borrow().clone()) else {
            return dropped(DropReason::Unconnected);
        };
        assert_eq!(carrier.peer, self.peer, "a message for one node is sent to another");
        let Ok(frame) = Encoder::new(self.shared.limits).speaking(carrier.version).message(&message) else {
            return dropped(DropReason::TooLong);
        };
        let queued = match &message.body {
            Body::Append(Append { batch: Some(_), .. }) => carrier.send_entries(frame),
            _ if message.is_report() => carrier.send_spare(lane, frame),
            _ => carrier.send(lane, frame),
        };
        if queued.is_err() {
            dropped(DropReason::QueueFull);
        }
    }

    fn is_running(&self) -> bool {
        self.keeper.as_ref().is_none_or(Addr::connected) || self.shared.is_closed.get()
    }

    fn probe(&self, arrived: Box<dyn FnOnce() + Send>) {
        if let Some(keeper) = &self.keeper {
            keeper.do_send(Probe(arrived));
        }
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        let mut links = self.shared.links.borrow_mut();
        if links.get(&self.peer) == Some(&link_actor(keeper)) {
            links.remove(&self.peer);
            self.shared.members.borrow_mut().forget(self.peer);
        }
        keeper.do_send(Stop);
    }
}

fn link_actor(keeper: &Addr<PeerLink>) -> LinkActor {
    LinkActor { seen: keeper.clone().recipient(), stop: keeper.clone().recipient() }
}

/// A dialled connection that the peer accepted.
struct Dialled {
    connection: Connection,
    lanes: [Opened; 2],
    hello: Hello,
    own_since: u64,
}

async fn dial(
    shared: Rc<Shared>,
    peer: NodeId,
    address: String,
    attempt: usize,
    is_fresh: bool,
    doubted: Option<Connection>,
) -> Result<Dialled, Refusal> {
    let measured_before = doubted.as_ref().map(Connection::rtt);
    let unreachable = |why: String| Refusal { result: ConnectionResult::Unreachable, close: Close::Protocol, why };
    let fresh = if is_fresh { shared.spare_endpoint() } else { None };
    let endpoint = fresh.or_else(|| shared.endpoint()).ok_or_else(|| unreachable("the network is closed".into()))?;
    let found = resolve(&address).await.map_err(unreachable)?;
    if shared.links.borrow().contains_key(&peer) {
        shared.members.borrow_mut().resolved(peer, found.iter().map(SocketAddr::ip));
    }
    // If a name has several addresses, each attempt takes the next.
    let to = found[attempt % found.len()];
    let name = node_name(peer, &shared.cluster);
    let credentials = shared.credentials();
    let connecting = endpoint.connect_with(credentials.client.clone(), to, &name);
    drop(endpoint);
    let connection = connecting.map_err(|error| unreachable(error.to_string()))?.await?;
    // The peer was away, and not the path: the old connection works again. Once it hears a hello,
    // it would close that.
    if doubted.as_ref().is_some_and(|old| old.close_reason().is_none() && Some(old.rtt()) != measured_before) {
        connection.close(Close::Goodbye.code(), b"not needed");
        return Err(Refusal::not_needed());
    }
    let introduced = match identify(&shared, &connection) {
        Ok(proved) => {
            debug_assert_eq!(proved, peer, "TLS compared the certificate with another name");
            introduce(&shared, peer, &connection).await.and_then(|introduced| {
                judge_since(&shared, credentials.number, &connection, Side::Dialler, peer)?;
                Ok(introduced)
            })
        }
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = &introduced {
        connection.close(refusal.close.code(), refusal.why.as_bytes());
    }
    let (lanes, hello) = introduced?;
    Ok(Dialled { connection, lanes, hello, own_since: credentials.own_since })
}

/// Opens the two-way lanes, sends a hello on each and waits for the peer's. With TLS 1.3 a dialler
/// considers itself connected before the acceptor has checked its certificate, so only the peer's
/// hello proves admission.
pub(super) async fn introduce(
    shared: &Shared,
    peer: NodeId,
    connection: &Connection,
) -> Result<([Opened; 2], Hello), Refusal> {
    let (mut control, from_control) = connection.open_bi().await?;
    let (mut append, from_append) = connection.open_bi().await?;
    let _ = control.set_priority(CONTROL_PRIORITY);
    say(&mut control, shared).await?;
    say(&mut append, shared).await?;
    let (hello, control) = hear(Lane::Control, control, from_control, shared, peer).await?;
    let (_, append) = hear(Lane::Append, append, from_append, shared, peer).await?;
    agree(control.version, append.version)?;
    Ok(([control, append], hello))
}

/// The addresses that a text stands for, one at least. Names are resolved on a thread of their
/// own, because that may block; tokio's pool would panic if no thread can be started.
async fn resolve(address: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let unresolved = |error: std::io::Error| format!("{address:?} can't be resolved: {error}");
    let (tell, told) = oneshot::channel();
    let name = address.to_owned();
    // The link may have given up before it ends.
    let look_up = move || drop(tell.send(name.to_socket_addrs().map(Vec::from_iter)));
    std::thread::Builder::new().name("quorate-resolver".into()).spawn(look_up).map_err(unresolved)?;
    let found = told.await.unwrap_or_else(|gone| Err(std::io::Error::other(gone))).map_err(unresolved)?;
    if found.is_empty() {
        return Err(format!("{address:?} stands for no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_a_peer_shows_during_an_attempt_is_found_by_that_or_the_next() {
        let certificate = |byte| CertificateDer::from(vec![byte]);
        let (old, new, newer) = (certificate(1), certificate(2), certificate(3));
        let mut renewed = Renewed { shown: Some(new.clone()), sought: None };
        renewed.attempt_begins();
        assert_eq!(renewed.shown, None, "an attempt is under way");
        renewed.attempt_fails();
        assert_eq!(renewed.shown, Some(new.clone()), "the next one seeks it again");
        renewed.attempt_begins();
        renewed.shown = Some(newer.clone());
        renewed.attempt_succeeds(Some(&new));
        assert_eq!(renewed.shown, Some(newer.clone()), "it was shown too late for that attempt");
        renewed.attempt_begins();
        renewed.attempt_succeeds(Some(&newer));
        assert_eq!((&renewed.shown, &renewed.sought), (&None, &None));

        // This node's own certificate is the reason of an attempt.
        renewed.attempt_begins();
        renewed.shown = Some(new.clone());
        renewed.attempt_succeeds(Some(&old));
        assert_eq!(renewed.shown, Some(new.clone()), "the attempt found the former one");
        renewed.attempt_begins();
        renewed.shown = Some(newer.clone());
        renewed.attempt_fails();
        assert_eq!(renewed.shown, Some(newer), "the newest counts");
    }
}
