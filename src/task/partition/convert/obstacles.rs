//! The obstacles that keep a table from being converted.

use anyhow::Result;
use sqlx::PgConnection;

use super::dependants;
use super::names::NEW_KEY;
use super::source::Found;
use crate::pg::table::TableName;
use crate::pg::{self, identifier};
use crate::task::partition::calendar::partition_name;
use crate::task::partition::keys::Partition;

/// Reads all obstacles at once, so that five of them do not take five attempts.
pub async fn read(connection: &mut PgConnection, partition: &Partition, found: &Found, table: &TableName) -> Result<Vec<String>> {
    let mut obstacles: Vec<String> = Vec::new();
    let is_not_null = found.is_not_null == Some(true);
    for (is_so, what) in [
        (found.is_partition, "it is a partition itself"),
        (found.persistence != "p", "it is temporary or unlogged"),
        (found.is_generated == Some(true), "its partition key would be a generated column"),
        (found.replica_identity == "i", "its replica identity is an index: set it to DEFAULT or FULL first"),
    ] {
        if is_so {
            obstacles.push(what.to_owned());
        }
    }
    // Each text names its object.
    let found: Vec<String> = sqlx::query_scalar(include_str!("obstacles.sql"))
        .bind(table.oid)
        .bind(&partition.column)
        .bind(partition_name(&table.name, NEW_KEY))
        .bind(&table.schema)
        .bind(&table.name)
        .fetch_all(&mut *connection)
        .await?;
    obstacles.extend(found);
    obstacles.extend(dependants::that_cannot_follow(connection, table).await?);
    if !is_not_null {
        let column = identifier(&partition.column);
        let sql = format!("SELECT 'some' FROM {} WHERE {column} IS NULL LIMIT 1", table.sql());
        if pg::fetch_text(connection, sql).await?.is_some() {
            obstacles.push(format!(
                "some of its rows have no {column}, which becomes NOT NULL: set it first (UPDATE {0} SET {column} = TIME WHERE {column} IS \
                 NULL, with a time before all others where it is unknown), or archive and delete these rows",
                table.sql()
            ));
        }
    }
    Ok(obstacles)
}
