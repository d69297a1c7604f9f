//! What applications' statements show, where pg_stat_statements is there and may be read: searches whose order no index serves, and an index that
//! no search uses.

use anyhow::Result;
use sqlx::PgConnection;

use super::keys::VectorIndex;
use super::kind::Metric;
use super::state::Table;
use crate::base::units;
use crate::pg::{self, qualified};

/// Statements that are read, those with most calls first, and that are named.
const LOOKED_AT: i64 = 200;
const NAMED: usize = 5;
/// Letters of a statement in a warning.
const SHOWN: usize = 200;
/// A statement of pg_stat_statements that searches the table.
#[derive(Debug, sqlx::FromRow)]
struct Statement {
    query: String,
    calls: i64,
}

/// Returns warnings about statements that search the table; none where the role may not read them.
pub async fn warnings(connection: &mut PgConnection, job: &VectorIndex, table: &Table) -> Result<Vec<String>> {
    let statements = statements(connection, table).await?;
    let mut warnings = Vec::new();
    let mut served = 0;
    for statement in &statements {
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
    if let Some(index) = table.index.as_ref().filter(|index| index.is_valid && served > 0 && !table.by_bits) {
        let scans: Option<i64> =
            sqlx::query_scalar("SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelid = $1::bigint::oid")
                .bind(index.oid)
                .fetch_optional(connection)
                .await?
                .flatten();
        if scans == Some(0) {
            warnings.push(format!(
                "{} has not been used since its statistics began, although statements that it could serve ran {}: compare their ORDER BY \
                 with {}, and look at their plans",
                index.name,
                units::plural(served as u64, "time"),
                table.order_by()
            ));
        }
    }
    Ok(warnings)
}

/// Reads statements of this database with an operator of pgvector and the table's name in them.
async fn statements(connection: &mut PgConnection, table: &Table) -> Result<Vec<Statement>> {
    // Whoever owns the extension's schema could put another view there, whose functions would run as us: only the extension's own is read.
    let schema: Option<String> = sqlx::query_scalar(
        "SELECT n.nspname::text FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
              AND d.classid = 'pg_class'::regclass
         JOIN pg_class c ON c.oid = d.objid AND c.relname = 'pg_stat_statements' JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE e.extname = 'pg_stat_statements' AND has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(schema) = schema else { return Ok(Vec::new()) };
    // Searches of ours name operators with their schema.
    let sql = format!(
        "SELECT query, sum(calls)::bigint AS calls FROM {} s
         WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.query ~* 'order\\s+by' AND s.query ~ '<(=|-|#|\\+|~|%)>'
           AND position(lower({}) in lower(s.query)) > 0 AND position('OPERATOR(' in s.query) = 0 AND s.query !~* '^\\s*(explain|create|alter|declare|copy)'
         GROUP BY 1 ORDER BY 2 DESC LIMIT {LOOKED_AT}",
        qualified(&schema, "pg_stat_statements"),
        pg::literal(&table.facts.name),
    );
    // Without shared_preload_libraries the view is there and cannot be read.
    Ok(pg::fetch_all_as(connection, sql).await.unwrap_or_default())
}

/// Says why no index for the metric serves the ORDER BY of a statement, if that can be seen. Pure.
fn why_unserved(query: &str, metric: Metric) -> Option<String> {
    let lower = query.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let order = lower.rfind("order by").map(|at| &lower[at + "order by".len()..])?;
    let end = ["limit", "fetch first", "offset", "for update"].iter().filter_map(|word| order.find(word)).min();
    let order = order[..end.unwrap_or(order.len())].trim();
    let first = first_expression(order);
    let operators = ["<=>", "<->", "<#>", "<+>", "<~>", "<%>"];
    let Some(operator) = operators.into_iter().find(|operator| first.contains(operator)) else {
        // Ordered by a name: the expression is in the list of columns.
        let named = operators.into_iter().find(|operator| lower.contains(operator))?;
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
}
