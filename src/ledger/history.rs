//! Reads the history for people, pages, monitors and audits, and prunes it.

use std::collections::HashMap;

use anyhow::Result;
use chrono::{DateTime, Utc};
use sqlx::types::Json;

use super::Ledger;
use super::gone::{as_they_stand, died, error_of_dead, is_dead, outcome_of_dead};
use super::place::copied;
use super::rows::{Key, LastKnown, MaybeOutcome, Row};
use crate::base::progress;
use crate::ledger::report::{Outcome, Report};

/// The most rows that pruning deletes in one statement.
const PRUNE_ROWS: i64 = 100_000;
const PRUNE_STATEMENTS: usize = 10;

/// This many last runs of each job stay on a database that was found on a server: enough to tell a failure from a recovery.
const KEEP_LAST_FOUND: i64 = 3;

/// Says which rows to list.
#[derive(Clone, Debug, Default)]
pub struct Filter<'a> {
    pub job: Option<&'a str>,
    pub database: Option<&'a str>,
    pub outcome: Option<Outcome>,
    pub limit: i64,
}

/// A run in a list, without its report and its tools' output, which may be long, and which not everyone should read.
#[derive(Clone, Debug, serde::Serialize, sqlx::FromRow)]
pub struct Brief {
    pub id: i64,
    pub job: String,
    pub database: String,
    pub task: String,
    pub trigger: String,
    pub scheduled_for: Option<DateTime<Utc>>,
    pub attempt: i32,
    pub retry_of: Option<i64>,
    pub started_at: DateTime<Utc>,
    pub heartbeat_at: DateTime<Utc>,
    #[sqlx(json(nullable))]
    pub progress: Option<progress::PhaseState>,
    pub finished_at: Option<DateTime<Utc>>,
    #[sqlx(try_from = "Option<String>")]
    pub outcome: MaybeOutcome,
    /// The first line of the run's report.
    pub summary: Option<String>,
    pub error: Option<String>,
    pub retry_at: Option<DateTime<Utc>>,
    pub host: String,
    pub pid: i32,
    pub version: String,
}

/// The earlier runs of a job with the same rule.
#[derive(Clone, Copy, Debug, Default, sqlx::FromRow)]
pub struct RunsByRule {
    pub has_succeeded: bool,
    /// True when a person confirmed one of them.
    pub was_agreed: bool,
    /// True when a person confirmed one that was to leave no row.
    pub was_agreed_to_all: bool,
}

/// The rows that a [`Filter`] lets pass, the newest first: job, database, outcome, limit, the number that they are below, the runs of this process and the place
/// of the ledger are bound in this order.
macro_rules! filtered {
    () => {
        concat!(
            "FROM ",
            as_they_stand!("$6", "$7"),
            " WHERE ($1::text IS NULL OR job = $1) AND ($2::text IS NULL OR database = $2)
                AND ($3::text IS NULL OR outcome = $3) AND ($5::bigint IS NULL OR id < $5) ORDER BY id DESC LIMIT $4"
        )
    };
}

impl Ledger {
    /// Reads the runs whose report has this rule as a fact: which rows a job takes.
    pub async fn runs_by_rule(&self, job: &str, database: &str, rule: &str) -> Result<RunsByRule> {
        self.query(
            "look for runs by the same rule",
            sqlx::query_as(
                "SELECT coalesce(bool_or(outcome = 'succeeded'), false) AS has_succeeded,
                        coalesce(bool_or(report -> 'facts' ->> 'agreed' = 'true'), false) AS was_agreed,
                        coalesce(bool_or(report -> 'facts' ->> 'agreed_to_all' = 'true'), false) AS was_agreed_to_all
                 FROM pgtend.runs WHERE job = $1 AND database = $2 AND report -> 'facts' ->> 'rule' = $3",
            )
            .bind(job)
            .bind(database)
            .bind(rule)
            .fetch_one(&self.pool),
        )
        .await
    }

