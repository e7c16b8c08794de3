//! Damage: found, and never mistaken for the end of the log.

use super::{
    super::{
        scan::scan,
        segment::{Header, Mark},
    },
    *,
};
use proptest::prelude::*;

#[test]
fn a_flip_of_any_byte_is_survived_or_refused_and_no_acknowledged_entry_is_lost() {
    let (disk, model) = small_log();
    let (mut survived, mut refused) = (0, 0);
    for path in disk.paths() {
        let bytes = disk.contents(&path).expect("it is there");
        let is_used = |offset: &usize| bytes[offset / 512 * 512..].iter().take(512).any(|byte| *byte != 0);
        // Of the space that nothing was written to yet, some bytes stand for all.
        for offset in (0..bytes.len()).filter(|offset| is_used(offset) || offset % 61 == 0) {
            let disk = disk.fork();
            assert!(disk.flip(&path, offset, [0xff, 0x01, 0x80][offset % 3]));
            match open(&disk) {
                Ok((log, recovered)) => {
                    assert_eq!(Model::of(&log, &recovered), model, "byte {offset} of {}", path.display());
                    survived += 1;
                }
                Err(failure) => {
                    let line = failure.error.to_string();
                    assert!(line.contains(path.to_str().expect("a plain name")) && !line.contains('\n'), "{line}");
                    refused += 1;
                }
            }
        }
    }
    println!("of {} flips {survived} changed nothing, {refused} were refused, 0 lost an entry", survived + refused);
    assert!(survived > 1000 && refused > 2000, "{survived} survived, {refused} were refused");
}

