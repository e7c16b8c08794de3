//! Access to the HTTP interface: the identity of a caller, and the refusal of requests that it does
//! not permit.
//!
//! An identity is proven by a bearer token or, without one, by the certificate of the connection. A
//! token that is not known proves nothing, and takes away what the caller could do without it.
//! Callers without an identity may do what the configuration says, by default nothing but to probe;
//! at a loopback address they count as operators so long as the configuration has no proof of an
//! identity. An operator may do all that a client may: with a backup it has all data anyway. A
//! node's certificate permits nothing here. Each request is judged by the credentials in force when
//! its head arrives (`credentials`); an identity that counts no more ends in `standing`.

use super::{
    Refusal,
    clients::Shown,
    connections::Client,
    credentials::{Credentials, InForce},
    guard::LIVE_PAGE,
    permission::{Permission, required},
    refusal::Code,
    standing::{Proof, Standing, certificate_lost},
    throttle::Throttle,
    tokens::Token,
};
use crate::config::{Config, HttpAuth, Loopback};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use quorate::transport::identity::{Role, identity_of};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_rustls::TlsAcceptor;

/// The interval of log lines about administrative requests that are refused for lack of a role, of
/// one caller, or of all without an identity: they cost their senders nothing, and must not push out
/// other lines.
const SAY_AGAIN: Duration = Duration::from_secs(1);
/// The number of such lines of a known caller at once: more than there are endpoints.
const SAID_AT_ONCE: u32 = 32;
/// The maximum lengths of the path and of the body in a log line. A path with a valid id is
/// shorter; both together, escaped, stay below the maximum length of a line.
const PATH_BYTES_MAX: usize = 256;
const ASKED_BYTES_MAX: usize = 3 << 10;

/// The endpoints of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Serves {
    All,
    /// Those of clients, and probes.
    Clients,
    /// Those of operators, metrics and probes.
    Administration,
}

impl Serves {
    fn check(self, required: Permission) -> Result<(), Refusal> {
        let is_of_clients = matches!(required, Permission::Read | Permission::Write);
        let elsewhere = match self {
            Self::Clients if !is_of_clients => "http_admin.listen",
            Self::Administration if is_of_clients => "http",
            _ => return Ok(()),
        };
        Err(Refusal::NotFound(format!("this node serves the path at its address `{elsewhere}`, and not at this one")))
    }
}

/// The rules for one listener, and the credentials in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access {
    rules: Arc<Rules>,
    credentials: InForce,
}

#[derive(Debug)]
struct Rules {
    cluster: String,
    /// Of callers without an identity.
    anonymous: Permission,
    serves: Serves,
}

impl Access {
    /// The rules for the listener `http` of a configuration.
    #[must_use]
    pub fn of(config: &Config, credentials: InForce) -> Self {
        let serves = if config.http_admin.is_some() { Serves::Clients } else { Serves::All };
        Self::with(&config.cluster, anonymous(config, config.http), serves, credentials)
    }

    /// The rules for the listener `http_admin`, at this address.
    #[must_use]
    pub fn of_admin(config: &Config, listen: SocketAddr, credentials: InForce) -> Self {
        Self::with(&config.cluster, anonymous(config, listen), Serves::Administration, credentials)
    }

    /// Rules by which every caller is an operator: for a listener that only trusted programs can
    /// reach.
    #[must_use]
    pub fn unrestricted(cluster: &str) -> Self {
        let (_, credentials) = watch::channel(Arc::default());
        Self::with(cluster, Permission::Operate, Serves::All, credentials)
    }

    fn with(cluster: &str, anonymous: Permission, serves: Serves, credentials: InForce) -> Self {
        Self { rules: Arc::new(Rules { cluster: cluster.to_owned(), anonymous, serves }), credentials }
    }

    /// The permission of callers without an identity.
    #[must_use]
    pub fn anonymous(&self) -> Permission {
        self.rules.anonymous
    }

