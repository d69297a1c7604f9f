//! `partition convert` turns a table in use into a partitioned one.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::global::Global;
use super::run_job::{self, Request};
use crate::run::job::Job;
use crate::task::Manual;
use crate::task::partition::Partition;
use crate::task::partition::convert::{Convert, Undo};
use crate::work::Mode;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Convert the table of a [partition] job into a partitioned one while it is in use
    #[command(after_help = "Examples:
  pgtend partition convert logs --dry-run   every statement, and the lock it takes
  pgtend partition convert logs
  pgtend partition convert logs --undo      as long as no other partition has rows")]
    Convert {
        /// The job's name
        job: String,
        /// Print every statement and the lock it takes; write nothing
        #[arg(long)]
        dry_run: bool,
        /// Undo a conversion: the first partition becomes the table again, as long as no other partition has rows
        #[arg(long)]
        undo: bool,
        /// Run only on this one of the job's databases
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let Command::Convert { job: name, dry_run, undo, database } = command;
    let mode = if *dry_run { Mode::DryRun } else { Mode::Apply };
    let request = Request::of(name, database.as_deref(), mode)?;
    if *undo {
        let work = |job: &Job| {
            let partition = partition_of(job)?;
            anyhow::Ok(Manual { command: "partition undo", task: job.task.clone(), work: Undo { partition } })
        };
        return run_job::manual(global, &request, work).await;
    }
    let work = |job: &Job| {
        let partition = partition_of(job)?;
        anyhow::Ok(Manual { command: "partition convert", task: job.task.clone(), work: Convert { partition } })
    };
    run_job::manual(global, &request, work).await
}

fn partition_of(job: &Job) -> Result<Partition> {
    job.task_of::<Partition>("partition").cloned()
}
