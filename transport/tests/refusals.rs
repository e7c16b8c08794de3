//! Peers that are refused: each refusal is counted by its reason and logged once.

mod support;

use quorate_raft::NodeId;
use quorate_transport::{
    Quic,
    certificates::{Authority, Issued},
    identity::{Role, identity_of, node_name},
    network::{Introduction, NetworkError},
};
use quorate_transport_testing::conformance::TestNode;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use std::{error::Error, fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};
use support::stranger::{ALPN, connect, hello, hello_bytes};
use support::{CLUSTER, Log, Pki, run};

#[test]
fn a_peer_that_proves_no_node_of_this_cluster_is_refused_and_counted() {
    run(async {
        let mut pki = Pki::new();
        let victim = TestNode::start(&mut pki, NodeId(1)).await;
        let address = victim.links.local_address().expect("it is bound");
        let other_authority = Authority::create(CLUSTER).expect("an authority");
        let signed = |names: &[String]| issue_names(&pki, names);
        let cases = [
            ("no certificate", None, "refused_certificate", None),
            (
                "another authority",
                Some(other_authority.issue_node(NodeId(2), &[]).unwrap()),
                "refused_certificate",
                None,
            ),
            ("a client's certificate", Some(pki.authority.issue_client("app").unwrap()), "refused_identity", None),
            ("an operator's certificate", Some(pki.authority.issue_operator("ann").unwrap()), "refused_identity", None),
            ("no name in the zone", Some(signed(&["host.example".into()])), "refused_identity", None),
            (
                "a node and an operator at once",
                Some(signed(&[node_name(NodeId(2), CLUSTER), format!("ann.operator.{CLUSTER}.quorate.internal")])),
                "refused_identity",
                None,
            ),
            ("another cluster", Some(signed(&[node_name(NodeId(2), "other")])), "refused_identity", None),
            ("this node itself", Some(pki.issue(NodeId(1))), "refused_identity", None),
            (
                "two nodes at once",
                Some(signed(&[node_name(NodeId(2), CLUSTER), node_name(NodeId(3), CLUSTER)])),
                "refused_identity",
                None,
            ),
            (
                "a name that is nearly a node's",
                Some(signed(&["n02.testing.quorate.internal".into()])),
                "refused_identity",
                None,
            ),
            ("another node's certificate", Some(pki.issue(NodeId(3))), "refused_identity", Some(NodeId(3))),
        ];
        let (mut certificate, mut identity) = (0, 0);
        for (case, issued, result, proved) in cases {
            let endpoint = support::stranger::client(&pki, issued.as_ref(), ALPN);
            // With TLS 1.3 a client may think itself connected until it hears that it is not.
            if let Ok(connection) = connect(&endpoint, address).await {
                if let Ok((mut send, _recv)) = connection.open_bi().await {
                    let _ = send.write_chunk(hello_bytes(&hello(NodeId(2)))).await;
                }
                connection.closed().await;
            }
            *if result == "refused_certificate" { &mut certificate } else { &mut identity } += 1;
            victim
                .counts
                .until(|counts| {
                    counts.connections("refused_certificate") == certificate
                        && counts.connections("refused_identity") == identity
                })
                .await;
            assert!(victim.counts.connections_of(result, proved) > 0, "{case}: {:?}", victim.counts);
        }
        assert_eq!(victim.counts.connections("accepted"), 0);
    });
}

#[test]
fn another_protocol_is_refused_and_counted() {
    run(async {
        let mut pki = Pki::new();
        let victim = TestNode::start(&mut pki, NodeId(1)).await;
        let address = victim.links.local_address().expect("it is bound");
        let endpoint = support::stranger::client(&pki, Some(&pki.issue(NodeId(2))), b"h3");
        assert!(connect(&endpoint, address).await.is_err());
        victim.counts.until(|counts| counts.connections("refused_protocol") == 1).await;
    });
}

#[test]
fn a_dialler_refuses_all_but_the_node_that_it_dialled() {
    run(async {
        let mut pki = Pki::new();
        let one = TestNode::start(&mut pki, NodeId(1)).await;
        let three = TestNode::start(&mut pki, NodeId(3)).await;
        let address = three.links.local_address().expect("it is bound").to_string();
        let _link = one.links.link(NodeId(2), &address);
        one.counts.until(|counts| counts.connections_of("refused_certificate", Some(NodeId(2))) > 0).await;
        assert_eq!(one.counts.connections("connected"), 0);

        let mut stranger = Pki::new();
        let strange = TestNode::start(&mut stranger, NodeId(2)).await;
        let address = strange.links.local_address().expect("it is bound").to_string();
        let before = one.counts.connections("refused_certificate");
        let _link = one.links.link(NodeId(2), &address);
        one.counts.until(|counts| counts.connections("refused_certificate") > before).await;
        assert_eq!(one.counts.connections("connected"), 0);
        assert_eq!(strange.counts.connections("accepted"), 0);
    });
}

