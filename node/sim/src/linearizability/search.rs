//! The search for an order: Wing and Gong's, with Lowe's memory of earlier tries.
//!
//! From a state of the keys, place an operation that may come next and that is legal, and go on
//! from there; take it back when nothing can follow. An operation may come next if no other
//! completed one that is still to be placed ended before it began. Operations still to be placed
//! are kept in linked lists, so that placing and taking back cost O(1).
//!
//! These cuts reduce the search, and each is exact:
//! - **Observers at once.** An operation that changes nothing and is legal now is placed now: if an
//!   order exists, so does one with it here.
//! - **Memory.** A set of placed operations, with the state, is tried once. And since operations of
//!   unknown outcome are optional, a try is also hopeless if one that had used fewer of them was.
//! - **Unknown ones for a reason.** An operation of unknown outcome is placed only if something can
//!   follow that is pleased by what it changed, or that changes what it compared or a part of what
//!   it changed: else it could be placed later, or be left out.
//! - **Lost values.** A value that a completed operation still needs is not left if no operation
//!   can bring it back in time.
//! - **Dead writes first**, where all operations are on one key. If no operation left names the
//!   value of a write that may come next, that write can as well come before any other that may: it
//!   is then the only write to try. The exception: an operation that an unnamed value pleases could
//!   follow the write at once.
//!
//! The order of the choices follows a guess at the moments of the operations. It decides how soon
//! an order is found, never whether one exists.

use std::collections::HashMap;

use super::{
    problem::{Act, Held, Problem, State},
    search_state::{Choice, SearchState},
};

/// Decides a problem in at most about `steps_max` looks at an operation or at a remembered try;
/// returns the looks, too.
///
/// A search first tries the choices that its guess favours. Some guesses cost a thousand times
/// as much as others, so each gets a share of the steps, and shares grow. An answer is right
/// for every guess.
pub(super) fn decide(problem: &Problem, steps_max: u64) -> (Answer, u64) {
    let (mut steps, mut share) = (0, SHARE_MIN + SHARE_PER_OPERATION * problem.required.len() as u64);
    for attempt in 0.. {
        let mut search = Search { attempt, ..Search::new(problem, share.min(steps_max - steps)) };
        let answer = search.run();
        steps = (steps + search.steps).min(steps_max);
        if answer != Answer::OutOfSteps || steps == steps_max {
            return (answer, steps);
        }
        share += share / 4;
    }
    (Answer::OutOfSteps, steps)
}

/// Searches for an order that goes as far as possible in about `steps_max` looks.
pub(super) fn furthest(problem: &Problem, steps_max: u64) -> Furthest {
    let mut search = Search { furthest: Some(Furthest::default()), ..Search::new(problem, steps_max) };
    search.run();
    search.furthest.unwrap_or_default()
}

/// The steps of the first guess, and those added for each operation: most histories need fewer.
const SHARE_MIN: u64 = 1_000;
const SHARE_PER_OPERATION: u64 = 32;

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All completed operations are placed.
    Found,
    /// No order exists, as a complete search has shown.
    Impossible,
    /// The steps ran out before an answer was found.
    OutOfSteps,
}

/// The furthest point that an explaining search reached. Operations are positions in the history.
#[derive(Clone, Debug, Default)]
pub(super) struct Furthest {
    /// Operations in the order found.
    pub(super) placed: Vec<usize>,
    /// Completed operations, one of which would have to come next.
    pub(super) next: Vec<usize>,
    required_placed: usize,
}

/// One search through the orders of a problem.
struct Search<'a> {
    state: SearchState<'a>,
    /// The number of the guess that it follows.
    attempt: u64,
    steps: u64,
    steps_max: u64,
    /// Places with alternatives, from the start to here.
    nodes: Vec<Node>,
    /// By placed operations and state: the operations of unknown outcome used in each try. No
    /// set contains another.
    memory: HashMap<Position, Vec<Used>>,
    /// Set in a search that explains: it skips the cuts that look ahead, so that it goes far.
    furthest: Option<Furthest>,
}

/// The first completed operation that is not placed, the state, and bits for placed ones after it.
type Position = (usize, State, Box<[u64]>);

/// For each class with used operations, their number; sorted by class.
type Used = Box<[(u32, u32)]>;

