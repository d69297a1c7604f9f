//! Audits in a store: `DATABASE/JOB/audit/TIME.{md,html,json}`. The folder `audit` keeps them from being taken for backup sets, whose
//! folders are times. The JSON is written last; only a JSON makes an audit.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use serde::Deserialize;

use super::document::{Document, FORMAT};
use super::{html, markdown};
use crate::base::bounds::Bounded as _;
use crate::pg::failure;
use crate::store::{Store, key};

const TIME: &str = "%Y-%m-%dT%H-%M-%SZ";
/// The search for the last audit gives up after this many that cannot be read.
const MAX_UNREADABLE: usize = 8;
const KINDS: [&str; 3] = ["json", "md", "html"];

pub struct AuditStore {
    pub store: Store,
    folder: String,
}

/// The audits in the folder by time; objects with other names are not ours.
type Listing = BTreeMap<DateTime<Utc>, BTreeSet<String>>;

impl AuditStore {
    pub fn new(store: Store, database: &str, job: &str) -> Self {
        Self { store, folder: format!("{}audit/", key::folder(database, job)) }
    }

    fn key(&self, at: DateTime<Utc>, kind: &str) -> String {
        format!("{}{}.{kind}", self.folder, at.format(TIME))
    }

    async fn list(&self) -> Result<Listing> {
        let mut listing = Listing::new();
        if !self.store.is_there() {
            return Ok(listing);
        }
        let listed = self.store.list_readable(&self.folder).await?;
        // An object that cannot be read still exists: it counts as an audit that cannot be read, and is kept.
        let keys = listed.objects.into_iter().map(|object| object.key).chain(listed.unread.into_iter().map(|unread| unread.key));
        for key in keys {
            let Some((time, kind)) = key.strip_prefix(&self.folder).and_then(|name| name.split_once('.')) else {
                continue;
            };
            if let (Some(at), true) = (key::parse_time(time), KINDS.contains(&kind)) {
                listing.entry(at).or_default().insert(kind.to_owned());
            }
        }
        Ok(listing)
    }

    /// Returns the last audit that can be read, and why later ones cannot. Damaged files must not make all findings look new.
    pub async fn last(&self) -> Result<(Option<Document>, Vec<String>)> {
        let listing = self.list().await?;
        let mut unread = Vec::new();
        for (at, _) in listing.iter().rev().filter(|(_, kinds)| kinds.contains("json")).take(MAX_UNREADABLE) {
            match self.read(*at).await {
                Ok(document) => return Ok((Some(document), unread)),
                Err(error) => unread.push(failure::in_a_line(&error)),
            }
        }
        Ok((None, unread))
    }

    async fn read(&self, at: DateTime<Utc>) -> Result<Document> {
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u32,
        }
        let key = self.key(at, "json");
        let location = self.store.location(&key);
        let bytes = self.store.get(&key).await?.with_context(|| format!("there is no {location}"))?;
        let FormatOnly { format } = serde_json::from_slice(&bytes).with_context(|| format!("{location} is not an audit"))?;
        anyhow::ensure!(
            format <= FORMAT,
            "{location} has format {format}, and this pgtend reads formats up to {FORMAT}: use a newer pgtend"
        );
        let document: Document = serde_json::from_slice(&bytes).with_context(|| format!("{location} is not an audit"))?;
        document.check().with_context(|| format!("{location} is not an audit"))?;
        Ok(document)
    }

    /// Writes the audit and returns the location of its HTML.
    pub async fn put(&self, document: &Document) -> Result<String> {
        let taken = self.list().await?;
        let mut at = document.started_at.trunc_subsecs(0);
        while taken.contains_key(&at) {
            at += TimeDelta::seconds(1);
        }
        self.store.put(&self.key(at, "md"), markdown::render(document).into_bytes()).await?;
        self.store.put(&self.key(at, "html"), html::render(document).into_bytes()).await?;
        self.store.put(&self.key(at, "json"), serde_json::to_vec_pretty(document)?).await?;
        Ok(self.store.location(&self.key(at, "html")))
    }

    /// Deletes all but the last `keep` audits, and leftovers of killed runs. Objects that are not an audit of this job and database stay,
    /// and are named.
    pub async fn prune(&self, keep: usize, of: &Document) -> Result<Pruned> {
        let listing = self.list().await?;
        let complete: Vec<DateTime<Utc>> =
            listing.iter().filter(|(_, kinds)| kinds.contains("json")).map(|(at, _)| *at).collect();
        let mut pruned = Pruned::default();
        // The audit just written is read back first: nothing is deleted unless the newest is readable.
        let Some(newest) = complete.last() else { return Ok(pruned) };
        if let Err(error) = self.read(*newest).await {
            pruned
                .left
                .push(format!("{}; no audit is deleted as long as the newest one cannot be read", failure::in_a_line(&error)));
            return Ok(pruned);
        }
        for at in &complete[..complete.len().saturating_sub(keep)] {
            match self.read(*at).await {
                Ok(document) if document.job == of.job && document.database == of.database => {
                    self.delete(*at).await?;
                    pruned.deleted += 1;
                }
                Ok(document) => pruned.left.push(format!(
                    "{} is an audit of job {} on {}",
                    self.key(*at, "json"),
                    document.job,
                    document.database
                )),
                Err(error) => pruned.left.push(format!("{error:#}")),
            }
        }
        for (at, _) in listing.iter().filter(|(at, kinds)| !kinds.contains("json") && *at < newest) {
            self.delete(*at).await?;
        }
        Ok(pruned)
    }

    /// Deletes the JSON first: what a kill in between leaves is not an audit.
    async fn delete(&self, at: DateTime<Utc>) -> Result<()> {
        for kind in KINDS {
            self.store.delete(&self.key(at, kind)).await?;
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
pub struct Pruned {
    pub deleted: usize,
    /// Audits that were not deleted, and why.
    pub left: Vec<String>,
}
