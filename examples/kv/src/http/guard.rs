//! Protection from web pages: no page may use this server through the browser of a user who
//! can reach it.
//!
//! A page can send requests to any address, including loopback: with its own `Origin`, and with
//! content types that need no permission of the server. It can also let its own name resolve to
//! this server's address (DNS rebinding); then the `Host` is that name. So the `Host` must be one of
//! this server's names, but for probes, and for scrapers that no page can pass for; the
//! `Sec-Fetch-Site` must be no other site's, but for probes; a change or a backup must have a `Host`
//! and no foreign `Origin`; and JSON bodies must be declared as JSON. A page cannot send `PUT` or
//! `DELETE` without permission, so values may have any type. Headers of the answers keep browsers
//! from guessing a type, and from passing an answer to another site.

use super::Refusal;
use axum::http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS},
    uri::Authority,
};
use std::{net::IpAddr, sync::Arc};

/// The names of this server, in addition to its address and the loopback names. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    names: Arc<[String]>,
}

const PROBES: [&str; 2] = ["/livez", "/readyz"];
const METRICS: &str = "/metrics";
pub(super) const LIVE_PAGE: [&str; 2] = ["/", "/live"];
const BACKUP: &str = "/v1/backup";
/// The relation of a page to this server, as its browser sees it.
const FETCH_SITE: &str = "sec-fetch-site";

/// The wildcard that matches any host.
const ANY: &str = "*";

impl Hosts {
    /// The given names; `*.example` matches all names one level below, `*` matches any name.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().map(|name| normal(&name)).collect() }
    }

    /// The same names, and these.
    #[must_use]
    pub fn and(&self, names: impl IntoIterator<Item = String>) -> Self {
        Self::new(self.names.iter().cloned().chain(names))
    }

    /// Checks a request that arrived at the local address `local`. A `scraper` may read metrics by
    /// any name.
    pub(crate) fn check(
        &self,
        local: IpAddr,
        scraper: bool,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        if PROBES.contains(&uri.path()) {
            return Ok(());
        }
        let has_any_name = scraper && uri.path() == METRICS;
        // A backup makes the node write a snapshot.
        let is_change = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method) || uri.path() == BACKUP;
        let host = one(headers, &HOST)?.map(authority).transpose()?;
        let named = [uri.authority(), host.as_ref()];
        for name in named.into_iter().flatten().filter(|_| !has_any_name) {
            self.check_host(local, name.host())?;
        }
        // A link on any site may lead to the page. Pages of other nodes may read the page's data:
        // `live` judges them by the addresses of the members.
        let is_of_page = !is_change && LIVE_PAGE.contains(&uri.path());
        if !is_of_page {
            is_own_page(headers)?;
        }
        let Some(own) = named.into_iter().flatten().next() else {
            return if is_change {
                Err(Refusal::BadRequest("the request has no Host header".to_owned()))
            } else {
                Ok(())
            };
        };
        match one(headers, &ORIGIN)? {
            Some(origin) if is_change && !is_of(origin, own) => {
                let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
                Err(Refusal::ForeignPage(format!(
                    "pages of {origin} may not change data here; only pages of http(s)://{own} may"
                )))
            }
            _ => Ok(()),
        }
    }

    fn check_host(&self, local: IpAddr, host: &str) -> Result<(), Refusal> {
        let host = normal(host);
        let is_known = match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback() || address.to_canonical() == local.to_canonical(),
            Err(_) => host == "localhost",
        };
        if is_known || self.names.iter().any(|name| matches(name, &host)) {
            return Ok(());
        }
        Err(Refusal::UnknownHost(format!(
            "this node is not known as {host:?}; use its address, or add the name to http_hosts in its configuration"
        )))
    }
}

/// Checks that no page of another site sent a request, as the browser says.
pub(crate) fn is_own_page(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_foreign = |site: &HeaderValue| !["same-origin", "none"].iter().any(|own| site == own);
    if super::headers::one(headers, FETCH_SITE)?.is_some_and(is_foreign) {
        return Err(Refusal::ForeignPage("pages of other sites may send no requests here".to_owned()));
    }
    Ok(())
}

/// Tells browsers to take the type of an answer as it is declared, and not to pass the answer to a
/// page of another site.
pub(super) fn protect(answer: &mut HeaderMap) {
    answer.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}

/// Removes the brackets of an IPv6 address and a final dot, and converts to lower case.
fn normal(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn matches(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(above) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == above),
        None => name == ANY || name == host,
    }
}

fn authority(host: &HeaderValue) -> Result<Authority, Refusal> {
    Authority::try_from(host.as_bytes())
        .map_err(|_| Refusal::BadRequest("the Host header has no valid host".to_owned()))
}

/// Whether an origin is this server's own.
fn is_of(origin: &HeaderValue, own: &Authority) -> bool {
    origin.to_str().ok().and_then(Origin::parse).is_some_and(|origin| {
        origin.host == normal(own.host()) && origin.port == own.port_u16().unwrap_or(origin.scheme.default_port())
    })
}

/// An origin in its normal form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Origin {
    scheme: Scheme,
    host: String,
    port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Origin {
    /// An `Origin` header, or a URL without a path; `None` for one of another scheme.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let of_name = [("http", Scheme::Http), ("https", Scheme::Https)];
        let (_, scheme) = of_name.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(scheme))?;
        let authority = Authority::try_from(authority).ok()?;
        let port = authority.port_u16().unwrap_or(scheme.default_port());
        Some(Self { scheme, host: normal(authority.host()), port })
    }
}

/// Checks that a body is declared as JSON; a page needs permission to send that type.
pub(crate) fn is_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let says = one(headers, &CONTENT_TYPE)?.and_then(|value| value.to_str().ok()).unwrap_or_default();
    if says.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refusal::MediaType("the body must be JSON with the header `content-type: application/json`".to_owned()))
}

