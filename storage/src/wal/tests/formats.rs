//! The bytes of every file of the log but snapshots, as `FORMAT.md` says. The expected checksums
//! were computed by another program.

use super::{
    super::{
        Identity, Stage,
        group::Mark,
        hard_state::HardStateFile,
        header::{Header, Layout},
        holdings, slot,
        slot::Slot,
    },
    *,
};
use crate::{disk::Disk, expected::assert_bytes};
use quorate_raft::{
    ClusterId, MemberDescription, MemberMetadata, Membership, Promise,
    session::{LogTime, Request, SessionKey, Stamp},
    tick::{Bounds, Tick},
};

const TERM: Term = Term(0x0807_0605_0403_0201);
const INDEX: Index = Index(0x1817_1615_1413_1211);
const MEMBER: NodeId = NodeId(0x7877_7675_7473_7271);

#[test]
fn a_header_of_a_segment() {
    let mut header = Header {
        identity: identity(),
        sequence: 0x1817_1615_1413_1211,
        previous: EntryId::new(TERM, Index(0x2827_2625_2423_2220)),
        previous_checksum: 0xa4a3_a2a1,
        starts_over: true,
        layout: Layout {
            slots_at: 0x2000,
            slots_bytes: 0x3837_3635_3433_3200,
            records_at: 0x4847_4645_4443_4240,
            capacity: 0x6867_6665_6463_6261,
        },
        published_bytes: 0x5857_5655_5453_5251,
    };
    let fields = [
        (0, "51 55 4f 52 53 45 47 4d  06 00 00 00  01 00 00 00"), // QUORSEGM, version, features
        (16, "11 12 13 14 15 16 17 18  71 72 73 74 75 76 77 78"), // sequence, member
        (32, "21 22 23 24 25 26 27 28  01 02 03 04 05 06 07 08"), // first index, term of the entry before
        (48, "a1 a2 a3 a4"),                                      // checksum of the record before
        (56, "00 20 00 00 00 00 00 00  00 32 33 34 35 36 37 38"), // slots_at, slots_bytes
        (72, "40 42 43 44 45 46 47 48  51 52 53 54 55 56 57 58"), // records_at, published_bytes
        (88, "61 62 63 64 65 66 67 68  04 74 65 73 74"),          // length of the file, the cluster's name
        (508, "32 b8 7e ff"),                                     // checksum
    ];
    assert_bytes(&header.encode(), 512, &fields);
    assert_eq!(Header::decode(&header.encode()).as_ref(), Ok(&header));

    // The first of its log.
    header.identity = Identity { cluster: String::new(), member: NodeId(7) };
    (header.sequence, header.previous, header.previous_checksum) = (1, EntryId::default(), 0);
    (header.starts_over, header.published_bytes) = (false, 0);
    header.layout = Layout { slots_at: 0x2000, slots_bytes: 0x200, records_at: 0x2400, capacity: 0x3000 };
    let fields = [
        (0, "51 55 4f 52 53 45 47 4d  06 00 00 00  00 00 00 00"), // QUORSEGM, version, features
        (16, "01 00 00 00 00 00 00 00  07 00 00 00 00 00 00 00"), // sequence, member
        (32, "01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00"), // first index, term of the entry before
        (48, "00 00 00 00"),                                      // checksum of the record before
        (56, "00 20 00 00 00 00 00 00  00 02 00 00 00 00 00 00"), // slots_at, slots_bytes
        (72, "00 24 00 00 00 00 00 00  00 00 00 00 00 00 00 00"), // records_at, published_bytes
        (88, "00 30 00 00 00 00 00 00  00"),                      // length of the file, the cluster's name
        (508, "6b 32 6d be"),                                     // checksum
    ];
    assert_bytes(&header.encode(), 512, &fields);
    assert_eq!(Header::decode(&header.encode()), Ok(header));
}

#[test]
fn a_mark() {
    let fields = [
        (0, "51 55 4f 52 4d 41 52 4b  01 02 03 04 05 06 07 08"), // QUORMARK, segment
        (16, "11 12 13 14  15 16 17 18  21 22 23 24  89 b6 bb 1a"), // number, count, bytes of records, checksum
    ];
    let mark = Mark { segment: TERM.0, number: 0x1413_1211, count: 0x1817_1615, bytes: 0x2423_2221 };
    assert_bytes(&mark.encode(), 32, &fields);
    assert_eq!(Mark::decode(&mark.encode(), 0, TERM.0), Some(mark));
}

