//! A look at a database makes temporary tables, which event triggers would answer to.

use anyhow::Result;
use sqlx::postgres::PgConnection;

use crate::pg;
use crate::task::backup::session::{self, Silence};

/// Switches event triggers off in a session that only looks. Where this login may not, returns in words which fire.
pub async fn event_triggers_that_fire(connection: &mut PgConnection) -> Result<Option<String>> {
    let has_setting = pg::Server::of(connection).await?.major() >= 17;
    let states = match session::silence(connection, has_setting).await? {
        Silence::Off => return Ok(None),
        // The session writes nothing to tables that live.
        Silence::Replica => {
            pg::set(connection, "session_replication_role", "replica").await?;
            ["R", "A"]
        }
        Silence::No => ["O", "A"],
    };
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT evtname::pg_catalog.text FROM pg_catalog.pg_event_trigger
         WHERE evtenabled::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]) AND evtevent OPERATOR(pg_catalog.<>) 'login' ORDER BY 1",
    )
    .bind(&states[..])
    .fetch_all(connection)
    .await?;
    let note = format!(
        "event triggers fire for the temporary tables of the dry run, which this login may not prevent: {}",
        names.join(", ")
    );
    Ok((!names.is_empty()).then_some(note))
}
