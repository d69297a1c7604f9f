//! Creates a partition: a table like its parent, with the properties that LIKE leaves out, attached in the same transaction.
//!
//! CREATE … PARTITION OF would take ACCESS EXCLUSIVE on the parent; this takes SHARE UPDATE EXCLUSIVE, under which reads and writes go on.
//! A new table has no rows to check, so it needs no CHECK before ATTACH.

use anyhow::Result;
use sqlx::PgConnection;

use super::plan::{New, Plan};
use super::state::surroundings;
use crate::live::session::{Attempt, Session, UnderLock};
use crate::pg::table::{Checked, TableName, proof};
use crate::pg::{self, identifier, literal, qualified};
use crate::task::bound::{self, Kind as Text};
use crate::task::partition::{column_settings, rights};
use crate::task::remade;

/// What of the newest partition is made from texts of the catalog (`like = "newest"`).
const EXTRAS: [Text; 3] = [Text::Check, Text::ForeignKey, Text::Index];

/// The name of a CHECK that the default partition has while a partition is attached.
const SHIELD: &str = "pgtend_not_here";

/// Creates a partition. Returns how many rows moved into it from the default partition.
pub async fn create(session: &mut Session, plan: &Plan, new: &New) -> Result<Attempt<u64>> {
    let shielded = match (&plan.default, new.range) {
        // Current rows go to the default partition until theirs exists, so no CHECK may refuse them.
        (Some(default), Some(range)) if plan.default_rows.is_capped && !new.moves_rows && range.from > plan.now => {
            let (from, to) = (plan.key.sql(range.from)?, plan.key.sql(range.to)?);
            if let Attempt::Locked(who) = shield(session, default, &plan.column, &from, &to).await? {
                return Ok(Attempt::Locked(who));
            }
            Some(default)
        }
        _ => None,
    };
    let created = make(session, plan, new, shielded).await;
    if let Some(default) = shielded.filter(|_| !matches!(created, Ok(Attempt::Done(_)))) {
        session.transaction(&[unshield(default)], &[default.oid]).await?;
    }
    created
}

/// ATTACH reads all of the default partition under ACCESS EXCLUSIVE, unless a valid CHECK says that it has no row of the new range. The
/// CHECK is validated under a lock that lets reads and writes go on.
async fn shield(session: &mut Session, default: &TableName, column: &str, from: &str, to: &str) -> Result<Attempt<()>> {
    let (table, column) = (default.sql(), identifier(column));
    let check = format!(
        "ALTER TABLE {table} ADD CONSTRAINT {SHIELD} CHECK ({column} IS NULL OR {column} < {from} OR {column} >= {to}) NOT VALID"
    );
    // A CHECK that a killed run left blocks this one, and rows of other sessions.
    if let Attempt::Locked(who) = session.transaction(&[unshield(default), check], &[default.oid]).await? {
        return Ok(Attempt::Locked(who));
    }
    let lock = format!("LOCK TABLE ONLY {table} IN SHARE UPDATE EXCLUSIVE MODE; {}", proof([&Checked::of(default)]));
    if let Attempt::Locked(who) = session.begin(&lock, default.oid).await? {
        session.transaction(&[unshield(default)], &[default.oid]).await?;
        return Ok(Attempt::Locked(who));
    }
    for statement in [format!("ALTER TABLE {table} VALIDATE CONSTRAINT {SHIELD}"), "COMMIT".to_owned()] {
        if let Err(error) = pg::execute(&mut session.connection, statement).await {
            let _ = pg::execute(&mut session.connection, "ROLLBACK".to_owned()).await;
            session.transaction(&[unshield(default)], &[default.oid]).await?;
            return Err(error.context(format!("cannot check whether {default} has rows of the new partition")));
        }
    }
    Ok(Attempt::Done(()))
}

fn unshield(default: &TableName) -> String {
    format!("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {SHIELD}", default.sql())
}

async fn make(session: &mut Session, plan: &Plan, new: &New, shielded: Option<&TableName>) -> Result<Attempt<u64>> {
    let tables: Vec<i64> =
        [Some(plan.table.oid), plan.default.as_ref().map(|default| default.oid)].into_iter().flatten().collect();
    let checked = session.checked.clone();
    let making = Creation { plan, new, shielded, checked: &checked };
    Ok(match session.transaction_under(&making.lock(), &tables, &making).await? {
        // Only the statement that moves rows counts any.
        Attempt::Done(rows) => Attempt::Done(rows.iter().sum()),
        Attempt::Locked(who) => Attempt::Locked(who),
    })
}

