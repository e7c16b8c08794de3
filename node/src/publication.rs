//! A client of the node that publishes the node's own metadata in the configuration.
//!
//! It asks the leader once for each time in which the node is a member, and again only until that
//! is done, or when a later configuration has no metadata of the node (or, after a refusal, another
//! one is in force): so two nodes with the settings of one can't alternate, and an operator's change is not
//! taken back (`Change::publish` has the rule). Like `losses`, it holds no [`Node`](crate::Node),
//! which would keep the node running.

use crate::{
    actors::messages::{Administer, OperatorAnswer, Request},
    status::Status,
};
use quorate_raft::{AdministerOutcome, Administration, Change, ChangeRefused, MemberMetadata, MetadataFlaw};
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};

/// The pause after the first attempt that came to nothing, doubled after each further one.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Keeps `metadata` published until the node ends. `ask` resolves with the leader's answer to a
/// change, or with `None` if the node ended.
pub(crate) async fn keep(
    metadata: MemberMetadata,
    mut status: watch::Receiver<Status>,
    ask: impl AsyncFn(Change) -> Option<AdministerOutcome>,
    report: impl Fn(MetadataFlaw),
) {
    let id = status.borrow().node;
    let mut pause = PAUSE_MIN;
    while status.wait_for(|status| is_member(status) && status.leader.is_some()).await.is_ok() {
        let before = status.borrow().membership_index;
        let (at, is_refused) = match ask(Change::publish(id, metadata.clone())).await {
            None => return,
            Some(AdministerOutcome::Changed(at)) => {
                pause = PAUSE_MIN;
                (at.max(before), false)
            }
            // The operator's labels leave no room: another attempt changes nothing before those do.
            Some(AdministerOutcome::ChangeRefused(ChangeRefused::BadMetadata { flaw, .. })) => {
                report(flaw);
                (before, true)
            }
            // A change is in progress, or no leader answers. One of unknown outcome may be repeated.
            Some(_) => {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            }
        };
        // A removal can't be seen if the node is added again before the status is looked at: its
        // metadata is gone then. To ask in vain takes nothing back.
        let is_due = |status: &Status| {
            let is_another = status.membership_index > at;
            !is_member(status) || is_another && (is_refused || !status.metadata.contains_key(&id))
        };
        if status.wait_for(is_due).await.is_err() {
            return;
        }
    }
}

/// Asks the node of these requests.
pub(crate) fn asker(requests: mpsc::WeakUnboundedSender<Request>) -> impl AsyncFn(Change) -> Option<AdministerOutcome> {
    async move |change| {
        let (answer, answered) = oneshot::channel();
        let answer = OperatorAnswer { answer, is_automatic: true };
        let request = Administer { what: Administration::Change(change), answer };
        requests.upgrade()?.send(Request::Administer(request)).ok()?;
        answered.await.ok()
    }
}

