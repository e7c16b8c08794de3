//! Properties of the parsers of requests and answers, for arbitrary bytes.

use axum::{
    Router,
    body::Body,
    http::Request,
    response::{IntoResponse, Response},
    routing::get,
};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use quorate_kv::{
    client::key_path,
    http::{
        Key, Listing, Reading, Refusal, TXN_ITEMS_MAX,
        messages::{
            CasAnswer, CasRequest, DeleteAnswer, ErrorAnswer, ListAnswer, PutAnswer, SnapshotAnswer, StatusAnswer,
            TxnAnswer, TxnRequest, WatchAnswer,
        },
        refuse_unknown,
    },
    machine::KEY_BYTES_MAX,
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use tokio::runtime::{Builder, Runtime};

/// Small, so that random inputs reach the limit.
const VALUE_BYTES_MAX: usize = 64;

/// Parses a request's target and its body.
///
/// An input is a target, a line feed and a body.
///
/// # Panics
/// If one of these properties is violated: a key is the decoded part of the path, of 1 to 1024
/// bytes; every text of such a length has a path that decodes to it; a compare-and-swap has values
/// of the allowed length, a transaction has lists of the allowed length, and both are unchanged by
/// serializing and parsing them again; every refusal is one line of JSON; and every answer is
/// unchanged by serializing and parsing it again.
pub fn http_bodies(input: &[u8]) {
    let (target, body) = match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[][..]),
    };
    if let Ok(request) = Request::builder().uri(target).body(Body::empty()) {
        key_and_query(request);
    }
    if let Ok(key) = std::str::from_utf8(body)
        && (1..=KEY_BYTES_MAX).contains(&key.len())
    {
        let request = Request::builder().uri(key_path(key)).body(Body::empty()).expect("a path is made of it");
        assert_eq!(answer(request), Ok(key.to_owned()), "a client's path says its key");
    }
    match CasRequest::parse(body, VALUE_BYTES_MAX) {
        Ok(request) => {
            assert!(body.trim_ascii_start().starts_with(b"{"), "only an object is one");
            assert!(request.value.len() <= VALUE_BYTES_MAX);
            assert!(request.expect.as_ref().is_none_or(|expect| expect.len() <= VALUE_BYTES_MAX));
            says_the_same(&request);
            let bytes = serde_json::to_vec(&request).expect("JSON");
            assert!(
                bytes.len() <= CasRequest::body_bytes_max(VALUE_BYTES_MAX),
                "a body of the longest values is not too long"
            );
        }
        Err(refusal) => {
            assert!(matches!(refusal, Refusal::BadRequest(_) | Refusal::TooLarge(_)));
            is_one_line(refusal.into_response());
        }
    }
    match TxnRequest::parse(body, VALUE_BYTES_MAX) {
        Ok(request) => {
            assert!(body.trim_ascii_start().starts_with(b"{"), "only an object is one");
            assert!(
                [request.compare.len(), request.success.len(), request.failure.len()]
                    .iter()
                    .all(|n| *n <= TXN_ITEMS_MAX)
            );
            says_the_same(&request);
        }
        Err(refusal) => {
            assert!(matches!(refusal, Refusal::BadRequest(_) | Refusal::TooLarge(_)));
            is_one_line(refusal.into_response());
        }
    }
    answers(body);
}

fn key_and_query(request: Request<Body>) {
    let segment = request.uri().path().strip_prefix("/v1/kv/").map(str::to_owned);
    let (Ok(key), Some(segment)) = (answer(request), segment) else { return };
    let is_escape = |part: &str| part.len() > 1 && part.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    assert!(segment.split('%').skip(1).all(is_escape), "an invalid escape is refused: {segment}");
    let said = percent_encoding::percent_decode_str(&segment).decode_utf8().expect("it was text");
    assert_eq!(key, said);
    assert!((1..=KEY_BYTES_MAX).contains(&key.len()));
}

