//! One session that runs a dump: statement by statement, rows as they come, with counts, and errors as the server
//! says them. No client tool stands between: a COPY that a server refuses must not turn rows into statements, as it
//! does in psql that goes on after errors; commands of psql are never followed; and an error has its SQLSTATE,
//! its object and its context, whatever the server's language.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;

use super::choices::{Choices, Object, OnError};
use super::counts::{self, Counts};
use super::facts;
use super::foreign_key::ForeignKey;
use super::refusal::{self, Doing, Refusal};
use super::restore::Target;
use super::rewrite::{self, Fate, Server};
use super::script::{Entry, Step};
use super::set::Manifest;
use super::stream::hex;
use crate::fault::Kind;
use crate::pg;

/// What is said of statements that failed; the rest is counted.
const FAILURES_LISTED: usize = 100;

/// Index builds of the restore's own session. An ivfflat index over 11,000 vectors of 1,536 dimensions refuses the
/// server's default of 64 MB ("memory required is 65 MB"); a larger setting stays.
const BUILD_MEMORY: &str = "SELECT pg_catalog.set_config('maintenance_work_mem', '512MB', false) FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem' AND setting::pg_catalog.int8 < 524288";

/// A statement whose failure must not end the transaction that it stands in.
const SAVEPOINT: &str = "SAVEPOINT pgtend";
const BACK: &str = "ROLLBACK TO SAVEPOINT pgtend";
const RELEASE: &str = "RELEASE SAVEPOINT pgtend";

pub struct Loader<'a> {
    connection: PgConnection,
    choices: &'a Choices,
    manifest: &'a Manifest,
    server: Server,
    /// Of ours, around everything, with the number that the server gave it.
    transaction: Option<String>,
    /// Inside a `BEGIN; … COMMIT;` of the dump.
    in_block: bool,
    silence: Silence,
    has_event_triggers: bool,
    is_counted: bool,
    /// By the index of `Choices::without`.
    was_found: Vec<bool>,
    pub notes: Vec<String>,
    /// What failed and was passed over, the first ones.
    pub failed: Vec<String>,
    pub failed_count: usize,
}

/// How event triggers can be kept from firing for what a restore itself does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    /// `event_triggers = off`, from the start: 17 and newer, for superusers.
    Off,
    /// `session_replication_role = replica`, once the dump makes the first one: for superusers.
    Replica,
    No,
}

