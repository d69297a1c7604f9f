//! The databases that servers have and that have no entry of their own, and schemas that are tenants: each is judged as a database with an entry is, by the sets in the
//! stores of its jobs. A server is asked once for all of its databases, a database once for its schemas, and of each only the newest sets are read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::database::OfDatabase;
use super::fleets::{self, Fleet};
use super::history::{OfFleets, one_by_one};
use super::judge::{Judged, judge};
use super::say::Unread;
use super::servers::Servers;
pub use super::servers::asked;
use super::stores::{self, Opened, in_time};
use crate::config::Config;
use crate::ledger::{Ledger, LeftOut};
use crate::pg::failure;
use crate::run::covered::backed_up_by_schemas;
use crate::run::fleet;
use crate::run::job::Job;
use crate::task::backup::whose::OfServer;

/// So long a person waits for what stores say of all databases together.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How the databases of servers stand.
#[derive(Debug, Default)]
pub struct OfServers {
    /// When they were asked.
    pub at: DateTime<Utc>,
    pub fleets: Vec<Fleet>,
    /// Those that a job backs up, and of which all could be asked in time.
    pub databases: HashMap<String, OfDatabase>,
    /// Those with something of their own that no job backs up.
    pub uncovered: Vec<String>,
    /// How many a person left out by `databases`, `include` or `exclude`.
    pub excluded: usize,
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
/// and left out, by the ledger. `patience`: so long stores are asked; of the databases that are left then, the ledger alone says something.
pub async fn of_servers(
    (config, jobs): (&Config, &[Job]),
    stores: &Opened,
    answers: HashMap<String, Result<OfServer, String>>,
    before: (fleet::Found, Vec<LeftOut>),
    (ledger, now): (Option<&Ledger>, DateTime<Utc>),
    patience: Duration,
) -> OfServers {
    let mut servers = Servers::of(config, answers, before, now);
    servers.ask_for_schemas(config, jobs, now).await;
    let jobs = &servers.found.given_to(jobs, config)[..];
    let counted = of_fleets(config, jobs);
    // The ledger first: a set of which it knows is in a store before that is asked, or is lost.
    let of_ledger = in_time("the ledger", OfFleets::read(ledger, &counted, now)).await;
    let judged = judge(config, jobs, stores, &servers, patience).await;
    // Of jobs that back up nothing, only the ledger knows how they stand.
    let is_asked = of_ledger.is_ok();
    let mut unread = servers.unread(config);
    let OfFleets { known, proved } = of_ledger.unwrap_or_else(|error| {
        unread.push(Unread { what: "ledger".to_owned(), why: failure::in_a_line(&error) });
        OfFleets::default()
    });
    let Judged { mut databases, uncovered, excluded, unread: unread_stores } = judged;
    databases.values_mut().for_each(|database| stores::lose(database, jobs, &proved));
    let mut fleets = fleets::count(&counted, &known, Some(&databases), now);
    if !is_asked {
        fleets.retain(|fleet| fleet.is_backup);
    }
    let by_schemas = backed_up_by_schemas(jobs, config).into_iter().map(str::to_owned).collect();
    OfServers { at: now, fleets, databases, uncovered, excluded, by_schemas, left_out: servers.left_out, unread, unread_stores }
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
