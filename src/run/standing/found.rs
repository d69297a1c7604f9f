//! The databases that servers have and that have no entry of their own, and schemas that are tenants: each is judged as a database with an entry is, by the sets in the
//! stores of its jobs. A server is asked once for all of its databases, a database once for its schemas, and of each only the newest sets are read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use futures_util::future::join_all;

use super::database::OfDatabase;
use super::fleets::{self, Fleet};
use super::history::{OfFleets, one_by_one};
use super::say::Unread;
use super::stores::{self, Opened, Sought, in_time};
use crate::base::units;
use crate::config::{Config, places, servers};
use crate::ledger::{Ledger, LeftOut};
use crate::pg::databases::Listed;
use crate::pg::failure;
use crate::run::covered::{backed_up_by_schemas, is_backed_up_by};
use crate::run::fleet;
use crate::run::fleet::asked::Asked;
use crate::run::job::Job;
use crate::task::backup::gate::NotAsked;
use crate::task::backup::manifest::Filters;
use crate::task::backup::whose::{OfServer, Theirs, Whose};

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
    /// Databases, also such with entries, whose schemas jobs back up one by one.
    pub by_schemas: BTreeSet<String>,
    /// Those on which no job can run.
    pub left_out: Vec<LeftOut>,
    /// Servers that do not answer, and the ledger.
    pub unread: Vec<Unread>,
    /// Stores that were not read for one of them, each with the reason.
    pub unread_stores: BTreeMap<String, String>,
}

/// Judges all databases of servers, and all schemas that have jobs. `jobs`: as written, without what was found. `answers`: of the servers; `before`: what they had
/// and left out, by the ledger.
pub async fn of_servers(
    (config, jobs): (&Config, &[Job]),
    stores: &Opened,
    answers: HashMap<String, Result<OfServer, String>>,
    before: (fleet::Found, Vec<LeftOut>),
    (ledger, now): (Option<&Ledger>, DateTime<Utc>),
) -> OfServers {
    let mut servers = Servers::of(config, answers, before, now);
    servers.ask_for_schemas(config, jobs, now).await;
    let jobs = &servers.found.given_to(jobs, config)[..];
    let counted = of_fleets(config, jobs);
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
    databases.values_mut().for_each(|database| stores::lose(database, jobs, &proved));
    let mut fleets = fleets::count(&counted, &known, Some(&databases), now);
    if !is_asked {
        fleets.retain(|fleet| fleet.is_backup);
    }
    let by_schemas = backed_up_by_schemas(jobs, config).into_iter().map(str::to_owned).collect();
    OfServers { fleets, uncovered, by_schemas, left_out: servers.left_out, unread, unread_stores }
}

