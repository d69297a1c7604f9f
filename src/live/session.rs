//! The connection that changes a live table: every transaction has a time limit, and gives way to lock holders.
//!
//! A waiting lock request blocks everyone queued behind it, so none may wait long: pg_partman without a lock_timeout let a long
//! reader stop everyone (#626), and held ACCESS EXCLUSIVE for 20 to 90 minutes (#678, #834).

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::PgConnection;

use crate::base::fault::{Fault, Kind};
use crate::live::governor;
use crate::pg;
use crate::pg::table::{Checked, TableName, proof};
use crate::work::RunContext;

/// The time that a transaction may take in addition to its wait for locks. No client waits longer than lock_timeout and this.
const HOLD: Duration = Duration::from_secs(1);
/// The pause between two attempts; clients that queued behind us proceed meanwhile.
const PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// A server may take this long to notice that a connection was closed.
const ENDING: Duration = Duration::from_secs(3);
/// The interval at which the server is asked whether a detach has reached its second phase.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Session {
    pub connection: PgConnection,
    pub pid: i32,
    settings: pg::Settings,
    pub lock_timeout: Duration,
    pub give_up_after: Duration,
    /// The lock_timeout for requests while other locks are held.
    further_lock_timeout: Duration,
    /// Attempts that ended because another session held a lock.
    pub lock_waits: u64,
    /// True once a step was given up: those after it are tried once, or a run with many steps would take hours.
    has_given_up: bool,
    /// The tables of the job as they were when they were searched for code.
    pub checked: Vec<Checked>,
    /// A statement that fails if a table of the job is not the one that was checked ([`proof`]); empty if none was.
    proof: String,
}

/// The result of statements that need locks.
#[derive(Debug)]
pub enum Attempt<T> {
    Done(T),
    /// Nothing was changed: a session held a lock for too long, and the text names it.
    Locked(String),
}

impl<T> Attempt<T> {
    /// Returns who held the lock.
    pub fn locked(self) -> Option<String> {
        match self {
            Self::Done(_) => None,
            Self::Locked(who) => Some(who),
        }
    }
}

impl Session {
    pub async fn open(run: &RunContext<'_>, lock_timeout: Duration, give_up_after: Duration) -> Result<Self> {
        let settings = &run.settings;
        let mut connection = settings.connect().await?;
        for (name, value) in [
            // Bounds are shown and read in one way, whatever the role's settings are.
            ("TimeZone", "UTC"),
            ("DateStyle", "ISO, YMD"),
            // Rows that a policy hides would be counted as absent, so there is an error instead.
            ("row_security", "off"),
        ] {
            pg::set(&mut connection, name, value).await?;
        }
        pg::set(&mut connection, "lock_timeout", &lock_timeout.as_millis().to_string()).await?;
        pg::commit_durably(&mut connection).await?;
        let pid = pg::backend_pid(&mut connection).await?;
        let further_lock_timeout = governor::lock_timeout_for(&mut connection, lock_timeout).await?;
        Ok(Self {
            connection,
            pid,
            settings: settings.clone(),
            lock_timeout,
            further_lock_timeout,
            give_up_after,
            lock_waits: 0,
            has_given_up: false,
            checked: run.checked().to_vec(),
            proof: proof(run.checked()),
        })
    }

    /// Runs all of `statements` in one transaction, or none of them, and retries while another session holds a lock on one of
    /// `tables`. Only the first statement may wait for the whole lock_timeout, and should request one lock only. Returns how many
    /// rows each statement affected.
    pub async fn transaction(&mut self, statements: &[String], tables: &[i64]) -> Result<Attempt<Vec<u64>>> {
        match statements.split_first() {
            Some((first, rest)) => self.transaction_under(first, tables, rest).await,
            None => Ok(Attempt::Done(Vec::new())),
        }
    }

