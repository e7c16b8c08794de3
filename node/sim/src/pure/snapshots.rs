//! Snapshots: when one is due, and which peers it helps ([`SnapshotPolicy`]).
//!
//! [`SnapshotPolicy`]: quorate::decisions::snapshot_policy::SnapshotPolicy

use super::{machine::slot, walk::Walk};
use quorate::decisions::snapshot_policy::{self, Decision, Need, Taken};
use quorate_raft::{Index, NodeId, Term};
use quorate_world::events::Event;

impl Walk<'_> {
    /// A peer of a leader needs a snapshot that covers this entry.
    pub(super) fn snapshot_wanted(
        &mut self,
        id: NodeId,
        peer: NodeId,
        term: Term,
        at_least: Index,
    ) -> Result<(), String> {
        if let Some(decisions) = &mut self.machines[slot(id)].decisions {
            decisions.snapshots.needed(peer, Need { term, at_least, anew: false });
        }
        self.decide_snapshots(id)
    }

    /// An operator asks a node for a snapshot; false if there is none to be taken now.
    pub(super) fn ask_for_snapshot(&mut self, id: NodeId) -> Result<bool, String> {
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(false) };
        decisions.is_asked_for_snapshot = true;
        let builds = decisions.builds;
        self.decide_snapshots(id)?;
        Ok(!builds && self.machines[slot(id)].decisions.as_ref().is_some_and(|decisions| decisions.builds))
    }

    /// Takes a snapshot of a node if one is due, and offers the newest one to the peers that
    /// it helps.
    pub(super) fn decide_snapshots(&mut self, id: NodeId) -> Result<(), String> {
        let (now, Some(running)) = (self.world.now_of(id), self.world.running(id)) else { return Ok(()) };
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        let (replica, policy) = (&running.replica, &mut decisions.snapshots);
        if decisions.builds && !running.saving {
            decisions.builds = false;
            policy.built();
        }
        let (applied, newest) = (replica.applied_index(), replica.snapshot_index());
        let view = snapshot_policy::View {
            applied,
            newest,
            knows_members: !replica.membership_at(applied).is_empty(),
            is_restoring: newest > applied,
            has_callers: decisions.is_asked_for_snapshot,
        };
        let builds = policy.decide(|| now, &view) == Decision::Build;
        if builds {
            decisions.is_asked_for_snapshot = false;
        }
        match policy.state_taken(running.applied, newest).filter(|_| builds) {
            Some(Taken::Write) => self.build(id)?,
            Some(Taken::Covered) => policy.built(),
            None => {}
        }
        self.offer_snapshots(id)
    }

    fn build(&mut self, id: NodeId) -> Result<(), String> {
        self.step(id, Event::Snapshot(id))?;
        let (now, saves) = (self.world.now_of(id), self.world.running(id).is_some_and(|running| running.saving));
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        decisions.builds = saves;
        if saves {
            self.report.count("snapshots", 1);
        } else {
            decisions.snapshots.failed(now);
        }
        Ok(())
    }

    fn offer_snapshots(&mut self, id: NodeId) -> Result<(), String> {
        let Some(running) = self.world.running(id).filter(|running| running.leads()) else { return Ok(()) };
        let (term, newest, base) =
            (running.replica.term(), running.replica.snapshot_index(), running.replica.log().base().index);
        let Some(decisions) = &mut self.machines[slot(id)].decisions else { return Ok(()) };
        let found = self.world.node(id).disk.snapshot.as_ref().map(|snapshot| snapshot.last.index);
        let mut helped = decisions.snapshots.helped(term, newest, || running.replica.peers());
        helped.retain(|(peer, need)| decisions.snapshots.opened(*peer, *need, newest, found, base));
        for (peer, _) in helped {
            let stepped = self.world.offer_snapshot(id, peer);
            self.after(id, stepped)?;
        }
        Ok(())
    }
}
