//! Opens a directory: proves whose it is and that nothing acknowledged is missing, or refuses, naming file and offset.
//!
//! The newest segment is the only one that a crash can have torn, for an older one was synced before it got a successor.
//! It is copied into a new one and synced, so that nothing rests on pages that a failed sync left in memory as clean.

use super::{
    CLUSTER_BYTES_MAX, Failure, Identity, Outcome, Wal, failed,
    hard_state::{self, HardStateFile},
    log::Log,
    scan::{Scanned, Tail, scan},
    segment::{Header, Mark, RECORDS_AT, Segment, damaged},
    spare::{self, Spare},
};
use crate::contract::{Recovered, StorageObserver};
use quorate_raft::{HardState, Index, NodeId};
use std::{
    io::{self, IoSlice},
    sync::Arc,
};

/// The lock's file.
const LOCK: &str = "lock";

impl Log {
    /// Takes possession of a log and says what is in it.
    pub(crate) fn open(
        wal: &Wal,
        cluster: &str,
        member: NodeId,
        observer: Arc<dyn StorageObserver>,
    ) -> Outcome<(Self, Recovered)> {
        if cluster.len() > CLUSTER_BYTES_MAX {
            let what = format_args!("the cluster's name has more than {CLUSTER_BYTES_MAX} bytes; choose a shorter one");
            return Err(Failure::open(what));
        }
        let (dir, disk) = (&wal.dir, &*wal.disk);
        let identity = Identity { cluster: cluster.to_owned(), member };
        disk.create_dir(dir).map_err(failed("open", dir))?;
        let lock = disk.lock(&dir.join(LOCK)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Failure::open(format_args!(
                "{} is in use by another process; stop that one or choose another data directory",
                dir.display()
            )),
            _ => failed("open", &dir.join(LOCK))(error),
        })?;
        let names = disk.list(dir).map_err(failed("read", dir))?;
        let mut sequences: Vec<u64> = names.iter().filter_map(|name| Segment::sequence_of(name)).collect();
        sequences.sort_unstable();
        let hard_state = if names.iter().any(|name| name == hard_state::NAME) {
            HardStateFile::open(disk, dir, &identity)?
        } else if sequences.is_empty() {
            HardStateFile::create(disk, dir, &identity)?
        } else {
            return Err(Failure::open(format_args!(
                "{} holds a log but no {}: term and vote are lost; remove this member and add it under a new id",
                dir.display(),
                hard_state::NAME
            )));
        };
        if hard_state.segment() > sequences.last().copied().unwrap_or(0) {
            let path = dir.join(Segment::name(hard_state.segment()));
            return Err(Failure::open(damaged(&path, 0, "the segment is missing")));
        }
        spare::remove_leftovers(disk, dir)?;

        let mut spare = Spare::new(wal.disk.clone(), dir, wal.segment_bytes);
        let found = Found::open(wal, &identity, &sequences, &mut spare)?;
        let recovered = Recovered { hard_state: hard_state.state(), ..found.recovered };
        let mut log = Self {
            disk: wal.disk.clone(),
            dir: dir.clone(),
            identity,
            published: hard_state.segment(),
            hard_state,
            staged_state: None,
            sealed: found.sealed,
            active: found.active,
            is_published: false,
            staged: Vec::new(),
            staged_bytes: 0,
            marks: found.marks,
            superseded: found.superseded,
            base: recovered.base,
            last: recovered.last,
            last_checksum: recovered.last_checksum,
            spare,
            observer,
            _lock: lock,
        };
        log.publish()?;
        Ok((log, recovered))
    }
}

/// What recovery found, with the tail rewritten and synced but not yet published.
struct Found {
    sealed: Vec<Segment>,
    superseded: Vec<Segment>,
    active: Segment,
    marks: u64,
    recovered: Recovered,
}

