//! The content of the log, as found on the disk at a start.
//!
//! It reads every segment, rewrites the newest one, and restores damaged bytes of the others in
//! place. It publishes nothing: a crash leaves the directory as it was.

use super::{
    BLOCK_BYTES, Failure, Identity, Outcome, Wal, failed, hard_state,
    header::{COPY_AT, Header, Layout},
    next_segment::NextSegment,
    rewrite::{chart, rewrite, write_table},
    scan::{Part, Scanned, State, Tail, scan},
    segment::{Segment, damaged},
    write::write_header,
};
use crate::{contract::StorageOp, disk::File};
use quorate_raft::{EntryId, Faulty, HardState, Index, Membership, Snapshot, Term};
use std::{io::IoSlice, path::Path};

/// The content of the log, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) base: EntryId,
    pub(super) base_checksum: u32,
    pub(super) terms: Vec<(Index, Term)>,
    pub(super) last: EntryId,
    pub(super) last_checksum: u32,
    pub(super) faulty: Vec<Faulty>,
    pub(super) memberships: Vec<(Index, Membership)>,
    pub(super) repairs: Vec<String>,
}

/// The segments, with the newest one rewritten and synced but not yet published.
pub(super) struct Files {
    pub(super) sealed: Vec<Segment>,
    pub(super) superseded: Vec<Segment>,
    pub(super) active: Segment,
    pub(super) marks: u32,
}

impl Inventory {
    /// Reads all segments that count.
    pub(super) fn read(
        &mut self,
        wal: &Wal,
        identity: &Identity,
        sequences: &[u64],
        state: HardState,
        snapshot: Option<&Snapshot>,
        next_segment: &mut NextSegment,
    ) -> Outcome<Files> {
        let (mut live, mut superseded) = open_segments(wal, identity, sequences, &mut self.repairs)?;
        let newest = live.pop();
        let nexts: Vec<Header> = live.iter().chain(&newest).skip(1).map(|next| next.header.clone()).collect();
        if let Some(oldest) = live.first().or(newest.as_ref()) {
            self.start_after(oldest.header.previous, oldest.header.previous_checksum);
        }
        let (mut sealed, mut bytes) = (Vec::new(), Vec::new());
        for (mut segment, next) in live.into_iter().zip(nexts) {
            match self.read_sealed(&mut segment, &mut bytes, next.first()) {
                Ok(()) => sealed.push(segment),
                // The entries of this segment are covered by the snapshot.
                Err(failure) if snapshot.is_some_and(|snapshot| snapshot.base.last.index >= next.previous.index) => {
                    self.repairs.push(format!(
                        "dropped the log before {}, which a snapshot covers: {}",
                        next.first(),
                        failure.error
                    ));
                    superseded.append(&mut sealed);
                    superseded.push(segment);
                    self.start_after(next.previous, next.previous_checksum);
                }
                Err(failure) => return Err(failure),
            }
        }
        let mut scanned = Scanned::nothing();
        let mut header = Header {
            identity: identity.clone(),
            sequence: sequences.last().map_or(1, |newest| newest + 1),
            previous: self.last,
            previous_checksum: self.last_checksum,
            starts_over: sealed.is_empty() && self.last.index > Index(0),
            layout: Layout::of(wal.sizes, 0, 0),
            published_bytes: 0,
        };
        if let Some(newest) = newest {
            read_all(&*newest.file, &newest.path, &mut bytes)?;
            scanned = self.read_newest(&newest, &mut bytes)?;
            superseded.push(newest);
        }
        if let Some((_, term)) = self.terms.last().filter(|(_, term)| *term > state.term) {
            return Err(Failure::open(format_args!(
                "{} says term {}, but the log in {} has entries of term {term}: votes are lost; remove this member and add it \
                 under a new id",
                hard_state::NAME,
                state.term,
                wal.dir.display()
            )));
        }
        if let Some(base) = snapshot.map(|snapshot| &snapshot.base).filter(|base| !self.reaches(base.last)) {
            self.repairs.push(format!(
                "began the log after entry {}, which a snapshot covers: the log ended with entry {}",
                base.last, self.last
            ));
            self.start_after(base.last, base.last_checksum);
            superseded.append(&mut sealed);
            scanned = Scanned::nothing();
            (header.previous, header.previous_checksum, header.starts_over) = (base.last, base.last_checksum, true);
        } else if let Some(snapshot) = snapshot {
            self.forget_covered(snapshot.base.last.index);
        }
        let marks = u32::from(!scanned.entries.is_empty());
        let active = rewrite(header, &scanned, &bytes, wal.sizes, next_segment)?;
        Ok(Files { sealed, superseded, active, marks })
    }

