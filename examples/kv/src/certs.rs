//! `certs`: a private authority for one cluster, and a certificate for each of its
//! nodes, clients and operators.
//!
//! A later run on the same directory signs further certificates with the existing authority. All
//! checks for existing files happen before the first write.

use quorate::{
    NodeId,
    transport::{
        certificates::{Authority, CertificateError},
        identity::Role,
    },
};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The command's arguments.
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
    // The directory contains private keys.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&args.dir);
    made.map_err(|source| CertificateError::Io { path: args.dir.clone(), source })?;
    let (authority, is_new) = authority(&args.dir, &args.cluster)?;
    if is_new {
        written.splice(0..0, files("ca"));
    }
    for (id, hosts) in &args.nodes {
        authority.issue_node(*id, hosts)?.write(&args.dir, &format!("node-{id}"))?;
    }
    for client in &args.clients {
        authority.issue_client(client)?.write(&args.dir, client)?;
    }
    for operator in &args.operators {
        authority.issue_operator(operator)?.write(&args.dir, operator)?;
    }
    Ok(written)
}

fn authority(dir: &Path, cluster: &str) -> Result<(Authority, bool), CertsError> {
    if dir.join("ca.pem").exists() || dir.join("ca.key").exists() {
        let authority = Authority::load(dir)?;
        if authority.cluster() != cluster {
            let (dir, is) = (dir.to_owned(), authority.cluster().to_owned());
            return Err(CertsError::OtherCluster { dir, is, asked: cluster.to_owned() });
        }
        return Ok((authority, false));
    }
    let authority = Authority::create(cluster)?;
    authority.write(dir)?;
    Ok((authority, true))
}

/// An error of `certs`.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A certificate could not be created or written.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
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
