//! Strict requests: a request with an unknown parameter, header or body is refused before a
//! handler sees it.
//!
//! Ignoring an unknown part would hide a mistake: a misspelt `expect` would change the members
//! unconditionally, a misspelt `quorate-session` would let a repeated write be applied twice.

use super::{
    Refusal,
    headers::{SERIAL, SESSION, TIMEOUT},
};
use axum::{
    body::{Body, HttpBody},
    extract::{MatchedPath, Query, Request},
    http::{HeaderMap, Method, Uri},
    middleware::Next,
    response::Response,
};
use percent_encoding::percent_decode_str;
use std::collections::BTreeSet;

/// The parts that a request may have in addition to its path.
#[derive(Clone, Copy, Debug)]
struct Accepts {
    method: &'static str,
    path: &'static str,
    parameters: &'static [&'static str],
    headers: &'static [&'static str],
    body: bool,
}

const READ: &[&str] = &["read", "max_age", "max_entries"];
/// The parameters of a listing.
const LIST: &[&str] = &["prefix", "start", "end", "after", "limit", "keys", "index", "read", "max_age", "max_entries"];
const EXPECT: &[&str] = &["expect"];
/// The headers of a write.
const MUTATION: &[&str] = &[SESSION, SERIAL, TIMEOUT];
/// The headers of a read of keys.
const WAITING: &[&str] = &[TIMEOUT];

/// All requests with query, headers or body. Others have a body only if their handler reads one.
const ACCEPTED: &[Accepts] = &[
    accepts("GET", "/v1/kv", LIST, WAITING, false),
    accepts("GET", "/v1/kv/{key}", READ, WAITING, false),
    accepts("PUT", "/v1/kv/{key}", &["ttl"], MUTATION, true),
    accepts("DELETE", "/v1/kv/{key}", &[], MUTATION, false),
    accepts("POST", "/v1/kv/{key}/cas", &[], MUTATION, true),
    accepts("POST", "/v1/txn", &[], MUTATION, true),
    accepts("GET", "/v1/watch", &["key", "prefix", "after"], &[], false),
    accepts("GET", "/v1/status", &[], &[], false),
    accepts("GET", "/v1/members", &[], &[], false),
    accepts("POST", "/v1/members", EXPECT, &[], true),
    accepts("PUT", "/v1/members", EXPECT, &[], true),
    accepts("DELETE", "/v1/members/{id}", EXPECT, &[], false),
    accepts("PUT", "/v1/members/{id}/addr", EXPECT, &[], true),
    accepts("PATCH", "/v1/members/{id}/metadata", EXPECT, &[], true),
    accepts("POST", "/v1/members/{id}/promote", EXPECT, &[], false),
    accepts("POST", "/v1/snapshot", &[], &[], false),
    accepts("GET", "/v1/backup", &[], &[], false),
    accepts("GET", "/", &["theme"], &[], false),
    accepts("GET", "/live", &[], &[], false),
    accepts("OPTIONS", "/live", &[], &[], false),
    accepts("GET", "/livez", &[], &[], false),
    accepts("GET", "/readyz", &[], &[], false),
    accepts("GET", "/metrics", &[], &[], false),
];

const fn accepts(
    method: &'static str,
    path: &'static str,
    parameters: &'static [&'static str],
    headers: &'static [&'static str],
    body: bool,
) -> Accepts {
    Accepts { method, path, parameters, headers, body }
}

/// A layer over all routes that refuses requests with unknown parts.
///
/// # Errors
/// [`Refusal::BadRequest`], with the name of the part.
pub async fn refuse_unknown(request: Request, next: Next) -> Result<Response, Refusal> {
    check(&request)?;
    Ok(next.run(request).await)
}

fn check(request: &Request<Body>) -> Result<(), Refusal> {
    check_encoding(request.uri())?;
    // Without a matched path, the request gets 404.
    let Some(path) = request.extensions().get::<MatchedPath>() else { return Ok(()) };
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let listed = ACCEPTED.iter().find(|accepts| accepts.method == method.as_str() && accepts.path == path.as_str());
    let accepts = listed.copied().unwrap_or(accepts("", "", &[], &[], true));
    check_parameters(request.uri(), accepts.parameters)?;
    check_headers(request.headers(), accepts.headers)?;
    if !accepts.body && !request.body().is_end_stream() {
        let asked = format!("{method} {}", path.as_str());
        return Err(Refusal::BadRequest(format!("{asked} takes no body; leave it out")));
    }
    Ok(())
}

