//! Credentials that are loaded again when their files change.
//!
//! Files in, credentials or an error out: this module opens no socket, sends nothing, and keeps no
//! task. A part that cannot be loaded stays as it was, as a whole. A pair of certificate and key
//! that is replaced file by file may fail in between; the next look finds both.

use crate::{
    config::{Config, ConfigError, HttpTls, Sources},
    http::{credentials::Credentials, guard::Hosts, tls::Secured, tokens::Tokens},
};
use humantime::format_rfc3339_seconds;
use quorate::{
    metrics::CredentialsOf,
    transport::certificates::{Contents, Failures, ListDates},
};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// The time before the end of a certificate from which on the log warns.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// The files of the HTTP interface, and the credentials that were loaded from them.
pub(crate) struct Reload {
    config: Config,
    sources: Sources,
    hosts: Hosts,
    tls: Option<Part<Secured>>,
    tokens: Option<Part<Tokens>>,
}

/// The result of a look at the files of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The files have the contents that were loaded.
    Unchanged,
    /// They have these contents again, after others that could not be loaded.
    Restored,
    /// They have other contents, which are loaded.
    Loaded,
    /// They have other contents, which cannot be loaded; the former ones stay in force.
    Failed {
        /// The key, the file, the problem and the remedy.
        problem: String,
        /// Whether it is time to report it. A problem is reported once, and only if the next look
        /// confirms it: files are replaced one after another. A look that was asked for reports it
        /// in any case.
        is_due: bool,
    },
}

impl Reload {
    /// Loads all files of the configuration. `hosts` are the names of the server without those in
    /// its certificate.
    ///
    /// # Errors
    /// If a file cannot be used; the error has its place in the configuration. The dates of the
    /// certificate are not checked ([`Self::check_dates`]): a node without a valid one still votes and
    /// replicates.
    pub(crate) fn start(config: Config, sources: Sources, hosts: Hosts) -> Result<Self, ConfigError> {
        let tls = config.http_tls.as_ref().map(|tls| Part::load(files(tls), || Secured::load(&config, tls)));
        let tls = tls.transpose().map_err(|error| sources.locate(error))?;
        let file = config.http_auth.tokens.as_ref();
        let tokens = file.map(|file| Part::load(vec![file.clone()], || Tokens::read(file)));
        let tokens = tokens.transpose().map_err(|error| sources.locate(error))?;
        Ok(Self { config, sources, hosts, tls, tokens })
    }

    /// The credentials in force.
    #[must_use]
    pub(crate) fn credentials(&self) -> Credentials {
        let tls = self.tls.as_ref().map(|part| Arc::clone(&part.in_force));
        let tokens = self.tokens.as_ref().map(|part| Arc::clone(&part.in_force));
        let hosts = self.hosts.and(tls.iter().flat_map(|tls| tls.names.iter().cloned()));
        Credentials { tls, tokens, hosts }
    }

    /// Compares all files with what was loaded from them, and loads those that differ. Blocks on the
    /// files. `is_asked`: an operator waits for the result.
    pub(crate) fn look(&mut self, now: SystemTime, is_asked: bool) -> Vec<(CredentialsOf, Look)> {
        let Self { config, sources, tls, tokens, .. } = self;
        let mut looks = Vec::new();
        if let (Some(part), Some(tls)) = (tls, &config.http_tls) {
            let load = |former: &Secured| {
                let secured = Secured::load(config, tls)?;
                // One out of date takes the place of another, but not of a valid one.
                match (former.check_dates(tls, now), secured.check_dates(tls, now)) {
                    (Ok(()), Err(error)) => Err(error),
                    _ => Ok(secured),
                }
            };
            let look = part.look(is_asked, |former| load(former).map_err(|error| sources.locate(error)));
            looks.push((CredentialsOf::Http, look));
        }
        if let (Some(part), Some(file)) = (tokens, &config.http_auth.tokens) {
            let look = part.look(is_asked, |_| Tokens::read(file).map_err(|error| sources.locate(error)));
            looks.push((CredentialsOf::Tokens, look));
        }
        looks
    }

