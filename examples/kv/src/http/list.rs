//! `GET /v1/kv`: the pairs of a range of keys, page by page, all pages of the same state.

use super::{
    Api, ReadQuery, Refusal, body::Caller, consistency, headers::ReadTimeout, messages::PairAnswer, off_task, stuck,
    versions::Version,
};
use crate::{
    machine::{KEY_BYTES_MAX, KeyRange, Kv},
    octets::Octets,
};
use axum::{
    body::Body,
    extract::{FromRequestParts, Query, State},
    http::{header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse, Response},
};
use quorate::{Consistency, Hosted, Index};
use serde::Deserialize;
use std::sync::Arc;

/// The maximum number of pairs of a page, and the number if the client gives none.
pub const LIMIT_MAX: usize = 10_000;
const LIMIT_DEFAULT: usize = 1_000;
/// The length at which a page ends, in bytes of JSON; a longer pair is a page of its own.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Answers with one page.
pub(super) async fn list(
    State(api): State<Api>,
    ReadTimeout(within): ReadTimeout,
    Caller(client): Caller,
    listing: Result<Listing, Refusal>,
) -> Result<Response, Refusal> {
    api.open()?;
    let Listing { page, state } = listing?;
    let mut charge = api.answers.charge(client, PAGE_BYTES_MAX)?;
    let version = match state {
        Wanted::Kept(index) => api.versions.at(index).ok_or_else(|| gone(index))?,
        Wanted::Current(consistency) => {
            let listing = |kv: &Hosted<Kv>| kv.service().listing();
            let read = match within {
                Some(within) => api.node.read_within(consistency, within, listing).await?,
                None => api.node.read(consistency, listing).await?,
            };
            Arc::new(Version { index: read.index, listing: read.value })
        }
    };
    let of = Arc::clone(&version);
    let Made { body, more } = off_task(PAGE_BYTES_MAX, move || page.of(&of)).await.ok_or_else(stuck)?;
    charge.settle(body.len());
    let index = version.index;
    if more && matches!(state, Wanted::Current(_)) {
        api.versions.keep(version);
    }
    Ok(([("quorate-index", index.to_string())], [(CONTENT_TYPE, "application/json")], Body::from(charge.with(body)))
        .into_response())
}

fn gone(index: Index) -> Refusal {
    Refusal::Gone(format!("this node does not keep the state at index {index}; begin the listing again, without index"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    prefix: Option<String>,
    start: Option<String>,
    end: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    keys: bool,
    index: Option<u64>,
    read: Option<String>,
    max_age: Option<String>,
    max_entries: Option<u64>,
}

/// The page that a request asks for, from the parameters of its query.
#[derive(PartialEq, Eq, Debug)]
pub struct Listing {
    page: Page,
    state: Wanted,
}

impl<S: Send + Sync> FromRequestParts<S> for Listing {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<ListQuery>::from_request_parts(parts, state).await;
        query.map_err(|error| Refusal::BadRequest(error.body_text()))?.0.listing()
    }
}

/// The state that a page is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    Current(Consistency),
    /// That of an earlier page.
    Kept(Index),
}

#[derive(PartialEq, Eq, Debug)]
struct Page {
    range: KeyRange,
    limit: usize,
    keys_only: bool,
}

impl ListQuery {
    fn listing(self) -> Result<Listing, Refusal> {
        let Self { prefix, start, end, after, limit, keys, index, read, max_age, max_entries } = self;
        let refuse = |why: String| Err(Refusal::BadRequest(why));
        for (name, key) in [("prefix", &prefix), ("start", &start), ("end", &end), ("after", &after)] {
            if key.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
                return Err(Refusal::TooLarge(format!("{name} has more than {KEY_BYTES_MAX} bytes, as no key has")));
            }
        }
        let bytes = |key: &'_ Option<String>| key.as_ref().map(|key| key.clone().into_bytes());
        let range = match (&prefix, bytes(&start), bytes(&end)) {
            (Some(prefix), None, None) => KeyRange::prefixed(prefix.as_bytes()),
            (Some(_), ..) => return refuse("prefix excludes start and end; give one or the other".to_owned()),
            (None, Some(start), Some(end)) if start > end => {
                return refuse("start is after end; exchange them".to_owned());
            }
            (None, start, end) => KeyRange::between(start.as_deref(), end.as_deref()),
        };
        let range = match &after {
            Some(after) => range.after(after.as_bytes()),
            None => range,
        };
        let limit = limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return refuse(format!("limit={limit} is not from 1 to {LIMIT_MAX}"));
        }
        let is_fresh = read.is_some() || max_age.is_some() || max_entries.is_some();
        let state = match index {
            None => Wanted::Current(consistency(Ok(Query(ReadQuery { read, max_age, max_entries })))?),
            Some(index) if !is_fresh => Wanted::Kept(Index(index)),
            Some(_) => {
                return refuse(
                    "index is for the state of an earlier page, read, max_age and max_entries for the current one; \
                     leave one out"
                        .to_owned(),
                );
            }
        };
        Ok(Listing { page: Page { range, limit, keys_only: keys }, state })
    }
}

