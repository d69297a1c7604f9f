//! What a restore says of statements that were left out, that failed, or that a server refused.

use super::Loader;
use super::said::of_ours;
use crate::task::backup::choices::{Object, OnError};
use crate::task::backup::refusal::{self, Doing, Refusal};
use crate::task::backup::rewrite;
use crate::task::backup::script::Entry;

/// The number of failed statements that are listed; the rest is counted.
const FAILURES_LISTED: usize = 100;

impl Loader {
    /// Returns whether a statement may be about an object of the extension that is left out: the dump does not create that object.
    pub(super) fn may_be_of_an_extension(&self, text: &str, entry: &Entry) -> bool {
        self.leaves_out_an_extension()
            && ["GRANT ", "REVOKE ", "COMMENT ON ", "SECURITY LABEL ", "SELECT pg_catalog.setval(", "COPY "]
                .iter()
                .any(|start| text.starts_with(start))
            && !self.made.has(entry)
    }

    /// A missing role has the same SQLSTATE (42704) as a missing type or language, and belongs to no extension.
    pub(super) async fn has_its_roles(&mut self, text: &str) -> bool {
        let roles = rewrite::role_names(text);
        self.session.has_roles(&roles).await.unwrap_or(false)
    }

    pub(super) fn leaves_out_an_extension(&self) -> bool {
        self.choices.without.iter().any(|without| without.kind == Object::Extension)
    }

    pub(super) fn leave_out(&mut self, which: usize, note: &str) {
        self.was_found[which] = true;
        self.note(Some(note.to_owned()));
    }

    pub(super) fn note(&mut self, note: Option<String>) {
        self.notes.extend(note.filter(|note| !self.notes.contains(note)));
    }

    /// Ends the restore with this refusal, or notes it and goes on, as was asked for.
    pub(super) fn stop_or_note(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        if self.choices.on_error == OnError::Stop {
            return Err(refusal);
        }
        self.fail(refusal.message);
        Ok(())
    }

    pub(super) fn fail(&mut self, message: String) {
        self.failed_count += 1;
        if self.failed.len() < FAILURES_LISTED {
            self.failed.push(message);
        }
    }

    pub(super) fn refusal_of(&self, error: &anyhow::Error, entry: &Entry) -> Refusal {
        match error.downcast_ref::<sqlx::Error>() {
            Some(error) => self.refusal(error, entry, ""),
            None => of_ours(error),
        }
    }

    pub(super) fn refusal(&self, error: &sqlx::Error, entry: &Entry, statement: &str) -> Refusal {
        self.refusal_of_rows(error, entry, statement, 0)
    }

    /// The same for rows after `rows_before` others of their block, from which the server did not count.
    pub(super) fn refusal_of_rows(&self, error: &sqlx::Error, entry: &Entry, statement: &str, rows_before: u64) -> Refusal {
        let settings = &self.manifest.server.database.settings;
        let search_path = settings.iter().find_map(|setting| setting.strip_prefix("search_path=")).unwrap_or("public");
        let in_transaction = self.session.is_one_transaction();
        let holds_all = self.manifest.filters.are_none();
        refusal::of(
            error,
            Doing { entry, statement, in_transaction, choices: &self.choices, search_path, holds_all, rows_before },
        )
    }
}
