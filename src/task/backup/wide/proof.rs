//! Proves that a session reads the tables that the dump has locked, and nothing else. A lock keeps a table, but not its name: the owner of its schema can rename
//! the schema, and put another one of that name there, with another relation in it.

use std::fmt;

use anyhow::Result;
use sqlx::postgres::PgConnection;

use super::tables::Table;
use crate::pg;

/// What a name led to in the place of a table that is locked.
#[derive(Debug)]
pub struct Another(String);

impl std::error::Error for Another {}

impl fmt::Display for Another {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{} is not the table that this dump has locked: its schema was renamed or replaced meanwhile. Run the job again when nobody does that",
            self.0
        )
    }
}

/// Returns an error unless the table's name still leads to it. The server looks the name up as it is now, not as in the snapshot.
pub async fn is_the_locked(session: &mut PgConnection, table: &Table) -> Result<()> {
    // Within a transaction, a server learns what others have renamed only when it takes a lock that it does not hold yet (AcceptInvalidationMessages): the size
    // of a catalog that nothing else here reads takes one, and gives it back.
    let (_, found): (i64, Option<i64>) = sqlx::query_as(
        "SELECT pg_catalog.pg_relation_size('pg_catalog.pg_description'::pg_catalog.regclass), pg_catalog.to_regclass($1)::pg_catalog.oid::pg_catalog.int8",
    )
    .bind(table.sql())
    .fetch_one(session)
    .await
    .map_err(pg::in_its_own_words)?;
    match found == Some(table.oid) {
        true => Ok(()),
        false => Err(Another(table.sql()).into()),
    }
}

/// Returns an error if this transaction has read another relation of a user than these tables, by their oids.
pub async fn has_read_nothing_else(session: &mut PgConnection, tables: &[i64]) -> Result<()> {
    match pg::locked::beside(session, tables).await? {
        None => Ok(()),
        Some(oid) => Err(Another(format!("the relation with OID {oid}, which the dump came to,")).into()),
    }
}
