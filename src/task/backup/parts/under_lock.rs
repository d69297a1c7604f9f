//! Rows alone go into living tables as these were looked at: statements that lock the tables, and fail where something has changed since. No job that
//! deletes rows of them, or moves them away, runs beside.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::statements::{self, Statements};
use crate::live::session;
use crate::pg::table::{Checked, proof};
use crate::pg::{self, literal};

/// Statements for the transaction that writes the rows. Each is a query that returns the statement to run.
pub fn statements(checked: &[Checked]) -> Statements {
    let proof = format!("SELECT {}", literal(&proof(checked)));
    checked.iter().map(lock).chain([proof]).map(|query| statements::ours(&query)).collect()
}

/// Before PostgreSQL 16, the lock needs more than INSERT.
fn lock(table: &Checked) -> String {
    let lock = format!("LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE", table.name);
    let may_lock = format!("pg_catalog.has_table_privilege({}::pg_catalog.oid, 'UPDATE, DELETE, TRUNCATE')", table.oid);
    format!("SELECT CASE WHEN {may_lock} THEN {} END", literal(&lock))
}

/// Keeps the jobs of these tables out while the session lives.
pub async fn keep_jobs_out(settings: &pg::Settings, checked: &[Checked]) -> Result<PgConnection> {
    let mut connection = settings.connect().await?;
    let tables: Vec<i64> = checked.iter().map(|table| table.oid).collect();
    session::exclude_jobs_of(settings, &mut connection, &tables).await?;
    Ok(connection)
}
