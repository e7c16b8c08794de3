//! The way to one peer: [`PeerLink`] keeps a connection up, [`QuicLink`] is what the node sends through.

use super::{
    endpoint::{Close, Shared, one_line},
    hello::{Opened, Refusal, agree, hear, say},
    lanes::{Carrier, Side},
    restraint::BackOff,
};
use crate::{
    codec::{Encoder, Hello},
    identity::node_name,
    network::{Lane, Link},
};
use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};
use quinn::Connection;
use quorate_raft::{Message, NodeId};
use std::{
    cell::RefCell,
    net::{SocketAddr, ToSocketAddrs},
    rc::Rc,
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// Dials a peer, again and again until it is there, and again after it was lost.
///
/// Owns the dialled connection. Hears [`PeerSeen`] from the acceptor and [`Stop`] from its link or the network; tells the
/// inbox when the link comes up and goes down. Messages do not pass through it: [`QuicLink`] puts them straight into the
/// bounded queues of the connection, because a mailbox has no bound.
///
/// Between attempts it waits, longer each time, up to [`BackOff::LONGEST`]. It starts over only after a connection that
/// lasted, or at once when the peer itself shows up.
pub(super) struct PeerLink {
    peer: NodeId,
    address: String,
    shared: Rc<Shared>,
    /// Shared with the [`QuicLink`]; set while the link is up.
    dialled: Rc<RefCell<Option<Rc<Carrier>>>>,
    state: State,
    back_off: BackOff,
    attempts: usize,
    dialled_at: Instant,
    /// What was last logged: lines tell of changes, not of attempts.
    told: Option<&'static str>,
}

enum State {
    Dialling(SpawnHandle),
    Waiting(SpawnHandle),
    Up { incarnation: u64, since: Instant },
}

/// The acceptor let this peer in, so it is alive.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct PeerSeen {
    /// Which run of the peer it is.
    pub(super) incarnation: u64,
}

/// The link is no longer wanted.
#[derive(actix::Message)]
#[rtype(result = "()")]
pub(super) struct Stop;

impl PeerLink {
    /// For resolving, connecting and the hellos. An attempt to a peer that is not there yet is better begun anew than
    /// drawn out: QUIC asks less and less often within one.
    const DIAL_WITHIN: Duration = Duration::from_secs(1);
    /// A connection that lasts so long is a success.
    const STABLE_AFTER: Duration = Duration::from_secs(1);
    /// A peer that shows up is dialled at once, but no more often than this.
    const AT_MOST_EVERY: Duration = Duration::from_millis(20);

    fn dial(&mut self, ctx: &mut Context<Self>) {
        let dialling = dial(Rc::clone(&self.shared), self.peer, self.address.clone(), self.attempts);
        self.attempts = self.attempts.wrapping_add(1);
        self.dialled_at = Instant::now();
        let dialling = async move {
            let late = || Refusal { result: "unreachable", close: Close::Protocol, why: "no answer".into() };
            tokio::time::timeout(Self::DIAL_WITHIN, dialling).await.unwrap_or_else(|_| Err(late()))
        };
        let dialling = dialling.into_actor(self).map(|dialled, link, ctx| match dialled {
            Ok(dialled) => link.connected(dialled, ctx),
            Err(refusal) => link.failed(&refusal, ctx),
        });
        self.state = State::Dialling(ctx.spawn(dialling));
    }

    fn connected(&mut self, dialled: Dialled, ctx: &mut Context<Self>) {
        let Dialled { connection, lanes, hello } = dialled;
        let (incarnation, remote) = (hello.introduction.incarnation, connection.remote_address());
        if self.shared.has_twin(self.peer, incarnation, remote) {
            // The process at the member's address is the member.
            for other in self.shared.others_of(self.peer, incarnation) {
                other.close(Close::Twin);
            }
        }
        self.shared.incarnations.borrow_mut().connected(self.peer, incarnation, remote);
        self.shared.observer.connection(Some(self.peer), "connected");
        if self.told.replace("connected") != Some("connected") {
            let [control, _] = &lanes;
            tracing::info!(peer = self.peer.0, address = %self.address, version = %control.version, "link up");
        }
        let carrier = Carrier::start(
            &self.shared,
            self.peer,
            connection.clone(),
            lanes,
            Side::Dialler,
            hello.introduction.clone(),
        );
        self.dialled.replace(Some(carrier));
        self.state = State::Up { incarnation, since: Instant::now() };
        let closed = async move { connection.closed().await };
        ctx.spawn(closed.into_actor(self).map(|ended, link, ctx| link.lost(&ended.to_string(), ctx)));
        self.shared.inbox.introduced(self.peer, hello.introduction);
        self.shared.inbox.link_up(self.peer);
    }

    fn lost(&mut self, why: &str, ctx: &mut Context<Self>) {
        if let State::Up { since, .. } = self.state
            && since.elapsed() >= Self::STABLE_AFTER
        {
            self.back_off.reset();
            if self.told.replace("lost") != Some("lost") {
                tracing::warn!(peer = self.peer.0, address = %self.address, "link lost: {}", one_line(why));
            }
        }
        self.dialled.replace(None);
        self.wait(ctx);
        self.shared.inbox.link_down(self.peer);
    }

    fn failed(&mut self, refusal: &Refusal, ctx: &mut Context<Self>) {
        self.shared.observer.connection(Some(self.peer), refusal.result);
        if self.told.replace(refusal.result) != Some(refusal.result) {
            let (why, result) = (one_line(&refusal.why), refusal.result);
            tracing::warn!(peer = self.peer.0, address = %self.address, "{result}: {why}; trying on");
        }
        self.wait(ctx);
    }

