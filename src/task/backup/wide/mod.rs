//! A dump by several sessions, which read one snapshot. pg_dump writes the definitions; sessions of ours read the rows of the large tables, in
//! slices where no code of others can run ([`whole`]); a second pg_dump writes all other rows, and what comes after rows (indexes, keys, triggers). Each piece of the sessions is a COPY
//! statement of its own, so that they can come in any order.

mod proof;
mod tables;
pub mod whole;

use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::proof::Another;
use self::tables::{Part, Table};
use super::keys::Backup;
use super::patterns::Patterns;
use super::pg_dump::{self, Share};
use super::plan::Plan;
use super::search_path::SearchPath;
use super::stream::Pieces;
use super::why;
use crate::base::child::{Child, Ended};
use crate::base::{thread, units};
use crate::pg;

/// Rows of one COPY statement, about: it ends with the row that reaches this.
const ROWS_BYTES: usize = 2 << 20;

/// Tables may be dropped while the first session locks them: so often it looks for them again.
const ATTEMPTS: usize = 3;

/// The sessions, which have one snapshot, and a lock on each of the tables; and the pg_dumps with the same snapshot.
pub struct Wide {
    sessions: Vec<PgConnection>,
    tables: Vec<Table>,
    /// The tables that each of the sessions has locked, by their oids.
    locked: Vec<i64>,
    definitions: Child,
    rest: Child,
}

impl Wide {
    /// None where there is nothing for several sessions: no large table.
    pub async fn start(settings: &pg::Settings, plan: &Plan, backup: &Backup) -> Result<Option<Self>> {
        if backup.sessions == 1 || plan.server.database.has_no_way_to_utf8() {
            return Ok(None);
        }
        let mut sessions = open_sessions(settings, backup).await?;
        let (first, others) = sessions.split_first_mut().context("a dump has a session")?;
        let mut attempt = 1;
        let begun = loop {
            match begin(first, settings, backup).await {
                Err(error) if (is_of_a_dropped_table(&error) || error.is::<Another>()) && attempt < ATTEMPTS => {
                    pg::execute(first, "ROLLBACK".to_owned()).await?;
                    attempt += 1;
                }
                begun => break why_not_locked(begun, settings).await?,
            }
        };
        let Some(Begun { tables, locked, snapshot }) = begun else { return Ok(None) };
        for session in others {
            why_not_locked(join(session, &tables, &locked, &snapshot).await, settings).await?;
        }
        let bytes = tables.iter().map(|table| table.bytes.max(0) as u64).sum();
        let count = units::plural(tables.len(), "table");
        let how = whole::in_words(&tables).map(|how| format!(": {how}")).unwrap_or_default();
        tracing::info!("{} sessions read the rows of {count} of {}{how}", sessions.len(), units::bytes(bytes));
        let names: Vec<String> = tables.iter().map(Table::sql).collect();
        let share = |sections| Share { sections, snapshot: Some(&snapshot), without_rows: &names };
        // Both now: each locks all tables, and a migration may come at any time.
        let definitions = pg_dump::start(settings, plan, backup, &share(&["pre-data"])).await?;
        let rest = pg_dump::start(settings, plan, backup, &share(&["data", "post-data"])).await?;
        Ok(Some(Self { sessions, tables, locked, definitions, rest }))
    }

    /// Writes all of the dump. Returns the end of the last pg_dump, whose last lines are those of the dump, and what both said on stderr.
    pub async fn write(self, pieces: Pieces, settings: &pg::Settings, plan: &Plan, backup: &Backup) -> Result<Ended> {
        let Self { sessions, tables, locked, mut definitions, mut rest } = self;
        pieces.read(definitions.take_stdout()?, plan.known_settings.clone()).await?;
        let defined = definitions.wait().await?;
        pg_dump::check(&defined, pieces.are_complete().await, settings, plan, backup).await?;
        // Before its first output it has all its locks.
        let Some(output) = after_first_output(rest.take_stdout()?).await? else {
            let ended = rest.wait().await?;
            pg_dump::check(&ended, false, settings, plan, backup).await?;
            return Ok(ended);
        };
        copy(sessions, tables, locked, &pieces).await?;
        pieces.read(output, plan.known_settings.clone()).await?;
        let mut ended = rest.wait().await?;
        ended.stderr = [defined.stderr, ended.stderr].into_iter().filter(|said| !said.is_empty()).collect::<Vec<_>>().join("\n");
        Ok(ended)
    }
}

