//! The alert rules in another time: all durations of `alerts.yml` divided by one factor, so that a test
//! with real processes waits seconds instead of minutes and still runs the rules of the product.
//!
//! Scaled are `for`, `keep_firing_for`, the ranges `[5m]` and `offset`. Not scaled are
//! - counts: `increase(x[10m]) > 5` asks for as many events within the shorter window, so a rule of
//!   counts is stricter by the factor;
//! - thresholds in seconds and dates: a disk or a certificate knows nothing of the factor;
//! - the timeouts of the product: an election lasts as long as ever, so each `for` must still be longer
//!   than what it is there to outlast after the division.

use std::time::Duration;

/// The number of scrapes that a range must hold: a rate needs two samples, also when a scrape is late.
const SCRAPES_MIN: u32 = 4;

/// The time of a scaled set of rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// All durations of the rules are divided by this; 1 changes nothing.
    pub factor: u32,
    /// The interval of scrapes and of evaluations under the scaled rules. The rules refuse to scale
    /// below it.
    pub interval: Duration,
}

impl Scale {
    /// The rules with all durations divided.
    ///
    /// # Errors
    /// A line with a duration that is none, that would be shorter than the interval, or with a range of
    /// fewer than four scrapes; and a subquery, whose resolution would have to be scaled by another rule.
    pub fn rules(&self, rules: &str) -> Result<String, String> {
        let mut scaled = String::new();
        for (number, line) in rules.lines().enumerate() {
            let line = self.line(line).map_err(|problem| format!("line {}: {problem}: {}", number + 1, line.trim()))?;
            scaled += &line;
            scaled.push('\n');
        }
        Ok(scaled)
    }

    fn line(&self, line: &str) -> Result<String, String> {
        let (indent, text) = line.split_at(line.len() - line.trim_start().len());
        for key in ["for: ", "keep_firing_for: "] {
            if let Some(value) = text.strip_prefix(key) {
                return Ok(format!("{indent}{key}{}", self.duration(value, 1)?));
            }
        }
        match text.strip_prefix("expr: ") {
            Some(expression) => Ok(format!("{indent}expr: {}", self.expression(expression)?)),
            None => Ok(line.to_owned()),
        }
    }

    /// An expression with scaled ranges and offsets. Brackets within a string are those of a regular
    /// expression.
    fn expression(&self, promql: &str) -> Result<String, String> {
        let (mut scaled, mut rest) = (String::new(), promql);
        while let Some(at) = rest.find(['"', '\'', '[']).into_iter().chain(rest.find(" offset ")).min() {
            let (before, from) = rest.split_at(at);
            scaled += before;
            let (text, after) = match from.as_bytes()[0] {
                b'[' => {
                    let (range, after) = from[1..].split_once(']').ok_or("a range without an end")?;
                    (format!("[{}]", self.duration(range, SCRAPES_MIN)?), after)
                }
                b' ' => {
                    let from = &from[" offset ".len()..];
                    let end = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
                    (format!(" offset {}", self.duration(&from[..end], 1)?), &from[end..])
                }
                _ => {
                    let end = end_of_string(from).ok_or("a string without an end")?;
                    (from[..end].to_owned(), &from[end..])
                }
            };
            scaled += &text;
            rest = after;
        }
        Ok(scaled + rest)
    }

    /// A duration divided by the factor, in milliseconds, rounded up. It must last `intervals`.
    fn duration(&self, text: &str, intervals: u32) -> Result<String, String> {
        let duration = duration(text).ok_or_else(|| format!("{text:?} is no duration that can be scaled"))?;
        let scaled = Duration::from_millis(duration.as_millis().div_ceil(self.factor.max(1).into()) as u64);
        let least = self.interval * intervals;
        if scaled < least {
            return Err(format!("{text} divided by {} is {scaled:?}, and {least:?} is the least", self.factor));
        }
        Ok(format!("{}ms", scaled.as_millis()))
    }
}

/// A duration as Prometheus writes it, such as `1h30m`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let (mut sum, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let milliseconds = match &after[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            "y" => 31_536_000_000,
            _ => return None,
        };
        sum += Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(milliseconds)?);
        rest = &after[unit..];
    }
    (!text.is_empty()).then_some(sum)
}

/// The end of the string with which a text begins.
fn end_of_string(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_TWENTY: Scale = Scale { factor: 20, interval: Duration::from_millis(250) };

    #[test]
    fn durations_of_rules_are_divided_and_all_else_stays() {
        let rules = "groups:\n  - name: quorate\n    rules:\n      - alert: Slow\n        \
                     expr: a{b=\"[5m] offset 1h\", c=~'[0-9]+'} > 14 * 86400 and rate(x[5m] offset 1h30m) > 0.5\n        \
                     for: 1m\n        keep_firing_for: 5m\n        annotations:\n          \
                     description: \"For 5m, see [5m].\"\n";
        let expected = rules
            .replace("x[5m] offset 1h30m", "x[15000ms] offset 270000ms")
            .replace("for: 1m", "for: 3000ms")
            .replace("keep_firing_for: 5m", "keep_firing_for: 15000ms");
        assert_eq!(BY_TWENTY.rules(rules).expect("scaled"), expected);
    }

    #[test]
    fn the_factor_one_changes_the_unit_alone() {
        let one = Scale { factor: 1, ..BY_TWENTY };
        assert_eq!(
            one.rules("expr: rate(x[5m])\nfor: 1m\n").expect("scaled"),
            "expr: rate(x[300000ms])\nfor: 60000ms\n"
        );
    }

    #[test]
    fn a_duration_below_the_interval_is_refused_with_its_line() {
        for (rules, problem) in [
            ("a\nfor: 4s", "line 2: 4s divided by 20 is 200ms, and 250ms is the least: for: 4s"),
            (
                "expr: rate(x[19s]) > 0",
                "line 1: 19s divided by 20 is 950ms, and 1s is the least: expr: rate(x[19s]) > 0",
            ),
            ("expr: x offset 1s", "1s divided by 20"),
            ("expr: rate(x[5m:1m])", "\"5m:1m\" is no duration that can be scaled"),
            ("for: soon", "\"soon\" is no duration that can be scaled"),
            ("expr: x[5m", "a range without an end"),
            ("expr: x{a=\"b\\\"}", "a string without an end"),
        ] {
            let refused = BY_TWENTY.rules(rules).expect_err(rules);
            assert!(refused.contains(problem), "{refused}");
        }
        assert!(BY_TWENTY.rules("expr: rate(x[20s])\nfor: 5s").is_ok(), "what is as long as the least is accepted");
    }

    #[test]
    fn durations_are_read_as_prometheus_writes_them() {
        for (text, seconds) in [("90s", 90), ("1h30m", 5400), ("1d", 86_400), ("2w", 1_209_600), ("1y", 31_536_000)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for text in ["", "5", "m", "5 m", "-5m", "1.5h", "99999999999999999999s", "999999999999999999y"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
