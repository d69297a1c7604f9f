//! Counts the rows of a restore.

use super::Loader;
use crate::base::fault::Kind;
use crate::base::units;
use crate::task::backup::choices::OnError;
use crate::task::backup::counts::{self, Counts};
use crate::task::backup::refusal::Refusal;
use crate::task::backup::script::Entry;

impl Loader {
    /// Compares rows with the manifest, once.
    pub(super) async fn count(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.is_counted, true) {
            return Ok(());
        }
        let Counts { mut differ, missing, unreadable, .. } = self.counts(entry).await?;
        for table in missing {
            let may_be_of_an_extension = self.leaves_out_an_extension() && !self.made.has_table(&table.schema, &table.name);
            let said = format!(
                "{}.{} is missing, and the manifest says {}",
                table.schema,
                table.name,
                units::plural(table.rows as usize, "row")
            );
            if may_be_of_an_extension { self.notes.push(said) } else { differ.push(said) }
        }
        let refusal = if !unreadable.is_empty() {
            Refusal {
                in_store: None,
                kind: Some(Kind::Permission),
                sql_state: Some("42501".to_owned()),
                message: format!(
                    "the rows of {} cannot be counted: the restoring role may not read them, or row security hides some; this says nothing against the set. Restore as a superuser or a role with BYPASSRLS",
                    unreadable.join(", ")
                ),
            }
        } else if differ.is_empty() {
            return Ok(());
        } else {
            Refusal {
                in_store: None,
                kind: None,
                sql_state: None,
                message: format!("not all rows are there: {}", differ.join("; ")),
            }
        };
        match self.choices.on_error {
            OnError::Stop => Err(refusal),
            OnError::Continue => {
                self.fail(refusal.message);
                Ok(())
            }
        }
    }

    pub(super) async fn counts(&mut self, entry: &Entry) -> Result<Counts, Refusal> {
        self.prove_names().await?;
        let counted = counts::compare(&mut self.session.connection, &self.manifest.tables).await;
        counted.map_err(|error| self.refusal_of(&error, entry))
    }
}
