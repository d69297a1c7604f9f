//! Writes a set: the dump, the globals, and after all checks, last, the manifest.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use chrono::Utc;

use super::keys::Backup;
use super::manifest::{self, DumpObject, Globals, Manifest};
use super::pg_dump::{self, Share};
use super::plan::Plan;
use super::set::{self, Set, globals_object};
use super::stream::{self, Pieces, Shape, Streamed};
use super::verdict::Verification;
use super::wide::Wide;
use super::{change, loss, waiters};
use crate::base::child::Child;
use crate::base::progress::Phase;
use crate::base::units;
use crate::members::compress::Compression;
use crate::pg;
use crate::store::{Store, Upload};
use crate::work::RunContext;

/// Writes the set `plan.name`, whose folder belongs to this run. The set exists when this returns Ok, and nothing is left when it does not.
/// The second value says why the set before a loss could not be held: then nothing may be deleted.
pub async fn write_set(store: &Store, plan: &Plan, backup: &Backup, run: &RunContext<'_>) -> Result<(Set, Option<String>)> {
    let written = write_objects(store, plan, backup, run).await;
    if written.is_err() {
        set::clean_up(store, &plan.name).await;
    }
    written
}

async fn write_objects(store: &Store, plan: &Plan, backup: &Backup, run: &RunContext<'_>) -> Result<(Set, Option<String>)> {
    let object = match store.encrypts() {
        false => backup.compression.dump_object(),
        true => backup.compression.encrypted_dump_object(),
    };
    let started_at = Utc::now();
    let phase = run.progress.phase("dump", None);
    let waited_for_us = Mutex::default();
    let (dump, stderr) = write_dump(store, plan, backup, run, object, &phase, &waited_for_us).await?;
    let elapsed_seconds = phase.elapsed().as_secs_f64();
    phase.done(&format!("{} → {}", units::bytes(dump.contents.bytes), units::bytes(dump.bytes)));
    let globals = write_globals(store, plan, run).await?;

    let mut warnings = plan.warnings.clone();
    warnings.extend(stderr.lines().map(|line| format!("{OF_PG_DUMP}{line}")));
    warnings.extend(waited_for_us.into_inner().unwrap_or_else(PoisonError::into_inner));
    if dump.contents.tables.is_empty() {
        warnings.push("the dump holds no table data".to_owned());
    }
    let mut manifest = Manifest {
        format: manifest::format_of(&dump.contents.tables, dump.encryption.is_some()),
        pgtend_version: env!("CARGO_PKG_VERSION").to_owned(),
        job: run.job.name.to_owned(),
        database: run.database.to_owned(),
        by_hand: run.by_hand,
        started_at,
        finished_at: Utc::now(),
        server: plan.server.clone(),
        pg_dump_version: plan.tools.version.clone(),
        dump: DumpObject {
            object: object.to_owned(),
            compression: backup.compression,
            bytes: dump.bytes,
            sha256: dump.sha256,
            uncompressed_bytes: dump.contents.bytes,
            members: dump.members,
            blocks: Some(dump.blocks),
            encryption: dump.encryption,
            elapsed_seconds,
        },
        globals,
        tables: dump.contents.tables,
        large_objects: dump.contents.large_objects,
        filters: backup.filters.clone(),
        warnings,
        adopted: None,
    };
    if let Some(previous) = &plan.previous {
        manifest.warnings.extend(change::shrunk(&previous.manifest, &manifest));
    }
    // This comes before the manifest: a kill in between leaves a set that is held too long, and none that is deleted.
    let not_held = hold_before_loss(store, plan, &mut manifest, run).await?;
    let of_store = if store.encrypts() { &without_words_of_servers(&manifest) } else { &manifest };
    run.or_cancelled(set::write_manifest(store, &plan.name, of_store)).await?;
    Ok((Set { name: plan.name.clone(), manifest, verification: Verification::default(), holds: Vec::new() }, not_held))
}

/// What a warning begins with that pg_dump wrote, or the server through it.
const OF_PG_DUMP: &str = "pg_dump: ";

