//! How old the newest backup of a database is, for metrics, audits and alarms.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use super::copies::several::ensure_answers;
use super::copies::together::Together;
use super::facts::ServerFacts;
use super::series::{Belongs, Series};
use super::set::{Listing, Set};
use super::verdict::Bytes;
use super::{facts, set};
use crate::config::Config;
use crate::store::{Store, key};
use crate::work::{Does, Other};

/// The newest intact sets of a database, by the jobs that back it up.
#[derive(Debug, Default)]
pub struct Newest {
    pub jobs: Vec<OfJob>,
}

#[derive(Debug)]
pub struct OfJob {
    pub job: String,
    /// Its stores, the nearest first: the time of the newest intact set in each, or why it could not be read.
    pub stores: Vec<(String, Result<Option<DateTime<Utc>>>)>,
}

impl Newest {
    /// The newest of all: one good copy is a backup.
    pub fn anywhere(&self) -> Option<DateTime<Utc>> {
        self.stores().filter_map(|(_, newest)| *newest.as_ref().ok()?).max()
    }

    /// Fails if a store could not be read: it may have a newer set than the others.
    pub fn ensure_all_read(self) -> Result<()> {
        for (store, newest) in self.jobs.into_iter().flat_map(|job| job.stores) {
            newest.with_context(|| format!("store `{store}`"))?;
        }
        Ok(())
    }

    /// The stores that could not be read, each with the reason.
    pub fn unread(&self) -> impl Iterator<Item = (&str, &anyhow::Error)> {
        self.stores().filter_map(|(store, newest)| Some((store.as_str(), newest.as_ref().err()?)))
    }

    fn stores(&self) -> impl Iterator<Item = &(String, Result<Option<DateTime<Utc>>>)> {
        self.jobs.iter().flat_map(|job| &job.stores)
    }
}

/// Finds the newest intact sets of `database`, of all backup jobs for it, in each of their stores. A set with filters is not a backup of the
/// database, and a set of another server under the same names does not count. A server that cannot be read is an error.
pub async fn newest_verified(config: &Config, others: &[Other], database: &str) -> Result<Newest> {
    let mut newest = Newest::default();
    let mut server: Option<ServerFacts> = None;
    for job in others.iter().filter(|job| job.runs_on(database)) {
        let Does::Backup { stores } = &job.does else { continue };
        let server = match &server {
            Some(server) => server,
            None => server.insert(server_of(config, database).await?),
        };
        let are_several = stores.len() > 1;
        let mut reading = Vec::new();
        for store in stores {
            reading.push(async move { (store.clone(), read(config, store, are_several, (database, &job.name)).await) });
        }
        let read = join_all(reading).await;
        let together = Together::of(read.iter().filter_map(|(store, read)| Some((store.as_str(), &read.as_ref().ok()?.0))));
        let now = Utc::now();
        let counts: Vec<_> = read.iter().map(|(_, read)| newest_in(read.as_ref().ok()?, &together, server, now)).collect();
        let stores = read.into_iter().zip(counts).map(|((store, read), newest)| (store, read.map(|_| newest))).collect();
        newest.jobs.push(OfJob { job: job.name.clone(), stores });
    }
    Ok(newest)
}

async fn read(config: &Config, store: &str, are_several: bool, (database, job): (&str, &str)) -> Result<(Listing, Series)> {
    let store = Store::named(config, store).await?;
    if are_several {
        ensure_answers(&store).await?;
    }
    let listing = set::list(&store, &key::folder(database, job)).await?;
    if let Some(doubt) = listing.doubt() {
        anyhow::bail!(doubt);
    }
    let (series, _) = Series::read(&store, database, job).await?;
    Ok((listing, series))
}

/// The time of the newest set that counts. Pure.
fn newest_in(
    (listing, series): &(Listing, Series),
    together: &Together<'_>,
    server: &ServerFacts,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let is_theirs = |set: &Set| matches!(series.belongs(server, set), Belongs::Surely | Belongs::ByName { .. });
    let verified = listing
        .sets
        .iter()
        .filter(|set| set.verification.verdict() == Bytes::Intact && set.manifest.filters.are_none())
        .filter(|set| set.listed.globals_problem.is_none() && together.refused_for_its_data(set, now).is_none())
        .filter(|set| !set.is_from_the_future(now) && together.written_before_it_began(set).is_none() && is_theirs(set));
    verified.map(|set| set.name.taken_at).max()
}

/// The facts about a configured database for which sets are accepted. If it is one schema, that must be there.
pub async fn to_accept_for(config: &Config, database: &str) -> Result<ServerFacts> {
    let server = server_of(config, database).await?;
    facts::ensure_there(&server, config.place(database).as_ref().and_then(|place| place.schema.as_deref()))?;
    Ok(server)
}

/// The facts about the server of a configured database, with its clock.
pub(super) async fn server_of(config: &Config, database: &str) -> Result<ServerFacts> {
    let configured = config.place(database).with_context(|| format!("the configuration has no database `{database}`"))?;
    let settings = configured.settings().with_context(|| format!("database `{database}`"))?;
    let mut connection = settings.connect().await.with_context(|| format!("database `{database}`"))?;
    facts::place(&mut connection, &settings, configured.schema.as_deref()).await
}
