//! Reloading of credentials while the network runs.
//!
//! [`watch`] compares the files with what is in use and loads them on a thread of its own; [`InUse`]
//! is what the node's thread works with. A set is loaded and checked as a whole, and used as a whole
//! or not at all. The section *Reload* of [`super`] has the rules.

use super::{
    close::Close,
    credentials::{Credentials, Files},
    hello::Refusal,
    lanes::Side,
    settings,
    shared::Shared,
};
use crate::{
    certificates::{Contents, Failures, ListDates, RefusedBy, Standing, apart, date, explain_dates},
    identity::node_name,
    network::{ConnectionResult, NetworkError, ReloadResult},
};
use quinn::{
    Connection,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quorate_raft::NodeId;
use rustls::{
    CertificateError, Error,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{path::Path, pin::pin, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, MissedTickBehavior, interval_at},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// Asks a network to read its files again, such as on SIGHUP. Cheap to clone; usable from any
/// thread.
#[derive(Clone, Debug, Default)]
pub struct Reloader {
    asked: Arc<Notify>,
}

impl Reloader {
    /// Asks for a reload now, whether the files have changed or not. Returns at once: the log and the
    /// [`NetworkObserver`](crate::NetworkObserver) have the result. A network that has not
    /// started reads its files again when it starts; one that has ended does nothing.
    pub fn reload(&self) {
        self.asked.notify_one();
    }
}

/// Credentials that were loaded, and what TLS makes of them.
pub(super) struct Loaded {
    pub(super) credentials: Credentials,
    pub(super) client: Arc<QuicClientConfig>,
    pub(super) server: Arc<QuicServerConfig>,
    standing: Arc<Standing>,
    /// The contents of the files from which they were loaded.
    contents: Contents,
}

impl Loaded {
    /// The most attempts to read files that change meanwhile.
    const ATTEMPTS: usize = 3;

    /// Loads and checks the files. The digest is that of the very bytes that were loaded: files that
    /// change meanwhile are read again.
    pub(super) fn load(files: &Files) -> Result<Self, Failure> {
        let mut contents = Contents::of(files.paths());
        for _ in 0..Self::ATTEMPTS {
            let loaded = Self::load_once(files);
            let after = Contents::of(files.paths());
            if after == contents {
                let (credentials, client, server) = match loaded {
                    Ok(loaded) => loaded,
                    Err(error) => return Err(Failure { error, contents }),
                };
                let standing = Arc::new(credentials.trust.standing());
                return Ok(Self { credentials, client, server, standing, contents });
            }
            contents = after;
        }
        let problem = "is one of several files that change while they are read: replace them once".to_owned();
        let error = NetworkError::File { path: files.cert.clone(), problem, source: None };
        Err(Failure { error, contents })
    }

    fn load_once(files: &Files) -> Result<(Credentials, Arc<QuicClientConfig>, Arc<QuicServerConfig>), NetworkError> {
        let provider = settings::provider();
        let credentials = Credentials::load(files, provider.clone())?;
        let client = settings::client(&credentials, provider.clone())?;
        let server = settings::server(&credentials, provider)?;
        Ok((credentials, client, server))
    }
}

/// Files that can't be used.
#[derive(Debug)]
pub(super) struct Failure {
    error: NetworkError,
    /// The contents of all of them.
    contents: Contents,
}

impl From<Failure> for NetworkError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// The credentials that a running network uses.
pub(super) struct InUse {
    pub(super) client: quinn::ClientConfig,
    /// Each handshake is accepted with this: quinn's own copy is that of the peer's first packet.
    pub(super) server: Arc<quinn::ServerConfig>,
    standing: Arc<Standing>,
    /// The node's own certificate.
    own: CertificateDer<'static>,
    list: Option<ListDates>,
    /// Increases with each set.
    pub(super) number: u64,
    /// The number of the first set with the same certificate of the node's own.
    pub(super) own_since: u64,
}

impl InUse {
    /// The set that takes the place of `before`, if there is one.
    pub(super) fn of(loaded: &Loaded, before: Option<&Self>, pace: settings::Pace) -> Self {
        let credentials = &loaded.credentials;
        let own = credentials.chain[0].clone();
        let number = before.map_or(0, |before| before.number + 1);
        let own_since = before.filter(|before| before.own == own).map_or(number, |before| before.own_since);
        let mut client = quinn::ClientConfig::new(Arc::clone(&loaded.client) as _);
        client.transport_config(settings::transport(pace));
        // All but TLS is kept, because it has the key of the tokens by which addresses are proved.
        let mut server = before.map_or_else(
            || settings::accepting(Arc::clone(&loaded.server), pace),
            |before| quinn::ServerConfig::clone(&before.server),
        );
        server.crypto = Arc::clone(&loaded.server) as _;
        let (standing, list) = (Arc::clone(&loaded.standing), credentials.trust.list());
        Self { client, server: Arc::new(server), standing, own, list, number, own_since }
    }

    /// Whether the certificate that `peer` showed on a connection counts by this set.
    pub(super) fn judge(
        &self,
        connection: &Connection,
        side: Side,
        peer: NodeId,
        cluster: &str,
    ) -> Result<(), Refusal> {
        let chain = chain_of(connection);
        let name = || ServerName::try_from(node_name(peer, cluster)).map_err(|error| Error::General(error.to_string()));
        let verdict = match side {
            Side::Acceptor => self.standing.client(&chain),
            Side::Dialler => name().and_then(|name| self.standing.server(&chain, &name)),
        };
        verdict.map_err(|error| no_longer_counts(&error))
    }
}

/// The refusal of a peer with which there is a connection.
fn no_longer_counts(error: &Error) -> Refusal {
    use CertificateError::{BadSignature, Revoked, UnknownIssuer};
    let why = match error {
        Error::InvalidCertificate(Revoked) => "its certificate is revoked".to_owned(),
        Error::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "its certificate is by no authority that is trusted now".to_owned()
        }
        error => explain_dates(&error.to_string(), RefusedBy::ThisMachine),
    };
    Refusal {
        result: ConnectionResult::RefusedCertificate,
        close: Close::Certificate,
        why: format!("disconnected: {why}"),
    }
}

/// The ends of the certificates that a peer shows, in seconds since 1970: a look at them each
/// second costs no verification.
#[derive(Debug)]
pub(super) struct Expiry {
    own: u64,
    /// Those that have not been looked at since they passed. The path that was verified need not
    /// use each of these certificates.
    others: Vec<u64>,
}

impl Expiry {
    pub(super) fn of(connection: &Connection) -> Self {
        let ends = |certificate: &CertificateDer<'_>| {
            let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
            u64::try_from(parsed.validity().not_after.timestamp()).ok()
        };
        let chain = chain_of(connection);
        let mut ends = chain.iter().map(|certificate| ends(certificate).unwrap_or(0));
        Self { own: ends.next().unwrap_or(0), others: ends.collect() }
    }

    /// Whether the certificates must be verified at this time: the peer's own has ended, or another
    /// one since the last call.
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        let before = self.others.len();
        self.others.retain(|end| *end >= now);
        self.own < now || self.others.len() < before
    }
}

