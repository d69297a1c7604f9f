//! Where one stands: whether each database has a backup that counts, what is late, what failed, and the next step. `pgtend` alone, `pgtend doctor`, the
//! digest and the status page judge by it.

pub mod fleets;
pub mod read;
mod say;

use chrono::{DateTime, Utc};

pub use self::say::{Backup, Configured, Failed, Late, Lost, OfDatabase, Standing, Step, Unasked, Unread};
use super::job::Folder;
use crate::config::Config;

/// Looks at what a configuration leads to. Each source is asked for some seconds; what does not answer is said, and is no error.
pub async fn of(config: &Config, folder: &Folder, now: DateTime<Utc>) -> Standing {
    read::all(config.path.display().to_string(), config, folder, now).await
}
