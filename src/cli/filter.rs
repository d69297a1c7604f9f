//! The options that say which sets or batches a command is about.

use anyhow::{Context as _, Result};
use clap::Args;
use futures_util::future::join_all;

use crate::base::fault::{Fault, Kind};
use crate::config::{self, Config};
use crate::store::Store;
use crate::task::backup::copies::several::ensure_answers;

#[derive(Debug, Args)]
pub struct Filter {
    /// Only what is in this store
    #[arg(long, value_name = "NAME")]
    pub(super) store: Option<String>,
    /// Only what comes from this database
    #[arg(long, value_name = "NAME")]
    pub(super) database: Option<String>,
    /// Only what this job made
    #[arg(long, value_name = "NAME")]
    pub(super) job: Option<String>,
}

impl Filter {
    /// Opens the stores to search, each with its name. A store that the configuration does not have is an error.
    pub(super) async fn stores(&self, config: &Config) -> Result<Vec<(String, Store)>> {
        let mut stores = Vec::new();
        for (name, opened) in self.opened(config).await? {
            let store = opened.with_context(|| format!("store `{name}`"))?;
            stores.push((name, store));
        }
        Ok(stores)
    }

    /// The same, where one that cannot be opened stops no other.
    pub(super) async fn opened(&self, config: &Config) -> Result<Vec<(String, Result<Store>)>> {
        let mut stores = Vec::new();
        for (name, configured) in self.meant(config)? {
            stores.push((name.clone(), Store::open(configured).await));
        }
        Ok(stores)
    }

    /// All stores and sets.
    pub(super) fn everything() -> Self {
        Self { store: None, database: None, job: None }
    }

    /// Fails if the configuration does not have the store.
    pub(super) fn ensure_store(&self, config: &Config) -> Result<()> {
        self.meant(config).map(drop)
    }

    /// Reads the stores to search side by side, each by `read`. Of several, none is waited for that does not answer. Returns of each, in the order of
    /// the configuration, what was read or why it could not be.
    pub(super) async fn read_stores<T>(
        &self,
        config: &Config,
        read: impl AsyncFn(&Store) -> Result<T>,
    ) -> Result<Vec<(String, Result<(Store, T)>)>> {
        let meant = self.meant(config)?;
        let (are_several, read) = (meant.len() > 1, &read);
        let reading = meant.into_iter().map(|(name, configured)| async move {
            let of_store = async {
                let store = Store::open(configured).await?;
                if are_several {
                    ensure_answers(&store).await?;
                }
                let read = read(&store).await?;
                Ok((store, read))
            };
            (name.clone(), of_store.await)
        });
        Ok(join_all(reading).await)
    }

    fn meant<'c>(&self, config: &'c Config) -> Result<Vec<(&'c String, &'c config::Store)>> {
        if let Some(name) = self.store.as_ref().filter(|name| !config.stores.contains_key(*name)) {
            let names = config.stores.keys().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("the configuration has no store `{name}`; it has: {names}");
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        Ok(config.stores.iter().filter(|(name, _)| self.store.as_ref().is_none_or(|wanted| wanted == *name)).collect())
    }

    pub(super) fn has_database(&self, name: &str) -> bool {
        self.database.as_ref().is_none_or(|database| database == name)
    }

    pub(super) fn has_job(&self, name: &str) -> bool {
        self.job.as_ref().is_none_or(|job| job == name)
    }
}
