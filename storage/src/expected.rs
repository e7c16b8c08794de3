//! Expected bytes in hexadecimal, laid out as in the tables of `FORMAT.md`.

/// Asserts that `found` has `length` bytes: those of `fields`, each at its offset and in order, and
/// zeros between them.
#[track_caller]
pub(crate) fn assert_bytes(found: &[u8], length: usize, fields: &[(usize, &str)]) {
    assert_eq!(found.len(), length, "length in bytes");
    let mut at = 0;
    for (offset, hex) in fields {
        assert!(at <= *offset, "the field at byte {offset} overlaps the one before it");
        assert!(found[at..*offset].iter().all(|byte| *byte == 0), "bytes {at}..{offset} are zero");
        let bytes: Vec<String> = hex.split_whitespace().map(str::to_owned).collect();
        at = offset + bytes.len();
        let there: Vec<String> = found[*offset..at].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(there, bytes, "the bytes at {offset}");
    }
    assert!(found[at..].iter().all(|byte| *byte == 0), "bytes {at}..{length} are zero");
}

#[test]
fn the_checksum_is_crc_32c() {
    assert_eq!(crate::checksum(0, b"123456789"), 0xe306_9283, "the check value of CRC-32C (RFC 3720)");
}
