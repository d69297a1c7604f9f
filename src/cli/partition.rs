//! `partition convert`: a table in use becomes a partitioned one.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::Global;
use super::run_job::{self, Request};
use crate::fault::{Fault, Kind};
use crate::task::partition::convert::Convert;
use crate::task::{ByHand, Mode, Task};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Turn the table of a [partition] job, which is in use and not partitioned, into a partitioned one
    Convert {
        /// The job
        job: String,
        /// Print every statement and the lock it takes; write nothing
        #[arg(long)]
        dry_run: bool,
        /// Only on this one of the job's databases
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let Command::Convert { job: name, dry_run, database } = command;
    let mode = if *dry_run { Mode::DryRun } else { Mode::Apply };
    let request = Request { name, mode, database: database.as_deref(), scheduled: false };
    run_job::by_hand(global, &request, |job| match &job.task {
        Task::Partition(partition) => Ok(ByHand { command: "partition convert", work: Convert { partition: partition.clone() } }),
        other => Err(Fault::new(Kind::Configuration, format!("job `{name}` is a [{}], and no [partition]", other.kind())).into()),
    })
    .await
}
