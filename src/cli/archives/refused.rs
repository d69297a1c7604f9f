//! Batches that a table does not take, and what to do about each. They keep no other batch from coming back.

use anyhow::Error;

use crate::archive::{BatchName, Manifest, NotAll};
use crate::pg;

/// Returns what to do about a batch that the table does not take as it is; `None` when the error is of another kind.
pub(super) fn remedy(error: &anyhow::Error) -> Option<&'static str> {
    if error.downcast_ref::<NotAll>().is_some() {
        return Some("--into TABLE puts its rows into another table");
    }
    match pg::sql_state(error)?.as_str() {
        // unique_violation: some of its rows are back by other means, or others took their place.
        "23505" => Some(
            "--key COLUMN=VALUE or --time FROM..TO puts back only the missing rows, --into TABLE all of them into another table",
        ),
        // check_violation that names no check: the server found no partition (ExecFindPartition).
        "23514" if pg::constraint(error).is_none() => Some(
            "create the partition that these rows belong to (CREATE TABLE ... PARTITION OF ...), or use --into TABLE with another table",
        ),
        // integrity_constraint_violation
        state if state.starts_with("23") => Some("--into TABLE puts its rows into another table"),
        _ => None,
    }
}

/// Explains an error that ends the restore: rows of a table that `[compress]` had then need its columns.
pub(super) fn explained(error: Error, manifest: &Manifest) -> Error {
    let has = |column: &str, end: &str| manifest.columns.contains(&format!("{column}{end}"));
    match manifest.columns.iter().any(|column| has(column, "_gz") && has(column, "_sha256")) {
        true => error.context(
            "its rows were compressed when they left; if `compress undo` was run since, run `pgtend compress install JOB` first, then this restore, \
             and undo after it",
        ),
        false => error,
    }
}

/// Says why a batch was refused by a foreign key.
pub(super) fn by_a_foreign_key(name: &BatchName, error: &anyhow::Error) -> String {
    format!(
        "{name}: nothing was put back: {error:#}; no batch of this restore has the rows that it refers to: restore those rows first, or use \
         --into TABLE with a table that has no such foreign key"
    )
}