    fn wait(&mut self, ctx: &mut Context<Self>) {
        let pause = self.back_off.next(rand::random());
        self.state = State::Waiting(ctx.run_later(pause, Self::dial));
    }
}

impl Actor for PeerLink {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.dial(ctx);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        if let Some(carrier) = self.dialled.take() {
            carrier.close(Close::Goodbye);
            // What was under way may be lost, and a link that takes this one's place has yet to come up.
            if !self.shared.is_closed.get() {
                self.shared.inbox.link_down(self.peer);
            }
        }
    }
}

impl Handler<PeerSeen> for PeerLink {
    type Result = ();

    fn handle(&mut self, seen: PeerSeen, ctx: &mut Context<Self>) {
        let recent = self.dialled_at.elapsed() < Self::AT_MOST_EVERY;
        match self.state {
            // It was restarted: this connection leads to nobody.
            State::Up { incarnation, .. } if incarnation != seen.incarnation => {
                if let Some(carrier) = &*self.dialled.borrow() {
                    carrier.close(Close::Replaced);
                }
            }
            State::Dialling(pending) | State::Waiting(pending) if !recent => {
                ctx.cancel_future(pending);
                self.dial(ctx);
            }
            _ => {}
        }
    }
}

impl Handler<Stop> for PeerLink {
    type Result = ();

    fn handle(&mut self, Stop: Stop, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// What the node sends through.
pub(super) struct QuicLink {
    peer: NodeId,
    shared: Rc<Shared>,
    dialled: Rc<RefCell<Option<Rc<Carrier>>>>,
    /// Nobody keeps up a connection to whom this node only answers.
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
            back_off: BackOff::default(),
            attempts: 0,
            dialled_at: Instant::now(),
            told: None,
        }
        .start();
        if let Some(older) = shared.links.borrow_mut().insert(peer, keeper.clone()) {
            older.do_send(Stop);
        }
        Self { peer, shared, dialled, keeper: Some(keeper) }
    }

    /// Dials nobody: answers on the connection that the peer opened.
    pub(super) fn answering(shared: Rc<Shared>, peer: NodeId) -> Self {
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
            return dropped("unconnected");
        };
        let Ok(frame) = Encoder::new(self.shared.limits).speaking(carrier.version).message(&message) else {
            return dropped("too_long");
        };
        if carrier.send(lane, frame).is_err() {
            dropped("queue_full");
        }
    }

    fn is_alive(&self) -> bool {
        self.keeper.as_ref().is_none_or(Addr::connected) || self.shared.is_closed.get()
    }
}

impl Drop for QuicLink {
    fn drop(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        let mut links = self.shared.links.borrow_mut();
        if links.get(&self.peer) == Some(keeper) {
            links.remove(&self.peer);
        }
        keeper.do_send(Stop);
    }
}

/// A connection that was dialled, with the peer's word that it was let in.
struct Dialled {
    connection: Connection,
    lanes: [Opened; 2],
    hello: Hello,
}

async fn dial(shared: Rc<Shared>, peer: NodeId, address: String, attempt: usize) -> Result<Dialled, Refusal> {
    let unreachable = |why: String| Refusal { result: "unreachable", close: Close::Protocol, why };
    let endpoint = shared.endpoint().ok_or_else(|| unreachable("the network is closed".into()))?;
    let to = resolve(&address, attempt).await.map_err(unreachable)?;
    let name = node_name(peer, &shared.cluster);
    let connecting = endpoint.connect_with(shared.client.clone(), to, &name);
    drop(endpoint);
    let connection = connecting.map_err(|error| unreachable(error.to_string()))?.await?;
    let introduced = introduce(&shared, peer, &connection).await;
    if let Err(refusal) = &introduced {
        connection.close(refusal.close.code(), refusal.why.as_bytes());
    }
    let (lanes, hello) = introduced?;
    Ok(Dialled { connection, lanes, hello })
}

/// Opens the two-way lanes and says hello on them, then hears what comes back: with TLS 1.3 a dialler believes itself connected
/// before the acceptor has looked at its certificate, so only a hello says that it was let in.
async fn introduce(shared: &Shared, peer: NodeId, connection: &Connection) -> Result<([Opened; 2], Hello), Refusal> {
    let (mut control, from_control) = connection.open_bi().await?;
    let (mut append, from_append) = connection.open_bi().await?;
    let _ = control.set_priority(super::CONTROL_PRIORITY);
    say(&mut control, shared).await?;
    say(&mut append, shared).await?;
    let (hello, control) = hear(Lane::Control, control, from_control, shared, peer).await?;
    let (_, append) = hear(Lane::Append, append, from_append, shared, peer).await?;
    agree(control.version, append.version)?;
    Ok(([control, append], hello))
}

/// The address to try: the one that a name stands for, or, attempt by attempt, each of several. Names are looked up on a thread of
/// their own, for that may block; tokio's pool would panic where no thread can be started.
async fn resolve(address: &str, attempt: usize) -> Result<SocketAddr, String> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let unresolved = |error: std::io::Error| format!("{address:?} can't be resolved: {error}");
    let (tell, told) = oneshot::channel();
    let name = address.to_owned();
    // The link may have given up before it ends.
    let look_up = move || drop(tell.send(name.to_socket_addrs().map(Vec::from_iter)));
    std::thread::Builder::new().name("quorate-resolver".into()).spawn(look_up).map_err(unresolved)?;
    let found = told.await.unwrap_or_else(|gone| Err(std::io::Error::other(gone))).map_err(unresolved)?;
    match found.len() {
        0 => Err(format!("{address:?} stands for no address")),
        count => Ok(found[attempt % count]),
    }
}
