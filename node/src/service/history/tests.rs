use super::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

const WIDE: Bounds = Bounds { events: 1_000, bytes: 100_000 };

#[test]
fn a_cursor_gets_each_entry_after_its_position_once_and_whole() {
    let history = of(&[(3, &["a", "b"]), (5, &["a"]), (8, &["c"])], WIDE);
    assert_eq!(all(&history, 0, 9, &Topics::All), [(3, vec!["a", "b"]), (5, vec!["a"]), (8, vec!["c"])]);
    assert_eq!(all(&history, 3, 9, &Topics::All), [(5, vec!["a"]), (8, vec!["c"])], "entry 3 is not after 3");
    assert_eq!(all(&history, 4, 9, &Topics::All), [(5, vec!["a"]), (8, vec!["c"])]);
    assert_eq!(all(&history, 8, 9, &Topics::All), []);
}

#[test]
fn topics_select_all_one_or_a_prefix() {
    let history = of(&[(1, &["ab", "a"]), (2, &["b"]), (3, &["a", "abc"])], WIDE);
    assert_eq!(all(&history, 0, 3, &"a".into()), [(1, vec!["a"]), (3, vec!["a"])]);
    assert_eq!(all(&history, 0, 3, &Topics::Prefix("ab".into())), [(1, vec!["ab"]), (3, vec!["abc"])]);
    assert_eq!(all(&history, 0, 3, &Topics::Prefix(String::new())).len(), 3);
    assert_eq!(all(&history, 0, 3, &String::from("none").into()), []);
}

#[test]
fn a_position_advances_over_entries_that_are_not_selected() {
    let history = of(&[(3, &["a"]), (5, &["b"])], WIDE);
    assert_eq!(history.read(Index(3), Index(9), &"a".into()), Ok(Next::Nothing(Index(9))));
    assert_eq!(history.read(Index(9), Index(9), &"a".into()), Ok(Next::Nothing(Index(9))));
}

#[test]
fn a_position_ahead_of_the_node_waits_and_gets_nothing_old() {
    let history = of(&[(3, &["a"]), (5, &["a"])], WIDE);
    assert_eq!(history.read(Index(20), Index(9), &Topics::All), Ok(Next::Nothing(Index(20))));
}

#[test]
fn a_read_looks_at_a_bounded_number_of_entries_and_goes_on_from_there() {
    let mut history = History::default();
    let last = READ_MAX as u64 + 10;
    for index in 1..=last {
        history.append(
            Index(index),
            LogTime(0),
            events(&[if index == last { "rare" } else { "common" }]),
            1,
            WIDE_EVENTS,
            |_, _| {},
        );
    }
    assert_eq!(history.read(Index(0), Index(last), &"rare".into()), Ok(Next::Nothing(Index(READ_MAX as u64))));
    assert_eq!(all(&history, 0, last, &"rare".into()), [(last, vec!["rare"])]);
}

const WIDE_EVENTS: Bounds = Bounds { events: 10_000, bytes: 10_000 };

#[test]
fn whole_entries_are_evicted_and_the_floor_is_the_highest_of_them() {
    let bounds = Bounds { events: 4, bytes: 100_000 };
    let history = of(&[(3, &["a", "b"]), (5, &["c", "d"]), (8, &["e"])], bounds);
    assert_eq!((history.floor(), history.len()), (Index(3), 3), "one event too many takes a whole entry");
    for position in 0..3 {
        let read = history.read(Index(position), Index(9), &"none".into());
        assert_eq!(read, Err(Gone { floor: Index(3) }), "even if none of them is selected");
    }
    assert_eq!(all(&history, 3, 9, &Topics::All), [(5, vec!["c", "d"]), (8, vec!["e"])], "complete after the floor");
}

