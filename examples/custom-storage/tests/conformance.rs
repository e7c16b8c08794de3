//! The store keeps every duty of a storage actor, and a node finds its log in it again.

use quorate::{Consistency, Node, NodeId, StartError, storage::conformance, transport::MemoryNetwork};
use quorate_custom_storage::RedbLog;
use quorate_kv::machine::{Command, Kv};
use redb::{Database, ReadableTable, TableDefinition};
use std::path::Path;

#[actix::test]
async fn the_redb_log_conforms() {
    conformance::run(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        move || RedbLog::at(dir.path().join("log.redb")).into()
    })
    .await;
}

#[tokio::test]
async fn a_restarted_node_finds_its_term_and_every_acknowledged_write() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log.redb");
    let mut before = None;
    for round in 0..3 {
        let node = start(&path).await.expect("a node");
        for written in 0..round * 10 {
            assert_eq!(get(&node, written).await.as_deref(), Some(&b"value"[..]), "write {written} of an earlier run");
        }
        for key in round * 10..round * 10 + 10 {
            put(&node, key).await;
        }
        let status = node.status().borrow().clone();
        if let Some((term, last_log)) = before.replace((status.term, status.last_log)) {
            assert!(status.term > term, "its vote of term {term} is not given again");
            assert!(status.last_log > last_log, "the log goes on behind entry {last_log}");
        }
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_second_node_on_the_same_file_is_refused_in_one_line() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log.redb");
    let first = start(&path).await.expect("a node");
    let error = start(&path).await.expect_err("the file is in use").to_string();
    assert!(error.contains("in use") && error.contains("log.redb") && !error.contains('\n'), "{error}");
    put(&first, 1).await;
    first.shutdown().await;
    start(&path).await.expect("it is free again").shutdown().await;
}

#[tokio::test]
async fn a_log_with_a_flipped_bit_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log.redb");
    let node = start(&path).await.expect("a node");
    put(&node, 1).await;
    node.shutdown().await;
    flip_a_bit_of_the_last_batch(&path);
    let error = start(&path).await.expect_err("it is damaged").to_string();
    assert!(error.contains("damaged") && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_log_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("letter.txt");
    let letter = "Dear reader, ".repeat(1000);
    std::fs::write(&path, &letter).expect("a file");
    let error = start(&path).await.expect_err("it is no log").to_string();
    assert!(error.contains("letter.txt") && !error.contains('\n'), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("readable"), letter);
}

async fn start(path: &Path) -> Result<Node<Kv>, StartError> {
    Node::builder(NodeId(1), "test")
        .voters([(NodeId(1), "")])
        .network(MemoryNetwork::new(0).endpoint(NodeId(1)))
        .storage(RedbLog::at(path))
        .start(Kv::default())
        .await
}

async fn put(node: &Node<Kv>, key: u32) {
    let command = Command::Put { key: &key.to_le_bytes(), value: b"value" }.encode().expect("short");
    node.propose(command).await.expect("an acknowledgement");
}

async fn get(node: &Node<Kv>, key: u32) -> Option<bytes::Bytes> {
    let read = node.read(Consistency::Linearizable, move |kv| kv.get(&key.to_le_bytes())).await;
    read.expect("a value").value
}

/// Behind redb's back its own checksums would notice; so it is asked to store the wrong bit itself.
fn flip_a_bit_of_the_last_batch(path: &Path) {
    const BATCHES: TableDefinition<u64, &[u8]> = TableDefinition::new("batches");
    let database = Database::open(path).expect("the file is free");
    let transaction = database.begin_write().expect("a transaction");
    {
        let mut batches = transaction.open_table(BATCHES).expect("the table");
        let last = batches.last().expect("readable").map(|(key, bytes)| (key.value(), bytes.value().to_vec()));
        let (key, mut bytes) = last.expect("a batch");
        *bytes.last_mut().expect("a byte") ^= 1;
        batches.insert(key, &*bytes).expect("writable");
    }
    transaction.commit().expect("a commit");
}
