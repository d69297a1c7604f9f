//! Runs on databases that share `max_concurrent` wait for each other before they take a slot of this process: thousands of a server, due in one moment,
//! hold up no other server. What other processes run counts later, when a run takes its place (`runner::places`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::config::places::{Limit, Shared};

/// The turns of each server, group or database: how many there are, and who takes them in what order.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<(String, u32), Arc<Semaphore>>>);

impl Turns {
    /// Waits for a turn; none is needed without `max_concurrent`.
    pub async fn take(&self, config: &Config, database: &str) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let Limit { most, with } = config.limit(database)?;
            let of = match with {
                Shared::Group(group) => group,
                Shared::Database(database) => format!("database {database}"),
            };
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry((of, most)).or_insert_with(|| Arc::new(Semaphore::new(most as usize))))
        };
        turns.acquire_owned().await.ok()
    }
}
