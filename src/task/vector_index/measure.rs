//! The queries of a measurement, their true neighbours, and how a search's answer compares with them.
//!
//! To be fair, the row that a query was made from is left out on both sides (with it, 0.213 was measured for a recall of 0.124); so are
//! NULLs and, for cosine, zero vectors. A neighbour counts by its distance, not by its row, so that duplicates do not lower the recall.
//! EXPLAIN proves that the index answered: a sequential scan would score 1.0.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::source::Source;
use super::target::SearchTarget;
use crate::pg;

/// Queries in one statement: its parameters stay below some megabytes.
pub const AT_ONCE: usize = 50;
/// With fewer exact answers than these a recall means nothing.
pub const MIN_QUERIES: usize = 20;
/// This many queries give a recall of 0.95 to ± 0.015. More, which determine the setting better, are asked only where they are cheap.
pub const ENOUGH: usize = 200;
/// Exact searches whose time is measured, in rounds, and the time for that.
const TIMED_EXACTLY: usize = 10;
const ROUNDS: u32 = 3;
const TIME_TO_TIME: Duration = Duration::from_millis(500);
/// The relative tolerance of a distance: sums in single precision may differ in their last digits.
const SAME: f64 = 1e-6;

/// Query vectors with their true neighbours.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// What the queries are: every report says it.
    pub source: Source,
    /// The row that a query was made from; None for a question from outside.
    pub tids: Vec<Option<String>>,
    /// The version of the row that was sampled.
    pub xmins: Vec<Option<String>>,
    pub vectors: Vec<String>,
    /// Values of the columns that the job's filters compare, as text.
    pub values: Vec<Vec<Option<String>>>,
    /// How often the application asked each question; empty: each once.
    pub times: Vec<f64>,
    /// Distances of the k nearest neighbours.
    pub truth: Vec<Vec<f64>>,
    pub exact_ms: f64,
    /// False: they only show how long an exact search takes.
    pub is_asked: bool,
    /// The number of queries, those without a known answer among them.
    pub drawn: usize,
    /// Queries that were left out, because their distances are infinite or no numbers: they tell nothing apart.
    pub endless: usize,
}

impl Sample {
    /// Returns one of the query vectors, whether its neighbours are known or not.
    pub fn vector(&self) -> Option<&str> {
        self.vectors.first().map(String::as_str)
    }

    pub fn len(&self) -> usize {
        self.truth.len()
    }

    /// Returns how often the question was asked.
    pub fn times(&self, number: usize) -> f64 {
        self.times.get(number).copied().unwrap_or(1.0)
    }

    /// Returns whether enough answers are known to measure a recall.
    pub fn is_enough(&self) -> bool {
        self.drawn > 0 && self.len() >= MIN_QUERIES.min(self.drawn)
    }

    /// Leaves out the queries whose distances are no numbers.
    fn leave_out(&mut self, is_endless: &[bool]) {
        fn kept<T>(all: &mut Vec<T>, is_endless: &[bool]) {
            let mut number = 0..;
            all.retain(|_| !is_endless.get(number.next().unwrap_or_default()).copied().unwrap_or(false));
        }
        self.endless = is_endless.iter().filter(|is_endless| **is_endless).count();
        if self.endless == 0 {
            return;
        }
        self.drawn -= self.endless;
        kept(&mut self.tids, is_endless);
        kept(&mut self.xmins, is_endless);
        kept(&mut self.vectors, is_endless);
        kept(&mut self.values, is_endless);
        kept(&mut self.times, is_endless);
        kept(&mut self.truth, is_endless);
    }

    /// Returns some of the queries, whose neighbours are not known yet.
    pub fn chosen(&self, numbers: &[usize]) -> Self {
        fn of<T: Clone>(all: &[T], numbers: &[usize]) -> Vec<T> {
            numbers.iter().filter_map(|number| all.get(*number).cloned()).collect()
        }
        Self {
            source: self.source.clone(),
            tids: of(&self.tids, numbers),
            xmins: of(&self.xmins, numbers),
            vectors: of(&self.vectors, numbers),
            values: of(&self.values, numbers),
            times: of(&self.times, numbers),
            is_asked: self.is_asked,
            ..Self::default()
        }
    }

    /// Forgets the queries beyond the first `count`.
    pub fn truncate(&mut self, count: usize) {
        self.vectors.truncate(count);
        self.tids.truncate(count);
        self.xmins.truncate(count);
        self.values.truncate(count);
        self.times.truncate(count);
        self.truth.truncate(count);
    }
}

/// A row: its identity, its version, its vector, and the values of other columns.
type Drawn = (Option<String>, Option<String>, String, Vec<Option<String>>);

