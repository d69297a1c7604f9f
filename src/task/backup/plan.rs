//! The plan of a backup, and the reasons: reads the state of server and store, then decides purely.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::context::free_name;
use super::copies::lacks::Lacking;
use super::facts::ServerFacts;
use super::identity::Identity;
use super::keep::Decision;
use super::keys::{Backup, Verify};
use super::of_store::{self, OfStore, last_good};
use super::often::Often;
use super::place::Place;
use super::scratch;
use super::set::{Listing, Set};
use super::set_name::SetName;
use super::since::Since;
use super::state::State;
use super::sweep;
use super::warnings::warnings;
use crate::base::{terminal, units};
use crate::pg::client_tools::Tools;
use crate::pg::identifier;
use crate::work::RunContext;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub set: String,
    pub location: String,
    /// To whom it is encrypted, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_to: Option<String>,
    /// What is done in each store, the nearest that could be read first; those that could not be read come last. Shown where there are several.
    #[serde(skip_serializing_if = "are_one")]
    pub stores: Vec<OfStore>,
    pub server: ServerFacts,
    /// The one schema of a run that is of one.
    #[serde(skip)]
    pub schema: Option<String>,
    pub pg_dump: String,
    pub compression: String,
    /// The sessions that read the rows of large tables.
    pub sessions: usize,
    /// How `max_sessions` of the database has decided their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_because: Option<String>,
    /// How they read them, where not all in slices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub whole_tables: Option<String>,
    /// What this run does: less than the job's `verify` when no restore is due.
    pub verify: Verify,
    /// When restores are due, if not always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restores: Option<String>,
    /// Where the set is restored, in words.
    pub proof: String,
    /// The number of sets since the last restored one, including this one.
    #[serde(skip)]
    pub sets_since_restore: u32,
    #[serde(skip)]
    pub place: Place,
    pub sweep: Sweep,
    pub keep: Vec<Decision>,
    pub warnings: Vec<String>,
    /// The reasons why the run will fail.
    pub lacks: Vec<String>,
    /// The reasons why this run deletes nothing in the store; empty when it may.
    pub deletes_nothing: Vec<String>,
    pub last_good_age_seconds: Option<i64>,
    #[serde(skip)]
    pub name: SetName,
    #[serde(skip)]
    pub tools: Tools,
    #[serde(skip)]
    pub known_settings: Option<HashSet<String>>,
    #[serde(skip)]
    pub scratch_name: String,
    #[serde(skip)]
    pub identity: Option<Identity>,
    /// The set that the new one is compared with.
    #[serde(skip)]
    pub previous: Option<Set>,
    #[serde(skip)]
    pub dropped_by_us: BTreeSet<String>,
    /// The number of statements that a standby had cancelled for its recovery, before the dump.
    #[serde(skip)]
    pub recovery_conflicts: i64,
}

fn are_one(stores: &[OfStore]) -> bool {
    stores.len() <= 1
}

/// Leftovers of earlier runs.
#[derive(Debug, Default, Serialize)]
pub struct Sweep {
    #[serde(flatten)]
    pub store: sweep::Plan,
    pub scratch_databases: Vec<String>,
    pub throwaway_folders: Vec<PathBuf>,
}

impl Sweep {
    fn is_empty(&self) -> bool {
        self.store.is_empty() && self.scratch_databases.is_empty() && self.throwaway_folders.is_empty()
    }
}

