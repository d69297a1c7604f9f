//! A session that runs a dump: statement by statement, rows as they come, with counts, and errors as the server reports them. No client
//! tool is involved: a refused COPY must not turn rows into statements, as in psql when it continues after errors; psql commands are never
//! executed; and an error has its SQLSTATE, object and context, whatever the server's language.

use std::sync::Arc;

use anyhow::Result;

use super::choices::{Choices, Object, OnError};
use super::counts::{self, Counts};
use super::foreign_key::ForeignKey;
use super::left_out::Made;
use super::manifest::Manifest;
use super::refusal::{self, Doing, Refusal};
use super::rewrite::{self, Fate};
use super::script::{Entry, Step, Steps};
use super::session::{self, Copied, Session, Silence};
use super::shown::shown;
use super::superuser::Superuser;
use super::{own_bytes, pg_dumps};
use crate::base::fault::Kind;
use crate::base::units;
use crate::pg;
use crate::pg::failure;

/// The number of failed statements that are listed; the rest is counted.
const FAILURES_LISTED: usize = 100;

pub struct Loader {
    session: Session,
    choices: Choices,
    manifest: Manifest,
    has_event_triggers: bool,
    is_counted: bool,
    /// Event triggers that fire even where others are disabled: they are enabled at the very end.
    always: Vec<(String, Arc<Entry>)>,
    /// True for each item of `Choices::without` that was found, by its index.
    was_found: Vec<bool>,
    /// Filled where an extension is left out.
    made: Made,
    pub notes: Vec<String>,
    /// The first failed statements that were skipped.
    pub failed: Vec<String>,
    pub failed_count: usize,
    /// In a server of its own.
    pub superuser: Option<Superuser>,
    /// The number of user mappings that the role that verifies may not make.
    mappings_left_out: usize,
}

impl Loader {
    /// Connects, and prepares the session. An error is the target's or the network's.
    pub async fn open(target: &Target<'_>, manifest: &Manifest) -> Result<Self> {
        let superuser = match target.superuser {
            Some(settings) => Some(Superuser::open(settings).await?),
            None => None,
        };
        Ok(Self {
            superuser,
            session: Session::open(target.settings, target.in_transaction, target.choices.of_part.as_deref(), manifest).await?,
            choices: target.choices.clone(),
            manifest: manifest.clone(),
            has_event_triggers: false,
            is_counted: false,
            always: Vec::new(),
            was_found: vec![false; target.choices.without.len()],
            made: Made::default(),
            notes: Vec::new(),
            failed: Vec::new(),
            failed_count: 0,
            mappings_left_out: 0,
        })
    }

    /// Runs all steps, or those up to the first refusal.
    pub async fn run(&mut self, mut steps: Steps) -> Result<(), Refusal> {
        while let Some(step) = steps.next().await {
            if matches!(step, Step::Statement { .. } | Step::Copy { .. }) {
                self.prove_names().await?;
            }
            match step {
                Step::Statement { text, entry } => self.statement(text, &entry).await?,
                Step::Copy { text, entry } => self.rows(text, &entry, &mut steps).await?,
                Step::Rows(_) | Step::RowsEnd => {}
            }
        }
        Ok(())
    }

    /// Called after the last byte is proved: counts the rows, if that was not yet done, and runs the final steps.
    pub async fn prove(&mut self) -> Result<(), Refusal> {
        let at_the_end = at_the_end();
        self.count(&at_the_end).await?;
        if self.has_event_triggers && self.session.silence == Silence::No {
            let counts = self.counts(&at_the_end).await?;
            let written = counts.more.into_iter().map(|table| {
                format!("{table}: an event trigger wrote to it during the restore, which this role may not prevent")
            });
            self.notes.extend(written);
        }
        for (text, entry) in std::mem::take(&mut self.always) {
            self.attempt(&text, &text, &entry).await?;
        }
        for (without, _) in self.choices.without.iter().zip(&self.was_found).filter(|(_, found)| !**found) {
            self.notes.push(format!("--without {} {}: the dump has no object of that name", without.kind.name(), without.name));
        }
        Ok(())
    }

