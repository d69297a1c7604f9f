//! Brings the function that reads compressed text up to date: that of an earlier release knows no dictionaries, or calls functions by their names.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::table::Table;
use super::{inflate, install};
use crate::pg::{self, identifier};

/// What the function of a table can do, and the role with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder {
    pub reads_dictionaries: bool,
    /// The role may create functions beside it, which it reads.
    pub may_create: bool,
}

/// Puts the function of this release in the place of an earlier one, where the role may. Readers do not wait for it.
pub async fn bring_up_to_date(connection: &mut PgConnection, table: &Table) -> Result<Decoder> {
    let gunzip = inflate::gunzip(table.function("gunzip"), &table.schema);
    let (may_create, found): (bool, Option<String>) = sqlx::query_as(
        "SELECT pg_has_role(c.relowner, 'USAGE') AND has_schema_privilege(c.relowner, c.relnamespace, 'CREATE')
                AND (p.proowner IS NULL OR p.proowner = c.relowner), p.prosrc
         FROM pg_class c LEFT JOIN pg_proc p ON p.oid = to_regprocedure($2) WHERE c.oid = $1::bigint::oid",
    )
    .bind(table.oid)
    .bind(format!("{}({})", table.function("gunzip"), inflate::ARGUMENTS))
    .fetch_one(&mut *connection)
    .await
    .map_err(pg::in_its_own_words)?;
    let is_current = found.is_some_and(|found| found == gunzip.source);
    if !is_current && may_create {
        replace(connection, table).await.with_context(|| {
            format!("the function by which {} is read cannot be brought up to date; it is as it was", table.view_sql())
        })?;
    }
    Ok(Decoder { reads_dictionaries: is_current || may_create, may_create })
}

async fn replace(connection: &mut PgConnection, table: &Table) -> Result<()> {
    let mut statements = vec!["BEGIN".to_owned(), format!("SET LOCAL ROLE {}", identifier(&table.owner))];
    statements.extend(install::decoder(table)?);
    // Somebody may have made one of this name since it was looked for.
    statements.push(install::is_the_owners(table, &[format!("{}({})", table.function("gunzip"), inflate::ARGUMENTS)]));
    statements.push("COMMIT".to_owned());
    all_or_nothing(connection, statements).await
}

/// Runs the statements of a transaction, and rolls it back when one fails.
pub async fn all_or_nothing(connection: &mut PgConnection, statements: Vec<String>) -> Result<()> {
    for statement in statements {
        if let Err(error) = pg::execute_counting(connection, statement).await {
            let _ = pg::execute(connection, "ROLLBACK".to_owned()).await;
            return Err(pg::in_its_own_words(error));
        }
    }
    Ok(())
}
