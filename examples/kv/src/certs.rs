//! `certs`: a private authority for one cluster, and a certificate for each of its
//! nodes, clients and operators.
//!
//! A later run on the same directory signs further certificates with the existing authority. All
//! checks come before the first write, and no file is overwritten but by [`renew`], in pairs, and the
//! authority's records: `ca.issued` names what it issued, and `ca.crl.pem` what it revoked.
//! [`request`] and [`sign`] are for an authority on another machine: keys do not travel.

mod issued;
pub mod list;
pub mod renew;
pub mod request;
pub mod revoke;
pub mod sign;

use quorate::{
    NodeId,
    transport::{
        certificates::{Authority, CertificateError, ISSUED_LASTS, Issued, LIST_FILE, Serial},
        identity::Role,
    },
};
use serde_json::{Value, json};
use std::{
    fs::{self, DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// The arguments of `certs`, or one of its commands.
#[derive(Clone, Debug, clap::Args)]
#[command(subcommand_negates_reqs = true)]
pub struct Command {
    #[command(flatten)]
    make: Option<Args>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Replace certificates and keys by new ones with the same names
    Renew(renew::Args),
    /// Make a key here, and a request that the authority on another machine can sign
    Request(request::Args),
    /// Show a request, and sign it where the authority is
    Sign(sign::Args),
    /// List the certificates that the authority issued, with their serials, and those revoked
    List(list::Args),
    /// Revoke certificates: add them to the authority's list, which every node needs a copy of
    Revoke(revoke::Args),
    /// Renew the authority's list of revoked certificates, or make the first
    Crl(revoke::ListArgs),
}

/// Runs the command; returns its result for people and for machines.
///
/// # Errors
/// As the command's own function.
pub fn run(command: &Command) -> Result<(String, Value), CertsError> {
    match (&command.action, &command.make) {
        (Some(Action::Renew(args)), None) => renew::run(args),
        (Some(Action::Request(args)), None) => request::run(args),
        (Some(Action::Sign(args)), None) => sign::run(args),
        (Some(Action::List(args)), None) => list::run(args),
        (Some(Action::Revoke(args)), None) => revoke::run(args),
        (Some(Action::Crl(args)), None) => revoke::renew(args),
        (Some(_), Some(_)) => Err(CertsError::Both),
        (None, Some(args)) => Ok(listed(&make(args)?)),
        (None, None) => Err(CertsError::Nothing),
    }
}

/// The names of written files.
fn listed(files: &[PathBuf]) -> (String, Value) {
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    (files.join("\n"), json!({ "files": files }))
}

/// What `certs` makes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The directory for the files; created if missing
    #[arg(long)]
    pub dir: PathBuf,
    /// The cluster's name: 1 to 63 of a-z, 0-9 and -
    #[arg(long)]
    pub cluster: String,
    /// A node, and the hosts at which HTTPS clients reach it, separated by commas; repeatable
    #[arg(long = "node", value_name = "ID=HOST_OR_IP", value_parser = node)]
    pub nodes: Vec<(NodeId, Vec<String>)>,
    /// A client that needs a certificate: 1 to 63 of a-z, 0-9 and -; repeatable
    #[arg(long = "client", value_name = "NAME", value_parser = client)]
    pub clients: Vec<String>,
    /// An operator that needs a certificate: 1 to 63 of a-z, 0-9 and -; repeatable
    #[arg(long = "operator", value_name = "NAME", value_parser = operator)]
    pub operators: Vec<String>,
    /// The days that the certificates last; not beyond the authority's own end
    #[arg(long, default_value = DAYS, value_parser = days)]
    pub days: Duration,
}

/// The default of `--days`.
const DAYS: &str = "365";

impl Args {
    /// No certificates yet: an authority for `cluster` in `dir`, with the default of `--days`.
    #[must_use]
    pub fn new(dir: PathBuf, cluster: &str) -> Self {
        let (nodes, clients, operators) = (Vec::new(), Vec::new(), Vec::new());
        Self { dir, cluster: cluster.to_owned(), nodes, clients, operators, days: ISSUED_LASTS }
    }
}

/// Creates the requested certificates; returns the names of the written files.
///
/// # Errors
/// If a file exists or cannot be written, or the directory has another cluster's authority.
pub fn make(args: &Args) -> Result<Vec<PathBuf>, CertsError> {
    let nodes = args.nodes.iter().map(|(id, _)| format!("node-{id}"));
    let others = args.clients.iter().chain(&args.operators).cloned();
    let names: Vec<_> = nodes.chain(others).collect();
    if let Some(twice) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(name)) {
        return Err(CertsError::Twice(twice.clone()));
    }
    let files = |name: &str| [args.dir.join(format!("{name}.pem")), args.dir.join(format!("{name}.key"))];
    let mut written: Vec<_> = names.iter().flat_map(|name| files(name)).collect();
    if let Some(path) = written.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(CertificateError::Exists { path: path.clone() }.into());
    }
    make_dir(&args.dir)?;
    let _lock = lock(&args.dir)?;
    let (authority, is_new) = authority(&args.dir, &args.cluster)?;
    let authority = authority.issuing_for(args.days);
    let nodes = args.nodes.iter().map(|(id, hosts)| authority.issue_node(*id, hosts));
    let clients = args.clients.iter().map(|name| authority.issue_client(name));
    let operators = args.operators.iter().map(|name| authority.issue_operator(name));
    let issued: Vec<Issued> = nodes.chain(clients).chain(operators).collect::<Result<_, _>>()?;
    let mut certified = Vec::new();
    for (issued, name) in issued.iter().zip(&names) {
        certified.push(issued::read_back(&authority, &args.dir.join(format!("{name}.pem")), &issued.certificate_pem)?);
    }
    if is_new {
        // Records of an authority that is gone would pass for its.
        let left = [issued::FILE, LIST_FILE].map(|file| args.dir.join(file)).into_iter().find(|path| path.exists());
        if let Some(path) = left {
            return Err(CertificateError::Exists { path }.into());
        }
        authority.write(&args.dir)?;
        written.splice(0..0, files("ca"));
    }
    issued::record(&args.dir, &certified)?;
    for (issued, name) in issued.iter().zip(&names) {
        issued.write(&args.dir, name)?;
    }
    Ok(written)
}