    /// Returns what the role that verifies could not restore, in words for a report.
    pub fn not_tried(&self) -> Vec<String> {
        let mappings = units::plural(self.mappings_left_out, "user mapping");
        let why = "with options that only a superuser may set, or for a server that only others may use";
        (self.mappings_left_out > 0).then(|| format!("{mappings} {why}")).into_iter().collect()
    }

    /// Commits. Nothing of a restore in one transaction is visible before.
    pub async fn commit(&mut self) -> Result<(), Refusal> {
        match self.session.commit().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal {
                kind: None,
                sql_state: None,
                message: "something in the dump ended the transaction that the restore runs in: restore with --create".to_owned(),
            }),
            Err(error) => Err(self.refusal_of(&error, &at_the_end())),
        }
    }

    async fn statement(&mut self, text: Vec<u8>, entry: &Arc<Entry>) -> Result<(), Refusal> {
        let text = own_bytes::text(text);
        if entry.is_ours {
            return self.ours(text, entry).await;
        }
        if text.starts_with("CREATE ") && self.leaves_out_an_extension() {
            self.made.remember(entry);
        }
        // In a server of its own they come when all is counted.
        let makes_event_trigger = text.starts_with("CREATE EVENT TRIGGER ") && !self.choices.in_own_server;
        // Event triggers, and row security on tables that their owner restores, change the result of a count. All rows are present before
        // both.
        if makes_event_trigger || (text.starts_with("ALTER TABLE ") && text.ends_with(" ENABLE ROW LEVEL SECURITY")) {
            self.count(entry).await?;
        }
        if makes_event_trigger && !self.has_event_triggers {
            self.has_event_triggers = true;
            if self.session.silence == Silence::Replica {
                pg::set(&mut self.session.connection, "session_replication_role", "replica")
                    .await
                    .map_err(|error| of_ours(&error))?;
            }
        }
        let fires_always =
            text.starts_with("ALTER EVENT TRIGGER ") && (text.ends_with(" ENABLE ALWAYS") || text.ends_with(" ENABLE REPLICA"));
        if fires_always && self.session.silence == Silence::Replica {
            self.always.push((text, Arc::clone(entry)));
            return Ok(());
        }
        if let Some(fate) = self.transaction_statement(&text, entry).await? {
            return fate;
        }
        match rewrite::fate(&text, &self.choices, &self.session.server) {
            Fate::Run(sql, note) => {
                let sql = sql.into_owned();
                if self.attempt(&sql, &text, entry).await? {
                    self.note(note);
                }
                Ok(())
            }
            Fate::Cut(sql, which) => {
                for which in which {
                    let name = self.choices.without[which].name.clone();
                    self.leave_out(which, &format!("{entry}: without its constraint {name}"));
                }
                self.attempt(&sql, &text, entry).await.map(|_| ())
            }
            Fate::Foreign => Err(foreign(&text, entry)),
            Fate::BySuperuser(turn) => match &mut self.superuser {
                Some(superuser) => match superuser.take(turn, &text, entry).await {
                    Ok(None) => Ok(()),
                    Ok(Some(refusal)) => Err(refusal),
                    Err(error) => Err(self.refusal(&error, entry, &text)),
                },
                None => self.attempt(&text, &text, entry).await.map(|_| ()),
            },
            Fate::Pass(note) => {
                self.note(note);
                Ok(())
            }
            Fate::LeftOut(which) => {
                self.leave_out(which, &format!("left out: {entry}"));
                Ok(())
            }
            Fate::NotValid(sql, which) => match self.session.execute_guarded(&sql).await {
                Ok(()) => {
                    self.leave_out(which, &format!("{entry}: added NOT VALID, enforced for new rows only"));
                    Ok(())
                }
                Err(error) => {
                    let refusal = self.refusal(&error, entry, &sql);
                    if refusal.is_of_the_environment() {
                        return Err(refusal);
                    }
                    self.leave_out(which, &format!("left out: {entry} (also NOT VALID: {})", pg::words_of(&error)));
                    Ok(())
                }
            },
        }
    }

    /// Runs a query of our own, and the statements that it writes, if any.
    async fn ours(&mut self, query: String, entry: &Entry) -> Result<(), Refusal> {
        let connection = &mut self.session.connection;
        let done = match pg::fetch_text(connection, query).await {
            Ok(Some(written)) => pg::execute(connection, written).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        done.map_err(|error| self.refusal_of(&error, entry))
    }

    /// Handles BEGIN and COMMIT that pg_dump writes around large objects. They would end our own transaction.
    async fn transaction_statement(&mut self, text: &str, entry: &Entry) -> Result<Option<Result<(), Refusal>>, Refusal> {
        let word = text.split([' ', '\n', '\t']).next().unwrap_or_default().to_ascii_uppercase();
        if !matches!(
            word.as_str(),
            "BEGIN" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "START" | "PREPARE" | "SAVEPOINT" | "RELEASE"
        ) {
            return Ok(None);
        }
        if !matches!(text, "BEGIN" | "COMMIT") {
            return Ok(Some(Err(Refusal {
                kind: None,
                sql_state: None,
                message: format!(
                    "the dump holds a statement that ends transactions, which pg_dump never writes ({}): it was not run",
                    shown(text)
                ),
            })));
        }
        self.session.transaction_of_dump(text).await.map_err(|error| self.refusal(&error, entry, text))?;
        Ok(Some(Ok(())))
    }

    /// Runs a statement; true when it succeeded. `original`: as in the dump.
    async fn attempt(&mut self, sql: &str, original: &str, entry: &Entry) -> Result<bool, Refusal> {
        let foreign_key = ForeignKey::of(original);
        let is_mapping = self.choices.for_scratch && original.starts_with("CREATE USER MAPPING ");
        let goes_on = self.choices.on_error == OnError::Continue || is_mapping || self.may_be_of_an_extension(original, entry);
        let is_guarded = goes_on || foreign_key.is_some();
        let mut done = self.execute(sql, is_guarded).await;
        if let (Err(error), Some(superuser)) = (&done, &mut self.superuser)
            && superuser.makes_missing_roles(error, sql).await
        {
            done = self.execute(sql, is_guarded).await;
        }
        let Err(error) = done else { return Ok(true) };
        let mut refusal = self.refusal(&error, entry, original);
        if is_mapping && refusal.sql_state.as_deref() == Some("42501") {
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

    async fn execute(&mut self, sql: &str, is_guarded: bool) -> Result<(), sqlx::Error> {
        if is_guarded { self.session.execute_guarded(sql).await } else { self.session.execute(sql).await }
    }

    /// Runs a block of rows. If the server refuses it, the rows are discarded here.
    async fn rows(&mut self, text: Vec<u8>, entry: &Entry, steps: &mut Steps) -> Result<(), Refusal> {
        let Ok(text) = String::from_utf8(text) else {
            let message = format!("{entry} has names that are not UTF-8: restore with psql, as docs/restore.md says");
            if self.choices.on_error == OnError::Continue {
                session::pass_rows(steps).await;
                self.fail(message);
                return Ok(());
            }
            return Err(Refusal { kind: Some(Kind::Configuration), sql_state: None, message });
        };
        if !pg_dumps::copies(&text) {
            return Err(foreign(&text, entry));
        }
        let goes_on = self.choices.on_error == OnError::Continue || self.may_be_of_an_extension(&text, entry);
        let copied = self.session.copy(&text, steps, goes_on).await.map_err(|error| self.refusal(&error, entry, ""))?;
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
        match self.choices.on_error {
            OnError::Stop => Err(refusal),
            OnError::Continue => {
                self.fail(refusal.message);
                Ok(())
            }
        }
    }

    /// Compares rows with the manifest, once.
    async fn count(&mut self, entry: &Entry) -> Result<(), Refusal> {
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
            Refusal { kind: None, sql_state: None, message: format!("not all rows are there: {}", differ.join("; ")) }
        };
        match self.choices.on_error {
            OnError::Stop => Err(refusal),
            OnError::Continue => {
                self.fail(refusal.message);
                Ok(())
            }
        }
    }

    /// Where other sessions can change the names of schemas, these are compared before each statement that goes by them.
    async fn prove_names(&mut self) -> Result<(), Refusal> {
        self.session.prove_names().await.map_err(|error| of_ours(&error))
    }

    async fn counts(&mut self, entry: &Entry) -> Result<Counts, Refusal> {
        self.prove_names().await?;
        let counted = counts::compare(&mut self.session.connection, &self.manifest.tables).await;
        counted.map_err(|error| self.refusal_of(&error, entry))
    }

    /// Returns whether a statement may be about an object of the extension that is left out: the dump does not create that object.
    fn may_be_of_an_extension(&self, text: &str, entry: &Entry) -> bool {
        self.leaves_out_an_extension()
            && ["GRANT ", "REVOKE ", "COMMENT ON ", "SECURITY LABEL ", "SELECT pg_catalog.setval(", "COPY "]
                .iter()
                .any(|start| text.starts_with(start))
            && !self.made.has(entry)
    }

    /// A missing role has the same SQLSTATE (42704) as a missing type or language, and belongs to no extension.
    async fn has_its_roles(&mut self, text: &str) -> bool {
        let roles = rewrite::role_names(text);
        self.session.has_roles(&roles).await.unwrap_or(false)
    }

    fn leaves_out_an_extension(&self) -> bool {
        self.choices.without.iter().any(|without| without.kind == Object::Extension)
    }

    fn leave_out(&mut self, which: usize, note: &str) {
        self.was_found[which] = true;
        self.note(Some(note.to_owned()));
    }

    fn note(&mut self, note: Option<String>) {
        self.notes.extend(note.filter(|note| !self.notes.contains(note)));
    }

    fn fail(&mut self, message: String) {
        self.failed_count += 1;
        if self.failed.len() < FAILURES_LISTED {
            self.failed.push(message);
        }
    }

    fn refusal_of(&self, error: &anyhow::Error, entry: &Entry) -> Refusal {
        match error.downcast_ref::<sqlx::Error>() {
            Some(error) => self.refusal(error, entry, ""),
            None => of_ours(error),
        }
    }

    fn refusal(&self, error: &sqlx::Error, entry: &Entry, statement: &str) -> Refusal {
        let settings = &self.manifest.server.database.settings;
        let search_path = settings.iter().find_map(|setting| setting.strip_prefix("search_path=")).unwrap_or("public");
        let in_transaction = self.session.is_one_transaction();
        refusal::of(error, Doing { entry, statement, in_transaction, choices: &self.choices, search_path })
    }
}

fn at_the_end() -> Entry {
    Entry { kind: "the end of the dump".to_owned(), ..Entry::default() }
}

fn foreign(text: &str, entry: &Entry) -> Refusal {
    let message = format!("the dump holds a statement that pg_dump never writes; it was not run, at {entry}: {}", shown(text));
    Refusal { kind: None, sql_state: None, message }
}

/// Returns whether the refusal is about a missing object.
fn is_undefined(refusal: &Refusal) -> bool {
    matches!(refusal.sql_state.as_deref(), Some("42P01" | "42883" | "42704" | "3F000" | "42703"))
}

fn of_ours(error: &anyhow::Error) -> Refusal {
    Refusal { kind: failure::kind_of(error), sql_state: pg::sql_state(error), message: failure::in_a_line(error) }
}

/// The target of the dump.
pub struct Target<'a> {
    pub settings: &'a pg::Settings,
    pub choices: &'a Choices,
    /// True if all is one transaction, committed after the proof. The database must be empty.
    pub in_transaction: bool,
    /// The superuser of a server of its own, who runs what the restoring role may not.
    pub superuser: Option<&'a pg::Settings>,
}
