//! Members whose data directory was deleted or replaced by an old copy after they
//! had acknowledged entries.

use crate::support::{PATIENCE, Running, cluster, cluster_with_joiners, laid_out_with, raw, run};
use quorate::NodeId;
use quorate_kv::client::ReadMode;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn two_emptied_members_elect_no_one_and_the_survivor_says_that_it_may_have_the_last_good_copy() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let (survivor, emptied) = (followers[0], [leader, followers[1]]);
    written(&cluster, 20, "before").await;
    for member in cluster.ids() {
        until_known(&cluster, survivor, member, 20).await;
    }
    cluster.kill_all().await;
    for id in emptied {
        fs::remove_dir_all(cluster.layout().data_dir(id)).expect("removed");
    }
    cluster.start_node(survivor).await.expect("it starts");
    for id in emptied {
        // The node is told before or after it serves.
        if cluster.start_node(id).await.is_ok() {
            assert!(!cluster.ended(id, PATIENCE).await.expect("it ends by itself").success());
        }
    }
    for id in emptied {
        let said = log_of(&cluster, id);
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains("data directory is empty") && last.contains("remove this member"), "{last}");
        let of_this_life = said.rsplit("starts with an empty log").next().unwrap_or_default();
        let has_leader = ["leader_elected", "leader_followed"].iter().any(|kind| of_this_life.contains(kind));
        assert!(said.contains("leader_") && !has_leader, "{said}");
    }
    let said = log_of(&cluster, survivor);
    assert!(emptied.iter().all(|id| said.contains(&format!("node {id} lost data"))), "{said}");
    assert!(said.contains("this may be the last good copy; keep this data directory"), "{said}");
    let mut client = cluster.client(&[survivor]).expect("client");
    client.get("before-0", ReadMode::Linearizable).await.expect_err("nothing confirms what was acknowledged");
    assert_eq!(cluster.running(), [survivor]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_that_was_away_while_two_emptied_members_began_anew_keeps_its_log_and_joins_no_other_history() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let (survivor, emptied) = (followers[0], [leader, followers[1]]);
    written(&cluster, 20, "before").await;
    until_known(&cluster, survivor, survivor, 20).await;
    cluster.kill_all().await;
    let dir = cluster.layout().data_dir(survivor);
    let holds = |key: &str| files_in(&dir).iter().any(|path| contains(path, key));
    assert!(holds("before-19"));
    for id in emptied {
        fs::remove_dir_all(cluster.layout().data_dir(id)).expect("removed");
        cluster.start_node(id).await.expect("without the survivor it looks like a first start");
    }
    let mut client = cluster.client(&emptied).expect("client");
    for number in 0..40 {
        client.put(&format!("after-{number}"), "v").await.expect("written");
    }
    // The two now form another cluster, with another id. The survivor serves no data
    // of either history.
    cluster.start_node(survivor).await.expect("it starts");
    let deadline = Instant::now() + PATIENCE;
    while !log_of(&cluster, survivor).contains("may be the last good copy") {
        assert!(Instant::now() < deadline, "{}", log_of(&cluster, survivor));
        tokio::task::yield_now().await;
    }
    let mut client = cluster.client(&[survivor]).expect("client");
    client.get("before-0", ReadMode::Linearizable).await.expect_err("nothing confirms what was acknowledged");
    assert!(holds("before-19") && !holds("after-0"), "what it held is still there, and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_started_from_an_old_copy_of_its_directory_stops_and_both_sides_say_so() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let victim = followers[0];
    written(&cluster, 10, "yesterday").await;
    assert!(cluster.stop(victim).await.expect("stopped").success());
    let (dir, copy) = (cluster.layout().data_dir(victim), PathBuf::from(cluster.path("yesterday")));
    copy_dir(&dir, &copy);
    cluster.start_node(victim).await.expect("started");
    written(&cluster, 10, "today").await;
    cluster.kill(victim).await.expect("killed");
    fs::remove_dir_all(&dir).expect("removed");
    copy_dir(&copy, &dir);
    if cluster.start_node(victim).await.is_ok() {
        assert!(!cluster.ended(victim, PATIENCE).await.expect("it ends by itself").success());
    }
    let said = log_of(&cluster, victim);
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("the data directory is an old copy") && last.contains("remove this member"), "{last}");
    // At least one of the others told the member, which then ended.
    let others = [leader, followers[1]];
    let mut told = others.iter().map(|id| log_of(&cluster, *id));
    assert!(told.any(|log| log.contains(&format!("node {victim} lost data"))), "no other member names it");
    let mut counted = false;
    for id in others {
        let metrics = raw(&cluster.endpoint(id), "GET /metrics", "", b"").await;
        counted |= metrics.text().lines().any(|line| {
            line.starts_with("quorate_data_losses_total")
                && line.contains(&format!("peer=\"{victim}\""))
                && !line.ends_with(" 0")
        });
    }
    assert!(counted, "no other member counts it");
    written(&cluster, 1, "afterwards").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_a_past_is_refused_to_an_empty_directory_also_if_it_was_removed_and_waits_to_be_added() {
    let mut cluster = cluster_with_joiners(3, 1).await;
    let joins = cluster.joiners()[0];
    let address = cluster.layout().address(joins);
    let endpoint = cluster.endpoint(NodeId(1));
    cluster.start_node(joins).await.expect("it waits to be added");
    run(&["member", "add", "4", &address, "--endpoint", &endpoint]).await.succeeded();
    run(&["member", "promote", "4", "--endpoint", &endpoint]).await.succeeded();
    written(&cluster, 5, "k").await;
    for member in cluster.ids() {
        until_known(&cluster, member, joins, 0).await;
    }
    // A member whose directory is emptied.
    cluster.kill(joins).await.expect("killed");
    emptied_ends(&mut cluster, joins).await;
    // The same id, removed, and added again under another leader.
    run(&["member", "remove", "4", "--endpoint", &endpoint]).await.succeeded();
    let (_, followers) = cluster.roles().await;
    run(&["transfer", "--to", &followers[0].to_string(), "--endpoint", &endpoint]).await.succeeded();
    run(&["member", "add", "4", &address, "--endpoint", &endpoint]).await.succeeded();
    emptied_ends(&mut cluster, joins).await;
    written(&cluster, 1, "afterwards").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_snapshots_are_all_damaged_say_that_the_state_is_lost_and_a_backup_is_needed() {
    let mut cluster =
        laid_out_with("damaged", 3, "[snapshot]\nkeep_entries = 1\n\n[storage]\nsegment_bytes = 131072\n");
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    let mut client = cluster.client(&cluster.ids()).expect("client");
    for number in 0..30 {
        client.put(&format!("k{number}"), vec![b'v'; 20_000]).await.expect("written");
    }
    cluster.converge(PATIENCE).await.expect("level");
    for id in cluster.ids() {
        run(&["snapshot", "--endpoint", &cluster.endpoint(id)]).await.succeeded();
    }
    cluster.kill_all().await;
    for id in cluster.ids() {
        let snapshots = files_in(&cluster.layout().data_dir(id))
            .into_iter()
            .filter(|path| path.extension() == Some("snapshot".as_ref()));
        for path in snapshots {
            let mut bytes = fs::read(&path).expect("readable");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::write(&path, bytes).expect("written");
        }
    }
    for id in cluster.ids() {
        cluster.start_node(id).await.expect("one that lost its state waits for another that has it");
    }
    for id in cluster.ids() {
        let deadline = Instant::now() + PATIENCE;
        while !log_of(&cluster, id).contains("if every member says so, no copy is left") {
            assert!(Instant::now() < deadline, "{}", log_of(&cluster, id));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let said = log_of(&cluster, id);
        let at_start =
            said.lines().find(|line| line.contains("is lost here, and the log begins after it")).expect("it says so");
        assert!(at_start.contains("ERROR") && at_start.contains(".snapshot is damaged at byte"), "{at_start}");
        assert!(at_start.contains("quorate-kv restore"), "{at_start}");
        let ready = raw(&cluster.endpoint(id), "GET /readyz", "", b"").await;
        assert_eq!((ready.status, &*ready.code()), (503, "data_lost"), "{}", ready.text());
    }
}

/// Starts a node on an empty directory; it must end with the reason.
async fn emptied_ends(cluster: &mut Running, id: NodeId) {
    fs::remove_dir_all(cluster.layout().data_dir(id)).expect("removed");
    if cluster.start_node(id).await.is_ok() {
        assert!(!cluster.ended(id, PATIENCE).await.expect("it ends by itself").success());
    }
    let said = log_of(cluster, id);
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("data directory is empty") && last.contains("remove this member"), "{last}");
}

/// Writes `count` keys, and waits until all running nodes have them.
async fn written(cluster: &Running, count: usize, prefix: &str) {
    let mut client = cluster.client(&cluster.running()).expect("client");
    for number in 0..count {
        client.put(&format!("{prefix}-{number}"), "v").await.expect("written");
    }
    cluster.converge(PATIENCE).await.expect("level");
}

/// Waits until a node has stored on its disk that a member held at least this many entries.
async fn until_known(cluster: &Running, node: NodeId, member: NodeId, at_least: u64) {
    let (path, deadline) = (cluster.layout().data_dir(node).join("known-members"), Instant::now() + PATIENCE);
    loop {
        let bytes = fs::read(&path).unwrap_or_default();
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let members = bytes.get(512..).unwrap_or_default().chunks_exact(16);
        let mut held = members.map(|entry| (number(&entry[..8]), number(&entry[8..])));
        if held.any(|(id, held)| id == member.0 && held >= at_least) {
            return;
        }
        assert!(Instant::now() < deadline, "{node} never kept that {member} held {at_least} entries");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn log_of(cluster: &Running, id: NodeId) -> String {
    fs::read_to_string(cluster.layout().log_file(id)).expect("a log")
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => {
                fs::copy(entry.path(), to).expect("copied");
            }
        }
    }
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

fn contains(path: &Path, text: &str) -> bool {
    fs::read(path).expect("readable").windows(text.len()).any(|window| window == text.as_bytes())
}