/// Picks up to `count` rows with vectors, the same ones as long as the table does not change. `columns`: expressions whose values are kept, too.
pub async fn sample(
    connection: &mut PgConnection,
    searched: &SearchTarget,
    columns: &[String],
    count: u32,
    rows: f64,
) -> Result<Sample> {
    let mut conditions = searched.rows_that_count();
    if let Some(is_nonzero) = searched.is_nonzero("t") {
        conditions += &format!(" AND {is_nonzero}");
    }
    let share = (f64::from(count) * 150.0 / rows.max(1.0)).clamp(0.000_1, 100.0);
    let by = sampled_by(rows);
    for share in [share, 100.0] {
        let more: String = columns.iter().map(|column| format!(", ({column})::text")).collect();
        let found: Vec<Drawn> = {
            let sql = format!(
                "WITH s AS MATERIALIZED (SELECT t.ctid AS at FROM {relation} t TABLESAMPLE {by} ({share}) REPEATABLE (7) WHERE {conditions}
                   ORDER BY hashtext(t.ctid::text) LIMIT {count})
                 SELECT t.{tid}::text, t.xmin::text, t.{column}::text{more} FROM s JOIN {relation} t ON t.ctid = s.at ORDER BY hashtext(s.at::text)",
                tid = searched.tid,
                relation = searched.relation,
                column = searched.column,
            );
            pg::execute(connection, searched.proof.clone()).await?;
            let rows = pg::query(sql).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
            let values =
                |row: &PgRow| (0..columns.len()).map(|column| row.try_get(3 + column)).collect::<Result<_, sqlx::Error>>();
            rows.iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, values(row)?)))
                .collect::<Result<_, sqlx::Error>>()?
        };
        if found.len() >= count as usize || share >= 100.0 {
            let mut sample = Sample::default();
            for (tid, xmin, vector, values) in found {
                sample.tids.push(tid);
                sample.xmins.push(xmin);
                sample.vectors.push(vector);
                sample.values.push(values);
            }
            return Ok(sample);
        }
    }
    Ok(Sample::default())
}

/// Samples by rows while walking all rows is cheap, by blocks beyond that.
pub fn sampled_by(rows: f64) -> &'static str {
    if rows < 5e6 { "BERNOULLI" } else { "SYSTEM" }
}

/// Finds the true neighbours of the queries by reading every row, of as many as there is time for.
pub async fn find_truth(
    connection: &mut PgConnection,
    searched: &SearchTarget,
    sample: &mut Sample,
    k: u32,
    time: Duration,
) -> Result<()> {
    for (name, value) in [("enable_indexscan", "off"), ("enable_indexonlyscan", "off"), ("enable_seqscan", "on")] {
        pg::set(connection, name, value).await?;
    }
    sample.drawn = sample.vectors.len();
    let mut is_endless: Vec<bool> = Vec::new();
    let statement = searched.exact_statement(k);
    let started = Instant::now();
    let deadline = started + time;
    // It begins with small steps: an exact search of a large table may take a minute.
    let mut at_once = 1;
    while sample.truth.len() < sample.vectors.len() && Instant::now() < deadline {
        let range = sample.truth.len()..(sample.truth.len() + at_once).min(sample.vectors.len());
        limit(connection, searched, deadline).await?;
        match distances(connection, &statement, sample, range).await {
            Ok(found) => {
                let near: Vec<Vec<f64>> = found.into_iter().map(|found| found.into_iter().flatten().collect()).collect();
                is_endless.extend(near.iter().map(|near| near.iter().any(|distance| !distance.is_finite())));
                sample.truth.extend(near);
            }
            Err(error) if pg::sql_state(&error).as_deref() == Some("57014") => break,
            Err(error) => return Err(error.context("exact neighbours")),
        }
        let each = started.elapsed() / sample.truth.len().max(1) as u32;
        at_once = ((1.0 / each.as_secs_f64().max(0.001)) as usize).clamp(1, AT_ONCE);
    }
    sample.exact_ms = started.elapsed().as_secs_f64() * 1000.0 / sample.truth.len().max(1) as f64;
    sample.truncate(sample.truth.len());
    sample.leave_out(&is_endless);
    for name in ["enable_indexscan", "enable_indexonlyscan", "statement_timeout"] {
        pg::set(connection, name, if name == "statement_timeout" { "0" } else { "on" }).await?;
    }
    Ok(())
}

