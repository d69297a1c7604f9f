//! The databases that servers have and that have no entry of their own: each is judged as one with an entry is, by the sets in the stores of its jobs. A server is asked
//! once for all of its databases, and of each only the newest sets are read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use futures_util::future::join_all;

use super::database::OfDatabase;
use super::fleets::{self, Fleet};
use super::history::{OfFleets, one_by_one};
use super::say::Unread;
use super::stores::{self, Opened, in_time};
use crate::base::units;
use crate::config::{Config, servers};
use crate::ledger::{Ledger, LeftOut};
use crate::pg::failure;
use crate::run::covered::is_backed_up_by;
use crate::run::fleet;
use crate::run::job::Job;
use crate::task::backup::gate::NotAsked;
use crate::task::backup::whose::{OfServer, Theirs};

/// So long stores are asked for all databases together: of 10,000, a store answers for some hundreds a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many databases are asked about at once.
const AT_ONCE: usize = 32;

/// Of each job on a database, so many sets are read; where none of them counts, all are.
const NEWEST: usize = 2;

/// So many databases without a backup job are asked whether they have anything of their own.
const ASKED_FOR_TABLES: usize = 64;

/// How the databases of servers stand.
#[derive(Debug, Default)]
pub struct OfServers {
    pub fleets: Vec<Fleet>,
    /// Those with something of their own that no job backs up.
    pub uncovered: Vec<String>,
    /// Those on which no job can run.
    pub left_out: Vec<LeftOut>,
    /// Servers that do not answer, and the ledger.
    pub unread: Vec<Unread>,
    /// Stores that were not read for one of them, each with the reason.
    pub unread_stores: BTreeMap<String, String>,
}

/// Judges all databases of servers. `answers`: of the servers; `before`: what they had and left out, by the ledger.
pub async fn of_servers(
    (config, jobs): (&Config, &[Job]),
    stores: &Opened,
    answers: HashMap<String, Result<OfServer, String>>,
    before: (fleet::Found, Vec<LeftOut>),
    (ledger, now): (Option<&Ledger>, DateTime<Utc>),
) -> OfServers {
    let servers = Servers::of(config, answers, before, now);
    let counted = of_fleets(config, jobs, &servers);
    let (judged, of_ledger) =
        tokio::join!(judge(config, jobs, stores, &servers), in_time("the ledger", OfFleets::read(ledger, &counted, now)),);
    // Of jobs that back up nothing, only the ledger knows how they stand.
    let is_asked = of_ledger.is_ok();
    let mut unread = servers.unread(config);
    let OfFleets { known, proved } = of_ledger.unwrap_or_else(|error| {
        unread.push(Unread { what: "ledger".to_owned(), why: failure::in_a_line(&error) });
        OfFleets::default()
    });
    let Judged { mut databases, uncovered, unread: unread_stores } = judged;
    for database in databases.values_mut() {
        stores::lose(database, &jobs_on(config, jobs, &database.name), &proved);
    }
    let mut fleets = fleets::count(&counted, &known, Some(&databases), now);
    if !is_asked {
        fleets.retain(|fleet| fleet.is_backup);
    }
    OfServers { fleets, uncovered, left_out: servers.left_out, unread, unread_stores }
}

/// What servers say now, and what they said before where they do not answer.
struct Servers {
    found: fleet::Found,
    left_out: Vec<LeftOut>,
    answers: HashMap<String, Result<OfServer, String>>,
}

/// Asks all servers, each for some seconds.
pub async fn asked(config: &Config) -> HashMap<String, Result<OfServer, String>> {
    let asking = config.servers.iter().map(|(name, server)| async move {
        let answer = in_time("it", async { OfServer::ask(&server.login.settings()?).await }).await;
        (name.clone(), answer.map_err(|error| failure::in_a_line(&error)))
    });
    join_all(asking).await.into_iter().collect()
}

impl Servers {
    /// Pure. `found` and `before`: what the ledger has as found and as left out.
    fn of(
        config: &Config,
        answers: HashMap<String, Result<OfServer, String>>,
        (mut found, before): (fleet::Found, Vec<LeftOut>),
        now: DateTime<Utc>,
    ) -> Self {
        let answered = |server: &str| answers.get(server).and_then(|answer| answer.as_ref().ok());
        let (mut left_out, mut since) = (Vec::new(), HashMap::new());
        for of_ledger in before {
            match servers::parts(&of_ledger.database) {
                Some((server, _)) if answered(server).is_none() => left_out.push(of_ledger),
                _ => drop(since.insert(of_ledger.database, of_ledger.since)),
            }
        }
        for (name, server) in &config.servers {
            let Some(OfServer { listed, .. }) = answered(name) else { continue };
            found.add(name, listed.names.clone());
            for (own, why) in listed.left_out.iter().filter(|(own, _)| server.takes(own)) {
                let database = servers::name_of(name, own);
                let since = since.get(&database).copied().unwrap_or(now);
                left_out.push(LeftOut { database, why: (*why).to_owned(), since });
            }
        }
        left_out.retain(|left_out| !fleet::has_entry(config, &left_out.database));
        left_out.sort_by(|a, b| a.database.cmp(&b.database));
        Self { found, left_out, answers }
    }

