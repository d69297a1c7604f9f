//! What an index finds, against what there is: recall, time and pages, over vectors of the table itself.
//!
//! Honest: the row that a query was taken from is left out on both sides (with it, 0.213 was seen for a recall of 0.124); so are
//! NULLs and, for cosine, vectors without a direction. A neighbour counts by its distance, not by its number, so that duplicates
//! are no loss. EXPLAIN proves that the index answered: a sequential scan would score 1.0.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, Row as _};

use super::kind::Method;
use crate::pg::{self, literal};

/// Queries in one statement: its parameters stay below some megabytes.
const AT_ONCE: usize = 50;
/// Fewer exact answers than these say nothing.
pub const QUERIES_AT_LEAST: usize = 20;
/// Distances are sums in single precision, whose order may differ from plan to plan.
const SAME: f64 = 1e-6;

/// What is searched, as SQL.
#[derive(Clone, Debug)]
pub struct Searched {
    /// Quoted.
    pub relation: String,
    /// The column, quoted: distances are those of its values.
    pub column: String,
    /// Which row it is: `ctid`, or the column of a copy that says which one it was.
    pub tid: &'static str,
    /// Its type: `"public".vector(1536)`.
    pub column_type: String,
    /// What the index is on: the column, or `column::halfvec(3000)`. `t.` stands before the column.
    pub key: String,
    /// Of a query vector where the key is an expression: `::"public".halfvec(3000)`.
    pub key_cast: String,
    /// `OPERATOR("public".<=>)`
    pub operator: String,
    /// For cosine: with it, a vector of nothing but zeros is known, which has no direction.
    pub inner_product: Option<String>,
    /// A partial index's.
    pub predicate: Option<String>,
}

impl Searched {
    /// That a vector has a direction, where that matters.
    pub fn has_direction(&self, alias: &str) -> Option<String> {
        let operator = self.inner_product.as_ref()?;
        Some(format!("({alias}.{column} {operator} {alias}.{column}) <> 0", column = self.column))
    }

    fn rows_that_count(&self) -> String {
        let mut conditions = vec![format!("t.{} IS NOT NULL", self.column)];
        conditions.extend(self.predicate.as_ref().map(|predicate| format!("({predicate})")));
        conditions.join(" AND ")
    }

    /// As an application asks.
    fn statement(&self, k: u32, exactly: bool) -> String {
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
    /// Which version of the row it was.
    xmins: Vec<String>,
    vectors: Vec<String>,
    /// Distances of the k nearest.
    truth: Vec<Vec<f64>>,
    pub exact_ms: f64,
}

impl Sample {
    /// One of the query vectors, whether its neighbours are known or not.
    pub fn vector(&self) -> Option<&str> {
        self.vectors.first().map(String::as_str)
    }

