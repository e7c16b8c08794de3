//! The place of a store under test, and its faults.

use quorate_raft::Index;
use quorate_storage::contract::StorageHandle;

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

/// Kinds of operations that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write to the disk.
    Write,
    /// A sync of written data.
    Sync,
}
