//! Connection options of client commands: environment variables override defaults, options override
//! both. A context counts instead of the variables, unless an option or a variable names endpoints.
//! An option that proves an identity replaces every other identity, of a context and of variables,
//! so that no caller acts under a name that it did not give.

use super::context::{Context, Contexts};
use crate::{
    client::{ANSWER_LIMIT, Client, Token, Trust},
    environment::{CA, CERT, CERT_KEY, ENDPOINTS, TIMEOUT, TOKEN_FILE},
    exit::{Exit, Failure},
};
use std::{
    env,
    ffi::OsString,
    fmt,
    path::{self, PathBuf},
    time::Duration,
};

const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:8001";

/// The connection to the cluster.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Connection {
    /// The URL of a node; repeatable: the next one is tried if one could not process the request
    /// [env: QUORATE_ENDPOINTS, separated by commas] [default: http://127.0.0.1:8001]
    #[arg(long = "endpoint", value_name = "URL")]
    endpoints: Vec<String>,
    /// The context with endpoints and files [default: that of `context use`]
    #[arg(long, value_name = "NAME", conflicts_with = "endpoints")]
    context: Option<String>,
    /// The authority to trust for https endpoints, PEM [env: QUORATE_CA]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate that proves the role of the caller, for https endpoints, PEM [env: QUORATE_CERT]
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The private key of the certificate, PEM, readable by its owner only [env: QUORATE_KEY]
    #[arg(long = "key", value_name = "FILE")]
    cert_key: Option<PathBuf>,
    /// A file with a bearer token, readable by its owner only [env: QUORATE_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Send the token also to http endpoints on other machines, where it can be read on the way
    #[arg(long)]
    allow_plaintext_token: bool,
    /// The time limit for an endpoint to answer [env: QUORATE_TIMEOUT] [default: 15s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

/// A value, and the option or variable that gave it.
struct Given<T> {
    value: T,
    place: &'static str,
}

/// The files that prove an identity: a certificate and its key, a token, or both.
struct Identity {
    cert: Option<Given<PathBuf>>,
    key: Option<Given<PathBuf>>,
    token: Option<Given<PathBuf>>,
}

