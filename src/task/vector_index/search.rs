//! Searches with an index: recall, time and pages at a setting, and the lowest setting that is enough. EXPLAIN proves that the index
//! answered: a sequential scan would score 1.0.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;
use sqlx::{PgConnection, Row as _};

use super::curve::Curve;
use super::effort::Effort;
use super::explained::{node_with_index, pages_of, scan_of};
use super::found::{Cost, Found};
use super::interval::Interval;
use super::kind::Method;
use super::measure::{self, AT_ONCE, ENOUGH, MIN_QUERIES, Sample};
use super::spec::Spec;
use super::target::SearchTarget;
use crate::pg::{self, literal};

/// The number of rounds of a hundred searches for measuring time.
const TURNS: u32 = 5;
const MAX_TURNS: u32 = 25;
const TIME_FOR_MORE_TURNS: Duration = Duration::from_millis(500);
/// A recall this many margins away from the target is clearly below or above it: two margins are four standard errors.
const BEYOND_DOUBT: f64 = 2.0;
const FEWEST: usize = 50;

/// Searches with an index at a setting.
pub struct Searcher<'a> {
    pub connection: &'a mut PgConnection,
    pub searched: &'a SearchTarget,
    pub sample: &'a Sample,
    pub k: u32,
    pub method: Method,
    /// An index that the planner would prefer and that is hidden from it. Only superusers can do that.
    pub hidden: Option<i64>,
    pub is_hiding: bool,
    /// The name of the index that must answer.
    pub index: String,
    pub deadline: Instant,
    /// What its searches read: it says how many of them are asked.
    pub effort: Effort,
    /// The parameters of the index, as far as they are known.
    pub spec: Spec,
    /// The number of searches so far, and its limit.
    pub searches: u64,
    pub max_searches: u64,
    /// What was found at each setting, and how fast.
    pub curve: Curve,
}

/// The reason why a measurement ended early.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error("the time for measuring is over")]
    Time,
    #[error("the number of searches for measuring is used up")]
    Searches,
    #[error("too many rows changed during the measurement")]
    Moved,
    #[error("the planner used {0} instead of the index")]
    OtherPlan(String),
    #[error("{0}")]
    Strain(String),
}

