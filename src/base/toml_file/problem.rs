//! Mistakes in files: where they are, what is wrong, and what to do; drawn for a terminal, in a line, or as JSON. Secrets are not shown.

use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::string::FromUtf8Error;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, NamedSource, SourceSpan};
use schemars::JsonSchema;
use serde::Serialize;

use crate::base::age_keys::{SECRET_KEY, is_secret};

/// The text of a file, kept to point into it.
#[derive(Clone)]
pub struct Source {
    name: String,
    pub(super) text: Arc<str>,
}

impl Source {
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let text = String::from_utf8(std::fs::read(path)?).map_err(not_utf_8)?;
        Ok(Self { name: path.display().to_string(), text: text.into() })
    }

    #[cfg(test)]
    pub fn from_text(text: &str) -> Self {
        Self { name: "test.toml".to_owned(), text: text.into() }
    }

    /// Returns a problem at a place in this file.
    pub fn problem(&self, span: Option<Range<usize>>, message: impl Into<String>, hint: Option<String>) -> Problem {
        let position = span.clone().map(|span| position(&self.text, span.start));
        // The lines of the place are drawn whole.
        let drawn = span.clone().filter(|span| !may_hold_a_secret(lines_of(&self.text, span)));
        // A hint may have a URL as an example.
        let is_written = |url: &str| self.text.contains(&format!("://{url}"));
        Problem {
            message: safe(&message.into(), |_| true),
            file: NamedSource::new(&self.name, Arc::clone(&self.text)),
            position,
            place: span.clone(),
            span: drawn.map(|span| {
                let shows_a_url = self.text.get(span.clone()).is_some_and(|text| text.contains("://"));
                SourceSpan::from((span.start, if shows_a_url { 0 } else { span.end.saturating_sub(span.start) }))
            }),
            hint: hint.map(|hint| safe(&hint, is_written)),
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

/// Parts of keys and of SQL beside which a secret stands, or may stand by mistake.
const BESIDE_SECRETS: [&str; 12] = [
    "pass",
    "pwd",
    "secret",
    "token",
    "access_key",
    "key_id",
    "credential",
    "webhook",
    "ping_url",
    "url_file",
    "sign_key",
    "_env",
];

/// Returns whether a key, a value or a line is better not repeated.
pub(super) fn may_hold_a_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    is_secret(text) || BESIDE_SECRETS.iter().any(|word| lower.contains(word)) || without_passwords(text) != text
}

/// Removes what may be a secret from words for people; `is_hidden` decides about the part of a URL behind `://`.
fn safe(text: &str, is_hidden: impl Fn(&str) -> bool) -> String {
    without_secret_keys(&without_passwords(&without_urls(text, is_hidden)))
}

/// Removes words such as `user:password@host`, with a scheme or without.
fn without_passwords(text: &str) -> String {
    let word = |word: &str| {
        let plain = word.trim_end_matches(is_between_words);
        let beside = plain.rsplit_once('@').map_or("", |(login, _)| login);
        let login = beside.split_once("://").map_or(beside, |(_, login)| login);
        if login.contains(':') { format!("…{}", &word[plain.len()..]) } else { word.to_owned() }
    };
    text.split_inclusive(is_between_words).map(word).collect()
}

fn is_between_words(letter: char) -> bool {
    letter.is_whitespace() || "\"'`".contains(letter)
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
fn without_urls(text: &str, is_hidden: impl Fn(&str) -> bool) -> String {
    let (mut safe, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("://") {
        let (scheme, url) = rest.split_at(at + 3);
        let end = url.find(is_between_words).unwrap_or(url.len());
        safe += scheme;
        safe += if is_hidden(&url[..end]) { "…" } else { &url[..end] };
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
    /// The bytes of the file that it is about.
    place: Option<Range<usize>>,
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

    /// Returns whether it is about a part of `place`: what is wrong with the whole may follow from it.
    pub fn is_within(&self, place: &Range<usize>) -> bool {
        self.place.as_ref().is_some_and(|own| place.start <= own.start && own.end <= place.end && own != place)
    }

    /// Its line and column, counted from 1.
    #[cfg(test)]
    pub(super) fn position(&self) -> Option<(usize, usize)> {
        self.position
    }

    /// Where it is in its file.
    pub(super) fn start(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.start)
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

    /// Returns each mistake as JSON has it.
    pub fn mistakes(&self) -> Vec<Mistake<'_>> {
        let mistakes = self.0.iter().map(|problem| Mistake {
            file: problem.file.name(),
            line: problem.position.map(|(line, _)| line),
            column: problem.position.map(|(_, column)| column),
            message: &problem.message,
            hint: problem.hint.as_deref(),
        });
        mistakes.collect()
    }
}

/// A mistake in a file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Mistake<'p> {
    file: &'p str,
    /// From 1.
    line: Option<usize>,
    /// From 1.
    column: Option<usize>,
    message: &'p str,
    hint: Option<&'p str>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{} in the configuration", crate::base::units::plural(count, "mistake"))
    }
}

impl std::error::Error for Problems {}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn not_utf_8(error: FromUtf8Error) -> std::io::Error {
    let valid = error.utf8_error().valid_up_to();
    let line = 1 + error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
    std::io::Error::new(ErrorKind::InvalidData, format!("line {line} is not in UTF-8: save the file as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_start_at_one() {
        assert_eq!(position("äö = 1\nx", 0), (1, 1));
        assert_eq!(position("äö = 1\nx", 4), (1, 3));
        assert_eq!(position("äö = 1\nx", 9), (2, 1));
    }
}
