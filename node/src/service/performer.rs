//! The decisions of the performer of effects: which one is performed when, and when again.
//!
//! A leader performs once it has applied the first entry of its own term, so all earlier
//! completions are known to it. Of each key only the oldest effect stands here
//! ([`Outbox::heads`](super::outbox::Outbox::heads)). The shell that carries out calls the author's
//! handler, and brings each result back with the number of its attempt; a result of an attempt that
//! was given up changes nothing.
//!
//! **Bound:** at most [`PLACES`] effects are being performed, or wait for their completion to be
//! applied. One that is to be tried again gives its place up while it rests.

use super::outbox::EffectId;
use crate::decisions::internal_entries::Leading;
use quorate_raft::{Index, Moment, Term};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The most effects at once; they have different keys.
pub const PLACES: usize = 64;
/// The longest that one attempt takes; then it is given up.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The rest after the first failed attempt; it doubles with every further one.
pub const REST_MIN: Duration = Duration::from_millis(100);
/// The longest rest.
pub const REST_MAX: Duration = Duration::from_secs(60);

/// The effects that may be performed, and how far each has come. Empty while the node does not lead.
#[derive(Default, Debug)]
pub struct Performer {
    term: Option<Term>,
    ready: BTreeSet<EffectId>,
    places: BTreeMap<EffectId, Stage>,
    resting: BTreeSet<(Moment, EffectId)>,
    /// The end of each rest.
    rests: BTreeMap<EffectId, Moment>,
    /// The failed attempts of each effect that had one.
    failed: BTreeMap<EffectId, u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It is being performed, and is given up at `until`.
    Performing { attempt: u32, until: Moment },
    /// Its completion is proposed and not yet applied.
    Completing,
}

/// The shell's next step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Call the handler for this effect.
    Perform {
        /// Identity of the effect to perform.
        id: EffectId,
        /// The number of the attempt in this leadership, from 1.
        attempt: u32,
    },
    /// Drop the call of the handler for this effect: it has taken too long.
    GiveUp {
        /// Identity of the effect that is given up.
        id: EffectId,
    },
}

/// The end of one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The handler returned a signal.
    Done,
    /// The handler asks to be called again, after this long if it says so.
    Retry(Option<Duration>),
    /// The handler panicked.
    Panicked,
}

impl Performer {
    /// Begins to perform, as the leader of this term, the effects that may be performed after the
    /// entries up to `applied`. Nothing, if the first entry of the leadership is not among them:
    /// completions of earlier leaders may not be known yet.
    pub fn lead(&mut self, leading: Leading, applied: Index, heads: impl IntoIterator<Item = EffectId>) {
        *self = Self::default();
        if applied >= leading.first {
            (self.term, self.ready) = (Some(leading.term), heads.into_iter().collect());
        }
    }

    /// Forgets all: the node leads no more. The shell drops every call.
    pub fn stop(&mut self) {
        *self = Self::default();
    }

    /// The term in which it performs.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// Takes up an effect that has become the oldest of its key.
    pub fn add(&mut self, id: EffectId) {
        if self.term.is_some() && !self.places.contains_key(&id) && !self.rests.contains_key(&id) {
            self.ready.insert(id);
        }
    }

    /// Forgets an effect, because its completion was applied.
    pub fn completed(&mut self, id: EffectId) {
        self.ready.remove(&id);
        self.places.remove(&id);
        self.failed.remove(&id);
        self.rests.remove(&id).map(|until| self.resting.remove(&(until, id)));
    }

    /// Takes the end of an attempt. `true` if the completion is to be proposed, until it is in the
    /// log or the leadership ends.
    pub fn ended(&mut self, id: EffectId, attempt: u32, ended: Ended, now: Moment) -> bool {
        let Some(stage) = self.places.get_mut(&id) else { return false };
        if !matches!(stage, Stage::Performing { attempt: current, .. } if *current == attempt) {
            return false;
        }
        match ended {
            Ended::Done => {
                *stage = Stage::Completing;
                return true;
            }
            Ended::Retry(after) => self.rest(id, after, now),
            Ended::Panicked => self.rest(id, None, now),
        }
        false
    }

    /// The steps that are due: attempts that take too long are given up, rested effects are ready
    /// again, and ready ones take the free places, the lowest id first.
    pub fn due(&mut self, now: Moment) -> Vec<Step> {
        let is_late = |stage: &Stage| matches!(stage, Stage::Performing { until, .. } if *until <= now);
        let late: Vec<_> = self.places.iter().filter(|(_, stage)| is_late(stage)).map(|(id, _)| *id).collect();
        let mut steps = Vec::new();
        for id in late {
            self.rest(id, None, now);
            steps.push(Step::GiveUp { id });
        }
        while let Some((until, id)) = self.resting.first().copied().filter(|(until, _)| *until <= now) {
            self.resting.remove(&(until, id));
            self.rests.remove(&id);
            self.ready.insert(id);
        }
        while self.places.len() < PLACES
            && let Some(id) = self.ready.pop_first()
        {
            let attempt = self.failed.get(&id).map_or(1, |failed| failed.saturating_add(1));
            self.places.insert(id, Stage::Performing { attempt, until: now.plus(LIMIT) });
            steps.push(Step::Perform { id, attempt });
        }
        steps
    }

