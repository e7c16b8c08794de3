//! Tells a torn write from damage.
//!
//! A segment is made of zeros, and each byte is written once. So bytes that a crash kept from the
//! disk read as zeros: from some byte to the end, or sector by sector. Any other bad byte was
//! damaged after it was written, and may belong to an acknowledged entry.

use super::group::Mark;
use quorate_raft::record;

/// The smallest unit that a disk writes atomically, in bytes.
pub(crate) const SECTOR: usize = 512;

/// Marks and slots begin and end at multiples of this, in bytes.
pub(crate) const ALIGNMENT: usize = 8;

/// Whether a mark or slot of `length` bytes at `at` never reached the disk, or a part of it in one of
/// the sectors that it touches: neither its first nor its last [`ALIGNMENT`] bytes can all be zero by
/// intent.
pub(crate) fn is_part_missing(bytes: &[u8], at: usize, length: usize) -> bool {
    let (end, mut from) = (at.saturating_add(length), at);
    while from < end {
        let to = end.min(from - from % SECTOR + SECTOR);
        if used(bytes.get(from.min(bytes.len())..to.min(bytes.len())).unwrap_or_default()) == 0 {
            return true;
        }
        from = to;
    }
    false
}

/// The record that should follow the last good record, and the numbers of zeros that it
/// cannot have by intent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    bytes: usize,
    /// Zeros from this byte on to the end of the file are missing bytes: a checksum that is not
    /// zero is among them.
    cut_max: usize,
    /// Zeros that mean missing bytes in its first sector, at least this many.
    first_min: usize,
    /// Zeros that mean missing bytes in its last sector, at least this many, with zeros up to
    /// that sector's end.
    last_min: usize,
}

impl Expected {
    /// A record may begin with eight zeros by intent: no payload, and the group.
    pub(crate) const RECORD_HEADER: Self =
        Self { bytes: record::HEADER_BYTES, cut_max: record::HEADER_BYTES, first_min: 9, last_min: 1 };

    /// A record of this size with a good header.
    pub(crate) fn record(bytes: usize) -> Self {
        let cut_max = bytes - record::TRAILER_BYTES;
        Self { bytes, cut_max, first_min: 9, last_min: record::TRAILER_BYTES }
    }

    /// The same, if any zeros count in each sector: for a record whose slot is missing too.
    pub(crate) fn or_less(self) -> Self {
        Self { first_min: 1, last_min: 1, ..self }
    }

    /// Whether some of its bytes never reached the disk. `rest` is all bytes after the last good
    /// record, from `offset` on.
    pub(crate) fn is_missing(self, rest: &[u8], offset: usize) -> bool {
        if used(rest) <= self.cut_max {
            return true;
        }
        // Bytes before `rest` in its first sector reached the disk with an earlier sync.
        let mut at = 0;
        while at < self.bytes.min(rest.len()) {
            let sector_end = at + SECTOR - (offset + at) % SECTOR;
            let inside = self.bytes.min(sector_end) - at;
            let enough = match at {
                0 => self.first_min,
                _ if self.bytes <= sector_end => self.last_min,
                _ => 1,
            };
            if inside >= enough && used(&rest[at..rest.len().min(sector_end)]) == 0 {
                return true;
            }
            at = sector_end;
        }
        false
    }
}

/// Whether `found` is the checksum `wanted` with its last bytes replaced by zeros. Then the record
/// is whole, and only the end of the write is missing.
pub(crate) fn is_cut(found: &[u8], wanted: [u8; 4]) -> bool {
    let there = used(found);
    (1..wanted.len()).contains(&there) && found[..there] == wanted[..there]
}

/// The number of bytes up to the last one that is not zero.
pub(crate) fn used(bytes: &[u8]) -> usize {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut end = bytes.len();
    while end > 0 {
        let start = end.saturating_sub(ZEROS.len());
        let chunk = &bytes[start..end];
        if chunk != &ZEROS[..chunk.len()] {
            return start + chunk.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        }
        end = start;
    }
    0
}

/// The good marks of a segment from byte `from` on, and their offsets.
pub(crate) fn marks(bytes: &[u8], from: usize, segment: u64) -> impl Iterator<Item = (usize, Mark)> + '_ {
    let rest = bytes.get(from..).unwrap_or_default();
    let rest = &rest[..used(rest)];
    let candidates = rest.windows(Mark::MAGIC.len()).enumerate().filter(|(_, window)| *window == Mark::MAGIC);
    let places = candidates.map(move |(at, _)| from + at);
    places.filter_map(move |at| Some((at, Mark::decode(bytes, at, segment)?)))
}
