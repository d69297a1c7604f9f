//! The statements of a part in their order, under the settings that the dump has for them.

use std::sync::Arc;

use super::definitions::{Item, Settings};
use crate::task::backup::script::Entry;

/// A statement with the object of the dump that it belongs to.
pub type Statements = Vec<(Vec<u8>, Arc<Entry>)>;

/// How long a statement waits for a lock on a living table: others wait behind it.
const LOCK_TIMEOUT: &[u8] = b"SET lock_timeout = '10s'";

/// Writes the settings that a statement of the dump was written under before it, where they changed.
#[derive(Default)]
pub struct Run {
    in_force: Settings,
}

impl Run {
    /// The statements of the items, after those that set what is in force for them.
    pub fn statements<'a>(&mut self, items: impl IntoIterator<Item = (&'a Item, Vec<Vec<u8>>)>, head: &Settings) -> Statements {
        let mut statements = Vec::new();
        self.set(head, &Arc::default(), &mut statements);
        for (item, of_item) in items {
            self.set(&item.settings, &item.entry, &mut statements);
            statements.extend(of_item.into_iter().map(|statement| (statement, Arc::clone(&item.entry))));
        }
        statements
    }

    fn set(&mut self, settings: &Settings, entry: &Arc<Entry>, statements: &mut Statements) {
        for (name, statement) in settings {
            let statement = if name == "lock_timeout" { LOCK_TIMEOUT.to_vec() } else { statement.clone() };
            if self.in_force.get(name) != Some(&statement) {
                self.in_force.insert(name.clone(), statement.clone());
                statements.push((statement, Arc::clone(entry)));
            }
        }
    }
}
