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
use crate::ledger::{Gone, Ledger};

/// The databases of each server, and the schemas of each database, by their own names; without those of which nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found(BTreeMap<Asked, Vec<String>>);

/// Returns whether any job depends on what servers have.
pub fn is_needed(jobs: &[Job]) -> bool {
    jobs.iter().any(|job| job.chosen.is_some())
}

/// Returns whether what is known so counts, if it is there.
fn counts(full: &str, asked: &Asked, config: &Config, jobs: &[Job]) -> bool {
    match asked {
        Asked::Server(server) => {
            asked.own_name(full).is_some_and(|own| config.servers.get(server).is_some_and(|server| server.takes(&own)))
        }
        Asked::Database(_) => jobs.iter().any(|job| job.runs_on(full)),
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
            found.0.entry(asked).or_default().push(own);
        }
    }
    found
}

/// Returns the databases and schemas that went in the last 30 days, of those that count.
pub async fn gone(config: &Config, jobs: &[Job], ledger: &Ledger) -> Result<Vec<Gone>> {
    if config.servers.is_empty() && !is_needed(jobs) {
        return Ok(Vec::new());
    }
    let is_meant = |gone: &Gone| match (servers::parts(&gone.database), places::parts(&gone.database)) {
        (Some((server, _)), _) => counts(&gone.database, &Asked::Server(server.to_owned()), config, jobs),
        (None, Some((database, _))) => counts(&gone.database, &Asked::Database(database.to_owned()), config, jobs),
        (None, None) => false,
    };
    Ok(ledger.gone_databases().await?.into_iter().filter(is_meant).collect())
}

impl Found {
    /// Adds what a server or a database has.
    pub fn add(&mut self, asked: Asked, names: Vec<String>) {
        self.0.insert(asked, names);
    }

    /// Returns how many databases were asked for their schemas.
    pub fn databases_asked(&self) -> usize {
        self.0.keys().filter(|asked| matches!(asked, Asked::Database(_))).count()
    }

    /// Returns the databases whose schemas jobs have runs for. Pure.
    pub fn with_schemas(&self, jobs: &[Job], config: &Config) -> BTreeSet<String> {
        let chosen: Vec<&Chosen> =
            jobs.iter().filter_map(|job| job.chosen.as_ref()).filter(|chosen| chosen.has_schemas()).collect();
        let candidates = if chosen.is_empty() { Vec::new() } else { self.candidates(config) };
        chosen.into_iter().flat_map(|chosen| chosen.of(&candidates)).collect()
    }

    fn schemas_of(&self, database: &str) -> &[String] {
        self.0.get(&Asked::Database(database.to_owned())).map_or(&[], Vec::as_slice)
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
            Some(chosen) if !chosen.has_schemas() => chosen.of(candidates),
            Some(chosen) => {
                chosen.of(candidates).iter().flat_map(|database| chosen.places_on(database, self.schemas_of(database))).collect()
            }
        };
        Job { databases, ..job.clone() }
    }

    /// Returns the names of all databases and schemas that count.
    pub fn names(&self, config: &Config) -> Vec<String> {
        let databases = self.taken(config).map(|(server, _, own)| servers::name_of(server, own));
        let schemas = self.0.iter().filter_map(|(asked, schemas)| match asked {
            Asked::Database(database) if config.database(database).is_some() => Some((database, schemas)),
            _ => None,
        });
        let schemas = schemas.flat_map(|(database, schemas)| schemas.iter().map(move |own| places::name_of(database, own)));
        databases.chain(schemas).collect()
    }

    /// Returns how many databases of a server count.
    pub fn count(&self, server: &str, config: &Config) -> usize {
        self.taken(config).filter(|(name, ..)| *name == server).count()
    }

    /// Returns the server, where it is, and the own name of each database that counts.
    fn taken<'f>(&'f self, config: &'f Config) -> impl Iterator<Item = (&'f str, String, &'f str)> {
        let known = self.0.iter().filter_map(|(asked, databases)| match asked {
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
            .map(|(server, _, own)| (servers::name_of(server, own), own.to_owned()))
            .map(|(name, own)| Candidate { known_as: vec![name.clone(), own], name });
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
