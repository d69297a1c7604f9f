//! Carries properties of a table and its parts (comments, targets, privileges, policies, …) over to the table that takes its place, as
//! statements.

use anyhow::Result;
use sqlx::PgConnection;

use super::objects;
use crate::pg::table::TableName;
use crate::pg::{identifier, literal, qualified};
use crate::task::partition::{column_settings, create, rights};

/// Returns a statement that gives the indexes of `known` the names that applications know (ON CONFLICT ON CONSTRAINT) and that those of
/// `other` have, which get new names. One of the tables is the partition of the other.
pub fn exchange_index_names(known: &str, other: &str) -> String {
    let body = format!(
        "DECLARE pair record; BEGIN
           FOR pair IN SELECT o.relname AS name, left(o.relname, 12) || '_' || o.oid AS free, k.relname AS given, n.nspname AS schema
              FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class k ON k.oid IN (h.inhparent, h.inhrelid)
              JOIN pg_catalog.pg_class o ON o.oid IN (h.inhparent, h.inhrelid) AND o.oid <> k.oid
              JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
              JOIN pg_catalog.pg_index ki ON ki.indexrelid = k.oid JOIN pg_catalog.pg_index oi ON oi.indexrelid = o.oid
              WHERE ki.indrelid = {}::pg_catalog.regclass AND oi.indrelid = {}::pg_catalog.regclass
           LOOP
             EXECUTE pg_catalog.format('ALTER INDEX %I.%I RENAME TO %I', pair.schema, pair.name, pair.free);
             EXECUTE pg_catalog.format('ALTER INDEX %I.%I RENAME TO %I', pair.schema, pair.given, pair.name);
           END LOOP;
         END",
        literal(known),
        literal(other)
    );
    format!("DO {}", literal(&body))
}

/// Returns statements for comments of constraints and indexes, and for targets of expressions in indexes: LIKE copies none of an index that
/// belongs to a constraint. They use the names that the table and its indexes have by then.
pub async fn of_indexes_and_constraints(connection: &mut PgConnection, table: &TableName) -> Result<Vec<String>> {
    let mut statements = Vec::new();
    let comments: Vec<(String, String)> = sqlx::query_as(
        "SELECT conname::text, obj_description(oid, 'pg_constraint') FROM pg_constraint
         WHERE conrelid = $1::bigint::oid AND contype IN ('c', 'f', 'p', 'u') AND obj_description(oid, 'pg_constraint') IS NOT NULL ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(&mut *connection)
    .await?;
    statements.extend(comments.iter().map(|(name, comment)| on_constraint(table, name, Some(comment))));
    let comments: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.relname::text, obj_description(c.oid, 'pg_class') FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE i.indrelid = $1::bigint::oid AND obj_description(c.oid, 'pg_class') IS NOT NULL ORDER BY 1",
    )
    .bind(table.oid)
    .fetch_all(&mut *connection)
    .await?;
    statements.extend(comments.iter().map(|(name, comment)| on_index(table, name, Some(comment))));
    let extensions: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.relname::text, quote_ident(e.extname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'x'
         JOIN pg_extension e ON e.oid = d.refobjid WHERE i.indrelid = $1::bigint::oid ORDER BY 1, 2",
    )
    .bind(table.oid)
    .fetch_all(&mut *connection)
    .await?;
    let depends = |(name, extension): &(String, String)| {
        format!("ALTER INDEX {} DEPENDS ON EXTENSION {extension}", qualified(&table.schema, name))
    };
    statements.extend(extensions.iter().map(depends));
    // No target is -1 before 17, and NULL since.
    let targets: Vec<(String, i16, i32)> = sqlx::query_as(
        "SELECT c.relname::text, a.attnum, a.attstattarget::int FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         JOIN pg_attribute a ON a.attrelid = c.oid WHERE i.indrelid = $1::bigint::oid AND a.attstattarget >= 0 ORDER BY 1, 2",
    )
    .bind(table.oid)
    .fetch_all(connection)
    .await?;
    statements.extend(targets.iter().map(|(name, column, target)| target_of(table, name, *column, *target)));
    Ok(statements)
}

