//! A connection once both sides have introduced themselves: its lanes, and the tasks that write and read them.
//!
//! One writer task a lane: it sleeps until something is queued, then takes all that is there into one write. One reader
//! task a lane: it reads frames and delivers them, waiting for the inbox's credit; while it waits, QUIC's flow control
//! holds the peer back. One keeper task a connection: once a second it reports the round trip and looks for frames that
//! do not end.

use super::{
    endpoint::{Close, Shared, one_line},
    hello::Opened,
};
use crate::{
    codec::{Encoded, Frame, FrameError},
    network::{Direction, Lane},
};
use bytes::Bytes;
use quinn::{Connection, ReadError, RecvStream, SendStream};
use quorate_raft::NodeId;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};
use tokio::{sync::Notify, task::spawn_local, time::Instant};

/// A connection that carries frames both ways. It ends when the connection ends, and never before.
pub(super) struct Carrier {
    pub(super) connection: Connection,
    control: Rc<Outbox>,
    append: Rc<Outbox>,
}

impl Carrier {
    /// Starts the lanes' tasks. All of them end with the connection.
    pub(super) fn start(shared: &Rc<Shared>, peer: NodeId, connection: Connection, lanes: [Opened; 2]) -> Rc<Self> {
        let (control, append) = (Rc::new(Outbox::default()), Rc::new(Outbox::default()));
        let mut progress = Vec::new();
        for Opened { lane, send, recv, decoder, rest } in lanes {
            let outbox = Rc::clone(if lane == Lane::Control { &control } else { &append });
            spawn_local(write(Rc::clone(shared), peer, lane, send, outbox));
            let unfinished = Rc::new(Cell::new(None));
            progress.push(Rc::clone(&unfinished));
            let reader = Reader { shared: Rc::clone(shared), peer, lane, recv, decoder, unfinished };
            spawn_local(reader.run(connection.clone(), rest));
        }
        let carrier = Rc::new(Self { connection, control, append });
        spawn_local(keep(Rc::clone(shared), peer, Rc::clone(&carrier), progress));
        carrier
    }

    /// Queues a frame, unless too much waits already.
    pub(super) fn send(&self, lane: Lane, frame: Encoded) -> Result<(), Full> {
        match lane {
            Lane::Control => self.control.push(frame),
            Lane::Append | Lane::Snapshot => self.append.push(frame),
        }
    }

    /// Closes the connection; its tasks end.
    pub(super) fn close(&self, why: Close) {
        self.connection.close(why.code(), b"");
    }
}

/// A lane's queue has no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What waits to be written on one lane of one connection.
///
/// **Bound:** [`Outbox::BYTES_MAX`] and [`Outbox::FRAMES_MAX`], what is being written included; but a frame that finds it
/// empty always fits.
#[derive(Default)]
struct Outbox {
    waiting: RefCell<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    chunks: Vec<Bytes>,
    /// Frames and bytes in `chunks`, and in the batch that is being written.
    frames: usize,
    bytes: usize,
    closed: bool,
}

impl Outbox {
    const BYTES_MAX: usize = 32 << 20;
    const FRAMES_MAX: usize = 8192;

    fn push(&self, frame: Encoded) -> Result<(), Full> {
        let mut waiting = self.waiting.borrow_mut();
        let fits = waiting.frames < Self::FRAMES_MAX && waiting.bytes + frame.len() <= Self::BYTES_MAX;
        if waiting.closed || !(fits || waiting.frames == 0) {
            return Err(Full);
        }
        waiting.frames += 1;
        waiting.bytes += frame.len();
        waiting.chunks.push(frame.head);
        if !frame.body.is_empty() {
            waiting.chunks.push(frame.body);
        }
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for frames and takes all there are into `batch`, which is empty. Says how many frames and bytes that was;
    /// `None` once closed.
    async fn take(&self, batch: &mut Vec<Bytes>) -> Option<(usize, usize)> {
        loop {
            {
                let mut waiting = self.waiting.borrow_mut();
                if waiting.closed {
                    return None;
                }
                if !waiting.chunks.is_empty() {
                    std::mem::swap(&mut waiting.chunks, batch);
                    return Some((waiting.frames, waiting.bytes));
                }
            }
            self.filled.notified().await;
        }
    }

    /// What was taken has been written.
    fn written(&self, frames: usize, bytes: usize) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.frames = waiting.frames.saturating_sub(frames); // 0 once closed
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
    }

    /// Says how many frames were still waiting.
    fn close(&self) -> usize {
        let mut waiting = self.waiting.borrow_mut();
        waiting.closed = true;
        waiting.chunks = Vec::new();
        self.filled.notify_one();
        std::mem::take(&mut waiting.frames)
    }
}