    pub fn len(&self) -> usize {
        self.truth.len()
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// probes or ef_search.
    pub setting: u32,
    pub recall: f64,
    /// Half of the 95 % interval.
    pub margin: f64,
    pub queries: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// A query, in the server.
    pub ms: f64,
    /// A query, from memory or disk.
    pub pages: f64,
    /// The planner took the index by itself.
    pub is_planners_choice: bool,
}

/// Up to `count` vectors that a query may be about, the same ones as long as the table does not change.
pub async fn sample(connection: &mut PgConnection, searched: &Searched, count: u32, rows: f64) -> Result<Sample> {
    let mut conditions = searched.rows_that_count();
    if let Some(has_direction) = searched.has_direction("t") {
        conditions += &format!(" AND {has_direction}");
    }
    let share = (f64::from(count) * 150.0 / rows.max(1.0)).clamp(0.000_1, 100.0);
    // By rows while a walk over them is cheap, by blocks beyond that.
    let by = if rows < 5e6 { "BERNOULLI" } else { "SYSTEM" };
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

/// Finds out the true neighbours of as many queries as there is time for, by looking at every row.
pub async fn find_truth(
    connection: &mut PgConnection,
    searched: &Searched,
    sample: &mut Sample,
    k: u32,
    deadline: Instant,
) -> Result<()> {
    for (name, value) in [("enable_indexscan", "off"), ("enable_indexonlyscan", "off"), ("enable_seqscan", "on")] {
        pg::set(connection, name, value).await?;
    }
    let statement = searched.statement(k, true);
    let started = Instant::now();
    // Small steps first: an exact search of a large table may take a minute.
    let mut at_once = 1;
    while sample.truth.len() < sample.vectors.len() && Instant::now() < deadline {
        let range = sample.truth.len()..(sample.truth.len() + at_once).min(sample.vectors.len());
        limit(connection, deadline).await?;
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

async fn limit(connection: &mut PgConnection, deadline: Instant) -> Result<()> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    pg::set(connection, "statement_timeout", &left.as_millis().to_string()).await
}

async fn distances(
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

/// Which rows of the sample are still where they were, and as they were. One that was updated meanwhile is another row to the
/// search, found at a distance of nothing.
async fn are_there(
    connection: &mut PgConnection,
    searched: &Searched,
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

/// Searches with an index at a setting.
pub struct Searcher<'a> {
    pub connection: &'a mut PgConnection,
    pub searched: &'a Searched,
    pub sample: &'a Sample,
    pub k: u32,
    pub method: Method,
    /// An index that the planner would prefer, and is not to see. For superusers.
    pub hidden: Option<i64>,
    pub is_hiding: bool,
    /// The index that is to answer.
    pub index: String,
    pub deadline: Instant,
    /// Searches so far, and how many there may be.
    pub searches: u64,
    pub searches_at_most: u64,
}

/// Why a measurement ended early.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error("the time for measuring is over")]
    Time,
    #[error("the number of searches for measuring is used up")]
    Searches,
    #[error("too many rows changed meanwhile")]
    Moved,
    #[error("the planner answers with {0} and not with the index")]
    OtherPlan(String),
}

impl Searcher<'_> {
    pub async fn recall(&mut self, setting: u32) -> Result<Found> {
        self.may_search()?;
        self.prepare(setting, false).await?;
        self.prove().await?;
        let statement = self.searched.statement(self.k, false);
        let mut recalls = Vec::with_capacity(self.sample.len());
        for start in (0..self.sample.len()).step_by(AT_ONCE) {
            self.hide().await?;
            limit(self.connection, self.deadline).await?;
            let range = start..(start + AT_ONCE).min(self.sample.len());
            let found =
                distances(self.connection, &statement, self.sample, range.clone()).await.map_err(|error| self.stopped(error))?;
            let are_there =
                are_there(self.connection, self.searched, self.sample, range).await.map_err(|error| self.stopped(error))?;
            let both = found.iter().zip(&self.sample.truth[start..]).zip(are_there);
            recalls.extend(
                both.filter(|(_, is_there)| *is_there).map(|((found, truth), _)| recall_of(found, truth, self.k as usize)),
            );
        }
        if recalls.len() < QUERIES_AT_LEAST.min(self.sample.len()) {
            return Err(Stopped::Moved.into());
        }
        let (recall, margin) = mean_and_margin(&recalls);
        let [recall, margin] = [recall, margin].map(|share| (share * 10_000.0).round() / 10_000.0);
        Ok(Found { setting, recall, margin, queries: recalls.len(), cost: None })
    }

    /// Time and pages at a setting: the best of five turns, so that a busy machine is not taken for a slow index.
    pub async fn cost(&mut self, setting: u32) -> Result<Cost> {
        let count = self.sample.len().min(2 * AT_ONCE);
        let (mut ms, mut pages) = (f64::MAX, 0.0);
        self.prepare(setting, false).await?;
        for _ in 0..5 {
            self.may_search()?;
            self.hide().await?;
            limit(self.connection, self.deadline).await?;
            let plan = self.explain("ANALYZE, BUFFERS, TIMING OFF, ", count).await.map_err(|error| self.stopped(error))?;
            ms = ms.min(plan["Execution Time"].as_f64().unwrap_or(f64::MAX) / count as f64);
            pages = pages_of(&plan["Plan"]) / count as f64;
        }
        self.prepare(setting, true).await?;
        let plan = self.explain("", 1).await?;
        // Back to what is measured.
        self.prepare(setting, false).await?;
        let is_planners_choice = scan_of(&plan["Plan"]).is_none_or(|scan| scan == self.index);
        Ok(Cost { ms, pages, is_planners_choice })
    }

    /// The pages of each of some searches.
    pub async fn pages(&mut self, setting: u32, count: usize) -> Result<Vec<f64>> {
        self.prepare(setting, false).await?;
        let statement = self.searched.statement(self.k, false);
        let mut pages = Vec::new();
        for number in 0..self.sample.len().min(count) {
            limit(self.connection, self.deadline).await?;
            let sql = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}");
            let row = pg::query(sql)
                .bind(&self.sample.vectors[number..=number])
                .bind(&self.sample.tids[number..=number])
                .fetch_one(&mut *self.connection)
                .await
                .map_err(pg::in_its_own_words)?;
            let plan: Value = row.try_get(0)?;
            pages.push(pages_of(&plan[0]["Plan"]));
            self.searches += 1;
        }
        pages.sort_by(f64::total_cmp);
        Ok(pages)
    }

    /// The lowest setting with that recall, with its cost. None: the highest one does not have it; then what that one has.
    pub async fn least(&mut self, target: f64, start: u32, most: u32) -> Result<(bool, Found)> {
        let (mut too_low, mut setting) = (0, start.clamp(1, most));
        let mut enough: Option<Found> = None;
        // Up by doubling, then between: at most 2 log2(32768) steps.
        for _ in 0..40 {
            let found = self.recall(setting).await?;
            if found.recall >= target {
                enough = Some(found);
            } else if setting == most {
                return Ok((false, found));
            } else {
                too_low = setting;
            }
            let high = enough.as_ref().map(|found| found.setting);
            setting = match high {
                Some(high) if high <= too_low + 1 => break,
                Some(high) => too_low + (high - too_low) / 2,
                None => (setting * 2).min(most),
            };
        }
        let mut found = enough.context("a search for the setting has an end")?;
        found.cost = Some(self.cost(found.setting).await?);
        Ok((true, found))
    }

    /// The least setting at which the planner thinks that a search reads all: the number of lists that the index really
    /// has. ALTER INDEX changes the catalog's number only, and without superuser nobody may read the index's first page.
    pub async fn lists(&mut self) -> Result<Option<u32>> {
        let Some(all) = self.startup_cost(32_768).await? else { return Ok(None) };
        let (mut low, mut high) = (0, 32_768);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.startup_cost(middle).await? {
                Some(cost) if cost >= all => high = middle,
                Some(_) => low = middle,
                None => return Ok(None),
            }
        }
        Ok(Some(high))
    }