/// Returns statements that carry changes to `table` since its conversion over to `child`. By then `child` has the table's name, and its
/// indexes the known names.
pub async fn back(connection: &mut PgConnection, table: &TableName, child: &TableName) -> Result<Vec<String>> {
    let mut statements = owner_and_privileges(connection, table, child).await?;
    statements.extend(row_security(connection, table, child).await?);
    statements.extend(comments(connection, table, child).await?);
    statements.extend(columns(connection, table, child).await?);
    statements.extend(identity(connection, table, child).await?);
    let targets: Vec<(String, i16, i32)> = sqlx::query_as(
        "SELECT p.relname::text, a.attnum, coalesce(a.attstattarget::int, -1) FROM pg_index i JOIN pg_class p ON p.oid = i.indexrelid
         JOIN pg_inherits h ON h.inhparent = p.oid JOIN pg_index ci ON ci.indexrelid = h.inhrelid AND ci.indrelid = $2::bigint::oid
         JOIN pg_attribute a ON a.attrelid = p.oid JOIN pg_attribute ca ON ca.attrelid = h.inhrelid AND ca.attnum = a.attnum
         WHERE i.indrelid = $1::bigint::oid AND coalesce(a.attstattarget::int, -1) <> coalesce(ca.attstattarget::int, -1) ORDER BY 1, 2",
    )
    .bind(table.oid)
    .bind(child.oid)
    .fetch_all(connection)
    .await?;
    statements.extend(targets.iter().map(|(name, column, target)| target_of(table, name, *column, *target)));
    Ok(statements)
}

/// Returns statements for extended statistics, to run when those of `table` are gone and their names free: those that the conversion
/// renamed get their names back and keep their data; others are created.
pub async fn statistics_back(connection: &mut PgConnection, table: &TableName, child: &TableName) -> Result<Vec<String>> {
    let wanted = objects::statistics(connection, table).await?;
    let renamed: Vec<(String, String)> = sqlx::query_as(
        "WITH of AS (
             SELECT s.*, replace(replace(pg_get_statisticsobjdef(s.oid), format('%I.%I', n.nspname, s.stxname), ''), ' FROM ' || s.stxrelid::regclass, '') AS core,
                    format('%I.%I', n.nspname, s.stxname) AS name
             FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
         )
         SELECT t.name, c.name FROM of t JOIN of c ON c.stxnamespace = t.stxnamespace AND c.core = t.core
              AND c.stxname = left(t.stxname, 12) || '_' || c.oid
         WHERE t.stxrelid = $1::bigint::oid AND c.stxrelid = $2::bigint::oid",
    )
    .bind(table.oid)
    .bind(child.oid)
    .fetch_all(&mut *connection)
    .await?;
    let mut statements = Vec::new();
    for statistics in wanted {
        let of_child = renamed.iter().find(|(name, _)| *name == statistics.name).map(|(_, of_child)| of_child.clone());
        match of_child {
            Some(of_child) => {
                statements.push(format!("ALTER STATISTICS {of_child} RENAME TO {}", identifier(&statistics.own_name)));
                statements.push(format!(
                    "ALTER STATISTICS {} SET STATISTICS {}",
                    statistics.name,
                    statistics.target.unwrap_or(-1)
                ));
                let comment = statistics.comment.as_deref();
                statements.push(format!("COMMENT ON STATISTICS {} IS {}", statistics.name, or_null(comment)));
            }
            None => statements.extend(statistics.make()),
        }
    }
    Ok(statements)
}

fn or_null(comment: Option<&str>) -> String {
    comment.map_or_else(|| "NULL".to_owned(), literal)
}

fn on_constraint(table: &TableName, name: &str, comment: Option<&String>) -> String {
    format!("COMMENT ON CONSTRAINT {} ON {} IS {}", identifier(name), table.sql(), or_null(comment.map(String::as_str)))
}

fn on_index(table: &TableName, name: &str, comment: Option<&String>) -> String {
    format!("COMMENT ON INDEX {} IS {}", qualified(&table.schema, name), or_null(comment.map(String::as_str)))
}

