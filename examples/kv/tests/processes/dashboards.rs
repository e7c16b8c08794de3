//! Each panel of the Grafana dashboards, asked of a real Prometheus that scrapes a live cluster under
//! load and faults: it shows what is so, and it is not empty. Skipped with a message where `prometheus`
//! is not installed; CI installs it.

use crate::{
    prometheus::{ASK_AGAIN, JOBS, Prometheus, Series},
    support::{PATIENCE, Running, laid_out, published, raw, run},
};
use quorate::{NodeId, transport::certificates::LIST_FILE};
use quorate_kv::{
    client::{Client, ReadBounds, ReadMode, Trust, WatchRequest, Watched},
    cluster::Signal,
};
use quorate_metrics_testing::{DASHBOARDS, Dashboard, Expression, Variables, alert_expressions};
use std::{path::Path, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Panels that may be empty at the end, and why.
const MAY_BE_EMPTY: [(&str, &str); 1] = [("cluster: Alerts", "no alert is due once all faults are repaired")];

/// The same, for a follower alone.
const MAY_BE_EMPTY_FOR_ONE: [(&str, &str); 2] = [
    ("storage-network: Drops", "it need not have sent anything to the nodes that were down"),
    ("service: Clients refused", "the refused client asked another node"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_shows_what_is_so_on_a_live_cluster_under_faults() {
    let mut cluster = with_revocation_list().await;
    let Some(prometheus) = Prometheus::scrape(&cluster).await else {
        eprintln!("skipped: no prometheus in PATH (Debian package prometheus)");
        return;
    };
    let grafana = Grafana { prometheus };
    // A rise is visible only if a scrape came before it.
    grafana.until("cluster", "Nodes scraped", "all targets answer", |of| numbers(of) == [3.0, 3.0]).await;
    let load = load(&cluster);

    a_healthy_cluster(&cluster, &grafana).await;
    leases_watches_and_timers(&grafana).await;
    a_killed_leader(&mut cluster, &grafana).await;
    a_paused_follower(&cluster, &grafana).await;
    a_refused_client_and_orders_of_an_operator(&cluster, &grafana).await;
    drop(load);
    an_idle_cluster(&cluster, &grafana).await;
    no_panel_is_empty_or_shows_another_cluster(&cluster, &grafana).await;
}

async fn a_healthy_cluster(cluster: &Running, grafana: &Grafana) {
    let status = cluster.leader(PATIENCE).await.expect("a leader");
    let leader = status.node_id.to_string();
    grafana.until("cluster", "Leader", "the node that leads", |of| ids(&of[0], "node") == [&*leader]).await;
    grafana.until("cluster", "Leaders", "one", |of| numbers(of) == [1.0]).await;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let term = status.term.0 as f64;
    grafana.until("cluster", "Term", "the leader's", |of| numbers(of) == [term]).await;
    grafana.until("cluster", "Term by node", "the leader's", |of| numbers(of) == [term; 3]).await;
    grafana.until("cluster", "Must be 0", "0", |of| numbers(of) == [0.0; 7]).await;
    grafana.until("cluster", "Leader known", "by all", |of| numbers(of) == [1.0; 3]).await;
    grafana.until("cluster", "Scrapes", "all", |of| numbers(of) == [1.0; 3]).await;
    let role = |series: &Series| if series.label("node") == leader { 4.0 } else { 1.0 };
    for (dashboard, panel) in [("cluster", "Roles"), ("node", "Role")] {
        let holds = |of: &Answers| of[0].len() == 3 && of[0].iter().all(|series| is(series.value, role(series)));
        grafana.until(dashboard, panel, "one leader and two followers", holds).await;
    }
    for dashboard in ["cluster", "storage-network"] {
        let holds = |of: &Answers| ids(&of[0], "peer").len() == 2 && !ids(&of[0], "peer").contains(&&*leader);
        grafana.until(dashboard, "Replication lag", "the two followers", holds).await;
        grafana.until(dashboard, "Replication state", "replicate", |of| numbers(of) == [2.0; 2]).await;
    }
    let holds = |of: &Answers| of[0].len() == 2 && of[0].iter().all(|series| series.value > 0.0);
    grafana.until("storage-network", "Durable on the peer up to", "of the two followers", holds).await;

    grafana
        .until("service", "Waterfall of a write", "the six stages sum to the total", |of| {
            let mean = |position: usize| of[position].first().map_or(f64::NAN, |series| series.value);
            let (sum, total) = ((0..6).map(mean).sum::<f64>(), mean(6));
            total > 0.0 && (sum / total - 1.0).abs() < 0.01 && mean(7) > 0.0 && of[8].len() == 2
        })
        .await;
    for (dashboard, panel) in [
        ("cluster", "Write latency, distribution"),
        ("service", "Total, distribution"),
        ("service", "Linearizable reads, distribution"),
        ("storage-network", "Syncs, distribution"),
        ("storage-network", "Acknowledgements, distribution"),
        ("node", "Event-loop delay, distribution"),
    ] {
        grafana.until(dashboard, panel, "cumulative buckets with observations", |of| are_buckets(&of[0])).await;
    }
    let ordered = |of: &Answers| {
        let values = numbers(of);
        values.len() == 3 && values[0] > 0.0 && values.is_sorted()
    };
    grafana.until("cluster", "Write latency", "rising percentiles", ordered).await;
    // Both count the same commands; what is appended at this moment is applied at the next.
    let near = |of: &Answers| is_within(of[0][0].value, of[1][0].value, 0.5);
    grafana.until("cluster", "Commit rate", "as many applied as appended", near).await;
    grafana
        .until("storage-network", "Time until expiry", "in the future", |of| {
            let certificates = of[0].iter().filter(|series| series.label("of") == "nodes").count();
            certificates == 3 && of[1].len() == 3 && numbers(of).iter().all(|left| (0.0..=5e9).contains(left))
        })
        .await;
    grafana
        .until("storage-network", "Free space and log", "of all nodes", |of| {
            of[0].len() == 3 && of[1].len() == 3 && numbers(of).iter().all(|bytes| *bytes > 0.0)
        })
        .await;
}

async fn leases_watches_and_timers(grafana: &Grafana) {
    let above_0 = |of: &Answers| numbers(of).iter().all(|number| *number > 0.0);
    let held = |of: &Answers| is(of[0][0].value, 1.0);
    grafana.until("cluster", "Leader lease", "held while clients read by it", held).await;
    grafana.until("service", "Watches", "one on each node", |of| numbers(of) == [1.0; 3]).await;
    grafana.until("service", "Events of watches", "on each node", above_0).await;
    grafana.until("service", "Timers pending", "of the keys that will expire", above_0).await;
    grafana.until("service", "Timers fired", "of the keys that expired", above_0).await;
    let busy = |of: &Answers| {
        let consensus: Vec<_> = of[0].iter().filter(|series| series.label("actor") == "consensus").collect();
        consensus.len() == 3 && consensus.iter().all(|series| series.value > 0.0 && series.value < 1.1)
    };
    grafana.until("node", "Busy actors", "consensus, at most all of the time", busy).await;
}

async fn a_killed_leader(cluster: &mut Running, grafana: &Grafana) {
    let (killed, _) = cluster.roles().await;
    let instance = cluster.endpoint(killed).trim_start_matches("http://").to_owned();
    cluster.kill(killed).await.expect("it ran");
    let leader = cluster.leader(PATIENCE).await.expect("another leader").node_id.to_string();
    let killed_id = killed.to_string();
    grafana.until("cluster", "Leader", "the new one", |of| ids(&of[0], "node") == [&*leader]).await;
    grafana.until("cluster", "Leaders", "one", |of| numbers(of) == [1.0]).await;
    grafana.until("cluster", "Nodes scraped", "two of three", |of| numbers(of) == [3.0, 2.0]).await;
    let down = |of: &Answers| {
        of[0].len() == 3 && of[0].iter().all(|series| is(series.value, 0.0) == (series.label("instance") == instance))
    };
    grafana.until("cluster", "Scrapes", "the killed node does not answer", down).await;
    let alert =
        |series: &Series| series.label("alertname") == "QuorateNodeDown" && series.label("instance") == instance;
    grafana.until("cluster", "Alerts", "of the killed node alone", |of| of[0].iter().any(alert)).await;
    the_lag_grows(grafana, &killed_id).await;
    let state = |of: &Answers| of[0].iter().all(|series| is(series.value, 1.0) == (series.label("peer") == killed_id));
    grafana.until("cluster", "Replication state", "probe for the killed node", state).await;
    let result = |series: &Series| series.label("peer") == killed_id && series.label("result") == "unreachable";
    grafana.until("storage-network", "Connections", "unreachable", |of| of[0].iter().any(result)).await;
    let won =
        |series: &Series| series.label("phase") == "vote" && series.label("result") == "won" && series.value > 0.0;
    grafana.until("cluster", "Elections by result", "a won vote", |of| of[0].iter().any(won)).await;
    grafana.until("cluster", "Campaigns in the time range", "one", |of| numbers(of).iter().all(|p| *p > 0.0)).await;

    let some = |of: &Answers| of[0].iter().any(|series| series.value > 0.0);
    grafana.until("cluster", "Time without a leader", "some", some).await;

    cluster.start_node(killed).await.expect("it starts again");
    the_lag_ends(grafana, &killed_id).await;
    let restarts = |series: &Series| is(series.value, f64::from(u8::from(series.label("node") == killed_id)));
    let once = |of: &Answers| of[0].len() == 3 && of[0].iter().all(restarts);
    grafana.until("node", "Restarts in the time range", "one, of the killed node", once).await;
    grafana.until("cluster", "Leader known", "by all", |of| numbers(of) == [1.0; 3]).await;
}

async fn a_paused_follower(cluster: &Running, grafana: &Grafana) {
    let (leader, followers) = cluster.roles().await;
    let paused = followers[0].to_string();
    cluster.signal(followers[0], Signal::STOP).expect("paused");
    grafana.until("cluster", "Nodes scraped", "two of three", |of| numbers(of) == [3.0, 2.0]).await;
    the_lag_grows(grafana, &paused).await;
    let leader = leader.to_string();
    grafana.until("cluster", "Leader", "unchanged", |of| ids(&of[0], "node") == [&*leader]).await;
    let commits = |of: &Answers| numbers(of).iter().all(|rate| *rate > 0.0);
    grafana.until("cluster", "Commit rate", "above 0 with two of three nodes", commits).await;
    cluster.signal(followers[0], Signal::CONT).expect("awake");
    the_lag_ends(grafana, &paused).await;
    // The pause ended no process.
    let restarts = |of: &Answers| is(numbers(of).iter().sum(), 1.0);
    grafana.until("node", "Restarts in the time range", "only the one before", restarts).await;
    let late = |series: &Series| series.label("node") == paused && series.value > 0.0;
    grafana.until("node", "Late wakeups", "of the paused node", |of| of[0].iter().any(late)).await;
}

async fn a_refused_client_and_orders_of_an_operator(cluster: &Running, grafana: &Grafana) {
    let (leader, followers) = cluster.roles().await;
    let node = followers[1];
    for _ in 0..3 {
        assert_eq!(raw(&cluster.endpoint(node), "GET /v1/kv/k?read=nonsense", "", b"").await.status, 400);
        sleep(ASK_AGAIN).await;
    }
    let id = node.to_string();
    let refused = |of: &Answers| {
        !of[0].is_empty() && of[0].iter().all(|s| s.label("node") == id && s.label("reason") == "bad_request")
    };
    grafana.until("service", "Clients refused", "bad requests on one node", refused).await;
    for node in cluster.ids() {
        cluster.client(&[node]).expect("a client").snapshot().await.expect("a snapshot");
    }
    let built = |series: &Series| series.label("phase") == "build" && series.value > 0.0;
    let panel = "Duration of snapshots in the time range";
    grafana.until("storage-network", panel, "of the snapshots built", |of| of[0].iter().any(built)).await;
    cluster.client(&[leader]).expect("a client").transfer(Some(node)).await.expect("transferred");
    let done = |series: &Series| series.label("result") == "done" && series.value > 0.0;
    grafana.until("cluster", "Transfers of leadership", "one done", |of| of[0].iter().any(done)).await;
    grafana.until("cluster", "Leader", "the one transferred to", |of| ids(&of[0], "node") == [&*id]).await;
}

async fn an_idle_cluster(cluster: &Running, grafana: &Grafana) {
    cluster.converge(PATIENCE).await.expect("level");
    grafana.until("node", "Entries that wait", "0", |of| numbers(of) == [0.0; 9]).await;
    grafana
        .until("node", "Positions in the log", "equal, as the nodes report", |of| {
            let level: Vec<_> = of[..4].iter().flatten().map(|series| series.value).collect();
            level.len() == 12 && level.iter().all(|index| is(*index, level[0])) && level[0] > 100.0
        })
        .await;
    grafana.until("service", "Writes in flight", "0", |of| numbers(of) == [0.0; 3]).await;
    grafana.until("cluster", "Replication lag", "0", |of| numbers(of) == [0.0; 2]).await;
    grafana
        .until("service", "Sessions", "equal on all nodes", |of| {
            of[0].len() == 3 && of[0].iter().all(|series| series.value >= 3.0 && is(series.value, of[0][0].value))
        })
        .await;
}

async fn no_panel_is_empty_or_shows_another_cluster(cluster: &Running, grafana: &Grafana) {
    let (_, followers) = cluster.roles().await;
    let follower = followers[0].to_string();
    let is_exempt = |title: &str, is_for_one: bool| {
        let for_one = MAY_BE_EMPTY_FOR_ONE.iter().filter(|_| is_for_one);
        MAY_BE_EMPTY.iter().chain(for_one).any(|(exempt, _)| *exempt == title)
    };
    let mut panels = 0;
    for dashboard in DASHBOARDS {
        for panel in dashboard.panels() {
            panels += 1;
            for (variables, is_shown) in [
                (Variables { nodes: ".+", ..WHOLE_TEST }, true),
                (Variables { nodes: &follower, ..WHOLE_TEST }, true),
                // Both contain the name of a job, as a regular expression or as a part.
                (Variables { cluster: "quorate.+", ..WHOLE_TEST }, false),
                (Variables { cluster: "quorat", ..WHOLE_TEST }, false),
            ] {
                for expression in dashboard.expressions(&panel, variables) {
                    let answer = grafana.prometheus.query(&[&expression.promql]).await.remove(0);
                    let has_data = answer.iter().any(|series| !series.value.is_nan());
                    assert!(is_shown || answer.is_empty(), "{expression:?} shows another cluster: {answer:?}");
                    let is_exempt = is_exempt(&expression.title, variables.nodes == follower);
                    assert!(
                        has_data || !is_shown || is_exempt || cannot_be_here(&expression),
                        "{variables:?}: no data for {expression:?}"
                    );
                }
            }
        }
    }
    assert!(panels > 80, "{panels} panels");
    for expression in alert_expressions() {
        grafana.prometheus.query(&[&expression.promql]).await; // panics if it is an error
    }
}

/// Whether the kernel lacks what the expression asks for.
fn cannot_be_here(expression: &Expression) -> bool {
    expression.promql.contains("quorate_pressure_ratio") && !Path::new("/proc/pressure/cpu").exists()
}

/// The lag of a peer that does not answer, and its alone, grows with each write.
async fn the_lag_grows(grafana: &Grafana, peer: &str) {
    let lag = |of: &Answers| of[0].iter().find(|series| series.label("peer") == peer).map(|series| series.value);
    let first = grafana.until("cluster", "Replication lag", "a lag", |of| lag(of).is_some_and(|lag| lag > 10.0)).await;
    let first = lag(&first).expect("it is");
    let grows = |of: &Answers| {
        let others = of[0].iter().filter(|series| series.label("peer") != peer);
        lag(of).is_some_and(|lag| lag > first + 10.0) && others.into_iter().all(|series| series.value < first)
    };
    grafana.until("cluster", "Replication lag", "a growing one, of this peer alone", grows).await;
}

/// A peer that is back catches up, while the load goes on.
async fn the_lag_ends(grafana: &Grafana, peer: &str) {
    let level = |of: &Answers| of[0].iter().any(|series| series.label("peer") == peer && series.value < 10.0);
    grafana.until("cluster", "Replication lag", "little", level).await;
    grafana.until("cluster", "Replication state", "replicate", |of| numbers(of) == [2.0; 2]).await;
}

/// The dashboards with their variables set, on a Prometheus.
struct Grafana {
    prometheus: Prometheus,
}

/// The series of each target of a panel.
type Answers = [Vec<Series>];

/// Intervals for values of the moment: at least four scrapes, also on a slow machine.
const OF_THE_MOMENT: Variables<'static> = Variables { cluster: JOBS[0], nodes: ".+", interval: "5s", range: "30m" };
/// An interval that includes the whole test.
const WHOLE_TEST: Variables<'static> = Variables { interval: "30m", ..OF_THE_MOMENT };

impl Grafana {
    /// Waits until what the panel shows has this property; returns it. A panel of metrics that this
    /// version lacks is passed over.
    async fn until(
        &self,
        dashboard: &str,
        panel: &str,
        what: &str,
        holds: impl Fn(&Answers) -> bool,
    ) -> Vec<Vec<Series>> {
        let targets = targets(dashboard, panel);
        if targets.iter().all(cannot_be_here) {
            return Vec::new();
        }
        let expressions: Vec<_> = targets.iter().map(|target| &*target.promql).collect();
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            let answers = self.prometheus.query(&expressions).await;
            let mut all = answers.iter().zip(&targets);
            if all.all(|(answer, target)| !answer.is_empty() || cannot_be_here(target)) && holds(&answers) {
                return answers;
            }
            assert!(Instant::now() < deadline, "{dashboard}, {panel}: not {what}: {answers:#?}");
            sleep(ASK_AGAIN).await;
        }
    }
}

fn targets(dashboard: &str, title: &str) -> Vec<Expression> {
    let named = |of: &&Dashboard| of.name == dashboard;
    let dashboard = DASHBOARDS.iter().find(named).expect("a dashboard of this name");
    let panel = dashboard.panels().into_iter().find(|panel| panel["title"] == title);
    let panel = panel.unwrap_or_else(|| panic!("no panel {title}"));
    dashboard.expressions(&panel, OF_THE_MOMENT)
}

/// The values of all targets, in their order.
fn numbers(of: &Answers) -> Vec<f64> {
    of.iter().flatten().map(|series| series.value).collect()
}

fn ids<'a>(of: &'a [Series], label: &str) -> Vec<&'a str> {
    of.iter().map(|series| series.label(label)).collect()
}

