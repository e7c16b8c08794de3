//! The rotation of a cluster's authority under load: files are replaced and SIGHUP is sent, no
//! process is restarted, and no write fails.

use crate::support::{PATIENCE, Running, laid_out_with};
use quorate::{NodeId, transport::certificates::Authority};
use quorate_kv::{
    client::{Client, ReadMode, Trust},
    cluster::Signal,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

/// The interval at which the metrics of a node are looked at.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// The number of writes that each step of the rotation waits for.
const WRITES_PER_STEP: u64 = 200;

/// A modest load: `QUORATE_ROTATION_WRITERS` and `QUORATE_ROTATION_REST` (a pause, such as `0ms`)
/// make it heavier, and `QUORATE_ROTATION_WRITES` makes each step longer.
#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_rotated_under_load_without_a_failed_write() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    };
    let writers = number("QUORATE_ROTATION_WRITERS", 12);
    let rest = std::env::var("QUORATE_ROTATION_REST").unwrap_or_else(|_| "10ms".to_owned());
    let rest = humantime::parse_duration(&rest).expect("a duration");
    let per_step = number("QUORATE_ROTATION_WRITES", WRITES_PER_STEP);

    let world = World::start().await;
    let pids: Vec<_> = world.cluster.ids().into_iter().map(|id| world.cluster.pid(id).expect("it runs")).collect();
    let (show, shown) = watch::channel(world.identity("old/ca.pem", "old"));
    let (stop, stopped) = watch::channel(false);
    let (count, counted) = watch::channel(Count::default());
    let mut writing = JoinSet::new();
    let begin = Instant::now();
    for name in 0..writers {
        let mut urls = world.urls();
        let first = usize::try_from(name).expect("few") % urls.len();
        urls.rotate_left(first);
        let (shown, stopped, count) = (shown.clone(), stopped.clone(), count.clone());
        writing.spawn(write(format!("writer-{name}"), urls, shown, stopped, count, rest));
    }
    let steady = async || {
        let mut counted = counted.clone();
        let goal = counted.borrow().writes + per_step;
        counted.wait_for(|count| count.writes >= goal).await.expect("writers");
    };
    // Every writer connects anew before the next step.
    let show = async |identity: Trust| {
        let mut counted = counted.clone();
        let goal = counted.borrow().changes + writers;
        show.send_replace(identity);
        counted.wait_for(|count| count.changes >= goal).await.expect("writers");
    };
    steady().await;

    // Both authorities are trusted, before any certificate of the new one is shown.
    let both = world.read("old/ca.pem") + &world.read("new/ca.pem");
    world.replace_authorities(&both).await;
    show(world.identity("both.pem", "old")).await;
    steady().await;
    // New certificates and keys, node by node.
    for id in world.cluster.ids() {
        world.replace_pair(id).await;
        steady().await;
    }
    show(world.identity("new/ca.pem", "new")).await;
    steady().await;
    // The old authority counts no more.
    let new = world.read("new/ca.pem");
    world.replace_authorities(&new).await;
    steady().await;
    sleep(Duration::from_secs(1)).await;
    steady().await;
    stop.send_replace(true);
    let outcomes = writing.join_all().await;
    let lasted = begin.elapsed();

    let (writes, failed): (u64, Vec<_>) =
        outcomes.into_iter().fold((0, Vec::new()), |(writes, mut failed), outcome| {
            failed.extend(outcome.failed);
            (writes + outcome.acknowledged, failed)
        });
    let rate = u128::from(writes) * 1000 / lasted.as_millis();
    println!("{writes} writes by {writers} writers in {lasted:?}, {rate} a second, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:#?}\n{}", world.logs());
    for (id, pid) in world.cluster.ids().into_iter().zip(pids) {
        assert_eq!(world.cluster.pid(id).expect("it runs"), pid, "no process was restarted");
    }
    let mut client = Client::new(&world.urls(), &world.identity("new/ca.pem", "new")).expect("a client");
    for name in 0..writers {
        let got = client.get(&format!("writer-{name}"), ReadMode::Linearizable).await.expect("read");
        assert!(got.value.is_some(), "the writes of writer {name} are there");
    }
    // The purpose of the rotation.
    for url in world.urls() {
        let mut old = Client::new(std::slice::from_ref(&url), &world.identity("both.pem", "old")).expect("a client");
        old.put("k", "v").await.expect_err("a certificate of the old authority is refused");
    }
}

/// The writes of all writers, and how often they took another identity.
#[derive(Clone, Copy, Default)]
struct Count {
    writes: u64,
    changes: u64,
}

#[derive(Default)]
struct Outcome {
    acknowledged: u64,
    failed: Vec<String>,
}

/// Writes one key again and again, each time with the identity that is shown at the moment.
async fn write(
    key: String,
    urls: Vec<String>,
    mut shown: watch::Receiver<Trust>,
    stopped: watch::Receiver<bool>,
    count: watch::Sender<Count>,
    rest: Duration,
) -> Outcome {
    let client = |trust: &Trust| Client::new(&urls, trust).expect("a client").without_session();
    let (mut outcome, mut writer) = (Outcome::default(), client(&shown.borrow_and_update().clone()));
    while !*stopped.borrow() {
        if shown.has_changed().unwrap_or(false) {
            writer = client(&shown.borrow_and_update().clone());
            count.send_modify(|count| count.changes += 1);
        }
        let value = outcome.acknowledged.to_string();
        match writer.put(&key, value).await {
            Ok(_) => {
                outcome.acknowledged += 1;
                count.send_modify(|count| count.writes += 1);
            }
            Err(error) => {
                outcome.failed.push(format!("{}: {error}", humantime::format_rfc3339_micros(SystemTime::now())));
            }
        }
        if !rest.is_zero() {
            sleep(rest).await;
        }
    }
    outcome
}

