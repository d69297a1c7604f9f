//! Compares the server's clock, which decides what is old, with this host's.

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::base::units;

/// The clocks of hosts with a time source differ by less. If they differ by more, nothing is deleted by age.
pub const APART: TimeDelta = TimeDelta::minutes(1);

pub async fn of_server(connection: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("SELECT pg_catalog.clock_timestamp()").fetch_one(connection).await?)
}

/// Returns the server's clock; an error (78) when this host's is more than a minute away from it: one of the two is wrong, and it
/// is unknown which.
pub async fn agreed(connection: &mut PgConnection) -> Result<DateTime<Utc>> {
    let started = Utc::now();
    let at = of_server(connection).await?;
    match apart(at, started, Utc::now()) {
        None => Ok(at),
        Some(said) => Err(Fault::new(Kind::Configuration, said).into()),
    }
}

/// Describes how far the two clocks are apart, when that is more than a minute. `at` is the server's clock, read between
/// `started` and `ended` of this host's.
pub fn apart(at: DateTime<Utc>, started: DateTime<Utc>, ended: DateTime<Utc>) -> Option<String> {
    let off = if at < started { started - at } else { at - ended };
    (off > APART).then(|| {
        let off = units::duration(off.to_std().unwrap_or_default());
        format!("the clocks of this host and of the database server are {off} apart, so pgtend cannot tell which rows or sets are old: set the clocks first")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_apart_by_more_than_a_minute_and_the_time_of_the_answer() {
        let at = |seconds: i64| DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap();
        for (server, started, ended, is_apart) in
            [(0, 0, 0, false), (60, 0, 0, false), (61, 0, 0, true), (-61, 0, 0, true), (-60, 0, 100, false), (150, 0, 100, false)]
        {
            assert_eq!(apart(at(server), at(started), at(ended)).is_some(), is_apart, "{server} in {started} to {ended}");
        }
    }
}
