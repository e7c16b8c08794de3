//! Messages in postcard, as the log, the tables and snapshots have them.

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use std::any::type_name;

/// Appends a message.
///
/// # Panics
/// If its type has no form in postcard: a mistake of the author's, which the first message shows.
#[inline]
pub(super) fn append<T: Serialize>(message: &T, to: &mut Vec<u8>) {
    postcard::serialize_with_flavor(message, Appending(to))
        .unwrap_or_else(|error| panic!("{} has no form in postcard ({error}): see quorate::Message", type_name::<T>()));
}

/// The end of a buffer. Postcard's own flavors append byte by byte.
struct Appending<'a>(&'a mut Vec<u8>);

impl Flavor for Appending<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        match bytes {
            // Most numbers are one byte or two.
            [byte] => self.0.push(*byte),
            [one, other] => self.0.extend_from_slice(&[*one, *other]),
            bytes => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Reads the message that is the whole of `bytes`; `None` if this release knows none like it.
#[inline]
pub(super) fn whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(message, _)| message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_must_be_used() {
        let mut bytes = vec![];
        append(&(300u16, "ab"), &mut bytes);
        assert_eq!(whole(&bytes), Some((300u16, "ab")));
        (0..bytes.len()).for_each(|end| assert_eq!(whole::<(u16, &str)>(&bytes[..end]), None, "cut at {end}"));
        assert_eq!(whole::<(u16, &str)>(&[&bytes[..], &[0]].concat()), None, "a byte too many");
    }

    #[test]
    #[should_panic = "Endless has no form in postcard"]
    fn a_type_without_a_form_is_named() {
        struct Endless;
        impl Serialize for Endless {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                serde::ser::SerializeSeq::end(to.serialize_seq(None)?)
            }
        }
        append(&Endless, &mut vec![]);
    }
}
