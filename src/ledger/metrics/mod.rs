//! Prometheus metrics: of this process, under `/metrics` of `serve`, or of one run, as a textfile for node_exporter.

mod facts;
mod fleets;
mod labels;
mod textfile;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use chrono::{DateTime, Utc};
use facts::{Facts, Known};
use fleets::Fleets;
use labels::{JobLabels, Seconds, labels};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::base::fault::Kind;
use crate::base::progress::Progress;
use crate::ledger::Ledger;
use crate::ledger::report::{Outcome, Report, Run};
use crate::pg::failure;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    job: String,
    database: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FleetLabels {
    job: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    server: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// The buckets reach from a second to half a day.
#[derive(Clone)]
struct RunSeconds;

impl MetricConstructor<Histogram> for RunSeconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new([1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0])
    }
}

/// Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    runs: Family<OutcomeLabels, Counter>,
    run_seconds: Family<JobLabels, Histogram, RunSeconds>,
    last_success: Family<JobLabels, Seconds>,
    next_run: Family<JobLabels, Seconds>,
    running: Family<JobLabels, Gauge>,
    progress: Family<JobLabels, Seconds>,
    /// The progress of the runs under way.
    under_way: Arc<Mutex<Vec<(JobLabels, Progress)>>>,
    late: Family<JobLabels, Gauge>,
    facts: Facts,
    /// The jobs with patterns, whose values these series sum up.
    fleets: Fleets,
    fleet_databases: Family<FleetLabels, Gauge>,
    fleet_left_out: Gauge,
    server_up: Family<ServerLabels, Gauge>,
    /// Those that have a series.
    servers: Arc<Mutex<BTreeSet<String>>>,
    errors: Family<KindLabels, Counter>,
    ledger_up: Gauge,
    pool: Family<StateLabels, Gauge>,
    reload_success: Gauge,
    broken_jobs: Gauge,
}

/// A run under way; dropping it ends that.
pub struct Running {
    gauge: Gauge,
    metrics: Metrics,
    labels: JobLabels,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gauge.dec();
        let mut under_way = self.metrics.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = under_way.iter().position(|(labels, _)| *labels == self.labels) {
            under_way.swap_remove(place);
        }
        if let Some(ratio) = self.metrics.progress.get(&self.labels) {
            ratio.set(0.0);
        }
    }
}

impl Metrics {
    pub fn new(ledger: Option<&Ledger>) -> Self {
        let mut registry = Registry::with_prefix("pgtend");
        let runs = Family::default();
        registry.register("job_runs", "Runs that ended, by outcome", runs.clone());
        let run_seconds = Family::new_with_constructor(RunSeconds);
        registry.register("job_run_duration_seconds", "How long runs took", run_seconds.clone());
        let last_success = Family::default();
        registry.register("job_last_success_timestamp_seconds", "When the job last succeeded; 0: never", last_success.clone());
        let next_run = Family::default();
        registry.register("job_next_run_timestamp_seconds", "When the job is due next; 0: it has no schedule", next_run.clone());
        let running = Family::default();
        registry.register("job_running", "Runs of the job in progress in this process", running.clone());
        let progress = Family::default();
        let about = "Progress of the current run's phase, from 0 to 1; 0: unknown, or no run";
        registry.register("job_phase_progress_ratio", about, progress.clone());
        let late = Family::default();
        registry.register("job_late", "1 when the last success is older than the schedule allows", late.clone());
        let facts = Facts::default();
        facts.register(&mut registry);
        let fleet_databases = Family::default();
        let about = "Databases of a job with patterns, by state: well, failed, late, waiting for a first success";
        registry.register("fleet_databases", about, fleet_databases.clone());
        let fleet_left_out = Gauge::default();
        let about = "Living databases and schemas that patterns take, and on which no job can run";
        registry.register("fleet_databases_left_out", about, fleet_left_out.clone());
        let server_up = Family::default();
        let about = "Whether a server of [servers] says which databases it has: 1, or 0 while it does not answer";
        registry.register("server_up", about, server_up.clone());
        let errors = Family::default();
        registry.register("errors", "Errors of runs and of the ledger, by kind", errors.clone());
        let ledger_up = Gauge::default();
        registry.register("ledger_up", "1 when the ledger is reachable", ledger_up.clone());
        let pool = Family::default();
        registry.register("ledger_pool_connections", "Open connections to the ledger", pool.clone());
        let reload_success = Gauge::default();
        registry.register("config_last_reload_successful", "0 when the last reload was refused", reload_success.clone());
        let broken_jobs = Gauge::default();
        registry.register("config_broken_jobs", "Jobs that are skipped because of mistakes in their files", broken_jobs.clone());
        if let Some(ledger) = ledger {
            registry.register("ledger_query_duration_seconds", "How long queries of the ledger take", ledger.query_seconds());
        }
        registry.register("build", "This program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let metrics = Self {
            registry: Arc::new(registry),
            runs,
            run_seconds,
            last_success,
            next_run,
            running,
            progress,
            under_way: Arc::default(),
            late,
            facts,
            fleets: Fleets::default(),
            fleet_databases,
            fleet_left_out,
            server_up,
            servers: Arc::default(),
            errors,
            ledger_up,
            pool,
            reload_success,
            broken_jobs,
        };
        for kind in Kind::ALL.map(Kind::name).into_iter().chain(["other"]) {
            drop(metrics.errors.get_or_create(&KindLabels { kind }));
        }
        metrics.reload_success.set(1);
        metrics.pool_use((0, 0));
        metrics
    }

