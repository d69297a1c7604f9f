//! Whether one type reads the text of another's values as the same values. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::task::backup::parts::names::Name;
use crate::task::backup::tokens::{self, Statement};

/// Columns or attributes, each with its type as `format_type` writes it.
pub type Attributes = Vec<(String, String)>;

/// What a type is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A composite type, or the rows of a table.
    Attributes(Attributes),
    /// A domain, with its base type.
    Domain(String),
    /// A range or a multirange, with its subtype.
    Range(String),
    /// An enum: one that lacks labels does not take the rows.
    Labels,
    OfExtension,
    Other,
}

pub type Types = BTreeMap<Name, Made>;

/// A difference between two types that may give values another meaning, in words. Pure.
pub fn changed(old: &str, new: &str, of_set: &Types, here: &Types) -> Option<String> {
    let mut open = vec![(old.to_owned(), new.to_owned())];
    let mut seen = BTreeSet::new();
    // Each pair is looked at once.
    while let Some((old, new)) = open.pop() {
        if !seen.insert((old.clone(), new.clone())) {
            continue;
        }
        let (before, after) = (Type::of(&old), Type::of(&new));
        if !before.keeps_in(&after) && !is_moved_extension(&before, &after, of_set, here) {
            return Some(format!("its type is {old} in the set, and {new} here"));
        }
        let made = |types: &Types, of_type: &Type| of_type.name_of_user().and_then(|name| types.get(&name).cloned());
        match (made(of_set, &before), made(here, &after)) {
            (Some(Made::Attributes(before)), Some(Made::Attributes(after))) => {
                let names = |attributes: &Attributes| attributes.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
                if names(&before) != names(&after) {
                    return Some(format!("its type {old} is ({}) in the set, and ({}) here", list(&before), list(&after)));
                }
                open.extend(before.into_iter().zip(after).map(|((_, before), (_, after))| (before, after)));
            }
            (Some(Made::Domain(before)), Some(Made::Domain(after))) | (Some(Made::Range(before)), Some(Made::Range(after))) => {
                open.push((before, after));
            }
            // The part makes it: what it is made of may live.
            (Some(Made::Attributes(attributes)), None) => {
                open.extend(attributes.into_iter().map(|(_, one)| (one.clone(), one)));
            }
            (Some(Made::Domain(base) | Made::Range(base)), None) => open.push((base.clone(), base)),
            (Some(before), Some(after)) if std::mem::discriminant(&before) != std::mem::discriminant(&after) => {
                return Some(format!("its type {old} is {before} in the set, and {after} here"));
            }
            _ => {}
        }
    }
    None
}

fn list(attributes: &Attributes) -> String {
    attributes.iter().map(|(name, of_type)| format!("{name} {of_type}")).collect::<Vec<_>>().join(", ")
}

/// An extension may be in another schema here.
fn is_moved_extension(before: &Type, after: &Type, of_set: &Types, here: &Types) -> bool {
    let (Some(old), Some(new)) = (before.name_of_user(), after.name_of_user()) else { return false };
    let moved = Type { schema: after.schema.clone(), ..before.clone() };
    !of_set.contains_key(&old) && here.get(&new) == Some(&Made::OfExtension) && moved == *after
}

impl Made {
    /// The types that it is made of.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Attributes(attributes) => attributes.iter().map(|(_, of_type)| of_type.as_str()).collect(),
            Self::Domain(of) | Self::Range(of) => vec![of],
            Self::Labels | Self::OfExtension | Self::Other => Vec::new(),
        }
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Attributes(_) => "a composite type",
            Self::Domain(_) => "a domain",
            Self::Range(_) => "a range",
            Self::Labels => "an enum",
            Self::OfExtension => "a type of an extension",
            Self::Other => "a base type",
        })
    }
}

/// A type in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// None for a type of PostgreSQL itself.
    schema: Option<String>,
    /// Without its modifiers: `timestamp without time zone`.
    name: String,
    /// Those in parentheses.
    modifiers: Vec<String>,
    is_array: bool,
}

impl Type {
    pub fn of(text: &str) -> Self {
        let statement = Statement::of(text);
        let qualified = statement.qualified(0).filter(|(schema, ..)| schema.is_some());
        let after_name = qualified.as_ref().map_or(0, |(.., end)| *end);
        let outside = || statement.tokens.iter().filter(|token| token.depth == 0);
        let is_word = |token: &&tokens::Token| !matches!(token.kind, tokens::Kind::Symbol(_));
        let words = outside().skip(after_name).filter(is_word).map(|token| statement.raw(token));
        let name = words.collect::<Vec<_>>().join(" ");
        let at = |symbol: u8| outside().find(|token| token.kind == tokens::Kind::Symbol(symbol)).map(|token| token.at.clone());
        let inside = at(b'(').zip(at(b')')).and_then(|(open, close)| text.get(open.end..close.start));
        let modifiers = inside.iter().flat_map(|inside| inside.split(',')).map(|modifier| modifier.trim().to_owned()).collect();
        let is_array = at(b'[').is_some();
        match qualified {
            Some((schema, name, _)) => Self { schema, name, modifiers, is_array },
            None => Self { schema: None, name, modifiers, is_array },
        }
    }

    pub fn name_of_user(&self) -> Option<Name> {
        self.schema.as_ref().map(|schema| Name::new(schema, &self.name))
    }

    /// Returns whether a column of the type `new` has the same values for the same text, and finds the same ones equal.
    fn keeps_in(&self, new: &Self) -> bool {
        if self == new {
            return true;
        }
        if self.is_array != new.is_array || self.schema.is_some() || new.schema.is_some() {
            return false;
        }
        let (old_numbers, new_numbers) = (self.numbers(), new.numbers());
        match (self.name.as_str(), new.name.as_str()) {
            ("smallint", "integer" | "bigint") | ("integer", "bigint") => true,
            ("smallint" | "integer" | "bigint", "numeric") => {
                let digits = match self.name.as_str() {
                    "smallint" => 5,
                    "integer" => 10,
                    _ => 19,
                };
                holds((digits, 0), &new_numbers)
            }
            ("numeric", "numeric") => match old_numbers[..] {
                [precision, scale] => holds((precision - scale, scale), &new_numbers),
                _ => new_numbers.is_empty(),
            },
            ("character varying", "character varying") => {
                new_numbers.is_empty() || !old_numbers.is_empty() && new_numbers[0] >= old_numbers[0]
            }
            ("character varying", "text") => true,
            ("text", "character varying") => new_numbers.is_empty(),
            (old, new) if old == new && is_time(old) => {
                // Without a number, to the microsecond.
                let places = |numbers: &[i64]| numbers.first().copied().unwrap_or(6);
                places(&new_numbers) >= places(&old_numbers)
            }
            _ => false,
        }
    }

    fn numbers(&self) -> Vec<i64> {
        self.modifiers.iter().filter_map(|modifier| modifier.parse().ok()).collect()
    }
}

fn is_time(name: &str) -> bool {
    ["timestamp", "time", "interval"].iter().any(|kind| name.split(' ').next() == Some(kind))
}

/// Returns whether `numeric` with these modifiers holds numbers of so many digits before and after the point.
fn holds((before, after): (i64, i64), modifiers: &[i64]) -> bool {
    match modifiers {
        [] => true,
        [precision, scale] => *scale >= after && precision - scale >= before,
        _ => false,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
