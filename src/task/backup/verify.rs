//! Verifies a set: by reading its bytes back, or by restoring it, which reads them as well. The two verdicts are recorded separately: a
//! server that refuses a set says nothing about its bytes.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result};
use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::choices::{Choices, RowCheck};
use super::facts::DatabaseFacts;
use super::how_proved::{Amchecked, Hashed, HowProved};
use super::keys::Check;
use super::load::Target;
use super::read_back::Differs;
use super::restore::{self, Refusal, Restored};
use super::sealed;
use super::sessions::restore_sessions;
use super::set::{self, Set};
use super::verdict::{Bytes, BytesCheck, RestoreCheck};
use super::{amcheck, expect, locked, new_database, own_server, proof, read_back, scratch as scratch_database, vector_indexes};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::{Phase, Progress};
use crate::base::units;
use crate::pg::throwaway::{self, Host};
use crate::pg::{self, Server, failure};
use crate::store::Store;

/// Reads the set back and records the verdict beside it. Returns why its contents were not decoded here, whatever other hosts have decoded.
pub async fn by_checksum(store: &Store, set: &mut Set, progress: &Progress) -> Result<Option<String>> {
    let phase = progress.phase("verify", Some(set.manifest.dump.bytes));
    let check = read_back::check(store, set, &phase).await?;
    proof::remember(store, &set.name, &check);
    let sets_since_restore = set.verification.sets_since_restore;
    let recorded = set::record(store, set, |verification| {
        verification.record_bytes(check.clone());
        verification.sets_since_restore = verification.sets_since_restore.or(sets_since_restore);
    });
    // What was found comes before whether it could be written down.
    let recorded = recorded.await;
    if let Err(error) = ensure_intact(set, &check) {
        warn_unrecorded(set, recorded);
        return Err(error);
    }
    recorded?;
    anyhow::ensure!(
        set.verification.verdict() != Bytes::Damaged,
        "set {} is damaged, as was found when it was decoded. Its length and its SHA-256 match, which does not refute that: verify it on a host that \
         has a key for it",
        set.name
    );
    match &check.not_decoded {
        None => done(set, "read back", &phase),
        Some(why) => phase.done(&format!("{} read back and hashed, not decoded: {why}", set.name)),
    }
    Ok(check.not_decoded)
}

/// The place where a set is restored temporarily.
pub enum Where<'a> {
    /// A scratch database on an existing server; the database of `settings` is not used.
    Scratch { settings: &'a pg::Settings, name: String },
    /// A server that runs for this restore only.
    OwnServer(&'a Host),
}

/// The most notes of a restore that stand beside a set.
const NOT_TRIED_MOST: usize = 100;

/// How a set is proved by a restore.
pub struct Proof<'a> {
    pub place: &'a Where<'a>,
    /// The queries that must be true in the restored copy.
    pub expect: &'a [String],
    /// The checks of a copy in a server of its own.
    pub checks: &'a [Check],
    /// False: vector indexes are not built.
    pub vector_indexes: bool,
    pub rows: RowCheck,
    /// How many sessions restore; None: as many as `restore_sessions` says.
    pub sessions: Option<usize>,
    pub cancel: &'a CancellationToken,
}

