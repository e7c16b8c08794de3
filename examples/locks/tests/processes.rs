//! The lock server as three processes over QUIC, and its command line.

use quorate_host::{Line, WATCHES_MAX, ask};
use quorate_host_testing::processes::{Cluster, PATIENCE, Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

const BINARY: &str = env!("CARGO_BIN_EXE_locks");

#[tokio::test]
async fn a_held_lock_survives_its_leader_and_a_silent_holders_lock_passes_on_with_a_higher_token() {
    let mut cluster = Cluster::prepare(BINARY, 3);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader(1).await;
    let other = leader % 3 + 1;
    let mut resource = Resource::default();

    let alice = granted(&cluster, other, "acquire db alice 600000", "alice").await;
    let silent = granted(&cluster, other, "acquire job silent 3000", "silent").await;
    assert!(resource.accepts(alice, "alice") && resource.accepts(silent, "silent"));
    cluster.ask(other, "acquire job next 600000 wait").await;
    cluster.kill(leader).await;

    let renewed = granted(&cluster, other, &format!("renew db {alice} 600000"), "alice").await;
    assert_eq!(renewed, alice, "the hold is the same one");
    let next = granted(&cluster, other, "acquire job next 600000 wait", "next").await;
    assert!(next > silent);
    assert!(resource.accepts(next, "next") && !resource.accepts(silent, "silent"));
    let late = cluster.until(other, &format!("renew job {silent} 3000"), |_| true).await;
    assert_eq!(late, "not held");

    cluster.start(leader).await;
    for (lock, owner, token) in [("db", "alice", alice), ("job", "next", next)] {
        let expected = format!("held {owner} {token}");
        assert_eq!(cluster.until(leader, &format!("holder {lock}"), |_| true).await, expected);
    }
    for id in 1..=3 {
        cluster.stop(id, if id == 1 { Signal::INT } else { Signal::TERM }).await;
    }
}

#[tokio::test]
async fn a_request_or_a_file_that_makes_no_sense_is_refused() {
    let mut cluster = Cluster::prepare(BINARY, 1);
    cluster.start(1).await;
    let token = granted(&cluster, 1, "acquire db alice 600000", "alice").await;
    assert_eq!(cluster.ask(1, "acquire db bob 1000").await, (Some(1), format!("busy alice {token}")));
    for request in
        ["", "POST / HTTP/1.1", "acquire db bob", "acquire db bob -1", "renew db x 1", "acquire db bob 1 soon"]
    {
        let (code, reply) = cluster.ask(1, request).await;
        assert!(code == Some(2) && !reply.is_empty(), "{request}: {code:?} {reply}");
    }
    let refused = (Some(2), "a request is one line of at most 1024 bytes".to_owned());
    for (name, expected) in [(1_016, (Some(1), "free".to_owned())), (1_017, refused.clone()), (100_000, refused)] {
        assert_eq!(cluster.ask(1, &format!("holder {}", "n".repeat(name))).await, expected, "{name}");
    }
    let mut watch = ask(&cluster.data(1), "watch db").await.expect("it serves");
    let mut event = async || timeout(PATIENCE, watch.next()).await.expect("an event").expect("the node runs");
    assert!(matches!(event().await, Line::Event(text) if text.ends_with(" watching")));
    assert_eq!(cluster.ask(1, &format!("release db {token}")).await, (Some(0), "released".into()));
    assert_eq!(cluster.ask(1, "holder db").await, (Some(1), "free".into()));
    assert!(matches!(event().await, Line::Event(text) if text.ends_with(" freed")));
    cluster.stop(1, Signal::TERM).await;
    assert_eq!(cluster.ask(1, "holder db").await.0, Some(2), "no node serves");

    let good = fs::read_to_string(cluster.dir().join("node1.toml")).expect("a file");
    for (bad, names) in [(format!("colour = 1\n{good}"), "colour"), (good.replacen("id = 1", "id = 7", 1), "7")] {
        fs::write(cluster.dir().join("bad.toml"), bad).expect("written");
        let output = cluster.run(&["--config", "bad.toml"]).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.contains(names), "{error}");
    }
}

#[tokio::test]
async fn other_users_are_kept_out_whatever_the_umask_and_a_socket_that_is_gone_is_no_error() {
    let mut cluster = Cluster::prepare(BINARY, 1);
    let data = cluster.data(1);
    fs::create_dir(&data).expect("created");
    fs::set_permissions(&data, Permissions::from_mode(0o777)).expect("open to all");
    let mut node = Command::new("sh");
    node.args(["-c", "umask 0; exec \"$0\" --config node1.toml", BINARY]).current_dir(cluster.dir());
    cluster.started(1, node).await;
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("socket"))), (0o700, 0o600));
    granted(&cluster, 1, "acquire db alice 600000", "alice").await;
    fs::remove_file(data.join("socket")).expect("removed");
    cluster.stop(1, Signal::TERM).await;
}