#[test]
fn a_slot() {
    let sequence = 0x7877_7675_7473_7271;
    let (in_table, in_group) = (slot::seed(sequence), slot::group_seed(sequence, 0xa4a3_a2a1));
    // Flags, and the checksum over them: from the segment's sequence, and in a group from the checksum
    // of the record before.
    for (seed, is_unproven, flags, checksum) in [
        (in_table, false, "00", "84 16 1c 85"),
        (in_table, true, "01", "fa 84 5d 20"),
        (in_group, false, "00", "8c 63 d8 d9"),
    ] {
        let slot = Slot {
            id: EntryId::new(TERM, INDEX),
            checksum: 0xa4a3_a2a1,
            offset: 0xb4b3_b2b1,
            payload_bytes: 0x2423_2221,
            kind: 4,
            is_unproven,
        };
        let fields = [
            // checksum of the record, offset of the record, term
            (0, "a1 a2 a3 a4  b1 b2 b3 b4  01 02 03 04 05 06 07 08"),
            // index, payload length, group, kind
            (16, "11 12 13 14 15 16 17 18  21 22 23 24  00 00 00 00  04"),
            (33, flags),
            (34, "00 00"), // zero
            (36, checksum),
        ];
        assert_bytes(&slot.encode(seed), 40, &fields);
    }
}

#[test]
fn a_proof() {
    let fields = [
        (4, "b1 b2 b3 b4"),              // end of the last record
        (16, "11 12 13 14 15 16 17 18"), // index of the next entry
        (33, "04"),                      // flags
        (36, "f8 16 0d 8f"),             // checksum, from the segment's sequence
    ];
    assert_bytes(&Slot::proof(INDEX, 0xb4b3_b2b1, slot::seed(0x7877_7675_7473_7271)), 40, &fields);
}

