//! The envelope of a command in the log, and the outcome that its caller gets.
//!
//! | bytes | command |
//! | --- | --- |
//! | 1 | `0xF1` |
//! | 1 to 5 | the version that introduced this kind of command, LEB128 in its shortest form |
//! | … | the command, in postcard |
//!
//! | bytes | outcome |
//! | --- | --- |
//! | 1 | 0: applied, 1: too new, 2: unreadable |
//! | … | of 0 the reply in postcard; of 1 the version that the command needs, then the cluster's, as above |
//!
//! The verdict on a command depends on its bytes and on the cluster's version, which stands in the
//! log, and on nothing local: a release that can't read a command that the cluster's version allows
//! does not refuse it, its node stops. Within that rule a release decodes every version up to its
//! own alike, since messages evolve only by new variants at the end. A command that decodes to a
//! kind of another version than its envelope says is unreadable: an older release, which does not
//! know the kind, finds it unreadable, too.

use super::encoding::{append, whole};
use serde::{Serialize, de::DeserializeOwned};

/// The first byte of every command of the typed layer.
pub const TAG: u8 = 0xF1;

const APPLIED: u8 = 0;
const TOO_NEW: u8 = 1;
const UNREADABLE: u8 = 2;

/// Two versions of the command schema, as a node knows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The cluster's, from the log.
    pub cluster: u32,
    /// The newest that this release reads.
    pub release: u32,
}

/// Why a command was not applied; equal on every node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its kind was introduced by version `needs`, and the cluster is at an older one.
    TooNew {
        /// The version that introduced it.
        needs: u32,
        /// The cluster's version when its entry was applied.
        cluster: u32,
    },
    /// Its bytes are no command of any release.
    Unreadable,
}

/// The verdict on the bytes of a command.
#[derive(PartialEq, Eq, Debug)]
pub enum Opened<C> {
    /// It is to be applied.
    Command(C),
    /// All nodes refuse it.
    Refused(Refusal),
    /// Nodes of a newer release apply it or refuse it, this one can't tell: it must stop.
    TooOld {
        /// The version that introduced the command.
        needs: u32,
    },
}

/// Writes the envelope of `command`, of a kind that version `since` introduced, at the end of `to`.
///
/// # Panics
/// If the command's type has no form in postcard, such as a flattened field.
pub fn seal<C: Serialize>(command: &C, since: u32, to: &mut Vec<u8>) {
    to.push(TAG);
    write_number(to, since);
    append(command, to);
}

/// Reads the envelope in `bytes`; `since` gives the version that introduced a kind of command.
pub fn open<C: DeserializeOwned>(bytes: &[u8], versions: Versions, since: impl FnOnce(&C) -> u32) -> Opened<C> {
    let head = bytes.split_first().filter(|(tag, _)| **tag == TAG);
    let Some((needs, command)) = head.and_then(|(_, rest)| read_number(rest)) else {
        return Opened::Refused(Refusal::Unreadable);
    };
    let Versions { cluster, release } = versions;
    if needs > cluster {
        return Opened::Refused(Refusal::TooNew { needs, cluster });
    }
    if needs > release {
        return Opened::TooOld { needs };
    }
    match whole(command) {
        Some(command) if since(&command) == needs => Opened::Command(command),
        _ => Opened::Refused(Refusal::Unreadable),
    }
}

/// Writes the outcome of a command that was applied, after what `to` holds.
///
/// # Panics
/// If the reply's type has no form in postcard.
pub fn write_reply<R: Serialize>(reply: &R, to: &mut Vec<u8>) {
    to.push(APPLIED);
    append(reply, to);
}

/// Writes the outcome of a command that was refused, after what `to` holds.
pub fn write_refusal(refusal: Refusal, to: &mut Vec<u8>) {
    match refusal {
        Refusal::TooNew { needs, cluster } => {
            to.push(TOO_NEW);
            write_number(to, needs);
            write_number(to, cluster);
        }
        Refusal::Unreadable => to.push(UNREADABLE),
    }
}

