//! Certificates issued for requests, for a limited time, and again.

use quorate_raft::NodeId;
use quorate_transport::{
    certificates::{
        AUTHORITY_LASTS, Authority, CertificateError, LIST_FILE, LIST_LASTS, Reason, Request, Requested, Serial,
        Subject, end_of,
    },
    identity::{Identity, Role},
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};
use rustls::{
    CertificateError as Refused, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

const CLUSTER: &str = "testing";
const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn a_request_becomes_a_certificate_of_its_key_and_names_and_of_nothing_else() {
    let authority = Authority::create(CLUSTER).unwrap();
    for (role, hosts) in [
        (Role::Node(NodeId(1)), &["n1.example", "10.0.0.1", "::1", "*.lb.example"][..]),
        (Role::Node(NodeId(2)), &[]),
        (Role::Client("billing".into()), &[]),
        (Role::Operator("alice".into()), &[]),
    ] {
        let subject = subject(role, hosts);
        let requested = Requested::make(&subject).unwrap();
        let request = Request::parse(&requested.request_pem).unwrap();
        assert_eq!(request.subject(), &subject);
        assert_eq!(request.fingerprint(), requested.fingerprint);
        let certificate = authority.sign(&request).unwrap();
        assert_eq!(authority.names_in(&certificate), Ok(subject.clone()));
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
        let parsed = pem.parse_x509().unwrap();
        let key = KeyPair::from_pem(&requested.key_pem).unwrap();
        assert_eq!(parsed.public_key().raw, key.subject_public_key_info());
        let usages = parsed.extended_key_usage().unwrap().unwrap().value;
        assert_eq!(usages.server_auth, matches!(subject.identity.role, Role::Node(_)), "{}", subject.identity);
        assert!(usages.client_auth && !parsed.is_ca());
        assert_eq!(parsed.key_usage().unwrap().unwrap().value.flags, 1, "signatures alone");
    }
}

#[test]
fn a_request_for_anything_but_one_name_of_its_own_cluster_and_hosts_is_refused_by_name() {
    let authority = Authority::create(CLUSTER).unwrap();
    let node = "n1.testing.quorate.internal";
    let sign = |pem: &str| Request::parse(pem).and_then(|request| authority.sign(&request));
    let refused = |pem: &str, why: &str| {
        let error = sign(pem).expect_err(why).to_string();
        assert!(error.contains(why) && error.lines().count() == 1, "{error:?} says {why:?}");
    };
    sign(&request(&[node], |_| ())).expect("this one is in order");

    for (names, why) in [
        (&[][..], "no node, client or operator is named"),
        (&["host.example"], "no node, client or operator is named"),
        (&[node, "n2.testing.quorate.internal"], "more than one node"),
        (&[node, "alice.operator.testing.quorate.internal"], "more than one node"),
        (&[node, "*.testing.quorate.internal"], "more than one node"),
        (&["N1.testing.quorate.internal"], "malformed"),
        (&["*.operator.testing.quorate.internal"], "malformed"),
        (&["n1.other.quorate.internal"], "\"other\""),
        (&["alice.operator.other.quorate.internal"], "\"other\""),
        (&["billing.client.testing.quorate.internal", "host.example"], "hosts, which only a node has"),
        (&["alice.operator.testing.quorate.internal", "10.0.0.1"], "hosts, which only a node has"),
        (&[node, "a host"], "\"a host\""),
        (&[node, "\u{1b}[2K"], "u{1b}"),
        (&[node, "*"], "\"*\" can't stand"),
        (&[node, "*."], "\"*.\" can't stand"),
        (&[node, "*.*"], "\"*.*\" can't stand"),
        (&[node, "a.*.example"], "\"a.*.example\" can't stand"),
        (&[node, "*a.example"], "\"*a.example\" can't stand"),
    ] {
        refused(&request(names, |_| ()), why);
    }
    let more = "more than a node's, client's or operator's name and hosts";
    refused(&request(&[node], |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), more);
    refused(&request(&[node], |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]), more);
    refused(&request(&[node], |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]), more);
    let email = SanType::Rfc822Name("a@b.example".try_into().unwrap());
    refused(&request(&[node], |params| params.subject_alt_names.push(email.clone())), more);

    authority.issue_node(NodeId(1), &["*".to_owned()]).expect_err("it would be every host");

    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let pem = CertificateParams::new([node.to_owned()]).unwrap().serialize_request(&key).unwrap().pem().unwrap();
        refused(&pem, "not ECDSA P-256");
    }
    refused("", "no request in PEM");
    refused(authority.certificate_pem(), "no request in PEM");

    let [shown, signs] = [1, 2].map(|_| KeyPair::generate().unwrap());
    let request = CertificateParams::new([node.to_owned()]).unwrap().serialize_request(&Liar { shown, signs });
    refused(&request.unwrap().pem().unwrap(), "its signature is not by its key");
}

