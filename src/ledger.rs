//! The run history: schema `pgtend` in a PostgreSQL database. A run has its row before it acts; whoever finds a
//! row whose process is gone marks it as crashed.
//!
//! All times are the server's, so that hosts whose clocks differ agree on who is late.

mod fit;
mod history;

use self::fit::Fit;

pub use history::{Brief, Filter};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use prometheus_client::metrics::histogram::Histogram;
use sqlx::postgres::{PgConnection, PgPool};

use crate::config::{self, Config};
use crate::fault::{Fault, Kind};
use crate::pg;
use crate::progress::{self, Progress};
use crate::report::{Outcome, Report};

/// One file for each version of the schema; a row of `pgtend.format` says how many of them were run.
const MIGRATIONS: [&str; 1] = [include_str!("ledger/1.sql")];

/// The planner, the pages and a few ends of runs at once; more would only wait for each other.
const POOL_CONNECTIONS: u32 = 4;

/// No query of ours reads much: one that takes this long waits for a lock or for a server that is gone.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// A run that holds its lock shows itself every [`HEARTBEAT_SECONDS`]; one that has none yet is connecting.
pub const HEARTBEAT_SECONDS: u64 = 5;
const STALE_AFTER_SECONDS: f64 = 15.0;
const STALE_WITHOUT_LOCK_SECONDS: f64 = 120.0;

pub struct Ledger {
    settings: pg::Settings,
    pool: PgPool,
    keep: Duration,
    keep_last: u32,
    migrated: AtomicBool,
    query_seconds: Histogram,
}

/// A run that is about to start.
#[derive(Clone, Debug)]
pub struct NewRun<'a> {
    pub job: &'a str,
    pub database: &'a str,
    /// The kind of its task, or a command by hand: "partition convert".
    pub task: &'a str,
    pub trigger: &'a Trigger,
    /// Attempts after the first, should its process die.
    pub retries: u32,
}

/// What made a run start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    Manual,
    Schedule {
        tick: DateTime<Utc>,
    },
    /// A tick that was missed.
    CatchUp {
        tick: DateTime<Utc>,
    },
    /// `attempt` counts from 1, so that the first retry is attempt 2.
    Retry {
        first: i64,
        attempt: u32,
    },
}

impl Trigger {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Schedule { .. } => "schedule",
            Self::CatchUp { .. } => "catch-up",
            Self::Retry { .. } => "retry",
        }
    }

    pub fn tick(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Schedule { tick } | Self::CatchUp { tick } => Some(*tick),
            Self::Manual | Self::Retry { .. } => None,
        }
    }

    pub fn attempt(&self) -> u32 {
        match self {
            Self::Retry { attempt, .. } => *attempt,
            _ => 1,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct End<'a> {
    pub outcome: Option<Outcome>,
    pub report: Option<&'a Report>,
    pub error: Option<&'a str>,
    pub stderr: &'a str,
    pub retry_in: Option<Duration>,
    /// Where the next run goes on.
    pub cursor: Option<serde_json::Value>,
}

/// A row of the history.
#[derive(Clone, Debug, sqlx::FromRow, serde::Serialize)]
pub struct Row {
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
    pub progress: Option<progress::Now>,
    pub finished_at: Option<DateTime<Utc>>,
    #[sqlx(try_from = "Option<String>")]
    pub outcome: MaybeOutcome,
    #[sqlx(json(nullable))]
    pub report: Option<Report>,
    pub error: Option<String>,
    pub stderr: Option<String>,
    pub retry_at: Option<DateTime<Utc>>,
    pub host: String,
    pub pid: i32,
    pub version: String,
}

/// None while the run is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct MaybeOutcome(pub Option<Outcome>);

impl TryFrom<Option<String>> for MaybeOutcome {
    type Error = String;

    fn try_from(text: Option<String>) -> Result<Self, String> {
        text.map(|text| text.parse()).transpose().map(Self)
    }
}

/// A crashed or failed run that may be tried again.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Attempt {
    pub job: String,
    pub database: String,
    pub first: i64,
    pub attempt: i32,
}

/// A job's name and a database's.
pub type Key = (String, String);

/// What the planner must know of a job on a database. Commands by hand, whose `task` has a space, are no runs of the job.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Known {
    pub job: String,
    pub database: String,
    pub known_since: DateTime<Utc>,
    pub last_tick: Option<DateTime<Utc>>,
    pub last_success_at: Option<DateTime<Utc>>,
}

impl Ledger {
    /// None without `[ledger]`. Connects to nothing yet.
    pub fn new(config: &Config) -> Result<Option<Self>> {
        let Some(config::Ledger { database, keep, keep_last }) = &config.ledger else { return Ok(None) };
        let configured = config.databases.get(database).context("the ledger's database is configured")?;
        let settings = pg::Settings::resolve(configured).with_context(|| format!("ledger database `{database}`"))?;
        Ok(Some(Self {
            pool: settings.pool(POOL_CONNECTIONS),
            settings,
            keep: *keep,
            keep_last: *keep_last,
            migrated: AtomicBool::new(false),
            query_seconds: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
        }))
    }

