//! Disks that fail, are full, lose bytes, or are replaced by empty ones.

use crate::{
    strace::Strace,
    support::{PATIENCE, Running, cluster, laid_out, laid_out_with, published, raw},
};
use quorate::NodeId;
use quorate_kv::{
    client::{ClientError, ReadMode},
    load::{Ledger, LoadOptions, Verdict, Writers, check},
};
use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const SLOW: LoadOptions = LoadOptions { writers: 2, rest: Duration::from_millis(3), value_bytes: 200 };

/// The kernel reports a failed sync once; the result of the next one proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fdatasync_ends_the_process_and_loses_nothing_acknowledged() {
    let mut cluster = cluster(3).await;
    let ledger = Ledger::new();
    let writers = Writers::start(&cluster, &ledger, SLOW).expect("writers");
    for (round, (of_leader, when)) in [(true, 1), (false, 1), (true, 2), (false, 7), (true, 23)].into_iter().enumerate()
    {
        reaches(&ledger, 50).await;
        let (leader, followers) = cluster.roles().await;
        let victim = if of_leader { leader } else { followers[0] };
        let notes = cluster.path(&format!("strace-{round}"));
        let pid = cluster.pid(victim).expect("it runs");
        let Some(strace) = Strace::fail_fdatasync(pid, when, Path::new(&notes)).await else { return };
        let status = cluster.ended(victim, PATIENCE).await.expect("it ends by itself");
        drop(strace);
        assert!(!status.success(), "{status}");
        let log = fs::read_to_string(cluster.layout().log_file(victim)).expect("a log");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains("storage failed") && last.contains("sync"), "{last}");
        // The others continue, and the disk works again.
        reaches(&ledger, 50).await;
        cluster.start_node(victim).await.expect("started");
    }
    reaches(&ledger, 50).await;
    writers.stop().await;
    nothing_is_lost(&cluster, &ledger).await;
}

