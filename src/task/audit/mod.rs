//! `[audit]`: finds problems that are in a database long before they hurt, with the statement that fixes each, and reports the changes
//! since the last audit.
//!
//! An interruption leaves a scratch database (with `schema_file`), which the job's next run drops, or a report without its JSON, which does
//! not count and is deleted.

pub mod checks;
pub mod context;
pub mod document;
pub mod groups;
mod keys;
mod numbers;
mod plan;

mod backup;
mod baseline;
mod compare;
mod conventions;
mod count;
mod drift;
mod entry;
pub mod html;
mod look;
pub mod markdown;
mod probe;
mod queries;
mod rank;
mod served;
mod sizes;
mod store;
mod tenants;
mod tried;
mod trust;
mod usage;
mod versions;
mod weights;

use std::time::Instant;

use anyhow::{Context as _, Result};
use chrono::Utc;
pub use document::{Document, Level};
pub use keys::{Audit, CheckSetting, FailOn, Profile, Written, WrittenWaiver, resolve};
pub use plan::Plan;
use serde::Deserialize as _;
use serde_json::{Value, json};
use sqlx::PgConnection;

use self::checks::{CHECKS, Check};
use self::compare::Previous;
use self::document::{Finding, Outcome, State};
use self::store::AuditStore;
use self::usage::Usage;
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::Config;
use crate::ledger::report::{Report, Unfinished};
use crate::ledger::{Filter, Ledger};
use crate::pg::{Server, failure};
use crate::store::Store;
use crate::task::audit::context::AuditContext;
use crate::work::{Other, RunContext, Work};

/// Findings that the ledger keeps: for the status page, and for the next audit to compare with when there is no store.
const FINDINGS_IN_REPORT: usize = 50;
const KEYS_IN_REPORT: usize = 5000;
/// An error names this many findings.
const NAMED: usize = 5;

impl Work for Audit {
    type Plan = Plan;

    async fn plan(&self, run: &RunContext<'_>) -> Result<Plan> {
        let mut connection = run.settings.connect().await?;
        let server = Server::of(&mut connection).await?;
        let audits = self.audit_store(run.config, run.database, run.job.name).await?;
        let (previous, unread) = self.previous(run.config, audits.as_ref(), run.database, run.job.name).await;
        let mut writes: Vec<String> = unread.into_iter().collect();
        if let Some(file) = &self.schema_file {
            writes.push(format!("loads {} into a scratch database, which is dropped afterwards", file.display()));
        }
        match (&audits, &self.store) {
            (Some(_), Some(name)) => writes
                .push(format!("writes its report to store {name} as JSON, Markdown and HTML, and keeps the last {}", self.keep)),
            _ => writes.push("writes no report: no `store` is configured".to_owned()),
        }
        Ok(Plan {
            server: format!("{} (PostgreSQL {})", run.settings.display(), server.version),
            checks: CHECKS.len() - self.checks.values().filter(|setting| **setting == CheckSetting::Off).count(),
            last_audit: previous.map(|previous| previous.at),
            writes,
            waivers: self.waive.len(),
            fail_on: self.fail_on,
        })
    }

