//! Free ports that no other cluster takes while a killed node is down.

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

/// Where a port is held for its cluster, so that no other cluster of this machine takes it while
/// its node is down: bound on another loopback address, which no node listens on.
const HOLD_AT: Ipv4Addr = Ipv4Addr::new(127, 0, 81, 1);

/// Ports on loopback, for both TCP and UDP, held for one cluster until this is dropped.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) ports: Vec<u16>,
    _held: Vec<UdpSocket>,
}

/// Free ports on loopback.
///
/// Ports from binding port 0 are unsuitable: they come from the range of the machine's outgoing
/// connections, so the port of a node that is down for a second may be taken, or a client that
/// dials it may even connect to itself. The ports returned here lie below that range. A process
/// other than a cluster's may still take one before it is used; the caller then retries.
///
/// # Errors
/// If there are not enough free ports.
pub(super) fn free_ports(count: usize) -> io::Result<Ports> {
    let range = range();
    let mut held = Vec::with_capacity(count);
    for _ in 0..count * 100 {
        if held.len() == count {
            break;
        }
        let port = rand::rng().random_range(range.clone());
        let address = (Ipv4Addr::LOCALHOST, port);
        let Ok(hold) = hold(port) else { continue };
        // The sockets found so far stay bound, so that all ports differ.
        held.extend(TcpListener::bind(address).and_then(|tcp| Ok((port, hold, tcp, UdpSocket::bind(address)?))));
    }
    if held.len() < count {
        let message = format!("no {count} free ports between {} and {} on loopback", range.start, range.end);
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    let (ports, holds): (_, Vec<_>) = held.into_iter().map(|(port, hold, ..)| (port, hold)).unzip();
    Ok(Ports { ports, _held: holds.into_iter().flatten().collect() })
}

/// `None` on a system that has one loopback address only.
fn hold(port: u16) -> io::Result<Option<UdpSocket>> {
    match UdpSocket::bind((HOLD_AT, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
        bound => bound.map(Some),
    }
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
        let Ports { ports, _held } = free_ports(20).expect("free ports");
        let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(distinct.len(), 20);
        assert!(ports.iter().all(|port| range().contains(port)));
        for port in ports {
            UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("the cluster's nodes can");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_port_is_held_while_its_node_is_down_and_free_after_the_cluster() {
        let ports = free_ports(1).expect("a free port");
        let port = ports.ports[0];
        assert_eq!(hold(port).expect_err("another cluster's try").kind(), io::ErrorKind::AddrInUse);
        drop(ports);
        assert!(hold(port).expect("free again").is_some());
    }
}
