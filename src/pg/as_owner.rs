//! A statement that runs with the rights of a table's owner and cannot get others back.
//!
//! Triggers and rules of a table run as whoever changes its rows. SET ROLE and SET SESSION AUTHORIZATION are no fence: a trigger resets them.
//! Inside a SECURITY DEFINER function the server refuses both ("cannot set parameter \"role\" within security-definer function",
//! guc.c GUC_NOT_WHILE_SEC_REST): tried on 14 to 18. A constraint trigger that is deferred to the commit runs outside of it; before 18 as us.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::{identifier, literal};

/// Makes `pg_temp.NAME(arguments)`, a function of this session that the owner owns, and gives its quoted name. `statement` has $1 and so on for the
/// arguments, which are types; its names are found by the session's search_path.
pub async fn define(connection: &mut PgConnection, owner: &str, name: &str, arguments: &str, returns: &str, statement: &str) -> Result<String> {
    let function = format!("pg_temp.{}", identifier(name));
    // To one that is there already, CREATE OR REPLACE would leave whatever was done to it.
    super::execute(connection, format!("DROP FUNCTION IF EXISTS {function}({arguments})")).await?;
    let create = format!(
        "CREATE FUNCTION {function}({arguments}) RETURNS {returns} LANGUAGE sql VOLATILE SECURITY DEFINER AS {}",
        literal(statement)
    );
    super::execute(connection, create).await.with_context(|| format!("a function that runs as {owner}"))?;
    super::execute(connection, format!("REVOKE ALL ON FUNCTION {function}({arguments}) FROM PUBLIC")).await?;
    super::execute(connection, format!("ALTER FUNCTION {function}({arguments}) OWNER TO {}", identifier(owner))).await?;
    Ok(function)
}