#[tokio::test]
async fn one_program_of_the_candidates_runs_and_keeps_its_lease_through_a_lost_leader() {
    let mut cluster = Cluster::prepare(BINARY, 3);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader(1).await;
    let (other, third) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let runs = cluster.dir().join("runs");
    let candidate = |cluster: &Cluster, id: u64, name: &str, then: &str| {
        let script = format!("echo {name} $LOCK_TOKEN >> {}; {then}", runs.display());
        cluster.command(&[&format!("data{id}"), "elect", "job", name, "3000", "sh", "-c", &script])
    };
    // The names and tokens of the programs that ran, once there are so many.
    let ran = async |count: usize| {
        let started = Instant::now();
        loop {
            let text = fs::read_to_string(&runs).unwrap_or_default();
            let parse = |line: &str| {
                let (name, token) = line.split_once(' ').expect("a name and a token");
                (name.to_owned(), token.parse::<u128>().expect("a token"))
            };
            let all: Vec<_> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
            if all.len() >= count {
                return all.into_iter().map(|line| parse(line.trim_end())).collect::<Vec<_>>();
            }
            assert!(started.elapsed() < PATIENCE, "{count} are not elected: {text}");
            sleep(Duration::from_millis(20)).await;
        }
    };
    let mut first = candidate(&cluster, other, "first", "exec sleep 600").spawn().expect("it runs");
    ran(1).await;
    // Which of them waits first is not known.
    let mut second = candidate(&cluster, other, "second", "exit 7").spawn().expect("it runs");
    let mut third = candidate(&cluster, third, "third", "exit 7").spawn().expect("it runs");

    // Two leases long, the leader is dead for a part of it.
    cluster.kill(leader).await;
    sleep(Duration::from_millis(6_000)).await;
    assert_eq!((ran(1).await.len(), first.try_wait().expect("its status")), (1, None), "one hold, one run");

    stop(&mut first).await;
    for program in [&mut second, &mut third] {
        assert_eq!(timeout(PATIENCE, program.wait()).await.expect("it is elected").expect("it ends").code(), Some(7));
    }
    let mut all = ran(3).await;
    assert!(
        all.is_sorted_by(|(_, earlier), (_, later)| earlier < later),
        "{all:?}: the lock is released before it passes"
    );
    all.sort();
    assert!(all.iter().map(|(name, _)| name).eq(["first", "second", "third"]), "{all:?}: each ran once");
    for request in ["elect job x 3000", "elect job x 99 true"] {
        assert_eq!(cluster.ask(other, request).await.0, Some(2), "{request}");
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_long_program_ends_its_hold_with_itself_and_a_restarted_candidate_gets_a_higher_token() {
    let mut cluster = Cluster::prepare(BINARY, 1);
    cluster.start(1).await;
    let before = granted(&cluster, 1, "acquire job x 600000", "x").await;
    // As if the candidate that held it was killed: the next one of its name begins with the hold.
    let script = "echo $LOCK_TOKEN; exec sleep 4";
    let run = cluster.run(&["data1", "elect", "job", "x", "3000", "sh", "-c", script]).await;
    let token: u128 = String::from_utf8_lossy(&run.stdout).trim().parse().expect("one token");
    assert!(run.status.success() && token > before, "{token} after {before}");
    // It was renewed at least once, so its lease would last for two seconds.
    assert_eq!(cluster.ask(1, "holder job").await, (Some(1), "free".into()));
    cluster.stop_all().await;
}

#[tokio::test]
async fn watches_keep_no_renewal_waiting_and_both_are_bounded() {
    let mut cluster = Cluster::prepare(BINARY, 1);
    cluster.start(1).await;
    let token = granted(&cluster, 1, "acquire db alice 600000", "alice").await;
    let mut watches = Vec::new();
    for _ in 0..WATCHES_MAX {
        let mut watch = ask(&cluster.data(1), "watch db").await.expect("it serves");
        let begun = timeout(PATIENCE, watch.next()).await.expect("a line").expect("the node runs");
        assert!(matches!(&begun, Line::Event(text) if text.ends_with(" watching")), "{begun:?}");
        watches.push(watch);
    }
    let renew = format!("renew db {token} 600000");
    assert_eq!(cluster.ask(1, &renew).await, (Some(0), format!("granted alice {token}")));
    let refused = (Some(2), format!("too many watches: {WATCHES_MAX} at most"));
    assert_eq!(cluster.ask(1, "watch db").await, refused);

    // The places of the requests are as many as before: connections without a request take them all.
    let socket = cluster.data(1).join("socket");
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(UnixStream::connect(&socket).await.expect("it serves"));
    }
    let mut asking = ask(&cluster.data(1), &renew).await.expect("connected");
    timeout(Duration::from_secs(1), asking.next()).await.expect_err("it waits for a place");
    drop(silent);
    let line = timeout(PATIENCE, asking.next()).await.expect("a line").expect("the node runs");
    assert_eq!(line, Line::Yes(format!("granted alice {token}")));

    // A place is free once its client leaves.
    watches.pop();
    let started = Instant::now();
    loop {
        let mut watch = ask(&cluster.data(1), "watch db").await.expect("it serves");
        match timeout(PATIENCE, watch.next()).await.expect("a line").expect("the node runs") {
            Line::Event(_) => break,
            line => assert!(started.elapsed() < PATIENCE, "{line:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
    cluster.stop_all().await;
}

/// Stops a candidate, which kills its program.
async fn stop(candidate: &mut Child) {
    let pid = candidate.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).expect("it runs");
    kill_process(pid, Signal::TERM).expect("sent");
    assert_eq!(timeout(PATIENCE, candidate.wait()).await.expect("it stops").expect("it ends").code(), Some(2));
}

/// A protected resource: it refuses tokens lower than the highest that it has seen.
#[derive(Default)]
struct Resource {
    highest: u128,
    owners: BTreeMap<u128, String>,
}

impl Resource {
    fn accepts(&mut self, token: u128, owner: &str) -> bool {
        if token < self.highest {
            return false;
        }
        self.highest = token;
        let first = self.owners.entry(token).or_insert_with(|| owner.to_owned());
        assert_eq!(first, owner, "a token has one holder");
        true
    }
}

/// Asks until the lock is granted to the owner; returns the token.
async fn granted(cluster: &Cluster, id: u64, request: &str, owner: &str) -> u128 {
    let prefix = format!("granted {owner} ");
    let line = cluster.until(id, request, |line| line.starts_with(&prefix)).await;
    line[prefix.len()..].parse().expect("a token")
}
