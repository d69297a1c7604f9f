//! `pgtend backups accept`: a person confirms what pgtend cannot know.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::Utc;
use clap::Args;

use super::find::{Filter, find};
use crate::base::fault::{Fault, Kind};
use crate::base::{shell, units};
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::sets as printed;
use crate::store::key;
use crate::task::backup;
use crate::task::backup::identity::Identity;
use crate::task::backup::latest::Choice;
use crate::task::backup::markers::LOSS_HOLD;
use crate::task::backup::series::{Accepted, Series};
use crate::task::backup::set::{self, Listing, Set};
use crate::task::backup::set_name::SetName;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend backups accept 2026-11-23T02-00-00Z --database app                 tables were dropped
  pgtend backups accept --identity 7301234567890123456/app --database app   after a restore
  pgtend backups accept --identity 7301234567890123456/app --of app/nightly/2026-11-23T02-00-00Z")]
pub struct Arguments {
    /// A set whose dump lost tables or shrank, or the older set that is held because of it
    #[arg(required_unless_present = "identity", conflicts_with = "identity")]
    set: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// A server, as SYSTEM_IDENTIFIER/DATABASE in messages, whose existing sets belong to the series of the configured database
    /// from now on (after an upgrade, a migration, a disaster). Given that database's own identity: it is still the same,
    /// although it went back in time, or was dropped and made anew under its name
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<String>,
    /// Where databases had that name one after another: take the sets of the one that this set is of, instead of those of the last one
    #[arg(long, value_name = "SET", requires = "identity", conflicts_with = "by_name")]
    of: Option<SetName>,
    /// With the database's own identity: from now on its name is enough, whatever database has it. For one that is dropped and made anew again and again
    #[arg(long, requires = "identity")]
    by_name: bool,
}

pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    match (&arguments.identity, &arguments.set) {
        (Some(identity), _) => accept_identity(global, identity, arguments).await,
        (None, Some(set)) => accept_loss(global, set, &arguments.filter).await,
        (None, None) => anyhow::bail!("name a set, or an --identity"),
    }
}

