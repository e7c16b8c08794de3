//! The state in a snapshot: the sessions, then the state of the machine, written to a sink and read
//! from a source of the storage.

use crate::{
    lifecycle::Lifecycle,
    machine::{StateMachine, WriteState},
    sessions::{self, Table},
};
use quorate_raft::{Snapshot, SnapshotBase};
use quorate_storage::{SnapshotSink, SnapshotSource, StorageError, StorageOp};
use std::io::{self, BufReader, BufWriter, Read, Write};

/// Bytes of a buffer: a state machine may write and read a few bytes at a time, which checksums and
/// files handle slowly.
const BUFFER_BYTES: usize = 256 << 10;

/// A state to be written: the sessions, and then the state of the machine.
pub(super) fn behind(sessions: Table, write: WriteState) -> WriteState {
    Box::new(move |to| {
        sessions::write(&sessions, to)?;
        // The live table then no longer has to copy the sessions that it shared with this one.
        drop(sessions);
        write(to)
    })
}

/// The state of a witness, which is empty.
pub(super) fn nothing() -> WriteState {
    Box::new(|_| Ok(()))
}

/// Writes a state and makes it durable. Fails once the node has ended.
pub(super) fn write(
    write: WriteState,
    sink: Box<dyn SnapshotSink>,
    lifecycle: &Lifecycle,
) -> Result<Snapshot, StorageError> {
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, WhileAlive { sink, lifecycle });
    let failed = |error| StorageError::within(error, StorageOp::Write);
    write(&mut writer).map_err(failed)?;
    let WhileAlive { sink, .. } = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    sink.finish()
}

/// Restores a machine from a snapshot. Gives the base of the snapshot and its sessions.
pub(super) fn restore(
    machine: &mut impl StateMachine,
    source: Box<dyn SnapshotSource>,
) -> io::Result<(SnapshotBase, Table)> {
    let base = source.snapshot().base.clone();
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, FromSource { source, offset: 0 });
    let sessions = sessions::read(&mut reader)?;
    machine.restore(&mut reader)?;
    Ok((base, sessions))
}

/// A sink that fails once the node has ended: a shutdown need not wait for a large state
/// to be written.
struct WhileAlive<'a> {
    sink: Box<dyn SnapshotSink>,
    lifecycle: &'a Lifecycle,
}

impl Write for WhileAlive<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lifecycle.has_ended() {
            return Err(io::Error::other("the node has ended"));
        }
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// A source that is read from its beginning to its end.
struct FromSource {
    source: Box<dyn SnapshotSource>,
    offset: u64,
}

impl Read for FromSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read_at(buffer, self.offset).map_err(io::Error::other)?;
        self.offset += read as u64;
        Ok(read)
    }
}
