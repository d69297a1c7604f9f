//! What is wrong with a file that is no TOML, for people who do not know TOML: what is there, and what to write.

use std::ops::Range;

use toml::de::Error;

use super::problem::may_hold_a_secret;

/// A place, what is wrong there, and what to write.
type Told = (Option<Range<usize>>, String, Option<String>);

/// Words for true and false elsewhere.
const FLAGS: [(&str, bool); 8] = [
    ("true", true),
    ("yes", true),
    ("on", true),
    ("enabled", true),
    ("false", false),
    ("no", false),
    ("off", false),
    ("disabled", false),
];

/// Quotation marks of word processors and web pages.
const TYPOGRAPHIC: &str = "“”„‟‘’‚‛«»";

/// Rewrites the parser's errors. Those that follow from another one are left out: at most one is told of a line.
pub fn in_our_words(text: &str, errors: &[Error]) -> Vec<Told> {
    let mut sorted: Vec<(usize, &Error)> =
        errors.iter().map(|error| (error.span().map_or(0, |span| span.start), error)).collect();
    sorted.sort_by_key(|(start, _)| *start);
    let (mut told, mut lines) = (Vec::new(), Vec::new());
    for (start, error) in sorted {
        let line = Line::at(text, start);
        if lines.contains(&line.start) {
            continue;
        }
        lines.push(line.start);
        let (message, hint, is_last) = line.tell(error);
        told.push((error.span(), format!("not valid TOML: {message}"), hint));
        // What comes after it is read wrongly.
        if is_last {
            break;
        }
    }
    told
}

/// The line of a mistake.
struct Line<'t> {
    file: &'t str,
    text: &'t str,
    start: usize,
}

