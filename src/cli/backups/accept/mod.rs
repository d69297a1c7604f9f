//! `pgtend backups accept`: a person confirms what pgtend cannot know.

mod identity;
mod taken;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use self::taken::Wanted;
use super::find::{Filter, find};
use crate::base::fault::{Fault, Kind};
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::sets as printed;
use crate::store::{Store, key};
use crate::task::backup::latest::Choice;
use crate::task::backup::markers::LOSS_HOLD;
use crate::task::backup::set::{self, Set};
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
    /// Where databases had that name one after another: take the sets of the one that this set is of, instead of those of the last one.
    /// Also a set whose server is not recorded, with the database's own identity
    #[arg(long, value_name = "SET", requires = "identity", conflicts_with = "by_name")]
    of: Option<SetName>,
    /// With the database's own identity: from now on its name is enough, whatever database has it. For one that is dropped and made anew again and again
    #[arg(long, requires = "identity")]
    by_name: bool,
}

pub async fn run(global: &Global, arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { set, filter, identity, of, by_name } = arguments;
    match (identity, set) {
        (Some(identity), _) => {
            let wanted = Wanted { identity, filter, of: of.as_ref(), by_name: *by_name };
            identity::accept(global, &wanted).await
        }
        (None, Some(set)) => accept_loss(global, set, filter).await,
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
    let folder = key::folder(&name.database, &name.job);
    let mut held = Vec::new();
    // Where one cannot be read, none is changed.
    for (store_name, read) in filter.read_stores(&config, async |store| set::list(store, &folder).await).await? {
        let (store, listing) = read.with_context(|| format!("store `{store_name}`"))?;
        let after_it = |set: &Set| set.holds.iter().any(|hold| hold.because_of.as_deref() == Some(&text));
        let is_it = |set: &Set| set.name == name && set.holds.iter().any(|hold| hold.because_of.is_some());
        let names = listing.sets.iter().filter(|set| after_it(set) || is_it(set)).map(|set| set.name.clone());
        held.push((store_name, store, names.collect::<Vec<_>>()));
    }
    let mut released = Vec::new();
    let failed = release(&held, &mut released).await.err();
    if released.is_empty() && failed.is_none() {
        let message = format!("no set is held because of {text}: `pgtend backups list` shows the held ones");
        return Err(Fault::new(Kind::Configuration, message).into());
    }
    match global.json {
        false => print(&released.iter().map(|held| format!("{} is no longer held\n", held.set)).collect::<String>())?,
        true if released.is_empty() => {}
        true => print_json(&printed::Accept::Loss { released })?,
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Ends the holds in each of the stores, and adds those that it ended, up to the first that it could not.
async fn release(held: &[(String, Store, Vec<SetName>)], released: &mut Vec<printed::NoLongerHeld>) -> Result<()> {
    for (store_name, store, names) in held {
        for name in names {
            store.delete(&name.key(LOSS_HOLD)).await.with_context(|| format!("store `{store_name}`"))?;
            released.push(printed::NoLongerHeld { set: name.to_string(), store: store_name.clone() });
        }
    }
    Ok(())
}
