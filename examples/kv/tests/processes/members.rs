//! Membership changes and leadership transfers, on the command line and over HTTP.

use crate::support::{PATIENCE, RELAXED, Ran, Running, cluster_with_joiners, laid_out_as, published, raw, run};
use quorate::NodeId;
use quorate_kv::{
    cluster::Options,
    load::{Ledger, LoadOptions, Writers, check},
};
use serde_json::Value;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_votes_leads_and_is_removed_by_commands() {
    let mut cluster = cluster_with_joiners(3, 1).await;
    let joins = cluster.joiners()[0];
    cluster.start_node(joins).await.expect("it waits to be added");
    let address = cluster.layout().address(joins);

    let list = member(&cluster, &["list"]).await.succeeded();
    assert_eq!(list.matches("voter").count(), 3, "{list}");
    let added = member(&cluster, &["add", "4", &address]).await.succeeded();
    assert!(added.starts_with("node 4 is a learner, configuration "), "{added}");
    let list = member(&cluster, &["list"]).await.succeeded();
    assert!(list.lines().any(|line| line.contains("learner") && line.contains(&address)), "{list}");
    assert!(member(&cluster, &["promote", "4"]).await.succeeded().starts_with("node 4 is a voter"));
    // The new node accepts requests like any other.
    let own = cluster.endpoint(joins);
    run(&["put", "k", "v", "--endpoint", &own]).await.succeeded();
    let moved = run(&["transfer", "--to", "4", "--endpoint", &cluster.endpoint(NodeId(1))]).await.succeeded();
    assert_eq!(moved, "node 4 leads\n");
    assert_eq!(cluster.leader(PATIENCE).await.expect("a leader").node_id, joins);

    // A leader transfers leadership before it is removed; then its process ends and
    // gives the reason.
    assert!(member(&cluster, &["remove", "4"]).await.succeeded().starts_with("node 4 is removed"));
    assert_eq!(cluster.ended(joins, PATIENCE).await.expect("it ends").code(), Some(0));
    let said = std::fs::read_to_string(cluster.layout().log_file(joins)).expect("its log");
    assert!(said.lines().any(|line| line.starts_with("quorate-kv: this node was removed from the cluster")), "{said}");
    let list: Value = serde_json::from_str(&member(&cluster, &["list", "--json"]).await.succeeded()).expect("JSON");
    assert_eq!(list["members"].as_array().map(Vec::len), Some(3), "{list}");
    run(&["put", "k", "w", "--endpoint", &cluster.endpoint(NodeId(1))]).await.succeeded();
    cluster.leader(PATIENCE).await.expect("a leader of the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_can_not_be_is_refused_in_one_line() {
    let cluster = cluster_with_joiners(3, 0).await;
    let (leader, followers) = cluster.roles().await;
    for (args, what) in [
        (&["promote", "9"][..], "not_found"),
        (&["remove", "9"], "not_found"),
        (&["add", "9", "nowhere"], "bad_request"),
        (&["add", "0", "127.0.0.1:1"], "bad_request"),
        (&["set", "1", "2", "9"], "bad_request"),
    ] {
        let line = member(&cluster, args).await.error_line();
        assert!(line.contains(what), "{args:?}: {line}");
    }
    let line = member(&cluster, &["set", "one"]).await.error_line();
    assert!(line.contains("not a node id"), "{line}");
    let line = run(&["transfer", "--to", "9", "--endpoint", &cluster.endpoint(leader)]).await.error_line();
    assert!(line.contains("bad_request") && line.contains("node 9"), "{line}");

    for id in [leader, followers[0]] {
        let url = cluster.endpoint(id);
        let add = r#"{"id":9,"addr":"127.0.0.1:1"}"#;
        for (request, body, status, code) in [
            ("POST /v1/members/9/promote", "", 404, "not_found"),
            ("DELETE /v1/members/9", "", 404, "not_found"),
            ("DELETE /v1/members/nine", "", 400, "bad_request"),
            ("POST /v1/members?expect=12345", add, 409, "conflict"),
            ("POST /v1/members?expect=x", add, 400, "bad_request"),
            ("POST /v1/members", r#"{"id":9,"addr":"nowhere"}"#, 400, "bad_request"),
            ("POST /v1/members", r#"{"id":9}"#, 400, "bad_request"),
            ("PUT /v1/members", r#"{"voters":[{"id":1},{"id":9,"addr":"nowhere:0"}]}"#, 400, "bad_request"),
            ("PUT /v1/members", r#"{"voters":[]}"#, 400, "bad_request"),
            ("PUT /v1/members", r#"{"voters":[{"id":1},{"id":1},{"id":2}]}"#, 400, "bad_request"),
            ("PUT /v1/members/1", "", 405, "method_not_allowed"),
            ("POST /v1/transfer", r#"{"to":9}"#, 400, "bad_request"),
            ("GET /v1/transfer", "", 405, "method_not_allowed"),
        ] {
            let length = format!("content-length: {}\r\n", body.len());
            let answer = raw(&url, request, &length, body.as_bytes()).await;
            assert_eq!((answer.status, &*answer.code()), (status, code), "{request}: {}", answer.text());
        }
        let members: Value = serde_json::from_slice(&raw(&url, "GET /v1/members", "", b"").await.body).expect("JSON");
        assert_eq!(members["members"].as_array().map(Vec::len), Some(3), "nothing has changed: {members}");
    }
}

/// Of two operators with the same configuration, only one can change it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_made_for_another_configuration_is_a_conflict_that_names_the_one_in_force() {
    let cluster = cluster_with_joiners(3, 0).await;
    let url = cluster.endpoint(NodeId(1));
    let members: Value = serde_json::from_slice(&raw(&url, "GET /v1/members", "", b"").await.body).expect("JSON");
    let request = format!("POST /v1/members?expect={}", members["index"]);
    let add = br#"{"id":9,"addr":"127.0.0.1:1"}"#;
    let length = format!("content-length: {}\r\n", add.len());
    let first = raw(&url, &request, &length, add).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let second = raw(&url, &request, &length, add).await;
    assert_eq!((second.status, &*second.code()), (409, "conflict"));
    let first: Value = serde_json::from_slice(&first.body).expect("JSON");
    assert!(second.text().contains(&first["index"].to_string()), "{}", second.text());
}

/// The address of a member's machine changes, as when a container is rescheduled: first a
/// follower's, then the leader's. The `[[peers]]` of the others still have the old address.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_moves_to_another_port_is_reached_there_at_once_and_no_write_is_lost() {
    let mut cluster = cluster_with_joiners(3, 0).await;
    let ledger = Ledger::new();
    let pace = LoadOptions { writers: 1, rest: Duration::from_millis(5), value_bytes: 100 };
    let writers = Writers::start(&cluster, &ledger, pace).expect("writers");
    let (leader, followers) = cluster.roles().await;
    let term = cluster.status(leader).await.expect("status").term;
    let mut reserved = Vec::new();
    for moves in [followers[0], leader] {
        let by = *followers.iter().find(|id| **id != moves).expect("another");
        cluster.stop(moves).await.expect("it stops");
        let port = quorate_ports::reserve_one().expect("a free port");
        let (old, new) = (cluster.layout().address(moves), port.address().to_string());
        reserved.push(port);
        let file = cluster.layout().config_file(moves);
        let text = std::fs::read_to_string(&file).expect("its configuration");
        let listens = |address: &str| format!("raft = {address:?}\n");
        std::fs::write(&file, text.replace(&listens(&old), &listens(&new))).expect("written");
        let args = ["member", "move", &moves.to_string(), &new, "--endpoint", &cluster.endpoint(by)];
        let said = run(&args).await.succeeded();
        assert!(said.starts_with(&format!("node {moves} is dialled at {new}, configuration ")), "{said}");
        cluster.start_node(moves).await.expect("it starts at its new address");
        let committed = cluster.status(by).await.expect("status").commit_index;
        cluster
            .eventually(PATIENCE, "it receives what is written", |statuses| {
                statuses.iter().any(|it| it.node_id == moves && it.applied_index >= committed).then_some(())
            })
            .await
            .expect("it receives what is written");
        let list = run(&["member", "list", "--endpoint", &cluster.endpoint(by)]).await.succeeded();
        assert!(list.lines().any(|line| line.starts_with(&moves.to_string()) && line.contains(&new)), "{list}");
        if moves != leader {
            let status = cluster.status(leader).await.expect("status");
            assert_eq!((status.role.as_str(), status.term), ("leader", term), "no election was needed");
        }
    }
    writers.stop().await;
    let levelled = cluster.converge(PATIENCE).await.expect("they agree");
    assert!(levelled.iter().all(|status| status.state_hash == levelled[0].state_hash), "{levelled:?}");
    let verdict = check(&cluster, &cluster.ids(), ledger.writes()).await.expect("they answer");
    assert!(verdict.acknowledged > 0 && verdict.broken.is_empty(), "{verdict:?}");
    for id in &followers[1..] {
        let said = std::fs::read_to_string(cluster.layout().log_file(*id)).expect("its log");
        assert!(said.contains("dialled where the members' list has it"), "the override is told: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_a_member_again_is_a_conflict_that_says_what_it_is_and_changes_nothing() {
    let mut cluster = cluster_with_joiners(3, 1).await;
    let joins = cluster.joiners()[0];
    cluster.start_node(joins).await.expect("it waits to be added");
    let silent = quorate_ports::reserve_one().expect("a port without a listener");
    let (wrong, right) = (silent.address().to_string(), cluster.layout().address(joins));
    member(&cluster, &["add", "4", &wrong]).await.succeeded();
    let one = cluster.layout().address(NodeId(1));
    for (args, says) in [
        (["add", "4", &right], format!("node 4 is a learner already, at {wrong}")),
        (["add", "1", &right], format!("node 1 is a voter already, at {one}")),
        (["add", "9", &one], "the address of node 9 is already that of node 1".to_owned()),
        (["move", "4", &one], "the address of node 4 is already that of node 1".to_owned()),
    ] {
        let line = member(&cluster, &args).await.error_line();
        assert!(line.contains("conflict") && line.contains(&says), "{args:?}: {line}");
    }
    for (args, what) in [
        (["move", "9", &right], "not_found"),
        (["move", "4", "0.0.0.0:7001"], "bad_request"),
        (["move", "4", "127.0.0.1:0"], "bad_request"),
        (["add", "9", "[::]:7001"], "bad_request"),
    ] {
        let line = member(&cluster, &args).await.error_line();
        assert!(line.contains(what), "{args:?}: {line}");
    }
    // The leader's replicator uses the new address without a new election.
    member(&cluster, &["move", "4", &right]).await.succeeded();
    let term = cluster.leader(PATIENCE).await.expect("a leader").term;
    member(&cluster, &["promote", "4"]).await.succeeded();
    assert_eq!(cluster.leader(PATIENCE).await.expect("a leader").term, term);

    let url = cluster.endpoint(NodeId(1));
    let body = format!(r#"{{"addr":{right:?}}}"#);
    let length = format!("content-length: {}\r\n", body.len());
    let put = |path: &str| format!("PUT /v1/members/{path}");
    for (path, status, code) in [("4/addr?expect=12345", 409, "conflict"), ("9/addr", 404, "not_found")] {
        let answer = raw(&url, &put(path), &length, body.as_bytes()).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{path}: {}", answer.text());
    }
    assert_eq!(raw(&url, &put("4/addr"), &length, body.as_bytes()).await.status, 200, "it is there already");
}

/// Nodes publish what their configurations say, operators change it, and the last change of a field
/// counts: through restarts, and on a node that got all of it in a snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn members_have_metadata_that_every_node_shows() {
    let sections = format!("{RELAXED}[snapshot]\nkeep_entries = 0\n\n[labels]\nzone = \"a\"\n");
    let mut cluster = laid_out_as(|options| Options { joiners: 1, sections, ..options });
    cluster.start_all().await.expect("they start");
    published(&cluster).await;
    let own = |id: u64| cluster.endpoint(NodeId(id));
    let [one, two, three, four] = [1, 2, 3, 4].map(own);
    shown(&cluster, &[(1, &one, "zone=a"), (2, &two, "zone=a"), (3, &three, "zone=a")]).await;
    let status = cluster.status(NodeId(3)).await.expect("status");
    assert_eq!(status.client_addrs.values().collect::<Vec<_>>(), [&one, &two, &three]);
    let table = member(&cluster, &["list"]).await.succeeded();
    assert!(table.lines().any(|line| line.ends_with(&format!("  {two}  zone=a"))), "{table}");

    let update = ["update", "2", "--http", "https://two.example", "--label", "zone=b", "--label", "owner=x y"];
    let said = member(&cluster, &update).await.succeeded();
    assert!(said.starts_with("node 2 is updated, configuration "), "{said}");
    member(&cluster, &["update", "3", "--no-http", "--no-label", "zone", "--no-label", "none"]).await.succeeded();
    let [changed, nothing] = [(2, "https://two.example", "owner=x y,zone=b"), (3, "", "")];
    shown(&cluster, &[(1, &one, "zone=a"), changed, nothing]).await;

    // A snapshot covers the configurations: the learner gets no entry of them.
    for id in cluster.ids() {
        run(&["snapshot", "--endpoint", &cluster.endpoint(id)]).await.succeeded();
    }
    let (joins, address) = (NodeId(4), cluster.layout().address(NodeId(4)));
    let add = ["add", "4", &address, "--http", "http://four.example", "--label", "owner=z", "--label", "zone=z"];
    member(&cluster, &add).await.succeeded();
    let added = (4, "http://four.example", "owner=z,zone=z");
    shown(&cluster, &[(1, &one, "zone=a"), changed, nothing, added]).await;
    cluster.start_node(joins).await.expect("it starts");
    // The fields that its own configuration has are its word now.
    let joined = (4, &*four, "owner=z,zone=a");
    shown(&cluster, &[(1, &one, "zone=a"), changed, nothing, joined]).await;
    assert!(cluster.status(joins).await.expect("status").snapshot_index.0 > 0, "it began with a snapshot");

    // Two restarts: with the configuration as it was, and with another label.
    let file = cluster.layout().config_file(NodeId(2));
    let text = std::fs::read_to_string(&file).expect("its configuration");
    for text in [text.clone(), text.replace("zone = \"a\"", "zone = \"c\"")] {
        cluster.stop(NodeId(2)).await.expect("it stops");
        std::fs::write(&file, text).expect("written");
        cluster.start_node(NodeId(2)).await.expect("it starts");
        cluster.leader(PATIENCE).await.expect("a leader");
    }
    let changed = (2, "https://two.example", "owner=x y,zone=c");
    shown(&cluster, &[(1, &one, "zone=a"), changed, nothing, joined]).await;
    // All of them at once: everything is read from disk.
    for id in cluster.running() {
        cluster.kill(id).await.expect("killed");
    }
    cluster.start_all().await.expect("they start");
    cluster.start_node(joins).await.expect("it starts");
    cluster.leader(PATIENCE).await.expect("a leader");
    shown(&cluster, &[(1, &one, "zone=a"), changed, nothing, joined]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_can_not_be_is_refused_in_one_line_that_names_it() {
    let cluster = cluster_with_joiners(1, 0).await;
    let list = settled_list(&cluster).await;
    let (long, key) = (format!("zone={}", "v".repeat(256)), format!("{}=v", "k".repeat(64)));
    for (args, says) in [
        (&["update", "9", "--label", "zone=a"][..], "not_found: node 9"),
        (&["update", "1", "--label", "Zone=a"], "bad_request: node 1 can't have this metadata: the label key `Zone`"),
        (&["update", "1", "--label", &key], "the label key `kkk"),
        (&["update", "1", "--label", &long], "the value of label `zone` is longer than 255 bytes"),
        (&["update", "1", "--http", "10.0.0.1:8001"], "the client address `10.0.0.1:8001` is not http://HOST:PORT"),
        (&["add", "9", "10.0.0.9:7001", "--http", "http://[::]:1"], "bad_request: node 9 can't have this metadata"),
        (&["update", "1", "--label", "zone"], "\"zone\" is not KEY=VALUE"),
    ] {
        let line = member(&cluster, args).await.error_line();
        assert!(line.contains(says), "{args:?}: {line}");
    }
    assert_eq!(member(&cluster, &["update", "1"]).await.code, Some(2), "nothing to update");
    let url = cluster.endpoint(NodeId(1));
    for (request, body, status, code) in [
        ("PATCH /v1/members/9/metadata", r#"{"labels":{"a":"1"}}"#, 404, "not_found"),
        ("PATCH /v1/members/1/metadata", r#"{"labels":{"a":1}}"#, 400, "bad_request"),
        ("PATCH /v1/members/1/metadata", r#"{"label":{"a":"1"}}"#, 400, "bad_request"),
        ("PATCH /v1/members/1/metadata", r#"{"client_addr":"javascript:alert(1)"}"#, 400, "bad_request"),
        ("PATCH /v1/members/1/metadata?expect=1234", r#"{"labels":{"a":"1"}}"#, 409, "conflict"),
        ("PUT /v1/members/1/metadata", "{}", 405, "method_not_allowed"),
    ] {
        let headers = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        let answer = raw(&url, request, &headers, body.as_bytes()).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{request} {body}: {}", answer.text());
    }
    assert_eq!(member(&cluster, &["list"]).await.succeeded(), list, "nothing has changed");
}

/// The list of members once no change is in progress: a node publishes its metadata after its start.
async fn settled_list(cluster: &Running) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let list = member(cluster, &["list"]).await.succeeded();
        if !list.contains("a change is in progress") {
            return list;
        }
        assert!(Instant::now() < deadline, "{list}");
    }
}

/// Waits until every running node lists these members, each with its client address and labels.
async fn shown(cluster: &Running, expected: &[(u64, &str, &str)]) {
    for id in cluster.running() {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let list = run(&["member", "list", "--json", "--endpoint", &cluster.endpoint(id)]).await.succeeded();
            let list: Value = serde_json::from_str(&list).expect("JSON");
            let found = list["members"].as_array().expect("members").iter().map(|member| {
                let labels = member["labels"].as_object().expect("labels").iter();
                let labels: Vec<_> =
                    labels.map(|(key, value)| format!("{key}={}", value.as_str().expect("text"))).collect();
                let address = member["client_addr"].as_str().unwrap_or_default();
                (member["id"].as_u64().expect("an id"), address.to_owned(), labels.join(","))
            });
            let found: Vec<_> = found.collect();
            let is_same = |(found, expected): (&(u64, String, String), &(u64, &str, &str))| {
                (found.0, &*found.1, &*found.2) == *expected
            };
            if found.len() == expected.len() && found.iter().zip(expected).all(is_same) {
                break;
            }
            assert!(Instant::now() < deadline, "node {id} shows {found:?}, and should show {expected:?}");
        }
    }
}

/// Runs `member` against a node that stays.
async fn member(cluster: &Running, args: &[&str]) -> Ran {
    run(&[&["member"], args, &["--endpoint", &cluster.endpoint(NodeId(1))]].concat()).await
}
