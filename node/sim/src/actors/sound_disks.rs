//! The disks of a cluster that are sound, and the data that may be lost because of that.
//!
//! A plan may not destroy the last copy of a committed entry: no log survives that, and a run could
//! only show a refusal. So only one member's disk is damaged at a time, and the next only after
//! that one has healed: all others then hold all entries committed with them.

use super::{
    member::{Member, State},
    observer::SharedObserver,
};
use quorate::{Index, NodeId};

/// Whether a node may lose data: it is up, and so are all others, undamaged and with a log.
pub(super) fn may_lose(node: NodeId, members: &[Member], observer: &SharedObserver) -> bool {
    note_the_healed(members, observer);
    let mut observer = observer.lock();
    let is_up = |member: &Member| member.id == node && matches!(member.state, State::Up(_));
    let mut others = members.iter().filter(|member| member.id != node);
    members.len() > 1
        && members.iter().any(is_up)
        && !observer.disk(node).is_damaged
        && !observer.promised(node).has_faulty()
        && others.all(|member| {
            let is_whole = member.status().is_some_and(|status| status.faulty == 0) && member.lost_by.is_none();
            is_whole && !observer.disk(member.id).is_damaged && observer.promised(member.id).last() > Index(0)
        })
}

/// Whether a power cut may leave an entry's identity without its payload. That looks the same as an
/// entry that another member lost too, and the cluster would have to wait for its operator.
pub(super) fn may_scatter(members: &[Member], observer: &SharedObserver) -> bool {
    note_the_healed(members, observer);
    let mut observer = observer.lock();
    members.iter().all(|member| {
        let is_sound = !matches!(member.state, State::Out) && member.lost_by.is_none();
        // A node that never held anything can't tell that it was not emptied, and counts as lost.
        is_sound && !observer.disk(member.id).is_damaged && observer.promised(member.id).last() > Index(0)
    })
}

/// A damaged disk is sound again once its node has all entries that any node knows to be committed.
fn note_the_healed(members: &[Member], observer: &SharedObserver) {
    let commit = members.iter().filter_map(|member| Some(member.status()?.commit)).max();
    let mut observer = observer.lock();
    for member in members {
        let Some(status) = member.status() else { continue };
        let is_whole = status.faulty == 0
            && !observer.promised(member.id).has_faulty()
            && Some(status.applied) >= commit
            && status.leader.is_some();
        let disk = observer.disk(member.id);
        // A worn sector is faulty again after every start.
        if is_whole && !disk.disk.is_worn() {
            (disk.is_damaged, disk.is_misplaced) = (false, false);
        }
    }
}
