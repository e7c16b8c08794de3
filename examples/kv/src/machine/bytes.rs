//! Keys and values as they stand in commands and in the map: shared, and copied once, from the
//! entry of the log.

use super::KEY_BYTES_MAX;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, ops::Deref, sync::Arc};

/// A key: text of at most [`KEY_BYTES_MAX`] bytes in every command that can be read, so that it is
/// also the topic of its events.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// A value: any bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(pub Arc<[u8]>);

impl Key {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(super) fn into_bytes(self) -> Arc<[u8]> {
        self.0.into()
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a key of at most {KEY_BYTES_MAX} bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
                if text.len() > KEY_BYTES_MAX {
                    return Err(E::invalid_length(text.len(), &self));
                }
                Ok(Key(text.into()))
            }
        }

        from.deserialize_str(Visitor)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
                Ok(Value(bytes.into()))
            }
        }

        from.deserialize_bytes(Visitor)
    }
}

impl<T: Into<Arc<str>>> From<T> for Key {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(bytes: &[u8; N]) -> Self {
        Self(bytes[..].into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} B)", self.0.len())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({} B)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Command, Kv};
    use quorate::{At, Hosted, Refused, StateMachine};

    #[test]
    fn a_command_with_a_key_that_is_too_long_or_no_text_is_refused_and_changes_nothing() {
        let mut kv = Hosted::new(Kv::default);
        let mut apply = |bytes: &[u8]| {
            let outcome = kv.apply(&At::default(), bytes);
            (Hosted::<Kv>::decode(&outcome).expect("an outcome"), kv.service().len())
        };
        let put =
            |bytes: usize| Command::Put { key: Key::from(&*"k".repeat(bytes)), value: Value::from(b"v"), ttl_ms: None };
        let refused = (Err(Refused::Unreadable), 0);
        assert_eq!(apply(&Hosted::<Kv>::encode(&put(KEY_BYTES_MAX + 1))), refused);
        let mut no_text = Hosted::<Kv>::encode(&put(1)).to_vec();
        no_text[4] = 0xff;
        assert_eq!(apply(&no_text), refused);
        assert_eq!(apply(&Hosted::<Kv>::encode(&put(KEY_BYTES_MAX))).1, 1);
    }
}
