//! Merge patches (RFC 7396) between two JSON values.
//!
//! A patch says by `null` that a member is gone, so no member of a patched object may be `null`
//! itself: [`diff`] takes values without such members.

use serde_json::{Map, Value};

/// The patch that makes `new` of `old`; `None` if they are equal. Neither has a member that is
/// `null`.
#[must_use]
pub fn diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (name, value) in new {
        let change = match old.get(name) {
            Some(known) => diff(known, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(name.clone(), change);
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Applies a patch, as a reader of the stream does.
pub fn apply(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, change) in patch {
        if change.is_null() {
            members.remove(name);
        } else {
            apply(members.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::SmallRng};
    use serde_json::json;

    #[test]
    fn the_patch_makes_the_new_of_the_old() {
        let mut random = SmallRng::seed_from_u64(15);
        let (mut equal, mut nested) = (0, 0);
        for _ in 0..20_000 {
            let old = value(&mut random, 3);
            // Often a neighbour, so that deep changes are compared too.
            let new = if random.random() { changed(&old, &mut random) } else { value(&mut random, 3) };
            let mut patched = old.clone();
            match diff(&old, &new) {
                Some(patch) => {
                    assert_ne!(old, new, "a patch between equals: {patch}");
                    nested += usize::from(patch.as_object().is_some_and(|patch| patch.values().any(Value::is_object)));
                    apply(&mut patched, &patch);
                }
                None => equal += 1,
            }
            assert_eq!(patched, new, "from {old}");
        }
        assert!(equal > 100 && nested > 100, "{equal} equal, {nested} nested");
    }

    #[test]
    fn a_patch_has_the_changed_members_alone() {
        let old = json!({"leader": 1, "nodes": {"1": {"term": 7, "up": true}, "2": {"term": 7}}, "voters": [1, 2]});
        let new = json!({"nodes": {"1": {"term": 8, "up": true}, "3": {"term": 8}}, "voters": [1, 3]});
        let patch = json!({"leader": null, "nodes": {"1": {"term": 8}, "2": null, "3": {"term": 8}}, "voters": [1, 3]});
        assert_eq!(diff(&old, &new), Some(patch));
        assert_eq!(diff(&old, &old), None);
    }

    /// Test cases of RFC 7396, appendix A.
    #[test]
    fn patches_are_applied_as_the_rfc_says() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut patched = target.clone();
            apply(&mut patched, &patch);
            assert_eq!(patched, result, "{target} with {patch}");
        }
    }

    fn value(random: &mut SmallRng, depth: u32) -> Value {
        match random.random_range(0..if depth == 0 { 3 } else { 6 }) {
            0 => json!(random.random_range(0..4)),
            1 => json!(random.random::<bool>()),
            2 => json!(["a", "b"][random.random_range(0..2)]),
            3 => json!([random.random_range(0..3), null]),
            _ => {
                let names = ["a", "b", "c", "d"].into_iter().filter(|_| random.random()).collect::<Vec<_>>();
                names.into_iter().map(|name| (name.to_owned(), value(random, depth - 1))).collect()
            }
        }
    }

    fn changed(old: &Value, random: &mut SmallRng) -> Value {
        let mut new = old.clone();
        if let Some(members) = new.as_object_mut() {
            for member in members.values_mut() {
                if random.random_range(0..3) == 0 {
                    *member = changed(member, random);
                }
            }
            return new;
        }
        value(random, 1)
    }
}