impl<'a> Loader<'a> {
    /// Connects, and prepares the session. An error is the target's or the network's.
    pub async fn open(target: &Target<'a>, manifest: &'a Manifest) -> Result<Self> {
        let mut connection = target.settings.connect().await?;
        // First of all: what a database, a role or the server has as its default is no wish of whoever restores.
        pg::set(&mut connection, "default_transaction_read_only", "off").await?;
        pg::execute(&mut connection, BUILD_MEMORY.to_owned()).await?;
        // Where the role may: errors in a language that searches know.
        let _ = pg::set(&mut connection, "lc_messages", "C").await;
        let settings = facts::setting_names(&mut connection).await?;
        let tablespaces: Vec<String> = sqlx::query_scalar(
            "SELECT spcname::pg_catalog.text FROM pg_catalog.pg_tablespace
             WHERE pg_catalog.has_tablespace_privilege(oid, 'CREATE')
                OR oid = (SELECT dattablespace FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
        )
        .fetch_all(&mut connection)
        .await?;
        let silence = if settings.contains("event_triggers") && pg::set(&mut connection, "event_triggers", "off").await.is_ok() {
            Silence::Off
        } else if pg::set(&mut connection, "session_replication_role", "origin").await.is_ok() {
            Silence::Replica
        } else {
            Silence::No
        };
        let mut transaction = None;
        if target.in_transaction {
            pg::execute(&mut connection, "BEGIN".to_owned()).await?;
            transaction = Some(transaction_number(&mut connection).await?);
        }
        Ok(Self {
            connection,
            choices: target.choices,
            manifest,
            server: Server { settings, tablespaces: tablespaces.into_iter().collect() },
            transaction,
            in_block: false,
            silence,
            has_event_triggers: false,
            is_counted: false,
            was_found: vec![false; target.choices.without.len()],
            notes: Vec::new(),
            failed: Vec::new(),
            failed_count: 0,
        })
    }

    /// Runs all steps, or those up to the first refusal.
    pub async fn run(&mut self, mut steps: mpsc::Receiver<Step>) -> Result<(), Refusal> {
        while let Some(step) = steps.recv().await {
            match step {
                Step::Statement { text, entry } => self.statement(text, &entry).await?,
                Step::Copy { text, entry } => self.rows(text, &entry, &mut steps).await?,
                Step::Rows(_) | Step::RowsEnd => {}
            }
        }
        Ok(())
    }

    /// After the last byte is proved: counts, where that was not yet done, and commits.
    pub async fn finish(&mut self) -> Result<(), Refusal> {
        let at_the_end = Entry { kind: "the end of the dump".to_owned(), ..Entry::default() };
        self.count(&at_the_end).await?;
        if self.has_event_triggers && self.silence == Silence::No {
            let counts = self.counts(&at_the_end).await?;
            let written = counts.more.into_iter().map(|table| {
                format!("{table}: an event trigger wrote there during the restore, which this role may not prevent")
            });
            self.notes.extend(written);
        }
        for (without, _) in self.choices.without.iter().zip(&self.was_found).filter(|(_, found)| !**found) {
            self.notes.push(format!("--without {} {}: the dump has none of that name", without.kind.name(), without.name));
        }
        let Some(begun) = self.transaction.take() else { return Ok(()) };
        let now = transaction_number(&mut self.connection).await.map_err(|error| of_ours(&error))?;
        if now != begun {
            return Err(Refusal {
                kind: None,
                sql_state: None,
                message: "something in the dump ended the transaction that the restore runs in: restore with --create".to_owned(),
            });
        }
        self.execute("COMMIT").await.map_err(|error| self.refusal(&error, &at_the_end, ""))
    }

    async fn statement(&mut self, text: Vec<u8>, entry: &Arc<Entry>) -> Result<(), Refusal> {
        let text = match String::from_utf8(text) {
            Ok(text) => text,
            Err(error) => in_its_own_bytes(error.as_bytes()),
        };
        let makes_event_trigger = text.starts_with("CREATE EVENT TRIGGER ");
        // Event triggers, and the row security of tables that their owner restores, change what a count sees. All rows
        // stand before both.
        if makes_event_trigger || (text.starts_with("ALTER TABLE ") && text.ends_with(" ENABLE ROW LEVEL SECURITY")) {
            self.count(entry).await?;
        }
        if makes_event_trigger && !self.has_event_triggers {
            self.has_event_triggers = true;
            if self.silence == Silence::Replica {
                pg::set(&mut self.connection, "session_replication_role", "replica").await.map_err(|error| of_ours(&error))?;
            }
        }
        if let Some(fate) = self.transaction_statement(&text, entry).await? {
            return fate;
        }
        match rewrite::fate(&text, self.choices, &self.server) {
            Fate::Run(sql, note) => {
                let sql = sql.into_owned();
                if self.attempt(&sql, &text, entry).await? {
                    self.note(note);
                }
                Ok(())
            }
            Fate::Cut(sql, which) => {
                self.leave_out(which, &format!("{entry}: without its constraint"));
                self.attempt(&sql, &text, entry).await.map(|_| ())
            }
            Fate::Pass(note) => {
                self.note(note);
                Ok(())
            }
            Fate::LeftOut(which) => {
                self.leave_out(which, &format!("left out: {entry}"));
                Ok(())
            }
            Fate::NotValid(sql, which) => match self.guarded(&sql).await {
                Ok(()) => {
                    self.leave_out(which, &format!("{entry}: added NOT VALID, it holds for new rows only"));
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

    /// BEGIN and COMMIT that pg_dump writes around large objects. Inside our own transaction they would end it.
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
                    "the dump holds a statement that ends transactions, which pg_dump never writes ({text}): it was not run"
                ),
            })));
        }
        if self.transaction.is_none() {
            self.execute(text).await.map_err(|error| self.refusal(&error, entry, text))?;
            self.in_block = text == "BEGIN";
        }
        Ok(Some(Ok(())))
    }

    /// Runs a statement; true when it did what it should. `original`: as the dump has it.
    async fn attempt(&mut self, sql: &str, original: &str, entry: &Entry) -> Result<bool, Refusal> {
        let foreign_key = ForeignKey::of(original);
        let goes_on = self.choices.on_error == OnError::Continue || self.may_miss_its_extension(original);
        let done = if goes_on || foreign_key.is_some() { self.guarded(sql).await } else { self.execute(sql).await };
        let Err(error) = done else { return Ok(true) };
        let mut refusal = self.refusal(&error, entry, original);
        if refusal.sql_state.as_deref() == Some("23503")
            && let Some(key) = &foreign_key
        {
            let rows = self.broken_rows(key).await;
            refusal.message = format!("{}\n{}", refusal.message, key.in_words(rows));
        }
        if refusal.is_of_the_environment() {
            return Err(refusal);
        }
        if is_undefined(&refusal) && self.may_miss_its_extension(original) {
            self.notes.push(format!("left out, because its extension is: {entry}"));
            return Ok(false);
        }
        if self.choices.on_error == OnError::Stop {
            return Err(refusal);
        }
        if foreign_key.is_some() && self.guarded(&rewrite::not_valid(sql)).await.is_ok() {
            refusal.message += "\nIt was added NOT VALID: it holds for new rows only.";
        }
        self.fail(refusal.message);
        Ok(false)
    }

    /// A block of rows. When the server does not take it, its rows are thrown away here.
    async fn rows(&mut self, text: Vec<u8>, entry: &Entry, steps: &mut mpsc::Receiver<Step>) -> Result<(), Refusal> {
        let Ok(text) = String::from_utf8(text) else {
            return Err(Refusal {
                kind: Some(Kind::Configuration),
                sql_state: None,
                message: format!("{entry} has columns whose names are not UTF-8: restore with psql, as docs/restore.md says"),
            });
        };
        let goes_on = self.choices.on_error == OnError::Continue || self.may_miss_its_extension(&text);
        let in_transaction = self.transaction.is_some() || self.in_block;
        if goes_on && in_transaction {
            self.execute(SAVEPOINT).await.map_err(|error| self.refusal(&error, entry, ""))?;
        }
        let copied = copy(&mut self.connection, &text, steps).await;
        if matches!(copied, Copied::CutShort) {
            // What was read says why.
            return Ok(());
        }
        if goes_on && in_transaction {
            let end = if matches!(copied, Copied::All) { RELEASE } else { BACK };
            self.execute(end).await.map_err(|error| self.refusal(&error, entry, ""))?;
        }
        let Copied::Not(error) = copied else { return Ok(()) };
        let refusal = self.refusal(&error, entry, &text);
        if refusal.is_of_the_environment() {
            return Err(refusal);
        }
        if is_undefined(&refusal) && self.may_miss_its_extension(&text) {
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
        let Counts { differ, unreadable, .. } = self.counts(entry).await?;
        let refusal = if !unreadable.is_empty() {
            Refusal {
                kind: Some(Kind::Permission),
                sql_state: Some("42501".to_owned()),
                message: format!(
                    "the rows of {} cannot be counted: the role that restores may not read them, or sees them by row security only; the set is not in question. Restore as a superuser or a role with BYPASSRLS",
                    unreadable.join(", ")
                ),
            }
        } else if differ.is_empty() {
            return Ok(());
        } else {
            Refusal { kind: None, sql_state: None, message: format!("not all rows are there: {}", differ.join("; ")) }
        };
        match self.choices.on_error {
            OnError::Stop
                if self.choices.without.iter().all(|without| without.kind != Object::Extension) || !unreadable.is_empty() =>
            {
                Err(refusal)
            }
            OnError::Stop => {
                // Tables of an extension that was left out are not there, and nothing else may be missing.
                let (missing, wrong): (Vec<String>, Vec<String>) =
                    differ.into_iter().partition(|said| said.contains(" is not there, "));
                self.notes.extend(missing);
                if wrong.is_empty() {
                    Ok(())
                } else {
                    Err(Refusal { message: format!("not all rows are there: {}", wrong.join("; ")), ..refusal })
                }
            }
            OnError::Continue => {
                self.fail(refusal.message);
                Ok(())
            }
        }
    }

    async fn counts(&mut self, entry: &Entry) -> Result<Counts, Refusal> {
        let counted = counts::compare(&mut self.connection, &self.manifest.tables).await;
        counted.map_err(|error| match error.downcast_ref::<sqlx::Error>() {
            Some(error) => self.refusal(error, entry, ""),
            None => of_ours(&error),
        })
    }

    async fn execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        pg::execute_counting(&mut self.connection, sql.to_owned()).await.map(|_| ())
    }

    /// The same; what fails leaves the transaction that it stands in as it was.
    async fn guarded(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        if self.transaction.is_none() && !self.in_block {
            return self.execute(sql).await;
        }
        self.execute(SAVEPOINT).await?;
        match self.execute(sql).await {
            Ok(()) => self.execute(RELEASE).await,
            Err(error) => {
                if matches!(error, sqlx::Error::Database(_)) {
                    self.execute(BACK).await?;
                }
                Err(error)
            }
        }
    }

    /// How many rows a foreign key does not hold for; None where that cannot be told.
    async fn broken_rows(&mut self, key: &ForeignKey) -> Option<u64> {
        let in_transaction = self.transaction.is_some() || self.in_block;
        if in_transaction {
            self.execute(SAVEPOINT).await.ok()?;
        }
        let rows = pg::fetch_all_as::<(i64,)>(&mut self.connection, key.count_query()).await;
        if in_transaction {
            self.execute(if rows.is_ok() { RELEASE } else { BACK }).await.ok()?;
        }
        rows.ok()?.first().map(|(rows,)| *rows as u64)
    }

    /// What an extension brings along is nowhere marked as its own: grants on its functions, rows of its tables.
    fn may_miss_its_extension(&self, text: &str) -> bool {
        self.choices.without.iter().any(|without| without.kind == Object::Extension)
            && ["GRANT ", "REVOKE ", "COMMENT ON ", "SECURITY LABEL ", "SELECT pg_catalog.setval(", "COPY "]
                .iter()
                .any(|start| text.starts_with(start))
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

    fn refusal(&self, error: &sqlx::Error, entry: &Entry, statement: &str) -> Refusal {
        let settings = &self.manifest.server.database.settings;
        let search_path = settings.iter().find_map(|setting| setting.strip_prefix("search_path=")).unwrap_or("public");
        let in_transaction = self.transaction.is_some();
        refusal::of(error, Doing { entry, statement, in_transaction, choices: self.choices, search_path })
    }
}

