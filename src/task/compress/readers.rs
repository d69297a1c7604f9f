//! Who reads the values, by pg_stat_statements where the role may read it: each value that a statement looks at is decoded for it.

use anyhow::Result;
use regex_lite::Regex;
use serde::Serialize;
use sqlx::PgConnection;

use super::table::Table;
use crate::base::units;
use crate::pg::{self, literal, stat_statements};

/// Statements that are read, those with most calls first.
const LOOKED_AT: i64 = 500;
/// Letters of a statement that are shown.
const SHOWN: usize = 120;

/// The statements of applications that read the column.
#[derive(Debug, Default, Serialize)]
pub struct Readers {
    /// False where no statements can be seen.
    pub is_known: bool,
    /// Statements that search or compute over values, and so decode all that they look at.
    pub searches: Vec<Reader>,
    /// Statements that return values.
    pub reads: Vec<Reader>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Reader {
    pub query: String,
    pub calls: u64,
    pub rows_per_call: f64,
    pub milliseconds_per_call: f64,
}

#[derive(sqlx::FromRow)]
struct Statement {
    query: String,
    calls: i64,
    rows: i64,
    milliseconds: f64,
}

/// Finds the statements that read the column.
pub async fn find(connection: &mut PgConnection, table: &Table) -> Result<Readers> {
    let Some(view) = stat_statements::view(connection).await? else { return Ok(Readers::default()) };
    // Statements of ours name the table with ONLY.
    let sql = format!(
        "SELECT query, sum(calls)::bigint AS calls, sum(rows)::bigint AS rows, sum(total_exec_time)::float8 / greatest(sum(calls), 1)::float8 AS milliseconds
         FROM {} s WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND position(lower({}) in lower(s.query)) > 0 AND s.query ~* '^\\s*(with|select|update|delete)\\M' AND s.query !~* '\\m(from|update)\\s+only\\M|pg_catalog'
         GROUP BY 1 ORDER BY 2 DESC LIMIT {LOOKED_AT}",
        view,
        literal(table.public_name()),
    );
    // An extension that is created but not preloaded fails, and has recorded nothing.
    let Ok(statements) = pg::fetch_all_as::<Statement>(connection, sql).await else { return Ok(Readers::default()) };
    Ok(sort(statements, table.public_name(), &table.text_column.name))
}

/// Tells statements that search from those that return values, and leaves out those that do not read the column: pure.
fn sort(statements: Vec<Statement>, table: &str, column: &str) -> Readers {
    let mut readers = Readers { is_known: true, ..Readers::default() };
    let patterns = Patterns::of(table, column);
    for statement in statements {
        let calls = statement.calls.max(0) as u64;
        let reader = Reader {
            calls,
            rows_per_call: statement.rows.max(0) as f64 / calls.max(1) as f64,
            milliseconds_per_call: statement.milliseconds,
            query: statement.query.split_whitespace().collect::<Vec<_>>().join(" "),
        };
        match patterns.as_ref().and_then(|patterns| patterns.kind(&reader.query)) {
            Some(Kind::Search) => readers.searches.push(reader),
            Some(Kind::Read) => readers.reads.push(reader),
            None => {}
        }
    }
    readers
}

enum Kind {
    Search,
    Read,
}

struct Patterns {
    table: Regex,
    column: Regex,
    compared: Regex,
    computed: Regex,
    all: Regex,
}

impl Patterns {
    fn of(table: &str, column: &str) -> Option<Self> {
        let word = |name: &str| format!(r#"(?:^|[^\w$]){}(?:[^\w$]|$)"#, regex_lite::escape(name));
        let name = regex_lite::escape(column);
        let regex = |pattern: String| Regex::new(&format!("(?i){pattern}")).ok();
        Some(Self {
            table: regex(word(table))?,
            column: regex(word(column))?,
            // content ILIKE $1, "content"::text ~ $1, lower(content) LIKE $1, content @@ $1
            compared: regex(format!(
                r#"(?:^|[^\w$]){name}"?\s*(?:::\s*\w+\s*)?\)*\s*(?:operator\(pg_catalog\.)?(?:not\s+)?(?:i?like\b|similar\s+to\b|!?~|@@)"#
            ))?,
            computed: regex(format!(
                r#"\b(?:to_tsvector|lower|upper|strpos|position|regexp_\w+|md5|sha256|digest|length|char_length|octet_length|similarity|substring|substr|left)\s*\([^()]*[^\w$]?{name}"?(?:[^\w$]|$)"#
            ))?,
            all: regex(r"(?:select|,)\s*(?:(?:\w+|\x22[^\x22]+\x22)\.)?\*".to_owned())?,
        })
    }

    fn kind(&self, query: &str) -> Option<Kind> {
        if !self.table.is_match(query) {
            return None;
        }
        let is_select = query.get(..6).is_some_and(|first| first.eq_ignore_ascii_case("select"))
            || query.get(..4).is_some_and(|first| first.eq_ignore_ascii_case("with"));
        if self.compared.is_match(query) || self.computed.is_match(query) {
            return Some(Kind::Search);
        }
        (is_select && (self.column.is_match(query) || self.all.is_match(query))).then_some(Kind::Read)
    }
}

impl Reader {
    pub fn shown(&self) -> String {
        match self.query.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{} …", &self.query[..end]),
            None => self.query.clone(),
        }
    }
}

/// Returns the calls of these statements.
pub fn calls(readers: &[Reader]) -> u64 {
    readers.iter().map(|reader| reader.calls).sum()
}

impl Readers {
    /// Says who reads the values, in lines.
    pub fn lines(&self) -> Vec<String> {
        if !self.is_known {
            return vec![
                "who reads the values is unknown: pg_stat_statements is not installed, or the role may not read it".to_owned(),
            ];
        }
        if self.searches.is_empty() && self.reads.is_empty() {
            return vec!["pg_stat_statements has no statement that reads the column".to_owned()];
        }
        let line = |what: &str, readers: &[Reader]| {
            let first = readers.first()?;
            Some(format!(
                "pg_stat_statements: {} of {} {what}, most often ({} rows, {:.1} ms each): {}",
                units::plural(calls(readers), "call"),
                units::plural(readers.len(), "statement"),
                first.rows_per_call.round(),
                first.milliseconds_per_call,
                first.shown()
            ))
        };
        [line("search the column", &self.searches), line("return it", &self.reads)].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_search_are_told_from_those_that_return_values_and_from_all_others() {
        let sorted = |query: &str| {
            let statement = Statement { query: query.to_owned(), calls: 1, rows: 1, milliseconds: 1.0 };
            let readers = sort(vec![statement], "scripts", "content");
            (readers.searches.len(), readers.reads.len())
        };
        for query in [
            "SELECT id FROM scripts WHERE content ILIKE $1",
            "SELECT \"id\" FROM \"scripts\" AS \"Script\" WHERE \"Script\".\"content\" NOT LIKE $1 LIMIT $2",
            "select id from scripts s where lower(s.content) like $1",
            "SELECT id FROM scripts WHERE to_tsvector($1, title || $2 || content) @@ plainto_tsquery($3)",
            "SELECT count(*) FROM scripts WHERE content::text ~* $1",
            "UPDATE scripts SET flagged = $1 WHERE content LIKE $2",
            "SELECT id, length(content) FROM scripts",
        ] {
            assert_eq!(sorted(query), (1, 0), "{query}");
        }
        for query in [
            "SELECT content FROM scripts WHERE id = $1",
            "SELECT * FROM scripts ORDER BY id LIMIT $1",
            "SELECT s.*, u.name FROM users u JOIN public.scripts s ON s.author = u.id",
            "SELECT \"id\", \"content\" FROM \"scripts\" AS \"Script\"",
        ] {
            assert_eq!(sorted(query), (0, 1), "{query}");
        }
        for query in [
            "SELECT id, title FROM scripts WHERE title ILIKE $1",
            "SELECT count(*) FROM scripts",
            "SELECT content_type FROM scripts",
            "SELECT content FROM scripts_versions WHERE content LIKE $1",
            "UPDATE scripts SET content = $1 WHERE id = $2",
        ] {
            assert_eq!(sorted(query), (0, 0), "{query}");
        }
    }
}