/// The result of a restore for a proof. The bytes are intact, or it is an error.
#[derive(Debug, Default)]
pub struct Verified {
    /// Whether statements of the dump were sent.
    pub has_begun: bool,
    /// The reason why the server refused it, or the queries of `expect` that are not true in the copy.
    pub refusal: Option<Refusal>,
    /// Whether that is for what the set holds, and not for rights, space or a connection.
    pub is_data_refused: bool,
    /// Whether all of it was restored and counted, even if a query of `expect` is not true.
    pub is_restored: bool,
    /// The place in words, such as "a PostgreSQL 18.4 of its own".
    pub place: String,
    /// The parts of the dump that a restore in that place does not test.
    pub not_tried: Vec<String>,
    /// What the restore has left out or not tested because of its role, as in the warnings.
    pub left_out: Vec<String>,
    /// Whether the dump has vector indexes, and they were not built.
    pub without_vector_indexes: bool,
    /// The numbers of statements that a superuser ran in a server of its own, by what they are about.
    pub by_superuser: BTreeMap<&'static str, usize>,
    /// The result of amcheck, where it was asked for.
    pub amcheck: Option<amcheck::Checked>,
    /// What of the copy was compared by its values; None: its rows were only counted.
    pub hashed: Option<Hashed>,
    /// The time that the restore itself and the comparison of its rows took.
    pub restore_seconds: Option<f64>,
    /// How many sessions restored.
    pub sessions: Option<usize>,
    pub warnings: Vec<String>,
    /// The version of the server.
    pub version: String,
    /// Why the result does not stand beside the set.
    pub unrecorded: Option<anyhow::Error>,
}

/// Restores the set into a database that is removed afterwards, and records both verdicts.
pub async fn by_restore(store: &Store, set: &mut Set, proof: &Proof<'_>, progress: &Progress) -> Result<Verified> {
    locked::ensure_opens(store, set).await?;
    let phase = progress.phase("verify", Some(set.manifest.dump.bytes));
    let started = Instant::now();
    let mut verified = Verified::default();
    let tried = match proof.place {
        Where::Scratch { settings, name } => in_scratch(store, set, settings, name, proof, &phase, &mut verified).await?,
        Where::OwnServer(host) => in_own_server(store, set, host, proof, &phase, &mut verified).await?,
    };
    let (server, place) = match proof.place {
        Where::Scratch { settings, .. } => {
            (settings.server(), format!("a scratch database on {} (PostgreSQL {})", settings.server(), verified.version))
        }
        Where::OwnServer(_) => ("a server of its own".to_owned(), format!("a PostgreSQL {} of its own", verified.version)),
    };
    verified.place = place;
    let bytes_are_as_written = match tried {
        // The restore included its first read.
        Tried::ReadAll { problems } => problems.is_empty() && read_back::globals_differences(store, set).await?.is_empty(),
        Tried::NotAll(refusal) => {
            verified.refusal = Some(refusal);
            false
        }
    };
    let check = match bytes_are_as_written {
        true => BytesCheck {
            verdict: Bytes::Intact,
            checked_at: Utc::now(),
            problems: Vec::new(),
            elapsed_seconds: started.elapsed().as_secs_f64(),
            not_decoded: None,
            pgtend_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        },
        // The second, independent read, and a third where this one differs as well.
        false => {
            let reading = read_back::check(store, set, &phase);
            proof.cancel.run_until_cancelled(reading).await.ok_or_else(cancelled)??
        }
    };
    proof::remember(store, &set.name, &check);
    let restore = RestoreCheck {
        server,
        version: verified.version.clone(),
        checked_at: Utc::now(),
        refusal: verified.refusal.as_ref().map(|refusal| refusal_beside(store, set, refusal)),
        refused_for_its_data: verified.is_data_refused,
        sql_state: verified.refusal.as_ref().and_then(|refusal| refusal.sql_state.clone()),
        elapsed_seconds: started.elapsed().as_secs_f64(),
        restore_seconds: verified.restore_seconds,
        without_vector_indexes: verified.without_vector_indexes,
        how: verified.refusal.is_none().then(|| how_proved(&verified, store, set, proof)),
        copy_in: None,
    };
    let sets_since_restore = set.verification.sets_since_restore;
    let recorded = set::record(store, set, |verification| {
        verification.record_bytes(check.clone());
        verification.sets_since_restore = verification.sets_since_restore.or(sets_since_restore);
        if check.verdict == Bytes::Intact {
            verification.record_restore(restore.clone());
            if restore.refusal.is_none() {
                verification.sets_since_restore = Some(0);
            }
        }
    });
    let recorded = recorded.await;
    if let Err(error) = ensure_intact(set, &check) {
        warn_unrecorded(set, recorded);
        return Err(error);
    }
    verified.unrecorded = recorded.err();
    if verified.refusal.is_none() {
        done(set, "restored", &phase);
    }
    Ok(verified)
}