struct Creation<'a> {
    plan: &'a Plan,
    new: &'a New,
    shielded: Option<&'a TableName>,
    checked: &'a [Checked],
}

impl Creation<'_> {
    /// Returns the statement that takes the strongest lock on the parent. It runs first: what is read under the lock still holds at the
    /// commit.
    ///
    /// If there is a default partition, ATTACH's own locks are not enough. A writer that has already chosen the default partition when the
    /// new one is attached fails ("violates partition constraint"), and a reader that has already listed the partitions sees a moved row
    /// neither in its old place nor in its new one: both happened on 15 with concurrent writers and readers. A session that waits for the
    /// parent looks up the partitions again: SHARE ROW EXCLUSIVE makes writers wait; where rows move, ACCESS EXCLUSIVE makes readers wait,
    /// too.
    fn lock(&self) -> String {
        let mode = match (self.new.range, &self.plan.default) {
            (Some(_), Some(_)) if self.new.moves_rows => "ACCESS EXCLUSIVE",
            (Some(_), Some(_)) => "SHARE ROW EXCLUSIVE",
            _ => "SHARE UPDATE EXCLUSIVE",
        };
        format!("LOCK TABLE ONLY {} IN {mode} MODE", self.plan.table.sql())
    }
}

impl UnderLock for Creation<'_> {
    async fn statements(&self, connection: &mut PgConnection) -> Result<Vec<String>> {
        let (plan, new, parent) = (self.plan, self.new, &self.plan.table);
        let name = qualified(&parent.schema, &new.name);
        let rights_before = rights::read(connection, parent.oid).await?;
        let policies = bound::read(connection, parent.oid, &new.model.into_iter().collect::<Vec<_>>(), &[Text::Policy]).await?;
        let mut statements = Vec::new();
        if !policies.is_empty() {
            statements.push(remade::proof(parent.oid, policies.kinds()));
        }
        statements.extend(like_parent(connection, parent, &name, new.model).await?);
        statements.extend(policies.proof(&name));
        let mut emptied = None;
        let bounds = match new.range {
            None => "DEFAULT".to_owned(),
            Some(range) => {
                let (from, to) = (plan.key.sql(range.from)?, plan.key.sql(range.to)?);
                if let (true, Some(default)) = (new.moves_rows, &plan.default) {
                    let column = identifier(&plan.column);
                    let within = format!("{column} >= {from} AND {column} < {to}");
                    statements.extend(move_rows(connection, (parent, default), &name, &within, self.checked).await?);
                    emptied = Some(default);
                }
                if let Some(model) = new.model.filter(|_| plan.is_like_newest) {
                    let extras = surroundings::extras(connection, parent.oid, model, &plan.column).await?;
                    statements.extend(extras.iter().filter_map(|extra| extra.copy.as_ref()).map(|copied| copied.sql(&name)));
                    statements.extend(bound::read(connection, model, &[parent.oid], &EXTRAS).await?.proof_of_some(&name));
                }
                format!("FOR VALUES FROM ({from}) TO ({to})")
            }
        };
        statements.push(format!("ALTER TABLE {} ATTACH PARTITION {name} {bounds}", parent.sql()));
        statements.extend(self.shielded.map(unshield));
        if let Some(default) = emptied {
            statements.extend(enable_triggers(connection, default).await?);
        }
        statements.extend(replica_identity(connection, parent, &name).await?);
        statements.push(rights::unchanged(parent, &rights_before));
        Ok(statements)
    }
}

/// Returns statements that create `name` as a table like `parent`, with its owner, privileges, policies and comment, and the storage of
/// `model`.
async fn like_parent(connection: &mut PgConnection, parent: &TableName, name: &str, model: Option<i64>) -> Result<Vec<String>> {
    let mut statements = vec![create_table(connection, parent, name, model).await?];
    statements.extend(storage(connection, name, model).await?);
    // Neither LIKE nor PARTITION OF copies these.
    let targets = column_settings::targets(connection, parent.oid).await?;
    statements.extend(targets.iter().flat_map(|setting| setting.statements(name)));
    statements.extend(policies(connection, parent, name).await?);
    statements.extend(comment(connection, parent, name).await?);
    statements.extend(rights::privileges(connection, parent, name).await?);
    Ok(statements)
}

