//! `init` looks at a server and writes a configuration and jobs that fit, or adds jobs to a configuration that is there. `look` reads, `decide` and
//! `text` are pure, `write` writes new files and changes none.

mod ask;
mod decide;
mod draft;
mod facts;
mod look;
mod names;
mod new;
mod propose;
mod prove;
mod shown;
mod store;
mod text;
mod there;
mod write;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use chrono::NaiveTime;
use clap::Args;

use self::decide::LeftOut;
use self::draft::Draft;
use self::propose::Target;
use self::shown::Shown;
use self::text::Choices;
use self::write::{NewFile, is_there};
use super::documents::{self, Which};
use super::global::Global;
use crate::base::fault::{Fault, Kind};
use crate::config::Config;
use crate::run::job::Job;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend init postgres:///app                        one database of the server on this host
  pgtend init postgres://pgtend@db1.example.com      all databases of a server; the password comes from ~/.pgpass
  pgtend init --url-env DATABASE_URL --store s3://my-backups/prod --yes
  pgtend init --dry-run                              print the files, and write none
  pgtend init                                        later: jobs for what is new in the configured databases

It writes new files and changes none that are there. Jobs that change a database are written with `enabled = false`.")]
pub struct Arguments {
    /// The server, or one database of it: postgres://user@host/database. The default is that of psql: PGHOST and so on. Its password is written nowhere
    #[arg(conflicts_with_all = ["url_env", "url_file"])]
    url: Option<String>,
    /// The environment variable that holds the URL of one database; the configuration will read it there
    #[arg(long, value_name = "VARIABLE", conflicts_with = "url_file")]
    url_env: Option<String>,
    /// The file that holds the URL of one database; the configuration will read it there
    #[arg(long, value_name = "FILE")]
    url_file: Option<PathBuf>,
    /// Only this database of the server; may be repeated [default: the one that the URL names, else all]
    #[arg(long, value_name = "NAME")]
    database: Vec<String>,
    /// Where backups go: a folder, or s3://BUCKET/PREFIX (with ?region=…&endpoint=…); in a configuration that is there, the name of a store
    #[arg(long, value_name = "PLACE")]
    store: Option<String>,
    /// When backups begin [default: 02:00]
    #[arg(long, value_name = "HH:MM", value_parser = time_of_day)]
    at: Option<NaiveTime>,
    /// The time zone of schedules, by its IANA name
    #[arg(long, value_name = "ZONE", default_value = "UTC", value_parser = zone)]
    timezone: chrono_tz::Tz,
    /// A folder with pg_dump, pg_dumpall and psql, if they are not where packages put them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Ask nothing, and take the defaults for what the options do not say; so it is where there is no terminal
    #[arg(long)]
    yes: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What was looked at, whether its configuration is there or not.
struct Prepared {
    config: Config,
    /// The new configuration; None where one is there.
    new_config: Option<String>,
    targets: Vec<Target>,
    known: Vec<Job>,
    choices: Choices,
    shown: Shown,
}

/// The paths that are written to.
struct Place {
    config: PathBuf,
    jobs: PathBuf,
    /// The folder of the configuration; empty for the current one.
    folder: PathBuf,
}

pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    let config = global.config_path();
    let folder = config.parent().unwrap_or(Path::new("")).to_owned();
    let place = Place { folder, jobs: global.jobs_dir(), config };
    let asks = !arguments.yes && !arguments.dry_run && !global.json && ask::is_possible();
    let prepared = match is_there(&place.config) {
        true => there::prepare(global, arguments).await?,
        false => new::prepare(&place, arguments, asks).await?,
    };
    let Prepared { config, new_config, targets, known, choices, mut shown } = prepared;
    let Draft { proposals, left_out, to_do } = draft::make(&config, &targets, &known, &taken(&place.jobs), &choices).await?;
    shown.left_out.extend(left_out);
    shown.to_do.extend(to_do);
    let mut files = Vec::new();
    if let Some(text) = new_config {
        files.push(NewFile { path: place.config.clone(), text, about: "databases, store, run history".to_owned() });
    }
    for proposal in &proposals {
        let text = text::job(proposal, &choices, &schema_of_jobs(&place));
        let path = place.jobs.join(format!("{}.toml", proposal.name));
        files.push(NewFile { path, text, about: text::in_words(proposal, &choices) });
    }
    files.extend(schemas(&place, !files.is_empty())?);
    shown.next = next(&proposals, &known);
    shown.say_before(global, &files, arguments.dry_run)?;
    if asks && !files.is_empty() && !ask::yes_or_no("Write these files?")? {
        return Err(Fault::new(Kind::Configuration, "nothing was written").into());
    }
    if !arguments.dry_run {
        write::all(&files)?;
    }
    shown.say_after(global, &files, !arguments.dry_run)?;
    Ok(ExitCode::SUCCESS)
}

/// The JSON Schemas for editors, which the first lines of the other files name.
fn schemas(place: &Place, are_wanted: bool) -> Result<Vec<NewFile>> {
    let mut files = Vec::new();
    for (which, name) in [(Which::Config, "config.json"), (Which::Job, "job.json")] {
        let path = place.folder.join("schema").join(name);
        if are_wanted && !is_there(&path) {
            files.push(NewFile { path, text: documents::schema_text(which)?, about: "for editors: what is allowed".to_owned() });
        }
    }
    Ok(files)
}

/// Returns the path of the jobs' schema, as it is seen from the folder of jobs.
fn schema_of_jobs(place: &Place) -> String {
    if place.jobs == place.folder.join("jobs") {
        return "../schema/job.json".to_owned();
    }
    let path = place.folder.join("schema/job.json");
    names::remark(&std::path::absolute(&path).unwrap_or(path).display().to_string())
}

/// The names of jobs that are there, whether they can be read or not.
fn taken(jobs: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(jobs).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.path().file_stem()?.to_string_lossy().into_owned())).collect()
}

/// The commands that come next.
fn next(proposals: &[decide::Proposal], known: &[Job]) -> Vec<String> {
    let new = proposals.iter().find(|proposal| matches!(proposal.does, decide::Does::Backup { .. })).map(|new| new.name.as_str());
    let old = || known.iter().find(|job| job.task.makes_dumps()).map(|job| job.name.as_str());
    let run = new.or_else(old).map(|name| format!("pgtend run-job {}", names::word(name)));
    ["pgtend check --connect".to_owned()].into_iter().chain(run).chain(["pgtend serve".to_owned()]).collect()
}

fn time_of_day(text: &str) -> Result<NaiveTime, String> {
    NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| "write it like 02:00 or 23:30".to_owned())
}

fn zone(text: &str) -> Result<chrono_tz::Tz, String> {
    text.parse().map_err(|_| format!("there is no time zone `{text}`: write it like Europe/Berlin"))
}

/// A database that could not be looked at.
fn unread(name: &str, error: &anyhow::Error) -> LeftOut {
    let why = format!("it could not be looked at: {}", crate::pg::failure::in_a_line(error));
    LeftOut { what: format!("the tables of {name}"), why }
}
