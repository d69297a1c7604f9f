//! `[audit]`: problems that are in a database for a long time before they hurt, with the statement that ends each, and what has changed since
//! the last time.
//!
//! What an interruption leaves behind: a scratch database (with `schema_file`), which the job's next run drops; a report without its JSON,
//! which counts as none and is deleted.

pub mod checks;
pub mod document;

mod backup;
mod compare;
mod drift;
pub mod html;
mod look;
pub mod markdown;
mod queries;
mod shelf;

pub use document::{Document, Level};

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chrono::{NaiveDate, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;
use toml::Spanned;

use self::checks::{CHECKS, Check};
use self::compare::Previous;
use self::document::{Finding, State, Waiver};
use self::look::Scene;
use self::shelf::Shelf;
use crate::config::Config;
use crate::fault::{self, Fault, Kind};
use crate::job::{Checker, Job};
use crate::ledger::{Filter, Ledger};
use crate::pg::{self, Server};
use crate::report::{Report, Unfinished};
use crate::store::Store;
use crate::task::{RunContext, Task, Work};
use crate::toml_file::did_you_mean;
use crate::units::{self, Span};

/// Two years of quarters.
const KEEP: u32 = 8;
/// A month's end and its reports are in them.
const STATISTICS_AGE: Span = Span(Duration::from_secs(30 * 86_400));
const BACKUP_WITHIN: Span = Span(Duration::from_secs(7 * 86_400));
/// A pool that lets a session idle for that long has no use for it at the moment.
const IDLE_AFTER: Span = Span(Duration::from_secs(600));
const CHECK_TIMEOUT: Span = Span(Duration::from_secs(10));
/// In the ledger: on the status page, and without a store for the next audit to compare with.
const FINDINGS_IN_REPORT: usize = 50;
const KEYS_IN_REPORT: usize = 5000;

/// `[audit]`, resolved.
#[derive(Clone, Debug)]
pub struct Audit {
    pub store: Option<String>,
    pub schema_file: Option<PathBuf>,
    pub scratch: Option<String>,
    /// None: findings fail no run.
    pub fail_on: Option<Level>,
    pub waive: Vec<Waiver>,
    pub keep: usize,
    pub statistics_age: Duration,
    pub backup_within: Span,
    pub check_timeout: Duration,
    pub idle_after: Duration,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            store: None,
            schema_file: None,
            scratch: None,
            fail_on: Some(Level::Critical),
            waive: Vec::new(),
            keep: KEEP as usize,
            statistics_age: STATISTICS_AGE.0,
            backup_within: BACKUP_WITHIN,
            check_timeout: CHECK_TIMEOUT.0,
            idle_after: IDLE_AFTER.0,
        }
    }
}

/// `[audit]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Reports go there as JSON, Markdown and HTML, and the next audit is compared with the last one there.
    #[schemars(with = "Option<String>")]
    pub store: Option<Spanned<String>>,
    /// SQL that makes the schema as it is meant to be (pg_dump --schema-only): drift against it is reported. Relative to the job's file.
    #[schemars(with = "Option<PathBuf>")]
    pub schema_file: Option<Spanned<PathBuf>>,
    /// A [databases] entry on whose server `schema_file` is loaded for a moment; default: where the database is.
    #[schemars(with = "Option<String>")]
    pub scratch: Option<Spanned<String>>,
    /// The run fails when it finds something at least that urgent; default "critical".
    pub fail_on: Option<FailOn>,
    /// Findings that do not count: `{ key = "…", reason = "…", until = 2027-01-31 }`.
    #[serde(default)]
    pub waive: Vec<WrittenWaiver>,
    /// Audits that stay in the store; default 8.
    #[schemars(with = "Option<u32>")]
    pub keep: Option<Spanned<u32>>,
    /// An index counts as unused when statistics at least that old have not seen it used; default 30 days.
    pub statistics_age: Option<Span>,
    /// The newest verified backup may be that old; default 7 days.
    pub backup_within: Option<Span>,
    /// Longest time for one query of a check; default 10 s.
    pub check_timeout: Option<Span>,
    /// A session that has been idle for so long is one too many, and a transaction that was prepared so long ago should have ended; default 10 min.
    pub idle_after: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum FailOn {
    Critical,
    High,
    Medium,
    Low,
    Never,
}

