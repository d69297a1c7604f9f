//! `run-job` runs one job now, for a person or an external timer.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::at_once;
use super::global::Global;
use super::output::{print, print_json};
use super::outputs::runs as printed;
use super::signals::cancelled_by_signals;
use super::unless_within;
use crate::base::fault::{Fault, Kind};
use crate::base::units::Span;
use crate::base::{terminal, units};
use crate::config::{Config, places, servers};
use crate::ledger::metrics::Metrics;
use crate::ledger::report::{Ended, Outcome, Run};
use crate::ledger::{Ledger, Trigger};
use crate::pg::failure;
use crate::run::fleet::{self, Memory};
use crate::run::job::{CatchUp, Folder, Job};
use crate::run::notify::Notifier;
use crate::run::runner;
use crate::run::scheduler::planner::ON_TIME_BY_TIMER;
use crate::task::Manual;
use crate::work::{Mode, Work};

pub struct Request<'a> {
    pub name: &'a str,
    pub mode: Mode,
    pub database: Option<&'a str>,
    pub scheduled: bool,
}

impl<'a> Request<'a> {
    /// Takes JOB, or JOB@DATABASE: no job's name has an `@`.
    pub fn of(name: &'a str, database: Option<&'a str>, mode: Mode) -> Result<Self> {
        let (name, in_name) = name.split_once('@').map_or((name, None), |(job, database)| (job, Some(database)));
        if in_name.is_some() && database.is_some() {
            let message = format!("the database is named twice: write {name}@DATABASE, or --database DATABASE");
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        Ok(Self { name, mode, database: in_name.or(database), scheduled: false })
    }

    pub fn scheduled(self, scheduled: bool) -> Self {
        Self { scheduled, ..self }
    }
}

/// Runs the job; `yes` confirms what the job asks for. A backup that is not older than `unless_within` needs no run.
pub async fn run(global: &Global, request: &Request<'_>, yes: bool, unless_within: Option<Span>) -> Result<ExitCode> {
    let (config, folder) = global.load_found(true).await?;
    let mut job = match global.find_job(&folder, request.name) {
        Ok(job) => job.clone(),
        Err(error) => {
            if request.mode == Mode::Apply {
                tell_broken_files(&config, &folder).await?;
            }
            return Err(error);
        }
    };
    let Folder { jobs, broken, .. } = folder;
    if yes {
        job.task.agree();
    }
    if job.databases.is_empty() {
        return no_database(global, &config, &job, request).await;
    }
    let mut databases = databases(&config, &job, request.database)?;
    let trigger = trigger(&job, request)?;
    if let Some(within) = unless_within {
        databases = unless_within::needed(&config, &job, databases, within).await?;
        if databases.is_empty() {
            return none_needed(global);
        }
    }
    if let Some(reason) = not_due(&job, &trigger) {
        terminal::say(&format!("pgtend: {}: {reason}: nothing to do", job.name));
        return none_needed(global);
    }
    let context = context(global, config, jobs, &job, request)?;
    if request.mode == Mode::Apply {
        context.notifier.broken(&broken, &context.jobs).await;
    }
    let runs = at_once::run(&context, &job, &databases, &trigger, request.mode, |ended| say(global, ended)).await?;
    let started = runs.len();
    let skipped_ticks: Vec<&String> = runs.iter().filter(|(_, ended)| ended.is_empty()).map(|(database, _)| *database).collect();
    let all: Vec<Ended> = runs.into_iter().flat_map(|(_, ended)| ended).collect();
    // The file of a job with patterns is about all of its databases.
    let are_all = job.chosen.is_none() || databases.len() == job.databases.len();
    if request.mode == Mode::Apply
        && are_all
        && let Err(error) = context.metrics.write_textfile(&context.config, &job.name)
    {
        tracing::warn!("cannot write the metrics of `{}` for the textfile collector: {error:#}", job.name);
    }
    conclude(global, &context, &all).await?;

    for database in skipped_ticks {
        let tick = trigger.tick().unwrap_or_default();
        terminal::say(&format!("pgtend: {} on {database}: {tick} already has a run: nothing to do", job.name));
    }
    if request.database.is_none() {
        fleet::ensure_known(&job, &context.config, context.ledger.as_deref().map_or(Memory::None, Memory::Read)).await?;
    }
    Ok(exit_code(&context, &all, started < databases.len()))
}

/// Where timers run jobs, nobody else tells that a file has mistakes.
async fn tell_broken_files(config: &Config, folder: &Folder) -> Result<()> {
    if config.notify.names().next().is_some() {
        let ledger = Ledger::new(config)?.map(Arc::new);
        let notifier = Notifier::new(config, &[], ledger.as_ref());
        notifier.broken(&folder.broken, &folder.jobs).await;
        notifier.drain().await;
    }
    Ok(())
}

/// Runs a command on behalf of a job, on each of its databases, with the locks and the ledger of its runs.
pub async fn manual<W: Work>(
    global: &Global,
    request: &Request<'_>,
    work: impl Fn(&Job) -> Result<Manual<W>>,
) -> Result<ExitCode> {
    let (config, folder) = global.load_found(true).await?;
    let job = global.find_job(&folder, request.name)?.clone();
    let jobs = folder.jobs;
    let work = work(&job)?;
    if job.databases.is_empty() {
        return no_database(global, &config, &job, request).await;
    }
    let databases = databases(&config, &job, request.database)?;
    let context = context(global, config, jobs, &job, request)?;
    let mut all = Vec::new();
    for database in &databases {
        if context.cancel.is_cancelled() {
            break;
        }
        if let Some(ended) = runner::run_manual(&context, &job, &work, database, request.mode).await {
            say(global, &ended)?;
            all.push(ended);
        }
    }
    conclude(global, &context, &all).await?;
    Ok(exit_code(&context, &all, all.len() < databases.len()))
}

/// Ends a command that runs nothing: with --json, that is a document, too.
fn none_needed(global: &Global) -> Result<ExitCode> {
    if global.json {
        print_json(&printed::Ended { runs: Vec::new() })?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn conclude(global: &Global, context: &runner::Context, all: &[Ended]) -> Result<()> {
    context.notifier.drain().await;
    tidy(context, all).await;
    if global.json {
        let runs: Vec<&Run> = all.iter().map(|ended| &ended.run).collect();
        print_json(&printed::Ended { runs })?;
    }
    Ok(())
}

fn exit_code(context: &runner::Context, all: &[Ended], some_did_not_run: bool) -> ExitCode {
    // A signal came between two databases: the rest did not run.
    if context.cancel.is_cancelled() && some_did_not_run {
        return ExitCode::from(143);
    }
    // The last attempt on a database decides about that database; the last database that failed decides the exit code.
    let is_last = |index: usize, ended: &Ended| all.get(index + 1).is_none_or(|next| next.run.database != ended.run.database);
    let failed = all.iter().enumerate().rev().find(|(index, ended)| ended.error.is_some() && is_last(*index, ended));
    failed.and_then(|(_, ended)| ended.error.as_ref()).map_or(ExitCode::SUCCESS, failure::exit_code)
}

/// Where no `serve` prunes the history, one run in twenty does.
async fn tidy(context: &runner::Context, ended: &[Ended]) {
    let is_its_turn = ended.iter().filter_map(|ended| ended.run.id).any(|id| id % 20 == 0);
    if let (Some(ledger), true) = (&context.ledger, is_its_turn)
        && let Err(error) = ledger.prune().await
    {
        tracing::warn!("could not prune the old history: {error:#}");
    }
}

/// Says why a timer should not run the latest tick: `serve` would not run it either.
fn not_due(job: &Job, trigger: &Trigger) -> Option<String> {
    let tick = trigger.tick()?;
    if !job.enabled {
        return Some("it is not enabled".to_owned());
    }
    if !matches!(trigger, Trigger::CatchUp { .. }) {
        return None;
    }
    let missed = format!("its latest tick was missed {} ago", units::age(tick, Utc::now()));
    match job.catch_up {
        CatchUp::Skip => Some(format!("{missed}, and catch_up = \"skip\"")),
        CatchUp::Once if (Utc::now() - tick).to_std().unwrap_or_default() > job.catch_up_within => {
            Some(format!("{missed}, which is more than catch_up_within ({})", units::duration(job.catch_up_within)))
        }
        CatchUp::Once => None,
    }
}

fn context(global: &Global, config: Config, jobs: Vec<Job>, job: &Job, request: &Request<'_>) -> Result<runner::Context> {
    let ledger = Ledger::new(&config)?.map(Arc::new);
    if ledger.is_none() && request.scheduled {
        tracing::warn!(
            "--scheduled without a [ledger]: nothing records which ticks have run, so a second call for the same tick runs \
             `{}` again; name a database for the run history in the configuration: [ledger] with database = \"NAME\"",
            job.name
        );
    } else if ledger.is_none() && request.mode == Mode::Apply {
        tracing::info!("no [ledger] is configured: this run leaves no history, and takes its locks in the target database only");
    }
    let context = with_ledger(global, config, jobs, ledger, cancelled_by_signals()?);
    context.metrics.patterns(&job.name, job.chosen.as_ref().map(ToString::to_string).as_deref());
    for database in &job.databases {
        context.metrics.job(&job.name, database, job.task.makes_dumps());
    }
    context.metrics.load_textfile(&context.config, &job.name);
    Ok(context)
}

/// Returns the context that runs share when one command acts in the name of several jobs.
pub(super) fn context_of_jobs(
    global: &Global,
    config: Config,
    jobs: Vec<Job>,
    cancel: CancellationToken,
) -> Result<runner::Context> {
    let ledger = Ledger::new(&config)?.map(Arc::new);
    Ok(with_ledger(global, config, jobs, ledger, cancel))
}

fn with_ledger(
    global: &Global,
    config: Config,
    jobs: Vec<Job>,
    ledger: Option<Arc<Ledger>>,
    cancel: CancellationToken,
) -> runner::Context {
    runner::Context {
        notifier: Notifier::new(&config, &jobs, ledger.as_ref()),
        config: Arc::new(config),
        others: Arc::new(jobs.iter().map(Job::in_short).collect()),
        jobs: Arc::new(jobs),
        metrics: Metrics::new(ledger.as_deref()),
        ledger,
        progress: global.progress(),
        cancel,
    }
}

/// Returns the places of the job, or those that are meant: one by its name, the schemas of a database by the database's, or one by its own name where only
/// one server or database has such a one.
fn databases(config: &Config, job: &Job, only: Option<&str>) -> Result<Vec<String>> {
    let Some(only) = only else { return Ok(job.databases.clone()) };
    if job.databases.iter().any(|database| database == only) {
        return Ok(vec![only.to_owned()]);
    }
    let of_database: Vec<String> = job.databases.iter().filter(|place| config.database_of(place) == only).cloned().collect();
    if !of_database.is_empty() {
        return Ok(of_database);
    }
    // A name with a dot names the server, and one with a colon the database: one that is called `main.shop` elsewhere is not meant.
    let has_schemas = job.has_schemas();
    let is_meant = |name: &&String| {
        let parts = if has_schemas { places::parts(name) } else { servers::parts(name) };
        !only.contains(['.', ':']) && parts.is_some_and(|(_, own)| own == only)
    };
    let meant: Vec<&String> = job.databases.iter().filter(is_meant).collect();
    let message = match meant.as_slice() {
        [one] => return Ok(vec![(*one).clone()]),
        [] => format!("job `{}` does not run on `{only}`; it runs on: {}", job.name, some_of(&job.databases)),
        several => {
            let names: Vec<String> = several.iter().map(|name| (*name).clone()).collect();
            let (what, has) = if has_schemas { ("databases", "schema") } else { ("servers", "database") };
            format!("several {what} have a {has} `{only}`: name one of {}", some_of(&names))
        }
    };
    Err(Fault::new(Kind::Configuration, message).into())
}

fn some_of(names: &[String]) -> String {
    const NAMED: usize = 20;
    let more = names.len().saturating_sub(NAMED);
    let named = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named}, and {more} more") } else { named }
}

/// A job whose patterns stand for nothing has nothing to do; where it is not known what a server has, that is an error, and so is a database that was named.
async fn no_database(global: &Global, config: &Config, job: &Job, request: &Request<'_>) -> Result<ExitCode> {
    let ledger = Ledger::new(config)?;
    fleet::ensure_known(job, config, ledger.as_ref().map_or(Memory::None, Memory::Read)).await?;
    let patterns = job.chosen.as_ref().map(ToString::to_string).unwrap_or_default();
    let what = job.has_runs_for();
    if let Some(named) = request.database {
        let message = format!("job `{}` does not run on `{named}`: no {what} matches {patterns}", job.name);
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    match request.scheduled {
        true => tracing::warn!(job = job.name, "no {what} matches {patterns}: nothing to do"),
        false => terminal::say(&format!("pgtend: {}: no {what} matches {patterns}: nothing to do", job.name)),
    }
    none_needed(global)
}

fn trigger(job: &Job, request: &Request<'_>) -> Result<Trigger> {
    if !request.scheduled {
        return Ok(Trigger::Manual);
    }
    let now = Utc::now();
    let schedule = job.schedule.as_ref().with_context(|| {
        Fault::new(Kind::Configuration, format!("job `{}` has no `schedule`, so --scheduled has no tick to run for", job.name))
    })?;
    let tick = schedule.last_until(now, job.timezone).context("the schedule has had no tick yet")?;
    Ok(if now - tick <= ON_TIME_BY_TIMER { Trigger::Schedule { tick } } else { Trigger::CatchUp { tick } })
}

fn say(global: &Global, ended: &Ended) -> Result<()> {
    let run = &ended.run;
    let who = format!("{} on {}", run.job, run.database);
    let elapsed = units::duration(run.elapsed());
    if let (Some(plan), false) = (&ended.plan, global.json) {
        print(plan)?;
    }
    // Also those of a run that failed: a store that is away is the reason of both.
    for warning in run.report.iter().flat_map(|report| &report.warnings) {
        tracing::warn!(job = run.job, database = run.database, "{warning}");
    }
    if let (Some(report), None, false) = (&run.report, &ended.error, global.json) {
        let id = run.id.map(|id| format!(" (run {id})")).unwrap_or_default();
        print(&format!("{who}: succeeded in {elapsed}{id}\n  {}\n", report.summary))?;
    }
    if let Some(error) = &ended.error {
        let outcome = if run.outcome == Outcome::Succeeded { Outcome::Failed } else { run.outcome };
        terminal::say(&format!("pgtend: {who}: {} after {elapsed}: {}", outcome.in_words(), failure::in_a_line(error)));
    }
    Ok(())
}