    pub(super) fn serves(&self) -> Serves {
        self.rules.serves
    }

    /// The credentials in force now.
    pub(super) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials.borrow())
    }

    /// The acceptor of this listener among credentials; `None`: plain text.
    pub(super) fn acceptor(&self, credentials: &Credentials) -> Option<TlsAcceptor> {
        let tls = credentials.tls.as_ref()?;
        Some(if self.rules.serves == Serves::Administration { &tls.admin } else { &tls.clients }.clone())
    }

    /// The caller at the other end of a connection, with the certificate that TLS has verified.
    pub(super) fn connected(&self, from: IpAddr, certificate: Option<&[u8]>) -> Subject {
        let Some(certificate) = certificate else {
            return Subject {
                who: Who::Address(from),
                may: self.rules.anonymous,
                share: Client::from(from),
                token: None,
            };
        };
        let foreign = |why| Subject::unproven(from, why);
        match identity_of(certificate) {
            Err(why) => foreign(why),
            Ok(identity) if identity.cluster != self.rules.cluster => foreign("the certificate is of another cluster"),
            Ok(identity) => Subject::known(
                identity.role.to_string(),
                match identity.role {
                    Role::Node(_) => Permission::Open,
                    Role::Client(_) => Permission::Write,
                    Role::Operator(_) => Permission::Operate,
                },
                None,
            ),
        }
    }

    /// The caller of a request on a connection.
    pub(super) fn called(
        &self,
        connected: &Subject,
        standing: &Standing,
        from: IpAddr,
        headers: &HeaderMap,
    ) -> Subject {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let Some(first) = given.next() else {
            return match standing.lost_for() {
                None => connected.clone(),
                Some(why) => Subject::unproven(from, why),
            };
        };
        let credentials = self.credentials.borrow();
        let holder = match (&credentials.tokens, given.next()) {
            (Some(tokens), None) => bearer(first.as_bytes()).map(|token| tokens.holder(token)),
            (None, _) => Err("the node has no tokens: leave the authorization header out"),
            (Some(_), Some(_)) => Err("the authorization header is given more than once"),
        };
        match holder.and_then(|holder| holder.ok_or("the token is not known to this node")) {
            Ok(holder) => {
                let name = format!("{} {}", holder.role.name(), holder.name);
                Subject::known(name, holder.role.may(), Some(Arc::clone(holder)))
            }
            Err(why) => Subject::unproven(from, why),
        }
    }

    /// The proof of a request's caller.
    pub(super) fn proof(&self, caller: &Subject, standing: &Standing) -> Proof {
        Proof { token: caller.token.clone(), connection: standing.clone(), now: self.credentials.clone() }
    }

    /// Resolves with the reason once the certificate of a connection counts no more; `accepted`: the
    /// credentials in force when it was accepted.
    pub(super) fn certificate_lost(
        &self,
        shown: Option<Shown>,
        accepted: Arc<Credentials>,
    ) -> impl Future<Output = &'static str> + Send + use<> {
        certificate_lost(shown, accepted, self.credentials.clone())
    }

    /// Whether the caller of a request at the local address `local` may read metrics by any name of
    /// this server: with an identity, which no page can prove by another name, or where an address
    /// that other machines can reach permits reads without one.
    pub(super) fn is_scraper(&self, caller: &Subject, local: IpAddr) -> bool {
        match caller.who {
            Who::Known(_) => true,
            Who::Address(_) => self.rules.anonymous >= Permission::Monitor && !local.to_canonical().is_loopback(),
            Who::Unproven(..) => false,
        }
    }
}

