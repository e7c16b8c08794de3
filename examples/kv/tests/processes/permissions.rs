//! Files that other users of the machine must not read, and directories that count as empty.

use crate::support::{PATIENCE, laid_out, run};
use quorate::NodeId;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const ONE: NodeId = NodeId(1);

#[tokio::test(flavor = "multi_thread")]
async fn other_users_have_no_access_to_data_not_even_to_what_was_open_to_them_before() {
    let mut alone = laid_out("demo", 1);
    let (data, url, backup) = (alone.layout().data_dir(ONE), alone.endpoint(ONE), alone.path("backup"));
    alone.start_all().await.expect("started");
    alone.leader(PATIENCE).await.expect("a leader");
    run(&["put", "k", "v", "--endpoint", &url]).await.succeeded();
    run(&["snapshot", "--endpoint", &url]).await.succeeded();
    assert_eq!(open_to_others(&data), Vec::<PathBuf>::new());
    alone.stop(ONE).await.expect("stopped");

    for path in files(&data) {
        set_mode(&path, 0o644);
    }
    set_mode(&data, 0o755);
    alone.start_all().await.expect("started");
    alone.leader(PATIENCE).await.expect("a leader");
    run(&["snapshot", "--endpoint", &url]).await.succeeded();
    run(&["backup", "--out", &backup, "--endpoint", &url]).await.succeeded();
    assert_eq!(open_to_others(&data), Vec::<PathBuf>::new());
    assert_eq!(mode(Path::new(&backup)), 0o600);
    assert_eq!(mode(Path::new(&alone.path("certs"))), 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_of_a_new_volume_is_an_empty_directory_to_every_command() {
    let mut alone = laid_out("demo", 1);
    let (data, url, backup) = (alone.layout().data_dir(ONE), alone.endpoint(ONE), alone.path("backup"));
    let volume = |dir: &str| {
        fs::create_dir_all(Path::new(dir).join("lost+found")).expect("made");
        dir.to_owned()
    };
    let from = volume(&data.display().to_string());
    alone.start_all().await.expect("started");
    alone.leader(PATIENCE).await.expect("a leader");
    run(&["backup", "--out", &backup, "--endpoint", &url]).await.succeeded();
    alone.kill(ONE).await.expect("killed");

    let target = ["--cluster", "new", "--node", "1", "--addr", "127.0.0.1:7001"];
    let recover = [&["recover", "--from", &from][..], &target].concat();
    let restore = [&["restore", "--from", &backup][..], &target].concat();
    let occupied = alone.path("occupied");
    fs::create_dir(&occupied).expect("made");
    fs::write(Path::new(&occupied).join("notes"), "").expect("written");
    for (command, name) in [(&recover, "recovered"), (&restore, "restored")] {
        let line = run(&[&command[..], &["--into", &occupied]].concat()).await.error_line();
        assert!(line.contains("is not empty: it holds \"notes\""), "{line}");
        let into = volume(&alone.path(name));
        if name == "recovered" {
            let line = run(&[&command[..], &["--into", &into]].concat()).await.error_line();
            assert!(line.contains("nothing was changed"), "{line}");
            run(&[&command[..], &["--into", &into, "--yes"]].concat()).await.succeeded();
        } else {
            run(&[&command[..], &["--into", &into]].concat()).await.succeeded();
        }
        assert_eq!(open_to_others(Path::new(&into)), Vec::<PathBuf>::new());
    }
}

/// The directory and those of its files that group or others can access.
fn open_to_others(dir: &Path) -> Vec<PathBuf> {
    let all = files(dir).into_iter().chain([dir.to_owned()]);
    all.filter(|path| mode(path) & 0o077 != 0).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.is_file()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}
