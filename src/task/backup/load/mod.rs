//! A session that runs a dump: statement by statement, rows as they come, with counts, and errors as the server reports them. No client
//! tool is involved: a refused COPY must not turn rows into statements, as in psql when it continues after errors; psql commands are never
//! executed; and an error has its SQLSTATE, object and context, whatever the server's language.

mod alone;
mod attempt;
mod beside;
mod count;
mod crew;
mod cut;
mod notes;
mod queue;
mod said;
mod way;
mod wide;

use std::sync::Arc;

use anyhow::Result;
use sqlx::postgres::PgConnection;

use self::beside::{Beside, Times};
pub use self::said::of_ours;
use self::said::{at_the_end, foreign};
use super::choices::{Choices, OnError};
use super::how_proved::Hashed;
use super::left_out::Made;
use super::manifest::Manifest;
use super::own_bytes;
use super::refusal::Refusal;
use super::rewrite::{self, Fate};
use super::row_sums::RowSums;
use super::script::{Entry, Step, Steps};
use super::session::{Session, Silence};
use super::superuser::Superuser;
use crate::base::units;
use crate::pg;

pub struct Loader {
    settings: pg::Settings,
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
    /// How many sessions have run it.
    pub sessions: usize,
    /// The sums of the dump's rows, filled by whoever reads it; None where rows are only counted.
    pub sums: Option<RowSums>,
    /// What was compared by its values, where that was asked for.
    pub hashed: Option<Hashed>,
    /// The others, where several do.
    beside: Option<Beside>,
    times: Times,
}

impl Loader {
    /// Connects, and prepares the session. An error is the target's or the network's.
    pub async fn open(target: &Target<'_>, manifest: &Manifest) -> Result<Self> {
        let superuser = match target.superuser {
            Some(settings) => Some(Superuser::open(settings).await?),
            None => None,
        };
        let session = Session::open(target.settings, target.in_transaction, target.choices.of_part.as_deref(), manifest).await?;
        let beside = match target.is_wide() {
            true => Some(Beside::open(target.settings, manifest, session.silence, target.sessions).await?),
            false => None,
        };
        let choices = Choices { by_superuser: session.server.is_superuser, ..target.choices.clone() };
        Ok(Self {
            settings: target.settings.clone(),
            superuser,
            session,
            sessions: beside.as_ref().map_or(1, |beside| beside.crew.sessions()),
            beside,
            times: Times::default(),
            choices,
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
            sums: None,
            hashed: None,
        })
    }

    /// Runs all steps, or those up to the first refusal.
    pub async fn run(&mut self, mut steps: Steps) -> Result<(), Refusal> {
        let ran = self.run_all(&mut steps).await;
        self.times.ended();
        // After a refusal the others stop, too.
        if let Some(beside) = self.beside.take().filter(|_| ran.is_ok()) {
            beside.crew.close().await;
        }
        ran
    }

    async fn run_all(&mut self, steps: &mut Steps) -> Result<(), Refusal> {
        while let Some(step) = steps.next().await {
            if matches!(step, Step::Statement { .. } | Step::Copy { .. }) {
                self.prove_names().await?;
            }
            match step {
                Step::Statement { text, entry } => self.statement(text, &entry).await?,
                Step::Copy { text, entry } => {
                    self.times.rows_begin();
                    self.rows(text, &entry, steps).await?;
                }
                Step::Rows(_) | Step::RowsEnd => {}
            }
        }
        self.all_is_done().await
    }

    /// Where other sessions can change the names of schemas, these are compared before each statement that goes by them.
    pub(super) async fn prove_names(&mut self) -> Result<(), Refusal> {
        self.session.prove_names().await.map_err(|error| of_ours(&error))
    }

    /// Called after the last byte is proved: compares the rows, and runs the final steps.
    pub async fn prove(&mut self) -> Result<(), Refusal> {
        let at_the_end = at_the_end();
        if self.session.is_in_transaction() {
            // What acts at the commit acts now, before the rows are counted.
            let set = pg::execute(&mut self.session.connection, "SET CONSTRAINTS ALL IMMEDIATE".to_owned()).await;
            set.map_err(|error| self.refusal_of(&error, &at_the_end))?;
        }
        self.compare(&at_the_end).await?;
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
                message: "something in the dump ended the transaction that the restore runs in: restore with --create".to_owned(),
                ..Refusal::default()
            }),
            Err(error) => Err(self.refusal_of(&error, &at_the_end())),
        }
    }

    /// The main session, for statements of our own before the commit.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.session.connection
    }

    /// Returns whether the server may have committed, whatever came back.
    pub fn has_sent_commit(&self) -> bool {
        self.session.has_sent_commit
    }

    /// The seconds in which rows came, and those of what came after them.
    pub fn seconds(&self) -> Option<(f64, f64)> {
        self.times.seconds()
    }

    async fn statement(&mut self, text: Vec<u8>, entry: &Arc<Entry>) -> Result<(), Refusal> {
        let text = own_bytes::text(text);
        if entry.is_ours {
            return self.ours(text, entry).await;
        }
        if self.others_take(&text, entry).await? {
            return Ok(());
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
        self.meets_its_fate(&text, entry).await
    }

    async fn meets_its_fate(&mut self, text: &str, entry: &Arc<Entry>) -> Result<(), Refusal> {
        match rewrite::fate(text, &self.choices, &self.session.server) {
            Fate::Run(sql, note) => {
                let sql = sql.into_owned();
                if self.attempt(&sql, text, entry).await? {
                    self.note(note);
                    self.others_set(text, sql);
                }
                Ok(())
            }
            Fate::Cut(sql, which) => {
                for which in which {
                    let name = self.choices.without[which].name.clone();
                    self.leave_out(which, &format!("{entry}: without its constraint {name}"));
                }
                self.attempt(&sql, text, entry).await.map(|_| ())
            }
            Fate::Foreign => Err(foreign(text, entry)),
            Fate::BySuperuser(turn) => match &mut self.superuser {
                Some(superuser) => match superuser.take(turn, text, entry).await {
                    Ok(None) => Ok(()),
                    Ok(Some(refusal)) => Err(refusal),
                    Err(error) => Err(self.refusal(&error, entry, text)),
                },
                None => self.attempt(text, text, entry).await.map(|_| ()),
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
}

/// The target of the dump.
pub struct Target<'a> {
    pub settings: &'a pg::Settings,
    pub choices: &'a Choices,
    /// True if all is one transaction, committed after the proof. The database must be empty.
    pub in_transaction: bool,
    /// The superuser of a server of its own, who runs what the restoring role may not.
    pub superuser: Option<&'a pg::Settings>,
    /// How many sessions restore, by `sessions::restore_sessions`.
    pub sessions: usize,
}

impl Target<'_> {
    /// Returns whether several sessions restore. One transaction is one session's; and where a statement may fail or is left out, and the restore goes on,
    /// what comes after it must come after it.
    fn is_wide(&self) -> bool {
        let Choices { on_error, without, of_part, .. } = self.choices;
        self.sessions > 1 && !self.in_transaction && *on_error == OnError::Stop && without.is_empty() && of_part.is_none()
    }
}
