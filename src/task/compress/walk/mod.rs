//! Walks the rows in the order of the key, in batches of a target time: gzip, toast and undo share this.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use sqlx::PgConnection;

use super::keys::Compress;
use super::table::{self, Key, Table};
use super::{dependants, horizon};
use crate::base::fault::{Fault, Kind};
use crate::base::progress::Phase;
use crate::base::units;
use crate::config::limits::Limits;
use crate::live::governor::{self, Go, Governor, Pace};
use crate::pg;
use crate::work::RunContext;

mod batch;
mod done;
mod page;
pub use batch::{Moved, begin, places};
pub use done::{Batch, Done};
use page::Page;
pub use page::{Row, Selection, place};

/// The target time of a batch as a multiple of batch_time. A value of each batch is read back through the view, which takes 5 ms and
/// more: with batch_time itself, each row was a batch (3,000 values of 18 kB took 70 s).
const TIMES_BATCH_TIME: u32 = 5;
const FIRST_ROWS: u64 = 20;
const MAX_ROWS: u64 = 1_000;
/// The bytes of values in memory at once; a larger one is a batch of its own.
const BATCH_BYTES: u64 = 16 << 20;
const LOCK_ATTEMPTS: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// The bytes of dead values that are worth a VACUUM, so that new ones reuse their space.
const VACUUM_BYTES: u64 = 64 << 20;

/// A walk of a run over the rows of its table.
pub struct Walk<'a> {
    pub compress: &'a Compress,
    pub table: &'a Table,
    pub run: &'a RunContext<'a>,
    pub phase: &'a Phase,
}

/// The change of a batch of rows, each in a transaction of its own.
pub trait Change {
    fn batch(&self, connection: &mut PgConnection, table: &Table, rows: &[Row]) -> impl Future<Output = Result<Batch>>;
}

impl Walk<'_> {
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

    /// Changes all rows of the selection in batches: first those after the row at which the last run stopped, then those before it.
    pub async fn change_all(
        &self,
        connection: &mut PgConnection,
        governor: &mut Governor,
        selection: &Selection,
        done: &mut Done,
        change: &impl Change,
    ) -> Result<Go> {
        let key = self.key()?;
        let started = Instant::now();
        let pid = pg::backend_pid(connection).await?;
        let mut pace = Pace::new(FIRST_ROWS, 1, MAX_ROWS);
        let resume = place(self.run, self.table);
        done.resumed = resume.is_some();
        let mut dead_bytes = 0;
        let mut since = horizon::now(connection).await?;
        let ranges = match resume {
            Some(place) => vec![(Some(place.clone()), None), (None, Some(place))],
            None => vec![(None, None)],
        };
        for (mut after, until) in ranges {
            let until = match until {
                Some(until) => Some(until),
                // New rows are left to the next run, or the walk might never end.
                None => page::last_key(connection, self.table, key).await?,
            };
            if until.is_none() {
                continue;
            }
            loop {
                // Triggers of the table ran in earlier batches and may have changed it.
                pg::reset_search_path(connection).await?;
                let page = Page::read(connection, (self.table, key), selection, after.as_deref(), until.as_deref()).await?;
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
                    let result = self.change_batch(connection, governor, pid, batch, &mut pace, done, change).await?;
                    let pause = governor.pause_after(began.elapsed().saturating_sub(result.waited), target_time(governor));
                    self.phase.advance(result.before_bytes);
                    rest = left;
                    self.run.progress.set_cursor(batch.last().map(|row| json!({ "table": self.table.oid, "key": row.key })));
                    dead_bytes += result.dead_bytes;
                    if self.compress.vacuum && dead_bytes > VACUUM_BYTES.max(self.table.toast_bytes / 10) {
                        let max_wait = governor.limits().max_wait.0;
                        let held = (since.as_str(), dead_bytes);
                        let go = horizon::wait(self.run, connection, held, max_wait, self.phase).await?;
                        self.vacuum(governor.limits(), done).await?;
                        if let Go::Stop(reason) = go {
                            done.elapsed += started.elapsed();
                            return Ok(Go::Stop(reason));
                        }
                        (dead_bytes, since) = (0, horizon::now(connection).await?);
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
            let holders = horizon::holders(connection, &since).await?;
            done.not_freed = holders.map(|who| horizon::remark(&who, dead_bytes));
            self.vacuum(governor.limits(), done).await?;
        }
        Ok(Go::On)
    }

    /// Changes a batch, and tries it again for as long as another session locks the table or one of its indexes.
    #[allow(clippy::too_many_arguments)]
    async fn change_batch(
        &self,
        connection: &mut PgConnection,
        governor: &mut Governor,
        pid: i32,
        rows: &[Row],
        pace: &mut Pace,
        done: &mut Done,
        change: &impl Change,
    ) -> Result<Batch> {
        let target = target_time(governor);
        let started = Instant::now();
        for attempt in 1..=LOCK_ATTEMPTS {
            let began = Instant::now();
            // A cancellation does not drop it midway: it is short, and ends in a commit or a rollback.
            let (result, blocked) = governor.watch(pid, change.batch(connection, self.table, rows)).await;
            match result {
                Ok(batch) => {
                    pace.took(began.elapsed().saturating_sub(batch.waited), target, blocked);
                    done.add(&batch);
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

    /// Runs a plain VACUUM on a connection without the batch's timeouts. It frees space for new values, and skips a locked table.
    async fn vacuum(&self, limits: &Limits, done: &mut Done) -> Result<()> {
        let mut connection = self.run.settings.connect().await?;
        pg::set(&mut connection, "lock_timeout", &limits.lock_timeout.0.as_millis().to_string()).await?;
        // It works in small steps, as autovacuum does.
        pg::set(&mut connection, "vacuum_cost_delay", "2").await?;
        let pid = pg::backend_pid(&mut connection).await?;
        let vacuum = pg::execute(&mut connection, format!("VACUUM (SKIP_LOCKED, PARALLEL 0) {}", self.table.sql()));
        let result = self.run.or_cancelled(async { vacuum.await.context("VACUUM") }).await;
        self.run.stop_if_cancelled(pid).await;
        result?;
        done.vacuums += 1;
        Ok(())
    }
}

/// Returns the time that a batch may take.
fn target_time(governor: &Governor) -> Duration {
    governor.scaled(governor.limits().batch_time.0 * TIMES_BATCH_TIME)
}

/// Returns the number of these rows that go into one batch.
fn batch_length(rows: &[Row], max_rows: u64) -> usize {
    let mut bytes = 0;
    let fits = rows.iter().take(max_rows.max(1) as usize).take_while(|row| {
        bytes += row.bytes;
        bytes <= BATCH_BYTES
    });
    fits.count().max(1)
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