/// The refusal as it stands beside the set. Beside an encrypted one, nobody reads rows that the server has shown.
fn refusal_beside(store: &Store, set: &Set, refusal: &Refusal) -> String {
    match (sealed::hides_names(store, &set.manifest), is_encrypted(store, set)) {
        (true, _) => "its server's words are sealed; who ran the restore has seen them".to_owned(),
        (false, true) => refusal.without_rows(),
        (false, false) => refusal.message.clone(),
    }
}

/// Returns whether nobody who reads the store shall read rows.
fn is_encrypted(store: &Store, set: &Set) -> bool {
    store.encrypts() || set.is_encrypted()
}

fn how_proved(verified: &Verified, store: &Store, set: &Set, proof: &Proof<'_>) -> HowProved {
    let is_sealed = sealed::hides_names(store, &set.manifest);
    let left_out = verified.left_out.iter().filter(|_| !is_sealed);
    let is_encrypted = is_encrypted(store, set);
    let counted = (set.manifest.table_count() as u64, set.manifest.rows());
    let amcheck = verified.amcheck.as_ref();
    let how = HowProved {
        amcheck: amcheck.map(|checked| Amchecked { tables: checked.tables as u64, indexes: checked.indexes as u64 }),
        // Columns are in the dump alone.
        hashed: verified.hashed.clone().map(|hashed| if is_encrypted { hashed.without_columns() } else { hashed }),
        not_tried: verified.not_tried.iter().chain(left_out).take(NOT_TRIED_MOST).cloned().collect(),
        ..HowProved::of(counted, proof.expect, is_encrypted)
    };
    if is_sealed { how.sealed() } else { how }
}

enum Tried {
    /// All bytes were read; the differences from the manifest.
    ReadAll { problems: Vec<String> },
    /// The server, or its disk, does not meet the requirements: not all bytes were read.
    NotAll(Refusal),
}

fn cancelled() -> Fault {
    Fault::new(Kind::Cancelled, "cancelled")
}

async fn in_scratch(
    store: &Store,
    set: &Set,
    settings: &pg::Settings,
    name: &str,
    proof: &Proof<'_>,
    phase: &Phase,
    verified: &mut Verified,
) -> Result<Tried> {
    let choices = Choices { no_vector_indexes: !proof.vector_indexes, rows: proof.rows, ..Choices::for_scratch() };
    if !proof.checks.is_empty() {
        let note = "checks = [\"amcheck\"] was not done: pgtend creates that extension only in a server of its own";
        verified.warnings.push(note.to_owned());
    }
    let prepared = async {
        let mut connection = scratch_database::maintenance_connection(settings).await.context("for the scratch database")?;
        verified.version = Server::of(&mut connection).await?.version;
        let in_recovery: bool = sqlx::query_scalar("SELECT pg_catalog.pg_is_in_recovery()").fetch_one(&mut connection).await?;
        anyhow::ensure!(
            !in_recovery,
            Fault::new(
                Kind::Configuration,
                format!(
                    "the server for scratch databases, {}, is a standby: set `scratch` to a database on a primary",
                    settings.server()
                )
            )
        );
        new_database::prepare_server(&mut connection, set, &choices, false, Some(&set.manifest.server.database)).await
    };
    if let Err(error) = prepared.await {
        return Ok(Tried::NotAll(refusal_of(&error)));
    }
    let inside = settings.with_database(name);
    let mut began = false;
    let restoring = async {
        began = true;
        let sessions = restore_sessions(proof.sessions, &set.manifest);
        let target = Target { settings: &inside, choices: &choices, in_transaction: false, superuser: None, sessions };
        Box::pin(restore_and_ask(store, set, &target, proof, phase)).await
    };
    // The location of its files does not matter.
    let like = DatabaseFacts { tablespace: None, ..set.manifest.server.database.clone() };
    let (restored, left) = scratch_database::with_scratch(settings, name, &like, proof.cancel, restoring).await;
    // A scratch database that cannot be dropped does not make this backup fail, nor prevent the next one.
    if let Some(left) = left {
        tracing::warn!("{left}");
        verified.warnings.push(left);
    }
    match restored {
        Ok(copy) => Ok(copy.seen(set, verified)),
        Err(error) if !began && failure::kind_of(&error) != Some(Kind::Cancelled) => Ok(Tried::NotAll(refusal_of(&error))),
        Err(error) => Err(error),
    }
}

