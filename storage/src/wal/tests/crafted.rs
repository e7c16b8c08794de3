//! Files whose checksums hold, and which say what no log says: refused in one line or passed over, and never a panic or a full disk.

use super::{super::seal_block, *};

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

/// A log of a few entries, all of them acknowledged and proven to be.
fn a_log() -> (SimulatedDisk, Model) {
    let disk = SimulatedDisk::new();
    let mut model = Model::default();
    let (mut log, _) = opened(&disk);
    for (term, count) in [(1, 3), (2, 4)] {
        let group = [model.vote(term, 1), model.append(term, count, 50)];
        persist_idly(&mut log, &group).expect("it is persisted");
    }
    drop(log);
    disk.crash(crate::disk::Crash::Keep);
    (disk, model)
}
