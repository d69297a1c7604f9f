//! Jobs with patterns in `databases`: which databases the servers have, and which of them each job gets. Only an answer of a server changes anything: one
//! that does not answer keeps the databases that it had.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::Result;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use super::job::Job;
use super::runner::Context;
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::config::servers::{self, Candidate};
use crate::config::{Config, Server};
use crate::ledger::{Changes, Gone, Ledger};
use crate::pg::databases::{self, Listed};
use crate::pg::failure;

/// More names in one line would hide the rest of the log.
const NAMED: usize = 10;

/// The databases of each server, by their own names; without those servers of which nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found(BTreeMap<String, Vec<String>>);

/// A server that did not answer.
#[derive(Debug)]
pub struct Silent {
    pub server: String,
    pub error: anyhow::Error,
    /// When it gave the list that counts meanwhile, where that is the ledger's.
    pub listed_at: Option<DateTime<Utc>>,
}

/// Returns whether any job depends on what servers have.
pub fn is_needed(jobs: &[Job]) -> bool {
    jobs.iter().any(|job| job.chosen.is_some())
}

/// The ledger as the memory of what servers had.
#[derive(Clone, Copy)]
pub enum Memory<'l> {
    None,
    /// Lists that only show do not write: who writes a change first also tells it.
    Read(&'l Ledger),
    Write(&'l Ledger),
}

impl<'l> Memory<'l> {
    fn ledger(self) -> Option<&'l Ledger> {
        match self {
            Self::None => None,
            Self::Read(ledger) | Self::Write(ledger) => Some(ledger),
        }
    }
}

/// Asks all servers, each for a bounded time. What one does not say is what it had before: in `known`, or by the ledger.
pub async fn find(config: &Config, memory: Memory<'_>, known: &Found) -> (Found, Vec<Silent>) {
    let asked = config.servers.iter().map(|(name, server)| async move { (name, ask(server).await) });
    let (mut found, mut silent) = (Found::default(), Vec::new());
    for (server, answer) in join_all(asked).await {
        let before = known.0.get(server);
        let names = match answer {
            Ok(listed) => {
                remember(server, &listed, before, &config.servers[server], memory).await;
                Some(listed.names)
            }
            Err(error) => {
                let (had, listed_at) = match before {
                    Some(names) => (Some(names.clone()), None),
                    None => recall(server, memory).await.unzip(),
                };
                silent.push(Silent { server: server.clone(), error, listed_at });
                had
            }
        };
        if let Some(names) = names {
            found.add(server, names);
        }
    }
    (found, silent)
}

/// Finds databases for a command: warns of servers that do not answer, and gives the jobs what is known.
pub async fn found_for(config: &Config, memory: Memory<'_>, jobs: Vec<Job>) -> Vec<Job> {
    if !is_needed(&jobs) {
        return jobs;
    }
    let (found, silent) = find(config, memory, &Found::default()).await;
    for Silent { server, error, listed_at } in &silent {
        let had = match (found.0.get(server), listed_at) {
            (Some(names), Some(at)) => {
                let at = at.format("%Y-%m-%d %H:%M:%S UTC");
                format!("the {} that it had at {at} count", units::plural(names.len(), "database"))
            }
            _ => "nothing is known of its databases".to_owned(),
        };
        tracing::warn!("server `{server}` does not answer, so {had}: {}", failure::in_a_line(error));
    }
    found.given_to(&jobs, config)
}

/// Fails for a job with patterns if one of them may stand for databases of a server of which nothing is known.
pub async fn ensure_known(job: &Job, config: &Config, memory: Memory<'_>) -> Result<()> {
    let Some(chosen) = &job.chosen else { return Ok(()) };
    for (name, server) in config.servers.iter().filter(|(name, _)| chosen.may_be_of(name)) {
        if let Err(error) = ask(server).await
            && recall(name, memory).await.is_none()
        {
            return Err(error.context(Fault::new(Kind::Unreachable, format!("which databases server `{name}` has is not known"))));
        }
    }
    Ok(())
}

async fn ask(server: &Server) -> Result<Listed> {
    databases::list(&server.login.settings()?).await
}

/// Writes a new list to the ledger, and says once what it changes.
async fn remember(name: &str, listed: &Listed, before: Option<&Vec<String>>, server: &Server, memory: Memory<'_>) {
    let is_new = before != Some(&listed.names);
    let written = match memory {
        Memory::Write(ledger) if is_new => {
            let names: Vec<String> = listed.names.iter().map(|own| servers::name_of(name, own)).collect();
            ledger.remember_databases(name, &names).await.map(Some)
        }
        Memory::Write(ledger) => ledger.confirm_databases(name).await.map(|()| None),
        Memory::Read(_) | Memory::None => Ok(None),
    };
    match written {
        Ok(Some(changes)) => say(name, &changes, server, &listed.left_out),
        Ok(None) => {}
        Err(error) => tracing::warn!("the databases of server `{name}` are not in the ledger: {}", failure::in_a_line(&error)),
    }
    if is_new && before.is_none() && !listed.left_out.is_empty() {
        let left_out = listed.left_out.iter().map(|(own, why)| format!("{} ({why})", own.escape_debug()));
        tracing::info!("of server `{name}` are left out: {}", some_of(left_out.collect()));
    }
}