/// The key that the server extracts.
fn answer(request: Request<Body>) -> Result<String, ()> {
    thread_local! {
        static ROUTER: TowerToHyperService<Router> = TowerToHyperService::new(router());
    }
    let response = wait(ROUTER.with(|router| router.call(request)));
    let response = response.unwrap_or_else(|never| match never {});
    if !response.status().is_success() {
        is_one_line(response);
        return Err(());
    }
    Ok(String::from_utf8(whole(response)).expect("a key is text"))
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

fn is_one_line(response: Response) {
    let answer: ErrorAnswer = serde_json::from_slice(&whole(response)).expect("every refusal is JSON");
    assert_eq!(answer.message.lines().count(), 1, "{:?}", answer.message);
}

/// The bytes of a complete body.
fn whole(response: Response) -> Vec<u8> {
    let collected = wait(response.into_body().collect()).expect("no reader fails");
    collected.to_bytes().to_vec()
}

/// The parts of the server's router that read a key and a query, without a node.
fn router() -> Router {
    let read = |Key(key): Key, _: Reading| async { key };
    let list = |_: Listing| async { String::new() };
    let router = Router::new().route("/v1/kv/{key}", get(read)).route("/v1/kv", get(list));
    router
        .fallback(|| async { Refusal::NotFound("no such path".to_owned()) })
        .layer(axum::middleware::from_fn(refuse_unknown))
}

/// Checks all types of answers that a client parses.
fn answers(body: &[u8]) {
    fn one<T: DeserializeOwned + Serialize + PartialEq + Debug>(body: &[u8]) {
        serde_json::from_slice::<T>(body).iter().for_each(says_the_same);
    }
    one::<PutAnswer>(body);
    one::<DeleteAnswer>(body);
    one::<CasAnswer>(body);
    one::<ListAnswer>(body);
    one::<WatchAnswer>(body);
    one::<TxnAnswer>(body);
    one::<SnapshotAnswer>(body);
    one::<StatusAnswer>(body);
    one::<ErrorAnswer>(body);
}

fn says_the_same<T: DeserializeOwned + Serialize + PartialEq + Debug>(said: &T) {
    let bytes = serde_json::to_vec(said).expect("JSON");
    assert_eq!(&serde_json::from_slice::<T>(&bytes).expect("it was JSON"), said);
}

/// Seed inputs for [`http_bodies`].
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let cas = |expect: Option<&str>, value: &str| {
        serde_json::to_string(&CasRequest { expect: expect.map(str::to_owned), value: value.to_owned() }).expect("JSON")
    };
    let status = r#"{"node_id":1,"role":"leader","term":3,"voted_for":null,"leader_id":1,"commit_index":4,"applied_index":4,
        "durable_index":4,"last_log_index":4,"first_log_index":1,"snapshot_index":0,"voters":[1,2,3],"learners":[],
        "state_hash":"00000000000000ff"}"#;
    let pairs = [
        ("/v1/kv/key", cas(Some("a"), "b")),
        ("/v1/kv/a%2Fb%20%C3%A9?read=local", cas(None, "\u{e9}\u{1}")),
        ("/v1/kv/%ff?read=lease", r#"{"expect":"a","valu":"b"}"#.to_owned()),
        ("/v1/kv/k?read=linearizable&write=1", r#"{"value":"b"}"#.to_owned()),
        ("/v1/kv/", status.to_owned()),
        ("http://n1:8001/v1/kv/k?read=%0A", r#"{"error":"overloaded","message":"later"}"#.to_owned()),
        ("/v1/kv/k?read%0A=local", String::new()),
        ("/v1/kv/..?", r#"{"index":7,"existed":true,"swapped":false}"#.to_owned()),
        ("/v1/kv/%zz?read=local&read=local", r#"["a","b"]"#.to_owned()),
        ("/v1/kv?prefix=a%2F&limit=10&keys=true", r#"{"index":7,"pairs":[{"key":"a"}],"more":true}"#.to_owned()),
        (
            "/v1/kv?start=a&end=b&after=ab&index=7",
            r#"{"index":7,"pairs":[{"key":"a","value":{"base64":"/wA="}}],"more":false}"#.to_owned(),
        ),
        (
            "/v1/txn",
            r#"{"compare":[{"key":"a","value":null},{"key":"b","exists":true},{"key":"c","value":{"base64":"/w=="}}],
                "success":[{"put":{"key":"a","value":"1"}},{"delete":{"key":"b"}}],"failure":[{"get":{"key":"a"}}]}"#
                .to_owned(),
        ),
        (
            "/v1/txn",
            r#"{"succeeded":true,"index":7,"results":[{"put":{"key":"a"}},{"delete":{"key":"b","existed":false}},
                {"get":{"key":"c","value":null}}]}"#
                .to_owned(),
        ),
        ("/v1/kv/k/cas", "a key/with ? and #, \u{1f600}".to_owned()),
    ];
    pairs.into_iter().map(|(target, body)| [target.as_bytes(), b"\n", body.as_bytes()].concat()).collect()
}
