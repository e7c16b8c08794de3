//! The permanent loss of a quorum, and backups: the operator's options, and the reports
//! of the commands.

use crate::support::{BINARY, PATIENCE, Running, cluster, laid_out, laid_out_with, published, raw, run};
use quorate::{NodeId, storage::snapshots::Backup};
use quorate_kv::{
    client::ReadMode,
    load::{Ledger, LoadOptions, WriteOutcome, Writers},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};

const ON_DEMAND: &str = "[snapshot]\nevery_entries = 1000000\nkeep_entries = 10\n";
const STEADY: LoadOptions = LoadOptions { writers: 2, rest: Duration::from_millis(2), value_bytes: 100 };

#[tokio::test(flavor = "multi_thread")]
async fn data_of_a_survivor_become_a_cluster_of_one_that_old_members_can_not_join() {
    let mut old = started("lost", 3, ON_DEMAND).await;
    let ledger = Ledger::new();
    let writers = Writers::start(&old, &ledger, STEADY).expect("writers");
    reaches(&ledger, 100).await;
    let (leader, followers) = old.roles().await;
    let survivor = followers[0];
    // An early snapshot, so that the log after it matters.
    let file = old.path("backup");
    let said = run(&["backup", "--out", &file, "--endpoint", &old.endpoint(survivor)]).await.succeeded();
    assert!(said.contains(&format!("of cluster lost, from node {survivor}")), "{said}");
    reaches(&ledger, ledger.acknowledged() + 100).await;
    writers.stop().await;
    old.converge(PATIENCE).await.expect("level");
    old.kill_all().await;
    for id in [leader, followers[1]] {
        fs::remove_dir_all(old.layout().data_dir(id)).expect("it is gone for good");
    }

    let mut new = laid_out("revived", 1);
    let (from, into) = (shown(&old.layout().data_dir(survivor)), shown(&new.layout().data_dir(NodeId(1))));
    let (gone, addr) = (shown(&old.layout().data_dir(leader)), raft_of(&new, NodeId(1)));
    let asked = ["recover", "--from", &from, "--from", &gone, "--into", &into, "--cluster", "revived", "--node", "1"];
    let asked = [&asked[..], &["--addr", &addr]].concat();
    let before = contents(Path::new(&from));
    let ran = run(&asked).await;
    for said in
        ["WHAT MAY BE LOST", "WHAT MAY COME BACK", &*format!("these are not listed above: {}", listed(&old, survivor))]
    {
        assert!(ran.out.contains(said), "{said}: {}", ran.out);
    }
    assert!(ran.out.contains(&format!("{gone} cannot be used")), "{}", ran.out);
    assert!(ran.error_line().contains("nothing was changed"));
    assert!(!Path::new(&into).exists());

    let said = run(&[&asked[..], &["--yes", "--json"]].concat()).await.succeeded();
    let json: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(json["plan"]["chosen"], from);
    assert_eq!(json["plan"]["missing"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["plan"]["has_quorum"], false);
    assert!(json["plan"]["snapshot"]["index"].as_u64() < json["plan"]["kept"]["index"].as_u64(), "{json}");
    // The generation and the configuration follow.
    assert_eq!(json["made"]["last"]["index"].as_u64(), json["plan"]["kept"]["index"].as_u64().map(|kept| kept + 2));
    assert!(contents(Path::new(&from)) == before, "the old directory is as it was");
    assert!(run(&[&asked[..], &["--yes"]].concat()).await.error_line().contains("not empty"));

    new.start_all().await.expect("it starts");
    let status = new.leader(PATIENCE).await.expect("it leads itself");
    assert_eq!(status.voters, [NodeId(1)]);
    has_acknowledged(&new, &ledger).await;
    new.client(&[NodeId(1)]).expect("client").put("after", "it").await.expect("it takes writes");
    // A restart and a new snapshot work as usual.
    run(&["snapshot", "--endpoint", &new.endpoint(NodeId(1))]).await.succeeded();
    new.kill(NodeId(1)).await.expect("killed");
    new.start_all().await.expect("it starts again");
    new.leader(PATIENCE).await.expect("it leads itself");
    has_acknowledged(&new, &ledger).await;

    // An old member that believes the others to be at the new node's address.
    let config = old.layout().config_file(survivor);
    let mut text = fs::read_to_string(&config).expect("a configuration");
    // One of the others is replaced by the new node; the third is gone. The new node may have got
    // the port of the missing one.
    if !text.contains(&addr) {
        text = text.replace(&raft_of(&old, leader), &addr);
    }
    fs::write(&config, text).expect("written");
    let term = new.status(NodeId(1)).await.expect("status").term;
    old.start_node(survivor).await.expect("it starts on its own data");
    let url = old.endpoint(survivor);
    let tried = |page: &str| {
        let failed = page.lines().filter(|line| line.starts_with("quorate_net_connections_total{"));
        failed.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect::<Vec<_>>()
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let attempts = loop {
        let attempts = tried(raw(&url, "GET /metrics", "", b"").await.text());
        let refused = attempts.iter().filter(|line| line.contains("result=\"refused_"));
        if refused.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() >= 3.0 {
            break attempts;
        }
        assert!(tokio::time::Instant::now() < deadline, "it tries to connect: {attempts:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let is = |result: &str| attempts.iter().any(|line| line.contains(&format!("result=\"{result}")));
    let has_none = !is("connected") && !is("accepted");
    assert!(is("refused_") && has_none, "its connections are refused, and there are none: {attempts:?}");
    assert_eq!(old.status(survivor).await.expect("status").leader_id, None);
    let status = new.status(NodeId(1)).await.expect("status");
    assert_eq!((&*status.role, status.term), ("leader", term), "the new cluster is not disturbed");
    assert!(run(&asked).await.error_line().contains("a node runs on"));
    old.kill_all().await;

    // The old member's directory, with the new cluster's certificates and configuration.
    let config = shown(&new.layout().config_file(NodeId(1)));
    new.kill_all().await;
    let refused = run(&["serve", "--config", &config, "--data-dir", &from]).await;
    let last = refused.err.lines().last().unwrap_or_default();
    assert!(
        refused.code != Some(0) && last.contains("of cluster \"lost\", not to member 1 of cluster \"revived\""),
        "{last}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_taken_while_clients_write_has_what_was_acknowledged_and_is_restored() {
    let old = started("saved", 3, ON_DEMAND).await;
    let ledger = Ledger::new();
    let writers = Writers::start(&old, &ledger, STEADY).expect("writers");
    let mut before = Vec::new();
    for (number, id) in (0..6).zip(old.ids().into_iter().cycle()) {
        reaches(&ledger, ledger.acknowledged() + 20).await;
        before = ledger.writes();
        let file = old.path(&format!("{number}.backup"));
        let said = run(&["backup", "--json", "--out", &file, "--endpoint", &old.endpoint(id)]).await.succeeded();
        let json: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(json["bytes"].as_u64(), Some(fs::metadata(&file).expect("a file").len()));
    }
    writers.stop().await;
    assert!(run(&["backup", "--out", &old.path("5.backup")]).await.error_line().contains("not overwritten"));
    let (_, followers) = old.roles().await;
    // A further backup of a known state, with entries after it.
    let level = old.converge(PATIENCE).await.expect("level")[0].clone();
    run(&["backup", "--out", &old.path("known"), "--endpoint", &old.endpoint(followers[0])]).await.succeeded();
    old.client(&old.ids()).expect("client").put("behind", "the backup").await.expect("written");

    let (hash, index) = (level.state_hash, level.applied_index);
    for (name, file) in [("known", "known"), ("live", "5.backup")] {
        let mut new = laid_out(name, 1);
        let (into, addr) = (shown(&new.layout().data_dir(NodeId(1))), raft_of(&new, NodeId(1)));
        let file = old.path(file);
        let asked = ["restore", "--from", &file, "--into", &into, "--cluster", name, "--node", "1", "--addr", &addr];
        let said = run(&asked).await.succeeded();
        assert!(said.contains("is complete") && said.contains("the only voter"), "{said}");
        new.start_all().await.expect("it starts");
        let status = new.leader(PATIENCE).await.expect("it leads itself");
        assert_eq!(status.voters, [NodeId(1)]);
        if name == "known" {
            assert_eq!((status.state_hash, status.snapshot_index), (hash.clone(), index));
            let client = &mut new.client(&[NodeId(1)]).expect("client");
            assert_eq!(client.get("behind", ReadMode::Linearizable).await.expect("read").value, None);
            has_acknowledged(&new, &ledger).await;
        } else {
            let acknowledged = before.iter().filter(|write| write.outcome == WriteOutcome::Acknowledged);
            has(&new, acknowledged.map(|write| (&*write.key, &*write.value))).await;
        }
        new.client(&[NodeId(1)]).expect("client").put("after", "it").await.expect("it takes writes");
        assert!(run(&asked).await.error_line().contains("not empty"));
        let same = ["restore", "--from", &file, "--into", &new.path("x"), "--cluster", "saved", "--node", "1"];
        let same = run(&[&same[..], &["--addr", &addr]].concat()).await;
        assert!(same.error_line().contains("choose another name"));
    }

    let damaged = old.path("damaged");
    let whole = fs::read(old.path("known")).expect("a file");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bytes in [&flipped[..], &whole[..whole.len() - 1], &whole[..4096], &[], b"no backup at all"] {
        fs::write(&damaged, bytes).expect("written");
        let into = old.path("never");
        let asked = ["restore", "--from", &damaged, "--into", &into, "--cluster", "never", "--node", "1"];
        let line = run(&[&asked[..], &["--addr", "127.0.0.1:7001"]].concat()).await.error_line();
        assert!(line.contains("is damaged at byte") && line.contains("use another backup"), "{line}");
        assert!(!Path::new(&into).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_restored_on_every_member_makes_clusters_that_refuse_each_other_by_name() {
    let old = started("origin", 3, ON_DEMAND).await;
    let mut client = old.client(&old.ids()).expect("client");
    client.put("kept", "in the backup").await.expect("written");
    let ids: BTreeMap<_, _> = statuses(&old).await;
    let first = ids[&NodeId(1)].clone().expect("a cluster has an id");
    assert!(ids.values().all(|id| id.as_ref() == Some(&first)), "and one only: {ids:?}");
    run(&["backup", "--out", &old.path("backup"), "--endpoint", &old.endpoint(NodeId(1))]).await.succeeded();

    let mut new = laid_out("twice", 3);
    let mut made = Vec::new();
    for id in new.ids() {
        let (file, into, addr) = (old.path("backup"), shown(&new.layout().data_dir(id)), raft_of(&new, id));
        let asked = ["restore", "--from", &file, "--into", &into, "--cluster", "twice", "--addr", &addr, "--json"];
        let said = run(&[&asked[..], &["--node", &id.to_string()]].concat()).await.succeeded();
        let json: Value = serde_json::from_str(&said).expect("JSON");
        made.push(json["cluster_id"].as_str().expect("an id").to_owned());
    }
    made.push(first);
    assert!((1..made.len()).all(|nth| !made[..nth].contains(&made[nth])), "each restore makes a new id: {made:?}");

    new.start_all().await.expect("they start");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for id in new.ids() {
        let url = new.endpoint(id);
        // Each node reports it, in its log and in its metrics.
        let is_refused = |page: &str| {
            let refused = page.lines().filter(|line| line.contains("result=\"refused_identity\""));
            refused.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() >= 1.0
        };
        while !is_refused(raw(&url, "GET /metrics", "", b"").await.text()) {
            assert!(tokio::time::Instant::now() < deadline, "node {id} refuses the others");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let status = new.status(id).await.expect("status");
        assert_eq!((status.voters, status.cluster_id.as_ref()), (vec![id], made.get(id.0 as usize - 1)));
        let log = fs::read_to_string(new.layout().log_file(id)).expect("a log");
        let line = log.lines().find(|line| line.contains("two clusters are named \"twice\"")).unwrap_or_default();
        let named = made.iter().filter(|id| line.contains(&**id)).count();
        assert!(named == 2 && line.contains("keep one"), "both ids and the remedy: {line:?} in {log}");
        assert!(log.contains("names this node as the only voter"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_with_a_torn_write_names_the_command_that_lets_it_start_again() {
    let mut alone = started("torn", 1, ON_DEMAND).await;
    let (id, config) = (NodeId(1), shown(&alone.layout().config_file(NodeId(1))));
    let mut client = alone.client(&[id]).expect("client");
    client.put("before", "acknowledged").await.expect("written");
    let torn = client.put("torn", "x".repeat(2000)).await.expect("written");
    let last = alone.status(id).await.expect("status");
    assert_eq!(torn.index, last.last_log_index, "the torn write is the last one");
    alone.kill(id).await.expect("killed");
    let entry = format!("{}@{}", last.last_log_index, last.term);
    let asked = ["discard-unproven", "--config", &config];
    assert!(run(&asked).await.succeeded().contains("nothing to discard"));
    tear(&newest_segment(&alone.layout().data_dir(id)), last.last_log_index.0);

    let refused = run(&["serve", "--config", &config]).await;
    let said = refused.err.lines().last().unwrap_or_default();
    assert!(refused.code == Some(1));
    assert!(said.contains(&entry) && said.contains(&asked.join(" ")) && said.contains("--yes"), "{said}");
    let ran = run(&asked).await;
    assert!(ran.out.contains(&entry), "{}", ran.out);
    assert!(ran.error_line().contains("nothing was changed"));
    let said = run(&[&asked[..], &["--yes", "--json"]].concat()).await.succeeded();
    let json: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&json["in_doubt"][0]["index"], &json["discarded"]), (&last.last_log_index.0.into(), &true.into()));

    alone.start_all().await.expect("it starts");
    alone.leader(PATIENCE).await.expect("it leads itself");
    let mut client = alone.client(&[id]).expect("client");
    let got = client.get("before", ReadMode::Linearizable).await.expect("read").value;
    assert_eq!(got, Some("acknowledged".to_owned().into()));
    assert_eq!(client.get("torn", ReadMode::Linearizable).await.expect("read").value, None);
    assert!(run(&asked).await.error_line().contains("stop that first"), "a node runs on it");
}

/// Leaves the remains of the last entry, alone in its group, after a power cut: its slot, and the
/// beginning of its record. Removes its slot in the table and the proofs, which are written after the
/// group was synced. See `FORMAT.md`.
fn tear(segment: &Path, last: u64) {
    let mut bytes = fs::read(segment).expect("a segment");
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (first, table) = (u64_at(32), u64_at(56) as usize);
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("a group") + 1;
    let slot = used.next_multiple_of(8) - 40;
    assert_eq!(u64_at(slot + 16), last, "the slot of the entry");
    let record = u32::from_le_bytes(bytes[slot + 4..slot + 8].try_into().expect("four bytes")) as usize;
    let in_table = table + (last - first) as usize * 40;
    bytes[in_table..in_table + 80].fill(0);
    bytes[record + 600..record + 2200].fill(0);
    fs::write(segment, bytes).expect("written");
}

/// The cluster's id as reported by each node, once all know it.
async fn statuses(cluster: &Running) -> BTreeMap<NodeId, Option<String>> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut ids = BTreeMap::new();
        for id in cluster.ids() {
            ids.insert(id, cluster.status(id).await.expect("status").cluster_id);
        }
        if ids.values().all(Option::is_some) {
            return ids;
        }
        assert!(tokio::time::Instant::now() < deadline, "every node knows the cluster's id: {ids:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_over_http_are_whole_files_and_few_at_once() {
    const VALUES: usize = 24;
    let alone = started("alone", 1, ON_DEMAND).await;
    let id = alone.ids()[0];
    let (url, mut client) = (alone.endpoint(id), alone.client(&[id]).expect("client"));
    for number in 0..VALUES {
        client.put(&format!("k{number}"), vec![7; 1 << 20]).await.expect("written");
    }
    let applied = alone.status(id).await.expect("status").applied_index;
    let answer = raw(&url, "GET /v1/backup", "", b"").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains(&format!("quorate-index: {applied}\r\n")), "{}", answer.head);
    assert!(answer.head.contains(&format!("content-length: {}\r\n", answer.body.len())), "{}", answer.head);
    let file = alone.path("backup");
    fs::write(&file, &answer.body).expect("written");
    let backup = Backup::open(&file).expect("it is whole");
    assert_eq!((backup.cluster(), backup.snapshot().base.last.index), ("alone", applied));
    let answer = raw(&url, "POST /v1/backup", "content-length: 0\r\n", b"").await;
    assert_eq!((answer.status, &*answer.code()), (405, "method_not_allowed"));

    // Two clients that read nothing: the rest is larger than the socket buffers.
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.expect("connected");
        stream.write_all(b"GET /v1/backup HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        stream.read_exact(&mut [0; 100]).await.expect("it begins");
        idle.push(stream);
    }
    let answer = raw(&url, "GET /v1/backup", "", b"").await;
    assert_eq!((answer.status, &*answer.code()), (503, "overloaded"));
    drop(idle);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while raw(&url, "GET /v1/backup", "", b"").await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "their places are free again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_breaks_off_leaves_nothing_that_passes_for_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = shown(&dir.path().join("backup"));
    for (sent, ends, says) in [
        (&b"half of it"[..], true, "broke off"),
        (&[7; 100], true, "damaged or incomplete"),
        (b"half of it", false, "no data arrived"),
    ] {
        let url = pretender(sent, 100, ends).await;
        let line = run(&["backup", "--out", &out, "--endpoint", &url, "--timeout", "1s"]).await.error_line();
        assert!(line.contains(says), "{line}");
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0, "{line}");
    }
    // Interrupted by a signal.
    let url = pretender(b"half of it", 100, false).await;
    let mut command = Command::new(BINARY);
    command.args(["backup", "--out", &out, "--endpoint", &url]).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().expect("it runs");
    while fs::read_dir(dir.path()).expect("there").count() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let pid = rustix::process::Pid::from_raw(child.id().expect("it runs").try_into().expect("an id")).expect("an id");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("soon").expect("it ends");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted; no backup was saved"));
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 0);
    assert!(
        run(&["backup", "--out", "/nowhere/at/all", "--endpoint", &url]).await.error_line().contains("cannot write")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_can_not_be_recovered_are_refused_in_one_line() {
    let mut old = cluster(3).await;
    let (leader, _) = old.roles().await;
    for key in 0..30 {
        old.client(&[leader]).expect("client").put(&format!("k{key}"), "a value").await.expect("written");
    }
    old.converge(PATIENCE).await.expect("level");
    old.kill_all().await;
    let dirs: Vec<_> = old.ids().into_iter().map(|id| shown(&old.layout().data_dir(id))).collect();
    let into = old.path("new");
    let recover = async |from: &[&str], cluster: &str, more: &[&str]| {
        let from: Vec<_> = from.iter().flat_map(|dir| ["--from", *dir]).collect();
        let target = ["--into", &*into, "--cluster", cluster, "--node", "7", "--addr", "127.0.0.1:7001"];
        run(&[&["recover"], &from[..], &target[..], more].concat()).await
    };
    let said = recover(&[&dirs[0]], "demo", &["--yes"]).await.error_line();
    assert!(said.contains("choose another name"), "{said}");
    let said = recover(&[&dirs[0], &dirs[0]], "new", &["--yes"]).await.error_line();
    assert!(said.contains("given twice"), "{said}");

    // An entry that one disk lost, and another has.
    let segment = newest_segment(Path::new(&dirs[0]));
    let mut bytes = fs::read(&segment).expect("a segment");
    let at = bytes.windows(3).position(|window| window == b"k20").expect("it is there");
    bytes[at] ^= 1;
    fs::write(&segment, bytes).expect("written");
    let said = recover(&[&dirs[0]], "new", &["--yes"]).await.error_line();
    assert!(said.contains("lost entry") && said.contains("--up-to"), "{said}");
    assert!(!Path::new(&into).exists());
    let said = recover(&[&dirs[0], &dirs[1]], "new", &["--yes", "--json"]).await.succeeded();
    let json: Value = serde_json::from_str(&said).expect("JSON");
    let (chosen, healed) = (&json["plan"]["chosen"], json["plan"]["healed"].as_array().expect("a list"));
    assert!(*chosen == *dirs[1] && healed.is_empty() || healed[0]["from"] == *dirs[1], "{json}");
}

/// Answers every request with these bytes of a body that is announced as longer, then closes the
/// connection or keeps it open.
async fn pretender(sent: &'static [u8], announced: usize, closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {announced}\r\n\r\n");
            let _ = stream.write_all(&[head.as_bytes(), sent].concat()).await;
            kept.extend((!closes).then_some(stream));
        }
    });
    url
}

async fn started(name: &str, nodes: u64, sections: &str) -> Running {
    let mut cluster = laid_out_with(name, nodes, sections);
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    // A test that cares which entry is the last one must not meet the nodes' own.
    published(&cluster).await;
    cluster
}

async fn reaches(ledger: &Ledger, count: usize) {
    tokio::time::timeout(PATIENCE, ledger.reaches(count)).await.expect("acknowledgements");
}

async fn has_acknowledged(cluster: &Running, ledger: &Ledger) {
    let writes = ledger.writes();
    let acknowledged = writes.iter().filter(|write| write.outcome == WriteOutcome::Acknowledged);
    has(cluster, acknowledged.map(|write| (&*write.key, &*write.value))).await;
}

async fn has(cluster: &Running, pairs: impl Iterator<Item = (&str, &str)>) {
    let mut client = cluster.client(&cluster.running()).expect("client");
    let mut count = 0;
    for (key, value) in pairs {
        let got = client.get(key, ReadMode::Linearizable).await.expect("read");
        assert_eq!(got.value, Some(value.to_owned().into()), "{key}");
        count += 1;
    }
    assert!(count >= 100, "there is something to lose: {count}");
}

/// The address at which a node's peers dial it, from its configuration.
fn raft_of(cluster: &Running, id: NodeId) -> String {
    let text = fs::read_to_string(cluster.layout().config_file(id)).expect("a configuration");
    let table: toml::Table = text.parse().expect("TOML");
    table["raft"].as_str().expect("an address").to_owned()
}

/// The ids of all nodes except one, as printed for people.
fn listed(cluster: &Running, but: NodeId) -> String {
    let others = cluster.ids().into_iter().filter(|id| *id != but);
    others.map(|id| id.to_string()).collect::<Vec<_>>().join(", ")
}

fn newest_segment(dir: &Path) -> PathBuf {
    let files = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let segments = files.filter(|path| path.extension().is_some_and(|extension| extension == "segment"));
    // One that was named ahead has no header yet.
    let is_used = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"QUORSEGM"));
    segments.filter(is_used).max().expect("a segment")
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    files.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
