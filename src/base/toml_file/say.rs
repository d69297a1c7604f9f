//! The words for what is wrong with a value, and for what to write in its place.

use serde_json::Value;
use toml::de::DeValue;

use super::known::{Form, Known};
use super::near::did_you_mean;
use super::problem::may_hold_a_secret;

/// The most keys of a table that are listed.
const KEYS_LISTED: usize = 8;

/// Writes `a, b and c`.
pub fn list(words: &[String], and: &str) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} {and} {last}", first.join(", ")),
    }
}

/// Keys whose texts are SQL, which may hold a password or what is in a row.
const SQL: [&str; 2] = ["statements", "where"];

fn may_be_repeated(key: &str, text: &str) -> bool {
    !SQL.contains(&key) && !may_hold_a_secret(key) && !may_hold_a_secret(text)
}

/// Describes a value that was found.
pub fn found(key: &str, value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if !may_be_repeated(key, text) => "a text".to_owned(),
        DeValue::String(text) => format!("the text {:?}", &**text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table of keys".to_owned(),
    }
}

/// Lists the texts that are possible besides the example.
pub fn others(known: &Known, schema: &Value) -> String {
    let example = known.example(schema);
    let texts = known.forms(schema).into_iter().find_map(|form| if let Form::OneOf(texts) = form { Some(texts) } else { None });
    let texts = texts.into_iter().flatten().map(|text| format!("{text:?}")).filter(|text| *text != example);
    match list(&texts.collect::<Vec<_>>(), "or") {
        none if none.is_empty() => none,
        others => format!(" (or {others})"),
    }
}

