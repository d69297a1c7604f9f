//! What is to be told of runs: a queue that all processes share, and how each job stands by what was told last.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;

use super::Ledger;
use super::rows::Key;

/// A message that did not arrive within this time, in days, is given up
const TRIED_DAYS: i32 = 1;
/// after so many tries at least: where timers alone run, a week may pass between two.
const TRIES_LEAST: i32 = 6;
/// A message for a place that is not in the configuration is given up after so many days: another host may have it.
const UNKNOWN_DAYS: i32 = 7;

/// Messages that nobody got are said for so many days: after this time who was to be told knows.
const SAID_DAYS: i32 = 14;
/// What waits for a place that another host may have is said when nobody has taken it for so long, in seconds.
const UNTAKEN_SECONDS: f64 = 3600.0;

/// A process that takes messages has this long to send them; then another one takes them.
const SENDING_SECONDS: f64 = 120.0;

/// The most events of one message.
const TAKEN_MOST: i64 = 1000;

/// Messages are kept this long, in days; a monthly digest must find its last one.
const KEPT_DAYS: i32 = 100;

/// An event that waits for a place.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Waiting {
    pub id: i64,
    pub target: String,
    pub event: Json<Value>,
    /// This attempt included.
    pub attempts: i32,
}

/// An event of which nobody was told in its time.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct GivenUp {
    pub target: String,
    pub event: Json<Value>,
    pub attempts: i32,
    pub error: Option<String>,
}

/// Messages to one place that nobody got.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Untold {
    pub target: String,
    /// It is one of the places that were asked for.
    pub is_configured: bool,
    /// Or they wait for a place that is in another configuration, or in none.
    pub is_given_up: bool,
    pub messages: i64,
    /// When the first of them came.
    pub since: DateTime<Utc>,
    /// Why the last try failed.
    pub error: Option<String>,
}

impl Ledger {
    /// Puts an event into the queue, once for each place. Returns the rows' numbers.
    pub async fn put_message(&self, targets: &[&str], event: &Value) -> Result<Vec<i64>> {
        let sql =
            "INSERT INTO pgtend.messages (target, event) SELECT target, $2 FROM unnest($1::text[]) AS t (target) RETURNING id";
        let query = sqlx::query_scalar(sql).bind(targets).bind(Json(event));
        self.query("write a message", query.fetch_all(&self.pool)).await
    }

