//! The view pg_stat_statements.

use anyhow::Result;
use sqlx::PgConnection;

use super::qualified;

/// Returns the view, quoted, where the extension is there and the role may read it. Whoever owns the extension's schema could put another view there, whose
/// functions would run as us: only the extension's own is named. Reading it fails where its library is not loaded (shared_preload_libraries).
pub async fn view(connection: &mut PgConnection) -> Result<Option<String>> {
    let schema: Option<String> = sqlx::query_scalar(
        "SELECT n.nspname::text FROM pg_catalog.pg_extension e
         JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid AND d.deptype = 'e'
              AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
         JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relname = 'pg_stat_statements' JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE e.extname = 'pg_stat_statements' AND has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')",
    )
    .fetch_optional(connection)
    .await?;
    Ok(schema.map(|schema| qualified(&schema, "pg_stat_statements")))
}