#[test]
fn a_peer_that_keeps_coming_back_fills_no_log() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guards = (tracing::subscriber::set_default(subscriber), another_subscriber());
    run(async {
        let mut pki = Pki::new();
        let victim = TestNode::start(&mut pki, NodeId(1)).await;
        let address = victim.links.local_address().expect("it is bound");
        let endpoint = support::stranger::client(&pki, Some(&pki.authority.issue_client("app").unwrap()), ALPN);
        for attempt in 1..=20 {
            if let Ok(connection) = connect(&endpoint, address).await {
                connection.closed().await;
            }
            victim.counts.until(|counts| counts.connections("refused_identity") == attempt).await;
        }
    });
    let lines: Vec<_> =
        log.text().lines().filter(|line| line.contains("refused_identity")).map(str::to_owned).collect();
    assert_eq!(lines.len(), 1, "20 refusals, one line: {lines:?}");
    let why = "its certificate is of client app, and this port is for nodes alone";
    assert!(lines[0].contains(why), "it says why: {}", lines[0]);
}

#[test]
fn each_role_but_a_node_s_is_refused_by_name_with_one_line_in_the_log() {
    for (role, is_node, line) in [
        (Role::Node(NodeId(2)), true, ""),
        (Role::Client("app".into()), false, "its certificate is of client app, and this port is for nodes alone"),
        (Role::Operator("ann".into()), false, "its certificate is of operator ann, and this port is for nodes alone"),
    ] {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
        let _guards = (tracing::subscriber::set_default(subscriber), another_subscriber());
        run(async {
            let mut pki = Pki::new();
            let victim = TestNode::start(&mut pki, NodeId(1)).await;
            let address = victim.links.local_address().expect("it is bound");
            let issued = issue(&pki, &role);
            let endpoint = support::stranger::client(&pki, Some(&issued), ALPN);
            let connection = connect(&endpoint, address).await.expect("the authority's signature is good");
            let introduced = support::stranger::try_introduce(&connection, NodeId(2)).await;
            assert_eq!(introduced.is_some(), is_node, "{role}");
            let (result, other) =
                if is_node { ("accepted", "refused_identity") } else { ("refused_identity", "accepted") };
            victim.counts.until(|counts| counts.connections(result) == 1).await;
            assert_eq!(victim.counts.connections(other), 0, "{role}");
        });
        let text = log.text();
        let refusals: Vec<_> = text.lines().filter(|line| line.contains("refused_identity")).collect();
        assert_eq!(refusals.len(), usize::from(!is_node), "{role}: {text}");
        assert!(refusals.iter().all(|refusal| refusal.contains(line)), "{role}: {text}");
    }
}

#[test]
fn a_dialler_takes_no_role_but_a_node_s_at_the_other_end() {
    run(async {
        let mut pki = Pki::new();
        let one = TestNode::start(&mut pki, NodeId(1)).await;
        let others = [NodeId(2), NodeId(3)].map(|id| node_name(id, CLUSTER));
        let mut refused = 0;
        for (role, issued, result) in [
            ("client", pki.authority.issue_client("app").unwrap(), "refused_certificate"),
            ("operator", pki.authority.issue_operator("ann").unwrap(), "refused_certificate"),
            // TLS's verifier alone is content with these two: one of the names is the dialled one.
            ("two nodes", issue_names(&pki, &others), "refused_identity"),
            ("every node", issue_names(&pki, &[format!("*.{CLUSTER}.quorate.internal")]), "refused_identity"),
        ] {
            let server = support::stranger::server(&issued);
            let address = server.local_addr().expect("it is bound").to_string();
            tokio::task::spawn_local(async move {
                while let Some(incoming) = server.accept().await {
                    if let Ok(connection) = incoming.await {
                        connection.closed().await;
                    }
                }
            });
            let before = one.counts.connections_of(result, Some(NodeId(2)));
            let link = one.links.link(NodeId(2), &address);
            one.counts.until(|counts| counts.connections_of(result, Some(NodeId(2))) > before).await;
            assert_eq!(one.counts.connections("connected"), 0, "{role}");
            drop(link);
            refused += 1;
        }
        assert_eq!(refused, 4);
    });
}

