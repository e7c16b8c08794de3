//! quinn on the thread of a node: its tasks belong to that thread's `LocalSet`, as all others do, and its
//! socket wakes the thread for packets that arrived, and not for packets that have left.
//!
//! [`quinn::TokioRuntime`] would do, at the price of wake-ups. A task outside the `LocalSet` that wakes one
//! inside writes to an event file each time. And a socket of tokio is registered for writing too, so that
//! the kernel reports each packet that has left as room in the send buffer.

use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{self, RecvMeta, Transmit, UdpSocketState},
};
use std::{
    fmt,
    io::{self, ErrorKind, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Instant,
};
use tokio::io::{Interest, unix::AsyncFd};

/// The runtime of quinn's endpoints. Within a `LocalSet`.
#[derive(Debug)]
pub(super) struct NodeThread;

impl Runtime for NodeThread {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::task::spawn_local(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        let registered = register(socket, Interest::READABLE)?;
        Ok(Arc::new(Socket { registered, is_full: AtomicBool::new(false), state }))
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// A socket that is registered for reading alone.
#[derive(Debug)]
struct Socket {
    registered: AsyncFd<UdpSocket>,
    /// Whether the send buffer was full when a packet was last sent.
    is_full: AtomicBool,
    state: UdpSocketState,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, wait: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send(self.registered.get_ref().into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.is_full.store(true, Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut readiness = ready!(self.registered.poll_read_ready(cx))?;
            match self.state.recv(self.registered.get_ref().into(), buffers, meta) {
                Ok(received) => {
                    // The kernel had no more, so the next packet is announced: another call that finds
                    // nothing is spared. Elsewhere one call may take one packet and leave others.
                    if cfg!(target_os = "linux") && received < buffers.len().min(udp::BATCH_SIZE) {
                        readiness.clear_ready();
                    }
                    return Poll::Ready(Ok(received));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => readiness.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.registered.get_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for types that may close their descriptor, which a socket does not"
)]
fn register(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, interest)
}

type Wait = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// A wait for room in the send buffer. quinn asks before each packet; the buffer is full so rarely that the
/// socket is registered for writing only then.
struct Room {
    socket: Arc<Socket>,
    wait: Option<Wait>,
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, wait } = &mut *self;
        if !socket.is_full.load(Relaxed) {
            *wait = None;
            return Poll::Ready(Ok(()));
        }
        let waiting = wait.get_or_insert_with(|| {
            let socket = Arc::clone(socket);
            Box::pin(async move {
                // One descriptor can be registered once.
                let twin = socket.registered.get_ref().try_clone()?;
                let twin = register(twin, Interest::WRITABLE)?;
                let _ = twin.writable().await?;
                Ok(())
            })
        });
        let waited = ready!(waiting.as_mut().poll(cx));
        *wait = None;
        socket.is_full.store(false, Relaxed);
        Poll::Ready(waited)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, net::Ipv4Addr};

    fn bound() -> (Arc<dyn AsyncUdpSocket>, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = socket.local_addr().expect("an address");
        (NodeThread.wrap_udp_socket(socket).expect("a socket"), address)
    }

    fn packet(to: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination: to, ecn: None, contents, segment_size: None, src_ip: None }
    }

    /// The number of packets that one look takes, each of one byte.
    async fn receive(socket: &Arc<dyn AsyncUdpSocket>, room: usize) -> usize {
        let mut bytes = vec![[0; 8]; room];
        let mut buffers: Vec<_> = bytes.iter_mut().map(|bytes| IoSliceMut::new(bytes)).collect();
        let mut meta = vec![RecvMeta::default(); room];
        let received = poll_fn(|cx| socket.poll_recv(cx, &mut buffers, &mut meta)).await.expect("it can be read");
        meta[..received].iter().map(|meta| meta.len / meta.stride.max(1)).sum()
    }

    #[tokio::test]
    async fn every_packet_arrives_whether_the_looks_take_all_or_a_part() {
        let ((from, _), (to, address)) = (bound(), bound());
        for round in 0..50 {
            let sent = 1 + round % 7;
            for _ in 0..sent {
                from.try_send(&packet(address, b"x")).expect("there is room");
            }
            let mut received = 0;
            while received < sent {
                received += receive(&to, 1 + round % 3).await;
            }
            assert_eq!(received, sent);
        }
    }

    #[tokio::test]
    async fn a_packet_that_arrives_after_a_look_that_took_all_is_announced() {
        let ((from, _), (to, address)) = (bound(), bound());
        from.try_send(&packet(address, b"x")).expect("there is room");
        assert_eq!(receive(&to, 32).await, 1);
        let later = async {
            tokio::task::yield_now().await;
            from.try_send(&packet(address, b"x")).expect("there is room");
        };
        assert_eq!(tokio::join!(receive(&to, 32), later).0, 1);
    }

    #[tokio::test]
    async fn a_wait_for_room_ends_when_there_is_room_as_often_as_the_buffer_was_full() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let registered = register(socket, Interest::READABLE).expect("it can be registered");
        let state = UdpSocketState::new(registered.get_ref().into()).expect("its options can be set");
        let socket = Arc::new(Socket { registered, is_full: AtomicBool::new(false), state });
        let mut room = Arc::clone(&socket).create_io_poller();
        for is_full in [false, true, true, false, true] {
            socket.is_full.store(is_full, Relaxed);
            poll_fn(|cx| room.as_mut().poll_writable(cx)).await.expect("it can be written");
            assert!(!socket.is_full.load(Relaxed));
        }
    }
}
