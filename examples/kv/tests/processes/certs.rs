//! Certificates that are renewed, and signed for keys that stay where they were made.

use crate::support::{PATIENCE, cluster, cluster_with_joiners, laid_out, run};
use quorate::{
    NodeId,
    transport::{certificates::Authority, identity::Role},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_replaces_certificates_and_keys_and_keeps_their_names() {
    let dir = made().await;
    let at = dir.path().display().to_string();
    let (before, names) = (contents(&dir), names(&dir));
    let renew = async |more: &[&str]| run(&[&["certs", "renew", "--dir", &at], more].concat()).await;

    let said = renew(&[]).await.succeeded();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.contains("node-1.pem: node 1, until 2"), "{said}");
    let after = contents(&dir);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "no file is left over");
    for (file, text) in &after {
        assert_eq!(before[file] == *text, ["ca.pem", "ca.key"].contains(&&**file), "{file}");
    }
    for key in ["node-1.key", "billing.key", "alice.key"] {
        assert_eq!(fs::metadata(dir.path().join(key)).expect(key).permissions().mode() & 0o777, 0o600, "{key}");
    }
    assert_eq!(self::names(&dir), names);

    let ran = renew(&["billing", "--days", "30", "--json"]).await.succeeded();
    let ran: Value = serde_json::from_str(&ran).expect("JSON");
    assert_eq!(
        (&ran["renewed"][0]["name"], &ran["renewed"][0]["holder"]),
        (&"billing".into(), &"client billing".into())
    );
    assert_eq!(ran["renewed"].as_array().map(Vec::len), Some(1));
    assert_ne!(contents(&dir)["billing.pem"], after["billing.pem"]);
    assert_eq!(contents(&dir)["alice.pem"], after["alice.pem"], "the others stay");
    run(&["certs", "--json", "renew", "--dir", &at]).await.succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_refused_changes_nothing_and_one_that_was_interrupted_is_completed() {
    let dir = made().await;
    let path = |name: &str| dir.path().join(name);
    let at = dir.path().display().to_string();
    let renew = async |more: &[&str]| run(&[&["certs", "renew", "--dir", &at, "--json"], more].concat()).await;
    let other = Authority::create("demo").expect("an authority").issue_client("eve").expect("issued");
    other.write(dir.path(), "eve").expect("written");
    fs::copy(path("alice.pem"), path("away.pem")).expect("copied");
    let (before, elsewhere) = (contents(&dir), tempfile::tempdir().expect("temporary directory"));
    for (args, exit, says) in [
        (&["alice", "--days", "3651"][..], 2, "outlast the authority"),
        (&["alice", "--days", "0"], 2, "1 to 36500"),
        (&["alice", "bob"], 2, "bob.pem can't be read"),
        (&["alice", "alice"], 2, "given twice"),
        (&["alice", "eve"], 2, "eve.pem is not by this authority"),
        (&["alice", "away"], 2, "away.key is not here"),
        (&["ca"], 2, "not ca"),
        (&["../alice"], 2, "without .pem"),
    ] {
        let ran = renew(args).await;
        assert_eq!(ran.failure().0, exit, "{args:?}: {ran:?}");
        assert!(ran.err.contains(says), "{args:?}: {ran:?}");
        assert_eq!(contents(&dir), before, "{args:?}");
    }
    // The key of another authority, as after a mistaken restore: it would replace working pairs by
    // ones that do not verify.
    Authority::create("demo").expect("an authority").write(elsewhere.path()).expect("written");
    fs::copy(elsewhere.path().join("ca.key"), path("ca.key")).expect("copied");
    let ran = renew(&["alice"]).await;
    assert!(ran.failure().0 == 1 && ran.err.contains("ca.key is not the key of"), "{ran:?}");
    fs::write(path("ca.key"), &before["ca.key"]).expect("written");
    assert_eq!(contents(&dir), before);

    let lock = File::open(dir.path()).expect("a directory");
    lock.try_lock().expect("free");
    assert_eq!(renew(&["alice"]).await.failure(), (5, "try_again".to_owned()));
    drop(lock);

    // Without names, the certificates that can't be renewed are named and left alone.
    let said: Value = serde_json::from_str(&renew(&[]).await.succeeded()).expect("JSON");
    let of = |list: &str, field: &str| -> Vec<String> {
        let list = said[list].as_array().expect(list).iter();
        list.map(|object| object[field].as_str().expect(field).to_owned()).collect()
    };
    assert_eq!(of("renewed", "name"), ["alice", "billing", "node-1"]);
    assert_eq!(of("skipped", "file"), ["away.pem", "eve.pem"].map(|file| path(file).display().to_string()));
    assert!(of("skipped", "problem")[0].contains("away.key"), "{said}");
    assert_eq!(["eve.pem", "eve.key", "away.pem"].map(|file| contents(&dir)[file] == before[file]), [true; 3]);

    // The state between the two renames.
    renew(&["alice"]).await.succeeded();
    fs::rename(path("alice.pem"), path("alice.pem.new")).expect("renamed");
    fs::write(path("alice.pem"), &before["alice.pem"]).expect("written");
    renew(&["alice"]).await.succeeded();
    let after = contents(&dir);
    for foreign in ["alice", "billing", "node-1"].map(|name| path(&format!("{name}.key"))) {
        fs::remove_file(foreign).expect("removed");
    }
    assert_eq!(renew(&[]).await.failure(), (2, "usage".to_owned()), "there is none to renew");
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_ne!(after["alice.pem"], before["alice.pem"]);

    for (args, says) in [
        (&["certs"][..], "--dir"),
        (&["certs", "--dir", &at, "--cluster", "demo", "renew", "--dir", &at], "renew"),
        (&["certs", "renew"], "--dir"),
    ] {
        let ran = run(args).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains(says), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_names_a_half_replaced_pair_and_runs_with_a_renewed_one() {
    let mut alone = laid_out("demo", 1);
    let (certs, id) = (alone.path("certs"), NodeId(1));
    let certs = Path::new(&certs);
    let config = alone.layout().config_file(id).display().to_string();
    let old = fs::read_to_string(certs.join("node-1.pem")).expect("readable");
    run(&["certs", "renew", "--dir", &certs.display().to_string()]).await.succeeded();
    let new = fs::read_to_string(certs.join("node-1.pem")).expect("readable");
    fs::write(certs.join("node-1.pem"), old).expect("written");
    let line = run(&["serve", "--check", "--config", &config]).await.error_line();
    assert!(line.contains("node-1.key: is not the key of") && line.contains("complete its renewal"), "{line}");

    fs::write(certs.join("node-1.pem"), new).expect("written");
    alone.start_all().await.expect("started");
    alone.leader(PATIENCE).await.expect("a leader");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_signed_elsewhere_and_its_key_does_not_travel() {
    let mut alone = laid_out("demo", 1);
    let (ca, node) = (alone.path("certs"), alone.path("next"));
    let file = |name: &str| Path::new(&node).join(name);
    let csr = file("node-1.csr").display().to_string();
    let request = async |more: &[&str]| {
        run(&[&["certs", "request", "--dir", &node, "--cluster", "demo", "--json"], more].concat()).await
    };
    let sign = async |more: &[&str]| run(&[&["certs", "sign", "--ca", &ca, "--request", &csr], more].concat()).await;

    let asked: Value =
        serde_json::from_str(&request(&["--node", "1=127.0.0.1,localhost"]).await.succeeded()).expect("JSON");
    assert_eq!(asked["holder"], "node 1");
    assert_eq!(fs::metadata(file("node-1.key")).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&csr).expect("readable").contains("PRIVATE KEY"));
    let fingerprint = asked["key_sha256"].as_str().expect("text");
    assert_eq!(request(&["--node", "1=127.0.0.1"]).await.failure(), (4, "conflict".to_owned()));

    let shown = sign(&[]).await.succeeded();
    for says in ["node 1 of cluster demo", "hosts: 127.0.0.1, localhost", fingerprint, "not signed: give --out FILE"] {
        assert!(shown.contains(says), "{says}: {shown}");
    }
    let out = file("node-1.pem").display().to_string();
    let named = format!("sha256:{fingerprint}");
    for (more, exit, says) in [
        (&[][..], 2, "--fingerprint"),
        (&["--fingerprint", &fingerprint[..63]], 2, "64 hexadecimal digits"),
        (&["--fingerprint", &"0".repeat(64)], 7, "node-1.csr is for key sha256:"),
    ] {
        let ran = sign(&[&["--out", &out, "--json"], more].concat()).await;
        assert_eq!(ran.failure().0, exit, "{ran:?}");
        assert!(ran.err.contains(says), "{ran:?}");
    }
    assert!(!file("node-1.pem").exists());
    let signed: Value = serde_json::from_str(
        &sign(&["--out", &out, "--fingerprint", &named, "--days", "90", "--json"]).await.succeeded(),
    )
    .expect("JSON");
    assert_eq!((&signed["holder"], &signed["key_sha256"]), (&asked["holder"], &asked["key_sha256"]));
    let again = sign(&["--out", &out, "--fingerprint", &named, "--json"]).await;
    assert_eq!(again.failure(), (4, "conflict".to_owned()));

    // The node runs with the pair.
    for name in ["node-1.key", "node-1.pem"] {
        fs::rename(file(name), Path::new(&ca).join(name)).expect("renamed");
    }
    alone.start_all().await.expect("started");
    alone.leader(PATIENCE).await.expect("a leader");

    for (holder, role) in
        [(["--client", "app"], Role::Client("app".into())), (["--operator", "ann"], Role::Operator("ann".into()))]
    {
        let asked: Value = serde_json::from_str(&request(&holder).await.succeeded()).expect("JSON");
        let fingerprint = asked["key_sha256"].as_str().expect("text");
        let (csr, pem) = (file(&format!("{}.csr", holder[1])), file(&format!("{}.pem", holder[1])));
        let args = ["certs", "sign", "--ca", &ca, "--request", &csr.display().to_string(), "--out"];
        let said = run(&[&args[..], &[&pem.display().to_string(), "--fingerprint", fingerprint]].concat()).await;
        let said = said.succeeded();
        assert!(said.contains(holder[1]) && said.contains(fingerprint), "{said}");
        let authority = Authority::load(Path::new(&ca)).expect("an authority");
        let names = authority.names_in(&fs::read_to_string(pem).expect("readable")).expect("names");
        assert_eq!((names.identity.role, names.hosts), (role, vec![]));
    }
    for args in [&[][..], &["--client", "a", "--operator", "b"], &["--client", "A"], &["--node", "1"]] {
        assert_eq!(request(args).await.failure(), (2, "usage".to_owned()), "{args:?}");
    }

    let elsewhere = made_for("other").await;
    let ca = elsewhere.path().display().to_string();
    for (request, exit, code, says) in [
        (&*csr, 2, "usage", "authority of \\\"other\\\""),
        (&file("app.pem").display().to_string(), 7, "refused", "no request in PEM"),
        ("/nowhere/at/all", 1, "failed", "/nowhere/at/all"),
    ] {
        let ran = run(&["certs", "sign", "--ca", &ca, "--request", request, "--json"]).await;
        assert_eq!(ran.failure(), (exit, code.to_owned()), "{ran:?}");
        assert!(ran.err.contains(says), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_replaced_by_restarts_one_node_after_another() {
    let mut cluster = cluster(3).await;
    let (certs, next) = (cluster.path("certs"), cluster.path("next"));
    let [certs, next] = [&certs, &next].map(Path::new);
    let ids = cluster.ids();
    let nodes = ids.iter().flat_map(|id| ["--node".to_owned(), format!("{id}=127.0.0.1")]).collect::<Vec<_>>();
    let nodes = nodes.iter().map(String::as_str).collect::<Vec<_>>();
    let name = Authority::load(certs).expect("an authority").cluster().to_owned();
    run(&[&["certs", "--dir", &cluster.path("next"), "--cluster", &name][..], &nodes].concat()).await.succeeded();
    let old_pair = ["node-1.key", "node-1.pem"].map(|file| (file, fs::read(certs.join(file)).expect("readable")));
    let [old, new] = [certs, next].map(|dir| fs::read_to_string(dir.join("ca.pem")).expect("readable"));

    let url = cluster.endpoint(ids[0]);
    run(&["put", "k", "v", "--endpoint", &url]).await.succeeded();
    for round in 1..=3 {
        if round == 1 {
            fs::write(certs.join("ca.pem"), format!("{old}{new}")).expect("written");
        }
        if round == 3 {
            fs::write(certs.join("ca.pem"), &new).expect("written");
        }
        for id in &ids {
            for file in [format!("node-{id}.key"), format!("node-{id}.pem")].iter().filter(|_| round == 2) {
                fs::copy(next.join(file), certs.join(file)).expect("copied");
            }
            cluster.stop(*id).await.expect("stopped");
            cluster.start_node(*id).await.expect("started");
            cluster.converge(PATIENCE).await.unwrap_or_else(|error| panic!("round {round}, node {id}: {error}"));
        }
    }
    assert_eq!(run(&["get", "k", "--endpoint", &url]).await.succeeded(), "v");
    // The old authority counts no more.
    for (file, text) in old_pair {
        fs::write(certs.join(file), text).expect("written");
    }
    let config = cluster.layout().config_file(ids[0]).display().to_string();
    let line = run(&["serve", "--check", "--config", &config]).await.error_line();
    assert!(line.contains("node-1.pem") && line.contains("will refuse it"), "{line}");
}

/// The thief has all files of the node but its data, and starts as the cluster's configuration of
/// the first day says.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_key_was_stolen_is_replaced_and_the_thief_moves_nothing_while_a_leader_is_heard() {
    let mut cluster = cluster_with_joiners(3, 1).await;
    let (_, followers) = cluster.roles().await;
    let (stolen, new) = (followers[0], cluster.joiners()[0]);
    let (url, address) = (cluster.endpoint(followers[1]), cluster.layout().address(new));
    let at = async |args: &[&str]| run(&[args, &["--endpoint", &url]].concat()).await.succeeded();
    cluster.start_node(new).await.expect("it waits to be added");
    at(&["member", "add", &new.to_string(), &address]).await;
    at(&["member", "promote", &new.to_string()]).await;
    at(&["member", "remove", &stolen.to_string()]).await;
    assert_eq!(cluster.ended(stolen, PATIENCE).await.expect("it ends").code(), Some(0));

    fs::remove_dir_all(cluster.layout().data_dir(stolen)).expect("removed");
    // It may be told that it was removed before it serves.
    let thief = cluster.start_node(stolen).await;
    for value in 0..20 {
        at(&["put", "k", &value.to_string()]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let list: Value = serde_json::from_str(&at(&["member", "list", "--json"]).await).expect("JSON");
    let ids: Vec<_> = list["members"].as_array().expect("members").iter().map(|member| &member["id"]).collect();
    assert!(ids.len() == 3 && !ids.contains(&&stolen.0.into()), "{list}");
    assert_ne!(cluster.status(followers[1]).await.expect("it answers").leader_id, Some(stolen));
    if thief.is_ok()
        && let Ok(status) = cluster.status(stolen).await
    {
        assert_eq!((status.commit_index.0, status.applied_index.0), (0, 0), "it got no entry");
    }
    assert_eq!(at(&["get", "k"]).await, "19");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_listed_and_is_renewed_only_by_its_name() {
    let dir = made().await;
    let at = dir.path().display().to_string();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let certs = async |args: &[&str]| run(&[&["certs"], args, &["--dir", &at]].concat()).await.succeeded();
    let json = async |args: &[&str]| -> Value {
        serde_json::from_str(&certs(&[args, &["--json"]].concat()).await).expect("JSON")
    };

    let listed = json(&["list"]).await;
    assert_eq!(listed["crl"], Value::Null);
    let rows = states(&listed);
    let holders: Vec<_> = rows.iter().map(|(holder, _, state)| (&**holder, &**state)).collect();
    assert_eq!(holders, [("client billing", "valid"), ("node 1", "valid"), ("operator alice", "valid")]);
    assert_eq!(
        (&listed["certificates"][2]["role"], &listed["certificates"][2]["file"]),
        (&"operator".into(), &path("alice.pem").into())
    );
    let [billing, alice] = [0, 2].map(|row: usize| rows[row].1.clone());
    let said = certs(&["list"]).await;
    assert!(
        said.contains(&format!("{alice}: operator alice, until 2")) && said.contains("`certs crl` makes one"),
        "{said}"
    );

    let revoked = json(&["revoke", "--cert", &path("alice.pem"), "--reason", "key-compromise"]).await;
    assert_eq!((&revoked["number"], &revoked["file"]), (&1.into(), &path("ca.crl.pem").into()));
    let entry = &revoked["revoked"][0];
    assert_eq!((&entry["serial"], &entry["holder"]), (&(&*alice).into(), &"operator alice".into()));
    assert_eq!((&entry["reason"], &entry["new"]), (&"key-compromise".into(), &true.into()));
    let days = |list: &Value| {
        let next = humantime::parse_rfc3339(list["next_update"].as_str().expect("a time")).expect("a time");
        next.duration_since(SystemTime::now()).expect("to come").as_secs().div_ceil(24 * 3600)
    };
    assert_eq!(days(&revoked), 30);
    assert_eq!(fs::metadata(path("ca.crl.pem")).expect("there").permissions().mode() & 0o777, 0o644);

    // All but the revoked one are renewed. The old ones are known still, and can be revoked.
    let renewed = json(&["renew"]).await;
    assert_eq!(renewed["skipped"][0]["file"], path("alice.pem"));
    assert!(renewed["skipped"][0]["problem"].as_str().expect("text").contains("is revoked"), "{renewed}");
    assert_eq!(renewed["renewed"].as_array().map(Vec::len), Some(2));
    let colons = billing.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase());
    let said = certs(&["revoke", "--serial", &colons.collect::<Vec<_>>().join(":"), "--serial", &alice]).await;
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].contains("ca.crl.pem: number 2, 2 revoked, counts until 2"), "{said}");
    assert!(lines[1].starts_with(&format!("{alice}: operator alice, revoked before, at 2")), "{said}");
    assert!(lines[1].ends_with("(key-compromise)") && lines[2].ends_with("(unspecified)"), "{said}");
    assert!(lines[2].starts_with(&format!("{billing}: client billing, revoked now")) && lines.len() == 3, "{said}");

    let recovered = json(&["renew", "alice"]).await;
    let fresh = recovered["renewed"][0]["serial"].as_str().expect("a serial");
    assert_ne!(fresh, alice);
    let again = json(&["crl", "--days", "7"]).await;
    assert_eq!((&again["number"], days(&again), again["revoked"].as_array().map(Vec::len)), (&3.into(), 7, Some(2)));

    // Also one whose file was never here.
    let (csr, out) = (path("elsewhere/ann.csr"), path("elsewhere/ann.pem"));
    let asked =
        run(&["certs", "request", "--dir", &path("elsewhere"), "--cluster", "demo", "--operator", "ann", "--json"])
            .await;
    let asked: Value = serde_json::from_str(&asked.succeeded()).expect("JSON");
    let key = asked["key_sha256"].as_str().expect("text");
    run(&["certs", "sign", "--ca", &at, "--request", &csr, "--out", &out, "--fingerprint", key]).await.succeeded();
    let listed = json(&["list"]).await;
    assert_eq!(listed["crl"]["number"], 3);
    let rows = states(&listed);
    let expected = [
        ("client billing", "revoked"),
        ("client billing", "valid"),
        ("node 1", "valid"),
        ("node 1", "valid"),
        ("operator alice", "revoked"),
        ("operator alice", "valid"),
        ("operator ann", "valid"),
    ];
    let shown: Vec<_> = rows.iter().map(|(holder, _, state)| (&**holder, &**state)).collect();
    assert_eq!(
        {
            let mut sorted = shown.clone();
            sorted.sort_unstable();
            sorted
        },
        expected
    );
    assert!(rows.contains(&("operator alice".into(), fresh.into(), "valid".into())), "{listed}");
    run(&["certs", "--json", "crl", "--dir", &at]).await.succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_of_anything_but_a_certificate_of_the_authority_is_refused_and_changes_nothing() {
    let dir = made().await;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let at = dir.path().display().to_string();
    let certs = async |args: &[&str]| run(&[&["certs"], args, &["--dir", &at, "--json"]].concat()).await;
    let other = Authority::create("demo").expect("an authority").issue_operator("eve").expect("issued");
    other.write(dir.path(), "eve").expect("written");
    certs(&["revoke", "--cert", &path("alice.pem")]).await.succeeded();
    let before = contents(&dir);
    for (args, says) in [
        (&["--cert", &*path("eve.pem")][..], "eve.pem is not by this authority"),
        (&["--cert", &path("alice.key")], "alice.key holds no certificate"),
        (
            &["--cert", &path("ca.pem")],
            "ca.pem has other names than those of a holder (no node, client or operator is named)",
        ),
        (&["--cert", &path("ca.crl.pem")], "ca.crl.pem holds no certificate"),
        (&["--cert", &path("bob.pem")], "bob.pem can't be read"),
        (&["--cert", &path("billing.pem"), "--cert", &path("eve.pem")], "eve.pem is not by this authority"),
        (&["--serial", "a10b"], "serial a10b is of no certificate known in"),
        (&["--serial", "0x1"], "hexadecimal digits"),
        (&["--cert", &path("billing.pem"), "--reason", "spite"], "key-compromise"),
        (&["--cert", &path("billing.pem"), "--days", "0"], "1 to 36500"),
        (&[], "--cert"),
    ] {
        let ran = certs(&[&["revoke"], args].concat()).await;
        assert_eq!(ran.failure(), (2, "usage".to_owned()), "{args:?}: {ran:?}");
        assert!(ran.err.contains(says), "{args:?}: {ran:?}");
        assert_eq!(contents(&dir), before, "{args:?}");
    }
    let lock = File::open(dir.path()).expect("a directory");
    lock.try_lock().expect("free");
    for args in [&["revoke", "--serial", "a10b", "--unknown"][..], &["crl"]] {
        assert_eq!(certs(args).await.failure(), (5, "try_again".to_owned()));
    }
    drop(lock);

    // A record that can't be read is not replaced by one with fewer entries.
    for (file, text, says) in [
        ("ca.crl.pem", &*before["ca.pem"], "ca.crl.pem does not hold one revocation list"),
        ("ca.issued", "a10b x\n", "ca.issued, line 1, is not SERIAL END HOLDER"),
    ] {
        fs::write(path(file), text).expect("written");
        for args in [&["revoke", "--cert", &path("billing.pem")][..], &["crl"], &["list"]] {
            let ran = certs(args).await;
            assert_eq!(ran.failure(), (1, "failed".to_owned()), "{ran:?}");
            assert!(ran.err.contains(says), "{ran:?}");
        }
        assert_eq!(fs::read_to_string(path(file)).expect("there"), text);
        fs::write(path(file), &before[file]).expect("written");
    }

    let ran = certs(&["revoke", "--serial", "a10b", "--unknown"]).await.succeeded();
    let list: Value = serde_json::from_str(&ran).expect("JSON");
    assert_eq!((&list["number"], &list["revoked"][1]["serial"]), (&2.into(), &"a10b".into()));
    assert_eq!(list["revoked"][1]["holder"], Value::Null);

    // Records without their authority would pass for those of the next one.
    for file in ["ca.pem", "ca.key"] {
        fs::remove_file(path(file)).expect("removed");
    }
    for file in ["ca.issued", "ca.crl.pem"] {
        let ran = certs(&["--cluster", "demo", "--client", "carl"]).await;
        assert_eq!(ran.failure(), (4, "conflict".to_owned()), "{ran:?}");
        assert!(ran.err.contains(&format!("{file} exists")), "{ran:?}");
        fs::remove_file(path(file)).expect("removed");
    }
    certs(&["--cluster", "demo", "--client", "carl"]).await.succeeded();
}

/// By PostgreSQL's rule for secrets, root reads its own files alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_authority_s_key_of_another_user_is_not_used_by_root_and_the_remedy_is_named() {
    let dir = made().await;
    let at = dir.path().display().to_string();
    let path = |name: &str| dir.path().join(name);
    if fs::metadata(path("ca.key")).expect("there").uid() != 0 {
        return;
    }
    let before = contents(&dir);
    for file in before.keys() {
        chown(path(file), Some(4711), Some(4711)).expect("changed");
    }
    for args in [&["renew"][..], &["crl"], &["list"]] {
        let ran = run(&[&["certs"], args, &["--dir", &at, "--json"]].concat()).await;
        assert_eq!(ran.failure(), (1, "failed".to_owned()), "{ran:?}");
        assert!(
            ran.err.contains("ca.key") && ran.err.contains("uid 4711") && ran.err.contains("run as that user"),
            "{ran:?}"
        );
        assert_eq!(contents(&dir), before);
    }
    // The authority's key alone has to be root's. The others keep their owners.
    chown(path("ca.key"), Some(0), Some(0)).expect("changed");
    for args in [&["renew"][..], &["revoke", "--cert", &path("alice.pem").display().to_string()]] {
        run(&[&["certs"], args, &["--dir", &at]].concat()).await.succeeded();
    }
    for file in contents(&dir).keys().filter(|file| !["ca.key", "ca.crl.pem"].contains(&&***file)) {
        assert_eq!(fs::metadata(path(file)).expect("there").uid(), 4711, "{file}");
    }
}

/// Holder, serial and state of each certificate that `certs list --json` shows.
fn states(listed: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let rows = listed["certificates"].as_array().expect("a list").iter();
    rows.map(|row| (text(&row["holder"]), text(&row["serial"]), text(&row["state"]))).collect()
}

/// A directory with an authority, and a certificate of each role.
async fn made() -> TempDir {
    made_for("demo").await
}

async fn made_for(cluster: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let at = dir.path().display().to_string();
    let holders = ["--node", "1=127.0.0.1,localhost", "--client", "billing", "--operator", "alice"];
    run(&[&["certs", "--dir", &at, "--cluster", cluster][..], &holders].concat()).await.succeeded();
    dir
}

fn contents(dir: &TempDir) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir.path()).expect("readable").map(|entry| entry.expect("an entry"));
    let entries = entries.filter(|entry| entry.path().is_file());
    let read = |path: &Path| fs::read_to_string(path).expect("text");
    entries.map(|entry| (entry.file_name().into_string().expect("text"), read(&entry.path()))).collect()
}

/// Holder and hosts of each certificate.
fn names(dir: &TempDir) -> Vec<(Role, Vec<String>)> {
    let authority = Authority::load(dir.path()).expect("an authority");
    let files = contents(dir);
    let issued = ["node-1.pem", "billing.pem", "alice.pem"].map(|file| authority.names_in(&files[file]).expect(file));
    issued.into_iter().map(|names| (names.identity.role, names.hosts)).collect()
}
