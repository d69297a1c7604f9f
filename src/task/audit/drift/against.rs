//! Drift between this database and another one that lives, such as staging and production: both are only read.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::compare::compare;
use super::object::{Object, Scope};
use crate::pg::{self, failure};
use crate::task::audit::context::{AuditContext, Row};

/// Connects to the database of this name in the configuration; or returns the reason why that is not possible.
pub async fn connect(context: &AuditContext<'_>, name: &str) -> Result<Result<PgConnection, String>> {
    let settings = context.config.database(name).context("`against` is configured")?.settings()?;
    let mut other = match settings.connect().await {
        Ok(other) => other,
        Err(error) => return Ok(Err(format!("database `{name}` cannot be reached: {}", failure::in_a_line(&error)))),
    };
    pg::set(&mut other, "default_transaction_read_only", "on").await?;
    Ok(Ok(other))
}

/// Returns what differs from the other database, with its owners and grants.
pub fn differences(there: &[Object], here: &[Object], name: &str, partitioned_by_jobs: HashSet<String>) -> Vec<Row> {
    let scope = Scope { owners: true, grants: true, partitioned_by_jobs };
    let mut rows = compare(there, here, &format!("database `{name}`"), &scope);
    rows.iter_mut().for_each(|row| decide(row, name));
    rows
}

/// What is only here has no statement, and there is no file to which it could be added.
fn decide(row: &mut Row, name: &str) {
    if row.file.take().is_some() || row.fix.is_none() {
        row.decide = Some(format!(
            "which of the two databases is right: this one, and `{name}` lacks a change; or `{name}`, and something was left over here."
        ));
    }
}