#[test]
fn a_certificate_lasts_as_long_as_asked_and_none_outlasts_its_authority() {
    let authority = Authority::create(CLUSTER).unwrap();
    for days in [1, 365, 3649] {
        let authority = Authority::create(CLUSTER).unwrap().issuing_for(DAY * days);
        let issued = authority.issue_client("app").unwrap();
        let expected = SystemTime::now() + DAY * days;
        let end = end_of(&issued.certificate_pem).unwrap();
        assert!(expected.duration_since(end).unwrap_or_default() < Duration::from_secs(60), "{days}");
        assert!(end.duration_since(expected).unwrap_or_default() < Duration::from_secs(60), "{days}");
    }
    let authority = authority.issuing_for(AUTHORITY_LASTS + DAY);
    let request = Request::parse(&Requested::make(&subject(Role::Node(NodeId(1)), &[])).unwrap().request_pem).unwrap();
    for refused in [
        authority.issue_client("app").expect_err("it would outlast the authority"),
        authority.sign(&request).expect_err("it would outlast the authority"),
    ] {
        assert!(matches!(refused, CertificateError::Outlasts { .. }));
        let says = refused.to_string();
        assert!(says.contains("3651 days would outlast the authority, which has 3649 left"), "{says}");
    }
}

#[test]
fn only_certificates_of_the_same_authority_have_names_to_issue_again() {
    let (authority, other) = (Authority::create(CLUSTER).unwrap(), Authority::create(CLUSTER).unwrap());
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let issued = authority.issue_node(NodeId(1), &hosts).unwrap();
    let names = authority.names_in(&issued.certificate_pem).unwrap();
    assert_eq!((names.identity.role.clone(), &names.hosts[..]), (Role::Node(NodeId(1)), &hosts[..]));
    let again = authority.issue(&names).unwrap();
    assert_eq!(authority.names_in(&again.certificate_pem), Ok(names));
    assert_ne!(again.key_pem, issued.key_pem, "with a new key");

    for (pem, why) in [
        (other.issue_node(NodeId(1), &[]).unwrap().certificate_pem.clone(), "is not by this authority"),
        (authority.certificate_pem().to_owned(), "no node, client or operator is named"),
        ("none".to_owned(), "holds no certificate in PEM"),
    ] {
        let error = authority.names_in(&pem).expect_err(why);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn an_authority_whose_key_and_certificate_do_not_belong_together_is_not_loaded() {
    let dirs = [1, 2].map(|_| tempfile::tempdir().unwrap());
    let [own, other] = dirs.each_ref().map(|dir| dir.path());
    for dir in [own, other] {
        Authority::create(CLUSTER).unwrap().write(dir).unwrap();
        Authority::load(dir).expect("a pair");
    }
    let [first, second] = [own, other].map(|dir| fs::read_to_string(dir.join("ca.pem")).unwrap());
    let refused = |says: &str| {
        let error = Authority::load(own).expect_err(says).to_string();
        assert!(error.contains(says) && error.lines().count() == 1, "{error:?} says {says:?}");
    };
    for both in [format!("{first}{second}"), format!("{second}{first}")] {
        fs::write(own.join("ca.pem"), both).unwrap();
        refused("ca.pem has several certificates");
    }
    fs::write(own.join("ca.pem"), &first).unwrap();
    fs::copy(other.join("ca.key"), own.join("ca.key")).unwrap();
    refused("ca.key is not the key of");
    fs::write(own.join("ca.pem"), second).unwrap();
    Authority::load(own).expect("the other pair");
}

#[test]
fn serials_differ_also_between_certificates_of_one_request() {
    let authority = Authority::create(CLUSTER).unwrap();
    let request = Request::parse(&Requested::make(&subject(Role::Node(NodeId(1)), &[])).unwrap().request_pem).unwrap();
    let signed = (0..10).map(|_| authority.sign(&request).unwrap());
    let issued = (0..10).map(|_| authority.issue_client("app").unwrap().certificate_pem.clone());
    let serials: BTreeSet<_> = signed.chain(issued).map(|pem| authority.examine(&pem).unwrap().serial).collect();
    assert_eq!(serials.len(), 20);
    assert!(serials.iter().all(|serial| serial.to_string().len() == 32), "{serials:?}");
}

#[test]
fn a_list_keeps_every_entry_counts_up_and_is_what_a_verifier_goes_by() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let authority = Authority::create(CLUSTER).unwrap();
    authority.write(dir).unwrap();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| authority.issue_client(name).unwrap());
    let [a, b] = [&alice, &bob].map(|issued| authority.examine(&issued.certificate_pem).unwrap().serial);
    assert_eq!(authority.revocation_list(dir).unwrap(), None);

    let first = authority.revoke(dir, &[], Reason::Unspecified, LIST_LASTS).unwrap();
    assert_eq!((first.number, first.revoked.len()), (1, 0));
    let verdicts = || {
        let verifier = verifier(&authority, dir);
        [&alice, &bob, &carol].map(|issued| verdict(&*verifier, &issued.certificate_pem))
    };
    assert_eq!(verdicts(), [Ok(()), Ok(()), Ok(())]);

    // As after a restart, from the files.
    let loaded = Authority::load(dir).unwrap();
    loaded.revoke(dir, std::slice::from_ref(&a), Reason::KeyCompromise, LIST_LASTS).unwrap();
    let once = loaded.revocation_list(dir).unwrap().unwrap();
    let last = authority.revoke(dir, &[a.clone(), b.clone(), b.clone()], Reason::Superseded, LIST_LASTS).unwrap();
    assert_eq!(Some(&last), loaded.revocation_list(dir).unwrap().as_ref());
    assert_eq!((once.number, last.number), (2, 3));
    assert_eq!(last.revoked[0], once.revoked[0], "its entry stays");
    let shown: Vec<_> = last.revoked.iter().map(|entry| (&entry.serial, entry.reason)).collect();
    assert_eq!(shown, [(&a, Reason::KeyCompromise), (&b, Reason::Superseded)]);
    let expected = SystemTime::now() + LIST_LASTS;
    assert!(expected.duration_since(last.next_update).unwrap() < Duration::from_secs(60));
    assert_eq!(verdicts(), [Err(Refused::Revoked), Err(Refused::Revoked), Ok(())]);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, [LIST_FILE, "ca.key", "ca.pem"], "nothing is left over");

    // A list that has lapsed says nothing about any certificate.
    authority.revoke(dir, &[], Reason::Unspecified, Duration::ZERO).unwrap();
    assert!(verdicts().iter().all(|verdict| matches!(verdict, Err(Refused::ExpiredRevocationListContext { .. }))));
}