#[test]
fn the_newest_entry_stays_however_large() {
    let mut history = History::default();
    history.append(Index(1), LogTime(0), events(&["a"]), 3, Bounds { events: 4, bytes: 10 }, |_, _| {});
    history.append(Index(2), LogTime(0), events(&["b"]), 1_000, Bounds { events: 4, bytes: 10 }, |_, _| {});
    assert_eq!((history.floor(), history.len()), (Index(1), 1));
    history.append(Index(3), LogTime(0), events(&["c"]), 10, Bounds { events: 4, bytes: 10 }, |_, _| {});
    assert_eq!((history.floor(), all(&history, 2, 3, &Topics::All)), (Index(2), vec![(3, vec!["c"])]));
}

#[test]
fn lower_bounds_evict_at_once() {
    let mut history = of(&[(1, &["a"]), (2, &["b"]), (3, &["c"])], WIDE);
    history.evict(Bounds { events: 2, bytes: 100 }, |_, _| {});
    assert_eq!((history.floor(), history.len()), (Index(1), 2));
    history.evict(Bounds { events: 0, bytes: 0 }, |_, _| {});
    assert_eq!((history.floor(), history.len()), (Index(2), 1), "the newest entry stays");
}

#[test]
fn a_service_without_events_is_never_gone() {
    let mut history = History::<String>::default();
    (1..100).for_each(|index| {
        history.append(Index(index), LogTime(index), [], 0, Bounds { events: 0, bytes: 0 }, |_, _| {})
    });
    assert_eq!(history.read(Index(0), Index(99), &Topics::All), Ok(Next::Nothing(Index(99))));
}

/// With seeds: a copy stays as it was, a restored history equals the one that was written, and every
/// cursor gets what a list of all entries has after it, or learns that it is gone.
#[test]
fn every_cursor_gets_what_a_list_of_all_entries_has() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut history, mut list, mut index) = (History::default(), Vec::new(), 0);
        let mut evicted = Vec::new();
        let bounds = Bounds { events: rng.random_range(1..20), bytes: rng.random_range(1..60) };
        for _ in 0..60 {
            index += rng.random_range(1..4);
            let topics: Vec<_> =
                (0..rng.random_range(0..4)).map(|_| ["a", "ab", "b"][rng.random_range(0..3)]).collect();
            let bytes = bytes_of(&topics);
            let (copy, before) = (history.clone(), written(&history));
            history.append(Index(index), LogTime(index), events(&topics), bytes, bounds, |index, topic| {
                evicted.push((index.0, topic.to_owned()));
            });
            assert_eq!(written(&copy), before, "a copy does not change");
            if !topics.is_empty() {
                list.push((index, topics));
            }
            check(&history, &list, index, bounds);
            let gone = list.iter().filter(|(index, _)| Index(*index) <= history.floor());
            let gone: Vec<_> =
                gone.flat_map(|(index, of)| of.iter().map(|topic| (*index, (*topic).to_owned()))).collect();
            assert_eq!(evicted, gone, "each evicted event was told");
        }
    }
}

/// A long queue, through copies: the persistent vector under it grows and shrinks by whole levels.
#[test]
fn a_long_history_keeps_its_order_while_it_is_copied_and_evicted() {
    let mut history = History::default();
    let (mut copies, mut index) = (Vec::new(), 0);
    for kept in [20_000, 3, 9_000, 1] {
        for _ in 0..30_000 {
            index += 1;
            let bounds = Bounds { events: kept, bytes: u32::MAX };
            history.append(Index(index), LogTime(0), events(&["a"]), 1, bounds, |_, _| {});
            if index % 7_001 == 0 {
                copies.push((index, history.clone()));
            }
        }
        copies.push((index, history.clone()));
    }
    for (last, copy) in copies {
        let floor = copy.floor();
        let indexes: Vec<_> = copy.topics_after(floor).map(|(index, _)| index.0).collect();
        assert!(indexes.iter().copied().eq(floor.0 + 1..=last), "after {floor} up to {last}");
        for position in (floor.0..=last).step_by(613) {
            assert!(copy.topics_after(Index(position)).map(|(index, _)| index.0).eq(position + 1..=last));
        }
    }
}

