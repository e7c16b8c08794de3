//! Credentials that change while networks run: their files are replaced, and the networks follow.

mod support;

use quorate_raft::{Body, NodeId};
use quorate_transport::{
    Quic, QuicOptions, Reloader,
    certificates::{Authority, Issued, Trust},
    identity::node_name,
    network::{Event, Inbox, Link},
};
use quorate_transport_testing::conformance::{PATIENCE, TestNode, append, heartbeat, heartbeat_reply, piece, proposal};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber,
};
use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject};
use std::{
    cell::Cell,
    collections::VecDeque,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};
use support::{
    CLUSTER, Log, Pki, run,
    stranger::{self, ALPN, closed_with, connect, hello, hello_bytes, try_introduce},
};
use tokio::time::Instant;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);
const HOUR: Duration = Duration::from_secs(3600);
/// The error code of a connection whose certificate counts no more.
const CERTIFICATE: u64 = 8;
/// Often enough that no test waits long.
const EVERY: Duration = Duration::from_millis(20);

#[test]
fn a_node_takes_another_certificate_and_key_and_its_links_lose_nothing() {
    run(async {
        let cluster = Files::of_a_new_authority();
        let mut nodes = cluster.start([ONE, TWO]).await;
        let traffic = Traffic::between(&mut nodes).await;
        let [one, two] = &mut nodes;
        let before = one.certificate_expires();
        traffic.carries(one, two).await;

        cluster.issue_for(ONE, 20 * HOUR);
        traffic.carries_until(one, two, |one, two| has_renewed(one, two, 1)).await;
        assert!(one.certificate_expires() < before, "the end of the new one is reported");
        assert_eq!(one.reloads("loaded"), 1, "one change, one reload");
        assert_eq!((two.reloads("loaded"), two.reloads("failed")), (0, 0));
        traffic.carries(one, two).await;
        dropped_nothing(&nodes);
    });
}

#[test]
fn a_connection_is_renewed_over_a_round_trip_that_leaves_no_time_for_a_first_dial() {
    run(async {
        let files = Files::of_a_new_authority();
        let [mut one, two] = files.start([ONE, TWO]).await;
        // A dial takes three round trips of 0.6 s: the address is proved first.
        let path = support::path::Path::lay(two.address()).await;
        path.delay(Duration::from_millis(300));
        let _link = one.node.links.link(TWO, &path.address());
        one.node.until_up(TWO).await;
        files.issue_for(ONE, 20 * HOUR);
        one.node.counts.until(|counts| counts.connections("connected") == 2).await;
    });
}

#[test]
fn an_authority_is_replaced_while_messages_flow_and_none_is_lost() {
    run(async {
        let old = Files::of_a_new_authority();
        let mut nodes = old.start([ONE, TWO]).await;
        let traffic = Traffic::between(&mut nodes).await;
        let [one, two] = &mut nodes;
        traffic.carries(one, two).await;

        // The authority of the same cluster has the same name.
        let next = Files::of_a_new_authority();
        let both = [old.authority(), next.authority()].concat();
        for node in [ONE, TWO] {
            old.write(node, "ca.pem", &both);
        }
        let loaded = |times: [u64; 2]| {
            move |one: &Running, two: &Running| [one.reloads("loaded"), two.reloads("loaded")] == times
        };
        traffic.carries_until(one, two, loaded([1, 1])).await;
        assert!(has_renewed(one, two, 0), "a further authority changes no connection");

        old.put(ONE, &next.issue(ONE, 30 * HOUR));
        traffic.carries_until(one, two, |one, two| has_renewed(one, two, 1)).await;
        old.put(TWO, &next.issue(TWO, 30 * HOUR));
        traffic.carries_until(one, two, |one, two| has_renewed(one, two, 2)).await;

        // A third node that has no certificate of the next authority.
        let former = stranger::client(&next.pki, Some(&old.issue(THREE, HOUR)), ALPN);
        let connection = connect(&former, one.address()).await.expect("the former authority counts still");
        let _lanes = try_introduce(&connection, THREE).await.expect("it is accepted");
        for node in [ONE, TWO] {
            old.write(node, "ca.pem", next.authority());
        }
        traffic.carries_until(one, two, loaded([3, 3])).await;
        traffic.carries(one, two).await;
        assert!(has_renewed(one, two, 2), "the former authority's end cuts no connection");
        dropped_nothing(&nodes);

        // From here on the former authority counts no more.
        assert_eq!(closed_with(&connection).await, Some(CERTIFICATE));
        let refused = nodes[0].node.counts.connections("refused_certificate");
        if let Ok(connection) = connect(&former, nodes[0].address()).await {
            connection.closed().await;
        }
        nodes[0].node.counts.until(|counts| counts.connections("refused_certificate") == refused + 1).await;
    });
}

