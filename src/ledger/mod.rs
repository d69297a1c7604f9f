//! The run history: schema `pgtend` in a PostgreSQL database. A run has its row before it acts; a process that finds a row whose
//! own process is gone marks it as crashed.
//!
//! All times are the server's, so that hosts whose clocks differ agree on which jobs are late.

mod fit;
mod found;
mod gone;
mod history;
mod last;
mod messages;
pub mod metrics;
mod overview;
mod place;
pub mod report;
mod rows;
mod schema;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
pub use found::{Changes, Gone, LeftOut, Remembered};
pub use gone::mark_locked;
pub use history::{Brief, Filter, RunsByRule};
pub use last::FailedLast;
pub use messages::{GivenUp, Untold, Waiting};
pub use overview::{Began, Past};
use prometheus_client::metrics::histogram::Histogram;
pub use rows::{Attempt, End, Key, KnownJob, LastKnown, MaybeOutcome, NewRun, Row, Trigger};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnection, PgPool};

use self::fit::Fit;
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Progress;
use crate::config::{self, Config};
use crate::ledger::report::Outcome;
use crate::pg;

/// A command has one connection for its queries, however many of them come at once: `max_sessions` counts on it (`config::sessions`).
const OF_A_COMMAND: u32 = 1;

/// This is enough for the planner, the pages and a few ends of runs at once; more would only wait for each other.
const OF_THE_SERVICE: u32 = 4;

/// No query of ours reads much: one that takes this long waits for a lock or for a server that is gone.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// The period, in seconds, of the heartbeat of a run that holds its lock; a run without a lock yet is connecting.
pub const HEARTBEAT_SECONDS: u64 = 5;

pub struct Ledger {
    settings: pg::Settings,
    pool: PgPool,
    keep: Duration,
    keep_last: u32,
    keep_found: Duration,
    migrated: AtomicBool,
    /// True if its schema is neither made nor migrated.
    is_to_read: bool,
    /// The database that it stands in, once it was reached.
    place: Mutex<Value>,
    /// The runs of this process that have no end yet: it knows best that they live.
    own: Mutex<BTreeSet<i64>>,
    query_seconds: Histogram,
}

impl Ledger {
    /// Returns the ledger for a command, or `None` without `[ledger]`. It does not connect yet.
    pub fn new(config: &Config) -> Result<Option<Self>> {
        Self::with_connections(config, OF_A_COMMAND)
    }

    pub fn for_the_service(config: &Config) -> Result<Option<Self>> {
        Self::with_connections(config, OF_THE_SERVICE)
    }

    fn with_connections(config: &Config, most: u32) -> Result<Option<Self>> {
        let Some(config::Ledger { database, keep, keep_last, keep_found }) = &config.ledger else { return Ok(None) };
        let configured = config.databases.get(database).context("the ledger's database is configured")?;
        let settings = configured.settings().with_context(|| format!("ledger database `{database}`"))?;
        Ok(Some(Self {
            pool: settings.pool(most),
            settings,
            keep: *keep,
            keep_last: *keep_last,
            keep_found: *keep_found,
            migrated: AtomicBool::new(false),
            is_to_read: false,
            place: Mutex::default(),
            own: Mutex::default(),
            query_seconds: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
        }))
    }

    /// Returns the ledger for those who only look: `None` without `[ledger]`, and before the first run made its schema.
    pub async fn to_read(config: &Config) -> Result<Option<Self>> {
        let Some(mut ledger) = Self::new(config)? else { return Ok(None) };
        ledger.is_to_read = true;
        Ok(ledger.is_made().await?.then_some(ledger))
    }

    /// Returns its location, for messages.
    pub fn display(&self) -> String {
        self.settings.display()
    }

    pub fn query_seconds(&self) -> Histogram {
        self.query_seconds.clone()
    }

