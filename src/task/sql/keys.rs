//! `[sql]`: the keys of a job, as written and resolved.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::text;
use crate::base::units::Span;
use crate::config::checker::Checker;

/// This is enough for a VACUUM of a large table, and ends a statement that hangs.
const STATEMENT_TIMEOUT: Span = Span(std::time::Duration::from_secs(3600));

/// A waiting lock request blocks everyone queued behind it.
const LOCK_TIMEOUT: Span = Span(std::time::Duration::from_secs(5));

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Default))]
pub struct Sql {
    /// Empty with `refresh`.
    pub(super) statements: Vec<String>,
    pub(super) refresh: Option<Refresh>,
    pub(super) concurrently: bool,
    pub(super) transaction: Transaction,
    pub(super) statement_timeout: Span,
    pub(super) lock_timeout: Span,
    pub(super) repeatable: bool,
}

/// Materialized views that are refreshed in place of statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refresh {
    All,
    /// Names as in SQL.
    Named(Vec<String>),
}

/// `[sql]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["statements"] }, { "required": ["refresh"] }], "dependentRequired" = { "concurrently": ["refresh"] }))]
pub struct Written {
    /// The statements run in this order; the first that fails ends the run.
    #[schemars(with = "Option<Vec<String>>", length(min = 1), example = ["ANALYZE public.scripts"])]
    pub statements: Option<Spanned<Vec<Spanned<String>>>>,
    /// In the place of `statements`: "all" refreshes every materialized view of the database, a list those and the ones that they read. Each comes after
    /// those that it reads.
    #[schemars(with = "Option<WrittenRefresh>", example = ["reporting.daily_executions"], example = &"all")]
    pub refresh: Option<Spanned<WrittenRefresh>>,
    /// With `refresh`: CONCURRENTLY for views that have a unique index, so that nobody who reads them waits. Default false.
    #[schemars(with = "Option<bool>")]
    pub concurrently: Option<Spanned<bool>>,
    /// "each" (default): every statement by itself, as VACUUM and CONCURRENTLY need it; "one": all or nothing.
    #[serde(default)]
    pub transaction: Transaction,
    /// Longest time for one statement; default 1 h.
    pub statement_timeout: Option<Span>,
    /// Longest wait for one lock; default 5 s.
    pub lock_timeout: Option<Span>,
    /// The statements may run twice: a run whose connection or process was lost after one was sent is tried again, as `retries` say.
    /// Default false: it is not, because it is not known what was committed.
    #[serde(default)]
    pub repeatable: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transaction {
    #[default]
    Each,
    One,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`refresh` is \"all\", or a list of materialized views: [\"reporting.daily_executions\"]")]
pub enum WrittenRefresh {
    All(All),
    Named(#[schemars(length(min = 1))] Vec<String>),
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum All {
    All,
}

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Sql> {
    if written.statements.is_none() && written.refresh.is_none() {
        let hint = "add statements = [\"ANALYZE public.scripts\"], or refresh = \"all\" for materialized views";
        checker.missing("[sql] has no `statements`", hint);
    }
    if let (Some(_), Some(refresh)) = (&written.statements, &written.refresh) {
        let hint = "leave out one of them; two jobs run one after the other with `after`";
        checker.problem(refresh, "`refresh` and `statements` stand together", hint.to_owned());
    }
    if let (Some(concurrently), None) = (&written.concurrently, &written.refresh) {
        let hint = "in `statements`, write REFRESH MATERIALIZED VIEW CONCURRENTLY";
        checker.problem(concurrently, "`concurrently` belongs to `refresh`", hint.to_owned());
    }
    let refresh = refresh_of(written.refresh.as_ref(), checker);
    let statements = statements_of(written.statements, written.transaction, checker);
    Some(Sql {
        statements,
        refresh,
        concurrently: written.concurrently.is_some_and(Spanned::into_inner),
        transaction: written.transaction,
        statement_timeout: written.statement_timeout.unwrap_or(STATEMENT_TIMEOUT),
        lock_timeout: written.lock_timeout.unwrap_or(LOCK_TIMEOUT),
        repeatable: written.repeatable,
    })
}

fn refresh_of(written: Option<&Spanned<WrittenRefresh>>, checker: &mut Checker<'_>) -> Option<Refresh> {
    let place = written?;
    match place.get_ref() {
        WrittenRefresh::All(All::All) => Some(Refresh::All),
        WrittenRefresh::Named(names) => {
            if names.is_empty() {
                let hint = "write refresh = [\"reporting.daily_executions\"], or \"all\"";
                checker.problem(place, "`refresh` is empty", hint.to_owned());
            }
            Some(Refresh::Named(names.clone()))
        }
    }
}

fn statements_of(
    written: Option<Spanned<Vec<Spanned<String>>>>,
    transaction: Transaction,
    checker: &mut Checker<'_>,
) -> Vec<String> {
    let Some(written) = written else { return Vec::new() };
    if written.get_ref().is_empty() {
        let hint = "write at least one: statements = [\"ANALYZE public.scripts\"]";
        checker.problem(&written, "`statements` is empty", hint.to_owned());
    }
    for statement in written.get_ref() {
        if transaction == Transaction::One && is_for_itself(statement.get_ref()) {
            let hint = "transaction = \"each\", or a job of its own".to_owned();
            checker.problem(statement, "this statement cannot run inside a transaction", hint);
        }
        if statement.get_ref().trim().trim_matches(';').is_empty() {
            checker.problem(statement, "an empty statement", "write it like \"ANALYZE public.scripts\"".to_owned());
        }
        if let Some((message, hint)) = text::refusal(statement.get_ref()) {
            checker.problem(statement, message, hint);
        }
    }
    written.into_inner().into_iter().map(Spanned::into_inner).collect()
}

/// Recognizes common statements for which PostgreSQL calls PreventInTransactionBlock.
fn is_for_itself(statement: &str) -> bool {
    let words: Vec<String> = statement.split_whitespace().take(6).map(str::to_ascii_uppercase).collect();
    let first = words.first().map(|word| word.trim_end_matches(['(', ';'])).unwrap_or_default();
    let is_of_prepared = matches!(first, "COMMIT" | "ROLLBACK") && words.get(1).is_some_and(|word| word == "PREPARED");
    first == "VACUUM"
        || is_of_prepared
        || matches!(first, "CREATE" | "DROP" | "REINDEX") && words.iter().any(|word| word == "CONCURRENTLY")
}
