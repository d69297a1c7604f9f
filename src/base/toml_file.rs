//! Reads a TOML file into a typed value and reports **every** mistake in it at once, each with its file,
//! line, column, the text underlined and a hint.
//!
//! serde stops at the first error. So the offending key is removed from the parsed document and the rest is read again, until
//! what is left is valid: each round finds one mistake, and the rounds are bounded.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, NamedSource, SourceSpan};
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::age_keys::{SECRET_KEY, is_secret};

/// More mistakes than this in one file are not worth listing.
const MISTAKES_LISTED: usize = 100;

/// The text of a file, kept to point into it.
#[derive(Clone)]
pub struct Source {
    name: String,
    text: Arc<str>,
}

impl Source {
    pub fn read(path: &Path) -> std::io::Result<Self> {
        Ok(Self { name: path.display().to_string(), text: std::fs::read_to_string(path)?.into() })
    }

    #[cfg(test)]
    pub fn from_text(text: &str) -> Self {
        Self { name: "test.toml".to_owned(), text: text.into() }
    }

    /// Returns a problem at a place in this file.
    pub fn problem(&self, span: Option<Range<usize>>, message: impl Into<String>, hint: Option<String>) -> Problem {
        let position = span.clone().map(|span| position(&self.text, span.start));
        // The lines of the place are drawn whole.
        let drawn = span.filter(|span| !is_secret(lines_of(&self.text, span)));
        Problem {
            message: without_secret_keys(&without_urls(&message.into())),
            file: NamedSource::new(&self.name, Arc::clone(&self.text)),
            position,
            span: drawn.map(|span| {
                let shows_a_url = self.text.get(span.clone()).is_some_and(|text| text.contains("://"));
                SourceSpan::from((span.start, if shows_a_url { 0 } else { span.end.saturating_sub(span.start) }))
            }),
            hint,
        }
    }
}

/// Returns the lines in which a place begins and ends, and those between them.
fn lines_of<'t>(text: &'t str, span: &Range<usize>) -> &'t str {
    let (start, end) = (text.floor_char_boundary(span.start), text.floor_char_boundary(span.end.max(span.start)));
    let first = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let last = text[end..].find('\n').map_or(text.len(), |newline| end + newline);
    &text[first..last]
}

/// Removes secret keys of age, which may have been put where a file's name or a public key belongs.
fn without_secret_keys(text: &str) -> String {
    let (mut safe, mut rest) = (String::new(), text);
    while let Some(at) = rest.to_ascii_uppercase().find(SECRET_KEY) {
        let (before, key) = rest.split_at(at + SECRET_KEY.len());
        safe += before;
        safe.push('…');
        rest = key.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    }
    safe + rest
}

/// Removes URLs: one may contain a password, or be a secret as a whole, wherever it was put by mistake.
fn without_urls(text: &str) -> String {
    let (mut safe, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("://") {
        let (scheme, url) = rest.split_at(at + 3);
        let end = url.find(|c: char| c.is_whitespace() || "\"'`".contains(c)).unwrap_or(url.len());
        safe += scheme;
        safe.push('…');
        rest = &url[end..];
    }
    safe + rest
}

/// One mistake in one file.
#[derive(Clone, Debug, Diagnostic, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    pub message: String,
    #[source_code]
    file: NamedSource<Arc<str>>,
    #[label]
    span: Option<SourceSpan>,
    /// Line and column, both counted from 1.
    position: Option<(usize, usize)>,
    #[help]
    pub hint: Option<String>,
}

impl Problem {
    /// Returns a problem with a file as a whole, for instance that it cannot be read.
    pub fn with_file(path: &Path, message: impl Into<String>, hint: Option<String>) -> Self {
        Source { name: path.display().to_string(), text: "".into() }.problem(None, message, hint)
    }

    /// Formats the problem as `jobs/a.toml:3:1: what is wrong; what to do`.
    pub fn in_a_line(&self) -> String {
        let place = self.position.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
        let hint = self.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{}{place}: {}{hint}", self.file.name(), self.message)
    }
}