/// The authority in the directory, or one that is new and not written yet.
fn authority(dir: &Path, cluster: &str) -> Result<(Authority, bool), CertsError> {
    if !dir.join("ca.pem").exists() && !dir.join("ca.key").exists() {
        return Ok((Authority::create(cluster)?, true));
    }
    let authority = Authority::load(dir)?;
    if authority.cluster() != cluster {
        let (dir, is) = (dir.to_owned(), authority.cluster().to_owned());
        return Err(CertsError::OtherCluster { dir, is, asked: cluster.to_owned() });
    }
    Ok((authority, false))
}

/// The directory contains private keys.
fn make_dir(dir: &Path) -> Result<(), CertsError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| CertificateError::Io { path: dir.to_owned(), source }.into())
}

/// Keeps other runs away from the directory while the result lives.
fn lock(dir: &Path) -> Result<File, CertsError> {
    let failed = |source| CertsError::Certificate(CertificateError::Io { path: dir.to_owned(), source });
    let file = File::open(dir).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(CertsError::Busy(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The names of a directory's certificate files without `.pem`, sorted, but the authority's own.
fn stems(dir: &Path) -> Result<Vec<String>, CertsError> {
    let failed = |source| CertificateError::Io { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_str().filter(|name| *name != LIST_FILE && *name != "ca.pem");
        names.extend(name.and_then(|name| name.strip_suffix(".pem")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// A time for people and machines, such as `2027-11-30T01:14:02Z`.
fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// An error of `certs`.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A certificate could not be created or written.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Neither a command nor arguments were given.
    #[error("give --dir and --cluster, or a command such as renew")]
    Nothing,
    /// Arguments of `certs` itself were given beside a command.
    #[error("give the arguments after the command, as in `certs renew --dir DIR`")]
    Both,
    /// A run of `certs` has the directory.
    #[error("another run of certs is under way in {}: try again", .0.display())]
    Busy(PathBuf),
    /// A file that is no certificate of the authority.
    #[error("{} {problem}: name the certificates to renew, or make one with `certs`", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The reason, as a predicate.
        problem: String,
    },
    /// A certificate that can't be renewed.
    #[error("{} {problem}: name the certificates to renew, or make one with `certs`", path.display())]
    NotRenewable {
        /// The certificate's file.
        path: PathBuf,
        /// The reason, as a predicate.
        problem: String,
    },
    /// A new certificate that is not as it was meant to be. It was not written.
    #[error("the certificate for {} {problem}: make another authority", path.display())]
    Unverified {
        /// Its file, or that of its request.
        path: PathBuf,
        /// The reason, as a predicate.
        problem: String,
    },
    /// A certificate that is revoked, where none was named.
    #[error("{} is revoked: name it to replace it", .0.display())]
    Revoked(PathBuf),
    /// A file that is no certificate of the authority, and so can't be revoked by it.
    #[error("{} {problem}: name a certificate that this authority issued, or its --serial", path.display())]
    NotRevocable {
        /// The file.
        path: PathBuf,
        /// The reason, as a predicate.
        problem: String,
    },
    /// A serial of no certificate that is known; it may be mistyped.
    #[error("serial {serial} is of no certificate known in {}: see `certs list`, or add --unknown", dir.display())]
    UnknownSerial {
        /// The serial.
        serial: Serial,
        /// The directory of the authority.
        dir: PathBuf,
    },
    /// A malformed line of `ca.issued`.
    #[error("{}, line {line}, is not SERIAL END HOLDER: restore the file, or remove the line", path.display())]
    NotARecord {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1 on.
        line: usize,
    },
    /// A certificate whose key is on another machine.
    #[error("{} is not here, so its certificate is renewed by `certs request` where the key is", .0.display())]
    KeyElsewhere(PathBuf),
    /// A request is for another key than the one to be signed.
    #[error("{} is for key sha256:{is}, not sha256:{asked}: ask its holder for both again", request.display())]
    OtherKey {
        /// The request's file.
        request: PathBuf,
        /// The fingerprint of its key.
        is: String,
        /// The fingerprint given by `--fingerprint`.
        asked: String,
    },
    /// A name was given twice.
    #[error("{0} is given twice; name every node, client and operator once, each by a name of its own")]
    Twice(String),
    /// The directory belongs to another cluster.
    #[error("{} has the authority of cluster {is:?}, not {asked:?}: choose another directory", dir.display())]
    OtherCluster {
        /// The directory given by `--dir`.
        dir: PathBuf,
        /// The name of the cluster of the authority in a directory.
        is: String,
        /// The name given by `--cluster`.
        asked: String,
    },
}

fn node(text: &str) -> Result<(NodeId, Vec<String>), String> {
    let shape = || "write ID=HOST_OR_IP, for example 1=10.0.0.1".to_owned();
    let (id, hosts) = text.split_once('=').ok_or_else(shape)?;
    let id = id.parse().ok().filter(|id| *id > 0).ok_or_else(shape)?;
    let hosts: Vec<_> = hosts.split(',').map(|host| host.trim().to_owned()).collect();
    if hosts.iter().any(String::is_empty) { Err(shape()) } else { Ok((NodeId(id), hosts)) }
}

fn days(text: &str) -> Result<Duration, String> {
    let days = text.parse().ok().filter(|days| (1..=36_500).contains(days));
    days.map(|days: u64| Duration::from_secs(days * 24 * 3600)).ok_or_else(|| "give 1 to 36500 days".to_owned())
}

fn client(name: &str) -> Result<String, String> {
    Role::Client(name.to_owned()).check()?;
    file_name(name)
}

fn operator(name: &str) -> Result<String, String> {
    Role::Operator(name.to_owned()).check()?;
    file_name(name)
}

/// The name of the files of a client or operator.
fn file_name(name: &str) -> Result<String, String> {
    if name == "ca" {
        return Err("it becomes a file name, and \"ca\" is reserved: choose another".to_owned());
    }
    Ok(name.to_owned())
}
