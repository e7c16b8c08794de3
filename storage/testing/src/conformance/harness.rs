//! The place of a store under test, and its faults.

use crate::{Crash, Operation, SimulatedDisk};
use quorate_raft::Index;
use quorate_storage::contract::StorageHandle;
use std::path::PathBuf;

/// A place for a store's data, and the faults that a test can inject there. Each method but the
/// first returns whether it can inject its fault; by default none does.
pub trait Harness {
    /// A storage actor over this place, not yet started. It finds the data of earlier ones.
    fn open(&self) -> StorageHandle;

    /// Cuts the power, while a store may be open and busy: data that was not durable is lost, in
    /// part or whole, as `seed` chooses, and the old store has no further effect here. The next
    /// store opens the rest.
    fn crash(&self, seed: u64) -> bool {
        let _ = seed;
        false
    }

    /// Makes the next operation of this kind of the open store fail, once.
    fn fail_next(&self, fault: Fault) -> bool {
        let _ = fault;
        false
    }

    /// Damages the payload of an entry, while no store is open, and no other record of its
    /// identity. For stores that can tell
    /// ([`Recovered::faulty`](quorate_storage::Recovered::faulty)).
    fn lose(&self, entry: Index) -> bool {
        let _ = entry;
        false
    }

    /// Flips one stored bit, while no store is open; `seed` chooses it.
    fn damage(&self, seed: u64) -> bool {
        let _ = seed;
        false
    }
}

impl<Open: Fn() -> StorageHandle> Harness for Open {
    fn open(&self) -> StorageHandle {
        self()
    }
}

/// A store on a simulated disk, with all the disk's faults. A bit that is flipped is one of a byte
/// that is not zero; while there is no such byte, none is.
#[derive(Debug)]
pub struct OnSimulatedDisk<Open> {
    /// The disk.
    pub disk: SimulatedDisk,
    open: Open,
}

impl<Open: Fn(SimulatedDisk) -> StorageHandle> OnSimulatedDisk<Open> {
    /// An empty disk; `open` opens the store on it.
    pub fn new(open: Open) -> Self {
        Self { disk: SimulatedDisk::new(), open }
    }
}

impl<Open: Fn(SimulatedDisk) -> StorageHandle> Harness for OnSimulatedDisk<Open> {
    fn open(&self) -> StorageHandle {
        (self.open)(self.disk.clone())
    }

    fn crash(&self, seed: u64) -> bool {
        self.disk.crash(match seed % 4 {
            0 => Crash::Lose,
            1 => Crash::Torn { bytes: seed * 97 },
            2 => Crash::Keep,
            _ => Crash::Scatter { seed },
        });
        true
    }

    fn fail_next(&self, fault: Fault) -> bool {
        self.disk.fail(fault.into(), 1);
        true
    }

    fn damage(&self, seed: u64) -> bool {
        let written = |path: PathBuf| {
            let bytes = self.disk.contents(&path)?;
            let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
            (!written.is_empty()).then_some((path, written))
        };
        let files: Vec<_> = self.disk.paths().into_iter().filter_map(written).collect();
        if files.is_empty() {
            return false;
        }
        let (path, written) = &files[seed as usize % files.len()];
        let at = written[seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % written.len()];
        self.disk.flip(path, at, 1 << (seed % 8))
    }
}

/// Kinds of operations that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write to the disk.
    Write,
    /// A sync of written data.
    Sync,
}

impl From<Fault> for Operation {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Write => Self::Write,
            Fault::Sync => Self::Sync,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_bit_is_flipped_in_a_file_that_has_a_byte_to_damage_or_none_is() {
        let place = OnSimulatedDisk::new(|_| unreachable!("no store is opened"));
        assert!((0..20).all(|seed| !place.damage(seed)), "no file");
        place.disk.put(Path::new("dir/empty"), Vec::new());
        place.disk.put(Path::new("dir/zeros"), vec![0; 100]);
        assert!((0..20).all(|seed| !place.damage(seed)), "no byte but zeros");
        let (path, bytes) = (Path::new("dir/written"), [0, 0, 7, 0, 9]);
        for seed in 0..20 {
            place.disk.put(path, bytes.to_vec());
            assert!(place.damage(seed));
            let found = place.disk.contents(path).expect("it is there");
            let flipped = found.iter().zip(bytes).map(|(found, byte)| (found ^ byte).count_ones());
            assert_eq!(flipped.sum::<u32>(), 1, "seed {seed}: {found:?}");
            assert!(place.disk.contents(Path::new("dir/zeros")) == Some(vec![0; 100]), "seed {seed}");
        }
    }
}
