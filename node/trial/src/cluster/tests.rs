use super::*;
use crate::{Passed, Trial, side::Entry, steps::Step, walk::Walk};
use bytes::Bytes;
use callers::{Asked, Told};
use quorate::{At, Context, Hosted, Index, service::internal::Internal};
use quorate_storage_testing::Operation;
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A sum, and another one of what a timer added.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
struct Sum(u64, u64);

impl Service for Sum {
    quorate::types!(u64 => u64, () => (u64, u64), signal u64);

    fn apply(&mut self, add: u64, cx: &mut Context<'_, Self>) -> u64 {
        self.0 += add;
        cx.after(Duration::from_millis(40 * add), add);
        self.0
    }

    fn signal(&mut self, add: u64, _: &mut Context<'_, Self>) {
        self.1 += add;
    }

    fn query(&self, (): (), _: At) -> (u64, u64) {
        (self.0, self.1)
    }
}

fn spec() -> Arc<Spec<Sum>> {
    // Few commands are equal.
    Arc::new(Trial::new(Sum::default).commands(|rng, _| rng.below(1 << 20)).queries(|_| ()).into_spec())
}

#[test]
fn a_run_is_a_function_of_its_seed_and_has_every_kind_of_event() {
    let (mut counts, spec) = (Passed::default(), spec());
    for seed in 0..4 {
        let [(history, ended), (again, _)] = [(); 2].map(|()| run(&spec, seed).expect("a runtime"));
        assert_eq!(history.log, again.log);
        let judged = judge(&spec, seed, &history, ended).map_err(|(_, fault)| fault);
        counts.add(judged.expect("nothing is wrong"));
    }
    assert!(counts.answered > 100 && counts.unknown > 3 && counts.crashes > 4, "{counts}");
}

#[test]
fn a_run_in_which_a_caller_was_told_something_else_is_not_passed() {
    let spec = spec();
    let true_history = || run(&spec, 1).expect("a runtime").0;
    let judged = |change: &dyn Fn(&mut History<Sum>)| {
        let mut history = true_history();
        change(&mut history);
        judge(&spec, 1, &history, Ok(())).err().map(|(_, fault)| fault.property)
    };
    assert_eq!(judged(&|_| {}), None);
    let first_applied = |history: &History<Sum>| {
        let is_applied = |call: &callers::Call| matches!(call.told, Told::Applied(..));
        history.callers.calls.iter().position(is_applied).expect("a call was applied")
    };
    let cluster = Some(Property::Cluster);
    let another_reply = |history: &mut History<Sum>| {
        let nth = first_applied(history);
        if let Told::Applied(_, outcome) = &mut history.callers.calls[nth].told {
            *outcome = Bytes::from_static(&[0, 99]);
        }
    };
    assert_eq!(judged(&another_reply), cluster);
    let another_index = |history: &mut History<Sum>| {
        let nth = first_applied(history);
        if let Told::Applied(index, _) = &mut history.callers.calls[nth].told {
            *index = index.next();
        }
    };
    assert_eq!(judged(&another_index), cluster);
    let failed_though_applied = |history: &mut History<Sum>| {
        let nth = first_applied(history);
        history.callers.calls[nth].told = Told::Failed;
    };
    assert_eq!(judged(&failed_though_applied), cluster);
    let began_later = |history: &mut History<Sum>| {
        let nth = first_applied(history);
        history.callers.calls[nth].began = u64::MAX;
    };
    assert_eq!(judged(&began_later), cluster, "others were acknowledged by then");
    let lost = |history: &mut History<Sum>| {
        let nth = first_applied(history);
        if let Told::Applied(index, _) = history.callers.calls[nth].told {
            history.log.remove(&index);
        }
    };
    assert!(judged(&lost).is_some());
    let query = |history: &mut History<Sum>, change: &dyn Fn(&mut Asked<Sum>)| {
        let asked = history.callers.queries.iter_mut().filter(|asked| asked.is_linearizable);
        change(asked.last().expect("a linearizable query"));
    };
    assert_eq!(judged(&|history| query(history, &|asked| asked.answer.0 += 1)), Some(Property::Answers));
    let stale = |asked: &mut Asked<Sum>| (asked.index, asked.answer) = (Index(0), (0, 0));
    assert_eq!(judged(&|history| query(history, &stale)), cluster);
}

