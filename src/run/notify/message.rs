//! A message, before it has the form of a service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::terminal;

/// The most letters of a line and of a title: an error may be a page long, and `pgtend runs show` has all of it.
const LINE_LETTERS: usize = 300;
const TITLE_LETTERS: usize = 150;

/// A message, as every service gets it in its own form. Titles and lines have no line breaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    pub title: String,
    pub severity: Severity,
    pub lines: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing needs to be done.
    #[default]
    Good,
    /// Something may need to be done.
    Warning,
    /// A person should look now.
    Bad,
}

impl Severity {
    /// A sign that shows in lists of messages.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Good => "✅",
            Self::Warning => "⚠️",
            Self::Bad => "🔴",
        }
    }
}

impl Message {
    pub fn new(title: &str, severity: Severity, lines: impl IntoIterator<Item = String>) -> Self {
        let lines = lines.into_iter().map(|line| shortened(&line, LINE_LETTERS)).collect();
        Self { title: shortened(title, TITLE_LETTERS), severity, lines }
    }

    /// Returns all of it as text.
    pub fn text(&self) -> String {
        format!("{} {}\n{}", self.severity.sign(), self.title, self.lines.join("\n"))
    }
}

/// Returns the text in one line of at most so many letters.
pub fn shortened(text: &str, letters: usize) -> String {
    let line = terminal::in_one_line(text).replace('\t', " ");
    let line = terminal::visible(&line);
    if line.chars().count() <= letters {
        return line.into_owned();
    }
    line.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}
