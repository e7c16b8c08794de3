//! The sentences of the page: how the cluster is, in a word and two sentences, and what needs
//! attention. Made here, so that the page and other readers of the stream say the same.

use super::{
    campaigns::{asking, campaigns, votes},
    page::{Node, Page},
};
use quorate::NodeId;
use quorate_progress::count as number;
use serde::Serialize;
use std::time::Duration;

/// How the cluster is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Verdict {
    /// `ok`, `warn` or `bad`.
    pub(super) level: &'static str,
    pub(super) word: &'static str,
    /// The sentence in the first line.
    pub(super) says: String,
    /// The figures below it.
    pub(super) facts: String,
}

/// A matter for an operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Need {
    pub(super) node: NodeId,
    pub(super) text: String,
    /// A command, or a place to look at.
    pub(super) next: &'static str,
    pub(super) runbook: &'static str,
}

/// The matters for operators, the node with the lowest id first.
pub(super) fn needs(page: &Page) -> Vec<Need> {
    page.nodes.iter().filter_map(|(id, node)| need(page, *id, node)).collect()
}

/// The most urgent matter of a node.
fn need(page: &Page, id: NodeId, node: &Node) -> Option<Need> {
    let need = |text: String, next, runbook| Some(Need { node: id, text, next, runbook });
    let Some(state) = node.state.as_ref().filter(|_| node.up) else {
        let since = node.seen.as_ref().map(|seen| seconds(Duration::from_millis(seen.age_ms)));
        let text = match since {
            Some(since) => format!("Node {id} has not answered for {since}."),
            None => format!("Node {id} does not answer."),
        };
        return need(text, "systemctl status quorate", "node-down");
    };
    if let Some(index) = state.halted_at {
        let text = format!("The state machine of node {id} halted at entry {}.", number(index.0));
        return need(text, "the log of that node", "halted");
    }
    if state.storage_full {
        return need(format!("The disk of node {id} is full."), "df -h", "disk-full");
    }
    if let Some(leader) = page.leader.filter(|leader| is_cut_off(page, *leader, id)) {
        let text = match heard_by(page, leader, id) {
            Some(both) => format!("Nodes {leader} and {id} do not hear each other; node {both} hears both."),
            None => format!("Nodes {leader} and {id} do not hear each other."),
        };
        return need(text, "the network between them", "link-cut");
    }
    if let (true, Some(sync), Some(usual)) = (state.disk_slow, state.sync_ms, state.sync_usual_ms) {
        let text = format!("A sync on the disk of node {id} takes {} ms, usually {}.", round(sync), round(usual));
        return need(text, "iostat -x 1", "slow-disk");
    }
    None
}

/// The verdict on a page whose needs are known. `leaderless` is the time without a leader.
pub(super) fn verdict(page: &Page, leaderless: Option<Duration>) -> Verdict {
    let voters = &page.config.voters;
    let majority = voters.len() / 2 + 1;
    let up = voters.iter().filter(|id| page.nodes.get(id).is_some_and(|node| node.up)).count();
    let Some(leader) = page.leader else {
        let since = leaderless.map(|since| format!(" for {}", seconds(since))).unwrap_or_default();
        let campaigns = campaigns(page);
        let says = format!("No leader{since}. {}", asking(&campaigns));
        let votes = votes(&campaigns, majority);
        let facts = format!(
            "{} requests wait. {up} of {} voters answer, {majority} are needed.{}",
            number(page.waiting),
            voters.len(),
            votes
        );
        return Verdict { level: "bad", word: "No leader", says, facts };
    };
    let term = page.nodes.get(&leader).and_then(|node| node.state.as_ref()).map_or(0, |state| state.term.0);
    let trouble = trouble(page, leader);
    let says = format!("Node {leader} leads term {term}. {}", trouble.clone().unwrap_or_else(|| all_good(page)));
    let rate = page.writes_per_s.map(|rate| format!("{} entries/s. ", number(rate))).unwrap_or_default();
    let heard = voters.iter().filter(|id| page.nodes.get(id).is_some_and(|node| node.up));
    let usable = heard.filter(|id| !is_cut_off(page, leader, **id)).count();
    let spare = match usable.saturating_sub(majority) {
        _ if page.nodes.len() == 1 => "No other node has a copy.".to_owned(),
        0 => "One more failure stops writes.".to_owned(),
        1 => "The cluster survives the loss of 1 more node.".to_owned(),
        spare => format!("The cluster survives the loss of {spare} more nodes."),
    };
    let (level, word) = match (page.needs.is_empty(), trouble) {
        (false, _) => ("warn", "Degraded"),
        (true, Some(_)) => ("ok", "Healthy, catching up"),
        (true, None) => ("ok", "Healthy"),
    };
    Verdict { level, word, says, facts: format!("{rate}{spare}") }
}

