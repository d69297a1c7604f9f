//! Reads a TOML file into a typed value and reports **every** mistake in it at once, each with its file, line, column, the text underlined
//! and a hint.
//!
//! What the JSON Schema knows is told by it (`shape`): keys and the forms of values. serde says the rest, and stops at the first error: so the
//! offending key is removed from the parsed document and the rest is read again, until what is left is valid. Each round finds one mistake,
//! and the rounds are bounded.

mod known;
mod near;
mod problem;
mod say;
mod shape;
mod syntax;

use std::ops::Range;

pub use known::{Habit, Known};
pub use near::did_you_mean;
pub use problem::{Mistake, Problem, Problems, Source};
use serde::de::DeserializeOwned;
use shape::Path;
use toml::de::{DeTable, DeValue};

/// More mistakes than this in one file are not worth listing.
const MISTAKES_LISTED: usize = 100;

/// A kind of file.
pub trait Document: DeserializeOwned {
    /// What is known about its keys.
    fn known() -> &'static Known;
}

/// A file that was read.
pub struct Read<T> {
    /// Made of the valid keys, so that its references can be checked in the same pass.
    pub value: T,
    /// The keys that were left out, as they have mistakes.
    pub without: Vec<Vec<String>>,
    /// What is allowed, and probably not meant.
    pub notes: Vec<String>,
}

/// Reads `source` as a `T`. Mistakes are pushed to `problems`; even then a value is returned. Returns `None` when not even that can be read.
pub fn parse<T: Document>(source: &Source, problems: &mut Vec<Problem>) -> Option<Read<T>> {
    let (mut document, syntax_errors) = DeTable::parse_recoverable(&source.text);
    if !syntax_errors.is_empty() {
        let told = syntax::in_our_words(&source.text, &syntax_errors).into_iter().take(MISTAKES_LISTED);
        problems.extend(told.map(|(span, message, hint)| source.problem(span, message, hint)));
        return None;
    }
    let before = problems.len();
    let found = shape::look(document.get_ref(), &source.text, T::known());
    let mut without: Vec<Path> = Vec::new();
    for mistake in found.mistakes.into_iter().take(MISTAKES_LISTED) {
        problems.push(source.problem(Some(mistake.span), mistake.message, mistake.hint));
        without.push(mistake.path);
    }
    without.extend(found.unusable);
    for path in &without {
        remove(document.get_mut(), path);
    }
    let value = by_serde(&mut document, source, problems, before, &mut without);
    problems[before..].sort_by_key(Problem::start);
    let notes = found.notes.into_iter().map(|(span, note)| source.problem(Some(span), note, None).in_a_line()).collect();
    Some(Read { value: value?, without, notes })
}

fn by_serde<T: Document>(
    document: &mut toml::Spanned<DeTable<'_>>,
    source: &Source,
    problems: &mut Vec<Problem>,
    before: usize,
    without: &mut Vec<Path>,
) -> Option<T> {
    for _ in 0..MISTAKES_LISTED {
        match T::deserialize(toml::Deserializer::from(document.clone())) {
            Ok(value) => return Some(value),
            Err(error) => {
                // A key that is missing here was removed.
                let follows = error.message().starts_with("missing field") && problems.len() > before;
                if !follows {
                    problems.push(source.problem(error.span(), without_rust(error.message()), None));
                }
                let path = error.span().and_then(|span| entry_at(document.get_ref(), &span));
                let path = path.filter(|path| remove(document.get_mut(), path))?;
                without.push(path);
            }
        }
    }
    None
}

/// What the system says, without its number.
pub fn without_number(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Rewrites what serde says in TOML's terms: the program's own type names help no user. Most of it is our own, from a `TryFrom`.
fn without_rust(message: &str) -> String {
    let found_and_expected = ["invalid type: ", "invalid value: ", "invalid length "]
        .into_iter()
        .find_map(|start| message.strip_prefix(start)?.split_once(", expected "));
    let Some((found, expected)) = found_and_expected else {
        let is_of_serde =
            ["missing field", "unknown field", "unknown variant", "duplicate field", "data did not match", "wanted "]
                .iter()
                .any(|start| message.starts_with(start));
        return if is_of_serde {
            "this value has none of the forms that are possible here".to_owned()
        } else {
            message.to_owned()
        };
    };
    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    let found = match kind {
        "string" => format!("the text {value}"),
        "integer" | "boolean" => value.replace('`', ""),
        "floating" => value.trim_start_matches("point ").replace('`', ""),
        _ => return "this value has none of the forms that are possible here".to_owned(),
    };
    let expected = match expected {
        "u8" => "a whole number that is 0 to 255",
        "u16" => "a whole number that is 0 to 65535",
        "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number that is not as large",
        "a TOML datetime" => "a date without quotation marks, as in 2027-01-31",
        _ => return format!("found {found}, which has none of the forms that are possible here"),
    };
    format!("found {found}, expected {expected}")
}

/// Finds the entry at a place: the one whose key is there, or else the innermost that contains it.
fn entry_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<Path> {
    entry_where(table, &|key, _| key == *span)
        .or_else(|| entry_where(table, &|key, value| contains(&key, span) || contains(&value, span)))
}

fn contains(outer: &Range<usize>, span: &Range<usize>) -> bool {
    outer.start <= span.start && span.end <= outer.end
}

fn entry_where(table: &DeTable<'_>, is_it: &dyn Fn(Range<usize>, Range<usize>) -> bool) -> Option<Path> {
    // Inner tables come first, whatever their own span: that of `[table]` covers only its header.
    let inner = table.iter().find_map(|(key, value)| match value.get_ref() {
        DeValue::Table(inner) => Some((key, entry_where(inner, is_it)?)),
        _ => None,
    });
    if let Some((key, mut path)) = inner {
        path.insert(0, key.get_ref().to_string());
        return Some(path);
    }
    let found = table.iter().find(|(key, value)| is_it(key.span(), value.span()));
    found.map(|(key, _)| vec![key.get_ref().to_string()])
}

/// Removes an entry. Returns false when there is none.
fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    match path {
        [] => false,
        [key] => table.remove(key.as_str()).is_some(),
        [key, rest @ ..] => match table.get_mut(key.as_str()).map(toml::Spanned::get_mut) {
            Some(DeValue::Table(inner)) => remove(inner, rest),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests;
