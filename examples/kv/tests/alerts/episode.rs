//! One fault from a healthy cluster to a healthy cluster: injected under a light load, seen by a real
//! Prometheus, and ended by the alert's runbook.

use crate::{
    prometheus::{Alerting, Millis, Prometheus, SCALE, now},
    runbook,
    support::{MachineDelay, PATIENCE, Running, laid_out_as, published},
};
use quorate::NodeId;
use quorate_kv::{
    cluster::Options,
    load::{Ledger, LoadOptions, Writers},
};
use quorate_metrics_testing::{Alert, alerts};
use std::{any::Any, collections::BTreeSet, future::Future, pin::Pin, time::Duration};
use tokio::time::{Instant, sleep};

/// The load on a healthy cluster: about twenty writes a second from each of three writers.
const LIGHT: LoadOptions = LoadOptions { writers: 1, rest: Duration::from_millis(50), value_bytes: 100 };
/// The evaluations without an alert that count as quiet.
const QUIET: usize = 6;
/// Thread wake-ups of several processes, one after the other, until a metric shows a fault.
const HOPS: u32 = 16;
/// The evaluations within which a `for` that is over must have led to a firing alert.
const EVALUATIONS_MAX: usize = 2;
/// Alerts that fire, rightly, while other processes take the processors and the disk of the machine: each
/// from the delay of a thread at which that is so.
const OF_THE_MACHINE: [(Duration, &[&str]); 3] = [
    // The threshold of the rule for late timers.
    (Duration::from_millis(100), &["QuorateEventLoopLate", "QuorateSlowFsync", "QuorateSlowCommits"]),
    // The time limit of a scrape.
    (SCALE.interval, &["QuorateNodeDown"]),
    // Half of the shortest election timeout: a heartbeat passes several threads.
    (Duration::from_millis(300), &["QuorateNoLeader", "QuorateNodeWithoutLeader", "QuorateNoMargin"]),
];

/// The lines of a node's log that are shown.
const LINES_MAX: usize = 12;

/// A step of a fault; `None`, with a message, if this machine does not permit it.
pub(crate) type Step<'a> = Pin<Box<dyn Future<Output = Option<()>> + Send + 'a>>;

/// A fault, and the alerts that it leads to.
pub(crate) struct Fault {
    /// A short name, as in the matrix.
    pub(crate) name: &'static str,
    /// The alert whose runbook ends it.
    pub(crate) alert: &'static str,
    /// Alerts that fire as well, always.
    pub(crate) consequences: &'static [&'static str],
    /// Alerts that may fire, depending on the moment.
    pub(crate) possible: &'static [&'static str],
    /// The time until the metrics show it: timeouts and intervals of the product, which are not scaled,
    /// and the time that a rate needs to rise.
    pub(crate) visible: Duration,
    /// The properties of the cluster.
    pub(crate) options: fn(Options) -> Options,
    /// Prepares files before the nodes start.
    pub(crate) prepare: for<'a> fn(&'a mut Running, &'a mut Kept) -> Step<'a>,
    pub(crate) inject: for<'a> fn(&'a mut World) -> Step<'a>,
    /// The part of the remedy that is outside of the cluster: a line `# by hand:` of the runbook.
    pub(crate) repair: for<'a> fn(&'a mut World) -> Step<'a>,
}

/// A fault of three nodes, with the simplest of all else.
pub(crate) const PLAIN: Fault = Fault {
    name: "",
    alert: "",
    consequences: &[],
    possible: &[],
    visible: Duration::ZERO,
    options: |options| options,
    prepare: |_, _| Box::pin(async { Some(()) }),
    inject: |_| Box::pin(async { Some(()) }),
    repair: |_| Box::pin(async { Some(()) }),
};

impl Fault {
    pub(crate) fn must_fire(&self) -> BTreeSet<&'static str> {
        self.consequences.iter().copied().chain([self.alert]).collect()
    }

    pub(crate) fn may_fire(&self) -> BTreeSet<&'static str> {
        self.possible.iter().copied().chain(self.must_fire()).collect()
    }
}

/// Values that live as long as a fault or a cluster: mounts, processes, connections.
pub(crate) type Kept = Vec<Box<dyn Any + Send + Sync>>;

/// A cluster under observation.
pub(crate) struct World {
    pub(crate) cluster: Running,
    pub(crate) prometheus: Prometheus,
    /// The leader and the others when the fault began.
    pub(crate) leader: NodeId,
    pub(crate) followers: Vec<NodeId>,
    /// Dropped by the repair.
    pub(crate) fault: Kept,
    /// Dropped at the end, after the nodes.
    pub(crate) kept: Kept,
}