fn say(name: &str, changes: &Changes, server: &Server, left_out: &[(String, &'static str)]) {
    let counts = |full: &&String| servers::parts(full).is_some_and(|(_, own)| server.takes(&own));
    let appeared: Vec<String> = changes.appeared.iter().filter(counts).cloned().collect();
    let why_left_out = |full: &str| {
        let (_, own) = servers::parts(full)?;
        left_out.iter().find(|(name, _)| *name == own).map(|(_, why)| format!("{full} ({why})"))
    };
    let gone = changes.gone.iter().filter(counts).map(|full| why_left_out(full).unwrap_or_else(|| full.clone()));
    let gone: Vec<String> = gone.collect();
    if !appeared.is_empty() {
        let (count, named) = (appeared.len(), some_of(appeared));
        match changes.is_first {
            true => tracing::info!("server `{name}` has {}: {named}", units::plural(count, "database")),
            false => tracing::info!(
                "server `{name}` has {}, on which jobs run from their next ticks on: {named}",
                units::plural(count, "new database")
            ),
        }
    }
    if !gone.is_empty() {
        let count = units::plural(gone.len(), "database");
        tracing::warn!("{count} of server `{name}` went; no job runs there any more, and the sets stay: {}", some_of(gone));
    }
}

fn some_of(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let names = names.join(", ");
    if more > 0 { format!("{names}, and {more} more") } else { names }
}

/// Returns what the servers had when they last said it, without asking them.
pub async fn remembered(config: &Config, ledger: &Ledger) -> Found {
    let mut found = Found::default();
    for server in config.servers.keys() {
        if let Some((names, _)) = recall(server, Memory::Read(ledger)).await {
            found.add(server, names);
        }
    }
    found
}

/// Returns the databases that went in the last 30 days, of those that count; none without servers.
pub async fn gone(config: &Config, ledger: &Ledger) -> Result<Vec<Gone>> {
    if config.servers.is_empty() {
        return Ok(Vec::new());
    }
    let counts = |gone: &Gone| {
        let parts = servers::parts(&gone.database);
        parts.is_some_and(|(server, own)| config.servers.get(server).is_some_and(|server| server.takes(&own)))
    };
    Ok(ledger.gone_databases().await?.into_iter().filter(counts).collect())
}

/// The last list by the ledger, and when it was given. A ledger that does not answer knows none.
async fn recall(server: &str, memory: Memory<'_>) -> Option<(Vec<String>, DateTime<Utc>)> {
    let remembered = match memory.ledger()?.remembered_databases(server).await {
        Ok(remembered) => remembered?,
        Err(error) => {
            tracing::debug!("the ledger does not say which databases server `{server}` had: {error:#}");
            return None;
        }
    };
    let names = remembered.databases.iter().filter_map(|name| Some(servers::parts(name)?.1)).collect();
    Some((names, remembered.listed_at))
}

impl Found {
    /// Adds what a server has.
    pub fn add(&mut self, server: &str, names: Vec<String>) {
        self.0.insert(server.to_owned(), names);
    }

    /// Returns the jobs with the databases that their patterns stand for now. Pure.
    pub fn given_to(&self, jobs: &[Job], config: &Config) -> Vec<Job> {
        let candidates = if is_needed(jobs) { self.candidates(config) } else { Vec::new() };
        jobs.iter().map(|job| given(job, &candidates)).collect()
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

    /// Returns the names of all databases that count.
    pub fn names(&self, config: &Config) -> Vec<String> {
        self.taken(config).map(|(server, _, own)| servers::name_of(server, own)).collect()
    }

    /// Returns how many databases of a server count.
    pub fn count(&self, server: &str, config: &Config) -> usize {
        self.taken(config).filter(|(name, ..)| *name == server).count()
    }

    /// Returns the server, where it is, and the own name of each database that counts.
    fn taken<'f>(&'f self, config: &'f Config) -> impl Iterator<Item = (&'f str, String, &'f str)> {
        let known = self.0.iter().filter_map(|(name, databases)| Some((name, config.servers.get(name)?, databases)));
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

fn given(job: &Job, candidates: &[Candidate]) -> Job {
    let databases = job.chosen.as_ref().map_or_else(|| job.databases.clone(), |chosen| chosen.of(candidates));
    Job { databases, ..job.clone() }
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
