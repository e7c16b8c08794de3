//! The open connections of clients, their activity, and the choice of one to close for a new one.
//!
//! **Bounded:** by the descriptors that the process has for clients. When all places are in use,
//! a new connection replaces one without a request in execution: one of the client with the
//! most connections, idle ones first, the longest idle one of these. So idle connections and
//! slow bodies cannot keep out new clients or probes. An answer of which its client takes no
//! bytes for [`STALL_LIMIT`] cannot either. A connection whose request is being executed is
//! never closed for another.
//!
//! The client of a connection is its address until a caller on it proves an identity, and that
//! identity from then on. While connections without an identity have one place in
//! [`UNPROVEN_PART`] or more, one of them is closed first: so callers without an identity take few
//! places from those with one, behind the same address too. They keep these places, because each
//! caller begins without an identity, and must come to prove one while another holds all the rest.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// The time after which a client that takes no bytes of its answer may lose its place.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// One place in this many is left to connections without an identity.
const UNPROVEN_PART: usize = 4;
/// The interval of checks for a connection to close, while all are busy.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// All open connections. Cheap to clone; clones share the state.
#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

struct Shared {
    max: usize,
    open: Mutex<Open>,
    /// Signals that a connection has ended.
    ended: Notify,
}

#[derive(Default)]
struct Open {
    begun: u64,
    connections: BTreeMap<u64, Arc<Connection>>,
}

/// The state of one connection.
pub(super) struct Connection {
    number: u64,
    client: Mutex<Client>,
    activity: Mutex<(Activity, Instant)>,
    /// Whether received bytes belong to no complete request.
    has_unread: AtomicBool,
    /// Whether the last bytes of the answer are queued.
    is_queued: AtomicBool,
    close: Notify,
}

/// The activity on a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Activity {
    /// A request is being executed.
    Working,
    /// An answer is being sent; the time is that of its last progress.
    Answering,
    /// A request's body has not arrived completely; its execution has not started.
    Arriving,
    /// Idle, or a request's head has not arrived.
    Waiting,
}

/// The unit of sharing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Client {
    /// An IPv4 address, or an IPv6 /64 network, all of whose addresses one machine may own.
    Address(IpAddr),
    /// The hash of the role and the name that a caller has proven, with a key of this process.
    Identity(u64),
}

impl Client {
    /// The caller with this role and name.
    pub(super) fn identified(name: &str) -> Self {
        static KEY: OnceLock<RandomState> = OnceLock::new();
        Self::Identity(KEY.get_or_init(RandomState::new).hash_one(name))
    }

    fn is_proven(self) -> bool {
        matches!(self, Self::Identity(_))
    }
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
            v4 => v4,
        })
    }
}

impl Connections {
    /// Places for at most `max` connections.
    pub(super) fn up_to(max: usize) -> Self {
        Self(Arc::new(Shared { max, open: Mutex::default(), ended: Notify::new() }))
    }

    /// Registers a connection of `client`, once there is a place.
    pub(super) async fn register(&self, client: Client) -> Registration {
        loop {
            let ended = self.0.ended.notified();
            if let Some(registration) = self.try_register(client) {
                return registration;
            }
            self.make_room();
            // A connection that is busy now may become idle soon.
            let _ = tokio::time::timeout(LOOK_AGAIN, ended).await;
        }
    }

    fn try_register(&self, client: Client) -> Option<Registration> {
        let mut open = self.open();
        if open.connections.len() >= self.0.max {
            return None;
        }
        open.begun += 1;
        let connection = Arc::new(Connection {
            number: open.begun,
            client: Mutex::new(client),
            activity: Mutex::new((Activity::Waiting, Instant::now())),
            has_unread: AtomicBool::new(false),
            is_queued: AtomicBool::new(false),
            close: Notify::new(),
        });
        open.connections.insert(connection.number, Arc::clone(&connection));
        Some(Registration { connection, all: self.clone() })
    }

