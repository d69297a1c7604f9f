//! Tells whether a relation is still what it was. Between a plan and the lock under which it is carried out, minutes may pass, in which
//! others may change the relation. A view without a new column, policy or privilege would be wrong without any error.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use crate::pg::{self, literal};

/// Returns a hash of everything that a plan reads from a relation or depends on.
pub async fn of(connection: &mut PgConnection, oid: i64) -> Result<String> {
    pg::fetch_text(connection, query(oid)).await?.context("a relation has a definition")
}

/// Returns a statement that fails if the hash is no longer `seen`. Run it under a lock and with the settings of
/// [`super::table::prepare`], because the server writes expressions by them.
pub fn unchanged(oid: i64, seen: &str) -> String {
    let body = format!(
        "-- Fails if it is no longer what was planned for.
         BEGIN IF ({}) IS DISTINCT FROM {} THEN
             RAISE EXCEPTION 'the relation, or a view or other object on it, was changed or dropped meanwhile: nothing was done'
             USING HINT = 'Run it again: it plans for the present state.'; END IF; END",
        query(oid),
        literal(seen)
    );
    format!("DO {}", literal(&body))
}

fn query(oid: i64) -> String {
    let text = include_str!("definition.sql");
    // The comment at the top is left out: it would comment out the rest of a line of the statement around it.
    text[text.find("SELECT").unwrap_or(0)..].replace("{oid}", &oid.to_string())
}
