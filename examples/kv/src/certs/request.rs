//! `certs request`: a key, and a request for a certificate of it, on the machine of a node, client
//! or operator. The key stays there.

use super::{CertsError, client, make_dir, node, operator};
use quorate::{
    NodeId,
    transport::{
        certificates::{CERTIFICATE_MODE, CertificateError, KEY_MODE, Requested, Subject, write_new},
        identity::{Identity, Role},
    },
};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The command's arguments.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("holder").required(true).args(["node", "client", "operator"]))]
pub struct Args {
    /// The directory for the key and the request; created if missing
    #[arg(long)]
    dir: PathBuf,
    /// The cluster's name: 1 to 63 of a-z, 0-9 and -
    #[arg(long)]
    cluster: String,
    /// For a node, and the hosts at which HTTPS clients reach it, separated by commas
    #[arg(long, value_name = "ID=HOST_OR_IP", value_parser = node)]
    node: Option<(NodeId, Vec<String>)>,
    /// For a client: 1 to 63 of a-z, 0-9 and -
    #[arg(long, value_name = "NAME", value_parser = client)]
    client: Option<String>,
    /// For an operator: 1 to 63 of a-z, 0-9 and -
    #[arg(long, value_name = "NAME", value_parser = operator)]
    operator: Option<String>,
}

/// Makes key and request; returns the result for people and for machines.
///
/// # Errors
/// If a file exists or cannot be written, or a name can't stand in a certificate.
pub(super) fn run(args: &Args) -> Result<(String, Value), CertsError> {
    let (name, role, hosts) = match (&args.node, &args.client, &args.operator) {
        (Some((id, hosts)), ..) => (format!("node-{id}"), Role::Node(*id), hosts.clone()),
        (_, Some(name), _) => (name.clone(), Role::Client(name.clone()), Vec::new()),
        (_, _, Some(name)) => (name.clone(), Role::Operator(name.clone()), Vec::new()),
        (None, None, None) => return Err(CertsError::Nothing),
    };
    let subject = Subject { identity: Identity { cluster: args.cluster.clone(), role }, hosts };
    let requested = Requested::make(&subject)?;
    let file = |ending: &str| args.dir.join(format!("{name}.{ending}"));
    let (key, request) = (file("key"), file("csr"));
    if let Some(path) = [&key, &request, &file("pem")].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(CertificateError::Exists { path: path.clone() }.into());
    }
    make_dir(&args.dir)?;
    write_new(&key, &requested.key_pem, KEY_MODE)?;
    write_new(&request, &requested.request_pem, CERTIFICATE_MODE)?;
    let [key, request] = [key, request].map(|path| path.display().to_string());
    let fingerprint = requested.fingerprint.clone();
    Ok((
        format!("{key}\n{request}\nkey sha256:{fingerprint}"),
        json!({ "files": [key, request], "holder": subject.identity.to_string(), "key_sha256": fingerprint }),
    ))
}
