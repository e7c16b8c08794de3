//! Free ports that will probably stay free while a killed node is down.

use rand::Rng;
use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
};

/// The size of the range below the system's own range.
const WIDTH: u16 = 20_000;
/// Lower ports are usually used by services.
const LOWEST: u16 = 10_000;

/// Free ports on loopback, for both TCP and UDP.
///
/// Ports from binding port 0 are unsuitable: they come from the range of the machine's outgoing
/// connections, so the port of a node that is down for a second may be taken, or a client that
/// dials it may even connect to itself. The ports returned here lie below that range. Another
/// process may still take one before it is used; the caller then retries.
///
/// # Errors
/// If there are not enough free ports.
pub(super) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let range = range();
    let mut held = Vec::with_capacity(count);
    for _ in 0..count * 100 {
        if held.len() == count {
            break;
        }
        let port = rand::rng().random_range(range.clone());
        let address = (Ipv4Addr::LOCALHOST, port);
        // The sockets found so far stay bound, so that all ports differ.
        held.extend(TcpListener::bind(address).and_then(|tcp| Ok((port, tcp, UdpSocket::bind(address)?))));
    }
    if held.len() < count {
        let message = format!("no {count} free ports between {} and {} on loopback", range.start, range.end);
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    Ok(held.into_iter().map(|(port, ..)| port).collect())
}

fn range() -> Range<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let system = text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768_u16);
    // If the system's range begins this low, ports must be taken from within it.
    if system <= LOWEST { LOWEST..u16::MAX } else { system.saturating_sub(WIDTH).max(LOWEST)..system }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_bound() {
        let ports = free_ports(20).expect("free ports");
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 20);
        assert!(ports.iter().all(|port| range().contains(port)));
    }
}