    /// Returns the numbers of open connections and of idle ones.
    pub fn pool_use(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// Opens a separate connection, for a lock.
    pub async fn connect(&self) -> Result<PgConnection> {
        let connected = self.settings.connect().await.map_err(as_unreachable);
        connected.context("the ledger's database")
    }

    /// Writes the run's row. Returns `None` when that tick, or that attempt, already has a run.
    pub async fn begin(&self, run: &NewRun<'_>) -> Result<Option<i64>> {
        let (first, attempt) = match run.trigger {
            Trigger::Retry { first, attempt } => (Some(*first), *attempt),
            _ => (None, 1),
        };
        let begun: Option<i64> = self
            .query(
            "write a run's row",
            sqlx::query_scalar(
                "WITH new AS (
                    INSERT INTO pgtend.runs (job, database, task, trigger, scheduled_for, retry_of, attempt, host, pid, version, retries, progress, report)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING RETURNING id),
                 taken AS (
                    UPDATE pgtend.runs SET retry_at = NULL
                    WHERE retry_at IS NOT NULL AND $6 IN (id, retry_of) AND attempt < $7)
                 SELECT id FROM new",
            )
            .bind(run.job)
            .bind(run.database)
            .bind(run.task)
            .bind(run.trigger.name())
            .bind(run.trigger.tick())
            .bind(first)
            .bind(attempt as i32)
            .bind(host())
            .bind(std::process::id() as i32)
            .bind(env!("CARGO_PKG_VERSION"))
            .bind(run.retries as i32)
            .bind(json!({ "phase": "connect", "ledger": self.place().await? }))
            .bind(run.trigger.asked_by().map(asked_by))
            .fetch_optional(&self.pool),
        )
        .await?;
        self.own().extend(begun);
        Ok(begun)
    }

    /// Returns whether this is a run of this process, and under way.
    pub fn is_own(&self, id: i64) -> bool {
        self.own().contains(&id)
    }

    /// Forgets a run of this process whose end cannot be written.
    pub fn let_go(&self, id: i64) {
        self.own().remove(&id);
    }