    fn unread(&self, config: &Config) -> Vec<Unread> {
        let silent = self.answers.iter().filter_map(|(server, answer)| Some((server, answer.as_ref().err()?)));
        let mut unread: Vec<Unread> = silent
            .map(|(server, why)| {
                let had = units::plural(self.found.count(server, config), "database");
                Unread {
                    what: format!("server {server}"),
                    why: format!("server `{server}` does not answer, so the {had} that it had count: {why}"),
                }
            })
            .collect();
        unread.sort_by(|a, b| a.what.cmp(&b.what));
        unread
    }

    fn theirs(&self, name: &str) -> Result<Theirs, String> {
        let Some((server, own)) = servers::parts(name) else { return Err("no server has it".to_owned()) };
        match self.answers.get(server) {
            Some(Ok(of_server)) => Ok(Theirs::of_found(of_server, &own)),
            Some(Err(why)) => Err(why.clone()),
            None => Err("its server was not asked".to_owned()),
        }
    }
}

/// The databases that were found, judged.
#[derive(Debug, Default)]
struct Judged {
    /// Those that a job backs up, and of which all could be asked in time.
    databases: HashMap<String, OfDatabase>,
    uncovered: Vec<String>,
    unread: BTreeMap<String, String>,
}

/// Judges all databases that count, but those that jobs name: they are judged each by itself. `jobs`: as written, without what was found.
async fn judge(config: &Config, jobs: &[Job], stores: &Opened, servers: &Servers) -> Judged {
    let entries = servers.found.with_entries(config).into_iter().map(|(name, _)| name);
    let named = jobs.iter().filter(|job| job.chosen.is_none()).flat_map(|job| job.databases.iter().cloned());
    let others: HashSet<String> = entries.chain(named).collect();
    let names = servers.found.names(config).into_iter().filter(|name| !others.contains(name));
    let (mut covered, mut without) = (Vec::new(), Vec::new());
    for name in names {
        let on_it = jobs_on(config, jobs, &name);
        match on_it.iter().any(|job| is_backed_up_by(job, &name)) {
            true => covered.push((name, on_it)),
            false => without.push(name),
        }
    }
    let mut judged = Judged { uncovered: uncovered(config, without).await, ..Judged::default() };
    let asking = covered.into_iter().map(|(name, jobs)| of_found(jobs, stores, servers, name));
    let in_time = futures_util::stream::iter(asking).buffer_unordered(AT_ONCE).take_until(tokio::time::sleep(PATIENCE));
    let mut in_time = std::pin::pin!(in_time);
    while let Some((database, not_read)) = in_time.next().await {
        for NotAsked { store, reason } in not_read {
            judged.unread.entry(store).or_insert(reason);
        }
        judged.databases.insert(database.name.clone(), database);
    }
    judged
}

/// The jobs that run on a found database, each with that alone: patterns of thousands of databases are not searched for each of them.
fn jobs_on(config: &Config, jobs: &[Job], name: &str) -> Vec<Job> {
    let on_it = jobs.iter().filter(|job| job.would_run_on(name, config));
    on_it.map(|job| Job { databases: vec![name.to_owned()], ..job.clone() }).collect()
}

async fn of_found(jobs: Vec<Job>, stores: &Opened, servers: &Servers, name: String) -> (OfDatabase, Vec<NotAsked>) {
    let jobs = &jobs[..];
    let of_its_jobs = stores::stores_of_its_jobs(jobs, &name);
    let of_it: Opened = stores.iter().filter(|(store, _)| of_its_jobs.contains(store)).cloned().collect();
    let database = stores::unasked(jobs, &name);
    let (found, not_read) = stores::judged(jobs, &of_it, &database, servers.theirs(&name), NEWEST).await;
    if matches!(found.backup, Ok(None)) {
        return stores::judged(jobs, &of_it, &database, servers.theirs(&name), usize::MAX).await;
    }
    (found, not_read)
}

/// Those of them that have something of their own, or could not be asked.
async fn uncovered(config: &Config, names: Vec<String>) -> Vec<String> {
    let asking = names.into_iter().enumerate().map(|(number, name)| async move {
        let is_empty = number < ASKED_FOR_TABLES && in_time("it", stores::is_empty(config, &name)).await.unwrap_or_default();
        (!is_empty).then_some(name)
    });
    futures_util::stream::iter(asking).buffered(AT_ONCE / 2).filter_map(std::future::ready).collect().await
}

/// A job with the databases that its file names and those with entries of their own, without those that were found.
pub fn as_written(config: &Config, job: &Job) -> Job {
    let Some(chosen) = &job.chosen else { return job.clone() };
    let mut written = job.clone();
    written.databases.retain(|name| config.databases.contains_key(name) || chosen.named.contains(name));
    written
}

/// The jobs with patterns, each with those of its databases that are counted: one with entries alone is shown with them.
fn of_fleets(config: &Config, jobs: &[Job], servers: &Servers) -> Vec<Job> {
    let mut counted = servers.found.given_to(jobs, config);
    counted.retain(|job| job.chosen.is_some());
    for job in &mut counted {
        job.databases.retain(|name| !config.databases.contains_key(name));
    }
    counted.retain(|job| {
        !job.databases.is_empty()
            || !jobs.iter().any(|other| other.name == job.name && one_by_one(config, other).next().is_some())
    });
    counted
}
