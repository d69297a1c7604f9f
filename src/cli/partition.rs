//! `partition convert`: a table in use becomes a partitioned one.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::json;

use super::output::print;
use super::{Global, cancelled_by_signals};
use crate::fault::{Fault, Kind};
use crate::pg;
use crate::task::Task;
use crate::task::partition::convert;
use crate::task::partition::session::Session;

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
    let Command::Convert { job: name, dry_run, database: only } = command;
    let (config, jobs) = global.load()?;
    let job = global.find_job(&jobs, name)?;
    let Task::Partition(partition) = &job.task else {
        return Err(
            Fault::new(Kind::Configuration, format!("job `{name}` is a [{}], and no [partition]", job.task.kind())).into()
        );
    };
    let cancel = cancelled_by_signals()?;
    for database in job.databases.iter().filter(|database| only.as_ref().is_none_or(|only| only == *database)) {
        let configured =
            config.databases.get(database).with_context(|| format!("the configuration has no database `{database}`"))?;
        let settings = pg::Settings::resolve(configured).with_context(|| format!("database `{database}`"))?;
        // The job's own lock: a run of it meanwhile would meet a table that is half of this and half of that.
        let mut lock = settings.connect().await?;
        let lock_name = format!("pgtend job {database}/{name}");
        if !dry_run && !pg::try_lock(&mut lock, &lock_name).await? {
            let holder = pg::lock_holder(&mut lock, &lock_name).await?.unwrap_or_default();
            return Err(Fault::new(Kind::Busy, format!("job `{name}` is running on `{database}`: {holder}")).into());
        }
        let mut session = Session::open(&settings, partition.lock_timeout, partition.give_up_after).await?;
        let conversion = convert::plan(partition, job.timezone, &mut session).await?;
        match (global.json, dry_run) {
            (true, _) => {
                print(&format!("{:#}\n", json!({ "database": database, "applied": !dry_run, "conversion": conversion })))?
            }
            (false, true) => print(&conversion.to_string())?,
            (false, false) => {}
        }
        if !dry_run {
            let stop = cancel.clone();
            let pid = session.pid;
            let watcher = tokio::spawn({
                let settings = settings.clone();
                async move {
                    stop.cancelled().await;
                    let _ = pg::cancel_backend(&settings, pid).await;
                }
            });
            let applied = convert::apply(&mut session, &conversion, || cancel.is_cancelled()).await;
            watcher.abort();
            applied?;
            if !global.json {
                print(&format!(
                    "{}: partitioned by {}; what was there is its partition {} up to {}\n  next: pgtend run-job {name}\n",
                    conversion.table, partition.column, conversion.partition, conversion.bound
                ))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
