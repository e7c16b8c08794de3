//! The real codec, for whole frames in memory.

use bytes::{Bytes, BytesMut};
use quorate_raft::Message;
use quorate_transport::{
    codec::{Decoder, Encoder, Frame, Limits},
    network::Lane,
};

/// The frame of a message; `None` if the codec refuses it.
pub(super) fn encoded(message: &Message) -> Option<Bytes> {
    let frame = Encoder::default().message(message).ok()?;
    let mut joined = BytesMut::with_capacity(frame.len());
    joined.extend_from_slice(&frame.head);
    joined.extend_from_slice(&frame.body);
    Some(joined.freeze())
}

/// The message of a buffer that should hold exactly one frame.
pub(super) fn decode(mut frame: Bytes) -> Option<Message> {
    match Decoder::new(Limits::default()).feed(&mut frame) {
        Ok(Some(decoded)) if frame.is_empty() => match decoded.frame {
            Frame::Message(message) => Some(message),
            Frame::Hello(_) => None,
        },
        _ => None,
    }
}

/// The number of the lane that a message takes.
pub(super) fn lane_of(message: &Message) -> u8 {
    match Lane::of(message) {
        Lane::Control => 0,
        Lane::Append => 1,
        Lane::Snapshot => 2,
    }
}