#[test]
fn messages_that_wait_for_credit_stay_ahead_of_those_on_the_connection_that_follows() {
    const PIECE: usize = 128 << 10;
    run(async {
        let files = Files::of_a_new_authority();
        let [one, mut two] = files.start([ONE, TWO]).await;
        let link = one.link(&two);
        one.node.counts.until(|counts| counts.connections("connected") == 1).await;
        let sent = Cell::new(0);
        let send = |pieces| {
            for _ in 0..pieces {
                link.send(piece(sent.get(), PIECE));
                sent.set(sent.get() + 1);
            }
        };
        // Kept unhandled, so that what follows waits on the connection.
        let mut unhandled = VecDeque::new();
        for _ in 0..Inbox::SNAPSHOT_CREDIT_BYTES / PIECE - 1 {
            send(1);
            unhandled.push_back(two.node.delivered().await);
        }
        send(48);
        files.issue_for(ONE, 20 * HOUR);
        one.node.counts.until(|counts| counts.connections("connected") == 2).await;
        send(48);
        // Credit for one at a time, so that two lanes would take turns.
        let mut last = unhandled.len() as u64 - 1;
        while last + 1 < sent.get() {
            unhandled.pop_front();
            let delivered = two.node.delivered().await;
            let Body::SnapshotChunk(chunk) = &delivered.message.body else { panic!("nothing else is sent") };
            assert!(chunk.offset > last, "piece {} after piece {last}", chunk.offset);
            last = chunk.offset;
            unhandled.push_back(delivered);
        }
    });
}

#[test]
fn a_succession_that_does_not_complete_is_told_as_a_loss_of_the_link() {
    run(async {
        let files = Files::of_a_new_authority();
        let [mut one, mut two] = files.start([ONE, TWO]).await;
        let link = one.link(&two);
        one.node.until_up(TWO).await;
        // Kept unhandled until no credit is left, so that what follows waits on the older
        // connection.
        let message = append(1, 1, 1 << 20);
        let mut unhandled = Vec::new();
        for _ in 0..Inbox::CREDIT_BYTES / (message.bulk().len() + 100) {
            link.send(message.clone());
            unhandled.push(two.node.delivered().await);
        }
        link.send(message.clone());
        link.send(message);
        files.issue_for(ONE, 20 * HOUR);
        one.node.until_down(TWO).await;
        one.node.until_up(TWO).await;
        assert_eq!(one.node.counts.connections("connected"), 2, "the newer connection stays");
        link.send(heartbeat(1));
        while two.node.received().await != (ONE, heartbeat(1)) {}
        drop(unhandled);
    });
}

#[test]
fn a_node_whose_certificate_is_revoked_is_cut_off_and_stays_out_while_others_stay() {
    let log = Log::default();
    let _guards = logging(&log);
    run(async {
        let files = Files::of_a_new_authority().with_lists();
        let mut nodes = files.start([ONE, TWO, THREE]).await;
        let (one_two, two_one) = (nodes[0].link(&nodes[1]), nodes[1].link(&nodes[0]));
        let (one_three, three_one) = (nodes[0].link(&nodes[2]), nodes[2].link(&nodes[0]));
        for (node, peers) in [(0, 2), (1, 1), (2, 1)] {
            nodes[node].node.counts.until(|counts| counts.connections("connected") == peers).await;
        }

        let accepted = nodes[0].node.counts.connections("accepted");
        let revoked = files.serial_of(THREE);
        files.list_for(ONE, std::slice::from_ref(&revoked), HOUR);
        nodes[0].node.until_down(THREE).await;
        let counts = &nodes[0].node.counts;
        // Both of its connections, and every later attempt.
        counts.until(|counts| counts.connections_of("refused_certificate", Some(THREE)) >= 2).await;
        counts.until(|counts| counts.connections_of("refused_certificate", None) >= 3).await;
        nodes[2].node.counts.until(|counts| counts.connections("rejected") >= 3).await;
        assert_eq!(counts.connections("accepted"), accepted, "it is accepted no more");

        nodes[0].node.pending();
        nodes[1].node.pending();
        one_two.send(heartbeat(1));
        two_one.send(heartbeat(2));
        assert_eq!(nodes[1].node.received().await, (ONE, heartbeat(1)));
        assert_eq!(nodes[0].node.received().await, (TWO, heartbeat(2)));
        drop((one_three, three_one));

        // A certificate of its own is not taken into use once it is revoked.
        files.list_for(THREE, &[revoked], HOUR);
        nodes[2].node.counts.until(|counts| counts.reloads("failed") == 1).await;
    });
    let text = log.text();
    assert!(text.contains("refused_certificate: disconnected: its certificate is revoked"), "{text}");
    assert!(text.contains("node-3.pem: is revoked, and peers will refuse it"), "{text}");
}

