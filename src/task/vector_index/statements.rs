//! What applications' statements show, where pg_stat_statements is there and may be read: searches whose order no index serves, and an index that
//! no search uses.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::filter::{self, Token};
use super::keys::VectorIndex;
use super::kind::Metric;
use super::state::Table;
use crate::base::units;
use crate::ledger::Filter;
use crate::ledger::report::Report;
use crate::pg::{self, stat_statements};
use crate::work::RunContext;

/// Statements that are read, those with most calls first, and that are named.
const LOOKED_AT: i64 = 200;
const NAMED: usize = 5;
/// Letters of a statement in a warning.
const SHOWN: usize = 200;
/// Runs in which the last look at an index is searched for.
const LAST_RUNS: i64 = 10;
/// pgvector's operators.
const OPERATORS: [&str; 6] = ["<=>", "<->", "<#>", "<+>", "<~>", "<%>"];
/// A statement of pg_stat_statements that searches the table.
#[derive(Debug, sqlx::FromRow)]
struct Statement {
    query: String,
    calls: i64,
}

/// Returns warnings about statements that search the table, none where the role may not read them, and how often the index was used.
pub async fn warnings(
    connection: &mut PgConnection,
    job: &VectorIndex,
    run: &RunContext<'_>,
    table: &Table,
) -> Result<(Vec<String>, Option<Uses>)> {
    let statements = statements(connection, table).await?;
    let operators = if statements.is_empty() { Vec::new() } else { operators(connection, table).await? };
    let mut warnings = Vec::new();
    let mut served = 0;
    for statement in &statements {
        // What another index of the column serves is not this one's.
        let is_of_another = order_operator(&statement.query)
            .is_some_and(|operator| operator != job.metric.operator() && operators.iter().any(|served| served == operator));
        if is_of_another || !reads(&statement.query, &table.facts.schema, &table.facts.name) {
            continue;
        }
        match why_unserved(&statement.query, job.metric) {
            Some(why) if warnings.len() < NAMED => warnings.push(format!(
                "{} of a statement that no index serves, because {why}: {}",
                units::plural(statement.calls.max(0) as u64, "call"),
                shown(&statement.query)
            )),
            Some(_) => {}
            None => served += statement.calls.max(0),
        }
    }
    // An index on bits is searched by a function.
    let Some(index) = table.index.as_ref().filter(|index| index.is_valid && served > 0 && !table.by_bits) else {
        return Ok((warnings, None));
    };
    let Some(scans) = scans(connection, index.oid).await? else { return Ok((warnings, None)) };
    let now = Uses { index: index.oid, scans, calls: served };
    let last = last_uses(run, index.oid).await;
    warnings.extend(unused(now, last).map(|unused| {
        format!("{} {unused}: compare their ORDER BY with {}, and look at their plans", index.name, table.order_by())
    }));
    Ok((warnings, Some(now)))
}

/// How often an index was used, and statements ran that it could serve, at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Uses {
    /// Its oid.
    pub index: i64,
    pub scans: i64,
    pub calls: i64,
}

/// Returns the number of scans since the statistics of the index began.
pub async fn scans(connection: &mut PgConnection, index: i64) -> Result<Option<i64>> {
    let found: Option<Option<i64>> =
        sqlx::query_scalar("SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelid = $1::bigint::oid")
            .bind(index)
            .fetch_optional(connection)
            .await?;
    Ok(found.flatten())
}

/// Reads what the last run of the job noted of this index, where there is a ledger that knows it.
async fn last_uses(run: &RunContext<'_>, index: i64) -> Option<Uses> {
    let filter = Filter { job: Some(run.job.name), database: Some(run.database), outcome: None, limit: LAST_RUNS };
    let rows = run.ledger?.runs(&filter).await.ok()?;
    let of_report = |report: &Report| {
        let tables = report.facts.get("tables")?.as_array()?.clone();
        tables
            .into_iter()
            .filter_map(|table| serde_json::from_value(table.get("uses")?.clone()).ok())
            .find(|uses: &Uses| uses.index == index)
    };
    rows.iter().filter_map(|row| row.report.as_ref()).find_map(of_report)
}

/// Says that no statement has used the index, if that is so: since its statistics began, or since the last run. Pure.
fn unused(now: Uses, last: Option<Uses>) -> Option<String> {
    if now.scans == 0 {
        let times = units::plural(now.calls.max(0) as u64, "time");
        return Some(format!(
            "has not been used since its statistics began, although statements that it could serve ran {times}"
        ));
    }
    // Statistics that began anew count from 0.
    let last = last.filter(|last| last.scans == now.scans && last.calls < now.calls)?;
    let times = units::plural((now.calls - last.calls).max(0) as u64, "time");
    Some(format!(
        "has not been used since the last run of this job (idx_scan is still {}), although statements that it could serve ran {times}",
        units::count(now.scans.max(0) as u64)
    ))
}

