//! Where one stands, as JSON: `outputs::before_runs::Standing` describes it.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::run::notify::untold;
use crate::run::standing::fleets::Fleet;
use crate::run::standing::{Configured, Standing};

impl Standing {
    pub fn as_json(&self, now: DateTime<Utc>) -> Value {
        let next = self.next();
        let databases = self.databases.iter().map(|database| {
            let backup = database.backup.as_ref().ok().and_then(Option::as_ref).map(|backup| {
                json!({
                    "set": backup.set,
                    "store": backup.store,
                    "began_at": backup.began_at,
                    "age_seconds": (now - backup.began_at).num_seconds().max(0),
                    "restored_at": backup.restored_at,
                    "refused_by": backup.refused_by,
                })
            });
            let unknown = database.backup.as_ref().err().or(database.unsure.as_ref());
            let unasked = database.unasked.as_ref().map(|unasked| &unasked.why);
            json!({ "database": database.name, "job": database.job, "newest": backup, "unsure": unknown, "unasked": unasked,
                "idle": database.idle, "unread": database.unread, "missing_in": database.missing_in, "lost": database.lost.as_ref().map(|lost| json!({ "set": lost.set, "store": lost.store, "why": lost.why, "refused_by": lost.refused_by })) })
        });
        let late = self.late.iter().map(|late| {
            json!({ "job": late.job, "database": late.database, "tick": late.tick, "last_success_at": late.last_success_at })
        });
        let failed = self.failed.iter().map(|failed| {
            json!({ "run": failed.run, "job": failed.job, "database": failed.database, "at": failed.at, "outcome": failed.outcome, "error": failed.error })
        });
        let (mistakes, stores, jobs) = match self.configured {
            Configured::No => (0, 0, 0),
            Configured::WithMistakes(count) => (count, 0, 0),
            Configured::Yes { stores, jobs } => (0, stores, jobs),
        };
        json!({
            "file": self.file,
            "configured": matches!(self.configured, Configured::Yes { .. }),
            "mistakes": mistakes,
            "stores": stores,
            "jobs": jobs,
            "broken": self.broken,
            "databases": databases.collect::<Vec<_>>(),
            "late": late.collect::<Vec<_>>(),
            "failed": failed.collect::<Vec<_>>(),
            "fleets": self.fleets.iter().map(Fleet::as_json).collect::<Vec<_>>(),
            "gone": self.gone.iter().map(|gone| json!({ "database": gone.database, "gone_at": gone.gone_at })).collect::<Vec<_>>(),
            "uncovered": self.uncovered,
            "left_out": self.left_out.iter().map(|left_out| json!({ "database": left_out.database, "why": left_out.why, "since": left_out.since })).collect::<Vec<_>>(),
            "untold": self.untold.iter().map(untold::as_json).collect::<Vec<_>>(),
            "unread": self.unread.iter().map(|unread| &unread.why).collect::<Vec<_>>(),
            "next": { "command": next.command, "why": next.why },
        })
    }
}