/// All of them before the first lock, so that little time passes between the locks.
async fn open_sessions(settings: &pg::Settings, backup: &Backup) -> Result<Vec<PgConnection>> {
    let mut sessions = Vec::new();
    for number in 1..=backup.sessions {
        let which = || format!("session {number} of the {} of the dump (`sessions` of the job)", backup.sessions);
        let mut session = settings.connect().await.with_context(which)?;
        // As pg_dump has it; and a store that takes no bytes for a minute does not end the session.
        let sets = format!(
            "SET search_path = ''; SET tcp_user_timeout = 0; SET max_parallel_workers_per_gather = 0; SET lock_timeout = {}",
            backup.lock_wait_timeout.0.as_millis()
        );
        let sets = pg::tables_alone(&session).into_iter().chain([sets]).collect::<Vec<_>>().join("; ");
        pg::execute(&mut session, sets).await.with_context(which)?;
        sessions.push(session);
    }
    Ok(sessions)
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// What the first session found.
struct Begun {
    tables: Vec<Table>,
    /// The oids of all tables that it has locked; some of them may be none of `tables`.
    locked: Vec<i64>,
    snapshot: String,
}

/// Locks the large tables, then takes the snapshot: one that was rewritten after the snapshot would be empty in it.
async fn begin(session: &mut PgConnection, settings: &pg::Settings, backup: &Backup) -> Result<Option<Begun>> {
    let found_by_name = SearchPath::schemas_for(&Patterns::of(&backup.filters), settings).await?;
    let found = tables::read(session, &backup.filters, &found_by_name, None).await?;
    if found.is_empty() {
        return Ok(None);
    }
    pg::execute(session, BEGIN.to_owned()).await?;
    pg::execute(session, lock(&found)).await?;
    let locked: Vec<i64> = found.iter().map(|table| table.oid).collect();
    proof::has_read_nothing_else(session, &locked).await?;
    let mut tables = tables::read(session, &backup.filters, &found_by_name, Some(&locked)).await?;
    // One that was renamed meanwhile is not the one that is locked.
    tables.retain(|table| found.iter().any(|one| (one.oid, &one.schema, &one.name) == (table.oid, &table.schema, &table.name)));
    if tables.is_empty() {
        return Ok(None);
    }
    whole::decide(session, &mut tables).await?;
    let snapshot = pg::fetch_text(session, "SELECT pg_catalog.pg_export_snapshot()".to_owned()).await?;
    Ok(Some(Begun { tables, locked, snapshot: snapshot.context("the server exported no snapshot")? }))
}

/// A session that waited for a lock behind somebody who waits for the first session would wait for ever, and no server sees that.
async fn join(session: &mut PgConnection, tables: &[Table], locked: &[i64], snapshot: &str) -> Result<()> {
    pg::execute(session, BEGIN.to_owned()).await?;
    pg::execute(session, format!("SET TRANSACTION SNAPSHOT {}", pg::literal(snapshot))).await?;
    pg::execute(session, format!("{} NOWAIT", lock(tables))).await?;
    proof::has_read_nothing_else(session, locked).await
}

fn lock(tables: &[Table]) -> String {
    let names: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.sql())).collect();
    format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))
}

fn is_of_a_dropped_table(error: &anyhow::Error) -> bool {
    matches!(pg::sql_state(error).as_deref(), Some("42P01" | "3F000"))
}

/// Names who holds or awaits a lock in the way.
async fn why_not_locked<T>(locked: Result<T>, settings: &pg::Settings) -> Result<T> {
    match locked {
        Err(error) if pg::sql_state(&error).as_deref() == Some("55P03") => {
            let who = why::who_locks(settings).await.unwrap_or_default();
            Err(error.context(format!("a table cannot be locked for the dump{who}")))
        }
        other => other,
    }
}

