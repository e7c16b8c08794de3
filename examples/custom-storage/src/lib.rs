//! Two log stores of one's own for [Quorate](quorate), with the key-value server on each.
//!
//! | store | by | to copy from for |
//! | --- | --- | --- |
//! | [`FileLog`]: one file with checksums | the [`LogStore`](quorate_storage::LogStore) trait, synchronous; the actor and the snapshots are Quorate's | nearly every store |
//! | [`RedbLog`]: log, term and vote in a [redb](https://docs.rs/redb) file, snapshots in files beside it | the [actor contract](quorate_storage::contract), an actor of its own | a store that is asynchronous, keeps its snapshots elsewhere, or groups requests by rules of its own |
//!
//! `tests` prove the duties of a store for both, with the suite of `quorate-storage-testing`.

mod file_log;
mod redb_log;

pub use file_log::FileLog;
pub use redb_log::{Outcome, RedbLog};
