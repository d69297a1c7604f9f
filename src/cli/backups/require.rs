//! `pgtend backups require`: a gate before a deployment.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::base::fault::{Fault, Kind};
use crate::base::shell::word;
use crate::base::toml_file::did_you_mean;
use crate::base::units::Span;
use crate::cli::filter::Filter;
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::sets as printed;
use crate::config::Config;
use crate::run::job;
use crate::task::backup::gate::{self, Answer, Question};
use crate::task::backup::manifest::Filters;
use crate::task::backup::whose::Whose;
use crate::task::backup::{Backup, Verify};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend backups require --database app --within 1h && ./deploy   deploy only beside a fresh backup
  pgtend backups require --database app --within 1d --restored    one that a server has restored")]
pub struct Arguments {
    /// The database, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    database: String,
    /// How long ago the set may have begun, as in a file: 30m, 1h, 1d
    #[arg(long, value_name = "TIME", value_parser = span)]
    within: Span,
    /// Some server must have restored it
    #[arg(long)]
    restored: bool,
    /// Only sets in this store; what their copies in other stores were refused for counts all the same
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
    /// Only sets of this server, as `list --json` names it: SYSTEM_IDENTIFIER/DATABASE, or the first part alone, for the database that its
    /// `url` names. Without it, the database itself is asked which server it is
    #[arg(long, value_name = "IDENTITY")]
    from: Option<String>,
    /// Where the database's role may not read its server's system identifier, or the backup's could not: count sets of a database of
    /// the same name
    #[arg(long, conflicts_with = "from")]
    by_name: bool,
}

/// Parses a length of time as files have it.
pub fn span(text: &str) -> Result<Span, String> {
    Span::try_from(text.to_owned())
}

/// Ends with 0 only where a store holds a set that counts; with 75 where it holds none; any other failure has its own code.
pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { database, within, restored, store, from, by_name } = arguments;
    let config = global.load_config()?;
    refuse_unknown(&config, database)?;
    Filter { store: store.clone(), database: None, job: None }.ensure_store(&config)?;
    let stores = Filter::everything().opened(&config).await?;
    let is_asked = |name: &String| store.as_ref().is_none_or(|store| store == name);
    let opened = stores.iter().filter_map(|(name, store)| Some((name, store.as_ref().ok()?)));
    for (name, store) in opened.filter(|(name, store)| is_asked(name) && !store.is_there()) {
        tracing::warn!("store `{name}`: there is no folder {} (yet, or is a disk not mounted?)", store.location(""));
    }
    let whose = from.clone().map_or(Whose::Own { by_name: *by_name }, Whose::Named);
    let jobs = job::load_dir(&global.jobs_dir(), &config).map(|folder| folder.jobs).unwrap_or_default();
    let stores_of = |job: &job::Job| Some(job.task.as_a::<Backup>()?.stores().map(|kept| kept.store.clone()).collect());
    let builds_none = |job: &&job::Job| job.task.as_a::<Backup>().is_some_and(|backup| !backup.vector_indexes);
    let question = Question {
        database,
        job: None,
        store: store.as_deref(),
        stores_of: jobs.iter().filter_map(|job| Some((job.name.clone(), stores_of(job)?))).collect(),
        filters: config
            .place(database)
            .and_then(|place| place.schema.clone())
            .map_or_else(Filters::default, |schema| Filters::of_schema(&schema)),
        whose,
        within: *within,
        restored: *restored,
        without_vector_indexes: jobs.iter().filter(builds_none).map(|job| job.name.clone()).collect(),
    };
    let asked = gate::ask(&config, stores, &question).await;
    let answer = asked.with_context(|| format!("cannot tell whether `{database}` has a backup within {within}"))?;
    let mut said = answer.in_words(&question);
    if !answer.is_met {
        said += &format!(". {}", advice(&jobs, database, &config));
    }
    if global.json {
        print_json(&as_json(&question, &answer, &said))?;
    } else if answer.is_met {
        print(&format!("{said}\n"))?;
    }
    match answer.is_met {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Fault::new(Kind::Deferred, said).into()),
    }
}

pub(super) fn refuse_unknown(config: &Config, database: &str) -> Result<()> {
    if config.place(database).is_some() {
        return Ok(());
    }
    let names = config.databases.keys().map(String::as_str);
    let hint =
        did_you_mean(database, names.clone()).unwrap_or_else(|| format!("it has: {}", names.collect::<Vec<_>>().join(", ")));
    Err(Fault::new(Kind::Configuration, format!("the configuration has no database `{database}`; {hint}")).into())
}

/// Says what makes a set. Jobs are not needed for the answer, so one that cannot be read is no reason for another exit code.
fn advice(jobs: &[job::Job], database: &str, config: &Config) -> String {
    let makes_sets = jobs.iter().filter(|job| job.task.makes_dumps() && job.would_run_on(database, config));
    let database = word(database);
    let command = |job: &job::Job| format!("`pgtend run-job {} --database {database}`", word(&job.name));
    let (mut count, mut unread) = (Vec::new(), Vec::new());
    for job in makes_sets {
        match job.task.as_a::<Backup>() {
            // Its sets hold a part, and never count.
            Some(backup) if !backup.filters.are_none() => {}
            Some(backup) if backup.verify == Verify::None => unread.push(job),
            _ => count.push(command(job)),
        }
    }
    match (&count[..], &unread[..]) {
        ([], []) => "No job here makes backups of all of it: write one with [backup] and without filters, run it, and ask again"
            .to_owned(),
        ([], [job, ..]) => format!(
            "Make one, have it read back, then ask again: {} and `pgtend backups verify latest --database {database} --job {}`",
            command(job),
            word(&job.name)
        ),
        (count, _) => format!("Make one, then ask again: {}", count.join(" or ")),
    }
}

fn as_json<'a>(question: &Question<'a>, answer: &'a Answer, said: &'a str) -> printed::Require<'a> {
    let newest = answer.newest.as_ref().map(|newest| printed::Newest {
        set: &newest.set,
        store: &newest.store,
        began_at: newest.began_at,
        age_seconds: (answer.now - newest.began_at).num_seconds().max(0).unsigned_abs(),
        restored_at: newest.restored_at,
    });
    printed::Require {
        database: question.database,
        within_seconds: question.within.0.as_secs_f64(),
        restored: question.restored,
        met: answer.is_met,
        newest,
        passed_over: &answer.passed_over,
        unread_stores: &answer.not_asked,
        reason: said,
    }
}
