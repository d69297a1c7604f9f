//! The statements that take most of the server's time, kept from one audit to the next.

use std::collections::HashMap;

use anyhow::Result;
use serde_json::json;
use sqlx::PgConnection;

use super::baseline::Statements;
use super::context;
use super::context::{AuditContext, CheckResult, Row};
use super::document::{Document, TopQuery};
use super::trust::Trust;
use crate::base::units;
use crate::pg;

const NOT_THERE: &str = "pg_stat_statements is not installed: shared_preload_libraries = 'pg_stat_statements', and CREATE EXTENSION pg_stat_statements";

/// More than this are too many to read.
const KEPT: i64 = 20;
/// A statement with fewer calls may be slower by chance.
const MIN_CALLS: i64 = 20;
const MIN_MILLISECONDS: f64 = 5.0;

/// Statements of the audit and of its run: those into tables are marked, those into the ledger name its schema, and all others name the system's catalogs. Another program's
/// that do so by the same login are left out with them: nothing tells them apart.
const OURS: &str = r"(query LIKE '%/* pgtend */%' OR query LIKE '%-- pgtend %' OR query ~ '\mpgtend\.' OR userid = (SELECT oid FROM pg_roles WHERE rolname = current_user)
    AND query ~* '\mpg_(catalog|class|namespace|stat\w*|database\w*|roles|extension\w*|locks|settings|inherits|proc|index|type|depend|attribute|constraint|auth\w*|trigger|available_extensions|advisory_unlock_all)\M')";

/// Whether a replica could run a statement, by its text: it has no word of a statement that writes, and calls no function that may write. What a view or an operator calls is
/// not seen.
const READS_ONLY: &str = r#"(query ~* '^\s*(select|with)\M' AND query !~* '\m(insert|update|delete|merge|into)\M' AND query !~* '\mfor\s+(key\s+)?share\M'
    AND query !~* '\m(nextval|setval|pg_(try_)?advisory\w*|pg_notify|lo_\w+|pg_logical\w*|pg_create\w*|pg_drop\w*|pg_switch_wal|txid_current|pg_current_xact_id)\s*\('
    AND NOT EXISTS (SELECT FROM regexp_matches(query, '([[:alpha:]_][[:alnum:]_$]*)"?\s*\(', 'g') w JOIN pg_proc p ON p.proname IN (w[1], lower(w[1])) AND p.provolatile = 'v' AND p.pronamespace <> 'pg_catalog'::regnamespace))"#;

/// The view pg_stat_statements.
pub enum View {
    /// With its schema, quoted.
    Named(String),
    /// The reason why it is not read.
    Unknown(String),
}