/// The permission of callers without an identity at this address of a configuration.
fn anonymous(config: &Config, listen: SocketAddr) -> Permission {
    let auth = &config.http_auth;
    let reads = if auth.allow_anonymous_reads == Some(true) { Permission::Read } else { Permission::Open };
    let is_proven = config.asks_for_identity();
    if auth.allow_anonymous == Some(true) {
        Permission::Operate
    } else if listen.ip().is_loopback() && !(config.http_tls.is_some() && is_proven) {
        let by_default = if is_proven { Loopback::Anonymous } else { Loopback::Operator };
        match auth.loopback.unwrap_or(by_default) {
            Loopback::Operator => Permission::Operate,
            Loopback::Anonymous => reads,
        }
    } else if config.http_tls.is_none() && *auth == HttpAuth::default() {
        // `allow_plaintext_http` alone: there is no identity that a caller could have.
        Permission::Operate
    } else {
        reads
    }
}

/// The token in the value of an `Authorization` header.
fn bearer(value: &[u8]) -> Result<&[u8], &'static str> {
    let space = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, token) = value.split_at(space);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err("the authorization header is not `Bearer TOKEN`");
    }
    Ok(token.trim_ascii())
}

/// The caller of a request.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    who: Who,
    may: Permission,
    /// The unit of sharing: the identity, or the address without one.
    pub(super) share: Client,
    /// The token that proves it, if it is one.
    token: Option<Arc<Token>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Who {
    /// Role and name.
    Known(Arc<str>),
    Address(IpAddr),
    /// The same, of a caller that gave something that proves no identity, and the reason.
    Unproven(IpAddr, &'static str),
}

impl Subject {
    fn known(name: String, may: Permission, token: Option<Arc<Token>>) -> Self {
        let share = Client::identified(&name);
        Self { who: Who::Known(name.into()), may, share, token }
    }

    fn unproven(from: IpAddr, why: &'static str) -> Self {
        Self { who: Who::Unproven(from, why), may: Permission::Open, share: Client::from(from), token: None }
    }

    /// Checks that it has a permission.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for a caller with an identity, otherwise [`Refusal::Unauthenticated`].
    fn check(&self, required: Permission) -> Result<(), Refusal> {
        if self.may >= required {
            return Ok(());
        }
        let role = required.role();
        let why = match &self.who {
            Who::Known(name) => {
                return Err(Refusal::Forbidden(format!("{name} may not do this; it needs the role {role}")));
            }
            Who::Address(_) => "the request proves no identity",
            Who::Unproven(_, why) => why,
        };
        Err(Refusal::Unauthenticated(format!(
            "{why}; this needs the role {role}: send a client certificate of this cluster (--cert and --key) or a token \
             (--token-file)"
        )))
    }
}

/// The refusal of a caller with a proof that has ceased to count.
pub(super) fn outlived(why: &str) -> Refusal {
    Refusal::Unauthenticated(format!("{why}: connect again with one that does"))
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Known(name) => f.write_str(name),
            Who::Address(from) | Who::Unproven(from, _) => from.fmt(f),
        }
    }
}

/// The parsed body of an administrative request, for its log line. It has no values of keys.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<OnceLock<String>>);

impl Asked {
    pub(super) fn set(&self, body: &impl fmt::Debug) {
        // One body per request.
        let _ = self.0.set(cut(&format!("{body:?}"), ASKED_BYTES_MAX));
    }
}

/// The text, cut to a maximum length, with a mark if it was longer.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    if text.len() <= bytes_max { text.to_owned() } else { format!("{}…", &text[..end]) }
}

