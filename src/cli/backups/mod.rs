//! `pgtend backups`: the commands for existing sets. They need the store and no job, so that they work on a new host after a
//! disaster; only `prune` reads `keep` from the jobs.

mod accept;
mod adopt;
mod certificate;
mod copy;
mod diff;
mod elsewhere;
mod fetch;
mod find;
mod found;
mod hold;
mod list;
mod nearness;
mod other_copies;
mod prune;
mod require;
mod restore;
mod restore_part;
mod rows_file;
mod show;
mod thaw;
mod unknown;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Subcommand;
pub use find::{Filter, Which};
pub use require::span;
use thaw::Thawing;

use super::global::Global;
use super::signals::{cancelled_by_signals, or_cancelled};
use crate::task::backup::choices::RowCheck;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List sets, oldest first
    #[command(after_help = "Examples:
  pgtend backups list                                  all sets
  pgtend backups list --database app --store offsite
  pgtend backups list --json | jq -r '.sets[-1].set'   the name of the newest")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Also list sets without a signature of their store's key (sign_key_file, sign_key_env)
        #[arg(long)]
        unsigned_ok: bool,
    },
    /// Prove that a set is what its manifest says
    #[command(after_help = "Examples:
  pgtend backups verify latest                                read it back
  pgtend backups verify latest --restore-on app               restore it beside that database
  pgtend backups verify 2026-11-23T02-00-00Z --database app   one of a time")]
    Verify {
        /// DATABASE/JOB/TIME as listed, TIME alone, or `latest`
        set: String,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        which: Which,
        /// Restore it into a scratch database on this server: a configured database, or a URL
        #[arg(long, value_name = "DATABASE")]
        restore_on: Option<String>,
        /// With --restore-on: count the rows of the copy, without hashing them
        #[arg(long, requires = "restore_on")]
        count_rows: bool,
        /// Of an adopted set: let a role with rights over others restore it, although its code then runs with them
        #[arg(long, requires = "restore_on")]
        trust_owners: bool,
        #[command(flatten)]
        thawing: Thawing,
    },
    /// Take in a dump that pgtend did not make, as a set that is listed, verified and restored; unproved until somebody proves it
    Adopt(adopt::Arguments),
    /// Compare the rows of each table in two sets
    #[command(after_help = "Examples:
  pgtend backups diff 2026-11-22T02-00-00Z latest --database app   rows of each table, then and now")]
    Diff {
        /// DATABASE/JOB/TIME as listed, TIME alone, or `latest`
        before: String,
        /// The same
        after: String,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        which: Which,
    },
    /// Show what is in a set: tables with their rows, extensions, large objects
    #[command(after_help = "Examples:
  pgtend backups show latest --database app
  pgtend backups show app/backup-nightly/2026-11-23T02-00-00Z --json")]
    Show {
        /// DATABASE/JOB/TIME as listed, TIME alone, or `latest`
        set: String,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        which: Which,
    },
    /// Print what was proved of a set, when, how and by which release, and what was not; from what is recorded, for auditors
    #[command(after_help = "Examples:
  pgtend backups certificate latest --format html >certificate.html
  pgtend backups certificate --check certificate.html   was it changed since?")]
    Certificate {
        /// DATABASE/JOB/TIME as listed, TIME alone, or `latest`
        #[arg(required_unless_present = "check")]
        set: Option<String>,
        #[command(flatten)]
        filter: Filter,
        /// The output format
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: certificate::Format,
        /// Instead, say whether this certificate is as it was written: whether a store's key has signed it
        #[arg(long, value_name = "FILE", conflicts_with_all = ["set", "format"])]
        check: Option<PathBuf>,
    },
    /// Write the rows of one table of a set as SQL or CSV; only the parts of the dump that hold them are read, and they are proved
    Fetch(fetch::Arguments),
    /// Restore a set, or parts of it, into a database
    Restore(restore::Arguments),
    /// Copy a set from one store to another: what is there already is compared and not sent again, and the copy is read back
    Copy(copy::Arguments),
    /// Delete the sets that the jobs' `keep` does not keep; sets that were never read back are read first
    #[command(after_help = "Examples:
  pgtend backups prune --dry-run   what would be kept and deleted, and why
  pgtend backups prune --job backup-nightly")]
    Prune {
        /// Only sets of this job
        #[arg(long)]
        job: Option<String>,
        /// Print what would be kept and deleted, and why; delete nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Exit with 0 if the stores hold an intact set of a whole database that began within a time, else with 75: for deployments
    Require(require::Arguments),
    /// Keep a set until a date, whatever the jobs' `keep` says
    #[command(after_help = "Examples:
  pgtend backups hold 2026-11-23T02-00-00Z --database app --until 2099-12-31 --reason audit")]
    Hold {
        /// DATABASE/JOB/TIME as listed, or TIME alone
        set: String,
        #[command(flatten)]
        filter: Filter,
        /// Until the end of this day (UTC)
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = end_of_day)]
        until: DateTime<Utc>,
        /// The reason, for those who ask later
        #[arg(long, default_value = "by hand")]
        reason: String,
    },
    /// End a hold
    #[command(after_help = "Examples:
  pgtend backups release 2026-11-23T02-00-00Z --database app")]
    Release {
        /// DATABASE/JOB/TIME as listed, or TIME alone
        set: String,
        #[command(flatten)]
        filter: Filter,
    },
    /// Confirm that something suspicious is right: a dump that lost tables, or a server in place of an old one
    Accept(accept::Arguments),
}

