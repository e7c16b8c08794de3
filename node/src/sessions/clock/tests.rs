use super::*;
use quorate_raft::{BatchBuilder, Kind, tick::Tick};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::BTreeMap;

const STEP: Duration = Duration::from_millis(300);

#[test]
fn time_counts_from_contact_to_contact_with_the_leader_of_a_term() {
    let mut clock = LogClock::new(Index(0), STEP);
    clock.contact(Term(1), at(5_000));
    assert_eq!(clock.now(), LogTime(0), "nothing before the first contact");
    clock.contact(Term(1), at(5_040));
    clock.contact(Term(1), at(5_090));
    assert_eq!(clock.now(), LogTime(90));
    assert_eq!(clock.until(LogTime(100)), Duration::from_millis(10));
    assert_eq!(clock.until(LogTime(90)), Duration::ZERO);
}

#[test]
fn time_without_a_leader_does_not_count() {
    let mut clock = LogClock::new(Index(0), STEP);
    clock.contact(Term(1), at(0));
    clock.contact(Term(1), at(100));
    clock.contact(Term(2), at(350));
    assert_eq!(clock.now(), LogTime(100), "the leader of term 1 may have died a moment after");
    clock.contact(Term(2), at(360));
    assert_eq!(clock.now(), LogTime(110));
}

#[test]
fn one_step_counts_the_longest_election_timeout_at_most() {
    let mut clock = LogClock::new(Index(0), STEP);
    clock.contact(Term(1), at(0));
    clock.contact(Term(1), at(3_600_000));
    assert_eq!(clock.now(), LogTime(300));
    clock.contact(Term(1), at(10));
    assert_eq!(clock.now(), LogTime(300), "a clock that goes back counts nothing");
}

#[test]
fn a_leader_starts_from_the_highest_tick_in_its_log_and_what_it_heard_since() {
    let mut clock = LogClock::new(Index(0), STEP);
    clock.contact(Term(1), at(1_000));
    clock.written(None, Some(&tick(1, 5, 70_000)), false);
    clock.applied(Index(3), LogTime(60_000), false);
    clock.contact(Term(1), at(1_200));
    clock.contact(Term(2), at(1_900));
    assert_eq!(clock.now(), LogTime(70_200), "the tick is not applied yet, and counts");
    clock.applied(Index(5), LogTime(70_000), true);
    assert_eq!(clock.now(), LogTime(70_200));
}

#[test]
fn a_node_counts_anew_from_each_tick_of_another_one() {
    let mut clock = LogClock::new(Index(0), STEP);
    clock.contact(Term(1), at(0));
    for beat in 1..=10 {
        clock.contact(Term(1), at(beat * 110));
    }
    assert_eq!(clock.now(), LogTime(1_100), "this node's clock is fast");
    clock.written(None, Some(&tick(1, 1, 1_000)), false);
    assert_eq!(clock.now(), LogTime(1_000), "so the difference does not add up");
}

#[test]
fn a_node_counts_anew_from_a_tick_of_another_one_that_states_the_highest_time_again() {
    let mut clock = LogClock::new(Index(0), STEP);
    clock.written(None, Some(&tick(1, 1, 5_000)), false);
    clock.contact(Term(1), at(0));
    clock.contact(Term(1), at(40));
    // The leader of term 2 has counted nothing since that tick.
    clock.written(None, Some(&tick(2, 2, 5_000)), false);
    clock.contact(Term(3), at(900));
    assert_eq!(clock.now(), LogTime(5_000), "a timer that was set in term 2 waits for all of its time");
    clock.contact(Term(3), at(930));
    assert_eq!(clock.now(), LogTime(5_030));
    // A snapshot may have such a tick in it.
    clock.applied(Index(2), LogTime(5_000), false);
    clock.restores(Index(9), Index(9));
    assert_eq!(clock.now(), LogTime(5_000));
}

