//! A wire that can be cut: all datagrams to one node pass through it, and its answers too.

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
use tokio::{io::Interest, net::UdpSocket, sync::oneshot};

/// The size of a batch of datagrams from the kernel.
const BUFFER_BYTES: usize = 64 << 10;

/// A handle of the wire.
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
    /// The number of bytes sent to the node so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.there.load(Ordering::Relaxed)
    }

    /// Waits until this many bytes were sent to the node.
    pub(crate) async fn until_bytes(&self, bytes: u64) {
        while self.bytes() < bytes {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Drops all datagrams in both directions, until reset.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// Forwards datagrams from `front` to `node`, on a separate thread, for the life
    /// of the process. The receiver gets the error that ends it.
    pub(crate) fn lay(&self, front: SocketAddr, node: SocketAddr) -> Result<oneshot::Receiver<Failed>, Failed> {
        let (wire, runtime) = (self.clone(), tokio::runtime::Builder::new_current_thread().enable_all().build()?);
        let front = {
            let _within = runtime.enter();
            End::bind(front)?
        };
        let (tell, broken) = oneshot::channel();
        std::thread::spawn(move || {
            runtime.block_on(tokio::task::LocalSet::new().run_until(async move {
                if let Err(error) = wire.carry(Arc::new(front), node).await {
                    // Without a receiver, the measurement is over.
                    let _ = tell.send(format!("the wire broke: {error}").into());
                }
            }));
        });
        Ok(broken)
    }

    async fn carry(self, front: Arc<End>, node: SocketAddr) -> Result<(), Failed> {
        // Each dialler gets its own socket, which identifies it for the answers.
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
        // Errors are expected while the node is down.
        loop {
            let Ok(meta) = back.receive(&mut buffer).await else { continue };
            if !self.shared.is_cut.load(Ordering::Relaxed) {
                front.send(&buffer, &meta, dialler).await;
            }
        }
    }
}

/// A socket that sends and receives batches of datagrams.
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

    /// A datagram that cannot be sent is lost, as on any wire.
    async fn send(&self, buffer: &[u8], meta: &RecvMeta, to: SocketAddr) {
        let segment_size = (meta.len > meta.stride).then_some(meta.stride);
        let transmit =
            Transmit { destination: to, ecn: meta.ecn, contents: &buffer[..meta.len], segment_size, src_ip: None };
        let send = || self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        let _ = self.socket.async_io(Interest::WRITABLE, send).await;
    }
}