/// Reads an outcome; `None` if the bytes are none that this release reads.
pub fn read_outcome<R: DeserializeOwned>(bytes: &[u8]) -> Option<Result<R, Refusal>> {
    let (tag, rest) = bytes.split_first()?;
    match *tag {
        APPLIED => whole(rest).map(Ok),
        TOO_NEW => {
            let (needs, rest) = read_number(rest)?;
            let (cluster, rest) = read_number(rest)?;
            rest.is_empty().then_some(Err(Refusal::TooNew { needs, cluster }))
        }
        UNREADABLE => rest.is_empty().then_some(Err(Refusal::Unreadable)),
        _ => None,
    }
}

fn write_number(to: &mut Vec<u8>, mut number: u32) {
    while number > 0x7f {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// The number at the start of `bytes`, and the bytes after it; only its shortest form is one.
fn read_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        return Some((u32::from(*first), rest));
    }
    let end = bytes.iter().take(5).position(|byte| *byte < 0x80)?;
    let (number, rest) = bytes.split_at(end + 1);
    if number[end] == 0 {
        return None;
    }
    let number = number.iter().rev().fold(0, |sum: u64, byte| sum << 7 | u64::from(byte & 0x7f));
    Some((u32::try_from(number).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    enum Old {
        Add(u64),
        Name(String),
    }

    /// The same, two versions later.
    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    enum New {
        Add(u64),
        Name(String),
        Reset,
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        assert_eq!(sealed(&Old::Add(300), 0), [0xf1, 0, 0, 0xac, 2]);
        assert_eq!(sealed(&Old::Name("ab".into()), 300), [0xf1, 0xac, 2, 1, 2, b'a', b'b']);
        assert_eq!(sealed(&Old::Add(0), u32::MAX), [0xf1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]);
        assert_eq!(replied(&7u64), [0, 7]);
        assert_eq!(refused(Refusal::TooNew { needs: 300, cluster: 1 }), [1, 0xac, 2, 1]);
        assert_eq!(refused(Refusal::Unreadable), [2]);
    }

    #[test]
    fn a_command_is_read_as_it_was_sealed() {
        for (command, since) in [(New::Add(u64::MAX), 0), (New::Name("x".repeat(300)), 0), (New::Reset, 2)] {
            assert_eq!(new(&sealed(&command, since), 2), Opened::Command(command));
        }
    }

    #[test]
    fn a_command_newer_than_the_cluster_is_refused_by_every_release_alike() {
        let reset = sealed(&New::Reset, 2);
        let too_new = Refusal::TooNew { needs: 2, cluster: 1 };
        assert_eq!(new(&reset, 1), Opened::Refused(too_new), "though this release reads it");
        assert_eq!(old(&reset, 1), Opened::Refused(too_new));
        let garbage = [TAG, 2, 0xff, 0xff];
        assert_eq!(new(&garbage, 1), Opened::Refused(too_new), "what follows is not looked at");
        assert_eq!(old(&garbage, 1), Opened::Refused(too_new));
    }

    #[test]
    fn a_release_too_old_for_the_cluster_refuses_nothing_by_itself() {
        assert_eq!(old(&sealed(&New::Reset, 2), 2), Opened::TooOld { needs: 2 });
        assert_eq!(old(&[TAG, 2, 0xff, 0xff], 2), Opened::TooOld { needs: 2 }, "a newer release decides");
        assert_eq!(old(&sealed(&Old::Add(1), 0), 2), Opened::Command(Old::Add(1)), "it reads this one");
    }

    #[test]
    fn every_byte_must_be_used() {
        let good = sealed(&New::Name("abc".into()), 0);
        for end in 0..good.len() {
            assert_eq!(new(&good[..end], 2), Opened::Refused(Refusal::Unreadable), "cut at {end}");
        }
        assert_eq!(new(&[&good[..], &[0]].concat(), 2), Opened::Refused(Refusal::Unreadable), "a byte too many");
    }

    /// All short strings, in both releases, at each version of the cluster: no two nodes that go on
    /// take different decisions, and what one applies the other applies.
    #[test]
    fn two_releases_never_disagree() {
        let mut tried = 0;
        let heads =
            [&[TAG, 0][..], &[TAG, 1], &[TAG, 2], &[TAG, 3], &[TAG, 0x80, 0], &[TAG, 0x82, 0], &[TAG - 1, 0], &[]];
        for head in heads {
            for length in 0..=2u32 {
                for tail in 0..256u32.pow(length) {
                    let bytes = [head, &tail.to_le_bytes()[..length as usize]].concat();
                    // A leader raises the cluster's version only to one that its own release reads.
                    for cluster in 0..=2 {
                        agree(&bytes, cluster);
                        tried += 1;
                    }
                }
            }
        }
        assert!(tried > 1_500_000);
    }

    fn agree(bytes: &[u8], cluster: u32) {
        match (old(bytes, cluster), new(bytes, cluster)) {
            (Opened::Refused(one), Opened::Refused(other)) => assert_eq!(one, other, "{bytes:x?} at {cluster}"),
            (Opened::Command(one), Opened::Command(other)) => {
                assert_eq!(postcard::to_allocvec(&one), postcard::to_allocvec(&other));
            }
            (Opened::TooOld { needs }, _) => assert!(needs > 1 && needs <= cluster, "{bytes:x?} at {cluster}"),
            (one, other) => panic!("{bytes:x?} at {cluster}: {one:?} and {other:?}"),
        }
    }

    #[test]
    fn a_kind_with_the_wrong_version_is_unreadable_to_both_releases() {
        let lie = sealed(&New::Reset, 1);
        assert_eq!(old(&lie, 2), Opened::Refused(Refusal::Unreadable), "it knows no such kind");
        assert_eq!(new(&lie, 2), Opened::Refused(Refusal::Unreadable), "it knows that the kind is newer");
    }

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        let reply = replied(&String::from("done"));
        assert_eq!(read_outcome::<String>(&reply), Some(Ok("done".into())));
        for refusal in [Refusal::Unreadable, Refusal::TooNew { needs: u32::MAX, cluster: 0 }] {
            let bytes = refused(refusal);
            assert_eq!(read_outcome::<String>(&bytes), Some(Err(refusal)));
            assert_eq!(read_outcome::<String>(&[&bytes[..], &[0]].concat()), None);
        }
        assert_eq!(read_outcome::<u64>(&reply), None, "a string is no number with nothing after it");
        assert_eq!(read_outcome::<()>(&[]), None);
        assert_eq!(read_outcome::<()>(&[3]), None);
    }

    #[test]
    fn a_number_has_one_form() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u32::MAX - 1, u32::MAX] {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number);
            assert!(bytes.len() <= 5);
            assert_eq!(read_number(&bytes), Some((number, &[][..])));
        }
        let beyond = [0xff, 0xff, 0xff, 0xff, 0x1f];
        for wrong in [&[0x80, 0][..], &[0xff, 0x80, 0], &beyond, &[0x80; 6], &[]] {
            assert_eq!(read_number(wrong), None);
        }
    }

    fn old(bytes: &[u8], cluster: u32) -> Opened<Old> {
        open(bytes, Versions { cluster, release: 1 }, |_| 0)
    }

    fn new(bytes: &[u8], cluster: u32) -> Opened<New> {
        open(bytes, Versions { cluster, release: 2 }, |command| if *command == New::Reset { 2 } else { 0 })
    }

    fn sealed<C: Serialize>(command: &C, since: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        seal(command, since, &mut bytes);
        bytes
    }

    fn replied<R: Serialize>(reply: &R) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_reply(reply, &mut bytes);
        bytes
    }

    fn refused(refusal: Refusal) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_refusal(refusal, &mut bytes);
        bytes
    }
}
