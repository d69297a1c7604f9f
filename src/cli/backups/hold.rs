//! `pgtend backups hold` and `release`.

use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};

use super::find::{Filter, find_copies};
use super::nearness::Nearness;
use crate::base::terminal;
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::cli::outputs::sets as printed;
use crate::config::Config;
use crate::store::Store;
use crate::task::backup::copies::holds;
use crate::task::backup::copies::several::ensure_answers;
use crate::task::backup::latest::Choice;
use crate::task::backup::markers::{ALL_HOLDS, Hold};
use crate::task::backup::set;
use crate::task::backup::set_name::SetName;

/// Holds all copies of a set.
pub async fn hold(global: &Global, wanted: &str, filter: &Filter, until: DateTime<Utc>, reason: &str) -> Result<ExitCode> {
    let config = global.load_config()?;
    let hold = Hold { until, reason: reason.to_owned(), because_of: None, for_copy: false };
    let (mut held, mut name) = (Vec::new(), None);
    for found in find_copies(global, &config, wanted, filter, &Choice::default()).await? {
        holds::hold(&found.store, &found.store_name, &found.set, &hold).await?;
        if !global.json {
            let until = until.format("%Y-%m-%d %H:%M UTC");
            print(&format!("{} in {} is held until {until}\n", found.set.name, found.store_name))?;
        }
        held.push(found.store_name);
        name.get_or_insert(found.set.name);
    }
    let Some(name) = name else { return Ok(ExitCode::SUCCESS) };
    if filter.store.is_none() {
        // The next run holds it there, too, unless its store's `keep` has deleted it by then.
        ensure_all_are_read(global, &config, &name, &held, |store| {
            format!(
                "{name} is held in {}, and store `{store}` could not be read: hold it there when it is back, with --store {store}",
                held.join(" and ")
            )
        })
        .await?;
    }
    if global.json {
        print_json(&printed::Held { set: name.to_string(), until, reason, stores: &held })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails where a store of the set's job may have another copy, and cannot be read.
async fn ensure_all_are_read(
    global: &Global,
    config: &Config,
    name: &SetName,
    known: &[String],
    message: impl Fn(&str) -> String,
) -> Result<()> {
    let nearness = Nearness::of(global);
    for store in nearness.stores(&name.job).iter().filter(|store| !known.contains(store)) {
        let looking = async {
            let store = Store::named(config, store).await?;
            ensure_answers(&store).await?;
            store.exists_for_certain(&name.key(set::MANIFEST)).await
        };
        if let Err(error) = looking.await {
            return Err(error.context(message(store)));
        }
    }
    Ok(())
}

/// Ends the holds of all copies.
pub async fn release(global: &Global, wanted: &str, filter: &Filter) -> Result<ExitCode> {
    let config = global.load_config()?;
    let copies = find_copies(global, &config, wanted, filter, &Choice::default()).await?;
    let are_several = copies.len() > 1;
    let (mut released, mut name, mut shown) = (Vec::new(), None, Vec::new());
    for found in copies {
        for object in ALL_HOLDS {
            found.store.delete(&found.set.name.key(object)).await?;
        }
        let in_store = if are_several { format!(" in {}", found.store_name) } else { String::new() };
        let reasons: Vec<_> = found.set.holds.iter().map(|hold| terminal::in_one_line(&hold.reason)).collect();
        if !global.json {
            print(&match reasons.is_empty() {
                false => format!("{}{in_store} is no longer held ({})\n", found.set.name, reasons.join("; ")),
                true => format!("{}{in_store} was not held\n", found.set.name),
            })?;
        }
        let reasons = found.set.holds.into_iter().map(|hold| hold.reason).collect();
        shown.push(printed::ReleasedCopy { store: found.store_name.clone(), reasons });
        released.push(found.store_name);
        name.get_or_insert(found.set.name);
    }
    let Some(name) = name else { return Ok(ExitCode::SUCCESS) };
    if filter.store.is_none() {
        // A hold there would come back to all copies with the next run.
        ensure_all_are_read(global, &config, &name, &released, |store| {
            format!(
                "{name} may still be held in store `{store}`, which could not be read: release it once more when the store is back"
            )
        })
        .await?;
    }
    if global.json {
        print_json(&printed::Released { set: name.to_string(), copies: shown })?;
    }
    Ok(ExitCode::SUCCESS)
}