/// Three nodes with HTTPS, each with files of its own, and two authorities of one name.
struct World {
    cluster: Running,
}

impl World {
    async fn start() -> Self {
        let mut world = Self { cluster: laid_out_with("demo", 3, "") };
        for authority in ["old", "new"] {
            fs::create_dir(world.path(authority)).expect("made");
        }
        for file in ["ca.pem", "ca.key"] {
            fs::copy(world.path("certs").join(file), world.path("old").join(file)).expect("copied");
        }
        Authority::create("demo").expect("made").write(&world.path("new")).expect("written");
        for authority in ["old", "new"] {
            let issued = world.authority(authority).issue_client("load").expect("issued");
            issued.write(&world.path(authority), "load").expect("written");
        }
        fs::write(world.path("both.pem"), world.read("old/ca.pem") + &world.read("new/ca.pem")).expect("written");
        let certs = world.path("certs").display().to_string();
        for id in world.cluster.ids() {
            let live = world.live(id);
            fs::create_dir_all(&live).expect("made");
            for file in [format!("node-{id}.pem"), format!("node-{id}.key"), "ca.pem".to_owned()] {
                fs::copy(Path::new(&certs).join(&file), live.join(&file)).expect("copied");
            }
            let file = world.cluster.layout().config_file(id);
            let text = fs::read_to_string(&file).expect("readable").replace(&certs, &live.display().to_string());
            let [cert, key, ca] = [format!("node-{id}.pem"), format!("node-{id}.key"), "ca.pem".to_owned()]
                .map(|name| live.join(name).display().to_string());
            let http = format!("\n[http_tls]\ncert = {cert:?}\nkey = {key:?}\nclient_ca = {ca:?}\n");
            fs::write(&file, text + &http).expect("written");
        }
        world.cluster.start_all().await.expect("started");
        let mut client = Client::new(&world.urls(), &world.identity("old/ca.pem", "old")).expect("a client");
        client.put("first", "write").await.expect("a leader");
        world
    }

    fn logs(&self) -> String {
        let logs = self.cluster.ids().into_iter().map(|id| {
            let log = fs::read_to_string(self.cluster.layout().log_file(id)).unwrap_or_default();
            format!("node {id}:\n{log}")
        });
        logs.collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cluster.path(name).into()
    }

    fn live(&self, id: NodeId) -> PathBuf {
        self.path("live").join(id.to_string())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("readable")
    }

    fn authority(&self, name: &str) -> Authority {
        Authority::load(&self.path(name)).expect("loaded")
    }

    fn urls(&self) -> Vec<String> {
        let ids = self.cluster.ids();
        ids.into_iter().map(|id| self.cluster.endpoint(id).replace("http://", "https://")).collect()
    }

    /// A client that trusts the authorities in a file, with the certificate of one of them.
    fn identity(&self, trusts: &str, of: &str) -> Trust {
        let own = |end: &str| self.path(of).join(format!("load.{end}"));
        let trust = Trust::authority(&self.path(trusts)).expect("an authority");
        trust.with_certificate(&own("pem"), &own("key")).expect("a certificate")
    }

    /// Puts these authorities into the place of those of each node, and waits until they count.
    async fn replace_authorities(&self, pem: &str) {
        for id in self.cluster.ids() {
            let (file, next) = (self.live(id).join("ca.pem"), self.live(id).join("ca.pem.next"));
            fs::write(&next, pem).expect("written");
            self.replace(id, || fs::rename(next, file).expect("renamed")).await;
        }
    }

    async fn replace_pair(&self, id: NodeId) {
        let issued = self.authority("new").issue_node(id, &["127.0.0.1".to_owned()]).expect("issued");
        self.replace(id, || issued.replace(&self.live(id), &format!("node-{id}")).expect("replaced")).await;
    }

    /// Replaces files, sends SIGHUP, and waits until both halves have loaded them.
    async fn replace(&self, id: NodeId, replace: impl FnOnce()) {
        let before = self.loaded(id).await;
        replace();
        self.cluster.signal(id, Signal::HUP).expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        while self.loaded(id).await.iter().zip(before).any(|(now, before)| *now <= before) {
            let log = fs::read_to_string(self.cluster.layout().log_file(id)).unwrap_or_default();
            assert!(Instant::now() < deadline, "node {id} has not loaded its credentials: {log}");
            sleep(ASK_AGAIN).await;
        }
    }

    /// How often each half of a node has loaded credentials again.
    async fn loaded(&self, id: NodeId) -> [u64; 2] {
        let url = [self.cluster.endpoint(id).replace("http://", "https://")];
        // The certificate that counts depends on the stage.
        for of in ["old", "new"] {
            let mut client = Client::new(&url, &self.identity("both.pem", of)).expect("a client");
            let Ok(page) = client.text("/metrics").await else { continue };
            return ["nodes", "http"].map(|of| {
                let series =
                    format!("quorate_credential_reloads_total{{node=\"{id}\",of=\"{of}\",result=\"loaded\"}} ");
                page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
            });
        }
        panic!("node {id} serves no metrics");
    }
}
