//! `compress install` puts a view in front of a compressed table for its readers; `compress undo` takes it back.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::global::Global;
use super::run_job::{self, Request};
use crate::base::fault::{Fault, Kind};
use crate::run::job::Job;
use crate::task::Manual;
use crate::task::compress::manual::{Install, Keep, Undo};
use crate::task::compress::{Compress, Method};
use crate::work::Mode;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a view in place of a [compress] job's table, so that readers see text in whatever form it is stored
    #[command(after_help = "Examples:
  pgtend compress install scripts --dry-run   what it saves, and what it changes for readers
  pgtend compress install scripts")]
    Install {
        /// The job's name
        job: String,
        /// Print what was measured, what depends on the table, and every statement; write nothing
        #[arg(long)]
        dry_run: bool,
        /// Install even if it saves little, or if something was found that the view may not preserve
        #[arg(long)]
        force: bool,
        /// Run only on this one of the job's databases
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Turn all values back into text, and give the table its name back
    #[command(after_help = "Examples:
  pgtend compress undo scripts --dry-run
  pgtend compress undo scripts --drop-dictionaries")]
    Undo {
        /// The job's name
        job: String,
        /// Print what it would do; write nothing
        #[arg(long)]
        dry_run: bool,
        /// Only decompress the values: the view stays, and the job's next run compresses them again
        #[arg(long)]
        keep_view: bool,
        /// Also drop the table's dictionaries, if nothing is found that needs them: archived rows, or other columns
        #[arg(long, conflicts_with = "keep_view")]
        drop_dictionaries: bool,
        /// Run only on this one of the job's databases
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let (Command::Install { job: name, database, dry_run, .. } | Command::Undo { job: name, database, dry_run, .. }) = command;
    let mode = if *dry_run { Mode::DryRun } else { Mode::Apply };
    let request = Request::of(name, database.as_deref(), mode)?;
    match command {
        Command::Install { force, .. } => {
            let work = |job: &Job| {
                Ok(Manual {
                    command: "compress install",
                    task: job.task.clone(),
                    work: Install { compress: gzip_of(job)?, force: *force },
                })
            };
            run_job::manual(global, &request, work).await
        }
        Command::Undo { keep_view, drop_dictionaries, .. } => {
            let keep = Keep { view: *keep_view, dictionaries: !drop_dictionaries };
            let work = |job: &Job| {
                Ok(Manual { command: "compress undo", task: job.task.clone(), work: Undo { compress: gzip_of(job)?, keep } })
            };
            run_job::manual(global, &request, work).await
        }
    }
}

fn gzip_of(job: &Job) -> Result<Compress> {
    let compress = job.task_of::<Compress>("compress")?;
    if compress.method == Method::Toast {
        let message = "method = \"toast\" needs no view, because PostgreSQL decompresses its own values: just run the job. There is nothing to undo";
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    Ok(compress.clone())
}
