//! Searches by a new index and by what is there, in turns: a machine that is busy for a moment is busy for both. Of each query the fastest of several
//! rounds counts, and of all queries the median: measured at two moments, the same search took 0.08 and 0.44 ms.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, Row as _};

use super::kind::Method;
use super::measure::{self, Sample};
use super::search::{self, Stopped};
use super::target::SearchTarget;
use crate::pg;

const QUERIES: usize = 20;
/// Queries by one side before it is the other one's turn.
const IN_TURN: usize = 4;
const ROUNDS: usize = 15;

/// Times of searches in turns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pairs {
    /// Milliseconds of a search by the new index.
    pub new_ms: f64,
    /// Milliseconds of a search by the present index, or of an exact one where there is none.
    pub present_ms: f64,
    /// The number of queries that both searched.
    pub queries: usize,
}

/// What a new index is compared with by the clock.
#[derive(Clone, Debug, PartialEq)]
pub enum Rival {
    Exact,
    Index(ByIndex),
}

/// Searches by an index at a setting.
#[derive(Clone, Debug, PartialEq)]
pub struct ByIndex {
    pub name: String,
    pub method: Method,
    pub setting: u32,
    /// An index that the planner would prefer and that is hidden from it. Only superusers can do that.
    pub hidden: Option<i64>,
}

/// One of two sides.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    pub searched: &'a SearchTarget,
    /// None: every row is read.
    pub index: Option<&'a ByIndex>,
}

/// Searches in turns, for `time` or a little longer. None: the planner used another index, or not even one query was answered by both in time.
pub async fn measure(
    connection: &mut PgConnection,
    sample: &Sample,
    k: u32,
    (new, present): (Side<'_>, Side<'_>),
    (time, deadline): (Duration, Instant),
) -> Result<Option<Pairs>> {
    let searched = in_turns(connection, sample, k, [new, present], (time, deadline)).await;
    if searched.is_err() && [new, present].iter().any(|side| side.hidden().is_some()) {
        search::show_again(connection).await?;
    }
    // The next measurement has settings of its own, but not of these.
    for (name, value) in [("enable_indexscan", "on"), ("enable_indexonlyscan", "on"), ("statement_timeout", "0")] {
        pg::set(connection, name, value).await?;
    }
    match searched {
        Ok(fastest) => Ok(medians(fastest)),
        Err(error) if matches!(error.downcast_ref(), Some(Stopped::OtherPlan(_))) => Ok(None),
        Err(error) if pg::sql_state(&error).as_deref() == Some("57014") && Instant::now() >= deadline => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns milliseconds of each query's fastest search, by both sides.
async fn in_turns(
    connection: &mut PgConnection,
    sample: &Sample,
    k: u32,
    sides: [Side<'_>; 2],
    (time, deadline): (Duration, Instant),
) -> Result<Vec<[f64; 2]>> {
    let count = sample.len().min(QUERIES);
    let mut fastest = vec![[f64::MAX; 2]; count];
    let started = Instant::now();
    for round in 0..ROUNDS {
        for (turn, start) in (0..count).step_by(IN_TURN).enumerate() {
            if round + turn > 0 && (started.elapsed() > time || Instant::now() >= deadline) {
                return Ok(fastest);
            }
            let first = (round + turn) % 2;
            for number in [first, 1 - first] {
                sides[number].prepare(connection, k).await?;
                for (at, fastest) in fastest.iter_mut().enumerate().skip(start).take(IN_TURN) {
                    let ms = sides[number].search(connection, sample, at, (k, deadline)).await?;
                    fastest[number] = fastest[number].min(ms);
                }
                if sides[number].hidden().is_some() {
                    search::show_again(connection).await?;
                }
            }
        }
    }
    Ok(fastest)
}

impl Side<'_> {
    fn hidden(&self) -> Option<i64> {
        self.index.and_then(|index| index.hidden)
    }

    async fn prepare(&self, connection: &mut PgConnection, k: u32) -> Result<()> {
        for name in ["enable_indexscan", "enable_indexonlyscan"] {
            pg::set(connection, name, if self.index.is_some() { "on" } else { "off" }).await?;
        }
        let Some(index) = self.index else { return pg::set(connection, "enable_seqscan", "on").await };
        search::by_index_alone(connection, index.method, index.setting, k).await?;
        match self.hidden() {
            Some(oid) => search::hide(connection, &self.searched.relation, oid).await,
            None => Ok(()),
        }
    }

    /// Returns the milliseconds of one search, in the server.
    async fn search(
        &self,
        connection: &mut PgConnection,
        sample: &Sample,
        at: usize,
        (k, deadline): (u32, Instant),
    ) -> Result<f64> {
        measure::limit(connection, self.searched, deadline).await?;
        let statement = match self.index {
            Some(index) => self.searched.statement(k, index.setting),
            None => self.searched.exact_statement(k),
        };
        let row = pg::query(format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}"))
            .bind(&sample.vectors[at..=at])
            .bind(&sample.tids[at..=at])
            .fetch_one(&mut *connection)
            .await
            .map_err(pg::in_its_own_words)?;
        let plan: Value = row.try_get(0)?;
        if let Some(index) = self.index {
            search::is_by(&plan[0]["Plan"], &index.name)?;
        }
        Ok(plan[0]["Execution Time"].as_f64().unwrap_or(f64::MAX))
    }
}

/// Returns the median of the queries that both sides answered. Pure.
fn medians(fastest: Vec<[f64; 2]>) -> Option<Pairs> {
    let both: Vec<[f64; 2]> = fastest.into_iter().filter(|pair| pair.iter().all(|ms| *ms < f64::MAX)).collect();
    let median = |side: usize| {
        let mut all: Vec<f64> = both.iter().map(|pair| pair[side]).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    Some(Pairs { new_ms: median(0)?, present_ms: median(1)?, queries: both.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_moment_of_one_side_does_not_count() {
        let quiet = vec![[0.1, 1.0]; 9];
        assert_eq!(medians(quiet.clone()), Some(Pairs { new_ms: 0.1, present_ms: 1.0, queries: 9 }));
        let mut busy = quiet;
        busy[..4].fill([5.0, 1.0]);
        busy.push([0.1, f64::MAX]);
        assert_eq!(medians(busy), Some(Pairs { new_ms: 0.1, present_ms: 1.0, queries: 9 }));
        assert_eq!(medians(vec![[f64::MAX, 1.0]]), None);
    }
}
