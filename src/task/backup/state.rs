//! Reads the state of server and store that a backup decides from.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};

use super::facts::ServerFacts;
use super::found::{self, Found};
use super::keys::{Backup, InStore, Scratch, Verify};
use super::place::Place;
use super::wide::whole;
use super::{choose, connection_limit, facts, readiness, scratch, standby};
use crate::config::sessions::Sessions;
use crate::ledger;
use crate::pg::client_tools::Tools;
use crate::pg::{failure, throwaway};
use crate::work::{Does, RunContext};

/// The number of runs of a partition job that are searched for dropped partitions.
const PARTITION_RUNS: i64 = 60;

/// Everything that is read before deciding.
pub struct State {
    pub server: ServerFacts,
    pub tools: Tools,
    /// The nearest store that could be read.
    pub main: Found,
    /// The others that could be read, the nearest first.
    pub others: Vec<Found>,
    /// The stores that could not be read, each with the reason. There are none where the job has one store: then it is an error.
    pub away: Vec<(InStore, String)>,
    pub place: Place,
    /// Folders of throwaway servers whose run was killed.
    pub throwaway_leftovers: Vec<PathBuf>,
    pub scratch_leftovers: Vec<String>,
    /// The reason why the server of the scratch databases could not be queried.
    pub scratch_trouble: Option<String>,
    /// Read when pg_dump is newer than the server.
    pub known_settings: Option<HashSet<String>>,
    /// This host's clock at the moment when the server's was read.
    pub host_clock: DateTime<Utc>,
    /// Tables that pgtend's own jobs have dropped, by the ledger.
    pub dropped_by_us: BTreeSet<String>,
    pub readiness: readiness::Found,
    pub recovery_conflicts: i64,
    /// The sessions that read the rows of large tables.
    pub sessions: Sessions,
    /// How several sessions read the large tables, where not all in slices.
    pub whole_tables: Option<String>,
}

impl State {
    pub async fn read(backup: &Backup, run: &RunContext<'_>) -> Result<Self> {
        let mut connection = run.settings.connect().await.with_context(|| format!("database `{}`", run.database))?;
        let facts = facts::place(&mut connection, &run.settings, backup.schema.as_deref()).await;
        let server = facts.with_context(|| format!("database `{}`", run.database))?;
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
        let allowed = connection_limit::left(&mut connection, run.config.own_sessions(run.database)).await?;
        let sessions = run.config.sessions_for(run.database, backup.sessions, allowed);
        let whole_tables = match sessions.count == 1 || server.database.has_no_way_to_utf8() {
            true => None,
            false => whole::before_a_dump(&run.settings, backup).await?,
        };
        let known_settings = if tools.major > major { Some(facts::setting_names(&mut connection).await?) } else { None };

        let (main, others, away) = found::in_stores(backup, run).await?;
        let scratch_leftovers = scratch_leftovers(&place, run, &server).await;
        let uses_scratch = matches!(place, Place::Source { .. } | Place::Elsewhere(_));
        let scratch_trouble = scratch_leftovers.as_ref().err().filter(|_| uses_scratch).map(failure::in_a_line);
        Ok(Self {
            server,
            tools,
            main,
            others,
            away,
            throwaway_leftovers: throwaway_leftovers(backup, run),
            place,
            scratch_leftovers: scratch_leftovers.unwrap_or_default(),
            scratch_trouble,
            known_settings,
            host_clock,
            dropped_by_us: dropped_by_us(run).await,
            readiness,
            recovery_conflicts,
            sessions,
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
    let database = run.config.database_of(run.database);
    for job in run.others.iter().filter(|job| matches!(job.does, Does::Partition { .. })) {
        let filter = ledger::Filter { job: Some(&job.name), database: Some(database), outcome: None, limit: PARTITION_RUNS };
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
