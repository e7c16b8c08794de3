//! Roles: each endpoint is called by each kind of caller, over HTTPS and, on loopback, without TLS.

use crate::support::{PATIENCE, Ran, Running, laid_out_with, run, run_with};
use quorate::NodeId;
use quorate_kv::{
    certs::{Args, make},
    http::ENDPOINTS,
};
use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

const ONE: NodeId = NodeId(1);
pub(crate) const MONITOR: &str = "monitor-0123456789abcdef0123456789";
const CLIENT: &str = "client-0123456789abcdef0123456789";
const OPERATOR: &str = "operator-0123456789abcdef0123456789";

/// The least role for an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Least {
    Nothing,
    Monitor,
    Client,
    Operator,
}

/// A caller: its certificate, its token, and the roles that it has. The node's certificate is an
/// identity without a role.
struct Caller {
    name: &'static str,
    certificate: Option<&'static str>,
    token: Option<&'static str>,
    has: Least,
    is_known: bool,
}

const fn caller(
    name: &'static str,
    certificate: Option<&'static str>,
    token: Option<&'static str>,
    has: Least,
) -> Caller {
    Caller { name, certificate, token, has, is_known: true }
}

const CALLERS: &[Caller] = &[
    Caller { is_known: false, ..caller("none", None, None, Least::Nothing) },
    Caller {
        is_known: false,
        ..caller("unknown-token", None, Some("0123456789abcdef0123456789abcdef"), Least::Nothing)
    },
    // A token that is not known proves nothing, whatever the certificate is.
    Caller { is_known: false, ..caller("unknown-token-of-operator", Some("alice"), Some("x"), Least::Nothing) },
    caller("node", Some("node-1"), None, Least::Nothing),
    caller("client", Some("billing"), None, Least::Client),
    caller("operator", Some("alice"), None, Least::Operator),
    caller("monitor-token", None, Some(MONITOR), Least::Monitor),
    caller("client-token", None, Some(CLIENT), Least::Client),
    caller("operator-token", None, Some(OPERATOR), Least::Operator),
    caller("node-with-token", Some("node-1"), Some(MONITOR), Least::Monitor),
];