    /// Drops all findings and begins after `base`.
    fn start_after(&mut self, base: EntryId, checksum: u32) {
        let repairs = std::mem::take(&mut self.repairs);
        *self = Self { base, base_checksum: checksum, last: base, last_checksum: checksum, repairs, ..Self::default() };
    }

    /// Whether the log holds this entry, or begins after it.
    fn reaches(&self, id: EntryId) -> bool {
        let run = self.terms.partition_point(|(first, _)| *first <= id.index).checked_sub(1);
        id.index < self.base.index
            || id == self.base
            || (id.index <= self.last.index && run.is_some_and(|run| self.terms[run].1 == id.term))
    }

    /// Begins after the last faulty entry that a snapshot covers: its payload is not needed.
    fn forget_covered(&mut self, covered: Index) {
        let Some(last) = self.faulty.iter().rfind(|faulty| faulty.id.index <= covered).copied() else { return };
        (self.base, self.base_checksum) = (last.id, last.checksum);
        self.faulty.retain(|faulty| faulty.id.index > last.id.index);
        self.memberships.retain(|(index, _)| *index > last.id.index);
        let runs = self.terms.partition_point(|(first, _)| *first <= last.id.index.next());
        self.terms.drain(..runs.saturating_sub(1));
        match self.terms.first_mut() {
            Some(run) if self.last.index > last.id.index => run.0 = run.0.max(last.id.index.next()),
            _ => self.terms.clear(),
        }
        self.repairs.push(format!("began the log after entry {}, which is lost and which a snapshot covers", last.id));
    }

    /// Reads a segment that has a successor, which begins with entry `end`: all entries before that
    /// must be found.
    fn read_sealed(&mut self, segment: &mut Segment, bytes: &mut Vec<u8>, end: Index) -> Outcome<()> {
        self.follows(segment)?;
        read_all(&*segment.file, &segment.path, bytes)?;
        let scanned = scan(bytes, &segment.header, Some(end));
        if let Tail::Damaged { at, what } = scanned.tail {
            return Err(Failure::open(damaged(&segment.path, at as u64, what)));
        }
        for patch in &scanned.patches {
            let (at, slice) = (patch.at as u64, IoSlice::new(&patch.bytes));
            segment.file.write_at(&mut [slice], at).map_err(failed(StorageOp::Write, &segment.path))?;
        }
        // Its file is cut off after the sync of its table, which may have failed before this start.
        let is_closed = (bytes.len() as u64) < segment.header.layout.capacity;
        if !is_closed {
            write_table(segment, &scanned.entries)?;
        }
        if !is_closed || !scanned.patches.is_empty() {
            segment.file.sync_data().map_err(failed(StorageOp::Sync, &segment.path))?;
        }
        chart(segment, &scanned.entries, bytes);
        segment.bytes = bytes.len() as u64;
        if !is_closed {
            segment.cut_file()?;
        }
        self.take(segment, scanned);
        Ok(())
    }

    /// Reads the newest segment, which may end with a torn write. Restores in `bytes` what
    /// can be restored.
    fn read_newest(&mut self, newest: &Segment, bytes: &mut [u8]) -> Outcome<Scanned> {
        let (path, layout) = (newest.path.display(), &newest.header.layout);
        if (bytes.len() as u64) < layout.records_at {
            let what = format!("the file should have {} bytes", layout.capacity);
            return Err(Failure::open(damaged(&newest.path, bytes.len() as u64, &what)));
        }
        self.follows(newest)?;
        let scanned = scan(bytes, &newest.header, None);
        match scanned.tail {
            // Cut off between two records: nothing is left of the write.
            Tail::Clean | Tail::Torn { bytes: 0, .. } => {}
            Tail::Torn { at, bytes } => self.repairs.push(format!(
                "discarded a torn write of {bytes} bytes at byte {at} of {path}: it was never acknowledged"
            )),
            Tail::Damaged { at, what } => return Err(Failure::open(damaged(&newest.path, at as u64, what))),
        }
        for patch in &scanned.patches {
            if let Some(place) = bytes.get_mut(patch.at..patch.at + patch.bytes.len()) {
                place.copy_from_slice(&patch.bytes);
            }
        }
        Ok(self.take(newest, scanned))
    }

    /// Refuses a segment that does not begin where its predecessors end.
    fn follows(&self, segment: &Segment) -> Outcome<()> {
        let header = &segment.header;
        if (header.previous, header.previous_checksum) == (self.last, self.last_checksum) {
            return Ok(());
        }
        let what =
            format!("it continues entry {}, but the segments before it end with entry {}", header.previous, self.last);
        Err(Failure::open(damaged(&segment.path, 0, &what)))
    }