    async fn apply(&self, run: &RunContext<'_>, _plan: Plan) -> Result<Report> {
        let audits = run.or_cancelled(self.audit_store(run.config, run.database, run.job.name)).await?;
        let previous = async { Ok(self.previous(run.config, audits.as_ref(), run.database, run.job.name).await) };
        let (previous, unread) = run.or_cancelled(previous).await?;
        let baseline = previous.as_ref().map(|previous| previous.top_queries.clone()).unwrap_or_default();
        let before = previous.as_ref().map(Previous::counted);
        let context = AuditContext {
            audit: self,
            config: run.config,
            others: run.others,
            job: run.job.name,
            database: run.database,
            settings: &run.settings,
            progress: &run.progress,
            now: run.now,
            is_manual: false,
            cancel: &run.cancel,
            trust_owners: run.job.limits.trust_owners,
            baseline: &baseline,
            deadline: Instant::now(),
            before: before.as_ref(),
        };
        let mut document = look::look(&context, None).await?;
        compare::compare_with_previous(&mut document, previous, &self.waive, Utc::now().date_naive());
        rank::sort(&mut document);
        document.notes.extend(unread);
        let mut report = report(&document, audits.is_none());
        if let Some(audits) = &audits {
            let location = run.or_cancelled(audits.put(&document)).await?;
            report.summary += &format!("; {location}");
            report.fact("report", location);
            let pruned = run.or_cancelled(audits.prune(self.keep, &document)).await?;
            report.fact("pruned_audits", pruned.deleted);
            report.warnings.extend(pruned.left.into_iter().map(|left| format!("an old audit was not deleted: {left}")));
        }
        match self.failure(&document) {
            Some(message) => Err(Unfinished::error(None, message, report)),
            None => Ok(report),
        }
    }
}

impl Audit {
    /// Says in words which objects the role may read and create, for `check --connect`.
    async fn may_run(&self, connection: &mut PgConnection) -> Result<Vec<String>> {
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
        Ok(vec![match lacks.is_empty() {
            true => "has all privileges that the checks need".to_owned(),
            false => format!("reads the catalog; the result of some checks is unknown without {}", lacks.join(" and ")),
        }])
    }

    /// Returns the reason why an audit with these findings fails. Findings that are not listed count as the most urgent that they may be.
    pub fn failure(&self, document: &Document) -> Option<String> {
        let limit = self.fail_on?;
        let urgent: Vec<&Finding> = document.open().filter(|finding| finding.level <= limit).collect();
        let today = document.started_at.date_naive();
        let is_waived = |outcome: &Outcome| {
            self.waive.iter().any(|waiver| waiver.until >= today && waiver.key == format!("{}:*", outcome.check))
        };
        let cut =
            document.checks.iter().filter(|outcome| outcome.cut.is_some_and(|cut| cut.level <= limit) && !is_waived(outcome));
        let cut: Vec<String> = cut.map(|outcome| format!("{} that are not listed", outcome.check)).collect();
        let more = if urgent.len() > NAMED { vec!["…".to_owned()] } else { Vec::new() };
        let some: Vec<String> =
            urgent.iter().take(NAMED).map(|finding| finding.key.clone()).chain(more).chain(cut.clone()).collect();
        (!some.is_empty()).then(|| {
            format!(
                "{}{} {limit}{} (fail_on): {}",
                if cut.is_empty() { "" } else { "more than " },
                units::plural(urgent.len(), "finding"),
                if limit == Level::Critical { "" } else { " or more urgent" },
                some.join(", ")
            )
        })
    }

    async fn audit_store(&self, config: &Config, database: &str, job: &str) -> Result<Option<AuditStore>> {
        let Some(name) = &self.store else { return Ok(None) };
        let store = Store::named(config, name).await?;
        Ok(Some(AuditStore::new(store, database, job)))
    }

    /// Returns the last audit in the store, or without a store the one in the ledger. An audit that cannot be read does not stop this one: it is
    /// reported.
    async fn previous(
        &self,
        config: &Config,
        audits: Option<&AuditStore>,
        database: &str,
        job: &str,
    ) -> (Option<Previous>, Option<String>) {
        let read = match audits {
            Some(audits) => audits.last().await.map(|(document, unread)| (document.map(Previous::from), unread)),
            None => previous_of_ledger(config, database, job).await.map(|previous| (previous, Vec::new())),
        };
        match read {
            Ok((previous, unread)) if unread.is_empty() => (previous, None),
            Ok((previous, unread)) => {
                let with = match &previous {
                    Some(previous) => format!("compared with the audit of {}", previous.at.format("%Y-%m-%d %H:%M UTC")),
                    None => "not compared with an earlier audit".to_owned(),
                };
                (previous, Some(format!("{with}, because the last audit cannot be read: {}", unread.join("; "))))
            }
            Err(error) => (
                None,
                Some(format!(
                    "not compared with an earlier audit, because the last one cannot be read: {}",
                    failure::in_a_line(&error)
                )),
            ),
        }
    }
}

