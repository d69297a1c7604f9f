//! The batches: found, locked without waiting, archived where that is asked for, deleted, each a transaction.
//!
//! Triggers and the user's `where` run in this session, and find names through the role's own search_path, as they do for the
//! application. So every name, type and operator of ours is qualified here, and the session ends with the deleting.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use sqlx::{PgConnection, Row as _};

use super::plan::{Part, Plan};
use super::{Method, Retention};
use crate::archive::{self, Archive, Manifest, Source};
use crate::fault::{self, Fault, Kind};
use crate::governor::{self, Go, Governor, Pace};
use crate::pg::{self, identifier, literal};
use crate::progress::Phase;
use crate::report::Report;
use crate::task::RunContext;
use crate::units::{self, Span};

/// 300 blocks of 8 KiB are some ten thousand rows of a log table: 40 to 50 ms (research).
const FIRST_BLOCKS: u64 = 100;
const MOST_BLOCKS: u64 = 20_000;
const FIRST_ROWS: u64 = 1_000;
const MOST_ROWS: u64 = 50_000;
/// An archived batch is an object: larger, and its rows wait locked for the upload. Nobody else wants old rows.
const ARCHIVE_TIME: Span = Span(Duration::from_secs(5));
const ARCHIVE_FIRST_BLOCKS: u64 = 1_000;
const ARCHIVE_FIRST_ROWS: u64 = 20_000;
/// A batch that meets a lock is tried again; somebody holds it, or a foreign key's row.
const LOCK_ATTEMPTS: u32 = 20;

/// Less than any value of the column's types.
const START: &str = "-infinity";

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub rows: u64,
    pub batches: u64,
    pub archived_bytes: u64,
    pub archived_batches: u64,
    pub lock_waits: u64,
    /// It stopped because somebody held a lock for too long.
    pub is_locked: bool,
    pub resumed_at_block: Option<u64>,
    pub elapsed: Duration,
}

impl Done {
    pub fn report(&self, report: &mut Report) {
        report.fact("rows_deleted", self.rows);
        report.fact("batches", self.batches);
        report.fact("lock_waits", self.lock_waits);
        report.fact("elapsed_seconds", self.elapsed.as_secs_f64());
        if self.elapsed > Duration::ZERO {
            report.fact("rows_per_second", (self.rows as f64 / self.elapsed.as_secs_f64()).round());
        }
        if let Some(block) = self.resumed_at_block {
            report.fact("resumed_at_block", block);
        }
        if self.archived_batches > 0 {
            report.fact("archived_batches", self.archived_batches);
            report.fact("archived_bytes", self.archived_bytes);
        }
    }
}

pub struct Work<'a> {
    pub retention: &'a Retention,
    pub plan: &'a Plan,
    pub part: &'a Part,
    pub archive: Option<&'a Archive>,
    pub run: &'a RunContext<'a>,
    pub phase: &'a Phase,
}

/// Where the next batch begins.
enum Place {
    Block(u64),
    /// A value of the column, as text.
    Key(String),
}

/// Blocks to go through, the last of them not included.
struct Walk {
    start: u64,
    end: u64,
    is_second: bool,
}

/// What a batch did.
struct Batch {
    rows: u64,
    /// Rows that were found and locked.
    found: u64,
    /// The largest value of the column among them.
    last_key: Option<String>,
    archived_bytes: u64,
}