impl Searcher<'_> {
    pub async fn recall(&mut self, setting: u32) -> Result<Found> {
        self.recall_until(setting, None).await
    }

    /// With a target, it stops as soon as the recall is clearly above or below the target.
    async fn recall_until(&mut self, setting: u32, target: Option<f64>) -> Result<Found> {
        self.prepare(setting, false).await?;
        self.prove(setting).await?;
        let statement = self.searched.statement(self.k, setting);
        let mut recalls = Vec::with_capacity(self.sample.len());
        let most = self.effort.searches(self.spec, setting, self.k, self.sample.len());
        let mut fastest = Duration::MAX;
        for start in (0..most).step_by(AT_ONCE) {
            if is_enough(&recalls, target) {
                break;
            }
            let range = start..(start + AT_ONCE).min(most);
            self.may_search(range.len())?;
            self.hide().await?;
            measure::limit(self.connection, self.searched, self.deadline).await?;
            let began = Instant::now();
            let found = measure::distances(self.connection, &statement, self.sample, range.clone())
                .await
                .map_err(|error| self.stopped(error))?;
            fastest = fastest.min(began.elapsed() / found.len().max(1) as u32);
            let are_there = measure::are_there(self.connection, self.searched, self.sample, range)
                .await
                .map_err(|error| self.stopped(error))?;
            for (number, (found, is_there)) in (start..).zip(found.iter().zip(are_there)) {
                if is_there {
                    let recall = measure::recall_of(found, &self.sample.truth[number], self.k as usize, self.searched.unit());
                    recalls.push((recall, self.sample.times(number)));
                }
            }
        }
        if recalls.len() < MIN_QUERIES.min(self.sample.len()) {
            return Err(Stopped::Moved.into());
        }
        let found = Found::of(setting, &Interval::of_weighed(&recalls), recalls.len());
        self.curve.add(setting, found.recall, found.queries, fastest);
        Ok(found)
    }

    /// Measures a few settings more, around the lowest one that is enough, as far as there is time.
    pub async fn measure_the_curve(&mut self, least: u32, max_setting: u32) -> Result<()> {
        for setting in self.curve.missing(least, (self.method.min_setting(self.k), max_setting)) {
            match self.recall(setting).await {
                Err(error) if error.downcast_ref::<Stopped>().is_some() => break,
                found => _ = found?,
            }
        }
        Ok(())
    }

    /// Returns time and pages at a setting: the best round counts, so that a busy machine is not taken for a slow index. Five rounds, and more
    /// where they are quick: for the same index, the best of five was 0.24 or 0.29 ms.
    pub async fn cost(&mut self, setting: u32) -> Result<Cost> {
        let count = self.sample.len().min(2 * AT_ONCE);
        let (mut ms, mut pages) = (f64::MAX, 0.0);
        self.prepare(setting, false).await?;
        let started = Instant::now();
        for turn in 0..MAX_TURNS {
            if turn >= TURNS && started.elapsed() > TIME_FOR_MORE_TURNS {
                break;
            }
            self.may_search(count)?;
            self.hide().await?;
            measure::limit(self.connection, self.searched, self.deadline).await?;
            let plan =
                self.explain("ANALYZE, BUFFERS, TIMING OFF, ", setting, count).await.map_err(|error| self.stopped(error))?;
            ms = ms.min(plan["Execution Time"].as_f64().unwrap_or(f64::MAX) / count as f64);
            pages = pages_of(&plan["Plan"]) / count as f64;
        }
        self.prepare(setting, true).await?;
        let plan = self.explain("", setting, 1).await?;
        // Restores the settings of the measurement.
        self.prepare(setting, false).await?;
        let scan = scan_of(&plan["Plan"]);
        let is_read_whole = scan.as_deref().is_some_and(|scan| scan.contains("Seq Scan"));
        let work = self.effort.work(self.spec, pages);
        Ok(Cost { ms, pages, work, is_planners_choice: scan.is_none_or(|scan| scan == self.index), is_read_whole })
    }

    /// Returns the number of pages that each of some searches reads.
    pub async fn pages(&mut self, setting: u32, count: usize) -> Result<Vec<f64>> {
        self.prepare(setting, false).await?;
        self.prove(setting).await?;
        let statement = self.searched.statement(self.k, setting);
        let mut pages = Vec::new();
        for number in 0..self.sample.len().min(count) {
            measure::limit(self.connection, self.searched, self.deadline).await?;
            let sql = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}");
            let row = pg::query(sql)
                .bind(&self.sample.vectors[number..=number])
                .bind(&self.sample.tids[number..=number])
                .fetch_one(&mut *self.connection)
                .await
                .map_err(|error| self.stopped(pg::in_its_own_words(error)))?;
            let plan: Value = row.try_get(0)?;
            pages.push(pages_of(&plan[0]["Plan"]));
            self.searches += 1;
        }
        pages.sort_by(f64::total_cmp);
        Ok(pages)
    }

    /// Returns the lowest setting with that recall, and its cost; false and the highest setting if even that one does not reach it.
    pub async fn least(&mut self, target: f64, start: u32, max_setting: u32) -> Result<(bool, Found)> {
        let least = self.method.min_setting(self.k).min(max_setting);
        let (mut too_low, mut setting) = (least - 1, start.clamp(least, max_setting));
        let mut enough: Option<Found> = None;
        // A few queries may be more hopeful than all of them: from then on all are asked.
        let mut asks_all = false;
        // First it doubles the setting, then it bisects: at most 2 log2(32768) steps, and some more for a setting that was enough for a few
        // queries only.
        for _ in 0..60 {
            let found = self.recall_until(setting, Some(target).filter(|_| !asks_all)).await?;
            if found.reaches(target) {
                enough = Some(found);
            } else if setting == max_setting {
                return Ok((false, found));
            } else {
                too_low = setting;
            }
            setting = match &enough {
                None => (setting * 2).min(max_setting),
                Some(high) if high.setting > too_low + 1 => too_low + (high.setting - too_low) / 2,
                Some(high) => {
                    // Reported values use more samples than the search did.
                    let mut found = high.clone();
                    if found.queries < ENOUGH.min(self.sample.len()) {
                        found = self.recall(found.setting).await?;
                    }
                    if found.reaches(target) {
                        found.cost = Some(self.cost(found.setting).await?);
                        return Ok((true, found));
                    }
                    if found.setting == max_setting {
                        return Ok((false, found));
                    }
                    (enough, too_low, asks_all) = (None, found.setting, true);
                    (found.setting * 2).min(max_setting)
                }
            };
        }
        anyhow::bail!("no lowest setting was found: the recall at one setting varies between measurements")
    }

    /// Returns the lowest setting at which the planner expects a search to read everything: the number of lists that the index really has. ALTER
    /// INDEX changes only the catalog, and only a superuser can read the index's first page.
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
        let plan = self.explain("", probes, 1).await?;
        Ok(node_with_index(&plan["Plan"], &self.index).and_then(|node| node["Startup Cost"].as_f64()))
    }

    async fn prepare(&mut self, setting: u32, is_as_an_application: bool) -> Result<()> {
        self.show().await?;
        match is_as_an_application {
            true => as_an_application(self.connection, self.method, setting).await?,
            false => by_index_alone(self.connection, self.method, setting, self.k).await?,
        }
        self.hide().await
    }

    /// Hides the index, in a transaction of its own for each step: its locks last no longer than those of a search, so that an ALTER TABLE, and
    /// every session queued behind it, waits no longer.
    async fn hide(&mut self) -> Result<()> {
        let Some(oid) = self.hidden else { return Ok(()) };
        self.show().await?;
        self.is_hiding = true;
        hide(self.connection, &self.searched.relation, oid).await
    }

    /// Makes the hidden index visible again and releases every lock.
    pub async fn show(&mut self) -> Result<()> {
        if self.is_hiding {
            show_again(self.connection).await?;
            self.is_hiding = false;
        }
        Ok(())
    }

    async fn prove(&mut self, setting: u32) -> Result<()> {
        let plan = self.explain("", setting, 1).await?;
        is_by(&plan["Plan"], &self.index).map_err(Into::into)
    }

    async fn explain(&mut self, options: &str, setting: u32, count: usize) -> Result<Value> {
        pg::execute(self.connection, self.searched.proof.clone()).await?;
        let sql = format!("EXPLAIN ({options}FORMAT JSON) {}", self.searched.statement(self.k, setting));
        let row = pg::query(sql)
            .bind(&self.sample.vectors[..count.min(self.sample.len())])
            .bind(&self.sample.tids[..count.min(self.sample.len())])
            .fetch_one(&mut *self.connection)
            .await
            .map_err(pg::in_its_own_words)?;
        let mut plan: Value = row.try_get(0)?;
        Ok(plan[0].take())
    }

    fn may_search(&mut self, count: usize) -> Result<()> {
        self.searches += count as u64;
        if Instant::now() >= self.deadline {
            return Err(Stopped::Time.into());
        }
        if self.searches > self.max_searches {
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

/// Returns whether more searches would add nothing: the recall is clearly above or below the target. Pure.
fn is_enough(recalls: &[(f64, f64)], target: Option<f64>) -> bool {
    let is_clear = |target: f64| {
        let interval = Interval::of_weighed(recalls);
        (interval.mean - target).abs() > BEYOND_DOUBT * interval.margin()
    };
    recalls.len() >= FEWEST && target.is_some_and(is_clear)
}

/// Returns an error where the index did not answer.
pub fn is_by(plan: &Value, index: &str) -> Result<(), Stopped> {
    match scan_of(plan) {
        Some(scan) if scan != index => Err(Stopped::OtherPlan(scan)),
        _ if node_with_index(plan, index).is_none() => Err(Stopped::OtherPlan("a plan of its own".to_owned())),
        _ => Ok(()),
    }
}

/// Applies the settings that an application has.
pub async fn as_an_application(connection: &mut PgConnection, method: Method, setting: u32) -> Result<()> {
    pg::set(connection, method.setting(), &setting.to_string()).await?;
    pg::set(connection, "enable_seqscan", "on").await?;
    pg::execute(connection, format!("RESET {}", method.disable_other_method().0)).await
}

/// Applies the settings by which an index of the method answers, and no other.
pub async fn by_index_alone(connection: &mut PgConnection, method: Method, setting: u32, k: u32) -> Result<()> {
    // The query's own row is found, too: hnsw, which returns no more rows than this, needs room for it.
    let room = u32::from(method == Method::Hnsw && setting <= k);
    as_an_application(connection, method, setting + room).await?;
    // Near the target the planner may prefer a full scan; the measurement is about the index.
    pg::set(connection, "enable_seqscan", "off").await?;
    let (name, value) = method.disable_other_method();
    pg::set(connection, name, value).await
}

/// Hides an index in a transaction that is never committed, so that no other session sees it, even after a crash. A session that changes the same row
/// of pg_index waits for the rollback, and finds the row unchanged.
pub async fn hide(connection: &mut PgConnection, relation: &str, oid: i64) -> Result<()> {
    sqlx::query("BEGIN").execute(&mut *connection).await?;
    // It locks the table first, as DDL does; otherwise the two could deadlock.
    pg::execute(connection, format!("LOCK TABLE {relation} IN ACCESS SHARE MODE")).await?;
    sqlx::query("UPDATE pg_catalog.pg_index SET indisvalid = false WHERE indexrelid = $1::bigint::oid")
        .bind(oid)
        .execute(connection)
        .await?;
    Ok(())
}

/// Makes hidden indexes visible again and releases every lock.
pub async fn show_again(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("ROLLBACK").execute(connection).await?;
    Ok(())
}

/// Returns the scan that the planner chooses for the query of an application. `rows`: that it asks of the index.
pub async fn applications_plan(
    connection: &mut PgConnection,
    searched: &SearchTarget,
    vector: &str,
    rows: u32,
) -> Result<Option<String>> {
    let predicate = searched.predicate.as_ref().map(|predicate| format!(" WHERE ({predicate})")).unwrap_or_default();
    let order = searched.order("t.", &format!("{}::{}", literal(vector), searched.column_type));
    let sql = format!("EXPLAIN (FORMAT JSON) SELECT * FROM {} t{predicate} ORDER BY {order} LIMIT {rows}", searched.relation);
    pg::execute(connection, searched.proof.clone()).await?;
    let row = pg::query(sql).fetch_one(connection).await.map_err(pg::in_its_own_words)?;
    let plan: Value = row.try_get(0)?;
    Ok(scan_of(&plan[0]["Plan"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_end_where_they_say_nothing_new() {
        let recalls = |mean: f64, count: usize| -> Vec<(f64, f64)> {
            (0..count).map(|number| (if number % 2 == 0 { mean - 0.1 } else { mean + 0.1 }, 1.0)).collect()
        };
        // Half of it, beyond doubt; but not after a few.
        assert!(is_enough(&recalls(0.5, 50), Some(0.95)));
        assert!(!is_enough(&recalls(0.5, 49), Some(0.95)));
        // Near the target, as many as there are.
        assert!(!is_enough(&recalls(0.94, 100), Some(0.95)));
        assert!(!is_enough(&recalls(0.948, 900), Some(0.95)));
        // All found: more than fifty are needed to be sure of 0.95.
        assert!(!is_enough(&[(1.0, 1.0); 60], Some(0.95)));
        assert!(is_enough(&[(1.0, 1.0); 150], Some(0.95)));
        // A search at a given setting has no target.
        assert!(!is_enough(&recalls(0.5, 500), None));
    }
}
