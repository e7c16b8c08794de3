use super::*;
use crate::{Passed, Trial};
use bytes::Bytes;
use callers::{Asked, Told};
use quorate::{At, Context, Index};
use serde::{Deserialize, Serialize};

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