/// Reads statements of this database with an operator of pgvector and the table's name in them.
async fn statements(connection: &mut PgConnection, table: &Table) -> Result<Vec<Statement>> {
    let Some(view) = stat_statements::view(connection).await? else { return Ok(Vec::new()) };
    // Searches of ours name operators with their schema.
    let sql = format!(
        "SELECT query, sum(calls)::bigint AS calls FROM {} s
         WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.query ~* 'order\\s+by' AND s.query ~ '<(=|-|#|\\+|~|%)>'
           AND position(lower({}) in lower(s.query)) > 0 AND position('OPERATOR(' in s.query) = 0 AND s.query !~* '^\\s*(explain|create|alter|declare|copy)'
         GROUP BY 1 ORDER BY 2 DESC LIMIT {LOOKED_AT}",
        view,
        pg::literal(&table.facts.name),
    );
    // Without shared_preload_libraries the view is there and cannot be read.
    Ok(pg::fetch_all_as(connection, sql).await.unwrap_or_default())
}

/// Returns the operators by which valid indexes of the column find what is nearest.
async fn operators(connection: &mut PgConnection, table: &Table) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT p.oprname::text FROM pg_index i JOIN pg_opclass o ON o.oid = i.indclass[0]
         JOIN pg_amop a ON a.amopfamily = o.opcfamily AND a.amoppurpose = 'o' JOIN pg_operator p ON p.oid = a.amopopr
         WHERE i.indrelid = $1::bigint::oid AND i.indisvalid
           AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refclassid = 'pg_class'::regclass
                       AND d.refobjid = i.indrelid AND d.refobjsubid = $2)",
    )
    .bind(table.facts.oid)
    .bind(i32::from(table.facts.attnum.unwrap_or_default()))
    .fetch_all(connection)
    .await?)
}

/// Returns whether a statement reads this very table: by its name after FROM, JOIN or a comma, without a schema or with its own. Pure.
fn reads(query: &str, schema: &str, table: &str) -> bool {
    let tokens: Vec<Token<'_>> = filter::tokens(query).into_iter().filter(|token| !token.is_space()).collect();
    let name = |at: Option<usize>| match at.and_then(|at| tokens.get(at)) {
        Some(Token::Name(name, _)) => Some(name.as_str()),
        _ => None,
    };
    let other = |at: Option<usize>| match at.and_then(|at| tokens.get(at)) {
        Some(Token::Other(text)) => text.trim(),
        _ => "",
    };
    (0..tokens.len()).filter(|at| name(Some(*at)) == Some(table)).any(|at| {
        let is_of_schema = other(at.checked_sub(1)) == ".";
        let first = if is_of_schema { at.checked_sub(2) } else { Some(at) };
        let before = first.and_then(|first| first.checked_sub(1));
        let is_relation =
            name(before).is_some_and(|word| ["from", "join", "only"].contains(&word)) || other(before).ends_with([',', '(']);
        // `items.embedding` names the table of a column.
        is_relation && other(Some(at + 1)) != "." && (!is_of_schema || name(first) == Some(schema))
    })
}

/// Returns the operator by which a statement orders, where one stands there.
fn order_operator(query: &str) -> Option<&'static str> {
    let order = &query[query.to_ascii_lowercase().rfind("order by")?..];
    OPERATORS.into_iter().find(|operator| order.contains(operator))
}

/// Says why no index for the metric serves the ORDER BY of a statement, if that can be seen. Pure.
fn why_unserved(query: &str, metric: Metric) -> Option<String> {
    let lower = query.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let order = lower.rfind("order by").map(|at| &lower[at + "order by".len()..])?;
    let end = ["limit", "fetch first", "offset", "for update"].iter().filter_map(|word| order.find(word)).min();
    let order = order[..end.unwrap_or(order.len())].trim();
    let first = first_expression(order);
    let Some(operator) = OPERATORS.into_iter().find(|operator| first.contains(operator)) else {
        // Ordered by a name: the expression is in the list of columns.
        let named = OPERATORS.into_iter().find(|operator| lower.contains(operator))?;
        let is_descending = first.split_whitespace().last() == Some("desc");
        return is_descending.then(|| {
            format!("it is ordered DESC by a name, and an index finds the least {named}: ORDER BY the operator itself, ascending")
        });
    };
    if operator != metric.operator() {
        return Some(format!("it orders by {operator}, and the index is for {} ({})", metric.operator(), metric.name()));
    }
    let words: Vec<&str> = first.split_whitespace().collect();
    if words.contains(&"desc") {
        return Some(format!(
            "it orders DESC, and an index finds the least {operator}: ORDER BY … {operator} … alone, ascending"
        ));
    }
    let before = first.split(operator).next().unwrap_or_default().trim_start_matches(['(', ' ']);
    let is_computed =
        before.starts_with(|letter: char| letter.is_ascii_digit() || letter == '$' && has_arithmetic(before) || letter == '-');
    (is_computed || has_arithmetic(before))
        .then(|| format!("it orders by a computation with {operator}, and an index by the operator alone"))
}