    /// Checks the dates of what is in force.
    ///
    /// # Errors
    /// The certificate or revocation list that is not in its time, with its place in the
    /// configuration.
    pub(crate) fn check_dates(&self, now: SystemTime) -> Result<(), ConfigError> {
        match (&self.tls, &self.config.http_tls) {
            (Some(part), Some(tls)) => part.in_force.check_dates(tls, now).map_err(|error| self.sources.locate(error)),
            _ => Ok(()),
        }
    }

    /// The ends that come soon, each with the file and the remedy. That of a list comes soon in its
    /// last quarter.
    #[must_use]
    pub(crate) fn soon(&self, now: SystemTime) -> Vec<String> {
        let (Some(part), Some(tls)) = (&self.tls, &self.config.http_tls) else { return Vec::new() };
        let is_soon = |end: SystemTime, soon: Duration| end.duration_since(now).is_ok_and(|left| left < soon);
        let at = format_rfc3339_seconds;
        let mut said = Vec::new();
        let (end, cert) = (part.in_force.ends(), tls.cert.display());
        if is_soon(end, SOON) {
            said.push(format!("the certificate in {cert} ends at {}: renew it before", at(end)));
        }
        if let (Some(ListDates { begins, ends, .. }), Some(crl)) = (part.in_force.list(), &tls.client_crl) {
            let (end, quarter) = (unix(ends), Duration::from_secs(ends.saturating_sub(begins) / 4));
            if is_soon(end, quarter) {
                let crl = crl.display();
                said.push(format!("a list in {crl} ends at {}: put a newer one into its place before", at(end)));
            }
        }
        said
    }
}

