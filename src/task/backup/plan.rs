//! The plan of a backup, and the reasons: reads the state of server and store, then decides purely.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::context::free_name;
use super::facts::ServerFacts;
use super::identity::Identity;
use super::keep::{Candidate, Decision};
use super::keys::{Backup, Scratch, Verify};
use super::often::Often;
use super::place::Place;
use super::rules::Rules;
use super::series::Series;
use super::set::{self, Listing, Set};
use super::set_name::SetName;
use super::since::Since;
use super::sweep::{self, Leftover};
use super::verdict::Bytes;
use super::wide::whole;
use super::{choose, facts, latest, readiness, rules, scratch, standby};
use crate::base::{shell, units};
use crate::pg::client_tools::Tools;
use crate::pg::{failure, throwaway};
use crate::store::{Store, Unfinished, key};
use crate::work::{Does, RunContext};
use crate::{ledger, pg};

/// The number of runs of a partition job that are searched for dropped partitions.
const PARTITION_RUNS: i64 = 60;

/// Everything that is read before deciding.
pub struct State {
    pub server: ServerFacts,
    pub tools: Tools,
    pub location: String,
    pub listing: Listing,
    pub series: Series,
    /// The reason why the accepted series could not be read.
    pub series_trouble: Option<String>,
    pub leftovers: Vec<Leftover>,
    pub uploads: Vec<Unfinished>,
    pub place: Place,
    /// Folders of throwaway servers whose run was killed.
    pub throwaway_leftovers: Vec<PathBuf>,
    pub scratch_leftovers: Vec<String>,
    /// The reason why the server of the scratch databases could not be queried.
    pub scratch_trouble: Option<String>,
    pub free_bytes: Option<u64>,
    /// Read when pg_dump is newer than the server.
    pub known_settings: Option<HashSet<String>>,
    /// This host's clock at the moment when the server's was read.
    pub host_clock: DateTime<Utc>,
    /// Tables that pgtend's own jobs have dropped, by the ledger.
    pub dropped_by_us: BTreeSet<String>,
    pub readiness: readiness::Found,
    pub recovery_conflicts: i64,
    /// How several sessions read the large tables, where not all in slices.
    pub whole_tables: Option<String>,
}

impl State {
    pub async fn read(backup: &Backup, run: &RunContext<'_>) -> Result<Self> {
        let mut connection = run.settings.connect().await.with_context(|| format!("database `{}`", run.database))?;
        let server =
            facts::server(&mut connection, &run.settings).await.with_context(|| format!("database `{}`", run.database))?;
        let host_clock = Utc::now();
        let place = choose::place(backup, run.config, &server, &mut connection).await?;
        standby::check(&place, &mut connection).await.with_context(|| format!("database `{}`", run.database))?;
        let major = server.version_num as u32 / 10_000;
        let tools = super::context::tools_for(run, major).await?;
        // A failed check of the requirements does not prevent the dump.
        let readiness = readiness::look(&mut connection, backup, &run.settings, &server, &place).await.unwrap_or_else(|error| {
            readiness::Found {
                notes: vec![format!("the requirements of the dump could not be checked: {}", failure::in_a_line(&error))],
                ..readiness::Found::default()
            }
        });
        let recovery_conflicts = standby::recovery_conflicts(&mut connection).await.unwrap_or_default();
        let whole_tables = match server.database.has_no_way_to_utf8() {
            true => None,
            false => whole::before_a_dump(&run.settings, backup).await?,
        };
        let known_settings = if tools.major > major { Some(facts::setting_names(&mut connection).await?) } else { None };

        let store = Store::named(run.config, &backup.store).await?;
        let folder = key::folder(run.database, run.job.name);
        let in_store = || format!("store `{}`", backup.store);
        let listing = set::list(&store, &folder).await.with_context(in_store)?;
        let (series, series_trouble) = Series::read(&store, run.database, run.job.name).await.with_context(in_store)?;
        let (leftovers, uploads) = sweep::read(&store, &folder, &listing).await.with_context(in_store)?;

        let scratch_leftovers = scratch_leftovers(&place, run, &server).await;
        let uses_scratch = matches!(place, Place::Source { .. } | Place::Elsewhere(_));
        let scratch_trouble = scratch_leftovers.as_ref().err().filter(|_| uses_scratch).map(failure::in_a_line);
        Ok(Self {
            server,
            tools,
            location: store.location(&folder),
            listing,
            series,
            series_trouble,
            leftovers,
            uploads,
            throwaway_leftovers: throwaway_leftovers(backup, run),
            place,
            scratch_leftovers: scratch_leftovers.unwrap_or_default(),
            scratch_trouble,
            free_bytes: store.free_bytes(),
            known_settings,
            host_clock,
            dropped_by_us: dropped_by_us(run).await,
            readiness,
            recovery_conflicts,
            whole_tables,
        })
    }
}

