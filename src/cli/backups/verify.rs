//! `pgtend backups verify`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use super::find::{Filter, Found, Which, settings_of};
use super::nearness::is_of_the_copy;
use super::other_copies::OtherCopies;
use super::thaw::{Thawing, find_readable};
use crate::base::fault::{Fault, Kind};
use crate::base::{shell, units};
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::sets as printed;
use crate::cli::signals::or_cancelled;
use crate::cli::trusts::Trusts;
use crate::config::Config;
use crate::pg::failure;
use crate::task::backup::choices::RowCheck;
use crate::task::backup::how_proved::Hashed;
use crate::task::backup::latest::Choice;
use crate::task::backup::restore::Refusal;
use crate::task::backup::verdict::Bytes;
use crate::task::backup::{gains, locked, scratch, verify};
use crate::task::foreign_code;

/// A restore for a proof.
#[derive(Clone, Copy)]
pub struct On<'a> {
    /// A database of the configuration, or a URL.
    pub target: &'a str,
    pub trust_owners: bool,
    pub rows: RowCheck,
}

pub async fn run(
    global: &Global,
    wanted: &str,
    filter: &Filter,
    which: &Which,
    restore_on: Option<On<'_>>,
    thawing: &Thawing,
    cancel: &CancellationToken,
) -> Result<ExitCode> {
    let config = global.load_config()?;
    // Sets that a restore would skip are those worth verifying.
    let choice = Choice { older_ok: true, to_verify: true, ..which.choice() };
    let copies = or_cancelled(cancel, find_readable(global, &config, wanted, filter, (&choice, thawing))).await?;
    let mut failed: Vec<(String, anyhow::Error)> = Vec::new();
    let count = copies.len();
    let is_damaged = |found: &&Found| found.set.verification.verdict() == Bytes::Damaged;
    let known: Vec<String> = copies.iter().filter(is_damaged).map(|found| found.store_name.clone()).collect();
    let has_key = |found: &&Found| found.set.is_encrypted() && found.store.age_keys().identities.is_some();
    let encrypted: Vec<Found> = copies.iter().filter(has_key).cloned().collect();
    for (number, mut found) in copies.into_iter().enumerate() {
        let verified = match restore_on {
            None => {
                let progress = global.progress();
                let reading = verify::by_checksum(&found.store, &mut found.set, &progress);
                or_cancelled(cancel, reading).await.map(|not_decoded| Verified::Read { not_decoded })
            }
            Some(on) => by_restore(global, &config, &mut found, on, cancel).await,
        };
        match verified {
            Err(error) if number + 1 < count && is_of_the_copy(&found, &error).await => {
                tracing::warn!("the copy in {}: {}; the next one is verified", found.store_name, failure::in_a_line(&error));
                failed.push((found.store_name, error));
            }
            verified => {
                let verified = verified?;
                print_verified(global, &found, count > 1, &verified)?;
                refuse_plain(&found, wanted)?;
                or_cancelled(cancel, open_the_others(&found, &encrypted)).await?;
                let known = known.iter().find(|store| **store != found.store_name);
                return ended(&found, verified, failed.into_iter().next().or_else(|| Some(found_before(known?, &found))));
            }
        }
    }
    anyhow::bail!("there is no copy")
}

/// What this command has done itself; the record beside the set may say more.
enum Verified {
    /// With the reason why the contents were not decoded here.
    Read { not_decoded: Option<String> },
    /// With the refusal of the server, and how the rows of the copy were compared.
    Restored(Option<Refusal>, Option<Hashed>),
}

/// Warns about a plain set in a store that encrypts. Where this host has keys for that store, `latest` is a test of them, and none was tried.
fn refuse_plain(Found { store_name, store, set }: &Found, wanted: &str) -> Result<()> {
    if !store.encrypts() || set.is_encrypted() {
        return Ok(());
    }
    let said = format!(
        "{} in {store_name} is not encrypted, although the store has `encrypt_to`, so no key was tried: it was made before that, or by a host or by somebody \
         without it",
        set.name
    );
    if wanted != "latest" || store.age_keys().identities.is_none() {
        tracing::warn!("{said}");
        return Ok(());
    }
    let message = format!("{said}. To try the keys of this host, verify an encrypted set by its name (`pgtend backups list`)");
    Err(Fault::new(Kind::Configuration, message).into())
}

/// Fails where the keys of this host do not open an encrypted copy that was not read: it takes only the head of that one.
async fn open_the_others(read: &Found, encrypted: &[Found]) -> Result<()> {
    for other in encrypted.iter().filter(|other| other.store_name != read.store_name) {
        let opened = locked::ensure_opens(&other.store, &other.set).await;
        opened.with_context(|| {
            format!("the copy of {} in {} was verified, and not that in {}", read.set.name, read.store_name, other.store_name)
        })?;
    }
    Ok(())
}

/// The error of a copy that was found damaged by an earlier command, and not read by this one.
fn found_before(store: &str, found: &Found) -> (String, anyhow::Error) {
    let read = format!("pgtend backups verify {} --store {}", shell::word(&found.set.name.to_string()), shell::word(store));
    (store.to_owned(), anyhow::anyhow!("it was found damaged before, and was not read now; this reads it: {read}"))
}

