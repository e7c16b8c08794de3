//! Properties of replicas, those of the paper's Figure 3 among them, checked on all replicas at once.
//!
//! Tests and simulations call [`Replicas::check`] after every step. It remembers its observations,
//! because some properties are about history: the leader of every term, and the committed
//! entries. For millions of steps, [`Replicas::check_changed`] comes to the same verdict from the
//! changes of one replica.

mod changed;

use quorate_raft::{EntryId, Index, NodeId, Replica, Role, Term};
use std::collections::BTreeMap;

pub(super) use changed::Seen;

/// An observer of all replicas of one cluster.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Replicas {
    leaders: BTreeMap<Term, NodeId>,
    /// For each present leader, its last entry and its commit index when it was last checked.
    leading: BTreeMap<Term, (EntryId, Index)>,
    committed: BTreeMap<Index, Committed>,
}

/// An entry that some replica knew to be committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Committed {
    /// The entry's own term.
    term: Term,
    /// The term in which it was seen committed. It may be later than the entry's: entries of
    /// earlier terms are committed along with one of the current term, and a leader of a term in
    /// between, deposed and not yet aware of it, may lack them.
    during: Term,
}

impl Replicas {
    /// All entries that were ever seen committed, in order.
    pub fn committed(&self) -> impl DoubleEndedIterator<Item = EntryId> {
        self.committed.iter().map(|(index, committed)| EntryId::new(committed.term, *index))
    }

    /// The same from index `from` to index `to`.
    pub fn committed_in(&self, from: Index, to: Index) -> impl Iterator<Item = EntryId> {
        let within = if from <= to { from..=to } else { to..=to };
        self.committed.range(within).map(|(index, committed)| EntryId::new(committed.term, *index))
    }

    /// Checks every property on the replicas as they are now.
    ///
    /// # Errors
    /// Names the property that is violated, and the replicas.
    pub fn check<'a>(&mut self, replicas: impl Iterator<Item = &'a Replica> + Clone) -> Result<(), String> {
        let leads = |term| replicas.clone().any(|replica| replica.is_leader() && replica.term() == term);
        self.leading.retain(|term, _| leads(*term));
        for replica in replicas.clone() {
            self.election_safety(replica)?;
            self.as_it_led_before(replica)?;
            self.state_machine_safety(replica, replica.log().first())?;
            cut_behind_a_snapshot(replica)?;
            self.base_was_committed(replica)?;
            order_of_indexes(replica)?;
            whole_before_used(replica)?;
        }
        for replica in replicas.clone() {
            self.leader_completeness(replica, Index(0))?;
            for other in replicas.clone().filter(|other| other.id() > replica.id()) {
                log_matching(replica, other, Index(0))?;
                same_configuration(replica, other)?;
            }
        }
        Ok(())
    }

    /// At most one leader can be elected in a given term (§5.2).
    fn election_safety(&mut self, replica: &Replica) -> Result<(), String> {
        if replica.is_leader() { self.leads(replica.id(), replica.term()) } else { Ok(()) }
    }

    /// A node leads, or sends what only a leader sends.
    pub(super) fn leads(&mut self, id: NodeId, term: Term) -> Result<(), String> {
        match *self.leaders.entry(term).or_insert(id) {
            leader if leader == id => Ok(()),
            leader => Err(format!("election safety: {leader} and {id} both led term {term}")),
        }
    }

    /// The last term that had a leader.
    pub(super) fn last_term_led(&self) -> Term {
        self.leaders.last_key_value().map_or(Term(0), |(term, _)| *term)
    }

    /// A leader's log only grows, and it commits only entries of its own term by counting, compared
    /// with the last check.
    fn as_it_led_before(&mut self, replica: &Replica) -> Result<(), String> {
        if !replica.is_leader() {
            return Ok(());
        }
        let (last, commit) = (replica.log().last(), replica.commit());
        let Some((last_before, commit_before)) = self.leading.insert(replica.term(), (last, commit)) else {
            return Ok(());
        };
        leader_append_only(replica, last_before)?;
        if commit > commit_before { commits_its_own(replica) } else { Ok(()) }
    }

    /// If a server has applied an entry at an index, no other ever applies a different one there
    /// (§5.4.3). Checks the entries that the replica committed from `from` on, and returns the
    /// first index that was not known to be committed.
    fn state_machine_safety(&mut self, replica: &Replica, from: Index) -> Result<Option<Index>, String> {
        let (mut index, commit) = (from, replica.commit());
        let mut first_news = None;
        while index <= commit {
            let Some(term) = replica.log().term_of(index) else {
                return Err(format!("state machine safety: {} committed {index} without having it", replica.id()));
            };
            let seen = Committed { term, during: replica.term() };
            let committed = self.committed.entry(index).or_insert_with(|| {
                first_news = first_news.or(Some(index));
                seen
            });
            let committed = committed.term;
            if committed != term {
                let id = replica.id();
                return Err(format!("state machine safety: {id} committed {index} of {term}, others of {committed}"));
            }
            index = index.next();
        }
        Ok(first_news)
    }

    /// The entries that a snapshot replaced were committed (§7).
    fn base_was_committed(&self, replica: &Replica) -> Result<(), String> {
        let (id, base) = (replica.id(), replica.log().base());
        match self.committed.get(&base.index) {
            Some(committed) if committed.term != base.term => {
                Err(format!("compaction: {id} cut up to {base}, of term {} for others", committed.term))
            }
            _ => Ok(()),
        }
    }

    /// An entry that is committed in a term is in the logs of the leaders of all later terms
    /// (§5.4). Checks the entries from `from` on.
    fn leader_completeness(&self, replica: &Replica, from: Index) -> Result<(), String> {
        let Role::Leader(leadership) = replica.role() else { return Ok(()) };
        for (index, Committed { term, during }) in self.committed.range(from.max(replica.log().first())..) {
            if *during >= replica.term() {
                continue;
            }
            if *index >= leadership.first || replica.log().term_of(*index) != Some(*term) {
                let id = replica.id();
                return Err(format!("leader completeness: {id} leads {} without {index}@{term}", replica.term()));
            }
        }
        Ok(())
    }
}

