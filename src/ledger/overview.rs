//! What pages with very many jobs ask: few columns, and few rows of each job.

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;

use super::Ledger;
use super::rows::{Key, MaybeOutcome, Row};

/// More runs than this are not under way at once, or are not shown.
const UNDER_WAY: i64 = 1000;

/// The attempts of a run; a job may have no more.
const ATTEMPTS: i64 = 1000;

/// A run that has ended, in as few columns as a table of very many needs.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Past {
    /// The number of its key in the question, from 1.
    pub key: i64,
    pub id: i64,
    pub trigger: String,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    #[sqlx(try_from = "Option<String>")]
    pub outcome: MaybeOutcome,
    /// Its first 500 characters.
    pub error: Option<String>,
    /// The warnings of its report, if there are any; anything, where another program wrote the row.
    pub warnings: Option<Json<Value>>,
    /// The fact `dump_bytes`.
    pub dump_bytes: Option<Json<Value>>,
}

/// How many runs of a job began in one part of a time, and how they ended.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Began {
    pub job: String,
    /// The number of the part, from 0.
    pub slot: i32,
    #[sqlx(try_from = "Option<String>")]
    pub outcome: MaybeOutcome,
    pub runs: i64,
}

/// The columns of [`Past`], of rows `r`.
macro_rules! past {
    () => {
        "r.id, r.trigger, r.started_at, r.finished_at, r.outcome, left(r.error, 500) AS error,
         nullif(r.report -> 'warnings', '[]') AS warnings, r.report #> '{facts,dump_bytes}' AS dump_bytes"
    };
}

/// The ended runs of the key `k` that say something about the health of its job: no manual prune or restore.
macro_rules! of_key {
    () => {
        "FROM pgtend.runs r WHERE r.job = k.job AND r.database = k.database AND r.outcome IS NOT NULL
         AND r.task NOT LIKE 'backups %' AND r.task NOT LIKE 'archives %'"
    };
}

impl Ledger {
    /// Returns the last `count` ended runs of each key, the newest first.
    pub async fn past(&self, keys: &[Key], count: i64) -> Result<Vec<Past>> {
        let sql = concat!(
            "SELECT k.key, p.* FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (job, database, key)
             CROSS JOIN LATERAL (SELECT ",
            past!(),
            " ",
            of_key!(),
            " ORDER BY r.id DESC LIMIT $3) p ORDER BY p.id DESC"
        );
        self.of_keys("read the last runs", sql, keys, Some(count)).await
    }

    /// Returns of each key the last ended run, if that proves nothing (it was skipped or cancelled) also the last one that does; the newest first.
    pub async fn latest(&self, keys: &[Key]) -> Result<Vec<Past>> {
        let sql = concat!(
            "SELECT k.key, p.* FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (job, database, key)
             CROSS JOIN LATERAL (SELECT ",
            past!(),
            " ",
            of_key!(),
            " ORDER BY r.id DESC LIMIT 1) p
             UNION ALL
             SELECT k.key, p.* FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS k (job, database, key)
             CROSS JOIN LATERAL (SELECT r.id, r.outcome ",
            of_key!(),
            " ORDER BY r.id DESC LIMIT 1) l
             CROSS JOIN LATERAL (SELECT ",
            past!(),
            " ",
            of_key!(),
            " AND r.outcome NOT IN ('skipped', 'cancelled') ORDER BY r.id DESC LIMIT 1) p
             WHERE l.outcome IN ('skipped', 'cancelled')
             ORDER BY id DESC"
        );
        self.of_keys("read the last run of each job", sql, keys, None).await
    }

    /// Returns the last `count` runs of each key that left facts, whole.
    pub async fn last_reports(&self, keys: &[Key], count: i64) -> Result<Vec<Row>> {
        let sql = "SELECT p.* FROM unnest($1::text[], $2::text[]) AS k (job, database)
             CROSS JOIN LATERAL (SELECT * FROM pgtend.runs r WHERE r.job = k.job AND r.database = k.database AND r.report -> 'facts' <> '{}'
                                   AND strpos(r.task, ' ') = 0 AND r.outcome IN ('succeeded', 'failed')
                                 ORDER BY r.id DESC LIMIT $3) p";
        self.of_keys("read the last reports", sql, keys, Some(count)).await
    }

    /// Returns the runs under way, the newest first.
    pub async fn runs_under_way(&self) -> Result<Vec<Row>> {
        let sql = "SELECT * FROM pgtend.runs WHERE outcome IS NULL ORDER BY id DESC LIMIT $1";
        self.query("look for runs under way", sqlx::query_as(sql).bind(UNDER_WAY).fetch_all(&self.pool)).await
    }

    /// Returns the last runs that need attention, the newest first, whole, of the last 100,000 runs: where none failed, no more are read.
    pub async fn last_failures(&self, count: i64) -> Result<Vec<Row>> {
        let sql = "SELECT * FROM pgtend.runs WHERE outcome IN ('failed', 'timed_out', 'crashed', 'cancelled')
                     AND task NOT LIKE 'backups %' AND task NOT LIKE 'archives %'
                     AND id > (SELECT coalesce(max(id), 0) - 100000 FROM pgtend.runs) ORDER BY id DESC LIMIT $1";
        self.query("look for failures", sqlx::query_as(sql).bind(count).fetch_all(&self.pool)).await
    }

    /// Returns all attempts of the run whose first attempt is this, in order.
    pub async fn attempts(&self, first: i64) -> Result<Vec<Row>> {
        let sql = "SELECT * FROM pgtend.runs WHERE id = $1 OR retry_of = $1 ORDER BY attempt, id LIMIT $2";
        self.query("read the attempts of a run", sqlx::query_as(sql).bind(first).bind(ATTEMPTS).fetch_all(&self.pool)).await
    }

    /// Counts the runs that began since then, by job, outcome, and part of so many seconds.
    pub async fn began_since(&self, since: DateTime<Utc>, slot_seconds: i32) -> Result<Vec<Began>> {
        let sql =
            "SELECT job, floor(extract(epoch FROM started_at - $1) / $2)::int AS slot, outcome, count(*) AS runs FROM pgtend.runs
                   WHERE started_at >= $1 AND strpos(task, ' ') = 0 GROUP BY 1, 2, 3 LIMIT 20000";
        self.query("count the runs of a day", sqlx::query_as(sql).bind(since).bind(slot_seconds).fetch_all(&self.pool)).await
    }

    async fn of_keys<T>(&self, what: &str, sql: &'static str, keys: &[Key], count: Option<i64>) -> Result<Vec<T>>
    where
        T: Send + Unpin + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        let jobs: Vec<&str> = keys.iter().map(|(job, _)| job.as_str()).collect();
        let databases: Vec<&str> = keys.iter().map(|(_, database)| database.as_str()).collect();
        let mut query = sqlx::query_as(sql).bind(jobs).bind(databases);
        if let Some(count) = count {
            query = query.bind(count);
        }
        self.query(what, query.fetch_all(&self.pool)).await
    }
}