/// The certificates that the peer showed, its own first.
pub(super) fn chain_of(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    identity.map(|chain| *chain).unwrap_or_default()
}

/// The files that [`watch`] watches, and what it needs to put new ones into use.
pub(super) struct Watched {
    pub(super) files: Files,
    /// The contents of the files that are in use.
    pub(super) contents: Contents,
    /// Zero: only on request.
    pub(super) every: Duration,
    pub(super) reloader: Reloader,
}

impl Watched {
    pub(super) fn new(loaded: &Loaded, files: Files, every: Duration, reloader: Reloader) -> Self {
        Self { files, contents: loaded.contents.clone(), every, reloader }
    }
}

/// The interval at which the revocation lists are compared with the clock if the files are read only
/// on request.
const LISTS_EVERY: Duration = Duration::from_secs(60);

/// Reloads the credentials when their files change or a reload is asked for. Runs on the node's
/// thread until it is aborted, and reads no file there.
pub(super) async fn watch(shared: Rc<Shared>, mut watched: Watched) {
    let every = if watched.every.is_zero() { LISTS_EVERY } else { watched.every };
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut failures, mut freshness) = (Failures::default(), ToldFreshness::default());
    loop {
        freshness.tell(shared.credentials().list);
        let is_asked = tokio::select! {
            biased;
            () = watched.reloader.asked.notified() => true,
            _ = ticks.tick() => false,
        };
        if !is_asked && watched.every.is_zero() {
            continue;
        }
        // The same bytes may be in order by now: a key was made private, or its date has come.
        let before = (!is_asked && !failures.is_failing()).then(|| watched.contents.clone());
        let (files, cluster, node) = (watched.files.clone(), shared.cluster.clone(), shared.node);
        let looking = on_a_thread(move || look(&files, before, &cluster, node));
        let looked = until_done(looking, |is_first| {
            if is_first {
                tracing::error!(
                    "credentials can't be read for {} s: look for a mount that does not answer, or a pipe; \
                     nothing is reloaded until then",
                    HANGING.as_secs()
                );
            }
            freshness.tell(shared.credentials().list);
        })
        .await;
        let looked = looked.unwrap_or_else(|error| {
            let problem = format!("can't be read now ({error}): free threads or memory of this machine");
            let error = NetworkError::File { path: watched.files.cert.clone(), problem, source: Some(error.into()) };
            Err(Failure { error, contents: watched.contents.clone() })
        });
        match looked {
            Ok(None) => {}
            Ok(Some(loaded)) => {
                let was_failing = failures.ended();
                if is_asked || was_failing || loaded.contents != watched.contents {
                    install(&shared, &loaded);
                }
                watched.contents = loaded.contents;
            }
            Err(Failure { error, contents }) => {
                // Without its text, which the clock may change: the file to blame, and all contents.
                if failures.failed((error.file().map(Path::to_owned), contents), is_asked) {
                    shared.observer.credentials_reloaded(ReloadResult::Failed);
                    tracing::error!("credentials can't be reloaded, and the former ones stay in use: {error}");
                }
            }
        }
    }
}

