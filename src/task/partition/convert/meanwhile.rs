//! Detects changes that other sessions make between the plan of a conversion and its swap, hours apart if an index is built CONCURRENTLY:
//! to privileges, row security, triggers, views, partitions, foreign keys and publications. The swap gives the new table what the plan has
//! read, so a privilege that was revoked since would come back. So both states are compared, before the first lock and under the last.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use crate::pg::table::TableName;
use crate::pg::{self, literal};
use crate::task::bound::{Bound, Kind as Text};
use crate::task::remade;

/// What a conversion makes from texts of the catalog; LIKE takes defaults and CHECKs as the catalog has them.
pub const TEXTS: [Text; 5] = [Text::View, Text::Trigger, Text::Policy, Text::Statistics, Text::ForeignKey];
/// What its undo makes from texts.
pub const TEXTS_BACK: [Text; 5] = [Text::View, Text::Trigger, Text::Policy, Text::Statistics, Text::Default];

/// Returns a hash of the table's surroundings. Views count by their definitions, since the swap itself recreates them.
pub async fn fingerprint(connection: &mut PgConnection, table: i64) -> Result<String> {
    pg::fetch_text(connection, format!("SELECT {}", sql(table)))
        .await?
        .context("the server returned no hash of the table's surroundings")
}

/// Returns `statements` of one transaction with checks that make it fail if the surroundings are no longer those of `planned`. The first
/// check is in the first statement, the only one that may wait for the whole lock_timeout; the second follows LOCK TABLE, before what
/// holds the schemas of views and statistics, and the proof that the texts of views still run nobody's code. At the end comes the proof that what has been made
/// is the same, and bound to the same, as before.
pub fn guarded(table: &TableName, (planned, bound): (&str, &Bound), statements: impl Iterator<Item = String>) -> Vec<String> {
    let mut guarded = Vec::new();
    for statement in statements {
        let is_lock = statement.starts_with("LOCK TABLE ");
        match guarded.is_empty() {
            true => guarded.push(check(table, planned, &format!("EXECUTE {};", literal(&statement)))),
            false => guarded.push(statement),
        }
        if is_lock {
            guarded.push(check(table, planned, ""));
            guarded.extend(bound.held());
            guarded.push(remade::proof(table.oid, bound.kinds()));
        }
    }
    guarded.extend(bound.proof(&table.sql()));
    guarded
}

fn check(table: &TableName, planned: &str, then: &str) -> String {
    let message = format!(
        "{table} has changed since this run read it: its privileges, row security, triggers, views, partitions, foreign keys or \
         publications; the swap was not done: run the command again"
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