/// The order of a hash map: the nodes have different worlds.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Hashed(std::collections::HashSet<u64>);

impl Service for Hashed {
    quorate::types!(u64 => u64, () => ());

    fn apply(&mut self, key: u64, _: &mut Context<'_, Self>) -> u64 {
        self.0.insert(key);
        self.0.iter().fold(0, |sum, key| sum * 3 + key)
    }

    fn query(&self, (): (), _: At) {}
}

#[test]
fn nodes_that_differ_are_noticed_in_the_cluster() {
    let spec = Arc::new(Trial::new(Hashed::default).commands(|rng, _| rng.below(100)).into_spec());
    let (_, ended) = run(&spec, 0).expect("a runtime");
    let fault = ended.expect_err("the nodes differ");
    assert_eq!(fault.property, Property::Outcomes);
}

/// Odd commands are of version 1. The reply says whether the command has a session.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Versioned(u64);

impl Service for Versioned {
    quorate::types!(u64 => bool, () => u64);
    const VERSION: u32 = 1;

    fn since(add: &u64) -> u32 {
        (add % 2) as u32
    }

    fn apply(&mut self, add: u64, cx: &mut Context<'_, Self>) -> bool {
        self.0 += add;
        cx.session().is_some()
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.0
    }
}

fn versioned() -> Arc<Spec<Versioned>> {
    Arc::new(Trial::new(Versioned::default).commands(|rng, _| rng.below(1 << 20)).queries(|_| ()).into_spec())
}

#[test]
fn the_version_rises_and_commands_that_it_introduced_are_answered() {
    let spec = versioned();
    let (history, ended) = run(&spec, 0).expect("a runtime");
    let raised = history.log.values().filter(|applied| match &applied.entry {
        Entry::Internal(payload) => Internal::decode(payload) == Some(Internal::Version(1)),
        _ => false,
    });
    assert!(raised.count() > 0);
    let is_answered = |call: &&callers::Call| {
        let is_new = call.command[1] == 1;
        matches!(&call.told, Told::Applied(_, outcome) if is_new && Hosted::<Versioned>::decode(outcome).is_some_and(|outcome| outcome.is_ok()))
    };
    let answered = history.callers.calls.iter().filter(is_answered).count();
    assert!(answered > 10, "{answered} new commands were answered");
    let judged = judge(&spec, 0, &history, ended).map_err(|(_, fault)| fault);
    judged.expect("nothing is wrong");
}

#[test]
fn a_command_has_the_session_of_its_caller_in_the_cluster_and_in_the_judgement() {
    let spec = versioned();
    let (history, ended) = run(&spec, 0).expect("a runtime");
    let (mut with, mut without) = (0, 0);
    for applied in history.log.values() {
        if let Entry::Command { session, .. } = &applied.entry
            && let Some(Ok(has_session)) = Hosted::<Versioned>::decode(&applied.outcome)
        {
            assert_eq!(has_session, session.is_some());
            *(if has_session { &mut with } else { &mut without }) += 1;
        }
    }
    assert!(with > 10 && without > 10, "{with} with a session, {without} without");
    let judged = judge(&spec, 0, &history, ended).map_err(|(_, fault)| fault);
    judged.expect("the same outcomes");
}

