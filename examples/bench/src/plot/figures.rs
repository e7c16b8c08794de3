//! The lines of benchmarks, and the medians of repeated rounds.

use crate::workload::Failed;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The number of series that a drawing can tell apart.
pub(super) const SERIES_MAX: usize = 8;
/// The largest figure that is drawn: no operation takes that long, and no system does as many.
const FIGURE_MAX: f64 = 1e12;

/// A line of a benchmark. Other fields are ignored.
#[derive(Deserialize)]
struct Line {
    #[serde(flatten)]
    subject: Subject,
    in_flight: u64,
    ops_per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

/// The system that a line is about, and the settings that only some benchmarks have.
#[derive(Clone, Deserialize, PartialEq, Eq)]
struct Subject {
    system: String,
    mode: Option<String>,
    on: Option<String>,
    views: Option<bool>,
    nodes: Option<u64>,
    value_bytes: Option<u64>,
}

impl Subject {
    /// The settings as text, or `None` where the benchmark has no such setting.
    fn settings(&self) -> [Option<String>; 5] {
        [
            self.mode.as_ref().map(|mode| format!("{mode} reads")),
            self.on.as_ref().map(|on| format!("on the {on}")),
            self.views.map(|views| if views { "with views" } else { "without views" }.to_owned()),
            self.nodes.map(|nodes| format!("{nodes} nodes")),
            self.value_bytes.map(|bytes| format!("{bytes}-byte values")),
        ]
    }
}

/// All lines, in their order.
#[derive(Default)]
pub(super) struct Figures {
    lines: Vec<Line>,
}

/// A line of the drawing: one system, or one of its settings if they differ.
#[derive(Debug, PartialEq)]
pub(super) struct Series {
    pub(super) name: String,
    /// In the order of requests in flight.
    pub(super) points: Vec<Point>,
}

impl Series {
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }
}

/// The medians of all rounds with this number of requests in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) in_flight: u64,
    pub(super) ops_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

impl Figures {
    /// Adds a file's lines. The error begins with the number of a line.
    pub(super) fn add(&mut self, text: &str) -> Result<(), Failed> {
        for (number, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
            let line: Line = serde_json::from_str(text).map_err(|error| format!("{number}: {}", mistake(&error)))?;
            for (name, figure) in [("ops_per_s", line.ops_per_s), ("p50_us", line.p50_us), ("p99_us", line.p99_us)] {
                if !(0.0..=FIGURE_MAX).contains(&figure) || (name == "ops_per_s" && figure == 0.0) {
                    return Err(format!("{number}: {name} is {figure}, which cannot be drawn").into());
                }
            }
            self.lines.push(line);
        }
        Ok(())
    }

    /// The medians of each system and setting, in the order of their first lines.
    pub(super) fn series(&self) -> Result<Vec<Series>, Failed> {
        let mut subjects: Vec<&Subject> = Vec::new();
        for line in &self.lines {
            if !subjects.contains(&&line.subject) {
                subjects.push(&line.subject);
            }
        }
        match subjects.len() {
            0 => Err("the files have no lines to draw".into()),
            1..=SERIES_MAX => Ok(subjects.into_iter().map(|subject| self.series_of(subject)).collect()),
            many => Err(format!("{many} systems and settings; at most {SERIES_MAX} can be told apart").into()),
        }
    }

    fn series_of(&self, subject: &Subject) -> Series {
        let mut rounds: BTreeMap<u64, Vec<&Line>> = BTreeMap::new();
        for line in self.lines.iter().filter(|line| line.subject == *subject) {
            rounds.entry(line.in_flight).or_default().push(line);
        }
        let point = |(in_flight, lines): (u64, Vec<&Line>)| Point {
            in_flight,
            ops_per_s: median(lines.iter().map(|line| line.ops_per_s)),
            p50_us: median(lines.iter().map(|line| line.p50_us)),
            p99_us: median(lines.iter().map(|line| line.p99_us)),
        };
        let differing = self.values().map(|values| values.len() > 1);
        let named =
            subject.settings().into_iter().zip(differing).filter_map(|(text, differs)| text.filter(|_| differs));
        let name = [subject.system.clone()].into_iter().chain(named).collect::<Vec<_>>().join(", ");
        Series { name, points: rounds.into_iter().map(point).collect() }
    }

    /// The settings that all lines which have them share, and the number of rounds.
    pub(super) fn common(&self) -> String {
        let mut counts: Vec<(&Subject, u64, usize)> = Vec::new();
        for line in &self.lines {
            match counts.iter_mut().find(|(subject, of, _)| (*subject, *of) == (&line.subject, line.in_flight)) {
                Some((_, _, count)) => *count += 1,
                None => counts.push((&line.subject, line.in_flight, 1)),
            }
        }
        let counts = counts.iter().map(|(_, _, count)| *count);
        let rounds = match (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0)) {
            (1, 1) => "one round".to_owned(),
            (least, most) if least == most => format!("medians of {most} rounds"),
            (least, most) => format!("medians of {least} to {most} rounds"),
        };
        let shared = self.values().into_iter().filter(|values| values.len() == 1).flatten();
        shared.chain([rounds]).collect::<Vec<_>>().join(", ")
    }

    /// The different values of each setting, among the lines that have it.
    fn values(&self) -> [Vec<String>; 5] {
        let mut values: [Vec<String>; 5] = Default::default();
        for line in &self.lines {
            for (values, value) in values.iter_mut().zip(line.subject.settings()) {
                values.extend(value.filter(|value| !values.contains(value)));
            }
        }
        values
    }
}