#[test]
fn a_segment_of_two_groups_and_a_proof() {
    let disk = SimulatedDisk::new();
    let (mut log, _) = opened(&disk);
    let mut previous = 0;
    for (first, entries) in [(1, &[(Kind::Noop, ""), (Kind::Command, "a")][..]), (3, &[(Kind::Command, "b")])] {
        let mut builder = BatchBuilder::new(crate::checksum, Term(1), Index(first), previous, 0);
        entries.iter().for_each(|(kind, payload)| builder.push(*kind, payload.as_bytes()));
        let batch = builder.finish().expect("something was pushed");
        previous = batch.checksum();
        persist(&mut log, &[Persist { batch: Some(batch), ..Persist::default() }]).expect("it is persisted");
    }
    log.settle().expect("the table is written");
    let file = disk.contents(&in_log("00000000000000000001.segment")).expect("the first segment");
    let fields = [
        (0, "51 55 4f 52 53 45 47 4d  06 00 00 00  00 00 00 00"), // QUORSEGM, version, features
        (16, "01 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00"), // sequence, member
        (32, "01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00"), // first index, term of the entry before
        (48, "00 00 00 00"),                                      // checksum of the record before
        (56, "00 20 00 00 00 00 00 00  00 08 00 00 00 00 00 00"), // slots_at, slots_bytes
        (72, "00 2a 00 00 00 00 00 00  00 00 00 00 00 00 00 00"), // records_at, published_bytes
        (88, "00 62 00 00 00 00 00 00  04 74 65 73 74"),          // length of the file, the cluster's name
        (508, "55 64 65 cf"),                                     // checksum
        // copy: QUORSEGM, copy: version, copy: features
        (4096, "51 55 4f 52 53 45 47 4d  06 00 00 00  00 00 00 00"),
        (4112, "01 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00"), // copy: sequence, copy: member
        // copy: first index, copy: term of the entry before
        (4128, "01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00"),
        (4144, "00 00 00 00"), // copy: checksum of the record before
        (4152, "00 20 00 00 00 00 00 00  00 08 00 00 00 00 00 00"), // copy: slots_at, copy: slots_bytes
        (4168, "00 2a 00 00 00 00 00 00  00 00 00 00 00 00 00 00"), // copy: records_at, copy: published_bytes
        (4184, "00 62 00 00 00 00 00 00  04 74 65 73 74"), // copy: length of the file, copy: the cluster's name
        (4604, "55 64 65 cf"), // copy: checksum
        // slot in the table: checksum of the record, offset of the record
        (8192, "da f9 d2 c2  20 2a 00 00"),
        // slot in the table: term, index, payload length
        (8200, "01 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00  00 00 00 00"),
        // slot in the table: group, kind, flags, zero
        (8220, "00 00 00 00  00  00  00 00"),
        // slot in the table: checksum, from the segment's sequence
        (8228, "08 b4 c6 db"),
        // slot in the table: checksum of the record, offset of the record
        (8232, "0a e5 c5 e8  48 2a 00 00"),
        // slot in the table: term, index, payload length
        (8240, "01 00 00 00 00 00 00 00  02 00 00 00 00 00 00 00  01 00 00 00"),
        // slot in the table: group, kind, flags, zero
        (8260, "00 00 00 00  01  00  00 00"),
        // slot in the table: checksum, from the segment's sequence
        (8268, "39 ee 7b 07"),
        // slot in the table: checksum of the record, offset of the record
        (8272, "1f fe 2a d7  e8 2c 00 00"),
        // slot in the table: term, index, payload length
        (8280, "01 00 00 00 00 00 00 00  03 00 00 00 00 00 00 00  01 00 00 00"),
        // slot in the table: group, kind, flags, zero
        (8300, "00 00 00 00  01  00  00 00"),
        // slot in the table: checksum, from the segment's sequence
        (8308, "c9 73 1c 1d"),
        // proof: checksum of the record, end of the last record
        (8312, "00 00 00 00  11 2d 00 00"),
        // proof: term, index of the next entry, payload length
        (8320, "00 00 00 00 00 00 00 00  04 00 00 00 00 00 00 00  00 00 00 00"),
        // proof: group, kind, flags, zero
        (8340, "00 00 00 00  00  04  00 00"),
        // proof: checksum, from the segment's sequence
        (8348, "29 c9 87 d4"),
        // mark: QUORMARK, mark: segment
        (10752, "51 55 4f 52 4d 41 52 4b  01 00 00 00 00 00 00 00"),
        // mark: number, mark: count, mark: bytes of records, mark: checksum
        (10768, "00 00 00 00  02 00 00 00  51 00 00 00  1d 70 17 60"),
        // entry: payload length, group, term
        (10784, "00 00 00 00  00 00 00 00  01 00 00 00 00 00 00 00"),
        // index, kind, zero, checksum of the record before it
        (10800, "01 00 00 00 00 00 00 00  00  00 00 00  00 00 00 00"),
        // checksum of bytes 0..32, payload, the record's checksum
        (10816, "da f9 d2 c2  da f9 d2 c2"),
        // entry: payload length, group, term
        (10824, "01 00 00 00  00 00 00 00  01 00 00 00 00 00 00 00"),
        // index, kind, zero, checksum of the record before it
        (10840, "02 00 00 00 00 00 00 00  01  00 00 00  da f9 d2 c2"),
        // checksum of bytes 0..32, payload, the record's checksum
        (10856, "59 25 a7 82  61  0a e5 c5 e8"),
        // slot in its group: checksum of the record, offset of the record
        (11384, "da f9 d2 c2  20 2a 00 00"),
        // slot in its group: term, index, payload length
        (11392, "01 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00  00 00 00 00"),
        // slot in its group: group, kind, flags, zero
        (11412, "00 00 00 00  00  00  00 00"),
        // slot in its group: checksum, from the segment's sequence and the record before
        (11420, "d6 8a 19 e7"),
        // slot in its group: checksum of the record, offset of the record
        (11424, "0a e5 c5 e8  48 2a 00 00"),
        // slot in its group: term, index, payload length
        (11432, "01 00 00 00 00 00 00 00  02 00 00 00 00 00 00 00  01 00 00 00"),
        // slot in its group: group, kind, flags, zero
        (11452, "00 00 00 00  01  00  00 00"),
        // slot in its group: checksum, from the segment's sequence and the record before
        (11460, "e7 d0 a4 3b"),
        // mark: QUORMARK, mark: segment
        (11464, "51 55 4f 52 4d 41 52 4b  01 00 00 00 00 00 00 00"),
        // mark: number, mark: count, mark: bytes of records, mark: checksum
        (11480, "01 00 00 00  01 00 00 00  29 00 00 00  f3 ba 81 e9"),
        // entry: payload length, group, term
        (11496, "01 00 00 00  00 00 00 00  01 00 00 00 00 00 00 00"),
        // index, kind, zero, checksum of the record before it
        (11512, "03 00 00 00 00 00 00 00  01  00 00 00  0a e5 c5 e8"),
        // checksum of bytes 0..32, payload, the record's checksum
        (11528, "35 76 13 b8  62  1f fe 2a d7"),
        // slot in its group: checksum of the record, offset of the record
        (12056, "1f fe 2a d7  e8 2c 00 00"),
        // slot in its group: term, index, payload length
        (12064, "01 00 00 00 00 00 00 00  03 00 00 00 00 00 00 00  01 00 00 00"),
        // slot in its group: group, kind, flags, zero
        (12084, "00 00 00 00  01  00  00 00"),
        // slot in its group: checksum, from the segment's sequence and the record before
        (12092, "3d dd 61 0e"),
    ];
    assert_bytes(&file, FILE_BYTES as usize, &fields);
}

