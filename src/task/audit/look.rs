//! Runs the checks: each by itself, in a READ ONLY transaction, bounded in time. A check that fails does not stop the others.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::checks::{CHECKS, Check, Query};
use super::document::{Document, FORMAT, Finding, Fix, Outcome, State, TopQuery};
use super::keys::{CheckSetting, Profile};
use super::probe::{probe, reason_unknown};
use super::queries::View;
use super::trust::Trust;
use super::usage::Usage;
use super::weights::Weights;
use super::{backup, conventions, count, drift, queries, rank, served, tenants};
use crate::base::fault::{Fault, Kind};
use crate::pg::table::with_schema;
use crate::pg::{self, Server, failure};
use crate::task::audit::context::{AuditContext, CheckResult, Row, begin, end, session};
use crate::work::Does;

/// The limit for one check. A database with more rows of one kind has one problem, not thousands.
const MAX_ROWS: usize = 1000;
const MAX_REASONS: usize = 5;
const STATEMENTS: &str = "STATEMENTS";

/// Runs all checks, or one. It fails only if the connection to the server is lost.
pub async fn look(context: &AuditContext<'_>, only: Option<&Check>) -> Result<Document> {
    let mut connection = session(context).await?;
    let server = Server::of(&mut connection).await?;
    let (in_recovery, statistics_since): (bool, Option<DateTime<Utc>>) = sqlx::query_as(
        "SELECT pg_is_in_recovery(), pg_stat_get_db_stat_reset_time(oid) FROM pg_database WHERE datname = current_database()",
    )
    .fetch_one(&mut connection)
    .await?;
    let mut document = Document {
        format: FORMAT,
        pgtend_version: env!("CARGO_PKG_VERSION").to_owned(),
        job: context.job.to_owned(),
        database: context.database.to_owned(),
        server: context.settings.display(),
        server_version: server.version,
        in_recovery,
        started_at: context.now,
        finished_at: context.now,
        statistics_since,
        checks: Vec::new(),
        findings: Vec::new(),
        not_seen: Vec::new(),
        resolved: Vec::new(),
        previous: None,
        notes: Vec::new(),
        top_queries: Vec::new(),
        usage: Usage::default(),
        turned_off: Vec::new(),
    };
    count::look(&mut connection, context, &mut document).await?;
    let covered = covered(context).await?;
    let (weights, unknown) = Weights::read(&mut connection, context).await?;
    document.notes.extend(unknown);
    let mut trust = Trust::of(&mut connection, context.trust_owners).await?;
    // A check that is asked for by its name runs in any case.
    let is_off = |check: &&Check| only.is_none() && context.audit.checks.get(check.id) == Some(&CheckSetting::Off);
    let (off, checks): (Vec<&Check>, Vec<&Check>) =
        CHECKS.iter().filter(|check| only.is_none_or(|only| only.id == check.id)).partition(is_off);
    document.turned_off = off.iter().map(|check| check.id.to_owned()).collect();
    let phase = context.progress.phase("audit", None);
    for check in checks {
        let started = Instant::now();
        let seen = match &check.query {
            // It cleans up after itself when it is cancelled; the other checks leave nothing, and the server notices within two seconds
            // that the client is gone.
            Query::Drift => drift::look(context, &mut connection, in_recovery).await,
            query => tokio::select! {
                seen = one(query, context, &mut connection, &covered, &mut trust, &mut document.top_queries) => seen,
                () = context.cancel.cancelled() => Err(Fault::new(Kind::Cancelled, "cancelled").into()),
            },
        };
        let seen = match seen {
            // This ends a failed transaction; where it fails too, the connection is lost, and the other checks cannot run.
            Err(error) if failure::kind_of(&error) == Some(Kind::Cancelled) => return Err(error),
            Err(error) => {
                pg::execute(&mut connection, "ROLLBACK".to_owned()).await.with_context(|| format!("during {}", check.id))?;
                Err(error)
            }
            seen => seen,
        };
        let elapsed = started.elapsed();
        tracing::debug!(check = check.id, "{} ms", elapsed.as_millis());
        document.checks.push(note(check, seen, elapsed, context, &weights, &mut document.findings));
    }
    document.notes.extend(trust.note());
    document.finished_at = Utc::now();
    phase.done(&document.in_short());
    Ok(document)
}

async fn one(
    query: &Query,
    context: &AuditContext<'_>,
    connection: &mut PgConnection,
    covered: &Covered,
    trust: &mut Trust,
    top_queries: &mut Vec<TopQuery>,
) -> Result<CheckResult> {
    match query {
        Query::Catalog(sql) => catalog(connection, context, covered, trust, sql).await,
        Query::Statements(sql) => match queries::view(connection, trust).await? {
            View::Named(view) => catalog(connection, context, covered, trust, &sql.replace(STATEMENTS, &view)).await,
            View::Unknown(reason) => Ok(CheckResult::unknown(reason)),
        },
        Query::Backup => backup::look(context).await,
        Query::TopQueries => queries::look(context, connection, trust, top_queries).await,
        Query::Drift => Ok(CheckResult::default()),
    }
}