impl<'t> Line<'t> {
    fn at(file: &'t str, offset: usize) -> Self {
        let offset = file.floor_char_boundary(offset.min(file.len()));
        // At the end of a line, the mistake is in it.
        let start = file[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let end = file[offset..].find('\n').map_or(file.len(), |newline| offset + newline);
        Self { file, text: file[start..end].trim_end_matches('\r'), start }
    }

    /// Returns what is wrong, what to write, and whether the rest of the file is read wrongly because of it.
    fn tell(&self, error: &Error) -> (String, Option<String>, bool) {
        let what = error.message().split(", expected").next().unwrap_or_default();
        let (key, value) = self.key_and_value();
        let has = |words: &[&str]| words.iter().any(|word| what.contains(word));
        if self.text.contains(|letter: char| TYPOGRAPHIC.contains(letter)) {
            let straight: String =
                self.text.trim().chars().map(|letter| if TYPOGRAPHIC.contains(letter) { '"' } else { letter }).collect();
            return (
                "these quotation marks are typographic".to_owned(),
                Some(self.write(&straight, "use straight ones: \"")),
                false,
            );
        }
        if let Some((key, value)) = self.with_colon() {
            let written = if value.is_empty() { format!("[{key}]") } else { format!("{key} = {}", quoted(value)) };
            let hint = self.write(&written, "write key = \"value\"");
            return (format!("`{key}` is followed by a colon, as in YAML"), Some(hint), true);
        }
        if what == "duplicate key" {
            return self.twice();
        }
        if self.text.contains('\\') && has(&["unicode", "escape", "basic string"]) {
            let single = value.replace("\\\\", "\\").replace('"', "'");
            let hint = self.write(&format!("{key} = {single}"), "use single quotation marks: 'C:\\folder'");
            return ("in double quotation marks, a backslash begins an escape such as \\n".to_owned(), Some(hint), false);
        }
        if let Some((message, hint)) = self.unquoted(key, value, error) {
            return (message, Some(hint), false);
        }
        if has(&["basic string", "literal string"]) {
            let quote = value.chars().next().filter(|quote| "\"'".contains(*quote)).unwrap_or('"');
            let hint =
                self.write(&format!("{}{quote}", self.text.trim()), "end the text with the quotation mark that it begins with");
            return ("the text has no quotation mark at its end".to_owned(), Some(hint), true);
        }
        if has(&["unclosed array", "comma between array"]) {
            let hint = "a list is written like [\"one\", \"two\"]: commas between its values, and ] at its end".to_owned();
            return ("the list is not complete".to_owned(), Some(hint), true);
        }
        if self.text.trim_start().starts_with('[') {
            let name = self.text.trim().trim_matches(['[', ']']);
            return ("this is no name of a table".to_owned(), Some(self.write(&format!("[{name}]"), "write [name]")), false);
        }
        if has(&["inline table", "unclosed table"]) {
            let hint =
                "a table in a line is written like { last = 3, daily = 7 }: commas between its keys, and } at its end".to_owned();
            return ("the table is not complete".to_owned(), Some(hint), true);
        }
        if value.is_empty() && !self.text.trim().is_empty() {
            let word = self.text.trim().trim_end_matches('=').trim();
            return (format!("`{}` has no value", self.safe(word)), Some("write key = \"value\"".to_owned()), false);
        }
        let hint = "a line is a [table], key = \"text\", key = 3, key = true, key = [\"a\", \"list\"], or a # comment".to_owned();
        ("this line is neither a table nor a key with its value".to_owned(), Some(hint), false)
    }

    /// A value without quotation marks: a text, or true and false in other words.
    fn unquoted(&self, key: &str, value: &str, error: &Error) -> Option<(String, String)> {
        let is_word = !value.is_empty() && !value.starts_with(['"', '\'', '[', '{']) && !key.is_empty();
        let span = error.span()?;
        let is_in_value = span.start >= self.start + self.text.find('=')?;
        if !is_word || !is_in_value {
            return None;
        }
        if let Some((_, flag)) = FLAGS.iter().find(|(word, _)| value.eq_ignore_ascii_case(word)) {
            return Some((format!("`{value}` is neither true nor false"), format!("write {key} = {flag}, in lower case")));
        }
        if value.eq_ignore_ascii_case("null") || value.eq_ignore_ascii_case("none") || value.eq_ignore_ascii_case("nil") {
            return Some((
                format!("`{value}` is no value"),
                format!("remove `{key}` to leave it unset, or write {key} = \"{value}\""),
            ));
        }
        let hint = self.write(&format!("{key} = {}", quoted(value)), "write key = \"value\"");
        Some(("a text needs quotation marks".to_owned(), hint))
    }

    fn twice(&self) -> (String, Option<String>, bool) {
        let line = self.text.trim();
        let is_same = |other: &&str| match line.starts_with('[') {
            true => other.trim() == line,
            false => other.trim().starts_with(self.key_and_value().0) && other.contains('='),
        };
        let lines = self.file[..self.start].lines().collect::<Vec<_>>();
        let first =
            lines.iter().rposition(|line| is_same(&&**line)).map(|index| format!(" (the first is in line {})", index + 1));
        let first = first.unwrap_or_default();
        match line.starts_with('[') {
            true => (format!("{line} is there twice"), Some(format!("put the keys of both under one {line}{first}")), false),
            false => (format!("`{}` is set twice", self.key_and_value().0), Some(format!("keep one of them{first}")), false),
        }
    }

    /// Splits `key = value # comment`.
    fn key_and_value(&self) -> (&'t str, &'t str) {
        let Some((key, value)) = self.text.split_once('=') else { return ("", "") };
        let value = value.trim();
        let value = if value.starts_with(['"', '\'']) { value } else { value.split(" #").next().unwrap_or_default().trim() };
        (key.trim(), value)
    }

    /// Splits `key: value`, where no `=` comes before.
    fn with_colon(&self) -> Option<(&'t str, &'t str)> {
        let (key, value) = self.text.split_once(':')?;
        let key = key.trim().trim_start_matches("- ").trim_matches(['"', '\'']);
        let is_key = !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter));
        (is_key && !value.starts_with("//")).then(|| (key, value.trim().trim_end_matches(',')))
    }

    /// "write …", unless that shows a secret: then `instead`.
    fn write(&self, written: &str, instead: &str) -> String {
        let safe = self.safe(written);
        if safe == "…" { instead.to_owned() } else { format!("write {safe}") }
    }

    /// A URL may have a password, and a key may be a secret.
    fn safe<'s>(&self, text: &'s str) -> &'s str {
        let is_private = may_hold_a_secret(self.text) || self.text.contains("://");
        if is_private || text.len() > 100 { "…" } else { text }
    }
}

fn quoted(value: &str) -> String {
    let value = value.trim_matches(['"', '\'']);
    let is_plain = value == "true" || value == "false" || value.parse::<i64>().is_ok();
    if is_plain { value.to_owned() } else { format!("\"{value}\"") }
}
