//! Damage that one place alone can't repair: found, and never mistaken for the end of the log.

use super::{
    super::{
        group::Mark,
        header::{COPY_AT, Header, Layout},
        scan::{State, scan},
        seal_block,
        slot::{self, Slot},
    },
    *,
};
use proptest::prelude::*;

/// A zeroed length in the newest segment is not the end of the log.
#[test]
fn zeros_in_the_middle_of_the_tail_are_not_the_end_of_the_log() {
    let (disk, model) = small_log();
    let path = newest(&disk);
    let bytes = disk.contents(&path).expect("it is there");
    let held = model.entries.iter().filter_map(|entry| {
        let length = entry.bytes.len();
        let at = bytes.windows(length).position(|window| window == entry.bytes)?;
        Some((at, length))
    });
    let mut faulty = 0;
    for (at, length) in held {
        for (from, length) in [(at, 4), (at, 36), (at, length), (at / 512 * 512, 512)] {
            let disk = disk.fork();
            assert!(disk.zero(&path, from..from + length));
            let (mut log, recovered) = opened(&disk);
            assert_eq!(Model::of(&log, &recovered), model, "every entry is known");
            assert!(recovered.faulty.iter().all(|faulty| faulty.was_durable));
            faulty += recovered.faulty.len();
            persist(&mut log, &model.repairs(&recovered)).expect("it is repaired");
            drop(log);
            assert_eq!(Model::on(&disk), model);
        }
    }
    assert!(faulty > 5, "{faulty}");
}

