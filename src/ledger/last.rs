//! How each job went last. One rule for all who judge it: a skipped or cancelled run proves nothing, nor does a manual command ("partition convert") or a run
//! under way; a run whose process is gone has crashed, also where nobody has marked it yet.

use std::collections::HashMap;

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};

use super::gone::{died, is_dead};
use super::place::copied;
use super::rows::{Key, MaybeOutcome, Row};
use super::{Ledger, report};

/// The last run of a job that proves something, where that did not succeed.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct FailedLast {
    pub id: i64,
    pub job: String,
    pub database: String,
    /// When it ended, or was last seen.
    pub at: DateTime<Utc>,
    #[sqlx(try_from = "Option<String>")]
    pub outcome: MaybeOutcome,
    pub error: Option<String>,
}

impl FailedLast {
    pub fn key(&self) -> Key {
        (self.job.clone(), self.database.clone())
    }
}

impl Ledger {
    /// Returns those of which the last run that proves something did not succeed.
    pub async fn failed_last(&self, keys: &[Key]) -> Result<Vec<FailedLast>> {
        let (jobs, databases) = columns(keys);
        let (own, place) = self.own_and_place().await?;
        let failed = sqlx::query_as(concat!(
            "SELECT r.id, k.job, k.database, coalesce(r.finished_at, r.heartbeat_at) AS at, coalesce(r.outcome, 'crashed') AS outcome,
                    CASE WHEN r.outcome IS NULL THEN ",
            died!(),
            " ELSE r.error END AS error
             FROM unnest($1::text[], $2::text[]) AS k (job, database)
             CROSS JOIN LATERAL (SELECT * FROM pgtend.runs r
                                 WHERE r.job = k.job AND r.database = k.database AND strpos(r.task, ' ') = 0
                                   AND (r.outcome NOT IN ('skipped', 'cancelled') OR ",
            is_dead!("$3"),
            " AND NOT (",
            copied!("$4"),
            ")) ORDER BY r.id DESC LIMIT 1) r
             WHERE r.outcome IS DISTINCT FROM 'succeeded' ORDER BY r.id DESC"
        ));
        let failed = failed.bind(jobs).bind(databases).bind(own).bind(place).fetch_all(&self.pool);
        self.query("look for what failed last", failed).await
    }

    /// Returns the last run of each, also one under way or skipped, without its report's story.
    pub async fn last_of_jobs(&self, keys: &[Key]) -> Result<Vec<Row>> {
        let (jobs, databases) = columns(keys);
        let (own, _) = self.own_and_place().await?;
        let last = sqlx::query_as(concat!(
            "SELECT r.* FROM unnest($1::text[], $2::text[]) AS k (job, database)
             CROSS JOIN LATERAL (SELECT id, job, database, task, trigger, scheduled_for, attempt, retry_of, started_at, heartbeat_at, progress, finished_at,
                                        CASE WHEN ",
            is_dead!("$3"),
            " THEN 'crashed' ELSE outcome END AS outcome,
                                        CASE jsonb_typeof(report) WHEN 'object' THEN report - 'story' ELSE report END AS report,
                                        error, stderr, retry_at, host, pid, version
                                 FROM pgtend.runs r
                                 WHERE r.job = k.job AND r.database = k.database AND strpos(r.task, ' ') = 0
                                 ORDER BY id DESC LIMIT 1) r ORDER BY r.id DESC"
        ));
        self.query("read the last run of each job", last.bind(jobs).bind(databases).bind(own).fetch_all(&self.pool)).await
    }

    /// Returns the newest set that each has proved: when it began, and its name. Of each only its last success with a proof is looked at.
    pub async fn proved_sets(&self, keys: &[Key], now: DateTime<Utc>) -> Result<HashMap<Key, (DateTime<Utc>, String)>> {
        let (jobs, databases) = columns(keys);
        let rows = sqlx::query_as(
            "SELECT k.job, k.database, r.began_at, r.name FROM unnest($1::text[], $2::text[]) AS k (job, database)
             CROSS JOIN LATERAL (SELECT report -> 'facts' ->> 'set_began_at' AS began_at, report -> 'facts' ->> 'set' AS name FROM pgtend.runs r
                                 WHERE r.job = k.job AND r.database = k.database AND outcome = 'succeeded'
                                   AND finished_at < $5 AND report -> 'facts' ->> $3 = $4
                                 ORDER BY finished_at DESC LIMIT 1) r
             WHERE r.began_at IS NOT NULL AND r.name IS NOT NULL",
        );
        let (fact, value) = report::PROVED;
        // A host's clock may be behind the server's.
        let rows = rows.bind(jobs).bind(databases).bind(fact).bind(value).bind(now + TimeDelta::days(1)).fetch_all(&self.pool);
        let rows: Vec<(String, String, String, String)> = self.query("look for what was proved", rows).await?;
        let proved = |(job, database, began_at, set): (String, String, String, String)| {
            Some(((job, database), (began_at.parse().ok()?, set)))
        };
        Ok(rows.into_iter().filter_map(proved).collect())
    }

    /// The runs of this process, and where the ledger stands.
    pub(super) async fn own_and_place(&self) -> Result<(Vec<i64>, serde_json::Value)> {
        let place = self.place().await?;
        Ok((self.own().iter().copied().collect(), place))
    }
}

fn columns(keys: &[Key]) -> (Vec<&str>, Vec<&str>) {
    keys.iter().map(|(job, database)| (job.as_str(), database.as_str())).unzip()
}
