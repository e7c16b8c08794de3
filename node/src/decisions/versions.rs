//! The version of a service's commands: when the leader raises that of the cluster.
//!
//! The log has the cluster's version, so all nodes agree on it at each entry. A leader raises it to
//! the newest that *every* member applies, once it has applied what earlier leaders committed. It
//! never falls. A member that is added later, or goes back to an older release, and does not apply
//! it, halts there by name.
//!
//! A caller's node refuses a command that is too new before it sends it, if it knows that a member
//! does not apply it. That saves an entry and decides nothing: in doubt the command is sent, and all
//! nodes judge it by the version in the log.

use quorate_raft::Term;

/// The version that the machine of this node has reached, and the one that this leader has asked
/// for.
#[derive(Default, Debug)]
pub struct Versions {
    /// `None` for a machine that is no service.
    reached: Option<u32>,
    asked: Option<(Term, u32)>,
}

/// The node's part in the cluster.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub is_leader: bool,
    pub term: Term,
    /// The first entry of the leadership is applied.
    pub has_applied_first: bool,
    /// The newest version that every member applies, if all have stated theirs.
    pub of_all: Option<u32>,
}

impl Versions {
    /// The machine has reached this version. `true` if it is another one than before.
    pub fn reached(&mut self, version: Option<u32>) -> bool {
        std::mem::replace(&mut self.reached, version) != version
    }

    /// Whether a release that applies `newest` could raise the version.
    pub fn may_rise(&self, newest: u32) -> bool {
        self.reached.is_some_and(|reached| reached < newest)
    }

    /// The version that is to be appended now. Once for a leadership and version.
    pub fn raise(&mut self, view: &View) -> Option<u32> {
        let (reached, of_all) = (self.reached?, view.of_all?);
        let is_asked = self.asked.is_some_and(|(term, version)| term == view.term && version >= of_all);
        if !view.is_leader || !view.has_applied_first || of_all <= reached || is_asked {
            return None;
        }
        self.asked = Some((view.term, of_all));
        Some(of_all)
    }
}

/// Whether a command of version `needs` is refused before it is sent.
#[must_use]
pub fn is_too_new(needs: u32, reached: u32, of_all: Option<u32>) -> bool {
    needs > reached && of_all.is_some_and(|of_all| needs > of_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADS: View = View { is_leader: true, term: Term(3), has_applied_first: true, of_all: Some(2) };

    #[test]
    fn the_leader_raises_the_version_to_what_every_member_applies_once() {
        let mut versions = at(0);
        assert_eq!(versions.raise(&View { of_all: Some(0), ..LEADS }), None);
        assert_eq!(versions.raise(&LEADS), Some(2));
        assert_eq!(versions.raise(&LEADS), None, "it is in the log");
        assert_eq!(versions.raise(&View { of_all: Some(3), ..LEADS }), Some(3), "the next release is everywhere");
        assert_eq!(versions.raise(&View { of_all: Some(2), ..LEADS }), None);
        assert!(versions.reached(Some(3)) && !versions.reached(Some(3)));
        assert_eq!(versions.raise(&View { term: Term(4), ..LEADS }), None, "it is reached, and never falls");
    }

    #[test]
    fn the_next_leader_asks_again_for_what_was_not_committed() {
        let mut versions = at(0);
        assert_eq!(versions.raise(&LEADS), Some(2));
        assert_eq!(versions.raise(&View { term: Term(4), ..LEADS }), Some(2));
    }

    #[test]
    fn a_node_that_does_not_lead_or_does_not_know_raises_nothing() {
        let mut versions = at(0);
        assert_eq!(versions.raise(&View { is_leader: false, ..LEADS }), None);
        assert_eq!(versions.raise(&View { has_applied_first: false, ..LEADS }), None);
        assert_eq!(versions.raise(&View { of_all: None, ..LEADS }), None, "a member has not stated its versions");
        assert_eq!(Versions::default().raise(&LEADS), None, "the machine is no service");
        assert_eq!(versions.raise(&LEADS), Some(2));
        assert!(!Versions::default().may_rise(9) && at(1).may_rise(2) && !at(2).may_rise(2));
    }

    #[test]
    fn a_command_is_refused_at_its_caller_only_if_a_member_is_known_not_to_apply_it() {
        assert!(is_too_new(2, 1, Some(1)));
        assert!(!is_too_new(2, 1, Some(2)), "the cluster reaches it, or has reached it elsewhere");
        assert!(!is_too_new(2, 1, None), "after a start the members are not known");
        assert!(!is_too_new(2, 2, Some(1)), "it was reached before the member went back");
        assert!(!is_too_new(0, 0, Some(0)));
    }

    fn at(version: u32) -> Versions {
        Versions { reached: Some(version), asked: None }
    }
}