/// Returns a statement that sets a statistics target; -1 means none.
fn target_of(table: &TableName, index: &str, column: i16, target: i32) -> String {
    format!("ALTER INDEX {} ALTER COLUMN {column} SET STATISTICS {target}", qualified(&table.schema, index))
}

/// Returns statements that set the table's owner and exactly its privileges: a partition has its own.
async fn owner_and_privileges(connection: &mut PgConnection, table: &TableName, child: &TableName) -> Result<Vec<String>> {
    let name = table.sql();
    let owner: Option<String> = sqlx::query_scalar(
        "SELECT quote_ident(pg_get_userbyid(p.relowner)) FROM pg_class p JOIN pg_class c ON c.oid = $2::bigint::oid AND c.relowner <> p.relowner
         WHERE p.oid = $1::bigint::oid",
    )
    .bind(table.oid)
    .bind(child.oid)
    .fetch_optional(&mut *connection)
    .await?;
    let mut statements: Vec<String> = owner.iter().map(|owner| format!("ALTER TABLE {name} OWNER TO {owner}")).collect();
    // Privileges on columns are revoked with those on the table.
    let grantees: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT coalesce(quote_ident(r.rolname), 'PUBLIC') FROM (
             SELECT given.grantee, relowner FROM pg_class, aclexplode(relacl) given WHERE oid = $1::bigint::oid
             UNION ALL SELECT given.grantee, relowner FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid, aclexplode(attacl) given WHERE c.oid = $1::bigint::oid
         ) given LEFT JOIN pg_roles r ON r.oid = given.grantee WHERE given.grantee = 0 OR r.rolname IS NOT NULL AND given.grantee <> relowner ORDER BY 1",
    )
    .bind(child.oid)
    .fetch_all(&mut *connection)
    .await?;
    statements.extend(grantees.iter().map(|role| format!("REVOKE ALL ON TABLE {name} FROM {role} CASCADE")));
    statements.extend(rights::privileges(connection, table, &name).await?);
    Ok(statements)
}

async fn row_security(connection: &mut PgConnection, table: &TableName, child: &TableName) -> Result<Vec<String>> {
    let name = table.sql();
    let policies: Vec<String> =
        sqlx::query_scalar("SELECT polname::text FROM pg_policy WHERE polrelid = $1::bigint::oid ORDER BY 1")
            .bind(child.oid)
            .fetch_all(&mut *connection)
            .await?;
    let mut statements: Vec<String> =
        policies.iter().map(|policy| format!("DROP POLICY {} ON {name}", identifier(policy))).collect();
    statements.push(format!("ALTER TABLE {name} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"));
    statements.extend(create::policies(connection, table, &name).await?);
    Ok(statements)
}

