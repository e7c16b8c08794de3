//! Paths between the nodes of a cluster that are cut and healed.

use crate::support::{PATIENCE, laid_out_as};
use quorate_kv::cluster::{Options, PathFault};

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_paths_are_cut_is_replaced_and_follows_once_they_heal() {
    let mut cluster = laid_out_as(|options| Options { paths: true, ..options });
    cluster.start_all().await.expect("they start");
    let (cut_off, others) = cluster.roles().await;
    let set = |fault| {
        for other in &others {
            cluster.paths().expect("proxies").set(cut_off, *other, fault);
            cluster.paths().expect("proxies").set(*other, cut_off, fault);
        }
    };

    set(Some(PathFault::Cut));
    let next = cluster.eventually(PATIENCE, "another leader", |statuses| {
        let leads =
            |status: &&quorate_kv::http::messages::StatusAnswer| status.role == "leader" && status.node_id != cut_off;
        statuses.iter().find(leads).map(|status| status.node_id)
    });
    let next = next.await.expect("two nodes hear each other");

    set(None);
    let leader = cluster.leader(PATIENCE).await.expect("all hear each other");
    assert_eq!(leader.node_id, next, "the node that returns deposes no leader");
}