/// All mistakes of all files.
#[derive(Clone, Debug)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Draws the mistakes for a terminal.
    pub fn render(&self, colour: bool) -> String {
        let theme = if colour { miette::GraphicalTheme::unicode() } else { miette::GraphicalTheme::unicode_nocolor() };
        // No lines around the mistake are shown: one of them may contain a URL with its password.
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(100).with_context_lines(0);
        let mut text = String::new();
        for problem in &self.0 {
            if problem.span.is_some() {
                // Writing to a String does not fail; a diagnostic that can't be drawn is still printed plainly.
                if handler.render_report(&mut text, problem).is_ok() {
                    continue;
                }
            }
            let line = problem.position.map(|(line, _)| format!(":{line}")).unwrap_or_default();
            text += &format!("  × {}{line}: {}\n", problem.file.name(), problem.message);
            if let Some(hint) = &problem.hint {
                text += &format!("  help: {hint}\n");
            }
        }
        text
    }

    pub fn to_json(&self) -> serde_json::Value {
        let rows = self.0.iter().map(|problem| {
            serde_json::json!({
                "file": problem.file.name(),
                "line": problem.position.map(|position| position.0),
                "column": problem.position.map(|position| position.1),
                "message": problem.message,
                "hint": problem.hint,
            })
        });
        rows.collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{} in the configuration", crate::base::units::plural(count, "mistake"))
    }
}

impl std::error::Error for Problems {}

/// Reads `source` as a `T`. Mistakes are pushed to `problems`; even then a value is returned, made of the valid keys, so that its
/// references can be checked in the same pass. Returns `None` when not even that can be read.
pub fn parse<T: DeserializeOwned>(source: &Source, problems: &mut Vec<Problem>) -> Option<T> {
    let (mut document, syntax_errors) = DeTable::parse_recoverable(&source.text);
    if !syntax_errors.is_empty() {
        for error in syntax_errors.into_iter().take(MISTAKES_LISTED) {
            let message = format!("not valid TOML: {}", error.message());
            problems.push(source.problem(error.span(), message, None));
        }
        return None;
    }
    for _ in 0..MISTAKES_LISTED {
        match T::deserialize(toml::Deserializer::from(document.clone())) {
            Ok(value) => return Some(value),
            Err(error) => {
                let (message, hint) = in_our_words(error.message());
                problems.push(source.problem(error.span(), message, hint));
                if !error.span().is_some_and(|span| remove_entry(document.get_mut(), &span)) {
                    return None;
                }
            }
        }
    }
    None
}

/// Returns the candidate nearest to a misspelt word, if one is near.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// Rewrites serde's "unknown field `a`, expected one of `b`, `c`" for users, with a hint.
fn in_our_words(message: &str) -> (String, Option<String>) {
    let Some(rest) = message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `")) else {
        return (without_rust(message), None);
    };
    let mut quoted = rest.split('`');
    let unknown = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.skip(1).step_by(2).collect();
    let what = if message.starts_with("unknown field") { "key" } else { "value" };
    let hint = did_you_mean(unknown, known.iter().copied())
        .or_else(|| (!known.is_empty()).then(|| format!("possible here: {}", known.join(", "))));
    (format!("unknown {what} `{unknown}`"), hint)
}

/// Rewrites serde's "invalid type: integer `3`, expected struct Keep" in TOML's terms: the program's own type names help no user.
fn without_rust(message: &str) -> String {
    let found_and_expected = ["invalid type: ", "invalid value: ", "invalid length "]
        .into_iter()
        .find_map(|start| message.strip_prefix(start)?.split_once(", expected "));
    let Some((found, expected)) = found_and_expected else {
        return match message.split_once("did not match any variant of untagged enum") {
            Some(_) => "this value has none of the forms that are possible here".to_owned(),
            None => message.to_owned(),
        };
    };
    let found = match found.split_once(' ') {
        Some(("string", text)) => format!("the text {text}"),
        Some(("integer" | "boolean", value)) => value.replace('`', ""),
        Some(("floating", rest)) => rest.trim_start_matches("point ").replace('`', ""),
        _ if found == "map" => "a table".to_owned(),
        _ if found == "sequence" => "a list".to_owned(),
        _ if found.parse::<u64>().is_ok() => format!("a list of {found}"),
        _ => found.to_owned(),
    };
    let is_rust = |word: &str| {
        ["struct ", "internally tagged enum ", "adjacently tagged enum ", "enum ", "variant ", "tuple "]
            .iter()
            .any(|start| word.starts_with(start))
    };
    let expected = match expected {
        "a map" => "a table",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a string" | "a borrowed string" | "string" | "str" => "a text in quotation marks",
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        word if word.starts_with("struct ") => "a table of keys, as in { key = value }",
        word if is_rust(word) => "a value of another form",
        word => word,
    };
    format!("found {found}, expected {expected}")
}

