//! What must hold whatever happens: the safety properties of the paper's Figure 3, checked on all replicas at once.
//!
//! Tests and simulations call [`Cluster::check`] after every step. It remembers what it has seen, because some properties
//! speak about history: who ever led a term, and what was ever committed. Where there are millions of steps,
//! [`Cluster::check_changed`] comes to the same judgement by looking only at what one replica changed.

mod changed;

use crate::{
    ids::{EntryId, Index, NodeId, Term},
    replica::{Replica, Role},
};
use alloc::{collections::BTreeMap, format, string::String};

pub use changed::Seen;

/// Watches the replicas of one cluster from outside.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Cluster {
    leaders: BTreeMap<Term, NodeId>,
    /// Where the log of each present leader ended when it was last looked at, and how far it had committed.
    leading: BTreeMap<Term, (EntryId, Index)>,
    committed: BTreeMap<Index, Committed>,
}

/// An entry that some replica knew to be committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Committed {
    /// The entry's own term.
    term: Term,
    /// The term in which it was seen committed. That may be later: entries of earlier terms are committed along with one
    /// of the current term, and a leader of a term in between, deposed and not yet aware of it, may lack them.
    during: Term,
}

impl Cluster {
    /// The entries that were ever seen committed, in order.
    pub fn committed(&self) -> impl DoubleEndedIterator<Item = EntryId> {
        self.committed.iter().map(|(index, committed)| EntryId::new(committed.term, *index))
    }

    /// Those from `from` to `to`.
    pub fn committed_in(&self, from: Index, to: Index) -> impl Iterator<Item = EntryId> {
        let within = if from <= to { from..=to } else { to..=to };
        self.committed.range(within).map(|(index, committed)| EntryId::new(committed.term, *index))
    }

    /// Checks every property on the replicas as they are now.
    ///
    /// # Errors
    /// Says which property is violated, and by whom.
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
        if !replica.is_leader() {
            return Ok(());
        }
        match *self.leaders.entry(replica.term()).or_insert(replica.id()) {
            leader if leader == replica.id() => Ok(()),
            leader => Err(format!("election safety: {leader} and {} both led term {}", replica.id(), replica.term())),
        }
    }

    /// What a leader was when it was last looked at bounds what it may be now.
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

    /// If a server has applied an entry at an index, no other ever applies a different one there (§5.4.3). Looks at what the
    /// replica committed from `from` on, and says from where on something of it was not known to be.
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

    /// What a snapshot took the place of was committed (§7).
    fn base_was_committed(&self, replica: &Replica) -> Result<(), String> {
        let (id, base) = (replica.id(), replica.log().base());
        match self.committed.get(&base.index) {
            Some(committed) if committed.term != base.term => {
                Err(format!("compaction: {id} cut up to {base}, of term {} for others", committed.term))
            }
            _ => Ok(()),
        }
    }

    /// An entry that is committed in a term is in the logs of the leaders of all later terms (§5.4). Looks at those from
    /// `from` on.
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

/// Only entries of the leader's own term are committed by counting; those before are committed along with one of them (§5.4.2).
/// What a snapshot covers was committed by others.
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

/// If two logs contain an entry with the same index and term, they are identical up to there (§5.3). Looks at those from just
/// before `from` on.
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

/// As of what both know to be committed, two replicas are in the same configuration (§6, §7).
fn same_configuration(one: &Replica, other: &Replica) -> Result<(), String> {
    let index = one.commit().min(other.commit());
    let known = |replica: &Replica| index >= replica.snapshot_index().max(replica.log().base().index);
    let whole = |replica: &Replica| replica.first_faulty().is_none() && replica.lost_up_to().is_none();
    if known(one)
        && known(other)
        && whole(one)
        && whole(other)
        // Who was added learns of the members by the entry that added it, and knows nothing of those before.
        && !one.membership_at(index).is_empty()
        && !other.membership_at(index).is_empty()
        && one.membership_at(index) != other.membership_at(index)
    {
        return Err(format!("configuration: {} and {} differ as of entry {index}", one.id(), other.id()));
    }
    Ok(())
}

/// Nothing was cut without a snapshot (§7).
fn cut_behind_a_snapshot(replica: &Replica) -> Result<(), String> {
    let (id, base, snapshot) = (replica.id(), replica.log().base(), replica.snapshot_index());
    if base.index > snapshot && replica.lost_up_to() != Some(base.index) {
        return Err(format!("compaction: {id} cut up to {base}, its snapshot ends at {snapshot}"));
    }
    Ok(())
}

/// Nothing faulty is applied, and who has lost anything does not lead.
fn whole_before_used(replica: &Replica) -> Result<(), String> {
    let id = replica.id();
    if let Some(first) = replica.first_faulty()
        && (first <= replica.released() || first <= replica.log().base().index || first > replica.log().last().index)
    {
        return Err(format!("faulty entries: {id} lost {first} and released up to {}", replica.released()));
    }
    let lost = replica.first_faulty().is_some() || replica.lost_up_to().is_some();
    if lost && !matches!(replica.role(), Role::Follower) {
        return Err(format!("faulty entries: {id} lost some and is {:?}", replica.role()));
    }
    Ok(())
}

fn order_of_indexes(replica: &Replica) -> Result<(), String> {
    let (applied, released, commit) = (replica.applied_index(), replica.released(), replica.commit());
    let (durable, last) = (replica.durable(), replica.log().last().index);
    let in_order = applied <= released && released <= commit && commit <= last && durable <= last;
    if in_order && replica.snapshot_index() <= released {
        return Ok(());
    }
    Err(format!(
        "order of indexes: {}: applied {applied} released {released} commit {commit} durable {durable} last {last}",
        replica.id()
    ))
}