#[test]
fn a_leader_states_what_it_has_counted_and_keeps_the_rest() {
    let mut clock = LogClock::new(Index(0), STEP);
    clock.contact(Term(1), Moment(Duration::from_micros(0)));
    clock.contact(Term(1), Moment(Duration::from_micros(2_900)));
    clock.written(None, Some(&tick(1, 1, 2)), true);
    clock.contact(Term(1), Moment(Duration::from_micros(3_000)));
    assert_eq!((clock.highest(), clock.now()), (LogTime(2), LogTime(3)));
}

#[test]
fn a_tick_that_leaves_the_log_does_not_count() {
    let mut clock = LogClock::new(Index(0), STEP);
    clock.contact(Term(1), at(0));
    clock.written(None, Some(&tick(1, 1, 10)), false);
    clock.written(None, Some(&tick(1, 2, 5_000)), false);
    clock.written(Some(Index(2)), Some(&noop(2, 2)), false);
    assert_eq!((clock.highest(), clock.now()), (LogTime(10), LogTime(10)));
    clock.written(None, Some(&tick(2, 3, 20)), false);
    assert_eq!(clock.now(), LogTime(20), "the leader's word counts, even if another one said more");
}

#[test]
fn the_highest_time_is_known_once_the_log_that_was_found_is_applied_or_has_a_tick_after_it() {
    let found = || LogClock::new(Index(9), STEP);
    let mut clock = found();
    assert!(LogClock::new(Index(0), STEP).is_known() && !clock.is_known());
    clock.applied(Index(8), LogTime(50), false);
    assert!(!clock.is_known());
    clock.applied(Index(9), LogTime(70), false);
    assert!(clock.is_known());
    let mut clock = found();
    clock.written(None, Some(&noop(2, 10)), false);
    assert!(!clock.is_known());
    clock.written(None, Some(&tick(2, 11, 90)), false);
    assert!(clock.is_known());
    let mut clock = found();
    clock.applied(Index(4), LogTime(40), false);
    clock.written(Some(Index(5)), Some(&noop(2, 5)), false);
    assert!(clock.is_known(), "all of the rest was seen");
    clock.restores(Index(20), Index(20));
    assert!(!clock.is_known(), "the snapshot has a time of its own");
    clock.applied(Index(20), LogTime(900), false);
    assert_eq!((clock.is_known(), clock.now()), (true, LogTime(900)));
}

/// Three nodes whose clocks drift, leap and stand still, with leaders that are cut off and replaced,
/// and nodes that restart.
#[test]
fn log_time_lasts_as_long_as_real_time_up_to_drift_and_leaps() {
    let (mut ticks, mut terms) = (0, 0);
    for seed in 0..60 {
        let mut trial = Trial::new(seed);
        (0..1_500).for_each(|_| trial.step());
        ticks += trial.ticks;
        terms += trial.term.0;
    }
    assert!(ticks > 10_000 && terms > 300, "{ticks} ticks, {terms} terms");
}

/// Largest deviation of a clock from real time.
const DRIFT: f64 = 0.05;
const NODES: usize = 3;
/// Real time of one step of a trial.
const TURN: Duration = Duration::from_millis(5);

struct Trial {
    random: SmallRng,
    seed: u64,
    real: Duration,
    nodes: Vec<TrialNode>,
    term: Term,
    /// The nodes that lead, with the nodes that each reaches. An earlier leader may take a while to
    /// step down.
    leaders: Vec<Leader>,
    elects_at: Duration,
    commit: usize,
    /// Leaps of any clock, and stops of any node, so far.
    leaps: u32,
    stops: u32,
    /// Commands by term and index.
    commands: BTreeMap<(Term, usize), Command>,
    ticks: u32,
}

struct Leader {
    node: usize,
    term: Term,
    reaches: Vec<usize>,
    until: Duration,
}

#[derive(Clone, Copy)]
struct Command {
    time: LogTime,
    real: Duration,
    leaps: u32,
    stops: u32,
}