/// Describes the values that are possible.
pub fn expected(known: &Known, forms: &[Form<'_>]) -> String {
    let words = forms.iter().flat_map(|form| match form {
        Form::OneOf(texts) => texts.iter().map(|text| format!("{text:?}")).collect(),
        form => vec![in_words(known, form)],
    });
    list(&words.collect::<Vec<_>>(), "or")
}

fn in_words(known: &Known, form: &Form<'_>) -> String {
    match form {
        Form::OneOf(texts) => quoted(texts),
        Form::Text(schema) => match schema.get("format").and_then(Value::as_str) {
            Some("span") => "a length of time in quotation marks".to_owned(),
            Some("size") => "a size in quotation marks".to_owned(),
            Some("rate") => "a rate in quotation marks".to_owned(),
            Some("date") => "a date without quotation marks".to_owned(),
            _ => "a text in quotation marks".to_owned(),
        },
        Form::Whole { may_be_negative: true } => "a whole number".to_owned(),
        Form::Whole { may_be_negative: false } => "a whole number that is not negative".to_owned(),
        Form::Number => "a number".to_owned(),
        Form::Flag => "true or false".to_owned(),
        Form::Table(_) => "a table of keys".to_owned(),
        Form::List(items) => match known.forms(items).first() {
            Some(Form::Text(_) | Form::OneOf(_)) => "a list of texts".to_owned(),
            Some(Form::Table(_)) => "a list of tables".to_owned(),
            _ => "a list".to_owned(),
        },
    }
}

fn quoted(texts: &[&str]) -> String {
    list(&texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>(), "or")
}

/// Says what to write in place of a text that is none of those that are possible.
pub fn of_unknown_value(known: &Known, key: &str, text: &str, texts: &[&str], schema: &Value) -> String {
    let meant = known.words.iter().find(|(of, word, _)| *of == key && word.eq_ignore_ascii_case(text));
    let near = || did_you_mean(text, texts.iter().copied());
    let hint = meant.map(|(_, _, ours)| format!("did you mean `{ours}`?")).or_else(near);
    hint.unwrap_or_else(|| format!("possible here: {}", expected(known, &known.forms(schema))))
}

/// Says how to write a value that has the wrong form.
pub fn of_wrong_form(known: &Known, key: &str, value: &DeValue<'_>, schema: &Value, siblings: &[&str]) -> String {
    let forms = known.forms(schema);
    let takes = |wanted: fn(&Form<'_>) -> bool| forms.iter().any(wanted);
    let unit = forms.iter().find_map(|form| match form {
        Form::Text(schema) => schema.get("format").and_then(Value::as_str),
        _ => None,
    });
    let short =
        |text: &str| text.len() <= 60 && !text.contains("://") && !text.contains(['\n', '@']) && may_be_repeated(key, text);
    match value {
        DeValue::String(text) if takes(|form| matches!(form, Form::List(_))) && short(text) => {
            let single = key.strip_suffix('s').filter(|single| siblings.contains(single));
            let or = single.map(|single| format!(", or {single} = {:?}", &**text)).unwrap_or_default();
            format!("write {key} = [{:?}]{or}", &**text)
        }
        DeValue::String(text) if takes(|form| matches!(form, Form::Flag)) => match flag(text) {
            Some(flag) => format!("without quotation marks: {key} = {flag}"),
            None => format!("without quotation marks: {key} = true, or {key} = false"),
        },
        DeValue::String(text) if takes(|form| matches!(form, Form::Number)) && share_of(text).is_some() => {
            format!("a share, without quotation marks: {key} = {}", share_of(text).unwrap_or_default())
        }
        DeValue::String(text)
            if takes(|form| matches!(form, Form::Whole { .. })) && text.parse::<u64>().is_ok()
                || takes(|form| matches!(form, Form::Number)) && text.parse::<f64>().is_ok() =>
        {
            format!("without quotation marks: {key} = {}", &**text)
        }
        DeValue::Array(values) if takes(|form| matches!(form, Form::Text(_))) => {
            let first = values.iter().next().and_then(|value| value.get_ref().as_str()).filter(|text| short(text));
            let several = format!("{key}s");
            let several = siblings.contains(&several.as_str()).then_some(several);
            let listed: Vec<&str> =
                values.iter().filter_map(|value| value.get_ref().as_str()).filter(|text| short(text)).collect();
            match (several, first) {
                (Some(several), Some(_)) => format!("write {several} = {listed:?}"),
                (None, Some(first)) => format!("write {key} = {first:?}"),
                _ => format!("write it like {key} = {}", known.example(schema)),
            }
        }
        DeValue::Integer(number) if own_unit(schema).is_some() => {
            format!("it has a unit, in quotation marks: {key} = \"{number}{}\"", own_unit(schema).unwrap_or_default())
        }
        DeValue::Integer(number) if takes(|form| matches!(form, Form::Text(_))) && is_number(&known.example(schema)) => {
            format!("in quotation marks: {key} = \"{number}\"")
        }
        DeValue::Integer(number) if unit == Some("span") => {
            format!("a length of time has a unit: {key} = \"{number}s\", \"{number}m\" (minutes), \"{number}h\" or \"{number}d\"")
        }
        DeValue::Integer(number) if unit == Some("size") => {
            format!("a size has a unit: {key} = \"{number}B\", \"{number}KB\" or \"{number}MB\"")
        }
        _ => format!("write it like {key} = {}", known.example(schema)),
    }
}

/// Returns whether an example of a text, in quotation marks, is a number: so may be what is meant.
fn is_number(example: &str) -> bool {
    example.trim_matches('"').parse::<f64>().is_ok()
}

/// What a word for true or false means; None for any other word.
fn flag(text: &str) -> Option<bool> {
    let is_of = |words: &[&str]| words.iter().any(|word| text.trim().eq_ignore_ascii_case(word));
    if is_of(&["true", "yes", "on", "1", "enabled", "active", "always", "y", "t"]) {
        return Some(true);
    }
    is_of(&["false", "no", "off", "0", "disabled", "inactive", "never", "none", "n", "f"]).then_some(false)
}

/// The unit in the example of the key itself.
fn own_unit(schema: &Value) -> Option<&str> {
    let example = schema.get("examples")?.get(0)?.as_str()?;
    let unit = example.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let is_unit =
        unit.len() < example.len() && unit.len() <= 4 && unit.chars().all(|letter| letter.is_ascii_alphabetic() || letter == '/');
    (is_unit && !unit.is_empty()).then_some(unit)
}

/// `40%` is 0.4.
fn share_of(text: &str) -> Option<f64> {
    let percent: f64 = text.trim().strip_suffix('%')?.trim().parse().ok()?;
    Some(percent / 100.0)
}

/// Lists the keys of a table, those that look like the one that was written first.
pub fn some_keys(written: &str, keys: &[&str], name: &str, page: &str) -> String {
    let place = if name.is_empty() { "here".to_owned() } else { format!("in {name}") };
    if keys.len() <= KEYS_LISTED {
        return format!("possible {place}: {}", keys.join(", "));
    }
    let mut ranked: Vec<(f64, &str)> = keys.iter().map(|key| (strsim::jaro_winkler(written, key), *key)).collect();
    ranked.sort_by(|one, other| other.0.total_cmp(&one.0));
    let first: Vec<&str> = ranked.iter().take(KEYS_LISTED).map(|(_, key)| *key).collect();
    format!("possible {place}: {}, … ; all {} are in {page}", first.join(", "), keys.len())
}

/// `2M` is two months, and `2m` two minutes.
pub fn about_a_month(key: &str, text: &str, schema: &Value) -> Option<String> {
    let is_span = schema.get("format").is_some_and(|format| format == "span");
    let mut parts = text.split(|letter: char| letter.is_whitespace() || letter.is_ascii_digit());
    (is_span && parts.any(|part| part == "M"))
        .then(|| format!("{key} = {text:?}: `M` means months; write `m` for minutes, or \"months\" to say so"))
}
