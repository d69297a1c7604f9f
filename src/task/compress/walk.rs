//! Walks the rows in the order of the key, in batches of a target time: gzip, toast and undo share this.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::decide::Verdict;
use super::dependants;
use super::keys::Compress;
use super::table::{self, Key, Table};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::units;
use crate::config::limits::Limits;
use crate::ledger::report::Report;
use crate::live::governor::{self, Go, Governor, Pace};
use crate::pg::{self, identifier};
use crate::work::RunContext;

/// The target time of a batch as a multiple of batch_time. A body of each batch is read back through the view, which takes 5 ms and
/// more: with batch_time itself, each row was a batch (3,000 bodies of 18 kB took 70 s).
const TIMES_BATCH_TIME: u32 = 5;
/// The number of rows that one statement reads. Their bodies are not fetched: TOAST pointers have the sizes.
const PAGE_ROWS: i64 = 2_000;
const FIRST_ROWS: u64 = 20;
const MOST_ROWS: u64 = 1_000;
/// The bytes of bodies in memory at once; a larger one is a batch of its own.
const BATCH_BYTES: u64 = 16 << 20;
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// The number of damaged bodies that are named.
const DAMAGED_NAMED: usize = 20;
/// The bytes of dead bodies that are worth a VACUUM, so that new ones reuse their space.
const VACUUM_BYTES: u64 = 64 << 20;

#[derive(Debug, Default)]
pub struct Done {
    pub rows: u64,
    /// The stored bytes before and after.
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub raw_bytes: u64,
    pub batches: u64,
    /// Rows that were changed, deleted or locked since they were read, and are left alone.
    pub changed_meanwhile: u64,
    /// Rows whose other form would not be smaller.
    pub not_smaller: u64,
    pub too_large: u64,
    /// undo: rows that cannot be decoded, and the keys of the first of them.
    pub damaged: u64,
    pub damaged_named: Vec<String>,
    pub vacuums: u64,
    pub lock_waits: u64,
    pub resumed: bool,
    pub elapsed: Duration,
}

impl Done {
    pub fn report(&self, report: &mut Report) {
        report.fact("rows_compressed", self.rows);
        report.fact("bytes_before", self.before_bytes);
        report.fact("bytes_after", self.after_bytes);
        report.fact("raw_bytes", self.raw_bytes);
        report.fact("batches", self.batches);
        report.fact("rows_changed_meanwhile", self.changed_meanwhile);
        report.fact("rows_not_smaller", self.not_smaller);
        report.fact("rows_too_large", self.too_large);
        report.fact("lock_waits", self.lock_waits);
        report.fact("vacuums", self.vacuums);
        report.fact("resumed", self.resumed);
        report.fact("elapsed_seconds", self.elapsed.as_secs_f64());
        if self.elapsed > Duration::ZERO && self.rows > 0 {
            report.fact("megabytes_per_second", (self.raw_bytes as f64 / 1e5 / self.elapsed.as_secs_f64()).round() / 10.0);
        }
    }

    pub fn summary(&self, table: &str, verdict: &Verdict) -> String {
        let how = match verdict {
            Verdict::Toast { compression, .. } => format!("rewritten with {compression}"),
            _ => "compressed".to_owned(),
        };
        let mut text = match self.rows {
            0 => format!("nothing compressed in {table}"),
            rows => format!("{} of {table} {how}", units::plural(rows, "body")),
        };
        if self.rows > 0 {
            let share = 100.0 * self.after_bytes as f64 / self.before_bytes.max(1) as f64;
            text +=
                &format!(": {} stored became {} ({share:.0} %)", units::bytes(self.before_bytes), units::bytes(self.after_bytes));
        }
        for (count, why) in [
            (self.changed_meanwhile, "changed or locked meanwhile, left for the next run"),
            (self.not_smaller, "left as they are: not smaller"),
            (self.too_large, "left as they are: above smaller_than"),
        ] {
            if count > 0 {
                text += &format!("; {} {why}", units::count(count));
            }
        }
        text
    }
}