fn end_of_day(text: &str) -> Result<DateTime<Utc>, String> {
    let day: chrono::NaiveDate = text.parse().map_err(|_| format!("`{text}` is not a date like 2027-01-31"))?;
    let end = day.succ_opt().and_then(|next| next.and_hms_opt(0, 0, 0)).ok_or("the date is out of range")?.and_utc();
    if end > Utc::now() { Ok(end) } else { Err(format!("{text} is in the past")) }
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let cancel = cancelled_by_signals()?;
    match command {
        Command::List { filter, unsigned_ok } => or_cancelled(&cancel, list::run(global, filter, *unsigned_ok)).await,
        Command::Verify { set, filter, which, restore_on, count_rows, trust_owners, thawing } => {
            let rows = if *count_rows { RowCheck::Count } else { RowCheck::Hash };
            let on = restore_on.as_deref().map(|target| verify::On { target, trust_owners: *trust_owners, rows });
            verify::run(global, set, filter, which, on, thawing, &cancel).await
        }
        Command::Adopt(arguments) => adopt::run(global, arguments, &cancel).await,
        Command::Diff { before, after, filter, which } => {
            or_cancelled(&cancel, diff::run(global, before, after, filter, which)).await
        }
        Command::Show { set, filter, which } => or_cancelled(&cancel, show::run(global, set, filter, which)).await,
        Command::Certificate { check: Some(file), filter, .. } => {
            or_cancelled(&cancel, certificate::check(global, file, filter)).await
        }
        Command::Certificate { set, filter, format, check: None } => {
            let set = set.as_deref().unwrap_or("latest");
            or_cancelled(&cancel, certificate::run(global, set, filter, *format)).await
        }
        Command::Fetch(arguments) => fetch::run(global, arguments, &cancel).await,
        Command::Restore(arguments) => restore::run(global, arguments, &cancel).await,
        Command::Copy(arguments) => copy::run(global, arguments, &cancel).await,
        Command::Prune { job, dry_run } => prune::run(global, job.as_deref(), *dry_run, cancel).await,
        Command::Require(arguments) => or_cancelled(&cancel, require::run(global, arguments)).await,
        Command::Hold { set, filter, until, reason } => {
            or_cancelled(&cancel, hold::hold(global, set, filter, *until, reason)).await
        }
        Command::Release { set, filter } => or_cancelled(&cancel, hold::release(global, set, filter)).await,
        Command::Accept(arguments) => or_cancelled(&cancel, accept::run(global, arguments)).await,
    }
}
