//! The batches of one part of a table, one after another.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use sqlx::PgConnection;

use super::batch::Batch;
use super::keys::Method;
use super::pick::{ENOUGH_BLOCKS, ENOUGH_ROWS, Place};
use super::plan::Plan;
use super::references;
use crate::base::units::{self, Span};
use crate::ledger::report::Report;
use crate::live::governor::{self, Go, Governor, Pace};
use crate::pg::failure;
use crate::task::retention::context::Work;
use crate::{archive, pg};

/// 300 blocks of 8 KiB hold some ten thousand rows of a log table: 40 to 50 ms (research).
const FIRST_BLOCKS: u64 = 100;
const MAX_BLOCKS: u64 = 20_000;
const FIRST_ROWS: u64 = 1_000;
const MAX_ROWS: u64 = 50_000;
/// The target time of an archived batch, which is an object and therefore larger: its rows stay locked during the upload. Other sessions
/// rarely want old rows. Beside others it is deleted in steps: on a disk that takes 150 MB a second, the p99 of an application with 300
/// transactions a second was 81 ms without them (benches/retention.py --write-limit 150).
const ARCHIVE_TIME: Span = Span(Duration::from_secs(5));
const ARCHIVE_FIRST_BLOCKS: u64 = 1_000;
const ARCHIVE_FIRST_ROWS: u64 = 20_000;
/// Before the first row of a table.
const TABLE_START: &str = "(0,0)";
/// A batch that meets a lock, on a row or on a row that a foreign key references, is retried this many times.
const LOCK_ATTEMPTS: u32 = 20;

/// The result of deleting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub rows: u64,
    pub batches: u64,
    pub archived_bytes: u64,
    pub archived_batches: u64,
    /// Rows of tables in `cascade`.
    pub tree_rows: u64,
    pub lock_waits: u64,
    /// True if it stopped because another session held a lock for too long.
    pub is_locked: bool,
    pub resumed_at_block: Option<u64>,
    pub elapsed: Duration,
}

impl Done {
    pub fn report(&self, report: &mut Report) {
        report.fact("rows_deleted", self.rows);
        if self.tree_rows > 0 {
            report.fact("rows_deleted_by_cascade", self.tree_rows);
        }
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
            report.fact("archived_rows", self.rows + self.tree_rows);
            report.fact("archived_bytes", self.archived_bytes);
        }
    }
}

/// The route through a part of the table.
enum Walk {
    /// Up from `at`, then through the blocks before the start, whose rows expired after the last run stopped there.
    Up { at: u64, end: u64, then: Option<u64> },
    /// Down from `at`, repeated while rows go: children are usually younger than their parents, and go first.
    Down { at: u64, end: u64, went: bool },
    /// Along the values of the column.
    Keys(Place),
}

impl Walk {
    fn new(work: &Work<'_>) -> Self {
        let end = work.part.blocks as u64;
        if work.part.method == Method::Index {
            return Self::Keys(Place::Key(work.plan.start.clone()));
        }
        if !work.part.kept.selves.is_empty() {
            return Self::Down { at: end, end, went: false };
        }
        let resume = work.run.resume.as_ref().filter(|cursor| cursor["table"].as_i64() == Some(work.part.oid));
        let start = resume.and_then(|cursor| cursor["block"].as_u64()).filter(|block| *block < end).unwrap_or(0);
        Self::Up { at: start, end, then: (start > 0).then_some(start) }
    }

    fn is_by_blocks(&self) -> bool {
        !matches!(self, Self::Keys(_))
    }

    /// Returns the next position; None at the end.
    fn next(&mut self, size: u64) -> Option<Place> {
        match self {
            Self::Keys(place) => Some(place.clone()),
            Self::Up { at, end, then } => {
                if at >= end {
                    (*at, *end) = (0, then.take()?);
                }
                Some(Place::Blocks(*at, (*at + size).min(*end)))
            }
            Self::Down { at, end, went } => {
                if *at == 0 {
                    if !std::mem::take(went) {
                        return None;
                    }
                    *at = *end;
                }
                Some(Place::Blocks(at.saturating_sub(size), *at))
            }
        }
    }

