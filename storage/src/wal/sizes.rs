//! Sizes of the files of a log.

/// Sizes of files and their parts, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Records and slots of a segment.
    pub segment: u64,
    /// Gap between the slots and the records.
    pub gap: u64,
    /// Size of the headroom, which is removed when the disk is full.
    pub headroom: u64,
    /// Whether segments have slots. `false` gives a log without second places, to compare with.
    pub has_slots: bool,
}

impl Sizes {
    /// 64 MiB of records and slots: seconds of full load, and the most that recovery rewrites. A
    /// gap of 1 MiB, so that one fault hardly damages both places of an entry. 1 MiB of headroom:
    /// many times the size of metadata.
    pub(super) const DEFAULT: Self = Self { segment: 64 << 20, gap: 1 << 20, headroom: 1 << 20, has_slots: true };
}