    /// When [`Performer::due`] has steps next, unless something else happens before.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Moment> {
        let limits = self.places.values().filter_map(|stage| match stage {
            Stage::Performing { until, .. } => Some(*until),
            Stage::Completing => None,
        });
        limits.chain(self.resting.first().map(|(until, _)| *until)).min()
    }

    fn rest(&mut self, id: EffectId, after: Option<Duration>, now: Moment) {
        self.places.remove(&id);
        let failed = self.failed.entry(id).or_default();
        let doubled = REST_MIN.saturating_mul(1 << (*failed).min(16));
        *failed = failed.saturating_add(1);
        let until = now.plus(after.unwrap_or(doubled).clamp(REST_MIN, REST_MAX));
        self.resting.insert((until, id));
        self.rests.insert(id, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Step::{GiveUp, Perform};

    const LEADING: Leading = Leading { term: Term(3), first: Index(10) };

    #[test]
    fn nothing_is_performed_without_a_leadership() {
        let mut performer = Performer::default();
        performer.add(id(1));
        assert_eq!((performer.due(at(0)), performer.wakes_at()), (vec![], None));
        performer.lead(LEADING, Index(10), [id(1)]);
        assert_eq!(performer.due(at(0)), [Perform { id: id(1), attempt: 1 }]);
        performer.stop();
        assert!(!performer.ended(id(1), 1, Ended::Done, at(1)), "a deposed leader proposes nothing");
        assert_eq!((performer.due(at(9)), performer.term()), (vec![], None));
    }

    #[test]
    fn a_leader_performs_nothing_before_it_has_applied_its_first_entry() {
        let mut performer = Performer::default();
        performer.lead(LEADING, Index(9), [id(1)]);
        performer.add(id(2));
        assert_eq!((performer.due(at(0)), performer.term()), (vec![], None), "1 may be completed in between");
        performer.lead(LEADING, Index(10), [id(2)]);
        assert_eq!(performer.due(at(0)), [Perform { id: id(2), attempt: 1 }]);
    }

    #[test]
    fn an_effect_is_performed_once_while_its_completion_is_not_applied() {
        let mut performer = leading([id(1)]);
        assert_eq!(performer.due(at(0)), [Perform { id: id(1), attempt: 1 }]);
        performer.add(id(1));
        assert_eq!(performer.due(at(1)), [], "it is under way");
        assert!(performer.ended(id(1), 1, Ended::Done, at(2)));
        assert!(!performer.ended(id(1), 1, Ended::Done, at(2)), "once");
        performer.add(id(1));
        assert_eq!((performer.due(at(40_000)), performer.wakes_at()), (vec![], None), "no limit on the proposal");
        performer.completed(id(1));
        performer.add(id(2));
        assert_eq!(performer.due(at(40_000)), [Perform { id: id(2), attempt: 1 }]);
    }

    #[test]
    fn the_rest_doubles_from_100_ms_to_60_s() {
        let (mut performer, mut now) = (leading([id(1)]), at(0));
        let mut rests = Vec::new();
        for attempt in 1..=13 {
            assert_eq!(performer.due(now), [Perform { id: id(1), attempt }]);
            let ended = if attempt % 2 == 0 { Ended::Panicked } else { Ended::Retry(None) };
            assert!(!performer.ended(id(1), attempt, ended, now));
            let wakes_at = performer.wakes_at().expect("it rests");
            assert_eq!(performer.due(at(wakes_at.0.as_millis() as u64 - 1)), [], "not before");
            rests.push(wakes_at.since(now).as_millis());
            now = wakes_at;
        }
        assert_eq!(rests, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn a_handler_chooses_its_rest_within_the_bounds() {
        for (after, rest) in [(5_000, 5_000), (1, 100), (3_600_000, 60_000)] {
            let mut performer = leading([id(1)]);
            performer.due(at(0));
            performer.ended(id(1), 1, Ended::Retry(Some(Duration::from_millis(after))), at(0));
            assert_eq!(performer.wakes_at(), Some(at(rest)));
        }
    }

    #[test]
    fn an_attempt_is_given_up_after_30_s_and_its_late_result_is_dropped() {
        let mut performer = leading([id(1)]);
        performer.due(at(0));
        assert_eq!((performer.wakes_at(), performer.due(at(29_999))), (Some(at(30_000)), vec![]));
        assert_eq!(performer.due(at(30_000)), [GiveUp { id: id(1) }]);
        assert!(!performer.ended(id(1), 1, Ended::Done, at(30_001)), "it was given up");
        assert_eq!(performer.due(at(30_100)), [Perform { id: id(1), attempt: 2 }]);
        assert!(!performer.ended(id(1), 1, Ended::Done, at(30_101)), "of an earlier attempt");
        assert!(performer.ended(id(1), 2, Ended::Done, at(30_102)));
    }

    #[test]
    fn at_most_64_have_a_place_and_one_that_rests_has_none() {
        let mut performer = leading((1..=70).map(id));
        let begun = performer.due(at(0));
        assert_eq!(begun, (1..=64).map(|nth| Perform { id: id(nth), attempt: 1 }).collect::<Vec<_>>());
        performer.ended(id(5), 1, Ended::Retry(None), at(1));
        assert_eq!(performer.due(at(1)), [Perform { id: id(65), attempt: 1 }]);
        performer.ended(id(6), 1, Ended::Done, at(2));
        assert_eq!(performer.due(at(2)), [], "its completion is not applied yet");
        performer.completed(id(6));
        assert_eq!(performer.due(at(2)), [Perform { id: id(66), attempt: 1 }]);
        assert_eq!(performer.due(at(101)), [], "5 has rested and waits for a place");
        performer.completed(id(1));
        assert_eq!(performer.due(at(101)), [Perform { id: id(5), attempt: 2 }], "the lowest id first");
    }

    #[test]
    fn an_effect_that_rests_or_waits_and_was_completed_is_forgotten() {
        let mut performer = leading([id(1), id(2)]);
        performer.due(at(0));
        performer.ended(id(1), 1, Ended::Panicked, at(0));
        performer.completed(id(1));
        performer.completed(id(2));
        assert_eq!((performer.due(at(90_000)), performer.wakes_at()), (vec![], None));
    }

    /// Seeds: handlers that end, fail, hang and panic, and completions that are applied late. No
    /// effect is performed twice at once, none is forgotten, the places are never exceeded, and a
    /// wake-up is never missed.
    #[test]
    fn every_effect_is_performed_until_it_is_completed() {
        use rand::{Rng, SeedableRng, rngs::StdRng};
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut performer, mut now, mut last) = (leading([]), 0, 0);
            let (mut running, mut completing, mut open) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
            for round in 0..3_000 {
                if round < 300 && rng.random_bool(0.5) {
                    last += 1;
                    open.insert(id(last));
                    performer.add(id(last));
                }
                for step in performer.due(at(now)) {
                    match step {
                        Perform { id, attempt } => {
                            assert_eq!(running.insert(id, (attempt, now)), None, "twice at once")
                        }
                        GiveUp { id } => {
                            let (_, began) = running.remove(&id).expect("it was performed");
                            assert!(now >= began + 30_000, "given up before its limit");
                        }
                    }
                }
                assert!(running.len() + completing.len() <= PLACES);
                let overdue = performer.wakes_at().filter(|wakes_at| *wakes_at <= at(now));
                assert_eq!(overdue, None, "all that is due was done");
                let ends: Vec<_> = running.iter().map(|(id, (attempt, _))| (*id, *attempt)).collect();
                for (id, attempt) in ends {
                    if rng.random_bool(0.9) {
                        continue;
                    }
                    // In the end none fails, so that all are completed within the longest rest.
                    let ended = match rng.random_range(if round < 1_000 { 0..4 } else { 2..4 }) {
                        0 => Ended::Retry(None),
                        1 => Ended::Panicked,
                        _ => Ended::Done,
                    };
                    running.remove(&id);
                    match performer.ended(id, attempt, ended, at(now)) {
                        true => completing.push(id),
                        false => assert_ne!(ended, Ended::Done),
                    }
                }
                for id in completing.extract_if(.., |_| rng.random_bool(0.3)) {
                    performer.completed(id);
                    assert!(open.remove(&id), "completed once");
                }
                now += rng.random_range(0..200);
            }
            assert_eq!((open.len(), performer.wakes_at()), (0, None), "seed {seed}: none is forgotten");
        }
    }

    fn leading(heads: impl IntoIterator<Item = EffectId>) -> Performer {
        let mut performer = Performer::default();
        performer.lead(LEADING, Index(10), heads);
        performer
    }

    fn id(index: u64) -> EffectId {
        EffectId { index: Index(index), nth: 0 }
    }

    fn at(ms: u64) -> Moment {
        Moment(Duration::from_millis(ms))
    }
}