    /// Stores this report for a run that has not ended: it stays if the run ends without one.
    pub async fn note(&self, id: i64, report: &Report) -> Result<()> {
        self.query(
            "record the start of a run",
            sqlx::query("UPDATE pgtend.runs SET report = $2 WHERE id = $1").bind(id).bind(Json(report)).execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// Returns when each of them last succeeded, if ever. A manual command ("partition convert") is no success of its job, nor is what is dated in the future: the
    /// server's clock was wrong.
    pub async fn last_successes(&self, keys: &[Key]) -> Result<HashMap<Key, DateTime<Utc>>> {
        let jobs: Vec<&str> = keys.iter().map(|(job, _)| job.as_str()).collect();
        let databases: Vec<&str> = keys.iter().map(|(_, database)| database.as_str()).collect();
        let rows: Vec<(String, String, DateTime<Utc>)> = self
            .query(
                "look for the last successes",
                sqlx::query_as(
                    "SELECT k.job, k.database, r.finished_at FROM unnest($1::text[], $2::text[]) AS k (job, database)
                     CROSS JOIN LATERAL (SELECT finished_at FROM pgtend.runs r
                                         WHERE r.job = k.job AND r.database = k.database AND outcome = 'succeeded'
                                           AND strpos(task, ' ') = 0 AND finished_at < clock_timestamp() + interval '1 minute'
                                         ORDER BY finished_at DESC LIMIT 1) r",
                )
                .bind(jobs)
                .bind(databases)
                .fetch_all(&self.pool),
            )
            .await?;
        Ok(rows.into_iter().map(|(job, database, at)| ((job, database), at)).collect())
    }

    /// Returns the report of the last success of each that ended before `before` and has this fact, or has it with this value; with its end.
    pub async fn last_with_fact(
        &self,
        keys: &[Key],
        (fact, value): (&str, Option<&str>),
        before: DateTime<Utc>,
    ) -> Result<HashMap<Key, (DateTime<Utc>, Report)>> {
        let jobs: Vec<&str> = keys.iter().map(|(job, _)| job.as_str()).collect();
        let databases: Vec<&str> = keys.iter().map(|(_, database)| database.as_str()).collect();
        let rows: Vec<(String, String, DateTime<Utc>, Json<Report>)> = self
            .query(
                "look for the last reports",
                sqlx::query_as(
                    "SELECT k.job, k.database, r.finished_at, r.report FROM unnest($1::text[], $2::text[]) AS k (job, database)
                     CROSS JOIN LATERAL (SELECT finished_at, report FROM pgtend.runs r
                                         WHERE r.job = k.job AND r.database = k.database AND outcome = 'succeeded'
                                           AND finished_at < $4 AND report -> 'facts' ->> $3 = coalesce($5, report -> 'facts' ->> $3)
                                         ORDER BY finished_at DESC LIMIT 1) r",
                )
                .bind(jobs)
                .bind(databases)
                .bind(fact)
                .bind(before)
                .bind(value)
                .fetch_all(&self.pool),
            )
            .await?;
        Ok(rows.into_iter().map(|(job, database, at, report)| ((job, database), (at, report.0))).collect())
    }

    /// Counts the runs that ended after `since`: those that succeeded, and those that a person should look at. A run
    /// whose next attempt is due and has not begun is one of them.
    pub async fn ended_since(&self, since: DateTime<Utc>) -> Result<(i64, i64)> {
        self.query(
            "count runs",
            sqlx::query_as(
                "SELECT count(*) FILTER (WHERE outcome = 'succeeded'), count(*) FILTER (WHERE outcome NOT IN ('succeeded', 'skipped'))
                 FROM pgtend.runs WHERE started_at >= $1 - interval '1 day' AND finished_at >= $1
                   AND (retry_at IS NULL OR retry_at <= clock_timestamp())",
            )
            .bind(since)
            .fetch_one(&self.pool),
        )
        .await
    }

    /// Returns the jobs that are under way, each with its database.
    pub async fn under_way(&self, limit: i64) -> Result<Vec<Key>> {
        let runs = sqlx::query_as("SELECT DISTINCT job, database FROM pgtend.runs WHERE outcome IS NULL LIMIT $1").bind(limit);
        self.query("look for runs under way", runs.fetch_all(&self.pool)).await
    }

    /// Returns since when schedulers know each job on each database, in its present schedule.
    pub async fn known_since(&self) -> Result<HashMap<Key, DateTime<Utc>>> {
        let rows: Vec<(String, String, DateTime<Utc>)> = self
            .query(
                "read the schedules",
                sqlx::query_as("SELECT job, database, known_since FROM pgtend.schedules").fetch_all(&self.pool),
            )
            .await?;
        Ok(rows.into_iter().map(|(job, database, at)| ((job, database), at)).collect())
    }

    /// Returns the schedules that these jobs had when a scheduler last knew them, and their last successes, on the databases that are not gone.
    pub async fn last_known(&self, jobs: &[&str]) -> Result<Vec<LastKnown>> {
        self.query(
            "read the last schedules",
            sqlx::query_as(
                "SELECT k.job, k.database, s.schedule, s.known_since, r.finished_at AS last_success_at
                 FROM (SELECT job, database FROM pgtend.schedules WHERE job = ANY ($1)
                       UNION SELECT job, database FROM pgtend.runs WHERE job = ANY ($1)) k
                 LEFT JOIN pgtend.schedules s ON s.job = k.job AND s.database = k.database
                 LEFT JOIN LATERAL (SELECT finished_at FROM pgtend.runs r
                                    WHERE r.job = k.job AND r.database = k.database AND outcome = 'succeeded' AND strpos(task, ' ') = 0
                                      AND finished_at < clock_timestamp() + interval '1 minute'
                                    ORDER BY finished_at DESC LIMIT 1) r ON true
                 WHERE NOT EXISTS (SELECT FROM pgtend.databases d WHERE d.database = k.database AND d.gone_at IS NOT NULL)
                 ORDER BY k.job, k.database",
            )
            .bind(jobs)
            .fetch_all(&self.pool),
        )
        .await
    }

    /// Returns the last run that ended before this one, to recognize a recovery.
    pub async fn previous(&self, id: i64) -> Result<Option<Row>> {
        self.query(
            "look for the previous run",
            sqlx::query_as(
                "SELECT p.* FROM pgtend.runs r JOIN pgtend.runs p USING (job, database, task)
                 WHERE r.id = $1 AND p.id < r.id AND p.outcome <> 'skipped' ORDER BY p.id DESC LIMIT 1",
            )
            .bind(id)
            .fetch_optional(&self.pool),
        )
        .await
    }

    /// Returns rows, the newest first.
    pub async fn runs(&self, filter: &Filter<'_>) -> Result<Vec<Row>> {
        self.filtered(concat!("SELECT * ", filtered!()), filter, None).await
    }

    /// Returns the same without private details, for lists that others read.
    pub async fn runs_in_brief(&self, filter: &Filter<'_>) -> Result<Vec<Brief>> {
        self.runs_in_brief_before(filter, None).await
    }

    /// Returns of the same only runs with lower numbers than this: the next page.
    pub async fn runs_in_brief_before(&self, filter: &Filter<'_>, before: Option<i64>) -> Result<Vec<Brief>> {
        let sql = concat!(
            "SELECT id, job, database, task, trigger, scheduled_for, attempt, retry_of, started_at, heartbeat_at, progress,
                    finished_at, outcome, report->>'summary' AS summary, error, retry_at, host, pid, version ",
            filtered!()
        );
        self.filtered(sql, filter, before).await
    }

    async fn filtered<T>(&self, sql: &'static str, filter: &Filter<'_>, before: Option<i64>) -> Result<Vec<T>>
    where
        T: Send + Unpin + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        let outcome = filter.outcome.map(Outcome::name);
        let (own, place) = self.own_and_place().await?;
        let query = sqlx::query_as(sql).bind(filter.job).bind(filter.database).bind(outcome).bind(filter.limit).bind(before);
        self.query("list runs", query.bind(own).bind(place).fetch_all(&self.pool)).await
    }

    pub async fn run(&self, id: i64) -> Result<Option<Row>> {
        let (own, place) = self.own_and_place().await?;
        let sql = concat!("SELECT * FROM ", as_they_stand!("$2", "$3"), " WHERE id = $1");
        self.query("read a run", sqlx::query_as(sql).bind(id).bind(own).bind(place).fetch_optional(&self.pool)).await
    }

    /// Returns the last `count` runs of each, the newest first, without the stories of their reports. A manual prune or restore says nothing about the health
    /// of the job.
    pub async fn last_runs(&self, keys: &[Key], count: i64) -> Result<Vec<Row>> {
        let jobs: Vec<&str> = keys.iter().map(|(job, _)| job.as_str()).collect();
        let databases: Vec<&str> = keys.iter().map(|(_, database)| database.as_str()).collect();
        self.query(
            "read the last runs",
            sqlx::query_as(
                "SELECT r.* FROM unnest($1::text[], $2::text[]) AS k (job, database)
                 CROSS JOIN LATERAL (SELECT id, job, database, task, trigger, scheduled_for, attempt, retry_of, started_at, heartbeat_at, progress, finished_at,
                                            outcome, CASE jsonb_typeof(report) WHEN 'object' THEN report - 'story' ELSE report END AS report,
                                            error, stderr, retry_at, host, pid, version
                                     FROM pgtend.runs r WHERE r.job = k.job AND r.database = k.database
                                       AND task NOT LIKE 'backups %' AND task NOT LIKE 'archives %'
                                     ORDER BY id DESC LIMIT $3) r ORDER BY r.id DESC",
            )
            .bind(jobs)
            .bind(databases)
            .bind(count)
            .fetch_all(&self.pool),
        )
        .await
    }

    /// Deletes history that need not be kept. The last runs and the last success of each job stay. Of the many databases that are found on servers, less
    /// is kept.
    pub async fn prune(&self) -> Result<u64> {
        let mut deleted = 0;
        for _ in 0..PRUNE_STATEMENTS {
            let rows = self.prune_some().await?;
            deleted += rows;
            if rows < PRUNE_ROWS as u64 {
                break;
            }
        }
        Ok(deleted)
    }

    async fn prune_some(&self) -> Result<u64> {
        let deleted = self
            .query(
                "prune the history",
                sqlx::query(
                    "DELETE FROM pgtend.runs WHERE id IN (
                        SELECT id FROM (
                            SELECT r.id, started_at, outcome, retry_at, d.database IS NOT NULL AS was_found,
                                   row_number() OVER (PARTITION BY job, r.database ORDER BY r.id DESC) AS number,
                                   row_number() OVER (PARTITION BY job, r.database, strpos(task, ' ') = 0, outcome = 'succeeded' ORDER BY r.id DESC) AS alike
                            FROM pgtend.runs r LEFT JOIN pgtend.databases d ON d.database = r.database) r
                        WHERE started_at < clock_timestamp() - make_interval(secs => CASE WHEN was_found THEN $4 ELSE $1 END)
                          AND number > CASE WHEN was_found THEN $5 ELSE $2 END
                          AND outcome IS NOT NULL AND retry_at IS NULL AND NOT (outcome = 'succeeded' AND alike = 1)
                        LIMIT $3)",
                )
                .bind(self.keep.as_secs_f64())
                .bind(self.keep_last as i64)
                .bind(PRUNE_ROWS)
                .bind(self.keep_found.as_secs_f64())
                .bind(KEEP_LAST_FOUND)
                .execute(&self.pool),
            )
            .await?;
        Ok(deleted.rows_affected())
    }
}