    /// Advances past the batch of at most `size` rows at `place`; false: there is no further one.
    fn went(&mut self, place: &Place, size: u64, batch: Batch) -> bool {
        match (self, place) {
            (Self::Up { at, .. }, Place::Blocks(_, to)) => *at = *to,
            (Self::Down { at, went, .. }, Place::Blocks(from, _)) => {
                *at = *from;
                *went |= batch.rows > 0;
            }
            (Self::Keys(next), Place::Same(key, _)) => {
                *next = match batch.last_at {
                    Some(last) => Place::Same(key.clone(), last),
                    None => Place::Past(key.clone()),
                };
            }
            (Self::Keys(next), Place::Key(_) | Place::Past(_)) => match (batch.last_key, place) {
                // Some rows with this value stay, and those behind them are looked at one after another.
                (Some(last), Place::Key(key)) if last == *key && batch.rows < size => {
                    *next = Place::Same(last, TABLE_START.to_owned());
                }
                (Some(last), _) => *next = Place::Key(last),
                (None, _) => return false,
            },
            _ => {}
        }
        true
    }
}

/// The next step after a batch that failed.
enum Next {
    /// Repeats the batch with fewer rows.
    Retry,
    Stop(String),
}

impl Work<'_> {
    /// Runs all batches of one part, unless the governor stops it.
    pub async fn all(&self, connection: &mut PgConnection, governor: &mut Governor, done: &mut Done) -> Result<Go> {
        let started = Instant::now();
        let pid = pg::backend_pid(connection).await?;
        self.prepare_session(connection, governor).await?;
        let target = if self.archive.is_some() { ARCHIVE_TIME } else { governor.limits().batch_time };
        let mut walk = Walk::new(self);
        let mut pace = self.pace(&walk);
        if let Walk::Up { at, then: Some(_), .. } = walk {
            done.resumed_at_block = Some(at);
        }
        let mut attempts = 0;
        // The loop is bounded: by blocks, each turn moves on; by keys, each turn goes on to a further value, or a further row of that value; downwards, each walk deletes rows.
        while let Some(place) = walk.next(pace.size()) {
            let size = pace.size();
            if let (Walk::Up { end, .. }, Place::Blocks(block, _)) = (&walk, &place) {
                self.run.progress.set_cursor(Some(json!({ "table": self.part.oid, "block": block })));
                governor.reached(*block as f64 / (*end).max(1) as f64);
            }
            if let Go::Stop(reason) = self.run.or_cancelled(governor.go()).await? {
                done.elapsed += started.elapsed();
                return Ok(Go::Stop(reason));
            }
            // A cancellation does not drop it midway: it is short, and ends in a commit or a rollback.
            let steps = self.archive.and_then(|_| governor.steps());
            let (result, blocked) = governor.watch(pid, self.batch(connection, &place, size, steps)).await;
            let (batch, begun) = match result {
                Ok(done) => done,
                Err(error) => match self.after_failure(error, &mut attempts, (&mut pace, target.0), done).await? {
                    Next::Retry => continue,
                    Next::Stop(reason) => {
                        done.elapsed += started.elapsed();
                        return Ok(Go::Stop(reason));
                    }
                },
            };
            attempts = 0;
            let elapsed = begun.elapsed();
            // A batch in steps has rested already.
            let may = if steps.is_some() { target.0 } else { governor.scaled(target.0) };
            pace.took_beside_others(elapsed, may, target.0, blocked);
            self.count(&batch, done);
            if !walk.went(&place, size, batch) {
                break;
            }
            if steps.is_none() {
                tokio::time::sleep(governor.pause_after(elapsed, may)).await;
            }
        }
        self.run.progress.set_cursor(None);
        done.elapsed += started.elapsed();
        Ok(Go::On)
    }

    /// Limits the time that a batch may wait for a lock, and that it may take.
    async fn prepare_session(&self, connection: &mut PgConnection, governor: &Governor) -> Result<()> {
        archive::prepare_session(connection).await?;
        let lock_timeout =
            governor::lock_timeout_for(&mut self.run.settings.connect().await?, governor.limits().lock_timeout.0).await?;
        pg::set(connection, "lock_timeout", &lock_timeout.as_millis().to_string()).await?;
        pg::set(connection, "statement_timeout", &governor.limits().statement_timeout.0.as_millis().to_string()).await?;
        Ok(())
    }

    fn pace(&self, walk: &Walk) -> Pace {
        match (walk.is_by_blocks(), self.archive.is_some()) {
            (true, false) => Pace::new(FIRST_BLOCKS, 1, MAX_BLOCKS).with_enough(ENOUGH_BLOCKS),
            (true, true) => Pace::new(ARCHIVE_FIRST_BLOCKS, 1, MAX_BLOCKS),
            (false, false) => Pace::new(FIRST_ROWS, 10, MAX_ROWS).with_enough(ENOUGH_ROWS),
            (false, true) => Pace::new(ARCHIVE_FIRST_ROWS, 10, 4 * MAX_ROWS),
        }
    }

    /// Says whether a batch that failed is retried, which `pace` then makes smaller. Any other error than a lock or a timeout is returned.
    async fn after_failure(
        &self,
        error: anyhow::Error,
        attempts: &mut u32,
        (pace, target): (&mut Pace, Duration),
        done: &mut Done,
    ) -> Result<Next> {
        let is_lock_trouble = governor::is_lock_trouble(&error);
        let may_retry = *attempts < LOCK_ATTEMPTS;
        // The next attempt sees a row that became referenced between the check and the deletion.
        if (is_lock_trouble || references::is_referred(&error)) && may_retry {
            *attempts += 1;
            done.lock_waits += 1;
            pace.took(target * 2, target, 1);
            return Ok(Next::Retry);
        }
        // statement_timeout: a slow trigger or a cold disk. Half as many rows may succeed.
        if pg::sql_state(&error).as_deref() == Some("57014") && pace.size() > 1 && may_retry {
            *attempts += 1;
            pace.took(target * 8, target, 1);
            return Ok(Next::Retry);
        }
        if is_lock_trouble {
            done.is_locked = true;
            let mut connection = self.run.settings.connect().await?;
            return Ok(Next::Stop(locked(&mut connection, &self.part.name, self.part.oid, &error).await?));
        }
        Err(error.context(format!("after {} of {}", units::plural(done.rows, "row"), self.part.name)))
    }

    /// Adds the batch to what is done.
    fn count(&self, batch: &Batch, done: &mut Done) {
        done.rows += batch.rows;
        done.tree_rows += batch.tree_rows;
        done.batches += u64::from(batch.found > 0);
        if self.archive.is_some() && batch.rows > 0 {
            done.archived_batches += 1;
            done.archived_bytes += batch.archived_bytes;
        }
    }
}

/// Names the sessions that hold the lock.
pub async fn locked(connection: &mut PgConnection, name: &str, table: i64, error: &anyhow::Error) -> Result<String> {
    let holders = pg::lock_holders(connection, &[table]).await?;
    let holders = if holders.is_empty() { failure::in_a_line(error) } else { holders };
    Ok(format!("{name} is locked: {holders}"))
}

/// Runs plain VACUUM: new rows can reuse the space, and it waits for no lock.
pub async fn vacuum(connection: &mut PgConnection, plan: &Plan) -> Result<()> {
    pg::set(connection, "statement_timeout", "0").await?;
    for part in &plan.parts {
        pg::execute(connection, format!("VACUUM (SKIP_LOCKED) {}", part.name)).await.context("VACUUM")?;
    }
    Ok(())
}