#[test]
fn a_peer_whose_handshake_is_under_way_is_judged_by_the_credentials_in_use_at_its_end() {
    run(async {
        let files = Files::of_a_new_authority().with_lists();
        let [one] = files.start([ONE]).await;
        let issued = files.issue(TWO, HOUR);
        let client = stranger::client(&files.pki, Some(&issued), ALPN);

        // TLS is done, and a hello is missing.
        let connected = connect(&client, one.address()).await.expect("it is not revoked");
        let (mut control, _answers) = connected.open_bi().await.expect("a stream");
        control.write_chunk(hello_bytes(&hello(TWO))).await.expect("sent");
        // TLS is not done: on this path the node hears of the peer after 0.9 s, for it asks for a proof of
        // its address first, and gets its certificate after 1.5 s.
        let slow = support::path::Path::lay(one.address()).await;
        slow.delay(Duration::from_millis(300));
        let other = files.issue(THREE, HOUR);
        let slow_client = stranger::client(&files.pki, Some(&other), ALPN);
        let slowly = tokio::task::spawn_local(async move {
            let connection = connect(&slow_client, slow.address().parse().expect("an address")).await.ok()?;
            try_introduce(&connection, THREE).await
        });
        tokio::time::sleep(Duration::from_millis(1200)).await;

        let revoked = [&issued, &other].map(|issued| serial_of(&issued.certificate_pem));
        files.list_for(ONE, &revoked, HOUR);
        assert_eq!(closed_with(&connected).await, Some(CERTIFICATE));
        let counts = &one.node.counts;
        counts.until(|counts| counts.connections_of("refused_certificate", Some(TWO)) == 1).await;
        assert!(slowly.await.expect("no panic").is_none(), "no hello answers it");
        assert_eq!(counts.connections("accepted"), 0);
    });
}

