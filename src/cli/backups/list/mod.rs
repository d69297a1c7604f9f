//! `pgtend backups list`.

mod json;
mod row;
mod shown;
mod whose;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use chrono::Utc;

use self::row::{Listed, Row};
use self::shown::{newest, table};
use self::whose::Whose;
use super::elsewhere::Elsewhere;
use super::find::Filter;
use super::nearness::Nearness;
use super::unknown::refuse_unknown;
use crate::base::terminal::say;
use crate::cli::global::Global;
use crate::cli::output::{print, print_json};
use crate::config::Config;
use crate::pg::failure;
use crate::store::Store;
use crate::store::archived::Archived;
use crate::store::sign::Signature;
use crate::task::backup::copies::place;
use crate::task::backup::copies::several::ensure_apart;
use crate::task::backup::set::{self, Set};
use crate::task::backup::set_name::SetName;

pub async fn run(global: &Global, filter: &Filter, unsigned_ok: bool) -> Result<ExitCode> {
    let config = global.load_config()?;
    let now = Utc::now();
    let mut listed = read(&config, filter, unsigned_ok).await?;
    let nearness = Nearness::of(global);
    listed.sets = as_sets(std::mem::take(&mut listed.sets), &nearness);
    listed.failed.extend(one_place(&listed.stores, &nearness).await);
    let not_known = match &filter.store {
        Some(store) => look_elsewhere(&config, store, &mut listed.sets, &nearness).await,
        None => Vec::new(),
    };
    if listed.sets.is_empty() && listed.broken.is_empty() && listed.failed.is_empty() && listed.not_ours.is_empty() {
        refuse_unknown(global, &config, filter, (&listed.jobs, &listed.databases))?;
    }
    if global.json {
        print_json(&json::of(&listed, &not_known, now))?;
        return listed.failed.into_iter().next().map_or(Ok(ExitCode::SUCCESS), |(_, error)| Err(error));
    }
    let mut failed = std::mem::take(&mut listed.failed).into_iter().map(|(_, error)| error);
    let (failed, others) = (failed.next(), failed);
    if listed.sets.is_empty() {
        print("no sets\n")?;
    } else {
        let whose = Whose::of(listed.sets.iter().map(|row| &row.set));
        print(&table(&listed.sets, &whose, now))?;
        print(&format!("\n{}", newest(&listed.sets, &whose, now)))?;
    }
    for said in whose::advice(&listed.stores, &listed.sets).await {
        say(&format!("pgtend: {said}"));
    }
    for Row { set, .. } in listed.sets.iter().filter(|row| row.set.is_from_the_future(now)) {
        say(&format!(
            "pgtend: {} is dated in the future: a clock was wrong when it was made, or is now; without --any, `latest` skips it",
            set.name
        ));
    }
    for (store, name, signature) in listed.not_ours {
        say(&format!("pgtend: not listed: {name} in {store}: {}; --unsigned-ok lists it", signature.in_words()));
    }
    for (location, reason) in listed.unseen {
        say(&format!("pgtend: could not read {location}: {reason}"));
    }
    for (store, name, reason) in listed.broken {
        say(&format!("pgtend: not listed: {name} in {store} cannot be restored: {reason}"));
    }
    for (store, why) in not_known {
        say(&format!("pgtend: whether copies in {store} were refused for their data is not known: {why}"));
    }
    // The end of the command names the first.
    others.for_each(|error| say(&format!("pgtend: {}", failure::in_a_line(&error))));
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Adds to sets of one store their copies in others, for what these were refused for. Returns the stores of which that is not known, each with the reason.
async fn look_elsewhere(config: &Config, store: &str, rows: &mut [Row], nearness: &Nearness) -> Vec<(String, String)> {
    let sets: Vec<&Set> = rows.iter().map(|row| &row.set).collect();
    let elsewhere = Elsewhere::of(config, store, &sets, nearness).await;
    for row in rows {
        row.elsewhere = elsewhere.copies_of(&row.set);
    }
    elsewhere.unread
}

/// The stores of a job that are one place, each with the error that says so: what is listed in both is there once.
async fn one_place(stores: &[(String, Store)], nearness: &Nearness) -> Vec<(String, anyhow::Error)> {
    let mut found: Vec<(String, anyhow::Error)> = Vec::new();
    let distinct: BTreeSet<&[String]> = nearness.of_each_job().collect();
    for names in distinct {
        let of_job: Vec<(&str, &Store)> =
            stores.iter().filter(|(name, _)| names.contains(name)).map(|(name, store)| (name.as_str(), store)).collect();
        match (ensure_apart(&of_job, false).await, of_job.last()) {
            (Err(error), Some((last, _))) if found.iter().all(|(name, _)| name != last) => {
                found.push(((*last).to_owned(), error))
            }
            _ => {}
        }
    }
    found
}

async fn read(config: &Config, filter: &Filter, unsigned_ok: bool) -> Result<Listed> {
    let mut listed = Listed::default();
    let list = async |store: &Store| {
        let listing = set::list(store, "").await?;
        // Only a note says it.
        let archived = store.archived("").await.unwrap_or_else(|error| {
            tracing::debug!("{}", failure::in_a_line(&error));
            Vec::new()
        });
        Ok((listing, archived))
    };
    for (store_name, read) in filter.read_stores(config, list).await? {
        let (store, mut listing, archived) = match read {
            Ok((store, (listing, archived))) => (store, listing, archived),
            // The sets of other stores are shown anyway.
            Err(error) => {
                let error = error.context(format!("store `{store_name}` cannot be read"));
                listed.failed.push((store_name, error));
                continue;
            }
        };
        listed.stores.push((store_name.clone(), store.clone()));
        if !store.is_there() {
            tracing::warn!("store `{store_name}`: there is no folder {} (yet, or is a disk not mounted?)", store.location(""));
        }
        for name in listing.names() {
            listed.databases.insert(name.database.clone());
            listed.jobs.insert(name.job.clone());
        }
        let unsigned: Vec<(SetName, Signature)> =
            listing.not_ours.iter().map(|(set, signature)| (set.name.clone(), *signature)).collect();
        if unsigned_ok {
            listing.accept_unsigned();
        }
        listing.with_adopted();
        let refused = listing.not_ours.iter().filter(|(set, _)| filter.matches(&set.name));
        listed.not_ours.extend(refused.map(|(set, signature)| (store_name.clone(), set.name.clone(), *signature)));
        listed.unseen.extend(listing.unseen.iter().map(|unread| (store.location(&unread.key), unread.reason.clone())));
        for set in listing.sets.into_iter().filter(|set| filter.matches(&set.name)) {
            let signature = unsigned.iter().find(|(of, _)| *of == set.name).map(|(_, signature)| *signature);
            let dump = set.name.key(&set.manifest.dump.object);
            let archived = archived.iter().find(|archived| archived.key == dump).map(Archived::in_words);
            listed.sets.push(Row {
                store: store_name.clone(),
                copies: Vec::new(),
                elsewhere: Vec::new(),
                signature,
                store_has_key: store.has_sign_key(),
                archived,
                location: store.location(&dump),
                set,
            });
        }
        let broken = listing.unreadable.into_iter().filter(|(name, _)| filter.matches(name));
        listed.broken.extend(broken.map(|(name, reason)| (store_name.clone(), name, reason)));
    }
    Ok(listed)
}

/// Puts copies of a set together, oldest set first. Sets that only have the name in common stay apart.
fn as_sets(mut rows: Vec<Row>, nearness: &Nearness) -> Vec<Row> {
    rows.sort_by_cached_key(|row| (row.set.name.clone(), row.signature.is_some(), nearness.rank(&row.set, &row.store)));
    let mut sets: Vec<Row> = Vec::new();
    for row in rows {
        let is_same = |first: &Row| first.set.name == row.set.name && place::is_copy_of(&first.set, &row.set);
        match sets.iter().rposition(is_same).and_then(|at| sets.get_mut(at)) {
            Some(first) => first.copies.push(row),
            None => sets.push(row),
        }
    }
    sets
}
