//! Markers in a set's folder, so that a deletion acts on what was recorded and not on what is missing: `run.json`, written first by the run
//! that makes the set; `deleting.json`, written first by the process that deletes it; `hold.json`.

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::set_name::SetName;
use crate::base::bounds::{self, Bounded};
use crate::base::process_identity::ProcessIdentity;
use crate::store::{Precondition, Store};

pub const RUN: &str = "run.json";
pub const DELETING: &str = "deleting.json";
/// The hold of a person.
pub const HOLD: &str = "hold.json";
/// The hold after the next dump lost something that this set has.
pub const LOSS_HOLD: &str = "hold-after-loss.json";
/// The hold while a copy of this set takes the place of another one: until it is whole, this may be the only one.
pub const COPY_HOLD: &str = "hold-for-copy.json";
/// The holds that all copies of a set share.
pub const HOLDS: [&str; 2] = [HOLD, LOSS_HOLD];
pub const ALL_HOLDS: [&str; 3] = [HOLD, LOSS_HOLD, COPY_HOLD];

/// The wait between writing and reading back, where a store ignores conditions: longer than two hosts take from looking to writing.
const SETTLES: std::time::Duration = std::time::Duration::from_secs(3);

/// `run.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunMarker {
    pub process: ProcessIdentity,
    /// A value that no other run has.
    #[serde(default)]
    pub nonce: String,
    /// The run's id in the ledger.
    pub run: Option<i64>,
    /// The identity of the database that is dumped.
    pub identity: Option<Identity>,
    pub started_at: DateTime<Utc>,
    /// When the set had its manifest: from then on only a deletion with its own marker ends it. None: it had none yet, or an earlier release made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<DateTime<Utc>>,
}

impl RunMarker {
    /// Returns whether both are of one run, or one copy, in one process.
    pub fn is_of(&self, other: &Self) -> bool {
        self.process == other.process && self.nonce == other.nonce && self.started_at == other.started_at
    }

    /// Returns whether nothing may be written any more by whoever wrote it: the set had its manifest, or the process is known to be dead.
    pub fn is_over(&self) -> bool {
        self.completed_at.is_some() || self.process.is_known_dead()
    }
}

/// `deleting.json`: the decision that the set is deleted, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeletingMarker {
    pub process: ProcessIdentity,
    pub identity: Option<Identity>,
    pub reasons: Vec<String>,
    pub started_at: DateTime<Utc>,
}

/// `hold.json`: the set stays until that time, whatever the rules say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub until: DateTime<Utc>,
    pub reason: String,
    /// The set that lost what this one has; accepting it ends the hold.
    #[serde(default)]
    pub because_of: Option<String>,
    /// It holds this copy alone, while another one is made of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_copy: bool,
}

impl Hold {
    /// Returns whether it is held in case of doubt: the hold cannot be read, or lacks a valid signature.
    pub fn is_doubted(&self) -> bool {
        self.until == DateTime::<Utc>::MAX_UTC
    }
}

/// Takes the first free name at or after `name`: two runs may start within one second, on two hosts. From then on the folder belongs to
/// this run.
pub async fn claim(store: &Store, name: &SetName, marker: &RunMarker) -> Result<SetName> {
    let mut name = name.clone();
    for _ in 0..60 {
        if claim_exactly(store, &name, marker).await? {
            return Ok(name);
        }
        name.taken_at += chrono::Duration::seconds(1);
    }
    anyhow::bail!("the sixty names from {name} on are taken")
}

/// Takes this name and no other; false when it is taken.
pub async fn claim_exactly(store: &Store, name: &SetName, marker: &RunMarker) -> Result<bool> {
    // A condition that a store accepts and ignores is worse than none.
    let keeps_conditions = store.can_put_if().await.unwrap_or_else(|error| {
        tracing::debug!("{error:#}");
        false
    });
    let key = name.key(RUN);
    let content = store.to_json(&key, marker)?;
    if keeps_conditions {
        return Ok(store.put_if(&key, content, Precondition::Absent).await?.is_some());
    }
    if store.stat(&key).await?.is_some() {
        return Ok(false);
    }
    store.put(&key, content.clone()).await?;
    // Two hosts may have looked in the same second: the last writer gets the name, and the other one continues.
    tokio::time::sleep(SETTLES).await;
    Ok(store.get(&key).await?.as_ref() == Some(&content))
}

/// Returns None if there is no such marker. A marker that cannot be read, or lacks a valid signature where the store has a key, is an error: its content is
/// unknown.
pub async fn read<T: DeserializeOwned + Bounded>(store: &Store, name: &SetName, object: &str) -> Result<Option<T>> {
    let key = name.key(object);
    let Some((marker, signature)) = store.get_json(&key).await?.transpose()? else { return Ok(None) };
    anyhow::ensure!(signature.is_ours(), "{}: {}", store.location(&key), signature.in_words());
    Ok(Some(marker))
}

pub async fn write<T: Serialize>(store: &Store, name: &SetName, object: &str, marker: &T) -> Result<()> {
    store.put_json(&name.key(object), marker).await
}

/// Says in `run.json` that the set is complete. Where that may not be overwritten, nothing says it, and the set is as good.
pub async fn say_complete(store: &Store, name: &SetName) {
    let saying = async {
        let Some(marker) = read::<RunMarker>(store, name, RUN).await? else { return Ok(()) };
        write(store, name, RUN, &RunMarker { completed_at: Some(Utc::now()), ..marker }).await
    };
    if let Err(error) = saying.await {
        tracing::debug!("{error:#}");
    }
}

impl Bounded for RunMarker {
    fn check(&self) -> Result<()> {
        self.completed_at.iter().try_for_each(|at| bounds::time("completed_at", *at))?;
        bounds::time("started_at", self.started_at)
    }
}

impl Bounded for DeletingMarker {
    fn check(&self) -> Result<()> {
        bounds::time("started_at", self.started_at)
    }
}

impl Bounded for Hold {
    fn check(&self) -> Result<()> {
        bounds::time("until", self.until)
    }
}
