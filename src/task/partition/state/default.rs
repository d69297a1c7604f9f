//! Reads the default partition: rows that get a partition of their own, and rows that stay because their key is not a time.

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use super::found::{Counted, DefaultContents, State, StrayPeriod};
use crate::pg::{self, identifier};
use crate::task::partition::calendar::{Every, Period};
use crate::task::partition::key::Key;

/// The most periods that one run finds in the default partition; the next run continues.
const PERIODS: usize = 200;
/// The most cuts that one run makes in a period with too many rows.
pub const CUTS: usize = 50;
/// The number of rows that move within a second on a slow disk, with three indexes. A period with more is cut.
pub const MOVED_AT_ONCE_ROWS: u64 = 50_000;
/// Rows of the default partition are counted up to here: its count is for people.
const COUNTED_ROWS: u64 = 1_000_000;
/// The number of keys that are shown.
const SHOWN: usize = 3;

const DAY: i64 = 86_400_000_000;
/// 0001-01-03: an earlier value is a zero value in some zone, BC, or '-infinity'.
const FIRST: i64 = -62_135_596_800_000_000 + 2 * DAY;
/// 9999-01-01: calendars end here.
const LAST: i64 = 253_370_764_800_000_000;
/// Beyond this, the next multiple of `every` may not fit in the type.
const NUMBERS: i64 = 9_000_000_000_000_000_000;

/// Walks from period to period by the lowest key above the last one: each step is one index lookup if an index begins with the key.
pub async fn read(connection: &mut PgConnection, state: &State) -> Result<DefaultContents> {
    let mut found = DefaultContents::default();
    let Some(default) = state.default_partition().filter(|default| default.is_plain && !default.is_pending) else {
        return Ok(found);
    };
    let (key, from, column) = (state.key, format!("ONLY {}", default.table.sql()), identifier(&state.column));
    found.rows = count(connection, &from, "true", COUNTED_ROWS).await?;
    if found.rows.rows == 0 {
        return Ok(found);
    }
    found.null_rows = count(connection, &from, &format!("{column} IS NULL"), COUNTED_ROWS).await?;
    let beyond = match (state.chain, state.calendar.every) {
        (Some(chain), Every::Step(step)) => Some(chain.limit(step)),
        _ => None,
    };
    let (low, high) = limits(key, beyond);
    let no_time = key.is_no_time(&column);
    let is_time = no_time.as_ref().map_or("true".to_owned(), |no_time| format!("NOT ({no_time})"));
    let mut odd: Vec<String> = low.iter().map(|low| format!("{column} < {low} AND {is_time}")).collect();
    odd.extend(high.iter().map(|high| format!("{column} >= {high} AND {is_time}")));
    odd.extend(no_time);
    // Nothing is moved from a period with a zero value: its partition would take that value, too.
    let zero = zero_values(key);
    let has_zero_values = match zero {
        Some(zero) => count(connection, &from, &within(key, &column, zero)?, 1).await?.rows > 0,
        None => false,
    };
    let mut above = low.map_or("true".to_owned(), |low| format!("{column} >= {low}"));
    let below = high.map_or("true".to_owned(), |high| format!("{column} < {high}"));
    for _ in 0..PERIODS {
        let sql = format!(
            "SELECT {column}::text AS \"shown as text\" FROM {from} WHERE {column} IS NOT NULL AND {above} AND {below} AND {is_time} ORDER BY {column} LIMIT 1"
        );
        let Some(lowest) = pg::fetch_text(connection, sql).await? else { break };
        let position = key.position(&lowest);
        let Some((position, period)) = position.and_then(|position| Some((position, state.calendar.period_at(position)?))) else {
            break;
        };
        let here = within(key, &column, period)?;
        above = format!("{column} >= {}", key.sql(period.to)?);
        if has_zero_values && zero.is_some_and(|zero| period.from < zero.to && zero.from < period.to) {
            odd.push(here);
            continue;
        }
        let rows = count(connection, &from, &here, MOVED_AT_ONCE_ROWS + 1).await?.rows;
        let mut stray = StrayPeriod { position, rows, cuts: Vec::new(), is_dense: false };
        if rows > MOVED_AT_ONCE_ROWS {
            cut(connection, &from, &column, key, period, &mut stray).await?;
        }
        found.strays.push(stray);
    }
    for condition in odd {
        let counted = count(connection, &from, &condition, COUNTED_ROWS).await?;
        found.odd_rows.rows += counted.rows;
        found.odd_rows.is_capped |= counted.is_capped;
        if counted.rows > 0 && found.odd_keys.len() < SHOWN {
            let sql = format!(
                "SELECT DISTINCT {column}::text FROM (SELECT {column} FROM {from} WHERE {condition} ORDER BY {column} LIMIT {SHOWN}) k"
            );
            let keys: Vec<(String,)> = pg::fetch_all_as(connection, sql).await?;
            found.odd_keys.extend(keys.into_iter().map(|(key,)| key));
        }
    }
    found.odd_keys.truncate(SHOWN);
    Ok(found)
}

