//! Numbers, times and texts as the terminal shows them.

pub(super) use quorate_progress::count;
use std::time::{Duration, SystemTime};

/// The place of a fact that is unknown or does not apply.
pub(super) const NONE: &str = "-";

/// A time in milliseconds, with its unit.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1_000.0),
    }
}

pub(super) fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds if seconds < 600.0 => format!("{seconds:.0} s"),
        seconds => format!("{:.0} min", seconds / 60.0),
    }
}

/// The time of day in UTC, to the tenth of a second.
pub(super) fn clock(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string().chars().skip(11).take(10).collect()
}

/// Lines of at most `width` columns, divided at spaces. A longer word has a line for itself.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if columns(line) + 1 + columns(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A text of exactly `width` columns: cut, or filled on one side.
pub(super) fn cell(text: &str, width: usize, is_right: bool) -> String {
    let text = cut(text, width);
    let fill = " ".repeat(width.saturating_sub(columns(&text)));
    if is_right { fill + &text } else { text + &fill }
}

/// A text of at most `width` columns, with an ellipsis where it was cut.
pub(super) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let (mut kept, mut used) = (String::new(), 1);
    for character in text.chars() {
        used += columns(character.encode_utf8(&mut [0; 4]));
        if used > width {
            break;
        }
        kept.push(character);
    }
    if width > 0 { kept + "…" } else { String::new() }
}

/// The columns that a text takes on a terminal.
pub(super) fn columns(text: &str) -> usize {
    ratatui::text::Span::raw(text).width()
}

/// A text of another machine in one line, with control characters written out: they could drive
/// the terminal.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_have_units_and_groups() {
        let counts = [0, 999, 1_000, 48_444_836].map(count);
        assert_eq!(counts, ["0", "999", "1,000", "48,444,836"]);
        assert_eq!([0.04, 9.94, 180.4, 3_200.0].map(millis), ["0.0 ms", "9.9 ms", "180 ms", "3.2 s"]);
        assert_eq!(
            [0.25, 12.4, 3_600.0].map(|time| seconds(Duration::from_secs_f64(time))),
            ["0.2 s", "12 s", "60 min"]
        );
    }

    #[test]
    fn texts_are_divided_between_words_and_cut_to_a_column() {
        assert_eq!(wrap("Node 3 leads term 8. All is well.", 14), ["Node 3 leads", "term 8. All is", "well."]);
        assert_eq!(wrap("an unbreakable-address here", 8), ["an", "unbreakable-address", "here"]);
        assert_eq!((cell("leader", 8, false), cell("7", 3, true)), ("leader  ".to_owned(), "  7".to_owned()));
        assert_eq!(
            (cut("catch-up, 74,580 to go", 9), cut("a", 1), cut("ab", 1)),
            ("catch-up…".into(), "a".into(), "…".into())
        );
        assert_eq!(columns(&cut("日本語", 4)), 3, "a wide character is not divided");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}1m\nb"), "a\\u{1b}[2J\\u{9b}1m\\nb");
    }
}
