//! Adds the sets of an identity to the series of the configured database.

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::Utc;

use super::taken::{Folder, Loss, Taken, Wanted, folders};
use crate::base::fault::{Fault, Kind};
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::sets as printed;
use crate::config::Config;
use crate::store::Store;
use crate::task::backup;
use crate::task::backup::facts::ServerFacts;
use crate::task::backup::identity::Identity;
use crate::task::backup::loss;
use crate::task::backup::series::{Accepted, Series};
use crate::task::backup::set::{self, Listing};

/// What will be done to a folder of a store.
struct Planned<'s> {
    store: &'s Store,
    store_name: &'s str,
    folder: Folder<'s>,
    taken: Taken<'s>,
    losses: Vec<Loss<'s>>,
    accepted: Accepted,
    /// The sets of the store.
    there: HashSet<String>,
}

/// Every store is read and every folder decided before the first is changed. What was done is printed, also where a later store then refuses.
pub async fn accept(global: &Global, wanted: &Wanted<'_>) -> Result<ExitCode> {
    let config = global.load_config()?;
    let mut stores = Vec::new();
    for (store_name, read) in wanted.filter.read_stores(&config, async |store| set::list(store, "").await).await? {
        let (store, listing) = read.with_context(|| format!("store `{store_name}`"))?;
        for unread in &listing.unseen {
            tracing::warn!("could not read the folder {}: {}", store.location(&unread.key), unread.reason);
        }
        stores.push((store_name, store, listing));
    }
    let mut planned = Vec::new();
    let mut own = Own { config: &config, known: BTreeMap::new() };
    for (store_name, store, listing) in &stores {
        planned.extend(plan((store_name, store, listing), &mut own, wanted).await?);
    }
    if planned.is_empty() {
        return Err(none_meant(wanted));
    }
    let (mut said, mut shown, mut failed) = (String::new(), Vec::new(), None);
    for planned in planned {
        if let Err(error) = planned.apply(wanted.by_name).await {
            failed = Some(error.context(format!("store `{}`", planned.store_name)));
            break;
        }
        said += &planned.in_words(wanted.by_name);
        shown.push(planned.shown(wanted.by_name));
    }
    match (global.json, shown.is_empty()) {
        (_, true) => {}
        (true, _) => print_json(&printed::Accept::Identity { series: shown })?,
        (false, _) => print(&said)?,
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The configured databases, each asked once.
struct Own<'c> {
    config: &'c Config,
    known: BTreeMap<String, (Identity, ServerFacts)>,
}

impl Own<'_> {
    async fn of(&mut self, database: &str) -> Result<(Identity, ServerFacts)> {
        if let Some(known) = self.known.get(database) {
            return Ok(known.clone());
        }
        let server = backup::to_accept_for(self.config, database).await?;
        let own = Identity::of(&server).context("its role may not read the system identifier (pg_control_system)")?;
        self.known.insert(database.to_owned(), (own.clone(), server.clone()));
        Ok((own, server))
    }
}

async fn plan<'s>(
    (store_name, store, listing): (&'s String, &'s Store, &'s Listing),
    own: &mut Own<'_>,
    wanted: &Wanted<'_>,
) -> Result<Vec<Planned<'s>>> {
    let mut planned = Vec::new();
    for folder in folders(listing, wanted)? {
        let Folder { database, job, .. } = &folder;
        let (into, server) = match (own.of(database).await, &folder.identity) {
            (Ok(own), _) => own,
            // Nothing says that this folder is meant.
            (Err(error), None) => {
                tracing::debug!("{database}/{job}: {error:#}");
                continue;
            }
            (Err(error), Some(identity)) => {
                let message =
                    format!("cannot read the identity of database `{database}`, whose series the sets of {identity} are to join");
                return Err(error.context(message));
            }
        };
        let identity = folder.identity.clone().unwrap_or_else(|| into.clone());
        if !identity.is_meant_by(wanted.identity) {
            continue;
        }
        if wanted.by_name && identity != into {
            let message = format!("--by-name is for the database's own identity, {into}, and {identity} is another one");
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        let (series, _) = Series::read(store, database, job).await.with_context(|| format!("store `{store_name}`"))?;
        let Some(taken) = folder.take(&series, (&into, &server), wanted, Utc::now()) else { continue };
        let losses = taken.losses(listing, (database, job), &series, &into, Utc::now());
        let sets = taken.own.iter().chain(&taken.theirs).map(|set| set.name.to_string()).collect();
        let accepted = Accepted { identity, into, at: Utc::now(), sets };
        let there = listing.sets.iter().map(|set| set.name.to_string()).collect();
        planned.push(Planned { store, store_name, folder, taken, losses, accepted, there });
    }
    Ok(planned)
}

fn none_meant(wanted: &Wanted<'_>) -> anyhow::Error {
    let text = wanted.identity;
    let message = match wanted.of {
        Some(set) => format!(
            "{set} is no set of `{text}` whose database is not the present one: `pgtend backups list --json` names the identities"
        ),
        None => format!("there are no sets of `{text}`: `pgtend backups list --json` names the identities"),
    };
    Fault::new(Kind::Configuration, message).into()
}

impl Planned<'_> {
    /// Holds first what may be the last set with something: from then on the rules count it.
    async fn apply(&self, by_name: bool) -> Result<()> {
        let Folder { database, job, .. } = &self.folder;
        for Loss { before, because_of, reason } in &self.losses {
            let after = because_of.name.to_string();
            let held = loss::hold(self.store, before, &after, reason, Utc::now()).await;
            held.with_context(|| format!("{} may be the last set with what {after} lacks, and cannot be held", before.name))?;
        }
        let accepted = &self.accepted;
        let changed = Series::change(self.store, database, job, |series| {
            series.accept(accepted.clone(), &self.there);
            if by_name && !series.by_name.contains(&accepted.into) {
                series.by_name.push(accepted.into.clone());
            }
        });
        changed.await.map(drop)
    }

    fn in_words(&self, by_name: bool) -> String {
        let Accepted { identity, into, .. } = &self.accepted;
        let place = format!("{}/{} in {}", self.folder.database, self.folder.job, self.store_name);
        let mut said = format!("{place}: {}\n", self.taken.in_words(identity, into));
        if by_name {
            said += &format!("{place}: all sets of {into} are one series, whatever database has that name\n");
        }
        for Loss { before, because_of, reason } in &self.losses {
            said += &format!(
                "{place}: {}, newer, lacks something: {reason}; {} is held for 30 days or until `pgtend backups accept '{}'`\n",
                because_of.name, before.name, because_of.name
            );
        }
        said
    }

    fn shown(&self, by_name: bool) -> printed::Series {
        let Accepted { identity, into, sets, .. } = &self.accepted;
        let held = |Loss { before, because_of, reason }: &Loss<'_>| printed::HeldAfterLoss {
            set: before.name.to_string(),
            because_of: because_of.name.to_string(),
            lost: reason.clone(),
        };
        printed::Series {
            database: self.folder.database.clone(),
            job: self.folder.job.clone(),
            store: self.store_name.to_owned(),
            identity: identity.to_string(),
            into: into.to_string(),
            by_name,
            sets: sets.clone(),
            left: self.taken.left.iter().flatten().map(|set| set.name.to_string()).collect(),
            held: self.losses.iter().map(held).collect(),
        }
    }
}
