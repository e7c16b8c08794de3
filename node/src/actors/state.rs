//! Between the state machine's reading and writing and the storage's snapshots: the sessions, then the machine's state.

use crate::{
    fate::Fate,
    machine::{StateMachine, WriteState},
    sessions::{self, Table},
};
use quorate_raft::{
    Snapshot, SnapshotBase,
    mutants::{Mutant, live},
};
use quorate_storage::{SnapshotSink, SnapshotSource};
use std::io::{self, BufReader, BufWriter, Read, Write};

/// A state machine may write and read a few bytes at a time; checksums and files like more.
const BUFFER_BYTES: usize = 256 << 10;

/// A state to be written: the sessions, and the machine's behind them.
pub(super) fn behind(sessions: Table, write: WriteState) -> WriteState {
    Box::new(move |to| {
        let sessions = if live(Mutant::SessionsNotInSnapshot) { Table::default() } else { sessions };
        sessions::write(&sessions, to)?;
        // The table that lives on need not copy any more what it shared with this one.
        drop(sessions);
        write(to)
    })
}

/// The state of a witness.
pub(super) fn nothing() -> WriteState {
    Box::new(|_| Ok(()))
}

/// Writes a state and makes it durable. Gives up when the node has ended.
pub(super) fn write(write: WriteState, sink: Box<dyn SnapshotSink>, fate: &Fate) -> Result<Snapshot, String> {
    let in_words = |error: io::Error| error.to_string();
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, WhileAlive { sink, fate });
    write(&mut writer).map_err(in_words)?;
    let WhileAlive { sink, .. } = writer.into_inner().map_err(|error| in_words(error.into_error()))?;
    sink.finish().map_err(|error| error.to_string())
}

/// Lets a machine become what a snapshot holds. Gives the sessions, and says which snapshot it is.
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

/// A sink, for as long as the node lives: whoever shuts it down need not wait for a large state to be written.
struct WhileAlive<'a> {
    sink: Box<dyn SnapshotSink>,
    fate: &'a Fate,
}

impl Write for WhileAlive<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fate.has_ended() {
            return Err(io::Error::other("the node has ended"));
        }
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// A source, read from its beginning to its end.
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
