//! Identity in a certificate: one DNS name, `n<id>.<cluster>.quorate.internal`.
//!
//! A dialler needs [`node_name`] alone: TLS's standard verifier compares the certificate with it.
//! An acceptor reads the name out of the certificate that TLS has verified: [`identity_of`].

use quorate_raft::NodeId;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

/// The zone of all nodes' names. `internal` is reserved for private use and resolves nowhere.
const ZONE: &str = ".quorate.internal";

/// The name of a node, as its certificate must have it.
#[must_use]
pub fn node_name(node: NodeId, cluster: &str) -> String {
    format!("n{node}.{cluster}{ZONE}")
}

/// Whether `name` lies in the zone of nodes' names, well-formed or not.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.ends_with(ZONE) || name == ZONE[1..]
}

/// Whether `cluster` can stand in a DNS name.
///
/// # Errors
/// Says in one line what a name may look like.
pub fn check_cluster(cluster: &str) -> Result<(), String> {
    let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=63).contains(&cluster.len())
        && cluster.bytes().all(label)
        && !cluster.starts_with('-')
        && !cluster.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(format!(
        "cluster name {cluster:?} can't stand in a certificate: use 1 to 63 of a-z, 0-9 and -, with no - at the ends"
    ))
}

/// The identity that a verified certificate proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The id in the name.
    pub node: NodeId,
    /// The cluster's name in it.
    pub cluster: String,
}

/// Reads the one node name of a certificate that was already verified.
///
/// # Errors
/// If it names no node, or more than one: then the identity would be ambiguous.
pub fn identity_of(certificate: &[u8]) -> Result<Identity, &'static str> {
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(certificate) else {
        return Err("the certificate can't be parsed");
    };
    let Ok(names) = parsed.subject_alternative_name() else {
        return Err("the certificate's alternative names can't be parsed");
    };
    let mut nodes = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) if is_reserved(name) => Some(parse(name)),
        _ => None,
    });
    match (nodes.next(), nodes.next()) {
        (None, _) => Err("the certificate names no node"),
        (Some(Some(identity)), None) => Ok(identity),
        (Some(None), _) => Err("the certificate's node name is malformed"),
        (Some(_), Some(_)) => Err("the certificate names more than one node"),
    }
}

fn parse(name: &str) -> Option<Identity> {
    let (node, cluster) = name.strip_prefix('n')?.strip_suffix(ZONE)?.split_once('.')?;
    check_cluster(cluster).ok()?;
    let identity = Identity { node: NodeId(node.parse().ok()?), cluster: cluster.to_owned() };
    // One spelling a node: no leading zeros or signs.
    (node_name(identity.node, cluster) == name).then_some(identity)
}
