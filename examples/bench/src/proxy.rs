//! A wire that can be cut: every datagram to one node passes through here, and its answers back.

use crate::workload::Failed;
use quinn::udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::{
    collections::BTreeMap,
    io::IoSliceMut,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{io::Interest, net::UdpSocket};

/// As many datagrams as the kernel hands over at once.
const BUFFER_BYTES: usize = 64 << 10;

/// The wire, as a handle.
#[derive(Clone, Default)]
pub(crate) struct Wire {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    is_cut: AtomicBool,
    there: AtomicU64,
}

impl Wire {
    /// Bytes that went to the node so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.there.load(Ordering::Relaxed)
    }

    /// Waits until so many went to it.
    pub(crate) async fn until_bytes(&self, bytes: u64) {
        while self.bytes() < bytes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Loses everything, both ways, until told otherwise.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// Carries what arrives at `front` to `node`, on a thread of its own, for as long as the process lives.
    pub(crate) fn lay(&self, front: SocketAddr, node: SocketAddr) -> Result<(), Failed> {
        let (wire, runtime) = (self.clone(), tokio::runtime::Builder::new_current_thread().enable_all().build()?);
        let front = {
            let _within = runtime.enter();
            End::bind(front)?
        };
        std::thread::spawn(move || {
            runtime.block_on(tokio::task::LocalSet::new().run_until(async move {
                if let Err(error) = wire.carry(Arc::new(front), node).await {
                    eprintln!("quorate-bench: the wire broke: {error}");
                }
            }));
        });
        Ok(())
    }

    async fn carry(self, front: Arc<End>, node: SocketAddr) -> Result<(), Failed> {
        // Each dialler gets a socket of its own, by which the answers find back.
        let mut diallers: BTreeMap<SocketAddr, Arc<End>> = BTreeMap::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let meta = front.receive(&mut buffer).await?;
            let back = match diallers.get(&meta.addr) {
                Some(back) => Arc::clone(back),
                None => {
                    let back = Arc::new(End::bind((Ipv4Addr::LOCALHOST, 0).into())?);
                    diallers.insert(meta.addr, Arc::clone(&back));
                    tokio::task::spawn_local(self.clone().answer(Arc::clone(&back), Arc::clone(&front), meta.addr));
                    back
                }
            };
            self.shared.there.fetch_add(meta.len as u64, Ordering::Relaxed);
            if !self.shared.is_cut.load(Ordering::Relaxed) {
                back.send(&buffer, &meta, node).await;
            }
        }
    }

    async fn answer(self, back: Arc<End>, front: Arc<End>, dialler: SocketAddr) {
        let mut buffer = vec![0; BUFFER_BYTES];
        // A node that is away answers with errors, which are no end.
        loop {
            let Ok(meta) = back.receive(&mut buffer).await else { continue };
            if !self.shared.is_cut.load(Ordering::Relaxed) {
                front.send(&buffer, &meta, dialler).await;
            }
        }
    }
}

/// A socket that takes and gives many datagrams at once.
struct End {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl End {
    fn bind(address: SocketAddr) -> Result<Self, Failed> {
        let socket = std::net::UdpSocket::bind(address)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), 8 << 20);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), 8 << 20);
        Ok(Self { socket: UdpSocket::from_std(socket)?, state })
    }

    async fn receive(&self, buffer: &mut [u8]) -> std::io::Result<RecvMeta> {
        let mut meta = [RecvMeta::default()];
        let mut receive = || self.state.recv(UdpSockRef::from(&self.socket), &mut [IoSliceMut::new(buffer)], &mut meta);
        self.socket.async_io(Interest::READABLE, &mut receive).await?;
        Ok(meta[0])
    }

    /// What can't be sent is lost, as on any wire.
    async fn send(&self, buffer: &[u8], meta: &RecvMeta, to: SocketAddr) {
        let segment_size = (meta.len > meta.stride).then_some(meta.stride);
        let transmit =
            Transmit { destination: to, ecn: meta.ecn, contents: &buffer[..meta.len], segment_size, src_ip: None };
        let send = || self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        let _ = self.socket.async_io(Interest::WRITABLE, send).await;
    }
}