#[test]
fn the_hard_state() {
    let disk = SimulatedDisk::new();
    let dir = Path::new("log");
    disk.create_dir(dir).expect("a directory");
    let file = HardStateFile::create(&disk, dir, &identity()).expect("a new file");
    let path = in_log("hard-state");
    let contents = || disk.contents(&path).expect("the file");
    let sequence_0 = [
        (0, "51 55 4f 52 48 41 52 44  02 00 00 00  00 00 00 00"), // QUORHARD, version, flags
        (16, "00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00"), // sequence, term
        (32, "00 00 00 00 00 00 00 00  71 72 73 74 75 76 77 78"), // vote, member
        (48, "00 00 00 00 00 00 00 00  04 74 65 73 74"),          // newest segment, cluster
        (504, "00 00 00 00  92 57 d2 39"),                        // promise, checksum
    ];
    let sequence_1 = [
        (0, "51 55 4f 52 48 41 52 44  02 00 00 00  00 00 00 00"), // QUORHARD, version, flags
        (16, "01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00"), // sequence, term
        (32, "00 00 00 00 00 00 00 00  71 72 73 74 75 76 77 78"), // vote, member
        (48, "00 00 00 00 00 00 00 00  04 74 65 73 74"),          // newest segment, cluster
        (504, "00 00 00 00  91 26 5f 0e"),                        // promise, checksum
    ];
    assert_copies(&contents(), [&sequence_0, &sequence_1]);

    let state = HardState { term: TERM, vote: Some(NodeId(INDEX.0)), promise: Promise(0x3433_3231) };
    file.write(state, 0x2827_2625_2423_2221).expect("written");
    let sequence_2 = [
        (0, "51 55 4f 52 48 41 52 44  02 00 00 00  03 00 00 00"), // QUORHARD, version, flags
        (16, "02 00 00 00 00 00 00 00  01 02 03 04 05 06 07 08"), // sequence, term
        (32, "11 12 13 14 15 16 17 18  71 72 73 74 75 76 77 78"), // vote, member
        (48, "21 22 23 24 25 26 27 28  04 74 65 73 74"),          // newest segment, cluster
        (504, "31 32 33 34  87 07 78 c9"),                        // promise, checksum
    ];
    assert_copies(&contents(), [&sequence_2, &sequence_1]);

    // No vote in this term, and one in an earlier term.
    let state = HardState { term: Term(TERM.0 + 1), vote: None, ..state };
    file.write(state, 0x2827_2625_2423_2221).expect("written");
    let sequence_3 = [
        (0, "51 55 4f 52 48 41 52 44  02 00 00 00  02 00 00 00"), // QUORHARD, version, flags
        (16, "03 00 00 00 00 00 00 00  02 02 03 04 05 06 07 08"), // sequence, term
        (32, "00 00 00 00 00 00 00 00  71 72 73 74 75 76 77 78"), // vote, member
        (48, "21 22 23 24 25 26 27 28  04 74 65 73 74"),          // newest segment, cluster
        (504, "31 32 33 34  2a ff 4b 76"),                        // promise, checksum
    ];
    assert_copies(&contents(), [&sequence_2, &sequence_3]);
}

