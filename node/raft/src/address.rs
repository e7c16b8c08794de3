//! Addresses of members: the checks that the rules make. Only the network resolves and dials them,
//! and clients those at which members serve them.

use core::net::{IpAddr, Ipv6Addr};

/// Longest address, in bytes.
pub(crate) const BYTES_MAX: usize = 255;

/// Whether another node could dial `address`: it has 1 to
/// [`Change::ADDRESS_BYTES_MAX`](crate::Change::ADDRESS_BYTES_MAX) bytes, and, if it is
/// `HOST:PORT`, neither port 0 nor an IP address that names no single machine
/// (unspecified, multicast, broadcast).
#[must_use]
pub fn is_dialable(address: &str) -> bool {
    if address.is_empty() || address.len() > BYTES_MAX {
        return false;
    }
    let Some((host, port)) = address.rsplit_once(':') else { return true };
    port.parse() != Ok(0u16) && ip(host).is_none_or(names_a_machine)
}

/// Whether clients could be served at `address`: it has at most
/// [`Change::ADDRESS_BYTES_MAX`](crate::Change::ADDRESS_BYTES_MAX) bytes and is `http://` or
/// `https://`, a host name or an IP address of a single machine (IPv6 in brackets), and at most a
/// port, not 0. Nothing follows, so a page may show it as a link.
#[must_use]
pub fn is_origin(address: &str) -> bool {
    let rest = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    let Some(rest) = rest.filter(|_| address.len() <= BYTES_MAX) else { return false };
    let (host, port) = match rest.rfind(']') {
        Some(end) => (&rest[..=end], &rest[end + 1..]),
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_name),
    };
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port > 0);
    is_host && ip(host).is_none_or(names_a_machine) && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// Whether two addresses are certainly the same. Host names are compared as text and not resolved.
#[must_use]
pub fn are_same(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (one.rsplit_once(':'), other.rsplit_once(':')) else { return one == other };
    let is_same_host = match (ip(one.0), ip(other.0)) {
        (Some(one), Some(other)) => one == other,
        _ => one.0.eq_ignore_ascii_case(other.0),
    };
    let is_same_port = match (one.1.parse::<u16>(), other.1.parse::<u16>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one.1 == other.1,
    };
    is_same_host && is_same_port
}

fn names_a_machine(ip: IpAddr) -> bool {
    let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

fn ip(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::{are_same, is_dialable, is_origin};

    #[test]
    fn an_address_that_names_no_machine_or_no_port_can_not_be_dialled() {
        for address in [
            "",
            "0.0.0.0:7001",
            "[::]:7001",
            ":::7001",
            "[::ffff:0.0.0.0]:7001",
            "10.0.0.1:0",
            "node:0",
            "224.0.0.1:7001",
            "255.255.255.255:7001",
            "[ff02::1]:7001",
            &"x".repeat(256),
        ] {
            assert!(!is_dialable(address), "{address:?}");
        }
        for address in ["10.0.0.1:7001", "[::1]:7001", "node-1.example:7001", "four"] {
            assert!(is_dialable(address), "{address:?}");
        }
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_perhaps_a_port() {
        for origin in
            ["http://10.0.0.1:8001", "https://kv-1.example", "http://[::1]:80", "https://[fe80::1]", "http://a_b:1"]
        {
            assert!(is_origin(origin), "{origin:?}");
        }
        let longest = alloc::format!("http://{}", "x".repeat(248));
        assert!(is_origin(&longest) && !is_origin(&alloc::format!("{longest}x")));
        for other in [
            "",
            "10.0.0.1:8001",
            "HTTP://a:1",
            "ftp://a:1",
            "javascript://a:1",
            "http://",
            "http://:1",
            "http://a:",
            "http://a:0",
            "http://a:+1",
            "http://a:65536",
            "http://a:1/",
            "http://a/b",
            "http://a?b",
            "http://u@a:1",
            "http://a b:1",
            "http://a\nb:1",
            "http://grün:1",
            "http://::1:1",
            "http://[::1",
            "http://[::1]1",
            "http://[a]:1",
            "http://[10.0.0.1]:1",
            "http://0.0.0.0:1",
            "http://[::]:1",
            "http://224.0.0.1:1",
        ] {
            assert!(!is_origin(other), "{other:?}");
        }
    }

    #[test]
    fn an_address_written_in_two_ways_is_one() {
        assert!(are_same("[::1]:7001", "[0:0::1]:07001"));
        assert!(are_same("[::ffff:10.0.0.1]:7001", "10.0.0.1:7001"));
        assert!(are_same("Node:7001", "node:7001"));
        assert!(!are_same("10.0.0.1:7001", "10.0.0.1:7002"));
        assert!(!are_same("10.0.0.1:7001", "10.0.0.2:7001"));
        assert!(!are_same("four", "five"));
    }
}