async fn write(shared: Rc<Shared>, peer: NodeId, lane: Lane, mut stream: SendStream, outbox: Rc<Outbox>) {
    let mut batch = Vec::new();
    while let Some((frames, bytes)) = outbox.take(&mut batch).await {
        if stream.write_all_chunks(&mut batch).await.is_err() {
            // The connection is lost, or the peer stopped reading the lane; either way the reader or keeper ends it.
            return;
        }
        batch.clear();
        outbox.written(frames, bytes);
        shared.observer.bytes(peer, Direction::Sent, lane, bytes as u64);
    }
}

struct Reader {
    shared: Rc<Shared>,
    peer: NodeId,
    lane: Lane,
    recv: RecvStream,
    decoder: crate::codec::Decoder,
    /// Since when a frame is begun and not ended; the keeper looks at it.
    unfinished: Rc<Cell<Option<Instant>>>,
}

impl Reader {
    /// How many pieces of a stream are taken at a time; each is at most a datagram long.
    const PIECES: usize = 32;

    async fn run(mut self, connection: Connection, rest: Bytes) {
        if let Err(error) = self.read(rest).await {
            let why = error.to_string();
            self.shared.offended(self.peer, &why);
            connection.close(Close::Malformed.code(), why.as_bytes());
        }
    }

    /// Reads until the connection ends (well), or the peer sends what it must not (an error).
    async fn read(&mut self, rest: Bytes) -> Result<(), FrameError> {
        self.deliver(rest).await?;
        let mut pieces: [Bytes; Self::PIECES] = std::array::from_fn(|_| Bytes::new());
        loop {
            match self.recv.read_chunks(&mut pieces).await {
                Ok(Some(count)) => {
                    for piece in &mut pieces[..count] {
                        self.deliver(std::mem::take(piece)).await?;
                    }
                }
                Ok(None) | Err(ReadError::Reset(_)) => {
                    self.decoder.finish()?;
                    return Err(FrameError::Unexpected("end of a lane"));
                }
                Err(_) => return Ok(()),
            }
        }
    }

    async fn deliver(&mut self, mut piece: Bytes) -> Result<(), FrameError> {
        while let Some(decoded) = self.decoder.feed(&mut piece)? {
            let Frame::Message(message) = decoded.frame else {
                return Err(FrameError::Unexpected("second hello"));
            };
            self.unfinished.set(None);
            self.shared.observer.bytes(self.peer, Direction::Received, self.lane, decoded.bytes as u64);
            self.shared.inbox.deliver(self.peer, message, decoded.bytes).await;
        }
        if self.decoder.is_within_frame() && self.unfinished.get().is_none() {
            self.unfinished.set(Some(Instant::now()));
        }
        Ok(())
    }
}

/// Looks after a connection until it ends, then empties its queues.
async fn keep(shared: Rc<Shared>, peer: NodeId, carrier: Rc<Carrier>, progress: Vec<Rc<Cell<Option<Instant>>>>) {
    let every = Duration::from_secs(1).min(shared.frame_timeout / 2).max(Duration::from_millis(1));
    let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            ended = carrier.connection.closed() => {
                tracing::debug!(peer = peer.0, "connection ended: {}", one_line(&ended.to_string()));
                break;
            }
            _ = ticks.tick() => {
                shared.observer.round_trip(peer, carrier.connection.rtt());
                let stalled = |since: Instant| since.elapsed() > shared.frame_timeout;
                if progress.iter().filter_map(|unfinished| unfinished.get()).any(stalled) {
                    shared.offended(peer, "a frame was begun and not ended in time");
                    carrier.close(Close::Stalled);
                }
            }
        }
    }
    for _ in 0..carrier.control.close() + carrier.append.close() {
        shared.observer.dropped(Some(peer), "connection_lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_drops_what_exceeds_its_frames() {
        let outbox = Outbox::default();
        let accepted = (0..Outbox::FRAMES_MAX * 2).filter(|_| outbox.push(frame(1)).is_ok()).count();
        assert_eq!(accepted, Outbox::FRAMES_MAX);
    }

    #[test]
    fn an_outbox_drops_what_exceeds_its_bytes_but_an_empty_one_takes_any_frame() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(frame(Outbox::BYTES_MAX + 1)), Ok(()));
        assert_eq!(outbox.push(frame(1)), Err(Full));
    }

    #[tokio::test]
    async fn what_is_being_written_counts_until_it_is_written() {
        let outbox = Outbox::default();
        outbox.push(frame(Outbox::BYTES_MAX)).expect("it is empty");
        let mut batch = Vec::new();
        let (frames, bytes) = outbox.take(&mut batch).await.expect("it is open");
        assert_eq!(outbox.push(frame(1)), Err(Full));
        outbox.written(frames, bytes);
        assert_eq!(outbox.push(frame(1)), Ok(()));
    }

    fn frame(bytes: usize) -> Encoded {
        Encoded { head: Bytes::from(vec![0; bytes]), body: Bytes::new() }
    }
}
