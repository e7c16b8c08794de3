//! The state of a service, as a snapshot has it.

use crate::machine::WriteState;
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, BufReader, BufWriter, Error, ErrorKind, Read, Write};

/// The state of a service: how it is written into a snapshot, and read from one.
///
/// A type that is `Clone` and has serde's traits has this one by itself: the snapshot is a clone,
/// written in MessagePack with the names of the fields. A field that is added has
/// `#[serde(default)]`, so a newer release reads older snapshots; an older release drops fields that
/// it does not know. The clone is made while nothing is applied: keep large parts in an `Arc` or in
/// a persistent map. Equal states should give equal bytes, so that replicas can be compared: prefer
/// `BTreeMap` to `HashMap`.
///
/// With a format of one's own:
///
/// ```
/// use quorate::{State, WriteState};
/// use std::{io, sync::Arc};
///
/// struct Rows(Arc<Vec<u8>>);
///
/// impl State for Rows {
///     fn save(&self) -> WriteState {
///         let rows = Arc::clone(&self.0);
///         Box::new(move |to| to.write_all(&rows))
///     }
///
///     fn load(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
///         let mut rows = Vec::new();
///         from.read_to_end(&mut rows)?;
///         self.0 = Arc::new(rows);
///         Ok(())
///     }
/// }
///
/// # fn main() -> io::Result<()> {
/// let mut bytes = Vec::new();
/// Rows(Arc::new(vec![1, 2])).save()(&mut bytes)?;
/// let mut rows = Rows(Arc::default());
/// rows.load(&mut &bytes[..])?;
/// assert_eq!(*rows.0, [1, 2]);
/// # Ok(()) }
/// ```
pub trait State: Send + 'static {
    /// A consistent view of the state as of now, written later on a thread of its own. Nothing is
    /// applied until this returns.
    fn save(&self) -> WriteState;

    /// Replaces the state by one that [`State::save`] wrote, on this node or another.
    ///
    /// # Errors
    /// If the bytes are no such state. Then the node stops.
    fn load(&mut self, from: &mut dyn io::Read) -> io::Result<()>;

    /// A digest of the state, if the service keeps one up to date with each change: equal on replicas
    /// that are equal, and compared between them. Asked at the end of each window of 1,024 indexes,
    /// while nothing is applied, so it must be quick. A panic here halts the node, as one in
    /// [`Service::apply`](crate::Service::apply) does. `None`, the default: only outcomes are compared.
    fn digest(&self) -> Option<u64> {
        None
    }
}

impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> State for T {
    fn save(&self) -> WriteState {
        let copy = self.clone();
        Box::new(move |to| {
            let mut to = BufWriter::new(to);
            rmp_serde::encode::write_named(&mut to, &copy).map_err(|error| {
                let name = std::any::type_name::<T>();
                Error::new(ErrorKind::InvalidInput, format!("{name} can't be written in MessagePack: {error}"))
            })?;
            to.flush()
        })
    }

    fn load(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        let invalid = |what: String| Error::new(ErrorKind::InvalidData, what);
        let mut from = BufReader::new(from);
        let state = rmp_serde::from_read(&mut from);
        let state = state.map_err(|error| invalid(format!("that is no {}: {error}", std::any::type_name::<T>())))?;
        if from.read(&mut [0])? > 0 {
            return Err(invalid("there are bytes after the end of the state".to_owned()));
        }
        *self = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
    struct Old {
        counts: BTreeMap<String, u64>,
        name: Option<String>,
    }

    /// The same, a release later.
    #[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
    struct New {
        name: Option<String>,
        #[serde(default)]
        added: Vec<u8>,
        counts: BTreeMap<String, u64>,
    }

    #[test]
    fn a_state_is_read_as_it_was_written_by_this_release_an_older_and_a_newer_one() {
        let old = Old { counts: [("a".into(), 1), ("b".into(), u64::MAX)].into(), name: None };
        assert_eq!(read::<Old>(&written(&old)).expect("its own"), old);
        let new = read::<New>(&written(&old)).expect("an older release's");
        assert_eq!(new, New { name: None, added: vec![], counts: old.counts.clone() });
        let newer = New { added: vec![1], ..new };
        assert_eq!(read::<Old>(&written(&newer)).expect("a newer release's"), old, "it drops what it does not know");
    }

    #[test]
    fn bytes_that_are_no_state_are_refused_by_name_and_change_nothing() {
        let good = written(&Old { counts: [("a".into(), 1)].into(), name: Some("x".into()) });
        for end in 0..good.len() {
            let error = read::<Old>(&good[..end]).expect_err("it is cut off");
            assert!(error.to_string().contains("Old"), "{error}");
        }
        assert!(read::<Old>(&[&good[..], &[0]].concat()).is_err(), "a byte too many");
        let mut state = Old { name: Some("kept".into()), ..Old::default() };
        assert!(state.load(&mut &good[..3]).is_err());
        assert_eq!(state.name.as_deref(), Some("kept"));
    }

    fn written(state: &impl State) -> Vec<u8> {
        let mut bytes = Vec::new();
        state.save()(&mut bytes).expect("memory takes everything");
        bytes
    }

    fn read<S: State + Default>(bytes: &[u8]) -> io::Result<S> {
        let mut state = S::default();
        state.load(&mut &bytes[..]).map(|()| state)
    }
}
