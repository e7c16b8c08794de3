//! The comparison of the copies of a service: some copies on one log, one of which computes something
//! else for a time.
//!
//! The machines and the decisions about claims are the product's. The log is a list of committed
//! entries, and its leader changes at random: elections, replication and disks have the walk for
//! them. The indexes of the log leap, so that windows end soon. Messages with claims get lost,
//! copies crash, take snapshots, and get those of others.
//!
//! Properties:
//! - **The minority stops.** No copy stops but the one that computed something else, and for a window
//!   in which it did; of two copies none stops.
//! - **No doubtful state spreads.** No snapshot is sent by a copy that a majority does not agree with,
//!   while copies can claim.
//! - **A difference ends with its window.** Once all copies compute the same again, and a window
//!   later, no copy reports a difference, and each has claimed that window.

use quorate::{
    At, Context, Hosted, Index, NodeId, Service, State, StateMachine, Term, WriteState,
    decisions::claims::{Claims, Step, View},
    service::{internal::Internal, windows::window_of},
};
use quorate_raft::Moment;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

/// The steps with faults.
const STEPS: u64 = 500;
/// The most that one index is after the one before.
const LEAP_MAX: u64 = 250;

/// Checks the copies of one seed. Gives counts of what happened.
///
/// # Errors
/// The property that does not hold.
pub(super) fn check(seed: u64) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        world.now = Moment(Duration::from_millis(step));
        world.step()?;
    }
    world.rest()?;
    Ok(world.counts)
}

/// A counter of its commands. A command names the copy that answers it wrongly.
#[derive(Default)]
struct Counter {
    node: u64,
    count: u64,
}

impl Service for Counter {
    quorate::types!(u64 => u64, () => u64);

    fn apply(&mut self, odd: u64, _: &mut Context<'_, Self>) -> u64 {
        self.count += 1;
        self.count + u64::from(odd == self.node)
    }

    fn query(&self, (): (), _: At) -> u64 {
        self.count
    }
}

impl State for Counter {
    fn save(&self) -> WriteState {
        let count = self.count;
        Box::new(move |to| to.write_all(&count.to_le_bytes()))
    }

    fn load(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        let mut count = [0; 8];
        from.read_exact(&mut count)?;
        self.count = u64::from_le_bytes(count);
        Ok(())
    }
}

enum Content {
    /// A command that this copy answers wrongly; 0 is none.
    Command(u64),
    Claim(Vec<u8>),
}

#[derive(Clone)]
struct Snapshot {
    /// The entries that it covers.
    entries: usize,
    ends: Index,
    bytes: Vec<u8>,
    wrong_in: BTreeSet<u64>,
}

struct Copy {
    node: u64,
    /// `None` while it waits for the state of another one.
    machine: Option<Hosted<Counter>>,
    /// The entries that were applied.
    applied: usize,
    claims: Claims,
    snapshot: Option<Snapshot>,
    /// The windows in which a command was answered wrongly on the way to its state, here or at the
    /// copy that sent the state.
    wrong_in: BTreeSet<u64>,
    /// It stopped, as it diverged.
    is_stopped: bool,
    reports: bool,
    claimed: BTreeMap<NodeId, BTreeSet<u64>>,
}