/// Two pairs of copies, a page apart.
#[track_caller]
fn assert_copies(file: &[u8], pairs: [&[(usize, &str)]; 2]) {
    assert_eq!(file.len(), 16384);
    for (pair, fields) in pairs.into_iter().enumerate() {
        for copy in [2 * pair, 2 * pair + 1] {
            assert_bytes(&file[copy * 4096..][..4096], 4096, fields);
        }
    }
}

#[test]
fn the_known_members() {
    let disk = SimulatedDisk::new();
    let dir = Path::new("log");
    disk.create_dir(dir).expect("a directory");
    let holdings = [(NodeId(3), Index(0)), (NodeId(TERM.0), INDEX)].into();
    holdings::write(&disk, dir, &identity(), &holdings).expect("written");
    let fields = [
        (0, "51 55 4f 52 4b 4e 4f 57  02 00 00 00  02 00 00 00"), // QUORKNOW, version, members
        (16, "71 72 73 74 75 76 77 78  04 74 65 73 74"),          // member, cluster
        (508, "c4 03 a6 01  03 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00"), // checksum, id, holding
        // id, holding, checksum of all before
        (528, "01 02 03 04 05 06 07 08  11 12 13 14 15 16 17 18  eb 19 cc df"),
    ];
    assert_bytes(&disk.contents(&in_log("known-members")).expect("the file"), 548, &fields);
    assert_eq!(holdings::read(&disk, dir, &identity()), Ok((holdings, None)));
}

#[test]
fn the_files_of_a_new_log() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let wal = Wal::at(dir.path()).segment_bytes(16 << 10);
    let (mut log, _) = Log::open(&wal, "test", NodeId(1), Arc::new(Unobserved)).expect("it opens");
    log.remember(&[(NodeId(1), Index(0))]).expect("it is kept");
    let entries = std::fs::read_dir(dir.path()).expect("a directory").map(|entry| entry.expect("an entry"));
    let mut files: Vec<(String, u64)> = entries
        .map(|entry| (entry.file_name().into_string().expect("text"), entry.metadata().expect("metadata").len()))
        .collect();
    files.sort();
    // A header twice, slots, a gap of 1 MiB, records.
    let segment_bytes = 8192 + (1 << 20) + (16 << 10);
    let expected = [
        ("00000000000000000001.segment", segment_bytes),
        ("hard-state", 16384),
        ("headroom", 1 << 20),
        ("known-members", 532),
        ("lock", 0),
    ];
    assert_eq!(files, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
    assert!(std::fs::read(dir.path().join("headroom")).expect("readable").iter().all(|byte| *byte == 0));
}

#[test]
fn the_mark_of_an_unfinished_directory() {
    let disk = SimulatedDisk::new();
    drop(open_with(Wal { stage: Stage::Begun, ..wal(&disk) }).expect("it opens"));
    assert_eq!(disk.contents(&in_log("unfinished")), Some(vec![]));
}

fn tick() -> Tick {
    let bounds = Bounds {
        history_events: 0x3433_3231,
        history_bytes: 0x4443_4241,
        outbox_effects: 0x5453_5251,
        outbox_bytes: 0x6463_6261,
    };
    let (time, random) = (LogTime(0x0807_0605_0403_0201), *b"!\"#$%&'(");
    Tick { time, unix_ms: 0x1817_1615_1413_1211, random, bounds }
}