/// Decides what to do. Pure.
pub fn decide(state: State, backup: &Backup, run: &RunContext<'_>) -> Plan {
    let now = run.now;
    let listings = [&state.main].into_iter().chain(&state.others).map(|found| &found.listing);
    let taken: Vec<SetName> = listings.flat_map(Listing::names).cloned().collect();
    let name = free_name(run.database, run.job.name, &taken, now);
    let identity = Identity::of(&state.server);

    let main = &state.main;
    let of_series = |set: &&Set| main.series.unites(identity.as_ref(), set) && !set.is_from_the_future(now);
    let (last_good, previous) = last_good(&main.listing, &main.series, identity.as_ref(), now);
    let since = Since::of(main.listing.sets.iter().filter(of_series));
    let is_due = |often: Often| often.is_due(since.restored_at, since.sets, now, run.job.timezone);
    let verify = match backup.verify {
        Verify::Restore if is_due(backup.how_often.restore) => Verify::Restore,
        Verify::Restore if backup.how_often.checksum == Often::Never => Verify::None,
        Verify::Restore => Verify::Checksum,
        verify => verify,
    };
    let own = of_store::Own { backup, run, identity: identity.as_ref(), name: &name, verify };
    let stores = of_store::decide(&state, &own);
    let prefix = scratch::scratch_prefix(run.database, run.job.name, &state.server);
    let scratch_name = format!("{prefix}{}", name.taken_at.timestamp());
    let (mut store, mut keep, mut deletes_nothing) = Default::default();
    if let Some(first) = stores.first() {
        (store, keep, deletes_nothing) = (first.sweep.clone(), first.keep.clone(), first.deletes_nothing.clone());
    }
    Plan {
        set: name.to_string(),
        pg_dump: format!("{} in {}", state.tools.version, state.tools.folder.display()),
        compression: format!("{:?} level {} on {} threads", backup.compression, backup.level, backup.threads).to_lowercase(),
        sessions: state.sessions.count,
        sessions_because: state.sessions.why.clone(),
        verify,
        restores: (backup.verify == Verify::Restore && backup.how_often.restore != Often::Always)
            .then(|| since.in_words(backup.how_often.restore)),
        proof: state.place.in_words(&scratch_name, backup.rows)
            + if backup.vector_indexes { "" } else { ", vector indexes not built" },
        sets_since_restore: since.sets,
        place: state.place.clone(),
        warnings: warnings(&state, &store, identity.as_ref(), previous, backup, run),
        lacks: state.readiness.lacks.iter().map(|lack| lack.message.clone()).collect(),
        last_good_age_seconds: last_good.map(|set| (now - set.name.taken_at).num_seconds().max(0)),
        scratch_name,
        previous: previous.cloned(),
        keep,
        deletes_nothing,
        sweep: Sweep { store, scratch_databases: state.scratch_leftovers, throwaway_folders: state.throwaway_leftovers },
        whole_tables: state.whole_tables,
        location: state.main.location,
        encrypted_to: state.main.encrypted_to,
        stores,
        server: state.server,
        schema: backup.schema.clone(),
        tools: state.tools,
        known_settings: state.known_settings,
        dropped_by_us: state.dropped_by_us,
        recovery_conflicts: state.recovery_conflicts,
        identity,
        name,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let database = &self.server.database;
        let schema = self.schema.as_ref().map(|schema| format!("schema {} of ", identifier(schema))).unwrap_or_default();
        writeln!(
            f,
            "back up {}{} ({}, PostgreSQL {}) as {}",
            terminal::in_one_line(&schema),
            database.name,
            units::bytes(database.size_bytes.max(0) as u64),
            self.server.version,
            self.set
        )?;
        let encrypted = self.encrypted_to.as_ref().map(|to| format!(", encrypted to {to}")).unwrap_or_default();
        writeln!(f, "  to       {}{encrypted}", self.location)?;
        for OfStore { store, location, encrypted_to, away, .. } in self.stores.iter().skip(1) {
            let encrypted = encrypted_to.as_ref().map(|to| format!(", encrypted to {to}")).unwrap_or_default();
            match away {
                None => writeln!(f, "  and to   {location}{encrypted}")?,
                Some(why) => writeln!(f, "  not to   {store}, which cannot be read, so that the run will fail: {why}")?,
            }
        }
        let because = self.sessions_because.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        let sessions = match self.sessions {
            1 => String::new(),
            sessions => format!(", rows of large tables by {sessions} sessions"),
        };
        writeln!(f, "  with     {}, {}{sessions}{because}", self.pg_dump, self.compression)?;
        if let Some(whole) = &self.whole_tables {
            writeln!(f, "  reads    {whole}")?;
        }
        let verify = match self.verify {
            Verify::Checksum => "read back, hashed, decoded and counted".to_owned(),
            Verify::Restore => self.proof.clone(),
            Verify::None => "not now (verify = \"none\")".to_owned(),
        };
        let restores = self.restores.as_ref().map(|restores| format!(" ({restores})")).unwrap_or_default();
        writeln!(f, "  verify   {verify}{restores}")?;
        match self.last_good_age_seconds {
            Some(age) => writeln!(
                f,
                "  before   the last intact set is {} old",
                units::duration(std::time::Duration::from_secs(age.max(0) as u64))
            )?,
            None => writeln!(f, "  before   there is no intact set yet")?,
        }
        if !self.sweep.is_empty() {
            let Sweep { store: sweep::Plan { uploads, objects, .. }, scratch_databases, throwaway_folders } = &self.sweep;
            let folders = match throwaway_folders.len() {
                0 => String::new(),
                count => format!(", {} of throwaway servers", units::plural(count, "folder")),
            };
            writeln!(
                f,
                "  sweep    {}, {} without a manifest, {}{folders}",
                units::plural(uploads.len(), "unfinished upload"),
                units::plural(objects.len(), "object"),
                units::plural(scratch_databases.len(), "scratch database")
            )?;
        }
        for of_store in &self.stores {
            let which = if self.stores.len() > 1 { format!(" in {}", of_store.store) } else { String::new() };
            for Lacking { set, from, .. } in &of_store.lacks {
                writeln!(f, "  copy     {set} from {from}, which {} lacks", of_store.store)?;
            }
            for decision in &of_store.keep {
                let verb = match decision {
                    Decision { check_first: true, .. } => "check",
                    Decision { keep: true, .. } => "keep",
                    Decision { keep: false, .. } => "delete",
                };
                let reasons = decision.reasons.join(", ");
                writeln!(f, "  {verb:<8} {}{which} ({})", decision.name, terminal::in_one_line(&reasons))?;
            }
            for doubt in &of_store.deletes_nothing {
                let store = if which.is_empty() { " in the store" } else { which.as_str() };
                writeln!(f, "  deletes  nothing{store}, because {}", terminal::in_one_line(doubt))?;
            }
        }
        for lack in &self.lacks {
            writeln!(f, "  lacks    {lack}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning  {}", terminal::in_one_line(warning))?;
        }
        Ok(())
    }
}
