//! Keeps a detached table as it was archived until it is dropped: a trigger refuses all changes, and its message says how to undo the
//! detach.
//!
//! Its foreign keys to other tables are dropped with the detach. With them, an application's DELETE of a row that only the detached
//! table refers to would fail, or its cascade would meet the trigger.

use anyhow::Result;
use sqlx::PgConnection;

use super::mark::{ForeignKey, Mark};
use crate::pg::table::TableName;
use crate::pg::{self, identifier, literal, qualified};

pub const TRIGGER: &str = "pgtend_retired";
/// The body of the trigger's function, as a pattern for LIKE: it only refuses.
const BODY: &str = "BEGIN RAISE EXCEPTION USING ERRCODE = %; END";

/// Returns the foreign keys of a partition, including those of its parent, without those that the server created below another key of the
/// same table.
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

/// Returns statements that drop the foreign keys of a detached table and make it refuse all changes. They run under a lock on it.
pub fn statements(parent: &TableName, table: &TableName, mark: &Mark, foreign_keys: &[ForeignKey]) -> Vec<String> {
    let (name, function) = (table.sql(), function(table));
    let drop_key = |key: &ForeignKey| format!("ALTER TABLE {name} DROP CONSTRAINT {}", identifier(&key.name));
    let message =
        format!("{table} was retired from {parent} by pgtend and takes no changes: it is dropped when its grace period is over");
    let body = format!(
        "BEGIN RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = {}, HINT = {}; END",
        literal(&message),
        literal(&undo_hint(parent, table, mark))
    );
    let mut statements: Vec<String> = foreign_keys.iter().map(drop_key).collect();
    statements.extend([
        format!("CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS {}", literal(&body)),
        format!(
            "CREATE OR REPLACE TRIGGER {TRIGGER} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        ),
        // It also fires in sessions that replay changes of another server.
        format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER {TRIGGER}"),
    ]);
    statements
}

/// Returns a hint on how to attach the table again.
pub fn undo_hint(parent: &TableName, table: &TableName, mark: &Mark) -> String {
    let bounds = mark.bounds.clone().unwrap_or_else(|| format!("FOR VALUES FROM ('{}') TO ('{}')", mark.from, mark.to));
    format!(
        "to bring it back: DROP TRIGGER {TRIGGER} ON {0}; ALTER TABLE {1} ATTACH PARTITION {0} {bounds}; and set a longer `retain` in the \
         job",
        table.sql(),
        parent.sql()
    )
}

/// Returns statements that remove the trigger, if it exists, and its functions.
pub async fn removal(connection: &mut PgConnection, table: &TableName) -> Result<Vec<String>> {
    let is_there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1::bigint::oid AND tgname = $2 AND NOT tgisinternal)",
    )
    .bind(table.oid)
    .bind(TRIGGER)
    .fetch_one(&mut *connection)
    .await?;
    let drop_trigger = is_there.then(|| format!("DROP TRIGGER {TRIGGER} ON {}", table.sql()));
    Ok(drop_trigger.into_iter().chain(drop_functions(connection, table).await?).collect())
}

/// Returns statements that drop the trigger's functions, once the trigger or the table is gone. A table that moves to another schema leaves
/// its function behind. Functions of that name that we may not drop, or that another table uses, are not ours.
pub async fn drop_functions(connection: &mut PgConnection, table: &TableName) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT format('DROP FUNCTION IF EXISTS %I.%I()', n.nspname, p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE p.proname = $2 AND p.pronargs = 0 AND p.prorettype = 'trigger'::regtype AND p.prosrc LIKE $3 AND pg_has_role(p.proowner, 'USAGE')
           AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND t.tgrelid <> $1::bigint::oid) ORDER BY 1",
    )
    .bind(table.oid)
    .bind(function_name(table))
    .bind(BODY)
    .fetch_all(connection)
    .await?)
}

/// Returns whether the trigger exists, always fires, and still only refuses.
pub async fn holds(connection: &mut PgConnection, table: &TableName) -> Result<bool> {
    // 62: BEFORE, INSERT, DELETE, UPDATE, TRUNCATE, for each statement.
    let sql = "SELECT EXISTS (
                   SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                   WHERE t.tgrelid = $1::bigint::oid AND t.tgname = $2 AND t.tgenabled = 'A' AND t.tgtype = 62 AND t.tgqual IS NULL
                     AND p.proname = $3 AND p.prosrc LIKE $4)";
    let holds = sqlx::query_scalar(sql).bind(table.oid).bind(TRIGGER).bind(function_name(table)).bind(BODY);
    Ok(holds.fetch_one(connection).await?)
}

fn function_name(table: &TableName) -> String {
    format!("{TRIGGER}_{}", table.oid)
}

/// Returns the name of the trigger's function. Each table has its own: otherwise concurrent jobs would update the same row of the catalog.
fn function(table: &TableName) -> String {
    qualified(&table.schema, &function_name(table))
}

/// Returns the number of a table's rows, and a checksum of them that does not depend on their order. It is a sum: with xor, equal rows
/// would cancel each other out. The session must have the settings of the archive ([`crate::archive::prepare_session`]).
pub async fn contents(connection: &mut PgConnection, table: &TableName) -> Result<(u64, String)> {
    let sql = format!(
        "SELECT count(*) || ' ' || coalesce(sum(hashtextextended((r.*)::text COLLATE \"C\", 0)::numeric), 0) FROM ONLY {} r",
        table.sql()
    );
    let text = pg::fetch_text(connection, sql).await?.unwrap_or_default();
    let (rows, sum) = text.split_once(' ').ok_or_else(|| anyhow::anyhow!("the server returned no count and sum"))?;
    Ok((rows.parse()?, sum.to_owned()))
}
