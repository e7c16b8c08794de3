//! The service on whole nodes in simulated time: keys that expire, and what watchers are told.

use quorate::{
    Consistency, Hosted, Index, Node, NodeId, ServiceNode, Topics, Watch, WatchError,
    storage::{Memory, MemoryLog},
    transport::MemoryNetwork,
};
use quorate_kv::machine::{
    Change, Command, Compare, EVENT_VALUE_BYTES_MAX, Holds, Key, Kv, Operation, Reply, Txn, TxnReply, Value,
};
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[test]
fn a_key_with_a_time_to_live_expires_and_one_that_is_set_again_does_not() {
    simulate(async {
        let node = start(&MemoryLog::new()).await;
        for (key, ttl_ms) in [("short", Some(1_000)), ("long", Some(60_000)), ("kept", Some(1_000)), ("stays", None)] {
            put(&node, key, b"v", ttl_ms).await;
        }
        let mut watch = node.watch(Topics::All).await.expect("a watch");
        put(&node, "kept", b"w", None).await;
        put(&node, "short", b"w", Some(2_000)).await;
        assert_eq!(told(&mut watch).await, set("kept", b"w"));
        let (_, key, change) = changes(&mut watch).await.pop().expect("a change");
        assert!(key == "short" && matches!(change, Change::Put { until: Some(_), bytes: 1, .. }), "{key} {change:?}");

        sleep(Duration::from_millis(1_500)).await;
        assert!(get(&node, "short").await.is_some(), "its time began anew");
        sleep(Duration::from_millis(1_000)).await;
        assert_eq!(told(&mut watch).await, ("short".into(), Change::Expire));
        for (key, is_there) in [("short", false), ("long", true), ("kept", true), ("stays", true)] {
            assert_eq!(get(&node, key).await.is_some(), is_there, "{key}");
        }
        // Of the keys that expired, nothing is left to fire: the next one told is the long one.
        sleep(Duration::from_secs(60)).await;
        assert_eq!(told(&mut watch).await, ("long".into(), Change::Expire));
        assert_eq!(get(&node, "kept").await, Some(Value::from(b"w")));
    });
}

#[test]
fn a_delete_a_swap_and_a_transaction_end_a_time_to_live_and_a_comparison_sees_that_it_ended() {
    simulate(async {
        let node = start(&MemoryLog::new()).await;
        let keys = ["deleted", "swapped", "put", "removed", "expired"];
        for key in keys {
            put(&node, key, b"v", Some(1_000)).await;
        }
        let key = |name: &str| Key::from(name);
        call(&node, Command::Delete { key: key("deleted") }).await;
        let swap = Command::Cas { key: key("swapped"), expect: Some(b"v".into()), value: b"w".into() };
        assert_eq!(call(&node, swap).await, Reply::Cas { swapped: true });
        let success = vec![
            Operation::Put { key: key("put"), value: b"w".into() },
            Operation::Delete { key: key("removed") },
            Operation::Put { key: key("removed"), value: b"w".into() },
        ];
        call(&node, Command::Txn(Txn { success, ..Txn::default() })).await;
        // Set again after its end, it has no timer left from before.
        put(&node, "deleted", b"w", None).await;

        let holds = |key: &str, holds| Compare { key: key.into(), holds };
        let is_there = vec![holds("expired", Holds::Value(b"v".into()))];
        let succeeds =
            async |compare: Vec<Compare>| match call(&node, Command::Txn(Txn { compare, ..Txn::default() })).await {
                Reply::Txn(TxnReply::Done { succeeded, .. }) => succeeded,
                reply => panic!("{reply:?}"),
            };
        assert!(succeeds(is_there.clone()).await);
        sleep(Duration::from_secs(2)).await;
        assert!(!succeeds(is_there).await);
        let gone = [holds("expired", Holds::Nothing)];
        let kept = ["deleted", "swapped", "put", "removed"].map(|key| holds(key, Holds::Value(b"w".into())));
        assert!(succeeds(gone.into_iter().chain(kept).collect()).await);
        let cas = Command::Cas { key: key("expired"), expect: None, value: b"x".into() };
        assert_eq!(call(&node, cas).await, Reply::Cas { swapped: true });
    });
}

#[test]
fn a_time_to_live_goes_on_after_a_restart_from_a_snapshot() {
    simulate(async {
        let log = MemoryLog::new();
        let node = start(&log).await;
        put(&node, "k", b"v", Some(10_000)).await;
        sleep(Duration::from_secs(5)).await;
        node.snapshot().await.expect("a snapshot");
        let hash = hash(&node).await;
        node.shutdown().await;
        let node = start(&log).await;
        assert!(get(&node, "k").await.is_some());
        assert_eq!(self::hash(&node).await, hash);
        sleep(Duration::from_secs(4)).await;
        assert!(get(&node, "k").await.is_some(), "nothing counted while it was down");
        sleep(Duration::from_secs(3)).await;
        assert!(get(&node, "k").await.is_none());
    });
}

