//! Names that a conversion gives, and the keys that it must cover.

use anyhow::Result;
use chrono_tz::Tz;
use sqlx::PgConnection;

use super::super::calendar::Every;
use super::super::key::Key;
use super::super::keys::Partition;
use super::super::state;
use crate::pg::table::TableName;

pub(super) const CHECK: &str = "pgtend_bound";

/// The end of the name of the index that becomes the primary key.
pub(super) const NEW_KEY: &str = "pgtend_key";

/// Returns the highest key, and the key of rows that are inserted now: by the clock, or by the last number of the sequence.
pub(super) async fn reach(
    partition: &Partition,
    table: &TableName,
    key: Key,
    zone: Tz,
    connection: &mut PgConnection,
) -> Result<(i64, i64)> {
    let rows = state::highest(connection, table, &partition.column, key).await?;
    let at: chrono::DateTime<chrono::Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *connection).await?;
    let now = match (partition.every, key.is_wall_clock()) {
        (Every::Step(_), _) => {
            let sequence = state::of_sequence(connection, table, &partition.column).await?;
            return Ok((rows.max(sequence).unwrap_or(0), sequence.or(rows).unwrap_or(0)));
        }
        (Every::Unit(_), true) => at.with_timezone(&partition.zone.unwrap_or(zone)).naive_local().and_utc().timestamp_micros(),
        (Every::Unit(_), false) => at.timestamp_micros(),
    };
    Ok((rows.unwrap_or(i64::MIN), now))
}