enum Copied {
    All,
    /// The dump ended before the block did.
    CutShort,
    Not(sqlx::Error),
}

/// Takes the steps up to the end of the block, whatever the server says.
async fn copy(connection: &mut PgConnection, statement: &str, steps: &mut mpsc::Receiver<Step>) -> Copied {
    let mut failed = None;
    match pg::copy_in_by(connection, statement).await {
        Ok(mut into) => {
            while let Some(rows) = next_rows(steps).await {
                match rows {
                    // A server that has refused a row reads the rest and forgets it.
                    Some(rows) if failed.is_none() => failed = into.send(rows).await.err(),
                    Some(_) => {}
                    None => {
                        return match (failed, into.finish().await) {
                            (Some(error), _) | (None, Err(error)) => Copied::Not(error),
                            (None, Ok(_)) => Copied::All,
                        };
                    }
                }
            }
            let _ = into.abort("the dump ends here").await;
            Copied::CutShort
        }
        Err(error) => {
            failed = Some(error);
            while let Some(rows) = next_rows(steps).await {
                if rows.is_none() {
                    break;
                }
            }
            failed.map_or(Copied::CutShort, Copied::Not)
        }
    }
}

/// `Some(None)` at the end of the block, None at the end of the dump.
async fn next_rows(steps: &mut mpsc::Receiver<Step>) -> Option<Option<Bytes>> {
    match steps.recv().await? {
        Step::Rows(rows) => Some(Some(rows)),
        Step::RowsEnd => Some(None),
        // Never inside a block.
        Step::Statement { .. } | Step::Copy { .. } => None,
    }
}

/// Something that a statement names is not there.
fn is_undefined(refusal: &Refusal) -> bool {
    matches!(refusal.sql_state.as_deref(), Some("42P01" | "42883" | "42704" | "3F000" | "42703"))
}

async fn transaction_number(connection: &mut PgConnection) -> Result<String> {
    let number = sqlx::query_scalar("SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text").fetch_one(connection).await;
    number.context("cannot read the transaction's number")
}

fn of_ours(error: &anyhow::Error) -> Refusal {
    Refusal { kind: crate::fault::kind_of(error), sql_state: pg::sql_state(error), message: crate::fault::in_a_line(error) }
}

/// A statement of a database in SQL_ASCII may be of any bytes, and a query that we send is text: the server makes the
/// statement of them.
fn in_its_own_bytes(statement: &[u8]) -> String {
    format!(
        "DO 'BEGIN EXECUTE pg_catalog.convert_from(''\\x{}''::pg_catalog.bytea, pg_catalog.pg_client_encoding()); END'",
        hex(statement)
    )
}
