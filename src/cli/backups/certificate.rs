//! `pgtend backups certificate`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::Utc;
use clap::ValueEnum;

use super::find::{Filter, Found, find};
use super::other_copies::OtherCopies;
use crate::base::fault::{Fault, Kind};
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::config::Config;
use crate::pg::failure;
use crate::run::job::{self, Job};
use crate::store::key;
use crate::task::backup::certificate::{Certificate, Elsewhere, Stay, html, signed, text};
use crate::task::backup::copies::together::Together;
use crate::task::backup::latest::Choice;
use crate::task::backup::series::Series;
use crate::task::backup::{Backup, Keep, set};

/// More than any certificate has.
const CERTIFICATE_BYTES: u64 = 16 << 20;

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
    let (others, now) = (OtherCopies::of(global, &config, &found).await?, Utc::now());
    let copies = [&found].into_iter().chain(&others.found).map(|copy| (copy.store_name.as_str(), &copy.set));
    let refused = Together::of_copies(copies).refused_for_its_data(&found.set, now);
    let elsewhere = Elsewhere { refused, unread: &others.unread };
    let certificate = Certificate::of(&found.set, (&found.store_name, &found.store), &stay, &elsewhere, now);
    print(&match (format, global.json) {
        (Format::Json, _) | (Format::Text, true) => signed::as_json(&certificate, &found.store)?,
        (Format::Text, false) => signed::as_text(text::render(&certificate), &found.store)?,
        (Format::Html, _) => signed::as_html(html::render(&certificate), &found.store)?,
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Says whether a certificate is as pgtend has written it: whether the key of a store has signed it.
pub async fn check(global: &Global, file: &Path, filter: &Filter) -> Result<ExitCode> {
    let config = global.load_config()?;
    let refused = |message: String| anyhow::Error::from(Fault::new(Kind::Configuration, message));
    let length = std::fs::metadata(file).with_context(|| refused(format!("cannot read {}", file.display())))?.len();
    anyhow::ensure!(length <= CERTIFICATE_BYTES, refused(format!("{} is no certificate: it is larger than any", file.display())));
    let document = std::fs::read(file).with_context(|| refused(format!("cannot read {}", file.display())))?;
    let (mut has_key, mut has_signature) = (false, false);
    for (name, store) in filter.stores(&config).await? {
        has_key |= store.has_sign_key();
        match signed::check(&document, &store)? {
            Some(true) => {
                print(&format!("{}: signed with the key of store {name}, and not changed since\n", file.display()))?;
                return Ok(ExitCode::SUCCESS);
            }
            Some(false) => has_signature = true,
            None => {}
        }
    }
    let why = match (has_key, has_signature) {
        (false, _) => return Err(refused("no store here has a key (sign_key_file) that could have signed it".to_owned())),
        (true, false) => {
            "it carries no signature where one should stand: it was issued for a store without a key, its last line was removed, or a program wrote it anew in another form"
        }
        (true, true) => "its signature is of none of the keys of the stores here: it was changed, or another key signed it",
    };
    anyhow::bail!("{}: {why}", file.display())
}

/// How long the set stays, by the job that made it, if that is in the configuration.
async fn stay(global: &Global, config: &Config, found: &Found) -> Stay {
    let unknown = |why: String| Stay { unknown: Some(why), ..Stay::default() };
    let jobs = match job::load_dir(&global.jobs_dir(), config) {
        Ok(folder) if folder.broken.is_empty() => folder.jobs,
        _ => return unknown("not all jobs can be read (`pgtend check` says why)".to_owned()),
    };
    let name = &found.set.name;
    let makes_it = |job: &Job| job.name == name.job && job.would_run_on(&name.database, config);
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
