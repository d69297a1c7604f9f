//! Keeps a detached table as it was archived until it is dropped: a trigger refuses all changes, and says how to undo the detach.
//!
//! Its foreign keys to other tables are dropped with the detach. With them, an application's DELETE of a row that only the detached
//! table refers to would fail, or its cascade would meet the trigger.

use anyhow::Result;
use sqlx::PgConnection;

use super::mark::{ForeignKey, Mark};
use crate::pg::table::TableName;
use crate::pg::{self, identifier, literal, qualified};

pub const TRIGGER: &str = "pgtend_retired";

/// Foreign keys from a partition, its parent's among them; those that the server made below another key of the same table are in that.
pub async fn foreign_keys(connection: &mut PgConnection, table: &TableName) -> Result<Vec<ForeignKey>> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT k.conname::text, pg_get_constraintdef(k.oid) FROM pg_constraint k
         WHERE k.conrelid = $1::bigint::oid AND k.contype = 'f'
           AND NOT EXISTS (SELECT FROM pg_constraint up WHERE up.oid = k.conparentid AND up.conrelid = k.conrelid) ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().map(|(name, definition)| ForeignKey { name, definition }).collect())
}

/// Statements for a detached table, under a lock on it: they drop its foreign keys and refuse all changes from then on.
pub fn statements(parent: &TableName, table: &TableName, mark: &Mark, foreign_keys: &[ForeignKey]) -> Vec<String> {
    let (name, function) = (table.sql(), function(table));
    let drop_key = |key: &ForeignKey| format!("ALTER TABLE {name} DROP CONSTRAINT {}", identifier(&key.name));
    let message = format!(
        "{table} was retired from {parent} by pgtend and takes no changes: it waits for the end of its grace, and is dropped then"
    );
    let body = format!(
        "BEGIN RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = {}, HINT = {}; END",
        literal(&message),
        literal(&way_back(parent, table, mark))
    );
    let mut statements: Vec<String> = foreign_keys.iter().map(drop_key).collect();
    statements.extend([
        format!("CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS {}", literal(&body)),
        format!(
            "CREATE OR REPLACE TRIGGER {TRIGGER} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        ),
        // Also in a session that replays what another server did.
        format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER {TRIGGER}"),
    ]);
    statements
}

/// Advice on how to attach the rows again.
pub fn way_back(parent: &TableName, table: &TableName, mark: &Mark) -> String {
    let bounds = mark.bounds.clone().unwrap_or_else(|| format!("FOR VALUES FROM ('{}') TO ('{}')", mark.from, mark.to));
    format!(
        "to have it back: DROP TRIGGER {TRIGGER} ON {0}; ALTER TABLE {1} ATTACH PARTITION {0} {bounds}; and a longer `retain` in the job",
        table.sql(),
        parent.sql()
    )
}

/// Takes it off again, where it is.
pub async fn removal(connection: &mut PgConnection, table: &TableName) -> Result<Vec<String>> {
    let is_there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1::bigint::oid AND tgname = $2 AND NOT tgisinternal)",
    )
    .bind(table.oid)
    .bind(TRIGGER)
    .fetch_one(connection)
    .await?;
    let drop_trigger = is_there.then(|| format!("DROP TRIGGER {TRIGGER} ON {}", table.sql()));
    Ok(drop_trigger.into_iter().chain([drop_function(table)]).collect())
}

pub fn drop_function(table: &TableName) -> String {
    format!("DROP FUNCTION IF EXISTS {}()", function(table))
}

/// Whether the trigger is there, fires always, and still does nothing but refuse.
pub async fn holds(connection: &mut PgConnection, table: &TableName) -> Result<bool> {
    // 62: BEFORE, INSERT, DELETE, UPDATE, TRUNCATE, for each statement.
    let sql = "SELECT EXISTS (
                   SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                   WHERE t.tgrelid = $1::bigint::oid AND t.tgname = $2 AND t.tgenabled = 'A' AND t.tgtype = 62 AND t.tgqual IS NULL
                     AND p.proname = $3 AND p.prosrc LIKE 'BEGIN RAISE EXCEPTION USING ERRCODE = %; END')";
    Ok(sqlx::query_scalar(sql).bind(table.oid).bind(TRIGGER).bind(function_name(table)).fetch_one(connection).await?)
}

fn function_name(table: &TableName) -> String {
    format!("{TRIGGER}_{}", table.oid)
}

/// One for each table: jobs beside each other would change the same row of the catalog.
fn function(table: &TableName) -> String {
    qualified(&table.schema, &function_name(table))
}

/// A checksum of all rows of a table as they stand, whatever their order. Sums, as equal rows would cancel each other out with xor.
/// The session's settings are those of the archive ([`crate::archive::prepare_session`]).
pub async fn contents(connection: &mut PgConnection, table: &TableName) -> Result<(u64, String)> {
    let sql = format!(
        "SELECT count(*) || ' ' || coalesce(sum(hashtextextended((r.*)::text COLLATE \"C\", 0)::numeric), 0) FROM ONLY {} r",
        table.sql()
    );
    let text = pg::fetch_text(connection, sql).await?.unwrap_or_default();
    let (rows, sum) = text.split_once(' ').ok_or_else(|| anyhow::anyhow!("a count and a sum"))?;
    Ok((rows.parse()?, sum.to_owned()))
}