    fn own(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes how the run ended, also over a "crashed" that another process concluded while this one could not reach the ledger.
    /// Text that the database's encoding cannot hold is made to fit.
    pub async fn finish(&self, id: i64, end: &End<'_>) -> Result<()> {
        for fit in fit::ALL {
            match self.write_end(id, end, fit).await {
                Err(error) if fit::does_not_fit(&error) && fit != Fit::Ascii => {}
                other => {
                    if other.is_ok() {
                        self.let_go(id);
                    }
                    return other;
                }
            }
        }
        Ok(())
    }

    async fn write_end(&self, id: i64, end: &End<'_>, fit: Fit) -> Result<()> {
        let report = end.report.map(|report| {
            let mut report = report.clone();
            report.warnings.extend(fit.warning().map(str::to_owned));
            serde_json::to_value(report).map(|report| fit.json(&report))
        });
        let story =
            (!end.story.is_empty()).then(|| serde_json::to_value(&end.story).map(|story| fit.json(&story))).transpose()?;
        self.query(
            "write a run's end",
            sqlx::query(
                "UPDATE pgtend.runs SET outcome = $2, error = $4,
                        report = CASE WHEN $8::jsonb IS NULL AND report -> 'story' IS NULL THEN coalesce($3, report)
                                 ELSE coalesce($3, report, '{\"summary\": \"\", \"facts\": {}, \"warnings\": []}')
                                      || jsonb_build_object('story', coalesce(report -> 'story', '{}') || coalesce($8, '{}')) END,
                        stderr = nullif($5, ''), progress = NULL, cursor = $7,
                        finished_at = clock_timestamp(), heartbeat_at = clock_timestamp(),
                        retry_at = clock_timestamp() + make_interval(secs => $6)
                 WHERE id = $1 AND (outcome IS NULL OR outcome = 'crashed')",
            )
            .bind(id)
            .bind(end.outcome.map(Outcome::name))
            .bind(report.transpose()?)
            .bind(end.error.map(|error| fit.text(&without_nul(error))))
            .bind(fit.text(&without_nul(end.stderr)))
            .bind(end.retry_in.map(|delay| delay.as_secs_f64()))
            .bind(end.cursor.as_ref().map(|cursor| fit.json(cursor)))
            .bind(story)
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// Records schedules, and returns since when each is known and which ticks were handled. A changed schedule counts as new:
    /// its past ticks were not missed.
    pub async fn known_jobs(&self, schedules: &[(Key, String)]) -> Result<Vec<KnownJob>> {
        let jobs: Vec<&str> = schedules.iter().map(|((job, _), _)| job.as_str()).collect();
        let databases: Vec<&str> = schedules.iter().map(|((_, database), _)| database.as_str()).collect();
        let texts: Vec<&str> = schedules.iter().map(|(_, text)| text.as_str()).collect();
        self.query(
            "read the schedules",
            sqlx::query_as(
                "WITH known AS (
                    INSERT INTO pgtend.schedules AS s (job, database, schedule)
                    SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
                    ON CONFLICT (job, database) DO UPDATE SET schedule = excluded.schedule,
                        known_since = CASE WHEN s.schedule = excluded.schedule THEN s.known_since ELSE clock_timestamp() END
                    RETURNING job, database, known_since)
                 SELECT known.*,
                        (SELECT max(scheduled_for) FROM pgtend.runs r
                         WHERE r.job = known.job AND r.database = known.database) AS last_tick,
                        (SELECT max(finished_at) FROM pgtend.runs r
                         WHERE r.job = known.job AND r.database = known.database AND outcome = 'succeeded'
                           AND strpos(task, ' ') = 0 AND finished_at < clock_timestamp() + interval '1 minute') AS last_success_at
                 FROM known",
            )
            .bind(jobs)
            .bind(databases)
            .bind(texts)
            .fetch_all(&self.pool),
        )
        .await
    }

    /// Returns the last attempt of a tick's run, or `None` when the tick has no run.
    pub async fn tick(&self, job: &str, database: &str, tick: DateTime<Utc>) -> Result<Option<Row>> {
        self.query(
            "look for a tick's run",
            sqlx::query_as(
                "SELECT r.* FROM pgtend.runs f JOIN pgtend.runs r ON f.id IN (r.id, r.retry_of)
                 WHERE f.job = $1 AND f.database = $2 AND f.scheduled_for = $3 ORDER BY r.attempt DESC LIMIT 1",
            )
            .bind(job)
            .bind(database)
            .bind(tick)
            .fetch_optional(&self.pool),
        )
        .await
    }

    /// Returns where the last run that did work stopped, if the next run can continue from there.
    pub async fn cursor(&self, id: i64) -> Result<Option<serde_json::Value>> {
        let cursor: Option<Option<serde_json::Value>> = self
            .query(
                "read where the last run stopped",
                sqlx::query_scalar(
                    "SELECT p.cursor FROM pgtend.runs r JOIN pgtend.runs p USING (job, database, task)
                     WHERE r.id = $1 AND p.id < r.id AND p.locked_at IS NOT NULL ORDER BY p.id DESC LIMIT 1",
                )
                .bind(id)
                .fetch_optional(&self.pool),
            )
            .await?;
        Ok(cursor.flatten())
    }

    /// Returns the database that the ledger stands in.
    async fn place(&self) -> Result<Value> {
        self.query("read where the ledger stands", async { Ok(()) }).await?;
        Ok(self.place.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Checks that the ledger is reachable, with its schema in place.
    pub async fn ready(&self) -> Result<()> {
        self.query("reach the ledger", sqlx::query("SELECT 1").execute(&self.pool)).await?;
        Ok(())
    }

    /// Runs every query: the schema is created before the first (unless the ledger is only read), none waits forever, and all are timed.
    async fn query<T>(&self, what: &str, query: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
        let started = Instant::now();
        let result = tokio::time::timeout(QUERY_TIMEOUT, async {
            if !self.migrated.load(Ordering::Relaxed) {
                self.migrate().await?;
                self.migrated.store(true, Ordering::Relaxed);
            }
            query.await.map_err(pg::in_its_own_words)
        })
        .await;
        self.query_seconds.observe(started.elapsed().as_secs_f64());
        if !matches!(result, Ok(Ok(_))) {
            // If the schema was dropped, the next query creates it again.
            self.migrated.store(false, Ordering::Relaxed);
        }
        let result = result
            .unwrap_or_else(|_| Err(Fault::new(Kind::Unreachable, format!("no answer in {} s", QUERY_TIMEOUT.as_secs())).into()));
        let result = match result {
            Err(error) if pg::sql_state(&error).as_deref() == Some(READ_ONLY) => Err(self.not_writable(error).await),
            Err(error) => Err(as_unreachable(error)),
            Ok(value) => Ok(value),
        };
        result.with_context(|| format!("ledger in {}: cannot {what}", self.display()))
    }

    /// A ledger that takes no rows counts as unreachable: due jobs wait for it.
    async fn not_writable(&self, error: anyhow::Error) -> anyhow::Error {
        let in_recovery = async {
            let mut connection = self.settings.connect().await.ok()?;
            sqlx::query_scalar::<_, bool>("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await.ok()
        };
        let what = match tokio::time::timeout(QUERY_TIMEOUT, in_recovery).await.ok().flatten() {
            Some(true) => {
                "it is a standby, which is read-only. Name the primary, or several hosts with target_session_attrs=read-write"
            }
            _ => "it is read-only (default_transaction_read_only is on, for the server, the database or the role)",
        };
        error.context(Fault::new(Kind::Unreachable, what))
    }
}

/// The SQLSTATE read_only_sql_transaction.
const READ_ONLY: &str = "25006";

/// Behind a pooler in transaction mode the ledger counts as unreachable: its locks would belong to other clients.
fn as_unreachable(error: anyhow::Error) -> anyhow::Error {
    let is_pooled = error.chain().any(|cause| cause.to_string().contains(pg::TRANSACTION_POOLER));
    if is_pooled { error.context(Fault::new(Kind::Unreachable, "it is behind a transaction pooler")) } else { error }
}

/// Returns the name of a run's lock in the ledger's database.
pub fn lock_name(job: &str, database: &str) -> String {
    format!("pgtend run {database}/{job}")
}

/// Writes a heartbeat on the same connection: when it fails, the lock is gone too. Text that the ledger's encoding cannot hold
/// does not fail it.
pub async fn heartbeat(connection: &mut PgConnection, id: i64, progress: &Progress) -> Result<()> {
    let now = progress.now().map(serde_json::to_value).transpose()?;
    let cursor = progress.cursor();
    for fit in fit::ALL {
        let written =
            sqlx::query("UPDATE pgtend.runs SET heartbeat_at = clock_timestamp(), progress = coalesce($2, progress) || jsonb_build_object('ledger', progress -> 'ledger'), cursor = $3 WHERE id = $1")
                .bind(id)
                .bind(now.as_ref().map(|now| fit.json(now)))
                .bind(cursor.as_ref().map(|cursor| fit.json(cursor)))
                .execute(&mut *connection)
                .await
                .map_err(anyhow::Error::from);
        match written {
            Err(error) if fit::does_not_fit(&error) && fit != Fit::Ascii => {}
            other => return other.map(drop),
        }
    }
    Ok(())
}

pub fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// The report of a run that has not ended, which somebody asked for: who that was is known from its beginning on.
fn asked_by(who: &str) -> Value {
    json!({ "summary": "", "facts": {}, "warnings": [], "story": { "asked_by": without_nul(who), "steps": [] } })
}

/// Removes NUL, which PostgreSQL's text cannot hold.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}