fn is_member(status: &Status) -> bool {
    status.voters.contains(&status.node) || status.learners.contains(&status.node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::tests::healthy;
    use quorate_raft::{Index, NodeId};
    use std::{cell::RefCell, rc::Rc, sync::Arc};
    use tokio::{
        task::{LocalSet, spawn_local},
        time::Instant,
    };

    const CHANGED: Option<AdministerOutcome> = Some(AdministerOutcome::Changed(Index(7)));
    const PENDING: Option<AdministerOutcome> =
        Some(AdministerOutcome::ChangeRefused(ChangeRefused::Pending { index: Index(6) }));

    #[tokio::test(start_paused = true)]
    async fn a_member_publishes_once_and_again_when_it_was_removed_and_added() {
        simulate(vec![CHANGED, CHANGED], async |world: World| {
            assert_eq!(world.asked(), 0, "it is no member");
            world.becomes(|status| status.learners = vec![NodeId(1)]).await;
            assert_eq!(world.asked(), 0, "no leader is known");
            world.becomes(|status| status.leader = Some(NodeId(2))).await;
            assert_eq!(world.asked(), 1);
            world.becomes(|status| status.leader = Some(NodeId(3))).await;
            world
                .becomes(|status| *status = Status { voters: vec![NodeId(1)], learners: vec![], ..status.clone() })
                .await;
            assert_eq!(world.asked(), 1, "it has done so");
            world.becomes(|status| status.voters = vec![NodeId(2)]).await;
            assert_eq!(world.asked(), 1);
            world.becomes(|status| status.learners = vec![NodeId(1)]).await;
            assert_eq!(world.asked(), 2);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_publishes_again_when_its_removal_was_too_short_to_be_seen() {
        simulate(vec![CHANGED, CHANGED], async |world: World| {
            let metadata = Arc::new([(NodeId(1), MemberMetadata::default())].into());
            world.becomes(|status| (status.voters, status.leader) = (vec![NodeId(1)], Some(NodeId(2)))).await;
            assert_eq!(world.asked(), 1);
            world.becomes(|status| status.membership_index = Index(6)).await;
            assert_eq!(world.asked(), 1, "the configuration before");
            world.becomes(|status| (status.membership_index, status.metadata) = (Index(7), metadata)).await;
            assert_eq!(world.asked(), 1, "it is there");
            world.becomes(|status| status.membership_index = Index(8)).await;
            assert_eq!(world.asked(), 1, "another member changed");
            world.becomes(|status| (status.membership_index, status.metadata) = (Index(10), Arc::default())).await;
            assert_eq!(world.asked(), 2, "it was removed and added again");
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn metadata_that_was_refused_is_published_once_another_configuration_has_room() {
        let bad = ChangeRefused::BadMetadata { id: NodeId(1), flaw: MetadataFlaw::TooManyLabels };
        simulate(vec![Some(AdministerOutcome::ChangeRefused(bad)), CHANGED], async |world: World| {
            world.becomes(|status| (status.voters, status.leader) = (vec![NodeId(1)], Some(NodeId(2)))).await;
            assert_eq!(world.asked(), 1);
            world.becomes(|status| status.membership_index = Index(7)).await;
            assert_eq!(world.asked(), 2);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_came_to_nothing_is_repeated_after_longer_and_longer_pauses() {
        let answers = [vec![PENDING, Some(AdministerOutcome::Unknown)], vec![PENDING; 8], vec![CHANGED]].concat();
        simulate(answers, async |world: World| {
            let began = Instant::now();
            world.becomes(|status| (status.voters, status.leader) = (vec![NodeId(1)], Some(NodeId(2)))).await;
            sleep(PAUSE_MAX * 10).await;
            let pauses: Vec<_> = world.0.borrow().asked.windows(2).map(|two| two[1] - two[0]).collect();
            assert_eq!((world.asked(), pauses[0], pauses[1]), (11, PAUSE_MIN, PAUSE_MIN * 2));
            assert!(pauses.is_sorted() && pauses.last() == Some(&PAUSE_MAX), "{pauses:?}");
            assert!(world.0.borrow().asked[0] - began < PAUSE_MIN);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn metadata_that_is_refused_for_good_is_reported_and_the_end_of_the_node_ends_it() {
        let flaw = MetadataFlaw::TooManyLabels;
        let bad = AdministerOutcome::ChangeRefused(ChangeRefused::BadMetadata { id: NodeId(1), flaw: flaw.clone() });
        simulate(vec![Some(bad), None], async |world: World| {
            world.becomes(|status| (status.voters, status.leader) = (vec![NodeId(1)], Some(NodeId(2)))).await;
            sleep(PAUSE_MAX * 10).await;
            assert_eq!((world.asked(), world.0.borrow().reported.clone()), (1, vec![flaw]));
            world.becomes(|status| status.voters = vec![]).await;
            world.becomes(|status| status.voters = vec![NodeId(1)]).await;
            assert_eq!(world.asked(), 2);
            world.becomes(|status| status.voters = vec![]).await;
            world.becomes(|status| status.voters = vec![NodeId(1)]).await;
            assert_eq!(world.asked(), 2, "it has ended with the node");
        })
        .await;
    }

    /// A node without actors, which answers as it was told to.
    #[derive(Clone)]
    struct World(Rc<RefCell<Told>>, watch::Sender<Status>);

    #[derive(Default)]
    struct Told {
        answers: Vec<Option<AdministerOutcome>>,
        asked: Vec<Instant>,
        reported: Vec<MetadataFlaw>,
    }

    impl World {
        async fn becomes(&self, change: impl FnOnce(&mut Status)) {
            self.1.send_modify(change);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }

        fn asked(&self) -> usize {
            self.0.borrow().asked.len()
        }
    }

    async fn simulate(answers: Vec<Option<AdministerOutcome>>, test: impl AsyncFnOnce(World)) {
        let run = async {
            let (sender, status) = watch::channel(healthy());
            let told = Rc::new(RefCell::new(Told { answers, ..Told::default() }));
            let world = World(Rc::clone(&told), sender);
            let metadata = MemberMetadata::new(Some("http://h:1".into()), [].into()).expect("within bounds");
            let (reports, expected) = (Rc::clone(&told), Change::publish(NodeId(1), metadata.clone()));
            let ask = async move |change: Change| {
                assert_eq!(change, expected);
                let mut told = told.borrow_mut();
                told.asked.push(Instant::now());
                told.answers.remove(0)
            };
            spawn_local(keep(metadata, status, ask, move |flaw| reports.borrow_mut().reported.push(flaw)));
            test(world).await;
        };
        LocalSet::new().run_until(run).await;
    }
}