    /// Closes the connection that is best to give up, if there is one.
    pub(super) fn make_room(&self) {
        let open = self.open();
        let (mut of_client, mut unproven) = (HashMap::<Client, usize>::new(), 0);
        for connection in open.connections.values() {
            let client = connection.client();
            *of_client.entry(client).or_default() += 1;
            unproven += usize::from(!client.is_proven());
        }
        let are_unproven_first = unproven >= self.0.max / UNPROVEN_PART;
        let spared = open.connections.values().filter_map(|connection| {
            let (activity, since) = *connection.activity();
            let client = connection.client();
            let (goes_first, of_client) = (are_unproven_first && !client.is_proven(), of_client.get(&client).copied());
            connection.can_go().then_some(((goes_first, of_client, activity, std::cmp::Reverse(since)), connection))
        });
        if let Some((_, connection)) = spared.max_by_key(|(rank, _)| *rank) {
            connection.close.notify_one();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// The caller of a request on it, or of its handshake. One without an identity changes nothing.
    pub(super) fn called_by(&self, caller: Client) {
        if caller.is_proven() {
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = caller;
        }
    }

    fn client(&self) -> Client {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the start of an activity.
    pub(super) fn set_activity(&self, what: Activity) {
        self.is_queued.store(false, Relaxed);
        *self.activity() = (what, Instant::now());
    }

    /// Records that the last bytes of the answer are queued.
    pub(super) fn queued(&self) {
        self.is_queued.store(true, Relaxed);
    }

    /// Records that all bytes that were queued have left. With the last ones, the answer is over.
    pub(super) fn flushed(&self) {
        if self.is_queued.load(Relaxed) {
            self.set_activity(Activity::Waiting);
        }
    }

    /// Records the complete arrival of a request's body, unless it was already answered.
    pub(super) fn arrived(&self) {
        let mut activity = self.activity();
        if activity.0 == Activity::Arriving {
            *activity = (Activity::Working, Instant::now());
        }
    }

    /// Records progress of the answer.
    pub(super) fn wrote(&self) {
        let mut activity = self.activity();
        if activity.0 == Activity::Answering {
            activity.1 = Instant::now();
        }
    }

    /// Whether the body of a request has not arrived, so that its execution has not started.
    pub(super) fn is_arriving(&self) -> bool {
        self.activity().0 == Activity::Arriving
    }

    /// Whether the client has taken no bytes of an answer for [`STALL_LIMIT`].
    pub(super) fn is_stalled(&self) -> bool {
        let (activity, since) = *self.activity();
        activity == Activity::Answering && since.elapsed() >= STALL_LIMIT
    }

    pub(super) fn set_unread(&self, has_unread: bool) {
        self.has_unread.store(has_unread, Relaxed);
    }

    pub(super) fn has_unread(&self) -> bool {
        self.has_unread.load(Relaxed)
    }

    /// Resolves when the connection must be closed for another. A request may have begun since it was
    /// chosen: its outcome must not become unknown, so another connection is chosen then. For this,
    /// it is awaited in the task that executes the requests.
    pub(super) async fn closed(&self) {
        loop {
            self.close.notified().await;
            if self.can_go() {
                return;
            }
        }
    }

    /// Whether no request is executed on it, and no answer is being taken.
    fn can_go(&self) -> bool {
        let (activity, _) = *self.activity();
        match activity {
            Activity::Working => false,
            Activity::Answering => self.is_stalled(),
            Activity::Arriving | Activity::Waiting => true,
        }
    }

    fn activity(&self) -> MutexGuard<'_, (Activity, Instant)> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, returned on drop.
pub(super) struct Registration {
    pub(super) connection: Arc<Connection>,
    all: Connections,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.all.open().connections.remove(&self.connection.number);
        self.all.0.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connection_of_the_client_with_the_most_makes_room() {
        let all = Connections::up_to(4);
        let mut open = Vec::new();
        for client in [2, 1, 1, 1] {
            open.push(all.register(client_of(client)).await);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // The oldest connection of client 1 is busy; client 2 has been idle longest, but
        // has only one.
        open[1].connection.set_activity(Activity::Working);
        assert!(all.register(client_of(3)).now_or_never().is_none());
        for (registration, goes) in open.iter().zip([false, false, true, false]) {
            assert_eq!(registration.connection.closed().now_or_never().is_some(), goes);
        }
        let mut newcomer = Box::pin(all.register(client_of(3)));
        assert!(newcomer.as_mut().now_or_never().is_none());
        drop(open.remove(2));
        newcomer.now_or_never().expect("there is a place");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_chosen_stays_while_a_request_that_has_begun_since_is_executed_and_answered() {
        let all = Connections::up_to(1);
        let Registration { connection, .. } = &all.register(client_of(1)).await;
        for activity in [Activity::Working, Activity::Answering] {
            connection.set_activity(Activity::Waiting);
            all.make_room();
            connection.set_activity(activity);
            assert!(connection.closed().now_or_never().is_none(), "{activity:?}");
        }
        tokio::time::advance(STALL_LIMIT).await;
        all.make_room();
        assert!(connection.closed().now_or_never().is_some(), "its client takes nothing");
        connection.set_activity(Activity::Waiting);
        assert!(connection.closed().now_or_never().is_none(), "it was chosen for the former activities alone");
        all.make_room();
        assert!(connection.closed().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_without_an_identity_take_no_place_from_one_with_an_identity_behind_their_address() {
        let all = Connections::up_to(8);
        let mut open = Vec::new();
        for nth in 0..8 {
            open.push(all.register(client_of(1)).await);
            if nth < 5 {
                open[nth].connection.called_by(Client::identified("client billing"));
                open[nth].connection.called_by(client_of(1));
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // The identity has more, and its connections have been idle longer.
        for _ in 0..8 {
            all.make_room();
            assert_eq!(closed(&open), [5], "the longest idle one without an identity");
            drop(open.remove(5));
            open.push(all.register(client_of(1)).await);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // Those without an identity are busy, so there is no other to close.
        for registration in &open[5..] {
            registration.connection.set_activity(Activity::Working);
        }
        all.make_room();
        assert_eq!(closed(&open), [0]);
    }

    /// Otherwise each newcomer would replace the one before it, which has yet to prove an identity.
    #[tokio::test(start_paused = true)]
    async fn an_identity_that_has_all_places_leaves_a_quarter_to_newcomers() {
        let all = Connections::up_to(8);
        let mut open = Vec::new();
        for _ in 0..8 {
            let registration = all.register(client_of(1)).await;
            registration.connection.called_by(Client::identified("client billing"));
            open.push(registration);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        for nth in 0..3 {
            all.make_room();
            assert_eq!(closed(&open), [if nth < 2 { 0 } else { 6 }], "newcomer {nth}");
            drop(open.remove(if nth < 2 { 0 } else { 6 }));
            open.push(all.register(client_of(1)).await);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_makes_room_and_work_does_not() {
        let all = Connections::up_to(2);
        let (slow, busy) = (all.register(client_of(1)).await, all.register(client_of(1)).await);
        slow.connection.set_activity(Activity::Arriving);
        busy.connection.set_activity(Activity::Arriving);
        busy.connection.arrived();
        all.make_room();
        assert!(slow.connection.closed().now_or_never().is_some());
        slow.connection.set_activity(Activity::Working);
        all.make_room();
        assert!(slow.connection.closed().now_or_never().is_none() && busy.connection.closed().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_makes_room_and_one_that_leaves_does_not() {
        let all = Connections::up_to(1);
        let registration = all.register(client_of(1)).await;
        registration.connection.set_activity(Activity::Answering);
        for _ in 0..10 {
            tokio::time::advance(STALL_LIMIT / 2).await;
            all.make_room();
            assert!(registration.connection.closed().now_or_never().is_none());
            registration.connection.wrote();
        }
        tokio::time::advance(STALL_LIMIT).await;
        all.make_room();
        assert!(registration.connection.closed().now_or_never().is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let client = |text: &str| Client::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:0:0:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
    }

    /// The positions of the connections that must be closed.
    fn closed(open: &[Registration]) -> Vec<usize> {
        let closed = open.iter().map(|registration| registration.connection.closed().now_or_never().is_some());
        closed.enumerate().filter_map(|(nth, is_closed)| is_closed.then_some(nth)).collect()
    }

    fn client_of(last: u8) -> Client {
        Client::from(IpAddr::from([10, 0, 0, last]))
    }
}