    /// Returns whether the digest of a tick is in the queue, or was sent.
    pub async fn has_digest(&self, target: &str, tick: DateTime<Utc>) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM pgtend.messages WHERE target = $1 AND tick = $2)";
        let query = sqlx::query_scalar(sql).bind(target).bind(tick);
        self.query("look for a digest", query.fetch_one(&self.pool)).await
    }

    /// Returns whether the end of a run is in the queue, or was sent.
    pub async fn has_message_of(&self, run: i64) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM pgtend.messages WHERE event -> 'run' = to_jsonb($1))";
        self.query("look for a message", sqlx::query_scalar(sql).bind(run).fetch_one(&self.pool)).await
    }

    /// Puts the digest of a tick into the queue, unless another process has.
    pub async fn put_digest(&self, target: &str, tick: DateTime<Utc>, event: &Value) -> Result<()> {
        let sql = "INSERT INTO pgtend.messages (target, tick, event) VALUES ($1, $2, $3) ON CONFLICT (target, tick) DO NOTHING";
        let query = sqlx::query(sql).bind(target).bind(tick).bind(Json(event));
        self.query("write a digest", query.execute(&self.pool)).await?;
        Ok(())
    }

    /// Takes what waits for these places, for this process to send. New events of a place wait until none has come for `quiet`, or the first has waited
    /// for `patience`: many that come together are one message.
    pub async fn take_messages(&self, targets: &[&str], quiet: Duration, patience: Duration) -> Result<Vec<Waiting>> {
        self.query(
            "take messages",
            sqlx::query_as(
                "WITH waiting AS (
                    SELECT id, target, at, attempts FROM pgtend.messages
                    WHERE target = ANY ($1) AND sent_at IS NULL AND next_at <= clock_timestamp()),
                 ready AS (
                    SELECT target FROM waiting GROUP BY target
                    HAVING coalesce(max(at) FILTER (WHERE attempts = 0) <= clock_timestamp() - make_interval(secs => $2), true)
                        OR min(at) FILTER (WHERE attempts = 0) <= clock_timestamp() - make_interval(secs => $3)),
                 taken AS (
                    SELECT m.id FROM pgtend.messages m
                    WHERE m.id IN (SELECT id FROM waiting JOIN ready USING (target) ORDER BY id LIMIT $4)
                      AND m.sent_at IS NULL AND m.next_at <= clock_timestamp()
                    ORDER BY m.id FOR UPDATE SKIP LOCKED)
                 UPDATE pgtend.messages m SET attempts = m.attempts + 1, next_at = clock_timestamp() + make_interval(secs => $5)
                 FROM taken WHERE m.id = taken.id RETURNING m.id, m.target, m.event, m.attempts",
            )
            .bind(targets)
            .bind(quiet.as_secs_f64())
            .bind(patience.as_secs_f64())
            .bind(TAKEN_MOST)
            .bind(SENDING_SECONDS)
            .fetch_all(&self.pool),
        )
        .await
    }

    /// Returns whether nobody has tried to send one of these yet.
    pub async fn is_untried(&self, ids: &[i64]) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM pgtend.messages WHERE id = ANY ($1) AND attempts = 0)";
        self.query("look for messages", sqlx::query_scalar(sql).bind(ids).fetch_one(&self.pool)).await
    }

    /// Records that messages have arrived.
    pub async fn messages_sent(&self, ids: &[i64]) -> Result<()> {
        let sql = "UPDATE pgtend.messages SET sent_at = clock_timestamp(), error = NULL WHERE id = ANY ($1)";
        self.query("record a message", sqlx::query(sql).bind(ids).execute(&self.pool)).await?;
        Ok(())
    }

    /// Records why messages have not arrived, and the pause of each in seconds until it may be tried again.
    pub async fn messages_failed(&self, pauses: &[(i64, f64)], error: &str) -> Result<()> {
        let (ids, seconds): (Vec<i64>, Vec<f64>) = pauses.iter().copied().unzip();
        let sql = "UPDATE pgtend.messages m SET error = $3, next_at = clock_timestamp() + make_interval(secs => p.seconds)
                   FROM unnest($1::bigint[], $2::float8[]) AS p (id, seconds) WHERE m.id = p.id AND m.sent_at IS NULL";
        let query = sqlx::query(sql).bind(ids).bind(seconds).bind(error);
        self.query("record a message", query.execute(&self.pool)).await?;
        Ok(())
    }

    /// Gives up what was tried for a day, and what waits for a place that nobody has. Returns it, once: `next_at` is infinite then.
    pub async fn give_up_messages(&self, targets: &[&str]) -> Result<Vec<GivenUp>> {
        self.query(
            "give up messages",
            sqlx::query_as(
                "UPDATE pgtend.messages SET next_at = 'infinity'
                 WHERE sent_at IS NULL AND next_at <= clock_timestamp()
                   AND (target = ANY ($1) AND attempts >= $2 AND at < clock_timestamp() - make_interval(days => $3)
                        OR target <> ALL ($1) AND at < clock_timestamp() - make_interval(days => $4))
                 RETURNING target, event, attempts, error",
            )
            .bind(targets)
            .bind(TRIES_LEAST)
            .bind(TRIED_DAYS)
            .bind(UNKNOWN_DAYS)
            .fetch_all(&self.pool),
        )
        .await
    }

    /// Returns what nobody got: what was given up, until a later message to the same place arrived, and what waits for a place that is none of these.
    pub async fn untold_messages(&self, targets: &[&str]) -> Result<Vec<Untold>> {
        self.query(
            "look for messages that nobody got",
            sqlx::query_as(
                "SELECT target, target = ANY ($1) AS is_configured, next_at = 'infinity' AS is_given_up, count(*) AS messages, min(at) AS since,
                        (array_agg(error ORDER BY id DESC) FILTER (WHERE error IS NOT NULL))[1] AS error
                 FROM pgtend.messages m
                 WHERE sent_at IS NULL AND at > clock_timestamp() - make_interval(days => $2)
                   AND CASE WHEN next_at = 'infinity'
                            THEN NOT EXISTS (SELECT FROM pgtend.messages l WHERE l.target = m.target AND l.id > m.id AND l.sent_at IS NOT NULL)
                            ELSE target <> ALL ($1) AND next_at < clock_timestamp() - make_interval(secs => $3) END
                 GROUP BY target, next_at = 'infinity' ORDER BY target, is_given_up",
            )
            .bind(targets)
            .bind(SAID_DAYS)
            .bind(UNTAKEN_SECONDS)
            .fetch_all(&self.pool),
        )
        .await
    }

    /// Sets the warning of these runs that begins so, or takes it away.
    pub async fn set_warning(&self, runs: &[i64], beginning: &str, warning: Option<&str>) -> Result<()> {
        self.query(
            "record a warning",
            sqlx::query(
                "UPDATE pgtend.runs SET report = jsonb_set(
                    coalesce(report, '{\"summary\": \"\", \"facts\": {}, \"warnings\": []}'), '{warnings}',
                    coalesce((SELECT jsonb_agg(w ORDER BY place) FROM jsonb_array_elements_text(report -> 'warnings') WITH ORDINALITY AS a (w, place)
                              WHERE NOT starts_with(w, $2)), '[]')
                    || CASE WHEN $3::text IS NULL THEN '[]' ELSE jsonb_build_array($3::text) END)
                 WHERE id = ANY ($1) AND outcome IS NOT NULL",
            )
            .bind(runs)
            .bind(beginning)
            .bind(warning)
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// Records that a failure of the job is told. Returns whether it is the first since the job was well.
    pub async fn told_failed(&self, job: &str, database: &str) -> Result<bool> {
        let sql = "INSERT INTO pgtend.told AS t (job, database, failed) VALUES ($1, $2, true)
                   ON CONFLICT (job, database) DO UPDATE SET failed = true WHERE NOT t.failed";
        let told = self.query("record what was told", sqlx::query(sql).bind(job).bind(database).execute(&self.pool)).await?;
        Ok(told.rows_affected() > 0)
    }

    /// Returns the jobs of which a failure is told on this database, or on this host.
    pub async fn told_on(&self, database: &str) -> Result<Vec<String>> {
        let sql = "SELECT job FROM pgtend.told WHERE database = $1 AND failed";
        self.query("read what was told", sqlx::query_scalar(sql).bind(database).fetch_all(&self.pool)).await
    }

    /// Records that these jobs are late. Returns those of which that was not told yet.
    pub async fn told_late(&self, late: &[(Key, DateTime<Utc>)]) -> Result<Vec<Key>> {
        let jobs: Vec<&str> = late.iter().map(|((job, _), _)| job.as_str()).collect();
        let databases: Vec<&str> = late.iter().map(|((_, database), _)| database.as_str()).collect();
        let ticks: Vec<DateTime<Utc>> = late.iter().map(|(_, tick)| *tick).collect();
        let sql = "INSERT INTO pgtend.told AS t (job, database, late_since) SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[])
                   ON CONFLICT (job, database) DO UPDATE SET late_since = excluded.late_since WHERE t.late_since IS NULL
                   RETURNING job, database";
        let query = sqlx::query_as(sql).bind(jobs).bind(databases).bind(ticks);
        self.query("record what was told", query.fetch_all(&self.pool)).await
    }

    /// Records that these jobs are well. Returns those of which something else was told, each with since when it was late.
    pub async fn told_well(&self, keys: &[Key]) -> Result<Vec<(String, String, Option<DateTime<Utc>>)>> {
        let jobs: Vec<&str> = keys.iter().map(|(job, _)| job.as_str()).collect();
        let databases: Vec<&str> = keys.iter().map(|(_, database)| database.as_str()).collect();
        let sql = "DELETE FROM pgtend.told t USING unnest($1::text[], $2::text[]) AS k (job, database)
                   WHERE t.job = k.job AND t.database = k.database RETURNING t.job, t.database, t.late_since";
        let query = sqlx::query_as(sql).bind(jobs).bind(databases);
        self.query("record what was told", query.fetch_all(&self.pool)).await
    }

    /// Returns the jobs of which it was told that they are late.
    pub async fn all_told_late(&self) -> Result<Vec<(String, String, DateTime<Utc>)>> {
        let sql = "SELECT job, database, late_since FROM pgtend.told WHERE late_since IS NOT NULL";
        self.query("read what was told", sqlx::query_as(sql).fetch_all(&self.pool)).await
    }

    /// Deletes messages that are old.
    pub async fn prune_messages(&self) -> Result<()> {
        let sql = "DELETE FROM pgtend.messages WHERE at < clock_timestamp() - make_interval(days => $1)";
        self.query("prune the messages", sqlx::query(sql).bind(KEPT_DAYS).execute(&self.pool)).await?;
        Ok(())
    }
}
