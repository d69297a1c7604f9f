//! Checks that this database has a recent, verified backup: from the stores, and the ledger.

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::context::{AuditContext, CheckResult, Row};
use super::document::Level;
use crate::base::shell::word;
use crate::base::units;
use crate::ledger::{Filter, Ledger, Row as Run};
use crate::pg::failure;
use crate::task;
use crate::task::backup::OfJob;
use crate::work::{Does, Other};

pub async fn look(context: &AuditContext<'_>) -> Result<CheckResult> {
    let jobs: Vec<&Other> =
        context.others.iter().filter(|job| matches!(job.does, Does::Backup { .. }) && job.runs_on(context.database)).collect();
    if jobs.is_empty() {
        return Ok(CheckResult::unknown(
            "no [backup] job of this configuration covers the database, and pgtend cannot see other backups",
        ));
    }
    // A store or ledger that cannot be read does not mean that there is no backup.
    let known = async {
        let newest =
            task::backup::newest_verified(context.config, context.others, context.database).await.context("the stores")?;
        Ok::<_, anyhow::Error>((newest, last_run(context, &jobs).await.context("the ledger")?))
    };
    let (newest, last_run) = match known.await {
        Ok(known) => known,
        Err(error) => return Ok(CheckResult::unknown(format!("cannot read {}", failure::in_a_line(&error)))),
    };
    let unread: Vec<String> =
        newest.unread().map(|(store, error)| format!("cannot read store `{store}`: {}", failure::in_a_line(error))).collect();
    let is_fresh = newest.anywhere().is_some_and(|newest| context.now - newest <= limit(context));
    // A store that cannot be read may have a newer set than the others.
    let mut result = match is_fresh || unread.is_empty() {
        true => judge(&jobs, context, newest.anywhere(), last_run),
        false => CheckResult::default(),
    };
    if is_fresh {
        result.rows.extend(newest.jobs.iter().flat_map(|job| lagging(job, context)));
    }
    result.unknown.extend(unread);
    Ok(result)
}

/// The stores of a job in which the copies are too old, although the database has a fresh backup.
fn lagging(job: &OfJob, context: &AuditContext<'_>) -> Vec<Row> {
    let are_several = job.stores.len() > 1;
    let stores = job.stores.iter().filter(|_| are_several);
    let lagging = stores.filter_map(|(store, newest)| {
        let newest = *newest.as_ref().ok()?;
        newest.is_none_or(|newest| context.now - newest > limit(context)).then_some((store, newest))
    });
    let row = |(store, newest): (&String, Option<DateTime<Utc>>)| {
        let has = match newest {
            Some(newest) => format!("The newest verified copy in store `{store}` is {} old", units::age(newest, context.now)),
            None => format!("There is no verified copy in store `{store}`"),
        };
        Row {
            object: format!("database {}", context.database),
            identity: Some(format!("{} in {store}", context.database)),
            issue: Some(format!(
                "{has}, although a newer one is elsewhere; backup_within allows {}.",
                context.audit.backup_within
            )),
            evidence: json!({ "jobs": [job.job], "store": store, "newest_verified": newest }).as_object().cloned(),
            command: Some(format!("pgtend run-job {} --database {}", word(&job.job), word(context.database))),
            level: Some(Level::High),
            ..Row::default()
        }
    };
    lagging.map(row).collect()
}

fn limit(context: &AuditContext<'_>) -> TimeDelta {
    TimeDelta::from_std(context.audit.backup_within.0).unwrap_or(TimeDelta::MAX)
}

async fn last_run(context: &AuditContext<'_>, jobs: &[&Other]) -> Result<Option<Run>> {
    let Some(ledger) = Ledger::to_read(context.config).await? else { return Ok(None) };
    let mut last: Option<Run> = None;
    for job in jobs {
        let filter = Filter { job: Some(&job.name), database: Some(context.database), outcome: None, limit: 1 };
        last = ledger.runs(&filter).await?.into_iter().chain(last).max_by_key(|run| run.id);
    }
    Ok(last)
}

fn judge(jobs: &[&Other], context: &AuditContext<'_>, newest: Option<DateTime<Utc>>, last_run: Option<Run>) -> CheckResult {
    let within = context.audit.backup_within;
    if newest.is_some_and(|newest| context.now - newest <= limit(context)) {
        return CheckResult::default();
    }
    let (mut issue, level) = match (newest, &last_run) {
        (Some(newest), _) => (
            format!("The newest verified backup is {} old; backup_within allows {within}.", units::age(newest, context.now)),
            Level::Critical,
        ),
        (None, Some(_)) => ("There is no verified backup, although the job has run.".to_owned(), Level::Critical),
        // A job that was set up a moment ago has not failed yet.
        (None, None) => ("There is no verified backup; no run of its job is known.".to_owned(), Level::High),
    };
    if let Some(run) = &last_run
        && let Some(error) = &run.error
    {
        issue += &format!(" Its last run: {error}");
    }
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    let row = Row {
        object: format!("database {}", context.database),
        identity: Some(context.database.to_owned()),
        issue: Some(issue),
        evidence: json!({ "jobs": names, "newest_verified": newest }).as_object().cloned(),
        command: Some(format!("pgtend run-job {} --database {}", word(names[0]), word(context.database))),
        level: Some(level),
        ..Row::default()
    };
    CheckResult::of(vec![row])
}