pub struct Work<'a> {
    pub compress: &'a Compress,
    pub table: &'a Table,
    pub run: &'a RunContext<'a>,
    pub phase: &'a Phase,
}

/// A row to be changed, as it was when it was read.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: Vec<String>,
    pub ctid: String,
    pub xmin: String,
    pub bytes: u64,
}

/// The expressions over the table by which a walk chooses its rows.
pub struct Wanted {
    /// It is true for rows to be changed.
    pub condition: String,
    /// The bytes of its body in memory.
    pub bytes: String,
    /// It is true for rows that are left out only because they are too large.
    pub too_large: String,
}

/// The change of a batch of rows, each in a transaction of its own.
pub trait Act {
    fn batch(&self, connection: &mut PgConnection, table: &Table, rows: &[Row]) -> impl Future<Output = Result<Batch>>;
}

/// The result of a batch.
#[derive(Debug, Default)]
pub struct Batch {
    pub rows: u64,
    pub before_bytes: u64,
    pub after_bytes: u64,
    pub raw_bytes: u64,
    pub changed_meanwhile: u64,
    pub not_smaller: u64,
    /// The dead bytes that it left for VACUUM.
    pub dead_bytes: u64,
    /// Rows that cannot be decoded, and stay.
    pub damaged: Vec<String>,
}

