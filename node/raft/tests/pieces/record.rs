//! Records: encoding and decoding agree, and damaged bytes are refused.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_raft::{
    Batch, BatchBuilder, Index, Kind, Term,
    record::{Head, OVERHEAD_BYTES},
};
use quorate_world::fixtures::{batch, crc, id};

#[test]
fn every_flipped_byte_is_refused() {
    let whole = batch(3, 7, 3, 0xfeed).bytes().to_vec();
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            assert!(Batch::parse(damaged.into(), crc).is_err(), "byte {at} ^ {flip:#x}");
        }
    }
}

#[test]
fn every_cut_is_refused_but_between_records() {
    let whole = batch(3, 7, 3, 0xfeed);
    let ends: Vec<_> = (7..=9).map(|to| whole.up_to(Index(to)).expect("a record").bytes().len()).collect();
    for length in 0..=whole.bytes().len() {
        let parsed = Batch::parse(whole.bytes().slice(..length), crc);
        assert_eq!(parsed.is_ok(), ends.contains(&length), "{length} bytes");
        assert_eq!(parsed.ok(), ends.contains(&length).then(|| whole.within(length)));
    }
    let tail = Bytes::from([whole.bytes(), &[0u8][..]].concat());
    assert!(Batch::parse(tail, crc).is_err(), "trailing bytes");
}

#[test]
fn records_of_different_logs_are_not_one_batch() {
    let parse = |parts: &[&Batch]| {
        Batch::parse(parts.iter().flat_map(|part| part.bytes().to_vec()).collect::<Vec<_>>().into(), crc)
    };
    let first = batch(3, 1, 2, 0);
    assert_eq!(parse(&[&first, &batch(3, 3, 1, first.checksum())]), Ok(batch(3, 1, 3, 0)));
    let broken = [
        (batch(3, 4, 1, first.checksum()), "a gap"),
        (batch(3, 2, 1, first.checksum()), "an index twice"),
        (batch(4, 3, 1, first.checksum()), "another term"),
        (batch(3, 3, 1, first.checksum() ^ 1), "another record before"),
    ];
    for (second, what) in &broken {
        assert!(parse(&[&first, second]).is_err(), "{what}");
    }
    let mut before_the_first = BatchBuilder::new(crc, Term(1), Index(0), 0, 0);
    before_the_first.push(Kind::Noop, &[]);
    assert!(parse(&[&before_the_first.finish().expect("a record")]).is_err(), "index 0");
}

#[test]
fn no_record_has_the_last_index_for_another_must_be_able_to_follow() {
    let at = |first: u64, count: usize| {
        let mut builder = BatchBuilder::new(crc, Term(1), Index(first), 0, 0);
        (0..count).for_each(|_| builder.push(Kind::Noop, &[]));
        Batch::parse(builder.finish().expect("a record").bytes().clone(), crc)
    };
    assert_eq!(at(u64::MAX - 2, 2).map(|batch| batch.last()), Ok(Index(u64::MAX - 1)));
    assert!(at(u64::MAX - 2, 3).is_err() && at(u64::MAX, 1).is_err());
    assert!(at(u64::MAX, 2).is_err(), "the index behind the last one is not the last one again");
}

#[test]
fn a_header_identifies_a_record_with_a_damaged_payload() {
    let mut bytes = batch(3, 7, 1, 9).bytes().to_vec();
    let last = bytes.len() - 6;
    bytes[last] ^= 1;
    assert!(Batch::parse(bytes.clone().into(), crc).is_err());
    let head = Head::read(&bytes, 0, crc).expect("the header is whole");
    assert_eq!((head.id, head.kind, head.record_bytes()), (id(7, 3), Kind::Command, bytes.len()));
    assert!(Head::read(&bytes, 1, crc).is_err());
}

#[test]
fn a_payload_in_two_parts_is_laid_out_like_the_whole() {
    let laid_out = |parts: &[u8], whole: &[u8]| {
        let mut builder = BatchBuilder::new(crc, Term(1), Index(1), 0, 0);
        builder.push_parts(Kind::Session, parts, whole);
        builder.push(Kind::Noop, &[]);
        builder.finish().expect("two records")
    };
    assert_eq!(laid_out(b"head", b"rest"), laid_out(b"", b"headrest"));
}

proptest! {
    #[test]
    fn decoding_returns_the_encoded_values(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..12), first in 1u64..1_000, previous: u32) {
        let mut builder = BatchBuilder::new(crc, Term(4), Index(first), previous, 0);
        payloads.iter().for_each(|payload| builder.push(Kind::Session, payload));
        let batch = builder.finish().expect("at least one");
        let parsed = Batch::parse(batch.bytes().clone(), crc).expect("undamaged");
        prop_assert_eq!(&parsed, &batch);
        let read: Vec<_> = parsed.records().map(|record| record.payload.to_vec()).collect();
        prop_assert_eq!(read, payloads);
        prop_assert_eq!(parsed.previous_checksum(), previous);
        prop_assert!(parsed.records().zip(parsed.records().skip(1)).all(|(a, b)| b.previous_checksum == a.checksum && b.id.index == a.id.index.next()));
    }

    /// Slices equal the batches that parsing their bytes gives, and hold exactly
    /// the requested entries.
    #[test]
    fn slices_hold_the_requested_entries(count in 1u64..10, first in 1u64..20, from in 0u64..40, to in 0u64..40, bytes_max in 0usize..500) {
        let whole = batch(2, first, count, 5);
        let last = first + count - 1;
        let span = |slice: &Option<Batch>| slice.as_ref().map(|slice| (slice.first().0, slice.last().0));
        let behind = whole.from(Index(from));
        prop_assert_eq!(span(&behind), (from <= last).then_some((from.max(first), last)));
        let before = whole.up_to(Index(to));
        prop_assert_eq!(span(&before), (to >= first).then_some((first, to.min(last))));
        let within = whole.within(bytes_max);
        prop_assert!(within.count() == 1 || within.bytes().len() <= bytes_max);
        let fits_one_more = whole.up_to(within.last().next()).is_some_and(|more| more.count() > within.count() && more.bytes().len() <= bytes_max);
        prop_assert!(!fits_one_more);
        for slice in [behind, before, Some(within)].into_iter().flatten() {
            prop_assert_eq!(Batch::parse(slice.bytes().clone(), crc), Ok(slice.clone()));
            prop_assert!(slice.bytes().len() >= OVERHEAD_BYTES * slice.count() as usize);
        }
    }
}
