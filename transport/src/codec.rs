//! Frames: the layout of messages on the wire.
//!
//! Owns the layout below and its limits. Never opens a socket, and never allocates for a
//! length that was not compared with its limit. The networks use it: QUIC over streams, memory
//! over single buffers.
//!
//! A frame, little-endian:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic: the bytes `QRTE` |
//! | 4 | 1 | version: the one that the connection's hellos agree upon; in a hello always 2 |
//! | 5 | 1 | kind: 1 [`Hello`], 2 message |
//! | 6 | 2 | flags: bit 0, the checksum covers the body too; others are refused |
//! | 8 | 4 | group (0) |
//! | 12 | 4 | metadata length in bytes, `M` |
//! | 16 | 4 | body length in bytes, `B` |
//! | 20 | 4 | CRC-32C of bytes 0..20, the metadata and, with flag bit 0, the body |
//! | 24 | `M` | metadata: the hello, or the message without its bulk; see `codec/wire.rs` |
//! | 24 + `M` | `B` | body: the message's bulk, raw |
//!
//! A body of log records has a checksum in every record, which is verified when the records are
//! parsed; it is neither copied nor read when it is sent. Any other body is covered by the frame's
//! own checksum: flag bit 0.
//!
//! **Invariant:** a frame with a damaged bit between [`Encoder`] and [`Decoder`] is refused: by its
//! checksum, or by those of its records.

mod decoder;
mod version;
mod wire;

pub use decoder::{Decoded, Decoder};
pub(crate) use version::Claimed;
pub use version::{Version, Versions};

use crate::network::Introduction;
use bytes::{BufMut, Bytes, BytesMut};
use quorate_raft::{Body, Malformed, Message, NodeId};
use wire::Wire;

/// The first bytes of every frame.
pub const MAGIC: [u8; 4] = *b"QRTE";
/// Bytes before a frame's metadata.
pub const HEADER_BYTES: usize = 24;
/// Flag bit 0: the checksum covers the body too.
pub const FLAG_BODY_CHECKED: u16 = 1;

/// The content of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame in each direction of a stream.
    Hello(Hello),
    /// Any later frame.
    Message(Message),
}

/// The first frame in each direction: the sender's identity, versions and facts. It proves nothing;
/// the network compares it with the identity that the certificate proves. It is read before a
/// version is agreed on, so its form has a version of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster the sender belongs to.
    pub cluster: String,
    /// The sender's id, as claimed.
    pub node: NodeId,
    /// The oldest frame version that the sender speaks.
    pub protocol_min: u8,
    /// The newest frame version that the sender speaks.
    pub protocol_max: u8,
    /// The facts that the sender states about itself.
    pub introduction: Introduction,
}

impl Hello {
    /// The most bytes of a hello's metadata.
    pub const BYTES_MAX: usize = 16 << 10;
}

/// The longest frames that are read or written, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Metadata. Default: 1 MiB, room for some 100,000 forwarded commands in a message.
    pub metadata_bytes_max: usize,
    /// Body. Default: 32 MiB, several times what a batch of entries is cut to.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { metadata_bytes_max: 1 << 20, body_bytes_max: 32 << 20 }
    }
}

/// A frame, ready to be written: `head`, then `body`.
#[derive(Clone)]
pub struct Encoded {
    /// Header and metadata.
    pub head: Bytes,
    /// The body, shared with the message that it came from. Often empty.
    pub body: Bytes,
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoded")
            .field("head", &format_args!("{} B", self.head.len()))
            .field("body", &format_args!("{} B", self.body.len()))
            .finish()
    }
}

impl Encoded {
    /// Bytes of the whole frame.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Always `false`: a frame has a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Encodes hellos and messages as frames of one version, within limits.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    limits: Limits,
    version: Version,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Encoder {
    /// An encoder of [`Version::CURRENT`] that refuses frames which a peer with the same
    /// limits would refuse.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, version: Version::CURRENT }
    }

