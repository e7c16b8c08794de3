//! Ports that nobody uses, and that nobody is likely to take while a killed node is away.

use rand::Rng;
use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
};

/// How many ports below the system's own range are drawn from.
const WIDTH: u16 = 20_000;
/// Below these, services are at home.
const LOWEST: u16 = 10_000;

/// Free ports on loopback, for TCP and UDP alike.
///
/// Not those that binding port 0 gives: they come from the range from which every outgoing connection of the machine
/// takes its own, so that a node that is away for a second may find its port taken, or a client that dials it may even
/// connect to itself. These lie below that range. Somebody may still take one before it is used: try again then.
///
/// # Errors
/// If there are none.
pub(super) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let range = range();
    let mut held = Vec::with_capacity(count);
    for _ in 0..count * 100 {
        if held.len() == count {
            break;
        }
        let port = rand::rng().random_range(range.clone());
        let address = (Ipv4Addr::LOCALHOST, port);
        // Holding the ones found keeps them different from each other.
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
    // A system that takes its own ports from everywhere leaves no better choice than among them.
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
