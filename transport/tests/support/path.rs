//! A path between two nodes: a UDP proxy that delays, cuts and changes the port that it sends from,
//! as a router with NAT does.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};
use tokio::{net::UdpSocket, task::spawn_local};

/// Longer than any datagram.
const BUFFER_BYTES: usize = 64 << 10;

/// One way in, to one node. Everything runs on the test's thread and ends with its `LocalSet`.
#[derive(Clone)]
pub struct Path {
    shared: Rc<Shared>,
}

struct Shared {
    front: Rc<UdpSocket>,
    to: SocketAddr,
    /// Each dialler has a socket of its own, by which answers find back.
    back: RefCell<BTreeMap<SocketAddr, Rc<UdpSocket>>>,
    is_cut: Cell<bool>,
    delay: Cell<Duration>,
}

impl Path {
    pub async fn lay(to: SocketAddr) -> Self {
        let front = Rc::new(bind().await);
        let back = RefCell::default();
        let path = Self {
            shared: Rc::new(Shared { front, to, back, is_cut: Cell::new(false), delay: Cell::new(Duration::ZERO) }),
        };
        spawn_local(path.clone().carry());
        path
    }

    /// Where to dial instead of the node.
    pub fn address(&self) -> String {
        self.shared.front.local_addr().expect("it is bound").to_string()
    }

    /// Delays each datagram by this, each way.
    pub fn delay(&self, by: Duration) {
        self.shared.delay.set(by);
    }

    /// Loses everything, both ways, or no more.
    pub fn cut(&self, is_cut: bool) {
        self.shared.is_cut.set(is_cut);
    }

    /// Forgets every translation: what comes from now on leaves from another port, and answers to
    /// the old one are lost.
    pub fn rebind(&self) {
        self.shared.back.borrow_mut().clear();
    }

    async fn carry(self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let Ok((length, from)) = self.shared.front.recv_from(&mut buffer).await else { continue };
            let known = self.shared.back.borrow().get(&from).cloned();
            let back = match known {
                Some(back) => back,
                None => {
                    let back = Rc::new(bind().await);
                    self.shared.back.borrow_mut().insert(from, Rc::clone(&back));
                    spawn_local(self.clone().answer(Rc::downgrade(&back), from));
                    back
                }
            };
            self.pass(back, buffer[..length].to_vec(), self.shared.to);
        }
    }

    /// Carries answers back for as long as the translation is known.
    async fn answer(self, back: std::rc::Weak<UdpSocket>, to: SocketAddr) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(back) = back.upgrade() {
            let received = tokio::time::timeout(Duration::from_millis(50), back.recv_from(&mut buffer)).await;
            if let Ok(Ok((length, _))) = received {
                self.pass(Rc::clone(&self.shared.front), buffer[..length].to_vec(), to);
            }
        }
    }

    fn pass(&self, by: Rc<UdpSocket>, datagram: Vec<u8>, to: SocketAddr) {
        let (is_cut, delay) = (self.shared.is_cut.get(), self.shared.delay.get());
        if is_cut {
            return;
        }
        if delay.is_zero() {
            // A datagram that can't be sent is lost, as on any path.
            let _ = by.try_send_to(&datagram, to);
            return;
        }
        spawn_local(async move {
            tokio::time::sleep(delay).await;
            let _ = by.try_send_to(&datagram, to);
        });
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port")
}