/// What servers and databases say now, and what they said before where they do not answer.
struct Servers {
    found: fleet::Found,
    left_out: Vec<LeftOut>,
    answers: HashMap<String, Result<OfServer, String>>,
    /// Of databases with entries that were asked for their schemas: whose sets are theirs.
    theirs: HashMap<String, Result<Theirs, String>>,
    /// The databases that do not say which schemas they have, each with the reason.
    silent: BTreeMap<String, String>,
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
                Some((server, _)) if answered(server).is_some() => drop(since.insert(of_ledger.database, of_ledger.since)),
                _ => left_out.push(of_ledger),
            }
        }
        for (name, server) in &config.servers {
            let Some(OfServer { listed, .. }) = answered(name) else { continue };
            found.add(Asked::Server(name.clone()), listed.names.clone());
            for (own, why) in listed.left_out.iter().filter(|(own, _)| server.takes(own)) {
                let database = servers::name_of(name, own);
                let since = since.get(&database).copied().unwrap_or(now);
                left_out.push(LeftOut { database, why: (*why).to_owned(), since });
            }
        }
        left_out.retain(|left_out| !fleet::has_entry(config, &left_out.database));
        left_out.sort_by(|a, b| a.database.cmp(&b.database));
        Self { found, left_out, answers, theirs: HashMap::new(), silent: BTreeMap::new() }
    }

    /// Asks the databases whose schemas have jobs for these. One that does not answer, or whose server does not, keeps those that it had.
    async fn ask_for_schemas(&mut self, config: &Config, jobs: &[Job], now: DateTime<Utc>) {
        let databases = self.found.with_schemas(jobs, config);
        let is_of_entry = |name: &str| config.databases.contains_key(name);
        let is_away = |name: &str| {
            let server = servers::parts(name).filter(|_| !is_of_entry(name)).and_then(|(server, _)| self.answers.get(server));
            matches!(server, Some(Err(_)))
        };
        let asking = databases.into_iter().filter(|name| !is_away(name)).map(|name| async move {
            let asked = Asked::Database(name.clone());
            let listing = in_time("it", asked.ask(config));
            let whose = Whose::Own { by_name: false };
            let theirs = async {
                if !is_of_entry(&name) {
                    return None;
                }
                Some(in_time("the database", Theirs::of(config, &name, &whose)).await.map_err(|error| failure::in_a_line(&error)))
            };
            let (listed, theirs) = tokio::join!(listing, theirs);
            (name, listed.map_err(|error| failure::in_a_line(&error)), theirs)
        });
        let answers: Vec<_> = futures_util::stream::iter(asking).buffered(AT_ONCE).collect().await;
        for (name, listed, theirs) in answers {
            self.theirs.extend(theirs.map(|theirs| (name.clone(), theirs)));
            match listed {
                Ok(listed) => self.take_schemas(config, jobs, name, listed, now),
                Err(why) => drop(self.silent.insert(name, why)),
            }
        }
        self.left_out.sort_by(|a, b| a.database.cmp(&b.database));
    }

    fn take_schemas(&mut self, config: &Config, jobs: &[Job], database: String, listed: Listed, now: DateTime<Utc>) {
        let is_of_it = |left_out: &LeftOut| places::parts(&left_out.database).is_some_and(|(of, _)| of == database);
        let (of_it, mut others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.left_out).into_iter().partition(is_of_it);
        let since: HashMap<String, DateTime<Utc>> = of_it.into_iter().map(|before| (before.database, before.since)).collect();
        let left_out = listed.left_out.iter().map(|(own, why)| {
            let name = places::name_of(&database, own);
            LeftOut { since: since.get(&name).copied().unwrap_or(now), database: name, why: (*why).to_owned() }
        });
        others.extend(left_out.filter(|left_out| fleet::counts(&left_out.database, config, jobs)));
        self.left_out = others;
        self.found.add_listed(Asked::Database(database), listed);
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
        unread.extend(self.silent.iter().map(|(database, why)| Unread {
            what: format!("database {database}"),
            why: format!("database `{database}` does not say which schemas it has, so those that it had count: {why}"),
        }));
        unread.sort_by(|a, b| a.what.cmp(&b.what));
        unread
    }

    /// Whose sets are those of a place: of the same database, whatever it is of it.
    fn theirs(&self, config: &Config, place: &str) -> Result<Theirs, String> {
        let name = config.database_of(place);
        if let Some(theirs) = self.theirs.get(name) {
            return theirs.clone();
        }
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

/// Judges all databases that count, but those that jobs name: they are judged each by itself; and all schemas that have jobs. `jobs`: with what was found.
async fn judge(config: &Config, jobs: &[Job], stores: &Opened, servers: &Servers) -> Judged {
    let entries = servers.found.with_entries(config).into_iter().map(|(name, _)| name);
    let named = jobs.iter().filter(|job| job.chosen.is_none()).flat_map(|job| job.databases.iter().cloned());
    let others: HashSet<String> = entries.chain(named).collect();
    let names = servers.found.databases(config).filter(|name| !others.contains(name));
    let is_covered = |name: &String| jobs.iter().any(|job| is_backed_up_by(job, name));
    let (covered, without): (Vec<String>, Vec<String>) = names.partition(is_covered);
    let schemas = jobs.iter().filter(|job| job.has_schemas()).flat_map(|job| &job.databases).filter(|place| is_covered(place));
    let covered: BTreeSet<String> = covered.into_iter().chain(schemas.cloned()).collect();
    let mut judged = Judged { uncovered: uncovered(config, without).await, ..Judged::default() };
    let asking = covered.into_iter().map(|name| of_found(config, jobs, stores, servers, name));
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

async fn of_found(
    config: &Config,
    jobs: &[Job],
    stores: &Opened,
    servers: &Servers,
    name: String,
) -> (OfDatabase, Vec<NotAsked>) {
    let of_its_jobs = stores::stores_of_its_jobs(jobs, &name);
    let of_it: Opened = stores.iter().filter(|(store, _)| of_its_jobs.contains(store)).cloned().collect();
    let database = stores::unasked(jobs, &name);
    let schema = config.place(&name).and_then(|place| place.schema.clone());
    let filters = schema.map_or_else(Filters::default, |schema| Filters::of_schema(&schema));
    let newest = |sets_of_a_job| Sought { theirs: servers.theirs(config, &name), filters: filters.clone(), sets_of_a_job };
    let (found, not_read) = stores::judged(jobs, &of_it, &database, newest(NEWEST)).await;
    if matches!(found.backup, Ok(None)) {
        return stores::judged(jobs, &of_it, &database, newest(usize::MAX)).await;
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

/// The jobs with patterns, each with those of its databases that are counted: one with entries alone is shown with them. `jobs`: with what was found.
fn of_fleets(config: &Config, jobs: &[Job]) -> Vec<Job> {
    let mut counted: Vec<Job> = jobs.iter().filter(|job| job.chosen.is_some()).cloned().collect();
    for job in &mut counted {
        job.databases.retain(|name| !config.databases.contains_key(name));
    }
    counted.retain(|job| {
        !job.databases.is_empty()
            || !jobs.iter().any(|other| other.name == job.name && one_by_one(config, other).next().is_some())
    });
    counted
}
