//! `GET /v1/backup`: a snapshot file, streamed at the client's rate.
//!
//! **Bounded:** at most [`BACKUPS_MAX`] at a time, each with a few pieces of 256 KiB in memory. A
//! backup is aborted if its client takes no bytes for a while, or if the client's identity counts
//! no more; it is then shorter than announced, so no restore accepts it.

use super::{Api, Refusal, standing::Endless};
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use quorate::{BackupError, storage::snapshots::Export};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

/// The maximum number at a time: each makes the node write and read a snapshot.
const BACKUPS_MAX: usize = 2;
/// The number of pieces that are read ahead.
const PIECES_AHEAD: usize = 2;
/// The time after which a client that takes no bytes is cut off.
const STALL_LIMIT: Duration = Duration::from_secs(60);

/// The permits of backups in progress.
#[derive(Clone, Debug)]
pub(super) struct BackupPermits(Arc<Semaphore>);

impl Default for BackupPermits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BACKUPS_MAX)))
    }
}

/// Takes a snapshot that contains all writes acknowledged before, and answers with its file.
pub(super) async fn backup(State(api): State<Api>) -> Result<Response, Refusal> {
    api.open()?;
    let overloaded = |_| Refusal::Overloaded(Duration::from_secs(1));
    let place = Arc::clone(&api.backups.0).try_acquire_owned().map_err(overloaded)?;
    let export = api.node.backup().await?;
    let index = [("quorate-index", export.snapshot().base.last.index.to_string())];
    let (to, arriving) = mpsc::channel(PIECES_AHEAD);
    let pieces = Pieces { arriving, left: export.file_bytes() };
    let runtime = Handle::current();
    let reading = std::thread::Builder::new().name("quorate-backup".into());
    reading.spawn(move || read(export, &to, &runtime, place)).map_err(|error| {
        let remedy = "raise the limit of processes (ulimit -u, TasksMax)";
        Refusal::SnapshotFailed(format!("cannot start a thread for the backup: {error}; {remedy}"))
    })?;
    let mut response = (index, [(CONTENT_TYPE, "application/octet-stream")], Body::new(pieces)).into_response();
    response.extensions_mut().insert(Endless(|_| None));
    Ok(response)
}

/// Reads all pieces, on a thread that may block.
fn read(export: Export, to: &mpsc::Sender<io::Result<Bytes>>, runtime: &Handle, _place: OwnedSemaphorePermit) {
    for piece in export {
        if let Err(error) = &piece {
            tracing::warn!("a backup was aborted: {error}");
        }
        // The client has closed the connection, or takes no bytes.
        if runtime.block_on(to.send_timeout(piece.map_err(io::Error::other), STALL_LIMIT)).is_err() {
            return;
        }
    }
}

/// The file's bytes as they are read.
struct Pieces {
    arriving: mpsc::Receiver<io::Result<Bytes>>,
    /// The number of bytes still to come.
    left: u64,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match ready!(self.arriving.poll_recv(cx)) {
            Some(Ok(piece)) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(error)) => Some(Err(error)),
            None if self.left > 0 => Some(Err(io::Error::other("the backup broke off"))),
            None => None,
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl From<BackupError> for Refusal {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::NoLeader => Self::NoLeader,
            BackupError::Behind(how) => Self::Behind(how.to_string()),
            BackupError::Overloaded { retry_after } => Self::Overloaded(retry_after),
            BackupError::Stopped => Self::Stopping,
            _ => Self::SnapshotFailed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_body_that_ends_early_is_an_error_and_a_whole_one_is_not() {
        for (left, is_whole) in [(6, true), (7, false)] {
            let (to, arriving) = mpsc::channel(PIECES_AHEAD);
            let pieces = Pieces { arriving, left };
            assert_eq!(pieces.size_hint().exact(), Some(left));
            for piece in [&b"one"[..], b"two"] {
                to.send(Ok(Bytes::from_static(piece))).await.expect("it is read");
            }
            drop(to);
            assert_eq!(pieces.collect().await.is_ok(), is_whole);
        }
    }
}
