//! The format of a snapshot's state: a byte stream, little-endian.
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 4 | magic: the bytes `QKVS` |
//! | 4 | version of this layout: 2 |
//! | 8 | number of pairs |
//! | 8 | the hash of the state, [`Kv::state_hash`](super::Kv::state_hash) |
//! | … | the pairs |
//!
//! and for each pair
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 2 | length of the key, which is UTF-8 |
//! | 4 | length of the value |
//! | 8 | log time at which the pair expires, 0 for never |
//! | … | the key |
//! | … | the value |
//!
//! Nothing follows the last pair. Equal states give equal bytes; readers ignore the order
//! of the pairs.
//!
//! The storage has checksums of its own. The hash additionally proves that these are the pairs that
//! existed when the snapshot was taken, independently of the code that wrote and read them.
//!
//! **Bound:** writing and reading buffer [`BUFFER_BYTES`] and one pair.

use super::pairs::Pairs;
use quorate::LogTime;
use std::{
    io::{self, BufReader, BufWriter, Error, ErrorKind, Read, Write},
    sync::Arc,
};

const MAGIC: [u8; 4] = *b"QKVS";
const VERSION: u32 = 2;
const BUFFER_BYTES: usize = 64 << 10;

/// Writes `pairs`.
pub(super) fn write(pairs: &Pairs, to: &mut dyn Write) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(BUFFER_BYTES, to);
    to.write_all(&MAGIC)?;
    to.write_all(&VERSION.to_le_bytes())?;
    to.write_all(&(pairs.len() as u64).to_le_bytes())?;
    to.write_all(&pairs.hash().to_le_bytes())?;
    for (key, pair) in pairs.iter() {
        // Commands encode keys and values with lengths of these sizes, so they fit.
        to.write_all(&u16::try_from(key.len()).map_err(too_long)?.to_le_bytes())?;
        to.write_all(&u32::try_from(pair.value.len()).map_err(too_long)?.to_le_bytes())?;
        to.write_all(&pair.until().unwrap_or_default().0.to_le_bytes())?;
        to.write_all(key)?;
        to.write_all(&pair.value)?;
    }
    to.flush()
}

/// Reads a state that [`write`] wrote.
///
/// # Errors
/// In one line with problem and offset, if `from` fails, or if the bytes are not exactly those
/// that were written.
pub(super) fn read(from: &mut dyn Read) -> io::Result<Pairs> {
    let mut from = Reader { from: BufReader::with_capacity(BUFFER_BYTES, from), at: 0 };
    if from.array()? != MAGIC {
        return Err(invalid(0, "the data is not a snapshot of this key-value map"));
    }
    let version = u32::from_le_bytes(from.array()?);
    if version != VERSION {
        return Err(invalid(
            4,
            format_args!(
                "layout {version} is unknown; this release reads only {VERSION}: run the release that wrote it"
            ),
        ));
    }
    let len = u64::from_le_bytes(from.array()?);
    let hash = u64::from_le_bytes(from.array()?);
    let mut pairs = Pairs::default();
    for _ in 0..len {
        let at = from.at;
        let key_bytes = u64::from(u16::from_le_bytes(from.array()?));
        let value_bytes = u64::from(u32::from_le_bytes(from.array()?));
        let until = LogTime(u64::from_le_bytes(from.array()?));
        let (key, value) = (from.bytes(key_bytes)?, from.bytes(value_bytes)?);
        if str::from_utf8(&key).is_err() {
            return Err(invalid(at, "a key is not UTF-8"));
        }
        if pairs.insert(key, value, Some(until)).is_some() {
            return Err(invalid(at, "a key occurs twice"));
        }
    }
    if from.from.read(&mut [0])? > 0 {
        return Err(invalid(from.at, "bytes follow the last pair"));
    }
    if pairs.hash() != hash {
        return Err(invalid(16, format_args!("the pairs have hash {:016x} instead of {hash:016x}", pairs.hash())));
    }
    Ok(pairs)
}

