//! Whether a relation is still what it was: between a plan and the lock under which it is carried out, minutes may pass, in which
//! anybody may change it. A view without somebody's new column, policy or privilege would be wrong, and nobody would know.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use crate::pg::{self, literal};

/// A hash of all that a plan reads of a relation, or depends on.
pub async fn of(connection: &mut PgConnection, oid: i64) -> Result<String> {
    pg::fetch_text(connection, query(oid)).await?.context("a relation has a definition")
}

/// Ends its transaction where that is another one than `seen`. To be run under a lock, and with the settings of
/// [`super::prepare`], as the server writes expressions by them.
pub fn unchanged(oid: i64, seen: &str) -> String {
    let body = format!(
        "-- Nothing is done where it is not what was looked at any more.
         BEGIN IF ({}) IS DISTINCT FROM {} THEN
             RAISE EXCEPTION 'it, or a view or something else on it, was changed or dropped meanwhile: nothing was done'
             USING HINT = 'Run it again: it looks at what is there now.'; END IF; END",
        query(oid),
        literal(seen)
    );
    format!("DO {}", literal(&body))
}

fn query(oid: i64) -> String {
    let text = include_str!("definition.sql");
    // A comment in front would end a line of the statement that it is put in.
    text[text.find("SELECT").unwrap_or(0)..].replace("{oid}", &oid.to_string())
}
