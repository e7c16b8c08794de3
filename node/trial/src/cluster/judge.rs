//! The judgement of a run: the committed log is applied again, by the service and its twin, and
//! compared with the answer to every caller.
//!
//! - An applied command has the outcome that its caller was told, at the index that it was told.
//! - The order of the log is that of real time: an entry stands after all that were acknowledged
//!   before its call began, so the calls are linearizable without a search.
//! - Equal commands stand in the log at least as often as they were acknowledged, and at most as
//!   often as they were acknowledged or had an unknown outcome.
//! - A query has the answer that the service gives after the entry at which it ran; a linearizable
//!   one ran after all entries that were acknowledged before it began.

use super::{
    History, broken,
    callers::{Asked, Call, Told},
    machine::Applied,
};
use crate::{
    failed::{Fault, Property, shown},
    rng::Rng,
    side::Entry,
    spec::Spec,
    steps::{Step, Steps},
    trial::Passed,
    walk::Walk,
};
use bytes::Bytes;
use quorate::{Index, Service};
use std::collections::BTreeMap;

/// Judges a run that `ended` so. With a fault it gives the steps of the committed log, too.
pub(crate) fn judge<S: Service>(
    spec: &Spec<S>,
    seed: u64,
    history: &History<S>,
    ended: Result<(), Fault>,
) -> Result<Passed, (Steps<S>, Fault)> {
    let mut rng = Rng::new(seed ^ 0x10ad);
    let mut steps = Vec::new();
    let mut walk = Walk::new(spec, seed, false);
    let judged = follow(&mut walk, &mut steps, &mut rng, history).and_then(|()| callers(history));
    // The log may show a fault of the cluster in more detail.
    match judged.and(ended) {
        Ok(()) => Ok(Passed { clusters: 1, crashes: history.crashes, ..counts(history) }),
        Err(fault) => Err((steps, fault)),
    }
}

fn counts<S: Service>(history: &History<S>) -> Passed {
    let told = |wanted: fn(&Told) -> bool| history.callers.calls.iter().filter(|call| wanted(&call.told)).count();
    Passed {
        answered: (told(|told| matches!(told, Told::Applied(..))) + history.callers.queries.len()) as u64,
        unknown: told(|told| matches!(told, Told::Unknown)) as u64,
        ..Passed::default()
    }
}

/// Applies the log, and asks the queries on the way.
fn follow<S: Service>(
    walk: &mut Walk<'_, S>,
    steps: &mut Steps<S>,
    rng: &mut Rng,
    history: &History<S>,
) -> Result<(), Fault> {
    let mut asked: Vec<_> = history.callers.queries.iter().collect();
    asked.sort_by_key(|asked| asked.index);
    let mut asked = asked.into_iter().peekable();
    for (index, Applied { at, entry, outcome }) in &history.log {
        while let Some(asked) = asked.next_if(|asked| asked.index < *index) {
            answer(walk, asked)?;
        }
        if rng.one_in(4) {
            steps.push((walk.index(), Step::Load));
            walk.load()?;
        }
        steps.push((walk.index(), Step::Logged(*at, entry.clone())));
        let again = walk.follow(at, entry)?;
        if again != outcome[..] {
            let details = format!("a caller was told another outcome of entry {index} than the log has");
            return Err(Fault::new(Property::Outcomes, details));
        }
    }
    asked.try_for_each(|asked| answer(walk, asked))
}

fn answer<S: Service>(walk: &mut Walk<'_, S>, asked: &Asked<S>) -> Result<(), Fault> {
    let now = walk.ask(&asked.query)?;
    match postcard::to_stdvec(&now).ok() == postcard::to_stdvec(&asked.answer).ok() {
        true => Ok(()),
        false => {
            let (query, told, now) = (shown(&asked.query), shown(&asked.answer), shown(&now));
            let details =
                format!("query {query} after entry {}\n  was answered {told}\n  and is now {now}", asked.index);
            Err(Fault::new(Property::Answers, details))
        }
    }
}

/// Compares what the callers were told with the log.
fn callers<S: Service>(history: &History<S>) -> Result<(), Fault> {
    let mut counts: BTreeMap<&Bytes, (u64, u64)> = BTreeMap::new();
    for Call { command, told, .. } in &history.callers.calls {
        let (acknowledged, unknown) = counts.entry(command).or_default();
        match told {
            Told::Applied(index, outcome) => {
                let is_it = |entry: &Entry| matches!(entry, Entry::Command { bytes, .. } if bytes[..] == command[..]);
                let found = history.log.get(index).filter(|applied| is_it(&applied.entry));
                if found.is_none_or(|applied| applied.outcome != outcome) {
                    return Err(broken(format!("entry {index} was acknowledged with {outcome:?} and is {found:?}")));
                }
                *acknowledged += 1;
            }
            Told::Unknown => *unknown += 1,
            Told::Failed => {}
        }
    }
    let mut logged: BTreeMap<Bytes, u64> = BTreeMap::new();
    for applied in history.log.values() {
        if let Entry::Command { bytes, .. } = &applied.entry {
            *logged.entry(Bytes::copy_from_slice(bytes)).or_default() += 1;
        }
    }
    for (command, (acknowledged, unknown)) in counts {
        let times = logged.get(command).copied().unwrap_or_default();
        if !(acknowledged..=acknowledged + unknown).contains(&times) {
            return Err(broken(format!(
                "{command:?} stands in the log {times} times, acknowledged {acknowledged} times and {unknown} times unknown"
            )));
        }
    }
    order(history)
}

/// Checks the order of the log against that of real time.
fn order<S: Service>(history: &History<S>) -> Result<(), Fault> {
    let applied = history.callers.calls.iter().filter_map(|call| match call.told {
        Told::Applied(index, _) => Some((call.ended, call.began, index)),
        _ => None,
    });
    let mut applied: Vec<_> = applied.collect();
    applied.sort_unstable();
    // The highest index that was acknowledged up to each stamp.
    let mut highest = Vec::new();
    for (ended, _, index) in &applied {
        let before = highest.last().map_or(Index(0), |(_, highest)| *highest);
        highest.push((*ended, before.max(*index)));
    }
    let before = |stamp: u64| {
        let count = highest.partition_point(|(ended, _)| *ended < stamp);
        count.checked_sub(1).map_or(Index(0), |last| highest[last].1)
    };
    if let Some((_, began, index)) = applied.iter().find(|(_, began, index)| before(*began) >= *index) {
        return Err(broken(format!("entry {index} was called for after entry {} was acknowledged", before(*began))));
    }
    let late = history.callers.queries.iter().find(|asked| asked.is_linearizable && before(asked.began) > asked.index);
    match late {
        Some(asked) => {
            let before = before(asked.began);
            Err(broken(format!("a query after {} began after entry {before} was acknowledged", asked.index)))
        }
        None => Ok(()),
    }
}
