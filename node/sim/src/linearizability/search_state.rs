//! A partial order under construction: the operations placed, and the operations left. Every move
//! can be taken back at the cost of making it.

use super::{
    history::KEYS_MAX,
    problem::{Act, Held, Problem, State},
};

/// A partly placed problem.
pub(super) struct SearchState<'a> {
    pub(super) problem: &'a Problem,
    /// The state of the keys after all placed operations.
    pub(super) held: State,
    /// The moves, oldest first.
    pub(super) trail: Vec<Placed>,
    /// The number of completed operations that are placed.
    pub(super) required_placed: usize,
    /// For each class with placed operations, their number; sorted by class.
    pub(super) taken: Vec<(u32, u32)>,
    /// Completed operations still to be placed, by invocation.
    calls: Links,
    /// The same operations, by response.
    responses: Links,
    /// Those that are easy to please (see `Act`), by invocation.
    easy: Links,
    /// A bit for each placed completed operation.
    placed: Vec<u64>,
    /// For each completed operation, the number of those invoked no later than its response.
    reach: Vec<usize>,
    /// At index n, the earliest response of all but the n completed operations invoked first.
    earliest_response_after: Vec<u64>,
    /// The number of placed operations of each class.
    used: Vec<usize>,
    /// For each state, the completed operations still to be placed that need it, by response; each
    /// operation with one number for each key, see `of_key`.
    needers: Links,
    /// For each state, the completed operations still to be placed that make it, by invocation, in
    /// the same numbers.
    makers: Links,
    /// For each state, the classes that make it.
    maker_classes: Vec<Vec<usize>>,
    /// For each state, the number of operations still to be placed that name it.
    names: Vec<i64>,
}

/// The longest chain of needs that a guess follows.
const URGENT_CHAIN_MAX: usize = 16;

/// The choice made in one move.
#[derive(Clone, Copy)]
pub(super) enum Choice {
    /// A completed operation.
    Required(usize),
    /// The next operation of a class.
    Class(usize),
}

/// A move, with the data to take it back.
pub(super) struct Placed {
    pub(super) choice: Choice,
    /// The state of the keys before the move.
    pub(super) before: State,
}

impl<'a> SearchState<'a> {
    /// A board on which nothing is placed yet.
    pub(super) fn new(problem: &'a Problem) -> Self {
        let required = &problem.required;
        let count = required.len();
        let mut by_response: Vec<usize> = (0..count).collect();
        by_response.sort_by_key(|&operation| required[operation].responded);
        let easy = (0..count).filter(|&operation| required[operation].act.is_easy_to_please());
        let reach = required.iter().map(|one| required.partition_point(|other| other.invoked <= one.responded));
        let mut earliest_response_after = vec![u64::MAX; count + 1];
        for operation in (0..count).rev() {
            earliest_response_after[operation] =
                required[operation].responded.min(earliest_response_after[operation + 1]);
        }
        let mut needers = Links::empty(count * KEYS_MAX, problem.held_count);
        for &operation in &by_response {
            for (held, number) in of_key(operation, required[operation].act.needs()) {
                needers.append(held as usize, number);
            }
        }
        let mut makers = Links::empty(count * KEYS_MAX, problem.held_count);
        for (operation, one) in required.iter().enumerate() {
            for (held, number) in of_key(operation, one.act.makes()) {
                makers.append(held as usize, number);
            }
        }
        let mut state = Self {
            problem,
            held: problem.initial,
            trail: Vec::new(),
            required_placed: 0,
            taken: Vec::new(),
            calls: Links::one(count, 0..count),
            responses: Links::one(count, by_response),
            easy: Links::one(count, easy),
            placed: vec![0; count.div_ceil(64)],
            reach: reach.collect(),
            earliest_response_after,
            used: vec![0; problem.classes.len()],
            needers,
            makers,
            maker_classes: vec![Vec::new(); problem.held_count],
            names: vec![0; problem.held_count],
        };
        for operation in required {
            state.count_names(operation.act, 1);
        }
        for (number, class) in problem.classes.iter().enumerate() {
            state.count_names(class.act, class.members.len() as i64);
            for held in class.act.makes().into_iter().flatten() {
                state.maker_classes[held as usize].push(number);
            }
        }
        state
    }

