use bytes::Bytes;
use quorate::{Index, StateMachine};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A state machine that remembers every command, where its test can see it. The reply to the nth command is `n`.
///
/// Clones see the same; a node that is started again gets a new one, for it applies everything again.
#[derive(Clone, Default, Debug)]
pub struct Journal {
    entries: Arc<Mutex<Vec<(Index, String)>>>,
    fatal: Option<&'static str>,
}

impl Journal {
    /// One that panics when it is to apply this command.
    pub fn panicking_at(command: &'static str) -> Self {
        Self { fatal: Some(command), ..Self::default() }
    }

    /// What was applied, in order.
    pub fn entries(&self) -> Vec<(Index, String)> {
        self.lock().clone()
    }

    /// How often a command was applied.
    pub fn count(&self, command: &str) -> usize {
        self.lock().iter().filter(|(_, applied)| applied == command).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Index, String)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateMachine for Journal {
    fn apply(&mut self, index: Index, command: &[u8]) -> Bytes {
        let command = String::from_utf8_lossy(command).into_owned();
        assert!(self.fatal != Some(command.as_str()), "told to panic at {command:?}");
        let mut entries = self.lock();
        entries.push((index, command));
        entries.len().to_string().into()
    }
}
