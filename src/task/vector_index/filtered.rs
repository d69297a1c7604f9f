//! Searches with a filter: an index finds the nearest rows of the table, and those that the filter leaves may be few or none. Each search is
//! one statement as an application sends it, with its values in it: which plan it gets depends on them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, Row as _};

use super::explained;
use super::filter::Filter;
use super::found::Found;
use super::interval::Interval;
use super::keys::VectorIndex;
use super::kind::Method;
use super::measure::{self, Sample};
use super::search;
use super::target::SearchTarget;
use crate::pg::{self, literal};

/// Queries for one filter, and the time for one way of searching.
const QUERIES: usize = 200;
const TIME: Duration = Duration::from_secs(10);
/// Plans that are looked at, and timed.
const PLANS: usize = 20;
/// Fewer queries with rows say nothing.
const FEWEST: usize = 20;
/// pgvector's default for hnsw.max_scan_tuples, and more where that is not enough.
const MAX_SCAN_TUPLES: [u32; 2] = [20_000, 200_000];

/// A way of searching with the index: pgvector's settings of iterative scans, since 0.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "scan")]
pub enum Way {
    /// As the database or the role is set today.
    Today,
    Strict {
        max_scan_tuples: Option<u32>,
    },
    Relaxed {
        max_scan_tuples: Option<u32>,
    },
}

impl Way {
    /// Returns the settings as SQL has them.
    pub fn settings(self, method: Method) -> Vec<(String, String)> {
        let (order, tuples) = match self {
            Self::Today => return Vec::new(),
            Self::Strict { max_scan_tuples } => ("strict_order", max_scan_tuples),
            Self::Relaxed { max_scan_tuples } => ("relaxed_order", max_scan_tuples),
        };
        let mut settings = vec![(format!("{method}.iterative_scan"), order.to_owned())];
        settings.extend(tuples.map(|tuples| (format!("{method}.max_scan_tuples"), tuples.to_string())));
        settings
    }

    /// Returns a number that is higher for a way that reads more.
    pub fn reads(self) -> u32 {
        match self {
            Self::Today => 0,
            Self::Strict { max_scan_tuples } | Self::Relaxed { max_scan_tuples } => max_scan_tuples.unwrap_or(1),
        }
    }

    pub fn in_words(self, method: Method) -> String {
        let settings = self.settings(method);
        match settings.is_empty() {
            true => "as applications search today".to_owned(),
            false => settings.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", "),
        }
    }
}

/// What searches with one filter find.
#[derive(Clone, Debug, Serialize)]
pub struct Filtered {
    pub filter: String,
    #[serde(flatten)]
    pub way: Way,
    #[serde(flatten)]
    pub found: Found,
    /// Searches that got fewer rows than there are, up to k.
    pub short: usize,
    /// Milliseconds of a search, the median.
    pub ms: f64,
    /// The scans that the planner chose, the commonest first.
    pub scans: Vec<String>,
}

/// What a filter needs.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    pub filter: String,
    pub today: Filtered,
    /// The other ways that were measured.
    pub others: Vec<Filtered>,
    /// An exact search without the vector index, through indexes of the filter's columns where there are any.
    pub exact_ms: f64,
    pub exact_scan: Option<String>,
    /// The fastest way that reaches the target; None: today's does.
    pub best: Option<Way>,
    pub reached: bool,
}

/// Measures the job's filters with the index as it is, at this setting of the application.
pub async fn measure(
    connection: &mut PgConnection,
    job: &VectorIndex,
    searched: &SearchTarget,
    sample: &Sample,
    (method, setting): (Method, u32),
    has_iterative_scan: bool,
) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    for filter in &job.filters.all {
        search::as_an_application(connection, method, setting).await?;
        let mut measuring = Measuring { connection: &mut *connection, job, searched, sample, filter, asked: Vec::new() };
        let verdict = measuring.verdict((method, setting), has_iterative_scan).await;
        for name in ["iterative_scan", "max_scan_tuples"] {
            // Not every version knows it.
            let _ = pg::execute(connection, format!("RESET {method}.{name}")).await;
        }
        verdicts.extend(verdict.with_context(|| format!("searches with the filter {}", filter.text))?);
    }
    Ok(verdicts)
}

struct Measuring<'a> {
    connection: &'a mut PgConnection,
    job: &'a VectorIndex,
    searched: &'a SearchTarget,
    sample: &'a Sample,
    filter: &'a Filter,
    /// Queries with a condition, and their true neighbours among the rows that it leaves.
    asked: Vec<Asked>,
}