/// `wanted` is the set that lost something, which may be gone by now, or the one that is held because of it.
async fn accept_loss(global: &Global, wanted: &str, filter: &Filter) -> Result<ExitCode> {
    let config = global.load_config()?;
    let name: SetName = match wanted.parse() {
        Ok(name) => name,
        Err(_) => find(global, &config, wanted, filter, &Choice { to_verify: true, ..Choice::default() }).await?.set.name,
    };
    let text = name.to_string();
    let mut released = Vec::new();
    let folder = key::folder(&name.database, &name.job);
    for (store_name, read) in filter.read_stores(&config, async |store| set::list(store, &folder).await).await? {
        let (store, listing) = read.with_context(|| format!("store `{store_name}`"))?;
        for set in listing.sets {
            let after_it = set.holds.iter().any(|hold| hold.because_of.as_deref() == Some(&text));
            let is_it = set.name == name && set.holds.iter().any(|hold| hold.because_of.is_some());
            if after_it || is_it {
                store.delete(&set.name.key(LOSS_HOLD)).await?;
                released.push(printed::NoLongerHeld { set: set.name.to_string(), store: store_name.clone() });
            }
        }
    }
    if released.is_empty() {
        let message = format!("no set is held because of {text}: `pgtend backups list` shows the held ones");
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    match global.json {
        false => print(&released.iter().map(|held| format!("{} is no longer held\n", held.set)).collect::<String>())?,
        true => print_json(&printed::Accept::Loss { released })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The sets of one identity in a folder, the oldest first.
struct Folder<'s> {
    database: String,
    job: String,
    identity: Identity,
    sets: Vec<&'s Set>,
}

/// What is accepted of a folder.
struct Taken<'s> {
    /// Of the database that is there now: they may be ahead in the log.
    own: Vec<&'s Set>,
    /// Of one that had its name on its server before, or of another server.
    theirs: Vec<&'s Set>,
    /// Of others that had that name one after another.
    left: Vec<Vec<&'s Set>>,
}

/// Adds the existing sets of that identity to the series of the configured server.
async fn accept_identity(global: &Global, text: &str, arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { filter, by_name, of, .. } = arguments;
    let config = global.load_config()?;
    let (mut said, mut shown) = (String::new(), Vec::new());
    for (store_name, read) in filter.read_stores(&config, async |store| set::list(store, "").await).await? {
        let (store, listing) = read.with_context(|| format!("store `{store_name}`"))?;
        for unread in &listing.unseen {
            tracing::warn!("could not read the folder {}: {}", store.location(&unread.key), unread.reason);
        }
        let there = listing.sets.iter().map(|set| set.name.to_string()).collect();
        for folder in folders(&listing, filter, text) {
            let Folder { database, job, identity, .. } = &folder;
            let into = backup::identity_of(&config, database)
                .await
                .and_then(|into| into.context("its role may not read the system identifier (pg_control_system)"))
                .with_context(|| {
                    format!("cannot read the identity of database `{database}`, whose series the sets of {identity} are to join")
                })?;
            if *by_name && *identity != into {
                let message = format!("--by-name is for the database's own identity, {into}, and {identity} is another one");
                return Err(Fault::new(Kind::Configuration, message).into());
            }
            let (series, _) = Series::read(&store, database, job).await?;
            let Some(taken) = take(&folder, &listing, &series, &into, arguments) else { continue };
            said += &format!("{database}/{job} in {store_name}: {}\n", taken.in_words(&folder, &into));
            if *by_name {
                said += &format!(
                    "{database}/{job} in {store_name}: all sets of {into} are one series, whatever database has that name\n"
                );
            }
            let sets: Vec<String> = taken.own.iter().chain(&taken.theirs).map(|set| set.name.to_string()).collect();
            let accepted = Accepted { identity: identity.clone(), into, at: Utc::now(), sets };
            let changed = Series::change(&store, database, job, |series| {
                series.accept(accepted.clone(), &there);
                if *by_name && !series.by_name.contains(&accepted.into) {
                    series.by_name.push(accepted.into.clone());
                }
            });
            changed.await.with_context(|| format!("store `{store_name}`"))?;
            let Accepted { identity, into, sets, .. } = accepted;
            shown.push(printed::Series {
                database: database.clone(),
                job: job.clone(),
                store: store_name.clone(),
                identity: identity.to_string(),
                into: into.to_string(),
                by_name: *by_name,
                sets,
                left: taken.left.iter().flatten().map(|set| set.name.to_string()).collect(),
            });
        }
    }
    if said.is_empty() {
        let message = match of {
            Some(set) => format!(
                "{set} is no set of `{text}` whose database is not the present one: `pgtend backups list --json` names the identities"
            ),
            None => format!("there are no sets of `{text}`: `pgtend backups list --json` names the identities"),
        };
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    match global.json {
        true => print_json(&printed::Accept::Identity { series: shown })?,
        false => print(&said)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn folders<'s>(listing: &'s Listing, filter: &Filter, text: &str) -> Vec<Folder<'s>> {
    let mut folders: Vec<Folder<'s>> = Vec::new();
    for set in listing.sets.iter().filter(|set| filter.matches(&set.name)) {
        let Some(identity) = set.identity().filter(|identity| identity.is_meant_by(text)) else { continue };
        let (database, job) = (&set.name.database, &set.name.job);
        match folders.iter_mut().find(|folder| (&folder.database, &folder.job, &folder.identity) == (database, job, &identity)) {
            Some(folder) => folder.sets.push(set),
            None => folders.push(Folder { database: database.clone(), job: job.clone(), identity, sets: vec![set] }),
        }
    }
    folders
}

/// Chooses the sets that are accepted. Those of several databases that had one name are never taken at once: the newest would push the others out, of which one may
/// be somebody else's. None where none is meant. Pure.
fn take<'s>(
    folder: &Folder<'s>,
    listing: &'s Listing,
    series: &Series,
    into: &Identity,
    arguments: &Arguments,
) -> Option<Taken<'s>> {
    let is_another = |set: &Set| into.stamp.is_of_another(&set.manifest.server.database.stamp());
    let (mut own, mut others) = (Vec::new(), folder.sets.clone());
    if folder.identity == *into {
        (others, own) = others.into_iter().partition(|set| is_another(set));
        // Which server these are of is not known; the database of that name on this one was another one.
        let of_folder = listing.sets.iter().filter(|set| (&set.name.database, &set.name.job) == (&folder.database, &folder.job));
        others.extend(of_folder.filter(|set| set.identity().is_none()).filter(|set| is_another(set)));
        others.sort_by_key(|set| set.name.taken_at);
    }
    if arguments.by_name {
        return Some(Taken { own, theirs: others, left: Vec::new() });
    }
    let mut left = series.by_database(others);
    let Some(wanted) = &arguments.of else {
        let theirs = if left.is_empty() { Vec::new() } else { left.remove(0) };
        return Some(Taken { own, theirs, left });
    };
    let index = left.iter().position(|sets| sets.iter().any(|set| set.name == *wanted))?;
    Some(Taken { own: Vec::new(), theirs: left.remove(index), left: Vec::new() })
}

impl Taken<'_> {
    /// Says what was accepted, for a person. Sets of the database's own identity may be ahead of its log, or of another database that had its name.
    fn in_words(&self, folder: &Folder<'_>, into: &Identity) -> String {
        let identity = &folder.identity;
        let count = |sets: &[&Set]| units::plural(sets.len(), "set");
        let own = (!self.own.is_empty())
            .then(|| format!("accepted {} of {identity}, which may be ahead of its present WAL position", count(&self.own)));
        let theirs = (!self.theirs.is_empty()).then(|| match identity == into {
            false => format!("{} of {identity} now belong to the series of {into}", count(&self.theirs)),
            true => format!(
                "{} of a {} that had the name of {into} before now belong to the series of the present one",
                count(&self.theirs),
                into.stamp.kind()
            ),
        });
        let left = self.left.iter().filter_map(|sets| {
            let newest = sets.last()?;
            let stamp = newest.manifest.server.database.stamp();
            let (kind, oid) = (stamp.kind(), stamp.oid_in_words().unwrap_or_else(|| "OID not recorded".to_owned()));
            Some(format!(
                "{} of another {kind} that had that name before ({oid}), the newest of them {}, stay as they are; where they are of the \
                 same one: pgtend backups accept --identity {} --of {}",
                count(sets),
                newest.name,
                shell::word(&identity.to_string()),
                shell::word(&newest.name.to_string())
            ))
        });
        own.into_iter().chain(theirs).chain(left).collect::<Vec<_>>().join("; ")
    }
}