#[test]
fn the_steps_of_a_clusters_log_are_its_entries_and_no_others() {
    let spec = versioned();
    let (history, _) = run(&spec, 0).expect("a runtime");
    let (steps, _) = judge(&spec, 0, &history, Err(broken("as it was told"))).expect_err("its steps");
    assert!(steps.iter().any(|(_, step)| matches!(step, Step::Load)));
    let [mut again, mut entries] = [(); 2].map(|()| Walk::new(&spec, 0, false));
    let text = |fault: Fault| fault.details;
    let stepped = steps.iter().try_for_each(|(after, step)| again.step(*after, step));
    let followed = history.log.values().try_for_each(|applied| entries.follow(&applied.at, &applied.entry).map(drop));
    assert_eq!((stepped.map_err(text), followed.map_err(text)), (Ok(()), Ok(())));
    assert_eq!((again.index(), again.passed().ticks), (entries.index(), 0));
    assert_eq!(again.ask(&()).map_err(text), entries.ask(&()).map_err(text));
}

/// Panics in what it is told to.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Fragile {
    sum: u64,
    panics_in_flush: bool,
}

impl Service for Fragile {
    quorate::types!(u64 => u64, bool => u64);

    fn apply(&mut self, add: u64, _: &mut Context<'_, Self>) -> u64 {
        self.sum += add;
        self.sum
    }

    fn query(&self, panics: bool, _: At) -> u64 {
        assert!(!panics || self.sum < 100, "the sum is too large");
        self.sum
    }

    fn flush(&mut self, _: Index) {
        assert!(!self.panics_in_flush || self.sum < 100, "there is no room");
    }
}

#[test]
fn a_panic_in_a_query_or_a_flush_is_a_fault_with_its_place() {
    for (panics_in_flush, text) in [(false, "the query true panics at"), (true, "flush panics at")] {
        let new = move || Fragile { panics_in_flush, ..Fragile::default() };
        let trial = Trial::new(new).commands(|rng, _| rng.below(20)).queries(move |_| !panics_in_flush);
        let (_, ended) = run(&Arc::new(trial.into_spec()), 0).expect("a runtime");
        let Fault { property, details } = ended.expect_err("it panics");
        assert_eq!(property, Property::Panics, "{details}");
        let message = if panics_in_flush { "there is no room" } else { "the sum is too large" };
        assert!(details.starts_with(text) && details.contains("tests.rs:") && details.ends_with(message), "{details}");
    }
}

#[test]
fn a_node_that_fails_is_a_fault_unless_its_disk_lost_its_power() {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let ended: Result<(), Fault> = LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let mut cluster = Cluster::new(&spec(), 0);
        for id in ids() {
            cluster.start(id).await?;
        }
        let _calling = cluster.callers.call(0);
        sleep(Duration::from_secs(3)).await;
        cluster.disks[&NodeId(1)].halt();
        sleep(Duration::from_secs(3)).await;
        let node = cluster.nodes.borrow()[&NodeId(1)].clone();
        timeout(PATIENCE, node.failed()).await.expect("it failed");
        cluster.look()?;
        cluster.crash(NodeId(1)).await?;
        assert_eq!(cluster.dark, [NodeId(1)].into());
        cluster.start(NodeId(1)).await?;
        cluster.disks[&NodeId(2)].fail(Operation::Sync, 1);
        sleep(Duration::from_secs(3)).await;
        let fault = cluster.look().expect_err("node 2 failed");
        assert_eq!(fault.property, Property::Cluster);
        assert!(fault.details.starts_with("node 2 failed: storage failed"), "{}", fault.details);
        let stopped = cluster.stop(NodeId(2)).await.expect_err("as it is stopped, too");
        assert_eq!(stopped.details, fault.details);
        cluster.look()
    });
    ended.expect("the others work");
}

#[test]
fn a_panic_of_the_function_that_draws_commands_ends_the_trial() {
    let commands = |_: &mut Rng, replies: &[u64]| if replies.len() < 20 { 1 } else { panic!("out of commands") };
    let spec = Arc::new(Trial::new(Sum::default).commands(commands).into_spec());
    let panicked = catch_unwind(AssertUnwindSafe(|| run(&spec, 0).is_ok())).expect_err("it draws no more");
    assert_eq!(panicked.downcast_ref(), Some(&"out of commands"));
}
