//! The decoder: frames out of the pieces in which a stream arrives.

use super::{
    CHECKED_BYTES, FLAG_BODY_CHECKED, Frame, FrameError, HEADER_BYTES, Header, Hello, Kind, Limits, Version, version,
    wire::{self, Wire},
};
use bytes::{Bytes, BytesMut};
use quorate_raft::Message;

/// Decodes one direction of one stream, piece by piece.
///
/// **Bound:** it holds at most one frame, each part within its limit. A part's length is checked
/// before anything is allocated for it.
///
/// A body that lies whole in a piece is sliced out of it, unless it is less than half of the piece:
/// then it is copied, so that other bytes are not kept in memory with it. A body in several pieces
/// is collected in a buffer of its exact size.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    version: Version,
    state: State,
}

/// A decoded frame.
#[derive(Debug)]
pub struct Decoded {
    /// The frame, whole, its checksum verified.
    pub frame: Frame,
    /// Its bytes on the wire.
    pub bytes: usize,
}

enum State {
    /// Header and metadata are being collected; `header` is there once its bytes are.
    Head { bytes: BytesMut, header: Option<Header> },
    /// The body is being collected.
    Body { opened: Opened, bytes: BytesMut },
    /// After an error. Final.
    Failed,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Head { bytes, header } => write!(f, "Head({} B of {header:?})", bytes.len()),
            Self::Body { opened, bytes } => write!(f, "Body({} B of {opened:?})", bytes.len()),
            Self::Failed => f.write_str("Failed"),
        }
    }
}

/// A frame with its head read and its body outstanding.
#[derive(Debug)]
struct Opened {
    header: Header,
    frame: Frame,
    checksum: u32,
}

impl Decoder {
    /// A decoder at the start of a stream. Messages must be of [`Version::CURRENT`] until
    /// [`Decoder::expect`] is called.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, version: Version::CURRENT, state: State::start() }
    }

    /// From the next frame on, messages must be of this version: the one that was agreed on.
    pub fn expect(&mut self, version: Version) {
        self.version = version;
    }

    /// Takes bytes from the front of `piece` until a frame is whole or `piece` is empty. Call it
    /// again with the rest until it returns `None`.
    ///
    /// # Errors
    /// If the bytes are no frame. Every later call fails, too.
    pub fn feed(&mut self, piece: &mut Bytes) -> Result<Option<Decoded>, FrameError> {
        // Left as failed unless the step gets through.
        let state = std::mem::replace(&mut self.state, State::Failed);
        let (state, decoded) = self.step(state, piece)?;
        // The caller takes the next piece when there is no frame: bytes left in this one would be lost.
        assert!(decoded.is_some() || piece.is_empty(), "{} bytes of a piece belong to no frame", piece.len());
        self.state = state;
        Ok(decoded)
    }

    /// Whether a frame is begun and not complete.
    #[must_use]
    pub fn is_within_frame(&self) -> bool {
        !matches!(&self.state, State::Head { bytes, .. } if bytes.is_empty())
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] if it ended within a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.is_within_frame() { Err(FrameError::Truncated) } else { Ok(()) }
    }

    fn step(&self, state: State, piece: &mut Bytes) -> Result<(State, Option<Decoded>), FrameError> {
        let (opened, collected) = match state {
            State::Failed => return Err(FrameError::Unexpected("bytes after a malformed frame")),
            State::Body { opened, bytes } => (opened, bytes),
            State::Head { bytes, header } => match self.head(bytes, header, piece)? {
                Ok(opened) => (opened, BytesMut::new()),
                Err(unfinished) => return Ok((unfinished, None)),
            },
        };
        debug_assert_eq!(opened.header.check(self.limits), Ok(()), "room is made for a length above its limit");
        body(opened, collected, piece)
    }

    /// Collects header and metadata; the inner error is the state to go on from with
    /// the next piece.
    fn head(
        &self,
        mut bytes: BytesMut,
        mut header: Option<Header>,
        piece: &mut Bytes,
    ) -> Result<Result<Opened, State>, FrameError> {
        if bytes.is_empty() {
            // The usual case: all of it lies in one piece.
            if let Some(first) = piece.first_chunk::<HEADER_BYTES>() {
                let read = Header::read(first, self.version, self.limits)?;
                let length = HEADER_BYTES + read.metadata_bytes;
                if piece.len() >= length {
                    return open(read, &piece.split_to(length)).map(Ok);
                }
            }
        }
        loop {
            let length = header.map_or(HEADER_BYTES, |header| HEADER_BYTES + header.metadata_bytes);
            assert!(bytes.len() <= length, "{} bytes are taken as a frame's head of {length}", bytes.len());
            let missing = length - bytes.len();
            bytes.extend_from_slice(&piece.split_to(missing.min(piece.len())));
            if bytes.len() < length {
                return Ok(Err(State::Head { bytes, header }));
            }
            match (header, bytes.first_chunk::<HEADER_BYTES>()) {
                (None, Some(first)) => header = Some(Header::read(first, self.version, self.limits)?),
                (Some(header), _) => return open(header, &bytes).map(Ok),
                (None, None) => return Ok(Err(State::Head { bytes, header })),
            }
        }
    }
}