impl Found {
    fn open(wal: &Wal, identity: &Identity, sequences: &[u64], spare: &mut Spare) -> Outcome<Self> {
        let (mut live, mut superseded) = live(wal, identity, sequences)?;
        let oldest = live.first().map(|oldest| (oldest.header.previous, oldest.header.previous_checksum));
        let (base, checksum) = oldest.unwrap_or_default();
        let mut recovered = Recovered {
            hard_state: HardState::default(),
            base,
            terms: Vec::new(),
            last: base,
            last_checksum: checksum,
            ..Recovered::default()
        };
        let newest = live.pop();
        let ends: Vec<Index> = live.iter().chain(&newest).skip(1).map(|next| next.header.first()).collect();
        let (mut sealed, mut bytes) = (Vec::new(), Vec::new());
        for (mut segment, end) in live.into_iter().zip(ends) {
            read_all(&segment, &mut bytes)?;
            scan_sealed(&mut segment, &bytes, end, &mut recovered)?;
            sealed.push(segment);
        }
        let sequence = sequences.last().map_or(1, |newest| newest + 1);
        let header = Header {
            identity: identity.clone(),
            sequence,
            previous: recovered.last,
            previous_checksum: recovered.last_checksum,
            records_at: RECORDS_AT,
            published_bytes: 0,
            capacity: 0,
        };
        let (active, marks) = match newest {
            Some(newest) => {
                read_all(&newest, &mut bytes)?;
                let scanned = scan_newest(&newest, &mut bytes, &mut recovered)?;
                superseded.push(newest);
                (rewrite(header, &scanned, &bytes, spare)?, u64::from(scanned.record_bytes > 0))
            }
            None => (rewrite(header, &Scanned::nothing(), &[], spare)?, 0),
        };
        Ok(Self { sealed, superseded, active, marks, recovered })
    }
}

/// Checks a segment that has a successor, which begins with entry `end`: every entry before that must hold.
fn scan_sealed(segment: &mut Segment, bytes: &[u8], end: Index, recovered: &mut Recovered) -> Outcome<()> {
    follows(segment, recovered)?;
    let scanned = scan(bytes, &segment.header, Some(end));
    if scanned.last.index.next() != end || scanned.completed.is_some() {
        let (at, what) = match scanned.tail {
            Tail::Damaged { at, what } => (at, what),
            Tail::Torn { at, .. } => (at, "entries are missing that a later segment follows"),
            Tail::Clean => (scanned.end(&segment.header), "entries are missing that a later segment follows"),
        };
        return Err(Failure::open(damaged(&segment.path, at as u64, what)));
    }
    for (position, _) in &scanned.positions {
        segment.remember(position.index, position.offset);
    }
    segment.end = scanned.end(&segment.header) as u64;
    segment.bytes = bytes.len() as u64;
    take(scanned, recovered);
    Ok(())
}