    /// The completed operation with the earliest invocation that is still to be placed.
    pub(super) fn first(&self) -> Option<usize> {
        self.calls.first(0)
    }

    /// The next one after `operation`, by invocation.
    pub(super) fn after(&self, operation: usize) -> Option<usize> {
        self.calls.after(operation)
    }

    /// The act of a completed operation.
    pub(super) fn act(&self, operation: usize) -> Act {
        self.problem.required[operation].act
    }

    /// Whether a completed operation that is still to be placed may come next: none of the others
    /// ended before it began.
    pub(super) fn may_come_next(&self, operation: usize) -> bool {
        self.problem.required[operation].invoked <= self.first_response()
    }

    /// The same for the next operation of a class; false if none is left.
    pub(super) fn class_may_come_next(&self, class: usize) -> bool {
        let member = self.problem.classes[class].members.get(self.used[class]);
        member.is_some_and(|&(invoked, _)| invoked <= self.first_response())
    }

    /// Whether a completed operation still needs a key to hold `held`, and no operation that
    /// is left can restore that state in time.
    pub(super) fn is_lost(&self, held: Held) -> bool {
        let Some(needer) = self.needers.first(held as usize) else { return false };
        let made_until = self.problem.required[needer / KEYS_MAX].responded;
        let made = self.makers.first(held as usize).map(|maker| self.problem.required[maker / KEYS_MAX].invoked);
        let is_late = |invoked: u64| invoked > made_until;
        made.is_none_or(is_late)
            && self.maker_classes[held as usize].iter().all(|&class| {
                let member = self.problem.classes[class].members.get(self.used[class]);
                member.is_none_or(|&(invoked, _)| is_late(invoked))
            })
    }

    /// A guess at the best next operation: the one that has to end first, or an operation that
    /// makes the state it needs, or one that makes the state which that one needs, and so on, until
    /// one is legal.
    pub(super) fn most_urgent(&self) -> Option<usize> {
        let mut goal = self.responses.first(0)?;
        for _ in 0..URGENT_CHAIN_MAX {
            let act = self.act(goal);
            if act.apply(self.held).is_some() {
                return self.may_come_next(goal).then_some(goal);
            }
            goal = self.makers.first(act.lacks(self.held)? as usize)? / KEYS_MAX;
        }
        None
    }

    /// Whether no operation that is still to be placed names `held`.
    pub(super) fn is_unnamed(&self, held: Held) -> bool {
        self.names[held as usize] == 0
    }

    /// Whether no easy operation can directly follow an unplaced one: none is left, or some other
    /// operation must come between.
    pub(super) fn is_apart_from_easy(&self, operation: usize) -> bool {
        // While `operation` is not placed, none that is invoked after its response can be.
        let between_until = self.earliest_response_after[self.reach[operation]];
        self.easy.first(0).is_none_or(|easy| between_until < self.problem.required[easy].invoked)
    }

    /// The completed operations that are placed, in short: the first that is not, and bits for
    /// those near it.
    pub(super) fn placed_required(&self) -> Option<(usize, &[u64])> {
        // All before `first` are placed, and none that is invoked after its response.
        let first = self.first()?;
        Some((first, &self.placed[first / 64..self.reach[first].div_ceil(64)]))
    }

