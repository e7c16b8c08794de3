//! Errors of the command line: one line that names the subcommand whose help to read.

use crate::exit::{Exit, Failure, one_line};
use clap::{Command, error::ErrorKind};
use std::{ffi::OsString, process::ExitCode};

/// Prints help and version of this command line unchanged, and a mistake as one line.
pub(super) fn explain(error: &clap::Error, args: &[OsString], cli: Command) -> ExitCode {
    if !error.use_stderr() {
        return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let help = format!("see `{} --help`", subcommand(cli, args));
    let message = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        format!("a command is missing; {help}")
    } else {
        let text = error.render().to_string();
        let mistake = text.split("\n\nUsage:").next().unwrap_or_default();
        let mistake = mistake.split("\n\nFor more information").next().unwrap_or_default();
        format!("{}; {help}", one_line(mistake.trim_start_matches("error: ")))
    };
    Failure::new(Exit::Usage, message).report(asks_for_json(args))
}

/// The subcommand as far as it was recognized, such as `quorate-kv member add`.
fn subcommand(mut command: Command, args: &[OsString]) -> String {
    let mut path = "quorate-kv".to_owned();
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()).filter(|arg| !arg.starts_with('-')) {
        let Some(inner) = command.find_subcommand(arg) else { break };
        path = format!("{path} {}", inner.get_name());
        command = inner.clone();
    }
    path
}

/// Whether `--json` was given, although the command line was not understood.
fn asks_for_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

#[cfg(test)]
mod tests {
    use super::{super::Cli, *};
    use clap::CommandFactory;

    #[test]
    fn the_subcommand_is_named_as_far_as_it_is_understood() {
        for (line, expected) in [
            ("quorate-kv", "quorate-kv"),
            ("quorate-kv puts k v", "quorate-kv"),
            ("quorate-kv --json put k", "quorate-kv put"),
            ("quorate-kv put get", "quorate-kv put"),
            ("quorate-kv member", "quorate-kv member"),
            ("quorate-kv member add 4", "quorate-kv member add"),
            ("quorate-kv member ad 4", "quorate-kv member"),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(subcommand(Cli::command(), &args), expected, "{line}");
        }
    }
}
