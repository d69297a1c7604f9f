//! Keeps a detached table as it was archived until it is dropped: a trigger refuses all changes, and its message says how to undo the
//! detach.
//!
//! Its foreign keys to other tables are dropped with the detach. With them, an application's DELETE of a row that only the detached
//! table refers to would fail, or its cascade would meet the trigger.
//!
//! The trigger's function runs as whoever writes to the table, and its owner may change it at any time. So it is made anew and never put in
//! the place of one that is there: whoever may create objects in the schema could have made one of its name beforehand, and CREATE OR REPLACE
//! leaves a function to its owner.

use anyhow::Result;
use sqlx::PgConnection;

use super::mark::{ForeignKey, Mark};
use crate::pg::form::matches;
use crate::pg::table::TableName;
use crate::pg::{self, identifier, literal, qualified};

pub const TRIGGER: &str = "pgtend_retired";

/// The guard of a detached table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The trigger always fires, and its function only refuses; it belongs to a role that may do to the table what it likes.
    Holds,
    /// It is gone, or is not the one that pgtend made.
    Removed,
    /// Its function belongs to another role, which may change it: function and role, for people.
    OfAnother { function: String, owner: String },
}

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

/// Returns statements that drop the foreign keys of a detached table and make it refuse all changes. They run under a lock on it, which holds the
/// name of its schema where the role may.
pub async fn statements(
    connection: &mut PgConnection,
    parent: &TableName,
    table: &TableName,
    mark: &Mark,
    foreign_keys: &[ForeignKey],
) -> Result<Vec<String>> {
    let name = table.sql();
    let drop_key = |key: &ForeignKey| format!("ALTER TABLE {name} DROP CONSTRAINT {}", identifier(&key.name));
    let message =
        format!("{table} was retired from {parent} by pgtend and takes no changes: it is dropped when its grace period is over");
    let body = body(&message, &undo_hint(parent, table, mark));
    let before = functions(connection, table).await?;
    let unquoted = function_name(table);
    let is_taken = before.iter().any(|other| other.schema == table.schema && other.name == unquoted);
    let random = uuid::Uuid::new_v4().simple().to_string();
    // Each table has its own: otherwise concurrent jobs would update the same row of the catalog.
    let unquoted = if is_taken { format!("{unquoted}_{}", &random[..RANDOM_DIGITS]) } else { unquoted };
    let function = qualified(&table.schema, &unquoted);
    let mut statements: Vec<String> = foreign_keys.iter().map(drop_key).collect();
    statements.push(format!("DROP TRIGGER IF EXISTS {TRIGGER} ON {name}"));
    statements.extend(before.iter().filter(|function| function.is_ours()).map(Function::drop));
    statements.push(format!("CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS {}", literal(&body)));
    if let Some(owner) = owner_to_give_to(connection, table).await? {
        statements.push(format!("ALTER FUNCTION {function}() OWNER TO {}", identifier(&owner)));
    }
    statements.extend([
        format!(
            "CREATE TRIGGER {TRIGGER} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        ),
        // It also fires in sessions that replay changes of another server.
        format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER {TRIGGER}"),
    ]);
    Ok(statements)
}

/// Returns the owner of the table, where a superuser makes the function, who may give it away; otherwise it stays with the login, a member of the owner.
async fn owner_to_give_to(connection: &mut PgConnection, table: &TableName) -> Result<Option<String>> {
    let sql = "SELECT o.rolname::pg_catalog.text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) c.relowner
               WHERE c.oid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND o.rolname OPERATOR(pg_catalog.<>) current_user
                 AND pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on'";
    Ok(sqlx::query_scalar(sql).bind(table.oid).fetch_optional(connection).await?)
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
/// its function behind.
pub async fn drop_functions(connection: &mut PgConnection, table: &TableName) -> Result<Vec<String>> {
    let found = functions(connection, table).await?;
    Ok(found.iter().filter(|function| function.is_ours()).map(Function::drop).collect())
}

/// Returns whether the trigger always fires and still only refuses.
pub async fn look(connection: &mut PgConnection, table: &TableName) -> Result<Guard> {
    // 62: BEFORE, INSERT, DELETE, UPDATE, TRUNCATE, for each statement. A superuser and the owner's members count as the owner: they may change the
    // table as they like, too.
    let sql = "SELECT CASE WHEN pg_catalog.octet_length(p.prosrc) OPERATOR(pg_catalog.<=) $3 THEN p.prosrc ELSE '' END, pg_catalog.pg_has_role(p.proowner, c.relowner, 'USAGE') AS is_the_owners, p.proconfig IS NULL AND l.lanname OPERATOR(pg_catalog.=) 'plpgsql' AS is_plain,
                      pg_catalog.format('%I.%I()', n.nspname, p.proname), pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(p.proowner))
               FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid
                    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang
                    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
               WHERE t.tgrelid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND t.tgname OPERATOR(pg_catalog.=) $2 AND t.tgenabled OPERATOR(pg_catalog.=) 'A'
                 AND t.tgtype OPERATOR(pg_catalog.=) 62::int2 AND t.tgqual IS NULL";
    let found: Option<(String, bool, bool, String, String)> =
        sqlx::query_as(sql).bind(table.oid).bind(TRIGGER).bind(SOURCE_BYTES_MOST).fetch_optional(connection).await?;
    Ok(match found {
        Some((_, false, _, function, owner)) => Guard::OfAnother { function, owner },
        Some((source, true, true, ..)) if is_body(&source) => Guard::Holds,
        _ => Guard::Removed,
    })
}

/// A function with a name of the guard's.
#[derive(sqlx::FromRow)]
struct Function {
    schema: String,
    name: String,
    source: String,
    /// It belongs to the table's owner or a member of it, we may drop it, and no other table uses it.
    is_at_hand: bool,
}

impl Function {
    fn is_ours(&self) -> bool {
        self.is_at_hand && is_body(&self.source)
    }

    /// Without its trigger it harms nobody. So one stays that others' objects need: whoever may use the schema can make a view that names it, and would keep the table.
    fn drop(&self) -> String {
        let name = qualified(&self.schema, &self.name);
        let drop = format!("BEGIN DROP FUNCTION IF EXISTS {name}(); EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END");
        format!("DO {}", literal(&drop))
    }
}

async fn functions(connection: &mut PgConnection, table: &TableName) -> Result<Vec<Function>> {
    let sql = "SELECT n.nspname::pg_catalog.text AS schema, p.proname::pg_catalog.text AS name,
                      CASE WHEN own.is_at_hand AND pg_catalog.octet_length(p.prosrc) OPERATOR(pg_catalog.<=) $3 THEN p.prosrc ELSE '' END AS source, own.is_at_hand
               FROM pg_catalog.pg_class c, pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace,
               LATERAL (SELECT p.prorettype OPERATOR(pg_catalog.=) 'pg_catalog.trigger'::pg_catalog.regtype AND pg_catalog.pg_has_role(p.proowner, 'USAGE')
                      AND pg_catalog.pg_has_role(p.proowner, c.relowner, 'USAGE')
                      AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgfoid OPERATOR(pg_catalog.=) p.oid AND t.tgrelid OPERATOR(pg_catalog.<>) c.oid) AS is_at_hand) own
               WHERE c.oid OPERATOR(pg_catalog.=) $1::bigint::pg_catalog.oid AND p.pronargs OPERATOR(pg_catalog.=) 0::int2
                 AND (p.proname OPERATOR(pg_catalog.=) $2 OR pg_catalog.starts_with(p.proname::pg_catalog.text, pg_catalog.concat($2, '_'))) ORDER BY 1, 2";
    Ok(sqlx::query_as(sql).bind(table.oid).bind(function_name(table)).bind(SOURCE_BYTES_MOST).fetch_all(connection).await?)
}