#[test]
fn a_zeroed_length_in_the_middle_of_the_tail_is_not_the_end_of_the_log() {
    let (disk, model) = small_log();
    let path = newest(&disk);
    let bytes = disk.contents(&path).expect("it is there");
    let records: Vec<usize> = (4096..bytes.len() - 36)
        .filter(|at| crate::checksum(0, &bytes[*at..at + 32]).to_le_bytes() == bytes[at + 32..at + 36])
        .filter(|at| bytes[*at..at + 32] != [0; 32])
        .collect();
    assert!(records.len() > 5);
    let last_mark = bytes.windows(8).rposition(|window| window == Mark::MAGIC).expect("there is a mark");
    let mut refused = 0;
    for at in records {
        for (from, length) in [(at, 4), (at, 36), (at / 512 * 512, 512)] {
            // Without anything behind the zeros nothing tells them from a write that never arrived.
            if from + length > last_mark {
                continue;
            }
            let disk = disk.fork();
            let mut zeroed = bytes.clone();
            zeroed[from..from + length].fill(0);
            // The length of a record without a payload is zero.
            if zeroed == bytes {
                continue;
            }
            disk.put(&path, zeroed);
            let line = open(&disk).expect_err("zeros are not the end of the log").error.to_string();
            assert!(line.contains("segment is damaged at byte"), "{line}");
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused}");
    assert_eq!(Model::on(&disk), model);
}

#[test]
fn a_segment_that_is_missing_or_too_short_is_refused() {
    let (disk, _) = small_log();
    let counts = |path: &PathBuf| !path.ends_with("spare");
    for path in disk.paths().into_iter().filter(counts) {
        let bytes = disk.contents(&path).expect("it is there");
        for length in [0, 1, 600, 4096, bytes.len() - 1] {
            let disk = disk.fork();
            disk.put(&path, bytes[..length.min(bytes.len() - 1)].to_vec());
            let line = match open(&disk) {
                Err(failure) => failure.error.to_string(),
                // Behind the last copy of term and vote there is nothing but room.
                Ok(_) if path.ends_with("hard-state") && length > 3 * 4096 + 512 => continue,
                Ok(_) => panic!("{} of {length} bytes is not refused", path.display()),
            };
            assert!(line.contains(path.to_str().expect("a plain name")), "{line}");
        }
    }
}

#[test]
fn a_log_without_term_and_vote_is_refused_and_so_is_one_that_lost_its_newest_segment() {
    let (disk, _) = small_log();
    for path in [in_log("hard-state"), newest(&disk)] {
        let gone = SimulatedDisk::new();
        for other in disk.paths().into_iter().filter(|other| *other != path) {
            gone.put(&other, disk.contents(&other).expect("it is there"));
        }
        let line = open(&gone).expect_err("something is missing").error.to_string();
        assert!(line.contains("hard-state") || line.contains("missing"), "{line}");
    }
}

#[test]
fn both_copies_of_the_newest_vote_damaged_is_refused_and_one_is_not() {
    let (disk, model) = small_log();
    let path = in_log("hard-state");
    for damaged in 0..16u8 {
        let disk = disk.fork();
        for copy in (0..4).filter(|copy| damaged >> copy & 1 == 1) {
            disk.flip(&path, copy * 4096 + 24, 0xff);
        }
        match open(&disk) {
            Ok((_, recovered)) => assert_eq!(recovered.hard_state, model.hard_state),
            Err(_) => assert!(damaged & 3 == 3 || damaged & 12 == 12),
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_scan_panic(
        patches in proptest::collection::vec((0usize..9000, proptest::collection::vec(any::<u8>(), 1..80)), 0..8),
        records_at in prop_oneof![Just(4096u64), any::<u64>()],
        published_bytes in any::<u64>(),
        cut in 0usize..9000,
        end in proptest::option::of(0u64..40),
        good in any::<bool>(),
    ) {
        let (mut bytes, header) = if good { a_segment() } else { (vec![0; 9000], a_segment().1) };
        for (at, patch) in patches {
            let fits = patch.len().min(bytes.len() - at.min(bytes.len()));
            bytes[at..at + fits].copy_from_slice(&patch[..fits]);
        }
        bytes.truncate(bytes.len().max(cut) - cut / 2);
        drop(Header::decode(&bytes));
        let header = Header { records_at, published_bytes, ..header };
        let scanned = scan(&bytes, &header, end.map(Index));
        prop_assert!(scanned.records.iter().all(|records| records.end <= bytes.len()));
    }
}

/// Two sealed segments and one that is not, all of it acknowledged.
fn small_log() -> (SimulatedDisk, Model) {
    let disk = SimulatedDisk::new();
    let mut model = Model::default();
    let (mut log, _) = opened(&disk);
    for (term, count, bytes) in [(1, 2, 300), (1, 3, 70), (2, 3, 100), (2, 1, 0), (2, 2, 700), (3, 1, 40), (3, 2, 3)] {
        let group = [model.append(term, count, bytes), model.vote(term, 2)];
        persist(&mut log, &group).expect("it is persisted");
        if term == 1 {
            let last = model.entries.len() as u64;
            persist(&mut log, &[model.truncate(last)]).expect("it is persisted");
        }
    }
    assert_eq!(log.sealed.len(), 2);
    drop(log);
    (disk, model)
}

/// A good segment of a few marks and records.
fn a_segment() -> (Vec<u8>, Header) {
    let mut model = Model::default();
    let header = Header {
        identity: super::super::Identity { cluster: "test".into(), member: NodeId(1) },
        sequence: 7,
        previous: EntryId::default(),
        previous_checksum: 0,
        records_at: 4096,
        published_bytes: 0,
        capacity: 9000,
    };
    let mut bytes = vec![0; 4096];
    bytes[..512].copy_from_slice(&header.encode());
    for (number, count) in [3, 1, 5].into_iter().enumerate() {
        let batch = model.append(1, count, 90).batch.expect("a batch");
        let mark = Mark { segment: 7, number: number as u64, bytes: batch.bytes().len() as u32 };
        bytes.extend(mark.encode());
        bytes.extend(batch.bytes());
    }
    bytes.resize(9000, 0);
    (bytes, header)
}