fn all_good(page: &Page) -> String {
    match page.nodes.len() {
        1 => "It is the only node.".to_owned(),
        count => format!("All {count} nodes are up to date."),
    }
}

/// The first thing that keeps a node from being up to date, in words.
fn trouble(page: &Page, leader: NodeId) -> Option<String> {
    page.nodes.iter().find_map(|(id, node)| {
        let Some(state) = node.state.as_ref().filter(|_| node.up) else {
            return Some(format!("Node {id} does not answer."));
        };
        if is_cut_off(page, leader, *id) {
            return Some(format!("Node {id} is cut off from the leader."));
        }
        if state.halted_at.is_some() {
            return Some(format!("The state machine of node {id} halted."));
        }
        if state.storage_full {
            return Some(format!("The disk of node {id} is full."));
        }
        if state.disk_slow {
            return Some(format!("The disk of node {id} is slow."));
        }
        let doing = state.doing.as_ref()?;
        Some(match (doing.what, doing.part, doing.entries) {
            ("snapshot", Some(part), _) => format!("Node {id} receives a snapshot: {} %.", (part * 100.0).floor()),
            ("snapshot", None, _) => format!("Node {id} restores a snapshot."),
            ("repair", ..) => format!("Node {id} repairs its log."),
            ("recovery", ..) => format!("Node {id} reads its log."),
            (_, _, Some(entries)) => format!("Node {id} catches up, {} entries to go.", number(entries)),
            _ => format!("Node {id} catches up."),
        })
    })
}

/// Whether both nodes answer, and the leader does not hear the other one.
pub(super) fn is_cut_off(page: &Page, leader: NodeId, id: NodeId) -> bool {
    let answers = page.nodes.get(&id).is_some_and(|node| node.up);
    answers && page.links.get(&format!("{leader}>{id}")).is_some_and(|link| link.state == "cut")
}

/// A node that hears both.
fn heard_by(page: &Page, leader: NodeId, id: NodeId) -> Option<NodeId> {
    let is_cut =
        |from: NodeId, to: NodeId| page.links.get(&format!("{from}>{to}")).is_some_and(|link| link.state == "cut");
    let others = page.nodes.iter().filter(|(other, node)| **other != leader && **other != id && node.up);
    let mut both = others.filter(|(other, _)| !is_cut(leader, **other) && !is_cut(**other, id) && !is_cut(id, **other));
    both.next().map(|(other, _)| *other)
}

fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

