//! The database that a ledger stands in. A restored or copied database brings rows of runs that were under way in another one, the
//! backup of that very database among them: they did not crash.

use anyhow::Result;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use crate::pg;

/// Returns the oid of the database and the identifier of its server, the latter only where this role may read it. Runs have it in their
/// `progress` while they are under way, under `ledger`.
pub async fn read(connection: &mut PgConnection) -> Result<Value> {
    let (database, may_ask): (i64, bool) = sqlx::query_as(
        "SELECT oid::bigint, has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') FROM pg_database WHERE datname = current_database()",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(pg::in_its_own_words)?;
    let system: Option<String> = if may_ask {
        let identifier = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";
        Some(sqlx::query_scalar(identifier).fetch_one(connection).await.map_err(pg::in_its_own_words)?)
    } else {
        None
    };
    Ok(json!({ "database": database, "system": system }))
}

/// SQL: whether row `r` was written in another place than the jsonb `$here`. What either does not say is no difference.
macro_rules! copied {
    ($here:literal) => {
        concat!(
            "coalesce(r.progress #>> '{ledger,database}' <> ",
            $here,
            " ->> 'database', false)
             OR coalesce(r.progress #>> '{ledger,system}' <> ",
            $here,
            " ->> 'system', false)"
        )
    };
}
pub(super) use copied;