/// Returns statements for the comments of the table, its columns, constraints and indexes, where they differ.
async fn comments(connection: &mut PgConnection, table: &TableName, child: &TableName) -> Result<Vec<String>> {
    let name = table.sql();
    let of_columns: Vec<(Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT NULL, obj_description($1::bigint::oid, 'pg_class')
         WHERE obj_description($1::bigint::oid, 'pg_class') IS DISTINCT FROM obj_description($2::bigint::oid, 'pg_class')
         UNION ALL (
         SELECT a.attname::text, col_description(a.attrelid, a.attnum) FROM pg_attribute a JOIN pg_attribute c ON c.attrelid = $2::bigint::oid AND c.attname = a.attname
         WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped
           AND col_description(a.attrelid, a.attnum) IS DISTINCT FROM col_description(c.attrelid, c.attnum) ORDER BY 1)",
    )
    .bind(table.oid)
    .bind(child.oid)
    .fetch_all(&mut *connection)
    .await?;
    let mut statements: Vec<String> = of_columns
        .iter()
        .map(|(column, comment)| match column {
            Some(column) => format!("COMMENT ON COLUMN {name}.{} IS {}", identifier(column), or_null(comment.as_deref())),
            None => format!("COMMENT ON TABLE {name} IS {}", or_null(comment.as_deref())),
        })
        .collect();
    // By then an index and its constraint have the parent's names.
    let of_constraints: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT CASE WHEN p.contype IN ('c', 'f', 'n') THEN c.conname ELSE p.conname END::text, obj_description(p.oid, 'pg_constraint')
         FROM pg_constraint p JOIN pg_constraint c ON c.conrelid = $2::bigint::oid AND c.contype = p.contype
             AND (c.conparentid = p.oid OR p.contype = 'c' AND c.conname = p.conname
                  -- NOT NULL is a constraint since 18, with a name of its own on each table.
                  OR p.contype = 'n' AND EXISTS (SELECT FROM pg_attribute a JOIN pg_attribute b ON b.attname = a.attname
                      WHERE a.attrelid = p.conrelid AND a.attnum = p.conkey[1] AND b.attrelid = c.conrelid AND b.attnum = c.conkey[1]))
         WHERE p.conrelid = $1::bigint::oid AND obj_description(p.oid, 'pg_constraint') IS DISTINCT FROM obj_description(c.oid, 'pg_constraint') ORDER BY 1",
    )
    .bind(table.oid)
    .bind(child.oid)
    .fetch_all(&mut *connection)
    .await?;
    statements.extend(of_constraints.iter().map(|(constraint, comment)| on_constraint(table, constraint, comment.as_ref())));
    let of_indexes: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT p.relname::text, obj_description(p.oid, 'pg_class') FROM pg_index i JOIN pg_class p ON p.oid = i.indexrelid
         JOIN pg_inherits h ON h.inhparent = p.oid JOIN pg_index ci ON ci.indexrelid = h.inhrelid AND ci.indrelid = $2::bigint::oid
         WHERE i.indrelid = $1::bigint::oid AND obj_description(p.oid, 'pg_class') IS DISTINCT FROM obj_description(h.inhrelid, 'pg_class') ORDER BY 1",
    )
    .bind(table.oid)
    .bind(child.oid)
    .fetch_all(connection)
    .await?;
    statements.extend(of_indexes.iter().map(|(index, comment)| on_index(table, index, comment.as_ref())));
    Ok(statements)
}

/// Returns statements for defaults, targets and options of columns: ALTER TABLE ONLY, and some forms without it, change the partitioned
/// table alone.
async fn columns(connection: &mut PgConnection, table: &TableName, child: &TableName) -> Result<Vec<String>> {
    let name = table.sql();
    let defaults: Vec<(String, Option<String>)> = sqlx::query_as(
        "SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a
         JOIN pg_attribute c ON c.attrelid = $2::bigint::oid AND c.attname = a.attname
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum LEFT JOIN pg_attrdef cd ON cd.adrelid = c.attrelid AND cd.adnum = c.attnum
         WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = ''
           AND pg_get_expr(d.adbin, d.adrelid) IS DISTINCT FROM pg_get_expr(cd.adbin, cd.adrelid) ORDER BY a.attnum",
    )
    .bind(table.oid)
    .bind(child.oid)
    .fetch_all(&mut *connection)
    .await?;
    let mut statements: Vec<String> = defaults
        .iter()
        .map(|(column, default)| {
            let change = default.as_ref().map_or_else(|| "DROP DEFAULT".to_owned(), |default| format!("SET DEFAULT {default}"));
            format!("ALTER TABLE {name} ALTER COLUMN {} {change}", identifier(column))
        })
        .collect();
    for setting in column_settings::read(connection, child.oid).await? {
        statements.extend(setting.reset(&name));
    }
    for setting in column_settings::read(connection, table.oid).await? {
        statements.extend(setting.statements(&name));
    }
    Ok(statements)
}

/// Returns a statement for the replica identity. An index as identity was refused before: it would be another index.
async fn identity(connection: &mut PgConnection, table: &TableName, child: &TableName) -> Result<Vec<String>> {
    let identity: Option<String> = sqlx::query_scalar(
        "SELECT CASE p.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE 'DEFAULT' END
         FROM pg_class p JOIN pg_class c ON c.oid = $2::bigint::oid WHERE p.oid = $1::bigint::oid AND p.relreplident <> c.relreplident",
    )
    .bind(table.oid)
    .bind(child.oid)
    .fetch_optional(connection)
    .await?;
    Ok(identity.iter().map(|identity| format!("ALTER TABLE {} REPLICA IDENTITY {identity}", table.sql())).collect())
}