async fn in_own_server(
    store: &Store,
    set: &Set,
    host: &Host,
    proof: &Proof<'_>,
    phase: &Phase,
    verified: &mut Verified,
) -> Result<Tried> {
    verified.version.clone_from(&host.programs.version);
    verified.not_tried = own_server::NOT_TRIED.map(str::to_owned).to_vec();
    let started = host
        .check_space(set.manifest.server.database.size_bytes.max(0) as u64)
        .and_then(|()| throwaway::Server::start(host, &own_server::role_names(&set.manifest)));
    let mut server = match started {
        Ok(server) => server,
        Err(error) => return Ok(Tried::NotAll(refusal_of(&error))),
    };
    let mut filled = None;
    let work = async {
        server.ready(host).await?;
        let own_server::Prepared { settings, superuser, mut choices, version } =
            own_server::prepare(&server, set, proof.checks).await?;
        choices.no_vector_indexes = !proof.vector_indexes;
        choices.rows = proof.rows;
        verified.version = version;
        verified.has_begun = true;
        // A limit holds for each process of the server: each session would have as much again.
        let is_limited = host.memory_bytes.is_some() || server.has_little_memory;
        let sessions = if is_limited { 1 } else { restore_sessions(proof.sessions, &set.manifest) };
        let target =
            Target { settings: &settings, choices: &choices, in_transaction: false, superuser: Some(&superuser), sessions };
        Box::pin(restore_and_ask(store, set, &target, proof, phase)).await
    };
    let within_its_space = async {
        tokio::select! {
            restored = work => restored,
            error = host.until_almost_full() => {
                filled = Some(refusal_of(&error));
                Err(error)
            }
        }
    };
    let restored = proof.cancel.run_until_cancelled(within_its_space).await;
    if let Some(left) = server.stop().await {
        tracing::warn!("{left}");
        verified.warnings.push(left);
    }
    if let Some(refusal) = filled {
        return Ok(Tried::NotAll(refusal));
    }
    match restored.ok_or_else(cancelled)? {
        Ok(copy) => Ok(copy.seen(set, verified)),
        Err(error) if !verified.has_begun => Ok(Tried::NotAll(refusal_of(&error))),
        Err(error) => Err(error),
    }
}

/// A restored copy, complete or not.
struct RestoredCopy {
    restored: Restored,
    seconds: f64,
    amcheck: Option<amcheck::Checked>,
    /// The queries of `expect` that are not true in it, with their results.
    unmet: Vec<String>,
}