fn one<'a>(headers: &'a HeaderMap, name: &axum::http::HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    super::headers::one(headers, name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_needs_a_known_host_and_no_foreign_origin() {
        let own = "10.0.0.1";
        let put = |headers: &[(&str, &str)]| check("PUT", "/v1/kv/k", own, headers);
        for host in [
            "10.0.0.1:8001",
            "10.0.0.1",
            "127.0.0.1:8001",
            "[::1]:8001",
            "localhost:8001",
            "LOCALHOST",
            "kv.example:80",
            "a.pods.example.",
        ] {
            assert_eq!(put(&[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "10.0.0.2",
            "kv.example.evil",
            "pods.example",
            "a.b.pods.example",
            "localhost.evil.example",
            "0.0.0.0",
        ] {
            assert!(matches!(put(&[("host", host)]), Err(Refusal::UnknownHost(_))), "{host}");
        }
        for headers in [&[][..], &[("host", "")], &[("host", "a b")], &[("host", own), ("host", own)]] {
            assert!(matches!(put(headers), Err(Refusal::BadRequest(_))), "{headers:?}");
        }
        for (host, origin) in [
            ("localhost:8001", "http://localhost:8001"),
            ("kv.example", "https://kv.example"),
            ("kv.example:443", "https://KV.example"),
        ] {
            assert_eq!(put(&[("host", host), ("origin", origin)]), Ok(()), "{origin}");
        }
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost:3000",
            "http://localhost",
            "file://",
            "http://127.0.0.1:8001",
            "",
        ] {
            let refused = put(&[("host", "localhost:8001"), ("origin", origin)]);
            assert!(matches!(refused, Err(Refusal::ForeignPage(_))), "{origin}: {refused:?}");
        }
    }

    /// A page sends a `GET`, or a `POST` without a body, without permission and, for an image,
    /// without an `Origin`.
    #[test]
    fn a_request_of_a_page_of_another_site_is_refused_unless_it_is_a_probe() {
        let ask = |method: &str, path: &str, site: &str| {
            check(method, path, "127.0.0.1", &[("host", "localhost:8001"), (FETCH_SITE, site)])
        };
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            for (method, path) in [
                ("POST", "/v1/snapshot"),
                ("DELETE", "/v1/kv/k"),
                ("GET", "/v1/backup"),
                ("GET", "/v1/kv/k"),
                ("HEAD", "/v1/kv"),
                ("GET", "/metrics"),
            ] {
                assert!(matches!(ask(method, path, site), Err(Refusal::ForeignPage(_))), "{method} {path} {site}");
            }
            assert_eq!(ask("GET", "/readyz", site), Ok(()));
            let without_host = check("GET", "/v1/kv/k", "127.0.0.1", &[(FETCH_SITE, site)]);
            assert!(matches!(without_host, Err(Refusal::ForeignPage(_))), "{without_host:?}");
        }
        for site in ["same-origin", "none"] {
            assert_eq!(ask("GET", "/v1/backup", site), Ok(()));
        }
    }

    #[test]
    fn reads_need_a_known_host_too_and_probes_and_scrapers_need_none() {
        assert!(matches!(
            check("GET", "/v1/kv/k", "127.0.0.1", &[("host", "evil.example")]),
            Err(Refusal::UnknownHost(_))
        ));
        assert!(matches!(
            check("GET", "http://evil.example/v1/status", "127.0.0.1", &[("host", "localhost")]),
            Err(Refusal::UnknownHost(_))
        ));
        assert_eq!(check("GET", "/v1/kv/k", "127.0.0.1", &[]), Ok(()), "browsers always send it");
        let (foreign, known) = ([("host", "prometheus.example")], [("host", "kv.example")]);
        for path in ["/livez", "/readyz"] {
            assert_eq!(check("GET", path, "127.0.0.1", &foreign), Ok(()));
        }
        assert_eq!(check("GET", "/metrics", "127.0.0.1", &known), Ok(()));
        for path in ["/metrics", "/metrics/", "/", "/nothing"] {
            assert!(matches!(check("GET", path, "127.0.0.1", &foreign), Err(Refusal::UnknownHost(_))), "{path}");
        }
        assert_eq!(check_as(true, "GET", "/metrics", "127.0.0.1", &foreign), Ok(()));
        assert!(matches!(check_as(true, "GET", "/v1/status", "127.0.0.1", &foreign), Err(Refusal::UnknownHost(_))));
    }

    #[test]
    fn any_host_is_known_where_the_configuration_says_so() {
        let any = Hosts::new(["*".to_owned()]);
        assert_eq!(any.check_host(IpAddr::from([127, 0, 0, 1]), "evil.example"), Ok(()));
    }

    #[test]
    fn only_json_is_json() {
        let said = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(value).expect("a value"));
            is_json(&headers).is_ok()
        };
        assert!(said("application/json") && said("Application/JSON; charset=utf-8"));
        assert!(
            !said("text/plain")
                && !said("text/plain; application/json")
                && !said("application/x-www-form-urlencoded")
                && !said("")
        );
        assert!(is_json(&HeaderMap::new()).is_err());
    }

    fn check(method: &str, uri: &str, local: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        check_as(false, method, uri, local, headers)
    }

    fn check_as(scraper: bool, method: &str, uri: &str, local: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let hosts = Hosts::new(["kv.example".to_owned(), "*.pods.example".to_owned()]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = axum::http::HeaderName::try_from(*name).expect("a name");
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let (method, uri) = (method.parse().expect("a method"), uri.parse().expect("a target"));
        hosts.check(local.parse().expect("an address"), scraper, &method, &uri, &map)
    }
}