/// Finds the view.
pub async fn view(connection: &mut PgConnection, trust: &mut Trust) -> Result<View> {
    let found: Option<(String, i64)> = sqlx::query_as(
        "SELECT n.nspname::text, c.oid::bigint FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace JOIN pg_class c ON c.relnamespace = n.oid
         WHERE e.extname = 'pg_stat_statements' AND c.relname = e.extname",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some((schema, oid)) = found else { return Ok(View::Unknown(NOT_THERE.to_owned())) };
    // The schema's owner could put another view in the place, at any time.
    if let Some(code) = trust.refused(connection, oid).await? {
        return Ok(View::Unknown(trust.reasons(&[("pg_stat_statements".to_owned(), code)]).join("; ")));
    }
    let view = pg::qualified(&schema, "pg_stat_statements");
    // This fails where its library is not loaded: a query that happens to need no row of the view would not notice.
    pg::fetch_text(connection, format!("SELECT ''::text FROM {view} LIMIT 1")).await?;
    Ok(View::Named(view))
}

pub async fn look(
    context: &AuditContext<'_>,
    connection: &mut PgConnection,
    trust: &mut Trust,
    document: &mut Document,
) -> Result<CheckResult> {
    let view = match view(connection, trust).await? {
        View::Named(view) => view,
        View::Unknown(reason) => return Ok(CheckResult::unknown(reason)),
    };
    context::begin(connection, context).await?;
    // Only statements whose constants were replaced: utility statements are stored as they were typed, with passwords. Statements of other
    // roles are hidden from roles outside pg_read_all_stats.
    let of_database =
        format!("FROM {view} WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND NOT {OURS}");
    let sql = format!(
        "SELECT query_id, left(regexp_replace(query, '\\s+', ' ', 'g'), 400) AS query, calls, total_seconds, total_seconds * 1000 / greatest(calls::float8, 1) AS mean_milliseconds, rows, {READS_ONLY} AS reads_only
         FROM (SELECT queryid::text AS query_id, min(query) AS query, sum(calls)::bigint AS calls, sum(total_exec_time) / 1000 AS total_seconds, sum(rows)::bigint AS rows
               {of_database} AND queryid IS NOT NULL AND query ~* '^\\s*(select|insert|update|delete|merge|with)\\M'
               GROUP BY queryid ORDER BY sum(total_exec_time) DESC LIMIT {KEPT}) q
         ORDER BY total_seconds DESC"
    );
    let found = pg::fetch_all_as::<TopQuery>(connection, sql).await?;
    let seconds =
        pg::fetch_text(connection, format!("SELECT (coalesce(sum(total_exec_time), 0) / 1000)::text {of_database}")).await?;
    let hidden =
        pg::fetch_text(connection, format!("SELECT count(*)::text FROM {view} WHERE query = '<insufficient privilege>'")).await?;
    context::end(connection).await?;
    let mut seen = CheckResult::of(slower(context.baseline, &found));
    if let Some(hidden) = hidden.filter(|hidden| hidden != "0") {
        seen.unknown.push(format!(
            "{} of other roles hidden: GRANT pg_monitor",
            units::plural(hidden.parse::<u64>().unwrap_or_default(), "statement")
        ));
    }
    document.baseline.get_or_insert_default().statements = Some(Statements {
        top: found.len(),
        read_only: found.iter().filter(|query| query.reads_only).count(),
        read_only_seconds: found.iter().filter(|query| query.reads_only).map(|query| query.total_seconds).sum(),
        seconds: seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or_default(),
    });
    document.top_queries = found;
    Ok(seen)
}

/// Returns statements whose mean since the last audit is at least twice what it was then.
fn slower(before: &[TopQuery], now: &[TopQuery]) -> Vec<Row> {
    let before: HashMap<&str, &TopQuery> = before.iter().map(|query| (query.query_id.as_str(), query)).collect();
    let mut rows = Vec::new();
    for query in now {
        let Some(then) = before.get(query.query_id.as_str()) else { continue };
        // Counters that are lower than before have been reset: all of them count since then.
        let (calls, seconds) = match query.calls - then.calls {
            0.. if query.total_seconds >= then.total_seconds => {
                (query.calls - then.calls, query.total_seconds - then.total_seconds)
            }
            _ => (query.calls, query.total_seconds),
        };
        if calls < MIN_CALLS {
            continue;
        }
        let mean = seconds * 1000.0 / calls as f64;
        if mean >= MIN_MILLISECONDS && mean >= 2.0 * then.mean_milliseconds {
            let evidence = json!({ "calls": calls, "mean_milliseconds": mean, "mean_milliseconds_before": then.mean_milliseconds, "query": query.query });
            rows.push(Row {
                object: format!("statement {}", query.query_id),
                identity: Some(query.query_id.clone()),
                issue: Some(format!(
                    "It took {mean:.1} ms on average since the last audit, and {:.1} ms before: {}",
                    then.mean_milliseconds, query.query
                )),
                evidence: evidence.as_object().cloned(),
                ..Row::default()
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(id: &str, calls: i64, mean: f64) -> TopQuery {
        TopQuery {
            query_id: id.to_owned(),
            query: "SELECT $1".to_owned(),
            calls,
            total_seconds: calls as f64 * mean / 1000.0,
            mean_milliseconds: mean,
            rows: 0,
            reads_only: false,
        }
    }

    #[test]
    fn slower_is_what_takes_twice_as_long_since_the_last_audit() {
        let then = [query("1", 1000, 10.0)];
        let after = |calls: i64, mean: f64| {
            let mut now = query("1", 1000 + calls, 0.0);
            now.total_seconds = then[0].total_seconds + calls as f64 * mean / 1000.0;
            slower(&then, &[now]).len()
        };
        assert_eq!(after(100, 25.0), 1, "the mean of all calls hides it");
        assert_eq!(after(100, 15.0), 0);
        assert_eq!(after(5, 500.0), 0, "too few to tell");
        assert_eq!(slower(&then, &[query("1", 50, 30.0)]).len(), 1, "counters were reset");
        assert_eq!(slower(&then, &[query("2", 500, 300.0)]).len(), 0, "it is new");
    }
}
