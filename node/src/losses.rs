//! A watcher of the status: it reports that data is lost on this node, while no leader is heard
//! that could bring it back.
//!
//! It needs nothing but what every user of a node sees, so it is no part of the actors. It holds no
//! [`Node`](crate::Node): that would keep the node running.

use crate::{config::Timing, status::Status};
use std::time::Duration;
use tokio::{sync::watch, time::timeout};

/// After this many of the longest election timeouts without a leader, a loss on this node is taken
/// for the reason.
const STUCK_TIMEOUTS: u32 = 10;

/// Reports each time in which the node is stuck, once, until the node ends.
pub(crate) async fn watch(mut status: watch::Receiver<Status>, timing: Timing, report: impl Fn(String)) {
    let wait = timing.election_timeout.1 * STUCK_TIMEOUTS;
    while status.wait_for(is_stuck).await.is_ok() {
        let goes_on = timeout(wait, status.wait_for(|status| !is_stuck(status))).await;
        match goes_on.map(|waited| waited.is_ok()) {
            Ok(true) => continue,
            // The last status of a node that has ended stays, so without a return this would spin.
            Ok(false) => return,
            Err(_) => {}
        }
        let why = loss(&status.borrow(), wait);
        if let Some(why) = why {
            report(why);
        }
        if status.wait_for(|status| !is_stuck(status)).await.is_err() {
            return;
        }
    }
}

fn is_stuck(status: &Status) -> bool {
    status.leader.is_none() && (status.lost_up_to.is_some() || status.faulty > 0)
}

fn loss(status: &Status, waited: Duration) -> Option<String> {
    match status {
        Status { leader: None, lost_up_to: Some(lost), .. } => Some(format!(
            "no leader for {waited:?}, and the state up to entry {lost} is lost here: if every member says so, no copy is left and \
             no node can ever lead; then restore a backup (quorate-kv restore); otherwise start the members that still have it"
        )),
        Status { leader: None, faulty: faulty @ 1.., .. } => Some(format!(
            "no leader for {waited:?}, and the payloads of {faulty} entries are lost here: start the members that still have them; \
             if none has, restore a backup (quorate-kv restore)"
        )),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use quorate_metrics::NodeRole;
    use quorate_raft::{Index, NodeId, Term};
    use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};
    use tokio::task::{LocalSet, spawn_local};

    #[tokio::test(start_paused = true)]
    async fn a_loss_is_reported_once_for_each_time_without_a_leader() {
        let lost = Status { lost_up_to: Some(Index(7)), ..healthy() };
        let faulty = Status { faulty: 2, ..healthy() };
        let led = Status { leader: Some(NodeId(2)), ..lost.clone() };
        let steps = [(healthy(), 0), (lost.clone(), 1), (led, 1), (faulty, 2), (healthy(), 2), (lost, 3)];
        LocalSet::new().run_until(check(&steps)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_time_without_a_leader_is_no_reason_to_report() {
        let lost = Status { lost_up_to: Some(Index(7)), ..healthy() };
        LocalSet::new()
            .run_until(async {
                let (sender, reports, _) = start();
                sender.send_replace(lost);
                tokio::time::sleep(wait() - Duration::from_millis(1)).await;
                sender.send_modify(|status| status.leader = Some(NodeId(2)));
                tokio::time::sleep(wait() * 2).await;
                assert!(reports.borrow().is_empty());
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_watch_of_a_node_that_ends_without_a_leader_ends() {
        let lost = Status { lost_up_to: Some(Index(7)), ..healthy() };
        LocalSet::new()
            .run_until(async {
                let (sender, _, watching) = start();
                sender.send_replace(lost);
                tokio::time::sleep(Duration::from_millis(1)).await;
                drop(sender);
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                assert!(watching.is_finished());
            })
            .await;
    }

    /// Publishes each status for long enough, and counts the reports until then.
    async fn check(steps: &[(Status, usize)]) {
        let (sender, reports, watching) = start();
        for (status, count) in steps {
            sender.send_replace(status.clone());
            tokio::time::sleep(wait() * 3).await;
            assert_eq!(reports.borrow().len(), *count, "{status:?}");
        }
        assert!(reports.borrow()[1].contains("the payloads of 2 entries"), "{reports:?}");
        drop(sender);
        watching.await.expect("it ends with the node");
    }

    type Reports = Rc<RefCell<Vec<String>>>;

    fn start() -> (watch::Sender<Status>, Reports, tokio::task::JoinHandle<()>) {
        let (sender, watched) = watch::channel(healthy());
        let reports = Reports::default();
        let told = Rc::clone(&reports);
        let watching = spawn_local(watch(watched, Timing::default(), move |report| told.borrow_mut().push(report)));
        (sender, reports, watching)
    }

    fn wait() -> Duration {
        Timing::default().election_timeout.1 * STUCK_TIMEOUTS
    }

    /// A node that hears no leader, and lost nothing.
    pub(crate) fn healthy() -> Status {
        Status {
            node: NodeId(1),
            role: NodeRole::Follower,
            term: Term(1),
            vote: None,
            leader: None,
            commit: Index(0),
            applied: Index(0),
            durable: Index(0),
            last_log: Index(0),
            first_log: Index(1),
            snapshot: Index(0),
            faulty: 0,
            lost_up_to: None,
            storage_full: false,
            halted: None,
            disagreement: None,
            voters: Vec::new(),
            learners: Vec::new(),
            witness: None,
            addresses: BTreeMap::new(),
            metadata: Arc::default(),
            membership_index: Index(0),
            is_settled: true,
            cluster_id: None,
            schema_version: 0,
            machine_versions: None,
        }
    }
}
