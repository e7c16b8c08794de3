use super::*;
use rand::{Rng, SeedableRng, rngs::SmallRng};

#[test]
fn it_admits_the_callers_that_a_plain_count_would() {
    for seed in 0..200 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (places, bytes) = (random.random_range(1..6), random.random_range(1..200));
        let (of_client, bytes_of_client) = (random.random_range(1..6), random.random_range(1..200));
        let admission = Admission::new(places, bytes);
        let clients: Vec<ClientQuota> = (0..2).map(|_| Admission::client_quota(of_client, bytes_of_client)).collect();
        let mut inside: Vec<(Option<usize>, usize, Permit)> = Vec::new();
        for step in 0..200 {
            if random.random_bool(0.4) && !inside.is_empty() {
                drop(inside.swap_remove(random.random_range(0..inside.len())));
                continue;
            }
            let client = [None, Some(0), Some(1)][random.random_range(0..3)];
            let size = if random.random_bool(0.2) { 0 } else { random.random_range(0..120) };
            let fits = |of: Option<usize>, (places, bytes): (usize, usize)| {
                let there: Vec<usize> = inside
                    .iter()
                    .filter(|(client, ..)| of.is_none() || *client == of)
                    .map(|(_, size, _)| *size)
                    .collect();
                let weight: usize = there.iter().sum();
                there.len() < places && (size == 0 || weight == 0 || weight + size <= bytes)
            };
            let expected = fits(None, (places, bytes))
                && client.is_none_or(|client| fits(Some(client), (of_client, bytes_of_client)));
            let permit = admission.enter(size, client.map(|client| &clients[client]));
            assert_eq!(permit.is_some(), expected, "seed {seed}, step {step}");
            inside.extend(permit.map(|permit| (client, size, permit)));
            assert_eq!(admission.inside(), inside.len());
        }
        inside.clear();
        assert_eq!((admission.inside(), admission.capacity.bytes.load(Ordering::Relaxed)), (0, 0));
        assert!(clients.iter().all(|ClientQuota(capacity)| capacity.inside() == 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_caller_is_told_when_the_present_ones_will_have_left() {
    let admission = Admission::new(100, usize::MAX);
    let mut inside: std::collections::VecDeque<_> = (0..100).map(|_| admission.enter(0, None).expect("room")).collect();
    assert_eq!(admission.retry_after(), MEASURED_FOR, "nothing is known yet");
    // One leaves each 4 ms, and another takes its place.
    for _ in 0..200 {
        tokio::time::advance(Duration::from_millis(4)).await;
        inside.pop_front();
        inside.extend(admission.enter(0, None));
    }
    let told = admission.retry_after();
    assert!((380..420).contains(&told.as_millis()), "{told:?}");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(admission.retry_after(), told + Duration::from_secs(1), "no request left for a second");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(admission.retry_after(), RETRY_AFTER.1);
    inside.clear();
    tokio::time::advance(Duration::from_secs(60)).await;
    let _first = admission.enter(0, None);
    assert!(admission.retry_after() <= MEASURED_FOR, "an idle time is no reason to wait");
}

#[tokio::test(start_paused = true)]
async fn a_refused_caller_is_told_the_same_while_few_of_many_departures_are_measured() {
    const EACH: Duration = Duration::from_micros(20);
    let admission = Admission::new(10_000, usize::MAX);
    let mut inside: std::collections::VecDeque<_> =
        (0..10_000).map(|_| admission.enter(0, None).expect("room")).collect();
    // The clock of tokio advances by whole milliseconds.
    for _ in 0..1_000 {
        tokio::time::advance(Duration::from_millis(1)).await;
        for _ in 0..Duration::from_millis(1).div_duration_f64(EACH) as u32 {
            inside.pop_front();
            inside.extend(admission.enter(0, None));
        }
    }
    assert!(admission.published.is_fast());
    let told = admission.retry_after();
    assert!((190..210).contains(&told.as_millis()), "{told:?}");
}

#[test]
fn departures_that_are_measured_out_of_order_are_counted_once() {
    let now = Instant::now();
    let mut rate = DrainRate::new(now);
    for departures in [1, 3, 2, 4] {
        rate.left(departures, now + Duration::from_millis(u64::from(departures)));
    }
    assert_eq!((rate.left, rate.departures), (4, 4));
    let mut rate = DrainRate { departures: u32::MAX, ..DrainRate::new(now) };
    rate.left(1, now);
    assert_eq!((rate.left, rate.departures), (2, 1), "the count wraps");
}

#[test]
fn the_more_are_inside_and_the_slower_they_leave_the_longer_is_the_wait() {
    let mut random = SmallRng::seed_from_u64(1);
    let now = Instant::now();
    for _ in 0..2000 {
        let mut rate = DrainRate::new(now);
        let mut at = now;
        let step = Duration::from_micros(random.random_range(0..200_000));
        for departures in 1..random.random_range(1..51) {
            at += step;
            rate.left(departures, at);
        }
        let (few, late) = (random.random_range(0..5000), at + Duration::from_micros(random.random_range(0..9_000_000)));
        let wait = rate.until_gone(few, at);
        assert!(RETRY_AFTER.0 <= wait && wait <= RETRY_AFTER.1, "{wait:?}");
        assert!(wait <= rate.until_gone(few + random.random_range(0..usize::MAX / 2), at));
        assert!(wait <= rate.until_gone(few, late));
        let slower = DrainRate { each: rate.each.map(|each| each * 2), ..rate };
        assert!(wait <= slower.until_gone(few, at));
    }
}