/// Returns the name of the trigger's function; `_` and random digits follow where it is taken.
fn function_name(table: &TableName) -> String {
    format!("{TRIGGER}_{}", table.oid)
}

/// A longer source is no guard's, and is not read: it may be of anybody, and of any length.
const SOURCE_BYTES_MOST: i32 = 100_000;

/// The digits behind the name of a function whose own name is taken: nobody foresees them.
const RANDOM_DIGITS: usize = 16;

fn body(message: &str, hint: &str) -> String {
    format!(
        "BEGIN RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = {}, HINT = {}; END",
        literal(message),
        literal(hint)
    )
}

/// Returns whether the source only refuses: nothing in it is computed.
fn is_body(source: &str) -> bool {
    let text = r"E'(?:[^'\\]|''|\\\\)*'";
    matches(
        source,
        &format!(
            "BEGIN RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = {text}, HINT = {text}; END"
        ),
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_computes_anything_is_not_the_guard_s() {
        for (message, hint) in [("a", "b"), ("it's \\ \"x\"", "'; DROP TABLE t; --\nSELECT 1"), ("\\", "\\'")] {
            let made = body(message, hint);
            assert!(is_body(&made), "{made}");
        }
        let refusal = |code: &str, message: &str, end: &str| {
            format!("BEGIN RAISE EXCEPTION USING ERRCODE = {code}, MESSAGE = {message}, HINT = E'b'{end}")
        };
        let code = "'object_not_in_prerequisite_state'";
        assert!(is_body(&refusal(code, "E'a'", "; END")));
        for other in [
            refusal("mal.code()", "E'a'", "; END"),
            refusal(code, "mal.message()", "; END"),
            refusal(code, "E'a' || mal.message() || E'b'", "; END"),
            refusal(code, "E'\\' || mal.message() || '", "; END"),
            refusal(code, "E'a', DETAIL = E'c'", "; END"),
            refusal(code, "E'a'", "; EXCEPTION WHEN OTHERS THEN RETURN NULL; END"),
            refusal(code, "E'a'", "; END; "),
            "BEGIN RAISE EXCEPTION USING ERRCODE = 'P0001'; END".to_owned(),
            "BEGIN RETURN NULL; END".to_owned(),
        ] {
            assert!(!is_body(&other), "{other}");
        }
    }
}
