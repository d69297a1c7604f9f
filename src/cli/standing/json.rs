//! Where one stands, as JSON.

use chrono::{DateTime, Utc};

use super::say::{Configured, OfDatabase, Standing};
use crate::cli::fleets::Fleet;
use crate::cli::outputs::before_runs as printed;

impl Standing {
    pub fn as_json(&self, now: DateTime<Utc>) -> printed::Standing<'_> {
        let (mistakes, stores, jobs) = match self.configured {
            Configured::No => (0, 0, 0),
            Configured::WithMistakes(count) => (count, 0, 0),
            Configured::Yes { stores, jobs } => (0, stores, jobs),
        };
        printed::Standing {
            file: &self.file,
            configured: matches!(self.configured, Configured::Yes { .. }),
            mistakes,
            stores,
            jobs,
            broken: &self.broken,
            databases: self.databases.iter().map(|database| database.as_json(now)).collect(),
            late: &self.late,
            failed: &self.failed,
            fleets: self.fleets.iter().map(Fleet::as_json).collect(),
            gone: &self.gone,
            unread: &self.unread,
            next: self.next(),
        }
    }
}

impl OfDatabase {
    fn as_json(&self, now: DateTime<Utc>) -> printed::BackedUp<'_> {
        let (backup, unknown) = match &self.backup {
            Ok(backup) => (backup.as_ref(), self.unsure.as_deref()),
            Err(why) => (None, Some(why.as_str())),
        };
        let newest = backup.map(|backup| {
            let age_seconds = (now - backup.began_at).num_seconds().max(0).unsigned_abs();
            printed::NewestBackup { backup, age_seconds }
        });
        let (database, job) = (self.name.as_str(), self.job.as_deref());
        printed::BackedUp { database, job, newest, unsure: unknown, idle: self.idle, lost: self.lost.as_ref() }
    }
}
