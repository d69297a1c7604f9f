//! The queries of a measurement: vectors of the table itself, their true neighbours, and how a search's answer compares with them.
//!
//! To be fair, the row that a query was taken from is left out on both sides (with it, 0.213 was measured for a recall of 0.124); so are
//! NULLs and, for cosine, zero vectors. A neighbour counts by its distance, not by its row, so that duplicates do not lower the recall.
//! EXPLAIN proves that the index answered: a sequential scan would score 1.0.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{PgConnection, Row as _};

use crate::pg;

/// Queries in one statement: its parameters stay below some megabytes.
pub const AT_ONCE: usize = 50;
/// With fewer exact answers than these a recall means nothing.
pub const MIN_QUERIES: usize = 20;
/// This many queries give a recall of 0.95 to ± 0.015. More, which determine the setting better, run only where they are cheap.
pub const ENOUGH: usize = 200;
/// The relative tolerance of a distance: sums in single precision may differ in their last digits.
const SAME: f64 = 1e-6;

/// The relation and column to search, as SQL.
#[derive(Clone, Debug)]
pub struct SearchTarget {
    /// Quoted.
    pub relation: String,
    /// The column, quoted: distances are those of its values.
    pub column: String,
    /// The row's identity: `ctid`, or the column of a copy that holds the original one.
    pub tid: &'static str,
    /// The column's type: `"public".vector(1536)`.
    pub column_type: String,
    /// The indexed expression: the column, or `column::halfvec(3000)`. `t.` stands before the column.
    pub key: String,
    /// The cast of a query vector where the key is an expression: `::"public".halfvec(3000)`.
    pub key_cast: String,
    /// `OPERATOR("public".<=>)`
    pub operator: String,
    /// For cosine: the operator that recognizes a zero vector.
    pub inner_product: Option<String>,
    /// The predicate of a partial index.
    pub predicate: Option<String>,
    /// A statement that fails if the names above mean something else than pgvector's by now.
    pub proof: String,
}

impl SearchTarget {
    /// Returns the SQL condition that the vector is not a zero vector, where that matters.
    pub fn is_nonzero(&self, alias: &str) -> Option<String> {
        let operator = self.inner_product.as_ref()?;
        Some(format!("({alias}.{column} {operator} {alias}.{column}) <> 0", column = self.column))
    }

    /// Distances that differ by less than a millionth of this are equal: a cosine distance is one minus a number near one, others are as
    /// small as their vectors.
    pub fn unit(&self) -> f64 {
        if self.inner_product.is_some() { 1.0 } else { 0.0 }
    }

    fn rows_that_count(&self) -> String {
        let mut conditions = vec![format!("t.{} IS NOT NULL", self.column)];
        conditions.extend(self.predicate.as_ref().map(|predicate| format!("({predicate})")));
        conditions.join(" AND ")
    }

    /// Returns the query, as an application writes it.
    pub fn statement(&self, k: u32, exactly: bool) -> String {
        let found = if exactly {
            format!(
                "SELECT t.{tid} AS tid, t.{column} AS c FROM {relation} t WHERE {rows} AND t.{tid} <> q.tid ORDER BY t.{column} {operator} q.v LIMIT {k}",
                tid = self.tid,
                column = self.column,
                relation = self.relation,
                rows = self.rows_that_count(),
                operator = self.operator,
            )
        } else {
            let predicate = self.predicate.as_ref().map(|predicate| format!(" WHERE ({predicate})")).unwrap_or_default();
            format!(
                "SELECT t.{tid} AS tid, t.{column} AS c FROM {relation} t{predicate} ORDER BY {key} {operator} q.v{cast} LIMIT {more}",
                tid = self.tid,
                column = self.column,
                relation = self.relation,
                key = self.key,
                operator = self.operator,
                cast = self.key_cast,
                more = k + 1,
            )
        };
        format!(
            "WITH q AS MATERIALIZED (SELECT n, v::{column_type} AS v, tid::tid AS tid FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(v, tid, n))
             SELECT ARRAY(SELECT CASE WHEN f.tid <> q.tid THEN (f.c {operator} q.v)::float8 END FROM ({found}) f) FROM q ORDER BY n",
            column_type = self.column_type,
            operator = self.operator,
        )
    }
}

/// Query vectors with their true neighbours.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub tids: Vec<String>,
    /// The version of the row that was sampled.
    xmins: Vec<String>,
    pub vectors: Vec<String>,
    /// Distances of the k nearest neighbours.
    pub truth: Vec<Vec<f64>>,
    pub exact_ms: f64,
}

