//! Where one stands: whether each database has a backup that counts, what is late, what failed, and the next step. `pgtend` alone, `pgtend doctor`, the
//! digest and the status page judge by it.

mod database;
pub mod fleets;
pub mod found;
mod history;
mod judge;
pub mod late;
pub mod left;
pub mod read;
mod safety;
mod say;
mod servers;
pub mod stores;

use chrono::{DateTime, Utc};

pub use self::database::{Anothers, Backup, Lost, OfDatabase, Unasked};
pub use self::late::Late;
pub use self::safety::Safety;
pub use self::say::{Configured, Failed, Standing, Step, Unread};
use super::job::Folder;
use crate::config::Config;

/// Looks at what a configuration leads to. Each source is asked for some seconds; what does not answer is said, and is no error.
pub async fn of(config: &Config, folder: &Folder, now: DateTime<Utc>) -> Standing {
    read::all(config.path.display().to_string(), config, folder, now).await
}
