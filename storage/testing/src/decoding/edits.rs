//! Edits of files, encoded in an input: so that a search changes a good file in a few places, and
//! need not find a whole one.
//!
//! An edit, little-endian: operation (1 byte), place (2 bytes, times 4 with bit 7 of the
//! operation), count (1 byte), and for some operations as many bytes.

/// One edit of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit<'a> {
    /// Bits 4 to 6 of its operation, with a meaning that the property defines.
    pub(super) target: u8,
    pub(super) operation: u8,
    pub(super) at: usize,
    pub(super) count: usize,
    bytes: &'a [u8],
}

/// The edits of an input, in order.
pub(super) struct Edits<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Edits<'a> {
    type Item = Edit<'a>;

    fn next(&mut self) -> Option<Edit<'a>> {
        let ([operation, low, high, count], rest) = self.0.split_first_chunk::<4>()?;
        let at = usize::from(u16::from_le_bytes([*low, *high])) * if operation & 0x80 != 0 { 4 } else { 1 };
        let carried = if operation & 0x0f <= Edit::FLIP { usize::from(*count).min(rest.len()) } else { 0 };
        let (bytes, rest) = rest.split_at(carried);
        self.0 = rest;
        let (target, count) = (operation >> 4 & 7, usize::from(*count));
        Some(Edit { target, operation: operation & 0x0f, at, count, bytes })
    }
}

impl Edit<'_> {
    /// Replaces bytes with its own.
    pub(super) const SET: u8 = 0;
    /// Flips the bits that are set in its bytes.
    pub(super) const FLIP: u8 = 1;
    /// Zeros 8 times `count` bytes.
    const ZERO: u8 = 2;
    /// Copies bytes from 40 times `count` bytes further on.
    const MOVE: u8 = 3;
    /// Cuts the file off.
    const CUT: u8 = 4;
    /// Adds 16 times `count` zeros at the end.
    const GROW: u8 = 5;
    /// The first operation that a property defines itself.
    pub(super) const OWN: u8 = 6;

    /// Edits a file; does nothing for an operation that a property defines.
    pub(super) fn apply(&self, to: &mut Vec<u8>) {
        let length = to.len();
        let part = |count: usize| self.at.min(length)..self.at.saturating_add(count).min(length);
        match self.operation {
            Self::SET => {
                let range = part(self.bytes.len());
                let count = range.len();
                to[range].copy_from_slice(&self.bytes[..count]);
            }
            Self::FLIP => to[part(self.bytes.len())].iter_mut().zip(self.bytes).for_each(|(byte, mask)| *byte ^= mask),
            Self::ZERO => to[part(8 * self.count)].fill(0),
            Self::MOVE => {
                let range = part(40);
                let from = (range.start + 40 * self.count).min(length - range.len());
                to.copy_within(from..from + range.len(), range.start);
            }
            Self::CUT => to.truncate(self.at),
            Self::GROW => to.resize(length + 16 * self.count, 0),
            _ => {}
        }
    }
}

/// Encodes an edit; `bytes` for operations that have some.
pub(super) fn edit(operation: u8, at: usize, count: u8, bytes: &[u8]) -> Vec<u8> {
    let [low, high, ..] = at.to_le_bytes();
    let count = if bytes.is_empty() { count } else { bytes.len() as u8 };
    [&[operation, low, high, count], bytes].concat()
}