#[test]
fn records_of_every_kind() {
    let mut builder = BatchBuilder::new(crate::checksum, TERM, INDEX, 0xa4a3_a2a1, 0);
    builder.push(Kind::Noop, b"");
    builder.push(Kind::Command, b"set");
    builder.push(Kind::Membership, &Membership::of_voters([NodeId(9)]).encode());
    let stamp = Stamp { time: LogTime(0x3837_3635_3433_3231), idle_limit_ms: 0x4443_4241, sessions_max: 0x5453_5251 };
    let key = SessionKey::named(b"xy").expect("a name");
    let request = Request::Command { key, serial: 0x6867_6665_6463_6261, command: b"put" };
    builder.push_parts(Kind::Session, &stamp.encode(), &request.encode());
    builder.push(Kind::Tick, &tick().encode());
    builder.push(Kind::Internal, &[3, 9]);
    let batch = builder.finish().expect("something was pushed");
    let fields = [
        (0, "00 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"), // no-op: payload length, group, term
        // index, kind, zero, checksum of the record before it
        (16, "11 12 13 14 15 16 17 18  00  00 00 00  a1 a2 a3 a4"),
        (32, "9d 42 b8 de  9d 42 b8 de"), // checksum of bytes 0..32, the record's checksum
        (40, "03 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"), // command: payload length, group, term
        // index, kind, zero, checksum of the record before it
        (56, "12 12 13 14 15 16 17 18  01  00 00 00  9d 42 b8 de"),
        (72, "ac 33 fa 50  73 65 74  7e 91 b6 97"), // checksum of bytes 0..32, payload, the record's checksum
        (83, "29 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"), // membership: payload length, group, term
        // index, kind, zero, checksum of the record before it
        (99, "13 12 13 14 15 16 17 18  02  00 00 00  7e 91 b6 97"),
        (115, "40 a4 a7 10"),    // checksum of bytes 0..32
        (119, "01 00 00 00 09"), // payload
        // the record's checksum, session: payload length, group, term
        (160, "c4 09 de 24  1f 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"),
        // index, kind, zero, checksum of the record before it
        (180, "14 12 13 14 15 16 17 18  03  00 00 00  c4 09 de 24"),
        (196, "b0 46 6c 22"), // checksum of bytes 0..32
        // payload
        (200, "31 32 33 34 35 36 37 38 41 42 43 44 51 52 53 54 02 02 61 62 63 64 65 66 67 68 78 79 70 75 74"),
        // the record's checksum, tick: payload length, group, term
        (231, "a9 aa df 06  28 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"),
        // index, kind, zero, checksum of the record before it
        (251, "15 12 13 14 15 16 17 18  05 00 00 00  a9 aa df 06"),
        (267, "b3 56 ba d4"), // checksum of bytes 0..32
        // payload: log time, wall clock, random bytes
        (271, "01 02 03 04 05 06 07 08  11 12 13 14 15 16 17 18  21 22 23 24 25 26 27 28"),
        // bounds of history and outbox
        (295, "31 32 33 34  41 42 43 44  51 52 53 54  61 62 63 64"),
        // the record's checksum, internal: payload length, group, term
        (311, "ee fa f6 2c  02 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"),
        // index, kind, zero, checksum of the record before it
        (331, "16 12 13 14 15 16 17 18  06 00 00 00  ee fa f6 2c"),
        (347, "f4 bd cd 9d  03 09  f2 e8 19 ba"), // checksum of bytes 0..32, payload, the record's checksum
    ];
    assert_bytes(batch.bytes(), 357, &fields);
    assert_eq!(Batch::parse(batch.bytes().clone(), crate::checksum), Ok(batch.clone()));

    // The same records as a witness keeps them.
    let stubs = batch.to_stubs(crate::checksum);
    let fields = [
        (0, "00 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"), // no-op: payload length, group, term
        // index, kind, zero, checksum of the record before it
        (16, "11 12 13 14 15 16 17 18  00  00 00 00  a1 a2 a3 a4"),
        (32, "9d 42 b8 de  9d 42 b8 de"), // checksum of bytes 0..32, the record's checksum
        // stub of the command: payload length, group, term
        (40, "08 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"),
        // index, kind, zero, checksum of the record before it
        (56, "12 12 13 14 15 16 17 18  04  00 00 00  9d 42 b8 de"),
        // checksum of bytes 0..32, payload, the record's checksum
        (72, "12 4d ea 96  7e 91 b6 97 93 54 ca c2  7e 91 b6 97"),
        (88, "29 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"), // membership: payload length, group, term
        // index, kind, zero, checksum of the record before it
        (104, "13 12 13 14 15 16 17 18  02  00 00 00  7e 91 b6 97"),
        (120, "40 a4 a7 10"),    // checksum of bytes 0..32
        (124, "01 00 00 00 09"), // payload
        (165, "c4 09 de 24"),    // the record's checksum
        // stub of the session's command: payload length, group, term
        (169, "08 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"),
        // index, kind, zero, checksum of the record before it
        (185, "14 12 13 14 15 16 17 18  04  00 00 00  c4 09 de 24"),
        // checksum of bytes 0..32, payload, the record's checksum
        (201, "66 e6 1c bc  a9 aa df 06 a0 d2 0b d6  a9 aa df 06"),
        // stub of the tick: payload length, group, term
        (217, "08 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"),
        // index, kind, zero, checksum of the record before it
        (233, "15 12 13 14 15 16 17 18  04  00 00 00  a9 aa df 06"),
        // checksum of bytes 0..32, payload, the record's checksum
        (249, "23 72 d9 30  ee fa f6 2c 74 8d db 97  ee fa f6 2c"),
        // stub of the internal entry: payload length, group, term
        (265, "08 00 00 00  00 00 00 00  01 02 03 04 05 06 07 08"),
        // index, kind, zero, checksum of the record before it
        (281, "16 12 13 14 15 16 17 18  04  00 00 00  ee fa f6 2c"),
        // checksum of bytes 0..32, payload, the record's checksum
        (297, "85 16 22 9c  f2 e8 19 ba 1e a0 65 1f  f2 e8 19 ba"),
    ];
    assert_bytes(stubs.bytes(), 313, &fields);
    assert_eq!(Batch::parse(stubs.bytes().clone(), crate::checksum), Ok(stubs));
}

