//! Files with good checksums and contents that no log writes: refused in one line or ignored, and
//! never a panic or a full disk.

use super::{
    super::{
        header::Header,
        seal_block,
        slot::{self, Slot},
    },
    *,
};

#[test]
fn a_vote_counted_further_than_any_store_gets_is_damaged() {
    let (disk, _) = a_log();
    let path = in_log("hard-state");
    let good = disk.contents(&path).expect("it is there");
    for sequence in [u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1] {
        let mut bytes = good.clone();
        for copy in 0..4 {
            bytes[copy * 4096 + 16..copy * 4096 + 24].copy_from_slice(&sequence.to_le_bytes());
            seal_block(&mut bytes, copy * 4096);
        }
        disk.put(&path, bytes);
        let line = open(&disk).expect_err("it is damaged").error.to_string();
        assert!(line.contains("hard-state") && line.contains("damaged"), "{line}");
    }
}

/// Version 1 had no promise: reading it as none would forget a promise that the member made.
#[test]
fn a_hard_state_of_another_format_version_is_refused_by_name() {
    let (disk, _) = a_log();
    let path = in_log("hard-state");
    let good = disk.contents(&path).expect("it is there");
    for (version, whose) in [(1, "an earlier"), (3, "a later")] {
        let mut bytes = good.clone();
        for copy in 0..4 {
            bytes[copy * 4096 + 8] = version;
            seal_block(&mut bytes, copy * 4096);
        }
        disk.put(&path, bytes);
        let line = open(&disk).expect_err("it is refused").error.to_string();
        assert!(line.contains(&format!("hard-state: format version {version} is of {whose} program")), "{line}");
    }
}

#[test]
fn a_segment_numbered_further_than_any_log_gets_is_refused_by_its_name() {
    for sequence in [u64::MAX, u64::MAX - 1, u64::MAX / 2 + 1] {
        let (disk, _) = a_log();
        let contents = disk.contents(&newest(&disk)).expect("it is there");
        let name = format!("{sequence:020}.segment");
        disk.put(&in_log(&name), contents);
        let line = open(&disk).expect_err("no log gets there").error.to_string();
        assert!(line.contains(&name) && line.contains("damaged"), "{line}");
    }
}

#[test]
fn a_file_that_is_named_almost_like_a_segment_is_none() {
    let (disk, model) = a_log();
    let contents = disk.contents(&newest(&disk)).expect("it is there");
    for name in ["+0000000000000000009.segment", "9.segment", "00000000000000000009.segment.old"] {
        disk.put(&in_log(name), contents.clone());
    }
    assert_eq!(Model::on(&disk), model);
}

/// Otherwise a start would fill the disk with zeros, for an entry that never existed.
#[test]
fn a_slot_of_a_record_that_does_not_fit_its_segment_counts_for_nothing() {
    for payload_bytes in [u32::MAX, 1 << 30, FILE_BYTES as u32] {
        let (disk, model) = a_log();
        let path = newest(&disk);
        let mut bytes = disk.contents(&path).expect("it is there");
        let header = Header::decode(&bytes).expect("the header holds");
        let last = model.entries.last().expect("there are entries");
        let record = bytes.windows(last.bytes.len()).position(|window| window == last.bytes).expect("its record");
        let slot = Slot {
            id: last.id,
            checksum: last.checksum,
            offset: record as u32,
            payload_bytes,
            kind: Kind::Command as u8,
            is_unproven: false,
        };
        let place = slot::place(&header, last.id.index).expect("it has a slot") as usize;
        bytes[place..place + Slot::BYTES].copy_from_slice(&slot.encode(slot::seed(header.sequence)));
        // The last group begins with entry 4.
        let seed = slot::group_seed(header.sequence, model.entries[2].checksum);
        let good = Slot { payload_bytes: 50, ..slot }.encode(seed);
        let in_group = bytes.windows(Slot::BYTES).position(|window| window == good).expect("it is in its group");
        bytes[in_group..in_group + Slot::BYTES].copy_from_slice(&slot.encode(seed));
        disk.put(&path, bytes);
        disk.fill_after(FILE_BYTES * 2);
        let whole = disk.fork();
        assert_eq!(Model::on(&whole), model, "the record says what its slot was");
        assert!(disk.flip(&path, record, 1));
        let line = open(&disk).expect_err("both places are damaged").error.to_string();
        assert!(line.contains("damaged at byte"), "{line}");
    }
}

/// A log of a few entries, all acknowledged and proven.
fn a_log() -> (SimulatedDisk, Model) {
    let disk = SimulatedDisk::new();
    let mut model = Model::default();
    let (mut log, _) = opened(&disk);
    for (term, count) in [(1, 3), (2, 4)] {
        let group = [model.vote(term, 1), model.append(term, count, 50)];
        persist_idly(&mut log, &group).expect("it is persisted");
    }
    drop(log);
    disk.crash(quorate_storage_testing::Crash::Keep);
    (disk, model)
}
