//! The bytes of a snapshot's file, as `FORMAT.md` says. The expected checksums were computed
//! by another program.

use super::*;
use crate::expected::assert_bytes;

const MEMBER: NodeId = NodeId(0x7877_7675_7473_7271);

#[test]
fn a_snapshot_of_three_chunks() {
    let fields = [
        (0, "51 55 4f 52 53 4e 41 50  02 00 00 00  00 00 00 00"), // QUORSNAP, version, features
        (16, "11 12 13 14 15 16 17 18  01 02 03 04 05 06 07 08"), // index, term
        (32, "71 72 73 74 75 76 77 78  a1 a2 a3 a4"),             // member, checksum of the last record
        // bytes of state in a chunk, bytes of the membership, chunks_at
        (44, "04 00 00 00  29 00 00 00  00 10 00 00"),
        (56, "04 74 65 73 74"),           // cluster
        (312, "21 22 23 24 25 26 27 28"), // index of the membership
        (508, "fe 47 64 63"),             // checksum
        (512, "01 00 00 00 09"),          // membership
        // the head's checksum, chunk, checksum of the state up to here
        (4092, "46 f3 2b 48  61 62 63 64  31 0a c8 92"),
        (4104, "65 66 67 68  b7 21 94 0a  69 6a"), // chunk, checksum of the state up to here, chunk
        (4114, "37 94 59 e6  51 55 4f 52 44 4f 4e 45"), // checksum of the state up to here, QUORDONE
        // the head's checksum, checksum of the state, bytes of state
        (4126, "46 f3 2b 48  37 94 59 e6  0a 00 00 00 00 00 00 00"),
        (4626, "1f 6d ab 74"), // checksum
    ];
    assert_bytes(&file_of(b"abcdefghij", Some(4)), 4630, &fields);
}

#[test]
fn a_snapshot_of_one_chunk_of_the_real_size() {
    let fields = [
        (0, "51 55 4f 52 53 4e 41 50  02 00 00 00  00 00 00 00"), // QUORSNAP, version, features
        (16, "11 12 13 14 15 16 17 18  01 02 03 04 05 06 07 08"), // index, term
        (32, "71 72 73 74 75 76 77 78  a1 a2 a3 a4"),             // member, checksum of the last record
        // bytes of state in a chunk, bytes of the membership, chunks_at
        (44, "00 00 04 00  29 00 00 00  00 10 00 00"),
        (56, "04 74 65 73 74"),           // cluster
        (312, "21 22 23 24 25 26 27 28"), // index of the membership
        (508, "8c 96 b8 46"),             // checksum
        (512, "01 00 00 00 09"),          // membership
        // the head's checksum, chunk, checksum of the state up to here
        (4092, "46 f3 2b 48  61 62 63  b7 3f 4b 36"),
        // QUORDONE, the head's checksum, checksum of the state
        (4103, "51 55 4f 52 44 4f 4e 45  46 f3 2b 48  b7 3f 4b 36"),
        (4119, "03 00 00 00 00 00 00 00"), // bytes of state
        (4611, "58 f6 a4 4d"),             // checksum
    ];
    assert_bytes(&file_of(b"abc", None), 4615, &fields);
}

/// The file of a snapshot of this state.
fn file_of(state: &[u8], chunk_bytes: Option<usize>) -> Vec<u8> {
    let disk = SimulatedDisk::new();
    let opened = SnapshotStore::open(Arc::new(disk.clone()), DIR, "test", MEMBER, Arc::new(Unobserved));
    let mut store = opened.expect("the store opens").0;
    if let Some(bytes) = chunk_bytes {
        Arc::get_mut(&mut store.shared).expect("nothing is being written").chunk_bytes = bytes;
    }
    let base = SnapshotBase {
        last: EntryId::new(Term(0x0807_0605_0403_0201), Index(0x1817_1615_1413_1211)),
        last_checksum: 0xa4a3_a2a1,
        membership: Membership::of_voters([NodeId(9)]),
        membership_index: Index(0x2827_2625_2423_2221),
    };
    let mut sink = store.begin(base, None).expect("begun");
    sink.write_all(state).expect("written");
    sink.finish().expect("finished");
    let path = Path::new(DIR).join("01735880461161533969-578437695752307201.snapshot");
    disk.contents(&path).expect("a file of this name")
}
