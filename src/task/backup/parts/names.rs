//! Names of tables and schemas, as people write them and as a set has them.

use std::fmt;

use crate::base::fault::{Fault, Kind};
use crate::pg::table::TableName;

/// The name of an object with its schema; a schema itself has no schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub schema: String,
    pub name: String,
}

impl Name {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    pub fn of_schema(name: &str) -> Self {
        Self::new("", name)
    }

    pub fn sql(&self) -> String {
        crate::pg::qualified(&self.schema, &self.name)
    }
}

/// As `backups show` writes it.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.schema.as_str() {
            "" => write!(f, "schema {}", self.name),
            schema => write!(f, "{schema}.{}", self.name),
        }
    }
}

/// Returns whether a table is called so: as `backups show` names it or as in SQL; without a schema, one in `public`.
pub fn is_called(wanted: &str, schema: &str, name: &str) -> bool {
    let quoted = TableName { oid: 0, schema: schema.to_owned(), name: name.to_owned() };
    let names = [format!("{schema}.{name}"), quoted.to_string(), quoted.sql()];
    names.iter().any(|one| one == wanted || one.strip_prefix("public.") == Some(wanted))
}

/// The same for a pattern, in which `*` outside of quotes stands for any letters, and `?` for one.
pub fn is_meant(pattern: &str, name: &Name) -> bool {
    if is_called(pattern, &name.schema, &name.name) {
        return true;
    }
    let parts = parts(pattern);
    if parts.iter().flatten().all(|piece| matches!(piece, Piece::Letter(_))) {
        return false;
    }
    match &parts[..] {
        [table] => name.schema == "public" && matches(table, &name.name),
        [schema, table] => matches(schema, &name.schema) && matches(table, &name.name),
        _ => false,
    }
}

/// Refuses a name, without letters that stand for others, that several of these tables have as `backups show` writes them: `s.c` is a table of `s`, and
/// one of `public`.
pub fn refuse_ambiguous<'a>(wanted: &str, found: impl Iterator<Item = &'a Name>) -> anyhow::Result<()> {
    match found.filter(|name| is_called(wanted, &name.schema, &name.name)).count() {
        ..2 => Ok(()),
        _ => {
            let message = format!("`{wanted}` can be several tables of the set: write the name as in SQL, with double quotes");
            Err(Fault::new(Kind::Configuration, message).into())
        }
    }
}

/// Returns whether a schema is meant: by its name as it is, as in SQL, or by a pattern.
pub fn is_schema_meant(pattern: &str, schema: &str) -> bool {
    pattern == schema || matches!(&parts(pattern)[..], [part] if matches(part, schema))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Letter(char),
    Any,
    One,
}

/// The parts between the dots.
fn parts(pattern: &str) -> Vec<Vec<Piece>> {
    let mut parts = vec![Vec::new()];
    let (mut is_quoted, mut letters) = (false, pattern.chars().peekable());
    while let Some(letter) = letters.next() {
        let piece = match letter {
            '.' if !is_quoted => {
                parts.push(Vec::new());
                continue;
            }
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                letters.next();
                Piece::Letter('"')
            }
            '"' => {
                is_quoted = !is_quoted;
                continue;
            }
            '*' if !is_quoted => Piece::Any,
            '?' if !is_quoted => Piece::One,
            letter if is_quoted => Piece::Letter(letter),
            letter => Piece::Letter(letter.to_ascii_lowercase()),
        };
        if let Some(part) = parts.last_mut() {
            part.push(piece);
        }
    }
    parts
}

/// In time that grows with the product of both lengths, whatever the pattern.
fn matches(pattern: &[Piece], text: &str) -> bool {
    // Which ends of the text so far the pattern so far can have.
    let text: Vec<char> = text.chars().collect();
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    for piece in pattern {
        let mut next = vec![false; text.len() + 1];
        match piece {
            Piece::Any => {
                let first = ends.iter().position(|end| *end).unwrap_or(ends.len());
                next[first.min(text.len() + 1)..].fill(true);
            }
            Piece::One => (0..text.len()).for_each(|at| next[at + 1] = ends[at]),
            Piece::Letter(letter) => (0..text.len()).for_each(|at| next[at + 1] = ends[at] && text[at] == *letter),
        }
        ends = next;
    }
    ends[text.len()]
}

/// A name as in SQL, `schema.name` or `name` (in `public`), for an object that is to be made; None where it is no such name.
pub fn new_name(text: &str) -> Option<Name> {
    let statement = crate::task::backup::tokens::Statement::of(text);
    let (schema, name, end) = statement.qualified(0)?;
    let is_whole = end == statement.tokens.len() && statement.tokens.first().is_some_and(|token| token.at.start == 0);
    let schema = schema.unwrap_or_else(|| "public".to_owned());
    let is_of_the_system = schema.starts_with("pg_") || schema == "information_schema";
    // The server would cut a longer name.
    let is_sound = [&schema, &name].iter().all(|part| !part.is_empty() && part.len() <= 63);
    (is_whole && is_sound && !is_of_the_system).then_some(Name { schema, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_meant_by_its_name_and_by_a_pattern() {
        let name = Name::new("shop", "It ems*");
        for (pattern, expected) in [
            ("shop.It ems*", true),
            ("shop.\"It ems*\"", true),
            ("shop.*", true),
            ("*.*", true),
            ("*", false),
            ("sh?p.*", true),
            ("shop.\"It \"*", true),
            ("shop.\"It ems\"", false),
            ("shop.\"*\"", false),
            ("shop.it*", false),
            ("shop", false),
        ] {
            assert_eq!(is_meant(pattern, &name), expected, "{pattern}");
        }
        assert!(is_meant("lo*", &Name::new("public", "logs")) && is_meant("LOGS*", &Name::new("public", "logs_1")));
        assert!(!matches(&parts(&"*a".repeat(500))[0], &"a".repeat(400)), "in short time");
    }

    #[test]
    fn a_new_name_is_one_of_a_user_and_nothing_else() {
        for (text, expected) in [
            ("x", Some(("public", "x"))),
            ("S.\"a.\"\"b\"", Some(("s", "a.\"b"))),
            ("pg_catalog.x", None),
            ("s.x; DROP TABLE y", None),
            ("s.x.y", None),
            ("", None),
            ("'x'", None),
        ] {
            assert_eq!(new_name(text), expected.map(|(schema, name)| Name::new(schema, name)), "{text}");
        }
        assert_eq!(new_name(&"x".repeat(64)), None);
    }
}