/// Returns a CREATE TABLE without indexes, which ATTACH creates like the parent's, and without identity columns: PostgreSQL 18 refuses a
/// partition that has its own, and gives it the parent's.
async fn create_table(connection: &mut PgConnection, parent: &TableName, name: &str, model: Option<i64>) -> Result<String> {
    // Before 17, a partitioned table has no access method.
    let (method, space): (Option<String>, Option<String>) = sqlx::query_as(
        "SELECT (SELECT amname::text FROM pg_am WHERE oid = coalesce(nullif(c.relam, 0),
                     (SELECT m.relam FROM pg_class m WHERE m.oid = $2::bigint::oid AND current_setting('server_version_num')::int < 170000))),
                (SELECT spcname::text FROM pg_tablespace WHERE oid = c.reltablespace)
         FROM pg_class c WHERE c.oid = $1::bigint::oid",
    )
    .bind(parent.oid)
    .bind(model)
    .fetch_one(connection)
    .await?;
    let method = method.map(|method| format!(" USING {}", identifier(&method))).unwrap_or_default();
    let space = space.map(|space| format!(" TABLESPACE {}", identifier(&space))).unwrap_or_default();
    Ok(format!("CREATE TABLE {name} (LIKE {} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY){method}{space}", parent.sql()))
}

/// Returns a statement that sets the storage parameters of the newest partition: a partitioned table has none of its own.
async fn storage(connection: &mut PgConnection, name: &str, model: Option<i64>) -> Result<Vec<String>> {
    let Some(model) = model else { return Ok(Vec::new()) };
    let options: Vec<(bool, String)> = sqlx::query_as(
        "SELECT c.oid <> $1::bigint::oid, unnest(c.reloptions) FROM pg_class c
         WHERE c.oid = $1::bigint::oid OR c.oid = (SELECT reltoastrelid FROM pg_class WHERE oid = $1::bigint::oid) ORDER BY 1, 2",
    )
    .bind(model)
    .fetch_all(connection)
    .await?;
    if options.is_empty() {
        return Ok(Vec::new());
    }
    let options = options.iter().filter_map(|(is_toast, option)| {
        let (key, value) = option.split_once('=')?;
        Some(format!("{}{} = {}", if *is_toast { "toast." } else { "" }, identifier(key), literal(value)))
    });
    Ok(vec![format!("ALTER TABLE {name} SET ({})", options.collect::<Vec<_>>().join(", "))])
}

