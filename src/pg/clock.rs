//! The server's clock, which says what is old, and this host's beside it.

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::base::units;

/// Hosts that have the time from somewhere differ by less. Where they do not, nothing is deleted by its age.
pub const APART: TimeDelta = TimeDelta::minutes(1);

pub async fn of_server(connection: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("SELECT pg_catalog.clock_timestamp()").fetch_one(connection).await?)
}

/// The server's clock; an error (78) where this host's is more than a minute away from it: one of the two is wrong, and
/// nobody knows which.
pub async fn agreed(connection: &mut PgConnection) -> Result<DateTime<Utc>> {
    let started = Utc::now();
    let at = of_server(connection).await?;
    match apart(at, started, Utc::now()) {
        None => Ok(at),
        Some(said) => Err(Fault::new(Kind::Configuration, said).into()),
    }
}

/// In words, how far the two are apart, when that is more than a minute. `at` is the server's clock, asked between `started` and
/// `ended` of this host's.
pub fn apart(at: DateTime<Utc>, started: DateTime<Utc>, ended: DateTime<Utc>) -> Option<String> {
    let off = if at < started { started - at } else { at - ended };
    (off > APART).then(|| {
        let off = units::duration(off.to_std().unwrap_or_default());
        format!("the clocks of this host and of the database server are {off} apart, so that nobody can tell what is old: set them right first")
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
