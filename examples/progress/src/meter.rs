//! The figures of a task as text.

use std::time::Duration;

/// The unit in which a task is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things of this name, in the plural.
    Items(&'static str),
    /// Milliseconds that pass by themselves.
    Millis,
}

/// A task, as it is named.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) program: &'static str,
    pub(crate) what: String,
    pub(crate) unit: Unit,
}

impl Task {
    /// The line for a state that was reached after this time.
    pub(crate) fn line(&self, elapsed: Duration, done: u64, total: Option<u64>, note: &str) -> String {
        format!("{}: {}: {}", self.program, self.what, self.figures(elapsed, done, total, note))
    }

    /// What is done of the total, the rate and the time left; the rate is a mean since the start.
    pub(crate) fn figures(&self, elapsed: Duration, done: u64, total: Option<u64>, note: &str) -> String {
        let mut text = match total {
            // A total may be an estimate.
            Some(total) => {
                let done = done.min(total);
                let percent = done.checked_mul(100).map_or(done / (total / 100).max(1), |part| part / total.max(1));
                format!("{} ({percent} %)", self.of(done, total))
            }
            None => self.one(done),
        };
        let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
        if self.unit != Unit::Millis && done > 0 {
            text += &format!(", {}", self.rate(rate));
        }
        if let Some(total) = total.filter(|_| rate > 0.0) {
            let left = total.saturating_sub(done) as f64 / rate;
            text += &format!(", {} left", time(left));
        }
        if total.is_none() {
            text += &format!(", after {}", time(elapsed.as_secs_f64()));
        }
        if !note.is_empty() {
            text += &format!("; {note}");
        }
        text
    }

    fn of(&self, done: u64, total: u64) -> String {
        match self.unit {
            Unit::Bytes => format!("{} of {}", bytes(done as f64), bytes(total as f64)),
            Unit::Items(name) => format!("{} of {} {name}", count(done), count(total)),
            Unit::Millis => format!("{} of {} s", done / 1_000, total.div_ceil(1_000)),
        }
    }

    fn one(&self, done: u64) -> String {
        match self.unit {
            Unit::Bytes => bytes(done as f64),
            Unit::Items(name) => format!("{} {name}", count(done)),
            Unit::Millis => format!("{} s", done / 1_000),
        }
    }

    fn rate(&self, a_second: f64) -> String {
        match self.unit {
            Unit::Bytes => format!("{}/s", bytes(a_second)),
            _ if a_second < 9.95 => format!("{a_second:.1}/s"),
            _ => format!("{}/s", count(a_second.round() as u64)),
        }
    }
}

fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A number with its thousands apart.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 100.0 => format!("{seconds:.0} s"),
        seconds if seconds < 6_000.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_command_the_task_the_part_the_rate_and_the_time_left() {
        let task = |unit| Task { program: "quorate-kv", what: "backup".into(), unit };
        let after = Duration::from_secs(5);
        let mib = 1 << 20;
        for (unit, done, total, note, line) in [
            (Unit::Bytes, 96 * mib, Some(512 * mib), "", "96.0 MiB of 512.0 MiB (18 %), 19.2 MiB/s, 22 s left"),
            (Unit::Bytes, 0, Some(512), "", "0 B of 512 B (0 %)"),
            (Unit::Bytes, 2_048, None, "", "2.0 KiB, 410 B/s, after 5 s"),
            (Unit::Bytes, 700, Some(512), "", "512 B of 512 B (100 %), 140 B/s, 0 s left"),
            (Unit::Items("runs"), 12, Some(4_000), "1 failed", "12 of 4,000 runs (0 %), 2.4/s, 28 min left; 1 failed"),
            (Unit::Items("runs"), 4_000, Some(4_000), "", "4,000 of 4,000 runs (100 %), 800/s, 0 s left"),
            (Unit::Items("runs"), 0, Some(0), "", "0 of 0 runs (0 %)"),
            (Unit::Millis, 5_000, Some(60_000), "", "5 of 60 s (8 %), 55 s left"),
            (Unit::Items("keys"), u64::MAX, Some(u64::MAX - 1), "", ""),
        ] {
            let said = task(unit).line(after, done, total, note);
            // The last one is only so large that nothing may overflow.
            assert!(line.is_empty() || said == format!("quorate-kv: backup: {line}"), "{said}");
        }
    }
}
