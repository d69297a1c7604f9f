//! Finds the set that a command names.

use std::collections::BTreeSet;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;

use crate::base::fault::{Fault, Kind};
pub use crate::cli::filter::Filter;
use crate::config::Config;
use crate::pg;
use crate::store::{Store, Unread, key};
use crate::task::backup::latest::{self, Choice};
use crate::task::backup::series::Series;
use crate::task::backup::set::{self, Listing, Set};
use crate::task::backup::set_name::SetName;
use crate::task::backup::verdict::Bytes;

/// The options that choose what `latest` is.
#[derive(Debug, Default, Args)]
pub struct Which {
    /// Only sets of this server, as `list --json` and messages name it: SYSTEM_IDENTIFIER/DATABASE, or the first part alone
    #[arg(long, value_name = "IDENTITY")]
    pub(super) from: Option<String>,
    /// Also consider a set that is dated in the future
    #[arg(long)]
    pub(super) any: bool,
    /// Also when newer sets are skipped because they are damaged, unreadable or partial
    #[arg(long)]
    pub(super) older_ok: bool,
    /// Also consider a set without a signature of its store's key (sign_key_file, sign_key_env): anyone who can write to the
    /// store may have made it
    #[arg(long)]
    pub(super) unsigned_ok: bool,
}

impl Which {
    pub(super) fn choice(&self) -> Choice {
        let Self { from, any, older_ok, unsigned_ok } = self;
        Choice { from: from.clone(), any: *any, older_ok: *older_ok, unsigned_ok: *unsigned_ok, to_verify: false }
    }
}

/// A set and the store that has it.
pub(super) struct Found {
    pub(super) store_name: String,
    pub(super) store: Store,
    pub(super) set: Set,
}

impl Filter {
    pub(super) fn matches(&self, name: &SetName) -> bool {
        self.has_database(&name.database) && self.has_job(&name.job)
    }
}

/// The sets that a command may mean, over all stores, and what could not be read.
#[derive(Default)]
struct Candidates {
    sets: Vec<Found>,
    /// The time of each set that cannot be restored, and why.
    unreadable: Vec<(DateTime<Utc>, String)>,
    unread_stores: Vec<(String, anyhow::Error)>,
    /// Folders that could not be read, each with the name of its store.
    unseen: Vec<(String, Unread)>,
}

impl Candidates {
    async fn read(config: &Config, wanted: &str, filter: &Filter, choice: &Choice) -> Result<Self> {
        let mut all = Self::default();
        for (store_name, store) in filter.stores(config).await? {
            match set::list(&store, "").await {
                Ok(listing) => all.add(&store_name, &store, listing, |name| is_meant(name, wanted, filter), choice),
                Err(error) => all.unread_stores.push((store_name, error)),
            }
        }
        // Nobody knows how old an adopted dump is: it is the latest only where nothing else is meant.
        let is_ours = |found: &Found| !found.set.is_adopted();
        if wanted == "latest" && filter.job.is_none() && all.sets.iter().any(is_ours) {
            all.sets.retain(is_ours);
        }
        Ok(all)
    }

    fn add(
        &mut self,
        store_name: &str,
        store: &Store,
        mut listing: Listing,
        is_meant: impl Fn(&SetName) -> bool,
        choice: &Choice,
    ) {
        if choice.unsigned_ok {
            listing.accept_unsigned();
        }
        listing.with_adopted();
        let of_store = listing.unreadable.into_iter().filter(|(name, _)| is_meant(name));
        self.unreadable.extend(of_store.map(|(name, reason)| (name.taken_at, format!("{name} cannot be restored: {reason}"))));
        let not_ours = listing.not_ours.iter().filter(|(set, _)| is_meant(&set.name));
        self.unreadable.extend(not_ours.map(|(set, signature)| {
            let said = format!("{} is not accepted: {}; --unsigned-ok accepts it", set.name, signature.in_words());
            (set.name.taken_at, said)
        }));
        self.unseen.extend(listing.unseen.into_iter().map(|unread| (store_name.to_owned(), unread)));
        for set in listing.sets.into_iter().filter(|set| is_meant(&set.name)) {
            self.sets.push(Found { store_name: store_name.to_owned(), store: store.clone(), set });
        }
    }
}

fn is_meant(name: &SetName, wanted: &str, filter: &Filter) -> bool {
    filter.matches(name)
        && (wanted == "latest"
            || wanted.parse::<SetName>().is_ok_and(|full| full == *name)
            || key::parse_time(wanted) == Some(name.taken_at))
}

