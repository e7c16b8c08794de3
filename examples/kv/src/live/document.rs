//! The document of the live page: one file without a request to elsewhere, from parts that are
//! embedded in the binary. A node serves it, and the demo.

use axum::{
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
};
use rand::Rng;

const HEAD: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
    "<title>Quorate</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n",
    include_str!("page/style.css"),
    "</style>\n</head>\n<body>\n",
    include_str!("page/body.html"),
);
const SCRIPT: &str = concat!(
    include_str!("page/base.js"),
    include_str!("page/words.js"),
    include_str!("page/source.js"),
    include_str!("page/state.js"),
    include_str!("page/cluster.js"),
    include_str!("page/logs.js"),
    include_str!("page/timeline.js"),
    include_str!("page/write.js"),
    include_str!("page/story.js"),
    include_str!("page/try.js"),
    include_str!("page/play.js"),
    include_str!("page/tip.js"),
    include_str!("page/main.js"),
);

/// The page. It has no facts of the cluster, which it asks for at `/live`.
///
/// Its policy admits its own script alone, by a nonce, so that text of a node or of an operator
/// can't run as one. It may connect to any host, since members are reached at their own addresses.
pub(crate) async fn document() -> Response {
    let nonce: u128 = rand::rng().random();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce:032x}'; style-src 'unsafe-inline'; img-src data:; \
         connect-src 'self' http: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let document = format!("{HEAD}<script nonce=\"{nonce:032x}\">\n{SCRIPT}</script>\n</body>\n</html>\n");
    let mut response = Html(document).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    /// The most bytes of the page on its way to a browser.
    const GZIP_BYTES_MAX: usize = 60 * 1024;
    /// Sections of "In Search of an Understandable Consensus Algorithm (Extended Version)".
    const PAPER: &[&str] = &[
        "§2", "§5.1", "§5.2", "§5.3", "§5.4", "§5.4.2", "§5.5", "§7", "§8", "§9.3", "Figure 2", "Figure 5", "Figure 7",
    ];
    /// Sections of "Consensus: Bridging Theory and Practice": 6.2 routing requests to the leader, 9.6 preventing
    /// disruptions when a server rejoins the cluster, 10.2.1 writing to the leader's disk in parallel, 10.2.2
    /// batching and pipelining.
    const THESIS: &[&str] = &["§6.2", "§9.6", "§10.2.1", "§10.2.2"];

    #[test]
    fn sections_that_the_page_names_are_in_the_paper_and_the_thesis() {
        let words = include_str!("page/words.js");
        let references = words.split('\'').filter(|text| text.starts_with("paper ") || text.starts_with("thesis "));
        let mut named = 0;
        for reference in references {
            for part in reference.split("; ") {
                let (source, sections) = part.split_once(' ').expect("a source and its sections");
                let known = if source == "paper" { PAPER } else { THESIS };
                for section in sections.split(", ") {
                    assert!(
                        known.contains(&section),
                        "{source} has no {section}, or it is not listed here: {reference}"
                    );
                    named += 1;
                }
            }
        }
        assert!(named > 40, "{named} sections");
    }

    #[test]
    fn the_page_is_small() {
        let mut gzip =
            Command::new("gzip").arg("-9c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip");
        let mut stdin = gzip.stdin.take().expect("piped");
        let writing = std::thread::spawn(move || stdin.write_all(format!("{HEAD}{SCRIPT}").as_bytes()));
        let bytes = gzip.wait_with_output().expect("it ends").stdout.len();
        writing.join().expect("no panic").expect("written");
        println!("{bytes} bytes of {}", HEAD.len() + SCRIPT.len());
        assert!((10_000..=GZIP_BYTES_MAX).contains(&bytes), "{bytes} bytes");
    }

    /// A node states them, so a member could state markup.
    #[test]
    fn fields_of_a_state_are_text_or_numbers_in_the_markup_of_the_page() {
        let fields = [".term}", ".vote}", ".served_by}", ".state}", ".in_flight}", ".text}", ".why}", "_ms}"];
        let raw = ["<em>${says}", "<span>${says}", "${whatOf(", "of state.config.voters) {", "'voted ' + node"];
        for line in SCRIPT.lines() {
            let is_markup =
                ["<i>", "<em>", "<span", "<p>", "<b>", "<button", "<div", "<li>"].iter().any(|tag| line.contains(tag));
            for part in line.split("${").skip(1).filter(|_| is_markup) {
                let first = &part[..part.find('}').map_or(part.len(), |end| end + 1)];
                let is_raw = fields.iter().any(|field| first.ends_with(field)) && !first.contains('(');
                assert!(!is_raw, "{first} goes into markup as it is: {line}");
            }
            assert!(!raw.iter().any(|raw| line.contains(raw)), "{line}");
        }
    }

    #[tokio::test]
    async fn the_page_names_no_other_host_and_admits_its_own_script_alone() {
        let response = document().await;
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text").to_owned();
        let body = response.into_body().collect().await.expect("whole").to_bytes();
        let text = std::str::from_utf8(&body).expect("UTF-8");
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
        assert_eq!(text.matches("<script").count(), 1);
        assert!(text.contains(&format!("<script nonce=\"{nonce}\">")), "{policy}");
        for elsewhere in ["src=", "@import", "url(http", "https://", "http://"] {
            assert!(!text.contains(elsewhere), "the page names {elsewhere}");
        }
        let second = document().await;
        assert_ne!(second.headers()[header::CONTENT_SECURITY_POLICY], policy, "a nonce is used once");
    }
}
