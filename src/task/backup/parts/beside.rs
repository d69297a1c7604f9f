//! A table under another name, beside the living one: its rows, its columns, checks, keys and indexes. What would act on the living one, or on those who read
//! it, is left out: foreign keys, triggers, rules, policies, grants, sequences. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use super::definitions::Item;
use super::names::Name;
use super::subject::{Class, Role};
use crate::pg::{identifier, qualified};
use crate::task::backup::rewrite::replaced;
use crate::task::backup::tokens::Statement;

/// The longest name of an object in bytes (NAMEDATALEN - 1).
const NAME_LONGEST_BYTES: usize = 63;

/// At most so many names are tried for an index.
const NAMES_TRIED: usize = 20;

/// The table's old and new name, and the names of its indexes and their constraints there.
#[derive(Clone, Debug)]
pub struct Renamed {
    pub from: Name,
    pub to: Name,
    pub indexes: BTreeMap<String, String>,
}

/// Returns whether the copy takes the statements of an item: of the table what makes it, of the types and functions that it needs all, their grants included.
pub fn takes(item: &Item) -> bool {
    match &item.subject.role {
        Role::Table | Role::Index | Role::Key => true,
        Role::Default => !item.texts().any(|text| text.contains("nextval(")),
        Role::About => item.subject.class != Class::Relation || item.texts().all(|text| is_of_the_table(&text)),
        // Types and functions that it needs are made as they are.
        Role::Object => true,
        _ => false,
    }
}

fn is_of_the_table(comment: &str) -> bool {
    comment.starts_with("COMMENT ON TABLE ") || comment.starts_with("COMMENT ON COLUMN ")
}

/// The statements of an item for the copy, as the set has them; of those that follow an index or a key, which name it, none.
pub fn statements(item: &Item) -> impl Iterator<Item = String> {
    let only_first = matches!(item.subject.role, Role::Index | Role::Key);
    item.texts().take(if only_first { 1 } else { usize::MAX })
}

/// Names that the indexes of the table may get, the own one first.
pub fn index_names(items: &[&Item], to: &Name) -> BTreeMap<String, Vec<String>> {
    let made = items.iter().filter_map(|item| item.subject.makes.as_ref());
    let names = made.filter(|object| object.class == Class::Relation).map(|object| &object.name.name);
    names
        .map(|index| {
            let others = (1..NAMES_TRIED).map(|number| another_name(index, &to.name, number));
            (index.clone(), std::iter::once(index.clone()).chain(others).collect())
        })
        .collect()
}

/// `TABLE_INDEX`, or `TABLE_INDEX_2`, in as many bytes as a name may have.
fn another_name(index: &str, table: &str, number: usize) -> String {
    let end = if number == 1 { String::new() } else { format!("_{number}") };
    let mut name = format!("{table}_{index}");
    let room = NAME_LONGEST_BYTES - end.len();
    while name.len() > room {
        name.pop();
    }
    name + &end
}

impl Renamed {
    /// Returns whether the item is about the table: a function or a type may have the same name.
    pub fn is_of(&self, item: &Item) -> bool {
        item.subject.class == Class::Relation && item.subject.of == self.from
    }

    /// The statement with the new names.
    pub fn statement(&self, text: &str) -> String {
        let statement = Statement::whole(text);
        let mut changes: Vec<(Range<usize>, String)> = Vec::new();
        for at in 0..statement.tokens.len() {
            // In parentheses, a function of the table's name.
            let is_call = statement.tokens[at].depth > 0 && statement.is_symbol(at + 3, b'(');
            let is_name = !is_call
                && statement.name(at).as_ref() == Some(&self.from.schema)
                && statement.is_symbol(at + 1, b'.')
                && statement.name(at + 2).as_ref() == Some(&self.from.name)
                && !(at > 0 && statement.is_symbol(at - 1, b'.'));
            if is_name {
                let range = statement.tokens[at].at.start..statement.tokens[at + 2].at.end;
                changes.push((range, qualified(&self.to.schema, &self.to.name)));
            }
        }
        let index = match () {
            () if statement.says(0, &["CREATE"])
                && (statement.says(1, &["INDEX"]) || statement.says(1, &["UNIQUE", "INDEX"])) =>
            {
                statement.find(&["INDEX"]).map(|at| at + 1)
            }
            () if statement.says(0, &["ALTER", "TABLE"]) => statement.find(&["ADD", "CONSTRAINT"]).map(|at| at + 2),
            () => None,
        };
        if let Some((at, new)) = index.and_then(|at| Some((at, self.indexes.get(&statement.name(at)?)?))) {
            changes.push((statement.tokens[at].at.clone(), identifier(new)));
        }
        changes.sort_by_key(|(range, _)| range.start);
        replaced(text, &changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_table_and_its_indexes_are_replaced() {
        let indexes = BTreeMap::from([("t_pkey".to_owned(), "x_t_pkey".to_owned()), ("i".to_owned(), "i".to_owned())]);
        let renamed = Renamed { from: Name::new("s", "t"), to: Name::new("S2", "x"), indexes };
        for (text, expected) in [
            (
                "CREATE TABLE s.t (t s.t_type, s text DEFAULT 's.t')",
                "CREATE TABLE \"S2\".\"x\" (t s.t_type, s text DEFAULT 's.t')",
            ),
            ("CREATE INDEX i ON s.t USING btree (s.t(a))", "CREATE INDEX \"i\" ON \"S2\".\"x\" USING btree (s.t(a))"),
            (
                "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (t)",
                "ALTER TABLE ONLY \"S2\".\"x\"\n    ADD CONSTRAINT \"x_t_pkey\" PRIMARY KEY (t)",
            ),
            ("CREATE INDEX i ON s.t USING btree (i)", "CREATE INDEX \"i\" ON \"S2\".\"x\" USING btree (i)"),
            ("COMMENT ON COLUMN s.t.t_pkey IS 'x'", "COMMENT ON COLUMN \"S2\".\"x\".t_pkey IS 'x'"),
            ("COPY s.t (a, b) FROM stdin", "COPY \"S2\".\"x\" (a, b) FROM stdin"),
            ("COPY a.s.t (a)", "COPY a.s.t (a)"),
        ] {
            assert_eq!(renamed.statement(text), expected);
        }
    }

    #[test]
    fn another_name_is_no_longer_than_a_name_may_be() {
        let long = "ü".repeat(31);
        for number in [1, 2, 19] {
            let name = another_name(&long, &long, number);
            assert!(name.len() <= 63 && name.starts_with(&"ü".repeat(29)), "{name}");
        }
        assert_eq!(another_name("i", "t", 1), "t_i");
    }
}