fn within(key: Key, column: &str, period: Period) -> Result<String> {
    Ok(format!("{column} >= {} AND {column} < {}", key.sql(period.from)?, key.sql(period.to)?))
}

/// Returns the limits of the keys that a calendar covers, as SQL, if the type has others; numbers from `beyond` on are far beyond all
/// partitions.
pub(super) fn limits(key: Key, beyond: Option<i64>) -> (Option<String>, Option<String>) {
    match key {
        Key::Number { largest: i64::MAX } => {
            (key.sql(-NUMBERS).ok(), key.sql(beyond.map_or(NUMBERS, |beyond| beyond.min(NUMBERS))).ok())
        }
        Key::Number { .. } => (None, beyond.and_then(|beyond| key.sql(beyond).ok())),
        // A type that ends before has no such keys, and its literals would be refused.
        Key::Epoch { largest, .. } if largest < i64::MAX => (None, None),
        Key::Uuid => (None, key.sql(LAST).ok()),
        _ => (key.sql(FIRST).ok(), key.sql(LAST).ok()),
    }
}

/// Returns 1970-01-01 in any zone: programs write it when they have no time to write.
fn zero_values(key: Key) -> Option<Period> {
    match key {
        Key::Number { .. } => None,
        Key::Uuid => Some(Period { from: 0, to: DAY }),
        _ => Some(Period { from: -DAY, to: DAY }),
    }
}

/// Finds keys that cut the period into parts that one transaction can move.
async fn cut(
    connection: &mut PgConnection,
    from: &str,
    column: &str,
    key: Key,
    period: Period,
    stray: &mut StrayPeriod,
) -> Result<()> {
    let mut low = period.from;
    for _ in 0..CUTS {
        let sql = format!(
            "SELECT {column}::text AS \"shown as text\" FROM {from} WHERE {column} >= {} AND {column} < {} ORDER BY {column} OFFSET {MOVED_AT_ONCE_ROWS} LIMIT 1",
            key.sql(low)?,
            key.sql(period.to)?
        );
        let Some(next) = pg::fetch_text(connection, sql).await?.and_then(|text| key.position(&text)) else { break };
        if next <= low {
            stray.is_dense = true;
            break;
        }
        stray.cuts.push(next);
        low = next;
    }
    Ok(())
}

async fn count(connection: &mut PgConnection, from: &str, within: &str, limit: u64) -> Result<Counted> {
    let sql = format!("SELECT count(*)::text FROM (SELECT FROM {from} WHERE {within} LIMIT {limit}) counted");
    let text = pg::fetch_text(connection, sql).await?.unwrap_or_default();
    let rows = text.parse().context("a count is a number")?;
    Ok(Counted { rows, is_capped: rows >= limit })
}
