//! What is no mistake, and worth knowing, in the files.

use crate::base::pattern::Pattern;
use crate::cli::{cleartext, encryption};
use crate::config::Config;
use crate::run::job::{Folder, Job};
use crate::work::Other;

pub fn notes(config: &Config, folder: &Folder) -> Vec<String> {
    let jobs = &folder.jobs;
    let mut notes = cleartext::warnings(config, jobs);
    notes.extend(folder.misnamed.iter().cloned());
    notes.extend(folder.unread.iter().cloned());
    notes.extend(folder.notes.iter().cloned());
    notes.extend(config.notes.iter().cloned());
    notes.extend(nowhere(config));
    notes.extend(open_to_others(config));
    notes.extend(of_schedules(config, jobs));
    notes.extend(will_refuse(jobs));
    notes.extend(without_servers(config, jobs));
    notes.extend(encryption::warnings(config, jobs));
    notes
}

/// Databases of which neither the configuration nor the environment says where they are: libpq's defaults may be another server.
fn nowhere(config: &Config) -> Vec<String> {
    const VARIABLES: [&str; 5] = ["PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE", "PGPORT"];
    if VARIABLES.iter().any(|variable| std::env::var_os(variable).is_some()) {
        return Vec::new();
    }
    let without = config.databases.iter().filter(|(_, database)| database.url.is_none());
    let note = |name: &String| {
        format!(
            "database `{name}` has no `url`, and the environment has no PGHOST, PGDATABASE or PGSERVICE: it is what psql connects to by itself. \
             Write url = \"postgres://user@host:5432/database\""
        )
    };
    without.map(|(name, _)| note(name)).collect()
}

/// Patterns that can stand for nothing: no such server is there, and no entry has such a name.
fn without_servers(config: &Config, jobs: &[Job]) -> Vec<String> {
    let mut notes = Vec::new();
    for job in jobs {
        let Some(chosen) = &job.chosen else { continue };
        let of_nothing = chosen.of_nothing(config).into_iter().filter(|_| !config.servers.is_empty());
        notes.extend(of_nothing.map(|pattern| {
            format!(
                "{}: the pattern \"{}\" stands for nothing: what is before its first dot is the name of no [servers.NAME], and no [databases.NAME] matches. \
                 Databases' own names are compared with patterns without a dot",
                job.name,
                pattern.as_str()
            )
        }));
        if !config.servers.is_empty() || !chosen.of(&config.entries()).is_empty() {
            continue;
        }
        let patterns = chosen.patterns.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ");
        notes.push(format!(
            "{}: databases = \"{patterns}\" matches no [databases.NAME], and there is no [servers.NAME] to find any",
            job.name
        ));
    }
    notes
}

/// The pages without a token, on an address that others reach.
fn open_to_others(config: &Config) -> Option<String> {
    let listen = config.serve.listen;
    config.serve.is_open_to_others().then(|| {
        format!(
            "[serve]: listen = \"{listen}\" without a token: whoever reaches this address can read the names of jobs and databases and the texts of errors. \
             Write token_file = \"/path\" (`openssl rand -hex 32` makes a token), or listen = \"127.0.0.1:{}\"",
            listen.port()
        )
    })
}

/// Explains schedules that mean something else than they do elsewhere or did before: each note once, with its jobs.
fn of_schedules(config: &Config, jobs: &[Job]) -> Vec<String> {
    let of_jobs = jobs.iter().filter_map(|job| Some((job.name.clone(), job.schedule.as_ref()?)));
    let of_digests = config.notify.targets.iter().map(|target| (format!("[notify.{}] digest", target.name), &target.digest));
    let mut notes: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, schedule) in of_jobs.chain(of_digests) {
        for note in schedule.notes() {
            match notes.iter_mut().find(|(known, _)| known == note) {
                Some((_, names)) => names.push(name.clone()),
                None => notes.push((note, vec![name.clone()])),
            }
        }
    }
    notes.into_iter().map(|(note, names)| format!("{}: {note}", names.join(", "))).collect()
}

/// Says which jobs refuse to run because of other jobs, or of one that is not there.
fn will_refuse(jobs: &[Job]) -> Vec<String> {
    let all: Vec<Other> = jobs.iter().map(Job::in_short).collect();
    let of_job = |job: &Job| Some(format!("{}: {}", job.name, job.task.will_refuse(&job.databases, &all)?));
    jobs.iter().filter_map(of_job).collect()
}
