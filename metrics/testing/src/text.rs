//! JSON as text for people: a value that fits on a line stands on one.

use serde_json::Value;

/// Columns of a line, beyond which a value is broken into lines.
const WIDTH: usize = 120;

/// The fields that say which object it is; they stand first.
const FIRST: [&str; 7] = ["id", "uid", "name", "type", "title", "refId", "description"];

/// The value as JSON, indented by two spaces a level, with a line feed at the end. The order of an
/// object's fields depends on their names alone.
pub(crate) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out.push('\n');
    out
}

fn write(value: &Value, depth: usize, out: &mut String) {
    let line = on_one_line(value);
    // The comma after it, and the name before it, count only roughly.
    if 2 * depth + line.len() < WIDTH - 20 {
        out.push_str(&line);
        return;
    }
    match value {
        Value::Array(items) => {
            out.push('[');
            write_all(items.iter().map(|item| (None, item)), depth, out);
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            write_all(in_order(fields).map(|(name, value)| (Some(name), value)), depth, out);
            out.push('}');
        }
        _ => out.push_str(&line),
    }
}

fn write_all<'a>(items: impl Iterator<Item = (Option<&'a String>, &'a Value)>, depth: usize, out: &mut String) {
    let indent = |depth: usize| format!("\n{}", "  ".repeat(depth));
    for (position, (name, value)) in items.enumerate() {
        if position > 0 {
            out.push(',');
        }
        out.push_str(&indent(depth + 1));
        if let Some(name) = name {
            out.push_str(&format!("{}: ", Value::from(&**name)));
        }
        write(value, depth + 1, out);
    }
    out.push_str(&indent(depth));
}

fn on_one_line(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(on_one_line).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields =
                in_order(fields).map(|(name, value)| format!("{}: {}", Value::from(&**name), on_one_line(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

fn in_order(fields: &serde_json::Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    let place = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    fields.sort_by_key(|(name, _)| (place(name), (*name).clone()));
    fields.into_iter()
}

#[cfg(test)]
mod tests {
    use super::pretty;
    use serde_json::{Value, json};

    #[test]
    fn a_long_value_is_broken_a_short_one_is_not_and_both_read_back() {
        let long = json!({ "short": { "b": 1, "a": [1, null, "x\"y"] }, "title": "T", "long": vec!["word"; 30] });
        let text = pretty(&long);
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), long);
        assert!(text.starts_with("{\n  \"title\": \"T\",\n  \"long\": [\n    \"word\",\n"), "{text}");
        assert!(text.contains("  \"short\": { \"a\": [1, null, \"x\\\"y\"], \"b\": 1 }\n}\n"), "{text}");
    }
}