/// Waits until a pg_dump has written something; None when it ends without.
async fn after_first_output(mut output: std::fs::File) -> Result<Option<impl Read + Send + 'static>> {
    let (sender, receiver) = oneshot::channel();
    thread::spawn("dump-waiter", move || {
        let mut first = vec![0];
        let read = output.read(&mut first).map(|count| (count > 0).then(|| Cursor::new(first).chain(output)));
        let _ = sender.send(read);
    })?;
    receiver.await.context("the waiting thread ended")?.context("cannot read the dump")
}

/// What the sessions share.
struct Work {
    tables: Vec<Table>,
    locked: Vec<i64>,
    /// Parts of tables, each with its table's index.
    parts: Mutex<VecDeque<(usize, Part)>>,
    /// True for each table of which the dump has a COPY statement.
    is_written: Vec<AtomicBool>,
    pieces: Pieces,
}

/// Reads all tables, the largest first, part by part: neighbours in the dump are of one table, apart from where one follows another.
async fn copy(sessions: Vec<PgConnection>, tables: Vec<Table>, locked: Vec<i64>, pieces: &Pieces) -> Result<()> {
    let parts = tables.iter().enumerate().flat_map(|(number, table)| table.parts().into_iter().map(move |part| (number, part)));
    let work = Arc::new(Work {
        parts: Mutex::new(parts.collect()),
        is_written: tables.iter().map(|_| AtomicBool::new(false)).collect(),
        pieces: pieces.clone(),
        tables,
        locked,
    });
    // The first that fails ends the others: a JoinSet that is dropped ends its tasks.
    let mut working = JoinSet::new();
    for session in sessions {
        working.spawn(copy_parts(session, Arc::clone(&work)));
    }
    while let Some(done) = working.join_next().await {
        done.context("a session's task ended unexpectedly")??;
    }
    // The dump names every table, also one without rows.
    for (table, _) in work.tables.iter().zip(&work.is_written).filter(|(_, is_written)| !is_written.load(Relaxed)) {
        work.pieces.add(ended(table.head().into_bytes())).await?;
    }
    Ok(())
}

async fn copy_parts(mut session: PgConnection, work: Arc<Work>) -> Result<()> {
    loop {
        let part = work.parts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((number, part)) = part else { break };
        let table = &work.tables[number];
        copy_part(&mut session, table, &part, &work, number)
            .await
            .with_context(|| format!("cannot read the rows of {}", table.sql()))?;
    }
    proof::has_read_nothing_else(&mut session, &work.locked).await?;
    // All rows are read: how the session ends does not matter.
    let _ = session.close().await;
    Ok(())
}

async fn copy_part(session: &mut PgConnection, table: &Table, part: &Part, work: &Work, number: usize) -> Result<()> {
    // Before a query is planned: of another table the planner might run code.
    proof::is_the_locked(session, table).await?;
    let mut rows = match part {
        Part::Whole => pg::copy_table_out(session, &table.sql(), &table.column_list()).await?,
        Part::Slice(query) => pg::copy_out(session, query).await?,
    };
    let mut text = Vec::new();
    loop {
        // The server sends each row as one message.
        let row = rows.try_next().await.map_err(pg::in_its_own_words)?;
        if let Some(row) = &row {
            if text.is_empty() {
                text.reserve(ROWS_BYTES + (64 << 10));
                text.extend_from_slice(table.head().as_bytes());
            }
            text.extend_from_slice(row);
        }
        if !text.is_empty() && (row.is_none() || text.len() >= ROWS_BYTES) {
            anyhow::ensure!(text.ends_with(b"\n"), "the server's last row is incomplete");
            work.is_written[number].store(true, Relaxed);
            work.pieces.add(ended(std::mem::take(&mut text))).await?;
        }
        if row.is_none() {
            return Ok(());
        }
    }
}

fn ended(mut rows: Vec<u8>) -> Vec<u8> {
    rows.extend_from_slice(b"\\.\n\n\n");
    rows
}