/// Each endpoint as the library lists it, a request to it, and the least role. An operator's
/// requests are such that the members stay as they are.
const REQUESTS: &[(&str, &str, &str, &str, Least)] = &[
    ("GET", "/livez", "/livez", "", Least::Nothing),
    ("GET", "/readyz", "/readyz", "", Least::Nothing),
    ("GET", "/metrics", "/metrics", "", Least::Monitor),
    ("GET", "/v1/status", "/v1/status", "", Least::Monitor),
    ("GET", "/", "/", "", Least::Nothing),
    ("GET", "/live", "/live", "", Least::Monitor),
    ("OPTIONS", "/live", "/live", "", Least::Nothing),
    ("GET", "/v1/kv", "/v1/kv?limit=1", "", Least::Client),
    ("GET", "/v1/kv/{key}", "/v1/kv/CALLER", "", Least::Client),
    ("GET", "/v1/watch", "/v1/watch?prefix=", "", Least::Client),
    ("PUT", "/v1/kv/{key}", "/v1/kv/CALLER", "s3cret-value", Least::Client),
    (
        "POST",
        "/v1/kv/{key}/cas",
        "/v1/kv/CALLER/cas",
        r#"{"expect":"s3cret-value","value":"s3cret-value"}"#,
        Least::Client,
    ),
    ("POST", "/v1/txn", "/v1/txn", r#"{"success":[{"put":{"key":"CALLER","value":"s3cret-value"}}]}"#, Least::Client),
    ("DELETE", "/v1/kv/{key}", "/v1/kv/CALLER-2", "", Least::Client),
    ("GET", "/v1/members", "/v1/members", "", Least::Operator),
    ("POST", "/v1/members", "/v1/members", r#"{"id":9,"addr":"nowhere"}"#, Least::Operator),
    ("PUT", "/v1/members", "/v1/members", r#"{"voters":[]}"#, Least::Operator),
    ("DELETE", "/v1/members/{id}", "/v1/members/9", "", Least::Operator),
    ("PUT", "/v1/members/{id}/addr", "/v1/members/9/addr", r#"{"addr":"127.0.0.1:1"}"#, Least::Operator),
    ("PATCH", "/v1/members/{id}/metadata", "/v1/members/9/metadata", r#"{"labels":{"a":"1"}}"#, Least::Operator),
    ("POST", "/v1/members/{id}/promote", "/v1/members/9/promote", "", Least::Operator),
    ("POST", "/v1/transfer", "/v1/transfer", r#"{"to":9}"#, Least::Operator),
    ("POST", "/v1/snapshot", "/v1/snapshot", "", Least::Operator),
    ("GET", "/v1/backup", "/v1/backup", "", Least::Operator),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_is_served_to_the_callers_that_have_its_role_and_to_no_other() {
    let listed: BTreeSet<_> = ENDPOINTS.iter().map(|(method, path, _)| (*method, *path)).collect();
    let tested: BTreeSet<_> = REQUESTS.iter().map(|(method, path, ..)| (*method, *path)).collect();
    assert_eq!(listed, tested, "an endpoint needs a request and a least role here");

    let node = secured(&["client_ca", "tokens"]).await;
    for caller in CALLERS {
        for (method, _, path, body, least) in REQUESTS {
            for method in [Some(*method), (*method == "GET").then_some("HEAD")].into_iter().flatten() {
                check(&node, caller, method, path, body, *least).await;
            }
        }
        for (request, status) in [("PATCH /v1/kv/k", 405), ("GET /v1/snapshot", 405), ("GET /v1/nothing", 404)] {
            assert_eq!(ask(&node, caller, request, "").await.status, status, "{} {request}", caller.name);
        }
    }
    let operator = &CALLERS[5];
    for caller in CALLERS {
        let read = ask(&node, operator, &format!("GET /v1/kv/{}", caller.name), "").await;
        assert_eq!(read.status, if caller.has >= Least::Client { 200 } else { 404 }, "{}", caller.name);
    }
    // Texts that would push the result out of the log line.
    let (path, quotes) = (format!("DELETE /v1/members/{}9", "0".repeat(9000)), "\\\"".repeat(9000));
    let body = format!("{{\"id\":9,\"addr\":\"{quotes}\"}}");
    for (request, body) in [(&*path, ""), ("DELETE /v1/members/09", ""), ("POST /v1/members", &body)] {
        assert_eq!(ask(&node, operator, request, body).await.status, 400);
    }
    audited(&node).await;
}

/// With tokens, a caller on loopback needs one, unless the configuration says that it is an
/// operator; what it proves then counts instead.
#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_a_caller_on_loopback_needs_one_unless_the_configuration_says_otherwise() {
    for (auth, without) in [("", Least::Nothing), ("loopback = \"operator\"\n", Least::Operator)] {
        let node = serving(&["tokens"], auth).await;
        for (name, token, has, is_known) in [
            ("loopback", None, without, without > Least::Nothing),
            ("unknown-token", Some("x"), Least::Nothing, false),
            ("monitor-token", Some(MONITOR), Least::Monitor, true),
        ] {
            let caller = Caller { name, certificate: None, token, has, is_known };
            for (method, _, path, body, least) in REQUESTS {
                check(&node, &caller, method, path, body, *least).await;
            }
        }
    }
    let node = serving(&["tokens"], "allow_anonymous_reads = true\n").await;
    let nothing = Caller { is_known: false, ..caller("loopback", None, None, Least::Nothing) };
    for (request, body, status) in [
        ("GET /v1/kv?limit=1", "", 200),
        ("GET /v1/watch?prefix=", "", 200),
        ("GET /metrics", "", 200),
        ("PUT /v1/kv/k", "v", 401),
        ("POST /v1/txn", r#"{"success":[{"get":{"key":"k"}}]}"#, 401),
        ("GET /v1/backup", "", 401),
    ] {
        assert_eq!(ask(&node, &nothing, request, body).await.status, status, "{request}");
    }
    // A page whose name resolves to this address has no token.
    for (token, status) in [(String::new(), 421), (format!("authorization: Bearer {MONITOR}\r\n"), 200)] {
        let stream = TcpStream::connect(node.endpoint(ONE).trim_start_matches("http://")).await.expect("connected");
        let request = format!("GET /metrics HTTP/1.1\r\nhost: kv.example\r\nconnection: close\r\n{token}\r\n");
        assert_eq!(exchange(stream, &request).await.status, status, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_prove_their_identity_by_certificate_or_token_from_options_or_variables() {
    let node = secured(&["client_ca", "tokens"]).await;
    let https = https(&node);
    let path = |name: &str| node.path(&format!("certs/{name}"));
    let (ca, cert, key) = (path("ca.pem"), path("alice.pem"), path("alice.key"));
    let (token, open) = (node.path("token"), node.path("open-token"));
    write(&token, &format!("{CLIENT}\n"), 0o600);
    write(&open, &format!("{CLIENT}\n"), 0o644);
    let at = async |args: &[&str], more: &[&str]| {
        run(&[args, &["--json", "--endpoint", &https, "--ca", &ca], more].concat()).await
    };
    let as_alice = ["--cert", &cert, "--key", &key];
    at(&["put", "k", "v"], &as_alice).await.succeeded();
    at(&["snapshot"], &as_alice).await.succeeded();
    at(&["backup", "--out", &node.path("backup")], &as_alice).await.succeeded();
    at(&["get", "k"], &["--token-file", &token]).await.succeeded();
    let (cert_of_billing, key_of_billing) = (path("billing.pem"), path("billing.key"));
    let as_billing = ["--cert", &cert_of_billing, "--key", &key_of_billing];
    for (args, more, code) in [
        (&["put", "k", "v"][..], &[][..], "unauthenticated"),
        (&["status"], &[], "unauthenticated"),
        (&["backup", "--out", &node.path("backup-2")], &as_billing, "forbidden"),
        (&["snapshot"], &as_billing, "forbidden"),
        (&["transfer"], &["--token-file", &token], "forbidden"),
        (&["put", "k", "v"], &["--cert", &path("node-1.pem"), "--key", &path("node-1.key")], "forbidden"),
    ] {
        assert_eq!(at(args, more).await.failure(), (7, code.to_owned()), "{args:?} {more:?}");
    }
    for (more, says) in [
        (&["--cert", &*cert][..], "--cert: has no key"),
        (&["--key", &key], "--key: has no certificate"),
        (&["--cert", &cert, "--key", &path("billing.key")], "do not match"),
        (&["--cert", "/nowhere", "--key", &key], "--cert: /nowhere"),
        (&["--token-file", &open], "chmod 600"),
        (&["--token-file", &cert], "--token-file: "),
    ] {
        let ran = at(&["get", "k"], more).await;
        assert!(ran.code == Some(2) && ran.err.contains(says) && !ran.err.contains(CLIENT), "{says}: {ran:?}");
    }
    let variables =
        [("QUORATE_ENDPOINTS", &*https), ("QUORATE_CA", &ca), ("QUORATE_CERT", &cert), ("QUORATE_KEY", &key)];
    assert_eq!(run_with(&["get", "k"], &variables).await.succeeded(), "v");
    let variables = [("QUORATE_ENDPOINTS", &*https), ("QUORATE_CA", &ca), ("QUORATE_TOKEN_FILE", &token)];
    assert_eq!(run_with(&["get", "k"], &variables).await.succeeded(), "v");
}

/// Operators, metrics and probes may have a listener of their own; clients' requests are not served
/// there, nor operators' at that of clients.
#[tokio::test(flavor = "multi_thread")]
async fn operators_and_clients_may_have_listeners_of_their_own() {
    for kinds in [&["client_ca", "http_tls"][..], &["tokens"]] {
        let port = quorate_ports::reserve_one().expect("a free port");
        let admin = port.address().to_string();
        let node = serving(kinds, &format!("\n[http_admin]\nlisten = \"{admin}\"\n")).await;
        let operator = if kinds.contains(&"tokens") { &CALLERS[8] } else { &CALLERS[5] };
        for (method, _, path, body, least) in REQUESTS {
            let (request, body) = (format!("{method} {path}"), body.replace("CALLER", "k"));
            let (is_of_clients, is_of_page) = (*least == Least::Client, ["/", "/live"].contains(path));
            let at_clients = ask(&node, operator, &request, &body).await;
            let at_admin = ask_at(&node, &admin, operator, &request, &body).await;
            for (answer, is_served) in
                [(at_clients, is_of_clients || (*least == Least::Nothing && !is_of_page)), (at_admin, !is_of_clients)]
            {
                let is_elsewhere = answer.status == 404 && answer.body.contains("serves the path at its address");
                assert_eq!(!is_elsewhere, is_served, "{request}: {} {}", answer.status, answer.body);
                assert!(![401, 403, 405, 500].contains(&answer.status), "{request}: {}", answer.head);
            }
        }
        // Probes have no certificate.
        let nothing = Caller { is_known: false, ..caller("none", None, None, Least::Nothing) };
        assert_eq!(ask_at(&node, &admin, &nothing, "GET /readyz", "").await.status, 200);
        assert_eq!(ask_at(&node, &admin, &nothing, "GET /metrics", "").await.status, 401);
    }
}

/// A context counts as a whole: variables are not read beside it, and neither is it beside them.
#[tokio::test(flavor = "multi_thread")]
async fn a_context_says_once_where_the_cluster_is_and_who_calls() {
    let node = secured(&["client_ca", "tokens"]).await;
    let (https, config) = (https(&node), node.path("config"));
    let path = |name: &str| node.path(&format!("certs/{name}"));
    let (ca, cert, key) = (path("ca.pem"), path("alice.pem"), path("alice.key"));
    let in_config = async |args: &[&str], more: &[(&str, &str)]| {
        run_with(args, &[&[("XDG_CONFIG_HOME", &*config)], more].concat()).await
    };
    let connection = ["--endpoint", &*https, "--ca", &ca, "--cert", &cert, "--key", &key];
    let added = in_config(&[&["context", "add", "prod"][..], &connection].concat(), &[]).await.succeeded();
    assert!(added.contains("is in use"), "{added}");
    let elsewhere = ["context", "add", "other", "--endpoint", "http://127.0.0.1:1"];
    in_config(&elsewhere, &[]).await.succeeded();
    assert_eq!(in_config(&[&elsewhere[..], &["--json"]].concat(), &[]).await.failure(), (4, "conflict".to_owned()));
    let bad = in_config(&["context", "add", "bad", "--cert", &cert], &[]).await;
    assert!(bad.code == Some(2) && bad.err.contains("--cert: has no key"), "{bad:?}");
    let token = node.path("token");
    write(&token, CLIENT, 0o600);
    let exposed = ["--endpoint", &*https, "--endpoint", "http://10.0.0.1:1", "--ca", &ca];
    for (identity, says) in [
        (&["--token-file", &*token][..], "--token-file: endpoint http://10.0.0.1:1 would get the token in clear text"),
        (&["--cert", &cert, "--key", &key], "endpoint http://10.0.0.1:1: is http, where a certificate is never shown"),
    ] {
        for command in [&["context", "add", "exposed"][..], &["get", "k"]] {
            let ran = in_config(&[command, &exposed, identity].concat(), &[]).await;
            assert!(ran.code == Some(2) && ran.err.contains(says), "{ran:?}");
        }
    }
    let shop = ["context", "add", "shop", "--endpoint", &*https, "--ca", &ca, "--token-file", &token];
    in_config(&shop, &[]).await.succeeded();
    let as_shop = in_config(&["snapshot", "--context", "shop", "--json"], &[]).await;
    assert_eq!(as_shop.failure(), (7, "forbidden".to_owned()));
    let as_alice = ["snapshot", "--context", "shop", "--cert", &cert, "--key", &key];
    in_config(&as_alice, &[]).await.succeeded();
    in_config(&["context", "remove", "shop"], &[]).await.succeeded();

    in_config(&["put", "k", "v"], &[]).await.succeeded();
    in_config(&["status"], &[("QUORATE_CA", "/nowhere"), ("QUORATE_TOKEN_FILE", "/nowhere")]).await.succeeded();
    let other = in_config(&["get", "k", "--context", "other", "--json"], &[]).await;
    assert_eq!(other.failure(), (5, "unreachable".to_owned()));
    let anonymous = [("QUORATE_ENDPOINTS", &*https), ("QUORATE_CA", &ca)];
    assert_eq!(in_config(&["get", "k", "--json"], &anonymous).await.failure(), (7, "unauthenticated".to_owned()));
    let named = in_config(&["get", "k", "--endpoint", &https, "--ca", &ca, "--json"], &[]).await;
    assert_eq!(named.failure(), (7, "unauthenticated".to_owned()));

    in_config(&["context", "use", "other"], &[]).await.succeeded();
    assert_eq!(in_config(&["get", "k"], &[]).await.code, Some(5));
    assert_eq!(in_config(&["get", "k", "--context", "prod"], &[]).await.succeeded(), "v");
    let listed = in_config(&["context", "list"], &[]).await.succeeded();
    assert_eq!(listed, format!("* other  http://127.0.0.1:1\n  prod  {https}\n"));
    in_config(&["context", "remove", "other"], &[]).await.succeeded();
    let gone = in_config(&["get", "k", "--context", "other", "--json"], &[]).await;
    assert_eq!(gone.failure(), (3, "not_found".to_owned()));
}

/// Without tokens, TLS itself refuses a client without a certificate. Its request was then not
/// read, so the outcome of a write is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_certificate_tls_refuses_is_told_so_and_has_changed_nothing() {
    let node = secured(&["client_ca"]).await;
    let (https, ca) = (https(&node), node.path("certs/ca.pem"));
    let others = laid_out_with("demo", 1, "");
    issue(&others);
    let [cert, key, foreign_cert, foreign_key] = [
        node.path("certs/alice.pem"),
        node.path("certs/alice.key"),
        others.path("certs/alice.pem"),
        others.path("certs/alice.key"),
    ];
    let put = async |key: &str, more: &[&str]| -> Ran {
        run(&[&["put", key, "v", "--endpoint", &https, "--ca", &ca], more].concat()).await
    };
    for attempt in 0..5 {
        let ran = put("refused", &[]).await;
        assert!(ran.code == Some(2) && ran.err.contains("needs a client certificate"), "{attempt}: {ran:?}");
        let ran = put("refused", &["--cert", &foreign_cert, "--key", &foreign_key]).await;
        assert!(
            ran.code == Some(2) && ran.err.contains("does not accept this client certificate"),
            "{attempt}: {ran:?}"
        );
    }
    put("k", &["--cert", &cert, "--key", &key]).await.succeeded();
    let get = ["get", "refused", "--endpoint", &https, "--ca", &ca, "--cert", &cert, "--key", &key];
    assert_eq!(run(&get).await.code, Some(3), "no refused write took effect");
    let page = ask(&node, &CALLERS[5], "GET /metrics", "").await.body;
    let counted = page.lines().find_map(|line| {
        line.strip_prefix("quorate_http_refused_total{node=\"1\",reason=\"handshake\"} ")?.parse::<u32>().ok()
    });
    assert!(counted.is_some_and(|count| count >= 10), "{page}");
}

/// The lines of one caller are limited, and say how many were left out; those of others stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_caller_that_is_refused_again_and_again_takes_few_lines_of_the_log() {
    let node = serving(&["tokens"], "").await;
    let [client, operator] = [&CALLERS[7], &CALLERS[8]];
    let lines = || -> Vec<String> {
        let log = fs::read_to_string(node.layout().log_file(ONE)).expect("a log");
        log.lines().filter(|line| line.contains("caller=client shop result=\"forbidden\"")).map(Into::into).collect()
    };
    let (began, mut asked) = (Instant::now(), 0);
    while !lines().iter().any(|line| line.contains(" left_out=")) {
        assert_eq!(ask(&node, client, "POST /v1/snapshot", "").await.status, 403);
        asked += 1;
        assert!(began.elapsed() < PATIENCE, "{asked} requests: {:#?}", lines().last());
    }
    let allowed = 32 + usize::try_from(began.elapsed().as_secs()).expect("short") + 1;
    assert!(lines().len() <= allowed, "{} lines for {asked} requests", lines().len());
    // A line is written a little after the answer.
    while !fs::read_to_string(node.layout().log_file(ONE))
        .is_ok_and(|log| log.contains("caller=operator ops result=\"ok\" action=\"POST /v1/snapshot\""))
    {
        assert_eq!(ask(&node, operator, "POST /v1/snapshot", "").await.status, 200);
        assert!(began.elapsed() < PATIENCE * 2, "an action that was permitted is not logged");
    }
    let page = ask(&node, operator, "GET /metrics", "").await.body;
    let counted = format!("quorate_http_refused_total{{node=\"1\",reason=\"forbidden\"}} {asked}\n");
    assert!(page.contains(&counted), "{page}");
}

/// Checks one pair of caller and endpoint.
async fn check(node: &Running, caller: &Caller, method: &str, path: &str, body: &str, least: Least) {
    let [path, body] = [path, body].map(|text| text.replace("CALLER", caller.name));
    let answer = ask(node, caller, &format!("{method} {path}"), &body).await;
    let pair = format!("{}: {method} {path}: {}", caller.name, answer.head);
    for protection in ["x-content-type-options: nosniff", "cross-origin-resource-policy: same-origin"] {
        assert!(answer.head.contains(protection), "{pair}");
    }
    if caller.has >= least {
        assert!(![401, 403, 405, 500].contains(&answer.status), "{pair}");
        return;
    }
    let (status, code) = if caller.is_known { (403, "forbidden") } else { (401, "unauthenticated") };
    assert_eq!(answer.status, status, "{pair}");
    assert_eq!(answer.head.contains("www-authenticate: bearer"), status == 401, "{pair}");
    if method != "HEAD" {
        assert!(answer.body.contains(&format!("\"error\":\"{code}\"")), "{pair} {}", answer.body);
    }
}

/// The log has administrative requests with their callers and results, and no secret.
async fn audited(node: &Running) {
    // A line is written a little after the answer.
    let began = Instant::now();
    let log = loop {
        let log = fs::read_to_string(node.layout().log_file(ONE)).expect("a log");
        if log.contains("asked=\"AddRequest { id: NodeId(9), addr: \\\"\\\\\\\"") {
            break log;
        }
        assert!(began.elapsed() < PATIENCE, "the last request is not logged: {log}");
        tokio::task::yield_now().await;
    };
    let lines: Vec<_> = log.lines().filter(|line| line.contains("administrative request")).collect();
    for (caller, action, result) in [
        ("operator alice", "POST /v1/snapshot", "ok"),
        ("operator ops", "DELETE /v1/members/9", "not_found"),
        ("operator alice", "POST /v1/transfer", "bad_request"),
        ("operator alice", "DELETE /v1/members/00", "bad_request"),
        ("operator alice", "POST /v1/members\" asked=\"AddRequest { id: NodeId(9), addr: \\\"\\\\\\\"", "bad_request"),
        ("client billing", "GET /v1/backup", "forbidden"),
        ("node 1", "POST /v1/members", "forbidden"),
        ("127.0.0.1", "", "unauthenticated"),
    ] {
        let is_such = |line: &&&str| {
            line.contains(&format!("caller={caller} result=\"{result}\" action=\"{action}"))
                && line.contains(" INFO ")
                && line.ends_with('"')
        };
        assert!(lines.iter().any(|line| is_such(&line)), "{caller} {action} {result}: {lines:#?}");
    }
    let moved = lines.iter().find(|line| line.contains("PUT /v1/members/9/addr") && line.contains("not_found"));
    assert!(moved.is_some_and(|line| line.contains("127.0.0.1:1")), "the body of an action is part of its line");
    for secret in [MONITOR, CLIENT, OPERATOR, "s3cret-value"] {
        assert!(!log.contains(secret), "{secret}");
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends a request as a caller, and reads the answer; of one without a length only the head.
async fn ask(node: &Running, caller: &Caller, request: &str, body: &str) -> Answer {
    ask_at(node, node.endpoint(ONE).trim_start_matches("http://"), caller, request, body).await
}

async fn ask_at(node: &Running, address: &str, caller: &Caller, request: &str, body: &str) -> Answer {
    let is_json = body.starts_with('{');
    let json = if is_json { "content-type: application/json\r\n" } else { "" };
    let token = caller.token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let request =
        format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{json}{token}{length}\r\n{body}");
    let asked = async {
        let stream = TcpStream::connect(address).await.expect("connected");
        if !fs::read_to_string(node.layout().config_file(ONE)).expect("readable").contains("[http_tls]") {
            return exchange(stream, &request).await;
        }
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let tls = connector(Path::new(&node.path("certs")), caller.certificate);
        exchange(tls.connect(name, stream).await.expect("secured"), &request).await
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("{} {request}: no answer", caller.name))
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.expect("sent");
    let (mut answer, is_head) = (Vec::new(), request.starts_with("HEAD "));
    let head_end = loop {
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        assert!(stream.read_buf(&mut answer).await.expect("an answer") > 0, "{request}: it ended");
    };
    let head = String::from_utf8(answer[..head_end].to_vec()).expect("text").to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let end = head_end + 4 + length.filter(|_| !is_head).unwrap_or(0);
    while answer.len() < end && stream.read_buf(&mut answer).await.expect("a body") > 0 {}
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head, body: String::from_utf8_lossy(&answer[head_end + 4..]).into_owned() }
}

pub(crate) fn connector(certs: &Path, certificate: Option<&str>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certs.join("ca.pem")).expect("a certificate")).expect("an authority");
    connector_of(roots, certificate.map(|name| (certs, name)))
}

/// A client that trusts these authorities, with the certificate and key of this name in a directory.
pub(crate) fn connector_of(roots: RootCertStore, pair: Option<(&Path, &str)>) -> TlsConnector {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some((dir, name)) => {
            let cert = CertificateDer::from_pem_file(dir.join(format!("{name}.pem"))).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).expect("a key");
            builder.with_client_auth_cert(vec![cert], key).expect("a pair")
        }
    };
    TlsConnector::from(Arc::new(config))
}

/// A node that serves HTTPS with these kinds of identity, and has a leader.
async fn secured(kinds: &[&str]) -> Running {
    serving(&[kinds, &["http_tls"]].concat(), "").await
}

/// A node with these kinds of identity, and with this added to `[http_auth]`.
pub(crate) async fn serving(kinds: &[&str], auth: &str) -> Running {
    let mut node = laid_out_with("demo", 1, "");
    issue(&node);
    let tokens = node.path("tokens");
    write(&tokens, &format!("monitor prometheus {MONITOR}\nclient shop {CLIENT}\noperator ops {OPERATOR}\n"), 0o600);
    let mut text = fs::read_to_string(node.layout().config_file(ONE)).expect("readable");
    let [cert, key, ca] = ["node-1.pem", "node-1.key", "ca.pem"].map(|name| node.path(&format!("certs/{name}")));
    if kinds.contains(&"http_tls") {
        text += &format!("\n[http_tls]\ncert = {cert:?}\nkey = {key:?}\n");
        text += &if kinds.contains(&"client_ca") { format!("client_ca = {ca:?}\n") } else { String::new() };
    }
    let tokens = if kinds.contains(&"tokens") { format!("tokens = {tokens:?}\n") } else { String::new() };
    text += &format!("\n[http_auth]\n{tokens}{auth}");
    fs::write(node.layout().config_file(ONE), text).expect("written");
    node.start_all().await.expect("started");
    let deadline = Instant::now() + PATIENCE;
    let operator = caller("operator", Some("alice"), None, Least::Operator);
    while ask(&node, &operator, "GET /readyz", "").await.status != 200 {
        assert!(Instant::now() < deadline, "no leader");
    }
    node
}

/// Certificates of a client and of an operator.
pub(crate) fn issue(node: &Running) {
    let certs = node.path("certs").into();
    let (clients, operators) = (vec!["billing".to_owned()], vec!["alice".to_owned()]);
    make(&Args { clients, operators, ..Args::new(certs, "demo") }).expect("certificates");
}

pub(crate) fn write(file: &str, text: &str, mode: u32) {
    fs::write(file, text).expect("written");
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("changed");
}

fn https(node: &Running) -> String {
    node.endpoint(ONE).replace("http://", "https://")
}