/// The payload of kind 2.
#[test]
fn a_membership() {
    let addresses = [(NodeId(1), "a:70".to_owned()), (NodeId(5), "b:7".to_owned())].into();
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let metadata = MemberMetadata::new(Some("http://c".into()), labels(&[("d", "ef"), ("g", "")])).expect("in bounds");
    let published = MemberMetadata::new(None, labels(&[("d", "h")])).expect("in bounds");
    let membership = Membership::joint([1, 2, 0x2827_2625_2423_2221].map(NodeId), [NodeId(4)])
        .with_learners([NodeId(5)])
        .with_addresses(addresses)
        .with_given_addresses([NodeId(5)])
        .with_witness(Some(NodeId(2)))
        .with_cluster_id(Some(ClusterId(0x504f_4e4d_4c4b_4a49_4847_4645_4443_4241)))
        .with_descriptions([(NodeId(5), MemberDescription { metadata, published })].into());
    let fields = [
        (0, "03 00 00 00  01 00 00 00 00 00 00 00  02 00 00 00 00 00 00 00"), // incoming voters: how many, id, id
        // id, outgoing voters: how many, id
        (20, "21 22 23 24 25 26 27 28  01 00 00 00  04 00 00 00 00 00 00 00"),
        (40, "01 00 00 00  05 00 00 00 00 00 00 00  02 00 00 00"), // learners: how many, id, addresses: how many
        (56, "01 00 00 00 00 00 00 00  04 00 00 00  61 3a 37 30"), // id, length, address
        (72, "05 00 00 00 00 00 00 00  03 00 00 00  62 3a 37"),    // id, length, address
        (87, "01 00 00 00  05 00 00 00 00 00 00 00"),              // addresses that were given: how many, id
        (99, "02 00 00 00 00 00 00 00  01"),                       // witness, there is a cluster id
        (108, "41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50"),  // cluster id
        (124, "01 00 00 00  05 00 00 00 00 00 00 00"),             // descriptions: how many, id
        // client address: length, text, labels: how many
        (136, "08 00 00 00  68 74 74 70 3a 2f 2f 63  02 00 00 00"),
        (152, "01 00 00 00  64  02 00 00 00  65 66"), // key, value
        (163, "01 00 00 00  67  00 00 00 00"),        // key, value
        (172, "00 00 00 00  01 00 00 00"),            // published: no client address, labels: how many
        (180, "01 00 00 00  64  01 00 00 00  68"),    // key, value
    ];
    assert_bytes(&membership.encode(), 190, &fields);
    assert_eq!(Membership::decode(&membership.encode()), Ok(membership));
}

fn identity() -> Identity {
    Identity { cluster: "test".to_owned(), member: MEMBER }
}