struct Reader<'a> {
    from: BufReader<&'a mut dyn Read>,
    at: u64,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|error| self.ended(error))?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// Reads `length` bytes. Memory grows with the bytes read, because a damaged length could
    /// be arbitrarily large.
    fn bytes(&mut self, length: u64) -> io::Result<Arc<[u8]>> {
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(usize::MAX).min(BUFFER_BYTES));
        let read = self.from.by_ref().take(length).read_to_end(&mut bytes)? as u64;
        self.at += read;
        if read < length {
            return Err(self.ended(ErrorKind::UnexpectedEof.into()));
        }
        Ok(bytes.into())
    }

    fn ended(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::UnexpectedEof => invalid(self.at, "the data ends within a pair or its header"),
            _ => error,
        }
    }
}

fn invalid(at: u64, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the state cannot be restored; offset {at}: {what}"))
}

fn too_long(_: std::num::TryFromIntError) -> Error {
    Error::new(ErrorKind::InvalidInput, "a key or value is too long for the layout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let mut expected = b"QKVS\x02\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
        let mut pairs = Pairs::default();
        pairs.insert(b"key"[..].into(), b"value"[..].into(), Some(LogTime(7)));
        expected.extend(pairs.hash().to_le_bytes());
        expected.extend(b"\x03\0\x05\0\0\0\x07\0\0\0\0\0\0\0keyvalue");
        assert_eq!(written(&pairs), expected);
    }

    #[test]
    fn every_flipped_bit_every_cut_and_every_byte_too_many_is_refused() {
        let good = written(&pairs(&[(b"", b""), (b"a", b"value"), (b"b", &[7; 100]), (b"longer key", b"")]));
        let read_back = read(&mut &good[..]).expect("its own");
        assert_eq!(written(&read_back), good);
        for bit in 0..good.len() * 8 {
            let mut damaged = good.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            refused(&damaged);
        }
        for end in 0..good.len() {
            refused(&good[..end]);
        }
        refused(&[&good[..], &[0]].concat());
    }

    #[test]
    fn a_length_that_is_not_there_takes_no_memory() {
        let mut bytes = written(&pairs(&[(b"k", b"v")]));
        bytes[26..30].copy_from_slice(&u32::MAX.to_le_bytes());
        refused(&bytes);
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        refused(&bytes);
    }

    #[test]
    fn a_key_that_is_no_text_is_refused() {
        refused(&written(&pairs(&[(b"\xff", b"v")])));
    }

    #[test]
    fn a_key_that_stands_there_twice_is_refused() {
        let one = written(&pairs(&[(b"k", b"v")]));
        let mut twice = [&one[..], &one[24..]].concat();
        twice[8] = 2;
        refused(&twice);
    }

    #[test]
    fn an_error_of_the_reader_or_writer_is_passed_on() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(Error::other("broken"))
            }
        }
        impl Write for Failing {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(Error::other("broken"))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(read(&mut Failing).expect_err("it failed").to_string(), "broken");
        let error = write(&pairs(&[(b"k", b"v")]), &mut Failing).expect_err("it failed");
        assert_eq!(error.to_string(), "broken");
    }

    #[test]
    fn another_layout_is_refused_by_its_number() {
        let mut bytes = written(&pairs(&[(b"k", b"v")]));
        bytes[4] = 1;
        let error = read(&mut &bytes[..]).expect_err("an older one").to_string();
        assert!(error.contains("layout 1 is unknown"), "{error}");
    }

    fn refused(bytes: &[u8]) {
        let error = read(&mut &bytes[..]).expect_err("it is damaged");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }

    fn pairs(list: &[(&[u8], &[u8])]) -> Pairs {
        let mut pairs = Pairs::default();
        for (key, value) in list {
            pairs.insert((*key).into(), (*value).into(), None);
        }
        pairs
    }

    fn written(pairs: &Pairs) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(pairs, &mut bytes).expect("memory takes everything");
        bytes
    }
}
