//! Drift between this database and another one that lives, such as staging and production: both are only read.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::compare::compare;
use super::object::{Object, Scope};
use crate::pg::{self, failure};
use crate::task::audit::context::{AuditContext, Row};

/// Connects to the database of this name in the configuration; or returns the reason why that is not possible.
pub async fn connect(context: &AuditContext<'_>, here: &mut PgConnection, name: &str) -> Result<Result<PgConnection, String>> {
    let settings = context.config.database(name).context("`against` is configured")?.settings()?;
    let mut other = match settings.connect().await {
        Ok(other) => other,
        Err(error) => return Ok(Err(format!("database `{name}` cannot be reached: {}", failure::in_a_line(&error)))),
    };
    pg::set(&mut other, "default_transaction_read_only", "on").await?;
    Ok(match is_same(here, &mut other).await? {
        true => Err(itself(name)),
        false => Ok(other),
    })
}

/// Says that nothing can differ.
pub fn itself(name: &str) -> String {
    format!("`against = \"{name}\"` leads to the audited database itself, or to its replica: nothing can differ")
}

/// Whether both sessions are of one database, or of a server and its replica. A server that hides its identity is taken for another one.
pub async fn is_same(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool> {
    let (one, other) = (identity(one).await?, identity(other).await?);
    Ok(one.is_some() && one == other)
}

async fn identity(connection: &mut PgConnection) -> Result<Option<String>> {
    let may = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')::pg_catalog.text";
    if pg::fetch_text(connection, may.to_owned()).await?.as_deref() != Some("true") {
        return Ok(None);
    }
    let sql = "SELECT pg_catalog.format('%s/%s', s.system_identifier, d.oid) FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
    pg::fetch_text(connection, sql.to_owned()).await
}

/// Returns what differs from the other database, with its owners and grants.
pub fn differences(there: &[Object], here: &[Object], name: &str, partitioned_by_jobs: HashSet<String>) -> Vec<Row> {
    let scope = Scope { owners: true, grants: true, enabled_subscriptions: true, partitioned_by_jobs };
    let mut rows = compare(there, here, &format!("database `{name}`"), &scope);
    rows.iter_mut().for_each(|row| decide(row, name));
    rows
}

/// What is only here has no statement, and there is no file to which it could be added.
fn decide(row: &mut Row, name: &str) {
    if row.file.take().is_some() || row.fix.is_none() && row.decide.is_none() {
        row.decide = Some(format!(
            "which of the two databases is right: this one, and `{name}` lacks a change; or `{name}`, and something was left over here."
        ));
    }
}
