//! A batch's name belongs to the run that made its `.pending.json`, which was not there before. The object and the manifest of that name are written
//! by this run alone: those of another run on another server, which may have the same database name, job and store, have another name.

use anyhow::Result;

use super::batch::{BatchName, MANIFEST};
use super::manifest::Manifest;
use super::sealed;
use crate::store::Store;

/// The name is this run's.
pub(super) struct Claim {
    key: String,
    /// The pending file as this run wrote it last.
    content: Vec<u8>,
}

impl Claim {
    /// Takes the name: it is an error if it was taken before.
    pub async fn of(store: &Store, name: &BatchName, manifest: &Manifest) -> Result<Self> {
        let key = name.pending();
        let content = written(store, &key, manifest)?;
        anyhow::ensure!(store.put_new(&key, content.clone()).await?, is_taken(store, &key));
        let claim = Self { key, content };
        // A batch that was completed has no pending file any more.
        let is_free = claim.is_free(store, name).await;
        if is_free.is_err() {
            claim.give_up(store).await;
        }
        is_free.map(|()| claim)
    }

    async fn is_free(&self, store: &Store, name: &BatchName) -> Result<()> {
        let [object, encrypted] = name.objects();
        for key in [object, encrypted, format!("{name}{MANIFEST}")] {
            anyhow::ensure!(!store.exists_for_certain(&key).await?, is_taken(store, &key));
        }
        Ok(())
    }

    /// Removes the pending file, and none that another run wrote.
    async fn give_up(&self, store: &Store) {
        let given_up = async {
            let there = store.get_versioned(&self.key).await?.filter(|(content, _)| *content == self.content);
            if let Some((_, version)) = there {
                store.delete_if(&self.key, &version).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = given_up.await {
            tracing::warn!("{} stays: {error:#}", store.location(&self.key));
        }
    }

    /// Writes the pending file again, with what is known of the batch now. It is an error if another process has replaced or removed it: then the
    /// transaction must not commit.
    pub async fn renew(&mut self, store: &Store, manifest: &Manifest) -> Result<()> {
        let content = written(store, &self.key, manifest)?;
        let is_ours = store.put_over(&self.key, &self.content, content.clone()).await?;
        anyhow::ensure!(is_ours, "another process has changed or removed {} meanwhile", store.location(&self.key));
        self.content = content;
        Ok(())
    }
}

fn written(store: &Store, key: &str, manifest: &Manifest) -> Result<Vec<u8>> {
    store.to_json(key, &sealed::as_written(manifest, store.age_keys())?)
}

fn is_taken(store: &Store, key: &str) -> String {
    format!("{} already exists, and is not overwritten", store.location(key))
}
