//! The options that say which sets or batches a command is about.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::base::fault::{Fault, Kind};
use crate::config::Config;
use crate::store::Store;

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
        if let Some(name) = self.store.as_ref().filter(|name| !config.stores.contains_key(*name)) {
            let names = config.stores.keys().cloned().collect::<Vec<_>>().join(", ");
            let message = format!("the configuration has no store `{name}`; it has: {names}");
            return Err(Fault::new(Kind::Configuration, message).into());
        }
        let mut stores = Vec::new();
        for (name, configured) in &config.stores {
            if self.store.as_ref().is_none_or(|wanted| wanted == name) {
                stores.push((name.clone(), Store::open(configured).await.with_context(|| format!("store `{name}`"))?));
            }
        }
        Ok(stores)
    }

    pub(super) fn has_database(&self, name: &str) -> bool {
        self.database.as_ref().is_none_or(|database| database == name)
    }

    pub(super) fn has_job(&self, name: &str) -> bool {
        self.job.as_ref().is_none_or(|job| job == name)
    }
}
