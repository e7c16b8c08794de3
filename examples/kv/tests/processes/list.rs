//! Listings: over HTTP and on the command line, page by page, while the state changes.

use crate::support::{Answer, PATIENCE, Running, cluster, raw, run};
use quorate::NodeId;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_of_a_listing_are_of_one_state_while_keys_change_and_the_leader_is_killed() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let mut client = cluster.client(&followers).expect("a client");
    for number in 0..25 {
        client.put(&format!("a/{number:02}"), format!("v{number}")).await.expect("written");
    }
    client.put("b", "v").await.expect("written");

    let first = page(&cluster, followers[0], "prefix=a/&limit=10").await;
    let index = first["index"].as_u64().expect("an index");
    assert_eq!((keys(&first), &first["more"]), (numbered(0..10), &json!(true)));
    let of_leader = page(&cluster, leader, "limit=1").await;
    let of_leader = of_leader["index"].as_u64().expect("an index");

    // The state that is listed stays, whatever the next entries do, under whichever leader.
    client.put("a/11", "other").await.expect("written");
    client.put("a/115", "between").await.expect("written");
    client.delete("a/12").await.expect("deleted");
    cluster.kill(leader).await.expect("killed");
    cluster.leader(PATIENCE).await.expect("a leader");
    client.delete("a/13").await.expect("deleted");
    client.put("a/14", "other").await.expect("written");

    let second = page(&cluster, followers[0], &format!("prefix=a/&limit=10&after=a/09&index={index}")).await;
    assert_eq!((keys(&second), &second["more"], &second["index"]), (numbered(10..20), &json!(true), &json!(index)));
    for pair in second["pairs"].as_array().expect("pairs") {
        let number = pair["key"].as_str().expect("text").trim_start_matches("a/");
        assert_eq!(pair["value"], format!("v{number}"));
    }
    let third = page(&cluster, followers[0], &format!("prefix=a/&limit=10&after=a/19&index={index}")).await;
    assert_eq!((keys(&third), &third["more"]), (numbered(20..25), &json!(false)));
    let again = page(&cluster, followers[0], &format!("start=a/10&end=a/20&keys=true&index={index}")).await;
    assert_eq!(keys(&again), numbered(10..20), "another range of the same state");

    let now = page(&cluster, followers[0], "prefix=a/1").await;
    let after: Vec<_> = ["a/10", "a/11", "a/115"].map(str::to_owned).into_iter().chain(numbered(14..20)).collect();
    assert_eq!(keys(&now), after);

    // Another node and a restarted one do not have it, and do not answer with another state.
    for (node, index) in [(followers[1], index), (followers[0], index + 1)] {
        is_gone(&cluster, node, index).await;
    }
    cluster.start_node(leader).await.expect("started");
    cluster.converge(PATIENCE).await.expect("level");
    is_gone(&cluster, leader, of_leader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_listing_is_refused_and_names_what_is_wrong() {
    let cluster = cluster(1).await;
    let node = cluster.ids()[0];
    let long = "k".repeat(1025);
    for (query, names) in [
        ("limit=0", "limit"),
        ("limit=10001", "limit=10001 is not from 1 to 10000"),
        ("limit=18446744073709551616", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("keys=1", "keys"),
        ("keys", "keys"),
        ("prefix=a&start=a", "prefix"),
        ("prefix=a&end=b", "prefix"),
        ("start=b&end=a", "start"),
        ("index=1&read=local", "index"),
        ("index=1&max_age=1s", "index"),
        ("index=x", "index"),
        ("index=-1", "index"),
        ("read=bounded", "max_age"),
        ("read=stale", "read=stale"),
        ("prefix=a&prefix=b", "prefix"),
        ("prefx=a", "unknown parameter `prefx`; allowed: prefix, start"),
        ("prefix=%ff", "UTF-8"),
        ("prefix=%f", "escape"),
    ] {
        let answer = list(&cluster, node, query).await;
        assert_eq!((answer.status, &*answer.code()), (400, "bad_request"), "{query}");
        assert!(answer.text().contains(names), "{query}: {}", answer.text());
    }
    for parameter in ["prefix", "start", "end", "after"] {
        let answer = list(&cluster, node, &format!("{parameter}={long}")).await;
        assert_eq!((answer.status, &*answer.code()), (413, "too_large"), "{parameter}");
    }
    is_gone(&cluster, node, 0).await;
    is_gone(&cluster, node, u64::MAX).await;
    let url = cluster.endpoint(node);
    for (request, status) in [("POST /v1/kv", 405), ("DELETE /v1/kv", 405), ("GET /v1/kv/", 404)] {
        assert_eq!(raw(&url, request, "content-length: 0\r\n", b"").await.status, status, "{request}");
    }
    assert_eq!(raw(&url, "GET /v1/kv", "content-length: 1\r\n", b"x").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_shows_every_value_and_its_pages_are_bounded_in_bytes() {
    let cluster = cluster(1).await;
    let node = cluster.ids()[0];
    let empty = page(&cluster, node, "").await;
    assert_eq!((&empty["pairs"], &empty["more"]), (&json!([]), &json!(false)));
    let mut client = cluster.client(&[node]).expect("a client");
    client.put("binary", &b"\xff\0"[..]).await.expect("written");
    let index = client.put("text \u{e9}/?&", "line\nline").await.expect("written").index;
    let pairs = json!([
        { "key": "binary", "value": { "base64": "/wA=" } },
        { "key": "text \u{e9}/?&", "value": "line\nline" },
    ]);
    for mode in ["linearizable", "lease", "local", "bounded&max_age=30s"] {
        let all = page(&cluster, node, &format!("read={mode}")).await;
        assert_eq!(all, json!({ "index": index, "pairs": pairs, "more": false }), "{mode}");
    }
    assert_eq!(keys(&page(&cluster, node, "prefix=text%20%C3%A9").await).len(), 1);

    for number in 0..5 {
        client.put(&format!("large/{number}"), vec![b'v'; 400_000]).await.expect("written");
    }
    let large = list(&cluster, node, "prefix=large/&limit=10000").await;
    assert!(large.body.len() <= (1 << 20) + 100);
    let large: Value = serde_json::from_slice(&large.body).expect("JSON");
    assert_eq!((keys(&large).len(), &large["more"]), (2, &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_lists_all_pages_or_as_many_keys_as_asked_for() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let mut client = cluster.client(&cluster.ids()).expect("a client");
    for number in 0..6 {
        // Each is more than half of a page.
        client.put(&format!("large/{number}"), vec![b'v'; 600_000]).await.expect("written");
    }
    client.put("a", "1").await.expect("written");
    client.put("b", "tab\tand\nline\\").await.expect("written");
    client.put("c", &b"\xff"[..]).await.expect("written");
    let at = async |args: &[&str]| run(&[&["list", "--endpoint", &url], args].concat()).await;

    let small = "a\t1\nb\ttab\\tand\\nline\\\\\nc\t\\xff\n";
    assert_eq!(at(&["--end", "d"]).await.succeeded(), small);
    assert_eq!(at(&["--limit", "3", "--read", "local"]).await.succeeded(), small);
    assert_eq!(at(&["--keys"]).await.succeeded().lines().count(), 9);
    assert_eq!(at(&["--keys", "--prefix", "large/", "--after", "large/3"]).await.succeeded(), "large/4\nlarge/5\n");
    assert_eq!(at(&["--prefix", "large/"]).await.succeeded().lines().count(), 6);
    assert_eq!(at(&["--prefix", "nothing"]).await.succeeded(), "");
    let pages = at(&["--json", "--start", "b"]).await.succeeded();
    let pages: Vec<Value> = pages.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(pages.len() == 6 && pages.iter().all(|page| page["index"] == pages[0]["index"]), "{}", pages.len());
    assert_eq!(pages.iter().map(|page| keys(page).len()).sum::<usize>(), 8);
    let index = pages[0]["index"].to_string();
    assert_eq!(at(&["--keys", "--index", &index, "--limit", "1"]).await.succeeded(), "a\n");

    assert_eq!(at(&["--json", "--index", "1"]).await.failure(), (4, "gone".to_owned()));
    assert_eq!(at(&["--json", "--start", "b", "--end", "a"]).await.failure(), (7, "bad_request".to_owned()));
    for usage in [&["--prefix", "a", "--end", "b"][..], &["--index", "1", "--read", "local"], &["--limit", "0"], &["a"]]
    {
        assert_eq!(at(usage).await.code, Some(2), "{usage:?}");
    }
}

async fn list(cluster: &Running, node: NodeId, query: &str) -> Answer {
    raw(&cluster.endpoint(node), &format!("GET /v1/kv?{query}"), "", b"").await
}

async fn page(cluster: &Running, node: NodeId, query: &str) -> Value {
    let answer = list(cluster, node, query).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let page: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert!(answer.head.contains(&format!("quorate-index: {}", page["index"])), "{}", answer.head);
    page
}

async fn is_gone(cluster: &Running, node: NodeId, index: u64) {
    let answer = list(cluster, node, &format!("index={index}")).await;
    assert_eq!((answer.status, &*answer.code()), (410, "gone"), "{}", answer.text());
    assert!(answer.text().contains("begin the listing again"), "{}", answer.text());
}

fn keys(page: &Value) -> Vec<String> {
    let pairs = page["pairs"].as_array().expect("pairs");
    pairs.iter().map(|pair| pair["key"].as_str().expect("text").to_owned()).collect()
}

fn numbered(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("a/{number:02}")).collect()
}