struct World {
    random: SmallRng,
    now: Moment,
    term: u64,
    leader: usize,
    log: Vec<(Index, Content)>,
    /// The full copies, then a learner.
    copies: Vec<Copy>,
    full_copies: u64,
    /// The copy that answers wrongly, and the windows in which it does.
    odd: u64,
    odd_in: BTreeSet<u64>,
    counts: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed ^ 0xc0_1e5);
        let full_copies = random.random_range(2..=4);
        let copies = (1..=full_copies + 1).map(|node| Copy::new(node, full_copies)).collect();
        let odd = random.random_range(1..=full_copies);
        let first = random.random_range(0..8);
        let odd_in = (first..first + random.random_range(1..4)).collect();
        let log = Vec::new();
        let (now, counts) = (Moment::default(), BTreeMap::new());
        Self { random, now, term: 1, leader: 0, log, copies, full_copies, odd, odd_in, counts }
    }

    fn step(&mut self) -> Result<(), String> {
        let at = self.random.random_range(0..self.copies.len());
        match self.random.random_range(0..100) {
            0..35 => self.append_command(),
            35..70 => {
                let more = self.random.random_range(1..8);
                self.apply(at, more)?;
            }
            70..86 => {
                let is_lost = self.random.random_range(0..5) == 0;
                self.claim(at, is_lost);
            }
            86..89 => self.elect(),
            89..92 => self.take_snapshot(at),
            92..98 => self.send_snapshot(at)?,
            _ => self.restart(at),
        }
        Ok(())
    }

    /// All copies come back, apply everything and claim, for as many windows as heal a difference.
    fn rest(&mut self) -> Result<(), String> {
        self.odd_in.clear();
        let end = self.last() + 4 * 1_024;
        for node in 0..self.copies.len() {
            if self.copies[node].is_stopped {
                self.discard(node);
            }
        }
        while self.last() < end {
            self.append_command();
            for at in 0..self.copies.len() {
                // A second between two claims, so that a lost one is stated again.
                self.now = self.now.plus(Duration::from_secs(2));
                self.elect_if_none();
                self.apply(at, usize::MAX)?;
                self.claim(at, false);
                self.take_snapshot(self.leader);
                self.send_snapshot(at)?;
                if self.copies[at].is_stopped {
                    self.discard(at);
                }
            }
        }
        let mut ended = 0;
        while std::mem::replace(&mut ended, self.last()) < self.last() {
            for at in 0..self.copies.len() {
                self.now = self.now.plus(Duration::from_secs(2));
                self.apply(at, usize::MAX)?;
                self.claim(at, false);
            }
        }
        for copy in self.copies.iter().filter(|copy| copy.machine.is_some()) {
            if copy.reports {
                return Err(format!("a difference ends: copy {} reports one that is over", copy.node));
            }
            let windows = self.log.iter().map(|(index, _)| window_of(*index));
            let over = windows.rev().find(|window| *window < window_of(Index(self.last())));
            for node in (1..=self.full_copies).filter(|node| self.copies[*node as usize - 1].machine.is_some()) {
                let is_claimed =
                    over.is_none_or(|over| copy.claimed.get(&NodeId(node)).is_some_and(|of| of.contains(&over)));
                if !is_claimed {
                    return Err(format!(
                        "every window is claimed: {node} did not claim {over:?}, by copy {}",
                        copy.node
                    ));
                }
            }
        }
        Ok(())
    }

    fn last(&self) -> u64 {
        self.log.last().map_or(0, |(index, _)| index.0)
    }

    fn append(&mut self, content: Content) {
        // As in a real log, claims alone end no window for ever.
        let leap = if matches!(content, Content::Claim(_)) { 1 } else { self.random.random_range(1..=LEAP_MAX) };
        let index = self.last() + leap;
        self.log.push((Index(index), content));
    }

    fn append_command(&mut self) {
        let next = window_of(Index(self.last() + LEAP_MAX / 2));
        let is_odd = self.odd_in.contains(&next) && self.random.random_range(0..2) == 0;
        self.append(Content::Command(if is_odd { self.odd } else { 0 }));
    }

    fn apply(&mut self, at: usize, more: usize) -> Result<(), String> {
        let (log, copy, term) = (&self.log, &mut self.copies[at], Term(1));
        if copy.is_stopped || copy.machine.is_none() {
            return Ok(());
        }
        for (index, content) in log.iter().skip(copy.applied).take(more) {
            let Some(machine) = &mut copy.machine else { break };
            let at = At { index: *index, term, ..At::default() };
            match content {
                Content::Command(odd) => {
                    if *odd == copy.node {
                        copy.wrong_in.insert(window_of(*index));
                    }
                    machine.apply(&at, &Hosted::<Counter>::encode(odd));
                }
                Content::Claim(payload) => machine.internal(&at, payload),
            }
            copy.applied += 1;
            if let Some(failure) = machine.diverged() {
                copy.is_stopped = true;
                *self.counts.entry("copies that diverged").or_default() += 1;
                let quorate::Failure::Diverged { up_to, .. } = failure else {
                    return Err(format!("the minority stops: copy {} ended by {failure}", copy.node));
                };
                let node = copy.node;
                if node != self.odd || self.full_copies < 3 || !self.is_odd_in(window_of(up_to)) {
                    return Err(format!("the minority stops: copy {node} of {} at {failure}", self.full_copies));
                }
                return Ok(());
            }
        }
        copy.compare();
        Ok(())
    }

    /// Whether the odd copy answers a command of this window wrongly.
    fn is_odd_in(&self, window: u64) -> bool {
        let is_odd = |content: &Content| matches!(content, Content::Command(odd) if *odd != 0);
        self.log.iter().any(|(index, content)| window_of(*index) == window && is_odd(content))
    }

    fn view_of(&self, at: usize) -> View {
        let is_leader = at == self.leader && !self.copies[at].is_stopped;
        let leader = (!is_leader && !self.copies[self.leader].is_stopped).then(|| self.copies[self.leader].id());
        View { this: self.copies[at].id(), term: Term(self.term), is_leader, leader }
    }

    fn claim(&mut self, at: usize, is_lost: bool) {
        if self.copies[at].is_stopped {
            return;
        }
        let view = self.view_of(at);
        match self.copies[at].claims.next(|| self.now, &view) {
            Step::None => {}
            Step::Append(payloads) => payloads.iter().for_each(|payload| self.append(Content::Claim(payload.to_vec()))),
            Step::State { payloads, .. } => {
                let (from, leads) = (self.copies[at].id(), self.view_of(self.leader));
                let current = window_of(Index(self.last()));
                for payload in payloads.iter().filter(|_| !is_lost) {
                    let Some(Internal::Claim(claimed)) = Internal::decode(payload) else { continue };
                    if self.copies[self.leader].claims.heard(from, claimed.window, current, &leads) {
                        self.append(Content::Claim(payload.to_vec()));
                    }
                }
            }
        }
    }

    /// Another copy with the whole log leads.
    fn elect(&mut self) {
        let can_lead = |at: &usize| !self.copies[*at].is_stopped && self.copies[*at].machine.is_some();
        let able: Vec<_> = (0..self.full_copies as usize).filter(can_lead).collect();
        if let Some(at) = able.get(self.random.random_range(0..able.len().max(1))) {
            (self.leader, self.term) = (*at, self.term + 1);
        }
    }

    fn elect_if_none(&mut self) {
        if self.copies[self.leader].is_stopped || self.copies[self.leader].machine.is_none() {
            self.elect();
        }
    }

    fn take_snapshot(&mut self, at: usize) {
        let copy = &mut self.copies[at];
        let Some(machine) = copy.machine.as_ref().filter(|_| !copy.is_stopped && copy.applied > 0) else { return };
        let mut bytes = Vec::new();
        if let Some(write) = machine.snapshot()
            && write(&mut bytes).is_ok()
        {
            let ends = self.log[copy.applied - 1].0;
            copy.snapshot = Some(Snapshot { entries: copy.applied, ends, bytes, wrong_in: copy.wrong_in.clone() });
        }
    }

    /// The leader sends its snapshot to a copy that is far behind, or has no state.
    fn send_snapshot(&mut self, to: usize) -> Result<(), String> {
        let leader = self.leader;
        let Some(snapshot) = self.copies[leader].snapshot.clone() else { return Ok(()) };
        let (receiver, is_lost) = (self.copies[to].id(), self.copies[to].machine.is_none());
        let is_needed = is_lost || self.copies[to].applied < snapshot.entries;
        if to == leader || self.copies[to].is_stopped || self.copies[leader].is_stopped || !is_needed {
            return Ok(());
        }
        let sender = &mut self.copies[leader].claims;
        if is_lost {
            sender.state_lost(receiver);
        } else {
            sender.acknowledged(receiver);
        }
        if snapshot.ends < sender.ends_at_least(receiver) {
            return Ok(());
        }
        let running = |copy: &&Copy| copy.node <= self.full_copies && !copy.is_stopped && copy.machine.is_some();
        let claimants: Vec<_> = self.copies.iter().filter(running).map(Copy::id).collect();
        let (now, mut claims) = (self.now, std::mem::take(&mut self.copies[leader].claims));
        // Once before its file is opened, and once after.
        let may_send = (0..2).all(|_| {
            let parties = (Term(self.term), self.copies[leader].id(), receiver);
            claims.may_send(now, parties, snapshot.ends, claimants.iter().copied())
        });
        if may_send {
            claims.snapshot_sent(receiver);
        }
        self.copies[leader].claims = claims;
        if !may_send {
            *self.counts.entry("snapshots held back").or_default() += 1;
            return Ok(());
        }
        let others = claimants.iter().filter(|node| **node != receiver && **node != self.copies[leader].id()).count();
        let is_faulty = self.now < Moment(Duration::from_millis(STEPS));
        if is_faulty && others > 0 && !is_lost && self.is_doubtful(leader, snapshot.ends) {
            let from = self.copies[leader].node;
            return Err(format!(
                "no doubtful state spreads: {from} sends the state at {} to {receiver}",
                snapshot.ends
            ));
        }
        *self.counts.entry("states sent to other copies").or_default() += 1;
        let node = self.copies[to].node;
        let mut machine = machine_of(node);
        let restored = machine.restore(&mut &snapshot.bytes[..]);
        restored.map_err(|error| format!("snapshots: {node} does not read one: {error}"))?;
        machine.received();
        machine.configured(NodeId(node), ids(self.full_copies));
        let copy = &mut self.copies[to];
        copy.wrong_in.clone_from(&snapshot.wrong_in);
        (copy.machine, copy.applied, copy.snapshot) = (Some(machine), snapshot.entries, Some(snapshot));
        copy.compare();
        Ok(())
    }

    /// Whether no majority of the full copies answers as the state of this one has it, in each window
    /// that is over, from the last one before this index.
    fn is_doubtful(&self, at: usize, ends: Index) -> bool {
        let copy = &self.copies[at];
        let over = self.log[..copy.applied].last().map_or(0, |(index, _)| window_of(*index));
        let windows: BTreeSet<_> =
            self.log.iter().map(|(index, _)| window_of(*index)).filter(|window| *window < over).collect();
        let Some(from) = windows.range(..window_of(ends)).next_back() else { return false };
        let is_of_majority = |window: &u64| {
            let alike = if copy.wrong_in.contains(window) { 1 } else { self.full_copies - 1 };
            !self.is_odd_in(*window) || alike * 2 > self.full_copies
        };
        !windows.range(from..).any(is_of_majority)
    }

    /// A copy crashes, and starts with its own snapshot, or its operator discards its state.
    fn restart(&mut self, at: usize) {
        if self.copies[at].is_stopped && self.random.random_range(0..2) == 0 {
            return self.discard(at);
        }
        let full_copies = self.full_copies;
        let copy = &mut self.copies[at];
        if copy.machine.is_none() {
            return;
        }
        let snapshot = copy.snapshot.clone();
        *copy = Copy::new(copy.node, full_copies);
        let id = copy.id();
        if let (Some(snapshot), Some(machine)) = (snapshot, &mut copy.machine)
            && machine.restore(&mut &snapshot.bytes[..]).is_ok()
        {
            machine.configured(id, ids(full_copies));
            copy.wrong_in.clone_from(&snapshot.wrong_in);
            (copy.applied, copy.snapshot) = (snapshot.entries, Some(snapshot));
            copy.compare();
        }
        if at == self.leader {
            self.elect();
        }
    }

    fn discard(&mut self, at: usize) {
        let copy = &mut self.copies[at];
        *copy = Copy { machine: None, ..Copy::new(copy.node, self.full_copies) };
        self.elect_if_none();
    }
}