impl Work<'_> {
    pub fn key(&self) -> Result<&Key> {
        self.table.key.as_ref().with_context(|| {
            Fault::new(Kind::Configuration, format!("{} cannot be compressed: {}", self.table.sql(), dependants::NO_KEY))
        })
    }

    /// Opens a connection with the limits of the job.
    pub async fn connect(&self, limits: &Limits) -> Result<PgConnection> {
        let mut connection = self.run.settings.connect().await?;
        table::prepare(&mut connection).await?;
        pg::commit_durably(&mut connection).await?;
        let lock_timeout = governor::lock_timeout_for(&mut connection, limits.lock_timeout.0).await?;
        pg::set(&mut connection, "lock_timeout", &lock_timeout.as_millis().to_string()).await?;
        pg::set(&mut connection, "statement_timeout", &limits.statement_timeout.0.as_millis().to_string()).await?;
        if table::silences_triggers(&mut connection, self.table).await? {
            pg::set(&mut connection, "session_replication_role", "replica").await?;
        }
        Ok(connection)
    }

    /// Changes all rows that `wanted` names, in batches by `act`: first from where the last run stopped, then those before that.
    pub async fn all(
        &self,
        connection: &mut PgConnection,
        governor: &mut Governor,
        wanted: &Wanted,
        done: &mut Done,
        act: &impl Act,
    ) -> Result<Go> {
        let key = self.key()?;
        let started = Instant::now();
        let pid = pg::backend_pid(connection).await?;
        let mut pace = Pace::new(FIRST_ROWS, 1, MOST_ROWS);
        let resume = place(self.run, self.table);
        done.resumed = resume.is_some();
        let mut dead_bytes = 0;
        let legs = match resume {
            Some(place) => vec![(Some(place.clone()), None), (None, Some(place))],
            None => vec![(None, None)],
        };
        for (mut after, until) in legs {
            let until = match until {
                Some(until) => Some(until),
                // New rows are left to the next run, or the walk might never end.
                None => self.last(connection, key).await?,
            };
            if until.is_none() {
                continue;
            }
            loop {
                // Triggers of the table ran in earlier batches and may have changed it.
                pg::reset_search_path(connection).await?;
                let page = self.page(connection, key, wanted, after.as_deref(), until.as_deref()).await?;
                done.too_large += page.too_large;
                let Some(last) = page.last else { break };
                let mut rest = page.rows.as_slice();
                while !rest.is_empty() {
                    if let Go::Stop(reason) = self.run.or_cancelled(governor.go()).await? {
                        done.elapsed += started.elapsed();
                        return Ok(Go::Stop(reason));
                    }
                    let began = Instant::now();
                    let (batch, left) = rest.split_at(batch_length(rest, pace.size()));
                    let result = self.batch(connection, governor, pid, batch, &mut pace, done, act).await?;
                    let pause =
                        governor.pause_after(began.elapsed(), governor.scaled(governor.limits().batch_time.0 * TIMES_BATCH_TIME));
                    dead_bytes += result.dead_bytes;
                    self.phase.advance(result.before_bytes);
                    rest = left;
                    self.run.progress.set_cursor(batch.last().map(|row| json!({ "table": self.table.oid, "key": row.key })));
                    if self.compress.vacuum && dead_bytes > VACUUM_BYTES.max(self.table.toast_bytes / 10) {
                        self.vacuum(governor.limits()).await?;
                        done.vacuums += 1;
                        dead_bytes = 0;
                    }
                    self.rest(pause).await?;
                }
                self.rest(Duration::ZERO).await?;
                after = Some(last);
            }
        }
        self.run.progress.set_cursor(None);
        done.elapsed += started.elapsed();
        if self.compress.vacuum && dead_bytes > 0 {
            self.vacuum(governor.limits()).await?;
            done.vacuums += 1;
        }
        Ok(Go::On)
    }

    #[allow(clippy::too_many_arguments)]
    async fn batch(
        &self,
        connection: &mut PgConnection,
        governor: &mut Governor,
        pid: i32,
        rows: &[Row],
        pace: &mut Pace,
        done: &mut Done,
        act: &impl Act,
    ) -> Result<Batch> {
        let target = governor.scaled(governor.limits().batch_time.0 * TIMES_BATCH_TIME);
        let started = Instant::now();
        for attempt in 1..=LOCK_ATTEMPTS {
            let began = Instant::now();
            // A cancellation does not drop it midway: it is short, and ends in a commit or a rollback.
            let (result, blocked) = governor.watch(pid, act.batch(connection, self.table, rows)).await;
            match result {
                Ok(batch) => {
                    pace.took(began.elapsed(), target, blocked);
                    done.rows += batch.rows;
                    done.before_bytes += batch.before_bytes;
                    done.after_bytes += batch.after_bytes;
                    done.raw_bytes += batch.raw_bytes;
                    done.changed_meanwhile += batch.changed_meanwhile;
                    done.not_smaller += batch.not_smaller;
                    done.damaged += batch.damaged.len() as u64;
                    let room = DAMAGED_NAMED.saturating_sub(done.damaged_named.len());
                    done.damaged_named.extend(batch.damaged.iter().take(room).cloned());
                    done.batches += u64::from(batch.rows > 0);
                    return Ok(batch);
                }
                Err(error) => {
                    let _ = pg::execute(connection, "ROLLBACK".to_owned()).await;
                    // Another session locks the index or the table for more than a moment.
                    let is_over = attempt == LOCK_ATTEMPTS || started.elapsed() > governor.limits().max_wait.0;
                    if !governor::is_lock_trouble(&error) || is_over {
                        return Err(error.context(format!("after {} of {}", units::plural(done.rows, "row"), self.table.sql())));
                    }
                    done.lock_waits += 1;
                    pace.took(target * 2, target, 1);
                    self.rest(LOCK_PAUSE).await?;
                }
            }
        }
        anyhow::bail!("{} was locked the whole time", self.table.sql())
    }

    /// Sleeps, and ends early if the run is cancelled.
    async fn rest(&self, pause: Duration) -> Result<()> {
        let pause = async {
            tokio::time::sleep(pause).await;
            Ok(())
        };
        self.run.or_cancelled(pause).await
    }

    async fn last(&self, connection: &mut PgConnection, key: &Key) -> Result<Option<Vec<String>>> {
        let order = key.columns.iter().map(|column| format!("{} DESC", identifier(column))).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {} FROM ONLY {} ORDER BY {order} LIMIT 1", as_texts(key), self.table.sql());
        match pg::query(sql).fetch_optional(connection).await.map_err(pg::in_its_own_words)? {
            Some(row) => Ok(Some(row.try_get(0)?)),
            None => Ok(None),
        }
    }

    async fn page(
        &self,
        connection: &mut PgConnection,
        key: &Key,
        wanted: &Wanted,
        after: Option<&[String]>,
        until: Option<&[String]>,
    ) -> Result<Page> {
        let columns = key.columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "WITH page AS MATERIALIZED (
                SELECT {texts} AS key, ctid::text AS ctid, xmin::text AS xmin, row_number() OVER (ORDER BY {columns}) AS number,
                       CASE WHEN {condition} THEN ({bytes})::bigint END AS bytes, {too_large} AS too_large
                FROM ONLY {table} WHERE {after} AND {until} ORDER BY {columns} LIMIT {PAGE_ROWS})
             SELECT key, ctid, xmin, bytes, (SELECT count(*) FROM page WHERE too_large) AS too_large
             FROM page WHERE bytes IS NOT NULL OR number = (SELECT max(number) FROM page) ORDER BY number",
            texts = as_texts(key),
            condition = wanted.condition,
            bytes = wanted.bytes,
            too_large = wanted.too_large,
            table = self.table.sql(),
            after = after.map_or("$1::text[] IS NULL".to_owned(), |_| compared(key, ">", "$1")),
            until = until.map_or("$2::text[] IS NULL".to_owned(), |_| compared(key, "<=", "$2")),
        );
        let rows = pg::query(sql).bind(after).bind(until).fetch_all(connection).await.map_err(pg::in_its_own_words)?;
        let mut page = Page::default();
        for row in rows {
            let key: Vec<String> = row.try_get("key")?;
            page.last = Some(key.clone());
            page.too_large = row.try_get::<i64, _>("too_large")? as u64;
            if let Some(bytes) = row.try_get::<Option<i64>, _>("bytes")? {
                page.rows.push(Row { key, ctid: row.try_get("ctid")?, xmin: row.try_get("xmin")?, bytes: bytes as u64 });
            }
        }
        Ok(page)
    }

    /// Runs a plain VACUUM on a connection without the batch's timeouts. It frees space for new bodies, and skips a locked table.
    async fn vacuum(&self, limits: &Limits) -> Result<()> {
        let mut connection = self.run.settings.connect().await?;
        pg::set(&mut connection, "lock_timeout", &limits.lock_timeout.0.as_millis().to_string()).await?;
        // It works in small steps, as autovacuum does.
        pg::set(&mut connection, "vacuum_cost_delay", "2").await?;
        let pid = pg::backend_pid(&mut connection).await?;
        let vacuum = pg::execute(&mut connection, format!("VACUUM (SKIP_LOCKED, PARALLEL 0) {}", self.table.sql()));
        let done = self.run.or_cancelled(async { vacuum.await.context("VACUUM") }).await;
        self.run.stop_if_cancelled(pid).await;
        done
    }
}

