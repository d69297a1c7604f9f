//! Runs statements and rows of a dump in the main session, and decides what a failure means.

use std::sync::Arc;

use super::Loader;
use super::said::{foreign, is_undefined};
use crate::base::fault::Kind;
use crate::pg;
use crate::task::backup::choices::OnError;
use crate::task::backup::foreign_key::ForeignKey;
use crate::task::backup::pg_dumps;
use crate::task::backup::refusal::Refusal;
use crate::task::backup::rewrite;
use crate::task::backup::script::{Entry, Steps};
use crate::task::backup::session::{self, Copied};
use crate::task::backup::shown::shown;

impl Loader {
    /// Runs a query of our own, and the statements that it writes, if any.
    pub(super) async fn ours(&mut self, query: String, entry: &Entry) -> Result<(), Refusal> {
        let connection = &mut self.session.connection;
        let done = match pg::fetch_text(connection, query).await {
            Ok(Some(written)) => pg::execute(connection, written).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        done.map_err(|error| self.refusal_of(&error, entry))
    }

    /// Handles BEGIN and COMMIT that pg_dump writes around large objects. They would end our own transaction.
    pub(super) async fn transaction_statement(
        &mut self,
        text: &str,
        entry: &Entry,
    ) -> Result<Option<Result<(), Refusal>>, Refusal> {
        let word = text.split([' ', '\n', '\t']).next().unwrap_or_default().to_ascii_uppercase();
        if !matches!(
            word.as_str(),
            "BEGIN" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "START" | "PREPARE" | "SAVEPOINT" | "RELEASE"
        ) {
            return Ok(None);
        }
        if !matches!(text, "BEGIN" | "COMMIT") {
            return Ok(Some(Err(Refusal {
                message: format!(
                    "the dump holds a statement that ends transactions, which pg_dump never writes ({}): it was not run",
                    shown(text)
                ),
                ..Refusal::default()
            })));
        }
        self.session.transaction_of_dump(text).await.map_err(|error| self.refusal(&error, entry, text))?;
        Ok(Some(Ok(())))
    }

    /// Runs a statement; true when it succeeded. `original`: as in the dump.
    pub(super) async fn attempt(&mut self, sql: &str, original: &str, entry: &Entry) -> Result<bool, Refusal> {
        let goes_on = self.choices.on_error == OnError::Continue
            || self.is_mapping(original)
            || self.may_be_of_an_extension(original, entry);
        let is_guarded = goes_on || ForeignKey::of(original).is_some();
        let mut done = self.execute(sql, is_guarded).await;
        if let (Err(error), Some(superuser)) = (&done, &mut self.superuser)
            && superuser.makes_missing_roles(error, sql).await
        {
            done = self.execute(sql, is_guarded).await;
        }
        match done {
            Ok(()) => Ok(true),
            Err(error) => self.refused(&error, sql, original, entry).await,
        }
    }

    /// Says what it means that a statement failed: a refusal, or false where the restore goes on without it.
    pub(super) async fn refused(
        &mut self,
        error: &sqlx::Error,
        sql: &str,
        original: &str,
        entry: &Entry,
    ) -> Result<bool, Refusal> {
        let foreign_key = ForeignKey::of(original);
        let mut refusal = self.refusal(error, entry, original);
        if self.is_mapping(original) && refusal.sql_state.as_deref() == Some("42501") {
            self.mappings_left_out += 1;
            return Ok(false);
        }
        if refusal.sql_state.as_deref() == Some("23503")
            && let Some(key) = &foreign_key
        {
            let rows = self.session.number_guarded(key.count_query()).await;
            refusal.message = format!("{}\n{}", refusal.message, key.in_words(rows));
        }
        if refusal.is_of_the_environment() {
            return Err(refusal);
        }
        if is_undefined(&refusal) && self.may_be_of_an_extension(original, entry) && self.has_its_roles(sql).await {
            self.notes.push(format!("left out, because its extension is: {entry}"));
            return Ok(false);
        }
        if self.choices.on_error == OnError::Stop {
            return Err(refusal);
        }
        if foreign_key.is_some() && self.session.execute_guarded(&rewrite::not_valid(sql)).await.is_ok() {
            refusal.message += "\nIt was added NOT VALID: it is enforced for new rows only.";
        }
        self.fail(refusal.message);
        Ok(false)
    }

    fn is_mapping(&self, statement: &str) -> bool {
        self.choices.for_scratch && statement.starts_with("CREATE USER MAPPING ")
    }

    async fn execute(&mut self, sql: &str, is_guarded: bool) -> Result<(), sqlx::Error> {
        if is_guarded { self.session.execute_guarded(sql).await } else { self.session.execute(sql).await }
    }

    /// Runs a block of rows. If the server refuses it, the rows are discarded here.
    pub(super) async fn rows(&mut self, text: Vec<u8>, entry: &Arc<Entry>, steps: &mut Steps) -> Result<(), Refusal> {
        let Ok(text) = String::from_utf8(text) else {
            let message = format!("{entry} has names that are not UTF-8: restore with psql, as docs/restore.md says");
            if self.choices.on_error == OnError::Continue {
                session::pass_rows(steps).await;
                self.fail(message);
                return Ok(());
            }
            return Err(Refusal { kind: Some(Kind::Configuration), message, ..Refusal::default() });
        };
        if !pg_dumps::copies(&text) {
            return Err(foreign(&text, entry));
        }
        if self.others_take_rows(&text, entry).await? {
            return self.rows_by_others(&text, entry, steps).await;
        }
        let goes_on = self.choices.on_error == OnError::Continue || self.may_be_of_an_extension(&text, entry);
        let copied = self.session.copy(&text, steps, goes_on).await.map_err(|error| self.refusal(&error, entry, ""))?;
        self.times.rows_end();
        // Where the dump was cut short, the reading side says why.
        let Copied::Not(error) = copied else { return Ok(()) };
        let refusal = self.refusal(&error, entry, &text);
        if refusal.is_of_the_environment() {
            return Err(refusal);
        }
        if is_undefined(&refusal) && self.may_be_of_an_extension(&text, entry) {
            self.notes.push(format!("left out, because its extension is: {entry}"));
            return Ok(());
        }
        self.stop_or_note(refusal)
    }
}