    /// The same encoder for the version that was agreed on.
    #[must_use]
    pub fn speaking(self, version: Version) -> Self {
        Self { version, ..self }
    }

    /// A message as a frame. Its bulk is shared, not copied.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] if it exceeds the limits; [`FrameError::Metadata`] if it has no form
    /// on the wire.
    pub fn message(&self, message: &Message) -> Result<Encoded, FrameError> {
        let body = message.bulk();
        let records = matches!(message.body, Body::Append(_));
        let flags = if records || body.is_empty() { 0 } else { FLAG_BODY_CHECKED };
        let metadata = |head| version::write(self.version, message, head);
        self.frame(Kind::Message, self.version, flags, metadata, body)
    }

    /// A hello as a frame.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] if it exceeds the limits.
    pub fn hello(&self, hello: &Hello) -> Result<Encoded, FrameError> {
        let metadata = |head| wire::encode(head, |to| hello.write(to));
        self.frame(Kind::Hello, Version::OF_HELLO, 0, metadata, Bytes::new())
    }

    fn frame(
        &self,
        kind: Kind,
        version: Version,
        flags: u16,
        metadata: impl FnOnce(Growing) -> postcard::Result<BytesMut>,
        body: Bytes,
    ) -> Result<Encoded, FrameError> {
        // Most metadata takes 10 to 30 bytes.
        let mut head = BytesMut::with_capacity(HEADER_BYTES + 64);
        head.put_bytes(0, HEADER_BYTES);
        let mut head = metadata(Growing(head)).map_err(|_| FrameError::Metadata)?;
        let header = Header {
            kind,
            version,
            flags,
            metadata_bytes: head.len() - HEADER_BYTES,
            body_bytes: body.len(),
            checksum: 0, // known once the rest is laid out
        };
        header.check(self.limits)?;
        header.write(&mut head);
        let mut checksum = crc32c::crc32c(&head[..CHECKED_BYTES]);
        checksum = crc32c::crc32c_append(checksum, &head[HEADER_BYTES..]);
        if flags & FLAG_BODY_CHECKED != 0 {
            checksum = crc32c::crc32c_append(checksum, &body);
        }
        head[CHECKED_BYTES..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        Ok(Encoded { head: head.freeze(), body })
    }
}

/// Errors of encoding and decoding. After one, a stream is of no use: the next frame's
/// beginning is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The magic bytes are missing.
    #[error("not a frame: it begins with {0:02x?} instead of the magic bytes")]
    Magic([u8; 4]),
    /// A frame of another version than the one that was agreed on.
    #[error("frame of version {found}, where {spoken} was agreed upon")]
    Version {
        /// The version in its header.
        found: u8,
        /// The version that was agreed on.
        spoken: u8,
    },
    /// A hello of a form that this release does not read.
    #[error("hello of form {found}, this release reads form {spoken}: run the same release on both nodes")]
    HelloForm {
        /// The form that its header states.
        found: u8,
        /// The form that this release writes and reads.
        spoken: u8,
    },
    /// A kind that this version does not have.
    #[error("frame kind {0} is unknown")]
    Kind(u8),
    /// A flag that this version does not have.
    #[error("frame flags {0:#06x} are unknown")]
    Flags(u16),
    /// Groups do not exist yet.
    #[error("frame of group {0}, but only group 0 exists")]
    Group(u32),
    /// A length above its limit.
    #[error("frame {part} of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLong {
        /// The part: `metadata` or `body`.
        part: &'static str,
        /// The length that the header states.
        bytes: usize,
        /// The limit that it exceeds.
        bytes_max: usize,
    },
    /// A damaged frame.
    #[error("frame checksum does not match")]
    Checksum,
    /// The metadata has no form of the frame's kind: malformed when read, without a
    /// form when written.
    #[error("frame metadata can't be read")]
    Metadata,
    /// The metadata or the frame is longer than its content.
    #[error("{0} bytes follow the frame's {1}")]
    Trailing(usize, &'static str),
    /// The body does not fit the message.
    #[error("frame body: {0}")]
    Body(#[source] Malformed),
    /// The bytes ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// A frame out of order: a hello comes first. Or the end of a lane, or a message on
    /// the wrong one.
    #[error("unexpected {0}")]
    Unexpected(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hello = 1,
    Message = 2,
}

/// Bytes of the header that its checksum covers.
const CHECKED_BYTES: usize = 20;

#[derive(Clone, Copy, Debug)]
struct Header {
    kind: Kind,
    version: Version,
    flags: u16,
    metadata_bytes: usize,
    body_bytes: usize,
    checksum: u32,
}

impl Header {
    /// Reads a header and compares its lengths with the limits. A message must be of `version`, a
    /// hello of [`Version::OF_HELLO`].
    fn read(bytes: &[u8; HEADER_BYTES], version: Version, limits: Limits) -> Result<Self, FrameError> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let is_hello = bytes[5] == Kind::Hello as u8;
        let version = if is_hello { Version::OF_HELLO } else { version };
        let (found, spoken) = (bytes[4], version.number());
        if found != spoken {
            return Err(if is_hello {
                FrameError::HelloForm { found, spoken }
            } else {
                FrameError::Version { found, spoken }
            });
        }
        let kind = match bytes[5] {
            1 => Kind::Hello,
            2 => Kind::Message,
            unknown => return Err(FrameError::Kind(unknown)),
        };
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        if flags & !FLAG_BODY_CHECKED != 0 {
            return Err(FrameError::Flags(flags));
        }
        if u32_at(8) != 0 {
            return Err(FrameError::Group(u32_at(8)));
        }
        let header = Self {
            kind,
            version,
            flags,
            metadata_bytes: u32_at(12) as usize,
            body_bytes: u32_at(16) as usize,
            checksum: u32_at(20),
        };
        header.check(limits)?;
        Ok(header)
    }

    fn check(&self, limits: Limits) -> Result<(), FrameError> {
        let metadata_bytes_max = match self.kind {
            Kind::Hello => limits.metadata_bytes_max.min(Hello::BYTES_MAX),
            Kind::Message => limits.metadata_bytes_max.min(u32::MAX as usize),
        };
        let parts = [
            ("metadata", self.metadata_bytes, metadata_bytes_max),
            ("body", self.body_bytes, limits.body_bytes_max.min(u32::MAX as usize)),
        ];
        for (part, bytes, bytes_max) in parts {
            if bytes > bytes_max {
                return Err(FrameError::TooLong { part, bytes, bytes_max });
            }
        }
        if self.kind == Kind::Hello && self.body_bytes > 0 {
            return Err(FrameError::Trailing(self.body_bytes, "hello"));
        }
        Ok(())
    }

    /// Writes all but the checksum.
    fn write(&self, head: &mut [u8]) {
        let [metadata_bytes, body_bytes] = [self.metadata_bytes, self.body_bytes].map(u32::try_from);
        let (Ok(metadata_bytes), Ok(body_bytes)) = (metadata_bytes, body_bytes) else {
            unreachable!("a frame longer than its limits is written: {self:?}");
        };
        head[0..4].copy_from_slice(&MAGIC);
        head[4] = self.version.number();
        head[5] = self.kind as u8;
        head[6..8].copy_from_slice(&self.flags.to_le_bytes());
        head[12..16].copy_from_slice(&metadata_bytes.to_le_bytes());
        head[16..20].copy_from_slice(&body_bytes.to_le_bytes());
    }
}

/// Lets postcard append to the buffer that begins with the header.
struct Growing(BytesMut);

impl postcard::ser_flavors::Flavor for Growing {
    type Output = BytesMut;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<BytesMut> {
        Ok(self.0)
    }
}
