//! The pages for people. Each answers from the ledger, except those that show what is in a store, which wait some seconds for it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use chrono::Utc;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::block_in_place;

use super::read::{add_report, reachable, safety, seen, some, unasked, with_history};
use super::site::Site;
use super::stored;
use crate::ledger::report::Outcome;
use crate::ledger::{self, Key};
use crate::pg::failure;
use crate::run::covered::backs_up_all;
use crate::run::job::Job;
use crate::run::standing::Unasked;
use crate::task::audit;
use crate::task::backup::set_name::SetName;
use crate::task::partition::Partition;
use crate::task::retention::Retention;
use crate::web::choice::{Choice, Filter, ROWS};
use crate::web::page::job::{LastReport, SetMade};
use crate::web::page::{self, Frame, Overview};
use crate::web::safety::DatabaseStatus;
use crate::web::status::JobStatus;

/// The sets that a database's page lists.
const SETS: i64 = 30;

/// A person waits no longer for a store.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub async fn index(State(site): State<Arc<Site>>, Query(filter): Query<Filter>) -> Html<String> {
    let seen = seen(&site).await;
    let safety = safety(&site, &seen.status.jobs, unasked(&site, seen.status.ledger_error.as_deref()).as_ref());
    let mut choice = block_in_place(|| Choice::of(&seen.status.jobs, &filter));
    with_history(&site, &mut choice).await;
    let overview = Overview {
        status: &seen.status,
        safety: &safety,
        has_stores: !site.scheduler.context().config.stores.is_empty(),
        timeline: &seen.timeline,
        filter: &filter,
        choice: &choice,
    };
    Html(block_in_place(|| page::render(&overview)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfJob {
    #[serde(alias = "job")]
    name: String,
    database: String,
}

pub async fn job(State(site): State<Arc<Site>>, Query(OfJob { name, database }): Query<OfJob>) -> Response {
    let frame = frame(&site);
    let Some(job) = configured(&site, &name, &database) else {
        return missing(&frame, &format!("There is no job {name} on {database}"));
    };
    let archives = archive_of(&job).is_some();
    let backs_up = backs_up_all(&job);
    let (jobs, error) = some(&site, &[Job { databases: vec![database.clone()], ..job }]).await;
    let safety = if backs_up { of_database(&site, &database, &jobs, unasked(&site, error.as_deref()).as_ref()) } else { None };
    let Some(mut shown) = jobs.into_iter().next() else {
        return missing(&frame, "There is no such job");
    };
    let report = last_reports(&site, &[(name, database)], 1).await.pop();
    let mut last = LastReport::default();
    if let Some(row) = report {
        add_report(&mut shown, &row);
        if let Some(report) = row.report {
            last = LastReport { run: row.id, until: report.covered_until(), facts: report.facts };
        }
    }
    block_in_place(|| Html(page::job::render(&frame, &shown, &last, archives, safety.as_ref()))).into_response()
}

/// None while the ledger is away, as the page says.
async fn last_reports(site: &Site, keys: &[Key], count: i64) -> Vec<ledger::Row> {
    match reachable(site) {
        Ok(ledger) if !keys.is_empty() => ledger.last_reports(keys, count).await.unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    name: String,
}

pub async fn database(State(site): State<Arc<Site>>, Query(Named { name }): Query<Named>) -> Response {
    let frame = frame(&site);
    let context = site.scheduler.context();
    if context.config.place(&name).is_none() {
        return missing(&frame, &format!("The configuration has no database {name}"));
    }
    let on_it = context.jobs.iter().filter(|job| job.would_run_on(&name, &context.config));
    let on_it: Vec<Job> = on_it.map(|job| Job { databases: vec![name.clone()], ..job.clone() }).collect();
    let (shown, more) = on_it.split_at(on_it.len().min(ROWS));
    let (jobs, error) = some(&site, shown).await;
    let safety = of_database(&site, &name, &jobs, unasked(&site, error.as_deref()).as_ref());
    let backups: Vec<Key> = jobs.iter().filter(|job| job.task == "backup").map(|job| (job.job.clone(), name.clone())).collect();
    let sets = sets_made(last_reports(&site, &backups, SETS).await);
    block_in_place(|| Html(page::job::database(&frame, &name, safety.as_ref(), &sets, &jobs, more.len()))).into_response()
}

/// Whether a database is safe, whether it has an entry or was found.
fn of_database(site: &Site, name: &str, jobs: &[JobStatus], unasked: Option<&Unasked>) -> Option<DatabaseStatus> {
    let with_entry = safety(site, jobs, unasked).into_iter().find(|database| database.name == name);
    with_entry.or_else(|| {
        let late = jobs.iter().filter(|job| job.task == "backup" && job.late && job.enabled).map(|job| job.job.clone());
        site.safe.of_found(&site.scheduler.context(), name, late.collect(), unasked)
    })
}

/// The sets of these runs, the newest first.
fn sets_made(rows: Vec<ledger::Row>) -> Vec<SetMade> {
    let of = |row: ledger::Row| {
        let facts = row.report?.facts;
        let text = |name: &str| facts.get(name).and_then(Value::as_str).map(str::to_owned);
        let bytes = facts.get("dump_bytes").and_then(Value::as_u64);
        Some(SetMade { run: row.id, at: row.finished_at?, set: text("set")?, bytes, verified: text("verified") })
    };
    let mut sets: Vec<SetMade> = rows.into_iter().filter_map(of).collect();
    sets.sort_by_key(|set| std::cmp::Reverse(set.run));
    sets.truncate(SETS as usize);
    sets
}

pub async fn run(State(site): State<Arc<Site>>, Path(id): Path<i64>) -> Result<Response, Sorry> {
    let frame = frame(&site);
    let read = async {
        let ledger = reachable(&site)?;
        let Some(row) = ledger.run(id).await? else { return Ok(None) };
        let attempts = ledger.attempts(row.retry_of.unwrap_or(row.id)).await?;
        Ok(Some((row, attempts)))
    };
    match read.await.map_err(|error| Sorry::of(&frame, &error))? {
        Some((row, attempts)) => Ok(block_in_place(|| Html(page::run::render(&frame, &row, &attempts))).into_response()),
        None => Ok(missing(&frame, &format!("There is no run {id}"))),
    }
}

pub async fn runs(State(site): State<Arc<Site>>, Query(filter): Query<page::runs::Filter>) -> Result<Response, Sorry> {
    let frame = frame(&site);
    let is_set = |text: &str| !text.is_empty();
    let outcome = Some(filter.outcome.as_str()).filter(|text| is_set(text)).map(str::parse::<Outcome>).transpose();
    let Ok(outcome) = outcome else {
        let page = page::sorry(&frame, "No such outcome", &outcome.err().unwrap_or_default());
        return Ok((StatusCode::BAD_REQUEST, Html(page)).into_response());
    };
    let asked = ledger::Filter {
        job: Some(filter.job.as_str()).filter(|text| is_set(text)),
        database: Some(filter.database.as_str()).filter(|text| is_set(text)),
        outcome,
        limit: page::runs::ROWS,
    };
    let read = async { reachable(&site)?.runs_in_brief_before(&asked, filter.before).await };
    let runs = read.await.map_err(|error| Sorry::of(&frame, &error))?;
    Ok(block_in_place(|| Html(page::runs::render(&frame, &filter, &runs))).into_response())
}

pub async fn set(State(site): State<Arc<Site>>, Query(Named { name }): Query<Named>) -> Result<Response, Sorry> {
    let frame = frame(&site);
    let Ok(name) = name.parse::<SetName>() else {
        return Ok(missing(&frame, "A set is named DATABASE/JOB/TIME"));
    };
    let config = site.scheduler.context().config;
    let seen = stored::set(&config, name, PATIENCE).await;
    let status = if seen.copies.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    Ok((status, block_in_place(|| Html(page::set::render(&frame, &seen)))).into_response())
}

/// The report of the last audit, as it was written: a document of its own.
pub async fn audit(State(site): State<Arc<Site>>, Query(OfJob { name, database }): Query<OfJob>) -> Result<Response, Sorry> {
    let frame = frame(&site);
    let job = configured(&site, &name, &database);
    let store = job.as_ref().and_then(|job| job.task.as_a::<audit::Audit>()?.store.clone());
    let Some(store) = store else {
        return Ok(missing(&frame, &format!("Job {name} on {database} keeps no audits")));
    };
    let config = site.scheduler.context().config;
    let read = stored::audit(&config, &store, &database, &name);
    match tokio::time::timeout(PATIENCE, read).await.context("the store did not answer in time").flatten() {
        Ok(Some(document)) => Ok(block_in_place(|| Html(audit::html::render(&document))).into_response()),
        Ok(None) => Ok(missing(&frame, &format!("There is no audit of {database} by {name} yet"))),
        Err(error) => Err(Sorry::of(&frame, &error)),
    }
}

pub async fn archive(State(site): State<Arc<Site>>, Query(OfJob { name, database }): Query<OfJob>) -> Result<Response, Sorry> {
    let frame = frame(&site);
    let Some(store) = configured(&site, &name, &database).and_then(|job| archive_of(&job)) else {
        return Ok(missing(&frame, &format!("Job {name} on {database} archives no rows")));
    };
    let config = site.scheduler.context().config;
    let read = stored::archive(&config, &store, &database, &name);
    match tokio::time::timeout(PATIENCE, read).await.context("the store did not answer in time").flatten() {
        Ok((batches, troubles)) => {
            Ok(block_in_place(|| Html(page::archive(&frame, &name, &database, &batches, &troubles))).into_response())
        }
        Err(error) => Err(Sorry::of(&frame, &error)),
    }
}

pub(super) fn frame(site: &Site) -> Frame {
    Frame {
        host: ledger::host(),
        version: env!("CARGO_PKG_VERSION"),
        started_at: site.started_at,
        now: Utc::now(),
        note: site.scheduler.ledger_error(),
        has_actions: site.actions_token.is_some(),
    }
}

/// A job on a database that it has, by what servers answered: nothing is done on another one.
pub(super) fn found(site: &Site, name: &str, database: &str) -> Option<Job> {
    let jobs = site.scheduler.context().jobs;
    jobs.iter().find(|job| job.name == name && job.runs_on(database)).cloned()
}

/// A job of which something is shown: also on a database that went, whose sets and archives stay.
fn configured(site: &Site, name: &str, database: &str) -> Option<Job> {
    let context = site.scheduler.context();
    context.jobs.iter().find(|job| job.name == name && job.would_run_on(database, &context.config)).cloned()
}

/// The store to which a job archives rows.
fn archive_of(job: &Job) -> Option<String> {
    let retention = job.task.as_a::<Retention>().and_then(|task| task.archive.clone());
    retention.or_else(|| job.task.as_a::<Partition>()?.archive.clone())
}

fn missing(frame: &Frame, what: &str) -> Response {
    (StatusCode::NOT_FOUND, Html(page::sorry(frame, what, "It may have gone since the link was made."))).into_response()
}

/// A page that says why there is no other.
pub struct Sorry(String);

impl Sorry {
    fn of(frame: &Frame, error: &anyhow::Error) -> Self {
        Self(page::sorry(frame, "This cannot be shown now", &failure::in_a_line(error)))
    }
}

impl IntoResponse for Sorry {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, Html(self.0)).into_response()
    }
}