/// A layer over all routes: refuses requests that the caller has no permission for, and logs
/// administrative ones with their caller and result.
pub(super) async fn authorize(State(denials): State<Denials>, mut request: Request, next: Next) -> Response {
    // Without a matched path, the request gets 404.
    let Some(path) = request.extensions().get::<MatchedPath>() else { return next.run(request).await };
    let Some(required) = required(request.method(), path.as_str()) else {
        return Refusal::MethodNotAllowed.into_response();
    };
    // The page is served where its data is.
    let is_of_page = LIVE_PAGE.contains(&path.as_str());
    if required == Permission::Open && !is_of_page {
        return next.run(request).await;
    }
    let (subject, serves) = (request.extensions().get::<Subject>(), request.extensions().get::<Serves>());
    let (Some(subject), Some(serves)) = (subject.cloned(), serves) else {
        return Refusal::Unauthenticated("the listener knows no caller".to_owned()).into_response();
    };
    if let Err(elsewhere) = serves.check(if is_of_page { Permission::Monitor } else { required }) {
        return elsewhere.into_response();
    }
    let checked = subject.check(required);
    if required < Permission::Operate {
        return match checked {
            Ok(()) => next.run(request).await,
            Err(refusal) => refusal.into_response(),
        };
    }
    let asked = Asked::default();
    request.extensions_mut().insert(asked.clone());
    let action = format!("{} {}", request.method(), cut(request.uri().path(), PATH_BYTES_MAX));
    let said = checked.as_ref().err().map(|_| denials.may_say(&subject));
    let left_out = match (&checked, said) {
        (Err(refusal), Some(None)) => return refusal.clone().into_response(),
        (_, said) => said.flatten().filter(|lines| *lines > 0),
    };
    let result = "unknown: the caller left before the answer";
    let mut record = Record { subject, action, asked, result, left_out };
    let response = match checked {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    record.result = response.extensions().get::<Code>().map_or("ok", |Code { code, .. }| code);
    response
}

/// The log line of an administrative request. It is written also if the caller leaves: the node
/// may then go on with the action.
struct Record {
    subject: Subject,
    action: String,
    asked: Asked,
    result: &'static str,
    /// The number of lines about such requests since the last one that were not written.
    left_out: Option<u64>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let Self { subject, action, asked, result, left_out } = self;
        let asked = asked.0.get().map_or("", |asked| asked);
        // The texts of the caller come last: they can hide nothing that follows.
        tracing::info!(caller = %subject, result, left_out, action, asked, "administrative request");
    }
}

/// The log lines about administrative requests of callers that have not the role.
#[derive(Clone)]
pub(super) struct Denials(Arc<Mutex<DenialLines>>);

struct DenialLines {
    known: Throttle<Client>,
    /// All callers without an identity share one limit: an address costs nothing.
    unknown: Throttle<()>,
}

impl Default for Denials {
    fn default() -> Self {
        let (known, unknown) = (Throttle::new(SAID_AT_ONCE, SAY_AGAIN), Throttle::new(1, SAY_AGAIN));
        Self(Arc::new(Mutex::new(DenialLines { known, unknown })))
    }
}