impl Work<'_> {
    /// All batches of one part, unless the governor stops it.
    pub async fn all(&self, connection: &mut PgConnection, governor: &mut Governor, done: &mut Done) -> Result<Go> {
        let started = Instant::now();
        let pid = pg::backend_pid(connection).await?;
        archive::prepare_session(connection).await?;
        let patience = governor::patience(&mut self.run.settings.connect().await?, governor.limits().lock_timeout.0).await?;
        pg::set(connection, "lock_timeout", &patience.as_millis().to_string()).await?;
        pg::set(connection, "statement_timeout", &governor.limits().statement_timeout.0.as_millis().to_string()).await?;
        let target = if self.archive.is_some() { ARCHIVE_TIME } else { governor.limits().batch_time };
        let by_blocks = self.part.method == Method::Blocks;
        let mut pace = match (by_blocks, self.archive.is_some()) {
            (true, false) => Pace::new(FIRST_BLOCKS, 1, MOST_BLOCKS),
            (true, true) => Pace::new(ARCHIVE_FIRST_BLOCKS, 1, MOST_BLOCKS),
            (false, false) => Pace::new(FIRST_ROWS, 10, MOST_ROWS),
            (false, true) => Pace::new(ARCHIVE_FIRST_ROWS, 10, 4 * MOST_ROWS),
        };
        let (mut place, mut walk) = match by_blocks {
            true => {
                let walk = self.walk();
                (Place::Block(walk.start), walk)
            }
            false => (Place::Key(START.to_owned()), Walk { start: 0, end: 0, is_second: true }),
        };
        if by_blocks && walk.start > 0 {
            done.resumed_at_block = Some(walk.start);
        }
        let mut attempts = 0;
        // Bounded: by blocks, each turn leaves some behind; by keys, each turn deletes rows, or fails.
        loop {
            if let Place::Block(block) = place {
                if block >= walk.end {
                    if walk.is_second {
                        break;
                    }
                    // What became old since the last run stopped, before the place where it did.
                    walk = Walk { start: 0, end: walk.start, is_second: true };
                    place = Place::Block(0);
                    continue;
                }
                self.run.progress.set_cursor(Some(json!({ "table": self.part.oid, "block": block })));
                governor.reached(block as f64 / walk.end.max(1) as f64);
            }
            if let Go::Stop(reason) = self.run.or_cancelled(governor.go()).await? {
                done.elapsed += started.elapsed();
                return Ok(Go::Stop(reason));
            }
            let size = match place {
                Place::Block(block) => pace.size().min(walk.end - block),
                Place::Key(_) => pace.size(),
            };
            let began = Instant::now();
            // Not dropped midway by a cancellation: it is short, and ends in a commit or a rollback.
            let (result, blocked) = governor.watch(pid, self.batch(connection, &place, size)).await;
            let batch = match result {
                Ok(batch) => batch,
                Err(error) if governor::is_lock_trouble(&error) && attempts < LOCK_ATTEMPTS => {
                    attempts += 1;
                    done.lock_waits += 1;
                    pace.took(target.0 * 2, target.0, 1);
                    continue;
                }
                // statement_timeout: a slow trigger, a cold disk. Half as much may do.
                Err(error) if pg::sql_state(&error).as_deref() == Some("57014") && size > 1 && attempts < LOCK_ATTEMPTS => {
                    attempts += 1;
                    pace.took(target.0 * 8, target.0, 1);
                    continue;
                }
                Err(error) if governor::is_lock_trouble(&error) => {
                    done.is_locked = true;
                    done.elapsed += started.elapsed();
                    return Ok(Go::Stop(
                        locked(&mut self.run.settings.connect().await?, &self.part.name, self.part.oid, &error).await?,
                    ));
                }
                Err(error) => {
                    return Err(error.context(format!("after {} of {}", units::plural(done.rows, "row"), self.part.name)));
                }
            };
            attempts = 0;
            let elapsed = began.elapsed();
            pace.took(elapsed, governor.scaled(target.0), blocked);
            done.rows += batch.rows;
            done.batches += u64::from(batch.found > 0);
            if self.archive.is_some() && batch.rows > 0 {
                done.archived_batches += 1;
                done.archived_bytes += batch.archived_bytes;
            }
            if batch.found > 0 && batch.rows == 0 {
                anyhow::bail!(
                    "none of {} of {} was deleted: a trigger keeps them",
                    units::plural(batch.found, "row"),
                    self.part.name
                );
            }
            match &mut place {
                Place::Block(block) => *block += size,
                Place::Key(key) => match batch.last_key {
                    // Nothing went, and there is no further key.
                    Some(last) if last == *key && batch.rows == 0 => break,
                    Some(last) => *key = last,
                    None => break,
                },
            }
            tokio::time::sleep(governor.pause_after(elapsed)).await;
        }
        self.run.progress.set_cursor(None);
        done.elapsed += started.elapsed();
        Ok(Go::On)
    }

    /// From where the last run stopped, if it stopped in this table; what is before that comes afterwards.
    fn walk(&self) -> Walk {
        let end = self.part.blocks as u64;
        let resume = self.run.resume.as_ref().filter(|cursor| cursor["table"].as_i64() == Some(self.part.oid));
        let start = resume.and_then(|cursor| cursor["block"].as_u64()).filter(|block| *block < end).unwrap_or(0);
        Walk { start, end, is_second: start == 0 }
    }

    async fn batch(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<Batch> {
        match self.archive {
            None => self.delete(connection, place, size).await,
            Some(archive) => {
                pg::execute(connection, "BEGIN".to_owned()).await?;
                let done = self.archive_and_delete(connection, archive, place, size).await;
                if done.is_err() {
                    // A connection that is gone has rolled back by itself.
                    let _ = pg::execute(connection, "ROLLBACK".to_owned()).await;
                }
                done
            }
        }
    }

    /// At first without a look at locks, which costs less than half; where somebody has locked one of the rows, by
    /// leaving his out.
    async fn delete(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<Batch> {
        match self.delete_all(connection, place, size).await {
            Err(error) if governor::is_lock_trouble(&error) => self.delete_unlocked(connection, place, size).await,
            // By keys, none may mean: none left, or a trigger kept them.
            Ok(batch) if batch.rows == 0 && matches!(place, Place::Key(_)) => self.delete_unlocked(connection, place, size).await,
            other => other,
        }
    }

    async fn delete_all(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<Batch> {
        let (table, condition) = (&self.part.name, &self.plan.condition);
        let column = identifier(&self.retention.column);
        let (which, key) = match place {
            Place::Block(_) => (bound_blocks(), "NULL::pg_catalog.text".to_owned()),
            Place::Key(_) => (
                format!(
                    "ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
                        SELECT ctid FROM ONLY {table} WHERE {column} OPERATOR(pg_catalog.>=) $2::pg_catalog.text::{} AND {condition}
                        ORDER BY {column} LIMIT $3::pg_catalog.text::bigint))",
                    self.plan.type_sql()
                ),
                column,
            ),
        };
        // The condition once more outside: a row may have changed since it was found.
        let delete = format!("DELETE FROM ONLY {table} WHERE {which} AND {condition}");
        if matches!(place, Place::Block(_)) {
            let rows = self.bound(delete, place, size).execute(connection).await?.rows_affected();
            return Ok(Batch { rows, found: rows, last_key: None, archived_bytes: 0 });
        }
        let sql = format!(
            "WITH gone AS ({delete} RETURNING {key} AS key) SELECT pg_catalog.count(*), pg_catalog.max(key)::pg_catalog.text FROM gone"
        );
        let row = self.bound(sql, place, size).fetch_one(connection).await?;
        let rows = row.try_get::<i64, _>(0)? as u64;
        Ok(Batch { rows, found: rows, last_key: row.try_get(1)?, archived_bytes: 0 })
    }

    async fn delete_unlocked(&self, connection: &mut PgConnection, place: &Place, size: u64) -> Result<Batch> {
        let sql = format!(
            "WITH picked AS MATERIALIZED ({}),
             gone AS (DELETE FROM ONLY {} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT ctid FROM picked)) RETURNING 1)
             SELECT (SELECT pg_catalog.count(*) FROM gone), (SELECT pg_catalog.count(*) FROM picked),
                    (SELECT pg_catalog.max(key)::pg_catalog.text FROM picked)",
            self.pick(place),
            self.part.name
        );
        let row = self.bound(sql, place, size).fetch_one(connection).await?;
        let (rows, found): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Batch { rows: rows as u64, found: found as u64, last_key: row.try_get(2)?, archived_bytes: 0 })
    }

    /// In a transaction, one statement deletes rows and hands them to the archive: exactly those that are deleted are
    /// archived. The commit comes when they were read back.
    async fn archive_and_delete(
        &self,
        connection: &mut PgConnection,
        archive: &Archive,
        place: &Place,
        size: u64,
    ) -> Result<Batch> {
        let table = &self.part.name;
        let (which, last_key) = match place {
            Place::Block(block) => {
                (between(&format!("'({block},0)'::pg_catalog.tid"), &format!("'({},0)'::pg_catalog.tid", block + size)), None)
            }
            Place::Key(key) => match self.key_after(connection, key, size).await? {
                Some(last) => {
                    let column = identifier(&self.retention.column);
                    let (from, to) = (self.key_value(key), self.key_value(&last));
                    (format!("{column} {} {from} AND {column} OPERATOR(pg_catalog.<=) {to}", beyond(key)), Some(last))
                }
                None => return self.nothing(connection, None).await,
            },
        };
        let which = format!("{which} AND {}", self.plan.condition_without_values);
        let is_there = pg::query(format!("SELECT EXISTS (SELECT FROM ONLY {table} WHERE {which})"));
        if !is_there.fetch_one(&mut *connection).await?.try_get::<bool, _>(0)? {
            return self.nothing(connection, last_key).await;
        }
        // From here on no column comes or goes before the commit.
        pg::execute(connection, format!("LOCK TABLE ONLY {table} IN ROW EXCLUSIVE MODE")).await?;
        let columns = archive::columns(connection, self.part.oid).await?;
        let list = columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        let source = Source {
            schema: self.part.schema.clone(),
            table: self.part.relation.clone(),
            columns,
            query: format!(
                "DELETE FROM ONLY {table}
                 WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT ctid FROM ONLY {table} WHERE {which} FOR UPDATE SKIP LOCKED))
                 RETURNING {list}"
            ),
        };
        let name = archive.name(self.run.now, archive::transaction(connection).await?);
        let reason =
            format!("{} older than {} on {}", self.retention.column, self.retention.older_than, self.run.now.format("%Y-%m-%d"));
        let manifest = Manifest::new(&self.run.job.name, self.run.database, &source, &reason);
        let manifest = archive.export(connection, &source, &name, manifest, self.phase).await?;
        let exported = manifest.exported.clone();
        if self.run.cancel.is_cancelled() {
            // Its lock may be lost: the rows stay, and so does what says that this transaction did not commit.
            return Err(Fault::new(Kind::Cancelled, "cancelled").into());
        }
        if exported.rows == 0 {
            // All of them are locked, or kept by a trigger.
            let nothing = self.nothing(connection, last_key).await?;
            archive.discard(&name).await?;
            return Ok(nothing);
        }
        // Should the answer get lost, the pending manifest tells the next run whom to ask.
        pg::execute(connection, "COMMIT".to_owned()).await.context("cannot commit a batch")?;
        archive.complete(&name, &manifest).await?;
        Ok(Batch { rows: exported.rows, found: exported.rows, last_key, archived_bytes: exported.bytes })
    }

    async fn nothing(&self, connection: &mut PgConnection, last_key: Option<String>) -> Result<Batch> {
        pg::execute(connection, "ROLLBACK".to_owned()).await?;
        Ok(Batch { rows: 0, found: 0, last_key, archived_bytes: 0 })
    }

    /// The value of the column that ends a batch of about `size` rows beyond `key`.
    async fn key_after(&self, connection: &mut PgConnection, key: &str, size: u64) -> Result<Option<String>> {
        let column = identifier(&self.retention.column);
        let sql = format!(
            "SELECT pg_catalog.max(key)::pg_catalog.text FROM (
                SELECT {column} AS key FROM ONLY {} WHERE {column} {} $2::pg_catalog.text::{} AND {}
                ORDER BY {column} LIMIT $3::pg_catalog.text::bigint) k",
            self.part.name,
            beyond(key),
            self.plan.type_sql(),
            self.plan.condition
        );
        let place = Place::Key(key.to_owned());
        Ok(self.bound(sql, &place, size).fetch_one(connection).await?.try_get(0)?)
    }

    fn key_value(&self, key: &str) -> String {
        format!("{}::{}", literal(key), self.plan.type_sql())
    }

    /// Finds and locks rows; `$1` the cutoff, `$2` and `$3` the place.
    fn pick(&self, place: &Place) -> String {
        let (table, condition) = (&self.part.name, &self.plan.condition);
        let column = identifier(&self.retention.column);
        match place {
            Place::Block(_) => format!(
                "SELECT ctid, NULL::pg_catalog.text AS key FROM ONLY {table} WHERE {} AND {condition} FOR UPDATE SKIP LOCKED",
                bound_blocks()
            ),
            Place::Key(_) => format!(
                "SELECT ctid, {column} AS key FROM ONLY {table}
                 WHERE {column} OPERATOR(pg_catalog.>=) $2::pg_catalog.text::{} AND {condition}
                 ORDER BY {column} LIMIT $3::pg_catalog.text::bigint FOR UPDATE SKIP LOCKED",
                self.plan.type_sql(),
            ),
        }
    }

    fn bound<'q>(
        &self,
        sql: String,
        place: &Place,
        size: u64,
    ) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
        let (from, to) = match place {
            Place::Block(block) => (format!("({block},0)"), format!("({},0)", block + size)),
            Place::Key(key) => (key.clone(), size.to_string()),
        };
        pg::query(sql).bind(self.plan.cutoff).bind(from).bind(to)
    }
}

