//! What others may change between the plan of a conversion and its swap, which an index built CONCURRENTLY can make hours: rights, row
//! security, triggers, views, partitions, foreign keys, publications. The swap gives the new table what the plan has read; had somebody
//! revoked a right since, it would come back. So both are compared, before the first lock and under the last.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use crate::pg::table::TableName;
use crate::pg::{self, literal};

/// By values, as the swap itself makes views again.
pub async fn fingerprint(connection: &mut PgConnection, table: i64) -> Result<String> {
    pg::fetch_text(connection, format!("SELECT {}", sql(table))).await?.context("the surroundings of a table")
}

/// `statements` of one transaction, which change nothing where the surroundings are not those of `planned` any more. The check is in
/// the first statement, which alone may wait for the whole lock_timeout, and again behind LOCK TABLE.
pub fn guarded(table: &TableName, planned: &str, statements: impl Iterator<Item = String>) -> Vec<String> {
    let mut guarded = Vec::new();
    for statement in statements {
        let is_lock = statement.starts_with("LOCK TABLE ");
        match guarded.is_empty() {
            true => guarded.push(check(table, planned, &format!("EXECUTE {};", literal(&statement)))),
            false => guarded.push(statement),
        }
        if is_lock {
            guarded.push(check(table, planned, ""));
        }
    }
    guarded
}

fn check(table: &TableName, planned: &str, then: &str) -> String {
    let message = format!(
        "{table} is not what it was when this run looked: somebody has changed its rights, row security, triggers, views, partitions, foreign keys \
         or publications; nothing of the swap was done: run it again"
    );
    let body = format!(
        "BEGIN IF {} <> {} THEN RAISE USING MESSAGE = {}; END IF; {then} END",
        sql(table.oid),
        literal(planned),
        literal(&message)
    );
    format!("DO {}", literal(&body))
}

fn sql(table: i64) -> String {
    let views = format!(
        "pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE r.oid IN (SELECT objid FROM pg_depend
             WHERE classid = 'pg_rewrite'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = {table}) OR r.ev_class = {table}"
    );
    format!(
        "(SELECT md5(string_agg(what, E'\\n' ORDER BY what COLLATE \"C\")) FROM (
             SELECT format('table %s %s %s %s', relowner, relacl, relrowsecurity, relforcerowsecurity) AS what FROM pg_class WHERE oid = {table}
             UNION ALL SELECT format('column %s %s %s', attnum, attname, attacl) FROM pg_attribute WHERE attrelid = {table} AND attnum > 0
             UNION ALL SELECT format('policy %s %s %s %s %s %s', polname, polcmd, polpermissive, polroles, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
                 FROM pg_policy WHERE polrelid = {table}
             UNION ALL SELECT format('trigger %s %s', pg_get_triggerdef(oid), tgenabled) FROM pg_trigger WHERE tgrelid = {table} AND NOT tgisinternal
             UNION ALL SELECT format('rule %s %s %s %s', r.ev_class, pg_get_ruledef(r.oid), c.relowner, c.relacl) FROM {views}
             UNION ALL SELECT format('partition %s', inhrelid) FROM pg_inherits WHERE inhparent = {table}
             UNION ALL SELECT format('foreign key %s', oid) FROM pg_constraint WHERE contype = 'f' AND {table} IN (conrelid, confrelid)
             UNION ALL SELECT format('publication %s', prpubid) FROM pg_publication_rel WHERE prrelid = {table}
             UNION ALL SELECT format('publication of all tables %s', oid) FROM pg_publication WHERE puballtables) found)"
    )
}
