//! Messages in postcard, as the log, the tables and snapshots have them.

use serde::{Deserialize, Serialize};
use std::any::type_name;

/// Appends a message.
///
/// # Panics
/// If its type has no form in postcard: a mistake of the author's, which the first message shows.
pub(super) fn append<T: Serialize>(message: &T, to: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(message, to)
        .unwrap_or_else(|error| panic!("{} has no form in postcard ({error}): see quorate::Message", type_name::<T>()))
}

/// Reads the message that is the whole of `bytes`; `None` if this release knows none like it.
pub(super) fn whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(message, _)| message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_must_be_used() {
        let bytes = append(&(300u16, "ab"), vec![]);
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
        append(&Endless, vec![]);
    }
}