/// The end of a verification: an error also where another copy is not good, and where the keys of this host open nothing.
fn ended(found: &Found, verified: Verified, not_good: Option<(String, anyhow::Error)>) -> Result<ExitCode> {
    let set = &found.set;
    match verified {
        Verified::Restored(Some(refusal), _) => {
            let message = format!("the bytes of {} are intact, but this server did not accept them", set.name);
            return Err(anyhow::Error::from(refusal).context(message));
        }
        Verified::Read { not_decoded: Some(why) } if found.store.age_keys().identities.is_some() => {
            let message = format!("the bytes of {} match, and the keys of this host do not open it: {why}", set.name);
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        Verified::Read { .. } | Verified::Restored(None, _) => {}
    }
    let Some((store, error)) = not_good else { return Ok(ExitCode::SUCCESS) };
    Err(error.context(format!(
        "the copy of {} in {} is good, and that in {store} is not; mend it: pgtend backups copy {} --from {} --to {}",
        set.name,
        found.store_name,
        shell::word(&set.name.to_string()),
        shell::word(&found.store_name),
        shell::word(&store)
    )))
}

fn print_verified(global: &Global, found: &Found, has_copies: bool, verified: &Verified) -> Result<()> {
    let set = &found.set;
    if global.json {
        let not_decoded = if let Verified::Read { not_decoded } = verified { not_decoded.as_deref() } else { None };
        return print_json(&printed::Verify {
            set: set.name.to_string(),
            store: &found.store_name,
            not_decoded,
            verification: &set.verification,
            bytes: set.verification.verdict(),
        });
    }
    let of_copy = if has_copies { format!(" in {}", found.store_name) } else { String::new() };
    let name = format!("{}{of_copy}", set.name);
    let how = match verified {
        Verified::Read { not_decoded: Some(why) } => {
            return print(&format!(
                "{name}: read back; its length and its SHA-256 match the manifest; not decoded here: {why}\n"
            ));
        }
        Verified::Restored(Some(_), _) => return Ok(()),
        Verified::Read { not_decoded: None } => "read back",
        Verified::Restored(None, _) => "restored",
    };
    let tables = set.manifest.table_count() as u64;
    let hashed = match verified {
        Verified::Restored(None, Some(hashed)) => format!("; {}", hashed.in_words(tables)),
        _ => String::new(),
    };
    print(&format!(
        "{name}: {how}; {} and {} match the manifest{hashed}\n",
        units::plural(tables, "table"),
        units::plural(set.manifest.rows(), "row")
    ))
}

/// Returns why that server did not accept the set, or how the rows of its copy were compared.
async fn by_restore(
    global: &Global,
    config: &Config,
    found: &mut Found,
    On { target, trust_owners, rows }: On<'_>,
    cancel: &CancellationToken,
) -> Result<Verified> {
    let settings = settings_of(config, target)?;
    let manifest = &found.set.manifest;
    if found.set.is_adopted() {
        let trusted = async {
            let mut connection = scratch::maintenance_connection(&settings).await?;
            gains::refuse_adopted(&mut connection, &found.set, trust_owners).await
        };
        or_cancelled(cancel, trusted).await?;
    }
    let roles = manifest.server.roles.iter().chain([&manifest.server.database.owner]).filter(|role| !role.is_empty());
    let roles: Vec<String> = roles.cloned().collect();
    let trusts = Trusts::read(global, config).owners_of(&found.set.name.job);
    let named = or_cancelled(cancel, foreign_code::check_restore_of_a_set(&settings, &roles, trusts)).await?;
    named.iter().for_each(|warning| tracing::warn!("{warning}"));
    // The job's own prefix is not used: its run may be going on.
    let by_hand = format!("{} by hand", found.set.name.job);
    let prefix = scratch::scratch_prefix(&found.set.name.database, &by_hand, &found.set.manifest.server);
    let prepared = async {
        let mut connection = scratch::maintenance_connection(&settings).await?;
        for leftover in scratch::scratch_leftovers(&mut connection, &prefix).await? {
            if let Some(left) = scratch::drop_or_warn(&settings, &leftover, None).await {
                tracing::warn!("{left}");
            }
        }
        Ok(())
    };
    or_cancelled(cancel, prepared).await?;
    let name = format!("{prefix}{}", std::process::id());
    let place = verify::Where::Scratch { settings: &settings, name };
    let proof = verify::Proof { place: &place, expect: &[], checks: &[], vector_indexes: true, rows, sessions: None, cancel };
    let mut others = or_cancelled(cancel, OtherCopies::of(global, config, found)).await?;
    others.tell_of_refusals(found).await;
    let mut verified = verify::by_restore(&found.store, &mut found.set, &proof, &global.progress()).await?;
    others.tell(found, verified.is_data_refused).await;
    if let Some(error) = verified.unrecorded.take() {
        let (set, store) = (&found.set.name, &found.store_name);
        let Some(refusal) = verified.refusal else {
            return Err(error.context(format!("{set} was restored, and that could not be recorded beside the copy in {store}")));
        };
        tracing::warn!("the refusal of {set} could not be recorded beside the copy in {store}: {}", failure::in_a_line(&error));
        return Ok(Verified::Restored(Some(refusal), None));
    }
    verified.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if let Some(hashed) = &verified.hashed {
        hashed.only_counted.iter().for_each(|table| tracing::info!("only counted: {table}"));
    }
    Ok(Verified::Restored(verified.refusal, verified.hashed))
}
