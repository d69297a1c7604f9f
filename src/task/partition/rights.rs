//! The owner and privileges of a new partition: those that its parent has at the commit.

use anyhow::Result;
use sqlx::PgConnection;

use crate::pg::table::TableName;
use crate::pg::{self, identifier, literal};

/// Returns statements that give a table the parent's owner and exactly the parent's privileges: ALTER DEFAULT PRIVILEGES may have granted
/// others.
pub async fn privileges(connection: &mut PgConnection, parent: &TableName, name: &str) -> Result<Vec<String>> {
    let (owner, is_ours): (String, bool) = sqlx::query_as(
        "SELECT quote_ident(pg_get_userbyid(relowner)), relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)
         FROM pg_class WHERE oid = $1::bigint::oid",
    )
    .bind(parent.oid)
    .fetch_one(&mut *connection)
    .await?;
    // These roles are named in default privileges, such as those of the role that creates it and of the parent's owner.
    let by_default: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT coalesce(quote_ident(rolname), 'PUBLIC') FROM pg_default_acl, aclexplode(defaclacl) given
         LEFT JOIN pg_roles r ON r.oid = given.grantee WHERE defaclobjtype = 'r' AND (given.grantee = 0 OR rolname IS NOT NULL) ORDER BY 1",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut statements: Vec<String> = by_default.iter().map(|role| format!("REVOKE ALL ON TABLE {name} FROM {role}")).collect();
    if !is_ours {
        statements.push(format!("ALTER TABLE {name} OWNER TO {owner}"));
        statements.push(statistics_to(name, &owner));
    }
    let given: Vec<(String, String, Option<String>, bool)> = sqlx::query_as(
        "SELECT coalesce(quote_ident(rolname), 'PUBLIC'), privilege_type, attname::text, bool_or(is_grantable)
         FROM (SELECT given.*, NULL::name AS attname FROM pg_class, aclexplode(coalesce(relacl, acldefault('r', relowner))) given
               WHERE oid = $1::bigint::oid
               UNION ALL SELECT given.*, attname FROM pg_attribute, aclexplode(attacl) given
               WHERE attrelid = $1::bigint::oid AND NOT attisdropped) given
         LEFT JOIN pg_roles r ON r.oid = given.grantee WHERE given.grantee = 0 OR rolname IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 3, 1, 2",
    )
    .bind(parent.oid)
    .fetch_all(connection)
    .await?;
    statements.push(format!("REVOKE ALL ON TABLE {name} FROM {owner}"));
    for (role, privilege, column, grantable) in given {
        let column = column.map(|column| format!(" ({})", identifier(&column))).unwrap_or_default();
        let option = if grantable && role != "PUBLIC" { " WITH GRANT OPTION" } else { "" };
        statements.push(format!("GRANT {privilege}{column} ON TABLE {name} TO {role}{option}"));
    }
    Ok(statements)
}

/// Extended statistics stay with the role that created them when the table gets another owner, so those that LIKE copied are given to that
/// owner as well.
fn statistics_to(name: &str, owner: &str) -> String {
    let body = format!(
        "DECLARE made record; BEGIN
           FOR made IN SELECT n.nspname, s.stxname FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
               WHERE s.stxrelid = {}::pg_catalog.regclass LOOP
             EXECUTE pg_catalog.format('ALTER STATISTICS %I.%I OWNER TO ', made.nspname, made.stxname) || {};
           END LOOP;
         END",
        literal(name),
        literal(owner)
    );
    format!("DO {}", literal(&body))
}

/// Reads the privileges on the table and its columns, and the default privileges. Operators are qualified, since code of the table's owner
/// has run by the last read.
pub async fn read(connection: &mut PgConnection, table: i64) -> Result<String> {
    Ok(pg::fetch_text(connection, format!("SELECT {}", sql(table))).await?.unwrap_or_default())
}

fn sql(oid: i64) -> String {
    format!(
        "(SELECT pg_catalog.format('%s %s %s %s', c.relowner, c.relacl,
             (SELECT pg_catalog.string_agg(pg_catalog.format('%s %s', attnum, attacl), ' ' ORDER BY attnum) FROM pg_catalog.pg_attribute
              WHERE attrelid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid AND attacl IS NOT NULL),
             (SELECT pg_catalog.string_agg(pg_catalog.format('%s %s', oid, defaclacl), ' ' ORDER BY oid) FROM pg_catalog.pg_default_acl))
          FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid)"
    )
}

/// Returns a statement that fails, so that the transaction is retried, if privileges have changed since they were read. GRANT and REVOKE do
/// not wait for a lock on the table, and a transaction that copies privileges may wait for a lock on another table. A privilege that is
/// revoked after the commit stays on existing partitions anyway.
pub fn unchanged(table: &TableName, before: &str) -> String {
    let message = format!("the privileges on {table} were changed while its partition was created");
    let body = format!(
        "BEGIN IF {} OPERATOR(pg_catalog.<>) {} THEN RAISE USING ERRCODE = 'lock_not_available', MESSAGE = {}; END IF; END",
        sql(table.oid),
        literal(before),
        literal(&message)
    );
    format!("DO {}", literal(&body))
}
