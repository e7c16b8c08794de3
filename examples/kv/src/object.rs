//! Structures that are deserialized from objects and tables only: serde would also accept an array
//! with the fields in order.

use serde::{Deserialize, Deserializer, de};
use std::{fmt, marker::PhantomData};

/// A value that is deserialized from an object only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names with values")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map))
            }
        }

        from.deserialize_map(Visitor(PhantomData)).map(Self)
    }
}

/// `deserialize_with` for a field that must be an object.
pub(crate) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Object::deserialize(from).map(|Object(value)| value)
}

/// `deserialize_with` for a field that is an object, null or absent.
pub(crate) fn optional<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let value = Option::<Object<T>>::deserialize(from)?;
    Ok(value.map(|Object(value)| value))
}

/// `deserialize_with` for a list of objects.
pub(crate) fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    let values = Vec::<Object<T>>::deserialize(from)?;
    Ok(values.into_iter().map(|Object(value)| value).collect())
}

/// `deserialize_with` for a list of objects of which at most `MAX` are allowed: it keeps one more,
/// to show that there are too many, and no others.
pub(crate) fn bounded<'de, T, D, const MAX: usize>(from: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Visitor<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> de::Visitor<'de> for Visitor<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while values.len() <= MAX {
                let Some(Object(value)) = list.next_element()? else { return Ok(values) };
                values.push(value);
            }
            while list.next_element::<de::IgnoredAny>()?.is_some() {}
            Ok(values)
        }
    }

    from.deserialize_seq(Visitor::<T, MAX>(PhantomData))
}

/// Parses JSON that is an object.
///
/// # Errors
/// If it is not an object, or does not match `T`.
pub(crate) fn from_json<T: de::DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(bytes).map(|Object(value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        a: u64,
        #[serde(default, deserialize_with = "list")]
        inner: Vec<Inner>,
        #[serde(default, deserialize_with = "optional")]
        one: Option<Inner>,
        #[serde(default, deserialize_with = "bounded::<_, _, 2>")]
        two: Vec<Inner>,
    }

    #[derive(Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        b: u64,
    }

    #[test]
    fn an_object_is_read_and_nothing_that_only_resembles_one() {
        let read = |text: &str| from_json::<Outer>(text.as_bytes());
        let whole = Outer { a: 1, inner: vec![Inner { b: 2 }], one: Some(Inner { b: 3 }), two: vec![] };
        assert_eq!(read(r#"{"a":1,"inner":[{"b":2}],"one":{"b":3}}"#).expect("objects"), whole);
        assert_eq!(
            read(r#"{"a":1,"one":null}"#).expect("an object"),
            Outer { a: 1, inner: vec![], one: None, two: vec![] }
        );
        for (count, kept) in [(2, 2), (3, 3), (1_000, 3)] {
            let items: Vec<_> = (0..count).map(|b| format!("{{\"b\":{b}}}")).collect();
            let outer = read(&format!(r#"{{"a":1,"two":[{}]}}"#, items.join(","))).expect("a list");
            assert_eq!(outer.two, (0..kept).map(|b| Inner { b }).collect::<Vec<_>>(), "of {count}");
        }
        for text in [
            "[1]",
            "[1,[{\"b\":2}]]",
            r#"{"a":1,"inner":[[2]]}"#,
            r#"{"a":1,"one":[3]}"#,
            r#"{"a":1,"two":[[2]]}"#,
            r#"{"a":1,"two":[{"b":2},{"b":2},{"b":2},{]}"#,
            r#"{"a":1,"inner":[{"b":2,"b":2}]}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"c":1}"#,
            r#"{"a":1,"inner":[{"b":2,"c":3}]}"#,
            r#"{"a":1.0}"#,
            r#"{"a":"1"}"#,
            r#"{"a":1}{}"#,
            "1",
            "null",
            "",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
