//! Tries the stores: whether each takes, gives and deletes objects, and whether those of a job are several places.

use std::collections::BTreeSet;

use anyhow::Result;
use futures_util::future::join_all;

use super::attempt::{Attempt, LONGEST, warnings};
use crate::cli::{encryption, lifetimes};
use crate::config::{self, Config};
use crate::run::job::Job;
use crate::store::Store;
use crate::task::backup::Backup;
use crate::task::backup::copies::several::{apart_by_name, ensure_answers, ensure_apart, within_time};

/// Finds jobs of which two stores are one place, as far as that shows on this host.
pub async fn one_place(config: &Config, jobs: &[Job]) -> Vec<(String, anyhow::Error)> {
    let mut found = Vec::new();
    for job in jobs {
        let folders = stores_of(config, job).filter(|(_, store)| matches!(store, config::Store::Dir { .. }));
        let opened = join_all(folders.map(|(name, store)| async move { (name, Store::open(store).await) })).await;
        let stores: Vec<(&str, &Store)> =
            opened.iter().filter_map(|(name, store)| Some((name.as_str(), store.as_ref().ok()?))).collect();
        let mut pairs =
            stores.iter().enumerate().flat_map(|(number, one)| stores.iter().skip(number + 1).map(move |other| (one, other)));
        if let Some(error) = pairs.find_map(|(one, other)| apart_by_name(*one, *other).err()) {
            found.push((job.name.clone(), error));
        }
    }
    found
}

pub(super) async fn try_stores(config: &Config, jobs: &[Job]) -> Vec<Attempt> {
    let are_several = config.stores.len() > 1;
    let trying = config.stores.iter().map(|(name, store)| within_time(LONGEST, try_store(name, store, jobs, are_several)));
    let mut tried = Vec::new();
    for ((name, store), result) in config.stores.iter().zip(join_all(trying).await) {
        tried.push(Attempt::new(format!("store {name}"), result));
        tried.extend(encryption::in_words(store).map(|said| Attempt::new(format!("store {name}: encryption"), Ok(said))));
    }
    tried
}

/// Finds jobs of which two stores are one place, among those that answer. Each store is asked once, whichever jobs use it.
pub(super) async fn try_apart(config: &Config, jobs: &[Job]) -> Vec<Attempt> {
    let of_jobs: Vec<Vec<String>> = jobs.iter().map(|job| stores_of(config, job).map(|(name, _)| name).collect()).collect();
    let several: BTreeSet<&String> = of_jobs.iter().filter(|names| names.len() > 1).flatten().collect();
    let opening = several.iter().filter_map(|name| Some((*name, config.stores.get(*name)?))).map(|(name, store)| async move {
        let store = Store::open(store).await.ok()?;
        ensure_answers(&store).await.ok()?;
        Some((name.as_str(), store))
    });
    let opened: Vec<(&str, Store)> = join_all(opening).await.into_iter().flatten().collect();
    let mut tried = Vec::new();
    for (job, names) in jobs.iter().zip(&of_jobs) {
        let stores = opened.iter().filter(|(name, _)| names.iter().any(|of_job| of_job == name));
        let stores: Vec<(&str, &Store)> = stores.map(|(name, store)| (*name, store)).collect();
        if let Err(error) = ensure_apart(&stores, false).await {
            tried.push(Attempt::new(format!("stores of {}", job.name), Err(error)));
        }
    }
    tried
}

async fn try_store(name: &str, configured: &config::Store, jobs: &[Job], are_several: bool) -> Result<String> {
    let store = Store::open(configured).await?;
    if are_several {
        ensure_answers(&store).await?;
    }
    let mut probed = store.probe().await?;
    if let Store::S3(s3) = &store {
        let archiving = s3.archiving().await;
        probed.warnings.extend(lifetimes::unfit(name, configured, (probed.expiry.as_ref(), archiving.as_ref()), jobs));
        if s3.tags_proved() {
            probed.warnings.extend(lifetimes::unused_tags(archiving.as_ref(), s3.moves_tagged().await));
        }
    }
    let did = if probed.can_delete { "wrote, read, listed and deleted a probe" } else { "wrote, read and listed a probe" };
    Ok(format!("{}: {did}{}", store.location(""), warnings(probed.warnings)))
}

/// The stores that the job keeps sets in.
fn stores_of<'c>(config: &'c Config, job: &Job) -> impl Iterator<Item = (String, &'c config::Store)> {
    let names: Vec<String> =
        job.task.as_a::<Backup>().iter().flat_map(|backup| backup.stores()).map(|kept| kept.store.clone()).collect();
    names.into_iter().filter_map(|name| {
        let store = config.stores.get(&name)?;
        Some((name, store))
    })
}
