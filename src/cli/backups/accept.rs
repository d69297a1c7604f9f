//! `pgtend backups accept`: a person confirms what pgtend cannot know.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chrono::Utc;
use clap::Args;

use super::find::{Filter, find};
use crate::base::fault::{Fault, Kind};
use crate::base::units;
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::sets as printed;
use crate::store::key;
use crate::task::backup;
use crate::task::backup::identity::Identity;
use crate::task::backup::latest::Choice;
use crate::task::backup::markers::LOSS_HOLD;
use crate::task::backup::series::{Accepted, Series};
use crate::task::backup::set::{self, Set};
use crate::task::backup::set_name::SetName;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  pgtend backups accept 2026-11-23T02-00-00Z --database app                 tables were dropped
  pgtend backups accept --identity 7301234567890123456/app --database app   after a restore")]
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
    /// With the database's own identity: from now on its name is enough, whatever database has it. For one that is dropped and made anew again and again
    #[arg(long, requires = "identity")]
    by_name: bool,
}

pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    match (&arguments.identity, &arguments.set) {
        (Some(identity), _) => accept_identity(global, identity, arguments.by_name, &arguments.filter).await,
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

/// Adds the existing sets of that identity to the series of the configured server.
async fn accept_identity(global: &Global, text: &str, by_name: bool, filter: &Filter) -> Result<ExitCode> {
    let config = global.load_config()?;
    let (mut said, mut shown) = (String::new(), Vec::new());
    for (store_name, read) in filter.read_stores(&config, async |store| set::list(store, "").await).await? {
        let (store, listing) = read.with_context(|| format!("store `{store_name}`"))?;
        for unread in &listing.unseen {
            tracing::warn!("could not read the folder {}: {}", store.location(&unread.key), unread.reason);
        }
        let mut folders: Vec<(String, String, Identity, Vec<&Set>)> = Vec::new();
        for set in listing.sets.iter().filter(|set| filter.matches(&set.name)) {
            let Some(identity) = set.identity().filter(|identity| identity.is_meant_by(text)) else { continue };
            let (database, job) = (&set.name.database, &set.name.job);
            match folders.iter_mut().find(|folder| (&folder.0, &folder.1, &folder.2) == (database, job, &identity)) {
                Some(folder) => folder.3.push(set),
                None => folders.push((database.clone(), job.clone(), identity, vec![set])),
            }
        }
        for (database, job, identity, mut sets) in folders {
            let into = backup::identity_of(&config, &database)
                .await
                .and_then(|into| into.context("its role may not read the system identifier (pg_control_system)"))
                .with_context(|| {
                    format!("cannot read the identity of database `{database}`, whose series the sets of {identity} are to join")
                })?;
            if by_name && identity != into {
                let message = format!("--by-name is for the database's own identity, {into}, and {identity} is another one");
                return Err(Fault::new(Kind::Configuration, message).into());
            }
            if identity == into {
                // Which server these are of is not known; the database of that name on this one was another one.
                let is_of_earlier = |set: &&Set| into.is_another_of_that_name(set.manifest.server.database.oid);
                let of_folder = listing.sets.iter().filter(|set| (&set.name.database, &set.name.job) == (&database, &job));
                sets.extend(of_folder.filter(|set| set.identity().is_none()).filter(is_of_earlier));
            }
            said += &format!("{database}/{job} in {store_name}: {}\n", in_words(&sets, &identity, &into));
            if by_name {
                said += &format!(
                    "{database}/{job} in {store_name}: all sets of {into} are one series, whatever database has that name\n"
                );
            }
            let sets: Vec<String> = sets.iter().map(|set| set.name.to_string()).collect();
            let accepted = Accepted { identity, into, at: Utc::now(), sets };
            let changed = Series::change(&store, &database, &job, |series| {
                series.accepted.retain(|earlier| (&earlier.identity, &earlier.into) != (&accepted.identity, &accepted.into));
                series.accepted.push(accepted.clone());
                if by_name && !series.by_name.contains(&accepted.into) {
                    series.by_name.push(accepted.into.clone());
                }
            });
            changed.await.with_context(|| format!("store `{store_name}`"))?;
            let Accepted { identity, into, sets, .. } = accepted;
            let (identity, into, store) = (identity.to_string(), into.to_string(), store_name.clone());
            shown.push(printed::Series { database, job, store, identity, into, by_name, sets });
        }
    }
    if said.is_empty() {
        let message = format!("there are no sets of `{text}`: `pgtend backups list --json` names the identities");
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    match global.json {
        true => print_json(&printed::Accept::Identity { series: shown })?,
        false => print(&said)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What was accepted, for a person. Sets of the database's own identity may be ahead of its log, or of another database that had its name.
fn in_words(sets: &[&Set], identity: &Identity, into: &Identity) -> String {
    let count = |sets: usize| units::plural(sets, "set");
    if identity != into {
        return format!("{} of {identity} now belong to the series of {into}", count(sets.len()));
    }
    let of_earlier = sets.iter().filter(|set| into.is_another_of_that_name(set.manifest.server.database.oid)).count();
    let others = match sets.len() - of_earlier {
        0 => None,
        others => Some(format!("accepted {} of {identity}, which may be ahead of its present WAL position", count(others))),
    };
    let earlier = (of_earlier > 0).then(|| {
        format!(
            "{} of a database that had the name of {into} before now belong to the series of the present one",
            count(of_earlier)
        )
    });
    others.into_iter().chain(earlier).collect::<Vec<_>>().join("; ")
}