    /// Does the same, but makes the statements after `lock` from data that is read under it. A plan may be minutes old when its lock is
    /// granted: a right that was revoked since would be granted again.
    pub async fn transaction_under(
        &mut self,
        lock: &str,
        tables: &[i64],
        then: &(impl UnderLock + ?Sized),
    ) -> Result<Attempt<Vec<u64>>> {
        let started = Instant::now();
        let mut pause = PAUSE;
        loop {
            let attempt = self.attempt(lock, then).await;
            if attempt.is_ok() {
                // Triggers and checks of the table ran in it, and their settings stay.
                pg::reset_search_path(&mut self.connection).await?;
            }
            let failure = match attempt {
                Ok(rows) => return Ok(Attempt::Done(rows)),
                Err(Failure { error, doing }) => {
                    // Without a transaction this is a warning; after a lost connection it fails, which tells nothing new.
                    let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
                    let is_lock_error = pg::sql_state(&error).is_some_and(|state| LOCK_ERRORS.contains(&state.as_str()));
                    let error = error.downcast::<sqlx::Error>().map_or_else(|error| error, pg::in_its_own_words);
                    if !is_lock_error {
                        return Err(error.context(format!("cannot {doing}")));
                    }
                    error
                }
            };
            self.lock_waits += 1;
            if self.has_given_up || started.elapsed() + pause >= self.give_up_after {
                self.has_given_up = true;
                let holders = self.holders(tables).await?;
                return Ok(Attempt::Locked(if holders.is_empty() { failure.to_string() } else { holders }));
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Begins a transaction that may take long, with one lock that keeps no session waiting.
    pub async fn begin(&mut self, lock: &str, table: i64) -> Result<Attempt<()>> {
        let begun = async {
            pg::execute_counting(&mut self.connection, "BEGIN".to_owned()).await?;
            sqlx::query("SELECT set_config('statement_timeout', '0', true)").execute(&mut self.connection).await?;
            let behind = format!("{lock}; {}", self.proof);
            pg::execute_counting(&mut self.connection, behind).await
        };
        match begun.await {
            Ok(_) => Ok(Attempt::Done(())),
            Err(error) => {
                let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
                if !is_lock_error(&error) {
                    return Err(pg::in_its_own_words(error)).with_context(|| format!("cannot run: {lock}"));
                }
                self.lock_waits += 1;
                Ok(Attempt::Locked(self.holders(&[table]).await?))
            }
        }
    }

    async fn attempt(&mut self, lock: &str, then: &(impl UnderLock + ?Sized)) -> Result<Vec<u64>, Failure> {
        let started = Instant::now();
        // Before the first statement, which may be more than a lock, and once more under its lock, before anything is read under it.
        let begin = format!("BEGIN; {}", self.proof);
        pg::execute_counting(&mut self.connection, begin.clone()).await.map_err(Failure::of(&begin))?;
        let mut rows = vec![self.step(lock, self.lock_timeout, started).await?];
        if !self.proof.is_empty() {
            pg::execute_counting(&mut self.connection, self.proof.clone()).await.map_err(Failure::of(&self.proof))?;
        }
        let reading = |error| Failure { error, doing: "read what a transaction makes its statements from".to_owned() };
        for statement in then.statements(&mut self.connection).await.map_err(reading)? {
            rows.push(self.step(&statement, self.further_lock_timeout, started).await?);
        }
        sqlx::query("COMMIT").execute(&mut self.connection).await.map_err(Failure::of("COMMIT"))?;
        Ok(rows)
    }

    /// Runs one statement of an attempt that began at `started`.
    async fn step(&mut self, statement: &str, lock_timeout: Duration, started: Instant) -> Result<u64, Failure> {
        let left = (self.lock_timeout + HOLD).saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        sqlx::query("SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true)")
            .bind(left.as_millis().to_string())
            .bind(lock_timeout.as_millis().to_string())
            .execute(&mut self.connection)
            .await
            .map_err(Failure::of("SET statement_timeout"))?;
        pg::execute_counting(&mut self.connection, statement.to_owned()).await.map_err(Failure::of(statement))
    }

    /// Runs a statement that refuses to run in a transaction, and that in a second phase waits for the sessions that use the
    /// table now (DETACH … CONCURRENTLY, FINALIZE). A lock_timeout there would leave the partition half detached, so only the
    /// first phase has one, enforced by a second connection that observes. `is_second_phase` asks it.
    pub async fn two_phases(&mut self, statement: String, relation: i64, tables: &[i64]) -> Result<Attempt<()>> {
        let mut observer = self.settings.connect().await?;
        let started = Instant::now();
        let mut pause = PAUSE;
        loop {
            match self.two_phases_once(&statement, relation, &mut observer, started).await {
                Ok(()) => return Ok(Attempt::Done(())),
                Err(error) if is_lock_error(&error) => {}
                Err(error) => return Err(pg::in_its_own_words(error)).with_context(|| format!("cannot run: {statement}")),
            }
            self.lock_waits += 1;
            if self.has_given_up || started.elapsed() + pause >= self.give_up_after || is_pending(&mut observer, relation).await?
            {
                self.has_given_up = true;
                return Ok(Attempt::Locked(self.holders(tables).await?));
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn two_phases_once(
        &mut self,
        statement: &str,
        relation: i64,
        observer: &mut PgConnection,
        started: Instant,
    ) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT set_config('lock_timeout', '0', false), set_config('statement_timeout', '0', false)")
            .execute(&mut self.connection)
            .await?;
        if !self.proof.is_empty() {
            pg::execute_counting(&mut self.connection, self.proof.clone()).await?;
        }
        let attempt_started = Instant::now();
        let (pid, lock_timeout, give_up_after) = (self.pid, self.lock_timeout, self.give_up_after);
        let result = {
            let work = pg::execute_counting(&mut self.connection, statement.to_owned());
            tokio::pin!(work);
            let mut is_second_phase = false;
            loop {
                tokio::select! {
                    result = &mut work => break result,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                is_second_phase = is_second_phase || is_pending(observer, relation).await?;
                let limit_passed =
                    if is_second_phase { started.elapsed() > give_up_after } else { attempt_started.elapsed() > lock_timeout };
                if limit_passed {
                    // If it gets its lock in this very moment, the detach stays pending, and the next run finishes it.
                    sqlx::query("SELECT pg_cancel_backend($1)").bind(pid).execute(&mut *observer).await?;
                    break work.await;
                }
            }
        };
        sqlx::query("SELECT set_config('lock_timeout', $1, false)")
            .bind(lock_timeout.as_millis().to_string())
            .execute(&mut self.connection)
            .await?;
        result.map(|_| ())
    }

    /// Runs a statement that takes long, and lets reads and writes go on: under a lock of the mode `lock` (SHARE UPDATE EXCLUSIVE and the like),
    /// behind which `tables` are compared with what was checked. All is one message, which is one transaction.
    pub async fn long(&mut self, lock: &str, tables: &[Checked], sql: &str) -> Result<(), sqlx::Error> {
        let locks: String = tables.iter().map(|table| format!("LOCK TABLE ONLY {} IN {lock} MODE; ", table.name)).collect();
        pg::execute_counting(&mut self.connection, format!("{locks}{}; {sql}", proof(tables))).await.map(drop)
    }

    /// Lists the holders of locks on these tables, the oldest transaction first.
    pub async fn holders(&mut self, tables: &[i64]) -> Result<String> {
        pg::lock_holders(&mut self.connection, tables).await
    }
}

/// Excludes other jobs: two jobs on one table would detach, move and archive at the same time. The lock ends with the connection.
pub async fn exclude_other_jobs(connection: &mut PgConnection, table: &TableName) -> Result<()> {
    let name = lock_name(table.oid);
    match pg::try_lock(connection, &name).await? {
        true => Ok(()),
        false => Err(busy(connection, &table.to_string(), &name).await?),
    }
}

/// Lets jobs that delete rows run side by side, but not beside one that detaches, moves and archives: of these tables, or of
/// partitioned tables above them. A lock of this run itself, on a connection that was just closed, ends within moments.
/// `connection` has the application's search_path, and only takes the locks, which end with it.
pub async fn exclude_jobs_of_partitions(settings: &pg::Settings, connection: &mut PgConnection, tables: &[i64]) -> Result<()> {
    exclude_jobs(settings, connection, tables, &[]).await
}

/// Excludes all jobs that would work on rows of these tables meanwhile: those that delete rows of them, and those that detach, move and archive, of them or of
/// partitioned tables above them. As [`exclude_jobs_of_partitions`] otherwise.
pub async fn exclude_jobs_of(settings: &pg::Settings, connection: &mut PgConnection, tables: &[i64]) -> Result<()> {
    exclude_jobs(settings, connection, tables, tables).await
}

/// `alone`: those of the tables for which this is the only one.
async fn exclude_jobs(settings: &pg::Settings, connection: &mut PgConnection, tables: &[i64], alone: &[i64]) -> Result<()> {
    let mut looking = settings.connect().await?;
    // Locking only the leaves would take a lock for each of thousands.
    let locked: Vec<(i64, String, String)> = sqlx::query_as(
        "WITH RECURSIVE above AS (
             SELECT t.oid, i.inhparent AS parent FROM unnest($1::bigint[]::oid[]) t (oid) LEFT JOIN pg_inherits i ON i.inhrelid = t.oid
             UNION SELECT a.parent, i.inhparent FROM above a LEFT JOIN pg_inherits i ON i.inhrelid = a.parent WHERE a.parent IS NOT NULL)
         SELECT DISTINCT c.oid::bigint, n.nspname::text, c.relname::text
         FROM above JOIN pg_class c ON c.oid = coalesce(above.parent, above.oid) JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1",
    )
    .bind(tables)
    .fetch_all(&mut looking)
    .await?;
    let started = Instant::now();
    for (oid, schema, name) in locked {
        let table = TableName { oid, schema, name }.to_string();
        let name = lock_name(oid);
        let is_alone = alone.contains(&oid);
        while !(if is_alone { pg::try_lock(connection, &name).await? } else { pg::try_shared_lock(connection, &name).await? }) {
            if started.elapsed() >= ENDING {
                return Err(busy(&mut looking, &table, &name).await?);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

fn lock_name(table: i64) -> String {
    format!("pgtend table {table}")
}

async fn busy(connection: &mut PgConnection, table: &str, lock: &str) -> Result<anyhow::Error> {
    let holder = pg::lock_holder(connection, lock).await?;
    let holder = holder.map_or_else(|| "a session that has just ended".to_owned(), |holder| holder.to_string());
    Ok(Fault::new(Kind::Busy, format!("another job of pgtend works on {table}: {holder}")).into())
}

/// The statements of a transaction, made when its first lock is held.
pub trait UnderLock {
    fn statements(&self, connection: &mut PgConnection) -> impl Future<Output = Result<Vec<String>>>;
}

/// Statements that are known beforehand.
impl UnderLock for [String] {
    async fn statements(&self, _: &mut PgConnection) -> Result<Vec<String>> {
        Ok(self.to_vec())
    }
}

struct Failure {
    error: anyhow::Error,
    doing: String,
}

impl Failure {
    fn of(sql: &str) -> impl FnOnce(sqlx::Error) -> Self {
        // A DO block of ours begins with what it is for.
        let shown = if sql.starts_with("DO ") { sql.lines().next().unwrap_or_default() } else { sql };
        let doing = format!("run: {shown}");
        move |error| Self { error: error.into(), doing }
    }
}

/// lock_not_available, deadlock_detected, and query_canceled (by our own statement_timeout, or by the observer).
const LOCK_ERRORS: [&str; 3] = ["55P03", "40P01", "57014"];

/// Recognizes a failure that means a lock was not granted.
pub fn is_lock_error(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    error.code().is_some_and(|code| LOCK_ERRORS.contains(&code.as_ref()))
}

/// Returns whether a detach of this partition is in its second phase, or was left there.
async fn is_pending(connection: &mut PgConnection, relation: i64) -> Result<bool, sqlx::Error> {
    let pending: Option<bool> =
        sqlx::query_scalar("SELECT bool_or(inhdetachpending) FROM pg_inherits WHERE inhrelid = $1::bigint::oid")
            .bind(relation)
            .fetch_one(connection)
            .await?;
    Ok(pending.unwrap_or(false))
}

/// Returns between 0.5 and 1.5 times the pause: otherwise two programs that met once would meet again.
fn jittered(pause: Duration) -> Duration {
    let random = std::hash::RandomState::new().build_hasher().finish();
    pause / 2 + pause.mul_f64((random % 1000) as f64 / 1000.0)
}