/// Returns the key at which the last run stopped.
pub fn place(run: &RunContext<'_>, table: &Table) -> Option<Vec<String>> {
    let key = table.key.as_ref()?;
    let cursor = run.resume.as_ref().filter(|cursor| cursor["table"].as_i64() == Some(table.oid))?;
    let place: Vec<String> = serde_json::from_value(cursor["key"].clone()).ok()?;
    (place.len() == key.columns.len()).then_some(place)
}

#[derive(Default)]
struct Page {
    rows: Vec<Row>,
    last: Option<Vec<String>>,
    too_large: u64,
}

/// Returns the number of these rows that go into one batch.
fn batch_length(rows: &[Row], most: u64) -> usize {
    let mut bytes = 0;
    let fits = rows.iter().take(most.max(1) as usize).take_while(|row| {
        bytes += row.bytes;
        bytes <= BATCH_BYTES
    });
    fits.count().max(1)
}

fn as_texts(key: &Key) -> String {
    let columns = key.columns.iter().map(|column| format!("{}::text", identifier(column))).collect::<Vec<_>>().join(", ");
    format!("ARRAY[{columns}]")
}

/// Compares the key with a bound array of texts.
fn compared(key: &Key, operator: &str, bound: &str) -> String {
    let columns = key.columns.iter().map(|column| identifier(column)).collect::<Vec<_>>().join(", ");
    let values: Vec<String> =
        (1..).zip(&key.types).map(|(number, kind)| format!("({bound}::text[])[{number}]::{kind}")).collect();
    match key.columns.len() {
        1 => format!("{columns} OPERATOR(pg_catalog.{operator}) {}", values.join(", ")),
        _ => format!("ROW({columns}) OPERATOR(pg_catalog.{operator}) ROW({})", values.join(", ")),
    }
}

