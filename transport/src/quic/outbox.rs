//! The outbox of a lane: frames that wait to be written.

use crate::codec::Encoded;
use bytes::Bytes;
use std::cell::RefCell;
use tokio::{sync::Notify, time::Instant};

/// A lane's queue has no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The frames that are written at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) frames: usize,
    pub(super) bytes: usize,
    /// When the first entries among them were queued.
    pub(super) entries_since: Option<Instant>,
}

/// The frames that wait to be written on one lane of one connection.
///
/// **Bound:** `bytes_max` bytes and [`Outbox::FRAMES_MAX`] frames, those being written included;
/// but an empty outbox takes any frame.
pub(super) struct Outbox {
    bytes_max: usize,
    waiting: RefCell<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    chunks: Vec<Bytes>,
    /// Frames and bytes in `chunks`, and in the batch that is being written.
    frames: usize,
    bytes: usize,
    /// When the first entries in `chunks` were queued.
    entries_since: Option<Instant>,
    /// Takes no more frames; those that wait are still written.
    finishing: bool,
    closed: bool,
}

impl Outbox {
    const FRAMES_MAX: usize = 8192;
    /// The most frames that wait when one is taken that gives way to all others.
    const SPARE_FRAMES_MAX: usize = 32;
    /// The same in bytes.
    const SPARE_BYTES_MAX: usize = 64 << 10;

    pub(super) fn of_bytes(bytes_max: usize) -> Self {
        Self { bytes_max, waiting: RefCell::default(), filled: Notify::new() }
    }

