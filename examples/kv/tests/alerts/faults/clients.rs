//! Clients that ask for too much, limits of the machine, and settings.

use super::{SECOND, background, burst, replace, with_sections};
use crate::{
    episode::{Fault, PLAIN, Step, World},
    support::{BINARY, Running},
};
use quorate::NodeId;
use quorate_kv::{cluster::Options, load::LoadOptions};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, unix::pipe},
    time::sleep,
};

/// Fewer than the writers of an overload, more than those of the light load.
const FEW_PROPOSALS: &str = "[limits]\nmax_in_flight_proposals = 8\n";
const MANY_WRITERS: LoadOptions = LoadOptions { writers: 24, rest: Duration::ZERO, value_bytes: 100 };
/// Small, so that the log often needs new files.
const SMALL_SEGMENTS: &str = "[storage]\nsegment_bytes = 16384\n";
/// As many as are open in any case.
const FEW_FILES: u64 = 3;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "clients write faster than the limits permit",
        alert: "QuorateOverloaded",
        visible: SECOND.saturating_mul(2),
        options: |options| with_sections(options, FEW_PROPOSALS),
        inject: |world| {
            Box::pin(async {
                let ledger = quorate_kv::load::Ledger::new();
                let writers = quorate_kv::load::Writers::start(&world.cluster, &ledger, MANY_WRITERS);
                world.fault.push(Box::new(writers.expect("writers")));
                Some(())
            })
        },
        repair: end,
        ..PLAIN
    },
    Fault {
        name: "a client asks for another host again and again",
        alert: "QuorateRequestsRefused",
        visible: SECOND.saturating_mul(2),
        inject: |world| {
            Box::pin(async {
                let address = world.cluster.endpoint(world.followers[0]).replace("http://", "");
                world.fault.push(background(ask_in_vain(address)));
                Some(())
            })
        },
        repair: end,
        ..PLAIN
    },
    Fault {
        name: "a follower runs out of file descriptors for a moment",
        alert: "QuorateShortage",
        // It is scraped again once there are descriptors.
        possible: &["QuorateNodeDown", "QuorateNoMargin"],
        visible: SECOND.saturating_mul(3),
        options: |options| with_sections(options, SMALL_SEGMENTS),
        inject: |world| {
            Box::pin(async {
                limit(world, Some(FEW_FILES));
                burst(world, 50, 4096).await;
                while world.cluster.status(world.followers[0]).await.is_ok() {
                    tokio::task::yield_now().await;
                }
                limit(world, None);
                Some(())
            })
        },
        ..PLAIN
    },
    Fault {
        name: "the log output of the nodes is not read",
        alert: "QuorateLogLinesLost",
        visible: SECOND.saturating_mul(10),
        options: |options| Options { binary: piped(&options), ..options },
        prepare: |cluster, kept| {
            Box::pin(async {
                kept.push(reader(cluster));
                Some(())
            })
        },
        inject: |world| {
            Box::pin(async {
                // The reader is all that is kept beside the load.
                world.kept.remove(0);
                Some(())
            })
        },
        repair: |world| {
            Box::pin(async {
                world.kept.push(reader(&world.cluster));
                Some(())
            })
        },
        ..PLAIN
    },
    Fault {
        name: "a node has other timeouts than the others",
        alert: "QuorateSettingsDiffer",
        // A restart takes as long as ever.
        possible: &["QuorateNodeDown"],
        visible: SECOND.saturating_mul(3),
        inject: |world| Box::pin(async { timeout(world, "1200ms", "1300ms", true).await }),
        repair: |world| Box::pin(async { timeout(world, "1300ms", "1200ms", false).await }),
        ..PLAIN
    },
];

/// Ends the tasks of a fault.
fn end(world: &mut World) -> Step<'_> {
    Box::pin(async {
        world.fault.clear();
        Some(())
    })
}

/// Requests that name a host which the node does not serve.
async fn ask_in_vain(address: String) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await {
            let request = b"GET /v1/status HTTP/1.1\r\nhost: kv.example\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(request).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Sets the soft limit of open files of the first follower; to the hard limit without a number.
fn limit(world: &World, to: Option<u64>) {
    let pid = Pid::from_raw(world.cluster.pid(world.followers[0]).expect("it runs").cast_signed());
    let limits = fs::read_to_string(format!("/proc/{}/limits", pid.map_or(0, |pid| pid.as_raw_nonzero().get())));
    let limits = limits.expect("the limits of a child");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let maximum = files.split_whitespace().nth(4).and_then(|text| text.parse().ok());
    prlimit(pid, Resource::Nofile, Rlimit { current: to.or(maximum), maximum }).expect("set");
}

/// A script that starts a node with much log output into a pipe.
fn piped(options: &Options) -> PathBuf {
    fs::create_dir_all(&options.dir).expect("made");
    let (pipe, script) = (options.dir.join("pipe"), options.dir.join("piped"));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("a pipe");
    let text =
        format!("#!/bin/sh\nexport RUST_LOG=info,quinn_proto=trace\nexec 2>{}\nexec {BINARY} \"$@\"\n", pipe.display());
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
    script
}

/// Reads the pipe of log output, until it is dropped. The pipe is held open for good.
fn reader(cluster: &Running) -> Box<tokio::task::JoinSet<()>> {
    let open = || pipe::OpenOptions::new().read_write(true).open_receiver(cluster.path("pipe")).expect("the pipe");
    let (mut pipe, held) = (open(), open());
    // Without any reader the nodes would get an error instead of waiting.
    std::mem::forget(held);
    background(async move {
        let mut buffer = vec![0; 1 << 16];
        while pipe.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    })
}

/// Replaces the longer election timeout of the first follower.
async fn timeout(world: &mut World, from: &str, to: &str, is_restarted: bool) -> Option<()> {
    let id: NodeId = world.followers[0];
    let file = world.cluster.layout().config_file(id);
    let text = fs::read_to_string(&file).expect("readable");
    assert!(text.contains(from), "{text}");
    replace(&file, text.replace(from, to));
    if is_restarted {
        world.cluster.stop(id).await.expect("stopped");
        world.cluster.start_node(id).await.expect("started");
    }
    Some(())
}
