//! `compress install` and `compress undo`: the view that readers need, and the way back.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::print;
use super::{Global, cancelled_by_signals};
use crate::config::Config;
use crate::fault::{Fault, Kind};
use crate::governor::Go;
use crate::job::Job;
use crate::pg;
use crate::progress::Progress;
use crate::task::compress::{self, Compress, Method, install, undo};
use crate::task::partition::session::Session;
use crate::task::{RunContext, Task, Work as _};
use crate::units;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a view in the place of the table of a [compress] job, so that readers see text whatever its form
    Install {
        /// The job
        job: String,
        /// Print what was measured, what depends on the table, and every statement; write nothing
        #[arg(long)]
        dry_run: bool,
        /// Although there is little to win, or something was found that the view may not carry
        #[arg(long)]
        force: bool,
        /// Only on this one of the job's databases
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
    /// Turn all bodies back into text, and give the table its name back
    Undo {
        /// The job
        job: String,
        /// Print what it would do; write nothing
        #[arg(long)]
        dry_run: bool,
        /// Only the bodies: the view stays, and the job's next run compresses them again
        #[arg(long)]
        keep_view: bool,
        /// Only on this one of the job's databases
        #[arg(long, value_name = "NAME")]
        database: Option<String>,
    },
}

pub async fn run(global: &Global, command: &Command) -> Result<ExitCode> {
    let (Command::Install { job: name, database: only, dry_run, .. } | Command::Undo { job: name, database: only, dry_run, .. }) =
        command;
    let (config, jobs) = global.load()?;
    let job = global.find_job(&jobs, name)?;
    let Task::Compress(compress) = &job.task else {
        return Err(Fault::new(Kind::Configuration, format!("job `{name}` is a [{}], and no [compress]", job.task.kind())).into());
    };
    if compress.method == Method::Toast {
        let message =
            "method = \"toast\" needs no view, as PostgreSQL reads its own forms: run the job; there is nothing to undo";
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    let cancel = cancelled_by_signals()?;
    for database in job.databases.iter().filter(|database| only.as_ref().is_none_or(|only| only == *database)) {
        let run = context(&config, &jobs, job, database, global.progress(), cancel.clone())?;
        // The job's own lock: a run of it meanwhile would compress what is made text here.
        let mut lock = run.settings.connect().await?;
        let lock_name = format!("pgtend job {database}/{name}");
        if !dry_run && !pg::try_lock(&mut lock, &lock_name).await? {
            let holder = pg::lock_holder(&mut lock, &lock_name).await?.unwrap_or_default();
            return Err(Fault::new(Kind::Busy, format!("job `{name}` is running on `{database}`: {holder}")).into());
        }
        match command {
            Command::Install { force, .. } => install(global, compress, &run, *dry_run, *force).await?,
            Command::Undo { keep_view, .. } => undo(global, compress, &run, *dry_run, *keep_view).await?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn context<'a>(
    config: &'a Config,
    jobs: &'a [Job],
    job: &'a Job,
    database: &'a str,
    progress: Progress,
    cancel: CancellationToken,
) -> Result<RunContext<'a>> {
    let configured = config.databases.get(database).with_context(|| format!("the configuration has no database `{database}`"))?;
    Ok(RunContext {
        config,
        jobs,
        job,
        database,
        settings: pg::Settings::resolve(configured).with_context(|| format!("database `{database}`"))?,
        progress,
        cancel,
        now: chrono::Utc::now(),
        resume: None,
    })
}

async fn install(global: &Global, compress: &Compress, run: &RunContext<'_>, dry_run: bool, force: bool) -> Result<()> {
    let limits = &run.job.limits;
    let plan = run.or_cancelled(compress.plan(run)).await?;
    let mut session = Session::open(&run.settings, limits.lock_timeout.0, limits.max_wait.0).await?;
    compress::prepare(&mut session.connection).await?;
    let again = plan.table.view.is_some();
    let refusal = if !plan.dependants.refusals.is_empty() {
        Some(format!("no view can take the place of {}: {}", compress.table, plan.dependants.refusals.join("; ")))
    } else if force || again {
        None
    } else if !plan.dependants.doubts.is_empty() {
        Some(format!("look at this first, then install with --force: {}", plan.dependants.doubts.join("; ")))
    } else if plan.verdict.saved_share().is_none() {
        Some(format!("not installed: {}; --force installs it all the same", plan.verdict))
    } else {
        None
    };
    // Refused or not, a dry run shows what was found.
    let installation = match refusal {
        None => Some(install::plan(&mut session.connection, &plan.table).await?),
        Some(_) => None,
    };
    if global.json {
        let json = json!({ "database": run.database, "applied": !dry_run && refusal.is_none(), "plan": plan, "refusal": refusal, "installation": installation });
        print(&format!("{json:#}\n"))?;
    } else if dry_run {
        print(&plan.to_string())?;
        if let Some(installation) = &installation {
            print(&format!("\n{installation}"))?;
        }
    }
    if let Some(refusal) = refusal {
        return Err(Fault::new(Kind::Configuration, refusal).into());
    }
    let Some(installation) = installation.filter(|_| !dry_run) else { return Ok(()) };
    run.or_cancelled(install::apply(&mut session, &installation)).await?;
    if !global.json {
        let what = if installation.again { "brought up to date" } else { "installed" };
        print(&format!(
            "{}: {what}; the table behind it is {}\n  for INSERT … ON CONFLICT, TRUNCATE, indexes and ALTER TABLE name that one; after ALTER TABLE, install again\n  \
             next: pgtend run-job {}\n",
            installation.view, installation.stored, run.job.name
        ))?;
    }
    Ok(())
}

async fn undo(global: &Global, compress: &Compress, run: &RunContext<'_>, dry_run: bool, keep_view: bool) -> Result<()> {
    let mut connection = run.settings.connect().await?;
    let undoing = undo::plan(compress, &mut connection, keep_view).await?;
    if dry_run {
        return print(&match global.json {
            true => format!("{:#}\n", json!({ "database": run.database, "applied": false, "plan": undoing })),
            false => undoing.to_string(),
        });
    }
    let (done, stopped) = undo::apply(compress, run, &undoing).await?;
    if let Go::Stop(reason) = stopped {
        let message = format!("{} bodies are text again; stopped for now: {reason}. Run it again", units::count(done.rows));
        return Err(Fault::new(Kind::NotNow, message).into());
    }
    let rows = units::count(done.rows);
    print(&match global.json {
        true => {
            format!("{:#}\n", json!({ "database": run.database, "applied": true, "rows": done.rows, "bytes": done.raw_bytes }))
        }
        false => format!(
            "{}: {rows} bodies are text again ({}){}\n",
            undoing.table.view_sql(),
            units::bytes(done.raw_bytes),
            if keep_view { "; the view stays" } else { ", and the table has its name back" }
        ),
    })
}
