//! The table in README.md equals the catalogue.

use quorate_metrics::catalogue::{CATALOGUE, Label, Metric, Unit, Values};

const BEGIN: &str = "<!-- begin: the table of the catalogue -->\n";
const END: &str = "<!-- end: the table of the catalogue -->\n";

#[test]
fn the_table_in_the_readme_is_that_of_the_catalogue() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("the README");
    let (above, rest) = readme.split_once(BEGIN).expect("the table's begin");
    let (written, below) = rest.split_once(END).expect("the table's end");
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(path, format!("{above}{BEGIN}{}{END}{below}", table())).expect("the README is written");
        return;
    }
    assert!(
        written == table(),
        "the table is out of step: UPDATE_README=1 cargo test -p quorate-metrics --test readme"
    );
}

fn table() -> String {
    let rows: String = CATALOGUE.iter().copied().map(row).collect();
    format!("\n| metric | kind | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n{rows}\n")
}

fn row(metric: &Metric) -> String {
    let unit = match metric.unit {
        Unit::Yes => "1 or 0",
        Unit::Count => "count",
        Unit::Entries => "entries",
        Unit::Index => "index",
        Unit::Term => "term",
        Unit::Bytes => "bytes",
        Unit::Seconds => "seconds",
        Unit::Milliseconds => "milliseconds",
        Unit::Ratio => "0 to 1",
        Unit::UnixSeconds => "seconds since 1970",
    };
    let labels: Vec<_> = metric.labels.iter().map(label).collect();
    format!("| `{}` | {} | {unit} | {} | {} |\n", metric.name, metric.kind.as_str(), labels.join("; "), metric.help)
}

fn label(label: &Label) -> String {
    match label.values {
        Values::OneOf(values) => format!("`{}`: {}", label.name, values.join(", ")),
        Values::Peer => format!("`{}`: an id", label.name),
        Values::PeerOrUnknown => format!("`{}`: an id, or unknown", label.name),
        Values::Version => format!("`{}`", label.name),
    }
}
