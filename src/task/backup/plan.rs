//! The plan of a backup, and the reasons: reads the state of server and store, then decides purely.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::context::free_name;
use super::facts::ServerFacts;
use super::identity::Identity;
use super::keep::{Candidate, Decision};
use super::keys::{Backup, Verify};
use super::often::Often;
use super::place::Place;
use super::rules::Rules;
use super::series::Series;
use super::set::Set;
use super::set_name::SetName;
use super::since::Since;
use super::state::State;
use super::sweep;
use super::verdict::Bytes;
use super::warnings::{doubts, warnings};
use super::{rules, scratch};
use crate::base::units;
use crate::pg::client_tools::Tools;
use crate::work::RunContext;

#[derive(Debug, Serialize)]
pub struct Plan {
    pub set: String,
    pub location: String,
    /// To whom it is encrypted, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_to: Option<String>,
    pub server: ServerFacts,
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
    #[serde(skip)]
    pub series: Series,
    /// The set that the new one is compared with.
    #[serde(skip)]
    pub previous: Option<Set>,
    #[serde(skip)]
    pub dropped_by_us: BTreeSet<String>,
    /// The number of statements that a standby had cancelled for its recovery, before the dump.
    #[serde(skip)]
    pub recovery_conflicts: i64,
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
    let taken: Vec<SetName> = state.listing.names().cloned().collect();
    let name = free_name(run.database, run.job.name, &taken, now);
    let identity = Identity::of(&state.server);

    let of_series = |set: &&Set| state.series.unites(identity.as_ref(), set) && !set.is_from_the_future(now);
    let last_good = state.listing.sets.iter().rev().filter(of_series).find(|set| set.verification.verdict() == Bytes::Intact);
    // An unread set may be damaged, and then would be no set to fall back on.
    let unread = || state.listing.sets.iter().rev().filter(of_series).find(|set| set.verification.verdict() == Bytes::Unknown);
    let previous = last_good.or_else(unread);
    let since = Since::of(state.listing.sets.iter().filter(of_series));
    let is_due = |often: Often| often.is_due(since.restored_at, since.sets, now, run.job.timezone);
    let verify = match backup.verify {
        Verify::Restore if is_due(backup.how_often.restore) => Verify::Restore,
        Verify::Restore if backup.how_often.checksum == Often::Never => Verify::None,
        Verify::Restore => Verify::Checksum,
        verify => verify,
    };
    let keep = fates(&state, backup, run, identity.as_ref(), &name, verify);
    let mut deletes_nothing = doubts(&state.server, state.host_clock, &state.series, &state.listing);
    deletes_nothing.extend(state.series_trouble.clone());
    let prefix = scratch::scratch_prefix(run.database, run.job.name, &state.server);
    let scratch_name = format!("{prefix}{}", name.taken_at.timestamp());
    let mut sweep =
        sweep::decide(state.leftovers.clone(), state.uploads.clone(), identity.as_ref(), state.listing.newest_object_at);
    if !deletes_nothing.is_empty() {
        sweep.objects.clear();
        sweep.uploads.clear();
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
        proof: state.place.in_words(&scratch_name) + if backup.vector_indexes { "" } else { ", vector indexes not built" },
        sets_since_restore: since.sets,
        place: state.place.clone(),
        keep: if deletes_nothing.is_empty() { keep } else { Vec::new() },
        warnings: warnings(&state, &sweep, identity.as_ref(), previous, backup, run),
        lacks: state.readiness.lacks.iter().map(|lack| lack.message.clone()).collect(),
        deletes_nothing,
        last_good_age_seconds: last_good.map(|set| (now - set.name.taken_at).num_seconds().max(0)),
        scratch_name,
        previous: previous.cloned(),
        sweep: Sweep { store: sweep, scratch_databases: state.scratch_leftovers, throwaway_folders: state.throwaway_leftovers },
        whole_tables: state.whole_tables,
        location: state.location,
        encrypted_to: state.encrypted_to,
        server: state.server,
        tools: state.tools,
        known_settings: state.known_settings,
        series: state.series,
        dropped_by_us: state.dropped_by_us,
        recovery_conflicts: state.recovery_conflicts,
        identity,
        name,
    }
}

/// Says of each set, that of this run among them, whether `keep` keeps it. Nothing without `keep`.
fn fates(
    state: &State,
    backup: &Backup,
    run: &RunContext<'_>,
    identity: Option<&Identity>,
    name: &SetName,
    verify: Verify,
) -> Vec<Decision> {
    let Some(keep) = &backup.keep else { return Vec::new() };
    let rules = Rules {
        keep,
        zone: run.job.timezone,
        now: run.now,
        identity,
        series: &state.series,
        own: None,
        has_schedule: run.job.has_schedule,
    };
    let own = Candidate {
        name: name.to_string(),
        taken_at: name.taken_at,
        bytes: if verify == Verify::None { Bytes::Unknown } else { Bytes::Intact },
        damaged_at: None,
        was_restored: false,
        fills: !run.by_hand,
        pinned: vec!["made by this run".to_owned()],
    };
    rules::decide(&state.listing, &rules, Some((own, &backup.filters)))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let database = &self.server.database;
        writeln!(
            f,
            "back up {} ({}, PostgreSQL {}) as {}",
            database.name,
            units::bytes(database.size_bytes.max(0) as u64),
            self.server.version,
            self.set
        )?;
        let encrypted = self.encrypted_to.as_ref().map(|to| format!(", encrypted to {to}")).unwrap_or_default();
        writeln!(f, "  to       {}{encrypted}", self.location)?;
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
        for decision in &self.keep {
            let verb = match decision {
                Decision { check_first: true, .. } => "check",
                Decision { keep: true, .. } => "keep",
                Decision { keep: false, .. } => "delete",
            };
            writeln!(f, "  {verb:<8} {} ({})", decision.name, decision.reasons.join(", "))?;
        }
        for doubt in &self.deletes_nothing {
            writeln!(f, "  deletes  nothing in the store, because {doubt}")?;
        }
        for lack in &self.lacks {
            writeln!(f, "  lacks    {lack}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning  {warning}")?;
        }
        Ok(())
    }
}