#[test]
fn watchers_are_told_every_change_at_its_index_and_nothing_of_a_command_that_changes_nothing() {
    simulate(async {
        let node = start(&MemoryLog::new()).await;
        let mut watch = node.watch(Topics::All).await.expect("a watch");
        let key = |name: &str| Key::from(name);
        call(&node, Command::Delete { key: key("a") }).await;
        call(&node, Command::Cas { key: key("a"), expect: Some(b"".into()), value: b"".into() }).await;
        let wrong = Txn {
            compare: vec![Compare { key: key("a"), holds: Holds::Something }],
            success: vec![Operation::Put { key: key("a"), value: b"".into() }],
            failure: vec![Operation::Get { key: key("a") }, Operation::Delete { key: key("a") }],
        };
        call(&node, Command::Txn(wrong)).await;

        let large = vec![7; EVENT_VALUE_BYTES_MAX + 1];
        let success = vec![
            Operation::Put { key: key("a"), value: b"1".into() },
            Operation::Put { key: key("b"), value: large[..].into() },
            Operation::Put { key: key("c"), value: large[1..].into() },
            Operation::Delete { key: key("a") },
        ];
        let index = node.call(Command::Txn(Txn { success, ..Txn::default() })).await.expect("applied").index;
        let put = |value: Option<&[u8]>, bytes: usize| Change::Put {
            value: value.map(Value::from),
            bytes: bytes as u32,
            until: None,
        };
        let expected = [
            ("a", put(Some(b"1"), 1)),
            ("b", put(None, large.len())),
            ("c", put(Some(&large[1..]), EVENT_VALUE_BYTES_MAX)),
            ("a", Change::Delete),
        ];
        assert_eq!(changes(&mut watch).await, expected.map(|(key, change)| (index, key.to_owned(), change)));
        assert_eq!(watch.position(), index);
    });
}

#[test]
fn a_watch_from_an_index_that_the_history_has_evicted_is_gone_by_name() {
    simulate(async {
        let node = start(&MemoryLog::new()).await;
        put(&node, "k", b"v", None).await;
        let mut slow = node.watch("k").await.expect("a watch");
        for _ in 0..3_000 {
            put(&node, "other", &[7; EVENT_VALUE_BYTES_MAX], None).await;
        }
        let gone = slow.next().await.expect_err("evicted");
        assert!(matches!(gone, WatchError::Gone { floor, position } if floor > position), "{gone:?}");
    });
}

async fn start(log: &MemoryLog) -> ServiceNode<Kv> {
    let node = Node::builder(NodeId(1), "testing").voters([(NodeId(1), "")]).seed(1);
    let node = node.network(MemoryNetwork::new().endpoint(NodeId(1))).storage(Memory::shared(log));
    node.serve(Kv::default).start_local().await.expect("a node")
}

async fn call(node: &ServiceNode<Kv>, command: Command) -> Reply {
    node.call(command).within(Duration::from_secs(30)).await.expect("applied").reply
}

async fn put(node: &ServiceNode<Kv>, key: &str, value: &[u8], ttl_ms: Option<u64>) {
    call(node, Command::Put { key: key.into(), value: value.into(), ttl_ms }).await;
}

async fn get(node: &ServiceNode<Kv>, key: &str) -> Option<Value> {
    node.query(key.into()).await.expect("an answer").value
}

async fn hash(node: &ServiceNode<Kv>) -> u64 {
    node.read(Consistency::Linearizable, |kv: &Hosted<Kv>| kv.service().state_hash()).await.expect("a state").value
}

async fn changes(watch: &mut Watch<Kv>) -> Vec<(Index, String, Change)> {
    let changes = timeout(Duration::from_secs(120), watch.next()).await.expect("in time").expect("a change");
    let change = |(key, change): &(std::sync::Arc<str>, std::sync::Arc<Change>)| {
        (changes.index, key.to_string(), Change::clone(change))
    };
    changes.events.iter().map(change).collect()
}

async fn told(watch: &mut Watch<Kv>) -> (String, Change) {
    let mut changes = changes(watch).await;
    assert_eq!(changes.len(), 1, "{changes:?}");
    changes.pop().map(|(_, key, change)| (key, change)).expect("one")
}

fn set(key: &str, value: &[u8]) -> (String, Change) {
    (key.into(), Change::Put { value: Some(value.into()), bytes: value.len() as u32, until: None })
}

fn simulate(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}