    pub(super) fn push(&self, frame: Encoded) -> Result<(), Full> {
        let mut waiting = self.waiting.borrow_mut();
        let fits = waiting.frames < Self::FRAMES_MAX && waiting.bytes + frame.len() <= self.bytes_max;
        if waiting.closed || waiting.finishing || !(fits || waiting.frames == 0) {
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

    /// Takes a frame with entries, of which the time until they are written is measured.
    pub(super) fn push_entries(&self, frame: Encoded) -> Result<(), Full> {
        self.push(frame)?;
        self.waiting.borrow_mut().entries_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Takes a frame that gives way to all others: only if hardly anything waits.
    pub(super) fn push_spare(&self, frame: Encoded) -> Result<(), Full> {
        let waiting = self.waiting.borrow();
        let (frames, bytes) = (waiting.frames, waiting.bytes);
        drop(waiting);
        if frames >= Self::SPARE_FRAMES_MAX || bytes >= Self::SPARE_BYTES_MAX {
            return Err(Full);
        }
        self.push(frame)
    }

    /// Waits until there is something to take; `false` once closed, or finished with nothing left.
    pub(super) async fn filled(&self) -> bool {
        loop {
            {
                let waiting = self.waiting.borrow();
                if waiting.closed || !waiting.chunks.is_empty() {
                    return !waiting.closed;
                }
                if waiting.finishing {
                    return false;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Waits for frames and moves all of them into `batch`, which is empty. `None` once closed, or
    /// finished with nothing left.
    pub(super) async fn take(&self, batch: &mut Vec<Bytes>) -> Option<Taken> {
        loop {
            {
                let mut waiting = self.waiting.borrow_mut();
                if waiting.closed {
                    return None;
                }
                if !waiting.chunks.is_empty() {
                    // Chunks of an earlier batch would be queued again, after those that follow them.
                    assert!(batch.is_empty(), "a batch of frames is taken while another is being written");
                    std::mem::swap(&mut waiting.chunks, batch);
                    let entries_since = waiting.entries_since.take();
                    return Some(Taken { frames: waiting.frames, bytes: waiting.bytes, entries_since });
                }
                if waiting.finishing {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Frames that were taken are written: they no longer count.
    pub(super) fn written(&self, Taken { frames, bytes, .. }: Taken) {
        let mut waiting = self.waiting.borrow_mut();
        debug_assert!(
            waiting.closed || frames <= waiting.frames && bytes <= waiting.bytes,
            "{frames} frames of {bytes} bytes are written, of {} frames of {} bytes that waited",
            waiting.frames,
            waiting.bytes
        );
        waiting.frames = waiting.frames.saturating_sub(frames); // 0 once closed
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        debug_assert!(
            waiting.closed || waiting.chunks.is_empty() == (waiting.frames == 0),
            "{} frames are counted, and {} chunks wait",
            waiting.frames,
            waiting.chunks.len()
        );
    }

    /// Takes no more frames. Those that wait are still taken and written.
    pub(super) fn finish(&self) {
        self.waiting.borrow_mut().finishing = true;
        self.filled.notify_one();
    }

    /// Closes the outbox and gives the number of frames that were not written.
    pub(super) fn close(&self) -> usize {
        let mut waiting = self.waiting.borrow_mut();
        waiting.closed = true;
        waiting.chunks = Vec::new();
        self.filled.notify_one();
        std::mem::take(&mut waiting.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BYTES_MAX: usize = 1 << 20;

    #[test]
    fn an_outbox_drops_what_exceeds_its_frames() {
        let outbox = Outbox::of_bytes(BYTES_MAX);
        let accepted = (0..Outbox::FRAMES_MAX * 2).filter(|_| outbox.push(frame(1)).is_ok()).count();
        assert_eq!(accepted, Outbox::FRAMES_MAX);
    }

    #[test]
    fn an_outbox_drops_what_exceeds_its_bytes_but_an_empty_one_takes_any_frame() {
        let outbox = Outbox::of_bytes(BYTES_MAX);
        assert_eq!(outbox.push(frame(BYTES_MAX + 1)), Ok(()));
        assert_eq!(outbox.push(frame(1)), Err(Full));
    }

    #[tokio::test]
    async fn bytes_being_written_count_until_they_are_written() {
        let outbox = Outbox::of_bytes(BYTES_MAX);
        outbox.push(frame(BYTES_MAX)).expect("it is empty");
        let mut batch = Vec::new();
        let taken = outbox.take(&mut batch).await.expect("it is open");
        assert_eq!(outbox.push(frame(1)), Err(Full));
        outbox.written(taken);
        assert_eq!(outbox.push(frame(1)), Ok(()));
    }

    #[tokio::test]
    async fn a_finished_outbox_takes_no_more_and_ends_with_what_waits() {
        let outbox = Outbox::of_bytes(BYTES_MAX);
        outbox.push(frame(2)).expect("it is open");
        outbox.finish();
        assert_eq!(outbox.push(frame(1)), Err(Full));
        assert!(outbox.filled().await);
        let mut batch = Vec::new();
        let taken = outbox.take(&mut batch).await.expect("it has a frame");
        outbox.written(taken);
        batch.clear();
        assert_eq!(outbox.take(&mut batch).await, None);
        assert!(!outbox.filled().await);
        assert_eq!(outbox.close(), 0, "nothing is lost");
    }

    #[tokio::test]
    async fn a_frame_that_gives_way_is_taken_only_while_hardly_anything_waits() {
        let outbox = Outbox::of_bytes(BYTES_MAX);
        let accepted = (0..Outbox::FRAMES_MAX).filter(|_| outbox.push_spare(frame(1)).is_ok()).count();
        assert_eq!(accepted, Outbox::SPARE_FRAMES_MAX);
        assert_eq!(outbox.push(frame(1)), Ok(()), "others still find room");
        let mut batch = Vec::new();
        let taken = outbox.take(&mut batch).await.expect("it is open");
        outbox.written(taken);
        outbox.push(frame(Outbox::SPARE_BYTES_MAX)).expect("it is empty");
        assert_eq!(outbox.push_spare(frame(1)), Err(Full));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_entries_of_a_write_have_the_time_since_they_were_queued() {
        let (outbox, start, mut batch) = (Outbox::of_bytes(BYTES_MAX), Instant::now(), Vec::new());
        outbox.push(frame(1)).expect("it is open");
        for _ in 0..2 {
            tokio::time::advance(Duration::from_millis(2)).await;
            outbox.push_entries(frame(1)).expect("it is open");
        }
        let taken = outbox.take(&mut batch).await.expect("it is open");
        assert_eq!(taken, Taken { frames: 3, bytes: 3, entries_since: Some(start + Duration::from_millis(2)) });
        // Entries that are queued while those are written wait for the next write.
        outbox.push_entries(frame(1)).expect("it is open");
        outbox.written(taken);
        batch.clear();
        let taken = outbox.take(&mut batch).await.expect("it is open");
        assert_eq!(taken.entries_since, Some(start + Duration::from_millis(4)));
        outbox.written(taken);
        batch.clear();
        outbox.push(frame(1)).expect("it is open");
        assert_eq!(outbox.take(&mut batch).await.expect("it is open").entries_since, None, "an answer");
    }

    fn frame(bytes: usize) -> Encoded {
        Encoded { head: Bytes::from(vec![0; bytes]), body: Bytes::new() }
    }
}