/// Measures the time of an exact search as that of a search with an index is measured: the best of some rounds, in the server.
pub async fn time_exact(connection: &mut PgConnection, searched: &SearchTarget, sample: &mut Sample, k: u32) -> Result<()> {
    let count = sample.len().min(TIMED_EXACTLY);
    if count == 0 || sample.exact_ms * count as f64 > TIME_TO_TIME.as_millis() as f64 {
        // It takes so long that what else the statements did does not matter.
        return Ok(());
    }
    for name in ["enable_indexscan", "enable_indexonlyscan"] {
        pg::set(connection, name, "off").await?;
    }
    let sql = format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {}", searched.exact_statement(k));
    let started = Instant::now();
    for round in 0..ROUNDS {
        if round > 0 && started.elapsed() > TIME_TO_TIME {
            break;
        }
        pg::execute(connection, searched.proof.clone()).await?;
        let row =
            pg::query(sql.clone()).bind(&sample.vectors[..count]).bind(&sample.tids[..count]).fetch_one(&mut *connection).await;
        let plan: serde_json::Value = row.map_err(pg::in_its_own_words)?.try_get(0)?;
        if let Some(ms) = plan[0]["Execution Time"].as_f64() {
            sample.exact_ms = sample.exact_ms.min(ms / count as f64);
        }
    }
    for name in ["enable_indexscan", "enable_indexonlyscan"] {
        pg::set(connection, name, "on").await?;
    }
    Ok(())
}

/// Prepares the next statement: it ends at the deadline, and the names in it still mean pgvector's.
pub async fn limit(connection: &mut PgConnection, searched: &SearchTarget, deadline: Instant) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    pg::set(connection, "statement_timeout", &left.as_millis().to_string()).await?;
    pg::execute(connection, searched.proof.clone()).await
}

pub async fn distances(
    connection: &mut PgConnection,
    statement: &str,
    sample: &Sample,
    range: std::ops::Range<usize>,
) -> Result<Vec<Vec<Option<f64>>>> {
    let rows = pg::query(statement.to_owned())
        .bind(&sample.vectors[range.clone()])
        .bind(&sample.tids[range])
        .fetch_all(connection)
        .await
        .map_err(pg::in_its_own_words)?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Returns which rows of the sample are unchanged and still at their place. To a search, an updated row is another row at distance zero.
pub async fn are_there(
    connection: &mut PgConnection,
    searched: &SearchTarget,
    sample: &Sample,
    range: std::ops::Range<usize>,
) -> Result<Vec<bool>> {
    if searched.tid != "ctid" {
        return Ok(vec![true; range.len()]);
    }
    let sql = format!(
        "SELECT q.tid IS NULL OR coalesce((SELECT s.xmin::text = q.xmin FROM {relation} s WHERE s.ctid = q.tid::tid), false)
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY q(tid, xmin, n) ORDER BY n",
        relation = searched.relation,
    );
    let rows = pg::query(sql)
        .bind(&sample.tids[range.clone()])
        .bind(&sample.xmins[range])
        .fetch_all(connection)
        .await
        .map_err(pg::in_its_own_words)?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Returns the recall of one query. `found` has None for the query's own row; `unit`: of the distances, see [`SearchTarget::unit`]. Pure.
pub fn recall_of(found: &[Option<f64>], truth: &[f64], k: usize, unit: f64) -> f64 {
    let counted = truth.len().min(k);
    let Some(farthest) = truth.get(counted.wrapping_sub(1)) else { return 1.0 };
    let farthest = farthest + SAME * farthest.abs().max(unit);
    let hits = found.iter().flatten().take(k).filter(|distance| **distance <= farthest).count();
    hits.min(counted) as f64 / counted as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_that_asks_counts_for_nothing_and_duplicates_count_by_distance() {
        let truth = [0.1, 0.2, 0.2];
        assert_eq!(recall_of(&[None, Some(0.1), Some(0.2), Some(0.2)], &truth, 3, 0.0), 1.0);
        // Self is not found: the first three count, and the fourth does not.
        assert_eq!(recall_of(&[Some(0.1), Some(0.2), Some(0.3), Some(0.2)], &truth, 3, 0.0), 2.0 / 3.0);
        // Another row at the same distance is as good.
        assert_eq!(recall_of(&[None, Some(0.2), Some(0.2), Some(0.2)], &truth, 3, 0.0), 1.0);
        assert_eq!(recall_of(&[None], &truth, 3, 0.0), 0.0);
        // A table with fewer rows than k.
        assert_eq!(recall_of(&[None, Some(0.1)], &[0.1], 3, 0.0), 1.0);
        assert_eq!(recall_of(&[None], &[], 3, 0.0), 1.0);
        // Small numbers are no less apart.
        assert_eq!(recall_of(&[Some(2e-9), Some(5e-9)], &[1e-9, 2e-9], 2, 0.0), 0.5);
        // Cosine distances of what is nearly the same are noise.
        assert_eq!(recall_of(&[Some(6e-8), Some(1.8e-7)], &[0.0, 6e-8], 2, 1.0), 1.0);
        // Inner products are negative.
        assert_eq!(recall_of(&[Some(-5.0), Some(-1.0)], &[-5.0, -3.0], 2, 0.0), 0.5);
    }
}
