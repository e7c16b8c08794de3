//! Certificates, revocation lists and files of them.

use super::{LOOK, SECOND, replace};
use crate::{
    episode::{Fault, Kept, PLAIN, Step, World},
    support::{Running, laid_out_as, run},
};
use quorate::{NodeId, transport::certificates::LIST_FILE};
use quorate_kv::cluster::Signal;
use std::{fs, path::PathBuf};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "the certificate of a node ends in a week",
        alert: "QuorateCertificateExpiring",
        visible: LOOK,
        inject: |world| {
            Box::pin(async {
                let (certs, id) = (world.cluster.path("certs"), world.followers[0]);
                let name = format!("node-{id}");
                run(&["certs", "renew", "--dir", &certs, "--days", "7", &name]).await.succeeded();
                world.cluster.signal(id, Signal::HUP).expect("it runs");
                Some(())
            })
        },
        ..PLAIN
    },
    Fault {
        name: "the revocation list ends in a day",
        alert: "QuorateRevocationListExpiring",
        visible: LOOK,
        prepare: with_list,
        inject: |world| {
            Box::pin(async {
                run(&["certs", "crl", "--dir", &world.cluster.path("certs"), "--days", "1"]).await.succeeded();
                for id in world.cluster.ids() {
                    world.cluster.signal(id, Signal::HUP).expect("it runs");
                }
                Some(())
            })
        },
        ..PLAIN
    },
    Fault {
        name: "the certificate of a node is replaced by garbage",
        alert: "QuorateCredentialReloadFailed",
        visible: LOOK,
        inject: |world| {
            Box::pin(async {
                let file = certificate(world, world.followers[0]);
                world.fault.push(Box::new(fs::read(&file).expect("readable")));
                replace(&file, "garbage");
                world.cluster.signal(world.followers[0], Signal::HUP).expect("it runs");
                Some(())
            })
        },
        repair: |world| {
            Box::pin(async {
                let file = certificate(world, world.followers[0]);
                let good =
                    world.fault.pop().and_then(|good| (good as Box<dyn std::any::Any>).downcast::<Vec<u8>>().ok());
                replace(&file, *good.expect("what it was"));
                Some(())
            })
        },
        ..PLAIN
    },
    Fault {
        name: "a node of another cluster connects",
        alert: "QuorateConnectionsRefused",
        visible: SECOND.saturating_mul(2),
        inject: |world| {
            Box::pin(async {
                let stranger = stranger(world).await;
                world.fault.push(Box::new(stranger));
                Some(())
            })
        },
        repair: |world| {
            Box::pin(async {
                world.fault.clear();
                Some(())
            })
        },
        ..PLAIN
    },
];

fn certificate(world: &World, id: NodeId) -> PathBuf {
    PathBuf::from(world.cluster.path("certs")).join(format!("node-{id}.pem"))
}

/// Gives every node a revocation list.
fn with_list<'a>(cluster: &'a mut Running, _: &'a mut Kept) -> Step<'a> {
    Box::pin(async {
        let certs = cluster.path("certs");
        run(&["certs", "crl", "--dir", &certs]).await.succeeded();
        for id in cluster.ids() {
            let file = cluster.layout().config_file(id);
            let text = fs::read_to_string(&file).expect("readable");
            let list = format!("[tls]\ncrl = {:?}\n", format!("{certs}/{LIST_FILE}"));
            fs::write(&file, text.replace("[tls]\n", &list)).expect("written");
        }
        Some(())
    })
}

/// A node whose certificate is of another authority, that trusts ours, and dials our nodes as its peers.
async fn stranger(world: &World) -> Running {
    let mut stranger = laid_out_as(|options| options);
    let (own, ours) = (stranger.path("certs/ca.pem"), world.cluster.path("certs/ca.pem"));
    let both = [own, ours].map(|file| fs::read_to_string(file).expect("readable")).concat();
    let trusted = stranger.path("both.pem");
    fs::write(&trusted, both).expect("written");
    let id = NodeId(1);
    let file = stranger.layout().config_file(id);
    let mut text = fs::read_to_string(&file).expect("readable");
    text = text.replace(&stranger.path("certs/ca.pem"), &trusted);
    for other in stranger.ids().into_iter().filter(|other| *other != id) {
        text = text.replace(&stranger.layout().address(other), &world.cluster.layout().address(other));
    }
    fs::write(&file, text).expect("written");
    stranger.start_node(id).await.expect("it starts");
    stranger
}