/// The manifest as it stands in a store that encrypts: what servers said, such as a NOTICE, may show rows. The report of the run has it.
fn without_words_of_servers(manifest: &Manifest) -> Manifest {
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
async fn hold_before_loss(store: &Store, plan: &Plan, manifest: &mut Manifest, run: &RunContext<'_>) -> Result<Option<String>> {
    let Some(previous) = &plan.previous else { return Ok(None) };
    let Some(reason) = loss::lost(&previous.manifest, manifest, &plan.dropped_by_us) else { return Ok(None) };
    let (name, before) = (plan.name.to_string(), &previous.name);
    let holding = loss::hold(store, previous, &name, &reason, Utc::now());
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
async fn write_dump(
    store: &Store,
    plan: &Plan,
    backup: &Backup,
    run: &RunContext<'_>,
    object: &str,
    phase: &Phase,
    waited_for_us: &Mutex<Vec<String>>,
) -> Result<(Streamed, String)> {
    let mut upload = store.upload_locked(&plan.name.key(object), plan.server.database.size_bytes.max(0) as u64).await?;
    // A dump that is given up is dropped, and kills its pg_dumps.
    let dumping = run.or_cancelled(dump_into(&mut upload, store, (plan, backup), &run.settings, phase));
    let dumped = waiters::watch(&run.settings, backup.give_way, waited_for_us, dumping).await;
    if dumped.is_err() {
        upload.abort().await;
    }
    dumped
}

async fn dump_into(
    upload: &mut Upload,
    store: &Store,
    (plan, backup): (&Plan, &Backup),
    settings: &pg::Settings,
    phase: &Phase,
) -> Result<(Streamed, String)> {
    let recipients = &store.age_keys().recipients;
    let shape = Shape { compression: backup.compression, level: backup.level, threads: backup.threads, recipients };
    let mut ended = None;
    let streamed = match Wide::start(settings, plan, backup).await? {
        Some(wide) => {
            let produce = async |pieces| {
                ended = Some(wide.write(pieces, settings, plan, backup).await?);
                Ok(())
            };
            stream::compress_into(upload, shape, phase, produce).await?
        }
        None => {
            let mut pg_dump = pg_dump::start(settings, plan, backup, &Share::default()).await?;
            let output = pg_dump.take_stdout()?;
            let produce = async |pieces: Pieces| pieces.read(output, plan.known_settings.clone()).await;
            let streamed = stream::compress_into(upload, shape, phase, produce).await?;
            ended = Some(pg_dump.wait().await?);
            streamed
        }
    };
    let ended = ended.context("pg_dump did not end")?;
    pg_dump::check(&ended, streamed.contents.complete, settings, plan, backup).await?;
    // This is the last step: an unfinished upload does not exist as an object.
    upload.finish().await?;
    Ok((streamed, ended.stderr))
}

/// Writes roles, their passwords and memberships, and tablespaces, as far as this role may read them. A set without them is still a set:
/// the manifest says why they are missing.
async fn write_globals(store: &Store, plan: &Plan, run: &RunContext<'_>) -> Result<Globals> {
    let mut reason = String::new();
    for role_passwords in [true, false] {
        let mut upload = store.upload_locked(&plan.name.key(globals_object(store.encrypts())), 0).await?;
        let written = run.or_cancelled(globals_into(&mut upload, store, plan, run, role_passwords)).await;
        if !matches!(written, Ok(Dumped::Whole(_))) {
            upload.abort().await;
        }
        match written.context("cannot dump the globals")? {
            Dumped::Whole(globals) => {
                return Ok(Globals::Object { bytes: globals.bytes, sha256: globals.sha256, role_passwords });
            }
            Dumped::Refused(said) => reason = said,
        }
    }
    tracing::warn!("no globals in this set: {reason}");
    Ok(Globals::Absent { reason })
}

/// The result of pg_dumpall.
enum Dumped {
    Whole(Box<Streamed>),
    /// pg_dumpall refuses, with its message.
    Refused(String),
}

async fn globals_into(
    upload: &mut Upload,
    store: &Store,
    plan: &Plan,
    run: &RunContext<'_>,
    role_passwords: bool,
) -> Result<Dumped> {
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
    let (level, recipients) = (Compression::Gzip.default_level(), &store.age_keys().recipients);
    let shape = Shape { compression: Compression::Gzip, level, threads: 1, recipients };
    let phase = run.progress.phase("globals", None);
    let output = pg_dumpall.take_stdout()?;
    let streamed = stream::compress_into(upload, shape, &phase, async |pieces: Pieces| pieces.read(output, None).await).await?;
    let ended = pg_dumpall.wait().await?;
    if !ended.status.success() {
        return Ok(Dumped::Refused(format!("pg_dumpall ended with {}: {}", ended.status, ended.stderr)));
    }
    upload.finish().await?;
    Ok(Dumped::Whole(Box::new(streamed)))
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
