//! Wire forms: the order of fields and the numbers of variants in a frame's metadata.
//!
//! A form is stated here for each type that is sent, apart from the rules' types: reordering or
//! extending those changes no byte. A form names every field with its type and every variant with
//! its number, so a field or a variant that the rules add, rename or retype does not compile until
//! it has a form. There is no second set of values to convert to: a message is written from where
//! it lies and read into its final place, in one pass and without a copy.
//!
//! Integers, strings and booleans are postcard's: an integer above a byte is a varint (LEB128), a
//! string its length and UTF-8. A struct is its fields in the stated order. An enum is the
//! variant's number, as a varint, and its fields. An option is 0, or 1 and the value; a list or a
//! map is its length and its items. `tests/wire_bytes.rs` has the expected bytes of every form.
//!
//! Not here: frames, checksums, and the bulk of a message, which travels raw after the metadata.

mod hello;
mod members;
mod messages;

use super::Growing;
use bytes::BytesMut;
use postcard::{Error, Result, de_flavors::Slice, ser_flavors::Flavor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Appends forms to a frame's head.
pub(super) type Writer = postcard::Serializer<Growing>;
/// Takes forms off the front of a frame's metadata.
pub(super) type Reader<'a> = postcard::Deserializer<'a, Slice<'a>>;

/// The most items for which room is made before they are read: a peer's word for a length is
/// worth no more.
const ITEMS_EXPECTED_MAX: u64 = 1024;

/// A type with a form on the wire.
pub(super) trait Wire: Sized {
    /// Appends the form.
    ///
    /// # Errors
    /// If the value has no form.
    fn write(&self, to: &mut Writer) -> Result<()>;

    /// Takes the form off the front.
    ///
    /// # Errors
    /// If the bytes are no form of this type.
    fn read(from: &mut Reader<'_>) -> Result<Self>;
}

/// Appends the forms that `write` writes to a frame's head.
pub(super) fn encode(head: Growing, write: impl FnOnce(&mut Writer) -> Result<()>) -> Result<BytesMut> {
    let mut writer = Writer { output: head };
    write(&mut writer)?;
    writer.output.finalize()
}

/// Reads with `read` from the front of the metadata; the bytes that it leaves are the second part.
pub(super) fn decode<T>(metadata: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Result<T>) -> Result<(T, &[u8])> {
    let mut reader = Reader::from_bytes(metadata);
    let value = read(&mut reader)?;
    Ok((value, reader.finalize()?))
}

/// States the form of a struct: its fields, in order. Fields after `body` are not written, and are
/// empty when read.
macro_rules! wire_struct {
    ($name:ident { $($field:ident: $type:ty),* $(,)? } $(, body $bulk:ident)?) => {
        impl $crate::codec::wire::Wire for $name {
            fn write(&self, to: &mut $crate::codec::wire::Writer) -> postcard::Result<()> {
                let Self { $($field,)* $($bulk: _,)? } = self;
                $(<$type as $crate::codec::wire::Wire>::write($field, to)?;)*
                Ok(())
            }

            fn read(from: &mut $crate::codec::wire::Reader<'_>) -> postcard::Result<Self> {
                $(let $field = <$type as $crate::codec::wire::Wire>::read(from)?;)*
                Ok(Self { $($field,)* $($bulk: Default::default(),)? })
            }
        }
    };
}

/// States the form of an enum: the number of each variant, and its fields in order.
macro_rules! wire_enum {
    ($name:ident { $(
        $number:literal => $variant:ident
            $({ $($field:ident: $type:ty),* })?
            $(($($item:ident: $item_type:ty),*))?,
    )* }) => {
        impl $crate::codec::wire::Wire for $name {
            fn write(&self, to: &mut $crate::codec::wire::Writer) -> postcard::Result<()> {
                match self {
                    $(Self::$variant $({ $($field),* })? $(($($item),*))? => {
                        u32::write(&$number, to)?;
                        $($(<$type as $crate::codec::wire::Wire>::write($field, to)?;)*)?
                        $($(<$item_type as $crate::codec::wire::Wire>::write($item, to)?;)*)?
                    })*
                }
                Ok(())
            }

            fn read(from: &mut $crate::codec::wire::Reader<'_>) -> postcard::Result<Self> {
                Ok(match u32::read(from)? {
                    $($number => {
                        $($(let $field = <$type as $crate::codec::wire::Wire>::read(from)?;)*)?
                        $($(let $item = <$item_type as $crate::codec::wire::Wire>::read(from)?;)*)?
                        Self::$variant $({ $($field),* })? $(($($item),*))?
                    })*
                    _ => return Err(postcard::Error::DeserializeBadEnum),
                })
            }
        }
    };
}

/// States that a type is the number in it.
macro_rules! wire_number {
    ($($name:ident($number:ty)),* $(,)?) => {$(
        impl $crate::codec::wire::Wire for $name {
            fn write(&self, to: &mut $crate::codec::wire::Writer) -> postcard::Result<()> {
                <$number as $crate::codec::wire::Wire>::write(&self.0, to)
            }

            fn read(from: &mut $crate::codec::wire::Reader<'_>) -> postcard::Result<Self> {
                <$number as $crate::codec::wire::Wire>::read(from).map(Self)
            }
        }
    )*};
}

use {wire_enum, wire_number, wire_struct};

macro_rules! of_postcard {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn write(&self, to: &mut Writer) -> Result<()> {
                self.serialize(to)
            }

            fn read(from: &mut Reader<'_>) -> Result<Self> {
                Self::deserialize(from)
            }
        }
    )*};
}

of_postcard!(bool, u8, u32, u64, u128, String);

impl<T: Wire> Wire for Option<T> {
    fn write(&self, to: &mut Writer) -> Result<()> {
        self.is_some().write(to)?;
        self.as_ref().map_or(Ok(()), |value| value.write(to))
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        bool::read(from)?.then(|| T::read(from)).transpose()
    }
}

impl<T: Wire> Wire for Box<T> {
    fn write(&self, to: &mut Writer) -> Result<()> {
        T::write(self, to)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        T::read(from).map(Self::new)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn write(&self, to: &mut Writer) -> Result<()> {
        self.0.write(to)?;
        self.1.write(to)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn write(&self, to: &mut Writer) -> Result<()> {
        write_list(self, to)
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let length = u64::read(from)?;
        let mut items = Self::with_capacity(length.min(ITEMS_EXPECTED_MAX) as usize);
        for _ in 0..length {
            items.push(T::read(from)?);
        }
        Ok(items)
    }
}

impl<K: Wire + Ord, V: Wire> Wire for BTreeMap<K, V> {
    fn write(&self, to: &mut Writer) -> Result<()> {
        write_length(self.len(), to)?;
        self.iter().try_for_each(|(key, value)| {
            key.write(to)?;
            value.write(to)
        })
    }

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        (0..u64::read(from)?).map(|_| <(K, V)>::read(from)).collect()
    }
}

/// Writes the form of a list.
fn write_list<T: Wire>(items: &[T], to: &mut Writer) -> Result<()> {
    write_length(items.len(), to)?;
    items.iter().try_for_each(|item| item.write(to))
}

fn write_length(length: usize, to: &mut Writer) -> Result<()> {
    u64::try_from(length).map_err(|_| Error::SerializeSeqLengthUnknown)?.write(to)
}
