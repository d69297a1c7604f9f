//! Writes a set: the dump, the globals, and after all checks, last, the manifest.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::copies::fan_out::{FanOut, Outlet, Patience, Stored};
use super::copies::several::none_took_it;
use super::copies::target::Target;
use super::keys::Backup;
use super::manifest::{self, DumpObject, Globals, Manifest};
use super::markers::RunMarker;
use super::pg_dump::{self, Share};
use super::plan::Plan;
use super::set::{self, Set, globals_object};
use super::stream::{self, Pieces, Shape, Streamed};
use super::verdict::Verification;
use super::wide::Wide;
use super::{change, facts, loss, waiters};
use crate::base::child::Child;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::{terminal, units};
use crate::members::compress::Compression;
use crate::pg;
use crate::store::Store;
use crate::work::RunContext;

/// Where another store has the set, which is to be verified: the next run sweeps what stays.
const CLEAN_UP_LONGEST: Duration = Duration::from_secs(20);

/// Writes the set `plan.name` to all targets whose folder of that name belongs to this run, as `marker` says. Each has the set, or the reason why not, when this
/// returns Ok, and one at least has it. Nothing is left where there is no set.
pub async fn write_set(
    targets: &mut [Target],
    plan: &Plan,
    marker: &RunMarker,
    backup: &Backup,
    run: &RunContext<'_>,
) -> Result<()> {
    let (mut dump, mut globals) = (FanOut::default(), FanOut::default());
    let written = write_objects(targets, (&mut dump, &mut globals), plan, backup, run).await;
    dump.abort().await;
    globals.abort().await;
    let are_several = targets.len() > 1;
    let without = targets.iter().filter(|target| target.set.is_none() && target.is_claimed);
    join_all(without.map(|target| async move {
        let cleaning = set::clean_up(&target.store, &plan.name, marker);
        if !are_several {
            cleaning.await;
        } else if timeout(CLEAN_UP_LONGEST, cleaning).await.is_err() {
            tracing::warn!("what was written to {} stays until the next run: it does not answer", target.name());
        }
    }))
    .await;
    written
}

/// The dump and the globals go to all stores at once; then each store finishes by itself, so that none waits for another.
async fn write_objects(
    targets: &mut [Target],
    (dump, globals): (&mut FanOut, &mut FanOut),
    plan: &Plan,
    backup: &Backup,
    run: &RunContext<'_>,
) -> Result<()> {
    let started_at = Utc::now();
    let phase = run.progress.phase("dump", None);
    let waited_for_us = Mutex::default();
    let patience = Patience::of(run);
    let key = |store: &Store| plan.name.key(dump_object(backup, store));
    *dump = FanOut::open(targets, key, plan.server.database.size_bytes.max(0) as u64, patience).await?;
    // A dump that is given up is dropped, and kills its pg_dumps.
    let dumping = run.or_cancelled(Box::pin(dump_into(dump, (plan, backup), &run.settings, &phase)));
    let (streamed, stderr) = waiters::watch(&run.settings, backup.give_way, &waited_for_us, dumping).await?;
    let dump_seconds = phase.elapsed().as_secs_f64();
    let stored_bytes = dump.first_stored().map_or(0, |stored| stored.bytes);
    run.or_cancelled(is_still_its_schema(plan, backup, run)).await?;
    phase.done(&format!("{} → {}", units::bytes(streamed.contents.bytes), units::bytes(stored_bytes)));
    note_failures(targets, dump);
    let of_globals = write_globals(targets, globals, plan, patience, run).await?;
    note_failures(targets, globals);

    let mut warnings = plan.warnings.clone();
    warnings.extend(stderr.lines().map(|line| format!("{OF_PG_DUMP}{line}")));
    warnings.extend(waited_for_us.into_inner().unwrap_or_else(PoisonError::into_inner));
    if streamed.contents.tables.is_empty() {
        warnings.push("the dump holds no table data".to_owned());
    }
    let made = Made { started_at, dump_seconds, streamed, globals: of_globals, warnings };
    let mut of_globals = globals.outlets.iter_mut();
    let completing = targets.iter_mut().zip(&mut dump.outlets).map(|(target, dump)| {
        let globals = of_globals.next();
        let made = &made;
        async move {
            if target.failure.is_some() || !target.is_claimed {
                return;
            }
            match complete(target, dump, globals, made, plan, backup, run).await {
                Ok(set) => target.set = Some(set),
                Err(error) => target.failure = Some(error),
            }
        }
    });
    join_all(completing).await;
    if targets.iter().any(|target| target.set.is_some()) {
        return Ok(());
    }
    Err(none_took_it(targets.iter_mut().filter_map(|target| target.failure.take()).collect()))
}

