//! The job queues as three processes over QUIC, and their command line.

use quorate_host::{Line, ask};
use quorate_host_testing::processes::{Cluster, PATIENCE};
use std::fs;
use tokio::time::timeout;

const BINARY: &str = env!("CARGO_BIN_EXE_jobs");

#[tokio::test]
async fn a_job_of_a_worker_that_is_gone_is_completed_once_by_another_though_the_leader_is_killed() {
    let mut cluster = Cluster::prepare(BINARY, 3);
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let leader = cluster.leader(1).await;
    let other = leader % 3 + 1;
    let mut watch = ask(&cluster.data(other), "watch mail").await.expect("it serves");
    assert!(matches!(next(&mut watch).await, Line::Event(text) if text.ends_with(" watching")));

    cluster.until(other, "submit mail low to-bob", |reply| matches!(reply, "ok" | "known")).await;
    cluster
        .until(other, "submit mail high to-eve priority=7 backoff=100", |reply| matches!(reply, "ok" | "known"))
        .await;
    let first = cluster.until(other, "take mail gone 1000", |reply| reply.starts_with("high taken gone ")).await;
    let late = token(&first);
    cluster.kill(leader).await;

    let low = cluster.until(other, "take mail here 600000", |reply| reply.starts_with("low taken here ")).await;
    cluster.until(other, &format!("complete mail low {}", token(&low)), |reply| reply == "ok").await;
    let next_try =
        cluster.until(other, "take mail here 600000 wait", |reply| reply.starts_with("high taken here ")).await;
    assert!(next_try.ends_with("attempt 2 of 5: to-eve") && token(&next_try) > late, "{next_try}");
    assert_eq!(cluster.until(other, &format!("complete mail high {late}"), |_| true).await, "not held");
    cluster.until(other, &format!("complete mail high {}", token(&next_try)), |reply| reply == "ok").await;

    cluster.start(leader).await;
    let list = cluster.until(leader, "list mail", |_| true).await;
    let phases: Vec<_> = list.lines().map(|line| line.split(' ').nth(1).unwrap_or_default()).collect();
    assert_eq!(phases, ["done", "done", "jobs"], "{list}");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|text: &String| !text.contains("high done")) {
        let Line::Event(text) = next(&mut watch).await else { panic!("the watch goes on") };
        seen.push(text);
    }
    let count = |what: &str| seen.iter().filter(|text| text.contains(what)).count();
    let counts = ["low done", "high taken gone", "high resting", "high taken here", "high done"].map(count);
    assert_eq!(counts, [1; 5], "{seen:?}");
    cluster.stop_all().await;
}

#[tokio::test]
async fn each_request_has_its_answer_and_a_file_that_makes_no_sense_is_refused() {
    let mut cluster = Cluster::prepare(BINARY, 1);
    cluster.configure(1, "[service]\nnotices = \"notices\"");
    cluster.start(1).await;
    cluster.until(1, "submit q a body attempts=1", |reply| reply == "ok").await;
    let yes = |text: &str| (Some(0), text.to_owned());
    let no = |text: &str| (Some(1), text.to_owned());
    assert_eq!(cluster.ask(1, "submit q a other").await, yes("known"));
    assert_eq!(cluster.ask(1, "show q a").await, yes("a ready priority 0 attempt 0 of 1: body"));
    assert_eq!(cluster.ask(1, "show q b").await, no("unknown"));
    assert_eq!(cluster.ask(1, "take r w 1000").await, no("empty"));
    let (code, taken) = cluster.ask(1, "take q w 600000").await;
    let token = token(&taken);
    assert_eq!((code, cluster.ask(1, "take q w 600000").await.1), (Some(0), taken));
    assert_eq!(cluster.ask(1, &format!("renew q a {token} 600000")).await, yes("ok"));
    assert_eq!(cluster.ask(1, &format!("complete q a {}", token + 1)).await, no("not held"));
    assert_eq!(cluster.ask(1, &format!("fail q a {token} broken")).await, yes("ok"));
    cluster.until(1, "dead q", |reply| reply == "a dead broken priority 0 attempt 1 of 1: body\n1 jobs").await;
    let notice = fs::read_to_string(cluster.dir().join("notices")).expect("it was given");
    assert!(notice.ends_with(" q a broken\n"), "{notice}");
    assert_eq!(cluster.ask(1, "discard q a").await, yes("ok"));
    assert_eq!(cluster.ask(1, "revive q a").await, no("not dead"));
    assert_eq!(cluster.ask(1, "list q").await, yes("0 jobs"));
    let long = "n".repeat(257);
    assert_eq!(cluster.ask(1, &format!("submit q {long} body")).await, no("too large"));
    for request in [
        "",
        "POST / HTTP/1.1",
        "submit q a",
        "submit q a b colour=1",
        "submit q a b delay=-1",
        "take q w soon",
        "take q w 1 2",
    ] {
        let (code, reply) = cluster.ask(1, request).await;
        assert!(code == Some(2) && !reply.is_empty(), "{request}: {code:?} {reply}");
    }
    let too_long = (Some(2), "a request is one line of at most 8192 bytes".to_owned());
    for (name, expected) in [(8_184, no("unknown")), (8_185, too_long.clone()), (100_000, too_long)] {
        assert_eq!(cluster.ask(1, &format!("show q {}", "n".repeat(name))).await, expected, "{name}");
    }
    cluster.stop_all().await;
    assert_eq!(cluster.ask(1, "list q").await.0, Some(2), "no node serves");

    let good = fs::read_to_string(cluster.dir().join("node1.toml")).expect("a file");
    for (bad, names) in [
        (format!("colour = 1\n{good}"), "colour"),
        (good.replacen("id = 1", "id = 7", 1), "7"),
        (good + "colour = 1", "colour"),
    ] {
        fs::write(cluster.dir().join("bad.toml"), bad).expect("written");
        let output = cluster.run(&["--config", "bad.toml"]).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && error.contains(names), "{error}");
    }
}

async fn next(watch: &mut quorate_host::Asking) -> Line {
    timeout(PATIENCE, watch.next()).await.expect("an event").expect("the node runs")
}

/// The token in the line of a taken job.
fn token(line: &str) -> u128 {
    line.split(' ').nth(3).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}: no token"))
}