#[test]
fn a_peer_that_is_not_there_fills_no_log() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guards = (tracing::subscriber::set_default(subscriber), another_subscriber());
    run(async {
        let mut pki = Pki::new();
        let one = TestNode::start(&mut pki, NodeId(1)).await;
        let _link = one.links.link(NodeId(2), "no host of this name");
        one.counts.until(|counts| counts.connections("unreachable") == 4).await;
    });
    let text = log.text();
    assert_eq!(text.lines().filter(|line| line.contains("unreachable")).count(), 1, "4 attempts, one line: {text}");
}

#[test]
fn files_that_make_no_node_are_refused_with_their_name_and_a_remedy() {
    let pki = Pki::new();
    let good = pki.options(NodeId(1), None);
    pki.options(NodeId(2), None);
    pki.authority.issue_client("app").unwrap().write(pki.dir.path(), "app").unwrap();
    pki.authority.issue_operator("ann").unwrap().write(pki.dir.path(), "ann").unwrap();
    issue_names(&pki, &["host.example".into()]).write(pki.dir.path(), "host").unwrap();
    Authority::create(CLUSTER).unwrap().write(&make_dir(&pki, "other")).unwrap();
    issue_expired(&pki).write(pki.dir.path(), "expired").unwrap();
    fs::write(pki.path("garbage"), "no PEM").unwrap();
    private(&pki.path("garbage"));
    fs::copy(&good.key, pki.path("shown.key")).unwrap();
    fs::set_permissions(pki.path("shown.key"), fs::Permissions::from_mode(0o644)).unwrap();

    let with = |ca: &str, cert: &str, key: &str| {
        let mut options = good.clone();
        (options.ca, options.cert, options.key) = (pki.path(ca), pki.path(cert), pki.path(key));
        let checked = Quic::new(options).and_then(|quic| quic.check(CLUSTER, NodeId(1)));
        checked.expect_err("it is refused").to_string()
    };
    let cases = [
        (with("missing", "node-1.pem", "node-1.key"), "missing", "can't be read"),
        (with("ca.pem", "missing", "node-1.key"), "missing", "can't be read"),
        (with("ca.pem", "node-1.pem", "missing"), "missing", "can't be read"),
        (with("garbage", "node-1.pem", "node-1.key"), "garbage", "no certificate in PEM"),
        (with("ca.pem", "garbage", "node-1.key"), "garbage", "no certificate in PEM"),
        (with("ca.pem", "node-1.pem", "garbage"), "garbage", "no private key in PEM"),
        (with("ca.pem", "node-1.pem", "shown.key"), "shown.key", "chmod 600"),
        (with("ca.pem", "node-1.pem", "node-2.key"), "node-2.key", "is not the key of"),
        (with("ca.pem", "app.pem", "app.key"), "app.pem", "is of client app, which is no node"),
        (with("ca.pem", "ann.pem", "ann.key"), "ann.pem", "is of operator ann, which is no node"),
        (with("ca.pem", "host.pem", "host.key"), "host.pem", "no node, client or operator is named"),
        (with("ca.pem", "expired.pem", "expired.key"), "expired.pem", "issue a new one"),
        (with("ca.pem", "node-2.pem", "node-2.key"), "node-2.pem", "give its own"),
        (with("other/ca.pem", "node-1.pem", "node-1.key"), "node-1.pem", "give one that it issued"),
    ];
    for (error, file, remedy) in cases {
        assert!(error.contains(file) && error.contains(remedy), "{error:?} names {file:?} and {remedy:?}");
        assert_eq!(error.lines().count(), 1, "{error:?} is one line");
    }
    let quic = Quic::new(good).expect("these are in order");
    quic.check(CLUSTER, NodeId(1)).expect("it is that node's");
    assert!(quic.check("elsewhere", NodeId(1)).is_err());
    assert!(quic.check("Not A Label", NodeId(1)).is_err());
}

#[test]
fn a_port_that_is_taken_is_named() {
    run(async {
        let mut pki = Pki::new();
        let one = TestNode::start(&mut pki, NodeId(1)).await;
        let taken = one.links.local_address();
        let network = Box::new(Quic::new(pki.options(NodeId(2), taken)).expect("a network"));
        let context = quorate_transport::NetworkContext {
            cluster: CLUSTER.into(),
            node: NodeId(2),
            introduction: Introduction::default(),
            election_timeout: std::time::Duration::from_millis(300),
            inbox: quorate_transport::network::Inbox::new(|_| {}),
            observer: Arc::new(quorate_transport::network::Unobserved),
        };
        let error = quorate_transport::Network::start(network, context).await.err().expect("it can't start");
        let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>()).expect("the system's");
        assert_eq!(cause.kind(), std::io::ErrorKind::AddrInUse);
        assert!(matches!(error, NetworkError::Address { address, .. } if Some(address) == taken));
        let error = error.to_string();
        assert!(error.contains(&taken.unwrap().to_string()) && error.contains("the port is taken"), "{error:?}");
    });
}

