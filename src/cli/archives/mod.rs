//! `archives`: lists rows that left their tables, and puts them back.

mod find;
mod identity;
mod pending;
mod refused;
mod restore;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use find::{Batches, Found, find};

use super::filter::Filter;
use super::global::Global;
use super::output::{self, print, print_json};
use super::outputs::runs as printed;
use super::signals::{cancelled_by_signals, or_cancelled};
use crate::archive::{BatchName, Manifest};
use crate::base::terminal::say;
use crate::base::units;
use crate::config::Config;
use crate::pg;
use crate::store::sign::Signature;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the batches
    #[command(after_help = "Examples:
  pgtend archives list   all batches
  pgtend archives list --job logs-retention --json")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Also list batches without a signature of their store's key (sign_key_file, sign_key_env)
        #[arg(long)]
        unsigned_ok: bool,
    },
    /// Put rows back once: each batch as a whole or not at all, oldest first. The archive does not change
    #[command(after_help = "Examples:
  pgtend archives restore --job logs-retention --dry-run
  pgtend archives restore --job logs-retention --key user_id=17,18
  pgtend archives restore --job logs-retention --time 2026-01-01..2026-02-01 --into public.old")]
    Restore {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        arguments: restore::Arguments,
        /// Also take batches without a signature of their store's key (sign_key_file, sign_key_env): anyone who can write to the
        /// store may have made them
        #[arg(long)]
        unsigned_ok: bool,
    },
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let config = global.load_config()?;
    let cancel = cancelled_by_signals()?;
    match command {
        Command::List { filter, unsigned_ok } => or_cancelled(&cancel, list(global, &config, filter, *unsigned_ok)).await,
        Command::Restore { filter, arguments, unsigned_ok } => {
            let mut all = or_cancelled(&cancel, find(&config, filter, *unsigned_ok)).await?;
            let mut unknown = 0;
            if !all.pending.is_empty() && !arguments.dry_run {
                unknown = pending::complete(&config, &all, &global.progress(), &cancel).await?;
                all = or_cancelled(&cancel, find(&config, filter, *unsigned_ok)).await?;
            }
            all.take_in_what_was_replaced();
            if let Some(batch) = &arguments.batch {
                let is_meant = |name: &BatchName| name.to_string() == *batch;
                all.found.retain(|found| is_meant(&found.batch.0));
                all.not_ours.retain(|found| is_meant(&found.batch.0));
                all.broken.retain(|(_, broken)| broken.key.starts_with(batch.as_str()));
            }
            all.log_what_is_not_listed();
            anyhow::ensure!(!all.found.is_empty(), "no archived batch matches; `pgtend archives list` shows all of them");
            identity::choose(&mut all.found, arguments)?;
            restore::run(global, &config, &all.found, arguments, *unsigned_ok, &cancel).await?;
            let unreadable = all.unreadable() + unknown;
            anyhow::ensure!(
                unreadable == 0,
                "everything readable was put back, but {unreadable} parts of the archive could not be read: they are named above"
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(global: &Global, config: &Config, filter: &Filter, unsigned_ok: bool) -> Result<ExitCode> {
    let all = find(config, filter, unsigned_ok).await?;
    let found = &all.found;
    if global.json {
        return print_json(&as_json(&all)).map(|()| ExitCode::SUCCESS);
    }
    all.log_what_is_not_listed();
    identity::say_several(found);
    if found.is_empty() {
        say("no archived rows");
        return Ok(ExitCode::SUCCESS);
    }
    let rows = found.iter().map(|found| {
        let (name, manifest) = &found.batch;
        vec![
            found.store_name.clone(),
            name.to_string(),
            if manifest.names_are_sealed() { "sealed".to_owned() } else { pg::qualified(&manifest.schema, &manifest.table) },
            units::count(manifest.exported.rows),
            units::bytes(manifest.exported.bytes),
            match found.signature {
                Some(signature) => format!("{} ({})", manifest.reason, signature.in_short()),
                None => manifest.reason.clone(),
            },
        ]
    });
    print(&output::table(&["STORE", "BATCH", "TABLE", "ROWS", "SIZE", "WHY"], rows))?;
    Ok(ExitCode::SUCCESS)
}

fn as_json(all: &Batches) -> printed::Archives<'_> {
    let not_ours = all.not_ours.iter().map(|found| printed::Unsigned {
        store: &found.store_name,
        batch: found.batch.0.to_string(),
        signature: found.signature,
    });
    let broken =
        all.broken.iter().map(|(store, broken)| printed::BrokenBatch { store, key: &broken.key, reason: &broken.reason });
    let pending = all.pending.iter().map(|(place, pending)| printed::PendingBatch {
        store: &place.store_name,
        batch: pending.name.to_string(),
        rows: pending.rows,
        counts: pending.counts,
    });
    printed::Archives {
        batches: all.found.iter().map(batch_as_json).collect(),
        not_ours: not_ours.collect(),
        broken: broken.collect(),
        pending: pending.collect(),
    }
}

fn batch_as_json(found: &Found) -> printed::Batch<'_> {
    let (name, manifest) = &found.batch;
    let asked = if found.store.has_sign_key() { Signature::Valid } else { Signature::NotAsked };
    printed::Batch {
        store: &found.store_name,
        batch: name.to_string(),
        identity: manifest.identity().map(|identity| identity.to_string()),
        sealed: manifest.names_are_sealed(),
        manifest: Manifest { sealed: None, ..manifest.clone() },
        signature: found.signature.unwrap_or(asked),
    }
}