    async fn startup_cost(&mut self, probes: u32) -> Result<Option<f64>> {
        self.prepare(probes, false).await?;
        let plan = self.explain("", 1).await?;
        Ok(node_with_index(&plan["Plan"], &self.index).and_then(|node| node["Startup Cost"].as_f64()))
    }

    async fn prepare(&mut self, setting: u32, is_as_an_application: bool) -> Result<()> {
        self.show().await?;
        as_an_application(self.connection, self.method, setting).await?;
        if !is_as_an_application {
            // Near the target the planner may prefer to read everything: what is asked here is what the index can do.
            pg::set(self.connection, "enable_seqscan", "off").await?;
            let (name, value) = self.method.others_at_their_dearest();
            pg::set(self.connection, name, value).await?;
        }
        self.hide().await
    }

    /// In a transaction that is never committed, so that nobody else sees it, crash or no crash. Begun anew for each step: its locks
    /// last no longer than a search's own, and an ALTER TABLE of somebody's, with all that come after it, waits no longer.
    /// Who changes the same row of pg_index waits for the rollback, and finds the row as it was.
    async fn hide(&mut self) -> Result<()> {
        let Some(oid) = self.hidden else { return Ok(()) };
        self.show().await?;
        sqlx::query("BEGIN").execute(&mut *self.connection).await?;
        self.is_hiding = true;
        sqlx::query("UPDATE pg_catalog.pg_index SET indisvalid = false WHERE indexrelid = $1::bigint::oid")
            .bind(oid)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// What was hidden is seen again, and every lock is let go.
    pub async fn show(&mut self) -> Result<()> {
        if self.is_hiding {
            sqlx::query("ROLLBACK").execute(&mut *self.connection).await?;
            self.is_hiding = false;
        }
        Ok(())
    }

    async fn prove(&mut self) -> Result<()> {
        let plan = self.explain("", 1).await?;
        match scan_of(&plan["Plan"]) {
            Some(scan) if scan != self.index => Err(Stopped::OtherPlan(scan).into()),
            _ if node_with_index(&plan["Plan"], &self.index).is_none() => {
                Err(Stopped::OtherPlan("a plan of its own".to_owned()).into())
            }
            _ => Ok(()),
        }
    }

    async fn explain(&mut self, options: &str, count: usize) -> Result<Value> {
        let sql = format!("EXPLAIN ({options}FORMAT JSON) {}", self.searched.statement(self.k, false));
        let row = pg::query(sql)
            .bind(&self.sample.vectors[..count.min(self.sample.len())])
            .bind(&self.sample.tids[..count.min(self.sample.len())])
            .fetch_one(&mut *self.connection)
            .await
            .map_err(pg::in_its_own_words)?;
        let mut plan: Value = row.try_get(0)?;
        Ok(plan[0].take())
    }

    fn may_search(&mut self) -> Result<()> {
        self.searches += self.sample.len() as u64;
        if Instant::now() >= self.deadline {
            return Err(Stopped::Time.into());
        }
        if self.searches > self.searches_at_most {
            return Err(Stopped::Searches.into());
        }
        Ok(())
    }

    fn stopped(&self, error: anyhow::Error) -> anyhow::Error {
        match pg::sql_state(&error).as_deref() {
            Some("57014") if Instant::now() >= self.deadline => Stopped::Time.into(),
            _ => error,
        }
    }
}

/// Pure. `found` has None for the row that asks.
fn recall_of(found: &[Option<f64>], truth: &[f64], k: usize) -> f64 {
    let wanted = truth.len().min(k);
    let Some(farthest) = truth.get(wanted.wrapping_sub(1)) else { return 1.0 };
    let farthest = farthest + SAME * farthest.abs().max(1.0);
    let hits = found.iter().flatten().take(k).filter(|distance| **distance <= farthest).count();
    hits.min(wanted) as f64 / wanted as f64
}

/// Pure: the mean, and half of its 95 % interval.
fn mean_and_margin(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 1.0);
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    // All alike does not mean certain: the rule of three, for a query that fails altogether.
    let margin = if variance == 0.0 { 3.0 / count } else { 1.96 * (variance / count).sqrt() };
    (mean, margin.min(1.0))
}

fn pages_of(plan: &Value) -> f64 {
    ["Shared Hit Blocks", "Shared Read Blocks", "Local Hit Blocks", "Local Read Blocks"]
        .iter()
        .filter_map(|key| plan[*key].as_f64())
        .sum()
}

fn nodes(plan: &Value) -> Vec<&Value> {
    let mut open = vec![plan];
    let mut all = Vec::new();
    while let Some(node) = open.pop() {
        all.push(node);
        open.extend(node["Plans"].as_array().into_iter().flatten());
    }
    all
}

fn node_with_index<'a>(plan: &'a Value, index: &str) -> Option<&'a Value> {
    nodes(plan).into_iter().find(|node| node["Index Name"].as_str() == Some(index))
}

