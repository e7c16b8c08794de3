//! The permission that each endpoint requires: one table, and the only place that decides it.
//!
//! An endpoint that is not in the table is not served: its requests are answered
//! `method_not_allowed`. So a new route without an entry serves no caller.

use axum::http::Method;

/// The permission to call an endpoint. Each one includes those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Permission {
    /// Any caller has it: for the probes.
    Open,
    /// To read status and metrics.
    Monitor,
    /// To read keys and their changes.
    Read,
    /// To change keys; a client's.
    Write,
    /// To change members and leadership, to take snapshots and backups; an operator's.
    Operate,
}

/// All endpoints: the method, the path as the router has it, and the permission.
pub const ENDPOINTS: &[(&str, &str, Permission)] = &[
    ("GET", "/livez", Permission::Open),
    ("GET", "/readyz", Permission::Open),
    ("GET", "/metrics", Permission::Monitor),
    ("GET", "/v1/status", Permission::Monitor),
    // The document has no facts of the cluster, and a browser can ask for a token only once it has it.
    ("GET", "/", Permission::Open),
    ("GET", "/live", Permission::Monitor),
    ("OPTIONS", "/live", Permission::Open),
    ("GET", "/v1/kv", Permission::Read),
    ("GET", "/v1/kv/{key}", Permission::Read),
    ("GET", "/v1/watch", Permission::Read),
    ("PUT", "/v1/kv/{key}", Permission::Write),
    ("DELETE", "/v1/kv/{key}", Permission::Write),
    ("POST", "/v1/kv/{key}/cas", Permission::Write),
    ("POST", "/v1/txn", Permission::Write),
    ("GET", "/v1/members", Permission::Operate),
    ("POST", "/v1/members", Permission::Operate),
    ("PUT", "/v1/members", Permission::Operate),
    ("DELETE", "/v1/members/{id}", Permission::Operate),
    ("PUT", "/v1/members/{id}/addr", Permission::Operate),
    ("PATCH", "/v1/members/{id}/metadata", Permission::Operate),
    ("POST", "/v1/members/{id}/promote", Permission::Operate),
    ("POST", "/v1/transfer", Permission::Operate),
    ("POST", "/v1/snapshot", Permission::Operate),
    ("GET", "/v1/backup", Permission::Operate),
];

/// The permission that a request to the path of a route requires; `None` if the table has no such
/// endpoint.
#[must_use]
pub fn required(method: &Method, path: &str) -> Option<Permission> {
    let method = if method == Method::HEAD { Method::GET.as_str() } else { method.as_str() };
    let endpoint = ENDPOINTS.iter().find(|(of, at, _)| *of == method && *at == path);
    endpoint.map(|(_, _, permission)| *permission)
}

impl Permission {
    /// The role to ask for, as a refusal names it.
    pub(super) const fn role(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::Monitor => "monitor, client or operator",
            Self::Read | Self::Write => "client or operator",
            Self::Operate => "operator",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_listed_once_and_one_that_is_not_listed_requires_what_no_caller_has() {
        for (at, (method, path, permission)) in ENDPOINTS.iter().enumerate() {
            assert!(!ENDPOINTS[..at].iter().any(|(of, other, _)| (of, other) == (method, path)), "{method} {path}");
            assert_eq!(required(&method.parse().expect("a method"), path), Some(*permission));
        }
        assert_eq!(required(&Method::HEAD, "/v1/backup"), Some(Permission::Operate), "as GET");
        for (method, path) in [(Method::GET, "/v1/snapshot"), (Method::OPTIONS, "/v1/kv"), (Method::GET, "/v1/new")] {
            assert_eq!(required(&method, path), None);
        }
    }
}