impl Connection {
    /// One client for all endpoints.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        self.complete()?.client_of(None)
    }

    /// Each endpoint, and a client for it alone.
    pub(super) fn each(&self) -> Result<Vec<(String, Client)>, Failure> {
        let complete = self.complete()?;
        let urls = complete.options.endpoints(complete.variables)?.value;
        urls.into_iter().map(|url| Ok((url.clone(), complete.client_of(Some(url))?))).collect()
    }

    /// These options, completed by a context or else by variables.
    fn complete(&self) -> Result<Complete, Failure> {
        let is_named = !self.endpoints.is_empty() || (self.context.is_none() && own(ENDPOINTS).is_some());
        let contexts = if is_named { Contexts::default() } else { Contexts::of_user()? };
        match self.context.as_deref().or(contexts.current()) {
            None => Ok(Complete { options: self.clone(), variables: own }),
            Some(name) => Ok(Complete { options: self.within(contexts.get(name)?)?, variables: |_| None }),
        }
    }

    /// The same options, and the values of a context for those that are not given; none of its
    /// identity if an option has one.
    fn within(&self, context: &Context) -> Result<Self, Failure> {
        let timeout = context.timeout.as_deref().map(humantime::parse_duration).transpose();
        let timeout = timeout.map_err(|error| misused("the timeout of the context", error))?;
        let has_identity = self.has_cert() || self.token_file.is_some();
        let identity = if has_identity { Context::default() } else { context.clone() };
        Ok(Self {
            endpoints: context.endpoints.clone(),
            context: None,
            ca: self.ca.clone().or(context.ca.clone()),
            cert: self.cert.clone().or(identity.cert),
            cert_key: self.cert_key.clone().or(identity.key),
            token_file: self.token_file.clone().or(identity.token_file),
            allow_plaintext_token: self.allow_plaintext_token || identity.allow_plaintext_token,
            timeout: self.timeout.or(timeout),
        })
    }

    /// The context of these options and variables, once they have been found to make a client.
    pub(super) fn to_context(&self) -> Result<Context, Failure> {
        let complete = Complete { options: self.clone(), variables: own };
        let endpoints = self.endpoints(own)?.value;
        complete.client_of(None)?;
        let absolute = |given: Option<Given<PathBuf>>| {
            let absolute =
                given.map(|Given { value, place }| path::absolute(value).map_err(|error| misused(place, error)));
            absolute.transpose()
        };
        let Identity { cert, key, token } = self.identity(own)?;
        Ok(Context {
            endpoints,
            ca: absolute(file(&self.ca, "--ca", CA, own)?)?,
            cert: absolute(cert)?,
            key: absolute(key)?,
            token_file: absolute(token)?,
            allow_plaintext_token: self.allow_plaintext_token,
            timeout: self.timeout.map(|timeout| humantime::format_duration(timeout).to_string()),
        })
    }

    fn has_cert(&self) -> bool {
        self.cert.is_some() || self.cert_key.is_some()
    }

    /// The identity of the options, or else of the variables. An option for a certificate leaves
    /// out the variable of a token, and the other way round.
    fn identity(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Identity, Failure> {
        let of_cert = |name: &str| if self.token_file.is_some() { None } else { variable(name) };
        let of_token = |name: &str| if self.has_cert() { None } else { variable(name) };
        Ok(Identity {
            cert: file(&self.cert, "--cert", CERT, of_cert)?,
            key: file(&self.cert_key, "--key", CERT_KEY, of_cert)?,
            token: file(&self.token_file, "--token-file", TOKEN_FILE, of_token)?,
        })
    }

    fn endpoints(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Given<Vec<String>>, Failure> {
        if !self.endpoints.is_empty() {
            return Ok(Given { value: self.endpoints.clone(), place: "--endpoint" });
        }
        let Some(listed) = text(ENDPOINTS, variable)? else {
            return Ok(Given { value: vec![DEFAULT_ENDPOINT.to_owned()], place: "--endpoint" });
        };
        let value = listed.split(',').map(|url| url.trim().to_owned()).collect();
        Ok(Given { value, place: ENDPOINTS })
    }

    fn trust(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Trust, Failure> {
        let trust = match file(&self.ca, "--ca", CA, &variable)? {
            None => Trust::none(),
            Some(Given { value, place }) => Trust::authority(&value).map_err(|error| misused(place, error))?,
        };
        let Identity { cert, key, .. } = self.identity(variable)?;
        match (cert, key) {
            (None, None) => Ok(trust),
            (Some(cert), Some(key)) => {
                trust.with_certificate(&cert.value, &key.value).map_err(|error| misused(cert.place, error))
            }
            (Some(cert), None) => Err(misused(cert.place, "has no key; add --key FILE, or QUORATE_KEY")),
            (None, Some(key)) => Err(misused(key.place, "has no certificate; add --cert FILE, or QUORATE_CERT")),
        }
    }

    fn timeout(&self, variable: impl Fn(&str) -> Option<OsString>) -> Result<Duration, Failure> {
        if let Some(timeout) = self.timeout {
            return Ok(timeout);
        }
        let Some(text) = text(TIMEOUT, variable)? else { return Ok(ANSWER_LIMIT) };
        let refuse = |_| misused(TIMEOUT, format_args!("`{}` is not a duration such as 5s", text.escape_debug()));
        humantime::parse_duration(&text).map_err(refuse)
    }
}

/// Options, and the variables that count beside them.
struct Complete {
    options: Connection,
    variables: fn(&str) -> Option<OsString>,
}

impl Complete {
    /// A client of one endpoint, or of all.
    fn client_of(&self, only: Option<String>) -> Result<Client, Failure> {
        let Self { options, variables } = self;
        let Given { value, place } = options.endpoints(variables)?;
        let endpoints = only.map_or(value, |only| vec![only]);
        let client = Client::new(&endpoints, &options.trust(variables)?).map_err(|error| misused(place, error))?;
        let client = client.with_limit(options.timeout(variables)?);
        let Some(Given { value, place }) = options.identity(variables)?.token else { return Ok(client) };
        let token = Token::read(&value).map_err(|error| misused(place, error))?;
        match options.allow_plaintext_token {
            true => Ok(client.with_plaintext_token(token)),
            false => client.with_token(token).map_err(|error| misused(place, error)),
        }
    }
}

/// A file, by its option or else by its variable.
fn file(
    option: &Option<PathBuf>,
    flag: &'static str,
    name: &'static str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Given<PathBuf>>, Failure> {
    if let Some(file) = option {
        return Ok(Some(Given { value: file.clone(), place: flag }));
    }
    match variable(name) {
        Some(file) if file.is_empty() => Err(misused(name, "is empty; name a file, or unset it")),
        file => Ok(file.map(|file| Given { value: file.into(), place: name })),
    }
}

fn own(name: &str) -> Option<OsString> {
    env::var_os(name)
}

fn text(name: &'static str, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<String>, Failure> {
    let Some(value) = variable(name) else { return Ok(None) };
    match value.into_string() {
        Ok(value) if value.trim().is_empty() => Err(misused(name, "is empty; correct or unset it")),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(misused(name, "is not UTF-8; correct or unset it")),
    }
}

fn misused(place: &str, problem: impl fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format_args!("{place}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{Args, make};
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn an_option_counts_more_than_a_variable_and_that_more_than_the_default() {
        let set = |name: &str| match name {
            ENDPOINTS => Some("https://a:1, https://b:2".into()),
            CA => Some("ca.pem".into()),
            TIMEOUT => Some("3s".into()),
            _ => None,
        };
        let unset = |_: &str| None;
        let (none, all) = (
            Connection::default(),
            Connection {
                endpoints: vec!["http://c:3".to_owned()],
                context: None,
                ca: Some("own.pem".into()),
                cert: None,
                cert_key: None,
                token_file: None,
                allow_plaintext_token: false,
                timeout: Some(Duration::from_secs(1)),
            },
        );
        for (options, variable, urls, ca, seconds) in [
            (&none, &unset as &dyn Fn(&str) -> Option<OsString>, &[DEFAULT_ENDPOINT][..], None, 15),
            (&none, &set, &["https://a:1", "https://b:2"], Some("ca.pem"), 3),
            (&all, &set, &["http://c:3"], Some("own.pem"), 1),
        ] {
            assert_eq!(options.endpoints(variable).expect("valid").value, urls);
            assert_eq!(
                file(&options.ca, "--ca", CA, variable).expect("valid").map(|ca| ca.value),
                ca.map(PathBuf::from)
            );
            assert_eq!(options.timeout(variable), Ok(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn a_bad_variable_is_blamed_by_its_name() {
        use std::os::unix::ffi::OsStringExt;
        let none = Connection::default();
        for value in [OsString::new(), OsString::from_vec(vec![0xff])] {
            let set = |_: &str| Some(value.clone());
            for (name, failure) in [(ENDPOINTS, none.endpoints(set).map(drop)), (TIMEOUT, none.timeout(set).map(drop))]
            {
                let failure = failure.expect_err("bad");
                assert!(failure.exit == Exit::Usage && failure.message.starts_with(name), "{failure:?}");
            }
        }
        let set = |_: &str| Some(OsString::from("soon"));
        assert!(none.timeout(set).expect_err("bad").message.starts_with("QUORATE_TIMEOUT: `soon`"));
        assert!(file(&None, "--ca", CA, |_| Some(OsString::new())).is_err());
        for (set, says) in [(CERT, "QUORATE_CERT: has no key"), (CERT_KEY, "QUORATE_KEY: has no certificate")] {
            let failure = none.trust(|name| (name == set).then(|| "file".into())).map(drop).expect_err("one of two");
            assert!(failure.message.starts_with(says), "{failure:?}");
        }
    }

    #[test]
    fn a_token_is_sent_to_other_machines_over_https_alone_unless_its_clear_text_is_allowed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (certs, token) = (dir.path().join("certs"), dir.path().join("token"));
        let operators = vec!["alice".to_owned()];
        make(&Args { operators, ..Args::new(certs.clone(), "demo") }).expect("certificates");
        fs::write(&token, "secret").expect("written");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("changed");
        let client = |urls: &[&str], options: Connection| {
            let endpoints = urls.iter().map(|&url| url.to_owned()).collect();
            let options = Connection { endpoints, ca: Some(certs.join("ca.pem")), ..options };
            Complete { options, variables: |_| None }.client_of(None).map(drop)
        };
        let with_token = Connection { token_file: Some(token), ..Connection::default() };
        for urls in [
            &["http://127.0.0.1:1", "http://127.9.9.9:1", "http://[::1]:1", "http://LocalHost:1"][..],
            &["https://10.0.0.1:1", "http://[::ffff:127.0.0.1]:1"],
        ] {
            client(urls, with_token.clone()).unwrap_or_else(|failure| panic!("{urls:?}: {failure:?}"));
        }
        for exposed in
            ["http://10.0.0.1:1", "http://localhost.example:1", "http://127.0.0.1.example", "http://0.0.0.0:1"]
        {
            let urls = ["https://10.0.0.1:1", exposed];
            let failure = client(&urls, with_token.clone()).expect_err(exposed);
            assert_eq!(failure.exit, Exit::Usage);
            let says = format!("--token-file: endpoint {exposed} would get the token in clear text");
            assert!(failure.message.starts_with(&says), "{failure:?}");
            let allowed = Connection { allow_plaintext_token: true, ..with_token.clone() };
            client(&urls, allowed).expect("allowed");
        }

        let [cert, cert_key] = ["alice.pem", "alice.key"].map(|name| Some(certs.join(name)));
        let with_cert = Connection { cert, cert_key, ..Connection::default() };
        client(&["https://10.0.0.1:1"], with_cert.clone()).expect("shown");
        for plain in ["http://10.0.0.1:1", "http://127.0.0.1:1"] {
            let failure = client(&["https://10.0.0.1:1", plain], with_cert.clone()).expect_err(plain);
            let says = format!("--endpoint: endpoint {plain}: is http, where a certificate is never shown");
            assert!(failure.exit == Exit::Usage && failure.message.starts_with(&says), "{failure:?}");
        }
    }

    #[test]
    fn an_option_for_an_identity_replaces_that_of_a_context_and_of_variables() {
        let path = |name: &str| Some(PathBuf::from(name));
        let both = Context {
            cert: path("c.pem"),
            key: path("c.key"),
            token_file: path("c-token"),
            allow_plaintext_token: true,
            ..Context::default()
        };
        let set = |name: &str| match name {
            CERT => Some("c.pem".into()),
            CERT_KEY => Some("c.key".into()),
            TOKEN_FILE => Some("c-token".into()),
            _ => None,
        };
        let of_token = Connection { token_file: path("token"), ..Connection::default() };
        let of_cert = Connection { cert: path("a.pem"), cert_key: path("a.key"), ..Connection::default() };
        for (options, files) in [
            (Connection::default(), [path("c.pem"), path("c.key"), path("c-token")]),
            (of_cert, [path("a.pem"), path("a.key"), None]),
            (of_token, [None, None, path("token")]),
        ] {
            let within = options.within(&both).expect("valid");
            assert_eq!([within.cert, within.cert_key, within.token_file.clone()], files);
            // The permission is for the token of the context, not for another one.
            assert_eq!(within.allow_plaintext_token, within.token_file == both.token_file);
            let Identity { cert, key, token } = options.identity(set).expect("valid");
            assert_eq!([cert, key, token].map(|given| given.map(|given| given.value)), files);
        }
    }
}