/// Equality of whole numbers.
fn is(value: f64, expected: f64) -> bool {
    (value - expected).abs() < 1e-9
}

fn is_within(value: f64, expected: f64, part: f64) -> bool {
    value > 0.0 && (value / expected - 1.0).abs() < part
}

/// Whether these are the buckets of a histogram that has observations: none has fewer than the one
/// below it, and the last one has all.
fn are_buckets(of: &[Series]) -> bool {
    let bound = |series: &Series| series.label("le").replace("+Inf", "inf").parse().unwrap_or(f64::NAN);
    let mut buckets: Vec<(f64, f64)> = of.iter().map(|series| (bound(series), series.value)).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let last = buckets.last().copied().unwrap_or_default();
    last.0.is_infinite() && last.1 > 0.0 && buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1 + 1e-9)
}

/// A cluster of three nodes with a revocation list, so that its end is shown.
async fn with_revocation_list() -> Running {
    let mut cluster = laid_out("demo", 3);
    let certs = cluster.path("certs");
    run(&["certs", "crl", "--dir", &certs]).await.succeeded();
    for id in cluster.ids() {
        let file = cluster.layout().config_file(id);
        let text = std::fs::read_to_string(&file).expect("readable");
        let text = text.replace("[tls]\n", &format!("[tls]\ncrl = {:?}\n", format!("{certs}/{LIST_FILE}")));
        std::fs::write(&file, text).expect("written");
    }
    cluster.start_all().await.expect("started");
    cluster.leader(PATIENCE).await.expect("a leader");
    published(&cluster).await;
    cluster
}