/// Begins the transaction of a batch, and proves that the table's name still means the table that was found, with the code that the run found
/// on it.
pub async fn begin(connection: &mut PgConnection, table: &Table) -> Result<()> {
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE; {}",
        table.sql(),
        pg::table::proof([&table.checked()])
    );
    pg::execute_counting(connection, begin).await.map_err(pg::in_its_own_words)?;
    Ok(())
}

/// The rows that an UPDATE has written: the present place of each, and its former one.
pub struct Moved(Vec<(String, String)>);

impl Moved {
    /// Reads the rows of `RETURNING t.ctid::text, d.ctid`.
    pub fn of(rows: &[PgRow]) -> Result<Self> {
        let places = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        Ok(Self(places.collect::<Result<_, sqlx::Error>>()?))
    }

    pub fn from(&self, place: &str) -> Result<&str> {
        let found = self.0.iter().find(|(to, _)| to == place);
        found.map(|(_, from)| from.as_str()).context("a row is not where it was written")
    }

    /// Reads the rows as the transaction will leave them, after all triggers, also the deferred ones. `sql` takes the places as $1.
    pub async fn read_again(&self, connection: &mut PgConnection, table: &Table, sql: String) -> Result<Vec<PgRow>> {
        pg::execute(connection, "SET CONSTRAINTS ALL IMMEDIATE".to_owned()).await.map_err(|error| {
            error.context(format!("a deferred trigger or constraint of {} raised an error: nothing was changed", table.sql()))
        })?;
        let places: Vec<&str> = self.0.iter().map(|(to, _)| to.as_str()).collect();
        let rows = pg::query(sql).bind(places).fetch_all(connection).await.map_err(pg::in_its_own_words)?;
        anyhow::ensure!(
            rows.len() == self.0.len(),
            "a trigger of {} changes or deletes rows that were just written: nothing was changed; disable it while the job runs",
            table.sql()
        );
        Ok(rows)
    }
}

/// Returns the places and xmins of a batch's rows as arrays to be bound.
pub fn places(rows: &[Row]) -> (Vec<String>, Vec<String>) {
    (rows.iter().map(|row| row.ctid.clone()).collect(), rows.iter().map(|row| row.xmin.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_at_its_rows_or_at_its_bytes_and_has_at_least_one_row() {
        let rows = |sizes: &[u64]| -> Vec<Row> {
            sizes.iter().map(|bytes| Row { key: Vec::new(), ctid: String::new(), xmin: String::new(), bytes: *bytes }).collect()
        };
        assert_eq!(batch_length(&rows(&[1, 1, 1]), 2), 2);
        assert_eq!(batch_length(&rows(&[BATCH_BYTES, 1]), 20), 1);
        assert_eq!(batch_length(&rows(&[BATCH_BYTES * 2, 1]), 20), 1);
        assert_eq!(batch_length(&rows(&[1, 2, 3]), 0), 1);
    }
}