/// The result of an episode.
pub(crate) struct Row {
    pub(crate) fault: &'static Fault,
    /// All alerts that fired, from the injection until all was quiet again.
    pub(crate) fired: BTreeSet<String>,
    /// Those of them that the machine caused, because other processes starved it.
    pub(crate) of_the_machine: BTreeSet<String>,
    /// From the injection to the first evaluation that found the alert's expression true.
    pub(crate) seen_after: Option<Duration>,
    /// From the injection to the first evaluation at which the alert fired.
    pub(crate) fired_after: Option<Duration>,
    /// From the begin of the runbook until no alert was pending or firing.
    pub(crate) ended_after: Option<Duration>,
    /// The demands that it does not meet.
    pub(crate) problems: Vec<String>,
    /// The warnings of all nodes, if a demand is not met or another alert fired.
    pub(crate) logs: Vec<String>,
}

/// Runs a fault. `None`, with a message, if this machine does not permit it.
pub(crate) async fn run(fault: &'static Fault) -> Option<Row> {
    let delay = MachineDelay::watch();
    let mut world = World::healthy(fault, &delay).await?;
    let rule = alerts().into_iter().find(|alert| alert.name == fault.alert).expect("an alert of the rules");
    let began = now();
    (fault.inject)(&mut world).await?;
    let injected = now();
    let mut row = Row {
        fault,
        fired: BTreeSet::new(),
        of_the_machine: BTreeSet::new(),
        seen_after: None,
        fired_after: None,
        ended_after: None,
        problems: Vec::new(),
        logs: Vec::new(),
    };

    let alerting = world.until_fired(fault, &rule, began).await;
    match alerting.iter().find(|alert| alert.is_firing() && alert.name() == fault.alert) {
        None => row.problems.push(format!("{} did not fire", fault.alert)),
        Some(firing) => {
            let evaluations = world.prometheus.evaluations_since(began).await;
            row.timed(&rule, &alerting, &evaluations, (began, injected), delay.longest());
            let started = now();
            match runbook::run(&mut world, fault, &firing.labels).await {
                Err(problem) => row.problems.push(format!("runbook: {problem}")),
                Ok(()) => {
                    let targets = world.cluster.running().len();
                    let of_the_machine = |name: &str| is_of_the_machine(fault, name, delay.longest());
                    match world.prometheus.quiet(targets, QUIET, of_the_machine, PATIENCE * 4).await {
                        Err(problem) => row.problems.push(problem),
                        Ok(()) => row.ended_after = Some(apart(started, now())),
                    }
                }
            }
        }
    }
    let alerting = world.prometheus.alerts_since(began).await;
    row.fired = alerting.iter().filter(|alert| alert.is_firing()).map(|alert| alert.name().to_owned()).collect();
    row.leave_out(delay.longest());
    row.problems.extend(world.unhealthy().await);
    if !row.problems.is_empty() || row.fired.iter().any(|name| !fault.may_fire().contains(&**name)) {
        row.logs = world.warnings().collect();
    }
    Some(row)
}

impl World {
    async fn healthy(fault: &'static Fault, delay: &MachineDelay) -> Option<Self> {
        let mut cluster = laid_out_as(fault.options);
        let mut kept = Vec::new();
        (fault.prepare)(&mut cluster, &mut kept).await?;
        // Prometheus begins with the first scrape five seconds after its start.
        let prometheus = Prometheus::start(&cluster).await?;
        cluster.start_all().await.expect("they start");
        cluster.leader(PATIENCE).await.expect("a leader");
        published(&cluster).await;
        let (leader, followers) = cluster.roles().await;
        let mut world = Self { cluster, prometheus, leader, followers, fault: Vec::new(), kept };
        world.load(LIGHT);
        let nodes = world.cluster.ids().len();
        let of_the_machine = |name: &str| is_of_the_machine(fault, name, delay.longest());
        world
            .prometheus
            .quiet(nodes, QUIET, of_the_machine, PATIENCE * 4)
            .await
            .expect("a healthy cluster without alerts");
        (world.leader, world.followers) = world.cluster.roles().await;
        Some(world)
    }

    /// Starts writers for as long as the cluster is observed.
    pub(crate) fn load(&mut self, options: LoadOptions) {
        self.kept.push(Box::new(Writers::start(&self.cluster, &Ledger::new(), options).expect("writers")));
    }

    /// All alerts since a time, once each that must fire does, or the time limit is over.
    async fn until_fired(&self, fault: &Fault, rule: &Alert, since: Millis) -> Vec<Alerting> {
        // Far beyond the limit that is checked afterwards by Prometheus' own times.
        let deadline = Instant::now() + fault.visible + rule.hold / SCALE.factor + PATIENCE;
        loop {
            let alerting = self.prometheus.alerts_since(since).await;
            let fires = |name: &&str| alerting.iter().any(|alert| alert.is_firing() && alert.name() == *name);
            if fault.must_fire().iter().all(fires) || Instant::now() > deadline {
                return alerting;
            }
            sleep(SCALE.interval / 2).await;
        }
    }

