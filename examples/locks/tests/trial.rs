//! The locks under faults.

use quorate::Service;
use quorate_locks::{Command, Locks, Reply, Wish};
use quorate_trial::Trial;
use std::collections::BTreeMap;

#[test]
fn no_lock_is_held_past_its_lease_and_no_token_has_two_owners() {
    Trial::new(Locks::default)
        .commands(|rng, replies| {
            let (name, owner) = (rng.pick(&["a", "b"]).to_string(), rng.pick(&["x", "y", "z"]).to_string());
            let (token, ttl_ms) = (replies.iter().rev().find_map(token), rng.between(1..=3_000) as u32);
            match (rng.below(4), token) {
                (0, Some(token)) => Command::Renew { name, token, ttl_ms },
                (1, Some(token)) => Command::Release { name, token },
                _ => Command::Acquire { name, wish: Wish { owner, ttl_ms }, wait: rng.coin() },
            }
        })
        .queries(|rng| rng.pick(&["a", "b", "c"]).to_string())
        .invariant(|locks, at| {
            let held = ["a", "b"].into_iter().filter_map(|name| locks.query(name.into(), *at));
            match held.into_iter().find(|grant| grant.until < at.time) {
                Some(grant) => Err(format!("{grant:?} is held past its lease")),
                None => Ok(()),
            }
        })
        .model(BTreeMap::new, |owners, _, reply, _| match reply {
            Reply::Granted(grant) | Reply::Busy(grant) => {
                match owners.insert(grant.token, grant.owner.clone()).filter(|owner| *owner != grant.owner) {
                    Some(owner) => Err(format!("{owner} had the token of {grant:?}")),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        })
        .run();
}

fn token(reply: &Reply) -> Option<u128> {
    match reply {
        Reply::Granted(grant) => Some(grant.token),
        _ => None,
    }
}