/// The [audit] job of a database.
pub struct OwnJob {
    pub job: String,
    pub audit: Audit,
    pub trust_owners: bool,
}

/// Makes a manual audit, with the keys of the database's [audit] job (`own`) where there is one. It writes nothing and is not in the ledger.
pub async fn manual(
    config: &Config,
    others: &[Other],
    own: Option<OwnJob>,
    database: &str,
    only: Option<&Check>,
    progress: &crate::base::progress::Progress,
    cancel: &tokio_util::sync::CancellationToken,
) -> Result<(Audit, Document)> {
    let configured = config.database(database).with_context(|| format!("the configuration has no database `{database}`"))?;
    let settings = configured.settings().with_context(|| format!("database `{database}`"))?;
    let OwnJob { job, audit, trust_owners } =
        own.unwrap_or_else(|| OwnJob { job: "by hand".to_owned(), audit: Audit::default(), trust_owners: true });
    // It stores nothing, so a store that cannot be reached does not prevent it.
    let (previous, unread) = match audit.audit_store(config, database, &job).await {
        Ok(Some(audits)) if !audits.store.is_there() => {
            (None, Some(format!("not compared with an earlier audit: there is no {}", audits.store.location(""))))
        }
        Ok(audits) => audit.previous(config, audits.as_ref(), database, &job).await,
        Err(error) => (None, Some(format!("not compared with an earlier audit: {}", failure::in_a_line(&error)))),
    };
    let baseline = previous.as_ref().map(|previous| previous.top_queries.clone()).unwrap_or_default();
    let before = previous.as_ref().map(Previous::counted);
    let context = AuditContext {
        audit: &audit,
        config,
        others,
        job: &job,
        database,
        settings: &settings,
        progress,
        now: Utc::now(),
        is_manual: true,
        cancel,
        trust_owners,
        baseline: &baseline,
        deadline: Instant::now(),
        before: before.as_ref(),
    };
    let mut document = look::look(&context, only).await?;
    let previous = previous.map(|mut previous| {
        previous.findings.retain(|finding| only.is_none_or(|only| only.id == finding.check));
        previous
    });
    compare::compare_with_previous(&mut document, previous, &audit.waive, Utc::now().date_naive());
    rank::sort(&mut document);
    document.notes.extend(unread);
    Ok((audit, document))
}

/// Returns the last audit, from the keys in the report of the job's last run.
async fn previous_of_ledger(config: &Config, database: &str, job: &str) -> Result<Option<Previous>> {
    let Some(ledger) = Ledger::to_read(config).await? else { return Ok(None) };
    let filter = Filter { job: Some(job), database: Some(database), outcome: None, limit: 20 };
    let rows = ledger.runs(&filter).await?;
    let last = rows.into_iter().find_map(|row| {
        let facts = row.report?.facts;
        let usage = facts.get("usage").and_then(|usage| Usage::deserialize(usage).ok()).unwrap_or_default();
        Some((row.started_at, facts.get("keys")?.as_object()?.clone(), usage))
    });
    Ok(last.map(|(at, keys, usage)| Previous {
        at,
        findings: keys.iter().filter_map(|(key, since)| remembered(key, since)).collect(),
        top_queries: Vec::new(),
        usage,
    }))
}

/// Returns a finding of which only the key is known.
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
        convention: None,
        weight: None,
    })
}

fn report(document: &Document, with_keys: bool) -> Report {
    let mut report = Report { summary: document.in_short(), ..Report::default() };
    report.fact("counts", json!(document.counts()));
    report.fact("groups", groups::of(document).len());
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
        report.fact("usage", json!(document.usage));
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