/// A place in the order at which several operations can come next.
struct Node {
    /// The number of moves before the one that led here.
    mark: usize,
    /// Completed operations still to be tried, the next one last.
    required: Vec<u32>,
    /// The classes already tried; they come after the completed operations.
    classes_tried: usize,
    /// The only write to try, if there is one.
    dead_write: Option<usize>,
}

impl<'a> Search<'a> {
    fn new(problem: &'a Problem, steps_max: u64) -> Self {
        let (nodes, memory) = (Vec::new(), HashMap::new());
        Self { state: SearchState::new(problem), attempt: 0, steps: 0, steps_max, nodes, memory, furthest: None }
    }

    /// Runs the search; may be called once.
    fn run(&mut self) -> Answer {
        if self.furthest.is_none() && self.is_hopeless_from_the_start() {
            return Answer::Impossible;
        }
        if self.enter(0) {
            return Answer::Found;
        }
        while !self.nodes.is_empty() {
            if self.steps > self.steps_max {
                self.note_furthest();
                return Answer::OutOfSteps;
            }
            match self.next_choice() {
                Some(choice) => {
                    let mark = self.state.trail.len();
                    self.state.place(choice);
                    if self.enter(mark) {
                        return Answer::Found;
                    }
                }
                None => {
                    let mark = self.nodes.pop().map_or(0, |node| node.mark);
                    self.take_back_to(mark);
                }
            }
        }
        Answer::Impossible
    }

    fn is_hopeless_from_the_start(&self) -> bool {
        let problem = self.state.problem;
        problem.required.iter().any(|operation| operation.act.is_never())
            || (0..problem.held_count as Held).any(|held| !self.state.held.contains(&held) && self.state.is_lost(held))
    }

    /// Follows the move at `mark`: places the observers that are legal after it, then opens a node,
    /// or takes all back if there is nothing to try. True if nothing is left to be placed.
    fn enter(&mut self, mark: usize) -> bool {
        if self.furthest.is_none()
            && let Some(moved) = self.state.trail.get(mark)
            && moved.before.iter().any(|held| !self.state.held.contains(held) && self.state.is_lost(*held))
        {
            self.take_back_to(mark);
            return false;
        }
        self.place_observers();
        if self.state.first().is_none() {
            return true;
        }
        if self.remember() {
            let dead_write = if self.furthest.is_none() { self.dead_write() } else { None };
            let required = self.required_choices(dead_write);
            self.nodes.push(Node { mark, required, classes_tried: 0, dead_write });
        } else {
            self.take_back_to(mark);
        }
        false
    }

    fn take_back_to(&mut self, mark: usize) {
        self.note_furthest();
        self.state.take_back_to(mark);
    }

    fn place_observers(&mut self) {
        let mut next = self.state.first();
        while let Some(operation) = next
            && self.may_come_next(operation)
        {
            next = self.state.after(operation);
            let act = self.state.act(operation);
            if act.only_observes() && act.apply(self.state.held).is_some() {
                self.state.place(Choice::Required(operation));
            }
        }
    }

    /// Remembers the placed operations and the state; false if they were remembered before with a
    /// subset of the operations of unknown outcome used now.
    fn remember(&mut self) -> bool {
        let Some((first, window)) = self.state.placed_required() else { return true };
        let tries = self.memory.entry((first, self.state.held, window.into())).or_default();
        let taken = &self.state.taken;
        self.steps += tries.len() as u64;
        if tries.iter().any(|earlier| is_within(earlier, taken)) {
            return false;
        }
        tries.retain(|earlier| !is_within(taken, earlier));
        tries.push(taken.as_slice().into());
        true
    }

    fn dead_write(&mut self) -> Option<usize> {
        if !self.state.problem.is_of_one_key {
            return None;
        }
        let mut next = self.state.first();
        while let Some(operation) = next
            && self.may_come_next(operation)
        {
            if let Some(value) = self.state.act(operation).writes()
                && self.state.is_unnamed(value)
                && self.state.is_apart_from_easy(operation)
            {
                return Some(operation);
            }
            next = self.state.after(operation);
        }
        None
    }

