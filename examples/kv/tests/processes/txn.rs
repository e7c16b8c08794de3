//! Transactions: over HTTP and on the command line, repeated, and while a leader is killed.

use crate::support::{Answer, PATIENCE, cluster, raw, run, run_on};
use quorate_kv::{
    client::Client,
    http::messages::{OperationRequest, PairRequest, TxnRequest},
    octets::Octets,
};
use serde_json::{Value, json};
use std::{cell::Cell, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// The pause after a refused request.
const RETRY_AFTER: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_transaction_takes_effect_or_nothing_through_any_node() {
    let cluster = cluster(3).await;
    let (_, followers) = cluster.roles().await;
    let url = cluster.endpoint(followers[0]);
    let ask = async |body: Value| {
        let answer = txn(&url, "", &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_str::<Value>(answer.text()).expect("JSON")
    };
    let first = ask(json!({
        "compare": [{ "key": "a", "value": null }, { "key": "b", "exists": false }],
        "success": [
            { "put": { "key": "a", "value": "1" } },
            { "put": { "key": "b", "value": { "base64": "/wA=" } } },
            { "get": { "key": "b" } },
            { "delete": { "key": "c" } },
        ],
    }))
    .await;
    let index = first["index"].as_u64().expect("an index");
    let results = json!([
        { "put": { "key": "a" } },
        { "put": { "key": "b" } },
        { "get": { "key": "b", "value": { "base64": "/wA=" } } },
        { "delete": { "key": "c", "existed": false } },
    ]);
    assert_eq!(first, json!({ "succeeded": true, "index": index, "results": results }));
    let state = raw(&url, "GET /v1/kv", "", b"").await;
    assert!(state.text().contains(&format!(r#"{{"index":{index},"#)), "one entry for all of it: {}", state.text());

    let second = ask(json!({
        "compare": [{ "key": "b", "value": { "base64": "/wA=" } }, { "key": "a", "value": "2" }],
        "success": [{ "delete": { "key": "a" } }, { "delete": { "key": "b" } }],
        "failure": [{ "get": { "key": "a" } }, { "get": { "key": "c" } }],
    }))
    .await;
    let results = json!([{ "get": { "key": "a", "value": "1" } }, { "get": { "key": "c", "value": null } }]);
    assert!(second["index"].as_u64() > Some(index), "{second}");
    assert_eq!(second, json!({ "succeeded": false, "index": second["index"], "results": results }));
    assert_eq!(raw(&url, "GET /v1/kv/b", "", b"").await.body, b"\xff\0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_transaction_is_refused_and_changes_nothing() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let put = |key: &str, value: &str| json!({ "put": { "key": key, "value": value } });
    let many = |count: usize| json!({ "success": vec![put("k", "v"); count] }).to_string();
    let values = |count: usize| json!({ "success": vec![put("k", &"v".repeat(1 << 20)); count] }).to_string();
    let long = json!({ "failure": [put(&"k".repeat(1025), "v")] }).to_string();
    let cases: [(&str, u16, &str); 12] = [
        ("", 400, "bad_request"),
        ("[]", 400, "bad_request"),
        (r#"{"success":[{"put":{"key":"k","value":"v"}}]"#, 400, "bad_request"),
        (r#"{"success":[{"put":{"key":"k","value":"v"}}],"then":[]}"#, 400, "bad_request"),
        (r#"{"success":[{"put":{"key":"k","value":{"base64":"v"}}}]}"#, 400, "bad_request"),
        (r#"{"success":[{"put":{"key":"","value":"v"}}]}"#, 400, "bad_request"),
        (r#"{"compare":[{"key":"k"}],"success":[{"put":{"key":"k","value":"v"}}]}"#, 400, "bad_request"),
        (&long, 413, "too_large"),
        (&many(129), 413, "too_large"),
        (&many(10_000), 413, "too_large"),
        (&values(3), 413, "too_large"),
        (&values(20), 413, "too_large"),
    ];
    for (body, status, code) in cases {
        let answer = txn(&url, "", body).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{}", &body[..body.len().min(99)]);
    }
    let invalid = b"{\"success\":[{\"put\":{\"key\":\"k\xff\",\"value\":\"v\"}}]}";
    let answer = raw(&url, "POST /v1/txn", &format!("content-length: {}\r\n", invalid.len()), invalid).await;
    assert_eq!((answer.status, &*answer.code()), (400, "bad_request"));
    for (request, status) in [("POST /v1/txn?x=1", 400), ("GET /v1/txn", 405), ("PUT /v1/txn", 405)] {
        assert_eq!(raw(&url, request, "content-length: 0\r\n", b"").await.status, status, "{request}");
    }
    assert_eq!(raw(&url, "GET /v1/kv/k", "", b"").await.code(), "not_found", "none of these was executed");
    assert_eq!(txn(&url, "", &many(128)).await.status, 200);
    assert_eq!(txn(&url, "", &values(1)).await.status, 200);

    // The values that it reads are in its reply, which is bounded.
    let too_much = r#"{"success":[{"delete":{"key":"k"}},{"put":{"key":"k","value":"v"}},{"get":{"key":"large"}},{"get":{"key":"large"}}]}"#;
    let large = vec![b'v'; 600_000];
    raw(&url, "PUT /v1/kv/large", &format!("content-length: {}\r\n", large.len()), &large).await;
    let answer = txn(&url, "", too_much).await;
    assert_eq!((answer.status, &*answer.code()), (413, "too_large"));
    assert!(
        answer.text().contains("so it did nothing; get fewer, and read large values with GET"),
        "{}",
        answer.text()
    );
    assert_eq!(raw(&url, "GET /v1/kv/k", "", b"").await.body.len(), 1 << 20, "it did nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_repeated_is_executed_once() {
    let cluster = cluster(3).await;
    let urls: Vec<_> = cluster.ids().into_iter().map(|id| cluster.endpoint(id)).collect();
    let body = r#"{"compare":[{"key":"lock","value":null}],"success":[{"put":{"key":"lock","value":"me"}},{"get":{"key":"lock"}}]}"#;
    let session = "quorate-session: s\r\nquorate-serial: 1\r\n";
    let first = txn(&urls[0], session, body).await;
    assert!(first.status == 200 && first.text().contains(r#""succeeded":true"#), "{}", first.text());
    for url in &urls {
        assert_eq!(txn(url, session, body).await.text(), first.text());
    }
    let other = txn(&urls[0], "quorate-session: s\r\nquorate-serial: 2\r\n", body).await;
    assert!(other.text().contains(r#""succeeded":false"#), "{}", other.text());
    let late = txn(&urls[0], "quorate-timeout: 0ms\r\n", body).await;
    assert_eq!((late.status, &*late.code()), (503, "deadline_passed"));
}

/// Two writers set the same keys to a common value each, while the leader is killed: every listing,
/// on every node, shows equal values.
#[tokio::test(flavor = "multi_thread")]
async fn no_listing_ever_shows_a_part_of_a_transaction() {
    let mut cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let keys: Vec<_> = (0..10).map(|number| format!("k{number}")).collect();
    let mut clients = [cluster.client(&followers).expect("client"), cluster.client(&followers).expect("client")];
    let urls: Vec<_> = followers.iter().map(|id| cluster.endpoint(*id)).collect();
    let (done, is_killed) = (watch::channel(0).0, watch::channel(false).0);
    let write = async |client: &mut Client, name: &str| {
        let (mut number, mut after_kill) = (0, 0);
        while after_kill < 20 {
            let value = format!("{name}{number}");
            let put = |key: &String| {
                let pair = PairRequest { key: key.clone(), value: Octets(value.clone().into()) };
                OperationRequest::Put(pair)
            };
            let request = TxnRequest { success: keys.iter().map(put).collect(), ..TxnRequest::default() };
            let begins_after_kill = *is_killed.borrow();
            number += 1;
            match client.txn(&request).await {
                Ok(_) => {
                    done.send_modify(|done| *done += 1);
                    after_kill += u32::from(begins_after_kill);
                }
                // There is no leader yet.
                Err(_) => sleep(RETRY_AFTER).await,
            }
        }
    };
    let kill = async {
        done.subscribe().wait_for(|done| *done >= 20).await.expect("the writers write");
        cluster.kill(leader).await.expect("killed");
        is_killed.send_replace(true);
    };
    let seen = Cell::new(0);
    let look = async {
        loop {
            for (url, read) in urls.iter().zip(["linearizable", "local"]) {
                let page = raw(url, &format!("GET /v1/kv?prefix=k&read={read}"), "", b"").await;
                if page.status != 200 {
                    sleep(RETRY_AFTER).await;
                    continue;
                }
                let page: Value = serde_json::from_slice(&page.body).expect("JSON");
                let values: Vec<_> =
                    page["pairs"].as_array().expect("pairs").iter().map(|pair| &pair["value"]).collect();
                assert!(values.is_empty() || values.len() == 10, "{page}");
                assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "{page}");
                seen.set(seen.get() + u32::from(!values.is_empty()));
            }
        }
    };
    let [one, other] = &mut clients;
    let work = async { tokio::join!(write(one, "a"), write(other, "b"), kill) };
    let all = async {
        tokio::select! {
            _ = work => {}
            () = look => {}
        }
    };
    timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{} were executed", *done.borrow()));
    assert!(seen.get() > 10, "{} listings were checked", seen.get());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_executes_its_options_or_json() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    let at = async |args: &[&str]| run(&[&["txn", "--endpoint", &url], args].concat()).await;
    let taken = at(&["--if-absent", "lock", "--put", "lock=me", "--put", "a=x=\t1", "--get", "a", "--get", "b"]).await;
    let out = taken.succeeded();
    let (first, rest) = out.split_once('\n').expect("lines");
    assert!(first.starts_with("succeeded, index "), "{out}");
    assert_eq!(rest, "a\tx=\\t1\nb\n");
    let other = ["--if-absent", "lock", "--put", "lock=you", "--else-get", "lock"];
    let failed = at(&other).await;
    assert_eq!((failed.code, &*failed.out), (Some(4), "lock\tme\n"));
    assert!(failed.error_line().contains("not succeeded"));
    let failed = at(&[&other[..], &["--json"]].concat()).await;
    assert_eq!(failed.failure(), (4, "not_succeeded".to_owned()));
    assert!(failed.out.contains(r#""succeeded":false"#), "{}", failed.out);

    let body = r#"{"compare":[{"key":"lock","value":"me"}],"success":[{"delete":{"key":"lock"}}]}"#;
    assert!(at(&[body, "--json"]).await.succeeded().contains(r#"{"delete":{"existed":true,"key":"lock"}}"#));
    let piped = run_on(&["txn", "-", "--json", "--endpoint", &url], &[], body.as_bytes()).await;
    assert_eq!(piped.status.code(), Some(4), "it does not exist any more");
    for usage in [&[][..], &["{}"], &["{"], &["--put", "a"], &["--puts", "a=b"], &[body, "--put", "a=b"]] {
        let ran = at(usage).await;
        assert_eq!(ran.code, Some(2), "{usage:?}: {ran:?}");
        ran.error_line();
    }
    assert_eq!(at(&["--json", "--get", ""]).await.failure(), (7, "bad_request".to_owned()));
}

async fn txn(url: &str, headers: &str, body: &str) -> Answer {
    raw(url, "POST /v1/txn", &format!("{headers}content-length: {}\r\n", body.len()), body.as_bytes()).await
}
