//! How old the newest backup of a database is, for metrics, audits and alarms.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};

use super::facts::ServerFacts;
use super::identity::Identity;
use super::series::Series;
use super::verdict::Bytes;
use super::{facts, set};
use crate::config::Config;
use crate::store::{Store, key};
use crate::work::{Does, Other};

/// The time of the newest intact set of `database`, among all backup jobs for it. A set with filters is not a backup of the database, and a
/// set of another server under the same names does not count; a store or a server that cannot be read is an error, neither "no backup" nor
/// a backup.
pub async fn newest_verified(config: &Config, others: &[Other], database: &str) -> Result<Option<DateTime<Utc>>> {
    let mut newest = None;
    let mut own: Option<Option<Identity>> = None;
    let now = Utc::now();
    for job in others.iter().filter(|job| job.runs_on(database)) {
        let Does::Backup { store } = &job.does else { continue };
        let own = match &own {
            Some(own) => own,
            None => own.insert(identity_of(config, database).await?),
        };
        let store = Store::named(config, store).await?;
        let listing = set::list(&store, &key::folder(database, &job.name)).await?;
        if let Some(doubt) = listing.doubt() {
            anyhow::bail!(doubt);
        }
        let (series, _) = Series::read(&store, database, &job.name).await?;
        let verified = listing
            .sets
            .iter()
            .filter(|set| set.verification.verdict() == Bytes::Intact && set.manifest.filters.are_none())
            .filter(|set| !set.is_from_the_future(now) && series.unites(own.as_ref(), set));
        newest = newest.max(verified.map(|set| set.name.taken_at).max());
    }
    Ok(newest)
}

/// The identity of a configured database; None where its role may not read the system identifier.
pub async fn identity_of(config: &Config, database: &str) -> Result<Option<Identity>> {
    Ok(Identity::of(&server_of(config, database).await?))
}

/// The facts about the server of a configured database, with its clock.
pub(super) async fn server_of(config: &Config, database: &str) -> Result<ServerFacts> {
    let configured = config.databases.get(database).with_context(|| format!("the configuration has no database `{database}`"))?;
    let settings = configured.settings().with_context(|| format!("database `{database}`"))?;
    let mut connection = settings.connect().await.with_context(|| format!("database `{database}`"))?;
    facts::server(&mut connection, &settings).await
}
