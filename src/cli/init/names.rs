//! Names that are safe in TOML and in paths, whatever the objects are called.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::base::terminal;

/// A path may have 255 bytes in each part; names are made of two of these and a word.
const LONGEST_BYTES: usize = 80;

/// Returns letters, digits, `-` and `_` of a name; everything else becomes one `-`.
pub fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars() {
        let is_kept = letter.is_alphanumeric() || letter == '_';
        if slug.len() + letter.len_utf8() > LONGEST_BYTES {
            break;
        }
        if is_kept {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "unnamed".to_owned() } else { slug.to_owned() }
}

/// Returns the name, with a number where it is taken, and takes it.
pub fn free(name: String, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(name);
    taken.insert(free.clone());
    free
}

/// Writes a basic string of TOML.
pub fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for letter in text.chars() {
        let _ = match letter {
            '"' => write!(quoted, "\\\""),
            '\\' => write!(quoted, "\\\\"),
            '\n' => write!(quoted, "\\n"),
            letter if letter.is_control() || terminal::reorders_text(letter) => write!(quoted, "\\u{:04X}", u32::from(letter)),
            letter => write!(quoted, "{letter}"),
        };
    }
    quoted.push('"');
    quoted
}

/// Writes a key of TOML, in quotes only where it needs them.
pub fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'));
    if is_bare { name.to_owned() } else { quoted(name) }
}

/// Puts foreign text on one line of a comment, without anything that a terminal obeys.
pub fn remark(text: &str) -> String {
    terminal::visible(&terminal::in_one_line(text)).replace('\t', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_letters_becomes_a_name_of_a_file() {
        for (name, expected) in [
            ("execution_logs", "execution_logs"),
            ("Odd Name", "Odd-Name"),
            ("a/../b", "a-b"),
            ("-x", "x"),
            ("x\n\"; DROP", "x-DROP"),
            ("größe", "größe"),
            ("…", "unnamed"),
        ] {
            assert_eq!(slug(name), expected);
        }
        assert!(slug(&"é".repeat(200)).len() <= LONGEST_BYTES);
    }

    #[test]
    fn a_taken_name_gets_a_number() {
        let mut taken = BTreeSet::new();
        let free: Vec<String> = ["a", "a", "b", "a"].map(|name| free(name.to_owned(), &mut taken)).into();
        assert_eq!(free, ["a", "a-2", "b", "a-3"]);
    }

    #[test]
    fn toml_reads_what_is_written() {
        for text in ["plain", "q\"uo'te\\s", "l\r\nf\t\u{1b}[31m\u{7f}\u{85}\u{2028}\u{202e}", "größe ✓", ""] {
            let read: toml::Table = toml::from_str(&format!("{} = {}\n# {}\n", key(text), quoted(text), remark(text))).unwrap();
            assert_eq!(read[text].as_str(), Some(text));
        }
    }
}