/// No lock keeps a schema's name: a set that says it is of one tenant must not hold what another one has under that name meanwhile.
async fn is_still_its_schema(plan: &Plan, backup: &Backup, run: &RunContext<'_>) -> Result<()> {
    let Some(schema) = &backup.schema else { return Ok(()) };
    let mut connection = run.settings.connect().await?;
    if facts::schema_oid(&mut connection, schema).await? == plan.server.database.schema_oid {
        return Ok(());
    }
    let message = format!(
        "schema \"{}\" was dropped or renamed while it was dumped, so nobody knows whose rows these are: no set is made of them, and the next run takes the \
         schema that has the name then",
        terminal::in_one_line(schema)
    );
    Err(Fault::new(Kind::Deferred, message).into())
}

fn dump_object(backup: &Backup, store: &Store) -> &'static str {
    match store.encrypts() {
        false => backup.compression.dump_object(),
        true => backup.compression.encrypted_dump_object(),
    }
}

fn note_failures(targets: &mut [Target], outlets: &mut FanOut) {
    for (target, outlet) in targets.iter_mut().zip(&mut outlets.outlets) {
        if target.failure.is_none() {
            target.failure = outlet.failure.take();
        }
    }
}

/// All that is the same in every store.
struct Made {
    started_at: DateTime<Utc>,
    dump_seconds: f64,
    streamed: Streamed,
    globals: MadeGlobals,
    warnings: Vec<String>,
}

enum MadeGlobals {
    Object { role_passwords: bool },
    Absent { reason: String },
}

/// Makes the set complete in one store, its manifest last.
async fn complete(
    target: &mut Target,
    dump: &mut Outlet,
    globals: Option<&mut Outlet>,
    made: &Made,
    plan: &Plan,
    backup: &Backup,
    run: &RunContext<'_>,
) -> Result<Set> {
    let finishing = Instant::now();
    run.or_cancelled(dump.finish()).await?;
    let dump_seconds = made.dump_seconds + finishing.elapsed().as_secs_f64();
    let stored = dump.stored.clone().context("not all of the dump was taken")?;
    let globals = match (&made.globals, globals) {
        (MadeGlobals::Absent { reason }, _) => Globals::Absent { reason: reason.clone() },
        (MadeGlobals::Object { role_passwords }, Some(globals)) => {
            run.or_cancelled(globals.finish()).await?;
            let stored = globals.stored.clone().context("not all of the globals were taken")?;
            Globals::Object { bytes: stored.bytes, sha256: stored.sha256, role_passwords: *role_passwords }
        }
        (MadeGlobals::Object { .. }, None) => anyhow::bail!("the globals were not taken"),
    };
    let mut manifest = manifest_of(made, dump_object(backup, &target.store), (stored, dump_seconds), globals, plan, backup, run);
    // This comes before the manifest: a kill in between leaves a set that is held too long, and none that is deleted.
    if let Some(not_held) = hold_before_loss(target, plan, &mut manifest, run).await? {
        target.deletes_nothing.push(not_held);
    }
    let of_store = if target.store.encrypts() { &without_words_of_servers(&manifest) } else { &manifest };
    run.or_cancelled(set::write_manifest(&target.store, &plan.name, of_store)).await?;
    Ok(Set {
        name: plan.name.clone(),
        manifest,
        verification: Verification::default(),
        holds: Vec::new(),
        listed: set::AsListed::default(),
    })
}