/// Checks the newest segment, whose last write a crash may have torn. What that left of a checksum is completed in
/// `bytes`.
fn scan_newest(newest: &Segment, bytes: &mut [u8], recovered: &mut Recovered) -> Outcome<Scanned> {
    let (path, capacity) = (newest.path.display(), newest.header.capacity);
    if (bytes.len() as u64) < capacity {
        let what = format!("the file should have {capacity} bytes");
        return Err(Failure::open(damaged(&newest.path, bytes.len() as u64, &what)));
    }
    follows(newest, recovered)?;
    let scanned = scan(bytes, &newest.header, None);
    match scanned.tail {
        // Cut off between two records: nothing is left of the rest.
        Tail::Clean | Tail::Torn { bytes: 0, .. } => {}
        Tail::Torn { at, bytes } => recovered
            .repairs
            .push(format!("discarded a torn write of {bytes} bytes at byte {at} of {path}: it was never acknowledged")),
        Tail::Damaged { at, what } => return Err(Failure::open(damaged(&newest.path, at as u64, what))),
    }
    if let Some((at, checksum)) = scanned.completed {
        bytes[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
        recovered
            .repairs
            .push(format!("completed the checksum at byte {at} of {path}, of which only a part was there"));
    }
    Ok(take(scanned, recovered))
}

/// Copies a segment's good records into a new one, synced but without its name.
fn rewrite(mut header: Header, scanned: &Scanned, from: &[u8], spare: &mut Spare) -> Outcome<Segment> {
    let mark_bytes = if scanned.record_bytes > 0 { Mark::BYTES as u64 } else { 0 };
    let end = RECORDS_AT + mark_bytes + scanned.record_bytes;
    let (file, capacity, path) = spare.take(end)?;
    (header.capacity, header.published_bytes) = (capacity, end - RECORDS_AT);
    let bytes = u32::try_from(scanned.record_bytes).map_err(|_| {
        Failure::open(format_args!("{} would have a segment of 4 GiB; restore the files as they were", path.display()))
    })?;
    let (mut head, block) = ([0; RECORDS_AT as usize], header.encode());
    head[..block.len()].copy_from_slice(&block);
    let mark = Mark { segment: header.sequence, number: 0, bytes }.encode();
    let mut slices = vec![IoSlice::new(&head)];
    if mark_bytes > 0 {
        slices.push(IoSlice::new(&mark));
        slices.extend(scanned.records.iter().map(|records| IoSlice::new(&from[records.clone()])));
    }
    file.write_at(&mut slices, 0).map_err(failed("write", &path))?;
    file.sync_data().map_err(failed("sync", &path))?;
    let mut segment = Segment::new(header, path, file);
    for (position, before) in &scanned.positions {
        segment.remember(position.index, RECORDS_AT + mark_bytes + before);
    }
    segment.end = end;
    Ok(segment)
}

/// Refuses a segment that does not begin where the ones before it end.
fn follows(segment: &Segment, recovered: &Recovered) -> Outcome<()> {
    let (header, last) = (&segment.header, recovered.last);
    if (header.previous, header.previous_checksum) == (last, recovered.last_checksum) {
        return Ok(());
    }
    let what = format!("it continues entry {}, but the segments before it end with entry {last}", header.previous);
    Err(Failure::open(damaged(&segment.path, 0, &what)))
}

fn take(mut scanned: Scanned, recovered: &mut Recovered) -> Scanned {
    recovered.terms.append(&mut scanned.terms);
    (recovered.last, recovered.last_checksum) = (scanned.last, scanned.last_checksum);
    scanned
}

/// The segments that count, in order, and those that a newer one took the place of.
fn live(wal: &Wal, identity: &Identity, sequences: &[u64]) -> Outcome<(Vec<Segment>, Vec<Segment>)> {
    let (mut live, mut superseded): (Vec<Segment>, Vec<Segment>) = (Vec::new(), Vec::new());
    for sequence in sequences {
        let segment = open_segment(wal, identity, *sequence)?;
        while let Some(older) = live.pop_if(|older| older.header.first() >= segment.header.first()) {
            superseded.push(older);
        }
        live.push(segment);
    }
    Ok((live, superseded))
}

fn open_segment(wal: &Wal, identity: &Identity, sequence: u64) -> Outcome<Segment> {
    let path = wal.dir.join(Segment::name(sequence));
    let file = wal.disk.open(&path).map_err(failed("open", &path))?;
    let mut bytes = [0; super::BLOCK_BYTES];
    let count = file.read_at(&mut bytes, 0).map_err(failed("read", &path))?;
    let header = Header::decode(&bytes[..count]).map_err(|what| Failure::open(damaged(&path, 0, what)))?;
    if header.identity != *identity {
        return Err(hard_state::mismatch(&wal.dir, &header.identity, identity));
    }
    if header.sequence != sequence {
        return Err(Failure::open(damaged(&path, 0, "the header is that of another segment")));
    }
    Ok(Segment::new(header, path, file))
}

fn read_all(segment: &Segment, bytes: &mut Vec<u8>) -> Outcome<()> {
    let error = failed("read", &segment.path);
    let length = segment.file.length().map_err(&error)?;
    bytes.clear();
    bytes.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
    let count = segment.file.read_at(bytes, 0).map_err(&error)?;
    bytes.truncate(count);
    Ok(())
}
