//! Brings the functions that read compressed text up to date: those of an earlier release know no dictionaries, and call functions of whoever owns them.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::table::Table;
use super::{inflate, install};
use crate::pg::{self, identifier};

/// What the functions of a table can do, and the role with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder {
    pub reads_dictionaries: bool,
    /// The role may create functions beside them, which they read.
    pub may_create: bool,
}

/// Puts the functions of this release in the place of earlier ones, where the role may. Readers do not wait for it.
pub async fn bring_up_to_date(connection: &mut PgConnection, table: &Table) -> Result<Decoder> {
    let functions = inflate::functions(|what| table.function(what), &table.schema);
    let signatures: Vec<String> =
        inflate::SIGNATURES.iter().map(|(what, arguments)| format!("{}({arguments})", table.function(what))).collect();
    let (may_create, found): (bool, Vec<String>) = sqlx::query_as(
        "SELECT pg_has_role(c.relowner, 'USAGE') AND has_schema_privilege(c.relowner, c.relnamespace, 'CREATE')
                AND NOT EXISTS (SELECT FROM unnest($2::text[]) name JOIN pg_proc p ON p.oid = to_regprocedure(name) AND p.proowner <> c.relowner),
                ARRAY(SELECT coalesce(p.prosrc, '') FROM unnest($2::text[]) WITH ORDINALITY f (name, number)
                      LEFT JOIN pg_proc p ON p.oid = to_regprocedure(f.name) ORDER BY number)
         FROM pg_class c WHERE c.oid = $1::bigint::oid",
    )
    .bind(table.oid)
    .bind(signatures)
    .fetch_one(&mut *connection)
    .await
    .map_err(pg::in_its_own_words)?;
    let is_current = found == functions.sources;
    if !is_current && may_create {
        replace(connection, table).await.with_context(|| {
            format!("the functions by which {} is read cannot be brought up to date; they are as they were", table.view_sql())
        })?;
    }
    Ok(Decoder { reads_dictionaries: is_current || may_create, may_create })
}

async fn replace(connection: &mut PgConnection, table: &Table) -> Result<()> {
    let mut statements = vec!["BEGIN".to_owned(), format!("SET LOCAL ROLE {}", identifier(&table.owner))];
    statements.extend(install::decoder(table)?);
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