impl RestoredCopy {
    fn seen(self, set: &Set, verified: &mut Verified) -> Tried {
        let Self { restored, seconds, amcheck, unmet } = self;
        verified.is_restored = restored.is_complete();
        verified.restore_seconds = verified.is_restored.then_some(seconds);
        let (of_indexes, notes): (Vec<String>, Vec<String>) =
            restored.notes.into_iter().partition(|note| note == vector_indexes::NOT_BUILT);
        verified.without_vector_indexes = !of_indexes.is_empty();
        verified.not_tried.extend(of_indexes);
        verified.left_out.clone_from(&notes);
        verified.warnings.extend(notes);
        verified.sessions = restored.sessions;
        verified.hashed = restored.hashed;
        verified.not_tried.extend(restored.not_tried);
        verified.refusal = restored.refusal.or_else(|| amcheck.as_ref().and_then(amcheck::Checked::refusal));
        verified.amcheck = amcheck;
        // An older server may not know what is in the dump.
        let major: i32 = verified.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or_default();
        let is_older = major < set.manifest.server.version_num / 10_000;
        let is_of_the_data = !is_older && verified.refusal.as_ref().is_some_and(Refusal::is_of_the_data);
        verified.is_data_refused = is_of_the_data || !unmet.is_empty();
        verified.by_superuser = restored.superuser.map(|superuser| superuser.done).unwrap_or_default();
        if !unmet.is_empty() {
            let message = format!("these queries of `expect` are not true there: {}", unmet.join("; "));
            let earlier = verified.refusal.take().map(|refusal| refusal.message + "; ").unwrap_or_default();
            let in_store = Some("not all queries of `expect` are true there".to_owned());
            verified.refusal = Some(Refusal { in_store, message: earlier + &message, ..Refusal::default() });
        }
        Tried::ReadAll { problems: restored.problems }
    }
}

/// Boxed where it is called: with it, a future has 150 KB, and an unoptimized build overflows the main thread's 8 MiB.
async fn restore_and_ask(
    store: &Store,
    set: &Set,
    target: &Target<'_>,
    proof: &Proof<'_>,
    phase: &Phase,
) -> Result<RestoredCopy> {
    let started = Instant::now();
    let mut restored = restore::stream_into(store, set, target, phase, proof.cancel).await?;
    let mut seconds = started.elapsed().as_secs_f64();
    let amcheck = match target.superuser.is_some() && restored.is_complete() && proof.checks.contains(&Check::Amcheck) {
        true => Some(amcheck::run(target.settings).await?),
        false => None,
    };
    let unmet = match restored.is_complete() {
        true => expect::unmet(target.settings, expect::search_path(&set.manifest), proof.expect).await?,
        false => Vec::new(),
    };
    // The owners come after the questions, which the role that restored asks as the owner of all.
    if restored.is_complete()
        && let Some(superuser) = &mut restored.superuser
    {
        let started = Instant::now();
        restored.refusal = superuser.finish().await?;
        seconds += started.elapsed().as_secs_f64();
    }
    Ok(RestoredCopy { restored, seconds, amcheck, unmet })
}

pub fn refusal_of(error: &anyhow::Error) -> Refusal {
    Refusal {
        kind: failure::kind_of(error),
        sql_state: pg::sql_state(error),
        message: failure::in_a_line(error),
        ..Refusal::default()
    }
}

/// Fails when the bytes differ from what was written, or when that could not be determined.
fn warn_unrecorded(set: &Set, recorded: Result<()>) {
    if let Err(error) = recorded {
        tracing::warn!("that could not be recorded beside {}: {}", set.name, failure::in_a_line(&error));
    }
}

fn ensure_intact(set: &Set, check: &BytesCheck) -> Result<()> {
    match check.verdict {
        Bytes::Intact => Ok(()),
        Bytes::Damaged => {
            let problems = check.problems.join("; ");
            Err(Differs(format!("set {} is damaged, confirmed by two reads: {problems}", set.name)).into())
        }
        Bytes::Unknown => anyhow::bail!("set {} could not be verified: {}", set.name, check.problems.join("; ")),
    }
}

fn done(set: &Set, how: &str, phase: &Phase) {
    let tables = units::plural(set.manifest.table_count(), "table");
    let rows = units::plural(set.manifest.rows(), "row");
    phase.done(&format!("{} {how}: {tables}, {rows}", set.name));
}