    /// The reason why the cluster is not healthy, if it is not.
    async fn unhealthy(&self) -> Option<String> {
        if let Err(error) = self.cluster.leader(PATIENCE).await {
            return Some(format!("not healthy in the end: {error}"));
        }
        let mut client = self.cluster.client(&self.cluster.running()).expect("a client");
        client.put("healthy", "yes").await.err().map(|error| format!("not healthy in the end: {error}"))
    }

    /// The last warnings and errors of each node.
    fn warnings(&self) -> impl Iterator<Item = String> {
        let nodes = self.cluster.ids().into_iter().chain(self.cluster.joiners());
        nodes.flat_map(|id| {
            let log = std::fs::read_to_string(self.cluster.layout().log_file(id)).unwrap_or_default();
            let lines = log.lines().rev().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
            let lines: Vec<_> = lines.take(LINES_MAX).map(|line| format!("node {id}: {line}")).collect();
            lines.into_iter().rev()
        })
    }
}

impl Row {
    /// Takes the alerts out that a starved machine fires.
    fn leave_out(&mut self, machine_delay: Duration) {
        let fired = std::mem::take(&mut self.fired).into_iter();
        (self.of_the_machine, self.fired) = fired.partition(|name| is_of_the_machine(self.fault, name, machine_delay));
    }

    /// Compares the times with their limits. `began` and `injected` are the moments before and after the
    /// injection, which may take a while itself.
    fn timed(
        &mut self,
        rule: &Alert,
        alerting: &[Alerting],
        evaluations: &[Millis],
        (began, injected): (Millis, Millis),
        machine_delay: Duration,
    ) {
        let own = alerting.iter().filter(|alert| alert.name() == rule.name && alert.is_firing());
        let Some((firing, fired)) = own.filter_map(|alert| Some((alert, *alert.at.first()?))).min_by_key(|(_, at)| *at)
        else {
            return;
        };
        let seen = active_since(firing, fired, alerting, evaluations);
        self.seen_after = Some(apart(began, seen));
        self.fired_after = Some(apart(began, fired));
        let visible = self.fault.visible + SCALE.interval * 2 + machine_delay * HOPS;
        if apart(injected, seen) > visible {
            self.problems.push(format!("visible after {:?}, and {visible:?} are allowed", apart(injected, seen)));
        }
        // Evaluations of Prometheus, which come later on a busy machine.
        let due = seen + (rule.hold / SCALE.factor).as_millis() as Millis;
        let needed = evaluations.iter().filter(|at| (due..=fired).contains(*at)).count();
        if needed > EVALUATIONS_MAX {
            self.problems.push(format!("fired {needed} evaluations after its `for` was over"));
        }
    }
}

/// Whether the machine fires an alert, rightly, because other processes take its processors and disk; never
/// one of the fault.
fn is_of_the_machine(fault: &Fault, name: &str, machine_delay: Duration) -> bool {
    let mut caused = OF_THE_MACHINE.iter().filter(|(delay, _)| machine_delay >= *delay);
    caused.any(|(_, names)| names.contains(&name)) && !fault.may_fire().contains(name)
}

/// When an alert that began to fire became active: all evaluations since then found its expression true.
fn active_since(firing: &Alerting, fired: Millis, alerting: &[Alerting], evaluations: &[Millis]) -> Millis {
    let is_of = |alert: &&Alerting| !alert.is_firing() && alert.without_state() == firing.without_state();
    let pending: BTreeSet<_> = alerting.iter().filter(is_of).flat_map(|alert| alert.at.iter().copied()).collect();
    let before = evaluations.iter().rev().copied().filter(|at| *at < fired);
    before.take_while(|at| pending.contains(at)).last().unwrap_or(fired)
}

fn apart(from: Millis, to: Millis) -> Duration {
    Duration::from_millis(u64::try_from(to - from).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_active_since_the_first_of_the_evaluations_that_found_it_true_without_a_break() {
        let alert = |state: &str, node: &str, at: &[Millis]| Alerting {
            labels: [("alertname", "A"), ("alertstate", state), ("node", node)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            at: at.to_vec(),
        };
        let evaluations = [10, 20, 30, 40, 50, 60];
        let firing = alert("firing", "1", &[50, 60]);
        let active = |pending: &[Alerting]| active_since(&firing, 50, pending, &evaluations);
        assert_eq!(active(&[alert("pending", "1", &[20, 30, 40])]), 20);
        assert_eq!(active(&[alert("pending", "1", &[10, 30, 40])]), 30, "it was not active in between");
        assert_eq!(active(&[alert("pending", "2", &[20, 30, 40])]), 50, "another alert");
        assert_eq!(active(&[]), 50, "without a `for` it fires at once");
    }
}
