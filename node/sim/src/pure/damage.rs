//! Limits on the damage to disks: while nodes can still tell what they lost, the last copy of an
//! entry that may be committed survives, and where logs are compacted, a quorum loses nothing.
//! Damage beyond that is held back, and counted.

use super::{machine::id_of, walk::Walk};
use quorate_raft::{Index, NodeId};
use quorate_world::{
    disk::{Disk, Fault},
    events::Event,
};
use rand::Rng;

/// The most entries that one fault takes.
const ENTRIES_MAX: usize = 3;

impl Walk<'_> {
    /// Damages the disk of a node that is down, by a fault of this kind.
    pub(super) fn harm(&mut self, at: usize, kind: &'static str) -> Result<(), String> {
        let id = id_of(at);
        for _ in 0..self.random.random_range(1..=ENTRIES_MAX) {
            match self.survivable(id, kind) {
                Some(event) => {
                    self.say(|| format!("{kind}: {event:?}"));
                    self.report.fired(kind);
                    self.step(id, event)?;
                }
                None => self.report.count("held back", 1),
            }
        }
        Ok(())
    }

    /// Draws damage to the disk of this node that the cluster can survive; none if
    /// that is impossible.
    fn survivable(&mut self, id: NodeId, kind: &'static str) -> Option<Event> {
        let disk = &self.world.node(id).disk;
        let whole = disk.whole();
        let lost = whole.get(self.random.random_range(0..whole.len().max(1))).copied();
        if self.reckless {
            return Some(Event::Lose(id, lost?.index, Fault::Proven));
        }
        if !self.settled || self.world.emptied.contains(&id) {
            return None;
        }
        let most_are_sound = self.world.is_quorum(|node| node.id != id && node.disk.is_sound());
        if self.cuts && !most_are_sound {
            return None;
        }
        let has_snapshot = disk.base.index > Index(0) && disk.snapshot.is_some();
        let snapshots = if kind == "read-error" { 0.5 } else { 0.2 };
        if has_snapshot && self.random.random_bool(snapshots) {
            let base = disk.base;
            return self.others(id).any(|disk| disk.holds(base)).then_some(Event::LoseSnapshot(id));
        }
        let (lost, others) = (lost?, || self.others(id));
        let is_remembered = self.world.is_quorum(|node| node.id == id || node.disk.remembers(lost));
        let held = others().any(|disk| disk.holds(lost));
        // Without proof that it was durable it counts as torn: that is survived on one disk for
        // each entry, not on several at once.
        let doubted = others().any(|disk| disk.doubts(lost));
        // The only copy of an entry that can't have been committed may go, too: but not where a
        // copy in flight may be torn, for then the two cases can't be told apart.
        let surely_uncommitted = !is_remembered && most_are_sound && !self.tears;
        // Zeros look like space that was never written; every other fault leaves some proof.
        let unproven = !doubted && self.random.random_bool(if kind == "zero" { 0.7 } else { 0.1 });
        let fault = if unproven { Fault::Unproven } else { Fault::Proven };
        (held || surely_uncommitted).then_some(Event::Lose(id, lost.index, fault))
    }

    /// Empties the directory of a node that is down, if the cluster can survive that.
    pub(super) fn empty_if_survivable(&mut self, at: usize) -> Result<(), String> {
        let id = id_of(at);
        if !self.others_can_do_without(id) {
            return Ok(());
        }
        self.machines[at].empties = false;
        self.machines[at].harm.clear();
        self.say(|| format!("somebody empties the directory of {id}"));
        self.report.fired("wipe");
        let stepped = self.world.empty(id);
        self.after(id, stepped)
    }

    /// Puts the directory of a node that is down back to its copy, if the cluster can survive
    /// and notice that.
    pub(super) fn put_back_if_survivable(&mut self, at: usize) -> Result<(), String> {
        let id = id_of(at);
        let lacks = self.machines[at].copy.as_ref().is_some_and(|copy| self.is_known_to_hold_more(id, copy));
        if !lacks || !self.others_can_do_without(id) {
            return Ok(());
        }
        let Some(copy) = self.machines[at].copy.take() else { return Ok(()) };
        self.machines[at].puts_back = false;
        self.machines[at].harm.clear();
        self.say(|| format!("the directory of {id} is put back to where its log ended at {}", copy.last()));
        self.report.fired("put-back");
        let stepped = self.world.put_back(id, copy);
        self.after(id, stepped)
    }

    /// Whether all others know durably that a node held more entries than a copy of its disk has,
    /// and the copy has the same term and vote and no shorter promise: a lost vote or promise
    /// can't be noticed.
    fn is_known_to_hold_more(&self, id: NodeId, copy: &Disk) -> bool {
        let (disk, last) = (&self.world.node(id).disk, copy.last().index);
        let (then, now) = (copy.hard_state, disk.hard_state);
        let promises = (then.term, then.vote) == (now.term, now.vote) && then.promise >= now.promise;
        let knows = |other: &Disk| other.known.get(&id).is_some_and(|held| *held > last);
        last > Index(0) && promises && copy.is_sound() && self.others(id).all(knows)
    }

    /// Whether the others can go on without the entries and promises of a node, and all of them
    /// know that it had a log.
    fn others_can_do_without(&self, id: NodeId) -> bool {
        let mut entries = self.world.oracle.committed().chain(self.world.node(id).disk.entries());
        let remembered = |entry| self.world.is_quorum(|node| node.id != id && node.disk.remembers(entry));
        self.settled
            && self.world.emptied.is_empty()
            && self.world.is_quorum(|node| node.id != id)
            && self.others(id).all(|disk| disk.known.contains_key(&id) && disk.is_sound())
            && self.others(id).all(|disk| disk.entries().all(|entry| disk.holds(entry)))
            && entries.all(|entry| remembered(entry) && self.others(id).any(|disk| disk.holds(entry)))
    }

    fn others(&self, id: NodeId) -> impl Iterator<Item = &Disk> {
        self.world.nodes.iter().filter(move |node| node.id != id).map(|node| &node.disk)
    }
}
