//! Asks once for consent before a job may delete nearly all of a table: on its first run, or if its cut-off is later than the newest row.
//! Wrong columns, wrong units and wrong clocks look like that.

use anyhow::Result;
use sqlx::PgConnection;

use super::estimate;
use super::facts::Facts;
use super::key::Key;
use super::keys::Retention;
use crate::base::units;
use crate::pg;
use crate::task::consent::{self, Consent};
use crate::work::RunContext;

/// A sample of this many blocks estimates shares well enough; smaller tables are counted.
const SAMPLED_BLOCKS: f64 = 1_000.0;
/// The last blocks of an unindexed table, where most new rows are.
const LAST_BLOCKS: i64 = 128;

/// The loss that a person has agreed to, and the question to ask.
#[derive(Debug, Default)]
pub struct ConsentState {
    pub consent: Consent,
    /// The question to ask.
    pub asks: Option<String>,
}

/// The rows of the table that go, as SQL.
pub struct ExpiredRows<'a> {
    pub condition: &'a str,
    pub key: Key,
    /// Rows from here on stay because of their age, where age matters.
    pub limit: Option<&'a str>,
}

pub async fn look(
    retention: &Retention,
    run: &RunContext<'_>,
    connection: &mut PgConnection,
    facts: &Facts,
    (expired, rule): (&ExpiredRows<'_>, String),
) -> Result<ConsentState> {
    let before = consent::before(run, &rule).await;
    let is_given = retention.agreed || before.was_agreed;
    let mut consent = Consent { rule, is_given, is_to_all: before.was_agreed_to_all };
    // Nearly all rows is less than all: who agreed to the one did not agree to the other.
    let goes_beyond = !consent.is_to_all && no_row_stays(connection, retention, facts, expired).await?;
    let what = if goes_beyond {
        consent.is_to_all = retention.agreed;
        (!retention.agreed)
            .then(|| format!("its cut-off is later than the newest row of {}, so that no row would stay", facts.sql()))
    } else if before.has_succeeded || is_given {
        None
    } else {
        share(connection, facts, expired).await?.filter(|(percent, _)| *percent > consent::MUCH).map(|(percent, rows)| {
            format!("this is its first run, and it would delete about {percent:.0} % of {}, estimated from {rows}", facts.sql())
        })
    };
    Ok(ConsentState { consent, asks: what.map(|what| consent::question(run, &what)) })
}

/// Returns whether rows go, and none is young enough to stay.
async fn no_row_stays(
    connection: &mut PgConnection,
    retention: &Retention,
    facts: &Facts,
    expired: &ExpiredRows<'_>,
) -> Result<bool> {
    let Some(limit) = expired.limit else { return Ok(false) };
    if has_young(connection, retention, facts, (expired.key, limit)).await? {
        return Ok(false);
    }
    let sql = format!("SELECT EXISTS (SELECT FROM {} WHERE {})::pg_catalog.text", facts.sql(), expired.condition);
    Ok(pg::fetch_text(connection, sql).await?.as_deref() == Some("true"))
}

/// Returns whether some row is young enough to stay.
async fn has_young(
    connection: &mut PgConnection,
    retention: &Retention,
    facts: &Facts,
    (key, limit): (Key, &str),
) -> Result<bool> {
    let column = key.column(&retention.column);
    let mut young = format!("{column} OPERATOR(pg_catalog.>=) {}", limit);
    if matches!(key, Key::TimestampTz | Key::Timestamp | Key::Date) {
        young += &format!(" AND {column} OPERATOR(pg_catalog.<) 'infinity'::{}", key.type_sql());
    }
    if let Some(shape) = key.shape(&retention.column) {
        young += &format!(" AND {shape}");
    }
    let mut places = vec![String::new()];
    if facts.kind == "r" && facts.index.is_none() {
        places.insert(
            0,
            format!("ctid OPERATOR(pg_catalog.>=) '({},0)'::pg_catalog.tid AND ", (facts.blocks - LAST_BLOCKS).max(0)),
        );
    }
    for place in places {
        let sql = format!("SELECT EXISTS (SELECT FROM {} WHERE {place}{young})::pg_catalog.text", facts.sql());
        if pg::fetch_text(connection, sql).await?.as_deref() == Some("true") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the percentage of rows that go, by a sample, and the size of that sample. None: there are no rows.
async fn share(connection: &mut PgConnection, facts: &Facts, expired: &ExpiredRows<'_>) -> Result<Option<(f64, String)>> {
    let blocks = if facts.kind == "p" { estimate::blocks_below(connection, facts.oid).await? } else { facts.blocks };
    let percent = (100.0 * SAMPLED_BLOCKS / (blocks.max(1) as f64)).min(100.0);
    let sql = format!(
        "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE {}) FROM {} TABLESAMPLE pg_catalog.system ({percent:.4})",
        expired.condition,
        facts.sql()
    );
    let counted: Vec<(i64, i64)> = pg::fetch_all_as(connection, sql).await?;
    let counted = counted.first().filter(|(rows, _)| *rows > 0);
    Ok(counted.map(|(rows, go)| (100.0 * *go as f64 / *rows as f64, units::plural(*rows, "row"))))
}