fn manifest_of(
    made: &Made,
    object: &str,
    (stored, elapsed_seconds): (Stored, f64),
    globals: Globals,
    plan: &Plan,
    backup: &Backup,
    run: &RunContext<'_>,
) -> Manifest {
    let Made { started_at, streamed, warnings, .. } = made;
    let (mut members, mut tables) = (streamed.members.clone(), streamed.contents.tables.clone());
    if stored.encryption.is_some() {
        // They are of the contents, about which the manifest shall tell no more than how long they are.
        members.crc32.clear();
        tables.iter_mut().for_each(|table| table.rows_hash = None);
    }
    let mut manifest = Manifest {
        format: manifest::format_of(&streamed.contents.tables, stored.encryption.is_some()),
        pgtend_version: env!("CARGO_PKG_VERSION").to_owned(),
        job: run.job.name.to_owned(),
        database: run.database.to_owned(),
        by_hand: run.by_hand,
        started_at: *started_at,
        finished_at: Utc::now(),
        server: plan.server.clone(),
        pg_dump_version: plan.tools.version.clone(),
        dump: DumpObject {
            object: object.to_owned(),
            compression: backup.compression,
            bytes: stored.bytes,
            sha256: stored.sha256,
            uncompressed_bytes: streamed.contents.bytes,
            members,
            blocks: Some(stored.blocks),
            encryption: stored.encryption,
            elapsed_seconds,
        },
        globals,
        tables,
        large_objects: streamed.contents.large_objects,
        filters: backup.filters.clone(),
        warnings: warnings.clone(),
        adopted: None,
        row_text: run.settings.tools_keep_contract().then_some(manifest::ROW_TEXT),
        sealed: None,
        is_opened: false,
    };
    if let Some(previous) = &plan.previous {
        manifest.warnings.extend(change::shrunk(&previous.manifest, &manifest));
    }
    manifest
}

/// What a warning begins with that pg_dump wrote, or the server through it.
const OF_PG_DUMP: &str = "pg_dump: ";

/// The manifest as it stands in a store that encrypts: what servers said, such as a NOTICE, may show rows. The report of the run has it.
pub(super) fn without_words_of_servers(manifest: &Manifest) -> Manifest {
    let mut manifest = manifest.clone();
    let all = manifest.warnings.len();
    manifest.warnings.retain(|warning| !warning.starts_with(OF_PG_DUMP));
    let lines = all - manifest.warnings.len();
    if lines > 0 {
        manifest
            .warnings
            .push(format!("pg_dump wrote {} of warnings, which are in the report of the run", units::plural(lines, "line")));
    }
    if let Globals::Absent { reason } = &mut manifest.globals {
        "pg_dumpall was refused; what it said is in the log of the run".clone_into(reason);
    }
    manifest
}

/// Holds the set before a loss, and warns of it. Returns the reason if that was not possible.
async fn hold_before_loss(target: &Target, plan: &Plan, manifest: &mut Manifest, run: &RunContext<'_>) -> Result<Option<String>> {
    let Some(previous) = &target.previous else { return Ok(None) };
    let Some(reason) = loss::lost(&previous.manifest, manifest, &plan.dropped_by_us) else { return Ok(None) };
    let (name, before) = (plan.name.to_string(), &previous.name);
    let holding = loss::hold(&target.store, previous, &name, &reason, Utc::now());
    // The error of a hold that was not possible, or the cancellation of the run.
    let held = run.or_cancelled(async { Ok(holding.await) }).await?;
    Ok(match held {
        Ok(()) => {
            manifest.warnings.push(format!("{reason}; {before} is held for 30 days or until `pgtend backups accept '{name}'`"));
            None
        }
        Err(error) => {
            let why = format!("{before} may be the last set that has what this dump lacks, and it could not be held: {error:#}");
            manifest.warnings.push(format!("{reason}; {why}"));
            Some(why)
        }
    })
}

