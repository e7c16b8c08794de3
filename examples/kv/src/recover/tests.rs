//! Arguments are checked before any directory is changed.

use super::{report::has_quorum, *};
use clap::{Args as _, FromArgMatches};
use quorate::Membership;
use std::fs;

#[test]
fn a_quorum_is_a_majority_of_each_half() {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    let three = Membership::of_voters(ids(&[1, 2, 3]));
    let joint = Membership::joint(ids(&[1, 2, 3]), ids(&[3, 4, 5]));
    for (membership, here, expected) in [
        (&three, &[1][..], false),
        (&three, &[1, 3], true),
        (&three, &[4, 5, 6], false),
        (&joint, &[1, 2, 4], false),
        (&joint, &[1, 3, 4], true),
        (&Membership::default(), &[1], false),
    ] {
        assert_eq!(has_quorum(membership, &ids(here).into_iter().collect()), expected, "{membership:?} {here:?}");
    }
}

#[test]
fn a_new_directory_within_an_old_one_is_refused_however_it_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = dir.path().join("old");
    fs::create_dir(&old).expect("made");
    std::os::unix::fs::symlink(&old, dir.path().join("link")).expect("made");
    for into in ["old", "old/new/deep", "link/new", "old/../old/new"] {
        let refused = run(&args(&[&old], &dir.path().join(into)));
        assert!(matches!(refused, Err(RecoverError::Within { .. })), "{into}: {refused:?}");
    }
    let twice = run(&args(&[&old, &dir.path().join("link")], &dir.path().join("new")));
    assert!(matches!(twice, Err(RecoverError::Twice(_))), "{twice:?}");
    assert_eq!(fs::read_dir(&old).expect("there").count(), 0);
    assert!(!dir.path().join("new").exists());
}

#[test]
fn directories_that_can_not_be_used_are_named_in_the_report() {
    let dir = tempfile::tempdir().expect("a directory");
    let [empty, gone, new] = ["empty", "gone", "new"].map(|name| dir.path().join(name));
    fs::create_dir(&empty).expect("made");
    let Recovered { report, refused } = run(&args(&[&empty, &gone], &new)).expect("a report");
    let text = report.to_string();
    assert!(text.contains("no whole data directory") && text.contains("No such file"), "{text}");
    let refused = refused.expect("there is nothing to recover").to_string();
    assert!(refused.contains("no data directory can be used") && refused.lines().count() == 1, "{refused}");
}

#[test]
fn names_ids_and_addresses_are_checked() {
    let parse = |cluster: &str, node: &str, addr: &str| {
        let command = Target::augment_args(clap::Command::new("recover"));
        let given = ["recover", "--into", "d", "--cluster", cluster, "--node", node, "--addr", addr];
        command.try_get_matches_from(given).and_then(|found| Target::from_arg_matches(&found)).is_ok()
    };
    assert!(parse("demo-2", "1", "[::1]:7001"));
    for (cluster, node, addr) in
        [("Demo", "1", "h:1"), ("-d", "1", "h:1"), ("d", "0", "h:1"), ("d", "1", "h"), ("d", "1", "h:0")]
    {
        assert!(!parse(cluster, node, addr), "{cluster} {node} {addr}");
    }
}

fn args(from: &[&Path], into: &Path) -> Args {
    let target =
        Target { into: into.to_owned(), cluster: "new".into(), node: NodeId(1), addr: "127.0.0.1:7001".into() };
    Args { from: from.iter().map(|dir| (*dir).to_owned()).collect(), target, up_to: None, yes: true }
}