#[test]
fn a_list_that_ends_refuses_new_connections_keeps_open_ones_and_a_new_one_lets_all_in() {
    let log = Log::default();
    let _guards = logging(&log);
    run(async {
        let files = Files::of_a_new_authority().with_lists();
        let mut nodes = files.start([ONE, TWO, THREE]).await;
        let two_one = nodes[1].link(&nodes[0]);
        nodes[1].node.until_up(ONE).await;
        let later = nodes[0].node.counts.crl_expires();
        // Lists have whole seconds.
        files.list_for(ONE, &[], Duration::from_secs(3));
        nodes[0].node.counts.until(|counts| counts.crl_expires() < later).await;
        let ends = nodes[0].node.counts.crl_expires();
        let (ca, crl) = (files.node(ONE).join("ca.pem"), files.node(ONE).join("crl.pem"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Trust::load(&ca, Some(&crl), provider).expect("it has not ended");

        until(|| unix_now() >= ends).await;
        let three_one = nodes[2].link(&nodes[0]);
        let one_three = nodes[0].link(&nodes[2]);
        let counts = &nodes[0].node.counts;
        counts.until(|counts| counts.connections_of("refused_certificate", None) >= 1).await;
        counts.until(|counts| counts.connections_of("refused_certificate", Some(THREE)) >= 1).await;
        for round in 0..10 {
            two_one.send(heartbeat(round));
            assert_eq!(nodes[0].node.received().await, (TWO, heartbeat(round)), "an open connection carries on");
        }
        assert_eq!(nodes[0].node.counts.connections("accepted"), 1);
        let shown = CertificateDer::from_pem_file(files.node(TWO).join("node-2.pem")).expect("a certificate");
        let (first, now) = (std::slice::from_ref(&shown), UnixTime::now());
        assert!(trust.client_verifier(false).verify_client_cert(&shown, &[], now).is_err());
        trust.standing().client(first).expect("it was accepted before");
        until(|| log.text().contains("the revocation list has ended, and every new connection is refused")).await;

        files.list_for(ONE, &[], HOUR);
        nodes[0].node.until_up(THREE).await;
        nodes[2].node.until_up(ONE).await;
        assert!(nodes[0].node.counts.crl_expires() > ends);
        drop((three_one, one_three));
    });
    let text = log.text();
    assert!(text.contains("refused_certificate: this machine's revocation list expired at"), "{text}");
}

#[test]
fn a_reload_that_fails_keeps_the_former_set_and_is_told_once_and_the_next_good_one_is_taken() {
    let log = Log::default();
    let _guards = logging(&log);
    run(async {
        let files = Files::of_a_new_authority();
        let mut nodes = files.start([ONE, TWO]).await;
        let traffic = Traffic::between(&mut nodes).await;
        let [one, two] = &mut nodes;
        let next = files.issue(ONE, 20 * HOUR);
        let expires = one.certificate_expires();

        // The key of one certificate beside another, for as long as it lasts.
        files.write(ONE, "node-1.key", &next.key_pem);
        traffic.carries_until(one, two, |one, _| one.reloads("failed") == 1).await;
        a_few_looks().await;
        assert_eq!((one.reloads("failed"), one.reloads("loaded")), (1, 0));
        // Another one is told of, too.
        files.write(ONE, "ca.pem", "no PEM");
        traffic.carries_until(one, two, |one, _| one.reloads("failed") == 2).await;
        assert_eq!(one.certificate_expires(), expires, "the former certificate is in use");
        assert!(has_renewed(one, two, 0));
        traffic.carries(one, two).await;

        files.write(ONE, "node-1.pem", &next.certificate_pem);
        files.write(ONE, "ca.pem", files.authority());
        traffic.carries_until(one, two, |one, two| has_renewed(one, two, 1)).await;
        assert_eq!(one.reloads("loaded"), 1);
        assert_eq!(one.reloads("failed"), 2);
        assert!(one.certificate_expires() < expires);
        dropped_nothing(&nodes);
    });
    let text = log.text();
    let failures: Vec<_> = text.lines().filter(|line| line.contains("can't be reloaded")).collect();
    assert_eq!(failures.len(), 2, "{text}");
    let stays = "credentials can't be reloaded, and the former ones stay in use";
    assert!(failures.iter().all(|line| line.contains(stays)), "{text}");
    assert!(failures[0].contains("node-1.key: is not the key of"), "{text}");
    assert!(failures[1].contains("ca.pem: holds no certificate in PEM"), "{text}");
}

#[test]
fn an_expired_certificate_is_told_of_once_though_its_text_has_another_time_at_each_look() {
    let log = Log::default();
    let _guards = logging(&log);
    run(async {
        let mut files = Files::of_a_new_authority();
        // The text has whole seconds.
        files.every = Duration::from_millis(1100);
        let [one] = files.start([ONE]).await;
        files.put(ONE, &files.sign(ONE, |params| params.not_after = (SystemTime::now() - HOUR).into()));
        one.node.counts.until(|counts| counts.reloads("failed") == 1).await;
        // The look at these is a further one.
        let expires = one.certificate_expires();
        tokio::time::sleep(files.every * 3 / 2).await;
        files.issue_for(ONE, 20 * HOUR);
        one.node.counts.until(|counts| counts.reloads("loaded") == 1).await;
        assert_eq!(one.reloads("failed"), 1);
        assert!(one.certificate_expires() < expires);
    });
    let text = log.text();
    assert_eq!(text.matches("node-1.pem: expired at").count(), 1, "{text}");
}

#[test]
fn a_set_of_another_node_or_of_no_trusted_authority_is_not_taken() {
    run(async {
        let files = Files::of_a_new_authority();
        let [one] = files.start([ONE]).await;
        let other = Authority::create(CLUSTER).expect("an authority");
        let wrong = [
            files.issue(TWO, HOUR),
            other.issue_node(ONE, &[]).expect("a certificate"),
            files.pki.authority.issue_client("app").expect("a certificate"),
        ];
        for (failures, issued) in (1..).zip(&wrong) {
            files.put(ONE, issued);
            one.reloader.reload();
            one.node.counts.until(|counts| counts.reloads("failed") >= failures).await;
        }
        assert_eq!(one.reloads("loaded"), 0);
        let client = stranger::client(&files.pki, Some(&files.issue(TWO, HOUR)), ALPN);
        let connection = connect(&client, one.address()).await.expect("its own certificate is in use");
        assert!(try_introduce(&connection, TWO).await.is_some());
    });
}

#[test]
fn files_that_a_symbolic_link_switches_all_at_once_are_taken() {
    run(async {
        let files = Files::of_a_new_authority();
        // As Kubernetes mounts a secret: the files are links into a link to a directory.
        let dir = files.node(ONE);
        let release = |name: &str, issued: &Issued| {
            fs::create_dir(dir.join(name)).expect("made");
            write_private(&dir.join(name).join("node-1.key"), &issued.key_pem);
            fs::write(dir.join(name).join("node-1.pem"), &issued.certificate_pem).expect("written");
        };
        release("..1", &files.issue(ONE, 30 * HOUR));
        symlink("..1", dir.join("..data")).expect("linked");
        for name in ["node-1.key", "node-1.pem"] {
            let _ = fs::remove_file(dir.join(name));
            symlink(Path::new("..data").join(name), dir.join(name)).expect("linked");
        }
        let [one] = files.start([ONE]).await;
        let before = one.certificate_expires();

        release("..2", &files.issue(ONE, 20 * HOUR));
        symlink("..2", dir.join("..data_tmp")).expect("linked");
        fs::rename(dir.join("..data_tmp"), dir.join("..data")).expect("switched");
        one.node.counts.until(|counts| counts.reloads("loaded") == 1).await;
        assert!(one.certificate_expires() < before);
        assert_eq!(one.reloads("failed"), 0);
    });
}

#[test]
fn without_an_interval_files_are_read_only_when_a_reload_is_asked_for() {
    run(async {
        let mut files = Files::of_a_new_authority();
        files.every = Duration::ZERO;
        let [one] = files.start([ONE]).await;
        let before = one.certificate_expires();
        files.issue_for(ONE, 20 * HOUR);
        a_few_looks().await;
        assert_eq!(one.reloads("loaded"), 0);
        // Asked for on any thread, and told of whether anything changed or not.
        let reloader = one.reloader.clone();
        std::thread::spawn(move || reloader.reload()).join().expect("it never blocks");
        one.node.counts.until(|counts| counts.reloads("loaded") == 1).await;
        assert!(one.certificate_expires() < before);
        one.reloader.reload();
        one.node.counts.until(|counts| counts.reloads("loaded") == 2).await;
        fs::remove_file(files.node(ONE).join("ca.pem")).expect("removed");
        one.reloader.reload();
        one.node.counts.until(|counts| counts.reloads("failed") == 1).await;
        let reloader = one.reloader.clone();
        one.node.close().await;
        reloader.reload();
    });
}

#[test]
fn a_connection_ends_with_the_certificate_of_its_peer() {
    let log = Log::default();
    let _guards = logging(&log);
    run(async {
        let files = Files::of_a_new_authority();
        let mut nodes = files.start([ONE]).await;
        // Certificates have whole seconds.
        let issued = files.issue(TWO, Duration::from_secs(3));
        files.put(TWO, &issued);
        let [two] = files.start([TWO]).await;
        let (one_two, two_one) = (nodes[0].link(&two), two.link(&nodes[0]));
        nodes[0].node.until_up(TWO).await;
        nodes[0].node.until_down(TWO).await;
        let ends = quorate_transport::certificates::end_of(&issued.certificate_pem).expect("an end");
        assert!(SystemTime::now() > ends, "not before its end");
        let counts = &nodes[0].node.counts;
        counts.until(|counts| counts.connections_of("refused_certificate", Some(TWO)) >= 2).await;
        until(|| log.text().contains("rejected: the peer says that this machine's certificate expired at")).await;
        drop((one_two, two_one));
    });
    let text = log.text();
    assert!(text.contains("disconnected: its certificate expired at"), "{text}");
    assert!(text.contains("check the clocks of both machines"), "{text}");
}

#[test]
fn a_certificate_that_is_shown_and_not_needed_may_end_without_its_connections() {
    run(async {
        let files = Files::of_a_new_authority();
        let mut shown = files.issue(TWO, HOUR);
        let ended = files.sign(THREE, |params| params.not_after = (SystemTime::now() - HOUR).into());
        shown.certificate_pem += &ended.certificate_pem;
        files.put(TWO, &shown);
        let mut nodes = files.start([ONE, TWO]).await;
        let traffic = Traffic::between(&mut nodes).await;
        let [one, two] = &mut nodes;
        // Each keeper looks once a second, and reports the round trip before: of two connections
        // here.
        traffic.carries_until(one, two, |one, _| one.node.counts.round_trips() >= 6).await;
        assert_eq!(one.node.counts.connections("refused_certificate"), 0);
        dropped_nothing(&nodes);
    });
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_refused_with_its_date_and_both_clocks() {
    let log = Log::default();
    let _guards = logging(&log);
    run(async {
        let files = Files::of_a_new_authority();
        let [one] = files.start([ONE]).await;
        let early = files.sign(TWO, |params| params.not_before = (SystemTime::now() + HOUR * 5 / 2).into());
        // At both ends: as one that dials, and as one that is dialled.
        let client = stranger::client(&files.pki, Some(&early), ALPN);
        if let Ok(connection) = connect(&client, one.address()).await {
            connection.closed().await;
        }
        one.node.counts.until(|counts| counts.connections_of("refused_certificate", None) == 1).await;
        let server = stranger::server(&early);
        let address = server.local_addr().expect("it is bound").to_string();
        tokio::task::spawn_local(async move {
            while let Some(incoming) = server.accept().await {
                let _ = incoming.await;
            }
        });
        let _link = one.node.links.link(TWO, &address);
        one.node.counts.until(|counts| counts.connections_of("refused_certificate", Some(TWO)) >= 1).await;

        // The peer that is refused learns it, too: here by the clock of a node.
        files.put(ONE, &early);
        let own = Quic::new(files.options(ONE)).expect_err("its own").to_string();
        assert!(own.contains("node-1.pem: is not valid before") && own.contains("2 h earlier"), "{own}");
    });
    let text = log.text();
    let refusals: Vec<_> = text.lines().filter(|line| line.contains("refused_certificate")).collect();
    assert_eq!(refusals.len(), 2, "{text}");
    for refusal in refusals {
        assert!(refusal.contains("its certificate is not valid before"), "{refusal}");
        assert!(refusal.contains("2 h earlier: check the clocks of both machines"), "{refusal}");
    }
}

#[test]
fn lists_that_do_not_fit_the_authorities_are_refused_with_their_file_and_a_remedy() {
    let files = Files::of_a_new_authority().with_lists();
    let other = Files::of_a_new_authority();
    let (soon, later) = (SystemTime::now() + HOUR, SystemTime::now() + 2 * HOUR);
    let (own, both) = (files.authority().to_owned(), files.authority().to_owned() + other.authority());
    let (own_list, other_list) = (files.list(&[], soon), other.list(&[], later));
    let load = |ca: &str, list: &str| {
        files.write(ONE, "ca.pem", ca);
        files.write(ONE, "crl.pem", list);
        let checked = Quic::new(files.options(ONE)).and_then(|quic| quic.check(CLUSTER, ONE));
        checked.map_err(|error| error.to_string())
    };
    for (ca, list, remedy) in [
        (&own, "no PEM".to_owned(), "crl.pem: holds no revocation list in PEM"),
        (&own, other_list.clone(), "crl.pem: list 1, of CN=Quorate CA of testing, is by no authority in"),
        (&own, own_list.clone() + &other_list, "crl.pem: list 2, of CN=Quorate CA of testing, is by no authority in"),
        (&both, own_list.clone(), "crl.pem: has no list of CN=Quorate CA of testing of"),
        (&own, own_list.clone() + &files.list(&[], later), "crl.pem: has several lists of CN=Quorate CA of testing of"),
        (&own, files.list(&[], SystemTime::now() - 3 * HOUR), "3 h later: make a new one, or check the clock"),
        (&own, files.list(&[files.serial_of(ONE)], soon), "node-1.pem: is revoked"),
    ] {
        let error = load(ca, &list).expect_err(remedy);
        assert!(error.contains(remedy) && error.lines().count() == 1, "{error:?} says {remedy:?}");
    }
    // In any order, and though both authorities have one name.
    load(&both, &(own_list.clone() + &other_list)).expect("each has its list");
    load(&both, &(other_list + &own_list)).expect("each has its list");
    load(&own, &own_list).expect("the one has its list");
}

/// An authority, and a directory for each node with its files.
struct Files {
    pki: Pki,
    every: Duration,
    has_lists: bool,
}

impl Files {
    fn of_a_new_authority() -> Self {
        let files = Self { pki: Pki::new(), every: EVERY, has_lists: false };
        for node in [ONE, TWO, THREE] {
            fs::create_dir(files.node(node)).expect("made");
            files.write(node, "ca.pem", files.authority());
            files.put(node, &files.issue(node, 30 * HOUR));
        }
        files
    }

    /// With a list for each node that revokes nothing.
    fn with_lists(mut self) -> Self {
        self.has_lists = true;
        for node in [ONE, TWO, THREE] {
            self.list_for(node, &[], HOUR);
        }
        self
    }

    fn authority(&self) -> &str {
        self.pki.authority.certificate_pem()
    }

    fn node(&self, node: NodeId) -> PathBuf {
        self.pki.path(&node.to_string())
    }

    /// Replaces a file of a node at once.
    fn write(&self, node: NodeId, name: &str, text: &str) {
        let (new, path) = (self.node(node).join("new"), self.node(node).join(name));
        write_private(&new, text);
        fs::rename(new, path).expect("renamed");
    }

    /// Replaces certificate and key of a node, one after the other.
    fn put(&self, node: NodeId, issued: &Issued) {
        self.write(node, &format!("node-{node}.key"), &issued.key_pem);
        self.write(node, &format!("node-{node}.pem"), &issued.certificate_pem);
    }

    fn issue_for(&self, node: NodeId, lasts: Duration) {
        self.put(node, &self.issue(node, lasts));
    }

    fn issue(&self, node: NodeId, lasts: Duration) -> Issued {
        self.sign(node, |params| params.not_after = (SystemTime::now() + lasts).into())
    }

    fn sign(&self, node: NodeId, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::new(vec![node_name(node, CLUSTER)]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate_pem = params.signed_by(&key, &self.issuer()).expect("a certificate").pem();
        Issued { certificate_pem, key_pem: key.serialize_pem() }
    }

    fn issuer(&self) -> Issuer<'static, KeyPair> {
        let key = KeyPair::from_pem(&fs::read_to_string(self.pki.path("ca.key")).expect("a key")).expect("a key");
        Issuer::from_ca_cert_pem(self.authority(), key).expect("an authority")
    }

    fn serial_of(&self, node: NodeId) -> SerialNumber {
        serial_of(&fs::read_to_string(self.node(node).join(format!("node-{node}.pem"))).expect("a certificate"))
    }

    fn list_for(&self, node: NodeId, revoked: &[SerialNumber], lasts: Duration) {
        self.write(node, "crl.pem", &self.list(revoked, SystemTime::now() + lasts));
    }

    /// A revocation list that was made at most an hour before it ends.
    fn list(&self, revoked: &[SerialNumber], ends: SystemTime) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: serial.clone(),
            revocation_time: SystemTime::now().into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: SystemTime::now().min(ends - HOUR).into(),
            next_update: ends.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer()).expect("a list").pem().expect("PEM")
    }

    fn options(&self, node: NodeId) -> QuicOptions {
        let file = |name: String| self.node(node).join(name);
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (cert, key) = (file(format!("node-{node}.pem")), file(format!("node-{node}.key")));
        let mut options = QuicOptions::new(listen, file("ca.pem".into()), cert, key);
        options.crl = self.has_lists.then(|| file("crl.pem".into()));
        options.reload_every = self.every;
        // A busy machine takes its time.
        options.frame_timeout = PATIENCE;
        options
    }

    async fn start<const N: usize>(&self, nodes: [NodeId; N]) -> [Running; N] {
        let mut running = Vec::new();
        for node in nodes {
            let quic = Quic::new(self.options(node)).expect("a network");
            let reloader = quic.reloader();
            running.push(Running { node: TestNode::on(Box::new(quic), CLUSTER, node).await, reloader });
        }
        running.try_into().unwrap_or_else(|_| panic!("{N} nodes"))
    }
}

struct Running {
    node: TestNode,
    reloader: Reloader,
}

impl Running {
    fn address(&self) -> SocketAddr {
        self.node.links.local_address().expect("it is bound")
    }

    fn link(&self, peer: &Self) -> Rc<dyn Link> {
        self.node.links.link(peer.node.id, &peer.node.address())
    }

    fn certificate_expires(&self) -> u64 {
        self.node.counts.certificate_expires()
    }

    fn reloads(&self, result: &'static str) -> u64 {
        self.node.counts.reloads(result)
    }
}

/// Requests and replies between two nodes, both ways and on two lanes.
struct Traffic {
    links: [Rc<dyn Link>; 2],
    next: Cell<u64>,
}

impl Traffic {
    const AT_ONCE: u64 = 20;

    async fn between(nodes: &mut [Running; 2]) -> Self {
        let [one, two] = nodes;
        let links = [one.link(two), two.link(one)];
        one.node.until_up(two.node.id).await;
        two.node.until_up(one.node.id).await;
        Self { links, next: Cell::new(0) }
    }

    /// Sends some messages of each kind, and receives each of them once and in order, over links that
    /// stay up.
    async fn carries(&self, one: &mut Running, two: &mut Running) {
        let rounds = self.next.get()..self.next.get() + Self::AT_ONCE;
        self.next.set(rounds.end);
        for round in rounds.clone() {
            for link in &self.links {
                link.send(heartbeat(round));
                link.send(heartbeat_reply(round));
                link.send(proposal(round, 300));
            }
        }
        for node in [one, two] {
            let [mut heartbeats, mut replies, mut proposals] = [rounds.start; 3];
            while [heartbeats, replies, proposals].iter().any(|next| *next < rounds.end) {
                let (next, round) = match node.node.event().await {
                    Event::Delivered(delivered) => match delivered.message.body {
                        Body::Heartbeat(heartbeat) => (&mut heartbeats, heartbeat.round),
                        Body::HeartbeatReply(reply) => (&mut replies, reply.round),
                        Body::Propose(propose) => (&mut proposals, propose.commands[0].request),
                        other => panic!("{other:?} was never sent"),
                    },
                    Event::LinkDown { peer } => panic!("the link to node {peer} is lost"),
                    _ => continue,
                };
                assert_eq!(round, *next, "nothing is lost, and each lane keeps its order");
                *next += 1;
            }
        }
    }

    /// The same until `what` holds.
    async fn carries_until(&self, one: &mut Running, two: &mut Running, what: impl Fn(&Running, &Running) -> bool) {
        let since = Instant::now();
        while !what(one, two) {
            self.carries(one, two).await;
            assert!(since.elapsed() < PATIENCE, "{:?} {:?}", one.node.counts, two.node.counts);
        }
        self.carries(one, two).await;
    }
}

/// Both connections between two nodes were dialled anew this many times: once after each change of
/// either certificate.
fn has_renewed(one: &Running, two: &Running, times: u64) -> bool {
    [one, two].iter().all(|node| node.node.counts.connections("connected") == 1 + times)
}

fn dropped_nothing(nodes: &[Running]) {
    for node in nodes {
        for reason in ["connection_lost", "unconnected", "queue_full", "malformed"] {
            assert_eq!(node.node.counts.dropped(reason), 0, "{reason}: {:?}", node.node.counts);
        }
    }
}

fn serial_of(certificate_pem: &str) -> SerialNumber {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).expect("PEM");
    SerialNumber::from_slice(pem.parse_x509().expect("a certificate").raw_serial())
}

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions");
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it holds in time");
}

/// Some looks at the files.
async fn a_few_looks() {
    tokio::time::sleep(EVERY * 8).await;
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Catches what this thread logs. While there is only one subscriber in the process, a line's first
/// use on the thread of another test switches the line off for all of them.
fn logging(log: &Log) -> (tracing::subscriber::DefaultGuard, tracing::Dispatch) {
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let another = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(Log::default()).finish());
    (tracing::subscriber::set_default(subscriber), another)
}