/// Finds the one set that `wanted` means, and logs what should be known about it.
pub(super) async fn find(config: &Config, wanted: &str, filter: &Filter, choice: &Choice) -> Result<Found> {
    let now = Utc::now();
    let Candidates { sets: mut candidates, unreadable, unread_stores, unseen } =
        Candidates::read(config, wanted, filter, choice).await?;
    // A named set that was found is the right one, wherever else it may be; `latest` is only known once every store was read.
    if (wanted == "latest" || candidates.is_empty())
        && let Some((store_name, error)) = unread_stores.into_iter().next()
    {
        return Err(error.context(format!("store `{store_name}` cannot be read; --store NAME searches another one alone")));
    }
    one_series(&candidates, wanted)?;
    let said = |reason: String| Fault::new(Kind::Configuration, format!("no set `{wanted}`: {reason}"));
    let Some(first) = candidates.first() else {
        let of_folders = unseen.iter().map(|(store, unread)| format!("{} in {store}: {}", unread.key, unread.reason));
        let reasons: Vec<String> = unreadable.into_iter().map(|(_, said)| said).chain(of_folders).collect();
        let detail = if reasons.is_empty() { "`pgtend backups list` shows all sets".to_owned() } else { reasons.join("; ") };
        return Err(said(detail).into());
    };
    if wanted == "latest" {
        all_of_the_series_is_seen(&first.set.name, &unseen, choice)?;
    }
    let (series, trouble) = Series::read(&first.store, &first.set.name.database, &first.set.name.job).await?;
    if let Some(trouble) = trouble {
        tracing::warn!("{trouble}");
    }
    keep_one_identity(&mut candidates, &series, wanted, choice)?;
    if wanted != "latest" {
        // The same set may be in two stores.
        let chosen = candidates
            .into_iter()
            .max_by_key(|found| (found.set.verification.verdict() == Bytes::Intact, found.set.name.taken_at));
        return chosen.ok_or_else(|| said("`pgtend backups list` shows all sets".to_owned()).into());
    }
    let sets: Vec<Set> = candidates.iter().map(|found| found.set.clone()).collect();
    let (set, notes) = latest::latest(&sets, &unreadable, choice, now).map_err(said)?;
    for note in notes {
        tracing::warn!("{note}");
    }
    let name = set.name.clone();
    let chosen = candidates
        .into_iter()
        .filter(|found| found.set.name == name)
        .max_by_key(|found| found.set.verification.verdict() == Bytes::Intact);
    chosen.ok_or_else(|| said("it was deleted meanwhile".to_owned()).into())
}

/// The latest set is unknown while a folder of its series cannot be read; other folders are other series.
fn all_of_the_series_is_seen(of: &SetName, unseen: &[(String, Unread)], choice: &Choice) -> Result<()> {
    let folder = key::folder(&of.database, &of.job);
    for (store, Unread { key, reason, .. }) in unseen {
        let said = format!("the folder {key} in {store}: {reason}");
        if folder.starts_with(&format!("{key}/")) && !choice.older_ok {
            let message = format!("{said}; it may hold newer sets than those that can be read. --older-ok ignores them");
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        tracing::warn!("could not read {said}");
    }
    Ok(())
}

/// Refuses `latest` when it could be a set of either of two jobs.
fn one_series(candidates: &[Found], wanted: &str) -> Result<()> {
    let distinct: BTreeSet<String> =
        candidates.iter().map(|found| format!("{}/{}", found.set.name.database, found.set.name.job)).collect();
    if distinct.len() > 1 {
        let list = distinct.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("`{wanted}` is ambiguous: it could be a set of {list}; choose with --database and --job");
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    Ok(())
}

/// Never guesses whose sets are meant: neither from the target of the restore, nor from which are newer.
fn keep_one_identity(candidates: &mut Vec<Found>, series: &Series, wanted: &str, choice: &Choice) -> Result<()> {
    if let Some(from) = &choice.from {
        candidates.retain(|found| series.identity_of(&found.set).is_some_and(|identity| identity.is_meant_by(from)));
        return Ok(());
    }
    if wanted != "latest" {
        return Ok(());
    }
    let sets: Vec<Set> = candidates.iter().map(|found| found.set.clone()).collect();
    let identities = latest::identities(&sets, |set| series.identity_of(set));
    if identities.len() > 1 {
        let commands: Vec<String> = identities.iter().map(|identity| format!("  latest --from '{identity}'")).collect();
        let message = format!(
            "`latest` is ambiguous: the sets in this folder are of {} servers or databases. Choose one (that with the newest intact set comes first):\n{}",
            identities.len(),
            commands.join("\n")
        );
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    Ok(())
}

/// Resolves a configured database, or a URL without a password.
pub(super) fn settings_of(config: &Config, target: &str) -> Result<pg::Settings> {
    if let Some(database) = config.databases.get(target) {
        return database.settings();
    }
    if !target.contains("://") {
        let names = config.databases.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(Fault::new(
            Kind::Configuration,
            format!("`{target}` is neither a URL nor a database of the configuration ({names})"),
        )
        .into());
    }
    anyhow::ensure!(
        !pg::Settings::has_password(target),
        Fault::new(
            Kind::Configuration,
            "a password in an argument can be read by every user of this host: use PGPASSWORD or ~/.pgpass"
        )
    );
    pg::Settings::from_url(target)
}