/// Runs pg_dump into the object. Returns the contents of the dump, and pg_dump's warnings.
async fn dump_into(
    outlets: &mut FanOut,
    (plan, backup): (&Plan, &Backup),
    settings: &pg::Settings,
    phase: &Phase,
) -> Result<(Streamed, String)> {
    let shape = Shape { compression: backup.compression, level: backup.level, threads: backup.threads, hashes_rows: true };
    let mut ended = None;
    let streamed = match Wide::start(settings, plan, backup).await? {
        Some(wide) => {
            let produce = async |pieces| {
                ended = Some(wide.write(pieces, settings, plan, backup).await?);
                Ok(())
            };
            stream::compress_into(outlets, shape, phase, produce).await?
        }
        None => {
            let mut pg_dump = pg_dump::start(settings, plan, backup, &Share::default()).await?;
            let output = pg_dump.take_stdout()?;
            let produce = async |pieces: Pieces| pieces.read(output, plan.known_settings.clone()).await;
            let streamed = stream::compress_into(outlets, shape, phase, produce).await?;
            ended = Some(pg_dump.wait().await?);
            streamed
        }
    };
    let ended = ended.context("pg_dump did not end")?;
    pg_dump::check(&ended, streamed.contents.complete, settings, plan, backup).await?;
    Ok((streamed, ended.stderr))
}

/// Writes roles, their passwords and memberships, and tablespaces, as far as this role may read them. A set without them is still a set:
/// the manifest says why they are missing.
async fn write_globals(
    targets: &[Target],
    outlets: &mut FanOut,
    plan: &Plan,
    patience: Patience,
    run: &RunContext<'_>,
) -> Result<MadeGlobals> {
    let mut reason = String::new();
    for role_passwords in [true, false] {
        let key = |store: &Store| plan.name.key(globals_object(store.encrypts()));
        *outlets = FanOut::open(targets, key, 0, patience).await?;
        let written = run.or_cancelled(globals_into(outlets, plan, run, role_passwords)).await;
        match written.context("cannot dump the globals")? {
            Dumped::Whole => return Ok(MadeGlobals::Object { role_passwords }),
            Dumped::Refused(said) => reason = said,
        }
        outlets.abort().await;
    }
    tracing::warn!("no globals in this set: {reason}");
    Ok(MadeGlobals::Absent { reason })
}

/// The result of pg_dumpall.
enum Dumped {
    Whole,
    /// pg_dumpall refuses, with its message.
    Refused(String),
}

async fn globals_into(outlets: &mut FanOut, plan: &Plan, run: &RunContext<'_>, role_passwords: bool) -> Result<Dumped> {
    let mut command = plan.tools.command("pg_dumpall");
    run.settings.apply_to(&mut command);
    command.args(["--globals-only", "--no-password"]);
    // Names are stored in the encoding of the database that created them. Where this database does not tell it, their bytes are passed on
    // unchanged.
    if plan.server.database.encoding != "UTF8" {
        command.arg("--encoding=SQL_ASCII");
    }
    if !role_passwords {
        command.arg("--no-role-passwords");
    }
    // pg_dumpall connects to `postgres` by default, which this role may not be allowed to. Its option takes a connection string as well as
    // a name, so a name that could be a connection string is not passed.
    let database = run.settings.database();
    if !database.contains(['=', ':']) {
        command.arg(format!("--database={database}"));
    }
    let mut pg_dumpall = Child::spawn(command)?;
    let compression = Compression::Gzip;
    let shape = Shape { compression, level: compression.default_level(), threads: 1, hashes_rows: false };
    let phase = run.progress.phase("globals", None);
    let output = pg_dumpall.take_stdout()?;
    stream::compress_into(outlets, shape, &phase, async |pieces: Pieces| pieces.read(output, None).await).await?;
    let ended = pg_dumpall.wait().await?;
    if !ended.status.success() {
        return Ok(Dumped::Refused(format!("pg_dumpall ended with {}: {}", ended.status, ended.stderr)));
    }
    Ok(Dumped::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::backup::manifest::tests::manifest;

    #[test]
    fn what_a_server_said_during_the_dump_stays_out_of_a_store_that_encrypts() {
        let mut said = manifest();
        said.warnings = vec![format!("{OF_PG_DUMP}NOTICE:  SECRET"), "the server is a standby".to_owned()];
        said.globals = Globals::Absent { reason: "SECRET".to_owned() };
        let told = serde_json::to_string(&without_words_of_servers(&said)).unwrap();
        assert!(!told.contains("SECRET") && told.contains("is a standby") && told.contains("1 line of warnings"), "{told}");
    }
}
