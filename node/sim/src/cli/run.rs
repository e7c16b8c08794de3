//! The command `quorate-sim run`: it runs many seeds and prints their totals and failures.

use super::{
    answer::{COMMAND, Held, Misuse, PROGRAM, in_a_line, say, show_look, tell},
    choices::{Layers, threads},
};
use quorate_progress::{Progress, Unit};
use quorate_sim::{
    Layer, Plan,
    runs::{self, Failure, Settings, Summary, TraceText, name, once},
};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    ops::Range,
    str::FromStr,
    time::Duration,
};

/// After this number of seeds every kind of fault must have had an effect.
const ALIVE_AFTER: u64 = 1_000;

/// The last lines of a trace, shown with a failure.
const LAST_LINES: usize = 40;

/// Fresh seeds begin below this, so that every program that reads the JSON can hold one.
const FRESH_MAX: u64 = 1 << 48;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which seeds: `A..B` without B, or `fresh:N` for N from a random place, which is printed
    #[arg(long, value_name = "A..B|fresh:N")]
    seeds: Seeds,
    /// The layers that carry them out
    #[arg(long, value_enum, default_value_t)]
    layer: Layers,
    /// Threads, by default one for each processor
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Run every K-th seed a second time: its trace must be the same
    #[arg(long, value_name = "K")]
    twice: Option<NonZeroU64>,
    /// Begin no seed after this many minutes
    #[arg(long, value_name = "M")]
    minutes: Option<NonZeroU64>,
    /// Begin no seed after this many failures
    #[arg(long, value_name = "N", default_value = "3")]
    failures: NonZeroUsize,
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Seeds {
    These(Range<u64>),
    Fresh(u64),
}

pub(super) fn run(args: &Args) -> Held {
    let seeds = match &args.seeds {
        Seeds::These(seeds) => seeds.clone(),
        Seeds::Fresh(count) => {
            let first = rand::random_range(0..FRESH_MAX);
            first..first + count
        }
    };
    // Printed first, so that an interrupted run can be repeated.
    let Range { start, end } = seeds;
    tell(&format!("seeds {start}..{end}"));

    let settings = Settings {
        seeds,
        layers: args.layer.all(),
        jobs: threads(args.jobs),
        twice_every: args.twice,
        time_max: args.minutes.map(|minutes| Duration::from_secs(minutes.get().saturating_mul(60))),
        failures_max: args.failures,
        carry: Layer::run,
    };
    let (progress, counter) = Progress::start(PROGRAM, "seeds", Unit::Items("runs"), None);
    let summary = runs::run(&settings, |look| match args.minutes {
        None => show_look(&counter, look),
        // Which of the two limits comes first is not known.
        Some(minutes) => {
            counter.set(look.done);
            counter.note(format!("{}; at most {minutes} min", look.note));
        }
    });
    drop(progress);

    let dead = dead(&summary);
    if args.json {
        let mut json = summary.to_json();
        json["seeds"] = serde_json::json!({ "from": start, "to": end });
        say(&json.to_string());
    } else {
        say(&format!("seeds {start}..{end}"));
        summary.failures.iter().for_each(show);
        say(summary.to_string().trim_end());
        if let Some(kinds) = &dead {
            say(&format!(
                "dead: {kinds} never did anything in {ALIVE_AFTER} seeds or more; mend what should carry them out"
            ));
        }
    }
    summary.failures.iter().for_each(|failure| tell(&in_a_line(failure)));
    Ok(summary.failures.is_empty() && dead.is_none())
}

/// The kinds of faults that had no effect in many seeds.
fn dead(summary: &Summary) -> Option<String> {
    let seeds = summary.figures.iter().map(|(_, figures)| figures.report.runs).max().unwrap_or_default();
    let kinds = summary.together().report.dead();
    (seeds >= ALIVE_AFTER && !kinds.is_empty()).then(|| kinds.join(", "))
}

/// Prints a failure: the violation, the command that repeats it, and the end of its trace.
fn show(failure: &Failure) {
    let Failure { seed, layer, violation } = failure;
    say(&in_a_line(failure));
    violation.lines().skip(1).for_each(|line| say(&format!("  {}", line.trim_start())));
    say(&format!("  again: {COMMAND} replay {seed} --layer {} --trace --shrink", name(*layer)));
    let again = once(Layer::run, *layer, &Plan::of(*seed), TraceText::Kept);
    let from = again.lines.len().saturating_sub(LAST_LINES);
    again.lines[from..].iter().for_each(|line| say(&format!("  {line}")));
    if again.outcome.violation.as_ref() != Some(violation) {
        let other = again.outcome.violation.as_deref().unwrap_or("nothing failed");
        say(&format!("  not deterministic: when run again for these lines, {other}"));
    }
}

impl FromStr for Seeds {
    type Err = Misuse;

    fn from_str(text: &str) -> Result<Self, Misuse> {
        let wrong = || Misuse(format!("`{text}` names no seeds; say for example 0..1000 or fresh:1000"));
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        if let Some(count) = text.strip_prefix("fresh:") {
            let count = number(count)?;
            return if (1..=FRESH_MAX).contains(&count) { Ok(Self::Fresh(count)) } else { Err(wrong()) };
        }
        let (from, to) = text.split_once("..").ok_or_else(wrong)?;
        let seeds = number(from)?..number(to)?;
        if seeds.is_empty() { Err(wrong()) } else { Ok(Self::These(seeds)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_so_many_fresh_ones() {
        let parse = |text: &str| text.parse::<Seeds>().ok();
        assert_eq!(parse("3..7"), Some(Seeds::These(3..7)));
        assert_eq!(parse("fresh:10"), Some(Seeds::Fresh(10)));
        for wrong in ["", "3", "7..3", "3..3", "..3", "3..", "-1..3", "fresh:0", "fresh:", "fresh:x", "3..=7"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
