//! `txn`: a transaction from options, which keep their order, or from JSON.

use super::{connection::Connection, value};
use crate::{
    exit::{Exit, Failure},
    http::messages::{CompareRequest, KeyRequest, OperationAnswer, OperationRequest, PairRequest, TxnRequest},
    object,
    octets::Octets,
    output,
};
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches, error::ErrorKind};
use serde_json::json;

/// A transaction of the command line.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    parts: Parts,
    /// The whole transaction as the JSON body of POST /v1/txn; `-` reads standard input, `@FILE`
    /// reads a file
    #[arg(conflicts_with_all = OPTIONS.map(|(name, ..)| name))]
    json_body: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// The options that make a transaction: name, value and help.
const OPTIONS: [(&str, &str, &str); 9] = [
    ("if", "KEY=VALUE", "The key must have this value"),
    ("if-exists", "KEY", "The key must exist"),
    ("if-absent", "KEY", "The key must not exist"),
    ("put", "KEY=VALUE", "If all of these hold: set the key"),
    ("delete", "KEY", "If all hold: remove the key"),
    ("get", "KEY", "If all hold: print the key's value"),
    ("else-put", "KEY=VALUE", "If one does not hold: set the key"),
    ("else-delete", "KEY", "If one does not hold: remove the key"),
    ("else-get", "KEY", "If one does not hold: print the key's value"),
];

/// The transaction of the options.
#[derive(Debug)]
struct Parts(TxnRequest);

impl clap::Args for Parts {
    fn augment_args(command: Command) -> Command {
        let option = |(name, value, help)| Arg::new(name).long(name).value_name(value).help(help);
        command.args(OPTIONS.map(|parts| option(parts).action(ArgAction::Append)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Parts {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Vec::new();
        for (name, ..) in OPTIONS {
            let indices = matches.indices_of(name).into_iter().flatten();
            given.extend(indices.zip(matches.get_many::<String>(name).into_iter().flatten().map(|text| (name, text))));
        }
        given.sort_unstable();
        let mut request = TxnRequest::default();
        for (_, (name, text)) in given {
            let key = || text.clone();
            let pair = || {
                let (key, value) = text.split_once('=').ok_or_else(|| {
                    clap::Error::raw(ErrorKind::ValueValidation, format!("--{name} {text:?} is not KEY=VALUE"))
                })?;
                Ok::<_, clap::Error>((key.to_owned(), Octets(value.to_owned().into())))
            };
            let compare = |key, value, exists| CompareRequest { key, value, exists };
            match name {
                "if" => {
                    let (key, value) = pair()?;
                    request.compare.push(compare(key, Some(Some(value)), None));
                }
                "if-exists" => request.compare.push(compare(key(), None, Some(true))),
                "if-absent" => request.compare.push(compare(key(), Some(None), None)),
                _ => {
                    let (list, operation) = match name.strip_prefix("else-") {
                        Some(operation) => (&mut request.failure, operation),
                        None => (&mut request.success, name),
                    };
                    list.push(match operation {
                        "put" => {
                            let (key, value) = pair()?;
                            OperationRequest::Put(PairRequest { key, value })
                        }
                        "delete" => OperationRequest::Delete(KeyRequest { key: key() }),
                        _ => OperationRequest::Get(KeyRequest { key: key() }),
                    });
                }
            }
        }
        Ok(Self(request))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Executes the transaction, and prints the values that it read; fails if a comparison did.
pub(super) async fn run(args: Args, json: bool) -> Result<(), Failure> {
    let Args { parts: Parts(mut request), json_body, connection } = args;
    if let Some(body) = json_body {
        let refuse = |error| Failure::new(Exit::Usage, format_args!("the transaction is not valid JSON: {error}"));
        request = object::from_json(&value::read(body, false)?).map_err(refuse)?;
    }
    if request == TxnRequest::default() {
        return Err(Failure::new(Exit::Usage, "the transaction is empty; see `quorate-kv txn --help`"));
    }
    let answer = connection.client()?.txn(&request).await?;
    if json {
        output::line(json!(answer))?;
    } else {
        if answer.succeeded {
            output::line(format_args!("succeeded, index {}", answer.index))?;
        }
        for result in &answer.results {
            if let OperationAnswer::Get { key, value } = result {
                let value = value.as_ref().map_or(String::new(), |value| format!("\t{value}"));
                output::line(format_args!("{}{value}", Octets(key.clone().into())))?;
            }
        }
    }
    if answer.succeeded {
        return Ok(());
    }
    let problem =
        format_args!("not succeeded: a comparison failed at index {}; read the keys and decide again", answer.index);
    Err(Failure::coded(Exit::Conflict, "not_succeeded", problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, Command};

    #[test]
    fn the_options_make_a_transaction_in_their_order() {
        let parsed = parse(
            "--put a=1 --get a --if b=x=y --delete a --if-absent c --else-get b --put a=2 --if-exists d --else-put e= --else-delete f",
        );
        let expected = r#"{
            "compare":[{"key":"b","value":"x=y"},{"key":"c","value":null},{"key":"d","exists":true}],
            "success":[{"put":{"key":"a","value":"1"}},{"get":{"key":"a"}},{"delete":{"key":"a"}},{"put":{"key":"a","value":"2"}}],
            "failure":[{"get":{"key":"b"}},{"put":{"key":"e","value":""}},{"delete":{"key":"f"}}]}"#;
        assert_eq!(parsed.expect("valid"), object::from_json(expected.as_bytes()).expect("JSON"));
        let error = parse("--put a").expect_err("no value").to_string();
        assert!(error.contains("--put \"a\" is not KEY=VALUE"), "{error}");
    }

    fn parse(line: &str) -> Result<TxnRequest, clap::Error> {
        let command = Parts::augment_args(Command::new("txn").no_binary_name(true));
        command
            .try_get_matches_from(line.split(' '))
            .and_then(|matches| Parts::from_arg_matches(&matches))
            .map(|parts| parts.0)
    }
}