/// The body of an answer.
struct Made {
    body: Vec<u8>,
    /// Whether the range has further keys.
    more: bool,
}

impl Page {
    fn of(&self, version: &Version) -> Made {
        let mut body = format!("{{\"index\":{},\"pairs\":[", version.index).into_bytes();
        let (mut count, mut more) = (0, false);
        for (key, value) in version.listing.range(&self.range) {
            let before = body.len();
            let value = (!self.keys_only).then_some(value);
            let fits = count == 0 || {
                // JSON is never shorter than the bytes.
                let shortest = before + key.len() + value.map_or(0, <[u8]>::len);
                body.push(b',');
                count < self.limit && shortest <= PAGE_BYTES_MAX
            };
            if fits {
                let pair = PairAnswer { key: Octets(key), value: value.map(Octets) };
                serde_json::to_writer(&mut body, &pair).unwrap_or_else(|error| unreachable!("into memory: {error}"));
            }
            if !fits || (count > 0 && body.len() > PAGE_BYTES_MAX) {
                body.truncate(before);
                more = true;
                break;
            }
            count += 1;
        }
        body.extend_from_slice(format!("],\"more\":{more}}}").as_bytes());
        Made { body, more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::messages::ListAnswer, machine::Listing, object};

    #[test]
    fn a_page_ends_at_its_limit_and_says_whether_there_is_more() {
        let kv = filled((0..5).map(|n| (format!("k{n}"), vec![b'v'; n])));
        for (limit, range, keys, more) in [
            (5, all(), &["k0", "k1", "k2", "k3", "k4"][..], false),
            (4, all(), &["k0", "k1", "k2", "k3"], true),
            (1, all(), &["k0"], true),
            (2, all().after(b"k2"), &["k3", "k4"], false),
            (2, all().after(b"k1"), &["k2", "k3"], true),
            (2, KeyRange::prefixed(b"k4"), &["k4"], false),
            (2, KeyRange::prefixed(b"x"), &[], false),
        ] {
            let answer = page(&kv, Page { range, limit, keys_only: false });
            assert_eq!(names(&answer), keys);
            assert_eq!((answer.more, answer.index), (more, Index(7)));
            let value = |key: &str| vec![b'v'; key[1..].parse().expect("a number")];
            assert!(answer.pairs.iter().zip(keys).all(|(pair, key)| pair.value == Some(Octets(value(key).into()))));
        }
    }

    #[test]
    fn a_page_is_bounded_in_bytes_as_they_are_sent_and_a_long_pair_is_one_of_its_own() {
        let half = PAGE_BYTES_MAX / 2;
        // Six bytes of JSON for each of these.
        let control = vec![1; PAGE_BYTES_MAX / 6 - 100];
        let values = [
            vec![b'v'; half - 100],
            vec![b'v'; half - 100],
            vec![b'v'; PAGE_BYTES_MAX * 3],
            control.clone(),
            control,
            vec![],
        ];
        let kv = filled(values.into_iter().enumerate().map(|(n, value)| (format!("k{n}"), value)));
        let mut pages = Vec::new();
        let mut range = all();
        loop {
            let made = Page { range: range.clone(), limit: 10, keys_only: false }.of(&version(&kv));
            let answer: ListAnswer = object::from_json(&made.body).expect("JSON");
            assert!(answer.pairs.len() == 1 || made.body.len() <= PAGE_BYTES_MAX + 100);
            range = range.after(&answer.pairs.last().expect("never empty").key.0);
            pages.push(names(&answer));
            if !answer.more {
                break;
            }
        }
        assert_eq!(pages, [vec!["k0", "k1"], vec!["k2"], vec!["k3"], vec!["k4", "k5"]]);
        let keys = page(&kv, Page { range: all(), limit: 10, keys_only: true });
        assert!(!keys.more && keys.pairs.len() == 6 && keys.pairs.iter().all(|pair| pair.value.is_none()));
    }

    fn all() -> KeyRange {
        KeyRange::between(None, None)
    }

    fn filled(pairs: impl Iterator<Item = (String, Vec<u8>)>) -> Listing {
        let mut kv = Kv::default();
        for (key, value) in pairs {
            kv.insert(key.into(), value.into(), None);
        }
        kv.listing()
    }

    fn version(listing: &Listing) -> Version {
        Version { index: Index(7), listing: listing.clone() }
    }

    fn page(listing: &Listing, page: Page) -> ListAnswer {
        object::from_json(&page.of(&version(listing)).body).expect("JSON")
    }

    fn names(answer: &ListAnswer) -> Vec<String> {
        answer.pairs.iter().map(|pair| pair.key.to_string()).collect()
    }
}
