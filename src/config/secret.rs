//! Values that are secrets: where they may stand, and messages that do not show them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use toml::Spanned;

use super::NamedFile;
use crate::base::toml_file::{Problem, Source, without_number};

/// A value that may be in the file itself (`KEY`), in the environment (`KEY_env`) or in a file of its own (`KEY_file`).
pub struct Secret<'a> {
    pub key: &'a str,
    /// The name of its owner, for messages.
    pub of: &'a str,
    pub literal: Option<Spanned<String>>,
    pub env: Option<Spanned<String>>,
    pub file: Option<Spanned<PathBuf>>,
}

/// A place in a file that may be shown to the user.
type Place = Option<Range<usize>>;

impl Secret<'_> {
    /// Returns the file that holds it, if one is named; `folder` is that of the file that names it.
    pub fn named_file(&self, folder: &Path) -> Option<NamedFile> {
        let path = folder.join(self.file.as_ref()?.get_ref());
        Some(NamedFile { key: format!("`{}_file` of {}", self.key, self.of), path, is_secret: true })
    }

    /// Returns the value, and the place that names its variable or file: never the place of a literal, whose line would be shown.
    pub fn read(self, source: &Source, folder: &Path, problems: &mut Vec<Problem>) -> Option<(String, Place)> {
        let Self { key, of, literal, env, file } = self;
        let mut problem = |span: Range<usize>, message: String, hint: String| {
            problems.push(source.problem(Some(span), message, Some(hint)));
        };
        let other = env.as_ref().map(Spanned::span).or_else(|| file.as_ref().map(Spanned::span));
        if let (Some(_), Some(other)) = (&literal, other) {
            // The problem does not point at the literal, whose line would be shown.
            problem(
                other,
                format!("both `{key}` and `{key}_{}` are set", if env.is_some() { "env" } else { "file" }),
                "keep one of them".to_owned(),
            );
        } else if let (Some(first), true) = (&env, file.is_some()) {
            problem(first.span(), format!("both `{key}_env` and `{key}_file` are set"), "keep one of them".to_owned());
            return None;
        }
        if let Some(literal) = literal {
            return Some((literal.into_inner(), None));
        }
        if let Some(variable) = env {
            let value = std::env::var(variable.get_ref()).ok();
            if value.is_none() {
                let (message, hint) = match is_of_a_variable(variable.get_ref()) {
                    true => {
                        let message = format!("the environment has no variable `{}`", variable.get_ref());
                        (message, format!("set it for this process, or use `{key}_file`"))
                    }
                    // It may be the secret itself.
                    false => (
                        format!("the environment has no variable that `{key}_env` of {of} names"),
                        format!(
                            "write the name of a variable that holds the `{key}`, not the `{key}` itself: {key}_env = \"NAME\"; or use `{key}_file`"
                        ),
                    ),
                };
                problem(variable.span(), message, hint);
            }
            return value.map(|value| (value, Some(variable.span())));
        }
        let file = file?;
        let path = folder.join(file.get_ref());
        match std::fs::read_to_string(&path) {
            Ok(text) => Some((text.trim().to_owned(), Some(file.span()))),
            Err(error) => {
                let why = without_number(&error);
                let (message, hint) = match is_of_a_file(file.get_ref()) {
                    true => {
                        let message = format!("cannot read `{}`: {why}", path.display());
                        (message, format!("it must contain the `{key}` of {of}"))
                    }
                    // It may be the secret itself.
                    false => (
                        format!("cannot read the file that `{key}_file` of {of} names: {why}"),
                        format!(
                            "write the path of a file that holds the `{key}`, not the `{key}` itself: {key}_file = \"/path\"; or use `{key}_env`"
                        ),
                    ),
                };
                problem(file.span(), message, hint);
                None
            }
        }
    }
}

/// Returns whether a text looks as names of variables of the environment do: anything else may be a secret in its place.
pub fn is_of_a_variable(text: &str) -> bool {
    let is_of_name = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    !text.is_empty() && text.chars().all(is_of_name)
}

/// Returns whether a text looks as paths of files do: anything else may be a secret in its place.
fn is_of_a_file(path: &Path) -> bool {
    let is_of_name = |letter: char| letter.is_ascii_lowercase() || "-_./".contains(letter);
    path.to_str().is_some_and(|text| text.starts_with(['/', '.', '~']) || text.chars().all(is_of_name))
}

/// Checks an HTTP URL that is a secret: messages about mistakes do not contain it.
pub fn checked_http_url(
    url: String,
    span: Place,
    of: &str,
    source: &Source,
    problems: &mut Vec<Problem>,
) -> Option<SecretString> {
    if url::Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
        return Some(SecretString::from(url));
    }
    let hint = "write it like \"https://monitor.example.com/ping/ID\"".to_owned();
    let why = if url.contains("://") { "" } else { ": it has no https at its beginning" };
    problems.push(source.problem(span, format!("{of}: not an HTTP URL{why}"), Some(hint)));
    None
}
