//! `pgtend backups certificate`.

use std::process::ExitCode;

use anyhow::Result;
use chrono::Utc;
use clap::ValueEnum;

use super::find::{Filter, Found, find};
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::config::Config;
use crate::pg::failure;
use crate::run::job::{self, Job};
use crate::store::key;
use crate::task::backup::certificate::{Certificate, Stay, html, text};
use crate::task::backup::latest::Choice;
use crate::task::backup::series::Series;
use crate::task::backup::{Backup, Keep, set};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Html,
    Json,
}

pub async fn run(global: &Global, wanted: &str, filter: &Filter, format: Format) -> Result<ExitCode> {
    let config = global.load_config()?;
    // A certificate of a damaged set says so.
    let choice = Choice { older_ok: true, to_verify: true, ..Choice::default() };
    let found = find(global, &config, wanted, filter, &choice).await?;
    let stay = stay(global, &config, &found).await;
    let certificate = Certificate::of(&found.set, &found.store_name, &found.store, &stay, Utc::now());
    print(&match (format, global.json) {
        (Format::Json, _) | (Format::Text, true) => format!("{:#}\n", serde_json::to_value(&certificate)?),
        (Format::Text, false) => text::render(&certificate),
        (Format::Html, _) => html::render(&certificate),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How long the set stays, by the job that made it, if that is in the configuration.
async fn stay(global: &Global, config: &Config, found: &Found) -> Stay {
    let unknown = |why: String| Stay { unknown: Some(why), ..Stay::default() };
    let jobs = match job::load_dir(&global.jobs_dir(), config) {
        Ok(folder) if folder.broken.is_empty() => folder.jobs,
        _ => return unknown("not all jobs can be read (`pgtend check` says why)".to_owned()),
    };
    let name = &found.set.name;
    let makes_it = |job: &Job| job.name == name.job && job.databases.contains(&name.database);
    let Some((job, keep)) = jobs.iter().filter(|job| makes_it(job)).find_map(|job| Some((job, keep_of(job, found)?))) else {
        return Stay::default();
    };
    let read = async {
        let listing = set::list(&found.store, &key::folder(&name.database, &name.job)).await?;
        let (series, _) = Series::read(&found.store, &name.database, &name.job).await?;
        anyhow::Ok((listing, series))
    };
    match read.await {
        Ok((listing, series)) => Stay::by_rules(&found.set, &listing, &series, &keep, job.timezone, job.schedule.is_some()),
        Err(error) => unknown(failure::in_a_line(&error)),
    }
}

fn keep_of(job: &Job, found: &Found) -> Option<Keep> {
    let backup = job.task.as_a::<Backup>()?;
    backup.stores().find(|kept| kept.store == found.store_name)?.keep
}