/// Checks that every `%` starts an escape, and that the unescaped bytes are UTF-8.
fn check_encoding(uri: &Uri) -> Result<(), Refusal> {
    for (what, text) in [("path", uri.path()), ("query", uri.query().unwrap_or_default())] {
        let mut parts = text.split('%');
        // The text before the first `%`.
        parts.next();
        let is_escape = |part: &str| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
        if let Some(bad) = parts.find(|part| !is_escape(part)) {
            let shown: String = bad.chars().take(2).collect();
            let problem = format!("`%{}` in the {what} is not an escape", shown.escape_debug());
            return Err(Refusal::BadRequest(format!(
                "{problem}; write two hexadecimal digits after %, and %25 for % itself"
            )));
        }
        if percent_decode_str(text).decode_utf8().is_err() {
            return Err(Refusal::BadRequest(format!("the {what} is not percent-encoded UTF-8")));
        }
    }
    Ok(())
}

fn check_parameters(uri: &Uri, known: &[&str]) -> Result<(), Refusal> {
    let given = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let Query(given) = given.map_err(|error| Refusal::BadRequest(error.body_text()))?;
    let mut seen = BTreeSet::new();
    for (name, _) in &given {
        let shown = name.escape_debug();
        if !known.contains(&name.as_str()) {
            return Err(Refusal::BadRequest(format!("unknown parameter `{shown}`; {}", listed(known))));
        }
        if !seen.insert(name) {
            return Err(Refusal::BadRequest(format!("parameter `{shown}` is given more than once; give it once")));
        }
    }
    Ok(())
}

/// Headers with the prefix `quorate-` belong to this server, so unknown ones are refused.
fn check_headers(headers: &HeaderMap, known: &[&str]) -> Result<(), Refusal> {
    let unknown = headers.keys().find(|name| name.as_str().starts_with("quorate-") && !known.contains(&name.as_str()));
    match unknown {
        Some(name) => Err(Refusal::BadRequest(format!("unknown header `{name}`; {}", listed(known)))),
        None => Ok(()),
    }
}

fn listed(known: &[&str]) -> String {
    if known.is_empty() { "none is allowed here".to_owned() } else { format!("allowed: {}", known.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_percent_sign_begins_an_escape_of_text() {
        for (uri, expected) in [
            ("/v1/kv/a", true),
            ("/v1/kv/a%2Fb%20%c3%BC", true),
            ("/v1/kv/%25zz?read=l%6Fcal", true),
            ("/v1/kv/%zz", false),
            ("/v1/kv/a%", false),
            ("/v1/kv/a%4", false),
            ("/v1/kv/a%4g", false),
            ("/v1/kv/a%+1", false),
            ("/v1/kv/a%%41", false),
            ("/v1/kv/%ff", false),
            ("/v1/kv/a?read=%zz", false),
            ("/v1/kv/a?read=local%", false),
            ("/v1/kv/a?%ff=local", false),
        ] {
            assert_eq!(check_encoding(&uri.parse().expect("a URI")).is_ok(), expected, "{uri}");
        }
    }

    #[test]
    fn parameters_are_known_and_given_once() {
        for (uri, expected) in [
            ("/", true),
            ("/?", true),
            ("/?read=local", true),
            ("/?r%65ad=local&max_age=", true),
            ("/?read=local&read=local", false),
            ("/?read=local&r%65ad=lease", false),
            ("/?raed=local", false),
            ("/?read", true),
            ("/?=local", false),
            ("/?Read=local", false),
        ] {
            assert_eq!(check_parameters(&uri.parse().expect("a URI"), READ).is_ok(), expected, "{uri}");
        }
        let refusal = check_parameters(&"/?raed=local".parse().expect("a URI"), READ);
        let Err(Refusal::BadRequest(why)) = refusal else { panic!("{refusal:?}") };
        assert_eq!(why, "unknown parameter `raed`; allowed: read, max_age, max_entries");
    }

    #[test]
    fn headers_with_the_prefix_are_known() {
        for (name, known, expected) in [
            (SESSION, MUTATION, true),
            ("quorate-sesion", MUTATION, false),
            ("Quorate-Timeouts", MUTATION, false),
            (SESSION, &[][..], false),
            ("x-request-id", &[], true),
            ("quorate", &[], true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                axum::http::HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                "x".parse().expect("text"),
            );
            assert_eq!(check_headers(&headers, known).is_ok(), expected, "{name}");
        }
    }
}