fn round(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::page::{Config, Link, Node, SeenFrom, State, Votes, Work, state_for_tests},
        *,
    };

    #[test]
    fn a_cluster_without_trouble_is_healthy_and_says_what_it_survives() {
        let page = Cluster::of_three().page();
        assert_eq!((page.verdict.level, page.verdict.word), ("ok", "Healthy"));
        assert_eq!(page.verdict.says, "Node 3 leads term 8. All 3 nodes are up to date.");
        assert_eq!(page.verdict.facts, "12,430 entries/s. The cluster survives the loss of 1 more node.");
        assert_eq!(page.needs, []);
        let alone = Cluster::of(&[3]).page();
        assert_eq!(alone.verdict.says, "Node 3 leads term 8. It is the only node.");
        assert_eq!(alone.verdict.facts, "12,430 entries/s. No other node has a copy.");
    }

    #[test]
    fn a_node_without_answer_needs_attention_and_one_more_failure_stops_writes() {
        let page = Cluster::of_three().without_answer(1).page();
        assert_eq!((page.verdict.level, page.verdict.word), ("warn", "Degraded"));
        assert_eq!(page.verdict.says, "Node 3 leads term 8. Node 1 does not answer.");
        assert_eq!(page.verdict.facts, "12,430 entries/s. One more failure stops writes.");
        let [need] = &page.needs[..] else { panic!("{:?}", page.needs) };
        assert_eq!((need.node, &*need.text), (NodeId(1), "Node 1 has not answered for 12 s."));
        assert_eq!((need.next, need.runbook), ("systemctl status quorate", "node-down"));
    }

    #[test]
    fn without_a_leader_the_missing_votes_and_the_waiting_requests_are_said() {
        let mut cluster = Cluster::of_three().without_answer(3);
        cluster.page.leader = None;
        cluster.page.waiting = 512;
        cluster.leaderless = Some(Duration::from_millis(2_140));
        let verdict = cluster.clone().page().verdict;
        assert_eq!((verdict.level, verdict.word), ("bad", "No leader"));
        assert_eq!(verdict.says, "No leader for 2.1 s. Election timers run.");
        assert_eq!(verdict.facts, "512 requests wait. 2 of 3 voters answer, 2 are needed.");
        cluster.state(1).votes = Some(Votes { kind: "pre_vote", yes: vec![NodeId(1)], no: Vec::new() });
        let verdict = cluster.clone().page().verdict;
        assert_eq!(verdict.says, "No leader for 2.1 s. Node 1 asks for pre-votes in term 9.");
        assert!(verdict.facts.ends_with(" The candidate lacks 1 of 2 votes."), "{}", verdict.facts);
        let votes = Votes { kind: "vote", yes: vec![NodeId(1), NodeId(2)], no: Vec::new() };
        (cluster.state(1).votes, cluster.state(1).term) = (Some(votes), quorate::Term(9));
        let verdict = cluster.page().verdict;
        assert_eq!(verdict.says, "No leader for 2.1 s. Node 1 asks for votes in term 9.");
        assert!(verdict.facts.ends_with(" The candidate has enough votes."), "{}", verdict.facts);
    }

    #[test]
    fn a_split_vote_is_told_with_the_share_of_each_candidate() {
        let mut cluster = Cluster::of(&[1, 2, 3, 4, 5]).without_answer(3);
        cluster.page.leader = None;
        let votes = |kind, yes: [u64; 2]| Some(Votes { kind, yes: yes.map(NodeId).to_vec(), no: Vec::new() });
        let mut campaigns = |id, kind, yes, term| {
            let state = cluster.state(id);
            (state.votes, state.term) = (votes(kind, yes), quorate::Term(term));
            cluster.clone().page().verdict
        };
        campaigns(2, "vote", [2, 5], 9);
        let verdict = campaigns(1, "vote", [1, 1], 9);
        assert_eq!(verdict.says, "No leader. Nodes 1 and 2 ask for votes in term 9.", "node 4 may vote for node 2");
        let verdict = campaigns(1, "vote", [1, 4], 9);
        assert_eq!(verdict.says, "No leader. The votes of term 9 are split between nodes 1 and 2.");
        let voters = "0 requests wait. 4 of 5 voters answer, 3 are needed.";
        assert_eq!(verdict.facts, format!("{voters} Of votes, node 1 has 2 and node 2 has 2."));
        let verdict = campaigns(1, "pre_vote", [1, 4], 8);
        assert_eq!(verdict.says, "No leader. Node 2 asks for votes in term 9.", "a pre-vote for it is no rival");
        let verdict = campaigns(2, "pre_vote", [2, 5], 8);
        assert_eq!(verdict.facts, format!("{voters} Of pre-votes, node 1 has 2 and node 2 has 2."));
        let verdict = campaigns(1, "pre_vote", [1, 4], 9);
        assert_eq!(verdict.says, "No leader. Node 1 asks for pre-votes in term 10.");
    }

    #[test]
    fn a_cut_link_is_told_with_the_node_that_hears_both_ends() {
        let page = Cluster::of_three().with_link("3>1", "cut").page();
        assert_eq!(page.verdict.says, "Node 3 leads term 8. Node 1 is cut off from the leader.");
        assert_eq!(page.verdict.facts, "12,430 entries/s. One more failure stops writes.");
        assert_eq!(page.needs[0].text, "Nodes 3 and 1 do not hear each other; node 2 hears both.");
        let page = Cluster::of_three().with_link("3>1", "cut").with_link("2>1", "cut").page();
        assert_eq!(page.needs[0].text, "Nodes 3 and 1 do not hear each other.");
        let page = Cluster::of_three().with_link("3>1", "cut").without_answer(1).page();
        assert!(page.needs[0].text.contains("has not answered"), "a node that is gone is not cut off");
    }

    #[test]
    fn a_disk_is_slow_if_its_node_says_so() {
        for is_slow in [true, false] {
            let mut cluster = Cluster::of_three();
            (cluster.state(2).sync_ms, cluster.state(2).disk_slow) = (Some(180.0), is_slow);
            let page = cluster.page();
            assert_eq!(page.needs.len(), usize::from(is_slow));
            if is_slow {
                assert_eq!(page.needs[0].text, "A sync on the disk of node 2 takes 180 ms, usually 0.6.");
                assert_eq!(page.verdict.says, "Node 3 leads term 8. The disk of node 2 is slow.");
            }
        }
    }

    #[test]
    fn a_full_disk_and_a_halted_machine_need_attention_and_catching_up_does_not() {
        let mut cluster = Cluster::of_three();
        cluster.state(1).storage_full = true;
        cluster.state(2).halted_at = Some(quorate::Index(48_444_831));
        let page = cluster.page();
        let texts: Vec<_> = page.needs.iter().map(|need| &*need.text).collect();
        assert_eq!(texts, ["The disk of node 1 is full.", "The state machine of node 2 halted at entry 48,444,831."]);
        for (what, part, entries, says) in [
            ("snapshot", Some(0.25), None, "Node 1 receives a snapshot: 25 %."),
            ("snapshot", None, None, "Node 1 restores a snapshot."),
            ("recovery", None, None, "Node 1 reads its log."),
            ("repair", None, None, "Node 1 repairs its log."),
            ("catch-up", None, Some(74_580), "Node 1 catches up, 74,580 entries to go."),
        ] {
            let mut cluster = Cluster::of_three();
            cluster.state(1).doing = Some(Work { what, part, entries });
            let verdict = cluster.page().verdict;
            assert_eq!(verdict.says, format!("Node 3 leads term 8. {says}"));
            assert_eq!((verdict.level, verdict.word), ("ok", "Healthy, catching up"));
        }
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        for (of, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (48_444_836, "48,444,836")] {
            assert_eq!(number(of), text);
        }
    }

    /// A page of a cluster in which node 3 leads term 8, and all are up to date.
    #[derive(Clone)]
    pub(in super::super) struct Cluster {
        page: Page,
        leaderless: Option<Duration>,
    }

    impl Cluster {
        pub(in super::super) fn of_three() -> Self {
            Self::of(&[1, 2, 3])
        }

        fn of(ids: &[u64]) -> Self {
            let voters: Vec<_> = ids.iter().copied().map(NodeId).collect();
            let node = |id: &NodeId| {
                let state = state_for_tests(*id, NodeId(3));
                let seen = Some(SeenFrom { age_ms: 0, via: None });
                (*id, Node { up: true, seen, state: Some(state), ..Node::default() })
            };
            let links = voters.iter().filter(|id| id.0 != 3).map(|id| (format!("3>{id}"), Link::in_state("up")));
            let page = Page {
                cluster: "demo".into(),
                served_by: NodeId(3),
                demo: false,
                leader: Some(NodeId(3)),
                config: Config {
                    voters: voters.clone(),
                    learners: Vec::new(),
                    witness: None,
                    index: quorate::Index(1),
                    settled: true,
                },
                timing: Default::default(),
                writes_per_s: Some(12_430),
                p99_ms: Some(2.1),
                stages_ms: None,
                waiting: 0,
                nodes: voters.iter().map(node).collect(),
                links: links.collect(),
                verdict: Verdict::default(),
                needs: Vec::new(),
            };
            Self { page, leaderless: None }
        }

        pub(in super::super) fn without_answer(mut self, id: u64) -> Self {
            if let Some(node) = self.page.nodes.get_mut(&NodeId(id)) {
                (node.up, node.seen) = (false, Some(SeenFrom { age_ms: 12_000, via: None }));
            }
            self
        }

        fn with_link(mut self, name: &str, state: &'static str) -> Self {
            self.page.links.insert(name.to_owned(), Link::in_state(state));
            self
        }

        fn state(&mut self, id: u64) -> &mut State {
            self.page.nodes.get_mut(&NodeId(id)).and_then(|node| node.state.as_mut()).expect("a node of the cluster")
        }

        pub(in super::super) fn page(self) -> Page {
            let Self { mut page, leaderless } = self;
            page.needs = needs(&page);
            page.verdict = verdict(&page, leaderless);
            page
        }
    }
}