    /// Places an operation. The caller has checked that it may come next and is legal.
    pub(super) fn place(&mut self, choice: Choice) {
        let act = match choice {
            Choice::Required(operation) => {
                let act = self.act(operation);
                self.calls.remove(operation);
                self.responses.remove(operation);
                if act.is_easy_to_please() {
                    self.easy.remove(operation);
                }
                self.placed[operation / 64] |= 1 << (operation % 64);
                self.required_placed += 1;
                of_key(operation, act.needs()).for_each(|(_, number)| self.needers.remove(number));
                of_key(operation, act.makes()).for_each(|(_, number)| self.makers.remove(number));
                self.count_names(act, -1);
                act
            }
            Choice::Class(class) => {
                let act = self.problem.classes[class].act;
                self.set_used(class, self.used[class] + 1);
                self.count_names(act, -1);
                act
            }
        };
        self.trail.push(Placed { choice, before: self.held });
        self.held = act.apply(self.held).unwrap_or(self.held);
    }

    /// Takes moves back until `mark` of them are left.
    pub(super) fn take_back_to(&mut self, mark: usize) {
        while self.trail.len() > mark
            && let Some(Placed { choice, before }) = self.trail.pop()
        {
            self.held = before;
            match choice {
                Choice::Required(operation) => {
                    let act = self.act(operation);
                    self.count_names(act, 1);
                    of_key(operation, act.makes()).for_each(|(_, number)| self.makers.restore(number));
                    of_key(operation, act.needs()).for_each(|(_, number)| self.needers.restore(number));
                    self.required_placed -= 1;
                    self.placed[operation / 64] &= !(1 << (operation % 64));
                    if act.is_easy_to_please() {
                        self.easy.restore(operation);
                    }
                    self.responses.restore(operation);
                    self.calls.restore(operation);
                }
                Choice::Class(class) => {
                    self.count_names(self.problem.classes[class].act, 1);
                    self.set_used(class, self.used[class] - 1);
                }
            }
        }
    }

    fn first_response(&self) -> u64 {
        self.responses.first(0).map_or(u64::MAX, |operation| self.problem.required[operation].responded)
    }

    fn count_names(&mut self, act: Act, more: i64) {
        for held in act.names() {
            self.names[held as usize] += more;
        }
    }

    fn set_used(&mut self, class: usize, used: usize) {
        self.used[class] = used;
        match (self.taken.binary_search_by_key(&(class as u32), |&(class, _)| class), used) {
            (Ok(at), 0) => {
                self.taken.remove(at);
            }
            (Ok(at), _) => self.taken[at].1 = used as u32,
            (Err(at), _) => self.taken.insert(at, (class as u32, used as u32)),
        }
    }
}

/// The states of an operation by key, each with the operation's number for that key.
fn of_key(operation: usize, held: [Option<Held>; KEYS_MAX]) -> impl Iterator<Item = (Held, usize)> {
    (0..KEYS_MAX).filter_map(move |key| Some((held[key]?, operation * KEYS_MAX + key)))
}

/// Doubly linked lists of numbers below a bound, each number in at most one of them. Any can be
/// taken out, and be put back in the reverse order.
struct Links {
    /// After the numbers, one end for each list.
    next: Vec<u32>,
    previous: Vec<u32>,
    bound: usize,
}

impl Links {
    fn empty(bound: usize, lists: usize) -> Self {
        let alone: Vec<u32> = (0..(bound + lists) as u32).collect();
        Self { next: alone.clone(), previous: alone, bound }
    }

    fn one(bound: usize, order: impl IntoIterator<Item = usize>) -> Self {
        let mut links = Self::empty(bound, 1);
        order.into_iter().for_each(|number| links.append(0, number));
        links
    }

    fn append(&mut self, list: usize, number: usize) {
        let end = self.bound + list;
        self.previous[number] = self.previous[end];
        self.next[number] = end as u32;
        self.restore(number);
    }

    fn first(&self, list: usize) -> Option<usize> {
        self.after(self.bound + list)
    }

    fn after(&self, number: usize) -> Option<usize> {
        let next = self.next[number] as usize;
        (next < self.bound).then_some(next)
    }

    fn remove(&mut self, number: usize) {
        let (next, previous) = (self.next[number], self.previous[number]);
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
    }

    fn restore(&mut self, number: usize) {
        let (next, previous) = (self.next[number], self.previous[number]);
        self.next[previous as usize] = number as u32;
        self.previous[next as usize] = number as u32;
    }
}
