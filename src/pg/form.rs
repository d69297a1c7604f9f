//! Forms of SQL: whether a text that others wrote (a comment, a setting, the context of an error) is what it should be and nothing more,
//! before people are told to run it.

use regex_lite::Regex;

/// A regular expression for an identifier, as quote_identifier writes it.
pub const IDENTIFIER: &str = r#"(?:[a-z_][a-z0-9_$]*|"(?:[^"]|"")+")"#;

/// Returns whether the whole text has this form.
pub fn matches(text: &str, pattern: &str) -> bool {
    Regex::new(&format!("^(?:{pattern})$")).is_ok_and(|pattern| pattern.is_match(text))
}

/// Returns whether it is a list of identifiers, as the value of search_path.
pub fn is_identifier_list(text: &str) -> bool {
    matches(text, &format!("{IDENTIFIER}(?:, {IDENTIFIER})*"))
}

/// Returns whether it is a function's name, with or without its schema, and the types of its arguments where they follow.
pub fn is_function(text: &str) -> bool {
    matches(text, &format!(r#"(?:{IDENTIFIER}\.)?{IDENTIFIER}(?:\([A-Za-z0-9_ ,.\[\]"]*\))?"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_lists_of_identifiers_are_told_from_other_sql() {
        let functions = [
            ("public.slug(text)", true),
            ("\"my f\"(character varying, integer[])", true),
            ("slug", true),
            ("f(); ALTER ROLE x SUPERUSER", false),
            ("x SET search_path = a; ALTER ROLE x SUPERUSER; --", false),
            ("f(a);--)", false),
        ];
        for (text, right) in functions {
            assert_eq!(is_function(text), right, "{text}");
        }
        let lists = [
            ("public", true),
            ("\"x'; id\", public, \"$user\"", true),
            ("public; DROP TABLE t", false),
            ("public, ", false),
            ("", false),
        ];
        for (text, right) in lists {
            assert_eq!(is_identifier_list(text), right, "{text}");
        }
    }
}
