//! Searches with a filter: an index finds the nearest rows of the table, and those that the filter leaves may be few or none. Each search is
//! one statement as an application sends it, with its values in it: which plan it gets depends on them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use sqlx::{PgConnection, Row as _};

use super::filter::Filter;
use super::found::Found;
use super::interval::Interval;
use super::keys::VectorIndex;
use super::kind::Method;
use super::measure::{self, Sample};
use super::target::SearchTarget;
use super::verdict::{Filtered, Verdict};
use super::ways::{self, Present, Way};
use super::{explained, search, setting};
use crate::base::units;
use crate::pg::{self, literal};

/// Queries for one filter.
const QUERIES: usize = 200;
/// Plans that are looked at, and timed.
const PLANS: usize = 20;
/// With fewer queries that find a row, a filter was not measured.
const FEWEST: usize = 20;
/// The part of a measurement's time for one way of searching: ten seconds, where the job does not say otherwise.
const SHARE_OF_TIME: u32 = 12;

/// Measures the job's filters with the index as it is, at this setting of the application. pgvector has to be loaded.
pub async fn measure(
    connection: &mut PgConnection,
    job: &VectorIndex,
    searched: &SearchTarget,
    sample: &Sample,
    (method, setting): (Method, u32),
    has_iterative_scan: bool,
) -> Result<Vec<Verdict>> {
    setting::as_applications(connection, job.role()).await?;
    let present = match has_iterative_scan {
        true => Some(Present::read(connection, method).await?),
        false => None,
    };
    let time = (job.recall.time.0 / SHARE_OF_TIME).max(Duration::from_secs(1));
    let mut verdicts = Vec::new();
    for filter in &job.filters.all {
        search::as_an_application(connection, method, setting).await?;
        let asked = Vec::new();
        let mut measuring =
            Measuring { connection: &mut *connection, job, searched, sample, filter, method, setting, time, asked };
        let verdict = measuring.verdict(present).await.with_context(|| format!("searches with the filter {}", filter.text))?;
        verdicts.push(verdict);
        // The ways changed them.
        setting::as_applications(connection, job.role()).await?;
    }
    Ok(verdicts)
}

struct Measuring<'a> {
    connection: &'a mut PgConnection,
    job: &'a VectorIndex,
    searched: &'a SearchTarget,
    sample: &'a Sample,
    filter: &'a Filter,
    method: Method,
    setting: u32,
    /// For one way of searching, and for one search at most.
    time: Duration,
    /// Queries with a condition, and their true neighbours among the rows that it leaves.
    asked: Vec<Asked>,
}

struct Asked {
    number: usize,
    condition: String,
    truth: Vec<f64>,
}

/// What became of the exact searches with a filter.
#[derive(Default)]
struct Exactly {
    /// Queries that have values for it.
    with_values: usize,
    searched: usize,
    is_out_of_time: bool,
    times: Vec<f64>,
    scan: Option<String>,
}

