//! The statements of a part in their order, under the settings that the dump has for them.

use std::sync::Arc;

use super::definitions::{Item, Settings};
use crate::task::backup::script::Entry;

/// A statement with the object of the dump that it belongs to.
pub type Statements = Vec<(Vec<u8>, Arc<Entry>)>;

/// How long a statement waits for a lock on a living table: others wait behind it.
const LOCK_TIMEOUT: &[u8] = b"SET lock_timeout = '10s'";

/// Names without a schema are of no living object, whatever the dump says; a person's `--search-path` takes its place.
const SEARCH_PATH: &[u8] = b"SELECT pg_catalog.set_config('search_path', '', false)";

/// A query of our own, which writes the statements to run, if any.
pub fn ours(query: &str) -> (Vec<u8>, Arc<Entry>) {
    let entry = Entry { kind: "pgtend's own statements".to_owned(), is_ours: true, ..Entry::default() };
    (query.as_bytes().to_vec(), Arc::new(entry))
}

/// Writes the settings that a statement of the dump was written under before it, where they changed.
#[derive(Default)]
pub struct Run {
    in_force: Settings,
}

impl Run {
    /// The statements of the items, after those that set what is in force for them.
    pub fn statements<'a>(&mut self, items: impl IntoIterator<Item = (&'a Item, Vec<Vec<u8>>)>, head: &Settings) -> Statements {
        let mut statements = Vec::new();
        let ours = ["lock_timeout", "search_path"].map(|name| (name.to_owned(), Vec::new()));
        self.set(&Settings::from(ours), &Arc::default(), &mut statements);
        self.set(head, &Arc::default(), &mut statements);
        for (item, of_item) in items {
            self.set(&item.settings, &item.entry, &mut statements);
            statements.extend(of_item.into_iter().map(|statement| (statement, Arc::clone(&item.entry))));
        }
        statements
    }

    fn set(&mut self, settings: &Settings, entry: &Arc<Entry>, statements: &mut Statements) {
        for (name, statement) in settings {
            let statement = match name.as_str() {
                "lock_timeout" => LOCK_TIMEOUT.to_vec(),
                "search_path" => SEARCH_PATH.to_vec(),
                _ => statement.clone(),
            };
            if self.in_force.get(name) != Some(&statement) {
                self.in_force.insert(name.clone(), statement.clone());
                statements.push((statement, Arc::clone(entry)));
            }
        }
    }
}
