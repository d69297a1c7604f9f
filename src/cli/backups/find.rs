//! Finds the set that a command names.

use std::collections::BTreeSet;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;

pub(super) use super::found::Found;
use super::nearness::{self, Nearness};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
pub use crate::cli::filter::Filter;
use crate::cli::global::Global;
use crate::config::Config;
use crate::pg;
use crate::pg::failure;
use crate::store::{Store, Unread, key};
use crate::task::backup::adopted;
use crate::task::backup::copies::place;
use crate::task::backup::latest::{self, Choice};
use crate::task::backup::series::Series;
use crate::task::backup::set::{self, Listing, Set};
use crate::task::backup::set_name::SetName;

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

impl Filter {
    pub(super) fn matches(&self, name: &SetName) -> bool {
        self.has_database(&name.database) && self.has_job(&name.job)
    }
}

/// The sets that a command may mean, over all stores, and what could not be read.
#[derive(Default)]
struct Candidates {
    sets: Vec<Found>,
    /// Each set that cannot be restored, and why.
    unreadable: Vec<(SetName, String)>,
    unread_stores: Vec<(String, anyhow::Error)>,
    /// Folders that could not be read, each with the name of its store.
    unseen: Vec<(String, Unread)>,
}

impl Candidates {
    async fn read(config: &Config, wanted: &str, filter: &Filter, choice: &Choice) -> Result<Self> {
        let mut all = Self::default();
        for (store_name, read) in filter.read_stores(config, async |store| set::list(store, "").await).await? {
            match read {
                Ok((store, listing)) => all.add(&store_name, &store, listing, |name| is_meant(name, wanted, filter), choice),
                Err(error) => all.unread_stores.push((store_name, error)),
            }
        }
        // Nobody knows how old an adopted dump is: it is the latest only where nothing else is meant.
        let is_ours = |found: &Found| !found.set.is_adopted();
        if wanted == "latest" && filter.job.is_none() && all.sets.iter().any(is_ours) {
            all.sets.retain(is_ours);
            // One that cannot be read hides no newer set either, unless a job has that name.
            let folders: BTreeSet<String> = all.sets.iter().map(|found| found.set.name.job.clone()).collect();
            all.unreadable.retain(|(name, _)| name.job != adopted::JOB || folders.contains(&name.job));
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
        self.unreadable.extend(of_store.map(|(name, reason)| {
            let said = format!("{name} cannot be restored: {reason}");
            (name, said)
        }));
        let not_ours = listing.not_ours.iter().filter(|(set, _)| is_meant(&set.name));
        self.unreadable.extend(not_ours.map(|(set, signature)| {
            let said = format!("{} is not accepted: {}; --unsigned-ok accepts it", set.name, signature.in_words());
            (set.name.clone(), said)
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

/// Finds the one set that `wanted` means, and logs what should be known about it. Of several copies, it is the nearest intact one.
pub(super) async fn find(global: &Global, config: &Config, wanted: &str, filter: &Filter, choice: &Choice) -> Result<Found> {
    let copies = find_copies(global, config, wanted, filter, choice).await?;
    copies.into_iter().next().ok_or_else(|| none(wanted, "`pgtend backups list` shows all sets").into())
}

/// Finds all copies of that set, the nearest intact one first: there is one at least.
pub(super) async fn find_copies(
    global: &Global,
    config: &Config,
    wanted: &str,
    filter: &Filter,
    choice: &Choice,
) -> Result<Vec<Found>> {
    let now = Utc::now();
    let nearness = Nearness::of(global);
    let Candidates { sets: mut candidates, unreadable, unread_stores, unseen } =
        Candidates::read(config, wanted, filter, choice).await?;
    needed_stores_are_read(&candidates, unread_stores, (wanted, filter.job.as_deref()), &nearness)?;
    one_series(&candidates, wanted)?;
    let of_unreadable = unreadable.iter().map(|(name, _)| name.taken_at).max();
    let Some(first) = candidates.first() else {
        let of_folders = unseen.iter().map(|(store, unread)| format!("{} in {store}: {}", unread.key, unread.reason));
        let reasons: Vec<String> = unreadable.into_iter().map(|(_, said)| said).chain(of_folders).collect();
        let detail = if reasons.is_empty() { "`pgtend backups list` shows all sets".to_owned() } else { reasons.join("; ") };
        let fault = none(wanted, &detail);
        return Err(if unseen.is_empty() { NoneMeant { fault, newest: of_unreadable }.into() } else { fault.into() });
    };
    if wanted == "latest" {
        all_of_the_series_is_seen(&first.set.name, &unseen, choice)?;
    }
    let (series, trouble) = Series::read(&first.store, &first.set.name.database, &first.set.name.job).await?;
    if let Some(trouble) = trouble {
        tracing::warn!("{trouble}");
    }
    keep_one_identity(&mut candidates, &series, wanted, choice)?;
    nearness::sort(&mut candidates, &nearness);
    let name = match wanted {
        "latest" => {
            let mut sets: Vec<Set> = candidates.iter().map(|found| found.set.clone()).collect();
            // Of each set, the copy that is first in use.
            sets.dedup_by(|a, b| a.name == b.name);
            let unreadable: Vec<_> = unreadable.iter().map(|(name, said)| (name.taken_at, said.clone())).collect();
            let newest = sets.iter().map(|set| set.name.taken_at).max().max(of_unreadable);
            let refused = |reason: String| NoneMeant { fault: none(wanted, &reason), newest };
            let (set, notes) = latest::latest(&sets, &unreadable, choice, now).map_err(refused)?;
            notes.iter().for_each(|note| tracing::warn!("{note}"));
            set.name.clone()
        }
        _ => candidates
            .first()
            .map(|found| found.set.name.clone())
            .ok_or_else(|| none(wanted, "`pgtend backups list` shows all sets"))?,
    };
    if wanted == "latest" && filter.store.is_none() {
        warn_of_empty_folders(config, &nearness, &name.job, &candidates).await;
    }
    if wanted == "latest" {
        warn_of_earlier_ones(&candidates, &series, &name);
    }
    candidates.retain(|found| found.set.name == name);
    are_of_one_set(&candidates)?;
    for (_, said) in unreadable.iter().filter(|(of, _)| of.taken_at == name.taken_at) {
        tracing::warn!("another copy is passed over: {said}");
    }
    warn_of_damage(&candidates, &nearness);
    Ok(candidates)
}

/// A database that was dropped and made anew has a newer set, with less in it than the one that somebody misses.
fn warn_of_earlier_ones(candidates: &[Found], series: &Series, latest: &SetName) {
    let sets: Vec<Set> = candidates.iter().map(|found| found.set.clone()).collect();
    let Some(own) = sets.iter().find(|set| set.name == *latest).and_then(|set| series.identity_of(set)) else { return };
    let earlier: BTreeSet<&SetName> = series.of_earlier_ones(&own, &sets).map(|set| &set.name).collect();
    if let Some(newest) = earlier.last() {
        let (count, verb) = (units::plural(earlier.len(), "set"), if earlier.len() == 1 { "is" } else { "are" });
        tracing::warn!(
            "{latest} is of the database that has this name now. {count} here {verb} of another that had it before; the newest of them is {newest}: \
             name it to take it"
        );
    }
}

/// Names the stores of the job that were never written to: an empty mount point holds newer sets when its disk is there.
async fn warn_of_empty_folders(config: &Config, nearness: &Nearness, job: &str, read: &[Found]) {
    for name in nearness.stores(job).iter().filter(|name| read.iter().all(|found| found.store_name != **name)) {
        let Ok(store) = Store::named(config, name).await else { continue };
        if !store.is_marked() {
            tracing::warn!(
                "store `{name}`: {} was never written to (yet, or is a disk not mounted?), so a newer set may be there",
                store.location("")
            );
        }
    }
}

/// There is no set that can be meant.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub(super) struct NoneMeant {
    #[source]
    fault: Fault,
    /// When the newest of those was taken that cannot be meant; None where there is none.
    pub(super) newest: Option<DateTime<Utc>>,
}

fn none(wanted: &str, reason: &str) -> Fault {
    Fault::new(Kind::Configuration, format!("no set `{wanted}`: {reason}"))
}

/// A named set that was found is the right one, wherever else it may be. `latest` is only known once every store was read that it may be in: the stores of
/// the job that was named, or all of them; or another store with copies of its sets.
fn needed_stores_are_read(
    candidates: &[Found],
    unread_stores: Vec<(String, anyhow::Error)>,
    (wanted, named_job): (&str, Option<&str>),
    nearness: &Nearness,
) -> Result<()> {
    let names: Vec<String> = unread_stores.iter().map(|(name, _)| name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (store, error) in unread_stores {
        let job = candidates.first().map(|found| found.set.name.job.as_str());
        let has_copies = job.is_some_and(|job| nearness.has_copies(job, &store, &names));
        let is_of_others = job.is_some() && named_job.is_some_and(|job| nearness.is_of_others(job, &store));
        if is_of_others {
            tracing::warn!("store `{store}` cannot be read, and is none of the job's: {}", failure::in_a_line(&error));
        } else if has_copies {
            let newer = if wanted == "latest" { ", so a newer set may be there" } else { "" };
            tracing::warn!("store `{store}` cannot be read{newer}; another copy is taken: {}", failure::in_a_line(&error));
        } else if wanted == "latest" || candidates.is_empty() {
            let message =
                "cannot be read; --job NAME asks only for those of a job's stores, --store NAME searches another one alone";
            return Err(error.context(format!("store `{store}` {message}")));
        }
    }
    Ok(())
}

/// What has one name in two stores must have come of one dump: otherwise somebody else wrote one of them.
pub(super) fn are_of_one_set(copies: &[Found]) -> Result<()> {
    let Some((first, others)) = copies.split_first() else { return Ok(()) };
    let Some(other) = others.iter().find(|other| !place::is_copy_of(&other.set, &first.set)) else { return Ok(()) };
    let message = format!(
        "{} in {} and in {} are two different sets, of which one was not written by the run of that name: compare them (`pgtend backups show`, with \
         --store), and choose one with --store",
        first.set.name, first.store_name, other.store_name
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

/// Says why a nearer copy is not taken.
fn warn_of_damage(copies: &[Found], nearness: &Nearness) {
    let Some((first, others)) = copies.split_first() else { return };
    let place = |found: &Found| nearness.place(&found.set.name.job, &found.store_name);
    for nearer in others.iter().filter(|other| place(other) < place(first)) {
        tracing::warn!(
            "the copy in {} is {}: that in {} is taken",
            nearer.store_name,
            nearer.set.verification.verdict().name(),
            first.store_name
        );
    }
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
    if let Some(database) = config.database(target) {
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
