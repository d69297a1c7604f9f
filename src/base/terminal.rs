//! Shows foreign text on a terminal. A table's name, a server's message or a file in a store may contain an escape sequence that
//! hides text, moves the cursor or sets the clipboard: here it becomes visible text.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

/// Makes control characters visible: `\x1b`; and as `\u009b` DEL, those of C1 and those that turn the direction of text. Line
/// ends and tabs stay. JSON stays valid and means the same: it contains none of the first kind, and has that form for the second.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        let _ = match (is_hidden(letter), letter) {
            (false, letter) => shown.write_char(letter),
            (true, '\0'..'\x7f') => write!(shown, "\\x{:02x}", u32::from(letter)),
            (true, letter) => write!(shown, "\\u{:04x}", u32::from(letter)),
        };
    }
    Cow::Owned(shown)
}

/// Puts a foreign value on one line: a line of it cannot pass for a line of ours. Ends of lines and the space around them become one space.
pub fn in_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_line_end) {
        return Cow::Borrowed(text);
    }
    let lines = text.split(is_line_end).map(str::trim).filter(|line| !line.is_empty());
    Cow::Owned(lines.collect::<Vec<_>>().join(" "))
}

/// Sets the second and later lines of an entry of the log off from the first: a foreign value in it cannot pass for an entry of its own.
pub fn as_one_entry(text: &str) -> Cow<'_, str> {
    let (text, end) = text.strip_suffix('\n').map_or((text, ""), |text| (text, "\n"));
    if !text.contains('\n') && end.is_empty() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\n', "\n    ") + end)
}

/// Recognizes what ends a line, in Unicode's wider sense.
fn is_line_end(letter: char) -> bool {
    matches!(letter, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_hidden(letter: char) -> bool {
    letter.is_control() && !matches!(letter, '\n' | '\t') || reorders_text(letter)
}

/// Recognizes marks that reorder the text after them (Unicode, UAX 9): a name with one can make SQL look like other SQL.
pub fn reorders_text(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes a line to stderr. A reader that has gone is not an error.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", visible(line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_lines_and_tabs_stay() {
        assert_eq!(visible("a\x1b[31m\r\x07b\n\tc\u{9b}2J\x7f\0ü"), "a\\x1b[31m\\x0d\\x07b\n\tc\\u009b2J\\u007f\\x00ü");
        assert_eq!(visible("t\u{202e}x\u{2066}"), "t\\u202ex\\u2066");
        assert!(matches!(visible("plain\n\ttext"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_value_of_several_lines_is_shown_on_one() {
        assert_eq!(in_one_line("a\r\n\n  b\u{2028}c\u{85}"), "a b c");
        assert!(matches!(in_one_line("a\tb"), Cow::Borrowed(_)));
    }

    #[test]
    fn the_lines_of_an_entry_are_set_off_from_the_next_entry() {
        assert_eq!(as_one_entry("one\n"), "one\n");
        assert_eq!(as_one_entry("WARN owner \"x\nWARN all is well\"\n"), "WARN owner \"x\n    WARN all is well\"\n");
        assert_eq!(as_one_entry("one\ntwo"), "one\n    two");
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({ "name": "x\x1b[31m\r\n\t\u{85}\u{9b}\x7f\u{2028}" });
        let text = format!("{value:#}\n");
        let shown = visible(&text);
        assert!(!shown.chars().any(is_hidden), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
