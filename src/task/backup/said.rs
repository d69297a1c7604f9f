//! A server's refusal in its own words, and the step during which it refused.

use sqlx::postgres::PgDatabaseError;

use super::choices::Choices;
use super::script::Entry;
use super::server_context;

/// The step during which a server refused.
#[derive(Clone, Copy, Debug)]
pub struct Doing<'a> {
    pub entry: &'a Entry,
    /// Empty for our own statements.
    pub statement: &'a str,
    pub in_transaction: bool,
    pub choices: &'a Choices,
    /// The source's search_path, for names without a schema.
    pub search_path: &'a str,
    /// False for a set with filters, or of one schema.
    pub holds_all: bool,
    /// Rows of the block before those that the server was given as one COPY.
    pub rows_before: u64,
}

/// A server's refusal in its own words.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// `PL/pgSQL function public.slug(text) line 1 at RETURN`, the innermost call first.
    pub context: Option<String>,
    pub constraint: Option<String>,
}

impl Said {
    /// Returns none for an error that no server sent.
    pub fn of(error: &sqlx::Error) -> Option<Self> {
        let sqlx::Error::Database(error) = error else { return None };
        let said = error.try_downcast_ref::<PgDatabaseError>()?;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Self {
            code: said.code().to_owned(),
            message: said.message().to_owned(),
            detail: owned(said.detail()),
            hint: owned(said.hint()),
            context: owned(said.r#where()),
            // An index of a catalog is no constraint of the dump.
            constraint: owned(said.constraint().filter(|_| said.schema() != Some("pg_catalog"))),
        })
    }

    /// Returns whether a function was running.
    pub fn ran_code(&self) -> bool {
        self.context.as_deref().is_some_and(server_context::names_code)
    }
}

/// Returns whether the SQLSTATE is about the environment: 08 connection, 25006 read-only, 40 rolled back by the server, 53 resources, 54
/// limits of its settings, 57 an operator, 58 its system (PostgreSQL manual, appendix A).
pub fn is_of_the_environment(code: &str) -> bool {
    code == "25006" || (["08", "40", "53", "54", "57", "58"].iter().any(|class| code.starts_with(class)) && code != "08P01")
}
