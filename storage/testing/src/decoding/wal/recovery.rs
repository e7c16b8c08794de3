//! Properties of a start on a data directory, for files of any bytes.

use super::{
    format, is_counted_out, is_one_line,
    logs::{self, DIR},
    seal_slot,
};
use crate::{
    Crash, SimulatedDisk,
    decoding::{Edit, Edits, edit, seal_block, seal_records},
};
use quorate_raft::{EntryId, Persist};
use quorate_storage::{
    Recovered,
    internals::{
        Log, segment_name, segment_sequence,
        slot::{self, Slot},
    },
};
use std::path::{Path, PathBuf};

/// Recovers the log on a disk with edited files.
///
/// An input is a byte that picks a log and edits of its files, whose target picks a file. Own
/// operations: a checksum is recomputed (a block's, a slot's, or those of records), a file replaces
/// another one, gets another name, or is removed.
///
/// # Panics
/// If one of these does not hold: an error is one line; every entry that is not faulty can be
/// read, with all its checksums, chained to its predecessor; the recovered terms and last entry
/// are those of the entries; a second start finds the same; and an entry appended then is there
/// after the next start.
pub fn recovery(input: &[u8]) {
    thread_local! {
        static LOGS: Vec<SimulatedDisk> = logs::disks();
    }
    let Some((control, rest)) = input.split_first() else { return };
    let disk = LOGS.with(|logs| logs[usize::from(*control) % logs.len()].fork());
    Edits(rest).take(40).for_each(|edit| change(&disk, &edit));
    if disk.contents(&Path::new(DIR).join(format::NAME)).is_some_and(|bytes| is_counted_out(&bytes)) {
        return;
    }
    let (log, recovered) = match logs::open(&disk) {
        Ok(opened) => opened,
        Err(failure) => return is_one_line(&failure),
    };
    assert!(recovered.repairs.iter().all(|line| line.lines().count() == 1), "{:?}", recovered.repairs);
    let entries = read(&log, &recovered);
    drop(log);
    disk.crash(Crash::Lose);

    let (mut log, again) = reopened(&disk);
    assert_eq!(read(&log, &again), entries);
    let found = |recovered: &Recovered| {
        let Recovered { base, last, last_checksum, .. } = *recovered;
        let Recovered { terms, memberships, snapshot, holdings, has_voted, .. } = recovered.clone();
        (recovered.hard_state, base, last, last_checksum, terms, memberships, snapshot, holdings, has_voted)
    };
    assert_eq!(found(&again), found(&recovered), "a second start finds what the first one found");
    // The second start restores the place of a record that was cut off with the file; a record
    // without a payload is whole then.
    assert!(again.faulty.iter().all(|faulty| recovered.faulty.contains(faulty)));
    if again.last.index.next().next() == again.last.index.next() {
        return;
    }
    let term = again.last.term.max(again.hard_state.term);
    let batch = logs::batch(term.0, (again.last, again.last_checksum), 1, 33);
    let persist = Persist { batch: Some(batch.clone()), ..Persist::default() };
    log.stage(&persist).and_then(|()| log.sync()).unwrap_or_else(|failure| panic!("{}", failure.error));
    drop(log);
    disk.crash(Crash::Lose);
    let (_, last) = reopened(&disk);
    assert_eq!((last.last, last.last_checksum), (batch.last_id(), batch.checksum()));
}

fn reopened(disk: &SimulatedDisk) -> (Log, Recovered) {
    logs::open(disk).unwrap_or_else(|failure| panic!("it opened before: {}", failure.error))
}