    fn take(&mut self, segment: &Segment, mut scanned: Scanned) -> Scanned {
        let path = segment.path.display();
        for (part, what) in [
            (Part::Slot, "restored the slots of"),
            (Part::Record, "restored headers or checksums of"),
            (Part::CutChecksum, "completed the partly written checksum of"),
        ] {
            let count = scanned.patches.iter().filter(|patch| patch.what == part).count();
            if count > 0 {
                self.repairs.push(format!("{what} {count} entries in {path}"));
            }
        }
        let indexed = scanned.entries.iter().zip((segment.header.first().0..).map(Index));
        let before = self.faulty.len();
        self.faulty.extend(indexed.filter_map(|(entry, index)| match entry.state {
            State::Whole => None,
            State::Faulty { was_durable } => {
                Some(Faulty { id: EntryId::new(entry.term, index), checksum: entry.checksum, was_durable })
            }
        }));
        if let [first, ..] = self.faulty[before..] {
            let count = self.faulty.len() - before;
            self.repairs.push(format!(
                "found {count} faulty entries in {path}, from entry {} on: they must be repaired",
                first.id
            ));
        }
        // A compacted log begins within a term.
        if let (true, [first, ..]) = (self.terms.is_empty(), &scanned.entries[..]) {
            let begins = scanned.terms.first().is_some_and(|(index, _)| *index == segment.header.first());
            self.terms.extend((!begins).then_some((segment.header.first(), first.term)));
        }
        self.terms.append(&mut scanned.terms);
        self.memberships.append(&mut scanned.memberships);
        (self.last, self.last_checksum) = (scanned.last, scanned.last_checksum);
        scanned
    }
}

/// The segments that count, in order, and the superseded ones.
fn open_segments(
    wal: &Wal,
    identity: &Identity,
    sequences: &[u64],
    repairs: &mut Vec<String>,
) -> Outcome<(Vec<Segment>, Vec<Segment>)> {
    let (mut live, mut superseded): (Vec<Segment>, Vec<Segment>) = (Vec::new(), Vec::new());
    for sequence in sequences {
        let segment = open_segment(wal, identity, *sequence, repairs)?;
        let header = &segment.header;
        while let Some(older) = live.pop_if(|older| header.starts_over || older.header.first() >= header.first()) {
            superseded.push(older);
        }
        live.push(segment);
    }
    Ok((live, superseded))
}

fn open_segment(wal: &Wal, identity: &Identity, sequence: u64, repairs: &mut Vec<String>) -> Outcome<Segment> {
    let path = wal.dir.join(Segment::name(sequence));
    let file = wal.disk.open(&path).map_err(failed(StorageOp::Open, &path))?;
    let mut bytes = vec![0; COPY_AT + BLOCK_BYTES];
    let count = file.read_at(&mut bytes, 0).map_err(failed(StorageOp::Read, &path))?;
    Header::refuse_foreign(&bytes[..count], &path)?;
    let copy = |at: usize| {
        let header = Header::decode(bytes[..count].get(at..).unwrap_or_default());
        let header = header.map_err(|what| Failure::open(damaged(&path, at as u64, what)))?;
        if header.identity != *identity {
            return Err(hard_state::mismatch(&wal.dir, &header.identity, identity));
        }
        if header.sequence != sequence {
            return Err(Failure::open(damaged(&path, at as u64, "the header is that of another segment")));
        }
        Ok(header)
    };
    let (header, is_damaged) = match (copy(0), copy(COPY_AT)) {
        (Ok(header), other) => {
            let is_damaged = other.as_ref() != Ok(&header);
            (header, is_damaged)
        }
        (Err(_), Ok(header)) => (header, true),
        (Err(failure), Err(_)) => return Err(failure),
    };
    let segment = Segment::new(header, path, file);
    if is_damaged && count == bytes.len() {
        write_header(&segment)?;
        segment.file.sync_data().map_err(failed(StorageOp::Sync, &segment.path))?;
        repairs.push(format!("restored a copy of the header of {}", segment.path.display()));
    }
    Ok(segment)
}

/// Reads a whole file.
pub(super) fn read_all(file: &dyn File, path: &Path, bytes: &mut Vec<u8>) -> Outcome<()> {
    let error = failed(StorageOp::Read, path);
    let length = file.length().map_err(&error)?;
    // Not cleared: what another file left there is overwritten.
    bytes.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
    let count = file.read_at(bytes, 0).map_err(&error)?;
    bytes.truncate(count);
    Ok(())
}
