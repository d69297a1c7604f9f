//! The digest: once a week, what is safe and what is not, for people who read no dashboards. `serve` puts it into the ledger's queue at its time.

mod read;
mod say;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::runtime::Handle;

use super::global::Global;
use crate::config::notify::{On, Target};
use crate::ledger::Ledger;
use crate::run::job::Folder;
use crate::run::notify::event::Event;
use crate::run::notify::message::Message;
use crate::web::http::Site;

/// Looks this often whether a digest is due.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// A digest that was missed longer ago is left out: the next one comes.
const MISSED_AT_MOST: TimeDelta = TimeDelta::hours(24);

/// Puts each digest into the ledger's queue when it is due, until the task is dropped.
pub async fn put_when_due(site: Arc<Site>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (site, runtime) = (Arc::clone(&site), Handle::current());
        // Its future is for one thread alone: the stores are looked at by closures over borrowed names.
        let looked = tokio::task::spawn_blocking(move || runtime.block_on(look(&site, Utc::now()))).await;
        if let Err(error) = looked.map_err(anyhow::Error::from).flatten() {
            tracing::warn!("cannot make a digest: {error:#}");
        }
    }
}

async fn look(site: &Site, now: DateTime<Utc>) -> Result<()> {
    let context = site.scheduler.context();
    let ledger = site.scheduler.ledger();
    if site.scheduler.ledger_error().is_some() {
        return Ok(());
    }
    let mut due: Vec<(&Target, DateTime<Utc>)> = Vec::new();
    for target in context.config.notify.targets.iter().filter(|target| target.on.contains(&On::Digest)) {
        let tick = target.digest.last_until(now, target.timezone).filter(|tick| now - *tick <= MISSED_AT_MOST);
        if let Some(tick) = tick
            && !ledger.has_digest(&target.name, tick).await?
        {
            due.push((target, tick));
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    let folder = Folder { jobs: context.jobs.to_vec(), broken: site.scheduler.broken(), ..Folder::default() };
    let facts = read::facts(&context.config, &folder, Some(ledger), now).await?;
    let event = serde_json::to_value(Event::of_digest(say::message(&facts, now)))?;
    for (target, tick) in due {
        ledger.put_digest(&target.name, tick, &event).await?;
    }
    Ok(())
}

/// Makes the digest now, for a command.
pub async fn now(global: &Global) -> Result<Message> {
    let (config, folder) = global.load()?;
    let now = Utc::now();
    let ledger = Ledger::to_read(&config).await?;
    Ok(say::message(&read::facts(&config, &folder, ledger.as_ref(), now).await?, now))
}