fn check(history: &History<String>, list: &[(u64, Vec<&'static str>)], applied: u64, bounds: Bounds) {
    let kept = list.iter().filter(|(index, _)| Index(*index) > history.floor());
    let sizes: Vec<_> = kept.map(|(_, topics)| (topics.len() as u64, bytes_of(topics))).collect();
    let (events, bytes) = sizes.iter().fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
    assert_eq!((history.events, history.bytes), (events, bytes));
    assert!(sizes.len() <= 1 || events <= u64::from(bounds.events) && bytes <= u64::from(bounds.bytes));
    let evicted = list.iter().filter(|(index, _)| Index(*index) <= history.floor()).map(|(index, _)| *index);
    assert_eq!(evicted.max().unwrap_or(0), history.floor().0, "the floor is the last that was evicted");
    let bytes = written(history);
    let restored = History::read_from(&mut Reader::new(&mut &bytes[..])).expect("a history");
    assert_eq!(restored, *history);
    for topics in [Topics::All, "a".into(), Topics::Prefix("a".into())] {
        for position in 0..=applied + 1 {
            if Index(position) < history.floor() {
                let gone = Err(Gone { floor: history.floor() });
                assert_eq!(history.read(Index(position), Index(applied), &topics), gone);
                continue;
            }
            let after = list.iter().filter(|(index, _)| *index > position);
            let selected = after.map(|(index, of)| {
                (*index, of.iter().copied().filter(|topic| topics.select(topic)).collect::<Vec<_>>())
            });
            let expected: Vec<_> = selected.filter(|(_, of)| !of.is_empty()).collect();
            assert_eq!(all(&restored, position, applied, &topics), expected);
        }
    }
}

#[test]
fn a_damaged_history_is_refused_or_is_another_one() {
    let good = written(&of(&[(3, &["a", "b"]), (5, &["c"])], Bounds { events: 3, bytes: 100 }));
    let read = |bytes: &[u8]| History::<String>::read_from(&mut Reader::new(&mut &bytes[..]));
    (0..good.len()).for_each(|end| assert!(read(&good[..end]).is_err(), "cut at {end}"));
    for bit in 0..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(history) = read(&damaged) {
            assert!(damaged.starts_with(&written(&history)), "bit {bit} has two meanings");
        }
    }
}

fn of(entries: &[(u64, &[&'static str])], bounds: Bounds) -> History<String> {
    let mut history = History::default();
    for (index, topics) in entries {
        history.append(Index(*index), LogTime(index * 10), events(topics), bytes_of(topics), bounds, |_, _| {});
    }
    history
}

/// An event of each topic, with the topic as its text.
fn events(topics: &[&'static str]) -> Vec<Published<String>> {
    topics.iter().map(|topic| ((*topic).into(), Arc::new((*topic).into()))).collect()
}

fn bytes_of(topics: &[&str]) -> u64 {
    topics.iter().map(|topic| 2 * topic.len() as u64 + 1).sum()
}

/// All that a cursor at `position` gets: each entry's index and topics.
fn all(history: &History<String>, position: u64, applied: u64, topics: &Topics) -> Vec<(u64, Vec<&'static str>)> {
    let (mut position, mut got) = (Index(position), Vec::new());
    loop {
        match history.read(position, Index(applied), topics).expect("nothing after it was evicted") {
            Next::Nothing(reached) if reached >= Index(applied) => return got,
            Next::Nothing(reached) => position = reached,
            Next::Changes(changes) => {
                assert!(changes.index > position);
                let topics = changes.events.iter().map(|(topic, event)| {
                    assert_eq!(**topic, **event);
                    ["a", "ab", "abc", "b", "c", "d", "e", "rare", "common"]
                        .into_iter()
                        .find(|known| *known == &**topic)
                });
                got.push((changes.index.0, topics.map(|topic| topic.expect("a topic of these tests")).collect()));
                position = changes.index;
            }
        }
    }
}

fn written(history: &History<String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    history.write(&mut bytes).expect("memory takes everything");
    bytes
}
