//! Jobs with patterns in `databases`, or with `schemas`: which databases the servers have, which schemas these have, and what each job gets of them. Only an
//! answer changes anything: a server or a database that does not answer keeps what it had.

pub mod asked;
mod find;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::Result;
use asked::Asked;
pub use find::{Memory, Silent, ensure_known, find, found_for};

use super::job::{Chosen, Job};
use super::runner::Context;
use crate::config::servers::{self, Candidate};
use crate::config::{Config, places};
use crate::ledger::{Gone, Ledger, LeftOut};
use crate::pg::databases::Listed;

/// What was found, by own names; without servers and databases of which nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The databases of each server, and the schemas of each database.
    lists: BTreeMap<Asked, Vec<String>>,
    /// Those that are left out, each with the reason, as far as servers and databases were asked.
    left_out: BTreeMap<Asked, Vec<(String, &'static str)>>,
}

/// Returns whether any job depends on what servers have.
pub fn is_needed(jobs: &[Job]) -> bool {
    jobs.iter().any(|job| job.chosen.is_some())
}

/// Returns whether a database of a server, or a schema of a database, counts if it is there: the server takes it, or a job would run on it.
pub fn counts(name: &str, config: &Config, jobs: &[Job]) -> bool {
    match servers::parts(name) {
        Some((server, own)) => config.servers.get(server).is_some_and(|server| server.takes(&own)),
        None => places::parts(name).is_some() && jobs.iter().any(|job| job.would_run_on(name, config)),
    }
}

/// Returns what there was when servers and databases last said it, without asking them. A ledger that does not answer knows of none.
pub async fn remembered(ledger: &Ledger) -> Found {
    let mut found = Found::default();
    let rows = ledger.remembered_anywhere().await.unwrap_or_else(|error| {
        tracing::debug!("the ledger does not say which databases servers had: {error:#}");
        Vec::new()
    });
    for (name, full) in rows {
        let asked = Asked::in_ledger(&name);
        if let Some(own) = asked.own_name(&full) {
            found.lists.entry(asked).or_default().push(own);
        }
    }
    found
}

/// Returns the databases and schemas that went in the last 30 days, of those that count.
pub async fn gone(config: &Config, jobs: &[Job], ledger: &Ledger) -> Result<Vec<Gone>> {
    if config.servers.is_empty() && !is_needed(jobs) {
        return Ok(Vec::new());
    }
    let mut gone = ledger.gone_databases().await?;
    gone.retain(|gone| counts(&gone.database, config, jobs));
    Ok(gone)
}

/// Returns the databases and schemas, of those that count, that there were when their servers and databases were last asked, and on which no job could run.
pub async fn left_out(config: &Config, jobs: &[Job], ledger: &Ledger) -> Result<Vec<LeftOut>> {
    if config.servers.is_empty() && !is_needed(jobs) {
        return Ok(Vec::new());
    }
    let mut left_out = ledger.left_out_databases().await?;
    left_out.retain(|left_out| counts(&left_out.database, config, jobs) && !has_entry(config, &left_out.database));
    Ok(left_out)
}

/// Returns whether a database of a server has an entry of its own, which counts for its jobs.
pub fn has_entry(config: &Config, database: &str) -> bool {
    without_entries(config, vec![database.to_owned()]).is_empty()
}

/// Returns those of these databases of servers that have no entry of their own.
pub fn without_entries(config: &Config, mut names: Vec<String>) -> Vec<String> {
    let entries = entries(config);
    let place = |name: &str| {
        let (server, own) = servers::parts(name)?;
        Some((config.servers.get(server)?.login.settings().ok()?.server(), own))
    };
    names.retain(|name| !place(name).is_some_and(|place| entries.contains_key(&place)));
    names
}

impl Found {
    /// Adds what a server or a database had.
    pub fn add(&mut self, asked: Asked, names: Vec<String>) {
        self.lists.insert(asked, names);
    }

    /// Adds what a server or a database says that it has.
    pub fn add_listed(&mut self, asked: Asked, listed: Listed) {
        self.left_out.insert(asked.clone(), listed.left_out);
        self.lists.insert(asked, listed.names);
    }

    /// Returns whether it said the same before.
    fn has_said(&self, asked: &Asked, listed: &Listed) -> bool {
        self.lists.get(asked) == Some(&listed.names) && self.left_out.get(asked) == Some(&listed.left_out)
    }

    /// Returns how many databases were asked for their schemas.
    pub fn databases_asked(&self) -> usize {
        self.lists.keys().filter(|asked| matches!(asked, Asked::Database(_))).count()
    }

