//! Names, matchers and labels in PromQL expressions, as far as ours need it.

/// A metric's name in an expression, and the label matchers that follow it.
pub(crate) struct Selector {
    pub(crate) name: String,
    /// The text of the expression in front of the name.
    pub(crate) before: String,
    /// Label, operator, value.
    pub(crate) matchers: Vec<(String, String, String)>,
}

/// All names with the prefix `quorate_` outside quotes, and the matchers in the braces after each.
pub(crate) fn selectors(promql: &str) -> Vec<Selector> {
    let (mut found, mut rest) = (Vec::new(), promql);
    while let Some(at) = rest.find("quorate_") {
        let end = rest[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(rest.len(), |end| at + end);
        let name = rest[at..end].to_owned();
        let before = promql[..promql.len() - rest.len() + at].to_owned();
        rest = &rest[end..];
        let mut matchers = Vec::new();
        if let Some((inside, behind)) = rest.strip_prefix('{').and_then(|open| open.split_once('}')) {
            for matcher in inside.split("\",") {
                let (left, value) = matcher.split_once('"').expect("a quoted value");
                let label = left.trim().trim_end_matches(['=', '~', '!']).to_owned();
                let operator = left.trim()[label.len()..].to_owned();
                matchers.push((label, operator, value.trim_end_matches('"').to_owned()));
            }
            rest = behind;
        }
        found.push(Selector { name, before, matchers });
    }
    found
}

/// The labels listed in `by (…)`, `without (…)` and `on (…)`.
pub(crate) fn grouped_by(promql: &str) -> Vec<String> {
    let lists = [" by (", "by (", "without (", "on ("].into_iter().flat_map(|word| promql.split(word).skip(1));
    lists
        .filter_map(|behind| behind.split_once(')'))
        .flat_map(|(list, _)| list.split(','))
        .map(|label| label.trim().to_owned())
        .collect()
}

/// The labels used in `{{…}}`.
pub(crate) fn shown_in(legend: &str) -> Vec<String> {
    let opened = legend.split("{{").skip(1);
    opened.filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label.trim().to_owned()).collect()
}

pub(crate) fn balanced(promql: &str) -> bool {
    [('(', ')'), ('{', '}'), ('[', ']')]
        .iter()
        .all(|(open, close)| promql.matches(*open).count() == promql.matches(*close).count())
}