/// Finds scratch databases of earlier runs, also for a job that now uses a server of its own: its earlier runs may have created some.
async fn scratch_leftovers(place: &Place, run: &RunContext<'_>, server: &ServerFacts) -> Result<Vec<String>> {
    if matches!(place, Place::NotAsked) {
        return Ok(Vec::new());
    }
    let settings = place.scratch_settings(&run.settings);
    let mut connection = scratch::maintenance_connection(&settings).await.context("for the scratch database")?;
    scratch::scratch_leftovers(&mut connection, &scratch::scratch_prefix(run.database, run.job.name, server)).await
}

/// Finds the folders that killed runs of any job have left: while a process works in a folder, it holds the folder's lock.
fn throwaway_leftovers(backup: &Backup, run: &RunContext<'_>) -> Vec<PathBuf> {
    let may_be_there = backup.verify == Verify::Restore && matches!(backup.scratch, Scratch::Auto | Scratch::Throwaway);
    if may_be_there { throwaway::leftovers(&run.config.verify.throwaway_parent()) } else { Vec::new() }
}

/// Expired partitions that pgtend dropped. Without the ledger none are known: then more is held than necessary.
async fn dropped_by_us(run: &RunContext<'_>) -> BTreeSet<String> {
    let mut dropped = BTreeSet::new();
    let Some(ledger) = run.ledger else { return dropped };
    for job in run.others.iter().filter(|job| matches!(job.does, Does::Partition { .. })) {
        let filter = ledger::Filter { job: Some(&job.name), database: Some(run.database), outcome: None, limit: PARTITION_RUNS };
        match ledger.runs(&filter).await {
            Ok(rows) => {
                let reports = rows.into_iter().filter_map(|row| row.report);
                let tables = reports.filter_map(|report| report.facts.get("dropped")?.as_array().cloned()).flatten();
                // Names are quoted as in SQL.
                dropped.extend(tables.filter_map(|table| Some(table.as_str()?.replace('"', ""))));
            }
            Err(error) => tracing::debug!("{error:#}"),
        }
    }
    dropped
}

