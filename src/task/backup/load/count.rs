//! Counts the rows of a restore, and compares them with those of the dump.

use super::Loader;
use crate::base::fault::Kind;
use crate::base::units;
use crate::task::backup::choices::RowCheck;
use crate::task::backup::compare_rows::{self, Readers};
use crate::task::backup::counts::{self, Counts};
use crate::task::backup::how_proved::Hashed;
use crate::task::backup::refusal::Refusal;
use crate::task::backup::row_sums::RowSums;
use crate::task::backup::script::Entry;
use crate::task::backup::session::Silence;

impl Loader {
    /// Compares the numbers of rows with the manifest, once.
    pub(super) async fn count(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.is_counted, true) {
            return Ok(());
        }
        let counts = self.counts(entry).await?;
        self.judge(counts, Vec::new())
    }

    /// Does so at the end, and compares values as well where that was asked for.
    pub(super) async fn compare(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if self.choices.rows == RowCheck::Count {
            return self.count(entry).await;
        }
        match (self.why_only_counted(), self.sums.take()) {
            (None, Some(sums)) => self.compare_values(&sums, entry).await,
            (why, _) => {
                let why = why.unwrap_or("they were not summed up");
                self.hashed = Some(Hashed { only_counted: vec![format!("all tables: {why}")], ..Hashed::default() });
                self.count(entry).await
            }
        }
    }

    /// Why the values of no table are compared.
    fn why_only_counted(&self) -> Option<&'static str> {
        let fires = self.has_event_triggers && self.session.silence == Silence::No;
        let of_triggers = fires.then_some("event triggers fired during the restore, and may rightly have changed rows");
        of_triggers.or_else(|| compare_rows::why_not(&self.manifest))
    }

    async fn compare_values(&mut self, sums: &RowSums, entry: &Entry) -> Result<(), Refusal> {
        self.prove_names().await?;
        let was_counted = std::mem::replace(&mut self.is_counted, true);
        let readers = match self.session.is_in_transaction() {
            true => Readers::InTransaction,
            false => Readers::Sessions(&self.settings, self.sessions),
        };
        let compared = compare_rows::compare(&mut self.session.connection, &self.manifest, sums, readers).await;
        let mut compared = compared.map_err(|error| self.refusal_of(&error, entry))?;
        if was_counted {
            // They were counted before row security hid them.
            let hidden = std::mem::take(&mut compared.counts.unreadable);
            let hidden = hidden.into_iter().map(|table| format!("{table}: row security hides rows from the restoring role"));
            compared.hashed.only_counted.extend(hidden);
        }
        self.hashed = Some(compared.hashed);
        self.judge(compared.counts, compared.differ)
    }

    /// Says what it means that tables have other numbers of rows than they should have, or as many with other values.
    fn judge(&mut self, counts: Counts, other_values: Vec<String>) -> Result<(), Refusal> {
        let Counts { mut differ, missing, unreadable, .. } = counts;
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
                kind: Some(Kind::Permission),
                sql_state: Some("42501".to_owned()),
                message: format!(
                    "the rows of {} cannot be counted: the restoring role may not read them, or row security hides some; this says nothing against the set. Restore as a superuser or a role with BYPASSRLS",
                    unreadable.join(", ")
                ),
                ..Refusal::default()
            }
        } else if !differ.is_empty() {
            Refusal { message: format!("not all rows are there: {}", differ.join("; ")), ..Refusal::default() }
        } else if !other_values.is_empty() {
            of_other_values(&other_values)
        } else {
            return Ok(());
        };
        self.stop_or_note(refusal)
    }

    pub(super) async fn counts(&mut self, entry: &Entry) -> Result<Counts, Refusal> {
        self.prove_names().await?;
        let counted = counts::compare(&mut self.session.connection, &self.manifest.tables).await;
        counted.map_err(|error| self.refusal_of(&error, entry))
    }
}

fn of_other_values(tables: &[String]) -> Refusal {
    let message = format!(
        "the restored rows are not those of the set: {}. Something has changed them while they were restored, or after: a function that a materialized view, \
         an index or a check of the dump calls, an extension's trigger, a setting of the server or the database, or a fault of its disk or memory. To see \
         which rows, restore the set with pgtend backups restore, and compare the table with what pgtend backups fetch --table writes",
        tables.join("; ")
    );
    // Beside an encrypted set stands neither a table's name nor a hash of its rows.
    let in_store =
        "the restored rows are not those of the set; which tables they are of is in the report of the host that tried it";
    Refusal { in_store: Some(in_store.to_owned()), message, ..Refusal::default() }
}