/// Removes the innermost entry that contains `span`. Returns false when no entry does.
fn remove_entry(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    // Inner tables come first, whatever their own span: that of `[table]` covers only its header.
    let in_a_table = table.iter_mut().any(|(_, value)| match value.get_mut() {
        DeValue::Table(inner) => remove_entry(inner, span),
        _ => false,
    });
    if in_a_table {
        return true;
    }
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let found = table.iter().find(|(key, value)| holds(key.span()) || holds(value.span())).map(|(key, _)| key.clone());
    // A mistake in a table as a whole has that table's own span: then the table is removed.
    found.is_some_and(|key| table.remove(&key).is_some())
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        schedule: Option<String>,
        timeout: Option<crate::base::units::Span>,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        last: Option<u32>,
    }

    type Said = (Option<(usize, usize)>, String);

    fn problems_of(text: &str) -> (Option<Example>, Vec<Said>) {
        let mut problems = Vec::new();
        let value = parse::<Example>(&Source::from_text(text), &mut problems);
        let said = problems.into_iter().map(|p| (p.position, format!("{} / {}", p.message, p.hint.unwrap_or_default())));
        (value, said.collect())
    }

    #[test]
    fn every_mistake_is_found_in_one_pass_with_its_place() {
        let (value, said) = problems_of("shedule = \"x\"\nschedule = 3\ntimeout = \"2\"\n[inner]\nlast = -1\nlst = 2\n");
        let lines: Vec<_> = said.iter().map(|(position, _)| position.unwrap().0).collect();
        assert_eq!(said.len(), 5, "{said:?}");
        for line in [1, 2, 3, 5, 6] {
            assert!(lines.contains(&line), "{said:?}");
        }
        assert!(said.iter().any(|(_, text)| text.contains("unknown key `shedule` / did you mean `schedule`?")), "{said:?}");
        let value = value.expect("what was right comes back");
        assert!(value.schedule.is_none() && value.timeout.is_none() && value.inner.unwrap().last.is_none());
    }

    #[test]
    fn syntax_errors_are_found_too_and_nothing_is_guessed() {
        let (value, said) = problems_of("schedule = \"x\ntimeout = \"1h\"\n");
        assert!(value.is_none());
        assert!(said[0].1.contains("not valid TOML"), "{said:?}");
    }

    #[test]
    fn a_right_file_has_no_problems() {
        let (value, said) = problems_of("schedule = \"x\"\ntimeout = \"2h\"\n");
        assert!(said.is_empty() && value.is_some());
    }

    #[test]
    fn a_value_of_the_wrong_form_is_told_without_the_programs_own_names() {
        for (text, expected) in [
            ("inner = \"x\"", "found the text \"x\", expected a table of keys, as in { key = value }"),
            ("schedule = 3", "found 3, expected a text in quotation marks"),
            ("schedule = true", "found true, expected a text"),
            ("schedule = 1.5", "found 1.5, expected a text"),
            ("schedule = {}", "found a table, expected a text"),
            ("[inner]\nlast = -1", "found -1, expected a whole number that is not negative"),
            ("[inner]\nlast = \"many\"", "found the text \"many\", expected a whole number"),
        ] {
            let (_, said) = problems_of(text);
            assert!(said[0].1.contains(expected), "{text}: {said:?}");
            assert!(
                !["struct", "u32", "Inner", "sequence", "map", "integer"].iter().any(|word| said[0].1.contains(word)),
                "{said:?}"
            );
        }
    }

    #[test]
    fn columns_count_characters_and_start_at_one() {
        assert_eq!(position("äö = 1\nx", 0), (1, 1));
        assert_eq!(position("äö = 1\nx", 4), (1, 3));
        assert_eq!(position("äö = 1\nx", 9), (2, 1));
    }
}
