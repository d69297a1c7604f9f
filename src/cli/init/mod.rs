//! `init` looks at a server and writes a configuration and jobs that fit, or adds jobs to a configuration that is there. `look` reads, `decide` and
//! `text` are pure, `write` writes new files and changes none.

mod arguments;
mod ask;
pub(super) mod decide;
mod draft;
pub(super) mod facts;
mod fleet;
mod given;
mod look;
mod names;
mod new;
mod prepared;
mod propose;
mod prove;
mod shown;
mod store;
mod text;
mod there;
mod write;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

pub use self::arguments::Arguments;
use self::arguments::Place;
use self::draft::Draft;
use self::prepared::Prepared;
use self::write::{NewFile, is_there};
use super::documents;
use super::global::Global;
use crate::base::fault::{Fault, Kind};
use crate::base::shell;
use crate::run::job::Job;

pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    let config = global.config_path();
    let folder = config.parent().unwrap_or(Path::new("")).to_owned();
    let place = Place { folder, jobs: global.jobs_dir(), config };
    let asks = !arguments.yes && !arguments.dry_run && !global.json && ask::is_possible();
    let prepared = match is_there(&place.config) {
        true => there::prepare(global, arguments).await?,
        false => new::prepare(&place, arguments, asks).await?,
    };
    let Prepared { config, new_config, targets, found, known, choices, mut shown } = prepared;
    let Draft { proposals, left_out, to_do } =
        draft::make((&config, &found), &targets, &known, &taken(&place.jobs), &choices).await?;
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
    files.extend(schemas(&place, !files.is_empty()));
    shown.next = next(&proposals, &known);
    shown.say_before(global, &files, arguments.dry_run)?;
    if asks && !files.is_empty() && !ask::yes_or_no("Write these files?", true)? {
        return Err(Fault::new(Kind::Configuration, "nothing was written").into());
    }
    if !arguments.dry_run {
        write::all(&files)?;
    }
    shown.say_after(global, &files, !arguments.dry_run)?;
    Ok(ExitCode::SUCCESS)
}

/// The JSON Schemas for editors, which the first lines of the other files name.
fn schemas(place: &Place, are_wanted: bool) -> Vec<NewFile> {
    let mut files = Vec::new();
    for (name, text) in documents::schemas_of_files() {
        let path = place.folder.join("schema").join(name);
        if are_wanted && !is_there(&path) {
            files.push(NewFile { path, text, about: "for editors: what is allowed".to_owned() });
        }
    }
    files
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
    let run = new.or_else(old).map(|name| format!("pgtend run-job {}", shell::word(name)));
    ["pgtend check --connect".to_owned()].into_iter().chain(run).chain(["pgtend serve".to_owned()]).collect()
}
