//! Runs the checks: each by itself, in a READ ONLY transaction, bounded in time. A check that fails does not stop the others.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::checks::{CHECKS, Check, Query};
use super::document::{Cut, Document, FORMAT, Finding, Fix, Level, Outcome, State};
use super::keys::{CheckSetting, Profile};
use super::probe::{probe, reason_unknown};
use super::queries::View;
use super::sizes::Sizes;
use super::trust::Trust;
use super::usage::Usage;
use super::weights::Weights;
use super::{backup, conventions, count, drift, numbers, queries, rank, served, tenants, tried, versions};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::pg::table::with_schema;
use crate::pg::{self, Server, failure};
use crate::task::audit::context::{AuditContext, CheckResult, Row, begin, end, session};
use crate::work::Does;

/// The limit of findings for one check. A database with more of one kind has one problem, not thousands: the most urgent are listed.
const MAX_FINDINGS: usize = 1000;
/// The limit of rows that a check reads to find the most urgent: some 40 MB.
const MAX_ROWS: usize = 20_000;
const MAX_REASONS: usize = 5;
/// Before the number of a control character in a key.
const ESCAPE: char = '␛';
const STATEMENTS: &str = "STATEMENTS";
/// The words of a query that locks sequences: how many parts there are, and which one is read.
const PARTS: [&str; 2] = ["OF_PARTS", "THIS_PART"];
/// A transaction has room for 6,400 locks by default (64 of 100 sessions).
const SEQUENCES_IN_PART: i64 = 3000;

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
        baseline: None,
        usage: Usage::default(),
        turned_off: Vec::new(),
    };
    let end = Instant::now() + context.audit.audit_timeout;
    numbers::look(&mut connection, &context.of_check(end), &mut document).await?;
    let (sizes, notes) = Sizes::ask(&mut connection, &context.of_check(end)).await?;
    document.notes.extend(notes);
    count::look(&mut connection, &context.of_check(end), &mut document).await?;
    let (weights, unknown) = Weights::read(&mut connection, &context.of_check(end), &sizes).await?;
    document.notes.extend(unknown);
    let known = Known { covered: covered(context).await?, sizes, weights };
    let mut trust = Trust::of(&mut connection, context.trust_owners).await?;
    // A check that is asked for by its name runs in any case.
    let is_off = |check: &&Check| only.is_none() && context.audit.checks.get(check.id) == Some(&CheckSetting::Off);
    let (off, mut checks): (Vec<&Check>, Vec<&Check>) =
        CHECKS.iter().filter(|check| only.is_none_or(|only| only.id == check.id)).partition(is_off);
    document.turned_off = off.iter().map(|check| check.id.to_owned()).collect();
    // Where the time does not suffice for all, the most urgent are made.
    checks.sort_by_key(|check| check.level);
    let phase = context.progress.phase("audit", None);
    for check in checks {
        let started = Instant::now();
        let context = &context.of_check(end);
        let seen = match &check.query {
            _ if started >= end => Ok(CheckResult::unknown(format!(
                "it was not made: the audit took longer than {} (audit_timeout)",
                units::duration(context.audit.audit_timeout)
            ))),
            // It cleans up after itself when it is cancelled; the other checks leave nothing, and the server notices within two seconds
            // that the client is gone.
            Query::Drift => drift::look(context, &mut connection, in_recovery, end).await,
            _ => tokio::select! {
                seen = one(check, context, &mut connection, &known, &mut trust, &mut document) => seen,
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
        document.checks.push(note(check, seen, elapsed, context, &known.weights, &mut document.findings));
    }
    document.checks.sort_by_key(|outcome| CHECKS.iter().position(|check| check.id == outcome.check));
    document.notes.extend(trust.note());
    document.finished_at = Utc::now();
    phase.done(&document.in_short());
    Ok(document)
}

/// What all checks need, read once.
struct Known {
    covered: Covered,
    sizes: Sizes,
    weights: Weights,
}

async fn one(
    check: &Check,
    context: &AuditContext<'_>,
    connection: &mut PgConnection,
    known: &Known,
    trust: &mut Trust,
    document: &mut Document,
) -> Result<CheckResult> {
    match &check.query {
        Query::Catalog(sql) => catalog(connection, context, known, trust, check, sql).await,
        Query::Statements(sql) => match queries::view(connection, trust).await? {
            View::Named(view) => catalog(connection, context, known, trust, check, &sql.replace(STATEMENTS, &view)).await,
            View::Unknown(reason) => Ok(CheckResult::unknown(reason)),
        },
        Query::Backup => backup::look(context).await,
        Query::TopQueries => queries::look(context, connection, trust, document).await,
        Query::Versions(of) => versions::look(*of, context, connection).await,
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
        cut: None,
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
    let (mut listed, cut) = listed(check, rows, seen.unread, context, weights);
    outcome.findings = listed.len();
    findings.append(&mut listed);
    if let Some(more) = outcome.reasons.len().checked_sub(MAX_REASONS).filter(|more| *more > 0) {
        outcome.reasons.truncate(MAX_REASONS);
        outcome.reasons.push(format!("and {more} more"));
    }
    if let Some(cut) = cut {
        let least = if seen.unread.is_some() { "at least " } else { "" };
        let more = units::plural(cut.findings, "finding");
        let reason = format!("only the {} most urgent are listed: {least}{more} more, {} at most", outcome.findings, cut.level);
        outcome.reasons.insert(0, reason);
        outcome.cut = Some(cut);
    }
    if outcome.findings > 0 {
        outcome.state = State::Findings;
    } else if !outcome.reasons.is_empty() {
        outcome.state = State::Unknown;
    }
    outcome
}

/// Returns the findings that are listed, the most urgent first, and what is cut.
fn listed(
    check: &Check,
    rows: Vec<Row>,
    unread: Option<Level>,
    context: &AuditContext<'_>,
    weights: &Weights,
) -> (Vec<Finding>, Option<Cut>) {
    let today = context.now.date_naive();
    // A waiver of one schema's finding holds although others have the same: that finding is not made part of theirs.
    let is_waived = |identity: &str| {
        let key = key(check, identity);
        context.audit.waive.iter().any(|waiver| waiver.until >= today && waiver.fits(&key))
    };
    let is_waived_alone = |identity: &str, folded: &str| is_waived(identity) && !is_waived(folded);
    let mut rows = by_urgency(check, rows, context, weights);
    conventions::mark(&mut rows);
    let mut rows = tenants::fold(check.id, rows, is_waived_alone);
    rows.sort_by_cached_key(|row| rank::urgency(check, row, context.audit));
    let mut keys = HashSet::new();
    rows.retain(|row| keys.insert(key(check, row.identity())));
    let rest = rows.split_off(rows.len().min(MAX_FINDINGS));
    let level = rest.first().map(|row| rank::level(check, row, context.audit)).into_iter().chain(unread).min();
    let cut = level.map(|level| Cut { findings: rest.len() + usize::from(unread.is_some()), level });
    (rows.into_iter().map(|row| finding(check, row, context)).collect(), cut)
}

/// Gives each row the size of its table, and puts the most urgent first.
fn by_urgency(check: &Check, mut rows: Vec<Row>, context: &AuditContext<'_>, weights: &Weights) -> Vec<Row> {
    for row in &mut rows {
        row.weight = weights.of(&row.object);
        if context.audit.profile == Profile::Strict {
            row.convention = None;
        }
    }
    rows.sort_by_cached_key(|row| rank::urgency(check, row, context.audit));
    rows
}

/// Returns the key of a finding: the same from one audit to the next, and another one for another object.
fn key(check: &Check, identity: &str) -> String {
    let mut key = format!("{}:", check.id);
    for letter in identity.chars() {
        match letter {
            // A name may hold escape sequences for terminals, and two names may differ in those alone.
            _ if letter.is_control() => key += &format!("{ESCAPE}{:02X}", u32::from(letter)),
            ESCAPE => key.extend([ESCAPE, ESCAPE]),
            letter => key.push(letter),
        }
    }
    key
}

fn finding(check: &Check, row: Row, context: &AuditContext<'_>) -> Finding {
    let level = rank::level(check, &row, context.audit);
    let key = key(check, row.identity());
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
    known: &Known,
    trust: &mut Trust,
    check: &Check,
    sql: &str,
) -> Result<CheckResult> {
    let parts = if sql.contains(PARTS[0]) { parts(connection).await? } else { 1 };
    let mut read = Vec::new();
    for part in 0..parts {
        let sql = sql.replace(PARTS[0], &parts.to_string()).replace(PARTS[1], &part.to_string());
        read.extend(rows(connection, context, known, check, &sql).await?);
    }
    // The rows of each part come in the order of their levels.
    read.sort_by_key(|row: &Row| row.level.unwrap_or(check.level));
    let next = (read.len() > MAX_ROWS).then(|| read.split_off(MAX_ROWS).into_iter().next()).flatten();
    let mut seen = CheckResult::of(by_urgency(check, read, context, &known.weights));
    seen.unread = next.as_ref().filter(|row| row.is_certain()).map(|row| row.level.unwrap_or(check.level));
    if next.is_some_and(|row| !row.is_certain()) {
        seen.unknown.push(format!("there are more than {MAX_ROWS} objects to look at: the others were not looked at"));
    }
    probe(connection, context, trust, &mut seen).await?;
    served::ask(connection, context, trust, &mut seen).await?;
    tried::ask(connection, context, trust, &mut seen).await?;
    Ok(seen)
}

/// How many transactions it takes to read all sequences that may end.
async fn parts(connection: &mut PgConnection) -> Result<i64> {
    let sequences: i64 =
        sqlx::query_scalar(include_str!("sequences.sql")).fetch_one(connection).await.map_err(pg::in_its_own_words)?;
    Ok(sequences / SEQUENCES_IN_PART + 1)
}

/// Runs a check's query.
async fn rows(
    connection: &mut PgConnection,
    context: &AuditContext<'_>,
    known: &Known,
    check: &Check,
    sql: &str,
) -> Result<Vec<Row>> {
    let prelude = include_str!("prelude.sql");
    // OFFSET 0: each row is made once, not for the order again.
    let text = format!(
        "{prelude}\nSELECT value FROM (SELECT to_jsonb(f) AS value FROM (\n{sql}\n) f OFFSET 0) f
         ORDER BY array_position(ARRAY['critical', 'high', 'medium', 'low'], coalesce(value ->> 'level', '{}')) LIMIT {}",
        check.level,
        MAX_ROWS + 1
    );
    begin(connection, context).await?;
    let rows = pg::query(text)
        .bind(context.audit.statistics_age.as_secs_f64())
        .bind(&known.covered.tables)
        .bind(context.audit.idle_after.as_secs_f64())
        .bind(&known.covered.columns)
        .bind(context.audit.store.as_ref().or(context.config.stores.keys().next()))
        .bind(&known.sizes.oids)
        .bind(&known.sizes.bytes)
        .fetch_all(&mut *connection)
        .await
        .map_err(pg::in_its_own_words)?;
    end(connection).await?;
    let read = |row: sqlx::postgres::PgRow| -> Result<Row> {
        let value: Value = sqlx::Row::try_get(&row, 0)?;
        serde_json::from_value(value).context("a check's query returned unexpected columns")
    };
    rows.into_iter().map(read).collect()
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