/// Every entry's id and checksum, read back unless it is faulty.
fn read(log: &Log, recovered: &Recovered) -> Vec<(EntryId, u32)> {
    let (mut entries, mut next) = (Vec::new(), recovered.base.index.next());
    assert!(recovered.faulty.is_sorted_by(|one, other| one.id.index < other.id.index));
    let mut faulty = recovered.faulty.iter().peekable();
    while next <= recovered.last.index {
        if let Some(lost) = faulty.next_if(|lost| lost.id.index == next) {
            assert!(log.read(next, next, 0).is_ok_and(|batches| batches.is_empty()), "a faulty entry is not read");
            entries.push((lost.id, lost.checksum));
            next = next.next();
            continue;
        }
        let batches = log.read(next, recovered.last.index, 1 << 20);
        let batches = batches.unwrap_or_else(|failure| panic!("what was recovered is read: {}", failure.error));
        assert!(!batches.is_empty(), "{next} is there");
        for record in batches.iter().flat_map(|batch| batch.records()) {
            assert_eq!(record.id.index, next);
            if let Some((EntryId { term, .. }, checksum)) = entries.last() {
                assert_eq!(record.previous_checksum, *checksum);
                assert!(record.id.term >= *term);
            }
            entries.push((record.id, record.checksum));
            next = next.next();
        }
    }
    assert_eq!(faulty.next(), None, "all of them are entries");
    let (last, last_checksum) = (recovered.last, recovered.last_checksum);
    assert!(entries.last().is_none_or(|entry| *entry == (last, last_checksum)));
    assert!(last >= recovered.base && !(entries.is_empty() && last != recovered.base));
    let mut terms: Vec<_> = entries.iter().map(|(id, _)| (id.index, id.term)).collect();
    terms.dedup_by_key(|(_, term)| *term);
    assert_eq!(recovered.terms, terms);
    assert!(recovered.terms.last().is_none_or(|(_, term)| *term <= recovered.hard_state.term));
    assert!(recovered.memberships.iter().all(|(index, _)| (recovered.base.index..=last.index).contains(index)));
    entries
}

/// Recomputes the checksum of a block or slot, or those of records, by `count`.
const SEAL: u8 = Edit::OWN;
/// Copies the content of file number `at` over it.
const COPY: u8 = Edit::OWN + 1;
/// Gives the file the name of another segment.
const RENAME: u8 = Edit::OWN + 2;
const LOSE: u8 = Edit::OWN + 3;

fn change(disk: &SimulatedDisk, edit: &Edit<'_>) {
    let paths = disk.paths();
    let Some(path) = paths.get(usize::from(edit.target) % paths.len().max(1)) else { return };
    let Some(mut bytes) = disk.contents(path) else { return };
    match edit.operation {
        SEAL => seal(&mut bytes, path, edit),
        COPY => bytes = disk.contents(&paths[edit.at % paths.len()]).unwrap_or_default(),
        RENAME => {
            // Small ones, and the highest ones.
            let count = edit.count as u64;
            let sequence = if count < 200 { count } else { u64::MAX - (255 - count) };
            return disk.put(&PathBuf::from(DIR).join(segment_name(sequence)), bytes);
        }
        LOSE => return disk.lose(path),
        _ => edit.apply(&mut bytes),
    }
    disk.put(path, bytes);
}

fn seal(bytes: &mut [u8], path: &Path, edit: &Edit<'_>) {
    match edit.count % 3 {
        0 => seal_block(bytes, edit.at),
        1 => {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(slot) = bytes.get_mut(edit.at..edit.at + Slot::BYTES) {
                seal_slot(slot, slot::seed(segment_sequence(name).unwrap_or(0)));
            }
        }
        _ => {
            let from = edit.at.min(bytes.len());
            seal_records(&mut bytes[from..]);
        }
    }
}

/// Inputs for [`recovery`].
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let on = |target: u8, edit: Vec<u8>| [&[edit[0] | target << 4], &edit[1..]].concat();
    let mut seeds: Vec<Vec<u8>> = (0..4).map(|log| vec![log]).collect();
    let hard_state_at_most = [on(1, edit(0, 16, 0, &[0xff; 8])), on(1, edit(SEAL, 0, 0, &[]))].concat();
    for (log, edits) in [
        (1, on(0, edit(1, 8192 + 2048 + 512 + 70, 0, &[1, 2]))),
        (1, on(1, edit(RENAME, 0, 9, &[]))),
        (1, on(1, edit(RENAME, 0, 255, &[]))),
        (1, on(1, edit(4, 11_122, 0, &[]))),
        (1, on(0, edit(LOSE, 0, 0, &[]))),
        (2, on(0, edit(2, 512, 60, &[]))),
        (2, on(3, edit(1, 24, 0, &[4]))),
        (3, hard_state_at_most),
        (3, on(0, edit(1, 8192 + 4, 0, &[9]))),
    ] {
        seeds.push([&[log], &edits[..]].concat());
    }
    seeds
}
