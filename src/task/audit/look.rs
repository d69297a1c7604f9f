//! Runs the checks: each by itself, in a READ ONLY transaction, bounded in time. A check that fails does not stop the others.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::checks::{CHECKS, Check, Query};
use super::document::{Document, FORMAT, Finding, Fix, Level, Outcome, State, TopQuery};
use super::probe::{probe, reason_unknown};
use super::queries::View;
use super::trust::Trust;
use super::{backup, drift, queries};
use crate::base::fault::{Fault, Kind};
use crate::pg::table::with_schema;
use crate::pg::{self, Server, failure};
use crate::task::audit::context::{AuditContext, CheckResult, Row, begin, end, session};
use crate::work::Does;

/// The limit for one check. A database with more rows of one kind has one problem, not thousands.
const MAX_ROWS: usize = 1000;
const MAX_REASONS: usize = 5;
/// This many schemas with the same finding are tenants.
const SCHEMAS_TO_FOLD: usize = 10;
const SQL_OF_FOLDED: usize = 50;
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
    };
    let covered = covered(context).await?;
    let mut trust = Trust::of(&mut connection, context.trust_owners).await?;
    let checks: Vec<&Check> = CHECKS.iter().filter(|check| only.is_none_or(|only| only.id == check.id)).collect();
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
        document.checks.push(note(check, seen, elapsed, context, &mut document.findings));
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
    for row in group_tenants(check.id, rows) {
        let key = printable(&format!("{}:{}", check.id, row.identity.as_deref().unwrap_or(&row.object)));
        if !keys.insert(key.clone()) {
            continue;
        }
        outcome.findings += 1;
        findings.push(Finding {
            key,
            check: check.id.to_owned(),
            level: row.level.unwrap_or(check.level),
            title: check.title.to_owned(),
            object: printable(&row.object),
            issue: printable(&row.issue.unwrap_or_default()),
            impact: check.why.to_owned(),
            evidence: row.evidence.unwrap_or_default(),
            fix: Fix {
                words: check.fix.to_owned(),
                sql: row.fix.map(|sql| sql.trim_end().to_owned()).filter(|sql| !sql.is_empty()),
                job: row.job,
                command: row.command,
                file: row.file,
                lock: row.lock.unwrap_or_else(|| check.lock.to_owned()),
            },
            change: None,
            since: context.now,
            waiver: None,
        });
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

/// Merges the same finding in many schemas (one for each tenant) into one: its key has `*` for the schema, and its SQL covers all.
fn group_tenants(check: &str, rows: Vec<Row>) -> Vec<Row> {
    let mut folded: BTreeMap<(Option<Level>, String), Vec<Row>> = BTreeMap::new();
    let mut kept = Vec::new();
    for row in rows {
        let rest = match check {
            "comments-missing" => Some(""), // its object is the schema
            _ => after_schema(row.identity.as_deref().unwrap_or(&row.object)),
        };
        match rest.map(str::to_owned) {
            Some(rest) => folded.entry((row.level, rest)).or_default().push(row),
            None => kept.push(row),
        }
    }
    for ((_, rest), mut same) in folded {
        if same.len() < SCHEMAS_TO_FOLD {
            kept.append(&mut same);
            continue;
        }
        same.sort_by(|a, b| a.object.cmp(&b.object));
        let count = same.len();
        let all = |of: fn(&Row) -> Option<&str>| {
            let parts: Vec<&str> = same.iter().filter_map(of).take(SQL_OF_FOLDED).collect();
            let more =
                if count > SQL_OF_FOLDED { format!("\n-- and so on, in {} more", count - SQL_OF_FOLDED) } else { String::new() };
            (!parts.is_empty()).then(|| parts.join("\n") + &more)
        };
        let fix = all(|row| row.fix.as_deref());
        let schemas: Vec<String> = same.iter().map(|row| row.object.clone()).take(SQL_OF_FOLDED).collect();
        let mut first = same.swap_remove(0);
        first.issue = Some(format!("{} The same holds in {} other schemas.", first.issue.unwrap_or_default(), count - 1));
        first.evidence.get_or_insert_default().insert("in".to_owned(), json!(schemas));
        first.fix = fix;
        first.identity = Some(format!("*{rest}"));
        first.object = format!("*{}", after_schema(&first.object).unwrap_or_default());
        kept.push(first);
    }
    kept
}

/// Returns the part after the schema in `schema.table…`, with its dot; a quoted schema may contain dots. None where there is no schema.
fn after_schema(name: &str) -> Option<&str> {
    let end = match name.strip_prefix('"') {
        None => name.find('.')?,
        Some(quoted) => 2 + quoted.replace("\"\"", "..").find('"')?,
    };
    let is_name = name[..end].chars().all(|letter| letter != ' ' && letter != '(') || name.starts_with('"');
    name.get(end..).filter(|rest| is_name && rest.starts_with('.'))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_schema_is_found_in_plain_and_quoted_names() {
        assert_eq!(after_schema("public.orders(user_id)"), Some(".orders(user_id)"));
        assert_eq!(after_schema(r#""a.""b".orders"#), Some(".orders"));
        for without in ["server", "role x.y", "max_connections", r#""open"#, "f(a.b)"] {
            assert_eq!(after_schema(without), None, "{without}");
        }
    }

    #[test]
    fn the_same_finding_in_ten_schemas_is_one_with_the_sql_of_all() {
        let row = |schema: usize, table: &str| Row {
            object: format!("t{schema:02}.{table}"),
            issue: Some("It.".to_owned()),
            fix: Some(format!("FIX {schema};")),
            ..Row::default()
        };
        let nine: Vec<Row> = (0..9).map(|schema| row(schema, "users")).collect();
        assert_eq!(group_tenants("c", nine).len(), 9);
        let rows = (0..10).map(|schema| row(schema, "users")).chain([row(0, "docs")]).collect();
        let folded = group_tenants("c", rows);
        let identities: Vec<_> = folded.iter().map(|row| row.identity.as_deref().unwrap_or(&row.object)).collect();
        assert_eq!(identities, ["t00.docs", "*.users"]);
        assert_eq!(folded[1].fix.as_deref().unwrap().lines().count(), 10);
        assert!(folded[1].issue.as_deref().unwrap().contains("9 other schemas"));
    }
}