/// A leader never overwrites or deletes entries in its log; it only appends (§5.3).
fn leader_append_only(replica: &Replica, before: EntryId) -> Result<(), String> {
    if before.index < replica.log().base().index || replica.log().contains(before) {
        return Ok(());
    }
    Err(format!("leader append-only: {} leads {} and no longer has {before}", replica.id(), replica.term()))
}

/// Only entries of the leader's own term are committed by counting; earlier ones are committed
/// along with one of them (§5.4.2). Entries covered by a snapshot were committed by others.
fn commits_its_own(replica: &Replica) -> Result<(), String> {
    let (id, commit) = (replica.id(), replica.commit());
    match replica.log().term_of(commit) {
        Some(term) if term != replica.term() && commit != replica.snapshot_index() => Err(format!(
            "commit rule: {id} leads {} and committed {commit}, which is of {term}, by counting",
            replica.term()
        )),
        _ => Ok(()),
    }
}

/// If two logs contain an entry with the same index and term, they are identical up to there
/// (§5.3). Checks from just before `from` on.
fn log_matching(one: &Replica, other: &Replica, from: Index) -> Result<(), String> {
    let mut index = one.log().last().index.min(other.log().last().index);
    let floor = one.log().base().index.max(other.log().base().index).max(from.previous().previous());
    let mut must_match = false;
    while index > floor {
        let (a, b) = (one.log().term_of(index), other.log().term_of(index));
        must_match |= a == b;
        if must_match && a != b {
            let (a_id, b_id) = (one.id(), other.id());
            return Err(format!("log matching: {a_id} and {b_id} differ at {index} and agree later"));
        }
        if a == b
            && let (Some(term), Some(x), Some(y)) = (a, one.log().checksum_of(index), other.log().checksum_of(index))
            && x != y
        {
            let at = EntryId::new(term, index);
            return Err(format!("log matching: {} and {} hold different content at {at}", one.id(), other.id()));
        }
        index = index.previous();
    }
    Ok(())
}

/// Two replicas have the same configuration as of the last entry that both know to be
/// committed (§6, §7).
fn same_configuration(one: &Replica, other: &Replica) -> Result<(), String> {
    let index = one.commit().min(other.commit());
    let known = |replica: &Replica| index >= replica.snapshot_index().max(replica.log().base().index);
    let whole = |replica: &Replica| replica.first_faulty().is_none() && replica.lost_up_to().is_none();
    if known(one)
        && known(other)
        && whole(one)
        && whole(other)
        // A node that was added learns of the members from the entry that added it, and
        // of none before.
        && !one.membership_at(index).is_empty()
        && !other.membership_at(index).is_empty()
        && one.membership_at(index) != other.membership_at(index)
    {
        return Err(format!("configuration: {} and {} differ as of entry {index}", one.id(), other.id()));
    }
    Ok(())
}

/// A log is only cut if a snapshot covers the part that is cut (§7).
fn cut_behind_a_snapshot(replica: &Replica) -> Result<(), String> {
    let (id, base, snapshot) = (replica.id(), replica.log().base(), replica.snapshot_index());
    if base.index > snapshot && replica.lost_up_to() != Some(base.index) {
        return Err(format!("compaction: {id} cut up to {base}, its snapshot ends at {snapshot}"));
    }
    Ok(())
}

/// No faulty entry is applied, and a node with faulty entries or lost state does not lead.
fn whole_before_used(replica: &Replica) -> Result<(), String> {
    let id = replica.id();
    if let Some(first) = replica.first_faulty()
        && (first <= replica.dispatched() || first <= replica.log().base().index || first > replica.log().last().index)
    {
        return Err(format!("faulty entries: {id} lost {first} and dispatched up to {}", replica.dispatched()));
    }
    let lost = replica.first_faulty().is_some() || replica.lost_up_to().is_some();
    if lost && !matches!(replica.role(), Role::Follower) {
        return Err(format!("faulty entries: {id} lost some and is {:?}", replica.role()));
    }
    Ok(())
}

fn order_of_indexes(replica: &Replica) -> Result<(), String> {
    let (applied, dispatched, commit) = (replica.applied_index(), replica.dispatched(), replica.commit());
    let (durable, last) = (replica.durable(), replica.log().last().index);
    let in_order = applied <= dispatched && dispatched <= commit && commit <= last && durable <= last;
    if in_order && replica.snapshot_index() <= dispatched {
        return Ok(());
    }
    Err(format!(
        "order of indexes: {}: applied {applied} dispatched {dispatched} commit {commit} durable {durable} last {last}",
        replica.id()
    ))
}