/// Clients of each node that write, read in every way, let keys expire and watch, until this is
/// dropped. Failures are expected, since nodes fail.
fn load(cluster: &Running) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for id in cluster.ids() {
        let endpoint = [cluster.endpoint(id)];
        let client = || Client::new(&endpoint, &Trust::none()).expect("a client").with_limit(Duration::from_secs(2));
        tasks.spawn(write_and_read(id, client()));
        tasks.spawn(watch(client()));
    }
    tasks
}

async fn write_and_read(id: NodeId, mut client: Client) {
    let modes = [ReadMode::Linearizable, ReadMode::Lease, ReadMode::Local, ReadMode::Bounded];
    for number in 0u64.. {
        let mode = modes[usize::try_from(number % 4).expect("small")];
        let max_entries = (mode == ReadMode::Bounded).then_some(1_000);
        let bounds = ReadBounds { max_entries, max_age: None };
        // A key that expires is written once: another write would renew it.
        let ttl = number.is_multiple_of(10).then_some(Duration::from_secs(5));
        let key = if ttl.is_some() { format!("k/{id}/once/{number}") } else { format!("k/{id}/{}", number % 100) };
        let written = client.put_for(&key, "value", ttl).await.is_ok();
        if client.get_within(&key, mode, bounds).await.is_err() && !written {
            sleep(ASK_AGAIN).await; // the node is down
        }
    }
}

async fn watch(mut client: Client) {
    loop {
        let request = WatchRequest { watched: Watched::Prefix("k/".to_owned()), after: None };
        if let Ok(mut watching) = client.watch(request).await {
            while watching.next().await.is_ok() {}
        }
        sleep(ASK_AGAIN).await; // the node is down
    }
}