    /// Returns the databases whose schemas jobs have runs for. Pure.
    pub fn with_schemas(&self, jobs: &[Job], config: &Config) -> BTreeSet<String> {
        let chosen: Vec<&Chosen> =
            jobs.iter().filter_map(|job| job.chosen.as_ref()).filter(|chosen| chosen.has_schemas()).collect();
        let candidates = if chosen.is_empty() { Vec::new() } else { self.candidates(config) };
        chosen.into_iter().flat_map(|chosen| chosen.of(&candidates)).collect()
    }

    fn schemas_of(&self, database: &str) -> &[String] {
        self.lists.get(&Asked::Database(database.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Returns the jobs with the databases, or their schemas, that the patterns stand for now. Pure.
    pub fn given_to(&self, jobs: &[Job], config: &Config) -> Vec<Job> {
        let candidates = if is_needed(jobs) { self.candidates(config) } else { Vec::new() };
        jobs.iter().map(|job| self.given(job, &candidates)).collect()
    }

    /// Returns `(found, entry)` for each found database that has an entry of its own, which counts for its jobs.
    pub fn with_entries(&self, config: &Config) -> Vec<(String, String)> {
        let entries = entries(config);
        let taken = self.taken(config).filter_map(|(server, place, own)| {
            let entry = entries.get(&(place, own.to_owned()))?;
            Some((servers::name_of(server, own), entry.clone()))
        });
        taken.collect()
    }

    fn given(&self, job: &Job, candidates: &[Candidate]) -> Job {
        let databases = match &job.chosen {
            None => job.databases.clone(),
            Some(chosen) => chosen.places(chosen.of(candidates), |database| self.schemas_of(database)),
        };
        Job { databases, ..job.clone() }
    }

    /// Returns the names of all databases of servers that count.
    pub fn databases<'f>(&'f self, config: &'f Config) -> impl Iterator<Item = String> + 'f {
        self.taken(config).map(|(server, _, own)| servers::name_of(server, own))
    }

    /// Returns the names of all databases and schemas that count.
    pub fn names(&self, config: &Config) -> Vec<String> {
        let schemas = self.lists.iter().filter_map(|(asked, schemas)| match asked {
            Asked::Database(database) if config.database(database).is_some() => Some((database, schemas)),
            _ => None,
        });
        let schemas = schemas.flat_map(|(database, schemas)| schemas.iter().map(move |own| places::name_of(database, own)));
        self.databases(config).chain(schemas).collect()
    }

    /// Returns how many of what it has count, if it ever said that.
    pub fn had(&self, asked: &Asked, config: &Config) -> Option<usize> {
        let names = self.lists.get(asked)?;
        // Not all that it had: some are left out by `databases`, `include` and `exclude`.
        Some(match asked {
            Asked::Server(server) => self.count(server, config),
            Asked::Database(_) => names.len(),
        })
    }

    /// Returns how many databases of a server count.
    pub fn count(&self, server: &str, config: &Config) -> usize {
        self.taken(config).filter(|(name, ..)| *name == server).count()
    }

    /// Returns the server, where it is, and the own name of each database that counts.
    fn taken<'f>(&'f self, config: &'f Config) -> impl Iterator<Item = (&'f str, String, &'f str)> {
        let known = self.lists.iter().filter_map(|(asked, databases)| match asked {
            Asked::Server(name) => Some((name, config.servers.get(name)?, databases)),
            Asked::Database(_) => None,
        });
        known.flat_map(|(name, server, databases)| {
            let place = server.login.settings().map(|settings| settings.server()).unwrap_or_default();
            let taken = databases.iter().filter(move |own| server.takes(own));
            taken.map(move |own| (name.as_str(), place.clone(), own.as_str()))
        })
    }

    /// Every database once: by its entry, where it has one.
    fn candidates(&self, config: &Config) -> Vec<Candidate> {
        let entries = entries(config);
        let of_servers = self
            .taken(config)
            .filter(|(_, place, own)| !entries.contains_key(&(place.clone(), (*own).to_owned())))
            .map(|(server, _, own)| Candidate::found(server, own));
        config.entries().into_iter().chain(of_servers).collect()
    }
}

/// The entries of the configuration, by server and own name.
fn entries(config: &Config) -> HashMap<(String, String), String> {
    let place = |(name, database): (&String, &crate::config::Database)| {
        let settings = database.settings().ok()?;
        Some(((settings.server(), settings.database().to_owned()), name.clone()))
    };
    config.databases.iter().filter_map(place).collect()
}

impl Context {
    /// Returns the same with jobs that have what was found.
    pub fn with_found(&self, found: &Found) -> Self {
        let jobs = found.given_to(&self.jobs, &self.config);
        Self { others: Arc::new(jobs.iter().map(Job::in_short).collect()), jobs: Arc::new(jobs), ..self.clone() }
    }
}

#[cfg(test)]
mod tests;
