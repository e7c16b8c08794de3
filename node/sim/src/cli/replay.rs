//! The command `quorate-sim replay`: it repeats one seed or plan, and can shrink it.

use super::{
    answer::{COMMAND, Held, Misuse, PROGRAM, say, tell},
    choices::OneLayer,
    mutants,
};
use quorate_progress::{Progress, Unit};
use quorate_sim::{
    Layer, Plan,
    runs::{Run, TraceText, name, once},
    saved,
    shrink::{Shrunk, shrink},
};
use std::{env, path::PathBuf};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub(super) struct Args {
    /// The seed of the plan
    #[arg(group = "which")]
    seed: Option<u64>,
    /// A plan in a file, as `--save` and `--shrink` write it
    #[arg(long, value_name = "FILE", group = "which")]
    plan: Option<PathBuf>,
    /// The layer that carries it out
    #[arg(long, value_enum, default_value = "actors")]
    layer: OneLayer,
    /// Print all that happened
    #[arg(long)]
    trace: bool,
    /// If it fails, look for a smaller plan that fails in the same way
    #[arg(long)]
    shrink: bool,
    /// Try this many smaller plans, at most
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    tries: usize,
    /// Write the plan (the smaller one, if there is) to this file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Turn a mutant on, in the copy of the sources that has them
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
}

pub(super) fn run(args: &Args) -> Held {
    let plan = match (&args.seed, &args.plan) {
        (Some(seed), _) => Plan::of(*seed),
        (None, Some(file)) => saved::read(file).map_err(|error| {
            Misuse(format!("{}: {error}; write a new file with `quorate-sim replay SEED --save FILE`", file.display()))
        })?,
        // clap requires one of the two.
        (None, None) => return Err(Misuse("neither a seed nor a plan; say one of them".into())),
    };
    if let Some(name) = &args.mutant {
        mutants::turn_on(name)?;
    }
    let layer = args.layer.into();
    let text = if args.trace { TraceText::Kept } else { TraceText::None };
    let run = once(Layer::run, layer, &plan, text);
    show(&plan, &run);
    let Some(violation) = &run.outcome.violation else {
        if let Some(file) = &args.save {
            save(file, &plan)?;
        }
        return Ok(true);
    };

    let mut kept = plan.clone();
    if args.shrink {
        kept = smaller(args, layer, &plan, violation).plan;
    }
    let file = args.save.clone().or_else(|| {
        let place = |seed| env::temp_dir().join(format!("quorate-sim-{}-{seed}.json", name(layer)));
        args.shrink.then(|| place(kept.seed))
    });
    if let Some(file) = file {
        save(&file, &kept)?;
        let mutant = args.mutant.as_ref().map_or_else(String::new, |name| format!(" --mutant {name}"));
        let file = file.display();
        say(&format!("again: {COMMAND} replay --plan {file} --layer {} --trace{mutant}", name(layer)));
    }
    Ok(false)
}

/// Prints the plan, its trace and its result.
fn show(plan: &Plan, run: &Run) {
    say(plan.to_string().trim_end());
    run.lines.iter().for_each(|line| say(line));
    say(&run.outcome.report.to_string());
    say(&format!("trace {:016x}, {:.3} s", run.digest, run.took.as_secs_f64()));
    match &run.outcome.violation {
        Some(violation) => say(&format!("FAILED: {violation}")),
        None => say("all held"),
    }
}

/// Looks for a smaller plan, and shows it with its trace.
fn smaller(args: &Args, layer: Layer, plan: &Plan, violation: &str) -> Shrunk {
    // It usually ends before all tries are made.
    let (progress, tried) = Progress::start(PROGRAM, "shrink", Unit::Items("tries"), Some(args.tries as u64));
    let small = shrink(plan, violation, args.tries, |plan| {
        tried.note(format!("{} faults are left", plan.faults.len()));
        let run = once(Layer::run, layer, plan, TraceText::None);
        tried.add(1);
        run.outcome.violation
    });
    drop(progress);
    let (runs, left, all) = (small.runs, small.plan.faults.len(), plan.faults.len());
    let end = if small.minimal { "nothing smaller fails" } else { "no more tries" };
    say(&format!("\nsmaller after {runs} tries, {left} of {all} faults are left; {end}"));
    show(&small.plan, &once(Layer::run, layer, &small.plan, TraceText::Kept));
    small
}

fn save(file: &std::path::Path, plan: &Plan) -> Result<(), Misuse> {
    saved::write(file, plan)
        .map_err(|error| Misuse(format!("{}: {error}; name another file with --save", file.display())))?;
    tell(&format!("wrote the plan to {}", file.display()));
    Ok(())
}
