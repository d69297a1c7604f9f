//! Prepares jobs for a configuration that is there, and stays as it is.

use anyhow::Result;
use chrono::NaiveTime;

use super::arguments::Arguments;
use super::facts::{Contents, ShownDatabase};
use super::look;
use super::names::{quoted, slug};
use super::prepared::Prepared;
use super::propose::Target;
use super::shown::{Shown, runs_in};
use super::text::{Choices, DatabaseEntry};
use crate::base::fault::{Fault, Kind};
use crate::base::toml_file::{Problems, did_you_mean};
use crate::cli::global::Global;
use crate::config::Config;
use crate::pg::Settings;
use crate::run::fleet::Found;
use crate::run::job::{self, Folder, Job};
use crate::task::backup::Backup;

pub async fn prepare(global: &Global, arguments: &Arguments) -> Result<Prepared> {
    let config = global.load_config()?;
    let known = known_jobs(global, &config)?;
    let mut shown = Shown::of_configuration(&config.path);
    let (names, to_add) = wanted(&config, arguments)?;
    shown.to_add = to_add;
    let mut targets = Vec::new();
    for name in names {
        let settings = config.databases.get(&name).map(|database| database.settings());
        let Some(settings) = settings.transpose()? else { continue };
        // One that does not answer gets the jobs that are for every database.
        let contents = match look::contents(&settings).await {
            Ok(contents) => {
                shown.runs_already.extend(runs_in(&name, &contents));
                contents
            }
            Err(error) => {
                shown.not_seen(&name, &error);
                Contents::default()
            }
        };
        shown.databases.push(ShownDatabase { name: name.clone(), size_bytes: None, extensions: contents.extensions.clone() });
        targets.push(Target { name, contents });
    }
    let store = store(&config, &known, arguments)?;
    let at = arguments.at.or_else(|| NaiveTime::from_hms_opt(2, 0, 0)).unwrap_or_default();
    let choices = Choices { store, at, timezone: arguments.timezone };
    Ok(Prepared { config, new_config: None, targets, found: Found::default(), known, choices, shown })
}

/// Reads the jobs that are there: none without their folder. One with mistakes could be anything, so nothing is written beside it.
fn known_jobs(global: &Global, config: &Config) -> Result<Vec<Job>> {
    if !global.jobs_dir().exists() {
        return Ok(Vec::new());
    }
    let folder: Folder = job::load_dir(&global.jobs_dir(), config).map_err(|problem| Problems(vec![*problem]))?;
    if folder.broken.is_empty() { Ok(folder.jobs) } else { Err(Problems(folder.problems()).into()) }
}

/// Returns the configured databases that are meant, and the lines that would add one that the configuration does not have.
fn wanted(config: &Config, arguments: &Arguments) -> Result<(Vec<String>, Option<String>)> {
    for name in &arguments.database {
        if !config.databases.contains_key(name) {
            let names = config.databases.keys().map(String::as_str);
            let hint =
                did_you_mean(name, names.clone()).unwrap_or_else(|| format!("it has: {}", names.collect::<Vec<_>>().join(", ")));
            let message = format!("{} has no database `{name}`; {hint}", config.path.display());
            return Err(Fault::new(Kind::Configuration, message).into());
        }
    }
    let is_wanted = |name: &&String| arguments.database.is_empty() || arguments.database.contains(name);
    let all: Vec<String> = config.databases.keys().filter(is_wanted).cloned().collect();
    let Some(url) = &arguments.url else { return Ok((all, None)) };
    let asked = Settings::from_url(url)?;
    let is_it = |name: &&String| {
        let settings = config.databases.get(*name).and_then(|database| database.settings().ok());
        settings.is_some_and(|settings| settings.server() == asked.server() && settings.database() == asked.database())
    };
    let same: Vec<String> = all.iter().filter(is_it).cloned().collect();
    if !same.is_empty() {
        return Ok((same, None));
    }
    let written = Settings::written(url, asked.database()).map_err(|mistake| Fault::new(Kind::Configuration, mistake))?;
    let entry = DatabaseEntry {
        name: slug(asked.database()),
        connection: format!("url = {}", quoted(&written.text)),
        remark: "add this, then run `pgtend init` again".to_owned(),
    };
    Ok((Vec::new(), Some(entry.text())))
}

/// Chooses the store: the one that is named, that of a backup job that is there, or the only one.
fn store(config: &Config, known: &[Job], arguments: &Arguments) -> Result<String> {
    let refuse = |message: String| Fault::new(Kind::Configuration, message);
    if let Some(name) = &arguments.store {
        let names = config.stores.keys().cloned().collect::<Vec<_>>().join(", ");
        return match config.stores.contains_key(name) {
            true => Ok(name.clone()),
            false => Err(refuse(format!(
                "{} is there and stays as it is; it has no store `{name}`: add [stores.…] to it, or name one of: {names}",
                config.path.display()
            ))
            .into()),
        };
    }
    let of_backup = known.iter().find_map(|job| Some(job.task.as_a::<Backup>()?.first.store.clone()));
    let chosen = of_backup.or_else(|| config.stores.keys().next().cloned());
    let message =
        || format!("{} has no store: add [stores.local] with path = \"…\", then run `pgtend init` again", config.path.display());
    chosen.ok_or_else(|| refuse(message()).into())
}
