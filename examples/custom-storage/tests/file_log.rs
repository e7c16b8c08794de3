//! The store by the trait keeps every duty of a storage actor under all faults of its disk, and a
//! killed process finds its log again.

use quorate::storage::{LogDir, Persist, Recover, Recovered, Storage, Unobserved, checksum};
use quorate_custom_storage::FileLog;
use quorate_raft::{BatchBuilder, HardState, Index, Kind, NodeId, Term};
use quorate_storage_testing::{
    completions::{Completion, listen},
    conformance::{self, OnSimulatedDisk},
};
use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};
use tokio::sync::mpsc;

#[actix::test]
async fn the_file_log_conforms() {
    conformance::run(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        move || FileLog::at(dir.path())
    })
    .await;
}

#[actix::test]
async fn the_file_log_conforms_when_the_power_is_cut_writes_fail_and_bits_flip() {
    let report =
        conformance::run(|| OnSimulatedDisk::new(|disk| LogDir::at("data").on(disk).storage(FileLog::open))).await;
    assert_eq!(report.skipped, ["lost entries"], "it keeps what an entry is in one place only");
}

/// A process that writes until SIGKILL finds all that it had acknowledged, and its vote.
#[actix::test]
async fn a_killed_process_finds_every_acknowledged_entry_and_its_vote() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut acknowledged = 0;
    for round in 1..=3 {
        let mut child = Command::new(env::current_exe().expect("this test"))
            .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let numbers = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        let last = numbers.take_while(|number| *number < round * 40).last();
        // A child that is killed with `kill` gets SIGKILL.
        child.kill().expect("it runs");
        child.wait().expect("it ended");
        acknowledged = last.map_or(acknowledged, |last| last.max(acknowledged));

        let (storage, _, recovered) = start(dir.path()).await;
        assert!(recovered.last.index >= Index(acknowledged), "entry {acknowledged} is lost");
        assert!(recovered.hard_state.term >= Term(acknowledged), "the term of entry {acknowledged} is lost");
        assert_eq!(recovered.hard_state.vote, Some(NodeId(recovered.hard_state.term.0)), "the vote of that term");
        end(storage);
    }
    assert!(acknowledged > 100, "it wrote {acknowledged} entries");
}

const DIR: &str = "FILE_LOG_OF_THE_WRITER";

/// The process of the test above: an entry, and a vote in a term, at a time.
#[actix::test]
#[ignore = "it never ends"]
async fn writes_until_it_is_killed() {
    let Ok(dir) = env::var(DIR) else { return };
    let (storage, mut told, recovered) = start(Path::new(&dir)).await;
    let mut last = (recovered.last, recovered.last_checksum);
    loop {
        let sequence = last.0.index.0 + 1;
        let (term, vote) = (Term(sequence), Some(NodeId(sequence)));
        let mut entries = BatchBuilder::new(checksum, term, Index(sequence), last.1, 0);
        entries.push(Kind::Command, &[7; 1000]);
        let batch = entries.finish().expect("an entry");
        last = (batch.last_id(), batch.checksum());
        let (batch, hard_state) = (Some(batch), Some(HardState::new(term, vote)));
        let persist = quorate_raft::Persist { sequence, batch, hard_state, ..Default::default() };
        storage.persist.do_send(Persist(persist));
        assert_eq!(told.recv().await, Some(sequence));
        println!("acknowledged {sequence}");
        std::io::stdout().flush().expect("the parent listens");
    }
}

async fn start(dir: &Path) -> (Storage, mpsc::UnboundedReceiver<u64>, Recovered) {
    let (completions, told) = listen(|completion| match completion {
        Completion::Persisted(persisted) => Some(persisted.sequence),
        Completion::Failed(error) => panic!("{error}"),
        Completion::Read(_) | Completion::Full(_) => None,
    });
    let storage = FileLog::at(dir).start().expect("a thread");
    let recover = Recover { cluster: "test".into(), member: NodeId(1), completions, observer: Arc::new(Unobserved) };
    let recovered = storage.recover.send(recover).await.expect("it lives").expect("it opens");
    (storage, told, recovered)
}

fn end(mut storage: Storage) {
    let thread = storage.take_thread().expect("it has one");
    drop(storage);
    thread.end();
}