struct Asked {
    number: usize,
    condition: String,
    truth: Vec<f64>,
}

impl Measuring<'_> {
    /// None: no value of the filter's columns is known.
    async fn verdict(&mut self, (method, setting): (Method, u32), has_iterative_scan: bool) -> Result<Option<Verdict>> {
        let (exact_ms, exact_scan) = self.find_truth().await?;
        if self.asked.is_empty() {
            return Ok(None);
        }
        let today = self.way(Way::Today, method, setting).await?;
        let target = self.job.recall.target;
        let mut verdict = Verdict {
            filter: self.filter.text.clone(),
            reached: today.found.reaches(target),
            today,
            others: Vec::new(),
            exact_ms,
            exact_scan,
            best: None,
        };
        if verdict.reached || !has_iterative_scan {
            return Ok(Some(verdict));
        }
        for way in ways(method) {
            let measured = self.way(way, method, setting).await?;
            verdict.others.push(measured);
            // What reads more is slower.
            if is_enough(&verdict.others, way, target) {
                break;
            }
        }
        let reached = verdict.others.iter().filter(|one| one.found.reaches(target));
        verdict.best = reached.min_by(|one, other| one.ms.total_cmp(&other.ms)).map(|best| best.way);
        verdict.reached = verdict.best.is_some();
        Ok(Some(verdict))
    }

    /// Finds the true neighbours among the rows that the filter leaves. Returns milliseconds of such a search, and the scan that it uses.
    async fn find_truth(&mut self) -> Result<(f64, Option<String>)> {
        // Without index scans, which are the only ones of pgvector's methods, a bitmap of another index is still possible.
        for name in ["enable_indexscan", "enable_indexonlyscan"] {
            pg::set(self.connection, name, "off").await?;
        }
        let (started, mut times, mut scan) = (Instant::now(), Vec::new(), None);
        for number in 0..self.sample.vectors.len() {
            if self.asked.len() >= QUERIES || started.elapsed() > TIME {
                break;
            }
            let values = self.sample.values.get(number).map(Vec::as_slice).unwrap_or_default();
            let Some(condition) = self.filter.with(values) else { continue };
            let sql = self.statement(number, &condition, true);
            if scan.is_none() {
                scan = self.plan(&sql, "").await?.as_ref().and_then(|plan| explained::scan_of(&plan["Plan"]));
            }
            let began = Instant::now();
            let found = self.distances(&sql).await?;
            times.push(began.elapsed().as_secs_f64() * 1000.0);
            let truth: Vec<f64> = found.into_iter().flatten().filter(|distance| !distance.is_nan()).collect();
            // A search that nothing answers cannot miss anything.
            if !truth.is_empty() {
                self.asked.push(Asked { number, condition, truth });
            }
        }
        for name in ["enable_indexscan", "enable_indexonlyscan"] {
            pg::set(self.connection, name, "on").await?;
        }
        pg::set(self.connection, "statement_timeout", "0").await?;
        Ok((median(&mut times), scan))
    }

    async fn way(&mut self, way: Way, method: Method, setting: u32) -> Result<Filtered> {
        for (name, value) in way.settings(method) {
            pg::set(self.connection, &name, &value).await?;
        }
        let (k, unit) = (self.job.recall.k as usize, self.searched.unit());
        let (mut recalls, mut times, mut short, mut scans) = (Vec::new(), Vec::new(), 0, Vec::new());
        let started = Instant::now();
        for place in 0..self.asked.len() {
            if recalls.len() >= FEWEST && started.elapsed() > TIME {
                break;
            }
            let (number, condition) = (self.asked[place].number, self.asked[place].condition.clone());
            let sql = self.statement(number, &condition, false);
            let found = self.distances(&sql).await?;
            let truth = &self.asked[place].truth;
            short += usize::from(found.iter().flatten().take(k).count() < truth.len().min(k));
            recalls.push(measure::recall_of(&found, truth, k, unit));
            if place < PLANS
                && let Some(plan) = self.plan(&sql, "ANALYZE, TIMING OFF, ").await?
            {
                times.extend(plan["Execution Time"].as_f64());
                scans.extend(explained::scan_of(&plan["Plan"]));
            }
        }
        pg::set(self.connection, "statement_timeout", "0").await?;
        let interval = Interval::of(&recalls);
        let mut found = Found::of(setting, &interval, recalls.len());
        found.cost = None;
        Ok(Filtered { filter: self.filter.text.clone(), way, found, short, ms: median(&mut times), scans: by_frequency(scans) })
    }

    fn statement(&self, number: usize, condition: &str, exactly: bool) -> String {
        let vector = literal(&self.sample.vectors[number]);
        let own = self.sample.tids[number].as_deref().map(literal);
        self.searched.filtered_statement(&vector, own.as_deref(), condition, self.job.recall.k, exactly)
    }

    /// Distances that a statement finds; None for the query's own row.
    async fn distances(&mut self, sql: &str) -> Result<Vec<Option<f64>>> {
        measure::limit(self.connection, self.searched, Instant::now() + TIME).await?;
        let rows =
            pg::query(sql.to_owned()).persistent(false).fetch_all(&mut *self.connection).await.map_err(pg::in_its_own_words)?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    async fn plan(&mut self, sql: &str, options: &str) -> Result<Option<Value>> {
        measure::limit(self.connection, self.searched, Instant::now() + TIME).await?;
        let sql = format!("EXPLAIN ({options}FORMAT JSON) {sql}");
        let row = pg::query(sql).persistent(false).fetch_one(&mut *self.connection).await.map_err(pg::in_its_own_words)?;
        let plan: Value = row.try_get(0)?;
        Ok(plan.get(0).cloned())
    }
}

