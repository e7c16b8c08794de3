use super::*;
use std::io::Write;

#[test]
fn the_documented_example_is_accepted_and_read_as_written() {
    let config = load(EXAMPLE).expect("valid");
    assert_eq!(config.node_id, NodeId(1));
    assert_eq!(config.peers[1], Peer { id: NodeId(2), addr: "n2.example:7001".to_owned(), witness: false });
    assert_eq!(config.timing, Timing::default());
    assert_eq!(config.snapshot, Snapshot::default());
    assert_eq!(config.storage, Storage::default());
    assert_eq!(config.limits, Limits::default());
}

#[test]
fn sections_with_defaults_may_be_left_out() {
    let short = EXAMPLE.split_once("[timing]").expect("there").0;
    assert_eq!(load(short).expect("valid"), load(EXAMPLE).expect("valid"));
}

#[test]
fn the_environment_overrides_the_file_and_a_flag_overrides_both() {
    let config = load_with(
        EXAMPLE,
        &[
            ("QUORATE_TIMING_HEARTBEAT_INTERVAL", "20ms"),
            ("QUORATE_TIMING_ELECTION_TIMEOUT", "100ms, 200ms"),
            ("QUORATE_NODE_ID", "2"),
            ("QUORATE_PEERS", "2=a:1,3=[::1]:2,4=b:3/witness"),
            ("QUORATE_PREFERS", "3, 2"),
            ("QUORATE_TIMING_PROMOTE_AFTER", "10s"),
            ("QUORATE_HTTP_TLS_CERT", "c.pem"),
            ("QUORATE_HTTP_TLS_KEY", "k.pem"),
            ("QUORATE_UNRELATED", "x"),
            ("PATH", "x"),
        ],
        &["--node-id", "3", "--allow-plaintext-http", "true"],
    )
    .expect("valid");
    assert_eq!(config.node_id, NodeId(3));
    assert_eq!(config.timing.heartbeat_interval, Duration::from_millis(20));
    assert_eq!(config.timing.election_timeout, [Duration::from_millis(100), Duration::from_millis(200)]);
    assert_eq!((config.peers.len(), config.witness()), (3, Some(NodeId(4))));
    assert_eq!((&config.prefers[..], config.timing.promote_after), (&[3, 2].map(NodeId)[..], Duration::from_secs(10)));
    assert_eq!(
        config.http_tls,
        Some(HttpTls { cert: "c.pem".into(), key: "k.pem".into(), client_ca: None, client_crl: None })
    );
    assert!(config.allow_plaintext_http);
}