    /// The next choice at the last node, if any is left.
    fn next_choice(&mut self) -> Option<Choice> {
        let node = self.nodes.last_mut()?;
        if let Some(operation) = node.required.pop() {
            return Some(Choice::Required(operation as usize));
        }
        let (from, only_dead_write) = (node.classes_tried, node.dead_write.is_some());
        let classes = &self.state.problem.classes;
        let class = (from..classes.len()).find(|&class| {
            let is_cut = only_dead_write && classes[class].act.writes().is_some();
            !is_cut && self.class_may_come_next(class) && self.is_of_use(class)
        })?;
        self.nodes.last_mut()?.classes_tried = class + 1;
        Some(Choice::Class(class))
    }

    /// The completed operations to try next, the most urgent one last, since it is tried first.
    fn required_choices(&mut self, dead_write: Option<usize>) -> Vec<u32> {
        let mut choices = Vec::new();
        let mut next = self.state.first();
        while let Some(operation) = next
            && self.may_come_next(operation)
        {
            let act = self.state.act(operation);
            let is_cut = act.writes().is_some() && dead_write.is_some_and(|only| only != operation);
            if !is_cut && act.apply(self.state.held).is_some() {
                choices.push(operation as u32);
            }
            next = self.state.after(operation);
        }
        choices.sort_by_key(|&operation| std::cmp::Reverse(self.guessed_moment(operation as usize)));
        if self.attempt.is_multiple_of(2)
            && let Some(urgent) = self.state.most_urgent()
            && let Some(at) = choices.iter().position(|&choice| choice as usize == urgent)
        {
            choices[at..].rotate_left(1);
        }
        choices
    }

    /// A guess at the moment of an operation. The first attempt takes the response, each other one
    /// draws a moment.
    fn guessed_moment(&self, operation: usize) -> u64 {
        let required = &self.state.problem.required[operation];
        match self.attempt {
            0 => required.responded,
            attempt => {
                required.invoked
                    + mixed(attempt, operation as u64) % (required.responded - required.invoked).saturating_add(1)
            }
        }
    }

    /// Whether the next operation of a class can matter to one that may follow soon, see
    /// [`Act::tells`](super::problem::Act::tells).
    fn is_of_use(&mut self, class: usize) -> bool {
        let classes = &self.state.problem.classes;
        let before = self.state.held;
        let act = classes[class].act;
        let Some(after) = act.apply(before).filter(|&after| after != before) else { return false };
        let tells = |later: Act| later.tells(act, before, after);
        let mut next = self.state.first();
        while let Some(operation) = next
            && self.may_come_next(operation)
        {
            if tells(self.state.act(operation)) {
                return true;
            }
            next = self.state.after(operation);
        }
        (0..classes.len()).any(|other| other != class && self.class_may_come_next(other) && tells(classes[other].act))
    }

    /// Asks the state, and counts the look as a step.
    fn may_come_next(&mut self, operation: usize) -> bool {
        self.steps += 1;
        self.state.may_come_next(operation)
    }

    fn class_may_come_next(&mut self, class: usize) -> bool {
        self.steps += 1;
        self.state.class_may_come_next(class)
    }

    fn note_furthest(&mut self) {
        let state = &self.state;
        let Some(furthest) = &mut self.furthest else { return };
        if state.required_placed < furthest.required_placed
            || (state.required_placed == furthest.required_placed && !furthest.next.is_empty())
        {
            return;
        }
        let mut used = vec![0; state.problem.classes.len()];
        let positions = state.trail.iter().map(|moved| match moved.choice {
            Choice::Required(operation) => state.problem.required[operation].position,
            Choice::Class(class) => {
                used[class] += 1;
                state.problem.classes[class].members[used[class] - 1].1
            }
        });
        let placed = positions.collect();
        let open = std::iter::successors(state.first(), |&operation| state.after(operation));
        let next = open.take_while(|&operation| state.may_come_next(operation));
        let next = next.map(|operation| state.problem.required[operation].position).collect();
        *furthest = Furthest { placed, next, required_placed: state.required_placed };
    }
}

/// A number that looks random and is the same in every run (Steele's SplitMix64).
fn mixed(seed: u64, number: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Whether `some` uses no operation that `others` does not. Both are sorted by class.
fn is_within(some: &[(u32, u32)], others: &[(u32, u32)]) -> bool {
    let mut others = others.iter();
    some.iter().all(|&(class, used)| others.find(|other| other.0 >= class).is_some_and(|o| o.0 == class && o.1 >= used))
}