/// Returns the ways to try, those that read least first. ivfflat has no strict order.
fn ways(method: Method) -> Vec<Way> {
    let [few, many] = MAX_SCAN_TUPLES;
    match method {
        Method::Ivfflat => vec![Way::Relaxed { max_scan_tuples: None }],
        Method::Hnsw => vec![
            Way::Relaxed { max_scan_tuples: Some(few) },
            Way::Strict { max_scan_tuples: Some(few) },
            Way::Relaxed { max_scan_tuples: Some(many) },
            Way::Strict { max_scan_tuples: Some(many) },
        ],
    }
}

/// Returns whether those after `way` would only read more than what reached the target: both orders with the fewer rows come first.
fn is_enough(measured: &[Filtered], way: Way, target: f64) -> bool {
    matches!(way, Way::Strict { .. }) && measured.iter().any(|one| one.found.reaches(target))
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

impl Filtered {
    fn in_words(&self, method: Method) -> String {
        format!(
            "{}: {}, {} of {} searches short of rows, {:.2} ms{}",
            self.way.in_words(method),
            super::decide::recall_in_words(&self.found),
            self.short,
            self.found.queries,
            self.ms,
            self.scans.first().map(|scan| format!(" by {scan}")).unwrap_or_default()
        )
    }
}

impl Verdict {
    /// Lines for a plan or a report.
    pub fn lines(&self, method: Method) -> Vec<String> {
        let mut lines = vec![format!("with {}: {}", self.filter, self.today.in_words(method))];
        lines.extend(self.others.iter().map(|other| format!("  {}", other.in_words(method))));
        if !self.others.is_empty() {
            let by = self.exact_scan.as_ref().map(|scan| format!(" by {scan}")).unwrap_or_default();
            lines.push(format!("  an exact search of the rows that it leaves takes {:.2} ms{by}", self.exact_ms));
        }
        lines
    }

    /// Says what is missing, and what helps, where no way reaches the target.
    pub fn failure(&self, method: Method, target: f64) -> Option<String> {
        if self.reached {
            return None;
        }
        let best = self.others.iter().max_by(|one, other| one.found.lower.total_cmp(&other.found.lower));
        let best = best.map(|best| format!("; at best {}", best.in_words(method))).unwrap_or_default();
        Some(format!(
            "searches with {} miss the target of {target}: {}{best}. {}",
            self.filter,
            self.today.in_words(method),
            self.advice(method)
        ))
    }

    /// What a person can do: without the vector index, or with one for each value.
    fn advice(&self, method: Method) -> String {
        let columns = "the filter's columns";
        let exact = match &self.exact_scan {
            Some(scan) if !scan.contains("Seq Scan") => format!(
                "An exact search by {scan} takes {:.2} ms: ORDER BY (… <=> $1) + 0 makes the planner use it",
                self.exact_ms
            ),
            _ => format!("An index on {columns} lets searches for few rows be exact (now {:.2} ms)", self.exact_ms),
        };
        let older = if self.others.is_empty() { "; pgvector 0.8 has iterative scans: ALTER EXTENSION vector UPDATE" } else { "" };
        format!(
            "{exact}; a partial {method} index for each frequent value ({}), or a table partitioned by {columns}, finds more{older}",
            self.filter
        )
    }
}