impl State {
    fn start() -> Self {
        Self::Head { bytes: BytesMut::new(), header: None }
    }
}

/// Verifies and reads the metadata. If the checksum covers the body, too, it is verified once the
/// body is there.
fn open(header: Header, head: &[u8]) -> Result<Opened, FrameError> {
    let metadata = &head[HEADER_BYTES..];
    assert_eq!(metadata.len(), header.metadata_bytes, "the bytes taken as a frame's metadata");
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[..CHECKED_BYTES]), metadata);
    if header.flags & FLAG_BODY_CHECKED == 0 && checksum != header.checksum {
        return Err(FrameError::Checksum);
    }
    let frame = match header.kind {
        Kind::Hello => wire::decode(metadata, Hello::read).map(|(hello, rest)| (Frame::Hello(hello), rest)),
        Kind::Message => version::read(header.version, metadata).map(|(message, rest)| (Frame::Message(message), rest)),
    };
    let (frame, rest) = frame.map_err(|_| FrameError::Metadata)?;
    if !rest.is_empty() {
        return Err(FrameError::Trailing(rest.len(), "metadata"));
    }
    Ok(Opened { header, frame, checksum })
}

fn body(opened: Opened, mut collected: BytesMut, piece: &mut Bytes) -> Result<(State, Option<Decoded>), FrameError> {
    let length = opened.header.body_bytes;
    if collected.is_empty() && piece.len() >= length {
        let mostly_body = length >= piece.len() / 2;
        let slice = piece.split_to(length);
        let body = if mostly_body { slice } else { Bytes::copy_from_slice(&slice) };
        return close(opened, body);
    }
    if collected.capacity() < length {
        // Once a frame: the first piece finds it empty.
        collected = BytesMut::with_capacity(length);
    }
    collected.extend_from_slice(&piece.split_to((length - collected.len()).min(piece.len())));
    if collected.len() < length {
        return Ok((State::Body { opened, bytes: collected }, None));
    }
    close(opened, collected.freeze())
}

fn close(opened: Opened, body: Bytes) -> Result<(State, Option<Decoded>), FrameError> {
    let Opened { header, mut frame, checksum } = opened;
    assert_eq!(body.len(), header.body_bytes, "the bytes taken as a frame's body");
    if header.flags & FLAG_BODY_CHECKED != 0 && crc32c::crc32c_append(checksum, &body) != header.checksum {
        return Err(FrameError::Checksum);
    }
    let bytes = HEADER_BYTES + header.metadata_bytes + body.len();
    if let Frame::Message(message) = &mut frame {
        let bare = header.flags & FLAG_BODY_CHECKED == 0;
        set_bulk(message, body, bare)?;
    }
    Ok((State::start(), Some(Decoded { frame, bytes })))
}

fn set_bulk(message: &mut Message, body: Bytes, bare: bool) -> Result<(), FrameError> {
    // Only log records may travel without the frame's checksum: they have their own.
    if bare && !body.is_empty() && !matches!(message.body, quorate_raft::Body::Append(_)) {
        return Err(FrameError::Checksum);
    }
    message.set_bulk(body, crc32c::crc32c_append).map_err(FrameError::Body)
}
