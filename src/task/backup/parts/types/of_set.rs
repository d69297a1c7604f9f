//! The types that columns of a set have, as its CREATE TABLE, CREATE TYPE and CREATE DOMAIN say. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::decide::{Attributes, Made, Types};
use crate::task::backup::parts::definitions::Item;
use crate::task::backup::parts::names::Name;
use crate::task::backup::parts::subject::{Class, Role};
use crate::task::backup::tokens::Statement;

/// What follows the type of a column, an attribute or a domain in pg_dump's text.
const AFTER_TYPE: [&str; 10] =
    ["COLLATE", "DEFAULT", "GENERATED", "NOT", "NULL", "CONSTRAINT", "STORAGE", "COMPRESSION", "OPTIONS", "CHECK"];

/// The CREATE TABLE and CREATE TYPE of a set, by name.
pub struct OfSet<'a> {
    tables: BTreeMap<&'a Name, &'a Item>,
    pub types: Types,
}

impl<'a> OfSet<'a> {
    /// Tables count as the types of their rows.
    pub fn new(items: &'a [Item]) -> Self {
        let is_table = |item: &&Item| item.subject.role == Role::Table;
        let is_type = |item: &&Item| item.subject.role == Role::Object && item.subject.class == Class::Type;
        let tables = items.iter().filter(is_table).map(|item| (&item.subject.of, item)).collect();
        let made = |item: &Item| item.texts().next().map_or_else(Vec::new, |text| made(&item.subject.of, &text));
        let mut of_set = Self { tables, types: items.iter().filter(is_type).flat_map(made).collect() };
        let rows = |name: &&Name| ((*name).clone(), Made::Attributes(of_set.columns_of(name, true, &mut BTreeSet::new())));
        let rows: Types = of_set.tables.keys().map(rows).collect();
        of_set.types.extend(rows);
        of_set
    }

    /// The columns of a table of which the set has values.
    pub fn columns(&self, table: &Name) -> Attributes {
        self.columns_of(table, false, &mut BTreeSet::new())
    }

    /// With the columns that it inherits, which CREATE TABLE does not repeat, and those of its type; `seen`: tables that are looked at.
    fn columns_of(&self, table: &Name, with_generated: bool, seen: &mut BTreeSet<Name>) -> Attributes {
        let Some(text) = self.tables.get(table).and_then(|item| item.texts().next()) else { return Attributes::new() };
        if !seen.insert(table.clone()) {
            return Attributes::new();
        }
        let statement = Statement::of(&text);
        let of_type = statement.find(&["OF"]).and_then(|at| statement.qualified(at + 1));
        if let Some((Some(schema), name, _)) = of_type {
            return match self.types.get(&Name { schema, name }) {
                Some(Made::Attributes(attributes)) => attributes.clone(),
                _ => Attributes::new(),
            };
        }
        let own = listed(&statement);
        let parents = names_after(&statement, "INHERITS");
        let mut columns: Attributes = parents.iter().flat_map(|parent| self.columns_of(parent, with_generated, seen)).collect();
        columns.retain(|(name, _)| !own.iter().any(|column| column.name == *name));
        let is_wanted = |column: &Listed| with_generated || !column.is_generated;
        columns.extend(own.into_iter().filter(is_wanted).map(|column| (column.name, column.of_type)));
        columns
    }
}

/// What CREATE TYPE or CREATE DOMAIN makes: the type, and the multirange of a range.
fn made(name: &Name, text: &str) -> Vec<(Name, Made)> {
    let statement = Statement::of(text);
    let one = |made: Made| vec![(name.clone(), made)];
    let Some(at) = statement.find(&["AS"]) else { return one(Made::Other) };
    match () {
        () if statement.says(1, &["DOMAIN"]) => one(Made::Domain(type_at(&statement, at + 1..statement.tokens.len()))),
        () if statement.says(at + 1, &["ENUM"]) => one(Made::Labels),
        () if statement.says(at + 1, &["RANGE"]) => {
            let value = |word: &str| {
                let found =
                    (at..statement.tokens.len()).find(|at| statement.says(*at, &[word]) && statement.is_symbol(at + 1, b'='))?;
                let is_end = |at: &usize| {
                    statement.tokens[*at].depth <= 1 && statement.is_symbol(*at, b',') || statement.tokens[*at].depth == 0
                };
                let end = (found + 2..statement.tokens.len()).find(is_end)?;
                Some((found + 2, type_at(&statement, found + 2..end)))
            };
            let Some((_, subtype)) = value("subtype") else { return one(Made::Other) };
            let multirange = value("multirange_type_name").and_then(|(at, _)| statement.qualified(at));
            let multirange = multirange.and_then(|(schema, name, _)| Some(Name::new(schema?, name)));
            [Some(name.clone()), multirange].into_iter().flatten().map(|name| (name, Made::Range(subtype.clone()))).collect()
        }
        () => one(Made::Attributes(listed(&statement).into_iter().map(|column| (column.name, column.of_type)).collect())),
    }
}

struct Listed {
    name: String,
    of_type: String,
    is_generated: bool,
}

