//! Repeated writes within sessions.

use crate::support::{Answer, PATIENCE, cluster, raw};
use quorate_kv::{
    client::{Client, ClientError, Trust},
    cluster::Signal,
};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_repeated_is_applied_once_and_gets_the_first_answer_from_any_node() {
    let cluster = cluster(3).await;
    let urls: Vec<_> = cluster.ids().into_iter().map(|id| cluster.endpoint(id)).collect();
    let again = async |request: &str, serial: u64, body: &str| {
        let first = within(&urls[0], request, "client-1", serial, body).await;
        assert_eq!(first.status, 200, "{}", first.text());
        for url in &urls {
            let again = within(url, request, "client-1", serial, body).await;
            assert_eq!((again.status, again.text()), (200, first.text()), "{request} at {url}");
        }
        serde_json::from_str::<Value>(first.text()).expect("JSON")
    };
    again("PUT /v1/kv/k", 1, "first").await;
    raw(&urls[1], "PUT /v1/kv/k", "content-length: 6\r\n", b"second").await;
    again("PUT /v1/kv/k", 1, "first").await;
    assert_eq!(raw(&urls[2], "GET /v1/kv/k", "", b"").await.text(), "second", "the first was not applied again");
    let swapped = again("POST /v1/kv/k/cas", 2, r#"{"expect":"second","value":"third"}"#).await;
    assert_eq!(swapped["swapped"], json!(true));
    let deleted = again("DELETE /v1/kv/k", 3, "").await;
    assert_eq!(deleted["existed"], json!(true));

    again("PUT /v1/kv/k", 1_000, "much later").await;
    let stale = within(&urls[0], "DELETE /v1/kv/k", "client-1", 3, "").await;
    assert_eq!((stale.status, &*stale.code()), (409, "stale_serial"));
    assert_eq!(within(&urls[0], "DELETE /v1/kv/k", "client-2", 3, "").await.status, 200, "another client's serials");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_the_two_headers_without_the_other_is_a_bad_request() {
    let cluster = cluster(1).await;
    let url = cluster.endpoint(cluster.ids()[0]);
    for request in ["PUT /v1/kv/k", "DELETE /v1/kv/k", "POST /v1/kv/k/cas"] {
        for header in ["quorate-session: a", "quorate-serial: 1", "quorate-session: a b\r\nquorate-serial: 1"] {
            let answer = raw(&url, request, &format!("{header}\r\ncontent-length: 0\r\n"), b"").await;
            assert_eq!((answer.status, &*answer.code()), (400, "bad_request"), "{request}, {header}");
        }
    }
    assert_eq!(raw(&url, "GET /v1/kv/k", "", b"").await.code(), "not_found", "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_finds_out_what_became_of_a_write_that_was_not_answered() {
    let cluster = cluster(3).await;
    let (leader, followers) = cluster.roles().await;
    let urls: Vec<_> = [leader, followers[0], followers[1]].map(|id| cluster.endpoint(id)).into();
    // With the followers paused, the leader accepts the write and cannot answer it.
    followers.iter().for_each(|id| cluster.signal(*id, Signal::STOP).expect("paused"));
    let mut without = cluster.client(&[leader]).expect("client");
    let mut within = Client::new(&urls, &Trust::none()).expect("client").with_limit(PATIENCE);
    let wake = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        followers.iter().for_each(|id| cluster.signal(*id, Signal::CONT).expect("awake"));
    };
    let (plain, swapped, ()) = tokio::join!(without.put("plain", "v"), within.cas("k", None, "1"), wake);
    assert!(!matches!(plain, Err(ClientError::Unreadable { .. })), "{plain:?}");
    let swapped = swapped.expect("its outcome is known in the end");
    assert!(swapped.swapped, "a swap that was repeated did not fail on itself");
    let again = within.cas("k", None, "2").await.expect("answered");
    assert!(!again.swapped, "the next write of the session is another one");
    cluster.converge(PATIENCE).await.expect("level");
}

async fn within(url: &str, request: &str, session: &str, serial: u64, body: &str) -> Answer {
    let headers =
        format!("quorate-session: {session}\r\nquorate-serial: {serial}\r\ncontent-length: {}\r\n", body.len());
    raw(url, request, &headers, body.as_bytes()).await
}
