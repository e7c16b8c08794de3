//! Messages with flipped bits: the real codec must refuse them, so that they count as lost.

use quorate_raft::Message;
use quorate_transport::codec::{Decoder, Encoder, Limits};
use rand::{Rng, rngs::SmallRng};

/// Flips one bit of a message on the wire.
///
/// # Errors
/// If the decoder accepts the message.
pub(super) fn must_be_refused(message: &Message, random: &mut SmallRng) -> Result<(), String> {
    let encoded = Encoder::default().message(message).map_err(|error| format!("codec: {error} for {message:?}"))?;
    let mut bytes = [encoded.head, encoded.body].concat();
    let bit = random.random_range(0..bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    match Decoder::new(Limits::default()).feed(&mut bytes.into()) {
        // Refused, or incomplete: the receiver waits for more until the connection is given up.
        Err(_) | Ok(None) => Ok(()),
        Ok(Some(decoded)) => Err(format!("codec: bit {bit} of {message:?} flipped, and it was read as {decoded:?}")),
    }
}