struct TrialNode {
    clock: LogClock,
    shows: Duration,
    rate: f64,
    stands_until: Duration,
    term: Term,
    /// The term, and the time of a tick.
    log: Vec<(Term, Option<LogTime>)>,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let node = |random: &mut SmallRng| TrialNode {
            clock: LogClock::new(Index(0), STEP),
            shows: Duration::from_millis(random.random_range(0..1_000_000)),
            rate: 1.0 + random.random_range(-DRIFT..DRIFT),
            stands_until: Duration::ZERO,
            term: Term(0),
            log: Vec::new(),
        };
        let nodes = (0..NODES).map(|_| node(&mut random)).collect();
        Self {
            random,
            seed,
            real: Duration::ZERO,
            nodes,
            term: Term(0),
            leaders: Vec::new(),
            elects_at: Duration::ZERO,
            commit: 0,
            leaps: 0,
            stops: 0,
            commands: BTreeMap::new(),
            ticks: 0,
        }
    }

    fn step(&mut self) {
        self.real += TURN;
        for node in &mut self.nodes {
            node.shows += TURN.mul_f64(node.rate);
        }
        let node = self.random.random_range(0..NODES);
        match self.random.random_range(0..2_000) {
            0..6 => {
                self.nodes[node].shows += Duration::from_secs(self.random.random_range(1..5_000));
                self.leaps += 1;
            }
            6..12 => {
                let stands = Duration::from_millis(self.random.random_range(10..3_000));
                self.nodes[node].stands_until = self.real + stands;
                self.stops += 1;
            }
            12..16 => self.restart(node),
            16..30 => self.cut_leader(),
            _ => {}
        }
        self.leaders.retain(|leader| leader.until > self.real);
        let leads = self.leaders.iter().any(|leader| leader.term == self.term);
        if !leads && self.real >= self.elects_at {
            self.elect();
        }
        for at in 0..self.leaders.len() {
            self.lead(at);
        }
    }

    /// A node loses all but its log.
    fn restart(&mut self, node: usize) {
        self.leaders.retain(|leader| leader.node != node);
        let this = &mut self.nodes[node];
        this.clock = LogClock::new(Index(this.log.len() as u64), STEP);
    }

    /// The leader reaches one follower at most, and steps down soon.
    fn cut_leader(&mut self) {
        let until = self.real + Duration::from_millis(self.random.random_range(1..300));
        let keeps = self.random.random_bool(0.5);
        if let Some(leader) = self.leaders.last_mut().filter(|leader| leader.reaches.len() > 1) {
            leader.until = until;
            leader.reaches.truncate(usize::from(keeps));
            self.elects_at = self.real + Duration::from_millis(self.random.random_range(0..2_000));
        }
    }

    /// The node with the best log of a majority leads the next term.
    fn elect(&mut self) {
        let absent = self.random.random_range(0..NODES);
        let mut voters: Vec<usize> = (0..NODES).filter(|node| *node != absent).collect();
        voters.retain(|node| self.nodes[*node].stands_until <= self.real);
        if voters.len() < 2 {
            return;
        }
        let log_of = |node: usize| (self.nodes[node].log.last().map(|entry| entry.0), self.nodes[node].log.len());
        let Some(node) = voters.iter().copied().max_by_key(|node| log_of(*node)) else { return };
        self.term = self.term.next();
        self.leaders.retain(|leader| leader.node != node);
        for leader in &mut self.leaders {
            leader.reaches.retain(|reached| !voters.contains(reached));
        }
        voters.iter().for_each(|voter| self.nodes[*voter].term = self.term);
        let reaches = (0..NODES).filter(|other| *other != node).collect();
        self.leaders.push(Leader { node, term: self.term, reaches, until: Duration::MAX });
        self.append(self.leaders.len() - 1, None);
    }

    fn append(&mut self, leader: usize, time: Option<LogTime>) {
        let Leader { node, term, .. } = self.leaders[leader];
        let this = &mut self.nodes[node];
        this.log.push((term, time));
        this.clock.written(None, Some(&entry(term, this.log.len(), time)), true);
    }

    fn lead(&mut self, at: usize) {
        let Leader { node, term, .. } = self.leaders[at];
        let this = &mut self.nodes[node];
        if this.stands_until > self.real || this.term > term {
            return;
        }
        this.clock.contact(term, Moment(this.shows));
        if this.clock.is_known() && this.clock.now() > this.clock.highest() && self.random.random_bool(0.5) {
            let time = this.clock.now();
            self.check(node, term, time);
            self.append(at, Some(time));
            if self.random.random_bool(0.2) {
                self.append(at, None);
                let command = Command { time, real: self.real, leaps: self.leaps, stops: self.stops };
                self.commands.insert((term, self.nodes[node].log.len()), command);
            }
        }
        if self.random.random_bool(0.3) {
            self.replicate(at);
        }
    }

    fn check(&mut self, node: usize, term: Term, time: LogTime) {
        self.ticks += 1;
        let log = &self.nodes[node].log;
        let before = log.iter().filter_map(|entry| entry.1).max().unwrap_or_default();
        assert!(time >= before, "seed {}: {time:?} after {before:?}", self.seed);
        for (index, (of, _)) in (1..).zip(log) {
            let Some(command) = self.commands.get(&(*of, index)) else { continue };
            let (lasted, took) = (time.since(command.time).as_secs_f64(), (self.real - command.real).as_secs_f64());
            let leaps = STEP.as_secs_f64() * f64::from(self.leaps - command.leaps);
            assert!(lasted <= took * (1.0 + DRIFT) + leaps + 0.002, "seed {}: {lasted} s in {took} s", self.seed);
            if *of == term && command.leaps == self.leaps && command.stops == self.stops {
                assert!(lasted >= took * (1.0 - DRIFT) - 0.002, "seed {}: {lasted} s in {took} s", self.seed);
            }
        }
    }

    fn replicate(&mut self, at: usize) {
        let Leader { node, term, ref reaches, .. } = self.leaders[at];
        let (log, mut holders) = (self.nodes[node].log.clone(), 1);
        for follower in reaches.clone() {
            let follower = &mut self.nodes[follower];
            if follower.stands_until > self.real || follower.term > term {
                continue;
            }
            follower.term = term;
            follower.clock.contact(term, Moment(follower.shows));
            let same = follower.log.iter().zip(&log).take_while(|(one, other)| one.0 == other.0).count();
            let mut from = (same < follower.log.len() && same < log.len()).then_some(Index(same as u64 + 1));
            if same < log.len() {
                follower.log.truncate(same);
            }
            for (index, (of, time)) in (1..).zip(&log).skip(same) {
                follower.log.push((*of, *time));
                follower.clock.written(from.take(), Some(&entry(*of, index, *time)), false);
            }
            holders += 1;
        }
        if holders > NODES / 2 && log.last().is_some_and(|entry| entry.0 == term) {
            self.commit = self.commit.max(log.len());
        }
        let up_to = self.random.random_range(0..=self.commit.min(log.len()));
        let time = log[..up_to].iter().filter_map(|entry| entry.1).max().unwrap_or_default();
        for (of, this) in self.nodes.iter_mut().enumerate() {
            if this.log.len() >= up_to && this.log[..up_to] == log[..up_to] {
                let is_leader = self.leaders.iter().any(|leader| leader.node == of && leader.term == this.term);
                this.clock.applied(Index(up_to as u64), time, is_leader);
            }
        }
    }
}

fn entry(term: Term, index: usize, time: Option<LogTime>) -> Batch {
    match time {
        Some(LogTime(ms)) => tick(term.0, index as u64, ms),
        None => noop(term.0, index as u64),
    }
}

fn tick(term: u64, index: u64, ms: u64) -> Batch {
    batch(term, index, Kind::Tick, &Tick { time: LogTime(ms), ..Tick::default() }.encode())
}

fn noop(term: u64, index: u64) -> Batch {
    batch(term, index, Kind::Noop, &[])
}

fn batch(term: u64, index: u64, kind: Kind, payload: &[u8]) -> Batch {
    let mut builder = BatchBuilder::new(|sum, bytes| sum + bytes.len() as u32, Term(term), Index(index), 0, 0);
    builder.push(kind, payload);
    builder.finish().expect("an entry")
}

fn at(ms: u64) -> Moment {
    Moment(Duration::from_millis(ms))
}
