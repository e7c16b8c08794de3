//! A log store of one's own for [Quorate](quorate): [`RedbLog`]. `main.rs` runs the key-value server on it, and
//! `tests/conformance.rs` proves that it keeps its duties.

mod log;
mod redb_log;

pub use redb_log::RedbLog;
