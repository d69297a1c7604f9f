//! Refusals of a restore that no statement of the dump has caused, and what a refusal is about.

use crate::pg;
use crate::pg::failure;
use crate::task::backup::refusal::Refusal;
use crate::task::backup::script::Entry;
use crate::task::backup::shown::shown;

pub fn at_the_end() -> Entry {
    Entry { kind: "the end of the dump".to_owned(), ..Entry::default() }
}

pub fn foreign(text: &str, entry: &Entry) -> Refusal {
    let message = format!("the dump holds a statement that pg_dump never writes; it was not run, at {entry}: {}", shown(text));
    Refusal { message, ..Refusal::default() }
}

/// Returns whether the refusal is about a missing object.
pub fn is_undefined(refusal: &Refusal) -> bool {
    matches!(refusal.sql_state.as_deref(), Some("42P01" | "42883" | "42704" | "3F000" | "42703"))
}

pub fn of_ours(error: &anyhow::Error) -> Refusal {
    Refusal {
        kind: failure::kind_of(error),
        sql_state: pg::sql_state(error),
        message: failure::in_a_line(error),
        ..Refusal::default()
    }
}
