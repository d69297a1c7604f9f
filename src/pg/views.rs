//! Views that read a relation.

use anyhow::Result;
use sqlx::PgConnection;

/// Returns statements that replace the views on a relation. A view refers to its relation by oid. Recreated from its text, in which the
/// session's empty search_path spells out all names, it reads the relation that has the name now; its privileges, rules and triggers stay.
pub async fn replacements(connection: &mut PgConnection, oid: i64) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT format('CREATE OR REPLACE VIEW %s%s AS %s', v.oid::regclass,
                       coalesce(' WITH (' || array_to_string(v.reloptions, ', ') || ')', ''), rtrim(pg_get_viewdef(v.oid), ';'))
         FROM pg_class v WHERE v.relkind = 'v' AND v.oid IN (
             SELECT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
             WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::bigint::oid
               AND r.rulename = '_RETURN' AND r.ev_class <> $1::bigint::oid)
         ORDER BY v.oid",
    )
    .bind(oid)
    .fetch_all(connection)
    .await?)
}