/// Rows at the last key were looked at with it; at the very start there is none.
fn beyond(key: &str) -> &'static str {
    if key == START { "OPERATOR(pg_catalog.>=)" } else { "OPERATOR(pg_catalog.>)" }
}

/// Rows in a range of blocks, the end of it not included.
fn between(from: &str, to: &str) -> String {
    format!("ctid OPERATOR(pg_catalog.>=) {from} AND ctid OPERATOR(pg_catalog.<) {to}")
}

fn bound_blocks() -> String {
    between("$2::pg_catalog.text::pg_catalog.tid", "$3::pg_catalog.text::pg_catalog.tid")
}

/// Who stands in the way.
pub async fn locked(connection: &mut PgConnection, name: &str, table: i64, error: &anyhow::Error) -> Result<String> {
    let holders = pg::lock_holders(connection, &[table]).await?;
    let holders = if holders.is_empty() { fault::in_a_line(error) } else { holders };
    Ok(format!("{name} is locked: {holders}"))
}

/// Plain VACUUM: it gives the space to new rows, and waits for nobody.
pub async fn vacuum(connection: &mut PgConnection, plan: &Plan) -> Result<()> {
    pg::set(connection, "statement_timeout", "0").await?;
    for part in &plan.parts {
        pg::execute(connection, format!("VACUUM (SKIP_LOCKED) {}", part.name)).await.context("VACUUM")?;
    }
    Ok(())
}

/// How many rows are left that should have gone: locked by others, or come meanwhile. None when counting takes
/// longer than a batch may, or somebody has locked the table.
pub async fn left(connection: &mut PgConnection, plan: &Plan) -> Result<Option<u64>> {
    let mut left = 0;
    for part in &plan.parts {
        let sql = format!("SELECT pg_catalog.count(*) FROM ONLY {} WHERE {}", part.name, plan.condition);
        match pg::query(sql).bind(plan.cutoff).fetch_one(&mut *connection).await {
            Ok(row) => left += row.try_get::<i64, _>(0)? as u64,
            Err(error)
                if error
                    .as_database_error()
                    .and_then(|said| said.code())
                    .is_some_and(|code| code == "57014" || code == "55P03") =>
            {
                return Ok(None);
            }
            Err(error) => return Err(pg::in_its_own_words(error)),
        }
    }
    Ok(Some(left))
}
