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
    pub(super) statements: Vec<String>,
    pub(super) transaction: Transaction,
    pub(super) statement_timeout: Span,
    pub(super) lock_timeout: Span,
    pub(super) repeatable: bool,
}

/// `[sql]` as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The statements run in this order; the first that fails ends the run.
    #[schemars(with = "Vec<String>", length(min = 1), example = ["ANALYZE public.scripts"])]
    pub statements: Spanned<Vec<Spanned<String>>>,
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

pub fn resolve(written: Written, checker: &mut Checker<'_>) -> Option<Sql> {
    if written.statements.get_ref().is_empty() {
        checker.problem(
            &written.statements,
            "`statements` is empty",
            "write at least one: statements = [\"ANALYZE public.scripts\"]".to_owned(),
        );
    }
    for statement in written.statements.get_ref() {
        if written.transaction == Transaction::One && is_for_itself(statement.get_ref()) {
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
    Some(Sql {
        statements: written.statements.into_inner().into_iter().map(Spanned::into_inner).collect(),
        transaction: written.transaction,
        statement_timeout: written.statement_timeout.unwrap_or(STATEMENT_TIMEOUT),
        lock_timeout: written.lock_timeout.unwrap_or(LOCK_TIMEOUT),
        repeatable: written.repeatable,
    })
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
