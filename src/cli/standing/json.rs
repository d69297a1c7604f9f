//! Where one stands, as JSON.

use chrono::{DateTime, Utc};

use crate::cli::outputs::before_runs as printed;
use crate::run::standing::{Configured, OfDatabase, Standing};

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
            fleets: &self.fleets,
            gone: &self.gone,
            uncovered: &self.uncovered,
            left_out: &self.left_out,
            untold: self.untold.iter().map(Into::into).collect(),
            unread: self.unread.iter().map(|unread| unread.why.as_str()).collect(),
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
        printed::BackedUp {
            database: &self.name,
            job: self.job.as_deref(),
            newest,
            unsure: unknown,
            unasked: self.unasked.as_ref().map(|unasked| unasked.why.as_str()),
            idle: self.idle,
            lost: self.lost.as_ref(),
            unread: &self.unread,
            missing_in: &self.missing_in,
        }
    }
}