#[test]
fn a_list_is_extended_by_its_own_authority_alone_and_lasts_no_longer_than_that() {
    let dirs = [1, 2].map(|_| tempfile::tempdir().unwrap());
    let [dir, other] = dirs.each_ref().map(|dir| dir.path());
    let authority = Authority::create(CLUSTER).unwrap();
    authority.write(dir).unwrap();
    Authority::create(CLUSTER).unwrap().revoke(other, &[], Reason::Unspecified, LIST_LASTS).unwrap();
    authority.revoke(dir, &["a1".parse::<Serial>().unwrap()], Reason::Unspecified, LIST_LASTS).unwrap();
    let [own, foreign] = [dir, other].map(|dir| fs::read_to_string(dir.join(LIST_FILE)).unwrap());
    let half = &own[..own.len() / 2];
    for (text, says) in [
        (&*foreign, "is not by the authority beside it"),
        (&format!("{own}{foreign}"), "does not hold one revocation list"),
        ("", "does not hold one revocation list"),
        (half, "malformed"),
    ] {
        fs::write(dir.join(LIST_FILE), text).unwrap();
        let error = authority.revoke(dir, &[], Reason::Unspecified, LIST_LASTS).expect_err(says).to_string();
        assert!(error.contains(LIST_FILE) && error.contains(says) && error.lines().count() == 1, "{error}");
        assert_eq!(fs::read_to_string(dir.join(LIST_FILE)).unwrap(), text, "it stays");
    }
    fs::write(dir.join(LIST_FILE), &own).unwrap();
    fs::write(dir.join(format!("{LIST_FILE}.new")), half).unwrap();
    let list = authority.revoke(dir, &[], Reason::Unspecified, AUTHORITY_LASTS * 2).unwrap();
    assert_eq!((list.number, list.revoked.len()), (2, 1));
    assert_eq!(Some(list.next_update), end_of(authority.certificate_pem()));

    for (usages, ends, says) in [
        (&[KeyUsagePurpose::KeyCertSign][..], DAY, "may not sign revocation lists"),
        (&[], DAY, "may not sign revocation lists"),
        (&[KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign], Duration::ZERO, "has ended"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Quorate CA of testing");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = usages.to_vec();
        params.not_after = (SystemTime::now() + ends).into();
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        quorate_transport::certificates::write_new(&dir.path().join("ca.key"), &key.serialize_pem(), 0o600).unwrap();
        let authority = Authority::load(dir.path()).unwrap();
        let error = authority.revoke(dir.path(), &[], Reason::Unspecified, LIST_LASTS).expect_err(says).to_string();
        assert!(error.contains("ca.pem") && error.contains(says), "{error}");
        assert!(!dir.path().join(LIST_FILE).exists());
    }
}

/// A server's verifier that goes by the list in `dir`, and by its end.
fn verifier(authority: &Authority, dir: &Path) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    WebPkiClientVerifier::builder_with_provider(roots.into(), default_provider().into())
        .with_crls([CertificateRevocationListDer::from_pem_file(dir.join(LIST_FILE)).unwrap()])
        .enforce_revocation_expiration()
        .build()
        .unwrap()
}

fn verdict(verifier: &dyn ClientCertVerifier, certificate_pem: &str) -> Result<(), Refused> {
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).unwrap();
    match verifier.verify_client_cert(&certificate, &[], UnixTime::now()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InvalidCertificate(refused)) => Err(refused),
        Err(error) => panic!("{error}"),
    }
}

fn subject(role: Role, hosts: &[&str]) -> Subject {
    let hosts = hosts.iter().map(ToString::to_string).collect();
    Subject { identity: Identity { cluster: CLUSTER.into(), role }, hosts }
}

/// A request with these names, changed by `change` before it is signed.
fn request(names: &[&str], change: impl Fn(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    change(&mut params);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

/// Asks for a certificate of a key that it does not have.
struct Liar {
    shown: KeyPair,
    signs: KeyPair,
}

impl PublicKeyData for Liar {
    fn der_bytes(&self) -> &[u8] {
        self.shown.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.shown.algorithm()
    }
}

impl SigningKey for Liar {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signs.sign(message)
    }
}