/// The columns or attributes in the parentheses of a statement, without constraints.
fn listed(statement: &Statement) -> Vec<Listed> {
    let count = statement.tokens.len();
    let Some(open) = (0..count).find(|at| statement.is_symbol(*at, b'(') && statement.tokens[*at].depth == 0) else {
        return Vec::new();
    };
    let close = (open..count).find(|at| statement.is_symbol(*at, b')') && statement.tokens[*at].depth == 0).unwrap_or(count);
    let commas = (open + 1..close).filter(|at| statement.is_symbol(*at, b',') && statement.tokens[*at].depth == 1);
    let ends: Vec<usize> = commas.chain([close]).collect();
    let starts = std::iter::once(open + 1).chain(ends.iter().map(|end| end + 1));
    let entries = starts.zip(ends.iter().copied()).filter(|(start, end)| start < end);
    let is_column = |(start, _): &(usize, usize)| {
        !["CONSTRAINT", "CHECK", "NOT"].iter().any(|word| statement.says(*start, &[word])) && statement.name(*start).is_some()
    };
    entries
        .filter(is_column)
        .map(|(start, end)| Listed {
            name: statement.name(start).unwrap_or_default(),
            of_type: type_at(statement, start + 1..end),
            is_generated: (start + 2..end)
                .any(|at| statement.says(at, &["GENERATED", "ALWAYS", "AS"]) && statement.is_symbol(at + 3, b'(')),
        })
        .collect()
}

/// The text of the type that begins there.
fn type_at(statement: &Statement, tokens: Range<usize>) -> String {
    let Some(first) = statement.tokens.get(tokens.start).filter(|_| !tokens.is_empty()) else { return String::new() };
    // After a dot, the word is a name.
    let is_end = |at: &usize| {
        let is_name = statement.is_symbol(at - 1, b'.');
        statement.tokens[*at].depth <= first.depth && !is_name && AFTER_TYPE.iter().any(|word| statement.says(*at, &[word]))
    };
    let end = (tokens.start + 1..tokens.end).find(is_end).unwrap_or(tokens.end);
    statement.text[first.at.start..statement.tokens[end - 1].at.end].to_owned()
}

/// The names in the parentheses after a word.
fn names_after(statement: &Statement, word: &str) -> Vec<Name> {
    let Some(mut at) = statement.find(&[word]).map(|at| at + 2) else { return Vec::new() };
    let mut names = Vec::new();
    while let Some((Some(schema), name, end)) = statement.qualified(at) {
        names.push(Name { schema, name });
        at = end + 1;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_with_the_whole_text_of_their_types() {
        let text = "CREATE TABLE s.t (\n    id integer NOT NULL,\n    \"a b\" character varying(5) DEFAULT 'x, y'::character varying,\n    at timestamp(3) without time zone,\n    z time with time zone,\n    \
             span interval year to month COLLATE x,\n    g s.generated(3)[] GENERATED ALWAYS AS ((id + 1)) STORED,\n    n numeric(5,-2) GENERATED ALWAYS AS (1),\n    \
             d double precision CONSTRAINT x NOT NULL,\n    w public.with,\n    CONSTRAINT c CHECK ((id > 0)),\n    NOT NULL id\n)\nINHERITS (s.p, \"S\".q)";
        let statement = Statement::of(text);
        let found: Vec<(String, String, bool)> =
            listed(&statement).into_iter().map(|column| (column.name, column.of_type, column.is_generated)).collect();
        let expected = [
            ("id", "integer", false),
            ("a b", "character varying(5)", false),
            ("at", "timestamp(3) without time zone", false),
            ("z", "time with time zone", false),
            ("span", "interval year to month", false),
            ("g", "s.generated(3)[]", true),
            ("n", "numeric(5,-2)", true),
            ("d", "double precision", false),
            ("w", "public.with", false),
        ];
        assert_eq!(found, expected.map(|(name, of_type, is)| (name.to_owned(), of_type.to_owned(), is)));
        assert_eq!(names_after(&statement, "INHERITS"), [Name::new("s", "p"), Name::new("S", "q")]);
    }

    #[test]
    fn types_are_read_with_what_they_are_made_of() {
        let name = Name::new("s", "t");
        let attributes = |list: &[(&str, &str)]| {
            Made::Attributes(list.iter().map(|(name, of)| ((*name).to_owned(), (*of).to_owned())).collect())
        };
        for (text, expected) in [
            (
                "CREATE TYPE s.t AS (\n\ta numeric(5,-2),\n\tb s.x COLLATE s.c\n)",
                attributes(&[("a", "numeric(5,-2)"), ("b", "s.x")]),
            ),
            ("CREATE TYPE s.t AS ENUM (\n    'a'\n)", Made::Labels),
            (
                "CREATE DOMAIN s.t AS numeric(10,2) DEFAULT 1\n\tCONSTRAINT c CHECK ((VALUE > 0))",
                Made::Domain("numeric(10,2)".to_owned()),
            ),
            (
                "CREATE TYPE s.t AS RANGE (\n    subtype = double precision,\n    subtype_diff = float8mi\n)",
                Made::Range("double precision".to_owned()),
            ),
            ("CREATE TYPE s.t", Made::Other),
        ] {
            assert_eq!(made(&name, text), [(name.clone(), expected)], "{text}");
        }
        let range = "CREATE TYPE s.t AS RANGE (\n    subtype = s.x,\n    multirange_type_name = s.m\n)";
        assert_eq!(made(&name, range)[1], (Name::new("s", "m"), Made::Range("s.x".to_owned())));
    }
}
