//! Ports of loopback, each reserved for one test, benchmark or demo until its [`Port`] is dropped.
//!
//! A port that the system chose, for a socket bound to port 0, is unsuitable for a node that binds
//! it later, or again after a restart: it lies in the range of outgoing connections, so that any
//! program may be given it while the node is down, and a client that dials it then may even connect
//! to itself. The ports here lie outside that range, and the kernel keeps each reservation, between
//! processes too: a reservation ends at the latest with its process.
#![forbid(unsafe_code)]

use rand::Rng;
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::Range,
};

/// The number of ports to choose from, next to the system's own range.
const WIDTH: u16 = 20_000;
/// Lower ports are usually used by services.
const LOWEST: u16 = 10_000;

/// Where a reserved port is bound: a loopback address that no node listens on.
const HOLD_AT: Ipv4Addr = Ipv4Addr::new(127, 0, 81, 1);

/// A port of 127.0.0.1 for TCP and for UDP, reserved until this is dropped. Only programs that do
/// not reserve their ports here can take it.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// `None` on a system with a single loopback address, where nothing holds a reservation.
    _held: Option<UdpSocket>,
}

impl Port {
    /// Reserves this port.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if it is reserved already, or a program listens there.
    pub fn at(number: u16) -> io::Result<Self> {
        let held = match UdpSocket::bind((HOLD_AT, number)) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => None,
            bound => Some(bound?),
        };
        let port = Self { number, _held: held };
        // A node may outlive the reservation of its port by a moment.
        TcpListener::bind(port.address())?;
        UdpSocket::bind(port.address())?;
        Ok(port)
    }

    /// The port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port on 127.0.0.1, where its node listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

/// Reserves as many ports.
///
/// # Errors
/// If there are not enough free ports.
pub fn reserve(count: usize) -> io::Result<Vec<Port>> {
    let range = range();
    let tries = (0..count * 100).map(|_| Port::at(rand::rng().random_range(range.clone())));
    let ports: Vec<_> = tries.filter_map(Result::ok).take(count).collect();
    if ports.len() < count {
        let message = format!("no {count} free ports between {} and {} on loopback", range.start, range.end);
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    Ok(ports)
}

/// Reserves one port.
///
/// # Errors
/// If there is no free port.
pub fn reserve_one() -> io::Result<Port> {
    reserve(1)?.pop().ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

fn range() -> Range<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let system = text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768_u16);
    // If the system's range begins this low, ports must be taken from within it.
    if system <= LOWEST { LOWEST..u16::MAX } else { system.saturating_sub(WIDTH).max(LOWEST)..system }
}

/// None starts a process: a child holds copies of all sockets of its parent until it runs its own program, so that a
/// port that one test dropped would still be taken because another test started a child.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_differ_and_can_be_bound() {
        let ports = reserve(20).expect("free ports");
        let distinct: std::collections::BTreeSet<_> = ports.iter().map(Port::number).collect();
        assert_eq!(distinct.len(), 20);
        for port in ports {
            assert!(range().contains(&port.number()));
            TcpListener::bind(port.address()).expect("its node can");
            UdpSocket::bind(port.address()).expect("its node can");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_port_is_reserved_while_its_node_is_down_and_free_after_it() {
        let port = reserve_one().expect("a free port");
        let number = port.number();
        drop((TcpListener::bind(port.address()), UdpSocket::bind(port.address())));
        assert_eq!(Port::at(number).expect_err("it is reserved").kind(), io::ErrorKind::AddrInUse);
        drop(port);
        Port::at(number).expect("free again");
    }

    #[test]
    fn a_port_at_which_a_program_listens_is_not_given_out() {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
        let (tcp, udp) = (tcp.expect("bound"), udp.expect("bound"));
        for taken in [tcp.local_addr(), udp.local_addr()] {
            let error = Port::at(taken.expect("bound").port()).expect_err("it is taken");
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
