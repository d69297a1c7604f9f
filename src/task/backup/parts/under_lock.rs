//! Rows alone go into living tables as these were looked at: statements that lock the tables, and fail where something has changed since. No job that
//! deletes rows of them, or moves them away, runs beside.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::only_rows::FILLED;
use super::statements::{self, Statements};
use super::types::Shape;
use crate::live::session;
use crate::pg::table::{Checked, proof};
use crate::pg::{self, literal};

/// Statements for the transaction that writes the rows: behind the locks, the tables are those that were looked at, and empty. Each is a query that returns the
/// statement to run.
pub fn statements(checked: &[Checked], shapes: &[Shape]) -> Statements {
    let proof = format!("SELECT {}", literal(&proof(checked)));
    let shapes = shapes.iter().map(|shape| format!("SELECT {}", literal(&shape.proof())));
    let queries = checked.iter().map(lock).chain([proof]).chain(shapes).chain(checked.iter().map(emptiness));
    queries.map(|query| statements::ours(&query)).collect()
}

/// No other session writes rows then. A login with INSERT alone may not keep others out: before PostgreSQL 16, it may lock nothing.
fn lock(table: &Checked) -> String {
    let lock = |mode: &str| {
        let whole = literal(&format!("LOCK TABLE {} IN {mode} MODE", table.name));
        let only = literal(&format!("LOCK TABLE ONLY {} IN {mode} MODE", table.name));
        format!("CASE WHEN {} THEN {whole} ELSE {only} END", is_partitioned(table))
    };
    let may = |right: &str| format!("pg_catalog.has_table_privilege({}::pg_catalog.oid, '{right}')", table.oid);
    format!(
        "SELECT CASE WHEN {} THEN {} WHEN {} AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.>=) 160000 THEN {} END",
        may("UPDATE, DELETE, TRUNCATE"),
        lock("SHARE ROW EXCLUSIVE"),
        may("INSERT"),
        lock("ROW EXCLUSIVE")
    )
}

fn is_partitioned(table: &Checked) -> String {
    format!(
        "EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) {}::pg_catalog.oid AND relkind OPERATOR(pg_catalog.=) 'p')",
        table.oid
    )
}

/// Rows may have come since the tables were looked at.
fn emptiness(table: &Checked) -> String {
    let raise = |only: &str| {
        let message = literal(&format!("{} {FILLED}", table.name));
        let body =
            format!("BEGIN IF EXISTS (SELECT FROM {only}{}) THEN RAISE USING MESSAGE = {message}; END IF; END", table.name);
        literal(&format!("DO {}", literal(&body)))
    };
    format!("SELECT CASE WHEN {} THEN {} ELSE {} END", is_partitioned(table), raise(""), raise("ONLY "))
}

/// Keeps the jobs of these tables out while the session lives.
pub async fn keep_jobs_out(settings: &pg::Settings, checked: &[Checked]) -> Result<PgConnection> {
    let mut connection = settings.connect().await?;
    let tables: Vec<i64> = checked.iter().map(|table| table.oid).collect();
    session::exclude_jobs_of(settings, &mut connection, &tables).await?;
    Ok(connection)
}
