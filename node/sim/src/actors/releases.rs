//! The releases of the typed service that the members run, and the properties that must hold of its
//! versions. A member that starts again may be a newer release, at most one later than the oldest;
//! or, for one life, the release before, by a mistake of its operator.
//!
//! - **Raised together.** The leader raises the version only once every member has run a release that
//!   applies it.
//! - **Refused alike.** Every node refuses a command that is newer than the version in the log, and
//!   applies all others ([`service`](super::service)).
//! - **Too old by name.** A node never goes on at a version that its release does not know: it halts
//!   with the version that it needs, or refuses the snapshot. No other node halts.
//! - **In the end** the cluster has the version of the oldest member.

use super::member::Member;
use crate::plan::Plan;
use quorate::{HaltCause, NodeId};
use std::collections::BTreeMap;

/// The newest release of the service. Later ones of the plan are the same.
const NEWEST: u32 = 2;

/// The percentage of starts with a newer release, and of those with an older one.
const NEWER: u32 = 50;
const OLDER: u32 = 8;

/// The newest release that each member has run.
#[derive(Default)]
pub(super) struct Releases {
    newest: BTreeMap<NodeId, u32>,
    /// Members come and go, so it is not known which of them a leader has to ask.
    is_unknown: bool,
    raised: u32,
}

impl Releases {
    pub(super) fn new(plan: &Plan) -> Self {
        let newest = (1..=plan.nodes).map(|id| (NodeId(id), 0)).collect();
        Self { newest, is_unknown: plan.changes_members(), raised: 0 }
    }

    /// A member starts with this release.
    pub(super) fn started(&mut self, node: NodeId, release: u32) {
        let newest = self.newest.entry(node).or_default();
        *newest = release.max(*newest);
    }

    /// A node writes the entry that raises the version.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn written(&mut self, version: u32) -> Result<(), String> {
        self.raised = self.raised.max(version);
        let older = self.newest.iter().find(|(_, newest)| **newest < version).filter(|_| !self.is_unknown);
        older.map_or(Ok(()), |(node, newest)| {
            Err(format!("raised together: the version rises to {version}, and {node} has run {newest} at most"))
        })
    }

    /// Checks the halt of a member, and returns the release that it needs.
    ///
    /// # Errors
    /// The property that does not hold.
    pub(super) fn halted(&self, member: &Member, cause: &HaltCause) -> Result<u32, String> {
        let (id, runs) = (member.id, member.running);
        match *cause {
            HaltCause::TooOld { needs, release }
                if release == runs
                    && needs > release
                    && needs <= self.raised
                    && (member.is_rolled_back || self.is_unknown) =>
            {
                Ok(needs)
            }
            _ => Err(format!("too old by name: {id} with release {runs}, of a cluster at {}: {cause}", self.raised)),
        }
    }

    /// Whether the end of a member is that of a release which does not know the snapshot.
    pub(super) fn explain(&self, member: &Member, words: &str) -> bool {
        let runs = member.running;
        let named = format!("and this release reads up to {runs}: run a newer one");
        runs < self.raised && (member.is_rolled_back || self.is_unknown) && words.contains(&named)
    }
}

impl Member {
    /// The release of the service with which it starts next.
    pub(super) fn next_release(&self) -> u32 {
        self.release.min(NEWEST).saturating_sub(self.is_rolled_back.into())
    }

    /// The operator starts the member again. `draw` is a percentage.
    pub(super) fn choose_release(&mut self, draw: u32, next: u32) {
        if draw < NEWER {
            self.release = self.release.max(next.min(NEWEST));
        }
        self.is_rolled_back = self.release > 0 && (NEWER..NEWER + OLDER).contains(&draw);
    }

    /// The operator has seen that its release is too old.
    pub(super) fn is_mended(&mut self, needs: u32) {
        (self.release, self.is_rolled_back) = (self.release.max(needs), false);
    }
}
