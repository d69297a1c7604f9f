//! What messages repeat of a dump's statement, and of a server's words about it: no value in quotes, since some are passwords. Pure.

use std::collections::HashSet;

use super::tokens::{Kind, Statement};

/// The length up to which a statement is repeated.
const SHOWN_CHARS: usize = 200;

/// The length up to which a statement is looked at. A value that is cut off there has no end, and is a value all the same.
const LOOKED_AT_BYTES: usize = 64 << 10;

/// Returns the start of a statement on one line, with `'…'` for each value in quotes: an option, a comment, the body of a function.
pub fn shown(statement: &str) -> String {
    let start = start_of(statement);
    let mut text = String::new();
    let mut end = 0;
    for token in &start.tokens {
        match &start.text[end..token.at.start] {
            "" => {}
            space if space.trim().is_empty() => text.push(' '),
            // It is deep in parentheses.
            _ => text.push('…'),
        }
        text += if token.kind == Kind::String { "'…'" } else { start.raw(token) };
        end = token.at.end;
        if text.len() > SHOWN_CHARS * 4 {
            break;
        }
    }
    let cut: String = text.chars().take(SHOWN_CHARS).collect();
    let is_whole = cut.len() == text.len() && statement[end..].trim().is_empty();
    if is_whole { cut } else { format!("{cut} …") }
}

/// Returns what a server said about a statement. If that may hold a password, no word of a value in quotes is in it: a connection string that the
/// server cannot read is repeated by its pieces.
pub fn said_of(statement: &str, words: &str) -> String {
    let start = start_of(statement);
    if !may_hold_a_password(&start) {
        return words.to_owned();
    }
    if start.text.len() < statement.len() {
        return "the server's message is left out, as the statement may hold a password".to_owned();
    }
    let values = start.tokens.iter().filter(|token| token.kind == Kind::String);
    let secrets: HashSet<&str> = values.flat_map(|token| words_of(start.raw(token))).collect();
    let mut said = String::with_capacity(words.len());
    let mut end = 0;
    for word in words_of(words).filter(|word| secrets.contains(word)) {
        let at = word.as_ptr() as usize - words.as_ptr() as usize;
        said += &words[end..at];
        said.push('…');
        end = at + word.len();
    }
    said + &words[end..]
}

fn start_of(statement: &str) -> Statement<'_> {
    Statement::of(&statement[..statement.floor_char_boundary(LOOKED_AT_BYTES)])
}

fn may_hold_a_password(statement: &Statement) -> bool {
    let has_options = [&["SERVER"][..], &["USER", "MAPPING"], &["SUBSCRIPTION"], &["FOREIGN"]];
    let is_made = statement.says(0, &["CREATE"]) || statement.says(0, &["ALTER"]);
    is_made && has_options.iter().any(|kind| statement.says(1, kind)) || statement.text.to_ascii_lowercase().contains("password")
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_repeated_without_its_values() {
        for (statement, expected) in [
            (
                "CREATE USER MAPPING FOR app SERVER s OPTIONS (\n    password 'hunter2',\n    \"user\" 'u'\n)",
                "CREATE USER MAPPING FOR app SERVER s OPTIONS ( password '…', \"user\" '…' )",
            ),
            (
                "CREATE SUBSCRIPTION s CONNECTION 'host=h password=hunter2' PUBLICATION p",
                "CREATE SUBSCRIPTION s CONNECTION '…' PUBLICATION p",
            ),
            ("COMMENT ON TABLE t IS E'it''s \\' hunter2' 'x'", "COMMENT ON TABLE t IS '…' '…'"),
            ("CREATE FUNCTION f() AS $_$ dblink('password=hunter2') $_$", "CREATE FUNCTION f() AS '…'"),
            ("ALTER TABLE t ADD CHECK ((((a = 'hunter2'))))", "ALTER TABLE t ADD CHECK (((…)))"),
            ("ALTER SERVER s OPTIONS (x U&'hunter2')", "ALTER SERVER s OPTIONS (x U&'…')"),
            ("CREATE VIEW v AS SELECT 'hunter2", "CREATE VIEW v AS SELECT '…'"),
            ("CREATE FUNCTION f() AS $_$ hunter2", "CREATE FUNCTION f() AS …"),
            ("CREATE TABLE t ()", "CREATE TABLE t ()"),
        ] {
            assert_eq!(shown(statement), expected);
        }
        let long = format!("COMMENT ON TABLE t IS '{}hunter2'", "x".repeat(LOOKED_AT_BYTES));
        assert_eq!(shown(&long), "COMMENT ON TABLE t IS '…' …");
        let long = shown(&format!("CREATE TABLE {}", "ö".repeat(5000)));
        assert!(
            long.starts_with("CREATE TABLE öö") && long.ends_with("ö …") && long.chars().count() == SHOWN_CHARS + 2,
            "{long}"
        );
    }

    #[test]
    fn what_a_server_says_of_it_has_no_word_of_a_value() {
        for (statement, words, expected) in [
            (
                "CREATE SUBSCRIPTION s CONNECTION 'host=h hunter2' PUBLICATION p",
                "invalid connection string syntax: missing \"=\" after \"hunter2\" in connection info string",
                "invalid connection string syntax: missing \"=\" after \"…\" in connection info string",
            ),
            (
                "CREATE USER MAPPING FOR app SERVER s OPTIONS (user 'u', password 'hunter2-secret')",
                "role \"app\" may not: \"hunter2-secret\"",
                "role \"app\" may not: \"…-…\"",
            ),
            ("SELECT dblink('password=hunter2')", "at \"password=hunter2\"", "at \"…=…\""),
            ("CREATE TYPE t AS ENUM ('a')", "the type \"a\" is there", "the type \"a\" is there"),
        ] {
            assert_eq!(said_of(statement, words), expected, "{statement}");
        }
        let long = format!("CREATE SERVER s OPTIONS (a '{}')", "x".repeat(LOOKED_AT_BYTES));
        assert!(!said_of(&long, "at hunter2").contains("hunter2"));
    }
}
