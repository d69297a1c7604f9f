//! Views that read a relation.

use anyhow::Result;
use sqlx::PgConnection;

/// The constraint by which each value of a table behind a view of `[compress]` has one form.
pub const ONE_FORM: &str = "pgtend_one_form";
/// The trigger on such a view.
pub const WRITE: &str = "pgtend_write";

/// Returns the table behind a view that `compress install` made; None for any other relation. Jobs that name the view mean that table.
pub async fn table_behind(connection: &mut PgConnection, view: i64) -> Result<Option<i64>> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT d.refobjid::bigint FROM pg_rewrite r
         JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
         JOIN pg_constraint k ON k.conrelid = d.refobjid AND k.conname = $2 AND k.contype = 'c'
         JOIN pg_class v ON v.oid = r.ev_class JOIN pg_class t ON t.oid = d.refobjid AND t.relnamespace = v.relnamespace
         WHERE r.ev_class = $1::bigint::oid
           AND (EXISTS (SELECT FROM pg_trigger WHERE tgrelid = v.oid AND tgname = $3)
             OR EXISTS (SELECT FROM pg_depend f JOIN pg_proc p ON f.refclassid = 'pg_proc'::regclass AND p.oid = f.refobjid
                        WHERE f.classid = 'pg_rewrite'::regclass AND f.objid = r.oid AND p.proname LIKE '%\\_pgtend\\_gunzip'))",
    )
    .bind(view)
    .bind(ONE_FORM)
    .bind(WRITE)
    .fetch_optional(connection)
    .await?)
}

/// Says that a relation is the view of a `[compress]` job, and which table is behind it; None for any other relation.
pub async fn as_compressed(connection: &mut PgConnection, view: i64) -> Result<Option<String>> {
    let Some(behind) = table_behind(connection, view).await? else { return Ok(None) };
    Ok(sqlx::query_scalar(
        "SELECT format('%s is the view that a [compress] job has put in the place of %s', $1::bigint::oid::regclass, $2::bigint::oid::regclass)",
    )
    .bind(view)
    .bind(behind)
    .fetch_optional(connection)
    .await?)
}
