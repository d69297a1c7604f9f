//! The facts of a report: numbers in their units, lists and tables as JSON.

use std::time::Duration;

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::words::shortened;
use crate::base::units::{bytes, count, duration};

/// A page shows no more of one fact.
const MAX_FACT_CHARS: usize = 20_000;

/// JSON of more characters than this is folded.
const FOLDED_CHARS: usize = 400;

pub(super) fn list(facts: &Map<String, Value>) -> Markup {
    html! { dl.facts.wide { @for (name, value) in facts { div { dt { (name) } dd { (one(name, value)) } } } } }
}

fn one(name: &str, value: &Value) -> Markup {
    match value {
        Value::Null => html! { span.quiet { "–" } },
        Value::Bool(is_so) => html! { (if *is_so { "yes" } else { "no" }) },
        Value::Number(number) => {
            html! { span title=(number) { (number_in_words(name, value).unwrap_or_else(|| number.to_string())) } }
        }
        Value::String(text) => html! { (shortened(text, MAX_FACT_CHARS)) },
        Value::Array(values) if values.is_empty() => html! { span.quiet { "none" } },
        Value::Array(values) if values.len() <= 50 && values.iter().all(Value::is_string) => {
            html! { ul { @for value in values { li { (shortened(value.as_str().unwrap_or_default(), MAX_FACT_CHARS)) } } } }
        }
        Value::Array(_) | Value::Object(_) => json(value),
    }
}

fn json(value: &Value) -> Markup {
    let text = shortened(&format!("{value:#}"), MAX_FACT_CHARS);
    html! {
        @if text.chars().count() > FOLDED_CHARS { details { summary { "show" } pre { (text) } } } @else { pre { (text) } }
    }
}

/// By the unit at the end of the fact's name.
fn number_in_words(name: &str, value: &Value) -> Option<String> {
    if name.ends_with("_bytes") || name.starts_with("bytes_") {
        return value.as_u64().map(bytes);
    }
    if name.ends_with("_seconds") {
        return Some(duration(Duration::try_from_secs_f64(value.as_f64()?).ok()?));
    }
    value.as_u64().map(count)
}