    /// Creates every series of a job, so that a failure shows as a step from zero.
    pub fn job(&self, job: &str, database: &str, is_backup: bool) {
        if self.fleets.update(job, database, |_| {}) && self.last_success.get(&self.labels(job, database)).is_some() {
            return; // another of its databases has made them
        }
        let labels = self.labels(job, database);
        for outcome in Outcome::ALL {
            drop(self.runs.get_or_create(&self.outcome_labels(job, database, outcome)));
        }
        drop(self.run_seconds.get_or_create(&labels));
        drop(self.last_success.get_or_create(&labels));
        drop(self.next_run.get_or_create(&labels));
        drop(self.running.get_or_create(&labels));
        drop(self.progress.get_or_create(&labels));
        drop(self.late.get_or_create(&labels));
        if is_backup {
            self.facts.backup(&labels);
        }
    }

    /// Says that the job has these patterns in `databases`, or none: then all of its databases share one set of series.
    pub fn patterns(&self, job: &str, patterns: Option<&str>) {
        if let Some(before) = self.fleets.set(job, patterns) {
            self.remove(job, &before);
        }
        if patterns.is_none() {
            for state in FLEET_STATES {
                self.fleet_databases.remove(&FleetLabels { job: job.to_owned(), state });
            }
        }
    }

    /// Removes a job that is no longer configured.
    pub fn forget(&self, job: &str, database: &str) {
        if !self.fleets.forget(job, database) {
            self.remove(job, database);
        }
    }

    fn remove(&self, job: &str, database: &str) {
        let labels = labels(job, database);
        for outcome in Outcome::ALL {
            self.runs.remove(&outcome_labels(labels.clone(), outcome));
        }
        self.run_seconds.remove(&labels);
        self.last_success.remove(&labels);
        self.next_run.remove(&labels);
        self.running.remove(&labels);
        self.progress.remove(&labels);
        self.late.remove(&labels);
        self.facts.forget(&labels);
    }