/// The time after which reading the files is reported to hang.
const HANGING: Duration = Duration::from_secs(30);

/// Waits for a look at the files. Calls `still` each time that it has taken [`HANGING`] longer,
/// with whether it is the first time. A reload that is asked for meanwhile is kept for later.
async fn until_done<T>(looking: impl Future<Output = T>, mut still: impl FnMut(bool)) -> T {
    let (mut looking, mut is_first) = (pin!(looking), true);
    loop {
        match tokio::time::timeout(HANGING, &mut looking).await {
            Ok(looked) => return looked,
            Err(_) => still(std::mem::take(&mut is_first)),
        }
    }
}

/// Loads the files, unless they have the contents `before`.
fn look(files: &Files, before: Option<Contents>, cluster: &str, node: NodeId) -> Result<Option<Loaded>, Failure> {
    if before.is_some_and(|before| before == Contents::of(files.paths())) {
        return Ok(None);
    }
    let loaded = Loaded::load(files)?;
    match loaded.credentials.check(cluster, node) {
        Ok(()) => Ok(Some(loaded)),
        Err(error) => Err(Failure { error, contents: loaded.contents }),
    }
}

/// Runs `work`, which may block, on a thread of its own; tokio's pool would panic if no thread can be
/// started.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    let (tell, told) = oneshot::channel();
    // The network may have ended meanwhile.
    let run = move || drop(tell.send(work()));
    std::thread::Builder::new().name("quorate-reload".into()).spawn(run)?;
    told.await.map_err(std::io::Error::other)
}

/// Puts a set into use, and closes the connections to peers that it does not accept. Spare endpoints
/// only dial, and take the set with each dial.
pub(super) fn install(shared: &Rc<Shared>, loaded: &Loaded) {
    let before = shared.credentials();
    let after = InUse::of(loaded, Some(&before), shared.pace);
    if let Some(endpoint) = shared.endpoint() {
        endpoint.set_server_config(Some(quinn::ServerConfig::clone(&after.server)));
    }
    let (ends, list) = (loaded.credentials.expires_unix_seconds, after.list);
    shared.observer.certificate_expires(ends);
    if let Some(list) = list {
        shared.observer.crl_expires(list.ends);
    }
    shared.observer.credentials_reloaded(ReloadResult::Loaded);
    tracing::info!(
        certificate_ends = date(ends),
        is_certificate_new = after.own_since == after.number,
        lists_end = list.map(|list| date(list.ends)),
        "credentials reloaded"
    );
    shared.credentials.replace(Rc::new(after));
    shared.judge_again();
}

