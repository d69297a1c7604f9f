//! What stands in a set's folder beside its data, so that whoever deletes there acts on what was said and not on what is missing:
//! `run.json`, put there first by whoever makes the set; `deleting.json`, put there first by whoever deletes it; `hold.json`.

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::series::Identity;
use super::set::SetName;
use crate::process_identity::ProcessIdentity;
use crate::store::{Precondition, Store};

pub const RUN: &str = "run.json";
pub const DELETING: &str = "deleting.json";
pub const HOLD: &str = "hold.json";

/// `run.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunMarker {
    pub process: ProcessIdentity,
    /// In the ledger.
    pub run: Option<i64>,
    /// Of the database that is dumped.
    pub identity: Option<Identity>,
    pub started_at: DateTime<Utc>,
}

/// `deleting.json`: somebody has decided that the set goes, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeletingMarker {
    pub process: ProcessIdentity,
    pub identity: Option<Identity>,
    pub reasons: Vec<String>,
    pub started_at: DateTime<Utc>,
}

/// `hold.json`: the set stays until then, whatever the rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub until: DateTime<Utc>,
    pub reason: String,
    /// The set that lost what this one has; accepting that one ends the hold.
    #[serde(default)]
    pub because_of: Option<String>,
}

/// Takes the first free name at or after `name`: two runs may start within one second, on two hosts. The folder is this run's from
/// then on.
pub async fn claim(store: &Store, name: &SetName, marker: &RunMarker) -> Result<SetName> {
    let content = serde_json::to_vec_pretty(marker)?;
    let mut name = name.clone();
    for _ in 0..60 {
        let key = name.key(RUN);
        match store.put_if(&key, content.clone(), Precondition::Absent).await {
            Ok(Some(_)) => return Ok(name),
            Ok(None) => {}
            // A store that has no such step: between looking and writing somebody might come, who has the same second.
            Err(error) => {
                tracing::debug!("{error:#}");
                if store.get(&key).await?.is_none() {
                    store.put(&key, content.clone()).await?;
                    return Ok(name);
                }
            }
        }
        name.taken_at += chrono::Duration::seconds(1);
    }
    anyhow::bail!("the sixty names from {name} on are taken")
}

/// None when there is none.
pub async fn read<T: serde::de::DeserializeOwned>(store: &Store, name: &SetName, object: &str) -> Result<Option<T>> {
    let key = name.key(object);
    let Some(bytes) = store.get(&key).await? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).with_context(|| format!("cannot read {}", store.location(&key)))
}

pub async fn write<T: Serialize>(store: &Store, name: &SetName, object: &str, marker: &T) -> Result<()> {
    store.put(&name.key(object), serde_json::to_vec_pretty(marker)?).await
}
