//! A stream that is closed without losing its last answer.
//!
//! When a socket is closed with unread input, the kernel sends a reset, which may overtake the
//! answer: a client that is still sending its body would never read the refusal, and could not know
//! the outcome of its request. So the sending side is shut down first, and further input is read
//! and dropped, **within a limit** of time and bytes.

use super::connections::Connection;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// The limits for dropping input after the last answer.
const LINGER_LIMIT: Duration = Duration::from_secs(30);
const LINGER_BYTES_MAX: u64 = 256 << 20;
/// The size of one read.
const PIECE_BYTES: usize = 16 << 10;

/// The stream of a connection.
pub(super) struct Lingering<S> {
    stream: S,
    connection: Arc<Connection>,
    draining: Option<Draining>,
}

struct Draining {
    until: Pin<Box<Sleep>>,
    bytes_left: u64,
    piece: Box<[u8]>,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection, draining: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.connection.set_unread(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.connection.wrote();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.connection.wrote();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.connection.flushed();
        Poll::Ready(Ok(()))
    }

    /// Shuts down the sending side, then drops further input.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, connection, draining } = &mut *self;
        if draining.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
            if !connection.has_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        let draining = draining.get_or_insert_with(|| Draining {
            until: Box::pin(sleep(LINGER_LIMIT)),
            bytes_left: LINGER_BYTES_MAX,
            piece: vec![0; PIECE_BYTES].into(),
        });
        while draining.bytes_left > 0 && draining.until.as_mut().poll(cx).is_pending() {
            let mut piece = ReadBuf::new(&mut draining.piece);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece)) {
                Ok(()) if !piece.filled().is_empty() => {
                    draining.bytes_left = draining.bytes_left.saturating_sub(piece.filled().len() as u64);
                }
                // The client has closed the connection, or it is broken.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