/// A restart cannot repair a disk: if all nodes share one, it would take down all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_hangs_is_not_ready_and_alive() {
    let cluster = cluster(3).await;
    let (_, followers) = cluster.roles().await;
    let (victim, notes) = (followers[0], cluster.path("strace"));
    let pid = cluster.pid(victim).expect("it runs");
    let Some(strace) = Strace::delay_fdatasync(pid, Duration::from_secs(20), Path::new(&notes)).await else { return };
    let url = cluster.endpoint(victim);
    let mut client = cluster.client(&cluster.ids()).expect("a client");
    let deadline = Instant::now() + PATIENCE * 2;
    loop {
        client.put("k", "v").await.expect("the others go on");
        assert_eq!(raw(&url, "GET /livez", "", b"").await.status, 200);
        let ready = raw(&url, "GET /readyz", "", b"").await;
        if ready.status == 503 && ready.code() == "stuck" {
            assert!(ready.text().contains("waits for the disk"), "{}", ready.text());
            break;
        }
        assert!(Instant::now() < deadline, "{} {}", ready.status, ready.text());
    }
    drop(strace);
    while raw(&url, "GET /readyz", "", b"").await.status != 200 {
        assert!(Instant::now() < deadline + PATIENCE, "the disk is well again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_costs_one_fdatasync() {
    const WRITES: usize = 100;
    let mut alone = laid_out("alone", 1);
    alone.start_all().await.expect("started");
    let id = alone.leader(PATIENCE).await.expect("a leader").node_id;
    let mut client = alone.client(&[id]).expect("client");
    client.put("first", "v").await.expect("written");
    published(&alone).await;
    let notes = alone.path("strace");
    let Some(strace) = Strace::watch_syncs(alone.pid(id).expect("it runs"), Path::new(&notes)).await else { return };
    for number in 0..WRITES {
        client.put(&format!("k{number}"), "v").await.expect("written");
    }
    let counts = strace.counts().await;
    let busiest = counts.values().max().copied().unwrap_or(0);
    let others = counts.values().sum::<usize>() - busiest;
    println!("{WRITES} writes, one after the other: {counts:?} calls a thread");
    assert_eq!(busiest, WRITES, "one write, one batch, one sync");
    assert!(others <= 2, "next to nothing else is synced: {counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_one_on_a_full_disk_refuses_writes_until_there_is_space() {
    let mut cluster = laid_out_with("full", 1, SMALL);
    let id = cluster.ids()[0];
    let Some(disk) = SmallDisk::mount(&cluster.layout().data_dir(id)) else { return };
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    let (mut client, mut written) = (cluster.client(&[id]).expect("client"), Vec::new());
    for number in 0..50 {
        client.put(&format!("before-{number}"), VALUE).await.expect("written");
        written.push(format!("before-{number}"));
    }
    disk.fill();
    let (mut refused, mut unknown) = (false, false);
    for number in 0..20_000 {
        let key = format!("during-{number}");
        match client.put(&key, VALUE).await {
            Ok(_) => written.push(key),
            Err(ClientError::Refused { code, .. }) if code == "storage_full" => {
                refused = true;
                break;
            }
            // A write that was on its way to the disk when the node noticed, and stopped leading.
            Err(ClientError::OutcomeUnknown { .. }) if !unknown => unknown = true,
            Err(error) => panic!("neither written nor refused for the full disk: {error}"),
        }
    }
    assert!(refused, "a full disk is full in the end");
    let answer = raw(&cluster.endpoint(id), "PUT /v1/kv/k", "content-length: 1\r\n", b"v").await;
    assert_eq!((answer.status, &*answer.code()), (503, "storage_full"));
    assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    assert!(cluster.status(id).await.expect("it answers").storage_full);
    let got = client.get("before-0", ReadMode::Local).await.expect("reads go on");
    assert_eq!(got.value.as_deref(), Some(VALUE.as_bytes()));

    let pid = cluster.pid(id).expect("it runs");
    disk.free();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while let Err(error) = client.put("after", VALUE).await {
        assert!(matches!(&error, ClientError::Refused { .. }), "{error}");
        assert!(tokio::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    written.push("after".to_owned());
    assert_eq!(cluster.pid(id).expect("it runs"), pid, "it was not restarted");
    assert!(!cluster.status(id).await.expect("it answers").storage_full);
    cluster.kill(id).await.expect("killed");
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    let mut client = cluster.client(&[id]).expect("client");
    for key in written {
        let got = client.get(&key, ReadMode::Linearizable).await.expect("read");
        assert_eq!(got.value.as_deref(), Some(VALUE.as_bytes()), "{key}");
    }
    assert_eq!(client.get("k", ReadMode::Linearizable).await.expect("read").value, None, "refused is not written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_goes_on_while_the_disk_of_its_leader_or_a_follower_is_full() {
    let mut cluster = laid_out_with("full", 3, SMALL);
    let mut disks = Vec::new();
    for id in cluster.ids() {
        let Some(disk) = SmallDisk::mount(&cluster.layout().data_dir(id)) else { return };
        disks.push((id, disk));
    }
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    let ledger = Ledger::new();
    // Two segments hold 540 of these, which a busy machine writes in a minute. 5,400 writes fill
    // the disk by themselves, within 54 s at the earliest: the log is not cut here.
    let pace = LoadOptions { rest: Duration::from_millis(20), writers: 2, value_bytes: 400 };
    let writers = Writers::start(&cluster, &ledger, pace).expect("writers");
    for of_leader in [true, false] {
        reaches(&ledger, 50).await;
        let (leader, followers) = cluster.roles().await;
        let victim = if of_leader { leader } else { followers[0] };
        let (_, disk) = disks.iter().find(|(id, _)| *id == victim).expect("each has one");
        disk.fill();
        until_full(&cluster, victim, true).await;
        let led = cluster
            .eventually(PATIENCE, "another leader", |statuses| {
                statuses.iter().any(|status| status.role == "leader" && status.node_id != victim).then_some(())
            })
            .await;
        led.expect("a full node does not lead");
        reaches(&ledger, 100).await;
        assert!(cluster.status(victim).await.expect("it answers").storage_full, "it is still full");
        disk.free();
        until_full(&cluster, victim, false).await;
        reaches(&ledger, 50).await;
    }
    writers.stop().await;
    let verdict = nothing_is_lost(&cluster, &ledger).await;
    println!("{} writes acknowledged, {} refused", verdict.acknowledged, verdict.refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_byte_comes_back_from_the_others() {
    let mut cluster = cluster(3).await;
    let (_, followers) = cluster.roles().await;
    let victim = followers[0];
    let mut client = cluster.client(&cluster.ids()).expect("client");
    for number in 0..60 {
        client.put(&format!("k{number}"), format!("the value of number {number:04}")).await.expect("written");
    }
    cluster.converge(PATIENCE).await.expect("level");
    assert!(cluster.stop(victim).await.expect("stopped").success());
    // An entry in the middle, and the last one.
    for damaged in ["the value of number 0030", "the value of number 0059"] {
        let places = flip(&cluster.layout().data_dir(victim), damaged.as_bytes());
        assert!(places > 0, "{damaged:?} is on the disk");
    }
    cluster.start_node(victim).await.expect("damage of one node is no reason not to start");
    client.put("after", "v").await.expect("written");
    let statuses = cluster.converge(PATIENCE).await.expect("level");
    assert!(statuses.iter().all(|status| status.state_hash == statuses[0].state_hash), "{statuses:?}");
    let healed = cluster
        .eventually(PATIENCE, "no faulty entries", |statuses| {
            statuses.iter().all(|status| status.faulty_entries == 0).then_some(())
        })
        .await;
    healed.expect("healed without a restart");
    let mut client = cluster.client(&[victim]).expect("client");
    for number in 0..60 {
        let got = client.get(&format!("k{number}"), ReadMode::Local).await.expect("read");
        assert_eq!(got.value, Some(format!("the value of number {number:04}").into()));
    }
    // The repaired entries are on its disk.
    cluster.stop(victim).await.expect("stopped");
    let dir = cluster.layout().data_dir(victim);
    for value in ["the value of number 0030", "the value of number 0059"] {
        assert!(
            files_in(&dir)
                .iter()
                .any(|path| !places_of(&fs::read(path).expect("readable"), value.as_bytes()).is_empty())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_directory_was_emptied_ends_and_names_the_remedy() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let mut client = cluster.client(&[leader]).expect("client");
    for number in 0..20 {
        client.put(&format!("k{number}"), "v").await.expect("written");
    }
    cluster.converge(PATIENCE).await.expect("level");
    let victim = followers[0];
    cluster.stop(victim).await.expect("stopped");
    fs::remove_dir_all(cluster.layout().data_dir(victim)).expect("removed");
    // It serves until another member tells it, or ends even before that.
    if cluster.start_node(victim).await.is_ok() {
        let status = cluster.ended(victim, PATIENCE).await.expect("it ends by itself");
        assert!(!status.success(), "{status}");
    }
    let log = fs::read_to_string(cluster.layout().log_file(victim)).expect("a log");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("data directory is empty") && last.contains("remove this member"), "{last}");
    client.put("after", "v").await.expect("the others go on");
}

/// A full disk is noticed after the writes that two segments hold. Each segment takes 1 MiB beside
/// its entries, so twenty fit on the disk.
const SMALL: &str =
    "[snapshot]\nevery_entries = 10000000\nevery_bytes = 1000000000\n\n[storage]\nsegment_bytes = 131072\n";
const VALUE: &str =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

/// A separate file system of 24 MiB in memory.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// `None`, with a message, if mounting is not permitted.
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).expect("made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { at: at.to_owned() });
        }
        eprintln!("skipped: a file system can't be mounted (that takes root)");
        None
    }

    /// Fills the disk completely.
    fn fill(&self) {
        let mut file = fs::File::options().create(true).append(true).open(self.at.join("filler")).expect("opened");
        let mut piece = &[7_u8; 1 << 16][..];
        loop {
            match file.write(piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull && piece.len() > 1 => {
                    piece = &piece[..piece.len() / 2]
                }
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn free(&self) {
        fs::remove_file(self.at.join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a node that is about to be killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
    }
}

async fn until_full(cluster: &Running, id: NodeId, full: bool) {
    let seen = cluster
        .eventually(PATIENCE * 4, "the disk's state to be noticed", |statuses| {
            statuses.iter().any(|status| status.node_id == id && status.storage_full == full).then_some(())
        })
        .await;
    if let Err(late) = seen {
        for id in cluster.ids() {
            println!("node {id}: {:?}", cluster.status(id).await);
        }
        panic!("{late}");
    }
}

/// Waits until this many more writes are acknowledged.
async fn reaches(ledger: &Ledger, more: usize) {
    let count = ledger.acknowledged() + more;
    tokio::time::timeout(PATIENCE, ledger.reaches(count)).await.expect("writes go on");
}

async fn nothing_is_lost(cluster: &Running, ledger: &Ledger) -> Verdict {
    let statuses = cluster.converge(PATIENCE).await.expect("level");
    assert!(statuses.iter().all(|status| status.state_hash == statuses[0].state_hash), "{statuses:?}");
    let verdict = check(cluster, &cluster.ids(), ledger.writes()).await.expect("read");
    assert!(verdict.broken.is_empty(), "{verdict:?}");
    verdict
}

/// Damages each occurrence of these bytes in a directory's files, and returns their number.
fn flip(dir: &Path, bytes: &[u8]) -> usize {
    let mut count = 0;
    for path in files_in(dir) {
        let mut content = fs::read(&path).expect("readable");
        let places = places_of(&content, bytes);
        places.iter().for_each(|at| content[at + 3] ^= 0x40);
        if !places.is_empty() {
            fs::write(&path, content).expect("written");
        }
        count += places.len();
    }
    count
}

fn places_of(content: &[u8], bytes: &[u8]) -> Vec<usize> {
    // Segment files are mostly zeros; searching for the first byte is fast.
    let starts = content.iter().enumerate().filter(|(_, byte)| **byte == bytes[0]);
    starts.map(|(at, _)| at).filter(|at| content[*at..].starts_with(bytes)).collect()
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files
}
