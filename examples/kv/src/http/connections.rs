//! Which connections of clients there are, what each is doing, and which one goes when another wants in.
//!
//! **Bounded:** at most as many as the process has descriptors for. When all places are taken, a new connection takes the place of
//! one on which nothing has begun: of those, one of the address that has the most, and of its ones the longest idle. So neither idle
//! connections nor slow bodies keep out new clients, or probes. Nor does an answer of which its client takes nothing for [`STALL_LIMIT`].
//! A connection whose request is being carried out is never closed so.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// A client that takes nothing of its answer for so long may lose its place.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// How soon to look again whether a connection can go, when all are at work.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// All connections. Cheap to clone; clones are the same.
#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

struct Shared {
    max: usize,
    open: Mutex<Open>,
    /// One has ended.
    ended: Notify,
}

#[derive(Default)]
struct Open {
    begun: u64,
    connections: BTreeMap<u64, Arc<Connection>>,
}

/// One connection.
pub(super) struct Connection {
    number: u64,
    client: Client,
    doing: Mutex<(Doing, Instant)>,
    /// Bytes arrived that belong to no request that has arrived whole.
    has_unread: AtomicBool,
    close: Notify,
}

/// What happens on a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Doing {
    /// A request is carried out.
    Working,
    /// An answer leaves; the time is that of the last bytes of it.
    Answering,
    /// A request's body has not arrived; nothing has begun.
    Arriving,
    /// Nothing, or a request's head has not arrived.
    Waiting,
}

/// What a share is given to: an address, or of IPv6 the network of 64 bits that one machine can have all addresses of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
            v4 => v4,
        })
    }
}

impl Connections {
    /// Places for so many.
    pub(super) fn up_to(max: usize) -> Self {
        Self(Arc::new(Shared { max, open: Mutex::default(), ended: Notify::new() }))
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.open().connections.len()
    }

    /// Enters one of this client, once there is a place.
    pub(super) async fn enter(&self, client: Client) -> Entered {
        loop {
            let ended = self.0.ended.notified();
            if let Some(entered) = self.try_enter(client) {
                return entered;
            }
            self.make_room();
            // One that is at work now may be idle soon.
            let _ = tokio::time::timeout(LOOK_AGAIN, ended).await;
        }
    }

    fn try_enter(&self, client: Client) -> Option<Entered> {
        let mut open = self.open();
        if open.connections.len() >= self.0.max {
            return None;
        }
        open.begun += 1;
        let connection = Arc::new(Connection {
            number: open.begun,
            client,
            doing: Mutex::new((Doing::Waiting, Instant::now())),
            has_unread: AtomicBool::new(false),
            close: Notify::new(),
        });
        open.connections.insert(connection.number, Arc::clone(&connection));
        Some(Entered { connection, all: self.clone() })
    }

    /// Closes the connection that can best be spared, if one can.
    pub(super) fn make_room(&self) {
        let open = self.open();
        let mut of_client: HashMap<Client, usize> = HashMap::new();
        for connection in open.connections.values() {
            *of_client.entry(connection.client).or_default() += 1;
        }
        let spared = open.connections.values().filter_map(|connection| {
            let (doing, since) = *connection.doing();
            let can_go = match doing {
                Doing::Working => false,
                Doing::Answering => since.elapsed() >= STALL_LIMIT,
                Doing::Arriving | Doing::Waiting => true,
            };
            can_go.then(|| ((of_client.get(&connection.client).copied(), doing, std::cmp::Reverse(since)), connection))
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
    /// From now on this happens on it.
    pub(super) fn does(&self, what: Doing) {
        *self.doing() = (what, Instant::now());
    }

    /// A request's body arrived whole, unless it is answered already.
    pub(super) fn arrived(&self) {
        let mut doing = self.doing();
        if doing.0 == Doing::Arriving {
            *doing = (Doing::Working, Instant::now());
        }
    }

    /// Some of the answer left.
    pub(super) fn wrote(&self) {
        let mut doing = self.doing();
        if doing.0 == Doing::Answering {
            doing.1 = Instant::now();
        }
    }

    pub(super) fn set_unread(&self, has_unread: bool) {
        self.has_unread.store(has_unread, Relaxed);
    }

    pub(super) fn has_unread(&self) -> bool {
        self.has_unread.load(Relaxed)
    }

    /// Resolves when it must make room for another.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    fn doing(&self) -> MutexGuard<'_, (Doing, Instant)> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; given back when this is dropped.
pub(super) struct Entered {
    pub(super) connection: Arc<Connection>,
    all: Connections,
}

impl Drop for Entered {
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
    async fn the_longest_idle_connection_of_the_greediest_client_makes_room() {
        let all = Connections::up_to(4);
        let mut open = Vec::new();
        for client in [2, 1, 1, 1] {
            open.push(all.enter(client_of(client)).await);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // The oldest of client 1 is at work, and client 2 has been idle for longest, but has one alone.
        open[1].connection.does(Doing::Working);
        assert!(all.enter(client_of(3)).now_or_never().is_none());
        for (entered, goes) in open.iter().zip([false, false, true, false]) {
            assert_eq!(entered.connection.closed().now_or_never().is_some(), goes);
        }
        let mut newcomer = Box::pin(all.enter(client_of(3)));
        assert!(newcomer.as_mut().now_or_never().is_none());
        drop(open.remove(2));
        newcomer.now_or_never().expect("there is a place");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_makes_room_and_work_does_not() {
        let all = Connections::up_to(2);
        let (slow, busy) = (all.enter(client_of(1)).await, all.enter(client_of(1)).await);
        slow.connection.does(Doing::Arriving);
        busy.connection.does(Doing::Arriving);
        busy.connection.arrived();
        all.make_room();
        assert!(slow.connection.closed().now_or_never().is_some());
        slow.connection.does(Doing::Working);
        all.make_room();
        assert!(slow.connection.closed().now_or_never().is_none() && busy.connection.closed().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_makes_room_and_one_that_leaves_does_not() {
        let all = Connections::up_to(1);
        let entered = all.enter(client_of(1)).await;
        entered.connection.does(Doing::Answering);
        for _ in 0..10 {
            tokio::time::advance(STALL_LIMIT / 2).await;
            all.make_room();
            assert!(entered.connection.closed().now_or_never().is_none());
            entered.connection.wrote();
        }
        tokio::time::advance(STALL_LIMIT).await;
        all.make_room();
        assert!(entered.connection.closed().now_or_never().is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let client = |text: &str| Client::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:0:0:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
    }

    fn client_of(last: u8) -> Client {
        Client::from(IpAddr::from([10, 0, 0, last]))
    }
}