/// The time that a revocation list has left, as an operator needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    Fresh,
    /// Less than a quarter of its time.
    Ending,
    Ended,
}

impl Freshness {
    fn of(list: ListDates, now: u64) -> Self {
        let (lasts, left) = (list.ends.saturating_sub(list.begins), list.ends.saturating_sub(now));
        match left {
            0 => Self::Ended,
            left if left < lasts / 4 => Self::Ending,
            _ => Self::Fresh,
        }
    }
}

/// The freshness that was last logged: changes are logged, and every hour what is not in order.
#[derive(Debug, Default)]
struct ToldFreshness {
    last: Option<(Freshness, ListDates, Instant)>,
}

impl ToldFreshness {
    const AGAIN: Duration = Duration::from_secs(3600);

    fn tell(&mut self, list: Option<ListDates>) {
        let (Some(list), now) = (list, UnixTime::now().as_secs()) else { return };
        let freshness = Freshness::of(list, now);
        if !self.is_due(freshness, list, Instant::now()) {
            return;
        }
        let ends = date(list.ends);
        match freshness {
            Freshness::Fresh => {}
            Freshness::Ending => {
                let left = apart(list.ends - now);
                tracing::warn!(
                    lists_end = ends,
                    "the revocation list ends in {left}, and from then on every new connection is refused: make a new one"
                );
            }
            Freshness::Ended => tracing::error!(
                lists_end = ends,
                "the revocation list has ended, and every new connection is refused: make a new one, or check this machine's clock"
            ),
        }
    }

    fn is_due(&mut self, freshness: Freshness, list: ListDates, now: Instant) -> bool {
        let is_told = self
            .last
            .is_some_and(|(told, of, at)| (told, of) == (freshness, list) && now.duration_since(at) < Self::AGAIN);
        if !is_told {
            self.last = Some((freshness, list, now));
        }
        !is_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_hangs_is_told_of_once_and_list_ends_are_looked_at_meanwhile() {
        let mut told = Vec::new();
        let looking = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        until_done(looking(29), |is_first| told.push(is_first)).await;
        assert!(told.is_empty());
        until_done(looking(100), |is_first| told.push(is_first)).await;
        assert_eq!(told, [true, false, false]);
    }

    #[test]
    fn certificates_are_verified_once_after_each_further_end_and_always_after_the_own_one() {
        let mut expiry = Expiry { own: 50, others: vec![10, 40, 90] };
        let due = [9, 10, 11, 12, 41, 41, 50, 51, 52].map(|now| expiry.is_due(now));
        assert_eq!(due, [false, false, true, false, true, false, false, true, true]);
    }

    #[test]
    fn a_list_is_told_of_in_its_last_quarter_and_after_its_end_once_an_hour() {
        let list = ListDates { begins: 1000, ends: 1400 };
        let freshness = [0, 1000, 1300, 1301, 1399, 1400, 9000].map(|now| Freshness::of(list, now));
        let (fresh, ending, ended) = (Freshness::Fresh, Freshness::Ending, Freshness::Ended);
        assert_eq!(freshness, [fresh, fresh, fresh, ending, ending, ended, ended]);

        let (mut told, start) = (ToldFreshness::default(), Instant::now());
        assert!(told.is_due(ending, list, start) && !told.is_due(ending, list, start));
        assert!(told.is_due(ended, list, start));
        assert!(!told.is_due(ended, list, start + ToldFreshness::AGAIN / 2));
        assert!(told.is_due(ended, list, start + ToldFreshness::AGAIN));
        assert!(told.is_due(ended, ListDates { begins: 1200, ..list }, start + ToldFreshness::AGAIN), "another list");
    }
}