/// Returns whether a number is computed before the operator: `1 - (v`, `$1 * (v`.
fn has_arithmetic(before: &str) -> bool {
    ["- (", "* (", "+ (", "/ (", "-(", "*(", "+(", "/("].iter().any(|sign| before.contains(sign))
}

/// Returns the first of the expressions of ORDER BY.
fn first_expression(order: &str) -> &str {
    let mut depth = 0;
    for (at, letter) in order.char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' if depth == 0 => return &order[..at],
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => return &order[..at],
            _ => {}
        }
    }
    order
}

fn shown(query: &str) -> String {
    let line: Vec<&str> = query.split_whitespace().collect();
    let line = line.join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_no_index_serves_is_told_from_one_that_an_index_serves() {
        let why = |query: &str| why_unserved(query, Metric::Cosine);
        for served in [
            "SELECT id FROM items ORDER BY embedding <=> $1 LIMIT $2",
            "select id, 1 - (embedding <=> $1) as score from items where tenant = $3 order by embedding <=> $1, id limit $2",
            "SELECT id FROM items ORDER BY (embedding <=> $1) ASC LIMIT $2",
            "SELECT id, embedding <=> $1 AS distance FROM items ORDER BY distance LIMIT $2",
            "SELECT id FROM items ORDER BY (embedding::halfvec(3)) <=> $1 LIMIT $2",
            "SELECT id FROM (SELECT id FROM items ORDER BY embedding <=> $1 LIMIT $2) x",
        ] {
            assert_eq!(why(served), None, "{served}");
        }
        for (unserved, says) in [
            ("SELECT id FROM items ORDER BY 1 - (embedding <=> $1) DESC LIMIT $2", "DESC"),
            ("SELECT id FROM items ORDER BY $3 - (embedding <=> $1) LIMIT $2", "computation"),
            ("SELECT id, $3 - (embedding <=> $1) AS score FROM items ORDER BY score DESC LIMIT $2", "by a name"),
            ("SELECT id FROM items ORDER BY embedding <-> $1 LIMIT $2", "the index is for <=> (cosine)"),
            ("SELECT id FROM items ORDER BY embedding <=> $1 DESC LIMIT $2", "DESC"),
        ] {
            assert!(why(unserved).is_some_and(|why| why.contains(says)), "{unserved}: {:?}", why(unserved));
        }
    }

    #[test]
    fn an_index_is_unused_where_its_scans_stay_and_statements_ran() {
        let uses = |scans, calls| Uses { index: 7, scans, calls };
        assert!(
            unused(uses(0, 3), None).is_some_and(|why| why.contains("since its statistics began") && why.contains("3 times"))
        );
        assert!(
            unused(uses(5, 9), Some(uses(5, 3))).is_some_and(|why| why.contains("since the last run") && why.contains("6 times"))
        );
        // Used; nothing ran; statistics that began anew; no run before.
        for (now, last) in [((6, 9), Some((5, 3))), ((5, 3), Some((5, 3))), ((2, 9), Some((5, 3))), ((5, 9), None)] {
            assert_eq!(unused(uses(now.0, now.1), last.map(|(scans, calls)| uses(scans, calls))), None);
        }
    }

    #[test]
    fn a_statement_reads_the_table_whose_name_it_says() {
        let reads = |query: &str| reads(query, "public", "items");
        for ours in [
            "SELECT id FROM items ORDER BY embedding <=> $1 LIMIT $2",
            "SELECT id FROM public.items AS i ORDER BY i.embedding <=> $1",
            "select * from \"items\" order by embedding <=> $1",
            "SELECT 1 FROM users u JOIN items ON true ORDER BY items.embedding <=> $1",
            "SELECT 1 FROM users, ONLY public.items ORDER BY embedding <=> $1",
        ] {
            assert!(reads(ours), "{ours}");
        }
        for other in [
            "SELECT id FROM other_items ORDER BY v <-> $1 LIMIT $2",
            "SELECT id FROM archive.items ORDER BY v <-> $1",
            "SELECT id FROM \"Items\" ORDER BY v <-> $1",
            "SELECT items.id FROM other_items items ORDER BY v <-> $1",
            "SELECT id AS items FROM others ORDER BY v <-> $1",
        ] {
            assert!(!reads(other), "{other}");
        }
        assert_eq!(order_operator("SELECT id, v <-> $1 FROM items ORDER BY v <=> $1"), Some("<=>"));
    }
}