impl FailOn {
    pub fn level(self) -> Option<Level> {
        match self {
            Self::Critical => Some(Level::Critical),
            Self::High => Some(Level::High),
            Self::Medium => Some(Level::Medium),
            Self::Low => Some(Level::Low),
            Self::Never => None,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenWaiver {
    /// As in the report; a `*` at its end stands for any rest.
    #[schemars(with = "String")]
    pub key: Spanned<String>,
    /// Why it may stay.
    pub reason: String,
    /// The last day on which it does not count (a TOML date, UTC).
    #[schemars(with = "String")]
    pub until: Spanned<toml::value::Datetime>,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Audit> {
    let default = Audit::default();
    let mut is_right = true;
    if let Some(store) = &written.store {
        is_right &= checker.known("store", store);
    }
    if let Some(scratch) = &written.scratch {
        is_right &= checker.known("database", scratch);
    }
    if let Some(keep) = written.keep.as_ref().filter(|keep| *keep.get_ref() == 0) {
        checker.problem(keep, "`keep = 0` would keep no audit", "1 or more: the next one is compared with it".to_owned());
        is_right = false;
    }
    let folder = checker.folder();
    let schema_file = written.schema_file.map(|file| folder.join(file.get_ref()));
    let mut waive = Vec::new();
    for waiver in written.waive {
        match resolve_waiver(waiver, checker) {
            Some(waiver) => waive.push(waiver),
            None => is_right = false,
        }
    }
    is_right.then(|| Audit {
        store: written.store.map(Spanned::into_inner),
        schema_file,
        scratch: written.scratch.map(Spanned::into_inner),
        fail_on: written.fail_on.map_or(default.fail_on, FailOn::level),
        waive,
        keep: written.keep.map_or(default.keep, |keep| keep.into_inner() as usize),
        statistics_age: written.statistics_age.map_or(default.statistics_age, |age| age.0),
        backup_within: written.backup_within.unwrap_or(default.backup_within),
        check_timeout: written.check_timeout.map_or(default.check_timeout, |timeout| timeout.0),
        idle_after: written.idle_after.map_or(default.idle_after, |after| after.0),
    })
}

fn resolve_waiver(written: WrittenWaiver, checker: &mut Checker<'_>) -> Option<Waiver> {
    let key = written.key.get_ref();
    let id = key.split([':', '*']).next().unwrap_or_default();
    if checks::find(id).is_none() {
        let hint = did_you_mean(id, CHECKS.iter().map(|check| check.id));
        let hint = hint.unwrap_or_else(|| {
            "a key begins with its check: \"fk-unindexed:public.orders(user_id)\"; `pgtend audit` shows keys".to_owned()
        });
        checker.problem(&written.key, format!("there is no check `{id}`"), hint);
        return None;
    }
    if !key.contains([':', '*']) {
        checker.problem(&written.key, "this waiver fits no finding", format!("for all findings of the check: \"{key}:*\""));
        return None;
    }
    let date = written.until.get_ref().date.filter(|_| written.until.get_ref().time.is_none());
    let date = date.and_then(|date| NaiveDate::from_ymd_opt(date.year.into(), date.month.into(), date.day.into()));
    let Some(until) = date else {
        checker.problem(&written.until, "`until` is not a date", "write it without quotes: until = 2027-01-31".to_owned());
        return None;
    };
    Some(Waiver { key: written.key.into_inner(), reason: written.reason, until })
}

#[derive(Debug, Serialize)]
pub struct Plan {
    server: String,
    checks: usize,
    last_audit: Option<chrono::DateTime<Utc>>,
    /// What it writes, and where.
    writes: Vec<String>,
    waivers: usize,
    fail_on: Option<Level>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(
            f,
            "Would make {} on {}, each in a transaction that is READ ONLY",
            units::plural(self.checks, "check"),
            self.server
        )?;
        match self.last_audit {
            Some(at) => writeln!(f, "  compared with the audit of {}", at.format("%Y-%m-%d %H:%M UTC"))?,
            None => writeln!(f, "  compared with nothing: there is no earlier audit")?,
        }
        for line in &self.writes {
            writeln!(f, "  {line}")?;
        }
        if self.waivers > 0 {
            writeln!(f, "  {}", units::plural(self.waivers, "waiver"))?;
        }
        match self.fail_on {
            Some(level) => {
                writeln!(f, "  fails when a finding is {level}{}", if level == Level::Critical { "" } else { " or more" })
            }
            None => writeln!(f, "  fails on no finding"),
        }
    }
}

impl Work for Audit {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let mut connection = run.settings.connect().await?;
        let server = Server::of(&mut connection).await?;
        let shelf = self.shelf(run.config, run.database, &run.job.name).await?;
        let (previous, unread) = self.previous(run.config, shelf.as_ref(), run.database, &run.job.name).await;
        let mut writes: Vec<String> = unread.into_iter().collect();
        if let Some(file) = &self.schema_file {
            writes.push(format!("loads {} into a scratch database, which is dropped at once", file.display()));
        }
        match (&shelf, &self.store) {
            (Some(_), Some(name)) => writes
                .push(format!("writes its report to store {name} as JSON, Markdown and HTML, and keeps the last {}", self.keep)),
            _ => writes.push("writes no report: there is no `store`".to_owned()),
        }
        Ok(Plan {
            server: format!("{} (PostgreSQL {})", run.settings.display(), server.version),
            checks: CHECKS.len(),
            last_audit: previous.map(|previous| previous.at),
            writes,
            waivers: self.waive.len(),
            fail_on: self.fail_on,
        })
    }

    async fn apply(&self, run: &RunContext<'_>, _plan: Plan) -> Result<Report> {
        let shelf = run.or_cancelled(self.shelf(run.config, run.database, &run.job.name)).await?;
        let previous = async { Ok(self.previous(run.config, shelf.as_ref(), run.database, &run.job.name).await) };
        let (previous, unread) = run.or_cancelled(previous).await?;
        let baseline = previous.as_ref().map(|previous| previous.top_queries.clone()).unwrap_or_default();
        let scene = Scene {
            audit: self,
            config: run.config,
            jobs: run.jobs,
            job: &run.job.name,
            database: run.database,
            settings: &run.settings,
            progress: &run.progress,
            now: run.now,
            by_hand: false,
            cancel: &run.cancel,
            baseline: &baseline,
        };
        let mut document = look::look(&scene, None).await?;
        compare::settle(&mut document, previous, &self.waive, Utc::now().date_naive());
        document.notes.extend(unread);
        let mut report = report(&document, shelf.is_none());
        if let Some(shelf) = &shelf {
            let location = run.or_cancelled(shelf.put(&document)).await?;
            report.summary += &format!("; {location}");
            report.fact("report", location);
            let pruned = run.or_cancelled(shelf.prune(self.keep, &document)).await?;
            report.fact("pruned_audits", pruned.deleted);
            report.warnings.extend(pruned.left.into_iter().map(|left| format!("an old audit stays: {left}")));
        }
        match self.failure(&document) {
            Some(message) => Err(Unfinished { kind: None, message, report }.into()),
            None => Ok(report),
        }
    }
}

impl Audit {
    /// For `check --connect`: what the role may see, and make.
    pub async fn check(&self, connection: &mut PgConnection) -> Result<String> {
        let (monitor, reads, creates): (bool, bool, bool) = sqlx::query_as(
            "SELECT pg_has_role('pg_monitor', 'USAGE'), pg_has_role('pg_read_all_data', 'USAGE'), rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(connection)
        .await?;
        if self.schema_file.is_some() && self.scratch.is_none() && !creates {
            let message = "schema_file needs CREATEDB for its scratch database: ALTER ROLE … CREATEDB, or name another server with `scratch`";
            return Err(Fault::new(Kind::Permission, message).into());
        }
        let lacks: Vec<&str> = [("pg_monitor", monitor), ("pg_read_all_data", reads)]
            .into_iter()
            .filter(|(_, has)| !has)
            .map(|(role, _)| role)
            .collect();
        Ok(match lacks.is_empty() {
            true => "may see what its checks ask for".to_owned(),
            false => format!("reads the catalog; without {} some checks are unknown", lacks.join(" and ")),
        })
    }

    /// Why an audit with these findings is a failure.
    pub fn failure(&self, document: &Document) -> Option<String> {
        let limit = self.fail_on?;
        let urgent: Vec<&Finding> = document.open().filter(|finding| finding.level <= limit).collect();
        let some: Vec<&str> = urgent.iter().take(5).map(|finding| finding.key.as_str()).collect();
        let more = if urgent.len() > some.len() { ", …" } else { "" };
        (!urgent.is_empty()).then(|| {
            format!(
                "{} {limit}{} (fail_on): {}{more}",
                units::plural(urgent.len(), "finding"),
                if limit == Level::Critical { "" } else { " or more urgent" },
                some.join(", ")
            )
        })
    }

    async fn shelf(&self, config: &Config, database: &str, job: &str) -> Result<Option<Shelf>> {
        let Some(name) = &self.store else { return Ok(None) };
        let configured = config.stores.get(name).context("the store is configured")?;
        let store = Store::open(configured).await.with_context(|| format!("store `{name}`"))?;
        Ok(Some(Shelf::new(store, database, job)))
    }

    /// The last audit in the store; without a store, what the ledger has kept of it. One that cannot be read is no reason not to look: it is said.
    async fn previous(
        &self,
        config: &Config,
        shelf: Option<&Shelf>,
        database: &str,
        job: &str,
    ) -> (Option<Previous>, Option<String>) {
        let read = match shelf {
            Some(shelf) => shelf.last().await.map(|(document, unread)| (document.map(Previous::from), unread)),
            None => previous_of_ledger(config, database, job).await.map(|previous| (previous, Vec::new())),
        };
        match read {
            Ok((previous, unread)) if unread.is_empty() => (previous, None),
            Ok((previous, unread)) => {
                let with = match &previous {
                    Some(previous) => format!("compared with the audit of {}", previous.at.format("%Y-%m-%d %H:%M UTC")),
                    None => "compared with nothing".to_owned(),
                };
                (previous, Some(format!("{with}, as the last audit cannot be read: {}", unread.join("; "))))
            }
            Err(error) => {
                (None, Some(format!("compared with nothing, as the last audit cannot be read: {}", fault::in_a_line(&error))))
            }
        }
    }
}

/// An audit by hand: with what the database's own [audit] job says, where there is one. It writes nothing, and is not in the ledger.
pub async fn by_hand(
    config: &Config,
    jobs: &[Job],
    database: &str,
    only: Option<&Check>,
    progress: &crate::progress::Progress,
    cancel: &tokio_util::sync::CancellationToken,
) -> Result<(Audit, Document)> {
    let configured = config.databases.get(database).with_context(|| format!("the configuration has no database `{database}`"))?;
    let settings = pg::Settings::resolve(configured).with_context(|| format!("database `{database}`"))?;
    let own = jobs.iter().find_map(|job| match &job.task {
        Task::Audit(audit) if job.databases.iter().any(|name| name == database) => Some((job.name.clone(), audit.clone())),
        _ => None,
    });
    let (job, audit) = own.unwrap_or_else(|| ("by hand".to_owned(), Audit::default()));
    // Nothing is stored: a store that is away is no reason not to look.
    let (previous, unread) = match audit.shelf(config, database, &job).await {
        Ok(Some(shelf)) if !shelf.store.is_there() => {
            (None, Some(format!("compared with nothing: there is no {}", shelf.store.location(""))))
        }
        Ok(shelf) => audit.previous(config, shelf.as_ref(), database, &job).await,
        Err(error) => (None, Some(format!("compared with nothing: {}", fault::in_a_line(&error)))),
    };
    let baseline = previous.as_ref().map(|previous| previous.top_queries.clone()).unwrap_or_default();
    let scene = Scene {
        audit: &audit,
        config,
        jobs,
        job: &job,
        database,
        settings: &settings,
        progress,
        now: Utc::now(),
        by_hand: true,
        cancel,
        baseline: &baseline,
    };
    let mut document = look::look(&scene, only).await?;
    let previous = previous.map(|mut previous| {
        previous.findings.retain(|finding| only.is_none_or(|only| only.id == finding.check));
        previous
    });
    compare::settle(&mut document, previous, &audit.waive, Utc::now().date_naive());
    document.notes.extend(unread);
    Ok((audit, document))
}

/// From the keys in the report of the job's last run.
async fn previous_of_ledger(config: &Config, database: &str, job: &str) -> Result<Option<Previous>> {
    let Some(ledger) = Ledger::new(config)? else { return Ok(None) };
    let filter = Filter { job: Some(job), database: Some(database), outcome: None, limit: 20 };
    let rows = ledger.runs(&filter).await?;
    let last = rows.into_iter().find_map(|row| {
        let keys = row.report?.facts.get("keys")?.as_object()?.clone();
        Some((row.started_at, keys))
    });
    Ok(last.map(|(at, keys)| Previous {
        at,
        findings: keys.iter().filter_map(|(key, since)| remembered(key, since)).collect(),
        top_queries: Vec::new(),
    }))
}

/// A finding of which only its key is known.
fn remembered(key: &str, since: &Value) -> Option<Finding> {
    let (id, identity) = key.split_once(':')?;
    let check = checks::find(id)?;
    Some(Finding {
        key: key.to_owned(),
        check: id.to_owned(),
        level: check.level,
        title: check.title.to_owned(),
        object: identity.to_owned(),
        issue: String::new(),
        impact: check.why.to_owned(),
        evidence: serde_json::Map::new(),
        fix: document::Fix { words: check.fix.to_owned(), lock: check.lock.to_owned(), ..document::Fix::default() },
        change: None,
        since: since.as_str()?.parse().ok()?,
        waiver: None,
    })
}

fn report(document: &Document, with_keys: bool) -> Report {
    let mut report = Report { summary: document.in_short(), ..Report::default() };
    report.fact("counts", json!(document.counts()));
    report.fact("previous_audit", json!(document.previous));
    let shown: Vec<Value> = document
        .open()
        .take(FINDINGS_IN_REPORT)
        .map(|finding| json!({ "key": finding.key, "level": finding.level, "title": finding.title, "object": finding.object, "change": finding.change }))
        .collect();
    report.fact("findings", shown);
    let resolved: Vec<&str> = document.resolved.iter().take(FINDINGS_IN_REPORT).map(|finding| finding.key.as_str()).collect();
    report.fact("resolved", json!(resolved));
    if with_keys {
        let keys: serde_json::Map<String, Value> = document
            .findings
            .iter()
            .chain(&document.not_seen)
            .take(KEYS_IN_REPORT)
            .map(|finding| (finding.key.clone(), json!(finding.since)))
            .collect();
        report.fact("keys", keys);
    }
    let unknown: Vec<Value> = document
        .checks
        .iter()
        .filter(|outcome| !outcome.reasons.is_empty())
        .map(|outcome| json!({ "check": outcome.check, "reasons": outcome.reasons }))
        .collect();
    report.fact("unknown", unknown);
    report.warnings.extend(document.notes.iter().cloned());
    for outcome in document.checks.iter().filter(|outcome| outcome.state == State::Failed) {
        report.warnings.push(format!("check {} failed: {}", outcome.check, outcome.reasons.join("; ")));
    }
    report
}