impl Sample {
    /// Returns one of the query vectors, whether its neighbours are known or not.
    pub fn vector(&self) -> Option<&str> {
        self.vectors.first().map(String::as_str)
    }

    pub fn len(&self) -> usize {
        self.truth.len()
    }
}

/// Picks up to `count` vectors for queries, the same ones as long as the table does not change.
pub async fn sample(connection: &mut PgConnection, searched: &SearchTarget, count: u32, rows: f64) -> Result<Sample> {
    let mut conditions = searched.rows_that_count();
    if let Some(is_nonzero) = searched.is_nonzero("t") {
        conditions += &format!(" AND {is_nonzero}");
    }
    let share = (f64::from(count) * 150.0 / rows.max(1.0)).clamp(0.000_1, 100.0);
    let by = sampled_by(rows);
    for share in [share, 100.0] {
        let found: Vec<(String, String, String)> = {
            let sql = format!(
                "WITH s AS MATERIALIZED (SELECT t.ctid AS at FROM {relation} t TABLESAMPLE {by} ({share}) REPEATABLE (7) WHERE {conditions}
                   ORDER BY hashtext(t.ctid::text) LIMIT {count})
                 SELECT t.{tid}::text, t.xmin::text, t.{column}::text FROM s JOIN {relation} t ON t.ctid = s.at ORDER BY hashtext(s.at::text)",
                tid = searched.tid,
                relation = searched.relation,
                column = searched.column,
            );
            pg::execute(connection, searched.proof.clone()).await?;
            let rows = pg::query(sql).fetch_all(&mut *connection).await.map_err(pg::in_its_own_words)?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect::<Result<_, sqlx::Error>>()?
        };
        if found.len() >= count as usize || share >= 100.0 {
            let mut sample = Sample::default();
            for (tid, xmin, vector) in found {
                sample.tids.push(tid);
                sample.xmins.push(xmin);
                sample.vectors.push(vector);
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

/// Finds the true neighbours of as many queries as there is time for, by reading every row. Those beyond the first `ENOUGH` get a third of
/// the time.
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
    let statement = searched.statement(k, true);
    let started = Instant::now();
    let deadline = |known: usize| started + if known < ENOUGH { time } else { time / 3 };
    // It begins with small steps: an exact search of a large table may take a minute.
    let mut at_once = 1;
    while sample.truth.len() < sample.vectors.len() && Instant::now() < deadline(sample.truth.len()) {
        let range = sample.truth.len()..(sample.truth.len() + at_once).min(sample.vectors.len());
        limit(connection, searched, deadline(sample.truth.len())).await?;
        match distances(connection, &statement, sample, range).await {
            Ok(found) => {
                let near = found.into_iter().map(|found| found.into_iter().flatten().filter(|d| !d.is_nan()).collect());
                sample.truth.extend(near);
            }
            Err(error) if pg::sql_state(&error).as_deref() == Some("57014") => break,
            Err(error) => return Err(error.context("exact neighbours")),
        }
        let each = started.elapsed() / sample.truth.len().max(1) as u32;
        at_once = ((1.0 / each.as_secs_f64().max(0.001)) as usize).clamp(1, AT_ONCE);
    }
    sample.exact_ms = started.elapsed().as_secs_f64() * 1000.0 / sample.truth.len().max(1) as f64;
    sample.vectors.truncate(sample.truth.len());
    sample.tids.truncate(sample.truth.len());
    sample.xmins.truncate(sample.truth.len());
    for name in ["enable_indexscan", "enable_indexonlyscan", "statement_timeout"] {
        pg::set(connection, name, if name == "statement_timeout" { "0" } else { "on" }).await?;
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
        "SELECT coalesce((SELECT s.xmin::text = q.xmin FROM {relation} s WHERE s.ctid = q.tid::tid), false)
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

/// Returns the mean, and half of its 95 % interval. Pure.
pub fn mean_and_margin(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 1.0);
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    // Equal values do not mean certainty: the rule of three allows for a query that fails altogether.
    let margin = if variance == 0.0 { 3.0 / count } else { 1.96 * (variance / count).sqrt() };
    (mean, margin.min(1.0))
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

    #[test]
    fn the_interval_narrows_with_more_queries_and_is_never_nothing() {
        let (mean, few) = mean_and_margin(&[1.0, 0.8, 0.9, 0.7]);
        assert!((mean - 0.85).abs() < 1e-9);
        let many: Vec<f64> = [1.0, 0.8, 0.9, 0.7].repeat(25);
        assert!(mean_and_margin(&many).1 < few / 4.0);
        assert_eq!(mean_and_margin(&[1.0; 100]), (1.0, 0.03));
        assert_eq!(mean_and_margin(&[]), (0.0, 1.0));
    }
}
