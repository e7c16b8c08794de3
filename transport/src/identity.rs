//! Identity in a certificate: one DNS name in a reserved zone, which says the role of the holder.
//!
//! | role | name | use |
//! | --- | --- | --- |
//! | node | `n<id>.<cluster>.quorate.internal` | member of the cluster, HTTPS server |
//! | client | `<name>.client.<cluster>.quorate.internal` | reads and writes |
//! | operator | `<name>.operator.<cluster>.quorate.internal` | administration |
//!
//! A cluster's name and a holder's are one DNS label each, so the number of labels tells a node's
//! name from the other two. A certificate proves one role: with two names in the zone it proves
//! none.
//!
//! A dialler needs [`node_name`] alone: TLS's standard verifier compares the certificate with it.
//! An acceptor reads the name out of the certificate that TLS has verified: [`identity_of`].

use quorate_raft::NodeId;
use std::fmt;
use x509_parser::{extensions::GeneralName, prelude::FromDer};

/// The zone of all reserved names. `internal` is reserved for private use and resolves nowhere.
const ZONE: &str = ".quorate.internal";
/// The label in a client's name that says its role.
const CLIENT: &str = "client";
/// The label in an operator's name that says its role.
const OPERATOR: &str = "operator";

/// The identity that a verified certificate proves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: String,
    /// The holder's role in that cluster.
    pub role: Role,
}

/// The role of a certificate's holder. No role includes another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A member of the cluster, or one to be added.
    Node(NodeId),
    /// A program that reads and writes, by its name: one DNS label.
    Client(String),
    /// A person or program that administers, by its name: one DNS label.
    Operator(String),
}

impl Identity {
    /// The DNS name that stands for it in a certificate.
    #[must_use]
    pub fn dns_name(&self) -> String {
        let cluster = &self.cluster;
        match &self.role {
            Role::Node(id) => node_name(*id, cluster),
            Role::Client(name) => format!("{name}.{CLIENT}.{cluster}{ZONE}"),
            Role::Operator(name) => format!("{name}.{OPERATOR}.{cluster}{ZONE}"),
        }
    }

    /// The identity for which `name` stands; `None` if it is not exactly [`Self::dns_name`] of one.
    fn parse(name: &str) -> Option<Self> {
        let labels: Vec<_> = name.strip_suffix(ZONE)?.split('.').collect();
        let (role, cluster) = match labels[..] {
            [node, cluster] => (Role::Node(NodeId(node.strip_prefix('n')?.parse().ok()?)), cluster),
            [name, CLIENT, cluster] => (Role::Client(name.to_owned()), cluster),
            [name, OPERATOR, cluster] => (Role::Operator(name.to_owned()), cluster),
            _ => return None,
        };
        let identity = Self { cluster: cluster.to_owned(), role };
        identity.check().ok()?;
        // One spelling a node: no leading zeros or signs.
        (identity.dns_name() == name).then_some(identity)
    }

    /// Whether its names can stand in a certificate.
    ///
    /// # Errors
    /// Says in one line which name can't, and its form.
    pub fn check(&self) -> Result<(), String> {
        check_cluster(&self.cluster)?;
        self.role.check()
    }
}

impl Role {
    /// Whether its name can stand in a certificate: one DNS label. A node's always can.
    ///
    /// # Errors
    /// Says in one line what a name may look like.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Node(_) => Ok(()),
            Self::Client(name) => check_label("client", name),
            Self::Operator(name) => check_label("operator", name),
        }
    }
}

/// The role alone, such as `operator alice`: the cluster is the reader's own.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.role.fmt(f)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::Client(name) => write!(f, "client {name}"),
            Self::Operator(name) => write!(f, "operator {name}"),
        }
    }
}

/// The name of a node, as its certificate must have it.
#[must_use]
pub fn node_name(node: NodeId, cluster: &str) -> String {
    format!("n{node}.{cluster}{ZONE}")
}

/// Whether `name` lies in the reserved zone, well-formed or not.
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
    check_label("cluster", cluster)
}

/// Whether `name` is one DNS label; `of` says in the error what it names.
fn check_label(of: &str, name: &str) -> Result<(), String> {
    let fits_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(fits_label)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(format!(
        "{of} name {name:?} can't stand in a certificate: use 1 to 63 of a-z, 0-9 and -, with no - at the ends"
    ))
}

/// Reads the one reserved name of a certificate that was already verified.
///
/// # Errors
/// If it has none or a malformed one, or more than one: then the identity would be ambiguous.
pub fn identity_of(certificate: &[u8]) -> Result<Identity, &'static str> {
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(certificate) else {
        return Err("the certificate can't be parsed");
    };
    let Ok(names) = parsed.subject_alternative_name() else {
        return Err("the certificate's alternative names can't be parsed");
    };
    reserved_name(names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) if is_reserved(name) => Some(*name),
        _ => None,
    }))
}

/// The identity for which the one name of these stands; all lie in the reserved zone.
pub(crate) fn reserved_name<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<Identity, &'static str> {
    match (names.next(), names.next()) {
        (None, _) => Err("no node, client or operator is named"),
        (Some(_), Some(_)) => Err("more than one node, client or operator is named"),
        (Some(name), None) => Identity::parse(name).ok_or("the name in the reserved zone is malformed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_role_in_one_spelling_and_nothing_else_does() {
        let of = |role| Some(Identity { cluster: "demo".into(), role });
        let longest = "a".repeat(63);
        for (name, expected) in [
            ("n1.demo", of(Role::Node(NodeId(1)))),
            ("n18446744073709551615.demo", of(Role::Node(NodeId(u64::MAX)))),
            ("billing.client.demo", of(Role::Client("billing".into()))),
            ("alice.operator.demo", of(Role::Operator("alice".into()))),
            ("n1.client.demo", of(Role::Client("n1".into()))),
            ("client.operator.demo", of(Role::Operator("client".into()))),
            (&format!("{longest}.client.demo"), of(Role::Client(longest.clone()))),
            (&format!("{longest}a.client.demo"), None),
            ("n01.demo", None),
            ("n+1.demo", None),
            ("N1.demo", None),
            ("n1.Demo", None),
            ("n18446744073709551616.demo", None),
            ("billing.demo", None),
            ("demo", None),
            ("", None),
            (".demo", None),
            ("billing.Client.demo", None),
            ("Billing.client.demo", None),
            ("-billing.client.demo", None),
            ("billing-.operator.demo", None),
            ("a.billing.client.demo", None),
            ("billing.admin.demo", None),
            (".client.demo", None),
            ("*.client.demo", None),
            ("*.demo", None),
            ("billing.client.", None),
        ] {
            assert_eq!(Identity::parse(&format!("{name}{ZONE}")), expected, "{name}");
        }
        // The number of labels decides: a cluster may have the name of a role.
        let named = Identity { cluster: CLIENT.into(), role: Role::Node(NodeId(1)) };
        assert_eq!(Identity::parse(&named.dns_name()), Some(named));
        for name in ["n1.demo", "n1.demo.quorate.internal.", "n1.demo.quorate.example"] {
            assert_eq!(Identity::parse(name), None, "{name}");
        }
    }
}
