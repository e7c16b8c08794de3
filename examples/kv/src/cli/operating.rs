//! Tests of the operator's guide, `OPERATING.md`: each command that it shows is one of this command line, and each panel,
//! alert and section that it names exists.

use super::Cli;
use clap::{CommandFactory, FromArgMatches};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const GUIDE: &str = include_str!("../../OPERATING.md");
const RUNBOOKS: &str = "../../metrics/RUNBOOKS.md";
const README: &str = include_str!("../../README.md");
/// Programs of the operating system that the guide uses.
const OTHER_PROGRAMS: &[&str] =
    &["df", "dmesg", "du", "iostat", "journalctl", "kill", "ss", "systemctl", "timedatectl"];
/// The dashboards, and the names of their files.
const DASHBOARDS: [(&str, &str); 4] = [
    ("cluster", "cluster.json"),
    ("node", "node.json"),
    ("storage and network", "storage-network.json"),
    ("service", "service.json"),
];

#[test]
fn each_command_of_the_operators_guide_is_one_of_this_command_line() {
    let (mut checked, mut shown) = (0, BTreeSet::new());
    for line in block_lines(GUIDE).into_iter().chain(spans(GUIDE, "quorate-kv ")) {
        let words: Vec<_> = line.split_whitespace().collect();
        if words[0] != "quorate-kv" {
            assert!(OTHER_PROGRAMS.contains(&words[0]), "{line}: a program that the guide does not use so far");
            continue;
        }
        let parsed = Cli::command().try_get_matches_from(&words).and_then(|found| Cli::from_arg_matches(&found));
        assert!(parsed.is_ok(), "{line}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
        shown.insert(words[1].to_owned());
        checked += 1;
    }
    assert!(checked > 30 && shown.len() > 10, "{checked} commands of {shown:?}");
}

#[test]
fn a_command_that_does_not_exist_would_be_found() {
    let guide = "x\n\n```sh\n# on that machine\nquorate-kv stat --all   # shows all\n```\n\nor `quorate-kv status`\n";
    assert_eq!(
        (block_lines(guide), spans(guide, "quorate-kv ")),
        (vec!["quorate-kv stat --all"], vec!["quorate-kv status"])
    );
    assert!(Cli::command().try_get_matches_from(["quorate-kv", "stat", "--all"]).is_err());
}

#[test]
fn links_of_the_operators_guide_lead_to_sections_that_exist() {
    let (own, of_readme) = (anchors(GUIDE), anchors(README));
    for link in GUIDE.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or_default()) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        match file {
            "" => assert!(own.contains(anchor), "no section {anchor} in the guide"),
            "README.md" => {
                assert!(anchor.is_empty() || of_readme.contains(anchor), "no section {anchor} in the README")
            }
            file => assert_eq!((file, anchor), (RUNBOOKS, "")),
        }
    }
}

#[test]
fn the_operators_guide_names_each_alert_in_a_section_and_leads_to_its_runbook() {
    let alerts = fs::read_to_string(repository().join("metrics/prometheus/alerts.yml")).expect("the alerts");
    let alerts: BTreeSet<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let mut named = BTreeSet::new();
    for (name, target) in GUIDE.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: ")) {
        assert_eq!(target, format!("{RUNBOOKS}#{}", name.to_lowercase()));
        assert!(GUIDE.matches(&format!("[{name}]")).count() > 1, "no section has {name}");
        named.insert(name);
    }
    let missing: Vec<_> = alerts.difference(&named).collect();
    assert!(missing.is_empty(), "no section has the alerts {missing:?}");
    // They come with more alerts.
    if let Ok(runbooks) = fs::read_to_string(repository().join("metrics/RUNBOOKS.md")) {
        let headings = anchors(&runbooks);
        let unknown: Vec<_> = named.iter().filter(|name| !headings.contains(&name.to_lowercase())).collect();
        assert!(unknown.is_empty(), "no runbook of {unknown:?}");
    }
}

#[test]
fn panels_that_the_operators_guide_names_are_on_a_dashboard() {
    let titles = titles();
    let mut named = 0;
    for (dashboard, file) in DASHBOARDS {
        let begins = format!("{dashboard}: *");
        for (at, _) in GUIDE.match_indices(&begins).filter(|(at, _)| !GUIDE[..*at].ends_with(char::is_alphabetic)) {
            // One line, or a line that was broken within a title.
            let text = GUIDE[at + dashboard.len() + 2..].replace('\n', " ");
            for title in titles_at(&text) {
                named += 1;
                // One dashboard for all has other titles.
                let Some(known) = titles.get(file) else { continue };
                assert!(known.contains(&title), "no panel {title:?} on the dashboard {dashboard} ({file})");
            }
        }
    }
    assert!(named > 30, "{named} panels");
}

#[test]
fn each_matter_that_the_live_page_shows_has_a_section_in_the_operators_guide() {
    let verdict = include_str!("../live/verdict.rs");
    let own = anchors(GUIDE);
    let calls = verdict.lines().filter(|line| line.trim().starts_with("return need("));
    let sections: BTreeSet<_> = calls.filter_map(|line| line.rsplit('"').nth(1)).collect();
    assert!(sections.len() >= 5 && sections.iter().all(|name| own.contains(*name)), "{sections:?}");
}

/// The commands of the blocks of a shell, without comments.
fn block_lines(text: &str) -> Vec<&str> {
    let (mut found, mut is_open) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            is_open = line == "```sh";
        } else if is_open && !line.is_empty() && !line.starts_with('#') {
            found.push(line.split(" #").next().unwrap_or_default().trim());
        }
    }
    found
}

/// The pieces of code within sentences that begin so.
fn spans<'a>(text: &'a str, begins: &str) -> Vec<&'a str> {
    let sentences = text.lines().filter(|line| !line.trim_start().starts_with("```"));
    sentences.flat_map(|line| line.split('`').skip(1).step_by(2)).filter(|code| code.starts_with(begins)).collect()
}

/// `*A*, *B*` at the beginning of a text.
fn titles_at(text: &str) -> Vec<String> {
    let (mut titles, mut rest) = (Vec::new(), text.trim_start());
    while let Some((title, after)) = rest.strip_prefix('*').and_then(|rest| rest.split_once('*')) {
        titles.push(title.split_whitespace().collect::<Vec<_>>().join(" "));
        rest = after.strip_prefix(',').map(str::trim_start).unwrap_or_default();
    }
    titles
}

/// The anchors of headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut found, mut is_open) = (BTreeSet::new(), false);
    for line in text.lines() {
        is_open ^= line.trim_start().starts_with("```");
        if let Some(title) = line.strip_prefix('#').filter(|_| !is_open) {
            let title = title.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            found.insert(title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect());
        }
    }
    found
}

/// The titles of all panels, by file.
fn titles() -> BTreeMap<String, BTreeSet<String>> {
    let dir = fs::read_dir(repository().join("metrics/grafana")).expect("dashboards");
    let files =
        dir.map(|entry| entry.expect("a file").path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
    let mut titles = BTreeMap::new();
    for path in files {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path).expect("readable")).expect("JSON");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let mut of_file = BTreeSet::new();
        collect(&dashboard["panels"], &mut of_file);
        titles.insert(name, of_file);
    }
    titles
}

/// Rows have panels of their own.
fn collect(panels: &Value, titles: &mut BTreeSet<String>) {
    for panel in panels.as_array().into_iter().flatten() {
        titles.extend(panel["title"].as_str().map(ToOwned::to_owned));
        collect(&panel["panels"], titles);
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