#[test]
fn certificates_are_never_overwritten_and_their_keys_are_private() {
    let pki = Pki::new();
    let before = fs::read(pki.path("ca.key")).unwrap();
    let error = Authority::create(CLUSTER).unwrap().write(pki.dir.path()).expect_err("it exists").to_string();
    assert!(error.contains("ca.key exists and is not overwritten"), "{error:?}");
    assert_eq!(fs::read(pki.path("ca.key")).unwrap(), before);
    assert_eq!(fs::metadata(pki.path("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);

    let loaded = Authority::load(pki.dir.path()).expect("it was written");
    assert_eq!((loaded.cluster(), loaded.certificate_pem()), (CLUSTER, pki.authority.certificate_pem()));
    loaded
        .issue_node(NodeId(7), &["localhost".into(), "127.0.0.1".into()])
        .unwrap()
        .write(pki.dir.path(), "node-7")
        .unwrap();
    let quic = Quic::new(pki.options(NodeId(7), None)).expect("a loaded authority issues as the created one does");
    quic.check(CLUSTER, NodeId(7)).expect("it is that node's");
    assert!(loaded.issue_node(NodeId(7), &[node_name(NodeId(8), CLUSTER)]).is_err(), "no host is a node");
    for name in ["", "Ann", "a.b", "-a", "a-", "a_b", &"a".repeat(64)] {
        for issued in [loaded.issue_client(name), loaded.issue_operator(name)] {
            assert!(issued.expect_err(name).to_string().contains(&format!("name {name:?}")), "{name}");
        }
    }
    assert!(Authority::create("No Label").is_err());
    assert!(Authority::load(&make_dir(&pki, "empty")).is_err());
}

#[test]
fn the_end_of_the_own_certificate_is_reported() {
    run(async {
        let one = TestNode::start(&mut Pki::new(), NodeId(1)).await;
        let expected = std::time::SystemTime::now() + quorate_transport::certificates::ISSUED_LASTS;
        let expected = expected.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(one.counts.certificate_expires().abs_diff(expected) < 60);
    });
}

#[test]
fn a_certificate_says_its_role_and_only_a_node_s_is_for_servers() {
    let pki = Pki::new();
    let longest = "a".repeat(63);
    for (role, is_for_servers) in
        [(Role::Node(NodeId(1)), true), (Role::Client(longest.clone()), false), (Role::Operator(longest), false)]
    {
        let pem = issue(&pki, &role).certificate_pem.clone();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
        let identity = identity_of(&pem.contents).expect("an identity");
        assert_eq!((identity.cluster.as_str(), &identity.role), (CLUSTER, &role));
        let certificate = pem.parse_x509().expect("a certificate");
        let usages = certificate.extended_key_usage().expect("well-formed").expect("present").value;
        assert_eq!((usages.client_auth, usages.server_auth, usages.any), (true, is_for_servers, false), "{role}");
        let common_name = certificate.subject().iter_common_name().next().expect("one").as_str().expect("text");
        assert!(common_name.len() <= 64, "{common_name}");
    }
}

fn issue(pki: &Pki, role: &Role) -> Issued {
    let issued = match role {
        Role::Node(id) => pki.authority.issue_node(*id, &[]),
        Role::Client(name) => pki.authority.issue_client(name),
        Role::Operator(name) => pki.authority.issue_operator(name),
    };
    issued.expect("a certificate")
}

/// A certificate of the cluster's authority with any names, by way of its files.
fn issue_names(pki: &Pki, names: &[String]) -> Issued {
    sign(pki, CertificateParams::new(names).unwrap())
}

fn issue_expired(pki: &Pki) -> Issued {
    let mut params = CertificateParams::new(vec![node_name(NodeId(1), CLUSTER)]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    sign(pki, params)
}

fn sign(pki: &Pki, mut params: CertificateParams) -> Issued {
    let authority_key = KeyPair::from_pem(&fs::read_to_string(pki.path("ca.key")).unwrap()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(pki.authority.certificate_pem(), authority_key).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    Issued { certificate_pem: params.signed_by(&key, &issuer).unwrap().pem(), key_pem: key.serialize_pem() }
}

fn make_dir(pki: &Pki, name: &str) -> std::path::PathBuf {
    fs::create_dir(pki.path(name)).unwrap();
    pki.path(name)
}

fn private(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// While there is only one subscriber in the process, a line's first use on the thread of another
/// test, which has none, switches the line off for all of them.
fn another_subscriber() -> tracing::Dispatch {
    tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(Log::default()).finish())
}
