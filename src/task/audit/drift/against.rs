//! Compares the database with another one that lives, such as staging with production: both are only read.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::compare::compare;
use super::object::Scope;
use super::{objects, partitioned_by_jobs};
use crate::pg::{self, failure};
use crate::task::audit::context::{AuditContext, CheckResult, Row};

/// `name`: in the configuration.
pub async fn look(context: &AuditContext<'_>, connection: &mut PgConnection, name: &str) -> Result<CheckResult> {
    let settings = context.config.databases.get(name).context("`against` is configured")?.settings()?;
    let mut other = match settings.connect().await {
        Ok(other) => other,
        Err(error) => {
            return Ok(CheckResult::unknown(format!("database `{name}` cannot be reached: {}", failure::in_a_line(&error))));
        }
    };
    pg::set(&mut other, "default_transaction_read_only", "on").await?;
    let there = objects(&mut other, context).await?;
    let here = objects(connection, context).await?;
    let scope = Scope { owners: true, grants: true, partitioned_by_jobs: partitioned_by_jobs(connection, context).await? };
    let mut rows = compare(&there, &here, &format!("database `{name}`"), &scope);
    rows.iter_mut().for_each(|row| only_here(row, name));
    Ok(CheckResult { rows, ..CheckResult::default() })
}

/// There is no file to which it could be added.
fn only_here(row: &mut Row, name: &str) {
    if row.file.take().is_some() || row.fix.is_none() {
        row.decide = Some(format!(
            "which of the two databases is right: this one, and `{name}` lacks a change; or `{name}`, and something was left over here."
        ));
    }
}