#[derive(Debug, Serialize)]
pub struct Plan {
    pub set: String,
    pub location: String,
    pub server: ServerFacts,
    pub pg_dump: String,
    pub compression: String,
    /// The sessions that read the rows of large tables.
    pub sessions: usize,
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
    let has_schedule = run.job.has_schedule;

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
    let keep = match &backup.keep {
        Some(keep) => {
            let rules = Rules {
                keep,
                zone: run.job.timezone,
                now,
                identity: identity.as_ref(),
                series: &state.series,
                own: None,
                has_schedule,
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
        None => Vec::new(),
    };
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
        sessions: backup.sessions,
        verify,
        restores: (backup.verify == Verify::Restore && backup.how_often.restore != Often::Always)
            .then(|| since.in_words(backup.how_often.restore)),
        proof: state.place.in_words(&scratch_name),
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

/// Returns why no set and no leftover may go this time: each of these is a doubt about whose they are, or about the time. `host_clock` is this
/// host's when the server's was read. Pure.
pub fn doubts(server: &ServerFacts, host_clock: DateTime<Utc>, series: &Series, listing: &Listing) -> Vec<String> {
    let mut doubts: Vec<String> = listing.doubt().into_iter().collect();
    if let Some(clock) = server.clock {
        let apart = (clock - host_clock).abs();
        if apart > pg::clock::APART {
            let apart = units::duration(apart.to_std().unwrap_or_default());
            doubts.push(format!("the clocks of this host and of the database server differ by {apart}: correct them"));
        }
    }
    if let (Some(set), Some(identity)) = (series.ahead_of(server, listing.sets.iter()), Identity::of(server)) {
        let position = |server: &ServerFacts| {
            let timeline = server.timeline.map_or("?".to_owned(), |timeline| timeline.to_string());
            format!("timeline {timeline}, {}", server.lsn.as_deref().unwrap_or("?"))
        };
        doubts.push(format!(
            "{} was taken from a later point of the same write-ahead log ({}) than the server is at now ({}): one of the two is a copy of \
             the other, or was restored to an earlier state; if this server continues the series, confirm it: \
             pgtend backups accept --identity {} --database {} --job {}",
            set.name,
            position(&set.manifest.server),
            position(server),
            shell::word(&identity.to_string()),
            shell::word(&set.name.database),
            shell::word(&set.name.job),
        ));
    }
    doubts
}

fn warnings(
    state: &State,
    sweep: &sweep::Plan,
    identity: Option<&Identity>,
    previous: Option<&Set>,
    backup: &Backup,
    run: &RunContext<'_>,
) -> Vec<String> {
    let mut warnings = Vec::new();
    let listing = &state.listing;
    for (name, reason) in &listing.unreadable {
        warnings.push(format!("set {name} cannot be restored: {reason}"));
    }
    warnings.extend(listing.not_ours_in_words());
    for set in &listing.sets {
        warnings
            .extend(set.holds.iter().filter(|hold| hold.is_doubted()).map(|hold| format!("set {}: {}", set.name, hold.reason)));
    }
    for set in listing.sets.iter().filter(|set| set.is_from_the_future(run.now)) {
        warnings.push(format!(
            "set {} is dated in the future: a clock was wrong when it was made, or is wrong now; it fills no place of `keep` and is never the latest",
            set.name
        ));
    }
    match identity {
        None if listing.sets.iter().any(|set| set.identity().is_some()) => warnings.push(
            "this role may not read the server's system identifier: sets are told apart by their names alone; GRANT EXECUTE ON FUNCTION pg_control_system() TO the role".to_owned(),
        ),
        None => {}
        Some(own) => {
            let others = latest::identities(&listing.sets, |set| state.series.identity_of(set));
            for other in others.iter().filter(|other| *other != own) {
                let whose = match other.system_identifier == own.system_identifier {
                    true => "another database of this server",
                    false => "another server",
                };
                warnings.push(format!(
                    "there are sets of {whose} here ({other}; this one is {own}): they are neither counted nor deleted; \
                     if this one has replaced that one, confirm it: \
                     pgtend backups accept --identity {} --database {} --job {}",
                    shell::word(&other.to_string()),
                    run.database,
                    run.job.name
                ));
            }
        }
    }
    for left in sweep.left.iter().filter(|left| left.for_ever) {
        warnings.push(format!("{} has objects but no manifest and is left alone: {}", left.name, left.reason));
    }
    if let Some(trouble) = &state.scratch_trouble {
        warnings.push(format!("cannot check the server for scratch databases of earlier runs: {trouble}"));
    }
    if let Some((last, free)) = previous.zip(state.free_bytes).filter(|(last, free)| *free < last.manifest.dump.bytes) {
        warnings.push(format!(
            "the store has {} free, and the last dump had {}",
            units::bytes(free),
            units::bytes(last.manifest.dump.bytes)
        ));
    }
    if backup.keep.is_some()
        && backup.verify == Verify::None
        && !listing.sets.iter().any(|set| set.verification.verdict() == Bytes::Intact)
    {
        warnings.push(
            "no set has been read back, so `keep` deletes none: run `pgtend backups verify latest`, or `pgtend backups prune`"
                .to_owned(),
        );
    }
    if !state.server.unreadable.is_empty() {
        warnings
            .push(format!("this role may not read these objects, so the set lacks them: {}", state.server.unreadable.join("; ")));
    }
    warnings.extend(state.readiness.notes.iter().cloned());
    if backup.sessions > 1 && state.server.database.has_no_way_to_utf8() {
        let encoding = &state.server.database.encoding;
        warnings
            .push(format!("`sessions` has no effect: pg_dump alone dumps a database in {encoding}, which has no way to UTF-8"));
    }
    if state.server.in_recovery {
        warnings.push(
            "the server is a standby: it may cancel the dump (max_standby_streaming_delay), and unlogged tables are not included"
                .to_owned(),
        );
    }
    warnings
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
        writeln!(f, "  to       {}", self.location)?;
        let sessions = match self.sessions {
            1 => String::new(),
            sessions => format!(", rows of large tables by {sessions} sessions"),
        };
        writeln!(f, "  with     {}, {}{sessions}", self.pg_dump, self.compression)?;
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