/// Without `advertise_http`, other nodes' clients are told the address that the node listens at.
#[test]
fn a_node_publishes_the_url_that_it_is_told_or_the_one_that_it_listens_at() {
    let text = format!("{EXAMPLE}[labels]\nzone = \"a\"\n\"kv.rack\" = \"\"\n");
    let config = load(&text).expect("valid");
    let metadata = config.metadata("http://127.0.0.1:8001").expect("within bounds");
    assert_eq!(metadata.client_address(), Some("http://127.0.0.1:8001"));
    let labels = |metadata: &quorate::MemberMetadata| format!("{:?}", metadata.labels());
    assert_eq!(labels(&metadata), r#"{"kv.rack": "", "zone": "a"}"#);
    let flags = ["--advertise-http=https://kv.example", "--labels=rack=7, zone=b=c"];
    let metadata = load_with(&text, &[], &flags).expect("valid").metadata("http://127.0.0.1:8001").expect("in bounds");
    assert_eq!(metadata.client_address(), Some("https://kv.example"));
    assert_eq!(labels(&metadata), r#"{"rack": "7", "zone": "b=c"}"#, "a flag replaces all labels");
    for any in ["0.0.0.0", "[::]"] {
        let text = EXAMPLE.replace("http = \"127.0.0.1", &format!("allow_plaintext_http = true\nhttp = \"{any}"));
        let metadata = load(&text).expect("valid").metadata(&format!("http://{any}:8001")).expect("within bounds");
        assert!(metadata.is_empty(), "no other machine can reach {any}");
    }
    assert!(load_with(EXAMPLE, &[("QUORATE_LABELS", "")], &[]).expect("valid").labels.is_empty());
}

#[test]
fn there_is_one_witness_beside_two_that_keep_all() {
    let as_witness = |peer: &str| EXAMPLE.replace(peer, &format!("{peer}\nwitness = true"));
    let config = load(&as_witness("addr = \"n3.example:7001\"")).expect("valid");
    assert_eq!(config.witness(), Some(NodeId(3)));
    let two = as_witness("addr = \"n3.example:7001\"").replace("id = 2\n", "id = 2\nwitness = true\n");
    let error = load(&two).expect_err("bad").to_string();
    assert!(error.contains("peers.witness: 2 entries are witnesses"), "{error}");
    let alone = as_witness("addr = \"n3.example:7001\"").replace("[[peers]]\nid = 2\naddr = \"n2.example:7001\"\n", "");
    let error = load(&alone).expect_err("bad").to_string();
    assert!(error.contains("two peers that are not witnesses"), "{error}");
    let error = load(&format!("prefers = [0]\n{EXAMPLE}")).expect_err("bad").to_string();
    assert!(error.contains("start at 1"), "{error}");
}

#[test]
fn a_bad_override_is_named_by_the_variable_or_flag_that_gave_it() {
    let error = load_with(EXAMPLE, &[("QUORATE_NODE_ID", "one")], &[]).expect_err("bad").to_string();
    assert!(error.starts_with("QUORATE_NODE_ID: `one`"), "{error}");
    let error = load_with(EXAMPLE, &[], &["--peers", "1:a"]).expect_err("bad").to_string();
    assert!(error.starts_with("--peers: `1:a`"), "{error}");
}

/// An error names the place of the value: the line of the file, the variable or the flag.
#[test]
fn an_error_names_the_true_place_of_a_value() {
    let line_of = |text: &str, part: &str| {
        let before = text.split(part).next().expect("a beginning");
        before.matches('\n').count() + 1
    };
    for (from, to, key) in [
        ("max_value_bytes = 1048576", "max_value_bytes = 0", "limits.max_value_bytes"),
        ("max_value_bytes = 1048576", "max_value_bytes = -1", "limits.max_value_bytes"),
        ("n2.example:7001", "n2.example", "peers[1].addr"),
        ("heartbeat_interval = \"50ms\"", "heartbeat_interval = \"1s\"", "timing.heartbeat_interval"),
        ("keep_entries = 1000", "keep_enties = 1000", "snapshot.keep_enties"),
    ] {
        let text = EXAMPLE.replacen(from, to, 1);
        let error = load(&text).expect_err(to).to_string();
        let (line, place) = (line_of(&text, to), error.split(": ").take(2).collect::<Vec<_>>().join(": "));
        assert!(place.ends_with(&format!("kv.toml:{line}: {key}")), "{error}");
    }
    for (key, value) in [
        ("limits.max_value_bytes", "0"),
        ("limits.max_value_bytes", "-1"),
        ("peers", "1=n1.example"),
        ("peers", "2=n2.example:1,3=n3.example:1"),
        ("timing.election_timeout", "1s"),
        ("cluster", "De mo"),
        ("http", "0.0.0.0:1"),
        ("raft", "somewhere"),
        ("advertise_http", "somewhere"),
        ("labels", "zone"),
        ("labels", "Zone=a"),
    ] {
        let key = KEYS.iter().find(|known| known.path == key).expect("a key");
        let error = load_with(EXAMPLE, &[(&key.variable(), value)], &[]).expect_err(value).to_string();
        assert!(error.starts_with(&format!("{}: ", key.variable())), "{error}");
        let error = load_with(EXAMPLE, &[], &[&format!("{}={value}", key.flag())]).expect_err(value).to_string();
        assert!(error.starts_with(&format!("{}: ", key.flag())), "{error}");
    }
    let error =
        load_with(EXAMPLE.split_once("[timing]").expect("there").0, &[], &["--timing-election-timeout=80ms,90ms"]);
    let error = error.expect_err("bad").to_string();
    assert!(error.starts_with("--timing-election-timeout: 80ms is less than twice"), "{error}");
    let error = load_with(EXAMPLE, &[], &["--node-id=9"]).expect_err("bad").to_string();
    assert!(error.starts_with("--node-id: 9 is not among peers"), "{error}");
    // A variable contradicts the file, and a flag contradicts a variable.
    let slow = [("QUORATE_TIMING_HEARTBEAT_INTERVAL", "1s")];
    let error = load_with(EXAMPLE, &slow, &[]).expect_err("bad").to_string();
    assert!(error.starts_with("QUORATE_TIMING_HEARTBEAT_INTERVAL: 1s is more than half"), "{error}");
    let error = load_with(EXAMPLE, &slow, &["--timing-election-timeout=1s,2s"]).expect_err("bad").to_string();
    assert!(error.starts_with("--timing-election-timeout: 1s is less than twice"), "{error}");
}

/// Values at each bound, one below it and one above it: a start refuses no configuration that
/// `--check` accepts, and `--check` is not stricter than the library's documented bounds.
#[test]
fn an_accepted_configuration_is_the_one_that_a_node_starts_with() {
    use quorate::{Change, Limits as Node, Snapshots, storage::Wal};
    let around = |bound: u64| [bound.saturating_sub(1), bound, bound.saturating_add(1)];
    let numbers: &[(&str, &[u64])] = &[
        ("limits.max_value_bytes", &[0, 1, Limits::VALUE_BYTES_MAX as u64, Node::COMMAND_BYTES_MAX as u64, 8 << 20]),
        ("limits.max_in_flight_proposals", &[0, 1]),
        ("limits.max_in_flight_bytes", &[0, 1]),
        ("snapshot.every_entries", &[0]),
        ("snapshot.every_bytes", &[0]),
        ("snapshot.keep_entries", &[0]),
        ("snapshot.max_bytes_per_second", &[0, Snapshots::BYTES_PER_SECOND_MIN]),
        ("storage.segment_bytes", &[*Wal::SEGMENT_BYTES.start(), *Wal::SEGMENT_BYTES.end()]),
    ];
    let (mut accepted, mut refused) = (0, 0);
    let mut check = |flag: &str| match load_with(EXAMPLE, &[], &[flag]) {
        Ok(config) => {
            accepted += 1;
            config.builder().check().expect(flag);
            assert!(Wal::SEGMENT_BYTES.contains(&config.storage.segment_bytes), "{flag}: it would be changed silently");
        }
        Err(error) => {
            refused += 1;
            assert!(error.to_string().starts_with(flag.split('=').next().expect("a name")), "{error}");
        }
    };
    for (path, bounds) in numbers {
        let flag = KEYS.iter().find(|key| key.path == *path).expect("a key").flag();
        for value in bounds.iter().flat_map(|bound| around(*bound)) {
            check(&format!("{flag}={value}"));
        }
    }
    for spread in ["2ms,3ms", "100ms,101ms", "100ms,60s", "100ms,60001ms", "100ms,100ms", "100ms,1000000000000000s"] {
        check(&format!("--timing-election-timeout={spread}"));
    }
    for heartbeat in ["0s", "999us", "1ms", "75ms", "76ms", "18446744073709551615s"] {
        check(&format!("--timing-heartbeat-interval={heartbeat}"));
    }
    let peers = |count: usize| {
        let peers = (1..=count).map(|id| format!("{id}=h{id}:1")).collect::<Vec<_>>();
        format!("--peers={}", peers.join(","))
    };
    let host = |bytes: usize| format!("--peers=1={}:1", "h".repeat(bytes - 2));
    check(&peers(Change::MEMBERS_MAX));
    check(&peers(Change::MEMBERS_MAX + 1));
    check(&host(Change::ADDRESS_BYTES_MAX));
    check(&host(Change::ADDRESS_BYTES_MAX + 1));
    assert!(accepted >= 20 && refused >= 12, "{accepted} accepted, {refused} refused");
    let most = Limits { max_value_bytes: Limits::VALUE_BYTES_MAX + 1, ..Limits::default() };
    assert!(most.command_bytes_max() > Node::COMMAND_BYTES_MAX, "the bound is the library's");
}

#[test]
fn every_key_of_the_file_can_be_overridden() {
    let mut missing: Vec<String> = Vec::new();
    let full = format!("allow_plaintext_http = true\n{EXAMPLE}[http_tls]\ncert = \"c\"\nkey = \"k\"\n");
    for (name, value) in toml::from_str::<toml::Table>(&full).expect("TOML") {
        let paths = match value {
            toml::Value::Table(section) => section.keys().map(|key| format!("{name}.{key}")).collect(),
            _ => vec![name],
        };
        missing.extend(paths.into_iter().filter(|path| !KEYS.iter().any(|key| key.path == path)));
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn each_mistake_is_one_line_that_names_the_key_and_the_remedy() {
    let cases = [
        ("node_id = 1", "node_id = 1\nnodeid = 2", "nodeid: unknown key; known keys: `node_id`"),
        ("heartbeat_interval", "heartbeet_interval", "timing.heartbeet_interval: unknown key"),
        ("addr = \"n2", "port = 1\naddr = \"n2", "peers[1].port: unknown key"),
        ("cluster = \"demo\"", "", "cluster: missing; add it"),
        ("ca = \"certs/ca.pem\"", "", "tls.ca: missing"),
        ("node_id = 1", "node_id = \"1\"", "node_id: invalid type"),
        ("node_id = 1", "node_id = 0", "node_id: 0 is not a node id"),
        ("node_id = 1", "node_id = 1 2", "kv.toml:2: "),
        ("node_id = 1", "node_id = 4", "peers: node_id 4 is not among them"),
        ("id = 2", "id = 3", "peers: two entries have id 3"),
        ("n2.example:7001", "n2.example", "peers[1].addr: `n2.example` of peer 2"),
        ("n2.example:7001", ":7001", "peers[1].addr: `:7001` of peer 2"),
        ("n2.example:7001", "n2.example:0", "peers[1].addr: `n2.example:0` of peer 2"),
        ("n2.example:7001", "0.0.0.0:7001", "peers[1].addr: `0.0.0.0:7001` of peer 2 cannot be dialled"),
        ("n2.example:7001", "[::]:7001", "peers[1].addr: `[::]:7001` of peer 2 cannot be dialled"),
        ("n2.example:7001", "N3.example:7001", "peers[2].addr: peers 2 and 3 have the same address"),
        ("raft = \"127.0.0.1:7001\"", "raft = \"localhost\"", "raft: "),
        ("http = \"127.0.0.1:8001\"", "http = \"0.0.0.0:8001\"", "http: 0.0.0.0:8001 is reachable by other machines"),
        ("\"demo\"", "\"De mo\"", "cluster: `De mo`"),
        ("\"50ms\"", "\"150ms\"", "timing.heartbeat_interval: 150ms is more than half of"),
        ("\"50ms\"", "\"18446744073709551615s\"", "timing.heartbeat_interval: 584542046090years"),
        ("\"50ms\"", "\"0s\"", "timing.heartbeat_interval: 0s is too short"),
        ("\"50ms\"", "\"50\"", "timing.heartbeat_interval: `50` is not a duration"),
        ("\"150ms\"", "\"400ms\"", "timing.election_timeout: 400ms is not below 300ms"),
        ("\"300ms\"", "\"2h\"", "timing.election_timeout: 2h is too long"),
        ("every_entries = 10000", "every_entries = 0", "snapshot.every_entries: is 0"),
        ("every_bytes = 67108864", "every_bytes = 0", "snapshot.every_bytes: is 0"),
        ("max_bytes_per_second = 33554432", "max_bytes_per_second = 9", "snapshot.max_bytes_per_second: 9 is too slow"),
        ("segment_bytes = 67108864", "segment_bytes = 4096", "storage.segment_bytes: 4096 is not between"),
        ("max_value_bytes = 1048576", "max_value_bytes = 0", "limits.max_value_bytes: is 0"),
        ("max_value_bytes = 1048576", "max_value_bytes = 99999999", "limits.max_value_bytes: 99999999 is more"),
        ("n2.example:7001", "n2.example:+7001", "peers[1].addr: `n2.example:+7001` of peer 2"),
        ("node_id = 1", "node_id = 1\nprefers = [1, 2, 1]", "prefers: names node 1 twice"),
        (
            "node_id = 1",
            "node_id = 1\nadvertise_http = \"10.0.0.1:8001\"",
            "kv.toml:3: advertise_http: the client address",
        ),
        ("node_id = 1", "node_id = 1\nadvertise_http = \"http://0.0.0.0:1\"", "advertise_http: the client address"),
        ("node_id = 1", "node_id = 1\nlabels.Zone = \"a\"", "kv.toml:3: labels: the label key `Zone`"),
        ("node_id = 1", "node_id = 1\nlabels.zone = \"a\\nb\"", "kv.toml:3: labels.zone: the value of label `zone`"),
        ("node_id = 1", "node_id = 1\nlabels.zone = 1", "labels.zone: invalid type: integer"),
        ("[limits]", "[[limits]]", "limits: invalid type: sequence"),
        (
            "[tls]\nca = \"certs/ca.pem\"\ncert = \"certs/node-1.pem\"\nkey = \"certs/node-1.key\"\n",
            "tls = [\"certs/ca.pem\", \"certs/node-1.pem\", \"certs/node-1.key\"]\n",
            "tls: invalid type: sequence",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(EXAMPLE.contains(from), "the example has no {from}");
        let error = load(&EXAMPLE.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.contains(expected), "{to}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn an_entry_to_be_skipped_is_named_as_the_failure_names_it() {
    let named = |checksum: &str| load(&format!("{EXAMPLE}\n[[skip]]\nindex = 12\nterm = 3\nchecksum = {checksum}\n"));
    let config = named("\"0x0123abcd\"").expect("valid");
    assert_eq!(config.skip, [SkippedEntry { index: 12, term: 3, checksum: 0x0123_abcd }]);
    for checksum in ["\"0x123\"", "\"0123abcd\"", "\"0x+123abcd\"", "\"0x0123abcg\"", "19114957"] {
        let error = named(checksum).expect_err(checksum).to_string();
        assert!(error.contains("skip[0].checksum: ") && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn a_plaintext_address_that_others_reach_is_accepted_when_asked_for() {
    let text = EXAMPLE.replace("127.0.0.1:8001\"", "0.0.0.0:8001\"\nallow_plaintext_http = true");
    assert!(load(&text).is_ok());
}

/// Off loopback, plain text and callers without an identity must be permitted by name.
#[test]
fn an_address_that_others_reach_needs_tls_and_an_identity_unless_the_configuration_says_otherwise() {
    let tls = "http_tls = { cert = \"c\", key = \"k\" }";
    let with_ca = "http_tls = { cert = \"c\", key = \"k\", client_ca = \"ca\" }";
    for (more, refused) in [
        (&[][..], Some("allow_plaintext_http = true")),
        (&["http_auth.tokens = \"t\""], Some("allow_plaintext_http = true")),
        (&["http_auth.allow_anonymous = true"], Some("allow_plaintext_http = true")),
        (&[tls], Some("http_auth.allow_anonymous = true")),
        (&[tls, "allow_plaintext_http = true"], Some("http_auth.allow_anonymous = true")),
        (&[tls, "http_auth.loopback = \"anonymous\""], Some("http_auth.allow_anonymous = true")),
        (&[tls, "http_auth.allow_anonymous = true"], None),
        (&[tls, "http_auth.allow_anonymous_reads = true"], None),
        (&[tls, "http_auth.tokens = \"t\""], None),
        (&[with_ca], None),
        (&["allow_plaintext_http = true", "http_auth.tokens = \"t\""], None),
    ] {
        let text = |http: &str| EXAMPLE.replace("127.0.0.1:8001\"", &format!("{http}\"\n{}", more.join("\n")));
        let given = load(&text("0.0.0.0:8001"));
        match refused {
            None => drop(given.expect("valid")),
            Some(remedy) => {
                let error = given.expect_err("refused").to_string();
                assert!(error.contains(": http: 0.0.0.0:8001 is reachable") && error.contains(remedy), "{error}");
            }
        }
        load(&text("127.0.0.1:8001")).expect("valid on loopback");
    }
    let listener = "\n[http_admin]\nlisten = \"127.0.0.1:9001\"\n";
    let one = EXAMPLE.replace("max_http_connections = 4096", "max_http_connections = 1") + listener;
    let error = load(&one).expect_err("refused").to_string();
    assert!(error.contains(": limits.max_http_connections: is 1 for two listeners; use 2 or more"), "{error}");
    load(&one.replace("max_http_connections = 1", "max_http_connections = 2")).expect("a place for each");
    let error = load(&format!("http_admin.listen = \"0.0.0.0:9001\"\n{EXAMPLE}")).expect_err("refused").to_string();
    assert!(error.contains(": http_admin.listen: 0.0.0.0:9001 is reachable"), "{error}");
    let error = load(&format!("http_auth.loopback = \"client\"\n{EXAMPLE}")).expect_err("bad").to_string();
    assert!(error.contains("http_auth.loopback"), "{error}");
}

#[test]
fn a_list_of_revoked_clients_needs_their_authority() {
    let crl = "[http_tls]\ncert = \"c\"\nkey = \"k\"\nclient_crl = \"r\"\n";
    let error = load(&format!("{EXAMPLE}{crl}")).expect_err("bad").to_string();
    assert!(error.contains("http_tls.client_crl: there is no http_tls.client_ca"), "{error}");
    let config = load_with(&format!("{EXAMPLE}{crl}client_ca = \"ca\"\n"), &[("QUORATE_TLS_CRL", "own")], &[]);
    let config = config.expect("valid");
    assert_eq!(config.http_tls.and_then(|tls| tls.client_crl), Some("r".into()));
    assert_eq!(config.tls.crl, Some("own".into()));
}

const EXAMPLE: &str = r#"
node_id = 1
cluster = "demo"
data_dir = "data/1"
raft = "127.0.0.1:7001"
http = "127.0.0.1:8001"

[tls]
ca = "certs/ca.pem"
cert = "certs/node-1.pem"
key = "certs/node-1.key"

[[peers]]
id = 1
addr = "127.0.0.1:7001"

[[peers]]
id = 2
addr = "n2.example:7001"

[[peers]]
id = 3
addr = "n3.example:7001"

[timing]
heartbeat_interval = "50ms"
election_timeout = ["150ms", "300ms"]

[snapshot]
every_entries = 10000
every_bytes = 67108864
keep_entries = 1000
max_bytes_per_second = 33554432

[storage]
segment_bytes = 67108864

[limits]
max_value_bytes = 1048576
max_in_flight_proposals = 4096
max_in_flight_bytes = 67108864
max_http_connections = 4096
"#;

fn load(text: &str) -> Result<Config, ConfigError> {
    load_with(text, &[], &[])
}

fn load_with(text: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    use clap::{Args, FromArgMatches};
    let mut file = tempfile::Builder::new().suffix("kv.toml").tempfile().expect("temporary file");
    file.write_all(text.as_bytes()).expect("written");
    let command = Overrides::augment_args(clap::Command::new("serve").no_binary_name(true));
    let flags = Overrides::from_arg_matches(&command.get_matches_from(flags)).expect("known flags");
    let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Config::load(file.path(), environment, &flags).map(|(config, _)| config)
}