/// The parser's message without its position, which is within the one line.
fn mistake(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(mistake, _)| mistake.to_owned())
}

/// The middle figure, or the mean of the two in the middle.
fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(text: &str) -> Figures {
        let mut figures = Figures::default();
        figures.add(text).unwrap();
        figures
    }

    fn error(text: &str) -> String {
        Figures::default().add(text).unwrap_err().to_string()
    }

    #[test]
    fn each_figure_is_the_median_of_all_rounds() {
        let figures = figures(
            r#"{"system":"quorate","in_flight":64,"ops_per_s":300,"p50_us":30,"p99_us":100,"p999_us":900}
               {"system":"reach","in_flight":1,"ops_per_s":7,"p50_us":8,"p99_us":9,"p999_us":10}
               {"system":"quorate","in_flight":1,"ops_per_s":11,"p50_us":5,"p99_us":6,"p999_us":7}
               {"system":"quorate","in_flight":64,"ops_per_s":100,"p50_us":10,"p99_us":300,"p999_us":900}

               {"system":"quorate","in_flight":1,"ops_per_s":12,"p50_us":8,"p99_us":9,"p999_us":7}
               {"system":"quorate","in_flight":64,"ops_per_s":200,"p50_us":20,"p99_us":200,"p999_us":900}"#,
        );
        let quorate = vec![
            Point { in_flight: 1, ops_per_s: 11.5, p50_us: 6.5, p99_us: 7.5 },
            Point { in_flight: 64, ops_per_s: 200.0, p50_us: 20.0, p99_us: 200.0 },
        ];
        let reach = vec![Point { in_flight: 1, ops_per_s: 7.0, p50_us: 8.0, p99_us: 9.0 }];
        let expected =
            [Series { name: "quorate".into(), points: quorate }, Series { name: "reach".into(), points: reach }];
        assert_eq!(figures.series().unwrap(), expected);
        assert_eq!(figures.common(), "medians of 1 to 3 rounds");
    }

    #[test]
    fn settings_are_named_in_the_series_if_they_differ_and_else_once() {
        let line = |system: &str, nodes: &str| {
            format!(r#"{{"system":"{system}",{nodes}"in_flight":1,"ops_per_s":1,"p50_us":1,"p99_us":1}}"#) + "\n"
        };
        let one = figures(&(line("quorate", r#""nodes":3,"value_bytes":256,"#) + &line("etcd", "")));
        let names = |figures: &Figures| figures.series().unwrap().into_iter().map(|of| of.name).collect::<Vec<_>>();
        assert_eq!(names(&one), ["quorate", "etcd"]);
        assert_eq!(one.common(), "3 nodes, 256-byte values, one round");

        let two = figures(&(line("quorate", r#""nodes":3,"value_bytes":0,"#) + &line("quorate", r#""nodes":5,"#)));
        assert_eq!(names(&two), ["quorate, 3 nodes", "quorate, 5 nodes"]);
        assert_eq!(two.common(), "0-byte values, one round");
    }

    #[test]
    fn a_bad_line_is_named_with_its_number_and_mistake() {
        let good = r#"{"system":"x","in_flight":1,"ops_per_s":1,"p50_us":1,"p99_us":1}"#;
        assert_eq!(error(&format!("{good}\n\n{{")), "3: EOF while parsing an object");
        assert_eq!(error(&good.replace(r#""p99_us":1"#, r#""p9_us":1"#)), "1: missing field `p99_us`");
        assert!(error(&good.replace(r#""in_flight":1"#, r#""in_flight":"1""#)).starts_with("1: invalid type: string"));
        assert_eq!(
            error(&good.replace(r#""ops_per_s":1"#, r#""ops_per_s":0"#)),
            "1: ops_per_s is 0, which cannot be drawn"
        );
        let negative = good.replace(r#""p50_us":1"#, r#""p50_us":-1"#);
        assert_eq!(error(&negative), "1: p50_us is -1, which cannot be drawn");
        assert!(error(&good.replace(r#""p50_us":1"#, r#""p50_us":1e13"#)).contains("p50_us is 10000000000000"));
    }

    #[test]
    fn no_lines_and_too_many_series_are_refused() {
        assert_eq!(figures("\n").series().unwrap_err().to_string(), "the files have no lines to draw");
        let line = |system: usize| {
            format!(r#"{{"system":"{system}","in_flight":1,"ops_per_s":1,"p50_us":1,"p99_us":1}}"#) + "\n"
        };
        let lines = |count: usize| (0..count).map(line).collect::<String>();
        assert_eq!(figures(&lines(SERIES_MAX)).series().unwrap().len(), SERIES_MAX);
        assert!(figures(&lines(SERIES_MAX + 1)).series().unwrap_err().to_string().starts_with("9 systems"));
    }
}
