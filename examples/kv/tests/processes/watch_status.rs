//! `status --watch`: lines into a pipe, and the screen of a terminal, against real nodes.

use crate::{
    support::{PATIENCE, Running, cluster, command_alone},
    terminal::Terminal,
};
use quorate::NodeId;
use rustix::{
    process::{Pid, Signal, kill_process},
    termios::LocalModes,
};
use serde_json::Value;
use std::{os::unix::process::ExitStatusExt, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

#[tokio::test(flavor = "multi_thread")]
async fn lines_tell_an_election_after_the_leader_was_killed_although_it_served_them() {
    let mut cluster = cluster(3).await;
    let (leader, _) = cluster.roles().await;
    // One endpoint is given, that of the node that dies; the members' addresses come with the facts.
    let mut watching = watching(&cluster, leader, &[]);
    let mut lines = lines_of(&mut watching);
    until(&mut lines, "a steady cluster", |line| line.contains("  verdict     Healthy: ")).await;

    cluster.kill(leader).await.expect("killed");
    let lost = until(&mut lines, "the loss", |line| line.contains("  connection  ")).await;
    assert!(lost.contains(&format!("{} is lost: ", cluster.endpoint(leader))), "{lost}");
    let moved = until(&mut lines, "another node", |line| line.contains("  connection  ")).await;
    assert!(moved.contains(" serves at http://") && !moved.contains(&cluster.endpoint(leader)), "{moved}");
    let new = cluster.leader(PATIENCE).await.expect("a leader").node_id;
    let (mut is_elected, mut is_told) = (false, false);
    while !(is_elected && is_told) {
        let line = until(&mut lines, "the new leader", |_| true).await;
        is_elected |= line.contains("  event       ") && line.contains(&format!("node {new}, term "));
        is_told |= line.contains(&format!("  verdict     Degraded: Node {new} leads term "));
    }
    watching.kill().await.expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_for_programs_have_the_documented_members_and_end_with_their_reader() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let mut watching = watching(&cluster, followers[0], &["--json"]);
    let mut lines = lines_of(&mut watching);
    let mut object = async |what: &str, holds: &dyn Fn(&Value) -> bool| loop {
        let line = until(&mut lines, what, |_| true).await;
        let object: Value = serde_json::from_str(&line).expect("JSON");
        assert!(object["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{object}");
        if holds(&object) {
            return object;
        }
    };
    let first = object("a verdict", &|object| object["what"] == "verdict" && object["word"] == "Healthy").await;
    assert_eq!((&first["leader"], &first["level"]), (&leader.0.into(), &"ok".into()), "{first}");
    cluster.kill(leader).await.expect("killed");
    // In either order.
    let (mut elected, mut degraded) = (None, None);
    while elected.is_none() || degraded.is_none() {
        let is_dead = |need: &Value| need["node"] == leader.0 && need["runbook"] == "node-down";
        let told = object("the election and the dead node", &|_| true).await;
        if told["kind"] == "leader_elected" {
            elected = Some(told);
        } else if told["needs"].as_array().is_some_and(|needs| needs.iter().any(is_dead)) && told["leader"].is_u64() {
            degraded = Some(told);
        }
    }
    let elected = elected.expect("it was told");
    assert!(elected["what"] == "event" && elected["term"].is_u64() && elected["text"].is_string(), "{elected}");
    drop(lines);
    // The next line finds no reader.
    cluster.start_node(leader).await.expect("it starts");
    let ended = timeout(PATIENCE, watching.wait()).await.expect("in time").expect("it ends");
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_the_cluster_and_is_restored_by_q_and_by_a_signal() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    for end in [End::Signal, End::Key] {
        let mut terminal = Terminal::open();
        let before = terminal.modes();
        let mut watching = terminal.run(command().args(["--endpoint", &cluster.endpoint(followers[0])]));
        terminal.until("a steady cluster", |screen| screen.contains("✓ Healthy") && screen.contains("● leader")).await;
        assert!(terminal.screen().is_alternate, "the lines above it stay");
        assert!(!terminal.modes().contains(LocalModes::ICANON), "keys are read one by one");
        if end == End::Key {
            cluster.kill(leader).await.expect("killed");
            terminal.until("a dead node", |screen| screen.contains("x no answer")).await;
            terminal.press(b"p");
            terminal.until("a pause", |screen| screen.contains("Paused at ")).await;
            terminal.press(b"q");
        } else {
            let id = i32::try_from(watching.id().expect("it runs")).expect("a process");
            kill_process(Pid::from_raw(id).expect("a process"), Signal::TERM).expect("it runs");
        }
        let ended = timeout(PATIENCE, watching.wait()).await.expect("in time").expect("it ends");
        assert_eq!((ended.code(), ended.signal()), (Some(0), None));
        terminal.until_left().await;
        assert_eq!(terminal.modes(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_keeps_the_last_facts_with_their_age() {
    let mut cluster = cluster(1).await;
    let id = cluster.ids()[0];
    let mut terminal = Terminal::open();
    let mut watching = terminal.run(command().args(["--endpoint", &cluster.endpoint(id)]));
    terminal.until("a steady cluster", |screen| screen.contains("✓ Healthy")).await;
    cluster.kill(id).await.expect("killed");
    let is_lost = |screen: &str| screen.contains("◌ Connection lost") && screen.contains("● leader");
    terminal.until("the loss", is_lost).await;
    cluster.start_node(id).await.expect("it starts");
    terminal.until("the node is back", |screen| screen.contains("✓ Healthy")).await;
    terminal.press(b"\x03");
    assert!(timeout(PATIENCE, watching.wait()).await.expect("in time").expect("it ends").success());
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Key,
    Signal,
}

fn watching(cluster: &Running, at: NodeId, more: &[&str]) -> Child {
    let mut command = command();
    command.args(more).args(["--endpoint", &cluster.endpoint(at)]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().expect("the binary runs")
}

fn command() -> Command {
    let mut command = command_alone();
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR").args(["status", "--watch"]).kill_on_drop(true);
    command
}

fn lines_of(child: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().expect("piped")).lines()
}

async fn until(lines: &mut Lines<BufReader<ChildStdout>>, what: &str, holds: impl Fn(&str) -> bool) -> String {
    let mut seen = Vec::new();
    let found = timeout(PATIENCE, async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if holds(&line) {
                return line;
            }
            seen.push(line);
        }
        panic!("{what}: the lines ended after {seen:#?}");
    });
    let found = found.await;
    found.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}; the lines were {seen:#?}"))
}
