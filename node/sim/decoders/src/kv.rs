//! Properties of the key-value server's decoders: commands and replies, snapshots, configurations.

use quorate::{At, Hosted, Index, LogTime, Refused, State, StateMachine};
use quorate_kv::{
    config::{Config, ConfigError, KEYS, Overrides, Peer, State as Membership, Timing},
    machine::{
        Command, Compare, Holds, Key, Kv, Operation, OperationReply, Reply, TXN_READ_BYTES_MAX, Txn, TxnReply, Value,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

/// Applies any bytes as a command, and reads them as an outcome.
///
/// # Panics
/// If one of these properties is violated: bytes that are no command are refused and change
/// nothing; every other entry is answered, as its command is when it is encoded anew; and an
/// outcome that is read is the same when it is encoded anew.
pub fn commands(input: &[u8]) {
    if let Some(Ok(reply)) = Hosted::<Kv>::decode(input) {
        let again = postcard::to_extend(&reply, vec![0]).expect("it has a form");
        assert_eq!(Hosted::<Kv>::decode(&again), Some(Ok(reply)));
    }
    let (mut kv, answered) = applied(input);
    let Ok(answered) = answered else {
        return assert!(kv.service().is_empty());
    };
    // The envelope: a tag, and version 0.
    let (command, _) = postcard::take_from_bytes::<Command>(&input[2..]).expect("it was applied");
    let (again, same) = applied(&Hosted::<Kv>::encode(&command));
    assert_eq!((again.service().state_hash(), same), (kv.service().state_hash(), Ok(answered.clone())));
    let (key, value, answer) = match command {
        Command::Put { key, value, .. } => (key, Some(value), Reply::Put),
        Command::Delete { key } => (key, None, Reply::Delete { existed: false }),
        Command::Cas { key, expect: None, value } => (key, Some(value), Reply::Cas { swapped: true }),
        Command::Cas { key, expect: Some(_), .. } => (key, None, Reply::Cas { swapped: false }),
        Command::Txn(txn) => return executed(&txn, &answered),
    };
    assert_eq!((kv.query(key), answered), (value, answer));
    kv.flush(Index(1));
}

/// Applies these bytes to an empty map.
fn applied(bytes: &[u8]) -> (Hosted<Kv>, Result<Reply, Refused>) {
    let mut kv = Hosted::new(Kv::default);
    let outcome = kv.apply(&At { index: Index(1), ..At::default() }, bytes);
    (kv, Hosted::<Kv>::decode(&outcome).expect("whatever it is, it is answered"))
}

/// Checks the reply to a transaction on an empty map, which can only read what it put.
fn executed(txn: &Txn, answered: &Reply) {
    let holds = txn.compare.iter().all(|compare| compare.holds == Holds::Nothing);
    let operations = if holds { &txn.success } else { &txn.failure };
    let (mut twin, mut bytes_read) = (BTreeMap::new(), 0);
    let results = operations.iter().map(|operation| match operation {
        Operation::Put { key, value } => {
            twin.insert(key, value);
            OperationReply::Put
        }
        Operation::Delete { key } => OperationReply::Delete { existed: twin.remove(key).is_some() },
        Operation::Get { key } => {
            let value = twin.get(key).copied().cloned();
            bytes_read += value.as_ref().map_or(0, |value| value.len());
            OperationReply::Get { value }
        }
    });
    let done = TxnReply::Done { succeeded: holds, results: results.collect() };
    let expected = if bytes_read > TXN_READ_BYTES_MAX { TxnReply::TooMuchRead } else { done };
    assert_eq!(*answered, Reply::Txn(expected));
}

/// Seed inputs for [`commands`].
#[must_use]
pub fn command_seeds() -> Vec<Vec<u8>> {
    let (key, value) = (|| Key::from("key"), || Value::from(b"value"));
    let txn = Txn {
        compare: [Holds::Nothing, Holds::Something, Holds::Value(value())]
            .map(|holds| Compare { key: key(), holds })
            .into(),
        success: vec![Operation::Put { key: key(), value: value() }, Operation::Delete { key: key() }],
        failure: vec![Operation::Put { key: key(), value: value() }, Operation::Get { key: key() }],
    };
    let results = vec![
        OperationReply::Put,
        OperationReply::Delete { existed: true },
        OperationReply::Get { value: None },
        OperationReply::Get { value: Some(value()) },
    ];
    let commands = [
        Command::Put { key: key(), value: value(), ttl_ms: None },
        Command::Put { key: key(), value: value(), ttl_ms: Some(1) },
        Command::Delete { key: key() },
        Command::Cas { key: key(), expect: Some(value()), value: value() },
        Command::Cas { key: key(), expect: None, value: value() },
        Command::Txn(Txn { compare: vec![], ..txn.clone() }),
        Command::Txn(txn),
    ];
    let replies = [
        Reply::Put,
        Reply::Delete { existed: true },
        Reply::Cas { swapped: false },
        Reply::Txn(TxnReply::Done { succeeded: true, results }),
        Reply::Txn(TxnReply::TooMuchRead),
    ];
    let replies = replies.iter().filter_map(|reply| postcard::to_extend(reply, vec![0]).ok());
    commands.iter().map(|command| Hosted::<Kv>::encode(command).to_vec()).chain(replies).collect()
}

/// Restores the map from a snapshot.
///
/// An input is a control byte and a snapshot. If bit 0 of the control byte is set, count and hash
/// in the header are corrected first.
///
/// # Panics
/// If one of these properties is violated: an error is one line, and leaves the map empty; and a
/// restored map is written as a snapshot of the same length that restores to an equal map.
pub fn kv_snapshot(input: &[u8]) {
    let Some((control, rest)) = input.split_first() else { return };
    let mut bytes = rest.to_vec();
    if control & 1 == 1 && bytes.len() >= HEAD_BYTES {
        let (count, hash) = pairs_of(&bytes[HEAD_BYTES..]);
        bytes[8..16].copy_from_slice(&count.to_le_bytes());
        bytes[16..24].copy_from_slice(&hash.to_le_bytes());
    }
    let mut kv = Kv::default();
    kv.insert("from before".into(), b"gone".into(), None);
    if let Err(error) = kv.load(&mut &bytes[..]) {
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
        return assert!(kv.is_empty());
    }
    let again = written(&kv);
    assert_eq!(again.len(), bytes.len());
    let mut restored = Kv::default();
    restored.load(&mut &again[..]).expect("it was written down");
    assert_eq!((restored.len(), restored.state_hash()), (kv.len(), kv.state_hash()));
    assert_eq!(written(&restored), again, "equal states give equal bytes");
}

/// The length of the header in bytes.
const HEAD_BYTES: usize = 24;

/// The number of complete pairs, and the hash of the state that they form.
fn pairs_of(mut rest: &[u8]) -> (u64, u64) {
    let (mut kv, mut count) = (Kv::default(), 0);
    while let Some((head, behind)) = rest.split_first_chunk::<14>() {
        let [k0, k1, v0, v1, v2, v3, until @ ..] = *head;
        let key_bytes = usize::from(u16::from_le_bytes([k0, k1]));
        let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        let Some((key, behind)) = behind.split_at_checked(key_bytes) else { break };
        let Some((value, behind)) = behind.split_at_checked(value_bytes) else { break };
        let Ok(key) = str::from_utf8(key) else { break };
        kv.insert(key.into(), value.into(), Some(LogTime(u64::from_le_bytes(until))));
        (count, rest) = (count + 1, behind);
    }
    (count, kv.state_hash())
}

fn written(kv: &Kv) -> Vec<u8> {
    let mut bytes = Vec::new();
    kv.save()(&mut bytes).expect("memory takes everything");
    bytes
}

/// Seed inputs for [`kv_snapshot`].
#[must_use]
pub fn kv_snapshot_seeds() -> Vec<Vec<u8>> {
    let of = |keys: &[&str]| {
        let mut kv = Kv::default();
        for key in keys {
            let until = (key.len() == 1).then_some(LogTime(7));
            kv.insert((*key).into(), (&[7; 9][key.len() % 9..]).into(), until);
        }
        written(&kv)
    };
    let many = of(&["a", "b", "", "longer key", "another one"]);
    [(1, many.clone()), (0, many), (1, of(&["k"])), (1, of(&[]))]
        .map(|(control, bytes)| [&[control][..], &bytes].concat())
        .into()
}

/// Parses a configuration.
///
/// An input is the text of a file, then, separated by zero bytes, environment variables that
/// override it (`KEY=VALUE`, without the prefix).
///
/// # Panics
/// If one of these properties is violated: an error is one line; an accepted configuration is
/// consistent; and with an additional unknown key in any of its tables, it is refused with an error
/// that names the key.
pub fn config(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let text = parts.next().unwrap_or_default();
    let variables: Vec<(String, String)> = parts
        .filter_map(|part| part.split_once('=').map(|(key, value)| (format!("QUORATE_{key}"), value.to_owned())))
        .collect();
    let read = |text: &str| {
        let read = Config::read(Path::new("kv.toml"), text, variables.clone(), &Overrides::default());
        read.inspect_err(|error: &ConfigError| assert_eq!(error.to_string().lines().count(), 1, "{error}"))
    };
    let Ok((config, _)) = read(&text) else { return };
    makes_sense(&config);
    let Ok(table) = toml::from_str::<toml::Table>(&text) else { panic!("it was read") };
    // Any key is a label's.
    let is_closed = |(name, value): &(&String, &toml::Value)| value.is_table() && *name != "labels";
    for name in table.iter().filter(is_closed).map(|(name, _)| Some(name)).chain([None]) {
        let mut table = table.clone();
        let (target, place) = match name {
            Some(name) => (table.get_mut(name).and_then(toml::Value::as_table_mut), format!("{name}.unheard_of")),
            None => (Some(&mut table), "unheard_of".to_owned()),
        };
        target.expect("it is a table").insert("unheard_of".to_owned(), toml::Value::Boolean(true));
        let error = read(&table.to_string()).expect_err("the key is unknown").to_string();
        assert!(error.contains(&format!("{place}: unknown key")), "{error}");
    }
}

fn makes_sense(config: &Config) {
    let ids: BTreeSet<_> = config.peers.iter().map(|peer| peer.id).collect();
    assert!(
        ids.len() == config.peers.len()
            && (ids.contains(&config.node_id) || config.state == Membership::Join)
            && !ids.iter().any(|id| id.0 == 0)
    );
    for Peer { addr, .. } in &config.peers {
        assert!(addr.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse() != Ok(0u16)));
    }
    assert!(
        (1..=63).contains(&config.cluster.len()) && !config.cluster.contains(|c: char| c.is_uppercase() || c == '.')
    );
    let Timing { heartbeat_interval, election_timeout: [shortest, longest], .. } = config.timing;
    assert!(heartbeat_interval >= Duration::from_millis(1) && heartbeat_interval <= shortest / 2);
    assert!(shortest < longest && longest <= Duration::from_secs(60));
    let admin = config.http_admin.as_ref().map(|admin| admin.listen);
    if [config.http].into_iter().chain(admin).any(|address| !address.ip().is_loopback()) {
        let is_named = config.may_lack_certificate() || config.asks_for_identity();
        assert!(if config.http_tls.is_some() { is_named } else { config.allow_plaintext_http });
    }
    assert!(config.limits.command_bytes_max() <= quorate::Limits::COMMAND_BYTES_MAX, "a command fits a frame");
    let metadata = config.metadata("http://127.0.0.1:1").expect("a start refuses nothing that was accepted");
    assert!(metadata.labels() == &config.labels, "they are published as they are written");
    config.builder().check().expect("a start refuses nothing that was accepted");
    assert!(config.snapshot.every_entries > 0 && config.snapshot.every_bytes > 0);
}

/// Seed inputs for [`config`].
#[must_use]
pub fn config_seeds() -> Vec<Vec<u8>> {
    let short = "node_id = 1\ncluster = \"demo\"\ndata_dir = \"d\"\nraft = \"127.0.0.1:7001\"\nhttp = \"127.0.0.1:8001\"\n\
        [tls]\nca = \"a\"\ncert = \"c\"\nkey = \"k\"\n[[peers]]\nid = 1\naddr = \"h:1\"\n";
    let full = "[[peers]]\nid = 2\naddr = \"[::1]:7001\"\n[timing]\nheartbeat_interval = \"20ms\"\n\
        election_timeout = [\"100ms\", \"1m\"]\n[snapshot]\nevery_entries = 1\nkeep_entries = 0\n\
        max_bytes_per_second = 0\n[storage]\nsegment_bytes = 65536\n[limits]\nmax_value_bytes = 8388608\n\
        max_in_flight_proposals = 1\n[http_tls]\ncert = \"c\"\nkey = \"k\"\n[labels]\nzone = \"a\"\n";
    let variables = KEYS.iter().map(|key| {
        let value = match key.path {
            "peers" => "1=a:1, 2=b:2",
            "advertise_http" => "https://[::1]:8001",
            "labels" => "zone=a,kv.rack=",
            "timing.election_timeout" => "150ms, 2s",
            path if path.contains("interval") => "18446744073709551615s",
            path if path.contains("http") => "true",
            _ => "1",
        };
        format!("{short}\0{}={value}", key.variable().trim_start_matches("QUORATE_"))
    });
    // The corpus is small, so only some variables are used.
    let variables = variables.step_by(4);
    [short.to_owned(), format!("{short}{full}")].into_iter().chain(variables).map(String::into_bytes).collect()
}
