//! Numbers and byte strings of the layer's part of a snapshot, little-endian, written and read in
//! one place. A length is not trusted: memory grows only with the bytes read.

use std::{
    fmt,
    io::{self, Error, ErrorKind, Read, Write},
};

/// Writes `bytes` after their length (4 bytes).
///
/// # Errors
/// If `to` fails, or there are 4 GiB or more.
pub fn write_bytes(to: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    let too_long = |_| Error::new(ErrorKind::InvalidInput, "a string of 4 GiB or more does not fit a snapshot");
    to.write_all(&u32::try_from(bytes.len()).map_err(too_long)?.to_le_bytes())?;
    to.write_all(bytes)
}

/// A reader that knows its offset in bytes, for errors that name the place.
pub struct Reader<'a> {
    from: &'a mut dyn Read,
    at: u64,
}

impl<'a> Reader<'a> {
    /// A reader of `from`, at offset 0.
    pub fn new(from: &'a mut dyn Read) -> Self {
        Self { from, at: 0 }
    }

    /// # Errors
    /// As [`Reader::array`].
    pub fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// # Errors
    /// As [`Reader::array`].
    pub fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// If the source fails or ends before them.
    pub fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.invalid("it ends there"),
            _ => error,
        })?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// A byte string that [`write_bytes`] wrote.
    ///
    /// # Errors
    /// If the source fails or ends before its end.
    pub fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let length = self.u32()?;
        let mut bytes = Vec::new();
        let read = (&mut *self.from).take(u64::from(length)).read_to_end(&mut bytes)? as u64;
        self.at += read;
        if read < u64::from(length) {
            return Err(self.invalid("it ends there"));
        }
        Ok(bytes)
    }

    /// The error of bytes that can't stand where the reader is.
    pub fn invalid(&self, what: impl fmt::Display) -> Error {
        Error::new(ErrorKind::InvalidData, format!("the service can't be restored, offset {}: {what}", self.at))
    }

    /// The source, for the bytes after the layer's part.
    pub fn rest(self) -> &'a mut dyn Read {
        self.from
    }
}