    pub fn started(&self, job: &str, database: &str, progress: Progress) -> Running {
        let labels = self.labels(job, database);
        // A job that was removed meanwhile gets no series again.
        let gauge = self.running.get(&labels).map(|gauge| gauge.clone()).unwrap_or_default();
        gauge.inc();
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).push((labels.clone(), progress));
        Running { gauge, metrics: self.clone(), labels }
    }

    pub fn ended(&self, run: &Run, error: Option<&anyhow::Error>) {
        if let Some(error) = error {
            self.error(failure::kind_of(error));
        }
        let labels = self.labels(&run.job, &run.database);
        if self.running.get(&labels).is_none() {
            return; // forgotten meanwhile
        }
        self.runs.get_or_create(&self.outcome_labels(&run.job, &run.database, run.outcome)).inc();
        if run.outcome != Outcome::Skipped {
            self.run_seconds.get_or_create(&labels).observe(run.elapsed().as_secs_f64());
        }
        if run.outcome == Outcome::Succeeded {
            self.last_success(&run.job, &run.database, run.finished_at.timestamp_millis() as f64 / 1000.0);
            self.failed(&run.job, &run.database, false);
        } else if run.outcome.needs_attention() {
            self.failed(&run.job, &run.database, true);
        }
        if let Some(report) = &run.report {
            self.facts(&run.job, &run.database, report);
            self.facts.add(&labels, report);
            if let (Some(began_at), Outcome::Succeeded) = (report.proved_set_began_at(), run.outcome) {
                self.proved(&run.job, &run.database, Some(began_at));
            }
        }
    }

    /// Sets the values that stay from one report to the next: a backup's sizes, how far partitions reach.
    pub fn facts(&self, job: &str, database: &str, report: &Report) {
        self.know(job, database, &Known::by(report));
    }

    /// Sets when the newest proved set of a backup job began; `None`: there is none.
    pub fn proved(&self, job: &str, database: &str, began_at: Option<DateTime<Utc>>) {
        self.know(job, database, &Known::proved(began_at));
    }

    fn know(&self, job: &str, database: &str, known: &Known) {
        if !self.fleets.update(job, database, |values| values.known.update(known)) {
            self.facts.show(&labels(job, database), known);
        }
    }

    /// Sets the values of jobs with patterns.
    fn show_fleets(&self) {
        for (job, label, sums) in self.fleets.sums() {
            let labels = labels(&job, &label);
            self.last_success.get_or_create(&labels).set(sums.last_success);
            self.next_run.get_or_create(&labels).set(sums.next_run);
            self.late.get_or_create(&labels).set(sums.late + i64::from(sums.is_late_alone));
            self.facts.show(&labels, &sums.known);
            for (state, count) in FLEET_STATES.into_iter().zip([sums.well, sums.failed, sums.late, sums.waiting]) {
                self.fleet_databases.get_or_create(&FleetLabels { job: job.clone(), state }).set(count);
            }
        }
    }

    /// Sets the time of the last success, in seconds since 1970.
    pub fn last_success(&self, job: &str, database: &str, at: f64) {
        if !self.fleets.update(job, database, |values| values.last_success = Some(at)) {
            self.last_success.get_or_create(&labels(job, database)).set(at);
        }
    }

    pub fn next_run(&self, job: &str, database: &str, at: f64) {
        if !self.fleets.update(job, database, |values| values.next_run = Some(at)) {
            self.next_run.get_or_create(&labels(job, database)).set(at);
        }
    }

    pub fn late(&self, job: &str, database: &str, is_late: bool) {
        if !self.fleets.update(job, database, |values| values.is_late = is_late) {
            self.late.get_or_create(&labels(job, database)).set(is_late.into());
        }
    }

    /// Says whether the last run of a job with patterns failed; of other jobs, `job_runs` says it.
    pub fn failed(&self, job: &str, database: &str, has_failed: bool) {
        self.fleets.update(job, database, |values| values.has_failed = has_failed);
    }

    pub fn error(&self, kind: Option<Kind>) {
        self.errors.get_or_create(&KindLabels { kind: kind.map_or("other", Kind::name) }).inc();
    }

    pub fn ledger_up(&self, is_up: bool) {
        self.ledger_up.set(is_up.into());
    }

    /// Sets the numbers of open connections and of idle ones.
    pub fn pool_use(&self, (open, idle): (u32, usize)) {
        self.pool.get_or_create(&StateLabels { state: "idle" }).set(idle as i64);
        self.pool.get_or_create(&StateLabels { state: "used" }).set(open as i64 - idle as i64);
    }

    pub fn reloaded(&self, is_good: bool) {
        self.reload_success.set(is_good.into());
    }

    /// How many databases of servers, and schemas, are left out.
    pub fn left_out(&self, count: usize) {
        self.fleet_left_out.set(count as i64);
    }

    /// Which of these servers say which databases they have; others are no longer configured.
    pub fn servers(&self, names: &[&str], is_up: impl Fn(&str) -> bool) {
        let mut known = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in known.extract_if(.., |known| !names.contains(&known.as_str())) {
            self.server_up.remove(&ServerLabels { server: gone });
        }
        for name in names {
            known.insert((*name).to_owned());
            self.server_up.get_or_create(&ServerLabels { server: (*name).to_owned() }).set(is_up(name).into());
        }
    }

    /// Says whether a job with patterns is late because it has no database to run on.
    pub fn late_without_databases(&self, job: &str, is_late: bool) {
        self.fleets.late_without_databases(job, is_late);
    }

    pub fn broken_jobs(&self, count: usize) {
        self.broken_jobs.set(count as i64);
    }

    /// Returns all metrics in the OpenMetrics text format.
    pub fn render(&self) -> Result<String> {
        self.show_fleets();
        for (labels, progress) in self.under_way.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let (Some(ratio), Some(now)) = (self.progress.get(labels), progress.now()) {
                let total = now.total_bytes.filter(|total| *total > 0);
                ratio.set(total.map_or(0.0, |total| (now.done_bytes as f64 / total as f64).min(1.0)));
            }
        }
        self.facts.grow_older(Utc::now());
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }

    /// The labels of a job on a database: those of all of its databases, if it has patterns.
    fn labels(&self, job: &str, database: &str) -> JobLabels {
        labels(job, self.fleets.label(job).as_deref().unwrap_or(database))
    }

    fn outcome_labels(&self, job: &str, database: &str, outcome: Outcome) -> OutcomeLabels {
        outcome_labels(self.labels(job, database), outcome)
    }
}

const FLEET_STATES: [&str; 4] = ["well", "failed", "late", "waiting"];

fn outcome_labels(JobLabels { job, database }: JobLabels, outcome: Outcome) -> OutcomeLabels {
    OutcomeLabels { job, database, outcome: outcome.name() }
}