    /// Where it is, for messages.
    pub fn display(&self) -> String {
        self.settings.display()
    }

    pub fn query_seconds(&self) -> Histogram {
        self.query_seconds.clone()
    }

    /// Connections that are open, and those of them that nobody uses.
    pub fn pool_use(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// A connection of its own, for a lock.
    pub async fn connect(&self) -> Result<PgConnection> {
        self.settings.connect().await.context("the ledger's database")
    }

    /// Writes the run's row. None when that tick, or that attempt, has its run already. A tick takes the place of
    /// retries of an earlier one.
    pub async fn begin(&self, run: &NewRun<'_>) -> Result<Option<i64>> {
        let (first, attempt) = match run.trigger {
            Trigger::Retry { first, attempt } => (Some(*first), *attempt),
            _ => (None, 1),
        };
        self.query(
            "write a run's row",
            sqlx::query_scalar(
                "WITH new AS (
                    INSERT INTO pgtend.runs (job, database, task, trigger, scheduled_for, retry_of, attempt, host, pid, version, retries)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING RETURNING id),
                 taken AS (
                    UPDATE pgtend.runs SET retry_at = NULL
                    WHERE retry_at IS NOT NULL
                      AND ($6 IN (id, retry_of) AND attempt < $7
                           OR $5 IS NOT NULL AND job = $1 AND database = $2 AND EXISTS (SELECT FROM new)))
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
            .fetch_optional(&self.pool),
        )
        .await
    }

    /// Writes how the run ended, also over a "crashed" that somebody concluded while this process could not
    /// reach the ledger. Text that its encoding cannot hold is made to fit.
    pub async fn finish(&self, id: i64, end: &End<'_>) -> Result<()> {
        for fit in fit::ALL {
            match self.write_end(id, end, fit).await {
                Err(error) if fit::does_not_fit(&error) && fit != Fit::Ascii => {}
                other => return other,
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
        self.query(
            "write a run's end",
            sqlx::query(
                "UPDATE pgtend.runs SET outcome = $2, report = coalesce($3, report), error = $4, stderr = nullif($5, ''), progress = NULL, cursor = $7,
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
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// Marks the runs whose process is gone: nobody holds their lock, and there is no sign of life. Those that have
    /// attempts left get one at once.
    pub async fn mark_crashed(&self) -> Result<Vec<Row>> {
        self.query(
            "look for crashed runs",
            sqlx::query_as(
                "UPDATE pgtend.runs r SET outcome = 'crashed', finished_at = heartbeat_at,
                        error = format('the process ended without a word: pid %s on %s, last seen at %s', pid, host,
                                       to_char(heartbeat_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC')),
                        retry_at = CASE WHEN attempt <= retries THEN clock_timestamp() END
                 WHERE outcome IS NULL
                   AND heartbeat_at < clock_timestamp()
                       - make_interval(secs => CASE WHEN locked_at IS NULL THEN $1 ELSE $2 END)
                   AND NOT EXISTS (
                       SELECT FROM pg_locks l
                       WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                         AND ((l.classid::bigint << 32) | l.objid::bigint)
                             = hashtextextended('pgtend run ' || r.database || '/' || r.job, 0))
                 RETURNING r.*",
            )
            .bind(STALE_WITHOUT_LOCK_SECONDS)
            .bind(STALE_AFTER_SECONDS)
            .fetch_all(&self.pool),
        )
        .await
    }

    /// Attempts whose time has come.
    pub async fn due_retries(&self) -> Result<Vec<Attempt>> {
        self.query(
            "look for retries",
            sqlx::query_as(
                "SELECT job, database, coalesce(retry_of, id) AS first, attempt + 1 AS attempt FROM pgtend.runs
                 WHERE retry_at <= clock_timestamp() AND retry_at > clock_timestamp() - interval '1 day'
                 ORDER BY retry_at LIMIT 1000",
            )
            .fetch_all(&self.pool),
        )
        .await
    }

    /// Takes note of schedules, and says since when each is known and what was done of it. One that reads
    /// differently than last time counts as new: its past ticks were not missed.
    pub async fn know(&self, schedules: &[(Key, String)]) -> Result<Vec<Known>> {
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
                           AND strpos(task, ' ') = 0) AS last_success_at
                 FROM known",
            )
            .bind(jobs)
            .bind(databases)
            .bind(texts)
            .fetch_all(&self.pool),
        )
        .await
    }

    /// The last attempt of a tick's run. None when the tick has no run.
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

    /// Where the last run that worked has stopped, if it left something to go on with.
    pub async fn cursor(&self, id: i64) -> Result<Option<serde_json::Value>> {
        let cursor: Option<Option<serde_json::Value>> = self
            .query(
                "look where the last run stopped",
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

    /// Whether the ledger answers, with its schema in place.
    pub async fn ready(&self) -> Result<()> {
        self.query("reach the ledger", sqlx::query("SELECT 1").execute(&self.pool)).await?;
        Ok(())
    }

    /// Every query goes through here: the schema is made before the first, none waits for ever, all are timed.
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
            // Should somebody have dropped the schema, the next query makes it anew.
            self.migrated.store(false, Ordering::Relaxed);
        }
        let result = result
            .unwrap_or_else(|_| Err(Fault::new(Kind::Unreachable, format!("no answer in {} s", QUERY_TIMEOUT.as_secs())).into()));
        result.with_context(|| format!("ledger in {}: cannot {what}", self.display()))
    }

    async fn migrate(&self) -> Result<()> {
        // Not the pool's, which tries a server that refuses for 20 s, and then does not say so.
        let mut connection = self.settings.connect().await?;
        self.settings.point(&self.pool);
        refuse_foreign(&mut connection).await?;
        // Without the lock first: a role that may only read and write rows gets by with that.
        if version(&mut connection).await? == MIGRATIONS.len() {
            return Ok(());
        }
        // Each statement must see what was committed while this one waited for the lock.
        pg::set(&mut connection, "default_transaction_isolation", "read committed").await?;
        let mut transaction = sqlx::Connection::begin(&mut connection).await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('pgtend ledger', 0))").execute(&mut *transaction).await?;
        refuse_foreign(&mut transaction).await?;
        let version = version(&mut transaction).await?;
        for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
            pg::execute_script(&mut transaction, migration).await.map_err(|error| {
                let hint = "the role needs CREATE on the database, once; `pgtend grants` prints what it needs later";
                error.context(format!("cannot bring the schema `pgtend` to version {}: {hint}", index + 1))
            })?;
        }
        pg::execute_script(&mut transaction, "DELETE FROM pgtend.format").await?;
        sqlx::query("INSERT INTO pgtend.format VALUES ($1)").bind(MIGRATIONS.len() as i32).execute(&mut *transaction).await?;
        transaction.commit().await?;
        if version < MIGRATIONS.len() {
            tracing::info!("ledger in {}: schema `pgtend` is at version {}", self.display(), MIGRATIONS.len());
        }
        Ok(())
    }
}

/// A schema that somebody else made beforehand, or put a trigger into, is not written to: its code would run as this role.
async fn refuse_foreign(connection: &mut PgConnection) -> Result<()> {
    let found: Option<(String, String, String)> =
        sqlx::query_as(include_str!("ledger/foreign.sql")).fetch_optional(connection).await.map_err(pg::in_its_own_words)?;
    let Some((object, whose, cure)) = found else { return Ok(()) };
    let message = format!(
        "{object} is not pgtend's own ({whose}), and its code would run with the rights of this role: look who made it, then {cure}, \
         or name another database in [ledger]"
    );
    Err(Fault::new(Kind::Configuration, message).into())
}

/// The schema's version; 0 when there is none. A newer one than this program knows is refused.
async fn version(connection: &mut PgConnection) -> Result<usize> {
    // Not to_regclass: in the transaction that waited for the lock it would answer from what it cached before.
    let there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = 'pgtend' AND c.relname = 'format')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !there {
        return Ok(0);
    }
    let version: Option<i32> =
        sqlx::query_scalar("SELECT max(version) FROM pgtend.format").fetch_one(connection).await.map_err(pg::in_its_own_words)?;
    let version = version.unwrap_or(0) as usize;
    if version > MIGRATIONS.len() {
        return Err(Fault::new(
            Kind::Configuration,
            format!(
                "its schema `pgtend` is version {version}, made by a newer pgtend; this one ({}) knows {}: upgrade this pgtend",
                env!("CARGO_PKG_VERSION"),
                MIGRATIONS.len()
            ),
        )
        .into());
    }
    Ok(version)
}

/// The name of a run's lock in the ledger's database.
pub fn lock_name(job: &str, database: &str) -> String {
    format!("pgtend run {database}/{job}")
}

/// On the connection that holds the run's lock: the run is the only one now, so that rows of the same job which
/// had the lock before and have no end are of processes that are gone. Returns those.
pub async fn mark_locked(connection: &mut PgConnection, id: i64) -> Result<Vec<Row>> {
    let crashed = sqlx::query_as(
        "WITH me AS (UPDATE pgtend.runs SET locked_at = clock_timestamp(), heartbeat_at = clock_timestamp()
                     WHERE id = $1 RETURNING job, database)
         UPDATE pgtend.runs r SET outcome = 'crashed', finished_at = heartbeat_at,
                error = format('the process ended without a word: pid %s on %s, last seen at %s', pid, host,
                               to_char(heartbeat_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'))
         FROM me WHERE r.job = me.job AND r.database = me.database AND r.id <> $1 AND r.outcome IS NULL
                   AND r.locked_at IS NOT NULL
         RETURNING r.*",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    Ok(crashed)
}

/// A sign of life, on the same connection: when it fails, the lock is gone too. Text that the ledger's encoding cannot hold is no
/// reason.
pub async fn heartbeat(connection: &mut PgConnection, id: i64, progress: &Progress) -> Result<()> {
    let now = progress.now().map(serde_json::to_value).transpose()?;
    let cursor = progress.cursor();
    for fit in fit::ALL {
        let written =
            sqlx::query("UPDATE pgtend.runs SET heartbeat_at = clock_timestamp(), progress = $2, cursor = $3 WHERE id = $1")
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

/// PostgreSQL's text has no NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}
