//! The expected content of a store.

use super::probe::reply;
use quorate_raft::{
    Batch, BatchBuilder, Cut, EntryId, Index, Kind, Membership, NodeId, Persist, SnapshotBase, Term, record::Record,
};
use quorate_storage::contract::Recovered;

/// A log of entries, as a store should hold it.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// The entry before the first, and its checksum.
    pub(super) base: (EntryId, u32),
    batches: Vec<Batch>,
}

impl Log {
    /// A log of the given numbers of entries per term, in batches of 3 at most.
    pub(super) fn of(terms: &[(u64, usize)], payload_bytes: usize) -> Self {
        let mut log = Self::default();
        for (term, mut count) in terms.iter().copied() {
            while count > 0 {
                log.batch(Term(term), count.min(3), payload_bytes);
                count = count.saturating_sub(3);
            }
        }
        log
    }

    /// An empty log after an entry.
    pub(super) fn after(last: EntryId, checksum: u32) -> Self {
        Self { base: (last, checksum), batches: Vec::new() }
    }

    /// Appends `count` entries and returns them.
    pub(super) fn batch(&mut self, term: Term, count: usize, payload_bytes: usize) -> Batch {
        let first = self.last().0.index.next();
        // A store never interprets the payload of clients' entries.
        let kind = match (payload_bytes, first.0 % 5) {
            (0, _) => Kind::Noop,
            (_, 0) => Kind::Session,
            (_, 1) => Kind::Tick,
            (_, 2) => Kind::Internal,
            _ => Kind::Command,
        };
        let payload = |number: usize| {
            let salt = first.0 as usize + number - 1;
            (0..payload_bytes).map(move |at| (at * 31 + salt) as u8).collect::<Vec<u8>>()
        };
        self.push(term, (0..count).map(|number| (kind, payload(number))))
    }

    /// Appends `count` entries as stubs, as a witness keeps them, and returns them.
    pub(super) fn stubs(&mut self, term: Term, count: usize, payload_bytes: usize) -> Batch {
        let stubs = self.batch(term, count, payload_bytes).to_stubs(quorate_storage::checksum);
        self.batches.pop();
        self.batches.push(stubs.clone());
        stubs
    }

    /// Appends a configuration and returns its entry.
    pub(super) fn membership(&mut self, term: Term, membership: &Membership) -> Batch {
        self.push(term, [(Kind::Membership, membership.encode().to_vec())])
    }

    fn push(&mut self, term: Term, entries: impl IntoIterator<Item = (Kind, Vec<u8>)>) -> Batch {
        let (last, checksum) = self.last();
        let mut builder = BatchBuilder::new(quorate_storage::checksum, term, last.index.next(), checksum, 0);
        entries.into_iter().for_each(|(kind, payload)| builder.push(kind, &payload));
        let batch = builder.finish().expect("something was pushed");
        self.batches.push(batch.clone());
        batch
    }

    pub(super) fn truncate(&mut self, from: Index) {
        self.batches.retain(|batch| batch.first() < from);
        if let Some(last) = self.batches.last_mut() {
            *last = last.up_to(from.previous()).expect("it begins before");
        }
    }

    /// Lets the log begin after an entry that it holds, and returns the request for that.
    pub(super) fn cut(&mut self, to: Index) -> Cut {
        let (id, checksum) = self.entry(to);
        self.batches.retain(|batch| batch.last() > to);
        if let Some(first) = self.batches.first_mut() {
            *first = first.from(to.next()).expect("it ends after");
        }
        self.base = (id, checksum);
        Cut { to: id, checksum: Some(checksum) }
    }

    pub(super) fn batches(&self) -> &[Batch] {
        &self.batches
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.batches.iter().flat_map(Batch::records)
    }

    /// An entry's id and checksum.
    pub(super) fn entry(&self, index: Index) -> (EntryId, u32) {
        let found = self.records().find(|record| record.id.index == index);
        found.map_or(self.base, |record| (record.id, record.checksum))
    }

