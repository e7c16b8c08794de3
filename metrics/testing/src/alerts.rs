//! The alert rules and their runbooks, taken apart. Each value of the rules' file is on one line.

use crate::{ALERTS, scale::duration};
use std::time::Duration;

/// The runbooks, `RUNBOOKS.md`.
pub const RUNBOOKS: &str = include_str!("../../RUNBOOKS.md");

/// A rule of the rules' file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Alert {
    /// The alert's name, which is also the heading of its runbook.
    pub name: String,
    /// The expression.
    pub promql: String,
    /// How long the expression must hold; zero if the alert fires at once.
    pub hold: Duration,
    /// All labels and annotations in their order.
    pub texts: Vec<(String, String)>,
}

impl Alert {
    /// A label or annotation.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.texts.iter().find(|(name, _)| name == key).map(|(_, text)| &**text)
    }
}

/// All alert rules.
#[must_use]
pub fn alerts() -> Vec<Alert> {
    let mut found: Vec<Alert> = Vec::new();
    for line in ALERTS.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            found.push(Alert { name: name.to_owned(), ..Alert::default() });
        }
        let (Some(alert), Some((key, value))) = (found.last_mut(), line.split_once(": ")) else { continue };
        match key {
            "- alert" => {}
            "expr" => value.clone_into(&mut alert.promql),
            "for" => alert.hold = duration(value).expect("a duration"),
            key => alert.texts.push((key.to_owned(), value.trim_matches('"').to_owned())),
        }
    }
    found
}

/// The runbook of an alert: the text under its heading.
#[must_use]
pub fn runbook(alert: &str) -> Option<&'static str> {
    let (_, after) = RUNBOOKS.split_once(&format!("\n## {alert}\n"))?;
    Some(after.split("\n## ").next().unwrap_or(after))
}

/// The fenced blocks of a runbook, in order: commands for `sh`.
#[must_use]
pub fn blocks(runbook: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in runbook.lines().map(str::trim) {
        match (&mut open, line) {
            (None, "```sh") => open = Some(String::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), line) => *block += &format!("{line}\n"),
            _ => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alert_is_taken_apart() {
        let alerts = alerts();
        assert_eq!(alerts.len(), ALERTS.matches("- alert: ").count());
        assert_eq!(alerts.iter().filter(|alert| !alert.hold.is_zero()).count(), ALERTS.matches(" for: ").count());
        for alert in &alerts {
            assert!(!alert.promql.is_empty(), "{alert:?}");
            assert!(matches!(alert.text("severity"), Some("critical" | "warning")), "{alert:?}");
        }
    }

    #[test]
    fn blocks_are_those_of_the_shell_in_their_order() {
        let text = "1. One.\n\n   ```sh\n   a b\n   c\n   ```\n\n```text\nno\n```\n\n```sh\nd\n```\n";
        assert_eq!(blocks(text), ["a b\nc\n", "d\n"]);
    }
}