impl Copy {
    fn new(node: u64, full_copies: u64) -> Self {
        let mut machine = machine_of(node);
        machine.configured(NodeId(node), ids(full_copies));
        Self {
            node,
            machine: Some(machine),
            applied: 0,
            claims: Claims::default(),
            snapshot: None,
            wrong_in: BTreeSet::new(),
            is_stopped: false,
            reports: false,
            claimed: BTreeMap::new(),
        }
    }

    fn id(&self) -> NodeId {
        NodeId(self.node)
    }

    /// The machine tells its comparison.
    fn compare(&mut self) {
        if let Some(comparison) = self.machine.as_mut().and_then(StateMachine::comparison) {
            self.reports = comparison.disagreement.is_some();
            self.claimed.clone_from(&comparison.claimed);
            self.claims.compared(comparison);
        }
    }
}

fn machine_of(node: u64) -> Hosted<Counter> {
    Hosted::new(move || Counter { node, count: 0 })
}

fn ids(full_copies: u64) -> BTreeSet<NodeId> {
    (1..=full_copies).map(NodeId).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_that_failed_once_hold() {
        // Two copies that got a state in the window that differs; one that passes the state of another on.
        for seed in [38_547, 60_077, 35_297] {
            check(seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        }
    }

    #[test]
    fn copies_are_compared_as_they_should_and_everything_happens() {
        let mut counts = BTreeMap::new();
        for seed in 0..100 {
            let of_seed = check(seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
            of_seed.into_iter().for_each(|(what, count)| *counts.entry(what).or_insert(0) += count);
        }
        for what in ["copies that diverged", "snapshots held back", "states sent to other copies"] {
            assert!(counts.get(what).is_some_and(|count| *count > 5), "{what}: {counts:?}");
        }
    }
}