impl Denials {
    /// The number of lines that were left out since the last one, if a line may be logged.
    fn may_say(&self, subject: &Subject) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match subject.who {
            Who::Known(_) => lines.known.may_say(subject.share, Instant::now()),
            Who::Address(_) | Who::Unproven(..) => lines.unknown.may_say((), Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::HttpTls, http::tokens::Tokens};
    use quorate::transport::certificates::{Authority, Issued};
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

    #[test]
    fn a_caller_without_an_identity_may_do_what_the_configuration_says() {
        use Permission::{Open, Operate, Read};
        let tls = |client_ca: Option<&str>| {
            Some(HttpTls { cert: "c".into(), key: "k".into(), client_ca: client_ca.map(Into::into), client_crl: None })
        };
        let auth = |change: fn(&mut HttpAuth)| {
            let mut auth = HttpAuth::default();
            change(&mut auth);
            auth
        };
        let none = || auth(|_| {});
        let tokens = || auth(|auth| auth.tokens = Some("t".into()));
        let reads = || auth(|auth| (auth.tokens, auth.allow_anonymous_reads) = (Some("t".into()), Some(true)));
        let all = || auth(|auth| auth.allow_anonymous = Some(true));
        let closed = || auth(|auth| auth.loopback = Some(Loopback::Anonymous));
        let open = || auth(|auth| (auth.tokens, auth.loopback) = (Some("t".into()), Some(Loopback::Operator)));
        for (http, tls, auth, may) in [
            ("127.0.0.1:1", None, none(), Operate),
            ("[::1]:1", None, tokens(), Open),
            ("[::1]:1", None, reads(), Read),
            ("[::1]:1", None, open(), Operate),
            ("127.0.0.1:1", None, closed(), Open),
            ("127.0.0.1:1", tls(None), none(), Operate),
            ("127.0.0.1:1", tls(None), tokens(), Open),
            ("127.0.0.1:1", tls(None), open(), Open),
            ("127.0.0.1:1", tls(Some("ca")), none(), Open),
            ("127.0.0.1:1", tls(Some("ca")), reads(), Read),
            ("0.0.0.0:1", None, none(), Operate),
            ("0.0.0.0:1", None, tokens(), Open),
            ("0.0.0.0:1", None, auth(|auth| auth.allow_anonymous_reads = Some(true)), Read),
            ("0.0.0.0:1", None, auth(|auth| auth.allow_anonymous = Some(false)), Open),
            ("0.0.0.0:1", None, auth(|auth| auth.allow_anonymous_reads = Some(false)), Open),
            ("0.0.0.0:1", None, closed(), Open),
            ("0.0.0.0:1", None, auth(|auth| auth.loopback = Some(Loopback::Operator)), Open),
            ("0.0.0.0:1", None, all(), Operate),
            ("0.0.0.0:1", tls(None), tokens(), Open),
            ("0.0.0.0:1", tls(None), reads(), Read),
            ("0.0.0.0:1", tls(None), all(), Operate),
            ("0.0.0.0:1", tls(Some("ca")), all(), Operate),
            ("0.0.0.0:1", tls(Some("ca")), none(), Open),
        ] {
            let mut config = crate::config::example();
            config.http = http.parse().expect("an address");
            (config.http_tls, config.http_auth) = (tls, auth);
            assert_eq!(anonymous(&config, config.http), may, "{http} {:?} {:?}", config.http_tls, config.http_auth);
        }
    }

    #[test]
    fn a_certificate_proves_a_role_in_its_own_cluster_alone() {
        let access = restricted();
        let [own, other] = ["demo", "other"].map(|cluster| Authority::create(cluster).expect("made"));
        let of = |issued: Issued| {
            let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM");
            access.connected(HERE, Some(&der))
        };
        let client = of(own.issue_client("billing").expect("made"));
        assert_eq!((client.may, client.to_string()), (Permission::Write, "client billing".to_owned()));
        let operator = of(own.issue_operator("alice").expect("made"));
        assert_eq!((operator.may, operator.to_string()), (Permission::Operate, "operator alice".to_owned()));
        let node = of(own.issue_node(quorate::NodeId(1), &[]).expect("made"));
        assert!(matches!(node.check(Permission::Monitor), Err(Refusal::Forbidden(_))), "{node:?}");
        let foreign = of(other.issue_operator("alice").expect("made"));
        assert!(matches!(foreign.check(Permission::Monitor), Err(Refusal::Unauthenticated(_))), "{foreign:?}");
        assert_ne!(client.share, operator.share);
        assert_eq!(client.share, of(own.issue_client("billing").expect("made")).share);
        assert_eq!(foreign.share, Client::from(HERE));
    }

    #[test]
    fn a_token_counts_before_the_connection_and_one_that_is_not_known_takes_all_away() {
        let connected = Access::unrestricted("demo").connected(HERE, None);
        let access = restricted();
        let called = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().expect("a value"));
            }
            access.called(&connected, &Standing::default(), HERE, &headers)
        };
        assert_eq!(called(&[]).may, Permission::Operate);
        let good = format!("Bearer {TOKEN}");
        for value in [&*good, &format!("bearer  {TOKEN}"), &format!("BEARER {TOKEN} ")] {
            assert_eq!((called(&[value]).may, called(&[value]).to_string()), (Permission::Monitor, "monitor m".into()));
        }
        for values in [&["Bearer"][..], &["Bearer x"], &["Basic eDp5"], &[TOKEN], &[""], &[&good, &good]] {
            let refused = called(values);
            assert_eq!(refused.may, Permission::Open, "{values:?}");
            assert!(matches!(refused.check(Permission::Monitor), Err(Refusal::Unauthenticated(_))));
        }
    }

    #[test]
    fn a_request_on_a_connection_whose_certificate_counts_no_more_is_refused_with_the_reason() {
        let (access, standing) = (restricted(), Standing::default());
        let authority = Authority::create("demo").expect("made");
        let issued = authority.issue_client("billing").expect("made");
        let der = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM");
        let connected = access.connected(HERE, Some(&der));
        let mut headers = HeaderMap::new();
        let called = |headers: &HeaderMap| access.called(&connected, &standing, HERE, headers);
        called(&headers).check(Permission::Write).expect("it counts");
        standing.lose("the certificate of the connection was revoked");
        let refused = called(&headers).check(Permission::Write).expect_err("it counts no more");
        assert!(matches!(&refused, Refusal::Unauthenticated(why) if why.contains("was revoked")), "{refused:?}");
        headers.insert(AUTHORIZATION, format!("Bearer {TOKEN}").parse().expect("a value"));
        called(&headers).check(Permission::Monitor).expect("a token proves its own");
    }

    #[test]
    fn a_scraper_has_an_identity_or_reads_what_other_machines_may_read_without_one() {
        let [here, there] = [[127, 0, 0, 1], [10, 0, 0, 1]].map(IpAddr::from);
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().expect("an address");
        for (access, token, at, may) in [
            (restricted(), Some(TOKEN), here, true),
            (restricted(), Some("x"), there, false),
            (restricted(), None, there, false),
            (Access::unrestricted("demo"), None, here, false),
            (Access::unrestricted("demo"), None, mapped, false),
            (Access::unrestricted("demo"), None, there, true),
            (Access::unrestricted("demo"), Some(TOKEN), there, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(token) = token {
                headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a value"));
            }
            let caller = access.called(&access.connected(HERE, None), &Standing::default(), HERE, &headers);
            assert_eq!(access.is_scraper(&caller, at), may, "{caller:?} {at}");
        }
    }

    #[test]
    fn a_text_of_a_caller_is_cut_between_characters() {
        assert_eq!(["", "abc", "abcd", "aéc", "abé"].map(|text| cut(text, 3)), ["", "abc", "abc…", "aé…", "ab…"]);
    }

    #[tokio::test(start_paused = true)]
    async fn denials_are_logged_once_per_interval_and_say_how_many_were_left_out() {
        let (denials, access) = (Denials::default(), restricted());
        let unknown = [1, 2].map(|last| access.connected(IpAddr::from([10, 0, 0, last]), None));
        let known = ["client a", "client b"].map(|name| Subject::known(name.to_owned(), Permission::Write, None));
        let said = |subject: &Subject| denials.may_say(subject);
        assert_eq!((said(&unknown[0]), said(&unknown[1])), (Some(0), None));
        for _ in 0..SAID_AT_ONCE {
            assert_eq!(said(&known[0]), Some(0));
        }
        assert_eq!((said(&known[0]), said(&known[0]), said(&known[1])), (None, None, Some(0)));
        tokio::time::advance(SAY_AGAIN).await;
        assert_eq!((said(&unknown[1]), said(&unknown[0])), (Some(1), None));
        assert_eq!((said(&known[0]), said(&known[0])), (Some(2), None));
    }

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn restricted() -> Access {
        let tokens = Tokens::parse(&format!("monitor m {TOKEN}\n")).expect("valid");
        let credentials = Credentials { tokens: Some(Arc::new(tokens)), ..Credentials::default() };
        let (_, credentials) = watch::channel(Arc::new(credentials));
        Access::with("demo", Permission::Open, Serves::All, credentials)
    }
}