/// Copies the parent's policies: a reader of the partition by its own name would bypass them otherwise.
pub async fn policies(connection: &mut PgConnection, parent: &TableName, name: &str) -> Result<Vec<String>> {
    let (enabled, forced): (bool, bool) =
        sqlx::query_as("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE oid = $1::bigint::oid")
            .bind(parent.oid)
            .fetch_one(&mut *connection)
            .await?;
    let mut statements = Vec::new();
    if enabled {
        statements.push(format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"));
    }
    if forced {
        statements.push(format!("ALTER TABLE {name} FORCE ROW LEVEL SECURITY"));
    }
    #[derive(sqlx::FromRow)]
    struct Policy {
        name: String,
        is_permissive: bool,
        command: String,
        roles: Vec<String>,
        using: Option<String>,
        check: Option<String>,
        comment: Option<String>,
    }
    let policies: Vec<Policy> = sqlx::query_as(
        "SELECT polname::text AS name, polpermissive AS is_permissive,
                CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END AS command,
                ARRAY(SELECT coalesce(quote_ident(rolname), 'PUBLIC') FROM unnest(polroles) role LEFT JOIN pg_roles r ON r.oid = role) AS roles,
                pg_get_expr(polqual, polrelid) AS \"using\", pg_get_expr(polwithcheck, polrelid) AS \"check\",
                obj_description(oid, 'pg_policy') AS comment
         FROM pg_policy WHERE polrelid = $1::bigint::oid ORDER BY 1",
    )
    .bind(parent.oid)
    .fetch_all(connection)
    .await?;
    for policy in policies {
        let using = policy.using.map(|using| format!(" USING ({using})")).unwrap_or_default();
        let check = policy.check.map(|check| format!(" WITH CHECK ({check})")).unwrap_or_default();
        statements.push(format!(
            "CREATE POLICY {} ON {name} AS {} FOR {} TO {}{using}{check}",
            identifier(&policy.name),
            if policy.is_permissive { "PERMISSIVE" } else { "RESTRICTIVE" },
            policy.command,
            policy.roles.join(", ")
        ));
        let on = |comment: &String| format!("COMMENT ON POLICY {} ON {name} IS {}", identifier(&policy.name), literal(comment));
        statements.extend(policy.comment.as_ref().map(on));
    }
    Ok(statements)
}

pub async fn comment(connection: &mut PgConnection, parent: &TableName, name: &str) -> Result<Vec<String>> {
    let comment: Option<String> =
        sqlx::query_scalar("SELECT obj_description($1::bigint::oid, 'pg_class')").bind(parent.oid).fetch_one(connection).await?;
    Ok(comment.map(|comment| format!("COMMENT ON TABLE {name} IS {}", literal(&comment))).into_iter().collect())
}

/// Returns a statement that sets the replica identity. ATTACH creates the index, so it is looked up only then.
async fn replica_identity(connection: &mut PgConnection, parent: &TableName, name: &str) -> Result<Vec<String>> {
    let (identity, index): (String, Option<i64>) = sqlx::query_as(
        "SELECT relreplident::text, (SELECT indexrelid::bigint FROM pg_index WHERE indrelid = c.oid AND indisreplident)
         FROM pg_class c WHERE oid = $1::bigint::oid",
    )
    .bind(parent.oid)
    .fetch_one(connection)
    .await?;
    Ok(match (identity.as_str(), index) {
        ("f", _) => vec![format!("ALTER TABLE {name} REPLICA IDENTITY FULL")],
        ("n", _) => vec![format!("ALTER TABLE {name} REPLICA IDENTITY NOTHING")],
        ("i", Some(index)) => {
            let body = format!(
                "DECLARE child name; BEGIN
                   SELECT c.relname INTO STRICT child FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid
                     JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
                     WHERE h.inhparent = {index}::pg_catalog.oid AND i.indrelid = {}::pg_catalog.regclass;
                   EXECUTE pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', {}, child);
                 END",
                literal(name),
                literal(name)
            );
            vec![format!("DO {}", literal(&body))]
        }
        _ => Vec::new(),
    })
}

/// Returns statements that move rows from the default partition to a table that no other session sees yet: the commit shows both changes at
/// once.
async fn move_rows(
    connection: &mut PgConnection,
    (parent, default): (&TableName, &TableName),
    name: &str,
    within: &str,
    checked: &[Checked],
) -> Result<Vec<String>> {
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT quote_ident(attname) FROM pg_attribute
         WHERE attrelid = $1::bigint::oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
    )
    .bind(parent.oid)
    .fetch_all(&mut *connection)
    .await?;
    let columns = columns.join(", ");
    let mut statements = vec![
        format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", default.sql()),
        proof([&Checked::of(parent).as_in(checked), &Checked::of(default).as_in(checked)]),
    ];
    // The application's triggers must not fire: no row is lost.
    for (trigger, _) in triggers(connection, default).await? {
        statements.push(format!("ALTER TABLE {} DISABLE TRIGGER {}", default.sql(), identifier(&trigger)));
    }
    statements.push(format!(
        "WITH moved AS (DELETE FROM ONLY {} WHERE {within} RETURNING {columns}) INSERT INTO {name} ({columns}) SELECT {columns} FROM moved",
        default.sql()
    ));
    Ok(statements)
}

async fn triggers(connection: &mut PgConnection, table: &TableName) -> Result<Vec<(String, String)>> {
    Ok(sqlx::query_as(
        "SELECT tgname::text, tgenabled::text FROM pg_trigger
         WHERE tgrelid = $1::bigint::oid AND tgenabled <> 'D' AND (NOT tgisinternal OR (tgparentid <> 0 AND tgconstraint = 0)) ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?)
}

/// Returns statements that enable the triggers as they were: these are read before they are disabled.
async fn enable_triggers(connection: &mut PgConnection, default: &TableName) -> Result<Vec<String>> {
    Ok(triggers(connection, default)
        .await?
        .into_iter()
        .map(|(trigger, enabled)| {
            let how = match enabled.as_str() {
                "A" => "ENABLE ALWAYS",
                "R" => "ENABLE REPLICA",
                _ => "ENABLE",
            };
            format!("ALTER TABLE {} {how} TRIGGER {}", default.sql(), identifier(&trigger))
        })
        .collect())
}