impl Measuring<'_> {
    async fn verdict(&mut self, present: Option<Present>) -> Result<Verdict> {
        let mut exactly = self.find_truth().await?;
        let mut verdict = Verdict {
            filter: self.filter.text.clone(),
            exact_ms: median(&mut exactly.times),
            exact_scan: exactly.scan.take(),
            ..Verdict::default()
        };
        if self.asked.len() < FEWEST {
            verdict.unmeasured = Some(self.why_unmeasured(&exactly));
            return Ok(verdict);
        }
        let target = self.job.recall.target;
        let Some(today) = self.way(Way::Today).await? else {
            verdict.unmeasured = Some(format!(
                "searches as applications make them take too long: fewer than {FEWEST} finished in {} (a {SHARE_OF_TIME}th of `time` of `recall`)",
                units::duration(self.time)
            ));
            return Ok(verdict);
        };
        verdict.reached = today.found.reaches(target);
        verdict.today = Some(today);
        let Some(present) = present.filter(|_| !verdict.reached) else { return Ok(verdict) };
        for group in present.ways(self.method) {
            for way in group {
                let measured = self.way(way).await?;
                verdict.others.extend(measured);
            }
            // What reads more is slower.
            if verdict.others.iter().any(|one| one.found.reaches(target)) {
                break;
            }
        }
        let reached = verdict.others.iter().filter(|one| one.found.reaches(target));
        verdict.best = ways::preferred(reached.map(|one| (one.way, one.pages)));
        verdict.reached = verdict.best.is_some();
        verdict.kept = present.kept(self.method);
        Ok(verdict)
    }

    /// Says why too few queries with the filter have an answer.
    fn why_unmeasured(&self, exactly: &Exactly) -> String {
        let columns = self.filter.columns_of(&self.job.filters).join(", ");
        let answered = self.asked.len();
        if exactly.with_values == 0 {
            return format!(
                "none of {} has a value of {columns} for it: the rows have NULL there, or the questions of [vector_index.queries] have no such column",
                units::plural(self.sample.vectors.len(), "query")
            );
        }
        if exactly.is_out_of_time {
            return format!(
                "only {} with it finished in {} (a {SHARE_OF_TIME}th of `time` of `recall`), and {FEWEST} are needed: raise `time`, or create an index on the filter's columns",
                units::plural(exactly.searched, "exact search"),
                units::duration(self.time)
            );
        }
        let value = match columns.is_empty() {
            true => String::new(),
            false => format!(
                ". Its parameters are values of {columns}, as they are; where it compares something that is made of a column, `sql` of [vector_index.queries] can return that by the column's name"
            ),
        };
        format!("{answered} of {} with it found a row, and {FEWEST} are needed{value}", units::plural(exactly.searched, "search"))
    }

    /// Finds the true neighbours among the rows that the filter leaves.
    async fn find_truth(&mut self) -> Result<Exactly> {
        // Without index scans, which are the only ones of pgvector's methods, a bitmap of another index is still possible.
        for name in ["enable_indexscan", "enable_indexonlyscan"] {
            pg::set(self.connection, name, "off").await?;
        }
        let exactly = self.search_exactly().await;
        for name in ["enable_indexscan", "enable_indexonlyscan"] {
            pg::set(self.connection, name, "on").await?;
        }
        pg::set(self.connection, "statement_timeout", "0").await?;
        exactly
    }

    async fn search_exactly(&mut self) -> Result<Exactly> {
        let mut exactly = Exactly::default();
        let started = Instant::now();
        for number in 0..self.sample.vectors.len() {
            let values = self.sample.values.get(number).map(Vec::as_slice).unwrap_or_default();
            let Some(condition) = self.filter.with(values) else { continue };
            exactly.with_values += 1;
            exactly.is_out_of_time = started.elapsed() > self.time;
            if self.asked.len() >= QUERIES || exactly.is_out_of_time {
                break;
            }
            let sql = self.statement(number, &condition, true);
            if exactly.scan.is_none() {
                exactly.scan = self.plan(&sql, "").await?.as_ref().and_then(|plan| explained::scan_of(&plan["Plan"]));
            }
            let began = Instant::now();
            let Some(found) = in_time(self.distances(&sql).await)? else {
                exactly.is_out_of_time = true;
                break;
            };
            exactly.searched += 1;
            exactly.times.push(began.elapsed().as_secs_f64() * 1000.0);
            let truth: Vec<f64> = found.into_iter().flatten().collect();
            // A search that nothing answers cannot miss anything, and distances beyond all numbers are no measurement.
            if !truth.is_empty() && truth.iter().all(|distance| distance.is_finite()) {
                self.asked.push(Asked { number, condition, truth });
            }
        }
        Ok(exactly)
    }

    /// None: fewer searches than say something finished in time.
    async fn way(&mut self, way: Way) -> Result<Option<Filtered>> {
        for (name, value) in way.settings(self.method) {
            pg::set(self.connection, &name, &value).await?;
        }
        let (k, unit) = (self.job.recall.k as usize, self.searched.unit());
        let (mut recalls, mut times, mut pages, mut short, mut scans) = (Vec::new(), Vec::new(), Vec::new(), 0, Vec::new());
        let started = Instant::now();
        for place in 0..self.asked.len() {
            if recalls.len() >= FEWEST && started.elapsed() > self.time {
                break;
            }
            let (number, condition) = (self.asked[place].number, self.asked[place].condition.clone());
            let sql = self.statement(number, &condition, false);
            let Some(found) = in_time(self.distances(&sql).await)? else { break };
            let truth = &self.asked[place].truth;
            short += usize::from(found.iter().flatten().take(k).count() < truth.len().min(k));
            recalls.push((measure::recall_of(&found, truth, k, unit), self.sample.times(number)));
            if place < PLANS
                && let Some(Some(plan)) = in_time(self.plan(&sql, "ANALYZE, BUFFERS, TIMING OFF, ").await)?
            {
                times.extend(plan["Execution Time"].as_f64());
                pages.push(explained::pages_of(&plan["Plan"]));
                scans.extend(explained::scan_of(&plan["Plan"]));
            }
        }
        pg::set(self.connection, "statement_timeout", "0").await?;
        if recalls.len() < FEWEST {
            return Ok(None);
        }
        let found = Found::of(self.setting, &Interval::of_weighed(&recalls), recalls.len());
        let filter = self.filter.text.clone();
        Ok(Some(Filtered {
            filter,
            way,
            found,
            short,
            ms: median(&mut times),
            pages: median(&mut pages),
            scans: by_frequency(scans),
        }))
    }

    fn statement(&self, number: usize, condition: &str, exactly: bool) -> String {
        let vector = literal(&self.sample.vectors[number]);
        let own = self.sample.tids[number].as_deref().map(literal);
        self.searched.filtered_statement(&vector, own.as_deref(), condition, self.job.recall.k, exactly)
    }

    /// Distances that a statement finds; None for the query's own row.
    async fn distances(&mut self, sql: &str) -> Result<Vec<Option<f64>>> {
        measure::limit(self.connection, self.searched, Instant::now() + self.time).await?;
        let rows =
            pg::query(sql.to_owned()).persistent(false).fetch_all(&mut *self.connection).await.map_err(pg::in_its_own_words)?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn plan(&mut self, sql: &str, options: &str) -> Result<Option<Value>> {
        measure::limit(self.connection, self.searched, Instant::now() + self.time).await?;
        let sql = format!("EXPLAIN ({options}FORMAT JSON) {sql}");
        let row = pg::query(sql).persistent(false).fetch_one(&mut *self.connection).await.map_err(pg::in_its_own_words)?;
        let plan: Value = row.try_get(0)?;
        Ok(plan.get(0).cloned())
    }
}

/// Returns None where the statement took longer than it may.
fn in_time<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if pg::sql_state(&error).as_deref() == Some("57014") => Ok(None),
        Err(error) => Err(error),
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

fn by_frequency(scans: Vec<String>) -> Vec<String> {
    let mut counted: Vec<(usize, String)> = Vec::new();
    for scan in scans {
        match counted.iter_mut().find(|(_, known)| *known == scan) {
            Some((count, _)) => *count += 1,
            None => counted.push((1, scan)),
        }
    }
    counted.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    counted.into_iter().map(|(_, scan)| scan).collect()
}
