//! 128-bit digests of states and messages. They are wide enough that no two different states of one
//! exploration are taken for the same: among 10^8 states the chance of a collision is below 10^-22.

use std::hash::{Hash, Hasher};

/// The digest of anything that can be hashed.
#[must_use]
pub fn digest(value: &impl Hash) -> u128 {
    let mut hasher = Digest { one: 0x243f_6a88_85a3_08d3, two: 0x1319_8a2e_0370_7344 };
    value.hash(&mut hasher);
    u128::from(fold(hasher.one, 0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(fold(hasher.two, 0xd6e8_feb8_6659_fd93))
}

/// Two independent 64-bit hashes by folded multiplication.
struct Digest {
    one: u64,
    two: u64,
}

impl Hasher for Digest {
    fn write_u64(&mut self, word: u64) {
        self.one = fold(self.one.rotate_left(23) ^ word, 0xa076_1d64_78bd_642f);
        self.two = fold(self.two.rotate_left(31).wrapping_add(word) ^ 0x8ebc_6af0_9c88_c6e3, 0x5899_65cc_7537_4cc3);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        self.write_u64(bytes.len() as u64);
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.one ^ self.two
    }
}

/// The 128-bit product's halves, folded. The constant keeps a zero word from erasing the state.
fn fold(word: u64, by: u64) -> u64 {
    let product = u128::from(word ^ 0xe703_7ed1_a0b4_28db) * u128::from(by);
    (product as u64) ^ ((product >> 64) as u64) ^ word.rotate_left(17)
}