/// Turns the result of a check into findings and its own outcome.
fn note(
    check: &Check,
    seen: Result<CheckResult>,
    elapsed: Duration,
    context: &AuditContext<'_>,
    weights: &Weights,
    findings: &mut Vec<Finding>,
) -> Outcome {
    let mut outcome = Outcome {
        check: check.id.to_owned(),
        state: State::Ok,
        reasons: Vec::new(),
        findings: 0,
        elapsed_seconds: elapsed.as_secs_f64(),
    };
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => {
            let reason = reason_unknown(&error, context.audit.check_timeout);
            outcome.state = if reason.is_some() { State::Unknown } else { State::Failed };
            outcome.reasons = vec![reason.unwrap_or_else(|| failure::in_a_line(&error))];
            return outcome;
        }
    };
    outcome.reasons = seen.unknown;
    let (unknown, rows): (Vec<Row>, Vec<Row>) = seen.rows.into_iter().partition(|row| row.unknown.is_some());
    for reason in unknown.into_iter().filter_map(|row| row.unknown) {
        if !outcome.reasons.contains(&reason) {
            outcome.reasons.push(reason);
        }
    }
    let mut keys = HashSet::new();
    for row in tenants::fold(check.id, prepared(rows, context, weights)) {
        let key = printable(&format!("{}:{}", check.id, row.identity.as_deref().unwrap_or(&row.object)));
        if !keys.insert(key.clone()) {
            continue;
        }
        outcome.findings += 1;
        findings.push(finding(check, row, key, context));
    }
    if let Some(more) = outcome.reasons.len().checked_sub(MAX_REASONS).filter(|more| *more > 0) {
        outcome.reasons.truncate(MAX_REASONS);
        outcome.reasons.push(format!("and {more} more"));
    }
    if outcome.findings > 0 {
        outcome.state = State::Findings;
    } else if !outcome.reasons.is_empty() {
        outcome.state = State::Unknown;
    }
    outcome
}

/// Gives each row the size of its table, and marks conventions.
fn prepared(mut rows: Vec<Row>, context: &AuditContext<'_>, weights: &Weights) -> Vec<Row> {
    for row in &mut rows {
        row.weight = weights.of(&row.object);
        if context.audit.profile == Profile::Strict {
            row.convention = None;
        }
    }
    conventions::mark(&mut rows);
    rows
}

fn finding(check: &Check, row: Row, key: String, context: &AuditContext<'_>) -> Finding {
    let level = rank::level(check, &row, context.audit);
    let sql = |sql: Option<String>| sql.map(|sql| sql.trim_end().to_owned()).filter(|sql| !sql.is_empty());
    Finding {
        key,
        check: check.id.to_owned(),
        level,
        title: check.title.to_owned(),
        object: printable(&row.object),
        issue: printable(&row.issue.unwrap_or_default()),
        impact: check.why.to_owned(),
        evidence: row.evidence.unwrap_or_default(),
        fix: Fix {
            words: check.fix.to_owned(),
            sql: sql(row.fix),
            job: row.job,
            command: row.command,
            file: row.file,
            decide: row.decide.map(|decide| printable(&decide)),
            draft: sql(row.draft),
            lock: row.lock.unwrap_or_else(|| check.lock.to_owned()),
        },
        change: None,
        since: context.now,
        waiver: None,
        convention: row.convention.map(|convention| printable(&convention)),
        weight: row.weight,
    }
}

/// Removes escape sequences: a name may hold one for terminals.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

async fn catalog(
    connection: &mut PgConnection,
    context: &AuditContext<'_>,
    covered: &Covered,
    trust: &mut Trust,
    sql: &str,
) -> Result<CheckResult> {
    let prelude = include_str!("prelude.sql");
    let text = format!("{prelude}\nSELECT to_jsonb(f) FROM (\n{sql}\n) f LIMIT {}", MAX_ROWS + 1);
    begin(connection, context).await?;
    let rows = pg::query(text)
        .bind(context.audit.statistics_age.as_secs_f64())
        .bind(&covered.tables)
        .bind(context.audit.idle_after.as_secs_f64())
        .bind(&covered.columns)
        .bind(context.audit.store.as_ref().or(context.config.stores.keys().next()))
        .fetch_all(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    end(connection).await?;
    let mut seen = CheckResult::default();
    for row in rows {
        let value: Value = sqlx::Row::try_get(&row, 0)?;
        seen.rows.push(serde_json::from_value(value).context("a check's query returned unexpected columns")?);
    }
    if seen.rows.len() > MAX_ROWS {
        seen.rows.truncate(MAX_ROWS);
        seen.unknown.push(format!("only the first {MAX_ROWS} are listed"));
    }
    probe(connection, context, trust, &mut seen).await?;
    served::ask(connection, context, trust, &mut seen).await?;
    Ok(seen)
}

/// The tables and columns that jobs of the configuration take care of.
#[derive(Debug, Default)]
struct Covered {
    /// Covered by a [retention] or [partition] job.
    tables: Vec<i64>,
    /// Covered by a [compress] job: `TABLE:NAME`, the table as its oid.
    columns: Vec<String>,
}

async fn covered(context: &AuditContext<'_>) -> Result<Covered> {
    let mut connection = session(context).await?;
    let mut covered = Covered::default();
    for job in context.others.iter().filter(|job| job.enabled && job.runs_on(context.database)) {
        let (table, column) = match &job.does {
            Does::Retention { table } | Does::Partition { table } => (table, None),
            Does::Compress { table, column } => (table, Some(column)),
            Does::Backup { .. } | Does::Else => continue,
        };
        // A table whose name cannot be parsed is reported by its own job.
        let oid: Result<Option<i64>, _> =
            sqlx::query_scalar("SELECT to_regclass($1)::oid::bigint").bind(with_schema(table)).fetch_one(&mut connection).await;
        match (oid.ok().flatten(), column) {
            (Some(oid), Some(column)) => covered.columns.push(format!("{oid}:{column}")),
            (Some(oid), None) => covered.tables.push(oid),
            (None, _) => (),
        }
    }
    Ok(covered)
}