fn unix(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn files(tls: &HttpTls) -> Vec<PathBuf> {
    let HttpTls { cert, key, client_ca, client_crl } = tls;
    [Some(cert), Some(key), client_ca.as_ref(), client_crl.as_ref()].into_iter().flatten().cloned().collect()
}

/// Files that are loaded as one.
struct Part<T> {
    files: Vec<PathBuf>,
    in_force: Arc<T>,
    /// Those from which it was loaded.
    contents: Contents,
    failures: Failures<FailedLoad>,
}

/// A failure, for comparison with that of the next look. Its text is no part: it may state the time.
#[derive(Clone, PartialEq, Eq)]
struct FailedLoad {
    /// The key, with its file if the configuration has it.
    place: String,
    contents: Contents,
}

impl<T> Part<T> {
    fn load(files: Vec<PathBuf>, load: impl FnOnce() -> Result<T, ConfigError>) -> Result<Self, ConfigError> {
        // Read before they are loaded: a change in between is found by the next look.
        let contents = Contents::of(files.iter().map(PathBuf::as_path));
        Ok(Self { in_force: Arc::new(load()?), files, contents, failures: Failures::default() })
    }

    fn look(&mut self, is_asked: bool, load: impl FnOnce(&T) -> Result<T, ConfigError>) -> Look {
        let contents = Contents::of(self.files.iter().map(PathBuf::as_path));
        if contents == self.contents {
            return if self.failures.ended() { Look::Restored } else { Look::Unchanged };
        }
        // A failed load is tried again at each look: the cause may lie beside the contents, such as
        // a mode, or the time.
        match load(&self.in_force) {
            Ok(loaded) => {
                (self.in_force, self.contents) = (Arc::new(loaded), contents);
                self.failures.ended();
                Look::Loaded
            }
            Err(error) => {
                let failure = FailedLoad { place: error.place().to_owned(), contents };
                let is_due = self.failures.failed(failure, is_asked);
                Look::Failed { problem: error.to_string(), is_due }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HttpAuth, example};
    use quorate::{
        NodeId,
        transport::certificates::{Authority, Issued},
    };
    use std::{fs, os::unix::fs::PermissionsExt};
    use tempfile::TempDir;

    const A: &str = "client a 0123456789abcdef0123456789abcdef\n";
    const B: &str = "client b fedcba9876543210fedcba9876543210\n";

    #[test]
    fn what_differs_is_loaded_and_the_rest_stays_as_it_is() {
        let world = World::new();
        let mut reload = world.start();
        assert_eq!(world.look(&mut reload), [Look::Unchanged, Look::Unchanged]);
        let before = reload.credentials();

        world.write("tokens", B);
        assert_eq!(world.look(&mut reload), [Look::Unchanged, Look::Loaded]);
        let after = reload.credentials();
        assert!(Arc::ptr_eq(before.tls.as_ref().expect("TLS"), after.tls.as_ref().expect("TLS")));
        let holders = |credentials: &Credentials| format!("{:?}", credentials.tokens);
        assert!(holders(&before).contains("\"a\"") && !holders(&before).contains("\"b\""));
        assert!(!holders(&after).contains("\"a\"") && holders(&after).contains("\"b\""));

        world.write_pair(&world.issue("other.example"));
        assert_eq!(world.look(&mut reload), [Look::Loaded, Look::Unchanged]);
        assert_eq!(reload.credentials().tls.expect("TLS").names, ["n1.demo.quorate.internal", "other.example"]);
        assert_eq!(world.look(&mut reload), [Look::Unchanged, Look::Unchanged]);
    }

    #[test]
    fn a_pair_that_is_half_replaced_is_not_used_and_is_loaded_once_it_is_whole() {
        let world = World::new();
        let mut reload = world.start();
        let before = reload.credentials();
        let new = world.issue("other.example");
        world.write("key", &new.key_pem);
        let [Look::Failed { problem, is_due: false }, _] = &world.look(&mut reload)[..] else { panic!("it fails") };
        assert!(problem.contains("http_tls") && problem.contains("do not match"), "{problem}");
        for is_due in [true, false, false] {
            let again = world.look(&mut reload);
            assert!(matches!(again[0], Look::Failed { is_due: due, .. } if due == is_due), "{again:?}");
        }
        let asked = &reload.look(SystemTime::now(), true)[0].1;
        assert!(matches!(asked, Look::Failed { is_due: true, .. }), "{asked:?}");
        assert!(Arc::ptr_eq(&before.tls.expect("TLS"), &reload.credentials().tls.expect("TLS")));
        world.write("cert", &new.certificate_pem);
        assert_eq!(world.look(&mut reload)[0], Look::Loaded);
    }

    #[test]
    fn a_broken_file_keeps_its_part_in_force_and_neither_hinders_the_other_part_nor_its_own_return() {
        let world = World::new();
        let mut reload = world.start();
        world.write("tokens", "client a short\n");
        world.write_pair(&world.issue("other.example"));
        let looks = world.look(&mut reload);
        let [Look::Loaded, Look::Failed { problem, is_due: false }] = &looks[..] else { panic!("{looks:?}") };
        assert!(problem.contains("http_auth.tokens") && problem.contains("line 1") && !problem.contains("short"));
        // One that lies beside the contents ends with its cause.
        world.write("tokens", B);
        world.mode("tokens", 0o644);
        let looks = world.look(&mut reload);
        let Look::Failed { problem, .. } = &looks[1] else { panic!("{looks:?}") };
        assert!(problem.contains("chmod 600"), "{problem}");
        world.mode("tokens", 0o600);
        assert_eq!(world.look(&mut reload)[1], Look::Loaded);
        fs::remove_file(world.path("tokens")).expect("removed");
        for is_due in [false, true] {
            assert!(matches!(world.look(&mut reload)[1], Look::Failed { is_due: due, .. } if due == is_due));
        }
        world.write("tokens", B);
        assert_eq!(world.look(&mut reload)[1], Look::Restored);
        assert_eq!(world.look(&mut reload)[1], Look::Unchanged);
    }

    #[test]
    fn a_failure_whose_text_has_the_time_of_the_look_is_reported_once_the_next_look_confirms_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("cert");
        fs::write(&file, "valid").expect("written");
        let mut part = Part::load(vec![file.clone()], || Ok(())).expect("loaded");
        let mut seconds = 0;
        let mut look = |is_asked: bool, key: &str| {
            seconds += 3;
            let problem = format!("this machine's clock says {seconds} s");
            let look = part.look(is_asked, |()| Err(ConfigError::new(key, &problem, "renew it")));
            match look {
                Look::Failed { problem: told, is_due } => {
                    assert!(told.contains(&problem), "{told}");
                    is_due
                }
                other => panic!("it fails: {other:?}"),
            }
        };
        fs::write(&file, "expired").expect("written");
        assert_eq!([(); 4].map(|()| look(false, "cert")), [false, true, false, false]);
        assert!(look(true, "cert"), "an operator asks");
        assert!(!look(false, "cert"));
        fs::write(&file, "expired, too").expect("written");
        assert_eq!([(); 3].map(|()| look(false, "cert")), [false, true, false], "another file");
        assert_eq!([(); 3].map(|()| look(false, "key")), [false, true, false], "another key");
    }

    #[test]
    fn a_certificate_out_of_its_time_takes_no_valid_one_s_place_and_an_end_is_announced() {
        let world = World::new();
        let mut reload = world.start();
        let now = SystemTime::now();
        assert_eq!(reload.soon(now), Vec::<String>::new());
        let short = world.authority().issuing_for(Duration::from_secs(60));
        let short = short.issue_node(NodeId(1), &["short.example".to_owned()]).expect("issued");
        world.write_pair(&short);
        assert_eq!(reload.look(now, false)[0].1, Look::Loaded);
        let soon = reload.soon(now);
        assert!(soon.len() == 1 && soon[0].contains("renew it before"), "{soon:?}");
        reload.check_dates(now).expect("valid");

        let later = now + Duration::from_secs(120);
        let error = reload.check_dates(later).expect_err("it has ended").to_string();
        assert!(error.contains("http_tls.cert") && error.contains("expired at"), "{error}");
        assert_eq!(reload.soon(later), Vec::<String>::new());
        world.write_pair(&world.issue("long.example"));
        assert_eq!(reload.look(later, false)[0].1, Look::Loaded);
        world.write_pair(&short);
        let look = &reload.look(later, false)[0].1;
        assert!(matches!(look, Look::Failed { problem, .. } if problem.contains("expired at")), "{look:?}");
        assert_eq!(reload.credentials().tls.expect("TLS").names[1], "long.example");
    }

    /// A directory with an authority and the files of one node.
    struct World(TempDir);

    impl World {
        fn new() -> Self {
            let world = Self(tempfile::tempdir().expect("temporary directory"));
            Authority::create("demo").expect("made").write(world.0.path()).expect("written");
            world.write_pair(&world.issue("one.example"));
            world.write("tokens", A);
            world
        }

        fn authority(&self) -> Authority {
            Authority::load(self.0.path()).expect("loaded")
        }

        fn issue(&self, host: &str) -> Issued {
            self.authority().issue_node(NodeId(1), &[host.to_owned()]).expect("issued")
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).expect("written");
            self.mode(name, 0o600);
        }

        fn write_pair(&self, issued: &Issued) {
            self.write("cert", &issued.certificate_pem);
            self.write("key", &issued.key_pem);
        }

        fn mode(&self, name: &str, mode: u32) {
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("changed");
        }

        fn start(&self) -> Reload {
            let [cert, key, client_ca, tokens] = ["cert", "key", "ca.pem", "tokens"].map(|name| self.path(name));
            let http_tls = Some(HttpTls { cert, key, client_ca: Some(client_ca), client_crl: None });
            let http_auth = HttpAuth { tokens: Some(tokens), ..HttpAuth::default() };
            let config = Config { http_tls, http_auth, ..example() };
            Reload::start(config, Sources::default(), Hosts::default()).expect("valid")
        }

        fn look(&self, reload: &mut Reload) -> Vec<Look> {
            reload.look(SystemTime::now(), false).into_iter().map(|(_, look)| look).collect()
        }
    }
}