    pub(super) fn last(&self) -> (EntryId, u32) {
        self.batches.last().map_or(self.base, |batch| (batch.last_id(), batch.checksum()))
    }

    /// The entries of one term from `first` to `last`, as one batch.
    pub(super) fn slice(&self, first: Index, last: Index) -> Batch {
        let records: Vec<_> = self.records().filter(|record| (first..=last).contains(&record.id.index)).collect();
        let mut builder =
            BatchBuilder::new(quorate_storage::checksum, records[0].id.term, first, records[0].previous_checksum, 0);
        records.iter().for_each(|record| builder.push(record.kind, record.payload));
        builder.finish().expect("there is an entry")
    }

    /// The base of a snapshot that ends at this entry of the log.
    pub(super) fn snapshot_base(&self, index: Index) -> SnapshotBase {
        let (last, last_checksum) = self.entry(index);
        SnapshotBase { last, last_checksum, membership: members(index), membership_index: index }
    }

    /// Asserts that this log was recovered. It may begin earlier, because a store may drop entries
    /// in larger pieces.
    pub(super) fn assert_is(&self, recovered: &Recovered) {
        assert_eq!((recovered.last, recovered.last_checksum), self.last(), "the last entry is found");
        assert!(recovered.base.index <= self.base.0.index, "no entry is missing after {}", self.base.0);
        let mut terms: Vec<_> = self.batches.iter().map(|batch| (batch.first(), batch.term())).collect();
        terms.dedup_by_key(|(_, term)| *term);
        let told: Vec<_> = recovered.terms.iter().filter(|(first, _)| *first > self.base.0.index).copied().collect();
        let begins_earlier = terms.first().is_some_and(|first| told.first() != Some(first));
        let terms = if begins_earlier { &terms[1..] } else { &terms[..] };
        assert_eq!(told, terms, "the first entry of every term is found");
        if begins_earlier {
            let before = recovered.terms.iter().rev().find(|(first, _)| *first <= self.base.0.index);
            let first = self.batches.first().map(Batch::term);
            assert_eq!(before.map(|(_, term)| *term), first, "the term of the first entry is found");
        }
    }

    /// Asserts that this log was recovered, and begins right after its base.
    pub(super) fn assert_is_exactly(&self, recovered: &Recovered) {
        self.assert_is(recovered);
        assert_eq!(recovered.base, self.base.0, "the log begins after the snapshot");
    }

    /// Asserts that the batches are `count` entries of this log from `from` on.
    pub(super) fn assert_equal(&self, batches: &[Batch], from: Index, count: u64) {
        let read: Vec<_> = batches.iter().flat_map(Batch::records).collect();
        let wanted: Vec<_> = self.records().skip_while(|record| record.id.index < from).take(count as usize).collect();
        assert_eq!(read.len(), wanted.len(), "{count} entries from {from} on are read");
        assert_eq!(read, wanted, "entries are read as they were persisted");
        for batch in batches {
            Batch::parse(batch.bytes().clone(), quorate_storage::checksum).expect("a batch that was read is one");
        }
    }
}

/// The configuration as of an entry: different for each index.
pub(super) fn members(index: Index) -> Membership {
    Membership::of_addresses((1..=3).map(|id| (NodeId(id), format!("node-{id}:{index}"))))
}

pub(super) fn append(batch: Batch) -> Persist {
    Persist { batch: Some(batch), ..Default::default() }
}

pub(super) fn truncate(from: Index) -> Persist {
    Persist { truncate_from: Some(from), ..Default::default() }
}

pub(super) fn cut(cut: Cut) -> Persist {
    Persist { cut: Some(cut), ..Default::default() }
}

pub(super) fn repair(batch: Batch) -> Persist {
    Persist { repair: Some(batch), ..Default::default() }
}

/// A persist with a reply that carries this number.
pub(super) fn then(number: u64, persist: Persist) -> Persist {
    Persist { then: vec![reply(number)], ..persist }
}
