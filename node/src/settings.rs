//! The settings that nodes state when they meet, so that each can report where they differ.
//!
//! No safety rests on them: a value that would be unsafe to differ travels with messages and
//! entries (`ARCHITECTURE.md` has the list). They are compared to find a difference made by
//! mistake, which makes behaviour depend on the node that leads, or that was asked.

use crate::config::{Limits, Sessions, Timing};
use quorate_raft::{Index, NodeId, Replica};
use std::collections::BTreeMap;

/// The settings of this node that are compared, and those that peers have differently.
pub(crate) struct Compared {
    own: Vec<Setting>,
    differing: BTreeMap<NodeId, BTreeMap<&'static str, String>>,
}

/// A setting as text, with advice for when another node has a different value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    name: &'static str,
    value: String,
    advice: &'static str,
}

/// A setting that a peer has differently.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) setting: &'static str,
    pub(crate) own: String,
    pub(crate) other: String,
    pub(crate) advice: &'static str,
}

/// A node whose state machine halted states the index of the entry under this name, beside its
/// settings.
pub(crate) const HALTED_AT: &str = "halted_at";

/// The most characters of a peer's value that are kept.
const VALUE_MAX: usize = 200;

impl Compared {
    pub(crate) fn new(
        timing: &Timing,
        limits: &Limits,
        sessions: &Sessions,
        preferred_leaders: &[NodeId],
        replica: &Replica,
    ) -> Self {
        let (shortest, longest) = timing.election_timeout;
        let setting = |name, value, advice| Setting { name, value, advice };
        let mut own = vec![
            setting(
                "election_timeout",
                format!("{shortest:?} to {longest:?}"),
                "reads by lease are safe all the same, but nodes with the shorter one depose those with the longer one: give all \
                 nodes the same, unless this is a rolling change",
            ),
            setting(
                "heartbeat_interval",
                format!("{:?}", timing.heartbeat_interval),
                "a leader with one above half of another node's shortest election_timeout is deposed again and again: give all \
                 nodes the same",
            ),
            setting(
                "clock_drift_max",
                format!("{} per mille and {:?}", timing.clock_drift_max.per_mille, timing.clock_drift_max.fixed),
                "each leader shortens its lease by its own: give all nodes the largest that is true of any of them",
            ),
            setting(
                "max_command_bytes",
                limits.max_command_bytes.to_string(),
                "whether a command is too large depends on the node that is asked: give all nodes the same",
            ),
            setting(
                "sessions",
                format!("{} for {:?}", sessions.max_sessions, sessions.idle_limit),
                "when sessions are forgotten depends on the node that leads: give all nodes the same",
            ),
            setting(
                "prefers",
                in_words(preferred_leaders),
                "each leader hands over by its own list, so leadership may go back and forth: give all nodes the same",
            ),
        ];
        let has_own_voters = replica.membership_index() == Index(0) && !replica.membership().is_empty();
        if has_own_voters {
            own.push(setting(
                "voters",
                in_words(&replica.membership().voters()),
                "before the first leader has written them down, each node counts majorities of its own: stop the nodes, and give \
                 all the same before anything is written",
            ));
        }
        Self { own, differing: BTreeMap::new() }
    }

    /// The settings that this node states to its peers.
    pub(crate) fn stated(&self) -> BTreeMap<String, String> {
        self.own.iter().map(|setting| (setting.name.to_owned(), setting.value.clone())).collect()
    }

    /// Compares the settings that a peer stated; each different value is returned once.
    pub(crate) fn compare(&mut self, peer: NodeId, stated: &BTreeMap<String, String>) -> Vec<Difference> {
        let known = self.differing.entry(peer).or_default();
        let mut news = Vec::new();
        for Setting { name, value, advice } in &self.own {
            let other = stated.get(*name).map(|other| other.chars().take(VALUE_MAX).collect::<String>());
            match other.filter(|other| other != value) {
                None => {
                    known.remove(name);
                }
                Some(other) if known.get(name) == Some(&other) => {}
                Some(other) => {
                    known.insert(name, other.clone());
                    news.push(Difference { setting: name, own: value.clone(), other, advice });
                }
            }
        }
        news
    }

    /// Number of settings that differ at a peer, as it stated last.
    pub(crate) fn differing(&self, peer: NodeId) -> usize {
        self.differing.get(&peer).map_or(0, BTreeMap::len)
    }
}

fn in_words(nodes: &[NodeId]) -> String {
    let nodes: Vec<_> = nodes.iter().map(NodeId::to_string).collect();
    if nodes.is_empty() { "none".into() } else { nodes.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::Compared;
    use crate::config::{Limits, Sessions, Timing};
    use quorate_raft::{Membership, NodeId, Recovered, Replica, Settings};
    use std::time::Duration;

    #[test]
    fn a_setting_that_differs_is_told_once_a_peer_and_value_until_it_is_the_same_again() {
        let usual = Timing::default();
        let longer = Timing { election_timeout: (Duration::from_secs(1), Duration::from_secs(2)), ..usual };
        let other = of(usual, &[1, 2, 3]).stated();
        let mut compared = of(longer, &[1, 2, 3]);
        for peer in [2, 3].map(NodeId) {
            let told = compared.compare(peer, &other);
            let [difference] = &told[..] else { panic!("{told:?}") };
            assert_eq!((difference.setting, &*difference.own), ("election_timeout", "1s to 2s"));
            assert_eq!((&*difference.other, compared.differing(peer)), ("150ms to 300ms", 1));
            assert_eq!(compared.compare(peer, &other), [], "it connected again");
        }
        let same = compared.stated();
        assert_eq!((compared.compare(NodeId(2), &same), compared.differing(NodeId(2))), (vec![], 0));
        assert_eq!(compared.compare(NodeId(2), &other).len(), 1, "and differs again");
        assert_eq!(compared.compare(NodeId(3), &Default::default()), [], "what is not stated is not compared");
    }

    #[test]
    fn voters_are_compared_while_no_configuration_is_in_the_log() {
        let told = of(Timing::default(), &[1, 2, 3]).compare(NodeId(2), &of(Timing::default(), &[1, 2]).stated());
        assert_eq!(told.into_iter().map(|it| it.setting).collect::<Vec<_>>(), ["voters"]);
        let joins = of(Timing::default(), &[]);
        assert!(!joins.stated().contains_key("voters"));
    }

    #[test]
    fn all_that_is_stated_fits_into_a_hello_and_what_a_peer_states_is_kept_in_part() {
        let stated = of(Timing::default(), &[1, 2, 3, 4, 5, 6, 7]).stated();
        assert!(stated.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() < 1_000, "{stated:?}");
        let huge = stated.keys().map(|name| (name.clone(), "x".repeat(100_000))).collect();
        let told = of(Timing::default(), &[1]).compare(NodeId(2), &huge);
        assert!(!told.is_empty() && told.iter().all(|difference| difference.other.len() == super::VALUE_MAX));
    }

    fn of(timing: Timing, voters: &[u64]) -> Compared {
        let membership = Membership::of_voters(voters.iter().copied().map(NodeId));
        let replica =
            Replica::new(NodeId(1), membership, Recovered::default(), Settings::new(quorate_storage::checksum));
        Compared::new(&timing, &Limits::default(), &Sessions::default(), &[], &replica)
    }
}
