//! The store keeps every duty of a storage actor under all faults of its disk, and a node recovers
//! its log from it.

use quorate::{
    Node, NodeId, ServiceNode, StartError,
    storage::disk::{Disk, File},
    transport::MemoryNetwork,
};
use quorate_custom_storage::{Outcome, RedbLog};
use quorate_kv::machine::{Command, Kv, Value};
use quorate_storage_testing::conformance::{self, OnSimulatedDisk};
use redb::{Database, ReadableTable, StorageBackend, TableDefinition};
use std::{
    io::{self, IoSlice},
    path::Path,
};

#[actix::test]
async fn the_redb_log_conforms() {
    conformance::run(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        move || RedbLog::at(dir.path().join("log.redb"))
    })
    .await;
}

#[actix::test]
async fn the_redb_log_conforms_when_the_power_is_cut_writes_fail_and_bits_flip() {
    let report =
        conformance::run(|| OnSimulatedDisk::new(|disk| RedbLog::on(disk, "data/log.redb".into(), create))).await;
    assert_eq!(report.skipped, ["lost entries"], "it keeps what an entry is in one place only");
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
            assert!(status.last_log > last_log, "the log goes on after entry {last_log}");
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
    assert!(error.contains("already open") && error.contains("log.redb") && !error.contains('\n'), "{error}");
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
    flip_a_bit_of_the_last_entry(&path);
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

async fn start(path: &Path) -> Result<ServiceNode<Kv>, StartError> {
    Node::builder(NodeId(1), "test")
        .voters([(NodeId(1), "")])
        .network(MemoryNetwork::new().endpoint(NodeId(1)))
        .storage(RedbLog::at(path))
        .serve(Kv::default)
        .start()
        .await
}

async fn put(node: &ServiceNode<Kv>, key: u32) {
    let command = Command::Put { key: key.to_string().into(), value: b"value".into(), ttl_ms: None };
    node.call(command).await.expect("an acknowledgement");
}

async fn get(node: &ServiceNode<Kv>, key: u32) -> Option<Value> {
    node.query(key.to_string().into()).await.expect("a value").value
}

/// redb's own checksums would notice a bit flipped in the file; so the wrong bit is
/// stored through redb.
fn flip_a_bit_of_the_last_entry(path: &Path) {
    const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
    let database = Database::open(path).expect("the file is free");
    let transaction = database.begin_write().expect("a transaction");
    {
        let mut entries = transaction.open_table(ENTRIES).expect("the table");
        let last = entries.last().expect("readable").map(|(key, bytes)| (key.value(), bytes.value().to_vec()));
        let (key, mut bytes) = last.expect("an entry");
        *bytes.last_mut().expect("a byte") ^= 1;
        entries.insert(key, &*bytes).expect("writable");
    }
    transaction.commit().expect("a commit");
}

fn create(disk: &dyn Disk, path: &Path) -> Outcome<Database> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(path),
        found => found,
    }?;
    file.sync_data()?;
    disk.sync_dir(path.parent().unwrap_or(path))?;
    Ok(Database::builder().set_check_integrity_on_open(true).create_with_backend(OnDisk(file))?)
}

/// A file of the storage crate as a backend of redb.
#[derive(Debug)]
struct OnDisk(Box<dyn File>);

impl StorageBackend for OnDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let is_whole = self.0.read_at(out, offset)? == out.len();
        is_whole.then_some(()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.0.length()? { self.write(len - 1, &[0]) } else { self.0.truncate(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(&mut [IoSlice::new(data)], offset)
    }
}