#[test]
fn both_places_of_an_entry_damaged_is_refused_if_anything_follows_and_never_read_as_something_else() {
    let (disk, model) = small_log();
    let (mut refused, mut in_groups) = (0, 0);
    for path in segments(&disk) {
        let bytes = disk.contents(&path).expect("it is there");
        let header = Header::decode(&bytes).expect("the header holds");
        for entry in &model.entries {
            let record = bytes.windows(entry.bytes.len()).position(|window| window == entry.bytes);
            let Some((record, slot)) = record.zip(slot::place(&header, entry.id.index)) else { continue };
            let fields = &bytes[slot as usize..slot as usize + 36];
            // A truncation cuts off the slots in its group.
            let in_group = bytes.windows(36).rposition(|window| window == fields).filter(|at| *at > record);
            in_groups += usize::from(in_group.is_some());
            for (in_record, in_slot) in [(0, 0), (20, 12), (35, 39), (entry.bytes.len() - 1, 5)] {
                let disk = disk.fork();
                assert!(disk.flip(&path, record + in_record, 0x10) && disk.flip(&path, slot as usize + in_slot, 0x10));
                if let Some(in_group) = in_group {
                    assert_eq!(Model::of_any(&disk.fork()), model, "its slot in its group is left");
                    assert!(disk.flip(&path, in_group + in_slot, 0x10));
                }
                let line = open(&disk).expect_err("all places are damaged").error.to_string();
                assert!(
                    line.contains(path.to_str().expect("a plain name")) && line.contains("damaged at byte"),
                    "{line}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 40 && in_groups > 8, "{refused} refused, {in_groups} with a slot in their group");
}

#[test]
fn a_segment_that_is_missing_is_refused_but_the_oldest_as_if_it_had_been_cut_off() {
    let (disk, model) = small_log();
    for (number, path) in segments(&disk).iter().enumerate() {
        let disk = disk.fork();
        disk.lose(path);
        if number == 0 {
            let (log, recovered) = opened(&disk);
            // Without a snapshot that reaches there, the node knows that its state is lost.
            assert!(recovered.base.index > Index(0) && recovered.snapshot.is_none());
            assert!(model.entries.ends_with(&Model::of(&log, &recovered).entries));
            continue;
        }
        let line = open(&disk).expect_err("a segment is missing").error.to_string();
        assert!(line.contains("segment is damaged at byte"), "{line}");
    }
}

#[test]
fn a_log_without_term_and_vote_is_refused() {
    let (disk, _) = small_log();
    disk.lose(&in_log("hard-state"));
    let line = open(&disk).expect_err("something is missing").error.to_string();
    assert!(line.contains("hard-state"), "{line}");
}

#[test]
fn a_term_before_that_of_the_log_is_refused_for_votes_are_lost() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut model = Model::default();
    persist(&mut log, &[model.vote(3, 1), model.append(3, 2, 10)]).expect("it is persisted");
    let old = disk.contents(&in_log("hard-state")).expect("it is there");
    persist(&mut log, &[model.vote(7, 1), model.append(7, 2, 10)]).expect("it is persisted");
    drop(log);
    assert_eq!(Model::on(&disk), model);
    disk.put(&in_log("hard-state"), old);
    let line = open(&disk).expect_err("a vote is lost").error.to_string();
    assert!(line.contains("term 3") && line.contains("term 7") && line.contains("votes are lost"), "{line}");
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

#[test]
fn a_slot_of_another_segment_or_entry_counts_for_nothing() {
    let (disk, model) = small_log();
    let (path, first) = (newest(&disk), segments(&disk)[0].clone());
    for number in 0..4 {
        for (from, other) in [(&first, number), (&path, number + 1)] {
            let disk = disk.fork();
            let slot = 8192 + number * Slot::BYTES;
            assert!(disk.misplace(&path, slot..slot + Slot::BYTES, from, 8192 + other * Slot::BYTES));
            let (log, recovered) = opened(&disk);
            assert_eq!(recovered.faulty, [], "the records hold");
            assert_eq!(Model::of(&log, &recovered), model);
        }
    }
}

/// The remedy for damage, to empty the directory, would destroy the data.
#[test]
fn a_segment_of_another_program_is_not_taken_for_a_damaged_one() {
    let knows_6 = "this one knows 6; start it with the program that wrote it";
    let features = "format features 0x80000000 are of a later program, this one does not know them; \
                    start it with the program that wrote it";
    let (disk, _) = small_log();
    for (field, value, words) in [
        (8, 5, &*format!("format version 5 is of an earlier program, {knows_6}")),
        (8, 7, &*format!("format version 7 is of a later program, {knows_6}")),
        (15, 0x80, features),
    ] {
        for (path, copies) in segments(&disk)
            .into_iter()
            .flat_map(|path| [&[0][..], &[COPY_AT], &[0, COPY_AT]].map(|copies| (path.clone(), copies)))
        {
            let disk = disk.fork();
            let mut bytes = disk.contents(&path).expect("it is there");
            for at in copies {
                bytes[at + field] = value;
                seal_block(&mut bytes, *at);
            }
            disk.put(&path, bytes.clone());
            let line = open(&disk).expect_err("another program wrote it").error.to_string();
            assert_eq!(line, format!("{}: {words}", path.display()), "copies at {copies:?}");
            assert_eq!(disk.contents(&path), Some(bytes), "it stays as it was");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_scan_panic(
        patches in proptest::collection::vec((0usize..12000, proptest::collection::vec(any::<u8>(), 1..80)), 0..8),
        records_at in prop_oneof![Just(8704u64), any::<u64>()],
        slots_bytes in prop_oneof![Just(512u64), Just(0), any::<u64>()],
        published_bytes in any::<u64>(),
        cut in 0usize..12000,
        end in proptest::option::of(0u64..40),
        good in any::<bool>(),
    ) {
        let (mut bytes, header) = if good { a_segment() } else { (vec![0; 12000], a_segment().1) };
        for (at, patch) in patches {
            let fits = patch.len().min(bytes.len() - at.min(bytes.len()));
            bytes[at..at + fits].copy_from_slice(&patch[..fits]);
        }
        bytes.truncate(bytes.len().max(cut) - cut / 2);
        drop(Header::decode(&bytes));
        let layout = Layout { records_at, slots_bytes: slots_bytes.min(u64::MAX - 8192), ..header.layout };
        let header = Header { layout, published_bytes, ..header };
        let scanned = scan(&bytes, &header, end.map(Index));
        let whole = scanned.entries.iter().filter(|entry| entry.state == State::Whole);
        prop_assert!(whole.into_iter().all(|entry| entry.range().end <= bytes.len()));
    }
}

/// Two sealed segments and an active one, all acknowledged and proven.
fn small_log() -> (SimulatedDisk, Model) {
    let disk = SimulatedDisk::new();
    let mut model = Model::default();
    let (mut log, _) = opened(&disk);
    for (term, count, bytes) in [(1, 2, 300), (1, 3, 70), (2, 3, 100), (2, 1, 0), (2, 2, 700), (3, 1, 40), (3, 2, 3)] {
        let group = [model.append(term, count, bytes), model.vote(term, 2)];
        persist_idly(&mut log, &group).expect("it is persisted");
        if term == 1 {
            let last = model.entries.len() as u64;
            persist_idly(&mut log, &[model.truncate(last)]).expect("it is persisted");
        }
    }
    assert_eq!(log.sealed.len(), 2);
    drop(log);
    disk.crash(quorate_storage_testing::Crash::Keep);
    (disk, model)
}

/// A good segment of a few marks and records.
fn a_segment() -> (Vec<u8>, Header) {
    let mut model = Model::default();
    let layout = Layout { slots_at: 8192, slots_bytes: 512, records_at: 8704, capacity: 12_000 };
    let header = Header {
        identity: super::super::Identity { cluster: "test".into(), member: NodeId(1) },
        sequence: 7,
        previous: EntryId::default(),
        previous_checksum: 0,
        starts_over: false,
        layout,
        published_bytes: 0,
    };
    let mut bytes = vec![0; 8704];
    bytes[..512].copy_from_slice(&header.encode());
    let mut slots = Vec::new();
    for (number, count) in [3, 1, 5].into_iter().enumerate() {
        let seed = slot::group_seed(7, model.last().1);
        let batch = model.append(1, count, 90).batch.expect("a batch");
        let mark = Mark { segment: 7, number: number as u32, count: count as u32, bytes: batch.bytes().len() as u32 };
        let extent = mark.extent(bytes.len() as u64);
        bytes.extend(mark.encode());
        let mut in_group = Vec::new();
        for record in batch.records() {
            let slot = Slot::of(&record, bytes.len() as u64);
            slots.extend(slot.encode(slot::seed(7)));
            in_group.extend(slot.encode(seed));
            bytes.extend(&model.entries[record.id.index.0 as usize - 1].bytes);
        }
        bytes.resize(extent.slots_at as usize, 0);
        bytes.extend(in_group);
    }
    bytes[8192..8192 + slots.len()].copy_from_slice(&slots);
    bytes.resize(12_000, 0);
    (bytes, header)
}