/// What reads the table: an index's name, or the kind of another scan.
fn scan_of(plan: &Value) -> Option<String> {
    let node = nodes(plan).into_iter().find(|node| node["Alias"].as_str() == Some("t"))?;
    Some(node["Index Name"].as_str().or(node["Node Type"].as_str())?.to_owned())
}

/// Settings as an application has them.
pub async fn as_an_application(connection: &mut PgConnection, method: Method, setting: u32) -> Result<()> {
    pg::set(connection, method.setting(), &setting.to_string()).await?;
    pg::set(connection, "enable_seqscan", "on").await?;
    pg::execute(connection, format!("RESET {}", method.others_at_their_dearest().0)).await
}

/// What the planner would read, asked as the application does.
pub async fn applications_plan(
    connection: &mut PgConnection,
    searched: &Searched,
    vector: &str,
    k: u32,
) -> Result<Option<String>> {
    let predicate = searched.predicate.as_ref().map(|predicate| format!(" WHERE ({predicate})")).unwrap_or_default();
    let sql = format!(
        "EXPLAIN (FORMAT JSON) SELECT * FROM {relation} t{predicate} ORDER BY {key} {operator} {vector}::{column_type}{cast} LIMIT {k}",
        relation = searched.relation,
        key = searched.key,
        operator = searched.operator,
        vector = literal(vector),
        column_type = searched.column_type,
        cast = searched.key_cast,
    );
    let row = pg::query(sql).fetch_one(connection).await.map_err(pg::in_its_own_words)?;
    let plan: Value = row.try_get(0)?;
    Ok(scan_of(&plan[0]["Plan"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_that_asks_counts_for_nothing_and_duplicates_count_by_distance() {
        let truth = [0.1, 0.2, 0.2];
        assert_eq!(recall_of(&[None, Some(0.1), Some(0.2), Some(0.2)], &truth, 3), 1.0);
        // Self is not found: the first three count, and the fourth does not.
        assert_eq!(recall_of(&[Some(0.1), Some(0.2), Some(0.3), Some(0.2)], &truth, 3), 2.0 / 3.0);
        // Another row at the same distance is as good.
        assert_eq!(recall_of(&[None, Some(0.2), Some(0.2), Some(0.2)], &truth, 3), 1.0);
        assert_eq!(recall_of(&[None], &truth, 3), 0.0);
        // A table with fewer rows than k.
        assert_eq!(recall_of(&[None, Some(0.1)], &[0.1], 3), 1.0);
        assert_eq!(recall_of(&[None], &[], 3), 1.0);
        // Inner products are negative.
        assert_eq!(recall_of(&[Some(-5.0), Some(-1.0)], &[-5.0, -3.0], 2), 0.5);
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
